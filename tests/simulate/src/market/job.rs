//! What an instance is about, as it is drawn for the season or given by a test.

use std::num::NonZeroU32;

use serde::Deserialize;
use serde_json::{Value, json};

use crate::market::chance::{Chance, Purpose};
use crate::market::money::{NanoUsd, Share};
use crate::market::script::{Class, JobKind, MarketScript, Range};
use crate::words;

/// Most words of a given prompt: a million.
const WORDS_MAX: u32 = 1_000_000;

/// Words of a prompt that stand for a task that has no text of its own.
const BACKGROUND_WORDS: u64 = 12;

/// What prompts are made of. Each is one token to the stand-in's vendors.
const VOCABULARY: [&str; 32] = [
    "river", "market", "price", "answer", "question", "cloud", "garden", "number", "letter", "window",
    "paper", "story", "engine", "signal", "bridge", "island", "summer", "winter", "copper", "silver",
    "forest", "harbour", "lesson", "meadow", "needle", "orchard", "pepper", "quarry", "ribbon", "saddle",
    "timber", "valley",
];

/// One job, with all that chance has to say about it.
#[derive(Clone, Debug)]
pub(crate) struct Job {
    /// Where it comes from and its number there: what draws about it depend on.
    pub(crate) key: [u64; 2],
    pub(crate) id: String,
    pub(crate) class: String,
    pub(crate) background: String,
    /// An array of messages; of an account's own instance, maybe empty.
    pub(crate) messages: Value,
    pub(crate) prompt_words: u64,
    pub(crate) max_tokens: Option<u32>,
    pub(crate) model: String,
    pub(crate) kind: JobKind,
    pub(crate) stream: bool,
    pub(crate) calls: u32,
    pub(crate) credit: NanoUsd,
    pub(crate) percentage: Share,
    pub(crate) open_ms: u64,
    /// It closes earlier when accounts have made so many proposals for it.
    pub(crate) close_after_bids: Option<NonZeroU32>,
    pub(crate) reward_timeout_ms: u64,
    pub(crate) manner: Manner,
    /// The requester reports 0 for a bad answer.
    pub(crate) strict: bool,
}

/// When the requester reports a reward.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Manner {
    InFull,
    Late,
    /// Never: the market estimates, when the time for a report is over.
    Never,
    /// When the account that asked does, by the API.
    #[serde(skip_deserializing)]
    Account,
}

/// An instance that a test puts on the market.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Given {
    class: Option<String>,
    #[serde(default = "ten")]
    prompt_words: u32,
    /// In place of a prompt of so many words.
    messages: Option<Vec<Value>>,
    background: Option<String>,
    max_tokens: Option<u32>,
    credit: NanoUsd,
    #[serde(default)]
    kind: JobKind,
    model: Option<String>,
    #[serde(default)]
    stream: bool,
    calls: Option<u32>,
    percentage_reward: Option<Share>,
    open_ms: Option<u32>,
    close_after_bids: Option<NonZeroU32>,
    reward_timeout_ms: Option<u32>,
    manner: Option<Manner>,
    strict: Option<bool>,
}

/// Where jobs come from; part of their key.
#[derive(Clone, Copy)]
pub(crate) enum Origin {
    Season = 0,
    Given = 1,
    Account = 2,
}

// === impl Job ===

impl Job {
    /// The season's job of this number; None if no class has a weight.
    pub(crate) fn drawn(script: &MarketScript, number: u64) -> Option<Job> {
        let key = [Origin::Season as u64, number];
        let mut chance = Chance::of(script.seed, Purpose::Job, &key);
        let index = chance.weighted(script.classes.iter().map(|class| class.weight))?;
        let class = script.classes.get(index)?;
        let prompt_words = u64::from(draw(&mut chance, class.prompt_words));
        let prompt = prompt(script.seed, key, prompt_words);
        let credit = chance.between(class.credit[0].nanos(), class.credit[1].nanos());
        Some(Job {
            id: chance.uuid(),
            max_tokens: class.max_tokens.map(|range| draw(&mut chance, range)),
            stream: chance.hits(class.stream_permille),
            calls: draw(&mut chance, class.calls),
            credit: NanoUsd::from_nanos(credit),
            background: background(class, &prompt),
            messages: json!([{ "role": "user", "content": prompt }]),
            prompt_words,
            class: class.name.clone(),
            model: class.model.clone(),
            kind: class.kind,
            key,
            ..Job::blank(script, &mut chance)
        })
    }

