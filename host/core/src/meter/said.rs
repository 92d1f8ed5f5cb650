//! How much is said in an answer's choices.

use std::fmt;

use serde::Deserialize;
use serde::de::{DeserializeSeed, Deserializer, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde_json::value::RawValue;

use super::text::bytes_of;
use crate::json::Key;

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

/// Where a value is: what is to be read of a list or an object there.
trait Place: Sized {
    type Read: Default;

    fn list<'de, A: SeqAccess<'de>>(self, mut list: A) -> Result<Self::Read, A::Error> {
        while list.next_element::<IgnoredAny>()?.is_some() {}
        Ok(Self::Read::default())
    }

    fn map<'de, A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Read, A::Error> {
        while map.next_entry::<IgnoredAny, IgnoredAny>()?.is_some() {}
        Ok(Self::Read::default())
    }
}

/// Reads the value at a place: nothing from one of another kind.
struct At<P>(P);

/// The list of choices; adds to them.
struct List<'c>(&'c mut Choices);

/// One of them.
struct Choice<'c>(&'c mut Choices);

/// A delta or a message.
struct Speech;

struct ToolCalls;

struct ToolCall;

/// A function, or a custom tool.
struct Called;

enum ChoiceMember {
    Delta,
    Message,
    /// Of legacy completions, beside both.
    Text,
    Other,
}

enum SpeechMember {
    Text,
    /// The same under both names, where a vendor sends both.
    Reasoning,
    ToolCalls,
    Called,
    Other,
}

enum CallMember {
    Called,
    Other,
}

enum CalledMember {
    Name,
    Text,
    Other,
}

/// Vendors write "nothing" in each of these ways.
pub(crate) fn says_something(value: &RawValue) -> bool {
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
        let mut choices = Choices::default();
        choices.count = At(List(&mut choices)).deserialize(deserializer)?;
        Ok(choices)
    }
}

// === impl Said ===

impl Said {
    fn add(&mut self, other: Said) {
        self.text_bytes = self.text_bytes.saturating_add(other.text_bytes);
        self.name_bytes = self.name_bytes.saturating_add(other.name_bytes);
    }

    fn text(bytes: u64) -> Said {
        Said { text_bytes: bytes, name_bytes: 0 }
    }

    fn name(bytes: u64) -> Said {
        Said { text_bytes: 0, name_bytes: bytes }
    }
}

// === impl Place ===

impl Place for List<'_> {
    type Read = Option<u64>;

    fn list<'de, A: SeqAccess<'de>>(self, mut list: A) -> Result<Option<u64>, A::Error> {
        let mut count = 0;
        while list.next_element_seed(At(Choice(&mut *self.0)))?.is_some() {
            count += 1;
        }
        Ok(Some(count))
    }
}

impl Place for Choice<'_> {
    type Read = ();

    fn map<'de, A: MapAccess<'de>>(self, mut map: A) -> Result<(), A::Error> {
        let (mut delta, mut message) = (Said::default(), Said::default());
        while let Some(member) = map.next_key_seed(Key(ChoiceMember::of))? {
            match member {
                ChoiceMember::Delta => delta.add(map.next_value_seed(At(Speech))?),
                ChoiceMember::Message => message.add(map.next_value_seed(At(Speech))?),
                ChoiceMember::Text => {
                    let text = Said::text(bytes_of(&mut map)?);
                    delta.add(text);
                    message.add(text);
                }
                ChoiceMember::Other => skip(&mut map)?,
            }
        }
        self.0.deltas.add(delta);
        self.0.deltas_with_content += u64::from(delta.text_bytes > 0);
        self.0.messages.add(message);
        Ok(())
    }
}

impl Place for Speech {
    type Read = Said;

    fn map<'de, A: MapAccess<'de>>(self, mut map: A) -> Result<Said, A::Error> {
        let (mut said, mut reasoning) = (Said::default(), 0);
        while let Some(member) = map.next_key_seed(Key(SpeechMember::of))? {
            match member {
                SpeechMember::Text => said.add(Said::text(bytes_of(&mut map)?)),
                SpeechMember::Reasoning => reasoning = bytes_of(&mut map)?.max(reasoning),
                SpeechMember::ToolCalls => said.add(map.next_value_seed(At(ToolCalls))?),
                SpeechMember::Called => said.add(map.next_value_seed(At(Called))?),
                SpeechMember::Other => skip(&mut map)?,
            }
        }
        said.add(Said::text(reasoning));
        Ok(said)
    }
}

