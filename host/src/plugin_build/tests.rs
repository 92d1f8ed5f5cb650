//! The pure parts: digests, the record, and which compiler is chosen, from faked machines.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsStr;
use std::fs;
use std::path::{Path, PathBuf};

use super::provenance::{Entry, Provenance};
use super::toolchain::{self, Library, Probe};
use super::workspace::Workspace;
use super::{BuildError, Stale, StaleReason, check_sources, component, digest};

// === sources ===

const ROOT: &str = "[workspace]\nresolver = \"3\"\nmembers = [\"one\"]\n";
const ONE: &str = "[package]\nname = \"one\"\nversion = \"0.1.0\"\nedition = \"2024\"\n\
    [lib]\ncrate-type = [\"cdylib\"]\n[dependencies]\nsdk = { path = \"../../sdk\" }\n\
    [package.metadata.sluice]\nsources = [\"../../wit\"]\n";
const SDK: &str = "[package]\nname = \"sdk\"\nversion = \"0.1.0\"\nedition = \"2024\"\n[workspace]\n";
const LOCK: &str = "version = 4\n\n[[package]]\nname = \"one\"\nversion = \"0.1.0\"\n\
    dependencies = [\"sdk\"]\n\n[[package]]\nname = \"sdk\"\nversion = \"0.1.0\"\n";

fn put(root: &Path, file: &str, content: &str) {
    let path = root.join(file);
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    fs::write(path, content).unwrap();
}

/// A workspace with one plugin, an SDK outside of it, and a WIT folder.
fn workspace() -> tempfile::TempDir {
    let root = tempfile::tempdir().unwrap();
    for (file, content) in [
        ("plugins/Cargo.toml", ROOT),
        ("plugins/Cargo.lock", LOCK),
        ("plugins/one/Cargo.toml", ONE),
        ("plugins/one/src/lib.rs", "// one"),
        ("sdk/Cargo.toml", SDK),
        ("sdk/src/lib.rs", "// sdk"),
        ("wit/world.wit", "// wit"),
    ] {
        put(root.path(), file, content);
    }
    root
}

fn digest_of(root: &Path, name: &str) -> String {
    let workspace = Workspace::load(&root.join("plugins"), &["cargo".into()]).unwrap();
    let plugins = workspace.plugins();
    let package = plugins.iter().find(|package| package.name == name).unwrap();
    digest::source_digest(&workspace, package).unwrap()
}

#[test]
fn digest_is_the_same_wherever_the_sources_lie() {
    let (here, there) = (workspace(), workspace());
    assert_eq!(digest_of(here.path(), "one"), digest_of(there.path(), "one"));
}

#[test]
fn digest_changes_with_whatever_reaches_the_component() {
    let before = digest_of(workspace().path(), "one");
    let profile = format!("{ROOT}[profile.release]\nopt-level = \"s\"\n");
    let lock = LOCK.replace("name = \"sdk\"", "name = \"sdk\"\nchecksum = \"0\"");
    for (file, content) in [
        ("plugins/one/src/lib.rs", "// two"),
        ("plugins/one/src/more.rs", ""),
        ("plugins/one/schema.json", "{}"),
        ("plugins/one/build.rs", "fn main() {}"),
        ("plugins/one/Cargo.toml", &format!("{ONE}\n# said")),
        ("plugins/Cargo.toml", &profile),
        ("plugins/Cargo.lock", &lock),
        ("sdk/src/lib.rs", "// other sdk"),
        ("wit/world.wit", "// other wit"),
        ("wit/deps/more.wit", ""),
    ] {
        let root = workspace();
        put(root.path(), file, content);
        assert_ne!(digest_of(root.path(), "one"), before, "{file}");
    }
}

