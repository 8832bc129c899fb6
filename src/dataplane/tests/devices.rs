//! Two whole devices: protocol core, tables and shards, joined by the glue that an engine uses.

use super::*;
use crate::crypto::entropy::SeededEntropy;
use crate::dataplane::tables::Notice;
use crate::proto::device::{AllowedIpChange, Change, Device, Outputs, PeerUpdate};

struct Host {
    node: Node,
    device: Device,
    outputs: Outputs,
}

fn key(byte: u8) -> PrivateKey {
    PrivateKey::from_bytes([byte; 32])
}

impl Host {
    fn new(address: &str, own: u8) -> Self {
        let mut node = Node::new(address, &[]);
        for peer in [PEER, OTHER] {
            node.apply(Output::PeerRemoved(peer));
        }
        node.settle(at(0));
        let device = Device::new(Box::new(SeededEntropy::new(own.into())));
        let mut host = Self { node, device, outputs: Outputs::new() };
        host.configure(Change::PrivateKey(Some(key(own))));
        host
    }

    fn configure(&mut self, change: Change) {
        self.device.configure(at(0), change, &mut self.outputs).unwrap();
        self.apply();
    }

    fn add_peer(&mut self, private: u8, net: &str, endpoint: Option<SocketAddr>) {
        let public_key = StaticIdentity::new(key(private)).public;
        let mut update = PeerUpdate::new(public_key);
        update.endpoint = endpoint;
        update.allowed_ips = vec![AllowedIpChange::Add(net.parse().unwrap())];
        self.configure(Change::Peer(update));
    }

    fn apply(&mut self) {
        for output in self.outputs.drain() {
            let own = self.node.tables.apply(output, &self.node.inboxes);
            if matches!(own, Some(Notice::RoutesChanged)) {
                self.node.tables.set_routes(self.device.allowed_ips().routes());
            }
        }
    }

    /// What an engine does with its lane.
    fn serve(&mut self, now: Now) {
        self.node.settle(now);
        for signal in self.node.signals() {
            let out = &mut self.outputs;
            match signal {
                Signal::WantSession(peer) => self.device.want_session(now, peer, out),
                Signal::Confirmed(index) => self.device.handle_confirmed(now, index, out),
                Signal::Nudge(peer) => self.device.handle_nudge(now, peer, out),
                signal => panic!("{signal:?}"),
            }
        }
        while let Some(incoming) = self.node.lane.next_handshake() {
            let (from, load) = (incoming.from, self.node.lane.load(now.mono));
            let out = &mut self.outputs;
            self.device.handle_handshake(now, from, load, &incoming.datagram, out).unwrap();
        }
        self.device.handle_timeout(now, &mut self.outputs);
        self.apply();
        self.node.settle(now);
    }
}

/// Serves both until nothing moves any more; returns how many datagrams went over the network.
fn run(now: Now, hosts: &mut [Host; 2]) -> usize {
    let mut moved = 0;
    loop {
        hosts.iter_mut().for_each(|host| host.serve(now));
        let sent = [hosts[0].node.udp.take_sent(), hosts[1].node.udp.take_sent()];
        if sent.iter().all(Vec::is_empty) {
            return moved;
        }
        let addresses = [hosts[0].node.address, hosts[1].node.address];
        for (from, datagrams) in sent.iter().enumerate() {
            let to = &hosts[1 - from].node;
            for datagram in datagrams {
                assert_eq!(datagram.to.remote, to.address);
                let ecn = Ecn::from_traffic_class(datagram.traffic_class);
                let from = Endpoint { remote: addresses[from], local: Some(to.source()) };
                to.udp.push(from, ecn, &datagram.bytes);
                moved += 1;
            }
        }
    }
}

fn hosts() -> [Host; 2] {
    let (mut a, mut b) = (Host::new(A, 1), Host::new(B, 2));
    a.add_peer(2, "10.0.2.0/24", Some(b.node.address));
    // `b` learns where `a` is from its handshake.
    b.add_peer(1, "10.0.1.0/24", None);
    [a, b]
}

fn later(now: Now, seconds: u64) -> Now {
    Now { mono: now.mono + Duration::from_secs(seconds), ..now }
}

#[test]
fn the_first_packets_bring_a_session_about_and_arrive_in_order() {
    let mut hosts = hosts();
    let sent: Vec<_> = (0..10).map(|n| there(100, n)).collect();
    sent.iter().for_each(|packet| hosts[0].node.ip.push(packet));
    assert_eq!(run(at(1), &mut hosts), 2 + 10, "initiation, response, and the packets");
    assert_eq!(hosts[1].node.ip.take_delivered(), sent);
    hosts[1].node.ip.push(&back(100, 1));
    assert_eq!(run(at(2), &mut hosts), 1);
    assert_eq!(hosts[0].node.ip.take_delivered(), [back(100, 1)]);
    for host in &hosts {
        assert_eq!(host.node.tables.drops.total(), 0);
    }
}

#[test]
fn traffic_goes_on_through_renewals_without_a_loss() {
    let mut hosts = hosts();
    let mut extra = 0;
    for second in 0..600 {
        let now = later(at(1), second);
        hosts[0].node.ip.push(&there(100, 1));
        // In the first second `b` does not know where `a` is.
        let answer: Vec<_> = (second > 0).then(|| back(100, 2)).into_iter().collect();
        answer.iter().for_each(|packet| hosts[1].node.ip.push(packet));
        extra += run(now, &mut hosts) - 1 - answer.len();
        assert_eq!(hosts[1].node.ip.take_delivered(), [there(100, 1)], "after {second} s");
        assert_eq!(hosts[0].node.ip.take_delivered(), answer, "after {second} s");
    }
    // Five sessions in ten minutes, two messages each, and a confirmation for some.
    assert!((10..=20).contains(&extra), "{extra} extra datagrams");
}
