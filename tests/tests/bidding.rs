//! Bid strategies as the market's loop asks them: the four that are built in, one that misbehaves,
//! and a new version that is worse than the one it replaces.

#![allow(clippy::unwrap_used, reason = "a test fails by it")]

use std::fs;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use sluice_core::bidding::{
    AMOUNT_MAX, Book, ClosedBid, Decision, Decisions, HostReason, JOBS_MAX, Job, JobKind, OptionCost,
    Outcome, Reason,
};
use sluice_core::money::NanoUsd;
use sluice_core::probation::{Failure, Verdict};
use sluice_runtime::{
    CallError, Fault, FileState, Grant, Kept, Kind, Pace, Plugin, Refused, Registry, Runtime, Setup,
    Strategy, Versioned, Watched,
};
use sluice_tests::versions::{relabelled, strategy};
use sluice_tests::{Gateway, Options, workspace};

/// A job pays a dollar, and costs ten cents, twenty at worst.
const CENT: u64 = 10_000_000;

/// The policy's world is another one, so it is no strategy.
const BUILT_IN: [&str; 4] = ["adaptive", "capability", "margin", "minimum"];

fn nanos(amount: u64) -> NanoUsd {
    NanoUsd::from_nanos(amount)
}

fn job(text: &str) -> Job {
    Job {
        kind: JobKind::Completion,
        credit: nanos(100 * CENT),
        floor: nanos(CENT),
        ceiling: nanos(90 * CENT),
        closes_in: Duration::from_secs(5),
        reward_due_in: Duration::from_secs(60),
        needs: 0,
        prompt_tokens: 100,
        output_tokens_expected: 500,
        output_tokens_worst: 1_000,
        targets: vec![OptionCost {
            target: 0,
            expected: nanos(10 * CENT),
            worst: nanos(20 * CENT),
            offers: 0,
        }],
        text: text.into(),
    }
}

fn bid(amount: u64) -> Decision {
    Decision::Bid(nanos(amount))
}

fn skip(code: u16) -> Decision {
    Decision::Skip(Reason::Strategy(code))
}

fn host(reason: HostReason) -> Decision {
    Decision::Skip(Reason::Host(reason))
}

fn runtime() -> Runtime {
    Runtime::new(None).unwrap()
}

fn dist(id: &str) -> Vec<u8> {
    fs::read(workspace::root().join("plugins/dist").join(id).with_extension("wasm")).unwrap()
}

fn admitted(runtime: &Runtime, bytes: &[u8]) -> Arc<Plugin> {
    Arc::new(runtime.admit(bytes, Pace::Start).unwrap())
}

fn set_up(runtime: &Runtime, plugin: &Arc<Plugin>, config: &str) -> Result<Strategy, CallError> {
    let setup = Setup { config_json: config.into(), ..Setup::default() };
    Strategy::set_up(runtime, plugin, setup).expect("it is a strategy")
}

fn hostile(runtime: &Runtime) -> Strategy {
    let folder = workspace::guests(&["hostile-bid"]);
    let plugin = admitted(runtime, &fs::read(folder.join("hostile-bid.wasm")).unwrap());
    set_up(runtime, &plugin, "{}").unwrap()
}

#[test]
fn those_that_are_built_in_decide() {
    let runtime = runtime();
    for id in BUILT_IN {
        let plugin = admitted(&runtime, &dist(id));
        assert_eq!((plugin.manifest().id.as_str(), plugin.kind()), (id, Kind::Strategy));
        assert_eq!(plugin.grants(), [Grant::Log, Grant::JobText]);
        let strategy = set_up(&runtime, &plugin, "{}").unwrap();
        strategy.rehearse().unwrap();
        let (mut poor, mut hopeless) = (job("poor"), job("hopeless"));
        poor.credit = nanos(CENT / 2);
        hopeless.targets.clear();
        let jobs = [job("good"), poor, hopeless];
        let decided = strategy.decide(&Book::default(), &jobs).unwrap();
        let wanted = if id == "minimum" { CENT } else { 13 * CENT };
        let first = match decided.by_job[0] {
            Decision::Bid(amount) if id == "adaptive" => bid(amount.nanos().clamp(11 * CENT, 90 * CENT)),
            Decision::Bid(_) | Decision::Skip(_) => bid(wanted),
        };
        assert_eq!(decided.by_job, [first, skip(2), skip(1)], "{id}");
        assert_eq!(decided.out_of_bounds, 0);
        let counters = plugin.counters();
        assert_eq!(counters.faults(), []);
        let calls: Vec<_> = counters.calls().iter().map(|stats| (stats.function, stats.calls)).collect();
        assert_eq!(calls, [("decide", 1)], "{id}: a rehearsal is not counted");
        assert_eq!(strategy.decide(&Book::default(), &[]).unwrap(), Decisions::default());
    }
}

