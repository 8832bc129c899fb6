//! What every stage of a turn is given, and what a turn has found.

use crate::crypto::batch::Kernel;
use crate::dataplane::lane::Lane;
use crate::dataplane::tables::Tables;
use crate::time::Now;

/// The shared tables, the way to the engine, the time of the turn, and what the processor can do.
#[derive(Clone, Copy, Debug)]
pub struct Context<'a> {
    pub now: Now,
    pub tables: &'a Tables,
    pub lane: &'a Lane,
    /// For several packets at once, if there is one to be used.
    pub kernel: Option<Kernel>,
}

/// A way through a shard.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Direction {
    Inbound,
    Outbound,
}

/// What a turn has found besides commands of the engine.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Work {
    /// Messages of the datagram port.
    pub inbound: u32,
    /// Packets and super-packets of the IP port.
    pub outbound: u32,
}

impl Work {
    pub const fn messages(self) -> u32 {
        self.inbound + self.outbound
    }

    /// The only way that packets went, if they went one way.
    pub const fn direction(self) -> Option<Direction> {
        match self {
            Self { inbound: 1.., outbound: 0 } => Some(Direction::Inbound),
            Self { inbound: 0, outbound: 1.. } => Some(Direction::Outbound),
            Self { .. } => None,
        }
    }
}
