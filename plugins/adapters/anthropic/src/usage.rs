//! Tokens as Anthropic counts them, for the host's books and for the client.

use serde::{Deserialize, Serialize};
use sluice_plugin::adapter::Usage;

/// Anthropic's counts; its three kinds of input exclude each other. In a stream each report is the
/// sum so far, and says only what it has news of.
#[derive(Clone, Copy, Debug, Default, Deserialize)]
pub struct Counts {
    input_tokens: Option<u64>,
    cache_creation_input_tokens: Option<u64>,
    cache_read_input_tokens: Option<u64>,
    /// Thinking is among them.
    output_tokens: Option<u64>,
    output_tokens_details: Option<OutputDetails>,
}

#[derive(Clone, Copy, Debug, Deserialize)]
struct OutputDetails {
    thinking_tokens: Option<u64>,
}

/// The same, as OpenAI counts: the prompt is all of the input, the completion all of the output.
/// Details that the vendor does not tell are left out.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct Tokens {
    prompt_tokens: u64,
    completion_tokens: u64,
    total_tokens: u64,
    prompt_tokens_details: PromptTokens,
    #[serde(skip_serializing_if = "Option::is_none")]
    completion_tokens_details: Option<CompletionTokens>,
}

#[derive(Clone, Copy, Debug, Serialize)]
struct PromptTokens {
    cached_tokens: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    cache_write_tokens: Option<u64>,
}

#[derive(Clone, Copy, Debug, Serialize)]
struct CompletionTokens {
    reasoning_tokens: u64,
}

impl Counts {
    pub fn update(&mut self, newer: Counts) {
        *self = Counts {
            input_tokens: newer.input_tokens.or(self.input_tokens),
            cache_creation_input_tokens: newer
                .cache_creation_input_tokens
                .or(self.cache_creation_input_tokens),
            cache_read_input_tokens: newer.cache_read_input_tokens.or(self.cache_read_input_tokens),
            output_tokens: newer.output_tokens.or(self.output_tokens),
            output_tokens_details: Some(OutputDetails {
                thinking_tokens: newer.thinking_tokens().or(self.thinking_tokens()),
            }),
        };
    }

    pub fn booked(&self) -> Usage {
        let output = self.output_tokens.unwrap_or(0);
        // A count of more thinking than output would be wrong: what is billed is the output.
        let reasoning = self.thinking_tokens().unwrap_or(0).min(output);
        Usage {
            input: self.input_tokens.unwrap_or(0),
            cached_input: self.cache_read_input_tokens.unwrap_or(0),
            cache_write: self.cache_creation_input_tokens.unwrap_or(0),
            output: output - reasoning,
            reasoning,
            calls: 0,
            millis: 0,
        }
    }

    pub fn shown(&self) -> Tokens {
        let Usage { input, cached_input, cache_write, output, reasoning, .. } = self.booked();
        let prompt_tokens = input.saturating_add(cached_input).saturating_add(cache_write);
        let completion_tokens = output + reasoning;
        Tokens {
            prompt_tokens,
            completion_tokens,
            total_tokens: prompt_tokens.saturating_add(completion_tokens),
            prompt_tokens_details: PromptTokens {
                cached_tokens: cached_input,
                cache_write_tokens: self.cache_creation_input_tokens,
            },
            completion_tokens_details: self
                .thinking_tokens()
                .map(|_| CompletionTokens { reasoning_tokens: reasoning }),
        }
    }

    fn thinking_tokens(&self) -> Option<u64> {
        self.output_tokens_details?.thinking_tokens
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn thinking_is_a_part_of_the_output_and_never_more() {
        for (told, output, reasoning) in [(None, 5, 0), (Some(0), 5, 0), (Some(5), 0, 5), (Some(6), 0, 5)] {
            let output_tokens_details = Some(OutputDetails { thinking_tokens: told });
            let counts = Counts { output_tokens: Some(5), output_tokens_details, ..Counts::default() };
            let booked = counts.booked();
            assert_eq!((booked.output, booked.reasoning), (output, reasoning), "{told:?}");
            let shown = counts.shown();
            assert_eq!((shown.completion_tokens, shown.total_tokens), (5, 5), "{told:?}");
            assert_eq!(shown.completion_tokens_details.is_some(), told.is_some(), "{told:?}");
        }
    }

    #[test]
    fn a_report_says_only_what_it_has_news_of() {
        let report = |json: &str| -> Counts { serde_json::from_str(json).unwrap() };
        let mut counts = Counts::default();
        counts.update(report(r#"{"output_tokens":9,"output_tokens_details":{"thinking_tokens":4}}"#));
        for empty in ["{}", r#"{"output_tokens_details":null}"#, r#"{"output_tokens_details":{}}"#] {
            counts.update(report(empty));
            assert_eq!((counts.booked().output, counts.booked().reasoning), (5, 4), "{empty}");
        }
    }
}
