//! Packets that come in parts, of several peers.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::ops::Range;
use std::time::Duration;

use hybridwg::flow::inner::{Fragment, Inner};
use hybridwg::flow::reassembly::Reassembly;
use hybridwg::proto::peer::PeerId;
use hybridwg::time::Instant;

use super::Choices;

/// Packets in parts of one peer, and bytes up to the ends of their last parts.
const PACKETS_A_PEER: usize = 64;
const BYTES_A_PEER: usize = 1 << 20;
const PACKETS: usize = 1024;
const PATIENCE: Duration = Duration::from_secs(15);
const LONGEST_BYTES: usize = 65_535;

type Key = (u32, bool, u32);

/// What is known of one packet.
struct Model {
    begun_at: u64,
    /// `None`: parts of it overlapped.
    bytes: Option<Vec<Option<u8>>>,
    total: Option<usize>,
    hops: u8,
}

impl Model {
    fn reach(&self) -> usize {
        self.bytes.as_ref().map_or(0, Vec::len)
    }

    /// `None`: the packet is spoilt, as is what comes of it later; else whether it is whole.
    fn add(&mut self, range: Range<usize>, new: &[u8], more: bool, hops: u8) -> Option<bool> {
        let mut bytes = self.bytes.take()?;
        let known: Vec<Option<u8>> = range.clone().map(|at| bytes.get(at).copied()?).collect();
        if known.iter().zip(new).all(|(known, byte)| *known == Some(*byte)) {
            self.bytes = Some(bytes);
            return Some(false);
        }
        let total = if more { self.total } else { Some(range.end) };
        let contradicts = self.total.is_some_and(|it| total != Some(it))
            || total.is_some_and(|total| total < range.end || total < bytes.len());
        if known.iter().any(Option::is_some) || contradicts {
            return None;
        }
        self.total = total;
        if range.start == 0 {
            self.hops = hops;
        }
        bytes.resize(bytes.len().max(range.end), None);
        for (place, byte) in bytes[range].iter_mut().zip(new) {
            *place = Some(*byte);
        }
        let is_whole = total == Some(bytes.len()) && bytes.iter().all(Option::is_some);
        self.bytes = Some(bytes);
        Some(is_whole)
    }
}

/// Parts that are honest, doubled, forged or late, in any order: what comes out is exactly what a
/// list of all parts yields, and nobody has more in parts than is his.
pub fn reassembly(data: &[u8]) {
    let mut choices = Choices(data);
    let mut tested = Reassembly::default();
    let mut models: BTreeMap<Key, Model> = BTreeMap::new();
    let mut now = 0;
    while !choices.is_empty() {
        let choice = choices.byte();
        match choice & 7 {
            0 => {
                now += u64::from(choices.byte() % 16);
                let late = |model: &Model| model.begun_at + PATIENCE.as_secs() <= now;
                let expected = models.values().filter(|model| late(model)).count();
                models.retain(|_, model| !late(model));
                assert_eq!(tested.expire(at(now)), expected as u64);
            }
            1 => {
                let gone = u32::from(choice >> 3 & 3);
                models.retain(|(peer, ..), _| *peer != gone);
                tested.retain(|_, peer| peer != PeerId(gone));
            }
            2 => {
                // Many that are begun, for the bounds.
                for id in 0..u32::from(choices.byte()) {
                    let part = Part { id: 1000 + id, ..Part::of(choice, &mut Choices(&[])) };
                    part.take(&mut tested, &mut models, now);
                }
            }
            _ => Part::of(choice, &mut choices).take(&mut tested, &mut models, now),
        }
        assert_eq!(tested.is_empty(), models.is_empty());
    }
}

fn at(seconds: u64) -> Instant {
    Instant::from_nanos(seconds * 1_000_000_000)
}

struct Part {
    peer: u32,
    is_v4: bool,
    id: u32,
    offset: usize,
    more: bool,
    hops: u8,
    bytes: Vec<u8>,
}

