//! The configuration changed under a gateway that serves: whole, or not at all.

#![allow(clippy::unwrap_used, reason = "a test fails by it")]

use std::fs;

use sluice_simulate::Simulator;
use sluice_tests::versions::example;
use sluice_tests::{Gateway, Options};

const RELOADED: &str = "transition=\"config_reloaded\"";
const REFUSED: &str = "transition=\"config_refused\"";

fn config(model: &str, policy: &str) -> String {
    format!(
        "[server]\nlisten = \"127.0.0.1:0\"\n[upstreams.one]\nadapter = \"echo\"\n[upstreams.two]\nadapter = \"echo\"\n\
         [[models]]\nname = \"{model}\"\npolicy = \"{policy}\"\ntargets = [{{ upstream = \"one\" }}, {{ upstream = \"two\" }}]\n"
    )
}

fn write(gateway: &Gateway, text: &str) {
    fs::write(gateway.folder().join("sluice.toml"), text).unwrap();
}

#[tokio::test]
async fn a_good_change_serves_and_a_bad_one_changes_nothing() {
    let gateway = Gateway::start(&config("old", "priority"), &Options::default());
    assert_eq!(gateway.ask("old").await.status, 200);
    write(&gateway, &config("new", "priority"));
    gateway.wait_for(RELOADED, 1);
    assert_eq!(gateway.ask("new").await.status, 200);
    gateway.ask("old").await.refused(404, "model_not_found");
    // Counters are those of the plugin, which stayed the same.
    assert_eq!(gateway.counters("priority").await.calls("rank"), 2);
    write(&gateway, &config("newer", "nobody"));
    gateway.wait_for(REFUSED, 1);
    assert_eq!(gateway.ask("new").await.status, 200);
    let page = gateway.get("/admin/v1/config").await.json();
    assert_eq!((&page["state"], page["generation"].as_u64()), (&"refused".into(), Some(2)), "{page:#}");
    assert!(page["reason"].as_str().unwrap().contains("models[0].policy = \"nobody\""), "{page:#}");
    write(&gateway, "[server\n");
    gateway.wait_for(REFUSED, 2);
    fs::remove_file(gateway.folder().join("sluice.toml")).unwrap();
    gateway.wait_for(REFUSED, 3);
    assert_eq!(gateway.ask("new").await.status, 200);
    write(&gateway, &config("newest", "cheapest"));
    gateway.wait_for(RELOADED, 2);
    assert_eq!(gateway.ask("newest").await.status, 200);
    assert_eq!(gateway.get("/admin/v1/config").await.json()["state"], "active");
}

#[tokio::test]
async fn what_needs_a_restart_is_said() {
    let gateway = Gateway::start(&config("old", "priority"), &Options::default());
    let moved =
        config("new", "priority").replace("127.0.0.1:0", "127.0.0.1:1") + "[plugins]\ndir = \"elsewhere\"\n";
    write(&gateway, &moved);
    gateway.wait_for(RELOADED, 1);
    assert_eq!(gateway.ask("new").await.status, 200, "the rest serves, at the old address");
    let page = gateway.get("/admin/v1/config").await.json();
    assert_eq!(page["needs_restart"], serde_json::json!(["server.listen", "plugins.dir"]));
}

/// A configuration and the plugin that it names may come in either order.
#[tokio::test]
async fn a_configuration_waits_for_its_plugin() {
    let gateway = Gateway::start(&config("both", "priority"), &Options::default());
    write(&gateway, &config("both", "dearest"));
    gateway.wait_for(REFUSED, 1);
    fs::create_dir(gateway.folder().join("plugins.d")).unwrap();
    fs::write(gateway.folder().join("plugins.d/dearest.wasm"), example("dearest")).unwrap();
    gateway.wait_for(RELOADED, 1);
    assert_eq!(gateway.ask("both").await.status, 200);
    assert_eq!(gateway.counters("dearest").await.calls("rank"), 1);
}

/// A secret that is rotated in its file, and one in `.env`, are those that are sent.
#[tokio::test]
async fn a_rotated_secret_is_the_one_that_is_sent() {
    let simulator = Simulator::start("127.0.0.1:0").await.unwrap();
    let folder = tempfile::tempdir().unwrap();
    let upstream = |name: &str, secret: &str| {
        let url = simulator.base_url(name);
        format!(
            "[upstreams.{name}]\nadapter = \"openai\"\nbase_url = \"{url}\"\nsecrets = {{ api-key = \"{secret}\" }}\n\
             [[models]]\nname = \"{name}\"\ntargets = [{{ upstream = \"{name}\" }}]\n"
        )
    };
    let text = "[server]\nlisten = \"127.0.0.1:0\"\n".to_owned()
        + &upstream("a", "file:key")
        + &upstream("b", "env:ROTATED");
    fs::write(folder.path().join("sluice.toml"), text).unwrap();
    fs::write(folder.path().join("key"), "first-a\n").unwrap();
    fs::write(folder.path().join(".env"), "ROTATED=first-b\n").unwrap();
    let gateway = Gateway::start_in(folder, &Options::default());
    let sent = async || {
        for model in ["a", "b"] {
            assert_eq!(gateway.ask(model).await.status, 200);
        }
        let rows = simulator.books().rows;
        simulator.clear_books();
        let key = |headers: &[(String, String)]| {
            headers.iter().find(|(name, _)| name == "authorization").unwrap().1.clone()
        };
        rows.iter().map(|row| key(&row.headers)).collect::<Vec<_>>()
    };
    assert_eq!(sent().await, ["Bearer first-a", "Bearer first-b"]);
    // The vendor has changed it already: until the operator follows, it rests.
    simulator.direct("a", serde_json::from_value(serde_json::json!({"key": "second-a"})).unwrap());
    gateway.ask("a").await.refused(502, "upstream_refused_credential");
    let rests = async || gateway.get("/admin/v1/breakers").await.json()["breakers"][0]["rests"].clone();
    assert_eq!(rests().await["reason"], "credential");
    simulator.clear_books();
    fs::write(gateway.folder().join("key"), "second-a\n").unwrap();
    gateway.wait_for(RELOADED, 1);
    fs::write(gateway.folder().join(".env"), "ROTATED=second-b\n").unwrap();
    gateway.wait_for(RELOADED, 2);
    assert!(rests().await.is_null(), "it may be asked at once");
    assert_eq!(sent().await, ["Bearer second-a", "Bearer second-b"]);
}
