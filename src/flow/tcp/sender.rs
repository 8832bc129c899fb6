//! The sending half of a connection: what is sent when, and what an acknowledgment means for it.
//! [RFC 9293 §3.8] [RFC 8985] [RFC 9937] [RFC 6298]
//!
//! It chooses ranges of the stream; `connection` writes them into packets. A FIN is the last position
//! of the stream. The handshake is not its matter: it begins behind the SYN.

use std::time::Duration;

use super::congestion::{Ack, Congestion};
use super::options::SackBlocks;
use super::queue::Queue;
use super::recovery::{Phase, Prr, Recovery, Undo};
use super::rtt::{MAX_RTO, Rtt};
use super::scoreboard::{Acked, Evidence, Scoreboard};
use super::timestamps::Clock;
use crate::time::Instant;

mod blocks;
mod choice;

use blocks::Blocks;
pub use choice::Choice;

/// Less than this is never what a connection may have unacknowledged, in bytes.
const MIN_BUFFER_BYTES: usize = 64 << 10;

/// How late a timer may be without a rate becoming lower for it.
const PACING_SLACK: Duration = Duration::from_millis(1);

/// Beyond the round trip, how long the other end may keep an acknowledgment back. [RFC 8985 §7.2]
const WORST_DELAYED_ACK: Duration = Duration::from_millis(200);

/// Ranges that the scoreboard may have beyond two for each full segment and one for each transmission,
/// and how many it may have at all: one more takes as long as it takes to move half of them.
const SPARE_ENTRIES: usize = 64;
const MOST_ENTRIES: usize = 4096;

/// What is waited for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Timer {
    /// An acknowledgment, before all counts as lost.
    Retransmission,
    /// An acknowledgment, before a probe for a loss at the tail.
    Tail,
    /// A window to open, before it is asked for. [RFC 9293 §3.8.6.1]
    Window,
}

/// What a segment says about what we have sent.
#[derive(Clone, Copy, Debug)]
pub struct Incoming<'a> {
    /// Position of the segment in the stream of the other end.
    pub sequence: u64,
    pub acknowledgment: u64,
    /// Bytes beyond `acknowledgment` that there is room for.
    pub window: u64,
    pub sack: &'a SackBlocks,
    /// The echo of our clock, if timestamps are in use.
    pub echo: Option<u32>,
    /// It occupies sequence numbers itself.
    pub is_occupied: bool,
}

/// What the handshake settled.
#[derive(Clone, Copy, Debug)]
pub struct Agreed {
    /// Payload bytes of a full segment.
    pub mss: u64,
    pub has_sack: bool,
}

#[derive(Debug)]
pub struct Sender {
    pub queue: Queue,
    /// The first position that is not acknowledged, and the first that was never sent.
    una: u64,
    nxt: u64,
    is_fin_queued: bool,
    /// Behind the last position that the other end has room for.
    edge: u64,
    max_window: u64,
    /// Position and acknowledgment of the segment that announced the window last.
    window_from: (u64, u64),
    agreed: Agreed,
    clock: Clock,
    board: Scoreboard,
    rtt: Rtt,
    congestion: Congestion,
    recovery: Recovery,
    timer: Option<(Timer, Instant)>,
    /// When what may be late counts as lost.
    reorder_at: Option<Instant>,
    backoff: u32,
    /// Since when nothing that is outstanding was acknowledged.
    stalled_since: Instant,
    /// Nothing is sent before.
    paced_until: Instant,
    is_paced: bool,
    /// The window kept something from being sent when so much had been.
    limited_until: u64,
    sent_at: Instant,
    is_tail_due: bool,
    is_probe_due: bool,
}

