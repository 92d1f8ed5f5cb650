//! The market from outside: jobs are found, bid on, won, served and paid, by the stand-in's own books.

#![allow(clippy::unwrap_used, reason = "a test fails by it")]

use std::fs;

use serde_json::{Value, json};
use sluice_simulate::{InstanceRow, Verdict};
use sluice_tests::market::{Fair, Ground, VARIABLES, cost, instance, row, usd};
use sluice_tests::relay::Relay;
use sluice_tests::{Gateway, Options, gateway};
use tempfile::TempDir;

/// Auctions are held when somebody else has bid, too.
fn contested() -> Value {
    json!({ "season": { "close_after_bids": 2 } })
}

fn ours(instance: &InstanceRow) -> bool {
    instance.winner.as_deref() == Some("p")
}

#[tokio::test(flavor = "multi_thread")]
async fn jobs_are_won_served_and_paid_and_the_report_is_the_markets() {
    let script = json!({ "requesters": { "percentage_reward": [0.5] } });
    let fair = Fair::start(script, "").await;
    let whole = fair.give(json!({ "credit": 0.5, "prompt_words": 40, "calls": 2 })).await;
    let streamed = fair.give(json!({ "credit": 0.3, "stream": true, "max_tokens": 50 })).await;
    let books = fair.finals(2).await;
    let rows = fair.settled(2).await;
    for id in [&whole, &streamed] {
        let theirs = instance(&books, id);
        assert!(ours(theirs), "{theirs:?}");
        assert!(theirs.calls.iter().all(|call| call.verdict == Verdict::Good), "{:?}", theirs.calls);
        let row = row(&rows, id);
        assert_eq!((row["state"].as_str(), row["strategy"].as_str()), (Some("paid"), Some("margin")));
        assert_eq!(row["cost_usd"], usd(cost(theirs)));
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
async fn an_account_made_by_hand_bids_with_its_own_key_and_its_balance_adds_up() {
    // A configured key would go before the one that is made.
    let ground = Ground::open(json!({ "accounts": [] }), "# api_key: the kept one").await;
    let done = |arguments: &[&str]| {
        let run = ground.run(&[&["market"], arguments].concat());
        assert_eq!(run.code, Some(0), "{run:?}");
        run.stdout
    };
    done(&["register", "--email", "p@b.example", "--username", "p", "--full-name", "P"]);
    done(&["login", "--username", "p"]);
    done(&["create-api-key", "--name", "gateway"]);
    let page = done(&["deposit", "2.50"]);
    assert_eq!(done(&["balance"]), "available  0.00 USD\nheld       0.00 USD\n", "it is not paid yet");
    let paid = gateway::send(gateway::client(|builder| builder).get(page.trim())).await;
    assert_eq!(paid.status, 200, "{paid:?}");
    assert_eq!(done(&["balance"]), "available  2.50 USD\nheld       0.00 USD\n");
    let status = done(&["status"]);
    for part in ["p (p@b.example), until", "API key  kept since", "balance  2.50 USD"] {
        assert!(status.contains(part), "no {part:?} in {status}");
    }
    let fair = ground.begin();
    for calls in 1..=3 {
        fair.give(json!({ "credit": 0.1, "prompt_words": 7 * calls, "calls": calls })).await;
    }
    let books = fair.finals(3).await;
    let rows = fair.settled(3).await;
    for row in &rows {
        let theirs = instance(&books, row["job"].as_str().unwrap());
        assert_eq!(row["cost_usd"], usd(cost(theirs)), "{theirs:?}");
        assert_eq!(row["earned_usd"], usd(theirs.paid.nanos()), "{theirs:?}");
    }
    let p = books.provider("p").unwrap();
    assert_eq!((p.won, p.proposals.received), (3, 3));
    let has = p.balance.unwrap().nanos();
    assert_eq!(has, 2_500_000_000 + p.earned.nanos());
    let balance = fair.run(&["market", "balance"]);
    assert!(balance.contains(&format!("available  {} USD", usd(has))), "{balance}");
    let report = fair.run(&["market", "report", "--by", "job", "--json"]);
    let report: Value = report.parse().unwrap_or_else(|error| panic!("{error}: {report}"));
    assert_eq!(report["report"], Value::Array(rows));
}

/// One that was bid on by one process, and is won by another.
async fn survives(ended: impl FnOnce(Gateway) -> TempDir) {
    let fair = Fair::start(contested(), "").await;
    let job = fair.give(json!({ "credit": 0.2 })).await;
    fair.under_way(1).await;
    let fair = fair.restarted(ended);
    fair.scans(5).await;
    fair.other_bids(&job, 0.2).await;
    let books = fair.finals(1).await;
    let theirs = instance(&books, &job);
    assert!(ours(theirs), "{theirs:?}");
    assert_eq!(theirs.calls[0].verdict, Verdict::Good, "{:?}", theirs.calls);
    let rows = fair.settled(1).await;
    assert_eq!((&rows[0]["state"], &rows[0]["cost_usd"]), (&json!("paid"), &json!(usd(cost(theirs)))));
    let p = &books.provider("p").unwrap().proposals;
    assert_eq!((p.received, p.duplicates), (1, 0), "nothing is bid on twice");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_bid_before_a_restart_is_served_after_it() {
    survives(Gateway::ended_in_order).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_bid_before_a_crash_is_served_after_it() {
    survives(Gateway::crash).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_second_process_on_the_same_data_does_not_bid_and_says_so() {
    let fair = Fair::start(contested(), "").await;
    let text = fs::read_to_string(fair.gateway.folder().join("sluice.toml")).unwrap();
    let data = fair.gateway.folder().join("data");
    // Its own ways, so that it is known who asks.
    let (to_market, door) = (Relay::start(), Relay::start());
    to_market.leads_to(fair.simulator.address());
    let text = text
        .replace("[server]\n", &format!("[server]\ndata_dir = \"{}\"\n", data.display()))
        .replace(&fair.market.address().to_string(), &to_market.address().to_string())
        .replace(&fair.door.address().to_string(), &door.address().to_string());
    let second = Gateway::start(&text, &Options::with(&VARIABLES));
    door.leads_to(second.address().parse().unwrap());
    let log = second.log();
    assert!(log.contains("nothing is bid on any market"), "{log}");
    let job = fair.give(json!({ "credit": 0.2 })).await;
    fair.under_way(1).await;
    fair.scans(10).await;
    assert_eq!(to_market.asked("").len(), 0, "{}", second.log());
    let page = second.get("/admin/v1/market").await;
    assert_eq!(page.status, 503, "it has no ledger: {page:?}");
    let p = fair.books().provider("p").unwrap().proposals.clone();
    assert_eq!((p.received, p.duplicates), (1, 0));
    fair.other_bids(&job, 0.2).await;
    assert!(ours(instance(&fair.finals(1).await, &job)));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dry_run_says_once_what_it_would_bid_and_sends_nothing() {
    let fair = Fair::start(json!({}), "dry_run = true").await;
    let jobs = [fair.give(json!({ "credit": 0.2 })).await, fair.give(json!({ "credit": 0.3 })).await];
    fair.gateway.wait_for("dry run: would bid", 2);
    fair.scans(10).await;
    let log = fair.gateway.log();
    for job in &jobs {
        let lines: Vec<&str> = log.lines().filter(|line| line.contains(job)).collect();
        assert_eq!(lines.len(), 1, "{lines:#?}");
        assert!(lines[0].contains("bid=0.01") && lines[0].contains("strategy=\"margin\""), "{}", lines[0]);
    }
    let books = fair.books();
    assert_eq!((books.totals.bids, books.provider("p").unwrap().proposals.received), (0, 0));
    assert_eq!(fair.market.asked("POST ").len(), 0);
    let page = fair.page().await;
    assert_eq!(page["strategies"][0]["proposals"], json!({ "dry_run": 2 }), "{page:#}");
    assert_eq!(page["report"], json!([]));
    // The control: the same jobs are bid on when it is for real.
    fair.configure("");
    fair.finals(2).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stop_ends_bidding_and_finishes_what_was_won() {
    let fair = Fair::start(json!({}), "").await;
    fair.direct(json!({ "faults": [{ "kind": "wait" }] }));
    let job = fair.give(json!({ "credit": 0.2 })).await;
    fair.until("it is served", |page| page["won"] == 1).await;
    fair.gateway.signal("TERM");
    fair.gateway.wait_for("draining", 1);
    fair.give(json!({ "credit": 0.2 })).await;
    let looked = fair.market.asked("GET /_market/m/v1/instances").len();
    fair.direct(json!({}));
    let books = fair.finals(1).await;
    assert_eq!(instance(&books, &job).calls[0].verdict, Verdict::Good, "{:?}", instance(&books, &job));
    let Fair { simulator, market, door: _door, gateway } = fair;
    let (code, log) = gateway.ended();
    assert_eq!(code, Some(0), "{log}");
    let books = simulator.market_books("m").unwrap();
    assert_eq!(books.provider("p").unwrap().proposals.received, 1, "{log}");
    let later = market.asked("GET /_market/m/v1/instances").len() - looked;
    // One look may have been on its way; the notice alone has time for ten.
    assert!(later <= 1, "nobody looks at the market any more, but {later} times: {log}");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_agents_job_is_found_to_be_won_delivered_by_hand_and_paid() {
    let fair = Fair::start(json!({}), "agents = \"chat\"").await;
    let job = fair.give(json!({ "credit": 0.2, "kind": "agent", "background": "Write a poem." })).await;
    fair.until("its proposal is found to have won", |page| page["won"] == 1).await;
    let said = fair.run(&["market", "chat", &job, "Roses are red."]);
    let thread = fair.run(&["market", "chat", &job]);
    assert!(thread.contains("provider") && thread.contains("Roses are red."), "{said}\n{thread}");
    let books = fair.finals(1).await;
    let theirs = instance(&books, &job);
    assert!(ours(theirs) && theirs.calls.is_empty() && theirs.paid.nanos() > 0, "{theirs:?}");
    let rows = fair.settled(1).await;
    let row = row(&rows, &job);
    assert_eq!((&row["state"], &row["cost_usd"]), (&json!("paid"), &json!("0.00")));
    assert_eq!(row["earned_usd"], usd(theirs.paid.nanos()));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_job_by_messages_is_answered_by_the_model_and_its_money_is_the_jobs() {
    let fair = Fair::start(json!({}), "agents = \"model\"").await;
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
    let fair = Fair::start(json!({}), "").await;
    fair.give(json!({ "credit": 0.5, "kind": "agent" })).await;
    let is_counted = |page: &Value| page["strategies"][0]["passed_over"]["agent"].as_u64() >= Some(2);
    let page = fair.until("it is passed over", is_counted).await;
    assert_eq!((page["report"].as_array().unwrap().len(), fair.books().instances[0].bids.len()), (0, 0));
}
