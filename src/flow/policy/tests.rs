use proptest::prelude::*;

use super::*;

fn rule(text: &str) -> Rule {
    text.parse().unwrap_or_else(|fault| panic!("{text}: {fault}"))
}

fn policy(allow_to: &[&str], deny_to: &[&str]) -> Policy {
    let rules = |texts: &[&str]| texts.iter().map(|text| rule(text)).collect();
    Policy { allow_to: rules(allow_to), deny_to: rules(deny_to) }
}

fn host() -> HostAddresses {
    let networks = ["127.0.0.1/8", "::1/128", "10.20.0.5/24", "192.0.2.6/31", "2001:db8::5/64"];
    networks.iter().map(|network| network.parse::<IpNet>().unwrap()).collect()
}

fn judge(policy: &Policy, address: &str, service: Service) -> Result<(), Denial> {
    policy.judge(Destination { address: address.parse().unwrap(), service }, &host())
}

const WEB: Service = Service::Tcp(443);

#[test]
fn what_is_closed_by_itself_is_closed_without_rules_and_all_else_is_open() {
    let none = Policy::default();
    for (address, denial) in [
        ("0.0.0.0", Denial::Unspecified),
        ("0.1.2.3", Denial::Unspecified),
        ("::", Denial::Unspecified),
        ("127.0.0.1", Denial::Loopback),
        ("127.255.255.255", Denial::Loopback),
        ("::1", Denial::Loopback),
        ("169.254.1.1", Denial::LinkLocal),
        ("fe80::1", Denial::LinkLocal),
        ("febf::1", Denial::LinkLocal),
        ("169.254.169.254", Denial::Metadata),
        ("100.100.100.200", Denial::Metadata),
        ("168.63.129.16", Denial::Metadata),
        ("192.0.0.192", Denial::Metadata),
        ("fd00:ec2::254", Denial::Metadata),
        ("fd00:ec2::23", Denial::Metadata),
        ("fd20:ce::254", Denial::Metadata),
        ("fd00:c1::a9fe:a9fe", Denial::Metadata),
        ("fd00:42::42", Denial::Metadata),
        ("224.0.0.1", Denial::Multicast),
        ("239.255.255.255", Denial::Multicast),
        ("ff02::1", Denial::Multicast),
        ("255.255.255.255", Denial::Broadcast),
        ("10.20.0.255", Denial::Broadcast),
        ("240.0.0.1", Denial::Reserved),
        ("192.0.0.1", Denial::Reserved),
        ("::2", Denial::Reserved),
        ("::127.0.0.1", Denial::Reserved),
        ("fec0::1", Denial::Reserved),
        ("10.20.0.5", Denial::Host),
        ("192.0.2.6", Denial::Host),
        ("2001:db8::5", Denial::Host),
    ] {
        for service in [WEB, Service::Udp(53), Service::Icmp] {
            assert_eq!(judge(&none, address, service), Err(denial), "{address} {service:?}");
        }
    }
    for address in [
        "1.0.0.0",
        "126.255.255.255",
        "128.0.0.1",
        "169.253.0.1",
        "169.255.0.1",
        "192.0.1.1",
        "100.100.100.201",
        "168.63.129.17",
        "223.255.255.255",
        "10.20.0.4",
        "192.0.2.7",
        "10.0.0.1",
        "192.168.1.1",
        "100.64.0.1",
        "fd00::1",
        "2001:db8::6",
        "fd00:ec2::255",
        "2001:1::1",
        "fc00::1",
    ] {
        assert_eq!(judge(&none, address, WEB), Ok(()), "{address}");
    }
}

