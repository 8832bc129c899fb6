//! Tables of nftables as data, and how they come into the kernel.
//!
//! A [`Table`] is written as a whole: whatever was in one of its name is gone afterwards, in one
//! transaction. Its text, as `Display` gives it, is what nft(8) takes for the same effect.
//!
//! Knows as many matches and statements as we need; a new one is a variant of [`Part`], its text
//! here and its expressions in `encode`. [LNX nf_tables_api.c:nf_tables_newtable]

mod encode;
mod owner;

use std::fmt;
use std::net::IpAddr;

use netlink_bindings::nftables;
use serde::{Deserialize, Serialize};

use super::{Family, Mark, Netlink, NetlinkError};

pub use owner::Owner;

/// A table and all that is in it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Table {
    pub family: Family,
    pub name: String,
    pub chains: Vec<Chain>,
}

/// A base chain of the type "filter".
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Chain {
    pub name: String,
    pub hook: Hook,
    /// Lower comes first.
    pub priority: i32,
    /// Each a rule: matches, and then what happens to a packet that all of them match.
    pub rules: Vec<Vec<Part>>,
}

/// Where packets pass a chain.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Hook {
    Prerouting,
    Postrouting,
}

/// A match or a statement of a rule.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Part {
    /// Came by another interface than this.
    NotByInterface(String),
    /// An address of the table's family.
    Destination(IpAddr),
    /// The source is no address of this host.
    SourceNotOurs,
    Udp,
    Marked(Mark),
    ConnectionMarked(Mark),
    /// Sets the bits of the mask, and leaves the others.
    SetMark(Mark),
    SetConnectionMark(Mark),
    Drop,
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
        let number = self.next_number();
        self.transact(&encode::replace(table, number), || table.add_command())
    }

    /// Deletes the table.
    ///
    /// # Errors
    /// No such table ([`NetlinkError::is_absent`]), one that belongs to somebody, no right.
    pub fn delete_table(&mut self, table: &Table) -> Result<(), NetlinkError> {
        let number = self.next_number();
        self.transact(&encode::delete(table, number), || table.delete_command())
    }

    fn next_number(&mut self) -> u32 {
        self.socket.reserve_seq(encode::MAX_MESSAGES)
    }

    fn transact(
        &mut self,
        batch: &nftables::ChainedFinal<'_>,
        action: impl FnOnce() -> String,
    ) -> Result<(), NetlinkError> {
        let reply = self.socket.request_chained(batch);
        match reply.map_err(Into::into).and_then(|mut reply| reply.recv_all()) {
            Ok(()) => Ok(()),
            Err(error) => Err(NetlinkError::new(action(), &error)),
        }
    }
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
        for Chain { name, hook, priority, rules } in &self.chains {
            let hook = match hook {
                Hook::Prerouting => "prerouting",
                Hook::Postrouting => "postrouting",
            };
            write!(f, " chain {name} {{ type filter hook {hook} priority {priority};")?;
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
            Self::Destination(address) => write!(f, "{} daddr {address}", family_name(family)),
            Self::SourceNotOurs => f.write_str("fib saddr type != local"),
            Self::Udp => f.write_str("meta l4proto udp"),
            Self::Marked(mark) => write_match(f, "meta mark", *mark),
            Self::ConnectionMarked(mark) => write_match(f, "ct mark", *mark),
            Self::SetMark(mark) => write_set(f, "meta mark", *mark),
            Self::SetConnectionMark(mark) => write_set(f, "ct mark", *mark),
            Self::Drop => f.write_str("drop"),
        }
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
