//! `Masquerade = flow`: what a peer reaches through the sockets of a hub that forwards nothing itself.
//!
//! ```text
//! client ══ tunnel ══ hub ── router ── server
//! second ══════════════╝
//! ```

use std::io::{self, ErrorKind, Read, Write};
use std::net::{IpAddr, Shutdown, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::os::unix::net::UnixStream;
use std::sync::atomic::{AtomicU32, Ordering};
use std::thread;
use std::time::Duration;

use hybridwg::packet::train::Train;
use hybridwg::proto::endpoint::Endpoint;
use hybridwg::sys::sockets::{DatagramSocket, Fragments, Kind};
use hybridwg::wire::ip::{IpHeader, PROTOCOL_TCP, PROTOCOL_UDP};
use rustix::fd::OwnedFd;
use rustix::net::sockopt::{
    Ipv4PathMtuDiscovery, Timeout, set_ip_mtu_discover, set_socket_linger, set_socket_timeout,
};
use rustix::net::{AddressFamily, RecvFlags, SocketFlags, SocketType, ipproto, socket_with};

use super::net::{Host, eventually};
use super::skips;
use super::tunnel::End;
use super::tunnel::Program::{self, Hybridwg, Sharded};

const PROGRAMS: &[&str] = &["ip", "ping", "wg"];

/// What must come comes by then, also on a busy machine.
const SOON: Duration = Duration::from_secs(20);

/// Nothing comes that should not come.
const NOTHING: Duration = Duration::from_millis(300);

/// The networks between the hosts.
struct Places {
    client: Host,
    second: Host,
    hub: Host,
    router: Host,
    server: Host,
}

const SERVER: &str = "198.51.100.2";
const SERVER_V6: &str = "2001:db8:2::2";

impl Places {
    fn new() -> Self {
        let [client, second, hub, router, server] = std::array::from_fn(|_| Host::new());
        client.wire("192.168.7.1/24", &hub, "192.168.7.2/24");
        second.wire("192.168.8.1/24", &hub, "192.168.8.2/24");
        hub.wire("203.0.113.1/24 2001:db8:1::1/64", &router, "203.0.113.2/24 2001:db8:1::2/64");
        router.wire(
            "198.51.100.1/24 2001:db8:2::1/64",
            &server,
            "198.51.100.2/24 198.51.100.3/24 198.51.100.4/24 2001:db8:2::2/64",
        );
        for (host, v4, v6) in
            [(&hub, "203.0.113.2", "2001:db8:1::2"), (&server, "198.51.100.1", "2001:db8:2::1")]
        {
            host.sh(&format!("ip route add default via {v4}"));
            host.sh(&format!("ip route add default via {v6}"));
        }
        router.forward();
        // As systemd and container runtimes have it.
        hub.set("net/ipv4/ping_group_range", "0 2147483647");
        Self { client, second, hub, router, server }
    }

    /// Everything of the client's goes to the hub, which carries on what `rules` say.
    fn join(&self, program: Program, rules: &str) -> (End<'_>, End<'_>) {
        let hub = End::start(&self.hub, program);
        let client = End::start(&self.client, Hybridwg);
        hub.setconf(&format!(
            "[Peer]\nPublicKey = {}\nAllowedIPs = 10.10.0.2/32, fd10::2/128",
            client.keys.public
        ));
        attach(&client, &hub, "192.168.7.2", "10.10.0.2/24 fd10::2/64");
        hub.up("10.10.0.1/24 fd10::1/64");
        carry(&hub, rules);
        (client, hub)
    }
}

/// Has `client` send everything to `hub`.
fn attach(client: &End<'_>, hub: &End<'_>, endpoint: &str, addresses: &str) {
    client.setconf(&format!(
        "[Peer]\nPublicKey = {}\nAllowedIPs = 0.0.0.0/0, ::/0\nEndpoint = {endpoint}:{}",
        hub.keys.public,
        hub.port()
    ));
    client.up(addresses);
    client.host.sh(&format!("ip route add default dev {}", client.interface));
    client.host.sh(&format!("ip -6 route add default dev {}", client.interface));
}

/// Tells the daemon what to carry on.
fn carry(hub: &End<'_>, rules: &str) {
    let answer = configure(hub, &format!("hybridwg_flows=on\n{rules}"));
    assert_eq!(answer, "errno=0\n\n");
}

fn configure(end: &End<'_>, lines: &str) -> String {
    let path = format!("/var/run/wireguard/{}.sock", end.interface);
    let mut socket = UnixStream::connect(path).unwrap();
    socket.write_all(format!("set=1\n{lines}\n").as_bytes()).unwrap();
    let mut answer = vec![0; 64];
    let len = socket.read(&mut answer).unwrap();
    String::from_utf8_lossy(&answer[..len]).into_owned()
}

fn listen(host: &Host, address: &str) -> (TcpListener, SocketAddr) {
    let address: IpAddr = address.parse().unwrap();
    let listener = host.run(|| TcpListener::bind((address, 0)).unwrap());
    let place = listener.local_addr().unwrap();
    (listener, place)
}

fn connect(host: &Host, place: SocketAddr) -> io::Result<TcpStream> {
    let stream = host.run(|| TcpStream::connect_timeout(&place, SOON))?;
    stream.set_read_timeout(Some(SOON))?;
    stream.set_write_timeout(Some(SOON))?;
    Ok(stream)
}

fn bind(host: &Host, address: &str) -> UdpSocket {
    let address: IpAddr = address.parse().unwrap();
    let socket = host.run(|| UdpSocket::bind((address, 0)).unwrap());
    socket.set_read_timeout(Some(SOON)).unwrap();
    socket
}

/// One datagram, and who sent it. A machine that stops for a while interrupts the call.
fn receive(socket: &UdpSocket) -> (Vec<u8>, SocketAddr) {
    let mut buffer = vec![0; 65_536];
    loop {
        match socket.recv_from(&mut buffer) {
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            received => {
                let (len, from) = received.unwrap();
                buffer.truncate(len);
                return (buffer, from);
            }
        }
    }
}

fn pattern(bytes: usize) -> Vec<u8> {
    (0..bytes).map(|n| (n * 31 + n / 251) as u8).collect()
}

#[test]
fn a_mebibyte_goes_up_then_the_end_then_a_mebibyte_comes_back_over_both_families() {
    if skips(PROGRAMS) {
        return;
    }
    let places = Places::new();
    let (_client, _hub) = places.join(Hybridwg, "");
    for address in [SERVER, SERVER_V6] {
        let (listener, place) = listen(&places.server, address);
        let served = thread::spawn(move || {
            let (mut stream, from) = listener.accept().unwrap();
            let mut heard = Vec::new();
            stream.read_to_end(&mut heard).unwrap();
            stream.write_all(&pattern(1 << 20)).unwrap();
            (heard, from)
        });
        let mut stream = connect(&places.client, place).unwrap();
        stream.write_all(&pattern(1 << 20)).unwrap();
        stream.shutdown(Shutdown::Write).unwrap();
        let mut heard = Vec::new();
        stream.read_to_end(&mut heard).unwrap();
        assert!(heard == pattern(1 << 20), "{} bytes", heard.len());
        let (heard, from) = served.join().unwrap();
        assert!(heard == pattern(1 << 20), "{} bytes", heard.len());
        let hub = if place.is_ipv4() { "203.0.113.1" } else { "2001:db8:1::1" };
        assert_eq!(from.ip(), hub.parse::<IpAddr>().unwrap(), "the hub's own address");
    }
}

#[test]
fn who_closes_first_may_still_hear_on_either_side() {
    if skips(PROGRAMS) {
        return;
    }
    let places = Places::new();
    let (_client, _hub) = places.join(Hybridwg, "");
    let (listener, place) = listen(&places.server, SERVER);
    let mut stream = connect(&places.client, place).unwrap();
    let (mut served, _) = listener.accept().unwrap();
    served.set_read_timeout(Some(SOON)).unwrap();
    served.write_all(b"all I have").unwrap();
    served.shutdown(Shutdown::Write).unwrap();
    let mut heard = Vec::new();
    stream.read_to_end(&mut heard).unwrap();
    assert_eq!(heard, b"all I have");
    stream.write_all(b"thank you").unwrap();
    let mut answer = [0; 9];
    served.read_exact(&mut answer).unwrap();
    assert_eq!(answer, *b"thank you");
    stream.shutdown(Shutdown::Write).unwrap();
    assert_eq!(served.read(&mut answer).unwrap(), 0);
}

#[test]
fn a_closed_port_refuses_and_an_unreachable_host_is_unreachable() {
    if skips(PROGRAMS) {
        return;
    }
    let places = Places::new();
    places.hub.sh("ip route add unreachable 198.18.0.0/16");
    places.hub.sh("ip route add prohibit 198.19.0.0/16");
    places.hub.sh("ip route add throw 192.0.2.0/24");
    let (_client, _hub) = places.join(Hybridwg, "");
    for address in [SERVER, SERVER_V6] {
        let (listener, place) = listen(&places.server, address);
        drop(listener);
        let error = connect(&places.client, place).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::ConnectionRefused, "{error}");
    }
    for address in ["198.18.0.1:80", "198.19.0.1:80"] {
        let error = connect(&places.client, address.parse().unwrap()).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::HostUnreachable, "{address}: {error}");
    }
}