#[test]
fn an_ipv4_address_that_is_wrapped_into_ipv6_is_judged_as_itself() {
    let none = Policy::default();
    for (address, denial) in [
        ("::ffff:127.0.0.1", Denial::Loopback),
        ("::ffff:10.20.0.5", Denial::Host),
        ("64:ff9b::169.254.169.254", Denial::Metadata),
        ("64:ff9b::10.20.0.255", Denial::Broadcast),
        ("2002:7f00:1::", Denial::Loopback),
        ("2002:a9fe:a9fe:1:2:3:4:5", Denial::Metadata),
        // 127.0.0.1 with its bits inverted.
        ("2001:0:4136:e378:8000:63bf:80ff:fffe", Denial::Loopback),
        ("2001:db8:1::5efe:10.20.0.5", Denial::Host),
        ("2001:db8:1::200:5efe:224.0.0.1", Denial::Multicast),
        // Both 6to4, of an address that is open, and ISATAP, of one that is not.
        ("2002:102:304::5efe:127.0.0.1", Denial::Loopback),
    ] {
        assert_eq!(judge(&none, address, WEB), Err(denial), "{address}");
    }
    for address in [
        "::ffff:1.2.3.4",
        "64:ff9b::1.2.3.4",
        "2002:102:304::",
        "64:ff9b:1::127.0.0.1",
        "2001:0:4136:e378:8000:63bf:fefd:fcfb",
        "2001:db8:1::5efe:1.2.3.4",
        "2001:db8:1::5eff:127.0.0.1",
    ] {
        assert_eq!(judge(&none, address, WEB), Ok(()), "{address}");
    }
}

#[test]
fn deny_to_wins_over_allow_to_which_wins_over_what_is_closed_by_itself() {
    let some = policy(&["10.20.0.0/16", "169.254.169.254:53/udp", "host:22"], &["10.20.9.0/24"]);
    for (address, service, verdict) in [
        ("10.20.8.1", WEB, Ok(())),
        ("10.20.9.1", WEB, Err(Denial::DenyTo)),
        ("169.254.169.254", Service::Udp(53), Ok(())),
        ("169.254.169.254", Service::Tcp(53), Err(Denial::Metadata)),
        ("169.254.169.254", Service::Udp(80), Err(Denial::Metadata)),
        // Named by the network, and also an address of the host.
        ("10.20.0.5", WEB, Ok(())),
        ("192.0.2.6", Service::Tcp(22), Ok(())),
        ("192.0.2.6", WEB, Err(Denial::Host)),
        ("127.0.0.1", Service::Tcp(22), Err(Denial::Loopback)),
        ("1.1.1.1", WEB, Err(Denial::NotInAllowTo)),
        ("2606:4700::1111", WEB, Err(Denial::NotInAllowTo)),
    ] {
        assert_eq!(judge(&some, address, service), verdict, "{address} {service:?}");
    }
}

#[test]
fn a_rule_for_a_wrapper_opens_nothing_in_it_that_is_closed_and_closes_all_of_it() {
    let all = policy(&["::/0"], &[]);
    assert_eq!(judge(&all, "64:ff9b::1.2.3.4", WEB), Ok(()));
    assert_eq!(judge(&all, "64:ff9b::127.0.0.1", WEB), Err(Denial::Loopback));
    assert_eq!(judge(&all, "1.2.3.4", WEB), Err(Denial::NotInAllowTo));
    assert_eq!(judge(&all, "::ffff:1.2.3.4", WEB), Err(Denial::NotInAllowTo));
    let inner = policy(&["127.0.0.1"], &[]);
    for address in ["127.0.0.1", "::ffff:127.0.0.1", "64:ff9b::127.0.0.1", "2002:7f00:1::"] {
        assert_eq!(judge(&inner, address, WEB), Ok(()), "{address}");
    }
    let closed = policy(&[], &["2002::/16", "10.0.0.0/8"]);
    for address in ["2002:102:304::", "64:ff9b::10.1.2.3", "2001:db8::5efe:10.1.2.3"] {
        assert_eq!(judge(&closed, address, WEB), Err(Denial::DenyTo), "{address}");
    }
}

