//! A vendor is asked again only where that is safe, wanted, paid for, and in time.

#![allow(clippy::unwrap_used, reason = "a test fails by it")]

use std::time::{Duration, Instant};

use serde_json::{Value, json};
use sluice_tests::Stage;
use sluice_tests::stage::{Vendor, model};

/// So wide that it never opens.
const WIDE: &str = "breaker = { failures = 1000 }";

/// What a budget has saved up, and what it gets for each call; as documented.
const SAVED: usize = 10;
const CALLS_PER_RETRY: usize = 5;

async fn one(more: &str) -> Stage {
    Stage::start("", &[Vendor::openai("a", WIDE)], &model("m", &["a"], more)).await
}

fn status(status: u16, retry_after: Option<&str>, times: usize) -> Value {
    let headers: Vec<[&str; 2]> = retry_after.map(|after| ["retry-after", after]).into_iter().collect();
    json!({"faults": [{"kind": "status", "status": status, "headers": headers, "times": times}]})
}

#[tokio::test]
async fn a_passing_failure_is_not_seen_by_the_client() {
    let stage = one("").await; // one retry, if nothing is said
    for stream in [true, false] {
        for fault in [
            json!({"kind": "status", "status": 503}),
            json!({"kind": "status", "status": 429}),
            json!({"kind": "reset", "at": "headers"}),
            json!({"kind": "empty"}),
            json!({"kind": "error_in_200"}),
        ] {
            let before = stage.seen("a");
            stage.direct("a", json!({"faults": [fault]}));
            let answer = stage.ask("m", stream).await;
            assert_eq!(answer.status, 200, "{fault}: {answer:?}");
            assert_eq!(stage.seen("a") - before, 2, "{fault}");
        }
    }
}

/// What was said once would be said again, or may have been done already.
#[tokio::test]
async fn what_another_try_would_not_mend_is_tried_once() {
    let more = format!("timeouts = {{ headers = \"200ms\" }}\n{WIDE}");
    let vendor = Vendor::openai("a", &more);
    let stage = Stage::start("", &[vendor], &model("m", &["a"], "retries = 5")).await;
    for fault in [
        json!({"kind": "status", "status": 400}),
        json!({"kind": "status", "status": 401}),
        json!({"kind": "status", "status": 413}),
        json!({"kind": "hang", "at": "headers"}),
        json!({"kind": "malformed_json"}),
        json!({"kind": "cut", "events": 3}),
    ] {
        let before = stage.seen("a");
        stage.direct("a", json!({"faults": [fault]}));
        stage.ask("m", fault["kind"] == "cut").await;
        assert_eq!(stage.seen("a") - before, 1, "{fault}");
    }
}

#[tokio::test]
async fn a_vendors_pause_is_kept_and_a_long_one_is_passed_on() {
    let stage = one("").await;
    for after in ["1", "1.0"] {
        stage.direct("a", status(503, Some(after), 1));
        let asked = Instant::now();
        assert_eq!(stage.ask("m", false).await.status, 200, "{after}");
        assert!(after == "1.0" || asked.elapsed() >= Duration::from_secs(1), "{after}");
    }
    assert_eq!(stage.seen("a"), 4);
    for (after, statuses) in [("3", [503, 429]), ("3000000", [503, 429])] {
        for refused in statuses {
            let before = stage.seen("a");
            stage.reset("a", "m").await;
            stage.direct("a", status(refused, Some(after), 1));
            let answer = stage.ask("m", false).await;
            assert_eq!((answer.status.as_u16(), answer.header("retry-after")), (refused, after));
            assert_eq!(stage.seen("a") - before, 1, "{after}");
        }
    }
}

/// Of several failures the client is told the one after which it may be served.
#[tokio::test]
async fn the_last_word_is_the_most_useful_one() {
    let vendors = [Vendor::openai("a", WIDE), Vendor::openai("b", WIDE)];
    let stage = Stage::start("", &vendors, &model("m", &["a", "b"], "retries = 0")).await;
    let table = [
        ((503, None), (404, None), 503),
        ((404, None), (503, None), 503),
        ((401, None), (500, None), 500),
        ((429, Some("30")), (500, None), 429),
        ((500, None), (429, Some("30")), 429),
        ((404, None), (404, None), 404),
    ];
    for ((a, a_after), (b, b_after), told) in table {
        for vendor in ["a", "b"] {
            stage.reset(vendor, "m").await;
        }
        stage.direct("a", status(a, a_after, 1));
        stage.direct("b", status(b, b_after, 1));
        let answer = stage.ask("m", false).await;
        assert_eq!(answer.status, told, "{a} and {b}");
    }
}

