//! Plugins dropped into the watched folder of a gateway that serves.

#![allow(clippy::unwrap_used, reason = "a test fails by it")]

use std::fs::{self, OpenOptions, Permissions};
use std::io::Write;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};

use serde_json::Value;
use sluice_tests::versions::{adapter, example, policy, relabelled};
use sluice_tests::{Gateway, Options};

/// `echo` is built in; `marked` is there only if it is dropped.
const ECHO: &str = r#"
[server]
listen = "127.0.0.1:0"
[upstreams.one]
adapter = "echo"
[upstreams.two]
adapter = "echo"
[[models]]
name = "echo"
targets = [{ upstream = "one" }, { upstream = "two" }]
"#;

const MARKED: &str = r#"
[server]
listen = "127.0.0.1:0"
[upstreams.one]
adapter = "marked"
[[models]]
name = "marked"
targets = [{ upstream = "one" }]
"#;

const ACTIVATED: &str = "transition=\"activated\"";
const REFUSED: &str = "transition=\"refused\"";
const REMOVED: &str = "transition=\"removed\"";

/// A gateway with these files in its folder from the start.
fn start(config: &str, files: &[(&str, &[u8])]) -> Gateway {
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("sluice.toml"), config).unwrap();
    fs::create_dir(folder.path().join("plugins.d")).unwrap();
    for (name, bytes) in files {
        fs::write(folder.path().join("plugins.d").join(name), bytes).unwrap();
    }
    Gateway::start_in(folder, &Options::default())
}

fn place(gateway: &Gateway, name: &str) -> PathBuf {
    gateway.folder().join("plugins.d").join(name)
}

fn drop_in(gateway: &Gateway, name: &str, bytes: &[u8]) {
    fs::write(place(gateway, name), bytes).unwrap();
}

async fn generation(gateway: &Gateway) -> u64 {
    gateway.plugins().await["generation"].as_u64().unwrap()
}

/// The row of one file: its state, and the reason.
async fn file(gateway: &Gateway, name: &str) -> (String, String) {
    let plugins = gateway.plugins().await;
    let rows = plugins["files"].as_array().unwrap();
    let row = rows.iter().find(|row| row["file"].as_str().unwrap().ends_with(&format!("/{name}")));
    let row = row.unwrap_or_else(|| panic!("{name} is not listed in {plugins:#}"));
    let text = |key: &str| row[key].as_str().unwrap_or_default().to_owned();
    (text("state"), text("reason"))
}

/// Waits until a file that changes nothing is listed, and gives the reason.
async fn refused(gateway: &Gateway, name: &str, bytes: &[u8]) -> String {
    let before = gateway.log().matches(REFUSED).count();
    drop_in(gateway, name, bytes);
    gateway.wait_for(REFUSED, before + 1);
    let (state, reason) = file(gateway, name).await;
    assert_eq!(state, "refused", "{name}: {reason}");
    reason
}

#[tokio::test]
async fn a_dropped_file_serves_in_place_of_the_built_in_and_its_removal_brings_that_back() {
    let gateway = start(ECHO, &[]);
    assert_eq!(gateway.ask("echo").await.content(), "one two three");
    drop_in(&gateway, "shout.wasm", &example("shout"));
    gateway.wait_for(ACTIVATED, 1);
    assert_eq!(gateway.ask("echo").await.content(), "ONE TWO THREE");
    let row = gateway.counters("echo").await;
    assert_eq!((row.row()["generation"].as_u64(), row.calls("plan")), (Some(2), 1));
    assert_eq!(row.row()["state"], "probation");
    assert!(row.row()["source"].as_str().unwrap().ends_with("plugins.d/shout.wasm"), "{:#}", row.row());
    fs::remove_file(place(&gateway, "shout.wasm")).unwrap();
    gateway.wait_for(REMOVED, 1);
    assert_eq!(gateway.ask("echo").await.content(), "one two three");
    assert_eq!(gateway.counters("echo").await.row()["source"], "built-in");
    assert_eq!(generation(&gateway).await, 3);
    let metrics = String::from_utf8(gateway.get("/metrics").await.body.to_vec()).unwrap();
    for line in [
        "sluice_generation 3",
        r#"sluice_transitions_total{transition="activated"} 1"#,
        r#"sluice_transitions_total{transition="removed"} 1"#,
        r#"sluice_plugin_calls_total{plugin="priority",function="rank"} 3"#,
    ] {
        assert!(metrics.lines().any(|known| known == line), "{line} is not in\n{metrics}");
    }
}

