//! The whitened TAI64N timestamp of an initiation. [WG §5.1, §5.4.2]

use crate::time::Wall;

/// Length of a [`Timestamp`], in bytes.
pub const TIMESTAMP_BYTES: usize = 12;

/// TAI64 label of the Unix epoch, ten leap seconds included. [LNX noise.c:tai64n_now]
const EPOCH: u64 = 0x4000_0000_0000_000a;

/// Nanoseconds are rounded down to this multiple, so that the timestamp does not leak timing.
const WHITENING: u32 = 1 << 24;

/// A big-endian timestamp; its byte order is its time order.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Timestamp([u8; TIMESTAMP_BYTES]);

impl Timestamp {
    pub fn from_wall(wall: Wall) -> Self {
        let mut bytes = [0; TIMESTAMP_BYTES];
        bytes[..8].copy_from_slice(&EPOCH.wrapping_add(wall.secs).to_be_bytes());
        bytes[8..].copy_from_slice(&(wall.nanos & !(WHITENING - 1)).to_be_bytes());
        Self(bytes)
    }

    /// The time that it stands for; 1970 if it is before that.
    pub fn wall(self) -> Wall {
        let [secs @ .., n0, n1, n2, n3] = self.0;
        let secs = u64::from_be_bytes(secs).saturating_sub(EPOCH);
        Wall { secs, nanos: u32::from_be_bytes([n0, n1, n2, n3]) }
    }

    /// The least whitened timestamp that is greater.
    pub fn successor(self) -> Self {
        let [secs @ .., n0, n1, n2, n3] = self.0;
        let secs = u64::from_be_bytes(secs);
        let nanos = (u32::from_be_bytes([n0, n1, n2, n3]) & !(WHITENING - 1)) + WHITENING;
        let (secs, nanos) =
            if nanos < 1_000_000_000 { (secs, nanos) } else { (secs.saturating_add(1), 0) };
        let mut bytes = [0; TIMESTAMP_BYTES];
        bytes[..8].copy_from_slice(&secs.to_be_bytes());
        bytes[8..].copy_from_slice(&nanos.to_be_bytes());
        Self(bytes)
    }

    pub const fn from_bytes(bytes: [u8; TIMESTAMP_BYTES]) -> Self {
        Self(bytes)
    }

    pub const fn as_bytes(&self) -> &[u8; TIMESTAMP_BYTES] {
        &self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nanoseconds_are_whitened_to_sixteen_milliseconds() {
        let stamp = Timestamp::from_wall(Wall { secs: 1_700_000_001, nanos: 250_000_000 });
        assert_eq!(
            stamp.as_bytes()[..8],
            (0x4000_0000_0000_000a_u64 + 1_700_000_001).to_be_bytes()
        );
        assert_eq!(
            stamp.as_bytes()[8..],
            (250_000_000_u32 / 16_777_216 * 16_777_216).to_be_bytes()
        );
    }

    #[test]
    fn a_whitened_time_comes_back_from_its_timestamp() {
        let wall = Wall { secs: 1_700_000_001, nanos: 16_777_216 * 3 };
        assert_eq!(Timestamp::from_wall(wall).wall(), wall);
        assert_eq!(Timestamp::default().wall(), Wall::default());
    }

    #[test]
    fn a_successor_is_greater_and_whitened() {
        let last = Timestamp::from_wall(Wall { secs: 7, nanos: 999_999_999 });
        assert_eq!(last.successor(), Timestamp::from_wall(Wall { secs: 8, nanos: 0 }));
        let first = Timestamp::from_wall(Wall { secs: 7, nanos: 0 });
        assert_eq!(first.successor(), Timestamp::from_wall(Wall { secs: 7, nanos: 16_777_216 }));
    }

    #[test]
    fn order_of_timestamps_is_order_of_time() {
        let at = |secs, nanos| Timestamp::from_wall(Wall { secs, nanos });
        assert!(at(1, 0) < at(1, 500_000_000));
        assert!(at(1, 999_999_999) < at(2, 0));
    }
}
