//! Those who wait for a lease: what all of them lack is leased at once, and they hold of it before
//! anybody else does.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Instant;

use sluice_core::books::{AccountId, Cap};
use sluice_core::money::NanoUsd;
use sluice_core::refill::{Wanted, let_in};
use tokio::sync::oneshot::{self, Receiver, Sender};

use crate::budget::{AccountKey, Drawn};
use crate::hold::{Attempt, Hold};
use crate::spending::{Inner, NotHeld, Spending, Tried};
use crate::store::{Batch, StoreError};

/// The store is asked so often for one hold: each time somebody who did not wait has been faster, and
/// there was enough all the same.
const ASKS_MAX: u32 = 16;

/// Somebody who waits for a lease. Who leaves drops the other end, and with it what was held for it.
pub(crate) struct Waiter {
    drawn: Vec<Drawn>,
    amount: NanoUsd,
    attempt: Attempt,
    asks: u32,
    answer: Sender<Result<Hold, NotHeld>>,
}

/// What is to be said to one of them. Not while the books are locked: what nobody takes is dropped, and a
/// hold that is dropped ends.
#[must_use]
pub(crate) struct Reply {
    answer: Sender<Result<Hold, NotHeld>>,
    held: Result<Hold, NotHeld>,
}

/// What those who wait in one batch want of the store.
#[derive(Default)]
pub(crate) struct Asks {
    /// Each with the cap that its request has read.
    accounts: Vec<(AccountKey, AccountId, Cap)>,
    /// At the same places.
    wanted: Vec<Wanted>,
}

impl Waiter {
    pub(crate) fn new(
        drawn: &[Drawn],
        amount: NanoUsd,
        attempt: Attempt,
    ) -> (Waiter, Receiver<Result<Hold, NotHeld>>) {
        let (answer, answered) = oneshot::channel();
        (Waiter { drawn: drawn.to_vec(), amount, attempt, asks: 0, answer }, answered)
    }

    pub(crate) fn drawn(&self) -> &[Drawn] {
        &self.drawn
    }

    pub(crate) fn amount(&self) -> NanoUsd {
        self.amount
    }

    /// Nobody waits any more.
    pub(crate) fn has_left(&self) -> bool {
        self.answer.is_closed()
    }

    pub(crate) fn refuse(self, why: NotHeld) -> Reply {
        Reply { answer: self.answer, held: Err(why) }
    }

    /// Holds, now that the store was asked.
    ///
    /// # Errors
    ///
    /// The waiter, where the store is to be asked once more.
    pub(crate) fn hold(mut self, spending: &Arc<Spending>, inner: &mut Inner) -> Result<Reply, Waiter> {
        self.asks += 1;
        let held = match spending.try_hold(inner, &self.drawn, self.amount, &self.attempt, true) {
            Ok(hold) => Ok(hold),
            Err(Tried::Not(why)) => Err(why),
            Err(Tried::AskStore) if self.asks < ASKS_MAX => return Err(self),
            Err(Tried::AskStore) => Err(NotHeld::Store("busy")),
        };
        Ok(Reply { answer: self.answer, held })
    }
}

impl Reply {
    pub(crate) fn send(self) {
        // Who has left needs no answer.
        let _ = self.answer.send(self.held);
    }
}

impl Asks {
    /// Somebody wants so much of each of these; says whether they have it. `stored`: what this batch settles, which the books do not know to be stored.
    ///
    /// # Errors
    ///
    /// [`StoreError`].
    pub(crate) fn add(
        &mut self,
        batch: &Batch<'_>,
        spending: &Spending,
        stored: &BTreeMap<AccountId, NanoUsd>,
        drawn: &[&Drawn],
        amount: NanoUsd,
    ) -> Result<bool, StoreError> {
        let mut places = Vec::with_capacity(drawn.len());
        for drawn in drawn {
            let known = self.accounts.iter().position(|(key, ..)| *key == drawn.key);
            let place = match known {
                Some(place) => place,
                None => self.find(batch, spending, stored, drawn)?,
            };
            places.push(place);
        }
        places.sort_unstable();
        places.dedup();
        Ok(let_in(&mut self.wanted, &places, amount))
    }

    fn find(
        &mut self,
        batch: &Batch<'_>,
        spending: &Spending,
        stored: &BTreeMap<AccountId, NanoUsd>,
        drawn: &Drawn,
    ) -> Result<usize, StoreError> {
        let account = batch.account(&drawn.key)?;
        batch.set_end(account.id, drawn.resets_s)?;
        let lease = batch.lease_of(&spending.node, account.id)?;
        let as_drawn = Cap::from(&*drawn.budget);
        let (cap, promised) = {
            let inner = spending.lock();
            (inner.cap_of(&drawn.key, as_drawn), inner.books.promised(account.id))
        };
        let promised = promised.saturating_sub(stored.get(&account.id).copied().unwrap_or_default());
        self.accounts.push((drawn.key.clone(), account.id, as_drawn));
        self.wanted.push(Wanted::new(cap, account.vault, lease, promised));
        Ok(self.wanted.len() - 1)
    }

    /// What all of them want something of.
    pub(crate) fn accounts(&self) -> impl Iterator<Item = (AccountId, &AccountKey)> {
        self.accounts.iter().map(|(key, id, _)| (*id, key))
    }

    /// Leases what lacks.
    ///
    /// # Errors
    ///
    /// [`StoreError`].
    pub(crate) fn lease(&mut self, batch: &Batch<'_>, spending: &Spending) -> Result<(), StoreError> {
        for ((_, id, _), wanted) in self.accounts.iter().zip(&mut self.wanted) {
            batch.add_lease(&spending.node, *id, wanted.lease())?;
        }
        Ok(())
    }

    /// The store has it all: the books go by it, and by the caps of now.
    pub(crate) fn granted(self, inner: &mut Inner, now: Instant) {
        for ((key, id, as_drawn), wanted) in self.accounts.into_iter().zip(self.wanted) {
            let cap = inner.cap_of(&key, as_drawn);
            inner.learn(key, id);
            inner.books.granted(id, cap, wanted.grant(), now);
        }
    }
}
