//! The Cargo packages of a directory and all they take in by path, as `cargo metadata` tells it.
//!
//! Asked with `--no-deps --offline` only, which needs neither network nor lock file: path
//! dependencies outside the workspace are followed by asking again there.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde::{Deserialize, Serialize};

use super::toolchain;

/// A workspace, and every package that one of its members depends on by path.
#[derive(Debug)]
pub(super) struct Workspace {
    pub(super) root: PathBuf,
    pub(super) target_directory: PathBuf,
    /// Its `Cargo.toml`, parsed.
    pub(super) manifest: toml::Table,
    /// Folders of the members that were asked for.
    members: Vec<PathBuf>,
    /// By the package's folder.
    packages: BTreeMap<PathBuf, Package>,
    /// Folders that stand in for crates of a registry, through `[patch]`.
    patches: Vec<PathBuf>,
}

#[derive(Clone, Debug, Deserialize)]
pub(super) struct Package {
    pub(super) id: String,
    pub(super) name: String,
    pub(super) version: String,
    pub(super) edition: String,
    manifest_path: PathBuf,
    pub(super) dependencies: Vec<Dependency>,
    pub(super) features: BTreeMap<String, Vec<String>>,
    targets: Vec<Target>,
    metadata: Option<PackageMetadata>,
}

/// One dependency as its package asks for it. Serialized into the source digest, so without its
/// path, which says where the sources lie and not what they are.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub(super) struct Dependency {
    name: String,
    req: String,
    kind: Option<String>,
    rename: Option<String>,
    optional: bool,
    uses_default_features: bool,
    features: Vec<String>,
    target: Option<String>,
    #[serde(skip_serializing)]
    path: Option<PathBuf>,
}

#[derive(Clone, Debug, Deserialize)]
struct Target {
    crate_types: Vec<String>,
}

#[derive(Clone, Debug, Deserialize)]
struct PackageMetadata {
    sluice: Option<SluiceMetadata>,
}

/// `[package.metadata.sluice]`.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct SluiceMetadata {
    /// Files and folders outside the package that it is made of, relative to it.
    #[serde(default)]
    sources: Vec<String>,
}

#[derive(Deserialize)]
struct Metadata {
    packages: Vec<Package>,
    workspace_root: PathBuf,
    target_directory: PathBuf,
}

#[derive(Debug, thiserror::Error)]
pub(crate) enum WorkspaceError {
    #[error("there is no {path}")]
    NoManifest { path: String },
    #[error("no cargo could be started: tried {tried}")]
    NoCargo { tried: String },
    #[error("`cargo metadata` for {path} failed:\n{stderr}")]
    Refused { path: String, stderr: String },
    #[error("`cargo metadata` answered what could not be read")]
    Answer { source: serde_json::Error },
    #[error("reading {path}")]
    Read { path: String, source: io::Error },
    #[error("{path} is not TOML")]
    Manifest { path: String, source: Box<toml::de::Error> },
}

// === impl Workspace ===

impl Workspace {
    /// The packages at `path`: the one package if a member lies there, all if it is the root.
    /// The first of `cargos` that answers is used.
    pub(super) fn load(path: &Path, cargos: &[PathBuf]) -> Result<Workspace, WorkspaceError> {
        let path = canonical(path)?;
        let Metadata { packages, workspace_root, target_directory } = ask(&path, cargos)?;
        let manifest = read_manifest(&workspace_root)?;
        let mut workspace = Workspace {
            members: packages.iter().map(Package::folder).collect(),
            packages: packages.into_iter().map(|package| (package.folder(), package)).collect(),
            patches: patches(&manifest, &workspace_root),
            root: workspace_root,
            target_directory,
            manifest,
        };
        if path != workspace.root && workspace.members.contains(&path) {
            workspace.members = vec![path];
        }
        workspace.members.sort();
        workspace.follow(cargos)?;
        Ok(workspace)
    }

    /// Adds the packages outside that are reached by path.
    fn follow(&mut self, cargos: &[PathBuf]) -> Result<(), WorkspaceError> {
        let mut open = self.patches.clone();
        open.extend(self.packages.values().flat_map(Package::path_dependencies));
        while let Some(folder) = open.pop() {
            if self.packages.contains_key(&folder) {
                continue;
            }
            for package in ask(&folder, cargos)?.packages {
                if package.folder() == folder {
                    open.extend(package.path_dependencies());
                    self.packages.insert(folder.clone(), package);
                }
            }
        }
        Ok(())
    }

