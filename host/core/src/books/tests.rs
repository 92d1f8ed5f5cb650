//! Nodes, their store, and seeds that mix holds, settlements, returns, crashes and caps that change, by
//! the same steps as the thread that writes takes them: the store is asked at one time, and the books
//! hear of it later.

use std::collections::BTreeMap;

use proptest::prelude::*;

use super::*;
use crate::refill::{Wanted, let_in};
use crate::vault::Vault;

fn usd(nanos: u64) -> NanoUsd {
    NanoUsd::from_nanos(nanos)
}

fn cap(nanos: u64) -> Cap {
    Cap { amount: usd(nanos), mode: Mode::Enforce }
}

fn place(id: AccountId) -> usize {
    usize::try_from(id.0).expect("a place")
}

/// An account's row, and what each node has leased of it.
#[derive(Clone, Debug)]
struct Row {
    cap: Cap,
    vault: Vault,
    leases: Vec<NanoUsd>,
}

/// A hold under way, or somebody who waits for one.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Ask {
    node: usize,
    accounts: Vec<AccountId>,
    amount: NanoUsd,
}

/// A node, and what of it the store does not know.
#[derive(Default)]
struct Node {
    books: Books,
    charges: Vec<(AccountId, NanoUsd)>,
    waiting: Vec<Ask>,
    writing: Option<Writing>,
}

/// What the store has taken, and the books have not heard of.
struct Writing {
    charges: Vec<(AccountId, NanoUsd)>,
    back: Vec<(AccountId, NanoUsd)>,
    granted: BTreeMap<AccountId, (Cap, Grant)>,
    waiting: Vec<Ask>,
    /// The store as it was.
    before: Vec<Row>,
}

/// Nodes and their store in one.
struct World {
    rows: Vec<Row>,
    nodes: Vec<Node>,
    now: Instant,
    open: Vec<Ask>,
    /// What settlements came to, by account.
    billed: Vec<NanoUsd>,
    refused: Vec<(Ask, Short)>,
    /// Somebody had to ask twice.
    again: usize,
}

impl World {
    fn new(caps: &[u64], nodes: usize) -> World {
        let vault = Vault::default();
        let row = |amount: &u64| Row { cap: cap(*amount), vault, leases: vec![NanoUsd::ZERO; nodes] };
        World {
            rows: caps.iter().map(row).collect(),
            nodes: (0..nodes).map(|_| Node::default()).collect(),
            now: Instant::now(),
            open: Vec::new(),
            billed: vec![NanoUsd::ZERO; caps.len()],
            refused: Vec::new(),
            again: 0,
        }
    }

    /// From the lease, or it waits.
    fn ask(&mut self, ask: Ask) {
        match self.nodes[ask.node].books.hold(&ask.accounts, ask.amount, false, self.now) {
            Ok(()) => self.open.push(ask),
            Err(Short::Lease(_)) => self.nodes[ask.node].waiting.push(ask),
            Err(short) => self.refused.push((ask, short)),
        }
    }

    /// The store takes what has ended and what rests, and is asked for those who wait.
    fn begin(&mut self, node: usize) {
        let before = self.rows.clone();
        let World { rows, nodes, now, .. } = self;
        let Node { books, charges, waiting, writing } = &mut nodes[node];
        if writing.is_some() {
            return;
        }
        let (charges, waiting, back) = (std::mem::take(charges), std::mem::take(waiting), books.idle(*now));
        let mut stored: BTreeMap<AccountId, NanoUsd> = BTreeMap::new();
        for (id, charge) in &charges {
            rows[place(*id)].settle(node, *charge);
            let sum = stored.entry(*id).or_default();
            *sum = sum.saturating_add(*charge);
        }
        for (id, free) in &back {
            rows[place(*id)].give_back(node, *free);
        }
        let ids: Vec<AccountId> = waiting.iter().flat_map(|ask| ask.accounts.clone()).collect();
        let mut wanted: Vec<Wanted> = Vec::new();
        let mut places: BTreeMap<AccountId, usize> = BTreeMap::new();
        for id in ids {
            places.entry(id).or_insert_with(|| {
                let Row { cap, vault, leases } = &rows[place(id)];
                let stored = stored.get(&id).copied().unwrap_or_default();
                let promised = books.promised(id).saturating_sub(stored);
                wanted.push(Wanted::new(*cap, *vault, leases[node], promised));
                wanted.len() - 1
            });
        }
        for ask in &waiting {
            let of_it: Vec<usize> = ask.accounts.iter().map(|id| places[id]).collect();
            let_in(&mut wanted, &of_it, ask.amount);
        }
        let mut granted = BTreeMap::new();
        for (id, at) in places {
            let leased = wanted[at].lease();
            rows[place(id)].add(node, leased);
            granted.insert(id, (rows[place(id)].cap, wanted[at].grant()));
        }
        *writing = Some(Writing { charges, back, granted, waiting, before });
    }

