//! Handshakes, as many as a device answers: the initiators are this generator.
//!
//! Each of many peers begins one handshake. Its message is made beforehand, so that what is
//! measured is the other end's work, and the answers are not computed upon: that they answer the
//! right question is what counts. A demand for a cookie is met, since some make it early.

use std::io;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::{at_once, connected_udp, is_time_out, now};
use crate::crypto::dh;
use crate::crypto::entropy::{Entropy, SeededEntropy};
use crate::crypto::key::{PresharedKey, PrivateKey, PublicKey};
use crate::crypto::tai64n::Timestamp;
use crate::proto::cookie::CookieJar;
use crate::proto::handshake::{InitiationSent, RemoteStatic, StaticIdentity};
use crate::proto::index::Index;
use crate::sys::clock;
use crate::wire::message::{self, Message};

/// Begins a handshake for each of `peers`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Begin {
    pub to: SocketAddr,
    /// The public key of whoever answers.
    pub responder: String,
    /// The peers' keys follow from it: [`private_keys`].
    pub seed: u64,
    pub peers: usize,
}

/// What was answered.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Answered {
    pub handshakes: u64,
    /// Demanded before an answer.
    pub cookies: u64,
    pub lost: u64,
    pub duration: Duration,
}

impl Answered {
    #[expect(clippy::cast_precision_loss, reason = "no number here has 16 digits")]
    pub fn per_second(&self) -> f64 {
        self.handshakes as f64 / self.duration.as_secs_f64()
    }
}

/// The keys of the peers of `seed`, which serve for nothing else.
pub fn private_keys(seed: u64, count: usize) -> impl Iterator<Item = PrivateKey> {
    let mut entropy = SeededEntropy::new(seed);
    (0..count).map(move |_| new_key(&mut entropy))
}

pub(super) fn new_key(entropy: &mut dyn Entropy) -> PrivateKey {
    dh::clamp(&PrivateKey::from_bytes(entropy.bytes()))
}

/// A handshake that is begun, and who begins it.
struct Begun {
    message: [u8; message::INITIATION_BYTES],
    jar: CookieJar,
}

/// Does [`Begin`].
///
/// # Errors
/// A key that is none, what the socket said, or nobody who answers.
pub fn begin(task: &Begin) -> io::Result<Answered> {
    let responder = PublicKey::from_base64(&task.responder).map_err(io::Error::other)?;
    let all = private_keys(task.seed, task.peers)
        .zip(0..)
        .map(|(private, number)| prepare(private, responder, number, task.seed).map(Mutex::new))
        .collect::<io::Result<Vec<_>>>()?;
    let next = AtomicUsize::new(0);
    let started = now();
    let answered = at_once(UNDER_WAY, |_| {
        let mut answered = Answered::default();
        while let Some(begun) = all.get(next.fetch_add(1, Ordering::Relaxed)) {
            // Nobody else takes the same one.
            let mut begun = begun.lock().unwrap_or_else(PoisonError::into_inner);
            match begun.exchange(task.to)? {
                Some(cookies) => {
                    answered.handshakes += 1;
                    answered.cookies += cookies;
                    answered.duration = now().since(started);
                }
                None => answered.lost += 1,
            }
            if answered.lost > LOST_AT_MOST {
                return Err(io::Error::new(
                    io::ErrorKind::TimedOut,
                    "handshakes were not answered",
                ));
            }
        }
        Ok(answered)
    })?;
    Ok(answered.into_iter().fold(Answered::default(), |all, one| Answered {
        handshakes: all.handshakes + one.handshakes,
        cookies: all.cookies + one.cookies,
        lost: all.lost + one.lost,
        duration: all.duration.max(one.duration),
    }))
}

impl Begun {
    /// Sends the message and waits for the answer, from a port of its own: some programs remember
    /// where a peer was and hear nobody else from there. Returns how many cookies it took, or
    /// nothing if no answer came.
    fn exchange(&mut self, to: SocketAddr) -> io::Result<Option<u64>> {
        let socket = connected_udp(to)?;
        socket.set_read_timeout(Some(PATIENCE))?;
        let mut buffer = [0; 256];
        for cookies in 0..=COOKIES_AT_MOST {
            self.jar.stamp(now(), &mut self.message);
            socket.send(&self.message)?;
            let length = match socket.recv(&mut buffer) {
                Ok(length) => length,
                Err(error) if is_time_out(&error) => return Ok(None),
                Err(error) => return Err(error),
            };
            match message::classify(&buffer[..length]) {
                Some(Message::Response(_)) => return Ok(Some(cookies)),
                Some(Message::CookieReply(reply)) => {
                    // One that answers nothing of ours changes nothing.
                    let _unchanged = self.jar.consume_reply(now(), reply);
                }
                Some(Message::Initiation(_) | Message::Transport { .. }) | None => {}
            }
        }
        Ok(None)
    }
}

