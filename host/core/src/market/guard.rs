//! Whether a bid is made: whatever a strategy wants, it stays inside these bounds.
//!
//! A job that was bid on can cost its worst case until it has ended, paid or not. So the worst cases of
//! all jobs under way and what the day has lost are never more than the day may lose.

use crate::money::NanoUsd;

/// What the operator allows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Of each bid.
    pub floor: NanoUsd,
    /// Of each bid.
    pub ceiling: NanoUsd,
    /// Worst cases of all jobs under way, together.
    pub risk: NanoUsd,
    /// Costs of a day beyond what it has earned.
    pub loss_per_day: NanoUsd,
    /// Jobs under way.
    pub jobs: u32,
}

/// What is under way, and what the day has brought.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Exposure {
    /// Jobs that were bid on and have not ended.
    pub jobs: u32,
    /// Their worst cases together.
    pub risk: NanoUsd,
    /// What jobs that ended today have cost.
    pub spent: NanoUsd,
    /// What they have earned.
    pub earned: NanoUsd,
}

/// A bid, and what it is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bid {
    /// What we want for the job.
    pub amount: NanoUsd,
    /// What the requester pays at most.
    pub credit: NanoUsd,
    /// What the job can cost us.
    pub worst: NanoUsd,
}

/// Why a bid is not made.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Barred {
    /// It is below the floor.
    Floor,
    /// It is above the ceiling.
    Ceiling,
    /// The requester does not pay that much.
    Credit,
    /// Too many jobs are under way.
    Jobs,
    /// Too much could be lost at once.
    Risk,
    /// The day has lost, or could lose, what it may.
    Loss,
}

impl Barred {
    /// One word for it, for labels and rows.
    pub fn name(self) -> &'static str {
        match self {
            Barred::Floor => "floor",
            Barred::Ceiling => "ceiling",
            Barred::Credit => "credit",
            Barred::Jobs => "jobs",
            Barred::Risk => "risk",
            Barred::Loss => "loss",
        }
    }
}

impl Limits {
    /// Whether this bid is made, with this under way.
    ///
    /// # Errors
    ///
    /// [`Barred`]: the first bound that it is beyond.
    pub fn check(&self, under_way: &Exposure, bid: &Bid) -> Result<(), Barred> {
        let barred = [
            (bid.amount < self.floor, Barred::Floor),
            (bid.amount > self.ceiling, Barred::Ceiling),
            (bid.amount > bid.credit, Barred::Credit),
            (under_way.jobs >= self.jobs, Barred::Jobs),
            (self.risk_left(under_way) < bid.worst, Barred::Risk),
            (self.loss_left(under_way) < bid.worst, Barred::Loss),
        ];
        barred.into_iter().find(|(is_beyond, _)| *is_beyond).map_or(Ok(()), |(_, why)| Err(why))
    }

    /// Worst cases for which there is room.
    pub fn risk_left(&self, under_way: &Exposure) -> NanoUsd {
        self.risk.saturating_sub(under_way.risk)
    }

    /// What the day may still lose, if all that is under way goes wrong.
    pub fn loss_left(&self, under_way: &Exposure) -> NanoUsd {
        let Exposure { risk, spent, earned, .. } = *under_way;
        // What is earned makes up for costs. It is the market's word, and lets nobody lose more.
        let lost = spent.saturating_sub(earned).saturating_add(risk);
        self.loss_per_day.saturating_sub(lost)
    }
}

