//! The composition root: puts the parts together, serves, stops.

use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use sluice_ledger::lock::{DataLock, LockError};
use sluice_ledger::recovery::RecoveryError;
use sluice_runtime::RuntimeError;
use tokio::sync::watch;
use tokio::task::JoinSet;

use crate::admin::Admin;
use crate::config::{Config, ConfigError, Environment};
use crate::drain::{self, Signals, Stopped};
use crate::gateway::Gateway;
use crate::key_book::{KeyBook, KeyBookError};
use crate::market::{Market, MarketBroken};
use crate::measures::Measures;
use crate::money::{Moment, Money};
use crate::server::Server;
use crate::snapshot::Current;
use crate::supervisor::{BootError, Booted, Handle, Purpose, Supervisor};
use crate::upstream::{self, Clients};
use crate::workers::{self, Workers};

/// For what is done beside the serving: connections are taken in, jobs of a market are looked for.
const THREADS_BESIDE: usize = 2;

/// Everything that must be right before a socket is bound.
pub(crate) struct App {
    current: Current,
    gateway: Arc<Gateway>,
    supervisor: Supervisor,
    handle: Handle,
    measures: Measures,
    ledger: Option<Ledger>,
}

/// What is kept in the data folder of keys and money, while the folder is ours.
struct Ledger {
    money: Arc<Money>,
    keys: Arc<KeyBook>,
    /// Where the configuration names one.
    market: Option<Market>,
    _lock: DataLock,
}

