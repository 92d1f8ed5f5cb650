//! The market of jobs: where it is, what this gateway bids, and what it may lose by it.

use std::time::Duration;

use sluice_core::money::NanoUsd;
use url::Url;

use super::reader::{Found, Table};
use super::sections::{base_url, plugin_config, secret};
use super::{Budget, Environment, Located, MissingRun, Model, Per, Secret};

/// Where the market is, where nothing is said.
const DEFAULT_BASE_URL: &str = "https://api.marketrouter.ai";

/// How often the market is looked at.
const SCAN_MIN: Duration = Duration::from_millis(100);
const SCAN_MAX: Duration = Duration::from_secs(10 * 60);

/// How often what the market knows of our proposals is compared with what we know.
const RESYNC_MIN: Duration = Duration::from_secs(1);
const RESYNC_MAX: Duration = Duration::from_secs(60 * 60);

/// Bids a minute, and jobs at once, at most.
const BIDS_PER_MINUTE_MAX: u64 = 60_000;
const JOBS_MAX: u64 = 10_000;

/// Calls that a job is reckoned with at most.
const CALLS_MAX: u64 = 100;

/// Strategies side by side, and the largest share of one.
const STRATEGIES_MAX: usize = 16;
const SHARE_MAX: u64 = 1000;

/// Who decides where nobody is named.
const DEFAULT_STRATEGY: &str = "margin";

/// Tokens of an answer that can be expected.
const TOKENS_MAX: u64 = 1_000_000;

/// The `[market]` table.
#[derive(Clone, Debug)]
pub(crate) struct Market {
    /// Of the market's API.
    pub(crate) base_url: Url,
    /// Where the market sends jobs that were won: the public address of this gateway. None: no bids.
    pub(crate) endpoint: Option<Url>,
    /// None: the one that `sluice market create-api-key` has stored.
    pub(crate) api_key: Option<Secret>,
    /// What serves jobs, as a client would name it. None: no bids.
    pub(crate) model: Option<Located<String>>,
    pub(crate) scan_every: Duration,
    pub(crate) resync_every: Duration,
    /// All but the bids themselves.
    pub(crate) dry_run: bool,
    /// The least and the most of each bid; `floor <= ceiling`.
    pub(crate) floor: NanoUsd,
    pub(crate) ceiling: NanoUsd,
    /// Worst cost of open bids and won jobs, together.
    pub(crate) risk: NanoUsd,
    /// Loss of a day at which bidding stops.
    pub(crate) loss_per_day: NanoUsd,
    pub(crate) bids_per_minute: u32,
    /// Open bids and won jobs at once.
    pub(crate) jobs: u32,
    /// Tokens of an answer, before anything was learned.
    pub(crate) expected_output_tokens: u64,
    /// What a job's key may spend is the worst case of so many calls.
    pub(crate) calls_per_job: u32,
    /// Jobs that are done by messages in a chat.
    pub(crate) agents: Agents,
    /// Who decides; each about its share of the jobs.
    pub(crate) strategies: Vec<Strategy>,
}

/// What becomes of jobs that are done by messages in a chat.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Agents {
    /// Nobody bids on them.
    Skip,
    /// The operator reads and answers.
    Chat,
    /// The model answers.
    Model,
}

/// One of `[[market.strategies]]`.
#[derive(Clone, Debug)]
pub(crate) struct Strategy {
    /// Its results are kept under this name.
    pub(crate) name: String,
    pub(crate) plugin: Located<String>,
    pub(crate) config: Located<serde_json::Value>,
    /// Of all shares together.
    pub(crate) share: u32,
    /// Loss of a day at which it stops; none: when all stop.
    pub(crate) loss_per_day: Option<NanoUsd>,
}

