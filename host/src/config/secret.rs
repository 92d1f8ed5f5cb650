//! A value that is never shown.

use std::fmt;

/// A credential. It has no `Display`, and its `Debug` says nothing.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct Secret(String);

impl Secret {
    /// None if it is blank: a blank secret is a missing one.
    pub(crate) fn new(value: &str) -> Option<Secret> {
        let value = value.trim();
        (!value.is_empty()).then(|| Secret(value.to_owned()))
    }

    /// As it is: a password may begin or end with a space. None if there is nothing.
    pub(crate) fn verbatim(value: &str) -> Option<Secret> {
        (!value.is_empty()).then(|| Secret(value.to_owned()))
    }

    /// The value itself, for the wire and for scrubbing only.
    pub(crate) fn reveal(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(…)")
    }
}
