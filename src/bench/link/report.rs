//! The result of measuring a live tunnel: what `--json` writes (docs/bench.md describes each field),
//! and as a table.

use std::fmt::Write as _;

use serde::{Deserialize, Serialize};

use super::longest::Longest;
use super::round_trips::RoundTrips;
use super::throughput::Throughput;
use crate::bench::metric::digits;

/// The name and version of the schema.
pub const SCHEMA: &str = "hybridwg-bench-link/1";

/// All that was found.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct LinkReport {
    pub schema: String,
    /// Of the program that measured.
    pub version: String,
    /// In UTC, when it began.
    pub date: String,
    pub command: String,
    pub interface: String,
    /// His public key.
    pub peer: String,
    /// That was measured, inside the tunnel.
    pub address: String,
    /// Since the last handshake when it began; nothing if there was none.
    pub handshake_age_seconds: Option<u64>,
    pub conditions: Conditions,
    /// Round trips while nothing else was sent by this program.
    pub idle: RoundTrips,
    /// Nothing if no packet came back.
    pub longest_packet: Option<Longest>,
    /// Nothing if it was not asked for.
    pub there: Option<Throughput>,
    pub back: Option<Throughput>,
}

/// How it was measured.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Conditions {
    /// Of an echo request, IP header included.
    pub packet_bytes: usize,
    pub interval_ms: u64,
    /// Of the idle round trips.
    pub seconds: u64,
    /// Of the interface.
    pub mtu: u32,
    pub streams: u16,
    /// Of each direction.
    pub stream_seconds: u16,
    /// Of all streams together; nothing if they went as fast as they could.
    pub rate_mbit: Option<u32>,
}

impl LinkReport {
    /// As text for a terminal.
    pub fn render(&self) -> String {
        let mut text = String::new();
        let handshake = self.handshake_age_seconds.map_or_else(
            || "no handshake yet".to_owned(),
            |age| format!("last handshake {age} s ago"),
        );
        // Writing to a String cannot fail.
        let _ = writeln!(
            text,
            "{}: peer {} at {}, {handshake}; {}\n",
            self.interface, self.peer, self.address, self.date
        );
        self.render_round_trips(&mut text);
        let _ = writeln!(text, "\n{}", self.longest_in_words());
        if self.there.is_some() || self.back.is_some() {
            self.render_throughput(&mut text);
        }
        text
    }

    fn render_round_trips(&self, text: &mut String) {
        let Conditions { packet_bytes, interval_ms, .. } = self.conditions;
        let _ = writeln!(text, "Round trips in ms: {packet_bytes} bytes each {interval_ms} ms\n");
        let heads = ["", "p50", "p90", "p99", "most", "jitter", "sent", "lost"];
        let _ = writeln!(text, "{}", columns(&heads.map(str::to_owned)));
        let _ = writeln!(text, "{}", columns(&row("idle", &self.idle)));
        for (name, one) in [("while sending", &self.there), ("while receiving", &self.back)] {
            if let Some(throughput) = one {
                let _ = writeln!(text, "{}", columns(&row(name, &throughput.round_trips)));
            }
        }
        if self.idle.again > 0 {
            let _ = writeln!(text, "\n{} answers came twice", self.idle.again);
        }
    }

    fn longest_in_words(&self) -> String {
        match &self.longest_packet {
            None => "Longest packet: not known, since nothing came back".to_owned(),
            Some(longest) if longest.is_all() => format!(
                "Longest packet: {} bytes come back, as many as the interface takes",
                longest.bytes
            ),
            Some(longest) => format!(
                "Longest packet: {} bytes come back, and longer ones get lost. The interface takes \
                 {}: with `MTU = {}` at both ends nothing would be lost for its length",
                longest.bytes, longest.limit, longest.bytes
            ),
        }
    }

    fn render_throughput(&self, text: &mut String) {
        let Conditions { streams, stream_seconds, rate_mbit, .. } = self.conditions;
        let bound = rate_mbit.map_or_else(
            || "as fast as it goes".to_owned(),
            |mbit| format!("at most {mbit} Mbit/s"),
        );
        let _ = writeln!(
            text,
            "\nThroughput in Mbit/s: {streams} TCP streams, {stream_seconds} s each way, {bound}\n"
        );
        for (name, one) in [("there", &self.there), ("back", &self.back)] {
            let Some(throughput) = one else { continue };
            let mbit = digits(throughput.bits_per_second / 1e6);
            let bounded = if throughput.is_bounded { ", the bound: it may carry more" } else { "" };
            let again = throughput.retransmissions;
            let _ = writeln!(text, "{name:<16}{mbit:>9}{bounded}; {again} segments sent again");
        }
    }
}

