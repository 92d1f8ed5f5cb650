//! An adapter that passes admission and then does what the target's model is called.
//!
//! One upstream serves all misdeeds, so that a test can do something honest before and
//! after. The routes declared make each path fail for its own reason, not for the route.

mod misdeeds;
mod snoop;

use misdeeds::{Breach, honest_plan};
use sluice_plugin::adapter::{
    Adapter, Decision, Inbound, Level, Manifest, Mapped, Phase, PluginError, Route, SameWire, SecretSlot,
    Setup, log,
};
use sluice_plugin::codes::{endpoint, surface};

struct Hostile;

impl Adapter for Hostile {
    type Mapper = SameWire;

    fn describe() -> Manifest {
        let route = |path: &str| Route { endpoint: endpoint::CHAT, method: "POST".into(), path: path.into() };
        Manifest {
            id: "hostile-adapter".into(),
            version: env!("CARGO_PKG_VERSION").into(),
            doc: "For tests: misbehaves as the target's model says.".into(),
            surfaces: vec![surface::OPENAI_CHAT],
            secrets: vec![SecretSlot { name: "api-key".into(), required: false, doc: "A canary.".into() }],
            routes: vec![route("/chat/completions"), route("/models/{model}/chat")],
            headers: vec!["content-type".into(), "x-note".into()],
            config_schema: String::new(),
            extra: Vec::new(),
        }
    }

    fn configure(_setup: Setup) -> Result<Hostile, PluginError> {
        Ok(Hostile)
    }

    fn plan(&self, request: &Inbound, target_model: &str) -> Result<Decision, PluginError> {
        match target_model {
            "honest" => Ok(Decision::Answer(vec![piece(ANSWER.as_bytes().to_vec())])),
            // Reads something besides the shape, so that each request is planned anew.
            "send" => {
                let _ = request.sizes();
                Ok(Decision::Send(honest_plan()))
            }
            "asks-all" => Ok(Decision::Answer(vec![piece(snoop::everything(request))])),
            "logs" => {
                // 1,000 messages of 10 KB, each with a line that looks like the host's own.
                let forged = format!("\n2026-01-01T00:00:00Z  INFO forged\x1b[2J{}", "x".repeat(10_000));
                (0..1_000).for_each(|_| log(Level::Info, &forged));
                Ok(Decision::Answer(vec![piece(ANSWER.as_bytes().to_vec())]))
            }
            "spin" => misdeeds::spin(),
            "recurse" => misdeeds::recurse(),
            "overflow" => misdeeds::overflow(),
            "hoard" => misdeeds::hoard(),
            "huge" => Ok(Decision::Answer(misdeeds::huge())),
            "silent" => Ok(Decision::Answer(Vec::new())),
            "panic" => panic!("a guest gave up"),
            "error" => Err(PluginError::Internal("a guest says that it failed".into())),
            "error-long" => Err(PluginError::Internal("long ".repeat(LONG))),
            "invalid-request-long" => Err(PluginError::InvalidRequest("long ".repeat(LONG))),
            "invalid-request" => Err(PluginError::InvalidRequest("messages: the guest wants none".into())),
            breach => match Breach::named(breach) {
                Some(breach) => Ok(Decision::Send(breach.plan())),
                // The vectors of admission.
                None => Ok(Decision::Answer(vec![piece(ANSWER.as_bytes().to_vec())])),
            },
        }
    }
}

/// Words of a text that is too long for a message: 10 MB.
const LONG: usize = 2 * 1024 * 1024;

/// A small completion, the same for everybody.
const ANSWER: &str = r#"{"id":"chatcmpl-honest","object":"chat.completion","created":0,"model":"honest","choices":[{"index":0,"message":{"role":"assistant","content":"honest","refusal":null},"logprobs":null,"finish_reason":"stop"}],"usage":{"prompt_tokens":1,"completion_tokens":1,"total_tokens":2}}"#;

fn piece(wire: Vec<u8>) -> Mapped {
    Mapped { wire, phase: Phase::Done, usage: None, finish: None, fault: None }
}

sluice_plugin::export_adapter!(Hostile);
