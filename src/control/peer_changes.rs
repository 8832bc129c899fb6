//! What differs between a running device and a file, as changes of the device that keep sessions.
//!
//! Only what differs is named: the endpoint of a peer that has roamed stays unless the file says
//! something new about it, and a preshared key that neither the old nor the new file has was set by
//! somebody else and stays. [wg(8), syncconf]

use std::collections::{BTreeSet, HashMap};

use crate::control::command::{AllowedIpChange, DeviceSnapshot, MtuPolicy, PeerUpdate, SetRequest};
use crate::control::config::{Config, Endpoint, Interface, MergedPeer};
use crate::control::lifecycle::{LifecycleError, Step};
use crate::control::netlink::Netlink;
use crate::control::resolve::{Resolve, ResolveError, endpoint_text};
use crate::control::uapi::client::UapiClient;
use crate::crypto::dh;
use crate::crypto::key::{PresharedKey, PublicKey};

/// The change of the port, the mark, the segment sizes and who decides about the MTU, if there is
/// one. A file that names no port leaves it as it is, and so does one without a mark, unless the
/// former one had a mark.
pub fn of_device(
    before: &Interface,
    after: &Interface,
    device: &DeviceSnapshot,
) -> Option<SetRequest> {
    let listen_port = after.listen_port.filter(|&port| port != 0 && port != device.listen_port);
    let mark = after.fwmark.or(before.fwmark.map(|_| 0));
    let fwmark = mark.filter(|&mark| mark != device.fwmark);
    let clamp_mss =
        (before.clamp_mss != after.clamp_mss).then(|| after.clamp_mss.unwrap_or_default());
    let policy = policy_of(after);
    let mtu_policy = (policy != policy_of(before)).then_some(policy);
    let request =
        SetRequest { listen_port, fwmark, clamp_mss, mtu_policy, ..SetRequest::default() };
    (request != SetRequest::default()).then_some(request)
}

/// Who decides about the MTU where a file has been applied.
pub fn policy_of(interface: &Interface) -> MtuPolicy {
    interface.mtu_policy().unwrap_or(MtuPolicy::Auto)
}

/// The change of the key and the peers; the default if nothing differs. Names of endpoints are
/// asked of `resolve` where they are new.
///
/// # Errors
/// The first of `resolve`.
pub fn between(
    before: &Config,
    after: &Config,
    device: &DeviceSnapshot,
    resolve: &mut Resolve,
) -> Result<SetRequest, ResolveError> {
    // A file without a key leaves the device the one that it has. [U-11]
    let key = after.interface.private_key.as_ref().filter(|key| !key.is_zero());
    let private_key = key.filter(|key| device.private_key.as_ref() != Some(key)).cloned();
    let own = key.or(device.private_key.as_ref()).map(dh::public_key);
    let former: HashMap<PublicKey, MergedPeer> =
        before.merged_peers().into_iter().map(|peer| (peer.public_key, peer)).collect();
    let running: HashMap<PublicKey, _> =
        device.peers.iter().map(|peer| (peer.public_key, peer)).collect();
    let wanted = after.merged_peers();
    let names: BTreeSet<PublicKey> = wanted.iter().map(|peer| peer.public_key).collect();
    let gone = device.peers.iter().filter(|peer| !names.contains(&peer.public_key));
    let mut peers: Vec<PeerUpdate> =
        gone.map(|peer| PeerUpdate { remove: true, ..PeerUpdate::new(peer.public_key) }).collect();
    for peer in wanted.iter().filter(|peer| own != Some(peer.public_key)) {
        let is = running.get(&peer.public_key).copied();
        let was = former.get(&peer.public_key);
        let mut update = PeerUpdate::new(peer.public_key);
        let had_key = was.is_some_and(|was| was.preshared_key.is_some() || was.is_kept_elsewhere);
        let preshared_key = match &peer.preshared_key {
            None if had_key => Some(PresharedKey::NONE),
            key => key.clone(),
        };
        let present = is.map_or(PresharedKey::NONE, |is| is.preshared_key.clone());
        update.preshared_key = preshared_key.filter(|key| *key != present);
        let is_known = is.is_some_and(|is| is.endpoint.is_some());
        let is_new = !is_known || was.is_none_or(|was| was.places != peer.places);
        if is_new {
            update.endpoint = match peer.places.first() {
                Some(Endpoint::Address(address)) => Some(*address),
                Some(Endpoint::Name { host, port }) => resolve(host, *port)?,
                None => None,
            };
            let had_list = was.is_some_and(|was| !was.is_fixed());
            let is_left_out = peer.is_fixed() && !(peer.places.is_empty() && had_list);
            update.places = (!is_left_out).then(|| peer.places.clone());
        }
        let seconds = is.map_or(0, |is| is.persistent_keepalive);
        update.persistent_keepalive =
            Some(peer.persistent_keepalive).filter(|&wanted| wanted != seconds);
        let networks: BTreeSet<_> =
            is.map(|is| is.allowed_ips.iter().copied().collect()).unwrap_or_default();
        let gone = networks.difference(&peer.networks).copied().map(AllowedIpChange::Remove);
        let new = peer.networks.difference(&networks).copied().map(AllowedIpChange::Add);
        update.allowed_ips = gone.chain(new).collect();
        if is.is_none() || update != PeerUpdate::new(peer.public_key) {
            peers.push(update);
        }
    }
    Ok(SetRequest { private_key: private_key.map(Some), peers, ..SetRequest::default() })
}

