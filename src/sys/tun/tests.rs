use std::os::fd::AsFd;
use std::time::Duration;

use rustix::thread::CapabilitySet;

use super::*;
use crate::sys::poll::{Interest, Poller, Ready};
use crate::sys::testing::{eventually, in_own_namespace, ip};
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
        let one = SendItem { remote, source: None, tos: 0, payload: &[7; 2500], stride: 1000 };
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
        let mut receive = || outbox.recv_batch(&mut receiver, [&mut payload[..]], &mut metas);
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
