//! Jobs of a market that we have bid on: what was bid, what each has cost and earned.
//!
//! A job is written down before its proposal is sent, so that whoever starts after a crash knows each
//! job whose key may be out, and bids on none twice. What a job costs is what its key has spent: the
//! account of the key has it, to the nano-dollar.

pub mod report;

use std::path::Path;

use rusqlite::{OptionalExtension, Row as Found, params};
use sluice_core::money::NanoUsd;

use crate::audit::{milliseconds, since_epoch};
use crate::budget::IN_TOTAL;
use crate::rows::DAY_MS;
use crate::store::{Batch, Store, StoreError, amount, number};

pub(crate) const TABLES: &str = "
CREATE TABLE market_jobs (
    id TEXT PRIMARY KEY,
    strategy TEXT NOT NULL,
    decided_by TEXT NOT NULL,
    model TEXT NOT NULL,
    state TEXT NOT NULL,
    credit INTEGER NOT NULL,
    bid INTEGER NOT NULL,
    expected INTEGER NOT NULL,
    worst INTEGER NOT NULL,
    cost INTEGER NOT NULL DEFAULT 0,
    earned INTEGER NOT NULL DEFAULT 0,
    bid_ms INTEGER NOT NULL,
    closes_ms INTEGER NOT NULL,
    due_ms INTEGER NOT NULL,
    ended_ms INTEGER
) STRICT;
CREATE INDEX market_jobs_open ON market_jobs (bid_ms) WHERE ended_ms IS NULL;
CREATE INDEX market_jobs_ended ON market_jobs (ended_ms) WHERE ended_ms IS NOT NULL;
";

/// Jobs that are kept after they have ended. Beyond, those go first that brought and cost nothing, and
/// none of the last two days.
pub const ENDED_KEPT: u32 = 200_000;

/// Rows that go in one step.
const ROWS_MAX: u32 = 1000;

/// Whose account a job's key draws on: its scope.
pub fn scope(job: &str) -> String {
    format!("job-{job}")
}

/// Jobs of a market, in the database.
pub struct MarketStore(Store);

/// A job that was bid on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Job {
    /// As the market names it.
    pub id: String,
    /// The strategy's name, as configured.
    pub strategy: String,
    /// The plugin that decided: its id and its version.
    pub decided_by: String,
    /// The model that serves it.
    pub model: String,
    /// How it stands.
    pub state: State,
    /// What the requester pays at most.
    pub credit: NanoUsd,
    /// What we want.
    pub bid: NanoUsd,
    /// What we expected it to cost.
    pub expected: NanoUsd,
    /// What its key may spend.
    pub worst: NanoUsd,
    /// What it has cost; of one that goes on, nothing yet.
    pub cost: NanoUsd,
    /// What we were paid.
    pub earned: NanoUsd,
    /// When we bid, in milliseconds since the Unix epoch.
    pub bid_ms: u64,
    /// When bidding closes, likewise.
    pub closes_ms: u64,
    /// By when it is rewarded, likewise; its key works until then.
    pub due_ms: u64,
    /// When it ended, likewise.
    pub ended_ms: Option<u64>,
}

/// How a job stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum State {
    /// The proposal is on its way; nobody knows whether the market has it.
    Sending,
    /// The market has the proposal.
    Open,
    /// It is ours.
    Won,
    /// It has ended.
    Ended(Outcome),
}

/// How a job has ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Outcome {
    /// The market did not take the proposal.
    Refused,
    /// Somebody else has it, or nobody.
    Lost,
    /// We were paid.
    Paid,
    /// We served it, and were not paid.
    Unpaid,
    /// It was ours, and we did not serve it.
    Failed,
}

impl State {
    /// One word for it.
    pub fn name(self) -> &'static str {
        match self {
            State::Sending => "sending",
            State::Open => "open",
            State::Won => "won",
            State::Ended(Outcome::Refused) => "refused",
            State::Ended(Outcome::Lost) => "lost",
            State::Ended(Outcome::Paid) => "paid",
            State::Ended(Outcome::Unpaid) => "unpaid",
            State::Ended(Outcome::Failed) => "failed",
        }
    }

    /// All of them.
    pub const ALL: [State; 8] = [
        State::Sending,
        State::Open,
        State::Won,
        State::Ended(Outcome::Refused),
        State::Ended(Outcome::Lost),
        State::Ended(Outcome::Paid),
        State::Ended(Outcome::Unpaid),
        State::Ended(Outcome::Failed),
    ];

    fn read(name: &str) -> Option<State> {
        State::ALL.into_iter().find(|state| state.name() == name)
    }
}

