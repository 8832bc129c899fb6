//! Where a TUN stands, and behind it the sockets of this host: an [`IpPort`] that takes packets of peers
//! apart into those for this host's kernel and those that are carried on.
//!
//! ```text
//!                 ┌ for an address of the tunnel ─▶ TUN, or, at a port that is exposed, a flow
//! from a peer ────┼ for somebody in the tunnel ───▶ back into the tunnel
//!                 └ for anybody else ─────────────▶ a flow ─▶ a socket; or TUN, but not for a port
//!                                                   that is exposed, by another address of this host
//! ```
//!
//! Where there is no TUN the addresses of the tunnel are this program's own: see `own`.
//!
//! What is not for the kernel never reaches it, whether it forwards or not. All sockets hang in one
//! epoll set, whose descriptor is the port's: an idle flow costs nothing.

use std::os::fd::{AsFd, BorrowedFd};
use std::sync::Arc;

use crate::dataplane::DATAGRAM_BATCH;
use crate::dataplane::port::IpPort;
use crate::dataplane::tables::Tables;
use crate::flow::common::Parcel;
use crate::flow::engine::{Engine, Fate};
use crate::flow::inner::Inner;
use crate::flow::switch::Switch;
use crate::packet::batch::{IpBatch, PlainBatch, PlainRange};
use crate::packet::coalesce::{Coalescer, Mergeable};
use crate::packet::train::TRAIN_DATAGRAMS;
use crate::proto::drop_reason::DropReason;
use crate::sys::SysError;
use crate::sys::clock;

/// See the module.
pub struct FlowPort {
    /// The kernel's, if the tunnel has an interface.
    inside: Option<Box<dyn IpPort>>,
    engine: Engine,
    /// What of a batch is for the kernel.
    ranges: Vec<PlainRange>,
    /// What of it goes back into the tunnel, which takes it merged.
    returning: Vec<PlainRange>,
    coalescer: Coalescer,
}

impl std::fmt::Debug for FlowPort {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("FlowPort").field("engine", &self.engine).finish_non_exhaustive()
    }
}

impl FlowPort {
    /// A port in front of `inside`, or of nothing, for a device with these `tables`.
    ///
    /// # Errors
    /// No descriptor is left.
    pub fn new(
        inside: Option<Box<dyn IpPort>>,
        tables: Arc<Tables>,
        switch: Arc<Switch>,
    ) -> Result<Self, SysError> {
        let engine = Engine::new(tables, switch, inside.is_some())?;
        if let Some(fd) = inside.as_ref().and_then(|inside| inside.fd()) {
            engine.watch_inside(fd)?;
        }
        let mergeable = Mergeable { tcp: true, udp: true };
        let coalescer = Coalescer::new(mergeable, DATAGRAM_BATCH * TRAIN_DATAGRAMS);
        Ok(Self { inside, engine, ranges: Vec::new(), returning: Vec::new(), coalescer })
    }
}

impl IpPort for FlowPort {
    fn recv(&mut self, batch: &mut IpBatch) -> Result<usize, SysError> {
        let before = batch.count();
        let now = clock::now().mono;
        let has_inside = self.engine.look(now)?;
        self.engine.fill(now, batch);
        let inside = match &mut self.inside {
            Some(inside) if has_inside || inside.fd().is_none() => inside.recv(batch),
            Some(_) | None => Ok(0),
        };
        self.engine.rest()?;
        let count = batch.count() - before;
        // What is in the batch is still to be sent; the next call fails again.
        if count > 0 { Ok(count) } else { inside }
    }

    fn send(&mut self, packets: &mut PlainBatch<'_>) -> Result<usize, SysError> {
        let now = clock::now().mono;
        // What has been said before these packets came holds for them.
        self.engine.follow();
        self.ranges.clear();
        self.returning.clear();
        let (slabs, ranges) = packets.parts();
        for range in ranges {
            let packet = &mut slabs[range.slab][range.start..range.start + range.len];
            match self.engine.take(now, packet) {
                Fate::Kernel => self.ranges.push(*range),
                Fate::Tunnel(len) => self.returning.push(PlainRange { len, ..*range }),
                Fate::Taken => {}
            }
        }
        for group in self.coalescer.plan(slabs, &self.returning) {
            let (vnet, bytes) = group.to_packet(slabs);
            self.engine.forward(Parcel { bytes, vnet, count: group.count() });
        }
        self.engine.settle(now);
        self.engine.rest()?;
        match &mut self.inside {
            Some(inside) if !self.ranges.is_empty() => {
                inside.send(&mut PlainBatch::new(slabs, &self.ranges))
            }
            Some(_) | None => Ok(0),
        }
    }

