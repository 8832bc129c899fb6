//! What stands in the way of masquerading by nftables, and what to do about each thing.

use std::io;

use crate::control::forwarding::{Forwarding, Parameters};
use crate::control::netlink::nft::{Standing, Table};
use crate::control::netlink::{Family, Netlink, NetlinkError};
use crate::flow::policy::Rule;

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
    /// As `Drops`, perhaps: old iptables has rules, and who asks is not told which.
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
            Self::Drops(Standing { family, table, name, .. }) => {
                let chain = format!("insert rule {family} {table} {name}");
                format!(
                    "the chain {name} of the table {family} {table} drops what it does not accept \
                     (as Docker and ufw set it up): nft '{chain} iifname \"{interface}\" accept; \
                     {chain} oifname \"{interface}\" ct state established,related accept'"
                )
            }
            Self::Legacy(family) => {
                let iptables = match family {
                    Family::V4 => "iptables-legacy",
                    Family::V6 => "ip6tables-legacy",
                };
                format!(
                    "{iptables} filters on this host, and may drop what is forwarded: {iptables} \
                     -I FORWARD -i {interface} -j ACCEPT; {iptables} -I FORWARD -o {interface} -m \
                     conntrack --ctstate ESTABLISHED,RELATED -j ACCEPT"
                )
            }
        }
    }
}

/// Those for these tables; changes nothing.
pub fn of(tables: &[Table], netlink: &mut Netlink) -> Vec<Obstacle> {
    let mut found = Vec::new();
    let parameters = Parameters::of_this_host();
    let chains = netlink.base_chains().unwrap_or_default();
    for table in tables {
        let family = table.family;
        // By another name, since one that is there belongs to the daemon.
        let trial = Table { name: format!("{}-trial", table.name), ..table.clone() };
        found.extend(netlink.rehearse_table(&trial).err().map(Obstacle::Refused));
        if !masquerades(table) {
            continue;
        }
        if !parameters.is_on(family) {
            let outcome = parameters.rehearse(family).err();
            found.extend(outcome.map(|source| Obstacle::Forwarding { family, source }));
        }
        found.extend(has_legacy_filter(family).then_some(Obstacle::Legacy(family)));
    }
    found.extend(
        chains
            .into_iter()
            .filter(|chain| chain.is_forward && chain.drops && !chain.table.starts_with(PREFIX))
            .filter(|chain| {
                tables.iter().any(|table| masquerades(table) && chain.is_of(table.family))
            })
            .map(Obstacle::Drops),
    );
    found
}

/// Whether the iptables of old has a table of filters in this network namespace.
/// [LNX x_tables.c:xt_proto_init]
fn has_legacy_filter(family: Family) -> bool {
    // Not `/proc/net`, which is that of the process: a thread may be elsewhere.
    let names = match family {
        Family::V4 => "/proc/thread-self/net/ip_tables_names",
        Family::V6 => "/proc/thread-self/net/ip6_tables_names",
    };
    let names = std::fs::read_to_string(names).unwrap_or_default();
    names.lines().any(|name| name == "filter")
}
