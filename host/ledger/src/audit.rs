//! What operators did: one row for each act, also for those that were refused.
//!
//! Rows are added and read, and never changed; the newest hundred thousand are kept (see
//! [`pruning`](crate::pruning)).

use rusqlite::params;
use serde_json::Value;

use crate::store::{Batch, Store, StoreError};

/// Rows of one answer at most: a page of them, whatever is asked for.
pub const ROWS_MAX: usize = 1000;

pub(crate) const TABLES: &str = "
CREATE TABLE audit (
    id INTEGER PRIMARY KEY,
    at_ms INTEGER NOT NULL,
    actor TEXT NOT NULL,
    act TEXT NOT NULL,
    subject TEXT NOT NULL,
    detail TEXT NOT NULL,
    outcome TEXT NOT NULL
) STRICT;
";

/// An act, to be written.
#[derive(Clone, Copy, Debug)]
pub struct Act<'a> {
    /// When, in milliseconds since the Unix epoch.
    pub at_ms: u64,
    /// Who: `cli` or `admin`, and from where.
    pub actor: &'a str,
    /// What: a word of a closed set, such as `key.create`.
    pub act: &'static str,
    /// On what: an id or a name.
    pub subject: &'a str,
    /// With what. The caller sees to it that there is no secret in it.
    pub detail: &'a Value,
    /// What came of it: a word of a closed set, `done` where it was done.
    pub outcome: &'static str,
}

/// An act, as it was written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// Later acts have larger ones.
    pub id: i64,
    /// When, in milliseconds since the Unix epoch.
    pub at_ms: u64,
    /// Who.
    pub actor: String,
    /// What.
    pub act: String,
    /// On what.
    pub subject: String,
    /// With what: JSON.
    pub detail: String,
    /// What came of it.
    pub outcome: String,
}

impl Batch<'_> {
    /// Writes an act, together with what it changes or not at all.
    ///
    /// # Errors
    ///
    /// [`StoreError`].
    pub fn add_act(&self, act: &Act<'_>) -> Result<(), StoreError> {
        let Act { at_ms, actor, act, subject, detail, outcome } = act;
        let add = "INSERT INTO audit (at_ms, actor, act, subject, detail, outcome) \
             VALUES (?1, ?2, ?3, ?4, ?5, ?6)";
        let mut add = self.connection().prepare_cached(add)?;
        add.execute(params![milliseconds(*at_ms)?, actor, act, subject, detail.to_string(), outcome])?;
        Ok(())
    }
}

impl Store {
    /// Writes an act that changes nothing here.
    ///
    /// # Errors
    ///
    /// [`StoreError`].
    pub fn add_act(&mut self, act: &Act<'_>) -> Result<(), StoreError> {
        let batch = self.batch()?;
        batch.add_act(act)?;
        batch.commit()
    }

    /// The last acts, the youngest first; only those before the one with the id `before`, where it is
    /// given. No more than `limit`, and no more than [`ROWS_MAX`].
    ///
    /// # Errors
    ///
    /// [`StoreError`].
    pub fn acts(&self, limit: usize, before: Option<i64>) -> Result<Vec<Entry>, StoreError> {
        let query = "SELECT id, at_ms, actor, act, subject, detail, outcome FROM audit \
             WHERE id < coalesce(?1, 9223372036854775807) ORDER BY id DESC LIMIT ?2";
        let mut query = self.connection().prepare_cached(query)?;
        let limit = i64::try_from(limit.min(ROWS_MAX)).unwrap_or(0);
        let rows = query.query_map(params![before, limit], |row| {
            Ok(Entry {
                id: row.get(0)?,
                at_ms: since_epoch(row.get(1)?),
                actor: row.get(2)?,
                act: row.get(3)?,
                subject: row.get(4)?,
                detail: row.get(5)?,
                outcome: row.get(6)?,
            })
        })?;
        Ok(rows.collect::<Result<_, _>>()?)
    }
}

/// An instant, as the database has it.
///
/// # Errors
///
/// [`StoreError::Overflow`]: the time is some hundred million years ahead.
pub(crate) fn milliseconds(at_ms: u64) -> Result<i64, StoreError> {
    i64::try_from(at_ms).map_err(|_| StoreError::Overflow)
}

/// As the database has it: only what is after the epoch is ever written.
pub(crate) fn since_epoch(at_ms: i64) -> u64 {
    u64::try_from(at_ms).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use serde_json::json;
    use tempfile::TempDir;

    use super::*;

    fn store_with(acts: u64) -> (TempDir, Store) {
        let folder = TempDir::new().unwrap();
        let mut store = Store::open(&folder.path().join("sluice.db")).unwrap();
        let batch = store.batch().unwrap();
        for at_ms in 1..=acts {
            let detail = json!({ "number": at_ms });
            let (actor, subject) = ("admin 10.0.0.1", "subject");
            let act = Act { at_ms, actor, act: "key.create", subject, detail: &detail, outcome: "done" };
            batch.add_act(&act).unwrap();
        }
        batch.commit().unwrap();
        (folder, store)
    }

    fn times(entries: &[Entry]) -> Vec<u64> {
        entries.iter().map(|entry| entry.at_ms).collect()
    }

    #[test]
    fn acts_are_read_from_the_youngest_page_by_page() {
        let (_folder, store) = store_with(5);
        let first = store.acts(2, None).unwrap();
        assert_eq!(times(&first), [5, 4]);
        assert_eq!(
            (first[0].actor.as_str(), first[0].detail.as_str()),
            ("admin 10.0.0.1", r#"{"number":5}"#)
        );
        let second = store.acts(2, Some(first[1].id)).unwrap();
        assert_eq!(times(&second), [3, 2]);
        assert_eq!(times(&store.acts(2, Some(second[1].id)).unwrap()), [1]);
        assert_eq!(store.acts(0, None).unwrap(), []);
        assert_eq!(store.acts(2, Some(0)).unwrap(), []);
    }

    #[test]
    fn a_page_has_a_bound() {
        let (_folder, store) = store_with(ROWS_MAX as u64 + 1);
        assert_eq!(store.acts(usize::MAX, None).unwrap().len(), ROWS_MAX);
    }

    #[test]
    fn an_act_of_a_batch_that_is_not_committed_is_not_there() {
        let (_folder, mut store) = store_with(0);
        let detail = Value::Null;
        let act = Act { at_ms: 1, actor: "cli", act: "a", subject: "s", detail: &detail, outcome: "done" };
        let batch = store.batch().unwrap();
        batch.add_act(&act).unwrap();
        drop(batch);
        assert_eq!(store.acts(1, None).unwrap(), []);
        let late = Act { at_ms: u64::MAX, ..act };
        assert!(matches!(store.batch().unwrap().add_act(&late), Err(StoreError::Overflow)));
    }
}
