//! The plugins of this process: the built-in set, and what lies in the operator's folder.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use sluice_runtime::{Plugin, Runtime, Source};

include!(concat!(env!("OUT_DIR"), "/dist.rs"));

/// Bytes of a plugin file at most: components of interpreted languages are near 20 MiB.
const FILE_BYTES_MAX: u64 = 64 * 1024 * 1024;

/// Plugins by id, and the files that are none.
pub(crate) struct Plugins {
    by_id: BTreeMap<String, Arc<Plugin>>,
    refused: Vec<RefusedFile>,
}

/// A file that changes nothing, and why.
pub(crate) struct RefusedFile {
    pub(crate) file: PathBuf,
    pub(crate) reason: String,
}

impl Plugins {
    /// Admits the built-in plugins, then those of `dir`; a file replaces the built-in of its
    /// id. The folder is read once, at start.
    pub(crate) fn load(runtime: &Runtime, dir: &Path) -> Plugins {
        let mut plugins = Plugins { by_id: BTreeMap::new(), refused: Vec::new() };
        for bytes in DIST {
            match runtime.admit(bytes, Source::BuiltIn) {
                Ok(plugin) => plugins.insert(plugin),
                Err(error) => plugins.refuse(Path::new("(built-in)"), error.to_string()),
            }
        }
        for file in wasm_files(dir) {
            match plugins.admit_file(runtime, &file) {
                Ok(plugin) => plugins.insert(plugin),
                Err(reason) => plugins.refuse(&file, reason),
            }
        }
        plugins
    }

    pub(crate) fn get(&self, id: &str) -> Option<&Arc<Plugin>> {
        self.by_id.get(id)
    }

    pub(crate) fn all(&self) -> impl Iterator<Item = &Arc<Plugin>> {
        self.by_id.values()
    }

    pub(crate) fn refused(&self) -> &[RefusedFile] {
        &self.refused
    }

    fn admit_file(&self, runtime: &Runtime, file: &Path) -> Result<Plugin, String> {
        let size = std::fs::metadata(file).map_err(|error| error.to_string())?.len();
        if size > FILE_BYTES_MAX {
            return Err(format!("it has {size} bytes; wanted at most {FILE_BYTES_MAX}"));
        }
        let bytes = std::fs::read(file).map_err(|error| error.to_string())?;
        let plugin = runtime.admit(&bytes, Source::File(file.into())).map_err(|error| error.to_string())?;
        let id = &plugin.manifest().id;
        match self.get(id).map(|known| known.source()) {
            Some(Source::File(other)) => Err(format!("{} has the id {id:?} already", other.display())),
            Some(Source::BuiltIn) | None => Ok(plugin),
        }
    }

    fn insert(&mut self, plugin: Plugin) {
        let manifest = plugin.manifest();
        tracing::debug!(
            plugin = manifest.id,
            version = manifest.version,
            digest = plugin.digest(),
            "plugin loaded"
        );
        self.by_id.insert(manifest.id.clone(), Arc::new(plugin));
    }

    fn refuse(&mut self, file: &Path, reason: String) {
        tracing::warn!(file = %file.display(), reason, "plugin refused");
        self.refused.push(RefusedFile { file: file.into(), reason });
    }
}

/// The folder need not be there. Sorted, so that which of two files comes first is no chance.
fn wasm_files(dir: &Path) -> Vec<PathBuf> {
    let entries = match std::fs::read_dir(dir) {
        Ok(entries) => entries,
        Err(error) => {
            if error.kind() != std::io::ErrorKind::NotFound {
                tracing::warn!(dir = %dir.display(), %error, "plugin folder not read");
            }
            return Vec::new();
        }
    };
    let mut files: Vec<PathBuf> = entries.flatten().map(|entry| entry.path()).collect();
    files.retain(|file| file.extension().is_some_and(|extension| extension == "wasm"));
    files.sort();
    files
}
