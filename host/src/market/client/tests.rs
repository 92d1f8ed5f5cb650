//! What each call sends, to the letter, and what it gives.

use serde_json::Value;

use super::super::transport::tests::{Manner, Stub, block_on, tls};
use super::*;

fn secret(text: &str) -> Secret {
    Secret::new(text).unwrap()
}

/// One call against one answer; gives the request, as its first line, its headers, its body.
fn called<T>(
    status: &str,
    body: &str,
    call: impl AsyncFnOnce(Client) -> Result<T, MarketError>,
) -> (Result<T, MarketError>, String) {
    let stub = Stub::start(vec![Stub::says(status, body)]);
    let client = Client::new(&stub.url(), tls()).unwrap();
    let answer = block_on(call(client));
    (answer, stub.request())
}

/// Its first line and its body.
fn parts(request: &str) -> (&str, &str) {
    let (head, body) = request.split_once("\r\n\r\n").unwrap();
    (head.lines().next().unwrap().trim_end_matches(" HTTP/1.1"), body)
}

#[track_caller]
fn has(request: &str, header: &str) {
    assert!(request.lines().any(|line| line.eq_ignore_ascii_case(header)), "no {header} in {request}");
}

fn key() -> Credential {
    Credential::Key(secret("k-1"))
}

fn token() -> Credential {
    Credential::Token(secret("t-1"))
}

#[test]
fn an_account_is_made_and_logged_into() {
    let (password, email) = (Secret::verbatim(" p&w=ü ").unwrap(), "a@b.example");
    let new = Registration { email, username: "a", full_name: "A B", password: &password };
    let (answer, request) = called("201 Yes", "{}", async |client| client.register(&new).await);
    answer.unwrap();
    let (line, body) = parts(&request);
    assert_eq!(line, "POST /v1/auth/register");
    let body: Value = body.parse().unwrap();
    assert_eq!(body, json!({"email": email, "username": "a", "fullname": "A B", "password": " p&w=ü "}));
    has(&request, "content-type: application/json");
    assert!(!request.to_ascii_lowercase().contains("x-api-key"));
    // {"exp":1795000000}
    let jwt = r#"{"access_token":"e30.eyJleHAiOjE3OTUwMDAwMDB9.c2ln","token_type":"bearer"}"#;
    let (login, request) = called("200 Yes", jwt, async |client| client.login("a@b", &password).await);
    let login = login.unwrap();
    assert_eq!(login.expires_ms, Some(1_795_000_000_000));
    assert_eq!(login.token.reveal(), "e30.eyJleHAiOjE3OTUwMDAwMDB9.c2ln");
    assert_eq!(parts(&request), ("POST /v1/auth/login", "username=a%40b&password=+p%26w%3D%C3%BC+"));
    has(&request, "content-type: application/x-www-form-urlencoded");
}

