//! A configuration is taken whole or refused with its line, its key, its value and what was
//! wanted; `sluice check` is the same path as starting.

#![allow(clippy::unwrap_used, reason = "a test fails by it")]

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use sluice_tests::command::{Run, run};
use sluice_tests::workspace::{self, root};
use sluice_tests::{Gateway, Options};

const VARIABLES: [(&str, &str); 3] = [("KEY", "k"), ("BLANK", "  "), ("HEX", MASTER_KEY)];

const MASTER_KEY: &str = "00112233445566778899aabbccddeeff00112233445566778899aabbccddeeff";

/// A configuration that is good; the wrong lines go at its end or take the place of one of its own.
const GOOD: &str = r#"
[server]
listen = "127.0.0.1:0"
workers = 2
[upstreams.vendor]
adapter = "openai"
base_url = "https://vendor.example/v1"
secrets = { api-key = "env:KEY" }
[upstreams.echo]
adapter = "echo"
[[models]]
name = "fast"
policy = "cheapest"
policy_config = { by = "worst" }
targets = [ { upstream = "vendor", model = "m", priority = 1, weight = 1, price = { input = "0.05", output = "0.08" } } ]
"#;

/// A change of [`GOOD`], and all that the message must contain.
struct Broken {
    from: &'static str,
    to: &'static str,
    says: &'static [&'static str],
}

const fn broken(from: &'static str, to: &'static str, says: &'static [&'static str]) -> Broken {
    Broken { from, to, says }
}

/// Lines are counted as in [`GOOD`], whose first line is empty.
const SYNTAX_AND_SERVER: &[Broken] = &[
    broken("[server]", "[server", &["sluice.toml:2"]),
    broken("workers = 2", "workers = 2\nworkers = 3", &["sluice.toml:5", "duplicate key"]),
    broken("\"127.0.0.1:0\"", "\"here\"", &["sluice.toml:3", "server.listen", "\"here\"", "127.0.0.1:8080"]),
    broken("\"127.0.0.1:0\"", "8080", &["sluice.toml:3", "server.listen = 8080", "string in quotes"]),
    broken(
        "\"127.0.0.1:0\"",
        "\"0.0.0.0:8080\"",
        &["sluice.toml:3", "\"0.0.0.0:8080\"", "loopback", "no client key is required"],
    ),
    broken("\"127.0.0.1:0\"", "\"[::]:8080\"", &["sluice.toml:3", "loopback"]),
    broken("\"127.0.0.1:0\"", "\"192.168.1.2:80\"", &["sluice.toml:3", "loopback"]),
    broken("workers = 2", "workers = 0", &["sluice.toml:4", "server.workers = 0", "integer from 1 to 1024"]),
    broken("workers = 2", "workers = \"two\"", &["sluice.toml:4", "server.workers = \"two\"", "integer"]),
    broken("workers = 2", "worker = 2", &["sluice.toml:4", "server.worker", "did you mean \"workers\"?"]),
    broken("[server]", "[sevrer]", &["sluice.toml:2", "sevrer", "did you mean \"server\"?"]),
    broken(
        "[server]",
        "[telemetry]\nx = 1\n[server]",
        &["sluice.toml:2", "telemetry", "unknown key", "upstreams"],
    ),
    broken(
        "[[models]]",
        "[plugins]\ndirs = \"x\"\n[[models]]",
        &["sluice.toml:12", "plugins.dirs", "did you mean \"dir\"?"],
    ),
];

