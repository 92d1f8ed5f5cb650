//! What operators do with keys: create, rotate, revoke.
//!
//! Each act and its audit row are written together or not at all, also where the act is refused. An
//! act that changes a key raises the generation, by which a running gateway notices it.

use std::time::Duration;

use rusqlite::{OptionalExtension, params};
use serde_json::{Value, json};

use super::rows::{self, GENERATION};
use super::secret::{Digest, KeyId, NewKey, Secrets};
use super::terms::{Draft, Terms};
use super::{KeyError, KeyRecord, KeyStore, Listed};
use crate::audit::{Act, milliseconds, since_epoch};
use crate::store::{Batch, StoreError};

/// What came of the wish to create a key.
#[derive(Debug)]
#[must_use]
pub enum Created {
    /// There is one now.
    Done {
        /// To be shown to its owner.
        key: NewKey,
        /// As it is stored.
        record: Box<KeyRecord>,
        /// To wait for, with [`KeyStore::wait_until_seen`].
        generation: u64,
    },
    /// A key that is not revoked has the name.
    NameTaken,
}

/// What came of the wish to rotate a key.
#[derive(Debug)]
#[must_use]
pub enum Rotated {
    /// It has a new secret.
    Done {
        /// To be shown to its owner.
        key: NewKey,
        /// The first millisecond, since the Unix epoch, at which the secret before does not work.
        until_ms: u64,
        /// To wait for.
        generation: u64,
    },
    /// It was revoked before, and stays so.
    Revoked,
    /// Its time is over: a new secret would not work either.
    Expired,
    /// There is no such key.
    Unknown,
}

/// What came of the wish to revoke a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use]
pub enum Revoked {
    /// It does not work any more.
    Done {
        /// To wait for.
        generation: u64,
    },
    /// It was revoked before.
    Already {
        /// When, in milliseconds since the Unix epoch.
        since_ms: u64,
    },
    /// There is no such key.
    Unknown,
}

/// Who acts, and when.
#[derive(Clone, Copy)]
struct By<'a> {
    actor: &'a str,
    at_ms: u64,
}

/// A key's state, as an act finds it.
struct Found {
    revoked_ms: Option<i64>,
    expires_ms: Option<i64>,
}

impl KeyStore {
    /// All keys.
    ///
    /// # Errors
    ///
    /// [`StoreError`].
    pub fn list(&self) -> Result<Listed, StoreError> {
        rows::list(self.store.connection())
    }

    /// Makes a key. `actor` is who wishes it: `cli` or `admin`, with an address.
    ///
    /// # Errors
    ///
    /// [`KeyError`]; there is no key then. [`KeyError::Terms`] where the draft is not in order: that
    /// is no act, and not in the audit.
    pub fn create(&mut self, actor: &str, draft: &Draft, now_ms: u64) -> Result<Created, KeyError> {
        let terms = Terms::check(draft, now_ms)?;
        let id = KeyId::random()?;
        let key = NewKey::draw(id)?;
        let secrets = Secrets { current: key.digest(), before: None };
        let terms_json = json(&terms)?;
        let by = By { actor, at_ms: now_ms };
        let batch = self.begin()?;
        // The index decides: whoever looked first could be overtaken.
        let add = "INSERT INTO keys (id, terms, created_ms, digest) VALUES (?1, ?2, ?3, ?4) \
             ON CONFLICT (name) WHERE revoked_ms IS NULL DO NOTHING";
        let values = params![id.as_str(), terms_json.to_string(), milliseconds(now_ms)?, secrets.current.0];
        let added = batch.connection().prepare_cached(add).and_then(|mut add| add.execute(values));
        if added.map_err(StoreError::from)? == 0 {
            by.note(&batch, "key.create", terms.name(), &terms_json, "name_taken")?;
            batch.commit()?;
            return Ok(Created::NameTaken);
        }
        by.note(&batch, "key.create", id.as_str(), &terms_json, "done")?;
        let generation = raise_generation(&batch)?;
        batch.commit()?;
        let record = KeyRecord { id, terms, created_ms: now_ms, revoked_ms: None, secrets };
        Ok(Created::Done { key, record: Box::new(record), generation })
    }