impl Sender {
    /// `start`: the position behind the SYN.
    pub const fn new(
        now: Instant,
        start: u64,
        agreed: Agreed,
        clock: Clock,
        congestion: Congestion,
    ) -> Self {
        Self {
            queue: Queue::new(start),
            una: start,
            nxt: start,
            is_fin_queued: false,
            edge: start,
            max_window: 0,
            window_from: (0, 0),
            agreed,
            clock,
            board: Scoreboard::new(),
            rtt: Rtt::new(),
            congestion,
            recovery: Recovery::new(),
            timer: None,
            reorder_at: None,
            backoff: 0,
            stalled_since: now,
            paced_until: now,
            is_paced: false,
            limited_until: 0,
            sent_at: now,
            is_tail_due: false,
            is_probe_due: false,
        }
    }

    /// The handshake is done: what it measured and settled.
    pub fn establish(
        &mut self,
        now: Instant,
        agreed: Agreed,
        congestion: Congestion,
        incoming: &Incoming<'_>,
        rtt: Option<Duration>,
    ) {
        self.agreed = agreed;
        self.congestion = congestion;
        if let Some(sample) = rtt {
            self.rtt.on_sample(now, sample);
        }
        self.window_from = (incoming.sequence, incoming.acknowledgment);
        self.set_window(incoming);
    }

    /// Segments may be no larger from now on; what is on the way may have been. [RFC 1191 §6.5]
    pub fn lower_mss(&mut self, mss: u64) {
        self.agreed.mss = mss;
        self.congestion.set_mss(mss);
        self.board.lose_all();
    }

    pub const fn una(&self) -> u64 {
        self.una
    }

    pub const fn nxt(&self) -> u64 {
        self.nxt
    }

    /// Memory that it holds, in bytes.
    pub fn held_bytes(&self) -> usize {
        self.queue.held_bytes() + self.board.held_bytes()
    }

    pub const fn mss(&self) -> u64 {
        self.agreed.mss
    }

    /// The congestion window, in bytes.
    #[cfg(test)]
    pub fn window(&self) -> u64 {
        self.congestion.window()
    }

    pub const fn max_window(&self) -> u64 {
        self.max_window
    }

    /// Nothing more will be written.
    pub const fn queue_fin(&mut self) {
        self.is_fin_queued = true;
    }

    pub const fn is_fin_queued(&self) -> bool {
        self.is_fin_queued
    }

    pub const fn is_fin_acknowledged(&self) -> bool {
        self.is_fin_queued && self.una > self.queue.end()
    }

    /// Behind all that there is to send.
    const fn end(&self) -> u64 {
        self.queue.end() + self.is_fin_queued as u64
    }

    /// Nothing is to be sent, and all that was is acknowledged.
    pub const fn is_idle(&self) -> bool {
        self.una == self.end()
    }

    /// How much may be written, if a connection may hold `max` bytes: twice what may be on the way, so
    /// that there is something to send when all of that is acknowledged at once.
    /// [LNX tcp_input.c:tcp_sndbuf_expand]
    pub fn room(&self, max: usize) -> usize {
        let window = usize::try_from(self.congestion.window()).unwrap_or(max);
        let limit = window.saturating_mul(2).max(MIN_BUFFER_BYTES).min(max);
        limit.saturating_sub(self.queue.len())
    }

    /// When nothing that is outstanding will have been acknowledged for `limit`.
    pub fn stalls_at(&self, limit: Duration) -> Option<Instant> {
        self.timer.map(|_| self.stalled_since + limit)
    }

    pub fn next_deadline(&self) -> Option<Instant> {
        let timer = self.timer.map(|(_, at)| at);
        let paced = self.is_paced.then_some(self.paced_until);
        [timer, self.reorder_at, paced].into_iter().flatten().min()
    }

