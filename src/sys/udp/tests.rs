use std::net::UdpSocket;
use std::time::Duration;

use super::*;
use crate::sys::poll::{Interest, Poller};
use crate::sys::testing::{eventually, in_own_namespace, ip, refuse_calls};
use crate::sys::tun::{Tun, TunOffloads};

/// A socket pair's receiving side with owned memory, collecting what arrives.
struct Inbox {
    sockets: UdpSockets,
    receiver: Receiver,
    buffers: Vec<Vec<u8>>,
    metas: Vec<RecvMeta>,
}

impl Inbox {
    fn new(count: usize, buffer_bytes: usize) -> Self {
        Self::over(UdpSockets::bind(0, 0, UdpOffloads::ALL).unwrap(), count, buffer_bytes)
    }

    fn over(sockets: UdpSockets, count: usize, buffer_bytes: usize) -> Self {
        let buffers = vec![vec![0; buffer_bytes]; count];
        Self {
            sockets,
            receiver: Receiver::new(count),
            buffers,
            metas: vec![RecvMeta::default(); count],
        }
    }

    /// One call; what it gave.
    fn recv(&mut self) -> Vec<(RecvMeta, Vec<u8>)> {
        let slices = self.buffers.iter_mut().map(Vec::as_mut_slice);
        let n = self
            .sockets
            .recv_batch(&mut self.receiver, [true; 2], slices, &mut self.metas)
            .unwrap();
        let received = self.metas.iter().zip(&self.buffers).take(n);
        received.map(|(meta, buffer)| (*meta, buffer[..meta.len].to_vec())).collect()
    }

    /// Waits for `count` datagrams.
    fn collect(&mut self, count: usize) -> Vec<(RecvMeta, Vec<u8>)> {
        let mut poller = Poller::new().unwrap();
        for fd in self.sockets.fds().into_iter().flatten() {
            poller.add(fd, 0, Interest::Readable).unwrap();
        }
        let mut all = Vec::new();
        while all.len() < count {
            let ready = poller.wait(Some(Duration::from_secs(5))).unwrap().count();
            assert!(ready > 0, "{} of {count} datagrams arrived", all.len());
            all.extend(self.recv());
        }
        all
    }

    fn at(&self, host: &str) -> SocketAddr {
        SocketAddr::new(host.parse().unwrap(), self.sockets.local_port())
    }
}

fn item(remote: SocketAddr, payload: &[u8]) -> SendItem<'_> {
    SendItem { remote, source: None, tos: 0, payload, stride: payload.len(), is_probe: false }
}

/// Gives the loopback interface `address`. The kernel gives the address its local route a moment
/// later: until then what is sent there goes round the loopback once and is dropped.
fn add_ipv6_address(address: &str) {
    ip(&format!("-6 address add {address}/128 dev lo nodad"));
    let route = format!("local {address} ");
    assert!(eventually(|| ip("-6 route show table local").contains(&route)));
}

fn has_ipv6_loopback() -> bool {
    UdpSocket::bind("[::1]:0").is_ok()
}

#[test]
fn both_families_share_one_port_chosen_by_the_kernel() {
    for _ in 0..20 {
        let sockets = UdpSockets::bind(0, 0, UdpOffloads::ALL).unwrap();
        let ports: Vec<_> = [&sockets.v4, &sockets.v6]
            .into_iter()
            .flatten()
            .map(|fd| port_of(fd).unwrap())
            .collect();
        assert!(!ports.is_empty());
        assert!(ports.iter().all(|&port| port == sockets.local_port() && port != 0));
    }
}

#[test]
fn a_port_that_is_taken_is_told_as_such() {
    let first = UdpSockets::bind(0, 0, UdpOffloads::ALL).unwrap();
    let error = UdpSockets::bind(first.local_port(), 0, UdpOffloads::ALL).unwrap_err();
    assert!(error.is_address_in_use(), "{error}");
    assert_eq!(error.op, "bind");
}

