//! Tells cargo what to build and how, so that the module does not depend on where it was built.

use std::collections::VecDeque;
use std::env;
use std::fs;
use std::io::{self, BufRead, BufReader, IsTerminal, Read, Write};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::thread;

use serde::Deserialize;

use super::TARGET;
use super::toolchain::{self, Library, Toolchain};
use super::workspace::{Package, Workspace};

/// Imposed on every plugin; `opt-level` is the author's.
const PROFILE: [&str; 5] = [
    "profile.release.lto=true",
    "profile.release.codegen-units=1",
    "profile.release.panic=\"abort\"",
    "profile.release.strip=true",
    "profile.release.incremental=false",
];
/// A stack of less than the default 1 MiB, as memory is paid for per instance; places renamed in
/// the output but not in messages. The renames themselves follow.
const RUSTFLAGS: [&str; 2] = ["-Clink-arg=-zstack-size=65536", "--remap-path-scope=object"];
const BUILD_STD: &str = "-Zbuild-std=std,panic_abort";

/// How much of cargo's messages an error repeats.
const TAIL_LINES: usize = 20;

/// Runs cargo for one workspace with one toolchain.
#[derive(Debug)]
pub(super) struct Cargo<'a> {
    toolchain: &'a Toolchain,
    workspace: &'a Workspace,
    /// What stands before rustc, where there is a shell to run it.
    wrapper: Option<PathBuf>,
    /// Places on this machine, and what the compiler is to call them. The last that fits counts.
    remaps: Vec<(PathBuf, String)>,
}

#[derive(Debug, thiserror::Error)]
pub(crate) enum CompileError {
    #[error("starting {program}")]
    Start { program: String, source: io::Error },
    #[error("reading what cargo says")]
    Pipe { source: io::Error },
    #[error("cargo failed ({status}); its last lines:\n{tail}")]
    Failed { status: String, tail: String },
    #[error("cargo built no WebAssembly module")]
    NoModule,
    #[error("reading {path}")]
    Read { path: String, source: io::Error },
    #[error("writing {path}")]
    Write { path: String, source: io::Error },
}

/// What is read of cargo's JSON messages.
#[derive(Deserialize)]
struct Message {
    reason: String,
    package_id: Option<String>,
    #[serde(default)]
    filenames: Vec<PathBuf>,
}

// === impl Cargo ===

impl<'a> Cargo<'a> {
    /// Brings the lock file up to date (unless `locked`) and downloads what it names.
    pub(super) fn prepare(
        toolchain: &'a Toolchain,
        workspace: &'a Workspace,
        locked: bool,
    ) -> Result<Cargo<'a>, CompileError> {
        let mut cargo = Cargo { toolchain, workspace, wrapper: None, remaps: Vec::new() };
        let mut fetch = cargo.command("fetch");
        fetch.args(cargo.build_std());
        fetch.args(["--target", TARGET]).args(locked.then_some("--locked"));
        run(fetch)?;
        cargo.remaps = remaps(toolchain, workspace); // the registry's folder is there now
        cargo.wrapper = write_wrapper(workspace)?;
        Ok(cargo)
    }

    /// What is imposed on every plugin, as `provenance.toml` has it: without places.
    pub(super) fn flags(&self) -> Vec<String> {
        PROFILE.into_iter().chain(RUSTFLAGS).chain(self.build_std()).map(str::to_owned).collect()
    }

    /// The core module of one package. One package per run: the features that its neighbours
    /// want of a common dependency are not its own.
    pub(super) fn build(&self, package: &Package) -> Result<Vec<u8>, CompileError> {
        let mut build = self.command("build");
        build.args(self.build_std());
        build.args(["--release", "--locked", "--lib", "--target", TARGET, "-p", &package.id]);
        build.arg("--message-format=json-render-diagnostics");
        for setting in PROFILE {
            build.args(["--config", setting]);
        }
        if let Some(wrapper) = &self.wrapper {
            build.env("RUSTC_WRAPPER", wrapper);
        }
        build.env("CARGO_ENCODED_RUSTFLAGS", self.rustflags().join("\u{1f}"));
        let module = run(build)?.lines().find_map(|line| module_of(line, &package.id));
        let path = module.ok_or(CompileError::NoModule)?;
        fs::read(&path).map_err(|source| CompileError::Read { path: path.display().to_string(), source })
    }

    fn build_std(&self) -> Option<&'static str> {
        (self.toolchain.library == Library::FromSources).then_some(BUILD_STD)
    }

    fn command(&self, subcommand: &str) -> Command {
        let mut command = Command::new(&self.toolchain.cargo);
        toolchain::clean(&mut command);
        command.arg(subcommand).current_dir(&self.workspace.root);
        if io::stderr().is_terminal() {
            command.env("CARGO_TERM_COLOR", "always"); // cargo sees a pipe
        }
        if self.toolchain.library == Library::FromSources {
            // `cargo run` points this at the libraries of the host's compiler.
            command.env_remove("LD_LIBRARY_PATH");
            command.env("RUSTC", &self.toolchain.rustc).env("RUSTC_BOOTSTRAP", "1");
        }
        if let Some(linker) = &self.toolchain.linker {
            command.env("CARGO_TARGET_WASM32_UNKNOWN_UNKNOWN_LINKER", &linker.path);
        }
        command
    }

    fn rustflags(&self) -> Vec<String> {
        let mut flags: Vec<_> = RUSTFLAGS.map(str::to_owned).to_vec();
        if self.toolchain.linker.as_ref().is_some_and(|linker| !linker.path.ends_with("rust-lld")) {
            flags.push("-Clinker-flavor=wasm-ld".to_owned());
        }
        let remap = |(from, to): &(PathBuf, String)| format!("--remap-path-prefix={}={to}", from.display());
        flags.extend(self.remaps.iter().map(remap));
        flags
    }
}

