//! What the gateway decides, without the gateway: no I/O, no clock, no threads.
//!
//! - [`bidding`]: what a bid strategy is shown, and what its answer must be
//! - [`books`]: what a node holds of the budgets' accounts, and what became of it
//! - [`bound`]: what a call is held for before it is sent
//! - [`breaker`]: whether a target may be called
//! - [`chat`]: what an answer in OpenAI's dialect is: content, the end, an error in a 200
//! - [`clock`]: what time it is for budgets, whatever the wall clock is set to
//! - [`codes`]: the numbers of the plugin contract by name
//! - [`decimal`]: numbers that others wrote, read by their digits
//! - [`demand`]: the most input that a call can be charged for
//! - [`fault`]: whose fault a failed attempt is
//! - [`json`]: where things are in a client's body, and how to change only them
//! - [`market`]: what the host lets a bid strategy do
//! - [`money`]: amounts in nano-dollars
//! - [`meter`]: what an answer used, by its vendor and by what was delivered
//! - [`price`]: what a call costs, and the most that it can
//! - [`rate`]: whether a caller may go on now: so much a minute, so many at once
//! - [`ranking`]: what a policy is shown, the host's own order, and what a ranking must be
//! - [`plan`]: what an adapter may ask the host to send
//! - [`pattern`]: which model entry serves a name
//! - [`probation`]: whether a plugin's new version may stay
//! - [`refill`]: what the store leases for those who wait for it
//! - [`retry`]: whether and when a target is asked again
//! - [`settle`]: what an attempt that money was held for is charged
//! - [`sse`]: server-sent events, cut where they end
//! - [`stats`]: what is remembered of a target's answers
//! - [`vault`]: an account as the durable store has it
//! - [`window`]: which day or month of a budget an instant is in
#![warn(missing_docs)]

pub mod bidding;
pub mod books;
pub mod bound;
pub mod breaker;
pub mod chat;
pub mod clock;
pub mod codes;
pub mod decimal;
pub mod demand;
pub mod fault;
pub mod json;
pub mod market;
pub mod meter;
pub mod money;
pub mod pattern;
pub mod plan;
pub mod price;
pub mod probation;
pub mod ranking;
pub mod rate;
pub mod refill;
pub mod retry;
pub mod settle;
pub mod sse;
pub mod stats;
pub mod vault;
pub mod window;