#[test]
fn a_port_taken_in_ipv6_alone_refuses_a_fixed_port_and_is_avoided_by_a_free_one() {
    in_own_namespace(|| {
        // Nearly every port of the narrowed range is taken in IPv6, so most first tries fail.
        std::fs::write("/proc/sys/net/ipv4/ip_local_port_range", "40000 40007").unwrap();
        let taken: Vec<_> = (40_000..40_006)
            .map(|port| {
                // Not `UdpSocket::bind`, which would take IPv4 as well.
                open(Family::V6, port, 0, Share::Alone).unwrap()
            })
            .collect();
        assert!(UdpSockets::bind(40_000, 0, UdpOffloads::ALL).unwrap_err().is_address_in_use());
        let sockets = UdpSockets::bind(0, 0, UdpOffloads::ALL).unwrap();
        assert!(sockets.local_port() >= 40_006);
        assert!(sockets.v6.is_some());
        drop(taken);
    });
}

#[test]
fn a_group_divides_the_senders_and_each_keeps_to_one_pair() {
    let mut hosts = vec!["127.0.0.1"];
    if has_ipv6_loopback() {
        hosts.push("::1");
    }
    for host in hosts {
        let group = UdpSockets::bind_group(0, 0, UdpOffloads::ALL, 4).unwrap();
        let port = group[0].local_port();
        assert!(group.iter().all(|sockets| sockets.local_port() == port));
        let mut inboxes: Vec<_> =
            group.into_iter().map(|sockets| Inbox::over(sockets, 16, 2048)).collect();
        let senders: Vec<_> = (0..64).map(|_| UdpSocket::bind((host, 0)).unwrap()).collect();
        let mut round = || {
            for sender in &senders {
                sender.send_to(&[7], (host, port)).unwrap();
            }
            let mut came = vec![Vec::new(); inboxes.len()];
            assert!(eventually(|| {
                for (inbox, came) in inboxes.iter_mut().zip(&mut came) {
                    came.extend(inbox.recv().iter().map(|(meta, _)| meta.remote.port()));
                }
                came.iter().map(Vec::len).sum::<usize>() == senders.len()
            }));
            came.iter_mut().for_each(|ports| ports.sort_unstable());
            came
        };
        let first = round();
        assert!(first.iter().filter(|ports| !ports.is_empty()).count() > 1, "{first:?}");
        assert_eq!(round(), first);
    }
}

#[test]
fn the_port_of_a_group_is_refused_to_others_and_a_group_is_refused_the_port_of_others() {
    let group = UdpSockets::bind_group(0, 0, UdpOffloads::ALL, 3).unwrap();
    let port = group[0].local_port();
    let taken = |outcome: std::io::Result<UdpSocket>| {
        assert_eq!(outcome.unwrap_err().kind(), std::io::ErrorKind::AddrInUse);
    };
    taken(UdpSocket::bind(("0.0.0.0", port)));
    taken(UdpSocket::bind(("127.0.0.1", port)));
    if has_ipv6_loopback() {
        taken(UdpSocket::bind(("::1", port)));
    }
    for count in [1, 2] {
        let error = UdpSockets::bind_group(port, 0, UdpOffloads::ALL, count).unwrap_err();
        assert!(error.is_address_in_use(), "{error}");
    }
    let other = UdpSocket::bind("127.0.0.1:0").unwrap();
    let port = other.local_addr().unwrap().port();
    let error = UdpSockets::bind_group(port, 0, UdpOffloads::ALL, 2).unwrap_err();
    assert!(error.is_address_in_use(), "{error}");
}

#[test]
fn a_group_of_one_shares_its_port_with_nobody() {
    let alone = UdpSockets::bind_group(0, 0, UdpOffloads::ALL, 1).unwrap();
    let shares = |sockets: &UdpSockets| {
        let fds = sockets.fds().into_iter().flatten();
        fds.map(|fd| option(fd, libc::SOL_SOCKET, libc::SO_REUSEPORT)).collect::<Vec<_>>()
    };
    assert!(shares(&alone[0]).iter().all(|&shares| shares == 0));
    let group = UdpSockets::bind_group(0, 0, UdpOffloads::ALL, 2).unwrap();
    assert!(group.iter().flat_map(shares).all(|shares| shares == 1));
}