/// Names that do not say where things lie, those for the longest prefixes last.
fn remaps(toolchain: &Toolchain, workspace: &Workspace) -> Vec<(PathBuf, String)> {
    let mut remaps = Vec::new();
    let home = env::var_os("CARGO_HOME").map(PathBuf::from);
    if let Some(home) = home.or_else(|| env::home_dir().map(|home| home.join(".cargo"))) {
        let registries = fs::read_dir(home.join("registry/src")).into_iter().flatten().flatten();
        remaps.push((home, "/cargo".to_owned()));
        let mut registries: Vec<_> = registries.map(|entry| entry.path()).collect();
        registries.sort();
        remaps.extend(registries.into_iter().map(|registry| (registry, "/cargo/registry".to_owned())));
    }
    // As an std that was installed calls them, so that it is the same with and without sources.
    let std = (toolchain::sources(&toolchain.sysroot), format!("/rustc/{}/library", toolchain.rustc_commit));
    remaps.extend(std.0.canonicalize().ok().map(|folder| (folder, std.1.clone())));
    remaps.push(std);
    remaps.push((workspace.root.clone(), "/workspace".to_owned()));
    remaps.push((workspace.target_directory.clone(), "/target".to_owned()));
    // Those inside are named already. Any change here compiles everything anew, std too.
    let outside = workspace.packages().filter(|package| !package.folder().starts_with(&workspace.root));
    remaps.extend(outside.map(|package| (package.folder(), format!("/packages/{}", package.name))));
    remaps.sort_by_key(|(folder, _)| folder.as_os_str().len());
    remaps
}

/// Cargo names the symbols of a path dependency after its absolute place if it lies outside the
/// workspace, and symbols decide the order of functions. A script before rustc gives our own
/// packages names from what they are called instead.
fn write_wrapper(workspace: &Workspace) -> Result<Option<PathBuf>, CompileError> {
    if !cfg!(unix) {
        return Ok(None);
    }
    let path = workspace.target_directory.join("sluice-rustc-wrapper");
    let script = wrapper_script(workspace.packages().map(Package::folder));
    if fs::read_to_string(&path).is_ok_and(|there| there == script) {
        return Ok(Some(path));
    }
    let written = super::replace(&path, script.as_bytes()).and_then(|()| make_executable(&path));
    written.map_err(|source| CompileError::Write { path: path.display().to_string(), source })?;
    Ok(Some(path))
}

#[cfg(unix)]
fn make_executable(path: &Path) -> io::Result<()> {
    use std::os::unix::fs::PermissionsExt;
    fs::set_permissions(path, fs::Permissions::from_mode(0o755))
}

#[cfg(not(unix))]
fn make_executable(_: &Path) -> io::Result<()> {
    Ok(())
}

pub(super) fn wrapper_script(packages: impl Iterator<Item = PathBuf>) -> String {
    let quoted = |folder: PathBuf| format!("'{}'", folder.display().to_string().replace('\'', "'\\''"));
    let packages: Vec<_> = packages.map(quoted).collect();
    format!(
        r#"#!/bin/sh
# Written by `sluice plugin build`: symbols of these packages do not depend on where they lie.
case "${{CARGO_MANIFEST_DIR-}}" in
  {packages}) name="$CARGO_PKG_NAME-$CARGO_PKG_VERSION" ;;
  *) exec "$@" ;;
esac
count=$#
while [ "$count" -gt 0 ]; do
  argument=$1
  shift
  case "$argument" in metadata=*) argument="metadata=$name" ;; esac
  set -- "$@" "$argument"
  count=$((count - 1))
done
exec "$@"
"#,
        packages = packages.join(" | ")
    )
}

/// The module that a line of cargo's JSON says it made for `package`.
fn module_of(line: &str, package: &str) -> Option<PathBuf> {
    let message: Message = serde_json::from_str(line).ok()?;
    let of_package = message.reason == "compiler-artifact" && message.package_id.as_deref() == Some(package);
    let is_module = |file: &PathBuf| file.extension().is_some_and(|extension| extension == "wasm");
    message.filenames.into_iter().filter(|_| of_package).find(is_module)
}

/// Standard output of a command whose messages go on to our stderr as they come.
fn run(mut command: Command) -> Result<String, CompileError> {
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let program = command.get_program().to_string_lossy().into_owned();
    let mut child = command.spawn().map_err(|source| CompileError::Start { program, source })?;
    let messages = child.stderr.take().map(|stderr| thread::spawn(move || pass_on(stderr)));
    let mut output = String::new();
    let read = child.stdout.take().map_or(Ok(0), |mut stdout| stdout.read_to_string(&mut output));
    let status = child.wait().map_err(|source| CompileError::Pipe { source })?;
    let tail = messages.and_then(|messages| messages.join().ok()).unwrap_or_default();
    if !status.success() {
        return Err(CompileError::Failed { status: status.to_string(), tail });
    }
    read.map(|_| output).map_err(|source| CompileError::Pipe { source })
}

/// Copies to stderr line by line; returns the last ones. Reads to the end whatever happens, or
/// the writer would wait for us.
fn pass_on(messages: impl Read) -> String {
    let mut tail = VecDeque::new();
    for line in BufReader::new(messages).split(b'\n').map_while(Result::ok) {
        let mut stderr = io::stderr().lock();
        drop(stderr.write_all(&line).and_then(|()| stderr.write_all(b"\n")));
        if tail.len() == TAIL_LINES {
            tail.pop_front();
        }
        tail.push_back(String::from_utf8_lossy(&line).into_owned());
    }
    Vec::from(tail).join("\n")
}
