//! Every byte arrives once and in order, or an error does, whatever the line does to packets.

use std::time::Duration;

use proptest::prelude::*;

use super::super::{Algorithm, Config, Connection, End, State};
use super::line::{Line, Path, Peer};

pub fn path() -> impl Strategy<Value = Path> {
    let delay = prop_oneof![Just(0), 1..200_u64].prop_map(Duration::from_millis);
    let rate = prop_oneof![Just(0), Just(1_000_000), Just(50_000_000)];
    // Parts of a million.
    let chance = |max: u32| prop_oneof![Just(0), 1..max];
    (
        delay,
        rate,
        8_000..200_000_u64,
        chance(80_000),
        chance(200_000),
        chance(50_000),
        chance(20_000),
    )
        .prop_map(|(delay, rate, queue, loss, reordering, duplication, damage)| Path {
            delay,
            rate,
            queue,
            loss,
            reordering,
            duplication,
            damage,
        })
}

fn config() -> impl Strategy<Value = Config> {
    let algorithm = prop_oneof![Just(Algorithm::Cubic), Just(Algorithm::Bbr)];
    let buffer = prop_oneof![Just(3_000), Just(70_000), Just(8 << 20)];
    let mtu = prop_oneof![Just(576), Just(1280), Just(1360)];
    (algorithm, buffer, mtu).prop_map(|(congestion, receive_buffer_bytes, mtu)| Config {
        congestion,
        receive_buffer_bytes,
        mtu,
        // Of a line as bad as this much is asked.
        user_timeout: Duration::from_secs(600),
        handshake_timeout: Duration::from_secs(200),
        ..Config::default()
    })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 60, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn every_byte_arrives_once_and_in_order(
        seed in any::<u64>(),
        configs in [config(), config()],
        paths in [path(), path()],
        there in 0..400_000_u64,
        back in 0..400_000_u64,
        appetite in prop_oneof![Just(u64::MAX), 1..5_000_u64],
        lateness in 0..20_u64,
        features in any::<[bool; 3]>(),
    ) {
        let mut line = Line::new(seed, configs, paths);
        line.answer = back;
        line.features = features;
        line.lateness = Duration::from_millis(lateness);
        let flow = line.open(there);
        line.flows[flow].0.appetite = Some(appetite);
        // As long as it takes; nothing happens in between that would cost time.
        for _ in 0..1000 {
            line.run(Duration::from_secs(60));
            // Who reads little at a time is asked again.
            for host in [0, 1] {
                while line.peer(host, flow).is_some_and(|peer| peer.connection.readable_bytes() > 0) {
                    line.act(host, flow);
                    line.run(Duration::from_millis(1));
                }
            }
            if line.ends(flow).iter().all(Option::is_some) {
                break;
            }
        }
        // The bytes themselves were compared on arrival.
        prop_assert_eq!(line.ends(flow), [Some(End::Closed); 2], "{:?}", line.states(flow));
        let (first, second) = &line.flows[flow];
        let received = second.as_ref().map(|second| second.read);
        prop_assert_eq!((first.read, received), (back, Some(there)));
        prop_assert!(line.stacks.iter().all(|stack| stack.memory_bytes() == 0));
    }

    #[test]
    fn both_may_begin_and_end_at_the_same_moment(
        seed in any::<u64>(),
        configs in [config(), config()],
        paths in [path(), path()],
        last in [0..5_000_u64, 0..5_000_u64],
        opens_at_once in any::<bool>(),
    ) {
        let mut line = Line::new(seed, configs, paths);
        line.closes = [false; 2];
        let flow = line.open(0);
        if opens_at_once {
            let (remote, local) =
                (line.flows[flow].0.connection.local(), line.flows[flow].0.connection.remote());
            let second = Connection::connect(line.now, &line.stacks[1], local, remote);
            line.flows[flow].1 = Some(Peer::new(second, 0, false));
            line.act(1, flow);
        }
        for _ in 0..200 {
            line.run(Duration::from_secs(1));
            if line.states(flow) == [Some(State::Established); 2] {
                break;
            }
        }
        prop_assert_eq!(line.states(flow), [Some(State::Established); 2]);
        for host in [0, 1] {
            let peer = line.peer(host, flow).expect("it is there");
            peer.to_send = last[host];
            peer.closes = true;
            line.act(host, flow);
        }
        for _ in 0..100 {
            line.run(Duration::from_secs(60));
        }
        prop_assert_eq!(line.ends(flow), [Some(End::Closed); 2], "{:?}", line.states(flow));
        for host in [0, 1] {
            let peer = line.peer(host, flow).expect("it is there");
            prop_assert_eq!(peer.read, last[1 - host]);
            prop_assert!(peer.saw_end_of_stream);
        }
        prop_assert!(line.stacks.iter().all(|stack| stack.memory_bytes() == 0));
    }

    #[test]
    fn what_does_not_arrive_is_an_error_at_both_ends(
        seed in any::<u64>(),
        configs in [config(), config()],
        paths in [path(), path()],
        bytes in [0..400_000_u64, 0..400_000_u64],
        millis in 0..20_000_u64,
        fate in prop_oneof![Just(Fate::Dark([true, false])), Just(Fate::Dark([false, true])),
            Just(Fate::Dark([true, true])), Just(Fate::Reset(0)), Just(Fate::Reset(1))],
    ) {
        let mut line = Line::new(seed, configs, paths);
        line.answer = bytes[1];
        let flow = line.open(bytes[0]);
        line.run(Duration::from_millis(millis));
        match fate {
            Fate::Dark(directions) => {
                for direction in [0, 1].into_iter().filter(|it| directions[*it]) {
                    line.path(direction).loss = 1_000_000;
                }
            }
            Fate::Reset(host) => {
                if let Some(peer) = line.peer(host, flow) {
                    peer.connection.abort();
                }
                line.act(host, flow);
            }
        }
        line.run(Duration::from_secs(3600));
        let ends = line.ends(flow);
        prop_assert!(ends[0].is_some(), "{:?}", line.states(flow));
        let (first, second) = &line.flows[flow];
        prop_assert!(second.is_none() || ends[1].is_some(), "{:?}", line.states(flow));
        // What has arrived was compared with what was sent. A proper end is one of everything.
        if ends[0] == Some(End::Closed) {
            prop_assert_eq!(first.read, bytes[1]);
            prop_assert!(second.is_some());
        }
        if let Some(second) = second
            && ends[1] == Some(End::Closed)
        {
            prop_assert_eq!(second.read, bytes[0]);
        }
        line.flows.clear();
        prop_assert!(line.stacks.iter().all(|stack| stack.memory_bytes() == 0));
    }
}

/// What becomes of a connection before its time.
#[derive(Clone, Copy, Debug)]
enum Fate {
    /// Nothing passes any more, in these directions.
    Dark([bool; 2]),
    /// This host resets it.
    Reset(usize),
}