impl Market {
    /// What holds where nothing is said; none: the built-in address is no URL.
    pub(crate) fn standard() -> Option<Market> {
        Some(Market {
            base_url: Url::parse(DEFAULT_BASE_URL).ok()?,
            endpoint: None,
            api_key: None,
            model: None,
            scan_every: Duration::from_secs(2),
            resync_every: Duration::from_secs(60),
            dry_run: false,
            floor: NanoUsd::from_nanos(10_000_000),
            ceiling: NanoUsd::from_nanos(1_000_000_000),
            risk: NanoUsd::from_nanos(5_000_000_000),
            loss_per_day: NanoUsd::from_nanos(2_000_000_000),
            bids_per_minute: 30,
            jobs: 20,
            expected_output_tokens: 512,
            calls_per_job: 2,
            agents: Agents::Skip,
            strategies: Vec::new(),
        })
    }
}

pub(super) fn market(
    table: &Table<'_>,
    models: &[Model],
    budgets: &[Budget],
    environment: &Environment,
) -> Option<Market> {
    let mut market = Market::standard()?;
    if let Some(found) = table.get("base_url") {
        market.base_url = base_url(found).unwrap_or(market.base_url);
    }
    market.endpoint = table.get("endpoint").and_then(base_url);
    // Hidden: who writes the key itself there is not to read it in a message.
    market.api_key = table.get("api_key").and_then(|found| secret(&found.hidden(), environment));
    market.model = table.get("model").and_then(|found| model(found, models));
    let refuses = |budget: &&Budget| {
        budget.enforces() && budget.per == Per::Run && budget.missing_run == MissingRun::Refuse
    };
    if let (Some(model), Some(budget)) = (&market.model, budgets.iter().find(refuses)) {
        table.report(model.place.problem(format!(
            "calls of jobs name no run, and the budget {:?} refuses them: wanted its missing_run = \"key\"",
            budget.rule.name
        )));
    }
    times(table, &mut market);
    if let Some(found) = table.get("dry_run") {
        market.dry_run = found.truth().unwrap_or(true);
    }
    amounts(table, &mut market);
    let count = |key, range| table.get(key).and_then(|found| found.integer(range));
    let small = |key, max, before: u32| {
        count(key, 1..=max).and_then(|number| u32::try_from(number).ok()).unwrap_or(before)
    };
    market.bids_per_minute = small("bids_per_minute", BIDS_PER_MINUTE_MAX, market.bids_per_minute);
    market.jobs = small("jobs", JOBS_MAX, market.jobs);
    let expected = count("expected_output_tokens", 1..=TOKENS_MAX);
    market.expected_output_tokens = expected.unwrap_or(market.expected_output_tokens);
    market.calls_per_job = small("calls_per_job", CALLS_MAX, market.calls_per_job);
    market.agents = table.get("agents").and_then(|found| agents(&found)).unwrap_or(market.agents);
    market.strategies = strategies(table);
    table.finish();
    Some(market)
}

fn agents(found: &Found<'_>) -> Option<Agents> {
    match found.text()? {
        "skip" => Some(Agents::Skip),
        "chat" => Some(Agents::Chat),
        "model" => Some(Agents::Model),
        _ => found.refuse("wanted \"skip\", \"chat\" or \"model\""),
    }
}

/// One that is not named is the default: an empty list bids nothing.
fn strategies(table: &Table<'_>) -> Vec<Strategy> {
    let Some(found) = table.get("strategies") else {
        let plugin = Located { value: DEFAULT_STRATEGY.into(), place: table.place() };
        let config = Located { value: serde_json::json!({}), place: table.place() };
        let name = DEFAULT_STRATEGY.to_owned();
        return vec![Strategy { name, plugin, config, share: 1, loss_per_day: None }];
    };
    let tables = found.tables();
    if tables.len() > STRATEGIES_MAX {
        found.refuse::<()>(format!("wanted at most {STRATEGIES_MAX} strategies"));
    }
    let mut strategies: Vec<Strategy> = Vec::new();
    for table in tables {
        let place = table.place();
        let Some(strategy) = strategy(&table) else { continue };
        if strategies.iter().any(|other| other.name == strategy.name) {
            table.report(place.problem(format!("two strategies have the name {:?}", strategy.name)));
        }
        strategies.push(strategy);
    }
    strategies
}

