//! What others have in nftables: their base chains, and what becomes of a packet there that no rule
//! is about.
//!
//! Must not interpret matches. A rule that has one is about some packets, and nobody knows whether ours
//! are among them; only the others decide for all.

use std::collections::HashMap;
use std::ffi::CStr;

use netlink_bindings::nftables::{
    ExprListAttrs, ExprOps, IterableExprAttrs, IterableExprListAttrs, Nfgenmsg, Request,
    VerdictCode,
};

use super::{Family, Netlink, NetlinkError, family_name};

/// A base chain, and what the kernel lets one nest below it. [LNX nf_tables.h:NFT_JUMP_STACK_SIZE]
const DEEPEST: usize = 1 + 16;

/// A base chain of anybody's.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Standing {
    /// As nft(8) names the family of its table.
    pub family: &'static str,
    pub table: String,
    pub name: String,
    pub is_forward: bool,
    /// Gives packets that leave the host another source.
    pub is_source_nat: bool,
    /// By its policy, which holds for what none of its rules decides.
    pub drops: bool,
}

impl Standing {
    /// Whether packets of the family pass it.
    pub fn is_of(&self, family: Family) -> bool {
        self.family == "inet" || self.family == family_name(family)
    }
}

/// What a rule without matches does to whatever comes to it.
#[derive(Debug)]
enum Verdict {
    Accept,
    Drop,
    Return,
    Jump(String),
    Goto(String),
}

/// What becomes of a packet that no match applies to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum End {
    Accepted,
    Dropped,
    /// It comes to the end of the chain.
    GoesOn,
}

impl Netlink {
    /// The base chains of all tables of the families that forward IP.
    ///
    /// # Errors
    /// A kernel without nftables, no right.
    pub fn base_chains(&mut self) -> Result<Vec<Standing>, NetlinkError> {
        // [LNX netfilter.h:nf_inet_hooks]
        const FORWARD: u32 = 2;
        const POSTROUTING: u32 = 4;
        // [LNX netfilter.h:NF_DROP]
        const DROP: u32 = 0;
        let request = Request::new().op_getchain_dump(&Nfgenmsg::new());
        let mut chains = Vec::new();
        self.query(
            &request,
            || "nft list chains".to_owned(),
            |(header, attributes)| {
                let Some(family) = family_of(header.nfgen_family) else { return };
                let Ok(hook) = attributes.get_hook().and_then(|hook| hook.get_num()) else {
                    return;
                };
                chains.push(Standing {
                    family,
                    table: text(attributes.get_table().ok()),
                    name: text(attributes.get_name().ok()),
                    is_forward: hook == FORWARD,
                    is_source_nat: hook == POSTROUTING && attributes.get_type() == Ok(c"nat"),
                    drops: attributes.get_policy() == Ok(DROP),
                });
            },
        )?;
        Ok(chains)
    }

    /// Whether the chain drops or rejects whatever none of its matches is about: by its policy, or by
    /// a rule without matches, as also in a chain that it jumps to.
    ///
    /// # Errors
    /// As for [`Self::base_chains`].
    pub fn drops_the_rest(&mut self, chain: &Standing) -> Result<bool, NetlinkError> {
        let mut verdicts: HashMap<String, Vec<Verdict>> = HashMap::new();
        self.rules_of(chain, |name, expressions| {
            verdicts.entry(name).or_default().extend(verdict(expressions));
        })?;
        Ok(match end(&verdicts, &chain.name, DEEPEST) {
            End::Accepted => false,
            End::Dropped => true,
            End::GoesOn => chain.drops,
        })
    }

    /// Whether the chain has any rule.
    ///
    /// # Errors
    /// As for [`Self::base_chains`].
    pub fn has_rules(&mut self, chain: &Standing) -> Result<bool, NetlinkError> {
        let mut any = false;
        self.rules_of(chain, |name, _| any |= name == chain.name)?;
        Ok(any)
    }

