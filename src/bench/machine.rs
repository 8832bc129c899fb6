//! The machine that is measured on: what it is, and what else it was doing.

use std::fs;
use std::io;

use serde::{Deserialize, Serialize};

use crate::sys::clock;

/// What the figures are of.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Machine {
    pub cpu: String,
    pub cores: usize,
    pub kernel: String,
    /// As the scaling driver names it; none on most virtual machines.
    pub governor: Option<String>,
}

impl Machine {
    /// # Errors
    /// No `/proc`.
    pub fn describe() -> io::Result<Self> {
        let cpuinfo = fs::read_to_string("/proc/cpuinfo")?;
        let kernel = fs::read_to_string("/proc/sys/kernel/osrelease")?;
        let governor = fs::read_to_string("/sys/devices/system/cpu/cpu0/cpufreq/scaling_governor");
        Ok(Self {
            cpu: field(&cpuinfo, "model name").next().unwrap_or("unknown").to_owned(),
            cores: std::thread::available_parallelism()?.get(),
            kernel: kernel.trim().to_owned(),
            governor: governor.ok().map(|name| name.trim().to_owned()),
        })
    }
}

/// Processor time of the whole machine since it was started, in ticks.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Ticks {
    /// Of processes and the kernel.
    pub busy: u64,
    /// That the hypervisor gave to others.
    pub steal: u64,
    pub total: u64,
}

impl Ticks {
    /// # Errors
    /// No `/proc`.
    pub fn now() -> io::Result<Self> {
        let text = fs::read_to_string("/proc/stat")?;
        Self::parse(&text).ok_or_else(|| io::Error::other("/proc/stat has no line `cpu`"))
    }

    /// The line `cpu`: user nice system idle iowait irq softirq steal.
    fn parse(text: &str) -> Option<Self> {
        let line = text.lines().find_map(|line| line.strip_prefix("cpu "))?;
        let ticks: Vec<u64> = line.split_whitespace().map_while(|word| word.parse().ok()).collect();
        let [user, nice, system, idle, iowait, irq, softirq, steal, ..] = ticks[..] else {
            return None;
        };
        let busy = user + nice + system + irq + softirq;
        Some(Self { busy, steal, total: busy + steal + idle + iowait })
    }

    /// What has passed since `earlier`.
    pub const fn since(self, earlier: Self) -> Self {
        Self {
            busy: self.busy.saturating_sub(earlier.busy),
            steal: self.steal.saturating_sub(earlier.steal),
            total: self.total.saturating_sub(earlier.total),
        }
    }

    /// Busy, in seconds.
    #[expect(clippy::cast_precision_loss, reason = "three digits are shown")]
    pub fn busy_seconds(self) -> f64 {
        self.busy as f64 / clock::ticks_per_second().max(1) as f64
    }

    /// Busy, or stolen, in percent of all.
    pub fn busy_percent(self) -> f64 {
        percent(self.busy + self.steal, self.total)
    }

    /// Stolen, in percent of all.
    pub fn steal_percent(self) -> f64 {
        percent(self.steal, self.total)
    }
}

#[expect(clippy::cast_precision_loss, reason = "three digits are shown")]
fn percent(part: u64, whole: u64) -> f64 {
    100.0 * part as f64 / whole.max(1) as f64
}

/// What the cores run at in MHz, on average; `None` where the kernel does not say.
pub fn megahertz() -> Option<f64> {
    mean_megahertz(&fs::read_to_string("/proc/cpuinfo").ok()?)
}

#[expect(clippy::cast_precision_loss, reason = "a number of cores is small")]
fn mean_megahertz(cpuinfo: &str) -> Option<f64> {
    let all: Vec<f64> = field(cpuinfo, "cpu MHz").filter_map(|text| text.parse().ok()).collect();
    (!all.is_empty()).then(|| all.iter().sum::<f64>() / all.len() as f64)
}

fn field<'t>(cpuinfo: &'t str, name: &'static str) -> impl Iterator<Item = &'t str> {
    cpuinfo.lines().filter_map(move |line| {
        let (key, value) = line.split_once(':')?;
        (key.trim() == name).then(|| value.trim())
    })
}

/// The memory of a process in MB: what it has now, and the most that it ever had.
///
/// # Errors
/// It has ended.
pub fn memory_megabytes(process: u32) -> io::Result<(f64, f64)> {
    let text = fs::read_to_string(format!("/proc/{process}/status"))?;
    parse_memory(&text).ok_or_else(|| io::Error::other("/proc/PID/status has no VmRSS or VmHWM"))
}

fn parse_memory(status: &str) -> Option<(f64, f64)> {
    let megabytes = |name: &'static str| {
        let kilobytes: f64 = field(status, name).next()?.strip_suffix(" kB")?.parse().ok()?;
        Some(kilobytes * 1024.0 / 1e6)
    };
    Some((megabytes("VmRSS")?, megabytes("VmHWM")?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_ticks_of_all_processors_are_split_into_busy_stolen_and_idle() {
        let text = "cpu  10 1 5 100 4 2 3 7 0 0\ncpu0 1 1 1 1 1 1 1 1 0 0\nintr 5\n";
        let ticks = Ticks::parse(text).unwrap();
        assert_eq!(ticks, Ticks { busy: 21, steal: 7, total: 132 });
        let later = Ticks { busy: 71, steal: 17, total: 232 };
        let passed = later.since(ticks);
        assert!((passed.busy_percent() - 60.0).abs() < 1e-9);
        assert!((passed.steal_percent() - 10.0).abs() < 1e-9);
        assert_eq!(Ticks::parse("cpu0 1 2 3"), None);
        assert_eq!(Ticks::parse("cpu 1 2 3"), None);
    }

    #[test]
    fn the_frequency_is_the_mean_of_the_cores() {
        let text = "cpu MHz\t\t: 2000.0\nflags : x\ncpu MHz\t\t: 3000.0\n";
        assert_eq!(mean_megahertz(text), Some(2500.0));
        assert_eq!(mean_megahertz("flags : x\n"), None);
    }

    #[test]
    fn memory_is_told_in_megabytes_of_a_million() {
        let text = "Name:\tx\nVmHWM:\t   20000 kB\nVmRSS:\t   10000 kB\n";
        assert_eq!(parse_memory(text), Some((10.24, 20.48)));
        assert_eq!(parse_memory("Name:\tx\n"), None);
        let (now, most) = memory_megabytes(std::process::id()).unwrap();
        assert!(now > 1.0 && most >= now);
    }

    #[test]
    fn this_machine_can_be_described() {
        let machine = Machine::describe().unwrap();
        assert!(machine.cores >= 1 && !machine.kernel.is_empty());
        assert!(Ticks::now().unwrap().total > 0);
    }
}
