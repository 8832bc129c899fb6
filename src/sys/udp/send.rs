//! Sending many datagrams per call with `sendmmsg`, and many per message with `UDP_SEGMENT`.
//!
//! `sendmmsg` stops at the first message it cannot send. Everything after that one is sent
//! nevertheless: a failure costs its own datagram only. [P-87] A message that the kernel will not
//! cut is sent again as the datagrams that it is made of.

use std::mem::zeroed;
use std::net::{IpAddr, SocketAddr};
use std::ops::Range;
use std::os::fd::{AsRawFd, BorrowedFd};
use std::ptr::null_mut;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec, poll};

use super::address::RawAddress;
use super::errors::{self, Fragments, Narrowed, set_fragments};
use super::{Family, Local, UdpSockets};
use crate::sys::cmsg::ControlBuffer;
use crate::sys::{SysError, check, clock};
use crate::time::Instant;

/// How long one batch may wait for room in the socket's buffer before the rest of it is given up.
/// Waiting is the back-pressure that inner senders feel; the bound keeps a dead device from
/// stopping the thread.
const MAX_WAIT: Duration = Duration::from_millis(100);

/// Datagrams to send to one destination: one, or several of one length.
#[derive(Clone, Copy, Debug)]
pub struct SendItem<'a> {
    pub remote: SocketAddr,
    /// The address to send from; `None` lets the routing table choose. Of another family than
    /// `remote` it is ignored.
    pub source: Option<Local>,
    /// DSCP and ECN of the outer header.
    pub tos: u8,
    /// All datagrams, one after the other.
    pub payload: &'a [u8],
    /// Bytes of each datagram but the last, which may be shorter. Not 0 unless `payload` is empty.
    pub stride: usize,
    /// Datagrams come through whole or not at all.
    pub is_probe: bool,
}

/// What became of a batch. Items are told by their position as given.
#[derive(Debug, Default)]
pub struct SendReport {
    /// Datagrams the kernel took.
    pub sent: usize,
    /// Sent (or failed) without the source asked for, because the kernel refused it: forget it.
    pub source_refused: Vec<usize>,
    /// Datagrams lost, with the reason.
    pub failed: Vec<Failed>,
    /// What was heard meanwhile of sizes that do not fit.
    pub narrowed: Vec<Narrowed>,
}

/// Datagrams of one item that were lost.
#[derive(Debug)]
pub struct Failed {
    pub item: usize,
    /// Their positions within the item.
    pub datagrams: Range<usize>,
    pub error: SysError,
}

/// The memory of `sendmmsg`, made once per sending thread.
#[derive(Debug)]
pub struct Sender {
    lanes: [Lane; 2],
}

/// One family's part of a batch.
#[derive(Debug)]
struct Lane {
    headers: Box<[libc::mmsghdr]>,
    pieces: Box<[libc::iovec]>,
    slots: Box<[Slot]>,
    filled: usize,
}

/// What one header sends: one datagram, or all of an item. If it is to be all, and the kernel does
/// not want to, they go one by one, and then `left` is more than the header sends.
#[derive(Clone, Debug)]
struct Slot {
    name: RawAddress,
    control: ControlBuffer,
    remote: SocketAddr,
    source: Option<Local>,
    tos: u8,
    item: usize,
    /// The position within the item of the first datagram that is left.
    first: usize,
    /// Bytes that are left to send.
    left: usize,
    stride: usize,
    /// Whether the kernel is to cut the message.
    is_segmented: bool,
}

// SAFETY: the pointers in `headers` and `pieces` are only used by the kernel inside
// `UdpSockets::send_batch`, which writes those in use anew from live borrows before each call and
// forgets them (`filled = 0`) before it returns.
unsafe impl Send for Sender {}

impl Sender {
    /// Room for `capacity` messages of each family per system call; a batch may be longer.
    pub fn new(capacity: usize) -> Self {
        Self { lanes: [Lane::new(capacity.max(1)), Lane::new(capacity.max(1))] }
    }
}

