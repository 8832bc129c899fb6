use serde_json::Value;

use super::*;
use crate::proto::keypair::{Opener, Sealer};
use crate::wire::message::TRANSPORT_OVERHEAD_BYTES;

const NOW: Instant = Instant::from_nanos(5_000_000_000);

/// The points of low order in canonical form, and zero's non-canonical twin.
const LOW_ORDER: [&str; 3] = [
    "0000000000000000000000000000000000000000000000000000000000000000",
    "0100000000000000000000000000000000000000000000000000000000000000",
    "edffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
];

fn bytes(value: &Value) -> Vec<u8> {
    hex::decode(value.as_str().unwrap()).unwrap()
}

fn key(value: &Value) -> [u8; 32] {
    bytes(value).try_into().unwrap()
}

fn identity(seed: u8) -> StaticIdentity {
    StaticIdentity::new(PrivateKey::from_bytes([seed; 32]))
}

fn ephemeral(seed: u8) -> PrivateKey {
    PrivateKey::from_bytes([seed; 32])
}

fn stamp(seed: u8) -> Timestamp {
    Timestamp::from_bytes([seed; TIMESTAMP_BYTES])
}

/// Two ends that know each other.
struct Ends {
    initiator: StaticIdentity,
    responder: StaticIdentity,
    /// What the initiator knows of the responder, and the other way around.
    to_responder: RemoteStatic,
    to_initiator: RemoteStatic,
}

impl Ends {
    fn new(preshared: &PresharedKey) -> Self {
        let (initiator, responder) = (identity(0x11), identity(0x22));
        let to_responder = RemoteStatic::new(&initiator, responder.public, preshared.clone());
        let to_initiator = RemoteStatic::new(&responder, initiator.public, preshared.clone());
        Self { initiator, responder, to_responder, to_initiator }
    }

    fn initiate(&self) -> (InitiationSent, [u8; INITIATION_BYTES]) {
        let (index, stamp) = (Index(0x0a0b_0c0d), stamp(7));
        InitiationSent::create(&self.initiator, &self.to_responder, ephemeral(3), index, stamp)
            .unwrap()
    }

    fn respond(&self, message: &[u8; INITIATION_BYTES]) -> ([u8; RESPONSE_BYTES], Keypair) {
        let opened = InitiationOpened::open(&self.responder, message).unwrap();
        assert_eq!(opened.remote, self.initiator.public);
        let received = opened.verify(&self.to_initiator).unwrap();
        assert_eq!(received.timestamp, stamp(7));
        received.create_response(NOW, &self.to_initiator, ephemeral(4), Index(0x0102_0304)).unwrap()
    }

    fn complete(
        &self,
        sent: &InitiationSent,
        message: &[u8; RESPONSE_BYTES],
    ) -> Result<Keypair, DropReason> {
        sent.consume_response(NOW, &self.initiator, &self.to_responder, message)
    }
}

fn passes(from: &Sealer, to: &Opener) -> bool {
    let mut datagram = [0; 9 + TRANSPORT_OVERHEAD_BYTES];
    from.seal(from.reserve(1).unwrap().next().unwrap(), b"plaintext", 0, &mut datagram);
    to.open(NOW, &mut datagram).is_ok_and(|(_, range)| &datagram[range] == b"plaintext")
}

