//! The start: what served last and what lies in the folder, put together before anything is served.

use std::fs::DirBuilder;
use std::os::unix::fs::{DirBuilderExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::mpsc::sync_channel;
use std::time::{Duration, Instant};

use arc_swap::ArcSwap;
use sluice_runtime::{Folder, Kept, Pace, Registry, Runtime, RuntimeError, Scan, Settling};

use super::{Handle, MESSAGES_MAX, Supervisor, hint};
use crate::config::{Config, ConfigError};
use crate::measures::Measures;
use crate::plugins::DIST;
use crate::routes::{Assembled, Parts, Routes};
use crate::snapshot::{ConfigState, Current, FolderState, Snapshot};
use crate::upstream::Clients;

/// In the data folder: code that was compiled, and what is remembered of plugins.
const CACHE: &str = "cache";
const KEPT: &str = "plugins";

/// What a start is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Purpose {
    /// To serve.
    Serve,
    /// To see whether it would: nothing is remembered of it.
    Check,
}

/// A gateway's changing part, ready to be started.
pub(crate) struct Booted {
    pub(crate) supervisor: Supervisor,
    pub(crate) handle: Handle,
    pub(crate) current: Current,
}

/// Why there is nothing to serve by.
#[derive(Debug, thiserror::Error)]
pub(crate) enum BootError {
    #[error(transparent)]
    Config(#[from] ConfigError),
    #[error("starting the plugin runtime")]
    Runtime(#[from] RuntimeError),
}

impl Supervisor {
    /// # Errors
    ///
    /// A [`BootError`] that says what to change. A bad file in the folder is none.
    pub(crate) fn boot(
        config: Config,
        config_file: Option<&Path>,
        purpose: Purpose,
        clients: Clients,
        measures: Measures,
    ) -> Result<Booted, BootError> {
        let now = Instant::now();
        let data = data_dir(&config.server.data_dir);
        let runtime = Runtime::new(data.as_ref().map(|data| data.join(CACHE)).as_deref())?;
        let parts = Parts { runtime: runtime.clone(), clients, measures };
        let (messages, inbox) = sync_channel(MESSAGES_MAX);
        let messages = Arc::new(messages);
        let decided = {
            let messages = Arc::downgrade(&messages);
            Arc::new(move || hint(&messages))
        };
        let kept = match (data.map(|data| data.join(KEPT)), purpose) {
            (None, _) => Kept::Nothing,
            (Some(folder), Purpose::Serve) => Kept::Written(folder),
            (Some(folder), Purpose::Check) => Kept::Read(folder),
        };
        let mut registry = Registry::new(&runtime, DIST, config.plugins.dir.clone(), kept, decided);
        registry.restore(now);
        let mut folder = Folder::new(config.plugins.dir.clone());
        for serving in registry.plugins().values() {
            if let Some(file) = &serving.file {
                folder.expect(file, now);
            }
        }
        let state = take_all(&mut registry, &mut folder, now);
        let routes = assemble(&config, &mut registry, &parts)?;
        let mut config_files = Settling::default();
        let files = config.files(config_file).into_iter();
        config_files.look(files.filter(|file| file.exists()).collect(), now, Duration::ZERO);
        let config = Arc::new(config);
        let next = Snapshot {
            generation: 1,
            config: Arc::clone(&config),
            routes: Arc::new(routes),
            plugins: Arc::new(registry.plugins()),
            folder: FolderState { files: registry.news().listing(), ..state },
            config_state: ConfigState::default(),
        };
        let current: Current = Arc::new(ArcSwap::from_pointee(next.clone()));
        registry.news().tell();
        let handle = Handle { messages, transitions: Arc::clone(registry.news().transitions()) };
        let supervisor = Supervisor {
            parts,
            registry,
            folder,
            config_files,
            config_file: config_file.map(Path::to_owned),
            started_with: config,
            current: Arc::clone(&current),
            next,
            published: now,
            inbox,
            money: None,
        };
        Ok(Booted { supervisor, handle, current })
    }
}

/// Takes what lies in the folder as it is: what is half written comes to rest later.
fn take_all(registry: &mut Registry, folder: &mut Folder, now: Instant) -> FolderState {
    let mut state =
        FolderState { dir: folder.dir().to_owned(), files: Arc::default(), unreadable: None, beyond: 0 };
    match folder.scan_at_once(now) {
        Scan::Read { changes, beyond } => {
            state.beyond = beyond;
            for file in changes.arrived {
                if let Some(change) = registry.arrived(&file, &[], now, Pace::Start) {
                    registry.commit(change, 1);
                }
            }
        }
        Scan::Unreadable(reason) => state.unreadable = Some(reason),
    }
    state
}

/// A dropped plugin that does not fit the configuration loses its seat, like one that comes later.
fn assemble(config: &Config, registry: &mut Registry, parts: &Parts) -> Result<Routes, ConfigError> {
    loop {
        let Assembled { routes, flaws } =
            Routes::assemble(config, &registry.plugins(), parts, &Routes::default());
        let misfit = flaws.iter().find(|flaw| registry.unseat(&flaw.plugin, &flaw.problem.to_string()));
        if misfit.is_some() {
            continue;
        }
        if config.file.is_some() && !flaws.is_empty() {
            return Err(ConfigError::Problems(flaws.into_iter().map(|flaw| flaw.problem).collect()));
        }
        for flaw in &flaws {
            tracing::warn!(problem = %flaw.problem, "left out of the built-in configuration");
        }
        return Ok(routes);
    }
}

/// The folder for what is kept, if it can be trusted: compiled code is run as it is found there.
fn data_dir(dir: &Path) -> Option<PathBuf> {
    let made = DirBuilder::new().recursive(true).mode(0o700).create(dir);
    let checked = made.and_then(|()| std::fs::metadata(dir)).and_then(|metadata| {
        let owner = rustix::process::geteuid().as_raw();
        match metadata.uid() == owner && metadata.mode() & 0o002 == 0 {
            true => std::path::absolute(dir),
            false => Err(std::io::Error::other("others may write to it, or it belongs to somebody else")),
        }
    });
    match checked {
        Ok(dir) => Some(dir),
        Err(error) => {
            tracing::warn!(
                data_dir = %dir.display(), %error,
                "nothing is kept: plugins are compiled at each start, and who was shut out is forgotten"
            );
            None
        }
    }
}
