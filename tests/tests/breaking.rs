//! A vendor that fails is left alone, is tried again with care, and leaves nothing behind.

#![allow(clippy::unwrap_used, reason = "a test fails by it")]

use serde_json::json;
use sluice_tests::Stage;
use sluice_tests::gateway::{PATIENCE, client, question, send};
use sluice_tests::stage::{Vendor, model};

/// Calls that hang at once.
const HUNG: usize = 1_000;
/// That 2,000 calls may leave behind; half a megabyte is what it differs by from round to round.
const HUNG_BYTES_MAX: u64 = 2 << 20;

/// Streams that are mapped at once, as documented.
const MAPPED_MAX: usize = 1_536;

/// A breaker and timers so wide that only what a test is about can happen.
fn patient(breaker: &str) -> String {
    format!(
        "timeouts = {{ headers = \"5m\", first_content = \"5m\", idle = \"5m\" }}\nbreaker = {{ {breaker} }}"
    )
}

/// Every attempt gets a connection of its own, and no answer.
fn resets(times: usize) -> serde_json::Value {
    json!({"faults": [{"kind": "reset", "at": "headers", "times": times}]})
}

#[tokio::test]
async fn five_failures_open_it_and_the_sixth_request_makes_no_connection() {
    let vendor = Vendor::openai("a", "breaker = { open_for = \"1h\" }");
    let stage = Stage::start("", &[vendor], &model("m", &["a"], "retries = 0")).await;
    stage.direct("a", resets(0));
    for failures in 1..=5 {
        assert_eq!(stage.breaker_state("a").await, "closed", "after {} failures", failures - 1);
        stage.ask("m", failures % 2 == 0).await.refused(502, "upstream_broken");
        assert_eq!(stage.simulator.books().connections.accepted, failures);
    }
    let row = stage.breaker("a").await;
    assert_eq!(row["state"], "open", "{row:#}");
    assert!(row["reason"].as_str().unwrap().contains("upstream_broken"), "{row:#}");
    assert!(row["probes_at"].as_str().unwrap().starts_with("20"), "{row:#}");
    for stream in [true, false] {
        let answer = stage.ask("m", stream).await;
        answer.refused(503, "breaker_open");
        let after: u64 = answer.header("retry-after").parse().unwrap();
        assert!((3_590..=3_600).contains(&after), "{after}");
    }
    assert_eq!(stage.simulator.books().connections.accepted, 5, "the sixth and the seventh made none");
    let open = "sluice_breaker_state{upstream=\"a\",gen_ai_request_model=\"m\",state=\"open\"}";
    assert_eq!(stage.metric(open).await, 1.0);
    // The control: the operator closes it, and the next request makes one.
    assert_eq!(stage.reset("a", "m").await.json()["state"], "closed");
    stage.ask("m", false).await.refused(502, "upstream_broken");
    assert_eq!(stage.simulator.books().connections.accepted, 6);
    stage.reset("a", "unknown").await.refused(404, "no_such_breaker");
}

