//! Finds a Rust that can build for WebAssembly: one with an installed std for the target, or
//! Debian's, whose std sources are compiled along.

use std::env;
use std::ffi::OsStr;
use std::fmt;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use super::TARGET;

pub(super) const SYSTEM_CARGO: &str = "/usr/bin/cargo";
const SYSTEM_RUSTC: &str = "/usr/bin/rustc";

/// The oldest `1.x` that knows `--remap-path-scope`; also the SDK's.
const MINOR_MIN: u32 = 95;

/// Linkers that speak WebAssembly; Debian's carry their version, and the newest is wanted.
const LINKERS: [&str; 7] =
    ["rust-lld", "wasm-ld", "wasm-ld-24", "wasm-ld-23", "wasm-ld-22", "wasm-ld-21", "wasm-ld-20"];

/// A compiler that can do it, and what it needs for that.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Toolchain {
    pub(super) cargo: PathBuf,
    pub(super) rustc: PathBuf,
    /// First line of `rustc -vV`.
    pub(super) rustc_version: String,
    /// What a released std calls its sources: the commit, or the release if that is not known.
    pub(super) rustc_commit: String,
    pub(super) sysroot: PathBuf,
    pub(super) library: Library,
    /// The linker, if the compiler has none of its own.
    pub(super) linker: Option<Linker>,
}

/// Where std comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Library {
    Installed,
    /// Compiled along, from the sources in the sysroot.
    FromSources,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Linker {
    pub(super) path: PathBuf,
    pub(super) version: String,
}

/// Why none of the compilers here will do.
#[derive(Debug, thiserror::Error)]
#[error(
    "no Rust toolchain here can build for {TARGET}:{}\nEither of these helps:\n  \
     rustup target add {TARGET}\n  apt-get install rustc-web cargo-web rust-web-src   \
     (Debian; with lld-22 if no rustup toolchain is there to lend its rust-lld)",
    .reasons.iter().map(|reason| format!("\n  {reason}")).collect::<String>()
)]
pub(crate) struct NoToolchain {
    pub(super) reasons: Vec<String>,
}

/// What is asked of the machine.
pub(super) trait Probe {
    /// Standard output of a command that succeeds.
    fn ask(&self, program: &Path, arguments: &[&str]) -> Option<String>;
    fn exists(&self, path: &Path) -> bool;
    /// What stands in a folder, sorted; nothing if it is not there.
    fn list(&self, folder: &Path) -> Vec<PathBuf>;
    /// The folders of `PATH`.
    fn search_path(&self) -> Vec<PathBuf>;
    /// Where rustup keeps its toolchains.
    fn rustup_home(&self) -> Option<PathBuf>;
}

/// The real machine, asked from the folder that the packages lie in, so that its
/// `rust-toolchain.toml` counts.
pub(super) struct Machine {
    folder: PathBuf,
}

/// The compiler for the plugins: that on `PATH` if it has the target, else the system's.
pub(super) fn choose(probe: &dyn Probe) -> Result<Toolchain, NoToolchain> {
    let mut reasons = Vec::new();
    let on_path = Candidate { cargo: "cargo".into(), rustc: "rustc".into(), may_compile_std: false };
    let system = Candidate { cargo: SYSTEM_CARGO.into(), rustc: SYSTEM_RUSTC.into(), may_compile_std: true };
    for candidate in [on_path, system] {
        match candidate.examine(probe) {
            Ok(toolchain) => return Ok(toolchain),
            Err(reason) => reasons.push(format!("{}: {reason}", candidate.rustc.display())),
        }
    }
    Err(NoToolchain { reasons })
}

/// Takes from a child's environment what whoever started us set for the host's own build, such
/// as `cargo run`, and what would make the output depend on who builds.
pub(super) fn clean(command: &mut Command) {
    #[allow(clippy::disallowed_methods, reason = "the compiler's environment is what this is about")]
    let variables = env::vars_os();
    for (name, _) in variables {
        if disturbs(&name) {
            command.env_remove(&name);
        }
    }
}

pub(super) fn disturbs(name: &OsStr) -> bool {
    const KEPT: [&str; 2] = ["CARGO_HOME", "CARGO_TARGET_DIR"];
    const KEPT_KINDS: [&str; 5] =
        ["CARGO_HTTP_", "CARGO_NET_", "CARGO_REGISTRIES_", "CARGO_REGISTRY_", "CARGO_TERM_"];
    const OTHERS: [&str; 3] = ["RUSTUP_TOOLCHAIN", "RUSTFLAGS", "RUSTDOCFLAGS"];
    let Some(name) = name.to_str() else { return false };
    let of_cargo = name == "CARGO" || name.starts_with("CARGO_");
    let kept = KEPT.contains(&name) || KEPT_KINDS.iter().any(|kind| name.starts_with(kind));
    (of_cargo && !kept) || name.starts_with("RUSTC") || OTHERS.contains(&name)
}

/// A pair of programs that may turn out to be a toolchain.
struct Candidate {
    cargo: PathBuf,
    rustc: PathBuf,
    may_compile_std: bool,
}

// === impl Candidate ===

