//! The four messages of WireGuard: sizes, field offsets, classification. [WG §5.4]
//!
//! A handshake message is an array of its exact size plus the ranges of its fields; there is no
//! parsed copy of it. Classification looks at the type and the length only: nothing here is
//! authenticated, and nothing here decides whether a message is to be believed.

use std::ops::Range;

/// Length of a message's type: one byte of type and three reserved ones, which must be zero.
const TYPE_BYTES: usize = 4;

pub const TYPE_INITIATION: u32 = 1;
pub const TYPE_RESPONSE: u32 = 2;
pub const TYPE_COOKIE_REPLY: u32 = 3;
pub const TYPE_TRANSPORT: u32 = 4;

/// Length of a handshake initiation, in bytes.
pub const INITIATION_BYTES: usize = 148;

/// Length of a handshake response, in bytes.
pub const RESPONSE_BYTES: usize = 92;

/// Length of a cookie reply, in bytes.
pub const COOKIE_REPLY_BYTES: usize = 64;

/// Length of the header in front of a transport message's ciphertext, in bytes.
pub const TRANSPORT_HEADER_BYTES: usize = 16;

/// Length of the tag at the end of a transport message, in bytes.
pub const TRANSPORT_TAG_BYTES: usize = 16;

/// What a transport message adds to the padded packet in it, in bytes.
pub const TRANSPORT_OVERHEAD_BYTES: usize = TRANSPORT_HEADER_BYTES + TRANSPORT_TAG_BYTES;

/// Length of a keepalive: a transport message with nothing in it, in bytes.
pub const KEEPALIVE_BYTES: usize = TRANSPORT_OVERHEAD_BYTES;

/// Where the two MACs are, in bytes from the end of an initiation or response. [WG §5.4.4]
pub const MACS_BYTES: usize = 32;

/// Fields of a handshake initiation. [WG §5.4.2]
pub mod initiation {
    use super::Range;

    pub const SENDER: Range<usize> = 4..8;
    pub const EPHEMERAL: Range<usize> = 8..40;
    /// The static key and its tag.
    pub const STATIC: Range<usize> = 40..88;
    /// The timestamp and its tag.
    pub const TIMESTAMP: Range<usize> = 88..116;
    pub const MAC1: Range<usize> = 116..132;
    pub const MAC2: Range<usize> = 132..148;
}

/// Fields of a handshake response. [WG §5.4.3]
pub mod response {
    use super::Range;

    pub const SENDER: Range<usize> = 4..8;
    pub const RECEIVER: Range<usize> = 8..12;
    pub const EPHEMERAL: Range<usize> = 12..44;
    /// The tag of nothing.
    pub const EMPTY: Range<usize> = 44..60;
    pub const MAC1: Range<usize> = 60..76;
    pub const MAC2: Range<usize> = 76..92;
}

/// Fields of a cookie reply. [WG §5.4.7]
pub mod cookie_reply {
    use super::Range;

    pub const RECEIVER: Range<usize> = 4..8;
    pub const NONCE: Range<usize> = 8..32;
    /// The cookie and its tag.
    pub const COOKIE: Range<usize> = 32..64;
}

/// Fields of a transport message. [WG §5.4.6]
pub mod transport {
    use super::Range;

    pub const RECEIVER: Range<usize> = 4..8;
    pub const COUNTER: Range<usize> = 8..16;
}

