//! Caps that hold, by the vendors' own books: races, hang-ups, faults, vendors and clients that cheat.

#![allow(clippy::unwrap_used, reason = "a test fails by it")]

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use rusqlite::Connection;
use serde_json::{Value, json};
use sluice_simulate::{Billed, Row, Simulator};
use sluice_tests::gateway::send;
use sluice_tests::stage::Vendor;
use sluice_tests::{Answer, Gateway, Options, Stage, command};

/// Nano-dollars for a token: what a million cost in the configuration.
const INPUT: u64 = 100;
const OUTPUT: u64 = 10_000;
const PRICE: &str = "price = { input = \"0.10\", output = \"10.00\" }";

/// Words of each answer, one token each, and what clients allow for them.
const WORDS: usize = 40;
const LIMIT: u64 = 44;

const CLIENTS: u64 = 64;
const SEEDS: u64 = 20;

/// A small generator: a seed is a race that can be had again.
struct Chance(u64);

impl Chance {
    fn below(&mut self, bound: u64) -> u64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % bound
    }
}

fn model(targets: &str, more: &str) -> String {
    format!("[[models]]\nname = \"m\"\n{more}\ntargets = [{targets}]\n")
}

fn target(upstream: &str, more: &str) -> String {
    format!("{{ upstream = \"{upstream}\", {PRICE}, {more} }}")
}

fn budget(name: &str, per: &str, cap: &str, more: &str) -> String {
    format!("[[budgets]]\nname = \"{name}\"\nper = \"{per}\"\ncap_usd = \"{cap}\"\n{more}\n")
}

fn cost(billed: Billed) -> u64 {
    billed.prompt_tokens * INPUT + billed.completion_tokens * OUTPUT
}

fn nanos(dollars: &str) -> u64 {
    dollars.parse::<sluice_core::money::NanoUsd>().unwrap().nanos()
}

fn body(stream: bool) -> Value {
    json!({"model": "m", "stream": stream, "max_tokens": LIMIT, "messages": [{"role": "user", "content": "Say forty words."}]})
}

/// What the database says once the gateway has ended: settled and in doubt, leased.
fn account(folder: &Path, budget: &str, scope: &str) -> (u64, u64) {
    let store = Connection::open(folder.join("data/sluice.db")).unwrap();
    let query = "SELECT coalesce(sum(settled), 0), coalesce(sum(in_doubt), 0) FROM accounts WHERE budget = ?1 AND scope LIKE ?2";
    store
        .query_row(query, [budget, scope], |row| {
            Ok((row.get::<_, i64>(0)? as u64, row.get::<_, i64>(1)? as u64))
        })
        .unwrap()
}

async fn told_in_doubt(gateway: &Gateway) -> u64 {
    let page = gateway.get("/metrics").await.text();
    sluice_tests::gateway::metric(&page, "sluice_spending_in_doubt_nanodollars") as u64
}

