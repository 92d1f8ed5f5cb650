//! A member's name, read as what it says about the value and never kept.

use std::fmt;

use serde::de::{DeserializeSeed, Deserializer, Visitor};

/// Reads a member's name by this function.
pub(crate) struct Key<T>(pub(crate) fn(&str) -> T);

// === impl Key ===

impl<'de, T> DeserializeSeed<'de> for Key<T> {
    type Value = T;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<T, D::Error> {
        deserializer.deserialize_str(self)
    }
}

impl<T> Visitor<'_> for Key<T> {
    type Value = T;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a name")
    }

    fn visit_str<E>(self, name: &str) -> Result<T, E> {
        Ok((self.0)(name))
    }
}
