//! Where the program, the guests and the sources are.

use std::path::{Path, PathBuf};

/// The workspace's root.
pub fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("tests/ lies in the workspace")
}

/// The gateway: `SLUICE_BIN`, or what `cargo build` made last.
pub fn program() -> PathBuf {
    let named = std::env::var_os("SLUICE_BIN").map(PathBuf::from);
    let program = named.unwrap_or_else(|| root().join("target/debug/sluice"));
    assert!(
        program.is_file(),
        "there is no gateway at {}: run `cargo build -p sluice`, or `tests/run`, which does it",
        program.display()
    );
    program
}

/// The built-in plugins as they are built now, where `SLUICE_TEST_PLUGINS` names their folder:
/// every gateway then takes them in place of those that are part of the program.
pub fn fresh_plugins() -> Option<PathBuf> {
    std::env::var_os("SLUICE_TEST_PLUGINS").map(|folder| root().join(folder))
}

/// The folder of the built guests; those named must be there.
pub fn guests(needed: &[&str]) -> PathBuf {
    let folder = root().join("target/guests");
    for guest in needed {
        let file = folder.join(guest).with_extension("wasm");
        assert!(
            file.is_file(),
            "the guest {} is not built: run `tests/run`, or `sluice plugin build tests/guests --out target/guests`",
            file.display()
        );
    }
    folder
}
