"""A private piece of this machine: own mounts, processes, network and cgroups.

`enter()` forks, gives the child new mount, pid, network (if wanted), IPC and cgroup namespaces, and runs a Python
function there. What that function starts cannot be seen from outside, cannot meet what others run on the machine, and
dies with it. Because the child is the root of a cgroup namespace, engines use their own default parents (`/docker`,
`/libpod_parent`, `/default`) and the whole subtree can be checked for left-overs and measured from outside.

Needs root. Used by conformance/engines (engines with real daemons) and conformance/bench.
"""

import ctypes
import errno
import fcntl
import os
import re
import signal
import socket
import struct
import sys
import time
import traceback
from pathlib import Path

CLONE_NEWNS = 0x00020000
CLONE_NEWCGROUP = 0x02000000
CLONE_NEWIPC = 0x08000000
CLONE_NEWPID = 0x20000000
CLONE_NEWNET = 0x40000000
MS_NOSUID, MS_NODEV, MS_NOEXEC = 2, 4, 8
MS_REC, MS_PRIVATE, MS_SHARED = 16384, 1 << 18, 1 << 20
MNT_DETACH = 2
PR_SET_PDEATHSIG = 1
SIOCSIFFLAGS, IFF_UP = 0x8914, 1

CGROUP_ROOT = Path("/sys/fs/cgroup")

_libc = ctypes.CDLL(None, use_errno=True)


def _checked(result, what):
    if result != 0:
        code = ctypes.get_errno()
        raise OSError(code, f"{what}: {os.strerror(code)}")


def unshare(flags):
    """unshare(2); OSError on failure."""
    _checked(_libc.unshare(flags), f"unshare 0x{flags:x}")


def mount(source, target, fstype=None, flags=0, data=None):
    """mount(2) with text arguments; OSError naming the target on failure."""
    def text(value):
        return None if value is None else str(value).encode()
    _checked(_libc.mount(text(source), text(target), text(fstype), ctypes.c_ulong(flags), text(data)),
             f"mount {fstype or ''} at {target}")


def umount(target, flags=0):
    """umount2(2); OSError naming the target on failure."""
    _checked(_libc.umount2(str(target).encode(), flags), f"umount {target}")


def die_with_parent():
    """The calling process gets SIGKILL when the thread that forked it ends."""
    _checked(_libc.prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0), "prctl PDEATHSIG")


def wait_until(condition, seconds, what):
    """Looks at `condition()` until it is true, and returns what it returned; TimeoutError naming `what` after `seconds`.

    For things that have no descriptor to wait on (a cgroup directory that must vanish, a daemon's answer).
    """
    deadline = time.monotonic() + seconds
    while True:
        value = condition()
        if value:
            return value
        if time.monotonic() > deadline:
            raise TimeoutError(f"not within {seconds} s: {what}")
        time.sleep(0.01)


class Hierarchy:
    """One mounted cgroup hierarchy of this machine.

    `controllers`: as the mount option names them ("cpu", "cpu,cpuacct", "name=systemd"); empty for cgroup2.
    `mountpoint`: where the outer machine has it. `own`: the calling process's cgroup below it.
    """

    def __init__(self, version, controllers, mountpoint, own):
        self.version, self.controllers, self.mountpoint, self.own = version, controllers, mountpoint, own

    def __repr__(self):
        return f"Hierarchy(v{self.version}, {self.controllers!r}, {self.mountpoint})"


def cgroup_mounts(mountinfo="/proc/self/mountinfo"):
    """(version, controllers, mount point) of every cgroup mount the calling process can see, in mount order."""
    known = {line.split()[0] for line in Path("/proc/cgroups").read_text().splitlines()[1:]}
    found = []
    for line in Path(mountinfo).read_text().splitlines():
        left, right = line.split(" - ", 1)
        fstype, _, options = right.split(" ", 2)
        point = left.split()[4]
        if fstype == "cgroup2":
            found.append((2, "", point))
        elif fstype == "cgroup":
            names = [o for o in options.split(",") if o in known or o.startswith("name=")]
            found.append((1, ",".join(names), point))
    return found


def own_cgroups():
    """The calling process's cgroup in every hierarchy, keyed by the controller list of /proc/self/cgroup ("" is cgroup2)."""
    result = {}
    for line in Path("/proc/self/cgroup").read_text().splitlines():
        _, controllers, path = line.split(":", 2)
        result[controllers] = path
    return result


def hierarchies():
    """Every cgroup hierarchy that the calling process can see mounted, each once."""
    own = own_cgroups()
    found = {}
    for version, controllers, point in cgroup_mounts():
        found.setdefault((version, controllers), Hierarchy(version, controllers, Path(point), own.get(controllers, "/")))
    return list(found.values())


