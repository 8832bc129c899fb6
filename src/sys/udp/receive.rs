//! Receiving many datagrams per call with `recvmmsg`.

use std::mem::zeroed;
use std::net::{Ipv4Addr, SocketAddr};
use std::os::fd::{AsRawFd, BorrowedFd};
use std::ptr::null_mut;

use super::address::{self, RawAddress};
use super::errors::{self, Narrowed};
use super::{Family, Local, UdpSockets};
use crate::sys::cmsg::{ControlBuffer, Received};
use crate::sys::{SysError, check};

/// Errors of the network's that one call puts up with before it reports "nothing there", so that a
/// storm of them cannot hold the caller.
const SURVIVED_PER_CALL: u32 = 16;

/// Batches from one family before the other is asked first, so that neither starves.
const TURN_BATCHES: u32 = 8;

/// What is known of one received datagram.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RecvMeta {
    /// The sender. An IPv6 link-local sender has its scope.
    pub remote: SocketAddr,
    /// Where it was sent to: the source of an answer. [P-81]
    pub local: Option<Local>,
    /// Bytes in the buffer.
    pub len: usize,
    /// Bytes between the starts of datagrams that the kernel joined in one buffer; equal to `len`
    /// for a single one.
    pub stride: usize,
    /// The two ECN bits of the outer header. [RFC 6040]
    pub ecn: u8,
    /// The datagram was longer than its buffer; the rest is lost and the packet is of no use.
    pub truncated: bool,
}

impl Default for RecvMeta {
    fn default() -> Self {
        Self {
            remote: SocketAddr::from((Ipv4Addr::UNSPECIFIED, 0)),
            local: None,
            len: 0,
            stride: 0,
            ecn: 0,
            truncated: false,
        }
    }
}

/// The memory of `recvmmsg`, made once per receiving thread.
#[derive(Debug)]
pub struct Receiver {
    headers: Box<[libc::mmsghdr]>,
    pieces: Box<[libc::iovec]>,
    names: Box<[RawAddress]>,
    controls: Box<[ControlBuffer]>,
    first: Family,
    batches_of_first: u32,
    survived_errors: u64,
    narrowed: Vec<Narrowed>,
}

// SAFETY: the pointers in `headers` and `pieces` are only ever used by the kernel inside
// `UdpSockets::recv_batch`, which writes all of them anew from live borrows before each call; left
// over from an earlier call they are plain numbers.
unsafe impl Send for Receiver {}

impl Receiver {
    /// Room for `capacity` datagrams per call.
    pub fn new(capacity: usize) -> Self {
        // SAFETY: `mmsghdr` is integers and nullable pointers: all-zero is a valid value.
        let header: libc::mmsghdr = unsafe { zeroed() };
        let piece = libc::iovec { iov_base: null_mut(), iov_len: 0 };
        Self {
            headers: vec![header; capacity].into(),
            pieces: vec![piece; capacity].into(),
            names: vec![RawAddress::EMPTY; capacity].into(),
            controls: vec![ControlBuffer::default(); capacity].into(),
            first: Family::V4,
            batches_of_first: 0,
            survived_errors: 0,
            narrowed: Vec::new(),
        }
    }

    /// How many errors of the network's receiving has survived so far.
    pub fn survived_errors(&self) -> u64 {
        self.survived_errors
    }

    /// Takes what was heard of sizes that do not fit.
    pub fn take_narrowed(&mut self) -> Vec<Narrowed> {
        std::mem::take(&mut self.narrowed)
    }

    /// Points one header at each buffer; returns how many.
    fn prepare<'b>(
        &mut self,
        buffers: impl IntoIterator<Item = &'b mut [u8]>,
        limit: usize,
    ) -> usize {
        let slots = self
            .headers
            .iter_mut()
            .zip(&mut self.pieces)
            .zip(&mut self.names)
            .zip(&mut self.controls);
        let mut count = 0;
        for ((((header, piece), name), control), buffer) in slots.zip(buffers).take(limit) {
            *piece = libc::iovec { iov_base: buffer.as_mut_ptr().cast(), iov_len: buffer.len() };
            header.msg_hdr.msg_iov = piece;
            header.msg_hdr.msg_iovlen = 1;
            header.msg_hdr.msg_name = name.as_mut_ptr();
            header.msg_hdr.msg_control = control.space().as_mut_ptr().cast();
            count += 1;
        }
        self.restore_lengths(count);
        count
    }

    /// The kernel overwrites the lengths of name and control data with what it used.
    fn restore_lengths(&mut self, count: usize) {
        for (header, control) in self.headers[..count].iter_mut().zip(&mut self.controls) {
            header.msg_hdr.msg_namelen = libc::socklen_t::try_from(address::BYTES).unwrap_or(0);
            header.msg_hdr.msg_controllen = control.space().len() as _;
            header.msg_hdr.msg_flags = 0;
        }
    }

    /// One family's datagrams; 0 if none wait.
    fn receive(&mut self, socket: BorrowedFd<'_>, count: usize) -> Result<usize, SysError> {
        for _ in 0..SURVIVED_PER_CALL {
            match receive_once(socket, &mut self.headers[..count]) {
                Ok(received) => return Ok(received),
                Err(error) if error.is_would_block() => return Ok(0),
                Err(error) if error.is_interrupted() => {}
                Err(error) if error.is_fatal_for_receive() => return Err(error),
                // ECONNREFUSED, EHOSTUNREACH, ENETDOWN, ENOBUFS…: past events, not a state.
                Err(_) => {
                    self.survived_errors += 1;
                    errors::drain(socket, &mut self.narrowed);
                }
            }
        }
        Ok(0)
    }

    /// Describes the first `received` datagrams.
    fn describe(&mut self, received: usize, metas: &mut [RecvMeta]) {
        let slots = self.headers[..received].iter().zip(&self.names).zip(&mut self.controls);
        for (((header, name), control), meta) in slots.zip(metas) {
            control.set_len(header.msg_hdr.msg_controllen as _);
            let told = Received::decode(control.as_bytes());
            let len = usize::try_from(header.msg_len).unwrap_or(0);
            *meta = RecvMeta {
                remote: name.decode().unwrap_or(RecvMeta::default().remote),
                local: told.local,
                len,
                stride: told.segment_size.unwrap_or(len),
                ecn: told.tos & 0b11,
                truncated: header.msg_hdr.msg_flags & libc::MSG_TRUNC != 0,
            };
        }
    }
}

