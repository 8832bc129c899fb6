//! Our handshake, cookies and sessions against those of boringtun, in one process: both roles,
//! with and without a preshared key, through rekeys.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::Duration;

use boringtun::noise::{Tunn, TunnResult};
use boringtun::x25519;
use hybridwg::crypto::entropy::{Entropy, SeededEntropy};
use hybridwg::crypto::key::{PresharedKey, PrivateKey, PublicKey};
use hybridwg::crypto::tai64n::Timestamp;
use hybridwg::proto::cookie::{CookieChecker, CookieJar, MacVerdict};
use hybridwg::proto::handshake::{InitiationOpened, InitiationSent, RemoteStatic, StaticIdentity};
use hybridwg::proto::index::{Index, IndexTable};
use hybridwg::proto::keypair::Keypair;
use hybridwg::time::{Instant, Wall};
use hybridwg::wire::message::{
    COOKIE_REPLY_BYTES, INITIATION_BYTES, Message, TRANSPORT_OVERHEAD_BYTES, classify, initiation,
};

const PRESHARED: [Option<[u8; 32]>; 2] = [None, Some([0x77; 32])];
const THEIR_PRIVATE: [u8; 32] = [0x24; 32];
const FROM: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::new(192, 0, 2, 1)), 51820);

/// Our end: the parts of a peer, without timers.
struct Ours {
    identity: StaticIdentity,
    remote: RemoteStatic,
    checker: CookieChecker,
    jar: CookieJar,
    indices: IndexTable<()>,
    entropy: SeededEntropy,
    now: Instant,
    /// Seconds of the wall clock; every initiation is later than the one before.
    wall: u64,
}

fn pair(preshared: Option<[u8; 32]>) -> (Ours, Tunn) {
    let identity = StaticIdentity::new(PrivateKey::from_bytes([0x42; 32]));
    let their_private = x25519::StaticSecret::from(THEIR_PRIVATE);
    let theirs = PublicKey::from_bytes(x25519::PublicKey::from(&their_private).to_bytes());
    let our_public = x25519::PublicKey::from(*identity.public.as_bytes());
    let tunn = Tunn::new(their_private, our_public, preshared, None, 7, None);
    let psk = preshared.map_or(PresharedKey::NONE, PresharedKey::from_bytes);
    let ours = Ours {
        remote: RemoteStatic::new(&identity, theirs, psk),
        checker: CookieChecker::new(&identity.public),
        jar: CookieJar::new(&theirs),
        identity,
        indices: IndexTable::new(),
        entropy: SeededEntropy::new(1),
        now: Instant::from_nanos(1_000_000_000),
        wall: 1_700_000_000,
    };
    (ours, tunn)
}

impl Ours {
    fn draw(&mut self) -> (PrivateKey, Index) {
        let entropy: &mut dyn Entropy = &mut self.entropy;
        (PrivateKey::from_bytes(entropy.bytes()), self.indices.insert(entropy, ()))
    }

    fn initiate(&mut self) -> (InitiationSent, [u8; INITIATION_BYTES]) {
        let (ephemeral, index) = self.draw();
        self.wall += 1;
        let stamp = Timestamp::from_wall(Wall { secs: self.wall, nanos: 0 });
        let (sent, mut message) =
            InitiationSent::create(&self.identity, &self.remote, ephemeral, index, stamp).unwrap();
        self.jar.stamp(self.now, &mut message);
        (sent, message)
    }

    /// A session that we initiated.
    fn handshake_with(&mut self, tunn: &mut Tunn) -> Keypair {
        let (sent, message) = self.initiate();
        let answer = answer_of(tunn, &message).expect("boringtun responds");
        let Some(Message::Response(response)) = classify(&answer) else {
            panic!("not a response: {answer:02x?}");
        };
        assert_ne!(self.checker.check(self.now, FROM, &answer), MacVerdict::Invalid);
        sent.consume_response(self.now, &self.identity, &self.remote, response).unwrap()
    }

