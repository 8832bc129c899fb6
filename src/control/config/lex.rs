//! Lines of a configuration file: sections, pairs, comments.
//!
//! Knows the shape of a line and which keys exist, not what their values mean. [wg(8), wg-quick(8)]

use zeroize::Zeroizing;

use crate::control::ends::{self, ProxyKind};
use crate::flow::{policy, tuning};

/// One line that is not blank.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Line<'a> {
    /// `[Name]`, without the brackets.
    Section(&'a str),
    Pair {
        key: &'a str,
        /// Up to the comment, trimmed.
        value: &'a str,
        /// To the end of the line, trimmed: hooks keep what looks like a comment.
        whole_value: &'a str,
        /// It stands in a comment of our own: `#hybridwg: Key = value`, which wg-quick passes over.
        in_comment: bool,
    },
    /// A comment with one of our own keys in a form that is almost right.
    Misspelt(Key),
    /// Neither of these.
    Junk(&'a str),
}

/// The lines that say something, with their numbers, counted from 1.
pub(super) fn lines(text: &str) -> impl Iterator<Item = (usize, Line<'_>)> {
    // Some editors put a byte order mark in front.
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    text.split('\n').enumerate().filter_map(|(index, line)| Some((index + 1, lex(line)?)))
}

/// The last line, counted from 1, that says something by `key` and has `part` in its value.
pub fn line_with(text: &str, key: Key, part: &str) -> Option<usize> {
    let is_it = |line: &Line<'_>| {
        matches!(line, Line::Pair { key: name, whole_value, .. }
            if Key::find(name) == Some(key) && whole_value.contains(part))
    };
    lines(text).filter(|(_, line)| is_it(line)).last().map(|(number, _)| number)
}

/// What one line says, with or without its line end; `None` if nothing.
pub(super) fn lex(line: &str) -> Option<Line<'_>> {
    let (code, comment) = match line.split_once('#') {
        Some((code, comment)) => (code.trim(), Some(comment)),
        None => (line.trim(), None),
    };
    if code.is_empty() {
        return comment.and_then(lex_comment);
    }
    if let Some(name) = code.strip_prefix('[') {
        return Some(match name.strip_suffix(']') {
            Some(name) => Line::Section(name.trim()),
            None => Line::Junk(code),
        });
    }
    let Some((key, value)) = code.split_once('=') else { return Some(Line::Junk(code)) };
    let whole_value = line.split_once('=').map_or(value, |(_, whole)| whole).trim();
    let (key, value) = (key.trim_end(), value.trim_start());
    Some(Line::Pair { key, value, whole_value, in_comment: false })
}

/// What a comment, without its `#`, says to us; `None` if it is an ordinary one.
fn lex_comment(comment: &str) -> Option<Line<'_>> {
    let comment = comment.trim_start();
    let end = comment.find(|c: char| !c.is_alphanumeric()).unwrap_or(comment.len());
    let (name, rest) = comment.split_at(end);
    if name.eq_ignore_ascii_case("hybridwg")
        && let Some(pair) = rest.strip_prefix(':')
    {
        let pair = pair.split('#').next().unwrap_or(pair).trim();
        let Some((key, value)) = pair.split_once('=') else { return Some(Line::Junk(pair)) };
        let (key, value) = (key.trim_end(), value.trim_start());
        return Some(Line::Pair { key, value, whole_value: value, in_comment: true });
    }
    if !["hybridwg", "hybrid"].iter().any(|almost| name.eq_ignore_ascii_case(almost)) {
        return None;
    }
    let (key, _) = rest.trim_start_matches([':', ' ', '\t']).split_once('=')?;
    Key::find(key.trim()).filter(|key| key.reader() == Reader::Hybridwg).map(Line::Misspelt)
}

/// Whether something that only a line of its own can say follows a value as a comment.
pub(super) fn has_comment_of_ours(whole_value: &str) -> bool {
    let comment = whole_value.split_once('#').map(|(_, comment)| comment);
    comment.and_then(lex_comment).is_some()
}

/// The section of a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Section {
    Interface,
    Peer,
}

