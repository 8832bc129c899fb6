//! `hybridwg bench`, on real packets.

use std::fs;
use std::path::Path;
use std::process::{Command, Output};
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

use super::net::eventually;
use super::skips;

fn bench(arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_hybridwg"));
    // What else is installed here is not what these tests are about.
    command.arg("bench").args(arguments).env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin");
    command
}

fn text(output: &Output) -> String {
    let both = [&output.stdout[..], &output.stderr[..]].concat();
    String::from_utf8_lossy(&both).into_owned()
}

fn report(path: &Path) -> Value {
    serde_json::from_str(&fs::read_to_string(path).unwrap()).unwrap()
}

const QUICK: [&str; 6] = ["tunnel", "--quick", "--patience", "0", "--only", "hybridwg,plain"];

#[test]
fn a_quick_run_measures_everything_and_says_what_it_knows() {
    if skips(&[]) {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("new.json");
    let json = path.to_str().unwrap();
    let output = bench(&QUICK).args(["--rounds", "1", "--json", json]).output().unwrap();
    let told = text(&output);
    assert!(output.status.success(), "{told}");
    assert!(told.contains("TCP, 1 stream") && told.contains("hybridwg"), "{told}");
    assert!(told.contains("too few"), "one round allows no verdict: {told}");

    let report = report(&path);
    assert_eq!(report["schema"], "hybridwg-bench/1");
    let measured = |participant: &str| -> Vec<String> {
        let samples = report["samples"].as_array().unwrap();
        let ours = samples.iter().filter(|sample| sample["participant"] == participant);
        ours.flat_map(|sample| sample["metrics"].as_object().unwrap().keys().cloned()).collect()
    };
    let ours = measured("hybridwg");
    for metric in hybridwg::bench::metric::METRICS {
        assert!(ours.contains(&metric.key.to_owned()), "no {}: {told}", metric.key);
    }
    assert!(measured("plain").contains(&"tcp_1".to_owned()), "{told}");
    assert!(!report["latencies"]["hybridwg"]["idle"].as_array().unwrap().is_empty());
}

#[test]
fn a_run_that_is_worse_than_an_earlier_one_ends_with_status_3() {
    if skips(&[]) {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("old.json");
    let json = path.to_str().unwrap();
    let arguments = ["--rounds", "3", "--groups", "handshake"];
    let output = bench(&QUICK).args(arguments).args(["--json", json]).output().unwrap();
    assert!(output.status.success(), "{}", text(&output));

    // With itself of another day: ten times as fast as it can be, and a tenth.
    for (factor, status) in [(10.0, 3), (0.1, 0)] {
        let mut earlier = report(&path);
        for sample in earlier["samples"].as_array_mut().unwrap() {
            if let Some(value) = sample["metrics"].get_mut("handshakes") {
                *value = (value.as_f64().unwrap() * factor).into();
            }
        }
        let old = folder.path().join("changed.json");
        fs::write(&old, earlier.to_string()).unwrap();
        let compare = ["--compare", old.to_str().unwrap(), "--tolerance", "60"];
        let output = bench(&QUICK).args(arguments).args(compare).output().unwrap();
        assert_eq!(output.status.code(), Some(status), "{}", text(&output));
    }
}

#[test]
fn two_runs_at_once_do_not_collide_and_an_interrupted_one_leaves_nothing() {
    if skips(&[]) {
        return;
    }
    let namespaces = || fs::read_link("/proc/self/ns/net").unwrap();
    let before = namespaces();
    let run = |rounds| {
        let mut command = bench(&QUICK);
        command.args(["--rounds", rounds, "--groups", "latency"]);
        command.stdout(std::process::Stdio::piped()).stderr(std::process::Stdio::piped());
        command.spawn().unwrap()
    };
    let endless = run("1000");
    let short = run("1").wait_with_output().unwrap();
    assert!(short.status.success(), "{}", text(&short));

    // Its process 1 is its only child; all others are below that.
    let family = descendants(endless.id());
    assert!(family.len() >= 2, "{family:?}");
    for &process in &family {
        // As Ctrl-C does: to everybody in the foreground.
        let _ = kill_process(Pid::from_raw(process.cast_signed()).unwrap(), Signal::INT);
    }
    let output = endless.wait_with_output().unwrap();
    assert_eq!(output.status.code(), Some(1), "{}", text(&output));
    assert!(text(&output).contains("interrupted"), "{}", text(&output));
    eventually("all processes have ended", Duration::from_secs(5), || {
        family.iter().all(|process| !Path::new(&format!("/proc/{process}")).exists())
    });
    assert_eq!(namespaces(), before);
    assert!(!Path::new("/var/run/hybridwg-bench").exists(), "files of the run are outside");
}

/// A process and all below it.
fn descendants(process: u32) -> Vec<u32> {
    let mut found = vec![process];
    let children = fs::read_to_string(format!("/proc/{process}/task/{process}/children"));
    for child in children.unwrap_or_default().split_whitespace() {
        found.extend(descendants(child.parse().unwrap()));
    }
    found
}

#[test]
fn a_program_that_does_not_work_is_told_and_the_others_are_measured() {
    if skips(&[]) {
        return;
    }
    let output = bench(&["tunnel", "--quick", "--patience", "0", "--rounds", "1"])
        .args(["--groups", "handshake", "--impl", "broken=echo no such thing {tun}"])
        .args(["--only", "hybridwg,broken"])
        .output()
        .unwrap();
    let told = text(&output);
    assert!(output.status.success(), "{told}");
    assert!(told.contains("broken tunnel: echo ended with"), "{told}");
    assert!(told.contains("it printed: no such thing"), "{told}");
    assert!(told.contains("handshakes answered"), "{told}");
}

#[test]
fn wrong_usage_is_refused_before_anything_is_measured() {
    if skips(&[]) {
        return;
    }
    for (arguments, words) in [
        (&["tunnel", "--only", "nobody"][..], "there is no `nobody` here"),
        (&["tunnel", "--groups", "tpc"], "--groups tpc: it can be tcp, udp"),
        (&["tunnel", "--impl", "x"], "it must be NAME='COMMAND'"),
        (&["tunnel", "--compare", "/dev/null"], "is no result of this version"),
        (&["tunnel", "--json", "/var/run/x.json"], "choose another folder"),
    ] {
        let output = bench(arguments).output().unwrap();
        assert_eq!(output.status.code(), Some(2), "{arguments:?}: {}", text(&output));
        assert!(text(&output).contains(words), "{arguments:?}: {}", text(&output));
    }
}