impl UdpSockets {
    /// Receives up to as many datagrams as there are `buffers`, `metas` and room in `receiver`, all
    /// of one family, from the `ready` ones of [`fds`](Self::fds); the first `n` buffers and metas
    /// are filled. 0 means that nothing waits (or nothing but errors did): poll and come again.
    ///
    /// # Errors
    /// Only for a defect of ours; whatever the network does is survived and counted. [P-86]
    pub fn recv_batch<'b>(
        &self,
        receiver: &mut Receiver,
        ready: [bool; 2],
        buffers: impl IntoIterator<Item = &'b mut [u8]>,
        metas: &mut [RecvMeta],
    ) -> Result<usize, SysError> {
        let count = receiver.prepare(buffers, metas.len());
        if count == 0 {
            return Ok(0);
        }
        if receiver.batches_of_first >= TURN_BATCHES {
            receiver.first = receiver.first.other();
            receiver.batches_of_first = 0;
        }
        for family in [receiver.first, receiver.first.other()] {
            let Some(socket) = self.socket(family).filter(|_| ready[family as usize]) else {
                continue;
            };
            let received = receiver.receive(socket, count)?;
            if received > 0 {
                receiver.batches_of_first =
                    if receiver.first == family { receiver.batches_of_first + 1 } else { 0 };
                receiver.first = family;
                receiver.describe(received, metas);
                return Ok(received);
            }
        }
        Ok(0)
    }
}

fn receive_once(socket: BorrowedFd<'_>, headers: &mut [libc::mmsghdr]) -> Result<usize, SysError> {
    let count = libc::c_uint::try_from(headers.len()).unwrap_or(libc::c_uint::MAX);
    // SAFETY: `socket` is open for the call. Each of the `count` headers was filled by `prepare`:
    // its name, control and data pointers with the lengths beside them denote distinct, initialised
    // memory, exclusively borrowed by the caller of `recv_batch` (data) or owned by the `Receiver`
    // (name, control), all of which outlives the call. A null timeout is allowed.
    let received = unsafe {
        libc::recvmmsg(
            socket.as_raw_fd(),
            headers.as_mut_ptr(),
            count,
            libc::MSG_DONTWAIT as _,
            null_mut(),
        )
    };
    Ok(usize::try_from(check("recvmmsg", received)?).unwrap_or(0))
}

/// Receives one message into `buffer`, as far as it fits, and tells how many bytes that are, and the
/// flags of the message. What waits in the error queue is a message, too.
pub(in crate::sys) fn receive_message(
    socket: BorrowedFd<'_>,
    flags: libc::c_int,
    buffer: &mut [u8],
    name: &mut RawAddress,
    control: &mut ControlBuffer,
) -> Result<(usize, libc::c_int), SysError> {
    let mut piece = libc::iovec { iov_base: buffer.as_mut_ptr().cast(), iov_len: buffer.len() };
    // SAFETY: `msghdr` is integers and nullable pointers: all-zero is a valid value.
    let mut header: libc::msghdr = unsafe { zeroed() };
    header.msg_name = name.as_mut_ptr();
    header.msg_namelen = libc::socklen_t::try_from(address::BYTES).unwrap_or(0);
    header.msg_iov = &raw mut piece;
    header.msg_iovlen = 1;
    header.msg_control = control.space().as_mut_ptr().cast();
    header.msg_controllen = control.space().len() as _;
    let flags = flags | libc::MSG_DONTWAIT;
    loop {
        // SAFETY: the socket is open. The name and control pointers denote memory of the lengths
        // beside them, the one iovec denotes `buffer`; all are borrowed mutably and outlive the call.
        let received = unsafe { libc::recvmsg(socket.as_raw_fd(), &raw mut header, flags) };
        match check("recvmsg", libc::c_int::try_from(received).unwrap_or(0)) {
            Ok(received) => {
                control.set_len(header.msg_controllen as _);
                let received = usize::try_from(received).unwrap_or(0).min(buffer.len());
                return Ok((received, header.msg_flags));
            }
            Err(error) if error.is_interrupted() => {}
            Err(error) => return Err(error),
        }
    }
}