impl MarketStore {
    /// Opens the jobs of this database; makes it, if it is not there.
    ///
    /// # Errors
    ///
    /// [`StoreError`], as [`Store::open`].
    pub fn open(file: &Path) -> Result<MarketStore, StoreError> {
        let mut store = Store::open(file)?;
        // A key that is out and not known to anybody could not be served.
        store.sync(true)?;
        Ok(MarketStore(store))
    }

    /// For what is looked up elsewhere.
    pub fn store(&mut self) -> &mut Store {
        &mut self.0
    }

    /// Writes jobs down before their proposals are sent; one that is there stays as it is, unless its
    /// last proposal was refused. Gives those that are new.
    ///
    /// # Errors
    ///
    /// [`StoreError`]; none is written then.
    pub fn begin(&mut self, jobs: Vec<Job>) -> Result<Vec<Job>, StoreError> {
        let batch = self.0.batch()?;
        let mut new = Vec::with_capacity(jobs.len());
        for job in jobs {
            if insert(&batch, &job)? {
                new.push(job);
            }
        }
        batch.commit()?;
        Ok(new)
    }

    /// Jobs stand otherwise now; those that have ended stay ended.
    ///
    /// # Errors
    ///
    /// [`StoreError`]; nothing has changed then.
    pub fn set_states<'j>(
        &mut self,
        states: impl Iterator<Item = (&'j str, State)>,
    ) -> Result<(), StoreError> {
        let batch = self.0.batch()?;
        let set = "UPDATE market_jobs SET state = ?2 WHERE id = ?1 AND ended_ms IS NULL";
        for (id, state) in states {
            batch.connection().prepare_cached(set)?.execute([id, state.name()])?;
        }
        batch.commit()
    }

    /// Jobs have ended, as they say; each ends once. One that says that it goes on is left alone.
    ///
    /// # Errors
    ///
    /// [`StoreError`]; none has ended then.
    pub fn end(&mut self, jobs: &[Job]) -> Result<(), StoreError> {
        let batch = self.0.batch()?;
        let set = "UPDATE market_jobs SET state = ?2, cost = ?3, earned = ?4, ended_ms = ?5 \
             WHERE id = ?1 AND ended_ms IS NULL";
        for Job { id, state, cost, earned, ended_ms, .. } in jobs {
            let Some(ended_ms) = ended_ms else { continue };
            let values = params![id, state.name(), number(*cost), number(*earned), milliseconds(*ended_ms)?];
            batch.connection().prepare_cached(set)?.execute(values)?;
        }
        forget(&batch)?;
        batch.commit()
    }

    /// Jobs that have not ended.
    ///
    /// # Errors
    ///
    /// [`StoreError`].
    pub fn under_way(&self) -> Result<Vec<Job>, StoreError> {
        self.jobs("ended_ms IS NULL ORDER BY bid_ms", &[])
    }

    /// The last jobs of a strategy that it can learn from, the oldest of them first.
    ///
    /// # Errors
    ///
    /// [`StoreError`].
    pub fn recent(&self, strategy: &str, count: u32) -> Result<Vec<Job>, StoreError> {
        let which = "strategy = ?1 AND ended_ms IS NOT NULL AND state <> 'refused' \
             ORDER BY ended_ms DESC, id DESC LIMIT ?2";
        let mut jobs = self.jobs(which, params![strategy, count])?;
        jobs.reverse();
        Ok(jobs)
    }

    /// What jobs that ended on this day (in UTC, since the Unix epoch) have cost and earned, by strategy.
    ///
    /// # Errors
    ///
    /// [`StoreError`].
    pub fn day(&self, day: u64) -> Result<Vec<(String, NanoUsd, NanoUsd)>, StoreError> {
        let text = "SELECT strategy, sum(cost), sum(earned) FROM market_jobs \
             WHERE ended_ms >= ?1 AND ended_ms < ?2 GROUP BY strategy";
        let (from, to) = (milliseconds(day * DAY_MS)?, milliseconds((day + 1) * DAY_MS)?);
        let mut query = self.0.connection().prepare_cached(text)?;
        let rows = query.query_map(params![from, to], |found| {
            Ok((found.get(0)?, amount(found.get(1)?), amount(found.get(2)?)))
        })?;
        Ok(rows.collect::<Result<_, _>>()?)
    }

    /// Whether we have bid on it.
    ///
    /// # Errors
    ///
    /// [`StoreError`].
    pub fn job(&self, id: &str) -> Result<Option<Job>, StoreError> {
        Ok(self.jobs("id = ?1", params![id])?.pop())
    }

