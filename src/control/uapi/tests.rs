//! The text protocol without a device, and the client against a scripted server.

use std::io::{Read, Write};
use std::os::unix::net::UnixListener;
use std::thread;
use std::time::Duration;

use proptest::prelude::*;

use super::client::{ClientError, UapiClient, interfaces_in};
use super::get::{GetParser, ReplyError};
use super::request::{Fault, Request, RequestReader};
use super::{
    Errno, MAX_LINE_BYTES, Operation, Refusal, get, is_interface_name, parse_endpoint, reply,
    reply_to_set, set, socket_path,
};
use crate::control::command::{
    AllowedIpChange, ClampMss, DeviceSnapshot, Flows, Health, Inside, MtuPolicy, PeerSnapshot,
    PeerUpdate, SetRequest,
};
use crate::control::ends::Expose;
use crate::control::proxy::{Serve, Serving};
use crate::crypto::key::{PresharedKey, PrivateKey, PublicKey};
use crate::flow::policy::{Policy, Rule};
use crate::flow::tcp::Algorithm;
use crate::flow::tuning::{Tuning, UdpFilter};
use crate::proto::places::Place;
use crate::time::Wall;

const ZEROS: &str = "0000000000000000000000000000000000000000000000000000000000000000";

fn hex(byte: u8) -> String {
    format!("{byte:02x}").repeat(32)
}

fn public(byte: u8) -> PublicKey {
    PublicKey::from_bytes([byte; 32])
}

fn read(text: &str) -> Vec<Request> {
    let mut requests = Vec::new();
    RequestReader::new().feed(text.as_bytes(), |request| requests.push(request));
    requests
}

/// The one request that `lines` after `set=1` are.
fn read_set(lines: &str) -> Request {
    let mut requests = read(&format!("set=1\n{lines}\n"));
    assert_eq!(requests.len(), 1, "{lines:?}");
    requests.remove(0)
}

fn accepted(lines: &str) -> SetRequest {
    match read_set(lines) {
        Request::Set(request) => request,
        refused => panic!("{lines:?}: {refused:?}"),
    }
}

fn refused(lines: &str) -> Fault {
    match read_set(lines) {
        Request::Refused(Operation::Set, fault) => fault,
        accepted => panic!("{lines:?}: {accepted:?}"),
    }
}

fn parse_get(text: &str) -> Result<DeviceSnapshot, ReplyError> {
    let mut parser = GetParser::default();
    for line in text.lines() {
        if let Some(device) = parser.line(line)? {
            return Ok(device);
        }
    }
    Err(ReplyError::Truncated)
}

#[test]
fn ua_01_the_socket_is_where_wg_looks() {
    assert_eq!(socket_path("wg0").to_str(), Some("/var/run/wireguard/wg0.sock"));
    for name in ["wg0", "a", "hybrid-wg_0=+.1", "123456789012345"] {
        assert!(is_interface_name(name), "{name}");
    }
    for name in ["", ".", "..", "1234567890123456", "a/b", "a b", "wg\u{e9}", "a\0"] {
        assert!(!is_interface_name(name), "{name}");
    }
}

#[test]
fn ua_03_one_connection_carries_any_number_of_requests_in_any_pieces() {
    let text = format!("get=1\n\nset=1\nlisten_port=7\n\nset=1\nprivate_key={}\n\n", hex(7));
    let whole = read(&text);
    assert_eq!(whole.len(), 3);
    assert_eq!(whole[0], Request::Get);
    assert_eq!(
        whole[1],
        Request::Set(SetRequest { listen_port: Some(7), ..SetRequest::default() })
    );
    for size in [1, 2, 3, 7, 64] {
        let (mut reader, mut pieces) = (RequestReader::new(), Vec::new());
        for piece in text.as_bytes().chunks(size) {
            reader.feed(piece, |request| pieces.push(request));
        }
        assert_eq!(pieces, whole, "in pieces of {size}");
        assert!(reader.is_between_requests());
    }
}

#[test]
fn ua_03_a_request_cut_short_is_never_seen() {
    let mut reader = RequestReader::new();
    reader.feed(b"set=1\nlisten_port=7\n", |request| panic!("{request:?}"));
    assert!(!reader.is_between_requests());
}

