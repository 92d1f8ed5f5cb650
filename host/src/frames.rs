//! Reads a vendor's stream event by event, and makes of it what the client gets.

use std::collections::VecDeque;
use std::sync::Arc;

use bytes::Bytes;
use http_body_util::BodyExt;
use hyper::body::Incoming;
use sluice_core::chat::Chunk;
use sluice_core::sse::{Event, Splitter};
use sluice_runtime::{CallError, Mapped, Mapper, Phase, Versioned};
use tokio::time::Instant;

use crate::fault::{FaultKind, Timer};
use crate::routes::Upstream;
use crate::signer;

/// A vendor's answer that is being read.
pub(crate) struct Frames {
    body: Incoming,
    splitter: Splitter,
    decoder: Decoder,
    upstream: Arc<Upstream>,
    /// Anything at all has come.
    begun: bool,
    /// The model has stopped, or the vendor has said that this was all.
    finished: bool,
}

/// Who makes the client's bytes.
enum Decoder {
    /// Nobody: whole events pass.
    SameWire,
    /// Nobody, and they are not looked at: what follows an event that is too long, or what is no stream.
    Blind,
    Mapped(Box<Mapper>),
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
    pub(crate) fn same_wire(body: Incoming, upstream: Arc<Upstream>) -> Frames {
        Frames::new(body, upstream, Decoder::SameWire)
    }

    /// Bytes that pass.
    pub(crate) fn blind(body: Incoming, upstream: Arc<Upstream>) -> Frames {
        Frames::new(body, upstream, Decoder::Blind)
    }

    /// Events that an adapter turns into the client's wire.
    pub(crate) fn mapped(body: Incoming, upstream: Arc<Upstream>, mapper: Mapper) -> Frames {
        Frames::new(body, upstream, Decoder::Mapped(Box::new(mapper)))
    }

    fn new(body: Incoming, upstream: Arc<Upstream>, decoder: Decoder) -> Frames {
        Frames { body, splitter: Splitter::default(), decoder, upstream, begun: false, finished: false }
    }

    /// Whether an error event can follow what has gone to the client: it ended with a whole event.
    pub(crate) fn takes_an_event(&self) -> bool {
        !matches!(self.decoder, Decoder::Blind)
    }

    /// What comes next, or the end; never waits beyond `deadline`.
    pub(crate) async fn read(&mut self, deadline: Instant, timer: Timer) -> Taken {
        let ended = |fault| Taken { end: Some(End::Fault(fault)), ..Taken::default() };
        match tokio::time::timeout_at(deadline, self.body.frame()).await {
            Err(_elapsed) => ended(FaultKind::Timeout(timer)),
            Ok(Some(Ok(frame))) => match frame.into_data() {
                Ok(data) => self.take(&data),
                // Trailers tell a client of chat completions nothing.
                Err(_trailers) => Taken::default(),
            },
            Ok(Some(Err(error))) => {
                tracing::debug!(upstream = self.upstream.name, %error, "the answer broke off");
                ended(FaultKind::Broken)
            }
            Ok(None) => self.close(),
        }
    }

    fn take(&mut self, data: &Bytes) -> Taken {
        self.begun |= !data.is_empty();
        let mut taken = Taken::default();
        match &mut self.decoder {
            Decoder::Blind => {
                taken.content = true;
                taken.bytes.push_back(data.clone());
            }
            Decoder::SameWire => {
                self.splitter.push(data);
                self.pass(&mut taken);
            }
            Decoder::Mapped(_) => {
                self.splitter.push(data);
                self.map(&mut taken);
            }
        }
        taken
    }

    /// Whole events pass as they came; what they say is looked at.
    fn pass(&mut self, taken: &mut Taken) {
        loop {
            match self.splitter.next_event() {
                Ok(None) => return,
                Ok(Some(event)) => {
                    if let Err(fault) = self.inspect(&event, taken) {
                        taken.end = Some(End::Fault(fault));
                        return;
                    }
                    taken.bytes.push_back(event.bytes().clone());
                }
                Err(_too_long) => {
                    taken.content = true;
                    taken.bytes.push_back(self.splitter.rest().bytes().clone());
                    self.decoder = Decoder::Blind;
                    return;
                }
            }
        }
    }

