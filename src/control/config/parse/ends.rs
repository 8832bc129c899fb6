//! The keys of what there is on this host beside, or in place of, the interface.

use std::collections::HashMap;
use std::hash::Hash;

use super::super::lex::Key;
use super::super::model::{At, Interface, Masquerade};
use super::super::value::parse_endpoint;
use super::super::{Problem, Read};
use super::{Parser, TextKind};
use crate::control::ends::{Expose, Forward, Mode, Proxy, ProxyKind, Refused, ResolveVia};
use crate::flow::tuning::Tune;

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
        let Interface { masquerade, masquerade_from, allow_to, deny_to, tunes, ends, .. } =
            &self.config.interface;
        let masquerade = masquerade.map(|how| how.value);
        let may_carry = !matches!(masquerade, None | Some(Masquerade::Nft));
        let is_rootless = ends.mode.is_some_and(|mode| mode.value == Mode::Rootless);
        let may_flow = may_carry || is_rootless || !ends.expose.is_empty();
        let lack = |tune: &Tune| match tune {
            // Behind a port that is exposed there is one place, which alone may answer.
            Tune::UdpFilter(_) if !may_carry => Some("Masquerade = auto or flow"),
            Tune::TcpCongestion(_) | Tune::UdpTimeout(_) | Tune::MaxFlows(_) if !may_flow => {
                Some("Masquerade = auto or flow, Expose or Mode = rootless")
            }
            _ => None,
        };
        let useless = tunes.iter().find_map(|it| Some((it.line, it.value.0, lack(&it.value.1)?)));
        let mut faults: Vec<_> = useless.into_iter().collect();
        if masquerade.is_none() {
            let what = "Masquerade = auto, nft or flow";
            let first = masquerade_from.first();
            faults.extend(first.map(|it| (it.line, Key::MasqueradeFrom, what)));
        }
        if masquerade.is_none() && !ends.exposes_names() {
            let what = "Masquerade = auto, nft or flow, or an Expose that leads to a name";
            for (key, rules) in [(Key::AllowTo, allow_to), (Key::DenyTo, deny_to)] {
                faults.extend(rules.first().map(|it| (it.line, key, what)));
            }
        }
        for (line, key, what) in faults {
            self.fault(line, Some(key), Problem::Needs { what });
        }
    }

    /// Two of a kind at one place, and doors that were left open.
    pub(super) fn end_ends(&mut self) {
        let ends = &self.config.interface.ends;
        let mut faults = Vec::new();
        for (position, At { line, value }) in ends.expose.iter().enumerate() {
            let mut former = ends.expose[..position].iter();
            if let Some(former) = former.find(|it| it.value.leaves_nobody_to(value)) {
                faults.push((*line, Key::Expose, Problem::Taken { line: former.line }));
            }
        }
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
