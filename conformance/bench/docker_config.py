"""The config.json that `docker run IMAGE COMMAND` gives its runtime with every option at its default.

Written from what dockerd 20.10 (Debian 12, cgroup v1) was seen to hand over; conformance/engines compares `generate`
with a real one. Left out: the prestart hook, which talks to a running dockerd.
"""

CAPABILITIES = ["CAP_" + name for name in (
    "CHOWN DAC_OVERRIDE FSETID FOWNER MKNOD NET_RAW SETGID SETUID SETFCAP SETPCAP NET_BIND_SERVICE SYS_CHROOT KILL "
    "AUDIT_WRITE").split()]

MASKED = ["/proc/asound", "/proc/acpi", "/proc/kcore", "/proc/keys", "/proc/latency_stats", "/proc/timer_list",
          "/proc/timer_stats", "/proc/sched_debug", "/proc/scsi", "/sys/firmware"]
READ_ONLY = ["/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"]

PATH = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"

# What the default seccomp profile allows without a condition, by subject.
ALLOWED = {
    "processes and threads":
        "arch_prctl capget capset chroot execve execveat exit exit_group fork futex futex_time64 futex_waitv "
        "get_robust_list get_thread_area gettid kill membarrier modify_ldt pause pidfd_open pidfd_send_signal prctl "
        "process_mrelease ptrace restart_syscall rseq seccomp set_robust_list set_thread_area set_tid_address tgkill "
        "tkill vfork wait4 waitid waitpid",
    "identity":
        "getegid getegid32 geteuid geteuid32 getgid getgid32 getgroups getgroups32 getpgid getpgrp getpid getppid "
        "getresgid getresgid32 getresuid getresuid32 getsid getuid getuid32 setfsgid setfsgid32 setfsuid setfsuid32 "
        "setgid setgid32 setgroups setgroups32 setpgid setregid setregid32 setresgid setresgid32 setresuid "
        "setresuid32 setreuid setreuid32 setsid setuid setuid32",
    "scheduling and limits":
        "getcpu getpriority getrlimit getrusage ioprio_get ioprio_set prlimit64 sched_getaffinity sched_getattr "
        "sched_getparam sched_get_priority_max sched_get_priority_min sched_getscheduler sched_rr_get_interval "
        "sched_rr_get_interval_time64 sched_setaffinity sched_setattr sched_setparam sched_setscheduler sched_yield "
        "setpriority setrlimit ugetrlimit",
    "signals":
        "rt_sigaction rt_sigpending rt_sigprocmask rt_sigqueueinfo rt_sigreturn rt_sigsuspend rt_sigtimedwait "
        "rt_sigtimedwait_time64 rt_tgsigqueueinfo sigaltstack signalfd signalfd4 sigprocmask sigreturn",
    "memory":
        "brk madvise memfd_create memfd_secret mincore mlock mlock2 mlockall mmap mmap2 mprotect mremap msync munlock "
        "munlockall munmap remap_file_pages",
    "time":
        "adjtimex alarm clock_adjtime clock_adjtime64 clock_getres clock_getres_time64 clock_gettime clock_gettime64 "
        "clock_nanosleep clock_nanosleep_time64 getitimer gettimeofday nanosleep setitimer time timer_create "
        "timer_delete timer_getoverrun timer_gettime timer_gettime64 timer_settime timer_settime64 timerfd_create "
        "timerfd_gettime timerfd_gettime64 timerfd_settime timerfd_settime64 times",
    "opening, reading and writing":
        "close close_range copy_file_range creat dup dup2 dup3 fadvise64 fadvise64_64 fallocate fcntl fcntl64 "
        "fdatasync flock fsync ftruncate ftruncate64 ioctl _llseek lseek open openat openat2 pipe pipe2 pread64 preadv "
        "preadv2 pwrite64 pwritev pwritev2 read readahead readv sendfile sendfile64 splice sync sync_file_range syncfs "
        "tee truncate truncate64 vmsplice write writev",
    "names and attributes":
        "access chdir chmod chown chown32 faccessat faccessat2 fchdir fchmod fchmodat fchown fchown32 fchownat "
        "fgetxattr flistxattr fremovexattr fsetxattr fstat fstat64 fstatat64 fstatfs fstatfs64 futimesat getcwd "
        "getdents getdents64 getxattr lchown lchown32 lgetxattr link linkat listxattr llistxattr lremovexattr "
        "lsetxattr lstat lstat64 mkdir mkdirat mknod mknodat newfstatat readlink readlinkat removexattr rename "
        "renameat renameat2 rmdir setxattr stat stat64 statfs statfs64 statx symlink symlinkat umask unlink unlinkat "
        "utime utimensat utimensat_time64 utimes",
    "waiting":
        "epoll_create epoll_create1 epoll_ctl epoll_ctl_old epoll_pwait epoll_pwait2 epoll_wait epoll_wait_old eventfd "
        "eventfd2 fanotify_mark inotify_add_watch inotify_init inotify_init1 inotify_rm_watch _newselect poll ppoll "
        "ppoll_time64 pselect6 pselect6_time64 select",
    "asynchronous input and output":
        "io_cancel io_destroy io_getevents io_pgetevents io_pgetevents_time64 io_setup io_submit io_uring_enter "
        "io_uring_register io_uring_setup",
    "sockets":
        "accept accept4 bind connect getpeername getsockname getsockopt listen recv recvfrom recvmmsg recvmmsg_time64 "
        "recvmsg send sendmmsg sendmsg sendto setsockopt shutdown socket socketcall socketpair",
    "System V and POSIX queues":
        "ipc mq_getsetattr mq_notify mq_open mq_timedreceive mq_timedreceive_time64 mq_timedsend mq_timedsend_time64 "
        "mq_unlink msgctl msgget msgrcv msgsnd semctl semget semop semtimedop semtimedop_time64 shmat shmctl shmdt "
        "shmget",
    "the system and random numbers": "getrandom sysinfo uname",
    "Landlock": "landlock_add_rule landlock_create_ruleset landlock_restrict_self",
}
# Of those, the ones that the profile lists in rules of their own (a kernel version, an architecture, a capability).
OWN_RULE = ["ptrace", "arch_prctl", "modify_ldt", "chroot"]
PERSONALITIES = [0x0, 0x8, 0x20000, 0x20008, 0xffffffff]
NAMESPACE_FLAGS = 0x7e020000  # the CLONE_NEW… bits that clone(2) may not have


