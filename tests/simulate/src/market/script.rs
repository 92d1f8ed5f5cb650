//! What a market was told to be: its season, its people, its rivals, its faults.

use std::collections::BTreeSet;
use std::num::NonZeroU32;

use serde::Deserialize;

use crate::fault::at_most;
use crate::market::fault::ApiFault;
use crate::market::money::{NanoUsd, Share};
use crate::market::rival::Rival;

/// Most instances of one market, by the season and otherwise: 10,000.
pub(crate) const INSTANCES_MAX: usize = 10_000;

/// Most words of all prompts of a season: 20 million, about 120 MB of text.
const WORDS_MAX: u64 = 20_000_000;

/// Most rivals: 32. Each may bid on each instance.
const RIVALS_MAX: usize = 32;

/// Longest time in a script: a day, in milliseconds.
const MS_MAX: u32 = 86_400_000;

/// A market's script. The default one has no season, no rivals and no accounts.
#[derive(Clone, Debug, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct MarketScript {
    /// What all chance depends on.
    pub seed: u64,
    pub season: Season,
    /// The kinds of jobs that the season draws from.
    pub classes: Vec<Class>,
    pub requesters: Requesters,
    pub rivals: Vec<Rival>,
    /// Accounts that are there from the start.
    pub accounts: Vec<AccountScript>,
    /// The least that may be bid.
    pub bid_min: NanoUsd,
    /// What becomes of a provider's second proposal for an instance.
    pub duplicates: Duplicates,
    pub refuse: Option<Refuse>,
    pub faults: Vec<ApiFault>,
    /// How long a login is good for, in milliseconds.
    #[serde(deserialize_with = "at_most::<MS_MAX, _>")]
    pub token_life_ms: u32,
}

/// When instances come, and how long each of their stages takes.
#[derive(Clone, Debug, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Season {
    pub instances: usize,
    pub arrivals_per_second: NonZeroU32,
    /// The first instance comes when the first account asks for instances, and
    /// not when the script is put.
    pub on_scan: bool,
    /// How long an instance takes proposals, in milliseconds.
    #[serde(deserialize_with = "at_most::<MS_MAX, _>")]
    pub open_ms: u32,
    /// It closes earlier when accounts have made so many proposals for it.
    pub close_after_bids: Option<NonZeroU32>,
    /// How long after that a reward may be reported, in milliseconds.
    #[serde(deserialize_with = "at_most::<MS_MAX, _>")]
    pub reward_timeout_ms: u32,
    /// How long a rival takes for a job that it won, in milliseconds.
    #[serde(deserialize_with = "at_most::<MS_MAX, _>")]
    pub rival_ms: u32,
}

/// A kind of job.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Class {
    pub name: String,
    /// How often it is drawn, against the other classes' weights.
    #[serde(default = "one")]
    pub weight: u32,
    pub prompt_words: Range,
    /// What `max_tokens` says; without it, nothing.
    pub max_tokens: Option<Range>,
    pub credit: [NanoUsd; 2],
    #[serde(default)]
    pub kind: JobKind,
    #[serde(default = "any_model")]
    pub model: String,
    /// How many of a thousand jobs want their answers streamed.
    #[serde(default, deserialize_with = "at_most::<1_000, _>")]
    pub stream_permille: u32,
    /// The task's text; without it, the head of the prompt.
    pub background: Option<String>,
    /// How many calls a job makes.
    #[serde(default = "one_call")]
    pub calls: Range,
}

/// Whole numbers from the first to the second, both included.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(try_from = "[u32; 2]")]
pub struct Range {
    pub low: u32,
    pub high: u32,
}

/// How a job is done.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, serde::Serialize)]
#[serde(rename_all = "snake_case")]
pub enum JobKind {
    /// The market calls the winner's endpoint.
    #[default]
    Completion,
    /// The winner posts a message in the thread (`representative_agent`).
    Agent,
}

/// How those who put the season's jobs on the market behave.
#[derive(Clone, Debug, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Requesters {
    /// Weights of those who report a good answer's reward soon, late, or never.
    pub in_full: u32,
    pub late: u32,
    pub never: u32,
    /// How many of a thousand look at what they got, and report 0 for a bad answer.
    #[serde(deserialize_with = "at_most::<1_000, _>")]
    pub strict_permille: u32,
    /// The parts of the reported reward that are paid, each as likely.
    pub percentage_reward: Vec<Share>,
    /// When those who report soon do so after the answer, in milliseconds.
    #[serde(deserialize_with = "at_most::<MS_MAX, _>")]
    pub report_ms: u32,
    /// When those who report late do so, in milliseconds.
    #[serde(deserialize_with = "at_most::<MS_MAX, _>")]
    pub late_ms: u32,
    /// Longest wait for an answer or a message, in milliseconds.
    #[serde(deserialize_with = "at_most::<MS_MAX, _>")]
    pub call_timeout_ms: u32,
    /// An answer that took longer is a late one, in milliseconds.
    #[serde(deserialize_with = "at_most::<MS_MAX, _>")]
    pub slow_ms: u32,
    /// How many thousandths of the bid a late answer is worth.
    #[serde(deserialize_with = "at_most::<1_000, _>")]
    pub slow_pays_permille: u32,
}

