//! One pass over a body that counts what it asks for, without a tree and without copies but of
//! strings with escapes.

use std::fmt;

use serde::de::{DeserializeSeed, Deserializer, MapAccess, SeqAccess, Visitor};
use serde_json::value::RawValue;

use super::entry::Entry;
use super::names::{self, BodyMember, EntryMember, EntryType, ToolMember};
use super::tally::{Tally, Value};
use super::words::{Count, Said, Word};
use super::{DEPTH_MAX, NotBounded};
use crate::json::Key;

/// Where a value is: what objects in it are taken for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Place {
    Body,
    Settings,
    /// The value of a member that holds text or entries.
    Entries,
    /// An element of it.
    Element,
    /// Within something that is counted as opaque already.
    Counted,
    Tools,
    Tool,
    /// Schemas, arguments, settings: whatever is there is text.
    Json,
    Cache,
    Modalities,
    Voice,
}

/// Passes one value.
struct Walk<'t> {
    tally: &'t mut Tally,
    place: Place,
    depth: u8,
}

/// Counts a body that is not empty.
pub(super) fn body(text: &str) -> Result<Tally, NotBounded> {
    if !text.trim_ascii_start().starts_with('{') {
        return Err(match serde_json::from_str::<&RawValue>(text) {
            Ok(_) => NotBounded::NotAnObject,
            Err(_) => NotBounded::NotJson,
        });
    }
    let mut tally = Tally::default();
    let mut parser = serde_json::Deserializer::from_str(text);
    let walk = Walk { tally: &mut tally, place: Place::Body, depth: 0 };
    match walk.deserialize(&mut parser).and_then(|_| parser.end()) {
        Ok(()) => Ok(tally),
        // Any JSON will do as a value, so the only data at fault is one level more.
        Err(error) if error.is_data() => Err(NotBounded::TooDeep),
        Err(_) => Err(NotBounded::NotJson),
    }
}

// === impl Walk ===

