//! The program `sluice`: reads the command line, does it, says how it went.

mod admin;
mod answer;
mod app;
mod attempts;
mod auth;
mod call;
mod caller;
mod candidates;
mod charge;
mod cli;
mod commands;
mod config;
mod connector;
mod drain;
mod drained;
mod fault;
mod frames;
mod funding;
mod gateway;
mod key_book;
mod lane;
mod ledger_pages;
mod market;
mod measures;
mod metering;
mod metrics;
mod models;
mod money;
mod planning;
mod plugin_build;
mod plugins;
mod prepared;
mod rate_headers;
mod rates;
mod refusal;
mod routes;
mod server;
mod signer;
mod snapshot;
mod stream;
mod supervisor;
mod telemetry;
mod timed_io;
mod underway;
mod upload;
mod upstream;
mod vendor_error;
mod workers;

use std::error::Error;
use std::process::ExitCode;

use app::{App, StartError};
use clap::Parser;
use cli::{BuildArgs, Cli, Command, MarketCommand, PluginCommand};
use config::{Config, ConfigError, Environment};
use drain::Stopped;
use supervisor::Purpose;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Exit codes as in sysexits.h: bad configuration, everything else.
const EXIT_CONFIG: u8 = 64;
const EXIT_FAILURE: u8 = 1;

/// Answers were cut at the end: the drain's deadline was over, or a second signal came.
const EXIT_CUT: u8 = 3;

fn main() -> ExitCode {
    let cli = Cli::parse();
    let done = match &cli.command {
        Some(Command::Plugin(PluginCommand::Build(args))) => build_plugins(args),
        Some(Command::Key(command)) => {
            configured(&cli).and_then(|config| Ok(commands::key(&config, command)?))
        }
        Some(Command::Run(command)) => {
            configured(&cli).and_then(|config| Ok(commands::run(&config, command)?))
        }
        Some(Command::Usage(args)) => configured(&cli).and_then(|config| Ok(commands::usage(&config, args)?)),
        Some(Command::Models(args)) => configured(&cli).and_then(|config| Ok(models::models(&config, args)?)),
        Some(Command::Market(command)) => market(&cli, command),
        None | Some(Command::Serve) => match start(&cli, Purpose::Serve).and_then(|app| Ok(app.serve()?)) {
            Ok(Stopped::Clean) => Ok(()),
            Ok(Stopped::Cut { .. }) => return ExitCode::from(EXIT_CUT),
            Err(error) => Err(error),
        },
        Some(Command::Check) => start(&cli, Purpose::Check).map(|app| {
            for line in app.summary() {
                eprintln!("{line}");
            }
            eprintln!("the configuration is good");
        }),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            report(error.as_ref());
            let config =
                matches!(error.downcast_ref(), Some(StartError::Config(_))) || error.is::<ConfigError>();
            ExitCode::from(if config { EXIT_CONFIG } else { EXIT_FAILURE })
        }
    }
}

fn configured(cli: &Cli) -> Result<Config, Box<dyn Error>> {
    Ok(Config::load(cli.config.as_deref(), &Environment::load()?)?)
}

fn market(cli: &Cli, command: &MarketCommand) -> Result<(), Box<dyn Error>> {
    let environment = Environment::load()?;
    // Quieter than a gateway: its answer is the line that is printed.
    telemetry::start(Some(environment.get("SLUICE_LOG").unwrap_or("warn")))?;
    let config = Config::load(cli.config.as_deref(), &environment)?;
    Ok(market::account::market(&config, &environment, command)?)
}

fn start(cli: &Cli, purpose: Purpose) -> Result<App, Box<dyn Error>> {
    let environment = Environment::load()?;
    telemetry::start(environment.get("SLUICE_LOG"))?;
    Ok(App::build(cli.config.as_deref(), &environment, purpose)?)
}

fn build_plugins(args: &BuildArgs) -> Result<(), Box<dyn Error>> {
    let out = args.out.clone().unwrap_or_else(|| plugin_build::default_out(&args.path));
    if args.check_sources {
        plugin_build::check_sources(&args.path, &out)?;
        eprintln!("the components in {} belong to their sources", out.display());
        return Ok(());
    }
    let task = if args.verify { plugin_build::Task::Verify } else { plugin_build::Task::Write };
    let options = plugin_build::Options { path: args.path.clone(), out: Some(out), task };
    plugin_build::build(&options, &mut |line| eprintln!("{line}"))?;
    Ok(())
}

/// The error and what caused it, one line each.
fn report(error: &dyn Error) {
    eprintln!("error: {error}");
    let mut cause = error.source();
    while let Some(deeper) = cause {
        eprintln!("  caused by: {deeper}");
        cause = deeper.source();
    }
}
