//! What can go wrong on order, as a script says it.

use std::fmt;
use std::num::NonZeroUsize;

use http::{HeaderName, HeaderValue, StatusCode};
use serde::de::{Deserialize, Deserializer, Error};

/// Most words of an answer that ignores its limit: a million, more than any
/// model may say at once.
const WORDS_MAX: u32 = 1_000_000;

/// Most bytes of a huge event: 256 MiB, far above what a gateway should hold.
const FRAME_BYTES_MAX: u32 = 256 * 1024 * 1024;

/// One thing to go wrong, `times` in a row; 0 is for ever.
#[derive(Clone, Debug, serde::Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case", deny_unknown_fields)]
pub enum Fault {
    /// Answers this instead. Without a body, the vendor's error envelope.
    Status {
        #[serde(deserialize_with = "status")]
        status: StatusCode,
        #[serde(default, deserialize_with = "headers")]
        headers: Vec<(HeaderName, HeaderValue)>,
        body: Option<String>,
        #[serde(default = "once")]
        times: u32,
    },
    /// Waits, then answers normally.
    Delay {
        ms: u32,
        #[serde(default = "once")]
        times: u32,
    },
    /// Waits until the vendor gets another script, then answers normally.
    Wait {
        #[serde(default = "once")]
        times: u32,
    },
    /// Says nothing from that moment on, until the client leaves.
    Hang {
        at: Moment,
        #[serde(default = "one_event")]
        events: usize,
        #[serde(default = "once")]
        times: u32,
    },
    /// Resets the TCP connection at that moment.
    Reset {
        at: Moment,
        #[serde(default = "one_event")]
        events: usize,
        #[serde(default = "once")]
        times: u32,
    },
    /// Answers normally, in chunks of so many bytes, each flushed by itself.
    Split {
        bytes: NonZeroUsize,
        #[serde(default = "once")]
        times: u32,
    },
    /// Breaks the JSON of the event after so many, or of the whole answer.
    MalformedJson {
        #[serde(default = "one_event")]
        events: usize,
        #[serde(default = "once")]
        times: u32,
    },
    /// Ends with bytes that are no SSE after so many events.
    MalformedSse {
        #[serde(default = "one_event")]
        events: usize,
        #[serde(default = "once")]
        times: u32,
    },
    /// Says 200 and then, after so many events, that there was an error.
    #[serde(rename = "error_in_200")]
    ErrorIn200 {
        #[serde(default)]
        events: usize,
        error_type: Option<String>,
        #[serde(default = "once")]
        times: u32,
    },
    /// Answers as a whole who asked for a stream.
    Unstreamed {
        #[serde(default = "once")]
        times: u32,
    },
    /// Says nothing about tokens.
    NoUsage {
        #[serde(default = "once")]
        times: u32,
    },
    /// Tells of one token each for the prompt and the answer.
    WrongUsage {
        #[serde(default = "once")]
        times: u32,
    },
    /// Says so many words, whatever the limit; waits before each event, if it is told to.
    IgnoreLimit {
        #[serde(deserialize_with = "at_most::<WORDS_MAX, _>")]
        words: u32,
        #[serde(default)]
        ms: u32,
        #[serde(default = "once")]
        times: u32,
    },
    /// Says 200 and ends.
    Empty {
        #[serde(default = "once")]
        times: u32,
    },
    /// Ends properly for HTTP after so many events, in the middle for anyone else.
    Cut {
        #[serde(default = "one_event")]
        events: usize,
        #[serde(default = "once")]
        times: u32,
    },
    /// Says one word of so many bytes, which is one event.
    HugeFrame {
        #[serde(deserialize_with = "at_most::<FRAME_BYTES_MAX, _>")]
        bytes: u32,
        #[serde(default = "once")]
        times: u32,
    },
    /// Waits before each event.
    Drip {
        ms: u32,
        #[serde(default = "once")]
        times: u32,
    },
}

/// When an answer breaks off.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Moment {
    /// Before anything is sent.
    Headers,
    /// After the headers and the first events, or half of an answer that is
    /// not streamed.
    Body,
}

/// A fault's name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "snake_case")]
pub enum FaultKind {
    Status,
    Delay,
    Wait,
    Hang,
    Reset,
    Split,
    MalformedJson,
    MalformedSse,
    #[serde(rename = "error_in_200")]
    ErrorIn200,
    Unstreamed,
    NoUsage,
    WrongUsage,
    IgnoreLimit,
    Empty,
    Cut,
    HugeFrame,
    Drip,
}

