//! Reads a vendor's stream event by event, and makes of it what the client gets.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::BodyExt;
use hyper::body::Incoming;
use sluice_core::chat::{Chunk, DONE, begins_as_object};
use sluice_core::sse::{Event, Splitter};
use sluice_runtime::{CallError, Mapped, Mapper, Phase};
use tokio::time::Instant;

use crate::fault::{FaultKind, Timer};
use crate::metering::{Metered, Metering};
use crate::planning::Planner;
use crate::routes::Upstream;
use crate::signer;

/// From the last event to the end of the vendor's message, with which the connection can be used again.
const END_WITHIN: Duration = Duration::from_millis(100);

/// The same where an adapter says which event is the last, and money depends on it: a vendor that goes
/// on has its say.
const PAID_END_WITHIN: Duration = Duration::from_secs(2);

/// Bytes in which a stream's last event can be known.
const TAIL_BYTES: usize = 64;

/// A vendor's answer that is being read.
pub(crate) struct Frames {
    body: Incoming,
    splitter: Splitter,
    decoder: Decoder,
    upstream: Arc<Upstream>,
    /// Anything at all has come.
    begun: bool,
    /// Something that a client would miss has come.
    said: bool,
    /// The beginning of an answer has come, or more of it.
    answers: bool,
    /// The vendor has ended its message itself.
    ended: bool,
    /// Choices that the model has not ended yet.
    unfinished: usize,
    /// The last event has come: for the end of the vendor's message.
    end_by: Option<Instant>,
    metering: Metering,
}

/// Who makes the client's bytes.
enum Decoder {
    /// Nobody: whole events pass.
    SameWire,
    /// Nobody, and they are not looked at: what is no stream.
    Blind,
    /// The same for what follows an event that is too long; with the last bytes, for a stream's end.
    BlindEvents(Vec<u8>),
    Mapped(Box<Mapper>, Planner),
}

/// What one read gave.
#[derive(Default)]
pub(crate) struct Taken {
    pub(crate) bytes: VecDeque<Bytes>,
    /// There is something in `bytes` that a client would miss.
    pub(crate) content: bool,
    pub(crate) end: Option<End>,
}

/// Why nothing more comes.
#[derive(Debug)]
pub(crate) enum End {
    Complete,
    Fault(FaultKind),
}

impl Frames {
    /// Events in the client's own wire.
    pub(crate) fn same_wire(body: Incoming, upstream: Arc<Upstream>, choices: u16) -> Frames {
        Frames { unfinished: choices.into(), ..Frames::new(body, upstream, Decoder::SameWire) }
    }

    /// Bytes that pass.
    pub(crate) fn blind(body: Incoming, upstream: Arc<Upstream>) -> Frames {
        Frames::new(body, upstream, Decoder::Blind)
    }

    /// Events that an adapter turns into the client's wire.
    pub(crate) fn mapped(body: Incoming, upstream: Arc<Upstream>, mapper: Mapper, by: Planner) -> Frames {
        Frames::new(body, upstream, Decoder::Mapped(Box::new(mapper), by))
    }

    fn new(body: Incoming, upstream: Arc<Upstream>, decoder: Decoder) -> Frames {
        let splitter = Splitter::default();
        let metering = Metering::default();
        Frames {
            body,
            splitter,
            decoder,
            upstream,
            begun: false,
            said: false,
            answers: false,
            ended: false,
            unfinished: 1,
            end_by: None,
            metering,
        }
    }

    /// `counts_all`: money or a limit depends on what is delivered. `hides_usage`: the client has not asked for it.
    pub(crate) fn metered(mut self, counts_all: bool, hides_usage: bool) -> Frames {
        self.metering = Metering::new(counts_all, hides_usage);
        self
    }

    /// What has been used by now.
    pub(crate) fn used(&self) -> Metered {
        let mapped = matches!(self.decoder, Decoder::Mapped(..));
        let cut = mapped && self.metering.counts_all() && !self.ended;
        Metered { begun: self.answers, cut, ..self.metering.used() }
    }

    /// Whether an error event can follow what has gone to the client: it ended with a whole event.
    pub(crate) fn takes_an_event(&self) -> bool {
        !matches!(self.decoder, Decoder::Blind | Decoder::BlindEvents(_))
    }

