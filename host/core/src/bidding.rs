//! What a bid strategy is shown of a market, and what its answer must be to be followed.
//!
//! Who asks a strategy: the runtime. Floors, ceilings and money at risk are the caller's: it fills
//! them into each [`Job`], and [`Decisions::check`] holds every bid to them.

use std::sync::Arc;
use std::time::Duration;

use crate::money::NanoUsd;

/// Jobs shown in one call; the caller puts those first that matter most.
pub const JOBS_MAX: usize = 512;

/// Ended bids shown in one call: the newest.
pub const RECENT_MAX: usize = 256;

/// The largest amount that a strategy is shown, and so can bid: JavaScript guests see no larger
/// number exactly. It also stands for a cost without a bound, and an amount that is not known.
pub const AMOUNT_MAX: NanoUsd = NanoUsd::from_nanos((1 << 53) - 1);

/// One open job, as a strategy sees it; its number is its place in the list.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Job {
    /// What is wanted.
    pub kind: JobKind,
    /// The most that the requester pays.
    pub credit: NanoUsd,
    /// No bid below it is made.
    pub floor: NanoUsd,
    /// No bid above it is made.
    pub ceiling: NanoUsd,
    /// Until no bid is taken; zero if not known.
    pub closes_in: Duration,
    /// Until the requester must have said what it pays; zero if not known.
    pub reward_due_in: Duration,
    /// Bits of [`crate::codes::feature`].
    pub needs: u64,
    /// The prompt, by a rough count.
    pub prompt_tokens: u32,
    /// The output that `expected` of the targets reckons with.
    pub output_tokens_expected: u32,
    /// The output that `worst` of the targets reckons with; `u32::MAX` without a bound.
    pub output_tokens_worst: u32,
    /// Those that may serve it and whose price is known.
    pub targets: Vec<OptionCost>,
    /// What the requester wrote.
    pub text: Arc<str>,
}

/// What is wanted of whoever wins a job. The codes are part of the contract.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u16)]
pub enum JobKind {
    /// One answer to messages.
    Completion = 1,
    /// A conversation with somebody who acts.
    Agent = 2,
}

/// What one target would cost us for a job.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OptionCost {
    /// As in the strategy's setup.
    pub target: u32,
    /// With the output that is expected.
    pub expected: NanoUsd,
    /// With the most output that there can be; [`AMOUNT_MAX`] without a bound.
    pub worst: NanoUsd,
    /// Bits of [`crate::codes::feature`] that it is known to serve; 0 if not known.
    pub offers: u64,
}

/// A strategy's own share of the books.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Book {
    /// The sum of bids that have no answer yet.
    pub open: NanoUsd,
    /// The sum of bids that won and have not ended.
    pub won: NanoUsd,
    /// What all that have ended did cost.
    pub spent: NanoUsd,
    /// What all that have ended did earn.
    pub earned: NanoUsd,
    /// On the market, if known.
    pub balance: Option<NanoUsd>,
    /// What may be lost today before bidding stops; none without a cap.
    pub day_loss_left: Option<NanoUsd>,
    /// Ended bids where we were chosen.
    pub wins: u32,
    /// Ended bids where we were not.
    pub losses: u32,
    /// The last ended bids, the newest last; of more than [`RECENT_MAX`] the newest are shown.
    pub recent: Vec<ClosedBid>,
}

/// A bid that has ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ClosedBid {
    /// The most that the requester would have paid.
    pub credit: NanoUsd,
    /// What was asked for.
    pub bid: NanoUsd,
    /// Of the cheapest target, when the bid was made.
    pub expected: NanoUsd,
    /// What serving did cost; nothing where nothing was served.
    pub actual: NanoUsd,
    /// What was paid.
    pub earned: NanoUsd,
    /// How it ended.
    pub outcome: Outcome,
}

/// How a bid ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Outcome {
    /// Somebody else was chosen, or nobody.
    Lost,
    /// We were chosen, served and were paid.
    Paid,
    /// We were chosen and served, and were paid nothing.
    Unpaid,
    /// We were chosen and did not serve.
    Failed,
}

/// What a strategy says of one job, not yet checked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Said {
    /// Nano-dollars.
    Bid(u64),
    /// The strategy's own code.
    Skip(u16),
}

/// What becomes of one job.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Decision {
    /// Not under the job's floor, not over its ceiling or its credit.
    Bid(NanoUsd),
    /// No bid.
    Skip(Reason),
}

/// Why there is no bid.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Reason {
    /// The strategy's own code; its documentation says what it means.
    Strategy(u16),
    /// The host's.
    Host(HostReason),
}

/// Why the host makes no bid where the strategy did not skip.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum HostReason {
    /// The strategy said nothing of the job.
    Undecided,
    /// There were more than [`JOBS_MAX`] before it.
    NotShown,
    /// Under the job's floor.
    BelowFloor,
    /// Over the job's ceiling.
    AboveCeiling,
    /// Over what the requester pays.
    AboveCredit,
}

