//! A client that leaves is gone for the vendor too, and one that does not read holds up nobody.

#![allow(clippy::unwrap_used, reason = "a test fails by it")]

use serde_json::{Value, json};
use sluice_simulate::Outcome;
use sluice_tests::Stage;
use sluice_tests::gateway::{client, question, send};
use sluice_tests::stage::{Vendor, model};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

/// No timer ends what these tests wait for.
const FAR: &str = "timeouts = { headers = \"10m\", first_content = \"10m\", idle = \"10m\" }";

/// Where a vendor falls silent, and whether the client asks for a stream.
fn silences() -> Vec<(Value, bool)> {
    let at = |at: &str, events: u32| json!({"kind": "hang", "at": at, "events": events});
    vec![
        (at("headers", 0), true),
        (at("headers", 0), false),
        (at("body", 0), true),
        (at("body", 1), true),
        (at("body", 6), true),
        (at("body", 0), false),
        (at("body", 1), false),
        (json!({"kind": "drip", "ms": 200}), true),
        (json!({"kind": "drip", "ms": 200}), false),
        (json!({"kind": "delay", "ms": 60_000}), true),
    ]
}

async fn leaves(adapter: &str, version: &str) {
    let vendor = Vendor { name: "a", adapter, more: FAR };
    let stage = Stage::start("", &[vendor], &model("m", &["a"], "retries = 0")).await;
    let client = client(|builder| match version {
        "h2" => builder.http2_prior_knowledge(),
        _ => builder.http1_only(),
    });
    for (number, (fault, stream)) in (1..).zip(silences()) {
        stage.direct("a", json!({"faults": [fault]}));
        let request = client.post(stage.gateway.url("/v1/chat/completions"));
        let asked = tokio::spawn(send(request.body(question("m", stream).to_string())));
        stage.arrived(number).await;
        asked.abort();
        let row = stage.finished(number).await.pop().unwrap();
        assert!(row.left_after_ms.is_some(), "{fault} {stream}: {row:#?}");
    }
    let left = "sluice_attempts_total{upstream=\"a\",gen_ai_request_model=\"m\",outcome=\"client_left\"}";
    assert_eq!(stage.metric(left).await, silences().len() as f64);
    assert_eq!(stage.breaker_state("a").await, "closed", "the vendor has done nothing wrong");
    assert_eq!(stage.ask("m", true).await.status, 200);
}

#[tokio::test]
async fn a_client_that_leaves_is_gone_for_the_vendor() {
    leaves("openai", "h1").await;
}

#[tokio::test]
async fn a_stream_that_a_client_resets_is_gone_for_the_vendor() {
    leaves("openai", "h2").await;
}

#[tokio::test]
async fn a_client_that_leaves_is_gone_for_a_vendor_that_is_mapped() {
    leaves("anthropic", "h1").await;
}

/// Who leaves while the same target is to be asked again, is not asked for.
#[tokio::test]
async fn no_retry_is_made_for_who_has_left() {
    let stage = Stage::start("", &[Vendor::openai("a", "")], &model("m", &["a"], "")).await;
    let pause = json!({"kind": "status", "status": 503, "headers": [["retry-after", "2"]], "times": 0});
    stage.direct("a", json!({"faults": [pause]}));
    let asked = tokio::spawn(send(stage.gateway.chat_request(question("m", false).to_string())));
    stage.finished(1).await;
    asked.abort();
    // A second client's retry comes after the first one's would have come.
    assert_eq!(stage.ask("m", false).await.status, 503);
    assert_eq!(stage.seen("a"), 3);
}

/// 200,000 events (some 40 MB) wait for a reader that takes none of them: they wait with the vendor, not in
/// the gateway, and after a while nobody waits.
#[tokio::test]
async fn a_reader_that_takes_nothing_is_let_go() {
    for adapter in ["openai", "anthropic"] {
        let vendor = Vendor { name: "a", adapter, more: "" };
        let server = "timeouts = { stalled_reader = \"1s\" }";
        let stage = Stage::start(server, &[vendor], &model("m", &["a"], "")).await;
        stage.direct("a", json!({"faults": [{"kind": "ignore_limit", "words": 200_000}]}));
        let before = stage.gateway.resident_bytes();
        let body = question("m", true).to_string();
        let mut reader = TcpStream::connect(stage.gateway.address()).await.unwrap();
        reader.write_all((head_of(&body) + &body).as_bytes()).await.unwrap();
        let row = stage.finished(1).await.pop().unwrap();
        assert_eq!(row.outcome, Some(Outcome::ClientGone), "{row:#?}");
        assert!(row.bytes_sent < 20 << 20, "{} bytes wait somewhere", row.bytes_sent);
        let grown = stage.gateway.resident_bytes().saturating_sub(before);
        assert!(grown < 20 << 20, "the gateway holds {grown} bytes more");
        stage.gateway.wait_for("server.timeouts.stalled_reader", 1);
        // The control: a reader that does take them is served to the end.
        stage.direct("a", json!({"faults": [{"kind": "ignore_limit", "words": 5_000}]}));
        let mut slow = TcpStream::connect(stage.gateway.address()).await.unwrap();
        slow.write_all((head_of(&body) + &body).as_bytes()).await.unwrap();
        let (mut tail, mut piece) = (Vec::new(), vec![0; 64 << 10]);
        while !tail.ends_with(b"0\r\n\r\n") {
            let bytes = slow.read(&mut piece).await.unwrap();
            assert_ne!(bytes, 0, "it was cut");
            tail.extend_from_slice(&piece[..bytes]);
            tail.drain(..tail.len().saturating_sub(64));
        }
        assert!(String::from_utf8_lossy(&tail).contains("[DONE]"));
    }
}

