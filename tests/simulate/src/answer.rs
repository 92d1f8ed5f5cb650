//! What the vendor says to a request, whichever wire writes it: deterministic
//! but for the id and the time.

use serde_json::{Value, json};

use crate::ask::{Ask, Calling, Thinking, Tool};
use crate::lapse::{Lapse, Told};
use crate::row::Billed;
use crate::script::Script;
use crate::words;

/// What a model thinks that was asked to think and has no script.
const THOUGHT: &str = "Let me think.";

/// What an answer carries besides its content.
pub(crate) struct Stamp {
    pub(crate) vendor: String,
    /// The request's number in the books; makes the id unique.
    pub(crate) sequence: u64,
    /// Seconds since 1970.
    pub(crate) created_s: u64,
}

/// The answer to one request, in either delivery.
pub(crate) struct Answer {
    pub(crate) stamp: Stamp,
    pub(crate) model: String,
    pub(crate) choices: u64,
    /// The same in each choice: thoughts, then a text or calls.
    pub(crate) parts: Vec<Part>,
    pub(crate) finish: Finish,
    /// Tokens of each choice that are billed and never seen.
    pub(crate) hidden_tokens: u64,
    /// What it says about its cost; None is nothing at all.
    pub(crate) usage: Option<Usage>,
    billed: Billed,
    /// Of the choices that are made and not shown.
    billed_unseen: u64,
}

pub(crate) enum Part {
    Thinking(String),
    Text(String),
    Call {
        name: String,
        /// A JSON object, unless the answer was cut within it.
        arguments: String,
    },
}

/// Why the answer ends.
pub(crate) enum Finish {
    Stop,
    StopSequence(String),
    Length,
    Calls,
}

/// Tokens, as the vendor tells of them.
#[derive(Clone, Copy)]
pub(crate) struct Usage {
    /// Of the prompt, but for the cached ones.
    pub(crate) input: u64,
    pub(crate) cached_input: u64,
    pub(crate) cache_write: u64,
    /// Of all choices, reasoning included.
    pub(crate) output: u64,
    pub(crate) reasoning: u64,
}

// === impl Answer ===

impl Answer {
    /// Says the script's reply, or echoes what the user said. A forced
    /// function is called whatever the reply.
    pub(crate) fn new(ask: &Ask, script: &Script, lapse: &Lapse, stamp: Stamp) -> Answer {
        let (mut parts, mut finish) = content(ask, script, lapse);
        let limit = ask.completion_tokens_max.filter(|_| lapse.words.is_none());
        let hidden_tokens = u64::from(script.usage.reasoning).min(limit.unwrap_or(u64::MAX));
        if limit.is_some_and(|max| cut(&mut parts, max - hidden_tokens)) {
            finish = Finish::Length;
        }
        let seen: u64 = parts.iter().map(|part| words::count(part.text())).sum();
        let usage = Usage {
            input: ask.prompt_tokens,
            cached_input: script.usage.cached_input.into(),
            cache_write: script.usage.cache_write.into(),
            output: (seen + hidden_tokens) * ask.choices_made,
            reasoning: (thought_words(&parts) + hidden_tokens) * ask.choices_made,
        };
        Answer {
            stamp,
            model: ask.model.clone(),
            choices: ask.choices,
            parts,
            finish,
            hidden_tokens,
            usage: match lapse.told {
                Told::Truth => Some(usage),
                Told::Nothing => None,
                Told::Ones => Some(Usage::ONES),
            },
            billed: Billed { prompt_tokens: usage.prompt(), completion_tokens: usage.output },
            billed_unseen: (seen + hidden_tokens) * (ask.choices_made - ask.choices),
        }
    }

    /// What it costs, whatever its usage says.
    pub(crate) fn billed(&self) -> Billed {
        self.billed
    }

    /// What of it is billed before a stream's first word.
    pub(crate) fn billed_unseen(&self) -> Billed {
        Billed { completion_tokens: self.billed_unseen, ..self.billed }
    }

    pub(crate) fn calls(&self) -> bool {
        self.parts.iter().any(|part| matches!(part, Part::Call { .. }))
    }
}

// === impl Part ===

impl Part {
    /// What is streamed in pieces.
    pub(crate) fn text(&self) -> &str {
        match self {
            Part::Thinking(text) | Part::Text(text) | Part::Call { arguments: text, .. } => text,
        }
    }

    fn text_mut(&mut self) -> &mut String {
        match self {
            Part::Thinking(text) | Part::Text(text) | Part::Call { arguments: text, .. } => text,
        }
    }
}

