//! What is counted of each plugin: calls and time by function, faults by class.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use sluice_core::probation::Tally;

use crate::fault::Fault;

/// The functions that are counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Function {
    Rank,
    Plan,
    Push,
    Whole,
    Classify,
    Decide,
}

/// One plugin's counters; they live as long as the loaded plugin.
#[derive(Debug)]
pub struct Counters {
    calls: [Timed; Function::ALL.len()],
    faults: [AtomicU64; Fault::ALL.len()],
    log_dropped: AtomicU64,
    decisions: AtomicU64,
    decisions_bad: AtomicU64,
}

/// Calls of one function.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CallStats {
    pub function: &'static str,
    pub calls: u64,
    pub time: Duration,
}

#[derive(Debug, Default)]
struct Timed {
    calls: AtomicU64,
    nanos: AtomicU64,
}

impl Function {
    pub const ALL: [Function; 6] = [
        Function::Rank,
        Function::Plan,
        Function::Push,
        Function::Whole,
        Function::Classify,
        Function::Decide,
    ];

    /// The name in the contract.
    pub fn name(self) -> &'static str {
        match self {
            Function::Rank => "rank",
            Function::Plan => "plan",
            Function::Push => "push",
            Function::Whole => "whole",
            Function::Classify => "classify",
            Function::Decide => "decide",
        }
    }
}

impl Default for Counters {
    fn default() -> Counters {
        Counters {
            calls: Default::default(),
            faults: [const { AtomicU64::new(0) }; Fault::ALL.len()],
            log_dropped: AtomicU64::new(0),
            decisions: AtomicU64::new(0),
            decisions_bad: AtomicU64::new(0),
        }
    }
}

impl Counters {
    pub(crate) fn called(&self, function: Function, took: Duration) {
        let timed = &self.calls[function as usize];
        timed.calls.fetch_add(1, Ordering::Relaxed);
        timed.nanos.fetch_add(u64::try_from(took.as_nanos()).unwrap_or(u64::MAX), Ordering::Relaxed);
    }

    pub(crate) fn faulted(&self, fault: Fault) {
        self.faults[fault as usize].fetch_add(1, Ordering::Relaxed);
    }

    pub(crate) fn log_dropped(&self) {
        self.log_dropped.fetch_add(1, Ordering::Relaxed);
    }

    /// A decision turned out well, or not: the plugin refused, broke the contract, or made a
    /// request that the vendor did not take. A plan that is used again counts again.
    pub(crate) fn turned_out(&self, good: bool) {
        self.decisions.fetch_add(1, Ordering::Relaxed);
        if !good {
            self.decisions_bad.fetch_add(1, Ordering::Relaxed);
        }
    }

    pub(crate) fn tally(&self) -> Tally {
        Tally {
            calls: self.decisions.load(Ordering::Relaxed),
            errors: self.decisions_bad.load(Ordering::Relaxed),
        }
    }

    /// Functions that were called at least once.
    pub fn calls(&self) -> Vec<CallStats> {
        let stats = Function::ALL.iter().map(|function| {
            let timed = &self.calls[*function as usize];
            CallStats {
                function: function.name(),
                calls: timed.calls.load(Ordering::Relaxed),
                time: Duration::from_nanos(timed.nanos.load(Ordering::Relaxed)),
            }
        });
        stats.filter(|stats| stats.calls > 0).collect()
    }

    /// Faults that happened at least once.
    pub fn faults(&self) -> Vec<(&'static str, u64)> {
        let counts = Fault::ALL.iter().map(|fault| (fault.name(), self.fault(*fault)));
        counts.filter(|(_, count)| *count > 0).collect()
    }

    /// How often one fault happened.
    pub fn fault(&self, fault: Fault) -> u64 {
        self.faults[fault as usize].load(Ordering::Relaxed)
    }

    /// Log messages over the bound.
    pub fn log_messages_dropped(&self) -> u64 {
        self.log_dropped.load(Ordering::Relaxed)
    }
}
