//! What operators do with runs: look at them, and close one.

use rusqlite::{OptionalExtension, params};
use serde_json::json;
use sluice_core::money::NanoUsd;

use super::{EndedBy, RunId, ended, scopes_of};
use crate::audit::Act;
use crate::recovery::clock_of;
use crate::store::{Batch, Store, StoreError, amount};

/// Of `meta`: how many acts have closed a run.
pub(super) const GENERATION: &str = "runs_generation";

/// What came of the wish to close a run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use]
pub enum Closed {
    /// Nothing new is held on it from the moment on at which the running gateway has seen it.
    Done {
        /// To wait for, with [`KeyStore::wait_until_closed`](crate::keys::KeyStore::wait_until_closed).
        generation: u64,
    },
    /// It had ended before.
    Already {
        /// When.
        ended_s: i64,
        /// How.
        by: EndedBy,
    },
    /// No budget has an account for it.
    Unknown,
}

/// How a run stands with a budget.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RunStanding {
    /// Which.
    pub run: RunId,
    /// The budget's name.
    pub budget: String,
    /// When it was drawn on last, give or take a quarter of a minute.
    pub used_s: i64,
    /// When it has ended, and how; none: it is open.
    pub ended: Option<(i64, EndedBy)>,
    /// Settled and in doubt, over all windows.
    pub spent: NanoUsd,
}

impl Store {
    /// Closes a run for all budgets. `actor` is who wishes it: `cli` or `admin`, with an address; it is
    /// in the audit, also where nothing was done.
    ///
    /// # Errors
    ///
    /// [`StoreError`]; it is as open as before then.
    pub fn close_run(&mut self, actor: &str, run: &RunId, now_ms: u64) -> Result<Closed, StoreError> {
        let batch = self.batch()?;
        // Not before the time that budgets have reached: a tombstone by a clock that is behind would
        // not last.
        let now_s = i64::try_from(now_ms / 1000).map_err(|_| StoreError::Overflow)?;
        let now_s = now_s.max(clock_of(&batch)?.unwrap_or(0));
        let close = "UPDATE runs SET ended_s = ?2, ended_by = 'closed' WHERE scope = ?1 AND ended_s IS NULL \
             RETURNING budget";
        let mut budgets: Vec<String> = Vec::new();
        let mut close = batch.connection().prepare_cached(close)?;
        for budget in close.query_map(params![&*run.scope, now_s], |found| found.get(0))? {
            budgets.push(budget?);
        }
        drop(close);
        let (closed, outcome) = match (budgets.is_empty(), batch.last_end(run)?) {
            (false, _) => {
                let generation = batch.raise(GENERATION)?;
                (Closed::Done { generation }, "done")
            }
            (true, Some((ended_s, by))) => (Closed::Already { ended_s, by }, "already_ended"),
            (true, None) => (Closed::Unknown, "unknown"),
        };
        budgets.sort_unstable();
        let detail = json!({ "budgets": budgets });
        let (subject, act) = (&*run.scope, "run.close");
        batch.add_act(&Act { at_ms: now_ms, actor, act, subject, detail: &detail, outcome })?;
        batch.commit()?;
        Ok(closed)
    }

    /// Runs, those that are open first, by their last use, the latest first; at most so many. Of this
    /// key alone, where it is given; also those that have ended, where they are asked for.
    ///
    /// # Errors
    ///
    /// [`StoreError`].
    pub fn runs(
        &self,
        key: Option<&str>,
        ended_too: bool,
        limit: u32,
    ) -> Result<Vec<RunStanding>, StoreError> {
        let text = "SELECT scope, budget, used_s, ended_s, ended_by, \
             (SELECT coalesce(sum(settled + in_doubt), 0) FROM accounts \
                 WHERE accounts.budget = runs.budget AND accounts.scope = runs.scope) \
             FROM runs WHERE scope > ?1 AND scope < ?2 AND (?3 OR ended_s IS NULL) \
             ORDER BY ended_s IS NOT NULL, used_s DESC, scope, budget LIMIT ?4";
        let (first, behind) = key.map_or_else(|| (String::new(), "\u{10ffff}".into()), scopes_of);
        let mut statement = self.connection().prepare_cached(text)?;
        let rows = statement.query_map(params![first, behind, ended_too, limit], |found| {
            Ok(RunStanding {
                run: RunId { scope: found.get::<_, String>(0)?.into() },
                budget: found.get(1)?,
                used_s: found.get(2)?,
                ended: ended(found, 3)?,
                spent: amount(found.get(5)?),
            })
        })?;
        Ok(rows.collect::<Result<_, _>>()?)
    }
}

impl Batch<'_> {
    fn last_end(&self, run: &RunId) -> Result<Option<(i64, EndedBy)>, StoreError> {
        let find = "SELECT ended_s, ended_by FROM runs WHERE scope = ?1 ORDER BY ended_s DESC LIMIT 1";
        let mut find = self.connection().prepare_cached(find)?;
        Ok(find.query_row([&*run.scope], |found| ended(found, 0)).optional()?.flatten())
    }
}