async fn at_rest(stage: &Stage) {
    let wait = async {
        while stage.metric("sluice_spending_holds").await > 0.0 {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(120), wait).await.expect("at rest nothing is held");
}

/// One client's call: it may leave at any moment. The smallest worst case that was refused for good.
async fn call(stage: &Stage, run: &str, chance: &mut Chance) -> Option<Answer> {
    let stream = chance.below(2) == 0;
    let request = stage.gateway.chat_request(body(stream).to_string()).header("x-sluice-run", run);
    let sent = async {
        let response = request.send().await.ok()?;
        Answer::read(response).await.ok()
    };
    match chance.below(4) {
        0 => tokio::time::timeout(Duration::from_millis(chance.below(30)), sent).await.ok().flatten(),
        _ => sent.await,
    }
}

/// Clients of one run that go on until its money is gone.
async fn race(stage: &Stage, seed: u64) {
    let run = format!("seed-{seed}");
    let clients = (0..CLIENTS).map(|client| {
        let (mut chance, run) = (Chance(seed * 1000 + client), run.clone());
        async move {
            for _ in 0..50 {
                let Some(answer) = call(stage, &run, &mut chance).await else { continue };
                match answer.status.as_u16() {
                    402 => return,
                    // Held: it may come back.
                    429 => tokio::time::sleep(Duration::from_millis(5)).await,
                    _ => {}
                }
            }
        }
    });
    all(clients).await;
}

/// Waits for all of them at once.
async fn all(all: impl Iterator<Item = impl Future<Output = ()>>) {
    let mut all: Vec<_> = all.map(Box::pin).collect();
    std::future::poll_fn(|context| {
        all.retain_mut(|one| one.as_mut().poll(context).is_pending());
        if all.is_empty() { std::task::Poll::Ready(()) } else { std::task::Poll::Pending }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_race_passes_a_runs_cap() {
    const CAP: &str = "0.024";
    let budgets = [
        budget("per-run", "run", CAP, ""),
        budget("everyone", "all", "1.00", ""),
        budget("vendor", "upstream", "5.00", "window = \"month\""),
    ];
    let models = model(&target("a", "max_output = 1000"), "retries = 1") + &budgets.concat();
    let more = "timeouts = { headers = \"2s\", first_content = \"2s\", idle = \"2s\" }\nbreaker = { failures = 1000 }";
    let stage = Stage::start("", &[Vendor::openai("a", more)], &models).await;
    let words: Vec<&str> = vec!["word"; WORDS];
    let kinds = json!([
        {"kind": "status", "status": 500},
        {"kind": "status", "status": 429, "headers": [["retry-after", "0"]]},
        {"kind": "reset", "at": "headers"},
        {"kind": "reset", "at": "body", "events": 3},
        {"kind": "cut", "events": 20},
        {"kind": "no_usage"},
        {"kind": "error_in_200"},
        {"kind": "drip", "ms": 1},
    ]);
    let mut shares = Vec::new();
    let (mut billed_in_all, mut seen) = (0, 0);
    for seed in 0..SEEDS {
        stage.direct(
            "a",
            json!({"reply": words.join(" "), "chaos": {"seed": seed, "permille": 60, "kinds": kinds}}),
        );
        race(&stage, seed).await;
        at_rest(&stage).await;
        let books = stage.simulator.books();
        let rows: &[Row] = &books.rows[seen..];
        seen = books.rows.len();
        let billed: u64 = rows.iter().map(|row| cost(row.billed)).sum();
        billed_in_all += billed;
        shares.push((billed, rows.len()));
    }
    let folder = stage.gateway.ended_in_order();
    let cap = nanos(CAP);
    // A call's worst case: the bytes of its body and a margin, and its limit.
    let worst = (body(true).to_string().len() as u64 + 1000) * INPUT + LIMIT * OUTPUT;
    let mut permille: Vec<u64> = Vec::new();
    for (seed, (billed, asked)) in shares.iter().enumerate() {
        let (charged, in_doubt) = account(folder.path(), "per-run", &format!("%/seed-{seed}"));
        assert!(*billed <= charged, "seed {seed}: {billed} were billed, {charged} charged");
        assert!(charged <= cap, "seed {seed}: {charged} of {cap}");
        assert_eq!(in_doubt, 0, "seed {seed}");
        assert!(cap - charged < worst, "seed {seed}: {} are left", cap - charged);
        assert!(*asked > 30, "seed {seed}: {asked} calls");
        permille.push(billed * 1000 / cap);
    }
    permille.sort_unstable();
    assert!(permille[permille.len() / 2] >= 900, "{permille:?}");
    let (charged, _) = account(folder.path(), "everyone", "");
    assert!((billed_in_all..=nanos("1.00")).contains(&charged));
}

/// A cap and a mode that are changed while it serves hold for the next request, whatever is leased.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_cap_that_is_changed_while_it_serves_holds_at_once() {
    let vendors = [Vendor::openai("a", "")];
    let configured = |cap: &str, mode: &str| {
        let more = format!("mode = \"{mode}\"");
        model(&target("a", "max_output = 1000"), "") + &budget("everyone", "all", cap, &more)
    };
    let stage = Stage::start("", &vendors, &configured("1.00", "enforce")).await;
    let words = vec!["word"; WORDS].join(" ");
    stage.direct("a", json!({"reply": words}));
    let ask = async || stage.gateway.chat(body(false).to_string()).await;
    assert_eq!(ask().await.status, 200);
    assert!(stage.metric("sluice_spending_leased_nanodollars").await > 0.0, "there would be a lease");
    stage.reconfigure("", &vendors, &configured("0.000001", "enforce"), 1);
    ask().await.refused(402, "budget_exhausted");
    stage.reconfigure("", &vendors, &configured("0.000001", "shadow"), 2);
    assert_eq!(ask().await.status, 200);
    stage.reconfigure("", &vendors, &configured("0.000001", "enforce"), 3);
    ask().await.refused(402, "budget_exhausted");
    stage.reconfigure("", &vendors, &configured("1.00", "enforce"), 4);
    assert_eq!(ask().await.status, 200);
    assert_eq!(stage.seen("a"), 3, "who was refused was not sent");
}

/// What was leased when the power went is in doubt, is listed with a number, and ends when an operator
/// says what it cost: the budget can be spent again.
#[tokio::test]
async fn what_a_loss_of_power_puts_in_doubt_can_be_resolved() {
    let simulator = Simulator::start("127.0.0.1:0").await.unwrap();
    let config = format!(
        "[server]\nlisten = \"127.0.0.1:0\"\n[upstreams.a]\nadapter = \"openai\"\nbase_url = \"{}\"\nsecrets = {{ api-key = \"env:KEY\" }}\n{}{}",
        simulator.base_url("a"),
        model(&target("a", "max_output = 1000"), ""),
        budget("everyone", "all", "0.0012", "") + &budget("per-run", "run", "0.0012", ""),
    );
    let options = Options::with(&[("KEY", "sk-of-the-test")]);
    let first = Gateway::start(&config, &options);
    assert_eq!(first.chat(body(false).to_string()).await.status, 200);
    // Not before the call is in the database: then the journal has nothing to say.
    let settled = async {
        while account(first.folder(), "per-run", "%").0 == 0 {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(120), settled).await.unwrap();
    let folder = first.crash();
    let store = Connection::open(folder.path().join("data/sluice.db")).unwrap();
    // As if the machine had been off. What rests for 5 s goes back: it is leased again.
    let off = "UPDATE meta SET value = 'another' WHERE name = 'boot'; \
         INSERT INTO leases SELECT id, '0', 700000 FROM accounts WHERE true ON CONFLICT DO UPDATE SET leased = 700000";
    store.execute_batch(off).unwrap();
    drop(store);
    let gateway = Gateway::start_in(folder, &options);
    gateway.wait_for("the machine went down", 1);
    gateway.chat(body(false).to_string()).await.refused(402, "budget_exhausted");
    let page = gateway.get("/admin/v1/in-doubt").await.json();
    let rests = page["rests"].as_array().unwrap();
    let ids: Vec<&str> = rests.iter().map(|rest| rest["id"].as_str().unwrap()).collect();
    assert_eq!((page["in_doubt"].as_array().unwrap().len(), ids.len()), (0, 2), "{page:#}");
    let listed = command::run(gateway.folder(), &["usage", "--in-doubt"], &[("KEY", "k")]);
    assert!(ids.iter().all(|id| listed.stdout.contains(id)), "{listed:?}");
    let resolve = |id: &str, charge: &str| {
        let arguments = ["usage", "--resolve", id, "--charge", charge];
        command::run(gateway.folder(), &arguments, &[("KEY", "k")]).code
    };
    assert_eq!(resolve(ids[0], "1"), Some(1), "so much is not in doubt");
    assert_eq!(resolve(ids[0], "0.00001"), Some(0));
    let resolve_there = async |id: &str| {
        let request = gateway.client().post(gateway.url(&format!("/admin/v1/in-doubt/{id}/resolve")));
        send(request.body(r#"{"charge_usd": "0"}"#)).await
    };
    assert_eq!(resolve_there(ids[1]).await.status, 200);
    resolve_there(ids[1]).await.refused(409, "already_resolved");
    resolve_there("rest-x").await.refused(400, "invalid_request");
    assert_eq!(gateway.get("/admin/v1/in-doubt").await.json()["rests"], json!([]));
    assert_eq!(gateway.chat(body(false).to_string()).await.status, 200, "it goes on");
    let acts = gateway.get("/admin/v1/audit").await.json();
    let told = |act: &Value| (act["subject"].as_str().unwrap().to_owned(), act["outcome"].clone());
    let acts: Vec<_> = acts["acts"].as_array().unwrap().iter().rev().map(told).collect();
    let wanted = [(0, "beyond_held"), (0, "done"), (1, "done"), (1, "already_resolved")];
    assert_eq!(acts, wanted.map(|(place, outcome)| (ids[place].to_owned(), json!(outcome))));
}

/// Killed at a random moment again and again, under load: nothing that a vendor billed is forgotten, and
/// no cap is passed.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_kill_refunds_anything() {
    const CAP: &str = "0.80";
    const CALLERS: u64 = 16;
    let kills: u64 = std::env::var("SLUICE_TEST_KILLS").map_or(10, |kills| kills.parse().unwrap());
    let simulator = Simulator::start("127.0.0.1:0").await.unwrap();
    let words = vec!["word"; WORDS].join(" ");
    let script =
        json!({"reply": words, "chaos": {"seed": 1, "permille": 1000, "kinds": [{"kind": "drip", "ms": 1}]}});
    simulator.direct("a", serde_json::from_value(script).unwrap());
    let config = format!(
        "[server]\nlisten = \"127.0.0.1:0\"\n[upstreams.a]\nadapter = \"openai\"\nbase_url = \"{}\"\nsecrets = {{ api-key = \"env:KEY\" }}\n{}{}",
        simulator.base_url("a"),
        model(&target("a", "max_output = 1000"), ""),
        budget("everyone", "all", CAP, "") + &budget("per-run", "run", CAP, "window = \"day\""),
    );
    let mut folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("sluice.toml"), config).unwrap();
    let options = Options::with(&[("KEY", "sk-of-the-test")]);
    let mut chance = Chance(7);
    for kill in 0..kills {
        let gateway = Arc::new(Gateway::start_in(folder, &options));
        let mut asking = tokio::task::JoinSet::new();
        for client in 0..CALLERS {
            let gateway = Arc::clone(&gateway);
            asking.spawn(async move {
                let mut chance = Chance(kill * 100 + client);
                loop {
                    let sent = gateway.chat_request(body(chance.below(2) == 0).to_string()).send();
                    if let Ok(response) = sent.await {
                        let _ = Answer::read(response).await;
                    }
                }
            });
        }
        tokio::time::sleep(Duration::from_millis(50 + chance.below(400))).await;
        gateway.signal("KILL");
        asking.shutdown().await;
        folder = Arc::into_inner(gateway).unwrap().crash();
    }
    let last = Gateway::start_in(folder, &options);
    let deadline = tokio::time::Instant::now() + Duration::from_secs(60);
    let told = loop {
        match told_in_doubt(&last).await {
            0 if tokio::time::Instant::now() < deadline => {
                tokio::time::sleep(Duration::from_millis(20)).await
            }
            told => break told,
        }
    };
    let folder = last.ended_in_order();
    let billed: u64 = simulator.books().rows.iter().map(|row| cost(row.billed)).sum();
    let worst = (body(true).to_string().len() as u64 + 1000) * INPUT + LIMIT * OUTPUT;
    for name in ["everyone", "per-run"] {
        let (settled, in_doubt) = account(folder.path(), name, "%");
        assert!(
            settled > 0 && billed <= settled + in_doubt,
            "{billed} billed, {settled} settled, {in_doubt} in doubt"
        );
        assert!(settled + in_doubt <= nanos(CAP), "{settled} and {in_doubt} of {CAP}");
        // Each caller has one call under way.
        assert!(in_doubt <= kills * CALLERS * worst, "{in_doubt} in doubt");
    }
    let store = Connection::open(folder.path().join("data/sluice.db")).unwrap();
    let sum = |query| store.query_row(query, [], |row| row.get::<_, i64>(0)).unwrap();
    assert_eq!(sum("SELECT coalesce(sum(leased), 0) FROM leases"), 0);
    assert_eq!(
        sum("SELECT sum(cost) FROM calls"),
        sum("SELECT settled FROM accounts WHERE budget = 'everyone'")
    );
    assert_eq!(sum("SELECT sum(cost) FROM usage"), sum("SELECT sum(cost) FROM calls"));
    assert_eq!(sum("SELECT sum(amount) FROM in_doubt"), told as i64, "the metric");
    assert_eq!(
        sum("SELECT sum(amount) FROM in_doubt"),
        sum("SELECT in_doubt FROM accounts WHERE budget = 'everyone'")
    );
}

/// A budget that is exhausted goes on with a cheaper model where it says so, and not where that one
/// costs too much as well, or where the key may not ask for it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_exhausted_budget_goes_on_with_a_cheaper_model() {
    let cheap = "{ upstream = \"b\", price = { input = \"0.10\", output = \"1.00\" }, max_output = 1000 }";
    let limited = "limits = { requests_per_minute = 3 }";
    let models = model(&target("a", "max_output = 1000"), "")
        + &format!("[[models]]\nname = \"cheap\"\n{limited}\ntargets = [{cheap}]\n")
        // Room for two calls by either price, and for a few of the cheap ones.
        + &budget("per-run", "run", "0.0013", "on_exhaust = \"downgrade\"\ndowngrade_to = \"cheap\"");
    let stage = Stage::start("", &[Vendor::openai("a", ""), Vendor::openai("b", "")], &models).await;
    let words = vec!["word"; WORDS].join(" ");
    for vendor in ["a", "b"] {
        stage.direct(vendor, json!({ "reply": words }));
    }
    let ask = async || {
        let request = stage.gateway.chat_request(body(false).to_string()).header("x-sluice-run", "r");
        sluice_tests::gateway::send(request).await
    };
    let mut answered = Vec::new();
    let last = loop {
        let answer = ask().await;
        match answer.status.as_u16() {
            200 => answered.push(answer.header("x-sluice-model").to_owned()),
            _ => break answer,
        }
    };
    assert_eq!(answered, ["", "", "cheap", "cheap", "cheap"], "{}", last.text());
    assert!(last.refused(429, "rate_limit_exceeded").contains("\"cheap\""), "the cheap model's own limit");
    assert_eq!((stage.seen("a"), stage.seen("b")), (2, 3));
    let rows = stage.simulator.books().rows;
    let asked: Vec<Option<&str>> = rows.iter().map(|row| row.model.as_deref()).collect();
    assert_eq!(asked, [Some("m"), Some("m"), Some("cheap"), Some("cheap"), Some("cheap")], "what was sent");
    at_rest(&stage).await;
    let page = stage.gateway.get("/admin/v1/usage?by=model").await.json();
    assert_eq!(page["usage"].as_array().map(Vec::len), Some(2), "{page}");
    let refusals = stage.metric("sluice_refusals_total{reason=\"rate_limit_exceeded\"}").await;
    assert_eq!(refusals, 1.0);
    let folder = stage.gateway.ended_in_order();
    let billed: u64 = stage
        .simulator
        .books()
        .rows
        .iter()
        .map(|row| {
            let output = if row.vendor == "a" { OUTPUT } else { OUTPUT / 10 };
            row.billed.prompt_tokens * INPUT + row.billed.completion_tokens * output
        })
        .sum();
    assert_eq!(account(folder.path(), "per-run", "%"), (billed, 0));
}

/// Names of one glob are models of their own, also for a downgrade.
#[tokio::test]
async fn a_glob_is_left_for_another_name_of_it() {
    let price = |model: &str, output: &str| {
        format!(
            "[[prices]]\nupstream = \"a\"\nmodel = \"{model}\"\ninput = \"0.10\"\noutput = \"{output}\"\nmax_output = 1000\n"
        )
    };
    let models = "[[models]]\nname = \"g-*\"\nlimits = { concurrent = 1 }\ntargets = [{ upstream = \"a\", model = \"*\" }]\n"
        .to_owned()
        + &price("big", "1000.00")
        + &price("small", "1.00")
        + &budget("everyone", "all", "0.01", "on_exhaust = \"downgrade\"\ndowngrade_to = \"g-small\"");
    let stage = Stage::start("", &[Vendor::openai("a", "")], &models).await;
    let answer = stage.ask("g-big", false).await;
    assert_eq!((answer.status.as_u16(), answer.header("x-sluice-model")), (200, "g-small"), "{answer:?}");
    assert_eq!(stage.simulator.books().rows[0].model.as_deref(), Some("small"));
}

/// A client that hangs up pays for what the vendor made, and the vendor is let go when it is known.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_hangs_up_in_a_stream_pays_for_it() {
    let models = model(&target("a", "max_output = 1000"), "") + &budget("everyone", "all", "1.00", "");
    let stage = Stage::start("", &[Vendor::openai("a", "")], &models).await;
    let words = vec!["word"; WORDS].join(" ");
    let slowly = json!({"seed": 1, "permille": 1000, "kinds": [{"kind": "drip", "ms": 5}]});
    stage.direct("a", json!({"reply": words, "chaos": slowly}));
    let mut answer = stage.gateway.chat_request(body(true).to_string()).send().await.unwrap();
    assert!(answer.chunk().await.unwrap().is_some());
    drop(answer);
    let rows = stage.finished(1).await;
    at_rest(&stage).await;
    assert_eq!(rows[0].billed.completion_tokens, WORDS as u64, "it was heard to its end");
    let settled = stage.metric("sluice_spending_settled_nanodollars").await;
    assert_eq!(settled, cost(rows[0].billed) as f64);
    assert_eq!(stage.metric("sluice_spending_disputed").await, 0.0);
}

/// A model that writes of errors has answered: it is believed, and paid.
#[tokio::test]
async fn an_answer_about_an_error_is_no_error() {
    let models = model(&target("a", "max_output = 1000"), "") + &budget("everyone", "all", "1.00", "");
    let stage = Stage::start("", &[Vendor::openai("a", "")], &models).await;
    let reply = r#"HTTP 500: {"error": {"message": "rate limit exceeded", "code": 429}}"#;
    stage.direct("a", json!({ "reply": reply }));
    for stream in [false, true] {
        let answer = stage.ask("m", stream).await;
        assert_eq!(answer.status.as_u16(), 200, "{answer:?}");
    }
    at_rest(&stage).await;
    let billed: u64 = stage.simulator.books().rows.iter().map(|row| cost(row.billed)).sum();
    assert_eq!(stage.metric("sluice_spending_settled_nanodollars").await, billed as f64);
    assert_eq!(stage.breaker_state("a").await, "closed");
}
