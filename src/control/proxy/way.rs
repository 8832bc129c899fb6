//! Ways into the tunnel: by the flow engine, or, where there is an interface, by sockets of this
//! host that are bound to it. Either way nothing gets past the tunnel.

use std::fmt;
use std::io::{self, ErrorKind};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::ops::{Deref, DerefMut};
use std::os::fd::{AsFd, OwnedFd};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt, Join, ReadBuf, copy_bidirectional, join};
use tokio::net::unix::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpSocket, TcpStream, UdpSocket, UnixStream};
use tokio::time::timeout;

use crate::flow::gate::{self, Gate, InnerUdp, Unreached};
use crate::sys::interface::has_ipv6;
use crate::sys::sockets::{is_abandoned, set_tcp_options};
use crate::sys::tcp::bind_to_interface;

/// How long an answer to a SYN is waited for.
const CONNECT: Duration = Duration::from_secs(30);

/// The largest datagram.
const DATAGRAM_BYTES: usize = 65_535;

/// See the module.
#[derive(Clone, Debug)]
pub enum Way {
    Host(Host),
    Gate(Gate),
}

/// Sockets of this host.
#[derive(Clone)]
pub struct Host {
    /// Which they are bound to.
    pub interface: Option<String>,
    /// Whether the tunnel leads to an address.
    pub leads_to: Arc<dyn Fn(IpAddr) -> bool + Send + Sync>,
    /// Its connections.
    pub count: Count,
}

/// How many connections there are, those that are being made among them, and whether there may be more.
#[derive(Clone, Debug, Default)]
pub struct Count(Arc<Counts>);

/// Ordering: relaxed, each stands for itself.
#[derive(Debug, Default)]
struct Counts {
    now: AtomicUsize,
    is_ending: AtomicBool,
}

impl Count {
    pub fn now(&self) -> usize {
        self.0.now.load(Ordering::Relaxed)
    }

    /// Whether there is to be an end, before which nothing begins.
    pub fn be_ending(&self, is_ending: bool) {
        self.0.is_ending.store(is_ending, Ordering::Relaxed);
    }

    fn admit(&self) -> Result<(), Unreached> {
        if self.0.is_ending.load(Ordering::Relaxed) { Err(Unreached::Ending) } else { Ok(()) }
    }

    fn one_more(&self) -> Counted {
        self.0.now.fetch_add(1, Ordering::Relaxed);
        Counted(self.clone())
    }
}

/// One of them, until it is dropped.
#[derive(Debug)]
struct Counted(Count);

impl Drop for Counted {
    fn drop(&mut self) {
        let Self(Count(count)) = self;
        count.now.fetch_sub(1, Ordering::Relaxed);
    }
}

impl fmt::Debug for Host {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Host").field("interface", &self.interface).finish_non_exhaustive()
    }
}

/// Whether an address can be somebody's beyond this host.
pub fn is_elsewhere(address: IpAddr) -> bool {
    let address = address.to_canonical();
    let is_broadcast = matches!(address, IpAddr::V4(v4) if v4.is_broadcast());
    !(address.is_loopback() || address.is_unspecified() || address.is_multicast() || is_broadcast)
}

impl Way {
    /// Whether what is sent to `address` gets into the tunnel, as far as can be told before.
    pub fn leads_to(&self, address: IpAddr) -> bool {
        let address = address.to_canonical();
        match self {
            Self::Host(host) => host.leads_to(address),
            Self::Gate(gate) => is_elsewhere(address) && gate.leads_to(address),
        }
    }

    /// Opens a connection to `to`. Dropping what is returned ends it.
    ///
    /// # Errors
    /// It could not be opened.
    pub async fn connect(&self, to: SocketAddr) -> Result<Opened, Unreached> {
        let to = SocketAddr::new(to.ip().to_canonical(), to.port());
        match self {
            Self::Host(host) => host.connect(to).await.map(Opened::Host),
            Self::Gate(_) if !is_elsewhere(to.ip()) => Err(Unreached::NoPeer),
            Self::Gate(gate) => gate.connect(to).await.map(Opened::Gate),
        }
    }

    /// A socket for datagrams inside the tunnel.
    ///
    /// # Errors
    /// [`Unreached::TooMany`], [`Unreached::Ending`]
    pub fn bind(&self) -> Result<Datagrams, Unreached> {
        match self {
            Self::Host(host) => host.bind().map(Datagrams::Host),
            Self::Gate(gate) => gate.bind().map(Datagrams::Gate),
        }
    }
}

impl Host {
    fn judge(&self, address: IpAddr) -> Result<(), Unreached> {
        if (self.leads_to)(address) { Ok(()) } else { Err(Unreached::NoPeer) }
    }

    /// Without an address of the interface's, the kernel would take one of another for IPv6.
    fn leads_to(&self, address: IpAddr) -> bool {
        let has_source = || self.interface.as_deref().is_none_or(has_ipv6);
        self.judge(address).is_ok() && (address.is_ipv4() || has_source())
    }

