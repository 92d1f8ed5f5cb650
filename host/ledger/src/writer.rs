//! The one thread that writes to the store: settlements, rows and leases, in batches.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Weak;
use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use sluice_core::books::{AccountId, Grant};
use sluice_core::money::NanoUsd;
use tokio::sync::oneshot;

use crate::budget::{AccountKey, Drawn};
use crate::journal::{Journal, Position, SEGMENT_BYTES};
use crate::recovery::{set_clean, set_clock, set_position};
use crate::retention::{LIMIT_BYTES, Next, Retention};
use crate::spending::{Queue, Spending};
use crate::store::{Store, StoreError};

/// Between two batches, where nobody waits for a lease.
const FLUSH_EVERY: Duration = Duration::from_millis(100);

/// Between two looks at leases that nobody draws on.
const IDLE_EVERY: Duration = Duration::from_secs(1);

/// Between two looks at the size of the database.
const ROOM_EVERY: Duration = Duration::from_secs(60);

/// Those who wait for a lease, in one batch.
const REFILLS_MAX: usize = 256;

/// What the writer is asked for.
pub(crate) enum Message {
    /// Accounts that a hold needs more of.
    Refill {
        drawn: Vec<Drawn>,
        amount: NanoUsd,
        answer: Answer,
    },
    ReturnLeases {
        answer: Answer,
    },
    Flush {
        answer: Answer,
    },
    Close,
    #[cfg(test)]
    Abandon,
    #[cfg(test)]
    With(With),
}

/// Done, or why not.
type Answer = oneshot::Sender<Result<(), &'static str>>;

/// Done to the store between two batches.
#[cfg(test)]
pub(crate) type With = Box<dyn FnOnce(&Store) + Send>;

struct Writer {
    store: Store,
    folder: PathBuf,
    inbox: Receiver<Message>,
    looked_at: Instant,
    retention: Retention,
    looks_at_room: Instant,
}

/// One batch's work.
#[derive(Default)]
struct Work {
    refills: Vec<(Vec<Drawn>, NanoUsd, Answer)>,
    answers: Vec<Answer>,
    back: Vec<(AccountId, NanoUsd)>,
    all_back: bool,
    close: bool,
    #[cfg(test)]
    with: Vec<With>,
}

/// A lease that the store has given.
struct Leased {
    key: AccountKey,
    id: AccountId,
    grant: Grant,
}

pub(crate) fn start(
    store: Store,
    folder: PathBuf,
    spending: Weak<Spending>,
    inbox: Receiver<Message>,
) -> io::Result<JoinHandle<()>> {
    let (now, retention) = (Instant::now(), Retention::new(LIMIT_BYTES));
    let writer = Writer { store, folder, inbox, looked_at: now, retention, looks_at_room: now + ROOM_EVERY };
    std::thread::Builder::new().name("ledger".into()).spawn(move || writer.run(&spending))
}

impl Writer {
    fn run(mut self, spending: &Weak<Spending>) {
        loop {
            let mut work = Work::default();
            match self.inbox.recv_timeout(FLUSH_EVERY) {
                #[cfg(test)]
                Ok(Message::Abandon) => return,
                Ok(message) => work.take(message),
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => return,
            }
            while work.refills.len() < REFILLS_MAX && !work.close {
                match self.inbox.try_recv() {
                    Ok(message) => work.take(message),
                    Err(_none) => break,
                }
            }
            let Some(spending) = spending.upgrade() else { return };
            let close = work.close;
            #[cfg(test)]
            work.with.drain(..).for_each(|with| with(&self.store));
            self.batch(&spending, work);
            if close {
                return;
            }
            self.make_room();
        }
    }

    /// Keeps the database within its share of the disk, a little at a time.
    fn make_room(&mut self) {
        let now = Instant::now();
        if now < self.looks_at_room {
            return;
        }
        // Windows are not known here: accounts stay, calls and sums go.
        let step = self.retention.step(&mut self.store, unix_ms(), &|_| None);
        let next = step.as_ref().map_or(Next::Enough, |report| report.next);
        self.looks_at_room = now + if next == Next::More { FLUSH_EVERY } else { ROOM_EVERY };
        if let Ok(report) = &step
            && report.reached
        {
            let bytes = report.size.all_bytes();
            tracing::warn!(bytes, "the ledger has reached its share of the disk: the oldest calls go");
        }
    }

    fn batch(&mut self, spending: &Spending, mut work: Work) {
        let now = Instant::now();
        let look = now.saturating_duration_since(self.looked_at) >= IDLE_EVERY;
        let (queue, position, next_hold) = {
            let mut inner = spending.lock();
            if work.all_back || work.close {
                work.back = inner.books.all_free();
            } else if look {
                self.looked_at = now;
                work.back = inner.books.idle(now);
            }
            (std::mem::take(&mut inner.queue), inner.journal.position(), inner.next_hold)
        };
        let idle = work.refills.is_empty() && work.back.is_empty() && work.answers.is_empty() && !work.close;
        if idle && queue.charges.is_empty() && queue.rows.is_empty() {
            spending.lock().forget();
            return;
        }
        match self.write(spending, &queue, &work, position, next_hold) {
            Ok(leased) => self.done(spending, &queue, leased, work, position),
            Err(error) => failed(spending, queue, work, &error),
        }
    }

