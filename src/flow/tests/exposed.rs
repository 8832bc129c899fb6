//! Ports of the tunnel's own addresses that lead to places of this host, with and without a kernel that
//! has these addresses too.

use super::*;
use crate::flow::exposed::{Exposed, Target};
use crate::flow::policy::Service;
use crate::wire::transport::{ACK, SYN};

/// A port of the tunnel's own address.
fn own(port: u16) -> SocketAddr {
    SocketAddr::from(([10, 10, 0, 1], port))
}

/// For port 80.
fn exposed(target: Target, from: &[&str]) -> Exposed {
    let from = from.iter().map(|net| net.parse().unwrap()).collect();
    Exposed { service: Service::Tcp(80), target, from, source: None, proxy_v2: false }
}

/// Where nothing else is carried on.
fn exposing(exposed: Vec<Exposed>, rules: &[&str]) -> Settings {
    Settings { carries: false, exposed, ..settings(rules) }
}

#[test]
fn a_port_leads_each_peer_to_its_own_place_and_refuses_those_who_have_none() {
    let [(first, one), (second, two)] = [listen(), listen()];
    let mut bench = Bench::new(&[]);
    let entries = vec![
        exposed(Target::Address(one), &["10.10.1.0/24"]),
        exposed(Target::Address(two), &["10.10.0.0/22", "fd10:2::/32"]),
    ];
    bench.switch.set(Some(exposing(entries, &[])));
    bench.turn();
    for (peer, listener) in [(1, &first), (2, &second), (3, &second)] {
        bench.connect(inside(peer, 1000), own(80));
        bench.until("a connection", |bench| bench.state(inside(peer, 1000)) == State::Established);
        accept(listener);
    }
    bench.connect(inside(4, 1000), own(80));
    bench.until("a reset", |bench| bench.state(inside(4, 1000)) == State::Closed);
    assert_eq!(bench.dropped(DropReason::FlowRefused), 1);
    for listener in [first, second] {
        listener.set_nonblocking(true).unwrap();
        assert_eq!(listener.accept().unwrap_err().kind(), ErrorKind::WouldBlock);
    }
}

#[test]
fn where_a_name_leads_is_judged_though_nothing_is_carried_on_and_again_by_new_rules() {
    let (listener, place) = listen();
    let mut bench = Bench::new(&[]);
    let set = |bench: &mut Bench, allow: &[&str], deny: &[&str]| {
        let mut settings = exposing(vec![exposed(Target::Named(vec![place]), &[])], allow);
        settings.policy.deny_to = deny.iter().map(|rule| rule.parse().unwrap()).collect();
        bench.switch.set(Some(settings));
        bench.turn();
    };
    let refused = |bench: &mut Bench, from| {
        bench.connect(from, own(80));
        bench.until("a reset", |bench| bench.state(from) == State::Closed);
    };
    set(&mut bench, &[], &[]);
    refused(&mut bench, inside(1, 1000));
    set(&mut bench, &["127.0.0.1"], &[]);
    let open = inside(1, 1001);
    bench.connect(open, own(80));
    bench.until("a connection", |bench| bench.state(open) == State::Established);
    let mut served = accept(&listener);
    set(&mut bench, &["127.0.0.1"], &["127.0.0.0/8"]);
    assert_eq!(served.read(&mut [0; 8]).unwrap_err().kind(), ErrorKind::ConnectionReset);
    assert_eq!(bench.switch.flows(), 0);
    refused(&mut bench, inside(1, 1002));
}

/// Of TCP, without a checksum.
fn segment(from: SocketAddr, to: SocketAddr, flags: u8) -> Vec<u8> {
    let mut header = [0; 20];
    header[..2].copy_from_slice(&from.port().to_be_bytes());
    header[2..4].copy_from_slice(&to.port().to_be_bytes());
    header[13] = flags;
    packet(from.ip(), to.ip(), 6, &header)
}

/// A host with these addresses beside those of the tunnel, whose port 80 is exposed.
fn beside_a_kernel(addresses: &[&str]) -> Bench {
    let mut bench = Bench::new(&[]);
    let target = Target::Address("127.0.0.1:1".parse().unwrap());
    let host = addresses.iter().map(|network| network.parse::<ipnet::IpNet>().unwrap()).collect();
    bench.switch.set(Some(Settings { host, ..exposing(vec![exposed(target, &[])], &[]) }));
    bench.turn();
    bench
}

