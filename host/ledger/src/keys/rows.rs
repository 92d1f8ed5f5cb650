//! How keys lie in the database: their terms as JSON, their secrets as digests.

use rusqlite::{Connection, Row};

use super::secret::{Before, Digest, KeyId, Secrets};
use super::terms::{Draft, Terms};
use super::{KeyRecord, Listed, NotAKey, Unreadable};
use crate::store::{StoreError, number_of};

pub(crate) const TABLES: &str = "
CREATE TABLE keys (
    id TEXT NOT NULL PRIMARY KEY,
    terms TEXT NOT NULL,
    name TEXT NOT NULL AS (terms ->> '$.name') STORED,
    created_ms INTEGER NOT NULL,
    revoked_ms INTEGER,
    digest BLOB NOT NULL,
    before_digest BLOB,
    before_until_ms INTEGER
) STRICT, WITHOUT ROWID;
CREATE UNIQUE INDEX keys_by_name ON keys (name) WHERE revoked_ms IS NULL;
";

/// Of `meta`: how many acts have changed a key.
pub(super) const GENERATION: &str = "keys_generation";

/// A key's columns, as they are.
struct Raw {
    id: String,
    terms: String,
    created_ms: i64,
    revoked_ms: Option<i64>,
    digest: Vec<u8>,
    before: Option<(Vec<u8>, i64)>,
}

/// Every key, the oldest first.
pub(super) fn list(connection: &Connection) -> Result<Listed, StoreError> {
    let query = "SELECT id, terms, created_ms, revoked_ms, digest, before_digest, before_until_ms \
         FROM keys ORDER BY created_ms, id";
    let mut query = connection.prepare_cached(query)?;
    let mut listed = Listed::default();
    for raw in query.query_map([], Raw::read)? {
        let raw = raw?;
        // One bad row must not keep the others from being taken: one of them may be a revocation.
        match raw.check() {
            Ok(record) => listed.records.push(record),
            Err(why) => listed.unreadable.push(Unreadable { id: raw.id, why }),
        }
    }
    Ok(listed)
}

/// How many acts have changed a key.
pub(super) fn generation(connection: &Connection) -> Result<u64, StoreError> {
    number_of(connection, GENERATION)
}

impl Raw {
    fn read(row: &Row<'_>) -> rusqlite::Result<Raw> {
        let before: Option<Vec<u8>> = row.get(5)?;
        let until_ms: Option<i64> = row.get(6)?;
        Ok(Raw {
            id: row.get(0)?,
            terms: row.get(1)?,
            created_ms: row.get(2)?,
            revoked_ms: row.get(3)?,
            digest: row.get(4)?,
            before: before.zip(until_ms),
        })
    }

    fn check(&self) -> Result<KeyRecord, NotAKey> {
        let id: KeyId = self.id.parse().map_err(|_| NotAKey::Id)?;
        let created_ms = instant(self.created_ms)?;
        let draft: Draft = serde_json::from_str(&self.terms).map_err(|_| NotAKey::Form)?;
        let before = self.before.as_ref().map(|(bytes, until_ms)| -> Result<Before, NotAKey> {
            Ok(Before { digest: digest(bytes)?, until_ms: instant(*until_ms)? })
        });
        Ok(KeyRecord {
            id,
            terms: Terms::check(&draft, created_ms)?,
            created_ms,
            revoked_ms: self.revoked_ms.map(instant).transpose()?,
            secrets: Secrets { current: digest(&self.digest)?, before: before.transpose()? },
        })
    }
}

fn instant(at_ms: i64) -> Result<u64, NotAKey> {
    u64::try_from(at_ms).map_err(|_| NotAKey::Value)
}

fn digest(bytes: &[u8]) -> Result<Digest, NotAKey> {
    bytes.try_into().map(Digest).map_err(|_| NotAKey::Value)
}
