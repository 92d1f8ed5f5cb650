//! Whether a gateway runs on a data folder: who runs holds an exclusive lock on a file in it.
//!
//! The system gives the lock back when its holder ends, however it ends. So the file may stay there,
//! and its presence says nothing.

use std::fs::{File, OpenOptions};
use std::io::{self, ErrorKind, Read, Write};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use rustix::fs::{FlockOperation, flock};
use rustix::io::Errno;

/// The file's name.
const FILE: &str = "lock";

/// To try again where somebody only looks, and how often. A look takes microseconds, but who looks may
/// lose the processor in the middle of it.
const TRY_WITHIN: Duration = Duration::from_secs(2);
const TRY_EVERY: Duration = Duration::from_micros(100);

/// A data folder that is ours, until this is dropped.
#[derive(Debug)]
#[must_use = "dropped, the folder is free"]
pub struct DataLock {
    /// Closed, it is unlocked.
    _file: File,
}

/// Why a folder's lock is not had.
#[derive(Debug, thiserror::Error)]
pub enum LockError {
    /// Somebody else has it.
    #[error("another gateway runs on this folder{}", said(*by))]
    Taken {
        /// The holder's process id, where it has written one.
        by: Option<u32>,
    },
    /// The file cannot be made, read or locked.
    #[error("locking {}", file.display())]
    Broken {
        /// Which.
        file: PathBuf,
        /// Why.
        source: io::Error,
    },
}

impl DataLock {
    /// Takes the lock of this folder, which must be there, and writes our process id into it.
    ///
    /// # Errors
    ///
    /// [`LockError::Taken`] where somebody has it, also in this process.
    pub fn take(folder: &Path) -> Result<DataLock, LockError> {
        let path = folder.join(FILE);
        let taken = || -> io::Result<Result<DataLock, LockError>> {
            let mut file =
                OpenOptions::new().read(true).write(true).create(true).truncate(false).open(&path)?;
            let until = Instant::now() + TRY_WITHIN;
            while Instant::now() < until {
                if locked(&file, FlockOperation::NonBlockingLockExclusive)? {
                    file.set_len(0)?;
                    file.write_all(std::process::id().to_string().as_bytes())?;
                    return Ok(Ok(DataLock { _file: file }));
                }
                // A holder leaves no room for a shared lock; those who look do, and are gone at once.
                if !locked(&file, FlockOperation::NonBlockingLockShared)? {
                    break;
                }
                #[expect(clippy::disallowed_methods, reason = "before the start; no worker waits")]
                std::thread::sleep(TRY_EVERY);
            }
            let mut pid = String::new();
            // Only for the message: unreadable, there is none.
            let by = file.read_to_string(&mut pid).ok().and_then(|_| pid.trim().parse().ok());
            Ok(Err(LockError::Taken { by }))
        };
        taken().unwrap_or_else(|source| Err(LockError::Broken { file: path.clone(), source }))
    }

    /// Whether somebody has the lock of this folder. Where nobody ever ran, nobody has.
    ///
    /// # Errors
    ///
    /// [`LockError::Broken`] where that cannot be found out.
    pub fn is_held(folder: &Path) -> Result<bool, LockError> {
        let path = folder.join(FILE);
        let held = match File::open(&path) {
            // Shared: those who look do not take each other for a holder.
            Ok(file) => locked(&file, FlockOperation::NonBlockingLockShared).map(|free| !free),
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(false),
            Err(error) => Err(error),
        };
        held.map_err(|source| LockError::Broken { file: path, source })
    }
}

/// Tries to lock it; false where others are in the way.
fn locked(file: &File, operation: FlockOperation) -> io::Result<bool> {
    match flock(file, operation) {
        Ok(()) => Ok(true),
        Err(Errno::WOULDBLOCK) => Ok(false),
        Err(error) => Err(error.into()),
    }
}

fn said(by: Option<u32>) -> String {
    by.map(|pid| format!(" (process {pid})")).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicBool, Ordering};

    use tempfile::TempDir;

    use super::*;

    #[test]
    fn one_holds_it_and_the_other_is_told_who() {
        let folder = TempDir::new().unwrap();
        assert!(!DataLock::is_held(folder.path()).unwrap(), "nobody ever ran");
        assert!(!folder.path().join(FILE).exists(), "a look leaves nothing behind");
        let lock = DataLock::take(folder.path()).unwrap();
        assert!(DataLock::is_held(folder.path()).unwrap());
        let refused = DataLock::take(folder.path()).unwrap_err();
        assert!(matches!(refused, LockError::Taken { by: Some(pid) } if pid == std::process::id()));
        assert!(refused.to_string().contains(&std::process::id().to_string()), "{refused}");
        drop(lock);
        assert!(folder.path().join(FILE).exists(), "the control: the file stays");
        assert!(!DataLock::is_held(folder.path()).unwrap());
        let again = DataLock::take(folder.path()).unwrap();
        assert!(DataLock::is_held(folder.path()).unwrap());
        drop(again);
    }

    /// A process that is killed drops nothing; the system closes its files.
    #[test]
    fn a_holder_that_is_killed_leaves_it_free() {
        let folder = TempDir::new().unwrap();
        let lock = DataLock::take(folder.path()).unwrap();
        let mut command = std::process::Command::new("cat");
        // The child has the locked file; ours is closed with the command.
        command.stdin(std::process::Stdio::piped()).stdout(lock._file);
        let mut holder = command.spawn().unwrap();
        drop(command);
        assert!(DataLock::is_held(folder.path()).unwrap());
        assert!(matches!(DataLock::take(folder.path()), Err(LockError::Taken { .. })));
        holder.kill().unwrap();
        holder.wait().unwrap();
        assert!(!DataLock::is_held(folder.path()).unwrap());
        drop(DataLock::take(folder.path()).unwrap());
    }

    #[test]
    fn who_looks_is_not_in_the_way() {
        let folder = TempDir::new().unwrap();
        drop(DataLock::take(folder.path()).unwrap());
        let over = AtomicBool::new(false);
        std::thread::scope(|scope| {
            scope.spawn(|| {
                while !over.load(Ordering::Relaxed) {
                    let _ = DataLock::is_held(folder.path()).unwrap();
                }
            });
            let taken: Vec<bool> = (0..500).map(|_| DataLock::take(folder.path()).is_ok()).collect();
            over.store(true, Ordering::Relaxed);
            assert!(taken.iter().all(|taken| *taken), "{taken:?}");
        });
    }

    #[test]
    fn a_folder_that_is_not_there_is_no_lock() {
        let folder = TempDir::new().unwrap();
        let missing = folder.path().join("missing");
        assert!(matches!(DataLock::take(&missing), Err(LockError::Broken { .. })));
        assert!(!DataLock::is_held(&missing).unwrap());
    }
}
