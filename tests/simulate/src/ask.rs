//! What a request wants, on whichever wire it came.

use serde_json::{Map, Value};

use crate::refusal::Refusal;

/// Tokens of an image, and of a document that is not text: 85, what OpenAI
/// takes for an image of low detail.
pub(crate) const PICTURE_TOKENS: u64 = 85;

/// Tokens of a file that the vendor has stored: 5,000, whatever it is called.
pub(crate) const FILE_TOKENS: u64 = 5_000;

/// A request that the vendor will answer.
#[derive(Debug)]
pub(crate) struct Ask {
    pub(crate) model: String,
    pub(crate) delivery: Delivery,
    /// How many answers; 1 where the wire has no such thing.
    pub(crate) choices: u64,
    /// How many are made and billed, of which the others are not shown.
    pub(crate) choices_made: u64,
    pub(crate) completion_tokens_max: Option<u64>,
    /// The answer ends before any of these.
    pub(crate) stop_sequences: Vec<String>,
    /// Words in all texts of all messages, [`PICTURE_TOKENS`] for each image, and [`FILE_TOKENS`] for
    /// each file.
    pub(crate) prompt_tokens: u64,
    /// Empty if no user spoke.
    pub(crate) last_user_text: String,
    /// What may be called; the first one is called first.
    pub(crate) tools: Vec<Tool>,
    pub(crate) calling: Calling,
    pub(crate) one_call_at_most: bool,
    pub(crate) thinking: Thinking,
}

/// How the answer is wanted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Delivery {
    Whole,
    Stream { usage: bool },
}

/// A function that the model may call.
#[derive(Clone, Debug)]
pub(crate) struct Tool {
    pub(crate) name: String,
    /// The JSON schema of its arguments; null if there is none.
    pub(crate) parameters: Value,
}

/// Whether the answer is a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Calling {
    /// There is nothing to call, or a call was answered just now.
    No,
    /// If the script says so.
    May,
    Must,
}

/// Whether the answer begins with thoughts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Thinking {
    No,
    /// If the script has some.
    IfScripted,
    Yes,
}

/// The body as a JSON object.
pub(crate) fn object(body: &[u8]) -> Result<Map<String, Value>, Refusal> {
    match serde_json::from_slice(body) {
        Ok(Value::Object(members)) => Ok(members),
        Ok(_) => Err(Refusal::bad_request("The body of the request is not a JSON object.", None)),
        Err(error) => {
            Err(Refusal::bad_request(format!("The body of the request is not JSON: {error}"), None))
        }
    }
}
