//! The loop: looks at the market, has strategies decide, bids, and follows what became of it. One for
//! each data folder, whose lock sees to that.

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use rustls::ClientConfig;
use sluice_core::market::guard::Limits;
use sluice_core::market::pause::{Pause, Reason};
use sluice_core::market::refusals::Refusals;
use sluice_core::money::NanoUsd;
use sluice_core::rate::Bucket;
use sluice_ledger::market::MarketStore;
use sluice_ledger::seal::{Name, SecretStore};
use sluice_ledger::store::StoreError;
use tokio::sync::watch;
use url::Url;

use super::client::Client;
use super::error::MarketError;
use super::jobs::Jobs;
use super::records::Records;
use super::standing::Standing;
use super::threads::Threads;
use super::transport::Credential;
use crate::config::{self, Secret};
use crate::money::{Money, unix_ms};
use crate::snapshot::{Current, Snapshot};

/// Where there is no market in the configuration: one may come.
const IDLE: Duration = Duration::from_secs(1);

/// Between two looks at who has called, at the end.
const DRAIN_EVERY: Duration = Duration::from_millis(100);

/// Looks at the market until it is told that this is the end.
pub(crate) struct Bidder {
    pub(super) current: Current,
    pub(super) money: Arc<Money>,
    pub(super) jobs: Arc<Jobs>,
    pub(super) store: Arc<Mutex<MarketStore>>,
    pub(super) standing: Arc<Standing>,
    pub(super) records: Records,
    pub(super) refusals: Refusals,
    /// When each job is asked for next.
    pub(super) polls: HashMap<String, Poll>,
    /// When our own list of proposals was compared with the market's.
    pub(super) resynced: Option<Instant>,
    /// The market's list of them could not be read last.
    pub(super) blind: bool,
    /// Where the market was told to find us, when that was found to be so.
    pub(super) probed: Option<(Url, Instant)>,
    /// On the account, when the market was asked last.
    pub(super) balance: Option<NanoUsd>,
    pub(super) bids: Option<Bucket>,
    /// Jobs of which it was said what would be bid.
    pub(super) rehearsed: HashSet<String>,
    pub(super) tls: ClientConfig,
    /// Answers to messages that are being made.
    pub(super) threads: Threads,
    secrets: Mutex<SecretStore>,
    link: Option<(Url, Arc<Client>)>,
    pause: Pause,
}

/// What a bidder is made of.
pub(crate) struct Parts {
    pub(crate) current: Current,
    pub(crate) money: Arc<Money>,
    pub(crate) jobs: Arc<Jobs>,
    pub(crate) store: MarketStore,
    pub(crate) standing: Arc<Standing>,
    pub(crate) secrets: SecretStore,
    pub(crate) tls: ClientConfig,
}

/// The market, as it is asked now.
#[derive(Clone)]
pub(super) struct Link {
    pub(super) client: Arc<Client>,
    pub(super) who: Credential,
}

/// What came of a round of bids.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Bids {
    /// The market has taken one at least.
    Taken,
    /// None was made, or all were refused.
    None,
}

/// When to ask for a job again.
pub(super) struct Poll {
    pub(super) next: Instant,
    pub(super) wait: Duration,
}

/// Why a look was not finished.
#[derive(Debug)]
pub(super) struct Halt {
    pub(super) reason: Reason,
    pub(super) why: String,
    /// As the market wishes.
    pub(super) at_least: Duration,
}

impl Halt {
    pub(super) fn new(reason: Reason, why: impl Into<String>) -> Halt {
        Halt { reason, why: why.into(), at_least: Duration::ZERO }
    }
}

impl From<MarketError> for Halt {
    fn from(error: MarketError) -> Halt {
        let why = error.to_string();
        match error {
            MarketError::Unauthorized { .. } => Halt::new(Reason::Credential, why),
            MarketError::Balance { .. } => Halt::new(Reason::Balance, why),
            MarketError::Throttled { retry_after } => {
                Halt { reason: Reason::Throttled, why, at_least: retry_after.unwrap_or_default() }
            }
            MarketError::Unreachable { .. }
            | MarketError::Timeout
            | MarketError::Refused { .. }
            | MarketError::Server { .. }
            | MarketError::Garbage { .. } => Halt::new(Reason::Trouble, why),
        }
    }
}

impl From<StoreError> for Halt {
    fn from(error: StoreError) -> Halt {
        Halt::new(Reason::Ledger, format!("the ledger takes nothing ({})", error.code()))
    }
}

impl Bidder {
    /// # Errors
    ///
    /// [`StoreError`] where the ledger cannot be read.
    pub(crate) fn new(parts: Parts) -> Result<Bidder, StoreError> {
        let Parts { current, money, jobs, mut store, standing, secrets, tls } = parts;
        let records = Records::read(&mut store, unix_ms())?;
        Ok(Bidder {
            current,
            money,
            jobs,
            store: Arc::new(Mutex::new(store)),
            standing,
            records,
            refusals: Refusals::default(),
            polls: HashMap::new(),
            resynced: None,
            blind: false,
            probed: None,
            balance: None,
            bids: None,
            rehearsed: HashSet::new(),
            tls,
            threads: Threads::default(),
            secrets: Mutex::new(secrets),
            link: None,
            pause: Pause::default(),
        })
    }

