//! What a vendor's answer in OpenAI's chat dialect is: something said, the end, or an error that
//! hides in a 200.

use serde::Deserialize;
use serde_json::Value;
use serde_json::value::RawValue;

use crate::fault::FaultClass;

/// What an OpenAI stream ends with.
pub const DONE: &[u8] = b"[DONE]";

/// Characters of a vendor's message that are kept.
const MESSAGE_CHARS_MAX: usize = 1000;

/// One event of a stream.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Chunk {
    /// Nothing that a client would miss: a role, a usage, an empty delta.
    Prelude,
    /// Text, a tool call, a refusal or reasoning.
    Content,
    /// The model has stopped.
    Finish,
    /// `[DONE]`.
    Done,
    /// The vendor failed, under a 200.
    Error(Inside),
    /// No JSON object.
    Malformed,
}

/// An error inside an answer whose status is good.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Inside {
    /// Whose fault it is.
    pub class: FaultClass,
    /// The vendor's words; may repeat a secret.
    pub message: String,
}

/// An answer that is not a stream.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Whole {
    /// A completion.
    Completion,
    /// The vendor failed, under a 200.
    Error(Inside),
    /// Neither.
    Malformed,
}

#[derive(Deserialize)]
struct Wire<'t> {
    #[serde(borrow)]
    error: Option<&'t RawValue>,
    #[serde(borrow)]
    choices: Option<Vec<Choice<'t>>>,
}

#[derive(Deserialize)]
struct Choice<'t> {
    #[serde(borrow)]
    delta: Option<Delta<'t>>,
    #[serde(borrow)]
    finish_reason: Option<&'t RawValue>,
}

/// The members in which vendors put what a model says.
#[derive(Deserialize)]
struct Delta<'t> {
    #[serde(borrow)]
    content: Option<&'t RawValue>,
    #[serde(borrow)]
    refusal: Option<&'t RawValue>,
    #[serde(borrow)]
    reasoning: Option<&'t RawValue>,
    #[serde(borrow)]
    reasoning_content: Option<&'t RawValue>,
    #[serde(borrow)]
    tool_calls: Option<&'t RawValue>,
    #[serde(borrow)]
    function_call: Option<&'t RawValue>,
    #[serde(borrow)]
    audio: Option<&'t RawValue>,
}

impl Chunk {
    /// Reads an event's data.
    pub fn read(data: &[u8]) -> Chunk {
        if data.trim_ascii() == DONE {
            return Chunk::Done;
        }
        let Ok(wire) = serde_json::from_slice::<Wire<'_>>(data) else { return Chunk::Malformed };
        if let Some(error) = wire.error.filter(|error| says_something(error)) {
            return Chunk::Error(Inside::read(error));
        }
        let choices = wire.choices.unwrap_or_default();
        let said = |choice: &Choice<'_>| choice.delta.as_ref().is_some_and(Delta::says_something);
        if choices.iter().any(|choice| choice.finish_reason.is_some_and(says_something)) {
            Chunk::Finish
        } else if choices.iter().any(said) {
            Chunk::Content
        } else {
            Chunk::Prelude
        }
    }

    /// Whether [`Chunk::read`] could give anything but [`Chunk::Prelude`] or [`Chunk::Content`], or
    /// the event is not even the beginning of an object: a look that costs less than reading.
    pub fn may_end(data: &[u8]) -> bool {
        let finds = |needle: &[u8]| memchr::memmem::find(data, needle).is_some();
        data.first() != Some(&b'{') || data.last() != Some(&b'}') || finds(b"\"error\"") || finishes(data)
    }
}

/// Whether `finish_reason` is there with another value than `null`.
fn finishes(data: &[u8]) -> bool {
    const KEY: &[u8] = b"\"finish_reason\"";
    memchr::memmem::find_iter(data, KEY).any(|at| {
        let rest = data[at + KEY.len()..].trim_ascii_start();
        !rest.strip_prefix(b":").is_some_and(|value| value.trim_ascii_start().starts_with(b"null"))
    })
}

impl Whole {
    /// Reads an answer's body.
    pub fn read(body: &[u8]) -> Whole {
        #[derive(Deserialize)]
        struct Answer<'t> {
            #[serde(borrow)]
            error: Option<&'t RawValue>,
            choices: Option<Vec<serde::de::IgnoredAny>>,
        }
        match serde_json::from_slice::<Answer<'_>>(body) {
            Err(_) => Whole::Malformed,
            Ok(answer) => match (answer.error.filter(|error| says_something(error)), answer.choices) {
                (Some(error), _) => Whole::Error(Inside::read(error)),
                (None, Some(_)) => Whole::Completion,
                (None, None) => Whole::Malformed,
            },
        }
    }
}

impl Delta<'_> {
    fn says_something(&self) -> bool {
        let members = [
            self.content,
            self.refusal,
            self.reasoning,
            self.reasoning_content,
            self.tool_calls,
            self.function_call,
            self.audio,
        ];
        members.into_iter().flatten().any(says_something)
    }
}

