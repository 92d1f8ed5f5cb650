//! Vendors without manners: what is theirs to mend is not held against the client, nor the client's
//! fault against them.

#![allow(clippy::unwrap_used, reason = "a test fails by it")]

use std::sync::{Arc, Mutex};
use std::time::Duration;

use serde_json::{Value, json};
use sluice_tests::gateway::{client, metric, question, send};
use sluice_tests::raw_vendor::{Act, RawVendor, chunk, end, head};
use sluice_tests::{Answer, Gateway, Options};

const EVENTS: &str = "text/event-stream";
const JSON: &str = "application/json";
const WHOLE: &str = r#"{"id":"c","object":"chat.completion","choices":[{"index":0,"message":{"role":"assistant","content":"hello"},"finish_reason":"stop"}]}"#;

fn event(data: &str) -> String {
    format!("data: {data}\n\n")
}

fn role() -> String {
    event(r#"{"choices":[{"index":0,"delta":{"role":"assistant","content":""},"finish_reason":null}]}"#)
}

fn text() -> String {
    event(r#"{"choices":[{"index":0,"delta":{"content":"hello"},"finish_reason":null}]}"#)
}

fn finish(index: usize) -> String {
    event(&format!(r#"{{"choices":[{{"index":{index},"delta":{{}},"finish_reason":"stop"}}]}}"#))
}

fn done() -> String {
    event("[DONE]")
}

/// A gateway before it; a failure of the vendor's opens the breaker.
fn gateway(vendor: &RawVendor, adapter: &str, more: &str) -> Gateway {
    let url = vendor.base_url();
    let config = format!(
        "[server]\nlisten = \"127.0.0.1:0\"\n[upstreams.a]\nadapter = \"{adapter}\"\nbase_url = \"{url}\"\n\
         secrets = {{ api-key = \"env:KEY\" }}\nbreaker = {{ failures = 1, open_for = \"1h\" }}\n{more}\n\
         [[models]]\nname = \"m\"\nretries = 0\ntargets = [{{ upstream = \"a\" }}]\n"
    );
    Gateway::start(&config, &Options::with(&[("KEY", "sk-of-the-test")]))
}

async fn breaker(gateway: &Gateway) -> String {
    gateway.get("/admin/v1/breakers").await.json()["breakers"][0]["state"].as_str().unwrap().to_owned()
}

/// A vendor that is told anew for each request, and the gateway before it.
struct Bench {
    vendor: RawVendor,
    gateway: Gateway,
    acts: Arc<Mutex<Vec<Act>>>,
}

impl Bench {
    async fn start(adapter: &str, more: &str) -> Bench {
        let acts = Arc::new(Mutex::new(Vec::new()));
        let told = Arc::clone(&acts);
        let vendor = RawVendor::start(move |_| told.lock().unwrap().clone()).await;
        let gateway = gateway(&vendor, adapter, more);
        Bench { vendor, gateway, acts }
    }

    /// The answer and the breaker's state, which is closed again afterwards; one request was made.
    async fn asked(&self, acts: Vec<Act>, body: Value) -> (Answer, String) {
        *self.acts.lock().unwrap() = acts;
        let before = self.vendor.requests();
        let answer = self.gateway.chat(body.to_string()).await;
        assert_eq!(self.vendor.requests(), before + 1, "{answer:?}");
        let state = breaker(&self.gateway).await;
        let reset = self.gateway.url("/admin/v1/breakers/a/m/reset");
        assert_eq!(send(self.gateway.client().post(reset)).await.status, 200);
        (answer, state)
    }
}

fn last_event(answer: &Answer) -> String {
    answer.events().last().cloned().unwrap_or_default()
}

/// What comes after the last event is nobody's failure.
#[tokio::test]
async fn after_the_last_event_a_vendor_cannot_fail() {
    let bench = Bench::start("openai", "timeouts = { idle = \"1s\" }").await;
    for rest in [Act::Hold, Act::Reset, Act::Close] {
        for said in [role() + &text() + &finish(0) + &done(), role() + &text() + &finish(0)] {
            let acts = vec![head(200, EVENTS), chunk(&said), rest.clone()];
            let (answer, breaker) = bench.asked(acts, question("m", true)).await;
            assert_eq!(answer.text(), said, "{rest:?}");
            assert_eq!(breaker, "closed", "{rest:?} after {said}");
        }
        // The control: before it, it can.
        let acts = vec![head(200, EVENTS), chunk(role() + &text()), rest.clone()];
        let (answer, breaker) = bench.asked(acts, question("m", true)).await;
        assert!(last_event(&answer).contains("\"error\""), "{rest:?}: {answer:?}");
        assert_eq!(breaker, "open", "{rest:?}");
    }
}

/// What a vendor says after its last event is for nobody.
#[tokio::test]
async fn what_follows_the_last_event_is_dropped() {
    let bench = Bench::start("openai", "").await;
    let said = role() + &text() + &finish(0) + &done();
    for more in ["data: bye\n\n", "event: error\ndata: {\"message\":\"bye\"}\n\n", "bye"] {
        let at_once = vec![head(200, EVENTS), chunk(said.clone() + more), end()];
        let later = vec![head(200, EVENTS), chunk(&said), chunk(more), end()];
        for acts in [at_once, later] {
            let (answer, breaker) = bench.asked(acts, question("m", true)).await;
            assert_eq!((answer.text(), breaker.as_str()), (said.clone(), "closed"), "{more}");
        }
    }
    // After an event that is too long to be looked at, too.
    let long = event(&format!(r#"{{"choices":[{{"delta":{{"content":"{}"}}}}]}}"#, "x".repeat(2 << 20)));
    let acts = vec![head(200, EVENTS), chunk(role() + &long), chunk(finish(0) + &done()), Act::Hold];
    let (answer, breaker) = bench.asked(acts, question("m", true)).await;
    assert!(answer.text().ends_with(&done()), "{} bytes", answer.body.len());
    assert_eq!(breaker, "closed");
}

/// One of two choices is not both.
#[tokio::test]
async fn every_choice_has_to_end() {
    let bench = Bench::start("openai", "").await;
    let two = |ended: &[usize]| {
        let ends: String = ended.iter().map(|index| finish(*index)).collect();
        vec![head(200, EVENTS), chunk(role() + &text() + &ends), end(), Act::Close]
    };
    let mut body = question("m", true);
    body["n"] = json!(2);
    let (answer, state) = bench.asked(two(&[0]), body.clone()).await;
    assert!(last_event(&answer).contains("upstream_cut_short"), "{answer:?}");
    assert_eq!(state, "open");
    let (answer, state) = bench.asked(two(&[1, 0]), body).await;
    assert!(!answer.text().contains("error"), "{answer:?}");
    assert_eq!(state, "closed");
}

/// A whole mapped answer that comes at once is passed on at once.
#[tokio::test]
async fn a_mapped_answer_is_whole_before_its_vendor_hangs_up() {
    let events = [
        r#"{"type":"message_start","message":{"id":"msg_1","type":"message","role":"assistant","model":"m","content":[],"stop_reason":null,"usage":{"input_tokens":3,"output_tokens":1}}}"#,
        r#"{"type":"content_block_start","index":0,"content_block":{"type":"text","text":""}}"#,
        r#"{"type":"content_block_delta","index":0,"delta":{"type":"text_delta","text":"hello"}}"#,
        r#"{"type":"content_block_stop","index":0}"#,
        r#"{"type":"message_delta","delta":{"stop_reason":"end_turn"},"usage":{"output_tokens":1}}"#,
        r#"{"type":"message_stop"}"#,
    ];
    let said: String = events
        .iter()
        .map(|data| {
            let name = serde_json::from_str::<Value>(data).unwrap()["type"].as_str().unwrap().to_owned();
            format!("event: {name}\ndata: {data}\n\n")
        })
        .collect();
    let bench = Bench::start("anthropic", "timeouts = { idle = \"1s\" }").await;
    for rest in [Act::Hold, Act::Reset] {
        let acts = vec![head(200, EVENTS), chunk(&said), rest];
        let (answer, breaker) = bench.asked(acts, question("m", true)).await;
        assert!(answer.text().contains("\"content\":\"hello\""), "{answer:?}");
        assert_eq!((last_event(&answer).as_str(), breaker.as_str()), ("[DONE]", "closed"));
    }
}

/// The status of an error says whose fault it is, however long or broken its body.
#[tokio::test]
async fn a_clients_fault_is_not_the_vendors() {
    let bench = Bench::start("openai", "timeouts = { total = \"1h\" }").await;
    let long = format!(r#"{{"error":{{"message":"no","input":"{}"}}}}"#, "x".repeat(200_000));
    let endless = format!(r#"{{"error":{{"message":"no","input":"{}"}}}}"#, "x".repeat(3_000_000));
    let table = [
        (vec![head(422, JSON), chunk(&long), end()], Some(long.len())),
        (vec![head(400, JSON), chunk(&endless), end()], None),
        (vec![head(400, JSON), chunk(&long[..500]), Act::Reset], None),
    ];
    for (acts, passed) in table {
        for stream in [true, false] {
            let (answer, breaker) = bench.asked(acts.clone(), question("m", stream)).await;
            assert!(answer.status == 422 || answer.status == 400, "{answer:?}");
            assert!(answer.json()["error"]["message"].is_string(), "{answer:?}");
            assert!(passed.is_none_or(|bytes| answer.body.len() == bytes), "it is passed on whole");
            assert_eq!(breaker, "closed", "{answer:?}");
        }
    }
    // A failure's body is not waited for.
    let acts = vec![head(500, JSON), chunk("{"), Act::Hold];
    let (answer, breaker) = bench.asked(acts, question("m", false)).await;
    assert!(answer.refused(502, "upstream_error").contains("500"));
    assert_eq!(breaker, "open");
}

/// A model that thinks is silent: until it speaks only the timer for that runs.
#[tokio::test]
async fn silence_before_the_first_content_is_not_a_silence_between() {
    let pause = Act::Pause(Duration::from_millis(1500));
    let timers = "timeouts = { idle = \"500ms\", first_content = \"20s\" }";
    let bench = Bench::start("openai", timers).await;
    let before =
        vec![head(200, EVENTS), chunk(role()), pause.clone(), chunk(text() + &finish(0) + &done()), end()];
    let (answer, breaker) = bench.asked(before, question("m", true)).await;
    assert_eq!((last_event(&answer).as_str(), breaker.as_str()), ("[DONE]", "closed"));
    let between = vec![head(200, EVENTS), chunk(role() + &text()), pause, chunk(finish(0) + &done()), end()];
    let (answer, _) = bench.asked(between, question("m", true)).await;
    assert!(last_event(&answer).contains("timeout_idle"), "{answer:?}");
}

/// A vendor that never stops is stopped, though there is always something to read.
#[tokio::test]
async fn a_total_time_holds_while_data_keeps_coming() {
    for (kind, first) in [(EVENTS, role() + &text()), (JSON, format!("{{\"x\":\"{}", "y".repeat(70_000)))] {
        let Act::Say(more) = chunk(if kind == EVENTS { text() } else { "y".repeat(1000) }) else { panic!() };
        let acts = vec![head(200, kind), chunk(&first), Act::SayForEver(more)];
        let vendor = RawVendor::start(move |_| acts.clone()).await;
        let gateway = gateway(&vendor, "openai", "timeouts = { total = \"700ms\" }");
        let mut response =
            gateway.chat_request(question("m", kind == EVENTS).to_string()).send().await.unwrap();
        let mut tail = Vec::new();
        let ended = loop {
            match response.chunk().await {
                Ok(Some(chunk)) => tail = chunk.to_vec(),
                Ok(None) => break true,
                Err(_broken) => break false,
            }
        };
        // In the middle of a JSON text nothing can be said.
        assert_eq!(ended, kind == EVENTS);
        assert!(!ended || String::from_utf8_lossy(&tail).contains("timeout_total"));
        assert_eq!(breaker(&gateway).await, "open");
    }
}

/// What is not told by the tables of faults: a connection that does not stand, TLS included, and a
/// whole answer that does not end.
#[tokio::test]
async fn each_timer_of_an_attempt_has_its_name() {
    let acts = vec![head(200, JSON), chunk("{"), Act::Hold];
    let bench = Bench::start("openai", "timeouts = { total = \"300ms\" }").await;
    let (answer, _) = bench.asked(acts.clone(), question("m", false)).await;
    assert!(answer.refused(504, "timeout_total").contains("timeouts.total"));
    let bench = Bench::start("openai", "timeouts = { headers = \"300ms\" }").await;
    let (answer, _) = bench.asked(vec![Act::Hold], question("m", false)).await;
    assert!(answer.refused(504, "timeout_headers").contains("timeouts.headers"));
    // It takes the connection and knows no TLS.
    let silent = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = silent.local_addr().unwrap().port();
    let config = |url: &str| {
        format!(
            "[server]\nlisten = \"127.0.0.1:0\"\n[upstreams.a]\nadapter = \"openai\"\nbase_url = \"{url}\"\n\
             secrets = {{ api-key = \"env:KEY\" }}\ntimeouts = {{ connect = \"300ms\" }}\n\
             [[models]]\nname = \"m\"\nretries = 0\ntargets = [{{ upstream = \"a\" }}]\n"
        )
    };
    let options = Options::with(&[("KEY", "sk-of-the-test")]);
    let gateway = Gateway::start(&config(&format!("https://127.0.0.1:{port}/v1")), &options);
    assert!(gateway.ask("m").await.refused(504, "timeout_connect").contains("timeouts.connect"));
    drop(silent);
    gateway.ask("m").await.refused(502, "upstream_unreachable");
}

/// A vendor that closes the connections that it said it would keep is asked on a fresh one.
#[tokio::test]
async fn a_kept_connection_that_closes_is_replaced() {
    let answer = vec![head(200, JSON), chunk(WHOLE), end()];
    let acts = move |place: usize| if place == 0 { answer.clone() } else { vec![Act::Close] };
    let vendor = RawVendor::start(acts).await;
    let gateway = gateway(&vendor, "openai", "");
    for _ in 0..30 {
        assert_eq!(gateway.ask("m").await.content(), "hello");
    }
    assert_eq!(breaker(&gateway).await, "closed");
    assert!(vendor.requests() > 30, "kept connections were used");
    // Where all that rested are closed as they are used, it is not replaced by another of them.
    let answer = vec![Act::Pause(Duration::from_millis(300)), head(200, JSON), chunk(WHOLE), end()];
    let acts = move |place: usize| if place == 0 { answer.clone() } else { vec![Act::Close] };
    let several = RawVendor::start(acts).await;
    let gateway = self::gateway(&several, "openai", "");
    let answers = tokio::join!(gateway.ask("m"), gateway.ask("m"), gateway.ask("m"), gateway.ask("m"));
    for answer in [answers.0, answers.1, answers.2, answers.3] {
        assert_eq!(answer.content(), "hello");
    }
    assert_eq!(gateway.ask("m").await.content(), "hello");
    assert_eq!(several.requests(), 6);
    // What fails later than at once has been worked on, and is not asked for again.
    let answer = vec![head(200, JSON), chunk(WHOLE), end()];
    let later = vec![Act::Pause(Duration::from_secs(2)), Act::Close];
    let dies = RawVendor::start(move |place| if place == 0 { answer.clone() } else { later.clone() }).await;
    let gateway = self::gateway(&dies, "openai", "");
    assert_eq!(gateway.ask("m").await.content(), "hello");
    gateway.ask("m").await.refused(502, "upstream_broken");
    assert_eq!(dies.requests(), 2);
    // The control: a fresh one that closes is a failure.
    let closes = RawVendor::start(|_| vec![Act::Close]).await;
    let gateway = self::gateway(&closes, "openai", "");
    gateway.ask("m").await.refused(502, "upstream_broken");
    assert_eq!((breaker(&gateway).await.as_str(), closes.requests()), ("open", 1));
}

#[tokio::test]
async fn what_no_client_could_read_is_no_answer() {
    let bench = Bench::start("openai", "").await;
    let gzip = Act::Say(
        b"HTTP/1.1 200 x\r\ncontent-type: application/json\r\ncontent-encoding: gzip\r\ncontent-length: 3\r\n\r\nxyz".to_vec(),
    );
    let page = "<html>".repeat(20_000);
    let table = [
        (vec![gzip], false),
        (vec![head(200, JSON), chunk(&page), end()], false),
        (vec![head(200, "text/html"), chunk(&page), end()], true),
        (vec![head(200, EVENTS), chunk("x".repeat(2 << 20)), end()], true),
    ];
    for (acts, stream) in table {
        let (answer, breaker) = bench.asked(acts, question("m", stream)).await;
        answer.refused(502, "upstream_malformed");
        assert_eq!(breaker, "open");
    }
}

/// Where the head does not say what the body is, the body does.
#[tokio::test]
async fn an_answer_without_a_type_is_what_it_looks_like() {
    let bench = Bench::start("openai", "").await;
    let said = role() + &text() + &finish(0) + &done();
    for kind in ["", "text/plain"] {
        let acts = vec![head(200, kind), chunk(" \n"), chunk(&said), end()];
        let (answer, _) = bench.asked(acts, question("m", true)).await;
        assert!(answer.header("content-type").starts_with(EVENTS), "{answer:?}");
        assert_eq!(last_event(&answer), "[DONE]");
        let acts = vec![head(200, kind), chunk(" \n"), chunk(WHOLE), end()];
        let (answer, breaker) = bench.asked(acts, question("m", true)).await;
        assert_eq!((answer.content().as_str(), breaker.as_str()), ("hello", "closed"));
    }
}

#[tokio::test]
async fn an_event_named_error_is_one_and_an_empty_one_is_nothing() {
    let bench = Bench::start("openai", "").await;
    let named = "event: error\ndata: {\"message\":\"overloaded\"}\n\n";
    let acts = |said: String| vec![head(200, EVENTS), chunk(said), end()];
    let (answer, _) = bench.asked(acts(role() + named + &done()), question("m", true)).await;
    assert!(answer.refused(502, "upstream_error").contains("overloaded"));
    let (answer, _) = bench.asked(acts(role() + &text() + named + &done()), question("m", true)).await;
    assert!(last_event(&answer).contains("overloaded"), "{answer:?}");
    let said = role() + &text() + "data:\n\n" + &finish(0) + &done();
    let (answer, breaker) = bench.asked(acts(said.clone()), question("m", true)).await;
    assert_eq!((answer.text(), breaker.as_str()), (said, "closed"));
}

/// Figures go by the names of the configuration, and a name that fails fails for itself alone.
#[tokio::test]
async fn names_that_clients_invent_stay_their_own() {
    let vendor = RawVendor::start(|_| vec![head(200, JSON), chunk(WHOLE), end()]).await;
    let url = vendor.base_url();
    let config = format!(
        "[server]\nlisten = \"127.0.0.1:0\"\n[upstreams.a]\nadapter = \"openai\"\nbase_url = \"{url}\"\n\
         secrets = {{ api-key = \"env:KEY\" }}\n[[models]]\nname = \"v/*\"\ntargets = [{{ upstream = \"a\", model = \"*\" }}]\n"
    );
    let gateway = Gateway::start(&config, &Options::with(&[("KEY", "sk-of-the-test")]));
    for number in 0..600 {
        assert_eq!(gateway.ask(&format!("v/invented {number}")).await.status, 200);
    }
    let breakers = gateway.get("/admin/v1/breakers").await.json();
    let rows = breakers["breakers"].as_array().unwrap();
    assert!(rows.len() <= 256, "{}", rows.len());
    assert!(rows.iter().all(|row| row["model"] != "_other"), "there was room for all of them");
    let page = gateway.get("/metrics").await.text();
    assert!(!page.contains("invented") && page.len() < 30_000, "{} bytes", page.len());
    let good = "sluice_attempts_total{upstream=\"a\",gen_ai_request_model=\"v/*\",outcome=\"good\"}";
    assert_eq!(metric(&page, good), 600.0);
    let url = gateway.url("/admin/v1/breakers/a/invented%20599/reset");
    assert_eq!(send(client(|builder| builder).post(url)).await.status, 200);
}
