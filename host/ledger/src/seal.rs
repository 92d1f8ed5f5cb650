//! Secrets that the gateway keeps for itself: sealed with a master key, which is not in the database.
//!
//! A copy of the database, or a backup of it, is of no use to who does not have the master key. That is
//! the operator's, or a file of the data folder that is made when it is first needed ([`master`]).
//! Whose name or end of life is changed in the database does not open any more.

use std::fmt;
use std::path::{Path, PathBuf};

use ring::aead::{Aad, CHACHA20_POLY1305, LessSafeKey, NONCE_LEN, Nonce, UnboundKey};
use ring::hmac;
use rusqlite::{OptionalExtension, params};

use crate::audit::{Act, milliseconds, since_epoch};
use crate::store::{Batch, Store, StoreError};

pub mod master;

use master::{MasterKey, MasterKeyError};

/// Bytes of a secret at most. The longest are tokens, of some hundred bytes.
pub const PLAIN_BYTES_MAX: usize = 16 * 1024;

/// Bytes of the secret that keys for jobs are derived from.
const JOB_SECRET_BYTES: usize = 32;

/// What is kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Name {
    /// What the market's login has given: it stands for a person, for an hour or so.
    MarketToken,
    /// The API key of the market.
    MarketKey,
    /// From which the keys are derived that the market is given for jobs.
    JobSecret,
}

/// Something secret, in clear.
#[derive(Clone, PartialEq, Eq)]
pub struct Plain(Vec<u8>);

/// A secret as it was kept.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Opened {
    /// The secret.
    pub plain: Plain,
    /// When it was kept, in milliseconds since the Unix epoch.
    pub sealed_ms: u64,
    /// When it is of no use any more, likewise; none: nobody has said.
    pub expires_ms: Option<u64>,
}

/// The gateway's own secret, from which others are derived. It stays the same, over restarts too.
#[derive(Clone, PartialEq, Eq)]
pub struct JobSecret([u8; JOB_SECRET_BYTES]);

/// Why a secret is not kept, or not had.
#[derive(Debug, thiserror::Error)]
pub enum SealError {
    /// There is no master key, or none that may be used.
    #[error(transparent)]
    Master(#[from] MasterKeyError),
    /// The key is another one.
    #[error(
        "what is kept was sealed with another master key: put that one back, or let `sluice market forget` drop what nobody can open"
    )]
    OtherMaster,
    /// The key is the right one, and yet it does not open.
    #[error("the secret {} was changed in the database by somebody else", .0.text())]
    Changed(Name),
    /// It is longer than [`PLAIN_BYTES_MAX`], or empty.
    #[error("a secret of this length is not kept")]
    Length,
    /// The cipher does not do it.
    #[error("the cipher fails")]
    Cipher,
    /// The system gives no random bytes.
    #[error("drawing a secret")]
    Chance(#[from] getrandom::Error),
    /// The database does not take or give it.
    #[error("the database of the secrets")]
    Store(#[from] StoreError),
}

/// The secrets of a data folder. On a connection of its own; other processes may work on them too.
pub struct SecretStore {
    store: Store,
    folder: PathBuf,
    /// The operator's; none: the folder's own.
    configured: Option<MasterKey>,
}

/// A row, as it is.
struct Row {
    sealed: Vec<u8>,
    master: Vec<u8>,
    sealed_ms: u64,
    expires_ms: Option<u64>,
}

impl Name {
    /// As it stands in the database.
    pub fn text(self) -> &'static str {
        match self {
            Name::MarketToken => "market.token",
            Name::MarketKey => "market.key",
            Name::JobSecret => "market.jobs",
        }
    }
}

impl Plain {
    /// The secret itself.
    pub fn reveal(&self) -> &[u8] {
        &self.0
    }

    /// The secret itself, where it is text.
    pub fn reveal_text(&self) -> Option<&str> {
        std::str::from_utf8(&self.0).ok()
    }
}

impl fmt::Debug for Plain {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Plain(..)")
    }
}

impl JobSecret {
    /// Of these bytes, which nobody else knows.
    pub fn new(bytes: [u8; JOB_SECRET_BYTES]) -> JobSecret {
        JobSecret(bytes)
    }

    /// Another secret, which belongs to this text alone (HMAC-SHA256).
    pub fn derive(&self, text: &str) -> [u8; 32] {
        derived(&self.0, text.as_bytes())
    }
}

impl fmt::Debug for JobSecret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("JobSecret(..)")
    }
}

