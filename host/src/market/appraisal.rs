//! What a job would cost us: by the bodies that its requester will send, and the prices of those who
//! may serve it.
//!
//! The worst case of a job is what its key may spend. It is reckoned as a call's hold is, so that what
//! was bid for can be served.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use serde_json::json;
use serde_json::value::RawValue;
use sluice_core::bidding::{self, JobKind, OptionCost};
use sluice_core::bound::{Ask, OUTPUT_DEFAULT};
use sluice_core::money::NanoUsd;
use sluice_core::price::{Price, Usage};

use super::contract::{Instance, InstanceId};
use crate::call::Call;
use crate::config;
use crate::routes::{Model, Target};

/// A job takes bids for so long at most, in milliseconds, and is rewarded so long after: a day, and a
/// week. Those that were seen take minutes, and hours.
const OPEN_MS_MAX: u64 = 24 * 60 * 60 * 1000;
const REWARDED_MS_MAX: u64 = 7 * OPEN_MS_MAX;

/// Bytes that a call may have beyond what the market shows of it: settings and the like.
const EXTRA_BYTES: u64 = 1024;

/// A job with a number on it.
pub(crate) struct Appraised {
    pub(crate) id: InstanceId,
    /// As a strategy is shown it.
    pub(crate) job: bidding::Job,
    /// What it costs with the cheapest target, as far as can be expected.
    pub(crate) expected: NanoUsd,
    /// What it can cost with the dearest one: its key's cap.
    pub(crate) worst: NanoUsd,
    pub(crate) closes_at_ms: u64,
    pub(crate) due_at_ms: u64,
}

/// What nobody of the targets can be asked for, or nobody knows the cost of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Unfit {
    /// The market does not say until when it goes, or says what nobody means.
    Times,
    /// It can be read by nobody.
    Body,
    /// No target has a price, or none a bound.
    Unpriced,
}

/// What is asked of whom.
struct Request {
    call: Call,
    limit: Option<u64>,
    output_expected: u64,
}

impl Unfit {
    /// One word for it, for labels.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Unfit::Times => "times",
            Unfit::Body => "body",
            Unfit::Unpriced => "unpriced",
        }
    }
}

/// What a job would cost, if this model served it.
///
/// # Errors
///
/// [`Unfit`]: there is nothing to bid on then.
pub(crate) fn appraise(
    instance: Instance,
    model: &Model,
    asked: &str,
    market: &config::Market,
    now_ms: u64,
) -> Result<Appraised, Unfit> {
    let (closes_at_ms, due_at_ms) = instance
        .closes_at_ms
        .zip(instance.reward_due_at_ms)
        .filter(|(closes_at_ms, due_at_ms)| are_meant(*closes_at_ms, *due_at_ms, now_ms))
        .ok_or(Unfit::Times)?;
    let request = Request::read(&instance, asked, market.expected_output_tokens)?;
    let calls = u64::from(market.calls_per_job);
    let costs = (0..).zip(&model.targets).filter_map(|(id, target)| {
        let target_model = target.model_for(&model.name, asked);
        let (expected, worst) = request.costs(target, target_model, calls)?;
        Some(OptionCost { target: id, expected, worst, offers: 0 })
    });
    let targets: Vec<OptionCost> = costs.collect();
    let expected = targets.iter().map(|cost| cost.expected).min().ok_or(Unfit::Unpriced)?;
    let worst = targets.iter().map(|cost| cost.worst).max().ok_or(Unfit::Unpriced)?;
    let small = |number: u64| u32::try_from(number).unwrap_or(u32::MAX);
    let until = |at_ms: u64| Duration::from_millis(at_ms.saturating_sub(now_ms));
    let job = bidding::Job {
        kind: if instance.is_agent { JobKind::Agent } else { JobKind::Completion },
        credit: instance.credit,
        floor: market.floor,
        ceiling: market.ceiling,
        closes_in: until(closes_at_ms),
        reward_due_in: until(due_at_ms),
        needs: request.call.shape.features,
        prompt_tokens: small(request.call.input_tokens().0),
        output_tokens_expected: small(request.output_expected),
        output_tokens_worst: small(request.limit.unwrap_or(OUTPUT_DEFAULT)),
        targets,
        text: Arc::from(instance.background),
    };
    Ok(Appraised { id: instance.id, job, expected, worst, closes_at_ms, due_at_ms })
}

/// Whether a job has such times. One that goes on for ever would keep its place and its money for ever.
fn are_meant(closes_at_ms: u64, due_at_ms: u64, now_ms: u64) -> bool {
    now_ms < closes_at_ms
        && closes_at_ms < due_at_ms
        && closes_at_ms - now_ms <= OPEN_MS_MAX
        && due_at_ms - closes_at_ms <= REWARDED_MS_MAX
}

impl Request {
    fn read(instance: &Instance, asked: &str, output_usual: u64) -> Result<Request, Unfit> {
        let body = body(instance, asked)?;
        let call = Call::imagined(body).map_err(|_| Unfit::Body)?;
        // As where a call is held: some vendors take a limit of nothing for none.
        let limit = instance.max_tokens.filter(|limit| *limit > 0);
        let output_expected = limit.map_or(output_usual, |limit| limit.min(output_usual));
        Ok(Request { call, limit, output_expected })
    }

    /// Expected and at the worst; none where nobody can tell.
    fn costs(&self, target: &Target, target_model: &str, calls: u64) -> Option<(NanoUsd, NanoUsd)> {
        let price = target.price(target_model)?;
        let bounds = target.bounds(target_model);
        let ask = Ask::read(self.call.text(), &bounds, self.limit, true, 1).ok()?;
        let ask = Ask { input: ask.input.checked_add(EXTRA_BYTES)?, ..ask };
        let worst = ask.fund(price, NanoUsd::from_nanos(u64::MAX), 1).ok()?.amount;
        Some((self.expected(price)?, times(worst, calls)?))
    }

    fn expected(&self, price: &Price) -> Option<NanoUsd> {
        let (input, _) = self.call.input_tokens();
        price.cost(&Usage { input, output: self.output_expected, ..Usage::default() }).ok()
    }
}

fn times(amount: NanoUsd, count: u64) -> Option<NanoUsd> {
    amount.nanos().checked_mul(count).map(NanoUsd::from_nanos)
}

/// As the requester will send it. What an agent is told is in the background alone.
fn body(instance: &Instance, asked: &str) -> Result<Bytes, Unfit> {
    let told = || {
        let said = json!([{"role": "user", "content": instance.background}]);
        RawValue::from_string(said.to_string()).map_err(|_| Unfit::Body)
    };
    let messages = instance.messages.clone().map_or_else(told, Ok)?;
    let mut body = format!(r#"{{"model":{},"messages":{}"#, json!(asked), messages.get());
    if let Some(limit) = instance.max_tokens {
        body.push_str(&format!(r#","max_tokens":{limit}"#));
    }
    if instance.stream == Some(true) {
        body.push_str(r#","stream":true"#);
    }
    body.push('}');
    Ok(body.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_that_nobody_means_are_no_times() {
        let closes = 10 + OPEN_MS_MAX;
        assert!(are_meant(11, 12, 10) && are_meant(closes, closes + REWARDED_MS_MAX, 10));
        for (closes_at_ms, due_at_ms) in [
            (10, 12),
            (11, 11),
            (12, 11),
            (closes + 1, closes + 2),
            (11, 12 + REWARDED_MS_MAX),
            (11, u64::MAX),
        ] {
            assert!(!are_meant(closes_at_ms, due_at_ms, 10), "{closes_at_ms}, {due_at_ms}");
        }
    }
}