impl Bench {
    fn keeps(&mut self, mut packet: Vec<u8>) -> bool {
        self.engine.take(self.now, &mut packet) == Fate::Taken
    }
}

#[test]
fn beside_a_kernel_only_what_is_for_exposed_ports_or_about_them_is_kept_from_it() {
    let mut bench = beside_a_kernel(&[]);
    let peer = inside(1, 1000);
    let icmp = |kind: u8, port: u16| {
        let ports = [port.to_be_bytes(), peer.port().to_be_bytes()].concat();
        let quoted = packet(own(0).ip(), peer.ip(), 6, &[&ports[..], &[0; 16]].concat());
        let message = [&[kind, 1, 0, 0, 0, 0, 0, 0][..], &quoted].concat();
        packet(peer.ip(), own(0).ip(), 1, &message)
    };
    for packet in [segment(peer, own(80), ACK), icmp(3, 80), icmp(11, 80)] {
        assert!(bench.keeps(packet));
    }
    for packet in [
        segment(peer, own(81), SYN),
        datagram(peer, own(80), b"hello"),
        icmp(3, 81),
        // A ping may have anything in it.
        icmp(8, 80),
        vec![0x45],
    ] {
        assert!(!bench.keeps(packet));
    }
}

#[test]
fn nobody_begins_at_an_exposed_port_by_another_address_of_this_host_and_all_else_passes() {
    let mut bench = beside_a_kernel(&["192.0.2.5/24", "2001:db8::5/64"]);
    let (v4, v6) = (inside(1, 1000), "[fd10:1::2]:1000".parse().unwrap());
    let at = |address: &str, port| SocketAddr::new(address.parse().unwrap(), port);
    let from = |to: SocketAddr| if to.is_ipv4() { v4 } else { v6 };
    for address in [
        "192.0.2.5",
        "127.0.0.1",
        "192.0.2.255",
        "224.0.0.1",
        "2001:db8::5",
        "2001:db8::",
        "ff02::1",
    ] {
        let to = at(address, 80);
        assert!(bench.keeps(segment(from(to), to, SYN)), "{to}");
        for passes in [segment(from(to), to, SYN | ACK), segment(from(to), at(address, 81), SYN)] {
            assert!(!bench.keeps(passes), "{to}");
        }
        assert!(!bench.keeps(datagram(from(to), to, b"hello")), "{to}: one of TCP is exposed");
    }
    for elsewhere in ["192.0.2.6", "198.51.100.1", "2001:db8::6"] {
        let to = at(elsewhere, 80);
        assert!(!bench.keeps(segment(from(to), to, SYN)), "{to}: on its way through this host");
    }
    assert_eq!(bench.dropped(DropReason::FlowDenied), 7);
}

#[test]
fn what_hides_its_port_reaches_no_kernel_where_a_port_is_exposed() {
    let mut bench = beside_a_kernel(&["192.0.2.5/24", "2001:db8::5/64"]);
    let peer = inside(1, 1000);
    for address in ["10.10.0.1", "192.0.2.5", "192.0.2.6"] {
        let is_this_host = address != "192.0.2.6";
        let cut = |port: u16, offset: u16, len: usize| {
            let to = SocketAddr::new(address.parse().unwrap(), port);
            let mut packet = segment(peer, to, ACK);
            packet.truncate(20 + len);
            packet[2..4].copy_from_slice(&(20 + len as u16).to_be_bytes());
            packet[6..8].copy_from_slice(&(0x2000 | offset).to_be_bytes());
            packet
        };
        assert_eq!(bench.keeps(cut(80, 0, 16)), is_this_host, "{address}");
        assert_eq!(bench.keeps(cut(81, 0, 0)), is_this_host, "{address}: not in the first part");
        assert!(!bench.keeps(cut(81, 0, 16)) && !bench.keeps(cut(80, 1, 16)), "{address}");
    }
    let from = "fd10:1::2".parse().unwrap();
    for (address, is_this_host) in
        [("fd10::1", true), ("2001:db8::5", true), ("2001:db8::6", false)]
    {
        let to = address.parse().unwrap();
        let padded = |headers: usize| {
            let mut payload = [60, 0, 1, 4, 0, 0, 0, 0].repeat(headers);
            payload[8 * (headers - 1)] = 6;
            payload.extend([3, 232, 0, 81, 0, 0, 0, 0, 0, 0, 0, 0, 0x50, SYN, 0, 0, 0, 0, 0, 0]);
            packet(from, to, 60, &payload)
        };
        assert!(!bench.keeps(padded(8)), "{to}: it is read");
        assert_eq!(bench.keeps(padded(9)), is_this_host, "{to}");
        // A first fragment that ends before the port, and one that is still to visit somebody.
        let first = packet(from, to, 44, &[60, 0, 0, 1, 0, 0, 0, 9, 6, 0, 1, 4, 0, 0, 0, 0]);
        assert_eq!(bench.keeps(first), is_this_host, "{to}");
        assert_eq!(bench.keeps(packet(from, to, 43, &[6, 0, 4, 1, 0, 0, 0, 0])), is_this_host);
    }
}