    /// Takes in an acknowledgment that is acceptable: of nothing that was not sent, nor an old one.
    pub fn on_ack(&mut self, now: Instant, incoming: &Incoming<'_>) {
        if self.is_told_nothing_by(incoming) {
            self.window_from = self.window_from.max((incoming.sequence, incoming.acknowledgment));
            return;
        }
        let prior_in_flight = self.board.in_flight();
        let has_moved = incoming.acknowledgment > self.una;
        let blocks = Blocks::read(incoming, self.nxt, self.max_window);
        let acked = self.score(now, incoming, &blocks);
        if has_moved {
            self.una = incoming.acknowledgment;
            self.queue.advance(self.una);
            self.backoff = 0;
        }
        if has_moved || self.board.is_empty() {
            self.stalled_since = now;
        }
        self.measure(now, incoming, &acked, has_moved);
        let is_window_same = !self.update_window(incoming);
        let is_duplicate = !has_moved && is_window_same && !incoming.is_occupied;
        if acked.is_reordered {
            self.recovery.reordering.on_reordering();
        }
        let delivered = acked.delivered + self.count_duplicates(is_duplicate, has_moved);
        let mut lost = self.detect_loss(now);
        if !self.agreed.has_sack {
            lost += self.detect_loss_without_sack(has_moved);
        }
        self.on_dsack(&blocks);
        self.end_tail_probe(incoming.acknowledgment, &blocks, is_duplicate);
        self.judge(incoming, &acked, has_moved, lost);
        self.congestion.on_ack(&Ack {
            now,
            delivered: acked.delivered,
            total_delivered: self.board.delivered(),
            lost,
            in_flight: self.board.in_flight(),
            prior_in_flight,
            rtt: acked.latest_rtt,
            rate: acked.rate,
            acknowledged: self.una,
            next: self.nxt,
            is_recovering: self.recovery.phase == Phase::Repair,
            is_window_limited: self.limited_until > 0 && self.una <= self.limited_until,
        });
        if let (Phase::Repair, Some(threshold)) = (self.recovery.phase, self.congestion.threshold())
        {
            let is_safe = has_moved && lost == 0;
            let mss = self.agreed.mss;
            self.recovery.prr.on_ack(delivered, self.in_flight(), threshold, mss, is_safe);
        }
        if has_moved || acked.delivered > 0 || self.board.is_empty() {
            self.arm(now);
        }
    }

    /// Whether it is one more segment of a stream, to an end that has nothing to send itself.
    /// [LNX tcp_input.c:tcp_rcv_established]
    fn is_told_nothing_by(&self, incoming: &Incoming<'_>) -> bool {
        self.is_idle()
            && incoming.is_occupied
            && incoming.acknowledgment == self.una
            && incoming.acknowledgment + incoming.window == self.edge
            && incoming.sack.as_slice().is_empty()
    }

    fn score(&mut self, now: Instant, incoming: &Incoming<'_>, blocks: &Blocks) -> Acked {
        let clock = self.clock;
        let segments = (self.nxt - self.una) / self.agreed.mss;
        let entries = SPARE_ENTRIES + 2 * segments as usize + self.board.transmissions();
        self.board.on_ack(&Evidence {
            now,
            acknowledged: incoming.acknowledgment,
            blocks: if self.agreed.has_sack { blocks.as_slice() } else { &[] },
            limit: self.recovery.first_after_timeout,
            max_entries: entries.min(MOST_ENTRIES),
            min_rtt: self.rtt.lowest(),
            is_before: &|then| incoming.echo.is_some_and(|echo| clock.is_before(echo, then)),
        })
    }

    /// Karn's rule, and the timestamps that spare it. [RFC 6298 §3] [RFC 7323 §4.3]
    fn measure(&mut self, now: Instant, incoming: &Incoming<'_>, acked: &Acked, has_moved: bool) {
        if let Some(oldest) = acked.oldest_rtt {
            self.rtt.on_sample(now, oldest);
            self.rtt.on_lowest(now, acked.latest_rtt.unwrap_or(oldest));
        } else if has_moved
            && let Some(sample) = incoming.echo.and_then(|echo| self.clock.since(now, echo))
        {
            self.rtt.on_sample(now, sample);
        }
    }

    /// True if the window is another one now. [RFC 9293 §3.10.7.4]
    fn update_window(&mut self, incoming: &Incoming<'_>) -> bool {
        let from = (incoming.sequence, incoming.acknowledgment);
        let before = self.edge - self.window_from.1.min(self.edge);
        if from >= self.window_from {
            self.window_from = from;
            self.set_window(incoming);
        }
        incoming.window != before
    }

