//! `hybridwg bench tunnel`, `hybridwg bench path` and `hybridwg bench gateway`.

use std::path::Path;
use std::{env, fs};

use anyhow::anyhow;

use super::args::{Effort, Gateway, Output, Participants, PathArguments, Tunnel, WireName};
use super::output::check_uncovered;
use super::progress::Progress;
use crate::bench::gateway::Forwarding;
use crate::bench::implementation::{self, Implementation, OURS};
use crate::bench::metric::Group;
use crate::bench::path::Profile;
use crate::bench::report::Report;
use crate::bench::run::{self, Run};
use crate::bench::settings::Settings;
use crate::bench::topology::{self, Wire, Wiring};
use crate::cli::enclosure;
use crate::cli::message::{self, Failure};
use crate::control::interrupt::Interrupt;

/// `hybridwg bench tunnel`.
///
/// # Errors
/// See [`super::run`].
pub fn over_wire(arguments: &Tunnel) -> Result<(), Failure> {
    let Tunnel { participants, effort, output, wire } = arguments;
    let plan = Plan {
        settings: settings(effort, on_wire(*wire, effort.mtu), STREAMS),
        groups: groups(effort, &Group::OF_TUNNELS)?,
        path: wire.name().to_owned(),
    };
    compare(plan, || participants.choose(), effort, output)
}

/// `hybridwg bench path`.
///
/// # Errors
/// See [`super::run`].
pub fn over_path(arguments: &PathArguments) -> Result<(), Failure> {
    let PathArguments { participants, effort, output, profile } = arguments;
    let plan = Plan {
        settings: settings(effort, on_path(profile, effort.mtu)?, STREAMS),
        groups: groups(effort, &Group::OF_TUNNELS)?,
        path: implementation::without_folders(profile).to_owned(),
    };
    compare(plan, || participants.choose(), effort, output)
}

/// `hybridwg bench gateway`.
///
/// # Errors
/// See [`super::run`].
pub fn through_gateway(arguments: &Gateway) -> Result<(), Failure> {
    let Gateway { profile, only, named, effort, output } = arguments;
    let wiring = match profile {
        Some(profile) => on_path(profile, effort.mtu)?,
        None => on_wire(WireName::Whole, effort.mtu),
    };
    let name = profile.as_deref().unwrap_or(WireName::Whole.name());
    let plan = Plan {
        settings: settings(effort, wiring, GATEWAY_STREAMS),
        groups: groups(effort, &Group::OF_GATEWAYS)?,
        path: format!("{}, then a hub", implementation::without_folders(name)),
    };
    let hubs = || {
        let ours = Implementation::ours(&env::current_exe()?);
        let hub = |way: Forwarding| ours.clone().forwarding(way.name(), way);
        let mut all: Vec<Implementation> = Forwarding::all(effort.congestion()).map(hub).into();
        let route = |one: &Implementation| one.clone().forwarding(&one.name, Forwarding::Routed);
        all.extend(named.iter().map(route));
        select(&all, only)
    };
    compare(plan, hubs, effort, output)
}

fn on_wire(wire: WireName, mtu: Option<u32>) -> Wiring {
    let tunnel_mtu = mtu.unwrap_or(TUNNEL_MTU);
    Wiring { wire: wire.wire(), tunnel_mtu, wire_mtu: WIRE_MTU }
}

fn on_path(name: &str, mtu: Option<u32>) -> Result<Wiring, Failure> {
    if Path::new(name).is_file() {
        check_uncovered(Path::new(name))?;
    }
    let profile =
        Profile::load(name).map_err(|fault| Failure::usage(anyhow!("--profile {fault}")))?;
    let tunnel_mtu = mtu.unwrap_or(TUNNEL_MTU.min(profile.mtu - OVERHEAD));
    Ok(Wiring { wire: Wire::Path(profile), tunnel_mtu, wire_mtu: profile.mtu })
}

/// What is wrong with the command line has been said when there is one.
struct Plan {
    settings: Settings,
    groups: Vec<Group>,
    /// What lies between the namespaces, by its name.
    path: String,
}

