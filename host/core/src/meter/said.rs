//! How much is said in an answer's choices.

use std::fmt;

use serde::Deserialize;
use serde::de::{DeserializeSeed, Deserializer, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde_json::value::RawValue;

/// Levels of lists and parts within a text: 4.
///
/// Mistral's reasoning has two: a part whose `thinking` is a list of parts.
const PARTS_DEPTH_MAX: u8 = 4;

/// What an event or an answer has under `choices`. What is of another kind than it should be says
/// nothing.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Choices {
    /// None: no list.
    count: Option<u64>,
    /// What they add to a stream.
    pub(super) deltas: Said,
    /// Deltas with what a token was generated for: a tool's name may be the client's choice.
    pub(super) deltas_with_content: u64,
    /// What they say as a whole.
    pub(super) messages: Said,
}

/// How much is said. Numbers saturate.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Said {
    /// Of text, reasoning, refusals and arguments.
    pub(super) text_bytes: u64,
    /// Of the names of called tools.
    pub(super) name_bytes: u64,
}

/// One pass over choices.
struct Walk<'s> {
    choices: &'s mut Choices,
    /// By the speech that is read.
    said: &'s mut Said,
    place: Place,
}

/// Where a value is.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Place {
    Choices,
    Choice,
    /// A delta or a message.
    Speech,
    ToolCalls,
    ToolCall,
    /// A function, or a custom tool.
    Called,
}

/// What a member's name says about its value.
#[derive(Clone, Copy)]
enum Member {
    Delta,
    Message,
    /// Of legacy completions, beside both.
    Legacy,
    Text,
    /// The same under both names, where a vendor sends both.
    Reasoning,
    Name,
    Inner(Place),
    Other,
}

/// Reads a member's name at a place.
struct Key(Place);

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

/// Vendors write "nothing" in each of these ways.
pub(super) fn says_something(value: &RawValue) -> bool {
    !matches!(value.get(), "null" | "\"\"" | "[]" | "{}" | "false")
}

// === impl Choices ===

impl Choices {
    /// They are a list.
    pub(crate) fn is_list(&self) -> bool {
        self.count.is_some()
    }

    /// They are a list without elements.
    pub(super) fn is_empty(&self) -> bool {
        self.count == Some(0)
    }
}

impl<'de> Deserialize<'de> for Choices {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Choices, D::Error> {
        let (mut choices, mut said) = (Choices::default(), Said::default());
        let walk = Walk { choices: &mut choices, said: &mut said, place: Place::Choices };
        walk.deserialize(deserializer)?;
        Ok(choices)
    }
}

// === impl Said ===

impl Said {
    fn add(&mut self, other: Said) {
        self.text_bytes = self.text_bytes.saturating_add(other.text_bytes);
        self.name_bytes = self.name_bytes.saturating_add(other.name_bytes);
    }

    fn add_text(&mut self, bytes: u64) {
        self.text_bytes = self.text_bytes.saturating_add(bytes);
    }
}

// === impl Member ===

impl Member {
    fn of(place: Place, name: &str) -> Member {
        match (place, name) {
            (Place::Choice, "delta") => Member::Delta,
            (Place::Choice, "message") => Member::Message,
            (Place::Choice, "text") => Member::Legacy,
            (Place::Speech, "content" | "refusal") => Member::Text,
            (Place::Speech, "reasoning" | "reasoning_content") => Member::Reasoning,
            (Place::Speech, "tool_calls") => Member::Inner(Place::ToolCalls),
            (Place::Speech, "function_call") | (Place::ToolCall, "function" | "custom") => {
                Member::Inner(Place::Called)
            }
            (Place::Called, "arguments" | "input") => Member::Text,
            (Place::Called, "name") => Member::Name,
            _ => Member::Other,
        }
    }
}

// === impl Key ===

impl<'de> DeserializeSeed<'de> for Key {
    type Value = Member;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Member, D::Error> {
        deserializer.deserialize_str(self)
    }
}

impl Visitor<'_> for Key {
    type Value = Member;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a name")
    }

    fn visit_str<E>(self, name: &str) -> Result<Member, E> {
        Ok(Member::of(self.0, name))
    }
}

// === impl Walk ===

