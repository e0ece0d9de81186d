"""What a test may not leave behind: processes, mounts, cgroups, state, sockets, files in /run and /dev/shm.

Inside the namespaces of isolation.py every process and every mount belongs to the test program, so any that was
not there before is a leak. Cgroups are not private: those count that carry the tag of this run (each id has it)
or lie below the test program's own.
"""

import glob
import json
import os
import signal
import stat
import time

from isolation import MNT_DETACH, umount

AGENT_FOLDER = "@local"


def read_text(path):
    """The text of a file in /proc or /sys, or "" when its subject has gone."""
    try:
        with open(path, encoding="utf-8", errors="replace") as file:
            return file.read()
    except OSError:
        return ""


def process_state(pid):
    """(state letter, parent) of a process; ("", 0) when it has gone."""
    after_name = read_text(f"/proc/{pid}/stat").rpartition(")")[2].split()
    return (after_name[0], int(after_name[1])) if len(after_name) > 1 else ("", 0)


def is_kernel_thread(pid):
    """Seen by test programs only that have no process namespace of their own."""
    pf_kthread = 0x00200000
    after_name = read_text(f"/proc/{pid}/stat").rpartition(")")[2].split()
    return len(after_name) > 6 and bool(int(after_name[6]) & pf_kthread)


def describe(pid):
    command = read_text(f"/proc/{pid}/cmdline").replace("\0", " ").strip()
    state, parent = process_state(pid)
    return f"process {pid} [{read_text(f'/proc/{pid}/comm').strip()}] {state} parent {parent}: {command}"


def all_processes():
    return {int(name) for name in os.listdir("/proc") if name.isdigit()}


def mount_lines():
    with open("/proc/self/mountinfo", encoding="utf-8") as file:
        return {line.rstrip("\n") for line in file}


def cgroup_roots():
    """Mount point of each cgroup hierarchy, with the test program's own path in it."""
    own = {}
    for line in read_text("/proc/self/cgroup").splitlines():
        _, controllers, path = line.split(":", 2)
        own[controllers] = path
    roots = {}
    for line in mount_lines():
        left, right = line.split(" - ")
        kind, _, options = right.split()
        if kind not in ("cgroup", "cgroup2"):
            continue
        names = "" if kind == "cgroup2" else next(
            (key for key in own if key and set(key.split(",")) <= set(options.split(","))), None)
        roots[left.split()[4]] = own.get(names, "/")
    return roots


def cgroups_of(tag):
    """Every cgroup directory that is ours."""
    found = set()
    for root, own in cgroup_roots().items():
        below_own = root + own + "/" if own != "/" else None
        for folder, _, _ in os.walk(root):
            if tag in folder or (below_own and folder.startswith(below_own)):
                found.add(folder)
    return found


def tree(*folders):
    """Every path below the folders."""
    return {os.path.join(parent, name) for top in folders for parent, folders_, files in os.walk(top)
            for name in folders_ + files}


def sockets_below(folder):
    """Sockets in the file system; only what is neither folder, file nor link is looked at closely."""
    found, folders = [], [folder]
    while folders:
        try:
            with os.scandir(folders.pop()) as entries:
                for entry in entries:
                    if entry.is_dir(follow_symlinks=False):
                        folders.append(entry.path)
                    elif not (entry.is_symlink() or entry.is_file(follow_symlinks=False)):
                        if stat.S_ISSOCK(entry.stat(follow_symlinks=False).st_mode):
                            found.append(entry.path)
        except FileNotFoundError:
            pass  # gone meanwhile
    return found


def agent_pids(root):
    """Pids of the agents of a state root, by key of the sandbox; only those that still run."""
    agents = {}
    for record in glob.glob(f"{glob.escape(root)}/{AGENT_FOLDER}/*/agent.json"):
        try:
            pid = json.loads(read_text(record))["pid"]
        except (ValueError, KeyError):
            continue  # being written or removed
        if process_state(pid)[0] not in ("", "Z"):
            agents[os.path.basename(os.path.dirname(record))] = pid
    return agents


# Kept until the machine restarts, on purpose: whether KVM works here (arca-runtime(8), "accel").
VERDICT = {"/run/arca-runtime", "/run/arca-runtime/@kvm"}


def runtime_files():
    """What is in /run and /dev/shm but for the notes that systemd, where it runs, keeps of itself and its units."""
    return {path for path in tree("/run", "/dev/shm") if not path.startswith("/run/systemd/")}


class Snapshot:
    """The machine at one moment; `leaks` compares it with the machine of now."""

    def __init__(self, tag):
        self.tag = tag
        self.processes = all_processes()
        self.mounts = mount_lines()
        self.cgroups = cgroups_of(tag)
        self.files = runtime_files() | VERDICT

    def _now(self, folder, roots, agents_may_run):
        """One look; see leaks."""
        agents = {pid for root in roots for pid in agent_pids(root).values()} if agents_may_run else set()
        found = [describe(pid) for pid in sorted(all_processes() - self.processes - agents)
                 if process_state(pid)[0] and not is_kernel_thread(pid)]
        mounts = mount_lines()
        found += [f"mount: {line}" for line in sorted(mounts - self.mounts)]
        found += [f"mount gone: {line}" for line in sorted(self.mounts - mounts)]
        found += [f"cgroup: {path}" for path in sorted(cgroups_of(self.tag) - self.cgroups)]
        found += [f"file: {path}" for path in sorted(runtime_files() - self.files)]
        for root in roots:
            if os.path.isdir(root):
                found += [f"state: {root}/{name}" for name in os.listdir(root) if name != AGENT_FOLDER]
        found += [f"socket: {path}" for path in sockets_below(folder)
                  if not (agents_may_run and f"/{AGENT_FOLDER}/" in path)]
        return found

    def leaks(self, folder, roots, seconds, agents_may_run=True, reap=lambda: None):
        """What is there and was not: waits up to `seconds` for it to go (a killed process dies in its own time)."""
        deadline = time.monotonic() + seconds
        pause = 0.002
        while True:
            reap()
            found = self._now(folder, roots, agents_may_run)
            if not found or time.monotonic() > deadline:
                return found
            time.sleep(pause)
            pause = min(pause * 2, 0.05)

    def clean(self, reap):
        """Removes by force what leaked, so that one failure does not fail the tests after it."""
        deadline = time.monotonic() + 5
        while all_processes() - self.processes and time.monotonic() < deadline:
            for pid in all_processes() - self.processes:
                try:
                    os.kill(pid, signal.SIGKILL)
                except ProcessLookupError:
                    pass
            reap()
            time.sleep(0.01)
        for line in sorted(mount_lines() - self.mounts, key=lambda text: -int(text.split()[0])):
            try:
                umount(line.split()[4].encode().decode("unicode_escape"), MNT_DETACH)
            except OSError:
                pass
        for path in sorted(cgroups_of(self.tag) - self.cgroups, reverse=True):
            try:
                os.rmdir(path)
            except OSError:
                pass
        for path in sorted(runtime_files() - self.files, reverse=True):
            try:
                os.rmdir(path) if os.path.isdir(path) and not os.path.islink(path) else os.unlink(path)
            except OSError:
                pass
