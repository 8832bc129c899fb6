//! Every timer, seen from the wire. The numbers are restated from the paper. [WG §6]

use std::time::Duration;

use hybridwg::proto::device::Event;
use hybridwg::proto::drop_reason::DropReason;
use hybridwg::time::Instant;

use super::{Kind, Sim, ms, secs};

fn gaps(times: &[Instant]) -> Vec<Duration> {
    times.windows(2).map(|pair| pair[1].since(pair[0])).collect()
}

/// Trap: too many rekeys.
#[test]
fn trap_4_the_initiator_alone_renews_a_busy_session_every_120_seconds_and_no_packet_is_lost() {
    let mut sim = Sim::connected(1);
    let mut sent = 0;
    sim.run_with(secs(3600), secs(1), |sim| {
        sim.send(0, 1, b"there");
        sim.send(1, 0, b"back");
        sent += 1;
    });
    sim.run(secs(1));
    assert_eq!(sim.count(1, Kind::Initiation), 0);
    let times = sim.times(0, Kind::Initiation);
    assert!((29..=31).contains(&times.len()), "{} handshakes in an hour", times.len());
    assert!(gaps(&times).iter().all(|gap| (secs(120)..secs(122)).contains(gap)));
    assert_eq!(sim.nodes[0].delivered.len(), sent);
    assert_eq!(sim.nodes[1].delivered.len(), sent + 1);
}

#[test]
fn an_idle_session_is_not_renewed() {
    let mut sim = Sim::connected(2);
    sim.run(secs(3600));
    assert_eq!(sim.count(0, Kind::Initiation) + sim.count(1, Kind::Initiation), 1);
}

/// Trap: no last-minute rekey on receive-only traffic.
#[test]
fn an_initiator_that_only_receives_renews_the_session_at_165_seconds() {
    let mut sim = Sim::connected(3);
    let begun = sim.times(0, Kind::Initiation)[0];
    // Keepalives are lost, so that nothing that is sent can be what renews it.
    sim.filter = Box::new(|by, kind| by != 0 || kind != Kind::Keepalive);
    sim.run_with(secs(175), ms(500), |sim| {
        // The passive keepalive is due 10 s after data: stay below, by receiving only late.
        if sim.mono().since(begun) > secs(164) {
            sim.send(1, 0, b"push");
        }
    });
    let times = sim.times(0, Kind::Initiation);
    assert_eq!(times.len(), 2);
    assert!((secs(165)..secs(166)).contains(&times[1].since(begun)), "{:?}", times[1].since(begun));
    assert_eq!(sim.count(1, Kind::Initiation), 0);
}

/// Trap: no jitter on retries.
#[test]
fn trap_3_an_unanswered_initiation_is_repeated_with_jitter_and_given_up_after_20() {
    let mut sim = Sim::pair(4);
    sim.filter = Box::new(|_, _| false);
    sim.send(0, 1, b"nobody home");
    sim.run(secs(3600));
    let times = sim.times(0, Kind::Initiation);
    // The first, and 18 + 1 repetitions: the kernel counts the same way.
    assert_eq!(times.len(), 20);
    let gaps = gaps(&times);
    assert!(gaps.iter().all(|gap| (ms(5000)..=ms(5333)).contains(gap)), "{gaps:?}");
    assert!(gaps.iter().collect::<std::collections::HashSet<_>>().len() > 10, "no jitter");
    assert_eq!(sim.nodes[0].drops(DropReason::StagedPurged), 1, "what waited is purged");
    assert_eq!(sim.nodes[0].sources_cleared, 19, "each repetition may leave from elsewhere");
    let peer = sim.peer_id(0, 1);
    let given_up: Vec<_> = sim.nodes[0]
        .events
        .iter()
        .filter(|(_, event)| *event == Event::HandshakeGivenUp(peer))
        .collect();
    assert_eq!(given_up.len(), 1);

    // The next packet tries again.
    sim.filter = Box::new(|_, _| true);
    sim.send(0, 1, b"anybody now");
    sim.run(secs(1));
    assert_eq!(sim.delivered(1), [b"anybody now"]);
}

#[test]
fn as_long_as_there_are_packets_a_peer_is_not_given_up() {
    let mut sim = Sim::pair(5);
    sim.filter = Box::new(|_, _| false);
    sim.run_with(secs(600), secs(1), |sim| sim.send(0, 1, b"x"));
    let times = sim.times(0, Kind::Initiation);
    assert!(times.len() > 110, "{}", times.len());
    assert!(gaps(&times).iter().all(|gap| (ms(5000)..=ms(5333)).contains(gap)));
}

