//! The record of what a running interface was configured with: `/run/hybridwg/NAME.applied`.
//!
//! The text of a configuration file, without keys; a key that there was is all zeros. A reload finds
//! out by it what has changed in the file, and a daemon which file is meant. It is there from the
//! end of `up` until `down` or the daemon's own end.

use std::fs::{self, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use crate::control::config::{self, Config, Lines};
use crate::control::run_folder;
use crate::crypto::key::{KEY_BYTES, PresharedKey, PrivateKey};
use crate::crypto::password::Password;

/// What stands before the path in the first line.
const FILE: &str = "#file=";

/// What stands before a line that was read beside the file: what called it, a tab, the line.
const BESIDE: &str = "#beside=";

/// A file and what it said.
#[derive(Clone, Debug)]
pub struct Record {
    pub file: PathBuf,
    pub config: Config,
}

/// Writes down what `interface` runs with now.
///
/// # Errors
/// The file cannot be written, or the path of the configuration file is no text of one line.
pub fn write(interface: &str, file: &Path, config: &Config) -> io::Result<()> {
    write_in(run_folder::notes(), interface, file, config)
}

fn write_in(folder: &Path, interface: &str, file: &Path, config: &Config) -> io::Result<()> {
    let no_text = || io::Error::other(format!("{} is no text of one line", file.display()));
    let file = file.to_str().filter(|file| !file.contains('\n')).ok_or_else(no_text)?;
    let mut config = config.clone();
    hide_keys(&mut config);
    run_folder::create(folder)?;
    let (path, new) = (path_in(folder, interface), folder.join(format!("{interface}.new")));
    let mut options = OpenOptions::new();
    let mut out = options.create(true).truncate(true).write(true).mode(0o600).open(&new)?;
    writeln!(out, "{FILE}{file}")?;
    for Lines { name, text } in &config.beside {
        text.lines().try_for_each(|line| writeln!(out, "{BESIDE}{name}\t{line}"))?;
    }
    out.write_all(config::render(&config).as_bytes())?;
    fs::rename(new, path)
}

/// What was written down of `interface`, if anything was.
pub fn read(interface: &str) -> Option<Record> {
    read_in(run_folder::notes(), interface)
}

fn read_in(folder: &Path, interface: &str) -> Option<Record> {
    let text = fs::read_to_string(path_in(folder, interface)).ok()?;
    let (file, _) = text.strip_prefix(FILE)?.split_once('\n')?;
    let mut config = config::parse(&text, interface).ok()?.config;
    for line in text.lines().filter_map(|line| line.strip_prefix(BESIDE)) {
        let (name, line) = line.split_once('\t')?;
        match config.beside.last_mut().filter(|last| last.name == name) {
            Some(Lines { text, .. }) => *text = format!("{text}\n{line}"),
            None => config.beside.push(Lines { name: name.to_owned(), text: line.to_owned() }),
        }
    }
    Some(Record { file: file.into(), config })
}

/// Forgets `interface`. A record that stays is of no interface, and does no harm.
pub fn remove(interface: &str) {
    drop(fs::remove_file(path_in(run_folder::notes(), interface)));
}

fn path_in(folder: &Path, interface: &str) -> PathBuf {
    folder.join(format!("{interface}.applied"))
}

fn hide_keys(config: &mut Config) {
    if let Some(key) = &mut config.interface.private_key {
        *key = PrivateKey::from_bytes([0; KEY_BYTES]);
    }
    for login in config.interface.ends.proxies.iter_mut().filter_map(|it| it.value.login.as_mut()) {
        login.password = login.password.as_ref().and_then(|_| Password::new("hidden"));
    }
    for key in config.peers.iter_mut().filter_map(|peer| peer.preshared_key.as_mut()) {
        *key = PresharedKey::NONE;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const KEY: &str = "GBgYGBgYGBgYGBgYGBgYGBgYGBgYGBgYGBgYGBgYGBg=";
    const PEER: &str = "oaGhoaGhoaGhoaGhoaGhoaGhoaGhoaGhoaGhoaGhoaE=";

    #[test]
    fn a_record_tells_the_file_and_what_it_said_but_no_key() {
        let folder = tempfile::tempdir().unwrap();
        let folder = folder.path().join("run");
        let text = format!(
            "[Interface]\nPrivateKey = {KEY}\nAddress = 10.0.0.1/24\nPostUp = a # b\n\n[Peer]\n\
             PublicKey = {PEER}\nPresharedKey = {KEY}\nEndpoint = hub.example.com:1\n"
        );
        let mut config = config::parse(&text, "t").unwrap().config;
        let lines = |name: &str, text: &str| Lines { name: name.into(), text: text.into() };
        config.beside = vec![lines("-L", "Forward = a"), lines("EXTRA", "Mode = tun\n\nx = y")];
        assert!(read_in(&folder, "wg0").is_none());
        write_in(&folder, "wg0", Path::new("/etc/my wg0.conf"), &config).unwrap();
        let record = read_in(&folder, "wg0").unwrap();
        assert_eq!(record.file, Path::new("/etc/my wg0.conf"));
        assert_eq!(record.config.beside, config.beside);
        let zeros = format!("{}=", "A".repeat(43));
        assert_eq!(*config::render(&record.config), text.replace(KEY, &zeros));
        assert!(!fs::read_to_string(folder.join("wg0.applied")).unwrap().contains(KEY));
        assert!(write_in(&folder, "wg0", Path::new("/etc/a\nb"), &config).is_err());
    }
}
