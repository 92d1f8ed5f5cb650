//! Reads what a vendor says that it will bill, whichever vendor it is.
//!
//! Vendors agree on the names of the totals and differ in what these include. What does not add up
//! is read in the way that costs more: details that do not fit into their total come on top of it.

use serde::Deserialize;
use serde_json::value::RawValue;

use crate::price::Usage;

/// The members that vendors have; input and output also by Anthropic's names.
#[derive(Deserialize)]
struct Wire<'t> {
    #[serde(borrow)]
    prompt_tokens: Option<&'t RawValue>,
    #[serde(borrow)]
    input_tokens: Option<&'t RawValue>,
    #[serde(borrow)]
    completion_tokens: Option<&'t RawValue>,
    #[serde(borrow)]
    output_tokens: Option<&'t RawValue>,
    #[serde(borrow)]
    total_tokens: Option<&'t RawValue>,
    #[serde(borrow)]
    prompt_tokens_details: Option<&'t RawValue>,
    #[serde(borrow)]
    completion_tokens_details: Option<&'t RawValue>,
    /// DeepSeek.
    #[serde(borrow)]
    prompt_cache_hit_tokens: Option<&'t RawValue>,
    #[serde(borrow)]
    prompt_cache_miss_tokens: Option<&'t RawValue>,
    /// Moonshot.
    #[serde(borrow)]
    cached_tokens: Option<&'t RawValue>,
}

#[derive(Default, Deserialize)]
struct InputDetails<'t> {
    #[serde(borrow)]
    cached_tokens: Option<&'t RawValue>,
    /// OpenRouter.
    #[serde(borrow)]
    cache_write_tokens: Option<&'t RawValue>,
}

#[derive(Default, Deserialize)]
struct OutputDetails<'t> {
    #[serde(borrow)]
    reasoning_tokens: Option<&'t RawValue>,
}

/// The numbers that made sense.
struct Totals {
    input: u64,
    output: u64,
    /// What is in the vendor's sum besides.
    hidden: u64,
}

/// Reads a usage; `has_output` where the answer is of a kind that has any.
///
/// None where it does not tell input and output.
pub(super) fn read(usage: &RawValue, has_output: bool) -> Option<Usage> {
    let wire: Wire<'_> = serde_json::from_str(usage.get()).ok()?;
    let hit = count(wire.prompt_cache_hit_tokens);
    let details: InputDetails<'_> = wire.prompt_tokens_details.map_or_else(Default::default, parsed);
    // Of two vendors' names for one thing, the dearer reading.
    let cached = [count(details.cached_tokens), count(wire.cached_tokens), hit];
    let cached = cached.into_iter().flatten().min().unwrap_or(0);
    let cache_write = count(details.cache_write_tokens).unwrap_or(0);
    let details: OutputDetails<'_> = wire.completion_tokens_details.map_or_else(Default::default, parsed);
    let reasoning = count(details.reasoning_tokens).unwrap_or(0);

    let mut totals = Totals::read(&wire, hit, has_output)?;
    let in_cache = cached.saturating_add(cache_write);
    let input = totals.input.checked_sub(in_cache).unwrap_or_else(|| {
        // The vendor's sum has them too.
        totals.hidden = totals.hidden.saturating_sub(in_cache);
        totals.input
    });
    let (output, reasoning) = totals.output_with(reasoning);
    Some(Usage { input, cached_input: cached, cache_write, output, reasoning, ..Usage::default() })
}

// === impl Totals ===

impl Totals {
    fn read(wire: &Wire<'_>, hit: Option<u64>, has_output: bool) -> Option<Totals> {
        let parts = match (hit, count(wire.prompt_cache_miss_tokens)) {
            (Some(hit), Some(miss)) => Some(hit.saturating_add(miss)),
            (Some(_) | None, None) | (None, Some(_)) => None,
        };
        let input = dearer(count(wire.prompt_tokens), count(wire.input_tokens));
        let output = dearer(count(wire.completion_tokens), count(wire.output_tokens));
        let total = count(wire.total_tokens);
        let (input, output) = match (dearer(input, parts), output, total) {
            (Some(input), Some(output), _) => (input, output),
            // The rest of the sum is hidden, and so below.
            (Some(input), None, Some(_)) => (input, 0),
            (None, Some(output), Some(total)) => (total.saturating_sub(output), output),
            (None, None, Some(total)) if !has_output => (total, 0),
            (None, None, _) | (Some(_), None, None) | (None, Some(_), None) => return None,
        };
        let hidden = total.unwrap_or(0).saturating_sub(input.saturating_add(output));
        Some(Totals { input, output, hidden })
    }

    /// Output and reasoning, apart: xAI's reasoning is in the sum alone, OpenAI's in the output.
    fn output_with(&self, reasoning: u64) -> (u64, u64) {
        match self.output.checked_sub(reasoning) {
            Some(output) if self.hidden < reasoning => (output, reasoning.saturating_add(self.hidden)),
            Some(_) => (self.output, self.hidden),
            None => (self.output, reasoning.max(self.hidden)),
        }
    }
}

fn dearer(one: Option<u64>, other: Option<u64>) -> Option<u64> {
    one.max(other)
}

fn parsed<'t, T: Default + Deserialize<'t>>(raw: &'t RawValue) -> T {
    serde_json::from_str(raw.get()).unwrap_or_default()
}

/// A number of tokens, also as a string or with a fraction, which counts as one more. What is too
/// large is `u64::MAX`; what is negative or no number is none.
fn count(raw: Option<&RawValue>) -> Option<u64> {
    let text = raw?.get().trim_matches('"').trim();
    if !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit()) {
        return Some(text.parse().unwrap_or(u64::MAX));
    }
    // Exact enough: no vendor counts in fractions. The conversion saturates.
    let number = text.parse::<f64>().ok().filter(|number| *number >= 0.0);
    number.map(|number| number.ceil() as u64)
}
