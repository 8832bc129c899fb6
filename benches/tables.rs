//! What the tables of the packet path cost a packet: cryptokey routing and the replay window.
//!
//! Each table is timed at several sizes. Under `cargo test` every benchmark runs once, on the
//! smallest size only, so that it cannot rot.

use std::hint::black_box;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use hybridwg::crypto::entropy::{Entropy, SeededEntropy};
use hybridwg::proto::allowed_ips::{AllowedIps, Routes};
use ipnet::IpNet;

/// Lookups a measurement, of addresses in no order, so that the branches cannot be learnt.
const PACKETS: usize = 4096;

/// Whether `cargo test` runs us, which asks for one quick pass.
fn is_test() -> bool {
    !std::env::args().any(|argument| argument == "--bench")
}

fn sizes() -> &'static [u32] {
    if is_test() { &[10] } else { &[10, 10_000, 1_000_000] }
}

#[derive(Clone, Copy, Debug)]
enum Family {
    Ipv4,
    Ipv6,
}

impl Family {
    const ALL: [Self; 2] = [Self::Ipv4, Self::Ipv6];

    fn address(self, entropy: &mut dyn Entropy) -> IpAddr {
        match self {
            Self::Ipv4 => Ipv4Addr::from(entropy.bytes::<4>()).into(),
            Self::Ipv6 => {
                // All under one /16, as the addresses of one organisation are.
                let mut bytes = entropy.bytes::<16>();
                bytes[..2].copy_from_slice(&[0xfd, 0]);
                Ipv6Addr::from(bytes).into()
            }
        }
    }

    fn prefix_len(self, entropy: &mut dyn Entropy) -> u8 {
        let (shortest, span) = match self {
            Self::Ipv4 => (16, 16),
            Self::Ipv6 => (32, 96),
        };
        shortest + u8::try_from(entropy.up_to(span)).unwrap_or(0)
    }
}

/// A table of `size` prefixes of mixed lengths, one a peer, and addresses inside of them.
fn table(family: Family, size: u32) -> (AllowedIps<u32>, Vec<IpAddr>) {
    let entropy: &mut dyn Entropy = &mut SeededEntropy::new(u64::from(size));
    let mut table = AllowedIps::new();
    let mut inside = Vec::with_capacity(PACKETS);
    for owner in 0..size {
        let address = family.address(entropy);
        let net = IpNet::new(address, family.prefix_len(entropy)).expect("a length that fits");
        table.insert(net, owner);
        inside.push(address);
    }
    let addresses = (0..PACKETS).map(|_| inside[entropy.up_to(size - 1) as usize]).collect();
    (table, addresses)
}

fn found(routes: &Routes<u32>, addresses: &[IpAddr]) -> usize {
    addresses.iter().filter(|&&address| routes.lookup(black_box(address)).is_some()).count()
}

fn allowed_ips_lookup(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("allowed_ips/lookup");
    group.throughput(Throughput::Elements(PACKETS as u64));
    for family in Family::ALL {
        for &size in sizes() {
            let (table, addresses) = table(family, size);
            let routes = table.routes();
            assert_eq!(found(&routes, &addresses), PACKETS, "every address is inside a prefix");
            let id = BenchmarkId::new(format!("{family:?}"), size);
            group.bench_function(id, |bencher| bencher.iter(|| found(&routes, &addresses)));
        }
    }
    group.finish();
}

fn allowed_ips_edit(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("allowed_ips/move_prefix_and_publish");
    for &size in sizes() {
        let (mut table, addresses) = table(Family::Ipv6, size);
        let mut published = table.routes();
        let mut turn = 0;
        group.bench_function(BenchmarkId::from_parameter(size), |bencher| {
            bencher.iter(|| {
                turn += 1;
                table.insert(
                    addresses[turn % PACKETS].into(),
                    size + u32::from((turn / PACKETS).is_multiple_of(2)),
                );
                published = table.routes();
            });
        });
        assert!(published.lookup(addresses[turn % PACKETS]) >= Some(size), "the last edit shows");
    }
    group.finish();
}

criterion_group!(tables, allowed_ips_lookup, allowed_ips_edit);
criterion_main!(tables);
