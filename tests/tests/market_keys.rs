//! The keys that a market is given: what they are good for, how far, until when, and where they are not.

#![allow(clippy::unwrap_used, reason = "a test fails by it")]

use std::time::{Duration, Instant};

use serde_json::{Value, json};
use sluice_tests::gateway::PATIENCE;
use sluice_tests::market::{Fair, Ground, MARKET_KEY, VARIABLES, nanos, row, usd};
use sluice_tests::relay::Instead;
use sluice_tests::secrets::found;
use sluice_tests::{Answer, Options, gateway};
use tokio::task::JoinSet;

const ENDPOINT: &str = "/v1/completions/";

/// Long enough for a bid on a busy machine.
const OPEN_MS: u32 = 5_000;

/// Also what is quiet unless it is named.
const EVERYTHING: &str = "trace,h2=trace,hyper=trace,hyper_util=trace,reqwest=trace,rustls=trace";

/// A job that was bid on and is nobody's yet; and its key.
async fn open_job(job: Value, market: &str) -> (Fair, String, String) {
    let fair = Fair::start(json!({ "season": { "close_after_bids": 2 } }), market).await;
    let id = fair.give(job).await;
    fair.under_way(1).await;
    let key = fair.key_of(&id);
    (fair, id, key)
}

fn asking(text: &str) -> Value {
    json!({ "model": "any", "messages": [{ "role": "user", "content": text }], "max_tokens": 50 })
}

