//! New versions that are worse than the one they replace: taken back by the gateway itself.

#![allow(clippy::unwrap_used, reason = "a test fails by it")]

use std::fs;

use sluice_tests::gateway::question;
use sluice_tests::raw_vendor::{RawVendor, chunk, end, head};
use sluice_tests::versions::{adapter, policy};
use sluice_tests::{Gateway, Options};

const CONFIG: &str = r#"
[server]
listen = "127.0.0.1:0"
[upstreams.one]
adapter = "marked"
[upstreams.two]
adapter = "echo"
[[models]]
name = "marked"
targets = [{ upstream = "one" }]
[[models]]
name = "ranked"
policy = "marked-policy"
targets = [{ upstream = "two", priority = 2 }, { upstream = "two", priority = 1 }]
"#;

const ACTIVATED: &str = "transition=\"activated\"";
const PROVEN: &str = "transition=\"proven\"";
const ROLLED_BACK: &str = "transition=\"rolled_back\"";
const QUARANTINED: &str = "transition=\"quarantined\"";

/// More calls than a probation lasts.
const MANY: usize = 400;

/// Both guests serve, have proven themselves, and have been called.
async fn start() -> Gateway {
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("sluice.toml"), CONFIG).unwrap();
    fs::create_dir(folder.path().join("plugins.d")).unwrap();
    fs::write(folder.path().join("plugins.d/adapter.wasm"), adapter("ok", "good")).unwrap();
    fs::write(folder.path().join("plugins.d/policy.wasm"), policy("ok", 0)).unwrap();
    let gateway = Gateway::start_in(folder, &Options::default());
    for model in ["marked", "ranked"] {
        for _ in 0..100 {
            assert_eq!(gateway.ask(model).await.status, 200);
        }
    }
    gateway
}

fn drop_in(gateway: &Gateway, file: &str, bytes: &[u8]) {
    let activated = gateway.log().matches(ACTIVATED).count();
    copy(gateway, file, bytes);
    gateway.wait_for(ACTIVATED, activated + 1);
}

fn copy(gateway: &Gateway, file: &str, bytes: &[u8]) {
    fs::write(gateway.folder().join("plugins.d").join(file), bytes).unwrap();
}

async fn digest(gateway: &Gateway, plugin: &str) -> String {
    gateway.counters(plugin).await.row()["digest"].as_str().unwrap().to_owned()
}

/// Asks until the version is taken back; gives how many answers each said what.
async fn ask_until_rolled_back(gateway: &Gateway, model: &str) -> Vec<String> {
    let mut answers = Vec::new();
    for _ in 0..MANY {
        let answer = gateway.ask(model).await;
        assert_eq!(answer.status, 200, "{answer:?}");
        answers.push(answer.content());
        if gateway.log().contains(ROLLED_BACK) {
            return answers;
        }
    }
    panic!("not taken back after {MANY} calls:\n{}", gateway.log());
}

#[tokio::test]
async fn an_adapter_that_traps_now_and_then_is_taken_back_and_no_request_fails() {
    let gateway = start().await;
    let good = digest(&gateway, "marked").await;
    let bad = adapter("trap-1-in-50", "bad");
    drop_in(&gateway, "adapter.wasm", &bad);
    let answers = ask_until_rolled_back(&gateway, "marked").await;
    let by = |version: &str| answers.iter().filter(|answer| *answer == version).count();
    assert!(by("good") >= 3, "the version before answered where the new one trapped: {answers:?}");
    assert!((100..150).contains(&by("bad")), "three traps, one in fifty: {answers:?}");
    assert_eq!(digest(&gateway, "marked").await, good);
    assert_eq!(gateway.ask("marked").await.content(), "good");
    assert!(gateway.log().contains("3 traps in its first"), "{}", gateway.log());
    // Copied again, it stays out.
    copy(&gateway, "again.wasm", &bad);
    gateway.wait_for(QUARANTINED, 1);
    assert_eq!(gateway.ask("marked").await.content(), "good");
    // After a restart, too; the last good one serves.
    let gateway = Gateway::start_in(gateway.crash(), &Options::default());
    gateway.wait_for(QUARANTINED, 2);
    assert_eq!(digest(&gateway, "marked").await, good);
    assert_eq!(gateway.ask("marked").await.content(), "good");
    // Until an operator lets it in again; it is not on probation then.
    let release = |plugin| gateway.client().post(gateway.url(&format!("/admin/v1/plugins/{plugin}/release")));
    assert_eq!(release("nobody").send().await.unwrap().status(), 404);
    let released = release("marked").send().await.unwrap();
    assert_eq!(released.status(), 200);
    gateway.wait_for("transition=\"released\"", 1);
    gateway.wait_for(ACTIVATED, 1);
    assert_eq!(gateway.ask("marked").await.content(), "bad");
    assert_eq!(gateway.counters("marked").await.row()["state"], "active");
    assert_eq!(release("marked").send().await.unwrap().status(), 404, "nobody is shut out any more");
}

