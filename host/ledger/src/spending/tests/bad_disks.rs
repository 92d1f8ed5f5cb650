//! Disks that are full or read-only, and that come back: no new money without the store or the journal,
//! and nothing lost of what was promised.

use std::fs::{self, File};
use std::io::Write;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;

use sluice_core::books::Mode;
use tempfile::TempDir;

use super::*;
use crate::budget::Budget;
use crate::retention::Retention;
use crate::store::StoreError;
use crate::usage::Which;

const CAP: u64 = 1_000_000;

fn usd(nanos: u64) -> NanoUsd {
    NanoUsd::from_nanos(nanos)
}

fn open(folder: &Path) -> Arc<Spending> {
    Spending::open(folder, "boot-1", 1).unwrap().0
}

fn account() -> [Drawn; 1] {
    let budget = Arc::new(Budget { name: "all".into(), cap: usd(CAP), mode: Mode::Enforce });
    [Drawn { budget, key: AccountKey { budget: "all".into(), scope: "".into(), start_s: 0 }, resets_s: None }]
}

fn hold(spending: &Arc<Spending>, amount: u64) -> Result<Hold, NotHeld> {
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    runtime.block_on(spending.hold(&account(), usd(amount), Attempt::default())).map(|mut hold| {
        hold.sent();
        hold
    })
}

/// A call's row that needs pages of its own.
fn long_row(cost: u64) -> Option<Box<Row>> {
    Some(Box::new(Row { request: "x".repeat(20_000).into(), cost, ..Row::default() }))
}

/// Settled and in doubt, and the calls, as the database has them.
fn stored(folder: &Path) -> (u64, u64, usize) {
    let store = Store::open(&folder.join("sluice.db")).unwrap();
    let vault = store.accounts(None, 2).unwrap()[0].vault;
    let calls = store.calls(&Which::default(), 1000).unwrap().len();
    (vault.settled.nanos(), vault.in_doubt.nanos(), calls)
}

/// What is wrong with the writer's database.
#[derive(Clone, Copy, Debug)]
enum Bad {
    Full,
    ReadOnly,
}

impl Bad {
    const ALL: [Bad; 2] = [Bad::Full, Bad::ReadOnly];

    fn code(self) -> &'static str {
        match self {
            Bad::Full => "full",
            Bad::ReadOnly => "read_only",
        }
    }

    fn begins(self, spending: &Spending) {
        with_store(
            spending,
            match self {
                Bad::Full => "PRAGMA max_page_count = 1",
                Bad::ReadOnly => "PRAGMA query_only = 1",
            },
        );
    }

    fn ends(self, spending: &Spending) {
        with_store(
            spending,
            match self {
                Bad::Full => "PRAGMA max_page_count = 1000000",
                Bad::ReadOnly => "PRAGMA query_only = 0",
            },
        );
    }
}

fn with_store(spending: &Spending, text: &'static str) {
    let (done, is_done) = sync_channel(1);
    let with = move |store: &Store| {
        store.connection().execute_batch(text).unwrap();
        done.send(()).unwrap();
    };
    spending.messages.send(Message::With(Box::new(with))).unwrap();
    is_done.recv().unwrap();
}

#[test]
fn a_bad_database_refuses_new_money_and_gets_all_of_the_old_when_it_is_well() {
    for bad in Bad::ALL {
        let folder = TempDir::new().unwrap();
        let spending = open(folder.path());
        let before = hold(&spending, 100).unwrap();
        bad.begins(&spending);
        before.settle(usd(60), long_row(60));
        // What is leased is promised: it goes on.
        hold(&spending, 50).unwrap().settle(usd(50), long_row(50));
        assert_eq!(spending.flush(), Err(bad.code()), "{bad:?}");
        assert_eq!(hold(&spending, CAP / 2).err(), Some(NotHeld::Store(bad.code())), "{bad:?}");
        assert_eq!((spending.figures().trouble, spending.figures().waiting), (Some(bad.code()), 2));
        bad.ends(&spending);
        hold(&spending, CAP / 2).unwrap().settle(usd(1000), None);
        spending.flush().unwrap();
        assert_eq!((spending.figures().trouble, spending.figures().waiting), (None, 0));
        spending.close();
        assert_eq!(stored(folder.path()), (1110, 0, 2), "{bad:?}");
    }
}

