//! What a request takes before a vendor is asked: its place, tokens of a minute, room for its body.

#![allow(clippy::unwrap_used, reason = "a test fails by it")]

use serde_json::json;
use sluice_tests::gateway::{question, send};
use sluice_tests::stage::{Vendor, model};
use sluice_tests::{Gateway, Options, Stage};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

/// Tokens a minute: twice what a short question is expected to use, and some more.
const TOKENS: u64 = 1_200;
/// What a vendor says before it breaks off, in words.
const WORDS: usize = 2_000;

const CONTINUE: &[u8] = b"HTTP/1.1 100 Continue\r\n\r\n";

const ECHO: &str = "[upstreams.echo]\nadapter = \"echo\"\n[[models]]\nname = \"echo\"\ntargets = [{ upstream = \"echo\" }]\n";

/// A request whose body ends when somebody says so.
struct Uploading {
    stream: TcpStream,
    rest: Vec<u8>,
}

impl Uploading {
    /// Sends a question of so many bytes, but for its last byte, once the gateway wants its body.
    async fn begin(gateway: &Gateway, bytes: usize, headers: &str) -> Uploading {
        let mut body = question("echo", false);
        body["padding"] = " ".repeat(bytes).into();
        let body = body.to_string();
        let length = body.len();
        let head = format!(
            "POST /v1/chat/completions HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\nexpect: 100-continue\r\n{headers}content-length: {length}\r\n\r\n"
        );
        let mut stream = TcpStream::connect(gateway.address()).await.unwrap();
        stream.write_all(head.as_bytes()).await.unwrap();
        let mut goes_on = vec![0; CONTINUE.len()];
        stream.read_exact(&mut goes_on).await.unwrap();
        assert_eq!(goes_on, CONTINUE);
        let mut text = body.into_bytes();
        let rest = text.split_off(text.len() - 1);
        stream.write_all(&text).await.unwrap();
        Uploading { stream, rest }
    }

    /// What it is answered.
    async fn end(mut self) -> String {
        self.stream.write_all(&self.rest).await.unwrap();
        let mut answer = String::new();
        self.stream.read_to_string(&mut answer).await.unwrap();
        answer
    }
}

/// What was said counts where the vendor breaks off before it tells its usage: who leaves early, or
/// finds a vendor that breaks, has no more tokens a minute than others.
#[tokio::test]
async fn a_stream_without_usage_counts_what_was_seen_of_it() {
    let limits = format!("retries = 0\nlimits = {{ tokens_per_minute = {TOKENS} }}");
    let stage = Stage::start("", &[Vendor::openai("a", "")], &model("m", &["a"], &limits)).await;
    let breaks = |events: usize| json!({"kind": "reset", "at": "body", "events": events});
    stage.direct(
        "a",
        json!({"reply": vec!["word"; WORDS].join(" "), "faults": [breaks(4), breaks(WORDS - 1)]}),
    );
    // The control: little was seen, so what was expected counts, and another one fits.
    for _ in 0..2 {
        let answer = stage.ask("m", true).await;
        assert_eq!(answer.status, 200);
        assert!(answer.text().contains("upstream_broken"), "{answer:?}");
    }
    stage.ask("m", true).await.refused(429, "rate_limit_exceeded");
    assert_eq!(stage.seen("a"), 2);
}

/// Who has one place has one body under way, however long it takes.
#[tokio::test]
async fn a_place_is_taken_before_the_body_is_read() {
    let config = format!(
        "[server]\nlisten = \"127.0.0.1:0\"\n[keys]\nrequired = true\n[admin]\nkey = \"env:ADMIN\"\n{ECHO}"
    );
    let admin = "the-admin-key-of-this-test";
    let gateway = Gateway::start(&config, &Options::with(&[("ADMIN", admin)]));
    let draft = gateway.client().post(gateway.url("/admin/v1/keys")).bearer_auth(admin);
    let made = send(draft.body(json!({"name": "app", "concurrent": 1}).to_string())).await.json();
    let key = made["key"].as_str().unwrap();
    let ask = async || {
        let request = gateway.client().post(gateway.url("/v1/chat/completions")).bearer_auth(key);
        send(request.body(question("echo", false).to_string())).await
    };
    let first = Uploading::begin(&gateway, 100, &format!("authorization: Bearer {key}\r\n")).await;
    assert!(ask().await.refused(429, "rate_limit_exceeded").contains("1 requests at once"));
    // Who asks first is told before it sends anything.
    let mut asks = TcpStream::connect(gateway.address()).await.unwrap();
    let head = format!(
        "POST /v1/chat/completions HTTP/1.1\r\nhost: localhost\r\nexpect: 100-continue\r\nauthorization: Bearer {key}\r\ncontent-length: 100\r\n\r\n"
    );
    asks.write_all(head.as_bytes()).await.unwrap();
    let mut status = [0; 12];
    asks.read_exact(&mut status).await.unwrap();
    assert_eq!(&status, b"HTTP/1.1 429");
    assert!(first.end().await.starts_with("HTTP/1.1 200 "));
    assert_eq!(ask().await.content(), "one two three", "the control");
}

/// Bodies that do not end take the room that there is for all of them, and no more: 120 MiB are sent
/// where 32 have room, and the system keeps a small part of what nobody has read.
#[tokio::test]
async fn all_bodies_together_keep_to_their_room() {
    let config = format!("[server]\nlisten = \"127.0.0.1:0\"\nbodies_max = \"32MiB\"\n{ECHO}");
    let gateway = Gateway::start(&config, &Options::default());
    let begin = async || Uploading::begin(&gateway, 15 << 20, "").await;
    let mut uploads = Vec::new();
    for _ in 0..8 {
        uploads.push(begin().await);
    }
    assert_eq!(gateway.ask("echo").await.status, 200, "a small one finds room");
    let mut answers = Vec::new();
    for upload in uploads {
        answers.push(upload.end().await);
    }
    let refused: Vec<&String> = answers.iter().filter(|answer| answer.starts_with("HTTP/1.1 503 ")).collect();
    let told = |answer: &&String| {
        ["no_room", "server.bodies_max", "retry-after: 1\r\n"].iter().all(|part| answer.contains(part))
    };
    assert!(!refused.is_empty() && refused.iter().all(told), "{answers:?}");
    let served = answers.iter().filter(|answer| answer.starts_with("HTTP/1.1 200 ")).count();
    assert!(served > 0 && served + refused.len() == answers.len(), "{answers:?}");
    // The control: what they took is there again.
    assert!(begin().await.end().await.starts_with("HTTP/1.1 200 "));
}
