//! Client keys while the gateway runs: all of them in memory, replaced whole when any has changed.

use std::path::Path;
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
    /// Dropped, the thread that looks ends.
    _looks: SyncSender<()>,
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
        let book = Arc::new(KeyBook { ring: ArcSwap::default(), store: Mutex::new(store), _looks: looks });
        book.look()?;
        let weak = Arc::downgrade(&book);
        std::thread::Builder::new().name("keys".into()).spawn(move || watch(&weak, &ended))?;
        Ok(book)
    }

    pub(crate) fn ring(&self) -> Arc<Ring> {
        self.ring.load_full()
    }

    /// Does what an operator wants, off the workers; what it changes holds when this returns.
    ///
    /// # Errors
    ///
    /// [`KeyError`].
    pub(crate) async fn act<T: Send + 'static>(
        self: &Arc<KeyBook>,
        act: impl FnOnce(&mut KeyStore) -> Result<T, KeyError> + Send + 'static,
    ) -> Result<T, KeyError> {
        let book = Arc::clone(self);
        let done = tokio::task::spawn_blocking(move || {
            let done = act(&mut book.lock())?;
            book.look()?;
            Ok(done)
        });
        done.await.unwrap_or(Err(KeyError::Store(StoreError::Locked)))
    }

    fn look(&self) -> Result<(), StoreError> {
        let mut store = self.lock();
        if let Some(ring) = store.changed()? {
            for row in ring.unreadable() {
                tracing::error!(key = row.id, why = %row.why, "a key cannot be read, and does not work");
            }
            let generation = ring.generation();
            self.ring.store(Arc::new(ring));
            store.seen(generation)?;
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
