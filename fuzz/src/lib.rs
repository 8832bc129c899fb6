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

use hybridwg::control::uapi::get::{self, GetParser};
use hybridwg::control::uapi::request::{Request, RequestReader};
use hybridwg::control::uapi::set;
use hybridwg::control::{command::DeviceSnapshot, config as configuration};
use hybridwg::crypto::key::PrivateKey;
use hybridwg::proto::allowed_ips::AllowedIps;
use ipnet::IpNet;

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
            let resolve = |_: &str, port| Ok::<_, ()>(SocketAddr::from(([192, 0, 2, 1], port)));
            let (first, second) =
                (written.config.to_request(resolve), again.config.to_request(resolve));
            assert_eq!(first, second);
            assert_eq!(written.config.unavailable().len(), again.config.unavailable().len());
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