    fn set_window(&mut self, incoming: &Incoming<'_>) {
        let was_closed = self.edge <= self.nxt;
        self.edge = incoming.acknowledgment + incoming.window;
        self.max_window = self.max_window.max(incoming.window);
        // Who asked for a window and has got an answer, whatever it is, is not alone.
        if was_closed && self.edge > self.nxt && matches!(self.timer, Some((Timer::Window, _))) {
            self.timer = None;
            self.backoff = 0;
        }
    }

    /// How much duplicate acknowledgments say was delivered, of those who cannot say what.
    const fn count_duplicates(&mut self, is_duplicate: bool, has_moved: bool) -> u64 {
        if self.agreed.has_sack || self.board.in_flight() == 0 {
            self.recovery.duplicates = 0;
            return 0;
        }
        if has_moved {
            self.recovery.duplicates = 0;
        }
        if !is_duplicate {
            return 0;
        }
        self.recovery.duplicates += 1;
        self.agreed.mss
    }

    /// What is on the way.
    fn in_flight(&self) -> u64 {
        self.board.in_flight().saturating_sub(self.recovery.duplicates * self.agreed.mss)
    }

    fn detect_loss(&mut self, now: Instant) -> u64 {
        let Recovery { reordering, phase, .. } = &self.recovery;
        let window = reordering.get(&self.rtt, *phase, self.board.sacked(), self.agreed.mss);
        let (lost, next) = self.board.detect_loss(now, window);
        self.reorder_at = next;
        lost
    }

    /// Three duplicates, and then each acknowledgment of a part. [RFC 6582 §3.2]
    fn detect_loss_without_sack(&mut self, has_moved: bool) -> u64 {
        let is_partial = has_moved && self.una < self.recovery.point;
        match self.recovery.phase {
            Phase::Open if self.recovery.duplicates == 3 => self.board.lose_first(self.agreed.mss),
            Phase::Repair if is_partial => self.board.lose_first(self.agreed.mss),
            Phase::Open | Phase::Repair | Phase::Timeout => 0,
        }
    }

    fn on_dsack(&mut self, blocks: &Blocks) {
        let Some(range) = &blocks.duplicate else { return };
        self.recovery.reordering.on_dsack(self.una, self.nxt);
        let Some(undo) = &mut self.recovery.undo else { return };
        if undo.needed > 0 {
            undo.needed = undo.needed.saturating_sub(range.end - range.start);
            if undo.needed == 0 {
                self.undo();
            }
        }
    }

    /// [RFC 8985 §7.4.2]
    fn end_tail_probe(&mut self, acknowledgment: u64, blocks: &Blocks, is_duplicate: bool) {
        let Some(probe) = self.recovery.tail_probe else { return };
        if acknowledgment < probe.end {
            return;
        }
        if !probe.is_retransmission || blocks.duplicate.is_some() || is_duplicate {
            self.recovery.tail_probe = None;
        } else if acknowledgment > probe.end {
            // The probe has mended a loss that nothing else told of.
            self.recovery.tail_probe = None;
            if self.recovery.phase == Phase::Open {
                self.congestion.on_congestion();
                self.congestion.on_recovered();
            }
        }
    }

    /// Begins a recovery, ends it, or takes it back.
    fn judge(&mut self, incoming: &Incoming<'_>, acked: &Acked, has_moved: bool, lost: u64) {
        match self.recovery.phase {
            Phase::Open if lost > 0 => self.enter_repair(),
            Phase::Open => {}
            Phase::Repair | Phase::Timeout => {
                if self.is_spurious(incoming, acked, has_moved) {
                    self.undo();
                } else if self.una >= self.recovery.point {
                    self.recovery.phase = Phase::Open;
                    self.recovery.reordering.on_recovered();
                    self.congestion.on_recovered();
                }
            }
        }
    }

    fn enter_repair(&mut self) {
        let flight = (self.nxt - self.una).saturating_sub(self.board.sacked());
        self.recovery.phase = Phase::Repair;
        self.recovery.point = self.nxt;
        self.recovery.prr = Prr::new(flight, self.agreed.mss);
        self.recovery.undo = Some(Undo::default());
        self.recovery.tail_probe = None;
        self.congestion.on_congestion();
    }

