//! `sluice plugin build`: turns the Rust packages of a directory into components, reproducibly.
//!
//! One `cargo build` per package, then everything else in process: encoding, stamp, digests and
//! `provenance.toml`, which lets [`check_sources`] prove without any wasm toolchain that the
//! components belong to their sources. Which compiler: `toolchain`. What it is told: `compile`.

mod compile;
mod component;
mod digest;
mod provenance;
mod toolchain;
mod workspace;

use std::fmt;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use compile::CompileError;
use component::ComponentError;
use digest::DigestError;
use provenance::{Entry, Provenance, ProvenanceError};
use toolchain::{Machine, NoToolchain, Toolchain};
use workspace::{Package, Workspace, WorkspaceError};

const TARGET: &str = "wasm32-unknown-unknown";

/// What to build, and what to do with it.
#[derive(Clone, Debug)]
pub(crate) struct Options {
    /// A directory with a Cargo package or workspace.
    pub(crate) path: PathBuf,
    /// Where the components are kept; `path/dist` unless given.
    pub(crate) out: Option<PathBuf>,
    pub(crate) task: Task,
}

/// What becomes of the components built.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Task {
    /// They are written, and `provenance.toml` with them.
    Write,
    /// They are compared with those in the directory; nothing is written there.
    Verify,
}

/// One component, as built now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Built {
    pub(crate) package: String,
    pub(crate) version: String,
    pub(crate) file: PathBuf,
    pub(crate) bytes: usize,
    pub(crate) sha256: String,
    pub(crate) source_sha256: String,
}

/// A plugin whose component does not belong to its sources.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Stale {
    pub(crate) package: String,
    pub(crate) reason: StaleReason,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum StaleReason {
    /// `provenance.toml` says nothing about it.
    NotRecorded,
    /// The component is not in the directory.
    FileMissing,
    /// The component is not the one recorded.
    FileChanged,
    /// The sources are not those it was built from.
    SourcesChanged,
}

#[derive(Debug, thiserror::Error)]
pub(crate) enum BuildError {
    #[error("reading the packages of {path}")]
    Workspace { path: String, source: WorkspaceError },
    #[error(
        "{path} has no package with a `cdylib` target; a plugin's Cargo.toml has [lib] crate-type = [\"cdylib\"]"
    )]
    NoPlugins { path: String },
    #[error("looking for a compiler")]
    Toolchain(#[from] NoToolchain),
    #[error("building {package}")]
    Compile { package: String, source: CompileError },
    #[error("making a component of {package}")]
    Component { package: String, source: ComponentError },
    #[error("reading the sources of {package}")]
    Digest { package: String, source: DigestError },
    #[error("the sources of {package} changed while it was built; build again")]
    ChangedMeanwhile { package: String },
    #[error("reading or writing the record of what was built")]
    Provenance(#[from] ProvenanceError),
    #[error("writing {path}")]
    Write { path: String, source: io::Error },
    #[error("reading {path}")]
    Read { path: String, source: io::Error },
    #[error("{}", stale_text(.0))]
    Stale(Vec<Stale>),
    #[error("{}", differs_text(.0))]
    Differs(Vec<Difference>),
}

/// A plugin whose bytes in the directory are not those built now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Difference {
    pub(crate) package: String,
    pub(crate) built: String,
    /// Digest of the file in the directory, if there is one.
    pub(crate) kept: Option<String>,
    /// The recorded compiler and the one used now, where they differ.
    pub(crate) toolchains: Option<(String, String)>,
    pub(crate) sources_changed: bool,
}

