//! What of the plugins outlives the process: the bytes that served last, who was shut out.
//!
//! A disk that is full or read-only costs this memory, never a request: the failure is logged
//! and what is served stays.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, DirBuilder};
use std::io::{self, Write};
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use tempfile::NamedTempFile;

use crate::admission::digest;

/// Digests that are shut out at most; beyond, the one that was first goes. Also those let in again.
const QUARANTINE_MAX: usize = 1024;

const RECORD_FILE: &str = "record.json";

/// Whether what is remembered of plugins outlives the process.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Kept {
    Nothing,
    /// What earlier processes left counts, and stays as it is.
    Read(PathBuf),
    Written(PathBuf),
}

/// What is remembered, and where it is written.
pub(crate) struct Shelf {
    kept: Kept,
    record: Record,
}

/// As it is in the file.
#[derive(Clone, Debug, Default, Serialize, Deserialize, PartialEq, Eq)]
#[serde(default)]
pub(crate) struct Record {
    /// By plugin id.
    pub(crate) seats: BTreeMap<String, KeptSeat>,
    /// By digest.
    pub(crate) quarantine: BTreeMap<String, Quarantined>,
    /// Digests that an operator let in again: they are on probation no more.
    pub(crate) released: BTreeSet<String>,
}

/// A file's plugin that served.
#[derive(Clone, Debug, Serialize, Deserialize, PartialEq, Eq)]
pub(crate) struct KeptSeat {
    /// Its name in the folder.
    pub(crate) file: PathBuf,
    pub(crate) digest: String,
    /// It got through its probation.
    pub(crate) proven: bool,
    /// What it replaced, where that was a file's plugin too.
    pub(crate) before: Option<String>,
}

/// A version that was taken back.
#[derive(Clone, Debug, Serialize, Deserialize, PartialEq, Eq)]
pub(crate) struct Quarantined {
    pub(crate) id: String,
    pub(crate) version: String,
    pub(crate) reason: String,
    /// Seconds since the Unix epoch.
    pub(crate) since_s: u64,
}

impl Kept {
    fn folder(&self) -> Option<&Path> {
        match self {
            Kept::Nothing => None,
            Kept::Read(folder) | Kept::Written(folder) => Some(folder),
        }
    }
}

impl Shelf {
    /// Reads what was kept; a record that cannot be read is as none, and said to be so.
    pub(crate) fn open(kept: Kept) -> Shelf {
        let record = kept.folder().and_then(|folder| match read_record(&folder.join(RECORD_FILE)) {
            Ok(record) => Some(record),
            Err(error) if error.kind() == io::ErrorKind::NotFound => None,
            Err(error) => {
                tracing::warn!(folder = %folder.display(), %error, "the record of plugins is lost");
                None
            }
        });
        Shelf { kept, record: record.unwrap_or_default() }
    }

    pub(crate) fn record(&self) -> &Record {
        &self.record
    }

    /// Keeps a plugin's bytes, so that [`Shelf::bytes`] gives them after a restart.
    pub(crate) fn keep(&self, bytes: &[u8], known_as: &str) {
        let Kept::Written(folder) = &self.kept else { return };
        let file = component(folder, known_as);
        if file.exists() {
            return;
        }
        if let Err(error) = write(folder, &file, bytes) {
            tracing::warn!(file = %file.display(), %error, "a plugin is not kept for the next start");
        }
    }

    /// Bytes that were kept, if they are still what they were.
    pub(crate) fn bytes(&self, known_as: &str) -> Option<Vec<u8>> {
        let bytes = fs::read(component(self.kept.folder()?, known_as)).ok()?;
        (digest(&bytes) == known_as).then_some(bytes)
    }

    /// Replaces the record, and lets go of bytes that it does not name.
    pub(crate) fn write(&mut self, mut record: Record) {
        while record.quarantine.len() > QUARANTINE_MAX {
            let first = record.quarantine.iter().min_by_key(|(_, shut_out)| shut_out.since_s);
            let Some(first) = first.map(|(digest, _)| digest.clone()) else { break };
            record.quarantine.remove(&first);
        }
        while record.released.len() > QUARANTINE_MAX {
            record.released.pop_first();
        }
        if record == self.record {
            return;
        }
        self.record = record;
        let Kept::Written(folder) = &self.kept else { return };
        let text = serde_json::to_vec_pretty(&self.record).unwrap_or_default();
        match write(folder, &folder.join(RECORD_FILE), &text) {
            Ok(()) => self.tidy(folder),
            Err(error) => {
                tracing::warn!(folder = %folder.display(), %error, "the record of plugins is not written");
            }
        }
    }

