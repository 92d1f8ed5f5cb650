//! A request for a chat completion, checked as the vendor checks it.
//!
//! Members that change nothing here (temperature, stop, logprobs, …) are not
//! looked at.

use serde_json::{Map, Value};

use crate::ask::{Ask, Calling, Delivery, FILE_TOKENS, PICTURE_TOKENS, Thinking, Tool};
use crate::refusal::Refusal;
use crate::words;

/// Most choices of one request: 128, which is OpenAI's own bound.
const CHOICES_MAX: u64 = 128;

/// How the URL of an image begins.
const IMAGE_URL_STARTS: [&str; 3] = ["data:image/", "https://", "http://"];

const ROLES: [&str; 6] = ["developer", "system", "user", "assistant", "tool", "function"];

/// Takes the request, or says why not.
pub(crate) fn check(members: &Map<String, Value>) -> Result<Ask, Refusal> {
    let Some(model) = members.get("model").and_then(Value::as_str).filter(|model| !model.is_empty()) else {
        return Err(Refusal::bad_request("you must provide a model parameter", Some("model")));
    };
    let messages = messages(members)?;
    let choices = whole_number(members, "n")?.unwrap_or(1);
    if choices > CHOICES_MAX {
        return Err(Refusal::bad_request(format!("'n' is {choices}, at most {CHOICES_MAX}"), Some("n")));
    }
    let choices_made = whole_number(members, "best_of")?.unwrap_or(1).max(choices);
    if choices_made > CHOICES_MAX {
        let message = format!("'best_of' is {choices_made}, at most {CHOICES_MAX}");
        return Err(Refusal::bad_request(message, Some("best_of")));
    }
    let role_of = |message: &Value| message.get("role").and_then(Value::as_str).map(str::to_owned);
    let answers_a_call =
        messages.last().and_then(role_of).is_some_and(|role| role == "tool" || role == "function");
    let (tools, calling) = calling(members)?;
    Ok(Ask {
        model: model.to_owned(),
        delivery: delivery(members)?,
        choices,
        choices_made,
        completion_tokens_max: completion_tokens_max(members)?,
        stop_sequences: Vec::new(),
        prompt_tokens: messages.iter().map(prompt_tokens).sum(),
        last_user_text: messages
            .iter()
            .rfind(|message| role_of(message).is_some_and(|role| role == "user"))
            .map(|message| texts(message).concat())
            .unwrap_or_default(),
        tools,
        calling: if calling == Calling::May && answers_a_call { Calling::No } else { calling },
        one_call_at_most: members.get("parallel_tool_calls") == Some(&Value::Bool(false)),
        thinking: Thinking::IfScripted,
    })
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
        for image in parts(message, "image_url") {
            let url = image.pointer("/image_url/url").and_then(Value::as_str);
            let begins = |start| url.is_some_and(|url| url.starts_with(start));
            if !IMAGE_URL_STARTS.into_iter().any(begins) {
                return refuse(format!("'messages[{index}].content' has an image without a URL of one"));
            }
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

/// The parts of a message that are of this type.
fn parts<'m>(message: &'m Value, wanted: &'static str) -> impl Iterator<Item = &'m Value> {
    let parts = message.get("content").and_then(Value::as_array).into_iter().flatten();
    parts.filter(move |part| part.get("type").is_some_and(|kind| kind == wanted))
}

fn prompt_tokens(message: &Value) -> u64 {
    let words: u64 = texts(message).into_iter().map(words::count).sum();
    let count = |wanted| parts(message, wanted).count() as u64;
    words + count("image_url") * PICTURE_TOKENS + count("file") * FILE_TOKENS
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

/// The functions that may be called, and whether one must be.
fn calling(members: &Map<String, Value>) -> Result<(Vec<Tool>, Calling), Refusal> {
    let tools = match members.get("tools") {
        None | Some(Value::Null) => &[][..],
        Some(Value::Array(tools)) => tools,
        Some(_) => return Err(Refusal::bad_request("'tools' is not an array", Some("tools"))),
    };
    let tool = |function: &Value| {
        let name = function.get("name")?.as_str()?.to_owned();
        Some(Tool { name, parameters: function.get("parameters").cloned().unwrap_or_default() })
    };
    let mut tools: Vec<Tool> =
        tools.iter().filter_map(|tool| tool.get("function")).filter_map(tool).collect();
    match members.get("tool_choice") {
        Some(Value::String(choice)) if choice == "none" => tools.clear(),
        None | Some(Value::Null) => (),
        Some(Value::String(choice)) if choice != "required" => (), // "auto"
        Some(Value::String(_)) if !tools.is_empty() => return Ok((tools, Calling::Must)),
        Some(choice) => {
            let wanted = choice.pointer("/function/name").and_then(Value::as_str);
            tools.retain(|tool| wanted == Some(&tool.name));
            if tools.is_empty() {
                let message = "'tool_choice' names no function that is among the 'tools'";
                return Err(Refusal::bad_request(message, Some("tool_choice")));
            }
            return Ok((tools, Calling::Must));
        }
    }
    let calling = if tools.is_empty() { Calling::No } else { Calling::May };
    Ok((tools, calling))
}

#[cfg(test)]
mod tests;
