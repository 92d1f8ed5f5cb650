//! What is refused before a vendor is asked: a status, OpenAI's envelope, an id, and what to do.

#![allow(clippy::unwrap_used, reason = "a test fails by it")]

use std::time::Duration;

use http::Version;
use reqwest::Method;
use sluice_simulate::Simulator;
use sluice_tests::gateway::{client, question, send};
use sluice_tests::{Answer, Gateway, Options};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

const BODY_BYTES_MAX: usize = 20 * 1024 * 1024;
const HEAD_BYTES_MAX: usize = 64 * 1024;
/// Below what descriptors a process has by default.
const ROOM_IN_QUEUE: usize = 900;
/// Nothing is measured by it: whoever finds no room waits for as long as the gateway is stopped.
const NO_SECOND_TRY: Duration = Duration::from_secs(20);

async fn start() -> (Simulator, Gateway) {
    let simulator = Simulator::start("127.0.0.1:0").await.unwrap();
    let url = simulator.base_url("a");
    let config = format!(
        "[server]\nlisten = \"127.0.0.1:0\"\n[upstreams.a]\nadapter = \"openai\"\nbase_url = \"{url}\"\nsecrets = {{ api-key = \"env:KEY\" }}\n\
         [[models]]\nname = \"m\"\ntargets = [{{ upstream = \"a\" }}]\n"
    );
    (simulator, Gateway::start(&config, &Options::with(&[("KEY", "k")])))
}

