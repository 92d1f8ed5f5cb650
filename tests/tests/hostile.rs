//! Guests that pass admission and misbehave afterwards, on a gateway with one worker.
//!
//! Each misdeed raises its own counter by one and no other. A policy's costs nothing: the
//! host's own order serves. An adapter's costs its one attempt. The worker is free after it.

#![allow(clippy::unwrap_used, reason = "a test fails by it")]

use std::time::Duration;

use sluice_simulate::Simulator;
use sluice_tests::{Answer, Gateway, Options, workspace};

/// Far above what all misdeeds together may take; a gateway that hangs fails here.
const ALL_MAX: Duration = Duration::from_secs(300);

/// What an adapter does wrong, by the target's name, and the class it counts as.
const ADAPTER: [(&str, &str); 21] = [
    ("spin", "cpu"),
    ("recurse", "stack"),
    // The guest's own stack lies at the bottom of its memory: going below it is out of bounds.
    ("overflow", "trap"),
    ("hoard", "memory"),
    ("huge", "too_large"),
    ("silent", "too_large"),
    ("panic", "panic"),
    ("error", "error"),
    ("header-cr", "header"),
    ("header-undeclared", "header"),
    ("header-host", "header"),
    ("header-authorization", "header"),
    ("slot-in-host", "header"),
    ("path-dots", "path"),
    ("path-encoded", "path"),
    ("path-url", "path"),
    ("route", "route"),
    ("slot", "slot"),
    ("edit-bad", "edit"),
    ("edit-misfit", "edit"),
    ("scheme", "not_built"),
];

/// What a policy does wrong, by its configuration, and the class it counts as.
const POLICY: [(&str, &str); 10] = [
    ("spin", "cpu"),
    ("recurse", "stack"),
    ("overflow", "trap"),
    ("hoard", "memory"),
    // 100 MB are more than all of its memory: the list's end is out of bounds.
    ("huge", "trap"),
    ("panic", "panic"),
    ("error", "error"),
    ("stranger", "ranked_stranger"),
    ("twice", "ranked_twice"),
    ("empty", "ranked_nobody"),
];

fn head(guests: &[&str]) -> String {
    format!(
        "[server]\nlisten = \"127.0.0.1:0\"\nworkers = 1\n[plugins]\ndir = \"{}\"\n",
        workspace::guests(guests).display()
    )
}

/// The faults of one plugin, as they must be: by class, each so often.
async fn expect_faults(gateway: &Gateway, plugin: &str, wanted: &[(&str, u64)], after: &str) {
    let mut found = gateway.counters(plugin).await.all_faults();
    let mut wanted: Vec<(String, u64)> =
        wanted.iter().map(|(class, count)| ((*class).into(), *count)).collect();
    found.sort();
    wanted.sort();
    assert_eq!(found, wanted, "after {after}");
}

fn raise<'a>(faults: &mut Vec<(&'a str, u64)>, class: &'a str) {
    match faults.iter_mut().find(|(known, _)| *known == class) {
        Some((_, count)) => *count += 1,
        None => faults.push((class, 1)),
    }
}

fn adapter_config(simulator: &Simulator) -> String {
    let url = simulator.base_url("a");
    head(&["hostile-adapter"])
        + &format!(
            r#"
[upstreams.hostile]
adapter = "hostile-adapter"
base_url = "{url}"
secrets = {{ api-key = "env:KEY" }}
[[models]]
name = "hostile/*"
targets = [{{ upstream = "hostile", model = "*" }}]
"#
        )
}

#[tokio::test]
async fn an_adapters_misdeed_costs_one_attempt() {
    let simulator = Simulator::start("127.0.0.1:0").await.unwrap();
    let gateway = Gateway::start(&adapter_config(&simulator), &Options::with(&[("KEY", "k")]));
    let honest = async || assert_eq!(gateway.ask("hostile/honest").await.content(), "honest");
    let mut faults = Vec::new();
    let all = async {
        honest().await;
        for (misdeed, class) in ADAPTER {
            let answer = gateway.ask(&format!("hostile/{misdeed}")).await;
            let message = answer.refused(502, "plugin_fault");
            assert!(message.contains("hostile-adapter"), "{misdeed}: {message}");
            raise(&mut faults, class);
            expect_faults(&gateway, "hostile-adapter", &faults, misdeed).await;
            honest().await;
        }
    };
    tokio::time::timeout(ALL_MAX, all).await.expect("the worker hangs");
    let counters = gateway.counters("hostile-adapter").await;
    assert_eq!(counters.calls("plan"), 2 * ADAPTER.len() as u64 + 1, "an attempt is one call");
    assert_eq!(simulator.books().totals.requests, 0, "no misdeed reaches the vendor");
    // A guest's panic is told in a line of the log; one of the host would name its thread.
    assert!(!gateway.log().contains("thread '"), "{}", gateway.log());
}

