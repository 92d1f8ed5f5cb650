//! A credential never enters a sandbox, a log or an answer: shown with canaries that are
//! first proven to be where they belong.

#![allow(clippy::unwrap_used, reason = "a test fails by it")]

use std::path::Path;

use serde_json::json;
use sluice_simulate::{Row, Simulator};
use sluice_tests::gateway::{client, question, send};
use sluice_tests::secrets::found;
use sluice_tests::{Answer, Gateway, Options, command, workspace};

/// The operator's, for the vendor alone.
const VENDOR_KEY: &str = "sk-vendor-canary-7Gq2vX9tLmB4";

/// The operator's own.
const ADMIN_KEY: &str = "admin-canary-Zx31uQ8eRw5";

/// The client's own, which are for nobody behind the gateway.
const CLIENT_KEYS: [(&str, &str); 6] = [
    ("authorization", "Bearer sk-client-canary-Kw83nZ"),
    ("x-api-key", "xk-client-canary-Pd52rT"),
    ("cookie", "session=ck-client-canary-Hf61sV"),
    ("proxy-authorization", "Basic pk-client-canary-Mz94qB"),
    ("api-key", "ak-client-canary-Yt07cD"),
    ("x-goog-api-key", "gk-client-canary-Wb38jE"),
];

/// Also what is quiet unless it is named.
const EVERYTHING: &str = "trace,h2=trace,hyper=trace,hyper_util=trace,reqwest=trace,rustls=trace";

/// Not a secret, and let through: the control of all searches.
const LET_THROUGH: &str = "ua-marker-Qn45uF";

fn config(simulator: &Simulator) -> String {
    let (guests, url) = (workspace::guests(&["hostile-adapter"]), simulator.base_url("a"));
    let upstream = |adapter: &str| {
        format!(
            "[upstreams.{adapter}]\nadapter = \"{adapter}\"\nbase_url = \"{url}\"\nsecrets = {{ api-key = \"env:VENDOR_KEY\" }}\n"
        )
    };
    let model = |name: &str, upstream: &str, target: &str| {
        format!(
            "[[models]]\nname = \"{name}\"\nretries = 0\ntargets = [{{ upstream = \"{upstream}\", model = \"{target}\" }}]\n"
        )
    };
    [
        format!("[server]\nlisten = \"127.0.0.1:0\"\n[plugins]\ndir = \"{}\"\n", guests.display()),
        upstream("openai"),
        upstream("hostile-adapter"),
        model("plain", "openai", "m"),
        model("hostile/*", "hostile-adapter", "*"),
    ]
    .concat()
}

fn start(simulator: &Simulator) -> Gateway {
    let variables = [("VENDOR_KEY", VENDOR_KEY), ("SLUICE_LOG", EVERYTHING)];
    Gateway::start(&config(simulator), &Options::with(&variables))
}

/// The secret parts of the client's own headers.
fn client_secrets() -> impl Iterator<Item = &'static str> {
    CLIENT_KEYS.iter().map(|(_, value)| value.rsplit([' ', '=']).next().unwrap())
}

fn all_secrets() -> impl Iterator<Item = &'static str> {
    client_secrets().chain([VENDOR_KEY])
}

#[track_caller]
fn assert_clean<'s>(what: &str, bytes: &[u8], secrets: impl Iterator<Item = &'s str>) {
    for secret in secrets {
        assert_eq!(found(bytes, secret), None, "{secret} is in {what}");
    }
}

/// A whole answer with its head, as bytes to be searched.
fn bytes(answer: &Answer) -> Vec<u8> {
    [format!("{:?}", answer.headers).as_bytes(), &answer.body].concat()
}

async fn ask(gateway: &Gateway, model: &str, http2: bool) -> Answer {
    let client = client(|builder| if http2 { builder.http2_prior_knowledge() } else { builder });
    let mut request =
        client.post(gateway.url("/v1/chat/completions")).body(question(model, false).to_string());
    for (name, value) in CLIENT_KEYS {
        request = request.header(name, value);
    }
    send(request.header("user-agent", LET_THROUGH)).await
}

