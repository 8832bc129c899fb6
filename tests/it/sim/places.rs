//! Peers whose endpoint is a name, or a list: look-ups, races, failover and return.

use std::net::SocketAddr;

use hybridwg::proto::device::Change;
use hybridwg::proto::places::Place;
use hybridwg::time::Instant;

use super::{Kind, Node, Sim, ms, private_key, secs};

const NOBODY: &str = "203.0.113.9:51820";

fn hub() -> Place {
    Place::Name { host: "hub.example".to_owned(), port: 51820 }
}

/// Node 0 knows node 1 by these places; nothing has an address yet unless it is one.
fn by_places(seed: u64, places: Vec<Place>) -> Sim {
    let mut sim = Sim::strangers(seed, 2);
    sim.introduce(0, 1, false);
    sim.introduce(1, 0, false);
    sim.update(0, 1, |update| update.places = Some(places));
    sim
}

/// The answer of the name server to node 0.
fn resolved(sim: &mut Sim, addresses: &[SocketAddr]) {
    let (now, peer) = (sim.now(0), sim.peer_id(0, 1));
    let Node { device, out, lookups, .. } = &mut sim.nodes[0];
    lookups.clear();
    device.handle_resolved(now, peer, &hub(), addresses, out);
    sim.settle(0);
}

fn is_asked(sim: &Sim) -> bool {
    sim.nodes[0].lookups == [(sim.peer_id(0, 1), 0)]
}

/// A session of node 0 with node 1, whose name has this one address.
fn connected_by_name(seed: u64) -> Sim {
    let mut sim = by_places(seed, vec![hub()]);
    let address = sim.nodes[1].address;
    resolved(&mut sim, &[address]);
    sim.send(0, 1, b"first");
    sim.run(secs(1));
    assert_eq!(sim.nodes[1].delivered.len(), 1);
    sim
}

fn where_is(sim: &Sim, node: usize, other: usize) -> Option<SocketAddr> {
    sim.nodes[node].endpoint(&sim.key(other))
}

#[test]
fn u_15_the_same_initiation_goes_to_all_addresses_of_a_name_and_the_first_answer_decides() {
    let mut sim = by_places(1, vec![hub()]);
    assert!(is_asked(&sim), "without any packet");
    let there = sim.nodes[1].address;
    resolved(&mut sim, &[NOBODY.parse().unwrap(), there]);
    assert_eq!(where_is(&sim, 0, 1), NOBODY.parse().ok(), "the best one, as the resolver says");
    sim.send(0, 1, b"hello");
    sim.run(secs(1));
    let initiations: Vec<_> =
        sim.trace.iter().filter(|sent| sent.kind == Kind::Initiation).collect();
    assert_eq!(initiations.len(), 2);
    assert_eq!(initiations[0], initiations[1], "a copy, for the peer a replay");
    assert_eq!(sim.delivered(1), [b"hello"]);
    assert_eq!(where_is(&sim, 0, 1), Some(there));
    sim.run_with(secs(125), secs(1), |sim| sim.send(0, 1, b"on"));
    assert_eq!(sim.count(0, Kind::Initiation), 3, "a session that is renewed is no race");
}

#[test]
fn u_01_a_name_without_an_address_is_looked_up_again_and_a_session_follows_without_a_packet() {
    let mut sim = by_places(2, vec![hub()]);
    sim.update(0, 1, |update| update.persistent_keepalive = Some(25));
    let mut asked: Vec<Instant> = Vec::new();
    sim.run_with(secs(40), ms(100), |sim| {
        if is_asked(sim) {
            asked.push(sim.mono());
            resolved(sim, &[]);
        }
    });
    assert!((5..=7).contains(&asked.len()), "{asked:?}");
    assert_eq!(sim.trace.len(), 0);
    let there = sim.nodes[1].address;
    sim.run_with(secs(40), ms(100), |sim| {
        if is_asked(sim) {
            resolved(sim, &[there]);
        }
    });
    assert_eq!(sim.nodes[0].session_count(), 1);
}

#[test]
fn u_01_a_peer_that_has_moved_with_its_name_is_found_once_packets_are_not_answered() {
    let mut sim = connected_by_name(3);
    sim.rebind(1);
    let there = sim.nodes[1].address;
    let begun = sim.mono();
    sim.run_with(secs(25), secs(1), |sim| {
        sim.send(0, 1, b"where are you");
        if is_asked(sim) {
            resolved(sim, &[there]);
        }
    });
    assert_eq!(where_is(&sim, 0, 1), Some(there));
    let found = sim.nodes[1].delivered.last().map(|(at, _)| at.since(begun));
    assert!(found.is_some_and(|at| at > secs(20)), "{found:?}");
    let times = sim.times(0, Kind::Initiation);
    assert!(times.len() <= 5, "{times:?}");
}