#[test]
fn data_that_is_not_answered_is_acknowledged_by_one_keepalive_after_10_seconds() {
    let mut sim = Sim::connected(6);
    let received = sim.nodes[1].delivered[0].0;
    sim.run(secs(100));
    let keepalives = sim.times(1, Kind::Keepalive);
    assert_eq!(keepalives.len(), 1);
    assert_eq!(keepalives[0].since(received), secs(10));
}

/// Trap: keepalive ping-pong.
#[test]
fn trap_5_keepalives_are_not_answered_by_keepalives() {
    let mut sim = Sim::connected(7);
    sim.run(secs(170));
    assert_eq!(sim.count(0, Kind::Keepalive), 0);
    assert_eq!(sim.count(1, Kind::Keepalive), 1);
}

#[test]
fn data_that_is_answered_in_time_needs_no_keepalive() {
    let mut sim = Sim::connected(8);
    sim.run_with(secs(100), secs(9), |sim| {
        sim.send(0, 1, b"ask");
        sim.send(1, 0, b"answer");
    });
    assert_eq!(sim.count(0, Kind::Keepalive) + sim.count(1, Kind::Keepalive), 0);
}

/// Trap: keepalives timed from what was last sent only.
#[test]
fn trap_6_under_steady_data_keepalives_count_from_the_first_packet_that_is_unacknowledged() {
    let mut sim = Sim::connected(9);
    sim.run_with(secs(100), secs(3), |sim| sim.send(0, 1, b"stream"));
    let keepalives = gaps(&sim.times(1, Kind::Keepalive));
    // The first packet after a keepalive comes at most 3 s later.
    assert!(keepalives.len() >= 6);
    assert!(keepalives.iter().all(|gap| (secs(10)..=secs(13)).contains(gap)), "{keepalives:?}");
    // They keep the sender from doubting the session.
    assert_eq!(sim.count(0, Kind::Initiation), 1);
}

/// Trap: no jitter on handshakes that silence triggers.
#[test]
fn data_unanswered_for_15_seconds_makes_for_a_new_handshake_with_jitter() {
    let mut seen = std::collections::HashSet::new();
    for seed in 0..10 {
        let mut sim = Sim::connected(100 + seed);
        sim.run(secs(20));
        sim.filter = Box::new(|by, _| by == 0);
        sim.send(0, 1, b"into the void");
        let sent = sim.mono();
        sim.run(secs(16));
        let times = sim.times(0, Kind::Initiation);
        assert_eq!(times.len(), 2);
        let silence = times[1].since(sent);
        assert!((ms(15_000)..=ms(15_333)).contains(&silence), "{silence:?}");
        seen.insert(silence);
        assert_eq!(sim.nodes[0].sources_cleared, 1);
    }
    assert!(seen.len() > 5, "no jitter");
}

#[test]
fn a_persistent_keepalive_is_sent_when_nothing_else_was() {
    let mut sim = Sim::connected(11);
    sim.run(secs(30));
    sim.update(0, 1, |peer| peer.persistent_keepalive = Some(25));
    let on = sim.mono();
    sim.run(secs(100));
    let keepalives = sim.times(0, Kind::Keepalive);
    let after: Vec<_> = keepalives.iter().map(|at| at.since(on).as_secs()).collect();
    assert_eq!(after, [0, 25, 50, 75], "turned on, it is sent at once");
}

/// Trap: persistent keepalive during traffic.
#[test]
fn trap_7_traffic_in_either_direction_puts_off_a_persistent_keepalive() {
    for sender in 0..2 {
        let mut sim = Sim::connected(12);
        sim.update(0, 1, |peer| peer.persistent_keepalive = Some(5));
        sim.run(ms(500));
        let before = sim.count(0, Kind::Keepalive);
        sim.run_with(secs(9), secs(1), |sim| sim.send(sender, 1 - sender, b"x"));
        assert_eq!(sim.count(0, Kind::Keepalive), before, "sent by {sender}");
        sim.run(secs(60));
        assert!(sim.count(0, Kind::Keepalive) >= before + 10);
    }
}

