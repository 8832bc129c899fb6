//! Why a packet ended: one variant, one counter, one line of documentation.
//!
//! The list below is the only one. [`DropReason::ALL`], the names, the explanations and the
//! counters are made from it, so a new reason shows up in metrics by being written here.
//! Everything on the packet path that refuses a packet returns one of these, and whoever ends the
//! packet counts it, once. Must not carry data of the packet: it is `Copy`, and it is counted, not
//! printed (log it at trace level at most).

use std::sync::atomic::{AtomicU64, Ordering};

macro_rules! drop_reasons {
    ($(#[doc = $explanation:literal] $variant:ident $name:literal,)+) => {
        /// The reason a packet was not processed further.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        #[repr(u8)]
        pub enum DropReason {
            $(#[doc = $explanation] $variant,)+
        }

        impl DropReason {
            /// Every reason, in the order of declaration.
            pub const ALL: [Self; [$($name),+].len()] = [$(Self::$variant),+];

            /// The stable name in snake case, for metrics and JSON.
            pub const fn name(self) -> &'static str {
                match self {
                    $(Self::$variant => $name,)+
                }
            }

            /// One sentence for people: the cause, and the section that demands the drop.
            pub const fn explanation(self) -> &'static str {
                match self {
                    $(Self::$variant => $explanation.trim_ascii(),)+
                }
            }
        }
    };
}

drop_reasons! {
    // Any datagram.
    /// The datagram was longer than the receive buffer, and what was kept of it is worthless.
    DatagramTruncated "datagram_truncated",
    /// The datagram has no known message type, or a length its type cannot have. [WG §5.4]
    BadMessage "bad_message",
    /// The lane to the protocol engine is full of handshake messages. [LNX receive.c:wg_packet_receive]
    LaneFull "lane_full",

    // Handshake messages, before any state is touched.
    /// The first MAC of a handshake message is wrong: its sender does not know our key. [WG §5.4.4]
    InvalidMac1 "invalid_mac1",
    /// Under load, the message had no valid second MAC and was answered by a cookie. [WG §5.4.7]
    CookieSent "cookie_sent",
    /// Under load, the source address sent more handshakes than its share. [WG §5.3]
    RateLimited "rate_limited",

    // Handshake initiations and responses.
    /// A handshake message came while we have no private key to open it with.
    NoPrivateKey "no_private_key",
    /// A key multiplication gave all zeros: a low-order public key. [WG §5.4.2]
    LowOrderKey "low_order_key",
    /// The static key of an initiation could not be decrypted. [WG §5.4.2]
    InvalidStatic "invalid_static",
    /// The static key of an initiation belongs to no configured peer. [WG §5.4.2]
    UnknownPeer "unknown_peer",
    /// The timestamp of an initiation could not be decrypted. [WG §5.4.2]
    InvalidTimestamp "invalid_timestamp",
    /// The timestamp of an initiation is not greater than the greatest seen from the peer. [WG §5.1]
    TimestampReplayed "timestamp_replayed",
    /// The peer's initiations come closer together than 20 ms. [LNX noise.c:wg_noise_handshake_consume_initiation]
    InitiationFlood "initiation_flood",
    /// A response names a receiver index that is none of ours. [WG §5.4.3]
    UnknownHandshakeIndex "unknown_handshake_index",
    /// A response came for a handshake that is not waiting for one. [WG §5.4.3]
    NoHandshake "no_handshake",
    /// The empty payload of a response failed authentication. [WG §5.4.3]
    InvalidEmpty "invalid_empty",

    // Cookie replies.
    /// A cookie reply names a receiver index that is none of ours. [WG §5.4.7]
    UnknownCookieIndex "unknown_cookie_index",
    /// A cookie reply answers no message of ours, or one answered before. [WG §5.4.7]
    UnexpectedCookie "unexpected_cookie",
    /// A cookie reply failed authentication. [WG §5.4.7]
    InvalidCookie "invalid_cookie",

    // Transport data, inbound.
    /// A transport message names a receiver index that is none of ours. [WG §5.4.6]
    UnknownIndex "unknown_index",
    /// The keypair of a transport message is older than 180 s. [WG §6.2]
    KeypairExpired "keypair_expired",
    /// The counter of a transport message has reached the limit of the keypair. [WG §6.2]
    CounterLimit "counter_limit",
    /// A transport message failed authentication. [WG §5.4.6]
    AuthenticationFailed "authentication_failed",
    /// The counter of a transport message was accepted before. [WG §5.4.6]
    CounterReplayed "counter_replayed",
    /// The counter of a transport message is behind the replay window. [WG §5.4.6]
    CounterTooOld "counter_too_old",

    // The packet inside, inbound.
    /// The decrypted packet is neither IPv4 nor IPv6. [WG §5.4.6]
    InnerNotIp "inner_not_ip",
    /// The decrypted packet is shorter than its header says. [WG §5.4.6]
    InnerBadLength "inner_bad_length",
    /// The peer may not use the source address of the decrypted packet. [WG §2]
    SourceNotAllowed "source_not_allowed",
    /// Congestion was marked on the way of a packet that cannot carry the mark. [RFC 6040 §4.2]
    EcnIllegal "ecn_illegal",
    /// The TUN device refused the packet.
    TunWriteFailed "tun_write_failed",

    // Flows of peers that are carried on by sockets of this host.
    /// A peer may not go where the packet was to go.
    FlowDenied "flow_denied",
    /// A peer, or all of them and this host together, have as many flows as they may have, or a peer begins them too fast.
    FlowLimit "flow_limit",
    /// The packet is of a kind that no socket of this host can carry on.
    FlowUnsupported "flow_unsupported",
    /// A header or the checksum of a packet to be carried on is wrong.
    FlowMalformed "flow_malformed",
    /// A fragment overlaps another, is one of too many, is missing others, or is for a port that the kernel has not.
    FlowFragment "flow_fragment",
    /// The packet has made as many hops as it may.
    FlowHops "flow_hops",
    /// This host, or the network behind it, refused to carry on the packet.
    FlowRefused "flow_refused",
    /// A datagram came for a peer from somebody to whom it has sent nothing. [RFC 4787 §5]
    FlowFiltered "flow_filtered",
    /// A TCP segment belongs to no connection.
    FlowUnknown "flow_unknown",
    /// More packets wait for peers than may wait.
    FlowOverflow "flow_overflow",

    // Outbound.
    /// A packet from the TUN device is not IP, or is shorter than its header says.
    OutboundNotIp "outbound_not_ip",
    /// A datagram of our own session, or of our handshake while there is none, came back: the host routes the endpoint into the tunnel. [LNX socket.c:send4]
    RoutingLoop "routing_loop",
    /// No peer has the destination among its allowed IPs. [WG §3]
    NoPeer "no_peer",
    /// The peer for the destination has no known endpoint. [WG §3]
    NoEndpoint "no_endpoint",
    /// Too many packets wait for a session: the oldest of the peer gave way. [LNX send.c:wg_packet_send_staged_packets]
    StagedOverflow "staged_overflow",
    /// The packets that waited for a session were given up with the handshake. [LNX timers.c:wg_expired_retransmit_handshake]
    StagedPurged "staged_purged",
    /// A packet is not what the kernel says about its segmentation or checksum.
    OutboundBadOffload "outbound_bad_offload",
    /// The queue of a flow, or of the TUN device, did not run empty for 30 ms: one packet of many was dropped for their sender to slow down. [RFC 8289]
    QueueStanding "queue_standing",
    /// The packet does not fit into a datagram.
    OutboundTooBig "outbound_too_big",
    /// The packet does not fit the path to its peer, and its sender does not let it be cut: he was told what fits. [RFC 1191] [RFC 8201]
    OutboundBeyondPath "outbound_beyond_path",
    /// The UDP socket refused the datagram.
    UdpSendFailed "udp_send_failed",
    /// The peer was removed while its packet was on the way.
    PeerRemoved "peer_removed",
}

