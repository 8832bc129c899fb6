//! What is fuzzed, as plain functions of bytes: each panics if a promise is broken.
//!
//! `fuzz_targets/` hands them to libFuzzer; `tests/it/fuzz.rs` includes this file and replays
//! `corpus/` under `cargo test`. To hunt for new inputs, on the stable toolchain:
//!
//! ```text
//! RUSTC_BOOTSTRAP=1 cargo fuzz run --dev allowed_ips
//! ```

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use hybridwg::control::uapi::get::{self, GetParser};
use hybridwg::control::uapi::request::{Request, RequestReader};
use hybridwg::control::uapi::set;
use hybridwg::control::{command::DeviceSnapshot, config as configuration};
use hybridwg::crypto::dh::public_key;
use hybridwg::crypto::entropy::SeededEntropy;
use hybridwg::crypto::key::{PrivateKey, PublicKey};
use hybridwg::proto::allowed_ips::AllowedIps;
use hybridwg::proto::cookie::CookieJar;
use hybridwg::proto::device::{Change, Destination, Device, Load, Output, Outputs, PeerUpdate};
use hybridwg::proto::endpoint::Endpoint;
use hybridwg::proto::index::Index;
use hybridwg::proto::keypair::{Opener, Sealer};
use hybridwg::proto::peer::PeerId;
use hybridwg::proto::replay::ReplayWindow;
use hybridwg::time::{Instant, Now, Wall};
use hybridwg::wire::message::{Message, TRANSPORT_OVERHEAD_BYTES, classify};
use ipnet::IpNet;

mod aead;
mod flows;
mod mss;
mod offload;
mod proxies;
mod reassembly;
mod tcp;
mod translation;

pub use aead::aead;
pub use flows::flows;
pub use mss::mss;
pub use offload::{coalesce, split};
pub use proxies::{dns, http, socks};
pub use reassembly::reassembly;
pub use tcp::tcp;
pub use translation::translation;

/// Bytes as a sequence of choices; zeros when they run out.
struct Choices<'a>(&'a [u8]);

impl Choices<'_> {
    fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    fn byte(&mut self) -> u8 {
        let Some((&first, rest)) = self.0.split_first() else { return 0 };
        self.0 = rest;
        first
    }

    fn bytes<const N: usize>(&mut self) -> [u8; N] {
        std::array::from_fn(|_| self.byte())
    }

    /// Its bytes are those of the address that vary most in practice, so that a short input makes
    /// prefixes that nest and collide.
    fn address(&mut self) -> IpAddr {
        match self.byte() % 4 {
            0 | 1 => {
                let [a, b] = self.bytes();
                Ipv4Addr::new(10, a, 0, b).into()
            }
            2 => {
                let [a, b, c] = self.bytes();
                Ipv6Addr::from([0xfd, a, 0, 0, 0, 0, 0, b, 0, 0, 0, 0, 0, 0, 0, c]).into()
            }
            _ => Ipv6Addr::from(self.bytes::<16>()).into(),
        }
    }

    fn net(&mut self) -> IpNet {
        let address = self.address();
        let max = if address.is_ipv4() { 32 } else { 128 };
        IpNet::new(address, self.byte() % (max + 1)).expect("a length that fits the family")
    }
}

/// Edits and lookups: the table answers as a list would, and earlier snapshots stay as they were.
pub fn allowed_ips(data: &[u8]) {
    let mut choices = Choices(data);
    let mut table = AllowedIps::new();
    let mut list: BTreeMap<IpNet, u8> = BTreeMap::new();
    let mut snapshot = (table.routes(), list.clone());
    let longest = |list: &BTreeMap<IpNet, u8>, address: IpAddr| {
        let containing = list.iter().filter(|(net, _)| net.contains(&address));
        containing.max_by_key(|(net, _)| net.prefix_len()).map(|(_, &owner)| owner)
    };
    while !choices.is_empty() {
        let choice = choices.byte();
        let owner = choice >> 4;
        match choice & 7 {
            0..=2 => {
                let net = choices.net();
                assert_eq!(table.insert(net, owner), list.insert(net.trunc(), owner));
            }
            3 => {
                let net = choices.net();
                let owned = list.get(&net.trunc()) == Some(&owner);
                assert_eq!(table.remove(net, owner), owned);
                if owned {
                    list.remove(&net.trunc());
                }
            }
            4 => {
                table.remove_all(owner);
                list.retain(|_, other| *other != owner);
            }
            5 => snapshot = (table.routes(), list.clone()),
            _ => {
                let address = choices.address();
                assert_eq!(table.lookup(address), longest(&list, address));
                assert_eq!(snapshot.0.lookup(address), longest(&snapshot.1, address));
            }
        }
    }
    for owner in 0..16 {
        let owned = list.iter().filter(|&(_, &other)| other == owner).map(|(&net, _)| net);
        assert!(table.iter_of(owner).eq(owned));
    }
}

