//! What a client is told of its rates, in the headers that the SDKs of OpenAI know.

use compact_str::format_compact;
use http::{HeaderMap, HeaderName, HeaderValue, Response};
use sluice_core::rate::View;

use crate::rates::Told;
use crate::refusal::Refusal;
use crate::stream::Body;

const LIMIT_REQUESTS: HeaderName = HeaderName::from_static("x-ratelimit-limit-requests");
const REMAINING_REQUESTS: HeaderName = HeaderName::from_static("x-ratelimit-remaining-requests");
const RESET_REQUESTS: HeaderName = HeaderName::from_static("x-ratelimit-reset-requests");
const LIMIT_TOKENS: HeaderName = HeaderName::from_static("x-ratelimit-limit-tokens");
const REMAINING_TOKENS: HeaderName = HeaderName::from_static("x-ratelimit-remaining-tokens");
const RESET_TOKENS: HeaderName = HeaderName::from_static("x-ratelimit-reset-tokens");

/// A refusal, and what the client is told with it.
#[derive(Debug)]
pub(crate) struct Refused {
    pub(crate) refusal: Refusal,
    pub(crate) told: Box<Told>,
}

impl From<Refusal> for Refused {
    fn from(refusal: Refusal) -> Refused {
        // Where all limits have let it pass, its permit says what is left.
        let told = if let Refusal::OverRate(over) = &refusal { over.told.clone() } else { Box::default() };
        Refused { refusal, told }
    }
}

impl Refused {
    pub(crate) fn into_response(self) -> Response<Body> {
        let mut answer = self.refusal.into_response();
        self.told.write(answer.headers_mut());
        answer
    }
}

impl Told {
    pub(crate) fn write(&self, headers: &mut HeaderMap) {
        let views = [
            (self.requests, [LIMIT_REQUESTS, REMAINING_REQUESTS, RESET_REQUESTS]),
            (self.tokens, [LIMIT_TOKENS, REMAINING_TOKENS, RESET_TOKENS]),
        ];
        for (view, [limit, remaining, reset]) in views {
            let Some(View { limit: most, remaining: left, full_in }) = view else { continue };
            headers.insert(limit, HeaderValue::from(most));
            headers.insert(remaining, HeaderValue::from(left));
            let seconds = full_in.as_secs() + u64::from(full_in.subsec_nanos() > 0);
            if let Ok(seconds) = HeaderValue::from_str(&format_compact!("{seconds}s")) {
                headers.insert(reset, seconds);
            }
        }
    }
}