/// Type and code of the next ICMP error about a packet of `protocol` to `goal` that comes to `socket`, a
/// raw one. Others may be about a packet that was sent twice, and come late.
fn next_error(socket: &OwnedFd, goal: IpAddr, protocol: u8) -> (u8, u8) {
    let mut buffer = [0; 2048];
    loop {
        let (len, _) = rustix::net::recv(socket, &mut buffer[..], RecvFlags::empty()).unwrap();
        // Of IPv4 the header is there, too.
        let message = &buffer[if goal.is_ipv4() { 20 } else { 0 }..len];
        let is_error = if goal.is_ipv4() { matches!(message[0], 3 | 11) } else { message[0] < 128 };
        if is_error {
            let quoted = &message[8..];
            let quoted_protocol = quoted[if goal.is_ipv4() { 9 } else { 6 }];
            let destination = IpHeader::parse(quoted).unwrap().destination;
            if (destination, quoted_protocol) == (goal, protocol) {
                return (message[0], message[1]);
            }
        }
    }
}

#[test]
fn what_cannot_be_reached_is_told_by_the_icmp_that_says_why() {
    if skips(PROGRAMS) {
        return;
    }
    let places = Places::new();
    for (family, [unreachable, prohibit, throw]) in [
        ("", ["198.18.0.0/24", "198.18.1.0/24", "198.18.2.0/24"]),
        ("-6", ["2001:db8:18::/48", "2001:db8:19::/48", "2001:db8:20::/48"]),
    ] {
        places.hub.sh(&format!("ip {family} route add unreachable {unreachable}"));
        places.hub.sh(&format!("ip {family} route add prohibit {prohibit}"));
        places.hub.sh(&format!("ip {family} route add throw {throw}"));
    }
    places.router.sh("ip route add unreachable 198.18.3.0/24");
    places.router.sh("ip -6 route add unreachable 2001:db8:21::/48");
    let (_client, _hub) = places.join(Hybridwg, "");
    let raw = |family, protocol| {
        let flags = SocketFlags::CLOEXEC;
        let socket = socket_with(family, SocketType::RAW, flags, Some(protocol)).unwrap();
        set_socket_timeout(&socket, Timeout::Recv, Some(SOON)).unwrap();
        socket
    };
    let [v4, v6] = [
        places.client.run(|| raw(AddressFamily::INET, ipproto::ICMP)),
        places.client.run(|| raw(AddressFamily::INET6, ipproto::ICMPV6)),
    ];
    for (address, kind, code) in [
        // By this host's own routes, and by a router on the way.
        ("198.18.0.1", 3, 1),
        ("198.18.1.1", 3, 13),
        ("198.18.2.1", 3, 0),
        ("198.18.3.1", 3, 1),
        ("2001:db8:18::1", 1, 3),
        ("2001:db8:19::1", 1, 1),
        ("2001:db8:20::1", 1, 0),
        ("2001:db8:21::1", 1, 0),
    ] {
        let address: IpAddr = address.parse().unwrap();
        let socket = if address.is_ipv4() { &v4 } else { &v6 };
        let error = connect(&places.client, (address, 80).into()).unwrap_err();
        assert!(is_unreachable(&error), "{address}: {error}");
        let told = next_error(socket, address, PROTOCOL_TCP);
        assert_eq!(told, (kind, code), "TCP to {address}");
        let own = if address.is_ipv4() { "10.10.0.2" } else { "fd10::2" };
        let client = bind(&places.client, own);
        client.send_to(b"anybody?", (address, 80)).unwrap();
        let (told, _) = next_error(socket, address, PROTOCOL_UDP);
        assert_eq!(told, kind, "UDP to {address}");
    }
}

