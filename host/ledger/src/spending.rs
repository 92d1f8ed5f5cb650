//! Holds and settlements: in memory, within what is leased, in the journal before anything is sent.
//!
//! Who needs more than is leased waits for the store once; nobody else waits for it.

use std::collections::HashMap;
use std::io;
use std::path::Path;
use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::mpsc::{SyncSender, TrySendError, sync_channel};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::thread::JoinHandle;
use std::time::Instant;

use rustc_hash::FxHashMap;
use sluice_core::books::{AccountId, Books, Cap, Mode, Rest, Short};
use sluice_core::money::NanoUsd;
use smallvec::SmallVec;
use tokio::sync::oneshot;

use crate::budget::{AccountKey, Caps, Drawn};
use crate::figures::Unresolved;
use crate::hold::{Attempt, Hold, Totals};
use crate::journal::{Accounts, Held, HoldId, Journal, Record, Written};
use crate::recovery::{Found, RecoveryError, recover};
use crate::rows::Row;
use crate::rules::AskRules;
use crate::runs::RunRefused;
use crate::store::Store;
use crate::waiters::Waiter;
use crate::writer::{self, Message};

/// Calls that may wait for the store to take their rows; beyond, no new money is spent.
const QUEUE_MAX: usize = 200_000;

/// Requests that may wait for a lease at once.
const WAITING_MAX: usize = 4096;

/// Holds money, and settles what it came to. Cheap to share.
pub struct Spending {
    pub(crate) inner: Mutex<Inner>,
    messages: SyncSender<Message>,
    pub(crate) node: String,
    pub(crate) totals: Totals,
    clock_s: AtomicI64,
    pub(crate) rules: OnceLock<AskRules>,
    writer: Mutex<Option<JoinHandle<()>>>,
}

/// All that one lock guards.
pub(crate) struct Inner {
    pub(crate) books: Books,
    pub(crate) known: HashMap<AccountKey, AccountId>,
    /// What accounts go by, whatever a request has read before.
    caps: Caps,
    /// Caps have changed: what is leased by those before goes back with the next batch.
    pub(crate) caps_changed: bool,
    pub(crate) journal: Journal,
    pub(crate) open: FxHashMap<HoldId, Held>,
    pub(crate) queue: Queue,
    pub(crate) next_hold: u64,
    pub(crate) in_doubt: Unresolved,
    /// Why the store or the journal took nothing when it was tried last.
    pub(crate) trouble: Option<&'static str>,
}

/// What the store does not know yet.
#[derive(Default)]
pub(crate) struct Queue {
    pub(crate) charges: Vec<(Accounts, NanoUsd)>,
    #[expect(clippy::vec_box, reason = "a list that grows under the lock copies what it has")]
    pub(crate) rows: Vec<Box<Row>>,
}

/// Why nothing is held.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum NotHeld {
    /// What others hold may come back.
    Held(Box<Refused>),
    /// Nothing comes back before the window ends.
    Exhausted(Box<Refused>),
    /// The run has ended, or is one too many.
    Run(Box<RunRefused>),
    /// The store or the journal does not take it.
    Store(&'static str),
}

/// An account that refuses.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refused {
    /// Which.
    pub account: Drawn,
    /// What is left of it.
    pub rest: Rest,
    /// What was wanted.
    pub amount: NanoUsd,
}

impl Spending {
    /// Opens what is in this folder, takes up what the process before left, and starts to write.
    /// `boot` names the start of the machine.
    ///
    /// # Errors
    ///
    /// [`RecoveryError`] that says what is in the way.
    pub fn open(folder: &Path, boot: &str, now_ms: u64) -> Result<(Arc<Spending>, Found), RecoveryError> {
        let mut store = Store::open(&folder.join("sluice.db"))?;
        // One process writes to a folder.
        let node = String::from("0");
        let (journal, found) = recover(&mut store, &folder.join("journal"), &node, boot, now_ms)?;
        let (messages, inbox) = sync_channel(WAITING_MAX);
        let inner = Inner {
            books: Books::default(),
            known: HashMap::new(),
            caps: Caps::new(),
            caps_changed: false,
            journal,
            open: FxHashMap::default(),
            queue: Queue::default(),
            next_hold: found.next_hold,
            in_doubt: store.in_doubt_now().unwrap_or_default(),
            trouble: None,
        };
        let spending = Arc::new(Spending {
            inner: Mutex::new(inner),
            messages,
            node,
            totals: Totals::default(),
            clock_s: AtomicI64::new(found.clock_s.unwrap_or(0)),
            rules: OnceLock::new(),
            writer: Mutex::new(None),
        });
        let journal_folder = folder.join("journal");
        let thread = writer::start(store, journal_folder, Arc::downgrade(&spending), inbox);
        let thread = thread
            .map_err(|source| RecoveryError::Journal { folder: folder.display().to_string(), source })?;
        *lock(&spending.writer) = Some(thread);
        Ok((spending, found))
    }

