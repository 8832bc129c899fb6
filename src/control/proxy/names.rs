//! From names to addresses, and from the addresses of a name to a connection to one of them.
//!
//! Names are asked of the name servers of the file, through the tunnel, unless the resolver of this
//! host may be asked. Both families are asked for at once, and of the addresses that come the first
//! that answers is taken. [RFC 8305]

use std::collections::HashMap;
use std::future::Future;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::pin::pin;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::task::JoinSet;
use tokio::time::timeout;

use super::dns::{self, Answer, Family};
use super::way::{Datagrams, Opened, Way};
use crate::control::ends::{HostPort, ResolveVia};
use crate::crypto::entropy::Entropy;
use crate::flow::gate::Unreached;
use crate::sys::clock;
use crate::sys::entropy::OsEntropy;
use crate::time::Instant;

/// How long a name server is waited for before the question goes to it again, or to the next one.
const PATIENCE: Duration = Duration::from_secs(2);

/// How often each name server is asked.
const ROUNDS: usize = 2;

/// How long one family is waited for when the other has answered. [RFC 8305 §3]
const OTHER_FAMILY: Duration = Duration::from_millis(50);

/// How long an address has before the next is tried beside it. [RFC 8305 §5]
const HEAD_START: Duration = Duration::from_millis(250);

/// Addresses of one name that are tried.
const TRIED: usize = 8;

/// Names that are remembered, and for how long at least and at most.
const REMEMBERED: usize = 1024;
const SHORTEST: Duration = Duration::from_secs(1);
const LONGEST: Duration = Duration::from_secs(300);

/// Why nobody was reached.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Failure {
    #[error(transparent)]
    Unreached(#[from] Unreached),
    #[error("names are not resolved: the file has no name server in DNS")]
    NoNameServer,
    #[error("names are not resolved: no peer has a name server of DNS in its AllowedIPs")]
    NameServersElsewhere,
    #[error("this is no name")]
    NoName,
    #[error("there is no such name, or it has no address")]
    NotFound,
    #[error("no name server has answered")]
    Unanswered,
}

/// Whom names are asked of.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Resolving {
    pub via: ResolveVia,
    pub servers: Vec<SocketAddr>,
}

/// A way, and who knows the names beyond it.
#[derive(Debug)]
pub struct Names {
    way: Way,
    pub resolving: Resolving,
    /// Locking: never held across an await.
    remembered: Mutex<HashMap<String, (Vec<IpAddr>, Instant)>>,
}

impl Names {
    pub fn new(way: Way, resolving: Resolving) -> Self {
        Self { way, resolving, remembered: Mutex::default() }
    }

    pub const fn way(&self) -> &Way {
        &self.way
    }

    /// A connection to `to`.
    ///
    /// # Errors
    /// Why nobody there could be reached.
    pub async fn dial(&self, to: &HostPort) -> Result<Opened, Failure> {
        let (host, port) = match to {
            HostPort::Address(address) => return Ok(self.way.connect(*address).await?),
            HostPort::Name { host, port } => (host, *port),
        };
        let addresses = self.resolve(host).await?;
        let way = self.way.clone();
        let connect = move |address| {
            let way = way.clone();
            async move { way.connect(SocketAddr::new(address, port)).await }
        };
        Ok(race(addresses, connect).await?)
    }

    /// One address for `to`, for datagrams: the `former` one if it still is one, else the first that the
    /// tunnel leads to. Nobody tells which of them answers.
    ///
    /// # Errors
    /// As [`Self::resolve`].
    pub async fn place(
        &self,
        to: &HostPort,
        former: Option<SocketAddr>,
    ) -> Result<SocketAddr, Failure> {
        let (addresses, port) = match to {
            HostPort::Address(address) => (vec![address.ip()], address.port()),
            HostPort::Name { host, port } => (self.resolve(host).await?, *port),
        };
        let places = addresses.into_iter().map(|it| SocketAddr::new(it.to_canonical(), port));
        let places = places.collect::<Vec<_>>();
        let led_to = || places.iter().copied().find(|place| self.way.leads_to(place.ip()));
        let former = former.filter(|former| places.contains(former));
        former.or_else(led_to).or(places.first().copied()).ok_or(Failure::NotFound)
    }

