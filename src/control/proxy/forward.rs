//! Listeners that lead to one place in the tunnel.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use arc_swap::ArcSwap;
use tokio::net::UdpSocket;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};
use tokio::task::AbortHandle;
use tokio::time::{Instant, sleep, sleep_until};
use tracing::debug;

use super::Purpose;
use super::names::{Failure, Names};
use super::way::Client;
use crate::control::ends::{Forward, HostPort};

/// Clients of one listener of UDP. The next one ends the one that was silent longest, of those whom nobody
/// has answered if there are any: their addresses may be forged.
const CLIENTS: usize = 1024;

/// Datagrams of one client that may wait, and bytes of all of them.
const WAITING: usize = 64;
const WAITING_BYTES: usize = 4 << 20;

/// How long a silent client of UDP is remembered, unless the file says so. [RFC 4787 §4.3, REQ-5]
const IDLE: Duration = Duration::from_secs(300);

/// And at most as long as nobody has answered it. [LNX nf_conntrack_proto_udp.c:udp_timeouts]
const UNANSWERED: Duration = Duration::from_secs(30);

/// How long an address is believed to be still one of its name.
const BELIEVED: Duration = Duration::from_secs(300);

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
    let mut clients = Clients::default();
    let mut buffer = vec![0; DATAGRAM_BYTES];
    loop {
        // An error of the network's about what was sent before.
        let Ok((length, from)) = socket.recv_from(&mut buffer).await else { continue };
        let Some(said) = clients.hear(&buffer[..length]) else { continue };
        let Some(said) = clients.pass(from, said) else { continue };
        let Purpose::Forward(forward) = &**purpose.load() else { continue };
        let (sender, receiver) = mpsc::channel(WAITING);
        drop(sender.try_send(said));
        let (socket, names, forward) = (Arc::clone(&socket), names.load_full(), forward.clone());
        let is_answered = Arc::new(AtomicBool::new(false));
        let answered = Arc::clone(&is_answered);
        let task = tokio::spawn(async move {
            if let Err(failure) = client(&socket, from, receiver, &names, &forward, &answered).await
            {
                debug!(to = %forward.to, %failure, "a client of a forward was refused");
            }
        });
        clients.admit(from, sender, is_answered, task.abort_handle());
    }
}

/// A datagram, and its share of the bytes that may wait.
type Said = (Vec<u8>, OwnedSemaphorePermit);

/// Those whom a listener knows.
struct Clients {
    known: HashMap<SocketAddr, Known>,
    /// How many datagrams have come.
    heard: u64,
    room: Arc<Semaphore>,
}

struct Known {
    said: mpsc::Sender<Said>,
    /// Ordering: relaxed, nothing else hangs on it.
    is_answered: Arc<AtomicBool>,
    task: AbortHandle,
    /// Which datagram was its last.
    last: u64,
}

impl Default for Clients {
    fn default() -> Self {
        let room = Arc::new(Semaphore::new(WAITING_BYTES));
        Self { known: HashMap::new(), heard: 0, room }
    }
}

impl Clients {
    /// `None` if too much waits already.
    fn hear(&mut self, datagram: &[u8]) -> Option<Said> {
        self.heard += 1;
        let bytes = u32::try_from(datagram.len()).ok()?;
        let share = Arc::clone(&self.room).try_acquire_many_owned(bytes).ok()?;
        Some((datagram.to_vec(), share))
    }

    /// Gives its client a datagram, or gives it back if there is none.
    fn pass(&mut self, from: SocketAddr, said: Said) -> Option<Said> {
        let Some(client) = self.known.get_mut(&from) else { return Some(said) };
        client.last = self.heard;
        match client.said.try_send(said) {
            Ok(()) | Err(mpsc::error::TrySendError::Full(_)) => None,
            // It was idle, or its place in the tunnel was not found.
            Err(mpsc::error::TrySendError::Closed(said)) => Some(said),
        }
    }

    fn admit(
        &mut self,
        from: SocketAddr,
        said: mpsc::Sender<Said>,
        is_answered: Arc<AtomicBool>,
        task: AbortHandle,
    ) {
        self.known.retain(|_, client| !client.said.is_closed());
        if self.known.len() >= CLIENTS {
            let worth = |client: &Known| (client.is_answered.load(Ordering::Relaxed), client.last);
            let silent = self.known.iter().min_by_key(|(_, client)| worth(client));
            let silent = silent.map(|(from, _)| *from);
            if let Some(client) = silent.and_then(|silent| self.known.remove(&silent)) {
                client.task.abort();
            }
        }
        self.known.insert(from, Known { said, is_answered, task, last: self.heard });
    }
}

