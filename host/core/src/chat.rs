//! What a vendor's answer in OpenAI's chat dialect is: something said, the end, or an error that
//! hides in a 200.

use serde::Deserialize;
use serde_json::Value;
use serde_json::value::RawValue;

use crate::fault::FaultClass;
use crate::meter::{self, Meter, says_something};

/// What an OpenAI stream ends with.
pub const DONE: &[u8] = b"[DONE]";

/// Stands for the message of a vendor that sends none.
const NO_MESSAGE: &str = "an error without a message";

/// One event of a stream.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Chunk {
    /// Nothing that a client would miss: a role, a usage, an empty delta, no data at all.
    Prelude,
    /// Text, a tool call, a refusal or reasoning.
    Content,
    /// The model has stopped, in so many of the choices asked for.
    Finish {
        /// Choices that finish in this event; one at least.
        choices: usize,
    },
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
        match data.trim_ascii() {
            [] => return Chunk::Prelude,
            DONE => return Chunk::Done,
            _ => {}
        }
        let Ok(wire) = serde_json::from_slice::<Wire<'_>>(data) else { return Chunk::Malformed };
        if let Some(error) = wire.error.filter(|error| says_something(error)) {
            return Chunk::Error(Inside::read(error));
        }
        let choices = wire.choices.unwrap_or_default();
        let said = |choice: &Choice<'_>| choice.delta.as_ref().is_some_and(Delta::says_something);
        let ends = |choice: &&Choice<'_>| choice.finish_reason.is_some_and(says_something);
        match choices.iter().filter(ends).count() {
            0 if choices.iter().any(said) => Chunk::Content,
            0 => Chunk::Prelude,
            ended => Chunk::Finish { choices: ended },
        }
    }

    /// Reads the data of an event that is named `error`, in which vendors put an error's members at
    /// the top or under `error`, or plain text.
    pub fn named_error(data: &[u8]) -> Chunk {
        let text = String::from_utf8_lossy(data.trim_ascii());
        let value = match serde_json::from_str(&text) {
            Ok(value @ (Value::Object(_) | Value::String(_))) => value,
            Ok(_) | Err(_) => Value::String(text.into_owned()),
        };
        let under = value.get("error").filter(|error| match error {
            Value::Object(members) => !members.is_empty(),
            Value::String(text) => !text.is_empty(),
            // `"error": true` beside the members.
            _ => false,
        });
        Chunk::Error(Inside::of(under.unwrap_or(&value)))
    }

    /// Whether [`Chunk::read`] could give anything but [`Chunk::Prelude`] or [`Chunk::Content`]: a
    /// look that costs less than reading.
    ///
    /// Goes by the names as vendors write them, without escapes. What is malformed between the
    /// braces of an object is not noticed.
    pub fn may_end(data: &[u8]) -> bool {
        let finds = |needle: &[u8]| memchr::memmem::find(data, needle).is_some();
        match (data.first(), data.last()) {
            (Some(b'{'), Some(b'}')) => finds(b"\"error\"") || finishes(data),
            _ => !data.trim_ascii().is_empty(),
        }
    }
}