impl UdpSockets {
    /// Sends all `items`, in order within a family. Returns when the kernel has taken or refused
    /// each of them.
    pub fn send_batch<'b>(
        &self,
        sender: &mut Sender,
        items: impl IntoIterator<Item = SendItem<'b>>,
    ) -> SendReport {
        // Left over only if the items of an earlier call have panicked.
        for lane in &mut sender.lanes {
            lane.filled = 0;
        }
        let mut report = SendReport::default();
        let mut patience = Patience(None);
        for (position, item) in items.into_iter().enumerate() {
            let family = Family::of(item.remote);
            let count = item.payload.len().div_ceil(item.stride.max(1)).max(1);
            let Some(socket) = self.socket(family) else {
                let error = SysError::from_errno("sendmmsg", libc::EAFNOSUPPORT);
                report.failed.push(Failed { item: position, datagrams: 0..count, error });
                continue;
            };
            let lane = &mut sender.lanes[family.lane()];
            if item.is_probe {
                lane.flush(socket, &self.segmentation, &mut patience, &mut report);
                // Refused, it goes as all others do, and its answer says less.
                drop(set_fragments(socket, family, Fragments::Never));
                lane.push(position, 0, &item, item.payload, false);
                lane.flush(socket, &self.segmentation, &mut patience, &mut report);
                drop(set_fragments(socket, family, Fragments::Allowed));
                continue;
            }
            if count > 1 && self.segmentation.cuts(family, item.stride) {
                lane.push(position, 0, &item, item.payload, true);
                if lane.is_full() {
                    lane.flush(socket, &self.segmentation, &mut patience, &mut report);
                }
                continue;
            }
            for (within, start) in (0..count).map(|within| (within, within * item.stride)) {
                let end = item.payload.len().min(start + item.stride);
                lane.push(position, within, &item, &item.payload[start..end], false);
                if lane.is_full() {
                    lane.flush(socket, &self.segmentation, &mut patience, &mut report);
                }
            }
        }
        for family in [Family::V4, Family::V6] {
            if let Some(socket) = self.socket(family) {
                let lane = &mut sender.lanes[family.lane()];
                lane.flush(socket, &self.segmentation, &mut patience, &mut report);
            }
        }
        report
    }
}

/// How long datagrams go one by one, if of a length that the kernel did not cut to: the path is too
/// narrow for them, and a try costs a message's worth of calls.
const NARROW_PATH_TIME: Duration = Duration::from_secs(1);

/// What the kernel cuts into datagrams (UDP_SEGMENT, Linux 4.18), for each family.
#[derive(Debug)]
pub(super) struct Segmentation([Cutting; 2]);

/// Ordering: relaxed; whoever reads too early is told by the kernel.
#[derive(Debug)]
struct Cutting {
    is_on: AtomicBool,
    /// Datagrams of so many bytes or more are not cut, until then (nanoseconds of the monotonic
    /// clock). One number for all destinations: the wrong one costs time and no datagram.
    limit: AtomicUsize,
    until: AtomicU64,
}

impl Segmentation {
    pub(super) fn new(v4: bool, v6: bool) -> Self {
        Self([v4, v6].map(|is_on| Cutting {
            is_on: AtomicBool::new(is_on),
            limit: AtomicUsize::new(usize::MAX),
            until: AtomicU64::new(0),
        }))
    }

    pub(super) fn is_on(&self, family: Family) -> bool {
        self.0[family.lane()].is_on.load(Ordering::Relaxed)
    }

    /// Whether messages of datagrams of `stride` bytes are worth a try.
    pub(super) fn cuts(&self, family: Family, stride: usize) -> bool {
        let Cutting { limit, until, .. } = &self.0[family.lane()];
        if self.is_on(family) && stride >= limit.load(Ordering::Relaxed) {
            if clock::now().mono < Instant::from_nanos(until.load(Ordering::Relaxed)) {
                return false;
            }
            limit.store(usize::MAX, Ordering::Relaxed);
        }
        self.is_on(family)
    }

    /// Takes note that datagrams of `stride` bytes were not cut, and why.
    fn refused(&self, family: Family, stride: usize, error: &SysError) {
        let Cutting { is_on, limit, until } = &self.0[family.lane()];
        if error.is_segmentation_impossible() {
            is_on.store(false, Ordering::Relaxed);
        } else if error.is_path_too_narrow() {
            let end = clock::now().mono + NARROW_PATH_TIME;
            until.store(end.as_nanos(), Ordering::Relaxed);
            limit.store(stride, Ordering::Relaxed);
        }
    }
}

impl Family {
    fn lane(self) -> usize {
        match self {
            Self::V4 => 0,
            Self::V6 => 1,
        }
    }
}

