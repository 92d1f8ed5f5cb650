//! Jobs as they are written, found again and summed.

use tempfile::TempDir;

use super::report::{By, Line, Which};
use super::*;
use crate::budget::AccountKey;

fn usd(nanos: u64) -> NanoUsd {
    NanoUsd::from_nanos(nanos)
}

fn open() -> (TempDir, MarketStore) {
    let folder = TempDir::new().unwrap();
    let store = MarketStore::open(&folder.path().join("sluice.db")).unwrap();
    (folder, store)
}

fn job(id: &str, strategy: &str) -> Job {
    Job {
        id: id.into(),
        strategy: strategy.into(),
        decided_by: "margin@0.1.0".into(),
        model: "m".into(),
        state: State::Sending,
        credit: usd(100),
        bid: usd(20),
        expected: usd(10),
        worst: usd(40),
        cost: NanoUsd::ZERO,
        earned: NanoUsd::ZERO,
        bid_ms: 1,
        closes_ms: 2,
        due_ms: 3,
        ended_ms: None,
    }
}

fn ending(id: &str, outcome: Outcome, cost: u64, earned: u64, ended_ms: u64) -> Job {
    let state = State::Ended(outcome);
    Job { state, cost: usd(cost), earned: usd(earned), ended_ms: Some(ended_ms), ..job(id, "s") }
}

#[test]
fn nobody_bids_twice_on_a_job_whoever_starts_again() {
    let (folder, mut store) = open();
    assert_eq!(store.begin(vec![job("a", "s"), job("b", "s")]).unwrap().len(), 2);
    let again = store.begin(vec![job("a", "other"), job("c", "s")]).unwrap();
    assert_eq!(again, [job("c", "s")]);
    drop(store);
    let store = MarketStore::open(&folder.path().join("sluice.db")).unwrap();
    let under_way = store.under_way().unwrap();
    assert_eq!(under_way, [job("a", "s"), job("b", "s"), job("c", "s")]);
    assert_eq!(store.job("a").unwrap(), Some(job("a", "s")));
    assert_eq!(store.job("x").unwrap(), None);
}

#[test]
fn a_refused_job_may_be_bid_on_again() {
    let (_folder, mut store) = open();
    let _ = store.begin(vec![job("a", "s")]).unwrap();
    store.end(&[ending("a", Outcome::Refused, 0, 0, 50)]).unwrap();
    let again = Job { bid: usd(30), ..job("a", "t") };
    assert_eq!(store.begin(vec![again.clone()]).unwrap().len(), 1);
    assert_eq!(store.under_way().unwrap(), [again]);
}

#[test]
fn a_job_ends_once_and_stays_ended() {
    let (_folder, mut store) = open();
    let _ = store.begin(vec![job("a", "s")]).unwrap();
    store.set_states([("a", State::Won)].into_iter()).unwrap();
    assert_eq!(store.job("a").unwrap().unwrap().state, State::Won);
    store.end(&[ending("a", Outcome::Paid, 7, 20, 50)]).unwrap();
    store.end(&[ending("a", Outcome::Unpaid, 9, 0, 60)]).unwrap();
    store.set_states([("a", State::Open)].into_iter()).unwrap();
    let ended = store.job("a").unwrap().unwrap();
    assert_eq!((ended.state, ended.cost, ended.earned), (State::Ended(Outcome::Paid), usd(7), usd(20)));
    assert_eq!(ended.ended_ms, Some(50));
    assert!(store.under_way().unwrap().is_empty());
}

#[test]
fn a_strategy_learns_from_its_own_last_jobs() {
    let (_folder, mut store) = open();
    for (number, outcome) in
        [Outcome::Paid, Outcome::Refused, Outcome::Lost, Outcome::Unpaid].into_iter().enumerate()
    {
        let id = format!("j{number}");
        let _ = store.begin(vec![job(&id, "s"), job(&format!("other{number}"), "t")]).unwrap();
        store.end(&[ending(&id, outcome, 1, 2, 10 + number as u64)]).unwrap();
    }
    let ids = |jobs: Vec<Job>| jobs.into_iter().map(|job| job.id).collect::<Vec<_>>();
    assert_eq!(ids(store.recent("s", 9).unwrap()), ["j0", "j2", "j3"]);
    assert_eq!(ids(store.recent("s", 2).unwrap()), ["j2", "j3"]);
    assert!(store.recent("t", 9).unwrap().is_empty());
}