fn is_unreachable(error: &io::Error) -> bool {
    use ErrorKind::{HostUnreachable, NetworkUnreachable, PermissionDenied};
    matches!(error.kind(), HostUnreachable | NetworkUnreachable | PermissionDenied)
}

#[test]
fn a_reset_on_one_side_is_a_reset_on_the_other() {
    if skips(PROGRAMS) {
        return;
    }
    let places = Places::new();
    let (_client, _hub) = places.join(Hybridwg, "");
    let (listener, place) = listen(&places.server, SERVER);
    for client_resets in [true, false] {
        let stream = connect(&places.client, place).unwrap();
        let (served, _) = listener.accept().unwrap();
        served.set_read_timeout(Some(SOON)).unwrap();
        let (resets, mut hears) = if client_resets { (stream, served) } else { (served, stream) };
        hears.write_all(b"unread").unwrap();
        set_socket_linger(&resets, Some(Duration::ZERO)).unwrap();
        drop(resets);
        let error = hears.read(&mut [0; 8]).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::ConnectionReset, "{error}");
    }
}

#[test]
fn ping_and_traceroute_show_the_real_hops() {
    if skips(PROGRAMS) || skips(&["traceroute", "mtr"]) {
        return;
    }
    let places = Places::new();
    let (_client, _hub) = places.join(Hybridwg, "");
    let client = &places.client;
    for (address, hops) in [
        (SERVER, ["10.10.0.1", "203.0.113.2", SERVER]),
        (SERVER_V6, ["fd10::1", "2001:db8:1::2", SERVER_V6]),
    ] {
        eventually("an echo", SOON, || client.pings(address));
        client.sh(&format!("ping -n -q -c 1 -W 5 -s 1200 {address}"));
        let assert_hops = |text: &str| {
            let at: Vec<_> = hops.iter().map(|hop| text.find(&format!("{hop} "))).collect();
            assert!(at.iter().all(Option::is_some) && at.is_sorted(), "{address}:\n{text}");
        };
        for kind in ["-U -p 33434", "-I"] {
            let line = format!("traceroute -n -q 1 -w 3 -N 1 {kind} {address}");
            let text = client.sh(&line);
            // The first line names the goal.
            assert_hops(text.split_once('\n').unwrap().1);
        }
        for kind in ["", "--udp"] {
            let text = client.sh(&format!("mtr -n -r -c 1 -G 2 {kind} {address}"));
            assert_hops(&text);
        }
    }
}

