//! A whole answer of Anthropic's as OpenAI's.

use serde::Deserialize;
use serde_json::value::RawValue;
use sluice_plugin::adapter::{Context, Mapped, Phase, PluginError};

use crate::fault;
use crate::json::compact;
use crate::openai::{self, Choice, Completion, Function, Message, ToolCall, ending, internal};
use crate::usage::Counts;

#[derive(Deserialize)]
struct Answer<'a> {
    id: String,
    #[serde(borrow)]
    content: Vec<&'a RawValue>,
    #[serde(default)]
    stop_reason: Option<String>,
    #[serde(default)]
    stop_details: Option<StopDetails>,
    #[serde(default)]
    usage: Counts,
}

/// What Anthropic says about a refusal.
#[derive(Deserialize)]
pub struct StopDetails {
    #[serde(default)]
    pub explanation: Option<String>,
}

/// A block of content, as far as its kind has these members.
#[derive(Deserialize)]
pub struct Block<'a> {
    #[serde(rename = "type")]
    pub kind: String,
    #[serde(default)]
    pub text: String,
    #[serde(default)]
    pub thinking: String,
    #[serde(default)]
    pub signature: String,
    #[serde(default)]
    pub id: String,
    #[serde(default)]
    pub name: String,
    #[serde(default, borrow)]
    pub input: Option<&'a RawValue>,
}

pub fn map(context: &Context, body: &[u8]) -> Result<Mapped, PluginError> {
    if let Some(verdict) = fault::envelope(body) {
        return Ok(Mapped {
            wire: Vec::new(),
            phase: Phase::Prelude,
            usage: None,
            finish: None,
            fault: Some(verdict),
        });
    }
    let answer: Answer<'_> = serde_json::from_slice(body).map_err(|error| bad("the answer", &error))?;
    let blocks: Result<Vec<Block<'_>>, _> =
        answer.content.iter().map(|raw| serde_json::from_str(raw.get())).collect();
    let blocks = blocks.map_err(|error| bad("a block of content", &error))?;
    let refusal = answer.stop_details.as_ref().and_then(|details| details.explanation.as_deref());
    let (finish, finish_reason) = ending(answer.stop_reason.as_deref().unwrap_or("end_turn"));
    let completion = Completion {
        id: openai::id(&answer.id),
        object: "chat.completion",
        created: context.created_s,
        model: &context.model,
        choices: [Choice {
            index: 0,
            message: message(&blocks, &answer.content, refusal),
            logprobs: (),
            finish_reason,
        }],
        usage: answer.usage.shown(),
    };
    Ok(Mapped {
        wire: serde_json::to_vec(&completion).map_err(internal)?,
        phase: Phase::Done,
        usage: Some(answer.usage.booked()),
        finish: Some(finish),
        fault: None,
    })
}

/// Blocks of Anthropic's own tools have no place in OpenAI's answer; their text blocks tell the outcome.
fn message<'a>(blocks: &'a [Block<'a>], raw: &[&'a RawValue], refusal: Option<&'a str>) -> Message<'a> {
    let of_kind = |kind: &'static str| blocks.iter().filter(move |block| block.kind == kind);
    let thoughts = blocks.iter().zip(raw).filter(|(block, _)| is_thinking(&block.kind));
    Message {
        role: "assistant",
        content: joined(of_kind("text").map(|block| block.text.as_str())),
        refusal,
        reasoning_content: joined(of_kind("thinking").map(|block| block.thinking.as_str())),
        thinking_blocks: thoughts.map(|(_, raw)| *raw).collect(),
        tool_calls: of_kind("tool_use").map(tool_call).collect(),
    }
}

pub fn is_thinking(kind: &str) -> bool {
    matches!(kind, "thinking" | "redacted_thinking")
}

fn tool_call<'a>(block: &'a Block<'a>) -> ToolCall<'a> {
    let arguments = block.input.map_or_else(|| "{}".into(), |input| compact(input.get()));
    ToolCall { id: &block.id, kind: "function", function: Function { name: &block.name, arguments } }
}

/// None where there is no piece, or only empty ones.
fn joined<'a>(pieces: impl Iterator<Item = &'a str>) -> Option<String> {
    let text: String = pieces.collect();
    if text.is_empty() { None } else { Some(text) }
}

fn bad(what: &str, error: &serde_json::Error) -> PluginError {
    PluginError::BadUpstream(format!("{what} cannot be read: {error}"))
}
