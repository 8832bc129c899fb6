//! Tests on real packets, with the binary as cargo built it, in network namespaces of their own.
//!
//! Everything below is skipped where the machine lacks something, with a line that says what; with
//! `HYBRIDWG_REQUIRE_HOST=1` that is a failure instead. Names of interfaces and namespaces come
//! from the process id, ports from the kernel, and each test removes what it made.

mod bench;
mod bench_link;
mod check;
mod database;
mod dns;
mod endpoint;
mod flows;
mod full_tunnel;
mod health;
mod image;
mod interop;
mod lifetime;
mod maker;
mod masquerade;
mod names;
mod net;
mod network;
mod offload;
mod parity;
mod path_mtu;
mod pod;
mod rekey;
mod reload;
mod rootless;
mod routing;
mod save;
mod scenarios;
mod script;
mod service;
mod shards;
mod stock;
mod thousand;
mod traffic;
mod tunnel;
mod up_down;
mod ways_in;

use std::env;
use std::path::Path;
use std::process::Command;

/// Whether the calling test must be skipped; says why in a line that `tests/run.sh` counts.
///
/// ```ignore
/// if host::skips(&["ip", "ping"]) {
///     return;
/// }
/// ```
///
/// # Panics
/// If something is missing and `HYBRIDWG_REQUIRE_HOST=1`.
#[track_caller]
pub fn skips(programs: &[&str]) -> bool {
    let Some(what) = lacking(programs) else { return false };
    skip(&format!("no {what}"));
    true
}

/// Says that the calling test is skipped, and why.
///
/// # Panics
/// If `HYBRIDWG_REQUIRE_HOST=1`.
#[track_caller]
pub fn skip(why: &str) {
    let required = env::var_os("HYBRIDWG_REQUIRE_HOST").is_some_and(|value| value == "1");
    assert!(!required, "HYBRIDWG_REQUIRE_HOST=1, but this test is skipped: {why}");
    println!("skipped: {why}");
}

/// Puts the binary at `path`.
///
/// By another program: a file that was open for writing here could be so for a moment longer in
/// what another thread has just forked, and would not run ("text file busy").
pub fn copy_binary(path: &Path) {
    let files = [Path::new(env!("CARGO_BIN_EXE_hybridwg")), path];
    assert!(Command::new("cp").args(files).status().is_ok_and(|status| status.success()));
}

/// The first thing that this machine lacks for tests with namespaces, TUN devices and `programs`.
fn lacking(programs: &[&str]) -> Option<String> {
    if !rustix::process::geteuid().is_root() {
        return Some("root: namespaces and interfaces need CAP_SYS_ADMIN and CAP_NET_ADMIN".into());
    }
    if !Path::new("/dev/net/tun").exists() {
        return Some("/dev/net/tun: load the module `tun`, or pass the device on".into());
    }
    let path = env::var_os("PATH").unwrap_or_default();
    // Debian keeps some of them where an unprivileged PATH does not look.
    let folders: Vec<_> =
        env::split_paths(&path).chain(["/usr/sbin".into(), "/sbin".into()]).collect();
    let is_there = |program: &str| folders.iter().any(|folder| folder.join(program).is_file());
    let missing = programs.iter().find(|program| !is_there(program))?;
    Some(format!("`{missing}` in PATH: tests/run.sh names the package"))
}

#[test]
fn a_program_that_is_not_there_is_named() {
    if skips(&["ip"]) {
        return;
    }
    assert_eq!(lacking(&["sh"]), None);
    let what = lacking(&["sh", "no-such-program-4711"]).unwrap();
    assert!(what.contains("`no-such-program-4711`"), "{what}");
}
