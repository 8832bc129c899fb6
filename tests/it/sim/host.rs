//! What happens to the machine: another network, a suspend, a clock in the past.

use hybridwg::proto::device::Event;
use hybridwg::proto::drop_reason::DropReason;
use hybridwg::time::Wall;

use super::{Kind, Node, Sim, ms, private_key, secs};

/// The way of `node` to `other` has changed.
fn change_path(sim: &mut Sim, node: usize, other: usize) {
    let (now, peer) = (sim.now(node), sim.peer_id(node, other));
    let Node { device, out, .. } = &mut sim.nodes[node];
    device.handle_path_change(now, peer, out);
    sim.settle(node);
}

/// `node` was suspended, or is a copy.
fn wake_up(sim: &mut Sim, node: usize) {
    let now = sim.now(node);
    let Node { device, out, .. } = &mut sim.nodes[node];
    device.handle_discontinuity(now, out);
    sim.settle(node);
}

/// Ends the device of `node` and starts one anew that knows nothing of it.
fn restart(sim: &mut Sim, node: usize) {
    let old = std::mem::replace(&mut sim.nodes[node], Node::new(4711, node));
    sim.nodes[node].wall_offset = old.wall_offset;
    let key = hybridwg::proto::device::Change::PrivateKey(Some(private_key(node)));
    sim.configure(node, key);
    sim.introduce(node, 1 - node, true);
}

#[test]
fn p_81_a_peer_in_touch_is_told_of_another_path_at_once_and_its_source_is_forgotten() {
    let mut sim = Sim::connected(1);
    sim.run(secs(30));
    sim.rebind(0);
    let (moved, cleared) = (sim.mono(), sim.nodes[0].sources_cleared);
    change_path(&mut sim, 0, 1);
    assert_eq!(sim.nodes[0].sources_cleared, cleared + 1);
    sim.run(secs(1));
    assert_eq!(sim.times(0, Kind::Initiation)[1..], [moved], "in the same moment");
    let key = sim.key(0);
    assert_eq!(sim.nodes[1].endpoint(&key), Some(sim.nodes[0].address));
    sim.send(1, 0, b"found");
    sim.run(secs(1));
    assert_eq!(sim.delivered(0), [b"found"]);
}

#[test]
fn another_path_is_told_5_seconds_after_the_last_handshake_message_at_the_earliest() {
    let mut sim = Sim::connected(2);
    let begun = sim.times(0, Kind::Initiation)[0];
    for _ in 0..20 {
        change_path(&mut sim, 0, 1);
        sim.run(ms(10));
    }
    sim.run(secs(10));
    let times = sim.times(0, Kind::Initiation);
    assert_eq!(times.len(), 2, "twenty changes are one");
    assert_eq!(times[1].since(begun), secs(5));
}

#[test]
fn a_responder_tells_of_another_path_too() {
    let mut sim = Sim::connected(3);
    sim.run(secs(30));
    sim.rebind(1);
    change_path(&mut sim, 1, 0);
    sim.run(secs(1));
    sim.send(0, 1, b"to the new place");
    sim.run(secs(1));
    assert_eq!(sim.delivered(1)[1..], [b"to the new place"]);
}

#[test]
fn a_peer_that_we_are_not_in_touch_with_is_not_bothered_by_changes_here() {
    let mut sim = Sim::pair(4);
    change_path(&mut sim, 0, 1);
    wake_up(&mut sim, 0);
    sim.run(secs(60));
    assert_eq!(sim.trace.len(), 0);
    sim.send(0, 1, b"now we are");
    sim.run(secs(15));
    sim.jump(secs(200));
    let sent = sim.trace.len();
    change_path(&mut sim, 0, 1);
    sim.run(secs(1));
    assert_eq!(sim.count(0, Kind::Initiation), 1, "a session that has ended is none");
    assert!(sim.trace.len() <= sent + 1, "{:?}", sim.trace);
}

#[test]
fn p_85_after_a_suspend_no_key_from_before_is_used_and_a_new_session_is_made_at_once() {
    let mut sim = Sim::connected(5);
    sim.run(secs(20));
    let (old, recorded) = (sim.nodes[0].session_indices(), sim.last(1, Kind::Keepalive));
    let woken = sim.mono();
    wake_up(&mut sim, 0);
    let peer = sim.peer_id(0, 1);
    assert!(sim.nodes[0].events.contains(&(woken, Event::KeysErased(peer))));
    sim.run(ms(1));
    assert_eq!(sim.times(0, Kind::Initiation)[1..], [woken]);
    assert_eq!(sim.nodes[0].session_count(), 0, "{old:?}");
    // What a copy of this machine was sent under the old keys says nothing here.
    let from = sim.nodes[1].address;
    sim.inject(0, from, &recorded);
    assert_eq!(sim.nodes[0].drops(DropReason::UnknownIndex), 1);
    sim.send(0, 1, b"awake");
    sim.run(secs(1));
    assert_eq!(sim.delivered(1)[1..], [b"awake"]);
    assert!(sim.nodes[0].session_indices().iter().all(|index| !old.contains(index)));
}

#[test]
fn a_thousand_peers_after_a_suspend_are_asked_in_portions() {
    let mut sim = Sim::strangers(6, 101);
    for other in 1..101 {
        sim.introduce(0, other, true);
        sim.introduce(other, 0, false);
        sim.send(0, other, b"hello");
    }
    sim.run(secs(10));
    let now = sim.now(0);
    let Node { device, out, .. } = &mut sim.nodes[0];
    device.handle_discontinuity(now, out);
    let sent = |out: &mut hybridwg::proto::device::Outputs| {
        let is_sent =
            |output: &_| matches!(output, hybridwg::proto::device::Output::Transmit { .. });
        out.drain().filter(is_sent).count()
    };
    assert_eq!(sent(out), 0, "the caller gets his turn back");
    device.handle_timeout(now, out);
    assert_eq!(sent(out), 64);
    device.handle_timeout(now, out);
    assert_eq!(sent(out), 36);
}

/// Whether node 0 gets through to node 1 after a restart with its clock a year in the past.
fn gets_through(floor: impl FnOnce(Option<Wall>) -> Option<Wall>) -> bool {
    let mut sim = Sim::connected(7);
    let last = sim.nodes[0].device.timestamp_floor();
    sim.nodes[0].wall_offset = -31_536_000;
    restart(&mut sim, 0);
    if let Some(floor) = floor(last) {
        sim.nodes[0].device.raise_timestamp_floor(floor);
    }
    let before = sim.nodes[1].delivered.len();
    sim.run(secs(60));
    sim.send(0, 1, b"from the past");
    sim.run(secs(60));
    sim.nodes[1].delivered.len() > before
}

#[test]
fn p_43_a_clock_in_the_past_after_a_restart_locks_nobody_out_if_the_last_timestamp_is_kept() {
    assert!(!gets_through(|_| None), "else nothing is kept in vain");
    assert!(gets_through(|last| last));
}
