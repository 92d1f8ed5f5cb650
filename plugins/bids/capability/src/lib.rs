//! Decides whether a job is one for us, by what it needs and what its text says; what to bid is then
//! a matter of cost and margin, as with `margin`.

mod words;

use bid_terms::{Terms, code};
use serde::Deserialize;
use sluice_plugin::bid::{
    Book, Decision, Job, Manifest, OptionCost, PluginError, Setup, Strategy, Texts, manifest, sample_job,
};

use crate::words::Words;

/// Percent, where the operator does not say.
const MARGIN_PERCENT: u32 = 30;

struct Capability {
    terms: Terms,
    rules: Rules,
}

/// The members beside the terms.
#[derive(Deserialize)]
#[serde(default)]
struct Rules {
    kinds: Vec<Kind>,
    unknown_offers: UnknownOffers,
    wanted: Words,
    unwanted: Words,
    text_bytes_min: u32,
    text_bytes_max: u32,
}

#[derive(Clone, Copy, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Kind {
    Completion,
    Agent,
}

/// What a target counts for of which it is not known what it serves.
#[derive(Clone, Copy, Deserialize)]
#[serde(rename_all = "snake_case")]
enum UnknownOffers {
    /// It serves all.
    Take,
    /// It serves nothing that is asked for specially.
    Leave,
}

impl Default for Rules {
    fn default() -> Rules {
        Rules {
            kinds: vec![Kind::Completion],
            unknown_offers: UnknownOffers::Take,
            wanted: Words::default(),
            unwanted: Words::default(),
            text_bytes_min: 0,
            text_bytes_max: 65_536,
        }
    }
}

impl Strategy for Capability {
    fn describe() -> Manifest {
        let doc = "Only jobs whose needs, kind and text fit; for those the cost and a margin.";
        Manifest {
            config_schema: include_str!("schema.json").into(),
            ..manifest("capability", env!("CARGO_PKG_VERSION"), doc)
        }
    }

    fn configure(setup: Setup) -> Result<Capability, PluginError> {
        let terms = Terms::read(&setup.config_json, MARGIN_PERCENT)?;
        let rules: Rules = serde_json::from_str(&setup.config_json)
            .map_err(|error| PluginError::InvalidConfig(error.to_string()))?;
        if rules.text_bytes_min > rules.text_bytes_max {
            return Err(PluginError::InvalidConfig("text_bytes_min is above text_bytes_max".into()));
        }
        Ok(Capability { terms, rules })
    }

    fn self_test() -> Result<(), String> {
        let config = r#"{"wanted": ["github.com"], "worst_share_percent": 0}"#;
        let setup = Setup { config_json: config.into(), names: Vec::new(), targets: Vec::new() };
        let capability = Capability::configure(setup).map_err(|error| format!("{error:?}"))?;
        let text = "See https://GitHub.com/a/b.";
        let mut job = sample_job(0, 200_000_000, 100_000_000);
        job.text_len = u32::try_from(text.len()).unwrap_or_default();
        match capability.decision(&job, &[text]) {
            Decision::Bid(130_000_000) => Ok(()),
            other => Err(format!("a job with a wanted word: {other:?}")),
        }
    }

    fn decide(
        &self,
        _book: &Book,
        jobs: &[Job],
        texts: &dyn Texts,
    ) -> Result<Vec<(u32, Decision)>, PluginError> {
        Ok(jobs.iter().map(|job| (job.id, self.decision(job, texts))).collect())
    }
}

impl Capability {
    /// The text is read last: most jobs are decided without.
    fn decision(&self, job: &Job, texts: &dyn Texts) -> Decision {
        if !self.rules.kinds.iter().any(|kind| kind.code() == job.kind) {
            return Decision::Skip(code::KIND);
        }
        let capable = job.targets.iter().filter(|target| self.rules.serves(target, job.needs));
        let Some(target) = capable.min_by_key(|target| (target.expected, target.worst)) else {
            let code = if job.targets.is_empty() { code::NO_TARGET } else { code::NEEDS };
            return Decision::Skip(code);
        };
        let bid = match self.terms.decide_for(job, target) {
            Decision::Bid(bid) => bid,
            Decision::Skip(code) => return Decision::Skip(code),
        };
        match self.rules.text_fits(job, texts) {
            Ok(()) => Decision::Bid(bid),
            Err(code) => Decision::Skip(code),
        }
    }
}

impl Rules {
    fn serves(&self, target: &OptionCost, needs: u64) -> bool {
        match (target.offers, self.unknown_offers) {
            (0, UnknownOffers::Take) => true,
            (offers, UnknownOffers::Take | UnknownOffers::Leave) => offers & needs == needs,
        }
    }

    /// All of the text is looked at, or the job is skipped: what is unwanted may stand at the end.
    fn text_fits(&self, job: &Job, texts: &dyn Texts) -> Result<(), u16> {
        if job.text_len < self.text_bytes_min {
            return Err(code::SHORT);
        }
        if job.text_len > self.text_bytes_max {
            return Err(code::LONG);
        }
        if self.wanted.is_empty() && self.unwanted.is_empty() {
            return Ok(());
        }
        let text = texts.read(job.id, job.text_len);
        if u32::try_from(text.len()) != Ok(job.text_len) {
            return Err(code::UNREAD);
        }
        let text = text.to_lowercase();
        if self.unwanted.any_in(&text) {
            return Err(code::UNWANTED);
        }
        if !self.wanted.is_empty() && !self.wanted.any_in(&text) {
            return Err(code::NOT_WANTED);
        }
        Ok(())
    }
}

impl Kind {
    /// As in `wit/bid-strategy.wit`.
    fn code(self) -> u16 {
        match self {
            Kind::Completion => 1,
            Kind::Agent => 2,
        }
    }
}

sluice_plugin::export_strategy!(Capability);

#[cfg(test)]
mod tests;
