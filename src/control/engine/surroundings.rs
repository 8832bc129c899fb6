//! What the engine does when the host around it changes: other ways to the peers, a suspended
//! machine or a copy of one, a clock that was set.

use std::time::Duration;

use tracing::{debug, info, warn};

use super::Engine;
use super::watchdog::Watchdog;
use crate::control::floor::{Floor, Save};
use crate::control::paths::{Finding, Paths};
use crate::proto::endpoint::Endpoint;
use crate::proto::peer::PeerId;
use crate::sys::clock;
use crate::time::{Instant, Now, Wall};

/// A machine that was suspended for less was not: two clocks cannot be read at the same moment.
const SHORTEST_SUSPEND: Duration = Duration::from_millis(100);

/// By how much the clock may be behind the last handshake before it is worth a word.
const CLOCK_TOLERANCE_SECS: u64 = 60;

/// What is known of the host.
#[derive(Debug)]
pub(super) struct Surroundings {
    pub paths: Paths,
    floor: Floor,
    /// For how long the machine has been suspended since it was booted.
    suspended: Duration,
}

impl Surroundings {
    pub fn new(interface: &str) -> Self {
        Self {
            paths: Paths::default(),
            floor: Floor::load(interface),
            suspended: clock::suspended(),
        }
    }
}

impl Engine {
    /// When the next turn is due if nothing happens until then.
    pub(super) fn next_deadline(&self) -> Option<Instant> {
        let sign_of_life = self.watchdog.as_ref().map(Watchdog::due);
        let others = self.surroundings.paths.due().into_iter().chain(sign_of_life);
        let others = others.chain(self.path_mtus.next_deadline());
        self.device.next_deadline().into_iter().chain(others).min()
    }

    /// Takes up the timestamps where an earlier life of this interface has left them.
    pub(super) fn raise_timestamp_floor(&mut self, wall: Wall) {
        if let Some(floor) = self.surroundings.floor.above(wall) {
            self.device.raise_timestamp_floor(floor);
            self.warn_of_clock(wall);
        }
    }

    /// Does what is due because of the host, and has what must survive written.
    pub(super) fn look_around(&mut self, now: Now) {
        if self.surroundings.paths.due().is_some_and(|due| due <= now.mono) {
            self.follow_paths(now);
        }
        let sent = self.device.timestamp_floor();
        if let Some(save) = sent.and_then(|sent| self.surroundings.floor.advance(sent)) {
            // It may wait for a disk.
            tokio::task::spawn_blocking(move || write(&save));
        }
    }

    /// The last chance to have written what must survive.
    pub(super) fn settle(&mut self) {
        let sent = self.device.timestamp_floor();
        if let Some(save) = sent.and_then(|sent| self.surroundings.floor.settle(sent)) {
            write(&save);
        }
    }

    /// Finds out whose packets leave by another way than before, and tells those peers. [P-81]
    fn follow_paths(&mut self, now: Now) {
        let peers: Vec<(PeerId, Endpoint)> = self
            .device
            .peers()
            .filter_map(|(peer, _)| Some((peer, self.tables.peer(peer)?.endpoint()?)))
            .collect();
        let found = self.surroundings.paths.look(&peers, self.fwmark, || clock::now().mono);
        let changed = match found {
            Ok(changed) => changed,
            Err(error) => return warn!(%error, "cannot find out how packets leave now"),
        };
        for (peer, finding) in changed {
            let key = self.device.peer(peer).map(|state| *state.public_key());
            match finding {
                Finding::Same => {}
                Finding::Lost => {
                    debug!(peer = ?key, "no way leads to its endpoint any more");
                    self.tables.peer(peer).inspect(|path| path.clear_source());
                }
                Finding::Changed => {
                    debug!(peer = ?key, "packets leave by another way: new handshake");
                    self.device.handle_path_change(now, peer, &mut self.outputs);
                    self.forget_size(now.mono, peer);
                }
            }
        }
        self.carry_out();
    }

    /// The wall clock was set, or the machine was suspended. Keys from before do not outlive the
    /// latter. [P-85]
    pub(super) fn follow_clocks(&mut self) {
        let (now, suspended) = (clock::now(), clock::suspended());
        let asleep = suspended.saturating_sub(self.surroundings.suspended);
        self.surroundings.suspended = suspended;
        if asleep >= SHORTEST_SUSPEND {
            info!(?asleep, "the machine was suspended: new handshakes");
            self.device.handle_discontinuity(now, &mut self.outputs);
            self.carry_out();
        } else {
            self.warn_of_clock(now.wall);
        }
    }

    /// The machine is a copy of another, which has the same keys and may use them: none of them is
    /// used again here. [P-85]
    pub(super) fn start_over_as_copy(&mut self) {
        info!("the machine was restored from a snapshot or cloned: new handshakes");
        self.device.handle_discontinuity(clock::now(), &mut self.outputs);
        self.carry_out();
    }

    /// Tells the user about a clock that must be wrong, or must have been.
    fn warn_of_clock(&self, wall: Wall) {
        let behind =
            self.device.timestamp_floor().map_or(0, |sent| sent.secs.saturating_sub(wall.secs));
        if behind > CLOCK_TOLERANCE_SECS {
            warn!(
                seconds = behind,
                file = ?self.surroundings.floor.path(),
                "the clock stands before the last handshake: timestamps go on from there. Set the \
                 clock, or remove the file if the clock was wrong then"
            );
        }
    }
}

/// Without the file a wrong clock may lock us out after a restart, which is no reason to end.
fn write(save: &Save) {
    if let Err(error) = save.write() {
        info!(%error, file = %save.path().display(), "cannot keep the time of the last handshake");
    }
}
