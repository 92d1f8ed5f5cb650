//! Profit and loss of a market: by job, strategy and day.

use std::fmt;
use std::str::FromStr;

use rusqlite::{Row as Found, named_params};
use sluice_core::money::NanoUsd;

use crate::store::{Store, StoreError, amount};
use crate::usage::Day;

/// Rows of one answer at most.
pub const ROWS_MAX: u32 = 10_000;

/// What is summed by.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum By {
    /// Each strategy.
    #[default]
    Strategy,
    /// Each day in UTC: that of a job's end.
    Day,
    /// Each strategy's days.
    StrategyDay,
    /// Each job.
    Job,
}

/// Why a text names nothing that is summed by.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("wanted strategy, day, strategy-day or job")]
pub struct NotAColumn;

/// Which jobs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Which {
    /// That ended on this day or later.
    pub from: Option<Day>,
    /// That ended on this day or before.
    pub to: Option<Day>,
}

/// One row.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Line {
    /// The day, as `2026-01-31`; empty where it is not asked for, or where jobs have not ended.
    pub day: String,
    /// Its name; empty where it is not asked for.
    pub strategy: String,
    /// The job; empty where it is not asked for.
    pub job: String,
    /// Its state's name, of a single job.
    pub state: String,
    /// Jobs that were bid on.
    pub bids: u64,
    /// Of those, under way.
    pub under_way: u64,
    /// Of those, refused by the market.
    pub refused: u64,
    /// Of those, lost to somebody else.
    pub lost: u64,
    /// Of those, paid.
    pub paid: u64,
    /// Of those, served and not paid.
    pub unpaid: u64,
    /// Of those, ours and not served.
    pub failed: u64,
    /// What was bid on those that were ours.
    pub bid: NanoUsd,
    /// What those that ended have cost.
    pub cost: NanoUsd,
    /// What they have earned.
    pub earned: NanoUsd,
}

impl Line {
    /// What it earned beyond its cost, in dollars; a loss has a sign in front.
    pub fn profit(&self) -> String {
        if self.earned >= self.cost {
            self.earned.saturating_sub(self.cost).to_string()
        } else {
            format!("-{}", self.cost.saturating_sub(self.earned))
        }
    }
}

impl Store {
    /// Profit and loss, the last first.
    ///
    /// # Errors
    ///
    /// [`StoreError`].
    pub fn market_report(&self, by: By, which: Which) -> Result<Vec<Line>, StoreError> {
        let day = "coalesce(date(ended_ms / 1000, 'unixepoch'), '')";
        let (day, strategy, job, state) = match by {
            By::Strategy => ("''", "strategy", "''", "''"),
            By::Day => (day, "''", "''", "''"),
            By::StrategyDay => (day, "strategy", "''", "''"),
            By::Job => (day, "strategy", "id", "max(state)"),
        };
        let is = |state: &str| format!("coalesce(sum(state = '{state}'), 0)");
        let text = format!(
            "SELECT {day} AS day, {strategy} AS strategy, {job} AS job, {state}, count(*), \
             coalesce(sum(ended_ms IS NULL), 0), {}, {}, {}, {}, {}, \
             coalesce(sum(iif(state IN ('won', 'paid', 'unpaid', 'failed'), bid, 0)), 0), \
             coalesce(sum(cost), 0), coalesce(sum(earned), 0) FROM market_jobs \
             WHERE (:from IS NULL OR date(ended_ms / 1000, 'unixepoch') >= :from) \
             AND (:to IS NULL OR date(ended_ms / 1000, 'unixepoch') <= :to) \
             GROUP BY 1, 2, 3 ORDER BY 1 DESC, max(coalesce(ended_ms, bid_ms)) DESC, 2, 3 LIMIT {ROWS_MAX}",
            is("refused"),
            is("lost"),
            is("paid"),
            is("unpaid"),
            is("failed"),
        );
        let day = |day: Option<Day>| day.map(|day| day.to_string());
        let mut query = self.connection().prepare_cached(&text)?;
        let rows = query.query_map(named_params! { ":from": day(which.from), ":to": day(which.to) }, line)?;
        Ok(rows.collect::<Result<_, _>>()?)
    }
}

fn line(found: &Found<'_>) -> Result<Line, rusqlite::Error> {
    let count = |column: usize| found.get::<_, i64>(column).map(i64::unsigned_abs);
    let money = |column: usize| found.get(column).map(amount);
    Ok(Line {
        day: found.get(0)?,
        strategy: found.get(1)?,
        job: found.get(2)?,
        state: found.get(3)?,
        bids: count(4)?,
        under_way: count(5)?,
        refused: count(6)?,
        lost: count(7)?,
        paid: count(8)?,
        unpaid: count(9)?,
        failed: count(10)?,
        bid: money(11)?,
        cost: money(12)?,
        earned: money(13)?,
    })
}

impl By {
    /// Its name.
    pub fn name(self) -> &'static str {
        match self {
            By::Strategy => "strategy",
            By::Day => "day",
            By::StrategyDay => "strategy-day",
            By::Job => "job",
        }
    }
}

impl FromStr for By {
    type Err = NotAColumn;

    fn from_str(name: &str) -> Result<By, NotAColumn> {
        let all = [By::Strategy, By::Day, By::StrategyDay, By::Job];
        all.into_iter().find(|by| by.name() == name).ok_or(NotAColumn)
    }
}

impl fmt::Display for By {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}