/// Measures, in namespaces of its own, and delivers the results.
fn compare(
    plan: Plan,
    choose: impl FnOnce() -> Result<Vec<Implementation>, Failure>,
    effort: &Effort,
    output: &Output,
) -> Result<(), Failure> {
    let earlier = output.prepare()?;
    enclosure::run("the benchmark", |interrupt| {
        let implementations = choose()?;
        if let Some(first) = implementations.first() {
            output.check_earlier(earlier.as_ref(), &first.name, &plan.groups)?;
        }
        let run = Run {
            implementations: &implementations,
            rounds: effort.rounds,
            groups: &plan.groups,
            settings: &plan.settings,
            files: files()?,
            command: command(),
            is_quick: effort.quick,
            path: plan.path.clone(),
        };
        let (report, was_interrupted) = measure(&run, interrupt)?;
        // Half a run is not compared.
        output.deliver(&report, earlier.as_ref().filter(|_| !was_interrupted))?;
        if was_interrupted {
            return Err(Failure::run(anyhow!("interrupted: this is what was measured until then")));
        }
        is_measured(&report)
    })
}

/// # Errors
/// Everything failed with the first, whom this is about.
fn is_measured(report: &Report) -> Result<(), Failure> {
    let Some(first) = report.participants.first() else { return Ok(()) };
    let mut samples = report.samples.iter().filter(|sample| sample.participant == first.name);
    // The path without a tunnel has no handshakes, and that is no failure.
    let is_measured = report.summaries.iter().any(|line| line.participant == first.name);
    if is_measured || samples.all(|sample| sample.errors.is_empty()) {
        return Ok(());
    }
    Err(Failure::run(anyhow!("nothing could be measured of {}", first.name)))
}

/// A folder for keys, in memory and seen by nobody outside.
///
/// # Errors
/// It cannot be made.
pub fn files() -> Result<&'static Path, Failure> {
    let files = Path::new(FILES);
    fs::create_dir_all(files)?;
    Ok(files)
}

/// Measures with progress.
///
/// # Errors
/// This machine cannot be described.
pub fn measure(plan: &Run<'_>, interrupt: &Interrupt) -> Result<(Report, bool), Failure> {
    let names: Vec<&str> = plan.implementations.iter().map(|one| one.name.as_str()).collect();
    if cfg!(debug_assertions) {
        message::warning("hybridwg was built without optimization: its numbers say nothing");
    }
    message::note(&format!("taking part: {}", names.join(", ")));
    let mut progress = Progress::new(plan.rounds);
    Ok(run::run(plan, &mut progress, interrupt)?)
}

fn settings(effort: &Effort, wiring: Wiring, streams: u16) -> Settings {
    let full = Settings::full(wiring, effort.streams.unwrap_or(streams).into());
    let settings = if effort.quick { full.quick() } else { full };
    let patience = effort.patience().unwrap_or(settings.patience);
    Settings { patience, congestion: effort.congestion(), ..settings }
}

/// Those that were asked for, or all that this command has.
fn groups(effort: &Effort, all: &[Group]) -> Result<Vec<Group>, Failure> {
    if effort.groups.is_empty() {
        return Ok(all.to_vec());
    }
    let group = |name: &String| {
        all.iter().copied().find(|group| group.name() == name).ok_or_else(|| {
            let accepted: Vec<&str> = all.iter().map(|group| group.name()).collect();
            let accepted = accepted.join(", ");
            Failure::usage(anyhow!("--groups {name}: it can be {accepted}"))
        })
    };
    effort.groups.iter().map(group).collect()
}

impl Participants {
    /// Those who take part, in the order of `--only` if it is given.
    ///
    /// # Errors
    /// [`Failure::Usage`] for a name that nobody has, or two have.
    fn choose(&self) -> Result<Vec<Implementation>, Failure> {
        let executable = env::current_exe()?;
        let mut all = vec![Implementation::ours(&executable)];
        all.extend(self.named.iter().cloned());
        // A name that was given a command stands for that.
        let found = implementation::find(&env::var_os("PATH").unwrap_or_default());
        let is_named = |one: &Implementation| self.named.iter().any(|named| named.name == one.name);
        all.extend(found.into_iter().filter(|one| !is_named(one)));
        if topology::has_kernel_wireguard()? {
            all.push(Implementation::kernel());
        }
        all.push(Implementation::plain());
        if self.named.iter().any(|named| named.name == OURS) {
            all.remove(0);
        }
        select(&all, &self.only)
    }
}

