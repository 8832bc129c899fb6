//! Whether the offloads do what the kernel has promised: a train of datagrams over the loopback
//! interface, at start, before anybody's packets depend on it.
//!
//! A kernel that refuses is dealt with when it does, packet by packet. One that accepts and then
//! cuts or joins wrongly, as a look-alike of Linux may, can only be found out by looking at what
//! arrives.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Duration;

use super::{Receiver, RecvMeta, SendItem, Sender, UdpOffloads, UdpSockets};
use crate::sys::SysError;
use crate::sys::poll::{Interest, Poller};

/// Datagrams of the train; the last one is shorter.
const DATAGRAMS: usize = 5;

/// Bytes of each but the last.
const STRIDE: usize = 1200;

/// Bytes of the train.
const BYTES: usize = (DATAGRAMS - 1) * STRIDE + 333;

/// How long to wait for what has not arrived. Loopback delivers before the send returns.
const PATIENCE: Duration = Duration::from_millis(50);

/// Those of the `wanted` offloads that work. Where not even single datagrams cross the loopback
/// interface, since it is down, the kernel is taken at its word.
pub fn self_test(wanted: UdpOffloads) -> UdpOffloads {
    if !works(UdpOffloads { segmentation: false, gro: false }) {
        return wanted;
    }
    let segmentation = wanted.segmentation && works(UdpOffloads { segmentation: true, gro: false });
    let gro = wanted.gro && works(UdpOffloads { segmentation, gro: true });
    UdpOffloads { segmentation, gro }
}

fn works(offloads: UdpOffloads) -> bool {
    arrivals(offloads).is_ok_and(|arrived| is_whole(&arrived))
}

/// The bytes of the train: no two datagrams are alike.
fn train() -> Vec<u8> {
    (0..BYTES).map(|at| (at % 251) as u8 ^ (at / STRIDE) as u8).collect()
}

/// Whether the `arrived` datagrams are those of the train, in order.
fn is_whole(arrived: &[Vec<u8>]) -> bool {
    arrived.iter().map(Vec::as_slice).eq(train().chunks(STRIDE))
}

/// Sends the train with `offloads.segmentation`, receives with `offloads.gro`, and yields what
/// arrived.
///
/// # Errors
/// There are no sockets to be had, or the kernel did not take the train.
fn arrivals(offloads: UdpOffloads) -> Result<Vec<Vec<u8>>, SysError> {
    let outbox = UdpSockets::bind(0, 0, UdpOffloads { gro: false, ..offloads })?;
    let inbox = UdpSockets::bind(0, 0, UdpOffloads { segmentation: false, ..offloads })?;
    let loopback = if outbox.v4.is_some() && inbox.v4.is_some() {
        IpAddr::from(Ipv4Addr::LOCALHOST)
    } else {
        IpAddr::from(Ipv6Addr::LOCALHOST)
    };
    let remote = SocketAddr::new(loopback, inbox.local_port());
    let payload = &train()[..];
    let item = SendItem { remote, source: None, tos: 0, payload, stride: STRIDE, is_probe: false };
    let report = outbox.send_batch(&mut Sender::new(DATAGRAMS), [item]);
    if let Some(failed) = report.failed.into_iter().next() {
        return Err(failed.error);
    }
    let mut poller = Poller::new()?;
    for fd in inbox.fds().into_iter().flatten() {
        poller.add(fd, 0, Interest::Readable)?;
    }
    let mut receiver = Receiver::new(1);
    let (mut arrived, mut buffer) = (Vec::new(), vec![0; 2 * BYTES]);
    while arrived.len() < DATAGRAMS && poller.wait(Some(PATIENCE))?.count() > 0 {
        let mut meta = [RecvMeta::default()];
        let count = inbox.recv_batch(&mut receiver, [true; 2], [&mut buffer[..]], &mut meta)?;
        let [RecvMeta { remote, len, stride, .. }] = meta;
        // Anybody on this host can send to the port.
        if count == 1 && remote.port() == outbox.local_port() {
            arrived.extend(buffer[..len].chunks(stride.max(1)).map(<[u8]>::to_vec));
        }
    }
    Ok(arrived)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sys::testing::{in_own_namespace, ip};

    #[test]
    fn what_this_kernel_has_works() {
        let sockets = UdpSockets::bind(0, 0, UdpOffloads::ALL).unwrap();
        assert_eq!(self_test(sockets.offloads()), sockets.offloads());
        let none = UdpOffloads { segmentation: false, gro: false };
        assert_eq!(self_test(none), none);
        for segmentation in [true, false] {
            for gro in [true, false] {
                let arrived = arrivals(UdpOffloads { segmentation, gro }).unwrap();
                assert!(is_whole(&arrived), "segmentation {segmentation}, GRO {gro}");
            }
        }
    }

    #[test]
    fn a_train_that_arrives_otherwise_is_told() {
        let datagrams: Vec<_> = train().chunks(STRIDE).map(<[u8]>::to_vec).collect();
        assert!(is_whole(&datagrams));
        assert!(!is_whole(&[train()]), "not cut");
        assert!(!is_whole(&datagrams[1..]), "the first is lost");
        assert!(!is_whole(&datagrams[..DATAGRAMS - 1]), "the last is lost");
        let mut swapped = datagrams.clone();
        swapped.swap(1, 2);
        assert!(!is_whole(&swapped), "reordered");
        let elsewhere: Vec<_> = train().chunks(STRIDE + 1).map(<[u8]>::to_vec).collect();
        assert!(!is_whole(&elsewhere), "cut at another place");
        let mut changed = datagrams;
        changed[3][7] ^= 1;
        assert!(!is_whole(&changed), "changed");
    }

    #[test]
    fn without_a_loopback_interface_the_kernel_is_taken_at_its_word() {
        in_own_namespace(|| {
            ip("link set lo down");
            assert!(!works(UdpOffloads::ALL));
            assert_eq!(self_test(UdpOffloads::ALL), UdpOffloads::ALL);
        });
    }
}
