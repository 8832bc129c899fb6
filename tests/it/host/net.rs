//! Hosts made of network namespaces, wired by veth pairs, and the programs that run on them.
//!
//! The namespaces have no names: they go with the last process, socket and descriptor inside. What
//! runs inside ends when its [`Process`] or its [`Host`] is dropped, so also when a test panics.

use std::fs::{self, File};
use std::io::{Read, Seek, SeekFrom, Write};
use std::os::fd::{AsFd, AsRawFd};
use std::os::unix::fs::MetadataExt;
use std::process::{Child, Command, Output, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::thread;
use std::time::Duration;

use hybridwg::sys::clock;
use hybridwg::sys::netns::NetNamespace;
use rustix::process::{Pid, Signal, kill_process};

/// How often a condition is looked at.
const POLL_EVERY: Duration = Duration::from_millis(10);

/// A name that no other test of this machine has: at most 13 bytes, so that it fits an interface.
pub fn unique(prefix: &str) -> String {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    format!("{prefix}{}n{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed))
}

/// Waits until `condition` holds.
///
/// # Panics
/// When it does not within `limit`; the message says `what`.
#[track_caller]
pub fn eventually(what: &str, limit: Duration, condition: impl FnMut() -> bool) {
    assert!(holds_within(limit, condition), "not within {limit:?}: {what}");
}

/// As [`eventually`], telling instead of panicking.
pub fn holds_within(limit: Duration, mut condition: impl FnMut() -> bool) -> bool {
    let started = clock::now().mono;
    loop {
        if condition() {
            return true;
        }
        if clock::now().mono.since(started) > limit {
            return false;
        }
        pause(POLL_EVERY);
    }
}

/// Lets time pass where time itself is what a test is about: pacing, and looking again.
#[expect(clippy::disallowed_methods, reason = "between two looks at a condition with a deadline")]
pub fn pause(duration: Duration) {
    thread::sleep(duration);
}

/// One machine: a network namespace with loopback up.
#[derive(Debug)]
pub struct Host {
    namespace: NetNamespace,
    ports: AtomicU32,
}

impl Host {
    pub fn new() -> Self {
        let namespace = NetNamespace::create().expect("root makes namespaces");
        let host = Self { namespace, ports: AtomicU32::new(0) };
        host.sh("ip link set lo up");
        host
    }

    /// Runs `work` on a thread inside; sockets it makes stay inside.
    pub fn run<T: Send>(&self, work: impl FnOnce() -> T + Send) -> T {
        self.namespace.run(work).expect("root enters namespaces")
    }

    /// Runs a command line (split at blanks) and returns its standard output.
    ///
    /// # Panics
    /// If it fails, with what it printed.
    #[track_caller]
    pub fn sh(&self, line: &str) -> String {
        let output = self.try_sh(line);
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        let (out, err) = (text(&output.stdout), text(&output.stderr));
        assert!(output.status.success(), "`{line}` failed ({}):\n{out}{err}", output.status);
        out
    }

    pub fn try_sh(&self, line: &str) -> Output {
        let mut words = line.split_whitespace();
        let mut command = Command::new(words.next().expect("a command line"));
        command.args(words);
        self.output(command)
    }

    /// Runs `command` to its end with nothing on its standard input.
    pub fn output(&self, mut command: Command) -> Output {
        command.stdin(Stdio::null());
        self.run(move || command.output()).expect("the program runs")
    }

    /// Runs `command` with `input` on its standard input.
    #[track_caller]
    pub fn feed(&self, mut command: Command, input: &str) -> String {
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = self.run(|| command.spawn()).expect("the program runs");
        let mut pipe = child.stdin.take().expect("it was asked for");
        pipe.write_all(input.as_bytes()).expect("the program reads its input");
        drop(pipe);
        let output = child.wait_with_output().expect("the program ends");
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        assert!(output.status.success(), "{command:?}: {}", text(&output.stderr));
        text(&output.stdout)
    }

    /// Starts `command` in the background; it ends when the [`Process`] is dropped.
    pub fn spawn(&self, mut command: Command) -> Process {
        let log = tempfile::tempfile().expect("a temporary file");
        let (out, err) = (log.try_clone().expect("a copy"), log.try_clone().expect("a copy"));
        command.stdin(Stdio::null()).stdout(out).stderr(err);
        let name = format!("{command:?}");
        let child = self.run(move || command.spawn()).expect("the program runs");
        Process { child, log, name }
    }

    /// Wires this host to `other` with a veth pair. Each end's addresses are separated by blanks.
    pub fn wire(&self, addresses: &str, other: &Self, others: &str) -> (String, String) {
        let (mine, theirs) = (self.next_port(), other.next_port());
        // The path of a namespace must be one that `ip` can open: our descriptor, by our process.
        let number = other.namespace.as_fd().as_raw_fd();
        let path = format!("/proc/{}/fd/{number}", std::process::id());
        self.sh(&format!("ip link add {mine} type veth peer name {theirs} netns {path}"));
        for (host, port, addresses) in [(self, &mine, addresses), (other, &theirs, others)] {
            // The link-local address shall not change its state while a test compares. A machine
            // without IPv6 has no such switch.
            let switch = format!("/proc/sys/net/ipv6/conf/{port}/accept_dad");
            drop(host.run(|| fs::write(switch, "0")));
            for address in addresses.split_whitespace() {
                let nodad = if address.contains(':') { "nodad" } else { "" };
                host.sh(&format!("ip address add {address} dev {port} {nodad}"));
            }
            host.sh(&format!("ip link set {port} up"));
        }
        (mine, theirs)
    }

    fn next_port(&self) -> String {
        let number = self.ports.fetch_add(1, Ordering::Relaxed);
        format!("eth{number}")
    }

    /// Turns this host into a router.
    pub fn forward(&self) {
        self.set("net/ipv4/ip_forward", "1");
        self.set("net/ipv6/conf/all/forwarding", "1");
    }

    /// Sets a kernel parameter below `/proc/sys`.
    pub fn set(&self, parameter: &str, value: &str) {
        self.run(|| fs::write(format!("/proc/sys/{parameter}"), value)).expect(parameter);
    }

    /// Whether one echo request to `address` is answered within a second.
    pub fn pings(&self, address: &str) -> bool {
        self.try_sh(&format!("ping -n -q -c 1 -W 1 {address}")).status.success()
    }

    /// The processes inside, but for this one.
    fn processes(&self) -> Vec<Pid> {
        let inside = rustix::fs::fstat(&self.namespace).expect("a descriptor that is open").st_ino;
        let entries = fs::read_dir("/proc").expect("it is mounted").filter_map(Result::ok);
        let processes = entries.filter_map(|entry| {
            let number: u32 = entry.file_name().to_str()?.parse().ok()?;
            // Fails if it has just ended.
            let namespace = fs::metadata(entry.path().join("ns/net")).ok()?;
            (namespace.ino() == inside && number != std::process::id()).then_some(number)
        });
        processes.filter_map(|number| Pid::from_raw(i32::try_from(number).ok()?)).collect()
    }
}

impl Drop for Host {
    /// Daemons in the background are nobody's children, and would keep the namespace.
    fn drop(&mut self) {
        let all = |signal| {
            for process in self.processes() {
                let _ = kill_process(process, signal);
            }
        };
        all(Signal::TERM);
        if !holds_within(Duration::from_secs(3), || self.processes().is_empty()) {
            all(Signal::KILL);
        }
    }
}

/// The process of the daemon that `up` has started.
pub fn daemon_of(interface: &str) -> Pid {
    let name = format!("--\0{interface}\0");
    let is_it = |entry: &fs::DirEntry| {
        let line = fs::read(entry.path().join("cmdline")).unwrap_or_default();
        String::from_utf8_lossy(&line).ends_with(&name)
    };
    let found = fs::read_dir("/proc").expect("it is mounted").filter_map(Result::ok).find(is_it);
    let number = found.and_then(|entry| entry.file_name().to_str()?.parse().ok());
    number.and_then(Pid::from_raw).expect("the daemon runs")
}

/// A program in the background.
#[derive(Debug)]
pub struct Process {
    child: Child,
    log: File,
    name: String,
}

impl Process {
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// Whether it still runs.
    pub fn is_alive(&mut self) -> bool {
        matches!(self.child.try_wait(), Ok(None))
    }

    /// What it has printed so far.
    pub fn log(&mut self) -> String {
        let mut text = Vec::new();
        self.log.seek(SeekFrom::Start(0)).expect("a file");
        self.log.read_to_end(&mut text).expect("a file");
        String::from_utf8_lossy(&text).into_owned()
    }

    /// Asks it to end, as `kill` does.
    pub fn terminate(&self) {
        // It may have ended already, and is ours until waited for: the number is not another's.
        let _ = kill_process(Pid::from_child(&self.child), Signal::TERM);
    }

    /// Ends it at once and waits.
    pub fn kill(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.terminate();
        if !holds_within(Duration::from_secs(3), || !self.is_alive()) {
            self.kill();
        }
        if thread::panicking() {
            let log = self.log();
            println!("--- {}\n{log}", self.name);
        }
    }
}