fn select(all: &[Implementation], only: &[String]) -> Result<Vec<Implementation>, Failure> {
    let mut chosen: Vec<Implementation> = Vec::new();
    let names: Vec<&str> = all.iter().map(|one| one.name.as_str()).collect();
    let wanted: Vec<&str> =
        if only.is_empty() { names.clone() } else { only.iter().map(String::as_str).collect() };
    for name in wanted {
        let Some(one) = all.iter().find(|one| one.name == name) else {
            let error = anyhow!("there is no `{name}` here; there are {}", names.join(", "));
            return Err(Failure::usage(error)
                .with_hint("`--impl NAME='COMMAND'` names one that is not found in PATH"));
        };
        if chosen.iter().any(|other| other.name == name) {
            return Err(Failure::usage(anyhow!("`{name}` is there twice")));
        }
        chosen.push(one.clone());
    }
    Ok(chosen)
}

/// What was typed, without the folders of this machine.
pub fn command() -> String {
    let words = env::args().skip(1).map(|word| shown(&word));
    let quoted = words.map(|word| if word.contains(' ') { format!("'{word}'") } else { word });
    format!("hybridwg {}", quoted.collect::<Vec<_>>().join(" "))
}

fn shown(word: &str) -> String {
    let part = |part: &str| match part.rsplit_once('=') {
        Some((name, value)) => format!("{name}={}", implementation::without_folders(value)),
        None => implementation::without_folders(part).to_owned(),
    };
    word.split(' ').map(part).collect::<Vec<_>>().join(" ")
}

const FILES: &str = "/var/run/hybridwg-bench";
const WIRE_MTU: u32 = 1500;
/// How many "several" are.
const STREAMS: u16 = 4;
const GATEWAY_STREAMS: u16 = 8;
/// What all use over it, and the most over other paths.
const TUNNEL_MTU: u32 = 1420;
/// Of a tunnel over IPv6, the larger one.
const OVERHEAD: u32 = 80;

#[cfg(test)]
mod tests {
    use super::*;

    fn names(all: &[&str], only: &[&str]) -> Result<Vec<String>, Failure> {
        let all: Vec<Implementation> = all
            .iter()
            .map(|name| Implementation { name: (*name).to_owned(), ..Implementation::plain() })
            .collect();
        let only: Vec<String> = only.iter().map(|name| (*name).to_owned()).collect();
        Ok(select(&all, &only)?.into_iter().map(|one| one.name).collect())
    }

    #[test]
    fn all_take_part_unless_some_are_named_and_then_in_that_order() {
        assert_eq!(names(&["a", "b", "c"], &[]).unwrap(), ["a", "b", "c"]);
        assert_eq!(names(&["a", "b", "c"], &["c", "a"]).unwrap(), ["c", "a"]);
    }

    #[test]
    fn what_was_typed_is_shown_without_folders() {
        for (word, text) in [
            ("--json", "--json"),
            ("/tmp/x/new.json", "new.json"),
            ("--json=/tmp/new.json", "--json=new.json"),
            ("mine=/opt/mine -f {tun}", "mine=mine -f {tun}"),
            ("--impl=mine=/opt/mine -f {tun}", "--impl=mine=mine -f {tun}"),
        ] {
            assert_eq!(shown(word), text);
        }
    }

    #[test]
    fn a_run_in_which_everything_failed_with_the_first_has_failed() {
        let mut report = crate::bench::report::testing::report();
        assert!(is_measured(&report).is_ok());
        for name in ["other", "hybridwg"] {
            for sample in report.samples.iter_mut().filter(|one| one.participant == name) {
                sample.metrics.clear();
            }
            report.summarize();
            assert!(is_measured(&report).is_ok(), "nothing was there to measure of {name}");
        }
        report.samples[0].errors.insert("tunnel".to_owned(), "it has ended".to_owned());
        assert_eq!(is_measured(&report).unwrap_err().exit_status(), 1);
    }

    #[test]
    fn a_name_that_nobody_has_or_that_is_there_twice_is_wrong_usage() {
        for (all, only) in [(&["a"][..], &["x"][..]), (&["a"], &["a", "a"]), (&["a", "a"], &[])] {
            assert_eq!(names(all, only).unwrap_err().exit_status(), 2, "{all:?} {only:?}");
        }
    }
}
