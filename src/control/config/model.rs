//! What a configuration file says, once it has been understood: nothing here needs a second check.

use std::collections::{BTreeSet, HashMap};
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;

use ipnet::IpNet;

use super::file::Lines;
use super::lex::Key;
use super::secret::KeySource;
use crate::control::command::{
    AllowedIpChange, ClampMss, Health, MtuPolicy, PeerUpdate, SetRequest,
};
use crate::control::ends::{Expose, Forward, HostPort, Mode, Proxy, ResolveVia, Target};
use crate::crypto::key::{PresharedKey, PrivateKey, PublicKey};
use crate::flow::policy::{Policy, Rule};
use crate::flow::tuning::{Tune, Tuning};
/// Where a peer is reached.
pub use crate::proto::places::Place as Endpoint;

/// A value and the line it stands on.
#[derive(Clone, Copy, Debug)]
pub struct At<T> {
    pub line: usize,
    pub value: T,
}

/// One configuration file.
#[derive(Clone, Debug, Default)]
pub struct Config {
    pub interface: Interface,
    pub peers: Vec<Peer>,
    /// The file that has the rest, as wireproxy names it: from the folder of this one.
    pub wg_config: Option<At<PathBuf>>,
    pub texts: Texts,
    /// What was read beside the file.
    pub beside: Vec<Lines>,
}

/// The texts that a configuration was read from. Their lines are counted through.
#[derive(Clone, Debug, Default)]
pub struct Texts(Vec<(usize, String)>);

impl Texts {
    /// `name` begins after so many lines of others.
    pub(super) fn add(&mut self, lines: usize, name: &str) {
        self.0.push((lines, name.to_owned()));
    }

    /// The name of the text with this line, and the line's number in it.
    pub fn place(&self, line: usize) -> (&str, usize) {
        let mut texts = self.0.iter().rev();
        let found = texts.find(|(before, _)| *before < line);
        found.map_or(("", line), |(before, name)| (name, line - before))
    }
}

/// All `[Interface]` sections together. `None` and empty mean that the key is absent.
#[derive(Clone, Debug, Default)]
pub struct Interface {
    /// All zeros are no key.
    pub private_key: Option<PrivateKey>,
    /// Where it is, if it does not stand in the file; `fetch_keys` puts it above.
    pub private_key_file: Option<At<KeySource>>,
    pub listen_port: Option<u16>,
    /// 0 is off.
    pub fwmark: Option<u32>,
    /// Which bits of packets' marks count for us; not 0, and only beside a `fwmark`.
    pub fwmark_mask: Option<At<u32>>,
    /// Whether what does not go into the tunnel goes nowhere; only where `table` is auto.
    pub kill_switch: Option<At<bool>>,
    /// Where it is told over HTTP how the tunnel is.
    pub health: Option<At<SocketAddr>>,
    /// Where peers reach this interface; for the files that are made for them.
    pub public_endpoint: Option<Endpoint>,
    /// In the order of the file, host bits kept.
    pub addresses: Vec<IpNet>,
    pub dns: Vec<At<Dns>>,
    /// Whether `up` fails if `dns` cannot be set.
    pub require_dns: Option<At<bool>>,
    /// Bytes, 68 to 65535.
    pub mtu: Option<u16>,
    /// In place of `mtu`: it is found out.
    pub mtu_probe: bool,
    /// How far announced TCP segment sizes are lowered.
    pub clamp_mss: Option<ClampMss>,
    /// Whether, and how, peers get out under this host's own addresses.
    pub masquerade: Option<At<Masquerade>>,
    /// The sources that this is done for, host bits zero; empty: all that peers have.
    pub masquerade_from: Vec<At<IpNet>>,
    /// Where peers may go beyond this host.
    pub allow_to: Vec<At<Rule>>,
    pub deny_to: Vec<At<Rule>>,
    /// Where the tunnel begins and ends on this host.
    pub ends: Ends,
    /// What flows are like, the last of a kind counts.
    pub tunes: Vec<At<(Key, Tune)>>,
    pub table: Option<At<Table>>,
    pub save_config: Option<At<bool>>,
    /// Commands in the order of the file, `%i` not yet replaced.
    pub pre_up: Vec<String>,
    pub post_up: Vec<String>,
    pub pre_down: Vec<String>,
    pub post_down: Vec<String>,
}

impl Interface {
    /// Where peers may go beyond this host.
    pub fn policy(&self) -> Policy {
        let rules = |rules: &[At<Rule>]| rules.iter().map(|rule| rule.value).collect();
        Policy { allow_to: rules(&self.allow_to), deny_to: rules(&self.deny_to) }
    }

    /// What flows are like that this program carries on.
    pub fn tuning(&self) -> Tuning {
        let mut tuning = Tuning::default();
        self.tunes.iter().for_each(|tune| tune.value.1.apply(&mut tuning));
        tuning
    }