#[test]
fn a_rule_with_a_port_is_for_tcp_and_udp_and_one_with_a_protocol_for_that_alone() {
    for (text, names, others) in [
        ("10.0.0.1", &[WEB, Service::Udp(1), Service::Icmp][..], &[][..]),
        ("10.0.0.1:443", &[WEB, Service::Udp(443)], &[Service::Tcp(442), Service::Icmp]),
        (
            "10.0.0.1:440-443/tcp",
            &[WEB, Service::Tcp(440)],
            &[Service::Tcp(439), Service::Tcp(444), Service::Udp(443)],
        ),
        ("10.0.0.1/udp", &[Service::Udp(9)], &[WEB, Service::Icmp]),
        ("10.0.0.1/icmp", &[Service::Icmp], &[WEB, Service::Udp(1)]),
    ] {
        let only = policy(&[text], &[]);
        for service in names {
            assert_eq!(judge(&only, "10.0.0.1", *service), Ok(()), "{text} {service:?}");
        }
        for service in others {
            let verdict = judge(&only, "10.0.0.1", *service);
            assert_eq!(verdict, Err(Denial::NotInAllowTo), "{text} {service:?}");
        }
    }
}

#[test]
fn rules_are_read_in_every_form_and_written_in_the_shortest() {
    for (text, written) in [
        ("10.20.0.0/16", "10.20.0.0/16"),
        ("10.20.30.40/16", "10.20.0.0/16"),
        ("10.30.5.7", "10.30.5.7"),
        ("10.30.5.7/32:443/tcp", "10.30.5.7:443/tcp"),
        ("10.20.0.0/16/udp", "10.20.0.0/16/udp"),
        ("10.20.0.0/16:1-65535", "10.20.0.0/16:1-65535"),
        ("fd00::/8", "fd00::/8"),
        ("fd00::1", "fd00::1"),
        ("[fd00::1]", "fd00::1"),
        ("[fd00::1]:443", "[fd00::1]:443"),
        ("[fd00::/8]:5000-5000/udp", "[fd00::/8]:5000/udp"),
        ("fd00::/8/icmp", "fd00::/8/icmp"),
        ("host", "host"),
        ("HOST:22/tcp", "host:22/tcp"),
        ("0.0.0.0/0", "0.0.0.0/0"),
    ] {
        assert_eq!(rule(text).to_string(), written, "{text}");
    }
    for text in [
        "",
        "10.20.0.0/33",
        "10.20.0",
        "10.20.0.0/16/sctp",
        "10.0.0.1:",
        "10.0.0.1:0",
        "10.0.0.1:65536",
        "10.0.0.1:9-1",
        "10.0.0.1:+9",
        "10.0.0.1:1-",
        "10.0.0.1:1-2-3",
        "10.0.0.1:53/icmp",
        "[fd00::1",
        "[fd00::1]443",
        "fd00::1:443/x",
        "hosts",
        "example.org",
        "10.0.0.1 ",
        "/tcp",
        ":443",
        "[]:443",
        "10.0.0.1/tcp/udp",
        "10.0.0.1/TCP",
    ] {
        assert_eq!(text.parse::<Rule>(), Err(NotARule), "{text}");
    }
}

fn any_rule() -> impl Strategy<Value = Rule> {
    let network = prop_oneof![
        (any::<u32>(), 0..=32u8).prop_map(|(bits, length)| {
            IpNet::V4(Ipv4Net::new_assert(Ipv4Addr::from_bits(bits), length))
        }),
        (any::<u128>(), 0..=128u8).prop_map(|(bits, length)| {
            IpNet::V6(Ipv6Net::new_assert(Ipv6Addr::from_bits(bits), length))
        }),
    ];
    let target = prop_oneof![
        4 => network.prop_map(|network| Target::Network(network.trunc())),
        1 => Just(Target::Host),
    ];
    let ports = prop::option::of(
        (1..=u16::MAX, 1..=u16::MAX)
            .prop_map(|(one, other)| Ports { first: one.min(other), last: one.max(other) }),
    );
    let protocol = prop::option::of(prop_oneof![
        Just(Protocol::Tcp),
        Just(Protocol::Udp),
        Just(Protocol::Icmp)
    ]);
    (target, ports, protocol).prop_map(|(target, ports, protocol)| Rule {
        target,
        ports: ports.filter(|_| protocol != Some(Protocol::Icmp)),
        protocol,
    })
}

