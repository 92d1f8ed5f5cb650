//! The one thread that writes to the store: settlements, rows and leases, in batches; between them it
//! ends runs, and makes room.

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::sync::{Arc, Weak};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use sluice_core::books::AccountId;
use sluice_core::money::NanoUsd;
use tokio::sync::oneshot;

use crate::journal::{Journal, Position, SEGMENT_BYTES};
use crate::recovery::{set_clean, set_clock, set_position};
use crate::retention::Next;
use crate::room::Room;
use crate::rules::Rules;
use crate::runs::live::LiveRuns;
use crate::runs::{Entered, enter};
use crate::spending::{NotHeld, Queue, Spending};
use crate::store::{Store, StoreError};
use crate::waiters::{Asks, Reply, Waiter};

/// Between two rounds, where nobody waits for a lease.
const ROUND_EVERY: Duration = Duration::from_millis(100);

/// Where room has to be made: two thousand calls go each time, and under full load twenty thousand come
/// in a second.
const MORE_EVERY: Duration = Duration::from_millis(25);

/// Between two batches for which nobody waits there are so many times as long as the one before took:
/// under load they come less often, and what many calls do to one account is written once.
const REST_PER_WORK: u32 = 20;

/// But no longer than this. The journal has all of it meanwhile.
const REST_MAX: Duration = Duration::from_secs(2);

/// Between two looks at leases that nobody draws on.
const IDLE_EVERY: Duration = Duration::from_secs(1);

/// Those who wait for a lease, in one batch.
const WAITERS_MAX: usize = 256;

/// Between two looks at runs that nobody draws on, and at what has ended.
const TEND_EVERY: Duration = Duration::from_secs(1);

/// What the writer is asked for.
pub(crate) enum Message {
    /// Somebody needs more of its accounts than is leased.
    Wait(Waiter),
    Flush {
        answer: Answer,
    },
    Close,
    #[cfg(test)]
    Abandon,
    /// As after some seconds: all that is leased goes back.
    #[cfg(test)]
    Rest,
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
    /// What has ended waits until then, if nobody waits for it.
    rests_until: Instant,
    looked_at: Instant,
    tends_at: Instant,
    runs: LiveRuns,
    room: Room,
    /// The journal's next segment could not be begun, which is said.
    stuck: bool,
    /// Those for whom the store is asked once more.
    again: Vec<Waiter>,
}

/// One batch's work.
#[derive(Default)]
struct Work {
    waiters: Vec<Waiter>,
    answers: Vec<Answer>,
    back: Vec<(AccountId, NanoUsd)>,
    /// Runs that are drawn on are written down.
    touch: bool,
    close: bool,
    #[cfg(test)]
    all_rest: bool,
    #[cfg(test)]
    with: Vec<With>,
}

/// What a batch came to.
struct Written {
    asks: Asks,
    /// For each who waits for a lease, why it gets none.
    refused: Vec<Option<NotHeld>>,
    /// The time of budgets that it was written by.
    now_s: i64,
}

/// What each account is charged.
type Charges = BTreeMap<AccountId, NanoUsd>;

pub(crate) fn start(
    store: Store,
    folder: PathBuf,
    spending: Weak<Spending>,
    inbox: Receiver<Message>,
) -> io::Result<JoinHandle<()>> {
    let now = Instant::now();
    let (runs, room) = (LiveRuns::default(), Room::new(now));
    let (rests_until, looked_at, tends_at) = (now, now, now);
    let (stuck, again) = (false, Vec::new());
    let writer = Writer { store, folder, inbox, rests_until, looked_at, tends_at, runs, room, stuck, again };
    std::thread::Builder::new().name("ledger".into()).spawn(move || writer.run(&spending))
}

impl Writer {
    fn run(mut self, spending: &Weak<Spending>) {
        loop {
            let mut work = Work { waiters: std::mem::take(&mut self.again), ..Work::default() };
            let patience = self.patience(&work);
            match self.inbox.recv_timeout(patience) {
                #[cfg(test)]
                Ok(Message::Abandon) => return,
                Ok(message) => work.take(message),
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => return,
            }
            while work.waiters.len() < WAITERS_MAX && !work.close {
                match self.inbox.try_recv() {
                    Ok(message) => work.take(message),
                    Err(_none) => break,
                }
            }
            let Some(spending) = spending.upgrade() else { return };
            let close = work.close;
            #[cfg(test)]
            work.with.drain(..).for_each(|with| with(&self.store));
            // Before anybody is answered. What is not seen now is seen in the next round.
            let _ = self.runs.notice(&mut self.store, &spending);
            self.batch(&spending, work);
            if close {
                return;
            }
            self.tend(&spending);
        }
    }

