//! A market without manners, on a socket of this machine.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};

use super::*;

/// What it does with one connection.
#[derive(Clone)]
pub(in crate::market) enum Manner {
    /// Reads the request, says this, closes.
    Says(Vec<u8>),
    /// The same, and stays.
    Begins(Vec<u8>),
    /// Says nothing, and stays.
    Hangs,
    /// Closes at once.
    Leaves,
}

/// Serves one connection after the other; gives the requests that it has read.
pub(in crate::market) struct Stub {
    address: SocketAddr,
    requests: Receiver<String>,
}

impl Stub {
    pub(in crate::market) fn start(manners: Vec<Manner>) -> Stub {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let (seen, requests) = sync_channel(64);
        std::thread::spawn(move || {
            let mut staying = Vec::new();
            for manner in manners {
                let (connection, _) = listener.accept().unwrap();
                staying.extend(treat(connection, &manner, &seen));
            }
            // Those who wait are waited for: the tests end when their clients give up.
            for mut connection in staying {
                let _ = connection.read_to_end(&mut Vec::new());
            }
        });
        Stub { address, requests }
    }

    pub(in crate::market) fn says(status: &str, body: &str) -> Manner {
        Manner::Says(answer(status, "", body))
    }

    pub(in crate::market) fn url(&self) -> Url {
        Url::parse(&format!("http://{}/", self.address)).unwrap()
    }

    /// The next request, head and body.
    pub(in crate::market) fn request(&self) -> String {
        self.requests.recv_timeout(Duration::from_secs(60)).unwrap()
    }

    pub(in crate::market) fn is_silent(&self) -> bool {
        self.requests.try_recv().is_err()
    }
}

fn treat(mut connection: TcpStream, manner: &Manner, seen: &SyncSender<String>) -> Option<TcpStream> {
    let mut request = String::new();
    let mut lines = BufReader::new(connection.try_clone().unwrap());
    let mut length = 0;
    if !matches!(manner, Manner::Leaves) {
        while lines.read_line(&mut request).unwrap_or(0) > 2 {
            let line = request.lines().last().unwrap_or_default().to_ascii_lowercase();
            if let Some(bytes) = line.strip_prefix("content-length: ") {
                length = bytes.parse().unwrap();
            }
        }
        let mut body = vec![0; length];
        lines.read_exact(&mut body).unwrap();
        request.push_str(&String::from_utf8(body).unwrap());
    }
    seen.send(request).unwrap();
    match manner {
        Manner::Says(bytes) => connection.write_all(bytes).map(|()| None).unwrap_or(None),
        Manner::Begins(bytes) => connection.write_all(bytes).map(|()| Some(connection)).unwrap_or(None),
        Manner::Hangs => Some(connection),
        Manner::Leaves => None,
    }
}

fn answer(status: &str, headers: &str, body: &str) -> Vec<u8> {
    let length = body.len();
    format!("HTTP/1.1 {status}\r\ncontent-length: {length}\r\nconnection: close\r\n{headers}\r\n{body}")
        .into()
}

pub(in crate::market) fn tls() -> ClientConfig {
    crate::upstream::tls().unwrap()
}

pub(in crate::market) fn block_on<T>(work: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(work)
}

fn key() -> Credential {
    Credential::Key(Secret::new("canary-key-81").unwrap())
}

/// One call, with its manner.
fn call(manner: Manner) -> Result<Vec<u8>, MarketError> {
    call_within(manner, Duration::from_secs(120))
}

/// The same, for those who are never done.
fn call_within(manner: Manner, call: Duration) -> Result<Vec<u8>, MarketError> {
    let stub = Stub::start(vec![manner]);
    let transport = Transport::with_timers(&stub.url(), tls(), Duration::from_secs(120), call).unwrap();
    block_on(transport.send(Request::get("/v1/x/").by(&key())))
}

#[test]
fn each_status_has_its_meaning() {
    let detail = r#"{"detail":"because of\nthat"}"#;
    let said = |status: &str| call(Stub::says(status, detail)).unwrap_err();
    let words = Detail::read(detail.as_bytes(), &[]);
    assert_eq!(words.as_str(), "because of that");
    assert_eq!(said("401 No"), MarketError::Unauthorized { detail: words.clone() });
    assert_eq!(said("402 No"), MarketError::Balance { status: 402, detail: words.clone() });
    assert_eq!(said("403 No"), MarketError::Balance { status: 403, detail: words.clone() });
    assert_eq!(said("404 No"), MarketError::Refused { status: 404, detail: words.clone() });
    assert_eq!(said("422 No"), MarketError::Refused { status: 422, detail: words });
    assert_eq!(said("408 No"), MarketError::Timeout);
    assert_eq!(said("429 No"), MarketError::Throttled { retry_after: None });
    assert_eq!(said("500 No"), MarketError::Server { status: 500 });
    assert_eq!(said("503 No"), MarketError::Server { status: 503 });
    assert!(matches!(said("307 No"), MarketError::Garbage { .. }));
    assert!(matches!(said("304 No"), MarketError::Garbage { .. }));
    assert!(matches!(said("600 No"), MarketError::Garbage { .. }));
    assert_eq!(call(Stub::says("201 Yes", "body")).unwrap(), b"body");
}

