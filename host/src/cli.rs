//! The command line.

use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Parser, Subcommand};
use sluice_ledger::doubt::InDoubt;
use sluice_ledger::market::report::By;
use sluice_ledger::usage::Day;

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
    /// Client keys: who may ask, for what, and what it may spend
    #[command(subcommand)]
    Key(KeyCommand),
    /// Runs: which are open, and the end of one
    #[command(subcommand)]
    Run(RunCommand),
    /// What was used and spent
    Usage(UsageArgs),
    /// Models that clients may ask for, who serves them, and what that costs
    Models(ModelsArgs),
    /// The account at the market of jobs: login, API key, money
    #[command(subcommand)]
    Market(MarketCommand),
    /// Work on plugins
    #[command(subcommand)]
    Plugin(PluginCommand),
}

#[derive(Debug, Subcommand)]
pub(crate) enum PluginCommand {
    /// Build the plugins of a Cargo package or workspace into components
    Build(BuildArgs),
}

#[derive(Debug, Subcommand)]
pub(crate) enum KeyCommand {
    /// Make a key; it is printed once and stored nowhere
    Create(CreateKeyArgs),
    /// List keys, without their secrets
    List,
    /// End a key: the next request with it is refused
    Revoke {
        /// Its id, as `list` shows it
        id: String,
    },
    /// Give a key a new secret
    Rotate {
        /// Its id
        id: String,
        /// How long the secret before still works, such as "1h"
        #[arg(long, value_name = "TIME", value_parser = humantime::parse_duration, default_value = "0s")]
        grace: Duration,
    },
}

#[derive(Debug, Subcommand)]
pub(crate) enum RunCommand {
    /// List runs, by their last use
    List {
        /// Of this key, by its id
        #[arg(long, value_name = "ID")]
        key: Option<String>,
        /// Also those that have ended
        #[arg(long)]
        all: bool,
    },
    /// End a run: the next request of it is refused, what is under way ends as it would
    Close {
        /// As the header x-sluice-run names it
        name: String,
        /// Its key, by its id [default: the run of callers that show no key]
        #[arg(long, value_name = "ID", default_value = "")]
        key: String,
    },
}

/// Passwords are asked for, or taken from SLUICE_MARKET_PASSWORD.
#[derive(Debug, Subcommand)]
pub(crate) enum MarketCommand {
    /// Make an account
    Register {
        #[arg(long)]
        email: String,
        #[arg(long, value_name = "NAME")]
        username: String,
        #[arg(long, value_name = "NAME")]
        full_name: String,
    },
    /// Log in, for about an hour: only to make a key is a login needed
    Login {
        /// The name, or the e-mail address
        #[arg(long, value_name = "NAME")]
        username: String,
    },
    /// Make the API key that the gateway shows the market; it is kept sealed, and not printed
    CreateApiKey {
        /// Its name at the market
        #[arg(long)]
        name: String,
        /// In the place of the one that is kept
        #[arg(long)]
        replace: bool,
    },
    /// Pay money in: prints the page on which to pay
    Deposit {
        /// Dollars, such as "5.00"
        amount: String,
        #[arg(long, value_name = "TEXT")]
        description: Option<String>,
    },
    /// What is on the account
    Balance,
    /// Who is logged in, whether there is a key, what is on the account
    Status,
    /// What jobs have cost and earned
    Report(MarketReportArgs),
    /// Read the messages of a job, or write one
    Chat {
        /// The job, as the market names it
        job: String,
        /// What to write; without it, the messages are listed
        message: Option<String>,
    },
    /// Forget login, key and what keys of jobs are made from, also where the master key is lost
    Forget,
}

#[derive(Args, Debug)]
pub(crate) struct MarketReportArgs {
    /// What to sum by: strategy, day, strategy-day or job
    #[arg(long, default_value_t)]
    pub(crate) by: By,
    /// The first day (UTC) of jobs that have ended, such as 2026-01-31
    #[arg(long, value_name = "DAY")]
    pub(crate) from: Option<Day>,
    /// The last day (UTC)
    #[arg(long, value_name = "DAY")]
    pub(crate) to: Option<Day>,
    /// As JSON
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Args, Debug)]
pub(crate) struct CreateKeyArgs {
    /// Its name
    #[arg(long)]
    pub(crate) name: String,
    /// The team that it belongs to
    #[arg(long)]
    pub(crate) team: Option<String>,
    /// A model that it is for, or a glob such as "gpt-*" [default: all; may be repeated]
    #[arg(long = "model", value_name = "MODEL")]
    pub(crate) models: Vec<String>,
    /// An address or a range that it works from, such as "10.0.0.0/8" [default: all; may be repeated]
    #[arg(long = "from", value_name = "RANGE")]
    pub(crate) addresses: Vec<String>,
    /// When it ends, such as "30d" [default: never]
    #[arg(long, value_name = "TIME", value_parser = humantime::parse_duration)]
    pub(crate) expires_in: Option<Duration>,
    /// Requests a minute at most
    #[arg(long, value_name = "COUNT")]
    pub(crate) requests_per_minute: Option<u64>,
    /// Tokens a minute at most
    #[arg(long, value_name = "COUNT")]
    pub(crate) tokens_per_minute: Option<u64>,
    /// Requests at once at most
    #[arg(long, value_name = "COUNT")]
    pub(crate) concurrent: Option<u32>,
    /// Dollars that it may spend: "5.00" in all, "5.00/day" or "5.00/month" [may be repeated]
    #[arg(long = "budget", value_name = "BUDGET")]
    pub(crate) budgets: Vec<String>,
}

#[derive(Args, Debug)]
pub(crate) struct UsageArgs {
    /// What to sum by, with commas between: day, key, team, run, model, upstream
    #[arg(long, default_value = "day,key")]
    pub(crate) by: String,
    /// The first day (UTC), such as 2026-01-31
    #[arg(long, value_name = "DAY")]
    pub(crate) from: Option<String>,
    /// The last day (UTC)
    #[arg(long, value_name = "DAY")]
    pub(crate) to: Option<String>,
    /// Of this key, by its id
    #[arg(long, value_name = "ID")]
    pub(crate) key: Option<String>,
    /// Of this run
    #[arg(long)]
    pub(crate) run: Option<String>,
    /// As CSV
    #[arg(long)]
    pub(crate) csv: bool,
    /// Instead: what was held when a gateway died, and counts as spent until somebody resolves it
    #[arg(long, conflicts_with_all = ["csv", "resolve"])]
    pub(crate) in_doubt: bool,
    /// Instead: say what one of those has cost, by its number, such as 12 or rest-3
    #[arg(long, value_name = "NUMBER", requires = "charge")]
    pub(crate) resolve: Option<InDoubt>,
    /// Dollars, with --resolve: "0" where the vendor billed nothing
    #[arg(long, value_name = "DOLLARS")]
    pub(crate) charge: Option<String>,
}

#[derive(Args, Debug)]
pub(crate) struct ModelsArgs {
    /// Explain this model, as a client would name it
    pub(crate) name: Option<String>,
    /// As JSON
    #[arg(long)]
    pub(crate) json: bool,
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
