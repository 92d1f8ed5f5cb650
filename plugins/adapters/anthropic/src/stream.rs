//! A stream of Anthropic's events as OpenAI's chunks.
//!
//! `message_start`, then for each block `content_block_start`, `content_block_delta`…,
//! `content_block_stop`, then `message_delta` and `message_stop`; `ping` anywhere. Events, blocks and
//! deltas of other kinds are left out: Anthropic adds some without a new version.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::value::{RawValue, to_raw_value};
use sluice_plugin::adapter::{Context, Mapped, Phase, PluginError};

use crate::answer::{Block, StopDetails};
use crate::carry::Carry;
use crate::fault;
use crate::json::compact;
use crate::openai::{
    self, CallDelta, Chunk, ChunkChoice, Delta, FunctionDelta, STREAM_END, ending, internal,
};
use crate::usage::Counts;

/// What is known of the answer so far.
pub struct Stream {
    created_s: u64,
    model: String,
    carry: Carry,
    /// None before `message_start`.
    id: Option<String>,
    phase: Phase,
    counts: Counts,
    /// Blocks that have begun and not ended, by Anthropic's index.
    open: BTreeMap<u32, Open>,
    /// Thinking that has ended, for the client to send back as it is.
    thoughts: Vec<Box<RawValue>>,
    /// Tool calls so far: OpenAI's index of the next one.
    calls: u32,
}

/// A block whose end is still to come, with what its end needs.
enum Open {
    Thinking(Thought),
    Redacted(Box<RawValue>),
    /// `input` is what came at the beginning; it counts if no pieces follow.
    Tool {
        index: u32,
        input: String,
        has_pieces: bool,
    },
}

#[derive(Serialize)]
struct Thought {
    #[serde(rename = "type")]
    kind: &'static str,
    thinking: String,
    signature: String,
}

/// An event, as far as its kind has these members.
#[derive(Deserialize)]
struct Event<'a> {
    #[serde(rename = "type")]
    kind: String,
    #[serde(default)]
    index: u32,
    #[serde(default)]
    message: Option<Start>,
    #[serde(default, borrow)]
    content_block: Option<&'a RawValue>,
    #[serde(default)]
    delta: Piece,
    #[serde(default)]
    usage: Option<Counts>,
}

#[derive(Deserialize)]
struct Start {
    id: String,
    #[serde(default)]
    usage: Counts,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Piece {
    #[serde(rename = "type")]
    kind: String,
    text: String,
    thinking: String,
    signature: String,
    partial_json: String,
    stop_reason: Option<String>,
    stop_details: Option<StopDetails>,
}

impl Stream {
    pub fn new(context: Context) -> Stream {
        Stream {
            created_s: context.created_s,
            model: context.model,
            carry: Carry::from_bytes(&context.carry),
            id: None,
            phase: Phase::Prelude,
            counts: Counts::default(),
            open: BTreeMap::new(),
            thoughts: Vec::new(),
            calls: 0,
        }
    }

    /// Each frame is the data of one event. `usage` is the sum so far, whenever there is news of it.
    pub fn push(&mut self, frames: &[Vec<u8>]) -> Result<Mapped, PluginError> {
        let mut mapped = self.mapped();
        for frame in frames {
            let event: Event<'_> = serde_json::from_slice(frame)
                .map_err(|error| PluginError::BadUpstream(format!("an event cannot be read: {error}")))?;
            if event.kind == "error" {
                let unreadable = || PluginError::BadUpstream("an error event cannot be read".into());
                mapped.fault = Some(fault::envelope(frame).ok_or_else(unreadable)?);
                break;
            }
            self.event(event, &mut mapped)?;
        }
        mapped.phase = self.phase;
        Ok(mapped)
    }

    /// `message_stop` has written the stream's end already.
    pub fn close(&self) -> Result<Mapped, PluginError> {
        match self.phase {
            Phase::Done => Ok(self.mapped()),
            Phase::Prelude | Phase::Content => {
                Err(PluginError::BadUpstream("ended before message_stop".into()))
            }
        }
    }

