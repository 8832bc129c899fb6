//! What the way of a packet costs without the system calls at its ends: sealing and opening a whole
//! train, and the turns of a shard.
//!
//! Bytes are those of the packets on the inside. Turns are measured with few peers and with many, of
//! whom one is active: for full packets there should be no difference, and for a lone one no more
//! than a deeper table of routes costs. Under `cargo test` everything runs once, with few peers only.

use std::hint::black_box;
use std::net::Ipv4Addr;

use criterion::{BatchSize, BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use hybridwg::packet::slab::Slab;
use hybridwg::packet::train::Train;
use hybridwg::proto::endpoint::Endpoint;
use hybridwg::proto::keypair::{Opener, Sealer};
use hybridwg::proto::replay::ReplayWindow;
use hybridwg::time::Instant;
use hybridwg::wire::message::TRANSPORT_OVERHEAD_BYTES;

use crate::node::{Inbound, Load, Outbound, session};

mod effort;
mod node;

const LOADS: [Load; 2] = [Load::Train, Load::Lone];

/// Turns an iteration of [`inbound`]: for less, reading the clock costs as much as a lone packet.
const fn turns(load: Load) -> usize {
    match load {
        Load::Train => 1,
        Load::Lone => 64,
    }
}

/// Of all packets of a turn.
const fn bytes(load: Load) -> usize {
    load.packets() * load.packet_bytes()
}

/// Whether `cargo test` runs us, which asks for one quick pass.
fn is_test() -> bool {
    !std::env::args().any(|argument| argument == "--bench")
}

fn peers() -> &'static [u32] {
    if is_test() { &[10] } else { &[10, 100_000] }
}

/// Seals all `packets` into the train.
fn seal(sealer: &Sealer, packets: &[Vec<u8>], train: &mut Train) {
    train.start(Endpoint::new(([192, 0, 2, 1], 1).into()), 0);
    let counters = sealer.reserve(packets.len() as u32).expect("fewer than 2^60 messages");
    for (packet, counter) in packets.iter().zip(counters) {
        let slot = train.append(packet.len() + TRANSPORT_OVERHEAD_BYTES).expect("all fit");
        sealer.seal(counter, black_box(packet), 0, slot);
    }
}

/// Opens all datagrams where they were received; yields the bytes of their packets.
fn open(opener: &Opener, window: &mut ReplayWindow, train: &mut [u8], stride: usize) -> usize {
    let now = Instant::from_nanos(1);
    let mut bytes = 0;
    for datagram in train.chunks_mut(stride) {
        let (proof, plain) = opener.open(now, datagram).expect("sealed for us");
        window.accept(&proof).expect("a fresh counter");
        bytes += black_box(&datagram[plain]).len();
    }
    bytes
}

fn train(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("path/train");
    group.throughput(Throughput::Bytes(bytes(Load::Train) as u64));
    let [ours, theirs] = session();
    let packets = Load::Train.cut(Ipv4Addr::LOCALHOST);
    let (mut train, mut received, mut window) = (Train::new(), Slab::new(), ReplayWindow::new());
    group.bench_function("seal", |bencher| {
        bencher.iter(|| seal(&ours.sealer, &packets, &mut train));
    });
    // What is opened is gone: each round has its own copy, which stands for the way in between.
    group.bench_function("seal_and_open", |bencher| {
        bencher.iter(|| {
            seal(&ours.sealer, &packets, &mut train);
            let received = &mut received[..train.bytes().len()];
            received.copy_from_slice(train.bytes());
            let opened = open(&theirs.opener, &mut window, received, train.stride());
            assert_eq!(opened, bytes(Load::Train));
        });
    });
    group.finish();
}

/// From the IP port to the datagram port: cut, sealed, sent together.
fn outbound(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("path/outbound");
    for load in LOADS {
        group.throughput(Throughput::Bytes(bytes(load) as u64));
        for &peers in peers() {
            let mut shard = Outbound::new(load, peers);
            let mut turns = 0;
            group.bench_function(BenchmarkId::new(format!("{load:?}"), peers), |bencher| {
                bencher.iter(|| {
                    shard.turn();
                    turns += 1;
                });
            });
            assert_eq!(shard.datagrams(), turns * load.packets());
        }
    }
    group.finish();
}

/// From the datagram port to the IP port: opened, checked, merged.
fn inbound(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("path/inbound");
    for load in LOADS {
        group.throughput(Throughput::Bytes((turns(load) * bytes(load)) as u64));
        for &peers in peers() {
            let (mut shard, mut remote) = Inbound::new(load, peers);
            let mut rounds = 0;
            group.bench_function(BenchmarkId::new(format!("{load:?}"), peers), |bencher| {
                let take_turns = |()| {
                    (0..turns(load)).for_each(|_| shard.turn());
                    rounds += 1;
                };
                // Where the datagrams wait there is room for those of one iteration.
                let size = BatchSize::PerIteration;
                bencher.iter_batched(|| remote.send(turns(load)), take_turns, size);
            });
            assert_eq!(shard.packets(), rounds * turns(load) * load.packets());
        }
    }
    group.finish();
}

criterion_group! {
    name = path;
    config = effort::criterion();
    targets = train, outbound, inbound
}
criterion_main!(path);