fn prepare(private: PrivateKey, responder: PublicKey, number: u32, seed: u64) -> io::Result<Begun> {
    let identity = StaticIdentity::new(private);
    let remote = RemoteStatic::new(&identity, responder, PresharedKey::NONE);
    let own_seed = seed ^ EPHEMERAL ^ (u64::from(number) << 32);
    let ephemeral = new_key(&mut SeededEntropy::new(own_seed));
    let timestamp = Timestamp::from_wall(clock::now().wall);
    let index = Index::from_le_bytes(number.to_le_bytes());
    let (_, message) = InitiationSent::create(&identity, &remote, ephemeral, index, timestamp)
        .map_err(|reason| io::Error::other(format!("no initiation: {}", reason.name())))?;
    Ok(Begun { message, jar: CookieJar::new(&responder) })
}

/// Under way at once: enough that the other end never waits for us, and too few for it to think
/// that it is under attack.
const UNDER_WAY: usize = 8;
const PATIENCE: Duration = Duration::from_secs(1);
/// By one of those that are under way.
const LOST_AT_MOST: u64 = 10;
const COOKIES_AT_MOST: u64 = 2;
/// Keeps the stream of ephemerals apart from that of static keys.
const EPHEMERAL: u64 = 0x6570_6865_6d65_7261;

#[cfg(test)]
mod tests {
    use std::net::UdpSocket;
    use std::thread;

    use super::*;
    use crate::proto::device::{Change, Device, Load, Output, Outputs, PeerUpdate};
    use crate::proto::endpoint::Endpoint;

    #[test]
    fn the_same_seed_gives_the_same_peers_and_another_gives_others() {
        let keys = |seed| private_keys(seed, 3).map(|key| dh::public_key(&key)).collect::<Vec<_>>();
        assert_eq!(keys(1), keys(1));
        assert_ne!(keys(1), keys(2));
        assert_ne!(keys(1)[0], keys(1)[1]);
    }

    #[test]
    fn a_device_answers_each_peer_once() {
        let answered = begin_with(Load::Normal, 40);
        assert_eq!((answered.handshakes, answered.lost, answered.cookies), (40, 0, 0));
    }

    #[test]
    fn a_device_that_demands_cookies_is_given_them() {
        // More it would not answer at once under attack.
        let answered = begin_with(Load::High, 4);
        assert_eq!((answered.handshakes, answered.lost, answered.cookies), (4, 0, 4));
    }

    fn begin_with(load: Load, peers: usize) -> Answered {
        let private = private_keys(9, 1).next().unwrap();
        let responder = dh::public_key(&private).to_base64();
        let mut device = Device::new(Box::new(SeededEntropy::new(3)));
        let mut out = Outputs::default();
        let mut configure = |change| device.configure(clock::now(), change, &mut out).unwrap();
        configure(Change::PrivateKey(Some(private)));
        for key in private_keys(4, peers) {
            configure(Change::Peer(PeerUpdate::new(dh::public_key(&key))));
        }
        let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
        let to = socket.local_addr().unwrap();
        socket.set_read_timeout(Some(Duration::from_secs(2))).unwrap();
        let answering = thread::spawn(move || {
            let mut buffer = [0; 256];
            while let Ok((length, from)) = socket.recv_from(&mut buffer) {
                let endpoint = Endpoint { remote: from, local: None };
                let datagram = &buffer[..length];
                let _ = device.handle_handshake(clock::now(), endpoint, load, datagram, &mut out);
                for output in out.drain() {
                    if let Output::Transmit { datagram, .. } = output {
                        socket.send_to(&datagram, from).unwrap();
                    }
                }
            }
        });
        let answered = begin(&Begin { to, responder, seed: 4, peers }).unwrap();
        answering.join().unwrap();
        answered
    }
}
