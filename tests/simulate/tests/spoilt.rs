//! Faults that spoil an answer, on both wires: what a client gets, and what is booked.

#![allow(clippy::unwrap_used, reason = "a test fails by it")]

mod common;

use std::time::{Duration, Instant};

use common::{Answer, ask, ask_message, chat, exchange, message, post, post_message, scripted, soon};
use serde_json::{Value, json};
use sluice_simulate::{Goal, Outcome, Row, Simulator};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

/// A wire, for tests that hold on both.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Wire {
    OpenAi,
    Anthropic,
}

const WIRES: [Wire; 2] = [Wire::OpenAi, Wire::Anthropic];

impl Wire {
    fn body(self, stream: bool) -> Value {
        match self {
            Wire::OpenAi => {
                let mut body = chat(stream);
                if stream {
                    body["stream_options"] = json!({ "include_usage": true });
                }
                body
            }
            Wire::Anthropic => message(stream),
        }
    }

    fn post(self, stream: bool) -> String {
        let body = self.body(stream).to_string();
        match self {
            Wire::OpenAi => post(&body),
            Wire::Anthropic => post_message(&body),
        }
    }

    /// The answer to a request that meets this fault, and its row.
    async fn meet(self, fault: Value, stream: bool) -> (Answer, Row) {
        let simulator = scripted(json!({ "faults": [fault] })).await;
        let answer = exchange(simulator.address(), &self.post(stream)).await;
        let row = soon(simulator.books_when(Goal::Finished(1))).await.rows.remove(0);
        (answer, row)
    }

    /// How its last event looks in a stream.
    fn end(self) -> &'static str {
        match self {
            Wire::OpenAi => "data: [DONE]\n\n",
            Wire::Anthropic => "event: message_stop\ndata: {\"type\":\"message_stop\"}\n\n",
        }
    }
}

fn text_of(answer: &Answer) -> String {
    String::from_utf8(answer.body()).unwrap()
}

fn outcome(row: &Row) -> String {
    row.outcome.unwrap().to_string()
}

/// Events of any kind, broken ones included.
fn events(answer: &Answer) -> usize {
    text_of(answer).matches("data: ").count()
}

#[tokio::test]
async fn malformed_json_is_one_event_of_a_stream_that_goes_on() {
    for wire in WIRES {
        let (answer, row) = wire.meet(json!({ "kind": "malformed_json", "events": 3 }), true).await;
        assert_eq!((answer.status, answer.error), (200, None));
        assert!(text_of(&answer).ends_with(wire.end()));
        let lost = if wire == Wire::OpenAi { 2 } else { 1 }; // [DONE] is no JSON either
        assert_eq!(answer.json_events().len(), events(&answer) - lost);
        assert_eq!((outcome(&row).as_str(), row.billed.completion_tokens), ("fault:malformed_json", 4));
        let (answer, row) = wire.meet(json!({ "kind": "malformed_json" }), false).await;
        assert_eq!((answer.status, answer.error), (200, None));
        assert!(serde_json::from_slice::<Value>(&answer.body()).is_err());
        assert!(answer.head.contains(&format!("content-length: {}", answer.body().len())));
        assert_eq!(outcome(&row), "fault:malformed_json");
    }
}

#[tokio::test]
async fn malformed_sse_ends_in_bytes_that_are_no_text() {
    for wire in WIRES {
        let (answer, row) = wire.meet(json!({ "kind": "malformed_sse", "events": 2 }), true).await;
        assert_eq!((answer.status, answer.error, answer.json_events().len()), (200, None, 2));
        let body = answer.body();
        let garbage = &body[body.iter().rposition(|byte| *byte == b'\n').unwrap() + 1..];
        assert!(garbage.len() > 10 && str::from_utf8(garbage).is_err());
        assert_eq!(outcome(&row), "fault:malformed_sse");
        let (answer, _) = wire.meet(json!({ "kind": "malformed_sse" }), false).await;
        assert!(answer.status == 200 && str::from_utf8(&answer.body()).is_err());
    }
}