    /// The books hear of it, and who has waited holds.
    fn done(&mut self, node: usize) {
        let World { rows, nodes, now, open, refused, again, .. } = self;
        let Node { books, waiting: next, writing, .. } = &mut nodes[node];
        let Some(Writing { charges, back, granted, waiting, .. }) = writing.take() else { return };
        for (id, charge) in charges {
            books.stored(id, charge);
        }
        for (id, free) in back {
            books.returned(id, free);
        }
        for (id, (cap, grant)) in granted {
            books.granted(id, cap, grant, *now);
            books.go_by(id, rows[place(id)].cap);
        }
        for ask in waiting {
            match books.hold(&ask.accounts, ask.amount, true, *now) {
                Ok(()) => open.push(ask),
                Err(Short::Lease(_)) => {
                    *again += 1;
                    next.push(ask);
                }
                Err(short) => refused.push((ask, short)),
            }
        }
    }

    /// The store has not taken it after all. Others have not written meanwhile: it has one writer.
    fn fail(&mut self, node: usize) {
        let Node { books, charges, waiting, writing } = &mut self.nodes[node];
        let Some(failed) = writing.take() else { return };
        for (row, before) in self.rows.iter_mut().zip(failed.before) {
            *row = Row { cap: row.cap, ..before };
        }
        failed.back.iter().for_each(|(id, free)| books.kept(*id, *free));
        charges.splice(0..0, failed.charges);
        waiting.splice(0..0, failed.waiting);
    }

    fn settle(&mut self, place: usize, charge: impl Fn(NanoUsd) -> NanoUsd) -> Vec<Overrun> {
        let Ask { node, accounts, amount } = self.open.swap_remove(place);
        let charge = charge(amount);
        let overruns = self.nodes[node].books.settle(&accounts, amount, charge);
        for id in accounts {
            self.nodes[node].charges.push((id, charge));
            let billed = &mut self.billed[self::place(id)];
            *billed = billed.saturating_add(charge);
        }
        overruns
    }

    fn set_cap(&mut self, account: usize, cap: Cap) {
        self.rows[account].cap = cap;
        let id = AccountId(i64::try_from(account).expect("few"));
        self.nodes.iter_mut().for_each(|node| node.books.go_by(id, cap));
    }

    /// The process is killed: its journal says what has ended, and which holds were open.
    fn crash(&mut self, node: usize) {
        let dead = std::mem::take(&mut self.nodes[node]);
        for (id, charge) in dead.charges {
            self.rows[place(id)].settle(node, charge);
        }
        let lost: Vec<Ask> = self.open.iter().filter(|open| open.node == node).cloned().collect();
        self.open.retain(|open| open.node != node);
        for (row, account) in self.rows.iter_mut().zip(0..) {
            let of_it = lost.iter().filter(|open| open.accounts.contains(&AccountId(account)));
            let doubt = of_it.fold(NanoUsd::ZERO, |sum, open| sum.saturating_add(open.amount));
            row.vault.orphan(std::mem::take(&mut row.leases[node]), doubt);
        }
    }

    /// Held by a node, and settled there and not in the store, by the world's own count.
    fn promised(&self, node: usize, id: AccountId) -> (u64, u64) {
        let of_it = |open: &&Ask| open.node == node && open.accounts.contains(&id);
        let held = self.open.iter().filter(of_it).map(|open| open.amount.nanos()).sum();
        let charges = self.nodes[node].charges.iter().filter(|(of, _)| *of == id);
        (held, charges.map(|(_, charge)| charge.nanos()).sum())
    }

    /// The parts add up, in the store and in the books of who is not in the middle of a batch.
    fn check(&self) -> Result<(), TestCaseError> {
        for (row, account) in self.rows.iter().zip(0_i64..) {
            let id = AccountId(account);
            let leased: u64 = row.leases.iter().map(|lease| lease.nanos()).sum();
            prop_assert_eq!(leased, row.vault.leased.nanos());
            let mut settled = row.vault.settled.nanos();
            for (node, Node { books, writing, .. }) in self.nodes.iter().enumerate() {
                let (held, unstored) = self.promised(node, id);
                settled += unstored;
                let known = books.leases().find(|lease| lease.0 == id);
                let (lease, counted) = known.map_or((0, 0), |(_, lease, held)| (lease.nanos(), held.nanos()));
                prop_assert_eq!(counted, held);
                if writing.is_none() {
                    prop_assert_eq!(
                        lease,
                        row.leases[node].nanos().saturating_sub(unstored),
                        "of node {}",
                        node
                    );
                }
            }
            prop_assert_eq!(settled, self.billed[place(id)].nanos());
        }
        Ok(())
    }