/// Whether a text can only be a JSON object, if it is JSON: by its first byte alone.
///
/// White space and a byte order mark before it do not count.
pub fn begins_as_object(text: &[u8]) -> bool {
    let text = text.strip_prefix(b"\xEF\xBB\xBF").unwrap_or(text);
    let first = text.iter().find(|byte| !matches!(byte, b' ' | b'\t' | b'\n' | b'\r'));
    first == Some(&b'{')
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
        Whole::of(meter::Wire::read(body).as_ref())
    }

    /// The same, and counts what was used: also by an answer that is called an error.
    pub fn metered(body: &[u8], counted: &mut Meter) -> Whole {
        let wire = meter::Wire::read(body);
        wire.iter().for_each(|wire| counted.note_whole(wire));
        Whole::of(wire.as_ref())
    }

    fn of(wire: Option<&meter::Wire<'_>>) -> Whole {
        let Some(wire) = wire else { return Whole::Malformed };
        match (wire.error.filter(|error| says_something(error)), wire.choices) {
            (Some(error), _) => Whole::Error(Inside::read(error)),
            (None, Some(choices)) if choices.is_list() => Whole::Completion,
            (None, Some(_) | None) => Whole::Malformed,
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

impl Inside {
    fn read(error: &RawValue) -> Inside {
        Inside::of(&serde_json::from_str(error.get()).unwrap_or_default())
    }

    fn of(error: &Value) -> Inside {
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
        let message = message.filter(|text| !text.is_empty()).unwrap_or(NO_MESSAGE);
        Inside { class, message: message.into() }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

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
            ("", Chunk::Prelude),
            (" \t\n", Chunk::Prelude),
            ("{}", Chunk::Prelude),
            (r#"{"choices":[],"usage":{"total_tokens":3}}"#, Chunk::Prelude),
            (r#"{"error":null,"choices":[{"delta":{"content":" "}}]}"#, Chunk::Content),
            (r#"{"choices":[{"delta":{}},{"delta":{"refusal":"no"}}]}"#, Chunk::Content),
            (r#"{"choices":[{"delta":{"reasoning_content":"so"}}]}"#, Chunk::Content),
            (r#"{"choices":[{"delta":{"tool_calls":[{"index":0}]}}]}"#, Chunk::Content),
            (
                r#"{"choices":[{"delta":{"content":"x"},"finish_reason":"stop"}]}"#,
                Chunk::Finish { choices: 1 },
            ),
            (
                r#"{"choices":[{"finish_reason":"stop"},{"delta":{"content":"x"},"finish_reason":null},{"finish_reason":"length"}]}"#,
                Chunk::Finish { choices: 2 },
            ),
            (r#"{"choices":[{"delta":{"content":"x"},"finish_reason":""}]}"#, Chunk::Content),
            (" [DONE] ", Chunk::Done),
            ("{\"choices\":[", Chunk::Malformed),
            ("x", Chunk::Malformed),
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
            (r#"{"error":{"message":""}}"#, error(FaultClass::Provider, NO_MESSAGE)),
        ] {
            assert_eq!(Chunk::read(data.as_bytes()), chunk, "{data}");
            assert_eq!(Chunk::named_error(data.as_bytes()), chunk, "{data}");
        }
    }

    #[test]
    fn an_event_named_error_is_one_whatever_it_holds() {
        for (data, chunk) in [
            (r#"{"message":"m","code":429}"#, error(FaultClass::Throttled, "m")),
            (r#" {"type":"authentication_error","message":"m"} "#, error(FaultClass::Credential, "m")),
            (
                r#"{"type":"error","error":{"type":"rate_limit_error","message":"m"}}"#,
                error(FaultClass::Throttled, "m"),
            ),
            (r#"{"error":null,"message":"m"}"#, error(FaultClass::Provider, "m")),
            (r#"{"error":{},"message":"m"}"#, error(FaultClass::Provider, "m")),
            (r#"{"error":"","message":"m"}"#, error(FaultClass::Provider, "m")),
            (r#"{"error":true,"message":"m","status":"400"}"#, error(FaultClass::Caller, "m")),
            (r#"{"choices":3,"error":"m"}"#, error(FaultClass::Provider, "m")),
            (r#""m""#, error(FaultClass::Provider, "m")),
            (" overloaded, come back ", error(FaultClass::Provider, "overloaded, come back")),
            (r#"{"message":"m"#, error(FaultClass::Provider, r#"{"message":"m"#)),
            ("503", error(FaultClass::Provider, "503")),
            ("[]", error(FaultClass::Provider, "[]")),
            ("{}", error(FaultClass::Provider, NO_MESSAGE)),
            (" \n", error(FaultClass::Provider, NO_MESSAGE)),
            ("", error(FaultClass::Provider, NO_MESSAGE)),
        ] {
            assert_eq!(Chunk::named_error(data.as_bytes()), chunk, "{data}");
        }
        assert_eq!(Chunk::named_error(b"a\xFF"), error(FaultClass::Provider, "a\u{fffd}"));
    }

    #[test]
    fn the_cheap_look_misses_nothing() {
        for data in [
            r#"{"error":{"message":"m"}}"#,
            r#"{"choices":[{"delta":{},"finish_reason" : "stop"}]}"#,
            r#"{"choices":[{"finish_reason":null},{"finish_reason":"stop"}]}"#,
            "[DONE]",
            "{\"choices\":[",
            "x",
            "{",
            "}",
            " {}",
        ] {
            assert!(Chunk::may_end(data.as_bytes()), "{data}");
        }
        let usual = r#"{"choices":[{"delta":{"content":"x"},"finish_reason":null}]}"#;
        for data in [usual, "{}", "", " ", "\n\n"] {
            assert!(!Chunk::may_end(data.as_bytes()), "{data}");
        }
    }

    /// JSON of any shape in which the names of the dialect are likely.
    fn any_json() -> impl Strategy<Value = String> {
        let text = prop::sample::select(vec![
            "null",
            "false",
            "\"\"",
            "\"x\"",
            "\"error\"",
            "7",
            "[]",
            "{}",
            "\"\\\"error\\\"\"",
        ]);
        let name = prop::sample::select(vec!["error", "choices", "delta", "content", "finish_reason", "x"]);
        let space = prop::sample::select(vec!["", " ", "\n\t"]);
        text.prop_map(String::from).prop_recursive(6, 40, 4, move |value| {
            let member = (name.clone(), space.clone(), value.clone())
                .prop_map(|(name, space, value)| format!("\"{name}\"{space}:{space}{value}"));
            prop_oneof![
                prop::collection::vec(value, 0..3).prop_map(|values| format!("[{}]", values.join(","))),
                prop::collection::vec(member, 0..4).prop_map(|members| format!("{{{}}}", members.join(","))),
            ]
        })
    }

    /// A chunk in the shape of the dialect; each member is there or not.
    fn any_chunk() -> impl Strategy<Value = String> {
        let said = prop::sample::select(vec!["", r#""content":"x""#, r#""content":"\"error\"""#]);
        let reason = prop::sample::select(vec![
            "",
            r#","finish_reason":null"#,
            r#","finish_reason" : "stop""#,
            r#","finish_reason":"""#,
        ]);
        let choice = (said, reason).prop_map(|(said, reason)| format!(r#"{{"delta":{{{said}}}{reason}}}"#));
        let error = prop::sample::select(vec!["", r#""error":null,"#, r#""error": {"message":"m"},"#]);
        let around = prop::sample::select(vec!["", " ", "\n"]);
        (error, prop::collection::vec(choice, 0..4), around).prop_map(|(error, choices, around)| {
            format!(r#"{around}{{{error}"choices":[{}]}}{around}"#, choices.join(","))
        })
    }

    proptest! {
        /// What the cheap look lets pass, in the shape of the dialect, neither ends nor fails.
        #[test]
        fn the_cheap_look_and_reading_agree(data in prop_oneof![any_chunk(), "[ \t\r\n]{0,3}"]) {
            let chunk = Chunk::read(data.as_bytes());
            let passes = matches!(chunk, Chunk::Prelude | Chunk::Content);
            prop_assert!(Chunk::may_end(data.as_bytes()) || passes, "{} is {:?}", data, chunk);
        }

        /// In any shape, it misses nothing but what makes no sense.
        #[test]
        fn the_cheap_look_misses_no_end(data in prop_oneof![any_json(), ".{0,40}"]) {
            let chunk = Chunk::read(data.as_bytes());
            let passes = matches!(chunk, Chunk::Prelude | Chunk::Content | Chunk::Malformed);
            prop_assert!(Chunk::may_end(data.as_bytes()) || passes, "{} is {:?}", data, chunk);
        }

        /// The first byte says no more than what a parser says.
        #[test]
        fn what_is_an_object_begins_as_one(data in any_json(), space in "[ \t\r\n]{0,3}") {
            let value: Value = serde_json::from_str(&data).expect("JSON");
            for mark in ["", "\u{feff}"] {
                let text = format!("{mark}{space}{data}");
                prop_assert_eq!(begins_as_object(text.as_bytes()), value.is_object(), "{}", text);
            }
        }
    }

    #[test]
    fn an_object_begins_with_a_brace_after_white_space_and_one_mark() {
        for (text, begins) in [
            ("{", true),
            (" \t\r\n{}", true),
            ("\u{feff}{}", true),
            ("\u{feff} {", true),
            ("", false),
            (" ", false),
            ("\u{feff}", false),
            (" \u{feff}{", false),
            ("\u{feff}\u{feff}{", false),
            ("\u{c}{", false),
            ("[{", false),
            ("<html>{", false),
        ] {
            assert_eq!(begins_as_object(text.as_bytes()), begins, "{text:?}");
        }
        assert!(!begins_as_object(b"\xEF\xBB{"));
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
