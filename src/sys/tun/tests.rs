use std::os::fd::AsFd;
use std::time::Duration;

use rustix::thread::CapabilitySet;

use super::*;
use crate::sys::poll::{Interest, Poller, Ready};
use crate::sys::testing::{eventually, in_own_namespace, ip, skip};
use crate::sys::udp::{Receiver, RecvMeta, SendItem, Sender, UdpOffloads, UdpSockets};

/// An IPv4 UDP datagram from 10.9.0.2 to `10.9.0.1:9`, without UDP checksum.
fn packet(payload: u8) -> Vec<u8> {
    let mut packet = vec![0x45, 0, 0, 29, 0, 0, 0, 0, 64, 17, 0, 0, 10, 9, 0, 2, 10, 9, 0, 1];
    let sum: u32 = packet.chunks(2).map(|pair| u32::from(pair[0]) << 8 | u32::from(pair[1])).sum();
    let checksum = !u16::try_from((sum & 0xffff) + (sum >> 16)).unwrap();
    packet[10..12].copy_from_slice(&checksum.to_be_bytes());
    packet.extend([0x30, 0x39, 0, 9, 0, 9, 0, 0, payload]);
    packet
}

fn ready_within(tun: &Tun, timeout: Duration) -> Option<Ready> {
    let mut poller = Poller::new().unwrap();
    poller.add(tun.as_fd(), 0, Interest::Readable).unwrap();
    poller.wait(Some(timeout)).unwrap().next()
}

/// Creates an interface that is up and has 10.9.0.1/24.
fn up(name: &str) -> Tun {
    up_with(name, TunOffloads::NONE)
}

fn up_with(name: &str, wanted: TunOffloads) -> Tun {
    let tun = Tun::create(name, wanted).unwrap();
    ip(&format!("address add 10.9.0.1/24 dev {name}"));
    // Else the kernel sends router solicitations, and tests count packets.
    std::fs::write(format!("/proc/sys/net/ipv6/conf/{name}/disable_ipv6"), "1").unwrap();
    ip(&format!("link set {name} up"));
    tun
}

#[test]
fn packets_written_reach_a_socket_and_packets_sent_there_are_read() {
    in_own_namespace(|| {
        let tun = up("hw0");
        assert_eq!(tun.recv(&mut [0; 2048]).unwrap(), None);
        let socket = std::net::UdpSocket::bind("10.9.0.1:9").unwrap();
        let bytes = packet(0xa7);
        tun.send_vectored(&[IoSlice::new(&bytes[..20]), IoSlice::new(&bytes[20..])]).unwrap();
        let mut buffer = [0; 2048];
        socket.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
        let (len, from) = socket.recv_from(&mut buffer).unwrap();
        assert_eq!((&buffer[..len], from), (&[0xa7][..], "10.9.0.2:12345".parse().unwrap()));
        socket.send_to(&[1, 2, 3], from).unwrap();
        assert!(ready_within(&tun, Duration::from_secs(5)).unwrap().readable);
        let len = tun.recv(&mut buffer).unwrap().unwrap();
        assert_eq!(
            (len, &buffer[12..20], &buffer[28..31]),
            (31, &[10, 9, 0, 1, 10, 9, 0, 2][..], &[1, 2, 3][..])
        );
    });
}

#[test]
fn the_kernel_chooses_the_number_where_the_name_ends_in_percent_d() {
    in_own_namespace(|| {
        let first = Tun::create("hw%d", TunOffloads::NONE).unwrap();
        let second = Tun::create("hw%d", TunOffloads::NONE).unwrap();
        assert_eq!((first.name(), second.name()), ("hw0", "hw1"));
    });
}

#[test]
fn an_interface_that_another_descriptor_holds_is_busy_and_the_error_names_it() {
    in_own_namespace(|| {
        let _holder = Tun::create("hw0", TunOffloads::NONE).unwrap();
        let error = Tun::create("hw0", TunOffloads::NONE).unwrap_err();
        assert!(matches!(error, TunError::Busy(_, _)), "{error:?}");
        assert!(error.to_string().contains("hw0 is in use"), "{error}");
    });
}

#[test]
fn an_interface_of_another_kind_under_the_name_is_told_apart() {
    in_own_namespace(|| {
        ip("link add hw0 type veth peer name hw1");
        let error = Tun::create("hw0", TunOffloads::NONE).unwrap_err();
        assert!(matches!(error, TunError::NotTun(_, _)), "{error:?}");
    });
}