#[test]
fn wq_33_a_peer_that_has_roamed_and_answers_is_left_where_it_is() {
    let mut sim = connected_by_name(4);
    let listed = sim.nodes[1].address;
    sim.run(secs(20));
    sim.rebind(1);
    sim.send(1, 0, b"from elsewhere");
    sim.run(secs(1));
    let there = sim.nodes[1].address;
    assert_ne!(there, listed);
    sim.run_with(secs(600), secs(1), |sim| {
        sim.send(0, 1, b"there");
        sim.send(1, 0, b"and back");
        if is_asked(sim) {
            resolved(sim, &[listed]);
        }
    });
    assert_eq!(where_is(&sim, 0, 1), Some(there));
    assert_eq!(sim.nodes[0].lookups.len(), 0, "nobody has asked");
    // After a long silence the name is looked up, and the answer still takes nothing away.
    sim.run(secs(200));
    sim.send(0, 1, b"again");
    assert!(is_asked(&sim));
    resolved(&mut sim, &[listed]);
    sim.run(secs(1));
    assert_eq!(where_is(&sim, 0, 1), Some(there));
    assert_eq!(sim.nodes[1].delivered.last().unwrap().1, b"again");
}

/// Two machines with one key, and a client that knows both. The first is node 1.
fn two_machines(seed: u64) -> Sim {
    let mut sim = Sim::strangers(seed, 3);
    sim.configure(2, Change::PrivateKey(Some(private_key(1))));
    for machine in [1, 2] {
        sim.introduce(machine, 0, false);
    }
    sim.introduce(0, 1, false);
    let places = [1, 2].map(|machine| Place::Address(sim.nodes[machine].address)).to_vec();
    sim.update(0, 1, |update| update.places = Some(places));
    sim
}

fn is_silent(sim: &mut Sim, silent: Option<usize>) {
    sim.filter = Box::new(move |by, _| Some(by) != silent);
}

#[test]
fn u_16_packets_go_by_the_second_place_when_the_first_is_silent_and_by_the_first_when_it_is_back() {
    let mut sim = two_machines(5);
    let machines = [1, 2].map(|machine| sim.nodes[machine].address);
    let talk = |sim: &mut Sim, time| sim.run_with(time, secs(1), |sim| sim.send(0, 1, b"packet"));
    talk(&mut sim, secs(30));
    assert_eq!(where_is(&sim, 0, 1), Some(machines[0]));
    assert_eq!(sim.nodes[2].delivered.len(), 0, "the second is not bothered");

    is_silent(&mut sim, Some(1));
    talk(&mut sim, secs(30));
    assert_eq!(where_is(&sim, 0, 1), Some(machines[1]), "15 s of silence, and two tries of 5 s");
    talk(&mut sim, secs(600));
    assert_eq!(where_is(&sim, 0, 1), Some(machines[1]));
    let lost = 600 - sim.nodes[2].delivered.len().min(600);
    assert!(lost < 5, "{lost} packets: to look for the first one costs nothing");

    is_silent(&mut sim, None);
    talk(&mut sim, secs(150));
    assert_eq!(where_is(&sim, 0, 1), Some(machines[0]), "with the next session");
    talk(&mut sim, secs(300));
    assert_eq!(where_is(&sim, 0, 1), Some(machines[0]));
}

#[test]
fn the_same_list_again_leaves_the_peer_where_it_is_and_an_address_alone_ends_the_list() {
    let mut sim = connected_by_name(6);
    sim.rebind(1);
    sim.send(1, 0, b"moved");
    sim.run(secs(1));
    let there = sim.nodes[1].address;
    let nobody: SocketAddr = NOBODY.parse().unwrap();
    sim.update(0, 1, |update| {
        update.places = Some(vec![hub()]);
        update.endpoint = Some(nobody);
    });
    assert_eq!(where_is(&sim, 0, 1), Some(there));
    sim.update(0, 1, |update| update.endpoint = Some(nobody));
    assert_eq!(where_is(&sim, 0, 1), Some(nobody));
    sim.run_with(secs(60), secs(1), |sim| sim.send(0, 1, b"lost"));
    assert_eq!(sim.nodes[0].lookups.len(), 0);
}
