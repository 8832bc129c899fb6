//! Tables of nftables as data, and how they come into the kernel.
//!
//! A [`Table`] is written as a whole: whatever was in one of its name is gone afterwards, in one
//! transaction. Its text, as `Display` gives it, is what nft(8) takes for the same effect.
//!
//! Knows as many matches and statements as we need; a new one is a variant of [`Part`], its text
//! here and its expressions in `encode`. [LNX nf_tables_api.c:nf_tables_newtable]

mod encode;
mod owner;
mod standing;

use std::fmt;
use std::net::IpAddr;

use serde::{Deserialize, Serialize};

use super::{Family, Mark, Netlink, NetlinkError};
use crate::sys::SysError;
use crate::sys::netfilter::NetfilterSocket;

pub use owner::Owner;
pub use standing::Standing;

/// A table and all that is in it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Table {
    pub family: Family,
    pub name: String,
    pub chains: Vec<Chain>,
}

/// A base chain. What no rule decides goes on.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Chain {
    pub name: String,
    #[serde(default)]
    pub kind: Kind,
    pub hook: Hook,
    /// Lower comes first.
    pub priority: i32,
    /// Each a rule: matches, and then what happens to a packet that all of them match.
    pub rules: Vec<Vec<Part>>,
}

/// What a chain is for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum Kind {
    #[default]
    Filter,
    /// Sees only the first packet of each connection.
    Nat,
}

/// Where packets pass a chain.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Hook {
    Prerouting,
    Forward,
    Postrouting,
}

/// A match or a statement of a rule.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Part {
    /// Came by another interface than this.
    NotByInterface(String),
    /// Leaves by this interface.
    ToInterface(String),
    NotToInterface(String),
    /// What the source is in the bits of the mask; both are of the table's family.
    SourceBits {
        value: IpAddr,
        mask: IpAddr,
    },
    /// An address of the table's family.
    Destination(IpAddr),
    /// As `SourceBits`.
    DestinationBits {
        value: IpAddr,
        mask: IpAddr,
    },
    /// The source is no address of this host.
    SourceNotOurs,
    Tcp,
    Udp,
    /// That of the table's family.
    Icmp,
    /// From the first to the last, of a protocol that has ports: stands behind the match of it.
    DestinationPorts(u16, u16),
    /// Belongs to a connection that was let through before, or is an answer about one.
    Established,
    Marked(Mark),
    ConnectionMarked(Mark),
    /// Sets the bits of the mask, and leaves the others.
    SetMark(Mark),
    SetConnectionMark(Mark),
    /// Ends the chain.
    Accept,
    Drop,
    /// Tells the sender that this is prohibited.
    Reject,
    /// The packet gets an address of the interface by which it leaves, and answers go back.
    Masquerade,
}

impl Table {
    /// The command that an operator would type to delete it.
    pub fn delete_command(&self) -> String {
        format!("nft delete table {} {}", family_name(self.family), self.name)
    }

    /// The command that an operator would type to make it.
    pub fn add_command(&self) -> String {
        format!("nft '{self}'")
    }
}

impl Netlink {
    /// Makes the table, in place of one of that name. It stays until it is deleted.
    ///
    /// # Errors
    /// A kernel without nftables or what a rule needs, a table that belongs to somebody, no right.
    pub fn replace_table(&mut self, table: &Table) -> Result<(), NetlinkError> {
        self.transact(&encode::replace(table, 0), || table.add_command())
    }

    /// Deletes the table.
    ///
    /// # Errors
    /// No such table ([`NetlinkError::is_absent`]), one that belongs to somebody, no right.
    pub fn delete_table(&mut self, table: &Table) -> Result<(), NetlinkError> {
        self.transact(&encode::delete(table), || table.delete_command())
    }

    /// Finds out whether the kernel would make the table, and changes nothing.
    ///
    /// # Errors
    /// As for [`Self::replace_table`].
    pub fn rehearse_table(&mut self, table: &Table) -> Result<(), NetlinkError> {
        self.transact(&encode::rehearse(table, 0), || table.add_command())
    }

    fn transact(&mut self, batch: &[u8], action: impl Fn() -> String) -> Result<(), NetlinkError> {
        let socket = match &mut self.netfilter {
            Some(socket) => socket,
            none => {
                let socket = NetfilterSocket::open();
                none.insert(socket.map_err(|error| failed(&error, &action))?)
            }
        };
        transact(socket, batch, action)
    }
}

