//! Sending many datagrams per call with `sendmmsg`.
//!
//! `sendmmsg` stops at the first datagram it cannot send. Everything after that one is sent
//! nevertheless: a failure costs its own datagram only. [P-87]

use std::mem::zeroed;
use std::net::{IpAddr, SocketAddr};
use std::os::fd::{AsRawFd, BorrowedFd};
use std::ptr::null_mut;
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec, poll};

use super::address::RawAddress;
use super::{Family, Local, UdpSockets};
use crate::sys::cmsg::ControlBuffer;
use crate::sys::{SysError, check, clock};
use crate::time::Instant;

/// How long one batch may wait for room in the socket's buffer before the rest of it is given up.
/// Waiting is the back-pressure that inner senders feel; the bound keeps a dead device from
/// stopping the thread.
const MAX_WAIT: Duration = Duration::from_millis(100);

/// One datagram to send.
#[derive(Clone, Copy, Debug)]
pub struct SendItem<'a> {
    pub remote: SocketAddr,
    /// The address to send from; `None` lets the routing table choose. Of another family than
    /// `remote` it is ignored.
    pub source: Option<Local>,
    /// DSCP and ECN of the outer header.
    pub tos: u8,
    pub payload: &'a [u8],
}

/// What became of a batch. Positions are those of the items as given.
#[derive(Debug, Default)]
pub struct SendReport {
    /// Datagrams the kernel took.
    pub sent: usize,
    /// Sent (or failed) without the source asked for, because the kernel refused it: forget it.
    pub source_refused: Vec<usize>,
    /// Datagrams lost, with the reason.
    pub failed: Vec<(usize, SysError)>,
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

#[derive(Clone, Debug)]
struct Slot {
    name: RawAddress,
    control: ControlBuffer,
    tos: u8,
    has_source: bool,
    position: usize,
}

// SAFETY: the pointers in `headers` and `pieces` are only used by the kernel inside
// `UdpSockets::send_batch`, which writes those in use anew from live borrows before each call and
// forgets them (`filled = 0`) before it returns.
unsafe impl Send for Sender {}

impl Sender {
    /// Room for `capacity` datagrams of each family per system call; a batch may be longer.
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
            let Some(socket) = self.socket(family) else {
                report
                    .failed
                    .push((position, SysError::from_errno("sendmmsg", libc::EAFNOSUPPORT)));
                continue;
            };
            let lane = &mut sender.lanes[family.lane()];
            lane.push(position, &item);
            if lane.is_full() {
                lane.flush(socket, &mut patience, &mut report);
            }
        }
        for family in [Family::V4, Family::V6] {
            if let Some(socket) = self.socket(family) {
                sender.lanes[family.lane()].flush(socket, &mut patience, &mut report);
            }
        }
        report
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
            tos: 0,
            has_source: false,
            position: 0,
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

    fn push(&mut self, position: usize, item: &SendItem<'_>) {
        let at = self.filled;
        let slot = &mut self.slots[at];
        let (name, name_len) = RawAddress::encode(item.remote);
        slot.name = name;
        slot.tos = item.tos;
        slot.position = position;
        slot.encode_control(item.remote, item.source);
        self.pieces[at] = libc::iovec {
            iov_base: item.payload.as_ptr().cast_mut().cast(),
            iov_len: item.payload.len(),
        };
        let header = &mut self.headers[at].msg_hdr;
        header.msg_name = slot.name.as_mut_ptr();
        header.msg_namelen = libc::socklen_t::try_from(name_len).unwrap_or(0);
        header.msg_iov = &raw mut self.pieces[at];
        header.msg_iovlen = 1;
        self.point_at_control(at);
        self.filled += 1;
    }

    fn point_at_control(&mut self, at: usize) {
        let control = &mut self.slots[at].control;
        let len = control.as_bytes().len();
        let header = &mut self.headers[at].msg_hdr;
        header.msg_control =
            if len == 0 { null_mut() } else { control.space().as_mut_ptr().cast() };
        header.msg_controllen = len;
    }

    /// Sends what is filled, past every failure, and empties the lane.
    fn flush(&mut self, socket: BorrowedFd<'_>, patience: &mut Patience, report: &mut SendReport) {
        let mut at = 0;
        while at < self.filled {
            match send_once(socket, &mut self.headers[at..self.filled]) {
                Ok(sent) => {
                    report.sent += sent;
                    at += sent;
                }
                Err(error) if error.is_interrupted() => {}
                Err(error) if error.is_would_block() && patience.wait_writable(socket) => {}
                Err(error) if error.is_source_refused() && self.slots[at].has_source => {
                    report.source_refused.push(self.slots[at].position);
                    self.drop_source(at);
                }
                Err(error) => {
                    report.failed.push((self.slots[at].position, error));
                    at += 1;
                }
            }
        }
        self.filled = 0;
    }

    /// Lets the routing table choose the source of one datagram, which is then tried again. [P-81]
    fn drop_source(&mut self, at: usize) {
        let slot = &mut self.slots[at];
        if let Some(remote) = slot.name.decode() {
            slot.encode_control(remote, None);
        }
        slot.has_source = false;
        self.point_at_control(at);
    }
}

impl Slot {
    fn encode_control(&mut self, remote: SocketAddr, source: Option<Local>) {
        self.control.clear();
        self.has_source = false;
        if self.tos != 0 {
            match Family::of(remote) {
                Family::V4 => self.control.push_tos_v4(self.tos),
                Family::V6 => self.control.push_tclass_v6(self.tos),
            }
        }
        match (remote, source) {
            // The interface is not asked for: an IPv4 route lookup bound to an interface without a
            // matching route takes the destination for a neighbour and waits for ARP, where an
            // unbound one follows the routing table. The kernel's own implementation binds the
            // address only, too. [LNX socket.c:send4]
            (SocketAddr::V4(_), Some((IpAddr::V4(address), _))) => {
                self.control.push_packet_info_v4(address, 0);
                self.has_source = true;
            }
            (SocketAddr::V6(_), Some((IpAddr::V6(address), interface))) => {
                // A link-local address means nothing without its interface.
                let scope = if address.is_unicast_link_local() { interface } else { 0 };
                self.control.push_packet_info_v6(address, scope);
                self.has_source = true;
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
        assert!(!patience.wait_writable(write.as_fd()));
        assert!(clock::now().mono.since(before) >= MAX_WAIT);
        assert!(
            !patience.wait_writable(write.as_fd()),
            "the second wait of a batch has nothing left"
        );
        rustix::io::read(&read, &mut [0; 65_536]).unwrap();
        assert!(Patience(None).wait_writable(write.as_fd()));
    }
}
