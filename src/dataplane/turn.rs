//! What every stage of a turn is given.

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