impl Candidate {
    /// The toolchain, or why it is none.
    fn examine(&self, probe: &dyn Probe) -> Result<Toolchain, String> {
        let answer = |arguments: &[&str]| probe.ask(&self.rustc, arguments);
        let about = answer(&["-vV"]).ok_or("does not run")?;
        let rustc_version = about.lines().next().unwrap_or_default().to_owned();
        let release = field(&about, "release").ok_or("does not say its release")?;
        if minor(release).is_some_and(|minor| minor < MINOR_MIN) {
            return Err(format!("{rustc_version} is too old, want 1.{MINOR_MIN} or newer"));
        }
        let cargo = probe.ask(&self.cargo, &["-vV"]).ok_or_else(|| self.no_cargo())?;
        let sysroot = PathBuf::from(answer(&["--print", "sysroot"]).ok_or("has no sysroot")?.trim());
        let library = self.library(probe, &sysroot, &rustc_version)?;
        if library == Library::FromSources && field(&cargo, "release") != Some(release) {
            return Err(format!("{rustc_version} is not of one release with {}", self.cargo.display()));
        }
        let host = field(&about, "host").unwrap_or_default();
        let linker = if probe.exists(&tools(&sysroot, host).join("rust-lld")) {
            None
        } else {
            let linker = find_linker(probe, host);
            Some(linker.ok_or(
                "no linker for WebAssembly: no rust-lld or wasm-ld on PATH or in a rustup toolchain",
            )?)
        };
        let rustc_commit = field(&about, "commit-hash").filter(|hash| *hash != "unknown").unwrap_or(release);
        Ok(Toolchain {
            cargo: self.cargo.clone(),
            rustc: self.rustc.clone(),
            rustc_version,
            rustc_commit: rustc_commit.to_owned(),
            sysroot,
            library,
            linker,
        })
    }

    fn library(&self, probe: &dyn Probe, sysroot: &Path, version: &str) -> Result<Library, String> {
        let folder = probe.ask(&self.rustc, &["--print", "target-libdir", "--target", TARGET]);
        let installed = folder.map(|folder| probe.list(Path::new(folder.trim()))).unwrap_or_default();
        if installed.iter().any(|file| is_core(file)) {
            return Ok(Library::Installed);
        }
        if !self.may_compile_std {
            return Err(format!("{version} has no std for {TARGET}"));
        }
        // What `-Zbuild-std` reads first. It downloads the crates that std uses, even if the
        // package has them in `vendor`.
        let sources = sources(sysroot);
        let missing = ["Cargo.toml", "Cargo.lock", "std/Cargo.toml", "core/src/lib.rs"]
            .map(|file| sources.join(file))
            .into_iter()
            .find(|file| !probe.exists(file));
        match missing {
            Some(file) => Err(format!("{version} has no sources of std: no {}", file.display())),
            None => Ok(Library::FromSources),
        }
    }

    fn no_cargo(&self) -> String {
        format!("its {} does not run", self.cargo.display())
    }
}

/// Where a sysroot has the sources of std, if it has them.
pub(super) fn sources(sysroot: &Path) -> PathBuf {
    sysroot.join("lib/rustlib/src/rust/library")
}

fn tools(sysroot: &Path, host: &str) -> PathBuf {
    sysroot.join("lib/rustlib").join(host).join("bin")
}

fn is_core(file: &Path) -> bool {
    let name = file.file_name().unwrap_or_default().to_string_lossy();
    name.starts_with("libcore-") && name.ends_with(".rlib")
}

/// The value in a line `name: value` of `-vV`.
fn field<'a>(about: &'a str, name: &str) -> Option<&'a str> {
    about.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(": "))
}

/// `95` of `1.95.0`.
fn minor(release: &str) -> Option<u32> {
    release.split('.').nth(1)?.parse().ok()
}

/// On `PATH`, else in whatever rustup toolchain has one, the newest by name first.
fn find_linker(probe: &dyn Probe, host: &str) -> Option<Linker> {
    let path = probe.search_path();
    let on_path = LINKERS.iter().flat_map(|name| path.iter().map(move |folder| folder.join(name)));
    let toolchains = probe.rustup_home().map(|home| probe.list(&home.join("toolchains")));
    let of_rustup = toolchains.into_iter().flatten().rev();
    let of_rustup = of_rustup.map(|toolchain| tools(&toolchain, host).join("rust-lld"));
    on_path.chain(of_rustup).filter(|file| probe.exists(file)).find_map(|path| {
        let named_wasm = path.file_name().is_some_and(|name| name != "rust-lld");
        let arguments: &[&str] = if named_wasm { &["--version"] } else { &["-flavor", "wasm", "--version"] };
        let about = probe.ask(&path, arguments)?;
        let version = about.split(" (").next().unwrap_or_default().trim().to_owned();
        Some(Linker { path, version })
    })
}

impl fmt::Display for Toolchain {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.rustc_version)?;
        if let Some(linker) = &self.linker {
            write!(f, ", linker {} ({})", linker.path.display(), linker.version)?;
        }
        match self.library {
            Library::Installed => Ok(()),
            Library::FromSources => f.write_str(", std from sources: the first build takes a minute more"),
        }
    }
}

// === impl Machine ===

impl Machine {
    pub(super) fn at(folder: &Path) -> Machine {
        Machine { folder: folder.to_owned() }
    }
}

impl Probe for Machine {
    fn ask(&self, program: &Path, arguments: &[&str]) -> Option<String> {
        let mut command = Command::new(program);
        clean(&mut command);
        let output = command.args(arguments).current_dir(&self.folder).output().ok()?;
        output.status.success().then(|| String::from_utf8_lossy(&output.stdout).into_owned())
    }

    fn exists(&self, path: &Path) -> bool {
        path.exists()
    }

    fn list(&self, folder: &Path) -> Vec<PathBuf> {
        let entries = fs::read_dir(folder).into_iter().flatten().flatten();
        let mut paths: Vec<_> = entries.map(|entry| entry.path()).collect();
        paths.sort();
        paths
    }

    fn search_path(&self) -> Vec<PathBuf> {
        env::var_os("PATH").map(|path| env::split_paths(&path).collect()).unwrap_or_default()
    }

    fn rustup_home(&self) -> Option<PathBuf> {
        let given = env::var_os("RUSTUP_HOME").map(PathBuf::from);
        given.or_else(|| env::home_dir().map(|home| home.join(".rustup")))
    }
}