/// What a strategy answered, checked.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Decisions {
    /// One for each job, in the order of the jobs.
    pub by_job: Vec<Decision>,
    /// Bids that the host does not make, since they are out of bounds.
    pub out_of_bounds: usize,
}

/// How an answer breaks the contract; none of it is followed then.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DecisionBreach {
    /// A number that no job has.
    #[error("decided about {0}, which is no job")]
    Stranger(u32),
    /// A job named more than once.
    #[error("decided about {0} twice")]
    Twice(u32),
}

impl JobKind {
    /// The number that crosses to plugins.
    pub fn code(self) -> u16 {
        self as u16
    }
}

impl HostReason {
    /// The name in lists and metrics.
    pub fn name(self) -> &'static str {
        match self {
            HostReason::Undecided => "undecided",
            HostReason::NotShown => "not_shown",
            HostReason::BelowFloor => "below_floor",
            HostReason::AboveCeiling => "above_ceiling",
            HostReason::AboveCredit => "above_credit",
        }
    }
}

impl Job {
    /// Holds a bid to the job's bounds.
    fn held(&self, bid: NanoUsd) -> Decision {
        let out = |reason| Decision::Skip(Reason::Host(reason));
        if bid > self.credit {
            return out(HostReason::AboveCredit);
        }
        if bid > self.ceiling {
            return out(HostReason::AboveCeiling);
        }
        if bid < self.floor {
            return out(HostReason::BelowFloor);
        }
        Decision::Bid(bid)
    }
}

impl Decisions {
    /// Takes what a strategy said of these jobs, by their places. Those beyond [`JOBS_MAX`] were
    /// not shown.
    ///
    /// # Errors
    ///
    /// A [`DecisionBreach`]; nothing is bid then. A bid out of bounds is none: one job that a
    /// strategy is wrong about does not cost the others.
    pub fn check(said: &[(u32, Said)], jobs: &[Job]) -> Result<Decisions, DecisionBreach> {
        let shown = jobs.len().min(JOBS_MAX);
        let mut answers: Vec<Option<Said>> = vec![None; shown];
        for (id, said) in said {
            let place = usize::try_from(*id).ok().and_then(|id| answers.get_mut(id));
            let place = place.ok_or(DecisionBreach::Stranger(*id))?;
            if place.replace(*said).is_some() {
                return Err(DecisionBreach::Twice(*id));
            }
        }
        let decide = |(job, said): (&Job, Option<Said>)| match said {
            None => Decision::Skip(Reason::Host(HostReason::Undecided)),
            Some(Said::Skip(code)) => Decision::Skip(Reason::Strategy(code)),
            Some(Said::Bid(nanos)) => job.held(NanoUsd::from_nanos(nanos)),
        };
        let mut by_job: Vec<Decision> = jobs.iter().zip(answers).map(decide).collect();
        let out_of_bounds = by_job.iter().filter(|decision| decision.is_out_of_bounds()).count();
        by_job.resize(jobs.len(), Decision::Skip(Reason::Host(HostReason::NotShown)));
        Ok(Decisions { by_job, out_of_bounds })
    }
}