impl SecretStore {
    /// Opens the secrets of this data folder, which must be there. No master key is needed until there
    /// is something to seal or to open.
    ///
    /// # Errors
    ///
    /// [`StoreError`], as [`Store::open`].
    pub fn open(folder: &Path, configured: Option<MasterKey>) -> Result<SecretStore, StoreError> {
        let store = Store::open(&folder.join("sluice.db"))?;
        // Rare, and what was given once is not given again.
        store.connection().pragma_update(None, "synchronous", "full")?;
        Ok(SecretStore { store, folder: folder.to_owned(), configured })
    }

    /// For the audit, and for what else operators do.
    pub fn store(&mut self) -> &mut Store {
        &mut self.store
    }

    /// A secret; none: it was never kept, or is forgotten. Reads the database each time: what another
    /// process keeps is seen at once.
    ///
    /// # Errors
    ///
    /// [`SealError`], [`SealError::OtherMaster`] before all.
    pub fn read(&self, name: Name) -> Result<Option<Opened>, SealError> {
        let Some(row) = row(self.store.connection(), name)? else { return Ok(None) };
        let master = self.master_in_use()?;
        open(&master, name, row).map(Some)
    }

    /// Makes sure that a secret could be kept: who is about to be given one that is given once asks
    /// first. Makes the folder's master key, if it has none.
    ///
    /// # Errors
    ///
    /// [`SealError`].
    pub fn prepare(&mut self) -> Result<(), SealError> {
        let master = self.master_to_seal()?;
        let batch = self.store.batch()?;
        check_master(&batch, &master)
    }

    /// Keeps a secret, in the place of the one before, together with the act or not at all.
    ///
    /// # Errors
    ///
    /// [`SealError`]; nothing has changed then.
    pub fn keep(
        &mut self,
        name: Name,
        plain: &[u8],
        expires_ms: Option<u64>,
        act: &Act<'_>,
    ) -> Result<(), SealError> {
        let master = self.master_to_seal()?;
        let batch = self.store.batch()?;
        check_master(&batch, &master)?;
        write(&batch, &master, name, plain, act.at_ms, expires_ms)?;
        batch.add_act(act)?;
        Ok(batch.commit()?)
    }

    /// Forgets all that is kept, and with it which master key it was sealed with.
    ///
    /// # Errors
    ///
    /// [`StoreError`]; nothing has changed then.
    pub fn forget_all(&mut self, act: &Act<'_>) -> Result<(), StoreError> {
        let batch = self.store.batch()?;
        batch.connection().execute("DELETE FROM secrets", [])?;
        batch.add_act(act)?;
        batch.commit()
    }

    /// The secret that keys for jobs are derived from; drawn once, whoever asks first.
    ///
    /// # Errors
    ///
    /// [`SealError`].
    pub fn job_secret(&mut self, now_ms: u64) -> Result<JobSecret, SealError> {
        let master = self.master_to_seal()?;
        let batch = self.store.batch()?;
        if let Some(row) = row(batch.connection(), Name::JobSecret)? {
            return job_secret(&open(&master, Name::JobSecret, row)?.plain);
        }
        check_master(&batch, &master)?;
        let mut drawn = [0; JOB_SECRET_BYTES];
        getrandom::fill(&mut drawn)?;
        write(&batch, &master, Name::JobSecret, &drawn, now_ms, None)?;
        batch.commit()?;
        Ok(JobSecret(drawn))
    }

    /// Of what was sealed already.
    fn master_in_use(&self) -> Result<MasterKey, SealError> {
        match &self.configured {
            Some(master) => Ok(master.clone()),
            None => Ok(MasterKey::read(&self.folder)?),
        }
    }

    /// Where nothing was sealed yet, the folder's own key may be made.
    fn master_to_seal(&self) -> Result<MasterKey, SealError> {
        match &self.configured {
            Some(master) => Ok(master.clone()),
            None if is_empty(&self.store)? => Ok(MasterKey::read_or_make(&self.folder)?),
            None => Ok(MasterKey::read(&self.folder)?),
        }
    }
}

fn is_empty(store: &Store) -> Result<bool, StoreError> {
    let query = "SELECT NOT EXISTS (SELECT 1 FROM secrets)";
    Ok(store.connection().query_row(query, [], |row| row.get(0))?)
}

