//! Files of wg(8) and wg-quick(8), good and bad.

mod ends;
mod faults;
mod files;
mod interface;
mod ours;
mod peers;
mod wireproxy;

use std::fs;
use std::net::SocketAddr;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use ipnet::IpNet;
use proptest::prelude::*;

use super::*;
use crate::control::command::AllowedIpChange;
use crate::crypto::key::{PresharedKey, PrivateKey, PublicKey};

const KEY: &str = "GBgYGBgYGBgYGBgYGBgYGBgYGBgYGBgYGBgYGBgYGBg=";
const PEER: &str = "oaGhoaGhoaGhoaGhoaGhoaGhoaGhoaGhoaGhoaGhoaE=";
const OTHER: &str = "sbGxsbGxsbGxsbGxsbGxsbGxsbGxsbGxsbGxsbGxsbE=";

fn good(text: &str) -> Config {
    parse(text, "t.conf").unwrap_or_else(|errors| panic!("{text:?}: {errors:?}")).config
}

fn interface(lines: &str) -> Interface {
    good(&format!("[Interface]\n{lines}\n")).interface
}

fn peer(lines: &str) -> Peer {
    good(&format!("[Peer]\nPublicKey = {PEER}\n{lines}\n")).peers.remove(0)
}

/// The faults as the user reads them.
fn faults(text: &str) -> Vec<String> {
    let errors = parse(text, "t.conf").err().unwrap_or_default();
    errors.iter().map(ToString::to_string).collect()
}

fn interface_fault(line: &str) -> String {
    let mut faults = faults(&format!("[Interface]\n{line}\n"));
    assert_eq!(faults.len(), 1, "{line:?}: {faults:?}");
    faults.remove(0)
}

fn peer_fault(line: &str) -> String {
    let mut faults = faults(&format!("[Peer]\nPublicKey = {PEER}\n{line}\n"));
    assert_eq!(faults.len(), 1, "{line:?}: {faults:?}");
    faults.remove(0)
}

/// The warnings about a file that has a private key after `text`.
fn warnings(text: &str) -> Vec<String> {
    let written = parse(&format!("{text}\n[Interface]\nPrivateKey = {KEY}\n"), "t.conf").unwrap();
    written.warnings.iter().map(ToString::to_string).collect()
}

fn nets(texts: &[&str]) -> Vec<IpNet> {
    texts.iter().map(|text| text.parse().unwrap()).collect()
}

fn adds(texts: &[&str]) -> Vec<AllowedIpChange> {
    nets(texts).into_iter().map(AllowedIpChange::Add).collect()
}

fn allowed_ips(peer: &Peer) -> Vec<AllowedIpChange> {
    peer.allowed_ips.iter().flatten().map(|entry| entry.value).collect()
}
