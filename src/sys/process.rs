//! Processes: our own executable again as a detached child, and small facts about this one.

use std::env;
use std::ffi::{CStr, OsString};
use std::fs::{File, OpenOptions};
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::os::unix::process::CommandExt;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use rustix::fs::{MemfdFlags, Mode, memfd_create};
use rustix::io::FdFlags;
use rustix::process::{DumpableBehavior, WaitOptions};

use super::{SysError, check};

/// The first number an inherited descriptor gets in the child: [`Detached::inherit`]'s first is 3,
/// the next 4, and so on.
pub const FIRST_INHERITED: RawFd = 3;

/// A child of our own executable that outlives its parent and its terminal: own session, working
/// folder `/`, so that it keeps no file system busy, standard input and output on `/dev/null`.
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
        command.args(arguments).current_dir("/");
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
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
    /// not even what a shell has left open in us.
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
    let above = moves.last().map_or(FIRST_INHERITED, |&(_, to)| to + 1).unsigned_abs();
    // SAFETY: close_range takes three numbers, and with this flag it closes nothing before the
    // exec. That a kernel before 5.11 refuses is no harm: what our parent has left open stays so.
    unsafe { libc::syscall(libc::SYS_close_range, above, u32::MAX, libc::CLOSE_RANGE_CLOEXEC) };
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

/// A file in memory without a name, gone with its last descriptor. Close-on-exec.
///
/// # Errors
/// No memory, or a kernel before 3.17.
pub fn anonymous_file(label: &CStr) -> Result<File, SysError> {
    memfd_create(label, MemfdFlags::CLOEXEC)
        .map(File::from)
        .map_err(|e| SysError::new("memfd_create", e))
}

/// How long a process has been on a processor, all its threads together, those that have ended
/// included; its children are not.
///
/// # Errors
/// It has ended and was waited for.
pub fn processor_time(process: u32) -> Result<Duration, SysError> {
    let mut clock: libc::clockid_t = 0;
    let number = process.cast_signed();
    // SAFETY: takes a number and writes a number, which outlives the call.
    let errno = unsafe { libc::clock_getcpuclockid(number, &raw mut clock) };
    if errno != 0 {
        return Err(SysError::from_errno("clock_getcpuclockid", errno));
    }
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: takes a number and writes a timespec, which outlives the call.
    check("clock_gettime", unsafe { libc::clock_gettime(clock, &raw mut time) })?;
    let seconds = u64::try_from(time.tv_sec).unwrap_or(0);
    Ok(Duration::new(seconds, u32::try_from(time.tv_nsec).unwrap_or(0)))
}

/// Keeps the memory of this process out of core dumps and from other processes of the same user.
///
/// # Errors
/// The kernel refuses, which no known one does.
pub fn hide_memory() -> Result<(), SysError> {
    rustix::process::set_dumpable_behavior(DumpableBehavior::NotDumpable)
        .map_err(|e| SysError::new("prctl PR_SET_DUMPABLE", e))
}

/// True if `fd` is a terminal.
pub fn is_terminal(fd: impl AsFd) -> bool {
    rustix::termios::isatty(fd)
}

/// True if the effective user is root (of this user namespace).
pub fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}

/// The number of the effective user.
pub fn user() -> u32 {
    rustix::process::geteuid().as_raw()
}