#[test]
fn complete_exchanges_are_byte_for_byte_those_of_another_implementation() {
    let text = include_str!("../../../tests/data/wireguard-handshake.json");
    let file: Value = serde_json::from_str(text).unwrap();
    let cases = file["cases"].as_array().unwrap();
    assert_eq!(cases.len(), 6);
    for case in cases {
        let private = |name: &str| PrivateKey::from_bytes(key(&case[name]));
        let index = |name: &str| Index(case[name].as_u64().unwrap().try_into().unwrap());
        let preshared = PresharedKey::from_bytes(key(&case["psk"]));
        let initiator = StaticIdentity::new(private("initiator_static"));
        let responder = StaticIdentity::new(private("responder_static"));
        assert_eq!(initiator.public.as_bytes(), &key(&case["initiator_public"]));
        assert_eq!(responder.public.as_bytes(), &key(&case["responder_public"]));
        let to_responder = RemoteStatic::new(&initiator, responder.public, preshared.clone());
        let to_initiator = RemoteStatic::new(&responder, initiator.public, preshared);
        let timestamp = Timestamp::from_bytes(bytes(&case["tai64n"]).try_into().unwrap());

        let (sent, message) = InitiationSent::create(
            &initiator,
            &to_responder,
            private("initiator_ephemeral"),
            index("initiator_index"),
            timestamp,
        )
        .unwrap();
        let expected: [u8; INITIATION_BYTES] = bytes(&case["initiation"]).try_into().unwrap();
        assert_eq!(message[..FIRST.end], expected[..FIRST.end]);
        assert!(message[FIRST.end..].iter().all(|&byte| byte == 0), "MACs are not ours to write");

        let received = InitiationOpened::open(&responder, &expected).unwrap();
        assert_eq!(received.remote, initiator.public);
        let received = received.verify(&to_initiator).unwrap();
        assert_eq!(received.timestamp, timestamp);
        assert_eq!(received.remote_index, index("initiator_index"));
        let (message, responder_keys) = received
            .create_response(
                NOW,
                &to_initiator,
                private("responder_ephemeral"),
                index("responder_index"),
            )
            .unwrap();
        let expected: [u8; RESPONSE_BYTES] = bytes(&case["response"]).try_into().unwrap();
        assert_eq!(message[..SECOND.end], expected[..SECOND.end]);

        let initiator_keys =
            sent.consume_response(NOW, &initiator, &to_responder, &expected).unwrap();
        assert_eq!(initiator_keys.remote_index, index("responder_index"));
        let data = case["data"].as_array().unwrap();
        assert_eq!(data.len(), 16);
        for message in data {
            let (from, to) = match message["from"].as_str().unwrap() {
                "initiator" => (&initiator_keys, &responder_keys),
                "responder" => (&responder_keys, &initiator_keys),
                other => panic!("{other}"),
            };
            let inner = bytes(&message["inner"]);
            let padding = inner.len().next_multiple_of(16) - inner.len();
            let counter = message["counter"].as_str().unwrap().parse().unwrap();
            let mut datagram = vec![0; inner.len() + padding + TRANSPORT_OVERHEAD_BYTES];
            from.sealer.skip_to(counter);
            let reserved = from.sealer.reserve(1).unwrap().next().unwrap();
            from.sealer.seal(reserved, &inner, padding, &mut datagram);
            assert_eq!(datagram, bytes(&message["message"]));
            let (proof, range) = to.opener.open(NOW, &mut datagram).unwrap();
            assert_eq!(proof.counter(), counter);
            assert_eq!(datagram[range][..inner.len()], inner);
        }
    }
}

#[test]
fn a_completed_handshake_gives_both_ends_the_same_session() {
    for preshared in [PresharedKey::NONE, PresharedKey::from_bytes([9; 32])] {
        let ends = Ends::new(&preshared);
        let (sent, message) = ends.initiate();
        let (message, responder) = ends.respond(&message);
        let initiator = ends.complete(&sent, &message).unwrap();
        assert!(passes(&initiator.sealer, &responder.opener));
        assert!(passes(&responder.sealer, &initiator.opener));
        assert_eq!((initiator.role, responder.role), (Role::Initiator, Role::Responder));
        assert_eq!(initiator.local_index, responder.remote_index);
        assert_eq!(initiator.remote_index, responder.local_index);
        assert_eq!((initiator.sealer.born(), responder.opener.born()), (NOW, NOW));
    }
}

#[test]
fn an_initiation_changed_anywhere_is_refused() {
    let ends = Ends::new(&PresharedKey::NONE);
    let (_, good) = ends.initiate();
    for changed in FIRST {
        let mut message = good;
        message[changed] ^= 0x04;
        let result = InitiationOpened::open(&ends.responder, &message)
            .and_then(|opened| opened.verify(&ends.to_initiator));
        let expected = match changed {
            at if at < initiation::TIMESTAMP.start => DropReason::InvalidStatic,
            _ => DropReason::InvalidTimestamp,
        };
        assert_eq!(result.err(), Some(expected), "byte {changed}");
    }
}

#[test]
fn an_initiation_for_another_responder_is_refused() {
    let ends = Ends::new(&PresharedKey::NONE);
    let (_, message) = ends.initiate();
    let result = InitiationOpened::open(&identity(0x33), &message);
    assert_eq!(result.err(), Some(DropReason::InvalidStatic));
}

