//! Each fault does what it is called, and the books say so.

#![allow(clippy::unwrap_used, reason = "a test fails by it")]

mod common;

use std::io::ErrorKind;
use std::time::{Duration, Instant};

use bytes::Bytes;
use common::{Answer, ask, chat, only_row, post, scripted, soon};
use http_body_util::{BodyExt, Full};
use hyper_util::rt::{TokioExecutor, TokioIo};
use serde_json::{Value, json};
use sluice_simulate::{Billed, FaultKind, Goal, Outcome, Simulator};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

async fn with_fault(fault: Value) -> Simulator {
    scripted(json!({ "faults": [fault] })).await
}

/// The text of an answer but for what differs from request to request.
fn without_id(answer: &Answer, stream: bool) -> Vec<Value> {
    let forget = |data: &str| {
        let mut value: Value = data.parse().unwrap_or(json!(data));
        if let Some(object) = value.as_object_mut() {
            object.remove("id");
            object.remove("created");
        }
        value
    };
    match stream {
        true => answer.events().iter().map(|data| forget(data)).collect(),
        false => vec![forget(str::from_utf8(&answer.body()).unwrap())],
    }
}

#[tokio::test]
async fn a_status_is_answered_with_its_headers_and_body_then_all_is_well() {
    let simulator = scripted(json!({ "faults": [
        { "kind": "status", "status": 429, "headers": [["retry-after", "1"], ["x-a", "b"]] },
        { "kind": "status", "status": 503, "headers": [["content-type", "text/html"]], "body": "<p>no</p>" },
    ] }))
    .await;
    let limited = ask(&simulator, &chat(true)).await;
    assert_eq!((limited.status, &limited.json()["error"]["code"]), (429, &json!("rate_limit_exceeded")));
    assert!(limited.head.contains("retry-after: 1\r\nx-a: b"), "{}", limited.head);
    let down = ask(&simulator, &chat(false)).await;
    assert_eq!((down.status, down.body()), (503, b"<p>no</p>".to_vec()));
    assert!(down.head.contains("content-type: text/html") && !down.head.contains("application/json"));
    assert_eq!(ask(&simulator, &chat(false)).await.status, 200);
    let books = simulator.books();
    let outcomes: Vec<_> = books.rows.iter().map(|row| row.outcome.unwrap().to_string()).collect();
    assert_eq!(outcomes, ["fault:status", "fault:status", "complete"]);
    assert_eq!((books.rows[0].billed, books.rows[1].billed), (Billed::default(), Billed::default()));
}

#[tokio::test]
async fn a_delay_delays_and_then_answers() {
    let simulator = with_fault(json!({ "kind": "delay", "ms": 50 })).await;
    let begin = Instant::now();
    let answer = ask(&simulator, &chat(false)).await;
    assert!(begin.elapsed() >= Duration::from_millis(50));
    assert_eq!(answer.status, 200);
    let row = only_row(&simulator).await;
    assert_eq!((row.fault, row.outcome), (Some(FaultKind::Delay), Some(Outcome::Complete)));
}

#[tokio::test]
async fn a_split_changes_the_chunks_and_not_the_answer() {
    for stream in [false, true] {
        for bytes in [1, 7] {
            let simulator = with_fault(json!({ "kind": "split", "bytes": bytes })).await;
            let split = ask(&simulator, &chat(stream)).await;
            let plain = ask(&simulator, &chat(stream)).await;
            let (last, others) = split.chunks.split_last().unwrap();
            assert!(others.iter().all(|chunk| chunk.len() == bytes) && last.len() <= bytes);
            assert_eq!(without_id(&split, stream), without_id(&plain, stream));
            let rows = soon(simulator.books_when(Goal::Finished(2))).await.rows;
            assert_eq!(rows[0].billed, rows[1].billed);
            assert_eq!(rows[0].bytes_sent, split.body().len() as u64);
            assert_eq!((rows[0].fault, rows[0].outcome), (Some(FaultKind::Split), Some(Outcome::Complete)));
        }
    }
}