impl Lane {
    fn new(capacity: usize) -> Self {
        // SAFETY: `mmsghdr` is integers and nullable pointers: all-zero is a valid value.
        let header: libc::mmsghdr = unsafe { zeroed() };
        let piece = libc::iovec { iov_base: null_mut(), iov_len: 0 };
        let slot = Slot {
            name: RawAddress::EMPTY,
            control: ControlBuffer::default(),
            remote: SocketAddr::from(([0; 4], 0)),
            source: None,
            tos: 0,
            item: 0,
            first: 0,
            left: 0,
            stride: 0,
            is_segmented: false,
        };
        Self {
            headers: vec![header; capacity].into(),
            pieces: vec![piece; capacity].into(),
            slots: vec![slot; capacity].into(),
            filled: 0,
        }
    }

    fn is_full(&self) -> bool {
        self.filled == self.headers.len()
    }

    /// Fills the next header with `payload`, the datagrams of `item` from the one at `first` on.
    fn push(
        &mut self,
        position: usize,
        first: usize,
        item: &SendItem<'_>,
        payload: &[u8],
        is_segmented: bool,
    ) {
        let at = self.filled;
        let slot = &mut self.slots[at];
        let (name, name_len) = RawAddress::encode(item.remote);
        slot.name = name;
        slot.remote = item.remote;
        slot.source = item.source.filter(|(source, _)| source.is_ipv4() == item.remote.is_ipv4());
        slot.tos = item.tos;
        slot.item = position;
        slot.first = first;
        slot.left = payload.len();
        slot.stride = item.stride;
        slot.is_segmented = is_segmented;
        self.pieces[at] =
            libc::iovec { iov_base: payload.as_ptr().cast_mut().cast(), iov_len: payload.len() };
        let header = &mut self.headers[at].msg_hdr;
        header.msg_name = slot.name.as_mut_ptr();
        header.msg_namelen = libc::socklen_t::try_from(name_len).unwrap_or(0);
        header.msg_iov = &raw mut self.pieces[at];
        header.msg_iovlen = 1;
        self.encode_control(at);
        self.filled += 1;
    }

    fn encode_control(&mut self, at: usize) {
        self.slots[at].encode_control();
        let control = &mut self.slots[at].control;
        let len = control.as_bytes().len();
        let header = &mut self.headers[at].msg_hdr;
        header.msg_control =
            if len == 0 { null_mut() } else { control.space().as_mut_ptr().cast() };
        header.msg_controllen = len as _;
    }

    /// Sends what is filled, past every failure, and empties the lane.
    fn flush(
        &mut self,
        socket: BorrowedFd<'_>,
        segmentation: &Segmentation,
        patience: &mut Patience,
        report: &mut SendReport,
    ) {
        let mut at = 0;
        let mut retried = None;
        while at < self.filled {
            let slot = &mut self.slots[at];
            let is_apart = slot.left > self.pieces[at].iov_len;
            let end = if is_apart { at + 1 } else { self.filled };
            match send_once(socket, &mut self.headers[at..end]) {
                Ok(sent) => {
                    let slots = &self.slots[at..at + sent];
                    report.sent += slots.iter().map(|slot| slot.now().len()).sum::<usize>();
                    at += if is_apart { self.advance(at) } else { sent };
                }
                Err(error) if error.is_interrupted() => {}
                Err(error) if error.is_would_block() && patience.wait_writable(socket) => {}
                // It may be one that has come from the network, about an earlier datagram.
                Err(_)
                    if retried != Some(at) && errors::drain(socket, &mut report.narrowed) > 0 =>
                {
                    retried = Some(at);
                }
                Err(error) if error.is_segmentation_refused() && slot.is_segmented => {
                    segmentation.refused(Family::of(slot.remote), slot.stride, &error);
                    self.take_apart(at);
                }
                // The routing table chooses the source, and the datagram is tried again. [P-81]
                Err(error) if error.is_source_refused() && slot.source.is_some() => {
                    report.source_refused.push(slot.item);
                    slot.source = None;
                    self.encode_control(at);
                }
                Err(error) => {
                    let (item, datagrams) = (slot.item, slot.now());
                    report.failed.push(Failed { item, datagrams, error });
                    at += self.advance(at);
                }
            }
        }
        self.filled = 0;
    }

    /// Makes the header send only the first of its datagrams, for the kernel will not cut it.
    fn take_apart(&mut self, at: usize) {
        let slot = &mut self.slots[at];
        slot.is_segmented = false;
        self.pieces[at].iov_len = slot.stride.min(slot.left);
        self.encode_control(at);
    }

