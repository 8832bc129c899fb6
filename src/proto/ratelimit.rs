//! How many handshakes a source may start while we are under load. [WG §5.3]
//!
//! A token bucket a source: an IPv4 address, or the /64 of an IPv6 address, because whoever has
//! one address of a /64 commonly has them all. The buckets know nothing of each other, so one
//! source that floods takes nothing from another. Ask only for sources that have proved their
//! address by a cookie: forged ones would fill the table.
//! [LNX ratelimiter.c:wg_ratelimiter_allow]

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::time::Duration;

use crate::proto::constants::{RATE_LIMIT_BURST, RATE_LIMIT_PER_SECOND};
use crate::time::Instant;

/// What one handshake costs a source, in time saved up.
const PACKET_COST: Duration = Duration::from_millis(1000 / RATE_LIMIT_PER_SECOND as u64);

/// What a source can have saved.
const FULL: Duration = PACKET_COST.saturating_mul(RATE_LIMIT_BURST);

/// A source that was silent this long is forgotten; its bucket is full again by then.
const FORGET_AFTER: Duration = Duration::from_secs(1);

/// How many sources are known at once, about 4 MiB; past that, new ones are refused.
const MAX_SOURCES: usize = 65_536;

/// The buckets of all sources.
///
/// A tree and not a hash table: there are no collisions for an attacker to find.
#[derive(Debug, Default)]
pub struct RateLimiter {
    /// INVARIANT: at most `MAX_SOURCES`.
    buckets: BTreeMap<Source, Bucket>,
    collected: Instant,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Source {
    Ipv4(u32),
    /// The upper half of the address.
    Ipv6(u64),
}

#[derive(Debug)]
struct Bucket {
    /// Time saved up to spend, at most `FULL`.
    savings: Duration,
    updated: Instant,
}

impl RateLimiter {
    pub fn new() -> Self {
        Self::default()
    }

    /// Whether `source` may start a handshake now; if so, it has spent one.
    pub fn allow(&mut self, now: Instant, source: IpAddr) -> bool {
        if now.since(self.collected) >= FORGET_AFTER {
            self.forget_silent(now);
        }
        let source = Source::from(source);
        if let Some(bucket) = self.buckets.get_mut(&source) {
            return bucket.spend(now);
        }
        let room = self.buckets.len() < MAX_SOURCES;
        if room {
            self.buckets.insert(source, Bucket { savings: FULL - PACKET_COST, updated: now });
        }
        room
    }

    fn forget_silent(&mut self, now: Instant) {
        self.buckets.retain(|_, bucket| now.since(bucket.updated) < FORGET_AFTER);
        self.collected = now;
    }
}

impl Bucket {
    /// A refusal costs nothing, so that a source under its rate recovers while it is refused.
    fn spend(&mut self, now: Instant) -> bool {
        self.savings = FULL.min(self.savings.saturating_add(now.since(self.updated)));
        self.updated = now;
        match self.savings.checked_sub(PACKET_COST) {
            Some(rest) => {
                self.savings = rest;
                true
            }
            None => false,
        }
    }
}

impl From<IpAddr> for Source {
    fn from(address: IpAddr) -> Self {
        match address.to_canonical() {
            IpAddr::V4(address) => Self::Ipv4(address.to_bits()),
            IpAddr::V6(address) => {
                let [a, b, c, d, e, f, g, h, ..] = address.octets();
                Self::Ipv6(u64::from_be_bytes([a, b, c, d, e, f, g, h]))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::net::{Ipv4Addr, Ipv6Addr};

    use super::*;

    fn at(millis: u64) -> Instant {
        // Far from the start of the clock, as in a running system.
        Instant::ZERO + Duration::from_secs(1000) + Duration::from_millis(millis)
    }

    fn ipv4(host: u32) -> IpAddr {
        Ipv4Addr::from_bits(0x0a00_0000 + host).into()
    }

    fn ipv6(network: u64, host: u64) -> IpAddr {
        Ipv6Addr::from_bits(u128::from(network) << 64 | u128::from(host)).into()
    }

    #[test]
    fn the_kernels_timing_holds_for_both_families() {
        let file: serde_json::Value =
            serde_json::from_str(include_str!("../../tests/data/rate-limiter.json")).unwrap();
        let steps = file["timing"]["steps"].as_array().unwrap();
        assert_eq!(steps.len(), 11);
        let mut limiter = RateLimiter::new();
        let (mut millis, mut fresh) = (0, 0);
        for step in steps {
            millis += step["sleep_ms"].as_u64().unwrap();
            fresh += 1;
            let allow = step["allow"].as_bool().unwrap();
            assert_eq!(limiter.allow(at(millis), ipv4(0)), allow, "{step}");
            assert!(limiter.allow(at(millis), ipv4(fresh)));
            let host = u64::from(fresh);
            assert_eq!(limiter.allow(at(millis), ipv6(0xfd00 << 48, host)), allow, "{step}");
            assert!(limiter.allow(at(millis), ipv6(host, 1)));
        }
    }

    #[test]
    fn trap_11_one_source_that_floods_takes_nothing_from_another() {
        let mut limiter = RateLimiter::new();
        let mut allowed = 0;
        for millis in 0..10_000 {
            allowed += u32::from(limiter.allow(at(millis), ipv4(1)));
            if millis % 50 == 0 {
                assert!(limiter.allow(at(millis), ipv4(2)), "at {millis} ms");
            }
        }
        assert_eq!(allowed, 5 + 20 * 10 - 1, "the burst, then twenty a second");
    }

    #[test]
    fn a_full_table_refuses_new_sources_until_old_ones_fall_silent() {
        let mut limiter = RateLimiter::new();
        let max = u32::try_from(MAX_SOURCES).unwrap();
        for host in 0..max {
            assert!(limiter.allow(at(0), ipv4(host)));
        }
        assert!(!limiter.allow(at(0), ipv4(max)), "no room");
        assert!(limiter.allow(at(500), ipv4(7)), "a known source keeps its bucket");
        assert!(!limiter.allow(at(999), ipv4(max)));
        assert!(limiter.allow(at(1000), ipv4(max)), "room again");
        assert_eq!(limiter.buckets.len(), 2, "of the old ones, only the one still heard");
    }

    #[test]
    fn an_ipv4_mapped_address_is_the_ipv4_address() {
        let mut limiter = RateLimiter::new();
        let mapped = |host: u8| IpAddr::from(Ipv4Addr::new(192, 0, 2, host).to_ipv6_mapped());
        for _ in 0..5 {
            assert!(limiter.allow(at(0), mapped(1)));
        }
        assert!(!limiter.allow(at(0), IpAddr::from([192, 0, 2, 1])));
        assert!(limiter.allow(at(0), mapped(2)), "not one bucket for all that are mapped");
    }

    #[test]
    fn a_clock_that_goes_backwards_neither_fills_nor_drains_a_bucket() {
        let mut limiter = RateLimiter::new();
        for _ in 0..5 {
            assert!(limiter.allow(at(1000), ipv4(1)));
        }
        assert!(!limiter.allow(at(0), ipv4(1)));
        assert!(limiter.allow(at(50), ipv4(1)));
    }
}