    /// All that is spent, held or leased to others, as a node knows it.
    fn spent(&self, node: usize, id: AccountId) -> u64 {
        let Row { vault, leases, .. } = &self.rows[place(id)];
        let (held, unstored) = self.promised(node, id);
        vault.spent().nanos() + (vault.leased.nanos() - leases[node].nanos()) + held + unstored
    }

    fn enforced(&self, ask: &Ask) -> impl Iterator<Item = AccountId> {
        let enforced = |id: &&AccountId| self.rows[place(**id)].cap.mode == Mode::Enforce;
        ask.accounts.iter().filter(enforced).copied().collect::<Vec<_>>().into_iter()
    }
}

impl Row {
    fn settle(&mut self, node: usize, charge: NanoUsd) {
        let lease = &mut self.leases[node];
        self.vault.settle(*lease, charge);
        *lease = lease.saturating_sub(charge);
    }

    fn give_back(&mut self, node: usize, free: NanoUsd) {
        self.vault.give_back(free);
        self.leases[node] = self.leases[node].saturating_sub(free);
    }

    fn add(&mut self, node: usize, leased: NanoUsd) {
        self.vault.leased = self.vault.leased.saturating_add(leased);
        self.leases[node] = self.leases[node].saturating_add(leased);
    }
}

#[derive(Clone, Debug)]
enum Step {
    Hold { node: usize, accounts: Vec<i64>, amount: u64 },
    Settle { place: usize, permille: u64 },
    Begin { node: usize },
    Done { node: usize },
    Fail { node: usize },
    Wait { seconds: u64 },
    Crash { node: usize },
    Cap { account: usize, cap: Cap },
}

/// `fixed`: caps stay, and no attempt costs more than was held.
fn step(nodes: usize, fixed: bool) -> BoxedStrategy<Step> {
    let accounts = prop::collection::btree_set(0_i64..3, 1..4).prop_map(|ids| ids.into_iter().collect());
    let permille = if fixed { 0_u64..=1000 } else { 0..=1300 };
    let mode = prop_oneof![4 => Just(Mode::Enforce), 1 => Just(Mode::Shadow)];
    let caps = (0_usize..3, 0_u64..5000, mode)
        .prop_map(|(account, amount, mode)| Step::Cap { account, cap: Cap { amount: usd(amount), mode } });
    prop_oneof![
        10 => (0..nodes, accounts, 1_u64..400).prop_map(|(node, accounts, amount)| Step::Hold { node, accounts, amount }),
        8 => (any::<usize>(), permille).prop_map(|(place, permille)| Step::Settle { place, permille }),
        5 => (0..nodes).prop_map(|node| Step::Begin { node }),
        5 => (0..nodes).prop_map(|node| Step::Done { node }),
        1 => (0_u64..7).prop_map(|seconds| Step::Wait { seconds }),
        1 => (0..nodes).prop_map(|node| Step::Crash { node }),
        u32::from(nodes == 1) => (0..nodes).prop_map(|node| Step::Fail { node }),
        u32::from(!fixed) => caps,
    ]
    .boxed()
}

fn take(world: &mut World, step: Step) {
    match step {
        Step::Hold { node, accounts, amount } => {
            let accounts = accounts.into_iter().map(AccountId).collect();
            world.ask(Ask { node, accounts, amount: usd(amount) });
        }
        Step::Settle { place, permille } if !world.open.is_empty() => {
            world.settle(place % world.open.len(), |held| usd(held.nanos() * permille / 1000));
        }
        Step::Settle { .. } => {}
        Step::Begin { node } => world.begin(node),
        Step::Done { node } => world.done(node),
        Step::Fail { node } => world.fail(node),
        Step::Wait { seconds } => world.now += Duration::from_secs(seconds),
        Step::Crash { node } => world.crash(node),
        Step::Cap { account, cap } => world.set_cap(account, cap),
    }
}

