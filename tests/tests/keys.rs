//! Client keys from outside: who gets in, with what, until when, and who may say so.

#![allow(clippy::unwrap_used, reason = "a test fails by it")]

use serde_json::{Value, json};
use sluice_tests::gateway::{question, send};
use sluice_tests::{Answer, Gateway, Options, command, secrets};

const CONFIG: &str = "[server]\nlisten = \"127.0.0.1:0\"\ntrusted_proxies = [\"127.0.0.1\"]\n[keys]\nrequired = true\n[admin]\nkey = \"env:ADMIN\"\n\
    [upstreams.echo]\nadapter = \"echo\"\n[[models]]\nname = \"echo\"\ntargets = [{ upstream = \"echo\" }]\n\
    [[models]]\nname = \"other\"\ntargets = [{ upstream = \"echo\", model = \"echo\" }]\n[teams.red]\nlimits = { requests_per_minute = 2 }\n";

const ADMIN: &str = "the-admin-key-of-this-test";

fn start() -> Gateway {
    Gateway::start(CONFIG, &Options::with(&[("ADMIN", ADMIN)]))
}

async fn ask(gateway: &Gateway, model: &str, key: &str) -> Answer {
    let request = gateway.client().post(gateway.url("/v1/chat/completions"));
    send(request.bearer_auth(key).body(question(model, false).to_string())).await
}

async fn admin(gateway: &Gateway, path: &str, body: Value) -> Answer {
    let request = gateway.client().post(gateway.url(path));
    send(request.bearer_auth(ADMIN).body(body.to_string())).await
}

async fn look(gateway: &Gateway, path: &str) -> Value {
    send(gateway.client().get(gateway.url(path)).bearer_auth(ADMIN)).await.json()
}

/// A new key's id and its text.
async fn create(gateway: &Gateway, draft: Value) -> (String, String) {
    let made = admin(gateway, "/admin/v1/keys", draft).await;
    assert_eq!(made.status, 201, "{made:?}");
    let made = made.json();
    (made["id"].as_str().unwrap().into(), made["key"].as_str().unwrap().into())
}

#[tokio::test]
async fn only_keys_get_in_until_they_are_revoked() {
    let gateway = start();
    ask(&gateway, "echo", "sk-whatever").await.refused(401, "invalid_api_key");
    send(gateway.chat_request(question("echo", false).to_string())).await.refused(401, "invalid_api_key");
    send(gateway.client().get(gateway.url("/v1/models"))).await.refused(401, "invalid_api_key");
    let (id, key) = create(&gateway, json!({"name": "app", "models": ["ec*"]})).await;
    assert_eq!(ask(&gateway, "echo", &key).await.status, 200);
    let request = gateway.chat_request(question("echo", false).to_string()).header("x-api-key", &key);
    assert_eq!(send(request).await.status, 200, "where Anthropic's SDK puts it");
    ask(&gateway, "other", &key).await.refused(403, "model_not_allowed");
    let models = send(gateway.client().get(gateway.url("/v1/models")).bearer_auth(&key)).await.json();
    assert_eq!(models["data"].as_array().unwrap().len(), 1);
    let mut other = key.clone();
    other.replace_range(key.len() - 1.., if key.ends_with('a') { "b" } else { "a" });
    ask(&gateway, "echo", &other).await.refused(401, "invalid_api_key");
    let revoke = format!("/admin/v1/keys/{id}/revoke");
    assert_eq!(admin(&gateway, &revoke, json!({})).await.status, 200);
    ask(&gateway, "echo", &key).await.refused(401, "invalid_api_key");
    admin(&gateway, &revoke, json!({})).await.refused(409, "already_revoked");
    admin(&gateway, "/admin/v1/keys/AAAAAAAAAAAA/revoke", json!({})).await.refused(404, "unknown_key");
    let acts = look(&gateway, "/admin/v1/audit").await;
    let outcomes: Vec<&str> =
        acts["acts"].as_array().unwrap().iter().map(|act| act["outcome"].as_str().unwrap()).collect();
    assert_eq!(outcomes, ["unknown", "already_revoked", "done", "done"]);
}