#[test]
fn what_a_key_has_spent_is_its_jobs_cost() {
    let (_folder, mut store) = open();
    let key = |scope: &str| AccountKey { budget: IN_TOTAL.into(), scope: scope.into(), start_s: 0 };
    let batch = store.store().batch().unwrap();
    for (account, charge) in [("job-a", 5), ("job-ab", 7), ("k", 11)] {
        let id = batch.account(&key(account)).unwrap().id;
        batch.settle("0", id, usd(charge)).unwrap();
    }
    batch.commit().unwrap();
    assert_eq!((store.spent("a").unwrap(), store.spent("ab").unwrap()), (usd(5), usd(7)));
    assert_eq!(store.spent("x").unwrap(), NanoUsd::ZERO);
}

#[test]
fn the_report_adds_up_by_strategy_day_and_job() {
    const DAY_MS: u64 = 86_400_000;
    let (_folder, mut store) = open();
    let jobs = ["a", "b", "c", "d"].map(|id| job(id, "s"));
    let _ = store.begin(jobs.into_iter().chain([job("e", "t"), job("f", "t")]).collect()).unwrap();
    store.end(&[ending("a", Outcome::Paid, 7, 20, DAY_MS)]).unwrap();
    store.end(&[ending("b", Outcome::Unpaid, 30, 0, DAY_MS + 1)]).unwrap();
    store.end(&[ending("c", Outcome::Lost, 0, 0, 2 * DAY_MS)]).unwrap();
    store.end(&[ending("e", Outcome::Refused, 0, 0, 2 * DAY_MS)]).unwrap();
    store.set_states([("f", State::Won)].into_iter()).unwrap();
    let report = |by, which| store.0.market_report(by, which).unwrap();
    let all = report(By::Strategy, Which::default());
    let wanted = Line {
        strategy: "s".into(),
        bids: 4,
        under_way: 1,
        lost: 1,
        paid: 1,
        unpaid: 1,
        bid: usd(40),
        cost: usd(37),
        earned: usd(20),
        ..Line::default()
    };
    assert_eq!(all[0], wanted);
    assert_eq!(all[0].profit(), "-0.000000017");
    assert_eq!((all[1].refused, all[1].under_way, all[1].bid), (1, 1, usd(20)));
    let days = report(By::Day, Which::default());
    let seen: Vec<_> = days.iter().map(|line| (line.day.as_str(), line.bids, line.cost.nanos())).collect();
    assert_eq!(seen, [("1970-01-03", 2, 0), ("1970-01-02", 2, 37), ("", 2, 0)]);
    assert_eq!(store.day(1).unwrap(), [("s".into(), usd(37), usd(20))]);
    assert_eq!(store.day(0).unwrap(), []);
    let second = Which { from: Some("1970-01-03".parse().unwrap()), to: None };
    assert_eq!(report(By::StrategyDay, second).len(), 2);
    let jobs = report(By::Job, Which::default());
    let states: Vec<_> = jobs.iter().map(|line| (line.job.as_str(), line.state.as_str())).collect();
    let wanted =
        [("c", "lost"), ("e", "refused"), ("b", "unpaid"), ("a", "paid"), ("d", "sending"), ("f", "won")];
    assert_eq!(states, wanted);
    assert_eq!(jobs[3].profit(), "0.000000013");
}

#[test]
fn what_brought_nothing_goes_first_with_its_account_and_nothing_of_the_last_days() {
    const DAY_MS: u64 = 86_400_000;
    let (_folder, mut store) = open();
    let add = "WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < ?1) \
         INSERT INTO market_jobs SELECT 'j' || i, 's', 'p', 'm', 'lost', 1, 1, 1, 1, i % 2, 0, 1, 1, 1, \
         iif(i <= 20, i, ?2) FROM n";
    let values = rusqlite::params![ENDED_KEPT + 5, (3 * DAY_MS).cast_signed()];
    store.0.connection().execute(add, values).unwrap();
    let batch = store.store().batch().unwrap();
    for (scope, charge) in [("job-j2", 5), ("job-j30", 7)] {
        let key = AccountKey { budget: IN_TOTAL.into(), scope: scope.into(), start_s: 0 };
        let id = batch.account(&key).unwrap().id;
        batch.settle("0", id, usd(charge)).unwrap();
    }
    batch.commit().unwrap();
    let gone = |store: &MarketStore, ids: [&str; 4]| ids.map(|id| store.job(id).unwrap().is_none());
    store.end(&[]).unwrap();
    // All that is older is less than a step's worth.
    assert_eq!(gone(&store, ["j1", "j2", "j20", "j21"]), [true, true, true, false]);
    let ends = "SELECT scope FROM accounts WHERE ends_s = 0";
    let ended: String = store.0.connection().query_row(ends, [], |found| found.get(0)).unwrap();
    assert_eq!(ended, "job-j2");
    store.end(&[]).unwrap();
    assert!(store.job("j21").unwrap().is_some(), "there is room");
}
