//! A floor under the timestamps of initiations that survives a restart: `NAME.clock` in
//! `/var/lib/hybridwg`, or where systemd says ([`VARIABLE`]; empty for nowhere).
//!
//! Peers refuse an initiation whose timestamp does not exceed the last. A machine that comes up with
//! its clock in the past (no battery, a dead one, a restored snapshot) is locked out until the clock
//! has caught up, unless it remembers. The file has one number, the Unix time up to which
//! timestamps may have been sent. It is no secret, and may be removed. [P-43] [WG §5.1]

use std::env;
use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use crate::control::run_folder;
use crate::time::Wall;

/// Names the folder in the place of the usual one. As systemd sets it.
pub const VARIABLE: &str = "STATE_DIRECTORY";

const DIRECTORY: &str = "/var/lib/hybridwg";

/// By how many seconds what was sent may be ahead of the file, so that it is not written for each
/// handshake. If the clock proves wrong, as many are added to what the file says.
const AHEAD_SECS: u64 = 60;

/// The file of one interface.
#[derive(Debug)]
pub struct Floor {
    /// `None`: nothing is kept.
    path: Option<PathBuf>,
    /// What the file says, or is about to.
    kept_secs: u64,
    /// What timestamps were told to exceed.
    raised_to: Wall,
}

/// Something to write, by whoever may wait for a disk.
#[derive(Debug)]
pub struct Save {
    path: PathBuf,
    secs: u64,
}

impl Floor {
    /// Reads what the last daemon of `interface` has left.
    pub fn load(interface: &str) -> Self {
        let directory = match env::var_os(VARIABLE) {
            // Several are separated by colons; ours is the first.
            Some(list) => env::split_paths(&list).next().filter(|first| first != Path::new("")),
            None => Some(DIRECTORY.into()),
        };
        Self::load_from(directory.map(|directory| directory.join(format!("{interface}.clock"))))
    }

    fn load_from(path: Option<PathBuf>) -> Self {
        let text = path.as_ref().and_then(|path| fs::read_to_string(path).ok());
        let kept_secs = text.and_then(|text| text.trim().parse().ok()).unwrap_or(0);
        Self { path, kept_secs, raised_to: Wall::default() }
    }

    pub fn path(&self) -> Option<&Path> {
        self.path.as_deref()
    }

    /// What timestamps must exceed; `None` if the clock is past it, as it should be.
    pub const fn above(&mut self, now: Wall) -> Option<Wall> {
        // The second before is the one in which it was written: whoever starts again at once has the
        // clock of the life before, and need not be ahead of it by another minute each time.
        if now.secs + 1 >= self.kept_secs {
            return None;
        }
        self.raised_to = Wall { secs: self.kept_secs + AHEAD_SECS, nanos: 0 };
        Some(self.raised_to)
    }

    /// What is to be written now that timestamps up to `sent` were sent; `None` if the file is near
    /// enough. It is taken to be written.
    pub fn advance(&mut self, sent: Wall) -> Option<Save> {
        if sent.secs < self.kept_secs + AHEAD_SECS && self.kept_secs != 0 {
            return None;
        }
        self.settle(sent)
    }

    /// As [`advance`](Self::advance), to the second: nothing follows.
    pub fn settle(&mut self, sent: Wall) -> Option<Save> {
        if sent <= self.raised_to {
            return None;
        }
        // Of a second that has begun, the rest may have been used.
        let secs = sent.secs + 1;
        let path = self.path.clone()?;
        (secs > self.kept_secs).then(|| {
            self.kept_secs = secs;
            Save { path, secs }
        })
    }
}

impl Save {
    /// Writes, so that a crash at any moment leaves the old number or the new one.
    ///
    /// # Errors
    /// The folder cannot be made, or not be written to.
    pub fn write(&self) -> io::Result<()> {
        if let Some(directory) = self.path.parent() {
            run_folder::create(directory)?;
        }
        let draft = self.path.with_extension("clock.new");
        let mut file = File::create(&draft)?;
        writeln!(file, "{}", self.secs)?;
        file.sync_data()?;
        fs::rename(&draft, &self.path)
    }

    pub fn path(&self) -> &Path {
        &self.path
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn at(secs: u64) -> Wall {
        Wall { secs, nanos: 0 }
    }

    #[test]
    fn what_was_sent_is_known_to_the_next_life_whatever_its_clock_says() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("state/wg0.clock");
        let load = || Floor::load_from(Some(path.clone()));
        let mut floor = load();
        assert_eq!(floor.above(at(0)), None, "nothing is known");
        floor.advance(at(1000)).unwrap().write().unwrap();
        assert_eq!(load().above(at(1001)), None, "the clock is right");
        assert_eq!(load().above(at(1000)), None, "the same second");
        // Up to a minute more may have been sent.
        assert_eq!(load().above(at(999)), Some(at(1061)));
        assert_eq!(load().above(at(7)), Some(at(1061)));
        assert_eq!(fs::read_dir(path.parent().unwrap()).unwrap().count(), 1, "no draft stays");
    }

    #[test]
    fn the_file_is_written_once_a_minute_and_at_the_end() {
        let mut floor = Floor::load_from(Some("/nonexistent/wg0.clock".into()));
        assert!(floor.advance(at(1000)).is_some());
        assert!(floor.advance(at(1059)).is_none());
        assert!(floor.advance(at(1061)).is_some());
        assert!(floor.advance(at(1061)).is_none());
        assert_eq!(floor.settle(at(1070)).unwrap().secs, 1071);
        assert!(floor.settle(at(1070)).is_none());
    }

    #[test]
    fn a_floor_that_nothing_was_sent_above_is_not_raised() {
        let mut floor = Floor { path: Some("wg0.clock".into()), ..Floor::load_from(None) };
        floor.kept_secs = 1000;
        assert_eq!(floor.above(at(7)), Some(at(1060)));
        assert!(floor.settle(at(1060)).is_none());
        assert!(floor.settle(at(1061)).is_some());
    }

    #[test]
    fn a_file_that_makes_no_sense_is_no_floor_and_nowhere_keeps_nothing() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("wg0.clock");
        fs::write(&path, "yesterday\n").unwrap();
        assert_eq!(Floor::load_from(Some(path)).above(at(0)), None);
        assert!(Floor::load_from(None).advance(at(1000)).is_none());
    }
}
