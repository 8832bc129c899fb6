//! What an interface does by itself, and the queue in front of it.

use std::ffi::CStr;

use netlink_bindings::{ethtool, tc};

use super::{Link, Netlink, NetlinkError};

impl Netlink {
    /// Switches features on or off, by their names in `ethtool -k`.
    ///
    /// # Errors
    /// A name that the kernel does not know, no right, or a kernel before 5.7.
    pub fn set_features(
        &mut self,
        link: &Link,
        features: &[(&CStr, bool)],
    ) -> Result<(), NetlinkError> {
        let mut request = ethtool::Request::new().op_features_set_do();
        // The bindings (0.3.5) count the kernel's replies among its commands, and say 16.
        request.header_mut().cmd = FEATURES_SET;
        let mut bits = request
            .encode()
            .nested_header()
            .push_dev_index(link.index)
            .push_flags(OMIT_REPLY)
            .end_nested()
            .nested_wanted()
            .nested_bits();
        for &(name, is_on) in features {
            let bit = bits.nested_bit().push_name(name);
            bits = if is_on { bit.push_value(()).end_nested() } else { bit.end_nested() };
        }
        bits.end_nested().end_nested().end_nested();
        self.change(&request, || {
            let switch = |&(name, is_on): &(&CStr, bool)| {
                format!(" {} {}", name.to_string_lossy(), if is_on { "on" } else { "off" })
            };
            let switches: String = features.iter().map(switch).collect();
            format!("ethtool -K {}{switches}", link.name)
        })
    }

    /// Puts a queue of that kind in front of the interface, as long as its `txqueuelen`.
    ///
    /// # Errors
    /// A kind that the kernel does not know, no right.
    pub fn set_queue(&mut self, link: &Link, kind: &CStr) -> Result<(), NetlinkError> {
        let header =
            tc::Tcmsg { ifindex: link.index.cast_signed(), parent: ROOT, ..tc::Tcmsg::new() };
        let mut request = tc::Request::new().set_create().set_replace().op_newqdisc_do(&header);
        request.encode().push_kind(kind).end_nested();
        self.change(&request, || {
            format!("tc qdisc replace dev {} root {}", link.name, kind.to_string_lossy())
        })
    }
}

/// [LNX pkt_sched.h:TC_H_ROOT]
const ROOT: u32 = u32::MAX;
/// [LNX ethtool_netlink.h:ETHTOOL_MSG_FEATURES_SET]
const FEATURES_SET: u8 = 12;
/// [LNX ethtool_netlink.h:ETHTOOL_FLAG_OMIT_REPLY]
const OMIT_REPLY: u32 = 2;