impl Walk<'_> {
    fn at(&mut self, place: Place) -> Walk<'_> {
        Walk { choices: self.choices, said: self.said, place }
    }

    fn choice<'de, A: MapAccess<'de>>(&mut self, map: &mut A) -> Result<(), A::Error> {
        let (mut delta, mut message) = (Said::default(), Said::default());
        while let Some(member) = map.next_key_seed(Key(Place::Choice))? {
            match member {
                Member::Delta => delta.add(self.speech(map)?),
                Member::Message => message.add(self.speech(map)?),
                Member::Legacy => {
                    let bytes = bytes_of(map)?;
                    delta.add_text(bytes);
                    message.add_text(bytes);
                }
                Member::Text | Member::Reasoning | Member::Name | Member::Inner(_) | Member::Other => {
                    map.next_value::<IgnoredAny>()?;
                }
            }
        }
        self.choices.deltas.add(delta);
        self.choices.deltas_with_content += u64::from(delta.text_bytes > 0);
        self.choices.messages.add(message);
        Ok(())
    }

    /// What the next value of this map says.
    fn speech<'de, A: MapAccess<'de>>(&mut self, map: &mut A) -> Result<Said, A::Error> {
        *self.said = Said::default();
        map.next_value_seed(self.at(Place::Speech))?;
        Ok(*self.said)
    }

    /// A speech, or a part of it.
    fn members<'de, A: MapAccess<'de>>(&mut self, map: &mut A) -> Result<(), A::Error> {
        let mut reasoning = 0;
        while let Some(member) = map.next_key_seed(Key(self.place))? {
            match member {
                Member::Text => self.said.add_text(bytes_of(map)?),
                Member::Reasoning => reasoning = bytes_of(map)?.max(reasoning),
                Member::Name => {
                    let name = Said { text_bytes: 0, name_bytes: bytes_of(map)? };
                    self.said.add(name);
                }
                Member::Inner(place) => map.next_value_seed(self.at(place))?,
                Member::Delta | Member::Message | Member::Legacy | Member::Other => {
                    map.next_value::<IgnoredAny>()?;
                }
            }
        }
        self.said.add_text(reasoning);
        Ok(())
    }
}

impl<'de> DeserializeSeed<'de> for Walk<'_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Walk<'_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("any value")
    }

    fn visit_unit<E>(self) -> Result<(), E> {
        Ok(())
    }

    fn visit_bool<E>(self, _: bool) -> Result<(), E> {
        Ok(())
    }

    fn visit_u64<E>(self, _: u64) -> Result<(), E> {
        Ok(())
    }

    fn visit_i64<E>(self, _: i64) -> Result<(), E> {
        Ok(())
    }

    fn visit_f64<E>(self, _: f64) -> Result<(), E> {
        Ok(())
    }

    fn visit_str<E>(self, _: &str) -> Result<(), E> {
        Ok(())
    }

    fn visit_seq<A: SeqAccess<'de>>(mut self, mut list: A) -> Result<(), A::Error> {
        let inner = match self.place {
            Place::Choices => Place::Choice,
            Place::ToolCalls => Place::ToolCall,
            Place::Choice | Place::Speech | Place::ToolCall | Place::Called => {
                while list.next_element::<IgnoredAny>()?.is_some() {}
                return Ok(());
            }
        };
        let mut count = 0;
        while list.next_element_seed(self.at(inner))?.is_some() {
            count += 1;
        }
        if self.place == Place::Choices {
            self.choices.count = Some(count);
        }
        Ok(())
    }

    fn visit_map<A: MapAccess<'de>>(mut self, mut map: A) -> Result<(), A::Error> {
        match self.place {
            Place::Choice => self.choice(&mut map),
            Place::Speech | Place::ToolCall | Place::Called => self.members(&mut map),
            Place::Choices | Place::ToolCalls => {
                while map.next_entry::<IgnoredAny, IgnoredAny>()?.is_some() {}
                Ok(())
            }
        }
    }
}

// === texts ===

/// Bytes of the next value of this map, if that is a text, also of one that comes in parts; 0 for
/// anything else.
fn bytes_of<'de, A: MapAccess<'de>>(map: &mut A) -> Result<u64, A::Error> {
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
