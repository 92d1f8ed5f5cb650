//! Everything needed to write a plugin for the Sluice gateway in Rust.
//!
//! A plugin is a type that implements one trait and is handed to one macro:
//!
//! | kind | feature | trait | macro |
//! |---|---|---|---|
//! | provider adapter | `adapter` | `adapter::Adapter` | `export_adapter!` |
//! | routing policy | `policy` | `policy::Policy` | `export_policy!` |
//! | bid strategy | `bid` | `bid::Strategy` | `export_strategy!` |
//!
//! The other worlds of `wit/` come with the parts of the host that call them.
//! `sluice plugin build` turns the crate into a component; see `plugins/` for examples.
#![warn(missing_docs)]

pub mod codes;
#[cfg(target_family = "wasm")]
#[allow(unsafe_code, reason = "an allocator hands out raw memory")]
mod heap;

#[cfg(feature = "adapter")]
pub use sluice_plugin_adapter as adapter;
#[cfg(feature = "bid")]
pub use sluice_plugin_bid as bid;
#[cfg(feature = "policy")]
pub use sluice_plugin_policy as policy;

#[cfg(feature = "adapter")]
pub use sluice_plugin_adapter::export_adapter;
#[cfg(feature = "bid")]
pub use sluice_plugin_bid::export_strategy;
#[cfg(feature = "policy")]
pub use sluice_plugin_policy::export_policy;