impl Decision {
    fn is_out_of_bounds(self) -> bool {
        match self {
            Decision::Bid(_) | Decision::Skip(Reason::Strategy(_)) => false,
            Decision::Skip(Reason::Host(reason)) => match reason {
                HostReason::BelowFloor | HostReason::AboveCeiling | HostReason::AboveCredit => true,
                HostReason::Undecided | HostReason::NotShown => false,
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;

    fn job(credit: u64, floor: u64, ceiling: u64) -> Job {
        let nanos = NanoUsd::from_nanos;
        Job {
            kind: JobKind::Completion,
            credit: nanos(credit),
            floor: nanos(floor),
            ceiling: nanos(ceiling),
            closes_in: Duration::ZERO,
            reward_due_in: Duration::ZERO,
            needs: 0,
            prompt_tokens: 0,
            output_tokens_expected: 0,
            output_tokens_worst: 0,
            targets: Vec::new(),
            text: "".into(),
        }
    }

    fn host(reason: HostReason) -> Decision {
        Decision::Skip(Reason::Host(reason))
    }

    #[test]
    fn each_job_has_a_decision_in_its_place() {
        let jobs = [job(10, 2, 8), job(10, 2, 8), job(10, 2, 8), job(10, 2, 8)];
        let said = [(3, Said::Skip(7)), (0, Said::Bid(5))];
        let decisions = Decisions::check(&said, &jobs).unwrap();
        let bid = Decision::Bid(NanoUsd::from_nanos(5));
        let undecided = host(HostReason::Undecided);
        assert_eq!(decisions.by_job, [bid, undecided, undecided, Decision::Skip(Reason::Strategy(7))]);
        assert_eq!(decisions.out_of_bounds, 0);
    }

    #[test]
    fn a_stranger_or_a_job_named_twice_voids_the_answer() {
        let jobs = [job(10, 0, 10), job(10, 0, 10)];
        let check = |said: &[(u32, Said)]| Decisions::check(said, &jobs).err();
        assert_eq!(check(&[(2, Said::Skip(0))]), Some(DecisionBreach::Stranger(2)));
        assert_eq!(check(&[(u32::MAX, Said::Skip(0))]), Some(DecisionBreach::Stranger(u32::MAX)));
        assert_eq!(check(&[(1, Said::Bid(1)), (1, Said::Bid(1))]), Some(DecisionBreach::Twice(1)));
        let endless: Vec<(u32, Said)> = std::iter::repeat_n((0, Said::Skip(0)), 100_000).collect();
        assert_eq!(check(&endless), Some(DecisionBreach::Twice(0)));
    }

    #[test]
    fn a_bid_out_of_bounds_costs_its_job_alone() {
        let jobs = [job(10, 2, 8), job(10, 2, 8), job(10, 2, 8), job(7, 2, 8)];
        let said = [(0, Said::Bid(1)), (1, Said::Bid(9)), (2, Said::Bid(8)), (3, Said::Bid(8))];
        let decisions = Decisions::check(&said, &jobs).unwrap();
        let wanted = [
            host(HostReason::BelowFloor),
            host(HostReason::AboveCeiling),
            Decision::Bid(NanoUsd::from_nanos(8)),
            host(HostReason::AboveCredit),
        ];
        assert_eq!(decisions.by_job, wanted);
        assert_eq!(decisions.out_of_bounds, 3);
    }

    #[test]
    fn what_was_not_shown_is_no_job_to_decide_about() {
        let jobs = vec![job(10, 0, 10); JOBS_MAX + 2];
        let beyond = u32::try_from(JOBS_MAX).unwrap();
        let stranger = Decisions::check(&[(beyond, Said::Bid(1))], &jobs);
        assert_eq!(stranger, Err(DecisionBreach::Stranger(beyond)));
        let decisions = Decisions::check(&[(beyond - 1, Said::Bid(1))], &jobs).unwrap();
        assert_eq!(decisions.by_job.len(), jobs.len());
        assert_eq!(decisions.by_job[JOBS_MAX - 1], Decision::Bid(NanoUsd::from_nanos(1)));
        assert_eq!(decisions.by_job[JOBS_MAX..], [host(HostReason::NotShown); 2]);
        assert_eq!(decisions.out_of_bounds, 0);
    }

    fn said() -> impl Strategy<Value = Said> {
        prop_oneof![
            8 => (0..9_u64).prop_map(Said::Bid),
            1 => any::<u64>().prop_map(Said::Bid),
            1 => any::<u16>().prop_map(Said::Skip),
        ]
    }

    proptest! {
        /// Whatever is said: an answer that is taken names each job at most once, and bids only what
        /// was said, inside of the job's bounds.
        #[test]
        fn no_answer_bids_what_was_not_said_or_may_not_be(
            bounds in prop::collection::vec((0..9_u64, 0..9_u64, 0..9_u64), 0..8),
            answers in prop::collection::vec(prop::option::weighted(0.8, said()), 8),
            spoilt_by in prop::option::weighted(0.2, (0..9_u32, said())),
        ) {
            let jobs: Vec<Job> =
                bounds.iter().map(|(credit, floor, ceiling)| job(*credit, *floor, *ceiling)).collect();
            let of_jobs = (0..).zip(answers).take(jobs.len()).filter_map(|(id, said)| Some((id, said?)));
            let said: Vec<(u32, Said)> = of_jobs.chain(spoilt_by).collect();
            let mut by_id = BTreeMap::new();
            let mut good = true;
            for (id, said) in &said {
                good &= (*id as usize) < jobs.len() && by_id.insert(*id as usize, *said).is_none();
            }
            let checked = Decisions::check(&said, &jobs);
            prop_assert_eq!(checked.is_ok(), good);
            let Ok(decisions) = checked else { return Ok(()) };
            prop_assert_eq!(decisions.by_job.len(), jobs.len());
            let mut out_of_bounds = 0;
            for (place, (job, decision)) in jobs.iter().zip(&decisions.by_job).enumerate() {
                let may_be = |nanos: u64| {
                    let amount = NanoUsd::from_nanos(nanos);
                    job.floor <= amount && amount <= job.ceiling && amount <= job.credit
                };
                match (by_id.get(&place), decision) {
                    (Some(Said::Bid(nanos)), Decision::Bid(bid)) => {
                        prop_assert!(bid.nanos() == *nanos && may_be(*nanos));
                    }
                    (Some(Said::Bid(nanos)), Decision::Skip(Reason::Host(_))) => {
                        prop_assert!(!may_be(*nanos));
                        out_of_bounds += 1;
                    }
                    (Some(Said::Skip(code)), Decision::Skip(Reason::Strategy(kept))) => prop_assert_eq!(code, kept),
                    (None, Decision::Skip(Reason::Host(HostReason::Undecided))) => {}
                    (said, decision) => prop_assert!(false, "{:?} became {:?}", said, decision),
                }
            }
            prop_assert_eq!(decisions.out_of_bounds, out_of_bounds);
        }
    }
}