    /// How long nothing may come before the next round.
    fn patience(&self, work: &Work) -> Duration {
        match work.waiters.is_empty() {
            false => Duration::ZERO,
            true if self.tends_at <= Instant::now() => MORE_EVERY,
            true => ROUND_EVERY,
        }
    }

    /// What has no part in a batch: runs that rest, and room.
    fn tend(&mut self, spending: &Spending) {
        let now = Instant::now();
        if now < self.tends_at {
            return;
        }
        self.tends_at = now + TEND_EVERY;
        let rules = spending.rules_now();
        // The operator resolves it in another process.
        if let Ok(doubt) = self.store.in_doubt_now() {
            spending.lock().in_doubt = doubt;
        }
        // Where the store takes nothing, batches say so; the next time comes soon.
        let _ = self.runs.tend(&mut self.store, spending, &rules);
        if self.room.make(&mut self.store, &rules, spending.clock_s(), now) == Next::More {
            self.tends_at = now;
        }
    }

    fn batch(&mut self, spending: &Arc<Spending>, mut work: Work) {
        let now = Instant::now();
        work.waiters.retain(|waiter| !waiter.has_left());
        let look = now.saturating_duration_since(self.looked_at) >= IDLE_EVERY;
        // Only who leases goes by them.
        let rules = if work.waiters.is_empty() { Rules::default() } else { spending.rules_now() };
        let (queue, journal, touch) = {
            let mut inner = spending.lock();
            if !work.presses() && !inner.caps_changed && now < self.rests_until {
                inner.forget();
                return;
            }
            let look = std::mem::take(&mut inner.caps_changed) || look;
            if work.returns_all() {
                work.back = inner.books.all_free();
            } else if look {
                self.looked_at = now;
                work.back = inner.books.idle(now);
            }
            let touch = work.close || self.runs.is_due(&inner, spending.clock_s());
            (std::mem::take(&mut inner.queue), (inner.journal.position(), inner.next_hold), touch)
        };
        work.touch = touch;
        let idle = work.waiters.is_empty() && work.back.is_empty() && work.answers.is_empty() && !touch;
        if idle && queue.charges.is_empty() && queue.rows.is_empty() {
            spending.lock().forget();
            return;
        }
        let charges = sums(&queue);
        match self.write(spending, (&queue, &charges), &work, &rules, journal) {
            Ok(written) => {
                let took = now.elapsed();
                self.room.grows_by(queue.rows.len());
                self.rests_until = now + took + (took * REST_PER_WORK).min(REST_MAX);
                written.asks.accounts().for_each(|(id, key)| self.runs.entered(id, key, &rules));
                self.done(spending, charges, written, work, journal.0);
            }
            Err(error) => {
                // Who needs it asks at once all the same.
                self.rests_until = now + REST_MAX;
                failed(spending, queue, work, &error);
            }
        }
    }

    fn write(
        &mut self,
        spending: &Spending,
        (queue, charges): (&Queue, &Charges),
        work: &Work,
        rules: &Rules,
        (position, next_hold): (Position, u64),
    ) -> Result<Written, StoreError> {
        let (node, now_s) = (&spending.node, spending.clock_s());
        // A lease that the power took back could be spent and forgotten; a settlement cannot: what it
        // leaves is leased, and in doubt.
        self.store.sync(!work.waiters.is_empty())?;
        let batch = self.store.batch()?;
        for (id, charge) in charges {
            batch.settle(node, *id, *charge)?;
        }
        batch.add_rows(queue.rows.iter().map(|row| &**row))?;
        for (id, free) in &work.back {
            batch.give_back(node, *id, *free)?;
        }
        // Before somebody is told that a run has rested.
        if work.touch {
            self.runs.touch(&batch, now_s)?;
        }
        let (mut asks, mut refused) = (Asks::default(), Vec::with_capacity(work.waiters.len()));
        for waiter in &work.waiters {
            refused.push(match enter(&batch, waiter.drawn(), rules, now_s)? {
                Ok(Entered { open, begun }) => {
                    if !asks.add(&batch, spending, charges, &open, waiter.amount())? {
                        batch.not_begun(&begun)?;
                    }
                    None
                }
                Err(refused) => Some(NotHeld::Run(Box::new(refused))),
            });
        }
        asks.lease(&batch, spending)?;
        set_position(&batch, position, next_hold)?;
        set_clock(&batch, now_s)?;
        if work.close {
            set_clean(&batch)?;
        }
        batch.commit()?;
        Ok(Written { asks, refused, now_s })
    }