/// Why the gateway does not start.
#[derive(Debug, thiserror::Error)]
pub(crate) enum StartError {
    #[error(transparent)]
    Config(#[from] ConfigError),
    #[error("starting the plugin runtime")]
    Runtime(#[source] RuntimeError),
    #[error("setting up the client for upstreams")]
    Client(#[from] rustls::Error),
    #[error("starting the supervisor of plugins")]
    Supervisor(#[source] std::io::Error),
    #[error("opening the ledger")]
    Ledger(#[source] LedgerError),
    #[error("starting worker threads")]
    Workers(#[source] std::io::Error),
    #[error("listening on {address}")]
    Listen { address: SocketAddr, source: std::io::Error },
}

/// Why there is no ledger.
#[derive(Debug, thiserror::Error)]
pub(crate) enum LedgerError {
    #[error(transparent)]
    Lock(#[from] LockError),
    #[error(transparent)]
    Money(#[from] RecoveryError),
    #[error(transparent)]
    Keys(#[from] KeyBookError),
    #[error(transparent)]
    Market(#[from] MarketBroken),
}

impl From<BootError> for StartError {
    fn from(error: BootError) -> StartError {
        match error {
            BootError::Config(error) => StartError::Config(error),
            BootError::Runtime(error) => StartError::Runtime(error),
        }
    }
}

impl App {
    /// The boot path: `check` and `serve` are this, and differ only after it.
    ///
    /// # Errors
    ///
    /// A [`StartError`] that says what to change.
    pub(crate) fn build(
        file: Option<&Path>,
        environment: &Environment,
        purpose: Purpose,
    ) -> Result<App, StartError> {
        let config = Config::load(file, environment)?;
        let measures = Measures::default();
        let booted = Supervisor::boot(config, file, purpose, Clients::new()?, measures.clone())?;
        let Booted { supervisor, handle, current } = booted;
        let ledger = match purpose {
            Purpose::Check => None,
            Purpose::Serve => Ledger::open(&current)?,
        };
        let (money, keys) = ledger.as_ref().map(|ledger| (ledger.money.clone(), ledger.keys.clone())).unzip();
        let market = ledger.as_ref().and_then(|ledger| ledger.market.as_ref()).map(Market::view);
        let jobs = market.as_ref().map(|market| Arc::clone(&market.jobs));
        let gateway = Arc::new(Gateway::new(Arc::clone(&current), money, keys, jobs, &measures));
        Ok(App { current, gateway, supervisor, handle, measures, ledger })
    }

    /// What was built, in lines for the operator.
    pub(crate) fn summary(&self) -> Vec<String> {
        let snapshot = self.current.load();
        let source = match &snapshot.config.file {
            Some(file) => format!("configuration: {}", file.display()),
            None => "configuration: none found, the built-in one serves (any client key is accepted)".into(),
        };
        let plugins: Vec<&str> = snapshot.plugins.keys().map(String::as_str).collect();
        let models: Vec<&str> = snapshot.routes.models().iter().map(|model| model.name.as_str()).collect();
        vec![source, format!("plugins: {}", listed(&plugins)), format!("models: {}", listed(&models))]
    }

    /// Binds, and serves until told to stop.
    ///
    /// # Errors
    ///
    /// A [`StartError`] where the address is taken or threads are not to be had.
    pub(crate) fn serve(mut self) -> Result<Stopped, StartError> {
        let workers = workers::start(self.current.load().config.server.workers);
        let (workers, threads) = workers.map_err(StartError::Workers)?;
        let mut beside = tokio::runtime::Builder::new_multi_thread();
        let beside =
            beside.worker_threads(THREADS_BESIDE).enable_all().build().map_err(StartError::Workers)?;
        // The folder is locked until all is written: who took it before would write the same again.
        let mut ledger = self.ledger.take();
        let stopped = beside.block_on(self.run(workers, ledger.as_mut()));
        // A name that is being looked up is not waited for.
        beside.shutdown_background();
        drop(threads);
        ledger.iter().for_each(|ledger| ledger.money.spending.close());
        stopped
    }

    async fn run(self, workers: Workers, mut ledger: Option<&mut Ledger>) -> Result<Stopped, StartError> {
        let address = self.current.load().config.server.listen;
        let listen = |source| StartError::Listen { address, source };
        let listener = Server::listen(address).map_err(listen)?;
        let bound = listener.local_addr().map_err(listen)?;
        for line in self.summary() {
            tracing::info!("{line}");
        }
        // Who is told that it listens may end it at once.
        let signals = Signals::listen().map_err(listen)?;
        tracing::info!("listening on http://{bound}");
        let started_s = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
        // Enough to tell two processes' request ids apart; nothing depends on it.
        let process = (started_s as u32) ^ std::process::id().rotate_left(16);
        let money = ledger.as_ref().map(|ledger| Arc::clone(&ledger.money));
        self.supervisor.start(&self.handle, money).map_err(StartError::Supervisor)?;
        let current = Arc::clone(&self.current);
        let (ends, told) = watch::channel(false);
        let mut beside = JoinSet::new();
        let mut view = None;
        if let Some(ledger) = &mut ledger
            && let Some(market) = ledger.market.take()
        {
            view = Some(market.view());
            let bidder = market.bidder(&current, &ledger.money, upstream::tls()?);
            let bidder = bidder.map_err(|error| StartError::Ledger(LedgerError::Market(error.into())))?;
            beside.spawn(bidder.run(told));
        }
        let kept = ledger.map(|ledger| (ledger.money.clone(), ledger.keys.clone()));
        let admin =
            Admin::new(self.current, self.handle, self.measures, kept, view, workers.clone(), started_s);
        let server = Arc::new(Server::new(self.gateway, admin, process, workers, ends));
        drain::serve(server, listener, &current, signals).await.map_err(listen)
    }
}

impl Ledger {
    /// Where it cannot be opened, nothing is capped and no key is known: no start, if either is wanted.
    fn open(current: &Current) -> Result<Option<Ledger>, StartError> {
        let snapshot = current.load();
        let config = &snapshot.config;
        match Ledger::try_open(config) {
            Ok(ledger) => {
                ledger.money.follow(current);
                Ok(Some(ledger))
            }
            Err(error) if config.budgets.is_empty() && !config.access.keys_required => {
                let error: &dyn std::error::Error = &error;
                tracing::warn!(
                    error,
                    "no ledger: calls are not written down, no key is known, and nothing is bid on any market"
                );
                Ok(None)
            }
            Err(error) => Err(StartError::Ledger(error)),
        }
    }

    fn try_open(config: &Config) -> Result<Ledger, LedgerError> {
        let folder: &Path = &config.server.data_dir;
        let lock = DataLock::take(folder)?;
        let money = Arc::new(Money::open(folder, Moment::now())?);
        let keys = KeyBook::open(folder)?;
        let market = config.market.as_ref().and_then(|_| match Market::open(config) {
            Ok(market) => Some(market),
            Err(error) => {
                let error: &dyn std::error::Error = &error;
                tracing::error!(error, "no market: nothing is bid, and jobs that were won are not served");
                None
            }
        });
        Ok(Ledger { money, keys, market, _lock: lock })
    }
}

fn listed(names: &[&str]) -> String {
    if names.is_empty() { "none".into() } else { names.join(", ") }
}
