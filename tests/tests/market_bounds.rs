//! What is never bid, however a strategy likes a job: each bound of the operator by the market's books.

#![allow(clippy::unwrap_used, reason = "a test fails by it")]

use std::time::Instant;

use serde_json::{Value, json};
use sluice_simulate::MarketBooks;
use sluice_tests::market::{Fair, Ground, cost, nanos, passed_over, usd};
use sluice_tests::versions::strategy;

/// Jobs whose auctions wait for another provider.
fn contested() -> Value {
    json!({ "season": { "close_after_bids": 2 } })
}

/// Jobs that all cost the same at the worst.
async fn give_equal(fair: &Fair, count: usize) {
    for _ in 0..count {
        fair.give(json!({ "credit": 0.5, "messages": [{ "role": "user", "content": "the same" }] })).await;
    }
}

/// What p has bid, in billionths, in the order of the jobs.
fn bids(books: &MarketBooks) -> Vec<u64> {
    let all = books.instances.iter().flat_map(|instance| &instance.bids);
    all.filter(|bid| bid.provider == "p").map(|bid| bid.amount.nanos()).collect()
}

/// Until a job was passed over for this reason, and some looks more.
async fn barred(fair: &Fair, strategy: &str, why: &str) -> Value {
    fair.until(why, |page| passed_over(page, strategy, why) > 0).await;
    fair.scans(5).await
}

#[tokio::test(flavor = "multi_thread")]
async fn no_more_jobs_at_once_than_allowed() {
    let fair = Fair::start(contested(), "jobs = 3").await;
    give_equal(&fair, 7).await;
    let page = barred(&fair, "margin", "jobs").await;
    assert_eq!((bids(&fair.books()).len(), &page["open"]), (3, &json!(3)));
    // One ends, and one more is bid on.
    let job = fair.books().instances.iter().find(|instance| !instance.bids.is_empty()).unwrap().id.clone();
    fair.other_bids(&job, 0.5).await;
    fair.finals(1).await;
    fair.until("another is bid on", |page| page["report"].as_array().unwrap().len() == 4).await;
    fair.scans(5).await;
    assert_eq!(bids(&fair.books()).len(), 4);
}

