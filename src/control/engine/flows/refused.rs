//! Services whose names lead where peers may not go: what the log has of them. A peer finds the port
//! closed, and cannot know why.

use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use tracing::warn;

use crate::control::ends::Expose;
use crate::flow::exposed::{Exposed, Target};
use crate::flow::policy::{self, Denial, Destination, Protocol, Rule, Service};
use crate::flow::switch::Settings;
use crate::time::{Instant, TokenBucket};

/// Where names lead is in the hands of others: so many lines at once, and then one each interval.
const LOG_BURST: u32 = 8;
const LOG_INTERVAL: Duration = Duration::from_secs(60);

/// Those that there are.
#[derive(Debug)]
pub(super) struct Refusals {
    /// Those that the log has.
    told: Vec<Refused>,
    lines: TokenBucket,
}

impl Default for Refusals {
    fn default() -> Self {
        Self { told: Vec::new(), lines: TokenBucket::new(LOG_BURST, LOG_INTERVAL) }
    }
}

impl Refusals {
    /// Tells which of the services in `expose` have become such by these `settings`, in which they stand
    /// in the same order.
    pub fn tell(&mut self, now: Instant, expose: &[Expose], settings: &Settings) {
        for refused in self.take_untold(now, expose, settings) {
            warn!("{refused}");
        }
    }

    fn take_untold(
        &mut self,
        now: Instant,
        expose: &[Expose],
        settings: &Settings,
    ) -> Vec<Refused> {
        let services = expose.iter().zip(&settings.exposed);
        let all: Vec<Refused> =
            services.filter_map(|(expose, it)| Refused::find(expose, it, settings)).collect();
        self.told.retain(|refused| all.contains(refused));
        let mut untold: Vec<Refused> = Vec::new();
        for refused in all {
            // What there is no line for now has one when names are looked up again.
            if !self.told.contains(&refused) && self.lines.take(now) {
                self.told.push(refused.clone());
                untold.push(refused);
            }
        }
        untold
    }
}

/// One of them.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Refused {
    expose: Expose,
    /// The first of its addresses by number: of names with several, the order changes all the time.
    address: IpAddr,
    denial: Denial,
    /// That denies it.
    rule: Option<Rule>,
    /// What would allow it.
    remedy: Rule,
    /// With which nothing that no other such rule names is open any more.
    is_first: bool,
}

impl Refused {
    /// `None` if peers get to one of its addresses, or it has none.
    fn find(expose: &Expose, exposed: &Exposed, settings: &Settings) -> Option<Self> {
        let Target::Named(places) = &exposed.target else { return None };
        let Settings { policy, host, .. } = settings;
        let to = |place: &SocketAddr| {
            let port = place.port();
            let service = match exposed.service {
                Service::Udp(_) => Service::Udp(port),
                Service::Tcp(_) | Service::Icmp => Service::Tcp(port),
            };
            Destination { address: place.ip().to_canonical(), service }
        };
        let is_refused = |place: &SocketAddr| policy.judge(to(place), host).is_err();
        if !places.iter().all(is_refused) {
            return None;
        }
        let place = places.iter().min()?;
        let (destination, denial) = (to(place), policy.judge(to(place), host).err()?);
        let rule = policy.denied_by(destination, host).copied();
        // What is denied as an inner address is opened as that alone.
        let mut inner = policy::embedded(destination.address).map(IpAddr::V4);
        let denied = inner
            .find(|&it| policy.judge(Destination { address: it, ..destination }, host).is_err());
        let remedy = Rule {
            target: policy::Target::Network(denied.unwrap_or(destination.address).into()),
            ports: Some(policy::Ports { first: place.port(), last: place.port() }),
            protocol: Some(match exposed.service {
                Service::Udp(_) => Protocol::Udp,
                Service::Tcp(_) | Service::Icmp => Protocol::Tcp,
            }),
        };
        Some(Self {
            expose: expose.clone(),
            address: destination.address,
            denial,
            rule,
            remedy,
            is_first: policy.allow_to.is_empty(),
        })
    }
}