impl Section {
    pub const fn name(self) -> &'static str {
        match self {
            Self::Interface => "Interface",
            Self::Peer => "Peer",
        }
    }

    /// The section of that name, in any case.
    pub(super) fn find(name: &str) -> Option<Self> {
        let sections = [Self::Interface, Self::Peer];
        sections.into_iter().find(|section| name.eq_ignore_ascii_case(section.name()))
    }

    /// What may stand in it.
    pub fn keys(self) -> impl Iterator<Item = Key> {
        Key::ALL.iter().copied().filter(move |key| key.section() == self)
    }
}

/// Which program has introduced a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reader {
    Wg,
    WgQuick,
    /// Ours alone: `wg` and wg-quick refuse it, unless it stands in a comment.
    Hybridwg,
}

macro_rules! keys {
    ($($key:ident $name:literal $section:ident $reader:ident $accepted:expr,)*) => {
        /// Every key of wg(8) and wg-quick(8), and our own.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        pub enum Key { $($key,)* }

        impl Key {
            pub const ALL: &'static [Self] = &[$(Self::$key,)*];

            /// As it is usually written; case does not matter.
            pub const fn name(self) -> &'static str {
                match self { $(Self::$key => $name,)* }
            }

            pub const fn section(self) -> Section {
                match self { $(Self::$key => Section::$section,)* }
            }

            pub const fn reader(self) -> Reader {
                match self { $(Self::$key => Reader::$reader,)* }
            }

            /// What it takes, in words for the user.
            pub const fn accepted(self) -> &'static str {
                match self { $(Self::$key => $accepted,)* }
            }
        }
    };
}

keys! {
    PrivateKey "PrivateKey" Interface Wg "a key: 44 characters of base64, as `hybridwg genkey` or `wg genkey` prints it",
    ListenPort "ListenPort" Interface Wg "a number from 0 to 65535",
    FwMark "FwMark" Interface Wg "off, or a number from 0 to 4294967295, decimal or hexadecimal (0x…)",
    Address "Address" Interface WgQuick "IP addresses, each with or without /LENGTH, separated by commas",
    Dns "DNS" Interface WgQuick "IP addresses of name servers and search domains, separated by commas",
    Mtu "MTU" Interface WgQuick "a number from 68 to 65535, or probe",
    Table "Table" Interface WgQuick "auto, off, or the number or name of a routing table",
    SaveConfig "SaveConfig" Interface WgQuick "true or false",
    PreUp "PreUp" Interface WgQuick "a command",
    PostUp "PostUp" Interface WgQuick "a command",
    PreDown "PreDown" Interface WgQuick "a command",
    PostDown "PostDown" Interface WgQuick "a command",
    FwMarkMask "FwMarkMask" Interface Hybridwg "a number from 1 to 4294967295, decimal or hexadecimal (0x…)",
    KillSwitch "KillSwitch" Interface Hybridwg "on or off",
    ClampMss "ClampMSS" Interface Hybridwg "on, off, or a number of bytes from 536 to 65535",
    Masquerade "Masquerade" Interface Hybridwg "off, auto, nft or flow",
    MasqueradeFrom "MasqueradeFrom" Interface Hybridwg "networks as ADDRESS/LENGTH, separated by commas",
    AllowTo "AllowTo" Interface Hybridwg policy::ACCEPTED,
    DenyTo "DenyTo" Interface Hybridwg policy::ACCEPTED,
    TcpCongestion "TcpCongestion" Interface Hybridwg tuning::CONGESTION_ACCEPTED,
    UdpTimeout "UdpTimeout" Interface Hybridwg tuning::UDP_TIMEOUT_ACCEPTED,
    UdpFilter "UdpFilter" Interface Hybridwg tuning::UDP_FILTER_ACCEPTED,
    MaxFlows "MaxFlows" Interface Hybridwg tuning::MAX_FLOWS_ACCEPTED,
    RequireDns "RequireDNS" Interface Hybridwg "on or off",
    Health "Health" Interface Hybridwg "ADDRESS:PORT to listen on, where an IPv6 address stands in brackets, or *:PORT for all addresses",
    PublicEndpoint "PublicEndpoint" Interface Hybridwg "HOST:PORT, where an IPv6 address stands in brackets",
    Mode "Mode" Interface Hybridwg "auto, tun or rootless",
    Expose "Expose" Interface Hybridwg ends::EXPOSE,
    Forward "Forward" Interface Hybridwg ends::FORWARD,
    Socks5 "Socks5" Interface Hybridwg ends::PROXY,
    HttpProxy "HttpProxy" Interface Hybridwg ends::PROXY,
    Proxy "Proxy" Interface Hybridwg ends::PROXY,
    ResolveVia "ResolveVia" Interface Hybridwg "tunnel or system",
    Stdio "Stdio" Interface Hybridwg "HOST:PORT, where an IPv6 address stands in brackets",
    PrivateKeyFile "PrivateKeyFile" Interface Hybridwg "a path (after `any-mode:` if others may read the file), credential:NAME or env:NAME",
    PublicKey "PublicKey" Peer Wg "a key: 44 characters of base64, as `hybridwg pubkey` or `wg pubkey` prints it for the peer's PrivateKey",
    PresharedKey "PresharedKey" Peer Wg "a key: 44 characters of base64, as `hybridwg genpsk` or `wg genpsk` prints it",
    AllowedIps "AllowedIPs" Peer Wg "networks as ADDRESS/LENGTH, separated by commas, each with or without a leading + or -",
    Endpoint "Endpoint" Peer Wg "HOST:PORT, where an IPv6 address stands in brackets",
    Endpoints "Endpoints" Peer Hybridwg "1 to 16 of HOST:PORT, the best first, separated by commas",
    PersistentKeepalive "PersistentKeepalive" Peer Wg "off, or a number of seconds from 0 to 65535",
    Required "Required" Peer Hybridwg "on or off",
    PresharedKeyFile "PresharedKeyFile" Peer Hybridwg "a path (after `any-mode:` if others may read the file), credential:NAME or env:NAME",
}

