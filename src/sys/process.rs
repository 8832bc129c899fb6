//! Processes: our own executable again as a detached child, and small facts about this one.

use std::env;
use std::ffi::OsString;
use std::fs::{File, OpenOptions};
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::os::unix::process::CommandExt;
use std::process::{Child, Command, Stdio};

use rustix::fs::Mode;
use rustix::io::FdFlags;

use super::SysError;

/// The first number an inherited descriptor gets in the child: [`Detached::inherit`]'s first is 3,
/// the next 4, and so on.
pub const FIRST_INHERITED: RawFd = 3;

/// A child of our own executable that outlives its parent and its terminal: own session, standard
/// input and output on `/dev/null`.
#[derive(Debug)]
pub struct Detached<'fd> {
    command: Command,
    inherited: Vec<BorrowedFd<'fd>>,
}

impl<'fd> Detached<'fd> {
    /// Runs this executable with `arguments`; the environment is inherited.
    ///
    /// # Errors
    /// The path of the running executable cannot be told.
    pub fn new(arguments: impl IntoIterator<Item = OsString>) -> Result<Self, SysError> {
        let executable =
            env::current_exe().map_err(|e| SysError::new("readlink /proc/self/exe", e))?;
        let mut command = Command::new(executable);
        command.args(arguments).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        Ok(Self { command, inherited: Vec::new() })
    }

    /// Sets a variable of the child's environment.
    pub fn env(mut self, name: &str, value: &str) -> Self {
        self.command.env(name, value);
        self
    }

    /// Where the child's standard error goes instead of `/dev/null`.
    pub fn stderr(mut self, stderr: Stdio) -> Self {
        self.command.stderr(stderr);
        self
    }

    /// Gives the child a copy of `fd` under the next number from [`FIRST_INHERITED`].
    pub fn inherit(mut self, fd: BorrowedFd<'fd>) -> Self {
        self.inherited.push(fd);
        self
    }

    /// Starts the child. Nothing but the inherited descriptors and standard streams crosses over,
    /// provided that all others are close-on-exec, as those of this crate and std are.
    pub fn spawn(self) -> Result<Child, SysError> {
        let Self { mut command, inherited } = self;
        let targets = FIRST_INHERITED
            ..FIRST_INHERITED + RawFd::try_from(inherited.len()).unwrap_or(RawFd::MAX);
        // The pipe by which std reports a failed exec must not sit on a number that is about to be
        // replaced, so all of these numbers are taken before std makes it.
        let _placeholders = occupy_below(targets.end)?;
        // Copies above the targets: no replacement can hit a descriptor that is still to be copied.
        let copies = inherited
            .iter()
            .map(|fd| {
                rustix::io::fcntl_dupfd_cloexec(fd, targets.end)
                    .map_err(|e| SysError::new("fcntl F_DUPFD", e))
            })
            .collect::<Result<Vec<_>, _>>()?;
        let moves: Vec<(RawFd, RawFd)> =
            copies.iter().map(AsRawFd::as_raw_fd).zip(targets).collect();
        let detach = move || detach(&moves);
        // SAFETY: between fork and exec `detach` makes only the async-signal-safe calls setsid and
        // dup2, allocates nothing and takes no lock.
        unsafe { command.pre_exec(detach) };
        let child = command.spawn().map_err(|e| SysError::new("spawn", e))?;
        drop(copies);
        Ok(child)
    }
}

/// Runs in the child.
fn detach(moves: &[(RawFd, RawFd)]) -> io::Result<()> {
    rustix::process::setsid()?;
    for &(from, to) in moves {
        // SAFETY: dup2 takes two numbers; `from` is a copy that the parent keeps open until the
        // spawn is over, `to` is a number set aside for this. The copy is not close-on-exec.
        if unsafe { libc::dup2(from, to) } < 0 {
            return Err(io::Error::last_os_error());
        }
    }
    Ok(())
}

/// Opens `/dev/null` until every number below `end` is taken.
fn occupy_below(end: RawFd) -> Result<Vec<File>, SysError> {
    let mut placeholders = Vec::new();
    loop {
        let file = OpenOptions::new()
            .read(true)
            .open("/dev/null")
            .map_err(|e| SysError::new("open /dev/null", e))?;
        if file.as_raw_fd() >= end {
            return Ok(placeholders);
        }
        placeholders.push(file);
    }
}

/// Takes ownership of descriptor `number` that the parent gave us, and makes it close-on-exec so
/// that no child of ours gets it in turn.
///
/// # Errors
/// `EBADF` if the parent gave nothing under that number, or it was taken before: what crosses an
/// exec is not close-on-exec, what this process opened or took is.
pub fn take_inherited(number: RawFd) -> Result<OwnedFd, SysError> {
    // SAFETY: a number, open or not; F_GETFD does nothing but look.
    let flags = unsafe { libc::fcntl(number, libc::F_GETFD) };
    if number < FIRST_INHERITED || flags < 0 || flags & libc::FD_CLOEXEC != 0 {
        return Err(SysError::from_errno("fcntl F_GETFD", libc::EBADF));
    }
    // SAFETY: the number is open, and without close-on-exec, so it came by exec (everything that
    // this crate and std open has the flag), before which nothing here could own it.
    let fd = unsafe { OwnedFd::from_raw_fd(number) };
    rustix::io::fcntl_setfd(&fd, FdFlags::CLOEXEC)
        .map_err(|e| SysError::new("fcntl F_SETFD", e))?;
    Ok(fd)
}

/// A pipe, (reading end, writing end), both close-on-exec: e.g. for a child to say it is ready.
pub fn pipe() -> Result<(File, File), SysError> {
    let (read, write) = rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC)
        .map_err(|e| SysError::new("pipe2", e))?;
    Ok((read.into(), write.into()))
}

/// True if `fd` is a terminal.
pub fn is_terminal(fd: impl AsFd) -> bool {
    rustix::termios::isatty(fd)
}

/// True if the effective user is root (of this user namespace).
pub fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}

/// Runs `work` under a umask that leaves new files to their owner alone. The umask belongs to the
/// whole process: nothing else may create files meanwhile.
pub fn with_private_umask<T>(work: impl FnOnce() -> T) -> T {
    /// Puts the former mask back even when `work` panics.
    struct Restore(Mode);
    impl Drop for Restore {
        fn drop(&mut self) {
            rustix::process::umask(self.0);
        }
    }
    let _restore = Restore(rustix::process::umask(Mode::RWXG | Mode::RWXO));
    work()
}
