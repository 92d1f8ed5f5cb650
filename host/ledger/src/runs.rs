//! Runs: which are open, when one ends, and that it stays ended.
//!
//! A run is whatever a key calls so. For each budget that has an account for each run it begins when it
//! is first drawn on, and it ends once: an operator closes it, or nobody draws on it for as long as the
//! budget says. What is left is a tombstone that refuses who comes late: a name that has rested is not
//! given a fresh cap. Names are cheap, so that of each key only so many are open at once. What was held
//! before the end is settled as ever.
//!
//! Times are those of budgets, in seconds since the Unix epoch. A run on which something is leased is
//! drawn on; `live` writes that down now and then. What operators do: [`acts`].

use std::sync::Arc;

use rusqlite::{OptionalExtension, params};
use sluice_core::books::Mode;

use crate::budget::Drawn;
use crate::keys::secret::KeyId;
use crate::rules::{Rules, RunRules};
use crate::store::{Batch, Store, StoreError};

pub mod acts;
pub(crate) mod live;

pub(crate) const TABLES: &str = "
CREATE TABLE runs (
    scope TEXT NOT NULL,
    budget TEXT NOT NULL,
    used_s INTEGER NOT NULL,
    ended_s INTEGER,
    ended_by TEXT,
    PRIMARY KEY (scope, budget)
) STRICT, WITHOUT ROWID;
CREATE INDEX runs_open ON runs (budget, scope) WHERE ended_s IS NULL;
CREATE INDEX runs_rest ON runs (budget, used_s) WHERE ended_s IS NULL;
CREATE INDEX runs_ended ON runs (ended_s) WHERE ended_s IS NOT NULL;
";

/// Characters of a run's name at most.
pub const NAME_CHARS_MAX: usize = 128;

/// Runs that end for want of use in one step.
const STEP_MAX: u32 = 1000;

/// A run of a key. As accounts have it for their scope: the key's id, a slash, the run's name.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RunId {
    scope: Arc<str>,
}

/// How a run has ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EndedBy {
    /// An operator has closed it.
    Closed,
    /// Nobody has drawn on it for long.
    Idle,
}

/// Why a run is not drawn on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RunRefused {
    /// It has ended.
    Ended {
        /// By whose rules.
        budget: Arc<str>,
        /// Which.
        run: RunId,
        /// How.
        by: EndedBy,
    },
    /// It would be a new one, and its key has as many as it may.
    TooMany {
        /// By whose rules.
        budget: Arc<str>,
        /// Runs of one key at most.
        runs_max: u32,
    },
}

/// A run's row, as it is.
struct Found {
    used_s: i64,
    ended: Option<(i64, EndedBy)>,
}

// === impl RunId ===

impl RunId {
    /// Of a key, by its id, empty where none was shown; none where one of the two cannot be.
    pub fn new(key: &str, name: &str) -> Option<RunId> {
        let good = (key.is_empty() || key.parse::<KeyId>().is_ok()) && is_name(name);
        good.then(|| RunId { scope: format!("{key}/{name}").into() })
    }

    /// Of an account's scope; none for the account of those calls of a key that name no run.
    pub fn of_scope(scope: &Arc<str>) -> Option<RunId> {
        let (_, name) = scope.split_once('/')?;
        (!name.is_empty()).then(|| RunId { scope: Arc::clone(scope) })
    }

    /// The key's id; empty where none was shown.
    pub fn key(&self) -> &str {
        self.scope.split_once('/').map_or("", |(key, _)| key)
    }

    /// As the key calls it.
    pub fn name(&self) -> &str {
        self.scope.split_once('/').map_or("", |(_, name)| name)
    }
}

/// Whether a run may be called so.
pub fn is_name(text: &str) -> bool {
    (1..=NAME_CHARS_MAX).contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_graphic())
}

// === impl EndedBy ===

impl EndedBy {
    /// One word for it.
    pub fn name(self) -> &'static str {
        match self {
            EndedBy::Closed => "closed",
            EndedBy::Idle => "idle",
        }
    }

    fn of(name: Option<&str>) -> EndedBy {
        match name {
            Some("idle") => EndedBy::Idle,
            Some(_) | None => EndedBy::Closed,
        }
    }
}

impl RunRules {
    /// What was drawn on then is idle at `now_s`.
    fn is_idle(self, used_s: i64, now_s: i64) -> bool {
        now_s.saturating_sub(used_s) >= self.idle_s
    }
}

