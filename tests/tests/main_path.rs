//! The main job: a request through a policy and an adapter, without a key and a network.

#![allow(clippy::unwrap_used, reason = "a test fails by it")]

use serde_json::{Value, json};
use sluice_tests::gateway::question;
use sluice_tests::workspace::fresh_plugins;
use sluice_tests::{Gateway, Options};

/// What the gateway has without a file, on a port of its own.
const ECHO: &str = r#"
[server]
listen = "127.0.0.1:0"
[upstreams.echo-1]
adapter = "echo"
[upstreams.echo-2]
adapter = "echo"
[[models]]
name = "echo"
targets = [{ upstream = "echo-1" }, { upstream = "echo-2" }]
"#;

/// Calls of the policy and of the adapter so far.
async fn calls(gateway: &Gateway) -> (u64, u64) {
    let policy = gateway.counters("priority").await.calls("rank");
    (policy, gateway.counters("echo").await.calls("plan"))
}

/// The one test that needs a port of its own choosing: without a file it is always 8080.
#[tokio::test]
async fn without_a_file_echo_answers_and_a_key_adds_its_vendor() {
    let taken = std::net::TcpListener::bind("127.0.0.1:8080").err();
    assert!(taken.is_none(), "this test needs 127.0.0.1:8080, as the gateway does without a file: {taken:?}");
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join(".env"), "GROQ_API_KEY=canary-in-dot-env\n").unwrap();
    let gateway = Gateway::start_in(folder, &Options::default());
    assert_eq!(gateway.address(), "127.0.0.1:8080");
    assert_eq!(gateway.ask("echo").await.content(), "one two three");
    assert_eq!(calls(&gateway).await, (1, 1));
    let models = gateway.get("/v1/models").await.json();
    let ids: Vec<&str> =
        models["data"].as_array().unwrap().iter().map(|row| row["id"].as_str().unwrap()).collect();
    assert_eq!(ids, ["echo", "groq/*"]);
    let log = gateway.stop();
    assert!(log.contains("any client key is accepted"), "{log}");
    assert!(!log.contains("canary-in-dot-env"), "{log}");
}

#[tokio::test]
async fn each_request_is_one_call_of_the_policy_and_one_of_the_adapter() {
    let gateway = Gateway::start(ECHO, &Options::default());
    assert_eq!(calls(&gateway).await, (0, 0), "nobody has asked");
    for count in 1..=3 {
        whole(&gateway).await;
        assert_eq!(calls(&gateway).await, (2 * count - 1, 2 * count - 1));
        streamed(&gateway).await;
        assert_eq!(calls(&gateway).await, (2 * count, 2 * count));
    }
    // What is refused before a model is found calls nobody.
    gateway.ask("nobody").await.refused(404, "model_not_found");
    assert_eq!(calls(&gateway).await, (6, 6));
    let plugins = gateway.plugins().await;
    for plugin in plugins["plugins"].as_array().unwrap() {
        let (source, state) = match fresh_plugins() {
            Some(_) => (format!("plugins.d/{}.wasm", plugin["id"].as_str().unwrap()), "probation"),
            None => ("built-in".to_owned(), "active"),
        };
        assert_eq!((&plugin["source"], &plugin["state"]), (&json!(source), &json!(state)), "{plugin:#}");
        assert_eq!(plugin["faults"], json!({}), "{plugin:#}");
        assert_eq!(plugin["digest"].as_str().unwrap().len(), 64, "{plugin:#}");
    }
    pages(&gateway).await;
}

async fn whole(gateway: &Gateway) {
    let answer = gateway.ask("echo").await;
    assert_eq!(answer.content(), "one two three");
    assert_eq!(answer.header("content-type"), "application/json");
    assert!(!answer.header("x-request-id").is_empty(), "{answer:?}");
    let completion = answer.json();
    assert_eq!((&completion["object"], &completion["model"]), (&json!("chat.completion"), &json!("echo")));
    assert_eq!(completion["choices"][0]["finish_reason"], "stop");
    assert_eq!(completion["usage"], json!({"prompt_tokens": 3, "completion_tokens": 3, "total_tokens": 6}));
}

async fn streamed(gateway: &Gateway) {
    let mut question = question("echo", true);
    question["stream_options"] = json!({"include_usage": true});
    let answer = gateway.chat(question.to_string()).await;
    assert_eq!((answer.status.as_u16(), answer.header("content-type")), (200, "text/event-stream"));
    let mut events = answer.events();
    assert_eq!(events.pop().as_deref(), Some("[DONE]"));
    let chunks: Vec<Value> = events.iter().map(|event| event.parse().unwrap()).collect();
    let words: Vec<&str> = chunks
        .iter()
        .filter_map(|chunk| chunk["choices"][0]["delta"]["content"].as_str())
        .filter(|text| !text.is_empty())
        .collect();
    assert_eq!(words, ["one", " two", " three"], "a word an event");
    let usage = &chunks.last().unwrap()["usage"];
    assert_eq!(*usage, json!({"prompt_tokens": 3, "completion_tokens": 3, "total_tokens": 6}));
}

async fn pages(gateway: &Gateway) {
    for path in ["/health", "/ready"] {
        let answer = gateway.get(path).await;
        assert_eq!(answer.status, 200, "{answer:?}");
        assert!(!answer.header("x-request-id").is_empty(), "{answer:?}");
    }
    let models = gateway.get("/v1/models").await.json();
    assert_eq!(models["object"], "list");
    assert_eq!(models["data"][0]["id"], "echo");
    assert_eq!(gateway.get("/v1/models/echo").await.json()["id"], "echo");
    gateway.get("/v1/models/nobody").await.refused(404, "model_not_found");
}

/// Ids of requests are the client's means to ask about one: no two are the same.
#[tokio::test]
async fn a_limit_cuts_and_ids_differ() {
    let gateway = Gateway::start(ECHO, &Options::default());
    let mut question = question("echo", false);
    question["max_tokens"] = json!(2);
    let (one, two) = (gateway.chat(question.to_string()).await, gateway.chat(question.to_string()).await);
    assert_eq!(one.content(), "one two");
    assert_eq!(one.json()["choices"][0]["finish_reason"], "length");
    assert_ne!(one.header("x-request-id"), two.header("x-request-id"));
    assert_ne!(one.json()["id"], two.json()["id"]);
    // What a guest read and what it says about it is the client's fault, not its own.
    question["messages"] = json!("hello");
    let message = gateway.chat(question.to_string()).await.refused(400, "unsupported_request");
    assert!(message.contains("messages"), "{message}");
    let twice = r#"{"model":"echo","messages":[],"messages":[{"role":"user","content":"x"}]}"#;
    let message = gateway.chat(twice).await.refused(400, "duplicate_member");
    assert!(message.contains("messages"), "{message}");
    assert_eq!(gateway.counters("echo").await.all_faults(), []);
}