#[tokio::test]
async fn an_error_in_200_wears_the_wires_own_form() {
    for (wire, usual) in [(Wire::OpenAi, "server_error"), (Wire::Anthropic, "overloaded_error")] {
        for before in [0, 3] {
            let (answer, row) = wire.meet(json!({ "kind": "error_in_200", "events": before }), true).await;
            assert_eq!((answer.status, answer.error), (200, None));
            let events = answer.json_events();
            assert_eq!((events.len(), &events[before]["error"]["type"]), (before + 1, &json!(usual)));
            assert_eq!(text_of(&answer).contains("event: error\n"), wire == Wire::Anthropic);
            assert!(!text_of(&answer).contains(wire.end()));
            assert_eq!(
                (outcome(&row).as_str(), row.billed.prompt_tokens > 0),
                ("fault:error_in_200", before > 0)
            );
        }
        let fault = json!({ "kind": "error_in_200", "error_type": "odd_error" });
        let (answer, row) = wire.meet(fault, false).await;
        assert_eq!((answer.status, &answer.json()["error"]["type"]), (200, &json!("odd_error")));
        assert_eq!(row.billed.prompt_tokens, 0);
    }
}

#[tokio::test]
async fn a_whole_answer_comes_to_who_asked_for_a_stream() {
    for wire in WIRES {
        let (answer, row) = wire.meet(json!({ "kind": "unstreamed" }), true).await;
        assert!(answer.head.contains("content-type: application/json"));
        assert!(answer.json()["usage"].is_object());
        assert_eq!(
            (row.stream, row.outcome, row.billed.completion_tokens),
            (Some(true), Some(Outcome::Complete), 4)
        );
    }
}

#[tokio::test]
async fn usage_is_missing_or_wrong_and_the_bill_is_right() {
    for wire in WIRES {
        for stream in [false, true] {
            let (answer, row) = wire.meet(json!({ "kind": "no_usage" }), stream).await;
            assert!(!text_of(&answer).contains("usage"), "{}", text_of(&answer));
            assert_eq!((row.billed.prompt_tokens, row.billed.completion_tokens), (2, 4));
            let (answer, row) = wire.meet(json!({ "kind": "wrong_usage" }), stream).await;
            let text = text_of(&answer);
            let told =
                ["prompt_tokens\":1,", "completion_tokens\":1,", "input_tokens\":1,", "output_tokens\":1,"];
            assert_eq!(told.iter().filter(|told| text.contains(**told)).count(), 2, "{text}");
            assert_eq!((row.billed.prompt_tokens, row.billed.completion_tokens), (2, 4));
            assert_eq!(row.outcome, Some(Outcome::Complete));
        }
    }
}

#[tokio::test]
async fn a_limit_is_ignored_and_the_end_looks_normal() {
    for wire in WIRES {
        for stream in [false, true] {
            let simulator = scripted(json!({ "faults": [{ "kind": "ignore_limit", "words": 50 }] })).await;
            let mut body = wire.body(stream);
            body["max_tokens"] = json!(3);
            let answer = match wire {
                Wire::OpenAi => ask(&simulator, &body).await,
                Wire::Anthropic => ask_message(&simulator, &body).await,
            };
            let normal = if wire == Wire::OpenAi {
                r#""finish_reason":"stop""#
            } else {
                r#""stop_reason":"end_turn""#
            };
            assert!(text_of(&answer).contains(normal));
            assert_eq!(simulator.books().rows[0].billed.completion_tokens, 50);
        }
    }
}

#[tokio::test]
async fn an_empty_answer_is_empty_and_free() {
    for wire in WIRES {
        for stream in [false, true] {
            let (answer, row) = wire.meet(json!({ "kind": "empty" }), stream).await;
            assert_eq!((answer.status, answer.error, answer.body().len()), (200, None, 0));
            assert_eq!(answer.head.contains("text/event-stream"), stream);
            assert_eq!(
                (outcome(&row).as_str(), row.billed.prompt_tokens, row.bytes_sent),
                ("fault:empty", 0, 0)
            );
        }
    }
}

#[tokio::test]
async fn a_cut_stream_ends_well_for_http_alone() {
    for wire in WIRES {
        for (asked, left) in [(0, Some(0)), (4, Some(4)), (1_000, None)] {
            let (answer, row) = wire.meet(json!({ "kind": "cut", "events": asked }), true).await;
            assert_eq!((answer.status, answer.error), (200, None));
            assert!(left.is_none_or(|left| events(&answer) == left), "{wire:?} {asked}");
            assert!(!text_of(&answer).contains(wire.end()));
            assert_eq!(outcome(&row), "fault:cut");
        }
    }
}

#[tokio::test]
async fn a_huge_frame_is_one_event_of_that_size() {
    for wire in WIRES {
        let (answer, row) = wire.meet(json!({ "kind": "huge_frame", "bytes": 3_000_000 }), true).await;
        let text = text_of(&answer);
        let longest = text.split("\n\n").map(str::len).max().unwrap();
        assert!((3_000_000..3_001_000).contains(&longest), "{longest}");
        assert!(text.ends_with(wire.end()));
        assert_eq!((row.outcome, row.billed.completion_tokens), (Some(Outcome::Complete), 1));
    }
}