    /// The job that a test gave, of this number among those.
    pub(crate) fn given(given: &Given, script: &MarketScript, number: u64) -> Result<Job, String> {
        let key = [Origin::Given as u64, number];
        let mut chance = Chance::of(script.seed, Purpose::Job, &key);
        let blank = Job { id: chance.uuid(), key, ..Job::blank(script, &mut chance) };
        let calls = given.calls.unwrap_or(1);
        if given.prompt_words > WORDS_MAX || !(1..=3).contains(&calls) {
            return Err(format!("want `prompt_words` of at most {WORDS_MAX} and `calls` of 1 to 3"));
        }
        let percentage = given.percentage_reward.unwrap_or(blank.percentage);
        if !percentage.divides_one() {
            return Err("`percentage_reward` wants a part like 1, 0.5 or 0.2, that divides 1".to_owned());
        }
        let prompt = prompt(script.seed, key, given.prompt_words.into());
        let messages = match &given.messages {
            Some(messages) => Value::Array(messages.clone()),
            None => json!([{ "role": "user", "content": prompt }]),
        };
        Ok(Job {
            class: given.class.clone().unwrap_or_else(|| "given".to_owned()),
            background: given.background.clone().unwrap_or_else(|| head(&prompt)),
            prompt_words: words_of(&messages),
            messages,
            max_tokens: given.max_tokens,
            model: given.model.clone().unwrap_or(blank.model),
            kind: given.kind,
            stream: given.stream,
            calls,
            credit: given.credit,
            percentage,
            open_ms: given.open_ms.map_or(blank.open_ms, u64::from),
            close_after_bids: given.close_after_bids.or(blank.close_after_bids),
            reward_timeout_ms: given.reward_timeout_ms.map_or(blank.reward_timeout_ms, u64::from),
            manner: given.manner.unwrap_or(blank.manner),
            strict: given.strict.unwrap_or(blank.strict),
            ..blank
        })
    }

    /// The job of an account, of this number among those, to be filled in.
    pub(crate) fn of_account(script: &MarketScript, number: u64) -> Job {
        let key = [Origin::Account as u64, number];
        let mut chance = Chance::of(script.seed, Purpose::Job, &key);
        Job {
            id: chance.uuid(),
            key,
            manner: Manner::Account,
            percentage: Share::WHOLE,
            ..Job::blank(script, &mut chance)
        }
    }

    /// A job of nothing, whose requester is drawn.
    fn blank(script: &MarketScript, chance: &mut Chance) -> Job {
        let requesters = &script.requesters;
        let weights = [requesters.in_full, requesters.late, requesters.never];
        let manner = match chance.weighted(weights.into_iter()) {
            Some(1) => Manner::Late,
            Some(2) => Manner::Never,
            Some(_) | None => Manner::InFull,
        };
        let parts = &requesters.percentage_reward;
        let part = parts.get(chance.below(parts.len() as u64) as usize);
        Job {
            key: [0, 0],
            id: String::new(),
            class: String::new(),
            background: String::new(),
            messages: json!([]),
            prompt_words: 0,
            max_tokens: None,
            model: "any".to_owned(),
            kind: JobKind::Completion,
            stream: false,
            calls: 1,
            credit: NanoUsd::ZERO,
            percentage: part.copied().unwrap_or(Share::WHOLE),
            open_ms: script.season.open_ms.into(),
            close_after_bids: script.season.close_after_bids,
            reward_timeout_ms: script.season.reward_timeout_ms.into(),
            manner,
            strict: chance.hits(requesters.strict_permille),
        }
    }

    /// The body of the call of this number, from 0: the prompt, and for a later
    /// one a question after it.
    pub(crate) fn call_body(&self, number: u32) -> Value {
        let mut messages = self.messages.as_array().cloned().unwrap_or_default();
        if number > 0 {
            let content = format!("Once more, this is call {}.", number + 1);
            messages.push(json!({ "role": "user", "content": content }));
        }
        let mut body = json!({ "model": self.model, "messages": messages, "stream": self.stream });
        if self.stream {
            body["stream_options"] = json!({ "include_usage": true });
        }
        if let Some(max_tokens) = self.max_tokens {
            body["max_tokens"] = json!(max_tokens);
        }
        body
    }
}

