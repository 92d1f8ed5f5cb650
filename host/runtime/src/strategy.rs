//! A bid strategy set up for one market: each look at the market gets an instance of its own.
//!
//! So a version that is swapped between two looks decides the next one, and there is nothing that
//! it could lose.

use std::sync::Arc;
use std::time::{Duration, Instant};

use sluice_core::bidding::{
    AMOUNT_MAX, Book, ClosedBid, DecisionBreach, Decisions, JOBS_MAX, Job, OptionCost, Outcome as Ending,
    RECENT_MAX, Said,
};
use sluice_core::money::NanoUsd;
use sluice_core::probation::Outcome;
use wasmtime::Store;

use crate::Setup;
use crate::bindings::bid::{BidStrategy, BidStrategyPre};
use crate::bindings::bidding;
use crate::bounds::CallClass;
use crate::counters::Function;
use crate::engine::Runtime;
use crate::fault::{CallError, Fault};
use crate::plugin::{Code, Plugin};
use crate::rehearsal;
use crate::state::{State, Texts};
use crate::watched::{Decided, Versioned, Watched};

/// A plugin and the configuration of one market.
pub struct Strategy {
    runtime: Runtime,
    plugin: Arc<Plugin>,
    code: BidStrategyPre<State>,
    setup: Setup,
}

impl Strategy {
    pub(crate) fn understudy(&self) -> Strategy {
        Strategy {
            runtime: self.runtime.clone(),
            plugin: Arc::new(self.plugin.understudy()),
            code: self.code.clone(),
            setup: self.setup.clone(),
        }
    }

    /// Asks what to bid on these jobs, in a fresh instance. May take a second of CPU time: not for
    /// a worker. Bids out of a job's bounds are counted as one fault, and the other jobs' stand.
    ///
    /// # Errors
    ///
    /// The plugin's refusal, or its fault, counted; nothing is bid then.
    pub fn decide(&self, book: &Book, jobs: &[Job]) -> Result<Decisions, CallError> {
        let started = Instant::now();
        let said = self.asked(book, jobs);
        self.plugin.counters().called(Function::Decide, started.elapsed());
        let decisions = Decisions::check(&said?, jobs).map_err(|breach| {
            let fault = match breach {
                DecisionBreach::Stranger(_) => Fault::BidStranger,
                DecisionBreach::Twice(_) => Fault::BidTwice,
            };
            self.plugin.breach(fault, breach.to_string())
        })?;
        if decisions.out_of_bounds > 0 {
            let text = format!("{} of its bids are out of bounds", decisions.out_of_bounds);
            self.plugin.breach(Fault::BidBounds, text);
        }
        Ok(decisions)
    }

    fn asked(&self, book: &Book, jobs: &[Job]) -> Result<Vec<(u32, Said)>, CallError> {
        let jobs = &jobs[..jobs.len().min(JOBS_MAX)];
        let (mut store, world) = self.configured(CallClass::Decide)?;
        let by_job = jobs.iter().map(|job| Arc::clone(&job.text)).collect();
        store.data_mut().texts = Texts { by_job, bytes_read: 0 };
        let shown: Vec<bidding::Job> = (0..).zip(jobs).map(|(id, job)| shown(id, job)).collect();
        let answered = world.sluice_plugin_bidding().call_decide(&mut store, &book.into(), &shown);
        let answered = answered.map_err(|error| self.plugin.trapped(&error, store.data()))?;
        let decisions = answered.map_err(|error| self.plugin.refused(error.into()))?;
        Ok(decisions.into_iter().map(|(id, decision)| (id, decision.into())).collect())
    }

    /// The CPU time of `class` begins here, and goes on for what is called next.
    fn configured(&self, class: CallClass) -> Result<(Store<State>, BidStrategy), CallError> {
        let mut store = State::store(&self.runtime, Arc::clone(&self.plugin.speaker));
        State::begin(&mut store, class);
        let world = match self.code.instantiate(&mut store) {
            Ok(world) => world,
            Err(error) => return Err(self.plugin.trapped(&error, store.data())),
        };
        let configured = world.sluice_plugin_lifecycle().call_configure(&mut store, &(&self.setup).into());
        let configured = configured.map_err(|error| self.plugin.trapped(&error, store.data()))?;
        configured.map_err(|error| self.plugin.refused(error.into()))?;
        Ok((store, world))
    }
}

