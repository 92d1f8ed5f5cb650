//! The bodies of answers: bytes that pass, and what is learned when they end.

use std::collections::VecDeque;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use http_body::{Body as HttpBody, Frame, SizeHint};
use sluice_core::breaker::Weight;
use sluice_core::stats::{InFlight, TargetStats};
use tokio::sync::mpsc;
use tokio::sync::mpsc::error::TrySendError;
use tokio::time::Instant;

use crate::fault::{FaultKind, Timer};
use crate::frames::{End, Frames};
use crate::lane::Pass;
use crate::refusal;

/// Why an answer broke off; the connection ends with it.
pub(crate) type BodyError = Box<dyn std::error::Error + Send + Sync>;

/// Any answer's body.
pub(crate) enum Body {
    Full(Option<Bytes>),
    /// An adapter's own answer, piece by piece.
    Pieces(std::vec::IntoIter<Vec<u8>>),
    Stream(Stream),
}

/// A relay's end that the client reads.
pub(crate) struct Stream {
    pieces: mpsc::Receiver<Piece>,
    held: VecDeque<Bytes>,
    ended: bool,
}

/// What a relay says.
enum Piece {
    Data(VecDeque<Bytes>),
    End,
    Broken(BodyError),
}

/// A vendor's answer on its way to the client, in a task of its own: its timers run whether or not
/// the client reads. It reads one batch ahead; what the client does not take, stays with the vendor.
pub(crate) struct Relay {
    pub(crate) frames: Frames,
    /// What has been read and not been sent.
    pub(crate) held: VecDeque<Bytes>,
    pub(crate) ended: Option<End>,
    pub(crate) idle: Duration,
    pub(crate) deadline: (Instant, Timer),
    pub(crate) stalled_reader: Duration,
    pub(crate) attempt: Underway,
}

/// An attempt whose end is to be told: to statistics, the breaker and the counters. Once; dropped
/// before, the client has left.
pub(crate) struct Underway {
    request_id: String,
    sent: std::time::Instant,
    /// The call counts as in flight until its answer has ended.
    inflight: InFlight<Arc<TargetStats>>,
    pass: Pass,
    first: Option<Duration>,
    told: bool,
}

impl Body {
    pub(crate) fn full(bytes: Bytes) -> Body {
        Body::Full(Some(bytes))
    }

    pub(crate) fn pieces(pieces: Vec<Vec<u8>>) -> Body {
        Body::Pieces(pieces.into_iter())
    }

    /// A client that drops it closes the vendor's connection.
    #[expect(clippy::disallowed_methods, reason = "the body owns the task: dropped, it ends it")]
    pub(crate) fn relay(mut relay: Relay) -> Body {
        let (client, pieces) = mpsc::channel(1);
        let held = std::mem::take(&mut relay.held);
        tokio::spawn(relay.run(client));
        Body::Stream(Stream { pieces, held, ended: false })
    }
}

impl HttpBody for Body {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Self::Error>>> {
        match self.get_mut() {
            Body::Full(bytes) => Poll::Ready(bytes.take().map(|bytes| Ok(Frame::data(bytes)))),
            Body::Pieces(pieces) => Poll::Ready(pieces.next().map(|piece| Ok(Frame::data(piece.into())))),
            Body::Stream(stream) => {
                stream.poll_next(context).map(|item| item.map(|item| item.map(Frame::data)))
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Body::Full(bytes) => bytes.as_ref().is_none_or(Bytes::is_empty),
            Body::Pieces(pieces) => pieces.as_slice().is_empty(),
            Body::Stream(_) => false,
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Body::Full(bytes) => SizeHint::with_exact(bytes.as_ref().map_or(0, |bytes| bytes.len() as u64)),
            Body::Pieces(pieces) if pieces.len() == 1 => {
                SizeHint::with_exact(pieces.as_slice()[0].len() as u64)
            }
            Body::Pieces(_) | Body::Stream(_) => SizeHint::default(),
        }
    }
}

impl Stream {
    fn poll_next(&mut self, context: &mut Context<'_>) -> Poll<Option<Result<Bytes, BodyError>>> {
        loop {
            if let Some(bytes) = self.held.pop_front() {
                return Poll::Ready(Some(Ok(bytes)));
            }
            if self.ended {
                return Poll::Ready(None);
            }
            let piece = ready!(self.pieces.poll_recv(context));
            self.ended = !matches!(piece, Some(Piece::Data(_)));
            match piece {
                Some(Piece::Data(bytes)) => self.held = bytes,
                Some(Piece::End) => {}
                Some(Piece::Broken(error)) => return Poll::Ready(Some(Err(error))),
                None => return Poll::Ready(Some(Err("the answer was given up".into()))),
            }
        }
    }
}

impl Relay {
    async fn run(mut self, client: mpsc::Sender<Piece>) {
        tokio::select! {
            () = self.pass(&client) => {}
            // Dropped here, it closes the vendor's connection.
            () = client.closed() => {}
        }
    }

