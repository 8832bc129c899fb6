//! What speaks with programs of this host for the tunnel: `Forward`, `Socks5`, `HttpProxy`, `Proxy`,
//! and `hybridwg nc`.
//!
//! - [`way`]: how it gets into the tunnel; [`names`]: to whom; `dns`: what name servers say.
//! - `talk`, `socks`, `associate`, `http`: what clients say. `forward`: those who need not say anything.
//! - `set`: the step that has it begin; [`text`]: how that is said.
//!
//! Nothing here leads past the tunnel: what no peer has is refused. Everything is bounded: clients that
//! have not said yet what they want, in number and in time, so that they are in nobody else's way; all
//! others in number.

mod associate;
pub mod dns;
mod forward;
pub mod http;
pub mod names;
mod set;
pub mod socks;
mod talk;
pub mod text;
pub mod way;

#[cfg(test)]
mod tests;

use std::collections::{HashMap, VecDeque};
use std::fs;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::FileTypeExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use arc_swap::ArcSwap;
use tokio::net::{TcpListener, UdpSocket, UnixListener};
use tokio::sync::Semaphore;
use tokio::task::{AbortHandle, JoinHandle};
use tracing::debug;

use self::names::{Names, Resolving};
pub use self::set::SetServing;
use self::talk::{End, Talk};
use self::way::{Client, Count, Way};
use crate::control::ends::{Forward, Listen, Login, Protocol, Proxy, ProxyKind};
use crate::crypto::password::Password;
use crate::sys::listen;
use crate::sys::sockets::{Stream, set_tcp_options};

/// How long a client may take to say what it wants.
const HEAD_TIMEOUT: Duration = Duration::from_secs(10);

/// Clients of one listener that have not said yet what they want. The next one ends the oldest: nobody
/// keeps others out by saying nothing.
const UNHEARD: usize = 512;

/// All clients that this thread works for. Those that the flow engine carries do not count.
const CLIENTS: usize = 8192;

/// After an error of accept: for want of descriptors, the open connections need time to end.
const PAUSE: Duration = Duration::from_millis(100);

/// Everything that is to be listened for.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Serving {
    pub forwards: Vec<Forward>,
    /// With their passwords. One without has that of the listener that is there.
    pub proxies: Vec<Proxy>,
    pub resolving: Resolving,
}

/// What is asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Serve {
    /// These listeners and no others.
    Replace(Serving),
    /// Those before the last change, with the passwords that they had.
    Restore,
}

/// What cannot be listened for.
#[derive(Debug, thiserror::Error)]
#[error("cannot listen at {listen}: {source}")]
pub struct ServeError {
    pub listen: Listen,
    pub source: io::Error,
}

/// What a listener is for.
#[derive(Debug)]
enum Purpose {
    Forward(Forward),
    Proxy { kind: ProxyKind, login: Option<Arc<Credentials>> },
}

/// A name and a password, compared as one.
#[derive(Debug)]
struct Credentials {
    user: Password,
    password: Password,
}

/// Where a listener is.
type Spot = (Listen, Protocol);

/// The listeners of one device.
#[derive(Debug)]
pub struct Proxies {
    running: HashMap<Spot, Running>,
    names: Option<Arc<ArcSwap<Names>>>,
    /// What is connected by sockets of this host.
    pub count: Count,
    clients: Arc<Semaphore>,
    /// What is listened for, and what was before the last change; with all passwords.
    serving: Serving,
    former: Serving,
}

impl Default for Proxies {
    fn default() -> Self {
        let clients = Arc::new(Semaphore::new(CLIENTS));
        Self {
            running: HashMap::new(),
            names: None,
            count: Count::default(),
            clients,
            serving: Serving::default(),
            former: Serving::default(),
        }
    }
}

/// A listener. Connections that it has accepted outlive it.
#[derive(Debug)]
struct Running {
    purpose: Arc<ArcSwap<Purpose>>,
    task: JoinHandle<()>,
    post: Post,
}

/// What there is of a listener beside its task.
#[derive(Debug)]
enum Post {
    /// The task's socket, which may have to make room.
    Port(OwnedFd),
    Path(PathBuf),
}