#[test]
fn without_the_capability_the_error_says_which_is_missing() {
    in_own_namespace(|| {
        let mut sets = rustix::thread::capabilities(None).unwrap();
        sets.effective -= CapabilitySet::NET_ADMIN;
        rustix::thread::set_capabilities(None, sets).unwrap();
        let error = Tun::create("hw0", TunOffloads::NONE).unwrap_err();
        assert!(matches!(error, TunError::NotPermitted(_, _)), "{error:?}");
        assert!(error.to_string().contains("CAP_NET_ADMIN"), "{error}");
    });
}

#[test]
fn without_the_device_node_the_error_says_how_to_get_it() {
    let empty = tempfile::tempdir().unwrap();
    in_own_namespace(|| {
        // SAFETY: the hazard of `unshare` is CLONE_FILES; this one gives the thread a root folder
        // of its own and leaves descriptors alone.
        unsafe { rustix::thread::unshare_unsafe(rustix::thread::UnshareFlags::FS) }.unwrap();
        rustix::process::chroot(empty.path()).unwrap();
        let error = Tun::create("hw0", TunOffloads::NONE).unwrap_err();
        assert!(matches!(error, TunError::NoDevice(_)), "{error:?}");
        assert!(error.to_string().contains("modprobe tun"), "{error}");
    });
}

/// Trap 22.
#[test]
fn a_deleted_interface_wakes_its_poller_and_every_call_says_that_it_is_gone() {
    in_own_namespace(|| {
        let tun = up("hw0");
        std::thread::scope(|scope| {
            let waiting = scope.spawn(|| ready_within(&tun, Duration::from_secs(20)));
            ip("link delete hw0");
            let ready = waiting.join().unwrap().expect("the poller woke");
            assert!(ready.failed || ready.readable, "{ready:?}");
        });
        assert!(tun.recv(&mut [0; 64]).unwrap_err().is_tun_gone());
        assert!(tun.send(&packet(1)).unwrap_err().is_tun_gone());
        assert!(tun.current_name().unwrap_err().is_tun_gone());
    });
}

#[test]
fn an_interface_that_is_down_loses_the_packet_and_not_the_port() {
    in_own_namespace(|| {
        let tun = up("hw0");
        ip("link set hw0 down");
        let error = tun.send(&packet(1)).unwrap_err();
        assert!(error.is_tun_down() && !error.is_tun_gone(), "{error}");
        assert!(ready_within(&tun, Duration::ZERO).is_none_or(|ready| !ready.failed));
        assert_eq!(tun.recv(&mut [0; 64]).unwrap(), None);
        ip("link set hw0 up");
        tun.send(&packet(1)).unwrap();
    });
}

#[test]
fn bytes_that_are_no_ip_packet_are_refused_alone() {
    in_own_namespace(|| {
        let tun = up("hw0");
        let error = tun.send(&[0x10; 40]).unwrap_err();
        assert!(error.is_packet_refused() && !error.is_tun_gone(), "{error}");
        tun.send(&packet(1)).unwrap();
    });
}

#[test]
fn an_inherited_descriptor_is_attached_and_told_its_name() {
    in_own_namespace(|| {
        let created = up("hw0");
        let fd = rustix::io::fcntl_dupfd_cloexec(&created, 0).unwrap();
        drop(created);
        // Blocking and inheritable, as a supervisor may leave it.
        rustix::fs::fcntl_setfl(&fd, OFlags::RDWR).unwrap();
        rustix::io::fcntl_setfd(&fd, rustix::io::FdFlags::empty()).unwrap();
        let tun = Tun::attach(fd, TunOffloads::NONE).unwrap();
        assert_eq!(tun.name(), "hw0");
        assert_eq!(tun.recv(&mut [0; 64]).unwrap(), None, "it does not block");
        ip("link set hw0 down");
        ip("link set hw0 name hw1");
        assert_eq!(tun.current_name().unwrap(), "hw1");
        drop(tun);
        // A process that another test has started in between holds a copy as long as it lives.
        let is_gone = || Tun::create("hw1", TunOffloads::NONE).is_ok();
        assert!(eventually(is_gone), "the last descriptor takes the interface with it");
    });
}