#[test]
fn ua_03_an_unknown_operation_is_answered_once_and_the_rest_ignored() {
    for (text, errno) in [
        ("get=2\n\nget=1\n\n", Errno::INVALID),
        ("\nget=1\n\n", Errno::PROTOCOL),
        ("GET / HTTP/1.1\n\nget=1\n\n", Errno::PROTOCOL),
    ] {
        let requests = read(text);
        assert!(
            matches!(&requests[..], [Request::Unintelligible(fault)] if fault.errno == errno),
            "{text:?}: {requests:?}"
        );
    }
}

#[test]
fn ua_04_a_state_is_written_in_the_order_and_form_that_wg_knows() {
    let device = DeviceSnapshot {
        private_key: Some(PrivateKey::from_bytes([1; 32])),
        listen_port: 51820,
        fwmark: 0xca6c,
        peers: vec![
            PeerSnapshot {
                preshared_key: PresharedKey::from_bytes([3; 32]),
                endpoint: Some("[2001:db8::1]:4500".parse().unwrap()),
                last_handshake: Some(Wall { secs: 1_700_000_000, nanos: 5 }),
                rx_bytes: 10,
                tx_bytes: 20,
                persistent_keepalive: 25,
                allowed_ips: vec!["10.0.0.0/8".parse().unwrap(), "::/0".parse().unwrap()],
                ..PeerSnapshot::new(public(2))
            },
            PeerSnapshot::new(public(4)),
        ],
    };
    let expected = format!(
        "private_key={}\nlisten_port=51820\nfwmark=51820\n\
         public_key={}\npreshared_key={}\nprotocol_version=1\nendpoint=[2001:db8::1]:4500\n\
         last_handshake_time_sec=1700000000\nlast_handshake_time_nsec=5\ntx_bytes=20\nrx_bytes=10\n\
         persistent_keepalive_interval=25\nallowed_ip=10.0.0.0/8\nallowed_ip=::/0\n\
         public_key={}\npreshared_key={ZEROS}\nprotocol_version=1\n\
         last_handshake_time_sec=0\nlast_handshake_time_nsec=0\ntx_bytes=0\nrx_bytes=0\n\
         persistent_keepalive_interval=0\nerrno=0\n\n",
        hex(1),
        hex(2),
        hex(3),
        hex(4)
    );
    assert_eq!(*get::render(&device), expected);
}

#[test]
fn ua_04_what_a_device_does_not_have_is_left_out() {
    assert_eq!(*get::render(&DeviceSnapshot::default()), "listen_port=0\nerrno=0\n\n");
}

#[test]
fn ua_05_a_client_ignores_keys_that_it_does_not_know() {
    let text = format!("rtt=1\npublic_key={}\nrtt_ns=5\nrx_bytes=7\nerrno=0\n\n", hex(2));
    let device = parse_get(&text).unwrap();
    assert_eq!(device.peers, [PeerSnapshot { rx_bytes: 7, ..PeerSnapshot::new(public(2)) }]);
}

#[test]
fn ua_06_device_keys_are_understood() {
    let request = accepted(&format!(
        "private_key={}\nlisten_port=0\nfwmark=4294967295\nreplace_peers=true\n",
        hex(1)
    ));
    assert_eq!(request.private_key, Some(Some(PrivateKey::from_bytes([1; 32]))));
    assert_eq!(request.listen_port, Some(0));
    assert_eq!(request.fwmark, Some(u32::MAX));
    assert!(request.replace_peers);
    assert_eq!(accepted(""), SetRequest::default());
}

#[test]
fn ua_06_zeros_remove_the_private_key() {
    assert_eq!(accepted(&format!("private_key={ZEROS}\n")).private_key, Some(None));
}

