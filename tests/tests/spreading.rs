//! Policies that spread requests, by the books of those who got them; and the figures of all that.

#![allow(clippy::unwrap_used, reason = "a test fails by it")]

use std::collections::BTreeMap;

use serde_json::json;
use sluice_tests::Stage;
use sluice_tests::gateway::question;
use sluice_tests::stage::{Vendor, model};

/// Three vendors with weights, behind each policy.
async fn three(weights: [u32; 3]) -> Stage {
    let vendors =
        ["a", "b", "c"].map(|name| Vendor::openai(name, "breaker = { failures = 1, open_for = \"1h\" }"));
    let targets: Vec<String> = ["a", "b", "c"]
        .iter()
        .zip(weights)
        .map(|(name, weight)| format!("{{ upstream = \"{name}\", weight = {weight} }}"))
        .collect();
    let of_policy = |policy: &str| {
        format!(
            "[[models]]\nname = \"{policy}\"\npolicy = \"{policy}\"\ntargets = [{}]\n",
            targets.join(", ")
        )
    };
    let models: String = ["weighted", "round-robin", "priority"].map(of_policy).concat();
    Stage::start("", &vendors, &models).await
}

/// Asks so often; gives who was asked how often since the last time.
async fn spread(stage: &Stage, model: &str, requests: usize) -> [usize; 3] {
    stage.simulator.clear_books();
    for _ in 0..requests {
        assert_eq!(stage.ask(model, false).await.status, 200);
    }
    ["a", "b", "c"].map(|vendor| stage.seen(vendor))
}

#[tokio::test]
async fn round_robin_takes_them_in_turn() {
    let stage = three([1, 1, 1]).await;
    assert_eq!(spread(&stage, "round-robin", 30).await, [10, 10, 10]);
    assert_eq!(stage.gateway.counters("round-robin").await.calls("rank"), 30);
    // One that has gone leaves its turns to both others.
    stage.direct("b", json!({"faults": [{"kind": "status", "status": 500}]}));
    stage.ask("round-robin", false).await;
    stage.ask("round-robin", false).await;
    stage.ask("round-robin", false).await;
    assert_eq!(stage.breaker_state_of("b", "round-robin").await, "open");
    let [a, b, c] = spread(&stage, "round-robin", 30).await;
    assert_eq!((a + c, b), (30, 0));
    assert!(a >= 10 && c >= 10, "{a} and {c}");
    // The control: another policy, the same targets.
    assert_eq!(spread(&stage, "priority", 30).await, [30, 0, 0]);
}

#[tokio::test]
async fn weighted_goes_by_the_weights() {
    let stage = three([6, 3, 0]).await;
    let requests = 600;
    let [a, b, c] = spread(&stage, "weighted", requests).await;
    assert_eq!((a + b, c), (requests, 0), "weight 0 is asked only when nobody else can be");
    // 400 are expected, the deviation is 11.5; this is six of them.
    assert!((330..=470).contains(&a), "{a} of {requests}");
    assert_eq!(stage.gateway.counters("weighted").await.calls("rank"), 600);
    for vendor in ["a", "b"] {
        stage.direct(vendor, json!({"faults": [{"kind": "status", "status": 500}]}));
    }
    // Both fail once, and their breakers leave only the third.
    assert_eq!(spread(&stage, "weighted", 1).await, [1, 1, 1]);
    assert_eq!(spread(&stage, "weighted", 10).await, [0, 0, 10]);
}

/// What one vendor's wire cannot say, another's can.
#[tokio::test]
async fn what_one_adapter_cannot_serve_goes_to_another_target() {
    let vendors = [Vendor { name: "a", adapter: "anthropic", more: "" }, Vendor::openai("b", "")];
    let models = model("both", &["a", "b"], "") + &model("alone", &["a"], "");
    let stage = Stage::start("", &vendors, &models).await;
    let two = |model: &str| {
        let mut body = question(model, false);
        body["n"] = json!(2);
        body.to_string()
    };
    let answer = stage.gateway.chat(two("both")).await.json();
    assert_eq!(answer["choices"].as_array().unwrap().len(), 2, "{answer:#}");
    assert_eq!((stage.seen("a"), stage.seen("b")), (0, 1));
    // The control: alone, it says why.
    let message = stage.gateway.chat(two("alone")).await.refused(400, "unsupported_request");
    assert!(message.starts_with("n: "), "{message}");
    assert_eq!(stage.seen("a"), 0);
}