    async fn pass(&mut self, client: &mpsc::Sender<Piece>) {
        let (at, timer) = self.deadline;
        loop {
            match self.ended.take() {
                None => {}
                Some(End::Complete) => {
                    self.attempt.good();
                    self.send(client, Piece::End, at).await;
                    return;
                }
                Some(End::Fault(fault)) => return self.broke(client, &fault).await,
            }
            let idle = Instant::now() + self.idle;
            let taken = if idle < at {
                self.frames.read(idle, Timer::Idle).await
            } else {
                self.frames.read(at, timer).await
            };
            self.ended = taken.end;
            if !taken.bytes.is_empty() && !self.send(client, Piece::Data(taken.bytes), at).await {
                return;
            }
        }
    }

    /// Waits for the client to take the piece before; false where it is not waited for any longer.
    async fn send(&mut self, client: &mpsc::Sender<Piece>, piece: Piece, until: Instant) -> bool {
        let piece = match client.try_send(piece) {
            Ok(()) => return true,
            Err(TrySendError::Closed(_)) => return false,
            Err(TrySendError::Full(piece)) => piece,
        };
        let stalled = Instant::now() + self.stalled_reader;
        match tokio::time::timeout_at(stalled.min(until), client.send(piece)).await {
            Ok(sent) => sent.is_ok(),
            Err(_elapsed) => {
                let within = self.stalled_reader;
                tracing::info!(
                    ?within,
                    "a client takes nothing (server.timeouts.stalled_reader), or not all in time"
                );
                false
            }
        }
    }

    /// A client that has had content gets no other answer: it is told in the stream, or, where the
    /// stream stands in the middle of something, by the end of the connection.
    async fn broke(&mut self, client: &mpsc::Sender<Piece>, fault: &FaultKind) {
        self.attempt.failed(fault);
        let last = match self.frames.takes_an_event() {
            true => Piece::Data([refusal::error_event(&self.attempt.pass.lane().upstream, fault)].into()),
            false => Piece::Broken(fault.code().into()),
        };
        // It may be the deadline that is over.
        let until = Instant::now() + self.stalled_reader;
        if self.send(client, last, until).await {
            self.send(client, Piece::End, until).await;
        }
    }
}

impl Underway {
    pub(crate) fn new(request_id: String, inflight: InFlight<Arc<TargetStats>>, pass: Pass) -> Underway {
        Underway { request_id, sent: std::time::Instant::now(), inflight, pass, first: None, told: false }
    }

    /// The first content of a stream is there.
    pub(crate) fn first_content(&mut self) {
        let took = self.sent.elapsed();
        if self.first.replace(took).is_none() {
            self.pass.lane().measures.first_content(took);
            self.pass.begun();
        }
    }

    /// The answer has ended well.
    pub(crate) fn good(&mut self) {
        if !self.tell() {
            return;
        }
        let total = self.sent.elapsed();
        let first = self.first.unwrap_or(total);
        self.inflight.stats().succeeded(micros(first), micros(total));
        self.pass.lane().measures.good(total);
        self.pass.settle(Weight::Good, "none");
        tracing::debug!(
            request = self.request_id,
            first_us = micros(first),
            total_us = micros(total),
            "answered"
        );
    }

    /// The attempt has failed.
    pub(crate) fn failed(&mut self, fault: &FaultKind) {
        if !self.tell() {
            return;
        }
        let (class, code) = (fault.class(), fault.code());
        self.inflight.stats().failed();
        let lane = self.pass.lane();
        lane.measures.fault(class);
        tracing::debug!(
            request = self.request_id,
            upstream = lane.upstream,
            model = lane.model,
            fault = code,
            class = class.name(),
            content = self.first.is_some(),
            "an attempt failed"
        );
        self.pass.settle(class.weight(), code);
    }

    /// The vendor was not asked.
    pub(crate) fn unasked(&mut self) {
        self.told = true;
    }

    fn tell(&mut self) -> bool {
        !std::mem::replace(&mut self.told, true)
    }
}

impl Drop for Underway {
    fn drop(&mut self) {
        if self.tell() {
            self.pass.lane().measures.left();
            tracing::debug!(request = self.request_id, "the client left");
        }
    }
}

fn micros(span: Duration) -> u32 {
    u32::try_from(span.as_micros()).unwrap_or(u32::MAX)
}