    async fn connect(&self, to: SocketAddr) -> Result<Pin<HostStream>, Unreached> {
        self.judge(to.ip())?;
        self.count.admit()?;
        let counted = self.count.one_more();
        let socket = if to.is_ipv4() { TcpSocket::new_v4() } else { TcpSocket::new_v6() };
        let socket = socket.map_err(|error| unreached(&error))?;
        if let Some(interface) = &self.interface {
            let bound = bind_to_interface(socket.as_fd(), interface);
            bound.map_err(|error| unreached(&error.source))?;
        }
        set_tcp_options(socket.as_fd()).map_err(|error| unreached(&error.source))?;
        let connected = timeout(CONNECT, socket.connect(to)).await;
        let connected = connected.map_err(|_| Unreached::TimedOut)?;
        let stream = connected.map_err(|error| unreached(&error))?;
        Ok(Pin::new(HostStream { stream, _counted: counted }))
    }

    fn bind(&self) -> Result<HostUdp, Unreached> {
        self.count.admit()?;
        let open = |address: IpAddr| {
            let socket = std::net::UdpSocket::bind((address, 0))?;
            if let Some(interface) = &self.interface {
                bind_to_interface(socket.as_fd(), interface).map_err(|error| error.source)?;
            }
            socket.set_nonblocking(true)?;
            let out = socket.try_clone()?;
            Ok::<_, io::Error>(Socket { out, socket: UdpSocket::from_std(socket)? })
        };
        let v4 = open(Ipv4Addr::UNSPECIFIED.into()).map_err(|_| Unreached::TooMany)?;
        // A host without IPv6 has none.
        let v6 = open(Ipv6Addr::UNSPECIFIED.into()).ok();
        Ok(HostUdp { host: self.clone(), v4, v6 })
    }
}

fn unreached(error: &io::Error) -> Unreached {
    match error.kind() {
        ErrorKind::ConnectionRefused | ErrorKind::ConnectionReset => Unreached::Refused,
        ErrorKind::HostUnreachable => Unreached::HostUnreachable,
        ErrorKind::TimedOut => Unreached::TimedOut,
        ErrorKind::PermissionDenied => Unreached::Prohibited,
        _ if error.raw_os_error() == Some(libc::EMFILE) => Unreached::TooMany,
        _ => Unreached::NetworkUnreachable,
    }
}

/// A connection of a client on this host.
pub trait Client: AsyncRead + AsyncWrite + Unpin + Send + 'static {
    /// The descriptor alone, non-blocking.
    ///
    /// # Errors
    /// None that is known.
    fn into_fd(self) -> io::Result<OwnedFd>;

    /// Has the connection end by a reset when it is dropped: what was said was not all.
    fn cut(&self);
}

impl Client for TcpStream {
    fn into_fd(self) -> io::Result<OwnedFd> {
        self.into_std().map(Into::into)
    }

    fn cut(&self) {
        // Failing, it ends in the other way.
        drop(self.set_zero_linger());
    }
}

impl Client for UnixStream {
    fn into_fd(self) -> io::Result<OwnedFd> {
        self.into_std().map(Into::into)
    }

    /// These know only ends.
    fn cut(&self) {}
}

/// A client that is cut unless all was said to it, also where the program ends in the middle.
#[derive(Debug)]
pub struct Listening<C: Client> {
    pub client: C,
    pub has_heard_all: bool,
}

impl<C: Client> Listening<C> {
    pub const fn new(client: C) -> Self {
        Self { client, has_heard_all: false }
    }
}

impl<C: Client> Drop for Listening<C> {
    fn drop(&mut self) {
        if !self.has_heard_all {
            self.client.cut();
        }
    }
}

/// A connection through the tunnel whose other end has answered.
#[derive(Debug)]
pub enum Opened {
    Host(Pin<HostStream>),
    Gate(gate::Opened),
}

/// A connection by a socket of this host, which counts. Pinned, it is read and written as what it is of.
#[derive(Debug)]
pub struct HostStream {
    stream: TcpStream,
    _counted: Counted,
}

impl Deref for HostStream {
    type Target = TcpStream;

    fn deref(&self) -> &TcpStream {
        &self.stream
    }
}

impl DerefMut for HostStream {
    fn deref_mut(&mut self) -> &mut TcpStream {
        &mut self.stream
    }
}

/// Both directions of a connection, whatever it is.
pub trait Duplex: AsyncRead + AsyncWrite + Unpin + Send {}

impl<T: AsyncRead + AsyncWrite + Unpin + Send> Duplex for T {}

