//! A connection, from its SYN to its end: states, and what its user does with it. [RFC 9293 §3.3.2]
//!
//! ```text
//! connect ▶ SynSent ─┐                          ┌▶ FinWait1 ─▶ FinWait2 ─▶ TimeWait ─▶ Closed
//!                    ├▶ SynReceived ▶ Established      └──▶ Closing ──────────┘          ▲
//! accept ────────────┘       (SynSent ▶ too)    └▶ CloseWait ─▶ LastAck ─────────────────┘
//! ```
//!
//! Segments come in by `input.rs`, and leave by `output.rs`. It has no clock, no socket and no thread:
//! whoever drives it gives it segments and the time, and asks it for packets and for its next
//! deadline after each. It must not panic on any segment, nor hold more than its share of memory.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use super::congestion::Congestion;
use super::options::{Options, TIMESTAMPS_BYTES};
use super::receiver::Receiver;
use super::segment::{Header, Segment, Syn};
use super::sender::{Agreed, Sender};
use super::sequence::{extend, first};
use super::stack::Stack;
use super::timestamps::{Clock, Recent};
use crate::time::Instant;
use crate::wire::mss::{LOWEST_MSS_V4, LOWEST_MSS_V6};
use crate::wire::transport::{ACK, RST, SYN};

/// How long a connection that we ended first is remembered: twice the longest life of a segment.
/// [LNX tcp.h:TCP_TIMEWAIT_LEN]
pub(super) const TIME_WAIT: Duration = Duration::from_secs(60);

/// How long a SYN waits for its answer at first. [RFC 6298 §2.1]
const INITIAL_SYN_TIMEOUT: Duration = Duration::from_secs(1);

/// Who asks for smaller segments than this wants us to work, not to be understood. (CVE-2019-11479)
const MIN_MSS: u16 = 128;

/// What a connection may have unsent while memory is short, in bytes.
const PRESSED_QUEUE_BYTES: usize = 16 << 10;

/// The states of RFC 9293; `Closed` is the end, and `Listen` the matter of whoever accepts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    SynSent,
    SynReceived,
    Established,
    FinWait1,
    FinWait2,
    CloseWait,
    Closing,
    LastAck,
    TimeWait,
    Closed,
}

/// Why a connection is over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// Both ends had said all they had to say.
    Closed,
    /// The other end has reset it.
    Reset,
    /// The other end did not want it.
    Refused,
    /// The other end was not heard of for too long.
    TimedOut,
    /// The network said that there is no way to the other end.
    Unreachable,
    /// By our own user.
    Aborted,
}

/// What has happened since the last time that somebody asked.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Events {
    pub established: bool,
    /// There is more to read.
    pub readable: bool,
    /// There is room again, where a write had found too little.
    pub writable: bool,
    /// The other end sends no more; what it had sent may still have to be read.
    pub peer_closed: bool,
}

/// A SYN, with or without ACK, that is not answered yet.
#[derive(Clone, Copy, Debug)]
pub(super) struct Handshake {
    pub started_at: Instant,
    pub sent_at: Instant,
    /// When to send it again.
    pub next_at: Instant,
    pub tries: u32,
    pub is_due: bool,
}

/// One TCP connection.
#[derive(Debug)]
pub struct Connection {
    pub(super) stack: Arc<Stack>,
    pub(super) local: SocketAddr,
    pub(super) remote: SocketAddr,
    pub(super) state: State,
    pub(super) sender: Sender,
    pub(super) receiver: Receiver,
    pub(super) clock: Clock,
    /// If both ends use timestamps.
    pub(super) recent: Option<Recent>,
    pub(super) has_sack: bool,
    /// By how much the other end shifts its windows; `None`: neither does.
    pub(super) remote_scale: Option<u8>,
    pub(super) remote_mss: u16,
    /// The largest packet, in bytes; lowered by what routers say.
    pub(super) mtu: u32,
    pub(super) handshake: Handshake,
    pub(super) events: Events,
    /// A write found too little room.
    pub(super) wants_room: bool,
    pub(super) end: Option<End>,
    /// The sequence number of a RST that is to be sent.
    pub(super) rst: Option<u32>,
    pub(super) heard_at: Instant,
    /// Keepalive probes since, and when the last was due.
    pub(super) probes: u8,
    probed_at: Instant,
    pub(super) is_probe_due: bool,
    pub(super) time_wait_until: Option<Instant>,
    /// When a segment that did not fit was answered last.
    pub(super) challenged_at: Option<Instant>,
    /// What the last acknowledgment that was sent said.
    pub(super) last_acknowledged: u64,
    /// What the stack believes that we hold, in bytes.
    charged: usize,
}

