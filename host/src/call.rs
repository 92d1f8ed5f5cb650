//! One client request, read once: where its members are, what it asks for.

use std::borrow::Cow;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use http::HeaderMap;
use sluice_core::codes::{Endpoint, Surface, feature};
use sluice_core::json::{self, Duplicate, Edit, Index, Pointer, Raw};
use sluice_runtime::{Identity, Inbound, Shape, Sizes};

use crate::refusal::Refusal;
use crate::upload::Share;

/// Client headers that an adapter may read; never credentials, never cookies.
const SHOWN_HEADERS: [&str; 8] = [
    "accept",
    "accept-language",
    "anthropic-beta",
    "anthropic-version",
    "content-type",
    "idempotency-key",
    "openai-beta",
    "user-agent",
];

/// Those that ask a vendor for what it does not usually do, such as a longer context.
const BETA_HEADERS: [&str; 2] = ["anthropic-beta", "openai-beta"];

/// Bytes of a model's name at most: it goes to the log, and plans are kept by it.
const MODEL_BYTES_MAX: usize = 512;

/// Bytes of text in a token, roughly; for estimates only, never for a cap.
const BYTES_PER_TOKEN: usize = 4;

/// Output of a request without a limit that is expected.
pub(crate) const OUTPUT_TOKENS_EXPECTED: u64 = 512;

/// Members whose presence is a feature of the request. `null` is as good as absent.
const FEATURES: [(&str, u64); 9] = [
    ("tools", feature::TOOLS),
    ("response_format", feature::STRUCTURED),
    ("n", feature::CHOICES),
    ("logprobs", feature::LOGPROBS),
    ("reasoning_effort", feature::REASONING),
    ("stream_options", feature::STREAM_USAGE),
    ("max_completion_tokens", feature::OUTPUT_LIMIT),
    ("max_tokens", feature::OUTPUT_LIMIT),
    ("audio", feature::AUDIO),
];

/// A body that asks for this model; as it is where none is given.
///
/// # Errors
///
/// [`Refusal::NotJson`], [`Refusal::Unfit`] where there is no place for it.
pub(crate) fn given(text: Bytes, model: Option<&str>) -> Result<Bytes, Refusal> {
    let Some(model) = model else { return Ok(text) };
    let index = Index::scan(&text).map_err(Refusal::NotJson)?;
    let named = Edit::Set { at: Pointer::to_member("model"), value: Raw::string(model) };
    Ok(json::splice(&text, &index, &[named]).map_err(Refusal::Unfit)?.into())
}

/// A request as the gateway sees it.
pub(crate) struct Call {
    pub(crate) request_id: String,
    pub(crate) received_ms: u64,
    pub(crate) shape: Shape,
    pub(crate) choices: u16,
    /// The client's own bound, in tokens.
    pub(crate) output_limit: Option<u64>,
    headers: HeaderMap,
    text: Bytes,
    /// Belongs to `text`; the pair is never taken apart.
    index: Index,
    /// The first duplicate that a guest met.
    duplicate: Mutex<Option<Duplicate>>,
    /// Of the room for bodies; none: nobody sent it.
    share: Option<Arc<Share>>,
}

impl Call {
    /// Reads a chat completion's body.
    ///
    /// # Errors
    ///
    /// A [`Refusal`] that names the member and what was wanted.
    pub(crate) fn chat(request_id: String, headers: HeaderMap, text: Bytes) -> Result<Call, Refusal> {
        let index = Index::scan(&text).map_err(Refusal::NotJson)?;
        let member = |key: &str| index.member(&text, key).map_err(Refusal::Duplicate);
        let given = |key: &str| Ok(member(key)?.filter(|raw| *raw != b"null"));
        let model = match member("model")? {
            None => return Err(Refusal::member("model", "is missing; wanted the name of a model")),
            Some(raw) => json::as_str(raw).ok_or(Refusal::member("model", "wanted a string"))?.into_owned(),
        };
        if model.len() > MODEL_BYTES_MAX {
            return Err(Refusal::member("model", "wanted a name of at most 512 bytes"));
        }
        if given("prompt")?.is_some() && given("messages")?.is_none() {
            return Err(Refusal::member(
                "prompt",
                "is of the completions of old, which are not served; send `messages`",
            ));
        }
        let streaming = match given("stream")? {
            None => false,
            Some(raw) => json::as_bool(raw).ok_or(Refusal::member("stream", "wanted true or false"))?,
        };
        let mut features = 0;
        for (key, bit) in FEATURES {
            if given(key)?.is_some() {
                features |= bit;
            }
        }
        let number = |key: &str| Ok(given(key)?.and_then(json::as_u64));
        let output_limit = match number("max_completion_tokens")? {
            None => number("max_tokens")?,
            some => some,
        };
        let choices = number("n")?.and_then(|n| u16::try_from(n).ok()).unwrap_or(1);
        let (surface, endpoint) = (Surface::OpenAiChat.code(), Endpoint::Chat.code());
        Ok(Call {
            request_id,
            received_ms: unix_ms(),
            shape: Shape { surface, endpoint, model, streaming, features },
            choices,
            output_limit,
            headers,
            text,
            index,
            duplicate: Mutex::default(),
            share: None,
        })
    }

