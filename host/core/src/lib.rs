//! What the gateway decides, without the gateway: no I/O, no clock, no threads.
//!
//! - [`breaker`]: whether a target may be called
//! - [`chat`]: what an answer in OpenAI's dialect is: content, the end, an error in a 200
//! - [`codes`]: the numbers of the plugin contract by name
//! - [`demand`]: the most input that a call can be charged for
//! - [`fault`]: whose fault a failed attempt is
//! - [`json`]: where things are in a client's body, and how to change only them
//! - [`meter`]: what an answer used, by its vendor and by what was delivered
//! - [`money`]: exact sums, in nano-dollars
//! - [`price`]: what a call costs, and the most that it can
//! - [`ranking`]: what a policy is shown, the host's own order, and what a ranking must be
//! - [`plan`]: what an adapter may ask the host to send
//! - [`pattern`]: which model entry serves a name
//! - [`probation`]: whether a plugin's new version may stay
//! - [`retry`]: whether and when a target is asked again
//! - [`sse`]: server-sent events, cut where they end
//! - [`stats`]: what is remembered of a target's answers
#![warn(missing_docs)]

pub mod breaker;
pub mod chat;
pub mod codes;
pub mod demand;
pub mod fault;
pub mod json;
pub mod meter;
pub mod money;
pub mod pattern;
pub mod plan;
pub mod price;
pub mod probation;
pub mod ranking;
pub mod retry;
pub mod sse;
pub mod stats;
