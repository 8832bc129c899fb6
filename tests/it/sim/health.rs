//! What a peer that is required is blamed for.

use hybridwg::control::health::complaint;

use super::{Sim, secs};

/// What node 0 complains of about node 1, without the peer's name.
fn said(sim: &Sim) -> Option<String> {
    let device = &sim.nodes[0].device;
    let peer = device.peer(sim.peer_id(0, 1)).unwrap();
    let text = complaint(peer, sim.mono())?;
    Some(text.split_once(": ").unwrap().1.to_owned())
}

/// Asks for a session, as a probe does.
fn ask(sim: &mut Sim) {
    let (now, peer) = (sim.now(0), sim.peer_id(0, 1));
    let node = &mut sim.nodes[0];
    node.device.want_session(now, peer, &mut node.out);
    sim.settle(0);
}

#[test]
fn u_08_a_peer_without_a_session_yet_is_blamed_and_for_how_long_it_has_not_answered() {
    let mut sim = Sim::pair(1);
    assert_eq!(said(&sim).unwrap(), "no session yet");
    sim.filter = Box::new(|_, _| false);
    ask(&mut sim);
    sim.run(secs(7));
    assert_eq!(said(&sim).unwrap(), "no session yet, no answer for 7 s");
    sim.filter = Box::new(|_, _| true);
    sim.run(secs(10));
    assert_eq!(said(&sim), None);
}

#[test]
fn u_08_a_silent_idle_peer_is_not_blamed_until_it_was_asked_and_has_not_answered_for_15_seconds() {
    let mut sim = Sim::connected(2);
    // What was sent has had its answer.
    sim.run(secs(20));
    sim.filter = Box::new(|_, _| false);
    sim.run(secs(200));
    assert_eq!(said(&sim), None, "idle, and its session is over");
    ask(&mut sim);
    sim.run(secs(14));
    assert_eq!(said(&sim), None);
    sim.run(secs(2));
    assert_eq!(said(&sim).unwrap(), "has not answered for 16 s");
    sim.run(secs(200));
    assert_eq!(said(&sim).unwrap(), "has not answered for 216 s", "although it was given up");
    sim.filter = Box::new(|_, _| true);
    ask(&mut sim);
    sim.run(secs(10));
    assert_eq!(said(&sim), None);
}

#[test]
fn u_08_a_peer_that_has_no_endpoint_must_call_and_is_fine_when_it_has() {
    let mut sim = Sim::strangers(3, 2);
    sim.introduce(0, 1, false);
    sim.introduce(1, 0, true);
    assert_eq!(said(&sim).unwrap(), "no session yet; it has no endpoint and must call us");
    sim.send(1, 0, b"hello");
    sim.run(secs(1));
    assert_eq!(said(&sim), None);
}
