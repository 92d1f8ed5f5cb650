//! Streams reach the client as the vendor writes them, however they are cut.

#![allow(clippy::unwrap_used, reason = "a test fails by it")]

use serde_json::{Value, json};
use sluice_simulate::{Goal, Outcome, Simulator};
use sluice_tests::gateway::{PATIENCE, client};
use sluice_tests::{Answer, Gateway, Options};

/// Texts whose characters have one to four bytes, and one that ends inside a cluster.
const TEXT: &str = "gr\u{fc}\u{df} \u{65e5}\u{672c}\u{8a9e} \u{1f389}\u{1f468}\u{200d}\u{1f469} data: x\n\ndata: [DONE]\r\n e\u{301}";

async fn start() -> (Simulator, Gateway) {
    let simulator = Simulator::start("127.0.0.1:0").await.unwrap();
    let gateway = Gateway::start(&config(&simulator), &Options::with(&[("KEY", "k")]));
    (simulator, gateway)
}

fn config(simulator: &Simulator) -> String {
    let url = simulator.base_url("a");
    format!(
        "[server]\nlisten = \"127.0.0.1:0\"\n[upstreams.a]\nadapter = \"openai\"\nbase_url = \"{url}\"\nsecrets = {{ api-key = \"env:KEY\" }}\n\
         [[models]]\nname = \"m\"\nretries = 0\ntargets = [{{ upstream = \"a\" }}]\n"
    )
}

fn body(stream: bool) -> String {
    let mut body = json!({"model": "m", "stream": stream, "messages": [{"role": "user", "content": TEXT}]});
    if stream {
        body["stream_options"] = json!({"include_usage": true});
    }
    body.to_string()
}

/// Asks a stand-in directly, as the gateway would.
async fn direct(simulator: &Simulator, body: String) -> Answer {
    let url = format!("{}/chat/completions", simulator.base_url("a"));
    let request = client(|builder| builder).post(url).header("authorization", "Bearer k").body(body);
    sluice_tests::gateway::send(request).await
}

/// The bytes without the second in which they were made.
fn timeless(answer: &Answer) -> String {
    let text = answer.text();
    let Some(at) = text.find("\"created\":") else { panic!("no time in {text}") };
    let digits = |text: &str| {
        text.chars().skip_while(|c| !c.is_ascii_digit()).take_while(char::is_ascii_digit).collect::<String>()
    };
    text.replace(&digits(&text[at..]), "0")
}

fn styles() -> Vec<Value> {
    let mut styles = Vec::new();
    for newline in ["lf", "crlf", "cr"] {
        for (comments, multi_line_data) in [(false, false), (true, false), (false, true), (true, true)] {
            styles
                .push(json!({"newline": newline, "comments": comments, "multi_line_data": multi_line_data}));
        }
    }
    styles
}

#[tokio::test]
async fn a_stream_split_at_every_byte_arrives_as_it_was_sent() {
    let (behind, gateway) = start().await;
    // The same requests in the same order, so the same ids.
    let beside = Simulator::start("127.0.0.1:0").await.unwrap();
    for style in styles() {
        for split in [None, Some(1), Some(7)] {
            let mut style = style.clone();
            style["chunk_bytes"] = json!(split);
            let script = json!({"sse": style});
            for simulator in [&behind, &beside] {
                simulator.direct("a", serde_json::from_value(script.clone()).unwrap());
            }
            let (through, straight) = (gateway.chat(body(true)).await, direct(&beside, body(true)).await);
            assert_eq!(through.status, 200, "{script}");
            assert_eq!(timeless(&through), timeless(&straight), "{script}");
            assert_eq!(through.header("content-type"), straight.header("content-type"), "{script}");
        }
    }
    let rows = behind.books_when(Goal::Finished(36)).await.rows;
    assert!(rows.iter().all(|row| row.outcome == Some(Outcome::Complete)), "all were read to their ends");
}

#[tokio::test]
async fn an_answer_that_is_not_streamed_arrives_as_it_was_sent() {
    let (behind, gateway) = start().await;
    let beside = Simulator::start("127.0.0.1:0").await.unwrap();
    for split in [None, Some(1)] {
        let faults = split.map(|bytes| json!({"kind": "split", "bytes": bytes}));
        let script = json!({"faults": faults.as_slice()});
        for simulator in [&behind, &beside] {
            simulator.direct("a", serde_json::from_value(script.clone()).unwrap());
        }
        let (through, straight) = (gateway.chat(body(false)).await, direct(&beside, body(false)).await);
        assert_eq!(timeless(&through), timeless(&straight), "{script}");
        assert_eq!(through.content(), format!("You said: {TEXT}"));
    }
}

/// What the vendor has said is with the client while the vendor still thinks; a client that
/// leaves then is gone for the vendor too.
#[tokio::test]
async fn events_pass_at_once_and_a_client_that_leaves_is_gone() {
    let (simulator, gateway) = start().await;
    let hang = json!({"faults": [{"kind": "hang", "at": "body", "events": 3}]});
    simulator.direct("a", serde_json::from_value(hang).unwrap());
    let seen = async {
        let mut response = gateway.chat_request(body(true)).send().await.unwrap();
        let mut seen = String::new();
        while seen.matches("data: ").count() < 3 {
            seen += std::str::from_utf8(&response.chunk().await.unwrap().unwrap()).unwrap();
        }
        seen
    };
    let seen = tokio::time::timeout(PATIENCE, seen).await.expect("events wait for the end of the answer");
    assert!(seen.contains("You"), "{seen}");
    let books = tokio::time::timeout(PATIENCE, simulator.books_when(Goal::Finished(1))).await;
    let books = books.expect("the vendor is not told that the client left");
    assert_eq!(books.totals.complete, 0, "{books:?}");
}

/// A stream that breaks off must not look like one that ended.
#[tokio::test]
async fn a_stream_that_breaks_off_does_not_look_whole() {
    let (simulator, gateway) = start().await;
    for stream in [true, false] {
        let reset = json!({"faults": [{"kind": "reset", "at": "body", "events": 3}]});
        simulator.direct("a", serde_json::from_value(reset).unwrap());
        let response = gateway.chat_request(body(stream)).send().await.unwrap();
        // Not streamed, the answer may be lost before its head was read: then the refusal says so.
        assert!(response.status() == 200 || (!stream && response.status() == 502), "{response:?}");
        let whole = Answer::read(response).await.ok();
        assert!(whole.is_none_or(|answer| answer.text().contains("\"error\"")), "stream: {stream}");
    }
    // The control, and that the gateway is none the worse for it.
    assert!(gateway.chat(body(true)).await.text().contains("[DONE]"));
}
