//! A stop loses no answer: what runs is finished, what cannot be finished is said.

#![allow(clippy::unwrap_used, reason = "a test fails by it")]

use std::time::Duration;

use serde_json::{Value, json};
use sluice_simulate::Outcome;
use sluice_tests::gateway::{client, question};
use sluice_tests::stage::{Vendor, model};
use sluice_tests::{Answer, Stage};
use tokio::task::JoinSet;

const STREAMS: usize = 20;

/// Streams that have begun: each has had some bytes and not its last.
struct Begun(Vec<(Vec<u8>, reqwest::Response)>);

impl Begun {
    async fn streams(stage: &Stage, client: &reqwest::Client, streams: usize) -> Begun {
        let mut begun = JoinSet::new();
        for _ in 0..streams {
            let request = client.post(stage.gateway.url("/v1/chat/completions"));
            let request = request.body(question("m", true).to_string());
            begun.spawn(async {
                let mut response = request.send().await.unwrap();
                let first = response.chunk().await.unwrap().unwrap().to_vec();
                assert!(!String::from_utf8_lossy(&first).contains("[DONE]"));
                (first, response)
            });
        }
        let begun = begun.join_all().await;
        Begun(begun)
    }

    /// All that each has got; an error where it was cut.
    async fn rest(self) -> Vec<Result<String, String>> {
        let mut all = Vec::new();
        for (mut bytes, mut response) in self.0 {
            let ended = loop {
                match response.chunk().await {
                    Ok(Some(chunk)) => bytes.extend_from_slice(&chunk),
                    Ok(None) => break Ok(()),
                    Err(error) => break Err(error.to_string()),
                }
            };
            all.push(ended.map(|()| String::from_utf8_lossy(&bytes).into_owned()));
        }
        all
    }
}

async fn stage(drain: &str, fault: Value) -> Stage {
    let server = format!("drain = {{ {drain} }}");
    let stage = Stage::start(&server, &[Vendor::openai("a", "")], &model("m", &["a"], "")).await;
    stage.direct("a", json!({"faults": [fault]}));
    stage
}

/// Until `/ready` says no.
async fn unready(stage: &Stage) -> Answer {
    loop {
        let answer = stage.gateway.get("/ready").await;
        if answer.status != 200 {
            return answer;
        }
    }
}

async fn streams_finish(signal: &str, http2: bool) {
    let drip = json!({"kind": "drip", "ms": 500, "times": STREAMS});
    let stage = stage("notice = \"1s\", deadline = \"1m\"", drip).await;
    let client = client(|builder| if http2 { builder.http2_prior_knowledge() } else { builder.http1_only() });
    let begun = Begun::streams(&stage, &client, STREAMS).await;
    stage.gateway.signal(signal);
    if signal == "TERM" {
        // It says so first, and still serves.
        unready(&stage).await.refused(503, "draining");
        assert_eq!(stage.ask("m", false).await.status, 200);
    }
    stage.gateway.wait_for("draining", 1);
    let rows = stage.simulator.books().rows;
    let under_way = rows.iter().filter(|row| row.outcome.is_none()).count();
    assert_eq!(under_way, STREAMS, "none has had its last event");
    for text in begun.rest().await {
        assert!(text.as_ref().is_ok_and(|text| text.contains("[DONE]")), "{text:?}");
    }
    let Stage { gateway, simulator } = stage;
    let address = gateway.address().to_owned();
    let (code, log) = gateway.ended();
    assert_eq!(code, Some(0), "{log}");
    assert!(log.contains("all answers were complete"), "{log}");
    assert!(tokio::net::TcpStream::connect(address).await.is_err(), "nobody listens");
    let rows = simulator.books().rows;
    assert!(rows.len() >= STREAMS && rows.iter().all(|row| row.outcome == Some(Outcome::Complete)));
}

#[tokio::test]
async fn term_lets_twenty_streams_finish() {
    streams_finish("TERM", false).await;
}

#[tokio::test]
async fn term_lets_twenty_streams_of_one_connection_finish() {
    streams_finish("TERM", true).await;
}

