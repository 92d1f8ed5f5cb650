//! The bodies of answers: bytes that pass, and what is learned when they end.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use http_body::{Body as HttpBody, Frame, SizeHint};
use hyper::body::Incoming;
use sluice_core::stats::{InFlight, TargetStats};
use tokio::time::{Instant, Sleep};

/// Why an answer broke off; the connection ends with it.
pub(crate) type BodyError = Box<dyn std::error::Error + Send + Sync>;

/// Any answer's body.
pub(crate) enum Body {
    Full(Option<Bytes>),
    /// An adapter's own answer, piece by piece.
    Pieces(std::vec::IntoIter<Vec<u8>>),
    Relay(Box<Relay>),
}

/// A vendor's answer on its way to the client.
pub(crate) struct Relay {
    body: Incoming,
    /// Asked only while the vendor is silent.
    deadline: Pin<Box<Sleep>>,
    report: Report,
}

/// What is known of an answer under way; told once, when it ends.
pub(crate) struct Report {
    request_id: String,
    started: std::time::Instant,
    /// The call counts as in flight until its answer has ended.
    inflight: InFlight<Arc<TargetStats>>,
    bytes: u64,
    ttft_us: Option<u32>,
    told: bool,
}

/// How an answer ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum End {
    Complete,
    /// The vendor broke off.
    Broken,
    /// The client left.
    Left,
}

impl Body {
    pub(crate) fn full(bytes: Bytes) -> Body {
        Body::Full(Some(bytes))
    }

    pub(crate) fn pieces(pieces: Vec<Vec<u8>>) -> Body {
        Body::Pieces(pieces.into_iter())
    }

    pub(crate) fn relay(body: Incoming, deadline: Instant, report: Report) -> Body {
        let deadline = Box::pin(tokio::time::sleep_until(deadline));
        Body::Relay(Box::new(Relay { body, deadline, report }))
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
            Body::Relay(relay) => relay.poll_frame(context),
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Body::Full(bytes) => bytes.as_ref().is_none_or(Bytes::is_empty),
            Body::Pieces(pieces) => pieces.as_slice().is_empty(),
            Body::Relay(relay) => relay.body.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Body::Full(bytes) => SizeHint::with_exact(bytes.as_ref().map_or(0, |bytes| bytes.len() as u64)),
            Body::Pieces(pieces) if pieces.len() == 1 => {
                SizeHint::with_exact(pieces.as_slice()[0].len() as u64)
            }
            Body::Pieces(_) => SizeHint::default(),
            Body::Relay(relay) => relay.body.size_hint(),
        }
    }
}

impl Relay {
    fn poll_frame(&mut self, context: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        let Poll::Ready(frame) = Pin::new(&mut self.body).poll_frame(context) else {
            ready!(self.deadline.as_mut().poll(context));
            self.report.tell(End::Broken);
            return Poll::Ready(Some(Err("the answer took too long".into())));
        };
        match frame {
            Some(Ok(frame)) => {
                if let Some(data) = frame.data_ref() {
                    self.report.passed(data.len());
                }
                // Where the length is known, nobody asks again after the last byte.
                if self.body.is_end_stream() {
                    self.report.tell(End::Complete);
                }
                Poll::Ready(Some(Ok(frame)))
            }
            Some(Err(error)) => {
                self.report.tell(End::Broken);
                Poll::Ready(Some(Err(error.into())))
            }
            None => {
                self.report.tell(End::Complete);
                Poll::Ready(None)
            }
        }
    }
}

impl Report {
    pub(crate) fn new(
        request_id: String,
        started: std::time::Instant,
        inflight: InFlight<Arc<TargetStats>>,
    ) -> Report {
        Report { request_id, started, inflight, bytes: 0, ttft_us: None, told: false }
    }

    /// For an answer that needed no vendor: it is whole before its first byte is written.
    pub(crate) fn complete(mut self) {
        self.tell(End::Complete);
    }

    fn passed(&mut self, bytes: usize) {
        self.bytes += bytes as u64;
        let started = self.started;
        self.ttft_us.get_or_insert_with(|| micros(started));
    }

    /// The first end counts.
    fn tell(&mut self, end: End) {
        if std::mem::replace(&mut self.told, true) {
            return;
        }
        let total_us = micros(self.started);
        match end {
            End::Complete => self.inflight.stats().succeeded(self.ttft_us.unwrap_or(total_us), total_us),
            End::Broken => self.inflight.stats().failed(),
            End::Left => {}
        }
        let (request, bytes, ttft_us) = (&self.request_id, self.bytes, self.ttft_us);
        match end {
            End::Complete => tracing::debug!(request, bytes, ttft_us, total_us, "answered"),
            End::Broken => {
                tracing::warn!(request, bytes, ttft_us, total_us, "the upstream broke off its answer")
            }
            End::Left => tracing::debug!(request, bytes, ttft_us, total_us, "the client left"),
        }
    }
}

impl Drop for Relay {
    fn drop(&mut self) {
        self.report.tell(End::Left);
    }
}

fn micros(since: std::time::Instant) -> u32 {
    u32::try_from(since.elapsed().as_micros()).unwrap_or(u32::MAX)
}
