//! The watched folder: which files in it count, and which bytes may be trusted.
//!
//! A scan is the truth; events of the file system only say when to look.

use std::fs;
use std::io::{self, Read};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use rustix::process::geteuid;

use crate::rest::{Changes, Fingerprint, REST, Settling};

/// Bytes of a plugin file at most: components of interpreted languages are near 20 MiB.
pub const FILE_BYTES_MAX: u64 = 64 * 1024 * 1024;

/// Plugin files in the folder at most; what comes after them by name is not looked at.
pub const FILES_MAX: usize = 4096;

/// Others may write to the file.
const WORLD_WRITABLE: u32 = 0o002;

/// One folder and what was last seen in it.
pub struct Folder {
    dir: PathBuf,
    files: Settling,
}

/// What a look at the folder found.
#[derive(Debug)]
pub enum Scan {
    /// The folder is not there, or cannot be read: nothing is known of its files.
    Unreadable(String),
    Read {
        changes: Changes,
        /// Files beyond [`FILES_MAX`].
        beyond: usize,
    },
}

/// Why a file's bytes are not taken.
#[derive(Debug, thiserror::Error)]
pub enum Unfit {
    #[error("it cannot be read: {0}")]
    Io(#[from] io::Error),
    #[error("it is a link to {}, outside of the folder", .0.display())]
    LinkOut(PathBuf),
    #[error("it is no file but a {0}")]
    NoFile(&'static str),
    #[error("anyone may write to it: take that right away (chmod o-w)")]
    WorldWritable,
    #[error("it belongs to user {owner}; wanted the user that runs the gateway ({wanted}), or root")]
    ForeignOwner { owner: u32, wanted: u32 },
    #[error("it has {0} bytes; wanted at most {FILE_BYTES_MAX}")]
    TooLarge(u64),
    #[error("it changed while it was read")]
    Changed,
}

// === impl Folder ===

impl Folder {
    pub fn new(dir: PathBuf) -> Folder {
        Folder { dir, files: Settling::default() }
    }

    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// Looks at all files, and tells those that have come to rest since the last look.
    pub fn scan(&mut self, now: Instant) -> Scan {
        self.look(now, REST)
    }

    /// The same, but takes everything for rested: for the start, where nothing can be kept.
    pub fn scan_at_once(&mut self, now: Instant) -> Scan {
        self.look(now, Duration::ZERO)
    }

    /// Takes a file for there, so that its absence is told.
    pub fn expect(&mut self, file: &Path, now: Instant) {
        self.files.expect(file.into(), now);
    }

    fn look(&mut self, now: Instant, rest: Duration) -> Scan {
        match list(&self.dir) {
            Ok((files, beyond)) => Scan::Read { changes: self.files.look(files, now, rest), beyond },
            Err(error) => Scan::Unreadable(error.to_string()),
        }
    }
}

/// Plugin files in the order of their names, at most [`FILES_MAX`], and how many there are beyond.
fn list(dir: &Path) -> io::Result<(Vec<PathBuf>, usize)> {
    let mut files = Vec::new();
    for entry in fs::read_dir(dir)? {
        let entry = entry?;
        if counts(&entry.file_name().to_string_lossy()) {
            files.push(entry.path());
        }
    }
    files.sort_unstable();
    let beyond = files.len().saturating_sub(FILES_MAX);
    files.truncate(FILES_MAX);
    Ok((files, beyond))
}

/// `*.wasm`, but for hidden files: editors' and copiers' temporary ones, Kubernetes' `..data`.
fn counts(name: &str) -> bool {
    name.ends_with(".wasm") && !name.starts_with(['.', '#'])
}

/// Reads a file of the folder into memory, once, if it may be trusted.
///
/// # Errors
///
/// [`Unfit`], with what the operator can change.
pub(crate) fn read(dir: &Path, file: &Path) -> Result<Vec<u8>, Unfit> {
    let target = file.canonicalize()?;
    if !target.starts_with(dir.canonicalize()?) {
        return Err(Unfit::LinkOut(target));
    }
    check_kind(&fs::symlink_metadata(&target)?)?;
    // A link or a pipe put there since then is not followed and not waited for.
    let flags = (rustix::fs::OFlags::NOFOLLOW | rustix::fs::OFlags::NONBLOCK).bits();
    let mut open = fs::OpenOptions::new().read(true).custom_flags(flags.cast_signed()).open(&target)?;
    let metadata = open.metadata()?;
    check_kind(&metadata)?;
    check_rights(&metadata)?;
    if metadata.len() > FILE_BYTES_MAX {
        return Err(Unfit::TooLarge(metadata.len()));
    }
    let mut bytes = Vec::with_capacity(usize::try_from(metadata.len()).unwrap_or_default());
    Read::by_ref(&mut open).take(FILE_BYTES_MAX + 1).read_to_end(&mut bytes)?;
    if Fingerprint::of(&open.metadata()?) != Fingerprint::of(&metadata) {
        return Err(Unfit::Changed);
    }
    Ok(bytes)
}

fn check_kind(metadata: &fs::Metadata) -> Result<(), Unfit> {
    match metadata.file_type() {
        kind if kind.is_file() => Ok(()),
        kind if kind.is_dir() => Err(Unfit::NoFile("directory")),
        _ => Err(Unfit::NoFile("pipe, socket or device")),
    }
}

fn check_rights(metadata: &fs::Metadata) -> Result<(), Unfit> {
    let (owner, wanted) = (metadata.uid(), geteuid().as_raw());
    if owner != wanted && owner != 0 {
        return Err(Unfit::ForeignOwner { owner, wanted });
    }
    if metadata.mode() & WORLD_WRITABLE != 0 {
        return Err(Unfit::WorldWritable);
    }
    Ok(())
}
