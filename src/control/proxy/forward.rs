//! Listeners that lead to one place in the tunnel.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use tokio::net::UdpSocket;
use tokio::sync::mpsc;
use tokio::time::timeout;
use tracing::debug;

use super::Purpose;
use super::names::{Failure, Names};
use super::way::Client;
use crate::control::ends::{Forward, HostPort};

/// Clients of one listener of UDP, and datagrams of one that may wait.
const CLIENTS: usize = 1024;
const WAITING: usize = 64;

/// How long a silent client of UDP is remembered. [RFC 4787 §4.3, REQ-5]
const IDLE: Duration = Duration::from_secs(300);

/// The largest datagram.
const DATAGRAM_BYTES: usize = 65_535;

/// Carries one connection to `to`.
pub async fn serve(stream: impl Client, names: &Names, to: &HostPort) {
    match names.dial(to).await {
        Ok(opened) => opened.carry(stream, Vec::new()).await,
        Err(failure) => debug!(%to, %failure, "a client of a forward was refused"),
    }
}

/// Carries datagrams of all clients of `socket`, each by a socket of its own inside the tunnel.
pub async fn datagrams(
    socket: UdpSocket,
    purpose: Arc<ArcSwap<Purpose>>,
    names: Arc<ArcSwap<Names>>,
) {
    let socket = Arc::new(socket);
    let mut clients: HashMap<SocketAddr, mpsc::Sender<Vec<u8>>> = HashMap::new();
    let mut buffer = vec![0; DATAGRAM_BYTES];
    loop {
        // An error of the network's about what was sent before.
        let Ok((length, from)) = socket.recv_from(&mut buffer).await else { continue };
        let mut payload = buffer[..length].to_vec();
        if let Some(client) = clients.get(&from) {
            match client.try_send(payload) {
                Ok(()) | Err(mpsc::error::TrySendError::Full(_)) => continue,
                // It was idle, or its place in the tunnel was not found.
                Err(mpsc::error::TrySendError::Closed(unsent)) => payload = unsent,
            }
        }
        clients.retain(|_, client| !client.is_closed());
        if clients.len() >= CLIENTS {
            continue;
        }
        let Purpose::Forward(forward) = &**purpose.load() else { continue };
        let (sender, receiver) = mpsc::channel(WAITING);
        drop(sender.try_send(payload));
        clients.insert(from, sender);
        let (socket, names, forward) = (Arc::clone(&socket), names.load_full(), forward.clone());
        tokio::spawn(async move {
            if let Err(failure) = client(&socket, from, receiver, &names, &forward).await {
                debug!(to = %forward.to, %failure, "a client of a forward was refused");
            }
        });
    }
}

/// Carries the datagrams of one client until it has been silent for long.
async fn client(
    outer: &UdpSocket,
    client: SocketAddr,
    mut said: mpsc::Receiver<Vec<u8>>,
    names: &Names,
    forward: &Forward,
) -> Result<(), Failure> {
    let idle = forward.idle.map_or(IDLE, |seconds| Duration::from_secs(seconds.into()));
    let to = names.place(&forward.to).await?;
    let to = SocketAddr::new(to.ip().to_canonical(), to.port());
    let mut inner = names.way().bind()?;
    loop {
        let next = async {
            tokio::select! {
                payload = said.recv() => {
                    payload.inspect(|payload| inner.send_to(payload, to)).is_some()
                }
                received = inner.recv() => {
                    let is_here = received.is_some();
                    let is_from = |from: SocketAddr| {
                        SocketAddr::new(from.ip().to_canonical(), from.port()) == to
                    };
                    if let Some((payload, from)) = received && is_from(from) {
                        // As on any network.
                        drop(outer.try_send_to(&payload, client));
                    }
                    is_here
                }
            }
        };
        if !matches!(timeout(idle, next).await, Ok(true)) {
            return Ok(());
        }
    }
}