impl Versioned for Strategy {
    fn plugin(&self) -> &Arc<Plugin> {
        &self.plugin
    }

    fn setup(&self) -> &Setup {
        &self.setup
    }

    fn set_up(runtime: &Runtime, plugin: &Arc<Plugin>, setup: Setup) -> Option<Result<Strategy, CallError>> {
        let Code::Strategy(code) = &plugin.code else { return None };
        let strategy =
            Strategy { runtime: runtime.clone(), plugin: Arc::clone(plugin), code: code.clone(), setup };
        Some(strategy.configured(CallClass::Trial).map(|_| strategy))
    }

    fn rehearse(&self) -> Result<(), CallError> {
        rehearsal::strategy(self)
    }
}

impl Watched<Strategy> {
    /// Has the version that serves decide; on probation, the one before where that breaks down.
    /// Counts how it turned out: a bid out of bounds is an error.
    ///
    /// # Errors
    ///
    /// What the version that had the last word says; nothing is bid then.
    pub fn bids(&self, book: &Book, jobs: &[Job]) -> Result<Decided<Strategy, Decisions>, CallError> {
        let decided = self.decide(|strategy| strategy.decide(book, jobs))?;
        let good = decided.decision.out_of_bounds == 0;
        self.turned_out(&decided.by, if good { Outcome::Good } else { Outcome::Error });
        Ok(decided)
    }
}

/// What is larger than a guest can see is shown as the largest amount that it can.
fn nanos(amount: NanoUsd) -> u64 {
    amount.min(AMOUNT_MAX).nanos()
}

fn millis(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX).min(AMOUNT_MAX.nanos())
}

fn shown(id: u32, job: &Job) -> bidding::Job {
    bidding::Job {
        id,
        kind: job.kind.code(),
        credit: nanos(job.credit),
        floor: nanos(job.floor),
        ceiling: nanos(job.ceiling),
        closes_in_ms: millis(job.closes_in),
        reward_due_in_ms: millis(job.reward_due_in),
        text_len: u32::try_from(job.text.len()).unwrap_or(u32::MAX),
        needs: job.needs,
        prompt_tokens: job.prompt_tokens,
        output_expected: job.output_tokens_expected,
        output_worst: job.output_tokens_worst,
        targets: job.targets.iter().map(bidding::OptionCost::from).collect(),
    }
}

impl From<&OptionCost> for bidding::OptionCost {
    fn from(cost: &OptionCost) -> Self {
        Self {
            target: cost.target,
            expected: nanos(cost.expected),
            worst: nanos(cost.worst),
            offers: cost.offers,
        }
    }
}

impl From<&Book> for bidding::Book {
    fn from(book: &Book) -> Self {
        let newest = book.recent.len().saturating_sub(RECENT_MAX);
        Self {
            open: nanos(book.open),
            won: nanos(book.won),
            spent: nanos(book.spent),
            earned: nanos(book.earned),
            balance: nanos(book.balance.unwrap_or(AMOUNT_MAX)),
            day_loss_left: nanos(book.day_loss_left.unwrap_or(AMOUNT_MAX)),
            wins: book.wins,
            losses: book.losses,
            recent: book.recent[newest..].iter().map(bidding::ClosedBid::from).collect(),
        }
    }
}

impl From<&ClosedBid> for bidding::ClosedBid {
    fn from(closed: &ClosedBid) -> Self {
        Self {
            credit: nanos(closed.credit),
            bid: nanos(closed.bid),
            expected: nanos(closed.expected),
            actual: nanos(closed.actual),
            earned: nanos(closed.earned),
            outcome: match closed.outcome {
                Ending::Lost => bidding::Outcome::Lost,
                Ending::Paid => bidding::Outcome::Paid,
                Ending::Unpaid => bidding::Outcome::Unpaid,
                Ending::Failed => bidding::Outcome::Failed,
            },
        }
    }
}

impl From<bidding::Decision> for Said {
    fn from(decision: bidding::Decision) -> Self {
        match decision {
            bidding::Decision::Bid(nanos) => Self::Bid(nanos),
            bidding::Decision::Skip(code) => Self::Skip(code),
        }
    }
}
