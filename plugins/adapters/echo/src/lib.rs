//! Answers with the user's own last message, word by word: an upstream that needs no
//! network and no key.
//!
//! Its usage is honest in its own unit: a token is a whitespace-separated word.

mod question;
mod wire;

use question::Question;
use sluice_plugin::adapter::{Adapter, Decision, Inbound, Manifest, PluginError, SameWire, Setup, manifest};
use sluice_plugin::codes::{endpoint, surface};

struct Echo;

impl Adapter for Echo {
    type Mapper = SameWire;

    fn describe() -> Manifest {
        let doc = "Answers with the last user message; no network, no key.";
        Manifest { surfaces: vec![surface::OPENAI_CHAT], ..manifest("echo", env!("CARGO_PKG_VERSION"), doc) }
    }

    fn configure(_setup: Setup) -> Result<Echo, PluginError> {
        Ok(Echo)
    }

    fn self_test() -> Result<(), String> {
        question::self_test()
    }

    fn plan(&self, request: &Inbound, _target_model: &str) -> Result<Decision, PluginError> {
        let shape = request.shape();
        if shape.endpoint != endpoint::CHAT {
            return Err(PluginError::Unsupported("echo serves chat completions".into()));
        }
        let question = Question::read(|pointer| request.field(pointer))?;
        let identity = request.identity();
        let answer = wire::Answer {
            id: format!("chatcmpl-{}", identity.request_id),
            created_s: identity.received_s,
            model: shape.model,
            question,
        };
        Ok(Decision::Answer(if shape.streaming { answer.stream() } else { vec![answer.whole()] }))
    }
}

sluice_plugin::export_adapter!(Echo);
