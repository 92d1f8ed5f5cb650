//! Reads and edits the members of a JSON body without touching the bytes of the rest.
//!
//! [`Index::scan`] reads a body once; [`get`] finds a value by [`Pointer`]; [`splice`] applies
//! [`Edit`]s. The parser is `serde_json` throughout; what is here only knows where things lie. All
//! of it works on raw text: a number of thirty digits, a `\ud800` or a blank line goes through as
//! it came. Nothing recurses by the depth of the text.

mod index;
mod key;
mod pointer;
mod splice;
#[cfg(test)]
mod tests;

use std::borrow::Cow;

use serde::Deserialize;
use serde_json::value::RawValue;

pub use index::{Index, MEMBERS_MAX, ScanError, get};
pub(crate) use key::Key;
pub use pointer::{Duplicate, POINTER_BYTES_MAX, POINTER_DEPTH_MAX, Pointer, PointerError};
pub use splice::{EDITS_MAX, Edit, SpliceError, splice};

/// The text of one JSON value, checked when it was made; no whitespace around it.
///
/// Equal when the texts are: `1` and `1.0` differ.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Raw(Box<str>);

// === impl Raw ===

impl Raw {
    /// Takes `text` as it is, but for whitespace around it.
    ///
    /// # Errors
    ///
    /// [`ScanError::NotJson`] if it is not exactly one JSON value.
    pub fn parse(text: &str) -> Result<Raw, ScanError> {
        match serde_json::from_str::<&RawValue>(text) {
            Ok(value) => Ok(Raw(value.get().into())),
            Err(error) => Err(ScanError::not_json(text, &error)),
        }
    }

    /// A JSON string that reads as `text`.
    pub fn string(text: &str) -> Raw {
        Raw(quoted(text).into())
    }

    /// The value's text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl From<u64> for Raw {
    fn from(number: u64) -> Raw {
        Raw(number.to_string().into())
    }
}

impl From<bool> for Raw {
    fn from(truth: bool) -> Raw {
        Raw(if truth { "true" } else { "false" }.into())
    }
}

/// The string that `raw` reads as, unescaped; borrowed if it has no escapes.
///
/// `None` if `raw` is another kind of value, or holds a lone surrogate (`"\ud800"` is JSON, but no
/// text).
pub fn as_str(raw: &[u8]) -> Option<Cow<'_, str>> {
    #[derive(Deserialize)]
    struct Text<'t>(#[serde(borrow)] Cow<'t, str>);
    serde_json::from_slice(raw).ok().map(|Text(text)| text)
}

/// The truth value that `raw` is; `None` if it is another kind of value.
pub fn as_bool(raw: &[u8]) -> Option<bool> {
    match raw.trim_ascii() {
        b"true" => Some(true),
        b"false" => Some(false),
        _ => None,
    }
}

/// The integer that `raw` is written as, from 0 to 2^64 - 1.
///
/// `None` for anything else, also for other spellings of an integer: `1.0`, `1e2` and `-0` are
/// numbers whose reading differs between vendors, so nothing is decided by them.
pub fn as_u64(raw: &[u8]) -> Option<u64> {
    serde_json::from_slice(raw).ok()
}

/// `text` as a JSON string.
fn quoted(text: &str) -> String {
    serde_json::Value::from(text).to_string()
}