    fn mapped(&self) -> Mapped {
        Mapped { wire: Vec::new(), phase: self.phase, usage: None, finish: None, fault: None }
    }

    fn event(&mut self, event: Event<'_>, mapped: &mut Mapped) -> Result<(), PluginError> {
        match (event.kind.as_str(), event.message, event.content_block) {
            ("message_start", Some(start), _) => {
                self.id = Some(openai::id(&start.id));
                self.count(start.usage, mapped);
                let delta = Delta { role: Some("assistant"), content: Some(""), ..Delta::default() };
                self.write(delta, &mut mapped.wire)
            }
            ("content_block_start", _, Some(raw)) => self.begin(event.index, raw, mapped),
            ("content_block_delta", ..) => self.piece(event.index, &event.delta, mapped),
            ("content_block_stop", ..) => self.end(event.index, mapped),
            ("message_delta", ..) => {
                self.count(event.usage.unwrap_or_default(), mapped);
                self.finish(&event.delta, mapped)
            }
            ("message_stop", ..) => self.stop(mapped),
            _ => Ok(()),
        }
    }

    /// `content_block_start`
    fn begin(&mut self, at: u32, raw: &RawValue, mapped: &mut Mapped) -> Result<(), PluginError> {
        let block: Block<'_> = serde_json::from_str(raw.get())
            .map_err(|error| PluginError::BadUpstream(format!("a block cannot be read: {error}")))?;
        match block.kind.as_str() {
            "text" => self.say(&block.text, mapped),
            "thinking" => {
                let thought =
                    Thought { kind: "thinking", thinking: String::new(), signature: block.signature };
                self.open.insert(at, Open::Thinking(thought));
                self.think(at, &block.thinking, mapped)
            }
            "redacted_thinking" => {
                // A line feed between its members would end the event that it goes into.
                let raw = RawValue::from_string(compact(raw.get())).map_err(internal)?;
                self.open.insert(at, Open::Redacted(raw));
                Ok(())
            }
            "tool_use" => {
                let index = self.calls;
                self.calls += 1;
                let input = block.input.map_or_else(|| "{}".into(), |input| compact(input.get()));
                self.open.insert(at, Open::Tool { index, input, has_pieces: false });
                let function = FunctionDelta { name: Some(&block.name), arguments: "" };
                let call = CallDelta { index, id: Some(&block.id), kind: Some("function"), function };
                self.phase = Phase::Content;
                self.write(Delta { tool_calls: Some([call]), ..Delta::default() }, &mut mapped.wire)
            }
            _ => Ok(()),
        }
    }

    /// `content_block_delta`
    fn piece(&mut self, at: u32, piece: &Piece, mapped: &mut Mapped) -> Result<(), PluginError> {
        match piece.kind.as_str() {
            "text_delta" => self.say(&piece.text, mapped),
            "thinking_delta" => self.think(at, &piece.thinking, mapped),
            "signature_delta" => {
                if let Some(Open::Thinking(thought)) = self.open.get_mut(&at) {
                    thought.signature.push_str(&piece.signature);
                }
                Ok(())
            }
            "input_json_delta" => match self.open.get_mut(&at) {
                Some(Open::Tool { index, has_pieces, .. }) if !piece.partial_json.is_empty() => {
                    *has_pieces = true;
                    let index = *index;
                    self.arguments(index, &piece.partial_json, mapped)
                }
                Some(_) | None => Ok(()),
            },
            _ => Ok(()),
        }
    }

    /// `content_block_stop`
    fn end(&mut self, at: u32, mapped: &mut Mapped) -> Result<(), PluginError> {
        match self.open.remove(&at) {
            Some(Open::Thinking(thought)) => self.thoughts.push(to_raw_value(&thought).map_err(internal)?),
            Some(Open::Redacted(raw)) => self.thoughts.push(raw),
            Some(Open::Tool { index, input, has_pieces: false }) => {
                self.arguments(index, &input, mapped)?;
            }
            Some(Open::Tool { has_pieces: true, .. }) | None => {}
        }
        Ok(())
    }