    /// Gives a key a new secret. The one before works for `grace` from now on, a part of a millisecond
    /// left out; one before that does not work any more.
    ///
    /// # Errors
    ///
    /// [`KeyError`]; nothing has changed then. [`StoreError::Overflow`] where the grace does not fit.
    pub fn rotate(
        &mut self,
        actor: &str,
        id: KeyId,
        grace: Duration,
        now_ms: u64,
    ) -> Result<Rotated, KeyError> {
        let key = NewKey::draw(id)?;
        let until_ms = u64::try_from(grace.as_millis()).ok().and_then(|grace| now_ms.checked_add(grace));
        let until_ms = until_ms.ok_or(StoreError::Overflow)?;
        let by = By { actor, at_ms: now_ms };
        let detail = json!({ "before_until_ms": until_ms });
        let batch = self.begin()?;
        let refusal = match find(&batch, id)? {
            None => Some((Rotated::Unknown, "unknown")),
            Some(Found { revoked_ms: Some(_), .. }) => Some((Rotated::Revoked, "revoked")),
            Some(Found { expires_ms: Some(at), .. }) if at <= milliseconds(now_ms)? => {
                Some((Rotated::Expired, "expired"))
            }
            Some(_) => None,
        };
        if let Some((refusal, outcome)) = refusal {
            by.note(&batch, "key.rotate", id.as_str(), &detail, outcome)?;
            batch.commit()?;
            return Ok(refusal);
        }
        set_digest(&batch, id, &key.digest(), (until_ms > now_ms).then_some(until_ms))?;
        by.note(&batch, "key.rotate", id.as_str(), &detail, "done")?;
        let generation = raise_generation(&batch)?;
        batch.commit()?;
        Ok(Rotated::Done { key, until_ms, generation })
    }

    /// Ends a key; its name is free again.
    ///
    /// # Errors
    ///
    /// [`KeyError`]; it goes on then.
    pub fn revoke(&mut self, actor: &str, id: KeyId, now_ms: u64) -> Result<Revoked, KeyError> {
        let by = By { actor, at_ms: now_ms };
        let batch = self.begin()?;
        let (revoked, outcome) = match find(&batch, id)? {
            None => (Revoked::Unknown, "unknown"),
            Some(Found { revoked_ms: Some(since_ms), .. }) => {
                (Revoked::Already { since_ms: since_epoch(since_ms) }, "already_revoked")
            }
            Some(Found { revoked_ms: None, .. }) => {
                let set = "UPDATE keys SET revoked_ms = ?2 WHERE id = ?1";
                let mut set = batch.connection().prepare_cached(set).map_err(StoreError::from)?;
                let values = params![id.as_str(), milliseconds(now_ms)?];
                set.execute(values).map_err(StoreError::from)?;
                (Revoked::Done { generation: raise_generation(&batch)? }, "done")
            }
        };
        by.note(&batch, "key.revoke", id.as_str(), &json!({}), outcome)?;
        batch.commit()?;
        Ok(revoked)
    }

    /// What we write ourselves the database does not show us as a change.
    fn begin(&mut self) -> Result<Batch<'_>, StoreError> {
        self.looked = None;
        self.store.batch()
    }
}

impl By<'_> {
    fn note(
        self,
        batch: &Batch<'_>,
        act: &'static str,
        subject: &str,
        detail: &Value,
        outcome: &'static str,
    ) -> Result<(), StoreError> {
        let By { actor, at_ms } = self;
        batch.add_act(&Act { at_ms, actor, act, subject, detail, outcome })
    }
}

fn find(batch: &Batch<'_>, id: KeyId) -> Result<Option<Found>, StoreError> {
    let query = "SELECT revoked_ms, CAST(terms ->> '$.expires_ms' AS INTEGER) FROM keys WHERE id = ?1";
    let mut query = batch.connection().prepare_cached(query)?;
    let found =
        query.query_row([id.as_str()], |row| Ok(Found { revoked_ms: row.get(0)?, expires_ms: row.get(1)? }));
    Ok(found.optional()?)
}

/// Sets a new digest; the one before counts until then, or not at all.
fn set_digest(
    batch: &Batch<'_>,
    id: KeyId,
    digest: &Digest,
    before_until_ms: Option<u64>,
) -> Result<(), StoreError> {
    let set = "UPDATE keys SET before_digest = iif(?3 IS NULL, NULL, digest), before_until_ms = ?3, \
         digest = ?2 WHERE id = ?1";
    let until_ms = before_until_ms.map(milliseconds).transpose()?;
    let mut set = batch.connection().prepare_cached(set)?;
    set.execute(params![id.as_str(), digest.0, until_ms])?;
    Ok(())
}

fn raise_generation(batch: &Batch<'_>) -> Result<u64, StoreError> {
    batch.raise(GENERATION)
}

fn json(terms: &Terms) -> Result<Value, StoreError> {
    let broken = |error| StoreError::Broken(rusqlite::Error::ToSqlConversionFailure(Box::new(error)));
    serde_json::to_value(terms.draft()).map_err(broken)
}
