//! What becomes of each packet on an emulated path: when it arrives, how often, or not at all.
//!
//! Pure: equal packets at equal times have equal fates for one seed.

use std::collections::HashMap;
use std::time::Duration;

use super::profile::{Fragments, Profile};
use crate::bench::random::Random;
use crate::time::Instant;

/// One direction of a path.
#[derive(Clone, Debug)]
pub struct Direction {
    profile: Profile,
    random: Random,
    is_losing: bool,
    /// When the line is free again.
    line: Instant,
    flows: HashMap<u64, Flow>,
    pub counts: Counts,
}

/// What is remembered of a flow.
#[derive(Clone, Copy, Debug, Default)]
struct Flow {
    /// When its share of the line is free again.
    free: Instant,
    /// When its last packet that kept its place arrives.
    last: Instant,
}

/// What became of packets.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    pub passed: u64,
    pub lost: u64,
    /// The queue of the rate was full.
    pub full: u64,
    pub fragments: u64,
}

/// When the copies of one packet arrive: none, one or two.
pub type Arrivals = [Option<Instant>; 2];

impl Direction {
    /// `number` tells the directions of one path apart.
    pub fn new(profile: &Profile, number: u64) -> Self {
        Self {
            profile: *profile,
            random: Random::new(profile.seed.wrapping_mul(2).wrapping_add(number)),
            is_losing: false,
            line: Instant::ZERO,
            flows: HashMap::new(),
            counts: Counts::default(),
        }
    }

    /// Judges a packet that enters at `now`.
    pub fn judge(&mut self, now: Instant, packet: &[u8]) -> Arrivals {
        if self.profile.fragments == Fragments::Drop && fragment(packet).is_some() {
            self.counts.fragments += 1;
            return [None, None];
        }
        if self.is_lost() {
            self.counts.lost += 1;
            return [None, None];
        }
        let flow = flow(packet);
        if self.flows.len() > MOST_FLOWS {
            self.flows.retain(|_, flow| flow.free.max(flow.last) > now);
        }
        let Some(sent) = self.wait_for_line(now, packet.len(), flow) else {
            self.counts.full += 1;
            return [None, None];
        };
        self.counts.passed += 1;
        if self.chance(self.profile.reorder_percent) {
            return [Some(sent), None];
        }
        let jitter = self.profile.jitter_ms * self.random.unit();
        let last = &mut self.flows.entry(flow).or_default().last;
        let arrival = (sent + millis(self.profile.delay_ms + jitter)).max(*last);
        *last = arrival;
        let again = self.chance(self.profile.duplicate_percent).then_some(arrival);
        [Some(arrival), again]
    }

    fn chance(&mut self, percent: f64) -> bool {
        percent > 0.0 && self.random.unit() * 100.0 < percent
    }

    /// Losses come in runs of a mean length: a chain of two states (Gilbert's).
    fn is_lost(&mut self) -> bool {
        let share = self.profile.loss_percent / 100.0;
        if share <= 0.0 {
            return false;
        }
        // Runs cannot be shorter than chance makes them.
        let stop = (1.0 / self.profile.loss_burst).min(1.0 - share);
        // So that lost packets are `share` of all in the long run.
        let start = stop * share / (1.0 - share);
        let change = if self.is_losing { stop } else { start };
        if self.random.unit() < change {
            self.is_losing = !self.is_losing;
        }
        self.is_losing
    }

    /// When the packet has left through the rates, or nothing if a queue has no room for it.
    fn wait_for_line(&mut self, now: Instant, bytes: usize, flow: u64) -> Option<Instant> {
        let queue = self.profile.queue_kb * 1e3;
        let wait = |free: Instant, mbit: Option<f64>| {
            let Some(mbit) = mbit else { return Some(now) };
            let done = free.max(now) + transmission(bytes as f64, mbit);
            (done.since(now) <= transmission(queue, mbit)).then_some(done)
        };
        let of_all = wait(self.line, self.profile.rate_mbit)?;
        let flow = self.flows.entry(flow).or_default();
        let of_flow = wait(flow.free, self.profile.flow_mbit)?;
        self.line = of_all;
        flow.free = of_flow;
        Some(of_all.max(of_flow))
    }
}

