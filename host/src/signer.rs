//! Writes secrets where a plan wants them, last, and takes them out of what comes back.

use std::borrow::Cow;
use std::collections::BTreeMap;

use http::{HeaderName, HeaderValue, Request, Uri};
use memchr::memmem;
use sluice_core::plan::{Credential, Slotted};

use crate::config::Secret;

/// Bytes of a value that is looked for in answers. Vendors' keys have 20 and more.
const SOUGHT_BYTES_MIN: usize = 8;

/// A slot's value cannot stand where the plan wants it. Says the place, never the value.
#[derive(Debug, thiserror::Error)]
#[error("slot {slot:?} cannot be written into {name:?}")]
pub(crate) struct Unwritable {
    slot: String,
    name: String,
}

/// Fills the slot into the request. A slot without a value was optional: nothing is written.
///
/// # Errors
///
/// [`Unwritable`] where the value does not fit its place.
pub(crate) fn sign<B>(
    request: &mut Request<B>,
    credential: &Credential,
    secrets: &BTreeMap<String, Secret>,
) -> Result<(), Unwritable> {
    let filled = |slotted: &Slotted| {
        let secret = secrets.get(&slotted.slot)?;
        Some([slotted.prefix.as_str(), secret.reveal(), &slotted.suffix].concat())
    };
    let unwritable =
        |slotted: &Slotted| Unwritable { slot: slotted.slot.clone(), name: slotted.name.clone() };
    match credential {
        Credential::None | Credential::Scheme => {}
        Credential::Header(slotted) => {
            let Some(value) = filled(slotted) else { return Ok(()) };
            let name = HeaderName::try_from(&slotted.name).map_err(|_| unwritable(slotted))?;
            let mut value = HeaderValue::try_from(value).map_err(|_| unwritable(slotted))?;
            value.set_sensitive(true);
            request.headers_mut().insert(name, value);
        }
        Credential::Query(slotted) => {
            let Some(value) = filled(slotted) else { return Ok(()) };
            *request.uri_mut() =
                with_parameter(request.uri(), &slotted.name, &value).ok_or_else(|| unwritable(slotted))?;
        }
    }
    Ok(())
}

fn with_parameter(uri: &Uri, name: &str, value: &str) -> Option<Uri> {
    let mut url = url::Url::parse(&uri.to_string()).ok()?;
    url.query_pairs_mut().append_pair(name, value);
    Uri::try_from(url.as_str()).ok()
}

/// Whether the text has one of the secrets in it.
pub(crate) fn repeats(text: &[u8], secrets: &BTreeMap<String, Secret>) -> bool {
    sought(secrets).any(|secret| memmem::find(text, secret).is_some())
}

/// The text without any of the secrets: vendors repeat keys in their errors.
pub(crate) fn scrub<'t>(text: &'t [u8], secrets: &BTreeMap<String, Secret>) -> Cow<'t, [u8]> {
    const REMOVED: &[u8] = b"[removed]";
    let mut text = Cow::Borrowed(text);
    for secret in sought(secrets) {
        let mut clean = Vec::new();
        let mut copied = 0;
        for at in memmem::find_iter(&text, secret) {
            clean.extend_from_slice(&text[copied..at]);
            clean.extend_from_slice(REMOVED);
            copied = at + secret.len();
        }
        if copied > 0 {
            clean.extend_from_slice(&text[copied..]);
            text = Cow::Owned(clean);
        }
    }
    text
}

/// Those that are long enough to be secrets: taking a placeholder such as `test` out of every text
/// would spoil the text and hide nothing.
fn sought(secrets: &BTreeMap<String, Secret>) -> impl Iterator<Item = &[u8]> {
    secrets
        .values()
        .map(|secret| secret.reveal().as_bytes())
        .filter(|secret| secret.len() >= SOUGHT_BYTES_MIN)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn secrets() -> BTreeMap<String, Secret> {
        BTreeMap::from([("api-key".into(), Secret::new("sk-canary").unwrap())])
    }

    fn slotted(slot: &str) -> Slotted {
        Slotted { name: "x-key".into(), prefix: "Bearer ".into(), slot: slot.into(), suffix: String::new() }
    }

    fn signed(credential: &Credential) -> Request<()> {
        let mut request = Request::post("http://localhost/x").body(()).unwrap();
        sign(&mut request, credential, &secrets()).unwrap();
        request
    }

    #[test]
    fn a_secret_is_written_and_marked() {
        let request = signed(&Credential::Header(slotted("api-key")));
        assert_eq!(request.headers()["x-key"], "Bearer sk-canary");
        assert!(!format!("{request:?}").contains("sk-canary"));
        let request = signed(&Credential::Query(slotted("api-key")));
        assert_eq!(request.uri().query(), Some("x-key=Bearer+sk-canary"));
    }

    #[test]
    fn a_slot_without_a_value_writes_nothing() {
        assert!(signed(&Credential::Header(slotted("other"))).headers().is_empty());
    }

    #[test]
    fn a_secret_is_taken_out_wherever_it_stands() {
        assert_eq!(
            *scrub(b"sk-canary is sk-canarysk-canary!", &secrets()),
            *b"[removed] is [removed][removed]!"
        );
        assert_eq!(*scrub(b"sk-canar", &secrets()), *b"sk-canar");
        assert!(repeats(b"a sk-canary!", &secrets()) && !repeats(b"sk-canar", &secrets()));
    }

    #[test]
    fn a_placeholder_is_no_secret() {
        let secrets = BTreeMap::from([("api-key".into(), Secret::new("test").unwrap())]);
        assert_eq!(*scrub(b"the latest test", &secrets), *b"the latest test");
        assert!(!repeats(b"test", &secrets));
    }
}