#[test]
fn a_long_batch_arrives_whole_in_order_with_its_addresses_and_ecn() {
    let mut hosts = vec!["127.0.0.1"];
    if has_ipv6_loopback() {
        hosts.push("::1");
    }
    for host in hosts {
        let mut inbox = Inbox::new(32, 2048);
        let outbox = UdpSockets::bind(0, 0, UdpOffloads::ALL).unwrap();
        let payloads: Vec<Vec<u8>> = (0..300_usize).map(|i| vec![i.to_le_bytes()[0]; i]).collect();
        let remote = inbox.at(host);
        let items = payloads.iter().enumerate().map(|(i, payload)| SendItem {
            tos: 0x88 | u8::try_from(i % 4).unwrap(),
            ..item(remote, payload)
        });
        let report = outbox.send_batch(&mut Sender::new(64), items);
        assert_eq!((report.sent, report.failed.len(), report.source_refused.len()), (300, 0, 0));
        let received = inbox.collect(300);
        for (i, ((meta, data), payload)) in received.iter().zip(&payloads).enumerate() {
            assert_eq!(data, payload);
            let (address, interface) = meta.local.unwrap();
            assert_eq!(address, remote.ip());
            assert!(interface > 0);
            assert_eq!(meta.remote, SocketAddr::new(remote.ip(), outbox.local_port()));
            assert_eq!(meta.ecn, u8::try_from(i % 4).unwrap());
            assert_eq!(meta.stride, meta.len);
            assert!(!meta.truncated);
        }
    }
}

#[test]
fn one_batch_may_mix_both_families() {
    if !has_ipv6_loopback() {
        return crate::sys::testing::skip("no IPv6 loopback");
    }
    let mut inbox = Inbox::new(16, 64);
    let outbox = UdpSockets::bind(0, 0, UdpOffloads::ALL).unwrap();
    let remotes = [inbox.at("127.0.0.1"), inbox.at("::1")];
    let bytes: Vec<[u8; 1]> = (0..10).map(|i| [i]).collect();
    let items = bytes.iter().enumerate().map(|(i, byte)| item(remotes[i % 2], byte));
    assert_eq!(outbox.send_batch(&mut Sender::new(4), items).sent, 10);
    let received = inbox.collect(10);
    for (at, remote) in remotes.iter().enumerate() {
        let of_family: Vec<u8> = received
            .iter()
            .filter(|(meta, _)| meta.remote.is_ipv4() == remote.is_ipv4())
            .map(|(_, data)| data[0])
            .collect();
        let expected: Vec<u8> = (0..10).filter(|i| usize::from(*i) % 2 == at).collect();
        assert_eq!(of_family, expected);
    }
}

/// Datagrams of one length but the last, one after the other.
fn run(count: u8, stride: usize, last: usize) -> Vec<u8> {
    let mut payload: Vec<u8> = (0..count).flat_map(|n| vec![n; stride]).collect();
    payload.truncate(payload.len() - stride + last);
    payload
}

#[test]
fn datagrams_of_one_length_travel_as_one_message_and_arrive_as_one() {
    let mut hosts = vec!["127.0.0.1"];
    if has_ipv6_loopback() {
        hosts.push("::1");
    }
    for host in hosts {
        let mut inbox = Inbox::new(4, 65_536);
        let outbox = UdpSockets::bind(0, 0, UdpOffloads::ALL).unwrap();
        assert_eq!(outbox.offloads(), UdpOffloads::ALL);
        let payload = run(45, 1452, 900);
        let one = SendItem { tos: 2, stride: 1452, ..item(inbox.at(host), &payload) };
        let report = outbox.send_batch(&mut Sender::new(4), [one]);
        assert_eq!((report.sent, report.failed.len()), (45, 0));
        let (meta, data) = inbox.collect(1).remove(0);
        assert_eq!((data, meta.stride, meta.ecn), (payload, 1452, 2));
    }
}

#[test]
fn without_offloads_each_datagram_travels_alone() {
    let none = UdpOffloads { segmentation: false, gro: false };
    let mut inbox = Inbox::over(UdpSockets::bind(0, 0, none).unwrap(), 16, 2048);
    let payload = run(45, 1452, 900);
    for wanted in [none, UdpOffloads::ALL] {
        let outbox = UdpSockets::bind(0, 0, wanted).unwrap();
        assert_eq!(outbox.offloads(), wanted);
        let one = SendItem { stride: 1452, ..item(inbox.at("127.0.0.1"), &payload) };
        // The lane is shorter than the item.
        let report = outbox.send_batch(&mut Sender::new(7), [one]);
        assert_eq!((report.sent, report.failed.len()), (45, 0));
        let received = inbox.collect(45);
        assert!(received.iter().all(|(meta, _)| meta.stride == meta.len));
        let bytes: Vec<u8> = received.into_iter().flat_map(|(_, data)| data).collect();
        assert_eq!(bytes, payload);
    }
}

