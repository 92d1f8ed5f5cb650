//! An answer that is ready to be sent, and how a fault spoils it.

use bytes::Bytes;
use http::header::{CACHE_CONTROL, CONTENT_TYPE};
use http::{HeaderName, HeaderValue, StatusCode};
use serde_json::Value;

use crate::row::Billed;
use crate::sse::{Data, Event};

const JSON: HeaderValue = HeaderValue::from_static("application/json");
const EVENT_STREAM: HeaderValue = HeaderValue::from_static("text/event-stream; charset=utf-8");
const NO_CACHE: HeaderValue = HeaderValue::from_static("no-cache");

/// Bytes that are neither SSE nor JSON nor UTF-8, and end no line.
const GARBAGE: &[u8] =
    b"\x00\x01\xff\xfe\x80\xc0\xc1\xf5data\x00\x1f\x8b\x08\x00\x7f\xbf\xe0\x80\x00garbage\xff";

/// An answer that is ready to be sent.
pub(crate) struct Plan {
    pub(crate) status: StatusCode,
    pub(crate) headers: Vec<(HeaderName, HeaderValue)>,
    pub(crate) content: PlanContent,
    /// Billed as the answer begins.
    pub(crate) billed_first: Billed,
}

pub(crate) enum PlanContent {
    /// All there is to send, and the length to announce.
    Whole {
        bytes: Bytes,
        length: u64,
    },
    Stream(Vec<Event>),
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

    pub(crate) fn stream(events: Vec<Event>) -> Plan {
        Plan {
            status: StatusCode::OK,
            headers: vec![(CONTENT_TYPE, EVENT_STREAM), (CACHE_CONTROL, NO_CACHE)],
            content: PlanContent::Stream(events),
            billed_first: Billed::default(),
        }
    }

    /// What is left of it if it breaks off after so many events. Of an answer
    /// that is not streamed, half the bytes, or none, under the length of all.
    pub(crate) fn broken_off(mut self, events_max: usize) -> Plan {
        match &mut self.content {
            PlanContent::Whole { bytes, length: _ } if events_max == 0 => bytes.clear(),
            PlanContent::Whole { bytes, length: _ } => bytes.truncate(bytes.len() / 2),
            PlanContent::Stream(events) => events.truncate(events_max),
        }
        self
    }

    /// The same, but with a proper end: the length is that of what is left. A
    /// stream keeps no event that would end it.
    pub(crate) fn cut_short(mut self, events_max: usize) -> Plan {
        match &mut self.content {
            PlanContent::Whole { bytes, .. } => self.content = PlanContent::whole(first_half(bytes)),
            PlanContent::Stream(events) => events.truncate(events_max.min(events.len().saturating_sub(1))),
        }
        self
    }

    /// The event after so many has half of its JSON, and so has a whole answer.
    pub(crate) fn with_broken_json(mut self, events_before: usize) -> Plan {
        match &mut self.content {
            PlanContent::Whole { bytes, .. } => self.content = PlanContent::whole(first_half(bytes)),
            PlanContent::Stream(events) => {
                let index = events_before.min(events.len().saturating_sub(2)); // the last may be no JSON
                if let Some(event) = events.get_mut(index)
                    && let Data::Json(json) = &event.data
                {
                    let text: Vec<char> = json.to_string().chars().collect();
                    event.data = Data::Text(text[..text.len() / 2].iter().collect());
                }
            }
        }
        self
    }

    /// Ends in bytes that nobody can read after so many events; of a whole
    /// answer there is nothing else.
    pub(crate) fn with_garbage(self, events_before: usize) -> Plan {
        let garbage = Bytes::from_static(GARBAGE);
        self.with_last(
            events_before,
            Event { name: None, data: Data::Raw(garbage.clone()), tokens: 0 },
            garbage,
        )
    }

    /// Says after so many events, or as a whole, that there was an error.
    /// Before the first event, that is free.
    pub(crate) fn with_error(mut self, events_before: usize, event: Event, whole: &Value) -> Plan {
        self.status = StatusCode::OK;
        if events_before == 0 || matches!(self.content, PlanContent::Whole { .. }) {
            self.billed_first = Billed::default();
        }
        self.with_last(events_before, event, whole.to_string().into())
    }

    /// Nothing at all, for nothing.
    pub(crate) fn emptied(mut self) -> Plan {
        self.billed_first = Billed::default();
        match &mut self.content {
            PlanContent::Whole { .. } => self.content = PlanContent::whole(Bytes::new()),
            PlanContent::Stream(events) => events.clear(),
        }
        self
    }

    fn with_last(mut self, events_before: usize, event: Event, whole: Bytes) -> Plan {
        match &mut self.content {
            PlanContent::Whole { .. } => self.content = PlanContent::whole(whole),
            PlanContent::Stream(events) => {
                events.truncate(events_before.min(events.len().saturating_sub(1)));
                events.push(event);
            }
        }
        self
    }
}

impl PlanContent {
    pub(crate) fn whole(bytes: Bytes) -> PlanContent {
        PlanContent::Whole { length: bytes.len() as u64, bytes }
    }
}

fn first_half(bytes: &Bytes) -> Bytes {
    bytes.slice(..bytes.len() / 2)
}
