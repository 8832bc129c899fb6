//! How fast a flow is, in virtual time: the same on each machine.

use std::time::Duration;

use super::super::{Algorithm, Config};
use super::line::{Line, Path};

/// Mbit/s of each of `flows` over so many seconds, its start included, on a line of 400 Mbit/s with
/// a queue of 1.5 MB.
fn rates(algorithm: Algorithm, flows: usize, round_trip: u64, loss: u32, seconds: u64) -> Vec<f64> {
    let config = Config { congestion: algorithm, ..Config::default() };
    let delay = Duration::from_millis(round_trip / 2);
    let there = Path { rate: 400_000_000, queue: 1_500_000, loss, ..Path::new(delay) };
    let mut line = Line::new(7, [config; 2], [there, Path::new(delay)]);
    for _ in 0..flows {
        line.open(u64::MAX);
    }
    line.run(Duration::from_secs(seconds));
    let rate = |read: u64| read as f64 * 8.0 / 1e6 / seconds as f64;
    let rates = line.flows.iter().map(|(_, second)| second.as_ref().map_or(0.0, |peer| rate(peer.read)));
    let rates = rates.collect();
    println!("{algorithm:?} {flows} {round_trip} ms {loss} ppm: {rates:.1?}, {} of {} dropped", line.dropped(0), line.sent(0));
    rates
}

#[test]
fn figures() {
    for (rtt, loss) in [(20, 0), (20, 1000), (20, 10_000), (80, 0), (80, 10_000)] {
        for algorithm in [Algorithm::Cubic, Algorithm::Bbr] {
            rates(algorithm, 1, rtt, loss, 8);
        }
    }
    for algorithm in [Algorithm::Cubic, Algorithm::Bbr] {
        rates(algorithm, 8, 20, 0, 8);
    }
}

#[test]
fn trace() {
    let config = Config { congestion: Algorithm::Bbr, ..Config::default() };
    let delay = Duration::from_millis(10);
    let there = Path { rate: 400_000_000, queue: 1_500_000, ..Path::new(delay) };
    let mut line = Line::new(7, [config; 2], [there, Path::new(delay)]);
    let flow = line.open(u64::MAX);
    for n in 0..60 {
        line.run(Duration::from_millis(20));
        println!("TR {n} {}", line.flows[flow].0.connection.sender.trace());
    }
}
