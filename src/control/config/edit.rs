//! Changes the text of a file so that it says what a device does, line by line.
//!
//! What does not differ is not touched: comments, blank lines, order, spelling, lines of other
//! programs. A comment that stands right above a section goes with it. What only the file can know
//! stays as it is: hooks, name servers, tables, host names of endpoints, and where keys are kept
//! that do not stand in the file.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::ops::Range;
use std::slice;

use ipnet::IpNet;
use zeroize::Zeroizing;

use super::lex::{Key, Line, Section, joined, lex};
use super::model::{At, Config, Endpoint, MergedPeer, Peer, Table};
use super::render::write_peer;
use super::value::{parse_endpoint, parse_network, words};
use crate::control::command::{AllowedIpChange, DeviceSnapshot, PeerSnapshot};
use crate::control::resolve::endpoint_text;
use crate::crypto::dh;
use crate::crypto::key::{PresharedKey, PrivateKey, PublicKey};

/// What a running tunnel is like.
#[derive(Clone, Debug)]
pub struct State {
    pub device: DeviceSnapshot,
    /// The kernel has picked the port: nobody wants this one in particular.
    pub port_is_random: bool,
    /// Those of the interface, host bits kept.
    pub addresses: Vec<IpNet>,
    /// The host takes no IPv6: that an address is missing says nothing.
    pub ipv6_is_off: bool,
    /// Bytes.
    pub mtu: u32,
}

/// The text of a file that says `config`, changed where `state` differs from it.
pub(super) fn update(text: &str, config: &Config, state: &State) -> Zeroizing<String> {
    let mut document = Document::new(text);
    update_interface(&mut document, config, state);
    update_peers(&mut document, config, state);
    document.into_text()
}

/// The text with a section for `peer` at its end, under a comment with the peer's name.
pub fn with_peer(text: &str, name: &str, peer: &Peer) -> Zeroizing<String> {
    let mut document = Document::new(text);
    document.append(peer, Some(name));
    document.into_text()
}

/// The line, counted from 1, of the peer's section above which a comment is this name alone.
pub fn line_of_peer(text: &str, name: &str) -> Option<usize> {
    let document = Document::new(text);
    let is_name = |line: &Edited<'_>| {
        line.old.trim().strip_prefix('#').is_some_and(|comment| comment.trim() == name)
    };
    let is_called = |block: &&Block| {
        block.section == Some(Section::Peer)
            && document.lines[block.lines.start..block.header].iter().any(is_name)
    };
    document.blocks.iter().find(is_called).map(|block| block.header + 1)
}

fn update_interface(document: &mut Document<'_>, config: &Config, state: &State) {
    let interface = &config.interface;
    let device = &state.device;
    let blocks = document.interface_blocks();
    // A hook may have set it, so that it does not stand in the file.
    let is_kept_elsewhere = interface.private_key_file.is_some()
        || (interface.private_key.is_none()
            && !(interface.pre_up.is_empty() && interface.post_up.is_empty()));
    let said = interface.private_key.as_ref().filter(|key| !key.is_zero());
    if said != device.private_key.as_ref() && !is_kept_elsewhere {
        let key = device.private_key.as_ref().map(PrivateKey::to_base64).map(Zeroizing::new);
        document.set(&blocks, Key::PrivateKey, key.as_deref().map(String::as_str));
    }
    let said = interface.listen_port.filter(|&port| port != 0);
    if said != Some(device.listen_port) && !(said.is_none() && state.port_is_random) {
        document.set(&blocks, Key::ListenPort, Some(&device.listen_port.to_string()));
    }
    let said = interface.fwmark.unwrap_or(0);
    if said != device.fwmark && !(said == 0 && has_policy_routing(config)) {
        let mark = format!("{:#x}", device.fwmark);
        document.set(&blocks, Key::FwMark, (device.fwmark != 0).then_some(mark.as_str()));
    }
    let is_wanted = |address: &&IpNet| {
        // The kernel gives an interface one of its own accord.
        let is_link_local = matches!(address, IpNet::V6(v6) if v6.addr().is_unicast_link_local());
        !is_link_local || interface.addresses.contains(address)
    };
    let missing_v6 =
        interface.addresses.iter().filter(|it| state.ipv6_is_off && matches!(it, IpNet::V6(_)));
    let wanted: Vec<IpNet> =
        state.addresses.iter().filter(is_wanted).chain(missing_v6).copied().collect();
    if is_other(&interface.addresses, &wanted) {
        document.set_list(&blocks, Key::Address, &wanted);
    }
    if interface.mtu.is_some_and(|mtu| u32::from(mtu) != state.mtu) {
        document.set(&blocks, Key::Mtu, Some(&state.mtu.to_string()));
    }
}

