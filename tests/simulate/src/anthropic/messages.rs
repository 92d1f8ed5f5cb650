//! A request for a message, checked as the vendor documents it.

use serde_json::{Map, Value};

use super::turns::{self, Role, Turn};
use crate::ask::{Ask, Calling, Delivery, Thinking, Tool};
use crate::refusal::Refusal;
use crate::words;

/// All members of a request; the vendor refuses others.
const MEMBERS: [&str; 22] = [
    "cache_control",
    "container",
    "context_management",
    "diagnostics",
    "inference_geo",
    "max_tokens",
    "mcp_servers",
    "messages",
    "metadata",
    "model",
    "output_config",
    "service_tier",
    "speed",
    "stop_sequences",
    "stream",
    "system",
    "temperature",
    "thinking",
    "tool_choice",
    "tools",
    "top_k",
    "top_p",
];

/// Fewest tokens to think with: 1,024, as documented.
const BUDGET_TOKENS_MIN: u64 = 1_024;

/// Longest name of a tool: 128 letters, as documented.
const TOOL_NAME_CHARS_MAX: usize = 128;

/// Takes the request, or says why not.
pub(crate) fn check(members: &Map<String, Value>) -> Result<Ask, Refusal> {
    if let Some(name) = members.keys().find(|name| !MEMBERS.contains(&name.as_str())) {
        return Err(refusal(format!("{name}: Extra inputs are not permitted")));
    }
    let Some(model) = members.get("model").and_then(Value::as_str).filter(|model| !model.is_empty()) else {
        return Err(refusal("model: Field required"));
    };
    let Some(tokens_max @ 1..) = members.get("max_tokens").and_then(Value::as_u64) else {
        return Err(refusal("max_tokens: Field required, an integer of 1 or more"));
    };
    let thinking = thinking(members.get("thinking"), tokens_max)?;
    let turns = turns::read(members.get("messages"), members.get("thinking").is_some_and(is_enabled))?;
    let Call { tools, calling, one_at_most } = calling(members)?;
    if calling == Calling::Must && thinking == Thinking::Yes {
        return Err(refusal("Thinking may not be enabled when tool_choice forces tool use."));
    }
    let answers_a_call = turns.last().is_some_and(Turn::answers_a_call);
    check_temperature(members.get("temperature"))?;
    Ok(Ask {
        model: model.to_owned(),
        delivery: match members.get("stream") {
            None | Some(Value::Bool(false)) => Delivery::Whole,
            Some(Value::Bool(true)) => Delivery::Stream { usage: true },
            Some(_) => return Err(refusal("stream: Input should be a valid boolean")),
        },
        choices: 1,
        choices_made: 1,
        completion_tokens_max: Some(tokens_max),
        stop_sequences: stop_sequences(members.get("stop_sequences"))?,
        prompt_tokens: system_words(members.get("system"))? + turns.iter().map(Turn::tokens).sum::<u64>(),
        last_user_text: last_user_text(&turns),
        tools,
        calling: if calling == Calling::May && answers_a_call { Calling::No } else { calling },
        one_call_at_most: one_at_most,
        thinking,
    })
}

/// What `tools` and `tool_choice` come to.
struct Call {
    tools: Vec<Tool>,
    calling: Calling,
    one_at_most: bool,
}

fn calling(members: &Map<String, Value>) -> Result<Call, Refusal> {
    let mut tools = tools(members.get("tools"))?;
    let may = if tools.is_empty() { Calling::No } else { Calling::May };
    let Some(choice) = members.get("tool_choice") else {
        return Ok(Call { tools, calling: may, one_at_most: false });
    };
    let calling = match choice.get("type").and_then(Value::as_str) {
        Some("auto") => may,
        Some("none") => Calling::No,
        Some("any") => Calling::Must,
        Some("tool") => {
            let wanted = choice.get("name").and_then(Value::as_str);
            tools.retain(|tool| wanted == Some(&tool.name));
            Calling::Must
        }
        Some(_) | None => return Err(refusal("tool_choice.type: want auto, any, tool or none")),
    };
    if calling == Calling::Must && tools.is_empty() {
        return Err(refusal("tool_choice: names no tool that is among the `tools`"));
    }
    let one_at_most = choice.get("disable_parallel_tool_use") == Some(&Value::Bool(true));
    Ok(Call { tools, calling, one_at_most })
}