#[test]
fn ua_07_peer_keys_are_understood() {
    let request = accepted(&format!(
        "public_key={}\nupdate_only=true\nremove=true\npreshared_key={}\nendpoint=192.0.2.1:1\n\
         persistent_keepalive_interval=25\nreplace_allowed_ips=true\nallowed_ip=10.0.0.0/8\n\
         allowed_ip=+fd00::/8\nallowed_ip=-10.1.2.3/16\nprotocol_version=1\npublic_key={}\n",
        hex(2),
        hex(3),
        hex(4)
    ));
    let expected = PeerUpdate {
        update_only: true,
        remove: true,
        preshared_key: Some(PresharedKey::from_bytes([3; 32])),
        endpoint: Some("192.0.2.1:1".parse().unwrap()),
        persistent_keepalive: Some(25),
        replace_allowed_ips: true,
        allowed_ips: vec![
            AllowedIpChange::Add("10.0.0.0/8".parse().unwrap()),
            AllowedIpChange::Add("fd00::/8".parse().unwrap()),
            AllowedIpChange::Remove("10.1.0.0/16".parse().unwrap()),
        ],
        ..PeerUpdate::new(public(2))
    };
    assert_eq!(request.peers, [expected, PeerUpdate::new(public(4))]);
}

#[test]
fn ua_07_zeros_clear_the_preshared_key() {
    let request = accepted(&format!("public_key={}\npreshared_key={ZEROS}\n", hex(2)));
    assert_eq!(request.peers[0].preshared_key, Some(PresharedKey::NONE));
}

#[test]
fn ua_07_replacing_allowed_ips_takes_what_came_before_it_along() {
    let peer = hex(2);
    let request = accepted(&format!(
        "public_key={peer}\nallowed_ip=10.0.0.0/8\nreplace_allowed_ips=true\nallowed_ip=::/0\n"
    ));
    assert_eq!(request.peers[0].allowed_ips, [AllowedIpChange::Add("::/0".parse().unwrap())]);
}

#[test]
fn ua_07_an_endpoint_is_an_address_and_never_a_name() {
    assert_eq!(parse_endpoint("192.0.2.1:65535"), "192.0.2.1:65535".parse().ok());
    assert_eq!(parse_endpoint("[::1]:1"), "[::1]:1".parse().ok());
    assert_eq!(parse_endpoint("[fe80::1%lo]:1"), "[fe80::1%1]:1".parse().ok());
    for text in [
        "",
        "192.0.2.1",
        "192.0.2.1:",
        "192.0.2.1:65536",
        "::1:1",
        "localhost:1",
        "[localhost]:1",
        "[::1%lo]:1",
        "[fe80::1%no-such-link]:1",
        "[fe80::1%lo]:x",
    ] {
        assert_eq!(parse_endpoint(text), None, "{text:?}");
    }
}

#[test]
fn ua_09_a_line_without_an_equals_sign_is_a_protocol_error() {
    assert_eq!(refused("listen_port\n").errno, Errno::PROTOCOL);
    assert_eq!(refused("listen_port\n").line, 2);
}

#[test]
fn ua_09_unknown_keys_and_bad_values_are_invalid() {
    let long = "1".repeat(MAX_LINE_BYTES);
    for line in [
        "no_such_key=1",
        "=1",
        " listen_port=1",
        "listen_port=",
        "listen_port=+1",
        "listen_port=-1",
        "listen_port= 1",
        "listen_port=65536",
        "listen_port=1\r",
        "fwmark=0x1",
        "fwmark=4294967296",
        "private_key=",
        "private_key=00",
        "replace_peers=false",
        "replace_peers=",
        "update_only=true",
        "allowed_ip=10.0.0.0/8",
        "public_key=xyz",
        &format!("listen_port={long}"),
    ] {
        assert_eq!(refused(&format!("{line}\n")).errno, Errno::INVALID, "{line:?}");
    }
    for line in [
        "listen_port=1",
        "remove=false",
        "update_only=1",
        "replace_allowed_ips=yes",
        "protocol_version=2",
        "protocol_version=",
        "endpoint=example.com:1",
        "persistent_keepalive_interval=65536",
        "persistent_keepalive_interval=off",
        "preshared_key=0",
        "allowed_ip=",
        "allowed_ip=10.0.0.1",
        "allowed_ip=10.0.0.0/33",
        "allowed_ip=10.0.0.0/",
        "allowed_ip=::/129",
        "allowed_ip=--10.0.0.0/8",
        "allowed_ip=+-10.0.0.0/8",
        "allowed_ip=10.0.0.0/8,10.1.0.0/16",
    ] {
        let text = format!("public_key={}\n{line}\n", hex(2));
        assert_eq!(refused(&text).errno, Errno::INVALID, "{line:?}");
    }
    assert_eq!(read("set=1\n\u{e9}\n\n").len(), 1);
}

