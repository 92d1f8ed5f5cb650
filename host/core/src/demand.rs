//! The most input that a call can be charged for, from the bytes that are sent to a vendor.
//!
//! Knows no vendor: one walk over the JSON goes by the names that OpenAI's, Anthropic's, Google's
//! and others' bodies have in common. What a name is not known to be is taken for the dearer thing:
//! a part of a message that is not known as text is [`Demand::opaque`], a tool that is not known
//! as the client's own is one of [`Demand::server_tools`]. What the URL, the headers or the model's
//! name ask for is not seen here.

mod entry;
mod names;
mod tally;
#[cfg(test)]
mod tests;
mod walk;
mod words;

use tally::Tally;

/// What a body asks a vendor for, at the most.
///
/// The numbers saturate. No spelling of a body demands less than the plainest one: every
/// occurrence of a member counts, and a name counts as what it reads as.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Demand {
    /// Tokens of text at most: the body's bytes and some tokens for what chat templates add.
    ///
    /// A token of a byte-level tokenizer stands for one byte of text at least, and JSON is no
    /// shorter than the text it holds. A tokenizer that first rewrites its text (NFKC turns
    /// U+FDFA into eighteen characters), or a template that escapes what is not ASCII, can exceed
    /// it with input made for that.
    pub text_bytes: u64,
    /// Parts whose cost their bytes do not bound: images, audio, video, files, documents, stored
    /// context, and whatever is not known as text. At least as many as there are.
    pub opaque: u32,
    /// Tools that the vendor runs and charges for, such as a web search; and all that it defines,
    /// for they come with text of their own.
    pub server_tools: u32,
    /// Answers that are generated and billed; 1 at least. Each may be as long as the output's
    /// limit, while the input is charged once.
    pub choices: u32,
    /// Output other than text is asked for, which is priced apart.
    pub other_output: bool,
    /// Tokens may be charged at other rates than usual: by another tier of service, speed or
    /// place, or for a longer time in a cache.
    pub other_rates: bool,
}

/// Why nothing can be said about a body.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NotBounded {
    /// Not UTF-8, not JSON, or bytes after it; also half of a surrogate pair (`"\ud800"`), which
    /// is no text.
    #[error("not JSON")]
    NotJson,
    /// JSON, but an array, a string or so.
    #[error("not a JSON object")]
    NotAnObject,
    /// Values lie deeper than [`DEPTH_MAX`].
    #[error("deeper than {DEPTH_MAX} levels")]
    TooDeep,
}

/// Most levels of objects and arrays: 100.
///
/// The walk recurses, and the parser's own bound is 127. Tools with rich schemas have twenty.
pub const DEPTH_MAX: u8 = 100;

/// Tokens that a template adds to any body: 512.
///
/// The begin of the text, the opening of the answer, and a system prompt where a model comes with
/// one: 20 tokens with Qwen, 25 with Llama, near 100 with gpt-oss; how to write by a given schema.
pub const BODY_TOKENS: u64 = 512;

/// Tokens that a template adds to a body with tools: 1,024.
///
/// Anthropic's prompt for the use of tools is the longest that is documented: 159 to 804 tokens.
pub const TOOLS_TOKENS: u64 = 1024;

/// Tokens that a template adds to each message, part or item: 8.
///
/// `<|start_header_id|>user<|end_header_id|>\n\n…<|eot_id|>` are five, others have fewer, and a
/// message's own braces and names have some twenty bytes besides.
pub const ENTRY_TOKENS: u64 = 8;

/// Tokens that a template adds to each tool: 32.
pub const TOOL_TOKENS: u64 = 32;

/// Tokens that a template adds to each JSON value: 2.
///
/// Some write schemas and arguments with each value on a line of its own: `1,` is two bytes, but a
/// line break, spaces, a digit and a comma may be four tokens.
pub const VALUE_TOKENS: u64 = 2;

impl Demand {
    /// Reads a body. An empty one demands the least that there is.
    ///
    /// # Errors
    ///
    /// [`NotBounded`] where it is not a JSON object, or too deep to be read.
    pub fn read(body: &[u8]) -> Result<Demand, NotBounded> {
        let text = std::str::from_utf8(body).map_err(|_| NotBounded::NotJson)?;
        if text.trim_ascii().is_empty() {
            return Ok(Demand::of(body, &Tally::default()));
        }
        Ok(Demand::of(body, &walk::body(text)?))
    }

    fn of(body: &[u8], tally: &Tally) -> Demand {
        let tools = if tally.tools > 0 { TOOLS_TOKENS } else { 0 };
        let added = [
            BODY_TOKENS,
            tools,
            ENTRY_TOKENS.saturating_mul(tally.entries),
            TOOL_TOKENS.saturating_mul(tally.tools),
            VALUE_TOKENS.saturating_mul(tally.values),
        ];
        let bytes = u64::try_from(body.len()).unwrap_or(u64::MAX);
        Demand {
            text_bytes: added.into_iter().fold(bytes, u64::saturating_add),
            opaque: tally.opaque,
            server_tools: tally.server_tools,
            choices: tally.answers.max(1).saturating_mul(tally.prompts.max(1)),
            other_output: tally.other_output,
            other_rates: tally.other_rates,
        }
    }
}