    /// Hands over each rule of the chain's table, with the name of the chain that it is in.
    fn rules_of(
        &mut self,
        chain: &Standing,
        mut rule: impl FnMut(String, IterableExprListAttrs<'_>),
    ) -> Result<(), NetlinkError> {
        let mut request = Request::new().op_getrule_dump(&Nfgenmsg::new());
        request.encode().push_table_bytes(chain.table.as_bytes());
        self.query(
            &request,
            || format!("nft list table {} {}", chain.family, chain.table),
            |(header, attributes)| {
                // Kernels before 4.8 answer with all tables.
                let is_of_table = family_of(header.nfgen_family) == Some(chain.family)
                    && text(attributes.get_table().ok()) == chain.table;
                if let Ok(expressions) = attributes.get_expressions()
                    && is_of_table
                {
                    rule(text(attributes.get_chain().ok()), expressions);
                }
            },
        )
    }
}

fn family_of(number: u8) -> Option<&'static str> {
    // [LNX netfilter.h:NFPROTO_INET]
    const INET: i32 = 1;
    match i32::from(number) {
        INET => Some("inet"),
        libc::AF_INET => Some(family_name(Family::V4)),
        libc::AF_INET6 => Some(family_name(Family::V6)),
        _ => None,
    }
}

fn text(name: Option<&CStr>) -> String {
    name.map(|name| name.to_string_lossy().into_owned()).unwrap_or_default()
}

/// What a rule does to every packet; None if it has a match, or leaves packets alone.
fn verdict(expressions: IterableExprListAttrs<'_>) -> Option<Verdict> {
    for expression in expressions {
        let Ok(ExprListAttrs::Elem(expression)) = expression else { return None };
        if !is_transparent(&expression) {
            return decision(&expression);
        }
    }
    None
}

/// Whether it lets every packet pass, and changes none.
fn is_transparent(expression: &IterableExprAttrs<'_>) -> bool {
    match expression.get_data() {
        Ok(ExprOps::Counter(_) | ExprOps::Log(_)) => true,
        // The words that iptables keeps beside a rule.
        Ok(ExprOps::Match(module)) => module.get_name() == Ok(c"comment"),
        _ => false,
    }
}

fn decision(expression: &IterableExprAttrs<'_>) -> Option<Verdict> {
    let value = match expression.get_data().ok()? {
        ExprOps::Immediate(value) => value,
        ExprOps::Reject(_) => return Some(Verdict::Drop),
        ExprOps::Target(target) if target.get_name() == Ok(c"REJECT") => {
            return Some(Verdict::Drop);
        }
        _ => return None,
    };
    let verdict = value.get_data().and_then(|data| data.get_verdict()).ok()?;
    let chain = || text(verdict.get_chain().ok());
    match VerdictCode::from_value(u64::from(verdict.get_code().ok()?))? {
        VerdictCode::Accept => Some(Verdict::Accept),
        VerdictCode::Drop => Some(Verdict::Drop),
        VerdictCode::Return => Some(Verdict::Return),
        VerdictCode::Jump => Some(Verdict::Jump(chain())),
        VerdictCode::Goto => Some(Verdict::Goto(chain())),
        VerdictCode::Continue
        | VerdictCode::Break
        | VerdictCode::Stolen
        | VerdictCode::Queue
        | VerdictCode::Repeat => None,
    }
}

/// What becomes of what enters `chain`, whose rules without matches stand in their order.
fn end(verdicts: &HashMap<String, Vec<Verdict>>, chain: &str, depth: usize) -> End {
    let Some(depth) = depth.checked_sub(1) else { return End::GoesOn };
    for verdict in verdicts.get(chain).into_iter().flatten() {
        let outcome = match verdict {
            Verdict::Accept => End::Accepted,
            Verdict::Drop => End::Dropped,
            Verdict::Return => return End::GoesOn,
            Verdict::Goto(chain) => return end(verdicts, chain, depth),
            Verdict::Jump(chain) => end(verdicts, chain, depth),
        };
        if outcome != End::GoesOn {
            return outcome;
        }
    }
    End::GoesOn
}
