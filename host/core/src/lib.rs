//! What the gateway decides, without the gateway: no I/O, no clock, no threads.
//!
//! - [`codes`]: the numbers of the plugin contract by name
//! - [`json`]: where things are in a client's body, and how to change only them
//! - [`money`]: nano-dollars and prices
//! - [`ranking`]: what a policy is shown, the host's own order, and what a ranking must be
//! - [`plan`]: what an adapter may ask the host to send
//! - [`pattern`]: which model entry serves a name
//! - [`probation`]: whether a plugin's new version may stay
//! - [`stats`]: what is remembered of a target's answers
#![warn(missing_docs)]

pub mod codes;
pub mod json;
pub mod money;
pub mod pattern;
pub mod plan;
pub mod probation;
pub mod ranking;
pub mod stats;
