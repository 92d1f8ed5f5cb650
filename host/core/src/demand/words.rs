//! Strings and numbers of a body, read as what they mean and never kept.

use std::fmt;

use serde::de::{DeserializeSeed, Deserializer, IgnoredAny, MapAccess, SeqAccess, Visitor};

/// Reads a string as what it means.
pub(super) struct Word<T>(pub(super) fn(&str) -> T);

/// A string's meaning.
pub(super) enum Said<T> {
    Null,
    Word(T),
    /// No string.
    Other,
}

/// Reads a number of answers: 0 where it is none.
///
/// Other spellings count too, since some vendors take `2.0`, `"2"` or `true`; a fraction counts as
/// one more, and what is too large as all that there can be.
pub(super) struct Count;

// === impl Said ===

impl Said<bool> {
    pub(super) fn is_null_or(&self, word: bool) -> bool {
        match self {
            Said::Null => true,
            Said::Word(said) => *said == word,
            Said::Other => false,
        }
    }
}

// === impl Word ===

impl<'de, T> DeserializeSeed<'de> for Word<T> {
    type Value = Said<T>;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Said<T>, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de, T> Visitor<'de> for Word<T> {
    type Value = Said<T>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("any value")
    }

    fn visit_unit<E>(self) -> Result<Said<T>, E> {
        Ok(Said::Null)
    }

    fn visit_bool<E>(self, _: bool) -> Result<Said<T>, E> {
        Ok(Said::Other)
    }

    fn visit_u64<E>(self, _: u64) -> Result<Said<T>, E> {
        Ok(Said::Other)
    }

    fn visit_i64<E>(self, _: i64) -> Result<Said<T>, E> {
        Ok(Said::Other)
    }

    fn visit_f64<E>(self, _: f64) -> Result<Said<T>, E> {
        Ok(Said::Other)
    }

    fn visit_str<E>(self, word: &str) -> Result<Said<T>, E> {
        Ok(Said::Word((self.0)(word)))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Said<T>, A::Error> {
        while list.next_element::<IgnoredAny>()?.is_some() {}
        Ok(Said::Other)
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Said<T>, A::Error> {
        while map.next_entry::<IgnoredAny, IgnoredAny>()?.is_some() {}
        Ok(Said::Other)
    }
}

// === impl Count ===

impl<'de> DeserializeSeed<'de> for Count {
    type Value = u32;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<u32, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Count {
    type Value = u32;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("any value")
    }

    fn visit_unit<E>(self) -> Result<u32, E> {
        Ok(0)
    }

    fn visit_bool<E>(self, truth: bool) -> Result<u32, E> {
        Ok(truth.into())
    }

    fn visit_u64<E>(self, count: u64) -> Result<u32, E> {
        Ok(u32::try_from(count).unwrap_or(u32::MAX))
    }

    /// Negative: what is not is a `u64`.
    fn visit_i64<E>(self, _: i64) -> Result<u32, E> {
        Ok(0)
    }

    fn visit_f64<E>(self, count: f64) -> Result<u32, E> {
        // Saturates.
        Ok(count.ceil() as u32)
    }

    fn visit_str<E>(self, text: &str) -> Result<u32, E> {
        Ok(text.trim().parse::<f64>().map_or(0, |count| count.ceil() as u32))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<u32, A::Error> {
        while list.next_element::<IgnoredAny>()?.is_some() {}
        Ok(0)
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<u32, A::Error> {
        while map.next_entry::<IgnoredAny, IgnoredAny>()?.is_some() {}
        Ok(0)
    }
}