fn any_address() -> impl Strategy<Value = IpAddr> {
    let wrapped = (0..EMBEDDINGS.len(), any::<[u8; 16]>(), any::<u32>()).prop_map(
        |(kind, mut octets, bits)| {
            let kind = EMBEDDINGS[kind];
            octets[kind.mark_at..][..kind.mark.len()].copy_from_slice(kind.mark);
            let bits = if kind.is_inverted { !bits } else { bits };
            octets[kind.address_at..][..4].copy_from_slice(&bits.to_be_bytes());
            IpAddr::from(octets)
        },
    );
    let listed = (0..BUILT_IN.len(), any::<u128>()).prop_map(|(row, bits)| match BUILT_IN[row].0 {
        IpNet::V4(net) => {
            let host = !net.netmask().to_bits() & bits as u32;
            IpAddr::V4(Ipv4Addr::from_bits(net.network().to_bits() | host))
        }
        IpNet::V6(net) => {
            let host = !net.netmask().to_bits() & bits;
            IpAddr::V6(Ipv6Addr::from_bits(net.network().to_bits() | host))
        }
    });
    prop_oneof![any::<IpAddr>(), wrapped, listed]
}

fn any_service() -> impl Strategy<Value = Service> {
    prop_oneof![
        any::<u16>().prop_map(Service::Tcp),
        any::<u16>().prop_map(Service::Udp),
        Just(Service::Icmp)
    ]
}

proptest! {
    #[test]
    fn what_a_rule_is_written_as_is_read_as_the_same_rule(rule in any_rule()) {
        prop_assert_eq!(rule.to_string().parse(), Ok(rule));
    }

    #[test]
    fn no_text_makes_the_parser_panic(text in "[0-9a-fh:./\\[\\]tcpudost-]{0,24}") {
        let _ = text.parse::<Rule>();
    }

    #[test]
    fn one_more_deny_to_opens_nothing(
        address in any_address(), service in any_service(),
        allow_to in prop::collection::vec(any_rule(), 0..3),
        deny_to in prop::collection::vec(any_rule(), 0..3), more in any_rule(),
    ) {
        let destination = Destination { address, service };
        let before = Policy { allow_to, deny_to };
        let mut after = before.clone();
        after.deny_to.push(more);
        if before.judge(destination, &host()).is_err() {
            prop_assert!(after.judge(destination, &host()).is_err());
        }
    }

    #[test]
    fn without_rules_a_wrapped_address_is_open_only_if_what_it_wraps_is(
        address in any_address(), service in any_service(),
    ) {
        let judge = |address| Policy::default().judge(Destination { address, service }, &host());
        if judge(address).is_ok() {
            for inner in embedded(address) {
                prop_assert_eq!(judge(IpAddr::V4(inner)), Ok(()));
            }
        }
    }

    #[test]
    fn what_is_closed_by_itself_opens_only_for_rules_that_name_it(
        address in any_address(), service in any_service(), allow in any_rule(),
    ) {
        let destination = Destination { address, service };
        let closed = Policy::default().judge(destination, &host()).is_err();
        let opened = Policy { allow_to: vec![allow], deny_to: vec![] };
        if closed && opened.judge(destination, &host()).is_ok() {
            let address = address.to_canonical();
            let forms = std::iter::once(address).chain(embedded(address).map(IpAddr::V4));
            let names = |address| allow.names(Destination { address, service }, &host());
            prop_assert!(forms.into_iter().any(names));
        }
    }
}

#[test]
fn of_a_network_on_the_loopback_interface_each_address_is_this_hosts() {
    let networks = ["127.0.0.1/8", "192.0.2.1/24", "2001:db8:7::1/64"];
    let host = host().with_loopback(networks.map(|network| network.parse().unwrap()));
    for (address, is_own) in [
        ("192.0.2.77", true),
        ("192.0.2.0", true),
        ("192.0.3.1", false),
        ("127.0.0.5", false),
        ("10.20.0.7", false),
        ("2001:db8:7::2", false),
    ] {
        let address = address.parse().unwrap();
        assert_eq!(host.hears(address), is_own, "{address}");
        let judged = Policy::default().judge(Destination { address, service: WEB }, &host);
        assert_eq!(judged == Err(Denial::Host), is_own, "{address}");
    }
}
