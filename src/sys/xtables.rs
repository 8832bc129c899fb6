//! What the iptables of old has in the kernel: whether its table "filter" lets everything be
//! forwarded. [LNX ip_tables.h:ipt_getinfo] [LNX x_tables.h:xt_standard_target]
//!
//! Must not change anything. Asking about a table makes it, if the module is there.

use std::os::fd::{AsRawFd, OwnedFd};

use rustix::net::{AddressFamily, SocketFlags, SocketType, ipproto, socket_with};

use super::{SysError, check};

/// Numbers are those of both families. [LNX ip_tables.h:IPT_SO_GET_INFO]
const GET_INFO: i32 = 64;
const GET_ENTRIES: i32 = 65;

/// A table's name, at the beginning of all that is said of it. [LNX x_tables.h:XT_TABLE_MAXNAMELEN]
const NAME: [u8; 32] = {
    let mut name = [0; 32];
    name.split_at_mut(6).0.copy_from_slice(b"filter");
    name
};

/// Name, valid hooks, first rules and policies of five hooks each, number and bytes of all rules.
const INFO_BYTES: usize = 32 + 4 * (1 + 5 + 5 + 2);
const FIRST_AT: usize = 32 + 4;
const POLICIES_AT: usize = FIRST_AT + 4 * 5;
const SIZE_AT: usize = INFO_BYTES - 4;

/// [LNX netfilter.h:nf_inet_hooks]
const FORWARD: usize = 2;

/// Where the rules begin: behind name and size, aligned for their counters.
const ENTRIES_AT: usize = 40;

/// Where a rule says at what offset its target begins. [LNX ip_tables.h:ipt_entry]
const TARGET_OFFSET_AT: usize = 88;
/// [LNX ip6_tables.h:ip6t_entry]
const TARGET_OFFSET_AT_V6: usize = 140;

/// A target's size, name and revision; then comes a verdict.
const TARGET_BYTES: usize = 32;

/// As the table has it. [LNX x_tables.h:xt_standard_target]
const ACCEPT: i32 = -2;

/// Whether everything may be forwarded: the chain FORWARD has no rules, and its policy is to accept.
///
/// # Errors
/// No right, no such table.
pub fn forwards_everything(is_v6: bool) -> Result<bool, SysError> {
    let (family, level) = match is_v6 {
        false => (AddressFamily::INET, libc::IPPROTO_IP),
        true => (AddressFamily::INET6, libc::IPPROTO_IPV6),
    };
    let socket = socket_with(family, SocketType::RAW, SocketFlags::CLOEXEC, Some(ipproto::RAW))
        .map_err(|e| SysError::new("socket IPPROTO_RAW", e))?;
    let mut info = vec![0; INFO_BYTES];
    ask(&socket, level, GET_INFO, &mut info)?;
    let size = number(&info, SIZE_AT).unwrap_or(0);
    let mut entries = vec![0; ENTRIES_AT + size];
    entries[NAME.len()..][..4].copy_from_slice(&info[SIZE_AT..]);
    ask(&socket, level, GET_ENTRIES, &mut entries)?;
    Ok(is_open(&info, &entries[ENTRIES_AT..], is_v6))
}

/// Asks about the table; `about` is as long as the answer, and holds what is known of it.
fn ask(socket: &OwnedFd, level: i32, option: i32, about: &mut [u8]) -> Result<(), SysError> {
    about[..NAME.len()].copy_from_slice(&NAME);
    let mut length = libc::socklen_t::try_from(about.len()).unwrap_or(libc::socklen_t::MAX);
    // SAFETY: the kernel reads and writes `length` bytes at most of `about`, which has as many; both
    // outlive the call.
    let result = unsafe {
        libc::getsockopt(
            socket.as_raw_fd(),
            level,
            option,
            about.as_mut_ptr().cast(),
            &raw mut length,
        )
    };
    check("getsockopt IPT_SO_GET", result).map(drop)
}

/// Whether FORWARD begins with its policy, and that accepts.
fn is_open(info: &[u8], entries: &[u8], is_v6: bool) -> bool {
    let first = number(info, FIRST_AT + 4 * FORWARD);
    let Some(policy) = number(info, POLICIES_AT + 4 * FORWARD) else { return false };
    first == Some(policy)
        && verdict(entries.get(policy..).unwrap_or_default(), is_v6) == Some(ACCEPT)
}

/// What the target of a rule without name does.
fn verdict(entry: &[u8], is_v6: bool) -> Option<i32> {
    let at = if is_v6 { TARGET_OFFSET_AT_V6 } else { TARGET_OFFSET_AT };
    let offset = entry.get(at..)?.first_chunk()?;
    let target = entry.get(usize::from(u16::from_ne_bytes(*offset))..)?;
    // Policies are of the kind that has no name.
    let is_standard = target.get(2) == Some(&0);
    let verdict = target.get(TARGET_BYTES..)?.first_chunk()?;
    is_standard.then(|| i32::from_ne_bytes(*verdict))
}

fn number(bytes: &[u8], at: usize) -> Option<usize> {
    let number = bytes.get(at..)?.first_chunk()?;
    usize::try_from(u32::from_ne_bytes(*number)).ok()
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use super::*;
    use crate::sys::testing::in_own_namespace;

    #[test]
    fn a_chain_is_open_without_rules_and_with_the_policy_to_accept() {
        in_own_namespace(|| {
            for (program, is_v6) in [("iptables-legacy", false), ("ip6tables-legacy", true)] {
                let iptables = |rule: &str| {
                    let output = Command::new(program).args(rule.split(' ')).output();
                    output.is_ok_and(|output| output.status.success())
                };
                if !iptables("-S") {
                    println!("no {program} here, or no kernel for it: nothing is shown");
                    return;
                }
                let is_open = || forwards_everything(is_v6).unwrap();
                assert!(is_open());
                assert!(iptables("-P INPUT DROP") && iptables("-A OUTPUT -j ACCEPT"));
                assert!(is_open(), "of what comes to the host itself");
                assert!(iptables("-P FORWARD DROP"));
                assert!(!is_open());
                assert!(iptables("-P FORWARD ACCEPT"));
                assert!(is_open());
                assert!(iptables("-A FORWARD -j DROP"));
                assert!(!is_open());
            }
        });
    }

    #[test]
    fn what_is_cut_short_is_not_open() {
        let mut info = [0; INFO_BYTES];
        let entry = |verdict: i32| {
            let mut entry = vec![0; 112 + TARGET_BYTES];
            entry[TARGET_OFFSET_AT..][..2].copy_from_slice(&112_u16.to_ne_bytes());
            [entry, verdict.to_ne_bytes().to_vec()].concat()
        };
        let accept = entry(ACCEPT);
        assert!(is_open(&info, &accept, false));
        for length in 0..accept.len() {
            assert!(!is_open(&info, &accept[..length], false));
        }
        assert!(!is_open(&info, &entry(-1), false));
        assert!(!is_open(&info[..POLICIES_AT], &accept, false));
        info[POLICIES_AT + 4 * FORWARD] = 152;
        assert!(!is_open(&info, &[entry(-1), accept].concat(), false), "a rule before the policy");
    }
}
