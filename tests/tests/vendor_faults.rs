//! What a client gets when a vendor fails: each fault before and after the first content, streamed
//! and not, with one target and with two, in the vendor's own wire and in one that is mapped.
//!
//! `cargo test --test vendor_faults -- --nocapture` prints the table.

#![allow(clippy::unwrap_used, reason = "a test fails by it")]

use std::time::{Duration, Instant};

use serde_json::{Value, json};
use sluice_simulate::Simulator;
use sluice_tests::gateway::question;
use sluice_tests::{Answer, Gateway, Options};

/// Failures that open a breaker here: each cell fails so often with one target.
const FAILURES: usize = 2;

/// What the client gets with one target.
#[derive(Clone, Copy, Debug)]
enum Gets {
    /// A refusal of the gateway's own.
    Refused(u16, &'static str),
    /// The vendor's error, by its status.
    Said(u16),
    /// An answer.
    Answer,
    /// Content, then an event that names what happened.
    Event(&'static str),
}

/// One row of the table: a fault, and what comes of it in a stream and in a whole answer.
struct Fault {
    fault: fn(Wire) -> Value,
    streamed: Gets,
    whole: Option<Gets>,
    class: Class,
}

/// What is expected of the breaker, and of a second target.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Class {
    /// Opens the breaker; another target is asked while nothing has gone to the client.
    Provider,
    /// Another target is asked; no mark against this one.
    Passing,
    /// No other target would do better.
    Caller,
    /// Nothing is wrong.
    Fine,
}

/// The vendor's wire.
#[derive(Clone, Copy, Debug)]
enum Wire {
    OpenAi,
    Anthropic,
}

impl Wire {
    fn adapter(self) -> &'static str {
        match self {
            Wire::OpenAi => "openai",
            Wire::Anthropic => "anthropic",
        }
    }

    /// Events of a stream after which content has been sent.
    fn content(self) -> u32 {
        match self {
            Wire::OpenAi => 3,
            Wire::Anthropic => 5,
        }
    }
}

const fn row(fault: fn(Wire) -> Value, class: Class, streamed: Gets, whole: Option<Gets>) -> Fault {
    Fault { fault, streamed, whole, class }
}

/// Nothing that a client would miss has been sent.
const BEFORE: &[Fault] = {
    use Gets::{Answer, Refused, Said};
    &[
        row(|_| json!({"kind": "status", "status": 500}), Class::Provider, Said(500), Some(Said(500))),
        row(
            |_| json!({"kind": "status", "status": 503, "headers": [["retry-after", "7"]]}),
            Class::Provider,
            Said(503),
            Some(Said(503)),
        ),
        row(|_| json!({"kind": "status", "status": 429}), Class::Passing, Said(429), Some(Said(429))),
        row(
            |_| json!({"kind": "status", "status": 429, "headers": [["retry-after", "9"]]}),
            Class::Passing,
            Said(429),
            Some(Said(429)),
        ),
        row(
            |_| json!({"kind": "status", "status": 401}),
            Class::Passing,
            Refused(502, "upstream_refused_credential"),
            Some(Refused(502, "upstream_refused_credential")),
        ),
        row(|_| json!({"kind": "status", "status": 400}), Class::Caller, Said(400), Some(Said(400))),
        row(|_| json!({"kind": "status", "status": 413}), Class::Caller, Said(413), Some(Said(413))),
        row(
            |_| json!({"kind": "hang", "at": "headers"}),
            Class::Provider,
            Refused(504, "timeout_headers"),
            Some(Refused(504, "timeout_headers")),
        ),
        row(
            |_| json!({"kind": "hang", "at": "body", "events": 0}),
            Class::Provider,
            Refused(504, "timeout_first_content"),
            Some(Refused(504, "timeout_idle")),
        ),
        row(
            |_| json!({"kind": "hang", "at": "body", "events": 1}),
            Class::Provider,
            Refused(504, "timeout_first_content"),
            Some(Refused(504, "timeout_idle")),
        ),
        row(
            |_| json!({"kind": "reset", "at": "headers"}),
            Class::Provider,
            Refused(502, "upstream_broken"),
            Some(Refused(502, "upstream_broken")),
        ),
        row(
            |_| json!({"kind": "reset", "at": "body", "events": 1}),
            Class::Provider,
            Refused(502, "upstream_broken"),
            Some(Refused(502, "upstream_broken")),
        ),
        row(
            |_| json!({"kind": "malformed_json", "events": 1}),
            Class::Provider,
            Refused(502, "upstream_malformed"),
            Some(Refused(502, "upstream_malformed")),
        ),
        row(
            |_| json!({"kind": "malformed_sse", "events": 1}),
            Class::Provider,
            Refused(502, "upstream_cut_short"),
            Some(Refused(502, "upstream_malformed")),
        ),
        row(
            |_| json!({"kind": "error_in_200"}),
            Class::Provider,
            Refused(502, "upstream_error"),
            Some(Refused(502, "upstream_error")),
        ),
        row(
            |_| json!({"kind": "error_in_200", "error_type": "rate_limit_error"}),
            Class::Passing,
            Refused(429, "upstream_error"),
            Some(Refused(429, "upstream_error")),
        ),
        row(
            |_| json!({"kind": "error_in_200", "error_type": "authentication_error"}),
            Class::Passing,
            Refused(502, "upstream_refused_credential"),
            Some(Refused(502, "upstream_refused_credential")),
        ),
        row(
            |_| json!({"kind": "cut", "events": 1}),
            Class::Provider,
            Refused(502, "upstream_cut_short"),
            Some(Refused(502, "upstream_malformed")),
        ),
        row(
            |_| json!({"kind": "empty"}),
            Class::Provider,
            Refused(502, "upstream_empty"),
            Some(Refused(502, "upstream_empty")),
        ),
        row(|_| json!({"kind": "unstreamed"}), Class::Fine, Answer, Some(Answer)),
        row(|_| json!({"kind": "drip", "ms": 20}), Class::Fine, Answer, Some(Answer)),
        row(|_| json!({"kind": "no_usage"}), Class::Fine, Answer, Some(Answer)),
        row(|_| json!({"kind": "wrong_usage"}), Class::Fine, Answer, Some(Answer)),
        row(|_| json!({"kind": "ignore_limit", "words": 2000}), Class::Fine, Answer, Some(Answer)),
        row(|_| json!({"kind": "huge_frame", "bytes": 300_000}), Class::Fine, Answer, Some(Answer)),
    ]
};