    /// Bids until the gateway drains. What was won is still served then, and what is called for is still
    /// written down as ours, until this is dropped.
    pub(crate) async fn run(mut self, mut ends: watch::Receiver<bool>) {
        tokio::select! {
            () = self.looks() => {}
            _ = ends.wait_for(|ends| *ends) => {}
        }
        loop {
            if let Err(halt) = self.note_won().await {
                tracing::warn!(why = halt.why, "what was won last is found again by comparing proposals");
            }
            tokio::time::sleep(DRAIN_EVERY).await;
        }
    }

    async fn looks(&mut self) {
        loop {
            let wait = self.look().await;
            tokio::time::sleep(wait).await;
        }
    }

    /// Gives how long to wait for the next one.
    async fn look(&mut self) -> Duration {
        let snapshot = self.current.load_full();
        let Some(market) = &snapshot.config.market else { return IDLE };
        self.records.at(unix_ms());
        let waits = self.pause.wait(Instant::now());
        // What was won is followed while there is no money for bids.
        let follows = match self.pause.reason() {
            None | Some(Reason::Balance | Reason::Endpoint | Reason::Strategies) => true,
            Some(Reason::Credential | Reason::Trouble | Reason::Throttled | Reason::Ledger) => {
                waits.is_zero()
            }
        };
        let came = async {
            if follows {
                let link = self.link(market)?;
                self.track(&link, market).await?;
                if waits.is_zero() {
                    return self.bid(&link, &snapshot, market).await;
                }
            }
            Ok(Bids::None)
        };
        match came.await {
            Ok(Bids::Taken) => self.goes_on(),
            // That there is money shows only where the market takes a bid.
            Ok(Bids::None) if waits.is_zero() && self.pause.reason() != Some(Reason::Balance) => {
                self.goes_on();
            }
            Ok(Bids::None) => {}
            Err(halt) => self.halts(halt),
        }
        if follows { market.scan_every } else { waits.min(market.scan_every.max(IDLE)) }
    }

    fn goes_on(&mut self) {
        if self.pause.ends() {
            self.standing.goes_on();
            tracing::info!("bidding goes on");
        }
    }

    fn halts(&mut self, halt: Halt) {
        let Halt { reason, why, at_least } = halt;
        if self.pause.fails(reason, at_least, Instant::now()) {
            tracing::warn!(reason = reason.name(), why, "bidding pauses; what was won is still served");
        }
        self.standing.halts(reason, why, unix_ms());
    }

    fn link(&mut self, market: &config::Market) -> Result<Link, Halt> {
        let who = Credential::Key(self.api_key(market)?);
        if let Some((url, client)) = &self.link
            && *url == market.base_url
        {
            return Ok(Link { client: Arc::clone(client), who });
        }
        let client = Client::new(&market.base_url, self.tls.clone())
            .map_err(|error| Halt::new(Reason::Trouble, error.to_string()))?;
        let client = Arc::new(client);
        self.link = Some((market.base_url.clone(), Arc::clone(&client)));
        Ok(Link { client, who })
    }

    /// The operator's, or the one that was kept: by another process, perhaps just now.
    fn api_key(&self, market: &config::Market) -> Result<Secret, Halt> {
        if let Some(key) = &market.api_key {
            return Ok(key.clone());
        }
        let no_key = "there is no API key: set [market] api_key, or use `sluice market create-api-key`";
        let kept = self.secrets.lock().unwrap_or_else(PoisonError::into_inner).read(Name::MarketKey);
        let kept = kept.map_err(|why| Halt::new(Reason::Credential, why.to_string()))?;
        let kept = kept.and_then(|kept| kept.plain.reveal_text().and_then(Secret::new));
        kept.ok_or_else(|| Halt::new(Reason::Credential, no_key))
    }

    /// Does this to the store, off the workers.
    pub(super) async fn stored<T: Send + 'static>(
        &self,
        act: impl FnOnce(&mut MarketStore) -> Result<T, StoreError> + Send + 'static,
    ) -> Result<T, StoreError> {
        let store = Arc::clone(&self.store);
        let done = tokio::task::spawn_blocking(move || {
            act(&mut store.lock().unwrap_or_else(PoisonError::into_inner))
        });
        done.await.unwrap_or(Err(StoreError::Locked))
    }
}

/// What the operator allows.
pub(super) fn limits(market: &config::Market) -> Limits {
    Limits {
        floor: market.floor,
        ceiling: market.ceiling,
        risk: market.risk,
        loss_per_day: market.loss_per_day,
        jobs: market.jobs,
    }
}

/// The model that serves jobs, if there is one.
pub(super) fn model<'s>(
    snapshot: &'s Snapshot,
    market: &'s config::Market,
) -> Option<(&'s Arc<crate::routes::Model>, &'s str)> {
    let name = market.model.as_ref()?.value.as_str();
    Some((snapshot.routes.model(name)?, name))
}