#[tokio::test]
async fn a_reset_at_the_headers_sends_nothing() {
    let simulator = with_fault(json!({ "kind": "reset", "at": "headers" })).await;
    let answer = ask(&simulator, &chat(true)).await;
    assert_eq!((answer.error, answer.status), (Some(ErrorKind::ConnectionReset), 0));
    let row = only_row(&simulator).await;
    assert_eq!((row.status, row.bytes_sent, row.billed), (None, 0, Billed::default()));
    assert_eq!(row.outcome, Some(Outcome::Fault(FaultKind::Reset)));
}

#[tokio::test]
async fn a_reset_in_the_body_comes_after_that_many_events() {
    for (events, tokens) in [(1, 0), (3, 2)] {
        let simulator = with_fault(json!({ "kind": "reset", "at": "body", "events": events })).await;
        let answer = ask(&simulator, &chat(true)).await;
        assert_eq!((answer.error, answer.status), (Some(ErrorKind::ConnectionReset), 200));
        assert_eq!(answer.events().len(), events);
        let row = only_row(&simulator).await;
        assert_eq!(row.billed, Billed { prompt_tokens: 2, completion_tokens: tokens });
        assert_eq!(row.outcome, Some(Outcome::Fault(FaultKind::Reset)));
    }
}

#[tokio::test]
async fn a_reset_in_a_whole_body_leaves_half_of_the_announced_length() {
    let simulator = with_fault(json!({ "kind": "reset", "at": "body" })).await;
    let answer = ask(&simulator, &chat(false)).await;
    assert_eq!(answer.error, Some(ErrorKind::ConnectionReset));
    let announced = answer.head.split("content-length: ").nth(1).unwrap();
    let announced: usize = announced.lines().next().unwrap().parse().unwrap();
    assert_eq!(answer.body().len(), announced / 2);
}

#[tokio::test]
async fn a_hang_at_the_headers_lasts_until_the_client_leaves() {
    let simulator = with_fault(json!({ "kind": "hang", "at": "headers" })).await;
    let mut stream = TcpStream::connect(simulator.address()).await.unwrap();
    stream.write_all(post(&chat(true).to_string()).as_bytes()).await.unwrap();
    let books = soon(simulator.books_when(Goal::Arrived(1))).await;
    assert_eq!((books.rows[0].status, books.rows[0].outcome), (None, None));
    drop(stream);
    let row = only_row(&simulator).await;
    assert_eq!((row.status, row.outcome), (None, Some(Outcome::Fault(FaultKind::Hang))));
}

#[tokio::test]
async fn a_hang_in_the_body_sends_the_first_event_and_no_more() {
    let simulator = with_fault(json!({ "kind": "hang", "at": "body" })).await;
    let mut stream = TcpStream::connect(simulator.address()).await.unwrap();
    stream.write_all(post(&chat(true).to_string()).as_bytes()).await.unwrap();
    let mut bytes = Vec::new();
    while common::parse(&bytes, None).events().is_empty() {
        assert_ne!(soon(stream.read_buf(&mut bytes)).await.unwrap(), 0);
    }
    assert_eq!(common::parse(&bytes, None).events().len(), 1);
    assert_eq!(simulator.books().rows[0].outcome, None);
    drop(stream);
    let row = only_row(&simulator).await;
    assert_eq!((row.status, row.outcome), (Some(200), Some(Outcome::Fault(FaultKind::Hang))));
    assert_eq!(row.billed, Billed { prompt_tokens: 2, completion_tokens: 0 });
}

#[tokio::test]
async fn a_client_that_leaves_is_billed_for_what_was_sent() {
    // Far more than fits in the buffers of a socket nobody reads.
    let reply = "word ".repeat(100_000);
    let simulator = scripted(json!({ "reply": reply })).await;
    let mut stream = TcpStream::connect(simulator.address()).await.unwrap();
    stream.write_all(post(&chat(true).to_string()).as_bytes()).await.unwrap();
    soon(stream.read_exact(&mut [0; 4096])).await.unwrap();
    drop(stream);
    let row = only_row(&simulator).await;
    assert_eq!(row.outcome, Some(Outcome::ClientGone));
    assert!((1..100_000).contains(&row.billed.completion_tokens), "{:?}", row.billed);
}

