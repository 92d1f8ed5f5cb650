//! The conversation: system text apart, the rest in turns that alternate.

use std::borrow::Cow;

use serde_json::value::RawValue;
use sluice_plugin::adapter::PluginError;

use super::parts::{self, Speaker};
use crate::json::{Kind, Node, Object, unserved};
use crate::wire::{Block, Role, Turn};

pub struct Conversation<'a> {
    /// Of all system and developer messages, wherever they stood.
    pub system: Vec<Block<'a>>,
    pub turns: Vec<Turn<'a>>,
}

/// Members of earlier answers that clients send back, and labels: Anthropic has no place for them,
/// and the conversation is the same without. `thinking_blocks` is what carries the reasoning.
const ECHOES: [&str; 5] = ["name", "annotations", "reasoning", "reasoning_content", "reasoning_details"];

pub fn map<'a>(messages: &Node<'a>) -> Result<Conversation<'a>, PluginError> {
    let mut conversation = Conversation { system: Vec::new(), turns: Vec::new() };
    for mut message in messages.objects()? {
        let role = message.want("role")?;
        match role.text()?.as_ref() {
            "system" | "developer" => conversation.system.extend(content(&mut message, Speaker::System)?),
            "user" => {
                let blocks = content(&mut message, Speaker::User)?;
                conversation.say(Role::User, blocks);
            }
            "assistant" => {
                let blocks = assistant(&mut message)?;
                conversation.say(Role::Assistant, blocks);
            }
            "tool" => {
                let result = tool_result(&mut message)?;
                conversation.say(Role::User, vec![result]);
            }
            "function" => {
                return Err(role.unserved("is no longer used; send role \"tool\" with tool_call_id"));
            }
            _ => return Err(role.unserved("system, developer, user, assistant or tool is wanted")),
        }
        message.finish(&ECHOES)?;
    }
    if conversation.turns.is_empty() {
        return Err(messages.unserved("Anthropic wants at least one user message with content"));
    }
    Ok(conversation)
}

impl<'a> Conversation<'a> {
    /// Adds to the turn of whoever spoke last, or begins one. A message without content is no turn.
    fn say(&mut self, role: Role, blocks: Vec<Block<'a>>) {
        match self.turns.last_mut() {
            _ if blocks.is_empty() => {}
            Some(turn) if turn.role == role => turn.content.extend(blocks),
            Some(_) | None => self.turns.push(Turn { role, content: blocks }),
        }
    }
}

fn content<'a>(message: &mut Object<'a>, speaker: Speaker) -> Result<Vec<Block<'a>>, PluginError> {
    message.take("content").map_or(Ok(Vec::new()), |content| parts::map(&content, speaker))
}

/// Thinking comes first: Anthropic refuses it behind anything else.
fn assistant<'a>(message: &mut Object<'a>) -> Result<Vec<Block<'a>>, PluginError> {
    let thinking = message.take("thinking_blocks").map_or(Ok(Vec::new()), |node| node.items())?;
    let mut blocks: Vec<Block<'a>> = thinking.into_iter().map(Block::Opaque).collect();
    blocks.extend(content(message, Speaker::Assistant)?);
    if let Some(refusal) = message.take("refusal") {
        blocks.extend(parts::text(&refusal, None)?);
    }
    if let Some(calls) = message.take("tool_calls") {
        for call in calls.objects()? {
            blocks.push(tool_use(call)?);
        }
    }
    if message.take("function_call").is_some() {
        return Err(unserved(&message.at("function_call"), "is no longer used; send tool_calls"));
    }
    Ok(blocks)
}

fn tool_use(mut call: Object<'_>) -> Result<Block<'_>, PluginError> {
    if let Some(kind) = call.take("type")
        && kind.text()? != "function"
    {
        return Err(kind.unserved("Anthropic knows calls of functions only"));
    }
    let id = call.want("id")?.raw;
    let mut function = call.want("function")?.object()?;
    let name = function.want("name")?.raw;
    let input = input(&function.want("arguments")?)?;
    Ok(Block::ToolUse { id, name, input })
}

/// OpenAI's arguments are a text that holds JSON, Anthropic's input is the object itself.
fn input(arguments: &Node<'_>) -> Result<Box<RawValue>, PluginError> {
    let text = match arguments.text()? {
        // What some clients send for a call without arguments.
        text if text.trim().is_empty() => Cow::Borrowed("{}"),
        text => text,
    };
    let input = RawValue::from_string(text.into_owned());
    match input {
        Ok(input) if input.get().starts_with('{') => Ok(input),
        Ok(_) | Err(_) => Err(arguments.unserved("a string that holds a JSON object is wanted")),
    }
}

fn tool_result<'a>(message: &mut Object<'a>) -> Result<Block<'a>, PluginError> {
    let id = message.want("tool_call_id")?;
    if id.kind() != Kind::Text {
        return Err(id.unserved("a string is wanted"));
    }
    Ok(Block::ToolResult { tool_use_id: id.raw, content: content(message, Speaker::Tool)? })
}
