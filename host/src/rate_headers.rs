//! What a client is told of its rates, in the headers that the SDKs of OpenAI know.

use http::{HeaderMap, HeaderName, HeaderValue};
use sluice_core::rate::View;

use crate::rates::Told;

const LIMIT_REQUESTS: HeaderName = HeaderName::from_static("x-ratelimit-limit-requests");
const REMAINING_REQUESTS: HeaderName = HeaderName::from_static("x-ratelimit-remaining-requests");
const RESET_REQUESTS: HeaderName = HeaderName::from_static("x-ratelimit-reset-requests");
const LIMIT_TOKENS: HeaderName = HeaderName::from_static("x-ratelimit-limit-tokens");
const REMAINING_TOKENS: HeaderName = HeaderName::from_static("x-ratelimit-remaining-tokens");
const RESET_TOKENS: HeaderName = HeaderName::from_static("x-ratelimit-reset-tokens");

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
            headers.extend(HeaderValue::try_from(format!("{seconds}s")).map(|seconds| (reset, seconds)));
        }
    }
}
