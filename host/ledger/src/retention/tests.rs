//! Small limits, old calls, and money that stays.

use proptest::prelude::*;
use sluice_core::money::NanoUsd;
use tempfile::TempDir;

use super::*;
use crate::budget::AccountKey;
use crate::checker::{Findings, Known};
use crate::rows::Row;
use crate::usage::{By, Query, Which};

const NOW_MS: u64 = 1_000 * DAY_MS + DAY_MS / 2;

fn small(kept_bytes: u64) -> Retention {
    Retention { kept_bytes, reserve_bytes: 64 << 20, ..Retention::new(0) }
}

fn empty() -> (TempDir, Store) {
    let folder = TempDir::new().unwrap();
    let store = Store::open(&folder.path().join("sluice.db")).unwrap();
    (folder, store)
}

fn add(store: &mut Store, rows: &[Row]) {
    let batch = store.batch().unwrap();
    batch.add_rows(rows).unwrap();
    batch.commit().unwrap();
}

/// Calls of one day, spread over so many milliseconds, two for each run.
fn calls(day: u64, count: u64, over_ms: u64) -> Vec<Row> {
    let call = |number| Row {
        at_ms: day * DAY_MS + number * over_ms / count,
        request: format!("{day:0100}").into(),
        key: "k".into(),
        run: format!("run-{:0100}", number / 2).into(),
        cost: 1 + number,
        ..Row::default()
    };
    (0..count).map(call).collect()
}

/// Steps until there is nothing more to do.
fn run(retention: &mut Retention, store: &mut Store) -> Vec<Report> {
    let mut reports = Vec::new();
    loop {
        let report = retention.step(store, NOW_MS).unwrap();
        assert!(report.calls <= 2000 && report.runs <= 2000 && report.pages <= PAGES_MAX, "{report:?}");
        reports.push(report);
        if report.next != Next::More {
            return reports;
        }
        assert!(reports.len() < 10_000, "{report:?}");
    }
}

fn days(store: &Store) -> Vec<(u64, u64)> {
    let query = "SELECT at_ms / ?1, count(*) FROM calls GROUP BY 1 ORDER BY 1";
    let mut query = store.connection().prepare(query).unwrap();
    let rows = query
        .query_map([DAY_MS as i64], |row| Ok((row.get::<_, i64>(0)? as u64, row.get::<_, i64>(1)? as u64)));
    rows.unwrap().collect::<Result<_, _>>().unwrap()
}

fn sums(store: &Store) -> Vec<crate::usage::Sum> {
    let query = Query { by: vec![By::Day, By::Key], which: Which::default(), limit: 1000 };
    store.usage(&query).unwrap().rows
}

fn bytes(store: &Store) -> u64 {
    Size::of(store.connection()).unwrap().file_bytes
}

#[test]
fn below_the_limit_nothing_goes() {
    let (_folder, mut store) = empty();
    add(&mut store, &calls(1, 100, DAY_MS));
    let mut retention = Retention::new(LIMIT_BYTES);
    let report = retention.step(&mut store, NOW_MS).unwrap();
    assert_eq!((report.next, report.calls, report.reached), (Next::Enough, 0, false));
    assert_eq!(days(&store), [(1, 100)]);
}

#[test]
fn the_oldest_days_go_as_a_whole_and_their_sums_stay() {
    let (_folder, mut store) = empty();
    for day in [7, 5, 6, 8] {
        add(&mut store, &calls(day, 3000, DAY_MS));
    }
    let before = sums(&store);
    let all = bytes(&store);
    let reports = run(&mut small(all - all / 10), &mut store);
    assert_eq!(days(&store), [(6, 3000), (7, 3000), (8, 3000)]);
    assert_eq!(reports.iter().map(|report| report.calls).collect::<Vec<_>>()[..2], [2000, 1000]);
    assert_eq!(sums(&store), before);
    assert_eq!(store.check(&Known::default()).unwrap(), Findings::default(), "what has gone is no finding");
    let reached: Vec<bool> = reports.iter().map(|report| report.reached).collect();
    assert_eq!(reached.iter().position(|reached| *reached), Some(0));
    assert_eq!(reached.iter().filter(|reached| **reached).count(), 1, "it is said once");
}

#[test]
fn of_today_a_part_goes_at_a_time() {
    let (_folder, mut store) = empty();
    add(&mut store, &calls(NOW_MS / DAY_MS, 8000, DAY_MS / 2));
    let all = bytes(&store);
    run(&mut small(all - all / 20), &mut store);
    assert_eq!(days(&store), [(NOW_MS / DAY_MS, 7000)]);
}