const UPSTREAMS: &[Broken] = &[
    broken("adapter = \"openai\"\n", "", &["sluice.toml:5", "upstreams.vendor.adapter", "missing"]),
    broken("adapter = \"openai\"", "adaptor = \"openai\"", &["sluice.toml:6", "did you mean \"adapter\"?"]),
    broken(
        "\"openai\"",
        "\"open-ai\"",
        &["sluice.toml:6", "upstreams.vendor.adapter", "\"open-ai\"", "echo, openai"],
    ),
    broken(
        "\"openai\"",
        "\"cheapest\"",
        &["sluice.toml:6", "\"cheapest\"", "provider-adapter", "echo, openai"],
    ),
    broken(
        "base_url = \"https://vendor.example/v1\"\n",
        "",
        &["sluice.toml:5", "upstreams.vendor", "base_url is missing"],
    ),
    broken(
        "\"https://vendor.example/v1\"",
        "\"vendor.example\"",
        &["sluice.toml:7", "base_url = \"vendor.example\"", "http or https URL"],
    ),
    broken(
        "\"https://vendor.example/v1\"",
        "\"ftp://vendor.example\"",
        &["sluice.toml:7", "http or https URL"],
    ),
    broken(
        "\"https://vendor.example/v1\"",
        "\"https://vendor.example/v1?a=b\"",
        &["sluice.toml:7", "without user, query or fragment"],
    ),
    broken(
        "\"env:KEY\"",
        "\"env:NO_SUCH\"",
        &["sluice.toml:8", "upstreams.vendor.secrets.api-key", "NO_SUCH", "not set"],
    ),
    broken("\"env:KEY\"", "\"env:BLANK\"", &["sluice.toml:8", "BLANK", "not set"]),
    broken("\"env:KEY\"", "\"file:/no/such/file\"", &["sluice.toml:8", "/no/such/file", "cannot be read"]),
    broken("\"env:KEY\"", "\"store:x\"", &["sluice.toml:8", "not built yet"]),
    broken(
        "\"env:KEY\"",
        "\"a-literal-secret\"",
        &["sluice.toml:8", "upstreams.vendor.secrets.api-key", "env:NAME", "does not belong"],
    ),
    broken(
        "api-key =",
        "apikey =",
        &["sluice.toml:8", "upstreams.vendor.secrets.apikey", "no such slot", "api-key"],
    ),
    broken(
        "secrets =",
        "adapter_config = { nonsense = 1 }\nsecrets =",
        &["sluice.toml:8", "adapter_config", "nonsense"],
    ),
    broken(
        "secrets =",
        "adapter_config = { output_limit = 3 }\nsecrets =",
        &["sluice.toml:8", "adapter_config.output_limit", "openai"],
    ),
    broken(
        "secrets =",
        "adapter_config = 3\nsecrets =",
        &["sluice.toml:8", "adapter_config = 3", "wanted a table"],
    ),
];

