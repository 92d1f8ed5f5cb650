//! The command line.

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand};

/// A gateway for LLM completions whose behaviour is made of WebAssembly plugins.
#[derive(Debug, Parser)]
#[command(name = "sluice", version)]
pub(crate) struct Cli {
    /// Configuration file [default: sluice.toml, if it is there]
    #[arg(long, global = true, value_name = "FILE")]
    pub(crate) config: Option<PathBuf>,
    #[command(subcommand)]
    pub(crate) command: Option<Command>,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Start the gateway (the default)
    Serve,
    /// Start up without serving: reads the configuration, loads and sets up every plugin
    Check,
    /// Work on plugins
    #[command(subcommand)]
    Plugin(PluginCommand),
}

#[derive(Debug, Subcommand)]
pub(crate) enum PluginCommand {
    /// Build the plugins of a Cargo package or workspace into components
    Build(BuildArgs),
}

#[derive(Args, Debug)]
pub(crate) struct BuildArgs {
    /// Directory of the package or workspace
    #[arg(default_value = ".")]
    pub(crate) path: PathBuf,
    /// Where the components go [default: PATH/dist]
    #[arg(long, value_name = "DIR")]
    pub(crate) out: Option<PathBuf>,
    /// Build, and compare with what is in DIR instead of writing
    #[arg(long, conflicts_with = "check_sources")]
    pub(crate) verify: bool,
    /// Build nothing: compare the sources with those recorded in DIR
    #[arg(long)]
    pub(crate) check_sources: bool,
}
