//! Starts a device: in this process, or in a child that outlives it.
//!
//! The process that is asked for a device creates what can fail for a reason the user can mend
//! (the TUN, the configuration socket) and hands both to the child as descriptors, so that every
//! such error reaches a terminal. It returns when the child answers. The variables that carry the
//! descriptors are those of `wireguard-go`: `WG_TUN_FD` and `WG_UAPI_FD`. The child stays on a
//! [`Leash`] until its starter has done all that it wants to do.

use std::fs::File;
use std::io::{self, Write};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::process::Stdio;

use super::engine::{self, EngineError, Given, Inside};
use super::run_folder;
use super::settings::Settings;
use super::shards::Shards;
use super::uapi::client::{ClientError, UapiClient};
use super::uapi::{is_interface_name, socket_path};
use crate::sys::SysError;
use crate::sys::pidfd;
use crate::sys::process::{self, Detached, FIRST_INHERITED};
use crate::sys::tun::{Tun, TunError};

const TUN_FD: &str = "WG_TUN_FD";
const UAPI_FD: &str = "WG_UAPI_FD";
const LEASH_FD: &str = "HYBRIDWG_LEASH_FD";
/// Kept open as long as the device lives: what belongs to it on the host goes with it.
const KEPT_FD: &str = "HYBRIDWG_KEPT_FD";
/// What is said to a background process and to no process that it starts.
pub const OF_DAEMON: [&str; 5] = [TUN_FD, UAPI_FD, LEASH_FD, KEPT_FD, FOREGROUND];
/// Set in the child, as `wireguard-go` does.
const FOREGROUND: &str = "WG_PROCESS_FOREGROUND";
/// Whoever asks for a log gets the child's on the terminal.
const LOG_LEVEL: &str = "LOG_LEVEL";

/// Why a device could not be started.
#[derive(Debug, thiserror::Error)]
pub enum DaemonError {
    #[error(transparent)]
    Tun(#[from] TunError),
    #[error("another process already answers on {path}")]
    InUse { path: PathBuf },
    #[error("cannot create the configuration socket {path}")]
    Listen { path: PathBuf, source: io::Error },
    #[error(
        "interface name {interface:?} is not 1 to 15 letters, digits and characters of `_=+.-`"
    )]
    Name { interface: String },
    #[error("{variable} is not the number of a fitting descriptor that this process was given")]
    Inherited { variable: &'static str },
    #[error("cannot start the background process of {interface}")]
    Spawn { interface: String, source: SysError },
    #[error("the background process has ended")]
    Ended(#[source] io::Error),
    #[error(
        "the background process of {interface} ended at once (run `hybridwg -f {interface}` to see why)"
    )]
    Silent { interface: String, source: ClientError },
    #[error(transparent)]
    Engine(#[from] EngineError),
}

/// Whether the environment asks for a device in this very process.
pub fn is_foreground_requested() -> bool {
    std::env::var_os(FOREGROUND).is_some_and(|value| value == "1")
}

/// What a background process ends with, unless it is released: a starter that fails, or is killed
/// half-way, leaves no device behind.
///
/// It is the writing end of a pipe.
#[must_use = "the background process ends with it"]
#[derive(Debug)]
pub struct Leash(File);

impl Leash {
    /// Lets the background process live on its own.
    ///
    /// # Errors
    /// [`DaemonError::Ended`] if it does not live any more.
    pub fn release(mut self) -> Result<(), DaemonError> {
        self.0.write_all(&[1]).map_err(DaemonError::Ended)
    }
}

/// Starts the device of `interface` in a process of its own, and returns when it answers. That
/// process keeps a copy of `kept` for as long as it lives.
///
/// # Errors
/// The TUN or the socket cannot be had, or the child ends early.
pub fn spawn_daemon(
    interface: &str,
    settings: Settings,
    kept: Option<BorrowedFd<'_>>,
) -> Result<Leash, DaemonError> {
    let inside = open_inside(interface, settings)?;
    let name = inside.name().to_owned();
    let listener = open_listener(&name)?;
    let failed = |source| {
        remove_socket(&name);
        DaemonError::Spawn { interface: name.clone(), source }
    };
    let (held, leash) = process::pipe().map_err(failed)?;
    let stderr =
        if std::env::var_os(LOG_LEVEL).is_some() { Stdio::inherit() } else { Stdio::null() };
    let arguments = ["-f".into()].into_iter().chain(settings.arguments());
    let given = [
        (UAPI_FD, Some(listener.as_fd())),
        (LEASH_FD, Some(held.as_fd())),
        (TUN_FD, inside.tun().map(AsFd::as_fd)),
        (KEPT_FD, kept),
    ];
    let given = given.into_iter().filter_map(|(variable, fd)| Some((variable, fd?)));
    let spawned = Detached::new(arguments.chain(["--".into(), name.clone().into()]))
        .map(|child| {
            let child = child.env(FOREGROUND, "1").stderr(stderr);
            (FIRST_INHERITED..).zip(given).fold(child, |child, (number, (variable, fd))| {
                child.env(variable, &number.to_string()).inherit(fd)
            })
        })
        .and_then(Detached::spawn);
    spawned.map_err(failed)?;
    // From here on only the child listens, so that its end is noticed.
    drop((listener, held));
    match UapiClient::connect(&name).and_then(|mut client| client.get()) {
        Ok(_) => Ok(Leash(leash)),
        Err(source) => {
            remove_socket(&name);
            Err(DaemonError::Silent { interface: name, source })
        }
    }
}

