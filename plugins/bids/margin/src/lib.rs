//! Bids what the cheapest target is expected to cost, and a margin.

use bid_terms::Terms;
use sluice_plugin::bid::{
    Book, Decision, Job, Manifest, PluginError, Setup, Strategy, Texts, manifest, sample_job,
};

/// Percent, where the operator does not say.
const MARGIN_PERCENT: u32 = 30;

struct Margin {
    terms: Terms,
}

impl Strategy for Margin {
    fn describe() -> Manifest {
        let doc = "The cheapest target's expected cost and a margin, as far as the requester pays it.";
        Manifest {
            config_schema: include_str!("schema.json").into(),
            ..manifest("margin", env!("CARGO_PKG_VERSION"), doc)
        }
    }

    fn configure(setup: Setup) -> Result<Margin, PluginError> {
        Ok(Margin { terms: Terms::read(&setup.config_json, MARGIN_PERCENT)? })
    }

    fn self_test() -> Result<(), String> {
        let terms = Terms::read("{}", MARGIN_PERCENT).map_err(|error| format!("{error:?}"))?;
        match terms.decide(&sample_job(0, 200_000_000, 100_000_000)) {
            Decision::Bid(130_000_000) => Ok(()),
            other => Err(format!("a job of ten cents at thirty percent: {other:?}")),
        }
    }

    fn decide(
        &self,
        _book: &Book,
        jobs: &[Job],
        _texts: &dyn Texts,
    ) -> Result<Vec<(u32, Decision)>, PluginError> {
        Ok(jobs.iter().map(|job| (job.id, self.terms.decide(job))).collect())
    }
}

sluice_plugin::export_strategy!(Margin);

#[cfg(test)]
mod tests {
    use bid_terms::code;
    use sluice_plugin::bid::{OptionCost, empty_book};

    use super::*;

    fn decide(config: &str, jobs: &[Job]) -> Vec<(u32, Decision)> {
        let setup = Setup { config_json: config.into(), names: Vec::new(), targets: Vec::new() };
        Margin::configure(setup).unwrap().decide(&empty_book(), jobs, &[""; 0]).unwrap()
    }

    #[test]
    fn it_asks_for_cost_and_margin_of_the_cheapest_target() {
        let mut job = sample_job(7, 1_000_000_000, 200_000_000);
        job.targets.push(OptionCost { target: 1, expected: 100_000_000, worst: 150_000_000, offers: 0 });
        assert_eq!(decide("{}", &[job.clone()]), [(7, Decision::Bid(130_000_000))]);
        assert_eq!(decide(r#"{"margin_percent": 100}"#, &[job]), [(7, Decision::Bid(200_000_000))]);
    }

    #[test]
    fn every_job_gets_a_decision_of_its_own() {
        let mut nobody = sample_job(1, 1_000_000_000, 1);
        nobody.targets.clear();
        let jobs = [sample_job(9, 1_000_000_000, 1), nobody, sample_job(4, 1, 1)];
        let wanted = [
            (9, Decision::Bid(10_000_000)),
            (1, Decision::Skip(code::NO_TARGET)),
            (4, Decision::Skip(code::CREDIT)),
        ];
        assert_eq!(decide("{}", &jobs), wanted);
    }

    #[test]
    fn it_tests_itself() {
        assert_eq!(Margin::self_test(), Ok(()));
    }
}
