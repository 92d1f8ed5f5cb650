//! Nodes, their store, and seeds that mix holds, settlements, returns, crashes and caps.

use proptest::prelude::*;

use super::*;
use crate::vault::Vault;

const ENFORCED: Mode = Mode::Enforce;

/// A store with a row for each account, and what each node has leased of it.
struct Store {
    caps: Vec<NanoUsd>,
    rows: Vec<Vault>,
    leases: Vec<HashMap<AccountId, NanoUsd>>,
}

/// A hold under way.
#[derive(Clone, Debug)]
struct Open {
    node: usize,
    accounts: Vec<AccountId>,
    amount: NanoUsd,
}

fn usd(nanos: u64) -> NanoUsd {
    NanoUsd::from_nanos(nanos)
}

fn place(id: AccountId) -> usize {
    usize::try_from(id.0).expect("a place")
}

impl Store {
    fn new(caps: &[u64], nodes: usize) -> Store {
        Store {
            caps: caps.iter().map(|cap| usd(*cap)).collect(),
            rows: vec![Vault::default(); caps.len()],
            leases: vec![HashMap::new(); nodes],
        }
    }

    /// What a node asks when it is short: its settlements have been told before.
    fn refill(&mut self, node: usize, id: AccountId, lacking: NanoUsd) -> Grant {
        let (row, cap) = (&mut self.rows[place(id)], self.caps[place(id)]);
        let leased = row.lease(cap, lacking);
        let lease = self.leases[node].entry(id).or_default();
        *lease = lease.saturating_add(leased);
        Grant { mode: ENFORCED, cap, spent: row.spent(), headroom: row.headroom(cap), leased }
    }

    fn settle(&mut self, node: usize, id: AccountId, charge: NanoUsd) {
        let lease = self.leases[node].entry(id).or_default();
        self.rows[place(id)].settle(*lease, charge).expect("fits");
        *lease = lease.saturating_sub(charge);
    }

    fn give_back(&mut self, node: usize, id: AccountId, free: NanoUsd) {
        self.rows[place(id)].give_back(free);
        let lease = self.leases[node].entry(id).or_default();
        *lease = lease.saturating_sub(free);
    }
}

/// Nodes and their store in one.
struct World {
    store: Store,
    nodes: Vec<Books>,
    now: Instant,
    open: Vec<Open>,
    /// What settlements came to, by account.
    billed: Vec<NanoUsd>,
}

impl World {
    fn new(caps: &[u64], nodes: usize) -> World {
        World {
            store: Store::new(caps, nodes),
            nodes: (0..nodes).map(|_| Books::default()).collect(),
            now: Instant::now(),
            open: Vec::new(),
            billed: vec![NanoUsd::ZERO; caps.len()],
        }
    }

    /// As a gateway does it: from the lease, else once more after the store was asked for all that lack.
    fn hold(&mut self, node: usize, accounts: &[AccountId], amount: NanoUsd) -> Result<(), Short> {
        if let Err(short) = self.nodes[node].hold(accounts, amount, false, self.now) {
            let Short::Lease(_) = short else { return Err(short) };
            for id in accounts {
                if self.nodes[node].is_short_of(*id, amount) {
                    let free = self.nodes[node].rest(*id).map_or(NanoUsd::ZERO, |_| self.free(node, *id));
                    let grant = self.store.refill(node, *id, amount.saturating_sub(free));
                    self.nodes[node].granted(*id, grant, self.now);
                }
            }
            self.nodes[node].hold(accounts, amount, true, self.now)?;
        }
        self.open.push(Open { node, accounts: accounts.to_vec(), amount });
        Ok(())
    }

    fn free(&self, node: usize, id: AccountId) -> NanoUsd {
        let mut leases = self.nodes[node].leases();
        leases
            .find(|lease| lease.0 == id)
            .map_or(NanoUsd::ZERO, |(_, lease, held)| lease.saturating_sub(held))
    }

    fn settle(&mut self, place: usize, charge: impl Fn(NanoUsd) -> NanoUsd) {
        let Open { node, accounts, amount } = self.open.swap_remove(place);
        let charge = charge(amount);
        self.nodes[node].settle(&accounts, amount, charge);
        for id in accounts {
            self.store.settle(node, id, charge);
            self.nodes[node].stored(id, charge);
            let billed = &mut self.billed[self::place(id)];
            *billed = billed.saturating_add(charge);
        }
    }

