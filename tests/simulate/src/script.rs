//! What each vendor was told to do, and which of its faults is next.

use std::collections::{HashMap, VecDeque};
use std::fmt;
use std::num::NonZeroUsize;
use std::sync::{Arc, Mutex, PoisonError};

use http::{HeaderName, HeaderValue, StatusCode};
use serde::de::{Deserialize, Deserializer, Error};

/// Most vendors with a script: 1,000. A test plays a handful; the bound is
/// for the loop that makes up a new name each time.
const VENDORS_MAX: usize = 1_000;

/// A vendor's script. The default one takes any key and any model, and echoes.
#[derive(Clone, Debug, Default, serde::Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Script {
    /// The one key that is let in; without it, any that is not empty.
    pub key: Option<String>,
    /// The text of every answer; without it, what the user said.
    pub reply: Option<String>,
    /// The models there are; without it, any.
    pub models: Option<Vec<String>>,
    pub sse: SseStyle,
    /// Taken by requests for chat completions, in this order.
    pub faults: VecDeque<Fault>,
}

/// How a stream is written. All of it is legal SSE.
#[derive(Clone, Debug, Default, serde::Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct SseStyle {
    pub newline: Newline,
    /// A comment with each event: before it and within it, by turns.
    pub comments: bool,
    /// An event's JSON over several `data:` lines.
    pub multi_line_data: bool,
    /// Streams leave in chunks of so many bytes; without it, of one event.
    pub chunk_bytes: Option<NonZeroUsize>,
}

/// What ends a line of a stream.
#[derive(Clone, Copy, Debug, Default, serde::Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Newline {
    #[default]
    Lf,
    Crlf,
    Cr,
}

/// One thing to go wrong, `times` in a row; 0 is for ever.
#[derive(Clone, Debug, serde::Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case", deny_unknown_fields)]
pub enum Fault {
    /// Answers this instead. Without a body, OpenAI's error envelope.
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
    /// Says nothing from that moment on, until the client leaves.
    Hang {
        at: Moment,
        #[serde(default = "one_event")]
        events: NonZeroUsize,
        #[serde(default = "once")]
        times: u32,
    },
    /// Resets the TCP connection at that moment.
    Reset {
        at: Moment,
        #[serde(default = "one_event")]
        events: NonZeroUsize,
        #[serde(default = "once")]
        times: u32,
    },
    /// Answers normally, in chunks of so many bytes, each flushed by itself.
    Split {
        bytes: NonZeroUsize,
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
    Hang,
    Reset,
    Split,
}

/// The scripts of all vendors in this process.
#[derive(Default)]
pub(crate) struct Scripts(Mutex<HashMap<String, Directed>>);

/// There are as many scripted vendors as there may be.
#[derive(Debug)]
pub(crate) struct TooManyVendors;

#[derive(Default)]
struct Directed {
    script: Arc<Script>,
    faults_left: VecDeque<Fault>,
}

// === impl Scripts ===

impl Scripts {
    /// Replaces the vendor's script, faults that were left over included.
    pub(crate) fn set(&self, vendor: &str, script: Script) -> Result<(), TooManyVendors> {
        let mut scripts = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if scripts.len() >= VENDORS_MAX && !scripts.contains_key(vendor) {
            return Err(TooManyVendors);
        }
        let directed = Directed { faults_left: script.faults.clone(), script: Arc::new(script) };
        scripts.insert(vendor.to_owned(), directed);
        Ok(())
    }

    pub(crate) fn reset(&self, vendor: &str) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).remove(vendor);
    }

    pub(crate) fn of(&self, vendor: &str) -> Arc<Script> {
        let scripts = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        scripts.get(vendor).map(|directed| Arc::clone(&directed.script)).unwrap_or_default()
    }

    /// Takes one turn of the vendor's next fault.
    pub(crate) fn next_fault(&self, vendor: &str) -> Option<Fault> {
        let mut scripts = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let faults = &mut scripts.get_mut(vendor)?.faults_left;
        let fault = faults.front()?.clone();
        match faults.front_mut()?.times_left() {
            0 => (), // for ever
            1 => drop(faults.pop_front()),
            times => *times -= 1,
        }
        Some(fault)
    }
}