    fn has_more(&self) -> bool {
        self.engine.has_more()
    }

    fn end(&mut self) {
        self.engine.end(clock::now().mono);
    }

    fn fd(&self) -> Option<BorrowedFd<'_>> {
        Some(self.engine.as_fd())
    }
}

/// The port of a shard that carries nothing on itself: what is not for the kernel it leaves to the shard
/// that does.
pub struct HandingPort {
    inside: Option<Box<dyn IpPort>>,
    tables: Arc<Tables>,
    switch: Arc<Switch>,
    ranges: Vec<PlainRange>,
}

impl std::fmt::Debug for HandingPort {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("HandingPort").field("switch", &self.switch).finish_non_exhaustive()
    }
}

impl HandingPort {
    pub fn new(inside: Option<Box<dyn IpPort>>, tables: Arc<Tables>, switch: Arc<Switch>) -> Self {
        Self { inside, tables, switch, ranges: Vec::new() }
    }
}

impl IpPort for HandingPort {
    fn recv(&mut self, batch: &mut IpBatch) -> Result<usize, SysError> {
        self.inside.as_mut().map_or(Ok(0), |inside| inside.recv(batch))
    }

    fn send(&mut self, packets: &mut PlainBatch<'_>) -> Result<usize, SysError> {
        self.ranges.clear();
        let settings = self.switch.settings();
        let (slabs, ranges) = packets.parts();
        for range in ranges {
            let packet = &slabs[range.slab][range.start..range.start + range.len];
            let is_for_kernel = self.inside.is_some()
                && settings.as_ref().is_none_or(|settings| {
                    settings.is_for_kernel(packet, Inner::parse(packet).as_ref())
                });
            if is_for_kernel {
                self.ranges.push(*range);
            } else if !self.switch.hand_over(packet) {
                self.tables.drops.count(DropReason::FlowOverflow);
            }
        }
        match &mut self.inside {
            Some(inside) if !self.ranges.is_empty() => {
                inside.send(&mut PlainBatch::new(slabs, &self.ranges))
            }
            Some(_) | None => Ok(0),
        }
    }

    fn fd(&self) -> Option<BorrowedFd<'_>> {
        self.inside.as_ref()?.fd()
    }
}

#[cfg(test)]
mod tests {
    use std::net::SocketAddr;

    use super::*;
    use crate::flow::inner::write_udp;
    use crate::flow::switch::Settings;
    use crate::packet::slab::{HEADROOM, Slab};
    use crate::packet::split::Splitter;
    use crate::proto::allowed_ips::AllowedIps;
    use crate::proto::peer::PeerId;

    #[test]
    fn what_peers_say_to_each_other_goes_back_in_one_piece_and_has_made_a_hop() {
        let tables = Arc::new(Tables::new());
        let mut allowed = AllowedIps::new();
        for peer in 1..4 {
            allowed.insert(format!("10.10.0.{peer}/32").parse().unwrap(), PeerId(peer));
        }
        tables.set_routes(allowed.routes());
        let settings = Settings { carries: true, ..Settings::default() };
        let switch = Arc::new(Switch::new(settings).unwrap());
        let mut port = FlowPort::new(None, tables, switch).unwrap();
        let address = |peer| SocketAddr::from(([10, 10, 0, peer], 4000));
        // Two peers speak to a third, by turns.
        let mut slabs: Vec<Slab> = (0..6).map(|_| Slab::new()).collect();
        let mut ranges = Vec::new();
        for (n, slab) in (0_u8..).zip(&mut slabs) {
            let packet = &mut slab[HEADROOM..HEADROOM + 1028];
            packet[28..].fill(n);
            write_udp(packet, address(1 + n % 2), address(3), u16::from(n / 2)).unwrap();
            ranges.push(PlainRange { slab: n.into(), start: HEADROOM, len: 1028 });
        }
        assert_eq!(port.send(&mut PlainBatch::new(&mut slabs, &ranges)).unwrap(), 0);
        let mut batch = IpBatch::with_capacity(8, 1 << 20);
        assert_eq!(port.recv(&mut batch).unwrap(), 2);
        for position in 0..2 {
            let (packet, vnet) = batch.packet(position);
            let mut packets = Splitter::new(packet, &vnet.unwrap()).unwrap();
            for n in 0..3 {
                let inner = Inner::parse(packets.next().unwrap()).unwrap();
                let (_, _, content) = inner.udp().expect("a right checksum");
                assert_eq!((inner.hops, content), (63, &[2 * n + position as u8; 1000][..]));
            }
            assert!(packets.next().is_none());
        }
    }
}
