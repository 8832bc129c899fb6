//! A whole run: unit by unit, each on a tunnel of its own, with what else the machine did.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::time::Duration;

use super::error::BenchError;
use super::implementation::Implementation;
use super::latencies::Latencies;
use super::machine::{self, Machine, Ticks};
use super::measure::{self, Measured};
use super::metric::Group;
use super::plan::{self, Unit};
use super::report::{Conditions, Participant, Report, SCHEMA, Sample, date};
use super::settings::{Congestion, Settings};
use super::topology::{Tunnel, Wire};
use crate::control::interrupt::Interrupt;
use crate::sys::netns::NetNamespace;
use crate::sys::{clock, tcp};

/// What is to be measured.
#[derive(Clone, Debug)]
pub struct Run<'a> {
    /// The first is compared with each of the others.
    pub implementations: &'a [Implementation],
    pub rounds: u32,
    pub groups: &'a [Group],
    pub settings: &'a Settings,
    /// A folder that nobody else reads.
    pub files: &'a Path,
    /// What was typed.
    pub command: String,
    pub is_quick: bool,
    /// What lies between the namespaces, by its name.
    pub path: String,
}

/// Somebody who watches.
pub trait Watcher {
    /// So many measurements there will be.
    fn begins(&mut self, units: usize);
    /// The next one, and how many came before it.
    fn measures(&mut self, done: usize, unit: Unit, name: &str);
    /// Others use so much of the processors, in percent: it waits for them.
    fn waits(&mut self, busy_percent: f64);
    fn measured(&mut self, sample: &Sample);
}

/// Measures. An interruption ends it early, and what was measured until then is in the report;
/// whether it did is the second result.
///
/// # Errors
/// This machine cannot be described.
pub fn run(
    run: &Run<'_>,
    watcher: &mut dyn Watcher,
    interrupt: &Interrupt,
) -> Result<(Report, bool), BenchError> {
    let mut report = empty(run)?;
    let units = plan::units(run.rounds, run.groups, run.implementations.len());
    watcher.begins(units.len());
    let mut was_interrupted = false;
    for (done, &unit) in units.iter().enumerate() {
        let implementation = &run.implementations[unit.implementation];
        watcher.measures(done, unit, &implementation.name);
        match measure_unit(run, unit, implementation, watcher, interrupt) {
            Ok((sample, latencies)) => {
                watcher.measured(&sample);
                let all = report.latencies.entry(implementation.name.clone()).or_default();
                for (when, times) in latencies {
                    all.entry(when).or_default().merge(&times);
                }
                report.samples.push(sample);
            }
            Err(BenchError::Interrupted) => {
                was_interrupted = true;
                break;
            }
            Err(error) => return Err(error),
        }
    }
    report.summarize();
    Ok((report, was_interrupted))
}

/// Nothing measured yet.
fn empty(run: &Run<'_>) -> Result<Report, BenchError> {
    let machine = Machine::describe().map_err(BenchError::io("cannot describe this machine"))?;
    let participants = run.implementations.iter().map(|implementation| Participant {
        name: implementation.name.clone(),
        command: implementation.shown_command(),
    });
    let settings = run.settings;
    Ok(Report {
        schema: SCHEMA.to_owned(),
        version: env!("CARGO_PKG_VERSION").to_owned(),
        date: date(clock::now().wall.secs),
        command: run.command.clone(),
        machine,
        conditions: Conditions {
            rounds: run.rounds,
            path: run.path.clone(),
            profile: match settings.wiring.wire {
                Wire::Path(profile) => Some(profile),
                Wire::Whole | Wire::Cut => None,
            },
            tunnel_mtu: settings.wiring.tunnel_mtu,
            wire_mtu: settings.wiring.wire_mtu,
            streams: settings.streams,
            tcp_seconds: settings.tcp.as_secs_f64(),
            congestion: Some(congestion(settings.congestion)?),
            quick: run.is_quick,
        },
        participants: participants.collect(),
        samples: Vec::new(),
        latencies: BTreeMap::new(),
        summaries: Vec::new(),
    })
}