#[test]
fn a_descriptor_of_frames_is_refused() {
    in_own_namespace(|| {
        let fd = open_device().unwrap();
        let mut request = request("tap0");
        request.ifr_ifru.ifru_flags = i16::try_from(libc::IFF_TAP | libc::IFF_NO_PI).unwrap();
        interface_ioctl("ioctl TUNSETIFF", fd.as_fd(), libc::TUNSETIFF, &mut request).unwrap();
        let error = Tun::attach(fd, TunOffloads::NONE).unwrap_err();
        assert!(matches!(&error, TunError::WrongKind { name, .. } if name == "tap0"), "{error:?}");
    });
}

#[test]
fn with_offloads_a_message_to_be_cut_crosses_whole_with_its_header() {
    in_own_namespace(|| {
        let tun = up_with("hw0", TunOffloads::ALL);
        assert_eq!((tun.header_bytes(), tun.offloads()), (10, TunOffloads::ALL));
        let outbox = UdpSockets::bind(0, 0, UdpOffloads::ALL).unwrap();
        let remote = "10.9.0.2:9".parse().unwrap();
        let one = SendItem {
            remote,
            source: None,
            tos: 0,
            payload: &[7; 2500],
            stride: 1000,
            is_probe: false,
        };
        assert_eq!(outbox.send_batch(&mut Sender::new(1), [one]).sent, 3);
        let mut buffer = [0; 4096];
        let len = tun.recv(&mut buffer).unwrap().unwrap();
        assert_eq!(len, 10 + 28 + 2500);
        // Needs a checksum, UDP, segments of 1000 bytes.
        assert_eq!((buffer[0], buffer[1], &buffer[4..6]), (1, 5, &1000_u16.to_ne_bytes()[..]));
        // And back: the kernel cuts it, or hands it on whole to whoever can take it.
        buffer[10 + 12..10 + 20].rotate_left(4);
        let ports = 10 + 20;
        buffer[ports..ports + 4].rotate_left(2);
        let port = u16::from_be_bytes([buffer[ports + 2], buffer[ports + 3]]);
        assert_eq!(port, outbox.local_port());
        tun.send(&buffer[..len]).unwrap();
        let mut payload = vec![0; 4096];
        let mut metas = [RecvMeta::default()];
        let mut receiver = Receiver::new(1);
        let mut receive =
            || outbox.recv_batch(&mut receiver, [true; 2], [&mut payload[..]], &mut metas);
        assert!(eventually(|| receive().unwrap() == 1));
        assert_eq!((metas[0].len, metas[0].stride), (2500, 1000));
    });
}

#[test]
fn without_offloads_there_is_no_header() {
    in_own_namespace(|| {
        let tun = up_with("hw0", TunOffloads::NONE);
        assert_eq!((tun.header_bytes(), tun.offloads()), (0, TunOffloads::NONE));
        let tcp = TunOffloads { tcp: true, udp: false };
        let tun = up_with("hw1", tcp);
        assert_eq!((tun.header_bytes(), tun.offloads()), (10, tcp));
    });
}

#[test]
fn an_inherited_descriptor_tells_whether_it_has_headers() {
    in_own_namespace(|| {
        for (name, made, bytes, offloads) in [
            ("hw0", TunOffloads::ALL, 10, TunOffloads::ALL),
            ("hw1", TunOffloads::NONE, 0, TunOffloads::NONE),
        ] {
            let created = Tun::create(name, made).unwrap();
            let fd = rustix::io::fcntl_dupfd_cloexec(&created, 0).unwrap();
            let tun = Tun::attach(fd, TunOffloads::ALL).unwrap();
            assert_eq!((tun.header_bytes(), tun.offloads()), (bytes, offloads));
        }
    });
}

/// Sends a datagram from each of `sockets` to 10.9.0.2, and tells how many came out of each queue and
/// which source ports they had.
fn spread(queues: &[Tun], sockets: &[std::net::UdpSocket]) -> Vec<Vec<u16>> {
    for socket in sockets {
        socket.send_to(&[7], "10.9.0.2:9").unwrap();
    }
    let mut buffer = [0; 2048];
    let mut came = vec![Vec::new(); queues.len()];
    let all_came = eventually(|| {
        for (queue, came) in queues.iter().zip(&mut came) {
            while let Some(len) = queue.recv(&mut buffer).unwrap() {
                let ports = queue.header_bytes() + 20;
                assert_eq!(len, ports + 8 + 1);
                came.push(u16::from_be_bytes([buffer[ports], buffer[ports + 1]]));
            }
        }
        came.iter().map(Vec::len).sum::<usize>() == sockets.len()
    });
    assert!(all_came, "{came:?}");
    came.iter_mut().for_each(|ports| ports.sort_unstable());
    came
}

