//! How large packets to one peer may be: found out by probes inside the tunnel, with the help of ICMP
//! or without. [RFC 8899]
//!
//! A probe is a small request (an echo) that is padded to the size in question before it is sealed.
//! Every peer cuts the padding off and answers a small packet, so that an answer says that the
//! datagram came through, whatever the peer runs on, and says nothing of the way back. A request
//! without padding goes with the others: if it alone is answered, the path swallows large datagrams
//! without a word, and if not even it is, nothing is known.
//!
//! All sizes go at once, three times within a second: a connection that stalls waits for one answer
//! or one time-out, not for a ladder of them. What is known is checked again while large packets go.
//! An ICMP message about a datagram is believed only of one that is on the way and larger than what
//! it says, and if the peer answers at all, only as a size to try. [RFC 8899 §4.6]
//!
//! Bytes are those of an inner packet. Pure: events and the time in, probes out.

use std::time::Duration;

use crate::time::Instant;

/// Sizes that are tried, if they are not above what is allowed. Jumbo frames of clouds, Ethernet,
/// then what its usual encapsulations leave, and the least of IPv6.
pub const RUNGS: [u16; 7] = [8921, 1420, 1400, 1380, 1360, 1280, LEAST];

/// No path is taken to be narrower.
pub const LEAST: u16 = 1200;

/// When, after the beginning, what is unanswered is sent.
const ROUNDS: [Duration; 3] =
    [Duration::ZERO, Duration::from_millis(300), Duration::from_millis(900)];

/// When, after the beginning, what is unanswered is taken to be lost.
const JUDGED_AFTER: Duration = Duration::from_millis(1500);

/// For how long what was found is good enough for large packets.
const CHECKED_EVERY: Duration = Duration::from_secs(10);

/// How long a peer that has answered nothing is left alone.
const LEFT_ALONE: Duration = Duration::from_secs(60);

/// For how long nothing larger is tried after something was found too large. [RFC 8899 §5.1.1]
const RAISED_AFTER: Duration = Duration::from_secs(600);

/// Sizes of one search, the request without padding included.
const MAX_SIZES: usize = 16;

/// A request to be sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Probe {
    /// Tells its answer from others of the same search; below 32.
    pub sequence: u16,
    /// To which it is padded; 0: not at all.
    pub bytes: u16,
}

/// How the limit is known.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Source {
    /// It was not looked for.
    #[default]
    Assumed,
    /// The peer answers no echo, and nobody has told of a narrower path.
    Unanswered,
    /// By ICMP or the host's own interface, of a peer that answers no echo.
    Told,
    /// It came through, and nothing larger that was tried.
    Measured,
}

/// One peer's.
#[derive(Clone, Debug)]
pub struct PathMtu {
    ceiling: u16,
    limit: u16,
    source: Source,
    /// From when on sizes above the limit are tried.
    raise_at: Instant,
    state: State,
}

#[derive(Clone, Debug)]
enum State {
    /// Waits for a large packet.
    Asking,
    /// It is good enough until then.
    Resting(Instant),
    Searching(Search),
}

#[derive(Clone, Debug)]
struct Search {
    began: Instant,
    /// How many rounds were sent.
    rounds: usize,
    /// By sequence. The first is not padded.
    sizes: Vec<Size>,
    /// Whether everything down to the least is among them.
    is_full: bool,
    told: Option<u16>,
}

#[derive(Clone, Copy, Debug)]
struct Size {
    bytes: u16,
    answered: bool,
}

impl PathMtu {
    /// `start` is what is believed until something is known, `ceiling` what is never exceeded.
    pub fn new(start: u16, ceiling: u16) -> Self {
        let limit = start.min(ceiling);
        let state = State::Asking;
        Self { ceiling, limit, source: Source::Assumed, raise_at: Instant::ZERO, state }
    }

    /// The largest packet that fits, as far as is known.
    pub const fn limit(&self) -> u16 {
        self.limit
    }

    pub const fn source(&self) -> Source {
        self.source
    }

    /// Whether [`handle_large`](Self::handle_large) is to be called for the next large packet.
    pub const fn asks(&self) -> bool {
        matches!(self.state, State::Asking)
    }

    pub const fn is_searching(&self) -> bool {
        matches!(self.state, State::Searching(_))
    }

    /// When to call [`handle_timeout`](Self::handle_timeout).
    pub fn next_deadline(&self) -> Option<Instant> {
        match &self.state {
            State::Asking => None,
            State::Resting(until) => Some(*until),
            State::Searching(search) => Some(search.next_deadline()),
        }
    }

    /// A large packet goes to the peer, or somebody wants to know.
    pub fn handle_large(&mut self, now: Instant, out: &mut Vec<Probe>) {
        if !self.is_searching() {
            let is_full = self.source != Source::Measured || now >= self.raise_at;
            self.begin(now, is_full, out);
        }
    }

