//! Nodes, their store, and seeds that mix holds, settlements, returns, crashes and caps that change, by
//! the same steps as the thread that writes takes them: the store is asked at one time, and the books
//! hear of it later.

mod cases;
mod properties;

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
