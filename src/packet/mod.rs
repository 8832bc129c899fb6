//! Memory on the move: slabs, batches and trains.
//!
//! Everything has a fixed size from start to end of a program; nothing here allocates after
//! construction, makes a system call, or knows a key. Packet bytes are never read by this layer.

pub mod batch;
pub mod slab;
pub mod train;
