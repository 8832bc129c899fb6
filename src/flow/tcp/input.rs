//! Segments that arrive. [RFC 9293 §3.10.7] [RFC 5961] [RFC 7323 §5]
//!
//! What does not fit is answered with an acknowledgment, which tells an honest sender where we are and
//! a forger nothing, twice a second at most.

use std::time::Duration;

use super::connection::{Connection, End, State, TIME_WAIT};
use super::segment::Segment;
use super::sender::Incoming;
use super::sequence::extend;
use crate::time::Instant;
use crate::wire::transport::{ACK, FIN, RST, SYN};

/// Between two answers to what does not fit. [LNX tcp_input.c:tcp_oow_rate_limited]
const CHALLENGE_INTERVAL: Duration = Duration::from_millis(500);

impl Connection {
    /// Takes in a segment of this connection.
    pub fn on_segment(&mut self, now: Instant, segment: &Segment<'_>) {
        match self.state {
            State::Closed => {}
            State::SynSent => self.on_answer(now, segment),
            _ => self.on_synchronized(now, segment),
        }
        self.charge();
    }

    /// In SYN-SENT. [RFC 9293 §3.10.7.3]
    fn on_answer(&mut self, now: Instant, segment: &Segment<'_>) {
        let start = self.sender.una();
        if segment.has(ACK) && segment.acknowledgment != start as u32 {
            // Of a connection that we know nothing of.
            if !segment.has(RST) {
                self.rst = Some(segment.acknowledgment);
            }
            return;
        }
        if segment.has(RST) {
            if segment.has(ACK) {
                self.finish(End::Refused);
            }
            return;
        }
        if !segment.has(SYN) {
            return;
        }
        self.on_remote_syn(now, segment.sequence, &segment.options);
        self.heard_at = now;
        if segment.has(ACK) {
            self.establish(now, segment, u64::from(segment.window));
            self.receiver.acknowledge();
        } else {
            // Both have asked at once.
            self.state = State::SynReceived;
            self.handshake.is_due = true;
        }
    }

    fn establish(&mut self, now: Instant, segment: &Segment<'_>, window: u64) {
        let incoming = self.incoming(segment, self.sender.una(), window);
        let echo = incoming.echo.and_then(|echo| self.clock.since(now, echo));
        let measured = now.since(self.handshake.sent_at);
        let rtt = if self.handshake.tries == 1 { Some(measured) } else { echo };
        if let Some(rtt) = rtt {
            self.receiver.on_round_trip(rtt);
        }
        let agreed = self.agreed();
        let congestion = self.congestion(agreed.mss);
        self.sender.establish(now, agreed, congestion, &incoming, rtt);
        self.state = if self.sender.is_fin_queued() { State::FinWait1 } else { State::Established };
        self.events.established = true;
    }

