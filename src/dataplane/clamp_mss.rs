//! How far a device lowers the segment sizes that connections through it announce.

use std::fmt;
use std::str::FromStr;
use std::sync::atomic::{AtomicU32, Ordering};

use crate::dataplane::path_mtu::PathMtu;
use crate::dataplane::tables::Tables;
use crate::wire::mss::{self, Checksum, Limits};
use crate::wire::vnet::VnetHeader;

/// The setting.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ClampMss {
    Off,
    /// To what fits the MTU of the tunnel.
    #[default]
    On,
    /// To so many bytes, and to what fits the MTU.
    To(u16),
}

impl ClampMss {
    /// Below this no path of IPv4 asks for less. [RFC 9293 §3.7.1]
    pub const LEAST_BYTES: u16 = mss::LOWEST_MSS_V4;

    /// What is announced at most by packets that go through a tunnel of `mtu` bytes.
    fn limits(self, mtu: u32) -> Option<Limits> {
        match self {
            Self::Off => None,
            Self::On => Some(Limits::of_mtu(mtu)),
            Self::To(bytes) => Some(Limits::of_mtu(mtu).at_most(bytes)),
        }
    }
}

impl fmt::Display for ClampMss {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Off => f.write_str("off"),
            Self::On => f.write_str("on"),
            Self::To(bytes) => write!(f, "{bytes}"),
        }
    }
}

impl FromStr for ClampMss {
    type Err = ();

    /// `on`, `off`, or a number of bytes from [`Self::LEAST_BYTES`] to 65535, digits only.
    fn from_str(text: &str) -> Result<Self, ()> {
        if text.eq_ignore_ascii_case("on") {
            return Ok(Self::On);
        }
        if text.eq_ignore_ascii_case("off") {
            return Ok(Self::Off);
        }
        let is_number = text.bytes().all(|byte| byte.is_ascii_digit());
        let bytes = is_number.then(|| text.parse().ok()).flatten();
        bytes.filter(|bytes| *bytes >= Self::LEAST_BYTES).map(Self::To).ok_or(())
    }
}

/// The setting of a device, read by its shards. Ordering: relaxed; it holds from some batch on.
#[derive(Debug)]
pub(super) struct ClampMssCell(AtomicU32);

impl ClampMssCell {
    const ON: u32 = u32::MAX;

    pub fn new(setting: ClampMss) -> Self {
        let cell = Self(AtomicU32::new(0));
        cell.set(setting);
        cell
    }

    pub fn set(&self, setting: ClampMss) {
        let code = match setting {
            ClampMss::Off => 0,
            ClampMss::On => Self::ON,
            ClampMss::To(bytes) => bytes.into(),
        };
        self.0.store(code, Ordering::Relaxed);
    }

    pub fn get(&self) -> ClampMss {
        match u16::try_from(self.0.load(Ordering::Relaxed)) {
            Ok(0) => ClampMss::Off,
            Ok(bytes) => ClampMss::To(bytes),
            Err(_) => ClampMss::On,
        }
    }
}

/// Whether [`lower`] is worth a call: a packet of its own that may be a SYN. One comparison for most.
#[inline]
pub(super) fn may_announce(packet: &[u8], vnet: &VnetHeader) -> bool {
    vnet.gso.is_none() && mss::may_be_syn(packet)
}

/// Lowers what `packet` announces, if it is a SYN, to what fits the tunnel and the `path` to its peer.
#[cold]
pub(super) fn lower(packet: &mut [u8], vnet: &VnetHeader, tables: &Tables, path: &PathMtu) {
    let mtu = tables.mtu().min(path.limit(false));
    let checksum = if vnet.checksum.is_some() { Checksum::Partial } else { Checksum::Whole };
    if let Some(limits) = tables.clamp_mss().limits(mtu) {
        mss::clamp(packet, limits, checksum);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_setting_is_read_as_it_is_written_and_kept() {
        for setting in [
            ClampMss::Off,
            ClampMss::On,
            ClampMss::To(536),
            ClampMss::To(1320),
            ClampMss::To(65_535),
        ] {
            assert_eq!(setting.to_string().parse(), Ok(setting));
            assert_eq!(ClampMssCell::new(setting).get(), setting);
        }
        for text in ["", "yes", "535", "65536", "+1320", "1320 ", "-1"] {
            assert_eq!(text.parse::<ClampMss>(), Err(()), "{text:?}");
        }
        assert_eq!("ON".parse(), Ok(ClampMss::On));
    }

    #[test]
    fn a_number_lowers_further_than_the_mtu_and_never_raises() {
        let of = |setting: ClampMss| setting.limits(1360);
        assert_eq!(of(ClampMss::Off), None);
        assert_eq!(of(ClampMss::On), Some(Limits { v4: 1320, v6: 1300 }));
        assert_eq!(of(ClampMss::To(1200)), Some(Limits { v4: 1200, v6: 1200 }));
        assert_eq!(of(ClampMss::To(1310)), Some(Limits { v4: 1310, v6: 1300 }));
        assert_eq!(of(ClampMss::To(9000)), of(ClampMss::On));
    }
}