/// Vendors write "nothing" in each of these ways.
fn says_something(value: &RawValue) -> bool {
    !matches!(value.get(), "null" | "\"\"" | "[]" | "{}" | "false")
}

impl Inside {
    fn read(error: &RawValue) -> Inside {
        let error: Value = serde_json::from_str(error.get()).unwrap_or_default();
        let text = |key: &str| error.get(key).and_then(Value::as_str).unwrap_or_default();
        let status = ["code", "status"].iter().find_map(|key| {
            let value = error.get(*key)?;
            value.as_u64().or_else(|| value.as_str()?.parse().ok()).filter(|code| (400..600).contains(code))
        });
        let names = [text("code"), text("type")];
        let named = |needle: &str| names.iter().any(|name| name.contains(needle));
        let class = match status.and_then(|status| u16::try_from(status).ok()) {
            Some(status) => FaultClass::of_status(status),
            None if named("rate_limit") || named("insufficient_quota") => FaultClass::Throttled,
            None if named("context_length") || named("invalid_request") || named("content_filter") => {
                FaultClass::Caller
            }
            None if named("authentication") || named("invalid_api_key") || named("permission") => {
                FaultClass::Credential
            }
            None => FaultClass::Provider,
        };
        let message = error.get("message").and_then(Value::as_str).or(error.as_str());
        let message = message.unwrap_or("an error without a message");
        Inside { class, message: message.chars().take(MESSAGE_CHARS_MAX).collect() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn error(class: FaultClass, message: &str) -> Chunk {
        Chunk::Error(Inside { class, message: message.into() })
    }

    #[test]
    fn what_a_model_says_is_content_and_nothing_else_is() {
        for (data, chunk) in [
            (
                r#"{"choices":[{"delta":{"role":"assistant","content":""},"finish_reason":null}]}"#,
                Chunk::Prelude,
            ),
            (
                r#"{"choices":[{"delta":{"role":"assistant","content":null,"tool_calls":[]}}]}"#,
                Chunk::Prelude,
            ),
            (r#"{"choices":[],"usage":{"total_tokens":3}}"#, Chunk::Prelude),
            (r#"{"error":null,"choices":[{"delta":{"content":" "}}]}"#, Chunk::Content),
            (r#"{"choices":[{"delta":{}},{"delta":{"refusal":"no"}}]}"#, Chunk::Content),
            (r#"{"choices":[{"delta":{"reasoning_content":"so"}}]}"#, Chunk::Content),
            (r#"{"choices":[{"delta":{"tool_calls":[{"index":0}]}}]}"#, Chunk::Content),
            (r#"{"choices":[{"delta":{"content":"x"},"finish_reason":"stop"}]}"#, Chunk::Finish),
            (" [DONE] ", Chunk::Done),
            ("{\"choices\":[", Chunk::Malformed),
            ("", Chunk::Malformed),
            ("[]", Chunk::Malformed),
        ] {
            assert_eq!(Chunk::read(data.as_bytes()), chunk, "{data}");
        }
    }

    #[test]
    fn an_error_inside_says_whose_fault_it_is() {
        for (data, chunk) in [
            (r#"{"error":{"message":"m","code":429}}"#, error(FaultClass::Throttled, "m")),
            (r#"{"error":{"message":"m","type":"rate_limit_error"}}"#, error(FaultClass::Throttled, "m")),
            (r#"{"error":{"message":"m","code":"context_length_exceeded"}}"#, error(FaultClass::Caller, "m")),
            (r#"{"error":{"message":"m","code":"401"}}"#, error(FaultClass::Credential, "m")),
            (r#"{"error":{"message":"m","type":"server_error"}}"#, error(FaultClass::Provider, "m")),
            (r#"{"error":"m"}"#, error(FaultClass::Provider, "m")),
        ] {
            assert_eq!(Chunk::read(data.as_bytes()), chunk, "{data}");
        }
    }

    #[test]
    fn the_cheap_look_misses_nothing() {
        for data in [
            r#"{"error":{"message":"m"}}"#,
            r#"{"choices":[{"delta":{},"finish_reason" : "stop"}]}"#,
            r#"{"choices":[{"finish_reason":null},{"finish_reason":"stop"}]}"#,
            "[DONE]",
            "{\"choices\":[",
        ] {
            assert!(Chunk::may_end(data.as_bytes()), "{data}");
        }
        let usual = r#"{"choices":[{"delta":{"content":"x"},"finish_reason":null}]}"#;
        assert!(!Chunk::may_end(usual.as_bytes()));
    }

    #[test]
    fn a_whole_answer_is_a_completion_an_error_or_nothing() {
        assert_eq!(Whole::read(br#"{"choices":[{"message":{}}],"error":null}"#), Whole::Completion);
        let inside = Inside { class: FaultClass::Provider, message: "m".into() };
        assert_eq!(Whole::read(br#"{"error":{"message":"m"}}"#), Whole::Error(inside));
        for body in ["", "{", "[]", "null", r#"{"object":"x"}"#, "<html>"] {
            assert_eq!(Whole::read(body.as_bytes()), Whole::Malformed, "{body}");
        }
    }
}
