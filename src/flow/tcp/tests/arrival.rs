//! Every byte arrives once and in order, or an error does, whatever the line does to packets.

use std::time::Duration;

use proptest::prelude::*;

use super::super::{Algorithm, Config, End};
use super::line::{Line, Path};

fn path() -> impl Strategy<Value = Path> {
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
}
