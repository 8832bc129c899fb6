//! Steps on the tunnel interface itself: its daemon, its addresses, MTU and up.

use std::fs;
use std::io::{self, Read};
use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::time::Duration;

use ipnet::IpNet;

use crate::control::command::{MtuPolicy, SetRequest};
use crate::control::config::Config;
use crate::control::daemon::{DaemonError, Leash, spawn_daemon};
use crate::control::interrupt::Interrupt;
use crate::control::lifecycle::{LifecycleError, Step};
use crate::control::netlink::nft::Owner;
use crate::control::netlink::{Family, Link, Netlink, delete_address_command};
use crate::control::resolve::Resolve;
use crate::control::settings::Settings;
use crate::control::uapi::client::UapiClient;
use crate::control::uapi::{Errno, socket_path};
use crate::sys::clock;
use crate::sys::pidfd::Watched;

/// Creates the interface by starting its daemon, which ends if this process does before the commit.
#[derive(Debug)]
pub struct AddInterface {
    interface: String,
    settings: Settings,
    owner: Option<Rc<Owner>>,
    leash: Option<Leash>,
}

impl AddInterface {
    /// What belongs to `owner` lives as long as the daemon.
    pub fn new(interface: &str, settings: Settings, owner: Option<Rc<Owner>>) -> Self {
        Self { interface: interface.to_owned(), settings, owner, leash: None }
    }

    fn failed(&self, source: DaemonError) -> LifecycleError {
        LifecycleError::Daemon { interface: self.interface.clone(), source }
    }
}

impl Step for AddInterface {
    fn describe(&self) -> String {
        format!("ip link add {} type tun", self.interface)
    }

    fn apply(&mut self, _: &mut Netlink) -> Result<(), LifecycleError> {
        let kept = self.owner.as_ref().map(|owner| owner.as_fd());
        let leash = spawn_daemon(&self.interface, self.settings, kept);
        self.leash = Some(leash.map_err(|source| self.failed(source))?);
        Ok(())
    }

    fn commit(&mut self) -> Result<(), LifecycleError> {
        self.leash.take().map_or(Ok(()), Leash::release).map_err(|source| self.failed(source))
    }

    fn describe_undo(&self) -> Option<String> {
        Some(delete_command(&self.interface))
    }

    fn undo(&mut self, netlink: &mut Netlink) -> Result<(), LifecycleError> {
        match delete(netlink, &self.interface) {
            // A PostUp hook may have deleted it, or its daemon may have died.
            Err(LifecycleError::Elsewhere { .. }) => Ok(()),
            outcome => outcome,
        }
    }
}

/// Whether the daemon of the interface has ended without cleaning up, as by a crash: its socket is
/// there, and the interface is not. A daemon that is only starting has its interface first.
///
/// # Errors
/// What the kernel refused.
pub fn is_left_behind(netlink: &mut Netlink, interface: &str) -> Result<bool, LifecycleError> {
    if netlink.link(interface)?.is_some() {
        return Ok(false);
    }
    let answer = UapiClient::connect(interface).and_then(|mut client| client.get());
    Ok(answer.is_err_and(|error| error.is_abandoned()))
}

/// Removes the socket of a daemon that has ended.
///
/// # Errors
/// No right.
pub fn remove_socket(interface: &str) -> Result<(), LifecycleError> {
    let socket = socket_path(interface);
    match fs::remove_file(&socket) {
        Err(source) if source.kind() != io::ErrorKind::NotFound => {
            Err(LifecycleError::LeftBehind { socket, source })
        }
        // It was ending just then, and has removed it itself.
        Ok(()) | Err(_) => Ok(()),
    }
}

/// How an operator removes the socket.
pub fn remove_socket_command(interface: &str) -> String {
    format!("rm {}", socket_path(interface).display())
}

/// How an operator deletes the interface.
pub fn delete_command(interface: &str) -> String {
    format!("ip link delete dev {interface}")
}

/// Deletes the interface, and waits until its daemon's process has ended and its socket is gone.
///
/// # Errors
/// [`LifecycleError::Elsewhere`] if there is no such interface here, no right, a daemon that does
/// not end.
pub fn delete(netlink: &mut Netlink, interface: &str) -> Result<(), LifecycleError> {
    // The daemon's end closes this connection, which spares us asking again and again.
    let connection = UnixStream::connect(socket_path(interface)).ok();
    // Of another implementation's daemon, and on an old kernel, the connection is all there is.
    let process = connection.as_ref().and_then(|socket| Watched::listener_of(socket).ok());
    match netlink.delete_link(interface) {
        Err(error) if error.is_absent() => {
            return Err(LifecycleError::Elsewhere { interface: interface.to_owned() });
        }
        outcome => outcome?,
    }
    match connection.map_or(Ok(()), wait_for_end) {
        Ok(()) if is_socket_gone(&socket_path(interface)) => {
            // It neither answers nor has an interface: one that takes its time is no failure.
            let _has_ended = process.is_none_or(|it| it.ends_within(DAEMON_ENDS_WITHIN));
            Ok(())
        }
        _ => Err(LifecycleError::DaemonStays { interface: interface.to_owned() }),
    }
}