/// Put in the place of the first `[[models]]`, line 11: its own lines are 12 and on.
const MARKET: &[Broken] = &[
    broken("[[models]]", "[market]\nmodell = \"fast\"\n[[models]]", &["toml:12", "did you mean \"model\"?"]),
    broken(
        "[[models]]",
        "[market]\nmodel = \"slow\"\n[[models]]",
        &["toml:12: market.model", "there are: fast"],
    ),
    broken(
        "[[models]]",
        "[market]\nbase_url = \"market.example\"\n[[models]]",
        &["toml:12: market.base_url", "http or https URL"],
    ),
    broken(
        "[[models]]",
        "[market]\nendpoint = \"https://a-literal-secret@x.example/\"\n[[models]]",
        &["toml:12: market.endpoint:", "http or https URL"],
    ),
    broken(
        "[[models]]",
        "[market]\napi_key = \"a-literal-secret\"\n[[models]]",
        &["toml:12: market.api_key:", "env:NAME"],
    ),
    broken(
        "[[models]]",
        "[market]\napi_key = \"env:NO\"\n[[models]]",
        &["toml:12: market.api_key", "NO is not set"],
    ),
    broken("[[models]]", "[market]\nscan_every = \"99ms\"\n[[models]]", &["toml:12", "100ms to 10m"]),
    broken("[[models]]", "[market]\nresync_every = \"2h\"\n[[models]]", &["toml:12", "1s to 1h"]),
    broken(
        "[[models]]",
        "[[budgets]]\nname = \"runs\"\nper = \"run\"\ncap_usd = \"1\"\nmissing_run = \"refuse\"\n[market]\nmodel = \"fast\"\n[[models]]",
        &["market.model", "missing_run = \"key\""],
    ),
    broken("[[models]]", "[market]\ndry_run = \"yes\"\n[[models]]", &["toml:12", "true or false"]),
    broken(
        "[[models]]",
        "[market]\nfloor_usd = 0.01\n[[models]]",
        &["toml:12", "floor_usd = 0.01", "quotes"],
    ),
    broken(
        "[[models]]",
        "[market]\nfloor_usd = \"0.3\"\nceiling_usd = \"0.2\"\n[[models]]",
        &["toml:13: market.ceiling_usd", "the floor is 0.30, the ceiling 0.20"],
    ),
    broken(
        "[[models]]",
        "[market]\nfloor_usd = \"1.01\"\n[[models]]",
        &["toml:12: market.floor_usd", "the floor is 1.01, the ceiling 1.00"],
    ),
    broken(
        "[[models]]",
        "[market]\nfloor_usd = \"0\"\nceiling_usd = \"0\"\n[[models]]",
        &["toml:13: market.ceiling_usd", "above zero"],
    ),
    broken(
        "[[models]]",
        "[market]\nceiling_usd = \"100000.1\"\n[[models]]",
        &["toml:12", "100000.00 dollars"],
    ),
    broken(
        "[[models]]",
        "[market]\nrisk_usd = \"1000000000.1\"\n[[models]]",
        &["toml:12", "dollars at most"],
    ),
    broken("[[models]]", "[market]\nloss_usd_per_day = \"-1\"\n[[models]]", &["toml:12", "loss_usd_per_day"]),
    broken("[[models]]", "[market]\nbids_per_minute = 0\n[[models]]", &["toml:12", "1 to 60000"]),
    broken("[[models]]", "[market]\njobs = 10001\n[[models]]", &["toml:12", "1 to 10000"]),
    broken("[[models]]", "[market]\nexpected_output_tokens = 0\n[[models]]", &["toml:12", "1 to 1000000"]),
    broken("workers = 2", "master_key = \"a-literal-secret\"", &["toml:4: server.master_key:", "env:NAME"]),
    broken(
        "workers = 2",
        "master_key = \"env:KEY\"",
        &["toml:4: server.master_key:", "64 hexadecimal digits"],
    ),
];

const MODELS: &[Broken] = &[
    broken("name = \"fast\"\n", "", &["sluice.toml:11", "models[0].name", "missing"]),
    broken("name = \"fast\"", "name = \"\"", &["sluice.toml:12", "models[0].name = \"\"", "wanted a name"]),
    broken("[[models]]", "[models]", &["models", "wanted an array"]),
    broken(
        "\"cheapest\"",
        "\"cheepest\"",
        &["sluice.toml:13", "models[0].policy", "\"cheepest\"", "cheapest, priority"],
    ),
    broken(
        "\"cheapest\"",
        "\"echo\"",
        &["sluice.toml:13", "\"echo\"", "routing-policy", "cheapest, priority"],
    ),
    broken(
        "\"worst\"",
        "\"best\"",
        &["sluice.toml:14", "models[0].policy_config.by", "cheapest", "expected"],
    ),
    broken("by = \"worst\"", "bye = \"worst\"", &["sluice.toml:14", "models[0].policy_config", "bye"]),
    broken("upstream = \"vendor\", ", "", &["sluice.toml:15", "models[0].targets[0].upstream", "missing"]),
    broken(
        "upstream = \"vendor\"",
        "upstream = \"vendr\"",
        &["sluice.toml:15", "targets[0].upstream = \"vendr\"", "echo, vendor"],
    ),
    broken(
        "model = \"m\"",
        "model = \"*\"",
        &["sluice.toml:15", "targets[0].model = \"*\"", "exactly one *"],
    ),
    broken(
        "priority = 1",
        "priority = 70000",
        &["sluice.toml:15", "targets[0].priority = 70000", "0 to 65535"],
    ),
    broken("workers = 2", "data_dir = \"\"", &["sluice.toml:4", "server.data_dir", "a path"]),
    broken(
        "workers = 2",
        "[plugins]\nfile_events = 1",
        &["sluice.toml:5", "plugins.file_events = 1", "true or false"],
    ),
    broken("priority = 1", "prio = 1", &["sluice.toml:15", "targets[0].prio", "did you mean \"priority\"?"]),
    broken("\"0.05\"", "0.05", &["sluice.toml:15", "price.input = 0.05", "in quotes"]),
    broken("\"0.05\"", "\"-1\"", &["sluice.toml:15", "price.input = \"-1\""]),
    broken("\"0.05\"", "\"0.0000000001\"", &["sluice.toml:15", "price.input"]),
    broken(", output = \"0.08\"", "", &["sluice.toml:15", "price.output", "missing"]),
    broken("targets = [ {", "targets = [] # [ {", &["sluice.toml:15", "targets", "1 to 64"]),
    broken(
        "[[models]]",
        "[[models]]\nname = \"fast\"\ntargets = [{ upstream = \"echo\" }]\n[[models]]",
        &["models[1]", "\"fast\" is there already"],
    ),
];