#[test]
fn ua_09_text_after_get_is_invalid() {
    let requests = read("get=1\nlisten_port=1\n\nget=1\n\n");
    assert!(matches!(
        requests[..],
        [
            Request::Refused(Operation::Get, Fault { line: 2, errno: Errno::INVALID, .. }),
            Request::Get
        ]
    ));
}

#[test]
fn ua_09_a_fault_at_the_end_refuses_the_whole_request_and_not_the_next() {
    let requests = read("set=1\nlisten_port=1\nfwmark=x\nfwmark\n\nset=1\nlisten_port=2\n\n");
    assert_eq!(requests.len(), 2);
    let Request::Refused(Operation::Set, fault) = &requests[0] else { panic!("{requests:?}") };
    assert_eq!((fault.line, fault.errno), (3, Errno::INVALID), "the first fault counts");
    assert_eq!(
        requests[1],
        Request::Set(SetRequest { listen_port: Some(2), ..SetRequest::default() })
    );
}

#[test]
fn ua_09_a_line_without_end_is_not_kept_and_refused() {
    let mut reader = RequestReader::new();
    let mut requests = Vec::new();
    reader.feed(b"set=1\n", |request| requests.push(request));
    for _ in 0..10_000 {
        reader.feed(b"private_key=00000000", |request| requests.push(request));
    }
    reader.feed(b"\n\nget=1\n\n", |request| requests.push(request));
    assert!(matches!(
        requests[..],
        [Request::Refused(Operation::Set, Fault { errno: Errno::INVALID, .. }), Request::Get]
    ));
}

#[test]
fn ua_09_no_fault_repeats_a_key() {
    let key = "ab".repeat(31);
    for line in [&format!("private_key={key}"), &key, &format!("no_such={key}")] {
        let fault = refused(&format!("{line}\n"));
        assert!(!format!("{fault} {fault:?}").contains("abab"), "{fault}");
    }
}

#[test]
fn ua_10_errors_are_negative_after_set_and_positive_after_get() {
    assert_eq!(reply(Operation::Set, Err(Errno::INVALID)), "errno=-22\n\n");
    assert_eq!(reply(Operation::Get, Err(Errno::INVALID)), "errno=22\n\n");
    assert_eq!(reply(Operation::Set, Ok(())), "errno=0\n\n");
    assert_eq!(reply(Operation::Get, Ok(())), "errno=0\n\n");
}

#[test]
fn ua_10_a_client_takes_either_sign() {
    for text in ["errno=22\n\n", "errno=-22\n\n"] {
        assert_eq!(parse_get(text), Err(ReplyError::Refused(Errno::INVALID)));
    }
}

#[test]
fn a_reply_that_is_none_is_malformed() {
    for text in ["\n", "listen_port=x\nerrno=0\n\n", "nonsense\n", "listen_port=1\n\n"] {
        assert!(matches!(parse_get(text), Err(ReplyError::Malformed { .. })), "{text:?}");
    }
    assert_eq!(parse_get("listen_port=1\nerrno=0\n"), Err(ReplyError::Truncated));
}

#[test]
fn a_hundred_thousand_peers_are_one_request() {
    let peers = (0..100_000_u32).map(|number| {
        let mut key = [0; 32];
        key[..4].copy_from_slice(&number.to_le_bytes());
        let octets = number.to_be_bytes();
        PeerUpdate {
            allowed_ips: vec![AllowedIpChange::Add(std::net::IpAddr::from(octets).into())],
            ..PeerUpdate::new(PublicKey::from_bytes(key))
        }
    });
    let request = SetRequest { peers: peers.collect(), ..SetRequest::default() };
    let text = set::render(&request);
    let mut requests = Vec::new();
    let mut reader = RequestReader::new();
    for piece in text.as_bytes().chunks(65_536) {
        reader.feed(piece, |request| requests.push(request));
    }
    assert!(requests == [Request::Set(request)]);
}

