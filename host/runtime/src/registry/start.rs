//! How a registry begins: with the built-in plugins, and with those that served last.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Instant;

use super::{Registry, Serving};
use crate::engine::{Pace, Runtime};
use crate::listing::{FileRow, FileState};
use crate::news::News;
use crate::plugin::Plugin;
use crate::shelf::{Kept, Shelf};

impl Registry {
    /// Admits the built-in plugins; `kept` is where the memory of earlier processes lies.
    pub fn new(
        runtime: &Runtime,
        built_in: &[&[u8]],
        dir: PathBuf,
        kept: Kept,
        decided: Arc<dyn Fn() + Send + Sync>,
    ) -> Registry {
        let mut registry = Registry {
            runtime: runtime.clone(),
            dir,
            built_in: BTreeMap::new(),
            seats: BTreeMap::new(),
            news: News::default(),
            shelf: Shelf::open(kept),
            decided,
        };
        for bytes in built_in {
            match runtime.admit(bytes, Pace::Start) {
                Ok(plugin) => {
                    registry.built_in.insert(plugin.manifest().id.clone(), Arc::new(plugin));
                }
                Err(error) => tracing::error!(%error, "a built-in plugin is left out"),
            }
        }
        registry
    }

    /// Gives those their seats back that served when the last process ended. A file that was taken
    /// away since then has none; a folder that is not there says nothing about its files.
    pub fn restore(&mut self, now: Instant) {
        let folder_is_there = self.dir.is_dir();
        for (id, kept) in self.shelf.record().seats.clone() {
            let file = self.dir.join(&kept.file);
            if folder_is_there && file.symlink_metadata().is_err() {
                continue;
            }
            let Some(plugin) = self.kept_plugin(&kept.digest).filter(|plugin| plugin.manifest().id == id)
            else {
                continue;
            };
            let before = kept.before.as_deref().and_then(|digest| self.kept_plugin(digest));
            let trial = if kept.proven { None } else { self.trial(&id, before, plugin.digest(), now) };
            let reason =
                if folder_is_there { "" } else { "the folder is not there; what served last serves on" };
            self.news.row(&file, Some(FileRow::new(FileState::Serving, &id, &kept.digest, reason)));
            self.seats.insert(id, Serving { plugin, file: Some(file), generation: 1, trial });
        }
    }

    fn kept_plugin(&self, digest: &str) -> Option<Arc<Plugin>> {
        let bytes = self.shelf.bytes(digest)?;
        self.runtime.admit(&bytes, Pace::Start).ok().map(Arc::new)
    }

    /// Takes a seat away that does not fit the configuration at start; gives false where there is none.
    pub fn unseat(&mut self, id: &str, reason: &str) -> bool {
        let Some(seat) = self.seats.remove(id) else { return false };
        let digest = seat.plugin.digest().to_owned();
        if let Some(trial) = seat.trial.filter(|trial| !trial.before_is_built_in) {
            let before =
                Serving { plugin: trial.before, file: seat.file.clone(), generation: 1, trial: None };
            self.seats.insert(id.into(), before);
        }
        self.refused(&seat.file.unwrap_or_default(), id, &digest, reason);
        true
    }
}
