//! What the tests from the outside share: a real gateway process, and what it is asked.
//!
//! - [`gateway`]: a gateway that listens, its log, its counters
//! - [`command`]: the program run to its end, as `sluice check` is
//! - [`answer`]: what came back, and the laws that every refusal keeps
//! - [`little_market`]: a market of accounts alone
//! - [`market`]: a gateway between a vendor and a market of jobs
//! - [`raw_vendor`]: a vendor without manners
//! - [`relay`]: a way to a server that can be cut
//! - [`secrets`]: whether bytes hold a secret, in any of the forms it may take
//! - [`stage`]: a gateway in front of a stand-in
//! - [`versions`]: plugins that differ in what was written into them
//! - [`workspace`]: where things are

pub mod answer;
pub mod command;
pub mod gateway;
pub mod little_market;
pub mod market;
pub mod raw_vendor;
pub mod relay;
pub mod secrets;
pub mod stage;
pub mod versions;
pub mod workspace;

pub use answer::Answer;
pub use gateway::{Gateway, Options};
pub use stage::Stage;
