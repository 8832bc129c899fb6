//! Changes of the host as steps: each can be described, applied and taken back.
//!
//! A [`Transaction`] applies steps in order, prints each as wg-quick prints its commands, and
//! takes back what it did in reverse order unless it is committed. What to do stands in `up`; the
//! kinds of steps stand in `link`, `routes` and `hooks`.
//!
//! Must not print by itself: words go to the [`Console`] that the caller brings.

use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::ExitStatus;

use crate::control::daemon::DaemonError;
use crate::control::forwarding::Forwarding;
use crate::control::interrupt::Interrupt;
use crate::control::journal::JournalError;
use crate::control::netlink::{Family, Netlink, NetlinkError};
use crate::control::policy;
use crate::control::resolve::ResolveError;
use crate::control::save::SaveError;
use crate::control::uapi::Errno;
use crate::control::uapi::client::ClientError;

/// Where a lifecycle says what it does.
pub trait Console {
    /// A command that is about to be carried out, in the words of ip(8), wg(8) or a hook.
    fn command(&mut self, line: &str);

    /// Something that the operator should know, though it does not stop the work.
    fn warn(&mut self, text: &str);
}

/// Why a step failed.
#[derive(Debug, thiserror::Error)]
pub enum LifecycleError {
    #[error("`{interface}' already exists")]
    Exists { interface: String },
    #[error("`{interface}' already exists: `hybridwg down {argument}` takes it down")]
    Running { interface: String, argument: String },
    #[error("another `hybridwg up`, `down` or `reload` of {interface} is at work")]
    Busy { interface: String },
    #[error("cannot remove {} of a daemon that has ended", .socket.display())]
    LeftBehind { socket: PathBuf, source: io::Error },
    #[error("`{interface}' is not a WireGuard interface")]
    NotWireGuard { interface: String },
    #[error(
        "`{interface}' is not here, though its daemon answers: renamed or in another network \
         namespace"
    )]
    Elsewhere { interface: String },
    #[error(transparent)]
    Netlink(#[from] NetlinkError),
    #[error(transparent)]
    Journal(#[from] JournalError),
    #[error(
        "KillSwitch is on, but nothing goes into {interface} by default: no peer has 0.0.0.0/0 or \
         ::/0 in its AllowedIPs"
    )]
    NothingToClose { interface: String },
    #[error(
        "Masquerade is on, but for whom? A peer of {interface} has everything (0.0.0.0/0 or ::/0) \
         in its AllowedIPs, which is a way out and no source: MasqueradeFrom says the networks"
    )]
    NoMasqueradeSource { interface: String },
    #[error(
        "{interface} cannot masquerade by nftables:\n- {obstacles}\n\
         `Masquerade = flow` needs nothing of that"
    )]
    NoMasquerade { interface: String, obstacles: String },
    #[error(
        "{interface} cannot masquerade: this host's addresses, which peers shall not reach, cannot be \
         read. A sandbox that allows netlink sockets (AF_NETLINK) helps, or `Masquerade = off`"
    )]
    NoAddresses { interface: String, source: NetlinkError },
    #[error("cannot write {}", Forwarding::name(*.family))]
    Forwarding { family: Family, source: io::Error },
    #[error("cannot set DNS")]
    Dns(#[source] io::Error),
    #[error("cannot write net.ipv4.conf.all.src_valid_mark")]
    SrcValidMark(#[source] io::Error),
    #[error(transparent)]
    Policy(#[from] policy::Exhausted),
    #[error(
        "{interface} cannot take everything: this kernel has no policy routing for {family} \
         (CONFIG_IP_MULTIPLE_TABLES, CONFIG_IPV6_MULTIPLE_TABLES). Halves of everything in \
         AllowedIPs, as 0.0.0.0/1 and 128.0.0.0/1, need none; the endpoint then needs a route of \
         its own"
    )]
    NoPolicyRouting { interface: String, family: &'static str, source: NetlinkError },
    #[error(
        "no routing table is called {name:?}: a line `NUMBER {name}` in /etc/iproute2/rt_tables \
         gives it a number"
    )]
    NoTable { name: String },
    #[error(transparent)]
    Uapi(#[from] ClientError),
    #[error(transparent)]
    Resolve(#[from] ResolveError),
    #[error(
        "UDP port {port}, the ListenPort of {interface}, is in use \
         (`ss -lunp sport = {port}` shows by whom)"
    )]
    PortInUse { interface: String, port: u16 },
    #[error(
        "the daemon of {interface} cannot listen on {address}, its Health, for HTTP: {errno} (it \
         takes an address of this host and a port that is free, above 1023 without root)"
    )]
    Health { interface: String, address: SocketAddr, errno: Errno },
    #[error(
        "the daemon of {interface} cannot listen at {place}: {errno} (it takes an address of this host \
         and a port that is free, above 1023 without root)"
    )]
    Serving { interface: String, place: String, errno: Errno },
    #[error(
        "{interface} cannot be brought up here. What is missing, and what supplies it:\n{missing}"
    )]
    Preflight { interface: String, missing: String },
    #[error(
        "{key}: {interface} has no interface that a hook could be about. Without it `hybridwg up` \
         works; `--allow-hooks` runs it all the same"
    )]
    HooksRefused { interface: String, key: &'static str },
    #[error(
        "cannot write {}: the tunnel needs a folder for its socket (XDG_RUNTIME_DIR names one; in a \
         container, a tmpfs or emptyDir at /run or /tmp is enough)", .path.display()
    )]
    NoFolder { path: PathBuf, source: io::Error },
    #[error("cannot start the daemon of {interface}")]
    Daemon { interface: String, source: DaemonError },
    #[error("{key} failed ({status}): {command}")]
    Hook { key: &'static str, status: ExitStatus, command: String },
    #[error("cannot run {key}: {command}")]
    HookNotRun { key: &'static str, command: String, source: io::Error },
    #[error("{interface} went away")]
    LinkGone { interface: String },
    #[error("some of what was changed for {interface} is still there")]
    Left { interface: String },
    #[error("the daemon of {interface} still answers, although its interface is gone")]
    DaemonStays { interface: String },
    #[error("{interface} stays up, because what has changed could not be saved")]
    NotSaved { interface: String, source: SaveError },
    #[error("{} says nothing, and is not taken for a configuration", .file.display())]
    NothingSaid { file: PathBuf },
    #[error("there is no record of how {interface} was brought up by `hybridwg up`")]
    NoRecord { interface: String },
    #[error("{what} of {interface} can be changed by `hybridwg down` and `up` only")]
    NeedsRestart { interface: String, what: String },
    #[error("interrupted")]
    Interrupted,
}

/// One change of the host.
pub trait Step {
    /// The command that an operator would type for the same effect.
    fn describe(&self) -> String;

    /// Makes the change, or nothing of it.
    ///
    /// # Errors
    /// Whatever stands in the way.
    fn apply(&mut self, netlink: &mut Netlink) -> Result<(), LifecycleError>;

    /// Makes the change outlive this process, if it does not by itself.
    ///
    /// # Errors
    /// The change is already gone.
    fn commit(&mut self) -> Result<(), LifecycleError> {
        Ok(())
    }

    /// The command that takes the change back; `None` if nothing does.
    fn describe_undo(&self) -> Option<String> {
        None
    }

    /// Whether the change goes away by itself when the interface does.
    fn goes_with_interface(&self) -> bool {
        false
    }

    /// Takes the change back. Called only after a successful [`Self::apply`], and only if
    /// [`Self::describe_undo`] names a command.
    ///
    /// # Errors
    /// Whatever stands in the way.
    fn undo(&mut self, _netlink: &mut Netlink) -> Result<(), LifecycleError> {
        Ok(())
    }
}

/// A step the other way round.
#[derive(Debug)]
pub struct TakenBack<S>(pub S);

impl<S: Step> Step for TakenBack<S> {
    fn describe(&self) -> String {
        self.0.describe_undo().unwrap_or_default()
    }

    fn apply(&mut self, netlink: &mut Netlink) -> Result<(), LifecycleError> {
        self.0.undo(netlink)
    }

    fn describe_undo(&self) -> Option<String> {
        Some(self.0.describe())
    }

    fn undo(&mut self, netlink: &mut Netlink) -> Result<(), LifecycleError> {
        self.0.apply(netlink)
    }
}

/// Steps that are done together or not at all.
pub struct Transaction<'a> {
    netlink: &'a mut Netlink,
    console: &'a mut dyn Console,
    interrupt: &'a Interrupt,
    done: Vec<Box<dyn Step>>,
    kind: Kind,
    announced: usize,
}

