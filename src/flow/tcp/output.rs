//! Packets that leave: one super-packet of up to 64 KB at a time, for `packet::split` to cut.
//! [RFC 9293 §3.10] [RFC 7323 §3.2] [RFC 2018 §4]

use super::connection::{Connection, State};
use super::options::{Options, TIMESTAMPS_BYTES, Timestamps};
use super::segment::{Header, MAX_PACKET_BYTES, Segment, Transmit};
use super::sender::Choice;
use crate::time::Instant;
use crate::wire::transport::{ACK, FIN, PSH, RST, SYN};

impl Connection {
    /// Writes the next packet to the start of `out`, if there is one to send now. Of `out` up to
    /// [`MAX_PACKET_BYTES`] are used; a packet of the configured MTU must fit, and a SYN.
    pub fn poll_transmit(&mut self, now: Instant, out: &mut [u8]) -> Option<Transmit> {
        if let Some(sequence) = self.rst.take() {
            let rst = self.segment_of_rst(sequence);
            return Some(self.header(rst).finish(out, 0, 0));
        }
        match self.state {
            State::Closed => None,
            State::SynSent | State::SynReceived => self.transmit_syn(now, out),
            _ => self.transmit(now, out),
        }
    }

    const fn header<'a>(&self, segment: Segment<'a>) -> Header<'a> {
        Header { local: self.local, remote: self.remote, segment }
    }

    /// With ACK, so that a peer that has lost its state sees where ours is; without, if we have never
    /// heard where its stream begins.
    fn segment_of_rst(&self, sequence: u32) -> Segment<'static> {
        if self.last_acknowledged == 0 {
            return Segment { sequence, flags: RST, ..Segment::default() };
        }
        let acknowledgment = self.receiver.nxt() as u32;
        Segment { sequence, acknowledgment, flags: RST | ACK, ..Segment::default() }
    }

    fn transmit_syn(&mut self, now: Instant, out: &mut [u8]) -> Option<Transmit> {
        if !self.handshake.is_due {
            return None;
        }
        let is_answer = self.state == State::SynReceived;
        let echo = self.recent.map_or(0, |recent| recent.value);
        let value = self.clock.value(now);
        let options = Options {
            mss: Some(self.local_mss()),
            window_scale: (!is_answer || self.remote_scale.is_some()).then(|| self.local_scale()),
            sack_permitted: !is_answer || self.has_sack,
            timestamps: (!is_answer || self.recent.is_some()).then_some(Timestamps { value, echo }),
            ..Options::default()
        };
        let segment = Segment {
            sequence: self.sender.una().wrapping_sub(1) as u32,
            acknowledgment: if is_answer { self.receiver.nxt() as u32 } else { 0 },
            flags: if is_answer { SYN | ACK } else { SYN },
            window: self.receiver.initial_window(),
            options,
            payload: &[],
        };
        self.on_syn_sent(now);
        Some(self.header(segment).finish(out, 0, 0))
    }

    fn transmit(&mut self, now: Instant, out: &mut [u8]) -> Option<Transmit> {
        // Blocks do not fit beside the payload of a full segment: they go ahead.
        if self.receiver.is_due(now) && self.has_sack && self.receiver.has_blocks() {
            return Some(self.acknowledge(now, out));
        }
        let room = out.len().min(MAX_PACKET_BYTES);
        let room = room.saturating_sub(self.header_bytes());
        if let Some(choice) = self.sender.choose(now, room as u64) {
            let transmit = self.transmit_range(now, &choice, out);
            self.sender.on_sent(now, &choice);
            self.charge();
            return Some(transmit);
        }
        if self.sender.take_probe() || std::mem::take(&mut self.is_probe_due) {
            return Some(self.probe(now, out));
        }
        self.receiver.is_due(now).then(|| self.acknowledge(now, out))
    }

    /// Bytes in front of a payload.
    const fn header_bytes(&self) -> usize {
        let options = if self.recent.is_some() { TIMESTAMPS_BYTES } else { 0 };
        Header::fixed_bytes(self.local) + options
    }

    /// What every segment says: where we are with the other end's stream.
    fn segment(&mut self, now: Instant) -> Segment<'static> {
        let timestamps = self
            .recent
            .map(|recent| Timestamps { value: self.clock.value(now), echo: recent.value });
        Segment {
            sequence: self.sender.nxt() as u32,
            acknowledgment: self.receiver.nxt() as u32,
            flags: ACK,
            window: self.receiver.window(self.stack.is_under_pressure()),
            options: Options { timestamps, ..Options::default() },
            payload: &[],
        }
    }

    fn transmit_range(&mut self, now: Instant, choice: &Choice, out: &mut [u8]) -> Transmit {
        let (start, end) = (choice.range.start, choice.range.end);
        let queue_end = self.sender.queue.end();
        let has_fin = end > queue_end;
        let length = (end.min(queue_end) - start) as usize;
        let mut flags = ACK;
        if has_fin {
            flags |= FIN;
        }
        if length > 0 && end >= queue_end {
            flags |= PSH;
        }
        let segment = Segment { sequence: start as u32, flags, ..self.segment(now) };
        let header = self.header(segment);
        let headers = self.header_bytes();
        self.sender.queue.copy(start, &mut out[headers..headers + length]);
        self.on_acknowledged();
        header.finish(out, length, self.sender.mss() as usize)
    }

    fn acknowledge(&mut self, now: Instant, out: &mut [u8]) -> Transmit {
        let mut segment = self.segment(now);
        if self.has_sack {
            segment.options.sack = self.receiver.take_blocks();
        }
        self.on_acknowledged();
        self.header(segment).finish(out, 0, 0)
    }

    /// A segment that the other end must answer: it has had this position. [RFC 9293 §3.8.4]
    fn probe(&mut self, now: Instant, out: &mut [u8]) -> Transmit {
        let sequence = self.sender.una().wrapping_sub(1) as u32;
        let segment = Segment { sequence, ..self.segment(now) };
        self.on_acknowledged();
        self.header(segment).finish(out, 0, 0)
    }

    fn on_acknowledged(&mut self) {
        self.last_acknowledged = self.receiver.nxt();
        self.receiver.on_acknowledged();
    }
}
