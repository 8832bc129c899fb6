//! A send buffer of datagrams for one peer that one system call can carry.
//!
//! All datagrams have equal length; only the last may be shorter, and closes the train. Such a
//! buffer is what `UDP_SEGMENT` sends; without that, its datagrams go one by one. A train never
//! mixes destinations or traffic classes, because both are said once a call.

use crate::packet::slab::Slab;
use crate::proto::endpoint::Endpoint;

/// Most bytes of one train: the longest UDP payload over IPv4.
pub const TRAIN_BYTES: usize = 65_507;

/// Most datagrams of one train, as kernels before 6.9 allow. [LNX udp.h:UDP_MAX_SEGMENTS]
pub const TRAIN_DATAGRAMS: usize = 64;

/// Datagrams for one destination, and what became of them.
#[derive(Debug)]
pub struct Train {
    buffer: Slab,
    to: Endpoint,
    traffic_class: u8,
    extent: Extent,
    refused: usize,
    refused_bytes: usize,
    source_lost: bool,
    is_probe: bool,
}

/// How far a train goes.
#[derive(Clone, Copy, Debug, Default)]
struct Extent {
    stride: usize,
    len: usize,
    count: usize,
}

impl Extent {
    const fn admits(self, len: usize) -> bool {
        let closed = self.len != self.count * self.stride;
        len > 0
            && !closed
            && (self.count == 0 || len <= self.stride)
            && self.count < TRAIN_DATAGRAMS
            && self.len + len <= TRAIN_BYTES
    }
}

/// The end of a train, where datagrams are appended that can all be written to at once.
#[derive(Debug)]
pub struct Appender<'t> {
    vacant: &'t mut [u8],
    extent: &'t mut Extent,
}

impl<'t> Appender<'t> {
    /// Appends a datagram of `len` bytes and returns where to write it.
    ///
    /// `None`, and no change, unless the train [admits](Train::admits) it.
    pub fn append(&mut self, len: usize) -> Option<&'t mut [u8]> {
        if !self.extent.admits(len) {
            return None;
        }
        if self.extent.count == 0 {
            self.extent.stride = len;
        }
        self.extent.len += len;
        self.extent.count += 1;
        self.vacant.split_off_mut(..len)
    }
}

impl Train {
    /// An empty train; nothing can be appended before [`Self::start`].
    #[expect(clippy::new_without_default, reason = "64 KB are no default value")]
    pub fn new() -> Self {
        Self {
            buffer: Slab::new(),
            to: Endpoint { remote: std::net::SocketAddr::from(([0; 4], 0)), local: None },
            traffic_class: 0,
            extent: Extent { stride: 0, len: 0, count: 0 },
            refused: 0,
            refused_bytes: 0,
            source_lost: false,
            is_probe: false,
        }
    }

    /// Empties the train for datagrams to `to`, marked with `traffic_class` (DSCP and ECN).
    pub const fn start(&mut self, to: Endpoint, traffic_class: u8) {
        self.to = to;
        self.traffic_class = traffic_class;
        self.extent = Extent { stride: 0, len: 0, count: 0 };
        (self.refused, self.refused_bytes) = (0, 0);
        (self.source_lost, self.is_probe) = (false, false);
    }

    /// Lets nobody cut its one datagram on the way.
    pub const fn make_probe(&mut self) {
        self.is_probe = true;
    }

    pub const fn is_probe(&self) -> bool {
        self.is_probe
    }

    /// Whether a datagram of `len` bytes may be appended.
    pub const fn admits(&self, len: usize) -> bool {
        self.extent.admits(len)
    }

    /// Appends a datagram of `len` bytes and returns where to write it.
    ///
    /// `None`, and no change, unless [`Self::admits`] it.
    pub fn append(&mut self, len: usize) -> Option<&mut [u8]> {
        self.appender().append(len)
    }

