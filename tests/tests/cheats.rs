//! Caps that hold against who would get round them: callers by what they write, adapters by what they
//! tell, vendors by what they send. Each by the vendors' own books: what they billed is charged, and
//! what is charged is within the cap.

#![allow(clippy::unwrap_used, reason = "a test fails by it")]

use std::path::Path;

use rusqlite::Connection;
use serde_json::{Value, json};
use sluice_simulate::{Billed, Row};
use sluice_tests::gateway::PATIENCE;
use sluice_tests::stage::Vendor;
use sluice_tests::{Answer, Stage, workspace};

/// Nano-dollars for a token: what a million cost in the configuration.
const INPUT: u64 = 1000;
const OUTPUT: u64 = 10_000;
const PRICE: &str = "price = { input = \"1.00\", output = \"10.00\" }";

/// What a run may cost.
const CAP: &str = "0.05";

/// What a caller allows for an answer, and words that a vendor has to say if it is let.
const LIMIT: u64 = 44;
const WORDS: usize = 400;

/// What is known of the models, where it is.
const BOUNDS: &str = "context = 8000, max_output = 300";

fn target(upstream: &str, model: &str, more: &str) -> String {
    let model = if model.is_empty() { String::new() } else { format!("model = \"{model}\", ") };
    format!("{{ upstream = \"{upstream}\", {model}{PRICE}, {more} }}")
}

fn model(name: &str, targets: &[String]) -> String {
    format!("[[models]]\nname = \"{name}\"\nretries = 0\ntargets = [{}]\n", targets.join(", "))
}

fn budgets(cap: &str) -> String {
    format!(
        "[[budgets]]\nname = \"per-run\"\nper = \"run\"\ncap_usd = \"{cap}\"\nwindow = \"day\"\n\
         [[budgets]]\nname = \"everyone\"\nper = \"all\"\ncap_usd = \"9.00\"\n"
    )
}

fn nanos(dollars: &str) -> u64 {
    dollars.parse::<sluice_core::money::NanoUsd>().unwrap().nanos()
}

fn cost(billed: Billed) -> u64 {
    billed.prompt_tokens * INPUT + billed.completion_tokens * OUTPUT
}

/// A question of eighty words, with these members changed, added, or, where they are null, as they are.
fn body(model: &str, stream: bool, changes: &Value) -> Value {
    let mut body = json!({
        "model": model, "stream": stream, "max_tokens": LIMIT,
        "messages": [{"role": "user", "content": "word ".repeat(80)}],
    });
    for (name, value) in changes.as_object().unwrap() {
        body[name] = value.clone();
    }
    body
}

fn content(part: &Value) -> Value {
    json!([{"role": "user", "content": [{"type": "text", "text": "look"}, part]}])
}

async fn ask(stage: &Stage, run: &str, body: String) -> Answer {
    let request = stage.gateway.chat_request(body).header("x-sluice-run", run);
    Answer::read(request.send().await.unwrap()).await.unwrap()
}

