//! What the vendors saw and billed: the second opinion on what a gateway says.
//!
//! A request is an [`Entry`]: a row that is written to while it is served and
//! concluded once. Whoever wants to see an event in the books waits for it
//! with [`Books::wait`] instead of sleeping.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use bytes::Bytes;
use http::StatusCode;
use serde::Serialize;
use tokio::sync::watch;

use crate::fault::FaultKind;
use crate::row::{Billed, Outcome, Row};

/// Most rows kept: 100,000. More than any test asks for; a load test, which
/// asks for more, reads the totals.
const ROWS_MAX: usize = 100_000;

/// Most bytes of request bodies kept: 256 MiB. Rows alone bound nothing when
/// each may hold a long prompt. Requests that are under way may go beyond it.
const BODY_BYTES_MAX: usize = 256 * 1024 * 1024;

/// The books of all vendors in this process.
#[derive(Default)]
pub(crate) struct Books {
    state: Mutex<State>,
    changed: watch::Sender<()>,
}

/// The books at one moment.
#[derive(Clone, Debug, Serialize)]
pub struct Snapshot {
    pub totals: Totals,
    pub connections: Connections,
    /// Oldest first.
    pub rows: Vec<Row>,
}

/// Sums over all vendors since the books were cleared, left-out rows included.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Totals {
    pub requests: u64,
    pub complete: u64,
    pub client_gone: u64,
    pub fault: u64,
    pub prompt_tokens: u64,
    pub completion_tokens: u64,
    /// Requests that are counted here but have no row, because the books are full.
    pub rows_left_out: u64,
}

/// TCP connections since the start, but for those that a request of the
/// control API or to a market came on.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Connections {
    pub accepted: u64,
    pub open: u64,
}

/// What a reader of the books waits for, in rows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Goal {
    /// So many requests have come.
    Arrived(usize),
    /// So many requests have ended.
    Finished(usize),
}

/// A request's first line and headers.
pub(crate) struct Head {
    pub(crate) connection: u64,
    pub(crate) vendor: String,
    pub(crate) parts: http::request::Parts,
}

/// One request under way. Dropped before it is concluded, it ends as it was
/// [expected](Entry::expects) to: by default, the client is gone.
pub(crate) struct Entry {
    books: Arc<Books>,
    sequence: u64,
    arrived: Instant,
    expected: Outcome,
    concluded: bool,
}

/// One TCP connection, open until dropped.
pub(crate) struct ConnectionEntry {
    books: Arc<Books>,
    id: u64,
}

#[derive(Default)]
struct State {
    sequence_last: u64,
    /// Requests up to this one were cleared away; what they still do is not booked.
    sequence_cleared: u64,
    rows: Vec<Row>,
    body_bytes: usize,
    totals: Totals,
    connection_last: u64,
    accepted: u64,
    /// Open connections, and whether each is a control connection.
    open: BTreeMap<u64, bool>,
}

// === impl Books ===

impl Books {
    /// Begins a row.
    pub(crate) fn open(self: &Arc<Self>, head: &Head) -> Entry {
        let sequence = {
            let mut state = self.lock();
            state.sequence_last += 1;
            state.totals.requests += 1;
            let sequence = state.sequence_last;
            if state.rows.len() < ROWS_MAX && state.body_bytes < BODY_BYTES_MAX {
                state.rows.push(head.row(sequence));
            } else {
                state.totals.rows_left_out += 1;
            }
            sequence
        };
        self.changed.send_replace(());
        Entry {
            books: Arc::clone(self),
            sequence,
            arrived: Instant::now(),
            expected: Outcome::ClientGone,
            concluded: false,
        }
    }

    /// The books now; with a vendor, the rows of that one.
    pub(crate) fn snapshot(&self, vendor: Option<&str>) -> Snapshot {
        let state = self.lock();
        let open = state.open.values().filter(|control| !**control).count() as u64;
        Snapshot {
            totals: state.totals,
            connections: Connections { accepted: state.accepted, open },
            rows: state.rows_of(vendor).cloned().collect(),
        }
    }

    /// Forgets all rows and totals; connections are counted on.
    pub(crate) fn clear(&self) {
        let mut state = self.lock();
        state.sequence_cleared = state.sequence_last;
        state.rows.clear();
        state.body_bytes = 0;
        state.totals = Totals::default();
    }

    /// Returns when the goal is reached, with a vendor by its rows alone.
    pub(crate) async fn wait(&self, vendor: Option<&str>, goal: Goal) {
        let mut changes = self.changed.subscribe();
        while !self.lock().reached(vendor, goal) {
            if changes.changed().await.is_err() {
                return; // the sender is ours: it outlives this borrow
            }
        }
    }

