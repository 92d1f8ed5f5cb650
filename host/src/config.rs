//! The configuration: read once, whole, into checked values; errors say where and what.
//!
//! The only module that reads configuration files and the environment. What needs the
//! plugins to be checked (ids, plugin configurations) carries its [`Place`], so that
//! `assemble` can say where too.

mod access;
mod budgets;
mod catalogue;
mod environment;
mod ledger;
mod limits;
mod market;
mod price;
mod price_list;
mod problem;
mod reader;
mod secret;
mod sections;
mod size;
mod tariffs;
mod timers;

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use sluice_core::bound::Bounds;
use sluice_core::breaker;
use sluice_core::pattern::Pattern;
use sluice_core::price::Price;
use sluice_ledger::seal::master::MasterKey;

pub(crate) use access::Access;
pub(crate) use budgets::{Budget, MissingRun, Per, Unpriced};
pub(crate) use environment::Environment;
pub(crate) use ledger::Ledger;
pub(crate) use limits::Limits;
pub(crate) use market::{Agents, Market, Strategy};
pub(crate) use problem::{ConfigError, Place, Problem};
pub(crate) use secret::Secret;
pub(crate) use tariffs::{Origin, Tariff, Tariffs};
pub(crate) use timers::{ClientTimers, Drain, VendorTimers};

/// Read where no other file is named, if it is there.
const DEFAULT_FILE: &str = "sluice.toml";

/// Room for the bodies of requests, unless the operator says otherwise.
const BODIES_BYTES: u64 = 1 << 30;

/// All that the operator said, checked as far as possible without plugins.
#[derive(Debug)]
pub(crate) struct Config {
    /// None: nothing was said, the built-in configuration serves.
    pub(crate) file: Option<PathBuf>,
    pub(crate) server: Server,
    pub(crate) access: Access,
    pub(crate) plugins: PluginFolder,
    pub(crate) upstreams: Vec<Upstream>,
    pub(crate) models: Vec<Model>,
    /// What would be there with a key.
    pub(crate) absent: Vec<Absent>,
    pub(crate) budgets: Arc<[Budget]>,
    pub(crate) ledger: Ledger,
    /// None: this gateway has nothing to do with the market of jobs.
    pub(crate) market: Option<Market>,
    /// Files that secrets were read from.
    pub(crate) secret_files: Vec<PathBuf>,
}

/// A vendor of the catalogue that the built-in configuration leaves out.
#[derive(Debug)]
pub(crate) struct Absent {
    /// The pattern that its models would have.
    pub(crate) models: String,
    /// The variable that is not set.
    pub(crate) key: String,
}

/// Where plugins are dropped.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct PluginFolder {
    pub(crate) dir: PathBuf,
    /// Whether events of the file system shorten the wait for the next look.
    pub(crate) file_events: bool,
}

/// The listener, its workers, and what is kept on disk.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Server {
    pub(crate) listen: SocketAddr,
    /// Threads that serve; none: one per processor.
    pub(crate) workers: Option<usize>,
    /// Compiled plugins, and which of them served last.
    pub(crate) data_dir: PathBuf,
    /// Bytes of all requests' bodies that are in memory at once.
    pub(crate) bodies_bytes_max: u64,
    /// What secrets are sealed with there; none: the folder's own.
    pub(crate) master_key: Option<MasterKey>,
    pub(crate) timers: ClientTimers,
    pub(crate) drain: Drain,
}

/// A value that can only be judged with the plugins at hand.
#[derive(Clone, Debug)]
pub(crate) struct Located<T> {
    pub(crate) value: T,
    pub(crate) place: Place,
}

/// A vendor's address, its secrets, and the adapter that speaks to it.
#[derive(Debug)]
pub(crate) struct Upstream {
    pub(crate) name: String,
    pub(crate) adapter: Located<String>,
    pub(crate) adapter_config: Located<serde_json::Value>,
    pub(crate) base_url: Option<url::Url>,
    pub(crate) secrets: BTreeMap<String, Located<Secret>>,
    pub(crate) timers: VendorTimers,
    pub(crate) breaker: breaker::Limits,
    pub(crate) limits: Limits,
    pub(crate) tariffs: Tariffs,
    pub(crate) place: Place,
}

