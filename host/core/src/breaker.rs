//! Whether a target may be called: closed, open, or half-open with a few probes.
//!
//! Whoever calls takes a [`Ticket`] before and hands it back with how it went. A ticket belongs to
//! the epoch in which it was taken: an answer that comes after the state has changed decides
//! nothing. The pattern is Nygard's, from "Release It!".

use std::time::{Duration, Instant};

/// Probes that must go well, one after the other, before it closes.
const SUCCESSES_TO_CLOSE: u32 = 2;

/// Outcomes that the rate is taken over.
const WINDOW: u32 = 20;

/// Failures among them that open it.
const WINDOW_FAILURES: u32 = WINDOW / 2;

/// When it opens, and for how long.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Failures in a row; half of the last twenty calls open it too.
    pub failures: u32,
    /// Until the first probe.
    pub open_for: Duration,
    /// Probes in flight at most.
    pub probes: u32,
}

/// One target's breaker.
#[derive(Debug)]
pub struct Breaker {
    limits: Limits,
    state: State,
    epoch: u64,
}

#[derive(Debug)]
enum State {
    Closed(Recent),
    Open { until: Instant, why: Why },
    HalfOpen { in_flight: u32, successes: u32, why: Why },
}

/// The last calls while closed.
#[derive(Debug, Default)]
struct Recent {
    in_a_row: u32,
    /// The youngest call is the lowest bit; a failure is a one.
    failed: u32,
    seen: u32,
}

/// Why it opened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Why {
    /// What was counted.
    pub rule: Rule,
    /// The code of the last failure.
    pub last: &'static str,
}

/// What opened it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rule {
    /// So many failures in a row.
    InARow(u32),
    /// So many failures of the last twenty calls.
    OfRecent(u32),
    /// A probe failed.
    Probe,
}

/// Leave to make one call. To be handed back.
#[derive(Debug)]
#[must_use = "a probe that is never settled keeps its place"]
pub struct Ticket {
    epoch: u64,
}

/// What a call's end says about the target.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Weight {
    /// It serves.
    Good,
    /// It fails.
    Bad,
    /// Nothing: the client left, or the fault was somebody else's.
    Neither,
}

/// What others see.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Standing {
    /// Calls pass.
    Closed,
    /// No call passes before `until`.
    Open {
        /// The first probe may go then.
        until: Instant,
        /// For the operator.
        why: Why,
    },
    /// A few probes pass.
    HalfOpen {
        /// Why it had opened.
        why: Why,
    },
}

impl Breaker {
    /// Closed.
    pub fn new(limits: Limits) -> Breaker {
        Breaker { limits, state: State::Closed(Recent::default()), epoch: 0 }
    }

    /// Later calls go by these.
    pub fn set_limits(&mut self, limits: Limits) {
        self.limits = limits;
    }

    /// Whether [`Breaker::ask`] would give a ticket.
    pub fn admits(&self, now: Instant) -> bool {
        match &self.state {
            State::Closed(_) => true,
            State::Open { until, .. } => now >= *until,
            State::HalfOpen { in_flight, .. } => *in_flight < self.limits.probes,
        }
    }

    /// Leave for one call, if there is any. Open -> half-open, when its time has come.
    pub fn ask(&mut self, now: Instant) -> Option<Ticket> {
        if let State::Open { until, why } = self.state
            && now >= until
        {
            self.enter(State::HalfOpen { in_flight: 0, successes: 0, why });
        }
        match &mut self.state {
            State::Closed(_) => {}
            State::Open { .. } => return None,
            State::HalfOpen { in_flight, .. } if *in_flight < self.limits.probes => *in_flight += 1,
            State::HalfOpen { .. } => return None,
        }
        Some(Ticket { epoch: self.epoch })
    }

    /// How a call went; `code` names the failure. Gives the new standing where it has changed.
    ///
    /// Closed -> open, half-open -> open or closed. A ticket of an earlier epoch changes nothing.
    pub fn settle(
        &mut self,
        ticket: Ticket,
        weight: Weight,
        code: &'static str,
        now: Instant,
    ) -> Option<Standing> {
        if ticket.epoch != self.epoch {
            return None;
        }
        let limits = self.limits;
        let next = match &mut self.state {
            State::Closed(recent) => {
                let rule = recent.note(weight, limits.failures)?;
                State::Open { until: now + limits.open_for, why: Why { rule, last: code } }
            }
            // No ticket has the epoch of an open breaker.
            State::Open { .. } => return None,
            State::HalfOpen { in_flight, successes, .. } => {
                *in_flight = in_flight.saturating_sub(1);
                match weight {
                    Weight::Neither => return None,
                    Weight::Good => {
                        *successes += 1;
                        if *successes < SUCCESSES_TO_CLOSE {
                            return None;
                        }
                        State::Closed(Recent::default())
                    }
                    Weight::Bad => State::Open {
                        until: now + limits.open_for,
                        why: Why { rule: Rule::Probe, last: code },
                    },
                }
            }
        };
        self.enter(next);
        Some(self.standing())
    }

    /// Closes it, whatever it was.
    pub fn reset(&mut self) {
        self.enter(State::Closed(Recent::default()));
    }

    /// What it is now.
    pub fn standing(&self) -> Standing {
        match self.state {
            State::Closed(_) => Standing::Closed,
            State::Open { until, why } => Standing::Open { until, why },
            State::HalfOpen { why, .. } => Standing::HalfOpen { why },
        }
    }

    fn enter(&mut self, state: State) {
        self.state = state;
        self.epoch += 1;
    }
}

impl Recent {
    /// The rule that opens the breaker, if this was one failure too many.
    fn note(&mut self, weight: Weight, failures: u32) -> Option<Rule> {
        let failed = match weight {
            Weight::Neither => return None,
            Weight::Good => false,
            Weight::Bad => true,
        };
        self.in_a_row = if failed { self.in_a_row + 1 } else { 0 };
        self.failed = (self.failed << 1 | u32::from(failed)) & ((1 << WINDOW) - 1);
        self.seen = (self.seen + 1).min(WINDOW);
        if self.in_a_row >= failures {
            return Some(Rule::InARow(self.in_a_row));
        }
        let of_recent = self.failed.count_ones();
        (failed && self.seen == WINDOW && of_recent >= WINDOW_FAILURES).then_some(Rule::OfRecent(of_recent))
    }
}

impl std::fmt::Display for Why {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.rule {
            Rule::InARow(count) => write!(f, "{count} failures in a row")?,
            Rule::OfRecent(count) => write!(f, "{count} of the last {WINDOW} calls failed")?,
            Rule::Probe => f.write_str("a probe failed")?,
        }
        write!(f, ", the last by {}", self.last)
    }
}

impl Standing {
    /// The name in metrics and lists.
    pub fn name(&self) -> &'static str {
        match self {
            Standing::Closed => "closed",
            Standing::Open { .. } => "open",
            Standing::HalfOpen { .. } => "half_open",
        }
    }
}

#[cfg(test)]
mod tests;
