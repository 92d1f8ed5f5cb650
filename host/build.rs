//! Embeds the built-in plugins: whatever components lie in `plugins/dist`.

use std::fmt::Write as _;
use std::path::Path;
use std::{env, fs};

fn main() {
    let dist = Path::new(env!("CARGO_MANIFEST_DIR")).join("../plugins/dist");
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
    #[allow(clippy::disallowed_methods, reason = "how Cargo tells a build script")]
    let out = env::var("OUT_DIR").expect("cargo sets it");
    fs::write(Path::new(&out).join("dist.rs"), code).expect("OUT_DIR is writable");
}
