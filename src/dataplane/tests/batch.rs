//! Packets that are sealed and opened several at once, beside the same packets one by one.

use super::offload::super_packet;
use super::*;
use crate::crypto::batch::Kernel;
use crate::packet::batch::Received;
use crate::wire::ip::set_ecn;

/// Two nodes with a session twice: those that have a kernel, and those that do without. `None` where
/// this processor has none.
fn both() -> Option<[[Node; 2]; 2]> {
    let Some(kernel) = Kernel::find().unwrap() else {
        println!("skipped: this processor has no kernel");
        return None;
    };
    let [mut a, mut b] = connected(at(0));
    a.shard = a.shard.with_kernel(Some(kernel));
    b.shard = b.shard.with_kernel(Some(kernel));
    Some([[a, b], connected(at(0))])
}

#[test]
fn what_is_sealed_together_leaves_as_what_is_sealed_one_by_one() {
    let Some([[mut together, _], [mut alone, _]]) = both() else { return };
    for (len, size) in [(60_000, 1392), (65_000, 1000), (900, 10), (5_000, 1000), (20_001, 1392)] {
        let (packet, vnet) = super_packet(len, size);
        for node in [&mut together, &mut alone] {
            node.ip.push(&there(100, 1));
            node.ip.push_super(&packet, vnet);
            node.ip.push(&there(100, 2));
            node.settle(at(1));
        }
        assert_eq!(together.udp.take_trains(), alone.udp.take_trains());
        let [found, expected] = [&together, &alone].map(|node| node.udp.take_sent());
        assert!(found.len() > 2);
        assert_eq!(found, expected, "{len} bytes, cut every {size}");
    }
    assert_eq!(together.tables.drops.total() + alone.tables.drops.total(), 0);
    assert_eq!(together.path().tx_bytes(), alone.path().tx_bytes());
}

#[test]
fn trains_that_are_full_are_sent_only_when_they_are_sealed() {
    let Some([[mut together, mut b], _]) = both() else { return };
    // Each fills a train of 64 datagrams and begins another: more than there are for a turn.
    let (packet, vnet) = super_packet(28 + 88 * 10, 10);
    (0..32).for_each(|_| together.ip.push_super(&packet, vnet));
    let sent = together.send(at(1), &[]);
    assert_eq!(b.receive(at(1), &together, &sent).len(), 32 * 88);
    assert_eq!(b.tables.drops.total(), 0, "all were sealed, each under a counter of its own");
}

/// What differs in a message of 44 datagrams from what it should be.
type Change = fn(&mut Vec<Vec<u8>>);

#[test]
fn what_is_opened_together_is_dealt_with_as_what_is_opened_one_by_one() {
    let changes: [Change; 8] = [
        |_| {},
        |datagrams| datagrams[3][100] ^= 1,
        |datagrams| datagrams.iter_mut().for_each(|datagram| datagram[40] ^= 0x80),
        |datagrams| datagrams[20] = datagrams[19].clone(),
        // Of another session, in the middle and at the front.
        |datagrams| datagrams[17][4] ^= 1,
        |datagrams| datagrams[0][4] ^= 1,
        // No transport message, and one beyond the limit of counters.
        |datagrams| datagrams[9][0] = 9,
        |datagrams| datagrams[30][8..16].fill(0xff),
    ];
    for (n, change) in changes.into_iter().enumerate() {
        let Some(both) = both() else { return };
        let [together, alone] = both.map(|[mut a, mut b]| {
            let (mut packet, vnet) = super_packet(60_000, 1392);
            set_ecn(&mut packet, Ecn::Ect0);
            a.ip.push_super(&packet, vnet);
            a.settle(at(1));
            let mut datagrams: Vec<_> =
                a.udp.take_sent().into_iter().map(|sent| sent.bytes).collect();
            change(&mut datagrams);
            let (bytes, stride) = (datagrams.concat(), datagrams[0].len());
            let (len, from) = (bytes.len(), Endpoint::new("203.0.113.9:9".parse().unwrap()));
            let message = Received { len, stride, from, ecn: Ecn::Ce, truncated: false };
            b.udp.push_message(message, &bytes);
            b.settle(at(2));
            b
        });
        let told = |node: &Node| {
            let path = node.path();
            let dropped: Vec<_> =
                DropReason::ALL.iter().map(|&reason| node.dropped(reason)).collect();
            (node.ip.take_delivered(), dropped, path.endpoint(), path.rx_bytes())
        };
        let (found, expected) = (told(&together), told(&alone));
        assert!(found.0.len() + together.tables.drops.total() as usize == 44, "change {n}");
        assert!(found == expected, "change {n}: {:?} {:?}", found.1, expected.1);
    }
}