#[tokio::test]
async fn a_client_that_never_ends_its_request_is_gone() {
    let simulator = scripted(json!({})).await;
    let mut stream = TcpStream::connect(simulator.address()).await.unwrap();
    let request = post(&chat(true).to_string());
    stream.write_all(&request.as_bytes()[..request.len() - 1]).await.unwrap();
    soon(simulator.books_when(Goal::Arrived(1))).await;
    drop(stream);
    let row = only_row(&simulator).await;
    assert_eq!((row.status, row.outcome), (None, Some(Outcome::ClientGone)));
}

type Http2Sender = hyper::client::conn::http2::SendRequest<Full<Bytes>>;
type Http2Connection = tokio::task::JoinHandle<hyper::Result<()>>;

async fn http2(simulator: &Simulator) -> (Http2Sender, Http2Connection) {
    let stream = TcpStream::connect(simulator.address()).await.unwrap();
    let handshake = hyper::client::conn::http2::handshake(TokioExecutor::new(), TokioIo::new(stream));
    let (sender, connection) = handshake.await.unwrap();
    (sender, tokio::spawn(connection))
}

fn http2_request(simulator: &Simulator) -> http::Request<Full<Bytes>> {
    http::Request::post(format!("{}/chat/completions", simulator.base_url("a")))
        .header("authorization", "Bearer k")
        .body(Full::new(Bytes::from(chat(true).to_string())))
        .unwrap()
}

#[tokio::test]
async fn over_http2_a_stream_that_the_client_leaves_is_noticed_alone() {
    let simulator = scripted(json!({ "faults": [
        { "kind": "hang", "at": "headers" },
        { "kind": "hang", "at": "body" },
    ] }))
    .await;
    let (mut sender, _connection) = http2(&simulator).await;
    let waiting = tokio::spawn(sender.send_request(http2_request(&simulator)));
    soon(simulator.books_when(Goal::Arrived(1))).await;
    waiting.abort();
    soon(simulator.books_when(Goal::Finished(1))).await;
    let mut body = soon(sender.send_request(http2_request(&simulator))).await.unwrap().into_body();
    soon(body.frame()).await.unwrap().unwrap();
    drop(body);
    soon(simulator.books_when(Goal::Finished(2))).await;
    assert_eq!(soon(sender.send_request(http2_request(&simulator))).await.unwrap().status(), 200);
    let rows = simulator.books().rows;
    assert!(rows[..2].iter().all(|row| row.outcome == Some(Outcome::Fault(FaultKind::Hang))));
    assert!(rows.iter().all(|row| row.connection == rows[0].connection));
}

#[tokio::test]
async fn over_http2_a_split_is_frames_and_a_reset_ends_the_connection() {
    let simulator = scripted(json!({ "faults": [
        { "kind": "split", "bytes": 1 },
        { "kind": "reset", "at": "body", "events": 2 },
    ] }))
    .await;
    let (mut sender, connection) = http2(&simulator).await;
    let mut body = soon(sender.send_request(http2_request(&simulator))).await.unwrap().into_body();
    while let Some(frame) = soon(body.frame()).await {
        let data = frame.unwrap().into_data().unwrap();
        assert!(data.len() <= 1, "{data:?}"); // the last frame may be an empty one
    }
    let mut body = soon(sender.send_request(http2_request(&simulator))).await.unwrap().into_body();
    let mut bytes = Vec::new();
    let failed = loop {
        match soon(body.frame()).await {
            Some(Ok(frame)) => bytes.extend(frame.into_data().unwrap()),
            Some(Err(_)) => break true,
            None => break false,
        }
    };
    assert!(failed);
    assert_eq!(String::from_utf8(bytes).unwrap().matches("data: ").count(), 2);
    assert!(soon(connection).await.unwrap().is_err());
    let rows = soon(simulator.books_when(Goal::Finished(2))).await.rows;
    let outcomes: Vec<_> = rows.iter().map(|row| row.outcome.unwrap().to_string()).collect();
    assert_eq!(outcomes, ["complete", "fault:reset"]);
}