    fn incoming<'a>(
        &self,
        segment: &'a Segment<'_>,
        acknowledgment: u64,
        window: u64,
    ) -> Incoming<'a> {
        Incoming {
            sequence: extend(self.receiver.nxt(), segment.sequence),
            acknowledgment,
            window,
            sack: &segment.options.sack,
            echo: self.recent.and(segment.options.timestamps).map(|timestamps| timestamps.echo),
            is_occupied: segment.length() > 0,
        }
    }

    /// In all states in which both ends know where the other's stream begins.
    /// [RFC 9293 §3.10.7.4]
    fn on_synchronized(&mut self, now: Instant, segment: &Segment<'_>) {
        let sequence = extend(self.receiver.nxt(), segment.sequence);
        if self.state == State::SynReceived
            && segment.flags & (SYN | ACK | RST) == SYN
            && sequence + 1 == self.receiver.nxt()
        {
            // Our answer was lost.
            self.handshake.is_due = true;
            return;
        }
        if self.is_crossed(segment, sequence) {
            self.heard_at = now;
            self.establish(now, segment, u64::from(segment.window));
            self.receiver.acknowledge();
            return;
        }
        if !self.is_acceptable(now, segment, sequence) {
            if !segment.has(RST) {
                self.on_unacceptable(now, segment, sequence);
            }
            return;
        }
        if segment.has(RST) {
            self.on_rst(now, sequence);
            return;
        }
        if segment.has(SYN) {
            self.challenge(now);
            return;
        }
        if !segment.has(ACK) {
            return;
        }
        let acknowledgment = extend(self.sender.una(), segment.acknowledgment);
        if self.state == State::SynReceived && acknowledgment != self.sender.una() {
            self.rst = Some(segment.acknowledgment);
            return;
        }
        // [RFC 5961 §5.2]
        let oldest = self.sender.una().saturating_sub(self.sender.max_window().max(1 << 16));
        if acknowledgment > self.sender.nxt() || acknowledgment < oldest {
            self.challenge(now);
            return;
        }
        if let (Some(recent), Some(timestamps)) = (&mut self.recent, segment.options.timestamps)
            && sequence <= self.last_acknowledged
        {
            recent.update(now, timestamps.value);
        }
        self.heard_at = now;
        self.probes = 0;
        self.is_probe_due = false;
        self.on_acknowledgment(now, segment, acknowledgment);
        self.on_payload(now, segment, sequence);
    }

    /// Whether it is the answer to our SYN of somebody who had asked at the same time.
    /// [RFC 9293 §3.5, figure 8]
    fn is_crossed(&self, segment: &Segment<'_>, sequence: u64) -> bool {
        self.state == State::SynReceived
            && segment.flags & (SYN | ACK | RST) == SYN | ACK
            && sequence + 1 == self.receiver.nxt()
            && segment.acknowledgment == self.sender.una() as u32
    }

    /// Whether it belongs here: neither old by its timestamp, nor beside the window.
    fn is_acceptable(&self, now: Instant, segment: &Segment<'_>, sequence: u64) -> bool {
        if let (Some(recent), Some(timestamps)) = (&self.recent, segment.options.timestamps)
            && recent.rejects(now, timestamps.value)
            && !segment.has(RST)
        {
            return false;
        }
        // What was acknowledged is old; what only arrived may be overtaken by an acknowledgment.
        // [LNX tcp_input.c:tcp_sequence]
        let end = sequence + u64::from(segment.length());
        end >= self.last_acknowledged && sequence <= self.receiver.edge()
    }

    /// Old, or beside the window. [RFC 9293 §3.10.7.4]
    fn on_unacceptable(&mut self, now: Instant, segment: &Segment<'_>, sequence: u64) {
        if self.state == State::TimeWait && segment.has(FIN) {
            self.time_wait_until = Some(now + TIME_WAIT);
        }
        if segment.payload.is_empty() || segment.has(SYN) || self.state == State::SynReceived {
            self.challenge(now);
        } else {
            // Its sender waits for an answer to each.
            self.receiver.on_copy(sequence..sequence + segment.payload.len() as u64);
        }
    }

    /// Asks the other end to show that it means it. [RFC 5961 §3.2, §4.2, §5.2]
    fn challenge(&mut self, now: Instant) {
        if self.challenged_at.is_some_and(|at| now.since(at) < CHALLENGE_INTERVAL) {
            return;
        }
        self.challenged_at = Some(now);
        if self.state == State::SynReceived {
            self.handshake.is_due = true;
        } else {
            self.receiver.acknowledge();
        }
    }

    /// [RFC 5961 §3.2] [RFC 1337]
    fn on_rst(&mut self, now: Instant, sequence: u64) {
        if self.state == State::TimeWait {
            return;
        }
        if sequence == self.receiver.nxt() {
            self.finish(End::Reset);
        } else {
            self.challenge(now);
        }
    }

    fn on_acknowledgment(&mut self, now: Instant, segment: &Segment<'_>, acknowledgment: u64) {
        let window = u64::from(segment.window) << self.remote_scale.unwrap_or(0);
        if self.state == State::SynReceived {
            self.establish(now, segment, window);
        }
        if acknowledgment >= self.sender.una() {
            let incoming = self.incoming(segment, acknowledgment, window);
            self.sender.on_ack(now, &incoming);
        }
        if self.wants_room && self.writable() >= self.sender.queue.len() / 2 {
            self.wants_room = false;
            self.events.writable = true;
        }
        if self.sender.is_fin_acknowledged() {
            match self.state {
                State::FinWait1 => self.state = State::FinWait2,
                State::Closing => self.enter_time_wait(now),
                State::LastAck => self.finish(End::Closed),
                _ => {}
            }
        }
    }

    fn enter_time_wait(&mut self, now: Instant) {
        self.state = State::TimeWait;
        self.time_wait_until = Some(now + TIME_WAIT);
    }

    fn on_payload(&mut self, now: Instant, segment: &Segment<'_>, sequence: u64) {
        if segment.payload.is_empty() && !segment.has(FIN) {
            return;
        }
        if !matches!(self.state, State::Established | State::FinWait1 | State::FinWait2) {
            // After a FIN there can only be copies.
            if self.state == State::TimeWait && segment.has(FIN) {
                self.time_wait_until = Some(now + TIME_WAIT);
            }
            self.receiver.acknowledge();
            return;
        }
        if segment.payload.len() as u64 >= self.sender.mss()
            && let Some(timestamps) = self.recent.and(segment.options.timestamps)
            && let Some(sample) = self.clock.since(now, timestamps.echo)
        {
            self.receiver.on_round_trip(sample);
        }
        let most = self.stack.out_of_order_bytes();
        self.events.readable |=
            self.receiver.on_segment(now, sequence, segment.payload, segment.has(FIN), most);
        self.receiver.tune(now, self.stack.is_under_pressure());
        if self.receiver.is_finished() {
            self.events.peer_closed = true;
            match self.state {
                State::Established => self.state = State::CloseWait,
                State::FinWait1 => self.state = State::Closing,
                _ => self.enter_time_wait(now),
            }
        }
    }
}