/// Changes port, mark, segment sizes and who decides about the MTU.
#[derive(Debug)]
pub struct SetDevice {
    interface: String,
    request: SetRequest,
    former: SetRequest,
}

impl SetDevice {
    /// `device` is what the device is like before, and `before` what it was configured with.
    pub fn new(
        interface: &str,
        request: SetRequest,
        device: &DeviceSnapshot,
        before: &Interface,
    ) -> Self {
        let former = SetRequest {
            listen_port: request.listen_port.map(|_| device.listen_port),
            fwmark: request.fwmark.map(|_| device.fwmark),
            clamp_mss: request.clamp_mss.map(|_| before.clamp_mss.unwrap_or_default()),
            mtu_policy: request.mtu_policy.map(|_| policy_of(before)),
            ..SetRequest::default()
        };
        Self { interface: interface.to_owned(), request, former }
    }
}

impl Step for SetDevice {
    fn describe(&self) -> String {
        commands(&self.interface, &self.request)
    }

    fn apply(&mut self, _: &mut Netlink) -> Result<(), LifecycleError> {
        set(&self.interface, &self.request)
    }

    fn describe_undo(&self) -> Option<String> {
        Some(commands(&self.interface, &self.former))
    }

    fn undo(&mut self, _: &mut Netlink) -> Result<(), LifecycleError> {
        set(&self.interface, &self.former)
    }
}

/// Changes key and peers, in one request.
#[derive(Debug)]
pub struct SetPeers {
    interface: String,
    request: SetRequest,
    /// Makes the peers what they were; sessions that were ended are not brought back.
    former: SetRequest,
}

impl SetPeers {
    /// `device` is what the device is like before, and `before` what it was configured with.
    pub fn new(
        interface: &str,
        request: SetRequest,
        device: DeviceSnapshot,
        before: &Config,
    ) -> Self {
        let mut places: HashMap<PublicKey, _> = before
            .merged_peers()
            .into_iter()
            .filter(|peer| !peer.is_fixed())
            .map(|peer| (peer.public_key, peer.places))
            .collect();
        let peers = device.peers.into_iter().map(|peer| PeerUpdate {
            places: places.remove(&peer.public_key),
            preshared_key: Some(peer.preshared_key),
            endpoint: peer.endpoint,
            persistent_keepalive: Some(peer.persistent_keepalive),
            replace_allowed_ips: true,
            allowed_ips: peer.allowed_ips.into_iter().map(AllowedIpChange::Add).collect(),
            ..PeerUpdate::new(peer.public_key)
        });
        let former = SetRequest {
            private_key: request.private_key.as_ref().map(|_| device.private_key),
            replace_peers: true,
            peers: peers.collect(),
            ..SetRequest::default()
        };
        Self { interface: interface.to_owned(), request, former }
    }
}

impl Step for SetPeers {
    fn describe(&self) -> String {
        commands(&self.interface, &self.request)
    }

    fn apply(&mut self, _: &mut Netlink) -> Result<(), LifecycleError> {
        // One that is refused, as for want of room for another peer, may have been done in part.
        set(&self.interface, &self.request)
            .inspect_err(|_| drop(set(&self.interface, &self.former)))
    }