    /// A session that boringtun initiated with `message`; and its confirmation, the first
    /// transport message.
    fn respond_to(&mut self, tunn: &mut Tunn, message: &[u8]) -> Keypair {
        let Some(Message::Initiation(message)) = classify(message) else {
            panic!("not an initiation: {message:02x?}");
        };
        assert_ne!(self.checker.check(self.now, FROM, message), MacVerdict::Invalid);
        let opened = InitiationOpened::open(&self.identity, message).unwrap();
        assert_eq!(opened.remote, self.remote.public);
        let received = opened.verify(&self.remote).unwrap();
        let (ephemeral, index) = self.draw();
        let (mut response, keypair) =
            received.create_response(self.now, &self.remote, ephemeral, index).unwrap();
        self.jar.stamp(self.now, &mut response);
        let mut keepalive = answer_of(tunn, &response).expect("boringtun confirms");
        let (_, range) = keypair.opener.open(self.now, &mut keepalive).unwrap();
        assert!(range.is_empty(), "the confirmation is a keepalive");
        keypair
    }
}

/// What boringtun sends back on `datagram`, if anything.
fn answer_of(tunn: &mut Tunn, datagram: &[u8]) -> Option<Vec<u8>> {
    let mut buffer = [0; 2048];
    match tunn.decapsulate(Some(FROM.ip()), datagram, &mut buffer) {
        TunnResult::WriteToNetwork(answer) => Some(answer.to_vec()),
        TunnResult::Done => None,
        other => panic!("{other:?}"),
    }
}

/// An initiation of boringtun, whatever session it has.
fn initiation_of(tunn: &mut Tunn) -> Vec<u8> {
    let mut buffer = [0; 2048];
    match tunn.format_handshake_initiation(&mut buffer, true) {
        TunnResult::WriteToNetwork(message) => message.to_vec(),
        other => panic!("{other:?}"),
    }
}

/// A packet of `length` bytes with as much of an IPv4 header as boringtun reads.
fn packet(length: u16) -> Vec<u8> {
    let mut packet: Vec<u8> = (0..length).map(|at| at.to_le_bytes()[0]).collect();
    packet[0] = 0x45;
    packet[2..4].copy_from_slice(&length.to_be_bytes());
    packet[12..16].copy_from_slice(&[10, 0, 0, 1]);
    packet
}

fn sealed(keypair: &Keypair, plaintext: &[u8]) -> Vec<u8> {
    let padding = plaintext.len().next_multiple_of(16) - plaintext.len();
    let mut datagram = vec![0; plaintext.len() + padding + TRANSPORT_OVERHEAD_BYTES];
    let counter = keypair.sealer.reserve(1).unwrap().next().unwrap();
    keypair.sealer.seal(counter, plaintext, padding, &mut datagram);
    datagram
}

/// Packets of several lengths pass through `keypair` both ways.
fn assert_traffic(ours: &Ours, keypair: &Keypair, tunn: &mut Tunn) {
    for length in [20, 21, 576, 1420] {
        let inner = packet(length);
        let mut buffer = [0; 2048];
        match tunn.decapsulate(Some(FROM.ip()), &sealed(keypair, &inner), &mut buffer) {
            TunnResult::WriteToTunnelV4(found, source) => {
                assert_eq!((&*found, source), (&inner[..], Ipv4Addr::new(10, 0, 0, 1)));
            }
            other => panic!("{other:?}"),
        }
        let mut buffer = [0; 2048];
        let TunnResult::WriteToNetwork(datagram) = tunn.encapsulate(&inner, &mut buffer) else {
            panic!("boringtun has a session");
        };
        let (_, range) = keypair.opener.open(ours.now, datagram).unwrap();
        assert_eq!(datagram[range][..inner.len()], inner);
    }
    assert_eq!(answer_of(tunn, &sealed(keypair, &[])), None, "a keepalive is not answered");
}

#[test]
fn sessions_that_we_initiate_carry_traffic_through_rekeys() {
    for preshared in PRESHARED {
        let (mut ours, mut tunn) = pair(preshared);
        let mut sessions = Vec::new();
        for _ in 0..4 {
            let keypair = ours.handshake_with(&mut tunn);
            assert_traffic(&ours, &keypair, &mut tunn);
            sessions.push(keypair);
        }
        // What was sealed with the keypair before the last one is still taken.
        let late = sealed(&sessions[2], &packet(100));
        let mut buffer = [0; 2048];
        let result = tunn.decapsulate(Some(FROM.ip()), &late, &mut buffer);
        assert!(matches!(result, TunnResult::WriteToTunnelV4(..)), "{result:?}");
    }
}

