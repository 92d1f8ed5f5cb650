//! The turns of a conversation and the rules between them: every call is
//! answered, every thought is the vendor's own.

use serde_json::Value;

use super::signature;
use crate::ask::PICTURE_TOKENS;
use crate::refusal::Refusal;
use crate::words;

const IMAGE_TYPES: [&str; 4] = ["image/jpeg", "image/png", "image/gif", "image/webp"];

/// What one side says before the other does: messages in a row are one.
pub(super) struct Turn<'a> {
    pub(super) role: Role,
    blocks: Vec<Block<'a>>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Role {
    User,
    Assistant,
}

enum Block<'a> {
    Text(&'a str),
    /// An image or a document, which nobody says.
    Shown {
        tokens: u64,
    },
    ToolUse {
        id: &'a str,
    },
    ToolResult {
        id: &'a str,
        tokens: u64,
    },
    /// Checked already, or redacted.
    Thought,
}

/// Reads and checks all messages. With `must_have_thought`, a call that is
/// answered in the end must have been thought about.
pub(super) fn read(messages: Option<&Value>, must_have_thought: bool) -> Result<Vec<Turn<'_>>, Refusal> {
    let messages = match messages {
        Some(Value::Array(messages)) if !messages.is_empty() => messages,
        Some(Value::Array(_)) => return Err(refusal("messages: at least one message is required")),
        Some(_) | None => return Err(refusal("messages: Field required, an array")),
    };
    let mut turns: Vec<Turn<'_>> = Vec::new();
    for (index, message) in messages.iter().enumerate() {
        let (role, blocks) =
            read_message(message, &format!("messages.{index}"), index + 1 == messages.len())?;
        match turns.last_mut() {
            Some(turn) if turn.role == role => turn.blocks.extend(blocks),
            Some(_) | None => turns.push(Turn { role, blocks }),
        }
    }
    if turns.first().is_some_and(|turn| turn.role == Role::Assistant) {
        return Err(refusal("messages: first message must use the \"user\" role"));
    }
    check_calls(&turns)?;
    if must_have_thought {
        check_thought(&turns)?
    }
    Ok(turns)
}

fn read_message<'a>(message: &'a Value, place: &str, last: bool) -> Result<(Role, Vec<Block<'a>>), Refusal> {
    let role = match message.get("role").and_then(Value::as_str) {
        Some("user") => Role::User,
        Some("assistant") => Role::Assistant,
        Some("system") => {
            let message =
                "messages: Unexpected role \"system\"; it belongs in the top-level `system` parameter";
            return Err(refusal(message));
        }
        Some(_) | None => {
            return Err(refusal(format!("{place}.role: Input should be 'user' or 'assistant'")));
        }
    };
    let extra =
        message.as_object().into_iter().flatten().find(|(name, _)| *name != "role" && *name != "content");
    if let Some((name, _)) = extra {
        return Err(refusal(format!("{place}.{name}: Extra inputs are not permitted")));
    }
    let blocks = match message.get("content") {
        Some(Value::String(text)) if text.is_empty() => Vec::new(),
        Some(Value::String(text)) => vec![Block::Text(text)],
        Some(Value::Array(blocks)) => {
            let read = |(index, block)| Block::read(block, role, &format!("{place}.content.{index}"));
            blocks.iter().enumerate().map(read).collect::<Result<_, _>>()?
        }
        Some(_) | None => {
            return Err(refusal(format!("{place}.content: Field required, a text or an array")));
        }
    };
    if blocks.is_empty() && !(last && role == Role::Assistant) {
        let message =
            "all messages must have non-empty content except for the optional final assistant message";
        return Err(refusal(format!("{place}: {message}")));
    }
    Ok((role, blocks))
}

/// Each call has its result at the head of the next turn, and no result is of
/// anything else.
fn check_calls(turns: &[Turn<'_>]) -> Result<(), Refusal> {
    let mut called: Vec<&str> = Vec::new();
    for turn in turns {
        let results = turn.results();
        if let Some(id) = called.iter().find(|id| !results.contains(id)) {
            let message = "`tool_use` ids were found without `tool_result` blocks immediately after";
            return Err(refusal(format!("messages: {message}: {id}")));
        }
        if let Some(id) = results.iter().find(|id| !called.contains(id)) {
            return Err(refusal(format!(
                "messages: unexpected `tool_use_id` found in `tool_result` blocks: {id}"
            )));
        }
        let head = turn.blocks.iter().take_while(|block| matches!(block, Block::ToolResult { .. })).count();
        if head < results.len() {
            return Err(refusal("messages: `tool_result` blocks must come first in a turn"));
        }
        called = turn.calls();
    }
    match called.first() {
        Some(id) => Err(refusal(format!("messages: `tool_use` without a `tool_result` after it: {id}"))),
        None => Ok(()),
    }
}

fn check_thought(turns: &[Turn<'_>]) -> Result<(), Refusal> {
    let [.., before, last] = turns else { return Ok(()) };
    if last.answers_a_call() && !matches!(before.blocks.first(), Some(Block::Thought)) {
        let message =
            "when `thinking` is enabled, a final `assistant` message must start with a thinking block";
        return Err(refusal(format!("messages: {message}")));
    }
    Ok(())
}

// === impl Turn ===

impl<'a> Turn<'a> {
    pub(super) fn answers_a_call(&self) -> bool {
        !self.results().is_empty()
    }

    /// Says more than results of calls.
    pub(super) fn speaks(&self) -> bool {
        self.blocks.iter().any(|block| !matches!(block, Block::ToolResult { .. }))
    }

    pub(super) fn text(&self) -> String {
        let text = |block: &Block<'_>| match block {
            Block::Text(text) => Some((*text).to_owned()),
            Block::Shown { .. } | Block::ToolUse { .. } | Block::ToolResult { .. } | Block::Thought => None,
        };
        self.blocks.iter().filter_map(text).collect()
    }

    /// What it adds to the prompt. Calls and thoughts are free, as on the other wire.
    pub(super) fn tokens(&self) -> u64 {
        let of = |block: &Block<'_>| match block {
            Block::Text(text) => words::count(text),
            Block::Shown { tokens } | Block::ToolResult { tokens, .. } => *tokens,
            Block::ToolUse { .. } | Block::Thought => 0,
        };
        self.blocks.iter().map(of).sum()
    }

    fn calls(&self) -> Vec<&'a str> {
        let call = |block: &Block<'a>| match block {
            Block::ToolUse { id } => Some(*id),
            Block::Text(_) | Block::Shown { .. } | Block::ToolResult { .. } | Block::Thought => None,
        };
        self.blocks.iter().filter_map(call).collect()
    }

    fn results(&self) -> Vec<&'a str> {
        let result = |block: &Block<'a>| match block {
            Block::ToolResult { id, .. } => Some(*id),
            Block::Text(_) | Block::Shown { .. } | Block::ToolUse { .. } | Block::Thought => None,
        };
        self.blocks.iter().filter_map(result).collect()
    }
}