#[tokio::test]
async fn a_drip_waits_before_each_event_or_part() {
    for wire in WIRES {
        for stream in [false, true] {
            let begin = Instant::now();
            let (answer, row) = wire.meet(json!({ "kind": "drip", "ms": 10 }), stream).await;
            let parts = if stream { events(&answer) as u32 } else { 9 };
            assert!(begin.elapsed() >= Duration::from_millis(10) * parts, "{:?}", begin.elapsed());
            assert!(stream || answer.json()["usage"].is_object());
            assert_eq!(row.outcome, Some(Outcome::Complete));
        }
    }
}

/// A client that waits for the end of the head, and a connection to leave.
async fn until_head(simulator: &Simulator, wire: Wire, stream: bool) -> (TcpStream, Vec<u8>) {
    let mut connection = TcpStream::connect(simulator.address()).await.unwrap();
    connection.write_all(wire.post(stream).as_bytes()).await.unwrap();
    let mut bytes = Vec::new();
    while !bytes.windows(4).any(|window| window == b"\r\n\r\n") {
        assert_ne!(soon(connection.read_buf(&mut bytes)).await.unwrap(), 0);
    }
    (connection, bytes)
}

#[tokio::test]
async fn before_the_first_event_the_head_is_there_already() {
    for wire in WIRES {
        for stream in [false, true] {
            let hang = json!({ "kind": "hang", "at": "body", "events": 0 });
            let simulator = scripted(json!({ "faults": [hang] })).await;
            let (connection, bytes) = until_head(&simulator, wire, stream).await;
            assert!(bytes.ends_with(b"\r\n\r\n"), "{}", String::from_utf8_lossy(&bytes));
            drop(connection);
            let (answer, row) =
                wire.meet(json!({ "kind": "reset", "at": "body", "events": 0 }), stream).await;
            assert_eq!((answer.error, answer.status), (Some(std::io::ErrorKind::ConnectionReset), 200));
            assert_eq!((answer.body().len(), row.status, row.left_after_ms), (0, Some(200), None));
        }
    }
}

/// The stand-in would say nothing more: only the connection tells it.
#[tokio::test]
async fn a_client_that_hangs_up_on_silence_is_gone_at_once() {
    let faults = [
        json!({ "kind": "hang", "at": "headers" }),
        json!({ "kind": "hang", "at": "body", "events": 0 }),
        json!({ "kind": "hang", "at": "body", "events": 3 }),
        json!({ "kind": "delay", "ms": 60_000 }),
        json!({ "kind": "drip", "ms": 60_000 }),
    ];
    for wire in WIRES {
        for fault in &faults {
            let simulator = scripted(json!({ "faults": [fault] })).await;
            let mut connection = TcpStream::connect(simulator.address()).await.unwrap();
            let begin = Instant::now();
            connection.write_all(wire.post(true).as_bytes()).await.unwrap();
            soon(simulator.books_when(Goal::Arrived(1))).await;
            drop(connection);
            let books = soon(simulator.books_when(Goal::Finished(1))).await;
            let noticed = Duration::from_millis(books.rows[0].left_after_ms.unwrap());
            assert!(noticed <= begin.elapsed() && noticed < Duration::from_secs(5), "{fault}: {noticed:?}");
            assert_eq!(books.totals.complete, 0, "{fault}");
        }
    }
}

#[tokio::test]
async fn chance_takes_the_same_course_for_the_same_seed() {
    let kinds = json!([{ "kind": "status", "status": 500 }, { "kind": "no_usage" }, { "kind": "cut" }]);
    let course = async |seed: u64| {
        let simulator = scripted(json!({
            "chaos": { "seed": seed, "permille": 500, "kinds": kinds },
            "faults": [{ "kind": "empty", "times": 2 }],
        }))
        .await;
        for _ in 0..20 {
            ask(&simulator, &chat(false)).await;
        }
        let rows = soon(simulator.books_when(Goal::Finished(20))).await.rows;
        rows.into_iter().map(|row| row.fault.map(|kind| kind.to_string())).collect::<Vec<_>>()
    };
    let (one, again, other) = (course(7).await, course(7).await, course(8).await);
    assert_eq!(one, again);
    assert_ne!(one, other);
    assert_eq!(one[..2], [Some("empty".to_owned()), Some("empty".to_owned())]);
    assert!((3..17).contains(&one[2..].iter().flatten().count()), "{one:?}");
}
