//! What we do not know reaches the vendor byte for byte.

#![allow(clippy::unwrap_used, reason = "a test fails by it")]

use sluice_simulate::Simulator;
use sluice_tests::{Gateway, Options};

/// How deep the deepest body nests.
const DEEP: usize = 10_000;

/// Model `other` is the vendor's `the-target`; `the-target` is called so on both sides.
async fn start() -> (Simulator, Gateway) {
    let simulator = Simulator::start("127.0.0.1:0").await.unwrap();
    let url = simulator.base_url("a");
    let config = format!(
        r#"
[server]
listen = "127.0.0.1:0"
[upstreams.a]
adapter = "openai"
base_url = "{url}"
secrets = {{ api-key = "env:KEY" }}
[[models]]
name = "other"
targets = [{{ upstream = "a", model = "the-target" }}]
[[models]]
name = "the-target"
targets = [{{ upstream = "a" }}]
"#
    );
    let gateway = Gateway::start(&config, &Options::with(&[("KEY", "k")]));
    (simulator, gateway)
}

/// Bodies, with `@` where the model's name stands in its quotes.
fn bodies() -> Vec<String> {
    let deep = format!("{}1{}", "[".repeat(DEEP), "]".repeat(DEEP));
    let deep_objects = format!("{}1{}", r#"{"a":"#.repeat(DEEP), "}".repeat(DEEP));
    vec![
        // Numbers as written: exponents, 30 digits, negative zero, a float that no f64 holds.
        r#"{"model":"@","messages":[{"role":"user","content":"x"}],"seed":1E+2,"big":123456789012345678901234567890,"tiny":-0.0,"f":0.1000000000000000055511151231257827e-400}"#.into(),
        // Escapes as written, also needless, lone and broken pairs of surrogates, and a zero.
        r#"{"model":"@","messages":[{"role":"user","content":"\u0041\ud83d\ude00\/\u00e9 \u0000"}],"alone":"\ud800 \udc00\ud83d","k\u0065y":"\u2028","\ud800":1}"#.into(),
        // The order of keys, and unknown members between and inside known ones.
        r#"{"zzz":1,"stream":false,"aaa":{"c":1,"b":2,"a":3},"model":"@","messages":[{"content":"x","role":"user","extra":{"z":[],"a":{}}}],"":"empty key","mmm":null}"#.into(),
        // White space of every kind, around and inside, and none at the end.
        "\r\n\t {\t\"model\" \n:\r\n \"@\" ,\n\n  \"messages\": [ {\"role\" :\"user\", \"content\":\"x\" } ]\t,\"u\" : [ ] , \"v\":{ }\r\n}\n\n \t\r\n".into(),
        // UTF-8 as it came, among it characters that some printers escape.
        "{\"model\":\"@\",\"messages\":[{\"role\":\"user\",\"content\":\"gr\u{fc}\u{df} \u{65e5}\u{672c} \u{1f389} \u{2028} \u{7f} \u{feff}\"}],\"\u{fc}\":\"\u{10ffff}\"}".into(),
        // Duplicates of members that nobody here reads.
        r#"{"x":1,"model":"@","x":2,"messages":[{"role":"user","content":"x","content":"y"}],"messages":[{"role":"user","content":"x"}],"x":3}"#.into(),
        format!(r#"{{"model":"@","messages":[{{"role":"user","content":"x"}}],"deep":{deep}}}"#),
        format!(r#"{{"deep":{deep_objects},"model":"@","messages":[{{"role":"user","content":"x"}}]}}"#),
        // Model last, and its key in other letters.
        r#"{"messages":[{"role":"user","content":"model \"model\":"}],"metadata":{"model":"inner"},"mod\u0065l":"@"}"#.into(),
    ]
}

/// What the vendor got, and what was sent to it.
#[tokio::test]
async fn every_byte_but_the_models_name_arrives() {
    let (simulator, gateway) = start().await;
    for body in bodies() {
        let shown: String = body.chars().take(300).collect();
        for sent_name in ["other", "the-target"] {
            // Some of these the stand-in refuses itself; what counts is what it got.
            let answer = gateway.chat(body.replace('@', sent_name)).await;
            assert!(matches!(answer.status.as_u16(), 200 | 400), "{answer:?}");
            let rows = simulator.books().rows;
            simulator.clear_books();
            assert_eq!(rows.len(), 1, "not sent on: {shown}\n{answer:?}");
            let wanted = body.replace('@', "the-target");
            assert!(rows[0].body == wanted, "sent as {sent_name}: {shown}\narrived:\n{:?}", rows[0].body);
            let length = rows[0].headers.iter().find(|(name, _)| name == "content-length");
            assert_eq!(length.map(|(_, value)| value.clone()), Some(wanted.len().to_string()), "{shown}");
        }
    }
    assert_eq!(gateway.counters("openai").await.all_faults(), []);
}

#[tokio::test]
async fn a_member_that_we_read_may_stand_once() {
    let (simulator, gateway) = start().await;
    let rest = r#""messages":[{"role":"user","content":"x"}]"#;
    let table = [
        (r#""model":"other","model":"other""#, "model"),
        (r#""model":"other","model":"the-target""#, "model"),
        (r#""model":"other","mod\u0065l":"other""#, "model"),
        (r#""\u006dodel":"other","\u006d\u006fdel":"other""#, "model"),
        (r#""model":"other","stream":false,"stream":true"#, "stream"),
        (r#""model":"other","stream":false,"str\u0065am":false"#, "stream"),
        (r#""model":"other","max_tokens":1,"max_tokens":2"#, "max_tokens"),
        (r#""model":"other","max_tokens":1,"max_token\u0073":1000000"#, "max_tokens"),
        (r#""model":"other","max_completion_tokens":1,"max_completion_tokens":2"#, "max_completion_tokens"),
        (r#""model":"other","n":1,"n":100"#, "n"),
    ];
    for (members, name) in table {
        for body in [format!("{{{members},{rest}}}"), format!("{{{rest},{members}}}")] {
            let answer = gateway.chat(body.clone()).await;
            let message = answer.refused(400, "duplicate_member");
            assert!(message.contains(name), "{body}: {message}");
            assert_eq!(answer.json()["error"]["param"], name, "{body}");
        }
    }
    assert_eq!(simulator.books().totals.requests, 0, "no duplicate reaches a vendor");
    // The control: the same members once.
    let answer =
        gateway.chat(format!(r#"{{"model":"other","stream":false,"max_tokens":1,"n":1,{rest}}}"#)).await;
    assert_eq!(answer.content(), "You");
}
