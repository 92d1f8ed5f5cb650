//! What was used, by key, run, team, model, upstream and day; the last calls; how accounts stand.

use std::fmt;
use std::str::FromStr;

use compact_str::CompactString;
use jiff::civil::Date;
use rusqlite::types::Value;
use rusqlite::{Row as Found, named_params, params_from_iter};
use sluice_core::books::AccountId;
use sluice_core::money::NanoUsd;
use sluice_core::vault::Vault;

use crate::budget::AccountKey;
use crate::rows::{DAY_MS, Row};
use crate::store::{Store, StoreError, amount};

/// Rows of one answer at most, whatever is asked for: an answer is held in memory.
pub const ROWS_MAX: u32 = 100_000;

/// What usage is summed by.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum By {
    /// Each day in UTC.
    Day,
    /// Each key, by its id.
    Key,
    /// Each team.
    Team,
    /// Each run.
    Run,
    /// Each model, as configured.
    Model,
    /// Each upstream.
    Upstream,
}

/// A day in UTC, as `2026-01-31`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Day(Date);

/// Which calls are meant: those that fit all of it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Which {
    /// The first day.
    pub from: Option<Day>,
    /// The last day.
    pub to: Option<Day>,
    /// Of this key, by its id.
    pub key: Option<String>,
    /// Of this team.
    pub team: Option<String>,
    /// Of this run.
    pub run: Option<String>,
    /// Of this model, as configured.
    pub model: Option<String>,
    /// Of this upstream.
    pub upstream: Option<String>,
}

/// A question for sums.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Query {
    /// One row for each of these; a single one for all, where it is empty.
    pub by: Vec<By>,
    /// Of which calls.
    pub which: Which,
    /// Rows at most; more than [`ROWS_MAX`] is as much as that.
    pub limit: u32,
}

/// Its answer.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Answer {
    /// What the names of each row are of; each once.
    pub by: Vec<By>,
    /// By day where that is asked for, then by cost, the largest first.
    pub rows: Vec<Sum>,
    /// There are more rows than the limit.
    pub cut: bool,
}

/// The sums of one row.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sum {
    /// One for each of the answer's `by`. Empty: of none, or, of runs long ago, of all.
    pub names: Vec<String>,
    /// Calls.
    pub calls: u64,
    /// Tokens of the prompts.
    pub input: u64,
    /// Tokens of the answers, with reasoning.
    pub output: u64,
    /// What they cost.
    pub cost: NanoUsd,
}

/// How an account stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Standing {
    /// Its number.
    pub id: AccountId,
    /// Its budget, its scope and its window's start.
    pub key: AccountKey,
    /// What is settled, in doubt and leased.
    pub vault: Vault,
    /// The account of a run that has ended.
    pub closed: bool,
}

/// Why a text is no day.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("wanted a day such as \"2026-01-31\"")]
pub struct NotADay;

/// Why a text names nothing that usage is summed by.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("wanted day, key, team, run, model or upstream")]
pub struct NotAColumn;

/// Without a bound of its own a question is about all days: each is between these two texts.
const DAY_FIRST: &str = "";
const DAY_LAST: &str = "~";

/// Who is meant. The text is fixed; what callers ask for is bound to it.
const WHO: &str = "(?3 IS NULL OR key = ?3) AND (?4 IS NULL OR team = ?4) AND (?5 IS NULL OR run = ?5) \
     AND (?6 IS NULL OR model = ?6) AND (?7 IS NULL OR upstream = ?7)";

// === impl By ===

impl By {
    /// All of them.
    pub const ALL: [By; 6] = [By::Day, By::Key, By::Team, By::Run, By::Model, By::Upstream];

    /// Its word, which is the column's name in the store.
    pub fn name(self) -> &'static str {
        match self {
            By::Day => "day",
            By::Key => "key",
            By::Team => "team",
            By::Run => "run",
            By::Model => "model",
            By::Upstream => "upstream",
        }
    }
}

impl FromStr for By {
    type Err = NotAColumn;

    fn from_str(text: &str) -> Result<By, NotAColumn> {
        By::ALL.into_iter().find(|by| by.name() == text).ok_or(NotAColumn)
    }
}

// === impl Day ===