// === impl Manner ===

impl Manner {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Manner::InFull => "in_full",
            Manner::Late => "late",
            Manner::Never => "never",
            Manner::Account => "account",
        }
    }
}

/// The words of all texts of messages.
pub(crate) fn words_of(messages: &Value) -> u64 {
    let contents = messages.as_array().into_iter().flatten().map(|message| &message["content"]);
    let texts = contents.flat_map(|content| match content {
        Value::String(text) => vec![text.as_str()],
        Value::Array(parts) => parts.iter().filter_map(|part| part["text"].as_str()).collect(),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::Object(_) => Vec::new(),
    });
    texts.map(words::count).sum()
}

/// The start of a prompt, for a task without a text.
pub(crate) fn head(prompt: &str) -> String {
    words::truncated(prompt, BACKGROUND_WORDS).unwrap_or(prompt).to_owned()
}

fn background(class: &Class, prompt: &str) -> String {
    class.background.clone().unwrap_or_else(|| head(prompt))
}

fn prompt(seed: u64, key: [u64; 2], words: u64) -> String {
    let mut chance = Chance::of(seed, Purpose::Words, &key);
    let words = (0..words).map(|_| VOCABULARY[chance.below(VOCABULARY.len() as u64) as usize]);
    words.collect::<Vec<_>>().join(" ")
}

fn draw(chance: &mut Chance, range: Range) -> u32 {
    let drawn = chance.between(range.low.into(), range.high.into());
    u32::try_from(drawn).unwrap_or(range.high)
}

fn ten() -> u32 {
    10
}

#[cfg(test)]
mod tests {
    use super::Job;
    use crate::market::script::MarketScript;

    const SCRIPT: &str = r#"{
        "classes": [
            { "name": "short", "weight": 3, "prompt_words": [5, 20], "credit": [0.02, 0.05], "stream_permille": 500 },
            { "name": "long", "prompt_words": [100, 200], "max_tokens": [10, 99], "credit": [0.1, 0.1], "calls": [2, 3],
              "kind": "agent", "background": "Read this." }
        ],
        "requesters": { "in_full": 8, "late": 1, "never": 1, "percentage_reward": [1, 0.5] }
    }"#;

    fn season(seed: u64) -> Vec<Job> {
        let mut script: MarketScript = serde_json::from_str(SCRIPT).unwrap();
        script.seed = seed;
        (0..1_000).map(|number| Job::drawn(&script, number).unwrap()).collect()
    }

    #[test]
    fn a_season_is_drawn_as_its_classes_say() {
        let jobs = season(7);
        let (short, long): (Vec<&Job>, Vec<&Job>) = jobs.iter().partition(|job| job.class == "short");
        assert!((700..800).contains(&short.len()), "{}", short.len());
        let streamed = short.iter().filter(|job| job.stream).count();
        assert!(streamed.abs_diff(short.len() / 2) < 60, "{streamed}");
        let in_full = jobs.iter().filter(|job| job.manner == super::Manner::InFull).count();
        assert!(in_full.abs_diff(800) < 50, "{in_full}");
        assert!(short.iter().all(|job| (5..=20).contains(&job.prompt_words) && job.max_tokens.is_none()));
        assert!(long.iter().all(|job| {
            (100..=200).contains(&job.prompt_words)
                && job.prompt_words == super::words_of(&job.messages)
                && (10..=99).contains(&job.max_tokens.unwrap())
                && (2..=3).contains(&job.calls)
                && job.credit.to_string() == "0.1"
                && job.background == "Read this."
        }));
    }

    #[test]
    fn a_seed_draws_the_same_jobs_again_and_another_seed_others() {
        let show = |jobs: Vec<Job>| jobs.iter().map(|job| format!("{job:?}")).collect::<Vec<_>>();
        assert_eq!(show(season(7)), show(season(7)));
        let (seven, eight) = (show(season(7)), show(season(8)));
        assert!(seven.iter().zip(&eight).all(|(one, other)| one != other));
    }
}
