//! The command line, as clap reads it.
//!
//! One positional argument without a command is an interface name, so that the program can stand
//! in for `wireguard-go` wherever a script or wg-quick starts that.

use std::path::PathBuf;

use clap::{Args, CommandFactory, Parser, Subcommand, ValueEnum};
use clap_complete::Shell;

use crate::cli::bench::args::Bench;
use crate::cli::new::args::New;
use crate::control::ends::ssh;
use crate::control::settings::{Offload, Offloads, Settings};
use crate::control::shards::Shards;

/// WireGuard tunnels in userspace.
#[derive(Debug, Parser)]
#[command(name = "hybridwg", version, args_conflicts_with_subcommands = true)]
#[command(arg_required_else_help = true)]
pub struct Arguments {
    #[command(subcommand)]
    pub command: Option<Command>,

    #[command(flatten)]
    pub daemon: Daemon,
}

/// What to type in place of a first word that is a command of wg(8), wg-quick(8) or of other
/// programs, and not of this one. As an interface name it would start a daemon that nobody meant.
pub fn meant_by(word: &str) -> Option<&'static str> {
    Some(match word {
        "set" => "`wg set`",
        "setconf" => "`wg setconf`",
        "addconf" => "`wg addconf`",
        "syncconf" => "`wg syncconf`",
        "showconf" => "`wg showconf`",
        "version" => "`hybridwg --version`",
        "status" => "`hybridwg show`",
        "all" => "`hybridwg show all`",
        "interfaces" => "`hybridwg show interfaces`",
        _ => return None,
    })
}

/// Whether `word` is a command of this program.
pub fn is_command(word: &str) -> bool {
    word == "help" || Arguments::command().find_subcommand(word).is_some()
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

    #[command(flatten)]
    pub device: Device,
}

/// How a device runs.
#[derive(Clone, Debug, Args)]
pub struct Device {
    /// Do without offloads: tso and uso of the TUN device, gso and gro of the UDP sockets, aead-batch
    /// of the processor; or without moderation, by which packets that only go one way may wait for
    /// others, 0.15 ms at most, and all for their turn on a processor
    #[arg(long, value_name = "OFFLOAD,…", value_delimiter = ',', value_parser = offload)]
    pub disable: Vec<Offload>,

    /// Threads that move packets, 1 to 64 [default: by cores: 1 up to four of them, else a quarter
    /// of them, 8 at most]
    #[arg(long, value_name = "N", hide_default_value = true, default_value_t = Shards::by_cores())]
    pub shards: Shards,

    /// Do without an interface, and so without root: services and listeners of the file are the
    /// ends of the tunnel
    #[arg(long)]
    pub rootless: bool,
}

impl Device {
    pub fn settings(&self) -> Settings {
        let all = Offloads::ALL;
        let offloads = self.disable.iter().fold(all, |left, &one| left.with(one, false));
        Settings { offloads, shards: self.shards, is_rootless: self.rootless }
    }
}

fn offload(name: &str) -> Result<Offload, String> {
    let names = Offload::ALL.map(Offload::name).join(", ");
    name.parse().map_err(|()| format!("it can be {names}"))
}

#[derive(Debug, Subcommand)]
pub enum Command {
    /// Bring up a tunnel from its configuration file
    Up(Up),
    /// Take down a tunnel
    Down(Tunnel),
    /// Tell what is wrong or odd about a file. Exit status 0: nothing but notes, 1: warnings, 2: faults
    Check(Check),
    /// Change a running tunnel to what its file says now; sessions of peers that stay are kept
    Reload(Reload),
    /// Write what a tunnel is like now into its file, and change nothing else there
    Save(Tunnel),
    /// Print a file without what wg(8) does not understand, as `wg setconf` takes it
    Strip(Tunnel),
    /// Show the state of interfaces, as `wg show` does
    Show(Show),
    /// Tell in a line whether a tunnel is ready, alive or started, for probes. Exit status 0: yes, 1: no
    Health(Health),
    /// Measure what fits the path to each peer, and print the MTU for the file
    Mtu {
        /// The interface
        #[arg(value_name = "NAME")]
        interface: String,
    },
    /// Connect standard input and output with a place in a tunnel, as ssh wants it:
    /// `ProxyCommand hybridwg nc %h %p`
    Nc(Nc),
    /// Print a new private key
    Genkey,
    /// Print a new preshared key
    Genpsk,
    /// Read a private key from standard input and print its public key
    Pubkey,
    /// Print completions for a shell
    #[command(hide = true)]
    Complete { shell: Shell },
    /// Write the manual pages into a folder
    #[command(hide = true)]
    Man { folder: PathBuf },
    /// Make configuration files: that of a hub, and that of each of its clients
    #[command(subcommand)]
    New(New),
    /// Run a hub and a client on this machine and show what passes between them
    Demo(Demo),
    /// Measure tunnels: this program beside others, on this machine
    #[command(subcommand)]
    Bench(Bench),
}