fn row(name: &str, trips: &RoundTrips) -> [String; 8] {
    let millis = |micros: Option<f64>| {
        micros.map_or_else(|| "-".to_owned(), |micros| format!("{:.2}", micros / 1e3))
    };
    let quantile = |share| millis(trips.times.micros(share));
    [
        name.to_owned(),
        quantile(0.5),
        quantile(0.9),
        quantile(0.99),
        quantile(1.0),
        millis(trips.jitter_us),
        trips.sent.to_string(),
        format!("{:.1} %", trips.lost_percent()),
    ]
}

fn columns(cells: &[String; 8]) -> String {
    let [first, rest @ ..] = cells;
    let rest: String = rest.iter().map(|cell| format!("{cell:>9}")).collect();
    format!("{first:<16}{rest}")
}

#[cfg(test)]
pub mod testing {
    use std::time::Duration;

    use super::*;

    /// Of a tunnel with 1 of 100 lost.
    pub fn report() -> LinkReport {
        let mut trips = RoundTrips { sent: 100, lost: 1, again: 2, ..RoundTrips::default() };
        trips.jitter_us = Some(120.0);
        for micros in 0..99 {
            trips.times.record(Duration::from_micros(15_000 + micros * 10));
        }
        let throughput = |bits_per_second, is_bounded| Throughput {
            bits_per_second,
            is_bounded,
            retransmissions: 3,
            round_trips: trips.clone(),
        };
        LinkReport {
            schema: SCHEMA.to_owned(),
            version: "0.0.0".to_owned(),
            date: "2026-11-24T20:00:00Z".to_owned(),
            command: "hybridwg bench link wg0".to_owned(),
            interface: "wg0".to_owned(),
            peer: "AQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQE=".to_owned(),
            address: "10.10.0.2".to_owned(),
            handshake_age_seconds: Some(12),
            conditions: Conditions {
                packet_bytes: 84,
                interval_ms: 50,
                seconds: 5,
                mtu: 1420,
                streams: 4,
                stream_seconds: 5,
                rate_mbit: Some(100),
            },
            longest_packet: Some(Longest { bytes: 1372, limit: 1420 }),
            there: Some(throughput(99.5e6, true)),
            back: Some(throughput(42.25e6, false)),
            idle: trips,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_table_says_what_was_found_and_what_may_be_done() {
        let text = testing::report().render();
        for words in [
            "wg0: peer AQEB",
            "last handshake 12 s ago",
            "idle                15.49    15.89    15.98    15.98     0.12      100    1.0 %",
            "while receiving",
            "1372 bytes come back, and longer ones get lost",
            "`MTU = 1372`",
            "there                99.5, the bound: it may carry more; 3 segments sent again",
            "back                 42.2; 3 segments",
            "2 answers came twice",
        ] {
            assert!(text.contains(words), "no `{words}` in\n{text}");
        }
    }

    #[test]
    fn without_a_server_and_without_an_answer_the_table_is_short() {
        let report = LinkReport {
            handshake_age_seconds: None,
            idle: RoundTrips { sent: 5, lost: 5, ..RoundTrips::default() },
            longest_packet: None,
            there: None,
            back: None,
            ..testing::report()
        };
        let text = report.render();
        assert!(text.contains("no handshake yet") && text.contains("100.0 %"), "{text}");
        assert!(text.contains("not known") && !text.contains("Throughput"), "{text}");
    }

    #[test]
    fn a_report_survives_json_and_every_field_is_described() {
        let report = testing::report();
        let value = serde_json::to_value(&report).unwrap();
        assert_eq!(serde_json::from_value::<LinkReport>(value.clone()).unwrap(), report);
        let document = include_str!("../../../docs/bench.md");
        let part = document.split("## A live tunnel").nth(1).expect("a chapter of its own");
        let mut names = Vec::new();
        crate::bench::report::testing::collect_names(&value, &mut names);
        for name in names {
            assert!(part.contains(&format!("`{name}`")), "docs/bench.md says nothing of `{name}`");
        }
    }
}
