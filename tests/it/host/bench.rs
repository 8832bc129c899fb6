//! `hybridwg bench`, on real packets.

use std::fs;
use std::net::SocketAddr;
use std::path::Path;
use std::process::{Command, Output};
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use hybridwg::bench::load::{Outcome, Task, tcp, udp};
use hybridwg::bench::metric::{Group, METRICS, Metric};
use hybridwg::sys::netns::NetNamespace;
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

use super::net::{Host, eventually};
use super::{skip, skips};

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
    // What the namespaces of the benchmark have, not this one.
    let read = || fs::read_to_string("/proc/sys/net/ipv4/tcp_congestion_control").unwrap();
    let congestion = NetNamespace::create().unwrap().run(read).unwrap();
    assert_eq!(report["conditions"]["congestion"], congestion.trim());
    let measured = |participant: &str| -> Vec<String> {
        let samples = report["samples"].as_array().unwrap();
        let ours = samples.iter().filter(|sample| sample["participant"] == participant);
        ours.flat_map(|sample| sample["metrics"].as_object().unwrap().keys().cloned()).collect()
    };
    let ours = measured("hybridwg");
    let is_of_tunnels =
        |metric: &&Metric| metric.group.is_none_or(|group| Group::OF_TUNNELS.contains(&group));
    for metric in METRICS.iter().filter(is_of_tunnels) {
        assert!(ours.contains(&metric.key.to_owned()), "no {}: {told}", metric.key);
    }
    assert!(measured("plain").contains(&"tcp_1".to_owned()), "{told}");
    assert!(!report["latencies"]["hybridwg"]["idle"].as_array().unwrap().is_empty());
}

