#!/usr/bin/python3 -B
"""Runs a program as root in a VM whose root file system is this machine's: below read-only, writes go to memory.

    in_host_root.py [--systemd] [--cgroup-v1] [--memory MIB] [--seconds S] [--modules A,B] PROGRAM [ARGUMENTS]

So a test program that needs another kernel than this machine's finds there everything that it has here: Python, the
checkout, the built programs, at the same paths. The kernel is Debian's cloud kernel (see vminitd/image/guest_kernel.py)
with one cgroup v2 tree that has all controllers; /dev/vda is an empty disk.

--systemd       the first process is this machine's systemd, with a system bus and the program as its only service; the
                program is run in a cgroup of its own. Without: a shell, and the program is in the root's cgroup.
--cgroup-v1     a hierarchy of cgroup v1 for each controller that the kernel has instead, as systemd once mounted them

What the program writes is written here as it comes; the exit code is the program's, or 255 when the VM ended without
one. NAME=VALUE of RUNTIME, E2E_ALL and ARCA_* are passed on.
"""

import argparse
import os
import pathlib
import shlex
import shutil
import subprocess
import sys
import tempfile
import time

import machine
from machine import BUSYBOX, Machine, guest_kernel

MODULES = ("virtio_pci", "virtiofs", "overlay", "virtio_blk", "bfq", "autofs4", "veth", "loop", "ext4")
SYSTEMD = "/lib/systemd/systemd"
# As arguments, not on the kernel's command line: that is not read when this machine's root looks like a container's.
SYSTEMD_WORDS = f"{SYSTEMD} --unit=in-host-root.target --show-status=no --log-level=warning --log-target=console"
DBUS_DAEMON = "/usr/bin/dbus-daemon"
PASSED_ON = ("RUNTIME", "E2E_ALL")
MARK = "in-host-root: exit code "
DISK_MIB = 64
NO_END = 255
FOLDERS = ("bin", "dev", "layers", "modules", "new", "proc", "sys")

# The initramfs: modules, then this machine's root with a layer of memory over it.
INIT = """#!/bin/busybox sh
export PATH=/bin
fail() { echo "in-host-root: $1"; poweroff -f; }
/bin/busybox --install -s /bin
mount -t devtmpfs dev /dev && exec </dev/ttyS0 >/dev/ttyS0 2>&1
mount -t proc proc /proc
mount -t sysfs sys /sys
while read -r module; do insmod "/modules/$module" || fail "insmod $module"; done < /modules/load-order
mount -t tmpfs -o mode=755 layers /layers || fail "mount the upper layer"
mkdir /layers/lower /layers/upper /layers/work
mount -t virtiofs -o ro share /layers/lower || fail "mount this machine's root"
mount -t overlay -o lowerdir=/layers/lower,upperdir=/layers/upper,workdir=/layers/work root /new || fail "mount the root"
for folder in dev proc sys; do mount --move "/$folder" "/new/$folder" || fail "move /$folder"; done
mount -t tmpfs -o mode=1777 scratch /new/mnt
mount -t tmpfs -o mode=755 run /new/run
mkdir -p /new/dev/shm /new/dev/pts /new/run/systemd/system
mount -t tmpfs -o mode=1777 shm /new/dev/shm
mount -t devpts -o newinstance,ptmxmode=666,mode=620,gid=5 devpts /new/dev/pts
. /cgroups
hostname guest
ip link set lo up
cp /main /new/run/main
cp /units/* /new/run/systemd/system/
exec switch_root /new /bin/sh -c 'exec '"$(cat /first)"
"""

