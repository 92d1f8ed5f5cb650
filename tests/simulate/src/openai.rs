//! How the OpenAI wire says what is said: whole, as events, and as errors.

pub(crate) mod chat;

use http::HeaderMap;
use http::header::AUTHORIZATION;
use serde_json::{Map, Value, json};

use crate::answer::{Answer, Finish, Part, Stamp, Usage};
use crate::refusal::Refusal;
use crate::sse::{Data, Event};
use crate::words;

const DONE: &str = "[DONE]";

/// When the models say they were made, in seconds since 1970.
const MODEL_CREATED_S: u64 = 1_715_367_049;

/// Refuses who has no key, or not the one wanted.
pub(crate) fn let_in(headers: &HeaderMap, wanted: Option<&str>) -> Result<(), Refusal> {
    match (bearer(headers), wanted) {
        (None, _) => Err(Refusal::no_key("an Authorization header, as a bearer")),
        (Some(key), Some(wanted)) if key != wanted => Err(Refusal::wrong_key()),
        (Some(_), _) => Ok(()),
    }
}

/// The key in an Authorization header.
pub(crate) fn bearer(headers: &HeaderMap) -> Option<&str> {
    let (scheme, key) = headers.get(AUTHORIZATION)?.to_str().ok()?.split_once(' ')?;
    scheme.eq_ignore_ascii_case("bearer").then(|| key.trim()).filter(|key| !key.is_empty())
}

pub(crate) fn models(ids: &[&str], owner: &str) -> Value {
    let model =
        |id: &&str| json!({ "id": id, "object": "model", "created": MODEL_CREATED_S, "owned_by": owner });
    json!({ "object": "list", "data": ids.iter().map(model).collect::<Vec<_>>() })
}

/// The `chat.completion` object.
pub(crate) fn whole(answer: &Answer) -> Value {
    let choice = |index: u64| {
        json!({
            "index": index,
            "message": message(answer, index),
            "logprobs": null,
            "finish_reason": finish_reason(&answer.finish),
        })
    };
    let mut object = envelope(answer, "chat.completion");
    object.insert("choices".to_owned(), (0..answer.choices).map(choice).collect());
    if let Some(told) = answer.usage {
        object.insert("usage".to_owned(), usage(told));
    }
    Value::Object(object)
}

/// The stream: for each choice its role, then its pieces by turns, then its
/// end; then the usage, if it is asked for; then `[DONE]`.
pub(crate) fn events(answer: &Answer, usage_wanted: bool) -> Vec<Event> {
    let told = answer.usage.filter(|_| usage_wanted);
    let mut events = Vec::new();
    let mut each_choice = |delta: &dyn Fn(u64) -> Value, finish_reason: Option<&str>, tokens: u64| {
        for index in 0..answer.choices {
            let choice = json!({
                "index": index,
                "delta": delta(index),
                "logprobs": null,
                "finish_reason": finish_reason,
            });
            events.push(chunk(answer, json!([choice]), told.map(|_| Value::Null), tokens));
        }
    };
    each_choice(&|choice| first_delta(answer, choice), None, answer.hidden_tokens);
    let mut calls = 0;
    for (index, part) in answer.parts.iter().enumerate() {
        if let Part::Call { name, .. } = part {
            if index > 0 {
                let begun = |choice| json!({ "tool_calls": [begun_call(answer, choice, calls, name)] });
                each_choice(&begun, None, 0);
            }
            calls += 1;
        }
        for piece in words::pieces(part.text()) {
            let delta = match part {
                Part::Thinking(_) => json!({ "reasoning_content": piece }),
                Part::Text(_) => json!({ "content": piece }),
                Part::Call { .. } => {
                    json!({ "tool_calls": [{ "index": calls - 1, "function": { "arguments": piece } }] })
                }
            };
            each_choice(&|_| delta.clone(), None, words::count(piece));
        }
    }
    each_choice(&|_| json!({}), Some(finish_reason(&answer.finish)), 0);
    if let Some(told) = told {
        events.push(chunk(answer, json!([]), Some(usage(told)), 0));
    }
    events.push(Event { name: None, data: Data::Text(DONE.to_owned()), tokens: 0 });
    events
}

