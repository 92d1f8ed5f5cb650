//! Which targets may be asked, and what a policy is shown of them.

use std::sync::Arc;
use std::time::Instant;

use sluice_core::breaker::Standing;
use sluice_core::ranking::{Candidate, NO_PRICE};

use crate::attempts::Free;
use crate::call::{Call, OUTPUT_TOKENS_EXPECTED};
use crate::refusal::Refusal;
use crate::routes::{Model, Target};

/// Output of a request without a limit: the most that is reckoned with.
const OUTPUT_TOKENS_WORST: u64 = 4096;

/// A candidate's breaker, as policies see it.
const BREAKER_CLOSED: u8 = 0;
const BREAKER_HALF_OPEN: u8 = 1;

/// The targets that may be asked, each with its place.
pub(crate) struct Candidates {
    /// Those that a policy orders.
    pub(crate) free: Vec<(u32, Free)>,
    /// Those that asked for a pause: the last resort.
    pub(crate) resting: Vec<(u32, Free)>,
}

/// The targets that may be asked now. Those that rest by their own wish come last; where there is
/// nobody else, a policy orders them.
pub(crate) fn free(model: &Model, call: &Call) -> Result<Candidates, Refusal> {
    let now = Instant::now();
    let lane_of = |target: &Arc<Target>| target.lane(&model.name, &call.shape.model);
    let all = (0..)
        .zip(&model.targets)
        .map(|(id, target)| (id, Free { target: Arc::clone(target), lane: lane_of(target) }));
    let (mut free, mut resting, mut open) = (Vec::new(), Vec::new(), Vec::new());
    for (id, one) in all {
        if one.lane.standing(now).is_none() {
            open.push(one.lane);
        } else if one.lane.bench(now).is_some() {
            resting.push((id, one));
        } else {
            free.push((id, one));
        }
    }
    // Who may be asked first, first.
    resting.sort_by_key(|(_, one): &(u32, Free)| one.lane.bench(now).map(|bench| bench.until));
    match (free.is_empty(), resting.is_empty()) {
        (false, _) => Ok(Candidates { free, resting }),
        (true, false) => Ok(Candidates { free: resting, resting: Vec::new() }),
        (true, true) => Err(Refusal::resting(open.iter())),
    }
}

/// Candidates as a policy sees them; a candidate's id is the place of its target.
pub(crate) fn shown(model: &Model, free: &[(u32, Free)], call: &Call) -> Vec<Candidate> {
    let now = Instant::now();
    let (input_expected, input_worst) = call.input_tokens();
    let output_expected = call.output_limit.unwrap_or(u64::MAX).min(OUTPUT_TOKENS_EXPECTED);
    let output_worst = call.output_limit.unwrap_or(OUTPUT_TOKENS_WORST);
    let choices = u64::from(call.choices);
    let candidate = |(id, free): &(u32, Free)| {
        let target = &free.target;
        let price = target.price(target.model_for(&model.name, &call.shape.model));
        // A cost too large for a guest to see exactly is none: the target is shown as unpriced.
        let cost = |input, output: u64| {
            let cost = price?.worst(input, output.saturating_mul(choices)).ok()?;
            (cost.nanos() < NO_PRICE).then_some(cost)
        };
        let expected = cost(input_expected, output_expected).zip(cost(input_worst, output_worst));
        let stats = target.stats.snapshot();
        Candidate {
            id: *id,
            priority: target.priority,
            weight: target.weight,
            expected: expected.map_or(NO_PRICE, |(expected, _)| expected.nanos()),
            worst: expected.map_or(NO_PRICE, |(_, worst)| worst.nanos()),
            ewma_ttft_us: stats.ttft_us,
            ewma_total_us: stats.total_us,
            samples: stats.samples,
            success_permille: stats.success_permille,
            inflight: stats.inflight,
            breaker: match free.lane.standing(now) {
                Some(Standing::Closed) => BREAKER_CLOSED,
                Some(Standing::Open { .. } | Standing::HalfOpen { .. }) | None => BREAKER_HALF_OPEN,
            },
        }
    };
    free.iter().map(candidate).collect()
}
