//! Tools on offer, and which of them the model may, must or must not call.

use std::borrow::Cow;

use serde_json::value::RawValue;
use sluice_plugin::adapter::PluginError;

use crate::json::{Kind, Node, Object, unserved};
use crate::wire::{Tool, ToolChoice};

type Offer<'a> = (Vec<Tool<'a>>, Option<ToolChoice<'a>>);

pub fn map<'a>(asked: &mut Object<'a>) -> Result<Offer<'a>, PluginError> {
    for legacy in ["functions", "function_call"] {
        if let Some(node) = asked.take(legacy) {
            return Err(node.unserved("is no longer used; send tools and tool_choice"));
        }
    }
    let tools = asked.take("tools").map_or(Ok(Vec::new()), |tools| tools.objects())?;
    let tools: Vec<Tool<'a>> = tools.into_iter().map(tool).collect::<Result<_, _>>()?;
    let choice = asked.take("tool_choice").map_or(Ok(None), |node| choice(node).map(Some))?;
    let parallel = asked.take("parallel_tool_calls").map_or(Ok(true), |node| node.truth())?;
    let choice = match choice {
        // Without tools Anthropic refuses even these two, which then say what happens anyway.
        Some(choice) if tools.is_empty() && matches!(choice.kind, "auto" | "none") => None,
        // Where nothing may be called, nothing is called in parallel, and the member is refused.
        Some(choice) if choice.kind == "none" => Some(choice),
        Some(choice) => Some(ToolChoice { disable_parallel_tool_use: !parallel, ..choice }),
        None if parallel || tools.is_empty() => None,
        None => Some(ToolChoice { disable_parallel_tool_use: true, ..plain("auto") }),
    };
    Ok((tools, choice))
}

fn tool(mut tool: Object<'_>) -> Result<Tool<'_>, PluginError> {
    let kind = tool.want("type")?;
    if kind.text()? != "function" {
        return Err(kind.unserved("Anthropic is offered functions only; describe the tool as one"));
    }
    let mut function = tool.want("function")?.object()?;
    let mapped = Tool {
        name: function.want("name")?.raw,
        description: function.take_raw("description"),
        input_schema: function
            .take_raw("parameters")
            .map_or_else(no_parameters, |raw| Ok(Cow::Borrowed(raw)))?,
        strict: function.take_raw("strict"),
        cache_control: tool.take_raw("cache_control"),
    };
    function.finish(&[])?;
    tool.finish(&[])?;
    Ok(mapped)
}

/// OpenAI's functions may leave their parameters out, Anthropic's tools must say that they have none.
fn no_parameters<'a>() -> Result<Cow<'a, RawValue>, PluginError> {
    let none = RawValue::from_string(r#"{"type":"object","properties":{}}"#.into());
    none.map(Cow::Owned).map_err(|error| PluginError::Internal(error.to_string()))
}

fn choice(node: Node<'_>) -> Result<ToolChoice<'_>, PluginError> {
    if node.kind() == Kind::Text {
        return match node.text()?.as_ref() {
            "none" => Ok(plain("none")),
            "auto" => Ok(plain("auto")),
            "required" => Ok(plain("any")),
            _ => Err(node.unserved("none, auto, required or a function is wanted")),
        };
    }
    let mut choice = node.object()?;
    let kind = choice.want("type")?;
    if kind.text()? != "function" {
        return Err(kind.unserved("Anthropic can be made to call a function only; offer fewer tools instead"));
    }
    let name = choice.want("function")?.object()?.want("name")?;
    if name.kind() != Kind::Text {
        return Err(unserved(&name.path, "a string is wanted"));
    }
    Ok(ToolChoice { name: Some(name.raw), ..plain("tool") })
}

fn plain<'a>(kind: &'static str) -> ToolChoice<'a> {
    ToolChoice { kind, name: None, disable_parallel_tool_use: false }
}
