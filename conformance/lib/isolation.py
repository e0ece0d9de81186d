"""A private corner of the machine for one test program.

`enter()` moves the program into its own process and mount namespaces. So every process that the program sees is
its own doing, every line of its mount table too, and /run and /dev/shm start empty: the leak checker may be
strict, other work on the machine does not disturb it, and the kernel ends whatever is left when the program
ends or is killed. The tree is made shared, as on a host with systemd: mounts that a runtime fails to keep to
itself come back to us and are seen.
"""

import contextlib
import ctypes
import os
import re
import shutil
import signal
import sys
import tempfile

CLONE_NEWNS = 0x00020000
CLONE_NEWPID = 0x20000000
MS_NOSUID, MS_NODEV, MS_NOEXEC = 2, 4, 8
MS_BIND, MS_REC, MS_SLAVE, MS_SHARED = 0x1000, 0x4000, 1 << 19, 1 << 20
MNT_DETACH = 2
PR_SET_PDEATHSIG = 1
PR_SET_CHILD_SUBREAPER = 36

_libc = ctypes.CDLL(None, use_errno=True)
_MARK = "E2E_INSIDE"


def _check(result, what):
    if result != 0:
        code = ctypes.get_errno()
        raise OSError(code, f"{what}: {os.strerror(code)}")


def mount(source, target, kind=None, flags=0, data=None):
    """mount(2)."""
    encoded = [None if text is None else os.fsencode(text) for text in (source, target, kind)]
    _check(_libc.mount(*encoded, ctypes.c_ulong(flags), None if data is None else data.encode()),
           f"mount {target}")


def umount(target, flags=0):
    """umount2(2)."""
    _check(_libc.umount2(os.fsencode(target), flags), f"umount {target}")


def prctl(option, argument):
    _check(_libc.prctl(option, ctypes.c_ulong(argument), 0, 0, 0), f"prctl {option}")


def rename_exchange(one, other):
    """Swaps two names in one step; False when one of them is not there right now."""
    at_fdcwd, exchange = -100, 2
    return _libc.renameat2(at_fdcwd, os.fsencode(one), at_fdcwd, os.fsencode(other), exchange) == 0


def _wait_for(main):
    """The first process of the namespace: reaps strangers until the test program ends, returns its status."""
    while True:
        pid, status = os.waitpid(-1, 0)
        if pid == main:
            return os.waitstatus_to_exitcode(status)


def _exit_like(code):
    """Ends this process with the status of the one that it stood for."""
    if code < 0:
        print(f"test program ended by signal {-code}", file=sys.stderr)
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code if code >= 0 else 128 - code)


def _sweep():
    """Removes the cgroups and folders of test programs that were killed before they could do it themselves."""
    def of_the_dead(name):
        maker = re.fullmatch(r"e2e-(\d+)(-.*)?", name)
        return maker and not os.path.exists(f"/proc/{maker.group(1)}")
    for folder, names, _ in os.walk("/sys/fs/cgroup", topdown=False):
        for name in filter(of_the_dead, names):
            with contextlib.suppress(OSError):  # not empty, or another one sweeps too
                os.rmdir(os.path.join(folder, name))
    for name in filter(of_the_dead, os.listdir(tempfile.gettempdir())):
        shutil.rmtree(os.path.join(tempfile.gettempdir(), name), ignore_errors=True)


def enter(hide_unified_cgroup):
    """Returns the name of this run in the isolated test program; the outer processes end with its status."""
    if os.environ.get(_MARK):
        prctl(PR_SET_CHILD_SUBREAPER, 1)
        return os.environ.pop(_MARK)
    if os.geteuid() != 0:
        sys.exit("the end-to-end tests need root: they make namespaces, mounts and cgroups")
    os.umask(0o022)
    _sweep()
    name = f"e2e-{os.getpid()}"
    _check(_libc.unshare(CLONE_NEWNS | CLONE_NEWPID), "unshare")
    first = os.fork()
    if first != 0:
        _exit_like(_wait_for(first))
    prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != 0:
        os._exit(1)  # a parent in our own namespace: unshare did not do what it says
    mount("none", "/", None, MS_REC | MS_SLAVE)
    mount("none", "/", None, MS_REC | MS_SHARED)
    mount("proc", "/proc", "proc", MS_NOSUID | MS_NODEV | MS_NOEXEC)
    for target, mode in (("/run", "755"), ("/dev/shm", "1777")):
        mount("tmpfs", target, "tmpfs", MS_NOSUID | MS_NODEV, f"mode={mode}")
    if hide_unified_cgroup and os.path.ismount("/sys/fs/cgroup/unified"):
        umount("/sys/fs/cgroup/unified", MNT_DETACH)
    main = os.fork()
    if main == 0:
        os.environ[_MARK] = name
        os.execv(sys.executable, [sys.executable, "-B", *sys.argv])
    _exit_like(_wait_for(main))