#[derive(Clone, Debug, Args)]
pub struct Up {
    #[command(flatten)]
    pub tunnel: Tunnel,

    /// Stay until SIGINT or SIGTERM comes or the tunnel ends, and take it down then: for service
    /// managers and containers. Says to systemd when it is up, and reloads the file on SIGHUP
    #[arg(short, long)]
    pub foreground: bool,

    /// Reload the file whenever it changes, which is also when Kubernetes puts another in its place
    #[arg(long, requires = "foreground")]
    pub watch: bool,

    /// Listen on this host, and lead to a place in the tunnel, as ssh does
    #[arg(short = 'L', value_name = "[ADDRESS:]PORT:HOST:PORT", value_parser = ssh::local)]
    pub local: Vec<String>,

    /// Let peers find a service of this host at a port of the tunnel's addresses
    #[arg(short = 'R', value_name = "PORT:HOST:PORT", value_parser = ssh::remote)]
    pub remote: Vec<String>,

    /// Be a SOCKS5 proxy that leads into the tunnel
    #[arg(short = 'D', value_name = "[ADDRESS:]PORT", value_parser = ssh::dynamic)]
    pub dynamic: Vec<String>,
    /// When it is to end, wait so long for flows to end: peers begin no new ones. A second signal ends
    /// it at once
    #[arg(long, value_name = "SECONDS", requires = "foreground", default_value_t = 8)]
    pub grace: u16,

    /// Run the hooks of the file even where there is no interface that they could be about
    #[arg(long)]
    pub allow_hooks: bool,

    #[command(flatten)]
    pub device: Device,
}

#[derive(Clone, Debug, Args)]
pub struct Tunnel {
    /// A file NAME.conf, or a bare NAME for /etc/wireguard/NAME.conf or for the text in the
    /// variable HYBRIDWG_CONFIG if there is one, or - for standard input
    #[arg(value_name = "FILE|NAME")]
    pub config: String,
}

#[derive(Clone, Debug, Args)]
pub struct Check {
    #[command(flatten)]
    pub tunnel: Tunnel,

    /// Print JSON
    #[arg(long)]
    pub json: bool,
}

#[derive(Clone, Debug, Args)]
pub struct Reload {
    #[command(flatten)]
    pub tunnel: Tunnel,

    /// Tell what would be changed, and change nothing
    #[arg(long)]
    pub dry_run: bool,

    /// If hooks have changed, run the old PreDown and PostDown, then the new PreUp and PostUp
    #[arg(long)]
    pub hooks: bool,
}

#[derive(Clone, Debug, Args)]
pub struct Nc {
    /// The tunnel, if there is more than one
    #[arg(long, value_name = "NAME")]
    pub tunnel: Option<String>,

    /// Where to; what the file has as Stdio if it is left out
    #[arg(value_names = ["HOST", "PORT"], num_args = 2)]
    pub place: Vec<String>,
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

#[derive(Clone, Debug, Args)]
pub struct Health {
    /// The interface; may be left out where there is one
    #[arg(value_name = "NAME")]
    pub interface: Option<String>,

    /// There is a session with each peer that is required, or nothing in the way of one: the default
    #[arg(long)]
    pub ready: bool,

    /// Its threads do their work
    #[arg(long, conflicts_with = "ready")]
    pub live: bool,

    /// It has been ready once
    #[arg(long, conflicts_with_all = ["ready", "live"])]
    pub startup: bool,
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

#[cfg(test)]
mod tests {

    use clap::error::ErrorKind;

    use super::*;

    fn read(arguments: &[&str]) -> Result<Arguments, ErrorKind> {
        let words = ["hybridwg"].iter().chain(arguments);
        Arguments::try_parse_from(words).map_err(|error| error.kind())
    }

    #[test]
    fn the_definition_holds_together() {
        Arguments::command().debug_assert();
    }

    #[test]
    fn a_bare_interface_starts_a_daemon_as_wireguard_go_does() {
        for arguments in [&["wg0"][..], &["-f", "wg0"], &["wg0", "-f"], &["--foreground", "wg0"]] {
            let read = read(arguments).unwrap();
            assert!(read.command.is_none(), "{arguments:?}");
            assert_eq!(read.daemon.interface.as_deref(), Some("wg0"));
            assert_eq!(read.daemon.foreground, arguments.len() == 2);
        }
    }

