//! A stand-in for a market of jobs: providers bid, the lowest bid wins, the winner is called and paid.
//!
//! - `markets`: all markets of this process; `running`: one of them, with its clock and tasks.
//! - `script`: what a market was told to be; `job`, `rival`, `chance`: what the seed makes of that.
//! - `state`: what a market knows; `account`: people and wallets; `instance`: a job and its bids.
//! - `life`: arrival, auction, calls, reward; `call`, `verdict`: the winner is asked, and judged.
//! - `api`: the contract; `fields`, `detail`: bodies in, refusals out; `fault`: what goes wrong with it.
//! - `books`: what a market saw; `money`, `date`: how amounts and moments are written.

mod account;
mod api;
mod books;
mod call;
mod chance;
mod date;
mod detail;
mod fault;
mod fields;
mod instance;
mod job;
mod life;
mod markets;
mod money;
mod rival;
mod running;
mod script;
mod state;
mod verdict;

pub use books::{BidRow, InstanceRow, MarketBooks, MarketTotals, ProposalTotals, ProviderRow};
pub use fault::{ApiFault, ApiFaultKind, Target};
pub use instance::{CallRow, ProposalStatus, Status, Verdict};
pub(crate) use markets::Markets;
pub use money::{NanoUsd, Share};
pub use rival::{Pricing, Rival};
pub use script::{
    AccountScript, Class, Duplicates, JobKind, MarketScript, Range, Refuse, Requesters, Season,
};
