//! What the tables of the packet path cost a packet: cryptokey routing and the replay window.
//!
//! Each table is timed at several sizes. Under `cargo test` every benchmark runs once, on the
//! smallest size only, so that it cannot rot.

use std::hint::black_box;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use hybridwg::crypto::entropy::{Entropy, SeededEntropy};
use hybridwg::crypto::key::{PresharedKey, PrivateKey};
use hybridwg::crypto::tai64n::Timestamp;
use hybridwg::proto::allowed_ips::{AllowedIps, Routes};
use hybridwg::proto::handshake::{InitiationOpened, InitiationSent, RemoteStatic, StaticIdentity};
use hybridwg::proto::index::Index;
use hybridwg::proto::keypair::Authenticated;
use hybridwg::proto::replay::ReplayWindow;
use hybridwg::time::{Instant, Wall};
use hybridwg::wire::message::TRANSPORT_OVERHEAD_BYTES;
use ipnet::IpNet;

mod effort;

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

/// Proofs of the counters from 0 on: a window takes nothing else, so messages are truly sealed and
/// opened.
fn proofs(count: usize) -> Vec<Authenticated> {
    let now = Instant::ZERO;
    let [initiator, responder] =
        [[1; 32], [2; 32]].map(|key| StaticIdentity::new(PrivateKey::from_bytes(key)));
    let to_responder = RemoteStatic::new(&initiator, responder.public, PresharedKey::NONE);
    let to_initiator = RemoteStatic::new(&responder, initiator.public, PresharedKey::NONE);
    let [mine, theirs] = [[3; 32], [4; 32]].map(PrivateKey::from_bytes);
    let timestamp = Timestamp::from_wall(Wall::default());
    let (sent, message) =
        InitiationSent::create(&initiator, &to_responder, mine, Index(1), timestamp)
            .expect("an initiation");
    let (message, receiving) = InitiationOpened::open(&responder, &message)
        .and_then(|opened| opened.verify(&to_initiator))
        .and_then(|received| received.create_response(now, &to_initiator, theirs, Index(2)))
        .expect("a response");
    let sending = sent
        .consume_response(now, &initiator, &to_responder, &message)
        .expect("a session of the initiator");
    let mut datagram = [0; TRANSPORT_OVERHEAD_BYTES];
    let count = u32::try_from(count).expect("few");
    let counters = sending.sealer.reserve(count).expect("a fresh session has counters");
    counters
        .map(|counter| {
            sending.sealer.seal(counter, &[], 0, &mut datagram);
            receiving.opener.open(now, &mut datagram).expect("the same keys").0
        })
        .collect()
}

fn replay_window(criterion: &mut Criterion) {
    let in_order = proofs(PACKETS);
    let mut blockwise = proofs(PACKETS);
    // As paths of unequal length do: each packet up to 64 places late.
    blockwise.chunks_mut(64).for_each(<[_]>::reverse);
    let mut group = criterion.benchmark_group("replay_window/accept");
    group.throughput(Throughput::Elements(PACKETS as u64));
    for (order, proofs) in [("in_order", &in_order), ("reordered_by_64", &blockwise)] {
        group.bench_function(order, |bencher| {
            bencher.iter(|| {
                let mut window = ReplayWindow::new();
                let accepted = proofs.iter().filter(|proof| window.accept(proof).is_ok()).count();
                assert_eq!(accepted, PACKETS);
            });
        });
    }
    group.bench_function("all_replayed", |bencher| {
        let mut window = ReplayWindow::new();
        assert!(in_order.iter().all(|proof| window.accept(proof).is_ok()));
        bencher.iter(|| assert!(in_order.iter().all(|proof| window.accept(proof).is_err())));
    });
    group.finish();
}

criterion_group! {
    name = tables;
    config = effort::criterion();
    targets = allowed_ips_lookup, allowed_ips_edit, replay_window
}
criterion_main!(tables);
