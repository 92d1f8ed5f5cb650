//! The made-up vendor's events, and OpenAI's.
//!
//! A frame is one event: lines `event: NAME` and `data: JSON`, or the JSON alone.
//!
//! | JSON | |
//! |---|---|
//! | `{"type":"message_start","message":{"id":"m1","usage":{"input_tokens":9}}}` | first |
//! | `{"type":"delta","index":0,"delta":{"type":"text","text":"Hi"}}` | content |
//! | `{"type":"ping"}` | nothing |
//! | `{"type":"message_stop","stop_reason":"end","usage":{"output_tokens":2}}` | last |

use serde::{Deserialize, Serialize};
use sluice_plugin::adapter::{Finish, Mapped, Phase, PluginError, Usage};

/// What is known of the answer so far.
pub struct Stream {
    id: String,
    created_s: u64,
    model: String,
    input_tokens: u64,
    ended: bool,
}

#[derive(Deserialize)]
#[serde(tag = "type", rename_all = "snake_case")]
enum Event {
    MessageStart { message: Start },
    Delta { index: u32, delta: Text },
    Ping,
    MessageStop { stop_reason: Reason, usage: Output },
}

#[derive(Deserialize)]
struct Start {
    usage: Input,
}

#[derive(Deserialize)]
struct Input {
    input_tokens: u64,
}

#[derive(Deserialize)]
struct Output {
    output_tokens: u64,
}

#[derive(Deserialize)]
struct Text {
    text: String,
}

#[derive(Clone, Copy, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Reason {
    End,
    Length,
    Filter,
}

#[derive(Serialize)]
struct Chunk<'a> {
    id: &'a str,
    object: &'static str,
    created: u64,
    model: &'a str,
    choices: [Choice<'a>; 1],
}

#[derive(Serialize)]
struct Choice<'a> {
    index: u32,
    delta: Delta<'a>,
    logprobs: (),
    finish_reason: Option<&'static str>,
}

#[derive(Default, Serialize)]
struct Delta<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    role: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    content: Option<&'a str>,
}

impl Stream {
    pub fn new(id: String, created_s: u64, model: String) -> Stream {
        Stream { id, created_s, model, input_tokens: 0, ended: false }
    }

    pub fn push(&mut self, frames: &[Vec<u8>]) -> Result<Mapped, PluginError> {
        let mut mapped = Mapped {
            wire: Vec::with_capacity(frames.len() * 256),
            phase: Phase::Prelude,
            usage: None,
            finish: None,
            fault: None,
        };
        for frame in frames {
            let event = serde_json::from_slice(data(frame))
                .map_err(|error| PluginError::BadUpstream(format!("an event: {error}")))?;
            self.event(event, &mut mapped)?;
        }
        Ok(mapped)
    }

    pub fn close(&mut self) -> Result<Mapped, PluginError> {
        match self.ended {
            true => {
                Ok(Mapped { wire: Vec::new(), phase: Phase::Done, usage: None, finish: None, fault: None })
            }
            false => Err(PluginError::BadUpstream("the stream ended before message_stop".into())),
        }
    }

    fn event(&mut self, event: Event, mapped: &mut Mapped) -> Result<(), PluginError> {
        match event {
            Event::Ping => {}
            Event::MessageStart { message } => {
                self.input_tokens = message.usage.input_tokens;
                let delta = Delta { role: Some("assistant"), content: Some("") };
                self.write(0, delta, None, &mut mapped.wire)?;
            }
            Event::Delta { index, delta } => {
                mapped.phase = Phase::Content;
                let delta = Delta { role: None, content: Some(&delta.text) };
                self.write(index, delta, None, &mut mapped.wire)?;
            }
            Event::MessageStop { stop_reason, usage } => {
                self.ended = true;
                let (finish, name) = stop_reason.openai();
                mapped.phase = Phase::Done;
                mapped.finish = Some(finish);
                mapped.usage = Some(self.usage(usage.output_tokens));
                self.write(0, Delta::default(), Some(name), &mut mapped.wire)?;
                mapped.wire.extend_from_slice(b"data: [DONE]\n\n");
            }
        }
        Ok(())
    }

    fn write(
        &self,
        index: u32,
        delta: Delta<'_>,
        finish_reason: Option<&'static str>,
        wire: &mut Vec<u8>,
    ) -> Result<(), PluginError> {
        let choice = Choice { index, delta, logprobs: (), finish_reason };
        let chunk = Chunk {
            id: &self.id,
            object: "chat.completion.chunk",
            created: self.created_s,
            model: &self.model,
            choices: [choice],
        };
        wire.extend_from_slice(b"data: ");
        serde_json::to_writer(&mut *wire, &chunk)
            .map_err(|error| PluginError::Internal(error.to_string()))?;
        wire.extend_from_slice(b"\n\n");
        Ok(())
    }

    fn usage(&self, output: u64) -> Usage {
        let input = self.input_tokens;
        Usage { input, cached_input: 0, cache_write: 0, output, reasoning: 0, calls: 0, millis: 0 }
    }
}

impl Reason {
    fn openai(self) -> (Finish, &'static str) {
        match self {
            Reason::End => (Finish::Stop, "stop"),
            Reason::Length => (Finish::Length, "length"),
            Reason::Filter => (Finish::Filter, "content_filter"),
        }
    }
}

/// The JSON of an event, with or without its field names.
fn data(frame: &[u8]) -> &[u8] {
    let lines = frame.split(|byte| *byte == b'\n');
    let data = lines.filter_map(|line| line.strip_prefix(b"data:")).next();
    data.unwrap_or(frame).trim_ascii()
}

/// One stream, framed either way.
pub fn self_test() -> Result<(), String> {
    let frames: [&str; 4] = [
        "event: message_start\ndata: {\"type\":\"message_start\",\"message\":{\"id\":\"m\",\"usage\":{\"input_tokens\":9}}}",
        r#"{"type":"ping"}"#,
        r#"{"type":"delta","index":0,"delta":{"type":"text","text":"Hé"}}"#,
        r#"{"type":"message_stop","stop_reason":"end","usage":{"output_tokens":2}}"#,
    ];
    let mut stream = Stream::new("c".into(), 1, "m".into());
    let frames: Vec<Vec<u8>> = frames.iter().map(|frame| frame.as_bytes().to_vec()).collect();
    let mapped = stream.push(&frames).map_err(|_| "a good stream is refused")?;
    let wire = String::from_utf8_lossy(&mapped.wire);
    let usage = mapped.usage.ok_or("usage is lost")?;
    let good = wire.contains(r#""delta":{"content":"Hé"}"#)
        && wire.ends_with("data: [DONE]\n\n")
        && (usage.input, usage.output) == (9, 2)
        && stream.close().is_ok();
    if good { Ok(()) } else { Err(format!("misread: {wire}")) }
}
