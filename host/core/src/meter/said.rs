//! How much is said in an answer's choices.

use serde::Deserialize;
use serde::de::IgnoredAny;
use serde_json::value::RawValue;

/// Levels of lists and parts within a text: 4.
///
/// Mistral's reasoning has two: a part whose `thinking` is a list of parts.
const PARTS_DEPTH_MAX: u8 = 4;

/// What one choice says.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Said {
    /// Of text, reasoning, refusals and arguments.
    pub(super) text_bytes: u64,
    /// Of the names of called tools.
    pub(super) name_bytes: u64,
}

#[derive(Deserialize)]
struct Choice<'t> {
    #[serde(borrow)]
    delta: Option<&'t RawValue>,
    #[serde(borrow)]
    message: Option<&'t RawValue>,
    /// Of legacy completions.
    #[serde(borrow)]
    text: Option<&'t RawValue>,
}

/// A delta or a message: the members in which vendors put what a model says.
#[derive(Deserialize)]
struct Speech<'t> {
    #[serde(borrow)]
    content: Option<&'t RawValue>,
    #[serde(borrow)]
    refusal: Option<&'t RawValue>,
    #[serde(borrow)]
    reasoning: Option<&'t RawValue>,
    #[serde(borrow)]
    reasoning_content: Option<&'t RawValue>,
    #[serde(borrow)]
    tool_calls: Option<&'t RawValue>,
    #[serde(borrow)]
    function_call: Option<&'t RawValue>,
}

#[derive(Deserialize)]
struct ToolCall<'t> {
    #[serde(borrow)]
    function: Option<&'t RawValue>,
    #[serde(borrow)]
    custom: Option<&'t RawValue>,
}

#[derive(Deserialize)]
struct Called<'t> {
    #[serde(borrow)]
    name: Option<&'t RawValue>,
    /// Of a function.
    #[serde(borrow)]
    arguments: Option<&'t RawValue>,
    /// Of a custom tool.
    #[serde(borrow)]
    input: Option<&'t RawValue>,
}

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

/// What each choice of an event adds.
pub(super) fn in_deltas(choices: Option<&RawValue>) -> impl Iterator<Item = Said> {
    each(choices).map(|choice| Said::of(choice.delta, choice.text))
}

/// What each choice of a whole answer says.
pub(super) fn in_messages(choices: Option<&RawValue>) -> impl Iterator<Item = Said> {
    each(choices).map(|choice| Said::of(choice.message, choice.text))
}

/// Whether a list has no elements; one that is missing or `null` has none.
pub(super) fn is_empty_list(list: Option<&RawValue>) -> bool {
    list.is_none_or(|list| {
        serde_json::from_str::<Vec<IgnoredAny>>(list.get()).is_ok_and(|list| list.is_empty())
    })
}

/// Vendors write "nothing" in each of these ways.
pub(super) fn says_something(value: &RawValue) -> bool {
    !matches!(value.get(), "null" | "\"\"" | "[]" | "{}" | "false")
}

fn each(choices: Option<&RawValue>) -> impl Iterator<Item = Choice<'_>> {
    elements(choices).into_iter().filter_map(parsed::<Choice<'_>>)
}

// === impl Said ===

impl Said {
    /// Whether it has what a token was generated for: a tool's name may be the client's choice.
    pub(super) fn has_content(self) -> bool {
        self.text_bytes > 0
    }

    fn of(speech: Option<&RawValue>, text: Option<&RawValue>) -> Said {
        let mut said = Said { text_bytes: bytes_of(text), name_bytes: 0 };
        if let Some(speech) = speech.and_then(parsed::<Speech<'_>>) {
            // The same under both names, where a vendor sends both.
            let reasoning = bytes_of(speech.reasoning).max(bytes_of(speech.reasoning_content));
            for bytes in [bytes_of(speech.content), bytes_of(speech.refusal), reasoning] {
                said.add_text(bytes);
            }
            said.add_called(speech.function_call);
            for call in elements(speech.tool_calls).into_iter().filter_map(parsed::<ToolCall<'_>>) {
                said.add_called(call.function);
                said.add_called(call.custom);
            }
        }
        said
    }

    fn add_called(&mut self, called: Option<&RawValue>) {
        if let Some(called) = called.and_then(parsed::<Called<'_>>) {
            self.add_text(bytes_of(called.arguments));
            self.add_text(bytes_of(called.input));
            self.name_bytes = self.name_bytes.saturating_add(bytes_of(called.name));
        }
    }

    fn add_text(&mut self, bytes: u64) {
        self.text_bytes = self.text_bytes.saturating_add(bytes);
    }
}

fn parsed<'t, T: Deserialize<'t>>(raw: &'t RawValue) -> Option<T> {
    serde_json::from_str(raw.get()).ok()
}

fn elements(list: Option<&RawValue>) -> Vec<&RawValue> {
    list.and_then(parsed).unwrap_or_default()
}

/// Bytes of a text, also of one that comes in parts; 0 for anything else.
fn bytes_of(text: Option<&RawValue>) -> u64 {
    text.map_or(0, |text| bytes_within(text, PARTS_DEPTH_MAX))
}

fn bytes_within(text: &RawValue, depth_left: u8) -> u64 {
    let raw = text.get();
    if let Some(inner) = raw.strip_prefix('"').and_then(|inner| inner.strip_suffix('"')) {
        return unescaped_bytes(inner.as_bytes());
    }
    let Some(depth_left) = depth_left.checked_sub(1) else { return 0 };
    if raw.starts_with('[') {
        let parts = elements(Some(text)).into_iter();
        return parts.map(|part| bytes_within(part, depth_left)).fold(0, u64::saturating_add);
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
