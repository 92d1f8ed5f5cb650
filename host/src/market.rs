//! A market of completions: bids for jobs, serves those that were won, and keeps account of them.
//!
//! - `contract`: what the market says, checked; `wire`: how that is read
//! - `client`: the calls; `transport`: the only module that sends to the market; `error`: how a call fails
//! - `account`: `sluice market`: login, key, deposit, balance
//! - `bidder`: the loop; `appraisal`: what a job would cost; `bidding`: a round of bids; `tracking`: what
//!   became of them; `threads`: answers to messages; `endpoint`: ours, asked from here
//! - `passes`, `jobs`: keys for jobs, and which of them work
//! - `records`, `standing`, `pages`, `reporting`: what strategies and operators are shown

pub(crate) mod account;
mod appraisal;
mod bidder;
mod bidding;
mod client;
mod contract;
mod endpoint;
mod error;
mod jobs;
mod pages;
mod passes;
mod records;
mod reporting;
mod standing;
mod threads;
mod tracking;
mod transport;
mod wire;

use std::path::Path;
use std::sync::Arc;

use rustls::ClientConfig;
use sluice_ledger::market::MarketStore;
use sluice_ledger::seal::{SealError, SecretStore};
use sluice_ledger::store::StoreError;

pub(crate) use bidder::Bidder;
pub(crate) use endpoint::HEADER as ENDPOINT_HEADER;
pub(crate) use jobs::Jobs;
pub(crate) use pages::{View, page};
pub(crate) use passes::{JobPass, PREFIX};
pub(crate) use standing::Standing;

use crate::config::Config;
use crate::money::{Money, unix_ms};
use crate::snapshot::Current;

/// What of the market is kept in the data folder.
pub(crate) struct Market {
    view: View,
    store: MarketStore,
    secrets: SecretStore,
}

/// Why there is no market.
#[derive(Debug, thiserror::Error)]
pub(crate) enum MarketBroken {
    #[error("reading the market's jobs")]
    Store(#[from] StoreError),
    #[error("opening the secret that keys for jobs are made from")]
    Seal(#[from] SealError),
}

impl Market {
    /// Jobs that were bid on before are served from here on.
    ///
    /// # Errors
    ///
    /// [`MarketBroken`].
    pub(crate) fn open(config: &Config) -> Result<Market, MarketBroken> {
        let folder: &Path = &config.server.data_dir;
        let store = MarketStore::open(&folder.join("sluice.db"))?;
        let mut secrets = SecretStore::open(folder, config.server.master_key.clone())?;
        let secret = secrets.job_secret(unix_ms())?;
        let jobs = Arc::new(Jobs::new(secret, store.under_way()?));
        let view = View { jobs, standing: Arc::new(Standing::default()) };
        Ok(Market { view, store, secrets })
    }

    pub(crate) fn view(&self) -> View {
        self.view.clone()
    }

    /// Who bids, and follows what became of it.
    ///
    /// # Errors
    ///
    /// [`StoreError`] where the ledger cannot be read.
    pub(crate) fn bidder(
        self,
        current: &Current,
        money: &Arc<Money>,
        tls: ClientConfig,
    ) -> Result<Bidder, StoreError> {
        let Market { view: View { jobs, standing }, store, secrets } = self;
        let (current, money) = (Arc::clone(current), Arc::clone(money));
        Bidder::new(bidder::Parts { current, money, jobs, store, standing, secrets, tls })
    }
}