/// An account that is there from the start.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AccountScript {
    pub username: String,
    #[serde(default)]
    pub password: String,
    /// A key of it that is live.
    pub api_key: Option<String>,
    #[serde(default)]
    pub balance: NanoUsd,
}

/// What becomes of a provider's second proposal for an instance.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Duplicates {
    #[default]
    Refuse,
    /// It is taken like a first one, and counted.
    Accept,
}

/// Proposals that are refused for no reason of their own.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Refuse {
    /// How many of a thousand.
    #[serde(deserialize_with = "at_most::<1_000, _>")]
    pub permille: u32,
    #[serde(deserialize_with = "crate::fault::status")]
    pub status: http::StatusCode,
    #[serde(default = "refused")]
    pub detail: String,
}

// === impl MarketScript ===

impl Default for MarketScript {
    fn default() -> MarketScript {
        MarketScript {
            seed: 0,
            season: Season::default(),
            classes: Vec::new(),
            requesters: Requesters::default(),
            rivals: Vec::new(),
            accounts: Vec::new(),
            bid_min: NanoUsd::from_nanos(10_000_000),
            duplicates: Duplicates::default(),
            refuse: None,
            faults: Vec::new(),
            token_life_ms: 3_600_000,
        }
    }
}

impl MarketScript {
    /// What only the script as a whole can be wrong in.
    pub(crate) fn check(&self) -> Result<(), String> {
        let Season { instances, .. } = self.season;
        if instances > INSTANCES_MAX {
            return Err(format!("`season.instances` is {instances}, want at most {INSTANCES_MAX}"));
        }
        if instances > 0 && self.classes.iter().all(|class| class.weight == 0) {
            return Err("the season has instances, want `classes` with a weight".to_owned());
        }
        let longest = self.classes.iter().map(|class| class.prompt_words.high).max().unwrap_or(0);
        if u64::from(longest).saturating_mul(instances as u64) > WORDS_MAX {
            return Err(format!("the prompts may have more than {WORDS_MAX} words in all"));
        }
        if self.rivals.len() > RIVALS_MAX {
            return Err(format!("there are {} rivals, want at most {RIVALS_MAX}", self.rivals.len()));
        }
        self.classes.iter().try_for_each(Class::check)?;
        self.requesters.check()?;
        let usernames = self.accounts.iter().map(|account| account.username.as_str());
        let keys = self.accounts.iter().filter_map(|account| account.api_key.as_deref());
        distinct("username", usernames)?;
        distinct("api_key", keys)?;
        distinct("class", self.classes.iter().map(|class| class.name.as_str()))
    }
}

// === impl Season ===

impl Default for Season {
    fn default() -> Season {
        Season {
            instances: 0,
            arrivals_per_second: NonZeroU32::MIN,
            on_scan: false,
            open_ms: 1_000,
            close_after_bids: None,
            reward_timeout_ms: 10_000,
            rival_ms: 50,
        }
    }
}

// === impl Class ===

impl Class {
    fn check(&self) -> Result<(), String> {
        let name = &self.name;
        if self.credit[0] > self.credit[1] {
            return Err(format!("class {name:?}: `credit` ends before it begins"));
        }
        if self.calls.low == 0 || self.calls.high > 3 {
            return Err(format!("class {name:?}: `calls` is not within 1 and 3"));
        }
        if self.prompt_words.low == 0 {
            return Err(format!("class {name:?}: `prompt_words` begins with 0, want at least 1"));
        }
        Ok(())
    }
}

// === impl Range ===

impl TryFrom<[u32; 2]> for Range {
    type Error = String;

    fn try_from([low, high]: [u32; 2]) -> Result<Range, String> {
        if low > high {
            return Err(format!("[{low}, {high}] ends before it begins"));
        }
        Ok(Range { low, high })
    }
}

// === impl Requesters ===

impl Default for Requesters {
    fn default() -> Requesters {
        Requesters {
            in_full: 1,
            late: 0,
            never: 0,
            strict_permille: 1_000,
            percentage_reward: vec![Share::WHOLE],
            report_ms: 0,
            late_ms: 1_000,
            call_timeout_ms: 60_000,
            slow_ms: 30_000,
            slow_pays_permille: 500,
        }
    }
}

impl Requesters {
    fn check(&self) -> Result<(), String> {
        if self.in_full == 0 && self.late == 0 && self.never == 0 {
            return Err("`requesters` are none: `in_full`, `late` and `never` are 0".to_owned());
        }
        // With others, what is reported for a bid would have to be rounded.
        if self.percentage_reward.is_empty() || !self.percentage_reward.iter().all(|part| part.divides_one())
        {
            return Err("`percentage_reward` wants parts like 1, 0.5 or 0.2, that divide 1".to_owned());
        }
        Ok(())
    }
}