    /// What comes next, or the end; nothing comes after `deadline`.
    pub(crate) async fn read(&mut self, deadline: Instant, timer: Timer) -> Taken {
        if Instant::now() >= deadline {
            return self.broken(FaultKind::Timeout(timer));
        }
        // What is there of an ending may still be read when its time is over.
        let deadline = self.end_by.map_or(deadline, |end_by| end_by.min(deadline));
        match tokio::time::timeout_at(deadline, self.body.frame()).await {
            Err(_elapsed) => self.broken(FaultKind::Timeout(timer)),
            Ok(Some(Ok(frame))) => match frame.into_data() {
                Ok(data) => self.take(&data),
                // Trailers tell a client of chat completions nothing.
                Err(_trailers) => Taken::default(),
            },
            Ok(Some(Err(error))) => {
                tracing::debug!(upstream = self.upstream.name, %error, "the answer broke off");
                self.broken(FaultKind::Broken)
            }
            Ok(None) => {
                self.ended = true;
                self.close()
            }
        }
    }

    /// A vendor that falls silent or hangs up after all has been said has not failed.
    fn broken(&self, fault: FaultKind) -> Taken {
        let end = if self.unfinished == 0 { End::Complete } else { End::Fault(fault) };
        Taken { end: Some(end), ..Taken::default() }
    }

    /// What has been read by somebody else.
    pub(crate) fn take(&mut self, data: &Bytes) -> Taken {
        self.begun |= !data.is_empty();
        let mut taken = Taken::default();
        match &mut self.decoder {
            Decoder::Blind => {
                taken.content = true;
                taken.bytes.push_back(data.clone());
            }
            Decoder::BlindEvents(tail) => {
                taken.content = true;
                taken.bytes.push_back(data.clone());
                tail.extend_from_slice(data);
                tail.drain(..tail.len().saturating_sub(TAIL_BYTES));
                if ends_a_stream(tail) {
                    self.done();
                }
            }
            // Of what comes after the last event only the rest of its line is wanted.
            Decoder::SameWire if self.end_by.is_some() => {
                if data.trim_ascii().is_empty() {
                    taken.bytes.push_back(data.clone());
                }
            }
            Decoder::SameWire => {
                self.splitter.push(data);
                self.pass(&mut taken);
            }
            Decoder::Mapped(..) => {
                self.splitter.push(data);
                self.map(&mut taken);
            }
        }
        self.said |= taken.content;
        taken
    }

    /// Whole events pass as they came; what they say is looked at.
    fn pass(&mut self, taken: &mut Taken) {
        loop {
            match self.splitter.next_event() {
                Ok(None) => return,
                Ok(Some(event)) if self.end_by.is_some() && event.data().is_some() => drop(event),
                Ok(Some(event)) => {
                    if let Err(fault) = self.inspect(&event, taken) {
                        taken.end = Some(End::Fault(fault));
                        return;
                    }
                    if !self.metering.hides(&event) {
                        taken.bytes.push_back(event.bytes().clone());
                    }
                }
                Err(_too_long) => {
                    let rest = self.splitter.rest();
                    if !self.said && !taken.content && !begins_as_chunk(rest.bytes()) {
                        taken.end = Some(End::Fault(FaultKind::Malformed));
                        return;
                    }
                    taken.content = true;
                    taken.bytes.push_back(rest.bytes().clone());
                    self.decoder = Decoder::BlindEvents(Vec::new());
                    return;
                }
            }
        }
    }

    fn inspect(&mut self, event: &Event, taken: &mut Taken) -> Result<(), FaultKind> {
        let Some(data) = event.data() else { return Ok(()) };
        self.metering.event(&data);
        let named_error = event.name() == Some(b"error");
        if (self.said || taken.content) && !named_error && !Chunk::may_end(&data) {
            return Ok(());
        }
        let chunk = if named_error { Chunk::named_error(&data) } else { Chunk::read(&data) };
        match chunk {
            Chunk::Prelude => self.answers = true,
            Chunk::Content => taken.content = true,
            Chunk::Finish { choices } => {
                taken.content = true;
                self.unfinished = self.unfinished.saturating_sub(choices);
            }
            Chunk::Done => self.done(),
            Chunk::Error(inside) => return Err(self.upstream.says(inside.class, &inside.message)),
            Chunk::Malformed => return Err(FaultKind::Malformed),
        }
        Ok(())
    }

