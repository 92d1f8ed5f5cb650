//! How long, how deep, how freely and in what form the model answers.

use serde_json::value::RawValue;
use sluice_plugin::adapter::PluginError;

use crate::config::Config;
use crate::json::{Kind, Node, Object};
use crate::wire::{Format, Metadata, OutputConfig, Thinking};

/// Tokens of thinking for each effort. Anthropic wants 1,024 at least.
const BUDGETS: [(&str, u64); 3] = [("low", 1024), ("medium", 4096), ("high", 16_384)];

/// Anthropic's highest temperature; OpenAI's is 2.
const TEMPERATURE_MAX: f64 = 1.0;

pub struct Depth<'a> {
    pub max_tokens: u64,
    pub thinking: Option<Thinking<'a>>,
}

/// Thinking counts towards `max_tokens` and must stay below it: an effort raises the limit by its
/// budget, so that the answer has the room that was asked for. Anthropic's own `thinking` passes,
/// and the effort beside it says nothing more.
pub fn depth<'a>(asked: &mut Object<'a>, config: &Config) -> Result<Depth<'a>, PluginError> {
    let newer = asked.take("max_completion_tokens");
    let older = asked.take("max_tokens");
    let limit = newer.or(older);
    let max_tokens = limit.as_ref().map_or(Ok(config.default_max_tokens), Node::count)?;
    let effort = asked.take("reasoning_effort");
    if let Some(own) = asked.take_raw("thinking") {
        return Ok(Depth { max_tokens, thinking: Some(Thinking::Own(own)) });
    }
    let Some(budget_tokens) = effort.map_or(Ok(None), |effort| budget(&effort))? else {
        return Ok(Depth { max_tokens, thinking: None });
    };
    let raised = max_tokens.checked_add(budget_tokens);
    let max_tokens = raised.ok_or_else(|| PluginError::InvalidRequest("max_tokens: is too large".into()))?;
    Ok(Depth { max_tokens, thinking: Some(Thinking::Budget { kind: "enabled", budget_tokens }) })
}

fn budget(effort: &Node<'_>) -> Result<Option<u64>, PluginError> {
    let name = effort.text()?;
    if matches!(name.as_ref(), "none" | "minimal") {
        return Ok(None);
    }
    let known = BUDGETS.iter().find(|(known, _)| *known == name);
    let wanted = "none, minimal, low, medium or high is wanted; for more, send Anthropic's thinking";
    known.map(|(_, tokens)| Some(*tokens)).ok_or_else(|| effort.unserved(wanted))
}

pub fn temperature<'a>(asked: &mut Object<'a>) -> Result<Option<&'a RawValue>, PluginError> {
    let Some(node) = asked.take("temperature") else { return Ok(None) };
    if node.number()? > TEMPERATURE_MAX {
        return Err(node.unserved("Anthropic's highest is 1; send 0 to 1"));
    }
    Ok(Some(node.raw))
}

pub fn stop_sequences<'a>(asked: &mut Object<'a>) -> Result<Vec<&'a RawValue>, PluginError> {
    let Some(node) = asked.take("stop") else { return Ok(Vec::new()) };
    match node.kind() {
        Kind::Text => Ok(vec![node.raw]),
        Kind::List => node.items(),
        Kind::Object | Kind::Plain => Err(node.unserved("a string or a list of strings is wanted")),
    }
}

/// Both of OpenAI's names for whom the request is made; the newer one counts.
pub fn metadata<'a>(asked: &mut Object<'a>) -> Option<Metadata<'a>> {
    let older = asked.take_raw("user");
    let newer = asked.take_raw("safety_identifier");
    newer.or(older).map(|user_id| Metadata { user_id })
}

/// OpenAI's `response_format`, or Anthropic's own `output_config`.
pub fn output_config<'a>(asked: &mut Object<'a>) -> Result<Option<OutputConfig<'a>>, PluginError> {
    let own = asked.take_raw("output_config").map(OutputConfig::Own);
    let Some(node) = asked.take("response_format") else { return Ok(own) };
    let mut wanted = node.clone().object()?;
    let kind = wanted.want("type")?;
    match kind.text()?.as_ref() {
        "text" => Ok(own),
        "json_schema" if own.is_some() => Err(node.unserved("say it in output_config, or leave that out")),
        "json_schema" => {
            // `name`, `description` and `strict` have no place there: the schema is always kept to.
            let schema = wanted.want("json_schema")?.object()?.want("schema")?.raw;
            Ok(Some(OutputConfig::Format { format: Format { kind: "json_schema", schema } }))
        }
        "json_object" => Err(node.unserved("Anthropic has no json_object; send json_schema with a schema")),
        _ => Err(kind.unserved("text or json_schema is wanted")),
    }
}