fn distinct<'a>(what: &str, names: impl Iterator<Item = &'a str>) -> Result<(), String> {
    let mut seen = BTreeSet::new();
    for name in names {
        if name.is_empty() || !seen.insert(name) {
            return Err(format!("{what} {name:?} is empty or there twice"));
        }
    }
    Ok(())
}

fn one() -> u32 {
    1
}

fn one_call() -> Range {
    Range { low: 1, high: 1 }
}

fn any_model() -> String {
    "any".to_owned()
}

fn refused() -> String {
    "Proposal refused".to_owned()
}

#[cfg(test)]
mod tests {
    use super::MarketScript;

    fn wrong(json: &str) -> String {
        let script = serde_json::from_str::<MarketScript>(json);
        match script {
            Err(error) => error.to_string(),
            Ok(script) => script.check().expect_err(json),
        }
    }

    #[test]
    fn a_wrong_script_is_refused_by_name() {
        let cases = [
            (r#"{"seeed": 1}"#, "seeed"),
            (r#"{"season": {"instance": 1}}"#, "instance"),
            (r#"{"season": {"instances": 10001}}"#, "10000"),
            (r#"{"season": {"instances": 1}}"#, "classes"),
            (r#"{"season": {"arrivals_per_second": 0}}"#, "nonzero"),
            (r#"{"season": {"open_ms": 86400001}}"#, "86400000"),
            (r#"{"classes": [{"name": "a", "prompt_words": [1, 2], "credit": [1, 2], "kid": 1}]}"#, "kid"),
            (r#"{"classes": [{"name": "a", "prompt_words": [2, 1], "credit": [1, 2]}]}"#, "[2, 1]"),
            (r#"{"classes": [{"name": "a", "prompt_words": [0, 1], "credit": [1, 2]}]}"#, "prompt_words"),
            (r#"{"classes": [{"name": "a", "prompt_words": [1, 1], "credit": [2, 1]}]}"#, "credit"),
            (r#"{"classes": [{"name": "a", "prompt_words": [1, 1], "credit": [1, -1]}]}"#, "-1"),
            (
                r#"{"classes": [{"name": "a", "prompt_words": [1, 1], "credit": [1, 1], "calls": [1, 4]}]}"#,
                "calls",
            ),
            (
                r#"{"season": {"instances": 10000},
                    "classes": [{"name": "a", "prompt_words": [1, 2001], "credit": [1, 1]}]}"#,
                "20000000",
            ),
            (r#"{"requesters": {"in_full": 0}}"#, "in_full"),
            (r#"{"requesters": {"percentage_reward": [0.3]}}"#, "percentage_reward"),
            (r#"{"requesters": {"percentage_reward": [1.5]}}"#, "1.5"),
            (r#"{"rivals": [{"kind": "flat", "price": 0.1, "margin_permille": 1}]}"#, "margin_permille"),
            (r#"{"rivals": [{"kind": "flat"}]}"#, "price"),
            (r#"{"rivals": [{"kind": "sharp"}]}"#, "sharp"),
            (r#"{"accounts": [{"username": "a"}, {"username": "a"}]}"#, "username"),
            (r#"{"accounts": [{"username": "a", "balance": "1"}]}"#, "number"),
            (r#"{"bid_min": 0.0000000001}"#, "9 decimal"),
            (r#"{"refuse": {"permille": 1, "status": 99}}"#, "99"),
            (r#"{"faults": [{"on": "everything", "kind": "hang"}]}"#, "everything"),
            (r#"{"faults": [{"on": "any", "kind": "delay"}]}"#, "ms"),
            (r#"{"faults": [{"on": "any", "kind": "hang", "ms": 1}]}"#, "ms"),
            (r#"{"faults": [{"on": "any", "kind": "status"}]}"#, "status"),
        ];
        for (json, named) in cases {
            let message = wrong(json);
            assert!(message.contains(named), "{json}: {message}");
        }
    }

    /// Amounts are read the same from text and from a value that was read before.
    #[test]
    fn a_script_can_come_from_a_value() {
        let json = serde_json::json!({
            "bid_min": 0.02,
            "rivals": [{ "kind": "flat", "price": 0.015 }],
            "accounts": [{ "username": "a", "balance": 10 }],
            "faults": [{ "on": "create", "kind": "status", "status": 503, "times": 2 }],
        });
        let script: MarketScript = serde_json::from_value(json).unwrap();
        assert_eq!(script.check(), Ok(()));
        assert_eq!(
            (script.bid_min.to_string(), script.accounts[0].balance.to_string()),
            ("0.02".into(), "10".into())
        );
    }
}
