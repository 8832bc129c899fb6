//! What stands in the way of masquerading by nftables, and what to do about each thing.

use std::io;

use crate::control::forwarding::{Forwarding, Parameters};
use crate::control::netlink::nft::{Standing, Table};
use crate::control::netlink::{Family, Netlink, NetlinkError};
use crate::flow::policy::Rule;
use crate::sys::xtables;

use super::tables::{PREFIX, masquerades};

/// One thing.
#[derive(Debug)]
pub enum Obstacle {
    /// A rule that nftables cannot hold for us.
    Rule(Rule),
    /// What the kernel said to a table.
    Refused(NetlinkError),
    /// Forwarding is off and cannot be turned on.
    Forwarding { family: Family, source: io::Error },
    /// Somebody else drops what is forwarded.
    Drops(Standing),
    /// As `Drops`, perhaps: old iptables has a rule or a policy about what is forwarded.
    Legacy(Family),
}

impl Obstacle {
    /// Whether nothing could be masqueraded. What others do is only feared.
    pub const fn is_certain(&self) -> bool {
        match self {
            Self::Rule(_) | Self::Refused(_) | Self::Forwarding { .. } => true,
            Self::Drops(_) | Self::Legacy(_) => false,
        }
    }

    /// In words, with the remedy, for the tunnel `interface`.
    pub fn tell(&self, interface: &str) -> String {
        match self {
            Self::Rule(rule) => format!(
                "the rule `{rule}` is about this host itself, and nftables is asked only about \
                 what is forwarded: without it, the host's own firewall decides"
            ),
            Self::Refused(error) => format!(
                "the kernel refuses the table ({}): it needs nf_tables, nft_masq, nft_ct and \
                 nft_reject (in a container the host must load them), and CAP_NET_ADMIN",
                error.reason()
            ),
            Self::Forwarding { family, source } => {
                let name = Forwarding::name(*family);
                format!(
                    "{name} is 0 and cannot be set ({source}): set it outside, as by `sysctl -w \
                     {name}=1` or a container's `--sysctl {name}=1`"
                )
            }
            Self::Drops(chain) => {
                let Standing { family, table, name, .. } = chain;
                let remedy = remedy(chain, interface);
                format!(
                    "the chain {name} of the table {family} {table} drops what it does not accept \
                     (as Docker, ufw and firewalld set it up): {remedy}"
                )
            }
            Self::Legacy(family) => {
                let iptables = format!("{}-legacy", iptables(*family));
                let remedy = by_iptables(&iptables, interface);
                format!("{iptables} filters on this host, and may drop what is forwarded: {remedy}")
            }
        }
    }
}

/// The line that lets the tunnel through. A rule of nft's in a chain of iptables' would make that one
/// refuse its own table.
fn remedy(Standing { family, table, name, .. }: &Standing, interface: &str) -> String {
    let family_of_iptables = match *family {
        "ip" => Some(Family::V4),
        "ip6" => Some(Family::V6),
        _ => None,
    };
    match (family_of_iptables, &**table, &**name) {
        (Some(family), "filter", "FORWARD") => by_iptables(iptables(family), interface),
        // Its own table it makes anew, and lets nobody else into.
        (_, "firewalld", _) => format!("firewall-cmd --zone=trusted --add-interface={interface}"),
        _ => {
            let insert = format!("insert rule {family} {table} {name}");
            format!(
                "nft '{insert} iifname \"{interface}\" accept; {insert} oifname \"{interface}\" ct \
                 state established,related accept'"
            )
        }
    }
}

const fn iptables(family: Family) -> &'static str {
    match family {
        Family::V4 => "iptables",
        Family::V6 => "ip6tables",
    }
}

fn by_iptables(iptables: &str, interface: &str) -> String {
    format!(
        "{iptables} -I FORWARD -i {interface} -j ACCEPT; {iptables} -I FORWARD -o {interface} -m \
         conntrack --ctstate ESTABLISHED,RELATED -j ACCEPT"
    )
}

/// Those for these tables of `interface`; changes nothing.
pub fn of(interface: &str, tables: &[Table], netlink: &mut Netlink) -> Vec<Obstacle> {
    let mut found = Vec::new();
    let parameters = Parameters::of_this_host();
    for table in tables {
        let family = table.family;
        // By a name that no tunnel's table has: one that is there belongs to a daemon.
        let trial = Table { name: format!("hybridwg_trial-{interface}"), ..table.clone() };
        found.extend(netlink.rehearse_table(&trial).err().map(Obstacle::Refused));
        if !masquerades(table) {
            continue;
        }
        if !parameters.is_on(family) {
            let outcome = parameters.rehearse(family).err();
            found.extend(outcome.map(|source| Obstacle::Forwarding { family, source }));
        }
        found.extend(may_legacy_drop(family).then_some(Obstacle::Legacy(family)));
    }
    // Without nftables there are none, which the rehearsal has told.
    for chain in netlink.base_chains().unwrap_or_default() {
        let is_passed = tables.iter().any(|table| masquerades(table) && chain.is_of(table.family));
        if chain.is_forward
            && is_passed
            && !chain.table.starts_with(PREFIX)
            && netlink.drops_the_rest(&chain).unwrap_or(chain.drops)
        {
            found.push(Obstacle::Drops(chain));
        }
    }
    found
}

/// Whether the iptables of old has rules or a policy about what is forwarded in this network
/// namespace. [LNX x_tables.c:xt_proto_init]
fn may_legacy_drop(family: Family) -> bool {
    // Not `/proc/net`, which is that of the process: a thread may be elsewhere.
    let names = match family {
        Family::V4 => "/proc/thread-self/net/ip_tables_names",
        Family::V6 => "/proc/thread-self/net/ip6_tables_names",
    };
    let names = std::fs::read_to_string(names).unwrap_or_default();
    // A table that is not there would be made by the question.
    names.lines().any(|name| name == "filter")
        && !xtables::forwards_everything(family == Family::V6).unwrap_or(false)
}