/// Serves one connection with one prepared reply and returns what was asked.
fn serve(listener: UnixListener, answer: &'static str) -> thread::JoinHandle<String> {
    thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        let mut asked = Vec::new();
        let mut buffer = [0; 4096];
        while !asked.ends_with(b"\n\n") {
            let count = stream.read(&mut buffer).unwrap();
            assert_ne!(count, 0, "the client hung up");
            asked.extend_from_slice(&buffer[..count]);
        }
        stream.write_all(answer.as_bytes()).unwrap();
        String::from_utf8(asked).unwrap()
    })
}

#[test]
fn the_client_reads_a_state() {
    let folder = tempfile::tempdir().unwrap();
    let listener = UnixListener::bind(folder.path().join("wg0.sock")).unwrap();
    let server = serve(listener, "listen_port=7\nerrno=0\n\n");
    let device = UapiClient::connect_in(folder.path(), "wg0").unwrap().get().unwrap();
    assert_eq!(device, DeviceSnapshot { listen_port: 7, ..DeviceSnapshot::default() });
    assert_eq!(server.join().unwrap(), "get=1\n\n");
}

#[test]
fn the_client_reports_where_the_device_cannot_listen() {
    let folder = tempfile::tempdir().unwrap();
    let listener = UnixListener::bind(folder.path().join("wg0.sock")).unwrap();
    let place = "127.0.0.1:5432".to_owned();
    let refusal = Refusal { errno: Errno::ADDRESS_IN_USE, place: Some(place.clone()) };
    let answer = reply_to_set(Err(refusal));
    let server = serve(listener, answer.leak());
    let outcome = UapiClient::connect_in(folder.path(), "wg0").unwrap().set(&SetRequest::default());
    match outcome {
        Err(ClientError::NotListening { place: told, errno, .. }) => {
            assert_eq!((told, errno), (place, Errno::ADDRESS_IN_USE));
        }
        outcome => panic!("{outcome:?}"),
    }
    server.join().unwrap();
}

#[test]
fn the_client_asks_for_a_change_and_reports_a_refusal() {
    let folder = tempfile::tempdir().unwrap();
    let request = SetRequest { listen_port: Some(7), ..SetRequest::default() };
    for (answer, expected) in [
        ("errno=0\n\n", None),
        ("errno=-98\n\n", Some(ReplyError::Refused(Errno::ADDRESS_IN_USE))),
        ("errno=0\n", Some(ReplyError::Truncated)),
        ("nonsense\n\n", Some(ReplyError::Malformed { line: 1 })),
        ("later=1\nerrno=x\n\n", Some(ReplyError::Malformed { line: 2 })),
    ] {
        let path = folder.path().join("wg0.sock");
        let server = serve(UnixListener::bind(&path).unwrap(), answer);
        let outcome = UapiClient::connect_in(folder.path(), "wg0").unwrap().set(&request);
        match (outcome, expected) {
            (Ok(()), None) => {}
            (Err(ClientError::Reply { source, interface }), Some(expected)) => {
                assert_eq!((source, interface.as_str()), (expected, "wg0"));
            }
            (outcome, _) => panic!("{answer:?}: {outcome:?}"),
        }
        assert_eq!(server.join().unwrap(), "set=1\nlisten_port=7\n\n");
        std::fs::remove_file(path).unwrap();
    }
}

#[test]
fn ua_01_interfaces_are_the_sockets_that_answer() {
    let folder = tempfile::tempdir().unwrap();
    assert_eq!(interfaces_in(&folder.path().join("missing")).unwrap(), Vec::<String>::new());
    let _b = UnixListener::bind(folder.path().join("b.sock")).unwrap();
    let _a = UnixListener::bind(folder.path().join("a.sock")).unwrap();
    drop(UnixListener::bind(folder.path().join("stale.sock")).unwrap());
    std::fs::write(folder.path().join("file.sock"), "").unwrap();
    std::fs::write(folder.path().join("other"), "").unwrap();
    assert_eq!(interfaces_in(folder.path()).unwrap(), ["a", "b"]);
    assert!(folder.path().join("stale.sock").exists(), "it may be a daemon about to listen");
}

#[test]
fn the_client_does_not_leave_the_folder_of_sockets() {
    let folder = tempfile::tempdir().unwrap();
    let _listener = UnixListener::bind(folder.path().join("a.sock")).unwrap();
    let inner = folder.path().join("inner");
    std::fs::create_dir(&inner).unwrap();
    assert!(matches!(UapiClient::connect_in(&inner, "../a"), Err(ClientError::Unreachable { .. })));
}

