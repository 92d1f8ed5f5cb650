//! The built-in plugins: components that are part of the program.

include!(concat!(env!("OUT_DIR"), "/dist.rs"));