impl Walk<'_> {
    /// One level deeper.
    fn inner(&mut self, place: Place) -> Walk<'_> {
        Walk { tally: self.tally, place, depth: self.depth + 1 }
    }

    fn value<'de, A: MapAccess<'de>>(&mut self, map: &mut A, place: Place) -> Result<Value, A::Error> {
        map.next_value_seed(self.inner(place))
    }

    fn key<'de, A: MapAccess<'de>, T>(
        &mut self,
        map: &mut A,
        read: fn(&str) -> T,
    ) -> Result<Option<T>, A::Error> {
        self.tally.values = self.tally.values.saturating_add(1);
        map.next_key_seed(Key(read))
    }

    fn list<'de, A: SeqAccess<'de>>(&mut self, list: &mut A) -> Result<Value, A::Error> {
        let place = match self.place {
            Place::Entries => Place::Element,
            Place::Tools => Place::Tool,
            place => place,
        };
        let (mut elements, mut texts) = (0_u32, 0_u32);
        while let Some(value) = list.next_element_seed(self.inner(place))? {
            elements = elements.saturating_add(1);
            if value != Value::Number {
                texts = texts.saturating_add(1);
            }
            match place {
                Place::Tool if value != Value::Object => self.tally.add_server_tools(value.things()),
                // The elements of this list itself are counted by who asked for it.
                Place::Counted if matches!(value, Value::List { .. }) => {
                    self.tally.add_opaque(value.things())
                }
                Place::Modalities => self.tally.other_output |= !matches!(value, Value::Text | Value::Null),
                Place::Body
                | Place::Settings
                | Place::Entries
                | Place::Element
                | Place::Counted
                | Place::Tools
                | Place::Tool
                | Place::Json
                | Place::Cache
                | Place::Voice => {}
            }
        }
        self.tally.values = self.tally.values.saturating_add(elements.into());
        Ok(Value::List { elements, texts })
    }

    fn body<'de, A: MapAccess<'de>>(&mut self, map: &mut A) -> Result<(), A::Error> {
        while let Some(member) = self.key(map, BodyMember::of)? {
            match member {
                BodyMember::Entries => {
                    self.value(map, Place::Entries)?;
                }
                BodyMember::Prompt => self.prompt(map)?,
                BodyMember::Audio => {
                    let value = self.value(map, Place::Voice)?;
                    self.tally.other_output |= value != Value::Null;
                    if value != Value::Object {
                        self.tally.add_opaque(value.things());
                    }
                }
                BodyMember::Functions => {
                    let value = self.value(map, Place::Json)?;
                    self.tally.tools = self.tally.tools.saturating_add(value.things().into());
                }
                BodyMember::Body => {
                    self.value(map, Place::Body)?;
                }
                BodyMember::Cache => {
                    self.value(map, Place::Cache)?;
                }
                BodyMember::Unknown => {
                    let value = self.value(map, Place::Counted)?;
                    // A number under a name that is not listed is a setting.
                    if value != Value::Number {
                        self.tally.add_opaque(value.things());
                    }
                }
                BodyMember::Answers
                | BodyMember::Modalities
                | BodyMember::OtherOutput
                | BodyMember::Tools
                | BodyMember::ServerTool
                | BodyMember::Settings
                | BodyMember::Rates
                | BodyMember::Setting => self.setting(map, member)?,
            }
        }
        Ok(())
    }

    /// What means the same in the body and in its groups of settings.
    fn setting<'de, A: MapAccess<'de>>(&mut self, map: &mut A, member: BodyMember) -> Result<(), A::Error> {
        match member {
            BodyMember::Answers => {
                let count = map.next_value_seed(Count)?;
                self.tally.answers = self.tally.answers.max(count);
            }
            BodyMember::Modalities => {
                let value = self.value(map, Place::Modalities)?;
                self.tally.other_output |= value == Value::Object;
            }
            BodyMember::OtherOutput => {
                let value = self.value(map, Place::Json)?;
                self.tally.other_output |= value != Value::Null;
            }
            BodyMember::Tools => {
                let value = self.value(map, Place::Tools)?;
                if !matches!(value, Value::List { .. }) {
                    self.tally.add_server_tools(value.things());
                }
            }
            BodyMember::ServerTool => {
                let value = self.value(map, Place::Counted)?;
                self.tally.add_server_tools(value.switched_on());
            }
            BodyMember::Settings => {
                self.value(map, Place::Settings)?;
            }
            BodyMember::Rates => {
                let choice = map.next_value_seed(Word(names::has_usual_rates))?;
                self.tally.other_rates |= !choice.is_null_or(true);
            }
            BodyMember::Entries
            | BodyMember::Prompt
            | BodyMember::Audio
            | BodyMember::Functions
            | BodyMember::Body
            | BodyMember::Cache
            | BodyMember::Setting
            | BodyMember::Unknown => {
                self.value(map, Place::Json)?;
            }
        }
        Ok(())
    }

    /// A text, a list of them, or tokens, of which each is continued; or a stored prompt.
    fn prompt<'de, A: MapAccess<'de>>(&mut self, map: &mut A) -> Result<(), A::Error> {
        match self.value(map, Place::Entries)? {
            Value::List { texts, .. } => self.tally.prompts = self.tally.prompts.max(texts),
            Value::Object => self.tally.add_opaque(1),
            Value::Null | Value::Truth(_) | Value::Number | Value::Text => {}
        }
        Ok(())
    }

    fn settings<'de, A: MapAccess<'de>>(&mut self, map: &mut A) -> Result<(), A::Error> {
        while let Some(member) = self.key(map, BodyMember::of)? {
            self.setting(map, member)?;
        }
        Ok(())
    }

    fn entry<'de, A: MapAccess<'de>>(&mut self, map: &mut A) -> Result<(), A::Error> {
        self.tally.entries = self.tally.entries.saturating_add(1);
        let mut entry = Entry::new(self.place);
        while let Some(member) = self.key(map, EntryMember::of)? {
            match member {
                EntryMember::Type => entry.note_type(map.next_value_seed(Word(EntryType::of))?),
                EntryMember::Id => entry.has_id |= self.value(map, Place::Entries)? != Value::Null,
                EntryMember::Role => entry.role.note(self.value(map, Place::Entries)? != Value::Null),
                EntryMember::Function => entry.role.note(self.value(map, Place::Json)? != Value::Null),
                EntryMember::Encrypted => {
                    let word = map.next_value_seed(Word(|text| !text.is_empty()))?;
                    entry.encrypted.note(matches!(word, Said::Word(true)));
                }
                EntryMember::Input => entry.input = entry.input.saturating_add(self.suspect(map, &entry)?),
                EntryMember::Data => entry.data = entry.data.saturating_add(self.suspect(map, &entry)?),
                EntryMember::Entries => {
                    self.value(map, Place::Entries)?;
                }
                EntryMember::Json => {
                    self.value(map, Place::Json)?;
                }
                EntryMember::Cache => {
                    self.value(map, Place::Cache)?;
                }
                EntryMember::Unknown => {
                    let value = self.value(map, Place::Counted)?;
                    entry.unknown = entry.unknown.saturating_add(entry.things(value));
                }
            }
        }
        self.tally.add_opaque(entry.opaque());
        Ok(())
    }

    /// What a member would count for, if it turns out that it is no text.
    fn suspect<'de, A: MapAccess<'de>>(&mut self, map: &mut A, entry: &Entry) -> Result<u32, A::Error> {
        let before = self.tally.opaque;
        let value = self.value(map, Place::Counted)?;
        let within = self.tally.opaque - before;
        self.tally.opaque = before;
        Ok(within.saturating_add(entry.things(value)))
    }

    fn tool<'de, A: MapAccess<'de>>(&mut self, map: &mut A) -> Result<(), A::Error> {
        self.tally.tools = self.tally.tools.saturating_add(1);
        let mut clients = true;
        while let Some(member) = self.key(map, ToolMember::of)? {
            match member {
                ToolMember::Type => {
                    let kind = map.next_value_seed(Word(names::is_clients_tool))?;
                    clients &= kind.is_null_or(true);
                }
                ToolMember::Json => {
                    self.value(map, Place::Json)?;
                }
                ToolMember::Cache => {
                    self.value(map, Place::Cache)?;
                }
                ToolMember::Unknown => clients &= self.value(map, Place::Json)? == Value::Null,
            }
        }
        self.tally.add_server_tools((!clients).into());
        Ok(())
    }

    fn cache<'de, A: MapAccess<'de>>(&mut self, map: &mut A) -> Result<(), A::Error> {
        while let Some(is_ttl) = self.key(map, |name| name == "ttl")? {
            if is_ttl {
                let ttl = map.next_value_seed(Word(names::is_usual_ttl))?;
                self.tally.other_rates |= !ttl.is_null_or(true);
            } else {
                self.value(map, Place::Json)?;
            }
        }
        Ok(())
    }

    /// How the answer is to sound; anything else is something to be heard.
    fn voice<'de, A: MapAccess<'de>>(&mut self, map: &mut A) -> Result<(), A::Error> {
        while let Some(is_setting) = self.key(map, |name| matches!(name, "voice" | "format"))? {
            let place = if is_setting { Place::Json } else { Place::Counted };
            let value = self.value(map, place)?;
            if !is_setting {
                self.tally.add_opaque(value.things());
            }
        }
        Ok(())
    }

    fn json<'de, A: MapAccess<'de>>(&mut self, map: &mut A) -> Result<(), A::Error> {
        while self.key(map, |_| ())?.is_some() {
            self.value(map, Place::Json)?;
        }
        Ok(())
    }

    fn check_depth<E: serde::de::Error>(&self) -> Result<(), E> {
        if self.depth >= DEPTH_MAX { Err(E::custom("too deep")) } else { Ok(()) }
    }
}

