//! Where a peer may be reached: what the user has listed, which of it is tried, and when a name is
//! looked up.
//!
//! All addresses of one place lead to one machine, so the same initiation goes to each of them: the
//! first answer says which works, and the copies are replays to the peer. Different places may be
//! different machines that share a key, which would all answer; they are tried one after another,
//! in the order of the list, and every new session begins with the first of them again.
//!
//! Facts and functions over them, as in [`timers`](crate::proto::timers). Where the peer is at
//! present is not known here: that is decided by what it sends, and nothing here takes a working
//! endpoint away.

use std::fmt;
use std::net::SocketAddr;
use std::time::Duration;

use crate::time::Instant;

/// Addresses of one name that are tried; a resolver puts the best first.
const ADDRESSES_A_PLACE: usize = 8;

/// Initiations to one place before the next is tried: one may be lost.
const TRIES_A_PLACE: u32 = 2;

/// A peer whose last handshake is older may have moved: REKEY_AFTER_TIME and 15 s in which the next
/// one was not answered. [WQ-33]
const STALE_AFTER: Duration = Duration::from_secs(135);

/// The longest pause between two look-ups of a name; the first is a second.
const LONGEST_PAUSE: Duration = Duration::from_secs(60);

/// An entry of the list.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Place {
    Address(SocketAddr),
    /// To be resolved: a host name, or a link-local address with the name of its interface.
    Name {
        host: String,
        port: u16,
    },
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Address(address) => address.fmt(f),
            Self::Name { host, port } if host.contains(':') => write!(f, "[{host}]:{port}"),
            Self::Name { host, port } => write!(f, "{host}:{port}"),
        }
    }
}

/// Where the next initiation goes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Attempt {
    /// To wherever the peer was last heard from.
    pub direct: bool,
    pub addresses: Vec<SocketAddr>,
}

/// What is known of all places of a peer. Empty for a peer of whom the user gave one address: he is
/// where he was last heard from.
#[derive(Debug, Default)]
pub(super) struct Places {
    entries: Vec<Entry>,
    /// The place that has last answered, or the first.
    current: usize,
    /// The place that the last initiation went to.
    target: usize,
    /// Initiations sent since the peer has last answered.
    tries: u32,
    /// The endpoint that was last set by us or by a handshake.
    endpoint: Option<SocketAddr>,
}

#[derive(Debug)]
struct Entry {
    place: Place,
    addresses: Vec<SocketAddr>,
    /// When it was last looked up.
    asked: Option<Instant>,
    /// Look-ups since the peer has last answered.
    asks: u32,
    /// A look-up is on its way.
    is_pending: bool,
}

impl Places {
    /// Takes another list; false, and nothing is forgotten, if it is the same.
    pub fn set(&mut self, places: &[Place]) -> bool {
        if self.entries.iter().map(|entry| &entry.place).eq(places) {
            return false;
        }
        self.entries = places.iter().map(|place| Entry::new(place.clone())).collect();
        (self.current, self.target, self.tries) = (0, 0, 0);
        true
    }

    /// The first place has this address, as somebody has found out already.
    pub fn begin_at(&mut self, address: SocketAddr) {
        if let Some(first) = self.entries.first_mut().filter(|first| first.addresses.is_empty()) {
            first.addresses.push(address);
        }
    }

    /// The places whose names are to be looked up now, each once: one without any address again and
    /// again, the others when a session is wanted that the peer may not be where it was to answer.
    /// `last_session` is when the last one was made.
    pub fn take_due(&mut self, now: Instant, last_session: Option<Instant>) -> Vec<usize> {
        let in_touch =
            self.tries == 0 && last_session.is_some_and(|made| now.since(made) <= STALE_AFTER);
        let due =
            |entry: &Entry| entry.may_be_asked(now) && (entry.addresses.is_empty() || !in_touch);
        self.ask(due, now)
    }