#[test]
fn clocks_that_were_wrong_cost_no_other_calls() {
    let (_folder, mut store) = empty();
    add(&mut store, &calls(5000, 10, DAY_MS));
    add(&mut store, &calls(0, 100, DAY_MS));
    add(&mut store, &calls(999, 3000, DAY_MS));
    let all = bytes(&store);
    run(&mut small(all - 4096), &mut store);
    assert_eq!(days(&store), [(999, 3000), (5000, 10)]);
    assert_eq!(cut(u64::MAX, 0), u64::MAX);
}

#[test]
fn then_old_days_forget_their_runs_and_nothing_else() {
    let (_folder, mut store) = empty();
    let today = NOW_MS / DAY_MS;
    for day in [3, 4, today] {
        add(&mut store, &calls(day, 6000, DAY_MS / 2));
    }
    let before = sums(&store);
    let mut retention = small(1);
    let reports = run(&mut retention, &mut store);
    assert_eq!(reports.last().unwrap().next, Next::Floor);
    assert_eq!(days(&store), []);
    assert_eq!(sums(&store), before);
    assert_eq!(reports.iter().map(|report| report.runs).sum::<u64>(), 6000, "three thousand of each old day");
    let runs = |day: &str| {
        let which =
            Which { from: Some(day.parse().unwrap()), to: Some(day.parse().unwrap()), ..Which::default() };
        store.usage(&Query { by: vec![By::Run], which, limit: 10_000 }).unwrap().rows.len()
    };
    assert_eq!([runs("1970-01-04"), runs("1970-01-05"), runs("1972-09-27")], [1, 1, 3000]);
    assert!(gone(store.connection()).unwrap().runs);
    // What comes later to a day that has none any more goes there, too.
    add(&mut store, &calls(3, 2, DAY_MS));
    assert_eq!(run(&mut retention, &mut store).iter().map(|report| report.runs).sum::<u64>(), 1);
}

#[test]
fn accounts_go_last_and_only_where_their_money_cannot_matter() {
    let (_folder, mut store) = empty();
    let now_s = (NOW_MS / 1000) as i64;
    let end = |days: i64| Some(now_s - days * 24 * 60 * 60);
    let batch = store.batch().unwrap();
    let account = |scope: &str, ends_s: Option<i64>| {
        let key = AccountKey { budget: "b".into(), scope: scope.into(), start_s: 7 };
        let id = batch.account(&key).unwrap().id;
        batch.set_end(id, ends_s).unwrap();
        batch.settle("0", id, NanoUsd::from_nanos(5)).unwrap();
        id
    };
    let doubt = account("in doubt", end(90));
    batch.orphan("0", doubt, NanoUsd::from_nanos(1)).unwrap();
    let leased = account("leased", end(90));
    batch.connection().execute("INSERT INTO leases VALUES (?1, '0', 1)", [leased.0]).unwrap();
    account("old", end(41));
    account("young", end(40));
    account("no end", None);
    account("the last", end(90));
    batch.commit().unwrap();
    let scopes = |store: &Store| -> Vec<String> {
        store.accounts(None, 10).unwrap().iter().map(|one| String::from(&*one.key.scope)).collect()
    };
    let report = Retention::new(0).step(&mut store, NOW_MS).unwrap();
    assert_eq!((report.accounts, scopes(&store).len()), (0, 6), "there is room");
    let mut retention = small(1);
    let report = retention.step(&mut store, NOW_MS).unwrap();
    assert_eq!((report.accounts, report.next), (1, Next::More));
    let mut left = scopes(&store);
    left.sort_unstable();
    assert_eq!(left, ["in doubt", "leased", "no end", "the last", "young"]);
    assert_eq!(retention.step(&mut store, NOW_MS).unwrap().next, Next::Floor);
    let scope = crate::budget::Scope::Key;
    let known = Known { scopes: [("b".into(), scope), ("c".into(), scope)].into(), ..Known::default() };
    assert_eq!(store.check(&known).unwrap().unchecked, ["b"], "the other is held against its calls");
}

#[test]
fn another_limit_is_kept_from_then_on_and_said_anew() {
    let (_folder, mut store) = empty();
    add(&mut store, &calls(1, 100, DAY_MS));
    let mut retention = small(1);
    assert!(retention.step(&mut store, NOW_MS).unwrap().reached);
    assert!(!retention.step(&mut store, NOW_MS).unwrap().reached);
    assert!(retention.limit(2 * LIMIT_BYTES));
    assert!(!retention.limit(2 * LIMIT_BYTES), "the same");
    assert_eq!(retention.step(&mut store, NOW_MS).unwrap().next, Next::Enough);
    retention.kept_bytes = 1;
    assert!(retention.step(&mut store, NOW_MS).unwrap().reached);
}

