//! An attempt under way: its end is told to statistics, the breaker and the counters, once.

use std::sync::Arc;
use std::time::Duration;

use sluice_core::breaker::Weight;
use sluice_core::settle::End;
use sluice_core::stats::{InFlight, TargetStats};
use tokio::sync::OwnedSemaphorePermit;

use crate::charge::{Charge, Cost};
use crate::fault::{FaultKind, Timer};
use crate::lane::{Lane, Pass};
use crate::metering::Metered;

/// An attempt whose end is to be told: to statistics, the breaker and the counters. Once; dropped
/// before, the client has left.
pub(crate) struct Underway {
    request_id: String,
    sent: std::time::Instant,
    /// The call counts as in flight until its answer has ended.
    inflight: InFlight<Arc<TargetStats>>,
    pass: Pass,
    first: Option<Duration>,
    told: bool,
    charge: Option<Charge>,
}

impl Underway {
    /// Boxed: it is handed on from one who works on the attempt to the next, and is large.
    pub(crate) fn new(request_id: String, inflight: InFlight<Arc<TargetStats>>, pass: Pass) -> Box<Underway> {
        let sent = std::time::Instant::now();
        Box::new(Underway { request_id, sent, inflight, pass, first: None, told: false, charge: None })
    }

    /// Who pays for it.
    pub(crate) fn is_paid_by(&mut self, charge: Option<Charge>) {
        self.charge = charge;
    }

    /// Money is held for it.
    pub(crate) fn holds_money(&self) -> bool {
        self.charge.as_ref().is_some_and(Charge::holds)
    }

    /// It may not cost more than is held for it.
    pub(crate) fn is_capped(&self) -> bool {
        self.charge.as_ref().is_some_and(Charge::is_capped)
    }

    /// What it uses has to be counted.
    pub(crate) fn counts(&self) -> bool {
        self.charge.as_ref().is_some_and(Charge::counts)
    }

    /// Somebody wants to know what it uses.
    pub(crate) fn is_measured(&self) -> bool {
        self.charge.as_ref().is_some_and(Charge::is_measured)
    }

    /// Room for reading on although the client is gone; none where nothing depends on it.
    pub(crate) fn drain_place(&self) -> Option<OwnedSemaphorePermit> {
        self.charge.as_ref().filter(|charge| charge.holds())?.drain_place()
    }

    /// From here on the vendor may work on it.
    pub(crate) fn sent(&mut self) {
        self.charge.iter_mut().for_each(Charge::sent);
    }

    /// What is known by now of what was used; false where that is more than was paid for.
    pub(crate) fn uses(&mut self, metered: &Metered) -> bool {
        let Some(charge) = &mut self.charge else { return true };
        charge.learn(metered);
        !charge.is_over()
    }

    pub(crate) fn lane(&self) -> &Arc<Lane> {
        self.pass.lane()
    }

    /// The first content of a stream is there.
    pub(crate) fn first_content(&mut self) {
        let took = self.sent.elapsed();
        if self.first.replace(took).is_none() {
            self.charge.iter().for_each(Charge::first_content);
            self.pass.lane().measures.first_content(took);
            self.pass.begun();
        }
    }

    /// The answer has ended well.
    pub(crate) fn good(&mut self) {
        if !self.tell() {
            return;
        }
        self.settle(End::Whole, "good", true);
        let total = self.sent.elapsed();
        let first = self.first.unwrap_or(total);
        self.inflight.stats().succeeded(micros(first), micros(total));
        self.pass.lane().measures.good(total);
        self.pass.settle(Weight::Good, "none");
        tracing::debug!(
            request = self.request_id,
            first_us = micros(first),
            total_us = micros(total),
            "answered"
        );
    }

    /// The attempt has failed.
    pub(crate) fn failed(&mut self, fault: &FaultKind) {
        if !self.tell() {
            return;
        }
        let (class, code) = (fault.class(), fault.code());
        let content = self.first.is_some();
        let end = if content { End::Broken } else { fault.end() };
        // After content no other target is asked.
        self.settle(end, code, content);
        if *fault == FaultKind::OverLimit {
            self.lane().overran(std::time::Instant::now());
        }
        // Late by others' fault is no mark against it for policies either.
        if *fault != FaultKind::Timeout(Timer::Remainder) {
            self.inflight.stats().failed();
        }
        let lane = self.pass.lane();
        lane.measures.fault(class);
        tracing::debug!(
            request = self.request_id,
            upstream = lane.upstream,
            model = lane.model,
            fault = code,
            class = class.name(),
            content = self.first.is_some(),
            "an attempt failed"
        );
        self.pass.settle(fault.weight(), code);
    }

    /// The vendor was not asked.
    pub(crate) fn unasked(&mut self) {
        self.told = true;
    }

    /// Its end has been told.
    pub(crate) fn is_told(&self) -> bool {
        self.told
    }

    /// A vendor that takes more than it was allowed rests.
    fn settle(&mut self, end: End, outcome: &'static str, last: bool) {
        let cost = self.charge.as_mut().map(|charge| charge.end(end, outcome, last));
        if cost == Some(Cost::Beyond) {
            self.lane().overran(std::time::Instant::now());
        }
    }

    fn tell(&mut self) -> bool {
        !std::mem::replace(&mut self.told, true)
    }
}

impl Drop for Underway {
    fn drop(&mut self) {
        if self.tell() {
            self.settle(End::Broken, "client_left", true);
            self.pass.lane().measures.left();
            tracing::debug!(request = self.request_id, "the client left");
        }
    }
}

fn micros(span: Duration) -> u32 {
    u32::try_from(span.as_micros()).unwrap_or(u32::MAX)
}
