//! The control API, over the wire as tests in other languages use it.

#![allow(clippy::unwrap_used, reason = "a test fails by it")]

mod common;

use common::{ask, chat, exchange, request, scripted};
use serde_json::{Value, json};

#[tokio::test]
async fn a_script_is_put_obeyed_and_reset() {
    let simulator = scripted(json!({})).await;
    let path = "/_simulate/vendors/a";
    let script = json!({ "reply": "put", "faults": [{ "kind": "status", "status": 500, "times": 0 }] });
    let put = exchange(simulator.address(), &request("PUT", path, &script.to_string())).await;
    assert_eq!(put.status, 204);
    for _ in 0..3 {
        assert_eq!(ask(&simulator, &chat(false)).await.status, 500);
    }
    assert_eq!(exchange(simulator.address(), &request("DELETE", path, "")).await.status, 204);
    let answer = ask(&simulator, &chat(false)).await.json();
    assert_eq!(answer["choices"][0]["message"]["content"], "You said: grüß Gott");
}

#[tokio::test]
async fn the_books_are_shown_by_vendor_and_cleared() {
    let simulator = scripted(json!({})).await;
    ask(&simulator, &chat(true)).await;
    exchange(simulator.address(), &request("GET", "/b/v1/models", "")).await;
    let get = |query: &str| request("GET", &format!("/_simulate/books{query}"), "");
    let all = exchange(simulator.address(), &get("?finished=2")).await.json();
    assert_eq!((all["totals"]["requests"].as_u64(), all["rows"].as_array().unwrap().len()), (Some(2), 2));
    assert_eq!(all["connections"]["accepted"], 2);
    let one = exchange(simulator.address(), &get("?vendor=a&finished=1")).await.json();
    let [row] = &one["rows"].as_array().unwrap()[..] else { panic!("{one}") };
    assert_eq!(
        (&row["outcome"], &row["status"], &row["stream"]),
        (&json!("complete"), &json!(200), &json!(true))
    );
    assert_eq!(row["body_text"].as_str().unwrap().parse::<Value>().unwrap(), chat(true));
    assert!(row["body_base64"].as_str().unwrap().len() >= chat(true).to_string().len());
    assert_eq!(row["headers"][0], json!(["host", "x"]));
    assert_eq!(exchange(simulator.address(), &request("DELETE", "/_simulate/books", "")).await.status, 204);
    let none = exchange(simulator.address(), &get("")).await.json();
    assert_eq!((&none["rows"], &none["totals"]["requests"]), (&json!([]), &json!(0)));
}

#[tokio::test]
async fn what_is_not_understood_is_refused_by_name() {
    let simulator = scripted(json!({})).await;
    let cases = [
        ("PUT", "/_simulate/vendors/a", r#"{"keey": "x"}"#, 400, "keey"),
        ("PUT", "/_simulate/vendors/a", r#"{"sse": {"chunks": 1}}"#, 400, "chunks"),
        ("PUT", "/_simulate/vendors/a", r#"{"faults": [{"kind": "delay", "ms": 1, "mss": 1}]}"#, 400, "mss"),
        ("PUT", "/_simulate/vendors/a", "{", 400, "EOF"),
        ("PUT", "/_simulate/vendors/a/b", "{}", 400, "a/b"),
        ("GET", "/_simulate/books?vendr=a", "", 400, "vendr"),
        ("GET", "/_simulate/books?finished=x", "", 400, "finished"),
        ("POST", "/_simulate/books", "", 404, "POST"),
    ];
    for (method, path, body, status, named) in cases {
        let answer = exchange(simulator.address(), &request(method, path, body)).await;
        assert_eq!(answer.status, status, "{method} {path} {body}");
        let message = answer.json()["error"].as_str().unwrap().to_owned();
        assert!(message.contains(named), "{message}");
    }
}
