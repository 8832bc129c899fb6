//! Whether a shard lets packets gather before it takes them.
//!
//! A packet that comes just too late to be [searched for](super::spin) costs a wake-up, which is dearer
//! than all that is then done with it. Network adapters delay their interrupts where that happens
//! often (`ethtool -C`, adaptive), and so does a shard, where nobody waits for an answer: as long as
//! packets go one way only, which one of several shards cannot tell.

use std::time::Duration;

use crate::dataplane::turn::{Direction, Work};
use crate::time::Instant;

/// How long packets may gather. Adapters have 64 to 256 µs for streams like these.
/// [LNX net_dim.c:net_dim_get_rx_moderation]
pub const LIMIT: Duration = Duration::from_micros(150);

/// Packets that come sooner after one another are found by searching, or while others are dealt with.
const SOON: Duration = Duration::from_micros(25);

/// So many turns in a row tell what a stream is like.
const TURNS: u32 = 16;

/// What has come of late, and whether more of it may gather.
#[derive(Debug)]
pub struct Moderation {
    is_allowed: bool,
    direction: Option<Direction>,
    since: Instant,
    turns: u32,
    messages: u32,
    /// Several may be expected to gather.
    is_worth_it: bool,
    /// A turn has found work since packets gathered last.
    is_due: bool,
}

impl Moderation {
    pub const fn new(is_allowed: bool) -> Self {
        Self {
            is_allowed,
            direction: None,
            since: Instant::ZERO,
            turns: 0,
            messages: 0,
            is_worth_it: false,
            is_due: false,
        }
    }

    /// Takes note of a turn at `now` that found `work`, before which the shard was ready to block or not.
    pub fn found(&mut self, now: Instant, work: Work, may_have_blocked: bool) {
        let direction = work.direction();
        if direction.is_none() || direction != self.direction || !may_have_blocked {
            *self = Self { direction, since: now, ..Self::new(self.is_allowed) };
            return;
        }
        self.turns += 1;
        self.messages += work.messages();
        if self.turns == TURNS {
            let between = now.since(self.since) / self.messages;
            self.is_worth_it = self.is_allowed && between > SOON && between < LIMIT / 2;
            (self.since, self.turns, self.messages) = (now, 0, 0);
        }
        self.is_due = self.is_worth_it;
    }

    /// The direction of the packets that may gather for [`LIMIT`] now, once for each turn with work.
    pub fn take(&mut self) -> Option<Direction> {
        self.direction.filter(|_| std::mem::take(&mut self.is_due))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const INBOUND: Work = Work { inbound: 1, outbound: 0 };
    const OUTBOUND: Work = Work { inbound: 0, outbound: 1 };

    /// Lets packets of `work` come `gap` apart and gather as they may, for `count` turns; in how many
    /// of them several were found.
    fn gathered(
        moderation: &mut Moderation,
        now: &mut Instant,
        gap: Duration,
        work: Work,
        count: u32,
    ) -> u32 {
        let mut next = *now + gap;
        (0..count)
            .filter(|_| {
                let until = moderation.take().map(|_| *now + LIMIT);
                *now = until.unwrap_or(next).max(next);
                let mut found = Work::default();
                while next <= *now {
                    found.inbound += work.inbound;
                    found.outbound += work.outbound;
                    next = next + gap;
                }
                moderation.found(*now, found, true);
                found.messages() > 1
            })
            .count()
            .try_into()
            .unwrap()
    }

    fn start() -> (Moderation, Instant) {
        (Moderation::new(true), Instant::from_nanos(1_000_000_000))
    }

    #[test]
    fn packets_gather_while_they_go_one_way_too_far_apart_to_be_searched_for() {
        for work in [INBOUND, OUTBOUND] {
            let (mut moderation, mut now) = start();
            let gap = Duration::from_micros(50);
            assert_eq!(gathered(&mut moderation, &mut now, gap, work, TURNS + 1), 0);
            assert_eq!(gathered(&mut moderation, &mut now, gap, work, 1000), 1000);
        }
    }

    #[test]
    fn what_comes_sooner_or_later_does_not_gather() {
        for gap in [24, 76, 1000].map(Duration::from_micros) {
            let (mut moderation, mut now) = start();
            assert_eq!(gathered(&mut moderation, &mut now, gap, OUTBOUND, 1000), 0, "{gap:?}");
        }
    }

    #[test]
    fn nothing_gathers_where_that_is_disabled() {
        let (mut moderation, mut now) = (Moderation::new(false), Instant::ZERO);
        let gap = Duration::from_micros(50);
        assert_eq!(gathered(&mut moderation, &mut now, gap, OUTBOUND, 1000), 0);
    }

    #[test]
    fn it_ends_with_the_stream_with_an_answer_and_with_what_did_not_have_to_be_waited_for() {
        let gap = Duration::from_micros(50);
        let other = |moderation: &mut Moderation, now| moderation.found(now, INBOUND, true);
        let both = |moderation: &mut Moderation, now| {
            moderation.found(now, Work { inbound: 1, outbound: 1 }, true);
        };
        let command =
            |moderation: &mut Moderation, now| moderation.found(now, Work::default(), true);
        let soon = |moderation: &mut Moderation, now| moderation.found(now, OUTBOUND, false);
        let nothing = |_: &mut Moderation, _| {};
        let cases: [fn(&mut Moderation, Instant); 5] = [other, both, command, soon, nothing];
        for (position, end) in cases.into_iter().enumerate() {
            let (mut moderation, mut now) = start();
            gathered(&mut moderation, &mut now, gap, OUTBOUND, 100);
            assert!(moderation.take().is_some());
            end(&mut moderation, now);
            assert!(moderation.take().is_none(), "case {position}");
        }
    }
}