/// Asks for nothing that costs, until the answer is as wanted.
async fn until_refused(fair: &Fair, key: &str, status: u16) -> Answer {
    let deadline = Instant::now() + PATIENCE;
    loop {
        let answer = fair.call(ENDPOINT, key, &json!({ "model": "any", "messages": [] })).await;
        if answer.status == status {
            return answer;
        }
        assert!(Instant::now() < deadline, "{answer:?}\n{}", fair.gateway.log());
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_requester_sends_is_understood_or_refused_as_it_should_be() {
    let (fair, _, key) = open_job(json!({ "credit": 0.5 }), "calls_per_job = 100").await;
    for path in ["/v1/completions", "/v1/completions/", "/v1/chat/completions"] {
        let answer = fair.call(path, &key, &asking("one two")).await;
        assert_eq!(answer.content(), "You said: one two", "{path}");
    }
    let mut streamed = asking("one two");
    streamed["stream"] = json!(true);
    let events = fair.call(ENDPOINT, &key, &streamed).await.events();
    assert_eq!(events.last().map(String::as_str), Some("[DONE]"), "{events:?}");
    assert!(events.iter().any(|event| event.contains("\"stop\"")), "{events:?}");
    let mut limited = asking("one two three four five");
    limited["max_tokens"] = json!(3);
    let answer = fair.call(ENDPOINT, &key, &limited).await;
    assert_eq!(answer.json()["choices"][0]["finish_reason"], "length", "{answer:?}");
    let mut tools = asking("call it");
    tools["tools"] = json!([{ "type": "function", "function": { "name": "look", "parameters": { "type": "object", "properties": { "at": { "type": "string" } }, "required": ["at"] } } }]);
    tools["tool_choice"] = json!("required");
    let answer = fair.call(ENDPOINT, &key, &tools).await;
    assert_eq!(answer.status, 200, "{answer:?}");
    let choice = &answer.json()["choices"][0];
    assert_eq!(choice["finish_reason"], "tool_calls");
    assert_eq!(choice["message"]["tool_calls"][0]["function"]["name"], "look");
    let roles = json!({ "model": "any", "messages": [
        { "role": "developer", "content": "Be short." },
        { "role": "user", "content": [{ "type": "text", "text": "in parts" }] },
        { "role": "assistant", "content": null, "tool_calls": [{ "id": "c1", "type": "function", "function": { "name": "look", "arguments": "{}" } }] },
        { "role": "tool", "tool_call_id": "c1", "content": "seen" },
    ] });
    let answer = fair.call(ENDPOINT, &key, &roles).await;
    assert_eq!(answer.content(), "You said: in parts");
    let empty = fair.call(ENDPOINT, &key, &json!({ "model": "any", "messages": [] })).await;
    assert_eq!(empty.status, 400, "{empty:?}");
    assert!(empty.json()["error"]["message"].is_string(), "{empty:?}");
    let none = fair.call(ENDPOINT, &key, &json!({ "model": "any" })).await;
    assert_eq!(none.status, 400, "{none:?}");
    let vendor = fair.simulator.books();
    assert!(vendor.rows.iter().all(|row| row.model.as_deref() == Some("big")), "{:?}", vendor.rows);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_key_is_for_its_jobs_model_whatever_is_asked_for() {
    let (fair, _, key) = open_job(json!({ "credit": 0.5 }), "").await;
    for model in ["serves", "big", "gpt-4o", "", "no such model"] {
        let mut body = asking("hello");
        body["model"] = json!(model);
        body["max_tokens"] = json!(1);
        let answer = fair.call(ENDPOINT, &key, &body).await;
        assert_eq!(answer.content(), "You", "{model:?}");
    }
    let vendor = fair.simulator.books();
    assert_eq!(vendor.rows.len(), 5);
    assert!(vendor.rows.iter().all(|row| row.model.as_deref() == Some("big")), "{:?}", vendor.rows);
    // And nothing but completions: it is no key for people.
    let page = fair.gateway.client().get(fair.gateway.url("/v1/models")).bearer_auth(&key);
    let page = gateway::send(page).await;
    assert!(page.status == 200 || page.status == 401, "{page:?}");
    let mut other = key.clone();
    other.replace_range(key.len() - 1.., if key.ends_with('A') { "B" } else { "A" });
    let answer = fair.call(ENDPOINT, &other, &asking("hello")).await;
    assert_eq!(answer.status, 401, "{answer:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_key_spends_its_jobs_worst_case_and_not_a_billionth_more() {
    let (fair, id, key) = open_job(json!({ "credit": 0.5 }), "").await;
    let worst = nanos(&fair.page().await["at_risk_usd"]);
    // Many at once, over and over: 200 words each.
    fair.direct(json!({ "reply": "word ".repeat(300) }));
    let mut body = asking("hello");
    body.as_object_mut().unwrap().remove("max_tokens");
    let (mut served, mut refused) = (0, 0);
    for _ in 0..5 {
        let mut calls = JoinSet::new();
        for _ in 0..8 {
            calls.spawn(gateway::send(fair.call_request(ENDPOINT, &key, &body)));
        }
        for answer in calls.join_all().await {
            match answer.status.as_u16() {
                200 => served += 1,
                402 => refused += 1,
                // What others hold may yet be given back.
                429 => {
                    answer.refused(429, "budget_held");
                }
                other => panic!("{other}: {answer:?}"),
            }
        }
    }
    let vendor = fair.simulator.books();
    let spent = vendor.totals.prompt_tokens * 1000 + vendor.totals.completion_tokens * 2000;
    assert!(spent <= worst, "{spent} of {worst}");
    assert!(served >= 2 && refused >= 8, "{served} served, {refused} refused; {spent} of {worst}");
    fair.other_bids(&id, 0.5).await;
    // The market's own call comes when all is spent: it fails, and the books say what was spent.
    let books = fair.finals(1).await;
    assert_eq!(books.instances[0].paid.nanos(), 0, "{:?}", books.instances[0]);
    let rows = fair.settled(1).await;
    assert_eq!(row(&rows, &id)["cost_usd"], usd(spent));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_key_ends_with_its_job() {
    let (fair, id, key) = open_job(json!({ "credit": 0.5 }), "").await;
    assert_eq!(fair.call(ENDPOINT, &key, &asking("hello")).await.status, 200, "it works before");
    fair.other_bids(&id, 0.5).await;
    fair.finals(1).await;
    fair.settled(1).await;
    fair.call(ENDPOINT, &key, &asking("hello")).await.refused(401, "invalid_api_key");
    assert_eq!(fair.simulator.books().rows.len(), 2, "nothing is asked of a vendor for it");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_key_of_a_lost_job_ends_when_the_loss_is_known() {
    let market = "[[market.strategies]]\nplugin = \"minimum\"\nconfig = { bid_usd = \"0.05\" }";
    let (fair, id, key) = open_job(json!({ "credit": 0.5, "open_ms": OPEN_MS }), market).await;
    fair.other_bids(&id, 0.04).await;
    let rows = fair.settled(1).await;
    assert_eq!(fair.books().instances[0].winner.as_deref(), Some("q"));
    let row = row(&rows, &id);
    assert_eq!((&row["state"], &row["cost_usd"]), (&json!("lost"), &json!("0.00")));
    fair.call(ENDPOINT, &key, &asking("hello")).await.refused(401, "invalid_api_key");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_key_ends_when_its_reward_is_due() {
    let job = json!({ "credit": 0.5, "open_ms": OPEN_MS, "reward_timeout_ms": 1 });
    let (fair, id, key) = open_job(job, "").await;
    // The market does not say any more what becomes of it.
    fair.market.fails(&format!("/v1/instances/{id}"), Instead::Cut);
    let answer = until_refused(&fair, &key, 401).await;
    assert!(answer.text().contains("has expired"), "{answer:?}");
    let page = fair.page().await;
    assert_eq!(page["open"].as_u64().unwrap() + page["won"].as_u64().unwrap(), 1, "it has not ended");
}

#[tokio::test(flavor = "multi_thread")]
async fn keys_are_nowhere_but_at_the_market() {
    let ground = Ground::open(json!({ "season": { "close_after_bids": 2 } }), "").await;
    let variables = [&VARIABLES[..], &[("SLUICE_LOG", EVERYTHING)]].concat();
    let fair = ground.begin_with(&Options::with(&variables));
    let id = fair.give(json!({ "credit": 0.5 })).await;
    fair.under_way(1).await;
    let key = fair.key_of(&id);
    fair.call(ENDPOINT, &key, &asking("hello")).await;
    fair.call(ENDPOINT, &format!("{key}x"), &asking("hello")).await;
    fair.call(ENDPOINT, &key, &json!({ "messages": [] })).await;
    // A market that repeats what it was sent.
    fair.market.fails("/create/for-instance/", Instead::Repeats);
    let other = fair.give(json!({ "credit": 0.5 })).await;
    fair.until("it is refused", |page| page["strategies"][0]["proposals"]["refused"] == 1).await;
    fair.market.heals();
    fair.other_bids(&id, 0.5).await;
    fair.finals(1).await;
    let page = fair
        .until("it is settled", |page| page["won"] == 0 && page["report"].to_string().contains("paid"))
        .await;
    let (other, keys) = (fair.key_of(&other), [key.clone(), MARKET_KEY.to_owned()]);
    let asked = fair.market.asked("");
    assert!(asked.iter().any(|asked| asked.body.contains(&key)), "the control: the market has it");
    let mut seen = vec![
        ("the page".to_owned(), page.to_string().into_bytes()),
        ("the metrics".to_owned(), fair.gateway.get("/metrics").await.body.to_vec()),
        ("the report".to_owned(), fair.run(&["market", "report", "--by", "job"]).into_bytes()),
        ("the usage".to_owned(), fair.gateway.get("/admin/v1/usage").await.body.to_vec()),
    ];
    for file in std::fs::read_dir(fair.gateway.folder().join("data")).unwrap() {
        let file = file.unwrap().path();
        if file.is_dir() {
            continue;
        }
        seen.push((file.display().to_string(), std::fs::read(&file).unwrap()));
    }
    let log = fair.gateway.stop();
    assert!(log.contains("TRACE"), "the control: it is logged in detail");
    assert!(log.contains("x-api-key"), "the control: the market has repeated what it was sent");
    seen.push(("the log".to_owned(), log.into_bytes()));
    for (what, bytes) in &seen {
        for secret in keys.iter().chain([&other]) {
            assert_eq!(found(bytes, secret), None, "{secret} is in {what}");
        }
    }
}
