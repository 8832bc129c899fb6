//! What supplies a thing that is missing: on a host, and to a container.

use super::Missing;

/// For one thing.
struct Remedy {
    /// What it is and why it is not there.
    what: String,
    /// Where there is no container.
    host: &'static str,
    /// An option of `docker run`; podman takes the same.
    docker: String,
    /// A line of a compose file's service.
    compose: String,
    /// Of a pod, in the flow style of YAML.
    kubernetes: String,
}

/// In five lines.
pub fn tell(missing: &Missing) -> String {
    let Remedy { what, host, docker, compose, kubernetes } = of(missing);
    format!(
        "- {what}\n    \
         host:        {host}\n    \
         docker run:  {docker}\n    \
         compose:     {compose}\n    \
         Kubernetes:  {kubernetes}"
    )
}

/// In one line.
pub fn tell_shortly(missing: &Missing) -> String {
    let Remedy { what, host, docker, compose, kubernetes } = of(missing);
    format!(
        "{what} (host: {host}; docker run: {docker}; compose: {compose}; Kubernetes: {kubernetes})"
    )
}

fn of(missing: &Missing) -> Remedy {
    match missing {
        Missing::Tun(error) => Remedy {
            what: format!("/dev/net/tun: {}", error.source),
            host: match error.is_not_permitted() {
                true => "sudo, or `chmod 666 /dev/net/tun`",
                false => "modprobe tun",
            },
            docker: "--device /dev/net/tun".to_owned(),
            compose: "devices: [/dev/net/tun]".to_owned(),
            kubernetes:
                "volumes: [{name: tun, hostPath: {path: /dev/net/tun, type: CharDevice}}], \
                         volumeMounts: [{name: tun, mountPath: /dev/net/tun}]; runc 1.2.0 to 1.2.3 \
                         refuses the device to pods that are not privileged"
                    .to_owned(),
        },
        Missing::NetAdmin => Remedy {
            what: "CAP_NET_ADMIN: this process does not have it".to_owned(),
            host: "sudo, or `AmbientCapabilities=CAP_NET_ADMIN` in a systemd service",
            // Whoever is not root gets an added capability in the bounding set alone. [moby #50083]
            docker: "--user 0 --cap-add NET_ADMIN".to_owned(),
            compose: "user: \"0:0\", cap_add: [NET_ADMIN]".to_owned(),
            kubernetes: "securityContext: {runAsUser: 0, capabilities: {add: [NET_ADMIN]}}"
                .to_owned(),
        },
        Missing::Folder(error) => Remedy {
            what: format!("a place for sockets, /run/wireguard: {error}"),
            host: "sudo, or `RuntimeDirectory=wireguard` in a systemd service",
            docker: "--tmpfs /run".to_owned(),
            compose: "tmpfs: [/run]".to_owned(),
            kubernetes:
                "volumes: [{name: run, emptyDir: {medium: Memory}}], volumeMounts: [{name: \
                         run, mountPath: /run}]"
                    .to_owned(),
        },
        Missing::NfTables(error) => Remedy {
            what: format!(
                "nf_tables: {} (of kernel modules a container has those that its host has loaded)",
                error.reason()
            ),
            host: "modprobe -a nf_tables nft_ct nft_masq nft_reject",
            docker: "modprobe on the host; no option does it".to_owned(),
            compose: "modprobe on the host; no line does it".to_owned(),
            kubernetes: "modprobe on the nodes, as by /etc/modules-load.d".to_owned(),
        },
        Missing::Parameter { name, error } => Remedy {
            what: format!("{name} = 1: cannot be written ({error})"),
            host: "sudo, or a line in /etc/sysctl.d",
            docker: format!("--sysctl {name}=1"),
            compose: format!("sysctls: {{{name}: 1}}"),
            kubernetes: format!(
                "securityContext of the pod: {{sysctls: [{{name: {name}, value: \"1\"}}]}}, which a \
                 kubelet takes that has --allowed-unsafe-sysctls={name}"
            ),
        },
        Missing::Ping => Remedy {
            what:
                "net.ipv4.ping_group_range does not have this process's group: pings of peers are \
                   not carried on"
                    .to_owned(),
            host: "sysctl -w net.ipv4.ping_group_range='0 2147483647'",
            docker: "--sysctl net.ipv4.ping_group_range='0 2147483647'".to_owned(),
            compose: "sysctls: {net.ipv4.ping_group_range: '0 2147483647'}".to_owned(),
            kubernetes: "securityContext of the pod: {sysctls: [{name: net.ipv4.ping_group_range, \
                         value: '0 2147483647'}]}"
                .to_owned(),
        },
        Missing::Descriptors(limit) => Remedy {
            what: format!("descriptors: {limit} are fewer than there may be flows of peers"),
            host: "`ulimit -n 65536`, or `LimitNOFILE=65536` in a systemd service",
            docker: "--ulimit nofile=65536".to_owned(),
            compose: "ulimits: {nofile: 65536}".to_owned(),
            kubernetes: "LimitNOFILE of the nodes' container runtime".to_owned(),
        },
    }
}

#[cfg(test)]
mod tests {
    use std::io;

    use super::super::{Missing, tell};
    use crate::sys::SysError;

    #[test]
    fn n_17_all_that_is_missing_is_told_at_once_with_what_supplies_it_to_each_kind_of_container() {
        let denied = || io::Error::from_raw_os_error(13);
        let missing = [
            Missing::Tun(SysError { op: "open", source: denied() }),
            Missing::NetAdmin,
            Missing::Folder(denied()),
            Missing::Parameter { name: "net.ipv4.ip_forward", error: denied() },
            Missing::Ping,
            Missing::Descriptors(1024),
        ];
        let told = tell(&missing);
        for part in [
            "--device /dev/net/tun",
            "devices: [/dev/net/tun]",
            "hostPath: {path: /dev/net/tun, type: CharDevice}",
            "sudo, or `chmod 666 /dev/net/tun`",
            "--user 0 --cap-add NET_ADMIN",
            "user: \"0:0\", cap_add: [NET_ADMIN]",
            "capabilities: {add: [NET_ADMIN]}",
            "--tmpfs /run",
            "emptyDir: {medium: Memory}",
            "--sysctl net.ipv4.ip_forward=1",
            "sysctls: {net.ipv4.ip_forward: 1}",
            "sysctls: [{name: net.ipv4.ping_group_range",
            "--ulimit nofile=65536",
        ] {
            assert!(told.contains(part), "no {part:?} in\n{told}");
        }
        for kind in ["host:", "docker run:", "compose:", "Kubernetes:"] {
            assert_eq!(told.matches(kind).count(), missing.len(), "{kind}");
        }
    }
}
