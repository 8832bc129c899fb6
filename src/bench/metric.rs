//! Everything that is measured: key, words, unit, and which way is better.
//!
//! The keys are part of the schema of `--json` (docs/bench.md): they may be added to, and never
//! change their meaning.

use serde::{Deserialize, Serialize};

use super::stats::Better;

/// What is measured together, on one freshly made tunnel.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Group {
    /// TCP streams.
    Tcp,
    /// Datagrams without loss.
    Udp,
    /// Idle: round trips, requests, processor time, memory.
    Latency,
    /// Round trips while streams fill the tunnel.
    Load,
    /// Handshakes of many peers.
    Handshake,
    /// Connections, one after the other.
    Connect,
    /// A stream beside many connections on which nothing passes.
    Crowd,
    /// A stream while another peer begins connections and ends none.
    Flood,
}

impl Group {
    /// Of a tunnel.
    pub const OF_TUNNELS: [Self; 5] =
        [Self::Tcp, Self::Udp, Self::Latency, Self::Load, Self::Handshake];

    /// Of a hub that gets packets of its peers on.
    pub const OF_GATEWAYS: [Self; 5] =
        [Self::Tcp, Self::Udp, Self::Connect, Self::Crowd, Self::Flood];

    pub const fn name(self) -> &'static str {
        match self {
            Self::Tcp => "tcp",
            Self::Udp => "udp",
            Self::Latency => "latency",
            Self::Load => "load",
            Self::Handshake => "handshake",
            Self::Connect => "connect",
            Self::Crowd => "crowd",
            Self::Flood => "flood",
        }
    }
}

/// One thing that is measured.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Metric {
    pub key: &'static str,
    pub label: &'static str,
    pub unit: &'static str,
    pub better: Better,
    /// `None` for what every group measures.
    pub group: Option<Group>,
}

/// In the order of tables.
pub const METRICS: &[Metric] = &[
    more("tcp_1", "TCP, 1 stream", "Gbit/s", Group::Tcp),
    more("tcp_1_back", "TCP, 1 stream, other way", "Gbit/s", Group::Tcp),
    more("tcp_n", "TCP, several streams", "Gbit/s", Group::Tcp),
    more("tcp_n_back", "TCP, several streams, other way", "Gbit/s", Group::Tcp),
    more("tcp_n_fairness", "fairness of several streams", "of 1", Group::Tcp),
    more("tcp_n_back_fairness", "fairness of several, other way", "of 1", Group::Tcp),
    more("tcp_both", "TCP, both ways at once, sum", "Gbit/s", Group::Tcp),
    less("tcp_1_cpu", "processor time of both ends, 1 stream", "s/GB", Group::Tcp),
    less("tcp_1_back_cpu", "processor time of both ends, other way", "s/GB", Group::Tcp),
    less("tcp_n_cpu", "processor time of both ends, several", "s/GB", Group::Tcp),
    less("tcp_1_machine_cpu", "all processor time, 1 stream", "s/GB", Group::Tcp),
    less("tcp_1_again", "segments sent again, 1 stream", "1/GB", Group::Tcp),
    more("udp_64", "UDP, packets of 64 bytes", "1/s", Group::Udp),
    more("udp_512", "UDP, packets of 512 bytes", "1/s", Group::Udp),
    more("udp_mtu", "UDP, packets as long as fit", "1/s", Group::Udp),
    more("request_tcp_1", "TCP requests, 1 connection", "1/s", Group::Latency),
    more("request_tcp_16", "TCP requests, 16 connections", "1/s", Group::Latency),
    more("request_udp_1", "UDP requests, 1 at a time", "1/s", Group::Latency),
    less("idle_p50", "round trip, p50", "µs", Group::Latency),
    less("idle_p90", "round trip, p90", "µs", Group::Latency),
    less("idle_p99", "round trip, p99", "µs", Group::Latency),
    less("idle_p99_9", "round trip, p99.9", "µs", Group::Latency),
    less("idle_lost", "round trips lost", "%", Group::Latency),
    less("loaded_p50", "round trip under load, p50", "µs", Group::Load),
    less("loaded_p90", "round trip under load, p90", "µs", Group::Load),
    less("loaded_p99", "round trip under load, p99", "µs", Group::Load),
    less("loaded_p99_9", "round trip under load, p99.9", "µs", Group::Load),
    less("loaded_lost", "round trips lost under load", "%", Group::Load),
    more("loaded_tcp", "TCP meanwhile, several streams", "Gbit/s", Group::Load),
    less("idle_cpu", "processor time of both ends, idle", "ms/s", Group::Latency),
    less("memory_idle", "resident memory of one end, idle", "MB", Group::Latency),
    less("memory_peak", "resident memory of one end, most", "MB", Group::Tcp),
    Metric { group: None, ..less("start", "start until it can be configured", "ms", Group::Tcp) },
    Metric {
        group: None,
        ..less("first_packet", "start until the first packet", "ms", Group::Tcp)
    },
    more("handshakes", "handshakes answered", "1/s", Group::Handshake),
    more("connections", "connect, one byte there and back, close", "1/s", Group::Connect),
    less("crowd_memory", "memory of the hub for idle connections", "MB", Group::Crowd),
    more("crowd_tcp", "TCP beside them, 1 stream, other way", "Gbit/s", Group::Crowd),
    more("crowd_kept", "share of what it was without them", "%", Group::Crowd),
    more("flood_tcp", "TCP beside a flood of SYN, 1 stream, other way", "Gbit/s", Group::Flood),
    more("flood_kept", "share of what it was without the flood", "%", Group::Flood),
];

