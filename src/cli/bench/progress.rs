//! Live progress: a bar for a person who waits, a line a measurement for a log.

use std::time::Duration;

use indicatif::{ProgressBar, ProgressStyle};

use crate::bench::metric::{self, digits};
use crate::bench::plan::Unit;
use crate::bench::report::Sample;
use crate::bench::run::Watcher;
use crate::cli::message;

/// A bar of this form if a person waits, which shows nothing otherwise.
pub fn bar(template: &'static str) -> ProgressBar {
    let bar = if message::is_watched() { ProgressBar::new(0) } else { ProgressBar::hidden() };
    // The template is a constant; without it the bar has its default form.
    if let Ok(style) = ProgressStyle::with_template(template) {
        bar.set_style(style);
    }
    bar
}

/// Shows how far a run is.
#[derive(Debug)]
pub struct Progress {
    bar: ProgressBar,
    rounds: u32,
}

impl Progress {
    pub fn new(rounds: u32) -> Self {
        Self { bar: bar("{bar:24} {pos}/{len}  {elapsed} gone, about {eta} left  {msg}"), rounds }
    }

    fn say(&self, text: &str) {
        if self.bar.is_hidden() {
            message::note(text);
        } else {
            self.bar.println(text);
        }
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        self.bar.finish_and_clear();
    }
}

impl Watcher for Progress {
    fn begins(&mut self, units: usize) {
        self.bar.set_length(units as u64);
        if !self.bar.is_hidden() {
            self.bar.enable_steady_tick(TICK);
        }
    }

    fn measures(&mut self, done: usize, unit: Unit, name: &str) {
        self.bar.set_position(done as u64);
        let round = unit.round + 1;
        self.bar.set_message(format!("round {round}, {}, {name}", unit.group.name()));
    }

    fn waits(&mut self, busy_percent: f64) {
        self.bar.set_message(format!("waiting: others use {busy_percent:.0} % of the processors"));
    }

    fn measured(&mut self, sample: &Sample) {
        self.say(&line(sample, self.rounds));
        for (key, error) in &sample.errors {
            self.say(&format!("    not measured: {key}: {error}"));
        }
    }
}

/// One measurement, with the numbers that say most.
fn line(sample: &Sample, rounds: u32) -> String {
    let numbers = sample.metrics.iter().filter_map(|(key, value)| {
        let metric = metric::by_key(key).filter(|metric| metric.group == Some(sample.group))?;
        Some(format!("{key} {} {}", digits(*value), metric.unit))
    });
    let numbers: Vec<String> = numbers.collect();
    let noisy = if sample.noisy { " (disturbed)" } else { "" };
    format!(
        "[{}/{rounds}] {} {}{noisy}: {}",
        sample.round + 1,
        sample.group.name(),
        sample.participant,
        numbers.join(", ")
    )
}

const TICK: Duration = Duration::from_millis(200);