// === impl Usage ===

impl Usage {
    /// One token of a prompt and one of an answer.
    const ONES: Usage = Usage { input: 1, cached_input: 0, cache_write: 0, output: 1, reasoning: 0 };

    /// The whole prompt.
    pub(crate) fn prompt(&self) -> u64 {
        self.input + self.cached_input + self.cache_write
    }
}

/// All that there is to say, limits aside.
fn content(ask: &Ask, script: &Script, lapse: &Lapse) -> (Vec<Part>, Finish) {
    let thought = match ask.thinking {
        Thinking::No => None,
        Thinking::IfScripted => script.thinking.as_deref(),
        Thinking::Yes => Some(script.thinking.as_deref().unwrap_or(THOUGHT)),
    };
    let mut parts: Vec<Part> =
        thought.map(|thought| Part::Thinking(thought.to_owned())).into_iter().collect();
    let calls = match ask.calling {
        Calling::No => false,
        Calling::May => script.calls,
        Calling::Must => true,
    };
    if calls && lapse.frame_bytes.is_none() {
        let count =
            script.parallel_calls.filter(|_| !ask.one_call_at_most).map_or(1, |count| count.get().into());
        let call = |tool: &Tool| Part::Call {
            name: tool.name.clone(),
            arguments: example(&tool.parameters, &ask.last_user_text).to_string(),
        };
        parts.extend(ask.tools.iter().cycle().take(count).map(call));
        return (parts, Finish::Calls);
    }
    let reply = || script.reply.clone().unwrap_or_else(|| format!("You said: {}", ask.last_user_text));
    let mut text = lapse.frame_bytes.map_or_else(reply, |bytes| "x".repeat(bytes));
    if let Some(words) = lapse.words {
        text = words::of_length(&text, words);
    }
    let mut finish = Finish::Stop;
    let stops = ask.stop_sequences.iter().filter_map(|stop| Some((text.find(stop)?, stop)));
    if let Some((end, stop)) = stops.min_by_key(|(end, _)| *end) {
        text.truncate(end);
        finish = Finish::StopSequence(stop.clone());
    }
    parts.push(Part::Text(text));
    (parts, finish)
}

/// Keeps so many words over all parts, and says whether that took any away.
fn cut(parts: &mut Vec<Part>, words_max: u64) -> bool {
    let mut left = words_max;
    for index in 0..parts.len() {
        let text = parts[index].text_mut();
        if let Some(kept) = words::truncated(text, left) {
            *text = kept.to_owned();
            let keeps_some = index == 0 || left > 0;
            parts.truncate(index + usize::from(keeps_some));
            return true;
        }
        left -= words::count(text);
    }
    false
}

fn thought_words(parts: &[Part]) -> u64 {
    let of = |part: &Part| match part {
        Part::Thinking(text) => words::count(text),
        Part::Text(_) | Part::Call { .. } => 0,
    };
    parts.iter().map(of).sum()
}

/// Arguments that fit the types of a function's `parameters`; texts say what
/// the user said. One level deep: nested objects and arrays are empty.
fn example(parameters: &Value, user_text: &str) -> Value {
    let properties = parameters.get("properties").and_then(Value::as_object);
    let value_of = |schema: &Value| {
        if let Some(first) = schema.pointer("/enum/0") {
            return first.clone();
        }
        match schema.get("type").and_then(Value::as_str) {
            Some("integer" | "number") => json!(1),
            Some("boolean") => json!(true),
            Some("array") => json!([]),
            Some("object") => json!({}),
            Some("null") => Value::Null,
            Some(_) | None => json!(user_text),
        }
    };
    properties.into_iter().flatten().map(|(name, schema)| (name.clone(), value_of(schema))).collect()
}

#[cfg(test)]
mod tests {
    use super::{Part, cut};
    use crate::words;

    #[test]
    fn a_cut_keeps_that_many_words_over_all_parts() {
        let texts = ["a b", "c", "d e f"];
        for words_max in 0..8 {
            let mut parts: Vec<_> = texts.map(|text| Part::Text(text.to_owned())).into();
            assert_eq!(cut(&mut parts, words_max), words_max < 6);
            let kept: u64 = parts.iter().map(|part| words::count(part.text())).sum();
            assert_eq!(kept, words_max.min(6));
            assert!(!parts.is_empty() && parts[1..].iter().all(|part| !part.text().is_empty()));
        }
    }
}
