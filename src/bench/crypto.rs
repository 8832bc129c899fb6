//! What this machine can do at most: the cipher, the curve, memory. One core, nothing else. The
//! cipher is used as a tunnel uses it at best: several packets at once, where the processor can.
//!
//! A tunnel is compared with them: throughput with what one core seals, and the processor time of a
//! gigabyte with what the cipher alone takes of it. What is left is the price of moving packets.

use std::hint::black_box;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::error::BenchError;
use super::machine::Machine;
use super::stats::Summary;
use crate::control::interrupt::Interrupt;
use crate::crypto::aead::{AeadKey, TAG_BYTES};
use crate::crypto::batch::{Kernel, LANES, Message};
use crate::crypto::dh;
use crate::crypto::entropy::{Entropy, SeededEntropy};
use crate::crypto::key::{PresharedKey, PrivateKey, SymmetricKey};
use crate::crypto::tai64n::Timestamp;
use crate::proto::handshake::{InitiationOpened, InitiationSent, RemoteStatic, StaticIdentity};
use crate::proto::index::Index;
use crate::sys::clock;

/// The name and version of the schema.
pub const SCHEMA: &str = "hybridwg-bench-crypto/1";

/// Bytes of a full packet in a tunnel over an ordinary network.
pub const PACKET_BYTES: usize = 1420;

/// What was found.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Ceilings {
    pub schema: String,
    pub date: String,
    pub machine: Machine,
    /// Gbit/s of plaintext in packets of [`PACKET_BYTES`].
    pub seal: Summary,
    /// The same, the copy that brings the packet there included.
    pub open: Summary,
    /// Packets of 64 bytes a second.
    pub seal_64: Summary,
    /// GB/s, read and written.
    pub copy: Summary,
    /// Multiplications on the curve a second.
    pub agreements: Summary,
    /// Handshakes answered a second.
    pub handshakes: Summary,
    /// What a tunnel of this program did, if it was measured.
    pub tunnel: Option<Reached>,
}

/// What a tunnel did, and what share of the ceilings that is.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Reached {
    /// One stream, Gbit/s.
    pub tcp_1: f64,
    /// Of both ends, seconds for a gigabyte.
    pub tcp_1_cpu: f64,
    /// Of what one core can seal, 0 to 1 and more.
    pub of_seal: f64,
    /// What the cipher takes of the processor time of both ends, 0 to 1.
    pub cipher_share: f64,
}

impl Ceilings {
    /// What a tunnel with this throughput and this processor time reaches.
    pub fn reached(&self, tcp_1: f64, tcp_1_cpu: f64) -> Reached {
        let seconds_for_a_gigabyte = 8.0 / self.seal.median + 8.0 / self.open.median;
        Reached {
            tcp_1,
            tcp_1_cpu,
            of_seal: tcp_1 / self.seal.median,
            cipher_share: seconds_for_a_gigabyte / tcp_1_cpu,
        }
    }
}

/// Measures all of them, for so long each. `tell` is told what each is, before.
///
/// # Errors
/// Somebody interrupted, or the machine cannot be described.
pub fn measure(
    each: Duration,
    interrupt: &Interrupt,
    tell: &mut dyn FnMut(&'static str),
) -> Result<Ceilings, BenchError> {
    let machine = Machine::describe().map_err(BenchError::io("cannot describe this machine"))?;
    let mut entropy = SeededEntropy::new(1);
    let key = AeadKey::new(&SymmetricKey::from_bytes(bytes(&mut entropy)));
    let kernel = Kernel::find().map_err(|error| BenchError::Silent(error.to_string()))?;
    let packets = LANES as f64;
    let bits = packets * PACKET_BYTES as f64 * 8.0 / 1e9;
    let (mut seal, mut open) = (seal(&key, kernel, PACKET_BYTES), open(&key, kernel));
    let private = new_key(&mut entropy);
    let public = dh::public_key(&new_key(&mut entropy));
    let mut rate = |name, unit, work: &mut dyn FnMut()| {
        tell(name);
        rate(each, unit, interrupt, work)
    };
    Ok(Ceilings {
        schema: SCHEMA.to_owned(),
        date: super::report::date(clock::now().wall.secs),
        machine,
        seal: rate("sealing", bits, &mut seal)?,
        open: rate("opening", bits, &mut open)?,
        seal_64: rate("sealing 64 bytes", packets, &mut self::seal(&key, kernel, 64))?,
        copy: rate("copying memory", COPY_BYTES as f64 / 1e9, &mut copy())?,
        agreements: rate("X25519", 1.0, &mut || {
            drop(black_box(dh::dh(&private, black_box(&public))));
        })?,
        handshakes: rate("handshakes", 1.0, &mut answer(&mut entropy)?)?,
        tunnel: None,
    })
}

/// How many ceilings there are.
pub const COUNT: u64 = 6;

/// How often a second `work` can be done, times `unit`: [`SAMPLES`] samples.
fn rate(
    each: Duration,
    unit: f64,
    interrupt: &Interrupt,
    work: &mut dyn FnMut(),
) -> Result<Summary, BenchError> {
    let mut samples = Vec::new();
    // The first is the warm-up.
    for number in 0..=SAMPLES {
        if interrupt.is_raised() {
            return Err(BenchError::Interrupted);
        }
        let started = clock::now().mono;
        let (mut done, mut passed) = (0_u64, Duration::ZERO);
        while passed < each / SAMPLES {
            for _ in 0..BETWEEN_LOOKS {
                work();
            }
            done += BETWEEN_LOOKS;
            passed = clock::now().mono.since(started);
        }
        if number > 0 {
            samples.push(done as f64 / passed.as_secs_f64() * unit);
        }
    }
    let nothing = || BenchError::Silent("no sample was taken".to_owned());
    Summary::of(&samples).ok_or_else(nothing)
}

/// Seals [`LANES`] packets in their place: what is in them does not matter.
fn seal(key: &AeadKey, kernel: Option<Kernel>, length: usize) -> impl FnMut() + '_ {
    let mut packets = [(); LANES].map(|()| vec![0x5a; length + TAG_BYTES]);
    move || {
        key.seal_batch(kernel, &mut messages(&mut packets));
        black_box(&packets);
    }
}

