//! What each vendor was told to do, and which of its faults is next.

use std::collections::{HashMap, VecDeque};
use std::num::{NonZeroU16, NonZeroUsize};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::watch;

use crate::chaos::Chaos;
use crate::fault::Fault;

/// Most vendors with a script: 1,000. A test plays a handful; the bound is
/// for the loop that makes up a new name each time.
const VENDORS_MAX: usize = 1_000;

/// A vendor's script. The default one takes any key and any model, and echoes.
#[derive(Clone, Debug, Default, serde::Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Script {
    /// The one key that is let in; without it, any that is not empty.
    pub key: Option<String>,
    /// The Anthropic wire takes a key in an Authorization header too, which is
    /// where anthropic-python 2 puts it.
    pub bearer: bool,
    /// The text of every answer; without it, what the user said.
    pub reply: Option<String>,
    /// What is thought first, where thoughts are shown.
    pub thinking: Option<String>,
    /// Tools are called even if they only may be, unless one was answered just now.
    pub calls: bool,
    /// Calls made at once; without it, 1.
    pub parallel_calls: Option<NonZeroU16>,
    pub usage: UsageScript,
    /// The models there are; without it, any.
    pub models: Option<Vec<String>>,
    pub sse: SseStyle,
    /// Taken by requests for an answer, in this order.
    pub faults: VecDeque<Fault>,
    /// What may hit a request that takes none of these.
    pub chaos: Option<Chaos>,
}

/// Tokens that are billed and reported beside those that can be counted.
#[derive(Clone, Copy, Debug, Default, serde::Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct UsageScript {
    /// Of a prompt before the messages, read from a cache.
    pub cached_input: u32,
    /// Of a prompt before the messages, written to a cache.
    pub cache_write: u32,
    /// Thought and not shown; part of what `max_tokens` allows.
    pub reasoning: u32,
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

/// The scripts of all vendors in this process.
#[derive(Default)]
pub(crate) struct Scripts {
    by_vendor: Mutex<HashMap<String, Directed>>,
    changed: watch::Sender<()>,
}

/// There are as many scripted vendors as there may be.
#[derive(Debug)]
pub(crate) struct TooManyVendors;

#[derive(Default)]
struct Directed {
    script: Arc<Script>,
    faults_left: VecDeque<Fault>,
    /// Requests for an answer since the script was set.
    requests: u64,
}

// === impl Scripts ===

impl Scripts {
    /// Replaces the vendor's script, faults that were left over included.
    pub(crate) fn set(&self, vendor: &str, script: Script) -> Result<(), TooManyVendors> {
        let mut scripts = self.lock();
        if scripts.len() >= VENDORS_MAX && !scripts.contains_key(vendor) {
            return Err(TooManyVendors);
        }
        let directed = Directed { faults_left: script.faults.clone(), script: Arc::new(script), requests: 0 };
        scripts.insert(vendor.to_owned(), directed);
        drop(scripts);
        self.changed.send_replace(());
        Ok(())
    }

    pub(crate) fn reset(&self, vendor: &str) {
        self.lock().remove(vendor);
        self.changed.send_replace(());
    }

    /// Returns when the vendor has another script than this one.
    pub(crate) async fn replaced(&self, vendor: &str, script: &Arc<Script>) {
        let mut changes = self.changed.subscribe();
        while Arc::ptr_eq(&self.of(vendor), script) {
            if changes.changed().await.is_err() {
                return; // the sender is ours: it outlives this borrow
            }
        }
    }

    pub(crate) fn of(&self, vendor: &str) -> Arc<Script> {
        let scripts = self.lock();
        scripts.get(vendor).map(|directed| Arc::clone(&directed.script)).unwrap_or_default()
    }

    /// Takes one turn of the vendor's next fault, or draws one if there is none left.
    pub(crate) fn next_fault(&self, vendor: &str) -> Option<Fault> {
        let mut scripts = self.lock();
        let Directed { script, faults_left, requests } = scripts.get_mut(vendor)?;
        *requests += 1;
        let Some(next) = faults_left.front_mut() else {
            return script.chaos.as_ref()?.draw(*requests).cloned();
        };
        let fault = next.clone();
        match next.times_left() {
            0 => (), // for ever
            1 => drop(faults_left.pop_front()),
            times => *times -= 1,
        }
        Some(fault)
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<String, Directed>> {
        self.by_vendor.lock().unwrap_or_else(PoisonError::into_inner)
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

#[cfg(test)]
mod tests {
    use super::{Script, Scripts};
    use crate::fault::FaultKind;

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
            (r#"{"faults": [{"kind": "ignore_limit", "words": 1000001}]}"#, "1000000"),
            (r#"{"parallel_calls": 0}"#, "nonzero"),
            (r#"{"usage": {"cached": 1}}"#, "cached"),
            (r#"{"chaos": {"seed": 1, "permille": 1001, "kinds": [{"kind": "empty"}]}}"#, "1001"),
            (r#"{"chaos": {"seed": 1, "permille": 1, "kinds": []}}"#, "kinds"),
        ];
        for (json, named) in wrong {
            let message = script(json).unwrap_err().to_string();
            assert!(message.contains(named), "{json}: {message}");
        }
    }
}
