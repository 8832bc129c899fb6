//! What a host does with packets for its own addresses, where the tunnel has addresses and no kernel:
//! pings are answered, exposed ports lead to what is behind them, and the others are closed.

use std::net::SocketAddr;

use crate::flow::engine::Engine;
use crate::flow::gate::Request;
use crate::flow::inner::{Inner, answer_echo, ip_header_bytes, write_udp};
use crate::proto::drop_reason::DropReason;
use crate::proto::peer::PeerId;
use crate::time::Instant;
use crate::wire::transport::UDP_HEADER_BYTES;

/// The longest content of a UDP datagram over IPv4, which is the shorter one.
const LONGEST_CONTENT_BYTES: usize = 65_507;

impl Engine {
    /// Takes a datagram of `peer`'s for an address of the tunnel.
    pub(super) fn take_own_datagram(
        &mut self,
        now: Instant,
        peer: PeerId,
        inner: &Inner<'_>,
    ) -> Result<(), DropReason> {
        let (from, to, content) = inner.udp().ok_or(DropReason::FlowMalformed)?;
        match self.switch.deliver(to, content, SocketAddr::new(inner.source, from)) {
            Some(true) => Ok(()),
            Some(false) => Err(DropReason::FlowOverflow),
            None => self.udp.carry_exposed(&mut self.common, now, peer, inner),
        }
    }

    /// Answers a ping of one of the tunnel's own addresses.
    pub(super) fn answer_ping(
        &mut self,
        peer: PeerId,
        inner: &Inner<'_>,
    ) -> Result<(), DropReason> {
        let common = &mut self.common;
        let is_v4 = inner.source.is_ipv4();
        let mut answer = vec![0; ip_header_bytes(is_v4) + inner.payload.len()];
        let id = common.next_ids(1);
        answer_echo(&mut answer, inner, id as u16).ok_or(DropReason::FlowMalformed)?;
        common.send_fitting(peer, answer);
        Ok(())
    }

    /// Does what this host itself has asked for.
    pub(super) fn take_requests(&mut self, now: Instant) {
        for request in self.switch.take_requests() {
            let common = &mut self.common;
            match request {
                Request::Connect { to, answer } => self.streams.connect(common, now, to, answer),
                Request::Carry { token, stream, already } => {
                    self.streams.join(common, token, stream, already);
                }
                Request::Abort { token } => self.streams.abort(common, token),
                Request::Send { from, to, payload } => {
                    if let Err(reason) = self.send_datagram(from, to, &payload) {
                        self.common.drop(reason);
                    }
                }
            }
        }
    }

    fn send_datagram(
        &mut self,
        from: u16,
        to: SocketAddr,
        content: &[u8],
    ) -> Result<(), DropReason> {
        let common = &mut self.common;
        let peer = common.tables.route(to.ip()).ok_or(DropReason::FlowRefused)?;
        let own = common.settings.source_for(to.ip()).ok_or(DropReason::FlowRefused)?;
        if common.settings.owns(to.ip()) || content.len() > LONGEST_CONTENT_BYTES {
            return Err(DropReason::FlowRefused);
        }
        let headers = ip_header_bytes(to.is_ipv4()) + UDP_HEADER_BYTES;
        let mut packet = vec![0; headers + content.len()];
        packet[headers..].copy_from_slice(content);
        let id = common.next_ids(1);
        write_udp(&mut packet, SocketAddr::new(own, from), to, id as u16)
            .ok_or(DropReason::FlowRefused)?;
        common.send_fitting(peer, packet);
        Ok(())
    }
}
