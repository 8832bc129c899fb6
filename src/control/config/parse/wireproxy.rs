//! The sections of wireproxy's files, read as the keys of our own that say the same.
//!
//! What differs from a file of wg-quick(8): there is never an interface, a peer without `AllowedIPs`
//! gets everything, `$NAME` in the place of a secret names a variable, and `WGConfig` before the
//! first section names the file with `[Interface]` and `[Peer]`.

use std::path::PathBuf;

use zeroize::Zeroizing;

use super::super::lex::{Key, Line, lines};
use super::super::model::At;
use super::super::secret::KeySource;
use super::super::value::number_of;
use super::super::{BadKey, Problem, Read};
use super::{Parser, Place};
use crate::control::command::AllowedIpChange;
use crate::control::ends::{
    Expose, Forward, HOST_PORT, HostPort, LISTEN, Listen, Login, Mode, PASSWORD, Protocol, Proxy,
    ProxyKind, Refused, USER, parse_host_port, parse_user,
};
use crate::crypto::password::Password;

/// What a file shows of wireproxy.
#[derive(Default)]
pub(super) struct Wireproxy {
    /// Where its first section, or `WGConfig`, is.
    pub begins_at: Option<usize>,
    /// The variable that has the private key.
    variable: Option<At<KeySource>>,
    /// Lines with `CheckAlive` or `CheckAliveInterval`.
    check_alive: Vec<At<String>>,
}

/// A section.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Section {
    TcpClient,
    TcpServer,
    UdpProxy,
    Socks5,
    Http,
    Stdio,
    Resolve,
}

impl Section {
    const ALL: [Self; 7] = [
        Self::TcpClient,
        Self::TcpServer,
        Self::UdpProxy,
        Self::Socks5,
        Self::Http,
        Self::Stdio,
        Self::Resolve,
    ];

    const fn name(self) -> &'static str {
        match self {
            Self::TcpClient => "TCPClientTunnel",
            Self::TcpServer => "TCPServerTunnel",
            Self::UdpProxy => "UDPProxyTunnel",
            Self::Socks5 => "Socks5",
            Self::Http => "http",
            Self::Stdio => "STDIOTunnel",
            Self::Resolve => "Resolve",
        }
    }

    /// The section of that name, in any case.
    pub fn find(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|section| name.eq_ignore_ascii_case(section.name()))
    }

    /// What may stand in it.
    const fn keys(self) -> &'static [&'static str] {
        match self {
            Self::TcpClient => &["BindAddress", "Target"],
            Self::TcpServer => &["ListenPort", "Target"],
            Self::UdpProxy => &["BindAddress", "Target", "InactivityTimeout"],
            Self::Socks5 => &["BindAddress", "Username", "Password"],
            Self::Http => &["BindAddress", "Username", "Password", "CertFile", "KeyFile"],
            Self::Stdio => &["Target"],
            Self::Resolve => &["ResolveStrategy"],
        }
    }
}

/// A section that is being read.
pub(super) struct Foreign {
    section: Section,
    line: usize,
    /// One of them may be a password.
    pairs: Vec<(&'static str, At<Zeroizing<String>>)>,
}

impl Foreign {
    pub const fn new(section: Section, line: usize) -> Self {
        Self { section, line, pairs: Vec::new() }
    }