    /// What a job's key has spent, by the store: settled, and in doubt.
    ///
    /// # Errors
    ///
    /// [`StoreError`].
    pub fn spent(&self, id: &str) -> Result<NanoUsd, StoreError> {
        let text = "SELECT coalesce(sum(settled + in_doubt), 0) FROM accounts \
             WHERE budget = ?1 AND scope = ?2";
        let mut query = self.0.connection().prepare_cached(text)?;
        Ok(amount(query.query_row([IN_TOTAL, &scope(id)], |found| found.get(0))?))
    }

    fn jobs(&self, which: &str, values: &[&dyn rusqlite::ToSql]) -> Result<Vec<Job>, StoreError> {
        let text = format!(
            "SELECT id, strategy, decided_by, model, state, credit, bid, expected, worst, cost, earned, \
             bid_ms, closes_ms, due_ms, ended_ms FROM market_jobs WHERE {which}"
        );
        let mut query = self.0.connection().prepare_cached(&text)?;
        let rows = query.query_map(values, job)?;
        Ok(rows.collect::<Result<_, _>>()?)
    }
}

/// False where it is there, and was not refused.
fn insert(batch: &Batch<'_>, job: &Job) -> Result<bool, StoreError> {
    let add = "INSERT INTO market_jobs (id, strategy, decided_by, model, state, credit, bid, expected, \
         worst, bid_ms, closes_ms, due_ms) VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12) \
         ON CONFLICT DO UPDATE SET strategy = ?2, decided_by = ?3, model = ?4, state = ?5, credit = ?6, \
         bid = ?7, expected = ?8, worst = ?9, bid_ms = ?10, closes_ms = ?11, due_ms = ?12, ended_ms = NULL \
         WHERE state = 'refused'";
    let added = batch.connection().prepare_cached(add)?.execute(params![
        job.id,
        job.strategy,
        job.decided_by,
        job.model,
        job.state.name(),
        number(job.credit),
        number(job.bid),
        number(job.expected),
        number(job.worst),
        milliseconds(job.bid_ms)?,
        milliseconds(job.closes_ms)?,
        milliseconds(job.due_ms)?,
    ])?;
    Ok(added > 0)
}

/// What is beyond [`ENDED_KEPT`], a step's worth. The windows of its keys' accounts have ended then, and
/// pruning takes them.
fn forget(batch: &Batch<'_>) -> Result<(), StoreError> {
    let connection = batch.connection();
    let newest: Option<i64> = connection
        .prepare_cached("SELECT ended_ms FROM market_jobs WHERE ended_ms IS NOT NULL ORDER BY ended_ms DESC LIMIT 1 OFFSET ?1")?
        .query_row([ENDED_KEPT], |found| found.get(0))
        .optional()?;
    if newest.is_none() {
        return Ok(());
    }
    let gone = "SELECT id FROM market_jobs WHERE ended_ms < (SELECT max(ended_ms) FROM market_jobs) - ?1 \
         ORDER BY cost > 0 OR earned > 0, ended_ms, id LIMIT ?2";
    let end = format!(
        "UPDATE accounts SET ends_s = 0 WHERE budget = ?3 AND scope IN (SELECT 'job-' || id FROM ({gone}))"
    );
    let kept_ms = (2 * DAY_MS).cast_signed();
    connection.prepare_cached(&end)?.execute(params![kept_ms, ROWS_MAX, IN_TOTAL])?;
    let remove = format!("DELETE FROM market_jobs WHERE id IN ({gone})");
    connection.prepare_cached(&remove)?.execute(params![kept_ms, ROWS_MAX])?;
    Ok(())
}

fn job(found: &Found<'_>) -> Result<Job, rusqlite::Error> {
    let money = |column: usize| found.get(column).map(amount);
    let time = |column: usize| found.get(column).map(since_epoch);
    let state: String = found.get(4)?;
    Ok(Job {
        id: found.get(0)?,
        strategy: found.get(1)?,
        decided_by: found.get(2)?,
        model: found.get(3)?,
        // What a later version calls otherwise is over for this one.
        state: State::read(&state).unwrap_or(State::Ended(Outcome::Lost)),
        credit: money(5)?,
        bid: money(6)?,
        expected: money(7)?,
        worst: money(8)?,
        cost: money(9)?,
        earned: money(10)?,
        bid_ms: time(11)?,
        closes_ms: time(12)?,
        due_ms: time(13)?,
        ended_ms: found.get::<_, Option<i64>>(14)?.map(since_epoch),
    })
}

#[cfg(test)]
mod tests;