/// Its time comes while many ask: three go, the others are told at once.
#[tokio::test]
async fn at_most_three_probes_go_and_two_good_ones_close_it() {
    let more = patient("failures = 1, open_for = \"100ms\"");
    let vendor = Vendor::openai("a", &more);
    let stage = Stage::start("", &[vendor], &model("m", &["a"], "retries = 0")).await;
    let hang = json!({"kind": "hang", "at": "headers", "times": 3});
    stage.direct("a", json!({"faults": [{"kind": "status", "status": 500}, hang]}));
    assert_eq!(stage.ask("m", false).await.status, 500);
    // Refused until its time has come; from then on three hang, and all others are refused.
    let (mut hung, mut refused) = (tokio::task::JoinSet::new(), 0);
    while stage.seen("a") < 4 || refused < 20 {
        let request = stage.gateway.chat_request(question("m", false).to_string());
        let mut asked = Box::pin(send(request));
        tokio::select! {
            answer = &mut asked => {
                answer.refused(503, "breaker_open");
                refused = if stage.seen("a") == 4 { refused + 1 } else { 0 };
            }
            rows = stage.arrived(stage.seen("a") + 1) => {
                assert!(rows.len() <= 4, "a fourth probe: {rows:#?}");
                hung.spawn(asked);
            }
        }
    }
    assert_eq!(hung.len(), 3);
    assert_eq!(stage.breaker_state("a").await, "half_open");
    // Clients that leave free their places, and say nothing of the vendor.
    hung.shutdown().await;
    stage.finished(4).await;
    assert_eq!(stage.ask("m", false).await.content(), "You said: one two three");
    assert_eq!(stage.breaker_state("a").await, "half_open");
    assert_eq!(stage.ask("m", true).await.status, 200);
    assert_eq!(stage.breaker_state("a").await, "closed");
}

/// Streams last for minutes; that the vendor serves is known with their first content.
#[tokio::test]
async fn a_probe_has_shown_all_with_its_first_content() {
    let more = patient("failures = 1, open_for = \"1ms\", probes = 1");
    let vendor = Vendor::openai("a", &more);
    let stage = Stage::start("", &[vendor], &model("m", &["a"], "retries = 0")).await;
    let hang =
        |events: u32, times: u32| json!({"kind": "hang", "at": "body", "events": events, "times": times});
    stage.direct("a", json!({"faults": [{"kind": "status", "status": 500}, hang(1, 1), hang(4, 3)]}));
    assert_eq!(stage.ask("m", false).await.status, 500);
    let stream = || stage.gateway.chat_request(question("m", true).to_string()).send();
    // One without content keeps the only place.
    let mut silent = Box::pin(stream());
    while stage.seen("a") < 2 {
        tokio::select! {
            _too_early = &mut silent => silent = Box::pin(stream()),
            _arrived = stage.arrived(2) => {}
        }
    }
    stage.ask("m", true).await.refused(503, "breaker_open");
    drop(silent);
    stage.finished(2).await;
    let first = stream().await.unwrap();
    assert_eq!(stage.breaker_state("a").await, "half_open");
    let second = stream().await.unwrap();
    assert_eq!(stage.breaker_state("a").await, "closed");
    // One that breaks later is a failure of now.
    stage.direct("a", json!({"faults": [{"kind": "cut", "events": 3}]}));
    assert_eq!(stage.ask("m", true).await.status, 200);
    assert_eq!(stage.breaker_state("a").await, "open");
    drop((first, second));
}

#[tokio::test]
async fn a_late_answer_from_before_decides_nothing() {
    let late = "timeouts = { headers = \"2s\" }\nbreaker = { failures = 1, open_for = \"1h\" }";
    let vendors = [Vendor::openai("good", late), Vendor::openai("bad", late)];
    let models = model("good", &["good"], "retries = 0") + &model("bad", &["bad"], "retries = 0");
    let stage = Stage::start("", &vendors, &models).await;
    stage.direct(
        "good",
        json!({"faults": [{"kind": "delay", "ms": 1000}, {"kind": "status", "status": 500}]}),
    );
    stage.direct(
        "bad",
        json!({"faults": [{"kind": "hang", "at": "headers"}, {"kind": "status", "status": 500}]}),
    );
    let slow = |name: &'static str| {
        let request = stage.gateway.chat_request(question(name, false).to_string());
        tokio::spawn(send(request))
    };
    let (good, bad) = (slow("good"), slow("bad"));
    stage.arrived(2).await;
    // Opened behind the back of both.
    assert_eq!(stage.ask("good", false).await.status, 500);
    assert_eq!(stage.ask("bad", false).await.status, 500);
    assert_eq!(
        (stage.breaker_state("good").await, stage.breaker_state("bad").await),
        ("open".into(), "open".into())
    );
    assert_eq!(stage.reset("bad", "bad").await.status, 200);
    assert_eq!(good.await.unwrap().status, 200, "the client gets it all the same");
    assert_eq!(stage.breaker_state("good").await, "open", "a good one does not close it");
    bad.await.unwrap().refused(504, "timeout_headers");
    assert_eq!(stage.breaker_state("bad").await, "closed", "a bad one does not open it");
    // The control: a failure of now does.
    stage.direct("bad", json!({"faults": [{"kind": "status", "status": 500}]}));
    assert_eq!(stage.ask("bad", false).await.status, 500);
    assert_eq!(stage.breaker_state("bad").await, "open");
}

