//! What sealing and opening a packet costs through our session keys, next to the bare libraries
//! and to boringtun.
//!
//! And a train of packets through the kernel of this processor, if it has one, next to one by one.
//!
//! Lengths are inner packets: a TCP acknowledgement, a voice packet, a full one. Under `cargo test`
//! everything runs once.

use std::hint::black_box;

use aws_lc_rs::aead as lc;
use boringtun::noise::{Tunn, TunnResult};
use boringtun::x25519;
use chacha20poly1305::aead::AeadInOut;
use chacha20poly1305::{ChaCha20Poly1305, KeyInit};
use criterion::{BatchSize, BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use hybridwg::crypto::aead::{AeadKey, TAG_BYTES};
use hybridwg::crypto::batch::{Kernel, LANES, Message as BatchMessage};
use hybridwg::crypto::key::{PresharedKey, PrivateKey, PublicKey, SymmetricKey};
use hybridwg::crypto::tai64n::Timestamp;
use hybridwg::proto::cookie::CookieJar;
use hybridwg::proto::handshake::{InitiationSent, RemoteStatic, StaticIdentity};
use hybridwg::proto::index::Index;
use hybridwg::proto::keypair::Keypair;
use hybridwg::time::{Instant, Wall};
use hybridwg::wire::message::{
    Message, TRANSPORT_HEADER_BYTES, TRANSPORT_OVERHEAD_BYTES, classify,
};

mod effort;

const LENGTHS: [u16; 3] = [64, 512, 1420];
const KEY: [u8; 32] = [0x5a; 32];
const NOW: Instant = Instant::from_nanos(1);

/// Our end and boringtun's of one session.
fn session() -> (Keypair, Tunn) {
    let identity = StaticIdentity::new(PrivateKey::from_bytes([1; 32]));
    let their_private = x25519::StaticSecret::from([2; 32]);
    let theirs = PublicKey::from_bytes(x25519::PublicKey::from(&their_private).to_bytes());
    let our_public = x25519::PublicKey::from(*identity.public.as_bytes());
    let mut tunn = Tunn::new(their_private, our_public, None, None, 7, None);
    let remote = RemoteStatic::new(&identity, theirs, PresharedKey::NONE);
    let ephemeral = PrivateKey::from_bytes([3; 32]);
    let stamp = Timestamp::from_wall(Wall { secs: 1_700_000_000, nanos: 0 });
    let (sent, mut message) =
        InitiationSent::create(&identity, &remote, ephemeral, Index(9), stamp)
            .expect("the keys are good");
    CookieJar::new(&theirs).stamp(NOW, &mut message);
    let mut buffer = [0; 2048];
    let TunnResult::WriteToNetwork(answer) = tunn.decapsulate(None, &message, &mut buffer) else {
        panic!("boringtun responds");
    };
    let Some(Message::Response(response)) = classify(answer) else { panic!("with a response") };
    let keypair = sent.consume_response(NOW, &identity, &remote, response);
    let keypair = keypair.expect("the response is good");
    let confirmation = datagram(&keypair, &[]);
    assert!(matches!(tunn.decapsulate(None, &confirmation, &mut buffer), TunnResult::Done));
    (keypair, tunn)
}

fn datagram(keypair: &Keypair, packet: &[u8]) -> Vec<u8> {
    let mut out = vec![0; packet.len() + TRANSPORT_OVERHEAD_BYTES];
    let counter = keypair.sealer.reserve(1).and_then(|mut range| range.next());
    keypair.sealer.seal(counter.expect("few were sent"), packet, 0, &mut out);
    out
}

/// A packet of `length` bytes with as much of an IPv4 header as boringtun reads.
fn packet(length: u16) -> Vec<u8> {
    let mut packet = vec![0x33; usize::from(length)];
    packet[0] = 0x45;
    packet[2..4].copy_from_slice(&length.to_be_bytes());
    packet
}

fn nonce(counter: u64) -> [u8; 12] {
    let mut nonce = [0; 12];
    nonce[4..].copy_from_slice(&counter.to_le_bytes());
    nonce
}

fn seal(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("seal");
    let (keypair, mut tunn) = session();
    let aws = lc::LessSafeKey::new(
        lc::UnboundKey::new(&lc::CHACHA20_POLY1305, &KEY).expect("a key of 32 bytes"),
    );
    let ring = ring::aead::LessSafeKey::new(
        ring::aead::UnboundKey::new(&ring::aead::CHACHA20_POLY1305, &KEY)
            .expect("a key of 32 bytes"),
    );
    let rust_crypto = ChaCha20Poly1305::new(&KEY.into());
    for length in LENGTHS {
        let packet = packet(length);
        let mut out = vec![0; packet.len() + TRANSPORT_OVERHEAD_BYTES];
        group.throughput(Throughput::Bytes(length.into()));
        group.bench_function(BenchmarkId::new("hybridwg", length), |bencher| {
            bencher.iter(|| {
                let counter = keypair.sealer.reserve(1).and_then(|mut range| range.next());
                let counter = counter.expect("a benchmark is shorter than 2^64 messages");
                keypair.sealer.seal(counter, black_box(&packet), 0, &mut out)
            });
        });
        let body = &mut out[TRANSPORT_HEADER_BYTES..TRANSPORT_HEADER_BYTES + packet.len()];
        let mut counter = 0;
        let mut next = || {
            counter += 1;
            nonce(counter)
        };
        group.bench_function(BenchmarkId::new("aws-lc-rs", length), |bencher| {
            bencher.iter(|| {
                let nonce = lc::Nonce::assume_unique_for_key(next());
                aws.seal_in_place_separate_tag(nonce, lc::Aad::empty(), black_box(&mut *body))
            });
        });
        group.bench_function(BenchmarkId::new("ring", length), |bencher| {
            bencher.iter(|| {
                let nonce = ring::aead::Nonce::assume_unique_for_key(next());
                let aad = ring::aead::Aad::empty();
                ring.seal_in_place_separate_tag(nonce, aad, black_box(&mut *body))
                    .map(|tag| black_box(tag.as_ref()[0]))
            });
        });
        group.bench_function(BenchmarkId::new("chacha20poly1305", length), |bencher| {
            bencher.iter(|| {
                let body = black_box(&mut *body).into();
                rust_crypto.encrypt_inout_detached(&next().into(), &[], body)
            });
        });
        let mut out = vec![0; 2048];
        group.bench_function(BenchmarkId::new("boringtun", length), |bencher| {
            bencher.iter(|| {
                let sealed = tunn.encapsulate(black_box(&packet), &mut out);
                assert!(matches!(sealed, TunnResult::WriteToNetwork(_)));
            });
        });
    }
    group.finish();
}

/// One side of the comparison: opens the ciphertext and tag in place; whether it was good.
type Opens<'a> = (&'static str, Box<dyn Fn(&mut [u8]) -> bool + 'a>);

fn open(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("open");
    let aws = lc::LessSafeKey::new(
        lc::UnboundKey::new(&lc::CHACHA20_POLY1305, &KEY).expect("a key of 32 bytes"),
    );
    let ring = ring::aead::LessSafeKey::new(
        ring::aead::UnboundKey::new(&ring::aead::CHACHA20_POLY1305, &KEY)
            .expect("a key of 32 bytes"),
    );
    let rust_crypto = ChaCha20Poly1305::new(&KEY.into());
    let bare: [Opens<'_>; 3] = [
        (
            "aws-lc-rs",
            Box::new(|body| {
                let nonce = lc::Nonce::assume_unique_for_key(nonce(0));
                aws.open_in_place(nonce, lc::Aad::empty(), body).is_ok()
            }),
        ),
        (
            "ring",
            Box::new(|body| {
                let nonce = ring::aead::Nonce::assume_unique_for_key(nonce(0));
                ring.open_in_place(nonce, ring::aead::Aad::empty(), body).is_ok()
            }),
        ),
        (
            "chacha20poly1305",
            Box::new(|body| {
                let (body, tag) = body.split_last_chunk_mut::<16>().expect("a tag");
                let tag = (*tag).into();
                rust_crypto.decrypt_inout_detached(&nonce(0).into(), &[], body.into(), &tag).is_ok()
            }),
        ),
    ];
    for length in LENGTHS {
        let packet = packet(length);
        group.throughput(Throughput::Bytes(length.into()));

        // The peer of ours is boringtun, which seals what we open, and the other way around.
        let (keypair, mut tunn) = session();
        let mut buffer = vec![0; 2048];
        let TunnResult::WriteToNetwork(sealed) = tunn.encapsulate(&packet, &mut buffer) else {
            panic!("boringtun has a session");
        };
        group.bench_function(BenchmarkId::new("hybridwg", length), |bencher| {
            bencher.iter_batched_ref(
                || sealed.to_vec(),
                |datagram| assert!(keypair.opener.open(NOW, datagram).is_ok()),
                BatchSize::SmallInput,
            );
        });
        let mut sealed = packet.clone();
        let tag = aws
            .seal_in_place_separate_tag(
                lc::Nonce::assume_unique_for_key(nonce(0)),
                lc::Aad::empty(),
                &mut sealed,
            )
            .expect("a short message");
        sealed.extend_from_slice(tag.as_ref());
        for (name, opens) in &bare {
            group.bench_function(BenchmarkId::new(*name, length), |bencher| {
                bencher.iter_batched_ref(
                    || sealed.clone(),
                    |body| assert!(opens(body)),
                    BatchSize::SmallInput,
                );
            });
        }
        group.bench_function(BenchmarkId::new("boringtun", length), |bencher| {
            bencher.iter_batched_ref(
                || datagram(&keypair, &packet),
                |datagram| {
                    let opened = tunn.decapsulate(None, datagram, &mut buffer);
                    assert!(matches!(opened, TunnResult::WriteToTunnelV4(..)));
                },
                BatchSize::SmallInput,
            );
        });
    }
    group.finish();
}

/// Seals or opens the datagrams of a train of packets of `length` bytes.
fn train(key: &AeadKey, kernel: Option<Kernel>, train: &mut [u8], length: usize, opens: bool) {
    let mut counters = 0..;
    for group in train.chunks_mut(LANES * (length + TAG_BYTES)) {
        let mut messages: [BatchMessage<'_>; LANES] = Default::default();
        let mut count = 0;
        let datagrams = group.chunks_mut(length + TAG_BYTES);
        for ((message, datagram), counter) in messages.iter_mut().zip(datagrams).zip(&mut counters)
        {
            *message = BatchMessage::with_counter(counter, datagram);
            count += 1;
        }
        let messages = &mut messages[..count];
        if opens {
            key.open_batch(kernel, messages);
        } else {
            key.seal_batch(kernel, messages);
        }
        assert!(messages.iter().all(BatchMessage::is_authentic));
    }
}

/// 45 packets of one key, in place: as many of 1420 bytes as one call can send.
fn trains(criterion: &mut Criterion) {
    const PACKETS: usize = 45;
    let mut group = criterion.benchmark_group("train");
    let key = AeadKey::new(&SymmetricKey::from_bytes(KEY));
    let kernel = Kernel::find().expect("the kernel works if there is one");
    for length in [64, 1420] {
        group.throughput(Throughput::Bytes((PACKETS * length) as u64));
        let mut bytes = vec![0x33; PACKETS * (length + TAG_BYTES)];
        for (name, kernel) in [("one-by-one", None), ("batch", kernel)] {
            group.bench_function(BenchmarkId::new(format!("seal/{name}"), length), |bencher| {
                bencher.iter(|| train(&key, kernel, black_box(&mut bytes), length, false));
            });
            train(&key, None, &mut bytes, length, false);
            group.bench_function(BenchmarkId::new(format!("open/{name}"), length), |bencher| {
                bencher.iter_batched_ref(
                    || bytes.clone(),
                    |bytes| train(&key, kernel, bytes, length, true),
                    BatchSize::PerIteration,
                );
            });
        }
    }
    group.finish();
}

criterion_group! {
    name = crypto;
    config = effort::criterion();
    targets = seal, open, trains
}
criterion_main!(crypto);
