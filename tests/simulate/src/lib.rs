//! A stand-in for LLM vendors, with faults on order and books of its own.
//!
//! Shares no code with the gateway it tests: what both got wrong would
//! otherwise look right. `README.md` has the wire and the control API.
//!
//! - `simulator`: start, accept, stop; `connection`: one TCP connection and its reset.
//! - `service`: the path of a request; `control`: the API under `/_simulate/`.
//! - `vendor`: what a vendor would answer; `delivery`: how that leaves, with the fault that is due.
//! - `script`: what a vendor was told to do; `books`, `row`: what it saw and billed.
//! - `chat`: a request as the vendor checks it; `answer`: what it says to that;
//!   `sse`: how a stream is written; `body`: an answer on its way, booked piece by piece.
//! - `refusal`, `words`, `base64`: small things they share.

#![cfg_attr(test, allow(clippy::unwrap_used, reason = "a test fails by it"))]

mod answer;
mod base64;
mod body;
mod books;
mod chat;
mod connection;
mod control;
mod delivery;
mod refusal;
mod row;
mod script;
mod service;
mod simulator;
mod sse;
mod vendor;
mod words;

pub use books::{Connections, Goal, Snapshot, Totals};
pub use row::{Billed, Outcome, Row};
pub use script::{Fault, FaultKind, Moment, Newline, Script, SseStyle};
pub use simulator::Simulator;