impl Day {
    const EPOCH: Date = Date::constant(1970, 1, 1);

    /// Its first instant, in milliseconds since the Unix epoch; negative before that.
    pub fn start_ms(self) -> i64 {
        i64::try_from(self.0.duration_since(Day::EPOCH).as_millis()).unwrap_or(i64::MAX)
    }

    /// The first instant after it.
    fn end_ms(self) -> i64 {
        self.start_ms().saturating_add_unsigned(DAY_MS)
    }
}

impl FromStr for Day {
    type Err = NotADay;

    /// Reads `2026-01-31`: four, two and two digits, and a day of the calendar.
    fn from_str(text: &str) -> Result<Day, NotADay> {
        let mut parts = text.splitn(3, '-');
        let mut number = |digits: usize| {
            let part = parts.next().filter(|part| part.len() == digits).ok_or(NotADay)?;
            let all_digits = part.bytes().all(|byte| byte.is_ascii_digit());
            if all_digits { part.parse::<i16>().map_err(|_| NotADay) } else { Err(NotADay) }
        };
        let (year, month, day) = (number(4)?, number(2)?, number(2)?);
        let part = |number: i16| i8::try_from(number).map_err(|_| NotADay);
        Date::new(year, part(month)?, part(day)?).map(Day).map_err(|_| NotADay)
    }
}

impl fmt::Display for Day {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)
    }
}

// === impl Store ===

impl Store {
    /// Sums of what was used.
    ///
    /// # Errors
    ///
    /// [`StoreError`]; also where a sum does not fit.
    pub fn usage(&self, query: &Query) -> Result<Answer, StoreError> {
        let mut by = Vec::new();
        query.by.iter().for_each(|one| {
            if !by.contains(one) {
                by.push(*one);
            }
        });
        let limit = query.limit.min(ROWS_MAX) as usize;
        let mut statement = self.connection().prepare_cached(&sums_text(&by))?;
        let mut values = query.which.values();
        let day = |day: Option<Day>, open: &str| Value::Text(day.map_or(open.into(), |day| day.to_string()));
        values.insert(0, day(query.which.from, DAY_FIRST));
        values.insert(1, day(query.which.to, DAY_LAST));
        // One more than wanted tells whether there are more.
        values.push(Value::Integer(limit as i64 + 1));
        let rows = statement.query_map(params_from_iter(values), |found| sum(found, by.len()))?;
        let mut rows = rows.collect::<Result<Vec<_>, _>>()?;
        let cut = rows.len() > limit;
        rows.truncate(limit);
        Ok(Answer { by, rows, cut })
    }

    /// The newest calls, the newest first, at most so many. Calls that have gone for want of room are
    /// not among them; their sums are in [`Store::usage`].
    ///
    /// # Errors
    ///
    /// [`StoreError`].
    pub fn calls(&self, which: &Which, limit: u32) -> Result<Vec<Row>, StoreError> {
        let text = format!(
            "SELECT at_ms, request, key, team, run, model, upstream, target_model, tried, input, \
             cached_input, cache_write, output, reasoning, calls, cost, first_ms, total_ms, outcome, basis \
             FROM calls WHERE at_ms >= ?1 AND at_ms < ?2 AND {WHO} \
             ORDER BY at_ms DESC, rowid DESC LIMIT ?8"
        );
        let mut statement = self.connection().prepare_cached(&text)?;
        let mut values = which.values();
        values.insert(0, Value::Integer(which.from.map_or(i64::MIN, Day::start_ms)));
        values.insert(1, Value::Integer(which.to.map_or(i64::MAX, Day::end_ms)));
        values.push(Value::Integer(i64::from(limit.min(ROWS_MAX))));
        let rows = statement.query_map(params_from_iter(values), call)?;
        Ok(rows.collect::<Result<_, _>>()?)
    }