#[test]
fn digest_ignores_neighbours_and_what_is_read_by_people() {
    let before = digest_of(workspace().path(), "one");
    let root = workspace();
    for (file, content) in [
        ("plugins/Cargo.toml", ROOT.replace("\"one\"", "\"one\", \"two\"").as_str()),
        ("plugins/Cargo.lock", &format!("{LOCK}\n[[package]]\nname = \"two\"\nversion = \"0.1.0\"\n")),
        ("plugins/two/Cargo.toml", &ONE.replace("\"one\"", "\"two\"")),
        ("plugins/two/src/lib.rs", ""),
        ("plugins/one/README.md", "words"),
        ("plugins/one/.hidden", ""),
        ("plugins/one/target/out", ""),
        ("plugins/one/dist/one.wasm", ""),
        ("plugins/one/tests/vectors.rs", ""),
        ("sdk/tests/more.rs", ""),
    ] {
        put(root.path(), file, content);
    }
    assert_eq!(digest_of(root.path(), "one"), before);
    assert_ne!(digest_of(root.path(), "two"), before);
}

#[test]
fn names_and_contents_cannot_trade_places() {
    let (here, there) = (workspace(), workspace());
    put(here.path(), "plugins/one/a", "bc");
    put(there.path(), "plugins/one/ab", "c");
    assert_ne!(digest_of(here.path(), "one"), digest_of(there.path(), "one"));
}

#[test]
fn a_member_can_be_asked_for_alone() {
    let root = workspace();
    put(root.path(), "plugins/Cargo.toml", &ROOT.replace("\"one\"", "\"one\", \"two\""));
    put(root.path(), "plugins/two/Cargo.toml", &ONE.replace("\"one\"", "\"two\""));
    put(root.path(), "plugins/two/src/lib.rs", "");
    let names = |folder: &str| -> Vec<String> {
        let workspace = Workspace::load(&root.path().join(folder), &["cargo".into()]).unwrap();
        workspace.plugins().iter().map(|package| package.name.clone()).collect()
    };
    assert_eq!(names("plugins"), ["one", "two"]);
    assert_eq!(names("plugins/two"), ["two"]);
}

#[test]
fn staleness_has_four_reasons() {
    let root = workspace();
    let (path, dist) = (root.path().join("plugins"), root.path().join("plugins/dist"));
    let reason = || match check_sources(&path, &dist) {
        Ok(()) => None,
        Err(BuildError::Stale(stale)) => match stale.as_slice() {
            [Stale { package, reason }] if package == "one" => Some(*reason),
            other => panic!("{other:?}"),
        },
        Err(error) => panic!("{error}"),
    };
    assert_eq!(reason(), Some(StaleReason::NotRecorded));
    let mut recorded = entry("one", "one");
    recorded.source_sha256 = digest_of(root.path(), "one");
    recorded.sha256 = digest::sha256(b"component");
    Provenance::default().merge(vec![recorded]).write(&dist).unwrap();
    assert_eq!(reason(), Some(StaleReason::FileMissing));
    put(&dist, "one.wasm", "component");
    assert_eq!(reason(), None);
    put(&dist, "one.wasm", "another");
    assert_eq!(reason(), Some(StaleReason::FileChanged));
    put(&dist, "one.wasm", "component");
    put(root.path(), "sdk/src/lib.rs", "// other sdk");
    assert_eq!(reason(), Some(StaleReason::SourcesChanged));
}

// === provenance ===

fn entry(package: &str, sha256: &str) -> Entry {
    Entry {
        package: package.to_owned(),
        version: "0.1.0".to_owned(),
        file: format!("{package}.wasm"),
        bytes: 9,
        sha256: sha256.to_owned(),
        source_sha256: "source".to_owned(),
        rustc: "rustc 1.96.0".to_owned(),
        linker: None,
        target: "wasm32-unknown-unknown".to_owned(),
        flags: vec!["profile.release.lto=true".to_owned()],
    }
}