/// One database has one master key: half of it that nobody can open would be found out too late.
fn check_master(batch: &Batch<'_>, master: &MasterKey) -> Result<(), SealError> {
    let query = "SELECT EXISTS (SELECT 1 FROM secrets WHERE master <> ?1)";
    let other = batch.connection().query_row(query, [master.id()], |row| row.get(0));
    if other.map_err(StoreError::from)? { Err(SealError::OtherMaster) } else { Ok(()) }
}

fn row(connection: &rusqlite::Connection, name: Name) -> Result<Option<Row>, StoreError> {
    let query = "SELECT sealed, master, sealed_ms, expires_ms FROM secrets WHERE name = ?1";
    let mut query = connection.prepare_cached(query)?;
    let found = query.query_row([name.text()], |row| {
        let expires_ms: Option<i64> = row.get(3)?;
        Ok(Row {
            sealed: row.get(0)?,
            master: row.get(1)?,
            sealed_ms: since_epoch(row.get(2)?),
            expires_ms: expires_ms.map(since_epoch),
        })
    });
    Ok(found.optional()?)
}

fn write(
    batch: &Batch<'_>,
    master: &MasterKey,
    name: Name,
    plain: &[u8],
    now_ms: u64,
    expires_ms: Option<u64>,
) -> Result<(), SealError> {
    let sealed = seal(master, name, plain, expires_ms)?;
    let expires_ms = expires_ms.map(milliseconds).transpose()?;
    let write = "INSERT OR REPLACE INTO secrets (name, sealed, master, sealed_ms, expires_ms) \
         VALUES (?1, ?2, ?3, ?4, ?5)";
    let row = params![name.text(), sealed, master.id(), milliseconds(now_ms)?, expires_ms];
    batch.connection().execute(write, row).map_err(StoreError::from)?;
    Ok(())
}

/// The nonce, then what is sealed. A nonce is drawn each time: of some secrets an hour no two are the
/// same in 96 bits.
fn seal(master: &MasterKey, name: Name, plain: &[u8], expires_ms: Option<u64>) -> Result<Vec<u8>, SealError> {
    if plain.is_empty() || plain.len() > PLAIN_BYTES_MAX {
        return Err(SealError::Length);
    }
    let mut nonce = [0; NONCE_LEN];
    getrandom::fill(&mut nonce)?;
    let mut body = plain.to_vec();
    cipher(master)?
        .seal_in_place_append_tag(
            Nonce::assume_unique_for_key(nonce),
            Aad::from(bound_to(name, expires_ms)),
            &mut body,
        )
        .map_err(|_| SealError::Cipher)?;
    Ok([&nonce, body.as_slice()].concat())
}

fn open(master: &MasterKey, name: Name, row: Row) -> Result<Opened, SealError> {
    let Row { mut sealed, master: sealed_with, sealed_ms, expires_ms } = row;
    if sealed_with != master.id() {
        return Err(SealError::OtherMaster);
    }
    let (nonce, body) = sealed.split_at_mut_checked(NONCE_LEN).ok_or(SealError::Changed(name))?;
    let nonce = Nonce::try_assume_unique_for_key(nonce).map_err(|_| SealError::Changed(name))?;
    let aad = Aad::from(bound_to(name, expires_ms));
    let plain = cipher(master)?.open_in_place(nonce, aad, body).map_err(|_| SealError::Changed(name))?;
    Ok(Opened { plain: Plain(plain.to_vec()), sealed_ms, expires_ms })
}

/// What a sealed secret belongs to: nobody can give it another name, or a longer life.
fn bound_to(name: Name, expires_ms: Option<u64>) -> Vec<u8> {
    let until = expires_ms.map_or_else(String::new, |at| at.to_string());
    format!("sluice secret 1\n{}\n{until}", name.text()).into_bytes()
}

fn cipher(master: &MasterKey) -> Result<LessSafeKey, SealError> {
    let key = UnboundKey::new(&CHACHA20_POLY1305, &master.sealing_key()).map_err(|_| SealError::Cipher)?;
    Ok(LessSafeKey::new(key))
}

fn job_secret(plain: &Plain) -> Result<JobSecret, SealError> {
    let bytes = plain.reveal().try_into().map_err(|_| SealError::Changed(Name::JobSecret))?;
    Ok(JobSecret(bytes))
}

/// HMAC-SHA256.
fn derived(key: &[u8; 32], text: &[u8]) -> [u8; 32] {
    let mut bytes = [0; 32];
    bytes.copy_from_slice(hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, key), text).as_ref());
    bytes
}

#[cfg(test)]
mod tests;