    /// The path is another now. What was found stays until it is found out anew.
    pub fn handle_moved(&mut self, now: Instant) {
        self.raise_at = now;
        if !self.is_searching() {
            self.state = State::Asking;
        }
    }

    /// The request of that sequence of the search that is going on was answered.
    pub fn handle_answer(&mut self, now: Instant, sequence: u16, out: &mut Vec<Probe>) {
        let State::Searching(search) = &mut self.state else { return };
        let Some(size) = search.sizes.get_mut(usize::from(sequence)) else { return };
        size.answered = true;
        let bytes = size.bytes;
        if search.sizes.iter().all(|size| size.bytes <= bytes) {
            self.judge(now, out);
        }
    }

    /// Somebody says that `bytes` fit and what was sent does not. Whoever says it may be anybody.
    pub fn handle_told(&mut self, bytes: u16, out: &mut Vec<Probe>) {
        let State::Searching(search) = &mut self.state else { return };
        let is_of_ours = search.sizes.iter().any(|size| size.bytes > bytes && !size.answered);
        if !is_of_ours {
            return;
        }
        let bytes = bytes.max(LEAST);
        search.told = Some(search.told.map_or(bytes, |told| told.min(bytes)));
        search.add(bytes, out);
    }

    /// Does what is due; harmless if nothing is.
    pub fn handle_timeout(&mut self, now: Instant, out: &mut Vec<Probe>) {
        match &mut self.state {
            State::Asking => {}
            State::Resting(until) if *until > now => {}
            State::Resting(_) => self.state = State::Asking,
            State::Searching(search) if search.next_deadline() > now => {}
            State::Searching(search) if search.rounds < ROUNDS.len() => search.send(out),
            State::Searching(_) => self.judge(now, out),
        }
    }

    fn begin(&mut self, now: Instant, is_full: bool, out: &mut Vec<Probe>) {
        let mut search = Search { began: now, rounds: 0, sizes: Vec::new(), is_full, told: None };
        let mut unsent = Vec::new();
        search.add(0, &mut unsent);
        search.add(self.limit, &mut unsent);
        if is_full {
            let may_rise = now >= self.raise_at;
            let most = if may_rise { self.ceiling } else { self.limit };
            search.add(most, &mut unsent);
            RUNGS.into_iter().filter(|rung| *rung < most).for_each(|rung| {
                search.add(rung, &mut unsent);
            });
        }
        search.send(out);
        self.state = State::Searching(search);
    }

    /// Draws the conclusions of what was answered.
    fn judge(&mut self, now: Instant, out: &mut Vec<Probe>) {
        let State::Searching(search) = &self.state else { return };
        let answered = search.sizes.iter().filter(|size| size.answered).map(|size| size.bytes);
        let (best, told, is_full) = (answered.max(), search.told, search.is_full);
        let rest = match best {
            // Small ones pass: what is smaller than the limit is to be tried, or nothing is left to.
            Some(0) if !is_full => return self.begin(now, true, out),
            Some(best) => {
                self.limit = best.max(LEAST.min(self.ceiling));
                self.source = Source::Measured;
                CHECKED_EVERY
            }
            None => {
                self.source = if told.is_some() { Source::Told } else { Source::Unanswered };
                self.limit = told.map_or(self.limit, |told| told.min(self.ceiling));
                LEFT_ALONE
            }
        };
        if is_full {
            self.raise_at = now + RAISED_AFTER;
        }
        self.state = State::Resting(now + rest);
    }
}

impl Search {
    fn next_deadline(&self) -> Instant {
        self.began + ROUNDS.get(self.rounds).copied().unwrap_or(JUDGED_AFTER)
    }

    /// Adds a size and sends it, unless it is among them.
    fn add(&mut self, bytes: u16, out: &mut Vec<Probe>) {
        let known = self.sizes.iter().any(|size| size.bytes == bytes);
        if let (false, Ok(sequence)) = (known, u16::try_from(self.sizes.len()))
            && self.sizes.len() < MAX_SIZES
        {
            self.sizes.push(Size { bytes, answered: false });
            out.push(Probe { sequence, bytes });
        }
    }

    /// Sends what is unanswered and larger than what was answered; an answer to less says no more.
    fn send(&mut self, out: &mut Vec<Probe>) {
        self.rounds += 1;
        let answered = self.sizes.iter().filter(|size| size.answered).map(|size| size.bytes).max();
        out.extend((0_u16..).zip(&self.sizes).filter_map(|(sequence, size)| {
            let says_more = answered.is_none_or(|answered| size.bytes > answered);
            says_more.then_some(Probe { sequence, bytes: size.bytes })
        }));
    }
}

#[cfg(test)]
mod tests;
