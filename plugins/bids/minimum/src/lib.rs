//! Bids the least that the market takes on every job that we could serve, whatever it costs us.

use bid_terms::{Usd, code};
use serde::Deserialize;
use sluice_plugin::bid::{
    Book, Decision, Job, Manifest, PluginError, Setup, Strategy, Texts, manifest, most, sample_job,
};

struct Minimum {
    bid: u64,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields, default)]
struct Config {
    bid_usd: Usd,
}

impl Default for Config {
    fn default() -> Config {
        Config { bid_usd: Usd::CENT }
    }
}

impl Strategy for Minimum {
    fn describe() -> Manifest {
        let doc = "The same small bid on every job, or the job's floor; never looks at the cost.";
        Manifest {
            config_schema: include_str!("schema.json").into(),
            ..manifest("minimum", env!("CARGO_PKG_VERSION"), doc)
        }
    }

    fn configure(setup: Setup) -> Result<Minimum, PluginError> {
        let config: Config = serde_json::from_str(&setup.config_json)
            .map_err(|error| PluginError::InvalidConfig(error.to_string()))?;
        Ok(Minimum { bid: config.bid_usd.0 })
    }

    fn self_test() -> Result<(), String> {
        let minimum = Minimum { bid: Usd::CENT.0 };
        match minimum.decision(&sample_job(0, Usd::CENT.0, 1)) {
            Decision::Bid(bid) if bid == Usd::CENT.0 => Ok(()),
            other => Err(format!("a job that pays a cent: {other:?}")),
        }
    }

    fn decide(
        &self,
        _book: &Book,
        jobs: &[Job],
        _texts: &dyn Texts,
    ) -> Result<Vec<(u32, Decision)>, PluginError> {
        Ok(jobs.iter().map(|job| (job.id, self.decision(job))).collect())
    }
}

impl Minimum {
    fn decision(&self, job: &Job) -> Decision {
        let bid = self.bid.max(job.floor);
        if job.targets.is_empty() {
            return Decision::Skip(code::NO_TARGET);
        }
        if bid > job.credit {
            return Decision::Skip(code::CREDIT);
        }
        if bid > most(job) {
            return Decision::Skip(code::CEILING);
        }
        Decision::Bid(bid)
    }
}

sluice_plugin::export_strategy!(Minimum);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_bids_the_floor_or_its_amount_and_never_over_the_credit() {
        let minimum = Minimum { bid: 10 };
        for credit in 0..40 {
            for floor in 0..40 {
                for ceiling in 0..40 {
                    let mut job = sample_job(0, credit, 1_000_000);
                    (job.floor, job.ceiling) = (floor, ceiling);
                    let wanted = floor.max(10);
                    let decision = match (wanted <= credit, wanted <= ceiling) {
                        (true, true) => Decision::Bid(wanted),
                        (false, _) => Decision::Skip(code::CREDIT),
                        (true, false) => Decision::Skip(code::CEILING),
                    };
                    assert_eq!(minimum.decision(&job), decision, "{job:?}");
                }
            }
        }
    }

    #[test]
    fn what_nobody_can_serve_is_not_bid_for() {
        let mut job = sample_job(0, 1_000, 1);
        job.targets.clear();
        assert_eq!(Minimum { bid: 10 }.decision(&job), Decision::Skip(code::NO_TARGET));
    }

    #[test]
    fn it_tests_itself() {
        assert_eq!(Minimum::self_test(), Ok(()));
    }
}
