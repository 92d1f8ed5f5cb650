//! What budgets refuse and what they let pass, and what an attempt is charged, case by case.

#![allow(clippy::unwrap_used, reason = "a test fails by it")]

use std::path::Path;
use std::time::Duration;

use rusqlite::Connection;
use serde_json::{Value, json};
use sluice_simulate::{Billed, Simulator};
use sluice_tests::gateway::{PATIENCE, send};
use sluice_tests::stage::Vendor;
use sluice_tests::{Answer, Gateway, Options, Stage, command};

/// Nano-dollars for a token: what a million cost in the configuration.
const INPUT: u64 = 100;
const OUTPUT: u64 = 10_000;
const RATES: &str = "input = \"0.10\", output = \"10.00\"";

fn model(name: &str, targets: &str) -> String {
    format!("[[models]]\nname = \"{name}\"\nretries = 0\ntargets = [{targets}]\n")
}

fn target(upstream: &str, price: &str) -> String {
    format!("{{ upstream = \"{upstream}\", price = {{ {price} }} }}")
}

fn budget(name: &str, cap: &str, more: &str) -> String {
    format!("[[budgets]]\nname = \"{name}\"\nper = \"all\"\ncap_usd = \"{cap}\"\n{more}\n")
}

fn cost(billed: Billed) -> u64 {
    billed.prompt_tokens * INPUT + billed.completion_tokens * OUTPUT
}

fn body(model: &str, more: Value) -> String {
    let mut body = json!({"model": model, "messages": [{"role": "user", "content": "one two three"}]});
    body.as_object_mut().unwrap().append(&mut more.as_object().unwrap().clone());
    body.to_string()
}

fn words(count: usize) -> String {
    vec!["word"; count].join(" ")
}

/// What has been settled since the start.
async fn settled(stage: &Stage) -> u64 {
    stage.metric("sluice_spending_settled_nanodollars").await as u64
}

