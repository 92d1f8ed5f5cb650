//! What an OpenAI chat request becomes on Anthropic's wire.
//!
//! Nothing is lost in silence: a member is mapped, passed, dropped where the answer is the same
//! without it, or refused with a word on what to do instead.

mod messages;
mod parts;
mod sampling;
mod tools;
mod unmapped;

use sluice_plugin::adapter::PluginError;

use crate::carry::Carry;
use crate::config::Config;
use crate::json::{Node, Object};
use crate::openai::internal;
use crate::wire::{Own, Request};

pub struct Outgoing {
    pub body: Vec<u8>,
    pub carry: Carry,
}

/// `streaming` is the host's word, since the client's answer is written by it.
pub fn map(
    body: &[u8],
    target_model: &str,
    streaming: bool,
    config: &Config,
) -> Result<Outgoing, PluginError> {
    let mut asked = Object::body(body)?;
    asked.take("model");
    asked.take("stream");
    let conversation = messages::map(&asked.want("messages")?)?;
    let (tools, tool_choice) = tools::map(&mut asked)?;
    let depth = sampling::depth(&mut asked, config)?;
    let request = Request {
        model: target_model,
        max_tokens: depth.max_tokens,
        system: conversation.system,
        messages: conversation.turns,
        tools,
        tool_choice,
        thinking: depth.thinking,
        output_config: sampling::output_config(&mut asked)?,
        temperature: sampling::temperature(&mut asked)?,
        top_p: asked.take_raw("top_p"),
        stop_sequences: sampling::stop_sequences(&mut asked)?,
        metadata: sampling::metadata(&mut asked),
        own: own(&mut asked)?,
        stream: streaming,
    };
    let include_usage = include_usage(&mut asked)?;
    for node in asked.rest() {
        unmapped::check(&node)?;
    }
    Ok(Outgoing { body: written(&request, body.len())?, carry: Carry { include_usage } })
}

/// Allocated once for most requests: growing would need the room of a long prompt three times over.
fn written(request: &Request<'_>, body_bytes: usize) -> Result<Vec<u8>, PluginError> {
    let mut written = Vec::with_capacity(body_bytes + body_bytes / 8 + 1024);
    serde_json::to_writer(&mut written, request).map_err(internal)?;
    Ok(written)
}

fn own<'a>(asked: &mut Object<'a>) -> Result<Own<'a>, PluginError> {
    Ok(Own {
        top_k: asked.take_raw("top_k"),
        cache_control: asked.take_raw("cache_control"),
        container: asked.take_raw("container"),
        mcp_servers: asked.take_raw("mcp_servers"),
        service_tier: service_tier(asked)?.map(|node| node.raw),
    })
}

/// Both know `auto`, which is also what both do unasked; the other tiers differ.
fn service_tier<'a>(asked: &mut Object<'a>) -> Result<Option<Node<'a>>, PluginError> {
    let Some(node) = asked.take("service_tier") else { return Ok(None) };
    match node.text()?.as_ref() {
        "auto" => Ok(None),
        "standard_only" => Ok(Some(node)),
        _ => Err(node.unserved("Anthropic has \"auto\" and \"standard_only\"; send one of them or none")),
    }
}

fn include_usage(asked: &mut Object<'_>) -> Result<bool, PluginError> {
    let Some(options) = asked.take("stream_options") else { return Ok(false) };
    let wanted = options.object()?.take("include_usage");
    wanted.map_or(Ok(false), |node| node.truth())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn body_of(request: &str) -> Result<String, String> {
        match map(request.as_bytes(), "m", false, &Config::default()) {
            Ok(outgoing) => Ok(String::from_utf8(outgoing.body).unwrap()),
            Err(PluginError::InvalidRequest(text) | PluginError::Unsupported(text)) => Err(text),
            Err(error) => panic!("{error:?}"),
        }
    }

    #[test]
    fn what_is_no_request_is_refused() {
        for body in ["", "[]", "{", r#"{"model":"m"}"#, r#"{"messages":"hi"}"#, r#"{"messages":[1]}"#] {
            assert!(body_of(body).is_err(), "{body}");
        }
    }

    /// The signature covers the block: another order, number form or white space could break it.
    #[test]
    fn thinking_blocks_keep_every_byte() {
        let block = r#"{ "signature" : "s\/+=", "type":"thinking",  "thinking":"\u00e9", "x": 1.0e0 }"#;
        let request = format!(
            r#"{{"messages":[{{"role":"user","content":"a"}},{{"role":"assistant","content":"b","thinking_blocks":[{block}]}}]}}"#
        );
        let body = body_of(&request).unwrap();
        assert!(body.contains(&format!(r#"[{block},{{"type":"text","text":"b"}}]"#)), "{body}");
    }
}
