//! Everything about a device except its packets: configuration files, the UAPI, host changes and
//! the engine that owns the protocol state.
//!
//! Must not touch a packet: what has to be known per packet is handed down to `dataplane`.

pub mod check;
pub mod command;
pub mod config;
pub mod daemon;
pub mod divert;
pub mod dns;
pub mod drain;
pub mod ends;
pub mod engine;
pub mod firewall;
pub mod floor;
pub mod forwarding;
pub mod health;
pub mod hooks;
pub mod host_change;
pub mod interrupt;
pub mod journal;
pub mod lifecycle;
pub mod link;
pub mod maker;
pub mod marks;
pub mod masquerade;
pub mod mtu;
pub mod netlink;
pub mod paths;
pub mod peer_changes;
pub mod policy;
pub mod preflight;
pub mod proxy;
pub mod record;
pub mod reload;
pub mod reloading;
pub mod resolve;
pub mod rootless;
pub mod routes;
pub mod rt_tables;
pub mod run_folder;
pub mod save;
pub mod settings;
pub mod shards;
pub mod src_valid_mark;
pub mod starting;
pub mod uapi;
pub mod up;
pub mod vigil;
