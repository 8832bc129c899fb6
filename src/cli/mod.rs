//! Words and exit codes: reads the command line, hands the work down, says how it went.
//!
//! Exit status 0 is done, 1 failed at run time, 2 wrong usage or configuration. Only [`message`]
//! prints.

pub mod args;
pub mod demo;
pub mod device;
pub mod down;
pub mod file;
pub mod key;
pub mod message;
pub mod show;
pub mod up;

use std::process::ExitCode;

use clap::Parser;

use self::args::{Arguments, Command};
use self::message::Failure;
use crate::sys::entropy::OsEntropy;

/// Runs the program. Wrong usage is answered by clap, which ends the process with status 2.
pub fn main() -> ExitCode {
    match dispatch(&Arguments::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            message::failure(&failure);
            ExitCode::from(failure.exit_status())
        }
    }
}

fn dispatch(arguments: &Arguments) -> Result<(), Failure> {
    match &arguments.command {
        Some(Command::Show(show)) => show::run(show),
        Some(Command::Genkey) => key::genkey(&mut OsEntropy),
        Some(Command::Genpsk) => key::genpsk(&mut OsEntropy),
        Some(Command::Pubkey) => key::pubkey(),
        Some(Command::Down(tunnel)) => down::run(&tunnel.config),
        Some(Command::Up(tunnel)) => up::run(&tunnel.config),
        Some(Command::Demo(arguments)) => demo::run(arguments),
        None => device::run(&arguments.daemon),
    }
}