    /// The packages that were asked for and become components, by name.
    pub(super) fn plugins(&self) -> Vec<&Package> {
        let members = self.members.iter().filter_map(|folder| self.packages.get(folder));
        let mut plugins: Vec<_> = members.filter(|package| package.is_plugin()).collect();
        plugins.sort_by(|a, b| a.name.cmp(&b.name));
        plugins
    }

    /// `package` and all that it takes in by path, directly or not.
    pub(super) fn closure<'a>(&'a self, package: &'a Package) -> Vec<&'a Package> {
        let mut seen = BTreeSet::new();
        let mut open = self.patches.clone();
        open.push(package.folder());
        let mut closure = Vec::new();
        while let Some(folder) = open.pop() {
            if let Some(package) = self.packages.get(&folder)
                && seen.insert(folder)
            {
                open.extend(package.path_dependencies());
                closure.push(package);
            }
        }
        closure
    }

    /// Every package known, outside ones included.
    pub(super) fn packages(&self) -> impl Iterator<Item = &Package> {
        self.packages.values()
    }
}

// === impl Package ===

impl Package {
    pub(super) fn folder(&self) -> PathBuf {
        self.manifest_path.parent().unwrap_or(Path::new("/")).to_owned()
    }

    /// What else it is made of, as written in its manifest.
    pub(super) fn extra_sources(&self) -> &[String] {
        let sluice = self.metadata.as_ref().and_then(|metadata| metadata.sluice.as_ref());
        sluice.map_or(&[], |sluice| &sluice.sources)
    }

    fn is_plugin(&self) -> bool {
        self.targets.iter().any(|target| target.crate_types.iter().any(|kind| kind == "cdylib"))
    }

    /// Development dependencies are not in the component.
    fn path_dependencies(&self) -> Vec<PathBuf> {
        let built = self.dependencies.iter().filter(|dependency| dependency.is_built());
        built.filter_map(|dependency| dependency.path.clone()).collect()
    }
}

// === impl Dependency ===

impl Dependency {
    pub(super) fn is_built(&self) -> bool {
        self.kind.as_deref() != Some("dev")
    }
}

/// What cargo says of the workspace that `folder` belongs to.
fn ask(folder: &Path, cargos: &[PathBuf]) -> Result<Metadata, WorkspaceError> {
    let manifest = folder.join("Cargo.toml");
    if !manifest.is_file() {
        return Err(WorkspaceError::NoManifest { path: manifest.display().to_string() });
    }
    let mut refused = None;
    for cargo in cargos {
        let mut command = Command::new(cargo);
        toolchain::clean(&mut command);
        command.args(["metadata", "--no-deps", "--offline", "--format-version", "1"]).current_dir(folder);
        match command.output() {
            Ok(output) if output.status.success() => {
                return serde_json::from_slice(&output.stdout)
                    .map_err(|source| WorkspaceError::Answer { source });
            }
            Ok(output) => refused = Some(String::from_utf8_lossy(&output.stderr).trim().to_owned()),
            Err(_) => (),
        }
    }
    Err(match refused {
        Some(stderr) => WorkspaceError::Refused { path: folder.display().to_string(), stderr },
        None => {
            let tried: Vec<_> = cargos.iter().map(|cargo| cargo.display().to_string()).collect();
            WorkspaceError::NoCargo { tried: tried.join(", ") }
        }
    })
}

/// Cargo's answers have no links in them if the question has none.
fn canonical(path: &Path) -> Result<PathBuf, WorkspaceError> {
    path.canonicalize().map_err(|source| WorkspaceError::Read { path: path.display().to_string(), source })
}

fn read_manifest(folder: &Path) -> Result<toml::Table, WorkspaceError> {
    let path = folder.join("Cargo.toml");
    let shown = || path.display().to_string();
    let text = fs::read_to_string(&path).map_err(|source| WorkspaceError::Read { path: shown(), source })?;
    text.parse().map_err(|source| WorkspaceError::Manifest { path: shown(), source: Box::new(source) })
}

/// Folders in `[patch.*]` tables.
fn patches(manifest: &toml::Table, root: &Path) -> Vec<PathBuf> {
    let tables = manifest.get("patch").and_then(toml::Value::as_table).into_iter();
    let crates = tables.flat_map(toml::Table::values).filter_map(toml::Value::as_table);
    let paths = crates.flat_map(toml::Table::values).filter_map(|patch| patch.get("path")?.as_str());
    paths.filter_map(|path| root.join(path).canonicalize().ok()).collect()
}