fn head_of(row: &Row) -> String {
    format!("{} {:?} {:?}", row.path, row.query, row.headers)
}

#[tokio::test]
async fn keys_go_where_they_belong_and_nowhere_else() {
    let simulator = Simulator::start("127.0.0.1:0").await.unwrap();
    let gateway = start(&simulator);
    for http2 in [false, true] {
        for model in ["plain", "hostile/send"] {
            assert_eq!(ask(&gateway, model, http2).await.content(), "You said: one two three");
        }
    }
    // The control: the vendor has its key, exactly.
    let rows = simulator.books().rows;
    assert_eq!(rows.len(), 4);
    for row in &rows {
        let keys: Vec<&str> = row
            .headers
            .iter()
            .filter(|(name, _)| name == "authorization")
            .map(|(_, value)| value.as_str())
            .collect();
        assert_eq!(keys, [format!("Bearer {VENDOR_KEY}")], "{row:?}");
        assert_clean("what the vendor got", head_of(row).as_bytes(), client_secrets());
        assert_clean("what the vendor got", &row.body, client_secrets());
        let allowed = [
            "host",
            "accept",
            "accept-encoding",
            "authorization",
            "content-length",
            "content-type",
            "x-note",
        ];
        let strange: Vec<_> =
            row.headers.iter().filter(|(name, _)| !allowed.contains(&name.as_str())).collect();
        assert!(strange.is_empty(), "{strange:?}");
        assert!(row.headers.contains(&("accept-encoding".into(), "identity".into())), "{:?}", row.headers);
    }
    guest_sees_nothing(&gateway).await;
    let log = gateway.stop();
    assert!(log.contains("TRACE"), "the control: the log is a detailed one:\n{log}");
    assert_clean("the log", log.as_bytes(), all_secrets());
}

async fn guest_sees_nothing(gateway: &Gateway) {
    // Somebody else's request, whose text is in no later guest's memory.
    let other = "tenant-canary-Rk72aJ";
    let body = json!({"model": "hostile/asks-all", "messages": [{"role": "user", "content": other}]});
    let answer = gateway.chat(body.to_string()).await;
    assert!(found(&answer.body, other).is_some(), "the control: what a guest may see is found in its memory");
    for http2 in [false, true] {
        let answer = ask(gateway, "hostile/asks-all", http2).await;
        assert_eq!(answer.status, 200, "{answer:?}");
        assert!(answer.body.len() > 64 * 1024, "there is a whole memory in it: {} bytes", answer.body.len());
        let (told, memory) = answer.body.split_at(position(&answer.body, b"\n--memory--\n"));
        for part in [told, memory] {
            for marker in [LET_THROUGH, "one two three"] {
                assert!(found(part, marker).is_some(), "the control: {marker} is let through");
            }
        }
        assert_clean("what a guest saw", &answer.body, all_secrets());
        assert_clean("another request's guest", &answer.body, [other].into_iter());
        assert!(String::from_utf8_lossy(told).contains("authorization = (nothing)"));
    }
}

fn position(bytes: &[u8], part: &[u8]) -> usize {
    bytes.windows(part.len()).position(|window| window == part).expect("the guest writes it")
}