fn is_other(some: &[IpNet], others: &[IpNet]) -> bool {
    let set = |networks: &[IpNet]| networks.iter().copied().collect::<BTreeSet<_>>();
    set(some) != set(others)
}

/// Whether `up` has picked a mark by itself if the file names none.
fn has_policy_routing(config: &Config) -> bool {
    let table = config.interface.table.as_ref().map(|table| &table.value);
    let mut changes = config.peers.iter().flat_map(|peer| peer.allowed_ips.iter().flatten());
    matches!(table, None | Some(Table::Auto))
        && changes.any(
            |change| matches!(change.value, AllowedIpChange::Add(net) if net.prefix_len() == 0),
        )
}

fn update_peers(document: &mut Document<'_>, config: &Config, state: &State) {
    let own = state.device.private_key.as_ref().map(dh::public_key);
    let mut running: HashMap<PublicKey, &PeerSnapshot> =
        state.device.peers.iter().map(|peer| (peer.public_key, peer)).collect();
    for said in config.merged_peers() {
        let blocks: Vec<Block> = said.lines.iter().map(|&line| document.block_at(line)).collect();
        match running.remove(&said.public_key) {
            Some(peer) => update_peer(document, &blocks, &said, peer),
            // A device never takes itself for a peer.
            None if own == Some(said.public_key) => {}
            None => blocks.iter().for_each(|block| document.remove(block)),
        }
    }
    let is_new = |peer: &&PeerSnapshot| running.contains_key(&peer.public_key);
    state
        .device
        .peers
        .iter()
        .filter(is_new)
        .for_each(|peer| document.append(&as_section(peer), None));
}

fn update_peer(
    document: &mut Document<'_>,
    blocks: &[Block],
    said: &MergedPeer,
    peer: &PeerSnapshot,
) {
    let preshared_key = said.preshared_key.clone().unwrap_or(PresharedKey::NONE);
    if preshared_key != peer.preshared_key && !said.is_kept_elsewhere {
        let key = (!peer.preshared_key.is_zero()).then(|| peer.preshared_key.to_base64());
        let key = key.map(Zeroizing::new);
        document.set(blocks, Key::PresharedKey, key.as_deref().map(String::as_str));
    }
    if said.networks != peer.allowed_ips.iter().copied().collect() {
        // A later section replaces what an earlier one says.
        let (last, others) = document.last_with(blocks, Key::AllowedIps);
        document.set(&others, Key::AllowedIps, None);
        document.set_list(&[last], Key::AllowedIps, &peer.allowed_ips);
    }
    // Which of a list is in use says nothing about the list.
    if let Some(endpoint) = peer.endpoint.filter(|_| said.places.len() < 2) {
        match said.places.first() {
            Some(Endpoint::Name { .. }) => {}
            Some(Endpoint::Address(address)) if *address == endpoint => {}
            Some(Endpoint::Address(_)) | None => {
                document.set(blocks, Key::Endpoint, Some(&endpoint_text(endpoint)));
            }
        }
    }
    if said.persistent_keepalive != peer.persistent_keepalive {
        let seconds = peer.persistent_keepalive.to_string();
        let is_on = peer.persistent_keepalive != 0;
        document.set(blocks, Key::PersistentKeepalive, is_on.then_some(seconds.as_str()));
    }
}

/// The lines of a file and what is to become of them. Lines are counted from 0.
struct Document<'a> {
    lines: Vec<Edited<'a>>,
    blocks: Vec<Block>,
    line_end: &'static str,
}

/// A section.
#[derive(Clone, Debug)]
struct Block {
    section: Option<Section>,
    header: usize,
    /// With the comments right above its header, and without those above the next one.
    lines: Range<usize>,
}

/// A line, with its line end. What is new may be a key, and is wiped when dropped.
struct Edited<'a> {
    old: &'a str,
    new: Option<Zeroizing<String>>,
    after: Vec<Zeroizing<String>>,
}

impl<'a> Document<'a> {
    fn new(text: &'a str) -> Self {
        let lines: Vec<&str> = text.split_inclusive('\n').collect();
        let mut blocks: Vec<Block> = Vec::new();
        for (header, line) in lines.iter().enumerate() {
            let Some(Line::Section(name)) = lex(line.trim_start_matches('\u{feff}')) else {
                continue;
            };
            let is_comment =
                |line: &&&str| line.trim_start().starts_with('#') && lex(line).is_none();
            let above = lines[..header].iter().rev().take_while(is_comment).count();
            if let Some(last) = blocks.last_mut() {
                last.lines.end = header - above;
            }
            let section = Section::find(name);
            blocks.push(Block { section, header, lines: header - above..lines.len() });
        }
        let lines =
            lines.into_iter().map(|old| Edited { old, new: None, after: Vec::new() }).collect();
        let line_end = if text.contains("\r\n") { "\r\n" } else { "\n" };
        Self { lines, blocks, line_end }
    }