const TIMERS: &[Broken] = &[
    broken(
        "secrets =",
        "timeouts = { connect = 2 }\nsecrets =",
        &["sluice.toml:8", "upstreams.vendor.timeouts.connect = 2", "string in quotes"],
    ),
    broken(
        "secrets =",
        "timeouts = { idle = \"0s\" }\nsecrets =",
        &["sluice.toml:8", "timeouts.idle = \"0s\"", "a time from 1ms to 1d"],
    ),
    broken(
        "secrets =",
        "timeouts = { frist_content = \"1s\" }\nsecrets =",
        &["sluice.toml:8", "did you mean \"first_content\"?"],
    ),
    broken(
        "secrets =",
        "breaker = { failures = 0 }\nsecrets =",
        &["sluice.toml:8", "upstreams.vendor.breaker.failures = 0", "integer from 1 to 1000"],
    ),
    broken(
        "workers = 2",
        "workers = 2\ntimeouts = { head = \"2 days\" }",
        &["sluice.toml:5", "server.timeouts.head", "a time from 1ms to 1d"],
    ),
    broken(
        "workers = 2",
        "workers = 2\ndrain = { dead_line = \"1s\" }",
        &["sluice.toml:5", "did you mean \"deadline\"?"],
    ),
    broken("[[models]]", "[[models]]\nretries = 6", &["models[0].retries = 6", "integer from 0 to 5"]),
    broken("[[models]]", "[[models]]\ndeadline = \"soon\"", &["models[0].deadline = \"soon\"", "a time"]),
];

const PRICES: &[Broken] = &[
    broken(
        "[[models]]",
        "[[prices]]\nupstream = \"vendr\"\nmodel = \"m\"\ninput = \"1\"\noutput = \"1\"\n[[models]]",
        &["sluice.toml:12", "prices[0].upstream = \"vendr\"", "no such upstream", "echo, vendor"],
    ),
    broken(
        "[[models]]",
        "[[prices]]\nupstream = \"vendor\"\nmodel = \"m\"\ninput = \"1\"\noutptu = \"1\"\n[[models]]",
        &["prices[0].outptu", "did you mean \"output\"?", "prices[0].output", "is missing"],
    ),
    broken(
        "[[models]]",
        "[[prices]]\nupstream = \"vendor\"\ninput = 1\noutput = \"1\"\n[[models]]",
        &["prices[0].model", "is missing", "prices[0].input = 1", "in quotes"],
    ),
    broken(
        "[[models]]",
        "[[prices]]\nupstream = \"vendor\"\nmodel = \"m*\"\ninput = \"1\"\noutput = \"1\"\n[[models]]",
        &["sluice.toml:13", "prices[0].model = \"m*\"", "one model, without *"],
    ),
    broken(
        "[[models]]",
        "[[prices]]\nupstream = \"vendor\"\nmodel = \"m\"\ninput = \"1\"\noutput = \"1\"\n[[prices]]\nupstream = \"vendor\"\nmodel = \"m\"\ninput = \"2\"\noutput = \"1\"\n[[models]]",
        &["sluice.toml:16", "prices[1]", "\"m\" of \"vendor\" has a price already, in line 11"],
    ),
    broken(
        "[[models]]",
        "[prices]\nvendor = \"x\"\n[[models]]",
        &["sluice.toml:11", "prices", "wanted an array"],
    ),
];

