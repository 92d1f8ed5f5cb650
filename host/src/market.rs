//! The market of jobs, where this gateway is one of the providers.
//!
//! - [`contract`]: what the market says, checked; `wire`: how that is read
//! - [`client`]: the calls; `transport`: the only module that sends to the market
//! - [`error`]: how a call fails, by what is to be done about it
//! - [`account`]: `sluice market`: login, key, deposit, balance

pub(crate) mod account;
#[allow(dead_code, reason = "the loop that bids asks for the rest")]
pub(crate) mod client;
#[allow(dead_code, reason = "the loop that bids asks for the rest")]
pub(crate) mod contract;
pub(crate) mod error;
mod transport;
#[allow(dead_code, reason = "the loop that bids asks for the rest")]
mod wire;