/// A counter a reason.
///
/// Ordering: relaxed; the counts are statistics and order nothing.
#[derive(Debug)]
pub struct Drops([AtomicU64; DropReason::ALL.len()]);

impl Drops {
    pub const fn new() -> Self {
        Self([const { AtomicU64::new(0) }; DropReason::ALL.len()])
    }

    /// Counts one packet dropped for `reason`.
    pub fn count(&self, reason: DropReason) {
        self.count_many(reason, 1);
    }

    /// Counts `packets` packets dropped for `reason`.
    pub fn count_many(&self, reason: DropReason, packets: u64) {
        self.0[reason as usize].fetch_add(packets, Ordering::Relaxed);
    }

    /// How many packets were dropped for `reason`.
    pub fn get(&self, reason: DropReason) -> u64 {
        self.0[reason as usize].load(Ordering::Relaxed)
    }

    /// How many packets were dropped for any reason.
    pub fn total(&self) -> u64 {
        self.iter().map(|(_, packets)| packets).sum()
    }

    /// Every reason with its count, in the order of [`DropReason::ALL`].
    pub fn iter(&self) -> impl Iterator<Item = (DropReason, u64)> + '_ {
        DropReason::ALL.into_iter().map(|reason| (reason, self.get(reason)))
    }
}

impl Default for Drops {
    fn default() -> Self {
        Self::new()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_reason_has_its_own_counter_and_its_place_in_the_list() {
        let drops = Drops::new();
        for (place, reason) in DropReason::ALL.into_iter().enumerate() {
            assert_eq!(reason as usize, place);
            drops.count_many(reason, place as u64);
            drops.count(reason);
        }
        for (place, (reason, packets)) in drops.iter().enumerate() {
            assert_eq!(packets, place as u64 + 1, "{reason:?}");
        }
        let n = DropReason::ALL.len() as u64;
        assert_eq!(drops.total(), n * (n + 1) / 2);
    }

    #[test]
    fn a_name_is_the_variant_in_snake_case() {
        for reason in DropReason::ALL {
            let mut snake = String::new();
            for letter in format!("{reason:?}").chars() {
                if letter.is_ascii_uppercase() && !snake.is_empty() {
                    snake.push('_');
                }
                snake.push(letter.to_ascii_lowercase());
            }
            assert_eq!(reason.name(), snake);
        }
    }

    #[test]
    fn every_reason_is_explained_by_one_full_sentence() {
        for reason in DropReason::ALL {
            let sentence = reason.explanation();
            assert!(sentence.starts_with(|c: char| c.is_ascii_uppercase()), "{reason:?}");
            assert!(sentence.ends_with(['.', ']']), "{reason:?}");
            assert!(sentence.len() >= 20, "{reason:?}");
        }
    }
}