    #[test]
    fn offloads_are_disabled_by_name_for_a_daemon_and_for_up() {
        let daemon = read(&["--disable", "gro,tso", "wg0"]).unwrap().daemon.device.settings();
        assert_eq!(daemon.offloads.to_string(), "uso,gso,aead-batch,moderation");
        let Some(Command::Up(up)) = read(&["up", "wg0", "--disable=uso"]).unwrap().command else {
            panic!("no up");
        };
        assert_eq!(up.device.settings().offloads.to_string(), "tso,gso,gro,aead-batch,moderation");
        assert_eq!(read(&["--disable", "lro", "wg0"]).unwrap_err(), ErrorKind::ValueValidation);
    }

    #[test]
    fn the_number_of_shards_is_1_to_64_and_by_cores_unless_given() {
        let shards = |arguments: &[&str]| {
            let read = read(arguments)?;
            let up = read.command.map(|command| match command {
                Command::Up(up) => up.device.shards,
                other => panic!("{arguments:?}: {other:?}"),
            });
            Ok::<_, ErrorKind>(up.unwrap_or(read.daemon.device.shards))
        };
        let four = "4".parse().unwrap();
        for arguments in [
            &["--shards", "4", "wg0"][..],
            &["wg0", "--shards=4"],
            &["-f", "--shards=4", "--", "wg0"],
            &["up", "wg0", "--shards", "4"],
            &["up", "--shards", "4", "wg0"],
        ] {
            assert_eq!(shards(arguments), Ok(four), "{arguments:?}");
        }
        for arguments in [&["wg0"][..], &["up", "wg0"]] {
            assert_eq!(shards(arguments), Ok(Shards::by_cores()));
        }
        for number in ["0", "65", "x"] {
            let refused = shards(&["up", "wg0", "--shards", number]);
            assert_eq!(refused, Err(ErrorKind::ValueValidation), "{number}");
        }
    }

    #[test]
    fn only_who_stays_in_the_foreground_can_watch() {
        assert_eq!(
            read(&["up", "--watch", "wg0"]).unwrap_err(),
            ErrorKind::MissingRequiredArgument
        );
        assert!(read(&["up", "--foreground", "--watch", "wg0"]).is_ok());
    }

    #[test]
    fn a_command_is_no_interface() {
        assert_eq!(read(&["help"]).unwrap_err(), ErrorKind::DisplayHelp);
        for (name, command) in [("genkey", Command::Genkey), ("pubkey", Command::Pubkey)] {
            let read = read(&[name]).unwrap();
            assert_eq!(read.daemon.interface, None);
            let found = read.command.map(|found| std::mem::discriminant(&found));
            assert_eq!(found, Some(std::mem::discriminant(&command)), "{name}");
        }
    }

    #[test]
    fn a_word_that_stands_for_another_command_is_none_of_ours() {
        for word in ["set", "setconf", "addconf", "syncconf", "showconf"] {
            let meant = meant_by(word).unwrap();
            assert!(meant.starts_with("`wg") && meant.ends_with(&format!(" {word}`")), "{meant}");
        }
        for word in ["version", "status", "all", "interfaces"] {
            let meant = meant_by(word).unwrap().trim_matches('`');
            let words: Vec<&str> = meant.split(' ').skip(1).collect();
            assert!(
                matches!(read(&words), Ok(_) | Err(ErrorKind::DisplayVersion)),
                "{meant} is a command"
            );
        }
        for command in Arguments::command().get_subcommands() {
            assert_eq!(meant_by(command.get_name()), None);
        }
        assert_eq!(meant_by("wg0"), None);
    }

    #[test]
    fn wg_02_show_takes_a_target_and_a_parameter() {
        let show = |arguments: &[&str]| match read(arguments).unwrap().command {
            Some(Command::Show(show)) => (show.target, show.parameter, show.json),
            other => panic!("{arguments:?}: {other:?}"),
        };
        assert_eq!(show(&["show"]), ("all".into(), None, false));
        assert_eq!(show(&["show", "wg0", "dump"]), ("wg0".into(), Some(Parameter::Dump), false));
        assert_eq!(show(&["show", "--json"]), ("all".into(), None, true));
        for parameter in Parameter::value_variants() {
            let name = parameter.to_possible_value().unwrap();
            assert_eq!(show(&["show", "all", name.get_name()]).1, Some(*parameter));
        }
        assert_eq!(read(&["show", "wg0", "bogus"]).unwrap_err(), ErrorKind::InvalidValue);
        assert_eq!(
            read(&["show", "wg0", "dump", "--json"]).unwrap_err(),
            ErrorKind::ArgumentConflict
        );
    }

    #[test]
    fn too_few_and_too_many_arguments_are_refused() {
        for arguments in [&[][..], &["-f"], &["up"], &["up", "a", "b"], &["wg0", "wg1"]] {
            assert!(read(arguments).is_err(), "{arguments:?}");
        }
        assert!(read(&["genkey", "x"]).is_err());
    }
}
