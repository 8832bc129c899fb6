//! The table of flows: places, deadlines and limits, as an engine uses them together.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::Duration;

use hybridwg::flow::deadlines::Deadlines;
use hybridwg::flow::limits::{Limit, Limits, Sort};
use hybridwg::flow::slots::{Kind, Slots, Token};
use hybridwg::proto::peer::PeerId;
use hybridwg::time::Instant;

use super::Choices;

/// What the table is made for, so that its bounds are met.
const FLOWS: usize = 40;
const FLOWS_A_PEER: usize = FLOWS / 4;
const DIALS_A_PEER: usize = 256;
const DIALS_A_PLACE: usize = 256;
const DIALS_A_PEER_AND_PLACE: usize = 64;
const DIALS: usize = 1024;

/// New flows of a peer: at once, and in a second.
const BURST: u64 = 1000;
const RATE: u64 = 5000;

const SORTS: [(Sort, Kind); 3] =
    [(Sort::Udp, Kind::Udp), (Sort::Echo, Kind::Echo), (Sort::Tcp, Kind::Tcp)];

/// One flow: what the table keeps, and what the model knows.
struct Flow {
    name: u32,
    peer: PeerId,
    scheduled: Option<Instant>,
}

struct Known {
    sort: usize,
    token: Token,
    peer: PeerId,
    due: Option<Instant>,
}

struct Table {
    now: Instant,
    slots: [Slots<Flow>; 3],
    deadlines: Deadlines,
    limits: Limits,
    known: BTreeMap<u32, Known>,
    /// Tokens of flows that are gone.
    stale: Vec<(usize, Token)>,
    dials: Vec<(PeerId, SocketAddr)>,
    opened: BTreeMap<u32, u64>,
    next_name: u32,
}

/// Flows come, are scheduled, and go, and tokens are used after their flows: the table finds each flow
/// as long as it is there and not a moment longer, wakes each when it is due and in order, and refuses
/// exactly those that are too many.
pub fn flows(data: &[u8]) {
    let mut choices = Choices(data);
    let mut table = Table {
        now: Instant::from_nanos(1 << 40),
        slots: SORTS.map(|(_, kind)| Slots::new(kind)),
        deadlines: Deadlines::default(),
        limits: Limits::new(256 + FLOWS as u64),
        known: BTreeMap::new(),
        stale: Vec::new(),
        dials: Vec::new(),
        opened: BTreeMap::new(),
        next_name: 0,
    };
    while !choices.is_empty() {
        let [choice, which] = choices.bytes();
        let peer = PeerId(u32::from(choice >> 3) % 6);
        match choice & 7 {
            0 | 1 => table.open(peer, usize::from(which) % 3),
            2 => table.close(which),
            3 => table.schedule(which, choices.byte()),
            4 => table.pass(which),
            5 => table.dial(peer, which, choices.byte()),
            6 => table.give_up_dials(which),
            _ => table.remove_peer(peer, which),
        }
        table.check();
    }
    for peer in 0..6 {
        table.remove_peer(PeerId(peer), 0);
    }
    table.check();
    assert_eq!((table.limits.flows(), table.deadlines.first()), (0, None));
}

impl Table {
    fn open(&mut self, peer: PeerId, sort: usize) {
        let opened = self.opened.entry(peer.0).or_default();
        let own = self.known.values().filter(|known| known.peer == peer).count();
        let passed = self.now.since(Instant::from_nanos(1 << 40)).as_micros() as u64;
        match self.limits.open(self.now, peer, SORTS[sort].0) {
            Ok(()) => {
                *opened += 1;
                // A part of an interval may have passed before the first.
                assert!(*opened <= BURST + 1 + passed * RATE / 1_000_000, "too fast");
                assert!(own < FLOWS_A_PEER && self.known.len() < FLOWS);
            }
            Err(Limit::Flows) => return assert_eq!(self.known.len(), FLOWS),
            Err(Limit::FlowsOfPeer) => return assert_eq!(own, FLOWS_A_PEER),
            Err(Limit::Rate) => return,
            Err(limit) => panic!("{limit:?} without a cause"),
        }
        let name = self.next_name;
        self.next_name += 1;
        // Now and then there is no socket: nothing stays.
        if name % 7 == 6 {
            self.limits.close(peer, SORTS[sort].0);
            let failed = self.slots[sort].try_insert(|_| Err::<Flow, _>("no socket"));
            assert_eq!(failed, Err("no socket"));
            return;
        }
        let flow = Flow { name, peer, scheduled: None };
        let token = self.slots[sort].try_insert(|_| Ok::<_, ()>(flow)).expect("it is made");
        assert_eq!(token.kind(), SORTS[sort].1);
        assert_eq!(Token::from_number(token.number()), token);
        assert!(!self.stale.contains(&(sort, token)), "a token that somebody may still have");
        self.known.insert(name, Known { sort, token, peer, due: None });
    }