/// Vendors repeat keys in their errors; some in heads.
#[tokio::test]
async fn a_vendor_that_repeats_the_key_is_not_repeated() {
    let simulator = Simulator::start("127.0.0.1:0").await.unwrap();
    let gateway = start(&simulator);
    let body = format!(
        "{{\"error\":{{\"message\":\"Incorrect API key: {VENDOR_KEY}, {VENDOR_KEY}.\",\"hint\":\"x\"}}}}"
    );
    let headers = [
        ("x-your-key", VENDOR_KEY),
        ("www-authenticate", VENDOR_KEY),
        ("location", VENDOR_KEY),
        ("retry-after", VENDOR_KEY),
    ];
    for status in [301, 400, 401, 403, 404, 422, 429, 500, 503] {
        let fault = json!({"kind": "status", "status": status, "headers": headers, "body": body});
        let answer = provoked(&simulator, &gateway, &fault).await;
        assert_clean("an error", &bytes(&answer), all_secrets());
        match status {
            301 => drop(answer.refused(502, "upstream_redirected")),
            401 | 403 => drop(answer.refused(502, "upstream_refused_credential")),
            // The control: the rest of such an error is the vendor's.
            status => {
                assert_eq!(answer.status, status, "{answer:?}");
                assert!(answer.text().contains("Incorrect API key: "), "{answer:?}");
                assert_eq!(answer.json()["error"]["hint"], "x", "{answer:?}");
            }
        }
    }
    for fault in [json!({"kind": "empty"}), json!({"kind": "status", "status": 500, "body": ""})] {
        let answer = provoked(&simulator, &gateway, &fault).await;
        assert!(answer.status.is_server_error(), "{answer:?}");
        assert_clean("an error", &bytes(&answer), all_secrets());
    }
    assert_clean("the log", gateway.stop().as_bytes(), all_secrets());
}

async fn provoked(simulator: &Simulator, gateway: &Gateway, fault: &serde_json::Value) -> Answer {
    simulator.direct("a", serde_json::from_value(json!({"faults": [fault]})).unwrap());
    let before = simulator.books().totals.requests;
    let answer = ask(gateway, "plain", false).await;
    assert_eq!(simulator.books().totals.requests, before + 1, "one attempt: {fault}");
    answer
}

/// Whatever is wrong around a secret, the message does not show it.
#[test]
fn a_configuration_error_does_not_print_a_secret() {
    let upstream = |rest: &str| {
        format!("[upstreams.v]\nadapter = \"openai\"\nbase_url = \"https://vendor.example/v1\"\n{rest}\n")
    };
    let key = VENDOR_KEY;
    let table = [
        (upstream(&format!("secrets = {{ api-key = \"{key}\" }}")), "env:NAME"),
        (upstream(&format!("secrets = {{ api-key = [\"{key}\"] }}")), "env:NAME"),
        (upstream(&format!("secrets = {{ api-key = {{ value = \"{key}\" }} }}")), "env:NAME"),
        (upstream(&format!("secrets = {{ no-slot = \"{key}\" }}")), "env:NAME"),
        (upstream(&format!("secrets = \"{key}\"")), "table"),
        (upstream(&format!("secrets = [\"{key}\"]")), "table"),
        (upstream(&format!("secret = \"{key}\"")), "secrets"),
        (upstream(&format!("api_key = \"{key}\"")), "unknown key"),
        (upstream("secrets = { no-slot = \"env:GOOD\" }"), "no such slot"),
        (upstream("secrets = { api-key = \"env:TWO_LINES\" }"), "header"),
        (upstream("secrets = { api-key = \"env:MISSING\" }"), "MISSING"),
        (
            upstream(&format!(
                "adapter_config = {{ key = \"{key}\" }}\nsecrets = {{ api-key = \"env:GOOD\" }}"
            )),
            "adapter_config",
        ),
        (
            format!(
                "[upstreams.v]\nadapter = \"openai\"\nbase_url = \"https://me:{key}@vendor.example/v1\"\n"
            ),
            "without user",
        ),
        (
            format!(
                "[upstreams.v]\nadapter = \"openai\"\nbase_url = \"https://vendor.example/v1?key={key}\"\n"
            ),
            "query",
        ),
        (upstream(&format!("secrets = {{ api-key = {key} }}")), "sluice.toml:4"),
        (upstream(&format!("secrets = {{ api-key = \"{key} }}")), "sluice.toml:4"),
    ];
    let two_lines = format!("{key}\n{key}");
    for (config, wanted) in table {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("sluice.toml"), &config).unwrap();
        let variables = [("GOOD", key), ("TWO_LINES", two_lines.as_str()), ("SLUICE_LOG", "trace")];
        let run = command::run(folder.path(), &["check"], &variables);
        assert_eq!(run.code, Some(64), "{config}{run:?}");
        assert!(run.stderr.contains(wanted), "{config}{run:?}");
        let leak = found(run.printed().as_bytes(), VENDOR_KEY);
        assert_eq!(leak, None, "{config}{}", run.printed());
    }
}