impl Connection {
    /// Answers `syn`: SYN-RECEIVED.
    pub fn accept(now: Instant, stack: &Arc<Stack>, syn: &Syn) -> Self {
        let mut made = Self::new(now, stack, syn.local, syn.remote, State::SynReceived);
        made.on_remote_syn(now, syn.sequence, &syn.options);
        made
    }

    /// Asks `remote` for a connection: SYN-SENT. Both addresses are of one family.
    pub fn connect(
        now: Instant,
        stack: &Arc<Stack>,
        local: SocketAddr,
        remote: SocketAddr,
    ) -> Self {
        Self::new(now, stack, local, remote, State::SynSent)
    }

    fn new(
        now: Instant,
        stack: &Arc<Stack>,
        local: SocketAddr,
        remote: SocketAddr,
        state: State,
    ) -> Self {
        let config = &stack.config;
        let isn = stack.initial_sequence(now, local, remote);
        let start = first(isn) + 1;
        let clock = Clock { offset: stack.timestamp_offset(local.ip(), remote.ip()) };
        let agreed = Agreed { mss: u64::from(lowest_mss(local)), has_sack: false };
        let congestion = Congestion::new(config.congestion, agreed.mss, isn);
        let handshake =
            Handshake { started_at: now, sent_at: now, next_at: now, tries: 0, is_due: true };
        Self {
            stack: Arc::clone(stack),
            local,
            remote,
            state,
            sender: Sender::new(now, start, agreed, clock, congestion),
            receiver: Receiver::new(now, 0, 0, config.receive_buffer_bytes, agreed.mss),
            clock,
            recent: None,
            has_sack: false,
            remote_scale: None,
            remote_mss: lowest_mss(local),
            mtu: config.mtu,
            handshake,
            events: Events::default(),
            wants_room: false,
            end: None,
            rst: None,
            heard_at: now,
            probes: 0,
            probed_at: now,
            is_probe_due: false,
            time_wait_until: None,
            challenged_at: None,
            last_acknowledged: 0,
            charged: 0,
        }
    }

    /// Takes in what the SYN of the other end says.
    pub(super) fn on_remote_syn(&mut self, now: Instant, sequence: u32, options: &Options) {
        self.recent = options.timestamps.map(|timestamps| Recent::new(now, timestamps.value));
        self.has_sack = options.sack_permitted;
        self.remote_scale = options.window_scale;
        self.remote_mss = options.mss.unwrap_or(lowest_mss(self.local)).max(MIN_MSS);
        let scale = if self.remote_scale.is_some() { self.local_scale() } else { 0 };
        let capacity = self.stack.config.receive_buffer_bytes;
        let start = first(sequence) + 1;
        self.receiver = Receiver::new(now, start, scale, capacity, self.agreed().mss);
        self.last_acknowledged = start;
    }

    pub(super) fn local_scale(&self) -> u8 {
        Receiver::scale_for(self.stack.config.receive_buffer_bytes)
    }

    /// The largest payload that packets of ours and of the other end hold, without options.
    pub(super) fn local_mss(&self) -> u16 {
        let headers = Header::fixed_bytes(self.local) as u32;
        u16::try_from(self.mtu.saturating_sub(headers)).unwrap_or(u16::MAX).max(MIN_MSS)
    }

    pub(super) fn agreed(&self) -> Agreed {
        let options = if self.recent.is_some() { TIMESTAMPS_BYTES } else { 0 };
        let mss = usize::from(self.local_mss().min(self.remote_mss)) - options;
        Agreed { mss: mss as u64, has_sack: self.has_sack }
    }

    pub(super) fn congestion(&self, mss: u64) -> Congestion {
        // Our first sequence number is as good as random.
        Congestion::new(self.stack.config.congestion, mss, self.sender.una() as u32)
    }

    /// Takes as much of `bytes` as there is room for, and tells how much that is.
    pub fn write(&mut self, bytes: &[u8]) -> usize {
        let count = self.writable().min(bytes.len());
        self.sender.queue.push(&bytes[..count]);
        self.wants_room |= count < bytes.len();
        self.charge();
        count
    }