    /// The addresses of `host`, in the order in which they are to be tried; at least one.
    ///
    /// # Errors
    /// There are none, or nobody to ask.
    async fn resolve(&self, host: &str) -> Result<Vec<IpAddr>, Failure> {
        if self.resolving.via == ResolveVia::System {
            let found = tokio::net::lookup_host((host, 0)).await;
            let found = found.map_err(|_| Failure::NotFound)?.map(|it| it.ip()).collect();
            return in_order(found);
        }
        if self.resolving.servers.is_empty() {
            return Err(Failure::NoNameServer);
        }
        let host = host.trim_end_matches('.').to_ascii_lowercase();
        if let Some(known) = self.recall(&host) {
            return in_order(known);
        }
        // Elsewhere nobody would hear the question, and it would be waited for.
        let mut servers = self.resolving.servers.clone();
        servers.retain(|server| self.way.leads_to(server.ip()));
        if servers.is_empty() {
            return Err(Failure::NameServersElsewhere);
        }
        let four = self.ask(&servers, &host, Family::V4);
        let six = self.ask(&servers, &host, Family::V6);
        let (four, six) = both(four, six).await;
        let mut shortest = LONGEST;
        let mut found = Vec::new();
        let mut failure = Failure::NotFound;
        for outcome in [four, six].into_iter().flatten() {
            match outcome {
                Ok((addresses, for_how_long)) if !addresses.is_empty() => {
                    shortest = shortest.min(for_how_long);
                    found.extend(addresses);
                }
                Ok(_) => {}
                Err(error) => failure = error,
            }
        }
        if found.is_empty() {
            return Err(failure);
        }
        self.remember(host, &found, shortest.max(SHORTEST));
        in_order(found)
    }

    fn recall(&self, host: &str) -> Option<Vec<IpAddr>> {
        let remembered = self.remembered.lock().unwrap_or_else(PoisonError::into_inner);
        let (addresses, until) = remembered.get(host)?;
        (*until > clock::now().mono).then(|| addresses.clone())
    }

    fn remember(&self, host: String, addresses: &[IpAddr], for_how_long: Duration) {
        let now = clock::now().mono;
        let mut remembered = self.remembered.lock().unwrap_or_else(PoisonError::into_inner);
        if remembered.len() >= REMEMBERED {
            remembered.retain(|_, (_, until)| *until > now);
        }
        if remembered.len() >= REMEMBERED {
            remembered.clear();
        }
        remembered.insert(host, (addresses.to_vec(), now + for_how_long));
    }

    async fn ask(
        &self,
        servers: &[SocketAddr],
        host: &str,
        family: Family,
    ) -> Result<(Vec<IpAddr>, Duration), Failure> {
        let mut failure = Failure::Unanswered;
        for round in 0..ROUNDS {
            for &server in servers {
                match timeout(PATIENCE, self.ask_one(server, host, family)).await {
                    Ok(Ok(Answer::Addresses { addresses, for_how_long })) => {
                        return Ok((addresses, for_how_long));
                    }
                    Ok(Err(error @ (Failure::NoName | Failure::Unreached(_)))) if round == 0 => {
                        failure = error;
                    }
                    Ok(_) | Err(_) => {}
                }
            }
        }
        Err(failure)
    }

    async fn ask_one(
        &self,
        server: SocketAddr,
        host: &str,
        family: Family,
    ) -> Result<Answer, Failure> {
        let entropy: &mut dyn Entropy = &mut OsEntropy;
        let id = u16::from_le_bytes(entropy.bytes());
        let question = dns::question(id, host, family).ok_or(Failure::NoName)?;
        let mut socket: Datagrams = self.way.bind()?;
        socket.send_to(&question, server);
        loop {
            let (message, from) = socket.recv().await.ok_or(Failure::Unanswered)?;
            if SocketAddr::new(from.ip().to_canonical(), from.port()) != server {
                continue;
            }
            match dns::answer(&message, id, host, family) {
                Some(Answer::Truncated) => break,
                Some(answer) => return Ok(answer),
                None => {}
            }
        }
        let stream = self.way.connect(server).await?.into_stream();
        let asked = async {
            let mut stream = stream?;
            // Shorter than any: a name has 255 bytes.
            let length = u16::try_from(question.len()).unwrap_or(u16::MAX);
            stream.write_all(&[&length.to_be_bytes()[..], &question].concat()).await?;
            let mut message = vec![0; stream.read_u16().await?.into()];
            stream.read_exact(&mut message).await?;
            Ok::<_, io::Error>(dns::answer(&message, id, host, family))
        };
        asked.await.ok().flatten().ok_or(Failure::Unanswered)
    }
}

