//! Policy rules: which table a packet is looked up in. [LNX fib_rules.c:fib_nl_newrule]

use std::fmt;

use netlink_bindings::rt_rule::{FibRuleHdr, IterableFibRuleAttrs, PushFibRuleAttrs, Request};
use netlink_bindings::traits::Pusher;
use serde::{Deserialize, Serialize};

use super::{Family, Netlink, NetlinkError, table_name};

/// What a rule that we make carries as the protocol that made it, so that nobody takes it for his
/// own. No program that iproute2 knows has this number. [LNX rtnetlink.h:RTPROT_STATIC]
pub const OUR_PROTOCOL: u8 = 87;

/// A mark of packets, compared under a mask.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Mark {
    pub value: u32,
    /// Bits that count; all ones, unless somebody shares the mark with others.
    pub mask: u32,
}

impl Mark {
    /// All bits count.
    pub const fn exact(value: u32) -> Self {
        Self { value, mask: u32::MAX }
    }

    /// Whether packets that carry `mark` are meant.
    pub const fn matches(self, mark: u32) -> bool {
        (self.value ^ mark) & self.mask == 0
    }
}

impl fmt::Display for Mark {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.mask {
            u32::MAX => write!(f, "{:#x}", self.value),
            mask => write!(f, "{:#x}/{mask:#x}", self.value),
        }
    }
}

/// A rule that looks packets up in a table.
///
/// Rules of other programs can select by more than this: of those it is what they have in common
/// with ours.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Rule {
    pub family: Family,
    /// Lower comes first.
    pub preference: u32,
    /// Selects by mark; everything if `None`.
    pub mark: Option<Mark>,
    /// Selects what does not have the mark.
    pub inverted: bool,
    /// 0 if the rule does something else than to look up.
    pub table: u32,
    /// Routes of the table with a prefix at most this long do not count.
    pub suppress_prefix_length: Option<u32>,
    /// Who made it; 0 if nobody says, or the kernel does not (before 4.17).
    pub protocol: u8,
}

/// As ip(8) takes it after `ip -4 rule add`.
impl fmt::Display for Rule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "preference {}", self.preference)?;
        if let Some(mark) = self.mark {
            write!(f, "{} fwmark {mark}", if self.inverted { " not" } else { "" })?;
        }
        write!(f, " table {}", table_name(self.table))?;
        if let Some(length) = self.suppress_prefix_length {
            write!(f, " suppress_prefixlength {length}")?;
        }
        write!(f, " protocol {}", self.protocol)
    }
}

impl Netlink {
    /// # Errors
    /// A rule that exists ([`NetlinkError::is_present`]), a kernel without policy routing, no right.
    pub fn add_rule(&mut self, rule: &Rule) -> Result<(), NetlinkError> {
        let mut request = Request::new().set_create().set_excl().op_newrule_do(&header(rule));
        push(request.encode(), rule);
        self.change(&request, || format!("ip {} rule add {rule}", rule.family.flag()))
    }

    /// Deletes this rule and no other.
    ///
    /// # Errors
    /// No such rule ([`NetlinkError::is_absent`]), no right.
    pub fn delete_rule(&mut self, rule: &Rule) -> Result<(), NetlinkError> {
        let mut request = Request::new().op_delrule_do(&header(rule));
        push(request.encode(), rule);
        self.change(&request, || format!("ip {} rule delete {rule}", rule.family.flag()))
    }

    /// The rules of both families.
    ///
    /// # Errors
    /// What the kernel refused.
    pub fn rules(&mut self) -> Result<Vec<Rule>, NetlinkError> {
        let mut found = Vec::new();
        for family in Family::BOTH {
            let header = FibRuleHdr { family: family.number(), ..FibRuleHdr::new() };
            let request = Request::new().op_getrule_dump(&header);
            let action = || format!("ip {} rule show", family.flag());
            let outcome = self.query(&request, action, |(header, attributes)| {
                found.push(read(family, &header, &attributes));
            });
            match outcome {
                // A kernel without IPv6, or without policy routing for it.
                Err(error) if error.is_unsupported() && family == Family::V6 => {}
                outcome => outcome?,
            }
        }
        Ok(found)
    }
}

fn header(rule: &Rule) -> FibRuleHdr {
    FibRuleHdr {
        family: rule.family.number(),
        action: FR_ACT_TO_TBL,
        flags: if rule.inverted { FIB_RULE_INVERT } else { 0 },
        ..FibRuleHdr::new()
    }
}

fn push<P: Pusher>(mut attributes: PushFibRuleAttrs<P>, rule: &Rule) {
    attributes = attributes
        .push_priority(rule.preference)
        .push_table(rule.table)
        .push_protocol(rule.protocol);
    if let Some(mark) = rule.mark {
        attributes = attributes.push_fwmark(mark.value).push_fwmask(mark.mask);
    }
    if let Some(length) = rule.suppress_prefix_length {
        attributes = attributes.push_suppress_prefixlen(length);
    }
    attributes.end_nested();
}

fn read(family: Family, header: &FibRuleHdr, attributes: &IterableFibRuleAttrs<'_>) -> Rule {
    let table = attributes.get_table().unwrap_or_else(|_| u32::from(header.table));
    let value = attributes.get_fwmark().unwrap_or(0);
    let mask = attributes.get_fwmask().unwrap_or(if value == 0 { 0 } else { u32::MAX });
    Rule {
        family,
        preference: attributes.get_priority().unwrap_or(0),
        mark: (mask != 0).then_some(Mark { value, mask }),
        inverted: header.flags & FIB_RULE_INVERT != 0,
        table: if header.action == FR_ACT_TO_TBL { table } else { 0 },
        // The kernel writes -1 for "all count".
        suppress_prefix_length: attributes.get_suppress_prefixlen().ok().filter(|n| *n != u32::MAX),
        protocol: attributes.get_protocol().unwrap_or(0),
    }
}

// [LNX fib_rules.h:FR_ACT_TO_TBL]
const FR_ACT_TO_TBL: u8 = 1;
const FIB_RULE_INVERT: u32 = 2;
