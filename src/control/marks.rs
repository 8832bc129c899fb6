//! Who sets or looks at which bits of a packet's mark.
//!
//! Whoever marks packets with a bit of another program's has them treated as that program's own:
//! masqueraded, dropped, let past a firewall. The bits are those of the registry that such programs
//! keep, and of their documentation. (U-21)

/// Bits that belong to somebody.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Claim {
    pub bits: u32,
    pub whose: &'static str,
}

/// 51820, where wg-quick begins, has both of kube-proxy's: "to be masqueraded" and "to be dropped".
const CLAIMS: [Claim; 7] = [
    Claim { bits: 0x0000_0080, whose: "the VPC CNI of AWS" },
    Claim { bits: 0x0000_0f00, whose: "Cilium" },
    Claim { bits: 0x0000_2000, whose: "the portmap plugin of CNI" },
    Claim { bits: 0x0000_c000, whose: "kube-proxy" },
    Claim { bits: 0x0002_0000, whose: "Weave Net" },
    Claim { bits: 0x00ff_0000, whose: "Tailscale" },
    Claim { bits: 0xffff_0000, whose: "Calico" },
];

/// Marks that nobody claims, the first and the last of those that are picked from.
pub const FREE: std::ops::RangeInclusive<u32> = 0x1002..=0x107e;

/// Whose bits a mark has.
pub fn clashes(mark: u32) -> impl Iterator<Item = Claim> {
    CLAIMS.into_iter().filter(move |claim| claim.bits & mark != 0)
}

/// What to tell a user who wants this mark, if there is anything.
pub fn advice(mark: u32) -> Option<String> {
    let claims: Vec<String> = clashes(mark)
        .map(|Claim { bits, whose }| format!("{:#x} of {whose}", bits & mark))
        .collect();
    (!claims.is_empty()).then(|| {
        format!(
            "{mark:#x} has bits that others use: {}. Where one of these runs, it can take the \
             tunnel's packets for its own; marks from {:#x} to {:#x} have no such bit",
            claims.join(", "),
            FREE.start(),
            FREE.end()
        )
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn u_21_a_mark_with_bits_of_others_is_told_whose_they_are() {
        for (mark, whose) in [
            (51820, &["0xc000 of kube-proxy", "0xa00 of Cilium"][..]),
            (0x4000, &["0x4000 of kube-proxy"]),
            (0x8000, &["0x8000 of kube-proxy"]),
            (0x80000, &["0x80000 of Tailscale", "0x80000 of Calico"]),
            (0x2_0000, &["Weave Net"]),
            (0x2002, &["0x2000 of the portmap plugin"]),
            (0x80, &["AWS"]),
            (u32::MAX, &["0xff0000 of Tailscale", "0xffff0000 of Calico"]),
        ] {
            let told = advice(mark).unwrap();
            assert!(told.starts_with(&format!("{mark:#x} has bits")), "{told}");
            assert!(whose.iter().all(|part| told.contains(part)), "{told}");
        }
        for mark in [0, 1, 0x4d, 0x1000].into_iter().chain(FREE) {
            assert_eq!(advice(mark), None, "{mark:#x}");
        }
    }
}
