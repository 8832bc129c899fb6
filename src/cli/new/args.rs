//! The command line of `hybridwg new`.

use std::path::PathBuf;

use clap::{Args, Subcommand};
use ipnet::IpNet;

use crate::control::config::{Dns, parse_dns, parse_network};
use crate::control::maker::DEFAULT_PORT;

#[derive(Clone, Debug, Subcommand)]
pub enum New {
    /// Make the file of a hub, which clients connect to
    Hub(Hub),
    /// Make the file of a client, and add the client to the file of its hub
    Client(Client),
}

#[derive(Clone, Debug, Args)]
pub struct Hub {
    /// The file to make: NAME.conf, or a bare NAME for /etc/wireguard/NAME.conf
    #[arg(value_name = "FILE|NAME")]
    pub config: String,

    /// The name or address at which clients reach this hub, with a port if that is another one than
    /// the hub's own
    #[arg(long, value_name = "HOST[:PORT]")]
    pub endpoint: String,

    /// The networks of the tunnel, such as 10.7.0.0/24,fd07::/64. With host bits, as in
    /// 10.7.0.9/24, that is the hub's own address [default: two that are free on this host]
    #[arg(long, value_name = "NETWORK,…", value_delimiter = ',', value_parser = network)]
    pub network: Vec<IpNet>,

    /// The UDP port that the hub listens on
    #[arg(long, value_name = "N", default_value_t = DEFAULT_PORT)]
    #[arg(value_parser = clap::value_parser!(u16).range(1..))]
    pub port: u16,

    /// Replace a file that is there: its clients have to be made anew
    #[arg(long)]
    pub force: bool,
}

#[derive(Clone, Debug, Args)]
pub struct Client {
    /// The file of the hub, which `hybridwg new hub` or anybody else has made
    #[arg(value_name = "HUB")]
    pub hub: String,

    /// What the client is called: in the file of the hub, and its own is NAME.conf
    #[arg(value_name = "NAME")]
    pub name: String,

    /// Where to put the client's file, or - for standard output [default: NAME.conf in the folder
    /// of the hub's file]
    #[arg(long, value_name = "FILE")]
    pub out: Option<PathBuf>,

    /// Show the client's file as a QR code, which the apps for phones read; without --out it is
    /// written nowhere
    #[arg(long)]
    pub qr: bool,

    /// What goes to the hub, such as 0.0.0.0/0,::/0 for everything [default: the tunnel's networks]
    #[arg(long, value_name = "NETWORK,…", value_delimiter = ',', value_parser = network)]
    pub allowed_ips: Vec<IpNet>,

    /// Name servers and search domains while the tunnel is up
    #[arg(long, value_name = "DNS,…", value_delimiter = ',', value_parser = dns)]
    pub dns: Vec<Dns>,

    /// Where the client reaches the hub, in place of what the hub's file says
    #[arg(long, value_name = "HOST[:PORT]")]
    pub endpoint: Option<String>,

    /// Replace the client's file if it is there
    #[arg(long)]
    pub force: bool,
}

fn network(text: &str) -> Result<IpNet, &'static str> {
    parse_network(text.trim()).ok_or("accepted is a network as ADDRESS/LENGTH")
}

fn dns(text: &str) -> Result<Dns, &'static str> {
    parse_dns(text.trim()).ok_or("accepted is the IP address of a name server or a search domain")
}
