//! Names a place in a JSON text: a pointer as in RFC 6901, checked and bounded.

use std::borrow::Cow;
use std::fmt;
use std::str::FromStr;

/// Most keys in one pointer: 16.
///
/// Requests nest what one reads or edits by name a few levels deep. Every level costs a scan of
/// what lies below it, so the bound is also one of time.
pub const POINTER_DEPTH_MAX: usize = 16;

/// Most bytes of a pointer's text: 1,024, so that sixteen keys of 60 bytes fit.
pub const POINTER_BYTES_MAX: usize = 1024;

/// A place in a JSON text, such as `/stream_options/include_usage`; the empty one is the whole
/// text.
///
/// Its text has one form only, so pointers are equal when their texts are.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Pointer(Box<str>);

/// Why a text is not a pointer that we follow.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PointerError {
    /// Neither empty nor begun by a slash.
    #[error("a JSON pointer is empty or begins with `/`")]
    NoSlash,
    /// A `~` that is neither `~0` (a tilde) nor `~1` (a slash).
    #[error("a `~` in a JSON pointer is followed by 0 or 1")]
    Tilde,
    /// More than [`POINTER_DEPTH_MAX`] keys.
    #[error("the JSON pointer is deeper than {POINTER_DEPTH_MAX} keys")]
    TooDeep,
    /// More than [`POINTER_BYTES_MAX`] bytes.
    #[error("the JSON pointer is longer than {POINTER_BYTES_MAX} bytes")]
    TooLong,
}

/// A key that was asked for stands in its object more than once, so that what it means depends on
/// who reads it.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("`{at}` is given more than once")]
pub struct Duplicate {
    /// The key and the way to it.
    pub at: Pointer,
}

// === impl Pointer ===

impl Pointer {
    /// Checks `text`; it is kept as it is.
    ///
    /// # Errors
    ///
    /// [`PointerError`], if it is not of RFC 6901 or above a bound.
    pub fn parse(text: &str) -> Result<Pointer, PointerError> {
        if text.len() > POINTER_BYTES_MAX {
            return Err(PointerError::TooLong);
        }
        if !text.is_empty() && !text.starts_with('/') {
            return Err(PointerError::NoSlash);
        }
        if text.split('~').skip(1).any(|after| !after.starts_with(['0', '1'])) {
            return Err(PointerError::Tilde);
        }
        if text.bytes().filter(|byte| *byte == b'/').count() > POINTER_DEPTH_MAX {
            return Err(PointerError::TooDeep);
        }
        Ok(Pointer(text.into()))
    }

    /// The pointer's text.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Whether it names the whole text.
    pub fn is_whole(&self) -> bool {
        self.0.is_empty()
    }

    /// The keys from the outside in, unescaped.
    pub fn keys(&self) -> impl Iterator<Item = Cow<'_, str>> {
        self.0.split('/').skip(1).map(|key| match key.contains('~') {
            // In this order: `~01` is the key `~1`.
            true => Cow::Owned(key.replace("~1", "/").replace("~0", "~")),
            false => Cow::Borrowed(key),
        })
    }

    /// The pointer made of its first `depth` keys.
    pub(super) fn upto(&self, depth: usize) -> Pointer {
        let end = self.0.match_indices('/').nth(depth).map_or(self.0.len(), |(at, _)| at);
        Pointer(self.0[..end].into())
    }

    /// The pointer to a member of the outermost object. As long as `key` is: the bounds are for
    /// what comes from outside.
    pub fn to_member(key: &str) -> Pointer {
        Pointer("".into()).child(key)
    }

    /// The pointer to a member of what this one points to; with the bounds it is as above.
    #[must_use]
    pub fn child(&self, key: &str) -> Pointer {
        Pointer(format!("{}/{}", self.0, key.replace('~', "~0").replace('/', "~1")).into())
    }
}

impl FromStr for Pointer {
    type Err = PointerError;

    fn from_str(text: &str) -> Result<Pointer, PointerError> {
        Pointer::parse(text)
    }
}

impl fmt::Display for Pointer {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(&self.0)
    }
}
