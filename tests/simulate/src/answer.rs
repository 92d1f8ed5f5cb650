//! What the vendor says to a request: deterministic but for the id and the time.

use serde_json::{Map, Value, json};

use crate::chat::{ChatRequest, ForcedTool};
use crate::row::Billed;
use crate::words;

/// What an answer carries besides its content.
pub(crate) struct Stamp {
    pub(crate) vendor: String,
    /// The request's number in the books; makes the id unique.
    pub(crate) sequence: u64,
    /// Seconds since 1970.
    pub(crate) created_s: u64,
}

/// The answer to one request, in either delivery.
pub(crate) struct Answer {
    stamp: Stamp,
    model: String,
    choices: u64,
    content: Content,
    finish_reason: &'static str,
    billed: Billed,
}

/// One event of a stream.
pub(crate) struct Event {
    pub(crate) data: Value,
    /// Completion tokens in it.
    pub(crate) tokens: u64,
}

/// The same in each choice.
enum Content {
    Text(String),
    ToolCall { name: String, arguments: String },
}

// === impl Answer ===

impl Answer {
    /// Says `reply`, or echoes what the user said. A forced function is
    /// called whatever the reply.
    pub(crate) fn new(request: &ChatRequest, reply: Option<&str>, stamp: Stamp) -> Answer {
        let mut content = Content::choose(request, reply);
        let mut finish_reason = content.finish_reason();
        let text = content.text_mut();
        if let Some(kept) = request.completion_tokens_max.and_then(|max| words::truncated(text, max)) {
            *text = kept.to_owned();
            finish_reason = "length";
        }
        let billed = Billed {
            prompt_tokens: request.prompt_tokens,
            completion_tokens: words::count(text) * request.choices,
        };
        Answer {
            stamp,
            model: request.model.clone(),
            choices: request.choices,
            content,
            finish_reason,
            billed,
        }
    }

    pub(crate) fn billed(&self) -> Billed {
        self.billed
    }

    /// The `chat.completion` object.
    pub(crate) fn whole(&self) -> Value {
        let choice = |index: u64| {
            json!({
                "index": index,
                "message": self.message(index),
                "logprobs": null,
                "finish_reason": self.finish_reason,
            })
        };
        let mut object = self.envelope("chat.completion");
        object.insert("choices".to_owned(), (0..self.choices).map(choice).collect());
        object.insert("usage".to_owned(), self.usage());
        Value::Object(object)
    }

    /// The stream: for each choice its role, then its words by turns, then its
    /// end; then the usage, if asked for. `[DONE]` is not an event of ours.
    pub(crate) fn events(&self, with_usage: bool) -> Vec<Event> {
        let mut events = Vec::new();
        let mut each_choice = |delta: &dyn Fn(u64) -> Value, finish_reason: Option<&str>, tokens: u64| {
            for index in 0..self.choices {
                let choice = json!({
                    "index": index,
                    "delta": delta(index),
                    "logprobs": null,
                    "finish_reason": finish_reason,
                });
                events.push(Event { data: self.chunk(json!([choice]), with_usage), tokens });
            }
        };
        each_choice(&|index| self.first_delta(index), None, 0);
        for piece in words::pieces(self.content.text()) {
            each_choice(&|_| self.content.delta(piece), None, words::count(piece));
        }
        each_choice(&|_| json!({}), Some(self.finish_reason), 0);
        if with_usage {
            let mut chunk = self.chunk(json!([]), true);
            chunk["usage"] = self.usage();
            events.push(Event { data: chunk, tokens: 0 });
        }
        events
    }

    fn message(&self, index: u64) -> Value {
        match &self.content {
            Content::Text(text) => json!({ "role": "assistant", "content": text, "refusal": null }),
            Content::ToolCall { name, arguments } => {
                let function = json!({ "name": name, "arguments": arguments });
                let call = json!({ "id": self.call_id(index), "type": "function", "function": function });
                json!({ "role": "assistant", "content": null, "refusal": null, "tool_calls": [call] })
            }
        }
    }

