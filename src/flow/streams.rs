//! TCP: a connection with the peer on the inside, and one of this host's with who it speaks to.
//!
//! The host connects first, and the peer's SYN is answered by what came of it: so a peer learns that a
//! port is closed, or that there is no way, as if it had asked itself. Afterwards each side's bytes,
//! ends and resets become the other's, and neither is read faster than the other takes.

mod asking;
mod dial;

use std::collections::{HashMap, VecDeque};
use std::io::IoSlice;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use self::asking::Asking;
use self::dial::{Found, carried_dial, exposed_dial};
use crate::flow::common::{Budget, Common, Origin};
use crate::flow::gate::Unreached;
use crate::flow::inner::{Inner, Quoted};
use crate::flow::limits::Sort;
use crate::flow::mappings::problem_of;
use crate::flow::open::{Open, READ_BYTES};
use crate::flow::slots::{Kind, Slots, Token};
use crate::flow::switch::Switch;
use crate::flow::tcp::{
    Checksum, Config, Connection, End, Packet, Stack, State, Syn, Transmit, refuse,
};
use crate::packet::batch::IpBatch;
use crate::packet::slab::HEADROOM;
use crate::packet::split::Splitter;
use crate::proto::drop_reason::DropReason;
use crate::proto::peer::PeerId;
use crate::sys::SysError;
use crate::sys::entropy::OsEntropy;
use crate::sys::poll::{Interest, Ready};
use crate::sys::sockets::Stream;
use crate::time::Instant;
use crate::wire::icmp::Problem;
use crate::wire::transport::RST;

/// How long this host tries to connect.
const DIAL_TIMEOUT: Duration = Duration::from_secs(15);

/// Connections that are over and remembered for stray segments. [RFC 9293 §3.6.1]
const REMEMBERED: usize = 4096;

/// A segment without data, and what stands before it.
const LONGEST_HEADERS_BYTES: usize = 128;

/// Both ends on the inside: the peer's, and the one that it speaks to.
type Pair = (SocketAddr, SocketAddr);

/// All connections.
#[derive(Debug)]
pub(super) struct Streams {
    stack: Arc<Stack>,
    by_pair: HashMap<Pair, Token>,
    /// The one that was found last: segments come in rows.
    last: Option<(Pair, Token)>,
    slots: Slots<Flow>,
    /// Those that segments have come for.
    touched: Vec<Token>,
    /// Those that are over, the oldest first.
    remembered: VecDeque<Token>,
    buffer: Box<[u8]>,
    /// For those who ask for connections.
    switch: Arc<Switch>,
}

#[derive(Debug)]
struct Flow {
    pair: Pair,
    peer: PeerId,
    origin: Origin,
    /// Where it leads, if the policy has a say in that.
    judged: Option<SocketAddr>,
    side: Side,
    /// Somebody of this host has asked for it, and has not brought his stream yet.
    asking: Option<Asking>,
    /// Among those that are limited.
    is_counted: bool,
    /// The peer has asked for it, and not taken it up yet.
    is_vain: bool,
    scheduled: Option<Instant>,
    is_queued: bool,
    is_touched: bool,
}

#[derive(Debug)]
enum Side {
    /// The host connects, and the peer waits.
    Dialling {
        syn: Syn,
        packet: Box<[u8]>,
        stream: Stream,
        /// What the host's side is told first.
        greeting: Vec<u8>,
        until: Instant,
    },
    Open(Open),
}

/// What the network says of a segment of ours.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Said {
    /// So many bytes would fit.
    TooBig(u32),
    Unreached(Unreached),
}

impl Streams {
    pub fn new(common: &Common, switch: Arc<Switch>) -> Self {
        Self {
            stack: Arc::new(Stack::new(config(common), &mut OsEntropy)),
            switch,
            by_pair: HashMap::new(),
            last: None,
            slots: Slots::new(Kind::Tcp),
            touched: Vec::new(),
            remembered: VecDeque::new(),
            buffer: vec![0; READ_BYTES].into(),
        }
    }