#[tokio::test]
async fn a_rotated_key_has_its_grace_and_no_longer() {
    let gateway = start();
    let (id, first) = create(&gateway, json!({"name": "app"})).await;
    let rotate = format!("/admin/v1/keys/{id}/rotate");
    let second =
        admin(&gateway, &rotate, json!({"grace": "1h"})).await.json()["key"].as_str().unwrap().to_owned();
    for key in [&first, &second] {
        assert_eq!(ask(&gateway, "echo", key).await.status, 200);
    }
    let third = admin(&gateway, &rotate, json!({})).await.json()["key"].as_str().unwrap().to_owned();
    for key in [&first, &second] {
        ask(&gateway, "echo", key).await.refused(401, "invalid_api_key");
    }
    assert_eq!(ask(&gateway, "echo", &third).await.status, 200);
}

#[tokio::test]
async fn a_key_works_from_its_addresses_as_trusted_proxies_tell_them() {
    let gateway = start();
    let (_, key) = create(&gateway, json!({"name": "app", "addresses": ["10.1.0.0/16"]})).await;
    ask(&gateway, "echo", &key).await.refused(401, "invalid_api_key");
    for (forwarded, status) in
        [("10.1.2.3", 200), ("10.2.0.1", 401), ("10.1.2.3, 9.9.9.9", 401), ("9.9.9.9, 10.1.2.3", 200)]
    {
        let request = gateway.chat_request(question("echo", false).to_string()).bearer_auth(&key);
        assert_eq!(send(request.header("x-forwarded-for", forwarded)).await.status, status, "{forwarded}");
    }
    for blank in
        [json!({"name": "b", "addresses": [""]}), json!({"name": "b", "models": [" "]}), json!({"name": " "})]
    {
        admin(&gateway, "/admin/v1/keys", blank).await.refused(400, "invalid_request");
    }
}

#[tokio::test]
async fn rates_of_a_key_and_of_its_team_hold_to_the_second() {
    let gateway = start();
    let (_, key) = create(&gateway, json!({"name": "app", "team": "red", "requests_per_minute": 60})).await;
    for left in ["1", "0"] {
        let answer = ask(&gateway, "echo", &key).await;
        assert_eq!(
            (answer.header("x-ratelimit-limit-requests"), answer.header("x-ratelimit-remaining-requests")),
            ("2", left)
        );
    }
    let refused = ask(&gateway, "echo", &key).await;
    assert!(refused.refused(429, "rate_limit_exceeded").contains("the team \"red\""));
    let wait: u64 = refused.header("retry-after").parse().unwrap();
    assert!((25..=30).contains(&wait), "{wait}");
    assert_eq!(
        (refused.header("x-ratelimit-limit-requests"), refused.header("x-ratelimit-remaining-requests")),
        ("2", "0"),
        "who is refused is told too"
    );
    // A key of another team is not held up.
    let (_, other) = create(&gateway, json!({"name": "other", "requests_per_minute": 1})).await;
    assert_eq!(ask(&gateway, "echo", &other).await.status, 200);
    assert!(ask(&gateway, "echo", &other).await.refused(429, "rate_limit_exceeded").contains("this key"));
}

/// What the command line does, the gateway that runs goes by when the command has ended.
#[tokio::test]
async fn the_command_line_and_the_gateway_share_the_keys() {
    let gateway = start();
    let variables = [("ADMIN", ADMIN)];
    let run = |arguments: &[&str]| command::run(gateway.folder(), arguments, &variables);
    let made = run(&["key", "create", "--name", "cli", "--model", "echo", "--budget", "1.00/day"]);
    assert_eq!(made.code, Some(0), "{made:?}");
    let key = made.stdout.trim();
    assert!(key.starts_with("sk-"), "every SDK takes it");
    assert_eq!(ask(&gateway, "echo", key).await.status, 200, "what no vendor is asked for costs nothing");
    let listed = run(&["key", "list"]);
    assert!(listed.stdout.contains("cli") && !listed.stdout.contains(key), "{listed:?}");
    let id = listed.stdout.lines().nth(1).unwrap().split(' ').next().unwrap().to_owned();
    assert_eq!(run(&["key", "revoke", &id]).code, Some(0));
    ask(&gateway, "echo", key).await.refused(401, "invalid_api_key");
    assert_eq!(run(&["key", "revoke", &id]).code, Some(1));
    assert_eq!(run(&["key", "create", "--name", ""]).code, Some(1));
    let folder = gateway.ended_in_order();
    for file in ["data/sluice.db", "data/sluice.db-wal"] {
        let bytes = std::fs::read(folder.path().join(file)).unwrap_or_default();
        assert_eq!(secrets::found(&bytes, key), None, "{file}");
    }
}