    /// The section whose header stands on this line, counted from 1.
    fn block_at(&self, line: usize) -> Block {
        let found = self.blocks.binary_search_by_key(&(line - 1), |block| block.header);
        self.blocks[found.expect("the parser has found a header there")].clone()
    }

    fn interface_blocks(&self) -> Vec<Block> {
        let is_interface = |block: &&Block| block.section == Some(Section::Interface);
        self.blocks.iter().filter(is_interface).cloned().collect()
    }

    /// The lines of these sections that give `key` a value.
    fn lines_with(&self, blocks: &[Block], key: Key) -> Vec<usize> {
        let lines = blocks.iter().flat_map(|block| block.header..block.lines.end);
        let has_key = |&line: &usize| match lex(self.lines[line].text()) {
            Some(Line::Pair { key: name, in_comment: false, .. }) => Key::find(name) == Some(key),
            _ => false,
        };
        lines.filter(has_key).collect()
    }

    /// The last of the sections that has `key`, or the last of all; and the others.
    fn last_with(&self, blocks: &[Block], key: Key) -> (Block, Vec<Block>) {
        let has_key = |block: &Block| !self.lines_with(slice::from_ref(block), key).is_empty();
        let mut others = blocks.to_vec();
        let last = others.iter().rposition(has_key).unwrap_or(others.len() - 1);
        (others.remove(last), others)
    }

    /// Gives `key` this value, where it has one or else at the end of the last section; or removes
    /// it. Of several values the last one counts.
    fn set(&mut self, blocks: &[Block], key: Key, value: Option<&str>) {
        let lines = self.lines_with(blocks, key);
        match (value, lines.last()) {
            (Some(value), Some(&last)) => self.lines[last].set_value(value),
            (Some(value), None) => self.insert(blocks, key, value),
            (None, _) => lines.iter().for_each(|&line| self.lines[line].remove()),
        }
    }

    /// Makes the lists of all lines with `key` together those networks.
    fn set_list(&mut self, blocks: &[Block], key: Key, wanted: &[IpNet]) {
        let is_wanted: HashSet<IpNet> = wanted.iter().copied().collect();
        let mut found = HashSet::new();
        let mut lists: Vec<(usize, Vec<String>)> = Vec::new();
        for line in self.lines_with(blocks, key) {
            let mut entries = self.lines[line].entries(key);
            entries.retain(|entry| {
                let network = network_of(key, entry).filter(|network| is_wanted.contains(network));
                found.extend(network);
                network.is_some()
            });
            lists.push((line, entries));
        }
        let new = wanted.iter().filter(|network| !found.contains(*network));
        let new: Vec<String> = new.map(ToString::to_string).collect();
        match lists.last_mut() {
            Some((_, entries)) => entries.extend(new),
            None if new.is_empty() => {}
            None => self.insert(blocks, key, &new.join(", ")),
        }
        for (line, entries) in lists {
            if entries.is_empty() {
                self.lines[line].remove();
            } else if entries != self.lines[line].entries(key) {
                self.lines[line].set_value(&entries.join(", "));
            }
        }
    }

    /// Adds a line behind what the last section says.
    fn insert(&mut self, blocks: &[Block], key: Key, value: &str) {
        // Full size at once, because growing would leave copies of a key behind.
        let mut line = Zeroizing::new(String::with_capacity(value.len() + 64));
        for part in [key.name(), " = ", value, self.line_end] {
            line.push_str(part);
        }
        let Some(block) = blocks.last() else { return self.insert_interface(line) };
        let says_something = |&line: &usize| lex(self.lines[line].old).is_some();
        let last = (block.header..block.lines.end).rev().find(says_something);
        self.add_after(last.unwrap_or(block.header), line);
    }

    /// Adds a line to an `[Interface]` at the end of a file that has none.
    fn insert_interface(&mut self, line: Zeroizing<String>) {
        let header = Zeroizing::new(format!("[Interface]{}", self.line_end));
        let last = self.lines.len().saturating_sub(1);
        if !self.lines.get(last).is_some_and(|it| it.after.contains(&header)) {
            self.add_after(last, Zeroizing::new(self.line_end.to_owned()));
            self.add_after(last, header);
        }
        self.add_after(last, line);
    }