/// A datagram that has the type and the length of one of the four messages.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Message<'a> {
    Initiation(&'a [u8; INITIATION_BYTES]),
    Response(&'a [u8; RESPONSE_BYTES]),
    CookieReply(&'a [u8; COOKIE_REPLY_BYTES]),
    /// At least [`KEEPALIVE_BYTES`] long; receiver and counter as the header has them.
    Transport {
        receiver: u32,
        counter: u64,
    },
}

/// Which message `datagram` is, or `None` if it is none.
pub fn classify(datagram: &[u8]) -> Option<Message<'_>> {
    match u32::from_le_bytes(*datagram.first_chunk::<TYPE_BYTES>()?) {
        TYPE_INITIATION => datagram.try_into().ok().map(Message::Initiation),
        TYPE_RESPONSE => datagram.try_into().ok().map(Message::Response),
        TYPE_COOKIE_REPLY => datagram.try_into().ok().map(Message::CookieReply),
        TYPE_TRANSPORT if datagram.len() >= KEEPALIVE_BYTES => {
            let receiver = datagram.get(transport::RECEIVER)?.try_into().ok()?;
            let counter = datagram.get(transport::COUNTER)?.try_into().ok()?;
            Some(Message::Transport {
                receiver: u32::from_le_bytes(receiver),
                counter: u64::from_le_bytes(counter),
            })
        }
        _ => None,
    }
}

/// Writes the header of a transport message.
pub fn write_transport_header(out: &mut [u8; TRANSPORT_HEADER_BYTES], receiver: u32, counter: u64) {
    out[..TYPE_BYTES].copy_from_slice(&TYPE_TRANSPORT.to_le_bytes());
    out[transport::RECEIVER].copy_from_slice(&receiver.to_le_bytes());
    out[transport::COUNTER].copy_from_slice(&counter.to_le_bytes());
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn typed(first: [u8; 4], length: usize) -> Vec<u8> {
        let mut datagram = vec![0xaa; length];
        let kept = length.min(4);
        datagram[..kept].copy_from_slice(&first[..kept]);
        datagram
    }

    #[test]
    fn handshake_messages_have_exactly_their_length() {
        for length in 0..300 {
            let found = |kind| classify(&typed([kind, 0, 0, 0], length)).is_some();
            assert_eq!(found(1), length == 148);
            assert_eq!(found(2), length == 92);
            assert_eq!(found(3), length == 64);
            assert_eq!(found(4), length >= 32);
        }
    }

    #[test]
    fn the_reserved_bytes_belong_to_the_type() {
        for (kind, length) in [(1, 148), (2, 92), (3, 64), (4, 32)] {
            for reserved in 1..4 {
                let mut first = [kind, 0, 0, 0];
                first[reserved] = 1;
                assert_eq!(classify(&typed(first, length)), None);
            }
        }
        for kind in [0, 5, 6, 255] {
            assert_eq!(classify(&typed([kind, 0, 0, 0], 148)), None);
        }
    }

    #[test]
    fn fields_fill_each_message_without_gaps() {
        let gapless = |fields: &[Range<usize>], size| {
            let mut at = TYPE_BYTES;
            for field in fields {
                assert_eq!(field.start, at);
                at = field.end;
            }
            assert_eq!(at, size);
        };
        use initiation as i;
        let fields = [i::SENDER, i::EPHEMERAL, i::STATIC, i::TIMESTAMP, i::MAC1, i::MAC2];
        gapless(&fields, INITIATION_BYTES);
        use response as r;
        let fields = [r::SENDER, r::RECEIVER, r::EPHEMERAL, r::EMPTY, r::MAC1, r::MAC2];
        gapless(&fields, RESPONSE_BYTES);
        use cookie_reply as c;
        gapless(&[c::RECEIVER, c::NONCE, c::COOKIE], COOKIE_REPLY_BYTES);
        gapless(&[transport::RECEIVER, transport::COUNTER], TRANSPORT_HEADER_BYTES);
        assert_eq!(INITIATION_BYTES - i::MAC1.start, MACS_BYTES);
        assert_eq!(RESPONSE_BYTES - r::MAC1.start, MACS_BYTES);
    }

    proptest! {
        #[test]
        fn a_written_header_is_read_back(receiver: u32, counter: u64, body in 16_usize..100) {
            let mut datagram = vec![0; TRANSPORT_HEADER_BYTES + body];
            let header = datagram.first_chunk_mut().unwrap();
            write_transport_header(header, receiver, counter);
            let expected = Message::Transport { receiver, counter };
            prop_assert_eq!(classify(&datagram), Some(expected));
        }

        #[test]
        fn no_datagram_makes_classification_panic(
            datagram in proptest::collection::vec(any::<u8>(), 0..200),
            kind in 0_u8..6,
        ) {
            let mut datagram = datagram;
            if let Some(first) = datagram.first_chunk_mut::<4>() {
                *first = [kind, 0, 0, 0];
            }
            if classify(&datagram).is_some() {
                prop_assert!((1..=4).contains(&kind));
            }
        }
    }
}
