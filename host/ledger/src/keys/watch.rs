//! How a running gateway notices what another process does with keys, and says that it has.

use std::path::Path;
use std::time::{Duration, Instant};

use rusqlite::params;

use super::ring::Ring;
use super::rows;
use super::{KeyError, KeyStore};
use crate::lock::DataLock;
use crate::runs::live;
use crate::store::{StoreError, number_of};

/// Of `meta`: the generation that the running gateway goes by.
const SEEN: &str = "keys_seen";

/// Between two looks at whether the gateway has noticed.
const LOOK_EVERY: Duration = Duration::from_millis(20);

/// Whether the running gateway goes by an act.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use]
pub enum Seen {
    /// It does.
    Taken,
    /// None runs; the next one will.
    NobodyRuns,
    /// One runs, and has not said so.
    NotInTime,
}

impl KeyStore {
    /// All keys, if any was changed since this was asked last, by anybody; also where it is asked for
    /// the first time. Takes microseconds where nothing was.
    ///
    /// # Errors
    ///
    /// [`StoreError`]; the change is given the next time.
    pub fn changed(&mut self) -> Result<Option<Ring>, StoreError> {
        // Asked first: what is written from here on is another version, and is looked at next time.
        let version = self.store.data_version()?;
        if self.looked == Some(version) {
            return Ok(None);
        }
        let read = self.store.connection().unchecked_transaction()?;
        let generation = rows::generation(&read)?;
        // Most changes are not of keys.
        let ring = match self.given {
            Some(given) if given == generation => None,
            Some(_) | None => Some(Ring::new(rows::list(&read)?, generation)),
        };
        drop(read);
        self.looked = Some(version);
        self.given = Some(generation);
        Ok(ring)
    }

    /// The running gateway goes by this generation from now on. A smaller one than before says nothing.
    ///
    /// # Errors
    ///
    /// [`StoreError`]; who waits for it may wait in vain then.
    pub fn seen(&mut self, generation: u64) -> Result<(), StoreError> {
        let batch = self.store.batch()?;
        let set = "INSERT INTO meta (name, value) VALUES (?1, ?2) ON CONFLICT DO UPDATE \
             SET value = excluded.value WHERE CAST(excluded.value AS INTEGER) > CAST(value AS INTEGER)";
        batch.connection().prepare_cached(set)?.execute(params![SEEN, generation.to_string()])?;
        batch.commit()
    }

    /// Waits until the running gateway goes by this generation, for so long at most. Blocks its thread.
    ///
    /// # Errors
    ///
    /// [`KeyError`].
    pub fn wait_until_seen(&self, generation: u64, within: Duration) -> Result<Seen, KeyError> {
        self.wait_for(SEEN, generation, within)
    }

    /// The same, for a run that was closed: by [`Closed::Done`](crate::runs::acts::Closed::Done).
    ///
    /// # Errors
    ///
    /// [`KeyError`].
    pub fn wait_until_closed(&self, generation: u64, within: Duration) -> Result<Seen, KeyError> {
        self.wait_for(live::SEEN, generation, within)
    }

    fn wait_for(&self, name: &str, generation: u64, within: Duration) -> Result<Seen, KeyError> {
        let since = Instant::now();
        let folder = if self.folder.as_os_str().is_empty() { Path::new(".") } else { &self.folder };
        loop {
            if number_of(self.store.connection(), name)? >= generation {
                return Ok(Seen::Taken);
            }
            if !DataLock::is_held(folder)? {
                return Ok(Seen::NobodyRuns);
            }
            let left = within.saturating_sub(since.elapsed());
            if left.is_zero() {
                return Ok(Seen::NotInTime);
            }
            #[expect(clippy::disallowed_methods, reason = "the command line waits; no worker does")]
            std::thread::sleep(left.min(LOOK_EVERY));
        }
    }
}
