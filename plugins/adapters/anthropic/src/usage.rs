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
}

/// The same, as OpenAI counts: the prompt is all of the input.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct Tokens {
    prompt_tokens: u64,
    completion_tokens: u64,
    total_tokens: u64,
    prompt_tokens_details: PromptTokens,
}

#[derive(Clone, Copy, Debug, Serialize)]
struct PromptTokens {
    cached_tokens: u64,
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
        };
    }

    pub fn booked(&self) -> Usage {
        Usage {
            input: self.input_tokens.unwrap_or(0),
            cached_input: self.cache_read_input_tokens.unwrap_or(0),
            cache_write: self.cache_creation_input_tokens.unwrap_or(0),
            output: self.output_tokens.unwrap_or(0),
            reasoning: 0,
            calls: 0,
            millis: 0,
        }
    }

    pub fn shown(&self) -> Tokens {
        let Usage { input, cached_input, cache_write, output, .. } = self.booked();
        let prompt_tokens = input.saturating_add(cached_input).saturating_add(cache_write);
        Tokens {
            prompt_tokens,
            completion_tokens: output,
            total_tokens: prompt_tokens.saturating_add(output),
            prompt_tokens_details: PromptTokens { cached_tokens: cached_input },
        }
    }
}
