//! Ends of the tunnel on this host beside, or in place of, its interface: services that peers reach
//! (`Expose`), and listeners that lead into the tunnel (`Forward`, `Socks5`, `HttpProxy`, `Proxy`).
//!
//! Plain data with its text, which the configuration file, the command line ([`ssh`]) and the UAPI
//! socket share: what is printed is read again as the same. Nothing here opens a socket.

pub mod ssh;

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::{Path, PathBuf};

use ipnet::IpNet;

use crate::control::config::{KeySource, parse_endpoint, parse_network};
use crate::crypto::password::Password;
/// A host, by address or by name, and a port.
pub use crate::proto::places::Place as HostPort;

/// What `Expose` takes, in words for the user.
pub const EXPOSE: &str = "PORT[/udp] HOST:PORT or PORT unix:/PATH, and after it from=NETWORK,…, \
                          source=ADDRESS, proxy=v2";

/// What `Forward` takes.
pub const FORWARD: &str =
    "ADDRESS:PORT[/udp] HOST:PORT or unix:/PATH HOST:PORT, and after it idle=SECONDS for udp";

/// What `Socks5`, `HttpProxy` and `Proxy` take.
pub const PROXY: &str = "ADDRESS:PORT or unix:/PATH, and after it user=NAME with passfile=PATH or \
                         password=WORD, or open=yes";

/// What stands between the tunnel and this host.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Mode {
    /// An interface if this process may make one, else none.
    #[default]
    Auto,
    /// An interface.
    Tun,
    /// No interface: the addresses of the tunnel are this program's own, and nobody else's.
    Rootless,
}

impl Mode {
    pub const ALL: [Self; 3] = [Self::Auto, Self::Tun, Self::Rootless];

    pub const fn name(self) -> &'static str {
        match self {
            Self::Auto => "auto",
            Self::Tun => "tun",
            Self::Rootless => "rootless",
        }
    }
}

/// Who is asked for the addresses of names that clients want to reach.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ResolveVia {
    /// The name servers of the file, through the tunnel.
    #[default]
    Tunnel,
    /// The resolver of this host.
    System,
}

impl ResolveVia {
    pub const ALL: [Self; 2] = [Self::Tunnel, Self::System];

    pub const fn name(self) -> &'static str {
        match self {
            Self::Tunnel => "tunnel",
            Self::System => "system",
        }
    }
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Protocol {
    #[default]
    Tcp,
    Udp,
}

impl Protocol {
    /// Behind a port; TCP goes without saying.
    const fn suffix(self) -> &'static str {
        match self {
            Self::Tcp => "",
            Self::Udp => "/udp",
        }
    }

    /// A word, and what the protocol behind it is. A path has none.
    fn behind(word: &str) -> Option<(&str, Self)> {
        if word.starts_with("unix:") {
            return Some((word, Self::Tcp));
        }
        match word.rsplit_once('/') {
            Some((word, "tcp")) => Some((word, Self::Tcp)),
            Some((word, "udp")) => Some((word, Self::Udp)),
            Some(_) => None,
            None => Some((word, Self::Tcp)),
        }
    }
}

/// A port of the tunnel's addresses, and the service that peers find there: of several entries for a port
/// the first that is for them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Expose {
    /// Not 0.
    pub port: u16,
    pub protocol: Protocol,
    pub target: Target,
    /// Who gets it, host bits zero; empty: every peer.
    pub from: Vec<IpNet>,
    /// The address of this host from which the service is called.
    pub source: Option<IpAddr>,
    /// The service is told who calls, by version 2 of the PROXY protocol. Only over TCP.
    pub proxy_v2: bool,
}

/// Where a service is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Target {
    At(HostPort),
    /// A Unix stream socket.
    Unix(PathBuf),
}

impl Target {
    /// Whether it is on this host, where callers are often let in without a question.
    pub fn is_local(&self) -> bool {
        match self {
            Self::At(HostPort::Address(address)) => address.ip().to_canonical().is_loopback(),
            Self::At(HostPort::Name { .. }) => false,
            Self::Unix(_) => true,
        }
    }
}

