//! The vectors of each kind: what a plugin set up for its use must get through before it serves.
//!
//! A plugin may refuse what it is shown; it may not break down over it, nor break the contract.

use std::sync::Arc;
use std::time::Duration;

use sluice_core::bidding::{
    AMOUNT_MAX, Book, ClosedBid, JOBS_MAX, Job, JobKind, OptionCost, Outcome, RECENT_MAX,
};
use sluice_core::codes::{Endpoint, Surface, feature};
use sluice_core::money::NanoUsd;
use sluice_core::ranking::{Candidate, NO_CAP, NO_PRICE, View};

use crate::adapter::Adapter;
use crate::fault::{CallError, Fault, Refused};
use crate::inbound::{Identity, Inbound, Shape, Sizes};
use crate::policy::Policy;
use crate::strategy::Strategy;

/// Candidates of the vectors: the fewest that are ranked at all, a usual number, the most.
const CANDIDATES: [u32; 3] = [2, 16, 64];

/// A request that any client may send.
const REQUEST: &str = r#"{"model":"vector","messages":[{"role":"user","content":"one two three"}]}"#;
const STREAMED: &str = r#"{"model":"vector","messages":[{"role":"system","content":"short"},{"role":"user","content":[{"type":"text","text":"one"}]}],"stream":true,"max_tokens":16}"#;

/// One request, as the vectors have it.
struct Sample {
    text: &'static str,
    json: serde_json::Value,
}

/// Plans the vectors.
pub(crate) fn adapter(adapter: &Adapter) -> Result<(), CallError> {
    let understudy = adapter.understudy();
    for text in [REQUEST, STREAMED] {
        let json = serde_json::from_str(text).unwrap_or_default();
        tolerable(understudy.plan(Arc::new(Sample { text, json }), "vector"))?;
    }
    Ok(())
}

/// Ranks the vectors.
pub(crate) fn policy(policy: &Policy) -> Result<(), CallError> {
    let understudy = policy.understudy();
    for count in CANDIDATES {
        for price in [NO_PRICE, 0, 1_000_000] {
            tolerable(understudy.rank(&view(), &candidates(count, price)))?;
        }
    }
    Ok(())
}

/// Decides about the vectors: no job at all, as many as there can be, with and without a past.
pub(crate) fn strategy(strategy: &Strategy) -> Result<(), CallError> {
    let understudy = strategy.understudy();
    for book in [Book::default(), past()] {
        for count in [0, 1, JOBS_MAX] {
            let decided = understudy.decide(&book, &jobs(count));
            if decided.as_ref().is_ok_and(|decisions| decisions.out_of_bounds > 0) {
                let text = "it bids under a job's floor, or over its ceiling or credit";
                return Err(CallError::Fault(Fault::BidBounds, text.to_owned()));
            }
            tolerable(decided)?;
        }
    }
    Ok(())
}

fn tolerable<T>(answered: Result<T, CallError>) -> Result<(), CallError> {
    match answered {
        Ok(_) | Err(CallError::Refused(Refused::InvalidRequest(_) | Refused::Unsupported(_))) => Ok(()),
        Err(error) => Err(error),
    }
}

fn view() -> View {
    View {
        endpoint: Endpoint::Chat.code(),
        budget_left: NO_CAP,
        deadline_ms: 600_000,
        now_ms: 1_800_000_000_000,
        ..View::default()
    }
}

/// The dearest first, so that whoever goes by price has something to do.
fn candidates(count: u32, price: u64) -> Vec<Candidate> {
    let candidate = |id: u32| Candidate {
        id,
        priority: 1,
        weight: 1,
        expected: if price == NO_PRICE { price } else { price * u64::from(count - id) },
        worst: if price == NO_PRICE { price } else { 2 * price * u64::from(count - id) },
        success_permille: 1000,
        ..Candidate::default()
    };
    (0..count).map(candidate).collect()
}

/// From jobs that pay nothing to those that pay all there is; every third has no target, and
/// every other one a target without a bound.
fn jobs(count: usize) -> Vec<Job> {
    let job = |number: usize| {
        let nanos = [0, 1, 1_000_000, 50_000_000, 2_000_000_000, AMOUNT_MAX.nanos()];
        let amount = |place: usize| NanoUsd::from_nanos(nanos[place % nanos.len()]);
        let (expected, worst) = (amount(number / 3), amount(number / 3 + number % 2));
        let target = OptionCost { target: 0, expected, worst: worst.max(expected), offers: 0 };
        Job {
            kind: if number.is_multiple_of(2) { JobKind::Completion } else { JobKind::Agent },
            credit: amount(number),
            floor: amount(number / 5),
            ceiling: amount(number / 7 + 2),
            closes_in: Duration::from_secs(5),
            reward_due_in: Duration::from_secs(60),
            needs: feature::TOOLS,
            prompt_tokens: 100,
            output_tokens_expected: 500,
            output_tokens_worst: u32::MAX,
            targets: vec![target; number % 3],
            text: "Write a line. https://example.com/".into(),
        }
    };
    // The one that a call with one job shows is one that can be served.
    (0..count).map(|number| job(number + 22)).collect()
}

fn past() -> Book {
    let closed = |number: u64| {
        let outcomes = [Outcome::Lost, Outcome::Paid, Outcome::Unpaid, Outcome::Failed];
        let outcome = outcomes[usize::try_from(number % 4).unwrap_or_default()];
        let cost = NanoUsd::from_nanos(number * 1_000);
        let bid = NanoUsd::from_nanos(number * 1_500);
        let (actual, earned) = match outcome {
            Outcome::Lost => (NanoUsd::ZERO, NanoUsd::ZERO),
            Outcome::Paid => (cost, bid),
            Outcome::Unpaid | Outcome::Failed => (cost, NanoUsd::ZERO),
        };
        ClosedBid { credit: bid.saturating_add(bid), bid, expected: cost, actual, earned, outcome }
    };
    let recent: Vec<ClosedBid> = (0..).map(closed).take(RECENT_MAX).collect();
    Book { wins: 192, losses: 64, day_loss_left: Some(NanoUsd::ZERO), recent, ..Book::default() }
}

impl Inbound for Sample {
    fn shape(&self) -> Shape {
        Shape {
            surface: Surface::OpenAiChat.code(),
            endpoint: Endpoint::Chat.code(),
            model: "vector".into(),
            streaming: self.json["stream"] == true,
            features: if self.json["max_tokens"].is_null() { 0 } else { feature::OUTPUT_LIMIT },
        }
    }

    fn sizes(&self) -> Sizes {
        let body_bytes = u32::try_from(self.text.len()).unwrap_or(u32::MAX);
        Sizes { body_bytes, prompt_tokens_estimate: 3, choices: 1 }
    }

    fn identity(&self) -> Identity {
        Identity { request_id: "vector".into(), received_s: 1_800_000_000 }
    }

    fn header(&self, _name: &str) -> Option<String> {
        None
    }

    fn field(&self, pointer: &str) -> Option<String> {
        self.json.pointer(pointer).map(ToString::to_string)
    }

    fn body(&self) -> Vec<u8> {
        self.text.as_bytes().to_vec()
    }
}