impl Opened {
    /// Moves bytes between the two until both have ended, beginning with `already`, which `client` has
    /// said before. Each direction ends by itself; a reset of one side is one of the other.
    pub async fn carry(self, client: impl Client, already: Vec<u8>) {
        match self {
            Self::Gate(opened) => {
                if let Ok(fd) = client.into_fd() {
                    opened.carry(fd, already);
                }
            }
            Self::Host(mut stream) => {
                let mut listening = Listening::new(client);
                let both_end = async {
                    stream.write_all(&already).await?;
                    copy_bidirectional(&mut listening.client, &mut stream).await
                };
                listening.has_heard_all = both_end.await.is_ok();
                if !listening.has_heard_all {
                    drop(stream.set_zero_linger());
                }
            }
        }
    }

    /// The connection itself, for who has something to say by himself. Reading tells a reset from an
    /// end.
    ///
    /// # Errors
    /// No descriptor is left.
    pub fn into_stream(self) -> io::Result<Box<dyn Duplex>> {
        match self {
            Self::Host(stream) => Ok(Box::new(stream)),
            Self::Gate(opened) => {
                let (own, given) = UnixStream::pair()?;
                opened.carry(given.into_fd()?, Vec::new());
                Ok(Box::new(Carried::of(own)))
            }
        }
    }
}

/// What is read of a pair of which the flow engine has the other end, which it closes only when both
/// directions have ended, or by a reset.
#[derive(Debug)]
struct Carried(OwnedReadHalf);

impl Carried {
    fn of(own: UnixStream) -> Join<Self, OwnedWriteHalf> {
        let (reads, writes) = own.into_split();
        join(Self(reads), writes)
    }
}

impl AsyncRead for Carried {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        ready!(Pin::new(&mut self.0).poll_read(context, buffer))?;
        if buffer.filled().len() == before && is_abandoned(self.0.as_ref().as_fd()) {
            return Poll::Ready(Err(ErrorKind::ConnectionReset.into()));
        }
        Poll::Ready(Ok(()))
    }
}

/// A socket for datagrams inside the tunnel.
#[derive(Debug)]
pub enum Datagrams {
    Host(HostUdp),
    Gate(InnerUdp),
}

/// One of each family.
#[derive(Debug)]
pub struct HostUdp {
    host: Host,
    v4: Socket,
    v6: Option<Socket>,
}

#[derive(Debug)]
struct Socket {
    socket: UdpSocket,
    /// The same socket: the runtime sends nothing before it has found out that there is room.
    out: std::net::UdpSocket,
}

impl Datagrams {
    /// Sends `payload`, or drops it where there is no way or no room.
    pub fn send_to(&self, payload: &[u8], to: SocketAddr) {
        let to = SocketAddr::new(to.ip().to_canonical(), to.port());
        match self {
            Self::Gate(inner) if is_elsewhere(to.ip()) => inner.send_to(payload, to),
            Self::Host(sockets) if sockets.host.judge(to.ip()).is_ok() => {
                let v4 = Some(&sockets.v4).filter(|_| to.is_ipv4());
                if let Some(socket) = v4.or(sockets.v6.as_ref()) {
                    // As on any network.
                    drop(socket.out.send_to(payload, to));
                }
            }
            Self::Gate(_) | Self::Host(_) => {}
        }
    }

    /// The next datagram; `None` when the tunnel is gone.
    pub async fn recv(&mut self) -> Option<(Vec<u8>, SocketAddr)> {
        let sockets = match self {
            Self::Gate(inner) => return inner.recv().await,
            Self::Host(sockets) => sockets,
        };
        let (mut four, mut six) = (vec![0; DATAGRAM_BYTES], Vec::new());
        loop {
            let from_v6 = async {
                match &sockets.v6 {
                    Some(v6) => {
                        six.resize(DATAGRAM_BYTES, 0);
                        v6.socket.recv_from(&mut six).await
                    }
                    None => std::future::pending().await,
                }
            };
            let (received, is_v4) = tokio::select! {
                received = sockets.v4.socket.recv_from(&mut four) => (received, true),
                received = from_v6 => (received, false),
            };
            // An error of the network's about what was sent before.
            let Ok((length, from)) = received else { continue };
            let mut payload = if is_v4 { four } else { six };
            payload.truncate(length);
            return Some((payload, from));
        }
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::AsyncReadExt;

    use super::super::tests::run;
    use super::*;

    #[test]
    fn an_engine_that_lets_go_of_its_end_has_not_said_all() {
        run(async {
            let pair = || UnixStream::pair().map(|(own, given)| (Carried::of(own), given)).unwrap();
            let (mut own, mut given) = pair();
            given.write_all(b"all").await.unwrap();
            given.shutdown().await.unwrap();
            let mut heard = Vec::new();
            own.read_to_end(&mut heard).await.unwrap();
            assert_eq!(heard, b"all");
            let (mut own, mut given) = pair();
            given.write_all(b"half").await.unwrap();
            drop(given);
            let error = own.read_to_end(&mut heard).await.unwrap_err();
            assert_eq!((error.kind(), &*heard), (ErrorKind::ConnectionReset, &b"allhalf"[..]));
        });
    }
}
