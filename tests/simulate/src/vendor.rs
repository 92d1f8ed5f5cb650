//! What a vendor answers if nothing goes wrong: keys, models, completions.

use std::num::NonZeroUsize;
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use http::header::{AUTHORIZATION, CACHE_CONTROL, CONTENT_TYPE};
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode};
use serde_json::{Value, json};

use crate::answer::{Answer, Stamp};
use crate::body::Piece;
use crate::books::Entry;
use crate::chat::{self, ChatRequest, Delivery};
use crate::refusal::Refusal;
use crate::row::Billed;
use crate::script::Script;
use crate::sse;

/// Models listed for a vendor whose script names none.
const MODELS_LISTED: [&str; 2] = ["gpt-4o", "gpt-4o-mini"];

/// When the models say they were made, in seconds since 1970.
const MODEL_CREATED_S: u64 = 1_715_367_049;

const JSON: HeaderValue = HeaderValue::from_static("application/json");
const EVENT_STREAM: HeaderValue = HeaderValue::from_static("text/event-stream; charset=utf-8");
const NO_CACHE: HeaderValue = HeaderValue::from_static("no-cache");

/// A vendor, for one request.
pub(crate) struct Vendor<'a> {
    pub(crate) name: &'a str,
    pub(crate) script: &'a Script,
}

/// An answer that is ready to be sent, or to be spoilt by a fault.
pub(crate) struct Plan {
    pub(crate) status: StatusCode,
    pub(crate) headers: Vec<(HeaderName, HeaderValue)>,
    pub(crate) content: PlanContent,
    /// Billed as the answer begins.
    pub(crate) billed_first: Billed,
}

pub(crate) enum PlanContent {
    /// All there is to send, and the length to announce.
    Whole { bytes: Bytes, length: u64 },
    /// One piece for each event.
    Stream(Vec<Piece>),
}

// === impl Vendor ===

impl Vendor<'_> {
    pub(crate) fn models(&self, headers: &HeaderMap) -> Result<Plan, Refusal> {
        self.let_in(headers)?;
        let model = |id: &str| json!({ "id": id, "object": "model", "created": MODEL_CREATED_S, "owned_by": self.name });
        let data: Vec<Value> = match &self.script.models {
            Some(models) => models.iter().map(|id| model(id)).collect(),
            None => MODELS_LISTED.map(model).into(),
        };
        Ok(Plan::json(StatusCode::OK, &json!({ "object": "list", "data": data })))
    }

    /// Checks in the order of a real vendor: key, JSON, members, model.
    pub(crate) fn complete(&self, headers: &HeaderMap, body: &[u8], entry: &Entry) -> Result<Plan, Refusal> {
        self.let_in(headers)?;
        let members = chat::object(body)?;
        let model = members.get("model").and_then(Value::as_str);
        entry.asks(model, members.get("stream").and_then(Value::as_bool));
        let request = ChatRequest::check(&members)?;
        if let Some(models) = &self.script.models
            && !models.contains(&request.model)
        {
            return Err(Refusal::unknown_model(&request.model));
        }
        let stamp = Stamp { vendor: self.name.to_owned(), sequence: entry.sequence(), created_s: now_s() };
        let answer = Answer::new(&request, self.script.reply.as_deref(), stamp);
        Ok(self.plan(&answer, request.delivery))
    }

    /// A whole answer is billed as it begins; a stream word by word.
    fn plan(&self, answer: &Answer, delivery: Delivery) -> Plan {
        match delivery {
            Delivery::Whole => {
                Plan { billed_first: answer.billed(), ..Plan::json(StatusCode::OK, &answer.whole()) }
            }
            Delivery::Stream { usage } => Plan {
                status: StatusCode::OK,
                headers: vec![(CONTENT_TYPE, EVENT_STREAM), (CACHE_CONTROL, NO_CACHE)],
                content: PlanContent::Stream(sse::write(&answer.events(usage), &self.script.sse)),
                billed_first: Billed { completion_tokens: 0, ..answer.billed() },
            },
        }
    }

    fn let_in(&self, headers: &HeaderMap) -> Result<(), Refusal> {
        let bearer = headers.get(AUTHORIZATION).and_then(|value| value.to_str().ok()).and_then(|value| {
            let (scheme, key) = value.split_once(' ')?;
            scheme.eq_ignore_ascii_case("bearer").then(|| key.trim()).filter(|key| !key.is_empty())
        });
        match (bearer, self.script.key.as_deref()) {
            (None, _) => Err(Refusal::no_key()),
            (Some(key), Some(wanted)) if key != wanted => Err(Refusal::wrong_key()),
            (Some(_), _) => Ok(()),
        }
    }
}

// === impl Plan ===

impl Plan {
    pub(crate) fn json(status: StatusCode, value: &Value) -> Plan {
        Plan {
            status,
            headers: vec![(CONTENT_TYPE, JSON)],
            content: PlanContent::whole(value.to_string().into()),
            billed_first: Billed::default(),
        }
    }

    /// What is left of it if it breaks off after so many events. Of an answer
    /// that is not streamed, half the bytes, under the length of all.
    pub(crate) fn broken_off(mut self, events: NonZeroUsize) -> Plan {
        match &mut self.content {
            PlanContent::Whole { bytes, length: _ } => bytes.truncate(bytes.len() / 2),
            PlanContent::Stream(pieces) => pieces.truncate(events.get()),
        }
        self
    }
}

impl PlanContent {
    pub(crate) fn whole(bytes: Bytes) -> PlanContent {
        PlanContent::Whole { length: bytes.len() as u64, bytes }
    }
}

impl From<Refusal> for Plan {
    fn from(refusal: Refusal) -> Plan {
        Plan::json(refusal.status, &refusal.envelope())
    }
}

/// The only look at the clock: ids and answers are the same whatever it says.
fn now_s() -> u64 {
    let since_1970 = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
    since_1970.unwrap_or(Duration::ZERO).as_secs()
}
