//! What a handshake costs its responder, who is the one a flood hits: ours next to boringtun's.
//!
//! One element is one initiation, from the MAC check to the finished response and session. Under
//! `cargo test` everything runs once.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;

use boringtun::noise::rate_limiter::RateLimiter;
use boringtun::noise::{Tunn, TunnResult};
use boringtun::x25519;
use criterion::{BatchSize, Criterion, Throughput, criterion_group, criterion_main};
use hybridwg::crypto::entropy::{Entropy, SeededEntropy};
use hybridwg::crypto::key::{PresharedKey, PrivateKey};
use hybridwg::crypto::tai64n::Timestamp;
use hybridwg::proto::cookie::{CookieChecker, CookieJar, MacVerdict};
use hybridwg::proto::handshake::{InitiationOpened, InitiationSent, RemoteStatic, StaticIdentity};
use hybridwg::proto::index::Index;
use hybridwg::proto::keypair::Keypair;
use hybridwg::time::{Instant, Wall};
use hybridwg::wire::message::{INITIATION_BYTES, RESPONSE_BYTES};

mod effort;

const INITIATOR: [u8; 32] = [1; 32];
const RESPONDER: [u8; 32] = [2; 32];
const FROM: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 51820);
const NOW: Instant = Instant::from_nanos(1);

/// Makes initiations, each later than the one before.
struct Initiator {
    identity: StaticIdentity,
    remote: RemoteStatic,
    jar: CookieJar,
    entropy: SeededEntropy,
    secs: u64,
}

impl Initiator {
    fn new() -> Self {
        let identity = StaticIdentity::new(PrivateKey::from_bytes(INITIATOR));
        let responder = StaticIdentity::new(PrivateKey::from_bytes(RESPONDER)).public;
        let remote = RemoteStatic::new(&identity, responder, PresharedKey::NONE);
        let jar = CookieJar::new(&responder);
        Self { identity, remote, jar, entropy: SeededEntropy::new(1), secs: 1_700_000_000 }
    }

    fn initiation(&mut self) -> [u8; INITIATION_BYTES] {
        self.secs += 1;
        let stamp = Timestamp::from_wall(Wall { secs: self.secs, nanos: 0 });
        let (ephemeral, index) = draw(&mut self.entropy);
        let (_, mut message) =
            InitiationSent::create(&self.identity, &self.remote, ephemeral, index, stamp)
                .expect("the keys are good");
        self.jar.stamp(NOW, &mut message);
        message
    }
}

fn draw(entropy: &mut dyn Entropy) -> (PrivateKey, Index) {
    (PrivateKey::from_bytes(entropy.bytes()), Index::from_le_bytes(entropy.bytes()))
}

/// Our responder, without the table of peers.
struct Responder {
    identity: StaticIdentity,
    remote: RemoteStatic,
    checker: CookieChecker,
    jar: CookieJar,
    entropy: SeededEntropy,
}

impl Responder {
    fn new() -> Self {
        let identity = StaticIdentity::new(PrivateKey::from_bytes(RESPONDER));
        let initiator = StaticIdentity::new(PrivateKey::from_bytes(INITIATOR)).public;
        Self {
            remote: RemoteStatic::new(&identity, initiator, PresharedKey::NONE),
            checker: CookieChecker::new(&identity.public),
            jar: CookieJar::new(&initiator),
            identity,
            entropy: SeededEntropy::new(2),
        }
    }

    fn respond(&mut self, message: &[u8; INITIATION_BYTES]) -> ([u8; RESPONSE_BYTES], Keypair) {
        assert_ne!(self.checker.check(NOW, FROM, message), MacVerdict::Invalid);
        let opened = InitiationOpened::open(&self.identity, message).expect("sealed for us");
        let received = opened.verify(&self.remote).expect("made by the peer");
        let (ephemeral, index) = draw(&mut self.entropy);
        let (mut response, keypair) =
            received.create_response(NOW, &self.remote, ephemeral, index).expect("good keys");
        self.jar.stamp(NOW, &mut response);
        (response, keypair)
    }
}

fn respond(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("respond");
    group.throughput(Throughput::Elements(1));
    let mut initiator = Initiator::new();

    let mut responder = Responder::new();
    group.bench_function("hybridwg", |bencher| {
        bencher.iter_batched_ref(
            || initiator.initiation(),
            |message| responder.respond(message),
            BatchSize::SmallInput,
        );
    });

    let public = |private: [u8; 32]| x25519::PublicKey::from(&x25519::StaticSecret::from(private));
    let limiter = Arc::new(RateLimiter::new(&public(RESPONDER), u64::MAX));
    let private = x25519::StaticSecret::from(RESPONDER);
    let mut tunn = Tunn::new(private, public(INITIATOR), None, None, 7, Some(limiter));
    group.bench_function("boringtun", |bencher| {
        bencher.iter_batched_ref(
            || initiator.initiation(),
            |message| {
                let mut buffer = [0; 2048];
                let answer = tunn.decapsulate(Some(FROM.ip()), message, &mut buffer);
                assert!(
                    matches!(answer, TunnResult::WriteToNetwork(r) if r.len() == RESPONSE_BYTES)
                );
            },
            BatchSize::SmallInput,
        );
    });
    group.finish();
}

/// What a message costs that was made by someone who knows our key but is no peer, and one by
/// someone who does not even know the key.
fn refuse(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("refuse");
    group.throughput(Throughput::Elements(1));
    let responder = Responder::new();
    let message = Initiator::new().initiation();
    let mut unsealed = message;
    unsealed[50] ^= 1;
    group.bench_function("bad_static", |bencher| {
        bencher.iter(|| InitiationOpened::open(&responder.identity, &unsealed).is_err());
    });
    group.bench_function("bad_mac1", |bencher| {
        bencher.iter(|| responder.checker.check(NOW, FROM, &unsealed) == MacVerdict::Invalid);
    });
    group.finish();
}

criterion_group! {
    name = proto;
    config = effort::criterion();
    targets = respond, refuse
}
criterion_main!(proto);
