//! All that decides over requests at one moment: never changed, only replaced, whole.

use std::path::PathBuf;
use std::sync::Arc;

use arc_swap::ArcSwap;
use sluice_runtime::{Listing, PluginSet};

use crate::config::Config;
use crate::routes::Routes;

/// The snapshot of the moment. The supervisor replaces it; a request keeps the one it began with.
pub(crate) type Current = Arc<ArcSwap<Snapshot>>;

#[derive(Clone)]
pub(crate) struct Snapshot {
    /// Rises by one with each change of who serves, or how.
    pub(crate) generation: u64,
    pub(crate) config: Arc<Config>,
    pub(crate) routes: Arc<Routes>,
    pub(crate) plugins: Arc<PluginSet>,
    pub(crate) folder: FolderState,
    pub(crate) config_state: ConfigState,
}

/// What is known of the watched folder.
#[derive(Clone)]
pub(crate) struct FolderState {
    pub(crate) dir: PathBuf,
    pub(crate) files: Arc<Listing>,
    /// Why nothing is known of it now.
    pub(crate) unreadable: Option<String>,
    /// Files that are not looked at: there are too many.
    pub(crate) beyond: usize,
}

/// Whether the configuration on disk is the one that serves.
#[derive(Clone, Default)]
pub(crate) struct ConfigState {
    /// What is wrong with a newer one.
    pub(crate) refused: Option<String>,
    /// Changed settings that only a restart applies.
    pub(crate) needs_restart: Vec<&'static str>,
}
