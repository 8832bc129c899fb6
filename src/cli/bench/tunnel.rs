//! `hybridwg bench tunnel`.

use std::path::Path;
use std::{env, fs};

use anyhow::anyhow;

use super::args::{Effort, Participants, Tunnel};
use super::progress::Progress;
use crate::bench::implementation::{self, Implementation, OURS};
use crate::bench::metric::Group;
use crate::bench::run::{self, Run};
use crate::bench::settings::Settings;
use crate::bench::topology::{self, Wiring};
use crate::cli::enclosure;
use crate::cli::message::{self, Failure};
use crate::control::interrupt::Interrupt;

/// Measures, in namespaces of its own.
///
/// # Errors
/// See [`super::run`].
pub fn run(arguments: &Tunnel) -> Result<(), Failure> {
    // What is wrong with the command line is said before anything is made.
    let earlier = arguments.output.prepare()?;
    let groups = groups(&arguments.effort)?;
    enclosure::run("the benchmark", |interrupt| {
        let implementations = arguments.participants.choose()?;
        let wire = arguments.wire.wire();
        let wiring = Wiring { wire, tunnel_mtu: arguments.effort.mtu, wire_mtu: WIRE_MTU };
        let settings = settings(&arguments.effort, wiring);
        let files = Path::new(FILES);
        fs::create_dir_all(files)?;
        let plan = Run {
            implementations: &implementations,
            rounds: arguments.effort.rounds,
            groups: &groups,
            settings: &settings,
            files,
            command: command(),
            is_quick: arguments.effort.quick,
        };
        let (report, was_interrupted) = measure(&plan, interrupt)?;
        arguments.output.deliver(&report, earlier.as_ref())?;
        if was_interrupted {
            return Err(Failure::run(anyhow!("interrupted: this is what was measured until then")));
        }
        Ok(())
    })
}

fn measure(
    plan: &Run<'_>,
    interrupt: &Interrupt,
) -> Result<(crate::bench::report::Report, bool), Failure> {
    let names: Vec<&str> = plan.implementations.iter().map(|one| one.name.as_str()).collect();
    message::note(&format!("taking part: {}", names.join(", ")));
    let mut progress = Progress::new(plan.rounds);
    Ok(run::run(plan, &mut progress, interrupt)?)
}

fn settings(effort: &Effort, wiring: Wiring) -> Settings {
    let full = Settings::full(wiring, effort.streams.into());
    let settings = if effort.quick { full.quick() } else { full };
    Settings { patience: effort.patience().unwrap_or(settings.patience), ..settings }
}

fn groups(effort: &Effort) -> Result<Vec<Group>, Failure> {
    let group = |name: &String| {
        name.parse().map_err(|accepted| Failure::usage(anyhow!("--groups {name}: {accepted}")))
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
fn command() -> String {
    let words = env::args().skip(1).map(|word| {
        word.split(' ').map(implementation::without_folders).collect::<Vec<_>>().join(" ")
    });
    let quoted = words.map(|word| if word.contains(' ') { format!("'{word}'") } else { word });
    format!("hybridwg {}", quoted.collect::<Vec<_>>().join(" "))
}

/// In memory, and seen by nobody outside.
const FILES: &str = "/var/run/hybridwg-bench";
const WIRE_MTU: u32 = 1500;

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
    fn a_name_that_nobody_has_or_that_is_there_twice_is_wrong_usage() {
        for (all, only) in [(&["a"][..], &["x"][..]), (&["a"], &["a", "a"]), (&["a", "a"], &[])] {
            assert_eq!(names(all, only).unwrap_err().exit_status(), 2, "{all:?} {only:?}");
        }
    }
}
