//! What a call comes to, over its attempts: each attempt is settled once, each call has one row.

use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Instant;

use sluice_core::money::NanoUsd;
use sluice_core::price::{Price, Usage};
use sluice_core::settle::{self, Basis, End, Floor};
use sluice_ledger::hold::Hold;
use sluice_ledger::rows::Row;
use tokio::sync::OwnedSemaphorePermit;

use crate::call::Call;
use crate::caller::Caller;
use crate::metering::Metered;
use crate::money::Money;
use crate::rates::{Permit, Told};
use crate::routes::Target;

/// Bytes of the list of upstreams that were asked.
const TRIED_BYTES_MAX: usize = 512;

/// A call's row in the making; written when the last who works on the call lets it go.
pub(crate) struct Tally {
    money: Option<Arc<Money>>,
    started: Instant,
    row: Mutex<Option<Box<Row>>>,
    /// Until the call's last attempt has ended.
    permit: Option<Permit>,
    /// Of the model that took the place of the one that was asked for.
    downgraded: OnceLock<Permit>,
}

/// One attempt's money. Dropped before it ends, it costs what was held, if anything was sent.
pub(crate) struct Charge {
    tally: Arc<Tally>,
    upstream: String,
    price: Option<Price>,
    hold: Option<Hold>,
    /// Tokens of output that the hold pays for; none: it only counts.
    paid_output: Option<u64>,
    sent: bool,
    known: Metered,
    /// Of the upstream's own limits.
    permit: Option<Permit>,
    counts_tokens: bool,
}

/// Whether an attempt's hold was enough.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Cost {
    Held,
    /// The rest is debt.
    Beyond,
}

impl Tally {
    pub(crate) fn new(
        money: Option<&Arc<Money>>,
        call: &Call,
        caller: &Caller,
        model: &str,
        permit: Option<Permit>,
    ) -> Tally {
        let row = || Row {
            at_ms: call.received_ms,
            request: call.request_id.as_str().into(),
            key: (*caller.key).into(),
            team: (*caller.team).into(),
            run: caller.run.as_deref().unwrap_or_default().into(),
            model: model.into(),
            ..Row::default()
        };
        let row = Mutex::new(money.is_some().then(|| Box::new(row())));
        Tally { money: money.cloned(), started: Instant::now(), row, permit, downgraded: OnceLock::new() }
    }

    /// What is used has to be known, for a limit counts it.
    pub(crate) fn counts_tokens(&self) -> bool {
        self.permits().any(Permit::counts_tokens)
    }

    fn permits(&self) -> impl Iterator<Item = &Permit> {
        self.permit.iter().chain(self.downgraded.get())
    }

    /// Another model takes the place of the one that was asked for; with what limits that one.
    pub(crate) fn goes_on_with(&self, model: &str, permit: Option<Permit>) {
        if let Some(row) = &mut *self.row() {
            row.model = model.into();
        }
        if let Some(permit) = permit {
            // There is one such step in a call.
            let _ = self.downgraded.set(permit);
        }
    }

    /// What the caller has left of its rates.
    pub(crate) fn told(&self) -> Told {
        self.permit.as_ref().map_or_else(Told::default, Permit::told)
    }

    fn passed(&self, row: Box<Row>) {
        if let Some(money) = &self.money {
            money.spending.passed(row);
        }
    }

    fn row(&self) -> MutexGuard<'_, Option<Box<Row>>> {
        self.row.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn tries(&self, upstream: &str, target_model: &str) {
        if let Some(row) = &mut *self.row() {
            row.upstream = upstream.into();
            row.target_model = target_model.into();
            if row.tried.len() + upstream.len() < TRIED_BYTES_MAX {
                row.tried.push_str(if row.tried.is_empty() { "" } else { " " });
                row.tried.push_str(upstream);
            }
        }
    }

    /// An attempt has ended. Gives the row as it is by now, where the call goes on and has cost something:
    /// should the process die before its end, that has a row; and the whole row at the end.
    fn adds(
        &self,
        usage: &Usage,
        amount: NanoUsd,
        basis: Basis,
        outcome: &str,
        last: bool,
    ) -> (Option<Box<Row>>, Option<Box<Row>>) {
        let mut row = self.row();
        if let Some(row) = &mut *row {
            row.input = row.input.saturating_add(usage.input);
            row.cached_input = row.cached_input.saturating_add(usage.cached_input);
            row.cache_write = row.cache_write.saturating_add(usage.cache_write);
            row.output = row.output.saturating_add(usage.output);
            row.reasoning = row.reasoning.saturating_add(usage.reasoning);
            row.calls = row.calls.saturating_add(usage.calls);
            row.cost = row.cost.saturating_add(amount.nanos());
            row.outcome = outcome.into();
            row.basis = basis.name().into();
            row.total_ms = self.elapsed_ms();
        }
        match last {
            true => (None, row.take()),
            false if amount == NanoUsd::ZERO => (None, None),
            false => (row.clone(), None),
        }
    }

    fn elapsed_ms(&self) -> u32 {
        u32::try_from(self.started.elapsed().as_millis()).unwrap_or(u32::MAX)
    }

    pub(crate) fn first_content(&self) {
        let elapsed = self.elapsed_ms();
        if let Some(row) = &mut *self.row() {
            row.first_ms = elapsed;
        }
    }
}

impl Drop for Tally {
    /// Hands the row over, where no settlement took it along.
    fn drop(&mut self) {
        let total_ms = self.elapsed_ms();
        if let Some(mut row) = self.row().take().filter(|row| !row.tried.is_empty()) {
            row.total_ms = total_ms;
            self.passed(row);
        }
    }
}