#[tokio::test]
async fn an_interrupt_lets_them_finish_without_notice() {
    streams_finish("INT", false).await;
}

/// `stuck` has had an event and gets no other; the others are whole.
#[tokio::test]
async fn a_stuck_stream_is_cut_at_the_deadline_and_it_is_said() {
    let stuck = json!({"kind": "hang", "at": "body", "events": 3});
    let stage = stage("notice = \"100ms\", deadline = \"1s\"", stuck).await;
    let client = client(|builder| builder);
    let begun = Begun::streams(&stage, &client, 1).await;
    stage.direct("a", json!({"faults": [{"kind": "drip", "ms": 20, "times": 5}]}));
    let whole = Begun::streams(&stage, &client, 5).await;
    stage.gateway.signal("TERM");
    let texts = whole.rest().await;
    assert!(texts.iter().all(|text| text.as_ref().is_ok_and(|text| text.contains("[DONE]"))), "{texts:?}");
    assert!(begun.rest().await[0].is_err(), "the stuck one is cut");
    let (code, log) = stage.gateway.ended();
    assert_eq!(code, Some(3), "{log}");
    assert!(log.contains("connections were cut") && log.contains("connections=1"), "{log}");
}

#[tokio::test]
async fn a_second_signal_is_immediate() {
    for (first, second) in [("TERM", "TERM"), ("TERM", "INT"), ("INT", "INT")] {
        let stuck = json!({"kind": "hang", "at": "body", "events": 3});
        // Without it this would last for an hour.
        let stage = stage("notice = \"30m\", deadline = \"30m\"", stuck).await;
        let client = client(|builder| builder);
        let begun = Begun::streams(&stage, &client, 1).await;
        stage.gateway.signal(first);
        stage.gateway.wait_for("draining", 1);
        stage.gateway.signal(second);
        assert!(begun.rest().await[0].is_err());
        let (code, log) = stage.gateway.ended();
        assert_eq!(code, Some(3), "{first} {second}: {log}");
    }
}

/// Connections that rest are closed by a second signal, not cut; and whoever asks after the first
/// one learns that its connection ends.
#[tokio::test]
async fn a_second_signal_with_nothing_under_way_is_clean() {
    let stage = stage("notice = \"30m\", deadline = \"30m\"", json!({"kind": "no_usage"})).await;
    let clients = [
        client(|builder| builder),
        client(|builder| builder),
        client(|builder| builder.http2_prior_knowledge()),
    ];
    for client in &clients {
        let answer = client.get(stage.gateway.url("/health")).send().await.unwrap();
        assert!(!answer.headers().contains_key("connection"), "{answer:?}");
    }
    stage.gateway.signal("TERM");
    stage.gateway.wait_for("draining", 1);
    let answer = clients[0].get(stage.gateway.url("/health")).send().await.unwrap();
    assert_eq!(answer.headers()["connection"], "close");
    stage.gateway.signal("TERM");
    // The clients have a word to say in it.
    let (code, log) = tokio::task::spawn_blocking(|| stage.gateway.ended()).await.unwrap();
    assert_eq!(code, Some(0), "{log}");
    assert!(!log.contains("were cut"), "{log}");
    drop(clients);
}

/// A connection that rests is no reason to wait, nor is one that has sent half a head.
#[tokio::test]
async fn who_asks_nothing_is_not_waited_for() {
    let stage = stage("notice = \"1ms\", deadline = \"30m\"", json!({"kind": "no_usage"})).await;
    let http2 = client(|builder| builder.http2_prior_knowledge());
    for client in [&client(|builder| builder), &http2] {
        assert_eq!(client.get(stage.gateway.url("/health")).send().await.unwrap().status(), 200);
    }
    let silent = tokio::net::TcpStream::connect(stage.gateway.address()).await.unwrap();
    stage.gateway.signal("TERM");
    let ended = tokio::task::spawn_blocking(|| stage.gateway.ended());
    let (code, log) = tokio::time::timeout(Duration::from_secs(60), ended).await.unwrap().unwrap();
    assert_eq!(code, Some(0), "{log}");
    drop((silent, http2));
}