/// Opens [`LANES`] packets.
fn open(key: &AeadKey, kernel: Option<Kernel>) -> impl FnMut() + '_ {
    let mut sealed = [(); LANES].map(|()| vec![0x5a; PACKET_BYTES + TAG_BYTES]);
    key.seal_batch(kernel, &mut messages(&mut sealed));
    let mut packets = sealed.clone();
    move || {
        for (packet, sealed) in packets.iter_mut().zip(black_box(&sealed)) {
            packet.copy_from_slice(sealed);
        }
        let mut messages = messages(&mut packets);
        key.open_batch(kernel, &mut messages);
        assert!(messages.iter().all(Message::is_authentic), "they were sealed above");
    }
}

/// Each with a nonce of its own.
fn messages(packets: &mut [Vec<u8>; LANES]) -> [Message<'_>; LANES] {
    let mut counter = 0;
    packets.each_mut().map(|packet| {
        counter += 1;
        Message::with_counter(counter, packet)
    })
}

/// More than the caches hold, so that memory itself is measured.
fn copy() -> impl FnMut() {
    let (from, mut to) = (vec![0x5a_u8; 64 << 20], vec![0; 64 << 20]);
    let mut at = 0;
    move || {
        to[at..at + COPY_BYTES].copy_from_slice(black_box(&from[at..at + COPY_BYTES]));
        black_box(&to);
        at = (at + COPY_BYTES) % to.len();
    }
}

/// Answers the same initiation again and again.
fn answer(entropy: &mut SeededEntropy) -> Result<impl FnMut() + use<>, BenchError> {
    let (initiator, responder) =
        (StaticIdentity::new(new_key(entropy)), StaticIdentity::new(new_key(entropy)));
    let timestamp = Timestamp::from_wall(clock::now().wall);
    let to = RemoteStatic::new(&initiator, responder.public, PresharedKey::NONE);
    let index = Index::from_le_bytes([1, 0, 0, 0]);
    let sent = InitiationSent::create(&initiator, &to, new_key(entropy), index, timestamp);
    let (_, message) = sent.map_err(|reason| BenchError::Silent(reason.name().to_owned()))?;
    let from = RemoteStatic::new(&responder, initiator.public, PresharedKey::NONE);
    let ephemeral = new_key(entropy);
    Ok(move || {
        let response = InitiationOpened::open(&responder, black_box(&message))
            .and_then(|opened| opened.verify(&from))
            .and_then(|received| {
                received.create_response(clock::now().mono, &from, ephemeral.clone(), index)
            });
        // It is a handshake between the two above.
        drop(black_box(response));
    })
}

fn new_key(entropy: &mut dyn Entropy) -> PrivateKey {
    dh::clamp(&PrivateKey::from_bytes(entropy.bytes()))
}

fn bytes(entropy: &mut dyn Entropy) -> [u8; 32] {
    entropy.bytes()
}

const COPY_BYTES: usize = 1 << 20;
const SAMPLES: u32 = 9;
const BETWEEN_LOOKS: u64 = 8;

#[cfg(test)]
mod tests {
    use super::*;

    fn ceilings() -> Ceilings {
        measure(Duration::from_millis(9), &Interrupt::never(), &mut |_| ()).unwrap()
    }

    #[test]
    fn each_ceiling_is_told() {
        let mut told = 0;
        measure(Duration::from_millis(1), &Interrupt::never(), &mut |_| told += 1).unwrap();
        assert_eq!(told, COUNT);
    }

    #[test]
    fn every_ceiling_is_found_and_survives_json() {
        let ceilings = ceilings();
        let all = [
            &ceilings.seal,
            &ceilings.open,
            &ceilings.seal_64,
            &ceilings.copy,
            &ceilings.agreements,
            &ceilings.handshakes,
        ];
        assert!(all.iter().all(|one| one.median > 0.0 && one.count == 9), "{ceilings:?}");
        assert!(ceilings.agreements.median > ceilings.handshakes.median);
        let text = serde_json::to_string(&ceilings).unwrap();
        assert_eq!(serde_json::from_str::<Ceilings>(&text).unwrap(), ceilings);
    }

    #[test]
    fn a_tunnel_reaches_a_share_of_what_one_core_seals() {
        let mut ceilings = ceilings();
        ceilings.seal.median = 10.0;
        ceilings.open.median = 8.0;
        let reached = ceilings.reached(5.0, 3.6);
        assert!((reached.of_seal - 0.5).abs() < 1e-9);
        // 0.8 s to seal a gigabyte and 1 s to open it.
        assert!((reached.cipher_share - 0.5).abs() < 1e-9);
    }

    #[test]
    fn an_interrupted_measurement_ends() {
        let interrupt = Interrupt::never();
        interrupt.raise();
        let outcome = measure(Duration::from_secs(60), &interrupt, &mut |_| ());
        assert!(matches!(outcome, Err(BenchError::Interrupted)));
    }
}