fn network() -> impl Strategy<Value = ipnet::IpNet> {
    prop_oneof![
        (any::<[u8; 4]>(), 0..=32_u8).prop_map(|(a, n)| (std::net::IpAddr::from(a), n)),
        (any::<[u8; 16]>(), 0..=128_u8).prop_map(|(a, n)| (std::net::IpAddr::from(a), n)),
    ]
    .prop_map(|(address, length)| ipnet::IpNet::new(address, length).unwrap().trunc())
}

fn endpoint() -> impl Strategy<Value = std::net::SocketAddr> {
    prop_oneof![
        (any::<[u8; 4]>(), any::<u16>()).prop_map(std::net::SocketAddr::from),
        (any::<[u8; 16]>(), any::<u16>()).prop_map(std::net::SocketAddr::from),
    ]
}

fn place() -> impl Strategy<Value = Place> {
    let name = ("[a-z]{1,9}[.][a-z]{2}", any::<u16>());
    prop_oneof![
        endpoint().prop_map(Place::Address),
        name.prop_map(|(host, port)| Place::Name { host, port }),
    ]
}

prop_compose! {
    fn peer_update()(
        key in any::<[u8; 32]>(),
        update_only in any::<bool>(),
        remove in any::<bool>(),
        preshared_key in any::<Option<[u8; 32]>>(),
        endpoint in proptest::option::of(endpoint()),
        places in proptest::option::of(proptest::collection::vec(place(), 1..4)),
        persistent_keepalive in any::<Option<u16>>(),
        replace_allowed_ips in any::<bool>(),
        allowed_ips in proptest::collection::vec((network(), any::<bool>()), 0..4),
    ) -> PeerUpdate {
        let changes = allowed_ips.into_iter().map(|(network, adds)| {
            if adds { AllowedIpChange::Add(network) } else { AllowedIpChange::Remove(network) }
        });
        PeerUpdate {
            public_key: PublicKey::from_bytes(key),
            update_only,
            remove,
            preshared_key: preshared_key.map(PresharedKey::from_bytes),
            endpoint,
            places,
            persistent_keepalive,
            replace_allowed_ips,
            allowed_ips: changes.collect(),
        }
    }
}

prop_compose! {
    fn set_request()(
        private_key in any::<Option<Option<[u8; 32]>>>(),
        listen_port in any::<Option<u16>>(),
        fwmark in any::<Option<u32>>(),
        clamp_mss in proptest::option::of(clamp_mss()),
        mtu_policy in proptest::option::of(proptest::sample::select(&MtuPolicy::ALL[..])),
        flows in proptest::option::of(proptest::option::of(flows())),
        health in proptest::option::of(health()),
        inside in proptest::option::of(inside()),
        drain in any::<Option<bool>>(),
        serve in proptest::option::of(proptest::sample::select(vec![
            Serve::Replace(Serving::default()),
            Serve::Restore,
        ])),
        measure_paths in any::<bool>(),
        replace_peers in any::<bool>(),
        peers in proptest::collection::vec(peer_update(), 0..4),
    ) -> SetRequest {
        SetRequest {
            serve,
            private_key: private_key.map(|key| key.map(PrivateKey::from_bytes)),
            listen_port,
            fwmark,
            clamp_mss,
            mtu_policy,
            flows,
            health,
            inside,
            drain,
            measure_paths,
            replace_peers,
            peers,
        }
    }
}

fn inside() -> impl Strategy<Value = Inside> {
    let addresses = ["10.66.0.2/24", "fd66::2/64"].map(|it| it.parse().unwrap()).to_vec();
    let addresses = proptest::sample::subsequence(addresses, 0..=2);
    (addresses, any::<u32>()).prop_map(|(addresses, mtu)| Inside { addresses, mtu })
}

fn expose() -> impl Strategy<Value = Vec<Expose>> {
    let expose = [
        "5432 127.0.0.1:5432 from=10.66.0.0/24,fd66::/64 source=127.77.0.1",
        "5432 127.0.0.1:6432",
        "53/udp db.internal:53",
        "8080 unix:/run/app.sock proxy=v2",
    ];
    let expose = expose.map(|it| Expose::parse(it).unwrap()).to_vec();
    proptest::sample::subsequence(expose, 0..=4)
}