    /// Where several datagrams can be appended.
    pub fn appender(&mut self) -> Appender<'_> {
        Appender { vacant: &mut self.buffer[self.extent.len..], extent: &mut self.extent }
    }

    pub const fn to(&self) -> Endpoint {
        self.to
    }

    pub const fn traffic_class(&self) -> u8 {
        self.traffic_class
    }

    /// Bytes of each datagram but the last.
    pub const fn stride(&self) -> usize {
        self.extent.stride
    }

    pub const fn count(&self) -> usize {
        self.extent.count
    }

    /// All datagrams, one after the other.
    pub fn bytes(&self) -> &[u8] {
        &self.buffer[..self.extent.len]
    }

    /// The datagram at `position`, which is below [`Self::count`].
    pub fn datagram(&self, position: usize) -> &[u8] {
        let start = position * self.extent.stride;
        &self.buffer[start..self.extent.len.min(start + self.extent.stride)]
    }

    /// Records that the datagram at `position`, which is below [`Self::count`], was not sent.
    pub fn refuse(&mut self, position: usize) {
        self.refused += 1;
        self.refused_bytes += self.datagram(position).len();
    }

    /// Datagrams that were not sent.
    pub const fn refused(&self) -> usize {
        self.refused
    }

    /// Bytes of the datagrams that were sent.
    pub const fn sent_bytes(&self) -> usize {
        self.extent.len.saturating_sub(self.refused_bytes)
    }

    /// Records that the local address of the destination is no longer ours: the train went out
    /// without it, and the peer's should be forgotten.
    pub const fn lose_source(&mut self) {
        self.source_lost = true;
    }

    pub const fn source_lost(&self) -> bool {
        self.source_lost
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn train() -> Train {
        let mut train = Train::new();
        train.start(Endpoint { remote: "192.0.2.1:1".parse().unwrap(), local: None }, 0);
        train
    }

    #[test]
    fn only_the_last_datagram_may_be_shorter() {
        let mut train = train();
        train.append(100).unwrap().fill(1);
        train.append(100).unwrap().fill(2);
        assert!(train.append(101).is_none());
        train.append(60).unwrap().fill(3);
        assert!(train.append(60).is_none(), "a shorter datagram closes the train");
        assert_eq!((train.count(), train.stride(), train.bytes().len()), (3, 100, 260));
        assert_eq!(train.datagram(1), [2; 100]);
        assert_eq!(train.datagram(2), [3; 60]);
    }

    #[test]
    fn datagrams_that_are_appended_together_are_those_of_one_by_one() {
        let mut train = train();
        train.append(100).unwrap().fill(1);
        let mut appender = train.appender();
        let (second, third) = (appender.append(100).unwrap(), appender.append(60).unwrap());
        assert!(appender.append(60).is_none(), "a shorter datagram closes the train");
        third.fill(3);
        second.fill(2);
        assert_eq!((train.count(), train.stride(), train.bytes().len()), (3, 100, 260));
        for (position, byte) in [1, 2, 3].into_iter().enumerate() {
            assert!(train.datagram(position).iter().all(|&found| found == byte));
        }
    }

    #[test]
    fn a_train_stays_within_what_one_call_can_carry() {
        let mut small = train();
        let appended = (0..1000).take_while(|_| small.append(32).is_some()).count();
        assert_eq!(appended, 64);
        let mut large = train();
        let appended = (0..1000).take_while(|_| large.append(1452).is_some()).count();
        assert_eq!(appended, 45, "45 datagrams of an MTU of 1420 are 65,340 bytes");
        assert!(train().append(65_508).is_none());
        assert!(train().append(65_507).is_some());
        assert!(train().append(0).is_none());
    }

    #[test]
    fn refused_datagrams_do_not_count_as_sent() {
        let mut train = train();
        for len in [10, 10, 4] {
            train.append(len).unwrap();
        }
        assert_eq!((train.refused(), train.sent_bytes()), (0, 24));
        train.refuse(0);
        train.refuse(2);
        assert_eq!((train.refused(), train.sent_bytes()), (2, 10));
        train.start(train.to(), 0);
        assert_eq!((train.refused(), train.sent_bytes()), (0, 0));
    }
}