    fn is_spurious(&self, incoming: &Incoming<'_>, acked: &Acked, has_moved: bool) -> bool {
        let Some(undo) = &self.recovery.undo else { return false };
        // [RFC 5682 §3.1 step 3]
        if self.recovery.phase == Phase::Timeout && acked.is_original {
            return true;
        }
        match (undo.first_retransmitted_at, incoming.echo) {
            // [RFC 3522 §3.2]
            (Some(then), Some(echo)) => has_moved && self.clock.is_before(echo, then),
            (Some(_), None) => false,
            // All that was believed lost came before it could be sent again.
            (None, _) => self.board.lost() == 0,
        }
    }

    fn undo(&mut self) {
        self.congestion.undo();
        self.board.find_lost();
        self.recovery.undo = None;
        self.recovery.phase = Phase::Open;
        self.recovery.reordering.on_reordering();
    }

    /// Lets the timers act that are due.
    pub fn on_deadline(&mut self, now: Instant) {
        if self.reorder_at.is_some_and(|at| at <= now)
            && self.detect_loss(now) > 0
            && self.recovery.phase == Phase::Open
        {
            self.enter_repair();
        }
        let Some((timer, _)) = self.timer.filter(|(_, at)| *at <= now) else { return };
        match timer {
            Timer::Retransmission => self.on_timeout(now),
            Timer::Tail => {
                self.is_tail_due = true;
                self.timer = Some((Timer::Retransmission, now + self.timeout()));
            }
            Timer::Window => {
                self.is_probe_due = true;
                self.backoff += 1;
                self.arm(now);
            }
        }
    }

    /// [RFC 6298 §5.4 to §5.7]
    fn on_timeout(&mut self, now: Instant) {
        let is_first = match self.recovery.phase {
            Phase::Open => true,
            Phase::Timeout => self.backoff == 0,
            Phase::Repair => false,
        };
        self.board.lose_old(now);
        self.recovery.duplicates = 0;
        if self.recovery.phase != Phase::Timeout || is_first {
            self.recovery.undo = Some(Undo::default());
            self.recovery.first_after_timeout = self.board.next_transmission();
        }
        self.recovery.phase = Phase::Timeout;
        self.recovery.point = self.nxt;
        self.recovery.tail_probe = None;
        self.congestion.on_timeout(self.board.in_flight(), is_first);
        self.backoff += 1;
        // What was not sent in time must not wait for its turn.
        self.paced_until = now;
        self.timer = Some((Timer::Retransmission, now + self.timeout()));
    }

    fn timeout(&self) -> Duration {
        self.rtt.timeout().saturating_mul(1 << self.backoff.min(10)).min(MAX_RTO)
    }

    /// Sets the timer by what is outstanding.
    fn arm(&mut self, now: Instant) {
        self.timer = if !self.board.is_empty() {
            let tail = self.tail_probe_after().filter(|after| *after < self.timeout());
            Some(tail.map_or_else(
                || (Timer::Retransmission, now + self.timeout()),
                |after| (Timer::Tail, now + after),
            ))
        } else if self.nxt < self.end() && self.fitting().is_none() {
            Some((Timer::Window, now + self.timeout()))
        } else {
            None
        };
    }

    /// [RFC 8985 §7.2]
    fn tail_probe_after(&self) -> Option<Duration> {
        let is_allowed = self.agreed.has_sack
            && self.recovery.phase == Phase::Open
            && self.recovery.tail_probe.is_none()
            && self.board.sacked() == 0
            && self.board.lost() == 0
            && self.backoff == 0;
        let smoothed = self.rtt.smoothed().filter(|_| is_allowed)?;
        let is_alone = self.board.in_flight() <= self.agreed.mss;
        let extra = if is_alone { WORST_DELAYED_ACK } else { Duration::from_millis(2) };
        Some(smoothed * 2 + extra)
    }
}