/// What a transaction is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// It makes the interface, so that what goes with the interface is not taken back by itself.
    Making,
    /// The interface is there and stays.
    Changing,
    /// As `Changing`, but steps are only announced.
    Rehearsing,
}

impl<'a> Transaction<'a> {
    /// A transaction in which nothing has been done.
    pub fn new(
        netlink: &'a mut Netlink,
        console: &'a mut dyn Console,
        interrupt: &'a Interrupt,
        kind: Kind,
    ) -> Self {
        Self { netlink, console, interrupt, done: Vec::new(), kind, announced: 0 }
    }

    /// Announces and applies the next step.
    ///
    /// # Errors
    /// The step's own, or [`LifecycleError::Interrupted`] before or after it: an interrupted step
    /// often fails for that reason alone.
    pub fn apply(&mut self, mut step: impl Step + 'static) -> Result<(), LifecycleError> {
        self.check_interrupt()?;
        let command = step.describe();
        command.lines().for_each(|line| self.console.command(line));
        self.announced += usize::from(!command.is_empty());
        if self.kind == Kind::Rehearsing {
            return Ok(());
        }
        if let Err(error) = step.apply(self.netlink) {
            self.check_interrupt()?;
            return Err(error);
        }
        self.done.push(Box::new(step));
        Ok(())
    }