    /// Whether nothing leads in or out without an interface, for want of an address: what is masqueraded
    /// needs none.
    pub fn lacks_address(&self) -> bool {
        self.addresses.is_empty() && self.masquerade.is_none_or(|it| it.value == Masquerade::Off)
    }

    /// Who decides about the MTU, if the file says anything.
    pub fn mtu_policy(&self) -> Option<MtuPolicy> {
        if self.mtu_probe { Some(MtuPolicy::Probe) } else { self.mtu.map(|_| MtuPolicy::Fixed) }
    }
}

/// What there is on this host beside, or in place of, the interface.
#[derive(Clone, Debug, Default)]
pub struct Ends {
    pub mode: Option<At<Mode>>,
    pub expose: Vec<At<Expose>>,
    pub forward: Vec<At<Forward>>,
    pub proxies: Vec<At<Proxy>>,
    pub resolve_via: Option<At<ResolveVia>>,
    /// Where `hybridwg nc` leads if it is not told.
    pub stdio: Option<At<HostPort>>,
}

impl Ends {
    /// Whether clients on this host reach names, by the name servers in the tunnel.
    pub fn reaches_names(&self) -> bool {
        let is_name = |place: &HostPort| matches!(place, HostPort::Name { .. });
        self.resolve_via.is_none_or(|via| via.value == ResolveVia::Tunnel)
            && (!self.proxies.is_empty()
                || self.forward.iter().any(|forward| is_name(&forward.value.to))
                || self.stdio.as_ref().is_some_and(|stdio| is_name(&stdio.value)))
    }

    /// Whether peers find something whose place a name server decides.
    pub fn exposes_names(&self) -> bool {
        let is_name = |target: &Target| matches!(target, Target::At(HostPort::Name { .. }));
        self.expose.iter().any(|expose| is_name(&expose.value.target))
    }
}

/// An entry of `DNS`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Dns {
    Server(IpAddr),
    SearchDomain(String),
}

/// How peers get out under this host's own addresses.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Masquerade {
    #[default]
    Off,
    /// By the first way that nothing stands in.
    Auto,
    /// By a table of nftables.
    Nft,
    /// By this program itself, flow by flow.
    Flow,
}

impl Masquerade {
    pub const ALL: [Self; 4] = [Self::Off, Self::Auto, Self::Nft, Self::Flow];

    pub const fn name(self) -> &'static str {
        match self {
            Self::Off => "off",
            Self::Auto => "auto",
            Self::Nft => "nft",
            Self::Flow => "flow",
        }
    }
}

/// Where the routes of the allowed IPs go.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Table {
    /// The main table, and policy routing for default routes.
    Auto,
    /// Nowhere.
    Off,
    /// 1 or more.
    Number(u32),
    Name(String),
}

/// One `[Peer]` section.
#[derive(Clone, Debug)]
pub struct Peer {
    /// Where the section begins.
    pub line: usize,
    pub public_key: PublicKey,
    pub preshared_key: Option<PresharedKey>,
    /// Where it is, if it does not stand in the file; `fetch_keys` puts it above.
    pub preshared_key_file: Option<At<KeySource>>,
    /// `None` if the key is absent; empty if it is there and says none.
    pub allowed_ips: Option<Vec<At<AllowedIpChange>>>,
    /// An entry began with `+` or `-`: the entries change the peer's networks and do not replace
    /// them.
    pub incremental: bool,
    pub endpoint: Option<Endpoint>,
    /// In place of `endpoint`, best first.
    pub endpoints: Vec<Endpoint>,
    /// Seconds; 0 is off.
    pub persistent_keepalive: Option<u16>,
    /// Whether the tunnel is of no use without it.
    pub required: Option<bool>,
}

impl Peer {
    /// Where it may be reached, best first.
    pub fn places(&self) -> &[Endpoint] {
        if self.endpoints.is_empty() { self.endpoint.as_slice() } else { &self.endpoints }
    }
}