/// A listener on this host, and where in the tunnel it leads.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Forward {
    pub listen: Listen,
    pub protocol: Protocol,
    pub to: HostPort,
    /// Over UDP: for how many seconds a client that is silent, and is sent nothing, is remembered.
    pub idle: Option<u32>,
}

/// Where something listens on this host.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Listen {
    /// The port is not 0.
    Address(SocketAddr),
    /// A Unix stream socket.
    Unix(PathBuf),
}

impl Listen {
    /// Whether other hosts may reach it.
    pub fn is_public(&self) -> bool {
        match self {
            Self::Address(address) => !address.ip().to_canonical().is_loopback(),
            Self::Unix(_) => false,
        }
    }
}

/// A listener that leads wherever its clients ask for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Proxy {
    pub kind: ProxyKind,
    pub listen: Listen,
    /// Who is let in; `None`: everybody who reaches it.
    pub login: Option<Login>,
    /// That everybody is let in is known.
    pub open: bool,
}

impl Proxy {
    /// Whether other hosts get in without a word, and nobody has said that they may.
    pub fn is_left_open(&self) -> bool {
        self.listen.is_public() && self.login.is_none() && !self.open
    }
}

/// What a proxy speaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ProxyKind {
    Socks5,
    Http,
    /// Either, by the first byte of a client.
    Both,
}

impl ProxyKind {
    pub const ALL: [Self; 3] = [Self::Socks5, Self::Http, Self::Both];

    pub const fn name(self) -> &'static str {
        match self {
            Self::Socks5 => "socks5",
            Self::Http => "http",
            Self::Both => "both",
        }
    }
}

/// A name and its password.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Login {
    /// 1 to 255 bytes, without white space and colons.
    pub user: String,
    /// Where the password is, if it does not stand in the file; `fetch_keys` puts it below.
    pub passfile: Option<KeySource>,
    pub password: Option<Password>,
}

/// Why a text is none of these.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refused {
    /// The word at fault; `None` if it may be a password.
    pub word: Option<String>,
    /// In its place.
    pub accepted: &'static str,
}

impl Refused {
    fn new(word: &str, accepted: &'static str) -> Self {
        Self { word: Some(word.to_owned()), accepted }
    }
}

const PORT: &str = "a port from 1 to 65535, and /udp behind it if it is one of UDP";
const TARGET: &str = "HOST:PORT, where an IPv6 address stands in brackets, or unix:/PATH";
pub(super) const HOST_PORT: &str = "HOST:PORT, where an IPv6 address stands in brackets";
pub(super) const LISTEN: &str =
    "ADDRESS:PORT, localhost:PORT, *:PORT for all addresses, or unix:/PATH";
const NETWORKS: &str = "networks as ADDRESS/LENGTH, separated by commas";
const SOURCE: &str = "an address of this host, in 127.0.0.0/8 where the target is on this host, and \
                      none beside a Unix socket";
const ONLY_TCP: &str = "no Unix socket and no proxy=v2 over UDP";
pub(super) const USER: &str =
    "user=NAME, where NAME has 1 to 255 bytes and neither spaces nor colons";
pub(super) const PASSWORD: &str =
    "a password of 1 to 255 bytes; one with spaces stands in a passfile";
const PASSFILE: &str = "passfile=PATH: a path (after `any-mode:` if others may read the file), credential:NAME or \
                        env:NAME";
const BOTH: &str = "user= and one of passfile= and password= together";
const IDLE: &str = "idle=SECONDS, from 1 to 86400, over UDP";