/// An interface that is up, with so many queues.
fn up_with_queues(name: &str, count: usize) -> Vec<Tun> {
    let first = Tun::create_for_queues(name, TunOffloads::ALL).unwrap();
    assert!(first.may_have_more());
    let mut queues = vec![first];
    for _ in 1..count {
        queues.push(queues[0].open_queue().unwrap());
    }
    ip(&format!("address add 10.9.0.1/24 dev {name}"));
    std::fs::write(format!("/proc/sys/net/ipv6/conf/{name}/disable_ipv6"), "1").unwrap();
    ip(&format!("link set {name} up"));
    queues
}

#[test]
fn the_kernel_spreads_flows_over_queues_and_each_keeps_to_its_own() {
    in_own_namespace(|| {
        let queues = up_with_queues("hw0", 4);
        for queue in &queues {
            assert_eq!((queue.name(), queue.header_bytes()), ("hw0", 10));
            assert_eq!(queue.offloads(), TunOffloads::ALL);
        }
        let socket = || std::net::UdpSocket::bind("10.9.0.1:0").unwrap();
        let sockets: Vec<_> = (0..64).map(|_| socket()).collect();
        let first = spread(&queues, &sockets);
        assert!(first.iter().filter(|ports| !ports.is_empty()).count() > 1, "{first:?}");
        assert_eq!(spread(&queues, &sockets), first);
    });
}

#[test]
fn any_queue_takes_packets() {
    in_own_namespace(|| {
        let queues = up_with_queues("hw0", 3);
        let socket = std::net::UdpSocket::bind("10.9.0.1:9").unwrap();
        socket.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
        for (number, queue) in (0..).zip(&queues) {
            queue.send(&[&[0; 10][..], &packet(number)].concat()).unwrap();
            let mut buffer = [0; 16];
            assert_eq!(socket.recv(&mut buffer).unwrap(), 1);
            assert_eq!(buffer[0], number);
        }
    });
}

#[test]
fn an_interface_that_was_not_made_for_more_queues_has_one() {
    in_own_namespace(|| {
        let alone = up("hw0");
        assert!(!alone.may_have_more());
        assert_eq!(alone.open_queue().unwrap_err().errno(), Some(libc::EINVAL));
        // One that is there already is taken over as it is.
        ip("tuntap add mode tun name hw1");
        let kept = Tun::create_for_queues("hw1", TunOffloads::ALL).unwrap();
        assert!(!kept.may_have_more());
        assert_eq!(kept.header_bytes(), 10);
        kept.open_queue().unwrap_err();
    });
}

#[test]
fn nobody_gets_a_queue_of_an_interface_that_another_holds() {
    in_own_namespace(|| {
        let _holder = Tun::create_for_queues("hw0", TunOffloads::ALL).unwrap();
        for create in [Tun::create, Tun::create_for_queues] {
            let error = create("hw0", TunOffloads::ALL).unwrap_err();
            assert!(matches!(error, TunError::NotTun(_, _)), "{error:?}");
            assert!(error.to_string().contains("hw0 exists: it is in use"), "{error}");
        }
        let _alone = Tun::create("hw1", TunOffloads::ALL).unwrap();
        let error = Tun::create_for_queues("hw1", TunOffloads::ALL).unwrap_err();
        assert!(matches!(error, TunError::Busy(_, _)), "{error:?}");
    });
}

#[test]
fn whoever_inherits_a_queue_can_open_more_if_it_was_made_for_that() {
    in_own_namespace(|| {
        for (create, may_have_more) in
            [(Tun::create as fn(&str, _) -> _, false), (Tun::create_for_queues, true)]
        {
            let created = create("hw%d", TunOffloads::ALL).unwrap();
            let fd = rustix::io::fcntl_dupfd_cloexec(&created, 0).unwrap();
            let tun = Tun::attach(fd, TunOffloads::ALL).unwrap();
            assert_eq!(tun.may_have_more(), may_have_more);
            assert_eq!(tun.open_queue().is_ok(), may_have_more);
        }
    });
}

