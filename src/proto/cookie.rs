//! The two MACs at the end of a handshake message, and cookies. [WG §5.3, §5.4.4, §5.4.7]
//!
//! The first MAC shows that the sender knows the receiver's public key. The second shows that it
//! can receive at its source address: its key is a cookie that the receiver, under load, hands out
//! in place of an answer. [`CookieChecker`] is the receiver's side, [`CookieJar`] the sender's,
//! one a peer.
//!
//! Guarantees: MACs are compared in constant time; a cookie is bound to address *and* port, so
//! that those who share an address cannot use each other's. A cookie reply proves nothing about
//! where the peer is and moves nothing; neither side sends by itself.

use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use subtle::ConstantTimeEq;
use zeroize::Zeroizing;

use crate::crypto::aead::{XNONCE_BYTES, xopen, xseal};
use crate::crypto::entropy::Entropy;
use crate::crypto::hash::{HASH_BYTES, MAC_BYTES, hash, mac};
use crate::crypto::key::{PublicKey, SymmetricKey};
use crate::proto::constants::{COOKIE_SECRET_LATENCY, COOKIE_SECRET_MAX_AGE};
use crate::proto::drop_reason::DropReason;
use crate::proto::index::Index;
use crate::time::Instant;
use crate::wire::message::{COOKIE_REPLY_BYTES, TYPE_COOKIE_REPLY, cookie_reply};

/// How long a sender uses a cookie: it must still be good when the message arrives.
/// [LNX cookie.c:wg_cookie_add_mac_to_packet]
const COOKIE_MAX_AGE: Duration = COOKIE_SECRET_MAX_AGE.saturating_sub(COOKIE_SECRET_LATENCY);

const NO_MAC: [u8; MAC_BYTES] = [0; MAC_BYTES];

type Cookie = Zeroizing<[u8; MAC_BYTES]>;

/// What the MACs of a handshake message prove.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MacVerdict {
    /// The sender does not know our public key: drop without an answer.
    Invalid,
    /// The sender knows our public key. Under load that is worth a cookie reply and no more.
    ValidMac1,
    /// The sender also receives what is sent to its source address.
    ValidBoth,
}

/// Checks the MACs of what comes in, and makes cookies for those who have none.
pub struct CookieChecker {
    keys: MacKeys,
    secret: Zeroizing<[u8; 32]>,
    /// `None` until the first cookie is asked for: most receivers never make one.
    secret_born: Option<Instant>,
}

impl CookieChecker {
    /// `own` is our public key: a new identity takes a new checker.
    pub fn new(own: &PublicKey) -> Self {
        Self { keys: MacKeys::new(own), secret: Zeroizing::new([0; 32]), secret_born: None }
    }

    /// Judges a handshake initiation or response that came from `from`.
    pub fn check(&self, now: Instant, from: SocketAddr, message: &[u8]) -> MacVerdict {
        let Some((covered, mac1, mac2)) = split_macs(message) else { return MacVerdict::Invalid };
        if !equal(&self.keys.mac1(covered), mac1) {
            return MacVerdict::Invalid;
        }
        // All zeros is how a sender says that it has no cookie; no secret is risked by that test.
        if *mac2 == NO_MAC || !self.secret_is_fresh(now) {
            return MacVerdict::ValidMac1;
        }
        if equal(&mac(&self.cookie(from), &[covered, mac1]), mac2) {
            MacVerdict::ValidBoth
        } else {
            MacVerdict::ValidMac1
        }
    }

    /// The cookie reply to `message`, which came from `from`, carries `sender_index` and has a
    /// valid first MAC.
    pub fn create_reply(
        &mut self,
        now: Instant,
        entropy: &mut dyn Entropy,
        message: &[u8],
        sender_index: Index,
        from: SocketAddr,
    ) -> [u8; COOKIE_REPLY_BYTES] {
        if !self.secret_is_fresh(now) {
            entropy.fill(&mut *self.secret);
            self.secret_born = Some(now);
        }
        let nonce: [u8; XNONCE_BYTES] = entropy.bytes();
        let mac1 = split_macs(message).map_or(NO_MAC, |(_, mac1, _)| *mac1);
        self.keys.seal(&nonce, &mac1, &self.cookie(from), sender_index)
    }

    fn cookie(&self, from: SocketAddr) -> Cookie {
        let port = from.port().to_be_bytes();
        Zeroizing::new(match from.ip() {
            IpAddr::V4(address) => mac(&self.secret, &[&address.octets(), &port]),
            IpAddr::V6(address) => mac(&self.secret, &[&address.octets(), &port]),
        })
    }

    fn secret_is_fresh(&self, now: Instant) -> bool {
        self.secret_born.is_some_and(|born| now.since(born) < COOKIE_SECRET_MAX_AGE)
    }
}

impl fmt::Debug for CookieChecker {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CookieChecker")
            .field("secret_born", &self.secret_born)
            .finish_non_exhaustive()
    }
}

