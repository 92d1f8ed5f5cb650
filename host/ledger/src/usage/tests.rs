//! Sums against rows that are added up by hand.

use std::collections::BTreeMap;

use proptest::prelude::*;
use tempfile::TempDir;

use super::*;

const NOON_MS: u64 = 1_769_860_800_000; // 2026-01-31T12:00:00Z

fn store(rows: &[Row]) -> (TempDir, Store) {
    let folder = TempDir::new().unwrap();
    let mut store = Store::open(&folder.path().join("sluice.db")).unwrap();
    let batch = store.batch().unwrap();
    batch.add_rows(rows).unwrap();
    batch.commit().unwrap();
    (folder, store)
}

fn day(text: &str) -> Day {
    text.parse().unwrap()
}

fn row(at_ms: u64, key: &str, cost: u64) -> Row {
    Row { at_ms, key: key.into(), cost, ..Row::default() }
}

fn all(by: &[By]) -> Query {
    Query { by: by.into(), which: Which::default(), limit: ROWS_MAX }
}

#[test]
fn a_day_is_one_of_the_calendar() {
    for text in ["2026-01-31", "2024-02-29", "1970-01-01", "9999-12-31"] {
        assert_eq!(day(text).to_string(), text);
    }
    for text in [
        "",
        "2026",
        "2026-1-31",
        "2026-01-32",
        "2026-02-29",
        "2026-00-01",
        "26-01-31",
        "2026-01-31 ",
        "2026-01-311",
        "2026-01-31T00",
        "+026-01-31",
        "-026-01-31",
        "2026-13-01",
        "٢٠٢٦-01-31",
        "today",
    ] {
        assert_eq!(text.parse::<Day>(), Err(NotADay), "{text}");
    }
    assert_eq!((day("1970-01-01").start_ms(), day("1970-01-02").start_ms()), (0, 86_400_000));
    assert_eq!(day("2026-01-31").start_ms(), NOON_MS as i64 - 12 * 3_600_000);
}

#[test]
fn a_column_is_one_of_six_words() {
    for by in By::ALL {
        assert_eq!(by.name().parse(), Ok(by));
    }
    for text in ["", "Key", "cost", "key, team", "1"] {
        assert_eq!(text.parse::<By>(), Err(NotAColumn), "{text}");
    }
}

#[test]
fn both_days_of_a_question_are_in_it() {
    let midnight = NOON_MS + 12 * 3_600_000;
    let times = [midnight - 86_400_001, midnight - 86_400_000, midnight - 1, midnight];
    let (_folder, store) = store(&times.map(|at| row(at, "k", 1)));
    let which = Which { from: Some(day("2026-01-31")), to: Some(day("2026-01-31")), ..Which::default() };
    let at: Vec<u64> = store.calls(&which, 10).unwrap().iter().map(|row| row.at_ms).collect();
    assert_eq!(at, [times[2], times[1]]);
    let answer = store.usage(&Query { which, ..all(&[By::Day]) }).unwrap();
    assert_eq!(
        answer.rows.iter().map(|sum| (&*sum.names[0], sum.calls)).collect::<Vec<_>>(),
        [("2026-01-31", 2)]
    );
    let turned = Which { from: Some(day("2026-02-01")), to: Some(day("2026-01-31")), ..Which::default() };
    assert_eq!(store.usage(&Query { which: turned.clone(), ..all(&[]) }).unwrap(), Answer::default());
    assert_eq!(store.calls(&turned, 10).unwrap(), []);
}

#[test]
fn what_callers_say_is_never_sql() {
    let evil = "x' OR '1'='1";
    let (_folder, store) = store(&[row(1, "k", 1), row(1, evil, 2)]);
    let which = Which { key: Some(evil.into()), ..Which::default() };
    let answer = store.usage(&Query { which: which.clone(), ..all(&[By::Key]) }).unwrap();
    assert_eq!(answer.rows.iter().map(|sum| sum.cost.nanos()).collect::<Vec<_>>(), [2]);
    assert_eq!(store.calls(&which, 10).unwrap().len(), 1);
    assert_eq!(store.calls(&Which { key: Some("%".into()), ..Which::default() }, 10).unwrap(), []);
}