// === impl Fault ===

impl Fault {
    pub(crate) fn kind(&self) -> FaultKind {
        match self {
            Fault::Status { .. } => FaultKind::Status,
            Fault::Delay { .. } => FaultKind::Delay,
            Fault::Hang { .. } => FaultKind::Hang,
            Fault::Reset { .. } => FaultKind::Reset,
            Fault::Split { .. } => FaultKind::Split,
        }
    }

    fn times_left(&mut self) -> &mut u32 {
        match self {
            Fault::Status { times, .. }
            | Fault::Delay { times, .. }
            | Fault::Hang { times, .. }
            | Fault::Reset { times, .. }
            | Fault::Split { times, .. } => times,
        }
    }
}

impl fmt::Display for FaultKind {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(match self {
            FaultKind::Status => "status",
            FaultKind::Delay => "delay",
            FaultKind::Hang => "hang",
            FaultKind::Reset => "reset",
            FaultKind::Split => "split",
        })
    }
}

// === impl Newline ===

impl Newline {
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Newline::Lf => "\n",
            Newline::Crlf => "\r\n",
            Newline::Cr => "\r",
        }
    }
}

fn once() -> u32 {
    1
}

fn one_event() -> NonZeroUsize {
    NonZeroUsize::MIN
}

/// A final status: 1xx would not end the exchange.
fn status<'de, D: Deserializer<'de>>(deserializer: D) -> Result<StatusCode, D::Error> {
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

#[cfg(test)]
mod tests {
    use super::{FaultKind, Script, Scripts};

    fn script(json: &str) -> Result<Script, serde_json::Error> {
        serde_json::from_str(json)
    }

    #[test]
    fn faults_are_taken_in_order_each_as_often_as_said() {
        let scripts = Scripts::default();
        let faults = r#"{"faults": [
            {"kind": "delay", "ms": 1, "times": 2},
            {"kind": "split", "bytes": 1},
            {"kind": "status", "status": 500, "times": 0}]}"#;
        scripts.set("a", script(faults).unwrap()).unwrap();
        let taken: Vec<_> = (0..6).map(|_| scripts.next_fault("a").map(|fault| fault.kind())).collect();
        let [delay, split, status] = [FaultKind::Delay, FaultKind::Split, FaultKind::Status].map(Some);
        assert_eq!(taken, [delay, delay, split, status, status, status]);
        assert!(scripts.next_fault("b").is_none());
        scripts.reset("a");
        assert!(scripts.next_fault("a").is_none());
    }

    #[test]
    fn a_wrong_script_is_refused_by_name() {
        let wrong = [
            (r#"{"replly": "x"}"#, "replly"),
            (r#"{"sse": {"new_line": "lf"}}"#, "new_line"),
            (r#"{"sse": {"newline": "lfcr"}}"#, "lfcr"),
            (r#"{"sse": {"chunk_bytes": 0}}"#, "nonzero"),
            (r#"{"faults": [{"kind": "delay", "ms": 1, "status": 500}]}"#, "status"),
            (r#"{"faults": [{"kind": "explode"}]}"#, "explode"),
            (r#"{"faults": [{"kind": "status", "status": 101}]}"#, "101"),
            (r#"{"faults": [{"kind": "status", "status": 500, "headers": [["a b", "c"]]}]}"#, "a b"),
            (r#"{"faults": [{"kind": "hang"}]}"#, "at"),
        ];
        for (json, named) in wrong {
            let message = script(json).unwrap_err().to_string();
            assert!(message.contains(named), "{json}: {message}");
        }
    }
}