/// At rest nothing is held, nobody waits, and what was leased has all gone back.
fn comes_to_rest(world: &mut World) -> Result<(), TestCaseError> {
    for _ in 0..4 {
        for node in 0..world.nodes.len() {
            world.done(node);
            world.begin(node);
            let again = world.again;
            world.done(node);
            prop_assert_eq!(world.again, again, "whom nobody disturbs asks once");
        }
        while !world.open.is_empty() {
            world.settle(0, |held| held);
        }
        world.now += IDLE_MAX;
    }
    world.check()?;
    prop_assert!(world.nodes.iter().all(|node| node.waiting.is_empty() && node.books.len() == 0));
    prop_assert!(world.rows.iter().all(|row| row.vault.leased == NanoUsd::ZERO));
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    /// Whatever happens on two nodes, no account has promised more than its cap, and the parts add up.
    #[test]
    fn no_account_promises_more_than_its_cap(steps in prop::collection::vec(step(2, true), 0..150)) {
        let mut world = World::new(&[1000, 700, 5000], 2);
        for step in steps {
            take(&mut world, step);
            world.check()?;
            for Row { cap, vault, .. } in &world.rows {
                let promised = vault.spent().saturating_add(vault.leased);
                prop_assert!(promised <= cap.amount, "{:?} of {:?}", vault, cap);
            }
            for (node, id) in (0..2).flat_map(|node| (0..3).map(move |id| (node, AccountId(id)))) {
                prop_assert!(world.spent(node, id) <= world.rows[place(id)].cap.amount.nanos());
            }
        }
        comes_to_rest(&mut world)?;
    }

    /// With caps that change and attempts that cost more than was held: from then on nobody gets what is
    /// not there, and who is refused is refused with reason.
    #[test]
    fn nobody_gets_what_is_not_there_and_nobody_is_refused_what_is(
        steps in prop::collection::vec(step(1, false), 0..150),
    ) {
        let mut world = World::new(&[1000, 700, 5000], 1);
        for step in steps {
            let (open, refused) = (world.open.len(), world.refused.len());
            let adds = matches!(step, Step::Hold { .. } | Step::Done { .. });
            take(&mut world, step);
            world.check()?;
            for ask in world.open.iter().skip(open).filter(|_| adds) {
                for id in world.enforced(ask) {
                    let (spent, cap) = (world.spent(0, id), world.rows[place(id)].cap.amount.nanos());
                    prop_assert!(spent <= cap, "{:?}: {} of {}", ask, spent, cap);
                }
            }
            for (ask, short) in world.refused.iter().skip(refused) {
                let (Short::Held(id) | Short::Exhausted(id) | Short::Lease(id)) = *short;
                let (held, _) = world.promised(0, id);
                let (spent, cap) = (world.spent(0, id), world.rows[place(id)].cap.amount.nanos());
                // Others who have waited may have come first: what they hold is counted.
                prop_assert!(spent + ask.amount.nanos() > cap, "{:?}: {} of {}", ask, spent, cap);
                match short {
                    Short::Lease(_) => prop_assert!(false, "the store was asked"),
                    Short::Held(_) => prop_assert!(spent - held + ask.amount.nanos() <= cap),
                    Short::Exhausted(_) => prop_assert!(spent - held + ask.amount.nanos() > cap),
                }
            }
        }
        comes_to_rest(&mut world)?;
    }
}

/// Asks at once, and hears what came of it.
fn held(world: &mut World, accounts: &[AccountId], amount: u64) -> Result<(), Short> {
    let refused = world.refused.len();
    world.ask(Ask { node: 0, accounts: accounts.to_vec(), amount: usd(amount) });
    world.begin(0);
    world.done(0);
    assert!(world.nodes[0].waiting.is_empty());
    world.refused.get(refused).map_or(Ok(()), |(_, short)| Err(*short))
}

const ONE: [AccountId; 1] = [AccountId(0)];

#[test]
fn an_overrun_is_debt_of_the_account() {
    let mut world = World::new(&[1000], 1);
    held(&mut world, &ONE, 100).unwrap();
    assert_eq!(world.settle(0, |_| usd(950)), [Overrun { account: AccountId(0), beyond: usd(850) }]);
    assert_eq!(held(&mut world, &ONE, 51), Err(Short::Exhausted(AccountId(0))));
    assert_eq!(world.rows[0].vault.spent(), usd(950));
    held(&mut world, &ONE, 50).unwrap();
}

/// The store has leased before it hears of the debt; the books know of both.
#[test]
fn an_overrun_that_comes_while_the_store_is_asked_is_debt_too() {
    let mut world = World::new(&[300], 1);
    held(&mut world, &ONE, 10).unwrap();
    held(&mut world, &ONE, 30).unwrap();
    world.ask(Ask { node: 0, accounts: ONE.to_vec(), amount: usd(215) });
    world.begin(0);
    assert_eq!(world.rows[0].vault.leased, usd(300));
    world.settle(0, |_| usd(60));
    world.done(0);
    assert_eq!(world.refused.len(), 1, "60, 30 and 215 are more than 300");
    held(&mut world, &ONE, 210).unwrap();
}