// === impl Fault ===

impl Fault {
    pub(crate) fn kind(&self) -> FaultKind {
        match self {
            Fault::Status { .. } => FaultKind::Status,
            Fault::Delay { .. } => FaultKind::Delay,
            Fault::Wait { .. } => FaultKind::Wait,
            Fault::Hang { .. } => FaultKind::Hang,
            Fault::Reset { .. } => FaultKind::Reset,
            Fault::Split { .. } => FaultKind::Split,
            Fault::MalformedJson { .. } => FaultKind::MalformedJson,
            Fault::MalformedSse { .. } => FaultKind::MalformedSse,
            Fault::ErrorIn200 { .. } => FaultKind::ErrorIn200,
            Fault::Unstreamed { .. } => FaultKind::Unstreamed,
            Fault::NoUsage { .. } => FaultKind::NoUsage,
            Fault::WrongUsage { .. } => FaultKind::WrongUsage,
            Fault::IgnoreLimit { .. } => FaultKind::IgnoreLimit,
            Fault::Empty { .. } => FaultKind::Empty,
            Fault::Cut { .. } => FaultKind::Cut,
            Fault::HugeFrame { .. } => FaultKind::HugeFrame,
            Fault::Drip { .. } => FaultKind::Drip,
        }
    }

    pub(crate) fn times_left(&mut self) -> &mut u32 {
        match self {
            Fault::Status { times, .. }
            | Fault::Delay { times, .. }
            | Fault::Wait { times }
            | Fault::Hang { times, .. }
            | Fault::Reset { times, .. }
            | Fault::Split { times, .. }
            | Fault::MalformedJson { times, .. }
            | Fault::MalformedSse { times, .. }
            | Fault::ErrorIn200 { times, .. }
            | Fault::Unstreamed { times }
            | Fault::NoUsage { times }
            | Fault::WrongUsage { times }
            | Fault::IgnoreLimit { times, .. }
            | Fault::Empty { times }
            | Fault::Cut { times, .. }
            | Fault::HugeFrame { times, .. }
            | Fault::Drip { times, .. } => times,
        }
    }
}

impl fmt::Display for FaultKind {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(match self {
            FaultKind::Status => "status",
            FaultKind::Delay => "delay",
            FaultKind::Wait => "wait",
            FaultKind::Hang => "hang",
            FaultKind::Reset => "reset",
            FaultKind::Split => "split",
            FaultKind::MalformedJson => "malformed_json",
            FaultKind::MalformedSse => "malformed_sse",
            FaultKind::ErrorIn200 => "error_in_200",
            FaultKind::Unstreamed => "unstreamed",
            FaultKind::NoUsage => "no_usage",
            FaultKind::WrongUsage => "wrong_usage",
            FaultKind::IgnoreLimit => "ignore_limit",
            FaultKind::Empty => "empty",
            FaultKind::Cut => "cut",
            FaultKind::HugeFrame => "huge_frame",
            FaultKind::Drip => "drip",
        })
    }
}

fn once() -> u32 {
    1
}

fn one_event() -> usize {
    1
}

/// A number of at most `MAX`.
pub(crate) fn at_most<'de, const MAX: u32, D: Deserializer<'de>>(deserializer: D) -> Result<u32, D::Error> {
    let number = u32::deserialize(deserializer)?;
    if number > MAX {
        return Err(D::Error::custom(format!("{number} is more than {MAX}")));
    }
    Ok(number)
}

/// A final status: 1xx would not end the exchange.
pub(crate) fn status<'de, D: Deserializer<'de>>(deserializer: D) -> Result<StatusCode, D::Error> {
    let number = u16::deserialize(deserializer)?;
    match StatusCode::from_u16(number) {
        Ok(status) if (200..600).contains(&number) => Ok(status),
        Ok(_) | Err(_) => Err(D::Error::custom(format!("status {number} is not in 200..=599"))),
    }
}

fn headers<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<(HeaderName, HeaderValue)>, D::Error> {
    let pairs = Vec::<(String, String)>::deserialize(deserializer)?;
    let checked = pairs.into_iter().map(|(name, value)| {
        let bad = |_| D::Error::custom(format!("{name:?}: {value:?} is not a header"));
        let checked_name = HeaderName::try_from(&name).map_err(|_| bad(()))?;
        let checked_value = HeaderValue::try_from(&value).map_err(|_| bad(()))?;
        Ok((checked_name, checked_value))
    });
    checked.collect()
}