/// Builds every plugin of `options.path`, and writes or verifies the components. `progress` gets
/// one line per step; cargo's own output goes to stderr.
pub(crate) fn build(options: &Options, progress: &mut dyn FnMut(&str)) -> Result<Vec<Built>, BuildError> {
    let out = options.out.clone().unwrap_or_else(|| default_out(&options.path));
    let workspace = load(&options.path)?;
    let plugins = plugins(&workspace, &options.path)?;
    let recorded = Provenance::read(&out)?;
    let toolchain = toolchain::choose(&Machine::at(&workspace.root))?;
    progress(&format!("toolchain: {toolchain}"));
    let cargo = compile::Cargo::prepare(&toolchain, &workspace, options.task == Task::Verify)
        .map_err(|source| BuildError::Compile { package: "the dependencies".to_owned(), source })?;

    let mut entries = Vec::new();
    let mut built = Vec::new();
    let mut differences = Vec::new();
    for package in plugins {
        progress(&format!("building {} {}", package.name, package.version));
        let (bytes, entry) = build_one(&workspace, package, &cargo, &toolchain)?;
        progress(&format!("{}: {} bytes, sha256 {}", entry.package, entry.bytes, entry.sha256));
        let file = out.join(&entry.file);
        match options.task {
            Task::Write => write_if_changed(&file, &bytes)?,
            Task::Verify => differences.extend(difference(&file, &bytes, &entry, &recorded)?),
        }
        built.push(Built {
            package: entry.package.clone(),
            version: entry.version.clone(),
            file,
            bytes: bytes.len(),
            sha256: entry.sha256.clone(),
            source_sha256: entry.source_sha256.clone(),
        });
        entries.push(entry);
    }
    match options.task {
        Task::Write => recorded.merge(entries).keep(|file| out.join(file).is_file()).write(&out)?,
        Task::Verify if differences.is_empty() => (),
        Task::Verify => return Err(BuildError::Differs(differences)),
    }
    Ok(built)
}

/// Proves that the components in `dist` were built from the sources at `path` and not touched
/// since: by digests alone, so no wasm toolchain and no network are needed, only `cargo metadata`.
///
/// # Errors
///
/// [`BuildError::Stale`] names each plugin for which that does not hold.
pub(crate) fn check_sources(path: &Path, dist: &Path) -> Result<(), BuildError> {
    let workspace = load(path)?;
    let recorded = Provenance::read(dist)?;
    let mut stale = Vec::new();
    for package in plugins(&workspace, path)? {
        let source_sha256 = source_digest(&workspace, package)?;
        let component = read_if_there(&dist.join(file_name(package)))?;
        let reason = match (recorded.of(&package.name), component) {
            (None, _) => StaleReason::NotRecorded,
            (Some(_), None) => StaleReason::FileMissing,
            (Some(entry), Some(bytes)) if entry.sha256 != digest::sha256(&bytes) => StaleReason::FileChanged,
            (Some(entry), Some(_)) if entry.source_sha256 != source_sha256 => StaleReason::SourcesChanged,
            (Some(_), Some(_)) => continue,
        };
        stale.push(Stale { package: package.name.clone(), reason });
    }
    if stale.is_empty() { Ok(()) } else { Err(BuildError::Stale(stale)) }
}

/// Where components are kept when nothing else was said.
pub(crate) fn default_out(path: &Path) -> PathBuf {
    path.join("dist")
}

fn load(path: &Path) -> Result<Workspace, BuildError> {
    Workspace::load(path, &["cargo".into(), toolchain::SYSTEM_CARGO.into()])
        .map_err(|source| BuildError::Workspace { path: path.display().to_string(), source })
}

fn plugins<'a>(workspace: &'a Workspace, path: &Path) -> Result<Vec<&'a Package>, BuildError> {
    let plugins = workspace.plugins();
    if plugins.is_empty() {
        return Err(BuildError::NoPlugins { path: path.display().to_string() });
    }
    Ok(plugins)
}

/// Digest of everything a package's component is made of; the same wherever the sources lie.
fn source_digest(workspace: &Workspace, package: &Package) -> Result<String, BuildError> {
    digest::source_digest(workspace, package)
        .map_err(|source| BuildError::Digest { package: package.name.clone(), source })
}

