//! What all kinds of flows have to do with: settings, sockets that are watched, deadlines, limits,
//! and the packets that wait for peers.

use std::collections::{HashMap, VecDeque};
use std::net::IpAddr;
use std::os::fd::AsFd;
use std::sync::Arc;
use std::time::Duration;

use tracing::{info, warn};

use crate::dataplane::tables::Tables;
use crate::flow::deadlines::Deadlines;
use crate::flow::inner::cut_v6;
use crate::flow::limits::{Limit, Limits};
use crate::flow::policy::{Destination, Service};
use crate::flow::slots::Token;
use crate::flow::switch::Settings;
use crate::packet::batch::IpBatch;
use crate::packet::slab::HEADROOM;
use crate::proto::drop_reason::DropReason;
use crate::proto::peer::PeerId;
use crate::sys::SysError;
use crate::sys::poll::{Interest, Poller};
use crate::time::{Instant, TokenBucket};
use crate::wire::icmp::{self, Problem, Told};
use crate::wire::vnet::VnetHeader;
use crate::wire::{fragment, ip};

/// Packets that may wait for peers, and their bytes: those of the largest batch that a shard receives.
const WAITING_PACKETS: usize = 4096;
const WAITING_BYTES: usize = 8 << 20;

/// How often a line says the same.
const LOG_INTERVAL: Duration = Duration::from_secs(10);

/// What lines are about, one of which silences no other.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Topic {
    Limit(Limit),
    NoSocket(&'static str),
}

/// A packet, or a super-packet, as it stands in a batch.
#[derive(Debug, Default)]
pub(super) struct Parcel {
    pub bytes: Vec<u8>,
    pub vnet: VnetHeader,
    /// Packets in it.
    pub count: usize,
}

/// See the module.
#[derive(Debug)]
pub(super) struct Common {
    pub settings: Arc<Settings>,
    pub tables: Arc<Tables>,
    pub limits: Limits,
    pub deadlines: Deadlines,
    /// Flows that may have something for their peers.
    pub ready: VecDeque<Token>,
    pub poller: Poller,
    waiting: VecDeque<Parcel>,
    waiting_bytes: usize,
    lines: HashMap<Topic, TokenBucket>,
    /// Of the next packet that may be cut.
    next_id: u32,
}

impl Common {
    pub fn new(
        settings: Arc<Settings>,
        tables: Arc<Tables>,
        limits: Limits,
    ) -> Result<Self, SysError> {
        let mut common = Self {
            settings: Arc::clone(&settings),
            tables,
            limits,
            deadlines: Deadlines::default(),
            ready: VecDeque::new(),
            poller: Poller::new()?,
            waiting: VecDeque::new(),
            waiting_bytes: 0,
            lines: HashMap::new(),
            next_id: 0,
        };
        common.set(settings);
        Ok(common)
    }

    /// Has `token` told of what happens on `socket`.
    pub fn watch(
        &self,
        socket: impl AsFd,
        token: Token,
        interest: Interest,
    ) -> Result<(), SysError> {
        self.poller.add(socket.as_fd(), token.number(), interest)
    }

    /// Whether a peer may reach `service` at `address`.
    pub fn allows(&self, address: IpAddr, service: Service) -> bool {
        let destination = Destination { address, service };
        self.settings.policy.judge(destination, &self.settings.host).is_ok()
    }

    /// Says that `limit` was met, not often: by a peer, or by this host itself.
    pub fn met(
        &mut self,
        now: Instant,
        peer: impl Into<Option<PeerId>>,
        limit: Limit,
    ) -> DropReason {
        if self.may_say(now, Topic::Limit(limit)) {
            let path = peer.into().and_then(|peer| self.tables.peer(peer));
            let peer = path.map(|path| path.public_key);
            warn!(?peer, %limit, "no more of them: new flows are dropped");
        }
        DropReason::FlowLimit
    }

    /// Says that no socket could be had for `what`, not often. That there is no way is no news.
    pub fn cannot_open(&mut self, now: Instant, what: &'static str, error: &SysError) {
        let is_usual = error.is_network_unreachable() || error.is_host_unreachable();
        if !is_usual && self.may_say(now, Topic::NoSocket(what)) {
            warn!(%error, "{what} of peers are dropped: this host gives no socket for them");
        }
    }