    /// A choice's role, with all of a tool call but its arguments.
    fn first_delta(&self, index: u64) -> Value {
        match &self.content {
            Content::Text(_) => json!({ "role": "assistant", "content": "", "refusal": null }),
            Content::ToolCall { name, .. } => {
                let function = json!({ "name": name, "arguments": "" });
                let call = json!({ "index": 0, "id": self.call_id(index), "type": "function", "function": function });
                json!({ "role": "assistant", "content": null, "tool_calls": [call] })
            }
        }
    }

    fn chunk(&self, choices: Value, with_usage: bool) -> Value {
        let mut object = self.envelope("chat.completion.chunk");
        object.insert("choices".to_owned(), choices);
        if with_usage {
            object.insert("usage".to_owned(), Value::Null);
        }
        Value::Object(object)
    }

    fn envelope(&self, object: &str) -> Map<String, Value> {
        let Stamp { vendor, sequence, created_s } = &self.stamp;
        Map::from_iter([
            ("id".to_owned(), json!(format!("chatcmpl-{sequence:016x}"))),
            ("object".to_owned(), json!(object)),
            ("created".to_owned(), json!(created_s)),
            ("model".to_owned(), json!(self.model)),
            ("system_fingerprint".to_owned(), json!(format!("fp_{vendor}"))),
        ])
    }

    fn usage(&self) -> Value {
        let Billed { prompt_tokens, completion_tokens } = self.billed;
        json!({
            "prompt_tokens": prompt_tokens,
            "completion_tokens": completion_tokens,
            "total_tokens": prompt_tokens + completion_tokens,
            "prompt_tokens_details": { "cached_tokens": 0 },
            "completion_tokens_details": { "reasoning_tokens": 0 },
        })
    }

    fn call_id(&self, index: u64) -> String {
        format!("call_{:016x}{index:02x}", self.stamp.sequence)
    }
}

// === impl Content ===

impl Content {
    fn choose(request: &ChatRequest, reply: Option<&str>) -> Content {
        if let Some(ForcedTool { name, parameters }) = &request.forced_tool {
            let arguments = example(parameters, &request.last_user_text).to_string();
            return Content::ToolCall { name: name.clone(), arguments };
        }
        match reply {
            Some(reply) => Content::Text(reply.to_owned()),
            None => Content::Text(format!("You said: {}", request.last_user_text)),
        }
    }

    fn finish_reason(&self) -> &'static str {
        match self {
            Content::Text(_) => "stop",
            Content::ToolCall { .. } => "tool_calls",
        }
    }

    /// What is streamed word by word.
    fn text(&self) -> &str {
        match self {
            Content::Text(text) | Content::ToolCall { arguments: text, .. } => text,
        }
    }

    fn text_mut(&mut self) -> &mut String {
        match self {
            Content::Text(text) | Content::ToolCall { arguments: text, .. } => text,
        }
    }

    fn delta(&self, piece: &str) -> Value {
        match self {
            Content::Text(_) => json!({ "content": piece }),
            Content::ToolCall { .. } => {
                json!({ "tool_calls": [{ "index": 0, "function": { "arguments": piece } }] })
            }
        }
    }
}

/// Arguments that fit the types of a function's `parameters`; texts say what
/// the user said. One level deep: nested objects and arrays are empty.
fn example(parameters: &Value, user_text: &str) -> Value {
    let properties = parameters.get("properties").and_then(Value::as_object);
    let value_of = |schema: &Value| {
        if let Some(first) = schema.pointer("/enum/0") {
            return first.clone();
        }
        match schema.get("type").and_then(Value::as_str) {
            Some("integer" | "number") => json!(1),
            Some("boolean") => json!(true),
            Some("array") => json!([]),
            Some("object") => json!({}),
            Some("null") => Value::Null,
            Some(_) | None => json!(user_text),
        }
    };
    properties.into_iter().flatten().map(|(name, schema)| (name.clone(), value_of(schema))).collect()
}
