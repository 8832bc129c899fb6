//! `net.ipv4.conf.all.src_valid_mark`: whether reverse path filtering minds a packet's mark.
//!
//! Where it is strict (`rp_filter` 1), the replies to a tunnel that takes everything are dropped
//! unless it does. In many containers `/proc/sys` cannot be written: then it must be set from
//! outside, or it does not matter, because nothing is strict.

use std::fs::{self, OpenOptions};
use std::io;
use std::path::{Path, PathBuf};

/// As sysctl(8) names it.
pub const NAME: &str = "net.ipv4.conf.all.src_valid_mark";

/// The kernel parameters of IPv4 interfaces.
#[derive(Clone, Debug)]
pub struct Parameters {
    folder: PathBuf,
}

impl Parameters {
    pub fn of_this_host() -> Self {
        Self { folder: PathBuf::from("/proc/sys/net/ipv4/conf") }
    }

    /// Whether marks are minded already. Not if that cannot be read.
    pub fn is_set(&self) -> bool {
        self.number("all", "src_valid_mark") == Some(1)
    }

    /// Finds out whether [`Self::set`] could, and changes nothing.
    ///
    /// # Errors
    /// As for [`Self::set`].
    pub fn rehearse(&self) -> io::Result<()> {
        OpenOptions::new().write(true).open(self.switch()).map(drop)
    }

    /// # Errors
    /// No right, a file system that cannot be written.
    pub fn set(&self, on: bool) -> io::Result<()> {
        fs::write(self.switch(), if on { "1" } else { "0" })
    }

    /// The interfaces on which reverse path filtering is strict: the larger of their own number and
    /// that for all counts. [LNX inetdevice.h:IN_DEV_RPFILTER]
    pub fn strict_interfaces(&self) -> Vec<String> {
        let all = self.number("all", "rp_filter").unwrap_or(0);
        let entries = fs::read_dir(&self.folder).into_iter().flatten().filter_map(Result::ok);
        let names = entries.filter_map(|entry| entry.file_name().into_string().ok());
        let mut strict: Vec<String> = names
            .filter(|name| !matches!(name.as_str(), "all" | "default" | "lo"))
            .filter(|name| self.number(name, "rp_filter").is_some_and(|own| own.max(all) == 1))
            .collect();
        strict.sort();
        strict
    }

    fn switch(&self) -> PathBuf {
        self.folder.join("all/src_valid_mark")
    }

    fn number(&self, interface: &str, parameter: &str) -> Option<u8> {
        let path: &Path = &self.folder.join(interface).join(parameter);
        fs::read_to_string(path).ok()?.trim().parse().ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// U-02.
    #[test]
    fn filtering_is_strict_where_the_larger_number_is_1() {
        let folder = tempfile::tempdir().unwrap();
        let parameters = Parameters { folder: folder.path().to_owned() };
        assert!(!parameters.is_set() && parameters.strict_interfaces().is_empty());
        let write = |interface: &str, number: &str| {
            fs::create_dir_all(folder.path().join(interface)).unwrap();
            fs::write(folder.path().join(interface).join("rp_filter"), number).unwrap();
        };
        for (interface, number) in
            [("all", "0\n"), ("default", "1"), ("eth0", "1\n"), ("eth1", "0"), ("eth2", "2")]
        {
            write(interface, number);
        }
        assert_eq!(parameters.strict_interfaces(), ["eth0"]);
        write("all", "1");
        assert_eq!(parameters.strict_interfaces(), ["eth0", "eth1"]);
        write("all", "2");
        assert!(parameters.strict_interfaces().is_empty());
        parameters.set(true).unwrap();
        assert!(parameters.is_set());
    }
}