/// The page counts what happened, and its labels are names of the configuration and closed sets:
/// what clients invent is in none.
#[tokio::test]
async fn the_figures_are_those_of_what_happened() {
    let vendors = [
        Vendor::openai("a", "breaker = { failures = 2, open_for = \"1h\" }"),
        Vendor { name: "b", adapter: "anthropic", more: "" },
    ];
    let models = model("m", &["a", "b"], "retries = 0")
        + "[[models]]\nname = \"any/*\"\ntargets = [{ upstream = \"b\", model = \"one\" }]\n";
    let stage = Stage::start("", &vendors, &models).await;
    stage.direct("a", json!({"faults": [{"kind": "reset", "at": "headers"}, {"kind": "error_in_200"}]}));
    for stream in [true, false, true] {
        assert_eq!(stage.ask("m", stream).await.status, 200);
    }
    for invented in 0..50 {
        assert_eq!(stage.ask(&format!("any/{invented}"), false).await.status, 200);
        stage.ask(&format!("invented-{invented}"), false).await.refused(404, "model_not_found");
    }
    // Two that no vendor was asked for, and one that its vendor refused.
    let mut two = question("any/x", false);
    two["n"] = json!(2);
    for body in [two.to_string(), "nonsense".into()] {
        assert_eq!(stage.gateway.chat(body).await.status, 400);
    }
    stage.direct("b", json!({"faults": [{"kind": "status", "status": 400}]}));
    assert_eq!(stage.ask("any/x", false).await.status, 400);
    let page = stage.gateway.get("/metrics").await;
    assert!(page.header("content-type").starts_with("application/openmetrics-text"), "{page:?}");
    let figures = figures(&page.text());
    let figure = |name: &str| *figures.get(name).unwrap_or_else(|| panic!("{name} is not in {figures:#?}"));
    let wanted = [
        (r#"sluice_requests_total{gen_ai_request_model="m",outcome="answered"}"#, 3.0),
        (r#"sluice_requests_total{gen_ai_request_model="any/*",outcome="answered"}"#, 51.0),
        (r#"sluice_requests_total{gen_ai_request_model="any/*",outcome="refused"}"#, 1.0),
        (r#"sluice_requests_total{gen_ai_request_model="_none",outcome="refused"}"#, 51.0),
        (r#"sluice_requests_total{gen_ai_request_model="_none",outcome="client_left"}"#, 0.0),
        (r#"sluice_attempts_total{upstream="b",gen_ai_request_model="one",outcome="caller"}"#, 1.0),
        (r#"sluice_attempts_total{upstream="b",gen_ai_request_model="one",outcome="client_left"}"#, 0.0),
        (r#"sluice_attempts_total{upstream="a",gen_ai_request_model="m",outcome="provider"}"#, 2.0),
        (r#"sluice_attempts_total{upstream="a",gen_ai_request_model="m",outcome="good"}"#, 0.0),
        (r#"sluice_attempts_total{upstream="b",gen_ai_request_model="m",outcome="good"}"#, 3.0),
        (r#"sluice_attempts_total{upstream="b",gen_ai_request_model="one",outcome="good"}"#, 50.0),
        (r#"sluice_breaker_state{upstream="a",gen_ai_request_model="m",state="open"}"#, 1.0),
        (r#"sluice_breaker_state{upstream="b",gen_ai_request_model="m",state="closed"}"#, 1.0),
        (r#"sluice_plugin_calls_total{plugin="priority",function="rank"}"#, 2.0),
        (
            r#"gen_ai_client_operation_duration_seconds_count{gen_ai_operation_name="chat",upstream="b",gen_ai_request_model="m"}"#,
            3.0,
        ),
        (
            r#"gen_ai_client_operation_time_to_first_chunk_seconds_count{gen_ai_operation_name="chat",upstream="b",gen_ai_request_model="m"}"#,
            2.0,
        ),
    ];
    for (name, value) in wanted {
        assert_eq!(figure(name), value, "{name}");
    }
    assert!(figure(r#"sluice_plugin_calls_total{plugin="anthropic",function="plan"}"#) >= 53.0);
    assert!(!page.text().contains("invented-") && !page.text().contains("any/1"), "{}", page.text());
}

/// The lines of the page, each read as the format has it.
fn figures(page: &str) -> BTreeMap<String, f64> {
    assert!(page.ends_with("# EOF\n"), "{page}");
    let lines = page.lines().filter(|line| !line.starts_with('#'));
    lines
        .map(|line| {
            let (name, value) = line.rsplit_once(' ').unwrap();
            (name.to_owned(), value.parse().unwrap())
        })
        .collect()
}