/// What is known but not built is not taken in silence.
const NOT_BUILT: &[Broken] = &[
    broken(
        "secrets =",
        "limits = { requests_per_minute = 0 }\nsecrets =",
        &["sluice.toml:8", "upstreams.vendor.limits.requests_per_minute", "wanted an integer from 1"],
    ),
    broken("[[models]]", "[[budgets]]\nname = \"x\"\n[[models]]", &["budgets[0].per", "is missing"]),
    broken(
        "[[models]]",
        "[[budgets]]\nname = \"x\"\nper = \"day\"\ncap_usd = \"1\"\n[[models]]",
        &["budgets[0].per = \"day\"", "\"run\", \"key\""],
    ),
    broken(
        "[[models]]",
        "[[budgets]]\nname = \"x\"\nper = \"all\"\ncap_usd = \"1\"\nwindow = \"day\"\nzone = \"Mars/Base\"\n[[models]]",
        &["budgets[0].zone", "IANA"],
    ),
    broken(
        "[[models]]",
        "[[budgets]]\nname = \"x\"\nper = \"all\"\ncap_usd = \"1\"\nidle = \"2h\"\n[[models]]",
        &["budgets[0].idle = \"2h\"", "per = \"run\""],
    ),
    broken(
        "[[models]]",
        "[[budgets]]\nname = \"x\"\nper = \"run\"\ncap_usd = \"1\"\nidle = \"59s\"\n[[models]]",
        &["budgets[0].idle = \"59s\"", "from 1m to 365d"],
    ),
    broken(
        "[[models]]",
        "[[budgets]]\nname = \"x\"\nper = \"run\"\ncap_usd = \"1\"\nruns_max = 0\n[[models]]",
        &["budgets[0].runs_max = 0", "integer from 1"],
    ),
    broken(
        "[[models]]",
        "[ledger]\nretention = \"63MiB\"\n[[models]]",
        &["ledger.retention = \"63MiB\"", "from 64MiB to 16TiB"],
    ),
    broken("[[models]]", "[ledger]\nretention = \"4GB\"\n[[models]]", &["ledger.retention", "\"4GiB\""]),
    broken("[[models]]", "[ledger]\nretentoin = \"4GiB\"\n[[models]]", &["did you mean \"retention\"?"]),
    broken(
        "[[models]]",
        "[[budgets]]\nname = \"x\"\nper = \"all\"\ncap_usd = \"1000000000.01\"\n[[models]]",
        &["budgets[0].cap_usd", "wanted 1000000000.00 dollars at most"],
    ),
    broken("[[models]]", "[[listen]]\naddress = \"x\"\n[[models]]", &["listen", "not built yet"]),
    broken(
        "\"0.05\"",
        "\"0.05\", cached_input = \"free\"",
        &["sluice.toml:15", "price.cached_input", "dollar amount"],
    ),
];

fn write(folder: &Path, config: &str) {
    std::fs::write(folder.join("sluice.toml"), config).unwrap();
}

fn check(config: &str) -> Run {
    let folder = tempfile::tempdir().unwrap();
    write(folder.path(), config);
    run(folder.path(), &["check"], &VARIABLES)
}

fn check_table(table: &[Broken]) {
    for Broken { from, to, says } in table {
        let config = GOOD.replacen(from, to, 1);
        assert_ne!(config, GOOD, "{from} is not in the good configuration");
        let run = check(&config);
        assert_eq!(run.code, Some(64), "{to}: {run:?}");
        for part in *says {
            assert!(run.stderr.contains(part), "{to}: no {part:?} in\n{}", run.stderr);
        }
        assert!(!run.stderr.contains("a-literal-secret"), "{}", run.stderr);
    }
}

#[test]
fn broken_timers_are_refused() {
    check_table(TIMERS);
}

#[test]
fn broken_syntax_or_server_is_refused() {
    check_table(SYNTAX_AND_SERVER);
}

#[test]
fn broken_upstreams_are_refused() {
    check_table(UPSTREAMS);
}

