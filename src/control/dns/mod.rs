//! Name servers and search domains of a tunnel: by whatever manages them on this host.
//!
//! systemd-resolved if `/etc/resolv.conf` is its own, else `resolvconf`, else that file itself. A
//! way that fails is told, and the next one tried. With name servers the tunnel's are the only ones,
//! as wg-quick does it; with search domains alone the host's servers stay. [wg-quick(8)]
//!
//! What is done is data ([`DnsChange`]), which the journal keeps until it is taken back.

mod resolv_conf;

use std::fs;
use std::io::{self, Write};
use std::net::IpAddr;
use std::path::Path;
use std::process::{Command, Stdio};

use serde::{Deserialize, Serialize};

use crate::control::config::{At, Dns};
use crate::control::hooks::{is_on_path, on_path};

/// What a tunnel wants.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Wanted {
    pub interface: String,
    pub servers: Vec<IpAddr>,
    pub search: Vec<String>,
}

impl Wanted {
    /// `None` if the file asks for nothing.
    pub fn of(interface: &str, entries: &[At<Dns>]) -> Option<Self> {
        let (mut servers, mut search) = (Vec::new(), Vec::new());
        for entry in entries {
            match &entry.value {
                Dns::Server(address) => servers.push(*address),
                Dns::SearchDomain(domain) => search.push(domain.clone()),
            }
        }
        let interface = interface.to_owned();
        (!entries.is_empty()).then_some(Self { interface, servers, search })
    }

    /// In the words of resolv.conf(5).
    fn lines(&self) -> Vec<String> {
        let servers = self.servers.iter().map(|address| format!("nameserver {address}"));
        let search = (!self.search.is_empty()).then(|| format!("search {}", self.search.join(" ")));
        servers.chain(search).collect()
    }
}

/// One way to set it, done or to be done.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum DnsChange {
    Resolved(Wanted),
    /// `record` is the name under which resolvconf keeps it.
    Resolvconf {
        wanted: Wanted,
        record: String,
    },
    File(Wanted),
}

const RESOLV_CONF: &str = "/etc/resolv.conf";

impl DnsChange {
    /// The ways that this host has, the best first. There is always one.
    pub fn ways(wanted: &Wanted) -> Vec<Self> {
        let mut ways = Vec::new();
        let target = fs::canonicalize(RESOLV_CONF).unwrap_or_default();
        if target.starts_with("/run/systemd/resolve") && is_on_path("resolvectl") {
            ways.push(Self::Resolved(wanted.clone()));
        }
        if let Some(program) = on_path("resolvconf") {
            // A link leads to systemd-resolved's, which takes the prefix for the interface.
            let order = (!program.is_symlink())
                .then(|| fs::read_to_string("/etc/resolvconf/interface-order").ok())
                .flatten();
            let record = format!("{}{}", record_prefix(order.as_deref()), wanted.interface);
            ways.push(Self::Resolvconf { wanted: wanted.clone(), record });
        }
        ways.push(Self::File(wanted.clone()));
        ways
    }

    /// The command that an operator would type for the same effect.
    pub fn describe(&self) -> String {
        match self {
            Self::Resolved(wanted) => {
                resolvectl(wanted).map(|words| format!("resolvectl {}", words.join(" "))).join("; ")
            }
            Self::Resolvconf { wanted, record } => {
                let exclusive = if wanted.servers.is_empty() { "" } else { " -x" };
                format!(
                    "resolvconf -a {record} -m 0{exclusive} <<< '{}'",
                    wanted.lines().join("\n")
                )
            }
            Self::File(wanted) => format!("(write {RESOLV_CONF}: {})", wanted.lines().join(", ")),
        }
    }

    /// The command that takes it back.
    pub fn describe_undo(&self) -> String {
        match self {
            Self::Resolved(wanted) => format!("resolvectl revert {}", wanted.interface),
            Self::Resolvconf { record, .. } => format!("resolvconf -d {record} -f"),
            Self::File(_) => format!("(restore {RESOLV_CONF})"),
        }
    }

    /// # Errors
    /// A program that cannot be run or fails, a file that cannot be written.
    pub fn apply(&self) -> io::Result<()> {
        match self {
            Self::Resolved(wanted) => {
                resolvectl(wanted).iter().try_for_each(|words| run("resolvectl", words, ""))
            }
            Self::Resolvconf { wanted, record } => {
                let mut words = vec!["-a", record, "-m", "0"];
                words.extend((!wanted.servers.is_empty()).then_some("-x"));
                run("resolvconf", &words, &(wanted.lines().join("\n") + "\n"))
            }
            Self::File(wanted) => edit(Path::new(RESOLV_CONF), |text| {
                Some(resolv_conf::with(text, &wanted.interface, &wanted.lines()))
            }),
        }
    }