#[test]
fn who_dies_beside_a_bad_database_has_all_of_it_in_the_journal() {
    for bad in Bad::ALL {
        let folder = TempDir::new().unwrap();
        let spending = open(folder.path());
        let before = hold(&spending, 100).unwrap();
        bad.begins(&spending);
        before.settle(usd(60), long_row(60));
        std::mem::forget(hold(&spending, 50).unwrap());
        assert_eq!(spending.flush(), Err(bad.code()));
        spending.abandon();
        open(folder.path()).close();
        assert_eq!(stored(folder.path()), (60, 50, 1), "{bad:?}");
    }
}

#[test]
fn a_close_beside_a_bad_database_loses_nothing() {
    for bad in Bad::ALL {
        let folder = TempDir::new().unwrap();
        let spending = open(folder.path());
        let before = hold(&spending, 100).unwrap();
        bad.begins(&spending);
        before.settle(usd(60), long_row(60));
        spending.close();
        let (spending, found) = Spending::open(folder.path(), "boot-1", 1).unwrap();
        assert_eq!((found.settled, found.in_doubt), (1, 0), "{bad:?}");
        spending.close();
        assert_eq!(stored(folder.path()), (60, 0, 1), "{bad:?}");
    }
}

#[test]
fn old_calls_make_room_in_a_database_that_is_full() {
    let folder = TempDir::new().unwrap();
    let mut store = Store::open(&folder.path().join("sluice.db")).unwrap();
    let add = |store: &mut Store, at_ms| {
        let batch = store.batch()?;
        let rows: Vec<Row> = (0..100).filter_map(long_row).map(|row| Row { at_ms, ..*row }).collect();
        batch.add_rows(&rows)?;
        batch.commit()
    };
    add(&mut store, 0).unwrap();
    // Past the limit of 64 MiB less the log's part, and no room for more.
    for day in 1..30 {
        add(&mut store, day * crate::rows::DAY_MS).unwrap();
    }
    store.connection().execute_batch("PRAGMA max_page_count = 1").unwrap();
    assert!(matches!(add(&mut store, 0), Err(StoreError::Full)));
    let report = Retention::new(0).step(&mut store, u64::MAX).unwrap();
    assert_eq!(report.calls, 100);
    add(&mut store, crate::rows::DAY_MS).unwrap();
}

#[test]
fn a_connection_that_only_reads_is_read_only() {
    let folder = TempDir::new().unwrap();
    open(folder.path()).close();
    let mut reader = Store::open_to_read(&folder.path().join("sluice.db")).unwrap();
    let no = reader.batch().and_then(|batch| batch.set_meta("a", "b"));
    assert_eq!(no.err().map(|error| error.code()), Some("read_only"));
}

/// A small disk of its own, where the machine gives one: that is to root.
struct Disk(PathBuf);

impl Disk {
    fn mount(at: &Path, kibibytes: u32) -> Option<Disk> {
        fs::create_dir_all(at).unwrap();
        let size = format!("size={kibibytes}k");
        let mounted = Command::new("mount").args(["-t", "tmpfs", "-o", &size, "tmpfs"]).arg(at).output();
        mounted.is_ok_and(|output| output.status.success()).then(|| Disk(at.into()))
    }

    fn remount(&self, how: &str) {
        let mounted = Command::new("mount").args(["-o", &format!("remount,{how}")]).arg(&self.0).status();
        assert!(mounted.unwrap().success());
    }