#[test]
fn what_the_kernel_does_not_cut_is_sent_as_datagrams() {
    in_own_namespace(|| {
        // Datagrams of this length are cut into fragments, and the kernel does not do both.
        ip("link set lo mtu 1300");
        let mut inbox = Inbox::new(16, 65_536);
        let outbox = UdpSockets::bind(0, 0, UdpOffloads::ALL).unwrap();
        let (long, short) = (run(20, 1452, 7), run(3, 1000, 1000));
        let items = [(&long, 1452), (&short, 1000), (&long, 1452)]
            .map(|(payload, stride)| SendItem { stride, ..item(inbox.at("127.0.0.1"), payload) });
        let report = outbox.send_batch(&mut Sender::new(8), items);
        assert_eq!((report.sent, report.failed.len()), (43, 0));
        assert!(outbox.offloads().segmentation, "it works for other paths");
        assert!(
            !outbox.segmentation.cuts(Family::V4, 1452)
                && outbox.segmentation.cuts(Family::V4, 1000)
        );
        let received = inbox.collect(41);
        let bytes: Vec<u8> = received.into_iter().flat_map(|(_, data)| data).collect();
        assert_eq!(bytes, [&long[..], &short, &long].concat());
    });
}

#[test]
fn of_what_is_sent_as_datagrams_each_lost_one_is_told() {
    in_own_namespace(|| {
        let outbox = UdpSockets::bind(0, 0, UdpOffloads::ALL).unwrap();
        ip("link set lo down");
        let payload = run(5, 100, 100);
        let one = SendItem { stride: 100, ..item("10.1.2.3:9".parse().unwrap(), &payload) };
        let report = outbox.send_batch(&mut Sender::new(8), [one, one]);
        assert_eq!(report.sent, 0);
        let failed: Vec<_> =
            report.failed.into_iter().map(|failed| (failed.item, failed.datagrams)).collect();
        assert_eq!(failed, [(0, 0..5), (1, 0..5)]);
    });
}

#[test]
fn a_device_without_offloads_is_given_datagrams() {
    in_own_namespace(|| {
        let tun = Tun::create("hw0", TunOffloads::NONE).unwrap();
        std::fs::write("/proc/sys/net/ipv6/conf/hw0/disable_ipv6", "1").unwrap();
        ip("address add 10.9.0.1/24 dev hw0");
        ip("link set hw0 up");
        let outbox = UdpSockets::bind(0, 0, UdpOffloads::ALL).unwrap();
        let payload = run(5, 100, 50);
        let one = SendItem { stride: 100, ..item("10.9.0.2:9".parse().unwrap(), &payload) };
        let report = outbox.send_batch(&mut Sender::new(8), [one]);
        assert_eq!((report.sent, report.failed.len()), (5, 0));
        let mut buffer = [0; 2000];
        for datagram in payload.chunks(100) {
            let len = tun.recv(&mut buffer).unwrap().unwrap();
            assert_eq!(&buffer[28..len], datagram);
        }
    });
}

/// What kernels say that leave checksums to the device, of one that computes none.
/// U-22.
#[test]
fn an_input_output_error_ends_segmentation_for_that_family() {
    let sockets = std::thread::spawn(|| {
        let sockets = UdpSockets::bind(0, 0, UdpOffloads::ALL).unwrap();
        refuse_calls(libc::SYS_sendmmsg, None, libc::EIO);
        let payload = run(5, 100, 50);
        let one = SendItem { stride: 100, ..item("127.0.0.1:9".parse().unwrap(), &payload) };
        let report = sockets.send_batch(&mut Sender::new(8), [one]);
        assert_eq!((report.sent, report.failed.len()), (0, 5), "each was tried alone");
        sockets
    });
    let sockets = sockets.join().unwrap();
    assert!(!sockets.segmentation.is_on(Family::V4));
    assert!(sockets.segmentation.is_on(Family::V6));
}

