//! What a test has written into the component: one build gives as many versions as are wanted.

use std::hint::black_box;

/// Found by its beginning and overwritten, in the component's bytes.
#[used]
static MARK: [u8; 64] = *b"MARK:ok:                                                        ";

/// How to behave, and what to say.
pub fn mark() -> (&'static str, &'static str) {
    let mark: &'static [u8; 64] = black_box(&MARK);
    let text = std::str::from_utf8(mark).unwrap_or_default();
    let mut parts = text.trim_end().splitn(3, ':').skip(1);
    (parts.next().unwrap_or_default(), parts.next().unwrap_or_default())
}

/// Takes CPU time: about a nanosecond a turn.
pub fn burn(turns: u64) {
    for turn in 0..turns {
        black_box(turn);
    }
}

pub fn spin() -> ! {
    loop {
        burn(u64::MAX);
    }
}
