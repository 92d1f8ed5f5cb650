//! A request for a chat completion, checked as the vendor checks it.
//!
//! Members that change nothing here (temperature, stop, logprobs, …) are not
//! looked at.

use serde_json::{Map, Value};

use crate::refusal::Refusal;
use crate::words;

/// Most choices of one request: 128, which is OpenAI's own bound.
const CHOICES_MAX: u64 = 128;

const ROLES: [&str; 6] = ["developer", "system", "user", "assistant", "tool", "function"];

/// A request that the vendor will answer.
#[derive(Debug)]
pub(crate) struct ChatRequest {
    pub(crate) model: String,
    pub(crate) delivery: Delivery,
    /// From 1 to [`CHOICES_MAX`].
    pub(crate) choices: u64,
    pub(crate) completion_tokens_max: Option<u64>,
    /// Words in all texts of all messages.
    pub(crate) prompt_tokens: u64,
    /// Empty if no user spoke.
    pub(crate) last_user_text: String,
    pub(crate) forced_tool: Option<ForcedTool>,
}

/// How the answer is wanted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Delivery {
    Whole,
    Stream { usage: bool },
}

/// The function that `tool_choice` obliges the model to call.
#[derive(Debug)]
pub(crate) struct ForcedTool {
    pub(crate) name: String,
    /// The JSON schema of its arguments; null if there is none.
    pub(crate) parameters: Value,
}

/// The body as a JSON object.
pub(crate) fn object(body: &[u8]) -> Result<Map<String, Value>, Refusal> {
    match serde_json::from_slice(body) {
        Ok(Value::Object(members)) => Ok(members),
        Ok(_) => Err(Refusal::bad_request("The body of the request is not a JSON object.", None)),
        Err(error) => {
            Err(Refusal::bad_request(format!("The body of the request is not JSON: {error}"), None))
        }
    }
}

// === impl ChatRequest ===

impl ChatRequest {
    pub(crate) fn check(members: &Map<String, Value>) -> Result<ChatRequest, Refusal> {
        let Some(model) = members.get("model").and_then(Value::as_str).filter(|model| !model.is_empty())
        else {
            return Err(Refusal::bad_request("you must provide a model parameter", Some("model")));
        };
        let messages = messages(members)?;
        let choices = whole_number(members, "n")?.unwrap_or(1);
        if choices > CHOICES_MAX {
            return Err(Refusal::bad_request(format!("'n' is {choices}, at most {CHOICES_MAX}"), Some("n")));
        }
        Ok(ChatRequest {
            model: model.to_owned(),
            delivery: delivery(members)?,
            choices,
            completion_tokens_max: completion_tokens_max(members)?,
            prompt_tokens: messages.iter().flat_map(|message| texts(message)).map(words::count).sum(),
            last_user_text: messages
                .iter()
                .rfind(|message| message.get("role").is_some_and(|role| role == "user"))
                .map(|message| texts(message).concat())
                .unwrap_or_default(),
            forced_tool: forced_tool(members)?,
        })
    }
}

/// The messages: objects with a known role and, if any, a content of the right type.
fn messages(members: &Map<String, Value>) -> Result<&[Value], Refusal> {
    let refuse = |message: String| Err(Refusal::bad_request(message, Some("messages")));
    let messages = match members.get("messages") {
        Some(Value::Array(messages)) if !messages.is_empty() => messages,
        Some(Value::Array(_)) => return refuse("'messages' is empty, want at least one".to_owned()),
        Some(_) => return refuse("'messages' is not an array".to_owned()),
        None => return refuse("Missing required parameter: 'messages'.".to_owned()),
    };
    for (index, message) in messages.iter().enumerate() {
        let role = message.get("role").and_then(Value::as_str);
        if !role.is_some_and(|role| ROLES.contains(&role)) {
            return refuse(format!("'messages[{index}].role' is not one of {ROLES:?}"));
        }
        match message.get("content") {
            None | Some(Value::Null | Value::String(_) | Value::Array(_)) => (),
            Some(_) => return refuse(format!("'messages[{index}].content' is not a string or an array")),
        }
    }
    Ok(messages)
}

