//! What the connections of an engine have in common: settings, a budget of memory, and secrets.

use std::hash::Hash;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use super::congestion::Algorithm;
use super::receiver::PRESSED_WINDOW_BYTES;
use crate::crypto::entropy::Entropy;
use crate::time::Instant;

/// Settings of connections to be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Config {
    /// The largest packet that is sent and asked for, in bytes.
    pub mtu: u32,
    pub congestion: Algorithm,
    /// What a connection may have unacknowledged or unsent, at most, in bytes.
    pub send_buffer_bytes: usize,
    /// What it may have received that nobody has taken, at most, in bytes.
    pub receive_buffer_bytes: usize,
    /// What all connections together may hold, in bytes.
    pub budget_bytes: usize,
    /// Whether, and how, the other end is asked if it is there while nothing passes.
    pub keepalive: Option<Keepalive>,
    /// How long data may stay unacknowledged until the connection is given up. [RFC 9293 §3.8.3]
    pub user_timeout: Duration,
    /// The same for a connection that is being made.
    pub handshake_timeout: Duration,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            mtu: 1360,
            congestion: Algorithm::Cubic,
            send_buffer_bytes: 8 << 20,
            receive_buffer_bytes: 8 << 20,
            budget_bytes: 256 << 20,
            keepalive: Some(Keepalive::default()),
            user_timeout: Duration::from_secs(180),
            handshake_timeout: Duration::from_secs(30),
        }
    }
}

/// Probes of a connection on which nothing passes. [RFC 9293 §3.8.4]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Keepalive {
    /// How long nothing has been heard before the first.
    pub idle: Duration,
    /// Between two of them.
    pub interval: Duration,
    /// How many may stay unanswered.
    pub probes: u8,
}

impl Default for Keepalive {
    fn default() -> Self {
        Self { idle: Duration::from_secs(120), interval: Duration::from_secs(30), probes: 4 }
    }
}

/// What all connections of an engine share.
#[derive(Debug)]
pub struct Stack {
    pub config: Config,
    /// Bytes that the queues of all connections hold.
    memory: Arc<AtomicUsize>,
    secret: Secret,
}

impl Stack {
    pub fn new(config: Config, entropy: &mut dyn Entropy) -> Self {
        let secret = Secret([0; 2].map(|_: u8| u64::from_le_bytes(entropy.bytes())));
        Self { config, memory: Arc::default(), secret }
    }

    /// For other connections to be, with what all share in common with those that there are.
    pub fn with(&self, config: Config) -> Self {
        Self { config, memory: Arc::clone(&self.memory), secret: self.secret }
    }

    /// What the queues of all connections hold now, in bytes.
    pub fn memory_bytes(&self) -> usize {
        // Ordering: a sum that nothing else depends on.
        self.memory.load(Ordering::Relaxed)
    }

    /// Whether there is so little left that no connection may take more than it needs to go on.
    pub(super) fn is_under_pressure(&self) -> bool {
        self.memory_bytes() > self.config.budget_bytes / 4 * 3
    }

    /// What a connection may hold if that is not in order, in bytes: it comes again, so that of what is
    /// left nothing is for it.
    pub(super) fn out_of_order_bytes(&self) -> usize {
        match self.memory_bytes() {
            held if held >= self.config.budget_bytes => 0,
            _ if self.is_under_pressure() => PRESSED_WINDOW_BYTES,
            _ => usize::MAX,
        }
    }

    /// Takes note that a connection holds `now` bytes where it held `before`.
    pub(super) fn charge(&self, before: usize, now: usize) {
        if now != before {
            // Ordering: as above. A wrapped difference is the difference.
            self.memory.fetch_add(now.wrapping_sub(before), Ordering::Relaxed);
        }
    }

    /// The first sequence number of a connection: a clock, so that it differs from that of the
    /// connection before, and a keyed hash, so that nobody guesses it. [RFC 6528 §3]
    pub(super) fn initial_sequence(
        &self,
        now: Instant,
        local: SocketAddr,
        remote: SocketAddr,
    ) -> u32 {
        let clock = (now.as_nanos() / 4000) as u32;
        clock.wrapping_add(self.secret.hash(&(local, remote)))
    }

    /// What the clock of the timestamps between two hosts begins with: the same for all their
    /// connections, so that one that takes the place of another is later. [RFC 7323 §5.5, §7.1]
    pub(super) fn timestamp_offset(&self, local: IpAddr, remote: IpAddr) -> u32 {
        self.secret.hash(&(local, remote))
    }
}

/// The key of a hash; shown by nothing.
#[derive(Clone, Copy)]
struct Secret([u64; 2]);

impl std::fmt::Debug for Secret {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Secret")
    }
}

impl Secret {
    /// SipHash-2-4.
    #[expect(deprecated, reason = "what replaced it takes its key from the system alone")]
    fn hash(&self, what: &impl Hash) -> u32 {
        use std::hash::{Hasher, SipHasher};
        let [low, high] = self.0;
        let mut hasher = SipHasher::new_with_keys(low, high);
        what.hash(&mut hasher);
        hasher.finish() as u32
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::crypto::entropy::SeededEntropy;

    #[test]
    fn sequence_numbers_differ_by_time_addresses_and_secret() {
        let [a, b] = ["10.0.0.1:1", "10.0.0.1:2"].map(|text| text.parse().unwrap());
        let stack = |seed| Stack::new(Config::default(), &mut SeededEntropy::new(seed));
        let (one, other) = (stack(1), stack(2));
        let start = Instant::from_nanos(1 << 40);
        let first = one.initial_sequence(start, a, b);
        assert_eq!(first, stack(1).initial_sequence(start, a, b));
        assert_ne!(first, other.initial_sequence(start, a, b));
        assert_ne!(first, one.initial_sequence(start, b, a));
        let later = one.initial_sequence(start + Duration::from_micros(40), a, b);
        assert_eq!(later.wrapping_sub(first), 10, "four microseconds each");
        let offset = one.timestamp_offset(a.ip(), b.ip());
        assert_ne!(offset, other.timestamp_offset(a.ip(), b.ip()));
        assert!(!format!("{one:?}").contains(&one.secret.0[0].to_string()));
    }
}