#[test]
fn what_is_held_may_come_back_what_is_spent_does_not() {
    let mut world = World::new(&[100], 1);
    held(&mut world, &ONE, 60).unwrap();
    assert_eq!(held(&mut world, &ONE, 60), Err(Short::Held(AccountId(0))));
    world.settle(0, |_| usd(50));
    assert_eq!(held(&mut world, &ONE, 60), Err(Short::Exhausted(AccountId(0))));
    held(&mut world, &ONE, 50).unwrap();
}

#[test]
fn a_shadow_account_refuses_nobody_and_leases_nothing() {
    let mut world = World::new(&[1, 1000], 1);
    world.set_cap(0, Cap { mode: Mode::Shadow, ..cap(1) });
    held(&mut world, &[AccountId(0), AccountId(1)], 100).unwrap();
    assert_eq!((world.rows[0].vault.leased, world.again), (NanoUsd::ZERO, 0));
    world.settle(0, |held| held);
    held(&mut world, &ONE, 100).unwrap();
    // From now on it refuses, and what is under way counts.
    world.set_cap(0, cap(250));
    assert_eq!(held(&mut world, &ONE, 51), Err(Short::Held(AccountId(0))));
    held(&mut world, &ONE, 50).unwrap();
}

/// A run that is new asks for its own account; of the others it leases nothing, as long as they have
/// enough.
#[test]
fn many_new_accounts_do_not_lease_the_old_one_away() {
    let caps: Vec<u64> = [100_000].into_iter().chain([200; 200]).collect();
    let mut world = World::new(&caps, 1);
    for run in 1..200 {
        held(&mut world, &[AccountId(0), AccountId(run)], 10).unwrap();
        world.settle(0, |_| usd(1));
    }
    assert_eq!(
        world.rows[0].vault.leased.nanos(),
        100_000 / 8 - 198,
        "one block, and what was settled of it"
    );
}

#[test]
fn those_who_wait_together_all_get_what_is_there() {
    let mut world = World::new(&[44], 1);
    held(&mut world, &ONE, 4).unwrap();
    world.settle(0, |_| usd(0));
    for _ in 0..10 {
        world.ask(Ask { node: 0, accounts: ONE.to_vec(), amount: usd(5) });
    }
    world.begin(0);
    world.done(0);
    assert_eq!((world.open.len(), world.refused.len(), world.again), (8, 2, 0), "eight times five are 40");
}

#[test]
fn a_cap_that_is_lowered_holds_for_what_is_leased() {
    let mut world = World::new(&[1000], 1);
    held(&mut world, &ONE, 100).unwrap();
    world.set_cap(0, cap(50));
    assert_eq!(held(&mut world, &ONE, 1), Err(Short::Held(AccountId(0))));
    world.settle(0, |_| usd(30));
    // Of the lease by the old cap 370 are left here.
    world.ask(Ask { node: 0, accounts: ONE.to_vec(), amount: usd(21) });
    assert_eq!(world.nodes[0].waiting.len(), 1, "it is not held of that");
    world.begin(0);
    world.done(0);
    assert_eq!(world.refused.last().map(|(_, short)| *short), Some(Short::Exhausted(AccountId(0))));
    held(&mut world, &ONE, 20).unwrap();
    assert!(world.rows[0].vault.leased <= usd(20), "what was leased by the old cap is back");
}

#[test]
fn a_lease_that_rests_goes_back_and_one_in_use_stays() {
    let mut world = World::new(&[1000, 1000], 1);
    held(&mut world, &[AccountId(0)], 10).unwrap();
    held(&mut world, &[AccountId(1)], 10).unwrap();
    world.settle(1, |_| usd(4));
    let later = world.now + IDLE_MAX;
    let books = &mut world.nodes[0].books;
    assert_eq!(books.idle(later - Duration::from_millis(1)), []);
    let back = books.idle(later);
    assert_eq!(back, [(AccountId(0), usd(115)), (AccountId(1), usd(121))]);
    // The store fails: they are here, and go back at the next look.
    back.iter().for_each(|(id, free)| books.kept(*id, *free));
    books.stored(AccountId(1), usd(4));
    assert_eq!(books.idle(later), back);
    back.iter().for_each(|(id, free)| books.returned(*id, *free));
    assert!(books.rest(AccountId(0)).is_some(), "something is held on it");
    assert!(books.rest(AccountId(1)).is_none());
}