impl Expose {
    /// # Errors
    /// The first word at fault.
    pub fn parse(text: &str) -> Result<Self, Refused> {
        let mut words = text.split_whitespace();
        let (service, target) = (words.next().unwrap_or(""), words.next().unwrap_or(""));
        let no_port = || Refused::new(service, PORT);
        let (port, protocol) = Protocol::behind(service).ok_or_else(no_port)?;
        let port = parse_port(port).ok_or_else(no_port)?;
        let no_target = || Refused::new(target, TARGET);
        let target = parse_target(target).ok_or_else(no_target)?;
        let mut this = Self { port, protocol, target, from: vec![], source: None, proxy_v2: false };
        for word in words {
            match word.split_once('=') {
                Some(("from", networks)) => {
                    for network in networks.split(',') {
                        let read = parse_network(network);
                        let read = read.ok_or_else(|| Refused::new(network, NETWORKS))?;
                        this.from.push(read.trunc());
                    }
                }
                Some(("source", address)) => {
                    let read = address.parse::<IpAddr>();
                    this.source = Some(read.map_err(|_| Refused::new(address, SOURCE))?);
                }
                Some(("proxy", "v2")) => this.proxy_v2 = true,
                Some(_) | None => return Err(Refused::new(word, EXPOSE)),
            }
        }
        this.judge()
    }

    /// Whether everybody whom `later` is for finds this one first.
    pub fn leaves_nobody_to(&self, later: &Self) -> bool {
        let is_for = |net: &IpNet| self.from.iter().any(|own| own.contains(net));
        let is_for_all =
            self.from.is_empty() || (!later.from.is_empty() && later.from.iter().all(is_for));
        (self.port, self.protocol) == (later.port, later.protocol) && is_for_all
    }

    /// What fits word by word must fit together.
    fn judge(self) -> Result<Self, Refused> {
        let is_udp = self.protocol == Protocol::Udp;
        if is_udp && (matches!(self.target, Target::Unix(_)) || self.proxy_v2) {
            return Err(Refused::new(&self.target.to_string(), ONLY_TCP));
        }
        if let Some(source) = self.source {
            let fits = match &self.target {
                Target::Unix(_) => false,
                // Nothing leaves a host from an address that only it has.
                Target::At(HostPort::Address(target)) => {
                    source.is_ipv4() == target.is_ipv4()
                        && source.is_loopback() == target.ip().is_loopback()
                }
                Target::At(HostPort::Name { .. }) => !source.is_loopback(),
            };
            if !fits {
                return Err(Refused::new(&source.to_string(), SOURCE));
            }
        }
        Ok(self)
    }
}

impl Forward {
    /// # Errors
    /// The first word at fault.
    pub fn parse(text: &str) -> Result<Self, Refused> {
        let mut words = text.split_whitespace();
        let (listen, to) = (words.next().unwrap_or(""), words.next().unwrap_or(""));
        let no_listener = || Refused::new(listen, LISTEN);
        let (listen, protocol) = Protocol::behind(listen).ok_or_else(no_listener)?;
        let listen = Listen::parse(listen).ok_or_else(no_listener)?;
        let to = parse_host_port(to).ok_or_else(|| Refused::new(to, HOST_PORT))?;
        let mut this = Self { listen, protocol, to, idle: None };
        for word in words {
            let seconds = word.strip_prefix("idle=").ok_or_else(|| Refused::new(word, FORWARD))?;
            let seconds = parse_number(seconds).filter(|it| (1..=86_400).contains(it));
            let is_udp = protocol == Protocol::Udp;
            this.idle = Some(seconds.filter(|_| is_udp).ok_or_else(|| Refused::new(word, IDLE))?);
        }
        Ok(this)
    }
}

impl Listen {
    /// `None` if it is no place to listen at.
    pub fn parse(word: &str) -> Option<Self> {
        if let Some(path) = word.strip_prefix("unix:") {
            return parse_path(path).map(Self::Unix);
        }
        let (host, port) = word.rsplit_once(':')?;
        let port = parse_port(port)?;
        let address = match host.strip_prefix('[').and_then(|host| host.strip_suffix(']')) {
            Some(inside) => IpAddr::V6(inside.parse().ok()?),
            // Both families.
            None if matches!(host, "*" | "") => Ipv6Addr::UNSPECIFIED.into(),
            None => match parse_localhost(host) {
                Some(address) => address,
                None => IpAddr::V4(host.parse().ok()?),
            },
        };
        Some(Self::Address(SocketAddr::new(address, port)))
    }
}