/// Waits until nothing is held, and the vendors know how all calls have ended.
async fn at_rest(stage: &Stage) {
    let wait = async {
        while stage.metric("sluice_spending_holds").await > 0.0 {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(PATIENCE, wait).await.expect("at rest nothing is held");
    stage.finished(stage.simulator.books().rows.len()).await;
    assert_eq!(stage.metric("sluice_spending_held_nanodollars").await, 0.0);
}

/// What the vendors have billed since that many requests, and the requests.
fn billed_since(stage: &Stage, seen: usize) -> (u64, Vec<Row>) {
    let rows = stage.simulator.books().rows[seen..].to_vec();
    (rows.iter().map(|row| cost(row.billed)).sum(), rows)
}

/// What the ledger has charged to an account, once the gateway has ended.
fn charged(folder: &Path, budget: &str, scope: &str) -> u64 {
    let store = Connection::open(folder.join("data/sluice.db")).unwrap();
    let query = "SELECT coalesce(sum(settled), 0), coalesce(sum(in_doubt), 0) FROM accounts WHERE budget = ?1 AND scope LIKE ?2";
    let row = |row: &rusqlite::Row<'_>| Ok((row.get::<_, i64>(0)? as u64, row.get::<_, i64>(1)? as u64));
    let (settled, in_doubt) = store.query_row(query, [budget, scope], row).unwrap();
    assert_eq!(in_doubt, 0, "{budget} {scope}");
    settled
}

/// What each run came to by the vendors' books.
#[derive(Default)]
struct Bills(Vec<(String, u64)>);

impl Bills {
    fn add(&mut self, run: &str, billed: u64) {
        self.0.push((run.to_owned(), billed));
    }

    /// Ends the gateway: all that was billed is charged, and no cap is passed. Gives what was charged.
    fn are_paid(self, stage: Stage, cap: &str) -> Vec<(String, u64, u64)> {
        let folder = stage.gateway.ended_in_order();
        let mut all = (0, 0);
        let paid = self.0.into_iter().map(|(run, billed)| {
            let charged = charged(folder.path(), "per-run", &format!("%/{run}"));
            assert!(billed <= charged, "{run}: {billed} were billed, {charged} charged");
            assert!(charged <= nanos(cap), "{run}: {charged} of {cap}");
            all = (all.0 + billed, all.1 + charged);
            (run, billed, charged)
        });
        let paid: Vec<_> = paid.collect();
        assert_eq!(charged(folder.path(), "everyone", ""), all.1);
        assert!(all.0 > 0 && all.0 <= all.1, "{all:?}");
        paid
    }
}

/// What becomes of a request.
#[derive(Clone, Copy, Debug)]
enum Becomes {
    /// It is served, within what was held.
    Served,
    /// The gateway refuses it, and the vendor is not asked: status, code, and words of the message.
    Refused(u16, &'static str, &'static str),
}

const SERVICE: Becomes = Becomes::Refused(402, "unbounded_cost", "a service with prices of its own");
const VENDOR_TOOLS: Becomes = Becomes::Refused(402, "unbounded_cost", "tools that the vendor runs");
const OTHER_OUTPUT: Becomes = Becomes::Refused(402, "unbounded_cost", "output other than text");
const NO_CONTEXT: Becomes = Becomes::Refused(402, "unbounded_cost", "`context` is not known");
const TOO_DEAR: Becomes = Becomes::Refused(402, "budget_exhausted", " USD left");

/// What callers write: a name, the model, the members that are changed, what becomes of it.
fn bodies() -> Vec<(&'static str, &'static str, Value, Becomes)> {
    use Becomes::{Refused, Served};
    let image = content(&json!({"type": "image_url", "image_url": {"url": "https://x.example/i.png"}}));
    let images = json!([{"role": "user", "content": vec![image[0]["content"][1].clone(); 9]}]);
    let file = content(&json!({"type": "file", "file": {"file_id": "file-1"}}));
    let tool = |kind: &str| json!({"tools": [{"type": kind, "name": "t"}]});
    vec![
        ("plain", "m", json!({}), Served),
        ("eight-answers", "m", json!({"n": 8}), Served),
        ("best-of-eight", "m", json!({"best_of": 8}), Served),
        ("best-of-more", "m", json!({"best_of": 8, "n": 2}), Served),
        ("many-answers", "m", json!({"n": 120}), TOO_DEAR),
        ("answers-elsewhere", "m", json!({"extra_body": {"n": 120}}), TOO_DEAR),
        ("answers-in-capitals", "m", json!({"N": 120}), TOO_DEAR),
        ("image", "m", json!({"messages": image.clone()}), Served),
        ("image-without-context", "bare", json!({"messages": image}), NO_CONTEXT),
        ("images", "m", json!({"messages": images}), Served),
        ("file", "m", json!({"messages": file.clone()}), Served),
        ("file-without-context", "bare", json!({"messages": file}), NO_CONTEXT),
        ("stored", "m", json!({"previous_response_id": "resp_1"}), Served),
        ("stored-without-context", "bare", json!({"previous_response_id": "resp_1"}), NO_CONTEXT),
        ("both-limits", "m", json!({"max_completion_tokens": 900}), Served),
        ("all-limits", "m", json!({"max_completion_tokens": 900, "max_output_tokens": 950}), Served),
        ("limit-in-capitals", "m", json!({"MAX_TOKENS": 900, "Max_Completion_Tokens": 900}), Served),
        ("limit-in-kelvin", "m", json!({"max_to\u{212a}ens": 900, "max_token\u{17f}": 900}), Served),
        ("no-limit", "m", json!({"max_tokens": null}), Served),
        ("huge-limit", "m", json!({"max_tokens": u64::MAX}), Served),
        (
            "huge-limit-unbound",
            "bare",
            json!({"max_tokens": u64::MAX}),
            Refused(402, "unbounded_cost", "beyond all measure"),
        ),
        ("large-limit-unbound", "bare", json!({"max_tokens": 1_000_000}), TOO_DEAR),
        ("huger-limit", "m", json!({"max_tokens": 1e30}), Served),
        ("negative-limit", "m", json!({"max_tokens": -5}), Served),
        ("limit-with-a-fraction", "m", json!({"max_tokens": 900.5}), Served),
        ("limit-as-a-text", "m", json!({"max_tokens": "900"}), Served),
        ("limit-as-a-truth", "m", json!({"max_tokens": true}), Served),
        ("limit-as-a-list", "m", json!({"max_tokens": [900]}), Served),
        ("other-limit-as-a-text", "m", json!({"max_completion_tokens": "900"}), Served),
        ("no-answer", "m", json!({"max_tokens": 0}), Served),
        ("no-answer-and-some", "m", json!({"max_tokens": 0, "max_completion_tokens": 7}), Served),
        ("usual-service", "m", json!({"service_tier": "auto"}), Served),
        ("cheaper-service", "m", json!({"service_tier": "flex"}), Served),
        ("dearer-service", "m", json!({"service_tier": "priority"}), SERVICE),
        ("dearer-service-in-capitals", "m", json!({"service_tier": "Priority"}), SERVICE),
        ("unheard-of-service", "m", json!({"service_tier": ["priority"]}), SERVICE),
        ("faster", "m", json!({"speed": "fast"}), SERVICE),
        ("elsewhere", "m", json!({"inference_geo": "us"}), SERVICE),
        ("longer-cache", "m", json!({"cache_control": {"type": "ephemeral", "ttl": "1h"}}), SERVICE),
        (
            "prediction",
            "m",
            json!({"prediction": {"type": "content", "content": "word ".repeat(900)}}),
            SERVICE,
        ),
        ("other-models", "m", json!({"models": ["dearer"]}), SERVICE),
        ("search", "m", json!({"web_search_options": {}}), VENDOR_TOOLS),
        ("search-in-capitals", "m", json!({"Web_Search_Options": {}}), VENDOR_TOOLS),
        ("search-tool", "m", tool("web_search_preview"), VENDOR_TOOLS),
        ("search-tool-of-another", "m", tool("web_search_20250305"), VENDOR_TOOLS),
        ("code-tool", "m", tool("code_interpreter"), VENDOR_TOOLS),
        ("remote-tools", "m", json!({"mcp_servers": [{"url": "https://x.example"}]}), VENDOR_TOOLS),
        ("speech", "m", json!({"modalities": ["text", "audio"]}), OTHER_OUTPUT),
        ("voice", "m", json!({"audio": {"voice": "v", "format": "wav"}}), OTHER_OUTPUT),
    ]
}

/// Bodies that no JSON library writes.
fn raw_bodies(stream: bool) -> Vec<(&'static str, String, Becomes)> {
    let plain = body("m", stream, &json!({})).to_string();
    let begun = |more: &str| format!("{{{more},{}", &plain[1..]);
    vec![
        (
            "escaped-limit-twice",
            begun(r#""max\u005ftokens":900"#),
            Becomes::Refused(400, "duplicate_member", "/max_tokens"),
        ),
        ("answers-twice", begun(r#""n":1,"n":8"#), Becomes::Refused(400, "duplicate_member", "/n")),
        (
            "limit-in-capitals-twice",
            begun(r#""Max_Tokens":1,"Max_Tokens":900"#),
            Becomes::Refused(400, "unfit_body", "/Max_Tokens"),
        ),
        ("answers-of-two-names", begun(r#""best_of":120,"best\u005fof":1"#), TOO_DEAR),
    ]
}

/// Whatever a caller writes is bounded, or refused and not sent. The vendor says all that it is let.
#[tokio::test]
async fn no_body_costs_more_than_was_held_for_it() {
    let models =
        model("m", &[target("a", "", BOUNDS)]) + &model("bare", &[target("a", "", "")]) + &budgets(CAP);
    let stage = Stage::start("", &[Vendor::openai("a", "")], &models).await;
    stage.direct("a", json!({"reply": "word ".repeat(WORDS)}));
    let mut bills = Bills::default();
    let mut served = 0;
    for stream in [false, true] {
        let written = bodies().into_iter().map(|(name, model, changes, becomes)| {
            (name, body(model, stream, &changes).to_string(), becomes)
        });
        for (name, text, becomes) in written.chain(raw_bodies(stream)) {
            let run = format!("{name}-{stream}");
            let seen = stage.simulator.books().rows.len();
            let answer = ask(&stage, &run, text).await;
            at_rest(&stage).await;
            let (billed, rows) = billed_since(&stage, seen);
            match becomes {
                Becomes::Served => {
                    assert_eq!(answer.status, 200, "{run}: {answer:?}");
                    assert!(rows.len() == 1 && billed > 0, "{run}: {rows:?}");
                    has_one_limit(&run, &rows[0]);
                    served += 1;
                }
                Becomes::Refused(status, code, words) => {
                    let message = answer.refused(status, code);
                    assert!(message.contains(words), "{run}: {message}");
                    assert_eq!(rows.len(), 0, "{run}: nobody is asked");
                }
            }
            bills.add(&run, billed);
        }
    }
    assert_eq!(served, 50);
    assert_eq!(stage.metric("sluice_spending_overrun_nanodollars").await, 0.0);
    assert_eq!(stage.metric("sluice_spending_disputed").await, 0.0);
    for (run, billed, charged) in bills.are_paid(stage, CAP) {
        assert_eq!(billed, charged, "{run}: an honest vendor's usage");
    }
}

/// The vendor has been told one limit, however many the caller has named.
fn has_one_limit(run: &str, row: &Row) {
    let sent: Value = serde_json::from_slice(&row.body).unwrap();
    let speaks = |name: &&String| {
        let folded: String = name.chars().map(|letter| letter.to_ascii_lowercase()).collect();
        folded.starts_with("max_")
    };
    let limits: Vec<&String> = sent.as_object().unwrap().keys().filter(speaks).collect();
    assert_eq!(limits, ["max_tokens"], "{run}");
    assert!((1..=300).contains(&sent["max_tokens"].as_u64().unwrap()), "{run}: {sent}");
}

/// What adapters do, and by what a whole answer and a stream are charged.
const ADAPTERS: [(&str, [By; 2]); 7] = [
    ("ones", [By::VendorsWords, By::VendorsWords]),
    ("swallow", [By::VendorsWords, By::VendorsWords]),
    // What a slow vendor would have said in the end is not waited for.
    ("hang-up", [By::VendorsWords, By::Hold]),
    // To the client it has broken off in the middle.
    ("fail", [By::VendorsWords, By::Hold]),
    ("silent", [By::Hold, By::Hold]),
    ("no-limit", [By::Usage, By::Usage]),
    // Over what was held, or cut there.
    ("wrong-limit", [By::Debt, By::Hold]),
];

/// What an attempt is charged by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum By {
    /// The vendor's usage, which passes.
    Usage,
    /// The same, read beside the adapter: it is disputed.
    VendorsWords,
    /// All that was held.
    Hold,
    /// More than that.
    Debt,
}

fn cheating() -> Vendor<'static> {
    Vendor { name: "cheat", adapter: "cheating-adapter", more: "" }
}

fn plugins() -> String {
    format!("[plugins]\ndir = \"{}\"\n", workspace::guests(&["cheating-adapter"]).display())
}

/// Whatever an adapter tells of an answer, the host has read the vendor's own words.
#[tokio::test]
async fn no_adapter_hides_what_a_vendor_bills() {
    let models = plugins() + &model("cheat/*", &[target("cheat", "*", "max_output = 1000")]) + &budgets(CAP);
    let stage = Stage::start("", &[cheating()], &models).await;
    let mut bills = Bills::default();
    for stream in [false, true] {
        for (cheat, by) in ADAPTERS {
            let by = by[usize::from(stream)];
            // More than is paid for, where no limit reaches the vendor.
            let words = if cheat == "wrong-limit" { 200 } else { 40 };
            let pause_ms = if cheat == "hang-up" { 100 } else { 1 };
            // A vendor that has not been told of a limit goes by its own.
            let fault = json!({"kind": "ignore_limit", "words": words, "ms": pause_ms});
            stage.direct("cheat", json!({"reply": "word", "faults": [fault]}));
            let (run, seen) = (format!("{cheat}-{stream}"), stage.simulator.books().rows.len());
            let before = figures(&stage).await;
            // The usage of a stream is asked for by who wants to see it.
            let changes = if stream { json!({"stream_options": {"include_usage": true}}) } else { json!({}) };
            let answer =
                ask(&stage, &run, body(&format!("cheat/{cheat}"), stream, &changes).to_string()).await;
            at_rest(&stage).await;
            let (billed, rows) = billed_since(&stage, seen);
            assert_eq!(rows.len(), 1, "{run}: {answer:?}");
            let after = figures(&stage).await;
            let (disputed, overrun, settled) = (after.0 - before.0, after.1 - before.1, after.2 - before.2);
            let said = format!("{run}: {billed} billed, {settled} charged, {overrun} of it beyond");
            match by {
                By::Usage | By::VendorsWords | By::Debt => assert_eq!(settled, billed, "{said}"),
                By::Hold => assert!(settled > billed, "{said}"),
            }
            assert_eq!(overrun > 0, by == By::Debt, "{said}");
            assert_eq!(disputed, u64::from(by == By::VendorsWords), "{said}");
            bills.add(&run, billed);
        }
    }
    let counters = stage.gateway.counters("cheating-adapter").await;
    assert_eq!(counters.all_faults(), [], "the adapter does nothing that shows");
    bills.are_paid(stage, CAP);
}

/// Disputed, beyond what was held, settled.
async fn figures(stage: &Stage) -> (u64, u64, u64) {
    let one = async |name: &str| stage.metric(&format!("sluice_spending_{name}")).await as u64;
    (one("disputed").await, one("overrun_nanodollars").await, one("settled_nanodollars").await)
}

/// What a vendor says itself, and its adapter passes on, is never disputed: cached or not, thought or
/// said, broken off or not.
#[tokio::test]
async fn an_honest_adapter_is_never_disputed() {
    let models =
        model("m", &[target("a", "", BOUNDS)]) + &model("n", &[target("b", "", BOUNDS)]) + &budgets(CAP);
    let vendors = [Vendor { name: "a", adapter: "anthropic", more: "" }, Vendor::openai("b", "")];
    let stage = Stage::start("", &vendors, &models).await;
    let usage = json!({"cached_input": 400, "cache_write": 30, "reasoning": 9});
    let failed = |events: u32| json!([{"kind": "error_in_200", "events": events}]);
    let mut bills = Bills::default();
    for (name, script, status) in [
        ("plain", json!({}), 200),
        ("cached", json!({"usage": usage}), 200),
        ("failed-at-once", json!({"faults": failed(0)}), 502),
        ("failed", json!({"usage": usage, "faults": failed(1)}), 502),
    ] {
        for (vendor, asked, stream) in
            [("a", "m", false), ("a", "m", true), ("b", "n", false), ("b", "n", true)]
        {
            let mut script = script.clone();
            script["reply"] = json!("word ".repeat(30));
            stage.direct(vendor, script);
            let (run, seen) = (format!("{name}-{vendor}-{stream}"), stage.simulator.books().rows.len());
            let before = figures(&stage).await;
            let answer = ask(&stage, &run, body(asked, stream, &json!({})).to_string()).await;
            at_rest(&stage).await;
            let (billed, rows) = billed_since(&stage, seen);
            assert_eq!((answer.status.as_u16(), rows.len()), (status, 1), "{run}: {answer:?}");
            let after = figures(&stage).await;
            assert_eq!((after.0, after.1), (0, 0), "{run}: disputed, or beyond what was held");
            let charged = after.2 - before.2;
            if name == "failed" && stream {
                // It had begun to answer, and nobody knows how far it has come.
                assert!(billed > 0 && charged > billed, "{run}: {billed} billed, {charged} charged");
            } else {
                assert_eq!(charged, billed, "{run}");
            }
            assert_eq!(billed > 0, status == 200 || (name == "failed" && stream), "{run}");
            bills.add(&run, billed);
        }
    }
    bills.are_paid(stage, CAP);
}

/// A vendor that goes on after its limit: a stream is cut there, the rest is debt; and the vendor is
/// asked last from then on.
#[tokio::test]
async fn a_vendor_that_ignores_its_limit_is_cut_or_in_debt_and_rests() {
    const CAP: &str = "0.002";
    let targets = [
        target("a", "", "priority = 1, max_output = 1000"),
        target("b", "", "priority = 2, max_output = 1000"),
    ];
    let models = model("m", &targets) + &budgets(CAP);
    let stage = Stage::start("", &[Vendor::openai("a", ""), Vendor::openai("b", "")], &models).await;
    let ignores = json!({"kind": "ignore_limit", "words": 200, "ms": 2, "times": 0});
    stage.direct("a", json!({"reply": "word", "faults": [ignores]}));

    // Streamed: cut where the money ends, which covers what has come.
    let answer = ask(&stage, "cut", body("m", true, &json!({})).to_string()).await;
    assert_eq!(answer.status, 200, "{answer:?}");
    let events = answer.events();
    assert!(events.last().unwrap().contains("\"upstream_over_limit\""), "{answer:?}");
    let spoken = events.iter().filter(|event| event.contains("\"content\":\"word")).count() as u64;
    assert!((1..=LIMIT).contains(&spoken), "{spoken} words of {LIMIT}");
    at_rest(&stage).await;
    let (billed, _) = billed_since(&stage, 0);
    let (disputed, overrun, settled) = figures(&stage).await;
    assert!(billed <= settled && settled <= nanos(CAP), "{billed} billed, {settled} charged");
    assert_eq!((disputed, overrun), (0, 0));
    assert_eq!(stage.breaker("a").await["rests"]["reason"], "over_limit");

    // It is asked last now.
    let answer = ask(&stage, "other", body("m", false, &json!({})).to_string()).await;
    assert_eq!((answer.status.as_u16(), stage.seen("a"), stage.seen("b")), (200, 1, 1));
    at_rest(&stage).await;

    // Whole: it has been said, and is owed.
    assert_eq!(stage.reset("a", "m").await.status, 200);
    let (seen, before) = (stage.simulator.books().rows.len(), figures(&stage).await.2);
    let answer = ask(&stage, "debt", body("m", false, &json!({})).to_string()).await;
    assert_eq!(answer.content().split_whitespace().count(), 200, "it goes to the client");
    at_rest(&stage).await;
    let (billed, _) = billed_since(&stage, seen);
    let (disputed, overrun, settled) = figures(&stage).await;
    assert_eq!(settled - before, billed, "the whole of it is charged");
    assert!(billed > nanos(CAP) && overrun > 0 && disputed == 0, "{billed} {overrun} {disputed}");
    assert!(stage.gateway.log().contains("an attempt cost more than was held for it"));
    assert_eq!(stage.breaker("a").await["rests"]["reason"], "over_limit");
    // Who is in debt gets nothing more.
    let answer = ask(&stage, "debt", body("m", false, &json!({})).to_string()).await;
    assert!(answer.refused(402, "budget_exhausted").contains("has 0.00 USD left"), "{answer:?}");
    let folder = stage.gateway.ended_in_order();
    assert_eq!(charged(folder.path(), "per-run", "%/debt"), billed);
}

/// Sends these, and waits until the vendor has all of them; it answers when it is told to.
async fn under_way(stage: &Stage, runs: &[&str]) -> tokio::task::JoinSet<Answer> {
    stage.direct("a", json!({"faults": [{"kind": "wait", "times": 0}]}));
    let seen = stage.simulator.books().rows.len();
    let mut asking = tokio::task::JoinSet::new();
    for (stream, run) in [false, true].into_iter().cycle().zip(runs) {
        let request = stage.gateway.chat_request(body("m", stream, &json!({})).to_string());
        let request = request.header("x-sluice-run", *run);
        asking.spawn(async move { Answer::read(request.send().await.unwrap()).await.unwrap() });
    }
    stage.arrived(seen + runs.len()).await;
    asking
}

async fn answered(stage: &Stage, asking: tokio::task::JoinSet<Answer>) {
    stage.direct("a", json!({"reply": "word ".repeat(30)}));
    for answer in asking.join_all().await {
        assert_eq!(answer.status, 200, "{answer:?}");
    }
    at_rest(stage).await;
}

/// An edit while calls run: each is settled by the price that it was held with.
#[tokio::test]
async fn a_price_that_is_edited_is_for_calls_to_come() {
    let vendors = [Vendor::openai("a", "")];
    let priced = |output: &str| {
        let target = target("a", "", BOUNDS).replace("output = \"10.00\"", &format!("output = \"{output}\""));
        model("m", &[target]) + &budgets(CAP)
    };
    let stage = Stage::start("", &vendors, &priced("10.00")).await;
    let asking = under_way(&stage, &["old-1", "old-2"]).await;
    assert!(figures(&stage).await.2 == 0 && stage.metric("sluice_spending_holds").await == 2.0);
    stage.reconfigure("", &vendors, &priced("20.00"), 1);
    answered(&stage, asking).await;
    let (old, rows) = billed_since(&stage, 0);
    assert_eq!((rows.len(), figures(&stage).await), (2, (0, 0, old)));
    // The control: it is another price now.
    assert_eq!(ask(&stage, "new", body("m", false, &json!({})).to_string()).await.status, 200);
    at_rest(&stage).await;
    let billed = stage.simulator.books().rows[2].billed;
    let new = billed.prompt_tokens * INPUT + billed.completion_tokens * OUTPUT * 2;
    assert_eq!(figures(&stage).await, (0, 0, old + new));
    let folder = stage.gateway.ended_in_order();
    assert_eq!(charged(folder.path(), "per-run", "%/new"), new);
    assert_eq!(charged(folder.path(), "everyone", ""), old + new);
}

/// A cap that is lowered below what is spent lets nothing new pass, and takes nothing back.
#[tokio::test]
async fn a_cap_that_is_lowered_refuses_what_is_new_and_settles_what_is_old() {
    let vendors = [Vendor::openai("a", "")];
    let capped = |cap: &str| model("m", &[target("a", "", BOUNDS)]) + &budgets(cap);
    let stage = Stage::start("", &vendors, &capped(CAP)).await;
    stage.direct("a", json!({"reply": "word ".repeat(30)}));
    assert_eq!(ask(&stage, "r", body("m", false, &json!({})).to_string()).await.status, 200);
    at_rest(&stage).await;
    let spent = figures(&stage).await.2;
    let asking = under_way(&stage, &["r", "r"]).await;
    assert!(spent > nanos("0.0001"));
    stage.reconfigure("", &vendors, &capped("0.0001"), 1);
    for _ in 0..2 {
        let answer = ask(&stage, "r", body("m", false, &json!({})).to_string()).await;
        assert!(answer.refused(402, "budget_exhausted").contains("has 0.00 USD left"), "{answer:?}");
    }
    answered(&stage, asking).await;
    let (billed, rows) = billed_since(&stage, 0);
    assert_eq!((rows.len(), figures(&stage).await), (3, (0, 0, billed)), "each by what it was held with");
    ask(&stage, "r", body("m", true, &json!({})).to_string()).await.refused(402, "budget_exhausted");
    // The control: what was spent is within a cap that is raised again.
    stage.reconfigure("", &vendors, &capped(CAP), 2);
    assert_eq!(ask(&stage, "r", body("m", true, &json!({})).to_string()).await.status, 200);
    at_rest(&stage).await;
    let (billed, _) = billed_since(&stage, 0);
    let folder = stage.gateway.ended_in_order();
    assert_eq!(charged(folder.path(), "per-run", "%/r"), billed);
}