    fn tidy(&self, folder: &Path) {
        let seats = self.record.seats.values();
        let wanted: BTreeSet<PathBuf> = seats
            .flat_map(|seat| [Some(&seat.digest), seat.before.as_ref()])
            .flatten()
            .map(|digest| component(folder, digest))
            .collect();
        let Ok(entries) = fs::read_dir(folder) else { return };
        for file in entries.flatten().map(|entry| entry.path()) {
            if file.extension().is_some_and(|kind| kind == "wasm") && !wanted.contains(&file) {
                // Left behind, it costs room and nothing else.
                let _ = fs::remove_file(file);
            }
        }
    }
}

fn component(folder: &Path, digest: &str) -> PathBuf {
    folder.join(digest).with_extension("wasm")
}

fn read_record(file: &Path) -> io::Result<Record> {
    Ok(serde_json::from_slice(&fs::read(file)?)?)
}

/// Whole or not at all: what a crash or a full disk leaves is the file as it was before.
fn write(folder: &Path, file: &Path, bytes: &[u8]) -> io::Result<()> {
    DirBuilder::new().recursive(true).mode(0o700).create(folder)?;
    let mut new = NamedTempFile::new_in(folder)?;
    new.write_all(bytes)?;
    new.persist(file)?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seat(digest: &str) -> KeptSeat {
        KeptSeat { file: "x.wasm".into(), digest: digest.into(), proven: true, before: None }
    }

    fn of(seats: &[(&str, &str)]) -> Record {
        let seats = seats.iter().map(|(id, digest)| ((*id).to_owned(), seat(digest))).collect();
        Record { seats, ..Record::default() }
    }

    #[test]
    fn what_is_kept_is_there_after_a_restart_and_the_rest_is_not() {
        let folder = tempfile::tempdir().unwrap();
        let (a, b) = (digest(b"a"), digest(b"b"));
        let mut shelf = Shelf::open(Kept::Written(folder.path().join("plugins")));
        shelf.keep(b"a", &a);
        shelf.keep(b"b", &b);
        shelf.write(of(&[("x", &a)]));
        let shelf = Shelf::open(Kept::Written(folder.path().join("plugins")));
        assert_eq!(*shelf.record(), of(&[("x", &a)]));
        assert_eq!(shelf.bytes(&a).as_deref(), Some(&b"a"[..]));
        assert_eq!(shelf.bytes(&b), None, "nobody needs it");
    }

    #[test]
    fn spoilt_bytes_and_records_are_as_none() {
        let folder = tempfile::tempdir().unwrap();
        let a = digest(b"a");
        let mut shelf = Shelf::open(Kept::Written(folder.path().into()));
        shelf.keep(b"a", &a);
        shelf.write(of(&[("x", &a)]));
        fs::write(component(folder.path(), &a), "spoilt").unwrap();
        assert_eq!(shelf.bytes(&a), None);
        fs::write(folder.path().join(RECORD_FILE), "{").unwrap();
        assert_eq!(*Shelf::open(Kept::Written(folder.path().into())).record(), Record::default());
    }

    #[test]
    fn a_folder_that_cannot_be_is_no_failure() {
        let mut shelf = Shelf::open(Kept::Written("/proc/nowhere/plugins".into()));
        shelf.keep(b"a", &digest(b"a"));
        shelf.write(of(&[("x", "y")]));
        assert_eq!(shelf.record().seats.len(), 1, "it is still known while the process lives");
        assert_eq!(shelf.bytes(&digest(b"a")), None);
    }

    #[test]
    fn the_quarantine_has_a_bound_and_forgets_the_oldest() {
        let mut shelf = Shelf::open(Kept::Nothing);
        let mut record = Record::default();
        for number in 0..=QUARANTINE_MAX {
            let since_s = number as u64;
            let shut_out =
                Quarantined { id: "x".into(), version: "1.0.0".into(), reason: String::new(), since_s };
            record.quarantine.insert(format!("{:064}", QUARANTINE_MAX - number), shut_out);
        }
        shelf.write(record);
        assert_eq!(shelf.record().quarantine.len(), QUARANTINE_MAX);
        assert!(shelf.record().quarantine.values().all(|shut_out| shut_out.since_s > 0));
    }
}
