//! The Anthropic wire over a socket: answers, events, thoughts and refusals.

#![allow(clippy::unwrap_used, reason = "a test fails by it")]

mod common;

use common::{Answer, ask_message, exchange, message, only_row, post_message, request, scripted};
use serde_json::{Value, json};
use sluice_simulate::{Billed, Outcome, Simulator};

/// The message that a stream comes to, by the rules of the vendor's clients.
fn assembled(answer: &Answer) -> Value {
    let events = answer.json_events();
    let mut message = events[0]["message"].clone();
    let mut arguments = String::new();
    for event in &events[1..] {
        let index = event["index"].as_u64().unwrap_or_default() as usize;
        let append = |text: &mut Value, more: &Value| {
            *text = json!(format!("{}{}", text.as_str().unwrap(), more.as_str().unwrap()));
        };
        let delta = &event["delta"];
        match (event["type"].as_str().unwrap(), delta["type"].as_str()) {
            ("content_block_start", _) => {
                let blocks = message["content"].as_array_mut().unwrap();
                assert_eq!(blocks.len(), index);
                blocks.push(event["content_block"].clone());
            }
            ("content_block_delta", Some("input_json_delta")) => {
                arguments += delta["partial_json"].as_str().unwrap();
            }
            ("content_block_delta", Some(kind)) => {
                let name = kind.strip_suffix("_delta").unwrap();
                append(&mut message["content"][index][name], &delta[name]);
            }
            ("content_block_stop", _) if !arguments.is_empty() => {
                message["content"][index]["input"] = arguments.parse().unwrap();
                arguments.clear();
            }
            ("message_delta", _) => {
                message["stop_reason"] = delta["stop_reason"].clone();
                message["stop_sequence"] = delta["stop_sequence"].clone();
                message["usage"] = event["usage"].clone();
            }
            ("ping" | "content_block_stop" | "message_stop", _) => (),
            other => panic!("{other:?}"),
        }
    }
    message
}

/// A whole message but for what differs from a streamed one.
fn plain(mut message: Value) -> Value {
    message["id"] = Value::Null;
    for block in message["content"].as_array_mut().unwrap() {
        let block = block.as_object_mut().unwrap();
        block.remove("citations");
        block.remove("id");
    }
    message
}

async fn both(simulator: &Simulator, mut body: Value) -> Value {
    body["stream"] = json!(false);
    let whole = ask_message(simulator, &body).await;
    assert_eq!(whole.status, 200, "{}", String::from_utf8_lossy(&whole.body()));
    body["stream"] = json!(true);
    let streamed = ask_message(simulator, &body).await;
    let whole = plain(whole.json());
    assert_eq!(plain(assembled(&streamed)), whole);
    let rows = simulator.books().rows;
    let [.., first, second] = &rows[..] else { panic!("{rows:?}") };
    assert_eq!((first.billed, first.outcome), (second.billed, Some(Outcome::Complete)));
    assert_eq!(whole["usage"]["output_tokens"], second.billed.completion_tokens);
    whole
}

fn with_tool(mut body: Value, choice: Value) -> Value {
    let schema = json!({ "type": "object", "properties": { "city": { "type": "string" }, "days": { "type": "integer" } } });
    body["tools"] = json!([{ "name": "weather", "input_schema": schema }]);
    body["tool_choice"] = choice;
    body
}

#[tokio::test]
async fn a_text_is_said_whole_and_streamed_in_the_documented_order() {
    let simulator = scripted(json!({})).await;
    let whole = both(&simulator, message(false)).await;
    assert_eq!(whole["content"], json!([{ "type": "text", "text": "You said: grüß Gott" }]));
    assert_eq!((&whole["role"], &whole["stop_reason"]), (&json!("assistant"), &json!("end_turn")));
    assert_eq!((&whole["usage"]["input_tokens"], &whole["usage"]["output_tokens"]), (&json!(2), &json!(4)));
    let answer = ask_message(&simulator, &message(true)).await;
    assert!(answer.head.contains("text/event-stream") && answer.head.contains("\r\nrequest-id: req_"));
    let events = answer.json_events();
    let kinds: Vec<_> = events.iter().map(|event| event["type"].as_str().unwrap()).collect();
    let [start, ping, open, deltas @ .., close, delta, stop] = &kinds[..] else { panic!("{kinds:?}") };
    assert_eq!([*start, *ping, *open], ["message_start", "ping", "content_block_start"]);
    assert_eq!([*close, *delta, *stop], ["content_block_stop", "message_delta", "message_stop"]);
    assert_eq!(deltas, ["content_block_delta"; 4]);
    assert_eq!(events[0]["message"]["usage"]["input_tokens"], 2);
}

