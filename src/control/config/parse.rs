//! From text to [`Config`], strictly, with all faults of a file at once.

mod ends;
pub(super) mod wireproxy;

use std::collections::HashMap;

use self::wireproxy::{Foreign, Wireproxy};
use super::lex::{Key, Line, Reader, Section, edit_distance, has_comment_of_ours, joined, lines};
use super::model::{At, Config, Endpoint, Interface, Peer, Table};
use super::secret::KeySource;
use super::value::{
    is_probe, number_of, parse_dns, parse_endpoint, parse_endpoints, parse_fwmark, parse_listen,
    parse_masquerade, parse_network, parse_switch, parse_table, parse_truth, parse_tune, words,
};
use super::{BadKey, ConfigError, Problem, Read, Warning, Written, warn};
use crate::control::command::AllowedIpChange;
use crate::control::marks;
use crate::crypto::key::{PresharedKey, PrivateKey, PublicKey};

/// One of the texts that make a configuration, and what messages call it.
#[derive(Clone, Copy, Debug)]
pub struct Text<'a> {
    pub name: &'a str,
    pub text: &'a str,
    pub kind: TextKind,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum TextKind {
    #[default]
    File,
    /// Lines of an `[Interface]` beside the file: keys of our own, and no password, for these lines
    /// are written down.
    Lines,
}

/// Reads a whole file.
///
/// # Errors
/// Every fault of the text, in the order of its lines; `file` names it in messages.
pub fn parse(text: &str, file: &str) -> Result<Written, Vec<ConfigError>> {
    parse_all(&[Text { name: file, text, kind: TextKind::File }])
}

