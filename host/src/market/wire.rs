//! Reads the market's JSON: bounded lists, exact amounts, instants, texts that can be printed.

use std::fmt;

use serde::de::{Deserializer as _, IgnoredAny, SeqAccess, Visitor};
use serde_json::value::RawValue;
use sluice_core::decimal::{Billionths, billionths};
use sluice_core::money::NanoUsd;

use super::contract::Listed;

/// Reads an array, or the array of `{"results": [...]}`; items beyond `max` are only counted. None:
/// it is neither.
pub(super) fn list<'a, T>(
    body: &'a [u8],
    max: usize,
    read: impl Fn(&'a RawValue) -> Option<T>,
) -> Option<Listed<T>> {
    #[derive(serde::Deserialize)]
    struct Wrapped<'a> {
        #[serde(borrow)]
        results: &'a RawValue,
    }
    let wrapped = body.trim_ascii_start().starts_with(b"{");
    let array = if wrapped {
        serde_json::from_slice::<Wrapped<'a>>(body).ok()?.results.get().as_bytes()
    } else {
        body
    };
    let mut array = serde_json::Deserializer::from_slice(array);
    let listed = array.deserialize_seq(Items { max, read, item: std::marker::PhantomData }).ok()?;
    array.end().ok()?;
    Some(listed)
}

/// Takes items one by one, so that a list of millions takes no memory.
struct Items<T, R> {
    max: usize,
    read: R,
    item: std::marker::PhantomData<T>,
}

impl<'de, T, R: Fn(&'de RawValue) -> Option<T>> Visitor<'de> for Items<T, R> {
    type Value = Listed<T>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an array")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut array: A) -> Result<Listed<T>, A::Error> {
        let mut listed = Listed { items: Vec::new(), bad: 0, beyond: 0 };
        while listed.items.len() + listed.bad < self.max {
            let Some(item) = array.next_element::<&'de RawValue>()? else { return Ok(listed) };
            match (self.read)(item) {
                Some(item) => listed.items.push(item),
                None => listed.bad += 1,
            }
        }
        while array.next_element::<IgnoredAny>()?.is_some() {
            listed.beyond += 1;
        }
        Ok(listed)
    }
}

/// A number, or a text that is one: some servers write decimals so.
fn digits(raw: &RawValue) -> Option<Billionths> {
    let text = raw.get();
    let text = text.strip_prefix('"').and_then(|text| text.strip_suffix('"')).unwrap_or(text);
    billionths(text).ok()
}

/// A number that is not negative, in billionths.
pub(super) fn nanos(raw: &RawValue) -> Option<u64> {
    match digits(raw)? {
        Billionths::Of(nanos) => Some(nanos),
        Billionths::Negative => None,
    }
}

/// Dollars.
pub(super) fn amount(raw: &RawValue) -> Option<NanoUsd> {
    nanos(raw).map(NanoUsd::from_nanos)
}

/// Dollars that may be missing; the outer none: something else is there.
#[expect(clippy::option_option, reason = "missing and wrong are two things")]
pub(super) fn optional_amount(raw: Option<&RawValue>) -> Option<Option<NanoUsd>> {
    raw.map(|raw| amount(raw).ok_or(())).transpose().ok()
}

/// Dollars of which there may be less than none.
pub(super) fn debt_as_zero(raw: &RawValue) -> Option<NanoUsd> {
    match digits(raw)? {
        Billionths::Of(nanos) => Some(NanoUsd::from_nanos(nanos)),
        Billionths::Negative => Some(NanoUsd::ZERO),
    }
}

/// A date with its time, by ISO 8601, that may be missing; without an offset it is UTC. The outer
/// none: something else is there.
#[expect(clippy::option_option, reason = "missing and wrong are two things")]
pub(super) fn instant_ms(text: Option<&str>) -> Option<Option<u64>> {
    let Some(text) = text else { return Some(None) };
    let offset: Option<jiff::Timestamp> = text.parse().ok();
    let plain = || text.parse::<jiff::civil::DateTime>().ok();
    let utc = || plain()?.to_zoned(jiff::tz::TimeZone::UTC).ok().map(|zoned| zoned.timestamp());
    let at = offset.or_else(utc)?;
    u64::try_from(at.as_millisecond()).ok().map(Some)
}

/// What can be shown to a person, on one line: without control characters, and not longer than this.
pub(super) fn printable(text: &str, chars_max: usize) -> String {
    let shown = |c: char| if c.is_control() || is_invisible(c) { ' ' } else { c };
    let mut chars = text.trim().chars();
    let mut text: String = chars.by_ref().take(chars_max).map(shown).collect();
    if chars.next().is_some() {
        text.push('…');
    }
    text
}

/// Marks that turn or hide what stands beside them.
fn is_invisible(c: char) -> bool {
    matches!(c, '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}' | '\u{feff}')
}