// === impl Block ===

impl<'a> Block<'a> {
    fn read(block: &'a Value, role: Role, place: &str) -> Result<Block<'a>, Refusal> {
        let text = |name: &str| block.get(name).and_then(Value::as_str);
        let want = |name: &str| text(name).ok_or_else(|| refusal(format!("{place}.{name}: Field required")));
        match (text("type"), role) {
            (Some("text"), _) => match want("text")? {
                "" => Err(refusal(format!("{place}: text content blocks must be non-empty"))),
                text => Ok(Block::Text(text)),
            },
            (Some("image"), Role::User) => image(block, place),
            (Some("document"), Role::User) => document(block, place),
            (Some("tool_result"), Role::User) => {
                let tokens = result_tokens(block.get("content"), place)?;
                Ok(Block::ToolResult { id: want("tool_use_id")?, tokens })
            }
            (Some("tool_use"), Role::Assistant) => {
                want("name")?;
                if !block.get("input").is_some_and(Value::is_object) {
                    return Err(refusal(format!("{place}.input: Input should be a valid dictionary")));
                }
                Ok(Block::ToolUse { id: want("id")? })
            }
            (Some("thinking"), Role::Assistant) => {
                if want("signature")? != signature(want("thinking")?) {
                    return Err(refusal(format!("{place}: Invalid `signature` in `thinking` block")));
                }
                Ok(Block::Thought)
            }
            (Some("redacted_thinking"), Role::Assistant) => want("data").map(|_| Block::Thought),
            (kind, _) => Err(refusal(format!("{place}.type: {kind:?} is not allowed here"))),
        }
    }
}

fn image<'a>(block: &Value, place: &str) -> Result<Block<'a>, Refusal> {
    let source = |name: &str| block.get("source")?.get(name)?.as_str();
    let good = match source("type") {
        Some("base64") => {
            source("media_type").is_some_and(|kind| IMAGE_TYPES.contains(&kind)) && is_base64(source("data"))
        }
        Some("url") => source("url").is_some_and(|url| url.starts_with("http")),
        Some(_) | None => false,
    };
    if good {
        return Ok(Block::Shown { tokens: PICTURE_TOKENS });
    }
    Err(refusal(format!("{place}.source: want base64 with media_type and data, or url")))
}

fn document<'a>(block: &Value, place: &str) -> Result<Block<'a>, Refusal> {
    let source = |name: &str| block.get("source")?.get(name)?.as_str();
    match source("type") {
        Some("text") => match source("data") {
            Some(text) => Ok(Block::Shown { tokens: words::count(text) }),
            None => Err(refusal(format!("{place}.source.data: Field required"))),
        },
        Some("base64") if is_base64(source("data")) => Ok(Block::Shown { tokens: PICTURE_TOKENS }),
        Some("url") if source("url").is_some() => Ok(Block::Shown { tokens: PICTURE_TOKENS }),
        Some("content") => Ok(Block::Shown { tokens: PICTURE_TOKENS }),
        Some(_) | None => Err(refusal(format!("{place}.source: want text, base64, url or content"))),
    }
}

/// The tokens of what a tool said: nothing, a text, or blocks.
fn result_tokens(content: Option<&Value>, place: &str) -> Result<u64, Refusal> {
    let blocks = match content {
        None => return Ok(0),
        Some(Value::String(text)) => return Ok(words::count(text)),
        Some(Value::Array(blocks)) => blocks,
        Some(_) => return Err(refusal(format!("{place}.content: want a text or an array"))),
    };
    let tokens = |(index, block): (usize, &Value)| {
        let place = format!("{place}.content.{index}");
        match Block::read(block, Role::User, &place)? {
            Block::Text(text) => Ok(words::count(text)),
            Block::Shown { tokens } => Ok(tokens),
            Block::ToolUse { .. } | Block::ToolResult { .. } | Block::Thought => {
                Err(refusal(format!("{place}.type: want text, image or document")))
            }
        }
    };
    blocks.iter().enumerate().map(tokens).sum()
}

fn is_base64(data: Option<&str>) -> bool {
    let letter = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'+' | b'/' | b'=');
    data.is_some_and(|data| !data.is_empty() && data.len().is_multiple_of(4) && data.bytes().all(letter))
}

fn refusal(message: impl Into<String>) -> Refusal {
    Refusal::bad_request(message, None)
}
