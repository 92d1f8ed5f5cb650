//! What of keys and money outlives a process, and how no crash spends a cent twice.
//!
//! - [`budget`]: what a budget caps, and the accounts that it has
//! - [`spending`]: holds and settlements, in memory, within what is leased
//! - [`hold`]: money for one attempt, and its one end
//! - [`journal`]: what is held and what became of it, written before anything is sent
//! - [`store`]: the database: accounts, calls, keys; `layout`: how it is made
//! - [`rules`]: what the configuration says of it
//! - [`runs`]: which runs are open, when one ends, and that it stays ended
//! - [`keys`]: who may ask, for what, and until when
//! - [`audit`]: what operators did
//! - [`seal`]: secrets of the gateway's own, sealed with a master key
//! - [`lock`]: whether a gateway runs on a data folder
//! - [`recovery`]: what a process that died had open is in doubt
//! - [`doubt`]: what is in doubt, and what somebody says that it cost
//! - [`market`]: jobs of a market that we have bid on, and what they brought
//! - [`usage`]: what was used, by key, run, team, model, upstream and day; [`sheet`]: as CSV
//! - [`retention`]: what goes where the disk's share is used up
//! - [`pruning`]: what goes when it has ended long ago
//! - [`checker`]: whether what is stored agrees with itself
//!
//! A hold is taken in memory and written to the journal; the money is leased from the store before.
//! One thread writes money to the store, in batches; what operators do with keys is written on
//! connections of their own, also by other processes. See `host/ARCHITECTURE.md`.
#![warn(missing_docs)]

pub mod audit;
pub mod budget;
pub mod checker;
pub mod doubt;
pub mod figures;
pub mod hold;
pub mod journal;
pub mod keys;
mod layout;
pub mod lock;
pub mod market;
pub mod pruning;
pub mod recovery;
pub mod retention;
mod room;
pub mod rows;
pub mod rules;
pub mod runs;
pub mod seal;
pub mod sheet;
pub mod spending;
pub mod store;
pub mod usage;
mod waiters;
mod writer;
