//! Whom to measure: a peer of an interface, and the address at which he answers inside.

use std::net::IpAddr;

use ipnet::IpNet;

use crate::control::command::{DeviceSnapshot, PeerSnapshot};
use crate::crypto::key::PublicKey;
use crate::time::Wall;

/// Letters of a key that are shown to tell it from others.
const SHOWN_LETTERS: usize = 8;

/// One peer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Target {
    pub peer: PublicKey,
    pub address: IpAddr,
    pub last_handshake: Option<Wall>,
}

/// Finds the peer that `wanted` names: by its public key, by the first letters of that, or by an
/// address inside that is his. `None` means the only one there is.
///
/// # Errors
/// There is no such peer, there are several, or no address of his is known; with what can be said
/// in its place.
pub fn choose(device: &DeviceSnapshot, wanted: Option<&str>) -> Result<Target, String> {
    let Some(wanted) = wanted else {
        return match &device.peers[..] {
            [only] => by_key(only),
            [] => Err("the interface has no peer".to_owned()),
            several => Err(format!(
                "the interface has {} peers: say which, by its key or an address inside",
                several.len()
            )),
        };
    };
    if let Ok(address) = wanted.parse::<IpAddr>() {
        let owner = owner(device, address)
            .ok_or_else(|| format!("no peer of the interface has {address} in its AllowedIPs"))?;
        return Ok(target(owner, address));
    }
    let named: Vec<&PeerSnapshot> = device
        .peers
        .iter()
        .filter(|peer| peer.public_key.to_base64().starts_with(wanted))
        .collect();
    match named[..] {
        [one] => by_key(one),
        [] => Err(format!(
            "`{wanted}` is neither the public key of a peer of the interface, nor how one begins, \
             nor an address inside"
        )),
        _ => Err(format!("the keys of {} peers begin with `{wanted}`", named.len())),
    }
}

/// Who gets what is sent to `address`: the longest prefix decides.
fn owner(device: &DeviceSnapshot, address: IpAddr) -> Option<&PeerSnapshot> {
    let length = |peer: &PeerSnapshot| {
        let holding = peer.allowed_ips.iter().filter(|network| network.contains(&address));
        holding.map(IpNet::prefix_len).max()
    };
    let owners = device.peers.iter().filter_map(|peer| Some((length(peer)?, peer)));
    owners.max_by_key(|(length, _)| *length).map(|(_, peer)| peer)
}

/// With the first address that is a single one.
fn by_key(peer: &PeerSnapshot) -> Result<Target, String> {
    let mut single =
        peer.allowed_ips.iter().filter(|network| network.prefix_len() == network.max_prefix_len());
    if let Some(network) = single.next() {
        return Ok(target(peer, network.addr()));
    }
    let key = peer.public_key.to_base64();
    let networks: Vec<String> = peer.allowed_ips.iter().map(ToString::to_string).collect();
    let networks = if networks.is_empty() { "nothing".to_owned() } else { networks.join(", ") };
    Err(format!(
        "peer {}… has {networks} in its AllowedIPs, and no address that is his alone: say at which \
         one he answers, in place of his key",
        &key[..SHOWN_LETTERS]
    ))
}

const fn target(peer: &PeerSnapshot, address: IpAddr) -> Target {
    Target { peer: peer.public_key, address, last_handshake: peer.last_handshake }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn peer(number: u8, networks: &[&str]) -> PeerSnapshot {
        let allowed_ips = networks.iter().map(|network| network.parse().unwrap()).collect();
        PeerSnapshot { allowed_ips, ..PeerSnapshot::new(PublicKey::from_bytes([number; 32])) }
    }

    fn device(peers: Vec<PeerSnapshot>) -> DeviceSnapshot {
        DeviceSnapshot { peers, ..DeviceSnapshot::default() }
    }

    fn hub() -> DeviceSnapshot {
        device(vec![
            peer(1, &["10.0.0.0/24", "10.10.0.2/32"]),
            peer(2, &["0.0.0.0/0", "fd10::2/128"]),
        ])
    }

    fn found(device: &DeviceSnapshot, wanted: Option<&str>) -> (u8, String) {
        let target = choose(device, wanted).unwrap();
        (target.peer.as_bytes()[0], target.address.to_string())
    }

    #[test]
    fn a_peer_is_named_by_his_key_its_beginning_or_an_address_of_his() {
        let key = PublicKey::from_bytes([1; 32]).to_base64();
        for wanted in [&key[..], &key[..6], "10.10.0.2"] {
            assert_eq!(found(&hub(), Some(wanted)), (1, "10.10.0.2".into()), "{wanted}");
        }
        assert_eq!(found(&hub(), Some("10.0.0.9")), (1, "10.0.0.9".into()), "the longer prefix");
        assert_eq!(found(&hub(), Some("192.0.2.1")), (2, "192.0.2.1".into()));
    }

    #[test]
    fn the_only_peer_needs_no_name() {
        let only = device(vec![peer(7, &["10.0.0.0/8", "fd10::7/128"])]);
        assert_eq!(found(&only, None), (7, "fd10::7".into()));
    }

    #[test]
    fn who_cannot_be_found_is_told_with_what_to_say() {
        for (device, wanted, words) in [
            (hub(), None, "has 2 peers: say which"),
            (device(vec![]), None, "has no peer"),
            (hub(), Some("fd99::1"), "no peer of the interface has fd99::1"),
            (hub(), Some("zzz"), "`zzz` is neither the public key"),
            (hub(), Some(""), "2 peers begin with ``"),
            (device(vec![peer(1, &["10.0.0.0/8"])]), None, "has 10.0.0.0/8 in its AllowedIPs"),
            (device(vec![peer(1, &[])]), None, "has nothing in its AllowedIPs"),
        ] {
            let error = choose(&device, wanted).unwrap_err();
            assert!(error.contains(words), "{wanted:?}: {error}");
        }
    }
}