CGROUP_V2 = """mount -t cgroup2 -o nsdelegate,memory_recursiveprot cgroup2 /new/sys/fs/cgroup || fail "mount cgroup2"
"""
# Those that share a hierarchy are mounted by the name of both, and each has a link.
CGROUP_V1 = """cd /new/sys/fs/cgroup && mount -t tmpfs -o mode=755 cgroup . && cd /new/sys/fs/cgroup
for names in cpuset cpu,cpuacct blkio memory devices freezer net_cls,net_prio perf_event hugetlb pids rdma; do
    mkdir "$names" && mount -t cgroup -o "$names" cgroup "$names" || fail "mount $names"
    case $names in *,*) ln -s "$names" "${names%,*}"; ln -s "$names" "${names#*,}";; esac
done
mkdir systemd && mount -t cgroup -o none,name=systemd cgroup systemd || fail "mount systemd"
mount -o remount,ro .
cd /
"""

# As the first process, or as systemd's service. The machine's own way to power off is not used: it takes seconds.
MAIN = """cd {folder} || exit 1
exec < /dev/null > /dev/ttyS1 2>&1
stty -F /dev/ttyS1 raw -echo
{environment} {command}
code=$?
echo "{mark}$code"
exec {busybox} poweroff -f
"""

# Units that leave out the machine's own services, and all that a start of a real machine waits for.
UNITS = {
    "in-host-root.target": "[Unit]\nDefaultDependencies=no\nRequires=in-host-root.service dbus.socket\n",
    "in-host-root.service": "[Unit]\nDefaultDependencies=no\nAfter=dbus.service\nRequires=dbus.service\n"
                            "[Service]\nType=exec\nExecStart=/bin/sh /run/main\nTimeoutSec=infinity\nDelegate=yes\n"
                            "OOMPolicy=continue\nTasksMax=infinity\nLimitNOFILE=65536\n",
    "dbus.socket": "[Unit]\nDefaultDependencies=no\n[Socket]\nListenStream=/run/dbus/system_bus_socket\n",
    "dbus.service": "[Unit]\nDefaultDependencies=no\nRequires=dbus.socket\n[Service]\nType=notify\nNotifyAccess=main\n"
                    f"ExecStart={DBUS_DAEMON} --system --address=systemd: --nofork --nopidfile --systemd-activation"
                    " --syslog-only\n",
}


# virtiofsd in a mount namespace where this machine's root lies, read-only, on a folder: it cannot share "/" itself.
SHARE_ROOT = 'mount --rbind / "$1" && mount -o remount,bind,ro "$1" && shift && exec "$@"'


class HostRootMachine(Machine):
    """A Machine whose share is the root of this machine; the folder given as `share` only has to be there."""

    def _virtiofsd_command(self, socket_path):
        command = super()._virtiofsd_command(socket_path)
        return ["unshare", "--mount", "sh", "-c", SHARE_ROOT, "sh", str(self.share),
                *("cache=always" if word == "cache=auto" else word for word in command)]


def missing_programs(systemd):
    """What is needed and this machine has not."""
    wanted = [machine.QEMU, machine.VIRTIOFSD, BUSYBOX, "cpio"] + ([SYSTEMD, DBUS_DAEMON] if systemd else [])
    return [program for program in wanted if shutil.which(program) is None]


def environment_words():
    """The variables that are passed on, quoted for a shell."""
    kept = {name: value for name, value in os.environ.items() if name in PASSED_ON or name.startswith("ARCA_")}
    kept.update(PATH="/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", HOME="/root",
                LC_ALL="C.UTF-8", TMPDIR="/mnt")
    return "env -i " + " ".join(f"{name}={shlex.quote(value)}" for name, value in sorted(kept.items()))


