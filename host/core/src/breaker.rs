//! Whether a target may be called: closed, open, or half-open with a few probes.
//!
//! Whoever calls takes a [`Ticket`] before, may say when the answer begins, and hands it back with
//! how it went. A ticket belongs to the epoch in which it was taken: an answer that comes after the
//! state has changed decides nothing. But a probe whose answer has begun helps to close the breaker:
//! where its epoch's probes did, its end counts in the closed state that followed. The pattern is
//! Nygard's, from "Release It!".

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
    /// Probes in flight at most; one whose answer has begun is none any more.
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
    Closed {
        recent: Recent,
        /// The half-open epoch whose probes closed it.
        probed: Option<u64>,
    },
    Open {
        until: Instant,
        why: Why,
    },
    HalfOpen {
        /// Probes whose answers have not begun.
        in_flight: u32,
        successes: u32,
        why: Why,
    },
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
    /// It was a probe, counts as a success, and holds no place any more.
    begun: bool,
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
        Breaker { limits, state: State::closed(None), epoch: 0 }
    }

    /// Later calls go by these.
    pub fn set_limits(&mut self, limits: Limits) {
        self.limits = limits;
    }

    /// Closed, and none of the last calls failed: nothing that a new one would not know.
    pub fn is_spotless(&self) -> bool {
        matches!(&self.state, State::Closed { recent, .. } if recent.failed == 0)
    }

    /// Whether [`Breaker::ask`] would give a ticket.
    pub fn admits(&self, now: Instant) -> bool {
        match &self.state {
            State::Closed { .. } => true,
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
            State::Closed { .. } => {}
            State::Open { .. } => return None,
            State::HalfOpen { in_flight, .. } if *in_flight < self.limits.probes => *in_flight += 1,
            State::HalfOpen { .. } => return None,
        }
        Some(Ticket { epoch: self.epoch, begun: false })
    }

    /// The answer's first content is there; a second time it changes nothing. Gives the new
    /// standing where it has changed.
    ///
    /// A probe is a success from here on and frees its place: its stream may run for minutes, and
    /// the target plainly serves. Half-open -> closed, with the last success that is needed.
    pub fn begun(&mut self, ticket: &mut Ticket) -> Option<Standing> {
        if ticket.epoch != self.epoch || ticket.begun {
            return None;
        }
        match &mut self.state {
            // No ticket has the epoch of an open breaker.
            State::Closed { .. } | State::Open { .. } => return None,
            State::HalfOpen { in_flight, successes, .. } => {
                ticket.begun = true;
                *in_flight = in_flight.saturating_sub(1);
                *successes += 1;
                if *successes < SUCCESSES_TO_CLOSE {
                    return None;
                }
            }
        }
        self.enter(State::closed(Some(ticket.epoch)));
        Some(self.standing())
    }

    /// How a call went; `code` names the failure. Gives the new standing where it has changed.
    ///
    /// Closed -> open, half-open -> open or closed. A ticket of an earlier epoch changes nothing,
    /// but for that of a probe that had begun and whose half-open epoch was closed by its probes.
    pub fn settle(
        &mut self,
        mut ticket: Ticket,
        weight: Weight,
        code: &'static str,
        now: Instant,
    ) -> Option<Standing> {
        if !self.heeds(&ticket) {
            return None;
        }
        let until = now + self.limits.open_for;
        let next = match &mut self.state {
            State::Closed { recent, .. } => {
                let rule = recent.note(weight, self.limits.failures)?;
                State::Open { until, why: Why { rule, last: code } }
            }
            // No ticket has the epoch of an open breaker.
            State::Open { .. } => return None,
            State::HalfOpen { in_flight, .. } => match weight {
                Weight::Neither => {
                    if !ticket.begun {
                        *in_flight = in_flight.saturating_sub(1);
                    }
                    return None;
                }
                // Counts once: now, unless it did when it began.
                Weight::Good => return self.begun(&mut ticket),
                Weight::Bad => State::Open { until, why: Why { rule: Rule::Probe, last: code } },
            },
        };
        self.enter(next);
        Some(self.standing())
    }

    /// Closes it, whatever it was.
    pub fn reset(&mut self) {
        self.enter(State::closed(None));
    }

    /// What it is now.
    pub fn standing(&self) -> Standing {
        match self.state {
            State::Closed { .. } => Standing::Closed,
            State::Open { until, why } => Standing::Open { until, why },
            State::HalfOpen { why, .. } => Standing::HalfOpen { why },
        }
    }

    /// Whether the end of this ticket's call says anything about the state as it is.
    fn heeds(&self, ticket: &Ticket) -> bool {
        let closed_by_its_kind = match self.state {
            State::Closed { probed, .. } => ticket.begun && probed == Some(ticket.epoch),
            State::Open { .. } | State::HalfOpen { .. } => false,
        };
        ticket.epoch == self.epoch || closed_by_its_kind
    }

    fn enter(&mut self, state: State) {
        self.state = state;
        self.epoch += 1;
    }
}

impl State {
    fn closed(probed: Option<u64>) -> State {
        State::Closed { recent: Recent::default(), probed }
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
