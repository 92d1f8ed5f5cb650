//! What the design keeps out, and where: read from Cargo and from the sources.

#![allow(clippy::unwrap_used, reason = "a test fails by it")]

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::Value;
use sluice_tests::workspace::root;

/// All that may stand beside the dot-files in the repository.
const TOP_LEVEL: [&str; 11] = [
    "Cargo.lock",
    "Cargo.toml",
    "LICENSE",
    "README.md",
    "examples",
    "host",
    "plugins",
    "sdk",
    "tests",
    "wit",
    // Cargo's own, and not committed.
    "target",
];

/// Modules of the host at the edges of HTTP: who listens, who sends, who answers, who reads
/// a request, who writes a secret into one, and who checks an address or a header's value that
/// was configured.
const HTTP_EDGES: [&str; 19] = [
    "host/src/admin.rs",
    "host/src/answer.rs",
    "host/src/attempts.rs",
    "host/src/auth.rs",
    "host/src/call.rs",
    "host/src/caller.rs",
    "host/src/fault.rs",
    "host/src/frames.rs",
    "host/src/gateway.rs",
    "host/src/ledger_pages.rs",
    "host/src/prepared.rs",
    "host/src/rate_headers.rs",
    "host/src/refusal.rs",
    "host/src/routes",
    "host/src/server.rs",
    "host/src/signer.rs",
    "host/src/stream.rs",
    "host/src/upload.rs",
    "host/src/vendor_error.rs",
];

/// The modules that may send.
const SENDERS: [&str; 2] = ["host/src/connector.rs", "host/src/upstream.rs"];

/// The modules that send to the market and to our own endpoint: a few calls a second, for which reqwest
/// is good enough.
const MARKET_SENDERS: [&str; 2] = ["host/src/market/endpoint.rs", "host/src/market/transport.rs"];

/// Production lines of a file at most.
const LINES_MAX: usize = 400;

fn cargo(arguments: &[&str]) -> String {
    let output = Command::new(env!("CARGO")).args(arguments).current_dir(root()).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

/// Names of what a package is built of, itself included.
fn tree(package: &str, edges: &str) -> BTreeSet<String> {
    let tree = cargo(&[
        "tree",
        "--offline",
        "--locked",
        "-p",
        package,
        "-e",
        edges,
        "--prefix",
        "none",
        "-f",
        "{p}",
    ]);
    tree.lines().filter_map(|line| line.split(' ').next()).map(str::to_owned).collect()
}

/// Sources under a folder of the workspace, by path from its root.
fn sources(folder: &str) -> BTreeMap<String, String> {
    let mut found = BTreeMap::new();
    let mut open = vec![root().join(folder)];
    while let Some(path) = open.pop() {
        if path.is_dir() {
            let skipped = path.file_name().is_some_and(|name| name == "target");
            open.extend(entries(&path).filter(|_| !skipped));
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            let name = path.strip_prefix(root()).unwrap().to_str().unwrap().to_owned();
            found.insert(name, std::fs::read_to_string(&path).unwrap());
        }
    }
    assert!(!found.is_empty(), "there are no sources in {folder}");
    found
}

fn entries(folder: &Path) -> impl Iterator<Item = PathBuf> {
    std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path())
}

/// Whether code, not a comment, uses a crate by path.
fn uses(source: &str, krate: &str) -> bool {
    let code = source.lines().filter(|line| !line.trim_start().starts_with("//"));
    let mut words = code.flat_map(|line| line.match_indices(krate).map(move |(at, _)| (line, at)));
    words.any(|(line, at)| {
        let before = line[..at].chars().next_back();
        let part_of_a_word =
            before.is_some_and(|c| c.is_alphanumeric() || c == '_' || c == ':' || c == '"' || c == '.');
        let after = &line[at + krate.len()..];
        !part_of_a_word
            && (after.starts_with("::") || (after.starts_with(';') && line.trim_start().starts_with("use ")))
    })
}

/// Where code uses a crate, but for these prefixes of paths.
fn users(folder: &str, krate: &str, but: &[&str]) -> Vec<String> {
    let sources = sources(folder);
    let users = sources.iter().filter(|(_, source)| uses(source, krate));
    users
        .map(|(path, _)| path.clone())
        .filter(|path| !but.iter().any(|allowed| path.starts_with(allowed)))
        .collect()
}