impl Drop for Running {
    fn drop(&mut self) {
        self.task.abort();
        if let Post::Path(path) = &self.post {
            // Gone already, it is not in the way.
            drop(fs::remove_file(path));
        }
    }
}

impl Proxies {
    /// Listens for what `serving` says and nothing else, and leads into the tunnel by `way`. Listeners
    /// that stay are not touched, nor are connections. To be called within a runtime.
    ///
    /// # Errors
    /// The first place that cannot be had. Everything is then what it was.
    pub fn apply(&mut self, way: Way, mut serving: Serving) -> Result<(), ServeError> {
        let mut wanted = Vec::new();
        for forward in &serving.forwards {
            let spot = (forward.listen.clone(), forward.protocol);
            wanted.push((spot, Purpose::Forward(forward.clone())));
        }
        for Proxy { kind, listen, login, .. } in &mut serving.proxies {
            let login = login.as_mut().map(|login| self.credentials(listen, login)).transpose()?;
            let spot = (listen.clone(), Protocol::Tcp);
            wanted.push((spot, Purpose::Proxy { kind: *kind, login }));
        }
        let mut new = Vec::new();
        for (spot, _) in wanted.iter().filter(|(spot, _)| !self.running.contains_key(spot)) {
            let leaves = |it: &Spot| !wanted.iter().any(|(spot, _)| it == spot);
            let leaving = self.running.iter().filter(|(it, _)| leaves(it) && is_near(it, spot));
            let leaving: Vec<_> = leaving.filter_map(|(_, running)| running.socket()).collect();
            let socket = Socket::open(spot, &leaving);
            new.push(socket.map_err(|source| ServeError { listen: spot.0.clone(), source })?);
        }
        self.running.retain(|spot, _| wanted.iter().any(|(it, _)| it == spot));
        let names = self.names_for(way, serving.resolving.clone());
        let mut new = new.into_iter();
        for (spot, purpose) in wanted {
            match self.running.get(&spot) {
                Some(running) => running.purpose.store(Arc::new(purpose)),
                None => {
                    let Some(socket) = new.next() else { break };
                    let running = socket.start(purpose, &names, &self.clients);
                    self.running.insert(spot, running);
                }
            }
        }
        self.former = std::mem::replace(&mut self.serving, serving);
        Ok(())
    }

    /// Listens for what it did before the last change.
    ///
    /// # Errors
    /// As [`Self::apply`].
    pub fn restore(&mut self, way: Way) -> Result<(), ServeError> {
        self.apply(way, self.former.clone())
    }

    /// Whether anything is listened for.
    pub fn is_serving(&self) -> bool {
        !self.running.is_empty()
    }

    /// How clients get into the tunnel: as `apply` has said last, or by `way`, without names.
    pub fn names(&mut self, way: Way) -> Arc<Names> {
        match &self.names {
            Some(names) => names.load_full(),
            None => Arc::new(Names::new(way, Resolving::default())),
        }
    }

    /// What is remembered of names stays if the same servers are asked.
    fn names_for(&mut self, way: Way, resolving: Resolving) -> Arc<ArcSwap<Names>> {
        match &self.names {
            Some(names) => {
                if names.load().resolving != resolving {
                    names.store(Arc::new(Names::new(way, resolving)));
                }
                Arc::clone(names)
            }
            None => {
                let names = Arc::new(ArcSwap::from_pointee(Names::new(way, resolving)));
                self.names = Some(Arc::clone(&names));
                names
            }
        }
    }

    /// What clients at `listen` have to say. Without a password it is the one that is there.
    fn credentials(
        &self,
        listen: &Listen,
        login: &mut Login,
    ) -> Result<Arc<Credentials>, ServeError> {
        let kept = || {
            let mut proxies = self.serving.proxies.iter();
            proxies.find(|proxy| proxy.listen == *listen)?.login.as_ref()?.password.clone()
        };
        login.password = login.password.take().or_else(kept);
        let pair = Password::new(&login.user).zip(login.password.clone());
        let (user, password) = pair.ok_or_else(|| ServeError {
            listen: listen.clone(),
            source: io::ErrorKind::InvalidInput.into(),
        })?;
        Ok(Arc::new(Credentials { user, password }))
    }
}