    /// The places whose names have no address yet and are due to be looked up again.
    pub fn take_unresolved(&mut self, now: Instant) -> Vec<usize> {
        self.ask(|entry| entry.addresses.is_empty() && entry.may_be_asked(now), now)
    }

    fn ask(&mut self, due: impl Fn(&Entry) -> bool, now: Instant) -> Vec<usize> {
        let mut positions = Vec::new();
        for (position, entry) in self.entries.iter_mut().enumerate() {
            if due(entry) {
                entry.asked = Some(now);
                entry.asks += 1;
                entry.is_pending = true;
                positions.push(position);
            }
        }
        positions
    }

    /// When a name without any address is to be looked up again.
    pub fn next_ask(&self) -> Option<Instant> {
        let without = self.entries.iter().filter(|entry| entry.addresses.is_empty());
        without.filter_map(Entry::ask_again_at).min()
    }

    pub fn place(&self, position: usize) -> Option<&Place> {
        self.entries.get(position).map(|entry| &entry.place)
    }

    /// Takes the answer of a look-up; none if it has failed, and what was known stays. Yields
    /// addresses that the last initiation should have gone to as well.
    pub fn resolved(&mut self, place: &Place, addresses: &[SocketAddr]) -> Vec<SocketAddr> {
        let Some(position) = self.entries.iter().position(|entry| entry.place == *place) else {
            return Vec::new();
        };
        let entry = &mut self.entries[position];
        entry.is_pending = false;
        if addresses.is_empty() {
            return Vec::new();
        }
        let addresses = &addresses[..addresses.len().min(ADDRESSES_A_PLACE)];
        let known = std::mem::replace(&mut entry.addresses, addresses.to_vec());
        if self.tries == 0 || position != self.target {
            return Vec::new();
        }
        let is_new =
            |address: &&SocketAddr| !known.contains(address) && self.endpoint != Some(**address);
        addresses.iter().filter(is_new).copied().collect()
    }

    /// An address to begin with, of the first place that has one.
    pub fn first_address(&self) -> Option<SocketAddr> {
        self.entries.iter().find_map(|entry| entry.addresses.first()).copied()
    }

    /// Decides where an initiation goes that is about to be sent. `in_touch`: there is a session,
    /// so that the peer is where it was last heard from.
    pub fn attempt(&mut self, in_touch: bool) -> Attempt {
        let (tries, count) = (self.tries, self.entries.len());
        self.tries += 1;
        let wanted = turn(self.current, tries, count);
        let usable = |position: &usize| !self.entries[*position].addresses.is_empty();
        let target = (wanted..count).chain(0..wanted).find(usable);
        let Some(target) = target else { return Attempt { direct: true, addresses: Vec::new() } };
        self.target = target;
        let direct = target == self.current;
        if direct && tries == 0 && in_touch {
            return Attempt { direct, addresses: Vec::new() };
        }
        // The endpoint may be one of them, or the peer has moved away from it since: only a copy
        // that is known to be one is spared.
        let spared = self.endpoint.filter(|_| direct && tries == 0);
        let addresses = self.entries[target].addresses.iter().copied();
        let addresses = addresses.filter(|address| Some(*address) != spared).collect();
        Attempt { direct, addresses }
    }

    /// The peer has answered the last initiation, from `endpoint`; true if that is another place
    /// than the last.
    pub fn answered(&mut self, endpoint: SocketAddr) -> bool {
        let is_other = self.current != self.target;
        self.current = self.target;
        self.in_touch(endpoint);
        is_other
    }

    /// The peer has made a session by itself, or the user has said where it is.
    pub fn in_touch(&mut self, endpoint: SocketAddr) {
        self.endpoint = Some(endpoint);
        self.heard();
    }

    /// There is a session: what is tried starts with the first place again.
    pub fn heard(&mut self) {
        self.tries = 0;
        self.entries.iter_mut().for_each(|entry| entry.asks = 0);
    }
}

