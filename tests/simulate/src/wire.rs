//! Which vendor's API a request is made to, and who knows how that goes.

use http::{HeaderMap, HeaderName};
use serde_json::{Map, Value};

use crate::answer::Answer;
use crate::ask::Ask;
use crate::refusal::Refusal;
use crate::script::Script;
use crate::sse::{Data, Event};
use crate::{anthropic, openai};

/// A vendor's API.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Wire {
    OpenAi,
    Anthropic,
}

// === impl Wire ===

impl Wire {
    /// Of a request whose path does not say it.
    pub(crate) fn of(headers: &HeaderMap) -> Wire {
        if headers.contains_key(anthropic::VERSION) { Wire::Anthropic } else { Wire::OpenAi }
    }

    pub(crate) fn request_id_header(self) -> HeaderName {
        match self {
            Wire::OpenAi => HeaderName::from_static("x-request-id"),
            Wire::Anthropic => HeaderName::from_static("request-id"),
        }
    }

    /// Refuses who has no key, or not the one wanted.
    pub(crate) fn let_in(self, headers: &HeaderMap, script: &Script) -> Result<(), Refusal> {
        match self {
            Wire::OpenAi => openai::let_in(headers, script.key.as_deref()),
            Wire::Anthropic => anthropic::let_in(headers, script),
        }
    }

    pub(crate) fn check(self, members: &Map<String, Value>) -> Result<Ask, Refusal> {
        match self {
            Wire::OpenAi => openai::chat::check(members),
            Wire::Anthropic => anthropic::messages::check(members),
        }
    }

    /// The list of these models.
    pub(crate) fn models(self, ids: &[&str], owner: &str) -> Value {
        match self {
            Wire::OpenAi => openai::models(ids, owner),
            Wire::Anthropic => anthropic::models(ids),
        }
    }

    pub(crate) fn whole(self, answer: &Answer) -> Value {
        match self {
            Wire::OpenAi => openai::whole(answer),
            Wire::Anthropic => anthropic::whole(answer),
        }
    }

    /// All events of a stream, with the one that ends it.
    pub(crate) fn events(self, answer: &Answer, usage_wanted: bool) -> Vec<Event> {
        match self {
            Wire::OpenAi => openai::events(answer, usage_wanted),
            Wire::Anthropic => anthropic::events(answer),
        }
    }

    /// The error envelope.
    pub(crate) fn error(self, refusal: &Refusal, request_id: &str) -> Value {
        match self {
            Wire::OpenAi => openai::error(refusal),
            Wire::Anthropic => anthropic::error(refusal, request_id),
        }
    }

    /// How a stream says that there was an error.
    pub(crate) fn error_event(self, refusal: &Refusal, request_id: &str) -> Event {
        let name = match self {
            Wire::OpenAi => None,
            Wire::Anthropic => Some("error"),
        };
        Event { name, data: Data::Json(self.error(refusal, request_id)), tokens: 0 }
    }
}