class CgroupTree:
    """One fresh cgroup of the same name in every hierarchy: made and removed from outside the world."""

    def __init__(self, name):
        self.name = name
        self.paths = []  # (Hierarchy, Path of our cgroup)
        _sweep()
        for hierarchy in hierarchies():
            # v1: below our own cgroup, so that limits set on us hold for the world too. v2: below the root,
            # because a cgroup with processes in it can hand no controller on to a child.
            parent = hierarchy.mountpoint / hierarchy.own.lstrip("/") if hierarchy.version == 1 else hierarchy.mountpoint
            if not parent.is_dir():  # /proc/self/cgroup as seen through a bind mount
                parent = hierarchy.mountpoint
            path = parent / name
            path.mkdir(exist_ok=True)
            if "cpuset" in hierarchy.controllers.split(","):
                for knob in ("cpuset.cpus", "cpuset.mems"):
                    (path / knob).write_text((parent / knob).read_text())
            self.paths.append((hierarchy, path))

    def join(self):
        """Moves the calling process in."""
        for _, path in self.paths:
            (path / "cgroup.procs").write_text("0")

    def path_of(self, controller):
        """Our cgroup's outer path in the hierarchy of a v1 controller, or of cgroup2 for ""; None if there is none."""
        for hierarchy, path in self.paths:
            if hierarchy.controllers == controller or controller in hierarchy.controllers.split(","):
                return path
        return None

    def remove(self, seconds=20):
        """Removes our cgroups and all below; TimeoutError if a process stays in one."""
        for _, path in self.paths:
            wait_until(lambda: remove_cgroup(path), seconds, f"{path} removed")


def _sweep():
    """Removes the empty cgroups of worlds whose maker was killed before it could."""
    for hierarchy in hierarchies():
        parent = hierarchy.mountpoint / hierarchy.own.lstrip("/") if hierarchy.version == 1 else hierarchy.mountpoint
        if not parent.is_dir():
            continue
        for entry in parent.iterdir():
            maker = re.fullmatch(r"arca-(?:engines|bench)-(\d+)(?:-.*)?", entry.name)
            if maker and not os.path.exists(f"/proc/{maker.group(1)}"):
                remove_cgroup(entry)


def remove_cgroup(path):
    """Removes a cgroup with all below it, deepest first; False while something holds one of them."""
    for directory, _, _ in os.walk(path, topdown=False):
        try:
            os.rmdir(directory)
        except FileNotFoundError:
            pass
        except OSError as error:
            if error.errno in (errno.EBUSY, errno.ENOTEMPTY):
                return False
            raise
    return True


def _unmount_cgroups():
    points = [Path(point) for _, _, point in cgroup_mounts()]
    for point in reversed(points):
        umount(point, MNT_DETACH)
    if os.path.ismount(CGROUP_ROOT):
        umount(CGROUP_ROOT, MNT_DETACH)


def _mount_cgroups(layout, mode):
    """Inside the world: mounts the hierarchies afresh, so that each root is the world's own cgroup.

    `layout`: the outer machine's hierarchies. `mode`: "host" as outside; "v1" without cgroup2; "v2" only cgroup2.
    """
    tree_is_v2 = any(h.version == 2 and h.mountpoint == CGROUP_ROOT for h in layout)
    if mode == "v2" or tree_is_v2:
        mount("cgroup2", CGROUP_ROOT, "cgroup2", MS_NOSUID | MS_NODEV | MS_NOEXEC)
        return
    mount("tmpfs", CGROUP_ROOT, "tmpfs", MS_NOSUID | MS_NODEV | MS_NOEXEC, "mode=755")
    for hierarchy in layout:
        target = CGROUP_ROOT / hierarchy.mountpoint.name
        if hierarchy.version == 2:
            if mode == "v1":
                continue
            target.mkdir()
            mount("cgroup2", target, "cgroup2", MS_NOSUID | MS_NODEV | MS_NOEXEC)
            continue
        target.mkdir()
        mount("cgroup", target, "cgroup", MS_NOSUID | MS_NODEV | MS_NOEXEC, hierarchy.controllers)
        for controller in hierarchy.controllers.split(","):
            link = CGROUP_ROOT / controller
            if "," in hierarchy.controllers and not link.exists():
                link.symlink_to(target.name)


def _leave_v2_root():
    """cgroup2: moves the caller into the leaf /world, then hands every controller on from the namespace's root.

    Nothing to do where no controller is available (a hybrid host keeps them on v1).
    """
    for version, _, point in cgroup_mounts():
        if version == 2:
            root = Path(point)
            leaf = root / "world"
            leaf.mkdir(exist_ok=True)
            (leaf / "cgroup.procs").write_text("0")
            for controller in (root / "cgroup.controllers").read_text().split():
                (root / "cgroup.subtree_control").write_text(f"+{controller}")