    fn describe_undo(&self) -> Option<String> {
        Some(format!("wg syncconf {} (what it had)", self.interface))
    }

    fn undo(&mut self, _: &mut Netlink) -> Result<(), LifecycleError> {
        set(&self.interface, &self.former)
    }
}

fn set(interface: &str, request: &SetRequest) -> Result<(), LifecycleError> {
    Ok(UapiClient::connect(interface)?.set(request)?)
}

/// The commands of wg(8) for a request, one a line, without its keys.
fn commands(interface: &str, request: &SetRequest) -> String {
    let mut lines = Vec::new();
    let mut device = Vec::new();
    device.extend(request.listen_port.map(|port| format!("listen-port {port}")));
    device.extend(request.fwmark.map(|mark| match mark {
        0 => "fwmark off".to_owned(),
        mark => format!("fwmark {mark:#x}"),
    }));
    device.extend(request.private_key.as_ref().map(|_| "private-key (hidden)".to_owned()));
    if !device.is_empty() {
        lines.push(format!("wg set {interface} {}", device.join(" ")));
    }
    // Of our own, so that no command of others does it.
    lines.extend(request.clamp_mss.map(|setting| format!("# {interface}: ClampMSS = {setting}")));
    lines.extend(
        request.mtu_policy.map(|policy| format!("# {interface}: MTU policy = {}", policy.name())),
    );
    for peer in &request.peers {
        let mut words = vec![format!("wg set {interface} peer {}", peer.public_key.to_base64())];
        words.extend(peer.remove.then(|| "remove".to_owned()));
        words.extend(peer.preshared_key.as_ref().map(|key| match key.is_zero() {
            true => "preshared-key /dev/null".to_owned(),
            false => "preshared-key (hidden)".to_owned(),
        }));
        words.extend(peer.endpoint.map(|it| format!("endpoint {}", endpoint_text(it))));
        words.extend(peer.persistent_keepalive.map(|it| format!("persistent-keepalive {it}")));
        let networks: Vec<String> = peer.allowed_ips.iter().map(signed).collect();
        words.extend((!networks.is_empty()).then(|| format!("allowed-ips {}", networks.join(","))));
        lines.push(words.join(" "));
    }
    lines.join("\n")
}