impl Proxy {
    /// # Errors
    /// The first word at fault. One that may be a password is not repeated.
    pub fn parse(kind: ProxyKind, text: &str) -> Result<Self, Refused> {
        let mut words = text.split_whitespace();
        let listen = words.next().unwrap_or("");
        let listen = Listen::parse(listen).ok_or_else(|| Refused::new(listen, LISTEN))?;
        let (mut user, mut passfile, mut password, mut open) = (None, None, None, false);
        for word in words {
            match word.split_once('=') {
                Some(("user", name)) => {
                    user = Some(parse_user(name).ok_or_else(|| Refused::new(word, USER))?);
                }
                Some(("passfile", source)) => {
                    let read = KeySource::parse(source);
                    passfile = Some(read.ok_or(Refused { word: None, accepted: PASSFILE })?);
                }
                Some(("password", text)) => {
                    let read = Password::new(text);
                    password = Some(read.ok_or(Refused { word: None, accepted: PASSWORD })?);
                }
                Some(("open", "yes")) => open = true,
                Some((name, _)) if is_name(name) => return Err(Refused::new(name, PROXY)),
                Some(_) | None => return Err(Refused { word: None, accepted: PROXY }),
            }
        }
        let login = match (user, passfile.is_some() != password.is_some()) {
            (Some(user), true) => Some(Login { user, passfile, password }),
            (None, false) if passfile.is_none() => None,
            (Some(user), false) => return Err(Refused::new(&format!("user={user}"), BOTH)),
            (None, _) => return Err(Refused { word: None, accepted: BOTH }),
        };
        Ok(Self { kind, listen, login, open })
    }
}

/// What could be the name of an option.
fn is_name(word: &str) -> bool {
    (1..=12).contains(&word.len()) && word.bytes().all(|b| b.is_ascii_alphabetic())
}

/// The name of a user, if `text` can be one.
pub fn parse_user(text: &str) -> Option<String> {
    let fits = (1..=255).contains(&text.len())
        && !text.chars().any(|c| c == ':' || c.is_whitespace() || c.is_control());
    fits.then(|| text.to_owned())
}

fn parse_number(text: &str) -> Option<u32> {
    text.bytes().all(|b| b.is_ascii_digit()).then(|| text.parse().ok())?
}

fn parse_port(text: &str) -> Option<u16> {
    parse_number(text).and_then(|port| u16::try_from(port).ok()).filter(|&port| port != 0)
}

fn parse_path(text: &str) -> Option<PathBuf> {
    /// A socket's address has no room for more. [LNX un.h:UNIX_PATH_MAX]
    const LONGEST: usize = 107;
    let fits = text.starts_with('/') && text.len() <= LONGEST && !text.ends_with('/');
    fits.then(|| text.into())
}

fn parse_target(text: &str) -> Option<Target> {
    if let Some(path) = text.strip_prefix("unix:") {
        return parse_path(path).map(Target::Unix);
    }
    let place = parse_host_port(text)?;
    let address = match &place {
        HostPort::Name { host, port } => parse_localhost(host).map(|it| SocketAddr::new(it, *port)),
        HostPort::Address(_) => None,
    };
    Some(Target::At(address.map_or(place, HostPort::Address)))
}

/// The address that a name of the loopback interface means everywhere: whoever writes it has written down
/// this host, and no name server has a say in it. [RFC 6761 §6.3]
///
/// Those for IPv6 are Debian's and Fedora's.
fn parse_localhost(name: &str) -> Option<IpAddr> {
    let is_any = |names: &[&str]| names.iter().any(|it| name.eq_ignore_ascii_case(it));
    if is_any(&["localhost"]) {
        return Some(Ipv4Addr::LOCALHOST.into());
    }
    is_any(&["ip6-localhost", "localhost6"]).then(|| Ipv6Addr::LOCALHOST.into())
}

