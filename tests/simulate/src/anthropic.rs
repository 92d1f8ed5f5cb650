//! How the Anthropic wire says what is said: whole, as events, and as errors.

pub(crate) mod messages;
mod turns;

use http::{HeaderMap, StatusCode};
use serde_json::{Value, json};

use crate::answer::{Answer, Finish, Part, Usage};
use crate::base64;
use crate::openai::bearer;
use crate::refusal::Refusal;
use crate::script::Script;
use crate::sse::{Data, Event};
use crate::words;

/// Header of the key.
const KEY: &str = "x-api-key";

/// Header that every request must have; here with any value.
pub(crate) const VERSION: &str = "anthropic-version";

/// Most letters of a piece of a call's arguments: 8, so that even a short
/// object comes in several.
const ARGUMENTS_PIECE_CHARS_MAX: usize = 8;

/// Refuses who has no key, or not the one wanted, or names no version.
pub(crate) fn let_in(headers: &HeaderMap, script: &Script) -> Result<(), Refusal> {
    let text = |name| headers.get(name).and_then(|value| value.to_str().ok()).filter(|text| !text.is_empty());
    let key = text(KEY).or_else(|| bearer(headers).filter(|_| script.bearer));
    match (key, script.key.as_deref()) {
        (None, _) => return Err(Refusal::no_key("an x-api-key header")),
        (Some(key), Some(wanted)) if key != wanted => return Err(Refusal::wrong_key()),
        (Some(_), _) => (),
    }
    match text(VERSION) {
        Some(_) => Ok(()),
        None => Err(Refusal::bad_request("anthropic-version: header is required", None)),
    }
}

pub(crate) fn models(ids: &[&str]) -> Value {
    let created_at = "2024-05-10T00:00:00Z";
    let model =
        |id: &&str| json!({ "type": "model", "id": id, "display_name": id, "created_at": created_at });
    let data: Vec<_> = ids.iter().map(model).collect();
    json!({ "data": data, "has_more": false, "first_id": ids.first(), "last_id": ids.last() })
}

/// The `message` object.
pub(crate) fn whole(answer: &Answer) -> Value {
    let block = |(index, part): (usize, &Part)| match part {
        Part::Thinking(text) => json!({ "type": "thinking", "thinking": text, "signature": signature(text) }),
        Part::Text(text) => json!({ "type": "text", "text": text, "citations": null }),
        Part::Call { name, arguments } => {
            // Arguments that were cut are no JSON; nothing is left of them.
            let input = arguments.parse().unwrap_or_else(|_| json!({}));
            json!({ "type": "tool_use", "id": call_id(answer, index), "name": name, "input": input })
        }
    };
    let mut message = message(answer, answer.parts.iter().enumerate().map(block).collect());
    let (stop_reason, stop_sequence) = stop(&answer.finish);
    message["stop_reason"] = json!(stop_reason);
    message["stop_sequence"] = json!(stop_sequence);
    if let Some(told) = answer.usage {
        message["usage"] = usage(told);
    }
    message
}

/// The stream: the message without content, its blocks piece by piece, how it
/// ended and what it cost.
pub(crate) fn events(answer: &Answer) -> Vec<Event> {
    let mut start = message(answer, json!([]));
    if let Some(told) = answer.usage {
        start["usage"] = usage(Usage { output: 0, reasoning: 0, ..told });
    }
    let mut events = vec![
        event("message_start", json!({ "message": start }), answer.hidden_tokens),
        event("ping", json!({}), 0),
    ];
    for (index, part) in answer.parts.iter().enumerate() {
        let block = match part {
            Part::Thinking(_) => json!({ "type": "thinking", "thinking": "", "signature": "" }),
            Part::Text(_) => json!({ "type": "text", "text": "" }),
            Part::Call { name, .. } => {
                json!({ "type": "tool_use", "id": call_id(answer, index), "name": name, "input": {} })
            }
        };
        events.push(event("content_block_start", json!({ "index": index, "content_block": block }), 0));
        let deltas = deltas(part).into_iter();
        events.extend(deltas.map(|(delta, tokens)| {
            event("content_block_delta", json!({ "index": index, "delta": delta }), tokens)
        }));
        events.push(event("content_block_stop", json!({ "index": index }), 0));
    }
    let (stop_reason, stop_sequence) = stop(&answer.finish);
    let mut end = json!({ "delta": { "stop_reason": stop_reason, "stop_sequence": stop_sequence } });
    if let Some(told) = answer.usage {
        end["usage"] = usage(told);
    }
    events.push(event("message_delta", end, 0));
    events.push(event("message_stop", json!({}), 0));
    events
}