/// A message's content as text: the string, or the texts of its parts.
fn texts(message: &Value) -> Vec<&str> {
    match message.get("content") {
        Some(Value::String(text)) => vec![text],
        Some(Value::Array(parts)) => {
            parts.iter().filter_map(|part| part.get("text").and_then(Value::as_str)).collect()
        }
        Some(_) | None => Vec::new(),
    }
}

fn delivery(members: &Map<String, Value>) -> Result<Delivery, Refusal> {
    let stream = match members.get("stream") {
        None | Some(Value::Null) => false,
        Some(Value::Bool(stream)) => *stream,
        Some(_) => return Err(Refusal::bad_request("'stream' is not a boolean", Some("stream"))),
    };
    let options = members.get("stream_options").filter(|options| !options.is_null());
    match (stream, options) {
        (false, None) => Ok(Delivery::Whole),
        (false, Some(_)) => {
            let message = "The 'stream_options' parameter is only allowed when 'stream' is enabled.";
            Err(Refusal::bad_request(message, Some("stream_options")))
        }
        (true, options) => {
            let usage = options.and_then(|options| options.get("include_usage")).and_then(Value::as_bool);
            Ok(Delivery::Stream { usage: usage.unwrap_or(false) })
        }
    }
}

fn completion_tokens_max(members: &Map<String, Value>) -> Result<Option<u64>, Refusal> {
    let old = whole_number(members, "max_tokens")?;
    let new = whole_number(members, "max_completion_tokens")?;
    if old.is_some() && new.is_some() {
        let message = "Setting 'max_tokens' and 'max_completion_tokens' at the same time is not supported.";
        return Err(Refusal::bad_request(message, Some("max_tokens")));
    }
    Ok(new.or(old))
}

/// The member as an integer of 1 or more, if it is there.
fn whole_number(members: &Map<String, Value>, name: &'static str) -> Result<Option<u64>, Refusal> {
    match members.get(name) {
        None | Some(Value::Null) => Ok(None),
        Some(value) => match value.as_u64() {
            Some(number @ 1..) => Ok(Some(number)),
            Some(0) | None => Err(Refusal::bad_request(
                format!("'{name}' is {value}, want an integer of 1 or more"),
                Some(name),
            )),
        },
    }
}

fn forced_tool(members: &Map<String, Value>) -> Result<Option<ForcedTool>, Refusal> {
    let tools = match members.get("tools") {
        None | Some(Value::Null) => &[][..],
        Some(Value::Array(tools)) => tools,
        Some(_) => return Err(Refusal::bad_request("'tools' is not an array", Some("tools"))),
    };
    let wanted = match members.get("tool_choice") {
        None | Some(Value::Null) => return Ok(None),
        Some(Value::String(choice)) if choice != "required" => return Ok(None), // "auto" or "none": we do not call
        Some(Value::String(_)) => None,
        Some(choice) => match choice.pointer("/function/name").and_then(Value::as_str) {
            Some(name) => Some(name),
            None => return Err(Refusal::bad_request("'tool_choice' names no function", Some("tool_choice"))),
        },
    };
    let mut functions = tools.iter().filter_map(|tool| tool.get("function"));
    let name_of = |function: &Value| function.get("name").and_then(Value::as_str).map(str::to_owned);
    let found = functions.find_map(|function| {
        let name = name_of(function)?;
        let parameters = function.get("parameters").cloned().unwrap_or_default();
        wanted.is_none_or(|wanted| wanted == name).then_some(ForcedTool { name, parameters })
    });
    match found {
        Some(tool) => Ok(Some(tool)),
        None => Err(Refusal::bad_request("'tool_choice' is not among the 'tools'", Some("tool_choice"))),
    }
}

#[cfg(test)]
mod tests;