#[tokio::test(flavor = "multi_thread")]
async fn risk_and_loss_hold_to_the_last_job() {
    let fair = Fair::start(contested(), "").await;
    give_equal(&fair, 1).await;
    let worst = nanos(&fair.under_way(1).await["at_risk_usd"]);
    // Room for three and not for four, but for a billionth.
    fair.configure(&format!("risk_usd = \"{}\"", usd(4 * worst - 1)));
    // A look that has begun before goes by what it has begun with.
    fair.scans(2).await;
    give_equal(&fair, 6).await;
    let page = barred(&fair, "margin", "risk").await;
    assert_eq!((bids(&fair.books()).len(), nanos(&page["at_risk_usd"])), (3, 3 * worst));
    assert_eq!(fair.metric("sluice_market_risk_nanodollars").await, (3 * worst) as f64);
    // The next bound is reached exactly.
    fair.configure(&format!("loss_usd_per_day = \"{}\"", usd(5 * worst)));
    let page = barred(&fair, "margin", "loss").await;
    assert_eq!((bids(&fair.books()).len(), nanos(&page["at_risk_usd"])), (5, 5 * worst));
    let own = format!(
        "[[market.strategies]]\nplugin = \"margin\"\nname = \"other\"\nloss_usd_per_day = \"{}\"",
        usd(2 * worst - 1)
    );
    fair.configure(&own);
    let page = barred(&fair, "other", "loss").await;
    assert_eq!((bids(&fair.books()).len(), nanos(&page["at_risk_usd"])), (6, 6 * worst), "one for the other");
    let p = fair.books().provider("p").unwrap().proposals.clone();
    assert_eq!((p.received, p.duplicates), (6, 0));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_day_that_has_lost_what_it_may_bids_no_more() {
    // Answers that say nothing cost, and are not paid.
    let fair = Fair::start(json!({}), "expected_output_tokens = 10\nloss_usd_per_day = \"0.03\"").await;
    fair.direct(json!({ "reply": " " }));
    let mut given = 0;
    loop {
        let messages = json!([{ "role": "user", "content": "a ".repeat(3000) }]);
        fair.give(json!({ "credit": 0.5, "messages": messages })).await;
        given += 1;
        let page = fair
            .until("it is decided", |page| {
                let report = page["report"].as_array().unwrap();
                let ended = report.iter().filter(|row| row["under_way"] == 0).count();
                ended == given || passed_over(page, "margin", "loss") > 0
            })
            .await;
        if passed_over(&page, "margin", "loss") > 0 {
            break;
        }
        assert!(given < 50, "{page:#}");
    }
    let page = fair.scans(5).await;
    let books = fair.books();
    let lost: u64 = books.instances.iter().map(cost).sum();
    assert!(given >= 2 && lost > 0 && lost <= 30_000_000, "{lost} with {given}: {page:#}");
    assert_eq!(books.totals.paid.nanos(), 0);
    let rows = page["report"].as_array().unwrap();
    assert!(rows.iter().all(|row| row["state"] == "unpaid"), "{rows:#?}");
    assert_eq!(rows.iter().map(|row| nanos(&row["cost_usd"])).sum::<u64>(), lost);
    assert_eq!(bids(&books).len(), given - 1, "the last one is not bid on");
}

#[tokio::test(flavor = "multi_thread")]
async fn bids_of_a_minute_are_counted() {
    let begun = Instant::now();
    let fair = Fair::start(contested(), "bids_per_minute = 4").await;
    give_equal(&fair, 9).await;
    barred(&fair, "margin", "rate").await;
    let made = bids(&fair.books()).len();
    let earned = usize::try_from(begun.elapsed().as_secs() / 15).unwrap();
    assert!((4..=4 + earned).contains(&made), "{made}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_job_that_costs_more_than_it_pays_is_left_alone() {
    let fair = Fair::start(json!({}), "").await;
    let dear = fair.give(json!({ "credit": 0.02, "prompt_words": 30_000 })).await;
    let cheap = fair.give(json!({ "credit": 0.02, "prompt_words": 30 })).await;
    let books = fair.finals(1).await;
    let page = barred(&fair, "margin", "strategy").await;
    for instance in &books.instances {
        assert_eq!(instance.bids.len(), usize::from(instance.id == cheap), "{instance:?}");
    }
    assert!(page["report"].as_array().unwrap().iter().all(|row| row["job"] != json!(dear)));
    let line = r#"sluice_market_passed_over_total{strategy="margin",why="strategy"}"#;
    assert!(fair.metric(line).await > 0.0);
}

#[tokio::test(flavor = "multi_thread")]
async fn floor_ceiling_and_credit_hold_against_a_strategy_that_disregards_them() {
    let strategies =
        "floor_usd = \"0.02\"\nceiling_usd = \"0.05\"\n[[market.strategies]]\nplugin = \"hostile-bid\"";
    let fair = Ground::open(contested(), strategies).await.with_plugin("h.wasm", &strategy("")).begin();
    // One at a time: it goes by the first job's text.
    for (text, credit, why) in
        [("below", 0.5, "below_floor"), ("above", 0.5, "above_ceiling"), ("largest", 0.5, "above_credit")]
    {
        let job = json!({ "credit": credit, "background": text, "close_after_bids": 1 });
        let job = fair.give(job).await;
        barred(&fair, "hostile-bid", why).await;
        fair.other_bids(&job, credit).await;
    }
    assert_eq!(bids(&fair.books()), [0_u64; 0]);
    fair.give(json!({ "credit": 0.5, "background": "honest" })).await;
    fair.under_way(1).await;
    assert_eq!(bids(&fair.books()), [20_000_000], "the control: the floor itself may be bid");
}