    fn name(&self, which: u8) -> Option<u32> {
        let at = usize::from(which) % self.known.len().max(1);
        self.known.keys().nth(at).copied()
    }

    fn close(&mut self, which: u8) {
        let Some(name) = self.name(which) else { return };
        let Some(Known { sort, token, peer, .. }) = self.known.remove(&name) else { return };
        let mut flow = self.slots[sort].remove(token).expect("it is there");
        assert_eq!((flow.name, flow.peer), (name, peer));
        self.deadlines.clear(token, &mut flow.scheduled);
        self.limits.close(peer, SORTS[sort].0);
        self.stale.push((sort, token));
    }

    fn schedule(&mut self, which: u8, after: u8) {
        let Some(name) = self.name(which) else { return };
        let Some(known) = self.known.get_mut(&name) else { return };
        let flow = self.slots[known.sort].get_mut(known.token).expect("it is there");
        if after == 0 {
            self.deadlines.clear(known.token, &mut flow.scheduled);
            known.due = None;
        } else {
            let at = self.now + Duration::from_millis(u64::from(after % 64));
            self.deadlines.set(known.token, &mut flow.scheduled, at);
            known.due = Some(known.due.map_or(at, |due| due.min(at)));
        }
        assert_eq!(flow.scheduled, known.due);
    }

    fn pass(&mut self, millis: u8) {
        self.now = self.now + Duration::from_millis(u64::from(millis));
        let mut last = Instant::ZERO;
        while let Some(token) = self.deadlines.next_due(self.now) {
            let known = self.known.values_mut().find(|known| known.token == token);
            let known = known.expect("nobody wakes who is gone");
            let due = known.due.take().expect("it asked to be woken");
            assert!(due <= self.now && last <= due, "in order, and not before");
            last = due;
            self.slots[known.sort].get_mut(token).expect("it is there").scheduled = None;
        }
        assert!(self.known.values().all(|known| known.due.is_none_or(|due| due > self.now)));
    }

    fn dial(&mut self, peer: PeerId, place: u8, count: u8) {
        let place = SocketAddr::from(([192, 0, 2, 1], u16::from(place % 8)));
        for _ in 0..count {
            let count = |is_one: &dyn Fn(&(PeerId, SocketAddr)) -> bool| {
                self.dials.iter().filter(|dial| is_one(dial)).count()
            };
            let is_full = [
                (self.dials.len() >= DIALS, Limit::Dials),
                (count(&|dial| dial.0 == peer) >= DIALS_A_PEER, Limit::DialsOfPeer),
                (count(&|dial| dial.1 == place) >= DIALS_A_PLACE, Limit::DialsToPlace),
                (
                    count(&|dial| *dial == (peer, place)) >= DIALS_A_PEER_AND_PLACE,
                    Limit::DialsToPlace,
                ),
            ];
            match self.limits.dial(peer, place) {
                Ok(()) => {
                    assert!(is_full.iter().all(|(is_full, _)| !is_full), "{is_full:?}");
                    self.dials.push((peer, place));
                }
                Err(limit) => assert!(is_full.contains(&(true, limit)), "{limit:?} {is_full:?}"),
            }
        }
    }

    fn give_up_dials(&mut self, count: u8) {
        for _ in 0..count {
            let Some((peer, place)) = self.dials.pop() else { return };
            self.limits.dialled(peer, place);
        }
    }

    fn remove_peer(&mut self, peer: PeerId, which: u8) {
        for sort in 0..3 {
            let mut found = self.slots[sort].find(|flow| flow.peer == peer);
            let of_model = self.known.values().filter(|it| it.peer == peer && it.sort == sort);
            let mut expected: Vec<Token> = of_model.map(|known| known.token).collect();
            found.sort();
            expected.sort();
            assert_eq!(found, expected);
        }
        let names: Vec<u32> = self.known.keys().copied().collect();
        for (at, name) in names.into_iter().enumerate().rev() {
            if self.known.get(&name).is_some_and(|known| known.peer == peer) {
                self.close(at as u8);
            }
        }
        // Who is forgotten too early would have his flows counted anew.
        self.limits.retain(|there| there != peer || which & 1 == 0);
        if which & 1 == 1 && self.dials.iter().all(|dial| dial.0 != peer) {
            self.opened.remove(&peer.0);
        }
    }

    fn check(&mut self) {
        assert_eq!(self.limits.flows(), self.known.len());
        let first = self.known.values().filter_map(|known| known.due).min();
        assert_eq!(self.deadlines.first(), first);
        for (sort, token) in self.stale.iter().rev().take(8) {
            assert!(self.slots[*sort].get_mut(*token).is_none(), "found by a stale token");
            assert!(self.slots[*sort].remove(*token).is_none(), "removed by a stale token");
        }
        for (name, known) in &self.known {
            let flow = self.slots[known.sort].get_mut(known.token).expect("it is there");
            assert_eq!((flow.name, flow.scheduled), (*name, known.due));
        }
    }
}