    /// With the room that its body takes.
    pub(crate) fn keeping(self, share: Share) -> Call {
        Call { share: Some(Arc::new(share)), ..self }
    }

    /// A request that nobody has sent, to see what it would be.
    ///
    /// # Errors
    ///
    /// As [`Call::chat`].
    pub(crate) fn imagined(text: Bytes) -> Result<Call, Refusal> {
        Call::chat(String::new(), HeaderMap::new(), text)
    }

    /// The same request, for another model: as if the client had asked for that one.
    ///
    /// # Errors
    ///
    /// [`Refusal::Unfit`] where the name does not fit the body.
    pub(crate) fn for_model(&self, model: &str) -> Result<Call, Refusal> {
        let named = Edit::Set { at: Pointer::to_member("model"), value: Raw::string(model) };
        let text = Bytes::from(self.splice(&[named]).map_err(Refusal::Unfit)?);
        Ok(Call {
            request_id: self.request_id.clone(),
            shape: Shape { model: model.into(), ..self.shape.clone() },
            headers: self.headers.clone(),
            index: Index::scan(&text).map_err(Refusal::NotJson)?,
            text,
            duplicate: Mutex::default(),
            share: self.share.clone(),
            ..*self
        })
    }

    /// A header of the client's may lift what the model takes at most.
    pub(crate) fn may_lift_bounds(&self) -> bool {
        BETA_HEADERS.iter().any(|name| self.headers.contains_key(*name))
    }

    /// The client's bytes.
    pub(crate) fn text(&self) -> &Bytes {
        &self.text
    }

    /// Where the members of an outbound body are: nothing is scanned where it is the client's own.
    ///
    /// # Errors
    ///
    /// [`Refusal::NotJson`].
    pub(crate) fn index_of(&self, body: &Bytes) -> Result<Cow<'_, Index>, Refusal> {
        if std::ptr::eq::<[u8]>(&**body, &*self.text) {
            return Ok(Cow::Borrowed(&self.index));
        }
        Index::scan(body).map(Cow::Owned).map_err(Refusal::NotJson)
    }

    /// The client's bytes with these changes.
    ///
    /// # Errors
    ///
    /// [`json::SpliceError`] where an edit does not fit the body.
    pub(crate) fn splice(&self, edits: &[json::Edit]) -> Result<Vec<u8>, json::SpliceError> {
        json::splice(&self.text, &self.index, edits)
    }

    /// Tokens of input, roughly; and never more than one for each byte.
    pub(crate) fn input_tokens(&self) -> (u64, u64) {
        let bytes = self.text.len();
        (bytes.div_ceil(BYTES_PER_TOKEN) as u64, bytes as u64)
    }

    /// Tokens that it is expected to use in all, roughly.
    pub(crate) fn tokens_expected(&self) -> u64 {
        let output = self.output_limit.unwrap_or(u64::MAX).min(OUTPUT_TOKENS_EXPECTED);
        self.input_tokens().0.saturating_add(output.saturating_mul(self.choices.into()))
    }

    /// # Errors
    ///
    /// [`Refusal::Duplicate`] where a guest read a member that stands twice.
    pub(crate) fn check_duplicate(&self) -> Result<(), Refusal> {
        let met = self.duplicate.lock().unwrap_or_else(PoisonError::into_inner).take();
        met.map_or(Ok(()), |duplicate| Err(Refusal::Duplicate(duplicate)))
    }
}

impl Inbound for Call {
    fn shape(&self) -> Shape {
        self.shape.clone()
    }

    fn sizes(&self) -> Sizes {
        let clamp = |number: u64| u32::try_from(number).unwrap_or(u32::MAX);
        let (expected, bytes) = self.input_tokens();
        Sizes { body_bytes: clamp(bytes), prompt_tokens_estimate: clamp(expected), choices: self.choices }
    }

    fn identity(&self) -> Identity {
        Identity { request_id: self.request_id.clone(), received_s: self.received_ms / 1000 }
    }

    fn header(&self, name: &str) -> Option<String> {
        if !SHOWN_HEADERS.contains(&name) {
            return None;
        }
        self.headers.get(name)?.to_str().ok().map(str::to_owned)
    }