/// Sends a batch, which is one transaction: the first message that was refused is the reason.
fn transact(
    socket: &NetfilterSocket,
    batch: &[u8],
    action: impl Fn() -> String,
) -> Result<(), NetlinkError> {
    let answers = socket.exchange(batch).map_err(|error| failed(&error, &action))?;
    match answers.iter().flat_map(|datagram| encode::refusals(datagram)).next() {
        Some(errno) => Err(NetlinkError::of_errno(action(), errno)),
        None => Ok(()),
    }
}

fn failed(error: &SysError, action: impl Fn() -> String) -> NetlinkError {
    NetlinkError::of_errno(action(), error.errno().unwrap_or(libc::EIO))
}

const fn family_name(family: Family) -> &'static str {
    match family {
        Family::V4 => "ip",
        Family::V6 => "ip6",
    }
}

/// As nft(8) reads it.
impl fmt::Display for Table {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "table {} {} {{", family_name(self.family), self.name)?;
        for Chain { name, kind, hook, priority, rules } in &self.chains {
            let kind = match kind {
                Kind::Filter => "filter",
                Kind::Nat => "nat",
            };
            let hook = match hook {
                Hook::Prerouting => "prerouting",
                Hook::Forward => "forward",
                Hook::Postrouting => "postrouting",
            };
            write!(f, " chain {name} {{ type {kind} hook {hook} priority {priority};")?;
            for rule in rules {
                for part in rule {
                    f.write_str(" ")?;
                    part.write(f, self.family)?;
                }
                f.write_str(";")?;
            }
            f.write_str(" };")?;
        }
        f.write_str(" }")
    }
}

impl Part {
    fn write(&self, f: &mut fmt::Formatter<'_>, family: Family) -> fmt::Result {
        match self {
            Self::NotByInterface(name) => write!(f, "iifname != \"{name}\""),
            Self::ToInterface(name) => write!(f, "oifname \"{name}\""),
            Self::NotToInterface(name) => write!(f, "oifname != \"{name}\""),
            Self::SourceBits { value, mask } => write_bits(f, family, "saddr", *value, *mask),
            Self::Destination(address) => write!(f, "{} daddr {address}", family_name(family)),
            Self::DestinationBits { value, mask } => write_bits(f, family, "daddr", *value, *mask),
            Self::SourceNotOurs => f.write_str("fib saddr type != local"),
            Self::Tcp => f.write_str("meta l4proto tcp"),
            Self::Udp => f.write_str("meta l4proto udp"),
            Self::Icmp => f.write_str(match family {
                Family::V4 => "meta l4proto icmp",
                Family::V6 => "meta l4proto ipv6-icmp",
            }),
            Self::DestinationPorts(first, last) => write!(f, "th dport {first}-{last}"),
            Self::Established => f.write_str("ct state established,related"),
            Self::Marked(mark) => write_match(f, "meta mark", *mark),
            Self::ConnectionMarked(mark) => write_match(f, "ct mark", *mark),
            Self::SetMark(mark) => write_set(f, "meta mark", *mark),
            Self::SetConnectionMark(mark) => write_set(f, "ct mark", *mark),
            Self::Accept => f.write_str("accept"),
            Self::Drop => f.write_str("drop"),
            Self::Reject => f.write_str(match family {
                Family::V4 => "reject with icmp type admin-prohibited",
                Family::V6 => "reject with icmpv6 type admin-prohibited",
            }),
            Self::Masquerade => f.write_str("masquerade"),
        }
    }
}

fn write_bits(
    f: &mut fmt::Formatter<'_>,
    family: Family,
    what: &str,
    value: IpAddr,
    mask: IpAddr,
) -> fmt::Result {
    let family = family_name(family);
    match ipnet::ip_mask_to_prefix(mask) {
        Ok(length) => write!(f, "{family} {what} {value}/{length}"),
        Err(_) => write!(f, "{family} {what} & {mask} == {value}"),
    }
}

fn write_match(f: &mut fmt::Formatter<'_>, what: &str, mark: Mark) -> fmt::Result {
    let Mark { value, mask } = mark;
    match mask {
        u32::MAX => write!(f, "{what} {value:#x}"),
        _ => write!(f, "{what} & {mask:#x} == {:#x}", value & mask),
    }
}

fn write_set(f: &mut fmt::Formatter<'_>, what: &str, mark: Mark) -> fmt::Result {
    let Mark { value, mask } = mark;
    match mask {
        u32::MAX => write!(f, "{what} set {value:#x}"),
        _ => write!(f, "{what} set {what} & {:#x} | {:#x}", !mask, value & mask),
    }
}

#[cfg(test)]
mod tests;
