//! Golden vectors: every file of `vectors/` is one thing that the adapter maps, and what it must become.
//!
//! What is compared is JSON text without its white space, so that the order of members and the form of
//! numbers count. A file holds one of: `request` with `vendor` or `refused` (and `carry` if it is not
//! the usual one), `answer` with `openai`, `frames` with `chunks`, `status` with `verdict`.

use std::fs;
use std::path::Path;

use serde::Deserialize;
use serde_json::Value;
use serde_json::value::RawValue;
use sluice_plugin::adapter::{Context, Failure, Finish, Header, Mapped, Phase, PluginError, Usage, Verdict};

use crate::carry::Carry;
use crate::config::Config;
use crate::json::compact;
use crate::stream::Stream;
use crate::{answer, fault, request};

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Vector {
    /// For the reader.
    #[serde(rename = "shows")]
    _shows: String,
    #[serde(default)]
    include_usage: bool,
    request: Option<Box<RawValue>>,
    vendor: Option<Box<RawValue>>,
    refused: Option<String>,
    answer: Option<Box<RawValue>>,
    openai: Option<Box<RawValue>>,
    frames: Option<Vec<Box<RawValue>>>,
    chunks: Option<Vec<Box<RawValue>>>,
    /// Of the status, or inside of the stream or answer.
    verdict: Option<Expected>,
    status: Option<u16>,
    retry_after: Option<String>,
    body: Option<Box<RawValue>>,
    /// Input, cached input, cache write, output without reasoning, reasoning.
    usage: Option<[u64; 5]>,
    finish: Option<String>,
}

#[derive(Debug, Deserialize, PartialEq)]
#[serde(deny_unknown_fields)]
struct Expected {
    kind: String,
    retry_after_ms: Option<u32>,
    message: String,
}

fn context(carry: Carry) -> Context {
    Context {
        request_id: "req-1".into(),
        model: "claude".into(),
        created_s: 1_700_000_000,
        surface: 1,
        endpoint: 1,
        streaming: true,
        carry: carry.to_bytes(),
    }
}

#[test]
fn every_vector_holds() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("vectors");
    let mut count = 0;
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_name().unwrap().to_str().unwrap().to_owned();
        let vector: Vector = serde_json::from_str(&fs::read_to_string(&path).unwrap())
            .unwrap_or_else(|error| panic!("{name}: {error}"));
        check(&name, &vector);
        count += 1;
    }
    assert!(count > 0, "no vectors");
}

fn check(name: &str, vector: &Vector) {
    if let Some(asked) = &vector.request {
        check_request(name, vector, asked);
    } else if let Some(body) = &vector.answer {
        let mapped = answer::map(&context(Carry::default()), body.get().as_bytes()).unwrap();
        if let Some(wanted) = &vector.openai {
            assert_eq!(compact(text(&mapped.wire)), compact(wanted.get()), "{name}");
            assert_eq!(mapped.phase, Phase::Done, "{name}");
        }
        check_result(name, vector, mapped);
    } else if let Some(frames) = &vector.frames {
        check_stream(name, vector, frames);
    } else {
        let header = |value: &String| vec![Header { name: "Retry-After".into(), value: value.clone() }];
        let headers = vector.retry_after.as_ref().map_or(Vec::new(), header);
        let body = vector.body.as_ref().unwrap().get();
        let verdict = fault::classify(vector.status.unwrap(), &headers, body.as_bytes());
        assert_eq!(Some(expected(verdict)), vector.verdict, "{name}");
    }
}

fn check_request(name: &str, vector: &Vector, asked: &RawValue) {
    let value: Value = serde_json::from_str(asked.get()).unwrap();
    let streaming = value["stream"] == true;
    let mapped = request::map(asked.get().as_bytes(), "claude-sonnet", streaming, &Config::default());
    match mapped {
        Ok(outgoing) => {
            let wanted = vector.vendor.as_ref().unwrap_or_else(|| panic!("{name}: was not refused"));
            assert_eq!(compact(text(&outgoing.body)), compact(wanted.get()), "{name}");
            assert_eq!(outgoing.carry, Carry { include_usage: vector.include_usage }, "{name}");
        }
        Err(PluginError::Unsupported(said)) => {
            assert_eq!(Some(&said), vector.refused.as_ref(), "{name}");
        }
        Err(error) => panic!("{name}: {error:?}"),
    }
}

/// Whatever the pieces that a stream comes in, the client reads the same.
fn check_stream(name: &str, vector: &Vector, frames: &[Box<RawValue>]) {
    let frames: Vec<Vec<u8>> = frames.iter().map(|frame| frame.get().as_bytes().to_vec()).collect();
    let mut wanted: String = String::new();
    for chunk in vector.chunks.as_ref().unwrap() {
        wanted.push_str(&format!("data: {}\n\n", compact(chunk.get())));
    }
    if vector.verdict.is_none() {
        wanted.push_str("data: [DONE]\n\n");
    }
    for size in [1, 3, frames.len()] {
        let mut stream = Stream::new(context(Carry { include_usage: vector.include_usage }));
        let (mut wire, mut usage, mut finish, mut verdict) = (Vec::new(), None, None, None);
        for group in frames.chunks(size) {
            let mapped = stream.push(group).unwrap();
            wire.extend(mapped.wire);
            usage = mapped.usage.or(usage);
            finish = mapped.finish.or(finish);
            verdict = mapped.fault.or(verdict);
        }
        assert_eq!(text(&wire), wanted, "{name}, {size} at a time");
        assert_eq!(stream.close().is_ok(), verdict.is_none(), "{name}");
        let phase = if verdict.is_none() { Phase::Done } else { Phase::Content };
        check_result(name, vector, Mapped { wire, phase, usage, finish, fault: verdict });
    }
}

