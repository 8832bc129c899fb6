//! How fast a flow is, in virtual time: the same on each machine.

use std::time::Duration;

use super::super::{Algorithm, Config};
use super::line::{Line, Path};

/// 400 Mbit/s with a queue of 1.5 MB, and so many losses in a million.
fn path(round_trip: u64, loss: u32) -> Path {
    let delay = Duration::from_millis(round_trip / 2);
    Path { rate: 400_000_000, queue: 1_500_000, loss, ..Path::new(delay) }
}

/// Mbit/s of each of `flows` over `seconds`, after as much as `start`.
fn rates(
    algorithm: Algorithm,
    flows: usize,
    there: Path,
    (start, seconds): (u64, u64),
) -> Vec<f64> {
    let config = Config { congestion: algorithm, ..Config::default() };
    let mut line = Line::new(7, [config; 2], [there, Path::new(there.delay)]);
    for _ in 0..flows {
        line.open(u64::MAX);
    }
    line.run(Duration::from_secs(start));
    let read = |line: &Line| -> Vec<u64> {
        line.flows.iter().map(|(_, second)| second.as_ref().map_or(0, |peer| peer.read)).collect()
    };
    let before = read(&line);
    line.run(Duration::from_secs(seconds));
    let rate = |(now, before): (&u64, &u64)| (now - before) as f64 * 8.0 / 1e6 / seconds as f64;
    let rates = read(&line).iter().zip(&before).map(rate).collect();
    println!("{rates:.1?} Mbit/s, {} of {} dropped", line.dropped(0), line.sent(0));
    rates
}

/// [Jain, Chiu, Hawe 1984]
fn fairness(rates: &[f64]) -> f64 {
    let (sum, squares) =
        rates.iter().fold((0.0, 0.0), |(sum, squares), rate| (sum + rate, squares + rate * rate));
    sum * sum / (rates.len() as f64 * squares)
}

#[test]
fn cubic_fills_a_line_without_loss() {
    let [rate] = rates(Algorithm::Cubic, 1, path(20, 0), (1, 1))[..] else { panic!("one flow") };
    assert!(rate >= 350.0, "{rate}");
}

#[test]
fn bbr_fills_a_line_whatever_is_lost() {
    for (loss, expected) in [(0, 350.0), (1000, 330.0), (10_000, 300.0)] {
        let [rate] = rates(Algorithm::Bbr, 1, path(20, loss), (1, 1))[..] else {
            panic!("one flow")
        };
        assert!(rate >= expected, "{loss} ppm: {rate}");
    }
}

#[test]
fn bbr_fills_a_long_line_as_far_as_its_buffers_reach() {
    for (loss, expected) in [(0, 260.0), (10_000, 200.0)] {
        let [rate] = rates(Algorithm::Bbr, 1, path(80, loss), (2, 1))[..] else {
            panic!("one flow")
        };
        assert!(rate >= expected, "{loss} ppm: {rate}");
    }
}

#[test]
fn eight_flows_share_a_line() {
    // A quarter of the line above: as many round trips, for a quarter of the packets.
    let there = Path { rate: 100_000_000, queue: 375_000, ..path(20, 0) };
    for algorithm in [Algorithm::Cubic, Algorithm::Bbr] {
        let rates = rates(algorithm, 8, there, (1, 4));
        let total: f64 = rates.iter().sum();
        assert!(total >= 92.0, "{algorithm:?}: {rates:?}");
        assert!(fairness(&rates) >= 0.85, "{algorithm:?}: {rates:?}");
    }
}
