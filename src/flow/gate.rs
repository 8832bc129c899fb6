//! Connections and datagrams of this host's own, from an address of the tunnel.
//!
//! Who wants one stands outside of the shards' threads, as a rule in the control plane: he asks, is
//! answered once the other end has, and hands over a stream of this host's, whose bytes the shard
//! moves from then on. Everything goes over the [`Switch`]. Must not wait for anything by itself.

use std::net::{IpAddr, SocketAddr};
use std::os::fd::OwnedFd;
use std::sync::Arc;

use tokio::sync::{mpsc, oneshot};

use crate::crypto::entropy::Entropy;
use crate::dataplane::tables::Tables;
use crate::flow::slots::Token;
use crate::flow::switch::{Settings, Switch};
use crate::sys::entropy::OsEntropy;
use crate::sys::sockets::Stream;

/// Datagrams that may wait for whoever receives them.
const INBOX: usize = 256;

/// The ports that are picked from, as many as can be. [RFC 6056 §3.2]
const FIRST_PORT: u16 = 1024;

/// How many ports are tried before there is none.
const TRIES: u32 = 1000;

/// Why something in the tunnel cannot be reached.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Unreached {
    #[error("no peer has this address in its AllowedIPs")]
    NoPeer,
    #[error("connection refused")]
    Refused,
    #[error("no route to host")]
    HostUnreachable,
    #[error("network is unreachable")]
    NetworkUnreachable,
    #[error("prohibited on the way")]
    Prohibited,
    #[error("too many hops on the way")]
    HopsExhausted,
    #[error("no answer")]
    TimedOut,
    #[error("too many connections")]
    TooMany,
    #[error("the tunnel is about to end")]
    Ending,
}

/// The way into the tunnel. Clones are the same way.
#[derive(Clone, Debug)]
pub struct Gate {
    switch: Arc<Switch>,
    tables: Arc<Tables>,
}

impl Gate {
    pub const fn new(switch: Arc<Switch>, tables: Arc<Tables>) -> Self {
        Self { switch, tables }
    }

    /// Whether `address` is a peer's, and the tunnel has one of that family to speak from.
    pub fn leads_to(&self, address: IpAddr) -> bool {
        let is_other =
            |settings: &Settings| !settings.owns(address) && settings.source_for(address).is_some();
        self.switch.settings().is_some_and(|settings| is_other(&settings))
            && self.tables.route(address).is_some()
    }

    /// Opens a TCP connection through the tunnel to `to`. Dropping what is returned resets it.
    ///
    /// # Errors
    /// It could not be opened. [`Unreached::NetworkUnreachable`] also if the tunnel has no address of
    /// that family, or is going down.
    pub async fn connect(&self, to: SocketAddr) -> Result<Opened, Unreached> {
        self.admit()?;
        let (answer, answered) = oneshot::channel();
        if !self.switch.ask(Request::Connect { to, answer }) {
            return Err(Unreached::TooMany);
        }
        answered.await.unwrap_or(Err(Unreached::NetworkUnreachable))
    }

    /// A UDP socket inside the tunnel, on a random port of each of its addresses. Whoever in the tunnel
    /// speaks to it is heard.
    ///
    /// # Errors
    /// [`Unreached::TooMany`], [`Unreached::Ending`]
    pub fn bind(&self) -> Result<InnerUdp, Unreached> {
        self.admit()?;
        let (sender, inbox) = mpsc::channel(INBOX);
        let port = random_ports().find(|&port| self.switch.claim(port, &sender));
        let port = port.ok_or(Unreached::TooMany)?;
        Ok(InnerUdp { port, switch: Arc::clone(&self.switch), inbox })
    }

    fn admit(&self) -> Result<(), Unreached> {
        let is_ending = self.switch.settings().is_some_and(|settings| settings.is_draining);
        if is_ending { Err(Unreached::Ending) } else { Ok(()) }
    }
}

/// A connection whose other end has answered.
#[derive(Debug)]
pub struct Opened {
    token: Token,
    switch: Arc<Switch>,
    is_carried: bool,
}