/// Runs the device of `interface` until it is told to stop, or its TUN or socket goes.
///
/// # Errors
/// The TUN or the socket cannot be had, or the device fails.
pub fn run_foreground(interface: &str, settings: Settings) -> Result<(), DaemonError> {
    let inside = open_inside(interface, settings)?;
    let listener = open_listener(inside.name())?;
    let (leash, kept) = (inherited(LEASH_FD)?, inherited(KEPT_FD)?);
    let path = socket_path(inside.name());
    Ok(engine::run(inside, Given { listener, leash, kept }, &path, settings)?)
}

fn open_inside(interface: &str, settings: Settings) -> Result<Inside, DaemonError> {
    match settings.is_rootless {
        false => open_tun(interface, settings).map(Inside::Interface),
        true if is_interface_name(interface) => Ok(Inside::Nothing(interface.to_owned())),
        true => Err(DaemonError::Name { interface: interface.to_owned() }),
    }
}

/// The kernel takes more names than the socket's clients do. An interface is made for as many queues
/// as it is to have: who inherits it can open them, and nobody can change its kind later.
fn open_tun(interface: &str, settings: Settings) -> Result<Tun, DaemonError> {
    if !is_interface_name(interface.strip_suffix("%d").unwrap_or(interface)) {
        return Err(DaemonError::Name { interface: interface.to_owned() });
    }
    Ok(match inherited(TUN_FD)? {
        Some(fd) => Tun::attach(fd, settings.offloads.tun)?,
        None if settings.shards == Shards::ONE => Tun::create(interface, settings.offloads.tun)?,
        None => Tun::create_for_queues(interface, settings.offloads.tun)?,
    })
}

fn open_listener(interface: &str) -> Result<UnixListener, DaemonError> {
    let path = socket_path(interface);
    if let Some(fd) = inherited(UAPI_FD)? {
        let listener = UnixListener::from(fd);
        let address = listener.local_addr().ok();
        if address.is_none_or(|address| address.as_pathname() != Some(&path)) {
            return Err(DaemonError::Inherited { variable: UAPI_FD });
        }
        // `down` shall wait for this process, and not for the one that has started it.
        return match pidfd::listen_again(&listener) {
            Ok(()) => Ok(listener),
            Err(SysError { source, .. }) => Err(DaemonError::Listen { path, source }),
        };
    }
    listen(interface, &path).map_err(|source| match source.kind() {
        io::ErrorKind::AddrInUse => DaemonError::InUse { path },
        _ => DaemonError::Listen { path, source },
    })
}

/// Takes the place of a socket that nobody serves any more. The caller holds the TUN of that name,
/// so that nobody else does the same.
fn listen(interface: &str, path: &Path) -> io::Result<UnixListener> {
    run_folder::create_for_sockets()?;
    // A client that connects between bind and listen, as `wg show` does with every socket it finds,
    // is refused, and `wg` removes what refuses it. Once we listen it stays.
    let bind = || -> io::Result<UnixListener> {
        loop {
            let listener = process::with_private_umask(|| UnixListener::bind(path))?;
            if path.exists() {
                return Ok(listener);
            }
        }
    };
    match bind() {
        Err(error) if error.kind() == io::ErrorKind::AddrInUse => {
            match UapiClient::connect(interface).and_then(|mut client| client.get()) {
                Err(failure) if failure.is_abandoned() => {
                    match std::fs::remove_file(path) {
                        // Whoever was ending has removed it himself.
                        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
                        Ok(()) | Err(_) => bind(),
                    }
                }
                Ok(_) | Err(_) => Err(error),
            }
        }
        outcome => outcome,
    }
}

fn inherited(variable: &'static str) -> Result<Option<OwnedFd>, DaemonError> {
    let Some(text) = std::env::var_os(variable) else { return Ok(None) };
    text.to_str()
        .and_then(|text| text.parse().ok())
        .and_then(|number| process::take_inherited(number).ok())
        .map(Some)
        .ok_or(DaemonError::Inherited { variable })
}

/// The socket of a child that never answered.
fn remove_socket(interface: &str) {
    drop(std::fs::remove_file(socket_path(interface)));
}