#[test]
fn words_about_money_are_about_money() {
    for words in ["Insufficient balance.", "not enough FUNDS", "Insufficient credit"] {
        let body = format!(r#"{{"detail":"{words}"}}"#);
        let error = call(Stub::says("400 No", &body)).unwrap_err();
        assert!(matches!(error, MarketError::Balance { status: 400, .. }), "{words}: {error:?}");
    }
    for words in ["already proposed", "closed"] {
        let body = format!(r#"{{"detail":"{words}"}}"#);
        let error = call(Stub::says("400 No", &body)).unwrap_err();
        assert!(matches!(error, MarketError::Refused { status: 400, .. }), "{words}: {error:?}");
    }
}

#[test]
fn a_wait_is_told_and_has_a_bound() {
    let wait = |value: &str| {
        let bytes = answer("429 No", &format!("retry-after: {value}\r\n"), "");
        let MarketError::Throttled { retry_after } = call(Manner::Says(bytes)).unwrap_err() else { panic!() };
        retry_after.map(|wait| wait.as_secs())
    };
    assert_eq!((wait("7"), wait("99999999"), wait("soon")), (Some(7), Some(3600), None));
    assert_eq!(wait("Sun, 06 Nov 1994 08:49:37 GMT"), Some(0));
}

#[test]
fn what_was_sent_is_not_said_again() {
    let echo = |body: &str| call(Stub::says("422 No", body)).unwrap_err();
    let list = r#"{"detail":[{"type":"x","loc":["body","password"],"msg":"too short","input":"canary-input"},
        {"loc":["body",3],"msg":"bad key canary-key-81!"},{"input":"canary"},7]}"#;
    for (body, said) in [
        (r#"{"detail":"the key canary-key-81 is bad"}"#, "the key … is bad"),
        (list, "password: too short; bad key …!"),
        (r#"{"detail":{"input":"canary-key-81"}}"#, ""),
        (r#"{"error":"canary-key-81"}"#, ""),
        ("canary-key-81", ""),
        ("", ""),
    ] {
        let error = echo(body);
        let MarketError::Refused { detail, .. } = &error else { panic!("{error:?}") };
        assert_eq!(detail.as_str(), said, "{body}");
        assert!(!format!("{error} {error:?}").contains("canary"), "{error:?}");
    }
    let long = format!(r#"{{"detail":"{}"}}"#, "x".repeat(50_000));
    assert!(echo(&long).to_string().len() < 400);
}

#[test]
fn who_is_slow_is_not_waited_for() {
    let begun = "HTTP/1.1 200 Yes\r\ncontent-length: 9\r\n\r\nbegun";
    for manner in [Manner::Hangs, Manner::Begins(begun.into())] {
        assert_eq!(call_within(manner, Duration::from_millis(300)).unwrap_err(), MarketError::Timeout);
    }
    // A refusal whose words do not come is a refusal.
    let begun = "HTTP/1.1 401 No\r\ncontent-length: 9\r\n\r\n{";
    let error = call(Manner::Says(begun.into())).unwrap_err();
    assert_eq!(error, MarketError::Unauthorized { detail: Detail::default() });
}

#[test]
fn who_is_not_there_is_not_reached() {
    let free = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let url = Url::parse(&format!("http://{free}/")).unwrap();
    let transport = Transport::new(&url, tls()).unwrap();
    let error = block_on(transport.send(Request::get("/").by(&key()))).unwrap_err();
    assert!(matches!(&error, MarketError::Unreachable { why } if why.contains("refused")), "{error:?}");
    let cut = Manner::Says(b"HTTP/1.1 200 Yes\r\ncontent-length: 9\r\n\r\ncut".to_vec());
    for manner in [Manner::Leaves, cut, Manner::Says(b"SSH-2.0-x\r\n".to_vec())] {
        let error = call(manner).unwrap_err();
        assert!(matches!(error, MarketError::Unreachable { .. }), "{error:?}");
    }
}

#[test]
fn an_answer_has_a_bound() {
    let long = |bytes: usize| call(Stub::says("200 Yes", &"x".repeat(bytes)));
    assert_eq!(long(ANSWER_BYTES_MAX).map(|bytes| bytes.len()), Ok(ANSWER_BYTES_MAX));
    assert!(matches!(long(ANSWER_BYTES_MAX + 1), Err(MarketError::Garbage { .. })));
}

/// A redirect would take the API key along: reqwest drops `authorization` only.
#[test]
fn nobody_is_followed() {
    let elsewhere = Stub::start(vec![Stub::says("200 Yes", "[]")]);
    let headers = format!("location: {}v1/x/\r\n", elsewhere.url());
    for status in ["301 Go", "302 Go", "303 Go", "307 Go", "308 Go"] {
        let error = call(Manner::Says(answer(status, &headers, ""))).unwrap_err();
        assert!(matches!(error, MarketError::Garbage { .. }), "{status}: {error:?}");
    }
    assert!(elsewhere.is_silent());
}

#[test]
fn a_credential_that_no_header_carries_is_none() {
    let transport = Transport::new(&Url::parse("http://127.0.0.1:1").unwrap(), tls()).unwrap();
    for who in
        [Credential::Key(Secret::new("a\nb").unwrap()), Credential::Token(Secret::new("a\u{7f}b").unwrap())]
    {
        let error = block_on(transport.send(Request::get("/").by(&who))).unwrap_err();
        assert_eq!(error, MarketError::Unauthorized { detail: Detail::default() });
        assert_eq!(format!("{who:?}").matches("Secret(…)").count(), 1);
    }
}