#[test]
fn record_is_merged_by_package_and_sorted() {
    let old = Provenance::default().merge(vec![entry("b", "old"), entry("c", "kept"), entry("a", "gone")]);
    let new = old.merge(vec![entry("d", "new"), entry("b", "new")]).keep(|file| file != "a.wasm");
    let dist = tempfile::tempdir().unwrap();
    new.write(dist.path()).unwrap();
    assert_eq!(Provenance::read(dist.path()).unwrap(), new);
    let found = ["a", "b", "c", "d"].map(|package| new.of(package).map(|entry| entry.sha256.as_str()));
    assert_eq!(found, [None, Some("new"), Some("kept"), Some("new")]);
    let reordered =
        Provenance::default().merge(vec![entry("d", "new"), entry("c", "kept"), entry("b", "new")]);
    assert_eq!(reordered.text().unwrap(), new.text().unwrap());
}

#[test]
fn record_of_another_format_is_refused() {
    let dist = tempfile::tempdir().unwrap();
    assert_eq!(Provenance::read(dist.path()).unwrap(), Provenance::default());
    put(dist.path(), "provenance.toml", "format = 2\n");
    let error = Provenance::read(dist.path()).unwrap_err();
    assert!(error.to_string().ends_with("has format 2, want 1"), "{error}");
}

// === component ===

#[test]
fn module_without_a_component_type_is_told_to_use_the_sdk() {
    let empty_module = b"\0asm\x01\0\0\0";
    let stamp = component::Stamp::new("one", "0.1.0", "source");
    let error = component::encode(empty_module, &stamp).unwrap_err();
    assert!(error.to_string().contains("does not use the Sluice SDK"), "{error}");
}

// === toolchain ===

const RUSTUP: &str = "rustc 1.95.0 (59 2026)\nhost: x86\nrelease: 1.95.0\ncommit-hash: 59\n";
const DEBIAN: &str = "rustc 1.96.0 (ac 2026) (source)\nhost: x86\nrelease: 1.96.0\n";
const LLD: &str = "/home/rustup/toolchains/stable/lib/rustlib/x86/bin/rust-lld";

/// What a machine answers to commands, and the files it has.
#[derive(Default)]
struct Fake {
    answers: BTreeMap<String, String>,
    files: BTreeSet<PathBuf>,
}

impl Fake {
    fn answers(mut self, command: &str, answer: &str) -> Fake {
        self.answers.insert(command.to_owned(), answer.to_owned());
        self
    }

    fn file(mut self, path: &str) -> Fake {
        self.files.insert(path.into());
        self
    }

    fn rustup() -> Fake {
        Fake::default()
            .answers("rustc -vV", RUSTUP)
            .answers("rustc --print sysroot", "/home/rustup/toolchains/stable\n")
            .answers("rustc --print target-libdir --target wasm32-unknown-unknown", "/home/wasm\n")
            .answers("cargo -vV", "cargo 1.95.0\nrelease: 1.95.0\n")
            .answers(&format!("{LLD} -flavor wasm --version"), "LLD 22.1.2 (/checkout 1c)\n")
            .file(LLD)
    }

    fn and_debian(self) -> Fake {
        let library = "/usr/lib/rustlib/src/rust/library";
        ["Cargo.toml", "Cargo.lock", "std/Cargo.toml", "core/src/lib.rs"]
            .iter()
            .fold(self, |fake, file| fake.file(&format!("{library}/{file}")))
            .answers("/usr/bin/rustc -vV", DEBIAN)
            .answers("/usr/bin/rustc --print sysroot", "/usr\n")
            .answers("/usr/bin/cargo -vV", "cargo 1.96.0\nrelease: 1.96.0\n")
    }
}

impl Probe for Fake {
    fn ask(&self, program: &Path, arguments: &[&str]) -> Option<String> {
        self.answers.get(&format!("{} {}", program.display(), arguments.join(" "))).cloned()
    }

    fn exists(&self, path: &Path) -> bool {
        self.files.contains(path)
    }

    fn list(&self, folder: &Path) -> Vec<PathBuf> {
        let inside = self
            .files
            .iter()
            .filter_map(|file| Some(folder.join(file.strip_prefix(folder).ok()?.components().next()?)));
        inside.collect::<BTreeSet<_>>().into_iter().collect()
    }

    fn search_path(&self) -> Vec<PathBuf> {
        vec!["/bin".into()]
    }