/// Accounts that may be drawn on.
pub(crate) struct Entered<'d> {
    pub(crate) open: Vec<&'d Drawn>,
    /// Those of runs that began with it.
    pub(crate) begun: Vec<&'d Drawn>,
}

// === impl Batch ===

/// Those of these accounts that may be drawn on now: all, or all but shadows, or why none; then no run
/// has begun either.
pub(crate) fn enter<'d>(
    batch: &Batch<'_>,
    drawn: &'d [Drawn],
    rules: &Rules,
    now_s: i64,
) -> Result<Result<Entered<'d>, RunRefused>, StoreError> {
    let mut all = Entered { open: Vec::with_capacity(drawn.len()), begun: Vec::new() };
    for one in drawn {
        let rules = rules.runs.get(&*one.key.budget).copied();
        let entered = match rules.zip(RunId::of_scope(&one.key.scope)) {
            Some((rules, run)) => batch.enter_run(&one.key.budget, &run, rules, now_s)?,
            None => Ok(false),
        };
        match entered {
            Ok(begins) => {
                all.open.push(one);
                all.begun.extend(begins.then_some(one));
            }
            // A shadow refuses nobody, so that it does not see the call.
            Err(_) if one.budget.mode == Mode::Shadow => {}
            Err(refused) => {
                batch.not_begun(&all.begun)?;
                return Ok(Err(refused));
            }
        }
    }
    Ok(Ok(all))
}

impl Batch<'_> {
    /// A run is drawn on: begins it, which the answer says, or ends it, or finds that it has ended.
    pub(crate) fn enter_run(
        &self,
        budget: &Arc<str>,
        run: &RunId,
        rules: RunRules,
        now_s: i64,
    ) -> Result<Result<bool, RunRefused>, StoreError> {
        let ended = |by| RunRefused::Ended { budget: Arc::clone(budget), run: run.clone(), by };
        match self.run(budget, run)? {
            Some(Found { ended: Some((_, by)), .. }) => Ok(Err(ended(by))),
            Some(Found { used_s, ended: None }) if rules.is_idle(used_s, now_s) => {
                self.end_idle(budget, run.key(), rules, now_s)?;
                Ok(Err(ended(EndedBy::Idle)))
            }
            Some(Found { .. }) => self.touch_run(budget, run, now_s).map(|()| Ok(false)),
            None => self.begin_run(budget, run, rules, now_s),
        }
    }

    fn begin_run(
        &self,
        budget: &Arc<str>,
        run: &RunId,
        rules: RunRules,
        now_s: i64,
    ) -> Result<Result<bool, RunRefused>, StoreError> {
        if self.has_as_many(budget, run.key(), rules.runs_max)? {
            self.end_idle(budget, run.key(), rules, now_s)?;
            if self.has_as_many(budget, run.key(), rules.runs_max)? {
                return Ok(Err(RunRefused::TooMany { budget: Arc::clone(budget), runs_max: rules.runs_max }));
            }
        }
        let begin = "INSERT INTO runs (scope, budget, used_s) VALUES (?1, ?2, ?3)";
        self.connection().prepare_cached(begin)?.execute(params![&*run.scope, &**budget, now_s])?;
        Ok(Ok(true))
    }

    /// Who would have begun these runs gets no money: refused names take nobody's place.
    pub(crate) fn not_begun(&self, begun: &[&Drawn]) -> Result<(), StoreError> {
        let mut remove =
            self.connection().prepare_cached("DELETE FROM runs WHERE scope = ?1 AND budget = ?2")?;
        for one in begun {
            remove.execute([&*one.key.scope, &*one.key.budget])?;
        }
        Ok(())
    }

    fn run(&self, budget: &str, run: &RunId) -> Result<Option<Found>, StoreError> {
        let find = "SELECT used_s, ended_s, ended_by FROM runs WHERE scope = ?1 AND budget = ?2";
        let mut find = self.connection().prepare_cached(find)?;
        let found = find.query_row([&*run.scope, budget], |found| {
            Ok(Found { used_s: found.get(0)?, ended: ended(found, 1)? })
        });
        Ok(found.optional()?)
    }

    /// Whether so many runs of this key are open.
    fn has_as_many(&self, budget: &str, key: &str, runs_max: u32) -> Result<bool, StoreError> {
        let text = "SELECT count(*) FROM (SELECT 1 FROM runs INDEXED BY runs_open \
             WHERE budget = ?1 AND scope > ?2 AND scope < ?3 AND ended_s IS NULL LIMIT ?4)";
        let (first, behind) = scopes_of(key);
        let mut count = self.connection().prepare_cached(text)?;
        let count: u32 = count.query_row(params![budget, first, behind, runs_max], |found| found.get(0))?;
        Ok(count >= runs_max)
    }

    /// Ends the runs of this key that have rested for too long.
    fn end_idle(&self, budget: &str, key: &str, rules: RunRules, now_s: i64) -> Result<(), StoreError> {
        let end = "UPDATE runs SET ended_s = ?4, ended_by = 'idle' WHERE budget = ?1 \
             AND scope > ?2 AND scope < ?3 AND ended_s IS NULL AND used_s <= ?5";
        let (first, behind) = scopes_of(key);
        let before_s = now_s.saturating_sub(rules.idle_s);
        let mut end = self.connection().prepare_cached(end)?;
        end.execute(params![budget, first, behind, now_s, before_s])?;
        Ok(())
    }

    /// Ends runs of any key that have rested for too long, some at a time. Gives how many.
    pub(crate) fn end_resting(&self, budget: &str, rules: RunRules, now_s: i64) -> Result<usize, StoreError> {
        let end = "UPDATE runs SET ended_s = ?2, ended_by = 'idle' WHERE budget = ?1 AND scope IN \
             (SELECT scope FROM runs INDEXED BY runs_rest WHERE budget = ?1 AND ended_s IS NULL \
             AND used_s <= ?3 ORDER BY used_s LIMIT ?4)";
        let before_s = now_s.saturating_sub(rules.idle_s);
        Ok(self.connection().prepare_cached(end)?.execute(params![budget, now_s, before_s, STEP_MAX])?)
    }

    /// An open run is drawn on.
    pub(crate) fn touch_run(&self, budget: &str, run: &RunId, now_s: i64) -> Result<(), StoreError> {
        let touch = "UPDATE runs SET used_s = ?3 WHERE scope = ?1 AND budget = ?2 \
             AND ended_s IS NULL AND used_s < ?3";
        self.connection().prepare_cached(touch)?.execute(params![&*run.scope, budget, now_s])?;
        Ok(())
    }

    /// Accounts of runs from before there were runs begin to rest now.
    pub(crate) fn adopt_runs(&self, budget: &str, now_s: i64) -> Result<(), StoreError> {
        let adopt = "INSERT INTO runs (scope, budget, used_s) SELECT DISTINCT scope, budget, ?2 \
             FROM accounts WHERE budget = ?1 AND instr(scope, '/') BETWEEN 1 AND length(scope) - 1 \
             ON CONFLICT DO NOTHING";
        self.connection().execute(adopt, params![budget, now_s])?;
        Ok(())
    }
}