impl Config {
    /// The change that gives a device what the file names and leaves the rest, as `wg addconf`
    /// does: what a PreUp hook has set survives.
    ///
    /// # Errors
    /// The first error of `resolve`, which is asked for every endpoint that is a name; one without an
    /// address is left to the device.
    pub fn to_request<E>(
        &self,
        mut resolve: impl FnMut(&str, u16) -> Result<Option<SocketAddr>, E>,
    ) -> Result<SetRequest, E> {
        let private_key = self.interface.private_key.clone();
        let mut request = SetRequest {
            private_key: private_key.map(|key| (!key.is_zero()).then_some(key)),
            listen_port: self.interface.listen_port,
            fwmark: self.interface.fwmark,
            clamp_mss: self.interface.clamp_mss,
            mtu_policy: self.interface.mtu_policy(),
            peers: Vec::with_capacity(self.peers.len()),
            ..SetRequest::default()
        };
        for peer in &self.peers {
            let places = peer.places();
            let endpoint = match places.first() {
                Some(Endpoint::Address(address)) => Some(*address),
                Some(Endpoint::Name { host, port }) => resolve(host, *port)?,
                None => None,
            };
            let is_fixed = matches!(places, [] | [Endpoint::Address(_)]);
            let allowed_ips = peer.allowed_ips.as_deref().unwrap_or_default();
            request.peers.push(PeerUpdate {
                preshared_key: peer.preshared_key.clone(),
                endpoint,
                places: (!is_fixed).then(|| places.to_vec()),
                persistent_keepalive: peer.persistent_keepalive,
                replace_allowed_ips: peer.allowed_ips.is_some() && !peer.incremental,
                allowed_ips: allowed_ips.iter().map(|entry| entry.value).collect(),
                ..PeerUpdate::new(peer.public_key)
            });
        }
        Ok(request)
    }

    /// Who is told how the tunnel is, and the peers that it is of no use without: those that the file
    /// says, and else each that has an endpoint, since we call that one.
    pub fn health(&self) -> Health {
        let is_required = |peer: &MergedPeer| peer.required.unwrap_or(!peer.places.is_empty());
        let peers = self.merged_peers().into_iter();
        let required = peers.filter(is_required).map(|peer| peer.public_key).collect();
        Health { listen: self.interface.health.map(|address| address.value), required }
    }

    /// Whether there is nothing in it, as in a file that was cut off or never written.
    pub fn says_nothing(&self) -> bool {
        let Interface { private_key, private_key_file, listen_port, addresses, .. } =
            &self.interface;
        self.peers.is_empty()
            && private_key.is_none()
            && private_key_file.is_none()
            && listen_port.is_none()
            && addresses.is_empty()
    }

    /// What all sections together say of each peer, in the order in which the peers first occur.
    pub fn merged_peers(&self) -> Vec<MergedPeer> {
        let mut merged: Vec<MergedPeer> = Vec::new();
        let mut places: HashMap<PublicKey, usize> = HashMap::new();
        let mut owners: HashMap<IpNet, usize> = HashMap::new();
        for peer in &self.peers {
            let is_known = places.contains_key(&peer.public_key);
            let place = *places.entry(peer.public_key).or_insert(merged.len());
            if !is_known {
                merged.push(MergedPeer::new(peer.public_key));
            } else if peer.allowed_ips.is_some() && !peer.incremental {
                owners.retain(|_, owner| *owner != place);
            }
            merged[place].add(peer);
            for change in peer.allowed_ips.iter().flatten() {
                match change.value {
                    AllowedIpChange::Add(network) => {
                        owners.insert(network, place);
                    }
                    AllowedIpChange::Remove(network) if owners.get(&network) == Some(&place) => {
                        owners.remove(&network);
                    }
                    AllowedIpChange::Remove(_) => {}
                }
            }
        }
        for (network, owner) in owners {
            merged[owner].networks.insert(network);
        }
        merged
    }
}

/// What a file says of one peer in the end.
#[derive(Clone, Debug)]
pub struct MergedPeer {
    pub public_key: PublicKey,
    /// The lines on which its sections begin.
    pub lines: Vec<usize>,
    pub preshared_key: Option<PresharedKey>,
    /// It does not stand in the file.
    pub is_kept_elsewhere: bool,
    /// Where it may be, best first.
    pub places: Vec<Endpoint>,
    /// Seconds; 0 is off.
    pub persistent_keepalive: u16,
    /// Whether the tunnel is of no use without it, if the file says so.
    pub required: Option<bool>,
    /// Each network belongs to the peer that it was given to last.
    pub networks: BTreeSet<IpNet>,
}

impl MergedPeer {
    fn new(public_key: PublicKey) -> Self {
        Self {
            public_key,
            lines: Vec::new(),
            preshared_key: None,
            is_kept_elsewhere: false,
            places: Vec::new(),
            persistent_keepalive: 0,
            required: None,
            networks: BTreeSet::new(),
        }
    }

    /// Whether the peer is at one address and nowhere else.
    pub fn is_fixed(&self) -> bool {
        matches!(*self.places, [] | [Endpoint::Address(_)])
    }

    fn add(&mut self, peer: &Peer) {
        self.lines.push(peer.line);
        self.is_kept_elsewhere |= peer.preshared_key_file.is_some();
        self.preshared_key = peer.preshared_key.clone().or(self.preshared_key.take());
        if !peer.places().is_empty() {
            self.places = peer.places().to_vec();
        }
        self.persistent_keepalive = peer.persistent_keepalive.unwrap_or(self.persistent_keepalive);
        self.required = peer.required.or(self.required);
    }
}