impl<'de> DeserializeSeed<'de> for Walk<'_> {
    type Value = Value;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Value, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Walk<'_> {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("any value")
    }

    fn visit_unit<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_bool<E>(self, truth: bool) -> Result<Value, E> {
        Ok(Value::Truth(truth))
    }

    fn visit_u64<E>(self, _: u64) -> Result<Value, E> {
        Ok(Value::Number)
    }

    fn visit_i64<E>(self, _: i64) -> Result<Value, E> {
        Ok(Value::Number)
    }

    fn visit_f64<E>(self, _: f64) -> Result<Value, E> {
        Ok(Value::Number)
    }

    fn visit_str<E>(self, text: &str) -> Result<Value, E> {
        if self.place == Place::Modalities && !names::is_text_modality(text) {
            self.tally.other_output = true;
        }
        Ok(Value::Text)
    }

    fn visit_seq<A: SeqAccess<'de>>(mut self, mut list: A) -> Result<Value, A::Error> {
        self.check_depth()?;
        self.list(&mut list)
    }

    fn visit_map<A: MapAccess<'de>>(mut self, mut map: A) -> Result<Value, A::Error> {
        self.check_depth()?;
        match self.place {
            Place::Body => self.body(&mut map)?,
            Place::Settings => self.settings(&mut map)?,
            Place::Entries | Place::Element | Place::Counted => self.entry(&mut map)?,
            Place::Tools | Place::Tool => self.tool(&mut map)?,
            Place::Json | Place::Modalities => self.json(&mut map)?,
            Place::Cache => self.cache(&mut map)?,
            Place::Voice => self.voice(&mut map)?,
        }
        Ok(Value::Object)
    }
}
