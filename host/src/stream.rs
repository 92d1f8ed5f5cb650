//! The bodies of answers: bytes that pass, and what is learned when they end.

use std::collections::VecDeque;
use std::future::Future;
use std::net::IpAddr;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use http_body::{Body as HttpBody, Frame, SizeHint};
use tokio::sync::mpsc::error::TrySendError;
use tokio::sync::{Notify, mpsc};
use tokio::time::Instant;

use crate::drained;
use crate::fault::{FaultKind, Timer};
use crate::frames::{End, Frames};
use crate::refusal;
use crate::underway::Underway;

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
#[derive(Clone, Debug)]
pub(crate) struct Connection {
    end: Arc<Notify>,
    peer: IpAddr,
}

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

/// What became of a wait.
enum Read<T> {
    Done(T),
    Over,
    Stalled,
}

/// What became of a piece.
enum Sent {
    Taken,
    /// The client was too slow for the answer's own time.
    Over,
    /// There is nobody to take it.
    Left,
}

/// What became of an answer.
enum Passed {
    /// The client has all that there is for it, or may take the last of it still.
    All,
    /// It has left before.
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
    pub(crate) attempt: Box<Underway>,
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
        let passed = tokio::select! {
            passed = self.pass(&reader) => passed,
            () = reader.pieces.closed() => Passed::Left,
        };
        if let Passed::Left = passed {
            // Dropped after it, it closes the vendor's connection.
            return self.drain().await;
        }
        // The vendor is done with; the client may have the last of it still to take.
        drop(self);
        reader.drained().await;
    }

    /// The client is gone. Where money is held, the vendor's last word says how much it was.
    async fn drain(mut self) {
        if self.attempt.is_told() {
            return;
        }
        let Some(_place) = self.attempt.drain_place() else { return };
        let (at, timer) = self.deadline;
        let until = at.min(Instant::now() + drained::WITHIN);
        while self.ended.is_none() {
            let taken = self.frames.read(until.min(Instant::now() + self.idle), timer).await;
            self.ended = taken.end;
            if !self.attempt.uses(&self.frames.used()) {
                return;
            }
        }
        if let Some(End::Complete) = self.ended {
            self.attempt.good();
        }
    }

    /// Passes all there is.
    async fn pass(&mut self, reader: &Reader) -> Passed {
        let (at, timer) = self.deadline;
        loop {
            match self.ended.take() {
                None => {}
                Some(End::Complete) => {
                    self.attempt.good();
                    reader.send(Piece::End, None).await;
                    return Passed::All;
                }
                Some(End::Fault(fault)) => {
                    self.attempt.failed(&fault);
                    self.broke(reader, &fault).await;
                    return Passed::All;
                }
            }
            let idle = Instant::now() + self.idle;
            let taken = if idle < at {
                self.frames.read(idle, Timer::Idle).await
            } else {
                self.frames.read(at, timer).await
            };
            self.ended = taken.end;
            if !self.attempt.uses(&self.frames.used()) {
                // What has come is not passed: it was not paid for.
                self.ended = Some(End::Fault(FaultKind::OverLimit));
                continue;
            }
            if taken.bytes.is_empty() {
                continue;
            }
            match reader.send(Piece::Data(taken.bytes), Some(at)).await {
                Sent::Taken => {}
                Sent::Over => {
                    match self.ended.take() {
                        Some(End::Complete) => self.attempt.good(),
                        Some(End::Fault(fault)) => self.attempt.failed(&fault),
                        None => {}
                    }
                    self.broke(reader, &FaultKind::Timeout(timer)).await;
                    return Passed::All;
                }
                Sent::Left => return Passed::Left,
            }
        }
    }

    /// A client that has had content gets no other answer: it is told in the stream, or, where the
    /// stream stands in the middle of something, by the end of the connection.
    async fn broke(&mut self, reader: &Reader, fault: &FaultKind) {
        let last = match self.frames.takes_an_event() {
            true => Piece::Data([refusal::error_event(&self.attempt.lane().upstream, fault)].into()),
            false => Piece::Broken(fault.code().into()),
        };
        if let Sent::Taken = reader.send(last, None).await {
            reader.send(Piece::End, None).await;
        }
    }
}

impl Reader {
    /// Waits for the client to take what came before; until then at most, if it is said.
    async fn send(&self, piece: Piece, until: Option<Instant>) -> Sent {
        let piece = match self.pieces.try_send(piece) {
            Ok(()) => return Sent::Taken,
            Err(TrySendError::Closed(_)) => return Sent::Left,
            Err(TrySendError::Full(piece)) => piece,
        };
        match self.while_read(self.pieces.send(piece), until).await {
            Read::Done(Ok(())) => Sent::Taken,
            Read::Done(Err(_closed)) => Sent::Left,
            Read::Over => Sent::Over,
            Read::Stalled => Sent::Left,
        }
    }

    /// Waits until the client has taken all, or left.
    async fn drained(&self) {
        // However it ends, there is nothing more to do.
        let _ = self.while_read(self.pieces.closed(), None).await;
    }

    /// Waits for something that comes when the client reads; a client that does not loses its
    /// connection.
    async fn while_read<T>(&self, wanted: impl Future<Output = T>, until: Option<Instant>) -> Read<T> {
        let mut wanted = pin!(wanted);
        loop {
            let taken = self.taken.load(Ordering::Relaxed);
            let stalled = Instant::now() + self.client.stalled;
            let next = until.map_or(stalled, |until| until.min(stalled));
            match tokio::time::timeout_at(next, wanted.as_mut()).await {
                Ok(done) => return Read::Done(done),
                Err(_elapsed) if until.is_some_and(|until| Instant::now() >= until) => return Read::Over,
                Err(_elapsed) if self.taken.load(Ordering::Relaxed) > taken => {}
                Err(_elapsed) => {
                    let within = self.client.stalled;
                    tracing::info!(?within, "a client takes nothing (server.timeouts.stalled_reader)");
                    self.client.connection.end();
                    return Read::Stalled;
                }
            }
        }
    }
}

impl Connection {
    pub(crate) fn from(peer: IpAddr) -> Connection {
        Connection { end: Arc::default(), peer }
    }

    /// Who is at the other end of it: a client, or a proxy.
    pub(crate) fn peer(&self) -> IpAddr {
        self.peer
    }

    /// Ends it, whatever else goes over it.
    fn end(&self) {
        self.end.notify_one();
    }

    /// When somebody wants it to end.
    pub(crate) async fn ended(&self) {
        self.end.notified().await;
    }
}