#[test]
fn the_searches_find_what_is_there() {
    assert!(
        uses("    let x = hyper::rt();", "hyper")
            && uses("use hyper::body;", "hyper")
            && uses("use hyper;", "hyper")
    );
    assert!(!uses("// use hyper::body;", "hyper") && !uses("use hyper_util::rt;", "hyper"));
    assert!(!uses("mod not_hyper; x_hyper::y()", "hyper"));
    assert!(!users("host/runtime/src", "wasmtime", &[]).is_empty());
    assert!(tree("sluice", "normal").contains("wasmtime"));
}

/// A default feature of wasmtime that triples the cost of a synchronous call.
#[test]
fn component_model_async_is_nowhere() {
    let features = cargo(&[
        "tree",
        "--offline",
        "--locked",
        "-p",
        "sluice",
        "-e",
        "features,normal,build",
        "--prefix",
        "none",
    ]);
    assert!(features.contains("wasmtime feature \"component-model\""), "the control: features are listed");
    let found: Vec<&str> = features.lines().filter(|line| line.contains("component-model-async")).collect();
    assert!(found.is_empty(), "{found:?}");
}

#[test]
fn crates_depend_in_one_direction() {
    let core = tree("sluice-core", "normal,build");
    for heavy in ["tokio", "hyper", "wasmtime", "reqwest", "http", "sluice-runtime", "sluice"] {
        assert!(!core.contains(heavy), "sluice-core is built of {heavy}");
    }
    let runtime = tree("sluice-runtime", "normal,build");
    for edge in ["hyper", "reqwest", "http", "sluice", "sluice-simulate"] {
        assert!(!runtime.contains(edge), "sluice-runtime is built of {edge}");
    }
    assert!(runtime.contains("sluice-core"), "the control");
    let ours: Vec<String> = tree("sluice-simulate", "all")
        .into_iter()
        .filter(|name| name.starts_with("sluice") && name != "sluice-simulate")
        .collect();
    assert!(ours.is_empty(), "sluice-simulate is built of {ours:?}");
    let host = tree("sluice", "normal,build");
    for guest_side in ["sluice-plugin", "sluice-simulate", "sluice-tests", "wit-bindgen"] {
        assert!(!host.contains(guest_side), "the host is built of {guest_side}");
    }
}

#[test]
fn each_edge_has_its_modules() {
    assert_eq!(users("host/src", "wasmtime", &[]), [""; 0], "only the runtime knows wasmtime");
    assert_eq!(users("host/core", "std::fs", &[]), [""; 0]);
    for krate in ["hyper", "hyper_util", "http", "http_body", "http_body_util", "hyper_rustls"] {
        let but: Vec<&str> = HTTP_EDGES.into_iter().chain(SENDERS).chain(MARKET_SENDERS).collect();
        assert_eq!(users("host/src", krate, &but), [""; 0], "{krate} is used away from the edges");
    }
    assert_eq!(users("host/src", "hyper_util::client", &SENDERS), [""; 0], "one place sends");
    assert_eq!(users("host/src", "reqwest", &[]), MARKET_SENDERS, "two places send with it");
    let hashes = ["host/ledger/src/keys/secret.rs", "host/ledger/src/seal.rs"];
    assert_eq!(users("host", "ring", &[]), hashes, "one place seals, one hashes keys");
    assert_eq!(
        users("host/src", "std::env", &["host/src/config/", "host/src/plugin_build"]),
        [""; 0],
        "one door to the environment"
    );
    assert_eq!(users("host/src", "crate::app", &["host/src/main.rs"]), [""; 0], "nobody knows app");
    assert_eq!(
        users("host/runtime/src", "bindings::adapter::exports", &["host/runtime/src/bindings.rs"]),
        [""; 0]
    );
}

