//! Scripts as an operator would type them, each in a machine of its own.
//!
//! A script runs as process 1 of namespaces of its own (network, mounts, processes), with an empty
//! `/run`, state of the daemon included: nothing of it reaches the machine, and whatever it starts ends with it.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::ExitStatusExt;
use std::path::PathBuf;
use std::process::{Command, Output, Stdio};

use tempfile::TempDir;

use super::copy_binary;

/// What every script needs.
pub const PROGRAMS: &[&str] = &["unshare", "mount", "ip", "bash", "pgrep"];

/// A folder with `wg0.conf`, and the binary.
pub struct Host {
    pub folder: TempDir,
}

/// What a script did.
pub struct Outcome {
    pub out: String,
    pub err: String,
    pub code: Option<i32>,
}

impl Host {
    pub fn new(config: &str) -> Self {
        let host = Self { folder: tempfile::tempdir().unwrap() };
        host.write("wg0.conf", config);
        // Others may look into it: the demo of an unprivileged user runs from here.
        fs::set_permissions(host.folder.path(), fs::Permissions::from_mode(0o755)).unwrap();
        copy_binary(&host.binary());
        host
    }

    pub fn binary(&self) -> PathBuf {
        self.folder.path().join("hybridwg")
    }

    pub fn write(&self, name: &str, text: &str) {
        let path = self.folder.path().join(name);
        fs::write(&path, text).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
    }

    /// Runs a bash script inside; `hybridwg` is a command in it.
    pub fn run(&self, script: &str) -> Outcome {
        let prologue = "mount -t tmpfs none /run && mkdir /run/state || exit 99; ip link set lo up || exit 99\n\
                        export STATE_DIRECTORY=/run/state\n\
                        hybridwg() { ./hybridwg \"$@\"; }\n";
        let output = Command::new("unshare")
            .args(["--net", "--mount", "--pid", "--fork", "--mount-proc", "--kill-child"])
            .args(["bash", "-c", &format!("{prologue}{script}")])
            .current_dir(self.folder.path())
            .stdin(Stdio::null())
            .output()
            .unwrap();
        Outcome::of(&output)
    }
}

impl Outcome {
    pub fn of(output: &Output) -> Self {
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        let code = output.status.code().or_else(|| output.status.signal().map(|s| 128 + s));
        Self { out: text(&output.stdout), err: text(&output.stderr), code }
    }

    /// The `[#]` lines, without their mark.
    pub fn commands(&self) -> Vec<&str> {
        self.err.lines().filter_map(|line| line.strip_prefix("[#] ")).collect()
    }

    #[track_caller]
    pub fn assert_ok(&self) {
        assert_eq!(self.code, Some(0), "out:\n{}\nerr:\n{}", self.out, self.err);
    }
}

/// Keys that belong to nobody.
pub const KEYS: (&str, &str) = (
    "CFQPfVMVkLbrCr2yhnGOcFWRWWnDuUrXo1HQGl15cV0=",
    "CFQPfVMVkLbrCr2yhnGOcFWRWWnDuUrXo1HQGl15cW0=",
);

/// A tunnel with addresses of both families; `extra` goes into its `[Interface]`.
pub fn config(extra: &str) -> String {
    let (private, public) = KEYS;
    format!(
        "[Interface]\nPrivateKey = {private}\nAddress = 10.10.0.1/24, fd00:10::1/64\n{extra}\n\
         [Peer]\nPublicKey = {public}\nAllowedIPs = 10.10.0.2/32, 172.16.0.0/12\n\
         AllowedIPs = 192.168.7.0/24, fd00:77::/48\nEndpoint = 127.0.0.1:9\n"
    )
}

/// Prints what a tunnel could have left, one thing a line; nothing on a clean host.
pub const LEFTOVERS: &str = "ip -o link | grep -v ': lo:'; ip route; ip -6 route | grep -v ' dev lo '; \
                         ip rule | grep -v 'lookup \\(local\\|main\\|default\\)'; \
                         ls /run/wireguard 2>/dev/null; ls /run/hybridwg 2>/dev/null; pgrep -x hybridwg; true\n";