impl Key {
    /// The key of that name, in any case. The keys of `wg` may have white space inside, because
    /// `wg` removes all of it.
    pub(super) fn find(name: &str) -> Option<Self> {
        let joined = joined(name);
        Self::ALL.iter().copied().find(|key| {
            let name = if key.reader() == Reader::Wg { &joined } else { name };
            name.eq_ignore_ascii_case(key.name())
        })
    }

    /// The key that a text begins with, if another word follows it.
    pub(super) fn first_word(text: &str) -> Option<Self> {
        let (word, _) = text.split_once(char::is_whitespace)?;
        Self::find(word)
    }

    /// The known key that was probably meant.
    pub(super) fn nearest(name: &str) -> Option<Self> {
        let name = name.to_ascii_lowercase();
        let limit = 1 + name.len() / 5;
        Self::ALL
            .iter()
            .map(|key| (edit_distance(&name, &key.name().to_ascii_lowercase()), *key))
            .filter(|&(distance, _)| distance <= limit)
            .min_by_key(|&(distance, _)| distance)
            .map(|(_, key)| key)
    }

    /// Whose listener this is.
    pub(super) const fn of_proxy(kind: ProxyKind) -> Self {
        match kind {
            ProxyKind::Socks5 => Self::Socks5,
            ProxyKind::Http => Self::HttpProxy,
            ProxyKind::Both => Self::Proxy,
        }
    }

    /// Whether its value is a command, in which `#` begins no comment.
    pub(super) const fn is_hook(self) -> bool {
        matches!(self, Self::PreUp | Self::PostUp | Self::PreDown | Self::PostDown)
    }
}

/// The text without its white space. It may be a key, and is wiped when dropped.
pub(super) fn joined(text: &str) -> Zeroizing<String> {
    // Full size at once, because growing would leave copies behind.
    let mut joined = Zeroizing::new(String::with_capacity(text.len()));
    text.split_whitespace().for_each(|word| joined.push_str(word));
    joined
}

/// Insertions, deletions and replacements from one word to the other. Long words count as far
/// from everything, so that the work stays small.
pub(super) fn edit_distance(from: &str, to: &str) -> usize {
    if from.len() > 40 {
        return usize::MAX;
    }
    let mut row: Vec<usize> = (0..=to.chars().count()).collect();
    for (i, a) in from.chars().enumerate() {
        let mut diagonal = row[0];
        row[0] = i + 1;
        for (j, b) in to.chars().enumerate() {
            let replaced = diagonal + usize::from(a != b);
            diagonal = row[j + 1];
            row[j + 1] = replaced.min(diagonal + 1).min(row[j] + 1);
        }
    }
    row.last().copied().unwrap_or(usize::MAX)
}