    /// The process is killed: its journal says which holds were open, each worth what it held.
    fn crash(&mut self, node: usize) {
        self.nodes[node] = Books::default();
        let lost: Vec<Open> = self.open.iter().filter(|open| open.node == node).cloned().collect();
        self.open.retain(|open| open.node != node);
        for (id, lease) in std::mem::take(&mut self.store.leases[node]) {
            let of_it = lost.iter().filter(|open| open.accounts.contains(&id));
            let doubt = of_it.fold(NanoUsd::ZERO, |sum, open| sum.saturating_add(open.amount));
            self.store.rows[place(id)].orphan(lease, doubt);
        }
    }

    fn check(&self) -> Result<(), TestCaseError> {
        for (account, row) in self.store.rows.iter().enumerate() {
            let (id, cap) = (AccountId(i64::try_from(account).expect("few")), self.store.caps[account]);
            let promised = row.spent().checked_add(row.leased).expect("fits");
            prop_assert!(promised <= cap, "account {account}: {row:?} of {cap}");
            let leased: u64 =
                self.store.leases.iter().filter_map(|of| of.get(&id)).map(|of| of.nanos()).sum();
            prop_assert_eq!(leased, row.leased.nanos());
            prop_assert_eq!(row.settled, self.billed[account]);
            for (node, books) in self.nodes.iter().enumerate() {
                let held: u64 = self
                    .open
                    .iter()
                    .filter(|open| open.node == node && open.accounts.contains(&id))
                    .map(|open| open.amount.nanos())
                    .sum();
                let known = books.leases().find(|lease| lease.0 == id);
                let (lease, counted) = known.map_or((0, 0), |(_, lease, held)| (lease.nanos(), held.nanos()));
                prop_assert_eq!(counted, held);
                prop_assert!(held <= lease, "a hold is covered by the lease");
                prop_assert_eq!(lease, self.store.leases[node].get(&id).map_or(0, |of| of.nanos()));
            }
        }
        Ok(())
    }
}

#[derive(Clone, Debug)]
enum Step {
    Hold { node: usize, accounts: Vec<i64>, amount: u64 },
    Settle { place: usize, permille: u64 },
    Idle { node: usize },
    Wait { seconds: u64 },
    Crash { node: usize },
}