#[test]
fn pings_go_where_the_kernel_forbids_them_to_programs() {
    if skips(PROGRAMS) || skips(&["traceroute"]) {
        return;
    }
    let places = Places::new();
    places.hub.set("net/ipv4/ping_group_range", "1 0");
    let (_client, _hub) = places.join(Hybridwg, "");
    for address in [SERVER, SERVER_V6] {
        eventually("an echo", SOON, || places.client.pings(address));
        places.client.sh(&format!("ping -n -q -c 2 -i 0.2 -W 5 -s 1200 {address}"));
        let text = places.client.sh(&format!("traceroute -n -q 1 -w 3 -N 1 -I {address}"));
        let (_, hops) = text.split_once('\n').unwrap();
        assert!(hops.contains("203.0.113.2 ") || hops.contains("2001:db8:1::2 "), "{text}");
    }
}

#[test]
fn datagrams_of_60_kilobytes_go_both_ways() {
    if skips(PROGRAMS) {
        return;
    }
    let places = Places::new();
    let (_client, _hub) = places.join(Hybridwg, "");
    eventually("a session", SOON, || places.client.pings("10.10.0.1"));
    for (server, client) in [(SERVER, "10.10.0.2"), (SERVER_V6, "fd10::2")] {
        let (server, client) = (bind(&places.server, server), bind(&places.client, client));
        let datagram = pattern(60_000);
        client.send_to(&datagram, server.local_addr().unwrap()).unwrap();
        let (received, from) = receive(&server);
        assert!(received == datagram, "{} bytes", received.len());
        server.send_to(&datagram, from).unwrap();
        let (received, _) = receive(&client);
        assert!(received == datagram, "{} bytes", received.len());
    }
}

#[test]
fn datagrams_in_a_row_arrive_whole_and_in_order_both_ways() {
    if skips(PROGRAMS) {
        return;
    }
    let places = Places::new();
    let (_client, _hub) = places.join(Hybridwg, "");
    eventually("a session", SOON, || places.client.pings("10.10.0.1"));
    for (server, client) in [(SERVER, "10.10.0.2"), (SERVER_V6, "fd10::2")] {
        let (server, client) = (bind(&places.server, server), bind(&places.client, client));
        // Runs of one length, a shorter one, none at all, longer ones, and one in fragments.
        let lengths = [[900; 9], [901; 9], [7; 9], [1300; 9]].concat();
        let lengths = [&lengths[..], &[100, 0, 3000, 900]].concat();
        let datagrams: Vec<Vec<u8>> = lengths
            .into_iter()
            .enumerate()
            .map(|(n, length)| pattern(length).iter().map(|byte| byte ^ n as u8).collect())
            .collect();
        let whole = |received: &[u8], sent: &[u8]| {
            assert!(received == sent, "{} bytes for {}", received.len(), sent.len());
        };
        for datagram in &datagrams {
            client.send_to(datagram, server.local_addr().unwrap()).unwrap();
        }
        let mut back = None;
        for datagram in &datagrams {
            let (received, from) = receive(&server);
            whole(&received, datagram);
            back = Some(from);
        }
        for datagram in &datagrams {
            server.send_to(datagram, back.unwrap()).unwrap();
        }
        for datagram in &datagrams {
            whole(&receive(&client).0, datagram);
        }
    }
}

