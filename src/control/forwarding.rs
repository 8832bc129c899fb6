//! Whether this host forwards packets: `net.ipv4.ip_forward`, `net.ipv6.conf.all.forwarding`.
//!
//! Both set the like-named parameter of every interface as well, and whoever takes them back must
//! know which of these were set before. Turning off IPv4's lets the host heed redirects again, too.
//! [LNX devinet.c:inet_forward_change]

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
}

impl Forwarding {
    /// As sysctl(8) names the parameter.
    pub const fn name(family: Family) -> &'static str {
        match family {
            Family::V4 => "net.ipv4.ip_forward",
            Family::V6 => "net.ipv6.conf.all.forwarding",
        }
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

    /// What is to be taken back once forwarding has been turned on.
    pub fn change(&self, family: Family) -> Forwarding {
        let folder = self.interfaces(family);
        let entries = fs::read_dir(&folder).into_iter().flatten().filter_map(Result::ok);
        let names = entries.filter_map(|entry| entry.file_name().into_string().ok());
        let is_on = |name: &String| name != "all" && is_one(&folder.join(name).join("forwarding"));
        let mut former: Vec<String> = names.filter(is_on).collect();
        former.sort();
        let refuses_redirects = family == Family::V4 && is_number(&self.redirects(), "0");
        Forwarding { family, former, refuses_redirects }
    }

    /// # Errors
    /// As for [`Self::rehearse`].
    pub fn turn_on(&self, change: &Forwarding) -> io::Result<()> {
        fs::write(self.all(change.family), "1")
    }

    /// # Errors
    /// As for [`Self::rehearse`].
    pub fn turn_off(&self, change: &Forwarding) -> io::Result<()> {
        fs::write(self.all(change.family), "0")?;
        for name in &change.former {
            match fs::write(self.interfaces(change.family).join(name).join("forwarding"), "1") {
                // It has gone meanwhile.
                Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
                Ok(()) | Err(_) => {}
            }
        }
        if change.refuses_redirects { fs::write(self.redirects(), "0") } else { Ok(()) }
    }

    /// Whether the interface heeds router advertisements until IPv6 is forwarded, and then no
    /// longer. [LNX ipv6.h:ipv6_accept_ra]
    pub fn heeds_routers_only_as_a_host(&self, interface: &str) -> bool {
        is_one(&self.interfaces(Family::V6).join(interface).join("accept_ra"))
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
        let change = parameters.change(Family::V6);
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
            let change = parameters.change(Family::V4);
            parameters.turn_on(&change).unwrap();
            // What the kernel does, when it is turned off.
            fs::write(all.join("accept_redirects"), "1").unwrap();
            parameters.turn_off(&change).unwrap();
            assert_eq!(fs::read_to_string(all.join("accept_redirects")).unwrap(), after);
        }
    }
}