fn step() -> impl Strategy<Value = Step> {
    let accounts = prop::collection::btree_set(0_i64..3, 1..4).prop_map(|ids| ids.into_iter().collect());
    prop_oneof![
        8 => (0_usize..2, accounts, 0_u64..400).prop_map(|(node, accounts, amount)| Step::Hold { node, accounts, amount }),
        6 => (any::<usize>(), 0_u64..=1000).prop_map(|(place, permille)| Step::Settle { place, permille }),
        1 => (0_usize..2).prop_map(|node| Step::Idle { node }),
        1 => (0_u64..7).prop_map(|seconds| Step::Wait { seconds }),
        1 => (0_usize..2).prop_map(|node| Step::Crash { node }),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    /// Whatever happens, no account has promised more than its cap, and the parts add up.
    #[test]
    fn no_account_promises_more_than_its_cap(steps in prop::collection::vec(step(), 0..120)) {
        let mut world = World::new(&[1000, 700, 5000], 2);
        for step in steps {
            match step {
                Step::Hold { node, accounts, amount } => {
                    let accounts: Vec<AccountId> = accounts.into_iter().map(AccountId).collect();
                    let before: Vec<_> = world.open.clone().iter().map(|open| open.amount).collect();
                    if let Err(short) = world.hold(node, &accounts, usd(amount)) {
                        let after: Vec<_> = world.open.iter().map(|open| open.amount).collect();
                        prop_assert_eq!(before, after, "all accounts or none");
                        let (Short::Held(id) | Short::Exhausted(id) | Short::Lease(id)) = short;
                        refused_with_reason(&world, node, id, usd(amount), short)?;
                    }
                }
                Step::Settle { place, permille } if !world.open.is_empty() => {
                    let place = place % world.open.len();
                    world.settle(place, |held| usd(held.nanos() * permille / 1000));
                }
                Step::Settle { .. } => {}
                Step::Idle { node } => {
                    for (id, free) in world.nodes[node].idle(world.now) {
                        world.store.give_back(node, id, free);
                    }
                }
                Step::Wait { seconds } => world.now += Duration::from_secs(seconds),
                Step::Crash { node } => world.crash(node),
            }
            world.check()?;
        }
        // At rest nothing is held, and what was leased can all go back.
        while !world.open.is_empty() {
            world.settle(0, |held| held);
        }
        for node in 0..2 {
            for (id, free) in world.nodes[node].all_free() {
                world.store.give_back(node, id, free);
            }
        }
        world.check()?;
        prop_assert!(world.store.rows.iter().all(|row| row.leased == NanoUsd::ZERO));
    }
}

/// A caller is refused only when what is left, less other holds and leases, is below what it needs;
/// and it is told whether waiting helps.
fn refused_with_reason(
    world: &World,
    node: usize,
    id: AccountId,
    amount: NanoUsd,
    short: Short,
) -> Result<(), TestCaseError> {
    let (row, cap) = (world.store.rows[place(id)], world.store.caps[place(id)]);
    let here = world.free(node, id);
    prop_assert!(amount > here.saturating_add(row.headroom(cap)), "{:?} of {:?}", amount, row);
    match short {
        Short::Lease(_) => prop_assert!(false, "the store was asked"),
        // Other nodes' settlements may not be known here yet, never the other way round.
        Short::Held(_) => {}
        Short::Exhausted(_) => prop_assert!(amount > cap.saturating_sub(row.spent())),
    }
    Ok(())
}

#[test]
fn an_overrun_is_debt_of_the_account() {
    let mut world = World::new(&[1000], 1);
    let account = [AccountId(0)];
    world.hold(0, &account, usd(100)).unwrap();
    world.settle(0, |_| usd(950));
    assert_eq!(world.store.rows[0].spent(), usd(950));
    assert_eq!(world.hold(0, &account, usd(51)), Err(Short::Exhausted(AccountId(0))));
    world.hold(0, &account, usd(50)).unwrap();
    let overruns = world.nodes[0].settle(&account, usd(50), usd(60));
    assert_eq!(overruns, [Overrun { account: AccountId(0), beyond: usd(10) }]);
}

#[test]
fn what_is_held_may_come_back_what_is_spent_does_not() {
    let mut world = World::new(&[100], 1);
    let account = [AccountId(0)];
    world.hold(0, &account, usd(60)).unwrap();
    assert_eq!(world.hold(0, &account, usd(60)), Err(Short::Held(AccountId(0))));
    world.settle(0, |_| usd(50));
    assert_eq!(world.hold(0, &account, usd(60)), Err(Short::Exhausted(AccountId(0))));
    world.hold(0, &account, usd(50)).unwrap();
}

#[test]
fn a_shadow_account_refuses_nobody() {
    let mut books = Books::default();
    let now = Instant::now();
    let grant = Grant { mode: Mode::Shadow, cap: usd(1), spent: usd(1), headroom: usd(0), leased: usd(0) };
    books.granted(AccountId(1), grant, now);
    assert_eq!(books.hold(&[AccountId(1)], usd(100), false, now), Ok(()));
    books.settle(&[AccountId(1)], usd(100), usd(100));
    assert_eq!(books.rest(AccountId(1)).map(|rest| rest.holds), Some(0));
}

#[test]
fn a_lease_that_rests_goes_back_and_one_in_use_stays() {
    let mut world = World::new(&[1000, 1000], 1);
    world.hold(0, &[AccountId(0)], usd(10)).unwrap();
    world.hold(0, &[AccountId(1)], usd(10)).unwrap();
    world.settle(1, |_| usd(4));
    let later = world.now + IDLE_MAX;
    assert_eq!(world.nodes[0].idle(later - Duration::from_millis(1)), []);
    let back = world.nodes[0].idle(later);
    assert_eq!(back, [(AccountId(0), usd(115)), (AccountId(1), usd(121))]);
    assert!(world.nodes[0].rest(AccountId(0)).is_some(), "something is held on it");
    assert!(world.nodes[0].rest(AccountId(1)).is_none());
}

/// A budget is edited while some of it is leased.
#[test]
fn an_edit_counts_from_its_first_call_on() {
    let mut world = World::new(&[1000], 1);
    let account = [AccountId(0)];
    world.hold(0, &account, usd(100)).unwrap();
    assert!(world.nodes[0].free(AccountId(0)) >= usd(100), "the next one needs no store");
    world.store.caps[0] = usd(150);
    world.nodes[0].govern(AccountId(0), ENFORCED, usd(150));
    assert_eq!(world.hold(0, &account, usd(60)), Err(Short::Held(AccountId(0))));
    assert_eq!(world.hold(0, &account, usd(160)), Err(Short::Exhausted(AccountId(0))));
    assert_eq!(world.nodes[0].rest(AccountId(0)).unwrap().left, usd(50));
    world.hold(0, &account, usd(50)).unwrap();
    world.settle(0, |amount| amount);
    world.nodes[0].govern(AccountId(0), ENFORCED, usd(90));
    world.store.caps[0] = usd(90);
    assert_eq!(world.hold(0, &account, usd(1)), Err(Short::Exhausted(AccountId(0))));
    world.nodes[0].govern(AccountId(0), Mode::Shadow, usd(90));
    assert_eq!(world.nodes[0].hold(&account, usd(1), false, world.now), Ok(()), "it only counts");
}
