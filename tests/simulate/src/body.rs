//! How an answer leaves: in pieces, each booked as it is handed to the connection.

use std::collections::VecDeque;
use std::convert::Infallible;
use std::num::NonZeroUsize;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use http_body::{Body, Frame, SizeHint};
use tokio::time::Sleep;

use crate::books::Entry;
use crate::connection::ResetSwitch;
use crate::row::{Billed, Outcome};

/// Bytes that are sent together, and the completion tokens billed for them.
#[derive(Debug)]
pub(crate) struct Piece {
    pub(crate) bytes: Bytes,
    pub(crate) tokens: u64,
}

/// What comes after the last piece.
pub(crate) enum Ending {
    /// The end; the request is booked as this.
    Whole(Outcome),
    /// Nothing, until the client leaves.
    Silence,
    Reset(Arc<ResetSwitch>),
}

/// The body of an answer.
pub(crate) struct AnswerBody {
    pieces: VecDeque<Piece>,
    ending: Ending,
    entry: Entry,
    /// The length to announce; without it, the body is chunked.
    length: Option<u64>,
    pace: Pace,
}

/// When the next piece is handed over.
pub(crate) enum Pace {
    /// At once; pieces may share a write.
    Together,
    /// When the one before is flushed.
    Alone { flushed: bool },
    /// After a wait, which begins when it is asked for.
    Dripping { wait: Duration, waiting: Option<Pin<Box<Sleep>>> },
}

/// Joins the pieces and cuts them again, every `bytes`. What a piece bills
/// goes with its last byte.
pub(crate) fn cut(pieces: Vec<Piece>, bytes: NonZeroUsize) -> Vec<Piece> {
    let mut joined = BytesMut::new();
    let mut bills = VecDeque::new();
    for piece in pieces {
        joined.extend_from_slice(&piece.bytes);
        bills.push_back((joined.len(), piece.tokens));
    }
    let mut rest = joined.freeze();
    let mut end = 0;
    let mut cut = Vec::new();
    while !rest.is_empty() {
        let bytes = rest.split_to(rest.len().min(bytes.get()));
        end += bytes.len();
        let mut tokens = 0;
        while let Some((_, bill)) = bills.pop_front_if(|(bill_end, _)| *bill_end <= end) {
            tokens += bill;
        }
        cut.push(Piece { bytes, tokens });
    }
    cut
}

// === impl AnswerBody ===

impl AnswerBody {
    /// A body of these pieces, and of this length if one is announced.
    pub(crate) fn new(
        mut pieces: Vec<Piece>,
        length: Option<u64>,
        pace: Pace,
        ending: Ending,
        entry: Entry,
    ) -> AnswerBody {
        pieces.retain(|piece| !piece.bytes.is_empty());
        let mut body = AnswerBody { pieces: pieces.into(), ending, entry, length, pace };
        if body.pieces.is_empty() {
            body.conclude();
        }
        body
    }

    /// Booked with the last piece, not after it: a client that has read it all
    /// finds it in the books.
    fn conclude(&mut self) {
        if let Ending::Whole(outcome) = self.ending {
            self.entry.concludes(outcome);
        }
    }
}

// === impl Pace ===

impl Pace {
    pub(crate) const ALONE: Pace = Pace::Alone { flushed: true };

    pub(crate) fn dripping(wait: Duration) -> Pace {
        Pace::Dripping { wait, waiting: None }
    }

    /// Ready when the next piece may go, which then counts as gone.
    fn poll_next(&mut self, context: &mut Context<'_>) -> Poll<()> {
        match self {
            Pace::Together => Poll::Ready(()),
            Pace::Alone { flushed: flushed @ true } => {
                *flushed = false;
                Poll::Ready(())
            }
            // A connection flushes what it has when its body is not ready.
            Pace::Alone { flushed } => {
                *flushed = true;
                context.waker().wake_by_ref();
                Poll::Pending
            }
            Pace::Dripping { wait, waiting } => {
                let sleep = waiting.get_or_insert_with(|| Box::pin(tokio::time::sleep(*wait)));
                ready!(sleep.as_mut().poll(context));
                *waiting = None;
                Poll::Ready(())
            }
        }
    }
}

impl Body for AnswerBody {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        if !self.pieces.is_empty() {
            ready!(self.pace.poll_next(context));
        }
        let Some(piece) = self.pieces.pop_front() else {
            return match &self.ending {
                Ending::Whole(_) => Poll::Ready(None),
                Ending::Silence => Poll::Pending, // for ever: the client's leaving drops this body
                Ending::Reset(switch) => {
                    switch.reset();
                    Poll::Pending
                }
            };
        };
        let billed = Billed { prompt_tokens: 0, completion_tokens: piece.tokens };
        self.entry.adds(billed, piece.bytes.len() as u64);
        if self.pieces.is_empty() {
            self.conclude();
        }
        Poll::Ready(Some(Ok(Frame::data(piece.bytes))))
    }

    fn is_end_stream(&self) -> bool {
        self.pieces.is_empty() && matches!(self.ending, Ending::Whole(_))
    }

    fn size_hint(&self) -> SizeHint {
        self.length.map_or_else(SizeHint::default, SizeHint::with_exact)
    }
}

#[cfg(test)]
mod tests {
    use std::num::NonZeroUsize;

    use super::{Piece, cut};

    #[test]
    fn cutting_changes_neither_bytes_nor_bill() {
        let texts = ["", "a", "zwölf", " ", "日本語"];
        let whole = texts.concat();
        for bytes in 1..=whole.len() + 1 {
            let pieces = texts.map(|text| Piece { bytes: text.into(), tokens: text.len() as u64 });
            let pieces = cut(pieces.into(), NonZeroUsize::new(bytes).unwrap());
            let joined: Vec<u8> = pieces.iter().flat_map(|piece| piece.bytes.to_vec()).collect();
            assert_eq!(joined, whole.as_bytes(), "{bytes}");
            assert_eq!(pieces.iter().map(|piece| piece.tokens).sum::<u64>(), whole.len() as u64);
            let (last, others) = pieces.split_last().unwrap();
            assert!(others.iter().all(|piece| piece.bytes.len() == bytes));
            assert!((1..=bytes).contains(&last.bytes.len()));
        }
    }
}
