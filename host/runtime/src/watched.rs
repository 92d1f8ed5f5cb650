//! A plugin's version that serves and, while it is on probation, the one it replaced.
//!
//! A decision that the new version fails at is made again by the old one: decisions have no
//! effects, so nothing happens twice. Some decisions are made by both, to compare their CPU time.

use std::sync::atomic::{AtomicU8, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use sluice_core::probation::{Outcome, Probation, Tally, Verdict};

use crate::Setup;
use crate::engine::Runtime;
use crate::fault::CallError;
use crate::plugin::Plugin;
use crate::state::thread_cpu_time;

/// Of so many calls on probation one is made by both versions.
const PAIR_EVERY: u64 = 4;

/// What a plugin decides with, set up for one use.
pub trait Versioned: Sized {
    fn plugin(&self) -> &Arc<Plugin>;

    /// What it was set up with.
    fn setup(&self) -> &Setup;

    /// Sets a plugin up; none if it is of another kind.
    ///
    /// # Errors
    ///
    /// What `configure` says to the configuration.
    fn set_up(runtime: &Runtime, plugin: &Arc<Plugin>, setup: Setup) -> Option<Result<Self, CallError>>;

    /// Goes through the vectors of its kind, with counters that nobody sees.
    ///
    /// # Errors
    ///
    /// What went wrong, for the operator.
    fn rehearse(&self) -> Result<(), CallError>;
}

/// One use of a plugin.
pub struct Watched<T> {
    current: Arc<T>,
    before: Option<(Arc<Books>, Arc<T>)>,
}

/// The books of one version on probation, shared by all its uses.
pub struct Books {
    probation: Mutex<Probation>,
    standing: AtomicU8,
    calls: AtomicU64,
    /// Called once, when there is a verdict.
    decided: Box<dyn Fn() + Send + Sync>,
}

/// A decision and the version that made it.
pub struct Decided<T, R> {
    pub decision: R,
    pub by: Arc<T>,
}

const OPEN: u8 = 0;
const PASSED: u8 = 1;
const FAILED: u8 = 2;

// === impl Watched ===

impl<T: Versioned> Watched<T> {
    /// A version that nobody watches.
    pub fn proven(current: Arc<T>) -> Watched<T> {
        Watched { current, before: None }
    }

    pub fn on_probation(current: Arc<T>, books: Arc<Books>, before: Arc<T>) -> Watched<T> {
        Watched { current, before: Some((books, before)) }
    }

    pub fn current(&self) -> &Arc<T> {
        &self.current
    }

    /// The version that was replaced, while it may come back.
    pub fn before(&self) -> Option<&Arc<T>> {
        self.before.as_ref().map(|(_, before)| before)
    }

    /// Has a decision made, by the old version if the new one breaks down over it.
    ///
    /// # Errors
    ///
    /// What the version that had the last word says.
    pub fn decide<R>(&self, decide: impl Fn(&T) -> Result<R, CallError>) -> Result<Decided<T, R>, CallError> {
        let decided_by = |version: &Arc<T>| decided_by(version, &decide);
        let Some((books, before)) = &self.before else { return decided_by(&self.current) };
        match books.standing.load(Ordering::Acquire) {
            PASSED => return decided_by(&self.current),
            FAILED => return decided_by(before),
            _open => {}
        }
        let pair = books.calls.fetch_add(1, Ordering::Relaxed) % PAIR_EVERY == 0;
        let started = thread_cpu_time();
        let decided = decided_by(&self.current);
        let took = thread_cpu_time().saturating_sub(started);
        match decided {
            Ok(decided) => {
                if pair {
                    let started = thread_cpu_time();
                    if decide(before).is_ok() {
                        books.paired(took, thread_cpu_time().saturating_sub(started));
                    }
                }
                Ok(decided)
            }
            Err(CallError::Fault(fault, _)) => {
                books.called(if fault.is_trap() { Outcome::Trap } else { Outcome::Error });
                decided_by(before)
            }
            Err(refused @ CallError::Refused(_)) => {
                // What the version before cannot decide either is the caller's mistake.
                if decide(before).is_ok() {
                    books.called(Outcome::Error);
                }
                Err(refused)
            }
        }
    }

    /// The same by the version that was replaced, where it may come back: the new one broke down
    /// over what followed from its decision.
    ///
    /// # Errors
    ///
    /// What that version says.
    pub fn decide_as_before<R>(
        &self,
        decide: impl Fn(&T) -> Result<R, CallError>,
    ) -> Result<Decided<T, R>, CallError> {
        decided_by(self.before().unwrap_or(&self.current), decide)
    }

    /// Counts how a decision turned out that this version had made; once for each. One that was an
    /// error to begin with has been counted.
    pub fn turned_out(&self, by: &Arc<T>, outcome: Outcome) {
        by.plugin().counters().turned_out(outcome == Outcome::Good);
        if let Some((books, _)) = &self.before
            && Arc::ptr_eq(by.plugin(), self.current.plugin())
        {
            books.called(outcome);
        }
    }
}

fn decided_by<T: Versioned, R>(
    version: &Arc<T>,
    decide: impl Fn(&T) -> Result<R, CallError>,
) -> Result<Decided<T, R>, CallError> {
    match decide(version) {
        Ok(decision) => Ok(Decided { decision, by: Arc::clone(version) }),
        Err(error) => {
            version.plugin().counters().turned_out(false);
            Err(error)
        }
    }
}

// === impl Books ===

impl Books {
    pub(crate) fn new(before: Tally, now: Instant, decided: Box<dyn Fn() + Send + Sync>) -> Books {
        Books {
            probation: Mutex::new(Probation::new(before, now)),
            standing: AtomicU8::new(OPEN),
            calls: AtomicU64::new(0),
            decided,
        }
    }

    /// The verdict, also where nobody calls any more.
    pub(crate) fn verdict(&self, now: Instant) -> Verdict {
        self.probation().verdict(now)
    }

    fn called(&self, outcome: Outcome) {
        self.note(|probation| probation.called(outcome));
    }

    fn paired(&self, now: std::time::Duration, before: std::time::Duration) {
        self.note(|probation| probation.paired(now, before));
    }

    /// Open -> Passed; Open -> Failed. What comes later changes nothing.
    fn note(&self, note: impl FnOnce(&mut Probation)) {
        if self.standing.load(Ordering::Acquire) != OPEN {
            return;
        }
        let verdict = {
            let mut probation = self.probation();
            note(&mut probation);
            probation.verdict(Instant::now())
        };
        let standing = match verdict {
            Verdict::Open => return,
            Verdict::Passed => PASSED,
            Verdict::Failed(_) => FAILED,
        };
        let first = self.standing.compare_exchange(OPEN, standing, Ordering::AcqRel, Ordering::Acquire);
        if first.is_ok() {
            (self.decided)();
        }
    }

    /// A panic while the lock is held leaves the books as good as they were.
    fn probation(&self) -> MutexGuard<'_, Probation> {
        self.probation.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