/// The tools that a client runs; the vendor's own have no schema and are not called here.
fn tools(tools: Option<&Value>) -> Result<Vec<Tool>, Refusal> {
    let tools = match tools {
        None => &[][..],
        Some(Value::Array(tools)) => tools,
        Some(_) => return Err(refusal("tools: Input should be a valid array")),
    };
    let mut ours = Vec::new();
    for (index, tool) in tools.iter().enumerate() {
        let name = tool.get("name").and_then(Value::as_str).filter(|name| is_tool_name(name));
        let Some(name) = name else {
            return Err(refusal(format!(
                "tools.{index}.name: want 1 to {TOOL_NAME_CHARS_MAX} letters, digits, _ or -"
            )));
        };
        if tool.get("type").is_some_and(|kind| kind != "custom") {
            continue;
        }
        match tool.get("input_schema") {
            Some(schema) if schema.get("type").is_some_and(|kind| kind == "object") => {
                ours.push(Tool { name: name.to_owned(), parameters: schema.clone() });
            }
            Some(_) => return Err(refusal(format!("tools.{index}.input_schema.type: want \"object\""))),
            None => return Err(refusal(format!("tools.{index}.input_schema: Field required"))),
        }
    }
    Ok(ours)
}

fn is_tool_name(name: &str) -> bool {
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_' || byte == b'-';
    (1..=TOOL_NAME_CHARS_MAX).contains(&name.len()) && name.bytes().all(allowed)
}

fn thinking(thinking: Option<&Value>, tokens_max: u64) -> Result<Thinking, Refusal> {
    let Some(thinking) = thinking else { return Ok(Thinking::No) };
    match thinking.get("type").and_then(Value::as_str) {
        Some("disabled") => Ok(Thinking::No),
        Some("adaptive") => Ok(Thinking::Yes),
        Some("enabled") => match thinking.get("budget_tokens").and_then(Value::as_u64) {
            Some(budget @ BUDGET_TOKENS_MIN..) if budget < tokens_max => Ok(Thinking::Yes),
            Some(BUDGET_TOKENS_MIN..) => {
                Err(refusal("`max_tokens` must be greater than `thinking.budget_tokens`"))
            }
            Some(_) | None => Err(refusal(format!(
                "thinking.budget_tokens: want an integer of {BUDGET_TOKENS_MIN} or more"
            ))),
        },
        Some(_) | None => Err(refusal("thinking.type: want enabled, disabled or adaptive")),
    }
}

fn is_enabled(thinking: &Value) -> bool {
    thinking.get("type").is_some_and(|kind| kind == "enabled")
}

fn stop_sequences(sequences: Option<&Value>) -> Result<Vec<String>, Refusal> {
    let wrong = || refusal("stop_sequences: want an array of texts that are not white space alone");
    let sequences = match sequences {
        None => return Ok(Vec::new()),
        Some(Value::Array(sequences)) => sequences,
        Some(_) => return Err(wrong()),
    };
    let text = |sequence: &Value| {
        let text = sequence.as_str().filter(|text| !text.trim().is_empty());
        text.map(str::to_owned).ok_or_else(wrong)
    };
    sequences.iter().map(text).collect()
}

fn check_temperature(temperature: Option<&Value>) -> Result<(), Refusal> {
    match temperature.map(Value::as_f64) {
        None => Ok(()),
        Some(Some(temperature)) if (0.0..=1.0).contains(&temperature) => Ok(()),
        Some(_) => Err(refusal("temperature: range: 0..1")),
    }
}

fn system_words(system: Option<&Value>) -> Result<u64, Refusal> {
    let wrong = || refusal("system: want a text or blocks of text");
    let text = |block: &Value| {
        let is_text = block.get("type").is_some_and(|kind| kind == "text");
        let text = block.get("text").and_then(Value::as_str).filter(|_| is_text);
        text.map(words::count).ok_or_else(wrong)
    };
    match system {
        None => Ok(0),
        Some(Value::String(text)) => Ok(words::count(text)),
        Some(Value::Array(blocks)) => blocks.iter().map(text).sum(),
        Some(_) => Err(wrong()),
    }
}

/// A turn that only answers calls is not the user speaking.
fn last_user_text(turns: &[Turn<'_>]) -> String {
    let spoke = |turn: &&Turn<'_>| turn.role == Role::User && turn.speaks();
    turns.iter().rfind(spoke).map(Turn::text).unwrap_or_default()
}

fn refusal(message: impl Into<String>) -> Refusal {
    Refusal::bad_request(message, None)
}

#[cfg(test)]
mod tests;