/// Trap 15.
#[test]
fn a_datagram_larger_than_its_buffer_is_marked_and_receiving_goes_on() {
    let mut inbox = Inbox::new(4, 256);
    let outbox = UdpSockets::bind(0, 0, UdpOffloads::ALL).unwrap();
    let (big, small) = ([7; 65_507], [8; 256]);
    let remote = inbox.at("127.0.0.1");
    let report = outbox.send_batch(&mut Sender::new(4), [item(remote, &big), item(remote, &small)]);
    assert_eq!(report.sent, 2);
    let received = inbox.collect(2);
    assert!(received[0].0.truncated);
    assert_eq!(received[0].0.len, 256);
    assert!(!received[1].0.truncated);
    assert_eq!(received[1].1, small);
}

#[test]
fn an_empty_datagram_is_received_as_such() {
    let mut inbox = Inbox::new(4, 256);
    let outbox = UdpSockets::bind(0, 0, UdpOffloads::ALL).unwrap();
    let remote = inbox.at("127.0.0.1");
    outbox.send_batch(&mut Sender::new(4), [item(remote, &[]), item(remote, &[1])]);
    let received = inbox.collect(2);
    assert_eq!(received[0].0.len, 0);
    assert_eq!(received[1].1, [1]);
}

/// Trap 19.
#[test]
fn trap_19_a_sendmmsg_that_stops_halfway_is_resumed_after_the_refused_datagram() {
    let mut inbox = Inbox::new(64, 64);
    let outbox = UdpSockets::bind(0, 0, UdpOffloads::ALL).unwrap();
    let too_big = vec![0; 65_508];
    let bytes: Vec<[u8; 1]> = (0..40).map(|i| [i]).collect();
    let remote = inbox.at("127.0.0.1");
    let refused = [0, 7, 8, 39];
    let items = bytes
        .iter()
        .enumerate()
        .map(|(i, byte)| item(remote, if refused.contains(&i) { &too_big } else { byte }));
    let report = outbox.send_batch(&mut Sender::new(16), items);
    assert_eq!(report.sent, 36);
    let failed: Vec<usize> = report.failed.iter().map(|failed| failed.item).collect();
    assert_eq!(failed, refused);
    assert!(report.failed.iter().all(|failed| failed.error.errno() == Some(libc::EMSGSIZE)));
    let received: Vec<u8> = inbox.collect(36).iter().map(|(_, data)| data[0]).collect();
    let expected: Vec<u8> = (0..40).filter(|i| !refused.contains(&usize::from(*i))).collect();
    assert_eq!(received, expected);
}

/// Trap 20.
#[test]
fn trap_20_each_datagram_of_a_batch_keeps_its_own_ipv6_sender() {
    in_own_namespace(|| {
        for host in 1..=8 {
            add_ipv6_address(&format!("fd00::{host}"));
        }
        let mut inbox = Inbox::new(64, 64);
        let outboxes: Vec<_> =
            (0..3).map(|_| UdpSockets::bind(0, 0, UdpOffloads::ALL).unwrap()).collect();
        let remote = inbox.at("fd00::8");
        let mut sender = Sender::new(8);
        let mut expected = Vec::new();
        for round in 0..5 {
            for outbox in &outboxes {
                for host in 1..=4 {
                    let source: IpAddr = format!("fd00::{host}").parse().unwrap();
                    let payload = [round, host];
                    let from = SendItem { source: Some((source, 0)), ..item(remote, &payload) };
                    assert_eq!(outbox.send_batch(&mut sender, [from]).sent, 1);
                    expected.push((SocketAddr::new(source, outbox.local_port()), payload.to_vec()));
                }
            }
        }
        let received = inbox.collect(expected.len());
        assert!(received.iter().all(|(meta, _)| meta.local.unwrap().0 == remote.ip()));
        let received: Vec<_> =
            received.into_iter().map(|(meta, data)| (meta.remote, data)).collect();
        assert_eq!(received, expected);
    });
}