/// Lets fragments out that are the next of their packet.
#[derive(Clone, Debug, Default)]
pub struct Reassembler {
    /// The offset that is next, by sender, receiver and number.
    next: HashMap<[u8; 10], usize>,
}

impl Reassembler {
    /// Whether a packet that arrives may pass.
    pub fn passes(&mut self, packet: &[u8]) -> bool {
        let Some(Fragment { key, offset, length, has_more }) = fragment(packet) else {
            return true;
        };
        if self.next.len() > MOST_FLOWS {
            self.next.clear();
        }
        if offset != self.next.get(&key).copied().unwrap_or(0) {
            return false;
        }
        if has_more {
            self.next.insert(key, offset + length);
        } else {
            self.next.remove(&key);
        }
        true
    }
}

/// A fragment of an IPv4 packet.
struct Fragment {
    key: [u8; 10],
    /// Bytes.
    offset: usize,
    length: usize,
    has_more: bool,
}

fn fragment(packet: &[u8]) -> Option<Fragment> {
    if packet.len() < 20 || packet[0] >> 4 != 4 {
        return None;
    }
    let word = u16::from_be_bytes([packet[6], packet[7]]);
    let (has_more, offset) = (word & 0x2000 != 0, usize::from(word & 0x1fff) * 8);
    if !has_more && offset == 0 {
        return None;
    }
    let mut key = [0; 10];
    key[..2].copy_from_slice(&packet[4..6]);
    key[2..].copy_from_slice(&packet[12..20]);
    let length = packet.len() - usize::from(packet[0] & 0x0f) * 4;
    Some(Fragment { key, offset, length, has_more })
}

/// Addresses, protocol and ports, as one number; without ports for fragments, of which the first
/// alone has them.
fn flow(packet: &[u8]) -> u64 {
    let (addresses, protocol, header) = match packet.first().map(|first| first >> 4) {
        Some(4) if packet.len() >= 20 => (12..20, 9, usize::from(packet[0] & 0x0f) * 4),
        Some(6) if packet.len() >= 40 => (8..40, 6, 40),
        _ => return 0,
    };
    let ports = packet.get(header..header + 4).filter(|_| fragment(packet).is_none());
    let bytes = packet[addresses]
        .iter()
        .chain(&packet[protocol..=protocol])
        .chain(ports.unwrap_or_default());
    // FNV-1a.
    bytes.fold(0xcbf2_9ce4_8422_2325, |hash, &byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3)
    })
}

fn millis(millis: f64) -> Duration {
    Duration::from_secs_f64(millis.max(0.0) / 1e3)
}

fn transmission(bytes: f64, mbit: f64) -> Duration {
    Duration::from_secs_f64(bytes * 8.0 / (mbit * 1e6))
}

const MOST_FLOWS: usize = 4096;

#[cfg(test)]
mod tests {
    use super::*;

    const START: Instant = Instant::from_nanos(1_000_000_000);

    /// IPv4 and UDP, from a port.
    fn packet(length: usize, port: u16) -> Vec<u8> {
        let mut packet = vec![0; length];
        packet[0] = 0x45;
        packet[9] = 17;
        packet[20..22].copy_from_slice(&port.to_be_bytes());
        packet
    }

    fn direction(profile: Profile) -> Direction {
        Direction::new(&profile, 0)
    }

    #[test]
    fn a_path_that_does_nothing_lets_everything_through_at_once() {
        let mut path = direction(Profile::default());
        assert_eq!(path.judge(START, &packet(1500, 1)), [Some(START), None]);
    }

    #[test]
    fn delay_and_jitter_keep_the_order() {
        let mut path = direction(Profile { delay_ms: 10.0, jitter_ms: 5.0, ..Profile::default() });
        let mut last = START;
        for number in 0..1000 {
            let now = START + Duration::from_micros(number * 100);
            let [Some(arrival), None] = path.judge(now, &packet(100, 1)) else { panic!("lost") };
            assert!(arrival >= last && arrival >= now + Duration::from_millis(10));
            assert!(arrival <= now + Duration::from_millis(16));
            last = arrival;
        }
    }

