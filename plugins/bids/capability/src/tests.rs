use sluice_plugin::bid::{empty_book, most};
use sluice_plugin::codes::feature::{STRUCTURED, TOOLS};

use super::*;

const CREDIT: u64 = 1_000_000_000;
const COST: u64 = 100_000_000;
const BID: Decision = Decision::Bid(130_000_000);

fn capability(config: &str) -> Capability {
    let setup = Setup { config_json: config.into(), names: Vec::new(), targets: Vec::new() };
    Capability::configure(setup).unwrap()
}

fn job(text: &str) -> Job {
    Job { text_len: u32::try_from(text.len()).unwrap(), ..sample_job(0, CREDIT, COST) }
}

fn decide(config: &str, job: &Job, text: &str) -> Decision {
    let decided = capability(config).decide(&empty_book(), &[job.clone()], &[text]).unwrap();
    assert_eq!(decided.len(), 1);
    assert_eq!(decided[0].0, job.id);
    decided[0].1.clone()
}

#[test]
fn needs_are_held_against_what_targets_offer() {
    let mut job = job("");
    job.needs = TOOLS;
    let leave = r#"{"unknown_offers": "leave"}"#;
    assert_eq!(decide("{}", &job, ""), BID, "nothing is known of the target");
    assert_eq!(decide(leave, &job, ""), Decision::Skip(code::NEEDS));
    job.targets[0].offers = STRUCTURED;
    assert_eq!(decide("{}", &job, ""), Decision::Skip(code::NEEDS));
    // A dearer one that can is the one whose cost counts.
    job.targets.push(OptionCost {
        target: 1,
        expected: 2 * COST,
        worst: 2 * COST,
        offers: TOOLS | STRUCTURED,
    });
    assert_eq!(decide(leave, &job, ""), Decision::Bid(260_000_000));
    job.needs = 0;
    assert_eq!(decide(leave, &job, ""), BID);
    job.targets.clear();
    assert_eq!(decide("{}", &job, ""), Decision::Skip(code::NO_TARGET));
}

#[test]
fn kinds_are_the_operators() {
    let mut job = job("");
    job.kind = 2;
    assert_eq!(decide("{}", &job, ""), Decision::Skip(code::KIND));
    assert_eq!(decide(r#"{"kinds": ["completion", "agent"]}"#, &job, ""), BID);
    job.kind = 3;
    assert_eq!(decide(r#"{"kinds": ["completion", "agent"]}"#, &job, ""), Decision::Skip(code::KIND));
}

#[test]
fn words_of_the_text_decide() {
    let config = r#"{"wanted": ["github.com", "poem"], "unwanted": ["homework"]}"#;
    let of = |text: &str| decide(config, &job(text), text);
    assert_eq!(of("Fix https://github.com/a/b/issues/1"), BID);
    assert_eq!(of("A POEM, please"), BID);
    assert_eq!(of("A story, please"), Decision::Skip(code::NOT_WANTED));
    assert_eq!(of("A poem about my Homework."), Decision::Skip(code::UNWANTED));
    assert_eq!(decide(r#"{"unwanted": ["homework"]}"#, &job("x"), "x"), BID);
}

#[test]
fn lengths_bound_what_is_looked_at() {
    let config = r#"{"text_bytes_min": 3, "text_bytes_max": 5, "unwanted": ["zz"]}"#;
    let of = |text: &str| decide(config, &job(text), text);
    assert_eq!(of("ab"), Decision::Skip(code::SHORT));
    assert_eq!(of("abc"), BID);
    assert_eq!(of("abcde"), BID);
    assert_eq!(of("abcdef"), Decision::Skip(code::LONG));
    // The host gave less than there is.
    assert_eq!(decide(config, &job("abcde"), "abcd"), Decision::Skip(code::UNREAD));
}

/// Whatever else it decides: a bid is within the job's bounds and covers the cost.
#[test]
fn no_bid_breaks_a_bound() {
    let strategy = capability(r#"{"floor_usd": "0"}"#);
    for credit in [0, 1, 99, 130, 131, 5_000] {
        for floor in [0, 1, 129, 131, 6_000] {
            for ceiling in [0, 130, 200, 6_000] {
                for expected in [0, 1, 99, 100, 3_000] {
                    let mut job = sample_job(0, credit, expected);
                    (job.floor, job.ceiling) = (floor, ceiling);
                    let decision = strategy.decision(&job, &[""]);
                    assert_eq!(decision, strategy.terms.decide(&job), "as margin would: {job:?}");
                    let Decision::Bid(bid) = decision else { continue };
                    assert!(bid >= floor && bid <= most(&job), "{job:?}: {bid}");
                    assert!(bid * 100 >= expected * 130, "{job:?}: {bid}");
                }
            }
        }
    }
}

#[test]
fn a_config_that_makes_no_sense_is_refused() {
    for config in [r#"{"text_bytes_min": 9, "text_bytes_max": 8}"#, r#"{"kinds": ["cake"]}"#] {
        let setup = Setup { config_json: config.into(), names: Vec::new(), targets: Vec::new() };
        assert!(matches!(Capability::configure(setup), Err(PluginError::InvalidConfig(_))), "{config}");
    }
}

#[test]
fn it_tests_itself() {
    assert_eq!(Capability::self_test(), Ok(()));
}
