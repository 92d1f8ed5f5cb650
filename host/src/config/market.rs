//! The market of jobs: where it is, what this gateway bids, and what it may lose by it.

use std::time::Duration;

use sluice_core::money::NanoUsd;
use url::Url;

use super::reader::{Found, Table};
use super::sections::{base_url, secret};
use super::{Environment, Located, Model, Secret};

/// Where the market is, where nothing is said.
const DEFAULT_BASE_URL: &str = "https://api.marketrouter.ai";

/// How often the market is looked at.
const SCAN_MIN: Duration = Duration::from_millis(100);
const SCAN_MAX: Duration = Duration::from_secs(10 * 60);

/// How often what the market knows of our proposals is compared with what we know.
const RESYNC_MIN: Duration = Duration::from_secs(10);
const RESYNC_MAX: Duration = Duration::from_secs(60 * 60);

/// Bids a minute, and jobs at once, at most.
const BIDS_PER_MINUTE_MAX: u64 = 600;
const JOBS_MAX: u64 = 1000;

/// Tokens of an answer that can be expected.
const TOKENS_MAX: u64 = 1_000_000;

/// The `[market]` table.
#[derive(Clone, Debug)]
#[allow(dead_code, reason = "the loop that bids reads the rest")]
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
        })
    }
}

pub(super) fn market(table: &Table<'_>, models: &[Model], environment: &Environment) -> Option<Market> {
    let mut market = Market::standard()?;
    if let Some(found) = table.get("base_url") {
        market.base_url = base_url(found).unwrap_or(market.base_url);
    }
    market.endpoint = table.get("endpoint").and_then(base_url);
    // Hidden: who writes the key itself there is not to read it in a message.
    market.api_key = table.get("api_key").and_then(|found| secret(&found.hidden(), environment));
    market.model = table.get("model").and_then(|found| model(found, models));
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
    table.finish();
    Some(market)
}

fn times(table: &Table<'_>, market: &mut Market) {
    if let Some(found) = table.get("scan_every") {
        let wanted = "wanted a time from 100ms to 10m, such as \"2s\"";
        market.scan_every = found.duration_in(SCAN_MIN..=SCAN_MAX, wanted).unwrap_or(market.scan_every);
    }
    if let Some(found) = table.get("resync_every") {
        let wanted = "wanted a time from 10s to 1h, such as \"60s\"";
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
