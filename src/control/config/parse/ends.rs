//! The keys of what there is on this host beside, or in place of, the interface.

use std::collections::HashMap;
use std::hash::Hash;

use super::super::lex::Key;
use super::super::model::{At, Interface, Masquerade};
use super::super::value::parse_endpoint;
use super::super::{Problem, Read};
use super::{Parser, TextKind};
use crate::control::ends::{Expose, Forward, Mode, Proxy, ProxyKind, Refused, ResolveVia};
use crate::flow::policy::Rule;

impl Parser {
    pub(super) fn end_pair(&mut self, line: usize, key: Key, value: &str) {
        let ends = &mut self.config.interface.ends;
        let is = |name: &str| value.eq_ignore_ascii_case(name);
        let refused = || Refused { word: Some(value.to_owned()), accepted: key.accepted() };
        let proxy = |kind| Proxy::parse(kind, value).map(|value| At { line, value });
        let outcome = match key {
            Key::Mode => {
                let mode = Mode::ALL.into_iter().find(|mode| is(mode.name()));
                mode.map(|value| ends.mode = Some(At { line, value })).ok_or_else(refused)
            }
            Key::ResolveVia => {
                let via = ResolveVia::ALL.into_iter().find(|via| is(via.name()));
                via.map(|value| ends.resolve_via = Some(At { line, value })).ok_or_else(refused)
            }
            Key::Stdio => {
                let place = parse_endpoint(value);
                place.map(|value| ends.stdio = Some(At { line, value })).ok_or_else(refused)
            }
            Key::Expose => Expose::parse(value).map(|value| ends.expose.push(At { line, value })),
            Key::Forward => {
                Forward::parse(value).map(|value| ends.forward.push(At { line, value }))
            }
            Key::Socks5 => proxy(ProxyKind::Socks5).map(|proxy| ends.proxies.push(proxy)),
            Key::HttpProxy => proxy(ProxyKind::Http).map(|proxy| ends.proxies.push(proxy)),
            Key::Proxy => proxy(ProxyKind::Both).map(|proxy| ends.proxies.push(proxy)),
            _ => Err(refused()),
        };
        if let Err(Refused { word, accepted }) = outcome {
            let read = word.map_or(Read::Password, |word| Read::of(&word));
            self.fault(line, Some(key), Problem::BadValue { read, accepted });
        }
        let has_password = |proxy: &&At<Proxy>| {
            proxy.line == line
                && proxy.value.login.as_ref().is_some_and(|login| login.password.is_some())
        };
        if self.kind == TextKind::Lines
            && self.config.interface.ends.proxies.last().as_ref().is_some_and(has_password)
        {
            self.fault(line, Some(key), Problem::PasswordHere);
        }
    }

    /// Rules without what they are about would be taken for a firewall.
    pub(super) fn end_masquerade(&mut self) {
        let Interface { masquerade, tunes, .. } = &self.config.interface;
        let masquerade = masquerade.map(|how| how.value);
        let useless = tunes.first().filter(|_| matches!(masquerade, None | Some(Masquerade::Nft)));
        if let Some(At { line, value: (key, _) }) = useless.copied() {
            let what = "Masquerade = auto or flow";
            self.fault(line, Some(key), Problem::Needs { what });
        }
        let Interface { masquerade_from, allow_to, deny_to, .. } = &self.config.interface;
        if masquerade.is_some() {
            return;
        }
        let first = |rules: &[At<Rule>]| rules.first().map(|rule| rule.line);
        let lines = [
            (Key::MasqueradeFrom, masquerade_from.first().map(|network| network.line)),
            (Key::AllowTo, first(allow_to)),
            (Key::DenyTo, first(deny_to)),
        ];
        for (key, line) in lines {
            if let Some(line) = line {
                let what = "Masquerade = auto, nft or flow";
                self.fault(line, Some(key), Problem::Needs { what });
            }
        }
    }

    /// Two of a kind at one place, and doors that were left open.
    pub(super) fn end_ends(&mut self) {
        let ends = &self.config.interface.ends;
        let mut faults = Vec::new();
        let services =
            ends.expose.iter().map(|it| (Key::Expose, it.line, (it.value.port, it.value.protocol)));
        clashes(services, &mut faults);
        let forwards = ends
            .forward
            .iter()
            .map(|it| (Key::Forward, it.line, (it.value.listen.clone(), it.value.protocol)));
        let proxies = ends.proxies.iter().map(|it| {
            (Key::of_proxy(it.value.kind), it.line, (it.value.listen.clone(), Default::default()))
        });
        clashes(forwards.chain(proxies), &mut faults);
        for At { line, value } in ends.proxies.iter().filter(|it| it.value.is_left_open()) {
            let listen = value.listen.to_string();
            faults.push((*line, Key::of_proxy(value.kind), Problem::LeftOpen { listen }));
        }
        for (line, key, problem) in faults {
            self.fault(line, Some(key), problem);
        }
    }
}

fn clashes<K: Hash + Eq>(
    entries: impl Iterator<Item = (Key, usize, K)>,
    faults: &mut Vec<(usize, Key, Problem)>,
) {
    let mut taken = HashMap::new();
    for (key, line, place) in entries {
        if let Some(former) = taken.insert(place, line) {
            faults.push((line, key, Problem::Taken { line: former }));
        }
    }
}