#[test]
fn broken_models_are_refused() {
    check_table(MODELS);
}

#[test]
fn a_broken_market_is_refused() {
    check_table(MARKET);
    let good = "[market]\nendpoint = \"https://me.example/v1/completions/\"\nmodel = \"fast\"\n\
        api_key = \"env:KEY\"\nfloor_usd = \"0.02\"\n[[models]]";
    let good = GOOD.replace("[[models]]", good).replace("workers = 2", "master_key = \"env:HEX\"");
    assert_eq!(check(&good).code, Some(0), "the control: {:?}", check(&good));
    assert_eq!(check(&GOOD.replace("[[models]]", "[market]\n[[models]]")).code, Some(0), "all has a default");
}

#[test]
fn broken_prices_are_refused() {
    check_table(PRICES);
}

#[test]
fn what_is_not_built_is_refused_and_said() {
    check_table(NOT_BUILT);
}

#[test]
fn a_good_configuration_passes_and_is_summed_up() {
    let run = check(GOOD);
    assert_eq!(run.code, Some(0), "{run:?}");
    for part in ["sluice.toml", "cheapest, echo, margin, minimum, openai, priority", "fast"] {
        assert!(run.stderr.contains(part), "no {part:?} in\n{}", run.stderr);
    }
    // The very same serves.
    drop(Gateway::start(GOOD, &Options::with(&VARIABLES)));
    // And nothing at all is good too.
    let folder = tempfile::tempdir().unwrap();
    let run = sluice_tests::command::run(folder.path(), &["check"], &[]);
    assert_eq!(run.code, Some(0), "{run:?}");
    assert!(run.stderr.contains("echo"), "{run:?}");
}

/// All problems are told at once, in their order.
#[test]
fn several_problems_are_told_together() {
    let config = GOOD
        .replace("workers = 2", "workers = 0")
        .replace("\"env:KEY\"", "\"env:NO\"")
        .replace("prio", "pryo");
    let run = check(&config);
    let lines: Vec<&str> = run.stderr.lines().filter(|line| line.contains("sluice.toml:")).collect();
    assert_eq!(lines.len(), 3, "{run:?}");
    for (line, number) in lines.iter().zip([":4", ":8", ":15"]) {
        assert!(line.contains(&format!("sluice.toml{number}")), "{run:?}");
    }
}

#[test]
fn check_is_the_boot_path_itself() {
    let others =
        ["[server]\nlisten = \"0.0.0.0:1\"\n", "[upstreams.x]\nadapter = \"none\"\n", "x = 1\n", "=\n"];
    for config in others {
        let folder = tempfile::tempdir().unwrap();
        write(folder.path(), config);
        let runs =
            [&["check"][..], &["serve"], &[]].map(|arguments| run(folder.path(), arguments, &VARIABLES));
        for run in &runs {
            assert_eq!(run.code, Some(64), "{config}{run:?}");
            assert_eq!(run.stderr, runs[0].stderr, "{config}");
            assert!(!run.stderr.contains("listening"), "{config}{run:?}");
        }
    }
    // A file that was named must be there; the default one need not.
    let folder = tempfile::tempdir().unwrap();
    let run = run(folder.path(), &["check", "--config", "other.toml"], &[]);
    assert_eq!(run.code, Some(64), "{run:?}");
    assert!(run.stderr.contains("other.toml"), "{run:?}");
}