#[tokio::test]
async fn a_policy_that_traps_now_and_then_is_taken_back() {
    let gateway = start().await;
    let good = digest(&gateway, "marked-policy").await;
    drop_in(&gateway, "policy.wasm", &policy("trap-1-in-50", 1));
    let answers = ask_until_rolled_back(&gateway, "ranked").await;
    assert!(answers.len() > 100, "{}: three traps, one in fifty", answers.len());
    assert_eq!(digest(&gateway, "marked-policy").await, good);
}

#[tokio::test]
async fn a_version_ten_times_slower_is_taken_back() {
    let gateway = start().await;
    for (file, plugin, model, slow) in [
        ("adapter.wasm", "marked", "marked", adapter("slow", "slow")),
        ("policy.wasm", "marked-policy", "ranked", policy("slow", 1)),
    ] {
        let good = digest(&gateway, plugin).await;
        drop_in(&gateway, file, &slow);
        let before = gateway.log().matches(ROLLED_BACK).count();
        for _ in 0..MANY {
            assert_eq!(gateway.ask(model).await.status, 200);
            if gateway.log().matches(ROLLED_BACK).count() > before {
                break;
            }
        }
        gateway.wait_for(ROLLED_BACK, before + 1);
        assert_eq!(digest(&gateway, plugin).await, good);
    }
    assert_eq!(gateway.log().matches("of CPU time per call; the version before took").count(), 2);
}

#[tokio::test]
async fn a_version_that_errs_more_often_is_taken_back() {
    let gateway = start().await;
    let good = digest(&gateway, "marked").await;
    drop_in(&gateway, "adapter.wasm", &adapter("err-1-in-10", "bad"));
    for _ in 0..MANY {
        // An error that a plugin tells itself is its answer: nobody is asked in its place.
        let status = gateway.ask("marked").await.status.as_u16();
        assert!([200, 502].contains(&status), "{status}");
        if gateway.log().contains(ROLLED_BACK) {
            break;
        }
    }
    gateway.wait_for(ROLLED_BACK, 1);
    assert_eq!(digest(&gateway, "marked").await, good);
}

/// A vendor that says this to everybody, and the guest that makes its mark of it.
async fn start_mapping(said: &'static str) -> (RawVendor, Gateway) {
    let answer = move |_| match said {
        "" => vec![head(200, "application/json"), chunk("{}"), end()],
        said => vec![head(200, "text/event-stream"), chunk(said), end()],
    };
    let vendor = RawVendor::start(answer).await;
    let folder = tempfile::tempdir().unwrap();
    let url = vendor.base_url();
    let config = format!(
        "[server]\nlisten = \"127.0.0.1:0\"\n[upstreams.one]\nadapter = \"marked\"\nbase_url = \"{url}\"\n\
         breaker = {{ failures = 1000 }}\n[[models]]\nname = \"marked\"\nretries = 0\ntargets = [{{ upstream = \"one\" }}]\n"
    );
    fs::write(folder.path().join("sluice.toml"), config).unwrap();
    fs::create_dir(folder.path().join("plugins.d")).unwrap();
    fs::write(folder.path().join("plugins.d/adapter.wasm"), adapter("map-ok", "good")).unwrap();
    (vendor, Gateway::start_in(folder, &Options::default()))
}

async fn ask_for(gateway: &Gateway, stream: bool) -> sluice_tests::Answer {
    gateway.chat(question("marked", stream).to_string()).await
}