    /// Holds `amount` on all of these accounts, or on none.
    ///
    /// # Errors
    ///
    /// [`NotHeld`]; nothing is held then.
    pub async fn hold(
        self: &Arc<Spending>,
        drawn: &[Drawn],
        amount: NanoUsd,
        attempt: Attempt,
    ) -> Result<Hold, NotHeld> {
        match self.try_hold(&mut self.lock(), drawn, amount, &attempt, false) {
            Err(Tried::AskStore) => {}
            Err(Tried::Not(why)) => return Err(why),
            Ok(hold) => return Ok(hold),
        }
        let (waiter, answered) = Waiter::new(drawn, amount, attempt);
        self.messages.try_send(Message::Wait(waiter)).map_err(|error| match error {
            TrySendError::Full(_) => NotHeld::Store("busy"),
            TrySendError::Disconnected(_) => NotHeld::Store("stopped"),
        })?;
        answered.await.unwrap_or(Err(NotHeld::Store("stopped")))
    }

    /// `asked`: the store was, just now.
    pub(crate) fn try_hold(
        self: &Arc<Spending>,
        inner: &mut Inner,
        drawn: &[Drawn],
        amount: NanoUsd,
        attempt: &Attempt,
        asked: bool,
    ) -> Result<Hold, Tried> {
        if inner.queue.rows.len() >= QUEUE_MAX {
            return Err(Tried::Not(NotHeld::Store(inner.trouble.unwrap_or("behind"))));
        }
        let mut accounts = Accounts::new();
        for one in drawn {
            let id = match inner.known.get(&one.key) {
                Some(id) => *id,
                // Of a run that has ended, or is one too many: a shadow does not see it.
                None if asked && one.budget.mode == Mode::Shadow => continue,
                None => return Err(Tried::AskStore),
            };
            accounts.push(id);
        }
        accounts.sort_unstable();
        // Whoever names one twice has one call on it.
        accounts.dedup();
        let now = Instant::now();
        match inner.books.hold(&accounts, amount, asked, now) {
            Ok(()) => {}
            Err(Short::Lease(_)) => return Err(Tried::AskStore),
            Err(Short::Held(id)) => return Err(inner.refusal(drawn, id, amount, NotHeld::Held)),
            Err(Short::Exhausted(id)) => return Err(inner.refusal(drawn, id, amount, NotHeld::Exhausted)),
        }
        let id = HoldId(inner.next_hold);
        inner.next_hold += 1;
        let held = Held {
            id,
            accounts: accounts.iter().map(|id| id.0).collect::<SmallVec<_>>(),
            amount: amount.nanos(),
            at_ms: attempt.at_ms,
            request: attempt.request.clone(),
            attempt: attempt.name.clone(),
        };
        let record = Record::Held(held);
        if let Err(error) = inner.journal.append(&record) {
            inner.books.settle(&accounts, amount, NanoUsd::ZERO);
            let why = why(&error);
            inner.trouble = Some(why);
            return Err(Tried::Not(NotHeld::Store(why)));
        }
        if let Record::Held(held) = record {
            inner.open.insert(id, held);
        }
        Ok(Hold { spending: Arc::clone(self), id, accounts, amount, sent: false, ended: false })
    }

    /// A call has ended whose row no settlement took along.
    pub fn passed(&self, row: Box<Row>) {
        let has_cost = row.cost > 0;
        let record = Record::Passed(row);
        let written = has_cost.then(|| Written::new(&record));
        let mut inner = self.lock();
        if let Some(Err(error)) = written.map(|written| inner.journal.append_written(written)) {
            inner.trouble = Some(why(&error));
        }
        // Rows are not money: where the store is behind, they are the first to go.
        if let (Record::Passed(row), true) = (record, inner.queue.rows.len() < QUEUE_MAX) {
            inner.queue.rows.push(row);
        }
    }