/// The metric of that key.
pub fn by_key(key: &str) -> Option<&'static Metric> {
    METRICS.iter().find(|metric| metric.key == key)
}

const fn more(key: &'static str, label: &'static str, unit: &'static str, group: Group) -> Metric {
    Metric { key, label, unit, better: Better::More, group: Some(group) }
}

const fn less(key: &'static str, label: &'static str, unit: &'static str, group: Group) -> Metric {
    Metric { key, label, unit, better: Better::Less, group: Some(group) }
}

/// A number with as many digits as say something: three, and no more than two after the point.
pub fn digits(value: f64) -> String {
    match value.abs() {
        size if size >= 100.0 => grouped(value),
        size if size >= 10.0 => format!("{value:.1}"),
        _ => format!("{value:.2}"),
    }
}

/// Without a fraction, and with a comma before each three digits.
fn grouped(value: f64) -> String {
    let whole = format!("{value:.0}");
    let (sign, figures) = whole.strip_prefix('-').map_or(("", whole.as_str()), |rest| ("-", rest));
    let mut text = String::from(sign);
    for (at, figure) in figures.chars().enumerate() {
        if at > 0 && (figures.len() - at).is_multiple_of(3) {
            text.push(',');
        }
        text.push(figure);
    }
    text
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn every_metric_has_a_key_and_words_of_its_own() {
        let keys: HashSet<_> = METRICS.iter().map(|metric| metric.key).collect();
        let labels: HashSet<_> = METRICS.iter().map(|metric| metric.label).collect();
        assert_eq!((keys.len(), labels.len()), (METRICS.len(), METRICS.len()));
        assert_eq!(by_key("tcp_1").map(|metric| metric.unit), Some("Gbit/s"));
        assert_eq!(by_key("tcp"), None);
    }

    #[test]
    fn every_metric_is_one_of_a_group_that_some_command_measures() {
        let groups = [Group::OF_TUNNELS, Group::OF_GATEWAYS].concat();
        for group in &groups {
            assert_eq!(serde_json::to_value(group).unwrap(), group.name());
        }
        for metric in METRICS {
            assert!(metric.group.is_none_or(|group| groups.contains(&group)), "{}", metric.key);
        }
    }

    #[test]
    fn a_number_has_three_digits() {
        for (value, text) in [
            (0.0, "0.00"),
            (1.234, "1.23"),
            (12.34, "12.3"),
            (123.4, "123"),
            (386_123.0, "386,123"),
            (-1234.0, "-1,234"),
            (1_000_000.0, "1,000,000"),
        ] {
            assert_eq!(digits(value), text);
        }
    }
}
