//! A request's body: bounded, timed, and with room in memory for as long as somebody needs it.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use http::HeaderMap;
use http::header::{CONTENT_ENCODING, CONTENT_LENGTH, EXPECT};
use http_body_util::{BodyExt, LengthLimitError, Limited};
use hyper::body::Incoming;

use crate::refusal::Refusal;

/// Bytes of a request body at most: 20 MiB, room for a few images in base64.
pub(crate) const BODY_BYTES_MAX: usize = 20 * 1024 * 1024;

/// What bodies have to keep to.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Terms {
    /// From the head of the request on.
    pub(crate) within: Duration,
    /// Bytes of all bodies together.
    pub(crate) bodies_bytes_max: u64,
}

/// The bodies of all requests that are being read or served.
#[derive(Default)]
pub(crate) struct Room {
    bytes: AtomicU64,
}

/// One body's share of it; given back when dropped.
pub(crate) struct Share {
    room: Arc<Room>,
    bytes: u64,
}

/// Reads a body whole. Bytes that have not come take no room, whatever was announced.
///
/// # Errors
///
/// A [`Refusal`] that says what of it was too much.
pub(crate) async fn read(
    headers: &HeaderMap,
    body: Incoming,
    room: &Arc<Room>,
    terms: Terms,
) -> Result<(Bytes, Share), Refusal> {
    if headers.get(CONTENT_ENCODING).is_some_and(|encoding| encoding != "identity") {
        return Err(Refusal::BodyEncoded);
    }
    // Who asks first need not send it all. Who does not, reads the refusal only after sending.
    let declared = headers.get(CONTENT_LENGTH).and_then(|length| length.to_str().ok()?.parse().ok());
    if headers.contains_key(EXPECT) && declared.is_some_and(|bytes: u64| bytes > BODY_BYTES_MAX as u64) {
        return Err(Refusal::BodyTooLarge { bytes_max: BODY_BYTES_MAX });
    }
    match tokio::time::timeout(terms.within, collected(body, room, terms.bodies_bytes_max)).await {
        Ok(read) => read,
        Err(_elapsed) => Err(Refusal::UploadSlow { within: terms.within }),
    }
}

/// Reads a body for nothing, as far as one may go: its sender would not read a refusal before, but
/// for one who asks first.
pub(crate) async fn discard(headers: &HeaderMap, body: Incoming, within: Duration) {
    if headers.contains_key(EXPECT) {
        return;
    }
    // Who takes longer finds the connection closed.
    let _ = tokio::time::timeout(within, skip(&mut Limited::new(body, BODY_BYTES_MAX))).await;
}

async fn skip(body: &mut Limited<Incoming>) {
    while let Some(Ok(_)) = body.frame().await {}
}

async fn collected(body: Incoming, room: &Arc<Room>, bytes_max: u64) -> Result<(Bytes, Share), Refusal> {
    let mut body = Limited::new(body, BODY_BYTES_MAX);
    let mut share = Share { room: Arc::clone(room), bytes: 0 };
    // Most bodies come at once, and are not copied.
    let (mut first, mut text) = (Bytes::new(), BytesMut::new());
    while let Some(frame) = body.frame().await {
        let frame = frame.map_err(|error| match error.is::<LengthLimitError>() {
            true => Refusal::BodyTooLarge { bytes_max: BODY_BYTES_MAX },
            false => Refusal::BodyBroken,
        })?;
        // Trailers say nothing here.
        let Ok(data) = frame.into_data() else { continue };
        if !share.grow(data.len() as u64, bytes_max) {
            drop((first, text, share));
            skip(&mut body).await;
            return Err(Refusal::NoRoom);
        }
        if first.is_empty() && text.is_empty() {
            first = data;
            continue;
        }
        text.extend_from_slice(&std::mem::take(&mut first));
        text.extend_from_slice(&data);
    }
    Ok((if text.is_empty() { first } else { text.freeze() }, share))
}

// === impl Share ===

impl Share {
    /// So much more, if all of them keep to `bytes_max` then.
    fn grow(&mut self, bytes: u64, bytes_max: u64) -> bool {
        let grown = |all: u64| all.checked_add(bytes).filter(|all| *all <= bytes_max);
        let fits = self.room.bytes.fetch_update(Ordering::Relaxed, Ordering::Relaxed, grown).is_ok();
        if fits {
            self.bytes += bytes;
        }
        fits
    }
}

impl Drop for Share {
    fn drop(&mut self) {
        self.room.bytes.fetch_sub(self.bytes, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_shares_together_keep_to_the_room() {
        let room = Arc::new(Room::default());
        let share = || Share { room: Arc::clone(&room), bytes: 0 };
        let (mut one, mut other) = (share(), share());
        assert!(one.grow(60, 100) && other.grow(40, 100));
        assert!(!one.grow(1, 100) && !other.grow(u64::MAX, 100));
        assert!(one.grow(1, 101), "a reload may make it larger");
        assert!(!other.grow(1, 50), "or smaller");
        drop(one);
        assert!(other.grow(60, 100));
        drop(other);
        assert_eq!(room.bytes.load(Ordering::Relaxed), 0);
    }
}
