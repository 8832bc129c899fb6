//! The command line, as clap reads it.
//!
//! One positional argument without a command is an interface name, so that the program can stand
//! in for `wireguard-go` wherever a script or wg-quick starts that.

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand, ValueEnum};

/// WireGuard tunnels in userspace.
#[derive(Debug, Parser)]
#[command(name = "hybridwg", version, args_conflicts_with_subcommands = true)]
#[command(arg_required_else_help = true, disable_help_subcommand = true)]
pub struct Arguments {
    #[command(subcommand)]
    pub command: Option<Command>,

    #[command(flatten)]
    pub daemon: Daemon,
}

/// What `wireguard-go` takes.
#[derive(Clone, Debug, Args)]
pub struct Daemon {
    /// Create this interface, serve its UAPI socket, and go to the background once it answers
    #[arg(value_name = "IFACE")]
    pub interface: Option<String>,

    /// Stay in the foreground
    #[arg(short, long, requires = "interface")]
    pub foreground: bool,
}

#[derive(Debug, Subcommand)]
pub enum Command {
    /// Bring up a tunnel from its configuration file
    Up(Tunnel),
    /// Take down a tunnel
    Down(Tunnel),
    /// Show the state of interfaces, as `wg show` does
    Show(Show),
    /// Print a new private key
    Genkey,
    /// Print a new preshared key
    Genpsk,
    /// Read a private key from standard input and print its public key
    Pubkey,
    /// Run a hub and a client on this machine and show what passes between them
    Demo(Demo),
}

#[derive(Clone, Debug, Args)]
pub struct Tunnel {
    /// A file NAME.conf, or a bare NAME for /etc/wireguard/NAME.conf
    #[arg(value_name = "FILE|NAME")]
    pub config: String,
}

#[derive(Clone, Debug, Args)]
pub struct Demo {
    /// Folder with hub.conf and client.conf in place of the built-in ones
    #[arg(long, value_name = "FOLDER")]
    pub configs: Option<PathBuf>,
}

#[derive(Clone, Debug, Args)]
pub struct Show {
    /// An interface, or `all`, or `interfaces` for their names
    #[arg(value_name = "IFACE|all|interfaces", default_value = "all")]
    pub target: String,

    /// Print only this, tab-separated, for scripts
    #[arg(value_enum, conflicts_with = "json")]
    pub parameter: Option<Parameter>,

    /// Print JSON; keys are hidden unless WG_HIDE_KEYS=never
    #[arg(long)]
    pub json: bool,
}

/// One column, or all of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Parameter {
    PublicKey,
    PrivateKey,
    ListenPort,
    Fwmark,
    Peers,
    PresharedKeys,
    Endpoints,
    AllowedIps,
    LatestHandshakes,
    Transfer,
    PersistentKeepalive,
    Dump,
}