impl Entry {
    fn new(place: Place) -> Self {
        let addresses = match place {
            Place::Address(address) => vec![address],
            Place::Name { .. } => Vec::new(),
        };
        Self { place, addresses, asked: None, asks: 0, is_pending: false }
    }

    fn may_be_asked(&self, now: Instant) -> bool {
        self.ask_again_at().is_some_and(|at| at <= now)
    }

    /// After 1, 2, 4, … seconds; `None` for what is no name, or is being looked up.
    fn ask_again_at(&self) -> Option<Instant> {
        if self.is_pending || matches!(self.place, Place::Address(_)) {
            return None;
        }
        let Some(asked) = self.asked else { return Some(Instant::ZERO) };
        let pause = Duration::from_secs(1 << self.asks.saturating_sub(1).min(6));
        Some(asked + pause.min(LONGEST_PAUSE))
    }
}

/// Whose turn it is of `count` places after so many `tries`: the first one, once, if another is in
/// use; then those in use and after it, each twice, around and around.
fn turn(current: usize, tries: u32, count: usize) -> usize {
    let tries = match (current, tries) {
        (0, tries) => tries,
        (_, 0) => return 0,
        (_, tries) => tries - 1,
    };
    let rounds = usize::try_from(tries / TRIES_A_PLACE).unwrap_or(0);
    (current + rounds) % count.max(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(secs: u64) -> Instant {
        Instant::ZERO + Duration::from_secs(1000 + secs)
    }

    fn address(text: &str) -> SocketAddr {
        text.parse().unwrap()
    }

    fn name(host: &str) -> Place {
        Place::Name { host: host.to_owned(), port: 51820 }
    }

    const V4: &str = "192.0.2.1:51820";
    const V6: &str = "[2001:db8::1]:51820";

    fn of(places: &[Place]) -> Places {
        let mut all = Places::default();
        all.set(places);
        all
    }

    fn turns(current: usize, count: usize) -> Vec<usize> {
        (0..7).map(|tries| turn(current, tries, count)).collect()
    }

    #[test]
    fn each_place_is_tried_twice_and_the_first_once_more_if_another_is_in_use() {
        assert_eq!(turns(0, 1), [0; 7]);
        assert_eq!(turns(0, 2), [0, 0, 1, 1, 0, 0, 1]);
        assert_eq!(turns(1, 2), [0, 1, 1, 0, 0, 1, 1]);
        assert_eq!(turns(1, 3), [0, 1, 1, 2, 2, 0, 0]);
    }

    #[test]
    fn a_name_is_looked_up_at_once_and_then_after_1_2_4_up_to_60_seconds_until_there_is_an_address()
    {
        let mut places = of(&[name("hub.example"), Place::Address(address(V4))]);
        let mut gaps = Vec::new();
        let mut last = at(0);
        for _ in 0..9 {
            let due = places.next_ask().unwrap().max(at(0));
            assert_eq!(places.take_unresolved(due), [0]);
            assert!(
                places.take_unresolved(due + Duration::from_secs(90)).is_empty(),
                "one at a time"
            );
            assert_eq!(places.next_ask(), None);
            gaps.push(due.since(last).as_secs());
            last = due;
            assert!(places.resolved(&name("hub.example"), &[]).is_empty());
        }
        assert_eq!(gaps, [0, 1, 2, 4, 8, 16, 32, 60, 60]);
        places.take_unresolved(last + Duration::from_secs(60));
        places.resolved(&name("hub.example"), &[address(V6)]);
        assert_eq!(places.next_ask(), None);
        assert_eq!(places.first_address(), Some(address(V6)));
    }

    #[test]
    fn a_name_is_looked_up_again_when_the_last_session_is_older_than_135_seconds_or_unanswered() {
        let mut places = of(&[name("hub.example")]);
        places.take_unresolved(at(0));
        places.resolved(&name("hub.example"), &[address(V4)]);
        places.answered(address(V4));
        assert!(places.take_due(at(135), Some(at(0))).is_empty(), "a session of 135 seconds");
        assert_eq!(places.take_due(at(136), Some(at(0))), [0]);
        places.resolved(&name("hub.example"), &[address(V4)]);
        places.heard();
        places.attempt(true);
        assert_eq!(places.take_due(at(145), Some(at(140))), [0], "unanswered");
    }

    #[test]
    fn the_same_initiation_goes_to_each_address_of_a_place_until_one_has_answered() {
        let mut places = of(&[name("hub.example")]);
        places.take_unresolved(at(0));
        places.resolved(&name("hub.example"), &[address(V6), address(V4)]);
        places.in_touch(address(V6));
        let raced = Attempt { direct: true, addresses: vec![address(V4)] };
        assert_eq!(places.attempt(false), raced, "one is where it is sent anyway");
        let both = vec![address(V6), address(V4)];
        assert_eq!(places.attempt(false), Attempt { direct: true, addresses: both });
        places.answered(address(V4));
        assert_eq!(places.attempt(true), Attempt { direct: true, addresses: Vec::new() });
    }

    #[test]
    fn an_address_that_comes_to_be_known_while_an_answer_is_awaited_is_sent_to_at_once() {
        let (old, new) = (address(V4), address("192.0.2.99:51820"));
        let mut places = of(&[name("hub.example")]);
        places.resolved(&name("hub.example"), &[old]);
        places.answered(old);
        assert!(places.resolved(&name("hub.example"), &[new]).is_empty(), "nothing is awaited");
        places.resolved(&name("hub.example"), &[old]);
        places.attempt(true);
        assert_eq!(places.resolved(&name("hub.example"), &[old, new]), [new]);
        assert!(places.resolved(&name("other.example"), &[new]).is_empty());
    }

    #[test]
    fn a_place_without_an_address_is_passed_over_and_comes_back_when_it_has_one() {
        let (a, b) = (address(V4), address("198.51.100.1:51820"));
        let mut places = of(&[name("a.example"), Place::Address(b)]);
        let to = |places: &mut Places| places.attempt(true).addresses;
        assert_eq!(to(&mut places), [b]);
        places.answered(b);
        places.resolved(&name("a.example"), &[a]);
        assert_eq!(to(&mut places), [a], "the first is tried again");
        assert!(places.attempt(true).direct, "and then the one that works");
        places.answered(b);
        assert_eq!(to(&mut places), [a]);
        assert!(places.answered(a), "another place than before");
        assert_eq!(places.attempt(true), Attempt { direct: true, addresses: Vec::new() });
    }

    #[test]
    fn the_same_list_again_changes_nothing_and_no_list_means_the_endpoint_alone() {
        let list = [name("hub.example")];
        let mut places = of(&list);
        places.resolved(&list[0], &[address(V4)]);
        assert!(!places.set(&list));
        assert_eq!(places.first_address(), Some(address(V4)));
        assert!(places.set(&[]));
        assert_eq!(places.attempt(false), Attempt { direct: true, addresses: Vec::new() });
        assert_eq!(places.next_ask(), None);
    }

    #[test]
    fn a_list_begins_at_the_address_that_somebody_has_found_already() {
        let (a, b) = (address(V4), address("198.51.100.1:51820"));
        let mut places = of(&[name("a.example"), Place::Address(b)]);
        places.begin_at(a);
        assert_eq!(places.attempt(false).addresses, [a], "and not at the next place");
        assert_eq!(places.take_due(at(0), None), [0], "there may be more");
        assert_eq!(places.resolved(&name("a.example"), &[address(V6), a]), [address(V6)]);
    }

    #[test]
    fn of_many_addresses_eight_are_tried() {
        let mut places = of(&[name("many.example")]);
        let many: Vec<SocketAddr> = (1..20).map(|n| ([192, 0, 2, n], 1).into()).collect();
        places.resolved(&name("many.example"), &many);
        assert_eq!(places.attempt(false).addresses, many[..8]);
    }
}