/// An adapter that says it maps and does not fails after the vendor has answered: one attempt, and
/// no mark against the vendor.
#[tokio::test]
async fn an_adapter_that_cannot_map_costs_one_attempt_and_no_breaker() {
    let simulator = Simulator::start("127.0.0.1:0").await.unwrap();
    let gateway = Gateway::start(&adapter_config(&simulator), &Options::with(&[("KEY", "k")]));
    for number in 1..=6 {
        gateway.ask("hostile/mapped").await.refused(502, "plugin_fault");
        expect_faults(&gateway, "hostile-adapter", &[("error", number)], "mapped").await;
    }
    assert_eq!(simulator.books().totals.requests, 6, "the breaker stayed closed");
}

/// What a guest says about the request is the caller's affair; what it sends honestly arrives.
#[tokio::test]
async fn the_same_adapter_behaves_where_it_is_told_to() {
    let simulator = Simulator::start("127.0.0.1:0").await.unwrap();
    let gateway = Gateway::start(&adapter_config(&simulator), &Options::with(&[("KEY", "k")]));
    assert_eq!(gateway.ask("hostile/send").await.content(), "You said: one two three");
    let row = &simulator.books().rows[0];
    assert_eq!((row.path.as_str(), row.method.as_str()), ("/a/v1/chat/completions", "POST"));
    assert!(row.headers.contains(&("x-note".into(), "from a guest".into())), "{:?}", row.headers);
    let message = gateway.ask("hostile/invalid-request").await.refused(400, "unsupported_request");
    assert!(message.contains("the guest wants none"), "{message}");
    expect_faults(&gateway, "hostile-adapter", &[], "honest calls").await;
}

#[tokio::test]
async fn a_flood_of_messages_is_cut_and_counted_and_forges_no_line() {
    let simulator = Simulator::start("127.0.0.1:0").await.unwrap();
    let gateway = Gateway::start(&adapter_config(&simulator), &Options::with(&[("KEY", "k")]));
    assert_eq!(gateway.ask("hostile/logs").await.content(), "honest");
    let row = gateway.counters("hostile-adapter").await.row().clone();
    assert_eq!(row["log_messages_dropped"], 1_000 - 16, "{row:#}");
    let log = gateway.stop();
    assert_eq!(log.matches("INFO forged").count(), 16, "the control: they are in the log");
    assert!(!log.lines().any(|line| line.starts_with("2026-01-01")), "{log}");
    assert!(!log.contains('\x1b'), "{log}");
    assert!(log.len() < 100_000, "{} bytes of log", log.len());
}

/// What a guest says is shortened before it is logged or told to a client.
#[tokio::test]
async fn a_guests_long_message_is_cut() {
    let simulator = Simulator::start("127.0.0.1:0").await.unwrap();
    let gateway =
        Gateway::start(&adapter_config(&simulator), &Options::with(&[("KEY", "k"), ("SLUICE_LOG", "trace")]));
    gateway.ask("hostile/error-long").await.refused(502, "plugin_fault");
    let message = gateway.ask("hostile/invalid-request-long").await.refused(400, "unsupported_request");
    assert!(message.starts_with("long long "), "the control: it is the guest's");
    assert!(message.len() < 10_000, "{} bytes", message.len());
    let log = gateway.stop();
    assert!(log.contains("long long "), "the control: it is in the log");
    assert!(log.len() < 100_000, "{} bytes of log", log.len());
}

fn policy_config(simulator: &Simulator) -> String {
    let mut config = head(&["hostile-policy"]);
    for vendor in ["a", "b"] {
        let url = simulator.base_url(vendor);
        config += &format!(
            "[upstreams.{vendor}]\nadapter = \"openai\"\nbase_url = \"{url}\"\nsecrets = {{ api-key = \"env:KEY\" }}\n"
        );
    }
    for (misdeed, _) in POLICY {
        config += &format!(
            r#"
[[models]]
name = "{misdeed}"
policy = "hostile-policy"
policy_config = {{ misdeed = "{misdeed}" }}
targets = [{{ upstream = "a", priority = 1 }}, {{ upstream = "b", priority = 2 }}]
"#
        );
    }
    config
}

/// The vendor that served an answer.
fn served(simulator: &Simulator, answer: &Answer) -> String {
    assert_eq!(answer.content(), "You said: one two three");
    let rows = simulator.books().rows;
    simulator.clear_books();
    assert_eq!(rows.len(), 1);
    rows[0].vendor.clone()
}

#[tokio::test]
async fn a_policys_misdeed_costs_nothing() {
    let simulator = Simulator::start("127.0.0.1:0").await.unwrap();
    let gateway = Gateway::start(&policy_config(&simulator), &Options::with(&[("KEY", "k")]));
    let mut faults = Vec::new();
    let all = async {
        for (misdeed, class) in POLICY {
            // Honestly the guest ranks backwards; the host's own order is by priority.
            assert_eq!(served(&simulator, &gateway.ask(misdeed).await), "b", "{misdeed}, honestly");
            expect_faults(&gateway, "hostile-policy", &faults, misdeed).await;
            assert_eq!(served(&simulator, &gateway.ask(misdeed).await), "a", "{misdeed}");
            raise(&mut faults, class);
            expect_faults(&gateway, "hostile-policy", &faults, misdeed).await;
        }
    };
    tokio::time::timeout(ALL_MAX, all).await.expect("the worker hangs");
    assert_eq!(gateway.counters("hostile-policy").await.calls("rank"), 2 * POLICY.len() as u64);
}