/// Whoever is asked when the deadline is nearly over is not to blame for missing it.
#[tokio::test]
async fn a_deadline_that_others_used_up_opens_no_breaker() {
    let a = "timeouts = { headers = \"1500ms\" }\nbreaker = { failures = 1000 }";
    let b = "breaker = { failures = 1, open_for = \"1h\" }";
    let vendors = [Vendor::openai("a", a), Vendor::openai("b", b)];
    let models = model("m", &["a", "b"], "retries = 0\ndeadline = \"2500ms\"");
    let stage =
        Stage::start("", &vendors, &(models + &model("alone", &["b"], "retries = 0\ndeadline = \"1s\"")))
            .await;
    stage.direct("a", json!({"faults": [{"kind": "hang", "at": "headers", "times": 0}]}));
    stage.direct("b", json!({"faults": [{"kind": "hang", "at": "headers", "times": 0}]}));
    for _ in 0..3 {
        stage.ask("m", true).await.refused(504, "timeout_deadline");
        assert_eq!(stage.breaker_state_of("b", "m").await, "closed");
    }
    assert_eq!((stage.seen("a"), stage.seen("b")), (3, 3));
    // The control: with all the time to itself it is.
    stage.ask("alone", true).await.refused(504, "timeout_deadline");
    assert_eq!(stage.breaker_state_of("b", "alone").await, "open");
}

/// Every target is asked before any is asked again.
#[tokio::test]
async fn others_come_before_the_same_again() {
    let vendors = [Vendor::openai("a", WIDE), Vendor::openai("b", WIDE)];
    let stage = Stage::start("", &vendors, &model("m", &["a", "b"], "retries = 1")).await;
    for vendor in ["a", "b"] {
        stage.direct(vendor, status(503, None, 1));
    }
    assert_eq!(stage.ask("m", false).await.status, 200);
    let order: Vec<String> = stage.simulator.books().rows.into_iter().map(|row| row.vendor).collect();
    assert_eq!(order, ["a", "b", "a"]);
}

/// A vendor that fails everybody gets a fifth more calls than there are requests, not twice as many.
#[tokio::test]
async fn retries_are_a_share_of_the_calls() {
    let stage = one("retries = 1").await;
    // A breaker does not mind being throttled.
    stage.direct("a", status(429, None, 0));
    let requests = 100;
    for _ in 0..requests {
        assert_eq!(stage.ask("m", false).await.status, 429);
    }
    let retries = stage.seen("a") - requests;
    let most = SAVED + requests / CALLS_PER_RETRY;
    assert!((SAVED..=most).contains(&retries), "{retries} retries, at most {most}");
}

/// No attempt begins that the deadline would end, and none outlives it.
#[tokio::test]
async fn all_attempts_share_one_deadline() {
    let more = format!("timeouts = {{ headers = \"10s\" }}\n{WIDE}");
    let vendors = [Vendor::openai("a", &more), Vendor::openai("b", &more)];
    let models = model("m", &["a", "b"], "retries = 5\ndeadline = \"1s\"");
    let stage = Stage::start("", &vendors, &models).await;
    stage.direct("a", status(503, Some("1"), 0));
    stage.direct("b", status(503, Some("2"), 0));
    let answer = stage.ask("m", false).await;
    assert_eq!((answer.status.as_u16(), answer.header("retry-after")), (503, "2"));
    assert_eq!((stage.seen("a"), stage.seen("b")), (1, 1), "a pause of a second is too long");
    // The first one's silence takes the time of all.
    stage.direct("a", json!({"faults": [{"kind": "hang", "at": "headers"}]}));
    stage.direct("b", json!({}));
    stage.ask("m", true).await.refused(504, "timeout_deadline");
    assert_eq!((stage.seen("a"), stage.seen("b")), (2, 1));
    // After content has gone too.
    stage.direct("a", json!({"faults": [{"kind": "drip", "ms": 250}]}));
    let answer = stage.ask("m", true).await;
    let last: Value = serde_json::from_str(answer.events().last().unwrap()).unwrap();
    assert_eq!(last["error"]["code"], "timeout_deadline", "{answer:?}");
}
