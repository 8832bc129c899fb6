//! What every stage of a turn is given.

use crate::dataplane::lane::Lane;
use crate::dataplane::tables::Tables;
use crate::time::Now;

/// The shared tables, the way to the engine, and the time of the turn.
#[derive(Clone, Copy, Debug)]
pub struct Context<'a> {
    pub now: Now,
    pub tables: &'a Tables,
    pub lane: &'a Lane,
}
