//! `hybridwg IFACE` and `hybridwg -f IFACE`: what `wireguard-go` does.

use tracing::level_filters::LevelFilter;
use tracing_subscriber::fmt;

use super::args::Daemon;
use super::message::{self, Failure};
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
    if arguments.foreground || daemon::is_foreground_requested() {
        start_log();
        daemon::run_foreground(interface, arguments.device.settings())?;
    } else {
        daemon::spawn_daemon(interface, arguments.device.settings(), None)?.release()?;
        // A mistyped command would look as if it had worked. Scripts are not disturbed.
        if message::is_watched() {
            message::note(&format!(
                "{interface} runs in the background; `ip link delete dev {interface}` ends it"
            ));
        }
    }
    Ok(())
}

/// Logs to standard error, as much as `LOG_LEVEL` says.
fn start_log() {
    let wanted = std::env::var_os("LOG_LEVEL").unwrap_or_default();
    let level = level_of(&wanted.to_string_lossy()).unwrap_or_else(|| {
        message::warning(&format!(
            "LOG_LEVEL is {wanted:?}, and can be silent, error, warn, info, verbose or trace; \
             {DEFAULT_LEVEL} is used"
        ));
        DEFAULT_LEVEL
    });
    // Whoever keeps a log in a file greps it.
    fmt()
        .with_max_level(level)
        .with_ansi(message::is_watched() && !is_set("NO_COLOR"))
        .with_writer(std::io::stderr)
        .log_internal_errors(false)
        .init();
}

fn is_set(variable: &str) -> bool {
    std::env::var_os(variable).is_some_and(|value| !value.is_empty())
}

const DEFAULT_LEVEL: LevelFilter = LevelFilter::INFO;

/// The words of `wireguard-go` (`verbose`, `error`, `silent`), the levels between them, and other
/// usual names, in any case. Nothing is the default.
fn level_of(word: &str) -> Option<LevelFilter> {
    Some(match word.to_ascii_lowercase().as_str() {
        "" => DEFAULT_LEVEL,
        "silent" | "off" => LevelFilter::OFF,
        "error" => LevelFilter::ERROR,
        "warn" | "warning" => LevelFilter::WARN,
        "info" => LevelFilter::INFO,
        "verbose" | "debug" => LevelFilter::DEBUG,
        "trace" => LevelFilter::TRACE,
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_log_level_is_a_word_in_any_case_or_nothing() {
        for (word, level) in [
            ("verbose", LevelFilter::DEBUG),
            ("Debug", LevelFilter::DEBUG),
            ("WARNING", LevelFilter::WARN),
            ("warn", LevelFilter::WARN),
            ("ERROR", LevelFilter::ERROR),
            ("silent", LevelFilter::OFF),
            ("trace", LevelFilter::TRACE),
            ("", LevelFilter::INFO),
        ] {
            assert_eq!(level_of(word), Some(level), "{word:?}");
        }
        assert_eq!(level_of("loud"), None);
    }
}
