//! Embeds the built-in plugins: whatever components lie in `plugins/dist`.

use std::fmt::Write as _;
use std::path::Path;
use std::{env, fs};

fn main() {
    // As it is when this runs: a target folder may have been filled from another checkout.
    let dist = Path::new(&set_by_cargo("CARGO_MANIFEST_DIR")).join("../plugins/dist");
    println!("cargo::rerun-if-changed={}", dist.display());
    let entries =
        fs::read_dir(&dist).map(|entries| entries.flatten().map(|entry| entry.path()).collect::<Vec<_>>());
    let mut files: Vec<_> = entries.unwrap_or_default();
    files.retain(|file| file.extension().is_some_and(|extension| extension == "wasm"));
    files.sort();
    let mut code = String::from("pub(crate) const DIST: &[&[u8]] = &[\n");
    for file in files {
        println!("cargo::rerun-if-changed={}", file.display());
        writeln!(code, "    include_bytes!({:?}),", file.canonicalize().expect("it was listed"))
            .expect("a string");
    }
    code.push_str("];\n");
    fs::write(Path::new(&set_by_cargo("OUT_DIR")).join("dist.rs"), code).expect("OUT_DIR is writable");
}

#[allow(clippy::disallowed_methods, reason = "how Cargo tells a build script")]
fn set_by_cargo(name: &str) -> String {
    env::var(name).expect("cargo sets it")
}
