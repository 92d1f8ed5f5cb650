//! What is held and what became of it, written before anything is sent: a process that is killed
//! leaves it behind.
//!
//! A record is its length, its checksum and its body. It is in the page cache when it counts: that
//! survives `kill -9`, not the loss of power. Segments are numbered; each begins with all holds that
//! are open, so that what came before it can go.

use std::collections::BTreeMap;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use compact_str::CompactString;
use serde::{Deserialize, Serialize};
use sluice_core::books::AccountId;
use sluice_core::money::NanoUsd;
use smallvec::SmallVec;

use crate::rows::Row;

/// Bytes of a segment, roughly: more than a second of full load.
pub const SEGMENT_BYTES: u64 = 16 * 1024 * 1024;

/// Bytes before a record's body: its length and its checksum.
const HEAD_BYTES: usize = 8;

/// A record is smaller: what says more is no record.
const RECORD_BYTES_MAX: usize = 64 * 1024;

/// Most have fewer bytes.
const RECORD_BYTES_USUAL: usize = 512;

/// Accounts of an attempt; few have more.
pub type Accounts = SmallVec<[AccountId; 6]>;

/// A hold's number: unique as long as the data folder lives.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct HoldId(pub u64);

/// One thing that happened.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum Record {
    /// Money was held for an attempt.
    Held(Held),
    /// The hold has ended; with the last attempt of a call its row.
    Settled {
        /// Which.
        id: HoldId,
        /// Nano-dollars.
        charge: u64,
        /// The call, if this was its last attempt.
        row: Option<Box<Row>>,
    },
    /// A call without a hold has ended.
    Passed(Box<Row>),
    /// A call goes on that has cost something: its row, unless another one follows.
    Underway(Box<Row>),
}

/// An attempt for which money is held.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Held {
    /// Its number.
    pub id: HoldId,
    /// The accounts' numbers.
    pub accounts: SmallVec<[i64; 6]>,
    /// Nano-dollars, on each of them.
    pub amount: u64,
    /// Milliseconds since the Unix epoch.
    pub at_ms: u64,
    /// The request's id.
    pub request: CompactString,
    /// Who is asked: the upstream and its model.
    pub attempt: CompactString,
}

/// Where a record ends.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Position {
    /// Counted from 1.
    pub segment: u64,
    /// Bytes from its beginning.
    pub offset: u64,
}

/// A record as it will stand in a segment.
pub struct Written<'r> {
    record: &'r Record,
    /// None where it is too long.
    bytes: Option<Vec<u8>>,
}

/// The segment that is written.
pub struct Journal {
    folder: PathBuf,
    file: File,
    position: Position,
    /// Behind the position there is a part of a record that could not be cut away.
    torn: bool,
    /// Calls that go on and have cost something, by request.
    underway: BTreeMap<CompactString, Box<Row>>,
}

/// What a segment holds.
#[derive(Debug, Default)]
pub struct Segment {
    /// Each with the offset of its end.
    pub records: Vec<(u64, Record)>,
    /// It ends in the middle of a record, or in one that is not what was written.
    pub torn: bool,
}

impl Held {
    /// The accounts.
    pub fn accounts(&self) -> Accounts {
        self.accounts.iter().map(|id| AccountId(*id)).collect()
    }

    /// The amount.
    pub fn amount(&self) -> NanoUsd {
        NanoUsd::from_nanos(self.amount)
    }
}

impl Journal {
    /// Begins this segment; one that is there is replaced.
    ///
    /// # Errors
    ///
    /// Where the file cannot be made.
    pub fn begin(folder: &Path, segment: u64) -> io::Result<Journal> {
        let mut options = OpenOptions::new();
        // What it says of callers is for the operator alone.
        options.write(true).create(true).truncate(true).mode(0o600);
        let file = options.open(file_of(folder, segment))?;
        let position = Position { segment, offset: 0 };
        Ok(Journal { folder: folder.into(), file, position, torn: false, underway: BTreeMap::new() })
    }

    /// Writes a record. When this returns, a crash does not lose it.
    ///
    /// # Errors
    ///
    /// Where the disk does not take it; then nothing was written.
    pub fn append(&mut self, record: &Record) -> io::Result<()> {
        self.append_written(Written::new(record))
    }

    /// The same, of a record that was written out before, when nobody had to wait for that.
    ///
    /// # Errors
    ///
    /// As [`Journal::append`].
    pub fn append_written(&mut self, Written { record, bytes }: Written<'_>) -> io::Result<()> {
        self.follow(record);
        let Some(bytes) = bytes else { return Err(io::Error::other("a record is too long")) };
        if self.torn {
            self.cut_back()?;
        }
        if let Err(error) = self.file.write_all(&bytes) {
            // A part of it may be there; what follows must not stand behind it, or nobody reads it.
            self.torn = self.cut_back().is_err();
            return Err(error);
        }
        self.position.offset += bytes.len() as u64;
        Ok(())
    }