#[test]
fn texts_and_the_past_reach_a_strategy() {
    let runtime = runtime();
    let capability = admitted(&runtime, &dist("capability"));
    let wanted = set_up(&runtime, &capability, r#"{"wanted": ["github.com"]}"#).unwrap();
    let jobs = [job("a poem"), job("see https://github.com/a/b"), job("")];
    let decided = wanted.decide(&Book::default(), &jobs).unwrap();
    assert_eq!(decided.by_job, [skip(11), bid(13 * CENT), skip(11)]);

    let adaptive = admitted(&runtime, &dist("adaptive"));
    let adaptive = set_up(&runtime, &adaptive, r#"{"explore_every": 0, "worst_share_percent": 0}"#).unwrap();
    let of = |permille: u64, outcome: Outcome| {
        let (expected, won) = (10 * CENT, outcome == Outcome::Paid);
        let bid = nanos(expected * permille / 1_000);
        let of_won = |amount| if won { amount } else { NanoUsd::ZERO };
        let expected = nanos(expected);
        let (actual, earned) = (of_won(expected), of_won(bid));
        ClosedBid { credit: nanos(100 * CENT), bid, expected, actual, earned, outcome }
    };
    let asked = |closed: ClosedBid| {
        let book = Book { recent: vec![closed; 100], ..Book::default() };
        match adaptive.decide(&book, &[job("")]).unwrap().by_job[0] {
            Decision::Bid(amount) => amount.nanos(),
            other @ Decision::Skip(_) => panic!("{other:?}"),
        }
    };
    assert!(asked(of(3_000, Outcome::Paid)) >= 25 * CENT, "who wins at three times the cost asks for it");
    assert!(asked(of(1_300, Outcome::Lost)) < 13 * CENT, "who loses at a margin of thirty asks for less");
}

#[test]
fn a_configuration_is_taken_or_refused_with_the_reason() {
    let runtime = runtime();
    for (id, config, named) in [
        ("minimum", r#"{"bid_usd": "1e3"}"#, "such as"),
        ("margin", r#"{"floor_usd": "2", "ceiling_usd": "1"}"#, "ceiling_usd"),
        ("adaptive", r#"{"explore_every": -1}"#, "-1"),
        ("capability", r#"{"kinds": ["cake"]}"#, "cake"),
    ] {
        match set_up(&runtime, &admitted(&runtime, &dist(id)), config).err() {
            Some(CallError::Refused(Refused::InvalidConfig(text))) => {
                assert!(text.contains(named), "{id}: {text}");
            }
            other => panic!("{id}: {other:?}"),
        }
    }
    let policy = admitted(&runtime, &dist("priority"));
    assert!(Strategy::set_up(&runtime, &policy, Setup::default()).is_none(), "it is no strategy");
}

/// Each misdeed costs one call and raises its own counter; the call after it is answered.
#[test]
fn a_misdeed_costs_one_call() {
    let runtime = runtime();
    let strategy = hostile(&runtime);
    let misdeeds = [
        ("spin", Fault::Cpu),
        ("recurse", Fault::Stack),
        ("overflow", Fault::Trap),
        ("hoard", Fault::Memory),
        ("panic", Fault::Panic),
        ("error", Fault::Error),
        ("stranger", Fault::BidStranger),
        ("twice", Fault::BidTwice),
        ("flood", Fault::BidTwice),
    ];
    let mut counted = Vec::new();
    for (misdeed, fault) in misdeeds {
        let error = strategy.decide(&Book::default(), &[job(misdeed), job("")]).unwrap_err();
        match error {
            CallError::Fault(found, text) => assert_eq!(found, fault, "{misdeed}: {text}"),
            CallError::Refused(refused) => assert_eq!(fault, Fault::Error, "{misdeed}: {refused}"),
        }
        counted.push(fault);
        let honest = strategy.decide(&Book::default(), &[job(""), job("")]).unwrap();
        assert_eq!(honest.by_job, [bid(CENT); 2], "after {misdeed}");
        let counters = strategy.plugin().counters();
        for fault in Fault::ALL {
            let times = counted.iter().filter(|known| *known == fault).count() as u64;
            assert_eq!(counters.fault(*fault), times, "{} after {misdeed}", fault.name());
        }
    }
}

#[test]
fn what_a_strategy_says_of_itself_is_no_fault() {
    let runtime = runtime();
    let strategy = hostile(&runtime);
    let refused = strategy.decide(&Book::default(), &[job("unsupported")]);
    assert_eq!(refused, Err(CallError::Refused(Refused::Unsupported("not today".into()))));
    let silent = strategy.decide(&Book::default(), &[job("silent"), job("")]).unwrap();
    assert_eq!(silent.by_job, [host(HostReason::Undecided); 2]);
    assert_eq!(strategy.plugin().counters().faults(), []);
}

#[test]
fn a_bid_out_of_bounds_is_not_made_and_the_others_are() {
    let runtime = runtime();
    let strategy = hostile(&runtime);
    let mut capped = job("above");
    capped.credit = nanos(50 * CENT);
    for (number, (first, reason)) in (1..).zip([
        (job("below"), HostReason::BelowFloor),
        (job("above"), HostReason::AboveCeiling),
        (capped, HostReason::AboveCredit),
        (job("largest"), HostReason::AboveCredit),
    ]) {
        let decided = strategy.decide(&Book::default(), &[first, job("")]).unwrap();
        assert_eq!(decided.by_job, [host(reason), bid(CENT)]);
        assert_eq!(decided.out_of_bounds, 1);
        assert_eq!(strategy.plugin().counters().faults(), [("bid_bounds", number)]);
    }
}

/// As many jobs, ended bids and texts as one call shows, and no more; amounts that no guest can see.
#[test]
fn what_is_shown_has_bounds() {
    let runtime = runtime();
    let strategy = hostile(&runtime);
    let many = vec![job(""); JOBS_MAX + 3];
    let decided = strategy.decide(&Book::default(), &many).unwrap();
    assert_eq!(decided.by_job[..JOBS_MAX], [bid(CENT); JOBS_MAX]);
    assert_eq!(decided.by_job[JOBS_MAX..], [host(HostReason::NotShown); 3]);

    let closed = |number: u64| ClosedBid {
        credit: nanos(u64::MAX),
        bid: nanos(CENT + number),
        expected: NanoUsd::ZERO,
        actual: NanoUsd::ZERO,
        earned: NanoUsd::ZERO,
        outcome: Outcome::Lost,
    };
    let book = Book { recent: (0..300).map(closed).collect(), ..Book::default() };
    assert_eq!(strategy.decide(&book, &[job("recent")]).unwrap().by_job, [skip(256)]);
    assert_eq!(strategy.decide(&book, &[job("newest")]).unwrap().by_job, [bid(CENT + 299)]);

    let long: Arc<str> = format!("read{}", "x".repeat(3 * 1024 * 1024)).into();
    let mut read = job("read");
    read.floor = NanoUsd::ZERO;
    let jobs = [read, Job { text: long, ..job("") }];
    // Four bytes had been read before it began to count.
    assert_eq!(strategy.decide(&Book::default(), &jobs).unwrap().by_job[0], skip(8 * 1024 - 1));

    let mut rich = job("above");
    (rich.credit, rich.ceiling) = (nanos(u64::MAX), nanos(u64::MAX));
    let decided = strategy.decide(&Book::default(), &[rich]).unwrap();
    assert_eq!(decided.by_job, [bid(AMOUNT_MAX.nanos() + 1)], "it saw no more than a guest can");
}

/// A registry whose built-in strategy is the honest one, and a file of another version of it.
fn replaced(folder: &Path, manner: &str) -> (Registry, Watched<Strategy>) {
    let runtime = runtime();
    let honest = relabelled(&strategy("ok"), 1);
    let mut registry = Registry::new(&runtime, &[&honest], folder.into(), Kept::Nothing, Arc::new(|| {}));
    let file = folder.join("new.wasm");
    fs::write(&file, strategy(manner)).unwrap();
    let change = registry.arrived(&file, &[], Instant::now(), Pace::Start).expect("it is another version");
    registry.commit(change, 2);
    let serving = registry.plugins()["hostile-bid"].clone();
    let trial = serving.trial.expect("it is on probation");
    let [current, before] = [&serving.plugin, &trial.before].map(|plugin| {
        let strategy = set_up(&runtime, plugin, "{}").unwrap();
        strategy.rehearse().unwrap();
        Arc::new(strategy)
    });
    (registry, Watched::on_probation(current, trial.books, before))
}

/// Takes the version back that is on probation, and says why.
fn taken_back(registry: &mut Registry) -> Failure {
    let verdicts = registry.verdicts(Instant::now());
    let [(id, Verdict::Failed(failure))] = &verdicts[..] else { panic!("{verdicts:?}") };
    let change = registry.failed(id, *failure).unwrap();
    registry.commit(change, 3);
    let serving = &registry.plugins()["hostile-bid"];
    assert!(serving.file.is_none() && serving.trial.is_none(), "what was built in serves again");
    let files = registry.news().listing();
    let states: Vec<FileState> = files.iter().map(|(_, row)| row.state).collect();
    assert_eq!(states, [FileState::Quarantined]);
    *failure
}

#[test]
fn a_version_that_traps_is_replaced_in_the_same_call_and_taken_back() {
    let folder = tempfile::tempdir().unwrap();
    let (mut registry, watched) = replaced(folder.path(), "panic");
    for number in 1..=5 {
        let decided = watched.bids(&Book::default(), &[job("marked")]).unwrap();
        assert_eq!(decided.decision.by_job, [bid(CENT)], "call {number}");
        assert!(Arc::ptr_eq(&decided.by, watched.before().unwrap()));
    }
    assert_eq!(watched.current().plugin().counters().fault(Fault::Panic), 3, "it was not asked again");
    assert_eq!(taken_back(&mut registry), Failure::Traps { calls: 3 });
}

/// Nothing traps, but its bids are ones that the host does not make.
#[test]
fn a_version_that_bids_out_of_bounds_is_taken_back() {
    let folder = tempfile::tempdir().unwrap();
    let (mut registry, watched) = replaced(folder.path(), "above");
    for _ in 0..6 {
        let decided = watched.bids(&Book::default(), &[job("marked")]).unwrap();
        assert_eq!(decided.decision.by_job, [host(HostReason::AboveCeiling)]);
    }
    assert!(matches!(taken_back(&mut registry), Failure::Errors { .. }));
    let decided = watched.bids(&Book::default(), &[job("marked")]).unwrap();
    assert_eq!(decided.decision.by_job, [bid(CENT)], "the one before decides at once");
}

#[test]
fn an_honest_version_stays() {
    let folder = tempfile::tempdir().unwrap();
    let (registry, watched) = replaced(folder.path(), "ok");
    for _ in 0..200 {
        assert_eq!(watched.bids(&Book::default(), &[job("marked")]).unwrap().decision.by_job, [bid(CENT)]);
    }
    assert_eq!(registry.verdicts(Instant::now()), [("hostile-bid".to_owned(), Verdict::Passed)]);
}

#[tokio::test]
async fn the_gateway_lists_them() {
    let gateway = Gateway::start("[server]\nlisten = \"127.0.0.1:0\"\n", &Options::default());
    for id in BUILT_IN {
        let row = gateway.counters(id).await.row().clone();
        assert_eq!(row["kind"], "bid-strategy", "{row:#}");
        assert_eq!(row["state"], "active", "{row:#}");
    }
}