/// Trap 21.
#[test]
fn trap_21_a_host_without_ipv6_gets_ipv4_alone() {
    let sockets = std::thread::spawn(|| {
        refuse_calls(libc::SYS_socket, Some(libc::AF_INET6), libc::EAFNOSUPPORT);
        assert!(UdpSocket::bind("[::1]:0").is_err(), "the filter is in place");
        UdpSockets::bind(0, 0, UdpOffloads::ALL).unwrap()
    });
    let mut inbox = Inbox::over(sockets.join().unwrap(), 4, 64);
    assert!(inbox.sockets.v6.is_none());
    assert!(inbox.sockets.fds()[1].is_none());
    inbox
        .sockets
        .set_mark(0)
        .or_else(|e| if e.is_not_permitted() { Ok(()) } else { Err(e) })
        .unwrap();
    let outbox = UdpSockets::bind(0, 0, UdpOffloads::ALL).unwrap();
    let (v4, v6) = (inbox.at("127.0.0.1"), inbox.at("::1"));
    assert_eq!(outbox.send_batch(&mut Sender::new(2), [item(v4, &[1])]).sent, 1);
    assert_eq!(inbox.collect(1)[0].1, [1]);
    let report = inbox.sockets.send_batch(&mut Sender::new(2), [item(v6, &[1]), item(v4, &[2])]);
    assert_eq!((report.sent, report.failed.len(), report.failed[0].item), (1, 1, 0));
    assert_eq!(inbox.collect(1)[0].1, [2]);
}

/// Trap 21, the other way to be without: the family is there and every address of it is not.
#[test]
fn a_host_with_ipv6_disabled_still_talks_ipv4() {
    in_own_namespace(|| {
        std::fs::write("/proc/sys/net/ipv6/conf/all/disable_ipv6", "1").unwrap();
        let mut inbox = Inbox::new(4, 64);
        let outbox = UdpSockets::bind(0, 0, UdpOffloads::ALL).unwrap();
        let (v4, v6) = (inbox.at("127.0.0.1"), inbox.at("::1"));
        let report = outbox.send_batch(&mut Sender::new(2), [item(v6, &[1]), item(v4, &[2])]);
        assert_eq!((report.sent, report.failed.len()), (1, 1));
        assert_eq!(inbox.collect(1)[0].1, [2]);
    });
}

/// Trap 28.
#[test]
fn trap_28_the_receive_loop_goes_on_after_the_errors_that_a_network_causes() {
    let mut inbox = Inbox::new(4, 64);
    let nobody = {
        let closed = UdpSocket::bind("127.0.0.1:0").unwrap();
        closed.local_addr().unwrap()
    };
    // Connected, the socket is told of the ICMP error, and told again at the next receive.
    let v4 = inbox.sockets.v4.as_ref().unwrap();
    rustix::net::connect(v4, &nobody).unwrap();
    for round in 1..=3 {
        rustix::net::send(
            inbox.sockets.v4.as_ref().unwrap(),
            b"anyone?",
            rustix::net::SendFlags::empty(),
        )
        .unwrap();
        assert!(inbox.recv().is_empty());
        assert_eq!(
            inbox.receiver.survived_errors(),
            round,
            "the refusal has come and was survived"
        );
    }
    let somebody = UdpSocket::bind(nobody).unwrap();
    somebody.send_to(b"here", inbox.at("127.0.0.1")).unwrap();
    assert_eq!(inbox.collect(1)[0].1, b"here");
}

#[test]
fn only_a_defect_of_ours_ends_receiving() {
    let network = [
        libc::ECONNREFUSED,
        libc::EHOSTUNREACH,
        libc::ENETUNREACH,
        libc::ENETDOWN,
        libc::ENOBUFS,
        libc::ENOMEM,
        libc::EMSGSIZE,
        libc::EPROTO,
        libc::EIO,
    ];
    assert!(
        network
            .iter()
            .all(|&errno| !SysError::from_errno("recvmmsg", errno).is_fatal_for_receive())
    );
    assert!(SysError::from_errno("recvmmsg", libc::EBADF).is_fatal_for_receive());
}

#[test]
fn a_source_of_ours_is_used_and_answered_to() {
    let mut inbox = Inbox::new(4, 64);
    let outbox = UdpSockets::bind(0, 0, UdpOffloads::ALL).unwrap();
    let source = IpAddr::from([127, 0, 0, 9]);
    let from = SendItem { source: Some((source, 1)), ..item(inbox.at("127.0.0.1"), &[1]) };
    let report = outbox.send_batch(&mut Sender::new(2), [from]);
    assert_eq!((report.sent, report.source_refused.len()), (1, 0));
    assert_eq!(inbox.collect(1)[0].0.remote, SocketAddr::new(source, outbox.local_port()));
}