    fn write(
        &mut self,
        spending: &Spending,
        queue: &Queue,
        work: &Work,
        position: Position,
        next_hold: u64,
    ) -> Result<Vec<Leased>, StoreError> {
        let node = &spending.node;
        // A lease that the power took back could be spent and forgotten; a settlement cannot: what it
        // leaves is leased, and in doubt.
        self.store.sync(!work.refills.is_empty())?;
        let batch = self.store.batch()?;
        for (id, charge) in sums(queue) {
            batch.settle(node, id, charge)?;
        }
        batch.add_rows(&queue.rows)?;
        for (id, free) in &work.back {
            batch.give_back(node, *id, *free)?;
        }
        let mut leased: Vec<Leased> = Vec::new();
        for (drawn, amount, _) in &work.refills {
            for one in drawn {
                let given = leased.iter().filter(|lease| lease.key == one.key);
                let given = given.fold(NanoUsd::ZERO, |sum, lease| sum.saturating_add(lease.grant.leased));
                let free = {
                    let inner = spending.lock();
                    inner.id_of(&one.key).map_or(NanoUsd::ZERO, |id| inner.books.free(id))
                };
                let lacking = amount.saturating_sub(free.saturating_add(given));
                let (account, grant) = batch.lease(node, &one.key, &one.budget, lacking)?;
                leased.push(Leased { key: one.key.clone(), id: account.id, grant });
            }
        }
        set_position(&batch, position, next_hold)?;
        set_clock(&batch, spending.clock_s())?;
        if work.close {
            set_clean(&batch)?;
        }
        batch.commit()?;
        Ok(leased)
    }

    fn done(
        &mut self,
        spending: &Spending,
        queue: &Queue,
        leased: Vec<Leased>,
        work: Work,
        position: Position,
    ) {
        let now = Instant::now();
        let mut inner = spending.lock();
        for (id, charge) in sums(queue) {
            inner.books.stored(id, charge);
        }
        for Leased { key, id, grant } in leased {
            inner.learn(key, id);
            inner.books.granted(id, grant, now);
        }
        inner.forget();
        inner.trouble = None;
        let long = inner.journal.position().offset > SEGMENT_BYTES;
        if long && let Err(error) = inner.next_segment() {
            tracing::warn!(%error, "the journal's next segment cannot be begun");
        }
        drop(inner);
        if position.segment > 1 {
            Journal::forget_before(Path::new(&self.folder), position.segment);
        }
        for answer in work.answers.into_iter().chain(work.refills.into_iter().map(|(_, _, answer)| answer)) {
            // Who has left needs no answer.
            let _ = answer.send(Ok(()));
        }
    }
}

impl Work {
    fn take(&mut self, message: Message) {
        match message {
            Message::Refill { drawn, amount, answer } => self.refills.push((drawn, amount, answer)),
            Message::Flush { answer } => self.answers.push(answer),
            Message::ReturnLeases { answer } => {
                self.all_back = true;
                self.answers.push(answer);
            }
            Message::Close => self.close = true,
            #[cfg(test)]
            Message::Abandon => {}
            #[cfg(test)]
            Message::With(with) => self.with.push(with),
        }
    }
}

/// All is as it was: what was taken out goes back in front, and is tried again.
fn failed(spending: &Spending, mut queue: Queue, work: Work, error: &StoreError) {
    let code = error.code();
    let mut inner = spending.lock();
    for (id, free) in work.back {
        inner.books.keep(id, free);
    }
    queue.charges.append(&mut inner.queue.charges);
    queue.rows.append(&mut inner.queue.rows);
    inner.queue = queue;
    if inner.trouble.replace(code) != Some(code) {
        tracing::error!(reason = code, error = ?error, "the ledger cannot be written; nothing of it is lost");
    }
    drop(inner);
    for answer in work.answers.into_iter().chain(work.refills.into_iter().map(|(_, _, answer)| answer)) {
        let _ = answer.send(Err(code));
    }
}

fn unix_ms() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}

/// What each account is charged.
fn sums(queue: &Queue) -> Vec<(AccountId, NanoUsd)> {
    let mut sums = std::collections::BTreeMap::new();
    for (accounts, charge) in &queue.charges {
        for id in accounts {
            let sum: &mut NanoUsd = sums.entry(*id).or_default();
            *sum = sum.saturating_add(*charge);
        }
    }
    sums.into_iter().filter(|(_, charge)| *charge > NanoUsd::ZERO).collect()
}