    /// How much [`write`](Self::write) would take now, in bytes.
    pub fn writable(&self) -> usize {
        if self.end.is_some() || self.sender.is_fin_queued() {
            return 0;
        }
        let max = self.stack.config.send_buffer_bytes;
        let pressed = if self.stack.is_under_pressure() { PRESSED_QUEUE_BYTES } else { max };
        self.sender.room(max.min(pressed))
    }

    /// What has arrived in order and was not taken, in pieces.
    pub fn readable(&self) -> impl Iterator<Item = &[u8]> {
        self.receiver.queue.slices(self.receiver.queue.start())
    }

    pub const fn readable_bytes(&self) -> usize {
        self.receiver.queue.len()
    }

    /// Forgets the first `count` bytes of [`readable`](Self::readable): they are dealt with.
    pub fn consume(&mut self, count: usize) {
        self.receiver.consume(count, self.stack.is_under_pressure());
        self.charge();
    }

    /// Nothing that was written, nor an end, is still to be sent or acknowledged.
    pub const fn has_delivered_all(&self) -> bool {
        self.sender.is_idle()
    }

    /// Nothing more will be written: a FIN follows what was.
    pub fn shutdown_write(&mut self) {
        if self.end.is_some() || self.sender.is_fin_queued() {
            return;
        }
        self.sender.queue_fin();
        match self.state {
            State::Established => self.state = State::FinWait1,
            State::CloseWait => self.state = State::LastAck,
            _ => {}
        }
    }

    /// Ends the connection at once, with a RST. What was not sent or taken is lost.
    pub fn abort(&mut self) {
        match self.end {
            None => self.reset(End::Aborted),
            // The other end is done; what it sent is wanted no more.
            Some(End::Closed) => self.end = Some(End::Aborted),
            Some(_) => {}
        }
    }

    /// Ends it, and tells the other end, if that may believe that there is a connection.
    pub(super) fn reset(&mut self, end: End) {
        if !matches!(self.state, State::SynSent | State::TimeWait) {
            self.rst = Some(self.sender.nxt() as u32);
        }
        self.finish(end);
    }

    pub(super) fn finish(&mut self, end: End) {
        self.state = State::Closed;
        self.end = Some(end);
        self.time_wait_until = None;
        self.events.readable = true;
        self.events.writable = true;
        self.charge();
    }

    /// What has happened since the last call.
    pub fn take_events(&mut self) -> Events {
        std::mem::take(&mut self.events)
    }

    pub const fn state(&self) -> State {
        self.state
    }

    /// Why it is over; `None` if it is not. TIME-WAIT is not the end.
    pub const fn end(&self) -> Option<End> {
        self.end
    }

    /// It is over, there is nothing left to send, and nothing to read that came before a proper end.
    pub fn is_closed(&self) -> bool {
        match self.end {
            None => false,
            Some(End::Closed) => self.rst.is_none() && self.readable_bytes() == 0,
            Some(_) => self.rst.is_none(),
        }
    }

    pub const fn local(&self) -> SocketAddr {
        self.local
    }

    pub const fn remote(&self) -> SocketAddr {
        self.remote
    }

    /// Whether the SYN in `segment` begins a connection that takes the place of this one, which is in
    /// TIME-WAIT: it is later beyond doubt. [RFC 9293 §3.10.7.4] [RFC 6191]
    pub fn can_be_reused_by(&self, now: Instant, segment: &Segment<'_>) -> bool {
        let is_syn = segment.flags & (SYN | ACK | RST) == SYN;
        let is_later = match (self.recent, segment.options.timestamps) {
            (Some(recent), Some(timestamps)) if timestamps.value != recent.value => {
                !recent.rejects(now, timestamps.value)
            }
            _ => extend(self.receiver.nxt(), segment.sequence) > self.receiver.nxt(),
        };
        self.state == State::TimeWait && is_syn && is_later
    }

    /// A router says that a packet of this connection, which bore `quoted_sequence`, was larger than
    /// `mtu`. Believed only of what is on the way, and no further down than any host must take.
    /// [RFC 1191 §6.4] [RFC 8201 §4] [RFC 5927 §7]
    pub fn on_too_big(&mut self, mtu: u32, quoted_sequence: u32) {
        let headers = Header::fixed_bytes(self.local) as u32;
        let mtu = mtu.max(u32::from(lowest_mss(self.local)) + headers);
        if self.is_outstanding(quoted_sequence) && mtu < self.mtu {
            self.mtu = mtu;
            let mss = self.agreed().mss;
            if mss < self.sender.mss() {
                self.sender.lower_mss(mss);
            }
        }
    }