#[test]
fn a_source_that_is_no_longer_ours_is_reported_and_the_datagram_sent_without_it() {
    let mut cases = vec![("127.0.0.1", "192.0.2.77")];
    if has_ipv6_loopback() {
        cases.push(("::1", "2001:db8::77"));
    }
    for (host, gone) in cases {
        let mut inbox = Inbox::new(4, 64);
        let outbox = UdpSockets::bind(0, 0, UdpOffloads::ALL).unwrap();
        let remote = inbox.at(host);
        let with_source =
            SendItem { source: Some((gone.parse().unwrap(), 1)), tos: 1, ..item(remote, &[2]) };
        let report = outbox
            .send_batch(&mut Sender::new(8), [item(remote, &[1]), with_source, item(remote, &[3])]);
        assert_eq!((report.sent, report.failed.len()), (3, 0), "{host}");
        assert_eq!(report.source_refused, [1]);
        let received = inbox.collect(3);
        assert_eq!(received.iter().map(|(_, data)| data[0]).collect::<Vec<_>>(), [1, 2, 3]);
        assert!(received.iter().all(|(meta, _)| meta.remote.ip() == remote.ip()));
        assert_eq!(received[1].0.ecn, 1, "the traffic class stays");
    }
}

#[test]
fn a_source_of_the_other_family_is_ignored() {
    let mut inbox = Inbox::new(4, 64);
    let outbox = UdpSockets::bind(0, 0, UdpOffloads::ALL).unwrap();
    let from =
        SendItem { source: Some(("::1".parse().unwrap(), 1)), ..item(inbox.at("127.0.0.1"), &[1]) };
    let report = outbox.send_batch(&mut Sender::new(2), [from]);
    assert_eq!((report.sent, report.source_refused.len()), (1, 0));
    assert_eq!(inbox.collect(1)[0].1, [1]);
}

#[test]
fn a_flood_of_ipv4_does_not_starve_ipv6() {
    if !has_ipv6_loopback() {
        return crate::sys::testing::skip("no IPv6 loopback");
    }
    let mut inbox = Inbox::new(1, 64);
    let outbox = UdpSockets::bind(0, 0, UdpOffloads::ALL).unwrap();
    let flood = vec![item(inbox.at("127.0.0.1"), &[4]); 100];
    let mut sender = Sender::new(64);
    assert_eq!(outbox.send_batch(&mut sender, flood.iter().copied()).sent, 100);
    outbox.send_batch(&mut sender, [item(inbox.at("::1"), &[6])]);
    let before = inbox.collect(20).iter().position(|(_, data)| data == &[6]);
    assert!(before.is_some(), "IPv6 had its turn among the first 20 of 101");
}

#[test]
fn nothing_waiting_is_zero_and_no_error() {
    let mut inbox = Inbox::new(4, 64);
    assert!(inbox.recv().is_empty());
    assert_eq!(inbox.receiver.survived_errors(), 0);
    assert_eq!(
        inbox.sockets.recv_batch(&mut inbox.receiver, [true; 2], [], &mut inbox.metas).unwrap(),
        0
    );
}

/// [P-75]
#[test]
fn a_datagram_longer_than_the_path_goes_in_fragments() {
    in_own_namespace(|| {
        ip("link set lo mtu 1280");
        let mut inbox = Inbox::new(4, 4096);
        let outbox = UdpSockets::bind(0, 0, UdpOffloads::ALL).unwrap();
        for host in ["127.0.0.1", "::1"] {
            let report = outbox.send_batch(&mut Sender::new(2), [item(inbox.at(host), &[1; 4000])]);
            assert_eq!((report.sent, report.failed.len()), (1, 0), "{host}");
            assert_eq!(inbox.collect(1)[0].1, [1; 4000]);
        }
        let v4 = outbox.fds()[0].unwrap();
        assert_eq!(option(v4, libc::IPPROTO_IP, libc::IP_MTU_DISCOVER), libc::IP_PMTUDISC_OMIT);
        let v6 = outbox.fds()[1].unwrap();
        assert_eq!(
            option(v6, libc::IPPROTO_IPV6, libc::IPV6_MTU_DISCOVER),
            libc::IPV6_PMTUDISC_DONT
        );
    });
}

