//! Stand-ins for LLM vendors and for a market of jobs, with faults on order and books of their own.
//!
//! Shares no code with the gateway it tests: what both got wrong would
//! otherwise look right. `README.md` has the wire and the control API.
//!
//! - `simulator`: start, accept, stop; `connection`: one TCP connection and its reset.
//! - `service`: the path of a request; `control`: the API under `/_simulate/`.
//! - `script`: what a vendor was told to do; `fault`, `chaos`: what goes wrong, on order or by chance.
//! - `wire`: which API is meant; `openai`, `anthropic`: how each is checked and written.
//! - `ask`: what a request wants; `answer`: what is said to that; `lapse`: what a fault changes in it.
//! - `vendor`: what a vendor would answer; `plan`: that, ready to be sent or to be spoilt;
//!   `delivery`: how it leaves, with the fault that is due.
//! - `sse`: how a stream is written; `body`: an answer on its way, booked piece by piece;
//!   `books`, `row`: what a vendor saw and billed.
//! - `market`: a stand-in for a market of jobs, under `/_market/`.
//! - `refusal`, `words`, `base64`: small things they share.

#![cfg_attr(test, allow(clippy::unwrap_used, reason = "a test fails by it"))]

mod answer;
mod anthropic;
mod ask;
mod base64;
mod body;
mod books;
mod chaos;
mod connection;
mod control;
mod delivery;
mod fault;
mod lapse;
mod market;
mod openai;
mod plan;
mod refusal;
mod row;
mod script;
mod service;
mod simulator;
mod sse;
mod vendor;
mod wire;
mod words;

pub use books::{Connections, Goal, Snapshot, Totals};
pub use chaos::Chaos;
pub use fault::{Fault, FaultKind, Moment};
pub use market::{
    AccountScript, ApiFault, ApiFaultKind, BidRow, CallRow, Class, Duplicates, InstanceRow, JobKind,
    MarketBooks, MarketScript, MarketTotals, NanoUsd, Pricing, ProposalStatus, ProposalTotals, ProviderRow,
    Range, Refuse, Requesters, Rival, Season, Share, Status, Target, Verdict,
};
pub use row::{Billed, Outcome, Row};
pub use script::{Newline, Script, SseStyle, UsageScript};
pub use simulator::Simulator;
