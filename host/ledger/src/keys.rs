//! Client keys: who may ask, for which models, from where, for how much and until when.
//!
//! - [`terms`]: what the operator says of a key, checked
//! - [`secret`]: what the client shows, and what is kept of it
//! - [`ring`]: all keys in memory, to identify requests by
//! - [`acts`]: what operators do: create, revoke, rotate
//! - [`watch`]: how a running gateway notices an act, and how the one who acted hears of it
//!
//! A secret is shown once, to the one who creates or rotates a key. It is stored nowhere.

use std::path::{Path, PathBuf};

use crate::lock::LockError;
use crate::store::{Store, StoreError};

pub mod acts;
pub mod ring;
mod rows;
pub mod secret;
pub mod terms;
pub mod watch;

pub(crate) use rows::TABLES;
use secret::{KeyId, Secrets};
use terms::{BadTerms, Terms};

/// The keys of a database, and what operators did. On a connection of its own.
pub struct KeyStore {
    store: Store,
    /// Where the database is.
    folder: PathBuf,
    /// The database as it was when it was looked at last; none: it has to be looked at.
    looked: Option<i64>,
    /// The generation that was given out last.
    given: Option<u64>,
}

/// A key as it is stored.
#[derive(Clone, Debug)]
pub struct KeyRecord {
    /// What it is found by.
    pub id: KeyId,
    /// What it may do.
    pub terms: Terms,
    /// When it was made, in milliseconds since the Unix epoch.
    pub created_ms: u64,
    /// When it was revoked, likewise; none: it was not.
    pub revoked_ms: Option<u64>,
    pub(crate) secrets: Secrets,
}

/// All keys of a database.
#[derive(Clone, Debug, Default)]
pub struct Listed {
    /// Also those that are revoked or have expired, the oldest first.
    pub records: Vec<KeyRecord>,
    /// Rows that somebody else has written into the database. Nobody is identified by one.
    pub unreadable: Vec<Unreadable>,
}

/// A row that is no key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unreadable {
    /// As it is in the database.
    pub id: String,
    /// What is wrong with it.
    pub why: NotAKey,
}

/// Why a row is no key.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NotAKey {
    /// The id is none of ours.
    #[error("the id has another form")]
    Id,
    /// A digest has another length, or an instant is before the epoch.
    #[error("a value is out of range")]
    Value,
    /// The terms are no JSON of the form that is wanted.
    #[error("the terms cannot be read")]
    Form,
    /// The terms cannot be kept.
    #[error(transparent)]
    Terms(#[from] BadTerms),
}

/// Why keys cannot be worked on.
#[derive(Debug, thiserror::Error)]
pub enum KeyError {
    /// What was written of a key is not in order.
    #[error(transparent)]
    Terms(#[from] BadTerms),
    /// The database does not take it; nothing was changed.
    #[error("the database of the keys")]
    Store(#[from] StoreError),
    /// The system gives no random bytes.
    #[error("drawing a secret")]
    Chance(#[from] getrandom::Error),
    /// Whether a gateway runs cannot be found out.
    #[error("looking for a running gateway")]
    Lock(#[from] LockError),
}

impl KeyStore {
    /// Opens the keys of this database; makes it, if it is not there.
    ///
    /// # Errors
    ///
    /// [`StoreError`], as [`Store::open`].
    pub fn open(file: &Path) -> Result<KeyStore, StoreError> {
        let store = Store::open(file)?;
        // Acts are rare, and nobody expects a power loss to bring back a key that was revoked.
        store.connection().pragma_update(None, "synchronous", "full")?;
        let folder = file.parent().unwrap_or(Path::new("")).to_owned();
        Ok(KeyStore { store, folder, looked: None, given: None })
    }

    /// For what else operators do, and for [`Store::acts`].
    pub fn store(&mut self) -> &mut Store {
        &mut self.store
    }
}

#[cfg(test)]
mod tests;
