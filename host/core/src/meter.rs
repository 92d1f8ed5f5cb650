//! What an answer in OpenAI's chat wire used: by the vendor's own words, and by the host's own
//! count of what was delivered.
//!
//! The vendor's usage can be missing, early or nonsense; [`Meter::floor_tokens`] is what an honest
//! vendor bills at the least. Both are to be held together: the usage of a stream that was cut may
//! be of an earlier moment than its last text.

mod overheard;
mod said;
#[cfg(test)]
mod tests;
mod text;
mod vendor;

use serde::Deserialize;
use serde_json::value::RawValue;

use crate::price::Usage;
pub use overheard::Overheard;
pub(crate) use said::says_something;
use said::{Choices, Said};

/// Bytes of text that are one token at the least: 8.
///
/// English has four to five bytes per token. Few texts have more than eight: long runs of one
/// character, which tokenizers know as a whole.
pub const TOKEN_BYTES: u64 = 8;

/// Counts one answer. Numbers saturate.
#[derive(Clone, Debug, Default)]
pub struct Meter {
    usage: Option<Usage>,
    content_events: u64,
    /// Bytes of text, reasoning, refusals and arguments.
    said_bytes: u64,
    /// Bytes of the names of called tools.
    name_bytes: u64,
}

/// An event, or a whole answer.
#[derive(Deserialize)]
pub(crate) struct Wire<'t> {
    #[serde(borrow)]
    pub(crate) error: Option<&'t RawValue>,
    pub(crate) choices: Option<Choices>,
    #[serde(borrow)]
    usage: Option<&'t RawValue>,
    #[serde(borrow)]
    x_groq: Option<&'t RawValue>,
}

/// Where Groq puts the usage of a stream.
#[derive(Deserialize)]
struct Groq<'t> {
    #[serde(borrow)]
    usage: Option<&'t RawValue>,
}

impl Meter {
    /// Counts an event of a stream, by its data. What is no JSON object counts for nothing.
    pub fn event(&mut self, data: &[u8]) {
        let whole_pairs;
        let wire = match Wire::read(data) {
            Some(wire) => wire,
            None => {
                whole_pairs = without_halves(data);
                let Some(wire) = whole_pairs.as_deref().and_then(Wire::read) else { return };
                wire
            }
        };
        self.note_usage(&wire);
        if let Some(choices) = wire.choices {
            self.content_events = self.content_events.saturating_add(choices.deltas_with_content);
            self.note_said(choices.deltas);
        }
    }

    /// Counts an answer that is no stream, by its body. What is no JSON object counts for nothing.
    pub fn whole(&mut self, body: &[u8]) {
        if let Some(wire) = Wire::read(body) {
            self.note_whole(&wire);
        }
    }

    pub(crate) fn note_whole(&mut self, wire: &Wire<'_>) {
        self.note_usage(wire);
        if let Some(choices) = wire.choices {
            self.note_said(choices.messages);
        }
    }

    /// What the vendor says: the last usage that names both input and output.
    ///
    /// None where there was no such usage, or where it says that nothing was used though something
    /// was delivered. Nonsense is read in the way that costs more.
    pub fn usage(&self) -> Option<Usage> {
        self.usage.filter(|usage| *usage != Usage::default() || self.text_bytes() == 0)
    }

    /// Events with something said: one for each choice of an event that has text, reasoning, a
    /// refusal or a tool's arguments. 0 for whole answers.
    pub fn content_events(&self) -> u64 {
        self.content_events
    }

    /// Bytes of what was said, without the escapes of JSON: text, reasoning, refusals, and of tool
    /// calls their names and arguments.
    pub fn text_bytes(&self) -> u64 {
        self.said_bytes.saturating_add(self.name_bytes)
    }

    /// Tokens of output that were delivered at the least.
    ///
    /// An event with content carries one token or more, and a token stands for no more than
    /// [`TOKEN_BYTES`] on average. Names of tools do not count: a vendor bills none that the
    /// client has chosen.
    pub fn floor_tokens(&self) -> u64 {
        self.content_events.max(self.said_bytes / TOKEN_BYTES)
    }

    fn note_said(&mut self, said: Said) {
        self.said_bytes = self.said_bytes.saturating_add(said.text_bytes);
        self.name_bytes = self.name_bytes.saturating_add(said.name_bytes);
    }

    fn note_usage(&mut self, wire: &Wire<'_>) {
        let places = [wire.groq_usage(), wire.usage];
        for usage in places.into_iter().flatten().filter_map(|usage| vendor::read(usage, wire.is_chat())) {
            // Some vendors send zeros after their usage, or before it.
            if usage != Usage::default() || self.usage.is_none() {
                self.usage = Some(usage);
            }
        }
    }
}

/// The text with another character of two bytes in place of each half of a surrogate pair, as which
/// it counts; None where there is none.
///
/// The parser reads no half in a name, or in place of an object; some clients do.
fn without_halves(data: &[u8]) -> Option<Vec<u8>> {
    let is_half = |at: &usize| {
        matches!(data.get(at + 2..at + 4), Some([b'd' | b'D', b'8'..=b'9' | b'a'..=b'f' | b'A'..=b'F']))
    };
    let mut halves = memchr::memmem::find_iter(data, b"\\u").filter(is_half).peekable();
    halves.peek()?;
    let mut text = data.to_vec();
    for half in halves {
        if let Some(digits) = text.get_mut(half + 2..half + 6) {
            digits.copy_from_slice(b"0400");
        }
    }
    Some(text)
}

/// Whether an event brings a usage and nothing else: what is not for a client that did not ask
/// for it.
///
/// Goes by the name `usage` as vendors write it, without escapes.
pub fn is_usage_only(data: &[u8]) -> bool {
    // A look that costs less than reading, and that most events do not pass: `"usage":null`.
    const KEY: &[u8] = b"\"usage\"";
    let is_object = |at: usize| {
        let value = data[at + KEY.len()..].trim_ascii_start().strip_prefix(b":");
        value.is_some_and(|value| value.trim_ascii_start().starts_with(b"{"))
    };
    if !memchr::memmem::find_iter(data, KEY).any(is_object) {
        return false;
    }
    Wire::read(data).is_some_and(|wire| {
        let quiet = wire.error.is_none_or(|error| !says_something(error));
        let brings = wire.usage.is_some_and(|usage| usage.get().starts_with('{'));
        quiet && brings && wire.choices.is_none_or(|choices| choices.is_empty())
    })
}

// === impl Wire ===

impl<'t> Wire<'t> {
    pub(crate) fn read(data: &'t [u8]) -> Option<Wire<'t>> {
        serde_json::from_slice(data).ok()
    }

    fn groq_usage(&self) -> Option<&'t RawValue> {
        serde_json::from_str::<Groq<'t>>(self.x_groq?.get()).ok()?.usage
    }

    /// Others, such as embeddings, have no output.
    fn is_chat(&self) -> bool {
        self.choices.is_some()
    }
}