    /// Takes all that is free.
    fn fill(&self) {
        let mut filler = File::create(self.0.join("filler")).unwrap();
        while filler.write_all(&[7; 4096]).is_ok() {}
    }

    fn clear(&self) {
        fs::remove_file(self.0.join("filler")).unwrap();
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        // Lazily: a test that has failed may have files open on it.
        let _ = Command::new("umount").arg("-l").arg(&self.0).status();
    }
}

#[test]
fn a_full_disk_of_the_journal_refuses_new_money_and_takes_it_when_there_is_room() {
    let folder = TempDir::new().unwrap();
    let Some(disk) = Disk::mount(&folder.path().join("journal"), 64) else { return without_a_disk() };
    let spending = open(folder.path());
    let before = hold(&spending, 100).unwrap();
    disk.fill();
    // What fits the last page is still written, and a part of what does not.
    let mut held = Vec::new();
    let refused = loop {
        match hold(&spending, 1) {
            Ok(one) => held.push(one),
            Err(why) => break why,
        }
    };
    assert_eq!(refused, NotHeld::Store("full"));
    let figures = spending.figures();
    assert_eq!((figures.trouble, figures.holds), (Some("full"), 1 + held.len() as u64));
    assert_eq!(figures.held, usd(100 + held.len() as u64), "what was refused is not held");
    before.settle(usd(60), None);
    spending.flush().unwrap();
    disk.clear();
    let count = held.len() as u64;
    held.into_iter().for_each(|one| drop(one.settle(usd(1), None)));
    hold(&spending, 10).unwrap().settle(usd(9), None);
    std::mem::forget(hold(&spending, 5).unwrap());
    spending.abandon();
    let (spending, found) = Spending::open(folder.path(), "boot-1", 1).unwrap();
    spending.close();
    // That the first one has ended was not written: it is settled, and in doubt besides.
    assert_eq!((found.in_doubt, stored(folder.path())), (2, (60 + count + 9, 105, 0)));
}

/// The same, of a device that is always full; it ends when the journal goes on elsewhere.
fn without_a_disk() {
    let folder = TempDir::new().unwrap();
    let spending = open(folder.path());
    let before = hold(&spending, 100).unwrap();
    let elsewhere = folder.path().join("full");
    fs::create_dir(&elsewhere).unwrap();
    symlink("/dev/full", elsewhere.join("00000009.journal")).unwrap();
    let full = Journal::begin(&elsewhere, 9).unwrap();
    let well = std::mem::replace(&mut spending.lock().journal, full);
    assert_eq!(hold(&spending, 1).err(), Some(NotHeld::Store("full")));
    assert_eq!((spending.figures().holds, spending.figures().held), (1, usd(100)));
    before.settle(usd(60), None);
    spending.lock().journal = well;
    hold(&spending, 10).unwrap().settle(usd(9), None);
    spending.close();
    assert_eq!(stored(folder.path()), (69, 0, 0));
}

#[test]
fn the_way_without_a_disk_works_where_there_is_one() {
    without_a_disk();
}

#[test]
fn a_full_disk_of_everything_loses_nothing() {
    for dies in [false, true] {
        let folder = TempDir::new().unwrap();
        // Without it the two halves are in the tests above.
        let Some(disk) = Disk::mount(folder.path(), 8 * 1024) else { return };
        let spending = open(folder.path());
        let before = hold(&spending, 100).unwrap();
        disk.fill();
        before.settle(usd(60), long_row(60));
        assert_eq!(spending.flush(), Err("full"));
        assert_eq!(hold(&spending, CAP / 2).err(), Some(NotHeld::Store("full")));
        if dies {
            spending.abandon();
            assert!(matches!(
                Spending::open(folder.path(), "boot-1", 1),
                Err(RecoveryError::Store(StoreError::Full))
            ));
            disk.clear();
            open(folder.path()).close();
            // Nobody wrote down what it cost.
            assert_eq!(stored(folder.path()), (0, 100, 0));
        } else {
            disk.clear();
            hold(&spending, CAP / 2).unwrap().settle(usd(1000), None);
            spending.close();
            assert_eq!(stored(folder.path()), (1060, 0, 1));
        }
    }
}