    fn may_say(&mut self, now: Instant, topic: Topic) -> bool {
        let new = || TokenBucket::new(1, LOG_INTERVAL);
        self.lines.entry(topic).or_insert_with(new).take(now)
    }

    /// Puts `settings` in force, for what comes.
    pub fn set(&mut self, settings: Arc<Settings>) {
        self.settings = settings;
        let wanted = self.settings.tuning.max_flows;
        let flows = self.limits.bound(wanted);
        if flows < wanted {
            warn!(
                flows,
                wanted,
                "peers may have fewer flows than wanted: there are not more descriptors \
                 (LimitNOFILE, ulimit -n)"
            );
        } else {
            info!(
                flows,
                "so many flows may peers have, each a quarter of them, or as much as few peers leave one another"
            );
        }
    }

    /// Tells `peer` that there is a `problem` with a packet of its own.
    pub fn refuse(&mut self, now: Instant, peer: PeerId, packet: &[u8], problem: Problem) {
        // Who drops a packet because of its hops, or its size, is the next hop: this host.
        let is_own = matches!(problem, Problem::HopsExhausted | Problem::TooBig(_));
        let source = ip::IpHeader::parse(packet).map(|header| header.source);
        let from = source.filter(|_| is_own).and_then(|source| self.settings.name(source));
        self.complain(now, peer, |out| icmp::refuse(packet, from, problem, out));
    }

    /// Tells `peer` what somebody has `told` about a packet of its own.
    pub fn pass_on(&mut self, now: Instant, peer: PeerId, packet: &[u8], told: Told) {
        self.complain(now, peer, |out| icmp::pass_on(packet, told, out));
    }

    fn complain(
        &mut self,
        now: Instant,
        peer: PeerId,
        write: impl FnOnce(&mut [u8; icmp::REPLY_BYTES]) -> Option<usize>,
    ) {
        let mut out = [0; icmp::REPLY_BYTES];
        if let Some(len) = write(&mut out)
            && self.limits.may_complain(now, peer)
        {
            self.send(out[..len].to_vec());
        }
    }

    /// Has `packet` wait for its peer.
    pub fn send(&mut self, packet: Vec<u8>) {
        let parcel = Parcel { bytes: packet, count: 1, ..Parcel::default() };
        self.wait(parcel, WAITING_PACKETS, WAITING_BYTES);
    }

    /// As [`Self::send`], of what another peer has sent: it leaves room for everybody else.
    pub fn forward(&mut self, parcel: Parcel) {
        self.wait(parcel, WAITING_PACKETS / 2, WAITING_BYTES / 2);
    }

    fn wait(&mut self, parcel: Parcel, most: usize, most_bytes: usize) {
        if self.waiting.len() >= most || self.waiting_bytes >= most_bytes {
            let lost = parcel.count as u64;
            return self.tables.drops.count_many(DropReason::FlowOverflow, lost);
        }
        self.waiting_bytes += parcel.bytes.len();
        self.waiting.push_back(parcel);
    }

    /// Has `packet` wait for `peer`, in one piece where it fits.
    pub fn send_fitting(&mut self, peer: PeerId, packet: Vec<u8>) {
        let is_v4 = packet.first().is_some_and(|byte| byte >> 4 == 4);
        if packet.len() > self.whole_bytes(peer, is_v4) {
            self.send_cut(&packet);
        } else {
            self.send(packet);
        }
    }

    /// Has `packet` wait for its peer, in as many fragments as it takes.
    pub fn send_cut(&mut self, packet: &[u8]) {
        let limit = self.mtu(packet.first().is_some_and(|byte| byte >> 4 == 4));
        if packet.first().is_some_and(|byte| byte >> 4 == 6) {
            let id = self.next_ids(1);
            cut_v6(packet, limit, id).for_each(|fragment| self.send(fragment));
            return;
        }
        let (mut done, mut out) = (0, vec![0; limit]);
        while let Some((len, next)) = fragment::fragment(packet, limit, done, &mut out) {
            self.send(out[..len].to_vec());
            done = next;
        }
    }