impl fmt::Display for Refused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { expose, address, denial, rule, remedy, is_first } = self;
        write!(f, "`Expose = {expose}` leads nowhere: peers may not go to {address} (")?;
        match rule {
            Some(rule) => write!(f, "`DenyTo = {rule}` names it). Narrow that rule")?,
            None => write!(f, "{denial}). Write `AllowTo = {remedy}`")?,
        }
        if rule.is_none() && *is_first {
            f.write_str(", after which all other names and destinations need an AllowTo as well")?;
        }
        f.write_str("; or write the address in place of the name: it is not judged")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::control::ends::Protocol;

    fn expose(text: &str) -> Expose {
        Expose::parse(text).unwrap()
    }

    /// With rules as in a file, separated by blanks, and one service, whose name leads to these places.
    fn settings(expose: &Expose, allow: &str, deny: &str, places: &[&str]) -> Settings {
        let rules = |text: &str| text.split_whitespace().map(|it| it.parse().unwrap()).collect();
        let policy = policy::Policy { allow_to: rules(allow), deny_to: rules(deny) };
        let service = match expose.protocol {
            Protocol::Tcp => Service::Tcp(expose.port),
            Protocol::Udp => Service::Udp(expose.port),
        };
        let target = Target::Named(places.iter().map(|it| it.parse().unwrap()).collect());
        let exposed = Exposed { service, target, from: vec![], source: None, proxy_v2: false };
        let host = ["192.0.2.7/24".parse().unwrap()].into_iter().collect();
        Settings { policy, host, exposed: vec![exposed], ..Settings::default() }
    }

    #[test]
    fn what_is_refused_is_told_with_the_rule_and_with_one_that_helps() {
        let other = ", after which all other names and destinations need an AllowTo as well";
        for (allow, deny, place, why, remedy) in [
            ("", "", "127.0.0.1:5432", "a loopback address", Some("127.0.0.1:5432/tcp")),
            ("", "", "192.0.2.7:1", "an address of this host", Some("192.0.2.7:1/tcp")),
            ("10.0.0.1", "", "10.0.0.2:5", "no AllowTo names it", Some("10.0.0.2:5/tcp")),
            ("", "", "[::1]:5432", "a loopback address", Some("[::1]:5432/tcp")),
            ("", "10.0.0.0/8:5432", "10.0.0.2:5432", "`DenyTo = 10.0.0.0/8:5432` names it", None),
            ("10.0.0.2", "1.2.3.4 10.0.0.2", "10.0.0.2:5", "`DenyTo = 10.0.0.2` names it", None),
            (
                "::/0",
                "",
                "[64:ff9b::a9fe:a9fe]:80",
                "a metadata service of a cloud",
                Some("169.254.169.254:80/tcp"),
            ),
        ] {
            let expose = expose("80 db.test:5432 from=10.66.0.0/24");
            let told = |allow: &str| {
                let settings = settings(&expose, allow, deny, &[place]);
                let refused = Refused::find(&expose, &settings.exposed[0], &settings);
                refused.map(|refused| refused.to_string())
            };
            let address = place.parse::<SocketAddr>().unwrap().ip();
            let first = if allow.is_empty() { other } else { "" };
            let help = match remedy {
                Some(remedy) => format!("Write `AllowTo = {remedy}`{first}"),
                None => "Narrow that rule".to_owned(),
            };
            let expected = format!(
                "`Expose = 80 db.test:5432 from=10.66.0.0/24` leads nowhere: peers may not go to \
                 {address} ({why}). {help}; or write the address in place of the name: it is not judged"
            );
            assert_eq!(told(allow), Some(expected));
            if let Some(remedy) = remedy {
                assert_eq!(told(&format!("{allow} {remedy}")), None, "it helps");
            }
        }
        let names = expose("53/udp ns.test:53");
        let settings = settings(&names, "127.0.0.1:53/tcp", "", &["127.0.0.1:53"]);
        let refused = Refused::find(&names, &settings.exposed[0], &settings).unwrap();
        assert!(refused.to_string().contains("`AllowTo = 127.0.0.1:53/udp`"), "{refused}");
    }

    #[test]
    fn each_change_is_told_once_and_not_too_many_at_a_time() {
        let expose = [expose("80 db.test:80")];
        let at = |seconds: u64| Instant::ZERO + Duration::from_secs(1_000 + seconds);
        let mut refusals = Refusals::default();
        let mut told = |seconds, places: &[&str]| {
            let settings = settings(&expose[0], "", "", places);
            refusals.take_untold(at(seconds), &expose, &settings).len()
        };
        let both = ["127.0.0.1:80", "[::1]:80"];
        assert_eq!(told(0, &both), 1);
        assert_eq!(told(0, &["[::1]:80", "127.0.0.1:80"]), 0, "in another order");
        assert_eq!(told(0, &["127.0.0.1:80", "10.0.0.1:80"]), 0, "it leads somewhere");
        assert_eq!((told(0, &both), told(0, &[]), told(0, &["127.0.0.2:80"])), (1, 0, 1));
        let places = (3..99).map(|n| format!("127.0.0.{n}:80"));
        assert_eq!(places.map(|place| told(0, &[&place])).sum::<usize>(), 8 - 3);
        assert_eq!((told(1, &both), told(60, &both), told(61, &both)), (0, 1, 0), "it comes later");
    }
}