    /// Takes a segment of `peer`'s.
    pub fn carry(
        &mut self,
        common: &mut Common,
        now: Instant,
        peer: PeerId,
        inner: &Inner<'_>,
    ) -> Result<(), DropReason> {
        let packet =
            Packet::parse(inner.packet, Checksum::Verify).map_err(|_| DropReason::FlowMalformed)?;
        let pair = (packet.source, packet.destination);
        if self.last.is_none_or(|(last, _)| last != pair) {
            self.last = self.by_pair.get(&pair).map(|&token| (pair, token));
        }
        let Some((_, token)) = self.last else {
            return self.begin(common, now, peer, inner, &packet);
        };
        let Some(flow) = self.slots.get_mut(token) else { return Ok(()) };
        match &mut flow.side {
            // The peer asks again, or has lost patience.
            Side::Dialling { syn, .. } => {
                let gives_up = packet.segment.has(RST)
                    && packet.segment.sequence == syn.sequence.wrapping_add(1);
                if gives_up {
                    self.remove(common, token);
                }
            }
            Side::Open(open) if open.connection.can_be_reused_by(now, &packet.segment) => {
                self.remove(common, token);
                return self.begin(common, now, peer, inner, &packet);
            }
            Side::Open(open) => {
                open.connection.on_segment(now, &packet.segment);
                if !std::mem::replace(&mut flow.is_touched, true) {
                    self.touched.push(token);
                }
            }
        }
        Ok(())
    }

    /// A segment that belongs to no connection.
    fn begin(
        &mut self,
        common: &mut Common,
        now: Instant,
        peer: PeerId,
        inner: &Inner<'_>,
        packet: &Packet<'_>,
    ) -> Result<(), DropReason> {
        let Some(syn) = Syn::of(packet) else {
            let mut out = [0; LONGEST_HEADERS_BYTES];
            if let Some(reset) = refuse(packet, &mut out)
                && common.limits.may_complain(now, peer)
            {
                send_single(common, reset, &mut out);
            }
            return Err(DropReason::FlowUnknown);
        };
        common.limits.ask(now, peer).map_err(|limit| common.met(now, peer, limit))?;
        let place = packet.destination;
        let origin =
            if common.settings.owns(place.ip()) { Origin::Exposed } else { Origin::Carried };
        let found = match origin {
            Origin::Exposed => exposed_dial(common, packet),
            Origin::Carried | Origin::Own => carried_dial(common, place),
        };
        let Some(Found { dial, greeting, judged }) = found.filter(|_| !common.settings.is_draining)
        else {
            return Err(reject(common, now, peer, origin, &syn, inner.packet));
        };
        let allowed = common.limits.open(now, peer, Sort::Tcp).and_then(|()| {
            let dial = common.limits.dial(peer, place);
            dial.inspect_err(|_| common.limits.close(peer, Sort::Tcp))
        });
        allowed.map_err(|limit| common.met(now, peer, limit))?;
        let pair = (packet.source, place);
        let opened = self.slots.try_insert(|token| {
            let stream = dial.begin(common.settings.mark)?;
            common.watch(&stream, token, Interest::Changes)?;
            let (packet, until) = (inner.packet.into(), now + DIAL_TIMEOUT);
            let side = Side::Dialling { syn, packet, stream, greeting, until };
            Ok::<_, SysError>(Flow { judged, ..Flow::new(pair, peer, origin, side) })
        });
        match opened {
            Ok(token) => {
                self.by_pair.insert(pair, token);
                if let Some(flow) = self.slots.get_mut(token) {
                    common.deadlines.set(token, &mut flow.scheduled, now + DIAL_TIMEOUT);
                }
                Ok(())
            }
            Err(error) => {
                common.limits.dialled(peer, place);
                common.limits.close(peer, Sort::Tcp);
                common.cannot_open(now, "connections", &error);
                answer(common, now, peer, origin, &error, &syn, inner.packet);
                Err(DropReason::FlowRefused)
            }
        }
    }

    /// Acts upon all segments that have come since the last call.
    pub fn settle(&mut self, common: &mut Common) {
        for token in std::mem::take(&mut self.touched) {
            if let Some(flow) = self.slots.get_mut(token) {
                flow.is_touched = false;
                self.pump(common, token);
            }
        }
    }

    /// Something has happened on the socket of `token`.
    pub fn stir(&mut self, common: &mut Common, now: Instant, token: Token, event: Ready) {
        let Some(flow) = self.slots.get_mut(token) else { return };
        match &mut flow.side {
            Side::Dialling { .. } => self.dialled(common, now, token),
            Side::Open(open) => {
                open.is_readable |= event.readable || event.failed;
                open.is_writable |= event.writable || event.failed;
                if event.failed {
                    open.on_failure();
                }
                self.pump(common, token);
            }
        }
    }