fn check_result(name: &str, vector: &Vector, mapped: Mapped) {
    if let Some([input, cached_input, cache_write, output, reasoning]) = vector.usage {
        let wanted = Usage { input, cached_input, cache_write, output, reasoning, calls: 0, millis: 0 };
        let usage = mapped.usage.unwrap();
        assert_eq!(format!("{usage:?}"), format!("{wanted:?}"), "{name}");
    }
    let finish = mapped.finish.map(|finish| match finish {
        Finish::Stop => "stop",
        Finish::Length => "length",
        Finish::Tool => "tool",
        Finish::Filter => "filter",
        Finish::Error => "error",
    });
    assert_eq!(finish, vector.finish.as_deref(), "{name}");
    assert_eq!(mapped.fault.map(expected), vector.verdict.as_ref().map(Expected::copy), "{name}");
}

impl Expected {
    fn copy(&self) -> Expected {
        Expected {
            kind: self.kind.clone(),
            retry_after_ms: self.retry_after_ms,
            message: self.message.clone(),
        }
    }
}

fn expected(verdict: Verdict) -> Expected {
    let kind = match verdict.kind {
        Failure::Transient => "transient",
        Failure::Throttled => "throttled",
        Failure::Credential => "credential",
        Failure::Caller => "caller",
        Failure::ContextLength => "context-length",
        Failure::Filtered => "filtered",
    };
    Expected { kind: kind.into(), retry_after_ms: verdict.retry_after_ms, message: verdict.message }
}

fn text(bytes: &[u8]) -> &str {
    std::str::from_utf8(bytes).unwrap()
}

fn push(stream: &mut Stream, frame: &str) -> Result<Mapped, PluginError> {
    stream.push(&[frame.as_bytes().to_vec()])
}

const START: &str =
    r#"{"type":"message_start","message":{"id":"m","usage":{"input_tokens":1,"output_tokens":1}}}"#;

#[test]
fn a_stream_is_prelude_until_there_is_content_and_done_at_its_stop() {
    let mut stream = Stream::new(context(Carry::default()));
    let mut phase = |frame: &str| push(&mut stream, frame).unwrap().phase;
    assert_eq!(phase(r#"{"type":"ping"}"#), Phase::Prelude);
    assert_eq!(phase(START), Phase::Prelude);
    let begin = r#"{"type":"content_block_start","index":0,"content_block":{"type":"text","text":""}}"#;
    assert_eq!(phase(begin), Phase::Prelude);
    let piece = r#"{"type":"content_block_delta","index":0,"delta":{"type":"text_delta","text":"a"}}"#;
    assert_eq!(phase(piece), Phase::Content);
    assert_eq!(phase(r#"{"type":"content_block_stop","index":0}"#), Phase::Content);
    assert_eq!(phase(r#"{"type":"message_stop"}"#), Phase::Done);
}

#[test]
fn a_stream_that_breaks_off_or_makes_no_sense_is_the_vendors_fault() {
    let bad = |result: Result<Mapped, PluginError>| matches!(result, Err(PluginError::BadUpstream(_)));
    let mut stream = Stream::new(context(Carry::default()));
    assert!(bad(stream.close()), "nothing came");
    let piece = r#"{"type":"content_block_delta","index":0,"delta":{"type":"text_delta","text":"a"}}"#;
    assert!(bad(push(&mut stream, piece)), "a piece before the start");
    assert!(bad(push(&mut stream, "{")));
    push(&mut stream, START).unwrap();
    push(&mut stream, piece).unwrap();
    assert!(bad(stream.close()), "no message_stop");
}

/// The host joins the `data` lines of an event by line feeds, and one in a chunk would end its event.
#[test]
fn a_chunk_is_one_line() {
    let mut stream = Stream::new(context(Carry::default()));
    push(&mut stream, START).unwrap();
    let block = "{\"type\":\"redacted_thinking\",\n\"data\":\"x y\"}";
    let begin = format!(r#"{{"type":"content_block_start","index":0,"content_block":{block}}}"#);
    push(&mut stream, &begin).unwrap();
    let ended = push(&mut stream, r#"{"type":"content_block_stop","index":0}"#).unwrap();
    assert_eq!((ended.wire.len(), ended.phase), (0, Phase::Prelude), "it shows nothing yet");
    let mapped = push(&mut stream, r#"{"type":"message_delta","delta":{"stop_reason":"end_turn"}}"#).unwrap();
    let wire = text(&mapped.wire);
    assert!(wire.contains(r#"[{"type":"redacted_thinking","data":"x y"}]"#), "{wire}");
    assert!(wire.split_terminator("\n\n").all(|event| !event.contains('\n')), "{wire}");
}

#[test]
fn an_answer_that_makes_no_sense_is_the_vendors_fault() {
    for body in ["", "{}", r#"{"id":"m","content":[1]}"#, "<html>"] {
        let mapped = answer::map(&context(Carry::default()), body.as_bytes());
        assert!(matches!(mapped, Err(PluginError::BadUpstream(_))), "{body}");
    }
}

#[test]
fn a_long_message_is_cut_between_characters() {
    let body =
        format!(r#"{{"type":"error","error":{{"type":"api_error","message":"{}"}}}}"#, "é".repeat(1500));
    assert_eq!(fault::classify(500, &[], body.as_bytes()).message.chars().count(), 1000);
}

#[test]
fn the_plugins_own_test_passes() {
    assert_eq!(crate::self_test(), Ok(()));
}
