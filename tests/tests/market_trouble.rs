//! The market, the way to us, or a vendor is in trouble: what was won is served, nothing is bid twice or in
//! vain, and bidding goes on by itself.

#![allow(clippy::unwrap_used, reason = "a test fails by it")]

use std::time::Instant;

use serde_json::{Value, json};
use sluice_simulate::Verdict;
use sluice_tests::little_market::answer;
use sluice_tests::market::{Fair, Ground, cost, instance, row, usd};
use sluice_tests::relay::Instead;

/// Auctions are held when somebody else has bid, too.
fn contested() -> Value {
    json!({ "season": { "close_after_bids": 2 } })
}

fn pauses(fair: &Fair) -> usize {
    fair.gateway.log().matches("bidding pauses").count()
}

fn said(status: &str) -> Instead {
    Instead::Says(answer(status, "content-type: application/json\r\n", "{\"detail\":\"no\"}"))
}

/// What the page and the metrics say of a pause.
async fn halted(fair: &Fair, reason: &str) {
    let page = fair.until(reason, |page| page["halted"]["reason"] == reason).await;
    assert_eq!(page["bidding"], false);
    let line = format!("sluice_market_halted{{reason=\"{reason}\"}}");
    assert_eq!(fair.metric(&line).await, 1.0);
}