impl Exposure {
    /// A bid was made.
    pub fn begins(&mut self, worst: NanoUsd) {
        self.jobs = self.jobs.saturating_add(1);
        self.risk = self.risk.saturating_add(worst);
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn usd(nanos: u64) -> NanoUsd {
        NanoUsd::from_nanos(nanos)
    }

    /// A job has ended.
    fn ends(exposure: &mut Exposure, worst: u64, cost: u64, earned: u64) {
        exposure.jobs -= 1;
        exposure.risk = exposure.risk.saturating_sub(usd(worst));
        exposure.spent = exposure.spent.saturating_add(usd(cost));
        exposure.earned = exposure.earned.saturating_add(usd(earned));
    }

    fn limits() -> Limits {
        Limits { floor: usd(10), ceiling: usd(100), risk: usd(500), loss_per_day: usd(300), jobs: 3 }
    }

    #[test]
    fn each_bound_bars_what_is_beyond_it_and_nothing_else() {
        let exposure = Exposure { jobs: 2, risk: usd(100), spent: usd(50), earned: usd(0) };
        let bid = |amount, credit, worst| Bid { amount: usd(amount), credit: usd(credit), worst: usd(worst) };
        let check = |bid| limits().check(&exposure, &bid);
        assert_eq!(check(bid(10, 10, 150)), Ok(()));
        assert_eq!(check(bid(100, 100, 0)), Ok(()));
        assert_eq!(check(bid(9, 100, 1)), Err(Barred::Floor));
        assert_eq!(check(bid(101, 200, 1)), Err(Barred::Ceiling));
        assert_eq!(check(bid(11, 10, 1)), Err(Barred::Credit));
        assert_eq!(check(bid(10, 10, 401)), Err(Barred::Risk));
        assert_eq!(check(bid(10, 10, 151)), Err(Barred::Loss));
        let full = Exposure { jobs: 3, ..Exposure::default() };
        assert_eq!(limits().check(&full, &bid(10, 10, 1)), Err(Barred::Jobs));
        let lucky = Exposure { earned: usd(2000), ..exposure };
        assert_eq!(limits().check(&lucky, &bid(10, 10, 200)), Ok(()));
        assert_eq!(limits().check(&lucky, &bid(10, 10, 201)), Err(Barred::Loss), "no gain lifts the limit");
    }

    #[test]
    fn what_is_lost_and_what_is_at_risk_is_not_left() {
        let mut exposure = Exposure::default();
        exposure.begins(usd(40));
        exposure.begins(usd(60));
        ends(&mut exposure, 40, 30, 5);
        assert_eq!(exposure, Exposure { jobs: 1, risk: usd(60), spent: usd(30), earned: usd(5) });
        assert_eq!(limits().loss_left(&exposure), usd(215), "300 but 25 lost and 60 at risk");
        assert_eq!(limits().risk_left(&exposure), usd(440));
    }

    #[derive(Clone, Debug)]
    enum Step {
        Bid { amount: u64, worst: u64 },
        End { which: prop::sample::Index, cost: prop::sample::Index, earned: u64 },
    }

    fn steps() -> impl Strategy<Value = Vec<Step>> {
        let bid = (0_u64..150, 0_u64..200).prop_map(|(amount, worst)| Step::Bid { amount, worst });
        let end = (any::<prop::sample::Index>(), any::<prop::sample::Index>(), 0_u64..50)
            .prop_map(|(which, cost, earned)| Step::End { which, cost, earned });
        prop::collection::vec(prop_oneof![bid, end], 0..200)
    }

    proptest! {
        /// Whatever is bid, and however jobs end within their worst cases: no bound is ever passed, and
        /// the day never loses more than it may.
        #[test]
        fn nothing_gets_out(steps in steps()) {
            let (limits, mut exposure) = (limits(), Exposure::default());
            let mut open = Vec::new();
            for step in steps {
                match step {
                    Step::Bid { amount, worst } => {
                        let bid = Bid { amount: usd(amount), credit: usd(120), worst: usd(worst) };
                        if limits.check(&exposure, &bid).is_ok() {
                            prop_assert!((10..=100).contains(&amount));
                            exposure.begins(usd(worst));
                            open.push(worst);
                        }
                    }
                    Step::End { which, cost, earned } if !open.is_empty() => {
                        let worst = open.swap_remove(which.index(open.len()));
                        let cost = cost.index(worst as usize + 1) as u64;
                        ends(&mut exposure, worst, cost, earned);
                    }
                    Step::End { .. } => {}
                }
                prop_assert!(open.len() <= 3);
                prop_assert_eq!(exposure.risk, usd(open.iter().sum()));
                prop_assert!(exposure.risk <= limits.risk);
                prop_assert!(exposure.spent <= exposure.earned.saturating_add(limits.loss_per_day));
            }
        }
    }
}