#[test]
fn a_token_is_what_a_header_takes() {
    for body in [
        "",
        "{}",
        r#"{"access_token":""}"#,
        r#"{"access_token":7}"#,
        r#"{"access_token":"a b"}"#,
        r#"{"access_token":"a\r\nx: y"}"#,
        &format!(r#"{{"access_token":"{}"}}"#, "x".repeat(9000)),
    ] {
        let (login, _) = called("200 Yes", body, async |client| client.login("a", &secret("pw")).await);
        assert!(matches!(login, Err(MarketError::Garbage { .. })), "{body}: {login:?}");
    }
    for (token, expires) in
        [("opaque", None), ("a.b.c", None), ("a.eyJleHAiOi01fQ.c", None), ("a.eyJleHAiOjUuNX0.c", Some(5500))]
    {
        assert_eq!(expiry_ms(token), expires, "{token}");
    }
}

#[test]
fn a_key_is_made_by_a_person() {
    let body = r#"{"api_key":"mk-9","name":"n","is_live":true}"#;
    let (key, request) =
        called("201 Yes", body, async |client| client.create_api_key(&token(), "a b&c").await);
    assert_eq!(key.unwrap().reveal(), "mk-9");
    assert_eq!(parts(&request), ("POST /v1/auth/create-api-key?name=a+b%26c&is_live=true", ""));
    has(&request, "authorization: Bearer t-1");
    let me = r#"{"username":"a","email":"a@b\u0007","more":1}"#;
    let (profile, request) = called("200 Yes", me, async |client| client.me(&token()).await);
    let profile = profile.unwrap();
    assert_eq!((profile.username.as_deref(), profile.email.as_deref()), (Some("a"), Some("a@b ")));
    assert_eq!(parts(&request).0, "GET /v1/auth/users/me/");
}

#[test]
fn money_is_written_exactly() {
    let (amount, page) = ("0.1".parse().unwrap(), r#"{"url":"https://pay.example/c?x=1"}"#);
    let (url, request) =
        called("200 Yes", page, async |client| client.deposit(&key(), amount, Some("d")).await);
    assert_eq!(url.unwrap().as_str(), "https://pay.example/c?x=1");
    assert_eq!(parts(&request), ("POST /v1/payment/deposit", r#"{"amount":0.10,"description":"d"}"#));
    has(&request, "x-api-key: k-1");
    for page in [r#"{"url":"javascript:alert(1)"}"#, r#"{"url":"file:///etc"}"#, r#"{"url":7}"#, "[]"] {
        let (url, _) = called("200 Yes", page, async |client| client.deposit(&key(), amount, None).await);
        assert!(matches!(url, Err(MarketError::Garbage { .. })), "{page}");
    }
    let body = r#"{"wallet_balance":3.0,"held_balance":1,"currency":"usd"}"#;
    let (balance, request) = called("200 Yes", body, async |client| client.balance(&token()).await);
    assert_eq!(balance.unwrap().wallet.to_string(), "3.00");
    assert_eq!(parts(&request).0, "GET /v1/payment/balance");
}

#[test]
fn jobs_are_listed_and_bid_on() {
    let job = r#"{"id":"i-1","status":3,"max_credit_per_instance":0.5}"#;
    let list = format!("[{job},{{}}]");
    let (open, request) = called("200 Yes", &list, async |client| client.open_instances(&key()).await);
    assert_eq!(open.map(|open| (open.items.len(), open.bad)).unwrap(), (1, 1));
    assert_eq!(parts(&request).0, "GET /v1/instances/?instance_status=0");
    has(&request, "accept: application/json");
    let id: InstanceId = "i-1".parse().unwrap();
    let (one, request) = called("200 Yes", job, async |client| client.instance(&key(), &id).await);
    assert_eq!(one.unwrap().id, id);
    assert_eq!(parts(&request).0, "GET /v1/instances/i-1");
    let other: InstanceId = "i-2".parse().unwrap();
    let (one, _) = called("200 Yes", job, async |client| client.instance(&key(), &other).await);
    assert!(matches!(one, Err(MarketError::Garbage { .. })), "another one");
    let mine = r#"{"results":[{"instance_id":"i-1","status":1}]}"#;
    let (mine, request) = called("200 Yes", mine, async |client| client.my_proposals(&key()).await);
    assert_eq!(mine.unwrap().items[0].instance_id, id);
    assert_eq!(parts(&request).0, "GET /v1/proposals/");
    let endpoint = Url::parse("https://me.example/v1/completions/").unwrap();
    let offer =
        Offer { endpoint: &endpoint, max_bid: "0.01".parse().unwrap(), endpoint_api_key: &secret("jk-1") };
    // What the answer says is not read.
    let (bid, request) =
        called("201 Yes", "\0", async |client| client.create_proposal(&key(), &id, &offer).await);
    bid.unwrap();
    let wanted =
        r#"{"endpoint":"https://me.example/v1/completions/","max_bid":0.01,"endpoint_api_key":"jk-1"}"#;
    assert_eq!(parts(&request), ("POST /v1/proposals/create/for-instance/i-1", wanted));
    let echo = r#"{"detail":"jk-1 and k-1: no funds"}"#;
    let (bid, _) = called("400 No", echo, async |client| client.create_proposal(&key(), &id, &offer).await);
    assert_eq!(bid.unwrap_err().to_string(), "the market refuses (400): … and k-1: no funds");
}

#[test]
fn jobs_of_agents_are_talked_about() {
    let id: InstanceId = "i-1".parse().unwrap();
    let list = r#"[{"sender":"requester","message":"hi","timestamp":"2026-01-02T03:04:05"}]"#;
    let (chat, request) = called("200 Yes", list, async |client| client.chat(&key(), &id).await);
    assert_eq!(chat.unwrap().items[0].message, "hi");
    assert_eq!(parts(&request).0, "GET /v1/chat/i-1");
    let none = r#"{"detail":"no such chat"}"#;
    let (chat, _) = called("200 Yes", none, async |client| client.chat(&key(), &id).await);
    assert_eq!(chat.unwrap_err().to_string(), "the market refuses (200): no such chat");
    let ok = r#"{"status":"ok"}"#;
    let (sent, request) =
        called("200 Yes", ok, async |client| client.send_message(&key(), &id, "done\"").await);
    sent.unwrap();
    assert_eq!(parts(&request), ("POST /v1/chat/send-message/i-1", r#"{"message":"done\""}"#));
}

/// A base with a path, with or without a slash.
#[test]
fn paths_are_below_the_base() {
    for base in ["a/b", "a/b/"] {
        let stub = Stub::start(vec![Manner::Leaves, Stub::says("200 Yes", "[]")]);
        let client = Client::new(&stub.url().join(base).unwrap(), tls()).unwrap();
        assert!(matches!(block_on(client.my_proposals(&key())), Err(MarketError::Unreachable { .. })));
        stub.request();
        block_on(client.my_proposals(&key())).unwrap();
        assert_eq!(parts(&stub.request()).0, "GET /a/b/v1/proposals/");
    }
}
