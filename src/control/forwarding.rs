//! Whether this host forwards packets: `net.ipv4.ip_forward`, `net.ipv6.conf.all.forwarding`.
//!
//! Both set the like-named parameter of every interface as well, and whoever takes them back must
//! know which of these were set before. Turning off IPv4's lets the host heed redirects again, too.
//! [LNX devinet.c:inet_forward_change]
//!
//! Turning on IPv6's makes the kernel forget at once the default routes that it has from router
//! advertisements, and heed no more of them, but for interfaces whose `accept_ra` is 2. An uplink
//! that was given 1 gets 2 before, so that the host keeps its own way out: it heeds then exactly what
//! it heeded before. [LNX route.c:rt6_purge_dflt_routers] [LNX ipv6.h:ipv6_accept_ra]

use std::fs::{self, OpenOptions};
use std::io;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::control::netlink::Family;

/// The kernel parameters of forwarding.
#[derive(Clone, Debug)]
pub struct Parameters {
    folder: PathBuf,
}

/// Forwarding that was off and is on.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Forwarding {
    pub family: Family,
    /// Interfaces for which it was on nevertheless, `default` among them.
    pub former: Vec<String>,
    /// Redirects of IPv4 were not heeded although nothing was forwarded.
    pub refuses_redirects: bool,
    /// Interfaces whose `accept_ra` was 1 and is 2.
    #[serde(default)]
    pub heeds_routers: Vec<String>,
    /// Somebody translated addresses here although nothing was forwarded.
    #[serde(default)]
    pub is_translated: bool,
}

impl Forwarding {
    /// As sysctl(8) names the parameter.
    pub const fn name(family: Family) -> &'static str {
        match family {
            Family::V4 => "net.ipv4.ip_forward",
            Family::V6 => "net.ipv6.conf.all.forwarding",
        }
    }

    /// The command that an operator would type to turn it on.
    pub fn on_command(&self) -> String {
        format!("sysctl -q{} {}=1", self.routers(2), Self::name(self.family))
    }

    pub fn off_command(&self) -> String {
        format!("sysctl -q {}=0{}", Self::name(self.family), self.routers(1))
    }

    fn routers(&self, value: u8) -> String {
        // sysctl(8) takes points for slashes, and slashes for points.
        let names = self.heeds_routers.iter().map(|name| name.replace('.', "/"));
        names.map(|name| format!(" net.ipv6.conf.{name}.accept_ra={value}")).collect()
    }
}

impl Parameters {
    pub fn of_this_host() -> Self {
        Self { folder: PathBuf::from("/proc/sys/net") }
    }

    pub fn is_on(&self, family: Family) -> bool {
        is_one(&self.all(family))
    }

    /// Finds out whether [`Self::turn_on`] could, and changes nothing.
    ///
    /// # Errors
    /// No right, a file system that cannot be written, no such family.
    pub fn rehearse(&self, family: Family) -> io::Result<()> {
        OpenOptions::new().write(true).open(self.all(family)).map(drop)
    }

    /// What is to be changed, and taken back later, on a host whose default routes lead through
    /// `uplinks`.
    pub fn change(&self, family: Family, uplinks: &[String]) -> Forwarding {
        let folder = self.interfaces(family);
        let entries = fs::read_dir(&folder).into_iter().flatten().filter_map(Result::ok);
        let names = entries.filter_map(|entry| entry.file_name().into_string().ok());
        let is_on = |name: &String| name != "all" && is_one(&folder.join(name).join("forwarding"));
        let mut former: Vec<String> = names.filter(is_on).collect();
        former.sort();
        let refuses_redirects = family == Family::V4 && is_number(&self.redirects(), "0");
        let heeds = |name: &&String| family == Family::V6 && is_one(&self.heeds_routers(name));
        let heeds_routers = uplinks.iter().filter(heeds).cloned().collect();
        Forwarding { family, former, refuses_redirects, heeds_routers, is_translated: false }
    }

    /// Makes all of the change, or nothing of it.
    ///
    /// # Errors
    /// As for [`Self::rehearse`].
    pub fn turn_on(&self, change: &Forwarding) -> io::Result<()> {
        let heeding = change.heeds_routers.iter().map(|name| self.heeds_routers(name));
        let outcome = if_there(heeding.map(|path| fs::write(path, "2")))
            .and_then(|()| fs::write(self.all(change.family), "1"));
        if outcome.is_err() {
            // What failed is what the caller is to hear of.
            let _ = self.heed_as_before(change);
        }
        outcome
    }

    /// # Errors
    /// As for [`Self::rehearse`].
    pub fn turn_off(&self, change: &Forwarding) -> io::Result<()> {
        fs::write(self.all(change.family), "0")?;
        let folder = self.interfaces(change.family);
        let former = change.former.iter().map(|name| folder.join(name).join("forwarding"));
        if_there(former.map(|path| fs::write(path, "1")))?;
        self.heed_as_before(change)?;
        if change.refuses_redirects { fs::write(self.redirects(), "0") } else { Ok(()) }
    }

    /// But for interfaces that somebody has given another number meanwhile.
    fn heed_as_before(&self, change: &Forwarding) -> io::Result<()> {
        let paths = change.heeds_routers.iter().map(|name| self.heeds_routers(name));
        let ours = paths.filter(|path| is_number(path, "2"));
        if_there(ours.map(|path| fs::write(path, "1")))
    }

    fn heeds_routers(&self, interface: &str) -> PathBuf {
        self.interfaces(Family::V6).join(interface).join("accept_ra")
    }

    fn all(&self, family: Family) -> PathBuf {
        match family {
            Family::V4 => self.folder.join("ipv4/ip_forward"),
            Family::V6 => self.folder.join("ipv6/conf/all/forwarding"),
        }
    }

