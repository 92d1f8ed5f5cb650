//! The answer on OpenAI's wire: whole, or as one event per word.

use serde_json::{Value, json};
use sluice_plugin::adapter::{Finish, Mapped, Phase, Usage};

use crate::question::Question;

pub struct Answer {
    pub id: String,
    pub created_s: u64,
    pub model: String,
    pub question: Question,
}

impl Answer {
    pub fn whole(&self) -> Mapped {
        let content = self.question.words.concat();
        let choices: Vec<Value> = (0..self.question.choices)
            .map(|index| {
                json!({
                    "index": index,
                    "message": {"role": "assistant", "content": content, "refusal": null},
                    "logprobs": null,
                    "finish_reason": self.finish_reason(),
                })
            })
            .collect();
        let body = json!({
            "id": self.id, "object": "chat.completion", "created": self.created_s, "model": self.model,
            "choices": choices, "usage": self.usage_json(),
        });
        self.last(body.to_string().into_bytes())
    }

    /// One event per word and choice, then the finishes, the usage if asked for, `[DONE]`.
    pub fn stream(&self) -> Vec<Mapped> {
        let mut events = Vec::new();
        for index in 0..self.question.choices {
            let delta = json!({"role": "assistant", "content": ""});
            events.push(piece(self.chunk(choice(index, delta, Value::Null)), Phase::Prelude));
        }
        for word in &self.question.words {
            for index in 0..self.question.choices {
                let delta = json!({"content": word});
                events.push(piece(self.chunk(choice(index, delta, Value::Null)), Phase::Content));
            }
        }
        for index in 0..self.question.choices {
            let finish = choice(index, json!({}), self.finish_reason().into());
            events.push(piece(self.chunk(finish), Phase::Content));
        }
        if self.question.stream_usage {
            let mut chunk = self.chunk_of(Vec::new());
            chunk["usage"] = self.usage_json();
            events.push(piece(event(&chunk), Phase::Content));
        }
        events.push(self.last(b"data: [DONE]\n\n".to_vec()));
        events
    }

    fn chunk(&self, choice: Value) -> Vec<u8> {
        let mut chunk = self.chunk_of(vec![choice]);
        if self.question.stream_usage {
            chunk["usage"] = Value::Null;
        }
        event(&chunk)
    }

    fn chunk_of(&self, choices: Vec<Value>) -> Value {
        json!({
            "id": self.id, "object": "chat.completion.chunk", "created": self.created_s, "model": self.model,
            "choices": choices,
        })
    }

    fn last(&self, wire: Vec<u8>) -> Mapped {
        Mapped {
            wire,
            phase: Phase::Done,
            usage: Some(Usage {
                input: self.question.prompt_tokens,
                cached_input: 0,
                cache_write: 0,
                output: self.completion_tokens(),
                reasoning: 0,
                calls: 0,
                millis: 0,
            }),
            finish: Some(if self.question.cut { Finish::Length } else { Finish::Stop }),
            fault: None,
        }
    }

    fn finish_reason(&self) -> &'static str {
        if self.question.cut { "length" } else { "stop" }
    }

    fn completion_tokens(&self) -> u64 {
        let words = self.question.words.concat().split_whitespace().count() as u64;
        words * self.question.choices
    }

    fn usage_json(&self) -> Value {
        let (prompt, completion) = (self.question.prompt_tokens, self.completion_tokens());
        json!({"prompt_tokens": prompt, "completion_tokens": completion, "total_tokens": prompt + completion})
    }
}

fn choice(index: u64, delta: Value, finish_reason: Value) -> Value {
    json!({"index": index, "delta": delta, "logprobs": null, "finish_reason": finish_reason})
}

fn event(chunk: &Value) -> Vec<u8> {
    format!("data: {chunk}\n\n").into_bytes()
}

fn piece(wire: Vec<u8>, phase: Phase) -> Mapped {
    Mapped { wire, phase, usage: None, finish: None, fault: None }
}