/// Takes note of the end of children that have ended, also of those that were left to this process by
/// others. Nobody may wait for a child of his own meanwhile.
pub fn reap() {
    while let Ok(Some(_)) = rustix::process::wait(WaitOptions::NOHANG) {}
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

#[cfg(test)]
mod tests {
    use std::fs;
    use std::io::{Read, Write};

    use super::*;

    #[test]
    fn a_detached_child_has_its_descriptors_by_number_its_own_session_and_no_terminal() {
        if env::var_os("HYBRIDWG_TEST_CHILD").is_some() {
            return report_as_child();
        }
        let (question, mut ask) = pipe().unwrap();
        let (mut answer, reply) = pipe().unwrap();
        // Closed in the child: nobody may hold a descriptor that was not given.
        let stray = File::open("/proc/self/status").unwrap();
        rustix::io::fcntl_setfd(&stray, FdFlags::empty()).unwrap();
        let this = concat!(
            "sys::process::tests::",
            "a_detached_child_has_its_descriptors_by_number_its_own_session_and_no_terminal"
        );
        let arguments = ["--exact", this, "-q"];
        let child = Detached::new(arguments.map(OsString::from)).unwrap();
        let child =
            child.env("HYBRIDWG_TEST_CHILD", "1").inherit(question.as_fd()).inherit(reply.as_fd());
        let mut child = child.spawn().unwrap();
        drop((question, reply));
        ask.write_all(b"ping").unwrap();
        drop(ask);
        let mut told = String::new();
        answer.read_to_string(&mut told).unwrap();
        assert!(child.wait().unwrap().success());
        let id = child.id();
        assert_eq!(
            told,
            format!("ping session {id} in / stdin /dev/null stdout /dev/null stray false")
        );
        drop(stray);
    }

    /// What the test above does when it finds itself in the child.
    fn report_as_child() {
        let mut question = File::from(take_inherited(3).unwrap());
        let mut reply = File::from(take_inherited(4).unwrap());
        assert!(take_inherited(3).is_err(), "a descriptor is taken once");
        let mut asked = String::new();
        question.read_to_string(&mut asked).unwrap();
        let session = rustix::process::getsid(None).unwrap().as_raw_nonzero();
        let link = |number: u32| fs::read_link(format!("/proc/self/fd/{number}")).unwrap();
        let (stdin, stdout) = (link(0), link(1));
        let open = fs::read_dir("/proc/self/fd")
            .unwrap()
            .filter_map(|entry| fs::read_link(entry.unwrap().path()).ok());
        let stray = open.into_iter().any(|target| target.ends_with("status"));
        let (stdin, stdout) = (stdin.display(), stdout.display());
        let folder = env::current_dir().unwrap();
        let folder = folder.display();
        write!(
            reply,
            "{asked} session {session} in {folder} stdin {stdin} stdout {stdout} stray {stray}"
        )
        .unwrap();
    }

    #[test]
    fn a_number_that_nobody_gave_cannot_be_taken() {
        for number in [-1, 0, 2, 1_000_000] {
            assert_eq!(take_inherited(number).unwrap_err().errno(), Some(libc::EBADF));
        }
        let ours = File::open("/dev/null").unwrap();
        assert!(take_inherited(ours.as_raw_fd()).is_err(), "what this process opened has an owner");
    }

    #[test]
    fn a_file_made_under_the_private_umask_is_for_its_owner_alone() {
        use std::os::unix::fs::PermissionsExt;
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("socket");
        let listener = with_private_umask(|| std::os::unix::net::UnixListener::bind(&path));
        let _listening = listener.unwrap();
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o077, 0);
    }

    #[test]
    fn processor_time_grows_with_work_and_a_process_that_is_gone_has_none() {
        let before = processor_time(std::process::id()).unwrap();
        let mut product = 1_u64;
        while processor_time(std::process::id()).unwrap() < before + Duration::from_millis(5) {
            product = product.wrapping_mul(3);
        }
        assert_ne!(product, 0);
        let mut child = Command::new("true").spawn().unwrap();
        child.wait().unwrap();
        assert!(processor_time(child.id()).is_err());
    }

    #[test]
    fn an_anonymous_file_keeps_what_is_written() {
        use std::io::{Seek, SeekFrom};
        let mut file = anonymous_file(c"test").unwrap();
        file.write_all(b"kept").unwrap();
        file.seek(SeekFrom::Start(0)).unwrap();
        let mut text = String::new();
        file.read_to_string(&mut text).unwrap();
        assert_eq!(text, "kept");
    }

    #[test]
    fn a_pipe_is_no_terminal() {
        assert!(!is_terminal(pipe().unwrap().0));
    }
}