#[tokio::test]
async fn two_hundred_throttled_streams_leave_the_vendor_as_it_was() {
    // What is refused costs nothing.
    let models = "[[models]]\nname = \"m\"\nretries = 0\ntargets = [{ upstream = \"a\", max_output = 1000, price = { input = \"1\", output = \"1\" } }]\n\
                  [[budgets]]\nname = \"everyone\"\nper = \"all\"\ncap_usd = \"1.00\"\n";
    let stage = Stage::start("", &[Vendor::openai("a", "")], models).await;
    let throttled = json!({"kind": "status", "status": 429, "headers": [["retry-after", "0"]], "times": 200});
    stage.direct("a", json!({"faults": [throttled]}));
    for _ in 0..200 {
        let answer = stage.ask("m", true).await;
        assert_eq!((answer.status.as_u16(), answer.header("retry-after")), (429, "0"));
    }
    assert_eq!(stage.seen("a"), 200);
    let answer = stage.ask("m", true).await;
    assert_eq!(answer.events().last().unwrap(), "[DONE]");
    let row = stage.breaker("a").await;
    assert_eq!((&row["state"], &row["rests"]), (&json!("closed"), &json!(null)), "{row:#}");
    let attempts = |outcome: &str| {
        format!("sluice_attempts_total{{upstream=\"a\",gen_ai_request_model=\"m\",outcome=\"{outcome}\"}}")
    };
    assert_eq!(stage.metric(&attempts("throttled")).await, 200.0);
    assert_eq!(stage.metric(&attempts("good")).await, 1.0);
    let books = stage.simulator.books();
    assert!(books.connections.open <= 2, "they share connections");
    let billed = books.rows[200].billed;
    let cost = (billed.prompt_tokens + billed.completion_tokens) * 1000;
    assert_eq!(stage.metric("sluice_spending_settled_nanodollars").await, cost as f64);
    assert_eq!(stage.metric("sluice_spending_holds").await, 0.0);
}

/// A target that asked for a pause is asked last, and a reload of the configuration forgets neither
/// that nor an open breaker.
#[tokio::test]
async fn rests_and_open_breakers_outlive_a_reload() {
    let vendors = [
        Vendor::openai("a", "breaker = { failures = 1, open_for = \"1h\" }"),
        Vendor::openai("b", ""),
        Vendor::openai("c", ""),
    ];
    let models = |retries: u32| model("m", &["a", "b", "c"], &format!("retries = {retries}"));
    let stage = Stage::start("", &vendors, &models(0)).await;
    stage.direct("a", resets(0));
    let throttled =
        json!({"kind": "status", "status": 429, "headers": [["retry-after", "3000"]], "times": 0});
    stage.direct("b", json!({"faults": [throttled]}));
    let seen = || ["a", "b", "c"].map(|vendor| stage.seen(vendor));
    assert_eq!(stage.ask("m", false).await.status, 200);
    assert_eq!(seen(), [1, 1, 1]);
    assert_eq!(stage.breaker("b").await["rests"]["reason"], "throttled");
    assert_eq!(stage.ask("m", false).await.status, 200);
    assert_eq!(seen(), [1, 1, 2]);
    stage.reconfigure("", &vendors, &models(2), 1);
    assert_eq!(stage.ask("m", false).await.status, 200);
    assert_eq!(seen(), [1, 1, 3]);
    assert_eq!(stage.breaker_state("a").await, "open");
    // The control: both are let in again.
    stage.reset("a", "m").await;
    stage.reset("b", "m").await;
    assert_eq!(stage.ask("m", false).await.status, 200);
    let [a, b, c] = seen();
    assert!(a > 1 && b > 1 && c == 4, "{:?}", (a, b, c));
}