    /// How the accounts stand, of one budget or of all: by budget, window and scope, at most so many.
    /// What a gateway that runs has settled in the last moments is still in `leased`.
    ///
    /// # Errors
    ///
    /// [`StoreError`].
    pub fn accounts(&self, budget: Option<&str>, limit: u32) -> Result<Vec<Standing>, StoreError> {
        let text = "SELECT id, budget, scope, start_s, settled, in_doubt, \
             EXISTS (SELECT 1 FROM runs WHERE runs.scope = accounts.scope \
                 AND runs.budget = accounts.budget AND ended_s IS NOT NULL), \
             (SELECT coalesce(sum(leased), 0) FROM leases WHERE account = id) FROM accounts \
             WHERE :budget IS NULL OR budget = :budget ORDER BY budget, start_s, scope LIMIT :limit";
        let mut statement = self.connection().prepare_cached(text)?;
        let params = named_params! { ":budget": budget, ":limit": limit.min(ROWS_MAX) };
        let rows = statement.query_map(params, |found| {
            let money = |column| found.get(column).map(amount);
            Ok(Standing {
                id: AccountId(found.get(0)?),
                key: account_key(found, 1)?,
                vault: Vault { settled: money(4)?, in_doubt: money(5)?, leased: money(7)? },
                closed: found.get(6)?,
            })
        })?;
        Ok(rows.collect::<Result<_, _>>()?)
    }
}

impl Which {
    /// What is bound to [`WHO`].
    fn values(&self) -> Vec<Value> {
        let Which { from: _, to: _, key, team, run, model, upstream } = self;
        let value = |name: &Option<String>| name.clone().map_or(Value::Null, Value::Text);
        [key, team, run, model, upstream].map(value).into()
    }
}

/// Made of [`By::name`] alone, never of what a caller says.
fn sums_text(by: &[By]) -> String {
    let columns: String = by.iter().map(|by| format!("{}, ", by.name())).collect();
    let numbers: Vec<String> = (1..=by.len()).map(|number| number.to_string()).collect();
    let group = if by.is_empty() { String::new() } else { format!("GROUP BY {}", numbers.join(", ")) };
    let day = if by.contains(&By::Day) { "day, " } else { "" };
    // Names come last, so that equal costs are in the same order each time.
    let names: String = numbers.iter().map(|number| format!(", {number}")).collect();
    format!(
        "SELECT {columns}sum(calls), sum(input), sum(output), sum(cost) FROM usage \
         WHERE day >= ?1 AND day <= ?2 AND {WHO} {group} HAVING count(*) > 0 \
         ORDER BY {day}sum(cost) DESC{names} LIMIT ?8"
    )
}

fn sum(found: &Found<'_>, names: usize) -> rusqlite::Result<Sum> {
    Ok(Sum {
        names: (0..names).map(|column| found.get(column)).collect::<Result<_, _>>()?,
        calls: count(found, names)?,
        input: count(found, names + 1)?,
        output: count(found, names + 2)?,
        cost: amount(found.get(names + 3)?),
    })
}

fn call(found: &Found<'_>) -> rusqlite::Result<Row> {
    Ok(Row {
        at_ms: count(found, 0)?,
        request: text(found, 1)?,
        key: text(found, 2)?,
        team: text(found, 3)?,
        run: text(found, 4)?,
        model: text(found, 5)?,
        upstream: text(found, 6)?,
        target_model: text(found, 7)?,
        tried: text(found, 8)?,
        input: count(found, 9)?,
        cached_input: count(found, 10)?,
        cache_write: count(found, 11)?,
        output: count(found, 12)?,
        reasoning: count(found, 13)?,
        calls: count(found, 14)?,
        cost: amount(found.get(15)?).nanos(),
        first_ms: found.get(16)?,
        total_ms: found.get(17)?,
        outcome: text(found, 18)?,
        basis: text(found, 19)?,
    })
}

/// The account's key in three columns from here on.
pub(crate) fn account_key(found: &Found<'_>, column: usize) -> rusqlite::Result<AccountKey> {
    Ok(AccountKey {
        budget: found.get::<_, String>(column)?.into(),
        scope: found.get::<_, String>(column + 1)?.into(),
        start_s: found.get(column + 2)?,
    })
}

fn text(found: &Found<'_>, column: usize) -> rusqlite::Result<CompactString> {
    Ok(found.get_ref(column)?.as_str()?.into())
}

/// Counts are never negative: only what fits is ever written.
fn count(found: &Found<'_>, column: usize) -> rusqlite::Result<u64> {
    Ok(u64::try_from(found.get::<_, i64>(column)?).unwrap_or(0))
}

#[cfg(test)]
mod tests;