    /// As many whole events as have come go to the adapter at once.
    fn map(&mut self, taken: &mut Taken) {
        let mut frames = Vec::new();
        let fault = loop {
            match self.splitter.next_event() {
                Ok(None) => break None,
                Ok(Some(event)) => {
                    let Some(data) = event.data() else { continue };
                    self.metering.hears(&data);
                    frames.push(signer::scrub(&data, &self.upstream.secrets).into_owned());
                }
                Err(_too_long) => break Some(FaultKind::Malformed),
            }
        };
        // What comes after the last event is heard, and nobody is asked about it.
        if !frames.is_empty() && self.end_by.is_none() {
            // What is no beginning of an answer is the one event that there was.
            self.answers |= frames.len() > 1;
            self.ask(taken, |mapper| mapper.push(&frames));
        }
        if taken.end.is_none() && self.end_by.is_none() {
            taken.end = fault.map(End::Fault);
        }
    }

    fn ask(&mut self, taken: &mut Taken, ask: impl FnOnce(&mut Mapper) -> Result<Mapped, CallError>) {
        let Decoder::Mapped(mapper, by) = &mut self.decoder else { return };
        match ask(mapper) {
            Ok(mapped) => {
                taken.content |= mapped.phase != Phase::Prelude;
                self.metering.mapped(&mapped);
                self.answers |= mapped.fault.is_none();
                if !mapped.wire.is_empty() {
                    taken.bytes.push_back(mapped.wire.into());
                }
                if let Some(verdict) = mapped.fault {
                    taken.end = Some(End::Fault(self.upstream.says(verdict.class, &verdict.message)));
                }
                if mapped.phase == Phase::Done {
                    self.done();
                }
            }
            Err(error) => taken.end = Some(End::Fault(by.failed(&error))),
        }
    }

    /// What comes now is the end of the message, or nothing that anybody wants.
    fn done(&mut self) {
        self.unfinished = 0;
        let paid = matches!(self.decoder, Decoder::Mapped(..)) && self.metering.counts_all();
        let within = if paid { PAID_END_WITHIN } else { END_WITHIN };
        self.end_by.get_or_insert_with(|| Instant::now() + within);
    }

    /// The vendor has nothing more to say: whether that was all there was.
    fn close(&mut self) -> Taken {
        let mut taken = Taken::default();
        match &self.decoder {
            Decoder::Blind | Decoder::BlindEvents(_) => taken.end = Some(End::Complete),
            Decoder::SameWire if self.end_by.is_some() => {
                let rest = self.splitter.rest();
                if rest.bytes().trim_ascii().is_empty() && !rest.bytes().is_empty() {
                    taken.bytes.push_back(rest.bytes().clone());
                }
            }
            Decoder::SameWire => {
                let rest = self.splitter.rest();
                match self.inspect(&rest, &mut taken) {
                    Ok(()) => {}
                    // Half an event.
                    Err(FaultKind::Malformed) => taken.end = Some(End::Fault(FaultKind::CutShort)),
                    Err(fault) => taken.end = Some(End::Fault(fault)),
                }
                if !rest.bytes().is_empty() && self.unfinished == 0 {
                    taken.bytes.push_back(rest.bytes().clone());
                }
            }
            Decoder::Mapped(..) if self.unfinished == 0 || !self.begun => {}
            Decoder::Mapped(..) => {
                self.ask(&mut taken, |mapper| mapper.close());
                // An adapter that makes no sense of the end has not seen it.
                if let Some(End::Fault(FaultKind::Malformed)) = taken.end {
                    taken.end = Some(End::Fault(FaultKind::CutShort));
                }
            }
        }
        if taken.end.is_none() {
            taken.end = Some(match (self.unfinished, self.begun) {
                (0, _) => End::Complete,
                (_, true) => End::Fault(FaultKind::CutShort),
                (_, false) => End::Fault(FaultKind::Empty),
            });
        }
        taken
    }
}

/// Whether a stream's last event stands at the end of these bytes.
fn ends_a_stream(tail: &[u8]) -> bool {
    let line = tail.trim_ascii_end().rsplit(|byte| matches!(byte, b'\n' | b'\r')).next();
    let data = line.and_then(|line| line.strip_prefix(b"data:"));
    data.is_some_and(|data| data.trim_ascii() == DONE) && tail.ends_with(b"\n")
}

/// Whether what is too long to be looked at can be an event of the client's wire.
fn begins_as_chunk(text: &[u8]) -> bool {
    text.trim_ascii_start().strip_prefix(b"data:").is_some_and(begins_as_object)
}
