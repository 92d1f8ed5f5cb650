//! The OpenAI wire, and the books beside it: what was sent is what is written.

#![allow(clippy::unwrap_used, reason = "a test fails by it")]

mod common;

use bytes::Bytes;
use common::{Answer, ask, chat, exchange, only_row, post, request, scripted, soon};
use http_body_util::{BodyExt, Full};
use hyper_util::rt::{TokioExecutor, TokioIo};
use serde_json::{Value, json};
use sluice_simulate::{Billed, Goal, Outcome, Simulator};
use tokio::net::TcpStream;

/// The content of a plain stream, joined.
fn content(answer: &Answer) -> String {
    let deltas = answer.events().into_iter().filter_map(|data| {
        let chunk: Value = data.parse().ok()?;
        chunk["choices"][0]["delta"]["content"].as_str().map(str::to_owned)
    });
    deltas.collect()
}

#[tokio::test]
async fn the_books_have_the_request_byte_by_byte() {
    let simulator = scripted(json!({})).await;
    let body = format!(" {}\r\n", chat(false));
    let sent = format!(
        "POST /a/v1/chat/completions?x=1&y HTTP/1.1\r\nHost: x\r\nX-Two: 2\r\nAuthorization: Bearer k\r\nx-one: \u{fc}\r\nconnection: close\r\ncontent-length: {}\r\n\r\n{body}",
        body.len()
    );
    let answer = exchange(simulator.address(), &sent).await;
    assert_eq!(answer.status, 200);
    let row = only_row(&simulator).await;
    assert_eq!((row.vendor.as_str(), row.method.as_str(), row.version.as_str()), ("a", "POST", "HTTP/1.1"));
    assert_eq!((row.path.as_str(), row.query.as_deref()), ("/a/v1/chat/completions", Some("x=1&y")));
    let names: Vec<_> = row.headers.iter().map(|(name, _)| name.as_str()).collect();
    assert_eq!(names, ["host", "x-two", "authorization", "x-one", "connection", "content-length"]);
    assert_eq!(row.headers[3].1, "\u{fc}");
    assert_eq!(row.body, body);
    assert_eq!((row.status, row.model.as_deref(), row.stream), (Some(200), Some("m"), Some(false)));
    assert_eq!(row.bytes_sent, answer.body().len() as u64);
    assert_eq!(row.billed, Billed { prompt_tokens: 2, completion_tokens: 4 });
    assert_eq!((row.outcome, row.fault), (Some(Outcome::Complete), None));
}

#[tokio::test]
async fn a_whole_answer_has_what_the_sdk_reads() {
    let simulator = scripted(json!({})).await;
    let answer = ask(&simulator, &chat(false)).await.json();
    assert!(answer["id"].as_str().unwrap().starts_with("chatcmpl-"));
    assert_eq!(answer["object"], "chat.completion");
    assert!(answer["created"].as_u64().unwrap() > 1_700_000_000);
    assert_eq!((&answer["model"], &answer["system_fingerprint"]), (&json!("m"), &json!("fp_a")));
    assert_eq!(answer["choices"][0]["message"]["content"], "You said: grüß Gott");
    assert_eq!(answer["choices"][0]["finish_reason"], "stop");
    assert_eq!(answer["usage"]["total_tokens"], 6);
}

#[tokio::test]
async fn a_stream_says_the_same_and_ends_with_usage_and_done() {
    let simulator = scripted(json!({})).await;
    let mut request = chat(true);
    request["stream_options"] = json!({ "include_usage": true });
    let answer = ask(&simulator, &request).await;
    assert!(answer.head.contains("content-type: text/event-stream"));
    assert_eq!(content(&answer), "You said: grüß Gott");
    let events = answer.events();
    let [.., usage, done] = &events[..] else { panic!("{events:?}") };
    let usage: Value = usage.parse().unwrap();
    assert_eq!((&usage["choices"], done.as_str()), (&json!([]), "[DONE]"));
    let row = only_row(&simulator).await;
    assert_eq!(usage["usage"]["prompt_tokens"], row.billed.prompt_tokens);
    assert_eq!(usage["usage"]["completion_tokens"], row.billed.completion_tokens);
    assert_eq!(row.billed.completion_tokens, 4);
    assert_eq!(row.bytes_sent, answer.body().len() as u64);
}