#[test]
fn a_folder_that_is_read_only_is_said_and_is_as_it_was_afterwards() {
    let folder = TempDir::new().unwrap();
    let data = folder.path().join("data");
    let disk = Disk::mount(&data, 8 * 1024);
    let spending = open(&data);
    let before = hold(&spending, 100).unwrap();
    with_store(&spending, "PRAGMA query_only = 1");
    before.settle(usd(60), long_row(60));
    spending.abandon();
    drop(spending);
    let mode = |file: u32, folder: u32| {
        fs::set_permissions(data.join("sluice.db"), fs::Permissions::from_mode(file)).unwrap();
        fs::set_permissions(&data, fs::Permissions::from_mode(folder)).unwrap();
    };
    match &disk {
        Some(disk) => disk.remount("ro"),
        None => mode(0o400, 0o500),
    }
    let is_root = fs::metadata("/proc/self").unwrap().uid() == 0;
    let refused = Spending::open(&data, "boot-1", 1).err();
    let said = matches!(refused, Some(RecoveryError::Store(StoreError::ReadOnly)));
    // Root without a disk of its own writes whatever the mode: then nothing was to be refused.
    assert!(said || (disk.is_none() && is_root), "{refused:?}");
    match &disk {
        Some(disk) => disk.remount("rw"),
        None => mode(0o600, 0o700),
    }
    open(&data).close();
    assert_eq!(stored(&data), (60, 0, 1));
}

/// Counts what is said of the journal's next segment.
struct Ears(Arc<AtomicU64>);

impl tracing::Subscriber for Ears {
    fn enabled(&self, metadata: &tracing::Metadata<'_>) -> bool {
        metadata.target().ends_with("::writer") && *metadata.level() == tracing::Level::WARN
    }

    fn event(&self, event: &tracing::Event<'_>) {
        event.record(&mut |_: &tracing::field::Field, value: &dyn std::fmt::Debug| {
            let is_it = format!("{value:?}").contains("next segment");
            self.0.fetch_add(is_it.into(), Ordering::Relaxed);
        });
    }

    fn new_span(&self, _: &tracing::span::Attributes<'_>) -> tracing::span::Id {
        tracing::span::Id::from_u64(1)
    }

    fn record(&self, _: &tracing::span::Id, _: &tracing::span::Record<'_>) {}
    fn record_follows_from(&self, _: &tracing::span::Id, _: &tracing::span::Id) {}
    fn enter(&self, _: &tracing::span::Id) {}
    fn exit(&self, _: &tracing::span::Id) {}
}

#[test]
fn a_segment_that_cannot_be_begun_is_said_once_for_each_trouble() {
    let folder = TempDir::new().unwrap();
    let said = Arc::new(AtomicU64::new(0));
    // The writer has a thread of its own.
    tracing::subscriber::set_global_default(Ears(Arc::clone(&said))).unwrap();
    let spending = open(folder.path());
    for trouble in 1..=2 {
        let next = spending.lock().journal.position().segment + 1;
        let in_its_way = folder.path().join(format!("journal/{next:08}.journal"));
        fs::create_dir(&in_its_way).unwrap();
        while spending.lock().journal.position().offset <= crate::journal::SEGMENT_BYTES {
            hold(&spending, 1).unwrap().settle(usd(0), long_row(0));
        }
        for _ in 0..5 {
            spending.flush().unwrap();
        }
        assert_eq!(
            (said.load(Ordering::Relaxed), spending.lock().journal.position().segment),
            (trouble, next - 1)
        );
        fs::remove_dir(&in_its_way).unwrap();
        spending.flush().unwrap();
        assert_eq!(spending.lock().journal.position().segment, next);
    }
    spending.close();
}