    /// What goes on is what the next segment begins with.
    fn follow(&mut self, record: &Record) {
        match record {
            Record::Underway(row) => _ = self.underway.insert(row.request.clone(), row.clone()),
            Record::Settled { row: Some(row), .. } | Record::Passed(row) if !self.underway.is_empty() => {
                self.underway.remove(&row.request);
            }
            Record::Held(_) | Record::Settled { .. } | Record::Passed(_) => {}
        }
    }

    fn cut_back(&mut self) -> io::Result<()> {
        self.file.set_len(self.position.offset)?;
        rustix::fs::seek(&self.file, rustix::fs::SeekFrom::Start(self.position.offset))?;
        self.torn = false;
        Ok(())
    }

    /// The end of what has been written.
    pub fn position(&self) -> Position {
        self.position
    }

    /// Begins the next segment, with what is open and what goes on.
    ///
    /// # Errors
    ///
    /// Where it cannot be written; then this one goes on.
    pub fn next_segment<'h>(&mut self, open: impl Iterator<Item = &'h Held>) -> io::Result<()> {
        let mut next = Journal::begin(&self.folder, self.position.segment + 1)?;
        let open = open.map(|held| Record::Held(held.clone()));
        let underway = self.underway.values().map(|row| Record::Underway(row.clone()));
        for record in open.chain(underway) {
            if let Err(error) = next.append(&record) {
                // Read after this one, it would open holds again that end from now on.
                fs::remove_file(file_of(&self.folder, self.position.segment + 1))?;
                return Err(error);
            }
        }
        *self = next;
        Ok(())
    }

    /// Removes segments before this one.
    pub fn forget_before(folder: &Path, segment: u64) {
        for old in segments(folder).unwrap_or_default().into_iter().filter(|old| *old < segment) {
            // What cannot be removed is looked at again at the next start, and is behind the position.
            let _ = fs::remove_file(file_of(folder, old));
        }
    }
}

impl Written<'_> {
    /// Writes it out.
    pub fn new(record: &Record) -> Written<'_> {
        Written { record, bytes: written(record) }
    }
}

/// None where it is too long.
fn written(record: &Record) -> Option<Vec<u8>> {
    let mut bytes = Vec::with_capacity(RECORD_BYTES_USUAL);
    bytes.resize(HEAD_BYTES, 0);
    let mut bytes = postcard::to_extend(record, bytes).ok()?;
    let body = &bytes[HEAD_BYTES..];
    let length = u32::try_from(body.len()).ok().filter(|length| *length as usize <= RECORD_BYTES_MAX)?;
    let checksum = crc32fast::hash(body);
    bytes[..4].copy_from_slice(&length.to_le_bytes());
    bytes[4..HEAD_BYTES].copy_from_slice(&checksum.to_le_bytes());
    Some(bytes)
}

impl Segment {
    /// Reads a segment, as far as it is whole.
    ///
    /// # Errors
    ///
    /// Where the file cannot be read.
    pub fn read(folder: &Path, segment: u64) -> io::Result<Segment> {
        let bytes = fs::read(file_of(folder, segment))?;
        let mut read = Segment::default();
        let mut offset = 0;
        while offset < bytes.len() {
            match record(&bytes[offset..]) {
                Some((record, length)) => {
                    offset += length;
                    read.records.push((offset as u64, record));
                }
                None => {
                    read.torn = true;
                    break;
                }
            }
        }
        Ok(read)
    }
}

/// The first record of these bytes, and its length.
fn record(bytes: &[u8]) -> Option<(Record, usize)> {
    let (head, rest) = bytes.split_at_checked(HEAD_BYTES)?;
    let number = |at: usize| Some(u32::from_le_bytes(head.get(at..at + 4)?.try_into().ok()?));
    let (length, checksum) = (usize::try_from(number(0)?).ok()?, number(4)?);
    let body = rest.get(..length)?;
    if crc32fast::hash(body) != checksum {
        return None;
    }
    Some((postcard::from_bytes(body).ok()?, HEAD_BYTES + length))
}

/// Numbers of the segments that are there, rising.
///
/// # Errors
///
/// Where the folder cannot be read.
pub fn segments(folder: &Path) -> io::Result<Vec<u64>> {
    let mut found: Vec<u64> = fs::read_dir(folder)?
        .flatten()
        .filter_map(|entry| entry.file_name().to_str()?.strip_suffix(".journal")?.parse().ok())
        .collect();
    found.sort_unstable();
    Ok(found)
}