    /// A router says that a packet of this connection could not be delivered. That ends it only before
    /// it has begun: later it may be a passing trouble, or a lie. [RFC 5927 §5.2] [RFC 5461 §4]
    pub fn on_unreachable(&mut self, quoted_sequence: u32) {
        let is_syn = quoted_sequence.wrapping_add(1) == self.sender.una() as u32;
        if self.state == State::SynSent && is_syn {
            self.finish(End::Unreachable);
        }
    }

    fn is_outstanding(&self, sequence: u32) -> bool {
        let position = extend(self.sender.una(), sequence);
        let is_synchronized =
            !matches!(self.state, State::SynSent | State::SynReceived | State::Closed);
        is_synchronized && position >= self.sender.una() && position < self.sender.nxt()
    }

    /// When [`on_deadline`](Self::on_deadline) or `poll_transmit` has something to do next, if nothing
    /// happens before.
    pub fn next_deadline(&self) -> Option<Instant> {
        match self.state {
            State::Closed => None,
            State::SynSent | State::SynReceived => {
                Some(self.handshake.next_at.min(self.handshake_end()))
            }
            State::TimeWait => {
                [self.time_wait_until, self.receiver.next_deadline()].into_iter().flatten().min()
            }
            _ => {
                let stalled = self.sender.stalls_at(self.stack.config.user_timeout);
                let sender = self.sender.next_deadline();
                [sender, stalled, self.receiver.next_deadline(), self.keepalive_at()]
                    .into_iter()
                    .flatten()
                    .min()
            }
        }
    }

    fn handshake_end(&self) -> Instant {
        self.handshake.started_at + self.stack.config.handshake_timeout
    }

    /// When to ask whether the other end is there: only while nothing else would tell.
    fn keepalive_at(&self) -> Option<Instant> {
        let keepalive = self.stack.config.keepalive.filter(|_| self.sender.is_idle())?;
        Some(match self.probes {
            0 => self.heard_at + keepalive.idle,
            _ => self.probed_at + keepalive.interval,
        })
    }

    /// Does what is due by `now`; nothing if that is nothing.
    pub fn on_deadline(&mut self, now: Instant) {
        match self.state {
            State::Closed => {}
            State::SynSent | State::SynReceived => {
                if now >= self.handshake_end() {
                    self.reset(End::TimedOut);
                } else if now >= self.handshake.next_at {
                    self.handshake.is_due = true;
                }
            }
            State::TimeWait => {
                if self.time_wait_until.is_some_and(|until| until <= now) {
                    self.finish(End::Closed);
                }
            }
            _ => {
                self.sender.on_deadline(now);
                let stalled = self.sender.stalls_at(self.stack.config.user_timeout);
                if stalled.is_some_and(|at| at <= now) {
                    self.reset(End::TimedOut);
                } else if self.keepalive_at().is_some_and(|at| at <= now) {
                    self.on_keepalive(now);
                }
            }
        }
    }

    fn on_keepalive(&mut self, now: Instant) {
        let limit = self.stack.config.keepalive.map_or(0, |keepalive| keepalive.probes);
        if self.probes >= limit {
            self.reset(End::TimedOut);
        } else {
            self.probes += 1;
            self.probed_at = now;
            self.is_probe_due = true;
        }
    }

    /// Takes note that the handshake's segment was sent.
    pub(super) fn on_syn_sent(&mut self, now: Instant) {
        let timeout = INITIAL_SYN_TIMEOUT * (1 << self.handshake.tries.min(6));
        self.handshake.is_due = false;
        self.handshake.tries += 1;
        self.handshake.sent_at = now;
        self.handshake.next_at = now + timeout;
    }

    pub(super) fn charge(&mut self) {
        let held = self.sender.held_bytes() + self.receiver.held_bytes();
        self.stack.charge(self.charged, held);
        self.charged = held;
    }
}

impl Drop for Connection {
    fn drop(&mut self) {
        self.stack.charge(self.charged, 0);
    }
}

/// What any host must take, without headers. [RFC 9293 §3.7.1]
pub(super) const fn lowest_mss(local: SocketAddr) -> u16 {
    if local.is_ipv4() { LOWEST_MSS_V4 } else { LOWEST_MSS_V6 }
}