#[tokio::test]
async fn limits_and_stop_sequences_end_an_answer() {
    let simulator = scripted(json!({ "reply": "one two END three" })).await;
    let mut request = message(false);
    request["max_tokens"] = json!(2);
    let cut = both(&simulator, request.clone()).await;
    assert_eq!((&cut["content"][0]["text"], &cut["stop_reason"]), (&json!("one two"), &json!("max_tokens")));
    request["max_tokens"] = json!(9);
    request["stop_sequences"] = json!(["three", "END"]);
    let stopped = both(&simulator, request).await;
    assert_eq!(
        (&stopped["content"][0]["text"], &stopped["stop_sequence"]),
        (&json!("one two "), &json!("END"))
    );
    assert_eq!(stopped["stop_reason"], "stop_sequence");
}

#[tokio::test]
async fn tools_are_called_at_once_and_their_arguments_come_in_pieces() {
    let simulator = scripted(json!({ "parallel_calls": 3 })).await;
    let request = with_tool(message(true), json!({ "type": "any" }));
    let called = both(&simulator, request.clone()).await;
    let input = json!({ "city": "grüß Gott", "days": 1 });
    let call = json!({ "type": "tool_use", "name": "weather", "input": input });
    assert_eq!(
        (&called["content"], &called["stop_reason"]),
        (&json!([call, call, call]), &json!("tool_use"))
    );
    let answer = ask_message(&simulator, &request).await;
    let text = String::from_utf8(answer.body()).unwrap();
    assert!(text.matches("input_json_delta").count() >= 3 * 4, "{text}");
    let ids: std::collections::BTreeSet<_> = answer
        .json_events()
        .iter()
        .filter_map(|event| event["content_block"]["id"].as_str().map(str::to_owned))
        .collect();
    assert_eq!(ids.len(), 3);
    let one = with_tool(
        message(true),
        json!({ "type": "tool", "name": "weather", "disable_parallel_tool_use": true }),
    );
    assert_eq!(both(&simulator, one).await["content"].as_array().unwrap().len(), 1);
    let auto = both(&simulator, with_tool(message(true), json!({ "type": "auto" }))).await;
    assert_eq!(auto["content"][0]["type"], "text");
}

#[tokio::test]
async fn thoughts_come_first_and_go_back_with_their_signature() {
    let simulator = scripted(json!({ "thinking": "Hm, so be it.", "calls": true })).await;
    let mut request = with_tool(message(false), json!({ "type": "auto" }));
    request["thinking"] = json!({ "type": "enabled", "budget_tokens": 1024 });
    both(&simulator, request.clone()).await;
    let said = ask_message(&simulator, &request).await.json()["content"].clone();
    assert_eq!((&said[0]["thinking"], &said[1]["type"]), (&json!("Hm, so be it."), &json!("tool_use")));
    let result = json!({ "type": "tool_result", "tool_use_id": said[1]["id"], "content": "rain" });
    let messages = request["messages"].as_array_mut().unwrap();
    messages.push(json!({ "role": "assistant", "content": said }));
    messages.push(json!({ "role": "user", "content": [result] }));
    let answer = ask_message(&simulator, &request).await;
    assert_eq!((answer.status, &answer.json()["content"][1]["text"]), (200, &json!("You said: grüß Gott")));
    request["messages"][1]["content"][0]["thinking"] = json!("Hm, so be it!");
    let refused = ask_message(&simulator, &request).await;
    assert_eq!(refused.status, 400);
    assert!(refused.json()["error"]["message"].as_str().unwrap().contains("signature"));
    let mut unscripted = message(false);
    unscripted["thinking"] = request["thinking"].clone();
    simulator.direct("a", serde_json::from_value(json!({})).unwrap());
    assert_eq!(both(&simulator, unscripted).await["content"][0]["thinking"], "Let me think.");
}

