//! `hybridwg IFACE` and `hybridwg -f IFACE`: what `wireguard-go` does.

use tracing::level_filters::LevelFilter;
use tracing_subscriber::fmt;

use super::args::Daemon;
use super::message::Failure;
use crate::control::daemon;

/// Runs the device here if asked to, else in a process of its own.
///
/// # Errors
/// It could not be started, or failed later.
pub fn run(arguments: &Daemon) -> Result<(), Failure> {
    // clap has seen to it that there is one.
    let Some(interface) = &arguments.interface else {
        return Err(Failure::usage(anyhow::anyhow!("an interface name is missing")));
    };
    start_log()?;
    if arguments.foreground || daemon::is_foreground_requested() {
        daemon::run_foreground(interface)?;
    } else {
        daemon::spawn_daemon(interface)?.release()?;
    }
    Ok(())
}

/// Logs to standard error, as much as `LOG_LEVEL` says. Its words are those of `wireguard-go`
/// (`verbose`, `error`, `silent`) and the levels between them.
fn start_log() -> Result<(), Failure> {
    let level = match std::env::var("LOG_LEVEL").as_deref() {
        Ok("silent") => LevelFilter::OFF,
        Ok("error") => LevelFilter::ERROR,
        Ok("warn") => LevelFilter::WARN,
        Ok("info") | Err(_) => LevelFilter::INFO,
        Ok("verbose" | "debug") => LevelFilter::DEBUG,
        Ok("trace") => LevelFilter::TRACE,
        Ok(other) => {
            return Err(Failure::usage(anyhow::anyhow!("LOG_LEVEL is {other:?}"))
                .with_hint("it can be silent, error, warn, info, verbose or trace"));
        }
    };
    fmt().with_max_level(level).with_writer(std::io::stderr).log_internal_errors(false).init();
    Ok(())
}