async fn at_rest(stage: &Stage) {
    let wait = async {
        while stage.metric("sluice_spending_holds").await > 0.0 {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(PATIENCE, wait).await.expect("at rest nothing is held");
}

/// The accounts of a budget in the database of a gateway that has ended: scope, start, settled.
fn accounts(folder: &Path, budget: &str) -> Vec<(String, i64, u64)> {
    let store = Connection::open(folder.join("data/sluice.db")).unwrap();
    let query = "SELECT scope, start_s, settled FROM accounts WHERE budget LIKE ?1 ORDER BY id";
    let mut query = store.prepare(query).unwrap();
    let rows = query.query_map([budget], |row| Ok((row.get(0)?, row.get(1)?, row.get::<_, i64>(2)? as u64)));
    rows.unwrap().map(Result::unwrap).collect()
}

/// A vendor's own refusal costs nothing; where a proxy in front of it lost the answer, nobody knows.
#[tokio::test]
async fn a_status_costs_nothing_only_where_it_says_that_nothing_was_made() {
    let models = model("m", &target("a", RATES)) + &budget("all", "10.00", "");
    let vendor = Vendor::openai("a", "breaker = { failures = 1000 }");
    let stage = Stage::start("", &[vendor], &models).await;
    let mut before = 0;
    for (status, costs) in [
        (400, false),
        (408, true),
        (422, false),
        (429, false),
        (500, false),
        (502, true),
        (503, false),
        (504, true),
        (520, true),
        (524, true),
        (529, false),
    ] {
        let fault = json!({"kind": "status", "status": status, "headers": [["retry-after", "0"]]});
        stage.direct("a", json!({"faults": [fault]}));
        let answer = stage.gateway.chat(body("m", json!({"max_tokens": 50}))).await;
        assert_eq!(answer.status, status, "{answer:?}");
        at_rest(&stage).await;
        let now = settled(&stage).await;
        assert_eq!(now - before > 50 * OUTPUT, costs, "{status}: {} were charged", now - before);
        assert!(costs || now == before, "{status}");
        before = now;
    }
    assert_eq!(stage.seen("a"), 11);
}

/// What a vendor calls an error under a good status costs what the vendor says that it used, and, where
/// it has said something first, what was held.
#[tokio::test]
async fn an_error_in_a_whole_answer_costs_what_it_says() {
    let models = model("m", &target("a", RATES)) + &budget("all", "10.00", "");
    let vendor = Vendor::openai("a", "breaker = { failures = 1000 }");
    let stage = Stage::start("", &[vendor], &models).await;
    let error = json!({"message": "overloaded", "type": "server_error"});
    let usage = json!({"prompt_tokens": 9, "completion_tokens": 40, "total_tokens": 49});
    let said = json!([{"index": 0, "message": {"role": "assistant", "content": "a part of"}}]);
    let of_usage = 9 * INPUT + 40 * OUTPUT;
    for (body_of_it, least, most) in [
        (json!({"error": error}), 0, 0),
        (json!({"error": error, "choices": [], "usage": usage}), of_usage, of_usage),
        (json!({"error": error, "choices": said, "usage": usage}), 50 * OUTPUT, u64::MAX),
        (json!({"error": error, "choices": said}), 50 * OUTPUT, u64::MAX),
    ] {
        let before = settled(&stage).await;
        let fault = json!({"kind": "status", "status": 200, "body": body_of_it.to_string(),
            "headers": [["content-type", "application/json"]]});
        stage.direct("a", json!({"faults": [fault]}));
        let answer = stage.gateway.chat(body("m", json!({"max_tokens": 50}))).await;
        assert_ne!(answer.status, 200, "{body_of_it}");
        at_rest(&stage).await;
        let cost = settled(&stage).await - before;
        assert!((least..=most).contains(&cost), "{body_of_it}: {cost}");
    }
    assert_eq!(stage.seen("a"), 4);
}

/// No price, no run, no bound, no money: a shadow lets it all pass as it came, and counts what it can.
#[tokio::test]
async fn a_shadow_refuses_nothing_and_changes_nothing() {
    let models = [
        model("m", &target("a", RATES)),
        model("unpriced", "{ upstream = \"a\" }"),
        model("timed", &target("a", &format!("{RATES}, second = \"0.01\""))),
        budget("all", "0.000001", "mode = \"shadow\""),
        "[[budgets]]\nname = \"run\"\nper = \"run\"\nmissing_run = \"refuse\"\nmode = \"shadow\"\ncap_usd = \"0.000001\"\n".into(),
    ];
    let stage = Stage::start("", &[Vendor::openai("a", "")], &models.concat()).await;
    stage.direct("a", json!({"reply": words(300)}));
    let requests = [
        body("m", json!({})),
        body("m", json!({"max_tokens": 299})),
        body("m", json!({"stream": true})),
        body("m", json!({"web_search_options": {}})),
        body("timed", json!({})),
        body("unpriced", json!({})),
    ];
    for request in &requests {
        let answer = stage.gateway.chat(request.clone()).await;
        assert_eq!(answer.status, 200, "{request}: {answer:?}");
        assert!(!answer.text().contains("upstream_over_limit"), "{request}");
        assert!(!answer.text().contains("prompt_tokens") || !request.contains("\"stream\":true"));
    }
    at_rest(&stage).await;
    assert_eq!(stage.metric("sluice_spending_unpriced").await, 1.0);
    let rows = stage.simulator.books().rows;
    assert_eq!(rows.len(), requests.len());
    for (row, request) in rows.iter().zip(&requests) {
        let (sent, asked): (Value, Value) =
            (serde_json::from_slice(&row.body).unwrap(), serde_json::from_str(request).unwrap());
        assert_eq!(sent.get("max_tokens"), asked.get("max_tokens"), "{request}");
    }
    let billed: u64 =
        rows.iter().filter(|row| row.model.as_deref() != Some("unpriced")).map(|row| cost(row.billed)).sum();
    let folder = stage.gateway.ended_in_order();
    for (name, scope) in [("all", ""), ("run", "/")] {
        let accounts = accounts(folder.path(), name);
        assert_eq!((accounts[0].0.as_str(), accounts[0].2), (scope, billed), "{name}: {accounts:?}");
    }
}

/// The same budgets, enforced, refuse each of these: the control of the above.
#[tokio::test]
async fn an_enforced_budget_refuses_what_has_no_bound() {
    let models = [
        model("unpriced", "{ upstream = \"a\" }"),
        model("timed", &target("a", &format!("{RATES}, second = \"0.01\""))),
        model("untimed", &target("a", &format!("{RATES}, second = \"0\""))),
        budget("all", "10.00", ""),
    ];
    let stage = Stage::start("", &[Vendor::openai("a", "")], &models.concat()).await;
    let ask = async |model| stage.gateway.chat(body(model, json!({}))).await;
    ask("unpriced").await.refused(402, "unpriced");
    assert!(ask("timed").await.refused(402, "unbounded_cost").contains("`second`"));
    assert_eq!(stage.seen("a"), 0);
    assert_eq!(ask("untimed").await.status, 200, "the control");
}

/// What a header may lift is no bound.
#[tokio::test]
async fn a_context_that_a_header_lifts_bounds_nothing() {
    let short = format!("{{ upstream = \"a\", price = {{ {RATES} }}, context = 1200, max_output = 100 }}");
    let models = model("m", &short) + &budget("all", "10.00", "");
    let stage = Stage::start("", &[Vendor::openai("a", "")], &models).await;
    let ask = async |text: &str, beta: bool| {
        let body = body("m", json!({"messages": [{"role": "user", "content": text}]}));
        let request = stage.gateway.chat_request(body);
        let request = if beta { request.header("anthropic-beta", "context-1m-2025-08-07") } else { request };
        sluice_tests::gateway::send(request).await
    };
    let long = "word ".repeat(1000);
    assert!(ask(&long, true).await.refused(402, "unbounded_cost").contains("header for betas"));
    assert_eq!(stage.seen("a"), 0);
    assert_eq!(ask(&long, false).await.status, 200, "longer than the context, which nobody serves");
    assert_eq!(ask("short", true).await.status, 200, "a header alone is no harm");
}

/// What is left of an account that is not in memory is not known before the store was asked: a call
/// without a limit that does not fit by its cap gets its share of what is left then.
#[tokio::test]
async fn a_call_without_a_limit_fits_into_what_the_store_says_is_left() {
    const CAP: &str = "0.010";
    let simulator = Simulator::start("127.0.0.1:0").await.unwrap();
    let say = |count| simulator.direct("a", serde_json::from_value(json!({"reply": words(count)})).unwrap());
    let config = format!(
        "[server]\nlisten = \"127.0.0.1:0\"\n[upstreams.a]\nadapter = \"openai\"\nbase_url = \"{}\"\nsecrets = {{ api-key = \"env:KEY\" }}\n{}{}",
        simulator.base_url("a"),
        model("m", &target("a", RATES)),
        budget("all", CAP, ""),
    );
    let options = Options::with(&[("KEY", "sk-of-the-test")]);
    let gateway = Gateway::start(&config, &options);
    say(600);
    assert_eq!(gateway.chat(body("m", json!({"max_tokens": 700}))).await.status, 200);
    let folder = gateway.ended_in_order();
    let gateway = Gateway::start_in(folder, &options);
    say(10_000);
    let answer = gateway.chat(body("m", json!({}))).await;
    assert_eq!(answer.status, 200, "{answer:?}");
    assert_eq!(answer.json()["choices"][0]["finish_reason"], "length");
    let given = simulator.books().rows[1].billed.completion_tokens;
    assert!((256..400).contains(&given), "{given} of about 390");
    // Who names a limit is not given less.
    gateway.chat(body("m", json!({"max_tokens": 700}))).await.refused(402, "budget_exhausted");
    let folder = gateway.ended_in_order();
    let billed: u64 = simulator.books().rows.iter().map(|row| cost(row.billed)).sum();
    let charged = accounts(folder.path(), "all")[0].2;
    assert!(billed == charged && charged <= 10_000_000, "{billed} billed, {charged} charged");
}

/// A key's own budgets of two zones whose days begin together, and one of the configuration that would
/// be called as they are.
#[tokio::test]
async fn no_two_budgets_share_an_account() {
    let models = model("m", &target("a", RATES));
    let stage = Stage::start("", &[Vendor::openai("a", "")], &models).await;
    let draft = json!({"name": "app", "budgets": [
        {"cap": "1.00", "window": "day"},
        {"cap": "2.00", "window": "day", "zone": "Africa/Abidjan"},
        {"cap": "3.00", "window": "total"},
    ]});
    let request = stage.gateway.client().post(stage.gateway.url("/admin/v1/keys"));
    let made = send(request.body(draft.to_string())).await.json();
    let request = stage.gateway.chat_request(body("m", json!({"max_tokens": 50})));
    let answer = send(request.bearer_auth(made["key"].as_str().unwrap())).await;
    assert_eq!(answer.status, 200, "{answer:?}");
    at_rest(&stage).await;
    let billed = cost(stage.simulator.books().rows[0].billed);
    let folder = stage.gateway.ended_in_order();
    let charged: Vec<u64> = accounts(folder.path(), "of the key%").into_iter().map(|row| row.2).collect();
    assert_eq!(charged, [billed; 3]);
    let named = model("m", "{ upstream = \"e\" }") + &budget("of the key, in total", "1", "");
    std::fs::write(folder.path().join("sluice.toml"), format!("[upstreams.e]\nadapter = \"echo\"\n{named}"))
        .unwrap();
    let check = command::run(folder.path(), &["check"], &[]);
    assert!(check.code == Some(64) && check.stderr.contains("keys' own budgets do"), "{check:?}");
}

/// The cheap vendor is down for a moment, and the dear one does not fit: it is worth asking again.
#[tokio::test]
async fn a_moments_failure_is_told_before_a_budget_that_is_gone() {
    let dear = target("b", "input = \"1000\", output = \"1000\"");
    let models =
        model("m", &format!("{}, {dear}", target("a", RATES))) + &budget("all", "0.02", "window = \"month\"");
    let stage = Stage::start("", &[Vendor::openai("a", ""), Vendor::openai("b", "")], &models).await;
    stage.direct("a", json!({"faults": [{"kind": "status", "status": 503, "times": 0}]}));
    let ask = async || stage.gateway.chat(body("m", json!({"max_tokens": 50}))).await;
    let answer = ask().await;
    assert_eq!((answer.status.as_u16(), answer.header("x-should-retry")), (503, ""), "{answer:?}");
    assert_eq!((stage.seen("a"), stage.seen("b")), (1, 0));
    // Alone, it is what is told.
    let models = model("m", &dear) + &budget("all", "0.02", "window = \"month\"");
    stage.reconfigure("", &[Vendor::openai("a", ""), Vendor::openai("b", "")], &models, 1);
    ask().await.refused(402, "budget_exhausted");
}

/// The vendor's last word counts also where the client does not take what comes before it.
#[tokio::test]
async fn a_reader_that_takes_nothing_is_charged_what_the_vendor_says() {
    const WORDS: usize = 6_000;
    let server = "timeouts = { stalled_reader = \"1s\" }";
    let models = model("m", &target("a", RATES)) + &budget("all", "10.00", "");
    let stage = Stage::start(server, &[Vendor::openai("a", "")], &models).await;
    stage.direct("a", json!({"reply": words(WORDS)}));
    let client = sluice_tests::gateway::client(|builder| {
        builder.http2_prior_knowledge().http2_initial_stream_window_size(65_535)
    });
    let request = client.post(stage.gateway.url("/v1/chat/completions"));
    let request = request.body(body("m", json!({"stream": true, "max_tokens": 2 * WORDS})));
    let response = request.send().await.unwrap();
    stage.gateway.wait_for("server.timeouts.stalled_reader", 1);
    at_rest(&stage).await;
    let row = stage.finished(1).await.pop().unwrap();
    assert_eq!(row.billed.completion_tokens, WORDS as u64, "it was read to its end: {row:#?}");
    assert_eq!(settled(&stage).await, cost(row.billed));
    assert!(response.bytes().await.is_err(), "the client has lost it");
}

/// Counts that no vendor has ever sent are counts: no call ends by them, and no account.
#[tokio::test]
async fn counts_beyond_all_measure_are_settled_too() {
    let models = model("m", &target("a", RATES)) + &budget("all", "10.00", "");
    let limits = "limits = { tokens_per_minute = 100_000 }";
    let stage = Stage::start("", &[Vendor::openai("a", limits)], &models).await;
    let most = u64::MAX;
    let said = json!({
        "id": "x", "object": "chat.completion", "created": 1, "model": "m",
        "choices": [{"index": 0, "message": {"role": "assistant", "content": "hi"}, "finish_reason": "stop"}],
        "usage": {"prompt_tokens": most, "completion_tokens": most, "total_tokens": most},
    });
    let fault = json!({"kind": "status", "status": 200, "body": said.to_string(),
        "headers": [["content-type", "application/json"]]});
    stage.direct("a", json!({"faults": [fault]}));
    let ask = async || stage.gateway.chat(body("m", json!({"max_tokens": 50}))).await;
    let answer: Answer = ask().await;
    assert_eq!(answer.content(), "hi");
    at_rest(&stage).await;
    assert!(settled(&stage).await > 50 * OUTPUT, "all that was held");
    // Of the upstream's tokens nothing is left, for a long time.
    ask().await.refused(429, "rate_limit_exceeded");
    assert!(!stage.gateway.stop().contains("panicked"));
}

/// Budgets go by a time that does not go back: a start with a clock that cannot be right is told.
#[test]
fn a_start_with_a_wrong_clock_is_told() {
    const CONFIG: &str = "[server]\nlisten = \"127.0.0.1:0\"\n[upstreams.echo]\nadapter = \"echo\"\n[[models]]\nname = \"echo\"\ntargets = [{ upstream = \"echo\" }]\n";
    const DAY: i64 = 24 * 3600;
    let mut folder = Gateway::start(CONFIG, &Options::default()).ended_in_order();
    for (by, wanted) in
        [(365 * DAY, "ERROR"), (-40 * DAY, "off for more than a month"), (-DAY, ""), (100, "")]
    {
        let store = Connection::open(folder.path().join("data/sluice.db")).unwrap();
        let now = std::time::SystemTime::UNIX_EPOCH.elapsed().unwrap().as_secs() as i64;
        let set = "INSERT INTO meta (name, value) VALUES ('clock', ?1) ON CONFLICT DO UPDATE SET value = excluded.value";
        store.execute(set, [(now + by).to_string()]).unwrap();
        drop(store);
        let gateway = Gateway::start_in(folder, &Options::default());
        let log = gateway.log();
        let lines: Vec<&str> = log.lines().filter(|line| line.contains("wall clock")).collect();
        match wanted {
            "" => assert!(lines.is_empty(), "{by}: {lines:?}"),
            wanted => assert!(lines.len() == 1 && lines[0].contains(wanted), "{by}: {log}"),
        }
        folder = gateway.ended_in_order();
    }
}
