//! The command line of `hybridwg bench`.

use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use clap::{ArgGroup, Args, Subcommand, ValueEnum};

use crate::bench::implementation::Implementation;
use crate::bench::link::protocol::{MOST_SECONDS, MOST_STREAMS, PORT};
use crate::bench::settings::Congestion;
use crate::bench::topology::Wire;

#[derive(Clone, Debug, Subcommand)]
pub enum Bench {
    /// Compare implementations over a wire between two namespaces of this machine
    Tunnel(Tunnel),
    /// The same over an emulated path: what clouds and wide networks do to packets
    Path(PathArguments),
    /// Compare the ways of a hub to get packets of its peers on to a server behind it
    Gateway(Gateway),
    /// Measure a live tunnel from here to one of its peers
    Link(Link),
    /// What this machine can do at most, and what share of it a tunnel reaches
    Crypto(Crypto),
    /// Generate load; started by the other commands
    #[command(hide = true)]
    Worker,
}

#[derive(Clone, Debug, Args)]
pub struct Tunnel {
    #[command(flatten)]
    pub participants: Participants,

    #[command(flatten)]
    pub effort: Effort,

    /// What the wire does with what is sent as one datagram to be cut: it crosses `whole`, or it is
    /// `cut` and joined again as with a network card
    #[arg(long, value_enum, default_value = "whole")]
    pub wire: WireName,

    #[command(flatten)]
    pub output: Output,
}

#[derive(Clone, Debug, Args)]
pub struct PathArguments {
    /// aws, gcp, azure, wan80, lossy, or a file as docs/bench.md describes it
    #[arg(long, value_name = "NAME|FILE")]
    pub profile: String,

    #[command(flatten)]
    pub participants: Participants,

    #[command(flatten)]
    pub effort: Effort,

    #[command(flatten)]
    pub output: Output,
}

#[derive(Clone, Debug, Args)]
pub struct Gateway {
    /// What lies between client and hub: a path of `bench path`, by name or as a file [default: a
    /// wire]
    #[arg(long, value_name = "NAME|FILE")]
    pub profile: Option<String>,

    /// Only these: flow, nft, routed, and names from --impl, which route [default: all]. Ratios are
    /// of the first to the others
    #[arg(long, value_name = "NAME,…", value_delimiter = ',')]
    pub only: Vec<String>,

    /// Another program at both ends: a command that stays in the foreground, {tun} the interface that
    /// it is to create (may be repeated)
    #[arg(long = "impl", value_name = "NAME='COMMAND'")]
    pub named: Vec<Implementation>,

    #[command(flatten)]
    pub effort: Effort,

    #[command(flatten)]
    pub output: Output,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum CongestionName {
    Cubic,
    Bbr,
}

impl CongestionName {
    pub const fn congestion(self) -> Congestion {
        match self {
            Self::Cubic => Congestion::Cubic,
            Self::Bbr => Congestion::Bbr,
        }
    }
}

#[derive(Clone, Debug, Args)]
#[command(group(ArgGroup::new("streaming").args(["throughput", "serve"])))]
pub struct Link {
    /// The interface of the tunnel
    #[arg(value_name = "NAME")]
    pub interface: String,

    /// Whom to measure: an address inside, a public key, or how one begins [default: the only peer]
    #[arg(value_name = "PEER")]
    pub peer: Option<String>,

    /// Seconds of echo requests
    #[arg(long, value_name = "SECONDS", default_value_t = 10, value_parser = clap::value_parser!(u16).range(1..=600))]
    pub seconds: u16,

    /// Milliseconds between two requests
    #[arg(long, value_name = "MS", default_value_t = 50, value_parser = clap::value_parser!(u16).range(10..=10_000))]
    pub interval: u16,

    /// Measure TCP both ways as well; `hybridwg bench link NAME --serve` must run at the other end
    #[arg(long)]
    pub throughput: bool,

    /// Mbit/s of the streams at most, or `full` for as fast as they go; what is asked for above that
    /// of the other end is refused
    #[arg(long, value_name = "MBIT", default_value = "100", requires = "streaming")]
    pub rate: Rate,

    /// Streams each way
    #[arg(long, value_name = "N", default_value_t = 4, requires = "throughput", value_parser = clap::value_parser!(u16).range(1..=i64::from(MOST_STREAMS)))]
    pub streams: u16,

    /// Seconds that streams are counted
    #[arg(long, value_name = "SECONDS", default_value_t = 5, requires = "throughput", value_parser = clap::value_parser!(u16).range(1..=i64::from(MOST_SECONDS)))]
    pub stream_seconds: u16,

    /// Write what was found to this file, as docs/bench.md describes it
    #[arg(long, value_name = "FILE")]
    pub json: Option<PathBuf>,

    /// Be the other end of --throughput, for the peers of the tunnel alone
    #[arg(long, conflicts_with_all = ["peer", "throughput", "json"])]
    pub serve: bool,

    /// How long --serve does so
    #[arg(long, value_name = "MINUTES", default_value_t = 60, requires = "serve", value_parser = clap::value_parser!(u16).range(1..))]
    pub minutes: u16,

