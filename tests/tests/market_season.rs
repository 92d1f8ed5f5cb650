//! A season of a market with rivals, by the stand-in's own books: which strategy earns money and which
//! loses it, what a day may lose, and that the report is the market's to the nano-dollar.

#![allow(clippy::unwrap_used, reason = "a test fails by it")]

use std::collections::BTreeMap;

use serde_json::{Value, json};
use sluice_simulate::{InstanceRow, MarketBooks, NanoUsd, Verdict};
use sluice_tests::market::Fair;

/// Dollars for a million tokens: a short job costs less than a cent, a long one four.
const PRICE: [u64; 2] = [15, 75];

const JOBS: usize = 200;

/// Bounds that never bar a bid.
const FREE: &str =
    "jobs = 10000\nbids_per_minute = 60000\nrisk_usd = \"100000\"\nloss_usd_per_day = \"100000\"\n";

/// What a season came to, nano-dollars.
struct Account {
    bids: usize,
    won: usize,
    cost: u64,
    earned: u64,
}

/// Jobs of which the dear ones are `dear_weight` to twenty; all come when the gateway first looks.
fn season(dear_weight: u32, rivals: Value) -> Value {
    json!({
        "seed": 41,
        "season": { "instances": JOBS, "arrivals_per_second": 200, "on_scan": true, "open_ms": 4_000, "rival_ms": 1 },
        "classes": [
            { "name": "short", "weight": 20 - dear_weight, "prompt_words": [10, 100], "max_tokens": [20, 80],
              "credit": [0.02, 0.2], "stream_permille": 300 },
            { "name": "long", "weight": dear_weight, "prompt_words": [300, 600], "max_tokens": [300, 500],
              "credit": [0.1, 0.5], "stream_permille": 300 },
        ],
        "requesters": { "percentage_reward": [1, 0.5] },
        "rivals": rivals,
    })
}

/// Two who pay what we pay, and are not always there.
fn rivals() -> Value {
    let rival = |margin: u32| {
        json!({ "kind": "cost_plus", "input_per_million": 15, "output_per_million": 75, "margin_permille": margin,
                "noise_permille": 200, "absent_permille": 300 })
    };
    json!([rival(400), rival(800)])
}

/// Plays it with one strategy, and compares the books, job by job.
async fn played(script: Value, market: &str) -> (Account, Value) {
    let fair = Fair::priced(PRICE, script, market).await;
    let books = fair.finals(JOBS).await;
    let ended = |page: &Value| {
        let rows = page["report"].as_array().unwrap();
        page["open"] == 0 && page["won"] == 0 && rows.iter().all(|row| row["under_way"] == 0)
    };
    let page = fair.until("all jobs have ended", ended).await;
    let mut rows: BTreeMap<&str, &Value> = BTreeMap::new();
    for row in page["report"].as_array().unwrap() {
        // A proposal that came too late was not taken: the market's books do not have it.
        if row["refused"] == 0 {
            assert!(rows.insert(row["job"].as_str().unwrap(), row).is_none(), "{row}");
        }
    }
    let mut account = Account { bids: 0, won: 0, cost: 0, earned: 0 };
    for (job, bid) in ours(&books) {
        let row = rows.remove(&*job.id).unwrap_or_else(|| panic!("{job:?} is not in the report"));
        let won = job.winner.as_deref() == Some("p");
        let (cost, earned) = if won { (cost(job), job.paid.nanos()) } else { (0, 0) };
        let wanted = (if won { bid.nanos() } else { 0 }, cost, earned);
        let said = ["bid_usd", "cost_usd", "earned_usd"].map(|member| nanos(row[member].as_str().unwrap()));
        assert_eq!((said[0], said[1], said[2]), wanted, "{row}: {job:?}");
        assert_eq!(row["state"], if won { "paid" } else { "lost" }, "{row}: {job:?}");
        account.bids += 1;
        account.won += usize::from(won);
        account.cost += cost;
        account.earned += earned;
    }
    assert!(rows.is_empty(), "not in the market's books: {rows:?}");
    // The vendor knows of no job: what it billed is all of it.
    let billed = fair.simulator.books().rows.iter().map(|row| row.billed).collect::<Vec<_>>();
    let billed = billed.iter().map(|billed| priced(billed.prompt_tokens, billed.completion_tokens));
    assert_eq!(account.cost, billed.sum::<u64>());
    assert_eq!(account.earned, books.provider("p").unwrap().earned.nanos());
    (account, page)
}

/// The jobs that we bid on, once each.
fn ours(books: &MarketBooks) -> impl Iterator<Item = (&InstanceRow, NanoUsd)> {
    books.instances.iter().filter_map(|job| {
        let mut bids = job.bids.iter().filter(|bid| bid.provider == "p");
        let bid = bids.next()?.amount;
        assert!(bids.next().is_none(), "{job:?}");
        Some((job, bid))
    })
}

fn cost(job: &InstanceRow) -> u64 {
    let of = |call: &sluice_simulate::CallRow| {
        assert_eq!(call.verdict, Verdict::Good, "{call:?}");
        priced(call.prompt_tokens.unwrap(), call.completion_tokens.unwrap())
    };
    job.calls.iter().map(of).sum()
}

/// A dollar for a million is a thousand nano-dollars each.
fn priced(input: u64, output: u64) -> u64 {
    (input * PRICE[0] + output * PRICE[1]) * 1_000
}

fn nanos(usd: &str) -> u64 {
    let (dollars, decimals) = usd.split_once('.').unwrap();
    dollars.parse::<u64>().unwrap() * 1_000_000_000 + format!("{decimals:0<9}").parse::<u64>().unwrap()
}

fn with(strategy: &str, bounds: &str) -> String {
    format!("{bounds}[[market.strategies]]\nplugin = \"{strategy}\"\n")
}

#[tokio::test(flavor = "multi_thread")]
async fn who_looks_at_the_cost_earns_where_the_least_bid_loses() {
    let (minimum, _) = played(season(10, rivals()), &with("minimum", FREE)).await;
    assert!(minimum.won >= JOBS / 10, "{} of {} bids", minimum.won, minimum.bids);
    assert!(minimum.earned < minimum.cost, "{} for {}", minimum.earned, minimum.cost);
    for strategy in ["margin", "adaptive"] {
        let (account, _) = played(season(10, rivals()), &with(strategy, FREE)).await;
        assert!(account.won >= JOBS / 10, "{strategy}: {} of {} bids", account.won, account.bids);
        assert!(account.earned > account.cost, "{strategy}: {} for {}", account.earned, account.cost);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_day_loses_no_more_than_it_may() {
    let bounds = FREE.replace("loss_usd_per_day = \"100000\"", "loss_usd_per_day = \"1.00\"");
    let (account, page) = played(season(20, json!([])), &with("minimum", &bounds)).await;
    assert!(account.bids < JOBS && account.won > 0, "{} bids", account.bids);
    let lost = account.cost - account.earned;
    assert!((50_000_000..=1_000_000_000).contains(&lost), "{lost}");
    assert!(page["strategies"][0]["passed_over"]["loss"].as_u64() > Some(0), "{}", page["strategies"]);
}