#[test]
fn a_persistent_keepalive_makes_the_first_session_and_every_further_one() {
    let mut sim = Sim::pair(13);
    sim.update(0, 1, |peer| peer.persistent_keepalive = Some(25));
    sim.run(secs(3600));
    let renewed = gaps(&sim.times(0, Kind::Initiation));
    // The first keepalive at or after 120 s.
    assert!(renewed.iter().all(|gap| (secs(120)..secs(151)).contains(gap)), "{renewed:?}");
    assert!(renewed.len() >= 23);
    // Off again, and silence follows.
    sim.update(0, 1, |peer| peer.persistent_keepalive = Some(0));
    let sent = sim.trace.len();
    sim.run(secs(3600));
    assert!(sim.trace.len() <= sent + 2, "{:?}", &sim.trace[sent..].len());
}

#[test]
fn a_persistent_keepalive_tries_for_ever_but_no_faster_than_handshakes_may() {
    let mut sim = Sim::pair(14);
    sim.filter = Box::new(|_, _| false);
    sim.update(0, 1, |peer| peer.persistent_keepalive = Some(1));
    sim.run(secs(3600));
    let times = sim.times(0, Kind::Initiation);
    assert!(times.len() > 500, "{}", times.len());
    assert!(gaps(&times).iter().all(|gap| *gap >= secs(5)));
}

#[test]
fn all_keys_are_erased_540_seconds_after_the_last_session_was_made() {
    let mut sim = Sim::connected(15);
    sim.run(secs(538));
    assert_eq!([sim.nodes[0].session_count(), sim.nodes[1].session_count()], [1, 1]);
    sim.run(secs(2));
    assert_eq!([sim.nodes[0].session_count(), sim.nodes[1].session_count()], [0, 0]);
    for node in 0..2 {
        let erased = Event::KeysErased(sim.peer_id(node, 1 - node));
        assert!(sim.nodes[node].events.iter().any(|(_, event)| *event == erased));
        assert_eq!(sim.nodes[node].device.next_deadline(), None);
    }
}

#[test]
fn a_handshake_that_was_given_up_is_erased_540_seconds_later() {
    let mut sim = Sim::pair(16);
    sim.filter = Box::new(|_, _| false);
    sim.send(0, 1, b"x");
    sim.run(secs(1000));
    let events = &sim.nodes[0].events;
    let at = |wanted: fn(&Event) -> bool| {
        events.iter().find(|(_, event)| wanted(event)).expect("it happened").0
    };
    let given_up = at(|event| matches!(event, Event::HandshakeGivenUp(_)));
    let erased = at(|event| matches!(event, Event::KeysErased(_)));
    assert_eq!(erased.since(given_up), secs(540));
}

#[test]
fn a_session_older_than_180_seconds_is_used_neither_to_send_nor_to_receive() {
    let mut sim = Sim::connected(17);
    sim.filter = Box::new(|_, _| false);
    sim.send(0, 1, b"held up on the way");
    let held = sim.last(0, Kind::Data);
    sim.run(secs(181));
    let data = sim.count(0, Kind::Data) + sim.count(0, Kind::Keepalive);
    sim.send(0, 1, b"too late");
    assert_eq!(sim.count(0, Kind::Data) + sim.count(0, Kind::Keepalive), data);
    let from = sim.nodes[0].address;
    sim.inject(1, from, &held);
    assert_eq!(sim.nodes[1].drops(DropReason::KeypairExpired), 1);
    assert_eq!(sim.nodes[1].delivered.len(), 1);
}

/// Trap: dropping `previous` too early.
#[test]
fn packets_under_the_previous_session_are_still_received_after_a_renewal() {
    let mut sim = Sim::connected(18);
    sim.run(secs(119));
    sim.filter = Box::new(|_, _| false);
    sim.send(0, 1, b"slow");
    let slow = sim.last(0, Kind::Data);
    sim.filter = Box::new(|_, _| true);
    sim.run(secs(1));
    sim.send(0, 1, b"renews");
    sim.run(secs(1));
    assert_eq!(sim.count(1, Kind::Response), 2);
    let from = sim.nodes[0].address;
    sim.inject(1, from, &slow);
    assert_eq!(sim.delivered(1).last(), Some(&b"slow".as_slice()));
}

#[test]
fn waking_late_is_harmless() {
    for asleep in [1, 9, 14, 100, 179, 500, 3600, 86_400] {
        let mut sim = Sim::connected(19);
        sim.update(0, 1, |peer| peer.persistent_keepalive = Some(25));
        sim.send(0, 1, b"x");
        sim.jump(secs(asleep));
        sim.run(secs(30));
        sim.send(0, 1, b"awake");
        sim.run(secs(6));
        assert_eq!(sim.delivered(1).last(), Some(&b"awake".as_slice()), "asleep for {asleep} s");
    }
}
