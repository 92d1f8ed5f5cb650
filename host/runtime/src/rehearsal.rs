//! The vectors of each kind: what a plugin set up for its use must get through before it serves.
//!
//! A plugin may refuse what it is shown; it may not break down over it, nor break the contract.

use std::sync::Arc;

use sluice_core::codes::{Endpoint, Surface, feature};
use sluice_core::ranking::{Candidate, NO_CAP, NO_PRICE, View};

use crate::adapter::Adapter;
use crate::fault::{CallError, Refused};
use crate::inbound::{Identity, Inbound, Shape, Sizes};
use crate::policy::Policy;

/// Candidates of the vectors: the fewest that are ranked at all, a usual number, the most.
const CANDIDATES: [u32; 3] = [2, 16, 64];

/// A request that any client may send.
const REQUEST: &str = r#"{"model":"vector","messages":[{"role":"user","content":"one two three"}]}"#;
const STREAMED: &str = r#"{"model":"vector","messages":[{"role":"system","content":"short"},{"role":"user","content":[{"type":"text","text":"one"}]}],"stream":true,"max_tokens":16}"#;

/// One request, as the vectors have it.
struct Sample {
    text: &'static str,
    json: serde_json::Value,
}

/// Plans the vectors.
pub(crate) fn adapter(adapter: &Adapter) -> Result<(), CallError> {
    let understudy = adapter.understudy();
    for text in [REQUEST, STREAMED] {
        let json = serde_json::from_str(text).unwrap_or_default();
        tolerable(understudy.plan(Arc::new(Sample { text, json }), "vector"))?;
    }
    Ok(())
}

/// Ranks the vectors.
pub(crate) fn policy(policy: &Policy) -> Result<(), CallError> {
    let understudy = policy.understudy();
    for count in CANDIDATES {
        for price in [NO_PRICE, 0, 1_000_000] {
            tolerable(understudy.rank(&view(), &candidates(count, price)))?;
        }
    }
    Ok(())
}

fn tolerable<T>(answered: Result<T, CallError>) -> Result<(), CallError> {
    match answered {
        Ok(_) | Err(CallError::Refused(Refused::InvalidRequest(_) | Refused::Unsupported(_))) => Ok(()),
        Err(error) => Err(error),
    }
}

fn view() -> View {
    View {
        endpoint: Endpoint::Chat.code(),
        budget_left: NO_CAP,
        deadline_ms: 600_000,
        now_ms: 1_800_000_000_000,
        ..View::default()
    }
}

/// The dearest first, so that whoever goes by price has something to do.
fn candidates(count: u32, price: u64) -> Vec<Candidate> {
    let candidate = |id: u32| Candidate {
        id,
        priority: 1,
        weight: 1,
        expected: if price == NO_PRICE { price } else { price * u64::from(count - id) },
        worst: if price == NO_PRICE { price } else { 2 * price * u64::from(count - id) },
        success_permille: 1000,
        ..Candidate::default()
    };
    (0..count).map(candidate).collect()
}

impl Inbound for Sample {
    fn shape(&self) -> Shape {
        Shape {
            surface: Surface::OpenAiChat.code(),
            endpoint: Endpoint::Chat.code(),
            model: "vector".into(),
            streaming: self.json["stream"] == true,
            features: if self.json["max_tokens"].is_null() { 0 } else { feature::OUTPUT_LIMIT },
        }
    }

    fn sizes(&self) -> Sizes {
        let body_bytes = u32::try_from(self.text.len()).unwrap_or(u32::MAX);
        Sizes { body_bytes, prompt_tokens_estimate: 3, choices: 1 }
    }

    fn identity(&self) -> Identity {
        Identity { request_id: "vector".into(), received_s: 1_800_000_000 }
    }

    fn header(&self, _name: &str) -> Option<String> {
        None
    }

    fn field(&self, pointer: &str) -> Option<String> {
        self.json.pointer(pointer).map(ToString::to_string)
    }

    fn body(&self) -> Vec<u8> {
        self.text.as_bytes().to_vec()
    }
}
