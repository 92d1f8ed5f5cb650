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

#[tokio::test(flavor = "multi_thread")]
async fn a_job_by_messages_is_answered_by_the_model_and_its_money_is_the_jobs() {
    let fair = Fair::start(json!({ "season": {} }), "agents = \"model\"\n").await;
    let id = fair.give(json!({ "credit": 0.5, "kind": "agent", "background": "Say it." })).await;
    let books = fair.finals(1).await;
    let theirs = &books.instances[0];
    assert!(ours(theirs) && theirs.paid.nanos() > 0, "{theirs:?}");
    let rows = fair.settled(1).await;
    let row = row(&rows, &id);
    assert_eq!((row["state"].as_str(), &row["earned_usd"]), (Some("paid"), &row["bid_usd"]));
    let asked = fair.simulator.books().rows;
    assert_eq!(asked.len(), 1);
    let billed = asked[0].billed.prompt_tokens + 2 * asked[0].billed.completion_tokens;
    assert_eq!(row["cost_usd"], usd(billed * 1000));
    let chat = fair.run(&["market", "chat", &id]);
    assert!(chat.contains("provider  You said: "), "{chat}");
}

#[tokio::test(flavor = "multi_thread")]
async fn nobody_bids_on_jobs_by_messages_that_nobody_would_answer() {
    let fair = Fair::start(json!({ "season": {} }), "").await;
    fair.give(json!({ "credit": 0.5, "kind": "agent" })).await;
    let is_counted = |page: &Value| page["strategies"][0]["passed_over"]["agent"].as_u64() >= Some(2);
    let page = fair.until("it is passed over", is_counted).await;
    assert_eq!((page["report"].as_array().unwrap().len(), fair.books().instances[0].bids.len()), (0, 0));
}