    /// `message_delta`, which carries the reason for the end, and the words of a refusal. No block
    /// comes after it.
    fn finish(&mut self, piece: &Piece, mapped: &mut Mapped) -> Result<(), PluginError> {
        let Some(reason) = &piece.stop_reason else { return Ok(()) };
        self.phase = Phase::Content;
        let thinking_blocks = std::mem::take(&mut self.thoughts);
        if !thinking_blocks.is_empty() {
            let delta = Delta { thinking_blocks: &thinking_blocks, ..Delta::default() };
            self.write(delta, &mut mapped.wire)?;
        }
        let refusal = piece.stop_details.as_ref().and_then(|details| details.explanation.as_deref());
        if refusal.is_some() {
            self.write(Delta { refusal, ..Delta::default() }, &mut mapped.wire)?;
        }
        let (finish, name) = ending(reason);
        mapped.finish = Some(finish);
        self.write_choice(Delta::default(), Some(name), &mut mapped.wire)
    }

    /// `message_stop`
    fn stop(&mut self, mapped: &mut Mapped) -> Result<(), PluginError> {
        if self.carry.include_usage {
            let chunk = Chunk { usage: Some(Some(self.counts.shown())), ..self.chunk(&[])? };
            chunk.write(&mut mapped.wire)?;
        }
        mapped.wire.extend_from_slice(STREAM_END);
        mapped.usage = Some(self.counts.booked());
        self.phase = Phase::Done;
        Ok(())
    }

    fn say(&mut self, text: &str, mapped: &mut Mapped) -> Result<(), PluginError> {
        if text.is_empty() {
            return Ok(());
        }
        self.phase = Phase::Content;
        self.write(Delta { content: Some(text), ..Delta::default() }, &mut mapped.wire)
    }

    fn think(&mut self, at: u32, text: &str, mapped: &mut Mapped) -> Result<(), PluginError> {
        if text.is_empty() {
            return Ok(());
        }
        if let Some(Open::Thinking(thought)) = self.open.get_mut(&at) {
            thought.thinking.push_str(text);
        }
        self.phase = Phase::Content;
        self.write(Delta { reasoning_content: Some(text), ..Delta::default() }, &mut mapped.wire)
    }

    fn arguments(&self, index: u32, arguments: &str, mapped: &mut Mapped) -> Result<(), PluginError> {
        let function = FunctionDelta { name: None, arguments };
        let call = CallDelta { index, id: None, kind: None, function };
        self.write(Delta { tool_calls: Some([call]), ..Delta::default() }, &mut mapped.wire)
    }

    fn count(&mut self, newer: Counts, mapped: &mut Mapped) {
        self.counts.update(newer);
        mapped.usage = Some(self.counts.booked());
    }

    fn write(&self, delta: Delta<'_>, wire: &mut Vec<u8>) -> Result<(), PluginError> {
        self.write_choice(delta, None, wire)
    }

    fn write_choice(
        &self,
        delta: Delta<'_>,
        finish_reason: Option<&'static str>,
        wire: &mut Vec<u8>,
    ) -> Result<(), PluginError> {
        let choice = ChunkChoice { index: 0, delta, logprobs: (), finish_reason };
        self.chunk(&[choice])?.write(wire)
    }

    fn chunk<'a>(&'a self, choices: &'a [ChunkChoice<'a>]) -> Result<Chunk<'a>, PluginError> {
        let id = self.id.as_deref();
        let id = id.ok_or_else(|| PluginError::BadUpstream("an event before message_start".into()))?;
        let usage = self.carry.include_usage.then_some(None);
        let (created, model) = (self.created_s, self.model.as_str());
        Ok(Chunk { id, object: "chat.completion.chunk", created, model, choices, usage })
    }
}
