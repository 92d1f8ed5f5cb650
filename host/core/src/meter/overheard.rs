//! What a vendor says of tokens in a wire of its own, which an adapter translates: read beside the
//! adapter, and only as far as it cannot be too much.
//!
//! Names are read where vendors agree on what they mean; of several numbers the largest counts, since
//! those of a stream are sums so far. Classes are not told apart: a token that was read from a cache
//! is a token. So the sums of an honest adapter are never below these.

use serde::Deserialize;
use serde_json::value::RawValue;

use crate::settle::Floor;

/// Listens to one answer.
#[derive(Clone, Copy, Debug, Default)]
pub struct Overheard(Floor);

/// The places in an event, or in a whole answer, where a usage stands.
#[derive(Deserialize)]
struct Wire<'t> {
    #[serde(borrow)]
    usage: Option<&'t RawValue>,
    /// Anthropic's first event.
    #[serde(borrow)]
    message: Option<&'t RawValue>,
    /// The last event of OpenAI's Responses.
    #[serde(borrow)]
    response: Option<&'t RawValue>,
    /// Google's.
    #[serde(borrow, rename = "usageMetadata")]
    usage_metadata: Option<&'t RawValue>,
}

#[derive(Deserialize)]
struct Inner<'t> {
    #[serde(borrow)]
    usage: Option<&'t RawValue>,
}

/// What is no number is none: nobody is charged for what cannot be read.
#[derive(Deserialize)]
struct Counts<'t> {
    /// With what was read from a cache.
    #[serde(borrow, alias = "promptTokenCount")]
    prompt_tokens: Option<&'t RawValue>,
    #[serde(borrow, alias = "inputTokens")]
    input_tokens: Option<&'t RawValue>,
    /// Anthropic's: what stands beside `input_tokens`, and is not in it.
    #[serde(borrow)]
    cache_read_input_tokens: Option<&'t RawValue>,
    #[serde(borrow)]
    cache_creation_input_tokens: Option<&'t RawValue>,
    #[serde(borrow, alias = "candidatesTokenCount")]
    completion_tokens: Option<&'t RawValue>,
    #[serde(borrow, alias = "outputTokens")]
    output_tokens: Option<&'t RawValue>,
}

// === impl Overheard ===

impl Overheard {
    /// Takes in an event's data, or a whole answer, as the vendor has sent it.
    pub fn hear(&mut self, said: &[u8]) {
        // A look that costs less than reading, and that most events do not pass.
        if memchr::memmem::find(said, b"\"usage").is_none() {
            return;
        }
        let Ok(wire) = serde_json::from_slice::<Wire<'_>>(said) else { return };
        let places = [wire.usage, wire.usage_metadata, within(wire.message), within(wire.response)];
        places.into_iter().flatten().for_each(|usage| self.note(usage));
    }

    /// Tokens that the vendor has spoken of, at least.
    pub fn floor(&self) -> Floor {
        self.0
    }

    fn note(&mut self, usage: &RawValue) {
        let Ok(counts) = serde_json::from_str::<Counts<'_>>(usage.get()) else { return };
        let input = match (number(counts.prompt_tokens), number(counts.input_tokens)) {
            (Some(all), _) => all,
            (None, Some(input)) => [counts.cache_read_input_tokens, counts.cache_creation_input_tokens]
                .into_iter()
                .filter_map(number)
                .fold(input, u64::saturating_add),
            (None, None) => 0,
        };
        let output = number(counts.completion_tokens).or(number(counts.output_tokens)).unwrap_or(0);
        self.0 = Floor { input: self.0.input.max(input), output: self.0.output.max(output) };
    }
}

fn within(object: Option<&RawValue>) -> Option<&RawValue> {
    serde_json::from_str::<Inner<'_>>(object?.get()).ok()?.usage
}

fn number(raw: Option<&RawValue>) -> Option<u64> {
    raw?.get().parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn heard(events: &[&str]) -> (u64, u64) {
        let mut overheard = Overheard::default();
        events.iter().for_each(|event| overheard.hear(event.as_bytes()));
        (overheard.floor().input, overheard.floor().output)
    }

    #[test]
    fn each_wire_is_read_as_its_vendor_means_it() {
        let table = [
            (
                r#"{"choices":[],"usage":{"prompt_tokens":9,"completion_tokens":4,"total_tokens":20,"prompt_tokens_details":{"cached_tokens":8}}}"#,
                (9, 4),
            ),
            (
                r#"{"type":"message","usage":{"input_tokens":9,"cache_read_input_tokens":20,"cache_creation_input_tokens":5,"output_tokens":4}}"#,
                (34, 4),
            ),
            (
                r#"{"type":"response.completed","response":{"usage":{"input_tokens":9,"input_tokens_details":{"cached_tokens":8},"output_tokens":4}}}"#,
                (9, 4),
            ),
            (
                r#"{"candidates":[],"usageMetadata":{"promptTokenCount":9,"candidatesTokenCount":4,"thoughtsTokenCount":7}}"#,
                (9, 4),
            ),
            (r#"{"metrics":{},"usage":{"inputTokens":9,"outputTokens":4,"totalTokens":13}}"#, (9, 4)),
        ];
        for (said, wanted) in table {
            assert_eq!(heard(&[said]), wanted, "{said}");
        }
    }

    #[test]
    fn of_the_sums_of_a_stream_the_largest_counts() {
        let start = r#"{"type":"message_start","message":{"usage":{"input_tokens":9,"output_tokens":1}}}"#;
        let end = r#"{"type":"message_delta","usage":{"output_tokens":44}}"#;
        let zeros = r#"{"usage":{"input_tokens":0,"output_tokens":0}}"#;
        assert_eq!(heard(&[start, end, zeros]), (9, 44));
        assert_eq!(heard(&[zeros, end, start]), (9, 44));
    }

    #[test]
    fn what_cannot_be_read_is_nothing() {
        for said in [
            "",
            "{",
            r#"{"usage":null}"#,
            r#"{"usage":{"prompt_tokens":-1,"completion_tokens":"many"}}"#,
            r#"{"usage":{"tok_in":9}}"#,
            // A text that speaks of it, and somebody else's.
            r#"{"delta":{"text":"{\"usage\":{\"prompt_tokens\":9}}"}}"#,
            r#"{"tool":{"usage":{"prompt_tokens":9}}}"#,
        ] {
            assert_eq!(heard(&[said]), (0, 0), "{said}");
        }
    }
}
