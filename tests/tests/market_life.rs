//! The market from outside: jobs are found, bid on, won, served and paid, by the stand-in's own books.

#![allow(clippy::unwrap_used, reason = "a test fails by it")]

use serde_json::{Value, json};
use sluice_simulate::{InstanceRow, Verdict};
use sluice_tests::market::Fair;

/// Of the stand-in's amounts, as the gateway writes them.
fn usd(nanos: u64) -> String {
    let decimals = format!("{:09}", nanos % 1_000_000_000);
    let shown = decimals.trim_end_matches('0').len().max(2);
    format!("{}.{}", nanos / 1_000_000_000, &decimals[..shown])
}

fn row<'r>(rows: &'r [Value], job: &str) -> &'r Value {
    rows.iter().find(|row| row["job"] == job).unwrap()
}

fn ours(instance: &InstanceRow) -> bool {
    instance.winner.as_deref() == Some("p")
}

#[tokio::test(flavor = "multi_thread")]
async fn jobs_are_won_served_and_paid_and_the_report_is_the_markets() {
    let script = json!({ "season": {}, "requesters": { "percentage_reward": [0.5] } });
    let fair = Fair::start(script, "").await;
    let whole = fair.give(json!({ "credit": 0.5, "prompt_words": 40, "calls": 2 })).await;
    let streamed = fair.give(json!({ "credit": 0.3, "stream": true, "max_tokens": 50 })).await;
    let books = fair.finals(2).await;
    let rows = fair.settled(2).await;
    for id in [&whole, &streamed] {
        let theirs = books.instances.iter().find(|instance| instance.id == **id).unwrap();
        assert!(ours(theirs), "{theirs:?}");
        assert!(theirs.calls.iter().all(|call| call.verdict == Verdict::Good), "{:?}", theirs.calls);
        let row = row(&rows, id);
        assert_eq!((row["state"].as_str(), row["strategy"].as_str()), (Some("paid"), Some("margin")));
        let used =
            theirs.calls.iter().map(|call| call.prompt_tokens.unwrap() + 2 * call.completion_tokens.unwrap());
        assert_eq!(row["cost_usd"], usd(used.sum::<u64>() * 1000), "a dollar a million, and two");
        assert_eq!(row["earned_usd"], row["bid_usd"]);
    }
    let vendor = fair.simulator.books();
    assert_eq!(vendor.rows.len(), 3);
    assert!(vendor.rows.iter().all(|row| row.model.as_deref() == Some("big")));
    let paid: Value = serde_json::to_value(&books).unwrap()["totals"]["paid"].clone();
    let report = fair.run(&["market", "report"]);
    assert!(report.contains(&paid.to_string()), "{paid}: {report}");
}