/// A vendor that asked for a pause is better than none, and its wish is what the client is told.
#[tokio::test]
async fn who_rests_is_the_last_resort() {
    let vendors = [Vendor::openai("a", ""), Vendor::openai("b", "")];
    let stage = Stage::start("", &vendors, &model("m", &["a", "b"], "retries = 0")).await;
    let throttled = json!({"kind": "status", "status": 429, "headers": [["retry-after", "900"]]});
    stage.direct("a", json!({"faults": [throttled]}));
    stage.direct("b", json!({"faults": [{"kind": "status", "status": 500, "times": 2}]}));
    let answer = stage.ask("m", false).await;
    assert_eq!((answer.status.as_u16(), answer.header("retry-after")), (429, "900"));
    assert_eq!(stage.breaker("a").await["rests"]["reason"], "throttled");
    assert_eq!(stage.ask("m", false).await.status, 200);
    assert_eq!(stage.finished(4).await.pop().unwrap().vendor, "a", "after b had failed again");
    // The control: while b is well, a has its pause.
    assert_eq!(stage.ask("m", false).await.status, 200);
    assert_eq!((stage.seen("a"), stage.seen("b")), (2, 3));
}

/// A vendor that does not have the model, or no credit, is the operator's matter: others are asked,
/// and nobody is told of the account.
#[tokio::test]
async fn what_the_operator_has_to_mend_is_hidden_from_clients() {
    let vendors = [Vendor::openai("a", ""), Vendor::openai("b", "")];
    let models = model("two", &["a", "b"], "retries = 0") + &model("one", &["a"], "retries = 0");
    let stage = Stage::start("", &vendors, &models).await;
    for status in [401, 402, 403, 404, 405, 410] {
        let body = json!({"error": {"message": "our account"}}).to_string();
        stage
            .direct("a", json!({"faults": [{"kind": "status", "status": status, "body": body, "times": 2}]}));
        stage.reset("a", "two").await;
        assert_eq!(stage.ask("two", false).await.status, 200, "{status}");
        let answer = stage.ask("one", false).await;
        if status < 404 {
            answer.refused(502, "upstream_refused_credential");
        } else {
            assert_eq!(answer.status, status, "{answer:?}");
        }
        assert!(status >= 404 || !answer.text().contains("account"), "{answer:?}");
    }
    assert_eq!((stage.seen("a"), stage.seen("b")), (12, 6));
    // What is forbidden may be what is in one request: the vendor does not rest for it.
    stage.direct("a", json!({"faults": [{"kind": "status", "status": 403}]}));
    stage.reset("a", "two").await;
    assert_eq!(stage.ask("two", false).await.status, 200);
    assert_eq!(stage.ask("two", false).await.status, 200);
    assert_eq!((stage.seen("a"), stage.seen("b")), (14, 7));
    // What is forbidden to five in a row is forbidden to all.
    stage.direct("a", json!({"faults": [{"kind": "status", "status": 403, "times": 0}]}));
    for _ in 0..10 {
        assert_eq!(stage.ask("two", false).await.status, 200);
    }
    assert_eq!((stage.seen("a"), stage.seen("b")), (19, 17));
}