#[test]
fn every_way_of_a_hub_is_measured_over_an_emulated_path() {
    if skips(&[]) {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name).to_str().unwrap().to_owned();
    let (profile, json) = (path("short.json"), path("new.json"));
    fs::write(&profile, r#"{"delay_ms": 2, "rate_mbit": 100}"#).unwrap();
    let output = bench(&["gateway", "--profile", &profile, "--congestion", "cubic", "--quick"])
        .args(["--groups", "tcp,connect,crowd,flood"])
        .args(["--patience", "0", "--rounds", "1", "--json", &json])
        .output()
        .unwrap();
    let told = text(&output);
    assert!(output.status.success(), "{told}");
    let report = report(Path::new(&json));
    assert_eq!(report["conditions"]["path"], "short.json, then a hub");
    assert_eq!(report["conditions"]["congestion"], "cubic");
    for way in ["flow", "nft", "routed"] {
        let of_way = |metric: &Metric| {
            let lines = report["summaries"].as_array().unwrap();
            let mut own = lines.iter().filter(|line| line["participant"] == way);
            own.any(|line| line["metric"] == metric.key)
        };
        let is_of_gateways = |metric: &&Metric| {
            let is_of_gateways = |group| group != Group::Udp && Group::OF_GATEWAYS.contains(&group);
            metric.group.is_some_and(is_of_gateways)
        };
        for metric in METRICS.iter().filter(is_of_gateways) {
            assert!(of_way(metric), "{way}: no {}: {told}", metric.key);
        }
    }
}

#[test]
fn a_run_that_is_worse_than_an_earlier_one_ends_with_status_3() {
    if skips(&[]) {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("old.json");
    let json = path.to_str().unwrap();
    let arguments = ["--rounds", "4", "--groups", "handshake"];
    let output = bench(&QUICK).args(arguments).args(["--json", json]).output().unwrap();
    assert!(output.status.success(), "{}", text(&output));

    // With itself of another day: much faster than it can be, and much slower, whatever else this
    // machine is busy with.
    for (factor, status) in [(1000.0, 3), (0.001, 0)] {
        let mut earlier = report(&path);
        for sample in earlier["samples"].as_array_mut().unwrap() {
            for (metric, factor) in [("handshakes", factor), ("start", 1.0 / factor)] {
                if let Some(value) = sample["metrics"].get_mut(metric) {
                    *value = (value.as_f64().unwrap() * factor).into();
                }
            }
        }
        let old = folder.path().join("changed.json");
        fs::write(&old, earlier.to_string()).unwrap();
        let compare = ["--compare", old.to_str().unwrap(), "--tolerance", "60"];
        let output = bench(&QUICK).args(arguments).args(compare).output().unwrap();
        assert_eq!(output.status.code(), Some(status), "{}", text(&output));
    }

    let of_others = ["--compare", json, "--groups", "udp"];
    let output = bench(&QUICK).args(of_others).output().unwrap();
    assert_eq!(output.status.code(), Some(2), "nothing in common: {}", text(&output));
    assert!(text(&output).contains("measured in handshake"), "{}", text(&output));
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
    assert!(!text(&output).contains("ended with"), "that it was ended is told: {}", text(&output));
    eventually("all processes have ended", Duration::from_secs(5), || {
        family.iter().all(|process| !Path::new(&format!("/proc/{process}")).exists())
    });
    assert_eq!(namespaces(), before);
    assert!(!Path::new("/var/run/hybridwg-bench").exists(), "files of the run are outside");
}

#[test]
fn whatever_ends_a_run_ends_all_that_it_started() {
    if skips(&[]) {
        return;
    }
    for signal in [Signal::TERM, Signal::KILL] {
        let mut command = bench(&QUICK);
        command.args(["--rounds", "1000", "--groups", "latency"]);
        command.stdout(std::process::Stdio::null()).stderr(std::process::Stdio::null());
        let mut run = command.spawn().unwrap();
        let mut family = Vec::new();
        // Itself, process 1 inside, and the load generators at least.
        eventually("it is at work", Duration::from_secs(30), || {
            family = descendants(run.id());
            family.len() >= 4
        });
        kill_process(Pid::from_raw(run.id().cast_signed()).unwrap(), signal).unwrap();
        assert!(!run.wait().unwrap().success());
        eventually("all processes have ended", Duration::from_secs(20), || {
            family.iter().all(|process| !Path::new(&format!("/proc/{process}")).exists())
        });
    }
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
        .args([
            "--groups",
            "handshake",
            "--impl",
            "broken=/bin/echo no such thing as /bin/echo {tun}",
        ])
        .args(["--only", "hybridwg,broken"])
        .output()
        .unwrap();
    let told = text(&output);
    assert!(output.status.success(), "{told}");
    assert!(told.contains("broken tunnel: echo ended with"), "{told}");
    assert!(told.contains("it printed: no such thing as echo"), "without its folder: {told}");
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
        (&["gateway", "--groups", "latency"], "it can be tcp, udp, connect, crowd, flood"),
        (&["tunnel", "--impl", "x"], "it must be NAME='COMMAND'"),
        (&["tunnel", "--compare", "/dev/null"], "is no result of this version"),
        (&["tunnel", "--json", "/var/run/x.json"], "choose another folder"),
        (&["tunnel", "--compare", "/var/run/x.json"], "choose another folder"),
        (&["tunnel", "--json", "/proc/x.json"], "cannot write /proc/x.json"),
        (&["tunnel", "--compare", "/dev/null", "--tolerance", "NaN"], "it can be 0 to 1000"),
    ] {
        let output = bench(arguments).output().unwrap();
        assert_eq!(output.status.code(), Some(2), "{arguments:?}: {}", text(&output));
        assert!(text(&output).contains(words), "{arguments:?}: {}", text(&output));
    }
}

/// Two hosts on a wire that carries so many megabits a second; nothing if this kernel cannot.
fn slow_wire(megabits: u32) -> Option<[Host; 2]> {
    let [near, far] = [Host::new(), Host::new()];
    let (port, _) = near.wire(&format!("{NEAR}/24"), &far, &format!("{FAR}/24"));
    let limit =
        format!("tc qdisc add dev {port} root tbf rate {megabits}mbit burst 64kb latency 50ms");
    near.try_sh(&limit).status.success().then_some([near, far])
}

const NEAR: &str = "192.0.2.1";
const FAR: &str = "192.0.2.2";

/// What iperf3 says of a second and a half from near to far: the named field of its sum.
fn iperf3([near, far]: &[Host; 2], arguments: &str, sum: &str, field: &str) -> f64 {
    let mut server = Command::new("iperf3");
    server.args(["-s", "-1", "-B", FAR]);
    let _server = far.spawn(server);
    let listens = || far.try_sh("ss -Hltn sport = :5201").stdout.len() > 10;
    eventually("iperf3 listens", Duration::from_secs(10), listens);
    let told = near.sh(&format!("iperf3 -c {FAR} -J -t 2 -O 1 {arguments}"));
    let told: Value = serde_json::from_str(&told).unwrap();
    told["end"][sum][field].as_f64().unwrap_or_else(|| panic!("no {field}: {}", told["end"]))
}

/// What a generator of ours receives at the far end from one at the near end.
fn ours([near, far]: &[Host; 2], receive: &Task, send: impl FnOnce(SocketAddr) -> Task) -> Outcome {
    let (told, port) = mpsc::channel();
    thread::scope(|scope| {
        let receiving =
            scope.spawn(|| far.run(|| receive.run(&mut |port| told.send(port).unwrap())));
        let to = SocketAddr::new(FAR.parse().unwrap(), port.recv().unwrap());
        let task = send(to);
        near.run(|| task.run(&mut |_| ())).unwrap();
        receiving.join().unwrap().unwrap()
    })
}

fn assert_close(what: &str, ours: f64, theirs: f64) {
    let ratio = ours / theirs;
    assert!((0.95..1.05).contains(&ratio), "{what}: ours {ours}, iperf3 {theirs}");
}

#[test]
fn our_generators_agree_with_iperf3_within_five_percent() {
    if skips(&["ip", "tc", "ss", "iperf3"]) {
        return;
    }
    let Some(hosts) = slow_wire(100) else { return skip("no tbf in this kernel") };
    let receive = tcp::Receive {
        meeting: tcp::Meeting::Listen(FAR.parse().unwrap()),
        streams: 1,
        counting: tcp::Counting {
            warm_up: Duration::from_secs(1),
            duration: Duration::from_secs(2),
            bucket: Duration::from_millis(100),
        },
    };
    let outcome = ours(&hosts, &Task::TcpReceive(receive), |to| {
        Task::TcpSend(tcp::Send {
            meeting: tcp::Meeting::Connect(to),
            streams: 1,
            filling: tcp::Filling { limit: Duration::from_secs(30), rate: None },
            congestion: None,
        })
    });
    let Outcome::TcpReceived(received) = outcome else { panic!("{outcome:?}") };
    let theirs = iperf3(&hosts, "", "sum_received", "bits_per_second");
    assert_close("TCP", received.bits_per_second(), theirs);

    // Half of what the wire carries: nothing is lost, and both must have sent what they said.
    let (payload_bytes, packets_per_second) = (1000, 6250.0);
    let receive = Task::UdpReceive(udp::Receive { limit: Duration::from_secs(30) });
    let duration = Duration::from_secs(2);
    let outcome = ours(&hosts, &receive, |to| {
        Task::UdpSend(udp::Send { to, payload_bytes, packets_per_second, duration })
    });
    let Outcome::UdpReceived(received) = outcome else { panic!("{outcome:?}") };
    let ours = received.bytes as f64 * 8.0 / duration.as_secs_f64();
    let theirs = iperf3(&hosts, "-u -b 50M -l 1000", "sum", "bits_per_second");
    assert_close("UDP", ours, theirs);
}

#[test]
fn a_path_has_the_delay_and_the_rate_of_its_profile() {
    if skips(&[]) {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name).to_str().unwrap().to_owned();
    let (profile, json) = (path("slow.json"), path("result.json"));
    fs::write(&profile, r#"{"delay_ms": 10, "rate_mbit": 50, "queue_kb": 300}"#).unwrap();
    let output = bench(&["path", "--profile", &profile, "--quick", "--patience", "0"])
        .args(["--only", "hybridwg,plain", "--rounds", "1", "--groups", "tcp,latency"])
        .args(["--json", &json])
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", text(&output));
    let report = report(Path::new(&json));
    assert_eq!(report["conditions"]["path"], "slow.json");
    let value = |metric: &str| {
        let lines = report["summaries"].as_array().unwrap();
        let ours = |line: &&Value| line["metric"] == metric && line["participant"] == "hybridwg";
        lines.iter().find(ours).expect(metric)["summary"]["median"].as_f64().unwrap()
    };
    // The shortest, which a busy machine delays least.
    let shortest = report["latencies"]["hybridwg"]["idle"][0][0].as_u64().unwrap();
    assert!((20_000_000..60_000_000).contains(&shortest), "{shortest} ns: {}", text(&output));
    assert!((0.01..0.05).contains(&value("tcp_n")), "{}", text(&output));
}

#[test]
fn a_wire_that_cuts_carries_a_tunnel() {
    if skips(&[]) {
        return;
    }
    let output = bench(&QUICK)
        .args(["--rounds", "1", "--groups", "handshake", "--wire", "cut"])
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", text(&output));
    assert!(text(&output).contains("handshakes answered"), "{}", text(&output));
}

#[test]
fn ceilings_are_told_with_and_without_a_tunnel() {
    if skips(&[]) {
        return;
    }
    let output = bench(&["crypto", "--seconds", "1", "--rounds", "0"]).output().unwrap();
    assert!(output.status.success(), "{}", text(&output));
    assert!(text(&output).contains("seal 1420 bytes"), "{}", text(&output));
}

/// The page of a run that never was, as a browser shows it: charts in the colours of who takes part
/// are on it, on a light ground and on a dark one.
#[test]
fn the_page_shows_its_charts_in_a_browser_in_light_and_dark() {
    if skips(&["chromium"]) {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name).to_str().unwrap().to_owned();
    let (json, page, shot) = (path("new.json"), path("page.html"), path("shot.png"));
    let output = bench(&QUICK)
        .args(["--rounds", "1", "--groups", "tcp", "--json", &json, "--html", &page])
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", text(&output));
    let html = fs::read_to_string(&page).unwrap();
    for (dark, ground) in [(false, [0xfb, 0xfb, 0xfa]), (true, [0x14, 0x17, 0x1a])] {
        // Headless, it has no system to ask which of both is wanted.
        let wanted = if dark { "screen" } else { "not all" };
        fs::write(&page, html.replace("(prefers-color-scheme:dark)", wanted)).unwrap();
        let output = Command::new("chromium")
            .args(["--headless", "--no-sandbox", "--disable-gpu", "--hide-scrollbars"])
            .args(["--window-size=1000,1400", &format!("--user-data-dir={}", path("profile"))])
            .args([&format!("--screenshot={shot}"), &format!("file://{page}")])
            .output()
            .unwrap();
        assert!(Path::new(&shot).exists(), "{}", text(&output));
        let pixels = pixels(&shot);
        fs::remove_file(&shot).unwrap();
        let share = |colour: [u8; 3]| {
            let same = pixels.chunks_exact(3).filter(|pixel| **pixel == colour);
            same.count() as f64 / (pixels.len() / 3) as f64
        };
        assert!(share(ground) > 0.05, "the ground is another: dark {dark}");
        let key = if dark { [0x6a, 0xae, 0xfc] } else { [0x16, 0x68, 0xc7] };
        assert!(share(key) > 0.0, "our colour is not in the legend: dark {dark}");
        // Bars are let through by half, so that their colour is one of their own.
        let bluish = pixels.chunks_exact(3).filter(|p| p[2] > p[0].saturating_add(40)).count();
        assert!(bluish > 2000, "no bar of ours is seen: dark {dark}, {bluish}");
    }
}

/// Red, green and blue of each pixel of a PNG file.
fn pixels(path: &str) -> Vec<u8> {
    let decoder = png::Decoder::new(std::io::BufReader::new(fs::File::open(path).unwrap()));
    let mut reader = decoder.read_info().unwrap();
    let mut buffer = vec![0; reader.output_buffer_size().unwrap()];
    let info = reader.next_frame(&mut buffer).unwrap();
    assert_eq!(info.bit_depth, png::BitDepth::Eight);
    let bytes = info.color_type.samples();
    let colours = buffer[..info.buffer_size()].chunks_exact(bytes);
    colours.flat_map(|pixel| pixel[..3].to_vec()).collect()
}