#[test]
fn a_limit_keeps_the_dearest_and_says_so() {
    let (_folder, store) = store(&[row(1, "a", 1), row(1, "b", 3), row(1, "c", 2)]);
    let of = |limit| {
        let answer = store.usage(&Query { limit, ..all(&[By::Key, By::Key]) }).unwrap();
        let names: String = answer.rows.iter().flat_map(|sum| sum.names.clone()).collect();
        (names, answer.cut)
    };
    assert_eq!([of(0), of(2), of(3)], [("".into(), true), ("bc".into(), true), ("bca".into(), false)]);
    assert_eq!(store.calls(&Which::default(), 2).unwrap().len(), 2);
}

#[test]
fn an_empty_ledger_has_no_rows() {
    let (_folder, store) = store(&[]);
    assert_eq!(store.usage(&all(&[])).unwrap(), Answer::default());
    assert_eq!(store.usage(&all(&[By::Day])).unwrap().rows, []);
    assert_eq!(store.accounts(None, 10).unwrap(), []);
}

#[test]
fn a_reader_beside_the_writer_sees_the_same() {
    let (folder, store) = store(&[row(1, "a", 1)]);
    let reader = Store::open_to_read(&folder.path().join("sluice.db")).unwrap();
    assert_eq!(reader.usage(&all(&By::ALL)).unwrap(), store.usage(&all(&By::ALL)).unwrap());
}

#[test]
fn accounts_stand_as_they_were_left() {
    let (_folder, mut store) = store(&[]);
    let usd = NanoUsd::from_nanos;
    let batch = store.batch().unwrap();
    let key =
        |budget: &str, scope: &str| AccountKey { budget: budget.into(), scope: scope.into(), start_s: 5 };
    let account = batch.account(&key("b", "k")).unwrap();
    batch.add_lease("0", account.id, usd(100)).unwrap();
    batch.settle("0", account.id, usd(30)).unwrap();
    batch.account(&key("c", "k")).unwrap();
    batch.commit().unwrap();
    let vault = Vault { settled: usd(30), in_doubt: usd(0), leased: usd(70) };
    let stands = Standing { id: account.id, key: key("b", "k"), vault, closed: false };
    assert_eq!(store.accounts(Some("b"), 10).unwrap(), [stands]);
    assert_eq!(store.accounts(None, 10).unwrap().len(), 2);
    assert_eq!(store.accounts(None, 1).unwrap().len(), 1);
    assert_eq!(store.accounts(Some("d"), 10).unwrap(), []);
}

fn any_row() -> impl Strategy<Value = Row> {
    let name = || prop::sample::select(vec!["", "a", "b"]);
    let names = (name(), name(), name(), name(), name());
    let counts = (0_u64..1000, 0_u64..1000, 0_u64..1000, 0_u64..1000, 0_u64..1000, 0_u64..1_000_000_000);
    (0_u64..3 * DAY_MS, names, counts).prop_map(|(at_ms, names, counts)| Row {
        at_ms: NOON_MS + at_ms,
        key: names.0.into(),
        team: names.1.into(),
        run: names.2.into(),
        model: names.3.into(),
        upstream: names.4.into(),
        input: counts.0,
        cached_input: counts.1,
        cache_write: counts.2,
        output: counts.3,
        reasoning: counts.4,
        cost: counts.5,
        ..Row::default()
    })
}

fn name_of(row: &Row, by: By) -> String {
    match by {
        By::Day => Day(Day::EPOCH + jiff::Span::new().days((row.at_ms / DAY_MS) as i64)).to_string(),
        By::Key => row.key.to_string(),
        By::Team => row.team.to_string(),
        By::Run => row.run.to_string(),
        By::Model => row.model.to_string(),
        By::Upstream => row.upstream.to_string(),
    }
}

