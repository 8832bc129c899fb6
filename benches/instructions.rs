//! How many instructions a packet costs, counted by valgrind: a number that is the same on a busy
//! machine, so that a slower path cannot hide in the noise of a clock.
//!
//! The program runs itself under `valgrind --tool=callgrind` with few turns of a shard and with many;
//! the difference is what the turns cost. With `--bench`, as `cargo bench` runs it, a count that
//! differs from the one recorded below by more than 3 % is a failure: a regression to mend, or an
//! improvement to record. Without, as under `cargo test`, every path runs once and natively.

use std::error::Error;
use std::process::{Command, ExitCode};

use crate::node::{Inbound, Load, Outbound};

mod node;

/// What the recorded numbers hold for, beside x86-64 with AVX2 and no more: valgrind hides AVX-512.
/// They were counted with Debian 12's valgrind 3.19, gcc 12 and glibc 2.36. Repeated counts agree
/// within 0.01 %, so the random keys of the hash tables on the path do not show.
const COMPILER: &str = "rustc 1.95.0";

/// A path, and how many instructions each packet costs on it.
struct Path {
    name: &'static str,
    direction: Direction,
    load: Load,
    recorded: f64,
}

#[derive(Clone, Copy, Debug)]
enum Direction {
    Outbound,
    Inbound,
}

const PATHS: [Path; 4] = [
    Path {
        name: "outbound-train",
        direction: Direction::Outbound,
        load: Load::Train,
        recorded: 10224.9,
    },
    Path {
        name: "outbound-lone",
        direction: Direction::Outbound,
        load: Load::Lone,
        recorded: 3315.1,
    },
    Path {
        name: "inbound-train",
        direction: Direction::Inbound,
        load: Load::Train,
        recorded: 10011.1,
    },
    Path {
        name: "inbound-lone",
        direction: Direction::Inbound,
        load: Load::Lone,
        recorded: 2966.3,
    },
];

/// Configured peers, of whom one is active.
const PEERS: u32 = 10;

/// Greatest deviation from what is recorded, as a share of it.
const TOLERANCE: f64 = 0.03;

/// What the program is called with by itself: then the name of a path, and a number of turns.
const TAKE: &str = "--take-turns";

impl Path {
    const fn few(&self) -> usize {
        self.many() / 10
    }

    const fn many(&self) -> usize {
        match self.load {
            Load::Train => 50,
            Load::Lone => 2000,
        }
    }

    /// Takes `turns` turns, up to [`Self::many`].
    fn take(&self, turns: usize) {
        let packets = match self.direction {
            Direction::Outbound => {
                let mut shard = Outbound::new(self.load, PEERS);
                (0..turns).for_each(|_| shard.turn());
                shard.datagrams()
            }
            Direction::Inbound => {
                let (mut shard, mut remote) = Inbound::new(self.load, PEERS);
                // As many for few turns as for many, so that making them makes no difference.
                remote.send(self.many());
                (0..turns).for_each(|_| shard.turn());
                shard.packets()
            }
        };
        assert_eq!(packets, turns * self.load.packets());
    }

    /// Instructions a packet.
    fn measure(&self) -> Result<f64, Box<dyn Error>> {
        let [few, many] = [self.few(), self.many()];
        let instructions = self.count(many)?.checked_sub(self.count(few)?);
        let instructions = instructions.ok_or("more turns cost less")?;
        Ok(instructions as f64 / ((many - few) * self.load.packets()) as f64)
    }

    /// Instructions of a whole process that takes `turns` turns.
    fn count(&self, turns: usize) -> Result<u64, Box<dyn Error>> {
        let folder = tempfile::tempdir()?;
        let out_file = folder.path().join("callgrind.out");
        let output = Command::new("valgrind")
            .arg("--tool=callgrind")
            .arg(format!("--callgrind-out-file={}", out_file.display()))
            .arg(std::env::current_exe()?)
            .args([TAKE, self.name, &turns.to_string()])
            .output()?;
        let said = String::from_utf8_lossy(&output.stderr);
        if !output.status.success() {
            return Err(format!("valgrind: {}: {said}", output.status).into());
        }
        let collected = said.lines().find_map(|line| line.split_once("Collected : "));
        let (_, count) = collected.ok_or_else(|| format!("valgrind gave no count: {said}"))?;
        Ok(count.trim().parse()?)
    }
}

/// Why nothing can be compared here, if nothing can.
fn obstacle() -> Option<String> {
    let runs = |program: &str| Command::new(program).arg("--version").output().ok();
    if runs("valgrind").is_none() {
        return Some("valgrind is not installed".into());
    }
    if !has_avx2() {
        return Some("the recorded numbers are for x86-64 with AVX2, which this is not".into());
    }
    let compiler = std::env::var("RUSTC").unwrap_or_else(|_| "rustc".into());
    let version =
        runs(&compiler).map(|output| String::from_utf8_lossy(&output.stdout).into_owned());
    match version {
        Some(version) if version.starts_with(&format!("{COMPILER} ")) => None,
        version => {
            let this = version.as_deref().map_or("unknown", str::trim);
            Some(format!("the recorded numbers are for {COMPILER}, and this is {this}"))
        }
    }
}

#[cfg(target_arch = "x86_64")]
fn has_avx2() -> bool {
    is_x86_feature_detected!("avx2")
}

#[cfg(not(target_arch = "x86_64"))]
fn has_avx2() -> bool {
    false
}

/// Counts every path; false if one differs too much.
#[expect(clippy::print_stdout, reason = "the result of a benchmark")]
fn compare() -> Result<bool, Box<dyn Error>> {
    let mut all_as_recorded = true;
    for path in &PATHS {
        let counted = path.measure()?;
        let deviation = counted / path.recorded - 1.0;
        println!(
            "{}: {counted:.1} instructions a packet, recorded {:.1} ({:+.2} %)",
            path.name,
            path.recorded,
            100.0 * deviation
        );
        if deviation.abs() > TOLERANCE {
            all_as_recorded = false;
            println!(
                "{}: more than {:.0} % from what is recorded. Mend what makes it slower; or, if the \
                 change is meant, record it: in PATHS of benches/instructions.rs, `recorded: \
                 {counted:.1}`, and say why in the commit.",
                path.name,
                100.0 * TOLERANCE
            );
        }
    }
    Ok(all_as_recorded)
}

#[expect(clippy::print_stdout, reason = "what tests/run.sh counts")]
fn run(arguments: &[String]) -> Result<ExitCode, Box<dyn Error>> {
    if let [take, name, turns] = arguments
        && take == TAKE
    {
        let path = PATHS.iter().find(|path| path.name == name).ok_or("no such path")?;
        path.take(turns.parse()?);
        return Ok(ExitCode::SUCCESS);
    }
    if !arguments.iter().any(|argument| argument == "--bench") {
        PATHS.iter().for_each(|path| path.take(1));
    } else if let Some(why) = obstacle() {
        println!("skipped: {why}");
    } else if !compare()? {
        return Ok(ExitCode::FAILURE);
    }
    // As criterion says it.
    println!("Success");
    Ok(ExitCode::SUCCESS)
}

fn main() -> Result<ExitCode, Box<dyn Error>> {
    run(&std::env::args().skip(1).collect::<Vec<_>>())
}