/// A configuration file: what is understood survives being written and read again, faults are told
/// in the order of their lines, and no message repeats a key.
pub fn config(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    match configuration::parse(text, "fuzz.conf") {
        Ok(written) => {
            let rendered = configuration::render(&written.config);
            let again =
                configuration::parse(&rendered, "fuzz.conf").expect("it reads its own text");
            assert_eq!(*configuration::render(&again.config), *rendered);
            let resolve =
                |_: &str, port| Ok::<_, ()>(Some(SocketAddr::from(([192, 0, 2, 1], port))));
            let (first, second) =
                (written.config.to_request(resolve), again.config.to_request(resolve));
            assert_eq!(first, second);
            for warning in written.warnings {
                assert_no_key(text, &warning.to_string());
            }
        }
        Err(errors) => {
            assert!(!errors.is_empty());
            assert!(errors.is_sorted_by_key(|error| error.line));
            for error in errors {
                assert!(error.line >= 1);
                assert_no_key(text, &error.to_string());
            }
        }
    }
}

fn assert_no_key(text: &str, message: &str) {
    for word in text.split(|c: char| c.is_whitespace() || c == ',') {
        let is_key = PrivateKey::from_base64(word).is_ok();
        assert!(!is_key || !message.contains(word), "a key in a message");
    }
}

/// A UAPI connection: requests do not depend on how the bytes arrive, and what is understood
/// survives being written and read again, in both directions.
pub fn uapi(data: &[u8]) {
    let mut choices = Choices(data);
    let chunk = usize::from(choices.byte()).max(1);
    let text = choices.0;
    let whole = requests(&[text]);
    assert_eq!(whole, requests(&text.chunks(chunk).collect::<Vec<_>>()));
    for request in whole {
        if let Request::Set(change) = request {
            let rendered = set::render(&change);
            assert_eq!(requests(&[rendered.as_bytes()]), [Request::Set(change)]);
        }
    }
    let Ok(text) = std::str::from_utf8(text) else { return };
    if let Some(device) = snapshot(text) {
        assert_eq!(snapshot(&get::render(&device)), Some(device));
    }
}

fn requests(pieces: &[&[u8]]) -> Vec<Request> {
    let mut reader = RequestReader::new();
    let mut requests = Vec::new();
    for piece in pieces {
        reader.feed(piece, |request| requests.push(request));
    }
    requests
}

fn snapshot(reply: &str) -> Option<DeviceSnapshot> {
    let mut parser = GetParser::default();
    reply.split('\n').map(|line| parser.line(line)).find_map(|line| line.transpose())?.ok()
}

/// A time line of two devices that know each other, whose handshake messages are delivered,
/// delayed, repeated, damaged and forged at will. Nothing damaged is accepted, nobody answers with
/// more bytes than were asked with, a refusal changes nothing, and a session that both ends have
/// carries packets, each once.
pub fn datagram(data: &[u8]) {
    let mut choices = Choices(data);
    let mut now =
        Now { mono: Instant::from_nanos(1 << 40), wall: Wall { secs: 1 << 30, nanos: 0 } };
    let mut ends = End::pair(now);
    while !choices.is_empty() {
        let choice = choices.byte();
        let (here, there) = (usize::from(choice & 1), usize::from(!choice & 1));
        match choice >> 1 & 7 {
            0 => {
                let seconds = [1, 5, 16, 121][usize::from(choices.byte() % 4)];
                now.mono = now.mono + Duration::from_secs(seconds);
                now.wall.secs += seconds;
            }
            1 => ends[here].act(|device, peer, out| device.want_session(now, peer, out)),
            2 => ends[here].act(|device, _, out| device.handle_timeout(now, out)),
            3 => {
                let len = usize::from(choices.byte()).min(choices.0.len());
                let (datagram, rest) = choices.0.split_at(len);
                choices = Choices(rest);
                ends[here].receive(now, Load::Normal, datagram);
            }
            4 => {
                let mut datagram = ends[there].sent_last.clone();
                let (place, by) = (usize::from(choices.byte()), choices.byte());
                let how = choices.byte();
                let load = if how & 1 == 0 { Load::Normal } else { Load::High };
                let mut damaged = damage(&mut datagram, place, by);
                if how & 2 != 0 && has_macs(&datagram) {
                    // Whoever knows the public key can make the first MAC; the indices have no
                    // other protection.
                    CookieJar::new(&ends[here].public_key()).stamp(now.mono, &mut datagram);
                    damaged &= (12..datagram.len() - 32).contains(&place);
                }
                let accepted = ends[here].receive(now, load, &datagram);
                assert!(!(damaged && accepted), "a damaged message was accepted");
            }
            5 | 6 => ends[here].receive_last_of(now, &ends[there].sent_last.clone()),
            _ => {
                let Some(mut packet) = ends[here].seal(now) else { continue };
                let copy = packet.clone();
                if ends[there].open(now, &mut packet) {
                    assert!(!ends[there].open(now, &mut copy.clone()), "accepted a copy");
                }
            }
        }
    }
}