#[tokio::test]
async fn a_file_that_is_no_plugin_changes_nothing_but_a_line_in_the_list() {
    let gateway = start(ECHO, &[("good.wasm", &adapter("ok", "good"))]);
    let good = adapter("ok", "good");
    let component = |text: &str| wat::parse_str(text).unwrap();
    let cases: [(&str, Vec<u8>, &str); 13] = [
        ("empty.wasm", Vec::new(), "empty"),
        ("text.wasm", b"hello".to_vec(), "no WebAssembly"),
        ("truncated.wasm", good[..good.len() / 2].to_vec(), "out of bounds"),
        ("core.wasm", component("(module)"), "sluice plugin build"),
        ("no-world.wasm", component("(component)"), "exports"),
        (
            "other-world.wasm",
            component(r#"(component (instance $i) (export "wasi:http/handler@1.0.0" (instance $i)))"#),
            "wasi:http/handler",
        ),
        (
            "later-world.wasm",
            component(r#"(component (instance $i) (export "sluice:plugin/inventory@0.1.0" (instance $i)))"#),
            "does not call yet",
        ),
        (
            "half-strategy.wasm",
            component(r#"(component (instance $i) (export "sluice:plugin/bidding@0.1.0" (instance $i)))"#),
            "lifecycle",
        ),
        (
            "two-worlds.wasm",
            component(
                r#"(component (instance $i) (export "sluice:plugin/bidding@0.1.0" (instance $i)) (export "sluice:plugin/policy@0.1.0" (instance $i)))"#,
            ),
            "not exactly one",
        ),
        (
            "half-world.wasm",
            component(r#"(component (instance $i) (export "sluice:plugin/policy@0.1.0" (instance $i)))"#),
            "lifecycle",
        ),
        (
            "wasi.wasm",
            component(
                r#"(component (import "wasi:cli/environment@0.2.0" (instance (export "get-environment" (func)))) (instance $i) (export "sluice:plugin/policy@0.1.0" (instance $i)))"#,
            ),
            "wasi:cli/environment@0.2.0",
        ),
        ("spin.wasm", adapter("spin-in-describe", ""), "describe failed (cpu)"),
        ("trap.wasm", adapter("trap-in-self-test", ""), "self-test failed (panic)"),
    ];
    for (name, bytes, wanted) in cases {
        let reason = refused(&gateway, name, &bytes).await;
        assert!(reason.contains(wanted), "{name}: {reason}");
    }
    let said = refused(&gateway, "says-no.wasm", &adapter("fail-self-test", "")).await;
    assert!(said.contains("two and two are five"), "{said}");
    let zeros = refused(&gateway, "zeros.wasm", &vec![0; 40 * 1024 * 1024]).await;
    assert!(zeros.contains("no WebAssembly"), "{zeros}");
    assert_eq!(generation(&gateway).await, 1);
    assert_eq!(file(&gateway, "good.wasm").await.0, "active");
    assert_eq!(gateway.ask("echo").await.content(), "one two three");
}

#[tokio::test]
async fn a_file_that_may_not_be_read_or_trusted_changes_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let plugins = folder.path().join("plugins.d");
    fs::write(folder.path().join("sluice.toml"), ECHO).unwrap();
    fs::create_dir(&plugins).unwrap();
    let version = |label| relabelled(&adapter("ok", "x"), label);
    fs::create_dir(plugins.join("directory.wasm")).unwrap();
    symlink("/etc/passwd", plugins.join("passwd.wasm")).unwrap();
    symlink("nowhere", plugins.join("dangling.wasm")).unwrap();
    fs::write(plugins.join("unreadable.wasm"), version(1)).unwrap();
    fs::set_permissions(plugins.join("unreadable.wasm"), Permissions::from_mode(0o000)).unwrap();
    fs::write(plugins.join("anyone.wasm"), version(2)).unwrap();
    fs::set_permissions(plugins.join("anyone.wasm"), Permissions::from_mode(0o666)).unwrap();
    fs::write(plugins.join("stranger.wasm"), version(3)).unwrap();
    std::os::unix::fs::chown(plugins.join("stranger.wasm"), Some(4321), None).unwrap();
    rustix::fs::mknodat(
        rustix::fs::CWD,
        plugins.join("pipe.wasm"),
        rustix::fs::FileType::Fifo,
        0o644.into(),
        0,
    )
    .unwrap();
    // As a user whose files those of root are not: root itself can read everything.
    fs::set_permissions(folder.path(), Permissions::from_mode(0o755)).unwrap();
    let gateway = Gateway::start_in(folder, &Options { user: Some(65534), ..Options::default() });
    for (name, wanted) in [
        ("directory.wasm", "directory"),
        ("passwd.wasm", "/etc/passwd, outside of the folder"),
        ("dangling.wasm", "cannot be read"),
        ("unreadable.wasm", "cannot be read"),
        ("anyone.wasm", "chmod o-w"),
        ("stranger.wasm", "user 4321"),
        ("pipe.wasm", "pipe"),
    ] {
        let (state, reason) = file(&gateway, name).await;
        assert_eq!(state, "refused", "{name}");
        assert!(reason.contains(wanted), "{name}: {reason}");
    }
    assert_eq!(generation(&gateway).await, 1);
    assert_eq!(gateway.ask("echo").await.content(), "one two three");
}

#[tokio::test]
async fn of_two_files_with_one_id_the_active_one_stays_until_it_goes() {
    let gateway = start(MARKED, &[("b.wasm", &adapter("ok", "b"))]);
    drop_in(&gateway, "a.wasm", &adapter("ok", "a"));
    gateway.wait_for("transition=\"standby\"", 1);
    assert_eq!(gateway.ask("marked").await.content(), "b");
    let (state, reason) = file(&gateway, "a.wasm").await;
    assert_eq!(state, "standby");
    assert!(reason.contains("b.wasm"), "{reason}");
    fs::remove_file(place(&gateway, "b.wasm")).unwrap();
    gateway.wait_for(ACTIVATED, 2);
    assert_eq!(gateway.ask("marked").await.content(), "a");
    // A rename is no change of who serves.
    let before = generation(&gateway).await;
    fs::rename(place(&gateway, "a.wasm"), place(&gateway, "c.wasm")).unwrap();
    drop_in(&gateway, "z.wasm", b"marks the time");
    gateway.wait_for(REFUSED, 1);
    assert_eq!(gateway.ask("marked").await.content(), "a");
    assert_eq!(generation(&gateway).await, before);
}

/// A plugin that the configuration names cannot be missed; the last good one serves, over a
/// restart as well.
#[tokio::test]
async fn what_cannot_be_missed_serves_on_when_its_file_is_spoilt_or_gone() {
    let gateway = start(MARKED, &[("marked.wasm", &adapter("ok", "good"))]);
    let reason = refused(&gateway, "marked.wasm", b"spoilt").await;
    assert!(reason.contains("no WebAssembly"), "{reason}");
    assert_eq!(gateway.ask("marked").await.content(), "good");
    let gateway = Gateway::start_in(gateway.crash(), &Options::default());
    assert_eq!(gateway.ask("marked").await.content(), "good");
    assert_eq!(file(&gateway, "marked.wasm").await.0, "refused");
    fs::remove_file(place(&gateway, "marked.wasm")).unwrap();
    gateway.wait_for("cannot be missed", 1);
    assert_eq!(gateway.ask("marked").await.content(), "good");
    // Back under another name, and better.
    drop_in(&gateway, "renamed.wasm", &adapter("ok", "better"));
    gateway.wait_for(ACTIVATED, 1);
    assert_eq!(gateway.ask("marked").await.content(), "better");
    assert_eq!(gateway.plugins().await["files"].as_array().unwrap().len(), 1);
    fs::rename(place(&gateway, "renamed.wasm"), place(&gateway, "marked.wasm")).unwrap();
    // The folder as a whole says nothing about its files when it is not there.
    fs::rename(gateway.folder().join("plugins.d"), gateway.folder().join("away")).unwrap();
    gateway.wait_for("tells nothing", 1);
    assert_eq!(gateway.ask("marked").await.content(), "better");
    let gateway = Gateway::start_in(gateway.crash(), &Options::default());
    assert_eq!(gateway.ask("marked").await.content(), "better");
    fs::rename(gateway.folder().join("away"), gateway.folder().join("plugins.d")).unwrap();
    drop_in(&gateway, "marked.wasm", &adapter("ok", "best"));
    gateway.wait_for(ACTIVATED, 1);
    assert_eq!(gateway.ask("marked").await.content(), "best");
}

#[tokio::test]
async fn a_version_that_breaks_down_over_the_vectors_does_not_serve() {
    let gateway = start(MARKED, &[("marked.wasm", &adapter("ok", "good"))]);
    let reason = refused(&gateway, "marked.wasm", &adapter("trap-in-vector", "bad")).await;
    assert!(reason.contains("test request: panic"), "{reason}");
    assert_eq!(gateway.ask("marked").await.content(), "good");
    assert_eq!(gateway.counters("marked").await.all_faults(), [], "it was not the one that serves");
}

/// Every way in which a file comes to be where it is.
#[tokio::test]
async fn copies_moves_and_editors_lead_to_the_last_content() {
    let gateway = start(MARKED, &[("marked.wasm", &adapter("ok", "0"))]);
    let mut activated = gateway.log().matches(ACTIVATED).count();
    let mut serves = async |gateway: &Gateway, answer: &str| {
        activated += 1;
        gateway.wait_for(ACTIVATED, activated);
        assert_eq!(gateway.ask("marked").await.content(), answer);
    };
    // In chunks, each a change: nothing between them is taken for a plugin.
    let bytes = adapter("ok", "chunks");
    let mut open =
        OpenOptions::new().write(true).truncate(true).open(place(&gateway, "marked.wasm")).unwrap();
    for chunk in bytes.chunks(bytes.len() / 10 + 1) {
        open.write_all(chunk).unwrap();
        assert_eq!(gateway.ask("marked").await.content(), "0");
    }
    drop(open);
    serves(&gateway, "chunks").await;
    // `mv` over it.
    fs::write(gateway.folder().join("new"), adapter("ok", "moved")).unwrap();
    fs::rename(gateway.folder().join("new"), place(&gateway, "marked.wasm")).unwrap();
    serves(&gateway, "moved").await;
    // As vim saves: the old one becomes a backup, the new one is written, the backup goes.
    fs::rename(place(&gateway, "marked.wasm"), place(&gateway, "marked.wasm~")).unwrap();
    fs::write(place(&gateway, ".marked.wasm.swp"), b"b0VIM").unwrap();
    drop_in(&gateway, "4913", b"");
    drop_in(&gateway, "marked.wasm", &adapter("ok", "edited"));
    fs::remove_file(place(&gateway, "marked.wasm~")).unwrap();
    serves(&gateway, "edited").await;
    // Deleted and created again.
    fs::remove_file(place(&gateway, "marked.wasm")).unwrap();
    drop_in(&gateway, "marked.wasm", &adapter("ok", "again"));
    serves(&gateway, "again").await;
    assert_eq!(gateway.log().matches(REFUSED).count(), 0, "{}", gateway.log());
    assert_eq!(gateway.plugins().await["files"].as_array().unwrap().len(), 1, "no temporary file is listed");
}

/// Kubernetes swaps a ConfigMap by one rename of the link `..data`.
#[tokio::test]
async fn a_config_map_swapped_twice_at_once_leads_to_its_last_content() {
    let folder = tempfile::tempdir().unwrap();
    let plugins = folder.path().join("plugins.d");
    fs::create_dir(&plugins).unwrap();
    fs::write(folder.path().join("sluice.toml"), MARKED).unwrap();
    let publish = |plugins: &Path, version: &str| {
        let data = plugins.join(format!("..2026_{version}"));
        fs::create_dir(&data).unwrap();
        fs::write(data.join("marked.wasm"), adapter("ok", version)).unwrap();
        symlink(format!("..2026_{version}"), plugins.join("..data_tmp")).unwrap();
        fs::rename(plugins.join("..data_tmp"), plugins.join("..data")).unwrap();
    };
    publish(&plugins, "first");
    symlink("..data/marked.wasm", plugins.join("marked.wasm")).unwrap();
    let gateway = Gateway::start_in(folder, &Options::default());
    assert_eq!(gateway.ask("marked").await.content(), "first");
    let plugins = gateway.folder().join("plugins.d");
    publish(&plugins, "second");
    publish(&plugins, "third");
    gateway.wait_for(ACTIVATED, 2);
    assert_eq!(gateway.ask("marked").await.content(), "third");
    assert_eq!(generation(&gateway).await, 2, "the second was never seen");
}

#[tokio::test]
async fn fifty_files_at_once_are_taken_one_by_one() {
    let gateway = start(ECHO, &[]);
    for number in 0..50 {
        drop_in(&gateway, &format!("{number}.wasm"), &relabelled(&adapter("ok", "x"), number));
    }
    drop_in(&gateway, "shout.wasm", &example("shout"));
    gateway.wait_for("transition=\"standby\"", 49);
    gateway.wait_for(ACTIVATED, 2);
    assert_eq!(gateway.ask("echo").await.content(), "ONE TWO THREE");
    assert_eq!(generation(&gateway).await, 3);
    assert_eq!(gateway.plugins().await["files"].as_array().unwrap().len(), 51);
}

#[tokio::test]
async fn a_disk_that_is_full_keeps_nobody_from_serving() {
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path().join("data");
    fs::create_dir(&data).unwrap();
    let _disk = SmallDisk::mount(&data);
    fs::create_dir(folder.path().join("plugins.d")).unwrap();
    fs::write(folder.path().join("sluice.toml"), ECHO).unwrap();
    let gateway = Gateway::start_in(folder, &Options::default());
    drop_in(&gateway, "shout.wasm", &example("shout"));
    gateway.wait_for(ACTIVATED, 1);
    gateway.wait_for("is not kept for the next start", 1);
    assert_eq!(gateway.ask("echo").await.content(), "ONE TWO THREE");
}

/// A file system of 16 KiB; gone when dropped.
struct SmallDisk(PathBuf);

impl SmallDisk {
    fn mount(at: &Path) -> SmallDisk {
        let mounted = std::process::Command::new("mount")
            .args(["-t", "tmpfs", "-o", "size=16k,mode=700", "tmpfs"])
            .arg(at)
            .status();
        assert!(mounted.unwrap().success(), "only root can mount a small disk");
        SmallDisk(at.into())
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        let _ = std::process::Command::new("umount").arg("-l").arg(&self.0).status();
    }
}

/// While plugins change, each answer is whole and by one version.
#[tokio::test]
async fn no_request_fails_while_versions_alternate() {
    let versions = [adapter("ok", "tick"), adapter("ok", "tock")];
    let gateway = start(MARKED, &[("marked.wasm", &versions[0])]);
    let before = gateway.log().matches(ACTIVATED).count();
    let mut seen = Value::Null;
    for round in 1..=20 {
        fs::write(gateway.folder().join("new"), &versions[round % 2]).unwrap();
        fs::rename(gateway.folder().join("new"), place(&gateway, "marked.wasm")).unwrap();
        while gateway.log().matches(ACTIVATED).count() < before + round {
            let answers = tokio::join!(gateway.ask("marked"), gateway.ask("marked"), gateway.ask("marked"));
            for answer in [answers.0, answers.1, answers.2] {
                let content = answer.content();
                assert!(["tick", "tock"].contains(&content.as_str()), "{answer:?}");
                seen[content] = true.into();
            }
        }
    }
    assert_eq!(seen, serde_json::json!({"tick": true, "tock": true}));
    assert_eq!(generation(&gateway).await, 21);
}

/// A policy is swapped like an adapter: its order decides from then on.
#[tokio::test]
async fn a_dropped_policy_decides_the_next_request() {
    let config = r#"
[server]
listen = "127.0.0.1:0"
[upstreams.echo]
adapter = "echo"
[upstreams.shout]
adapter = "marked"
[[models]]
name = "both"
policy = "marked-policy"
targets = [{ upstream = "echo" }, { upstream = "shout" }]
"#;
    let gateway =
        start(config, &[("marked.wasm", &adapter("ok", "marked")), ("policy.wasm", &policy("ok", 0))]);
    assert_eq!(gateway.ask("both").await.content(), "one two three");
    let before = gateway.log().matches(ACTIVATED).count();
    drop_in(&gateway, "policy.wasm", &policy("ok", 1));
    gateway.wait_for(ACTIVATED, before + 1);
    assert_eq!(gateway.ask("both").await.content(), "marked");
    assert_eq!(gateway.counters("marked-policy").await.calls("rank"), 1);
}