    /// Connecting has ended.
    fn dialled(&mut self, common: &mut Common, now: Instant, token: Token) {
        let Some(mut flow) = self.slots.get_mut(token) else { return };
        let Side::Dialling { syn, packet, stream, greeting, .. } = &mut flow.side else { return };
        // So short a text finds room in a connection that is new, or there is none.
        let outcome = stream.take_error().and_then(|()| match greeting.len() {
            0 => Ok(true),
            len => Ok(stream.write(&[IoSlice::new(greeting)])? == Some(len)),
        });
        match outcome {
            Ok(true) => {}
            Ok(false) => return self.remove(common, token),
            Err(error) => {
                let (peer, origin) = (flow.peer, flow.origin);
                answer(common, now, peer, origin, &error, syn, packet);
                common.drop(DropReason::FlowRefused);
                return self.remove(common, token);
            }
        }
        common.limits.dialled(flow.peer, flow.pair.1);
        let connection = Connection::accept(now, fitting(&mut self.stack, common), syn);
        let open = Side::Open(Open::new(connection));
        let former = std::mem::replace(&mut flow.side, open);
        flow = match self.slots.get_mut(token) {
            Some(flow) => flow,
            None => return,
        };
        if let (Side::Open(open), Side::Dialling { stream, .. }) = (&mut flow.side, former) {
            open.stream = Some(stream);
        }
        common.deadlines.clear(token, &mut flow.scheduled);
        self.pump(common, token);
    }

    /// Moves what can be moved between both sides, and has the peer told.
    fn pump(&mut self, common: &mut Common, token: Token) {
        let Some(flow) = self.slots.get_mut(token) else { return };
        let Side::Open(open) = &mut flow.side else { return };
        match &mut flow.asking {
            Some(asking) => asking.tell(&mut open.connection, token, &self.switch),
            None => open.move_on(&mut self.buffer),
        }
        if open.connection.is_closed() {
            self.remove(common, token);
            return;
        }
        if flow.is_vain && open.connection.state() != State::SynReceived {
            flow.is_vain = false;
            common.limits.complete(flow.peer);
        }
        // What is over holds no socket, and does not count; it is remembered for a while. What the peer
        // has sent may still wait for the socket.
        let is_over =
            open.connection.state() == State::TimeWait && open.connection.readable_bytes() == 0;
        if is_over && open.stream.take().is_some() {
            flow.uncount(common);
            self.remembered.push_back(token);
        }
        if !std::mem::replace(&mut flow.is_queued, true) {
            common.ready.push_back(token);
        }
        if self.remembered.len() > REMEMBERED
            && let Some(oldest) = self.remembered.pop_front()
        {
            self.remove(common, oldest);
        }
    }

    /// Puts segments for the peer into `batch`; false if there may be more of them.
    pub fn fill(
        &mut self,
        common: &mut Common,
        now: Instant,
        token: Token,
        batch: &mut IpBatch,
        budget: &mut Budget,
    ) -> bool {
        let Some(flow) = self.slots.get_mut(token) else { return true };
        let Side::Open(open) = &mut flow.side else { return true };
        loop {
            if !budget.is_left() {
                return false;
            }
            let Some(slab) = batch.vacant() else { return false };
            let Some(Transmit { len, vnet }) =
                open.connection.poll_transmit(now, &mut slab[HEADROOM..])
            else {
                break;
            };
            batch.push(len, Ok(vnet));
            budget.take(len);
        }
        if open.can_read_more() {
            // There is room again for what the host's side has to say.
            open.move_on(&mut self.buffer);
            return false;
        }
        flow.is_queued = false;
        if open.connection.is_closed() {
            self.remove(common, token);
        } else if let Some(at) = open.connection.next_deadline() {
            common.deadlines.set(token, &mut flow.scheduled, at);
        }
        true
    }

    /// The deadline of `token` has come.
    pub fn expire(&mut self, common: &mut Common, now: Instant, token: Token) {
        let Some(flow) = self.slots.get_mut(token) else { return };
        flow.scheduled = None;
        match &mut flow.side {
            Side::Dialling { until, .. } if *until > now => {
                common.deadlines.set(token, &mut flow.scheduled, *until);
            }
            Side::Dialling { .. } => {
                common.drop(DropReason::FlowRefused);
                self.remove(common, token);
            }
            Side::Open(open) => {
                open.connection.on_deadline(now);
                self.pump(common, token);
            }
        }
    }

    /// The peer, or a router on the way to it, has `said` something of a segment of ours: `quoted` is its
    /// start.
    pub fn hear(&mut self, common: &mut Common, peer: PeerId, quoted: &[u8], said: Said) {
        let Some(quoted) = Quoted::parse(quoted) else { return };
        let Some(&token) = self.by_pair.get(&(quoted.destination, quoted.source)) else { return };
        // Routers on the way to a peer are behind that peer: others have nothing to say of it.
        let Some(flow) = self.slots.get_mut(token).filter(|flow| flow.peer == peer) else { return };
        let Side::Open(open) = &mut flow.side else { return };
        match said {
            Said::TooBig(mtu) => open.connection.on_too_big(mtu, quoted.sequence),
            Said::Unreached(why) => {
                open.connection.on_unreachable(quoted.sequence);
                if let Some(asking) = &mut flow.asking {
                    asking.said = Some(why);
                }
            }
        }
        self.pump(common, token);
    }