#[tokio::test]
async fn choices_and_limits_count_in_the_bill() {
    for stream in [false, true] {
        let simulator = scripted(json!({ "reply": "one two three" })).await;
        let mut request = chat(stream);
        request["n"] = json!(3);
        request["max_completion_tokens"] = json!(2);
        let answer = ask(&simulator, &request).await;
        let text = String::from_utf8(answer.body()).unwrap();
        assert_eq!(text.matches(r#""finish_reason":"length""#).count(), 3);
        let row = only_row(&simulator).await;
        assert_eq!(row.billed, Billed { prompt_tokens: 2, completion_tokens: 6 }, "stream {stream}");
    }
}

#[tokio::test]
async fn a_forced_tool_is_called_whole_and_streamed() {
    let simulator = scripted(json!({})).await;
    let mut request = chat(false);
    let parameters = json!({ "type": "object", "properties": { "city": { "type": "string" }, "days": { "type": "integer" } } });
    request["tools"] =
        json!([{ "type": "function", "function": { "name": "weather", "parameters": parameters } }]);
    request["tool_choice"] = json!({ "type": "function", "function": { "name": "weather" } });
    let answer = ask(&simulator, &request).await.json();
    let call = &answer["choices"][0]["message"]["tool_calls"][0]["function"];
    let arguments: Value = call["arguments"].as_str().unwrap().parse().unwrap();
    assert_eq!((&call["name"], &arguments), (&json!("weather"), &json!({ "city": "grüß Gott", "days": 1 })));
    request["stream"] = json!(true);
    let streamed: String = ask(&simulator, &request)
        .await
        .events()
        .iter()
        .filter_map(|data| data.parse::<Value>().ok())
        .filter_map(|chunk| {
            let call = &chunk["choices"][0]["delta"]["tool_calls"][0];
            call["function"]["arguments"].as_str().map(str::to_owned)
        })
        .collect();
    assert_eq!(streamed.parse::<Value>().unwrap(), arguments);
}

#[tokio::test]
async fn every_style_of_stream_has_the_same_bytes_however_cut() {
    for newline in ["lf", "crlf", "cr"] {
        for comments in [false, true] {
            let mut style = json!({ "newline": newline, "comments": comments, "multi_line_data": true });
            let simulator = scripted(json!({ "sse": style })).await;
            let whole = ask(&simulator, &chat(true)).await;
            style["chunk_bytes"] = json!(3);
            simulator.direct("a", serde_json::from_value(json!({ "sse": style })).unwrap());
            let cut = ask(&simulator, &chat(true)).await;
            assert!(cut.chunks.iter().rev().skip(1).all(|chunk| chunk.len() == 3));
            let without_id = |answer: &Answer| {
                let text = String::from_utf8(answer.body()).unwrap();
                let lines =
                    text.lines().filter(|line| !line.contains("\"id\"") && !line.contains("\"created\""));
                lines.map(str::to_owned).collect::<Vec<_>>()
            };
            assert_eq!(without_id(&cut), without_id(&whole), "{style}");
        }
    }
}

#[tokio::test]
async fn keys_models_and_paths_are_refused_in_the_envelope() {
    let simulator = scripted(json!({ "key": "k", "models": ["m"] })).await;
    let good = chat(false);
    let unknown_model = json!({ "model": "x", "messages": good["messages"] }).to_string();
    let cases = [
        (post(&good.to_string()).replace("authorization", "x-nothing"), 401, Value::Null),
        (post(&good.to_string()).replace("Bearer k", "Bearer "), 401, Value::Null),
        (post(&good.to_string()).replace("Bearer k", "Bearer wrong"), 401, json!("invalid_api_key")),
        (post("{"), 400, Value::Null),
        (post(&unknown_model), 404, json!("model_not_found")),
        (request("GET", "/a/v1/chat/completions", ""), 405, json!("method_not_supported")),
        (request("POST", "/a/v1/embeddings", "{}"), 404, json!("unknown_url")),
        (request("GET", "/", ""), 404, json!("unknown_url")),
    ];
    for (sent, status, code) in &cases {
        let answer = exchange(simulator.address(), sent).await;
        assert_eq!(answer.status, *status, "{sent}");
        let error = &answer.json()["error"];
        assert_eq!(error["code"], *code, "{sent}");
        assert!(error["message"].is_string() && error["type"].is_string(), "{error}");
    }
    let books = soon(simulator.books_when(Goal::Finished(cases.len()))).await;
    assert_eq!(books.totals.complete, cases.len() as u64);
    assert_eq!((books.totals.prompt_tokens, books.totals.completion_tokens), (0, 0));
}

#[tokio::test]
async fn models_are_listed() {
    let simulator = scripted(json!({ "models": ["x", "y"] })).await;
    for (path, models) in [("/a/v1/models", ["x", "y"]), ("/v1/models", ["gpt-4o", "gpt-4o-mini"])] {
        let list = exchange(simulator.address(), &request("GET", path, "")).await.json();
        let ids: Vec<_> = list["data"].as_array().unwrap().iter().map(|model| &model["id"]).collect();
        assert_eq!(ids, models);
    }
    let vendors: Vec<_> = simulator.books().rows.into_iter().map(|row| row.vendor).collect();
    assert_eq!(vendors, ["a", "default"]);
}

#[tokio::test]
async fn cleartext_http2_is_spoken_on_the_same_port() {
    let simulator = scripted(json!({})).await;
    let stream = TcpStream::connect(simulator.address()).await.unwrap();
    let handshake = hyper::client::conn::http2::handshake(TokioExecutor::new(), TokioIo::new(stream));
    let (mut sender, connection) = handshake.await.unwrap();
    let connection = tokio::spawn(connection);
    for _ in 0..2 {
        let request = http::Request::post(format!("{}/chat/completions", simulator.base_url("a")))
            .header("authorization", "Bearer k")
            .body(Full::new(Bytes::from(chat(true).to_string())))
            .unwrap();
        let response = soon(sender.send_request(request)).await.unwrap();
        let body = soon(response.into_body().collect()).await.unwrap().to_bytes();
        assert!(body.ends_with(b"data: [DONE]\n\n"));
    }
    drop(sender);
    soon(connection).await.unwrap().unwrap();
    let books = soon(simulator.books_when(Goal::Finished(2))).await;
    assert!(books.rows.iter().all(|row| row.version == "HTTP/2.0" && row.outcome == Some(Outcome::Complete)));
    assert_eq!((books.connections.accepted, books.rows[0].connection), (1, books.rows[1].connection));
}

#[tokio::test]
async fn two_stand_ins_share_nothing_and_dropping_one_closes_it() {
    let (one, two) = (scripted(json!({})).await, Simulator::start("127.0.0.1:0").await.unwrap());
    ask(&one, &chat(false)).await;
    assert_eq!((one.books().rows.len(), two.books().rows.len()), (1, 0));
    let mut idle = TcpStream::connect(two.address()).await.unwrap();
    drop(two);
    let mut nothing = Vec::new();
    // Closed, or reset if it was still in the queue; either way it is over.
    let _ = soon(tokio::io::AsyncReadExt::read_to_end(&mut idle, &mut nothing)).await;
    assert!(nothing.is_empty());
}

#[tokio::test]
async fn parallel_calls_are_told_apart_whole_and_streamed() {
    let simulator = scripted(json!({ "parallel_calls": 3, "calls": true })).await;
    let mut request = chat(false);
    let tool = |name: &str| json!({ "type": "function", "function": { "name": name, "parameters": { "properties": { "a": {} } } } });
    request["tools"] = json!([tool("x"), tool("y")]);
    let whole = ask(&simulator, &request).await.json();
    let calls = whole["choices"][0]["message"]["tool_calls"].as_array().unwrap().clone();
    let names: Vec<_> = calls.iter().map(|call| &call["function"]["name"]).collect();
    assert_eq!(names, ["x", "y", "x"]);
    assert_eq!(whole["choices"][0]["finish_reason"], "tool_calls");
    request["stream"] = json!(true);
    let streamed = ask(&simulator, &request).await;
    let mut arguments = vec![String::new(); 3];
    for chunk in streamed.json_events() {
        for call in chunk["choices"][0]["delta"]["tool_calls"].as_array().into_iter().flatten() {
            arguments[call["index"].as_u64().unwrap() as usize] +=
                call["function"]["arguments"].as_str().unwrap();
        }
    }
    let wanted: Vec<_> = calls.iter().map(|call| call["function"]["arguments"].as_str().unwrap()).collect();
    assert_eq!(arguments, wanted);
    request["parallel_tool_calls"] = json!(false);
    let one = String::from_utf8(ask(&simulator, &request).await.body()).unwrap();
    assert_eq!(one.matches(r#""id":"call_"#).count(), 1);
    let rows = simulator.books().rows;
    assert_eq!(rows[0].billed, rows[1].billed);
}

#[tokio::test]
async fn images_thoughts_and_scripted_usage_are_told_and_billed() {
    let usage = json!({ "cached_input": 100, "cache_write": 10, "reasoning": 5 });
    let simulator = scripted(json!({ "usage": usage, "thinking": "hm hm" })).await;
    for stream in [false, true] {
        let mut request = chat(stream);
        let image = json!({ "type": "image_url", "image_url": { "url": "data:image/png;base64,AAAA" } });
        request["messages"][0]["content"] = json!([{ "type": "text", "text": "grüß Gott" }, image]);
        if stream {
            request["stream_options"] = json!({ "include_usage": true });
        }
        let answer = ask(&simulator, &request).await;
        let told = if stream { answer.json_events().pop().unwrap() } else { answer.json() }["usage"].clone();
        assert_eq!((&told["prompt_tokens"], &told["completion_tokens"]), (&json!(197), &json!(11)));
        let cached = json!({ "cached_tokens": 100, "cache_write_tokens": 10 });
        assert_eq!(told["prompt_tokens_details"], cached);
        assert_eq!(told["completion_tokens_details"]["reasoning_tokens"], 7);
        assert!(String::from_utf8(answer.body()).unwrap().contains("reasoning_content"));
    }
    let rows = soon(simulator.books_when(Goal::Finished(2))).await.rows;
    let billed = Billed { prompt_tokens: 197, completion_tokens: 11 };
    assert_eq!([rows[0].billed, rows[1].billed], [billed; 2]);
}