    fn redirects(&self) -> PathBuf {
        self.folder.join("ipv4/conf/all/accept_redirects")
    }

    fn interfaces(&self, family: Family) -> PathBuf {
        match family {
            Family::V4 => self.folder.join("ipv4/conf"),
            Family::V6 => self.folder.join("ipv6/conf"),
        }
    }
}

/// An interface may have gone meanwhile.
fn if_there(mut outcomes: impl Iterator<Item = io::Result<()>>) -> io::Result<()> {
    outcomes.try_for_each(|outcome| match outcome {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        Ok(()) | Err(_) => Ok(()),
    })
}

fn is_one(path: &Path) -> bool {
    is_number(path, "1")
}

fn is_number(path: &Path, number: &str) -> bool {
    fs::read_to_string(path).is_ok_and(|text| text.trim() == number)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_on_for_an_interface_is_on_again_after_all_was_turned_off() {
        let folder = tempfile::tempdir().unwrap();
        let parameters = Parameters { folder: folder.path().to_owned() };
        assert!(!parameters.is_on(Family::V6) && parameters.rehearse(Family::V6).is_err());
        let conf = folder.path().join("ipv6/conf");
        for (name, value) in [("all", "0\n"), ("default", "0"), ("docker0", "1\n"), ("eth0", "0")] {
            fs::create_dir_all(conf.join(name)).unwrap();
            fs::write(conf.join(name).join("forwarding"), value).unwrap();
        }
        let change = parameters.change(Family::V6, &[]);
        assert_eq!(change.former, ["docker0"]);
        parameters.rehearse(Family::V6).unwrap();
        assert!(!parameters.is_on(Family::V6), "a rehearsal changes nothing");
        parameters.turn_on(&change).unwrap();
        assert!(parameters.is_on(Family::V6));
        // What the kernel does.
        fs::write(conf.join("docker0/forwarding"), "0").unwrap();
        let gone = Forwarding { former: vec!["docker0".into(), "gone0".into()], ..change };
        parameters.turn_off(&gone).unwrap();
        assert!(!parameters.is_on(Family::V6));
        assert!(is_one(&conf.join("docker0/forwarding")));
        assert!(!conf.join("gone0").exists());
    }

    #[test]
    fn a_host_that_does_not_heed_redirects_does_not_after_all_was_turned_off() {
        for (before, after) in [("0", "0"), ("1", "1")] {
            let folder = tempfile::tempdir().unwrap();
            let parameters = Parameters { folder: folder.path().to_owned() };
            let all = folder.path().join("ipv4/conf/all");
            fs::create_dir_all(&all).unwrap();
            fs::write(folder.path().join("ipv4/ip_forward"), "0").unwrap();
            fs::write(all.join("accept_redirects"), before).unwrap();
            let change = parameters.change(Family::V4, &[]);
            parameters.turn_on(&change).unwrap();
            // What the kernel does, when it is turned off.
            fs::write(all.join("accept_redirects"), "1").unwrap();
            parameters.turn_off(&change).unwrap();
            assert_eq!(fs::read_to_string(all.join("accept_redirects")).unwrap(), after);
        }
    }

    #[test]
    fn an_uplink_heeds_routers_as_before_while_ipv6_is_forwarded_and_after() {
        let folder = tempfile::tempdir().unwrap();
        let parameters = Parameters { folder: folder.path().to_owned() };
        let conf = folder.path().join("ipv6/conf");
        let heeds = |name: &str| fs::read_to_string(conf.join(name).join("accept_ra")).unwrap();
        for (name, accept_ra) in [
            ("all", "1"),
            ("eth0", "1\n"),
            ("eth1.7", "1"),
            ("eth2", "0"),
            ("eth3", "2"),
            ("eth4", "1"),
        ] {
            fs::create_dir_all(conf.join(name)).unwrap();
            fs::write(conf.join(name).join("forwarding"), "0").unwrap();
            fs::write(conf.join(name).join("accept_ra"), accept_ra).unwrap();
        }
        let uplinks = ["eth0", "eth1.7", "eth2", "eth3"].map(str::to_owned);
        let change = parameters.change(Family::V6, &uplinks);
        assert_eq!(change.heeds_routers, ["eth0", "eth1.7"]);
        assert_eq!(
            change.on_command(),
            "sysctl -q net.ipv6.conf.eth0.accept_ra=2 net.ipv6.conf.eth1/7.accept_ra=2 \
             net.ipv6.conf.all.forwarding=1"
        );
        assert_eq!(
            change.off_command(),
            "sysctl -q net.ipv6.conf.all.forwarding=0 net.ipv6.conf.eth0.accept_ra=1 \
             net.ipv6.conf.eth1/7.accept_ra=1"
        );
        let all = || ["eth0", "eth1.7", "eth2", "eth3", "eth4"].map(heeds).concat();
        parameters.turn_on(&change).unwrap();
        assert_eq!(all(), "22021");
        // Somebody has decided otherwise, and an interface has gone.
        fs::write(conf.join("eth0/accept_ra"), "0").unwrap();
        let heeds_routers = [change.heeds_routers, vec!["gone0".to_owned()]].concat();
        let change = Forwarding { heeds_routers, ..change };
        parameters.turn_off(&change).unwrap();
        assert_eq!(all(), "01021");
        // All or nothing.
        fs::remove_file(conf.join("all/forwarding")).unwrap();
        fs::create_dir(conf.join("all/forwarding")).unwrap();
        assert!(parameters.turn_on(&parameters.change(Family::V6, &uplinks)).is_err());
        assert_eq!(all(), "01021");
    }
}
