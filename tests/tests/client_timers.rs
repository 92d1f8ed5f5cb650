//! A client that takes its time holds a place for so long and no longer, and is told where it can be.

#![allow(clippy::unwrap_used, reason = "a test fails by it")]

use serde_json::Value;
use sluice_tests::Stage;
use sluice_tests::gateway::question;
use sluice_tests::stage::{Vendor, model};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

/// Each of them ends what another one would let go on for minutes.
async fn start(timers: &str) -> Stage {
    let server = format!("timeouts = {{ {timers} }}");
    Stage::start(&server, &[Vendor::openai("a", "")], &model("m", &["a"], "")).await
}

/// Says this on a new connection, and gives all that comes until it is closed.
async fn say(stage: &Stage, bytes: &[u8]) -> String {
    let mut socket = TcpStream::connect(stage.gateway.address()).await.unwrap();
    socket.write_all(bytes).await.unwrap();
    let mut said = Vec::new();
    // A reset is as good an end as any.
    let _ = socket.read_to_end(&mut said).await;
    String::from_utf8_lossy(&said).into_owned()
}

#[tokio::test]
async fn a_socket_that_says_nothing_or_never_ends_its_head_is_closed() {
    let stage = start("head = \"300ms\", upload = \"10m\", stalled_reader = \"10m\"").await;
    let silences: [&[u8]; 6] = [
        b"",
        b"P",
        b"PRI * HTTP/2.0\r\n",
        b"POST /v1/chat/completions HTTP/1.1\r\n",
        b"POST /v1/chat/completions HTTP/1.1\r\nhost: localhost\r\n",
        b"\r\n\r\n\r\n",
    ];
    for silence in silences {
        let said = say(&stage, silence).await;
        assert!(said.is_empty() || said.starts_with("HTTP/1.1 4"), "{said}");
    }
    // Between two requests too.
    let request = b"GET /health HTTP/1.1\r\nhost: localhost\r\n\r\n";
    let said = say(&stage, request).await;
    assert!(said.starts_with("HTTP/1.1 200"), "{said}");
    assert_eq!(said.matches("HTTP/1.1").count(), 1, "{said}");
    // The control: an answer may take longer than a head.
    stage.direct("a", serde_json::json!({"faults": [{"kind": "delay", "ms": 1000}]}));
    assert_eq!(stage.ask("m", false).await.status, 200);
}

#[tokio::test]
async fn a_head_that_drips_is_closed() {
    let stage = start("head = \"1s\", upload = \"10m\", stalled_reader = \"10m\"").await;
    let mut socket = TcpStream::connect(stage.gateway.address()).await.unwrap();
    socket.set_nodelay(true).unwrap();
    let (mut read, mut write) = socket.split();
    let drips = async {
        write.write_all(b"GET /health HTTP/1.1\r\nhost: localhost\r\n").await.unwrap();
        // Each byte comes well within the time, all of them never.
        let mut pace = tokio::time::interval(std::time::Duration::from_millis(100));
        while write.write_all(b"x: y\r\n").await.is_ok() {
            pace.tick().await;
        }
    };
    let mut said = Vec::new();
    tokio::select! {
        () = drips => {}
        _closed = read.read_to_end(&mut said) => {}
    }
    let said = String::from_utf8_lossy(&said);
    assert!(!said.contains("200 OK"), "{said}");
}

#[tokio::test]
async fn an_upload_that_stops_is_refused_by_name() {
    let stage = start("head = \"10m\", upload = \"300ms\", stalled_reader = \"10m\"").await;
    let body = question("m", false).to_string();
    let head = |length: usize| {
        format!(
            "POST /v1/chat/completions HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\ncontent-length: {length}\r\n\r\n"
        )
    };
    let said = say(&stage, (head(body.len() + 1) + &body).as_bytes()).await;
    assert!(said.starts_with("HTTP/1.1 408 "), "{said}");
    let envelope: Value = serde_json::from_str(said.rsplit("\r\n\r\n").next().unwrap()).unwrap();
    assert_eq!(envelope["error"]["code"], "timeout_upload", "{said}");
    let message = envelope["error"]["message"].as_str().unwrap();
    assert!(message.contains("server.timeouts.upload"), "{message}");
    assert_eq!(stage.seen("a"), 0);
    // The control.
    let said = say(&stage, (head(body.len()) + &body).as_bytes()).await;
    assert!(said.starts_with("HTTP/1.1 200 "), "{said}");
    assert_eq!(stage.seen("a"), 1);
}