    /// How many steps with words of their own there were so far.
    pub const fn announced(&self) -> usize {
        self.announced
    }

    pub fn is_rehearsal(&self) -> bool {
        self.kind == Kind::Rehearsing
    }

    /// For look-ups between steps.
    pub fn netlink(&mut self) -> &mut Netlink {
        self.netlink
    }

    /// For remarks between steps.
    pub fn console(&mut self) -> &mut dyn Console {
        self.console
    }

    /// Keeps all that was done, unless somebody has interrupted.
    ///
    /// # Errors
    /// [`LifecycleError::Interrupted`], or what a step's commit says; everything has then been
    /// taken back.
    pub fn commit(mut self) -> Result<(), LifecycleError> {
        self.check_interrupt()?;
        self.done.iter_mut().try_for_each(|step| step.commit())?;
        self.done.clear();
        Ok(())
    }

    fn check_interrupt(&self) -> Result<(), LifecycleError> {
        if self.interrupt.is_raised() { Err(LifecycleError::Interrupted) } else { Ok(()) }
    }
}

/// Takes back, in reverse order, what was not committed. A step that cannot be taken back is
/// reported and does not keep the earlier ones from it.
impl Drop for Transaction<'_> {
    fn drop(&mut self) {
        while let Some(mut step) = self.done.pop() {
            if step.goes_with_interface() && self.kind == Kind::Making {
                continue;
            }
            let Some(command) = step.describe_undo() else { continue };
            command.lines().for_each(|line| self.console.command(line));
            if let Err(error) = step.undo(self.netlink) {
                self.console.warn(&format!("could not take back: {error}"));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::cell::RefCell;
    use std::rc::Rc;

    use super::*;

    type Log = Rc<RefCell<Vec<String>>>;

    struct Fake {
        name: &'static str,
        fails: bool,
        undo_fails: bool,
        log: Log,
    }

    impl Step for Fake {
        fn describe(&self) -> String {
            format!("do {}", self.name)
        }

        fn apply(&mut self, _: &mut Netlink) -> Result<(), LifecycleError> {
            self.log.borrow_mut().push(format!("apply {}", self.name));
            match self.fails {
                true => Err(LifecycleError::LinkGone { interface: self.name.to_owned() }),
                false => Ok(()),
            }
        }

        fn describe_undo(&self) -> Option<String> {
            (self.name != "silent").then(|| format!("undo {}", self.name))
        }

        fn undo(&mut self, _: &mut Netlink) -> Result<(), LifecycleError> {
            self.log.borrow_mut().push(format!("revert {}", self.name));
            match self.undo_fails {
                true => Err(LifecycleError::LinkGone { interface: self.name.to_owned() }),
                false => Ok(()),
            }
        }
    }

    struct Lines(Log);

    impl Console for Lines {
        fn command(&mut self, line: &str) {
            self.0.borrow_mut().push(format!("[#] {line}"));
        }

        fn warn(&mut self, text: &str) {
            self.0.borrow_mut().push(format!("warning: {text}"));
        }
    }

    fn run(steps: Vec<(&'static str, bool, bool)>, interrupt: &Interrupt) -> (Vec<String>, bool) {
        let log = Log::default();
        let mut netlink = Netlink::new();
        let mut console = Lines(Rc::clone(&log));
        let mut transaction = Transaction::new(&mut netlink, &mut console, interrupt, Kind::Making);
        let steps = steps.into_iter().map(|(name, fails, undo_fails)| Fake {
            name,
            fails,
            undo_fails,
            log: Rc::clone(&log),
        });
        let mut outcome = Ok(());
        for step in steps {
            outcome = transaction.apply(step);
            if outcome.is_err() {
                break;
            }
        }
        let ok = match outcome {
            Ok(()) => transaction.commit().is_ok(),
            Err(_) => {
                drop(transaction);
                false
            }
        };
        let lines = log.borrow().clone();
        (lines, ok)
    }

    #[test]
    fn each_step_is_announced_before_it_is_applied_and_kept_when_all_succeed() {
        let (lines, ok) = run(vec![("a", false, false), ("b", false, false)], &Interrupt::never());
        assert!(ok);
        assert_eq!(lines, ["[#] do a", "apply a", "[#] do b", "apply b"]);
    }

    #[test]
    fn a_failure_takes_back_the_earlier_steps_in_reverse_and_not_the_failed_one() {
        let steps = vec![
            ("a", false, false),
            ("silent", false, false),
            ("c", false, false),
            ("d", true, false),
        ];
        let (lines, ok) = run(steps, &Interrupt::never());
        assert!(!ok);
        let after = lines.iter().position(|line| line == "apply d").unwrap() + 1;
        assert_eq!(lines[after..], ["[#] undo c", "revert c", "[#] undo a", "revert a"]);
    }

    #[test]
    fn a_step_that_cannot_be_taken_back_is_reported_and_the_others_still_are() {
        let (lines, _) = run(
            vec![("a", false, false), ("b", false, true), ("c", true, false)],
            &Interrupt::never(),
        );
        assert!(lines.contains(&"warning: could not take back: b went away".to_owned()));
        assert_eq!(lines.last().unwrap(), "revert a");
    }

    #[test]
    fn an_interrupt_stops_before_the_next_step_and_before_the_commit() {
        let interrupt = Interrupt::never();
        interrupt.raise();
        let (lines, ok) = run(vec![("a", false, false)], &interrupt);
        assert!(!ok);
        assert!(lines.is_empty(), "{lines:?}");

        let (lines, ok) = run(vec![], &interrupt);
        assert!(!ok && lines.is_empty());
    }
}