#[tokio::test]
async fn only_the_admin_key_opens_the_admin_pages() {
    let gateway = start();
    let (_, key) = create(&gateway, json!({"name": "app"})).await;
    for path in ["/admin/v1/keys", "/admin/v1/plugins", "/admin/v1/usage", "/metrics"] {
        for token in ["", "wrong", key.as_str()] {
            let answer = send(gateway.client().get(gateway.url(path)).bearer_auth(token)).await;
            answer.refused(401, "invalid_admin_key");
        }
        assert_eq!(
            send(gateway.client().get(gateway.url(path)).bearer_auth(ADMIN)).await.status,
            200,
            "{path}"
        );
    }
    assert_eq!(send(gateway.client().get(gateway.url("/health"))).await.status, 200);
    let log = gateway.stop();
    for secret in [ADMIN, key.as_str()] {
        assert_eq!(secrets::found(log.as_bytes(), secret), None);
    }
}

/// A public address without keys, or with a blank secret, is no start.
#[test]
fn a_public_address_wants_keys() {
    let folder = tempfile::tempdir().unwrap();
    let check = |config: String, admin: &str| {
        std::fs::write(folder.path().join("sluice.toml"), config).unwrap();
        command::run(folder.path(), &["check"], &[("ADMIN", admin)])
    };
    let public = CONFIG.replace("127.0.0.1:0", "0.0.0.0:0");
    assert_eq!(check(public.clone(), ADMIN).code, Some(0));
    let open = check(public.replace("required = true", "required = false"), ADMIN);
    assert!(open.code == Some(64) && open.stderr.contains("[keys] required = true"), "{open:?}");
    let blank = check(public, "  ");
    assert!(blank.code == Some(64) && blank.stderr.contains("ADMIN is not set"), "{blank:?}");
}

/// The socket that is listened on stays as it is until a restart, whatever the file says of it.
#[tokio::test]
async fn a_reload_does_not_open_a_public_socket() {
    let public = CONFIG.replace("127.0.0.1:0", "0.0.0.0:0");
    let gateway = Gateway::start(&public, &Options::with(&[("ADMIN", ADMIN)]));
    let write = |text: String| std::fs::write(gateway.folder().join("sluice.toml"), text).unwrap();
    let ask = async || {
        let request = gateway.chat_request(question("echo", false).to_string());
        send(request.header("host", "localhost")).await
    };
    ask().await.refused(401, "invalid_api_key");
    write(CONFIG.replace("required = true", "required = false"));
    gateway.wait_for("transition=\"config_refused\"", 1);
    ask().await.refused(401, "invalid_api_key");
    let page = look(&gateway, "/admin/v1/config").await;
    assert!(page["reason"].as_str().unwrap().contains("is listened on until a restart"), "{page:#}");
    // With keys it may say what it likes of the address: that holds at the next start.
    write(CONFIG.into());
    gateway.wait_for("transition=\"config_reloaded\"", 1);
    ask().await.refused(401, "invalid_api_key");
}

/// Where there is no admin key, a page in the operator's browser could act as the operator.
#[tokio::test]
async fn without_an_admin_key_no_web_page_is_the_operator() {
    let config = CONFIG.replace("[admin]\nkey = \"env:ADMIN\"\n", "");
    let gateway = Gateway::start(&config, &Options::default());
    let post = |path: &str| {
        let request = gateway.client().post(gateway.url(path));
        request.header("content-type", "text/plain").body(json!({"name": "app"}).to_string())
    };
    for path in ["/admin/v1/keys", "/admin/v1/plugins/echo/release", "/admin/v1/breakers/echo/echo/reset"] {
        for (name, value) in
            [("origin", "https://evil.example"), ("origin", "null"), ("host", "evil.example:8080")]
        {
            send(post(path).header(name, value)).await.refused(403, "foreign_origin");
        }
    }
    for path in ["/metrics", "/admin/v1/usage"] {
        let request = gateway.client().get(gateway.url(path)).header("host", "evil.example");
        send(request).await.refused(403, "foreign_origin");
    }
    let keys = gateway.get("/admin/v1/keys").await.json();
    assert_eq!(keys["keys"].as_array().unwrap().len(), 0);
    assert_eq!(send(post("/admin/v1/keys")).await.status, 201, "the control");
    let away = send(gateway.client().get(gateway.url("/health")).header("host", "evil.example")).await;
    assert_eq!(away.status, 200, "what is for everybody asks for nothing");
}

