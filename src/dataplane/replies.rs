//! ICMP towards the senders of packets that do not leave, and how much of it.

use std::num::NonZeroU32;
use std::time::Duration;

use crate::dataplane::port::IpPort;
use crate::packet::batch::{PLAIN_HEADROOM, PlainBatch, PlainRange};
use crate::packet::slab::{SLAB_BYTES, Slab};
use crate::sys::SysError;
use crate::time::{Instant, TokenBucket};
use crate::wire::icmp;

/// Replies of a device in a burst, after a time without any. [RFC 4443 §2.4] [LNX icmp.rst:icmp_msgs_burst]
const REPLY_BURST: u32 = 50;

/// One reply more may be sent each time this has passed: 100 a second. [RFC 1812 §4.3.2.8]
const REPLY_INTERVAL: Duration = Duration::from_millis(10);

/// ICMP replies that wait for the end of the batch, and how many there may be.
#[derive(Debug)]
pub(super) struct Replies {
    slab: [Slab; 1],
    ranges: Vec<PlainRange>,
    tokens: TokenBucket,
}

impl Replies {
    /// Room between the starts of two replies.
    const STRIDE: usize = icmp::REPLY_BYTES + PLAIN_HEADROOM;

    /// For one of so many `shards`.
    pub fn new(shards: NonZeroU32) -> Self {
        let burst = REPLY_BURST.div_ceil(shards.get());
        Self {
            slab: [Slab::new()],
            ranges: Vec::with_capacity(SLAB_BYTES / Self::STRIDE),
            tokens: TokenBucket::new(burst, REPLY_INTERVAL * shards.get()),
        }
    }

    /// Answers `packet` with "unreachable", if it may be answered. [LNX device.c:wg_xmit]
    pub fn unreachable(&mut self, now: Instant, packet: &[u8]) {
        self.push(now, |out| icmp::unreachable(packet, out));
    }

    /// Answers `packet` with "too big", if it may be answered: `mtu` bytes would fit.
    pub fn too_big(&mut self, now: Instant, packet: &[u8], mtu: u16) {
        self.push(now, |out| icmp::too_big(packet, mtu, out));
    }

    fn push(
        &mut self,
        now: Instant,
        write: impl FnOnce(&mut [u8; icmp::REPLY_BYTES]) -> Option<usize>,
    ) {
        let start = PLAIN_HEADROOM + self.ranges.len() * Self::STRIDE;
        let Some(room) = self.slab[0].get_mut(start..) else { return };
        let Some(out) = room.first_chunk_mut() else { return };
        if let Some(len) = write(out)
            && self.tokens.take(now)
        {
            self.ranges.push(PlainRange { slab: 0, start, len });
        }
    }

    /// Delivers what waits.
    ///
    /// # Errors
    /// The port is gone.
    pub fn deliver(&mut self, ip: &mut dyn IpPort) -> Result<(), SysError> {
        if !self.ranges.is_empty() {
            // A reply that is not taken is no loss worth a counter.
            ip.send(&mut PlainBatch::new(&mut self.slab, &self.ranges))?;
            self.ranges.clear();
        }
        Ok(())
    }
}