impl Charge {
    /// `hold` with the tokens of output that it pays for; with none where it only counts.
    pub(crate) fn new(
        tally: &Arc<Tally>,
        target: &Target,
        target_model: &str,
        hold: Option<(Hold, Option<u64>)>,
        permit: Option<Permit>,
    ) -> Charge {
        tally.tries(&target.upstream.name, target_model);
        let (hold, paid_output) = hold.unzip();
        Charge {
            tally: Arc::clone(tally),
            upstream: target.upstream.name.clone(),
            price: target.price(target_model).cloned(),
            hold,
            paid_output: paid_output.flatten(),
            sent: false,
            known: Metered::default(),
            counts_tokens: tally.counts_tokens() || permit.as_ref().is_some_and(Permit::counts_tokens),
            permit,
        }
    }

    /// Limits or a row of the ledger depend on what the answer says.
    pub(crate) fn is_measured(&self) -> bool {
        self.counts() || self.tally.money.is_some()
    }

    /// Limits depend on what the answer says.
    pub(crate) fn counts(&self) -> bool {
        self.holds() || self.counts_tokens
    }

    /// Tells those who count tokens how many it used.
    fn tell_permits(&self, end: End) {
        if !self.sent {
            return;
        }
        let (said, seen) = (self.known.usage, self.known.floor());
        let used = |usage: &Usage| {
            let (input, output) = (usage.input_tokens(), usage.output_tokens());
            input.max(seen.input).saturating_add(output.max(seen.output))
        };
        for permit in self.tally.permits().chain(&self.permit) {
            match &said {
                Some(usage) => permit.ended(used(usage)),
                None if end == End::Unserved => permit.ended(seen.input.saturating_add(seen.output)),
                None => permit.ended_unsaid(seen.input.saturating_add(seen.output)),
            }
        }
    }

    /// Money depends on what the answer says.
    pub(crate) fn holds(&self) -> bool {
        self.hold.is_some()
    }

    /// It may not cost more than is held.
    pub(crate) fn is_capped(&self) -> bool {
        self.paid_output.is_some()
    }

    pub(crate) fn drain_place(&self) -> Option<OwnedSemaphorePermit> {
        self.tally.money.as_ref()?.drains.place()
    }

    /// The adapter has answered by itself.
    pub(crate) fn answered(mut self) {
        self.tally.permits().for_each(Permit::serves);
        self.end(End::Whole, "good", true);
    }

    /// From here on the vendor may work on it.
    pub(crate) fn sent(&mut self) {
        if std::mem::replace(&mut self.sent, true) {
            return;
        }
        self.tally.permits().chain(&self.permit).for_each(Permit::sent);
        if let Some(hold) = &mut self.hold {
            hold.sent();
        }
    }

    pub(crate) fn first_content(&self) {
        self.tally.first_content();
    }

    /// What is known of the answer by now.
    pub(crate) fn learn(&mut self, metered: &Metered) {
        self.known = *metered;
    }

    /// More has been delivered than was paid for.
    pub(crate) fn is_over(&self) -> bool {
        self.paid_output.is_some_and(|paid| self.known.delivered > paid)
    }

    /// The vendor, or its adapter, says less than the host has seen: counted, and told the first,
    /// second, fourth, eighth time.
    fn dispute(&self, seen: Floor, usage: &Usage) {
        let Some(money) = &self.tally.money else { return };
        let times = money.disputed.fetch_add(1, Ordering::Relaxed) + 1;
        if times.is_power_of_two() {
            let (upstream, input, output) = (&self.upstream, usage.input_tokens(), usage.output_tokens());
            tracing::warn!(upstream, ?seen, input, output, times, "less usage was reported than seen");
        }
    }

    /// How it ended for the bill.
    fn end_for_the_bill(&self, end: End) -> End {
        match end {
            _ if !self.sent => End::Unserved,
            End::Unserved if self.known.begun => End::Broken,
            End::Whole if self.known.cut => End::Broken,
            End::Unserved | End::Whole | End::Broken => end,
        }
    }

    /// The attempt has ended: in one word, and whether it was the call's last.
    pub(crate) fn end(&mut self, end: End, outcome: &'static str, last: bool) -> Cost {
        let end = self.end_for_the_bill(end);
        let (said, seen) = (self.known.usage, self.known.floor());
        let usage = said.unwrap_or_default();
        let (amount, basis) = match (&self.hold, &self.price) {
            (Some(hold), Some(price)) => {
                let charge = settle::settle(price, hold.amount(), end, said.as_ref(), seen);
                if charge.disputed {
                    self.dispute(seen, &usage);
                }
                (charge.amount, charge.basis)
            }
            (None, Some(price)) => match said.map(|usage| price.cost(&usage)) {
                Some(Ok(cost)) => (cost, Basis::Usage),
                Some(Err(_)) | None => Default::default(),
            },
            (Some(hold), None) => (hold.amount(), Basis::Hold),
            (None, None) => Default::default(),
        };
        self.tell_permits(end);
        let (so_far, row) = self.tally.adds(&usage, amount, basis, outcome, last);
        let Some(hold) = self.hold.take() else {
            row.into_iter().for_each(|row| self.tally.passed(row));
            return Cost::Held;
        };
        let overruns = match so_far {
            Some(so_far) => hold.settle_so_far(amount, so_far),
            None => hold.settle(amount, row),
        };
        // What a shadow has held is a guess.
        if overruns.is_empty() || !self.is_capped() {
            return Cost::Held;
        }
        for overrun in &overruns {
            tracing::warn!(upstream = self.upstream, beyond = %overrun.beyond, "an attempt cost more than was held for it");
        }
        Cost::Beyond
    }
}