#[test]
fn datagrams_that_the_kernel_has_joined_come_apart_again() {
    if skips(PROGRAMS) {
        return;
    }
    let places = Places::new();
    let (_client, _hub) = places.join(Hybridwg, "");
    eventually("a session", SOON, || places.client.pings("10.10.0.1"));
    for (server, client) in [(SERVER, "10.10.0.2"), (SERVER_V6, "fd10::2")] {
        let (server, client) = (bind(&places.server, server), bind(&places.client, client));
        client.send_to(b"hello", server.local_addr().unwrap()).unwrap();
        let (_, from) = receive(&server);
        let any = if from.is_ipv4() { "0.0.0.0:0" } else { "[::]:0" }.parse().unwrap();
        let open = || DatagramSocket::open(Kind::Udp, any, 0);
        let mut joins = places.server.run(open).unwrap();
        // The longer ones do not fit the tunnel.
        for stride in [1000, 1440] {
            let datagrams = pattern(10 * stride + 33);
            let mut train = Train::new();
            train.start(Endpoint { remote: from, local: None }, 0);
            for datagram in datagrams.chunks(stride) {
                train.append(datagram.len()).unwrap().copy_from_slice(datagram);
            }
            joins.send_trains(64, Fragments::Allowed, &[train]).unwrap();
            for datagram in datagrams.chunks(stride) {
                let (received, _) = receive(&client);
                assert!(received == datagram, "{} for {} bytes", received.len(), datagram.len());
            }
        }
    }
}

/// Answers one question over `socket`, and one over a connection with `listener`, as name servers do.
/// [RFC 1035 §4.1, §4.2]
fn serve_names(socket: &UdpSocket, listener: &TcpListener) {
    let answer = |question: &[u8]| {
        // The same, but a response with an address.
        let mut answer = question.to_vec();
        (answer[2], answer[7]) = (0x80, 1);
        answer.extend(b"\xc0\x0c\0\x01\0\x01\0\0\0\x3c\0\x04\xc6\x33\x64\x07");
        answer
    };
    let (question, from) = receive(socket);
    socket.send_to(&answer(&question), from).unwrap();
    let (mut stream, _) = listener.accept().unwrap();
    let mut length = [0; 2];
    stream.read_exact(&mut length).unwrap();
    let mut question = vec![0; u16::from_be_bytes(length).into()];
    stream.read_exact(&mut question).unwrap();
    let answer = answer(&question);
    stream.write_all(&u16::try_from(answer.len()).unwrap().to_be_bytes()).unwrap();
    stream.write_all(&answer).unwrap();
}

#[test]
fn name_servers_answer_over_udp_and_over_tcp() {
    if skips(PROGRAMS) {
        return;
    }
    let places = Places::new();
    let (_client, _hub) = places.join(Hybridwg, "");
    for address in [SERVER, SERVER_V6] {
        let place = SocketAddr::new(address.parse().unwrap(), 53);
        let (socket, listener) = places
            .server
            .run(|| (UdpSocket::bind(place).unwrap(), TcpListener::bind(place).unwrap()));
        socket.set_read_timeout(Some(SOON)).unwrap();
        let served = thread::spawn(move || serve_names(&socket, &listener));
        let question = b"\x12\x34\x01\0\0\x01\0\0\0\0\0\0\x02db\x04test\0\0\x01\0\x01";
        let client = bind(&places.client, if place.is_ipv4() { "10.10.0.2" } else { "fd10::2" });
        client.send_to(question, place).unwrap();
        let (answer, _) = receive(&client);
        assert!(answer[..2] == question[..2] && answer.ends_with(&[198, 51, 100, 7]));
        let mut stream = connect(&places.client, place).unwrap();
        stream.write_all(&u16::try_from(question.len()).unwrap().to_be_bytes()).unwrap();
        stream.write_all(question).unwrap();
        let mut heard = Vec::new();
        stream.read_to_end(&mut heard).unwrap();
        assert_eq!(heard[2..], answer);
        served.join().unwrap();
    }
}