/// Puts the MACs on what goes out to one peer, and keeps the cookie it gave us.
pub struct CookieJar {
    keys: MacKeys,
    cookie: Option<(Cookie, Instant)>,
    /// The first MAC of the last message, until a cookie reply has answered it.
    unanswered_mac1: Option<[u8; MAC_BYTES]>,
}

impl CookieJar {
    pub fn new(remote: &PublicKey) -> Self {
        Self { keys: MacKeys::new(remote), cookie: None, unanswered_mac1: None }
    }

    /// Writes both MACs of a handshake initiation or response that is otherwise complete. The
    /// second is zeros unless the peer gave a cookie in the last 115 s.
    pub fn stamp(&mut self, now: Instant, message: &mut [u8]) {
        let Some((rest, mac2)) = message.split_last_chunk_mut::<MAC_BYTES>() else { return };
        let Some((covered, mac1)) = rest.split_last_chunk_mut::<MAC_BYTES>() else { return };
        *mac1 = self.keys.mac1(covered);
        self.unanswered_mac1 = Some(*mac1);
        *mac2 = match &self.cookie {
            Some((cookie, born)) if now.since(*born) < COOKIE_MAX_AGE => {
                mac(cookie, &[covered, mac1])
            }
            Some(_) | None => NO_MAC,
        };
    }

    /// Takes the cookie out of a cookie reply, for the messages to come. Nothing is to be sent
    /// because of it: the next retry carries the cookie. [WG §5.4.7]
    ///
    /// # Errors
    /// [`DropReason::UnexpectedCookie`] if no message waits for one,
    /// [`DropReason::InvalidCookie`] if it does not answer the last message; both leave the jar
    /// as it was.
    pub fn consume_reply(
        &mut self,
        now: Instant,
        reply: &[u8; COOKIE_REPLY_BYTES],
    ) -> Result<(), DropReason> {
        let mac1 = self.unanswered_mac1.ok_or(DropReason::UnexpectedCookie)?;
        let cookie = self.keys.open(&mac1, reply).ok_or(DropReason::InvalidCookie)?;
        self.cookie = Some((cookie, now));
        self.unanswered_mac1 = None;
        Ok(())
    }
}

impl fmt::Debug for CookieJar {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let born = self.cookie.as_ref().map(|(_, born)| born);
        f.debug_struct("CookieJar").field("cookie_born", &born).finish_non_exhaustive()
    }
}

/// What follows from the public key of the receiver, which is all the sender needs to know.
struct MacKeys {
    mac1: [u8; HASH_BYTES],
    cookie: SymmetricKey,
}

impl MacKeys {
    fn new(receiver: &PublicKey) -> Self {
        Self {
            mac1: hash(&[b"mac1----", receiver.as_bytes()]),
            cookie: SymmetricKey::from_bytes(hash(&[b"cookie--", receiver.as_bytes()])),
        }
    }

    fn mac1(&self, covered: &[u8]) -> [u8; MAC_BYTES] {
        mac(&self.mac1, &[covered])
    }

    /// Writes a cookie reply. [WG §5.4.7]
    fn seal(
        &self,
        nonce: &[u8; XNONCE_BYTES],
        mac1: &[u8; MAC_BYTES],
        cookie: &Cookie,
        receiver: Index,
    ) -> [u8; COOKIE_REPLY_BYTES] {
        let mut reply = [0; COOKIE_REPLY_BYTES];
        reply[..4].copy_from_slice(&TYPE_COOKIE_REPLY.to_le_bytes());
        reply[cookie_reply::RECEIVER].copy_from_slice(&receiver.to_le_bytes());
        reply[cookie_reply::NONCE].copy_from_slice(nonce);
        xseal(&self.cookie, nonce, mac1, &**cookie, &mut reply[cookie_reply::COOKIE]);
        reply
    }

    fn open(&self, mac1: &[u8; MAC_BYTES], reply: &[u8; COOKIE_REPLY_BYTES]) -> Option<Cookie> {
        let nonce = reply[cookie_reply::NONCE].try_into().ok()?;
        let mut cookie = Zeroizing::new(NO_MAC);
        xopen(&self.cookie, nonce, mac1, &reply[cookie_reply::COOKIE], &mut *cookie).ok()?;
        Some(cookie)
    }
}

/// What the first MAC covers, and both MACs.
fn split_macs(message: &[u8]) -> Option<(&[u8], &[u8; MAC_BYTES], &[u8; MAC_BYTES])> {
    let (rest, mac2) = message.split_last_chunk()?;
    let (covered, mac1) = rest.split_last_chunk()?;
    Some((covered, mac1, mac2))
}

fn equal(expected: &[u8; MAC_BYTES], received: &[u8; MAC_BYTES]) -> bool {
    expected.ct_eq(received).into()
}

#[cfg(test)]
mod tests;
