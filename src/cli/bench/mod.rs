//! `hybridwg bench`: the command line of what `bench` measures.

pub mod args;
mod crypto;
mod link;
mod output;
mod progress;
mod tunnel;

use std::io;

use self::args::Bench;
use crate::bench::worker;
use crate::cli::hide_memory;
use crate::cli::message::Failure;

/// Runs one of its commands.
///
/// # Errors
/// Wrong usage, a right that is missing, or what stood in the way; [`Failure::Worse`] if a
/// comparison was asked for and something is worse.
pub fn run(command: &Bench) -> Result<(), Failure> {
    match command {
        Bench::Tunnel(arguments) => tunnel::over_wire(arguments),
        Bench::Path(arguments) => tunnel::over_path(arguments),
        Bench::Gateway(arguments) => tunnel::through_gateway(arguments),
        Bench::Link(arguments) => link::run(arguments),
        Bench::Crypto(arguments) => crypto::run(arguments),
        Bench::Worker => {
            hide_memory()?;
            Ok(worker::serve(io::stdin().lock(), io::stdout())?)
        }
    }
}
