"""Runs a program under a seccomp filter like that of Docker, and stricter where clouds are.

    confine.py PROGRAM [ARGUMENT...]

Allowed is what the profile of Debian's golang-github-containers-common allows a container without
capabilities, but for REFUSED and for sockets other than those of the Internet and of Unix. Refused
calls fail with EPERM, as under Docker. Before the program runs, every call that matters is tried here,
by whoever has called us (root, as a rule, whom nothing but the filter stops).
"""

import ctypes
import errno
import json
import os
import socket
import sys

import seccomp

PROFILE = "/usr/share/containers/seccomp.json"

# Which this profile leaves to capabilities, Docker's own or gVisor refuse, or newer kernels bring.
REFUSED = """
    add_key bpf clone3 fsconfig fsmount fsopen fspick io_uring_enter io_uring_register io_uring_setup
    kcmp keyctl mbind mount mount_setattr move_mount open_tree perf_event_open pidfd_getfd pivot_root
    process_vm_readv process_vm_writev ptrace reboot request_key sched_setattr set_mempolicy setns
    syslog umount umount2 unshare userfaultfd
""".split()

FAMILIES = (socket.AF_UNIX, socket.AF_INET, socket.AF_INET6)

# CLONE_NEW*, all namespaces. [linux/sched.h]
NAMESPACES = 0x7E020000


def allowed(profile):
    for rule in profile["syscalls"]:
        is_for_all = set(rule.get("includes") or ()) <= {"arches"} and not rule.get("args")
        if rule["action"] == "SCMP_ACT_ALLOW" and is_for_all:
            yield from rule["names"]


def number(name):
    """Negative: this processor has no such call."""
    return seccomp.resolve_syscall(seccomp.Arch(), name)


def load():
    by_argument = {"clone", "personality", "socket"}
    with open(PROFILE, encoding="ascii") as profile:
        names = set(allowed(json.load(profile))) - by_argument - set(REFUSED)
    rules = seccomp.SyscallFilter(seccomp.ERRNO(errno.EPERM))
    for name in names:
        if number(name) >= 0:
            rules.add_rule(seccomp.ALLOW, name)
    no_namespace = seccomp.Arg(0, seccomp.MASKED_EQ, NAMESPACES, 0)
    rules.add_rule(seccomp.ALLOW, "clone", no_namespace)
    # So that libraries fall back to `clone`, whose argument a filter can see.
    rules.add_rule(seccomp.ERRNO(errno.ENOSYS), "clone3")
    for family in FAMILIES:
        rules.add_rule(seccomp.ALLOW, "socket", seccomp.Arg(0, seccomp.EQ, family))
    rules.load()


def assert_refused(library, call, *arguments):
    ctypes.set_errno(0)
    outcome = library.syscall(call, *arguments)
    told = ctypes.get_errno()
    if outcome != -1 or told not in (errno.EPERM, errno.ENOSYS):
        sys.exit(f"system call {call} is not refused: {outcome}, {os.strerror(told)}")


def main():
    load()
    library = ctypes.CDLL(None, use_errno=True)
    for name in REFUSED:
        if number(name) >= 0:
            assert_refused(library, number(name), *[0] * 6)
    assert_refused(library, number("socket"), socket.AF_NETLINK, socket.SOCK_RAW, 0)
    assert_refused(library, number("socket"), socket.AF_PACKET, socket.SOCK_RAW, 0)
    os.execvp(sys.argv[1], sys.argv[1:])


main()