#[test]
fn a_limit_that_was_lowered_takes_effect() {
    let (folder, mut store) = empty();
    for day in 1..=10 {
        add(&mut store, &calls(day, 2000, DAY_MS));
    }
    let half = bytes(&store) / 2;
    let reports = run(&mut small(half), &mut store);
    assert!(reports.iter().any(|report| report.pages > 0));
    assert!(bytes(&store) <= half);
    store.connection().query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |_| Ok(())).unwrap();
    assert!(
        std::fs::metadata(folder.path().join("sluice.db")).unwrap().len() <= half,
        "the disk has it back"
    );
}

#[test]
fn a_file_that_gives_nothing_back_is_used_again() {
    let folder = TempDir::new().unwrap();
    let file = folder.path().join("sluice.db");
    Connection::open(&file).unwrap().execute_batch("CREATE TABLE other (a)").unwrap();
    let mut store = Store::open(&file).unwrap();
    for day in 1..=4 {
        add(&mut store, &calls(day, 2000, DAY_MS));
    }
    let all = bytes(&store);
    assert_eq!(run(&mut small(all - all / 10), &mut store).last().unwrap().next, Next::Enough);
    add(&mut store, &calls(5, 1000, DAY_MS));
    assert_eq!(bytes(&store), all);
}

#[test]
fn while_somebody_reads_for_long_nothing_makes_the_log_longer() {
    let (folder, mut store) = empty();
    add(&mut store, &calls(1, 100, DAY_MS));
    let reader = Store::open_to_read(&folder.path().join("sluice.db")).unwrap();
    let reading = reader.connection().unchecked_transaction().unwrap();
    assert_eq!(days(&reader), [(1, 100)]);
    for day in 2..=4 {
        add(&mut store, &calls(day, 3000, DAY_MS));
    }
    let mut retention = Retention { kept_bytes: 1, reserve_bytes: 100_000, ..Retention::new(0) };
    let wal = || std::fs::metadata(folder.path().join("sluice.db-wal")).unwrap().len();
    let before = wal();
    let report = retention.step(&mut store, NOW_MS).unwrap();
    assert_eq!((report.next, report.calls, wal()), (Next::Reader, 0, before));
    drop(reading);
    store.connection().pragma_update(None, "journal_size_limit", 50_000).unwrap();
    assert_eq!(retention.step(&mut store, NOW_MS).unwrap().next, Next::Reader);
    add(&mut store, &[]);
    add(&mut store, &calls(5, 1, DAY_MS));
    assert!(wal() < before, "the next batch has cut it");
    assert_eq!(retention.step(&mut store, NOW_MS).unwrap().calls, 100);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    /// Whatever is written between the looks: after them the file is below its limit, what is left of
    /// the calls is the newest of them, no sum has changed but for its run, and no account.
    #[test]
    fn the_limit_is_kept_and_no_money_with_it(
        batches in prop::collection::vec((995_u64..=1000, 1_u64..1500), 1..12),
        kept in 300_000_u64..800_000,
    ) {
        let (_folder, mut store) = empty();
        let batch = store.batch().unwrap();
        let key = AccountKey { budget: "b".into(), scope: "".into(), start_s: 0 };
        let id = batch.account(&key).unwrap().id;
        batch.settle("0", id, NanoUsd::from_nanos(77)).unwrap();
        batch.commit().unwrap();
        let mut retention = small(kept);
        let mut written: Vec<Row> = Vec::new();
        for (day, count) in batches {
            let rows = calls(day, count, DAY_MS / 2);
            add(&mut store, &rows);
            written.extend(rows);
            let last = *run(&mut retention, &mut store).last().unwrap();
            prop_assert!(last.next == Next::Floor || last.size.file_bytes <= kept, "{last:?}");
        }
        let mut left: Vec<u64> = store.calls(&Which::default(), 100_000).unwrap().iter().map(|row| row.at_ms).collect();
        let cut = gone(store.connection()).unwrap().calls_before_ms.unwrap_or(0);
        let mut newest: Vec<u64> = written.iter().map(|row| row.at_ms).filter(|at| *at >= cut).collect();
        left.sort_unstable();
        newest.sort_unstable();
        prop_assert_eq!(left, newest);
        let cost: u64 = written.iter().map(|row| row.cost).sum();
        prop_assert_eq!(sums(&store).iter().map(|sum| sum.cost.nanos()).sum::<u64>(), cost);
        prop_assert_eq!(store.check(&Known::default()).unwrap(), Findings::default());
        prop_assert_eq!(store.accounts(None, 10).unwrap()[0].vault.settled.nanos(), 77);
    }
}
