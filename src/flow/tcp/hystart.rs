//! HyStart++: leaves slow start when round trips grow longer, before the queue is full. [RFC 9406]

use std::time::Duration;

use super::congestion::Ack;

/// [RFC 9406 §4.3]
const MIN_RTT_THRESHOLD: Duration = Duration::from_millis(4);
const MAX_RTT_THRESHOLD: Duration = Duration::from_millis(16);
const RTT_DIVISOR: u32 = 8;
const RTT_SAMPLES: u32 = 8;
const GROWTH_DIVISOR: f64 = 4.0;
const CONSERVATIVE_ROUNDS: u32 = 5;

/// Growing slowly, until it is clear whether the delay stays.
#[derive(Clone, Copy, Debug)]
struct Conservative {
    baseline: Duration,
    rounds: u32,
}

#[derive(Clone, Copy, Debug)]
pub struct HyStart {
    /// The round ends when this position is acknowledged.
    round_end: u64,
    last_lowest: Duration,
    lowest: Duration,
    samples: u32,
    conservative: Option<Conservative>,
}

impl HyStart {
    pub const fn new() -> Self {
        Self {
            round_end: 0,
            last_lowest: Duration::MAX,
            lowest: Duration::MAX,
            samples: 0,
            conservative: None,
        }
    }

    /// By what to divide the growth of slow start. [RFC 9406 §4.2]
    pub fn on_ack(&mut self, ack: &Ack) -> f64 {
        if ack.acknowledged >= self.round_end {
            self.round_end = ack.next;
            self.last_lowest = self.lowest;
            self.lowest = Duration::MAX;
            self.samples = 0;
            if let Some(conservative) = &mut self.conservative {
                conservative.rounds += 1;
            }
        }
        if let Some(rtt) = ack.rtt {
            self.lowest = self.lowest.min(rtt);
            self.samples += 1;
        }
        if self.samples >= RTT_SAMPLES && self.last_lowest != Duration::MAX {
            match self.conservative {
                Some(conservative) if self.lowest < conservative.baseline => {
                    self.conservative = None;
                }
                Some(_) => {}
                None => {
                    let longer = (self.last_lowest / RTT_DIVISOR)
                        .clamp(MIN_RTT_THRESHOLD, MAX_RTT_THRESHOLD);
                    if self.lowest >= self.last_lowest + longer {
                        self.conservative = Some(Conservative { baseline: self.lowest, rounds: 0 });
                    }
                }
            }
        }
        if self.conservative.is_some() { GROWTH_DIVISOR } else { 1.0 }
    }

    /// The delay has stayed: congestion avoidance follows.
    pub fn is_over(&self) -> bool {
        self.conservative.is_some_and(|conservative| conservative.rounds >= CONSERVATIVE_ROUNDS)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::time::Instant;

    /// Rounds of twenty acknowledgments; gives the divisor at the end of each.
    fn rounds(millis: &[u64]) -> (Vec<f64>, bool) {
        let mut hystart = HyStart::new();
        let mut position = 0;
        let mut divisors = Vec::new();
        for round_trip in millis {
            let end = position + 20;
            let mut divisor = 0.0;
            while position < end {
                position += 1;
                divisor = hystart.on_ack(&Ack {
                    now: Instant::ZERO,
                    delivered: 1,
                    total_delivered: position,
                    lost: 0,
                    in_flight: 20,
                    prior_in_flight: 20,
                    rtt: Some(Duration::from_millis(*round_trip)),
                    rate: None,
                    acknowledged: position,
                    next: position + 20,
                    is_recovering: false,
                    is_window_limited: true,
                });
            }
            divisors.push(divisor);
        }
        (divisors, hystart.is_over())
    }

    #[test]
    fn slow_start_ends_five_rounds_after_the_delay_grew() {
        let (divisors, is_over) = rounds(&[20, 20, 22, 30, 30, 30, 30]);
        assert_eq!(divisors, [1.0, 1.0, 1.0, 4.0, 4.0, 4.0, 4.0]);
        assert!(!is_over);
        let (_, is_over) = rounds(&[20, 20, 22, 30, 30, 30, 30, 30, 30]);
        assert!(is_over);
    }

    #[test]
    fn a_delay_that_goes_away_lets_it_go_on() {
        let (divisors, is_over) = rounds(&[20, 20, 30, 21, 22, 23, 24, 25, 26]);
        assert_eq!(divisors, [1.0, 1.0, 4.0, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0]);
        assert!(!is_over);
    }
}