    fn rustup_home(&self) -> Option<PathBuf> {
        Some("/home/rustup".into())
    }
}

#[test]
fn installed_target_goes_first() {
    let fake = Fake::rustup().and_debian().file("/home/wasm/libcore-1.rlib");
    let chosen = toolchain::choose(&fake).unwrap();
    assert_eq!((chosen.cargo.to_str(), chosen.library), (Some("cargo"), Library::Installed));
    assert_eq!((chosen.linker, chosen.rustc_commit.as_str()), (None, "59"));
}

#[test]
fn debian_borrows_the_linker_of_rustup() {
    let chosen = toolchain::choose(&Fake::rustup().and_debian()).unwrap();
    assert_eq!((chosen.cargo.to_str(), chosen.library), (Some("/usr/bin/cargo"), Library::FromSources));
    let linker = chosen.linker.unwrap();
    assert_eq!((linker.path.as_path(), linker.version.as_str()), (Path::new(LLD), "LLD 22.1.2"));
    assert_eq!(chosen.rustc_commit, "1.96.0");
}

#[test]
fn linker_on_the_path_goes_before_that_of_rustup() {
    let fake = Fake::rustup().and_debian();
    let fake = fake.file("/bin/wasm-ld-22").answers("/bin/wasm-ld-22 --version", "Debian LLD 22\n");
    let linker = toolchain::choose(&fake).unwrap().linker.unwrap();
    assert_eq!((linker.path.to_str(), linker.version.as_str()), (Some("/bin/wasm-ld-22"), "Debian LLD 22"));
}

#[test]
fn without_a_toolchain_both_remedies_are_named() {
    let bare = toolchain::choose(&Fake::default()).unwrap_err();
    assert_eq!(bare.reasons, ["rustc: does not run", "/usr/bin/rustc: does not run"]);
    let text = bare.to_string();
    assert!(text.contains("rustup target add wasm32-unknown-unknown"), "{text}");
    assert!(text.contains("apt-get install rustc-web cargo-web rust-web-src"), "{text}");
}

#[test]
fn each_lack_has_its_own_words() {
    let reason = |fake: Fake| toolchain::choose(&fake).unwrap_err().reasons.pop().unwrap();
    let debian = || Fake::default().and_debian();
    assert!(reason(debian()).starts_with("/usr/bin/rustc: no linker for WebAssembly"));
    let mut no_lock = debian().file(LLD);
    no_lock.files.remove(Path::new("/usr/lib/rustlib/src/rust/library/Cargo.lock"));
    assert!(reason(no_lock).ends_with("library/Cargo.lock"));
    let old = DEBIAN.replace("1.96", "1.63");
    assert!(reason(debian().answers("/usr/bin/rustc -vV", &old)).contains("too old"));
    let other_cargo = debian().answers("/usr/bin/cargo -vV", "cargo 1.85.0\nrelease: 1.85.0\n");
    assert!(reason(other_cargo).contains("not of one release"));
}

#[test]
fn environment_of_the_hosts_own_build_is_cleared() {
    for name in [
        "CARGO",
        "CARGO_PKG_NAME",
        "CARGO_ENCODED_RUSTFLAGS",
        "CARGO_PROFILE_RELEASE_LTO",
        "RUSTC",
        "RUSTC_WRAPPER",
        "RUSTC_BOOTSTRAP",
        "RUSTFLAGS",
        "RUSTUP_TOOLCHAIN",
        "CARGO_BUILD_TARGET",
    ] {
        assert!(toolchain::disturbs(OsStr::new(name)), "{name}");
    }
    for name in [
        "PATH",
        "HOME",
        "CARGO_HOME",
        "CARGO_TARGET_DIR",
        "CARGO_NET_OFFLINE",
        "CARGO_TERM_COLOR",
        "CARGO_REGISTRIES_X_TOKEN",
        "RUSTUP_HOME",
        "RUST_BACKTRACE",
    ] {
        assert!(!toolchain::disturbs(OsStr::new(name)), "{name}");
    }
}
