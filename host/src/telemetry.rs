//! What is logged, and where to: lines on standard error.

use std::io::IsTerminal;

use tracing_subscriber::EnvFilter;
use tracing_subscriber::filter::ParseError;

/// Without `SLUICE_LOG`.
const DEFAULT_FILTER: &str = "info";

/// The libraries that handle heads and bodies stay quiet even at trace, unless named
/// themselves: what they print is the client's and the vendor's.
const QUIET: &str = "h2=info,hyper=info,hyper_util=info,reqwest=info,rustls=info";

/// Starts logging by a filter such as `info` or `sluice=debug`.
///
/// # Errors
///
/// Where the filter is none.
pub(crate) fn start(filter: Option<&str>) -> Result<(), ParseError> {
    let filter = EnvFilter::builder().parse(format!("{QUIET},{}", filter.unwrap_or(DEFAULT_FILTER)))?;
    let subscriber = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .with_ansi(std::io::stderr().is_terminal())
        .with_target(false);
    // A second start keeps the first one's settings.
    let _ = subscriber.try_init();
    Ok(())
}