/// What is not an act on keys is in the audit too, and what was refused.
#[tokio::test]
async fn each_act_has_its_row() {
    let gateway = start();
    let (_, key) = create(&gateway, json!({"name": "app"})).await;
    assert_eq!(ask(&gateway, "echo", &key).await.status, 200);
    let post = async |path: &str, body| admin(&gateway, path, body).await;
    assert_eq!(post("/admin/v1/breakers/echo/echo/reset", json!({})).await.status, 200);
    post("/admin/v1/breakers/echo/none/reset", json!({})).await.refused(404, "no_such_breaker");
    post("/admin/v1/plugins/none/release", json!({})).await.refused(404, "nothing_to_release");
    let charge = json!({"charge_usd": "1"});
    post("/admin/v1/in-doubt/77/resolve", charge).await.refused(404, "unknown_doubt");
    let arguments = ["usage", "--resolve", "78", "--charge", "1"];
    assert_eq!(command::run(gateway.folder(), &arguments, &[("ADMIN", ADMIN)]).code, Some(1));
    let acts = look(&gateway, "/admin/v1/audit").await;
    let told = |act: &Value| {
        ["actor", "act", "subject", "outcome"].map(|member| act[member].as_str().unwrap().to_owned())
    };
    let acts: Vec<_> = acts["acts"].as_array().unwrap().iter().rev().skip(1).map(told).collect();
    let admin = "admin 127.0.0.1";
    let wanted = [
        [admin, "breaker.reset", "echo/echo", "done"],
        [admin, "breaker.reset", "echo/none", "no_such_breaker"],
        [admin, "plugin.release", "none", "nothing_to_release"],
        [admin, "doubt.resolve", "77", "unknown"],
        ["cli", "doubt.resolve", "78", "unknown"],
    ];
    assert_eq!(acts, wanted);
}

/// A secret is shown once: what fails after the key is there does not keep it back.
#[tokio::test]
async fn a_key_that_is_made_is_shown() {
    let gateway = start();
    let store = rusqlite::Connection::open(gateway.folder().join("data/sluice.db")).unwrap();
    store.busy_timeout(std::time::Duration::from_secs(60)).unwrap();
    let fails = "CREATE TRIGGER untold BEFORE INSERT ON meta WHEN NEW.name = 'keys_seen' BEGIN SELECT RAISE(ABORT, 'no'); END";
    store.execute_batch(fails).unwrap();
    let (id, key) = create(&gateway, json!({"name": "app"})).await;
    gateway.wait_for("not all have taken notice", 1);
    assert_eq!(ask(&gateway, "echo", &key).await.status, 200);
    let revoked = admin(&gateway, &format!("/admin/v1/keys/{id}/revoke"), json!({})).await;
    assert_eq!((revoked.status.as_u16(), &revoked.json()["in_force"]), (200, &json!(true)), "{revoked:?}");
    ask(&gateway, "echo", &key).await.refused(401, "invalid_api_key");
    // Whoever waits is told as soon as it can be: the command line's key is taken notice of.
    store.execute_batch("DROP TRIGGER untold").unwrap();
    let made = command::run(gateway.folder(), &["key", "create", "--name", "cli"], &[("ADMIN", ADMIN)]);
    assert_eq!(made.code, Some(0), "{made:?}");
}

/// Usage is there by key as soon as it is asked for, and adds up.
#[tokio::test]
async fn usage_is_told_by_key() {
    let gateway = start();
    let (id, key) = create(&gateway, json!({"name": "app"})).await;
    for _ in 0..3 {
        assert_eq!(ask(&gateway, "echo", &key).await.status, 200);
    }
    let told = async {
        loop {
            let usage = look(&gateway, "/admin/v1/usage?by=key,model").await;
            if usage["usage"][0]["calls"] == 3 {
                return usage;
            }
            tokio::task::yield_now().await;
        }
    };
    let usage = tokio::time::timeout(std::time::Duration::from_secs(60), told).await.unwrap();
    assert_eq!((&usage["usage"][0]["key"], &usage["usage"][0]["model"]), (&json!(id), &json!("echo")));
    let wrong = send(gateway.client().get(gateway.url("/admin/v1/usage?by=colour")).bearer_auth(ADMIN)).await;
    wrong.refused(400, "invalid_request");
}