/// What clients ask for, and who may serve it.
#[derive(Debug)]
pub(crate) struct Model {
    pub(crate) name: Pattern,
    pub(crate) policy: Located<String>,
    pub(crate) policy_config: Located<serde_json::Value>,
    pub(crate) targets: Vec<Target>,
    pub(crate) limits: Limits,
    /// Times that each target is asked again after a fault that is safe to repeat.
    pub(crate) retries: u32,
    /// From the end of the request to the end of its answer, all attempts together.
    pub(crate) deadline: Duration,
    pub(crate) place: Place,
}

/// One upstream's model.
#[derive(Debug)]
pub(crate) struct Target {
    pub(crate) upstream: Located<String>,
    pub(crate) model: TargetModel,
    pub(crate) priority: u16,
    pub(crate) weight: u16,
    /// Its own; else the upstream's [`Tariffs`] say.
    pub(crate) price: Option<Price>,
    /// The same, one by one.
    pub(crate) bounds: Bounds,
}

/// The name by which an upstream knows the model.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum TargetModel {
    Named(String),
    /// What the client asked for.
    AsAsked,
    /// What the `*` of the model's name stood for.
    Star,
}

impl TargetModel {
    /// The name by which the upstream knows the model; `asked` matched `pattern`.
    pub(crate) fn name<'a>(&'a self, pattern: &Pattern, asked: &'a str) -> &'a str {
        match self {
            TargetModel::Named(name) => name,
            TargetModel::AsAsked => asked,
            TargetModel::Star => pattern.star(asked).unwrap_or(asked),
        }
    }
}

impl Config {
    /// Reads `file`, or `sluice.toml` if it is there, or takes what needs no file.
    ///
    /// # Errors
    ///
    /// [`ConfigError`] with every problem found, each with its line.
    pub(crate) fn load(file: Option<&Path>, environment: &Environment) -> Result<Config, ConfigError> {
        let default = Path::new(DEFAULT_FILE);
        match file.or_else(|| default.exists().then_some(default)) {
            Some(file) => {
                let text = std::fs::read_to_string(file)
                    .map_err(|source| ConfigError::Unreadable { file: file.into(), source })?;
                sections::read(file, &text, environment)
            }
            None => catalogue::without_file(environment),
        }
    }

    /// The files whose change is a change of the configuration. `asked` is what the command line
    /// names; a file that is not there yet may come.
    pub(crate) fn files(&self, asked: Option<&Path>) -> Vec<PathBuf> {
        let named = [asked.unwrap_or(Path::new(DEFAULT_FILE)), Path::new(environment::FILE)];
        named.into_iter().map(Path::to_owned).chain(self.secret_files.iter().cloned()).collect()
    }

    /// Why a gateway that runs with these settings cannot go over to `self`: its socket stays as it is.
    pub(crate) fn exposes(&self, running: &Config) -> Option<String> {
        let listen = running.server.listen;
        let exposes = !self.access.keys_required && !listen.ip().is_loopback();
        exposes.then(|| {
            format!(
                "[keys] required: wanted true, since {listen} is listened on until a restart, and without keys it would serve anyone"
            )
        })
    }

    /// Settings that differ from these and need a restart.
    pub(crate) fn needs_restart(&self, running: &Config) -> Vec<&'static str> {
        let differ = [
            ("server.listen", self.server.listen != running.server.listen),
            ("server.workers", self.server.workers != running.server.workers),
            ("server.data_dir", self.server.data_dir != running.server.data_dir),
            ("server.master_key", self.server.master_key != running.server.master_key),
            ("plugins.dir", self.plugins.dir != running.plugins.dir),
            ("market", self.market.is_some() && running.market.is_none()),
            ("plugins.file_events", self.plugins.file_events != running.plugins.file_events),
        ];
        differ.into_iter().filter(|(_, differs)| *differs).map(|(key, _)| key).collect()
    }
}

impl Default for Server {
    fn default() -> Server {
        let listen = SocketAddr::from((Ipv4Addr::LOCALHOST, 8080));
        let (timers, drain) = (ClientTimers::default(), Drain::default());
        let (data_dir, bodies_bytes_max) = ("data".into(), BODIES_BYTES);
        Server { listen, workers: None, data_dir, bodies_bytes_max, master_key: None, timers, drain }
    }
}

impl Default for PluginFolder {
    fn default() -> PluginFolder {
        PluginFolder { dir: "plugins.d".into(), file_events: true }
    }
}