/// A file replaces the built-in plugin of its id; one that is no plugin changes nothing.
#[tokio::test]
async fn the_plugin_folder_adds_and_refuses() {
    let folder = tempfile::tempdir().unwrap();
    let plugins = folder.path().join("plugins.d");
    std::fs::create_dir(&plugins).unwrap();
    let guests = workspace::guests(&["hostile-policy"]);
    std::fs::copy(guests.join("hostile-policy.wasm"), plugins.join("a.wasm")).unwrap();
    std::fs::copy(guests.join("hostile-policy.wasm"), plugins.join("b.wasm")).unwrap();
    std::fs::copy(workspace::root().join("plugins/dist/cheapest.wasm"), plugins.join("cheapest.wasm"))
        .unwrap();
    std::fs::write(plugins.join("empty.wasm"), "").unwrap();
    std::fs::write(plugins.join("module.wasm"), b"\0asm\x01\0\0\0").unwrap();
    std::fs::write(plugins.join("text.wasm"), "hello").unwrap();
    std::fs::write(plugins.join("ignored.txt"), "hello").unwrap();
    write(folder.path(), GOOD);
    let gateway = Gateway::start_in(folder, &Options::with(&VARIABLES));
    let page = gateway.plugins().await;
    let reason_of = |name: &str| {
        let files = page["files"].as_array().unwrap();
        let row = files.iter().find(|row| row["file"].as_str().unwrap().ends_with(name));
        let reason = row.unwrap_or_else(|| panic!("{name} is not listed: {page:#}"))["reason"].as_str();
        reason.unwrap_or_else(|| panic!("{name} serves: {page:#}")).to_owned()
    };
    assert_eq!(page["files"].as_array().unwrap().len(), 6, "{page:#}");
    assert!(reason_of("b.wasm").contains("hostile-policy"));
    assert!(reason_of("empty.wasm").contains("empty"));
    assert!(reason_of("module.wasm").contains("core module"));
    assert!(reason_of("text.wasm").contains("no WebAssembly"));
    let source = |plugin: &str| {
        let rows = page["plugins"].as_array().unwrap();
        rows.iter().find(|row| row["id"] == plugin).unwrap()["source"].as_str().unwrap().to_owned()
    };
    assert!(source("hostile-policy").ends_with("a.wasm"));
    assert!(source("cheapest").ends_with("cheapest.wasm"));
    assert_eq!(source("priority"), "built-in");
}

/// The keys of each kind of table: names and places are left out of its path.
fn keys_by_kind(value: &toml::Value, path: &str, keys: &mut BTreeMap<String, BTreeSet<String>>) {
    match value {
        toml::Value::Table(table) => {
            for (key, value) in table {
                let known = keys.entry(path.to_owned()).or_default();
                known.insert(key.clone());
                let name = if path == "upstreams" { "*" } else { key };
                let below = if path.is_empty() { name.to_owned() } else { format!("{path}.{name}") };
                keys_by_kind(value, &below, keys);
            }
        }
        toml::Value::Array(items) => items.iter().for_each(|item| keys_by_kind(item, path, keys)),
        _leaf => {}
    }
}

/// Puts a key that nobody knows into every table.
fn with_a_stranger(value: &mut toml::Value) {
    match value {
        toml::Value::Table(table) => {
            table.iter_mut().for_each(|(_, value)| with_a_stranger(value));
            table.insert("zzzzzz".into(), toml::Value::Integer(1));
        }
        toml::Value::Array(items) => items.iter_mut().for_each(with_a_stranger),
        _leaf => {}
    }
}

/// The program itself says what it knows, when it is asked for what it does not.
#[test]
fn every_key_stands_in_the_full_example() {
    let text = std::fs::read_to_string(root().join("examples/full.toml")).unwrap();
    let mut full: toml::Value = toml::from_str(&text).unwrap();
    let mut written = BTreeMap::new();
    keys_by_kind(&full, "", &mut written);
    with_a_stranger(&mut full);
    let run = check(&toml::to_string(&full).unwrap());
    let mut tables = 0;
    for line in run.printed().lines() {
        let Some((place, known)) = line.split_once(": unknown key; known here are ") else { continue };
        let path = place.rsplit(' ').next().unwrap().trim_end_matches("zzzzzz").trim_end_matches('.');
        let digits = |c: char| c.is_ascii_digit() || c == '[' || c == ']';
        let mut kind: Vec<&str> = path.split('.').map(|part| part.trim_end_matches(digits)).collect();
        if kind[0] == "upstreams" {
            kind[1] = "*";
        }
        let written = &written[&kind.join(".")];
        for key in known.split(", ") {
            assert!(written.contains(key), "examples/full.toml does not show {key} of [{path}]");
        }
        tables += 1;
    }
    assert!(tables >= 8, "{tables} tables were looked at: {}", run.printed());
}