/// [N-03]
#[test]
fn a_probe_comes_through_whole_or_not_at_all_and_the_host_says_what_fits() {
    in_own_namespace(|| {
        ip("link set lo mtu 1280");
        let mut inbox = Inbox::new(4, 4096);
        let outbox = UdpSockets::bind(0, 0, UdpOffloads::ALL).unwrap();
        for (host, headers) in [("127.0.0.1", 28), ("::1", 48)] {
            let remote = inbox.at(host);
            let probe = |len| vec![1; 1280 - headers + len];
            let send = |len| {
                let payload = probe(len);
                let one = SendItem { is_probe: true, ..item(remote, &payload) };
                outbox.send_batch(&mut Sender::new(2), [one])
            };
            assert_eq!(send(0).sent, 1, "{host}");
            let report = send(1);
            assert_eq!((report.sent, report.failed.len()), (0, 1), "{host}");
            let told = report.narrowed.first().map(|told| (told.remote.ip(), told.mtu));
            assert_eq!(told, Some((remote.ip(), 1280)), "{report:?}");
            let after = outbox.send_batch(&mut Sender::new(2), [item(remote, &[2; 3000])]);
            assert_eq!((after.sent, after.failed.len()), (1, 0), "{host}: it left no trace");
            let received = inbox.collect(2);
            assert_eq!((received[0].1.len(), received[1].1.len()), (1280 - headers, 3000));
        }
    });
}

/// [P-87]
#[test]
fn an_error_about_an_earlier_datagram_costs_no_later_one() {
    in_own_namespace(|| {
        let mut inbox = Inbox::new(4, 4096);
        let outbox = UdpSockets::bind(0, 0, UdpOffloads::ALL).unwrap();
        for nobody in ["127.0.0.1:9", "[::1]:9"] {
            let nobody = nobody.parse().unwrap();
            for round in 0..20 {
                // Answered by "port unreachable", at once on loopback.
                assert_eq!(outbox.send_batch(&mut Sender::new(2), [item(nobody, &[0])]).sent, 1);
                let remote = inbox.at("127.0.0.1");
                let report = outbox.send_batch(&mut Sender::new(2), [item(remote, &[round])]);
                assert_eq!((report.sent, report.failed.len()), (1, 0), "{round}");
                assert_eq!(inbox.collect(1)[0].1, [round]);
            }
        }
    });
}

#[test]
fn the_mark_is_set_at_bind_and_changed_later_on_both_sockets() {
    in_own_namespace(|| {
        let sockets = UdpSockets::bind(0, 0x1234, UdpOffloads::ALL).unwrap();
        let marks = |sockets: &UdpSockets| -> Vec<i32> {
            sockets
                .fds()
                .into_iter()
                .flatten()
                .map(|fd| option(fd, libc::SOL_SOCKET, libc::SO_MARK))
                .collect()
        };
        assert_eq!(marks(&sockets), [0x1234, 0x1234]);
        sockets.set_mark(0xffff_fffe).unwrap();
        assert_eq!(marks(&sockets), [-2, -2]);
        sockets.set_mark(0).unwrap();
        assert_eq!(marks(&sockets), [0, 0]);
    });
}

#[test]
fn the_buffers_are_as_large_as_asked_when_the_right_is_there() {
    in_own_namespace(|| {
        let sockets = UdpSockets::bind(0, 0, UdpOffloads::ALL).unwrap();
        for fd in sockets.fds().into_iter().flatten() {
            // The kernel doubles the figure for its own overhead. [socket(7)]
            assert_eq!(option(fd, libc::SOL_SOCKET, libc::SO_RCVBUF), 2 * SOCKET_BUFFER_BYTES);
            assert_eq!(option(fd, libc::SOL_SOCKET, libc::SO_SNDBUF), 2 * SOCKET_BUFFER_BYTES);
        }
    });
}

fn option(fd: BorrowedFd<'_>, level: i32, name: i32) -> i32 {
    let mut value: libc::c_int = 0;
    let mut len = libc::socklen_t::try_from(size_of_val(&value)).unwrap();
    // SAFETY: the kernel writes at most `len` bytes to `value`, its size, and the length to `len`.
    let got = unsafe {
        libc::getsockopt(fd.as_raw_fd(), level, name, (&raw mut value).cast(), &raw mut len)
    };
    assert_eq!(got, 0, "{}", std::io::Error::last_os_error());
    value
}