impl Store {
    /// Whether some run of this budget has rested for too long.
    pub(crate) fn has_resting(&self, budget: &str, rules: RunRules, now_s: i64) -> Result<bool, StoreError> {
        let text = "SELECT 1 FROM runs INDEXED BY runs_rest \
             WHERE budget = ?1 AND ended_s IS NULL AND used_s <= ?2";
        let before_s = now_s.saturating_sub(rules.idle_s);
        Ok(self.connection().prepare_cached(text)?.exists(params![budget, before_s])?)
    }

    /// Whether a run has ended for this budget.
    pub(crate) fn has_ended(&self, budget: &str, run: &RunId) -> Result<bool, StoreError> {
        let text = "SELECT 1 FROM runs WHERE scope = ?1 AND budget = ?2 AND ended_s IS NOT NULL";
        Ok(self.connection().prepare_cached(text)?.exists([&*run.scope, budget])?)
    }
}

/// Scopes of a key's runs are between these two; the first is that of its calls that name none.
fn scopes_of(key: &str) -> (String, String) {
    // What follows a slash in ASCII is a zero.
    (format!("{key}/"), format!("{key}0"))
}

/// The two columns from here on.
fn ended(found: &rusqlite::Row<'_>, column: usize) -> rusqlite::Result<Option<(i64, EndedBy)>> {
    let at_s: Option<i64> = found.get(column)?;
    let by: Option<String> = found.get(column + 1)?;
    Ok(at_s.map(|at_s| (at_s, EndedBy::of(by.as_deref()))))
}

#[cfg(test)]
mod tests;