/// The same question, asked of the rows.
fn by_hand(rows: &[Row], query: &Query) -> Vec<Sum> {
    let Which { from, to, key, team, run, model, upstream } = &query.which;
    let fits = |name: &Option<String>, of: &str| name.as_deref().is_none_or(|name| name == of);
    let mut sums: BTreeMap<Vec<String>, Sum> = BTreeMap::new();
    let wanted = rows.iter().filter(|row| {
        let day = day(&name_of(row, By::Day));
        from.is_none_or(|from| from <= day)
            && to.is_none_or(|to| day <= to)
            && fits(key, &row.key)
            && fits(team, &row.team)
            && fits(run, &row.run)
            && fits(model, &row.model)
            && fits(upstream, &row.upstream)
    });
    for row in wanted {
        let names: Vec<String> = query.by.iter().map(|by| name_of(row, *by)).collect();
        let none = Sum { names: names.clone(), calls: 0, input: 0, output: 0, cost: NanoUsd::ZERO };
        let sum = sums.entry(names).or_insert(none);
        sum.calls += 1;
        sum.input += row.input + row.cached_input + row.cache_write;
        sum.output += row.output + row.reasoning;
        sum.cost = sum.cost.saturating_add(NanoUsd::from_nanos(row.cost));
    }
    let day_of = |sum: &Sum| query.by.iter().position(|by| *by == By::Day).map(|at| sum.names[at].clone());
    let mut sums: Vec<Sum> = sums.into_values().collect();
    sums.sort_by_key(|sum| (day_of(sum), std::cmp::Reverse(sum.cost), sum.names.clone()));
    sums
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// Whatever is asked, the answer is what the rows add up to, in order.
    #[test]
    fn sums_are_those_of_the_rows(
        rows in prop::collection::vec(any_row(), 0..40),
        by in prop::sample::subsequence(By::ALL.to_vec(), 0..=6).prop_shuffle(),
        names in prop::array::uniform5(prop::option::weighted(0.2, prop::sample::select(vec!["", "a", "b"]))),
        days in (prop::option::of(0_usize..4), prop::option::of(0_usize..4)),
    ) {
        let days_known = ["2026-01-31", "2026-02-01", "2026-02-02", "2026-02-03"].map(day);
        let [key, team, run, model, upstream] = names.map(|name| name.map(String::from));
        let (from, to) = (days.0.map(|at| days_known[at]), days.1.map(|at| days_known[at]));
        let query = Query { by, which: Which { from, to, key, team, run, model, upstream }, limit: ROWS_MAX };
        let (_folder, store) = store(&rows);
        let answer = store.usage(&query).unwrap();
        prop_assert_eq!(&answer.rows, &by_hand(&rows, &query));
        let calls = store.calls(&query.which, ROWS_MAX).unwrap();
        prop_assert!(calls.is_sorted_by(|one, next| one.at_ms >= next.at_ms));
        let all = by_hand(&calls, &Query { by: Vec::new(), which: Which::default(), limit: 1 });
        prop_assert_eq!(store.usage(&Query { by: Vec::new(), ..query }).unwrap().rows, all);
    }

    /// A call is read as it was written.
    #[test]
    fn a_call_comes_back_as_it_was(row in any_row(), words in prop::array::uniform5("\\PC{0,8}"), ms in any::<[u32; 2]>()) {
        let [request, target_model, tried, outcome, basis] = words;
        let row = Row {
            request: request.into(), target_model: target_model.into(), tried: tried.into(),
            outcome: outcome.into(), basis: basis.into(), calls: 3, first_ms: ms[0], total_ms: ms[1], ..row
        };
        let (_folder, store) = store(std::slice::from_ref(&row));
        prop_assert_eq!(store.calls(&Which::default(), 1).unwrap(), [row]);
    }
}
