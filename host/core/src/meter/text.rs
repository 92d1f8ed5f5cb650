//! How long a text is that a model has said, also where it comes in parts.

use serde::Deserialize;
use serde::de::MapAccess;
use serde_json::value::RawValue;

/// Levels of lists and parts within a text: 4.
///
/// Mistral's reasoning has two: a part whose `thinking` is a list of parts.
const PARTS_DEPTH_MAX: u8 = 4;

/// A part of a text that comes in parts.
#[derive(Deserialize)]
struct Part<'t> {
    #[serde(borrow)]
    text: Option<&'t RawValue>,
    #[serde(borrow)]
    thinking: Option<&'t RawValue>,
    #[serde(borrow)]
    refusal: Option<&'t RawValue>,
}

/// Bytes of the next value of this map, if that is a text, also of one that comes in parts; 0 for
/// anything else.
pub(super) fn bytes_of<'de, A: MapAccess<'de>>(map: &mut A) -> Result<u64, A::Error> {
    Ok(bytes_within(map.next_value()?, PARTS_DEPTH_MAX))
}

fn parsed<'t, T: Deserialize<'t>>(raw: &'t RawValue) -> Option<T> {
    serde_json::from_str(raw.get()).ok()
}

fn bytes_within(text: &RawValue, depth_left: u8) -> u64 {
    let raw = text.get();
    if let Some(inner) = raw.strip_prefix('"').and_then(|inner| inner.strip_suffix('"')) {
        return unescaped_bytes(inner.as_bytes());
    }
    let Some(depth_left) = depth_left.checked_sub(1) else { return 0 };
    if raw.starts_with('[') {
        let parts = parsed::<Vec<&RawValue>>(text).unwrap_or_default();
        return parts.into_iter().map(|part| bytes_within(part, depth_left)).fold(0, u64::saturating_add);
    }
    let Some(part) = parsed::<Part<'_>>(text) else { return 0 };
    let texts = [part.text, part.thinking, part.refusal].into_iter().flatten();
    texts.map(|text| bytes_within(text, depth_left)).fold(0, u64::saturating_add)
}

/// Bytes of what a JSON string reads as, in UTF-8; `inner` is without its quotes.
///
/// Half of a surrogate pair counts as two bytes, so that a pair has the four bytes of its
/// character also where a vendor cut it in two.
fn unescaped_bytes(inner: &[u8]) -> u64 {
    let (mut count, mut rest) = (0_usize, inner);
    while let Some(at) = memchr::memchr(b'\\', rest) {
        let (read, escape) = match rest.get(at + 1) {
            Some(b'u') => (utf8_bytes(rest.get(at + 2..at + 6)), 6),
            Some(_) | None => (1, 2),
        };
        count += at + read;
        rest = rest.get(at + escape..).unwrap_or_default();
    }
    u64::try_from(count + rest.len()).unwrap_or(u64::MAX)
}

/// Bytes of the UTF-16 unit that four hexadecimal digits name.
fn utf8_bytes(digits: Option<&[u8]>) -> usize {
    let digits = digits.and_then(|digits| std::str::from_utf8(digits).ok());
    match digits.and_then(|digits| u16::from_str_radix(digits, 16).ok()) {
        None | Some(0..=0x7f) => 1,
        Some(0x80..=0x7ff | 0xd800..=0xdfff) => 2,
        Some(0x800..=0xd7ff | 0xe000..) => 3,
    }
}