/// A good configuration is summed up without its secrets, and a line of `.env` that is none
/// is told by its number.
#[test]
fn check_and_dot_env_do_not_print_a_secret() {
    let folder = tempfile::tempdir().unwrap();
    let config = "[upstreams.v]\nadapter = \"openai\"\nbase_url = \"https://vendor.example/v1\"\nsecrets = { api-key = \"env:KEY\" }\n";
    std::fs::write(folder.path().join("sluice.toml"), config).unwrap();
    std::fs::write(folder.path().join(".env"), format!("KEY={VENDOR_KEY}\n")).unwrap();
    let run = command::run(folder.path(), &["check"], &[("SLUICE_LOG", "trace")]);
    assert_eq!(run.code, Some(0), "{run:?}");
    assert_clean("what is printed", run.printed().as_bytes(), [VENDOR_KEY].into_iter());
    std::fs::write(folder.path().join(".env"), format!("A=1\nexport KEY: {VENDOR_KEY}\n")).unwrap();
    let run = command::run(folder.path(), &["check"], &[]);
    assert_eq!(run.code, Some(64), "{run:?}");
    assert!(run.stderr.contains(".env:2"), "{run:?}");
    assert_clean("what is printed", run.printed().as_bytes(), [VENDOR_KEY].into_iter());
}