fn strategy(table: &Table<'_>) -> Option<Strategy> {
    let plugin = table.require("plugin", "the id of a plugin of kind bid-strategy, such as \"margin\"");
    let plugin = plugin
        .and_then(|found| Some(Located { value: found.text()?.to_owned(), place: found.place.clone() }));
    let name = match table.get("name") {
        Some(found) => named(&found),
        None => plugin.as_ref().map(|plugin| plugin.value.clone()),
    };
    let share = table.get("share").map_or(Some(1), |found| found.integer(0..=SHARE_MAX));
    let loss_per_day = table.get("loss_usd_per_day").and_then(|found| dollars(&found, NanoUsd::CAP_MAX));
    let config = plugin_config(table, "config");
    table.finish();
    Some(Strategy { name: name?, plugin: plugin?, config, share: u32::try_from(share?).ok()?, loss_per_day })
}

/// It is a label of metrics, and stands in reports.
fn named(found: &Found<'_>) -> Option<String> {
    let text = found.text()?;
    let plain = |letter: char| letter.is_ascii_alphanumeric() || "-_.".contains(letter);
    match (1..=64).contains(&text.len()) && text.chars().all(plain) {
        true => Some(text.to_owned()),
        false => found.refuse("wanted 1 to 64 letters, digits or any of -_."),
    }
}

fn times(table: &Table<'_>, market: &mut Market) {
    if let Some(found) = table.get("scan_every") {
        let wanted = "wanted a time from 100ms to 10m, such as \"2s\"";
        market.scan_every = found.duration_in(SCAN_MIN..=SCAN_MAX, wanted).unwrap_or(market.scan_every);
    }
    if let Some(found) = table.get("resync_every") {
        let wanted = "wanted a time from 1s to 1h, such as \"60s\"";
        market.resync_every =
            found.duration_in(RESYNC_MIN..=RESYNC_MAX, wanted).unwrap_or(market.resync_every);
    }
}

fn amounts(table: &Table<'_>, market: &mut Market) {
    let read = |key, most: NanoUsd, before: NanoUsd| {
        table.get(key).and_then(|found| dollars(&found, most)).unwrap_or(before)
    };
    let floor = read("floor_usd", NanoUsd::ATTEMPT_MAX, market.floor);
    let ceiling = read("ceiling_usd", NanoUsd::ATTEMPT_MAX, market.ceiling);
    if ceiling == NanoUsd::ZERO || floor > ceiling {
        let place = table.get("ceiling_usd").or_else(|| table.get("floor_usd")).map(|found| found.place);
        let place = place.unwrap_or_else(|| table.place());
        table.report(place.problem(format!(
            "wanted a ceiling above zero and not below the floor: the floor is {floor}, the ceiling {ceiling}"
        )));
    }
    (market.floor, market.ceiling) = (floor, ceiling);
    market.risk = read("risk_usd", NanoUsd::CAP_MAX, market.risk);
    market.loss_per_day = read("loss_usd_per_day", NanoUsd::CAP_MAX, market.loss_per_day);
}

fn dollars(found: &Found<'_>, most: NanoUsd) -> Option<NanoUsd> {
    match found.text()?.parse::<NanoUsd>() {
        Ok(amount) if amount <= most => Some(amount),
        Ok(_) => found.refuse(format!("wanted {most} dollars at most")),
        Err(error) => found.refuse(error.to_string()),
    }
}

/// A name that a client could ask for.
fn model(found: Found<'_>, models: &[Model]) -> Option<Located<String>> {
    let text = found.text()?;
    if models.iter().any(|model| model.name.matches(text)) {
        return Some(Located { value: text.to_owned(), place: found.place });
    }
    let names: Vec<&str> = models.iter().map(|model| model.name.as_str()).collect();
    found.refuse(format!("no model of this file has this name; there are: {}", names.join(", ")))
}