def initramfs(folder, kernel, command, systemd, cgroups):
    """Writes the initramfs below `folder` and gives its path."""
    tree = folder / "tree"
    for name in (*FOLDERS, "units"):
        (tree / name).mkdir(parents=True)
    shutil.copyfile(BUSYBOX, tree / "bin" / "busybox")
    (tree / "bin" / "busybox").chmod(0o755)
    for module in kernel.modules:
        shutil.copyfile(module, tree / "modules" / module.name)
    (tree / "modules" / "load-order").write_text("".join(m.name + "\n" for m in kernel.modules), encoding="ascii")
    (tree / "init").write_text(INIT, encoding="ascii")
    (tree / "init").chmod(0o755)
    (tree / "cgroups").write_text(cgroups, encoding="ascii")
    (tree / "main").write_text(MAIN.format(folder=shlex.quote(os.getcwd()), environment=environment_words(),
                                           command=shlex.join(command), mark=MARK, busybox=BUSYBOX), encoding="utf-8")
    (tree / "first").write_text(SYSTEMD_WORDS if systemd else "/bin/sh /run/main", encoding="ascii")
    for name, text in UNITS.items():
        (tree / "units" / name).write_text(text, encoding="ascii")
    names = "".join(f"{path.relative_to(tree)}\n" for path in sorted(tree.rglob("*")))
    image = folder / "initramfs.cpio"
    with open(image, "wb") as output:
        subprocess.run(["cpio", "--create", "--format=newc", "--quiet"], cwd=tree, input=names.encode(), stdout=output,
                       check=True)
    return image


def follow(vm, path, seconds):
    """Copies the program's output as it grows, until the VM has ended; gives the exit code."""
    deadline = time.monotonic() + seconds
    tail = b""
    with open(path, "rb") as output:
        while True:
            ended = vm.qemu.poll() is not None
            block = output.read()
            if block:
                tail = (tail + block)[-4096:]
                shown = block.split(MARK.encode())[0]
                sys.stdout.buffer.write(shown)
                sys.stdout.flush()
            elif ended:
                break
            elif time.monotonic() > deadline:
                print(f"in-host-root: no end after {seconds} s", file=sys.stderr)
                return NO_END
            else:
                time.sleep(0.02)
    code = tail.rpartition(MARK.encode())[2].strip()
    return int(code) if MARK.encode() in tail and code.isdigit() else NO_END


def run(command, systemd=False, cgroup_v1=False, memory_mib=1024, seconds=600, modules=()):
    """Boots, runs `command`, powers off; gives the command's exit code."""
    folder = pathlib.Path(tempfile.mkdtemp(prefix="arca-host-root-"))
    try:
        kernel = guest_kernel.prepare(MODULES + tuple(modules))
        disk = folder / "disk.img"
        with open(disk, "wb") as file:
            file.truncate(DISK_MIB << 20)
        log = folder / "output.log"
        log.touch()
        append = "hugepages=8 apparmor=0" + ("" if cgroup_v1 else " cgroup_no_v1=all")
        image = initramfs(folder, kernel, command, systemd, CGROUP_V1 if cgroup_v1 else CGROUP_V2)
        share = folder / "root"
        share.mkdir()
        with HostRootMachine(kernel, image, memory_mib=memory_mib, cpus=2, share=share, append=append, disks=[disk],
                             qemu_arguments=["-serial", f"file:{log}"]) as vm:
            code = follow(vm, log, seconds)
            if code == NO_END:
                qemu_log = (vm.folder / "qemu.log").read_text(errors="replace")
                print("--- console\n" + vm.console_text()[-4000:] + qemu_log, file=sys.stderr)
            return code
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--systemd", action="store_true")
    parser.add_argument("--cgroup-v1", action="store_true")
    parser.add_argument("--memory", type=int, default=1024, metavar="MIB")
    parser.add_argument("--seconds", type=int, default=600, help="how long it may take")
    parser.add_argument("--modules", default="", metavar="NAMES", help="more modules of the kernel")
    parser.add_argument("command", nargs=argparse.REMAINDER)
    options = parser.parse_args()
    if not options.command:
        parser.error("which program?")
    missing = missing_programs(options.systemd)
    if missing:
        sys.exit("in-host-root: not found: " + ", ".join(missing))
    modules = [name for name in options.modules.split(",") if name]
    sys.exit(run(options.command, options.systemd, options.cgroup_v1, options.memory, options.seconds, modules))


if __name__ == "__main__":
    main()