    fn field(&self, pointer: &str) -> Option<String> {
        let pointer = Pointer::parse(pointer).ok()?;
        match json::get(&self.text, &self.index, &pointer) {
            Ok(raw) => raw.and_then(|raw| String::from_utf8(raw.to_vec()).ok()),
            Err(duplicate) => {
                self.duplicate.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert(duplicate);
                None
            }
        }
    }

    fn body(&self) -> Vec<u8> {
        self.text.to_vec()
    }
}

/// Shared with guests by reference only.
pub(crate) type SharedCall = Arc<Call>;

fn unix_ms() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn chat(body: &str) -> Result<Call, Refusal> {
        Call::chat("id".into(), HeaderMap::new(), Bytes::copy_from_slice(body.as_bytes()))
    }

    #[test]
    fn what_is_asked_for_is_read() {
        let call =
            chat(r#"{"model":"m\u0031","stream":true,"n":2,"max_tokens":7,"tools":null,"logprobs":true}"#)
                .unwrap();
        assert_eq!((call.shape.model.as_str(), call.shape.streaming), ("m1", true));
        assert_eq!((call.choices, call.output_limit), (2, Some(7)));
        assert_eq!(call.shape.features, feature::CHOICES | feature::OUTPUT_LIMIT | feature::LOGPROBS);
    }

    #[test]
    fn a_member_that_is_read_and_stands_twice_is_refused_by_name() {
        for body in [r#"{"model":"a","mod\u0065l":"b"}"#, r#"{"model":"a","n":1,"n":1}"#] {
            let refusal = chat(body).err();
            assert!(matches!(refusal, Some(Refusal::Duplicate(_))), "{body}: {refusal:?}");
        }
        assert!(chat(r#"{"model":"a","unknown":1,"unknown":2}"#).is_ok());
    }

    #[test]
    fn a_completion_of_old_is_refused_by_name() {
        let refusal = chat(r#"{"model":"m","prompt":"Say it."}"#).err();
        assert!(matches!(refusal, Some(Refusal::Member { .. })), "{refusal:?}");
        assert!(chat(r#"{"model":"m","prompt":"x","messages":[]}"#).is_ok(), "another member, as any");
    }

    #[test]
    fn a_given_model_takes_the_place_of_what_is_asked_for() {
        let given = |body: &'static str| given(Bytes::from_static(body.as_bytes()), Some("ours"));
        for body in [r#"{"model":"theirs","x":1}"#, r#"{"x":1}"#, r#"{"model":null,"x":1}"#] {
            let call = chat(std::str::from_utf8(&given(body).unwrap()).unwrap()).unwrap();
            assert_eq!(call.shape.model, "ours", "{body}");
            assert_eq!(call.field("/x").as_deref(), Some("1"));
        }
        assert!(given("[]").is_err() && given(r#"{"model":1,"model":2}"#).is_err());
    }

    #[test]
    fn only_the_clients_own_bytes_go_by_its_index() {
        let call = chat(r#"{"model":"a","n":1}"#).unwrap();
        let index_of = |body: &Bytes| call.index_of(body).unwrap();
        assert!(matches!(index_of(&call.text().clone()), Cow::Borrowed(_)));
        let other = Bytes::from_static(br#"{"n":1,"model":"a"}"#);
        let part = call.text().slice(..0);
        assert!(matches!(index_of(&other), Cow::Owned(index) if index.member(&other, "n") == Ok(Some(b"1"))));
        assert!(call.index_of(&part).is_err(), "another text that begins at the same place");
    }

    #[test]
    fn a_guest_that_meets_a_duplicate_gets_nothing_and_the_client_a_refusal() {
        let call = chat(r#"{"model":"a","x":{"y":1,"y":2}}"#).unwrap();
        assert_eq!(call.field("/x/z"), None);
        assert!(call.check_duplicate().is_ok());
        assert_eq!(call.field("/x/y"), None);
        assert!(
            matches!(call.check_duplicate(), Err(Refusal::Duplicate(duplicate)) if duplicate.at.as_str() == "/x/y")
        );
    }

    #[test]
    fn no_credential_is_shown() {
        let mut headers = HeaderMap::new();
        for name in ["authorization", "x-api-key", "cookie", "user-agent"] {
            headers.insert(name, http::HeaderValue::from_static("value"));
        }
        let text = Bytes::from_static(br#"{"model":"a"}"#);
        let call = Call::chat("id".into(), headers, text).unwrap();
        assert_eq!(call.header("user-agent").as_deref(), Some("value"));
        for name in ["authorization", "Authorization", "x-api-key", "cookie", "User-Agent"] {
            assert_eq!(call.header(name), None, "{name}");
        }
    }
}