/// A vendor's name in the host would be a special case for it.
#[test]
fn no_vendor_is_known_by_name() {
    let catalogue = std::fs::read_to_string(root().join("plugins/vendors.toml")).unwrap();
    let vendors: toml::Table = catalogue.parse().unwrap();
    let code =
        sources("host/src").into_iter().chain(sources("host/core/src")).chain(sources("host/runtime/src"));
    for (path, source) in code {
        let production = production(&source);
        let code = production.iter().filter(|line| !line.trim_start().starts_with("//"));
        for line in code {
            // These are also the names of wires: clients send their headers.
            let is_wire = |name: &str| name == "openai" || name == "anthropic";
            let named = vendors.keys().filter(|name| !is_wire(name) && line.contains(&format!("\"{name}")));
            let named: Vec<_> = named.collect();
            assert!(
                named.is_empty() || line.contains("wanted") || line.contains("such as"),
                "{path}: {line}"
            );
        }
    }
}

#[test]
fn the_catalogue_has_ten_vendors_whose_adapters_exist() {
    let catalogue = std::fs::read_to_string(root().join("plugins/vendors.toml")).unwrap();
    let vendors: toml::Table = catalogue.parse().unwrap();
    assert!(vendors.len() >= 10, "{} vendors", vendors.len());
    let mut keys = BTreeSet::new();
    for (name, vendor) in &vendors {
        let text = |key: &str| {
            vendor.get(key).and_then(toml::Value::as_str).unwrap_or_else(|| panic!("{name}: no {key}"))
        };
        assert!(
            root().join("plugins/adapters").join(text("adapter")).is_dir(),
            "{name}: adapter {}",
            text("adapter")
        );
        assert!(root().join("plugins/dist").join(text("adapter")).with_extension("wasm").is_file(), "{name}");
        let url = text("base_url");
        assert!(url.starts_with("https://") && !url.ends_with('/'), "{name}: {url}");
        assert!(keys.insert(text("key").to_owned()), "{name}: {} is another vendor's too", text("key"));
        assert!(
            name.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-'),
            "{name}"
        );
    }
}

#[test]
fn the_repository_has_no_other_entries() {
    let names = entries(root()).map(|path| path.file_name().unwrap().to_str().unwrap().to_owned());
    // What a user makes by running the gateway here is not part of it.
    let ignored = fs::read_to_string(root().join(".gitignore")).unwrap();
    let is_ignored = |name: &str| ignored.lines().any(|line| line.strip_prefix('/') == Some(name));
    let known = |name: &str| name.starts_with('.') || TOP_LEVEL.contains(&name) || is_ignored(name);
    let strange: Vec<String> = names.filter(|name| !known(name)).collect();
    assert!(strange.is_empty(), "{strange:?}");
}

/// Lines before the tests at a file's end.
fn production(source: &str) -> Vec<&str> {
    source.lines().take_while(|line| *line != "#[cfg(test)]").collect()
}

#[test]
fn no_file_is_longer_than_one_reads() {
    for folder in ["host", "plugins", "sdk", "tests"] {
        for (path, source) in sources(folder) {
            let is_test = path.contains("/tests/") || path.ends_with("/tests.rs");
            let lines = production(&source).len();
            assert!(is_test || lines <= LINES_MAX, "{path} has {lines} lines");
        }
    }
}

/// Lints are the workspace's, versions too: a crate that says otherwise stands out here.
#[test]
fn every_crate_takes_lints_and_versions_from_the_workspace() {
    let metadata: Value =
        cargo(&["metadata", "--offline", "--locked", "--no-deps", "--format-version", "1"]).parse().unwrap();
    for package in metadata["packages"].as_array().unwrap() {
        let manifest = std::fs::read_to_string(package["manifest_path"].as_str().unwrap()).unwrap();
        let manifest: toml::Table = manifest.parse().unwrap();
        let name = package["name"].as_str().unwrap();
        assert_eq!(manifest["lints"]["workspace"].as_bool(), Some(true), "{name}");
        for kind in ["dependencies", "dev-dependencies", "build-dependencies"] {
            let dependencies =
                manifest.get(kind).and_then(toml::Value::as_table).cloned().unwrap_or_default();
            for (dependency, how) in dependencies {
                let shared = how.get("workspace").is_some() || how.get("path").is_some();
                assert!(shared, "{name}: {dependency} has a version of its own");
            }
        }
    }
}
