//! Digest of a plugin's sources: what the component is made of, wherever that lies on disk.
//!
//! Of the workspace's manifest and lock file only what reaches the package counts, so that a new
//! neighbour does not make every component of the workspace stale.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use super::workspace::{Dependency, Package, Workspace};

/// Folders of a package's own that are not in its component.
const FOLDERS_OUTSIDE: [&str; 5] = ["target", "dist", "tests", "benches", "examples"];

/// Digests of the sources, by a name that does not say where they lie.
type Sources = BTreeMap<String, String>;

#[derive(Debug, thiserror::Error)]
pub(crate) enum DigestError {
    #[error("reading {path}")]
    Read { path: String, source: io::Error },
    #[error("{path} is not a lock file")]
    Lock { path: String, source: Box<toml::de::Error> },
    #[error("putting {what} into words")]
    Serialize { what: String, source: serde_json::Error },
}

/// What a package's manifest means once values inherited from the workspace are filled in.
#[derive(Serialize)]
struct Manifest<'a> {
    name: &'a str,
    version: &'a str,
    edition: &'a str,
    features: &'a BTreeMap<String, Vec<String>>,
    dependencies: Vec<&'a Dependency>,
}

#[derive(Deserialize)]
struct Lock {
    #[serde(default)]
    package: Vec<Locked>,
}

#[derive(Deserialize)]
struct Locked {
    name: String,
    version: String,
    source: Option<String>,
    checksum: Option<String>,
    #[serde(default)]
    dependencies: Vec<String>,
}

pub(super) fn sha256(bytes: &[u8]) -> String {
    hex(&Sha256::digest(bytes))
}

/// Digest over names and contents, sorted: the package's own files, those of its path
/// dependencies, the `sources` that they list, the profile, and what the lock file pins for it.
pub(super) fn source_digest(workspace: &Workspace, package: &Package) -> Result<String, DigestError> {
    let mut sources = Sources::new();
    for package in workspace.closure(package) {
        add_package(&mut sources, package)?;
    }
    let profile = ["profile", "patch"].map(|key| workspace.manifest.get(key));
    add_json(&mut sources, "workspace", &profile)?;
    add_locked(&mut sources, workspace, package)?;
    Ok(digest_of(&sources))
}

fn digest_of(sources: &Sources) -> String {
    let mut hasher = Sha256::new();
    for (name, content_sha256) in sources {
        hasher.update((name.len() as u64).to_le_bytes());
        hasher.update(name);
        hasher.update(content_sha256);
    }
    hex(&hasher.finalize())
}

fn add_package(sources: &mut Sources, package: &Package) -> Result<(), DigestError> {
    let folder = package.folder();
    for entry in entries(&folder)? {
        let name = file_name(&entry);
        let outside = FOLDERS_OUTSIDE.contains(&name.as_str()) || is_prose(&name);
        if !outside && name != "Cargo.lock" {
            add_path(sources, &format!("{}/{name}", package.name), &entry)?;
        }
    }
    for source in package.extra_sources() {
        add_path(sources, &format!("{} + {source}", package.name), &folder.join(source))?;
    }
    let manifest = Manifest {
        name: &package.name,
        version: &package.version,
        edition: &package.edition,
        features: &package.features,
        dependencies: package.dependencies.iter().filter(|dependency| dependency.is_built()).collect(),
    };
    add_json(sources, &format!("{}:manifest", package.name), &manifest)
}

/// A file, or all files in a folder but for prose. Hidden ones are the tools', and a folder with a manifest is
/// another package's.
fn add_path(sources: &mut Sources, name: &str, path: &Path) -> Result<(), DigestError> {
    if !path.is_dir() {
        let content = fs::read(path).map_err(|source| read_error(path, source))?;
        sources.insert(name.to_owned(), sha256(&content));
        return Ok(());
    }
    if path.join("Cargo.toml").is_file() {
        return Ok(());
    }
    for entry in entries(path)?.into_iter().filter(|entry| !is_prose(&file_name(entry))) {
        add_path(sources, &format!("{name}/{}", file_name(&entry)), &entry)?;
    }
    Ok(())
}

/// What stands in a folder, but for what is hidden.
fn entries(folder: &Path) -> Result<Vec<PathBuf>, DigestError> {
    let listed = fs::read_dir(folder).map_err(|source| read_error(folder, source))?;
    let paths: io::Result<Vec<_>> = listed.map(|entry| entry.map(|entry| entry.path())).collect();
    let mut paths = paths.map_err(|source| read_error(folder, source))?;
    paths.retain(|path| !file_name(path).starts_with('.'));
    Ok(paths)
}

/// Read by people: a better README does not make a component stale.
fn is_prose(name: &str) -> bool {
    Path::new(name).extension().is_some_and(|extension| extension == "md")
}

fn add_json(sources: &mut Sources, name: &str, value: &impl Serialize) -> Result<(), DigestError> {
    let text = serde_json::to_vec(value)
        .map_err(|source| DigestError::Serialize { what: name.to_owned(), source })?;
    sources.insert(name.to_owned(), sha256(&text));
    Ok(())
}

/// The crates that the lock file pins for `package`, directly or not.
fn add_locked(sources: &mut Sources, workspace: &Workspace, package: &Package) -> Result<(), DigestError> {
    let path = workspace.root.join("Cargo.lock");
    let text = fs::read_to_string(&path).map_err(|source| read_error(&path, source))?;
    let lock: Lock = toml::from_str(&text)
        .map_err(|source| DigestError::Lock { path: path.display().to_string(), source: Box::new(source) })?;
    let mut open = vec![format!("{} {}", package.name, package.version)];
    let mut seen = BTreeSet::new();
    while let Some(wanted) = open.pop() {
        if !seen.insert(wanted.clone()) {
            continue;
        }
        for locked in lock.package.iter().filter(|locked| locked.is(&wanted)) {
            let source = locked.source.as_deref().unwrap_or("path");
            let name = format!("lock: {} {} {source}", locked.name, locked.version);
            sources.insert(name, locked.checksum.clone().unwrap_or_default());
            open.extend(locked.dependencies.iter().cloned());
        }
    }
    Ok(())
}

impl Locked {
    /// Whether it is what another entry calls `name`, `name version` or `name version (source)`.
    fn is(&self, wanted: &str) -> bool {
        let mut words = wanted.split(' ');
        words.next() == Some(&self.name)
            && words.next().is_none_or(|version| version == self.version)
            && words
                .next()
                .is_none_or(|source| Some(source.trim_matches(['(', ')'])) == self.source.as_deref())
    }
}

fn file_name(path: &Path) -> String {
    path.file_name().unwrap_or_default().to_string_lossy().into_owned()
}

fn read_error(path: &Path, source: io::Error) -> DigestError {
    DigestError::Read { path: path.display().to_string(), source }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
