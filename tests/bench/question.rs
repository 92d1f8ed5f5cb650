//! The request that every measurement is about: the body that `load.lua` sends.

use sluice_core::codes::{Endpoint, Surface, feature};
use sluice_core::json::{self, Index, Pointer};
use sluice_runtime::{Identity, Inbound, Shape, Sizes};

pub(crate) const BODY: &str = r#"{"model":"gpt-4o-mini","messages":[{"role":"system","content":"You are helpful."},{"role":"user","content":"Hello!"}],"max_tokens":64}"#;

/// A request as adapters see it, without a gateway.
pub(crate) struct Question {
    index: Index,
}

// === impl Question ===

impl Question {
    /// # Errors
    ///
    /// None while [`BODY`] is JSON.
    pub(crate) fn new() -> Result<Question, json::ScanError> {
        Ok(Question { index: Index::scan(BODY.as_bytes())? })
    }
}

impl Inbound for Question {
    fn shape(&self) -> Shape {
        Shape {
            surface: Surface::OpenAiChat.code(),
            endpoint: Endpoint::Chat.code(),
            model: "gpt-4o-mini".into(),
            streaming: false,
            features: feature::OUTPUT_LIMIT,
        }
    }

    fn sizes(&self) -> Sizes {
        Sizes {
            body_bytes: u32::try_from(BODY.len()).unwrap_or(u32::MAX),
            prompt_tokens_estimate: 9,
            choices: 1,
        }
    }

    fn identity(&self) -> Identity {
        Identity { request_id: "0123456789abcdef".into(), received_s: 1_700_000_000 }
    }

    fn header(&self, _name: &str) -> Option<String> {
        None
    }

    fn field(&self, pointer: &str) -> Option<String> {
        let value = json::get(BODY.as_bytes(), &self.index, &Pointer::parse(pointer).ok()?).ok()??;
        String::from_utf8(value.to_vec()).ok()
    }

    fn body(&self) -> Vec<u8> {
        BODY.into()
    }
}