    pub(crate) fn connection(self: &Arc<Self>) -> ConnectionEntry {
        let mut state = self.lock();
        state.connection_last += 1;
        state.accepted += 1;
        let id = state.connection_last;
        state.open.insert(id, false);
        ConnectionEntry { books: Arc::clone(self), id }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

// === impl State ===

impl State {
    fn rows_of(&self, vendor: Option<&str>) -> impl Iterator<Item = &Row> {
        self.rows.iter().filter(move |row| vendor.is_none_or(|vendor| row.vendor == vendor))
    }

    fn reached(&self, vendor: Option<&str>, goal: Goal) -> bool {
        match goal {
            Goal::Arrived(rows) => self.rows_of(vendor).count() >= rows,
            Goal::Finished(rows) => self.rows_of(vendor).filter(|row| row.outcome.is_some()).count() >= rows,
        }
    }

    fn row(&mut self, sequence: u64) -> Option<&mut Row> {
        let index = self.rows.binary_search_by_key(&sequence, |row| row.sequence).ok()?;
        self.rows.get_mut(index)
    }
}

// === impl Head ===

impl Head {
    fn row(&self, sequence: u64) -> Row {
        let Head { connection, vendor, parts } = self;
        let header = |(name, value): (&http::HeaderName, &http::HeaderValue)| {
            (name.as_str().to_owned(), String::from_utf8_lossy(value.as_bytes()).into_owned())
        };
        Row {
            sequence,
            connection: *connection,
            vendor: vendor.clone(),
            method: parts.method.to_string(),
            path: parts.uri.path().to_owned(),
            query: parts.uri.query().map(str::to_owned),
            version: format!("{:?}", parts.version),
            headers: parts.headers.iter().map(header).collect(),
            body: Bytes::new(),
            status: None,
            model: None,
            stream: None,
            fault: None,
            billed: Billed::default(),
            bytes_sent: 0,
            outcome: None,
            left_after_ms: None,
        }
    }
}

// === impl Entry ===

impl Entry {
    pub(crate) fn sequence(&self) -> u64 {
        self.sequence
    }

    pub(crate) fn body(&self, body: &Bytes) {
        let mut state = self.books.lock();
        let Some(row) = state.row(self.sequence) else { return };
        row.body = body.clone();
        state.body_bytes += body.len();
    }

    pub(crate) fn asks(&self, model: Option<&str>, stream: Option<bool>) {
        self.write(|row| {
            row.model = model.map(str::to_owned);
            row.stream = stream;
        });
    }

    pub(crate) fn takes(&self, fault: FaultKind) {
        self.write(|row| row.fault = Some(fault));
    }

    pub(crate) fn answers(&self, status: StatusCode) {
        self.write(|row| row.status = Some(status.as_u16()));
    }

    /// Adds to the bill and to the bytes sent.
    pub(crate) fn adds(&self, billed: Billed, bytes: u64) {
        let mut state = self.books.lock();
        if self.sequence <= state.sequence_cleared {
            return;
        }
        state.totals.prompt_tokens += billed.prompt_tokens;
        state.totals.completion_tokens += billed.completion_tokens;
        let Some(row) = state.row(self.sequence) else { return };
        row.billed.prompt_tokens += billed.prompt_tokens;
        row.billed.completion_tokens += billed.completion_tokens;
        row.bytes_sent += bytes;
    }

    /// Says how the request ends if it is dropped from now on.
    pub(crate) fn expects(&mut self, outcome: Outcome) {
        self.expected = outcome;
    }

    /// Ends the row. Only the first time counts.
    pub(crate) fn concludes(&mut self, outcome: Outcome) {
        self.ends(outcome, None);
    }

    fn ends(&mut self, outcome: Outcome, left_after_ms: Option<u64>) {
        if std::mem::replace(&mut self.concluded, true) {
            return;
        }
        {
            let mut state = self.books.lock();
            if self.sequence <= state.sequence_cleared {
                return;
            }
            match outcome {
                Outcome::Complete => state.totals.complete += 1,
                Outcome::ClientGone => state.totals.client_gone += 1,
                Outcome::Fault(_) => state.totals.fault += 1,
            }
            if let Some(row) = state.row(self.sequence) {
                row.outcome = Some(outcome);
                row.left_after_ms = left_after_ms;
            }
        }
        self.books.changed.send_replace(());
    }

    fn write(&self, change: impl FnOnce(&mut Row)) {
        if let Some(row) = self.books.lock().row(self.sequence) {
            change(row);
        }
    }
}

impl Drop for Entry {
    /// Whoever drops it early: the client, unless we reset its connection.
    fn drop(&mut self) {
        let left_after_ms = match self.expected {
            Outcome::Fault(FaultKind::Reset) => None,
            Outcome::Complete | Outcome::ClientGone | Outcome::Fault(_) => {
                u64::try_from(self.arrived.elapsed().as_millis()).ok()
            }
        };
        self.ends(self.expected, left_after_ms);
    }
}

// === impl ConnectionEntry ===

impl ConnectionEntry {
    pub(crate) fn id(&self) -> u64 {
        self.id
    }

    /// Takes the connection out of the count: it is a test's or a market's, not a vendor's.
    pub(crate) fn serves_control(&self) {
        let mut state = self.books.lock();
        if let Some(control @ false) = state.open.get_mut(&self.id) {
            *control = true;
            state.accepted -= 1;
        }
    }
}

impl Drop for ConnectionEntry {
    fn drop(&mut self) {
        self.books.lock().open.remove(&self.id);
    }
}

#[cfg(test)]
mod tests;