/// The error envelope, for bodies and for the data of an event alike.
pub(crate) fn error(refusal: &Refusal, request_id: &str) -> Value {
    let kind = refusal.kind.as_deref().unwrap_or(kind_of(refusal.status));
    json!({
        "type": "error",
        "error": { "type": kind, "message": refusal.message },
        "request_id": request_id,
    })
}

/// What proves that a thought is the vendor's own: the same for the same text.
pub(crate) fn signature(thought: &str) -> String {
    // FNV-1a. Whoever can read this can forge it; a gateway has no reason to.
    let hash = |seed: u64| {
        thought.bytes().fold(seed, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x100_0000_01b3))
    };
    let halves = [hash(0xcbf2_9ce4_8422_2325), hash(0x9e37_79b9_7f4a_7c15)];
    base64::encode(&halves.map(u64::to_be_bytes).concat())
}

fn kind_of(status: StatusCode) -> &'static str {
    match status.as_u16() {
        401 => "authentication_error",
        402 => "billing_error",
        403 => "permission_error",
        404 => "not_found_error",
        413 => "request_too_large",
        429 => "rate_limit_error",
        504 => "timeout_error",
        529 => "overloaded_error",
        500.. => "api_error",
        _ => "invalid_request_error",
    }
}

/// What both deliveries begin with; it has not ended yet.
fn message(answer: &Answer, content: Value) -> Value {
    json!({
        "id": format!("msg_{:016x}", answer.stamp.sequence),
        "type": "message",
        "role": "assistant",
        "model": answer.model,
        "content": content,
        "stop_reason": null,
        "stop_sequence": null,
    })
}

fn event(name: &'static str, mut data: Value, tokens: u64) -> Event {
    data["type"] = json!(name);
    Event { name: Some(name), data: Data::Json(data), tokens }
}

/// A block's deltas, and the tokens in each.
fn deltas(part: &Part) -> Vec<(Value, u64)> {
    let pieces = words::pieces(part.text());
    match part {
        Part::Thinking(text) => {
            let thought =
                |piece| (json!({ "type": "thinking_delta", "thinking": piece }), words::count(piece));
            let signed = (json!({ "type": "signature_delta", "signature": signature(text) }), 0);
            pieces.into_iter().map(thought).chain([signed]).collect()
        }
        Part::Text(_) => {
            let said = |piece| (json!({ "type": "text_delta", "text": piece }), words::count(piece));
            pieces.into_iter().map(said).collect()
        }
        Part::Call { .. } => {
            let delta = |piece: &str| json!({ "type": "input_json_delta", "partial_json": piece });
            let mut deltas = vec![(delta(""), 0)];
            for word in pieces {
                let letters: Vec<char> = word.chars().collect();
                let parts = letters.chunks(ARGUMENTS_PIECE_CHARS_MAX).map(String::from_iter);
                deltas.extend(parts.map(|part| (delta(&part), 0)));
                if let Some((_, tokens)) = deltas.last_mut() {
                    *tokens += words::count(word); // a word is said when its last letter is
                }
            }
            deltas
        }
    }
}

fn usage(told: Usage) -> Value {
    json!({
        "input_tokens": told.input,
        "cache_creation_input_tokens": told.cache_write,
        "cache_read_input_tokens": told.cached_input,
        "output_tokens": told.output,
        "output_tokens_details": { "thinking_tokens": told.reasoning },
    })
}

/// The reason and, if it was one, the sequence.
fn stop(finish: &Finish) -> (&'static str, Option<&str>) {
    match finish {
        Finish::Stop => ("end_turn", None),
        Finish::StopSequence(sequence) => ("stop_sequence", Some(sequence)),
        Finish::Length => ("max_tokens", None),
        Finish::Calls => ("tool_use", None),
    }
}

fn call_id(answer: &Answer, index: usize) -> String {
    format!("toolu_{:016x}{index:04x}", answer.stamp.sequence)
}
