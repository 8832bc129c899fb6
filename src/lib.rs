//! hybridwg: WireGuard in userspace, as a library of layers and one binary.
//!
//! **Internal library, no stability promise.** It exists so that `main.rs`, `tests/`, `benches/`
//! and `fuzz/` can reach the modules. ARCHITECTURE.md has the picture; this is the map:
//!
//! - [`time`], [`crypto`], [`wire`]: the leaves. Instants, primitives, bytes.
//! - [`proto`]: WireGuard as a pure state machine: no clock, no socket, no OS randomness.
//! - [`packet`]: memory on the move.
//! - [`sys`]: the operating system; with [`crypto::batch`] the only home of `unsafe`.
//! - [`dataplane`]: moves packets between a TUN port and a datagram port.
//! - [`flow`]: what peers reach through this host, carried on by its sockets.
//! - [`control`]: configuration, UAPI, host changes, the engine that owns the protocol state.
//! - [`bench`]: measuring tunnels, ours and others', from outside.
//! - [`cli`]: words and exit codes.
//!
//! Labels in the documentation: `[WG §x]` is the WireGuard paper (revision of 2020-06-01),
//! `[NOISE §x]` the Noise protocol framework revision 34, `[RFC n §x]` an RFC, `[UAPI]` the
//! cross-platform configuration protocol, `[LNX file:symbol]` a behaviour of the Linux kernel's
//! implementation that we match. `[P-01]` and the like number the rules of the protocol that we
//! keep a list of, and `trap_1_…` in the name of a test the faults that others have shipped:
//! docs/rules.md says what each is and which tests prove it.

#![deny(unsafe_code)]

pub mod bench;
pub mod cli;
pub mod control;
pub mod crypto;
pub mod dataplane;
pub mod flow;
pub mod packet;
pub mod proto;
#[allow(unsafe_code)]
pub mod sys;
pub mod time;
pub mod wire;
