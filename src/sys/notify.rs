//! Words to the service manager: one datagram each to the socket that it names. sd_notify(3)

use std::env;
use std::ffi::OsStr;
use std::io;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::time::Duration;

/// A way to the service manager.
#[derive(Debug)]
pub struct Notifier {
    socket: UnixDatagram,
    manager: SocketAddr,
}

impl Notifier {
    /// To the manager that has started us; `None` if that was none that wants to know.
    ///
    /// # Errors
    /// The address makes no sense, or there is no socket to be had.
    pub fn from_environment() -> io::Result<Option<Self>> {
        env::var_os("NOTIFY_SOCKET").map(|address| Self::to(&address)).transpose()
    }

    /// To the manager at `address`: a path, or after `@` a name in the abstract namespace.
    ///
    /// # Errors
    /// As [`from_environment`](Self::from_environment).
    pub fn to(address: &OsStr) -> io::Result<Self> {
        let manager = match address.as_bytes().strip_prefix(b"@") {
            Some(name) => SocketAddr::from_abstract_name(name)?,
            None => SocketAddr::from_pathname(address)?,
        };
        let socket = UnixDatagram::unbound()?;
        // A manager that does not listen shall not stop us.
        socket.set_nonblocking(true)?;
        Ok(Self { socket, manager })
    }

    /// Says that the service does its work.
    ///
    /// # Errors
    /// Nobody listens.
    pub fn ready(&self) -> io::Result<()> {
        self.say("READY=1")
    }

    /// Says that the service is about to end.
    ///
    /// # Errors
    /// Nobody listens.
    pub fn stopping(&self) -> io::Result<()> {
        self.say("STOPPING=1")
    }

    /// Says that the service is alive, within [`watchdog_interval`].
    ///
    /// # Errors
    /// Nobody listens.
    pub fn alive(&self) -> io::Result<()> {
        self.say("WATCHDOG=1")
    }

    fn say(&self, words: &str) -> io::Result<()> {
        self.socket.send_to_addr(words.as_bytes(), &self.manager).map(drop)
    }
}

/// How long the manager waits for a sign of life before it ends the service; `None` if it does not.
pub fn watchdog_interval() -> Option<Duration> {
    let micros: u64 = env::var("WATCHDOG_USEC").ok()?.parse().ok()?;
    (micros > 0).then(|| Duration::from_micros(micros))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_arrive_at_a_path_and_at_an_abstract_name() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("notify");
        let name = format!("hybridwg-test-{}", std::process::id());
        let abstract_address = SocketAddr::from_abstract_name(&name).unwrap();
        let managers = [
            (UnixDatagram::bind(&path).unwrap(), path.into_os_string()),
            (UnixDatagram::bind_addr(&abstract_address).unwrap(), format!("@{name}").into()),
        ];
        for (manager, address) in managers {
            let notifier = Notifier::to(&address).unwrap();
            notifier.ready().unwrap();
            notifier.alive().unwrap();
            let mut buffer = [0; 64];
            for words in ["READY=1", "WATCHDOG=1"] {
                let len = manager.recv(&mut buffer).unwrap();
                assert_eq!(&buffer[..len], words.as_bytes());
            }
        }
    }

    #[test]
    fn a_manager_that_is_gone_is_an_error_and_no_obstacle() {
        let notifier = Notifier::to(OsStr::new("/nonexistent/notify")).unwrap();
        assert!(notifier.ready().is_err());
    }
}