/// The error envelope, for bodies and for the data of an event alike.
pub(crate) fn error(refusal: &Refusal) -> Value {
    let Refusal { status, message, kind, param, code } = refusal;
    let kind = kind.as_deref().unwrap_or(match status.as_u16() {
        429 => "requests",
        500.. => "server_error",
        _ => "invalid_request_error",
    });
    json!({ "error": { "message": message, "type": kind, "param": param, "code": code } })
}

fn message(answer: &Answer, choice: u64) -> Value {
    let mut message = json!({ "role": "assistant", "content": null, "refusal": null });
    let mut calls = Vec::new();
    for part in &answer.parts {
        match part {
            Part::Thinking(text) => message["reasoning_content"] = json!(text),
            Part::Text(text) => message["content"] = json!(text),
            Part::Call { name, arguments } => {
                let function = json!({ "name": name, "arguments": arguments });
                let id = call_id(&answer.stamp, choice, calls.len());
                calls.push(json!({ "id": id, "type": "function", "function": function }));
            }
        }
    }
    if !calls.is_empty() {
        message["tool_calls"] = calls.into();
    }
    message
}

/// A choice's role; with all of a call but its arguments, if it begins with one.
fn first_delta(answer: &Answer, choice: u64) -> Value {
    match answer.parts.first() {
        Some(Part::Call { name, .. }) => {
            let call = begun_call(answer, choice, 0, name);
            json!({ "role": "assistant", "content": null, "tool_calls": [call] })
        }
        Some(Part::Thinking(_)) if answer.calls() => json!({ "role": "assistant", "content": null }),
        Some(Part::Thinking(_) | Part::Text(_)) | None => {
            json!({ "role": "assistant", "content": "", "refusal": null })
        }
    }
}

fn begun_call(answer: &Answer, choice: u64, number: usize, name: &str) -> Value {
    let function = json!({ "name": name, "arguments": "" });
    let id = call_id(&answer.stamp, choice, number);
    json!({ "index": number, "id": id, "type": "function", "function": function })
}

/// Its usage is absent, null, or told.
fn chunk(answer: &Answer, choices: Value, usage: Option<Value>, tokens: u64) -> Event {
    let mut object = envelope(answer, "chat.completion.chunk");
    object.insert("choices".to_owned(), choices);
    if let Some(usage) = usage {
        object.insert("usage".to_owned(), usage);
    }
    Event { name: None, data: Data::Json(Value::Object(object)), tokens }
}

fn envelope(answer: &Answer, object: &str) -> Map<String, Value> {
    let Stamp { vendor, sequence, created_s } = &answer.stamp;
    Map::from_iter([
        ("id".to_owned(), json!(format!("chatcmpl-{sequence:016x}"))),
        ("object".to_owned(), json!(object)),
        ("created".to_owned(), json!(created_s)),
        ("model".to_owned(), json!(answer.model)),
        ("system_fingerprint".to_owned(), json!(format!("fp_{vendor}"))),
    ])
}

fn usage(told: Usage) -> Value {
    let mut usage = json!({
        "prompt_tokens": told.prompt(),
        "completion_tokens": told.output,
        "total_tokens": told.prompt() + told.output,
        "prompt_tokens_details": { "cached_tokens": told.cached_input },
        "completion_tokens_details": { "reasoning_tokens": told.reasoning },
    });
    if told.cache_write > 0 {
        usage["prompt_tokens_details"]["cache_write_tokens"] = json!(told.cache_write);
    }
    usage
}

fn finish_reason(finish: &Finish) -> &'static str {
    match finish {
        Finish::Stop | Finish::StopSequence(_) => "stop",
        Finish::Length => "length",
        Finish::Calls => "tool_calls",
    }
}

fn call_id(stamp: &Stamp, choice: u64, number: usize) -> String {
    format!("call_{:016x}{choice:02x}{number:04x}", stamp.sequence)
}
