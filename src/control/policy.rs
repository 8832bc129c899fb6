//! Policy routing: how everything goes into a tunnel except the tunnel's own packets.
//!
//! Two rules for each family, one after the other: the main table without its default routes; then,
//! for every packet that does not carry the tunnel's mark, the tunnel's table, whose default route
//! is the tunnel. What is marked goes on to the main table and its default route. [wg-quick(8)]
//!
//! Differs from wg-quick in three numbers. Rules have preferences of their own just above that of
//! the main table's rule, so that rules with a purpose (another VPN's, those for a second network
//! card of a cloud) keep their precedence. A mark that is picked has no bit that others are known to
//! use. The table is picked apart from the mark.
//!
//! A plan is pure: it is made from what the kernel said, and changes nothing.

use std::collections::BTreeSet;

use super::marks;
use super::netlink::{Family, MAIN_TABLE, Mark, OUR_PROTOCOL, Rule};

/// The numbers of one tunnel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Plan {
    /// On the tunnel's own packets.
    pub mark: Mark,
    pub table: u32,
    /// Of the rule for the main table; the other one follows.
    preference: u32,
}

/// Every number is taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("no {0} is free for policy routing (`ip rule` and `ip -6 rule` show what is in use)")]
pub struct Exhausted(&'static str);

impl Plan {
    /// Plans for a tunnel whose packets carry `mark`, or are to get one, on a host with `rules` and
    /// with routes in `tables`.
    ///
    /// # Errors
    /// [`Exhausted`]
    pub fn new(
        mark: Option<Mark>,
        rules: &[Rule],
        tables: &BTreeSet<u32>,
    ) -> Result<Self, Exhausted> {
        let preference = free_preference(rules).ok_or(Exhausted("preference of a rule"))?;
        let table = match mark {
            // As with wg-quick: whoever names the mark may rely on the table, in hooks as well.
            Some(Mark { value, .. }) if !is_of_the_kernel(value) => value,
            _ => free_table(rules, tables).ok_or(Exhausted("routing table"))?,
        };
        let mark = match mark {
            Some(mark) => mark,
            None => free_mark(rules).map(Mark::exact).ok_or(Exhausted("packet mark"))?,
        };
        Ok(Self { mark, table, preference })
    }

    /// The plan that has led to these rules; `None` if there is none of a tunnel among them.
    pub fn of(rules: impl IntoIterator<Item = Rule>) -> Option<Self> {
        let tunnel = rules.into_iter().find(|rule| rule.mark.is_some())?;
        let Rule { mark, table, preference, .. } = tunnel;
        Some(Self { mark: mark?, table, preference: preference.checked_sub(1)? })
    }

    /// The rules for one family, in the order in which they may be added: at no time does a network
    /// of the main table go into the tunnel.
    pub fn rules(&self, family: Family) -> [Rule; 2] {
        let main = Rule {
            family,
            preference: self.preference,
            mark: None,
            inverted: false,
            table: MAIN_TABLE,
            suppress_prefix_length: Some(0),
            protocol: OUR_PROTOCOL,
        };
        let tunnel = Rule {
            preference: self.preference + 1,
            mark: Some(self.mark),
            inverted: true,
            table: self.table,
            suppress_prefix_length: None,
            ..main
        };
        [main, tunnel]
    }
}

/// Below the kernel's own rule for the main table, and before those of our tunnels that are up: the
/// last one wins, as with wg-quick.
fn free_preference(rules: &[Rule]) -> Option<u32> {
    const HIGHEST: u32 = 32764;
    let ours = rules.iter().filter(|rule| rule.protocol == OUR_PROTOCOL);
    let below = ours.map(|rule| rule.preference.saturating_sub(2)).min();
    let taken: BTreeSet<u32> = rules.iter().map(|rule| rule.preference).collect();
    let is_free =
        |preference: &u32| !taken.contains(preference) && !taken.contains(&(preference + 1));
    (1..=below.unwrap_or(HIGHEST).min(HIGHEST)).rev().find(is_free)
}

/// The first table from wg-quick's number on that has no route and that no rule refers to.
fn free_table(rules: &[Rule], tables: &BTreeSet<u32>) -> Option<u32> {
    const FIRST: u32 = 51820;
    (FIRST..FIRST + 10_000)
        .find(|table| !tables.contains(table) && rules.iter().all(|rule| rule.table != *table))
}

/// Whether it is "unspecified" or the number of a table that every host has.
const fn is_of_the_kernel(table: u32) -> bool {
    matches!(table, 0 | 253..=255)
}

/// A mark without a bit that others use, and that no rule of this host asks for.
fn free_mark(rules: &[Rule]) -> Option<u32> {
    let is_asked_for =
        |mark: u32| rules.iter().filter_map(|rule| rule.mark).any(|asked| asked.matches(mark));
    marks::FREE.step_by(2).find(|&mark| !is_asked_for(mark))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rule(preference: u32) -> Rule {
        Rule {
            family: Family::V4,
            preference,
            mark: None,
            inverted: false,
            table: MAIN_TABLE,
            suppress_prefix_length: None,
            protocol: 0,
        }
    }

    fn kernels() -> Vec<Rule> {
        vec![Rule { table: 255, ..rule(0) }, rule(32766), Rule { table: 253, ..rule(32767) }]
    }

    fn plan(mark: Option<u32>, more: &[Rule], tables: &[u32]) -> Plan {
        let rules = [kernels(), more.to_vec()].concat();
        Plan::new(mark.map(Mark::exact), &rules, &tables.iter().copied().collect()).unwrap()
    }

    /// WQ-20.
    #[test]
    fn the_rules_stand_where_wg_quick_puts_them_on_a_host_that_has_no_others() {
        let plan = plan(None, &[], &[253, 254, 255]);
        let texts = plan.rules(Family::V6).map(|rule| rule.to_string());
        assert_eq!(
            texts,
            [
                "preference 32764 table main suppress_prefixlength 0 protocol 87",
                "preference 32765 not fwmark 0x1002 table 51820 protocol 87",
            ]
        );
    }

    /// WQ-20.
    #[test]
    fn a_mark_that_is_given_is_the_table_as_well_unless_that_is_one_of_the_kernels() {
        assert_eq!(plan(Some(1234), &[], &[1234]).table, 1234);
        let of_kernel = plan(Some(254), &[], &[]);
        assert_eq!((of_kernel.mark, of_kernel.table), (Mark::exact(254), 51820));
    }

    /// U-21.
    #[test]
    fn no_mark_that_is_picked_has_a_bit_that_others_use_nor_is_one_that_a_rule_asks_for() {
        let mut rules = Vec::new();
        let mut picked = Vec::new();
        while let Ok(plan) = Plan::new(None, &rules, &BTreeSet::new()) {
            let Mark { value, mask } = plan.mark;
            assert_eq!((mask, marks::clashes(value).next()), (u32::MAX, None));
            assert_eq!(value & 0xffff_ef81, 0, "{value:#x}");
            picked.push(value);
            rules.extend(plan.rules(Family::V4));
        }
        assert_eq!(picked.len(), 63, "{picked:x?}");
        let all = Mark { value: 0x1000, mask: 0xf000 };
        let rules = [Rule { mark: Some(all), ..rule(99) }];
        assert_eq!(Plan::new(None, &rules, &BTreeSet::new()), Err(Exhausted("packet mark")));
    }

    #[test]
    fn a_table_with_routes_or_with_a_rule_is_not_picked() {
        let other = Rule { table: 51821, ..rule(100) };
        assert_eq!(plan(None, &[other], &[51820]).table, 51822);
    }

    /// U-21.
    #[test]
    fn rules_of_others_stay_where_they_are_and_the_tunnel_that_came_last_is_asked_first() {
        let first = plan(None, &[rule(5210)], &[]);
        assert_eq!(first.preference, 32764);
        let second = plan(None, &first.rules(Family::V6), &[]);
        assert_eq!(second.preference, 32762);
        assert_ne!((second.mark, second.table), (first.mark, first.table));
        assert_eq!(Plan::of(second.rules(Family::V4)), Some(second));
        assert_eq!(Plan::of([rule(5210)]), None);
        // As somebody else's `ip rule add` without a preference, which has taken the next number.
        assert_eq!(plan(None, &[rule(32765)], &[]).preference, 32763);
        assert_eq!(plan(None, &[rule(32764)], &[]).preference, 32762);
    }

    #[test]
    fn a_masked_mark_matches_whatever_stands_in_the_other_bits() {
        let mark = Mark { value: 0x1002, mask: 0x1fff };
        assert!(mark.matches(0x1002) && mark.matches(0x5002));
        assert!(!mark.matches(0x1000) && !Mark::exact(0x1002).matches(0x5002));
        assert_eq!(
            (mark.to_string(), Mark::exact(10).to_string()),
            ("0x1002/0x1fff".into(), "0xa".into())
        );
    }
}