/// Neither a task nor a socket nor memory of a thousand calls that hung is there afterwards: those
/// that the gateway gave up, and those whose clients left.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_thousand_hung_calls_leave_nothing_behind() {
    let more = "timeouts = { headers = \"3s\", first_content = \"1m\" }\nbreaker = { failures = 1000 }";
    let vendor = Vendor::openai("a", more);
    let stage = Stage::start("", &[vendor], &model("m", &["a"], "retries = 0")).await;
    stage.direct("a", json!({"faults": [{"kind": "hang", "at": "headers", "times": 0}]}));
    let mut ended = 0;
    let mut round = async |leave: bool| {
        stage.reset("a", "m").await;
        let client = client(|builder| builder.pool_max_idle_per_host(0));
        let mut calls = tokio::task::JoinSet::new();
        for call in 0..HUNG {
            let request = client.post(stage.gateway.url("/v1/chat/completions"));
            calls.spawn(send(request.body(question("m", call % 2 == 0).to_string())));
        }
        ended += HUNG;
        if leave {
            stage.arrived(ended).await;
            calls.shutdown().await;
        }
        while let Some(answer) = calls.join_next().await {
            answer.unwrap().refused(504, "timeout_headers");
        }
        stage.finished(ended).await;
        drop(client);
        settled(&stage).await
    };
    // The first rounds fill pools and caches.
    round(false).await;
    let after_first = round(true).await;
    round(false).await;
    let after_last = round(true).await;
    assert_eq!(stage.seen("a"), 4 * HUNG);
    assert!(
        after_last.tasks > 0.0 && after_last.tasks <= after_first.tasks,
        "{after_first:?} {after_last:?}"
    );
    assert!(after_last.files <= after_first.files + 2, "{after_first:?} {after_last:?}");
    let grown = after_last.bytes.saturating_sub(after_first.bytes);
    assert!(grown <= HUNG_BYTES_MAX, "{after_first:?} {after_last:?}");
}

/// Streams that are mapped need room in the gateway: it is taken before the vendor is asked, and where
/// there is none, another target may do without.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stream_that_has_no_room_is_not_asked_for() {
    let mapped = Vendor { name: "a", adapter: "anthropic", more: "timeouts = { headers = \"5m\" }" };
    let models = model("two", &["a", "b"], "retries = 0") + &model("one", &["a"], "retries = 0");
    let stage = Stage::start("", &[mapped, Vendor::openai("b", "")], &models).await;
    stage.direct("a", json!({"faults": [{"kind": "hang", "at": "headers", "times": 0}]}));
    let client = client(|builder| builder.pool_max_idle_per_host(0));
    let mut calls = tokio::task::JoinSet::new();
    for _ in 0..MAPPED_MAX {
        let request = client.post(stage.gateway.url("/v1/chat/completions"));
        calls.spawn(send(request.body(question("one", true).to_string())));
    }
    stage.arrived(MAPPED_MAX).await;
    stage.ask("one", true).await.refused(503, "no_room");
    assert_eq!(stage.ask("two", true).await.status, 200);
    assert_eq!((stage.seen("a"), stage.seen("b")), (MAPPED_MAX, 1));
    // The control: whoever leaves makes room.
    calls.shutdown().await;
    stage.finished(MAPPED_MAX + 1).await;
    stage.direct("a", json!({}));
    assert_eq!(stage.ask("one", true).await.status, 200);
}

#[derive(Clone, Copy, Debug)]
struct Held {
    tasks: f64,
    files: usize,
    bytes: u64,
}

/// What the gateway holds once nothing runs but the connection that asks.
async fn settled(stage: &Stage) -> Held {
    let held = async || Held {
        tasks: stage.metric("sluice_tasks").await,
        files: stage.gateway.open_files(),
        bytes: stage.gateway.resident_bytes(),
    };
    let settled = async {
        loop {
            let now = held().await;
            if now.files < 100 && stage.simulator.books().connections.open == 0 {
                return now;
            }
        }
    };
    match tokio::time::timeout(PATIENCE, settled).await {
        Ok(held) => held,
        Err(_) => panic!("still held: {:?} {:?}", held().await, stage.simulator.books().connections),
    }
}