/// `None` also for port 0 and for an address of one link, which no name server and no tunnel knows.
pub fn parse_host_port(text: &str) -> Option<HostPort> {
    let place = parse_endpoint(text)?;
    let (port, is_scoped) = match &place {
        HostPort::Address(address) => (address.port(), false),
        HostPort::Name { host, port } => (*port, host.contains('%')),
    };
    (port != 0 && !is_scoped).then_some(place)
}

fn write_path(f: &mut fmt::Formatter<'_>, path: &Path) -> fmt::Result {
    write!(f, "unix:{}", path.display())
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::At(place) => place.fmt(f),
            Self::Unix(path) => write_path(f, path),
        }
    }
}

impl fmt::Display for Listen {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Address(address) => address.fmt(f),
            Self::Unix(path) => write_path(f, path),
        }
    }
}

impl fmt::Display for Expose {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}{} {}", self.port, self.protocol.suffix(), self.target)?;
        if !self.from.is_empty() {
            let list: Vec<String> = self.from.iter().map(ToString::to_string).collect();
            write!(f, " from={}", list.join(","))?;
        }
        if let Some(source) = self.source {
            write!(f, " source={source}")?;
        }
        if self.proxy_v2 { f.write_str(" proxy=v2") } else { Ok(()) }
    }
}

