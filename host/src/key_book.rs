//! Client keys while the gateway runs: all of them in memory, replaced whole when any has changed.

use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

use arc_swap::ArcSwap;
use sluice_ledger::keys::ring::Ring;
use sluice_ledger::keys::{KeyError, KeyStore};
use sluice_ledger::store::StoreError;

/// Between two looks at what other processes have changed.
const LOOK_EVERY: Duration = Duration::from_millis(100);

/// The keys, and who changes them.
pub(crate) struct KeyBook {
    ring: ArcSwap<Ring>,
    store: Mutex<KeyStore>,
    /// The generation of which others were told last that it is gone by.
    told: AtomicU64,
    /// Dropped, the thread that looks ends.
    _looks: SyncSender<()>,
}

/// An act that was done.
#[derive(Debug)]
pub(crate) struct Done<T> {
    pub(crate) what: T,
    /// Requests go by it already. Else they do in a moment.
    pub(crate) holds: bool,
}

/// Why there are no keys.
#[derive(Debug, thiserror::Error)]
pub(crate) enum KeyBookError {
    #[error("reading the keys")]
    Store(#[from] StoreError),
    #[error("starting to look for changes of keys")]
    Thread(#[from] std::io::Error),
}

impl KeyBook {
    /// Reads the keys of the database in this folder, and looks for changes from now on.
    ///
    /// # Errors
    ///
    /// [`KeyBookError`].
    pub(crate) fn open(folder: &Path) -> Result<Arc<KeyBook>, KeyBookError> {
        let store = KeyStore::open(&folder.join("sluice.db"))?;
        let (looks, ended) = sync_channel(1);
        let book = Arc::new(KeyBook {
            ring: ArcSwap::default(),
            store: Mutex::new(store),
            told: AtomicU64::new(0),
            _looks: looks,
        });
        book.look()?;
        let weak = Arc::downgrade(&book);
        std::thread::Builder::new().name("keys".into()).spawn(move || watch(&weak, &ended))?;
        Ok(book)
    }

    pub(crate) fn ring(&self) -> Arc<Ring> {
        self.ring.load_full()
    }

    /// Does what an operator wants, off the workers. An act that is done is no error, whatever comes
    /// after it: what it says is said this once.
    ///
    /// # Errors
    ///
    /// [`KeyError`]; it is not done.
    pub(crate) async fn act<T: Send + 'static>(
        self: &Arc<KeyBook>,
        act: impl FnOnce(&mut KeyStore) -> Result<T, KeyError> + Send + 'static,
    ) -> Result<Done<T>, KeyError> {
        let book = Arc::clone(self);
        let done = tokio::task::spawn_blocking(move || {
            let what = act(&mut book.lock())?;
            let taken = book.take();
            let holds = taken.is_ok();
            if let Err(error) = taken.and_then(|()| book.tell()) {
                tracing::warn!(
                    reason = error.code(),
                    holds,
                    "an act on keys was done; not all have taken notice"
                );
            }
            Ok(Done { what, holds })
        });
        done.await.unwrap_or(Err(KeyError::Store(StoreError::Locked)))
    }

    fn look(&self) -> Result<(), StoreError> {
        self.take()?;
        self.tell()
    }

    /// Goes by what has changed.
    fn take(&self) -> Result<(), StoreError> {
        let mut store = self.lock();
        if let Some(ring) = store.changed()? {
            for row in ring.unreadable() {
                tracing::error!(key = row.id, why = %row.why, "a key cannot be read, and does not work");
            }
            self.ring.store(Arc::new(ring));
        }
        Ok(())
    }

    /// Tells who waits for it.
    fn tell(&self) -> Result<(), StoreError> {
        let mut store = self.lock();
        let generation = self.ring.load().generation();
        if self.told.load(Ordering::Relaxed) < generation {
            store.seen(generation)?;
            self.told.store(generation, Ordering::Relaxed);
        }
        Ok(())
    }

    fn lock(&self) -> MutexGuard<'_, KeyStore> {
        self.store.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn watch(book: &Weak<KeyBook>, ended: &Receiver<()>) {
    let mut troubled = false;
    while let Err(RecvTimeoutError::Timeout) = ended.recv_timeout(LOOK_EVERY) {
        let Some(book) = book.upgrade() else { return };
        let looked = book.look();
        if let Err(error) = &looked
            && !troubled
        {
            tracing::error!(reason = error.code(), "changes of keys are not seen");
        }
        troubled = looked.is_err();
    }
}

#[cfg(test)]
mod tests {
    use sluice_ledger::keys::acts::Created;
    use sluice_ledger::keys::terms::Draft;

    use super::*;

    /// The secret of a key that is there is told, and a later look makes it work.
    #[tokio::test]
    async fn what_is_done_is_said_though_it_is_not_seen_yet() {
        let folder = tempfile::TempDir::new().unwrap();
        let book = KeyBook::open(folder.path()).unwrap();
        let done = book.act(|store| {
            let made = store.create("test", &Draft { name: "app".into(), ..Draft::default() }, 1)?;
            store.store().connection().execute_batch("ALTER TABLE keys RENAME TO away").unwrap();
            Ok(made)
        });
        let Done { what: Created::Done { key, .. }, holds: false } = done.await.unwrap() else { panic!() };
        let key = key.reveal();
        assert!(book.ring().identify(&key, 2).is_err());
        let back = book.act(|store| {
            store.store().connection().execute_batch("ALTER TABLE away RENAME TO keys").unwrap();
            Ok(())
        });
        assert!(back.await.unwrap().holds);
        assert!(book.ring().identify(&key, 2).is_ok());
    }
}