impl Running {
    fn socket(&self) -> Option<BorrowedFd<'_>> {
        match &self.post {
            Post::Port(socket) => Some(socket.as_fd()),
            Post::Path(_) => None,
        }
    }
}

/// Whether two places have one port, which they could be in each other's way at.
fn is_near((one, protocol): &Spot, (other, others): &Spot) -> bool {
    let port = |listen: &Listen| match listen {
        Listen::Address(address) => Some(address.port()),
        Listen::Unix(_) => None,
    };
    protocol == others && port(one).is_some() && port(one) == port(other)
}

/// A listener that does not listen yet.
enum Socket {
    Tcp(TcpListener, OwnedFd),
    Unix(UnixListener, PathBuf),
    Udp(UdpSocket, OwnedFd),
}

impl Socket {
    fn open((listen, protocol): &Spot, leaving: &[BorrowedFd<'_>]) -> io::Result<Self> {
        let address = match listen {
            Listen::Unix(path) => {
                let listener = open_path(path)?;
                listener.set_nonblocking(true)?;
                return Ok(Self::Unix(UnixListener::from_std(listener)?, path.clone()));
            }
            Listen::Address(address) => *address,
        };
        let open = |address: SocketAddr| -> io::Result<Self> {
            match protocol {
                Protocol::Tcp => {
                    let listener = listen::tcp(address, leaving).map_err(|error| error.source)?;
                    let socket = listener.as_fd().try_clone_to_owned()?;
                    Ok(Self::Tcp(TcpListener::from_std(listener)?, socket))
                }
                Protocol::Udp => {
                    let udp = listen::udp(address, leaving).map_err(|error| error.source)?;
                    let socket = udp.as_fd().try_clone_to_owned()?;
                    Ok(Self::Udp(UdpSocket::from_std(udp)?, socket))
                }
            }
        };
        let outcome = open(address);
        // All addresses of a host without IPv6 are those of IPv4.
        let is_any = address.ip() == IpAddr::V6(Ipv6Addr::UNSPECIFIED);
        let has_no_family = |error: &io::Error| {
            matches!(error.raw_os_error(), Some(libc::EAFNOSUPPORT | libc::EADDRNOTAVAIL))
        };
        if is_any && outcome.as_ref().err().is_some_and(has_no_family) {
            return open((Ipv4Addr::UNSPECIFIED, address.port()).into());
        }
        outcome
    }

    fn start(
        self,
        purpose: Purpose,
        names: &Arc<ArcSwap<Names>>,
        clients: &Arc<Semaphore>,
    ) -> Running {
        let purpose = Arc::new(ArcSwap::from_pointee(purpose));
        let hall = Hall {
            purpose: Arc::clone(&purpose),
            names: Arc::clone(names),
            clients: Arc::clone(clients),
            unheard: VecDeque::new(),
        };
        let (task, post) = match self {
            Self::Udp(udp, socket) => {
                let task = forward::datagrams(udp, hall.purpose, hall.names);
                (tokio::spawn(task), Post::Port(socket))
            }
            Self::Tcp(listener, socket) => {
                (tokio::spawn(hall.greet_tcp(listener)), Post::Port(socket))
            }
            Self::Unix(listener, path) => {
                (tokio::spawn(hall.greet_unix(listener)), Post::Path(path))
            }
        };
        Running { purpose, task, post }
    }
}

/// A socket that nobody listens at any more is one that somebody has left behind.
fn open_path(path: &Path) -> io::Result<std::os::unix::net::UnixListener> {
    let is_socket = fs::symlink_metadata(path).is_ok_and(|it| it.file_type().is_socket());
    // Of somebody who listens and is busy it is told as well, at once.
    let is_left = || Stream::connect_to_path(path).is_err_and(|error| error.is_refused());
    if is_socket && is_left() {
        fs::remove_file(path)?;
    }
    std::os::unix::net::UnixListener::bind(path)
}

/// Where clients of one listener come in.
struct Hall {
    purpose: Arc<ArcSwap<Purpose>>,
    names: Arc<ArcSwap<Names>>,
    clients: Arc<Semaphore>,
    /// Those who had not said what they want when one was let in, the oldest first.
    unheard: VecDeque<(Arc<AtomicBool>, AbortHandle)>,
}

impl Hall {
    async fn greet_tcp(mut self, listener: TcpListener) {
        loop {
            match listener.accept().await {
                Ok((stream, client)) => {
                    // Refused, the client has gone already.
                    drop(set_tcp_options(stream.as_fd()));
                    let addresses = stream.local_addr().ok().map(|own| (own, client));
                    self.receive(stream, addresses);
                }
                Err(error) => wait(&error).await,
            }
        }
    }