    /// Resets what is not wanted any more.
    pub fn retain(
        &mut self,
        common: &mut Common,
        mut is_wanted: impl FnMut(&Common, Origin, Pair, Option<SocketAddr>, PeerId) -> bool,
    ) {
        let unwanted = self
            .slots
            .find(|flow| !is_wanted(common, flow.origin, flow.pair, flow.judged, flow.peer));
        for token in unwanted {
            if let Some(flow) = self.slots.get_mut(token)
                && let Side::Open(open) = &mut flow.side
            {
                open.connection.abort();
                self.pump(common, token);
            } else {
                self.remove(common, token);
            }
        }
    }

    fn remove(&mut self, common: &mut Common, token: Token) {
        let Some(mut flow) = self.slots.remove(token) else { return };
        self.by_pair.remove(&flow.pair);
        self.last = self.last.filter(|(_, last)| *last != token);
        common.deadlines.clear(token, &mut flow.scheduled);
        flow.uncount(common);
        if matches!(flow.side, Side::Dialling { .. }) {
            common.limits.dialled(flow.peer, flow.pair.1);
        }
        flow.side.end();
    }
}

/// However the engine ends: nobody shall take what was cut for the whole.
impl Drop for Streams {
    fn drop(&mut self) {
        self.slots.drain().for_each(|flow| flow.side.end());
    }
}

impl Side {
    /// Ends the host's side, by a reset unless both have said all.
    fn end(self) {
        let stream = match self {
            Self::Dialling { stream, .. } => Some(stream),
            Self::Open(Open { connection, stream, .. }) => {
                stream.filter(|_| connection.end() != Some(End::Closed))
            }
        };
        if let Some(stream) = stream {
            stream.reset();
        }
    }
}

impl Flow {
    const fn new(pair: Pair, peer: PeerId, origin: Origin, side: Side) -> Self {
        Self {
            pair,
            peer,
            origin,
            judged: None,
            side,
            asking: None,
            is_counted: true,
            is_vain: !matches!(origin, Origin::Own),
            scheduled: None,
            is_queued: false,
            is_touched: false,
        }
    }

    /// It does not count any more.
    fn uncount(&mut self, common: &mut Common) {
        if !std::mem::take(&mut self.is_counted) {
            return;
        }
        match self.origin {
            Origin::Own => common.limits.close_own(),
            Origin::Carried | Origin::Exposed => common.limits.close(self.peer, Sort::Tcp),
        }
    }
}

/// Refuses a SYN that is for nobody here, or must not go where it wants to.
fn reject(
    common: &mut Common,
    now: Instant,
    peer: PeerId,
    origin: Origin,
    syn: &Syn,
    packet: &[u8],
) -> DropReason {
    if origin == Origin::Exposed || common.settings.is_draining {
        let mut out = [0; LONGEST_HEADERS_BYTES];
        let reset = syn.refuse(&mut out);
        send_single(common, reset, &mut out);
        return DropReason::FlowRefused;
    }
    common.refuse(now, peer, packet, Problem::Prohibited);
    DropReason::FlowDenied
}

/// What new connections share. Those that there are keep theirs: what does not fit any more they are
/// told.
fn fitting<'a>(stack: &'a mut Arc<Stack>, common: &Common) -> &'a Arc<Stack> {
    let config = config(common);
    if stack.config != config {
        *stack = Arc::new(stack.with(config));
    }
    stack
}

/// What connections are like that are made now.
fn config(common: &Common) -> Config {
    let congestion = common.settings.tuning.congestion;
    Config { mtu: common.tables.mtu(), congestion, ..Config::default() }
}

/// Answers a SYN by what became of connecting; by nothing if nobody has answered us.
fn answer(
    common: &mut Common,
    now: Instant,
    peer: PeerId,
    origin: Origin,
    error: &SysError,
    syn: &Syn,
    packet: &[u8],
) {
    // Behind a port of the tunnel's own there is a service, or there is none.
    if error.is_refused() || origin == Origin::Exposed {
        let mut out = [0; LONGEST_HEADERS_BYTES];
        let reset = syn.refuse(&mut out);
        send_single(common, reset, &mut out);
    } else if let Some(problem) = problem_of(error) {
        common.refuse(now, peer, packet, problem);
    }
}

/// Has one segment without data wait for its peer.
fn send_single(common: &mut Common, transmit: Transmit, out: &mut [u8]) {
    let Some(packet) = out.get_mut(..transmit.len) else { return };
    if let Ok(mut packets) = Splitter::new(packet, &transmit.vnet)
        && let Some(packet) = packets.next()
    {
        common.send(packet.to_vec());
    }
}
