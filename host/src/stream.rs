//! The bodies of answers: bytes that pass, and what is learned when they end.

use std::collections::VecDeque;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use http_body::{Body as HttpBody, Frame, SizeHint};
use sluice_core::breaker::Weight;
use sluice_core::stats::{InFlight, TargetStats};
use tokio::sync::mpsc::error::TrySendError;
use tokio::sync::{Notify, mpsc};
use tokio::time::Instant;

use crate::fault::{FaultKind, Timer};
use crate::frames::{End, Frames};
use crate::lane::Pass;
use crate::refusal;

/// Bytes that are handed over at once: a slow reader is seen to take them.
const PART_BYTES_MAX: usize = 16 * 1024;

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
    /// Parts that were taken, for the relay to see that the client reads.
    taken: Arc<AtomicUsize>,
    ended: bool,
}

/// Who reads an answer.
#[derive(Clone, Debug)]
pub(crate) struct Client {
    /// How long it may take nothing.
    pub(crate) stalled: Duration,
    pub(crate) connection: Connection,
}

/// A client's connection. (On HTTP/2 a stream whose window is shut is never asked for more: only the
/// connection can be ended then.)
#[derive(Clone, Debug, Default)]
pub(crate) struct Connection(Arc<Notify>);

/// What a relay says.
enum Piece {
    Data(VecDeque<Bytes>),
    End,
    Broken(BodyError),
}

/// A relay's way to its client.
struct Reader {
    pieces: mpsc::Sender<Piece>,
    taken: Arc<AtomicUsize>,
    client: Client,
}

/// What became of a piece.
enum Sent {
    Taken,
    /// The client was too slow for the answer's own time.
    Over,
    /// There is nobody to take it.
    Left,
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
    pub(crate) client: Client,
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
        let (pieces, stream) = mpsc::channel(1);
        let held = std::mem::take(&mut relay.held);
        let taken = Arc::new(AtomicUsize::new(0));
        let reader = Reader { pieces, taken: Arc::clone(&taken), client: relay.client.clone() };
        tokio::spawn(relay.run(reader));
        Body::Stream(Stream { pieces: stream, held, taken, ended: false })
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
    fn part(&mut self) -> Option<Bytes> {
        let first = self.held.front_mut()?;
        match first.len() > PART_BYTES_MAX {
            true => Some(first.split_to(PART_BYTES_MAX)),
            false => self.held.pop_front(),
        }
    }

    fn poll_next(&mut self, context: &mut Context<'_>) -> Poll<Option<Result<Bytes, BodyError>>> {
        loop {
            if let Some(bytes) = self.part() {
                self.taken.fetch_add(1, Ordering::Relaxed);
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
    async fn run(mut self, reader: Reader) {
        tokio::select! {
            () = self.pass(&reader) => {}
            // Dropped here, it closes the vendor's connection.
            () = reader.pieces.closed() => {}
        }
    }

    /// Passes all there is.
    async fn pass(&mut self, reader: &Reader) {
        let (at, timer) = self.deadline;
        loop {
            match self.ended.take() {
                None => {}
                Some(End::Complete) => {
                    self.attempt.good();
                    reader.send(Piece::End, at).await;
                    return;
                }
                Some(End::Fault(fault)) => {
                    self.attempt.failed(&fault);
                    return self.broke(reader, &fault).await;
                }
            }
            let idle = Instant::now() + self.idle;
            let taken = if idle < at {
                self.frames.read(idle, Timer::Idle).await
            } else {
                self.frames.read(at, timer).await
            };
            self.ended = taken.end;
            if taken.bytes.is_empty() {
                continue;
            }
            match reader.send(Piece::Data(taken.bytes), at).await {
                Sent::Taken => {}
                Sent::Over => return self.broke(reader, &FaultKind::Timeout(timer)).await,
                Sent::Left => return,
            }
        }
    }

    /// A client that has had content gets no other answer: it is told in the stream, or, where the
    /// stream stands in the middle of something, by the end of the connection.
    async fn broke(&mut self, reader: &Reader, fault: &FaultKind) {
        let last = match self.frames.takes_an_event() {
            true => Piece::Data([refusal::error_event(&self.attempt.pass.lane().upstream, fault)].into()),
            false => Piece::Broken(fault.code().into()),
        };
        // It may be the deadline that is over.
        let until = Instant::now() + reader.client.stalled;
        if let Sent::Taken = reader.send(last, until).await {
            reader.send(Piece::End, until).await;
        }
    }
}

impl Reader {
    /// Waits for the client to take what came before.
    async fn send(&self, piece: Piece, until: Instant) -> Sent {
        let piece = match self.pieces.try_send(piece) {
            Ok(()) => return Sent::Taken,
            Err(TrySendError::Closed(_)) => return Sent::Left,
            Err(TrySendError::Full(piece)) => piece,
        };
        let mut sending = pin!(self.pieces.send(piece));
        loop {
            let taken = self.taken.load(Ordering::Relaxed);
            let stalled = Instant::now() + self.client.stalled;
            match tokio::time::timeout_at(stalled.min(until), sending.as_mut()).await {
                Ok(Ok(())) => return Sent::Taken,
                Ok(Err(_closed)) => return Sent::Left,
                Err(_elapsed) if Instant::now() >= until => return Sent::Over,
                Err(_elapsed) if self.taken.load(Ordering::Relaxed) > taken => {}
                Err(_elapsed) => {
                    let within = self.client.stalled;
                    tracing::info!(?within, "a client takes nothing (server.timeouts.stalled_reader)");
                    self.client.connection.end();
                    return Sent::Left;
                }
            }
        }
    }
}

impl Connection {
    /// Ends it, whatever else goes over it.
    fn end(&self) {
        self.0.notify_one();
    }

    /// When somebody wants it to end.
    pub(crate) async fn ended(&self) {
        self.0.notified().await;
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
        self.pass.settle(fault.weight(), code);
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