    /// The largest packet that gets through to `peer` in one piece, as far as that is known.
    pub fn whole_bytes(&self, peer: PeerId, is_v4: bool) -> usize {
        let mtu = self.tables.mtu();
        let path = self.tables.peer(peer).filter(|_| !is_v4);
        // IPv4 packets of ours are cut again by the shard, if they must be.
        let mtu = path.map_or(mtu, |path| path.mtu.limit(true).min(mtu));
        usize::try_from(mtu).unwrap_or(usize::MAX)
    }

    /// The largest packet that is sent to peers. IPv6 fragments are of a size that every path takes:
    /// nobody on the way cuts them again.
    pub fn mtu(&self, is_v4: bool) -> usize {
        /// [RFC 8200 §5]
        const IPV6_LEAST: usize = 1280;
        let mtu = usize::try_from(self.tables.mtu()).unwrap_or(usize::MAX).max(68);
        if is_v4 { mtu } else { mtu.min(IPV6_LEAST) }
    }

    /// The first of `count` identifications in a row, for packets that may be cut.
    pub const fn next_ids(&mut self, count: u32) -> u32 {
        let first = self.next_id;
        self.next_id = self.next_id.wrapping_add(count);
        first
    }

    /// Whether something waits for a batch.
    pub fn has_more(&self) -> bool {
        !self.waiting.is_empty() || !self.ready.is_empty()
    }

    /// Moves packets that wait into `batch` until `budget` is used up.
    pub fn fill(&mut self, batch: &mut IpBatch, budget: &mut Budget) {
        while budget.is_left()
            && let Some(slab) = batch.vacant()
        {
            let Some(Parcel { bytes, vnet, .. }) = self.waiting.pop_front() else { return };
            self.waiting_bytes -= bytes.len();
            let Some(room) = slab.get_mut(HEADROOM..HEADROOM + bytes.len()) else { continue };
            room.copy_from_slice(&bytes);
            batch.push(bytes.len(), Ok(vnet));
            budget.take(bytes.len());
        }
    }

    /// Counts the end of a packet for `reason`.
    pub fn drop(&self, reason: DropReason) {
        self.tables.drops.count(reason);
    }
}

/// For whom there is a flow.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Origin {
    /// A peer, who goes through this host.
    Carried,
    /// A peer, who wants something of this host.
    Exposed,
    /// This host itself.
    Own,
}

/// What one call may put into a batch: less than it holds, so that the shard does not take a source
/// that gives what is asked for to be a queue that stands. The last packet may be a super-packet, which
/// fits beyond it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Budget {
    packets: isize,
    bytes: isize,
}

impl Budget {
    pub const fn new() -> Self {
        Self { packets: 24, bytes: 32 << 10 }
    }

    /// Takes half of it away, for later.
    pub const fn set_half_aside(&mut self) -> Self {
        let half = Self { packets: self.packets / 2, bytes: self.bytes / 2 };
        self.packets -= half.packets;
        self.bytes -= half.bytes;
        half
    }

    /// The inverse of [`Self::set_half_aside`].
    pub fn put_back(&mut self, aside: Option<Self>) {
        if let Some(Self { packets, bytes }) = aside {
            self.packets = self.packets.max(0) + packets;
            self.bytes = self.bytes.max(0) + bytes;
        }
    }

    pub const fn is_left(&self) -> bool {
        self.packets > 0 && self.bytes > 0
    }

    pub const fn take(&mut self, bytes: usize) {
        self.packets -= 1;
        // Lossless: no packet is longer than 65,535 bytes.
        self.bytes -= bytes as isize;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_set_aside_is_there_whatever_was_taken_of_the_other_half() {
        let mut budget = Budget::new();
        let aside = budget.set_half_aside();
        budget.take(65_535);
        assert!(!budget.is_left());
        budget.put_back(Some(aside));
        assert!(budget.is_left());
        budget.take(16 << 10);
        assert!(!budget.is_left());
    }
}