#[test]
fn sessions_that_boringtun_initiates_carry_traffic_through_rekeys() {
    for preshared in PRESHARED {
        let (mut ours, mut tunn) = pair(preshared);
        for _ in 0..4 {
            let message = initiation_of(&mut tunn);
            let keypair = ours.respond_to(&mut tunn, &message);
            assert_traffic(&ours, &keypair, &mut tunn);
        }
    }
}

#[test]
fn sessions_initiated_by_either_end_take_turns() {
    let (mut ours, mut tunn) = pair(PRESHARED[1]);
    for _ in 0..2 {
        let keypair = ours.handshake_with(&mut tunn);
        assert_traffic(&ours, &keypair, &mut tunn);
        let message = initiation_of(&mut tunn);
        let keypair = ours.respond_to(&mut tunn, &message);
        assert_traffic(&ours, &keypair, &mut tunn);
    }
}

#[test]
fn timestamps_of_boringtun_grow() {
    let (ours, mut tunn) = pair(None);
    let mut stamp_of_next = || {
        let message = initiation_of(&mut tunn);
        let opened = InitiationOpened::open(&ours.identity, message[..].try_into().unwrap());
        opened.unwrap().verify(&ours.remote).unwrap().timestamp
    };
    let first = stamp_of_next();
    assert!(stamp_of_next() > first);
}

#[test]
fn a_preshared_key_at_one_end_only_makes_no_session() {
    let (mut ours, mut tunn) = pair(PRESHARED[1]);
    ours.remote.preshared = PresharedKey::NONE;
    let (sent, message) = ours.initiate();
    let answer = answer_of(&mut tunn, &message).expect("the preshared key comes in later");
    let Some(Message::Response(response)) = classify(&answer) else { panic!("{answer:02x?}") };
    let result = sent.consume_response(ours.now, &ours.identity, &ours.remote, response);
    assert!(result.is_err());
    ours.remote.preshared = PresharedKey::from_bytes(PRESHARED[1].unwrap());
    let result = sent.consume_response(ours.now, &ours.identity, &ours.remote, response);
    assert!(result.is_ok(), "the same handshake, with the right key");
}

#[test]
fn a_cookie_of_boringtun_under_load_gets_our_next_initiation_through() {
    let (mut ours, mut tunn) = pair(None);
    let cookie = (0..50).find_map(|_| {
        let (_, message) = ours.initiate();
        let answer = answer_of(&mut tunn, &message)?;
        <[u8; COOKIE_REPLY_BYTES]>::try_from(answer).ok()
    });
    let cookie = cookie.expect("boringtun is under load after ten handshakes in a second");
    ours.jar.consume_reply(ours.now, &cookie).unwrap();
    ours.now = ours.now + Duration::from_secs(5);
    let (_, message) = ours.initiate();
    assert_ne!(message[initiation::MAC2], [0; 16]);
    let keypair = ours.handshake_with(&mut tunn);
    assert_traffic(&ours, &keypair, &mut tunn);
}

#[test]
fn boringtun_uses_the_cookie_that_we_give_it() {
    let (mut ours, mut tunn) = pair(None);
    let message = initiation_of(&mut tunn);
    assert_eq!(ours.checker.check(ours.now, FROM, &message), MacVerdict::ValidMac1);
    let sender = Index::from_le_bytes(message[initiation::SENDER].try_into().unwrap());
    let cookie = ours.checker.create_reply(ours.now, &mut ours.entropy, &message, sender, FROM);
    assert_eq!(answer_of(&mut tunn, &cookie), None);
    let message = initiation_of(&mut tunn);
    assert_eq!(ours.checker.check(ours.now, FROM, &message), MacVerdict::ValidBoth);
    let keypair = ours.respond_to(&mut tunn, &message);
    assert_traffic(&ours, &keypair, &mut tunn);
}