/// Waits for the end of who serves `connection`.
pub(super) fn wait_for_end(mut connection: UnixStream) -> io::Result<()> {
    connection.set_read_timeout(Some(DAEMON_ENDS_WITHIN))?;
    // Goes on where a signal interrupts it, unlike `read`.
    match connection.read_exact(&mut [0]) {
        Err(error) => match error.kind() {
            io::ErrorKind::UnexpectedEof | io::ErrorKind::ConnectionReset => Ok(()),
            _ => Err(error),
        },
        Ok(()) => Ok(()),
    }
}

/// Waits for the socket to go. One that nobody serves any more is removed.
fn is_socket_gone(socket: &Path) -> bool {
    let deadline = clock::now().mono + DAEMON_ENDS_WITHIN;
    while socket.exists() {
        if clock::now().mono >= deadline {
            let refused = UnixStream::connect(socket)
                .is_err_and(|error| error.kind() == io::ErrorKind::ConnectionRefused);
            return refused && fs::remove_file(socket).is_ok();
        }
        Interrupt::never().wait(SOCKET_POLL);
    }
    true
}

const DAEMON_ENDS_WITHIN: Duration = Duration::from_secs(5);
const SOCKET_POLL: Duration = Duration::from_millis(5);

/// Gives the device keys, port and peers, which go away with the interface.
pub struct Configure {
    pub interface: String,
    /// Where `config` was read.
    pub file: PathBuf,
    pub config: Config,
    pub resolve: Resolve,
}

impl Step for Configure {
    fn describe(&self) -> String {
        format!("wg addconf {} <(wg-quick strip {})", self.interface, self.file.display())
    }

    fn apply(&mut self, _: &mut Netlink) -> Result<(), LifecycleError> {
        let mut request = self.config.to_request(&mut self.resolve)?;
        // What `up` has picked it may change.
        request.mtu_policy.get_or_insert(MtuPolicy::Auto);
        let outcome = UapiClient::connect(&self.interface)?.set(&request);
        outcome.map_err(|error| match (error, request.listen_port) {
            (error, Some(port)) if error.refusal() == Some(Errno::ADDRESS_IN_USE) => {
                LifecycleError::PortInUse { interface: self.interface.clone(), port }
            }
            (error, _) => error.into(),
        })
    }
}

/// Gives the interface an address.
#[derive(Debug)]
pub struct AddAddress {
    pub link: Link,
    /// With its host bits.
    pub address: IpNet,
}

impl Step for AddAddress {
    fn describe(&self) -> String {
        let Self { link, address } = self;
        format!("ip {} address add {address} dev {}", Family::of(address.addr()).flag(), link.name)
    }

    fn apply(&mut self, netlink: &mut Netlink) -> Result<(), LifecycleError> {
        Ok(netlink.add_address(&self.link, self.address)?)
    }

    fn describe_undo(&self) -> Option<String> {
        Some(delete_address_command(&self.link, self.address))
    }

    fn goes_with_interface(&self) -> bool {
        true
    }

    fn undo(&mut self, netlink: &mut Netlink) -> Result<(), LifecycleError> {
        match netlink.delete_address(&self.link, self.address) {
            // The kernel takes the other addresses of a network away with the first.
            Err(error) if !error.is_absent() => Err(error.into()),
            Ok(()) | Err(_) => Ok(()),
        }
    }
}

/// Sets the MTU and brings the interface up.
#[derive(Debug)]
pub struct SetMtuUp {
    /// With the MTU that it had.
    pub link: Link,
    /// Bytes.
    pub mtu: u32,
}

impl Step for SetMtuUp {
    fn describe(&self) -> String {
        format!("ip link set mtu {} up dev {}", self.mtu, self.link.name)
    }

    fn apply(&mut self, netlink: &mut Netlink) -> Result<(), LifecycleError> {
        Ok(netlink.set_mtu_up(&self.link, self.mtu)?)
    }

    fn describe_undo(&self) -> Option<String> {
        Some(format!("ip link set mtu {} up dev {}", self.link.mtu, self.link.name))
    }

    fn goes_with_interface(&self) -> bool {
        true
    }

    fn undo(&mut self, netlink: &mut Netlink) -> Result<(), LifecycleError> {
        Ok(netlink.set_mtu_up(&self.link, self.link.mtu)?)
    }
}

/// Marks the packets that the device sends.
#[derive(Debug)]
pub struct SetMark {
    pub interface: String,
    /// 0 for none.
    pub mark: u32,
    pub former: u32,
}

impl SetMark {
    fn set(&self, mark: u32) -> Result<(), LifecycleError> {
        let request = SetRequest { fwmark: Some(mark), ..SetRequest::default() };
        Ok(UapiClient::connect(&self.interface)?.set(&request)?)
    }

    fn command(&self, mark: u32) -> String {
        match mark {
            0 => format!("wg set {} fwmark off", self.interface),
            mark => format!("wg set {} fwmark {mark:#x}", self.interface),
        }
    }
}

impl Step for SetMark {
    fn describe(&self) -> String {
        self.command(self.mark)
    }

    fn apply(&mut self, _: &mut Netlink) -> Result<(), LifecycleError> {
        self.set(self.mark)
    }

    fn describe_undo(&self) -> Option<String> {
        Some(self.command(self.former))
    }

    fn goes_with_interface(&self) -> bool {
        true
    }

    fn undo(&mut self, _: &mut Netlink) -> Result<(), LifecycleError> {
        self.set(self.former)
    }
}