    /// Adds a section for a peer at the end, with its name in a comment if it has one.
    fn append(&mut self, peer: &Peer, name: Option<&str>) {
        let networks = peer.allowed_ips.as_ref().map_or(0, Vec::len);
        let mut section = Zeroizing::new(String::with_capacity(512 + 64 * networks));
        if let Some(name) = name {
            section.push_str("\n# ");
            section.push_str(name);
        }
        let written = write_peer(&mut *section, peer);
        debug_assert!(written.is_ok(), "writing to a String cannot fail");
        let last = self.lines.len().saturating_sub(1);
        for line in section.split_inclusive('\n') {
            let mut ended = Zeroizing::new(String::with_capacity(line.len() + 1));
            ended.push_str(line.trim_end_matches('\n'));
            ended.push_str(self.line_end);
            self.add_after(last, ended);
        }
    }

    fn add_after(&mut self, line: usize, new: Zeroizing<String>) {
        if self.lines.is_empty() {
            self.lines.push(Edited { old: "", new: None, after: Vec::new() });
        }
        self.lines[line].after.push(new);
    }

    fn remove(&mut self, block: &Block) {
        self.lines[block.lines.clone()].iter_mut().for_each(Edited::remove);
    }

    fn into_text(self) -> Zeroizing<String> {
        let after = |line: &Edited<'_>| line.after.iter().map(|it| it.len()).sum::<usize>();
        let size = self.lines.iter().map(|line| line.text().len() + after(line) + 2).sum();
        let mut text = Zeroizing::new(String::with_capacity(size));
        for line in &self.lines {
            text.push_str(line.text());
            for new in &line.after {
                if !text.is_empty() && !text.ends_with('\n') {
                    text.push_str(self.line_end);
                }
                // A section that was removed has left its blank line behind.
                let is_second_blank = new.trim().is_empty()
                    && (text.is_empty() || text.ends_with("\n\n") || text.ends_with("\n\r\n"));
                if !is_second_blank {
                    text.push_str(new);
                }
            }
        }
        text
    }
}

impl Edited<'_> {
    fn text(&self) -> &str {
        self.new.as_deref().map_or(self.old, String::as_str)
    }

    /// Where the value is in the text of a line that has one.
    fn place(&self) -> Range<usize> {
        let text = self.text();
        let start = text.find('=').map_or(text.len(), |equals| equals + 1);
        let end = text[start..].find('#').map_or(text.len(), |comment| start + comment);
        let value = text[start..end].trim();
        match text[start..end].find(value) {
            Some(at) if !value.is_empty() => start + at..start + at + value.len(),
            _ => start..start,
        }
    }

    /// Those of a list.
    fn entries(&self, key: Key) -> Vec<String> {
        let value = &self.text()[self.place()];
        match key {
            Key::AllowedIps => value.split(',').map(|entry| entry.trim().to_owned()).collect(),
            _ => words(value).map(str::to_owned).collect(),
        }
    }

    fn set_value(&mut self, value: &str) {
        let (place, text) = (self.place(), self.text());
        let mut new = Zeroizing::new(String::with_capacity(text.len() + value.len() + 1));
        new.push_str(&text[..place.start]);
        if place.is_empty() && text[..place.start].ends_with('=') && !value.is_empty() {
            new.push(' ');
        }
        new.push_str(value);
        new.push_str(&text[place.end..]);
        self.new = Some(new);
    }

    fn remove(&mut self) {
        self.new = Some(Zeroizing::default());
    }
}

/// The network of an entry; `None` if the entry takes one away.
fn network_of(key: Key, entry: &str) -> Option<IpNet> {
    if key != Key::AllowedIps {
        return parse_network(entry);
    }
    let entry = joined(entry);
    parse_network(entry.strip_prefix('+').unwrap_or(&entry)).map(|network| network.trunc())
}

fn as_section(peer: &PeerSnapshot) -> Peer {
    let networks = peer.allowed_ips.iter().map(|network| AllowedIpChange::Add(*network));
    let networks: Vec<_> = networks.map(|value| At { line: 0, value }).collect();
    Peer {
        line: 0,
        public_key: peer.public_key,
        preshared_key: Some(peer.preshared_key.clone()).filter(|key| !key.is_zero()),
        preshared_key_file: None,
        allowed_ips: Some(networks).filter(|networks| !networks.is_empty()),
        incremental: false,
        endpoint: peer.endpoint.and_then(|endpoint| parse_endpoint(&endpoint_text(endpoint))),
        endpoints: Vec::new(),
        persistent_keepalive: Some(peer.persistent_keepalive).filter(|&seconds| seconds != 0),
        required: None,
    }
}

#[cfg(test)]
mod tests;
