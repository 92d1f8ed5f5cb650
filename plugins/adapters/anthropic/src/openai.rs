//! Answers on OpenAI's wire: one whole, or chunks.

use serde::Serialize;
use serde_json::value::RawValue;
use sluice_plugin::adapter::{Finish, PluginError};

use crate::usage::Tokens;

/// The last event of every stream.
pub const STREAM_END: &[u8] = b"data: [DONE]\n\n";

#[derive(Serialize)]
pub struct Completion<'a> {
    pub id: String,
    pub object: &'static str,
    pub created: u64,
    pub model: &'a str,
    pub choices: [Choice<'a>; 1],
    pub usage: Tokens,
}

#[derive(Serialize)]
pub struct Choice<'a> {
    pub index: u32,
    pub message: Message<'a>,
    pub logprobs: (),
    pub finish_reason: &'static str,
}

/// `content` and `refusal` are there even if `null`, as OpenAI's own are.
#[derive(Serialize)]
pub struct Message<'a> {
    pub role: &'static str,
    pub content: Option<String>,
    pub refusal: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reasoning_content: Option<String>,
    /// The vendor's own blocks, for the client to send back as they are.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub thinking_blocks: Vec<&'a RawValue>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub tool_calls: Vec<ToolCall<'a>>,
}

#[derive(Serialize)]
pub struct ToolCall<'a> {
    pub id: &'a str,
    #[serde(rename = "type")]
    pub kind: &'static str,
    pub function: Function<'a>,
}

#[derive(Serialize)]
pub struct Function<'a> {
    pub name: &'a str,
    pub arguments: String,
}

#[derive(Serialize)]
pub struct Chunk<'a> {
    pub id: &'a str,
    pub object: &'static str,
    pub created: u64,
    pub model: &'a str,
    pub choices: &'a [ChunkChoice<'a>],
    /// Where usage was asked for, it is `null` in all chunks but the last.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub usage: Option<Option<Tokens>>,
}

#[derive(Serialize)]
pub struct ChunkChoice<'a> {
    pub index: u32,
    pub delta: Delta<'a>,
    pub logprobs: (),
    pub finish_reason: Option<&'static str>,
}

#[derive(Default, Serialize)]
pub struct Delta<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub role: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub content: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub refusal: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reasoning_content: Option<&'a str>,
    /// All of them in one delta: OpenAI's clients merge a list that comes twice by an `index` in each
    /// entry, and a block with such a member would not be the one that Anthropic takes back.
    #[serde(skip_serializing_if = "<[_]>::is_empty")]
    pub thinking_blocks: &'a [Box<RawValue>],
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tool_calls: Option<[CallDelta<'a>; 1]>,
}

#[derive(Serialize)]
pub struct CallDelta<'a> {
    pub index: u32,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub id: Option<&'a str>,
    #[serde(rename = "type", skip_serializing_if = "Option::is_none")]
    pub kind: Option<&'static str>,
    pub function: FunctionDelta<'a>,
}

#[derive(Serialize)]
pub struct FunctionDelta<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub name: Option<&'a str>,
    pub arguments: &'a str,
}

impl Chunk<'_> {
    /// Appends the chunk as one event.
    pub fn write(&self, wire: &mut Vec<u8>) -> Result<(), PluginError> {
        wire.extend_from_slice(b"data: ");
        serde_json::to_writer(&mut *wire, self).map_err(internal)?;
        wire.extend_from_slice(b"\n\n");
        Ok(())
    }
}

/// A failure to write JSON, which only a bug can be.
pub fn internal(error: serde_json::Error) -> PluginError {
    PluginError::Internal(error.to_string())
}

/// The id that the client sees: the vendor's, in the manner of OpenAI's.
pub fn id(of_vendor: &str) -> String {
    format!("chatcmpl-{of_vendor}")
}

/// Why the model stopped, for the host and in OpenAI's word for it.
pub fn ending(stop_reason: &str) -> (Finish, &'static str) {
    match stop_reason {
        "max_tokens" | "model_context_window_exceeded" => (Finish::Length, "length"),
        "tool_use" => (Finish::Tool, "tool_calls"),
        "refusal" => (Finish::Filter, "content_filter"),
        // `end_turn`, `stop_sequence`, `pause_turn`, and reasons that come to be later: the answer is there.
        _ => (Finish::Stop, "stop"),
    }
}