impl fmt::Display for Forward {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}{} {}", self.listen, self.protocol.suffix(), self.to)?;
        self.idle.map_or(Ok(()), |seconds| write!(f, " idle={seconds}"))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn expose(text: &str) -> Result<String, String> {
        Expose::parse(text).map(|it| it.to_string()).map_err(told)
    }

    fn forward(text: &str) -> Result<String, String> {
        Forward::parse(text).map(|it| it.to_string()).map_err(told)
    }

    fn told(refused: Refused) -> String {
        refused.word.unwrap_or_else(|| "hidden".to_owned())
    }

    #[test]
    fn a_service_is_a_port_a_target_and_who_may_reach_it_how() {
        for (text, same) in [
            ("5432 127.0.0.1:5432", None),
            ("5432/tcp db.internal:5432", Some("5432 db.internal:5432")),
            ("53/udp [fd00::1]:53", None),
            ("5432 unix:/run/postgresql/.s.PGSQL.5432", None),
            (
                "5432   127.0.0.1:5432 proxy=v2 from=10.66.0.9/24,fd00::/64 from=10.7.0.1 source=127.77.0.1",
                Some(
                    "5432 127.0.0.1:5432 from=10.66.0.0/24,fd00::/64,10.7.0.1/32 source=127.77.0.1 proxy=v2",
                ),
            ),
            ("80 localhost:8080 source=127.1.2.3", Some("80 127.0.0.1:8080 source=127.1.2.3")),
            ("80/udp Ip6-LocalHost:8080", Some("80/udp [::1]:8080")),
            ("80 localhost.example:8080", None),
            ("80 192.0.2.1:8080 source=192.0.2.9", None),
        ] {
            assert_eq!(expose(text).as_deref(), Ok(same.unwrap_or(text)), "{text}");
        }
        for (text, word) in [
            ("", ""),
            ("0 127.0.0.1:1", "0"),
            ("80/sctp a:1", "80/sctp"),
            ("70000 a:1", "70000"),
            ("80", ""),
            ("80 a", "a"),
            ("80 a:0", "a:0"),
            ("80 unix:relative", "unix:relative"),
            ("80 a:1 from=10.0.0.0/33", "10.0.0.0/33"),
            ("80 a:1 fro=10.0.0.0/8", "fro=10.0.0.0/8"),
            ("80 a:1 proxy=v1", "proxy=v1"),
            ("80 a:1 source=127.0.0.2", "127.0.0.2"),
            ("80 127.0.0.1:1 source=192.0.2.1", "192.0.2.1"),
            ("80 unix:/s source=127.0.0.1", "127.0.0.1"),
            ("53/udp unix:/s", "unix:/s"),
            ("53/udp a:1 proxy=v2", "a:1"),
        ] {
            assert_eq!(expose(text), Err(word.to_owned()), "{text}");
        }
    }

    #[test]
    fn a_forward_is_a_listener_and_a_place_in_the_tunnel() {
        for (text, same) in [
            ("127.0.0.1:15432 10.66.0.1:5432", None),
            ("[::1]:53/udp [fd00::1]:53 idle=30", None),
            ("localhost:1 a.example:2", Some("127.0.0.1:1 a.example:2")),
            ("*:80 a:80", Some("[::]:80 a:80")),
            ("unix:/run/udp 10.66.0.1:5432", None),
        ] {
            assert_eq!(forward(text).as_deref(), Ok(same.unwrap_or(text)), "{text}");
        }
        for (text, word) in [
            ("", ""),
            ("5432 a:1", "5432"),
            ("10.0.0.1:0 a:1", "10.0.0.1:0"),
            ("example.org:1 a:1", "example.org:1"),
            ("127.0.0.1:1 unix:/s", "unix:/s"),
            ("127.0.0.1:1 a:1 idle=5", "idle=5"),
            ("127.0.0.1:1/udp a:1 idle=0", "idle=0"),
            ("127.0.0.1:1 a:1 b:2", "b:2"),
            ("127.0.0.1:1 [fe80::1%eth0]:2", "[fe80::1%eth0]:2"),
        ] {
            assert_eq!(forward(text), Err(word.to_owned()), "{text}");
        }
    }

    #[test]
    fn a_proxy_lets_in_who_it_is_told_to_and_never_repeats_a_password() {
        let parse = |text: &str| Proxy::parse(ProxyKind::Socks5, text);
        let proxy = parse("0.0.0.0:1080 user=ci password=sesame").unwrap();
        let login = proxy.login.clone().unwrap();
        assert_eq!(login.user, "ci");
        assert!(login.password.is_some_and(|password| password.is(b"sesame")));
        assert!(!proxy.is_left_open());
        let login = parse("*:1080 user=ci passfile=env:PW").unwrap().login.unwrap();
        assert_eq!(login.passfile, Some(KeySource::Environment("PW".to_owned())));
        assert!(parse("0.0.0.0:1080").unwrap().is_left_open());
        assert!(parse("[::ffff:10.0.0.1]:1080").unwrap().is_left_open());
        for fine in ["127.7.0.1:1", "[::1]:1", "[::ffff:127.0.0.1]:1", "unix:/s", "*:1 open=yes"] {
            assert!(!parse(fine).unwrap().is_left_open(), "{fine}");
        }
        let word = |text: &str| told(parse(text).unwrap_err());
        assert_eq!(word("nowhere"), "nowhere");
        assert_eq!(word("*:1 user=ci"), "user=ci");
        assert_eq!(word("*:1 user=ci password=a passfile=b"), "user=ci");
        assert_eq!(word("*:1 usr=ci password=sesame"), "usr");
        for hidden in ["password=sesame", "user=a password=b sesame", "sesame", "se!same=1"] {
            assert_eq!(word(&format!("*:1 {hidden}")), "hidden", "{hidden}");
        }
    }

    proptest! {
        #[test]
        fn whatever_is_read_is_printed_and_read_again_as_the_same(text in "[a-z0-9:/.= *\\[\\],]{0,60}") {
            if let Ok(read) = Expose::parse(&text) {
                prop_assert_eq!(Expose::parse(&read.to_string()), Ok(read));
            }
            if let Ok(read) = Forward::parse(&text) {
                prop_assert_eq!(Forward::parse(&read.to_string()), Ok(read));
            }
        }
    }
}