    fn get(&self, key: &str) -> Option<At<&str>> {
        let found = self.pairs.iter().rev().find(|(name, _)| *name == key);
        found.map(|(_, at)| At { line: at.line, value: at.value.as_str() })
    }
}

/// A line and what is wrong with it.
type Fault = (usize, Problem);

impl Parser {
    /// Takes a pair that only wireproxy would know, or that only it would read like this.
    pub(super) fn is_wireproxys(
        &mut self,
        line: usize,
        name: &str,
        value: &str,
        in_comment: bool,
    ) -> bool {
        let is = |key: &str| name.eq_ignore_ascii_case(key);
        match &mut self.place {
            Place::Foreign(_) if in_comment => self.fault(line, None, Problem::ForeignSection),
            Place::Foreign(foreign) => {
                let section = foreign.section;
                let Some(key) = section.keys().iter().find(|key| is(key)) else {
                    let (read, section, keys) = (Read::of(name), section.name(), section.keys());
                    self.fault(line, None, Problem::UnknownForeignKey { read, section, keys });
                    return true;
                };
                let value = Zeroizing::new(value.to_owned());
                foreign.pairs.push((key, At { line, value }));
            }
            Place::Nowhere if is_wg_config(name) && !in_comment => {
                self.wireproxy.begins_at.get_or_insert(line);
                self.config.wg_config = Some(At { line, value: value.into() });
            }
            Place::Interface if is("CheckAlive") || is("CheckAliveInterval") => {
                self.wireproxy.check_alive.push(At { line, value: name.to_owned() });
            }
            Place::Interface if is("PrivateKey") && variable(value).is_some() => {
                self.wireproxy.variable = variable(value).map(|value| At { line, value });
            }
            _ => return false,
        }
        true
    }

    pub(super) fn end_foreign(&mut self, foreign: Foreign) {
        let line = foreign.line;
        let is_literal = |key: &str, value: &str| {
            key == "Password" || !value.starts_with('$') || value.starts_with("$$")
        };
        if let Some((_, at)) = foreign.pairs.iter().find(|(key, at)| !is_literal(key, &at.value)) {
            return self.fault(at.line, None, Problem::NoVariableHere);
        }
        if foreign.section == Section::Resolve {
            return self.warn(line, "[Resolve] has no effect: both families are tried".to_owned());
        }
        let ends = &mut self.config.interface.ends;
        let outcome = match foreign.section {
            Section::TcpClient | Section::UdpProxy => {
                forward(&foreign).map(|value| ends.forward.push(At { line, value }))
            }
            Section::TcpServer => {
                expose(&foreign).map(|value| ends.expose.push(At { line, value }))
            }
            Section::Socks5 => proxy(&foreign, ProxyKind::Socks5)
                .map(|value| ends.proxies.push(At { line, value })),
            Section::Http => {
                proxy(&foreign, ProxyKind::Http).map(|value| ends.proxies.push(At { line, value }))
            }
            Section::Resolve => Ok(()),
            Section::Stdio => target(&foreign).map(|value| ends.stdio = Some(At { line, value })),
        };
        if let Err((line, problem)) = outcome {
            self.fault(line, None, problem);
        }
    }

