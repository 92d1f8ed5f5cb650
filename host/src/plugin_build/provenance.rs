//! `provenance.toml`: from what, by what and how each component beside it was built.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::Path;

use serde::{Deserialize, Serialize};

const FILE: &str = "provenance.toml";
const FORMAT: u32 = 1;
const HEAD: &str = "# Written by `sluice plugin build`; do not edit.\n";

/// The record, by package; written in that order.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Provenance {
    by_package: BTreeMap<String, Entry>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Entry {
    pub(super) package: String,
    pub(super) version: String,
    /// Name of the component, in the directory of the record.
    pub(super) file: String,
    pub(super) bytes: u64,
    pub(super) sha256: String,
    pub(super) source_sha256: String,
    /// First line of `rustc -vV`.
    pub(super) rustc: String,
    /// The linker's version, if it is not the compiler's own.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) linker: Option<String>,
    pub(super) target: String,
    pub(super) flags: Vec<String>,
}

/// The file as written.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Document {
    format: u32,
    #[serde(default)]
    plugin: Vec<Entry>,
}

#[derive(Debug, thiserror::Error)]
pub(crate) enum ProvenanceError {
    #[error("reading {path}")]
    Read { path: String, source: io::Error },
    #[error("{path} is not a record that this version wrote")]
    Parse { path: String, source: Box<toml::de::Error> },
    #[error("{path} has format {found}, want {FORMAT}")]
    Format { path: String, found: u32 },
    #[error("putting the record into words")]
    Serialize { source: toml::ser::Error },
    #[error("writing {path}")]
    Write { path: String, source: io::Error },
}

// === impl Provenance ===

impl Provenance {
    /// The record of a directory; empty if there is none yet.
    pub(super) fn read(folder: &Path) -> Result<Provenance, ProvenanceError> {
        let path = folder.join(FILE);
        let shown = || path.display().to_string();
        let text = match fs::read_to_string(&path) {
            Ok(text) => text,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Provenance::default()),
            Err(source) => return Err(ProvenanceError::Read { path: shown(), source }),
        };
        let document: Document = toml::from_str(&text)
            .map_err(|source| ProvenanceError::Parse { path: shown(), source: Box::new(source) })?;
        if document.format != FORMAT {
            return Err(ProvenanceError::Format { path: shown(), found: document.format });
        }
        Ok(Provenance::default().merge(document.plugin))
    }

    pub(super) fn of(&self, package: &str) -> Option<&Entry> {
        self.by_package.get(package)
    }

    /// With `entries` in place of those of the same packages.
    pub(super) fn merge(mut self, entries: Vec<Entry>) -> Provenance {
        self.by_package.extend(entries.into_iter().map(|entry| (entry.package.clone(), entry)));
        self
    }

    /// Without the entries whose file is gone.
    pub(super) fn keep(mut self, is_there: impl Fn(&str) -> bool) -> Provenance {
        self.by_package.retain(|_, entry| is_there(&entry.file));
        self
    }

    pub(super) fn write(&self, folder: &Path) -> Result<(), ProvenanceError> {
        let path = folder.join(FILE);
        let text = self.text().map_err(|source| ProvenanceError::Serialize { source })?;
        if fs::read_to_string(&path).is_ok_and(|there| there == text) {
            return Ok(());
        }
        super::replace(&path, text.as_bytes())
            .map_err(|source| ProvenanceError::Write { path: path.display().to_string(), source })
    }

    pub(super) fn text(&self) -> Result<String, toml::ser::Error> {
        let document = Document { format: FORMAT, plugin: self.by_package.values().cloned().collect() };
        Ok(format!("{HEAD}{}", toml::to_string_pretty(&document)?))
    }
}

// === impl Entry ===

impl Entry {
    /// All that compiled and linked it, in one line.
    pub(super) fn toolchain(&self) -> String {
        match &self.linker {
            Some(linker) => format!("{}, {linker}", self.rustc),
            None => self.rustc.clone(),
        }
    }
}
