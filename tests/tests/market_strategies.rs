//! Who decides about bids: several side by side, replaced while jobs are under way, and broken ones.

#![allow(clippy::unwrap_used, reason = "a test fails by it")]

use std::fs;

use serde_json::{Value, json};
use sluice_tests::gateway::send;
use sluice_tests::market::{Fair, Ground, instance, passed_over};
use sluice_tests::versions::strategy;

const HOSTILE: &str = "[[market.strategies]]\nplugin = \"hostile-bid\"\n";

/// Auctions are held when somebody else has bid, too.
fn contested() -> Value {
    json!({ "season": { "close_after_bids": 2 } })
}

fn marked() -> Value {
    json!({ "credit": 0.5, "background": "marked" })
}

fn drop_in(fair: &Fair, bytes: &[u8]) {
    let before = fair.gateway.log().matches("transition=\"activated\"").count();
    fs::write(fair.gateway.folder().join("plugins.d/h.wasm"), bytes).unwrap();
    fair.gateway.wait_for("transition=\"activated\"", before + 1);
}

fn row_of<'p>(page: &'p Value, strategy: &str) -> &'p Value {
    page["strategies"].as_array().unwrap().iter().find(|row| row["name"] == strategy).unwrap_or(&Value::Null)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_strategy_that_is_replaced_decides_at_the_next_look_and_loses_no_job() {
    let fair = Ground::open(contested(), HOSTILE).await.with_plugin("h.wasm", &strategy("honest")).begin();
    let first = fair.give(marked()).await;
    fair.under_way(1).await;
    // This one says nothing of any job.
    drop_in(&fair, &strategy("silent"));
    let second = fair.give(marked()).await;
    fair.until("it is not decided", |page| passed_over(page, "hostile-bid", "undecided") > 0).await;
    let page = fair.scans(3).await;
    assert_eq!(page["open"], 1, "{page:#}");
    fair.other_bids(&first, 0.5).await;
    let books = fair.finals(1).await;
    assert_eq!(instance(&books, &first).winner.as_deref(), Some("p"), "what was bid is served");
    assert!(instance(&books, &second).bids.is_empty());
    drop_in(&fair, &strategy("honest again"));
    fair.until("it is bid on", |page| page["report"].as_array().unwrap().len() == 2).await;
    fair.other_bids(&second, 0.5).await;
    fair.finals(2).await;
    let rows = fair.settled(2).await;
    assert!(rows.iter().all(|row| row["state"] == "paid" && row["strategy"] == "hostile-bid"), "{rows:#?}");
    let p = fair.books().provider("p").unwrap().proposals.clone();
    assert_eq!((p.received, p.duplicates), (2, 0));
}

/// One that goes wrong in this way costs the jobs of its own share, and no others.
async fn costs_its_own_share(manner: &str) {
    let market = format!("{HOSTILE}[[market.strategies]]\nplugin = \"margin\"\n");
    let fair = Ground::open(contested(), &market).await.with_plugin("h.wasm", &strategy("honest")).begin();
    let honest = json!({ "credit": 0.5, "background": "honest" });
    for _ in 0..6 {
        fair.give(honest.clone()).await;
    }
    let page = fair.under_way(6).await;
    let rows = page["report"].as_array().unwrap();
    let of_hostile = rows.iter().filter(|row| row["strategy"] == "hostile-bid").count();
    assert!((1..6).contains(&of_hostile), "the control: both have some: {page:#}");
    for _ in 0..8 {
        fair.give(json!({ "credit": 0.5, "background": manner })).await;
    }
    fair.until("it fails", |page| row_of(page, "hostile-bid")["faults"].as_u64() >= Some(2)).await;
    let page = fair.scans(3).await;
    let rows = page["report"].as_array().unwrap();
    let by_margin = rows.iter().filter(|row| row["strategy"] == "margin").count();
    assert!((1..8).contains(&(by_margin - (6 - of_hostile))), "{page:#}");
    assert_eq!(rows.len(), by_margin + of_hostile, "{page:#}");
    assert_eq!(
        (&page["halted"], row_of(&page, "margin")["faults"].as_u64()),
        (&Value::Null, Some(0)),
        "{page:#}"
    );
    let p = fair.books().provider("p").unwrap().proposals.clone();
    assert_eq!((p.received as usize, p.duplicates), (rows.len(), 0));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_strategy_that_traps_costs_its_own_jobs_alone() {
    costs_its_own_share("panic").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_strategy_that_never_ends_costs_its_own_jobs_alone() {
    costs_its_own_share("spin").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn where_no_strategy_decides_bidding_pauses_and_what_was_won_is_served() {
    let fair = Ground::open(contested(), HOSTILE).await.with_plugin("h.wasm", &strategy("honest")).begin();
    let job = fair.give(json!({ "credit": 0.5, "background": "honest" })).await;
    fair.under_way(1).await;
    let broken = fair.give(json!({ "credit": 0.5, "background": "panic", "close_after_bids": 1 })).await;
    fair.until("it pauses", |page| page["halted"]["reason"] == "strategies").await;
    fair.other_bids(&job, 0.5).await;
    fair.finals(1).await;
    fair.settled(1).await;
    // What it cannot bear goes away: so does the pause.
    fair.other_bids(&broken, 0.5).await;
    fair.until("it goes on", |page| page["halted"].is_null()).await;
    assert_eq!(fair.gateway.log().matches("bidding pauses").count(), 1, "{}", fair.gateway.log());
    fair.give(json!({ "credit": 0.5, "background": "honest", "close_after_bids": 1 })).await;
    fair.settled(2).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn strategies_have_their_shares_and_results_of_their_own() {
    let market = "jobs = 100\nbids_per_minute = 1000\n\
        [[market.strategies]]\nplugin = \"margin\"\nname = \"small\"\nshare = 1\n\
        [[market.strategies]]\nplugin = \"minimum\"\nname = \"large\"\nshare = 3\nconfig = { bid_usd = \"0.02\" }\n\
        [[market.strategies]]\nplugin = \"minimum\"\nname = \"none\"\nshare = 0\n";
    let fair = Fair::start(json!({}), market).await;
    for _ in 0..40 {
        fair.give(json!({ "credit": 0.5 })).await;
    }
    let books = fair.finals(40).await;
    let rows = fair.settled(40).await;
    for row in &rows {
        let theirs = instance(&books, row["job"].as_str().unwrap());
        assert_eq!(theirs.bids.len(), 1, "{theirs:?}");
        let bid = if row["strategy"] == "large" { 20_000_000 } else { 10_000_000 };
        assert_eq!(theirs.bids[0].amount.nanos(), bid, "{row:#}");
    }
    let url = fair.gateway.url("/admin/v1/market");
    let report = send(fair.gateway.client().get(url)).await.json()["report"].clone();
    let of = |name: &str| {
        let jobs: Vec<&Value> = rows.iter().filter(|row| row["strategy"] == name).collect();
        let line = report.as_array().unwrap().iter().find(|line| line["strategy"] == name).unwrap();
        assert_eq!(
            (line["paid"].as_u64(), line["bids"].as_u64()),
            (Some(jobs.len() as u64), Some(jobs.len() as u64))
        );
        for amount in ["cost_usd", "earned_usd"] {
            let sum: u64 = jobs.iter().map(|row| sluice_tests::market::nanos(&row[amount])).sum();
            assert_eq!(line[amount], sluice_tests::market::usd(sum), "{line:#}");
        }
        jobs.len()
    };
    let (small, large) = (of("small"), of("large"));
    assert_eq!(small + large, 40);
    assert!(small >= 3 && large >= 20, "{small} and {large}");
}
