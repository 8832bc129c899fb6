//! `hybridwg bench crypto`.

use std::env;
use std::time::Duration;

use super::args::Crypto;
use super::{output, progress, tunnel};
use crate::bench::crypto::{self, Ceilings, PACKET_BYTES};
use crate::bench::error::BenchError;
use crate::bench::implementation::{Implementation, OURS};
use crate::bench::metric::{Group, digits};
use crate::bench::run::Run;
use crate::bench::settings::Settings;
use crate::bench::stats::Summary;
use crate::bench::topology::{Wire, Wiring};
use crate::cli::enclosure;
use crate::cli::message::{self, Failure};
use crate::control::interrupt::Interrupt;

/// Measures the ceilings, and beside them a tunnel in namespaces of its own.
///
/// # Errors
/// See [`super::run`].
pub fn run(arguments: &Crypto) -> Result<(), Failure> {
    if let Some(path) = &arguments.json {
        output::check_folder(path)?;
    }
    if arguments.rounds == 0 {
        return show(arguments, &Interrupt::on_signals()?);
    }
    enclosure::run("the benchmark", |interrupt| show(arguments, interrupt))
}

fn show(arguments: &Crypto, interrupt: &Interrupt) -> Result<(), Failure> {
    let each = Duration::from_secs(arguments.seconds.into());
    message::note("measuring what one core can do");
    let bar = progress::bar("{bar:24} {pos}/{len}  {elapsed} gone, about {eta} left  {msg}");
    bar.set_length(crypto::COUNT);
    let mut ceilings = crypto::measure(each, interrupt, &mut |what| {
        // What was told before is done.
        bar.set_position(bar.position() + u64::from(!bar.message().is_empty()));
        bar.set_message(what);
    })?;
    bar.finish_and_clear();
    if arguments.rounds > 0 {
        let (tcp_1, tcp_1_cpu) = tunnel(arguments.rounds, interrupt)?;
        ceilings.tunnel = Some(ceilings.reached(tcp_1, tcp_1_cpu));
    }
    message::result(&render(&ceilings))?;
    arguments.json.as_deref().map_or(Ok(()), |path| output::write_json(path, &ceilings))
}

/// One stream through a tunnel of ours: Gbit/s, and the processor time of both ends for a gigabyte.
fn tunnel(rounds: u32, interrupt: &Interrupt) -> Result<(f64, f64), Failure> {
    let implementations = [Implementation::ours(&env::current_exe()?)];
    let wiring = Wiring { wire: Wire::Whole, tunnel_mtu: 1420, wire_mtu: 1500 };
    let settings = Settings::full(wiring, 4);
    let plan = Run {
        implementations: &implementations,
        rounds,
        groups: &[Group::Tcp],
        settings: &settings,
        files: tunnel::files()?,
        command: tunnel::command(),
        is_quick: false,
        path: "whole".to_owned(),
    };
    let (report, was_interrupted) = tunnel::measure(&plan, interrupt)?;
    if was_interrupted {
        return Err(BenchError::Interrupted.into());
    }
    let median = |key| report.summary(key, OURS).map(|line| line.summary.median);
    match (median("tcp_1"), median("tcp_1_cpu")) {
        (Some(tcp_1), Some(tcp_1_cpu)) => Ok((tcp_1, tcp_1_cpu)),
        _ => Err(Failure::run(anyhow::anyhow!("the tunnel could not be measured"))),
    }
}

fn render(ceilings: &Ceilings) -> String {
    let line = |label: &str, summary: &Summary, unit: &str| {
        let interval = format!("{}–{}", digits(summary.low), digits(summary.high));
        format!("{label:<40} {:>9} {unit:<7} ({interval})\n", digits(summary.median))
    };
    let machine = &ceilings.machine;
    let mut text = format!(
        "{}, {} cores, Linux {}; one core:\n\n",
        machine.cpu, machine.cores, machine.kernel
    );
    text +=
        &line(&format!("ChaCha20-Poly1305, seal {PACKET_BYTES} bytes"), &ceilings.seal, "Gbit/s");
    text +=
        &line(&format!("ChaCha20-Poly1305, open {PACKET_BYTES} bytes"), &ceilings.open, "Gbit/s");
    text += &line("ChaCha20-Poly1305, seal 64 bytes", &ceilings.seal_64, "1/s");
    text += &line("copying memory", &ceilings.copy, "GB/s");
    text += &line("X25519", &ceilings.agreements, "1/s");
    text += &line("handshakes answered", &ceilings.handshakes, "1/s");
    if let Some(reached) = &ceilings.tunnel {
        text += &format!(
            "\nA tunnel of one stream carries {} Gbit/s: {:.0} % of what one core seals.\n\
             Both ends spend {} s of processor time on a gigabyte, {:.0} % of it in the cipher.\n",
            digits(reached.tcp_1),
            reached.of_seal * 100.0,
            digits(reached.tcp_1_cpu),
            reached.cipher_share * 100.0
        );
    }
    text
}
