//! Takes the place of the built-in `echo`, and answers in capitals.
//!
//! An adapter that answers by itself: whole, or streamed word by word.

use serde_json::{Value, json};
use sluice_plugin::adapter::{
    Adapter, Decision, Inbound, Manifest, Mapped, Phase, PluginError, SameWire, Setup, manifest,
};
use sluice_plugin::codes::surface;

struct Shout;

impl Adapter for Shout {
    type Mapper = SameWire;

    fn describe() -> Manifest {
        // The id of a built-in plugin: dropped into the folder, this one serves in its place.
        let doc = "Answers with the last message in capitals; no network, no key.";
        Manifest { surfaces: vec![surface::OPENAI_CHAT], ..manifest("echo", env!("CARGO_PKG_VERSION"), doc) }
    }

    fn configure(_setup: Setup) -> Result<Shout, PluginError> {
        Ok(Shout)
    }

    fn self_test() -> Result<(), String> {
        match shouted(r#"[{"role":"user","content":"one two"}]"#) {
            Ok(text) if text == "ONE TWO" => Ok(()),
            other => Err(format!("shouted {other:?}")),
        }
    }

    fn plan(&self, request: &Inbound, _target_model: &str) -> Result<Decision, PluginError> {
        let messages = request.field("/messages").ok_or_else(|| invalid("is missing"))?;
        let text = shouted(&messages)?;
        let (shape, identity) = (request.shape(), request.identity());
        let answer = Answer {
            id: format!("chatcmpl-{}", identity.request_id),
            created_s: identity.received_s,
            model: shape.model,
            prompt_tokens: request.sizes().prompt_estimate,
        };
        Ok(Decision::Answer(if shape.streaming { answer.stream(&text) } else { vec![answer.whole(&text)] }))
    }
}

/// The last message's text in capitals; of a list of parts, their texts.
fn shouted(messages: &str) -> Result<String, PluginError> {
    let messages: Vec<Value> =
        serde_json::from_str(messages).map_err(|_| invalid("is no array of messages"))?;
    let content = messages.last().map(|message| &message["content"]).ok_or_else(|| invalid("is empty"))?;
    let text = match content {
        Value::String(text) => text.clone(),
        Value::Array(parts) => parts.iter().filter_map(|part| part["text"].as_str()).collect(),
        _ => return Err(invalid("ends in one without text")),
    };
    Ok(text.to_uppercase())
}

fn invalid(what: &str) -> PluginError {
    PluginError::InvalidRequest(format!("messages {what}"))
}

struct Answer {
    id: String,
    created_s: u64,
    model: String,
    prompt_tokens: u32,
}

impl Answer {
    fn whole(&self, text: &str) -> Mapped {
        let completion_tokens = text.split_whitespace().count();
        let body = json!({
            "id": self.id, "object": "chat.completion", "created": self.created_s, "model": self.model,
            "choices": [{
                "index": 0, "logprobs": null, "finish_reason": "stop",
                "message": {"role": "assistant", "content": text, "refusal": null},
            }],
            "usage": {
                "prompt_tokens": self.prompt_tokens, "completion_tokens": completion_tokens,
                "total_tokens": self.prompt_tokens as usize + completion_tokens,
            },
        });
        piece(body.to_string().into_bytes(), Phase::Done)
    }

    /// An event for each word, then the finish and `[DONE]`.
    fn stream(&self, text: &str) -> Vec<Mapped> {
        let mut events = vec![self.event(json!({"role": "assistant", "content": ""}), Value::Null)];
        for word in text.split_inclusive(' ') {
            events.push(self.event(json!({"content": word}), Value::Null));
        }
        events.push(self.event(json!({}), "stop".into()));
        events.push(piece(b"data: [DONE]\n\n".to_vec(), Phase::Done));
        events
    }

    fn event(&self, delta: Value, finish_reason: Value) -> Mapped {
        let chunk = json!({
            "id": self.id, "object": "chat.completion.chunk", "created": self.created_s, "model": self.model,
            "choices": [{"index": 0, "delta": delta, "logprobs": null, "finish_reason": finish_reason}],
        });
        piece(format!("data: {chunk}\n\n").into_bytes(), Phase::Content)
    }
}

fn piece(wire: Vec<u8>, phase: Phase) -> Mapped {
    Mapped { wire, phase, usage: None, finish: None, fault: None }
}

sluice_plugin::export_adapter!(Shout);