#[test]
fn a_deleted_interface_is_gone_for_all_its_queues_and_does_not_come_back_with_a_new_one() {
    in_own_namespace(|| {
        let queues = up_with_queues("hw0", 2);
        ip("link delete hw0");
        for queue in &queues {
            assert!(queue.recv(&mut [0; 64]).unwrap_err().is_tun_gone());
        }
        assert!(queues[0].open_queue().unwrap_err().is_tun_gone());
    });
}

#[test]
fn a_descriptor_that_is_no_tun_is_refused() {
    let file = std::fs::File::open("/dev/null").unwrap();
    assert!(matches!(Tun::attach(file.into(), TunOffloads::NONE), Err(TunError::Other(_))));
}

#[test]
fn both_clones_serve_one_interface() {
    in_own_namespace(|| {
        let tun = up("hw0");
        let other = tun.try_clone().unwrap();
        drop(tun);
        other.send(&packet(1)).unwrap();
        assert_eq!(other.current_name().unwrap(), "hw0");
    });
}

#[test]
fn names_are_judged_as_the_kernel_judges_them() {
    for valid in ["w", "wg0", "a.b-c_d", "fifteen-bytes-x", "..."] {
        assert!(is_valid_name(valid), "{valid:?}");
    }
    for invalid in
        ["", ".", "..", "a/b", "a:b", "a b", "a\tb", "a%d", "a\u{b}", "a\0", "sixteen-bytes-xy"]
    {
        assert!(!is_valid_name(invalid), "{invalid:?}");
        assert!(
            invalid == "a%d"
                || matches!(Tun::create(invalid, TunOffloads::NONE), Err(TunError::InvalidName(_)))
        );
    }
}

#[test]
fn steered_flows_keep_their_queue_whatever_queue_their_answers_come_by() {
    in_own_namespace(|| {
        let queues = up_with_queues("hw0", 4);
        if let Err(error) = queues[0].steer_by_flow() {
            return skip(&format!("no steering: {error}"));
        }
        let socket = || std::net::UdpSocket::bind("10.9.0.1:0").unwrap();
        let sockets: Vec<_> = (0..64).map(|_| socket()).collect();
        let first = spread(&queues, &sockets);
        assert!(first.iter().all(|ports| !ports.is_empty()), "64 flows in 4 queues: {first:?}");
        for socket in &sockets {
            let [high, low] = socket.local_addr().unwrap().port().to_be_bytes();
            let mut answer = packet(1);
            answer[20..24].copy_from_slice(&[0, 9, high, low]);
            queues[0].send(&[&[0; 10][..], &answer].concat()).unwrap();
            assert_eq!(socket.recv(&mut [0; 8]).unwrap(), 1);
        }
        assert_eq!(spread(&queues, &sockets), first);
    });
}

#[test]
fn steered_packets_of_both_versions_are_spread_and_fragments_follow_their_first() {
    in_own_namespace(|| {
        let queues = up_with_queues("hw0", 4);
        if let Err(error) = queues[0].steer_by_flow() {
            return skip(&format!("no steering: {error}"));
        }
        std::fs::write("/proc/sys/net/ipv6/conf/hw0/disable_ipv6", "0").unwrap();
        ip("-6 address add fd09::1/64 dev hw0 nodad");
        // Where what was sent has come out, without what the kernel says by itself.
        let came = |version: u8| {
            let mut buffer = [0; 2048];
            let mut count = [0; 4];
            for (queue, count) in queues.iter().zip(&mut count) {
                while let Some(len) = queue.recv(&mut buffer).unwrap() {
                    let packet = &buffer[10..len];
                    let protocol = if version == 4 { packet[9] } else { packet[6] };
                    *count += usize::from(packet[0] >> 4 == version && protocol == 17);
                }
            }
            count
        };
        let bound = |host: &str| std::net::UdpSocket::bind((host, 0)).unwrap();
        for _ in 0..64 {
            bound("fd09::1").send_to(&[7], "[fd09::2]:9").unwrap();
        }
        let spread = came(6);
        assert_eq!(spread.iter().sum::<usize>(), 64);
        assert!(spread.iter().all(|&count| count > 0), "{spread:?}");
        bound("10.9.0.1").send_to(&[7; 9000], "10.9.0.2:9").unwrap();
        let mut fragments = came(4);
        fragments.sort_unstable();
        assert_eq!(fragments, [0, 0, 0, 7], "9008 bytes in pieces of 1480");
    });
}
