//! Moves packets between an IP port and a datagram port.
//!
//! ```text
//!             ┌───────────────────────── shard: one thread ──────────────────────────┐
//!   IP port ─▶│ outbound:  read ▶ flow's turn ▶ route ▶ session? ▶ seal ▶ send       │─▶ datagram
//!   (TUN)   ◀─│ inbound:   deliver ◀ source check ◀ replay ◀ open ◀ session ◀ receive│◀─ port (UDP)
//!             └──────┬───────────────────▲────────────────────────────────▲──────────┘
//!       lane: handshakes, signals   inbox: commands         tables: routes, sessions, paths
//!                    ▼                   │                                │
//!             └──────────────────────  engine: proto::Device  ───────────────────────┘
//! ```
//!
//! - **Order.** A shard sends the packets of a flow in the order it read them, flows by turns (to
//!   [`crate::packet::fair_queue`] fragments of TCP are a flow by themselves); packets that wait for a
//!   session are sent before later ones of their peer. Only shards send. Of several shards
//!   of a device each has ports of its own, and a flow comes by the ports of one.
//! - **Bounds.** Batches and trains are made at the start and never grow. Staged packets, lane and
//!   inbox have limits; beyond them things are dropped and counted ([`tables::Tables::drops`]).
//!   On the established path nothing is allocated, and nothing costs more for more peers.
//! - **Locks.** Tables, lane and inbox; each is held for a lookup or a copy, never across AEAD or a
//!   system call, and no thread ever holds two.
//! - **Shutdown.** A command in the inbox, or a port that is gone, ends a shard;
//!   [`shard::ShardThread`] joins it. Nothing is detached.
//!
//! Must not parse configuration, touch routes, perform a Diffie-Hellman, or know tokio.

pub mod clamp_mss;
mod departures;
mod inbound;
pub mod inbox;
pub mod lane;
pub mod memory_port;
mod moderation;
mod outbound;
pub mod path_mtu;
pub mod port;
mod preemption;
mod replies;
pub mod shard;
mod spin;
mod staged;
mod standing;
pub mod tables;
pub mod tun_port;
mod turn;
pub mod udp_port;

#[cfg(test)]
mod tests;

use crate::sys::SysError;

/// Most packets a shard reads from its IP port in one turn, and most that it sends.
pub const IP_BATCH: usize = 32;

/// Bytes after which it sends no more before it looks again for what has come: three super-packets, or
/// one each of three flows. With two, four streams cost 3 % more a byte; with four, what comes between
/// them waits a third longer. (docs/performance.md)
const SEND_BYTES: usize = 144 << 10;

/// Bytes after which it reads no more, so that what is waiting already is not kept waiting by reading.
const READ_BYTES: usize = 512 << 10;

/// Most packets that have been read and wait for their turn. More wait in the IP port, which is read
/// where there is room for a whole batch.
const WAITING: usize = 64;

const _: () = assert!(WAITING >= IP_BATCH);

/// Most messages a shard receives from its datagram port in one turn.
pub const DATAGRAM_BATCH: usize = 32;

/// Why a shard has stopped.
#[derive(Debug)]
pub enum Stop {
    /// It was asked to.
    Shutdown,
    /// The TUN device was deleted, or what stands in its place is gone.
    IpPortGone(SysError),
    /// The UDP sockets cannot be used any more.
    DatagramPortGone(SysError),
    /// The shard cannot wait for its ports.
    PollFailed(SysError),
}
