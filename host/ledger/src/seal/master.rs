//! The master key: the operator's, or a file of the data folder that is for nobody else.

use std::fmt;
use std::fs::{self, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use super::derived;

/// The file's name.
const FILE: &str = "master.key";

/// Bytes of a master key.
const KEY_BYTES: usize = 32;

/// Bits of a file's mode that let others at it.
const OTHERS: u32 = 0o077;

/// What secrets are sealed with.
#[derive(Clone, PartialEq, Eq)]
pub struct MasterKey([u8; KEY_BYTES]);

/// Why a text is no master key.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("wanted 64 hexadecimal digits, such as `openssl rand -hex 32` prints")]
pub struct NotAMasterKey;

/// Why there is no master key.
#[derive(Debug, thiserror::Error)]
pub enum MasterKeyError {
    /// Secrets were sealed with one, and it is not there.
    #[error(
        "{} is not there, with which the secrets of this folder were sealed: put it back, or let `sluice market forget` drop them",
        file.display()
    )]
    Missing {
        /// Where it was.
        file: PathBuf,
    },
    /// Others may read or write it.
    #[error("{} may be read or written by others: chmod 600 it", file.display())]
    Exposed {
        /// Which.
        file: PathBuf,
    },
    /// Something else is in the file.
    #[error("{}", file.display())]
    Form {
        /// Which.
        file: PathBuf,
        /// What was wanted.
        source: NotAMasterKey,
    },
    /// It cannot be read or made.
    #[error("the master key {}", file.display())]
    Io {
        /// Which.
        file: PathBuf,
        /// Why.
        source: io::Error,
    },
}

impl MasterKey {
    /// A key as operators write it: 64 hexadecimal digits.
    ///
    /// # Errors
    ///
    /// [`NotAMasterKey`]; it does not repeat the text.
    pub fn from_hex(text: &str) -> Result<MasterKey, NotAMasterKey> {
        let text = text.trim().as_bytes();
        if text.len() != 2 * KEY_BYTES {
            return Err(NotAMasterKey);
        }
        let mut key = [0; KEY_BYTES];
        for (byte, pair) in key.iter_mut().zip(text.as_chunks::<2>().0) {
            *byte = digit(pair[0]).ok_or(NotAMasterKey)? << 4 | digit(pair[1]).ok_or(NotAMasterKey)?;
        }
        Ok(MasterKey(key))
    }

    /// That of the folder, which was made before.
    pub(super) fn read(folder: &Path) -> Result<MasterKey, MasterKeyError> {
        let file = folder.join(FILE);
        let failed = |source: io::Error| match source.kind() {
            io::ErrorKind::NotFound => MasterKeyError::Missing { file: file.clone() },
            _ => MasterKeyError::Io { file: file.clone(), source },
        };
        if fs::metadata(&file).map_err(failed)?.mode() & OTHERS != 0 {
            return Err(MasterKeyError::Exposed { file });
        }
        let text = fs::read_to_string(&file).map_err(failed)?;
        MasterKey::from_hex(&text).map_err(|source| MasterKeyError::Form { file: file.clone(), source })
    }

    /// That of the folder; made, if it is not there.
    pub(super) fn read_or_make(folder: &Path) -> Result<MasterKey, MasterKeyError> {
        match MasterKey::read(folder) {
            Err(MasterKeyError::Missing { file }) => {
                make(folder, &file).map_err(|source| MasterKeyError::Io { file, source })?;
                // Of two processes that make one, the first one's stays, and both read it.
                MasterKey::read(folder)
            }
            answer => answer,
        }
    }

    /// What it is known by: it says nothing of the key.
    pub(super) fn id(&self) -> [u8; 8] {
        let mut id = [0; 8];
        id.copy_from_slice(&derived(&self.0, b"sluice master id 1")[..8]);
        id
    }

    pub(super) fn sealing_key(&self) -> [u8; 32] {
        derived(&self.0, b"sluice sealing key 1")
    }
}

impl fmt::Debug for MasterKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("MasterKey(..)")
    }
}

/// Whole or not at all, and never over one that is there.
fn make(folder: &Path, file: &Path) -> io::Result<()> {
    let mut drawn = [0; KEY_BYTES];
    getrandom::fill(&mut drawn)?;
    let mut suffix = [0; 8];
    getrandom::fill(&mut suffix)?;
    let hex = |bytes: &[u8]| bytes.iter().map(|byte| format!("{byte:02x}")).collect::<String>();
    let draft = folder.join(format!("{FILE}.{}", hex(&suffix)));
    let mut open = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&draft)?;
    let written = writeln!(open, "{}", hex(&drawn)).and_then(|()| open.sync_all());
    let placed = written.and_then(|()| match fs::hard_link(&draft, file) {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(()),
        linked => linked,
    });
    fs::remove_file(&draft)?;
    placed?;
    // Its name too is to survive a loss of power: without the key, what is sealed is lost.
    fs::File::open(folder)?.sync_all()
}

fn digit(byte: u8) -> Option<u8> {
    char::from(byte).to_digit(16).and_then(|digit| u8::try_from(digit).ok())
}