fn build_one(
    workspace: &Workspace,
    package: &Package,
    cargo: &compile::Cargo<'_>,
    toolchain: &Toolchain,
) -> Result<(Vec<u8>, Entry), BuildError> {
    let name = &package.name;
    let source_sha256 = source_digest(workspace, package)?;
    let module =
        cargo.build(package).map_err(|source| BuildError::Compile { package: name.clone(), source })?;
    if source_digest(workspace, package)? != source_sha256 {
        return Err(BuildError::ChangedMeanwhile { package: name.clone() });
    }
    let stamp = component::Stamp::new(name, &package.version, &source_sha256);
    let bytes = component::encode(&module, &stamp)
        .map_err(|source| BuildError::Component { package: name.clone(), source })?;
    let entry = Entry {
        package: name.clone(),
        version: package.version.clone(),
        file: file_name(package),
        bytes: bytes.len() as u64,
        sha256: digest::sha256(&bytes),
        source_sha256,
        rustc: toolchain.rustc_version.clone(),
        linker: toolchain.linker.as_ref().map(|linker| linker.version.clone()),
        target: TARGET.to_owned(),
        flags: cargo.flags(),
    };
    Ok((bytes, entry))
}

fn file_name(package: &Package) -> String {
    format!("{}.wasm", package.name)
}

fn difference(
    file: &Path,
    bytes: &[u8],
    built: &Entry,
    recorded: &Provenance,
) -> Result<Option<Difference>, BuildError> {
    let kept = read_if_there(file)?;
    if kept.as_deref() == Some(bytes) {
        return Ok(None);
    }
    let record = recorded.of(&built.package);
    Ok(Some(Difference {
        package: built.package.clone(),
        built: built.sha256.clone(),
        kept: kept.as_deref().map(digest::sha256),
        toolchains: record
            .map(|record| (record.toolchain(), built.toolchain()))
            .filter(|(recorded, now)| recorded != now),
        sources_changed: record.is_some_and(|record| record.source_sha256 != built.source_sha256),
    }))
}

fn read_if_there(path: &Path) -> Result<Option<Vec<u8>>, BuildError> {
    match fs::read(path) {
        Ok(bytes) => Ok(Some(bytes)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(source) => Err(BuildError::Read { path: path.display().to_string(), source }),
    }
}

/// An unchanged file keeps its modification time: who watches it has nothing to reload.
fn write_if_changed(path: &Path, bytes: &[u8]) -> Result<(), BuildError> {
    if read_if_there(path)?.as_deref() == Some(bytes) {
        return Ok(());
    }
    replace(path, bytes).map_err(|source| BuildError::Write { path: path.display().to_string(), source })
}

/// Writes beside `path` and renames: a reader sees the old file or the new one, whole.
fn replace(path: &Path, bytes: &[u8]) -> io::Result<()> {
    if let Some(folder) = path.parent() {
        fs::create_dir_all(folder)?;
    }
    let mut name = path.file_name().unwrap_or_default().to_owned();
    name.push(format!(".{}.tmp", std::process::id()));
    let temporary = path.with_file_name(name);
    fs::write(&temporary, bytes)?;
    fs::rename(&temporary, path).inspect_err(|_| drop(fs::remove_file(&temporary)))
}

fn stale_text(stale: &[Stale]) -> String {
    let lines = stale.iter().map(|stale| format!("\n  {}: {}", stale.package, stale.reason));
    format!("{} of the plugins are not what their sources say:{}", stale.len(), lines.collect::<String>())
}

fn differs_text(differences: &[Difference]) -> String {
    let lines = differences.iter().map(|difference| format!("\n  {difference}"));
    format!(
        "{} of the plugins differ from what was built now:{}",
        differences.len(),
        lines.collect::<String>()
    )
}

impl fmt::Display for StaleReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            StaleReason::NotRecorded => "not in provenance.toml",
            StaleReason::FileMissing => "its component is missing",
            StaleReason::FileChanged => "its component is not the one recorded in provenance.toml",
            StaleReason::SourcesChanged => "its sources changed since it was built",
        })
    }
}

impl fmt::Display for Difference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let kept = self.kept.as_deref().unwrap_or("no file");
        write!(f, "{}: built sha256 {}, kept {kept}", self.package, self.built)?;
        if self.sources_changed {
            f.write_str("; its sources changed since it was recorded")?;
        }
        if let Some((recorded, now)) = &self.toolchains {
            write!(f, "; the toolchain differs: recorded {recorded:?}, now {now:?}")?;
        }
        Ok(())
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test fails by it")]
mod tests;