    fn inspect(&mut self, event: &Event, taken: &mut Taken) -> Result<(), FaultKind> {
        let Some(data) = event.data() else { return Ok(()) };
        if taken.content && !Chunk::may_end(&data) {
            return Ok(());
        }
        match Chunk::read(&data) {
            Chunk::Prelude => {}
            Chunk::Content => taken.content = true,
            Chunk::Finish => {
                taken.content = true;
                self.finished = true;
            }
            Chunk::Done => self.finished = true,
            Chunk::Error(inside) => return Err(self.inside(inside.class, &inside.message)),
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
                    frames.extend(event.data().map(|data| signer::scrub(&data, &self.upstream.secrets)));
                }
                Err(_too_long) => break Some(FaultKind::Malformed),
            }
        };
        if !frames.is_empty() {
            self.ask(taken, |mapper| mapper.push(&frames));
        }
        if taken.end.is_none() {
            taken.end = fault.map(End::Fault);
        }
    }

    fn ask(&mut self, taken: &mut Taken, ask: impl FnOnce(&mut Mapper) -> Result<Mapped, CallError>) {
        let Decoder::Mapped(mapper) = &mut self.decoder else { return };
        match ask(mapper) {
            Ok(mapped) => {
                self.finished |= mapped.phase == Phase::Done;
                taken.content |= mapped.phase == Phase::Content;
                if !mapped.wire.is_empty() {
                    taken.bytes.push_back(mapped.wire.into());
                }
                if let Some(verdict) = mapped.fault {
                    taken.end = Some(End::Fault(self.inside(verdict.class, &verdict.message)));
                }
            }
            Err(error) => {
                let plugin = &self.upstream.adapter.current().plugin().manifest().id;
                tracing::debug!(plugin, %error, "the adapter did not map");
                taken.end = Some(End::Fault(unmapped(plugin, &error)));
            }
        }
    }

    fn inside(&self, class: sluice_core::fault::FaultClass, message: &str) -> FaultKind {
        let message = signer::scrub(message.as_bytes(), &self.upstream.secrets);
        FaultKind::Inside { class, message: String::from_utf8_lossy(&message).into_owned() }
    }

    /// The vendor has nothing more to say: whether that was all there was.
    fn close(&mut self) -> Taken {
        let mut taken = Taken::default();
        match &self.decoder {
            Decoder::Blind => taken.end = Some(End::Complete),
            Decoder::SameWire => {
                let rest = self.splitter.rest();
                if let Err(fault) = self.inspect(&rest, &mut taken) {
                    taken.end = Some(End::Fault(fault));
                    return taken;
                }
                if !rest.bytes().is_empty() && self.finished {
                    taken.bytes.push_back(rest.bytes().clone());
                }
            }
            Decoder::Mapped(_) if self.finished || !self.begun => {}
            Decoder::Mapped(_) => {
                self.ask(&mut taken, |mapper| mapper.close());
                // An adapter that makes no sense of the end has not seen it.
                if let Some(End::Fault(FaultKind::Malformed)) = taken.end {
                    taken.end = Some(End::Fault(FaultKind::CutShort));
                }
            }
        }
        if taken.end.is_none() {
            taken.end = Some(match (self.finished, self.begun) {
                (true, _) => End::Complete,
                (false, true) => End::Fault(FaultKind::CutShort),
                (false, false) => End::Fault(FaultKind::Empty),
            });
        }
        taken
    }
}

/// What an adapter's failure over an answer is.
pub(crate) fn unmapped(plugin: &str, error: &CallError) -> FaultKind {
    use sluice_runtime::Refused;
    match error {
        CallError::Refused(Refused::BadUpstream(_)) => FaultKind::Malformed,
        CallError::Refused(_) | CallError::Fault(..) => FaultKind::Plugin { plugin: plugin.into() },
    }
}
