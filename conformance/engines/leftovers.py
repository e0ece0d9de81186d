"""What a test leaves behind in its world: processes, mounts, cgroups, network namespaces, files of the runtime.

Everything is taken from the world's own /proc, /sys/fs/cgroup and /run (see world.py), so nothing of the rest of the
machine shows up. `Snapshot.take()` before, `wait_for_none(before)` after.
"""

import os
import select
import time
from pathlib import Path

import world

# Parents that engines and runtimes make once and keep: the daemon's, not a container's.
KEPT_CGROUPS = {"docker", "libpod_parent", "libpod_parent/conmon", "default", "conmon", "world"}

# Mounts that engines make for themselves when the first container needs them: dockerd binds its own network namespace,
# CNI makes /run/netns a mount (what is in there is checked by network_namespaces()), and containers/storage binds its
# overlay directory onto itself, and undoes that whenever nobody uses it.
ENGINE_MOUNTS = ("/exec/netns/default", "/run/netns", "/root/overlay")


def is_agent(pid):
    """True if `pid` is the runtime's background agent, which may stay a few seconds when nothing needs it."""
    try:
        return Path(f"/proc/{pid}/comm").read_text().strip() == "vminitd"
    except OSError:
        return False


def processes():
    """{pid: what it runs} of every process in the world, zombies included, agents not."""
    found = {}
    for name in os.listdir("/proc"):
        if not name.isdigit():
            continue
        try:
            stat = Path(f"/proc/{name}/stat").read_text()
            command = Path(f"/proc/{name}/cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
        except OSError:
            continue
        if not is_agent(name):
            comm = stat[stat.index("(") + 1:stat.rindex(")")]
            zombie = " (zombie)" if stat[stat.rindex(")") + 2] == "Z" else ""
            found[int(name)] = f"pid {name}{zombie} {command.strip() or comm}"
    return found


def mounts():
    """Every mount of the world's mount namespace as 'mount point type source'."""
    found = set()
    for line in Path("/proc/self/mountinfo").read_text().splitlines():
        left, right = line.split(" - ", 1)
        fields = left.split()
        if fields[4].endswith(ENGINE_MOUNTS):
            continue
        found.add(f"{fields[4]} {' '.join(right.split()[:2])} id {fields[0]}")
    return found


def cgroups():
    """Every cgroup below the world's own, in every hierarchy, but for the parents that stay."""
    found = set()
    for _, _, point in world.cgroup_mounts():
        for directory, _, _ in os.walk(point):
            relative = os.path.relpath(directory, point)
            if relative != "." and relative not in KEPT_CGROUPS:
                found.add(f"{point}: {relative}")
    return found


def network_namespaces():
    """Names that docker, ip netns and CNI give to the network namespaces they keep."""
    found = set()
    for directory in ("/run/docker/netns", "/run/netns"):
        if os.path.isdir(directory):
            found |= {f"{directory}/{name}" for name in os.listdir(directory)}
    return found


def runtime_state(roots):
    """Container folders in the runtime's --root directories; what starts with '@' or '.' is not a container's."""
    found = set()
    for root in roots:
        if os.path.isdir(root):
            found |= {f"{root}/{name}" for name in os.listdir(root) if name[0] not in "@."}
    return found


class Snapshot:
    """The world at one moment. `roots`: --root directories of the runtimes that the engine uses."""

    def __init__(self, roots):
        self.roots = tuple(roots)
        self.parts = {"process": set(processes().values()), "mount": mounts(), "cgroup": cgroups(),
                      "network namespace": network_namespaces(), "runtime state": runtime_state(self.roots)}

    def added_since(self, before):
        """['process: …', …]: all that is here and was not there `before`."""
        return [f"{kind}: {thing}" for kind, things in self.parts.items()
                for thing in sorted(things - before.parts[kind])]


def wait_for_none(before, seconds=30):
    """Waits until nothing is left that was not there `before`; AssertionError that lists what is."""
    deadline = time.monotonic() + seconds
    while True:
        added = Snapshot(before.roots).added_since(before)
        if not added:
            return
        if time.monotonic() > deadline:
            raise AssertionError(f"left behind {seconds} s after the test:\n  " + "\n  ".join(added))
        time.sleep(0.02)


def agents():
    """Pids of the runtime's agents in the world."""
    return [int(name) for name in os.listdir("/proc") if name.isdigit() and is_agent(name)]


def wait_for_agents_to_leave(seconds=60):
    """Waits on each agent's pidfd until it has ended by itself; AssertionError if one stays."""
    deadline = time.monotonic() + seconds
    for pid in agents():
        try:
            handle = os.pidfd_open(pid)
        except ProcessLookupError:
            continue
        try:
            poller = select.poll()
            poller.register(handle, select.POLLIN)
            if not poller.poll(max(0, deadline - time.monotonic()) * 1000):
                raise AssertionError(f"agent {pid} is still there after {seconds} s with no container left")
        finally:
            os.close(handle)