/// What both families came to: when one has come to something, the other is waited for only briefly.
async fn both<T>(
    four: impl Future<Output = Result<(Vec<IpAddr>, T), Failure>>,
    six: impl Future<Output = Result<(Vec<IpAddr>, T), Failure>>,
) -> (Option<Result<(Vec<IpAddr>, T), Failure>>, Option<Result<(Vec<IpAddr>, T), Failure>>) {
    let (mut four, mut six) = (pin!(four), pin!(six));
    let has_some = |outcome: &Result<(Vec<IpAddr>, T), Failure>| {
        outcome.as_ref().is_ok_and(|(addresses, _)| !addresses.is_empty())
    };
    tokio::select! {
        first = &mut four => {
            let pause = if has_some(&first) { OTHER_FAMILY } else { Duration::MAX };
            (Some(first), timeout(pause, six).await.ok())
        }
        first = &mut six => {
            let pause = if has_some(&first) { OTHER_FAMILY } else { Duration::MAX };
            (timeout(pause, four).await.ok(), Some(first))
        }
    }
}

/// By turns of IPv6 and IPv4. [RFC 8305 §4]
fn in_order(found: Vec<IpAddr>) -> Result<Vec<IpAddr>, Failure> {
    let (six, four): (Vec<_>, Vec<_>) = found.into_iter().partition(IpAddr::is_ipv6);
    let (mut six, mut four) = (six.into_iter(), four.into_iter());
    let mut order = Vec::new();
    while order.len() < TRIED {
        let before = order.len();
        order.extend(six.next());
        order.extend(four.next());
        if order.len() == before {
            break;
        }
    }
    if order.is_empty() { Err(Failure::NotFound) } else { Ok(order) }
}

/// The first that connects. Each address begins when the one before it has failed or has had its head
/// start.
async fn race<C, F>(addresses: Vec<IpAddr>, connect: impl Fn(IpAddr) -> F) -> Result<C, Unreached>
where
    C: Send + 'static,
    F: Future<Output = Result<C, Unreached>> + Send + 'static,
{
    let mut waiting = addresses.into_iter();
    let mut running = JoinSet::new();
    let mut failure = Unreached::NoPeer;
    loop {
        let started = waiting.next().map(|address| running.spawn(connect(address)));
        if started.is_none() && running.is_empty() {
            return Err(failure);
        }
        let pause = if waiting.len() == 0 { Duration::MAX } else { HEAD_START };
        match timeout(pause, running.join_next()).await {
            Ok(Some(Ok(Ok(connection)))) => return Ok(connection),
            // What a route says first is less than what somebody there says.
            Ok(Some(Ok(Err(error)))) if failure == Unreached::NoPeer => failure = error,
            Ok(_) | Err(_) => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::super::way::{Count, Host};
    use super::*;

    #[tokio::test]
    async fn datagrams_to_a_name_go_where_the_tunnel_leads_and_on_to_where_they_went_before() {
        let leads_to = |address: IpAddr| address.is_ipv4();
        let way = Way::Host(Host {
            interface: None,
            leads_to: Arc::new(leads_to),
            count: Count::default(),
        });
        let servers = vec!["10.0.0.53:53".parse().unwrap()];
        let names = Names::new(way, Resolving { via: ResolveVia::Tunnel, servers });
        let found = ["fd00::1", "10.0.0.1", "10.0.0.2"].map(|text| text.parse().unwrap());
        names.remember("db.example".to_owned(), &found, LONGEST);
        let to = HostPort::Name { host: "db.example".to_owned(), port: 53 };
        for (former, place) in [
            (None, "10.0.0.1:53"),
            (Some("10.0.0.2:53"), "10.0.0.2:53"),
            (Some("10.0.0.3:53"), "10.0.0.1:53"),
        ] {
            let former = former.map(|text| text.parse().unwrap());
            assert_eq!(names.place(&to, former).await, Ok(place.parse().unwrap()), "{former:?}");
        }
    }

    #[tokio::test]
    async fn a_name_server_that_the_tunnel_does_not_lead_to_is_not_asked() {
        let way = Way::Host(Host {
            interface: None,
            leads_to: Arc::new(|_| false),
            count: Count::default(),
        });
        let servers = vec!["192.0.2.53:53".parse().unwrap()];
        let names = Names::new(way, Resolving { via: ResolveVia::Tunnel, servers });
        assert_eq!(names.resolve("db.example").await, Err(Failure::NameServersElsewhere));
    }
}