    /// The port of --serve
    #[arg(long, value_name = "PORT", default_value_t = PORT, value_parser = clap::value_parser!(u16).range(1..))]
    pub port: u16,
}

/// A bound of streams.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rate {
    Mbit(u32),
    Full,
}

impl Rate {
    pub const fn mbit(self) -> Option<u32> {
        match self {
            Self::Mbit(mbit) => Some(mbit),
            Self::Full => None,
        }
    }
}

impl FromStr for Rate {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        if text == "full" {
            return Ok(Self::Full);
        }
        let mbit = text.parse().ok().filter(|mbit| *mbit > 0);
        mbit.map(Self::Mbit).ok_or("it can be a whole number of Mbit/s, 1 at least, or `full`")
    }
}

#[derive(Clone, Debug, Args)]
pub struct Crypto {
    /// Seconds for each ceiling
    #[arg(long, value_name = "SECONDS", default_value_t = 2, value_parser = clap::value_parser!(u16).range(1..=600))]
    pub seconds: u16,

    /// Rounds of the tunnel beside them; 0 measures the ceilings alone
    #[arg(long, value_name = "N", default_value_t = 3, value_parser = clap::value_parser!(u32).range(0..=1000))]
    pub rounds: u32,

    /// Write what was found to this file, as docs/bench.md describes it
    #[arg(long, value_name = "FILE")]
    pub json: Option<PathBuf>,
}

/// Who takes part.
#[derive(Clone, Debug, Args)]
pub struct Participants {
    /// Another implementation: a command that stays in the foreground, {tun} the interface that it
    /// is to create (may be repeated)
    #[arg(long = "impl", value_name = "NAME='COMMAND'")]
    pub named: Vec<Implementation>,

    /// Only these: hybridwg, kernel, plain, names from --impl, and wireguard-go, boringtun, gotatun
    /// if they are in PATH [default: all that there are]. Ratios are of the first to the others
    #[arg(long, value_name = "NAME,…", value_delimiter = ',')]
    pub only: Vec<String>,
}

/// How long, how often and by what.
#[derive(Clone, Debug, Args)]
pub struct Effort {
    /// How often everything is measured; verdicts take 5 at least
    #[arg(long, value_name = "N", default_value_t = 6, value_parser = clap::value_parser!(u32).range(1..=1000))]
    pub rounds: u32,

    /// Only these: tcp, udp, latency, load, handshake; of a gateway tcp, udp, connect, crowd, flood
    #[arg(long, value_name = "GROUP,…", value_delimiter = ',')]
    pub groups: Vec<String>,

    /// Streams where several are measured [default: 4, of a gateway 8]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(2..=128))]
    pub streams: Option<u16>,

    /// MTU of the tunnels, in bytes [default: that of the path minus 80, 1420 at most]
    #[arg(long, value_name = "BYTES", value_parser = clap::value_parser!(u32).range(576..=9000))]
    pub mtu: Option<u32>,

    /// How streams of TCP avoid congestion [default: the kernel's own; the flows of hubs: cubic]
    #[arg(long, value_enum, value_name = "ALGORITHM")]
    pub congestion: Option<CongestionName>,

    /// A first look, in a third of the time
    #[arg(long)]
    pub quick: bool,

    /// Seconds that each measurement waits for others to leave the processors alone [default: 30,
    /// quick 2]
    #[arg(long, value_name = "SECONDS")]
    pub patience: Option<u16>,
}

impl Effort {
    pub fn congestion(&self) -> Option<Congestion> {
        self.congestion.map(CongestionName::congestion)
    }

    pub fn patience(&self) -> Option<Duration> {
        self.patience.map(|seconds| Duration::from_secs(seconds.into()))
    }
}

/// Where the results go.
#[derive(Clone, Debug, Args)]
pub struct Output {
    /// Write everything that was measured to this file, as docs/bench.md describes it
    #[arg(long, value_name = "FILE")]
    pub json: Option<PathBuf>,

    /// Write a page with charts to this file, which needs nothing else to be read
    #[arg(long, value_name = "FILE")]
    pub html: Option<PathBuf>,

    /// Compare with what --json wrote earlier; exit status 3 if something of the first that takes
    /// part is worse
    #[arg(long, value_name = "FILE")]
    pub compare: Option<PathBuf>,

    /// What --compare takes for the same, in percent
    #[arg(long, value_name = "PERCENT", default_value_t = 5.0, requires = "compare", value_parser = tolerance)]
    pub tolerance: f64,
}

fn tolerance(text: &str) -> Result<f64, &'static str> {
    let percent = text.parse().ok().filter(|percent| (0.0..=1000.0).contains(percent));
    percent.ok_or("it can be 0 to 1000")
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum WireName {
    Whole,
    Cut,
}

impl WireName {
    pub const fn wire(self) -> Wire {
        match self {
            Self::Whole => Wire::Whole,
            Self::Cut => Wire::Cut,
        }
    }

    pub const fn name(self) -> &'static str {
        match self {
            Self::Whole => "whole",
            Self::Cut => "cut",
        }
    }
}