/// Changes one byte; tells whether what the first MAC covers, or that MAC, has changed.
fn damage(datagram: &mut [u8], place: usize, by: u8) -> bool {
    // A cookie reply has none, and its index is not authenticated.
    let covered = if has_macs(datagram) { datagram.len() - 16 } else { 0 };
    if let Some(byte) = datagram.get_mut(place) {
        *byte ^= by;
    }
    by != 0 && place < covered
}

fn has_macs(datagram: &[u8]) -> bool {
    matches!(classify(datagram), Some(Message::Initiation(_) | Message::Response(_)))
}

/// One device with the least data plane that its outputs need.
struct End {
    device: Device,
    peer: PeerId,
    sent_last: Vec<u8>,
    openers: BTreeMap<Index, (Opener, ReplayWindow)>,
    current: Option<Arc<Sealer>>,
}

const PLAINTEXT: &[u8] = b"sixteen bytes ok";

impl End {
    fn pair(now: Now) -> [Self; 2] {
        let keys = [[1; 32], [2; 32]].map(PrivateKey::from_bytes);
        let publics = [0, 1].map(|end: usize| public_key(&keys[end]));
        [0, 1].map(|here: usize| {
            let mut device = Device::new(Box::new(SeededEntropy::new(here as u64)));
            let update = PeerUpdate {
                endpoint: Some(address(1 - here)),
                ..PeerUpdate::new(publics[1 - here])
            };
            let changes = [Change::PrivateKey(Some(keys[here].clone())), Change::Peer(update)];
            for change in changes {
                device.configure(now, change, &mut Outputs::new()).expect("two legal changes");
            }
            let peer = device.peer_id(&publics[1 - here]).expect("the peer just added");
            let (sent_last, openers, current) = (Vec::new(), BTreeMap::new(), None);
            Self { device, peer, sent_last, openers, current }
        })
    }

    fn public_key(&self) -> PublicKey {
        *self.device.public_key().expect("the key given at the start")
    }

    /// Lets the device do something, and does what it wants done.
    fn act(&mut self, step: impl FnOnce(&mut Device, PeerId, &mut Outputs)) {
        let mut out = Outputs::new();
        step(&mut self.device, self.peer, &mut out);
        for output in out.drain() {
            match output {
                Output::Transmit { datagram, .. } => self.sent_last = datagram.to_vec(),
                Output::Install { index, opener, .. } => {
                    let known = self.openers.insert(index, (opener, ReplayWindow::new()));
                    assert!(known.is_none(), "two sessions with one index");
                }
                Output::Retire(index) => {
                    self.openers.remove(&index);
                }
                Output::Current { sealer, .. } => self.current = sealer,
                _ => {}
            }
        }
    }

    fn receive(&mut self, now: Now, load: Load, datagram: &[u8]) -> bool {
        let mut accepted = false;
        let from = Endpoint::new(address(0));
        self.act(|device, _, out| {
            let mut made = Outputs::new();
            accepted = device.handle_handshake(now, from, load, datagram, &mut made).is_ok();
            let is_cookie_reply = matches!(classify(datagram), Some(Message::CookieReply(_)));
            assert!(!is_cookie_reply || made.is_empty(), "a cookie reply moves and sends nothing");
            for output in made.drain() {
                if let Output::Transmit { datagram: answer, to, .. } = &output {
                    assert!(answer.len() <= datagram.len(), "an answer larger than its question");
                    assert!(accepted || *to == Destination::Address(from));
                } else {
                    assert!(accepted, "a refused message changed something");
                }
                out.push(output);
            }
        });
        accepted
    }

    fn receive_last_of(&mut self, now: Now, datagram: &[u8]) {
        if self.receive(now, Load::Normal, datagram) {
            assert!(
                !self.receive(now, Load::Normal, datagram),
                "the same handshake message was accepted twice"
            );
        }
    }

    fn seal(&self, now: Now) -> Option<Vec<u8>> {
        let sealer = self.current.as_ref().filter(|sealer| !sealer.is_expired(now.mono))?;
        let counter = sealer.reserve(1)?.next()?;
        let mut packet = vec![0; PLAINTEXT.len() + TRANSPORT_OVERHEAD_BYTES];
        sealer.seal(counter, PLAINTEXT, 0, &mut packet);
        Some(packet)
    }

    /// Whether the packet was accepted; if its session is known and alive, it must open.
    fn open(&mut self, now: Now, packet: &mut [u8]) -> bool {
        let Some(Message::Transport { receiver, .. }) = classify(packet) else {
            panic!("a sealed packet is a transport message");
        };
        let index = Index(receiver);
        let Some((opener, window)) = self.openers.get_mut(&index) else { return false };
        if opener.is_expired(now.mono) {
            return false;
        }
        let (proof, range) = opener.open(now.mono, packet).expect("both ends have the same keys");
        assert_eq!(&packet[range], PLAINTEXT);
        let accepted = window.accept(&proof).is_ok();
        self.act(|device, _, out| device.handle_confirmed(now, index, out));
        accepted
    }
}

fn address(end: usize) -> SocketAddr {
    SocketAddr::from(([192, 0, 2, 1], 1000 + end as u16))
}
