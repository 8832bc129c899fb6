//! Whole connections on a line with a clock of its own.

mod arrival;
mod line;
mod mechanisms;
mod other_stack;
mod speed;

use std::time::Duration;

use super::{Config, State};
use crate::time::Instant;
use line::{Line, Path};

/// When a line begins.
const START: Instant = Instant::from_nanos(1000 * 1_000_000_000);

const fn millis(millis: u64) -> Duration {
    Duration::from_millis(millis)
}

#[test]
fn a_stream_passes_both_ways_and_ends_in_time_wait_and_closed() {
    let mut line = Line::symmetric(1, Config::default(), Path::new(millis(10)));
    line.answer = 300_000;
    let flow = line.open(500_000);
    line.run(Duration::from_secs(5));
    let (first, second) = &line.flows[flow];
    let second = second.as_ref().unwrap();
    assert_eq!((first.read, second.read), (300_000, 500_000));
    assert!(first.saw_end_of_stream && second.saw_end_of_stream);
    let states = line.states(flow);
    assert!(states.contains(&Some(State::TimeWait)), "{states:?}");
    line.run(Duration::from_secs(61));
    assert_eq!(line.states(flow), [Some(State::Closed); 2]);
    assert!(line.stacks.iter().all(|stack| stack.memory_bytes() == 0));
}
