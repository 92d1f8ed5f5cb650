//! A thousand spoilt plugins: none serves, none stops the gateway, each is listed.

#![allow(clippy::unwrap_used, reason = "a test fails by it")]

use std::fs;

use sluice_tests::versions::{adapter, policy};
use sluice_tests::{Gateway, Options};

const COUNT: usize = 1000;

/// The only thing that differs between runs that fail is what is printed with it.
const SEED: u64 = 20_261_121;

/// Memory that the gateway may have more than before, all files seen: 64 MiB.
const GROWTH_BYTES_MAX: u64 = 64 * 1024 * 1024;

const CONFIG: &str = r#"
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

/// Numbers without a pattern: xorshift64 (Marsaglia, 2003).
struct Chance(u64);

impl Chance {
    fn below(&mut self, bound: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 % bound as u64) as usize
    }
}

/// Bit flips, truncations, pieces of one in the other; never what it was.
fn spoilt(chance: &mut Chance, whole: &[u8], other: &[u8]) -> Vec<u8> {
    let mut bytes = whole.to_vec();
    match chance.below(4) {
        0 => {
            for _ in 0..=chance.below(8) {
                let at = chance.below(bytes.len());
                bytes[at] ^= 1 << chance.below(8);
            }
        }
        1 => bytes.truncate(chance.below(bytes.len())),
        2 => {
            let (from, to) = (chance.below(other.len()), chance.below(bytes.len()));
            let length = 1 + chance.below(other.len() - from).min(bytes.len() - to);
            bytes.splice(
                to..(to + length).min(whole.len()),
                other[from..(from + length).min(other.len())].iter().copied(),
            );
        }
        _ => {
            let (from, to) = (chance.below(bytes.len()), chance.below(bytes.len()));
            let length = chance.below(4096).min(bytes.len() - from.max(to));
            bytes.copy_within(from..from + length, to);
        }
    }
    if bytes == whole {
        bytes[4] ^= 0xff;
    }
    bytes
}

#[tokio::test]
async fn a_thousand_spoilt_plugins_change_nothing() {
    let gateway = Gateway::start(CONFIG, &Options::default());
    assert_eq!(gateway.ask("echo").await.content(), "one two three");
    let before = gateway.resident_bytes();
    let (adapter, policy) = (adapter("ok", "spoilt"), policy("ok", 0));
    // Made elsewhere and moved in as one, so that none is seen half written.
    let staging = gateway.folder().join("staging");
    fs::create_dir(&staging).unwrap();
    let mut chance = Chance(SEED);
    for number in 0..COUNT {
        let (whole, other) = if number % 2 == 0 { (&adapter, &policy) } else { (&policy, &adapter) };
        fs::write(staging.join(format!("{number:04}.wasm")), spoilt(&mut chance, whole, other)).unwrap();
    }
    fs::rename(staging, gateway.folder().join("plugins.d")).unwrap();
    for tenth in 1..=10 {
        gateway.wait_for("transition=\"refused\"", COUNT / 10 * tenth);
        assert_eq!(gateway.ask("echo").await.content(), "one two three");
    }
    let plugins = gateway.plugins().await;
    assert_eq!(plugins["files"].as_array().unwrap().len(), COUNT);
    let files = plugins["files"].as_array().unwrap();
    for file in files {
        let said = file["reason"].as_str().is_some_and(|reason| !reason.is_empty());
        assert!(file["state"] == "refused" && said, "seed {SEED}: {file:#}");
    }
    assert_eq!(plugins["generation"], 1, "no swap");
    for id in ["echo", "priority", "openai", "cheapest"] {
        assert_eq!(gateway.counters(id).await.row()["source"], "built-in");
    }
    let grown = gateway.resident_bytes().saturating_sub(before);
    assert!(grown < GROWTH_BYTES_MAX, "grown by {grown} bytes");
    assert_eq!(gateway.ask("echo").await.content(), "one two three");
}
