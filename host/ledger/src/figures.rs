//! The ledger in figures: what is held, leased, settled, in doubt.

use std::sync::atomic::Ordering;

use sluice_core::money::NanoUsd;

use crate::spending::Spending;

/// What is held, leased, waiting, in sum over all accounts.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Figures {
    /// Holds under way.
    pub holds: u64,
    /// On the accounts, each hold once for each of them.
    pub held: NanoUsd,
    /// Leased from the store, what is held among it.
    pub leased: NanoUsd,
    /// Settled since the start, each attempt once.
    pub settled: NanoUsd,
    /// Beyond what was held, since the start.
    pub overrun: NanoUsd,
    /// Accounts that something was drawn on lately.
    pub accounts: usize,
    /// Holds that a process left behind, and what they were of, when the store was asked last.
    pub in_doubt: Unresolved,
    /// Rows that the store does not have yet.
    pub waiting: usize,
    /// Why the store takes nothing.
    pub trouble: Option<&'static str>,
}

/// What is in doubt.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Unresolved {
    /// How many there are.
    pub count: u64,
    /// Their sum.
    pub amount: NanoUsd,
}

impl Spending {
    /// The sums of the moment.
    pub fn figures(&self) -> Figures {
        let inner = self.lock();
        let mut figures = Figures {
            holds: inner.open.len() as u64,
            accounts: inner.books.len(),
            in_doubt: inner.in_doubt,
            waiting: inner.queue.rows.len(),
            trouble: inner.trouble,
            settled: NanoUsd::from_nanos(self.totals.settled.load(Ordering::Relaxed)),
            overrun: NanoUsd::from_nanos(self.totals.overrun.load(Ordering::Relaxed)),
            ..Figures::default()
        };
        for (_, lease, held) in inner.books.leases() {
            figures.leased = figures.leased.saturating_add(lease);
            figures.held = figures.held.saturating_add(held);
        }
        figures
    }
}