#[test]
fn a_udp_port_looks_the_same_from_everywhere_and_only_who_was_spoken_to_answers() {
    if skips(PROGRAMS) {
        return;
    }
    let places = Places::new();
    let (_client, hub) = places.join(Hybridwg, "");
    let client = bind(&places.client, "10.10.0.2");
    let [first, second, stranger] =
        [SERVER, "198.51.100.3", "198.51.100.4"].map(|address| bind(&places.server, address));
    let mut buffer = [0; 64];
    let mut seen = Vec::new();
    for server in [&first, &second] {
        client.send_to(b"hello", server.local_addr().unwrap()).unwrap();
        let (_, from) = receive(server);
        seen.push(from);
        server.send_to(b"hi", from).unwrap();
        assert_eq!(receive(&client), (b"hi".to_vec(), server.local_addr().unwrap()));
    }
    assert_eq!(seen[0], seen[1]);
    assert_eq!(seen[0].port(), client.local_addr().unwrap().port(), "its own, if that is free");
    // Another port of somebody who was spoken to may answer; another address may not.
    let other_port = bind(&places.server, SERVER);
    stranger.send_to(b"spam", seen[0]).unwrap();
    other_port.send_to(b"fine", seen[0]).unwrap();
    assert_eq!(receive(&client).0, b"fine");
    client.set_read_timeout(Some(NOTHING)).unwrap();
    assert!(client.recv_from(&mut buffer).is_err());
    // Whoever it may speak to may speak first, if the operator says so.
    carry(&hub, "hybridwg_flows_udp_filter=endpoint\nhybridwg_flows_deny_to=198.51.100.3\n");
    client.set_read_timeout(Some(SOON)).unwrap();
    second.send_to(b"denied", seen[0]).unwrap();
    stranger.send_to(b"news", seen[0]).unwrap();
    assert_eq!(receive(&client).0, b"news");
}

#[test]
fn so_many_flows_as_the_operator_says_and_the_part_of_them_for_a_peer_that_the_others_leave() {
    if skips(PROGRAMS) {
        return;
    }
    let places = Places::new();
    let (_client, hub) = places.join(Hybridwg, "hybridwg_flows_max=4\n");
    let (listener, place) = listen(&places.server, SERVER);
    let mut streams: Vec<_> = (0..4).map(|_| connect(&places.client, place).unwrap()).collect();
    let dial = || places.client.run(|| TcpStream::connect_timeout(&place, NOTHING));
    assert_eq!(dial().unwrap_err().kind(), ErrorKind::TimedOut);
    let peers = [("aa", 1), ("bb", 2), ("cc", 3)].map(|(byte, number)| {
        format!("public_key={}\nallowed_ip=10.99.{number}.0/24\n", byte.repeat(32))
    });
    assert_eq!(configure(&hub, &peers.concat()), "errno=0\n\n");
    carry(&hub, "hybridwg_flows_max=16\n");
    assert_eq!(dial().unwrap_err().kind(), ErrorKind::TimedOut);
    carry(&hub, "hybridwg_flows_max=20\n");
    streams.push(connect(&places.client, place).unwrap());
    drop(listener);
}

#[test]
fn a_closed_udp_port_is_told_and_a_narrow_path_too() {
    if skips(PROGRAMS) {
        return;
    }
    let places = Places::new();
    let (_client, _hub) = places.join(Hybridwg, "");
    let closed = bind(&places.server, SERVER).local_addr().unwrap();
    let client = bind(&places.client, "10.10.0.2");
    client.connect(closed).unwrap();
    client.send(b"anybody?").unwrap();
    let error = client.recv(&mut [0; 8]).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::ConnectionRefused, "{error}");
    places.router.sh("ip route replace 198.51.100.0/24 dev eth1 mtu lock 1280");
    let learns = || {
        let line = format!("ping -n -c 1 -W 1 -M do -s 1300 {SERVER}");
        let output = places.client.try_sh(&line);
        let text = String::from_utf8_lossy(&output.stdout).into_owned()
            + &String::from_utf8_lossy(&output.stderr);
        text.contains("mtu = 1280") || text.contains("mtu=1280")
    };
    eventually("what fits is told", SOON, learns);
    // The hub has learned it, too, and tells it of datagrams from its own knowledge.
    let server = bind(&places.server, SERVER);
    let client = bind(&places.client, "10.10.0.2");
    set_ip_mtu_discover(&client, Ipv4PathMtuDiscovery::PROBE).unwrap();
    client.connect(server.local_addr().unwrap()).unwrap();
    let refuses = || {
        let _ = client.send(&pattern(1300));
        client.set_read_timeout(Some(NOTHING)).unwrap();
        let error = client.recv(&mut [0; 8]).unwrap_err();
        error.raw_os_error() == Some(rustix::io::Errno::MSGSIZE.raw_os_error())
    };
    eventually("a datagram does not fit", SOON, refuses);
}