/// Carries the datagrams of one client until it has been silent for long.
async fn client(
    outer: &UdpSocket,
    client: SocketAddr,
    mut said: mpsc::Receiver<Said>,
    names: &Names,
    forward: &Forward,
    is_answered: &AtomicBool,
) -> Result<(), Failure> {
    let mut to = names.place(&forward.to, None).await?;
    let mut inner = names.way().bind()?;
    let mut last = Instant::now();
    let mut found = pin!(look_again(names, forward, to));
    loop {
        let patience = patience(forward, is_answered.load(Ordering::Relaxed));
        tokio::select! {
            payload = said.recv() => {
                let Some((payload, _)) = payload else { return Ok(()) };
                inner.send_to(&payload, to);
                last = Instant::now();
            }
            received = inner.recv() => {
                let Some((payload, from)) = received else { return Ok(()) };
                if SocketAddr::new(from.ip().to_canonical(), from.port()) == to {
                    // As on any network.
                    drop(outer.try_send_to(&payload, client));
                    last = Instant::now();
                    is_answered.store(true, Ordering::Relaxed);
                }
            }
            place = &mut found => {
                to = place;
                found.set(look_again(names, forward, to));
            }
            () = sleep_until(last + patience) => return Ok(()),
        }
    }
}

/// How long a client may be silent.
fn patience(forward: &Forward, is_answered: bool) -> Duration {
    let idle = forward.idle.map_or(IDLE, |seconds| Duration::from_secs(seconds.into()));
    if is_answered { idle } else { idle.min(UNANSWERED) }
}

/// Where a forward leads after a while: the name may stand for another address by then.
async fn look_again(names: &Names, forward: &Forward, former: SocketAddr) -> SocketAddr {
    sleep(BELIEVED).await;
    // Nobody says so: it stays.
    names.place(&forward.to, Some(former)).await.unwrap_or(former)
}

#[cfg(test)]
mod tests {
    use tokio::sync::oneshot;
    use tokio::time::timeout;

    use super::super::tests::SOON;
    use super::*;

    #[tokio::test]
    async fn a_client_more_ends_the_one_that_was_silent_longest_unanswered_ones_first_and_what_waits_is_bounded()
     {
        let mut clients = Clients::default();
        let at = |port: u16| SocketAddr::from(([192, 0, 2, 1], port));
        // Somebody who waits for an address, as long as he is there.
        let admit = |clients: &mut Clients, port, is_answered| {
            let (sender, receiver) = mpsc::channel(1);
            let (here, gone) = oneshot::channel::<()>();
            let task = tokio::spawn(async move {
                let _held = (receiver, here);
                std::future::pending::<()>().await;
            });
            let is_answered = Arc::new(AtomicBool::new(is_answered));
            clients.admit(at(port), sender, is_answered, task.abort_handle());
            gone
        };
        let mut gone = Vec::new();
        for port in 0..1024 {
            drop(clients.hear(b""));
            gone.push(admit(&mut clients, port, port < 1023));
        }
        let said = clients.hear(b"again").unwrap();
        assert!(clients.pass(at(0), said).is_none(), "the first is the last that spoke");
        let said = clients.hear(b"hello").unwrap();
        assert!(clients.pass(at(2000), said).is_some(), "it is not known");
        let _gone = admit(&mut clients, 2000, true);
        timeout(SOON, &mut gone[1023]).await.expect("nobody has answered it").unwrap_err();
        assert!(clients.known.len() == 1024 && clients.known.contains_key(&at(1)));
        drop(clients.hear(b""));
        let _gone = admit(&mut clients, 2001, true);
        assert!(clients.known.contains_key(&at(0)) && clients.known.contains_key(&at(2000)));
        assert!(!clients.known.contains_key(&at(1)) && clients.known.len() == 1024);
        timeout(SOON, &mut gone[1]).await.expect("it ends").unwrap_err();

        let mut all = Vec::new();
        all.extend(std::iter::from_fn(|| clients.hear(&[0; 65_507])));
        assert_eq!(all.len(), (4 << 20) / 65_507);
        all.pop();
        assert!(clients.hear(&[0; 65_507]).is_some(), "one is not waiting any more");
    }

    #[test]
    fn a_client_that_nobody_answers_is_forgotten_sooner() {
        for (options, unanswered, answered) in
            [("", 30, 300), (" idle=5", 5, 5), (" idle=600", 30, 600)]
        {
            let forward =
                Forward::parse(&format!("127.0.0.1:53/udp 10.0.0.1:53{options}")).unwrap();
            let seconds = |is_answered| patience(&forward, is_answered).as_secs();
            assert_eq!((seconds(false), seconds(true)), (unanswered, answered), "{options}");
        }
    }
}