def _loopback_up():
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as control:
        fcntl.ioctl(control, SIOCSIFFLAGS, struct.pack("16sH14x", b"lo", IFF_UP))


def _make_scratch(directories):
    """In the world: lays a writable layer over each directory, so that the machine's own stays as it is."""
    for number, directory in enumerate(directories):
        upper, work = Path(f"/run/scratch/{number}/upper"), Path(f"/run/scratch/{number}/work")
        upper.mkdir(parents=True)
        work.mkdir()
        mount("overlay", directory, "overlay", 0, f"lowerdir={directory},upperdir={upper},workdir={work}")


def _become_init(layout, network, cgroups, scratch):
    """The first process of the new pid namespace makes the world's mounts."""
    mount("none", "/", None, MS_REC | MS_PRIVATE)
    mount("proc", "/proc", "proc", MS_NOSUID | MS_NODEV | MS_NOEXEC)
    _unmount_cgroups()
    if network:  # sysfs shows the network namespace it was mounted in
        mount("sysfs", "/sys", "sysfs", MS_NOSUID | MS_NODEV | MS_NOEXEC)
        _loopback_up()
    _mount_cgroups(layout, cgroups)
    if cgroups == "v2" or any(h.version == 2 and h.mountpoint == CGROUP_ROOT for h in layout):
        _leave_v2_root()
    mount("tmpfs", "/run", "tmpfs", MS_NOSUID | MS_NODEV, "mode=755")
    _make_scratch(scratch)
    # As systemd leaves an ordinary host: a runtime that lets its mounts propagate is found out.
    mount("none", "/", None, MS_REC | MS_SHARED)


def _exit_code(status):
    code = os.waitstatus_to_exitcode(status)
    return code if code >= 0 else 128 - code


def reap_until(pid):
    """Waits for `pid` as a reaping init does: every other child that ends is collected too. Gives its exit code."""
    while True:
        ended, status = os.wait()
        if ended == pid:
            return _exit_code(status)


def _in_child(function):
    """Runs `function` and leaves the process with what it returned; a traceback and 70 if it raised."""
    code = 70
    try:
        code = function() or 0
    except SystemExit as request:
        code = request.code if isinstance(request.code, int) else 70
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


class World:
    """A running world, as its maker sees it. `pid`: of the process to wait for; `tree`: its cgroups."""

    def __init__(self, pid, tree):
        self.pid, self.tree = pid, tree

    def wait(self):
        """Waits for the end, removes what the world was made of on the machine, and gives the exit code.

        If it is interrupted (KeyboardInterrupt, or SystemExit from a signal handler), it ends the world first.
        """
        try:
            return _exit_code(os.waitpid(self.pid, 0)[1])
        except BaseException:
            os.kill(self.pid, signal.SIGKILL)  # not reaped, so still ours; the world dies with it
            os.waitpid(self.pid, 0)
            raise
        finally:
            self.tree.remove()


def spawn(name, body, *, network=True, cgroups="host", init=False, scratch=()):
    """Starts `body()` in a new world and gives the World; the caller calls its `wait()`.

    `name`: of the world's cgroup; must not be in use. `network`: a new network namespace with only loopback.
    `cgroups`: "host" (all that the machine has), "v1" (cgroup2 not mounted), "v2" (only cgroup2 mounted).
    `init`: `body` itself is the world's pid 1 and must reap; otherwise a reaping pid 1 stands above it.
    `scratch`: directories that the world may write to without the machine noticing (/run is always its own, and empty).
    The exit code is what `body` returned (None: 0). If the caller dies, the world dies.
    """
    tree = CgroupTree(name)
    layout = hierarchies()
    sys.stdout.flush()
    sys.stderr.flush()
    pid = os.fork()
    if pid:
        return World(pid, tree)

    def middle():
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        die_with_parent()
        tree.join()
        unshare(CLONE_NEWNS | CLONE_NEWPID | CLONE_NEWCGROUP | CLONE_NEWIPC | (CLONE_NEWNET if network else 0))
        first = os.fork()
        if first == 0:
            _in_child(first_process)
        return _exit_code(os.waitpid(first, 0)[1])

    def first_process():
        die_with_parent()
        _become_init(layout, network, cgroups, scratch)
        if init:
            return body()
        main = os.fork()
        if main == 0:
            _in_child(body)
        return reap_until(main)

    return _in_child(middle)


def enter(name, body, **options):
    """Runs `body()` in a new world (see `spawn`), waits for its end, and gives its exit code."""
    return spawn(name, body, **options).wait()
