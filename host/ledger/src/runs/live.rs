//! Runs that are drawn on here: the store hears of it now and then, and an end that somebody else has
//! written is noticed.

use std::collections::HashMap;
use std::sync::Arc;

use sluice_core::books::AccountId;

use super::RunId;
use super::acts::GENERATION;
use crate::budget::AccountKey;
use crate::recovery::set_clock;
use crate::rules::Rules;
use crate::spending::{Inner, Spending};
use crate::store::{Batch, Store, StoreError, number_of};

/// Of `meta`: the acts of closing that the running gateway goes by.
pub(crate) const SEEN: &str = "runs_seen";

/// Of `meta`: an earlier version's accounts of runs are no runs yet.
const TO_ADOPT: &str = "runs_to_adopt";

/// Seconds between two notes of what is drawn on. The least time that makes a run idle is several times
/// as long; a crash makes a run as much older.
const TOUCH_EVERY_S: i64 = 15;

/// What the writer knows of runs.
#[derive(Default)]
pub(crate) struct LiveRuns {
    /// Whose accounts the books have, and by which budget.
    runs: HashMap<AccountId, (Arc<str>, RunId)>,
    /// When the store has heard of all of them.
    touched_s: i64,
    /// The database as it was when it was looked at last.
    looked: Option<i64>,
    /// Acts of closing up to this one have been looked at.
    seen: Option<u64>,
    /// Nothing is left of an earlier version.
    adopted: bool,
}

impl LiveRuns {
    /// An account is leased from.
    pub(crate) fn entered(&mut self, id: AccountId, key: &AccountKey, rules: &Rules) {
        let is_of_runs = rules.runs.contains_key(&*key.budget);
        if let Some(run) = RunId::of_scope(&key.scope).filter(|_| is_of_runs) {
            self.runs.insert(id, (Arc::clone(&key.budget), run));
        }
    }

    /// It is time to write down what is drawn on: a while has passed, or nobody draws on one of them any
    /// more.
    pub(crate) fn is_due(&self, inner: &Inner, now_s: i64) -> bool {
        !self.runs.is_empty()
            && (now_s.saturating_sub(self.touched_s) >= TOUCH_EVERY_S
                || self.runs.keys().any(|id| inner.books.rest(*id).is_none()))
    }

    /// Writes it down.
    pub(crate) fn touch(&self, batch: &Batch<'_>, now_s: i64) -> Result<(), StoreError> {
        self.runs.values().try_for_each(|(budget, run)| batch.touch_run(budget, run, now_s))
    }

    /// That was committed: what the books have forgotten can be forgotten here.
    pub(crate) fn touched(&mut self, inner: &Inner, now_s: i64) {
        self.touched_s = now_s;
        self.runs.retain(|id, _| inner.books.rest(*id).is_some());
    }

    /// Takes notice of runs that somebody else has closed: nothing new is held on them from now on.
    /// Takes microseconds where nobody has written.
    ///
    /// # Errors
    ///
    /// [`StoreError`]; it is noticed the next time.
    pub(crate) fn notice(&mut self, store: &mut Store, spending: &Spending) -> Result<(), StoreError> {
        // Asked first: what is written from here on is another version.
        let version = store.data_version()?;
        if self.looked == Some(version) {
            return Ok(());
        }
        let generation = number_of(store.connection(), GENERATION)?;
        if self.seen != Some(generation) {
            for (id, (budget, run)) in &self.runs {
                if store.has_ended(budget, run)? {
                    spending.lock().unlearn(*id);
                }
            }
            let batch = store.batch()?;
            batch.set_meta(SEEN, &generation.to_string())?;
            batch.commit()?;
            self.seen = Some(generation);
        }
        self.looked = Some(version);
        Ok(())
    }

    /// Ends runs that have rested for too long.
    ///
    /// # Errors
    ///
    /// [`StoreError`]; the next time does it.
    pub(crate) fn tend(
        &mut self,
        store: &mut Store,
        spending: &Spending,
        rules: &Rules,
    ) -> Result<(), StoreError> {
        let now_s = spending.clock_s();
        self.adopt(store, rules, now_s)?;
        let mut resting = Vec::new();
        for (budget, rules) in &rules.runs {
            if store.has_resting(budget, *rules, now_s)? {
                resting.push((budget, *rules));
            }
        }
        if resting.is_empty() {
            return Ok(());
        }
        let batch = store.batch()?;
        // First: what is drawn on does not rest, whatever was written of it before.
        self.touch(&batch, now_s)?;
        for (budget, rules) in resting {
            let ended = batch.end_resting(budget, rules, now_s)?;
            tracing::debug!(budget, ended, "runs that nobody has drawn on have ended");
        }
        set_clock(&batch, now_s)?;
        batch.commit()
    }

    fn adopt(&mut self, store: &mut Store, rules: &Rules, now_s: i64) -> Result<(), StoreError> {
        if self.adopted || rules.runs.is_empty() {
            return Ok(());
        }
        let batch = store.batch()?;
        if batch.meta(TO_ADOPT)?.is_some() {
            rules.runs.keys().try_for_each(|budget| batch.adopt_runs(budget, now_s))?;
            batch.connection().execute("DELETE FROM meta WHERE name = ?1", [TO_ADOPT])?;
            batch.commit()?;
        }
        self.adopted = true;
        Ok(())
    }
}

impl Inner {
    /// Who draws on this account next asks the store for it. What is held on it is settled as ever.
    fn unlearn(&mut self, id: AccountId) {
        self.known.retain(|_, known| *known != id);
    }
}