    fn done(
        &mut self,
        spending: &Arc<Spending>,
        charges: Charges,
        written: Written,
        work: Work,
        position: Position,
    ) {
        let mut inner = spending.lock();
        for (id, charge) in charges {
            inner.books.stored(id, charge);
        }
        for (id, free) in work.back {
            inner.books.returned(id, free);
        }
        written.asks.granted(&mut inner, Instant::now());
        let mut replies = Vec::with_capacity(work.waiters.len());
        for (waiter, refused) in work.waiters.into_iter().zip(written.refused) {
            let said = match refused {
                Some(why) => Ok(waiter.refuse(why)),
                None => waiter.hold(spending, &mut inner),
            };
            match said {
                Ok(reply) => replies.push(reply),
                Err(waiter) => self.again.push(waiter),
            }
        }
        inner.forget();
        inner.trouble = None;
        if work.touch {
            self.runs.touched(&inner, written.now_s);
        }
        if inner.journal.position().offset > SEGMENT_BYTES {
            let begun = inner.next_segment();
            if let Err(error) = &begun
                && !self.stuck
            {
                tracing::warn!(%error, "the journal's next segment cannot be begun; this one goes on");
            }
            self.stuck = begun.is_err();
        }
        drop(inner);
        if position.segment > 1 {
            Journal::forget_before(Path::new(&self.folder), position.segment);
        }
        // Who has left needs no answer.
        work.answers.into_iter().for_each(|answer| _ = answer.send(Ok(())));
        replies.into_iter().for_each(Reply::send);
    }
}

impl Work {
    fn take(&mut self, message: Message) {
        match message {
            Message::Wait(waiter) => self.waiters.push(waiter),
            Message::Flush { answer } => self.answers.push(answer),
            Message::Close => self.close = true,
            #[cfg(test)]
            Message::Abandon => {}
            #[cfg(test)]
            Message::Rest => self.all_rest = true,
            #[cfg(test)]
            Message::With(with) => self.with.push(with),
        }
    }

    /// Somebody waits for it.
    fn presses(&self) -> bool {
        self.returns_all() || !self.waiters.is_empty() || !self.answers.is_empty()
    }

    fn returns_all(&self) -> bool {
        #[cfg(test)]
        if self.all_rest {
            return true;
        }
        self.close
    }
}

/// All is as it was: what was taken out goes back in front, and is tried again.
fn failed(spending: &Spending, mut queue: Queue, work: Work, error: &StoreError) {
    let code = error.code();
    let mut inner = spending.lock();
    for (id, free) in work.back {
        inner.books.kept(id, free);
    }
    queue.charges.append(&mut inner.queue.charges);
    queue.rows.append(&mut inner.queue.rows);
    inner.queue = queue;
    if inner.trouble.replace(code) != Some(code) {
        tracing::error!(reason = code, error = ?error, "the ledger cannot be written; nothing of it is lost");
    }
    drop(inner);
    work.answers.into_iter().for_each(|answer| _ = answer.send(Err(code)));
    work.waiters.into_iter().for_each(|waiter| waiter.refuse(NotHeld::Store(code)).send());
}

fn sums(queue: &Queue) -> Charges {
    let mut sums = Charges::new();
    for (accounts, charge) in queue.charges.iter().filter(|(_, charge)| *charge > NanoUsd::ZERO) {
        for id in accounts {
            let sum = sums.entry(*id).or_default();
            *sum = sum.saturating_add(*charge);
        }
    }
    sums
}
