//! How a device runs, whatever it is configured to do: given on a command line, ours or that of the
//! background process, and reported by [`Status`].

use std::ffi::OsString;
use std::fmt;
use std::str::FromStr;

use super::shards::Shards;
use crate::crypto::key::PublicKey;
use crate::proto::drop_reason::DropReason;
use crate::sys::tun::TunOffloads;
use crate::sys::udp::UdpOffloads;

/// A way to deal with many packets at once; the kernel's by their names of ethtool(8).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Offload {
    /// TCP super-packets cross the TUN device.
    Tso,
    /// UDP super-packets cross the TUN device.
    Uso,
    /// Datagrams are handed to the kernel together.
    Gso,
    /// Datagrams are taken from the kernel together.
    Gro,
    /// Packets are sealed and opened several at once.
    AeadBatch,
    /// Packets may wait for a moment: for others, and for their turn on a processor.
    Moderation,
}

impl Offload {
    pub const ALL: [Self; 6] =
        [Self::Tso, Self::Uso, Self::Gso, Self::Gro, Self::AeadBatch, Self::Moderation];

    pub const fn name(self) -> &'static str {
        match self {
            Self::Tso => "tso",
            Self::Uso => "uso",
            Self::Gso => "gso",
            Self::Gro => "gro",
            Self::AeadBatch => "aead-batch",
            Self::Moderation => "moderation",
        }
    }
}

impl FromStr for Offload {
    type Err = ();

    fn from_str(name: &str) -> Result<Self, ()> {
        Self::ALL.into_iter().find(|offload| offload.name() == name).ok_or(())
    }
}

/// A choice of offloads: those that are wanted, or those that are in use.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Offloads {
    pub tun: TunOffloads,
    pub udp: UdpOffloads,
    pub aead_batch: bool,
    pub moderation: bool,
}

impl Offloads {
    pub const ALL: Self =
        Self { tun: TunOffloads::ALL, udp: UdpOffloads::ALL, aead_batch: true, moderation: true };
    pub const NONE: Self = Self {
        tun: TunOffloads::NONE,
        udp: UdpOffloads { segmentation: false, gro: false },
        aead_batch: false,
        moderation: false,
    };

    pub const fn has(self, offload: Offload) -> bool {
        match offload {
            Offload::Tso => self.tun.tcp,
            Offload::Uso => self.tun.udp,
            Offload::Gso => self.udp.segmentation,
            Offload::Gro => self.udp.gro,
            Offload::AeadBatch => self.aead_batch,
            Offload::Moderation => self.moderation,
        }
    }

    /// The same choice, but for this one.
    #[must_use]
    pub const fn with(mut self, offload: Offload, chosen: bool) -> Self {
        match offload {
            Offload::Tso => self.tun.tcp = chosen,
            Offload::Uso => self.tun.udp = chosen,
            Offload::Gso => self.udp.segmentation = chosen,
            Offload::Gro => self.udp.gro = chosen,
            Offload::AeadBatch => self.aead_batch = chosen,
            Offload::Moderation => self.moderation = chosen,
        }
        self
    }

    /// The names of those that are chosen.
    pub fn names(self) -> impl Iterator<Item = &'static str> {
        Offload::ALL.into_iter().filter(move |&offload| self.has(offload)).map(Offload::name)
    }
}

/// Separated by commas; nothing if none is chosen.
impl fmt::Display for Offloads {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.names().collect::<Vec<_>>().join(","))
    }
}

/// What a command line says about a device.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Settings {
    /// Those that may be used, if the kernel has them.
    pub offloads: Offloads,
    /// As many as there are to be, if the interface can have as many queues.
    pub shards: Shards,
    /// There is no interface: the addresses of the tunnel are the daemon's own.
    pub is_rootless: bool,
}

impl Settings {
    /// The arguments that say the same to the background process.
    pub fn arguments(self) -> Vec<OsString> {
        let mut arguments = vec![format!("--shards={}", self.shards).into()];
        let disabled: Vec<_> = Offload::ALL
            .into_iter()
            .filter(|&offload| !self.offloads.has(offload))
            .map(Offload::name)
            .collect();
        arguments.extend(self.is_rootless.then(|| "--rootless".into()));
        if !disabled.is_empty() {
            arguments.push(format!("--disable={}", disabled.join(",")).into());
        }
        arguments
    }
}

impl Default for Settings {
    fn default() -> Self {
        Self { offloads: Offloads::ALL, shards: Shards::by_cores(), is_rootless: false }
    }
}

/// What a running device says about itself beyond its configuration.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Status {
    /// Those in use.
    pub offloads: Offloads,
    /// The kernel has picked the port that it listens on; nobody has asked for this one.
    pub port_is_random: bool,
    /// How many flows begin or end at this host now, if any may.
    pub flows: Option<FlowCount>,
    /// What peers send to others is carried on, flow by flow.
    pub is_masquerading: bool,
    /// There is no interface.
    pub is_rootless: bool,
    /// One of each peer.
    pub paths: Vec<PathStatus>,
    /// Packets dropped since the start, by reason; reasons without any are left out.
    pub drops: Vec<(DropReason, u64)>,
}

/// How many flows there are.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct FlowCount {
    pub now: usize,
    /// Of these, TCP connections: they have an end that can be waited for.
    pub connections: usize,
    /// The flow engine has as many as it may: what would begin another is dropped.
    pub is_full: bool,
}

/// How large packets to a peer may be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PathStatus {
    pub public_key: PublicKey,
    /// Bytes of an inner packet.
    pub mtu: u32,
    pub source: PathSource,
}

/// How that is known.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PathSource {
    Assumed,
    Searching,
    Unanswered,
    Told,
    Measured,
}

impl PathSource {
    pub const ALL: [Self; 5] =
        [Self::Assumed, Self::Searching, Self::Unanswered, Self::Told, Self::Measured];

    pub const fn name(self) -> &'static str {
        match self {
            Self::Assumed => "assumed",
            Self::Searching => "searching",
            Self::Unanswered => "unanswered",
            Self::Told => "told",
            Self::Measured => "measured",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_offload_has_a_name_that_is_read_again() {
        for offload in Offload::ALL {
            assert_eq!(offload.name().parse(), Ok(offload));
        }
        assert_eq!("TSO".parse::<Offload>(), Err(()));
    }

    #[test]
    fn the_background_process_is_told_what_is_disabled_and_how_many_shards_there_are_to_be() {
        let two = Settings { shards: "2".parse().unwrap(), ..Settings::default() };
        assert_eq!(two.arguments(), ["--shards=2"]);
        let offloads = Offloads::ALL.with(Offload::Uso, false).with(Offload::Gro, false);
        let fewer = Settings { offloads, is_rootless: true, ..two };
        assert_eq!(fewer.arguments(), ["--shards=2", "--rootless", "--disable=uso,gro"]);
        assert_eq!(offloads.to_string(), "tso,gso,aead-batch,moderation");
    }
}