fn flows() -> impl Strategy<Value = Flows> {
    let rules = ["10.20.0.0/16", "10.30.5.7:443/tcp", "[fd00::/8]:5000-5999", "host/icmp"];
    let rules = rules.map(|rule| rule.parse::<Rule>().unwrap()).to_vec();
    let rules = proptest::sample::subsequence(rules, 0..=4);
    let sources = vec!["10.10.0.0/24".parse().unwrap(), "fd10::/64".parse().unwrap()];
    let sources = proptest::sample::subsequence(sources, 0..=2);
    let other = Tuning {
        congestion: Algorithm::Bbr,
        udp_timeout: Duration::from_secs(120),
        udp_filter: UdpFilter::Endpoint,
        max_flows: 99,
    };
    let tuning = prop_oneof![Just(Tuning::default()), Just(other)];
    let policy = (rules.clone(), rules);
    let policy = policy.prop_map(|(allow_to, deny_to)| Policy { allow_to, deny_to });
    (any::<bool>(), expose(), policy, sources, tuning).prop_map(
        |(carries, expose, policy, sources, tuning)| Flows {
            carries,
            expose,
            policy,
            sources,
            tuning,
        },
    )
}

fn health() -> impl Strategy<Value = Health> {
    let keys = proptest::collection::btree_set(any::<[u8; 32]>(), 0..3);
    (proptest::option::of(endpoint()), keys).prop_map(|(listen, keys)| Health {
        listen,
        required: keys.into_iter().map(PublicKey::from_bytes).collect(),
    })
}

fn clamp_mss() -> impl Strategy<Value = ClampMss> {
    prop_oneof![Just(ClampMss::Off), Just(ClampMss::On), (536..=u16::MAX).prop_map(ClampMss::To)]
}

prop_compose! {
    fn peer_snapshot()(
        key in any::<[u8; 32]>(),
        preshared_key in any::<[u8; 32]>(),
        endpoint in proptest::option::of(endpoint()),
        handshake in proptest::option::of((1..u64::MAX, 0..1_000_000_000_u32)),
        rx_bytes in any::<u64>(),
        tx_bytes in any::<u64>(),
        persistent_keepalive in any::<u16>(),
        allowed_ips in proptest::collection::vec(network(), 0..4),
    ) -> PeerSnapshot {
        PeerSnapshot {
            public_key: PublicKey::from_bytes(key),
            preshared_key: PresharedKey::from_bytes(preshared_key),
            endpoint,
            last_handshake: handshake.map(|(secs, nanos)| Wall { secs, nanos }),
            rx_bytes,
            tx_bytes,
            persistent_keepalive,
            allowed_ips,
        }
    }
}

proptest! {
    #[test]
    fn a_change_survives_rendering_and_parsing(request in set_request()) {
        let requests = read(&set::render(&request));
        prop_assert_eq!(requests, [Request::Set(request)]);
    }

    #[test]
    fn a_state_survives_rendering_and_parsing(
        key in any::<Option<[u8; 32]>>(),
        listen_port in any::<u16>(),
        fwmark in any::<u32>(),
        peers in proptest::collection::vec(peer_snapshot(), 0..4),
    ) {
        let private_key = key.map(PrivateKey::from_bytes);
        let device = DeviceSnapshot { private_key, listen_port, fwmark, peers };
        prop_assert_eq!(parse_get(&get::render(&device)), Ok(device));
    }

    #[test]
    fn no_bytes_stop_the_reader(pieces in proptest::collection::vec(any::<Vec<u8>>(), 0..8)) {
        let mut reader = RequestReader::new();
        reader.feed(b"set=1\n", |_| ());
        for piece in &pieces {
            reader.feed(piece, |_| ());
        }
    }

    #[test]
    fn no_words_stop_the_reader(
        lines in proptest::collection::vec("(set|get|public_key|allowed_ip|endpoint|fwmark)?=?[-+0-9a-f:./%\\[\\]]{0,9}\n?", 0..12),
    ) {
        let _ = read(&format!("set=1\npublic_key={}\n{}\n\n", hex(2), lines.concat()));
    }
}
