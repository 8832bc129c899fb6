//! `hybridwg up FILE|NAME`.

use std::io::{self, Read};
use std::os::unix::net::UnixStream;

use anyhow::anyhow;

use crate::cli::args;
use crate::cli::down;
use crate::cli::file;
use crate::cli::message::{self, Failure, Terminal};
use crate::control::config::Written;
use crate::control::interrupt::Interrupt;
use crate::control::link;
use crate::control::netlink::Netlink;
use crate::control::resolve::resolve;
use crate::control::uapi::socket_path;
use crate::control::up::{self, Up};
use crate::sys::notify::Notifier;

/// Brings the interface of a configuration file up, and returns once it works; its daemon stays. In
/// the foreground, returns when the tunnel is down again.
///
/// # Errors
/// [`Failure::Usage`] if the file is not usable; otherwise what stood in the way, after everything
/// that was done has been taken back.
pub fn run(arguments: &args::Up) -> Result<(), Failure> {
    let located = file::find(&arguments.tunnel.config)?;
    let Written { mut config, warnings } = file::read(&located)?;
    warnings.iter().for_each(|warning| message::warning(&warning.to_string()));
    file::fetch_keys(&located, &mut config)?;
    let interrupt = Interrupt::on_signals()?;
    let interrupt_resolving = interrupt.clone();
    let plan = Up {
        interface: &located.interface,
        file: located.path.clone(),
        config: &config,
        device: arguments.device.settings(),
        resolve: Box::new(move |host, port| {
            resolve(host, port, &mut Terminal, &interrupt_resolving)
        }),
    };
    up::up(plan, &mut Terminal, &interrupt)?;
    if arguments.foreground {
        return stay(&arguments.tunnel.config, &located.interface, &interrupt);
    }
    Ok(())
}

/// Waits until somebody interrupts, and takes the tunnel down then; or until it ends otherwise.
///
/// # Errors
/// The daemon has crashed, or the tunnel cannot be taken down.
fn stay(argument: &str, interface: &str, interrupt: &Interrupt) -> Result<(), Failure> {
    let notifier = Notifier::from_environment();
    let tell = |say: fn(&Notifier) -> io::Result<()>| match &notifier {
        Ok(notifier) => notifier.as_ref().map_or(Ok(()), say),
        Err(error) => Err(io::Error::new(error.kind(), "NOTIFY_SOCKET makes no sense")),
    };
    if let Err(error) = tell(Notifier::ready) {
        message::warning(&format!(
            "cannot tell the service manager that {interface} is up: {error}"
        ));
    }
    match interrupt.cut_short(wait_for_end(interface))? {
        None => {
            drop(tell(Notifier::stopping));
            down::run(argument)
        }
        Some(()) if link::is_left_behind(&mut Netlink::new(), interface)? => Err(Failure::run(
            anyhow!("the daemon of {interface} has ended without `hybridwg down`"),
        )),
        Some(()) => Ok(()),
    }
}

/// Waits until the daemon has ended, whatever ends it.
fn wait_for_end(interface: &str) -> impl FnOnce() + Send + 'static {
    let connection = UnixStream::connect(socket_path(interface));
    move || {
        // It says nothing, as nothing is asked.
        drop(connection.and_then(|mut connection| connection.read_exact(&mut [0])));
    }
}
