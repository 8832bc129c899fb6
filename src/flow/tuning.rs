//! What flows of peers are like, as far as an operator has a say in it.

use std::fmt;
use std::time::Duration;

use crate::flow::tcp::Algorithm;

/// Flows of all peers, where nobody says otherwise.
pub const FLOWS: usize = 16_384;

/// All settings together.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Tuning {
    /// Of connections to be.
    pub congestion: Algorithm,
    /// How long a UDP port is kept after the last datagram of its peer. [RFC 4787 §4.3]
    pub udp_timeout: Duration,
    pub udp_filter: UdpFilter,
    /// Flows of all peers, if there are as many descriptors.
    pub max_flows: usize,
}

impl Default for Tuning {
    fn default() -> Self {
        Self {
            congestion: Algorithm::Cubic,
            udp_timeout: Duration::from_secs(300),
            udp_filter: UdpFilter::Address,
            max_flows: FLOWS,
        }
    }
}

/// Who may answer to a UDP port. [RFC 4787 §5]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum UdpFilter {
    /// Addresses that it has spoken to.
    Address,
    /// Whomever it may speak to.
    Endpoint,
}

/// One setting, as it is written in a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Tune {
    TcpCongestion(Algorithm),
    UdpTimeout(Duration),
    UdpFilter(UdpFilter),
    MaxFlows(usize),
}

/// What each takes, in words for the user.
pub const CONGESTION_ACCEPTED: &str = "cubic or bbr";
pub const UDP_TIMEOUT_ACCEPTED: &str = "a number of seconds from 120 to 86400";
pub const UDP_FILTER_ACCEPTED: &str = "address or endpoint";
pub const MAX_FLOWS_ACCEPTED: &str = "a number from 4 to 1000000";

impl Tune {
    pub fn congestion(text: &str) -> Option<Self> {
        let known = [Algorithm::Cubic, Algorithm::Bbr].map(Self::TcpCongestion);
        known.into_iter().find(|tune| tune.is_written(text))
    }

    /// Less than two minutes nobody may be given. [RFC 4787 REQ-5]
    pub fn udp_timeout(text: &str) -> Option<Self> {
        let seconds = text.parse().ok().filter(|seconds| (120..=86_400).contains(seconds))?;
        Some(Self::UdpTimeout(Duration::from_secs(seconds)))
    }

    pub fn udp_filter(text: &str) -> Option<Self> {
        let known = [UdpFilter::Address, UdpFilter::Endpoint].map(Self::UdpFilter);
        known.into_iter().find(|tune| tune.is_written(text))
    }

    pub fn max_flows(text: &str) -> Option<Self> {
        let flows = text.parse().ok().filter(|flows| (4..=1_000_000).contains(flows))?;
        Some(Self::MaxFlows(flows))
    }

    fn is_written(self, text: &str) -> bool {
        self.to_string().eq_ignore_ascii_case(text)
    }

    pub const fn apply(self, tuning: &mut Tuning) {
        match self {
            Self::TcpCongestion(algorithm) => tuning.congestion = algorithm,
            Self::UdpTimeout(time) => tuning.udp_timeout = time,
            Self::UdpFilter(filter) => tuning.udp_filter = filter,
            Self::MaxFlows(flows) => tuning.max_flows = flows,
        }
    }
}

/// The value alone.
impl fmt::Display for Tune {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::TcpCongestion(Algorithm::Cubic) => f.write_str("cubic"),
            Self::TcpCongestion(Algorithm::Bbr) => f.write_str("bbr"),
            Self::UdpTimeout(time) => write!(f, "{}", time.as_secs()),
            Self::UdpFilter(UdpFilter::Address) => f.write_str("address"),
            Self::UdpFilter(UdpFilter::Endpoint) => f.write_str("endpoint"),
            Self::MaxFlows(flows) => write!(f, "{flows}"),
        }
    }
}

impl Tuning {
    /// What makes this of the default.
    pub fn tunes(&self) -> [Tune; 4] {
        [
            Tune::TcpCongestion(self.congestion),
            Tune::UdpTimeout(self.udp_timeout),
            Tune::UdpFilter(self.udp_filter),
            Tune::MaxFlows(self.max_flows),
        ]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_setting_is_read_as_it_is_written_and_within_its_range() {
        let read = [
            Tune::congestion("BBR"),
            Tune::udp_timeout("120"),
            Tune::udp_filter("Endpoint"),
            Tune::max_flows("1000000"),
        ];
        let written = read.map(|tune| tune.unwrap().to_string());
        assert_eq!(written, ["bbr", "120", "endpoint", "1000000"]);
        let mut tuning = Tuning::default();
        read.into_iter().flatten().for_each(|tune| tune.apply(&mut tuning));
        assert_eq!(tuning.tunes().map(Some), read);
        for refused in [
            Tune::congestion("reno"),
            Tune::udp_timeout("119"),
            Tune::udp_timeout("86401"),
            Tune::udp_timeout("5m"),
            Tune::udp_filter("port"),
            Tune::max_flows("3"),
            Tune::max_flows("-4"),
        ] {
            assert_eq!(refused, None);
        }
    }
}