impl Opened {
    pub(super) const fn new(token: Token, switch: Arc<Switch>) -> Self {
        Self { token, switch, is_carried: false }
    }

    /// Has the engine move bytes between `stream` and the connection from now on, ends and resets
    /// included, beginning with `already`, which the other side of `stream` has said before.
    pub fn carry(mut self, stream: impl Into<OwnedFd>, already: Vec<u8>) {
        // Failing, it is none, and the connection is reset with this.
        let Ok(stream) = Stream::adopt(stream.into()) else { return };
        self.is_carried = true;
        self.switch.tell(Request::Carry { token: self.token, stream, already });
    }
}

impl Drop for Opened {
    fn drop(&mut self) {
        if !self.is_carried {
            self.switch.tell(Request::Abort { token: self.token });
        }
    }
}

/// What [`InnerUdp`] receives: the content of a datagram and whose it is.
pub type Datagram = (Vec<u8>, SocketAddr);

/// A UDP socket inside the tunnel.
#[derive(Debug)]
pub struct InnerUdp {
    port: u16,
    switch: Arc<Switch>,
    inbox: mpsc::Receiver<Datagram>,
}

impl InnerUdp {
    /// Sends `payload`, or drops and counts it where there is no way or no room.
    pub fn send_to(&self, payload: &[u8], to: SocketAddr) {
        self.switch.ask(Request::Send { from: self.port, to, payload: payload.to_vec() });
    }

    /// The next datagram, from whoever sends one; `None` when the tunnel is gone.
    pub async fn recv(&mut self) -> Option<Datagram> {
        self.inbox.recv().await
    }
}

impl Drop for InnerUdp {
    fn drop(&mut self) {
        self.switch.release(self.port);
    }
}

/// What is asked of the flow engine.
#[derive(Debug)]
pub(super) enum Request {
    Connect { to: SocketAddr, answer: oneshot::Sender<Result<Opened, Unreached>> },
    Carry { token: Token, stream: Stream, already: Vec<u8> },
    Abort { token: Token },
    Send { from: u16, to: SocketAddr, payload: Vec<u8> },
}

/// Ports in an order that nobody guesses, of which the first that is free is taken.
/// [RFC 6056 §3.3.2]
pub(super) fn random_ports() -> impl Iterator<Item = u16> {
    let count = u32::from(u16::MAX - FIRST_PORT) + 1;
    (0..TRIES).map(move |_| {
        let entropy: &mut dyn Entropy = &mut OsEntropy;
        // Nearly even: the range is a small part of the numbers. Lossless: less than `count`.
        FIRST_PORT + (u32::from_le_bytes(entropy.bytes()) % count) as u16
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::proto::allowed_ips::AllowedIps;
    use crate::proto::peer::PeerId;

    #[tokio::test]
    async fn where_there_is_to_be_an_end_nothing_begins() {
        let settings = Settings { is_draining: true, ..Settings::default() };
        let switch = Arc::new(Switch::new(settings).unwrap());
        let gate = Gate::new(switch, Arc::new(Tables::new()));
        let connected = gate.connect("10.66.0.1:80".parse().unwrap()).await;
        assert_eq!(connected.map(drop), Err(Unreached::Ending));
        assert_eq!(gate.bind().map(drop), Err(Unreached::Ending));
    }

    #[test]
    fn the_tunnel_leads_to_what_is_a_peers_from_an_address_of_the_same_family() {
        let mut allowed = AllowedIps::new();
        for network in ["10.66.0.0/24", "::/0"] {
            allowed.insert(network.parse().unwrap(), PeerId(1));
        }
        let tables = Arc::new(Tables::new());
        tables.set_routes(allowed.routes());
        let tunnel = vec!["10.66.0.2/24".parse().unwrap()];
        let switch = Switch::new(Settings { tunnel, ..Settings::default() }).unwrap();
        let gate = Gate::new(Arc::new(switch), tables);
        for (address, is_led_to) in
            [("10.66.0.1", true), ("10.66.0.2", false), ("10.67.0.1", false), ("fd00::1", false)]
        {
            assert_eq!(gate.leads_to(address.parse().unwrap()), is_led_to, "{address}");
        }
    }
}