#[test]
fn peers_reach_each_other_although_the_hub_does_not_forward() {
    if skips(PROGRAMS) {
        return;
    }
    let places = Places::new();
    let (_client, hub) = places.join(Hybridwg, "");
    let second = End::start(&places.second, Hybridwg);
    hub.set(&format!("peer {} allowed-ips 10.10.0.3/32,fd10::3/128", second.keys.public));
    attach(&second, &hub, "192.168.8.2", "10.10.0.3/24 fd10::3/64");
    for address in ["10.10.0.1", "10.10.0.2", "fd10::2"] {
        eventually(address, SOON, || places.second.pings(address));
    }
    let (listener, place) = listen(&places.client, "10.10.0.2");
    let mut stream = connect(&places.second, place).unwrap();
    let (mut served, from) = listener.accept().unwrap();
    assert_eq!(from.ip(), "10.10.0.3".parse::<IpAddr>().unwrap(), "routed, not masqueraded");
    served.set_read_timeout(Some(SOON)).unwrap();
    stream.write_all(b"peer").unwrap();
    let mut heard = [0; 4];
    served.read_exact(&mut heard).unwrap();
    assert_eq!(heard, *b"peer");
    // In bulk as well, where packets travel merged.
    let sent = thread::spawn(move || stream.write_all(&pattern(8 << 20)));
    let mut heard = vec![0; 8 << 20];
    served.read_exact(&mut heard).unwrap();
    assert!(heard == pattern(8 << 20), "other bytes than were sent");
    sent.join().unwrap().unwrap();
}

#[test]
fn what_is_the_hubs_alone_is_denied_until_a_rule_names_it() {
    if skips(PROGRAMS) {
        return;
    }
    let places = Places::new();
    places.hub.sh("ip address add 169.254.169.254/32 dev lo");
    let (_client, hub) = places.join(Hybridwg, "");
    let addresses = ["203.0.113.1", "169.254.169.254", "192.168.7.2"];
    let listeners = addresses.map(|address| listen(&places.hub, address));
    // The way to the endpoint is not the tunnel.
    for (_, place) in &listeners[..2] {
        let error = connect(&places.client, *place).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::HostUnreachable, "{place}: {error}");
    }
    assert!(!places.client.pings("203.0.113.1"));
    carry(&hub, "hybridwg_flows_allow_to=host/tcp\nhybridwg_flows_allow_to=169.254.169.254/tcp\n");
    for (_, place) in &listeners[..2] {
        connect(&places.client, *place).unwrap();
    }
    let (_listener, place) = listen(&places.server, SERVER);
    let error = connect(&places.client, place).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::HostUnreachable, "it is not named: {error}");
}

#[test]
fn the_hubs_loopback_is_denied_under_every_name_that_ipv6_has_for_it() {
    if skips(PROGRAMS) || skips(&["nft"]) {
        return;
    }
    let places = Places::new();
    let (_client, hub) = places.join(Hybridwg, "");
    let (listener, place) = listen(&places.hub, "127.0.0.1");
    listener.set_nonblocking(true).unwrap();
    // No socket sends to a mapped address over IPv6: the packet gets it on its way.
    for line in [
        "nft add table ip6 t",
        "nft add chain ip6 t c { type nat hook output priority -100 ; }",
        "nft add rule ip6 t c ip6 daddr 2001:db8:9::9 dnat to ::ffff:7f00:1",
    ] {
        places.client.sh(line);
    }
    eventually("a session", SOON, || places.client.pings("10.10.0.1"));
    let mapped = "2001:db8:9::9";
    let names = [mapped, "64:ff9b::7f00:1", "2002:7f00:1::1"];
    // A rule for all of IPv6 opens none of them, nor one for the address that is mapped.
    for (rules, names) in [
        ("", &names[..]),
        ("hybridwg_flows_allow_to=2000::/3\nhybridwg_flows_allow_to=64:ff9b::/96\n", &names),
        ("hybridwg_flows_allow_to=127.0.0.1/tcp\n", &[mapped]),
    ] {
        carry(&hub, rules);
        for name in names {
            let place = (name.parse::<IpAddr>().unwrap(), place.port()).into();
            let error = connect(&places.client, place).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::PermissionDenied, "{name}, {rules:?}: {error}");
        }
    }
    assert_eq!(listener.accept().unwrap_err().kind(), ErrorKind::WouldBlock);
}

