//! What was asked: the text to repeat and the bounds of the answer.

use serde::Deserialize;
use sluice_plugin::adapter::PluginError;

/// Bytes of text that is repeated at most: 32 KiB.
///
/// Streamed, each word becomes an event of some 200 bytes; one-letter words of this many
/// bytes still fit the 16 MiB of a guest.
const TEXT_BYTES_MAX: usize = 32 * 1024;

/// Answers to one request at most, as many as OpenAI allows.
const CHOICES_MAX: u64 = 128;

/// Words over all choices at most, for the same reason as [`TEXT_BYTES_MAX`].
const WORDS_MAX: usize = 16 * 1024;

pub struct Question {
    /// The answer, cut into words that keep their leading white space.
    pub words: Vec<String>,
    /// The client's limit was below the text.
    pub cut: bool,
    pub choices: u64,
    pub prompt_tokens: u64,
    pub stream_usage: bool,
}

#[derive(Deserialize)]
struct Message {
    role: String,
    #[serde(default)]
    content: Option<Content>,
}

#[derive(Deserialize)]
#[serde(untagged)]
enum Content {
    Text(String),
    Parts(Vec<Part>),
}

#[derive(Deserialize)]
struct Part {
    #[serde(default)]
    text: String,
}

impl Question {
    /// Reads the members it needs through `field`, which gives raw JSON by pointer.
    pub fn read(field: impl Fn(&str) -> Option<String>) -> Result<Question, PluginError> {
        let messages =
            field("/messages").ok_or_else(|| invalid("messages", "is missing; an array is wanted"))?;
        let messages: Vec<Message> = parse("messages", &messages)?;
        let texts: Vec<(String, String)> = messages
            .into_iter()
            .map(|message| (message.role, message.content.map_or_else(String::new, text)))
            .collect();
        let asked = texts.iter().rev().find(|(role, _)| role == "user").or(texts.last());
        let (_, asked) = asked.ok_or_else(|| invalid("messages", "is empty; at least one is wanted"))?;
        if asked.len() > TEXT_BYTES_MAX {
            return Err(invalid("messages", &format!("holds a text over echo's {TEXT_BYTES_MAX} bytes")));
        }
        let mut words = split_words(asked);
        let limit = match number(&field, "/max_completion_tokens")? {
            None => number(&field, "/max_tokens")?,
            some => some,
        };
        let limit = limit.map_or(usize::MAX, |limit| usize::try_from(limit).unwrap_or(usize::MAX));
        let cut = words.len() > limit;
        words.truncate(limit);
        let choices = number(&field, "/n")?.unwrap_or(1);
        if choices == 0 || choices > CHOICES_MAX {
            return Err(invalid("n", &format!("is {choices}; 1 to {CHOICES_MAX} is wanted")));
        }
        if words.len().saturating_mul(usize::try_from(choices).unwrap_or(usize::MAX)) > WORDS_MAX {
            return Err(invalid("messages", &format!("asks echo for more than {WORDS_MAX} words")));
        }
        Ok(Question {
            words,
            cut,
            choices,
            prompt_tokens: texts.iter().map(|(_, text)| text.split_whitespace().count() as u64).sum(),
            stream_usage: field("/stream_options/include_usage").is_some_and(|raw| raw == "true"),
        })
    }
}

fn text(content: Content) -> String {
    match content {
        Content::Text(text) => text,
        Content::Parts(parts) => {
            let texts: Vec<String> =
                parts.into_iter().map(|part| part.text).filter(|text| !text.is_empty()).collect();
            texts.join("\n")
        }
    }
}

/// Cuts after each word; the pieces joined are the text again.
fn split_words(text: &str) -> Vec<String> {
    let mut words: Vec<String> = Vec::new();
    let mut in_word = false;
    for character in text.chars() {
        let starts = character.is_whitespace() && in_word;
        in_word = !character.is_whitespace();
        match words.last_mut() {
            Some(word) if !starts => word.push(character),
            _ => words.push(character.into()),
        }
    }
    words
}

fn number(field: &impl Fn(&str) -> Option<String>, pointer: &str) -> Result<Option<u64>, PluginError> {
    match field(pointer) {
        None => Ok(None),
        Some(raw) => parse(&pointer[1..], &raw),
    }
}

fn parse<T: serde::de::DeserializeOwned>(name: &str, raw: &str) -> Result<T, PluginError> {
    serde_json::from_str(raw).map_err(|error| invalid(name, &format!("cannot be read: {error}")))
}

fn invalid(name: &str, what: &str) -> PluginError {
    PluginError::InvalidRequest(format!("{name} {what}"))
}

/// Splitting and joining gives the text back, and a limit cuts.
pub fn self_test() -> Result<(), String> {
    let body = |pointer: &str| match pointer {
        "/messages" => Some(r#"[{"role":"user","content":" one  two\n\u00e9 "}]"#.into()),
        "/max_tokens" => Some("2".into()),
        _ => None,
    };
    let question = Question::read(body).map_err(|_| "a plain request is refused")?;
    if split_words(" one  two\né ").concat() != " one  two\né " {
        return Err("splitting loses text".into());
    }
    if question.words.concat() != " one  two" || !question.cut || question.prompt_tokens != 3 {
        return Err(format!("misread: {:?}", question.words));
    }
    Ok(())
}