/// Reads several texts as one configuration.
///
/// # Errors
/// As [`parse`], of all of them.
pub fn parse_all(texts: &[Text<'_>]) -> Result<Written, Vec<ConfigError>> {
    let mut parser = Parser::read(texts);
    if !parser.errors.is_empty() {
        return Err(parser.errors);
    }
    let file = texts.first().map_or("", |text| text.name);
    parser.warnings.extend(warn::about(&parser.config, file));
    let mut warnings = parser.warnings;
    warnings.sort_by_key(|warning| warning.line);
    for warning in &mut warnings {
        if let Some(line) = warning.line {
            let (file, line) = parser.config.texts.place(line);
            (warning.file, warning.line) = (file.to_owned(), Some(line));
        }
    }
    Ok(Written { config: parser.config, warnings })
}

/// Reads a whole file, and passes over sections and keys that it does not know.
///
/// # Errors
/// As [`parse`], for all other faults.
pub(super) fn parse_known(text: &str, file: &str) -> Result<Config, Vec<ConfigError>> {
    let mut parser = Parser::read(&[Text { name: file, text, kind: TextKind::File }]);
    parser.errors.retain(|error| {
        !matches!(error.problem, Problem::UnknownKey { .. } | Problem::UnknownSection { .. })
    });
    if parser.errors.is_empty() { Ok(parser.config) } else { Err(parser.errors) }
}

#[derive(Default)]
struct Parser {
    config: Config,
    /// What is being read.
    kind: TextKind,
    place: Place,
    errors: Vec<ConfigError>,
    warnings: Vec<Warning>,
    /// Where each key of an `[Interface]` was last.
    last: HashMap<Key, usize>,
    wireproxy: Wireproxy,
}

/// The section that the current line belongs to.
#[derive(Default)]
enum Place {
    #[default]
    Nowhere,
    Interface,
    Peer(Box<Draft>),
    /// A section of wireproxy's.
    Foreign(Foreign),
    /// A section with a faulty name: reported once, its keys are passed over.
    Unknown,
}

impl Place {
    /// If it is one that has keys.
    const fn section(&self) -> Option<Section> {
        match self {
            Self::Interface => Some(Section::Interface),
            Self::Peer(_) => Some(Section::Peer),
            Self::Nowhere | Self::Foreign(_) | Self::Unknown => None,
        }
    }
}

/// A `[Peer]` section whose key may still be to come.
#[derive(Default)]
struct Draft {
    line: usize,
    public_key: Option<PublicKey>,
    /// A key was there and faulty, which was reported: it is not missing as well.
    named: bool,
    preshared_key: Option<PresharedKey>,
    preshared_key_file: Option<At<KeySource>>,
    allowed_ips: Option<Vec<At<AllowedIpChange>>>,
    incremental: bool,
    endpoint: Option<Endpoint>,
    endpoints: Vec<Endpoint>,
    persistent_keepalive: Option<u16>,
    required: Option<bool>,
}

impl Parser {
    fn read(texts: &[Text<'_>]) -> Self {
        let mut parser = Self::default();
        let mut before = 0;
        for text in texts {
            parser.config.texts.add(before, text.name);
            parser.kind = text.kind;
            parser.place = match text.kind {
                TextKind::File => Place::Nowhere,
                TextKind::Lines => Place::Interface,
            };
            for (number, line) in lines(text.text) {
                parser.line(before + number, line);
            }
            parser.end_section();
            before += text.text.split('\n').count();
        }
        parser.end_wireproxy();
        parser.end_interface();
        parser.errors.sort_by_key(|error| error.line);
        for error in &mut parser.errors {
            let (file, line) = parser.config.texts.place(error.line);
            (error.file, error.line) = (file.to_owned(), line);
        }
        parser
    }

    fn line(&mut self, number: usize, line: Line<'_>) {
        match line {
            Line::Section(name) => self.section(number, name),
            Line::Pair { key, value, whole_value, in_comment } => {
                self.pair(number, key, value, whole_value, in_comment);
            }
            Line::Misspelt(key) => self.fault(number, Some(key), Problem::Misspelt),
            Line::Junk(text) => match Key::first_word(text) {
                Some(key) => self.no_equals_sign(number, key),
                None => {
                    let may_be_password = matches!(self.place, Place::Foreign(_))
                        || text.to_ascii_lowercase().contains("pass");
                    let read = if may_be_password { Read::Password } else { Read::of(text) };
                    self.fault(number, None, Problem::NotAPair { read });
                }
            },
        }
    }

    /// A line begins with a key, and it is not followed by `=`: what is may be a secret.
    fn no_equals_sign(&mut self, number: usize, key: Key) {
        match &mut self.place {
            Place::Unknown => return,
            Place::Peer(draft) if key == Key::PublicKey => draft.named = true,
            Place::Peer(_) | Place::Interface | Place::Foreign(_) | Place::Nowhere => {}
        }
        self.fault(number, Some(key), Problem::NoEqualsSign);
    }

    fn section(&mut self, number: usize, name: &str) {
        self.end_section();
        if self.kind == TextKind::Lines {
            self.fault(number, None, Problem::NoSectionHere);
            self.place = Place::Unknown;
            return;
        }
        if let Some(section) = wireproxy::Section::find(name) {
            self.wireproxy.begins_at.get_or_insert(number);
            self.place = Place::Foreign(Foreign::new(section, number));
            return;
        }
        let lower = name.to_ascii_lowercase();
        self.place = match Section::find(name) {
            Some(Section::Interface) => Place::Interface,
            Some(Section::Peer) => {
                Place::Peer(Box::new(Draft { line: number, ..Draft::default() }))
            }
            None if lower == "hybrid" => {
                self.fault(number, None, Problem::NoHybridSection);
                Place::Unknown
            }
            None => {
                let nearest = [Section::Interface, Section::Peer].into_iter().find(|section| {
                    edit_distance(&lower, &section.name().to_ascii_lowercase()) <= 2
                });
                self.fault(number, None, Problem::UnknownSection { read: Read::of(name), nearest });
                Place::Unknown
            }
        };
    }

    fn end_interface(&mut self) {
        let Interface { private_key, private_key_file, .. } = &self.config.interface;
        if let (Some(_), Some(At { line, .. })) = (private_key, private_key_file) {
            let problem = Problem::Twice { beside: Key::PrivateKey };
            self.fault(*line, Some(Key::PrivateKeyFile), problem);
        }
        let Interface { fwmark, fwmark_mask, kill_switch, table, .. } = &self.config.interface;
        let needs_mark = fwmark_mask.filter(|_| fwmark.is_none_or(|mark| mark == 0));
        let is_auto = matches!(table, None | Some(At { value: Table::Auto, .. }));
        let needs_auto = kill_switch.filter(|switch| switch.value && !is_auto);
        if let Some(At { line, .. }) = needs_mark {
            let problem = Problem::Needs { what: "a FwMark other than off" };
            self.fault(line, Some(Key::FwMarkMask), problem);
        }
        if let Some(At { line, .. }) = needs_auto {
            self.fault(line, Some(Key::KillSwitch), Problem::Needs { what: "Table = auto" });
        }
        self.end_masquerade();
        self.end_ends();
    }

    fn end_section(&mut self) {
        match std::mem::take(&mut self.place) {
            Place::Peer(draft) => self.end_peer(*draft),
            Place::Foreign(foreign) => self.end_foreign(foreign),
            Place::Nowhere | Place::Interface | Place::Unknown => {}
        }
    }

    fn end_peer(&mut self, draft: Draft) {
        if let (Some(_), Some(At { line, .. })) = (&draft.preshared_key, &draft.preshared_key_file)
        {
            let problem = Problem::Twice { beside: Key::PresharedKey };
            self.fault(*line, Some(Key::PresharedKeyFile), problem);
        }
        match draft.public_key {
            Some(public_key) => self.config.peers.push(Peer {
                line: draft.line,
                public_key,
                preshared_key: draft.preshared_key,
                preshared_key_file: draft.preshared_key_file,
                allowed_ips: draft.allowed_ips,
                incremental: draft.incremental,
                endpoint: draft.endpoint,
                endpoints: draft.endpoints,
                persistent_keepalive: draft.persistent_keepalive,
                required: draft.required,
            }),
            None if draft.named => {}
            None => self.fault(draft.line, None, Problem::MissingPublicKey),
        }
    }

    fn pair(
        &mut self,
        number: usize,
        name: &str,
        value: &str,
        whole_value: &str,
        in_comment: bool,
    ) {
        if self.is_wireproxys(number, name, value, in_comment) {
            return;
        }
        let Some(key) = Key::find(name) else {
            // The `=` may be the end of a key in base64.
            if let Some(key) = Key::first_word(name) {
                return self.no_equals_sign(number, key);
            }
            if !matches!(self.place, Place::Unknown) {
                let here = self.place.section();
                let (read, nearest) = (Read::of(name), Key::nearest(name));
                let problem = Problem::UnknownKey { read, nearest, here };
                self.fault(number, None, problem);
            }
            return;
        };
        let Some(here) = self.place.section() else {
            if matches!(self.place, Place::Nowhere) {
                self.fault(number, Some(key), Problem::NoSection);
            }
            return;
        };
        if here != key.section() {
            return self.fault(number, Some(key), Problem::WrongSection { here });
        }
        // What wg-quick does not know of a key that it knows may stand in a comment.
        let is_ours = key == Key::Mtu && is_probe(value);
        if in_comment && key.reader() != Reader::Hybridwg && !is_ours {
            return self.fault(number, Some(key), Problem::NotOurs);
        }
        if self.kind == TextKind::Lines && key.reader() != Reader::Hybridwg {
            return self.fault(number, Some(key), Problem::OnlyOurs);
        }
        if !key.is_hook() && has_comment_of_ours(whole_value) {
            self.fault(number, None, Problem::NotAlone);
        }
        match here {
            Section::Interface => self.interface_pair(number, key, value, whole_value),
            Section::Peer => self.peer_pair(number, key, value),
        }
    }

    fn interface_pair(&mut self, number: usize, key: Key, value: &str, whole_value: &str) {
        let joined = joined(value);
        self.note_repetition(number, key);
        let interface = &mut self.config.interface;
        let hooks = match key {
            Key::PreUp => &mut interface.pre_up,
            Key::PostUp => &mut interface.post_up,
            Key::PreDown => &mut interface.pre_down,
            Key::PostDown => &mut interface.post_down,
            _ => &mut Vec::new(),
        };
        let understood = match key {
            Key::PrivateKey => {
                PrivateKey::from_base64(&joined).ok().map(|key| interface.private_key = Some(key))
            }
            Key::PrivateKeyFile => KeySource::parse(value).map(|source| {
                interface.private_key_file = Some(At { line: number, value: source });
            }),
            Key::ListenPort => number_of(&joined).map(|port| interface.listen_port = Some(port)),
            Key::FwMark => parse_fwmark(&joined).map(|mark| interface.fwmark = Some(mark)),
            Key::FwMarkMask => parse_fwmark(&joined)
                .filter(|mask| *mask != 0)
                .map(|mask| interface.fwmark_mask = Some(At { line: number, value: mask })),
            Key::KillSwitch => parse_switch(value)
                .map(|on| interface.kill_switch = Some(At { line: number, value: on })),
            Key::ClampMss => value.parse().ok().map(|setting| interface.clamp_mss = Some(setting)),
            Key::Masquerade => parse_masquerade(value)
                .map(|how| interface.masquerade = Some(At { line: number, value: how })),
            Key::MasqueradeFrom => return self.masquerade_from(number, value),
            Key::AllowTo | Key::DenyTo => return self.rules(number, key, value),
            Key::TcpCongestion | Key::UdpTimeout | Key::UdpFilter | Key::MaxFlows => {
                parse_tune(key, value).map(|tune| {
                    interface.tunes.push(At { line: number, value: (key, tune) });
                })
            }
            Key::RequireDns => parse_switch(value)
                .map(|on| interface.require_dns = Some(At { line: number, value: on })),
            Key::Health => parse_listen(value)
                .map(|address| interface.health = Some(At { line: number, value: address })),
            Key::PublicEndpoint => {
                parse_endpoint(value).map(|endpoint| interface.public_endpoint = Some(endpoint))
            }
            Key::Mtu => {
                let mtu = number_of(value).filter(|mtu| *mtu >= 68);
                interface.mtu_probe = is_probe(value);
                (mtu.is_some() || interface.mtu_probe).then(|| interface.mtu = mtu)
            }
            Key::Table => parse_table(value)
                .map(|table| interface.table = Some(At { line: number, value: table })),
            Key::SaveConfig => parse_truth(value)
                .map(|truth| interface.save_config = Some(At { line: number, value: truth })),
            Key::Mode
            | Key::Expose
            | Key::Forward
            | Key::Socks5
            | Key::HttpProxy
            | Key::Proxy
            | Key::ResolveVia
            | Key::Stdio => return self.end_pair(number, key, value),
            Key::Address => return self.addresses(number, value),
            Key::Dns => return self.dns(number, value),
            Key::PreUp | Key::PostUp | Key::PreDown | Key::PostDown => {
                (!whole_value.is_empty()).then(|| hooks.push(whole_value.to_owned()))
            }
            Key::PublicKey
            | Key::PresharedKey
            | Key::PresharedKeyFile
            | Key::AllowedIps
            | Key::Endpoint
            | Key::Endpoints
            | Key::PersistentKeepalive
            | Key::Required => None,
        };
        if understood.is_none() {
            self.bad_value(number, key, value);
        } else if key == Key::FwMark {
            self.note_clash(number);
        }
    }

    /// A mark with bits of other programs.
    fn note_clash(&mut self, number: usize) {
        let advice = self.config.interface.fwmark.and_then(marks::advice);
        let text = advice.map(|advice| format!("{}: {advice}", Key::FwMark.name()));
        text.into_iter().for_each(|text| self.warn(number, text));
    }

    fn peer_pair(&mut self, number: usize, key: Key, value: &str) {
        let joined = joined(value);
        let Place::Peer(draft) = &mut self.place else { return };
        let understood = match key {
            Key::PublicKey => {
                draft.named = true;
                PublicKey::from_base64(&joined).ok().map(|key| draft.public_key = Some(key))
            }
            Key::PresharedKey => {
                PresharedKey::from_base64(&joined).ok().map(|key| draft.preshared_key = Some(key))
            }
            Key::PresharedKeyFile => KeySource::parse(value).map(|source| {
                draft.preshared_key_file = Some(At { line: number, value: source });
            }),
            Key::Endpoint => {
                parse_endpoint(&joined).map(|endpoint| draft.endpoint = Some(endpoint))
            }
            Key::Endpoints => parse_endpoints(value).map(|list| draft.endpoints = list),
            Key::PersistentKeepalive => {
                let seconds =
                    if joined.eq_ignore_ascii_case("off") { Some(0) } else { number_of(&joined) };
                seconds.map(|seconds| draft.persistent_keepalive = Some(seconds))
            }
            Key::Required => parse_switch(value).map(|on| draft.required = Some(on)),
            Key::AllowedIps => return self.allowed_ips(number, value),
            Key::PrivateKey
            | Key::PrivateKeyFile
            | Key::ListenPort
            | Key::FwMark
            | Key::FwMarkMask
            | Key::KillSwitch
            | Key::ClampMss
            | Key::Masquerade
            | Key::MasqueradeFrom
            | Key::AllowTo
            | Key::DenyTo
            | Key::TcpCongestion
            | Key::UdpTimeout
            | Key::UdpFilter
            | Key::MaxFlows
            | Key::RequireDns
            | Key::Health
            | Key::PublicEndpoint
            | Key::Mode
            | Key::Expose
            | Key::Forward
            | Key::Socks5
            | Key::HttpProxy
            | Key::Proxy
            | Key::ResolveVia
            | Key::Stdio
            | Key::Address
            | Key::Dns
            | Key::Mtu
            | Key::Table
            | Key::SaveConfig
            | Key::PreUp
            | Key::PostUp
            | Key::PreDown
            | Key::PostDown => None,
        };
        if understood.is_none() {
            self.bad_value(number, key, value);
        }
    }

    /// Other keys add up, or a later one is meant to win.
    fn note_repetition(&mut self, number: usize, key: Key) {
        if !matches!(key, Key::PrivateKey | Key::ListenPort) {
            return;
        }
        if let Some(former) = self.last.insert(key, number) {
            let name = key.name();
            let text = format!("{name} stands on line {former} as well: this one is used");
            self.warn(number, text);
        }
    }

    fn addresses(&mut self, number: usize, value: &str) {
        for word in words(value) {
            match parse_network(word) {
                Some(network) => self.config.interface.addresses.push(network),
                None => self.bad_value(number, Key::Address, word),
            }
        }
    }

    fn masquerade_from(&mut self, number: usize, value: &str) {
        for word in words(value) {
            match parse_network(word) {
                Some(network) => {
                    let network = At { line: number, value: network.trunc() };
                    self.config.interface.masquerade_from.push(network);
                }
                None => self.bad_value(number, Key::MasqueradeFrom, word),
            }
        }
    }

    /// Of `AllowTo` or `DenyTo`.
    fn rules(&mut self, number: usize, key: Key, value: &str) {
        let interface = &mut self.config.interface;
        let rules =
            if key == Key::AllowTo { &mut interface.allow_to } else { &mut interface.deny_to };
        let mut refused = Vec::new();
        for word in words(value) {
            match word.parse() {
                Ok(rule) => rules.push(At { line: number, value: rule }),
                Err(_) => refused.push(word),
            }
        }
        for word in refused {
            self.bad_value(number, key, word);
        }
    }

    fn dns(&mut self, number: usize, value: &str) {
        for word in words(value) {
            match parse_dns(word) {
                Some(dns) => self.config.interface.dns.push(At { line: number, value: dns }),
                None => self.bad_value(number, Key::Dns, word),
            }
        }
    }

    fn allowed_ips(&mut self, number: usize, value: &str) {
        let Place::Peer(draft) = &mut self.place else { return };
        let entries = draft.allowed_ips.get_or_insert_default();
        if value.is_empty() {
            return;
        }
        let (mut refused, mut odd) = (Vec::new(), Vec::new());
        for word in value.split(',').map(str::trim) {
            let joined = joined(word);
            let unsigned = joined.strip_prefix(['+', '-']).unwrap_or(&joined);
            let Some(written) = parse_network(unsigned) else {
                refused.push(word);
                continue;
            };
            let network = written.trunc();
            if network != written {
                odd.push(format!("AllowedIPs: {written} has host bits set, {network} is used"));
            }
            draft.incremental |= unsigned.len() != joined.len();
            let value = if joined.starts_with('-') {
                AllowedIpChange::Remove(network)
            } else {
                AllowedIpChange::Add(network)
            };
            entries.push(At { line: number, value });
        }
        for word in refused {
            self.bad_value(number, Key::AllowedIps, word);
        }
        odd.into_iter().for_each(|text| self.warn(number, text));
    }

    fn bad_value(&mut self, line: usize, key: Key, value: &str) {
        let accepted = key.accepted();
        let problem = match key {
            // Any of the three may have been confused with another.
            Key::PrivateKey | Key::PresharedKey | Key::PublicKey => {
                Problem::BadKey { read: BadKey::of(value), accepted }
            }
            Key::ListenPort | Key::FwMark | Key::Mtu | Key::PersistentKeepalive => {
                Problem::BadValue { read: Read::of_number(value), accepted }
            }
            _ => Problem::BadValue { read: Read::of(value), accepted },
        };
        self.fault(line, Some(key), problem);
    }

    /// Which text the line is of is found out at the end, as for a fault.
    fn warn(&mut self, line: usize, text: String) {
        self.warnings.push(Warning { file: String::new(), line: Some(line), text });
    }

    fn fault(&mut self, line: usize, key: Option<Key>, problem: Problem) {
        self.errors.push(ConfigError { file: String::new(), line, key, problem });
    }
}