#[test]
fn flows_of_a_peer_that_is_removed_end_at_once() {
    if skips(PROGRAMS) {
        return;
    }
    let places = Places::new();
    let (client, hub) = places.join(Hybridwg, "");
    let (listener, place) = listen(&places.server, SERVER);
    let stream = connect(&places.client, place).unwrap();
    let (mut served, _) = listener.accept().unwrap();
    served.set_read_timeout(Some(SOON)).unwrap();
    hub.set(&format!("peer {} remove", client.keys.public));
    let error = served.read(&mut [0; 8]).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::ConnectionReset, "{error}");
    drop(stream);
}

#[test]
fn several_shards_share_one_engine() {
    if skips(PROGRAMS) {
        return;
    }
    let places = Places::new();
    let (_client, _hub) = places.join(Sharded, "");
    let (listener, place) = listen(&places.server, SERVER);
    let mut stream = connect(&places.client, place).unwrap();
    let (mut served, _) = listener.accept().unwrap();
    let sent = thread::spawn(move || served.write_all(&pattern(1 << 20)));
    let mut heard = Vec::new();
    stream.read_to_end(&mut heard).unwrap();
    assert!(heard == pattern(1 << 20), "{} bytes", heard.len());
    sent.join().unwrap().unwrap();
}

#[test]
fn a_flood_of_syns_from_one_peer_leaves_the_others_their_flows() {
    if skips(PROGRAMS) {
        return;
    }
    let places = Places::new();
    let (_client, hub) = places.join(Hybridwg, "");
    let second = End::start(&places.second, Hybridwg);
    hub.set(&format!("peer {} allowed-ips 10.10.0.3/32", second.keys.public));
    attach(&second, &hub, "192.168.8.2", "10.10.0.3/24");
    eventually("the second peer is there", SOON, || places.second.pings("10.10.0.1"));
    // Nobody answers for these addresses, and nobody says so.
    places.router.sh("ip route add blackhole 198.18.0.0/15");
    let (listener, place) = listen(&places.server, SERVER);
    let mut stream = connect(&places.second, place).unwrap();
    let (mut served, _) = listener.accept().unwrap();
    let flooded = &AtomicU32::new(0);
    let heard = thread::scope(|scope| {
        let flood = scope.spawn(|| {
            places.client.run(|| {
                for n in 0..10_000_u32 {
                    let [_, _, high, low] = n.to_be_bytes();
                    // Closed again at once, which nobody is told.
                    drop(dial(SocketAddr::from(([198, 18, high, low], 80))));
                    flooded.store(n + 1, Ordering::Relaxed);
                }
            });
        });
        let sent = scope.spawn(move || {
            // A piece for each hundred of them: as long as the flood goes on, so does this.
            for piece in pattern(1 << 20).chunks((1 << 20) / 128) {
                served.write_all(piece).unwrap();
                let before = flooded.load(Ordering::Relaxed);
                let goes_on = || {
                    let now = flooded.load(Ordering::Relaxed);
                    now >= 10_000 || now >= before + 50
                };
                eventually("the flood", SOON, goes_on);
            }
        });
        let mut heard = Vec::new();
        stream.read_to_end(&mut heard).unwrap();
        sent.join().unwrap();
        flood.join().unwrap();
        heard
    });
    assert!(heard == pattern(1 << 20), "{} bytes, or others", heard.len());
    // And a new one is to be had as well.
    let mut stream = connect(&places.second, place).unwrap();
    let (mut served, _) = listener.accept().unwrap();
    stream.write_all(b"still here").unwrap();
    let mut heard = [0; 10];
    served.read_exact(&mut heard).unwrap();
    assert_eq!(heard, *b"still here");
}

/// Begins to connect and does not wait.
fn dial(place: SocketAddr) -> OwnedFd {
    let flags = SocketFlags::NONBLOCK | SocketFlags::CLOEXEC;
    let socket = socket_with(AddressFamily::INET, SocketType::STREAM, flags, None).unwrap();
    let _ = rustix::net::connect(&socket, &place);
    socket
}
