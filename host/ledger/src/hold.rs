//! Money that is held for one attempt, and its one end.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use compact_str::CompactString;
use sluice_core::books::Overrun;
use sluice_core::money::NanoUsd;

use crate::journal::{Accounts, HoldId, Record, Written};
use crate::rows::Row;
use crate::spending::{Spending, why};

/// Money that is held for one attempt. It ends once: settled, or given back where nothing was sent.
/// Dropped after it was sent, it costs all that is held: nobody knows better.
#[must_use = "dropped, it ends"]
pub struct Hold {
    pub(crate) spending: Arc<Spending>,
    pub(crate) id: HoldId,
    pub(crate) accounts: Accounts,
    pub(crate) amount: NanoUsd,
    pub(crate) sent: bool,
    pub(crate) ended: bool,
}

/// An attempt that money is held for.
#[derive(Clone, Debug, Default)]
pub struct Attempt {
    /// The request's id.
    pub request: CompactString,
    /// The upstream and its model.
    pub name: CompactString,
    /// Milliseconds since the Unix epoch.
    pub at_ms: u64,
}

/// Sums since the start.
#[derive(Debug, Default)]
pub(crate) struct Totals {
    pub(crate) settled: AtomicU64,
    pub(crate) overrun: AtomicU64,
    /// Attempts that were said to cost more than any does.
    absurd: AtomicU64,
}

impl Hold {
    /// What is held on each account.
    pub fn amount(&self) -> NanoUsd {
        self.amount
    }

    /// From here on the vendor may work on it, and charge for it.
    pub fn sent(&mut self) {
        self.sent = true;
    }

    /// The attempt is over; it cost so much. With the call's row, if this was its last attempt.
    /// Gives the accounts on which that was more than was held.
    pub fn settle(mut self, charge: NanoUsd, row: Option<Box<Row>>) -> Vec<Overrun> {
        self.end(charge, row)
    }

    /// The attempt is over, and its call goes on. `so_far` is the call's row, if the process dies before
    /// the call ends.
    pub fn settle_so_far(mut self, charge: NanoUsd, so_far: Box<Row>) -> Vec<Overrun> {
        let overruns = self.end(charge, None);
        let record = Record::Underway(so_far);
        let written = Written::new(&record);
        let mut inner = self.spending.lock();
        if let Err(error) = inner.journal.append_written(written) {
            inner.trouble = Some(why(&error));
        }
        drop(inner);
        overruns
    }

    fn end(&mut self, charge: NanoUsd, row: Option<Box<Row>>) -> Vec<Overrun> {
        if std::mem::replace(&mut self.ended, true) {
            return Vec::new();
        }
        let totals = &self.spending.totals;
        let charge = totals.bounded(charge);
        totals.settled.fetch_add(charge.nanos(), Ordering::Relaxed);
        totals.overrun.fetch_add(charge.saturating_sub(self.amount).nanos(), Ordering::Relaxed);
        let record = Record::Settled { id: self.id, charge: charge.nanos(), row };
        let written = Written::new(&record);
        let mut inner = self.spending.lock();
        let overruns = inner.books.settle(&self.accounts, self.amount, charge);
        inner.open.remove(&self.id);
        if let Err(error) = inner.journal.append_written(written) {
            // It stays in the queue; should the process die before the store has it, it is in doubt.
            inner.trouble = Some(why(&error));
        }
        inner.queue.charges.push((self.accounts.clone(), charge));
        if let Record::Settled { row: Some(row), .. } = record {
            inner.queue.rows.push(row);
        }
        overruns
    }
}

impl Totals {
    /// The charge, or the most that an attempt can cost: told the first, second, fourth, eighth time.
    pub(crate) fn bounded(&self, charge: NanoUsd) -> NanoUsd {
        if charge >= NanoUsd::ATTEMPT_MAX {
            let times = self.absurd.fetch_add(1, Ordering::Relaxed) + 1;
            if times.is_power_of_two() {
                tracing::error!(%charge, most = %NanoUsd::ATTEMPT_MAX, times, "an attempt is said to cost more than any can; it costs the most");
            }
        }
        charge.min(NanoUsd::ATTEMPT_MAX)
    }
}

impl Drop for Hold {
    fn drop(&mut self) {
        self.end(if self.sent { self.amount } else { NanoUsd::ZERO }, None);
    }
}