impl Place for ToolCalls {
    type Read = Said;

    fn list<'de, A: SeqAccess<'de>>(self, mut list: A) -> Result<Said, A::Error> {
        let mut said = Said::default();
        while let Some(call) = list.next_element_seed(At(ToolCall))? {
            said.add(call);
        }
        Ok(said)
    }
}

impl Place for ToolCall {
    type Read = Said;

    fn map<'de, A: MapAccess<'de>>(self, mut map: A) -> Result<Said, A::Error> {
        let mut said = Said::default();
        while let Some(member) = map.next_key_seed(Key(CallMember::of))? {
            match member {
                CallMember::Called => said.add(map.next_value_seed(At(Called))?),
                CallMember::Other => skip(&mut map)?,
            }
        }
        Ok(said)
    }
}

impl Place for Called {
    type Read = Said;

    fn map<'de, A: MapAccess<'de>>(self, mut map: A) -> Result<Said, A::Error> {
        let mut said = Said::default();
        while let Some(member) = map.next_key_seed(Key(CalledMember::of))? {
            match member {
                CalledMember::Name => said.add(Said::name(bytes_of(&mut map)?)),
                CalledMember::Text => said.add(Said::text(bytes_of(&mut map)?)),
                CalledMember::Other => skip(&mut map)?,
            }
        }
        Ok(said)
    }
}

// === members ===

impl ChoiceMember {
    fn of(name: &str) -> ChoiceMember {
        match name {
            "delta" => ChoiceMember::Delta,
            "message" => ChoiceMember::Message,
            "text" => ChoiceMember::Text,
            _ => ChoiceMember::Other,
        }
    }
}

impl SpeechMember {
    fn of(name: &str) -> SpeechMember {
        match name {
            "content" | "refusal" => SpeechMember::Text,
            "reasoning" | "reasoning_content" => SpeechMember::Reasoning,
            "tool_calls" => SpeechMember::ToolCalls,
            "function_call" => SpeechMember::Called,
            _ => SpeechMember::Other,
        }
    }
}

impl CallMember {
    fn of(name: &str) -> CallMember {
        match name {
            "function" | "custom" => CallMember::Called,
            _ => CallMember::Other,
        }
    }
}

impl CalledMember {
    fn of(name: &str) -> CalledMember {
        match name {
            "name" => CalledMember::Name,
            "arguments" | "input" => CalledMember::Text,
            _ => CalledMember::Other,
        }
    }
}

// === impl At ===

impl<'de, P: Place> DeserializeSeed<'de> for At<P> {
    type Value = P::Read;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<P::Read, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de, P: Place> Visitor<'de> for At<P> {
    type Value = P::Read;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("any value")
    }

    fn visit_unit<E>(self) -> Result<P::Read, E> {
        Ok(P::Read::default())
    }

    fn visit_bool<E>(self, _: bool) -> Result<P::Read, E> {
        Ok(P::Read::default())
    }

    fn visit_u64<E>(self, _: u64) -> Result<P::Read, E> {
        Ok(P::Read::default())
    }

    fn visit_i64<E>(self, _: i64) -> Result<P::Read, E> {
        Ok(P::Read::default())
    }

    fn visit_f64<E>(self, _: f64) -> Result<P::Read, E> {
        Ok(P::Read::default())
    }

    fn visit_str<E>(self, _: &str) -> Result<P::Read, E> {
        Ok(P::Read::default())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, list: A) -> Result<P::Read, A::Error> {
        self.0.list(list)
    }

    fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<P::Read, A::Error> {
        self.0.map(map)
    }
}

fn skip<'de, A: MapAccess<'de>>(map: &mut A) -> Result<(), A::Error> {
    map.next_value::<IgnoredAny>().map(drop)
}