    async fn greet_unix(mut self, listener: UnixListener) {
        loop {
            match listener.accept().await {
                Ok((stream, _)) => self.receive(stream, None),
                Err(error) => wait(&error).await,
            }
        }
    }

    /// Too many are sent away at once.
    fn receive(&mut self, stream: impl Client, addresses: Option<(SocketAddr, SocketAddr)>) {
        let Ok(counted) = Arc::clone(&self.clients).try_acquire_owned() else {
            return debug!("a client was sent away: there are too many");
        };
        let names = self.names.load_full();
        match &**self.purpose.load() {
            Purpose::Forward(Forward { to, .. }) => {
                let to = to.clone();
                tokio::spawn(async move {
                    let _counted = counted;
                    forward::serve(stream, &names, &to).await;
                });
            }
            Purpose::Proxy { kind, login } => {
                let is_heard = Arc::new(AtomicBool::new(false));
                let heard = Arc::clone(&is_heard);
                let (kind, guest) =
                    (*kind, Guest { names, login: login.clone(), addresses, heard });
                let task = tokio::spawn(async move {
                    let _counted = counted;
                    if let Err(end) = serve(kind, stream, guest).await {
                        debug!(%end, "a client of a proxy is not listened to any further");
                    }
                });
                self.wait_to_hear(is_heard, task.abort_handle());
            }
        }
    }

    fn wait_to_hear(&mut self, is_heard: Arc<AtomicBool>, client: AbortHandle) {
        self.unheard.retain(|(is_heard, client)| {
            !is_heard.load(Ordering::Relaxed) && !client.is_finished()
        });
        if self.unheard.len() == UNHEARD
            && let Some((_, oldest)) = self.unheard.pop_front()
        {
            oldest.abort();
        }
        self.unheard.push_back((is_heard, client));
    }
}

async fn wait(error: &io::Error) {
    debug!(%error, "cannot accept a client");
    tokio::time::sleep(PAUSE).await;
}

async fn serve(kind: ProxyKind, stream: impl Client, guest: Guest) -> Result<(), End> {
    let mut talk = Talk::new(stream);
    let is_socks = match kind {
        ProxyKind::Socks5 => true,
        ProxyKind::Http => false,
        ProxyKind::Both => {
            let first = tokio::time::timeout(HEAD_TIMEOUT, talk.first()).await;
            first.map_err(|_| End::Nonsense)?? == socks::VERSION
        }
    };
    if is_socks { socks::serve(talk, guest).await } else { http::serve(talk, guest).await }
}

/// A client that was let into the hall.
#[derive(Clone, Debug)]
struct Guest {
    names: Arc<Names>,
    login: Option<Arc<Credentials>>,
    /// Ours and its own, unless it came by a Unix socket.
    addresses: Option<(SocketAddr, SocketAddr)>,
    /// Whether it has said what it wants. Ordering: relaxed, nothing else hangs on it.
    heard: Arc<AtomicBool>,
}

impl Guest {
    /// It has said what it wants: it makes way for nobody any more.
    fn is_heard(&self) {
        self.heard.store(true, Ordering::Relaxed);
    }

    /// In a time that does not tell which of the two was wrong.
    fn lets_in(&self, user: &[u8], password: &[u8]) -> bool {
        let Some(login) = &self.login else { return true };
        login.user.is(user) & login.password.is(password)
    }
}