/// How the kernel's TCP avoids congestion where it is measured: as was asked, or by itself.
fn congestion(asked: Option<Congestion>) -> Result<String, BenchError> {
    let name = asked.map(Congestion::name);
    // Not here: a new namespace has the default of the first, not that of its maker.
    NetNamespace::create()?.run(|| tcp::congestion(name))?.map_err(|error| {
        let Some(name) = name else { return error.into() };
        let offered = fs::read_to_string("/proc/sys/net/ipv4/tcp_available_congestion_control");
        BenchError::Io {
            what: format!(
                "--congestion {name}: this kernel offers {}; `modprobe tcp_{name}` may add it",
                offered.as_deref().unwrap_or("others").trim()
            ),
            source: error.source,
        }
    })
}

fn measure_unit(
    run: &Run<'_>,
    unit: Unit,
    implementation: &Implementation,
    watcher: &mut dyn Watcher,
    interrupt: &Interrupt,
) -> Result<(Sample, BTreeMap<String, Latencies>), BenchError> {
    let settings = run.settings;
    let busy_before = wait_for_quiet(settings.patience, watcher, interrupt)?;
    let (started, ticks) = (clock::now().mono, ticks()?);
    let mut measured = Measured::default();
    let outcome = Tunnel::make(implementation, settings.wiring, run.files, interrupt).and_then(
        |mut tunnel| measure::group(unit.group, &mut tunnel, settings, interrupt, &mut measured),
    );
    // Ctrl-C ends a program under test as well, which is no fault of its own.
    if interrupt.is_raised() {
        return Err(BenchError::Interrupted);
    }
    match outcome {
        Ok(()) => {}
        Err(error) => drop(measured.errors.insert("tunnel".to_owned(), error.in_full())),
    }
    let passed = self::ticks()?.since(ticks);
    let seconds = clock::now().mono.since(started).as_secs_f64();
    let others_busy_percent = busy_before.max(others_busy(interrupt)?);
    let sample = Sample {
        participant: implementation.name.clone(),
        group: unit.group,
        round: unit.round,
        seconds,
        others_busy_percent,
        steal_percent: passed.steal_percent(),
        megahertz: machine::megahertz(),
        noisy: others_busy_percent > NOISY_PERCENT || passed.steal_percent() > NOISY_PERCENT,
        metrics: measured.metrics,
        series: measured.series,
        errors: measured.errors,
    };
    Ok((sample, measured.latencies))
}

/// Waits until others leave the processors alone, at most for `patience`. Returns what they use
/// then, in percent.
fn wait_for_quiet(
    patience: Duration,
    watcher: &mut dyn Watcher,
    interrupt: &Interrupt,
) -> Result<f64, BenchError> {
    let deadline = clock::now().mono + patience;
    loop {
        let busy = others_busy(interrupt)?;
        if busy <= NOISY_PERCENT || clock::now().mono >= deadline {
            return Ok(busy);
        }
        watcher.waits(busy);
        if interrupt.wait(LOOK_AGAIN) {
            return Err(BenchError::Interrupted);
        }
    }
}

/// What others use of all processors while we do nothing, in percent: the least of three looks.
fn others_busy(interrupt: &Interrupt) -> Result<f64, BenchError> {
    let mut least = f64::INFINITY;
    for _ in 0..3 {
        let before = ticks()?;
        if interrupt.wait(LOOK) {
            return Err(BenchError::Interrupted);
        }
        least = least.min(ticks()?.since(before).busy_percent());
    }
    Ok(least)
}

fn ticks() -> Result<Ticks, BenchError> {
    Ticks::now().map_err(BenchError::io("cannot see what the processors do"))
}

/// Above this, what others use disturbs a measurement that keeps all processors busy.
pub const NOISY_PERCENT: f64 = 12.0;
const LOOK: Duration = Duration::from_millis(150);
const LOOK_AGAIN: Duration = Duration::from_secs(1);
