//! The numbers of the protocol, each with its unit and its source.
//!
//! Message sizes are in [`crate::wire::message`]; the size of the replay window belongs to the
//! replay window, and only its reach is repeated here, because [`REJECT_AFTER_MESSAGES`] follows
//! from it.

use std::time::Duration;

/// Messages after which an established session is renewed; not a hard stop. [WG §6.1]
pub const REKEY_AFTER_MESSAGES: u64 = 1 << 60;

/// How far behind the greatest counter a message may still be accepted, in messages.
/// [LNX messages.h:COUNTER_WINDOW_SIZE]
pub const COUNTER_WINDOW_SIZE: u64 = 8192 - 64;

/// The first counter that is neither sent nor accepted. [LNX messages.h:REJECT_AFTER_MESSAGES]
///
/// The paper says 2^64 - 2^13 - 1, which is 63 more than what follows from the kernel's window.
pub const REJECT_AFTER_MESSAGES: u64 = u64::MAX - COUNTER_WINDOW_SIZE - 1;

/// Age at which the initiator of a session renews it when it sends. [WG §6.1]
pub const REKEY_AFTER_TIME: Duration = Duration::from_secs(120);

/// Age from which a session is used neither to send nor to receive. [WG §6.1]
pub const REJECT_AFTER_TIME: Duration = Duration::from_secs(180);

/// Wait before an unanswered initiation is sent again, and least distance between two initiations
/// to the same peer. [WG §6.1, §6.4]
pub const REKEY_TIMEOUT: Duration = Duration::from_secs(5);

/// Greatest random addition to [`REKEY_TIMEOUT`] and to [`NEW_HANDSHAKE_TIMEOUT`], in milliseconds,
/// drawn again for each use. [WG §6.1] [LNX messages.h:REKEY_TIMEOUT_JITTER_MAX_JIFFIES]
pub const REKEY_TIMEOUT_JITTER_MAX_MS: u32 = 333;

/// Time for which unanswered initiations are repeated. [WG §6.1]
pub const REKEY_ATTEMPT_TIME: Duration = Duration::from_secs(90);

/// Repetitions of an initiation before giving up: [`REKEY_ATTEMPT_TIME`] over [`REKEY_TIMEOUT`].
/// [LNX messages.h:MAX_TIMER_HANDSHAKES]
pub const MAX_TIMER_HANDSHAKES: u32 = 18;

/// Silence after received data that is filled by an empty message. [WG §6.5]
pub const KEEPALIVE_TIMEOUT: Duration = Duration::from_secs(10);

/// Silence of the peer after sent data that starts a handshake, before jitter: the peer has
/// [`KEEPALIVE_TIMEOUT`] to answer, and the answer [`REKEY_TIMEOUT`] to arrive. [WG §6.5]
pub const NEW_HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(10 + 5);

/// Age at which the initiator of a session renews it when it receives, once per session.
/// [WG §6.2] [LNX receive.c:keep_key_fresh]
pub const REKEY_ON_RECEIVE_AFTER_TIME: Duration = Duration::from_secs(180 - 10 - 5);

/// Time after the last new session when all ephemeral keys of a peer are wiped. [WG §6.3]
pub const ZERO_KEYS_AFTER_TIME: Duration = Duration::from_secs(3 * 180);

/// Life of the secret that cookies are made from. [WG §5.4.7]
pub const COOKIE_SECRET_MAX_AGE: Duration = Duration::from_secs(120);

/// Time less than [`COOKIE_SECRET_MAX_AGE`] for which a received cookie is used, so that it is
/// still good when the message arrives. [LNX messages.h:COOKIE_SECRET_LATENCY]
pub const COOKIE_SECRET_LATENCY: Duration = Duration::from_secs(5);

/// Least distance between two initiations consumed from the same peer: 50 per second.
/// [LNX messages.h:INITIATIONS_PER_SECOND]
pub const INITIATION_MIN_INTERVAL: Duration = Duration::from_millis(1000 / 50);

/// Handshakes per second that one source address may send while we are under load.
/// [LNX ratelimiter.c:PACKETS_PER_SECOND]
pub const RATE_LIMIT_PER_SECOND: u32 = 20;

/// Handshakes that one source address may send at once while we are under load.
/// [LNX ratelimiter.c:PACKETS_BURSTABLE]
pub const RATE_LIMIT_BURST: u32 = 5;

/// Handshake messages that may wait to be worked on; what comes above is dropped.
/// [LNX messages.h:MAX_QUEUED_INCOMING_HANDSHAKES]
pub const MAX_QUEUED_INCOMING_HANDSHAKES: usize = 4096;

/// Waiting handshake messages from which on we are under load.
/// [LNX receive.c:wg_receive_handshake_packet]
pub const UNDER_LOAD_HANDSHAKES: usize = MAX_QUEUED_INCOMING_HANDSHAKES / 8;

/// Time for which we count as under load after the queue has shrunk.
/// [LNX receive.c:wg_receive_handshake_packet]
pub const UNDER_LOAD_LASTS: Duration = Duration::from_secs(1);

/// Packets of one peer that wait for a session; the oldest makes room for the newest.
/// [LNX messages.h:MAX_STAGED_PACKETS]
pub const MAX_STAGED_PACKETS: usize = 128;

/// Peers of one device. [LNX messages.h:MAX_PEERS_PER_DEVICE]
pub const MAX_PEERS_PER_DEVICE: usize = 1 << 20;

/// Traffic class of initiations and responses: AF41, not ECN-capable.
/// [LNX messages.h:HANDSHAKE_DSCP]
pub const HANDSHAKE_DSCP: u8 = 0x88;

/// MTU of a new interface, in bytes: an Ethernet frame less the overhead over IPv6.
/// [LNX device.c:wg_setup]
pub const DEFAULT_MTU: u16 = 1500 - 80;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn derived_numbers_follow_from_their_definitions() {
        assert_eq!(REJECT_AFTER_MESSAGES, 18_446_744_073_709_543_486);
        assert_eq!(REKEY_TIMEOUT * MAX_TIMER_HANDSHAKES, REKEY_ATTEMPT_TIME);
        assert_eq!(NEW_HANDSHAKE_TIMEOUT, KEEPALIVE_TIMEOUT + REKEY_TIMEOUT);
        assert_eq!(
            REKEY_ON_RECEIVE_AFTER_TIME,
            REJECT_AFTER_TIME - KEEPALIVE_TIMEOUT - REKEY_TIMEOUT
        );
        assert_eq!(ZERO_KEYS_AFTER_TIME, 3 * REJECT_AFTER_TIME);
    }
}
