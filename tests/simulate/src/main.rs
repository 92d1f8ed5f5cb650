//! Runs the stand-in until it is killed.

use std::future;
use std::io::{self, Write};

use clap::Parser;
use sluice_simulate::Simulator;

/// Stands in for LLM vendors: the OpenAI and Anthropic wires, with faults and books.
#[derive(Parser)]
struct Arguments {
    /// Address to listen on; port 0 lets the system choose.
    #[arg(long, default_value = "127.0.0.1:0")]
    listen: String,
}

#[tokio::main]
async fn main() -> io::Result<()> {
    let arguments = Arguments::parse();
    let simulator = Simulator::start(&arguments.listen).await?;
    let mut stdout = io::stdout();
    writeln!(stdout, "listening on http://{}", simulator.address())?;
    stdout.flush()?; // a parent process reads this line through a pipe
    future::pending().await
}
