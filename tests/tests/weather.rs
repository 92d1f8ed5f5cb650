//! Half a minute of everything at once: whoever asks has a completion or a typed error, in time.

#![allow(clippy::unwrap_used, reason = "a test fails by it")]

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use sluice_tests::gateway::{question, send};
use sluice_tests::stage::{Vendor, model};
use sluice_tests::{Answer, Stage};
use tokio::sync::Semaphore;

const REQUESTS: u32 = 6_000;
const PER_SECOND: u32 = 200;

/// Under way at once: five times what there usually is, so that a machine that has other things to do
/// makes it last longer and not fail.
const UNDER_WAY_MAX: usize = 100;

/// Within which a model answers, and a bit for a machine that has other things to do.
const DEADLINE: Duration = Duration::from_secs(5);
const BUSY: Duration = Duration::from_secs(5);

/// Of a thousand calls of the bad vendor so many go wrong.
const PERMILLE: u32 = 300;

/// What a client can get.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Got {
    Completion,
    Refusal,
    /// Content, and then an event that says what happened.
    ErrorEvent,
    /// Content, and then a connection that broke.
    Broken,
    /// What no client can make sense of.
    Nonsense,
}

/// Before content only, or after it too; without a refused credential, after which the bad vendor
/// would rest for a minute. The events are those of OpenAI's wire.
fn faults(after: bool) -> Vec<Value> {
    let mut faults = vec![
        json!({"kind": "status", "status": 500}),
        json!({"kind": "status", "status": 503, "headers": [["retry-after", "1"]]}),
        json!({"kind": "status", "status": 429, "headers": [["retry-after", "0"]]}),
        json!({"kind": "hang", "at": "headers"}),
        json!({"kind": "hang", "at": "body", "events": 0}),
        json!({"kind": "reset", "at": "headers"}),
        json!({"kind": "reset", "at": "body", "events": 1}),
        json!({"kind": "malformed_json", "events": 1}),
        json!({"kind": "malformed_sse", "events": 1}),
        json!({"kind": "error_in_200"}),
        json!({"kind": "cut", "events": 1}),
        json!({"kind": "empty"}),
        json!({"kind": "drip", "ms": 5}),
        json!({"kind": "unstreamed"}),
        json!({"kind": "wrong_usage"}),
    ];
    if after {
        faults.extend([
            json!({"kind": "hang", "at": "body", "events": 3}),
            json!({"kind": "reset", "at": "body", "events": 3}),
            json!({"kind": "malformed_json", "events": 4}),
            json!({"kind": "malformed_sse", "events": 3}),
            json!({"kind": "error_in_200", "events": 5}),
            json!({"kind": "cut", "events": 3}),
        ]);
    }
    faults
}

async fn weather(seed: u64, after: bool) -> (BTreeMap<Got, u32>, Stage) {
    let more = "timeouts = { headers = \"500ms\", first_content = \"1s\", idle = \"2s\" }\nbreaker = { open_for = \"500ms\" }";
    let vendors = [Vendor::openai("bad", more), Vendor::openai("good", "")];
    let deadline = format!("deadline = \"{}s\"", DEADLINE.as_secs());
    let stage = Stage::start("", &vendors, &model("m", &["bad", "good"], &deadline)).await;
    let chaos = json!({"seed": seed, "permille": PERMILLE, "kinds": faults(after)});
    stage.direct("bad", json!({"chaos": chaos}));
    let mut asked = tokio::task::JoinSet::new();
    let places = Arc::new(Semaphore::new(UNDER_WAY_MAX));
    let mut pace = tokio::time::interval(Duration::from_secs(1) / PER_SECOND);
    for number in 0..REQUESTS {
        pace.tick().await;
        let place = Arc::clone(&places).acquire_owned().await.unwrap();
        let stream = number % 2 == 0;
        let request = stage.gateway.chat_request(question("m", stream).to_string());
        asked.spawn(async move {
            let began = Instant::now();
            let got = match request.send().await.map(Answer::read) {
                Ok(answer) => answer.await.map_or(Got::Broken, |answer| got(&answer, stream)),
                Err(_none) => Got::Nonsense,
            };
            drop(place);
            (got, began.elapsed())
        });
    }
    let mut counted = BTreeMap::new();
    while let Some(ended) = asked.join_next().await {
        let (got, took) = ended.unwrap();
        assert!(took < DEADLINE + BUSY, "{got:?} took {took:?}");
        *counted.entry(got).or_insert(0) += 1;
    }
    assert_eq!(counted.values().sum::<u32>(), REQUESTS);
    (counted, stage)
}

fn got(answer: &Answer, stream: bool) -> Got {
    let whole = |text: &Value| text["choices"][0]["message"]["content"] == "You said: one two three";
    if answer.status != 200 {
        let error = &answer.json()["error"];
        return if error["message"].is_string() { Got::Refusal } else { Got::Nonsense };
    }
    if !stream || answer.header("content-type").starts_with("application/json") {
        return if whole(&answer.json()) { Got::Completion } else { Got::Nonsense };
    }
    let events = answer.events();
    let last = events.last().map(String::as_str).unwrap_or_default();
    let error = serde_json::from_str(last).is_ok_and(|event: Value| event["error"]["code"].is_string());
    let words = ["You", " said:", " one", " two", " three"];
    let said = words.iter().filter(|word| answer.text().contains(&format!("\"content\":\"{word}\""))).count();
    match last {
        "[DONE]" if said == words.len() => Got::Completion,
        _ if error => Got::ErrorEvent,
        _ => Got::Nonsense,
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn faults_before_content_are_hidden_from_the_clients() {
    let (counted, stage) = weather(4, false).await;
    let good = counted.get(&Got::Completion).copied().unwrap_or(0);
    report("before content", &counted);
    assert!(good * 100 >= REQUESTS * 99, "{counted:?}");
    assert!(!counted.contains_key(&Got::Nonsense), "{counted:?}");
    let rows = stage.simulator.books().rows;
    let spoilt = rows.iter().filter(|row| row.fault.is_some()).count();
    assert!(spoilt > 100, "only {spoilt} faults: this was no weather");
    assert!(rows.iter().any(|row| row.vendor == "good"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn faults_after_content_are_told_to_the_clients() {
    let (counted, _stage) = weather(5, true).await;
    report("before and after content", &counted);
    assert!(!counted.contains_key(&Got::Nonsense), "{counted:?}");
    assert!(counted.contains_key(&Got::ErrorEvent), "{counted:?}");
}

/// The control: without the healthy vendor the clients see the weather.
#[tokio::test]
async fn one_vendor_alone_does_not_hide_it() {
    let stage = Stage::start("", &[Vendor::openai("bad", "")], &model("m", &["bad"], "retries = 0")).await;
    let kinds = [json!({"kind": "status", "status": 500}), json!({"kind": "reset", "at": "headers"})];
    stage.direct("bad", json!({"chaos": {"seed": 4, "permille": PERMILLE, "kinds": kinds}}));
    let mut good = 0;
    for number in 0..200 {
        let stream = number % 2 == 0;
        let answer = send(stage.gateway.chat_request(question("m", stream).to_string())).await;
        good += u32::from(got(&answer, stream) == Got::Completion);
    }
    assert!(good * 100 < 200 * 99, "{good} of 200");
}

#[allow(clippy::print_stdout, reason = "the figures are for people")]
fn report(faults: &str, counted: &BTreeMap<Got, u32>) {
    println!("{REQUESTS} requests, faults {faults}: {counted:?}");
}
