//! Datagrams of a SOCKS5 client. [RFC 1928 §7]
//!
//! Heard is only the address that the connection comes from, on the port that it named or spoke from
//! first; answers come from whoever in the tunnel sends them. All of it ends with the connection.

use std::net::SocketAddr;

use tokio::io::AsyncReadExt;
use tokio::net::UdpSocket;
use tokio::task::JoinSet;

use super::Guest;
use super::names::Failure;
use super::socks::{Code, unwrap_datagram, wrap_datagram};
use super::way::{Client, Datagrams};

/// Datagrams that wait for the address of a name; more are dropped.
const UNRESOLVED: usize = 32;

/// The largest datagram.
const DATAGRAM_BYTES: usize = 65_535;

/// What stands between a client and the tunnel.
#[derive(Debug)]
pub struct Relay {
    guest: Guest,
    outer: UdpSocket,
    bound: SocketAddr,
    inner: Datagrams,
    /// Where the client sends from; port 0: not known yet.
    client: SocketAddr,
}

impl Relay {
    /// For a client that will send from `port`, if it is not 0.
    ///
    /// # Errors
    /// There can be none.
    pub fn open(guest: &Guest, port: u16) -> Result<Self, Code> {
        // Over a Unix socket there is no address to speak of.
        let Some((own, client)) = guest.addresses else { return Err(Code::NoSuchCommand) };
        let open = || {
            let socket = std::net::UdpSocket::bind((own.ip(), 0))?;
            socket.set_nonblocking(true)?;
            let bound = socket.local_addr()?;
            Ok::<_, std::io::Error>((UdpSocket::from_std(socket)?, bound))
        };
        let (outer, bound) = open().map_err(|_| Code::Failed)?;
        let inner = guest.names.way().bind().map_err(|why| Code::from(Failure::from(why)))?;
        let client = SocketAddr::new(client.ip(), port);
        Ok(Self { guest: guest.clone(), outer, bound, inner, client })
    }

    /// Where it listens to the client.
    pub const fn bound(&self) -> SocketAddr {
        self.bound
    }

    /// Works until the client hangs up.
    pub async fn run(self, mut control: impl Client) {
        let Self { guest, outer, mut inner, mut client, .. } = self;
        let mut buffer = vec![0; DATAGRAM_BYTES];
        let mut ignored = [0; 64];
        let mut resolving = JoinSet::new();
        loop {
            tokio::select! {
                heard = control.read(&mut ignored) => {
                    if !matches!(heard, Ok(1..)) {
                        return;
                    }
                }
                received = outer.recv_from(&mut buffer) => {
                    let Ok((length, from)) = received else { continue };
                    let is_known = client.port() == 0 || from.port() == client.port();
                    if from.ip().to_canonical() != client.ip().to_canonical() || !is_known {
                        continue;
                    }
                    let Some((to, payload)) = unwrap_datagram(&buffer[..length]) else { continue };
                    client = from;
                    let payload = buffer[payload].to_vec();
                    if let crate::control::ends::HostPort::Address(to) = to {
                        inner.send_to(&payload, to);
                    } else if resolving.len() < UNRESOLVED {
                        let names = guest.names.clone();
                        resolving.spawn(async move { (names.place(&to, None).await, payload) });
                    }
                }
                Some(Ok((Ok(to), payload))) = resolving.join_next() => inner.send_to(&payload, to),
                received = inner.recv() => {
                    let Some((payload, from)) = received else { return };
                    if client.port() != 0 {
                        // As on any network.
                        drop(outer.try_send_to(&wrap_datagram(&payload, from), client));
                    }
                }
            }
        }
    }
}