/// The same on HTTP/2, where pings keep the connection alive and the window stays shut.
#[tokio::test]
async fn a_stream_that_takes_nothing_is_let_go() {
    for adapter in ["openai", "anthropic"] {
        let vendor = Vendor { name: "a", adapter, more: "" };
        let server = "timeouts = { stalled_reader = \"1s\" }";
        let stage = Stage::start(server, &[vendor], &model("m", &["a"], "")).await;
        stage.direct("a", json!({"faults": [{"kind": "ignore_limit", "words": 200_000}]}));
        let client =
            client(|builder| builder.http2_prior_knowledge().http2_initial_stream_window_size(65_535));
        let request = client.post(stage.gateway.url("/v1/chat/completions"));
        let mut response = request.body(question("m", true).to_string()).send().await.unwrap();
        let row = stage.finished(1).await.pop().unwrap();
        assert_eq!(row.outcome, Some(Outcome::ClientGone), "{row:#?}");
        assert!(row.bytes_sent < 20 << 20, "{} bytes wait somewhere", row.bytes_sent);
        stage.gateway.wait_for("server.timeouts.stalled_reader", 1);
        // Its connection is closed: it cannot take what it got for the whole.
        let ended = loop {
            match response.chunk().await {
                Ok(Some(_)) => {}
                Ok(None) => break true,
                Err(_reset) => break false,
            }
        };
        assert!(!ended);
        assert!(stage.simulator.books().connections.open <= 1);
        let before = stage.metric("sluice_tasks").await;
        assert!(before > 0.0 && before < 10.0, "{before} tasks are left");
    }
}

/// The vendor has said all, and the client takes none of it: nobody waits for that either.
#[tokio::test]
async fn a_client_that_does_not_take_the_last_of_it_is_let_go() {
    let server = "timeouts = { stalled_reader = \"1s\" }";
    let stage = Stage::start(server, &[Vendor::openai("a", "")], &model("m", &["a"], "")).await;
    stage.direct("a", json!({"faults": [{"kind": "huge_frame", "bytes": 300_000}]}));
    let client = client(|builder| builder.http2_prior_knowledge().http2_initial_stream_window_size(65_535));
    let request = client.post(stage.gateway.url("/v1/chat/completions"));
    let response = request.body(question("m", true).to_string()).send().await.unwrap();
    assert_eq!(stage.finished(1).await[0].outcome, Some(Outcome::Complete));
    stage.gateway.wait_for("server.timeouts.stalled_reader", 1);
    assert!(response.bytes().await.is_err(), "its connection is closed");
}

/// Slow is not stalled: each event is larger than what such a reader takes in the time.
#[tokio::test]
async fn a_slow_reader_of_large_events_is_served() {
    let server = "timeouts = { stalled_reader = \"3s\" }";
    let stage = Stage::start(server, &[Vendor::openai("a", "")], &model("m", &["a"], "")).await;
    let bytes = 900_000;
    stage.direct("a", json!({"faults": [{"kind": "huge_frame", "bytes": bytes}]}));
    let body = question("m", true).to_string();
    let mut slow = TcpStream::connect(stage.gateway.address()).await.unwrap();
    slow.write_all((head_of(&body) + &body).as_bytes()).await.unwrap();
    // About 200 kB in a second.
    let mut pace = tokio::time::interval(std::time::Duration::from_millis(40));
    let (mut read, mut tail, mut piece) = (0, Vec::new(), vec![0; 8 << 10]);
    while !tail.ends_with(b"0\r\n\r\n") {
        pace.tick().await;
        let got = slow.read(&mut piece).await.unwrap();
        assert_ne!(got, 0, "it was cut after {read} bytes");
        read += got;
        tail.extend_from_slice(&piece[..got]);
        tail.drain(..tail.len().saturating_sub(64));
    }
    assert!(read > bytes);
}

fn head_of(body: &str) -> String {
    format!("POST /v1/chat/completions HTTP/1.1\r\nhost: localhost\r\ncontent-length: {}\r\n\r\n", body.len())
}