fn signed(change: &AllowedIpChange) -> String {
    match change {
        AllowedIpChange::Add(network) => format!("+{network}"),
        AllowedIpChange::Remove(network) => format!("-{network}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::control::command::PeerSnapshot;
    use crate::control::config::parse;
    use crate::crypto::key::PrivateKey;

    const KEY: &str = "GBgYGBgYGBgYGBgYGBgYGBgYGBgYGBgYGBgYGBgYGBg=";
    const ALICE: &str = "oaGhoaGhoaGhoaGhoaGhoaGhoaGhoaGhoaGhoaGhoaE=";
    const BOB: &str = "sbGxsbGxsbGxsbGxsbGxsbGxsbGxsbGxsbGxsbGxsbE=";

    fn config(interface: &str, peers: &[(&str, &str)]) -> Config {
        let peers =
            peers.iter().map(|(key, lines)| format!("[Peer]\nPublicKey = {key}\n{lines}\n"));
        let text = format!("[Interface]\n{interface}\n{}", peers.collect::<String>());
        parse(&text, "t.conf").unwrap().config
    }

    /// The commands that lead from a device that was configured by `before` to `after`. It has
    /// roamed since.
    fn plan(before: &Config, after: &Config) -> String {
        let mut device = DeviceSnapshot {
            private_key: Some(PrivateKey::from_base64(KEY).unwrap()),
            listen_port: 51820,
            ..DeviceSnapshot::default()
        };
        device.peers.extend(before.merged_peers().into_iter().map(|peer| PeerSnapshot {
            preshared_key: peer.preshared_key.unwrap_or(PresharedKey::from_bytes([7; 32])),
            endpoint: peer.places.first().map(|_| "198.51.100.7:7".parse().unwrap()),
            persistent_keepalive: peer.persistent_keepalive,
            allowed_ips: peer.networks.into_iter().collect(),
            ..PeerSnapshot::new(peer.public_key)
        }));
        let mut resolve: Resolve = Box::new(|_, port| Ok(Some(([203, 0, 113, 1], port).into())));
        let peers = between(before, after, &device, &mut resolve).unwrap();
        let device = of_device(&before.interface, &after.interface, &device);
        let lines = device.iter().chain((peers != SetRequest::default()).then_some(&peers));
        lines.map(|request| commands("wg0", request)).collect::<Vec<_>>().join("\n")
    }

    #[test]
    fn u_11_a_file_that_says_the_same_changes_nothing_whatever_happened_meanwhile() {
        let interface = format!("PrivateKey = {KEY}\nListenPort = 51820");
        let peer = "AllowedIPs = 10.0.0.2/32\nEndpoint = a:1\nPersistentKeepalive = 5";
        let before = config(&interface, &[(ALICE, peer), (BOB, "Endpoint = 192.0.2.1:1")]);
        assert_eq!(plan(&before, &before), "");
        // Neither a key nor a port nor a preshared key in the file: those of the device stay.
        let bare = config("Address = 10.0.0.1", &[(ALICE, peer), (BOB, "Endpoint = 192.0.2.1:1")]);
        assert_eq!(plan(&before, &bare), "");
    }

    #[test]
    fn u_11_only_what_differs_is_named_and_no_key_is_shown() {
        let before = config(
            "FwMark = 5",
            &[(ALICE, "AllowedIPs = 10.0.0.2, 10.0.0.3\nPersistentKeepalive = 5"), (BOB, "")],
        );
        let psk = PresharedKey::from_bytes([1; 32]).to_base64();
        let other = PrivateKey::from_bytes([0x28; 32]).to_base64();
        let carol = PublicKey::from_bytes([0xc1; 32]).to_base64();
        let alice =
            format!("AllowedIPs = 10.0.0.3, 10.0.0.4\nPresharedKey = {psk}\nEndpoint = a:9");
        let after = config(
            &format!("PrivateKey = {other}\nListenPort = 7"),
            &[(ALICE, &alice), (&carol, "AllowedIPs = 10.0.0.2")],
        );
        assert_eq!(
            plan(&before, &after),
            format!(
                "wg set wg0 listen-port 7\n\
                 wg set wg0 private-key (hidden)\n\
                 wg set wg0 peer {BOB} remove\n\
                 wg set wg0 peer {ALICE} preshared-key (hidden) endpoint 203.0.113.1:9 \
                 persistent-keepalive 0 allowed-ips -10.0.0.2/32,+10.0.0.4/32\n\
                 wg set wg0 peer {carol} allowed-ips +10.0.0.2/32"
            )
        );
    }

    #[test]
    fn segment_sizes_follow_the_file_and_are_the_devices_again_without_the_key() {
        let key = |setting: &str| config(&format!("#hybridwg: ClampMSS = {setting}"), &[]);
        assert_eq!(plan(&key("1240"), &key("off")), "# wg0: ClampMSS = off");
        assert_eq!(plan(&key("off"), &config("", &[])), "# wg0: ClampMSS = on");
        assert_eq!(plan(&key("off"), &key("off")), "");
    }

    #[test]
    fn u_11_whatever_a_reload_changes_of_the_device_it_can_take_back() {
        let before = config("ListenPort = 51820\nFwMark = 5", &[]);
        let key = "#hybridwg: MTU = probe\n#hybridwg: ClampMSS = off";
        let after = config(&format!("ListenPort = 7\nFwMark = 6\n{key}"), &[]);
        let device = DeviceSnapshot { listen_port: 51820, fwmark: 5, ..DeviceSnapshot::default() };
        let request = of_device(&before.interface, &after.interface, &device).unwrap();
        let step = SetDevice::new("wg0", request, &device, &before.interface);
        assert_eq!(
            step.describe(),
            "wg set wg0 listen-port 7 fwmark 0x6\n# wg0: ClampMSS = off\n# wg0: MTU policy = probe"
        );
        assert_eq!(
            step.describe_undo().unwrap(),
            "wg set wg0 listen-port 51820 fwmark 0x5\n# wg0: ClampMSS = on\n# wg0: MTU policy = auto"
        );
    }

    #[test]
    fn wg_13_a_preshared_key_that_the_file_had_and_has_no_more_is_cleared() {
        let psk = format!("PresharedKey = {KEY}");
        let (with, without) = (config("", &[(ALICE, &psk)]), config("", &[(ALICE, "")]));
        let cleared = format!("wg set wg0 peer {ALICE} preshared-key /dev/null");
        assert_eq!(plan(&with, &without), cleared);
    }
}
