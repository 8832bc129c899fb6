//! Tells when this machine has become a copy of another: events of kernel objects (uevents), of
//! which one matters here.
//!
//! A hypervisor gives a machine that it restores from a snapshot, or clones, another generation
//! number. The kernel's `vmgenid` driver says so to whoever listens, from 6.10 on; in a network
//! namespace of another user namespace nobody hears it. [LNX vmgenid.c:vmgenid_notify]
//! [LNX kobject_uevent.c:uevent_net_broadcast_untagged]

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::io::Errno;
use rustix::net::netlink::{KOBJECT_UEVENT, SocketAddrNetlink};
use rustix::net::{self, AddressFamily, RecvFlags, SocketAddrAny, SocketFlags, SocketType};

use super::SysError;

/// Polls readable when there was an event of whatever kind.
#[derive(Debug)]
pub struct CloneWatch {
    socket: OwnedFd,
}

impl CloneWatch {
    /// # Errors
    /// The failing system call; sandboxes without netlink exist.
    pub fn new() -> Result<Self, SysError> {
        let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
        let socket =
            net::socket_with(AddressFamily::NETLINK, SocketType::RAW, flags, Some(KOBJECT_UEVENT))
                .map_err(|e| SysError::new("socket(NETLINK_KOBJECT_UEVENT)", e))?;
        net::bind(&socket, &SocketAddrNetlink::new(0, KERNEL_EVENTS))
            .map_err(|e| SysError::new("bind(NETLINK_KOBJECT_UEVENT)", e))?;
        Ok(Self { socket })
    }

    /// Reads all pending events; true if one of them says that this machine is a copy, or could
    /// have said so and was lost to a full buffer.
    pub fn drain(&self) -> bool {
        /// The kernel makes none that is longer. [LNX kobject.h:UEVENT_BUFFER_SIZE]
        const EVENT_BYTES: usize = 8192;
        let mut buffer = [0; EVENT_BYTES];
        let mut is_copy = false;
        loop {
            match net::recvfrom(&self.socket, &mut buffer, RecvFlags::DONTWAIT) {
                Ok((length, _, sender)) => {
                    is_copy |= is_kernel(sender) && says_copy(&buffer[..length]);
                }
                Err(Errno::NOBUFS) => is_copy = true,
                Err(Errno::INTR) => {}
                Err(_) => return is_copy,
            }
        }
    }
}

impl AsFd for CloneWatch {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

/// The group that the kernel writes to; another is udev's.
const KERNEL_EVENTS: u32 = 1;

fn is_kernel(sender: Option<SocketAddrAny>) -> bool {
    let sender = sender.and_then(|sender| SocketAddrNetlink::try_from(sender).ok());
    sender.is_some_and(|sender| sender.pid() == 0)
}

/// Whether an event, `ACTION@PATH` and pairs, each with a zero byte after it, says so.
fn says_copy(event: &[u8]) -> bool {
    event.split(|&byte| byte == 0).skip(1).any(|pair| pair == b"NEW_VMGENID=1")
}

#[cfg(test)]
mod tests {
    use rustix::net::sockopt;

    use super::*;
    use crate::sys::testing::{eventually, in_own_namespace, skip};

    const CLONED: &[u8] = b"change@/devices/platform/VMGENCTR:00\0ACTION=change\0\
        DEVPATH=/devices/platform/VMGENCTR:00\0SUBSYSTEM=platform\0NEW_VMGENID=1\0";
    const OTHER: &[u8] = b"change@/devices/NEW_VMGENID=1\0ACTION=change\0NEW_VMGENID=10\0";

    /// Has the kernel send an event to this network namespace alone.
    /// [LNX kobject_uevent.c:uevent_net_rcv_skb]
    fn inject(event: &[u8]) -> Result<(), Errno> {
        let socket =
            net::socket(AddressFamily::NETLINK, SocketType::RAW, Some(KOBJECT_UEVENT)).unwrap();
        let length = u32::try_from(16 + event.len()).unwrap();
        // `struct nlmsghdr`: any type that is no control message, NLM_F_REQUEST and NLM_F_ACK.
        let mut message = [&length.to_ne_bytes()[..], &16_u16.to_ne_bytes()].concat();
        message.extend([&5_u16.to_ne_bytes()[..], &[0; 8], event].concat());
        let kernel = SocketAddrNetlink::new(0, 0);
        net::sendto(&socket, &message, net::SendFlags::empty(), &kernel)?;
        let mut answer = [0_u8; 64];
        net::recv(&socket, &mut answer, RecvFlags::empty())?;
        let error = i32::from_ne_bytes(answer[16..20].try_into().unwrap());
        if error == 0 { Ok(()) } else { Err(Errno::from_raw_os_error(-error)) }
    }

    #[test]
    fn p_85_an_event_of_a_new_generation_is_told_from_others() {
        assert!(says_copy(CLONED));
        assert!(!says_copy(OTHER) && !says_copy(b"") && !says_copy(b"NEW_VMGENID=1\0"));
    }

    #[test]
    fn p_85_what_the_kernel_says_of_a_new_generation_is_heard_once() {
        in_own_namespace(|| {
            let watch = CloneWatch::new().unwrap();
            watch.drain();
            if let Err(error) = inject(OTHER) {
                return skip(&format!("the kernel takes no event from here: {error}"));
            }
            assert!(!watch.drain());
            inject(CLONED).unwrap();
            assert!(eventually(|| watch.drain()));
            assert!(!watch.drain());
        });
    }

    #[test]
    fn an_event_that_was_lost_could_have_been_it() {
        in_own_namespace(|| {
            let watch = CloneWatch::new().unwrap();
            // As small as it can be: the kernel raises it to its least.
            sockopt::set_socket_recv_buffer_size(&watch.socket, 0).unwrap();
            watch.drain();
            if let Err(error) = inject(OTHER) {
                return skip(&format!("the kernel takes no event from here: {error}"));
            }
            assert!(!watch.drain());
            for _ in 0..100 {
                inject(OTHER).unwrap();
            }
            assert!(watch.drain());
            assert!(!watch.drain());
        });
    }

    #[test]
    fn p_85_nobody_but_the_kernel_is_believed() {
        in_own_namespace(|| {
            let watch = CloneWatch::new().unwrap();
            watch.drain();
            let forger =
                net::socket(AddressFamily::NETLINK, SocketType::RAW, Some(KOBJECT_UEVENT)).unwrap();
            let all = SocketAddrNetlink::new(0, KERNEL_EVENTS);
            net::sendto(&forger, CLONED, net::SendFlags::empty(), &all).unwrap();
            assert!(!watch.drain());
        });
    }
}
