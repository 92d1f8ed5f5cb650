//! When a file has come to rest: two looks, [`REST`] apart, that see the same.
//!
//! Absence is a state like others: a file that an editor renames away for a moment has not gone.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// How long a file must look the same.
pub const REST: Duration = Duration::from_millis(150);

/// Files and what was last seen of them.
#[derive(Default)]
pub struct Settling(BTreeMap<PathBuf, Seen>);

/// Files that have come to rest since the last look, by path.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Changes {
    /// New, or different from what they were at their last rest.
    pub arrived: Vec<PathBuf>,
    pub gone: Vec<PathBuf>,
    /// Some file has not come to rest: look again then.
    pub restless: Option<Instant>,
}

/// What tells a file's states apart without reading it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Fingerprint {
    device: u64,
    inode: u64,
    bytes: u64,
    mode: u32,
    owner: u32,
    modified: (i64, i64),
    changed: (i64, i64),
}

/// The state of one file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Look {
    Absent,
    /// Named in its folder, but a link to nowhere, or without the right to follow it.
    Blind,
    File(Fingerprint),
}

struct Seen {
    look: Look,
    since: Instant,
    /// What it was when it last came to rest.
    rested: Look,
}

impl Settling {
    /// Looks at the files that are there now; one seen before and not among them is absent.
    pub fn look(&mut self, present: Vec<PathBuf>, now: Instant, rest: Duration) -> Changes {
        let present: BTreeMap<PathBuf, Look> =
            present.into_iter().map(|file| (file.clone(), Look::at(&file))).collect();
        for file in present.keys().filter(|file| !self.0.contains_key(*file)).cloned().collect::<Vec<_>>() {
            self.0.insert(file, Seen { look: Look::Absent, since: now, rested: Look::Absent });
        }
        let mut changes = Changes::default();
        for (file, seen) in &mut self.0 {
            seen.see(present.get(file).copied().unwrap_or(Look::Absent), now);
            if seen.look == seen.rested {
                continue;
            }
            if now.saturating_duration_since(seen.since) < rest {
                let rested = seen.since + rest;
                changes.restless = Some(changes.restless.map_or(rested, |other| other.min(rested)));
                continue;
            }
            seen.rested = seen.look;
            match seen.look {
                Look::Absent => changes.gone.push(file.clone()),
                Look::Blind | Look::File(_) => changes.arrived.push(file.clone()),
            }
        }
        self.0.retain(|_, seen| (seen.look, seen.rested) != (Look::Absent, Look::Absent));
        changes
    }

    /// Takes a file for there, so that its absence is told.
    pub fn expect(&mut self, file: PathBuf, now: Instant) {
        self.0.insert(file, Seen { look: Look::Blind, since: now, rested: Look::Blind });
    }
}

impl Seen {
    fn see(&mut self, look: Look, now: Instant) {
        if look != self.look {
            (self.look, self.since) = (look, now);
        }
    }
}

impl Look {
    /// Follows links: what counts is the file behind them.
    fn at(file: &Path) -> Look {
        match fs::metadata(file) {
            Ok(metadata) => Look::File(Fingerprint::of(&metadata)),
            Err(_) if fs::symlink_metadata(file).is_ok() => Look::Blind,
            Err(_) => Look::Absent,
        }
    }
}

impl Fingerprint {
    pub(crate) fn of(metadata: &fs::Metadata) -> Fingerprint {
        Fingerprint {
            device: metadata.dev(),
            inode: metadata.ino(),
            bytes: metadata.size(),
            mode: metadata.mode(),
            owner: metadata.uid(),
            modified: (metadata.mtime(), metadata.mtime_nsec()),
            changed: (metadata.ctime(), metadata.ctime_nsec()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NEARLY: Duration = Duration::from_millis(149);

    struct Bench {
        folder: tempfile::TempDir,
        settling: Settling,
        start: Instant,
    }

    impl Bench {
        fn new() -> Bench {
            let folder = tempfile::tempdir().unwrap();
            Bench { folder, settling: Settling::default(), start: Instant::now() }
        }

        fn file(&self) -> PathBuf {
            self.folder.path().join("x.wasm")
        }

        fn write(&self, text: &str) {
            fs::write(self.file(), text).unwrap();
        }

        /// What a look sees, this long after the start.
        fn look(&mut self, after: Duration) -> (usize, usize, bool) {
            let present = vec![self.file()].into_iter().filter(|file| fs::symlink_metadata(file).is_ok());
            let changes = self.settling.look(present.collect(), self.start + after, REST);
            (changes.arrived.len(), changes.gone.len(), changes.restless.is_some())
        }
    }

    #[test]
    fn a_file_arrives_once_when_it_has_rested() {
        let mut bench = Bench::new();
        assert_eq!(bench.look(Duration::ZERO), (0, 0, false));
        bench.write("a");
        assert_eq!(bench.look(Duration::ZERO), (0, 0, true));
        assert_eq!(bench.look(NEARLY), (0, 0, true));
        assert_eq!(bench.look(REST), (1, 0, false));
        assert_eq!(bench.look(2 * REST), (0, 0, false));
    }

    #[test]
    fn what_was_expected_and_is_not_there_is_told_to_be_gone() {
        let mut bench = Bench::new();
        let (file, start) = (bench.file(), bench.start);
        bench.settling.expect(file, start);
        assert_eq!(bench.look(Duration::ZERO), (0, 0, true));
        assert_eq!(bench.look(REST), (0, 1, false));
    }

    #[test]
    fn each_change_begins_the_rest_anew() {
        let mut bench = Bench::new();
        for step in 0..10 {
            bench.write(&"x".repeat(step + 1));
            assert_eq!(bench.look(NEARLY * u32::try_from(step).unwrap()), (0, 0, true), "chunk {step}");
        }
        assert_eq!(bench.look(NEARLY * 9 + REST), (1, 0, false));
    }

    #[test]
    fn a_moment_of_absence_is_none() {
        let mut bench = Bench::new();
        bench.write("a");
        bench.look(Duration::ZERO);
        bench.look(REST);
        fs::rename(bench.file(), bench.folder.path().join("x.wasm~")).unwrap();
        assert_eq!(bench.look(2 * REST), (0, 0, true));
        fs::rename(bench.folder.path().join("x.wasm~"), bench.file()).unwrap();
        // The change time tells that it was away; it arrives anew and never went.
        assert_eq!(bench.look(2 * REST + NEARLY), (0, 0, true));
        assert_eq!(bench.look(4 * REST), (1, 0, false));
        fs::remove_file(bench.file()).unwrap();
        assert_eq!(bench.look(5 * REST), (0, 0, true));
        assert_eq!(bench.look(6 * REST), (0, 1, false));
        assert!(bench.settling.0.is_empty(), "nothing is remembered of it");
    }

    #[test]
    fn a_link_is_what_it_leads_to() {
        let mut bench = Bench::new();
        let (one, two) = (bench.folder.path().join("1"), bench.folder.path().join("2"));
        fs::write(&one, "same").unwrap();
        std::os::unix::fs::symlink(&one, bench.file()).unwrap();
        bench.look(Duration::ZERO);
        assert_eq!(bench.look(REST), (1, 0, false));
        fs::write(&two, "same").unwrap();
        fs::rename(&two, &one).unwrap();
        assert_eq!(bench.look(2 * REST), (0, 0, true));
        assert_eq!(bench.look(3 * REST), (1, 0, false), "another file of the same length");
        fs::remove_file(&one).unwrap();
        bench.look(4 * REST);
        assert_eq!(bench.look(5 * REST), (1, 0, false), "a link to nowhere is still listed");
    }
}