    /// What the whole file means if it is one of wireproxy's, and what of it means nothing if not.
    pub(super) fn end_wireproxy(&mut self) {
        let Wireproxy { begins_at, variable, check_alive } = std::mem::take(&mut self.wireproxy);
        let Some(line) = begins_at else {
            for At { line, value } in check_alive {
                let here = Some(super::Section::Interface);
                let problem = Problem::UnknownKey { read: Read::of(&value), nearest: None, here };
                self.fault(line, None, problem);
            }
            if let Some(At { line, .. }) = variable {
                let (read, accepted) = (BadKey::Placeholder, Key::PrivateKey.accepted());
                self.fault(line, Some(Key::PrivateKey), Problem::BadKey { read, accepted });
            }
            return;
        };
        for At { line, value } in check_alive {
            let text = "has no effect: whether a tunnel is ready follows from its sessions";
            self.warn(line, format!("{value} {text}"));
        }
        let interface = &mut self.config.interface;
        interface.private_key_file = variable.or(interface.private_key_file.take());
        interface.ends.mode.get_or_insert(At { line, value: Mode::Rootless });
        for peer in self.config.peers.iter_mut().filter(|peer| peer.allowed_ips.is_none()) {
            let everything = ["0.0.0.0/0", "::/0"].map(|text| {
                let network = text.parse().expect("a network");
                At { line: peer.line, value: AllowedIpChange::Add(network) }
            });
            peer.allowed_ips = Some(everything.to_vec());
        }
    }
}

/// The file that `WGConfig` names in a text, before its first section.
pub(in super::super) fn wg_config(text: &str) -> Option<PathBuf> {
    let mut before = lines(text).take_while(|(_, line)| !matches!(line, Line::Section(_)));
    before.find_map(|(_, line)| match line {
        Line::Pair { key, value, in_comment: false, .. } if is_wg_config(key) => Some(value.into()),
        _ => None,
    })
}

/// Whether a section is one of wireproxy's.
pub(in super::super) fn is_foreign(name: &str) -> bool {
    Section::find(name).is_some()
}

/// Whether a key before the first section names the file with the rest.
fn is_wg_config(key: &str) -> bool {
    key.eq_ignore_ascii_case("WGConfig")
}

/// `$NAME`; `$$` begins a text with one `$`.
fn variable(value: &str) -> Option<KeySource> {
    KeySource::parse(&format!("env:{}", value.strip_prefix('$')?))
}

fn missing<T>(foreign: &Foreign, key: &'static str, value: Option<T>) -> Result<T, Fault> {
    let section = foreign.section.name();
    value.ok_or((foreign.line, Problem::MissingForeignKey { section, key }))
}

fn bad(at: At<&str>, accepted: &'static str) -> Fault {
    (at.line, Problem::BadValue { read: Read::of(at.value), accepted })
}

fn target(foreign: &Foreign) -> Result<HostPort, Fault> {
    let target = missing(foreign, "Target", foreign.get("Target"))?;
    parse_host_port(target.value).ok_or_else(|| bad(target, HOST_PORT))
}

fn listen(foreign: &Foreign) -> Result<Listen, Fault> {
    let address = missing(foreign, "BindAddress", foreign.get("BindAddress"))?;
    Listen::parse(address.value).ok_or_else(|| bad(address, LISTEN))
}

fn forward(foreign: &Foreign) -> Result<Forward, Fault> {
    let is_udp = foreign.section == Section::UdpProxy;
    let protocol = if is_udp { Protocol::Udp } else { Protocol::Tcp };
    let idle = match foreign.get("InactivityTimeout") {
        Some(at) => {
            let seconds = number_of(at.value).filter(|seconds| *seconds <= 86_400_u32);
            let seconds = seconds.ok_or_else(|| bad(at, "a number of seconds, up to 86400"))?;
            // For wireproxy 0 is never, and a day is as near as we come.
            Some(if seconds == 0 { 86_400 } else { seconds })
        }
        None => None,
    };
    Ok(Forward { listen: listen(foreign)?, protocol, to: target(foreign)?, idle })
}

fn expose(foreign: &Foreign) -> Result<Expose, Fault> {
    let port = missing(foreign, "ListenPort", foreign.get("ListenPort"))?;
    let line = format!("{} {}", port.value, target(foreign)?);
    Expose::parse(&line).map_err(|Refused { accepted, .. }| bad(port, accepted))
}

fn proxy(foreign: &Foreign, kind: ProxyKind) -> Result<Proxy, Fault> {
    for key in ["CertFile", "KeyFile"] {
        // Without it, passwords would go where they could be read.
        if let Some(At { line, .. }) = foreign.get(key) {
            return Err((line, Problem::NoTls));
        }
    }
    let listen = listen(foreign)?;
    let said = |key| foreign.get(key).filter(|at| !at.value.is_empty());
    let login = match (said("Username"), said("Password")) {
        (None, None) => None,
        (Some(user), Some(password)) => {
            let name = user.value.strip_prefix('$').unwrap_or(user.value);
            let name = parse_user(name).ok_or_else(|| bad(user, USER))?;
            let passfile = variable(password.value);
            let text = password.value.strip_prefix('$').unwrap_or(password.value);
            let refused =
                || (password.line, Problem::BadValue { read: Read::Password, accepted: PASSWORD });
            let password = match passfile {
                Some(_) => None,
                None => Some(Password::new(text).ok_or_else(refused)?),
            };
            Some(Login { user: name, passfile, password })
        }
        (Some(_), None) => missing(foreign, "Password", None)?,
        (None, Some(_)) => missing(foreign, "Username", None)?,
    };
    Ok(Proxy { kind, listen, login, open: false })
}
