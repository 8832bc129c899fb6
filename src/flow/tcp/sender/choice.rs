//! What is sent next, if anything: a probe, what was lost, or what is new; as much as the other end,
//! the congestion control and the rate let go. [RFC 9293 §3.8.6.2.1] [RFC 8985 §7.3]

use std::ops::Range;
use std::time::Duration;

use super::{PACING_SLACK, Sender, Timer};
use crate::flow::tcp::recovery::{Phase, TailProbe};
use crate::time::Instant;

/// What to send.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Choice {
    pub range: Range<u64>,
    pub is_retransmission: bool,
}

impl Sender {
    /// Whether an empty segment should ask for a window; once.
    pub const fn take_probe(&mut self) -> bool {
        std::mem::replace(&mut self.is_probe_due, false)
    }

    /// What to send now, of at most `burst` bytes; [`on_sent`](Self::on_sent) follows.
    pub fn choose(&mut self, now: Instant, burst: u64) -> Option<Choice> {
        self.is_paced = false;
        if std::mem::replace(&mut self.is_tail_due, false)
            && let Some(choice) = self.choose_tail()
        {
            return Some(choice);
        }
        let (range, is_retransmission) = match self.board.next_lost() {
            Some(range) => (range, true),
            None => {
                let Some(length) = self.fitting() else {
                    self.rest(now);
                    return None;
                };
                (self.nxt..self.nxt + length, false)
            }
        };
        let length = self.allowed(range.end - range.start);
        if length == 0 {
            self.limited_until = self.nxt;
            return None;
        }
        if self.paced_until > now {
            self.is_paced = true;
            return None;
        }
        let length = length.min(self.burst(burst));
        if !is_retransmission && self.board.is_empty() {
            let (idle, timeout) = (now.since(self.sent_at), self.rtt.timeout());
            self.congestion.on_restart(now, idle, timeout);
        }
        Some(Choice { range: range.start..range.start + length, is_retransmission })
    }

    /// Nothing can be sent for want of bytes or of a window.
    fn rest(&mut self, now: Instant) {
        if self.nxt == self.end() && self.in_flight() < self.congestion.window() {
            self.board.on_app_limited();
        }
        if self.timer.is_none() {
            self.stalled_since = now;
            self.arm(now);
        }
    }

    /// New bytes that the other end has room for; `None`: none, or so few that more are waited for.
    /// [RFC 9293 §3.8.6.2.1]
    pub(super) fn fitting(&self) -> Option<u64> {
        let wanted = self.end() - self.nxt;
        let room = self.edge.saturating_sub(self.nxt);
        let mss = self.agreed.mss;
        let length = if wanted <= room {
            wanted
        } else if room >= mss {
            room - room % mss
        } else if room >= self.max_window / 2 || self.is_probe_due {
            room
        } else {
            0
        };
        (length > 0).then_some(length)
    }

    /// How much of `length` the congestion control lets go.
    fn allowed(&self, length: u64) -> u64 {
        let in_flight = self.in_flight();
        let allowance =
            if self.recovery.phase == Phase::Repair && self.congestion.threshold().is_some() {
                self.recovery.prr.quota()
            } else {
                self.congestion.window().saturating_sub(in_flight)
            };
        let mss = self.agreed.mss;
        if length <= allowance {
            length
        } else if allowance < mss && in_flight == 0 {
            length.min(mss)
        } else {
            allowance - allowance % mss
        }
    }

    /// What is sent at once: a millisecond's worth. [LNX tcp_output.c:tcp_tso_autosize]
    fn burst(&self, max: u64) -> u64 {
        let mss = self.agreed.mss;
        let max = (max - max % mss).max(mss);
        let rate = self.congestion.pacing_rate(&self.rtt);
        rate.map_or(max, |rate| ((rate / 1000 / mss).max(2) * mss).min(max))
    }

    /// [RFC 8985 §7.3]
    fn choose_tail(&mut self) -> Option<Choice> {
        let mss = self.agreed.mss;
        let (range, is_retransmission) = match self.fitting() {
            Some(length) => (self.nxt..self.nxt + length.min(mss), false),
            None => {
                let last = self.board.last()?;
                (last.start.max(last.end.saturating_sub(mss))..last.end, true)
            }
        };
        let end = range.end.max(self.nxt);
        self.recovery.tail_probe = Some(TailProbe { end, is_retransmission });
        Some(Choice { range, is_retransmission })
    }

    /// Takes note that `choice` was sent.
    pub fn on_sent(&mut self, now: Instant, choice: &Choice) {
        let Range { start, end } = choice.range;
        let length = end - start;
        if choice.is_retransmission {
            self.board.on_retransmitted(now, start..end);
            if let Some(undo) = &mut self.recovery.undo {
                undo.first_retransmitted_at.get_or_insert(now);
                undo.needed += length;
            }
        } else {
            if self.board.is_empty() {
                self.stalled_since = now;
            }
            self.board.on_sent(now, start..end);
            self.nxt = end;
        }
        if self.recovery.phase == Phase::Repair {
            self.recovery.prr.on_sent(length);
        }
        if let Some(rate) = self.congestion.pacing_rate(&self.rtt) {
            let takes = Duration::from_nanos(length.saturating_mul(1_000_000_000) / rate.max(1));
            self.paced_until = self.paced_until.max(now - PACING_SLACK) + takes;
        }
        self.sent_at = now;
        self.is_probe_due = false;
        if !matches!(self.timer, Some((Timer::Retransmission, _))) {
            self.arm(now);
        }
    }
}
