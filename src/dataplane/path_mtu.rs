//! How large packets to one peer may be, as its shards see it.
//!
//! The engine finds out and writes; shards compare each packet with one number.

use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};

use crate::wire::icmp::Echo;

/// Below this no path of IPv6 is: what is no larger is sent whatever is known. Bytes. [RFC 8200 §5]
const IPV6_LEAST: u32 = 1280;

/// Packets of at most so many bytes are worth no question. Bytes.
pub const UNQUESTIONED: u32 = 1200;

/// What is known of the path to one peer; at first, that nobody wants to know. Ordering: relaxed; it
/// holds from some packet on.
#[derive(Debug)]
pub struct PathMtu {
    /// The largest inner packet that fits, in bytes.
    limit: AtomicU32,
    /// Packets of at most so many bytes need no second look: the limit, or [`UNQUESTIONED`] while
    /// somebody wants to hear of larger ones.
    passes: AtomicU32,
    /// What echoes of ours carry; 0 while none is on the way.
    token: AtomicU64,
    /// Which of them were answered, so that none is told of twice.
    answered: AtomicU32,
    /// Whether an address behind the peer is known since.
    knows_inside: AtomicBool,
}

impl Default for PathMtu {
    fn default() -> Self {
        Self {
            limit: AtomicU32::new(u32::MAX),
            passes: AtomicU32::new(u32::MAX),
            token: AtomicU64::new(0),
            answered: AtomicU32::new(0),
            knows_inside: AtomicBool::new(false),
        }
    }
}

impl PathMtu {
    /// Whether a packet of so many bytes needs no second look.
    #[inline]
    pub fn passes(&self, bytes: usize) -> bool {
        bytes <= self.passes.load(Ordering::Relaxed) as usize
    }

    /// The largest packet that fits; IPv6 has a least of its own.
    pub fn limit(&self, is_v6: bool) -> u32 {
        let limit = self.limit.load(Ordering::Relaxed);
        if is_v6 { limit.max(IPV6_LEAST) } else { limit }
    }

    /// A packet came that does not pass. True if somebody wants to hear of it: once each time that
    /// [`Self::set`] says so.
    pub fn take_question(&self) -> bool {
        let limit = self.limit.load(Ordering::Relaxed);
        self.passes.swap(limit, Ordering::Relaxed) < limit
    }

    /// Whether answers may be on the way.
    #[inline]
    pub fn is_probing(&self) -> bool {
        self.token.load(Ordering::Relaxed) != 0
    }

    /// Echoes with `token` are sent from now on; 0: no more of them.
    pub fn set_token(&self, token: u64) {
        self.answered.store(0, Ordering::Relaxed);
        self.knows_inside.store(false, Ordering::Relaxed);
        self.token.store(token, Ordering::Relaxed);
    }

    /// Whether `echo` answers one of ours.
    pub fn is_ours(&self, echo: &Echo) -> bool {
        self.is_probing() && echo.token == self.token.load(Ordering::Relaxed)
    }

    /// Notes an answer; true if it is the first of its sequence.
    pub fn take_answer(&self, sequence: u16) -> bool {
        let bit = 1_u32.checked_shl(sequence.into()).unwrap_or(0);
        self.answered.fetch_or(bit, Ordering::Relaxed) & bit != bit
    }

    /// Notes that an address behind the peer is told of; true for the first since the token was set.
    pub fn take_inside(&self) -> bool {
        !self.knows_inside.swap(true, Ordering::Relaxed)
    }

    /// Sets the largest packet that fits, and whether the next one above [`UNQUESTIONED`] is to be
    /// told of.
    pub fn set(&self, limit: u32, ask: bool) {
        self.limit.store(limit, Ordering::Relaxed);
        let passes = if ask { limit.min(UNQUESTIONED) } else { limit };
        self.passes.store(passes, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_large_packet_is_told_of_once_and_one_that_does_not_fit_is_always_looked_at() {
        let mtu = PathMtu::default();
        assert!(mtu.passes(65_535));
        mtu.set(1340, true);
        assert!(mtu.passes(1200) && !mtu.passes(1201));
        assert!(mtu.take_question() && !mtu.take_question());
        assert!(mtu.passes(1340) && !mtu.passes(1341));
        assert!(!mtu.take_question(), "it does not fit, and that is known");
        mtu.set(1340, true);
        assert!(mtu.take_question());
    }

    #[test]
    fn an_answer_is_ours_by_its_token_and_counts_once() {
        let mtu = PathMtu::default();
        let from = "10.0.0.1".parse().unwrap();
        let echo = |token| Echo { from, sequence: 3, token };
        assert!(!mtu.is_probing() && !mtu.is_ours(&echo(0)));
        mtu.set_token(7);
        assert!(mtu.is_probing() && mtu.is_ours(&echo(7)) && !mtu.is_ours(&echo(8)));
        assert!(mtu.take_answer(3) && !mtu.take_answer(3) && mtu.take_answer(4));
        assert!(!mtu.take_answer(32), "there is none of that number");
        mtu.set_token(9);
        assert!(mtu.take_answer(3) && mtu.take_inside() && !mtu.take_inside());
    }

    #[test]
    fn ipv6_has_1280_bytes_on_every_path() {
        let mtu = PathMtu::default();
        mtu.set(1200, false);
        assert_eq!((mtu.limit(false), mtu.limit(true)), (1200, 1280));
    }
}
