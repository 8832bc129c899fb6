//! What the host connects to for a peer.

use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;

use crate::flow::common::Common;
use crate::flow::exposed::{self, Exposed, Target};
use crate::flow::policy::Service;
use crate::flow::tcp::Packet;
use crate::sys::SysError;
use crate::sys::sockets::Stream;

/// See the module.
#[derive(Debug)]
pub(super) enum Dial {
    Place { place: SocketAddr, source: Option<IpAddr> },
    Path(PathBuf),
}

impl Dial {
    pub fn begin(&self, mark: u32) -> Result<Stream, SysError> {
        match self {
            Self::Place { place, source } => Stream::connect(*place, mark, *source),
            Self::Path(path) => Stream::connect_to_path(path),
        }
    }
}

/// Where a peer's connection leads.
#[derive(Debug)]
pub(super) struct Found {
    pub dial: Dial,
    /// What the other side is told first.
    pub greeting: Vec<u8>,
    /// What the policy was asked about, unless it was not.
    pub judged: Option<SocketAddr>,
}

/// Where a peer's connection to `place` goes, if it may.
pub(super) fn carried_dial(common: &Common, place: SocketAddr) -> Option<Found> {
    let is_allowed = common.allows(place.ip(), Service::Tcp(place.port()));
    let dial = Dial::Place { place, source: None };
    is_allowed.then_some(Found { dial, greeting: Vec::new(), judged: Some(place) })
}

/// Where a peer's connection to a port of the tunnel's own addresses goes, if to anything.
pub(super) fn exposed_dial(common: &Common, packet: &Packet<'_>) -> Option<Found> {
    let (peer, own) = (packet.source, packet.destination);
    let service = Service::Tcp(own.port());
    let Exposed { target, source, proxy_v2, .. } =
        exposed::find(&common.settings.exposed, service, peer.ip())?;
    let (dial, judged) = match target {
        Target::Path(path) => (Dial::Path(path.clone()), None),
        Target::Address(place) => (Dial::Place { place: *place, source: *source }, None),
        Target::Named(places) => {
            let is_allowed = |it: &&SocketAddr| common.allows(it.ip(), Service::Tcp(it.port()));
            let place = *places.iter().find(is_allowed)?;
            (Dial::Place { place, source: *source }, Some(place))
        }
    };
    let greeting = if *proxy_v2 { exposed::proxy_header(peer, own) } else { Vec::new() };
    Some(Found { dial, greeting, judged })
}