#[tokio::test]
async fn a_body_that_is_none_is_refused_and_says_where() {
    let (simulator, gateway) = start().await;
    let table: [(&[u8], &str, &str); 17] = [
        (b"", "invalid_json", "byte 0"),
        (b"   ", "invalid_json", "byte 3"),
        (b"{", "invalid_json", "byte 1"),
        (b"{\"model\":\"m\",\n \"messages\": [}", "invalid_json", "line 2"),
        (b"{\"model\":\"m\"} x", "invalid_json", "byte 14"),
        (b"{\"model\":\"m\",}", "invalid_json", "line 1"),
        (b"{'model':'m'}", "invalid_json", "byte 1"),
        (b"{\"model\":\"m\",\"x\":01}", "invalid_json", "line 1"),
        (b"{\"model\":\"m\",\"x\":\"\xff\"}", "invalid_json", "UTF-8 at byte 18"),
        (b"[]", "invalid_json", "not a JSON object"),
        (b"\"model\"", "invalid_json", "not a JSON object"),
        (b"{}", "invalid_member", "model: is missing"),
        (b"{\"messages\":[]}", "invalid_member", "model: is missing"),
        (b"{\"model\":7}", "invalid_member", "model: wanted a string"),
        (b"{\"model\":null}", "invalid_member", "model"),
        (b"{\"model\":\"\\ud800\"}", "invalid_member", "model: wanted a string"),
        (b"{\"model\":\"m\",\"stream\":\"yes\"}", "invalid_member", "stream: wanted true or false"),
    ];
    for (body, code, wanted) in table {
        let shown = String::from_utf8_lossy(body);
        let message = gateway.chat(body).await.refused(400, code);
        assert!(message.contains(wanted), "{shown}: {message}");
    }
    let packed = gateway.chat_request(question("m", false).to_string()).header("content-encoding", "gzip");
    send(packed).await.refused(415, "body_encoded");
    let unknown = gateway.ask("no \"such\" model").await;
    let message = unknown.refused(404, "model_not_found");
    assert!(message.contains(r#"no \"such\" model"#), "{message}");
    assert_eq!(unknown.json()["error"]["param"], "model");
    assert_eq!(simulator.books().totals.requests, 0);
    assert_eq!(gateway.ask("m").await.status, 200, "the control");
}

#[tokio::test]
async fn a_path_or_method_that_is_none_is_refused() {
    let (_simulator, gateway) = start().await;
    let ask =
        async |method: Method, path: &str| send(gateway.client().request(method, gateway.url(path))).await;
    for path in [
        "/",
        "/v1",
        "/v1/chat/completions/",
        "/v1/chat//completions",
        "/v2/models",
        "/admin/v1/plugins/x",
        "/V1/MODELS",
        "/%2e%2e/",
    ] {
        let message = ask(Method::GET, path).await.refused(404, "unknown_path");
        assert!(message.contains("/v1/chat/completions"), "it says where to go: {message}");
    }
    let table = [
        (Method::GET, "/v1/chat/completions", "POST"),
        (Method::PUT, "/v1/chat/completions", "POST"),
        (Method::DELETE, "/v1/models", "GET"),
        (Method::POST, "/v1/models", "GET"),
        (Method::POST, "/admin/v1/plugins", "GET"),
        (Method::POST, "/health", "GET"),
    ];
    for (method, path, allowed) in table {
        let answer = ask(method, path).await;
        answer.refused(405, "method_not_allowed");
        assert!(answer.header("allow").contains(allowed), "{answer:?}");
    }
    // A query is no part of the path.
    assert_eq!(ask(Method::GET, "/v1/models?limit=3").await.status, 200);
}

/// A body of so many bytes that asks for a model which is not there.
fn body_of(bytes: usize) -> Vec<u8> {
    let mut body = br#"{"model":"none","x":""#.to_vec();
    body.resize(bytes - 2, b'x');
    body.extend_from_slice(b"\"}");
    body
}

#[tokio::test]
async fn a_body_is_bounded_to_the_byte() {
    let (simulator, gateway) = start().await;
    gateway.chat(body_of(BODY_BYTES_MAX)).await.refused(404, "model_not_found");
    let message = gateway.chat(body_of(BODY_BYTES_MAX + 1)).await.refused(413, "body_too_large");
    assert!(message.contains("20971520"), "{message}");
    // The same without a length that is known beforehand, over either version of HTTP.
    for http2 in [false, true] {
        let client = client(|builder| if http2 { builder.http2_prior_knowledge() } else { builder });
        for (bytes, status, code) in
            [(BODY_BYTES_MAX, 404, "model_not_found"), (BODY_BYTES_MAX + 1, 413, "body_too_large")]
        {
            let body = reqwest::Body::wrap(pieces(body_of(bytes)));
            let answer = send(client.post(gateway.url("/v1/chat/completions")).body(body)).await;
            answer.refused(status, code);
            let version = if http2 { Version::HTTP_2 } else { Version::HTTP_11 };
            assert_eq!(answer.version, version);
        }
    }
    // One that passes reaches the vendor whole.
    let large = String::from_utf8(body_of(1024 * 1024)).unwrap().replace("\"none\"", "\"m\"");
    gateway.chat(large.clone()).await;
    assert!(simulator.books().rows[0].body == large, "it arrives as it was sent");
}

/// The name goes to the log and to where plans are kept: neither may be filled by it.
#[tokio::test]
async fn a_models_name_is_bounded() {
    let simulator = Simulator::start("127.0.0.1:0").await.unwrap();
    let url = simulator.base_url("a");
    let config = format!(
        "[server]\nlisten = \"127.0.0.1:0\"\n[upstreams.a]\nadapter = \"openai\"\nbase_url = \"{url}\"\nsecrets = {{ api-key = \"env:KEY\" }}\n\
         [[models]]\nname = \"*\"\ntargets = [{{ upstream = \"a\" }}]\n"
    );
    let gateway = Gateway::start(&config, &Options::with(&[("KEY", "k")]));
    assert_eq!(gateway.ask(&"n".repeat(200)).await.status, 200, "the control");
    let message = gateway.ask(&"n".repeat(1_000_000)).await.refused(400, "invalid_member");
    assert!(message.starts_with("model: ") && message.len() < 200, "{message}");
    assert!(gateway.stop().len() < 10_000);
    assert_eq!(simulator.books().totals.requests, 1);
}

/// A body in frames of 64 KiB.
struct Pieces(std::vec::IntoIter<bytes::Bytes>);

fn pieces(body: Vec<u8>) -> Pieces {
    let body = bytes::Bytes::from(body);
    let starts = (0..body.len()).step_by(64 * 1024);
    let pieces: Vec<_> = starts.map(|at| body.slice(at..body.len().min(at + 64 * 1024))).collect();
    Pieces(pieces.into_iter())
}

/// Sends a head as it is; gives the status line.
async fn raw(gateway: &Gateway, head: &str) -> Answer {
    ask_on(TcpStream::connect(gateway.address()).await.unwrap(), head).await
}

async fn ask_on(mut stream: TcpStream, head: &str) -> Answer {
    // The gateway may answer and close before it has read all.
    let _ = stream.write_all(head.as_bytes()).await;
    let mut bytes = Vec::new();
    let _ = stream.read_to_end(&mut bytes).await;
    parse(&bytes)
}

fn parse(bytes: &[u8]) -> Answer {
    let text = String::from_utf8_lossy(bytes).into_owned();
    let (head, body) = text.split_once("\r\n\r\n").unwrap_or_else(|| panic!("no answer but {text:?}"));
    let mut lines = head.lines();
    let status = lines.next().unwrap().split(' ').nth(1).unwrap().parse().unwrap();
    let mut headers = http::HeaderMap::new();
    for (name, value) in lines.filter_map(|line| line.split_once(": ")) {
        headers.insert(http::HeaderName::try_from(name).unwrap(), value.parse().unwrap());
    }
    Answer { status, version: Version::HTTP_11, headers, body: body.to_owned().into() }
}

fn head(gateway: &Gateway, more: &str) -> String {
    format!("GET /v1/models HTTP/1.1\r\nhost: {}\r\nconnection: close\r\n{more}\r\n", gateway.address())
}

#[tokio::test]
async fn a_head_is_bounded() {
    let (_simulator, gateway) = start().await;
    let filler = |bytes: usize| format!("x-filler: {}\r\n", "x".repeat(bytes));
    assert_eq!(raw(&gateway, &head(&gateway, &filler(HEAD_BYTES_MAX / 2))).await.status, 200);
    assert_eq!(raw(&gateway, &head(&gateway, &filler(HEAD_BYTES_MAX))).await.status, 431);
    let many = |count: usize| (0..count).map(|index| format!("x-{index}: 1\r\n")).collect::<String>();
    assert_eq!(raw(&gateway, &head(&gateway, &many(100))).await.status, 200);
    assert_eq!(raw(&gateway, &head(&gateway, &many(200))).await.status, 431);
    let long = format!("GET /{} HTTP/1.1\r\nhost: {}\r\n\r\n", "x".repeat(HEAD_BYTES_MAX), gateway.address());
    assert!(matches!(raw(&gateway, &long).await.status.as_u16(), 414 | 431));
    assert_eq!(gateway.get("/health").await.status, 200);
}

/// A page in a browser can be made to ask us; its Host or its Origin tells.
#[tokio::test]
async fn only_this_machine_may_ask_while_no_key_is_required() {
    let (simulator, gateway) = start().await;
    let port = gateway.address().rsplit(':').next().unwrap().to_owned();
    let foreign = ["evil.example", "localhost.evil.example", "127.0.0.1.evil.example", "10.0.0.1", "0.0.0.0"];
    for host in foreign {
        let http1 = format!("GET /v1/models HTTP/1.1\r\nhost: {host}:{port}\r\nconnection: close\r\n\r\n");
        raw(&gateway, &http1).await.refused(403, "foreign_origin");
        for scheme in ["http", "https"] {
            let request = gateway.chat_request(question("m", false).to_string());
            send(request.header("origin", format!("{scheme}://{host}"))).await.refused(403, "foreign_origin");
        }
        // What stands in the request's line goes before Host.
        let absolute =
            format!("GET http://{host}/v1/models HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n");
        raw(&gateway, &absolute).await.refused(403, "foreign_origin");
    }
    for origin in ["null", "file://", "chrome-extension://abc", ""] {
        let request = gateway.client().get(gateway.url("/admin/v1/plugins")).header("origin", origin);
        send(request).await.refused(403, "foreign_origin");
    }
    let without = raw(&gateway, "GET /v1/models HTTP/1.1\r\nconnection: close\r\n\r\n").await;
    assert!(matches!(without.status.as_u16(), 400 | 403), "{without:?}");
    assert_eq!(simulator.books().totals.requests, 0);
    for host in ["localhost", "LocalHost:1", "127.0.0.1", "[::1]", "[::1]:8080"] {
        let http1 = format!(
            "GET /v1/models HTTP/1.1\r\nhost: {host}\r\norigin: http://{host}\r\nconnection: close\r\n\r\n"
        );
        let answer = raw(&gateway, &http1).await;
        assert_eq!(answer.status, 200, "the control: {host}: {answer:?}");
    }
}

/// Clients that come at once wait in the listener's queue: where it is full, the system lets them try
/// again after a second, and then after more.
#[tokio::test]
async fn a_thousand_clients_at_once_are_all_let_in() {
    let (_simulator, gateway) = start().await;
    // It accepts nobody: whoever is connected is so by the queue.
    gateway.signal("STOP");
    let mut clients = Vec::new();
    for client in 0..ROOM_IN_QUEUE {
        let connecting = TcpStream::connect(gateway.address());
        let connected = tokio::time::timeout(NO_SECOND_TRY, connecting).await;
        clients.push(connected.unwrap_or_else(|_| panic!("only {client} found room")).unwrap());
    }
    gateway.signal("CONT");
    for client in clients {
        let answer = ask_on(client, "GET /health HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n");
        assert_eq!(answer.await.status, 200);
    }
}

#[tokio::test]
async fn http2_without_an_upgrade_is_spoken() {
    let (simulator, gateway) = start().await;
    let client = client(reqwest::ClientBuilder::http2_prior_knowledge);
    let ask = async |stream| {
        send(client.post(gateway.url("/v1/chat/completions")).body(question("m", stream).to_string())).await
    };
    let answer = ask(false).await;
    assert_eq!((answer.version, answer.content().as_str()), (Version::HTTP_2, "You said: one two three"));
    assert!(ask(true).await.text().ends_with("data: [DONE]\n\n"));
    send(client.get(gateway.url("/nowhere"))).await.refused(404, "unknown_path");
    assert_eq!(simulator.books().totals.requests, 2);
}

impl http_body::Body for Pieces {
    type Data = bytes::Bytes;
    type Error = std::convert::Infallible;

    fn poll_frame(
        mut self: std::pin::Pin<&mut Self>,
        _context: &mut std::task::Context<'_>,
    ) -> std::task::Poll<Option<Result<http_body::Frame<bytes::Bytes>, Self::Error>>> {
        std::task::Poll::Ready(self.0.next().map(|piece| Ok(http_body::Frame::data(piece))))
    }
}