#[tokio::test]
async fn images_count_and_scripted_usage_is_told_and_billed() {
    let usage = json!({ "cached_input": 100, "cache_write": 10, "reasoning": 5 });
    let simulator = scripted(json!({ "usage": usage })).await;
    let mut request = message(false);
    let image =
        json!({ "type": "image", "source": { "type": "base64", "media_type": "image/png", "data": "AAAA" } });
    request["messages"][0]["content"] = json!([image, { "type": "text", "text": "grüß Gott" }]);
    let answer = ask_message(&simulator, &request).await.json();
    let told = &answer["usage"];
    assert_eq!((&told["input_tokens"], &told["output_tokens"]), (&json!(87), &json!(9)));
    assert_eq!(
        (&told["cache_read_input_tokens"], &told["cache_creation_input_tokens"]),
        (&json!(100), &json!(10))
    );
    assert_eq!(told["output_tokens_details"]["thinking_tokens"], 5);
    assert_eq!(answer["content"][0]["text"], "You said: grüß Gott");
    let row = only_row(&simulator).await;
    assert_eq!(row.billed, Billed { prompt_tokens: 197, completion_tokens: 9 });
    assert_eq!(row.body, request.to_string());
}

#[tokio::test]
async fn keys_versions_models_and_paths_are_refused_in_the_envelope() {
    let simulator = scripted(json!({ "key": "k", "models": ["m"] })).await;
    let good = post_message(&message(false).to_string());
    let unknown_model = good.replace(r#""model":"m""#, r#""model":"x""#);
    let cases = [
        (good.replace("x-api-key: k", "authorization: Bearer k"), 401, "authentication_error"),
        (good.replace("x-api-key: k", "x-api-key: wrong"), 401, "authentication_error"),
        (good.replace("anthropic-version", "anthropic-beta"), 400, "invalid_request_error"),
        (post_message("{"), 400, "invalid_request_error"),
        (post_message("{}"), 400, "invalid_request_error"),
        (unknown_model, 404, "not_found_error"),
        (good.replace("POST", "PUT"), 405, "invalid_request_error"),
        (good.replace("/v1/messages", "/v1/complete"), 404, "not_found_error"),
    ];
    for (sent, status, kind) in &cases {
        let answer = exchange(simulator.address(), sent).await;
        let body = answer.json();
        assert_eq!((answer.status, &body["error"]["type"]), (*status, &json!(kind)), "{sent}");
        assert!(body["type"] == "error" && body["error"]["message"].is_string(), "{body}");
        let id = body["request_id"].as_str().unwrap();
        assert!(answer.head.contains(&format!("\r\nrequest-id: {id}")), "{}", answer.head);
    }
    let bearer = scripted(json!({ "key": "k", "bearer": true })).await;
    assert_eq!(exchange(bearer.address(), &cases[0].0).await.status, 200);
}

#[tokio::test]
async fn a_scripted_status_has_the_type_that_belongs_to_it() {
    let types = [
        (400, "invalid_request_error"),
        (401, "authentication_error"),
        (403, "permission_error"),
        (404, "not_found_error"),
        (413, "request_too_large"),
        (429, "rate_limit_error"),
        (500, "api_error"),
        (529, "overloaded_error"),
    ];
    let faults: Vec<_> =
        types.iter().map(|(status, _)| json!({ "kind": "status", "status": status })).collect();
    let simulator = scripted(json!({ "faults": faults })).await;
    for (status, kind) in types {
        let answer = ask_message(&simulator, &message(true)).await;
        assert_eq!((answer.status, &answer.json()["error"]["type"]), (status, &json!(kind)));
    }
}

#[tokio::test]
async fn models_are_listed_as_the_vendor_lists_them() {
    let simulator = scripted(json!({ "models": ["x", "y"] })).await;
    let headers = "x-api-key: k\r\nanthropic-version: 2023-06-01";
    let get = request("GET", "/a/v1/models", "").replace("authorization: Bearer k", headers);
    let list = exchange(simulator.address(), &get).await.json();
    assert_eq!((&list["data"][1]["id"], &list["data"][1]["type"]), (&json!("y"), &json!("model")));
    assert_eq!((&list["first_id"], &list["has_more"]), (&json!("x"), &json!(false)));
}