/// What a version makes of answers counts as what it makes of requests; where it breaks down before
/// the client has had anything, the version before plans and asks anew.
#[tokio::test]
async fn an_adapter_that_traps_over_answers_is_taken_back_and_no_request_fails() {
    for (said, stream) in [("data: {}\n\n", true), ("", false)] {
        let (vendor, gateway) = start_mapping(said).await;
        for _ in 0..30 {
            assert_eq!(ask_for(&gateway, stream).await.status, 200);
        }
        let good = digest(&gateway, "marked").await;
        drop_in(&gateway, "adapter.wasm", &adapter("map-trap", "bad"));
        for _ in 0..10 {
            let answer = ask_for(&gateway, stream).await;
            assert!(answer.status == 200 && answer.text().contains("good"), "{answer:?}");
        }
        gateway.wait_for(ROLLED_BACK, 1);
        assert_eq!(digest(&gateway, "marked").await, good);
        assert_eq!(vendor.requests(), 30 + 10 + 3, "three were asked again");
    }
}

/// What the version before would have made of a request too is the caller's mistake.
#[tokio::test]
async fn a_callers_mistakes_take_no_adapter_back() {
    let simulator = sluice_simulate::Simulator::start("127.0.0.1:0").await.unwrap();
    let built = fs::read(sluice_tests::workspace::root().join("plugins/dist/anthropic.wasm")).unwrap();
    let folder = tempfile::tempdir().unwrap();
    let url = simulator.base_url("a");
    let config = format!(
        "[server]\nlisten = \"127.0.0.1:0\"\n[upstreams.a]\nadapter = \"anthropic\"\nbase_url = \"{url}\"\n\
         secrets = {{ api-key = \"env:KEY\" }}\n[[models]]\nname = \"m\"\nretries = 0\ntargets = [{{ upstream = \"a\" }}]\n"
    );
    fs::write(folder.path().join("sluice.toml"), config).unwrap();
    fs::create_dir(folder.path().join("plugins.d")).unwrap();
    let gateway = Gateway::start_in(folder, &Options::with(&[("KEY", "sk-of-the-test")]));
    for _ in 0..60 {
        assert_eq!(gateway.ask("m").await.status, 200);
    }
    drop_in(&gateway, "anthropic.wasm", &sluice_tests::versions::relabelled(&built, 1));
    let mut two = question("m", false);
    two["n"] = serde_json::json!(2);
    let refuses = serde_json::json!({"faults": [{"kind": "status", "status": 400, "times": 10}]});
    simulator.direct("a", serde_json::from_value(refuses).unwrap());
    for _ in 0..10 {
        gateway.chat(two.to_string()).await.refused(400, "unsupported_request");
        assert_eq!(gateway.ask("m").await.status, 400);
    }
    assert_eq!(simulator.books().rows.len(), 70);
    assert!(!gateway.log().contains(ROLLED_BACK), "{}", gateway.log());
    assert_eq!(gateway.counters("anthropic").await.row()["state"], "probation");
}

/// A vendor's nonsense says nothing of the adapter that finds it to be nonsense.
#[tokio::test]
async fn a_vendors_nonsense_takes_no_adapter_back() {
    let (_vendor, gateway) = start_mapping("data: nonsense\n\n").await;
    for _ in 0..30 {
        ask_for(&gateway, true).await.refused(502, "upstream_malformed");
        gateway.client().post(gateway.url("/admin/v1/breakers/one/marked/reset")).send().await.unwrap();
    }
    drop_in(&gateway, "adapter.wasm", &adapter("map-ok", "better"));
    for _ in 0..30 {
        ask_for(&gateway, true).await.refused(502, "upstream_malformed");
        gateway.client().post(gateway.url("/admin/v1/breakers/one/marked/reset")).send().await.unwrap();
    }
    assert!(!gateway.log().contains(ROLLED_BACK), "{}", gateway.log());
    assert_eq!(gateway.counters("marked").await.row()["state"], "probation");
}

/// The control to all of the above: a version as good as the one before stays.
#[tokio::test]
async fn a_good_version_proves_itself() {
    let gateway = start().await;
    let proven = gateway.log().matches(PROVEN).count();
    drop_in(&gateway, "adapter.wasm", &adapter("ok", "better"));
    drop_in(&gateway, "policy.wasm", &policy("ok", 1));
    assert_eq!(gateway.counters("marked").await.row()["state"], "probation");
    for model in ["marked", "ranked"] {
        for _ in 0..200 {
            assert_eq!(gateway.ask(model).await.status, 200);
        }
    }
    gateway.wait_for(PROVEN, proven + 2);
    assert_eq!(gateway.ask("marked").await.content(), "better");
    assert_eq!(gateway.counters("marked").await.row()["state"], "active");
    assert!(!gateway.log().contains(ROLLED_BACK), "{}", gateway.log());
}
