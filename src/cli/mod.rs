//! Words and exit codes: reads the command line, hands the work down, says how it went.
//!
//! Exit status 0 is done, 1 failed at run time, 2 wrong usage or configuration, 3 a measurement that
//! is worse than an earlier one. Only [`message`] prints, and the bar of [`bench`].

pub mod args;
pub mod bench;
pub mod check;
pub mod complete;
pub mod demo;
pub mod device;
pub mod down;
pub mod enclosure;
pub mod file;
pub mod health;
pub mod key;
pub mod message;
mod mtu;
pub mod nc;
pub mod new;
pub mod reload;
pub mod save;
pub mod show;
pub mod strip;
pub mod up;

use std::ffi::OsStr;
use std::process::ExitCode;

use anyhow::Context;
use clap::Parser;

use self::args::{Arguments, Command};
use self::message::Failure;
use crate::sys::entropy::OsEntropy;
use crate::sys::process;

/// Runs the program. Wrong usage is mostly answered by clap, which ends the process with status 2.
pub fn main() -> ExitCode {
    match refuse_mistaken_word().and_then(|()| run(&Arguments::parse())) {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            message::failure(&failure);
            ExitCode::from(failure.exit_status())
        }
    }
}

/// # Errors
/// [`Failure::Usage`] if the first word would be an interface, and is a command of another program,
/// or one of ours behind an option.
fn refuse_mistaken_word() -> Result<(), Failure> {
    let mut words = std::env::args_os().skip(1).enumerate();
    let is_word = |word: &OsStr| !word.as_encoded_bytes().starts_with(b"-");
    let Some((position, word)) = words.find(|(_, word)| is_word(word)) else {
        return Ok(());
    };
    if position > 0 && word.to_str().is_some_and(args::is_command) {
        let word = word.display();
        return Err(Failure::usage(anyhow::anyhow!("`{word}` is a command, and no interface"))
            .with_hint(format!("it stands first: `hybridwg {word}`, and its options after it")));
    }
    match word.to_str().and_then(args::meant_by) {
        None => Ok(()),
        Some(meant) => Err(Failure::usage(anyhow::anyhow!("`{}` is no command", word.display()))
            .with_hint(format!("it is {meant}; `hybridwg help` lists the commands"))),
    }
}

fn run(arguments: &Arguments) -> Result<(), Failure> {
    // Before a key is read. An enclosure maps the users of its namespace first, which the kernel
    // refuses to a process whose memory is hidden.
    if !matches!(arguments.command, Some(Command::Demo(_) | Command::Bench(_))) {
        hide_memory()?;
    }
    dispatch(arguments)
}

/// Keeps keys out of core dumps and away from other processes of the same user.
///
/// # Errors
/// The kernel refuses, which no known one does.
fn hide_memory() -> Result<(), Failure> {
    process::hide_memory().context("cannot keep the keys out of core dumps").map_err(Failure::run)
}

fn dispatch(arguments: &Arguments) -> Result<(), Failure> {
    match &arguments.command {
        Some(Command::Show(show)) => show::run(show),
        Some(Command::Health(arguments)) => health::run(arguments),
        Some(Command::Mtu { interface }) => mtu::run(interface),
        Some(Command::Nc(arguments)) => nc::run(arguments),
        Some(Command::Genkey) => key::genkey(&mut OsEntropy),
        Some(Command::Genpsk) => key::genpsk(&mut OsEntropy),
        Some(Command::Pubkey) => key::pubkey(),
        Some(Command::Down(tunnel)) => down::run(&tunnel.config),
        Some(Command::Up(arguments)) => up::run(arguments),
        Some(Command::Check(arguments)) => check::run(arguments),
        Some(Command::Complete { shell }) => complete::completions(*shell),
        Some(Command::Man { folder }) => complete::manual(folder),
        Some(Command::Reload(arguments)) => reload::run(arguments),
        Some(Command::Save(tunnel)) => save::run(&tunnel.config),
        Some(Command::Strip(tunnel)) => strip::run(&tunnel.config),
        Some(Command::New(command)) => new::run(command, &mut OsEntropy),
        Some(Command::Demo(arguments)) => demo::run(arguments),
        Some(Command::Bench(command)) => bench::run(command),
        None => device::run(&arguments.daemon),
    }
}