    /// Budgets have got to this time, in seconds since the Unix epoch: a window that has begun is
    /// never left for the one before.
    pub fn keep_clock(&self, seconds: i64) {
        self.clock_s.store(seconds, Ordering::Relaxed);
    }

    pub(crate) fn clock_s(&self) -> i64 {
        self.clock_s.load(Ordering::Relaxed)
    }

    /// What is left of an account; none before something was held on it.
    pub fn rest(&self, key: &AccountKey) -> Option<Rest> {
        let inner = self.lock();
        inner.books.rest(*inner.known.get(key)?)
    }

    /// The operator has these caps from now on. They hold when this returns, for what is leased too, and
    /// for who has read the configuration before. A budget that is not among them goes by what is drawn
    /// on. Waits for nothing.
    pub fn go_by(&self, caps: Caps) {
        let mut inner = self.lock();
        let Inner { books, known, .. } = &mut *inner;
        for (key, id) in known {
            if let Some(cap) = caps.get(&key.budget) {
                books.go_by(*id, *cap);
            }
        }
        inner.caps = caps;
        inner.caps_changed = true;
    }

    /// When this returns, the store has all that has ended.
    ///
    /// # Errors
    ///
    /// Why the store does not take it.
    pub fn flush(&self) -> Result<(), &'static str> {
        let (answer, answered) = oneshot::channel();
        self.messages.send(Message::Flush { answer }).map_err(|_| "stopped")?;
        answered.blocking_recv().unwrap_or(Err("stopped"))
    }

    /// Writes what is there, gives all leases back, and ends in order. What is held then is in doubt
    /// at the next start.
    pub fn close(&self) {
        // Where nobody listens any more, it has ended.
        let _ = self.messages.send(Message::Close);
        let thread = lock(&self.writer).take();
        if thread.is_some_and(|thread| thread.join().is_err()) {
            tracing::error!("the writer of the ledger has died");
        }
    }

    /// As after some seconds: nothing is leased any more, but what is held.
    #[cfg(test)]
    pub(crate) fn rest_now(&self) {
        self.messages.send(Message::Rest).unwrap();
        self.flush().unwrap();
    }

    /// As if the process were killed: nothing more is written.
    #[cfg(test)]
    pub(crate) fn abandon(&self) {
        self.messages.send(Message::Abandon).unwrap();
        lock(&self.writer).take().unwrap().join().unwrap();
    }

    pub(crate) fn lock(&self) -> MutexGuard<'_, Inner> {
        lock(&self.inner)
    }
}

/// Why a hold was not taken at once.
pub(crate) enum Tried {
    AskStore,
    Not(NotHeld),
}

impl Inner {
    fn refusal(
        &self,
        drawn: &[Drawn],
        id: AccountId,
        amount: NanoUsd,
        kind: impl Fn(Box<Refused>) -> NotHeld,
    ) -> Tried {
        let account = drawn.iter().find(|one| self.known.get(&one.key) == Some(&id));
        match (account, self.books.rest(id)) {
            (Some(account), Some(rest)) => {
                Tried::Not(kind(Box::new(Refused { account: account.clone(), rest, amount })))
            }
            (Some(_) | None, _) => Tried::AskStore,
        }
    }

    /// The journal goes on in a new file, with what is open.
    pub(crate) fn next_segment(&mut self) -> io::Result<()> {
        self.journal.next_segment(self.open.values())
    }

    /// What an account goes by now.
    pub(crate) fn cap_of(&self, key: &AccountKey, drawn: Cap) -> Cap {
        self.caps.get(&key.budget).copied().unwrap_or(drawn)
    }

    /// An account's number is known from now on.
    pub(crate) fn learn(&mut self, key: AccountKey, id: AccountId) {
        self.known.insert(key, id);
    }

    /// Accounts that the books have forgotten.
    pub(crate) fn forget(&mut self) {
        let books = &self.books;
        if self.known.len() > books.len() {
            self.known.retain(|_, id| books.rest(*id).is_some());
        }
    }
}

/// One word for what the journal says.
pub(crate) fn why(error: &io::Error) -> &'static str {
    match error.kind() {
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => "full",
        io::ErrorKind::ReadOnlyFilesystem | io::ErrorKind::PermissionDenied => "read_only",
        _ => "broken",
    }
}

/// What a panic leaves behind is looked at by nobody: a hold that was half taken stays held.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests;