    #[test]
    fn losses_are_as_many_as_asked_for_and_come_in_runs() {
        let mut path =
            direction(Profile { loss_percent: 2.0, loss_burst: 4.0, ..Profile::default() });
        let fates: Vec<bool> =
            (0..200_000).map(|_| path.judge(START, &packet(100, 1))[0].is_none()).collect();
        let lost = fates.iter().filter(|lost| **lost).count();
        let runs = fates.windows(2).filter(|pair| !pair[0] && pair[1]).count();
        assert!((3400..4600).contains(&lost), "{lost}");
        let mean = lost as f64 / runs as f64;
        assert!((3.4..4.6).contains(&mean), "{mean}");
    }

    #[test]
    fn a_rate_spaces_packets_and_a_full_queue_drops_them() {
        let profile = Profile { rate_mbit: Some(12.0), queue_kb: 4.5, ..Profile::default() };
        let mut path = direction(profile);
        // 1500 bytes take a millisecond, and three of them fit.
        let arrivals: Vec<_> = (0..5).map(|_| path.judge(START, &packet(1500, 1))[0]).collect();
        let at = |millis| Some(START + Duration::from_millis(millis));
        assert_eq!(arrivals, [at(1), at(2), at(3), None, None]);
        assert_eq!(path.counts, Counts { passed: 3, full: 2, ..Counts::default() });
    }

    #[test]
    fn a_rate_of_flows_holds_up_each_flow_alone() {
        let mut path = direction(Profile { flow_mbit: Some(12.0), ..Profile::default() });
        let arrivals = [1, 1, 2].map(|port| path.judge(START, &packet(1500, port))[0]);
        let at = |millis| Some(START + Duration::from_millis(millis));
        assert_eq!(arrivals, [at(1), at(2), at(1)]);
    }

    #[test]
    fn those_that_overtake_are_spared_the_delay_and_copies_arrive_twice() {
        let mut path =
            direction(Profile { delay_ms: 10.0, reorder_percent: 100.0, ..Profile::default() });
        assert_eq!(path.judge(START, &packet(100, 1)), [Some(START), None]);
        let mut path = direction(Profile { duplicate_percent: 100.0, ..Profile::default() });
        assert_eq!(path.judge(START, &packet(100, 1)), [Some(START), Some(START)]);
    }

    #[test]
    fn the_same_seed_gives_the_same_fates_and_the_other_direction_others() {
        let profile = Profile { loss_percent: 50.0, ..Profile::default() };
        let fates = |number| {
            let mut path = Direction::new(&profile, number);
            (0..64).map(|_| path.judge(START, &packet(100, 1))[0].is_some()).collect::<Vec<_>>()
        };
        assert_eq!(fates(0), fates(0));
        assert_ne!(fates(0), fates(1));
    }

    /// A fragment of packet 7: offset in bytes, and whether more follow.
    fn part(offset: u16, has_more: bool) -> Vec<u8> {
        let mut part = packet(28, 0);
        part[4..6].copy_from_slice(&7_u16.to_be_bytes());
        let word = (offset / 8) | if has_more { 0x2000 } else { 0 };
        part[6..8].copy_from_slice(&word.to_be_bytes());
        part
    }

    #[test]
    fn fragments_pass_in_their_order_alone() {
        let mut gate = Reassembler::default();
        assert!(gate.passes(&packet(1500, 1)), "no fragment");
        assert!(gate.passes(&part(0, true)) && gate.passes(&part(8, true)));
        assert!(gate.passes(&part(16, false)));
        // The last one first.
        assert!(!gate.passes(&part(8, false)) && gate.passes(&part(0, true)));
        assert!(gate.passes(&part(8, false)));
    }

    #[test]
    fn fragments_of_a_packet_are_of_one_flow_whatever_is_in_them() {
        let mut path = direction(Profile { delay_ms: 10.0, jitter_ms: 5.0, ..Profile::default() });
        let mut last = START;
        for number in 0..200_u16 {
            let mut part = part(0, true);
            part[20..].fill(number.to_le_bytes()[0]);
            let [Some(arrival), None] = path.judge(START, &part) else { panic!("lost") };
            assert!(arrival >= last, "overtaken");
            last = arrival;
        }
    }

    #[test]
    fn a_path_can_drop_all_fragments() {
        let mut path = direction(Profile { fragments: Fragments::Drop, ..Profile::default() });
        assert_eq!(path.judge(START, &part(0, true)), [None, None]);
        assert!(path.judge(START, &packet(100, 1))[0].is_some());
        assert_eq!(path.counts.fragments, 1);
    }
}