    /// # Errors
    /// As [`Self::apply`].
    pub fn undo(&self) -> io::Result<()> {
        match self {
            // Its settings belong to the link, and may be gone with it.
            Self::Resolved(wanted) => {
                drop(run("resolvectl", &["revert", &wanted.interface], ""));
                Ok(())
            }
            Self::Resolvconf { record, .. } => run("resolvconf", &["-d", record, "-f"], ""),
            Self::File(wanted) => {
                edit(Path::new(RESOLV_CONF), |text| resolv_conf::without(text, &wanted.interface))
            }
        }
    }
}

/// The commands, each as its words.
fn resolvectl(wanted: &Wanted) -> [Vec<String>; 3] {
    let of = |verb: &str| vec![verb.to_owned(), wanted.interface.clone()];
    let has_servers = !wanted.servers.is_empty();
    let (mut dns, mut domain, mut default) = (of("dns"), of("domain"), of("default-route"));
    dns.extend(wanted.servers.iter().map(ToString::to_string));
    // Every name is asked of the tunnel's servers.
    domain.extend(has_servers.then(|| "~.".to_owned()));
    domain.extend(wanted.search.iter().cloned());
    default.push(if has_servers { "yes" } else { "no" }.to_owned());
    [dns, domain, default]
}

/// Debian's resolvconf sorts records by their names, and `interface-order` says how those of tunnels
/// begin.
fn record_prefix(interface_order: Option<&str>) -> String {
    let word = |c: char| c.is_ascii_alphanumeric() || c == '-';
    let mut patterns = interface_order.into_iter().flat_map(str::lines);
    let prefix = patterns.find_map(|line| {
        line.strip_suffix('*').filter(|prefix| !prefix.is_empty() && prefix.chars().all(word))
    });
    prefix.map_or_else(String::new, |prefix| format!("{prefix}."))
}

fn run<S: AsRef<str>>(program: &str, words: &[S], input: &str) -> io::Result<()> {
    let mut child = Command::new(program)
        .args(words.iter().map(AsRef::as_ref))
        .stdin(Stdio::piped())
        .spawn()?;
    if let Some(mut pipe) = child.stdin.take() {
        // A program that does not read its input says by its status whether it has failed.
        drop(pipe.write_all(input.as_bytes()));
    }
    let status = child.wait()?;
    if status.success() { Ok(()) } else { Err(io::Error::other(format!("{program}: {status}"))) }
}

/// Changes the file in place: in a container it is often mounted by itself, and cannot be replaced.
/// `change` gets `None` if there is no file, and returns `None` if there shall be none.
fn edit(path: &Path, change: impl FnOnce(Option<&str>) -> Option<String>) -> io::Result<()> {
    let edited = match fs::read_to_string(path) {
        Ok(text) => Ok(Some(text)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
    .and_then(|before| match change(before.as_deref()) {
        after if after == before => Ok(()),
        Some(after) => fs::write(path, after),
        None => fs::remove_file(path),
    });
    edited.map_err(|error| io::Error::new(error.kind(), format!("{}: {error}", path.display())))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wanted(servers: &[&str], search: &[&str]) -> Wanted {
        Wanted {
            interface: "wg0".to_owned(),
            servers: servers.iter().map(|text| text.parse().unwrap()).collect(),
            search: search.iter().map(|text| (*text).to_owned()).collect(),
        }
    }

    /// WQ-26.
    #[test]
    fn resolvconf_gets_servers_and_one_search_line_and_is_told_to_use_no_others() {
        let way = |wanted: Wanted| {
            DnsChange::Resolvconf { wanted, record: "tun.wg0".to_owned() }.describe()
        };
        assert_eq!(
            way(wanted(&["10.0.0.53", "fd00::53"], &["a.test", "b.test"])),
            "resolvconf -a tun.wg0 -m 0 -x <<< 'nameserver 10.0.0.53\nnameserver fd00::53\nsearch a.test b.test'"
        );
        // U-03: search domains alone leave the host's servers.
        assert_eq!(way(wanted(&[], &["a.test"])), "resolvconf -a tun.wg0 -m 0 <<< 'search a.test'");
    }

    /// WQ-27.
    #[test]
    fn the_record_of_resolvconf_is_named_as_its_order_of_interfaces_says() {
        assert_eq!(record_prefix(None), "");
        assert_eq!(record_prefix(Some("lo.inet6\nlo.*\ntun*\ntap*\n")), "tun.");
        assert_eq!(record_prefix(Some("*\n")), "");
    }

    /// U-03.
    #[test]
    fn resolved_asks_the_tunnels_servers_for_every_name_if_there_are_any() {
        let told = |wanted| DnsChange::Resolved(wanted).describe();
        assert_eq!(
            told(wanted(&["10.0.0.53"], &["a.test"])),
            "resolvectl dns wg0 10.0.0.53; resolvectl domain wg0 ~. a.test; resolvectl default-route wg0 yes"
        );
        assert_eq!(
            told(wanted(&[], &["a.test"])),
            "resolvectl dns wg0; resolvectl domain wg0 a.test; resolvectl default-route wg0 no"
        );
    }
}