impl Part {
    fn of(choice: u8, choices: &mut Choices<'_>) -> Self {
        let [id, place, length, tricks] = choices.bytes();
        // Such that parts meet often, and reach beyond any packet sometimes.
        let unit = [8, 8, 64, 1280][usize::from(tricks & 3)];
        let offset = (usize::from(place) * unit).min(65_528);
        let len = match tricks >> 2 & 3 {
            0 => usize::from(length),
            1 => usize::from(length) * 257,
            _ => usize::from(length % 8) * unit,
        };
        // The same at the same place, unless it is forged.
        let forged = if tricks >> 4 == 15 { 1 } else { 0 };
        let bytes = (offset..offset + len).map(|at| (at * 7 + at / 256 + forged) as u8).collect();
        Self {
            peer: u32::from(choice >> 3 & 3),
            is_v4: choice & 0x20 == 0,
            id: u32::from(id % 5),
            offset,
            more: choice & 0x40 == 0,
            hops: length,
            bytes,
        }
    }

    fn take(&self, tested: &mut Reassembly, models: &mut BTreeMap<Key, Model>, now: u64) {
        let addresses = if self.is_v4 { ["10.0.0.1", "10.0.0.2"] } else { ["fd00::1", "fd00::2"] };
        let [source, destination] = addresses.map(|text| text.parse::<IpAddr>().expect("one"));
        let fragment = Fragment { id: self.id, offset: self.offset, more: self.more };
        let inner = Inner {
            packet: &[],
            source,
            destination,
            protocol: 17,
            hops: self.hops,
            may_be_cut: true,
            fragment: Some(fragment),
            payload: &self.bytes,
        };
        let outcome = tested.take(at(now), PeerId(self.peer), &inner, fragment);
        let expected = self.expect(models, now);
        match (outcome, expected) {
            (Ok(Some(whole)), Some(Some(model))) => {
                let whole_inner = Inner::parse(&whole.packet).expect("what is joined is a packet");
                assert_eq!((whole_inner.source, whole_inner.destination), (source, destination));
                assert_eq!((whole_inner.protocol, whole_inner.fragment), (17, None));
                let bytes: Vec<u8> = model.bytes.into_iter().flatten().flatten().collect();
                assert!(whole_inner.payload == bytes, "other bytes than were sent");
                assert_eq!(whole.hops, model.hops);
            }
            (Ok(None), Some(None)) | (Err(_), None) => {}
            (outcome, expected) => panic!(
                "{outcome:?} of {}..{} instead of {:?}",
                self.offset,
                self.offset + self.bytes.len(),
                expected.map(|model| model.map(|model| model.total))
            ),
        }
    }

    /// What comes of it: `None` if it is refused.
    fn expect(&self, models: &mut BTreeMap<Key, Model>, now: u64) -> Option<Option<Model>> {
        let range = self.offset..self.offset + self.bytes.len();
        let header = if self.is_v4 { 20 } else { 40 };
        let is_unfit = self.bytes.is_empty()
            || range.end > LONGEST_BYTES - header
            || (self.more && !self.bytes.len().is_multiple_of(8));
        if is_unfit {
            return None;
        }
        let key = (self.peer, self.is_v4, self.id);
        let of_peer = |models: &BTreeMap<Key, Model>| {
            let own = models.iter().filter(|((peer, ..), _)| *peer == self.peer);
            own.map(|(_, model)| model.reach()).collect::<Vec<_>>()
        };
        if !models.contains_key(&key) {
            if of_peer(models).len() >= PACKETS_A_PEER || models.len() >= PACKETS {
                return None;
            }
            let (bytes, total) = (Some(Vec::new()), None);
            models.insert(key, Model { begun_at: now, bytes, total, hops: 0 });
        }
        let held: usize = of_peer(models).iter().sum();
        let model = models.get_mut(&key)?;
        if held + range.end.saturating_sub(model.reach()) > BYTES_A_PEER {
            return None;
        }
        let is_whole = model.add(range, &self.bytes, self.more, self.hops)?;
        Some(if is_whole { models.remove(&key) } else { None })
    }
}
