//! Memory on the move: slabs, batches and trains.
//!
//! Everything has a fixed size from start to end of a program; nothing here allocates after
//! construction, makes a system call, or knows a key. Packet bytes are read where packets are cut,
//! merged or told apart by flow, and nowhere else.

pub mod batch;
pub mod coalesce;
pub mod fair_queue;
mod flow;
pub mod slab;
pub mod split;
pub mod train;

#[cfg(test)]
mod tests;