/// Content has gone to the client.
const AFTER: &[Fault] = {
    use Gets::Event;
    &[
        row(
            |wire| json!({"kind": "hang", "at": "body", "events": wire.content()}),
            Class::Provider,
            Event("timeout_idle"),
            None,
        ),
        row(
            |wire| json!({"kind": "reset", "at": "body", "events": wire.content()}),
            Class::Provider,
            Event("upstream_broken"),
            None,
        ),
        row(
            |wire| json!({"kind": "malformed_json", "events": wire.content()}),
            Class::Provider,
            Event("upstream_malformed"),
            None,
        ),
        row(
            |wire| json!({"kind": "malformed_sse", "events": wire.content()}),
            Class::Provider,
            Event("upstream_cut_short"),
            None,
        ),
        row(
            |wire| json!({"kind": "error_in_200", "events": wire.content()}),
            Class::Provider,
            Event("upstream_error"),
            None,
        ),
        row(
            |wire| json!({"kind": "cut", "events": wire.content()}),
            Class::Provider,
            Event("upstream_cut_short"),
            None,
        ),
    ]
};

/// Two vendors of one stand-in. `a` is asked first.
fn config(simulator: &Simulator, wire: Wire) -> String {
    let mut config = "[server]\nlisten = \"127.0.0.1:0\"\n".to_owned();
    for vendor in ["a", "b"] {
        config += &format!(
            r#"
[upstreams.{vendor}]
adapter = "{}"
base_url = "{}"
secrets = {{ api-key = "env:KEY" }}
timeouts = {{ headers = "600ms", first_content = "800ms", idle = "1s", total = "20s" }}
breaker = {{ failures = {FAILURES}, open_for = "1h" }}
"#,
            wire.adapter(),
            simulator.base_url(vendor)
        );
    }
    let target = |vendor: &str, priority| {
        format!(r#"{{ upstream = "{vendor}", model = "vendor-model", priority = {priority} }}"#)
    };
    config
        + &format!("[[models]]\nname = \"one\"\nretries = 0\ntargets = [{}]\n", target("a", 1))
        + &format!(
            "[[models]]\nname = \"two\"\nretries = 0\ntargets = [{}, {}]\n",
            target("a", 1),
            target("b", 2)
        )
}

struct Bench {
    simulator: Simulator,
    gateway: Gateway,
}

impl Bench {
    async fn start(wire: Wire) -> Bench {
        let simulator = Simulator::start("127.0.0.1:0").await.unwrap();
        let gateway = Gateway::start(&config(&simulator, wire), &Options::with(&[("KEY", "sk-table")]));
        Bench { simulator, gateway }
    }

    async fn ask(&self, model: &str, stream: bool) -> Answer {
        self.gateway.chat(question(model, stream).to_string()).await
    }

    /// Requests that each vendor has seen; the books are empty afterwards.
    fn seen(&self) -> [usize; 2] {
        let rows = self.simulator.books().rows;
        self.simulator.clear_books();
        ["a", "b"].map(|vendor| rows.iter().filter(|row| row.vendor == vendor).count())
    }

    /// The state of `a`'s breaker; closed and rested afterwards.
    async fn breaker(&self) -> String {
        let breakers = self.gateway.get("/admin/v1/breakers").await.json();
        let rows = breakers["breakers"].as_array().unwrap();
        let row = rows.iter().find(|row| row["upstream"] == "a").unwrap();
        let state = row["state"].as_str().unwrap().to_owned();
        let reset = self.gateway.url("/admin/v1/breakers/a/vendor-model/reset");
        assert!(self.gateway.client().post(reset).send().await.unwrap().status().is_success());
        state
    }

    async fn cell(&self, row: &Fault, wire: Wire, stream: bool, gets: Gets) {
        let fault = (row.fault)(wire);
        let direct = |times: usize| {
            let mut fault = fault.clone();
            fault["times"] = json!(times);
            self.simulator.direct("a", serde_json::from_value(json!({"faults": [fault]})).unwrap());
        };
        // A connection that was kept and is reset is replaced, and that is nobody's failure.
        let kept = usize::from(fault["kind"] == "reset" && fault["at"] == "headers");
        if kept > 0 {
            expect(&self.ask("one", stream).await, Gets::Answer, stream, &fault);
            self.seen();
        }
        direct(FAILURES + kept);
        let began = Instant::now();
        for _ in 0..FAILURES {
            expect(&self.ask("one", stream).await, gets, stream, &fault);
        }
        let took = began.elapsed() / u32::try_from(FAILURES).unwrap();
        assert_eq!(self.seen(), [FAILURES + kept, 0], "{fault} stream {stream}: one attempt each");
        let state = self.breaker().await;
        let wanted = if row.class == Class::Provider { "open" } else { "closed" };
        assert_eq!(state, wanted, "{fault} stream {stream}");
        // With a second target.
        direct(1);
        let answer = self.ask("two", stream).await;
        let asks_next = match gets {
            Gets::Event(_) => false,
            _ => matches!(row.class, Class::Provider | Class::Passing),
        };
        let gets_of_two = if asks_next { Gets::Answer } else { gets };
        expect(&answer, gets_of_two, stream, &fault);
        assert_eq!(self.seen(), [1, usize::from(asks_next)], "{fault} stream {stream}, two targets");
        self.breaker().await;
        print_row(wire, &fault, stream, gets, took, asks_next, &state);
    }
}

#[allow(clippy::print_stdout, reason = "the table is for people")]
fn print_row(wire: Wire, fault: &Value, stream: bool, gets: Gets, took: Duration, next: bool, state: &str) {
    let kind = if stream { "stream" } else { "whole" };
    let attempts = if next { "a, then b" } else { "a" };
    println!("| {wire:?} | {fault} | {kind} | {gets:?} | {} ms | {attempts} | {state} |", took.as_millis());
}

fn expect(answer: &Answer, gets: Gets, stream: bool, fault: &Value) {
    match gets {
        Gets::Refused(status, code) => {
            answer.refused(status, code);
        }
        Gets::Said(status) => {
            assert_eq!(answer.status.as_u16(), status, "{fault}: {answer:?}");
            assert!(answer.json()["error"]["message"].is_string(), "{fault}: {answer:?}");
            let given = fault["headers"][0][1].as_str().unwrap_or_default();
            assert_eq!(answer.header("retry-after"), given, "{fault}: {answer:?}");
        }
        Gets::Answer if stream && answer.header("content-type").starts_with("text/event-stream") => {
            assert_eq!(answer.status, 200, "{fault}: {answer:?}");
            assert_eq!(answer.events().last().map(String::as_str), Some("[DONE]"), "{fault}");
        }
        Gets::Answer => assert!(!answer.content().is_empty(), "{fault}: {answer:?}"),
        Gets::Event(code) => {
            assert_eq!(answer.status, 200, "{fault}: {answer:?}");
            let events = answer.events();
            let said = events.iter().filter(|event| event.contains("\"content\":\"You")).count();
            assert_eq!(said, 1, "{fault}: content came: {answer:?}");
            let last: Value = serde_json::from_str(events.last().unwrap()).unwrap();
            assert_eq!(last["error"]["code"], code, "{fault}: {answer:?}");
        }
    }
}

async fn table(wire: Wire) {
    let bench = Bench::start(wire).await;
    for row in BEFORE.iter().chain(AFTER) {
        bench.cell(row, wire, true, row.streamed).await;
        if let Some(whole) = row.whole {
            bench.cell(row, wire, false, whole).await;
        }
    }
}

#[tokio::test]
async fn each_fault_of_a_vendor_in_the_clients_wire() {
    table(Wire::OpenAi).await;
}

#[tokio::test]
async fn each_fault_of_a_vendor_whose_wire_is_mapped() {
    table(Wire::Anthropic).await;
}