#[test]
fn an_end_resets_both_sides_of_what_is_connected_and_so_does_an_engine_that_is_dropped() {
    for is_told in [true, false] {
        let (listener, place) = listen();
        let mut bench = Bench::new(&[]);
        bench.switch.set(Some(exposing(vec![exposed(Target::Address(place), &[])], &[])));
        bench.turn();
        let open = inside(1, 1000);
        bench.connect(open, own(80));
        bench.until("a connection", |bench| bench.state(open) == State::Established);
        let mut served = accept(&listener);
        if is_told {
            let now = bench.now;
            bench.engine.end(now);
            // The other shards end later, and go by these until then.
            assert!(bench.switch.settings().is_some());
            assert!(bench.engine.has_more());
            bench.until("a reset", |bench| bench.state(open) == State::Closed);
            assert!(!bench.engine.has_more());
        }
        drop(bench);
        let outcome = served.read(&mut [0; 8]);
        assert_eq!(outcome.unwrap_err().kind(), ErrorKind::ConnectionReset, "told: {is_told}");
    }
}

#[test]
fn datagrams_go_on_to_where_they_went_and_are_answered_when_a_name_puts_another_place_first() {
    let servers = [(); 2].map(|()| UdpSocket::bind("127.0.0.1:0").unwrap());
    let places = servers.each_ref().map(|server| server.local_addr().unwrap());
    let beyond = UdpSocket::bind("127.0.0.1:0").unwrap();
    beyond.set_read_timeout(Some(SOON)).unwrap();
    let mut bench = Bench::new(&[]);
    let lead = |bench: &mut Bench, places: &[SocketAddr]| {
        let named = exposed(Target::Named(places.to_vec()), &[]);
        let named = Exposed { service: Service::Udp(80), ..named };
        bench.switch.set(Some(Settings { exposed: vec![named], ..settings(&["127.0.0.1"]) }));
        bench.turn();
    };
    let heard = |bench: &mut Bench, from: SocketAddr, server: &UdpSocket| {
        bench.take(datagram(from, own(80), b"hello"));
        server.set_read_timeout(Some(SOON)).unwrap();
        server.recv_from(&mut [0; 8]).unwrap().1
    };
    let answered = |bench: &mut Bench, server: &UdpSocket, to: SocketAddr| {
        bench.others.clear();
        server.send_to(b"hi", to).unwrap();
        bench.until("an answer", |bench| bench.others.len() == 1);
    };
    let [early, late] = [inside(1, 1000), inside(1, 1001)];
    lead(&mut bench, &places);
    let socket = heard(&mut bench, early, &servers[0]);
    bench.take(datagram(early, beyond.local_addr().unwrap(), b"hello"));
    let carried = beyond.recv_from(&mut [0; 8]).unwrap().1;
    lead(&mut bench, &[places[1], places[0]]);
    answered(&mut bench, &servers[0], socket);
    answered(&mut bench, &beyond, carried);
    assert_eq!(heard(&mut bench, early, &servers[0]), socket);
    heard(&mut bench, late, &servers[1]);
    bench.turn();
    assert_eq!(bench.switch.flows(), 3);
    lead(&mut bench, &places[1..]);
    assert_eq!(bench.switch.flows(), 2, "it leads there no more");
    heard(&mut bench, early, &servers[1]);
}