/// The market fails while a job is served: it is finished and booked, and then the next one is bid on.
async fn serves_on(fair: &Fair, instead: Instead, reason: &str) {
    let before = (pauses(fair), fair.books().instances.len());
    fair.direct(json!({ "faults": [{ "kind": "wait" }] }));
    let job = fair.give(json!({ "credit": 0.2 })).await;
    fair.until("it is served", |page| page["won"] == 1).await;
    fair.market.fails("", instead);
    halted(fair, reason).await;
    fair.direct(json!({}));
    let books = fair.finals(before.1 + 1).await;
    let theirs = instance(&books, &job);
    assert_eq!(theirs.calls[0].verdict, Verdict::Good, "{theirs:?}");
    let lines = pauses(fair);
    assert_eq!(lines, before.0 + 1, "one line: {}", fair.gateway.log());
    let page = fair.page().await;
    assert_eq!((&page["halted"]["reason"], &page["won"]), (&json!(reason), &json!(1)));
    fair.market.heals();
    let rows = fair.settled(before.1 + 1).await;
    let row = row(&rows, &job);
    assert_eq!((&row["state"], &row["cost_usd"]), (&json!("paid"), &json!(usd(cost(theirs)))));
    fair.until("bidding goes on", |page| page["halted"].is_null() && page["bidding"] == true).await;
    let line = format!("sluice_market_halted{{reason=\"{reason}\"}}");
    assert_eq!(fair.metric(&line).await, 0.0);
    fair.give(json!({ "credit": 0.2 })).await;
    fair.finals(before.1 + 2).await;
    fair.settled(before.1 + 2).await;
    let p = fair.books().provider("p").unwrap().proposals.clone();
    assert_eq!((p.received as usize, p.duplicates), (before.1 + 2, 0));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_market_that_fails_talks_nonsense_or_is_gone_stops_bids_and_no_service() {
    let fair = Fair::start(json!({}), "").await;
    let nonsense = Instead::Says(answer("200 OK", "content-type: application/json\r\n", "{\"id\": "));
    for instead in [said("500 Internal Server Error"), nonsense, Instead::Cut] {
        serves_on(&fair, instead, "trouble").await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_market_that_is_silent_stops_bids_and_no_service() {
    serves_on(&Fair::start(json!({}), "").await, Instead::Hangs, "trouble").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_market_that_forgets_our_key_stops_bids_and_no_service() {
    serves_on(&Fair::start(json!({}), "").await, said("401 Unauthorized"), "credential").await;
}

/// A proposal whose answer is lost: it stands, if the market has it.
async fn lost_answer(processed: bool) {
    let fault = json!({ "on": "create", "kind": "status", "status": 500, "processed": processed });
    let script = json!({ "season": { "close_after_bids": 2 }, "faults": [fault] });
    let fair = Fair::start(script, "").await;
    let job = fair.give(json!({ "credit": 0.2 })).await;
    let found = |page: &Value| page["report"].as_array().unwrap().iter().any(|row| row["state"] == "open");
    fair.until("it is known to be open", found).await;
    fair.scans(5).await;
    assert!(!fair.market.asked("GET /_market/m/v1/proposals").is_empty(), "the market was asked for ours");
    let sent = fair.market.asked("/create/for-instance/").len();
    assert_eq!(sent, if processed { 1 } else { 2 });
    fair.other_bids(&job, 0.2).await;
    let books = fair.finals(1).await;
    assert_eq!(instance(&books, &job).calls[0].verdict, Verdict::Good, "{:?}", books.instances);
    assert_eq!(instance(&books, &job).bids.len(), 2, "ours and theirs");
    assert_eq!(fair.settled(1).await[0]["state"], "paid");
    let p = &books.provider("p").unwrap().proposals;
    assert_eq!((p.by_status.get(&201), p.duplicates), (Some(&1), 0), "{p:?}");
    assert_eq!(pauses(&fair), 1, "{}", fair.gateway.log());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_proposal_whose_answer_was_lost_is_found_again_and_not_repeated() {
    lost_answer(true).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_proposal_that_was_lost_is_made_again() {
    lost_answer(false).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_job_is_served_before_it_is_known_that_its_proposal_stands() {
    let fault = json!({ "on": "create", "kind": "status", "status": 500, "processed": true });
    let fair = Fair::start(json!({ "faults": [fault] }), "resync_every = \"1h\"").await;
    let job = fair.give(json!({ "credit": 0.2, "calls": 2 })).await;
    let books = fair.finals(1).await;
    let theirs = instance(&books, &job);
    assert!(theirs.calls.iter().all(|call| call.verdict == Verdict::Good), "{theirs:?}");
    let rows = fair.settled(1).await;
    assert_eq!((&rows[0]["state"], &rows[0]["cost_usd"]), (&json!("paid"), &json!(usd(cost(theirs)))));
    assert_eq!(books.provider("p").unwrap().proposals.received, 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn our_proposals_are_asked_for_now_and_then_and_not_at_each_look() {
    let fair = Fair::start(contested(), "resync_every = \"1h\"").await;
    for _ in 0..3 {
        fair.give(json!({ "credit": 0.2 })).await;
    }
    fair.under_way(3).await;
    fair.scans(30).await;
    let asked = fair.market.asked("GET /_market/m/v1/proposals").len();
    assert!(asked <= 2, "{asked} times in 30 looks");
    let looked = fair.market.asked("GET /_market/m/v1/instances").len();
    assert!(looked >= 30, "the control: {looked}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_job_whose_proposal_is_refused_is_left_alone_for_a_while() {
    let script = json!({ "refuse": { "permille": 1000, "status": 400, "detail": "Proposal refused" } });
    let fair = Fair::start(script, "").await;
    let begun = Instant::now();
    fair.give(json!({ "credit": 0.2 })).await;
    fair.until("it is refused", |page| page["strategies"][0]["proposals"]["refused"].as_u64() >= Some(1))
        .await;
    let page = fair.scans(30).await;
    let sent = fair.market.asked("/create/for-instance/").len();
    // The first wait is ten seconds, the others are longer.
    let most = 1 + usize::try_from(begun.elapsed().as_secs() / 10).unwrap();
    assert!(sent <= most, "{sent} proposals in {:?}", begun.elapsed());
    assert_eq!((&page["halted"], pauses(&fair)), (&Value::Null, 0), "it is that job's matter");
    assert_eq!(page["report"][0]["state"], "refused");
}

#[tokio::test(flavor = "multi_thread")]
async fn without_money_nothing_is_bid_until_there_is_some() {
    let account =
        |name, key, balance| json!({ "username": name, "password": "x", "api_key": key, "balance": balance });
    let accounts = [account("p", "mk-of-the-test", 0), account("q", "mk-of-another", 10)];
    let fair = Fair::start(json!({ "accounts": accounts }), "").await;
    fair.give(json!({ "credit": 0.2 })).await;
    halted(&fair, "balance").await;
    let begun = Instant::now();
    let page = fair.run(&["market", "deposit", "1"]);
    let page = page.lines().find(|line| line.starts_with("http")).unwrap();
    let paid = sluice_tests::gateway::send(fair.gateway.client().get(page)).await;
    assert_eq!(paid.status, 200, "{paid:?}");
    for _ in 0..20 {
        fair.give(json!({ "credit": 0.2 })).await;
    }
    fair.finals(21).await;
    assert!(begun.elapsed().as_secs() < 90, "{:?}", begun.elapsed());
    assert_eq!(pauses(&fair), 1, "one line: {}", fair.gateway.log());
    assert_eq!(fair.gateway.log().matches("bidding goes on").count(), 1);
    let p = fair.books().provider("p").unwrap().proposals.clone();
    assert_eq!((p.by_status.get(&402), p.by_status.get(&201)), (Some(&1), Some(&21)), "{p:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_endpoint_that_is_not_ours_gets_no_bids_until_it_is() {
    let ground = Ground::open(json!({}), "").await;
    ground.door.fails("", Instead::Cut);
    let fair = ground.begin();
    fair.give(json!({ "credit": 0.2 })).await;
    halted(&fair, "endpoint").await;
    for (instead, why) in [
        (said("404 Not Found"), "it answers with status 404"),
        (Instead::Says(answer("200 OK", "", "{\"status\":\"ok\"}")), "somebody else answers there"),
    ] {
        fair.door.fails("", instead);
        fair.until(why, |page| page["halted"]["why"].as_str().is_some_and(|text| text.ends_with(why))).await;
    }
    assert_eq!(fair.market.asked("/create/for-instance/").len(), 0);
    assert_eq!(pauses(&fair), 1, "one line: {}", fair.gateway.log());
    fair.door.heals();
    fair.finals(1).await;
    // Another address is looked at anew, and nothing is bid before it is found good.
    fair.configure(&format!("endpoint = \"http://{}/v1/completions/\"", fair.simulator.address()));
    halted(&fair, "endpoint").await;
    fair.give(json!({ "credit": 0.2 })).await;
    fair.configure("");
    fair.finals(2).await;
    assert_eq!(fair.books().provider("p").unwrap().won, 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_completion_that_hangs_holds_up_nobody_else() {
    let fair = Fair::start(json!({}), "jobs = 100").await;
    fair.direct(json!({ "faults": [{ "kind": "wait", "times": 20 }] }));
    for _ in 0..15 {
        fair.give(json!({ "credit": 0.2 })).await;
    }
    fair.until("they are served", |page| page["won"] == 15).await;
    let deadline = sluice_tests::gateway::PATIENCE;
    let arrived = fair.simulator.books_when(sluice_simulate::Goal::Arrived(15));
    tokio::time::timeout(deadline, arrived).await.unwrap();
    // The twenty of the script are used up by jobs that hang too; then there are others.
    for _ in 0..10 {
        fair.give(json!({ "credit": 0.2 })).await;
    }
    fair.finals(5).await;
    let page = fair.scans(5).await;
    assert_eq!((&page["won"], &page["halted"]), (&json!(20), &Value::Null), "{page:#}");
    fair.direct(json!({}));
    let books = fair.finals(25).await;
    assert!(books.instances.iter().all(|instance| instance.calls[0].verdict == Verdict::Good));
    assert!(fair.settled(25).await.iter().all(|row| row["state"] == "paid"));
}