    /// Goes on after what the header has sent; yields 1 if that was all of its slot, else 0.
    fn advance(&mut self, at: usize) -> usize {
        let (slot, piece) = (&mut self.slots[at], &mut self.pieces[at]);
        slot.first = slot.now().end;
        slot.left -= piece.iov_len;
        piece.iov_base = piece.iov_base.wrapping_byte_add(piece.iov_len);
        piece.iov_len = slot.stride.min(slot.left);
        usize::from(slot.left == 0)
    }
}

impl Slot {
    /// The datagrams that its header sends.
    fn now(&self) -> Range<usize> {
        let count = if self.is_segmented { self.left.div_ceil(self.stride.max(1)) } else { 1 };
        self.first..self.first + count
    }

    fn encode_control(&mut self) {
        self.control.clear();
        if self.is_segmented
            && let Ok(bytes) = u16::try_from(self.stride)
        {
            self.control.push_segment_size(bytes);
        }
        if self.tos != 0 {
            match Family::of(self.remote) {
                Family::V4 => self.control.push_tos_v4(self.tos),
                Family::V6 => self.control.push_tclass_v6(self.tos),
            }
        }
        match (self.remote, self.source) {
            // The interface is not asked for: an IPv4 route lookup bound to an interface without a
            // matching route takes the destination for a neighbour and waits for ARP, where an
            // unbound one follows the routing table. The kernel's own implementation binds the
            // address only, too. [LNX socket.c:send4]
            (SocketAddr::V4(_), Some((IpAddr::V4(address), _))) => {
                self.control.push_packet_info_v4(address, 0);
            }
            (SocketAddr::V6(_), Some((IpAddr::V6(address), interface))) => {
                // A link-local address means nothing without its interface.
                let scope = if address.is_unicast_link_local() { interface } else { 0 };
                self.control.push_packet_info_v6(address, scope);
            }
            (_, Some(_) | None) => {}
        }
    }
}

fn send_once(socket: BorrowedFd<'_>, headers: &mut [libc::mmsghdr]) -> Result<usize, SysError> {
    let count = libc::c_uint::try_from(headers.len()).unwrap_or(libc::c_uint::MAX);
    // SAFETY: `socket` is open for the call. Each of the `count` headers was filled by `push`: its
    // name and control pointers denote initialised memory of the lane's slots, its one iovec a
    // payload borrowed by the caller of `send_batch`; all outlive the call, and the kernel only
    // reads them (`msg_len` of the header excepted, which is exclusively borrowed).
    let sent = unsafe { libc::sendmmsg(socket.as_raw_fd(), headers.as_mut_ptr(), count, 0) };
    Ok(usize::try_from(check("sendmmsg", sent)?).unwrap_or(0))
}

/// The end of the waiting of one batch; the clock is first read when the socket is full.
struct Patience(Option<Instant>);

impl Patience {
    /// True once there is room; false when the batch has waited for long enough.
    fn wait_writable(&mut self, socket: BorrowedFd<'_>) -> bool {
        let now = clock::now().mono;
        let left = self.0.get_or_insert(now + MAX_WAIT).since(now);
        if left.is_zero() {
            return false;
        }
        let timeout = Timespec { tv_sec: 0, tv_nsec: i64::from(left.subsec_nanos()) };
        // An interrupted poll counts as room: the send is tried again and tells.
        !matches!(poll(&mut [PollFd::new(&socket, PollFlags::OUT)], Some(&timeout)), Ok(0))
    }
}

#[cfg(test)]
mod tests {
    use std::os::fd::AsFd;

    use rustix::pipe::{PipeFlags, pipe_with};

    use super::*;

    #[test]
    fn waiting_for_room_ends_when_there_is_room_or_the_batch_has_waited_long_enough() {
        let (read, write) = pipe_with(PipeFlags::CLOEXEC | PipeFlags::NONBLOCK).unwrap();
        assert!(Patience(None).wait_writable(write.as_fd()));
        while rustix::io::write(&write, &[0; 4096]).is_ok() {}
        let mut patience = Patience(None);
        let before = clock::now().mono;
        // A signal that ends a wait counts as room, and the batch waits on for what it has left.
        while patience.wait_writable(write.as_fd()) {}
        assert!(clock::now().mono.since(before) >= MAX_WAIT);
        assert!(
            !patience.wait_writable(write.as_fd()),
            "the second wait of a batch has nothing left"
        );
        rustix::io::read(&read, &mut [0; 65_536]).unwrap();
        assert!(Patience(None).wait_writable(write.as_fd()));
    }
}