def seccomp():
    """The default profile, resolved for x86-64 and the default capabilities: 12 rules."""
    allowed = {name for names in ALLOWED.values() for name in names.split()}

    def rule(names, action="SCMP_ACT_ALLOW", **more):
        return {"names": names, "action": action, **more}

    def argument(value, operator):
        return [{"index": 0, "value": value, "op": operator}]

    return {
        "defaultAction": "SCMP_ACT_ERRNO",
        "architectures": ["SCMP_ARCH_X86_64", "SCMP_ARCH_X86", "SCMP_ARCH_X32"],
        "syscalls": [
            rule(sorted(allowed - set(OWN_RULE))),
            rule(["ptrace"]),
            *[rule(["personality"], args=argument(value, "SCMP_CMP_EQ")) for value in PERSONALITIES],
            rule(["arch_prctl"]),
            rule(["modify_ldt"]),
            rule(["clone"], args=argument(NAMESPACE_FLAGS, "SCMP_CMP_MASKED_EQ")),
            rule(["clone3"], "SCMP_ACT_ERRNO", errnoRet=38),
            rule(["chroot"]),
        ],
    }


def _mounts(files):
    def entry(destination, kind, source, options):
        return {"destination": destination, "type": kind, "source": source, "options": options.split(",")}

    return [
        entry("/proc", "proc", "proc", "nosuid,noexec,nodev"),
        entry("/dev", "tmpfs", "tmpfs", "nosuid,strictatime,mode=755,size=65536k"),
        entry("/dev/pts", "devpts", "devpts", "nosuid,noexec,newinstance,ptmxmode=0666,mode=0620,gid=5"),
        entry("/sys", "sysfs", "sysfs", "nosuid,noexec,nodev,ro"),
        entry("/sys/fs/cgroup", "cgroup", "cgroup", "ro,nosuid,noexec,nodev"),
        entry("/dev/mqueue", "mqueue", "mqueue", "nosuid,noexec,nodev"),
        entry("/dev/shm", "tmpfs", "shm", "nosuid,noexec,nodev,mode=1777,size=67108864"),
        *[entry(f"/etc/{name}", "bind", f"{files}/{name}", "rbind,rprivate")
          for name in ("resolv.conf", "hostname", "hosts")],
    ]


def _devices():
    def rule(allow, **more):
        return {"allow": allow, **more, "access": "rwm"}

    return [rule(False), *[rule(True, type="c", major=major, minor=minor) for major, minor in
                           ((1, 5), (1, 3), (1, 9), (1, 8), (5, 0), (5, 1))],
            rule(False, type="c", major=10, minor=229)]


def generate(container_id, rootfs, files, args):
    """The configuration as a Python dictionary.

    `files`: directory that holds resolv.conf, hostname and hosts. `args`: the command. The container's cgroup is
    /docker/ID, as docker's cgroupfs driver has it.
    """
    hostname = container_id[:12]
    return {
        "ociVersion": "1.0.2-dev",
        "process": {
            "user": {"uid": 0, "gid": 0, "additionalGids": [0]},
            "args": args,
            "env": [PATH, f"HOSTNAME={hostname}"],
            "cwd": "/",
            "capabilities": {kind: list(CAPABILITIES) for kind in ("bounding", "effective", "permitted")},
            "oomScoreAdj": 0,
        },
        "root": {"path": str(rootfs)},
        "hostname": hostname,
        "mounts": _mounts(files),
        "linux": {
            "sysctl": {"net.ipv4.ip_unprivileged_port_start": "0", "net.ipv4.ping_group_range": "0 2147483647"},
            "resources": {"devices": _devices(), "memory": {"disableOOMKiller": False}, "cpu": {"shares": 0},
                          "blockIO": {"weight": 0}},
            "cgroupsPath": f"/docker/{container_id}",
            "namespaces": [{"type": kind} for kind in ("mount", "network", "uts", "pid", "ipc")],
            "seccomp": seccomp(),
            "maskedPaths": list(MASKED),
            "readonlyPaths": list(READ_ONLY),
        },
    }


def write_files(directory, container_id):
    """Writes the three files that docker binds into /etc."""
    (directory / "resolv.conf").write_text("nameserver 127.0.0.53\n")
    (directory / "hostname").write_text(f"{container_id[:12]}\n")
    (directory / "hosts").write_text(f"127.0.0.1\tlocalhost\n127.0.1.1\t{container_id[:12]}\n")