/// All that a run leaves behind: its log at its most detailed, its pages, its errors, and every file of
/// its data, while a call is under way and afterwards.
#[tokio::test]
async fn no_secret_of_a_run_is_in_what_it_leaves_behind() {
    let simulator = Simulator::start("127.0.0.1:0").await.unwrap();
    let price = "price = { input = \"1\", output = \"1\" }, max_output = 1000";
    let config = config(&simulator)
        .replace("upstream = \"openai\",", &format!("upstream = \"openai\", {price},"))
        + "[keys]\nrequired = true\n[admin]\nkey = \"env:ADMIN_KEY\"\n[[budgets]]\nname = \"all-of-it\"\nper = \"run\"\ncap_usd = \"1\"\nwindow = \"day\"\n";
    let variables = [("VENDOR_KEY", VENDOR_KEY), ("ADMIN_KEY", ADMIN_KEY), ("SLUICE_LOG", EVERYTHING)];
    let gateway = Gateway::start(&config, &Options::with(&variables));
    let admin = async |path: &str, body: serde_json::Value| {
        send(gateway.client().post(gateway.url(path)).bearer_auth(ADMIN_KEY).body(body.to_string())).await
    };
    let text = |answer: &Answer| answer.json()["key"].as_str().unwrap().to_owned();
    let made =
        admin("/admin/v1/keys", json!({"name": "app", "budgets": [{"cap": "1", "window": "day"}]})).await;
    assert_eq!(made.status, 201, "{made:?}");
    let id = made.json()["id"].as_str().unwrap().to_owned();
    let first = text(&made);
    let second = text(&admin(&format!("/admin/v1/keys/{id}/rotate"), json!({"grace": "1h"})).await);
    // One that is nobody's, with the id of one that is.
    let wrong = format!("sk-sluice-{id}-{}", "Wr0ngCanary".repeat(4).split_at(43).0);
    let keys = [first.as_str(), second.as_str(), wrong.as_str()];
    let secrets: Vec<&str> =
        keys.iter().map(|key| key.rsplit('-').next().unwrap()).chain([VENDOR_KEY, ADMIN_KEY]).collect();
    let mut said = Vec::new();
    for key in keys {
        for (model, stream) in [("plain", false), ("plain", true), ("hostile/send", false), ("nobody", false)]
        {
            said.extend(left_by(&gateway, key, model, stream).await);
        }
    }
    for fault in [
        json!({"kind": "status", "status": 401, "body": VENDOR_KEY}),
        json!({"kind": "reset", "at": "headers"}),
    ] {
        simulator.direct("a", serde_json::from_value(json!({"faults": [fault]})).unwrap());
        said.extend(left_by(&gateway, &first, "plain", false).await);
    }
    for path in [
        "/metrics",
        "/ready",
        "/admin/v1/keys",
        "/admin/v1/audit",
        "/admin/v1/usage?by=key,run",
        "/admin/v1/budgets",
        "/admin/v1/plugins",
        "/admin/v1/breakers",
    ] {
        for key in [ADMIN_KEY, &first, &wrong] {
            let page = send(gateway.client().get(gateway.url(path)).bearer_auth(key)).await;
            assert_eq!(page.status == 200, key == ADMIN_KEY || path == "/ready", "{path}: {page:?}");
            said.extend(bytes(&page));
        }
    }
    let all = || secrets.iter().copied();
    assert_clean("what is answered", &said, all());
    assert!(found(&said, "sluice_spending_held_nanodollars").is_some(), "the control: the pages are in it");

    // A call under way: what is held for it is in the journal.
    simulator.direct("a", serde_json::from_value(json!({"faults": [{"kind": "wait"}]})).unwrap());
    let seen = simulator.books().rows.len();
    let asking = tokio::spawn(
        request(&gateway, &first, "plain", false).header("x-sluice-run", "run-marker-Tc46").send(),
    );
    simulator.books_when(sluice_simulate::Goal::Arrived(seen + 1)).await;
    let data = gateway.folder().join("data");
    let held = files(&data);
    assert!(found(&held, "openai/m").is_some(), "the control: the attempt is in the journal");
    simulator.direct("a", serde_json::from_value(json!({})).unwrap());
    assert_eq!(asking.await.unwrap().unwrap().status(), 200);
    let log = gateway.log();
    let folder = gateway.ended_in_order();
    let ended = files(&folder.path().join("data"));
    assert!(
        found(&ended, "run-marker-Tc46").is_some() && found(&ended, &id).is_some(),
        "the control: its row is there"
    );
    assert!(log.contains("TRACE") && log.contains("invalid_api_key"), "the control: a detailed log");
    for (what, bytes) in
        [("the log", log.as_bytes()), ("the data", &held), ("what is left of the data", &ended)]
    {
        assert_clean(what, bytes, all());
    }
}

fn request(gateway: &Gateway, key: &str, model: &str, stream: bool) -> reqwest::RequestBuilder {
    gateway.chat_request(question(model, stream).to_string()).bearer_auth(key)
}

/// What is answered to a caller who shows a key in each place that there is for one, and in one that is none.
async fn left_by(gateway: &Gateway, key: &str, model: &str, stream: bool) -> Vec<u8> {
    let shown = [
        request(gateway, key, model, stream).header("x-sluice-run", "run-1"),
        gateway
            .chat_request(question(model, stream).to_string())
            .header("x-api-key", key)
            .header("x-sluice-run", "run-1"),
        gateway
            .client()
            .post(gateway.url(&format!("/v1/chat/completions?api_key={key}")))
            .body(question(model, stream).to_string()),
    ];
    let mut said = Vec::new();
    for request in shown {
        said.extend(bytes(&send(request).await));
    }
    said
}

/// All files of a folder, one behind the other.
fn files(folder: &Path) -> Vec<u8> {
    let mut all = Vec::new();
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        // A file may go while others are read.
        all.extend(if path.is_dir() { files(&path) } else { std::fs::read(&path).unwrap_or_default() });
    }
    all
}