#[test]
fn a_stranger_cannot_initiate_as_a_peer_whose_public_key_he_knows() {
    let ends = Ends::new(&PresharedKey::NONE);
    let stranger = StaticIdentity { private: ephemeral(0x66), public: ends.initiator.public };
    let remote = RemoteStatic::new(&stranger, ends.responder.public, PresharedKey::NONE);
    let (_, message) =
        InitiationSent::create(&stranger, &remote, ephemeral(3), Index(1), stamp(7)).unwrap();
    let opened = InitiationOpened::open(&ends.responder, &message).unwrap();
    assert_eq!(opened.remote, ends.initiator.public, "the claim");
    let result = opened.verify(&ends.to_initiator);
    assert_eq!(result.err(), Some(DropReason::InvalidTimestamp), "the proof");
}

#[test]
fn bad_responses_leave_the_handshake_usable() {
    let ends = Ends::new(&PresharedKey::from_bytes([9; 32]));
    let (sent, message) = ends.initiate();
    let (good, responder) = ends.respond(&message);
    for changed in SECOND {
        let mut message = good;
        message[changed] ^= 0x04;
        let result = ends.complete(&sent, &message);
        assert_eq!(result.err(), Some(DropReason::InvalidEmpty), "byte {changed}");
    }
    for point in LOW_ORDER {
        let mut message = good;
        message[response::EPHEMERAL].copy_from_slice(&hex::decode(point).unwrap());
        let result = ends.complete(&sent, &message);
        assert_eq!(result.err(), Some(DropReason::LowOrderKey), "{point}");
    }
    let initiator = ends.complete(&sent, &good).unwrap();
    assert!(passes(&initiator.sealer, &responder.opener));
}

#[test]
fn a_response_to_another_initiation_is_refused() {
    let ends = Ends::new(&PresharedKey::NONE);
    let (sent, message) = ends.initiate();
    let (mut message, _) = ends.respond(&message);
    message[response::RECEIVER].copy_from_slice(&Index(1).to_le_bytes());
    let result = ends.complete(&sent, &message);
    assert_eq!(result.err(), Some(DropReason::UnknownHandshakeIndex));
}

#[test]
fn ends_with_different_preshared_keys_do_not_meet() {
    let mut ends = Ends::new(&PresharedKey::from_bytes([9; 32]));
    let (sent, message) = ends.initiate();
    let (message, _) = ends.respond(&message);
    for other in [PresharedKey::NONE, PresharedKey::from_bytes([8; 32])] {
        ends.to_responder.preshared = other;
        assert_eq!(ends.complete(&sent, &message).err(), Some(DropReason::InvalidEmpty));
    }
}

#[test]
fn points_of_low_order_are_refused_wherever_they_come() {
    let ends = Ends::new(&PresharedKey::NONE);
    for point in LOW_ORDER {
        let point: [u8; 32] = hex::decode(point).unwrap().try_into().unwrap();
        let public = PublicKey::from_bytes(point);

        // As a configured peer.
        let remote = RemoteStatic::new(&ends.responder, public, PresharedKey::NONE);
        assert!(remote.static_static.is_none());
        let result =
            InitiationSent::create(&ends.responder, &remote, ephemeral(3), Index(1), stamp(7));
        assert_eq!(result.err(), Some(DropReason::LowOrderKey));

        // As the ephemeral of an initiation.
        let (_, mut message) = ends.initiate();
        message[initiation::EPHEMERAL].copy_from_slice(&point);
        let result = InitiationOpened::open(&ends.responder, &message);
        assert_eq!(result.err(), Some(DropReason::LowOrderKey));

        // As the static key that an initiation claims: it opens, and nothing proves it.
        let claimant = StaticIdentity { private: ephemeral(0x66), public };
        let to_responder = RemoteStatic::new(&claimant, ends.responder.public, PresharedKey::NONE);
        let (_, message) =
            InitiationSent::create(&claimant, &to_responder, ephemeral(3), Index(1), stamp(7))
                .unwrap();
        let result = InitiationOpened::open(&ends.responder, &message).unwrap().verify(&remote);
        assert_eq!(result.err(), Some(DropReason::LowOrderKey));
    }
}

#[test]
fn secrets_of_a_handshake_are_not_printed() {
    let ends = Ends::new(&PresharedKey::from_bytes([9; 32]));
    let (sent, message) = ends.initiate();
    let opened = InitiationOpened::open(&ends.responder, &message).unwrap();
    let printed = format!("{sent:?} {opened:?} {:?} {:?}", ends.initiator, ends.to_responder);
    assert!(printed.contains("PrivateKey(hidden)"), "{printed}");
    assert!(!printed.contains("17, 17") && !printed.contains("9, 9"), "{printed}");
}