fn file_of(folder: &Path, segment: u64) -> PathBuf {
    folder.join(format!("{segment:08}.journal"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn held(id: u64) -> Held {
        Held {
            id: HoldId(id),
            accounts: SmallVec::from_slice(&[1, 2]),
            amount: 7,
            at_ms: 1,
            request: "r".into(),
            attempt: "a/m".into(),
        }
    }

    #[test]
    fn what_was_written_is_read_and_a_torn_end_is_left_out() {
        let folder = tempfile::tempdir().unwrap();
        let mut journal = Journal::begin(folder.path(), 1).unwrap();
        let records = [
            Record::Held(held(1)),
            Record::Settled { id: HoldId(1), charge: 5, row: None },
            Record::Held(held(2)),
        ];
        for record in &records {
            journal.append(record).unwrap();
        }
        let whole = fs::read(file_of(folder.path(), 1)).unwrap();
        let ends: Vec<u64> =
            Segment::read(folder.path(), 1).unwrap().records.iter().map(|(end, _)| *end).collect();
        assert_eq!(ends.last(), Some(&journal.position().offset));
        for cut in 0..=whole.len() {
            fs::write(file_of(folder.path(), 1), &whole[..cut]).unwrap();
            let read = Segment::read(folder.path(), 1).unwrap();
            let wanted = ends.iter().filter(|end| **end <= cut as u64).count();
            assert_eq!(read.records.len(), wanted, "cut at {cut}");
            assert!(read.records.iter().map(|(_, record)| record).eq(&records[..wanted]));
            assert_eq!(read.torn, cut as u64 != ends[..wanted].last().copied().unwrap_or(0));
        }
    }

    #[test]
    fn a_flipped_bit_ends_what_is_believed() {
        let folder = tempfile::tempdir().unwrap();
        let mut journal = Journal::begin(folder.path(), 1).unwrap();
        for id in 0..3 {
            journal.append(&Record::Held(held(id))).unwrap();
        }
        let whole = fs::read(file_of(folder.path(), 1)).unwrap();
        let one = whole.len() / 3;
        for at in one..2 * one {
            let mut bytes = whole.clone();
            bytes[at] ^= 0x10;
            fs::write(file_of(folder.path(), 1), &bytes).unwrap();
            let read = Segment::read(folder.path(), 1).unwrap();
            assert_eq!((read.records.len(), read.torn), (1, true), "byte {at}");
        }
    }

    #[test]
    fn a_segment_that_cannot_be_begun_is_not_there() {
        let folder = tempfile::tempdir().unwrap();
        let mut journal = Journal::begin(folder.path(), 1).unwrap();
        journal.append(&Record::Held(held(1))).unwrap();
        std::os::unix::fs::symlink("/dev/full", file_of(folder.path(), 2)).unwrap();
        let error = journal.next_segment([held(1)].iter()).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::StorageFull);
        assert_eq!((segments(folder.path()).unwrap(), journal.position().segment), (vec![1], 1));
        journal.append(&Record::Settled { id: HoldId(1), charge: 5, row: None }).unwrap();
        assert_eq!(Segment::read(folder.path(), 1).unwrap().records.len(), 2);
    }

    #[test]
    fn behind_a_part_that_cannot_be_cut_away_nothing_is_written() {
        let folder = tempfile::tempdir().unwrap();
        let mut journal = Journal::begin(folder.path(), 1).unwrap();
        // A pipe takes a part of a record when it is nearly full, and is never shorter.
        let (mut reader, writer) = io::pipe().unwrap();
        journal.file = File::from(std::os::fd::OwnedFd::from(writer));
        for end in [&journal.file, &File::from(std::os::fd::OwnedFd::from(reader.try_clone().unwrap()))] {
            rustix::fs::fcntl_setfl(end, rustix::fs::OFlags::NONBLOCK).unwrap();
        }
        let long = Held { request: "x".repeat(5000).into(), ..held(1) };
        while journal.append(&Record::Held(long.clone())).is_ok() {}
        let mut bytes = Vec::new();
        let _ = io::Read::read_to_end(&mut reader, &mut bytes);
        assert!(bytes.len() as u64 > journal.position().offset, "a part is there");
        assert!(journal.append(&Record::Held(held(2))).is_err());
    }

    #[test]
    fn a_segment_begins_with_what_is_open() {
        let folder = tempfile::tempdir().unwrap();
        let mut journal = Journal::begin(folder.path(), 1).unwrap();
        journal.append(&Record::Held(held(1))).unwrap();
        journal.next_segment([held(1), held(2)].iter()).unwrap();
        assert_eq!(segments(folder.path()).unwrap(), [1, 2]);
        let read = Segment::read(folder.path(), 2).unwrap();
        assert_eq!(read.records.len(), 2);
        Journal::forget_before(folder.path(), 2);
        assert_eq!(segments(folder.path()).unwrap(), [2]);
    }

    #[test]
    fn a_segment_begins_with_calls_that_go_on_and_with_no_other() {
        let folder = tempfile::tempdir().unwrap();
        let mut journal = Journal::begin(folder.path(), 1).unwrap();
        let row = |request: &str, cost| Box::new(Row { request: request.into(), cost, ..Row::default() });
        for (request, cost) in [("on", 1), ("on", 2), ("passed", 3), ("settled", 4)] {
            journal.append(&Record::Underway(row(request, cost))).unwrap();
        }
        journal.append(&Record::Passed(row("passed", 3))).unwrap();
        let end = Record::Settled { id: HoldId(1), charge: 1, row: Some(row("settled", 5)) };
        journal.append(&end).unwrap();
        for segment in 2..4 {
            journal.next_segment([].iter()).unwrap();
            let records = Segment::read(folder.path(), segment).unwrap().records;
            let records: Vec<Record> = records.into_iter().map(|(_, record)| record).collect();
            assert_eq!(records, [Record::Underway(row("on", 2))], "{segment}");
        }
    }
}
