#!/usr/bin/python3
"""Figures of the guest: how long it takes to boot, what the agent occupies, how fast streams are.

    measure.py [boot] [run] [memory] [streams] [--runs N] [--cpus N]     (all of them by default)

boot      from the start of QEMU to the first gRPC answer, against the same kernel whose init only powers off: as Debian
          packs it (vmlinuz), with QEMU's usual memory; and as our VMs boot it (vmlinux, memory in huge pages)
run       from the start of `arca-runtime --sandbox vm run` to the container's first output, against the same
memory    the agent's resident memory, idle and with 64 processes with stdio
streams   a program's output through the agent, against the same stream straight from the guest's vsock
"""

import argparse
import contextlib
import dataclasses
import json
import os
import pathlib
import re
import shutil
import statistics
import subprocess
import tempfile
import time

import machine
from agent import Agent, ext
from guest import Guest, configuration, image_arguments
from machine import Machine, guest_image, guest_kernel, static_program

EMPTY_INIT = """
#include <sys/reboot.h>
int main(void) { return reboot(RB_POWER_OFF); }
"""
MIB = 1 << 20


def empty_image(folder):
    """An initramfs with nothing but an init that powers off."""
    program = static_program(folder, "empty", EMPTY_INIT)
    return guest_image(guest_kernel.Kernel(folder, folder, "", ()), folder, name="empty.img", vminitd=program,
                       vmexec=program)


def cpu_seconds(pid):
    """User and system time of a process so far."""
    fields = pathlib.Path(f"/proc/{pid}/stat").read_text(encoding="ascii").rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def first_answer(kernel, image, ram):
    """Seconds from the start of QEMU to the answer to the first call: of the clock, and of QEMU's CPU time."""
    with Machine(kernel, image, ram=ram) as vm:
        vm.wait_agent()
        with Agent(vm) as agent:
            agent.extension.Version(ext.VersionRequest(), timeout=60)
            return time.monotonic() - vm.started_at, cpu_seconds(vm.qemu.pid)


@contextlib.contextmanager
def huge_pages(folder):
    """A tmpfs of huge pages, which the memory of our VMs is in too."""
    ram = folder / "ram"
    ram.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "huge=within_size", "guest-memory", str(ram)], check=True)
    try:
        yield ram
    finally:
        subprocess.run(["umount", str(ram)], check=True)


def bare_boot(kernel, image, ram):
    with Machine(kernel, image, ram=ram) as vm:
        _, status, usage = os.wait4(vm.qemu.pid, 0)
        took = time.monotonic() - vm.started_at
        vm.qemu.returncode = os.waitstatus_to_exitcode(status)
        return took, usage.ru_utime + usage.ru_stime


def measured(kernel, folder, ram, runs, name, ours, units):
    """Ours and the bare kernels by turns, so that what else the machine does hits all alike."""
    empty = empty_image(folder)
    kernels = {"bare vmlinuz to power-off": (dataclasses.replace(kernel, unpacked=None), None)}
    if kernel.unpacked:
        kernels["bare vmlinux to power-off"] = (kernel, ram)
    times = {title: [] for title in (*kernels, name)}
    for _ in range(runs):
        for title, (bare, memory) in kernels.items():
            times[title].append(bare_boot(bare, empty, memory))
        times[name].append(ours())
    for number, unit in enumerate(units):
        figures = {}
        for title, pairs in times.items():
            values = [pair[number] for pair in pairs]
            figures[title] = (min(values), statistics.median(values))
            print(f"{title:28} min {min(values):6.3f}   median {statistics.median(values):6.3f} {unit}, {runs} runs")
        for title in kernels:
            shares = [mine / its for mine, its in zip(figures[name], figures[title])]
            print(f"{'ratio to ' + title.split(' to ')[0]:28} min {shares[0]:6.3f}   median {shares[1]:6.3f}")


def boot(kernel, image, folder, ram, runs):
    measured(kernel, folder, ram, runs, "first gRPC answer", lambda: first_answer(kernel, image, ram),
             ("s by the clock", "s of QEMU's CPU"))


PARTS = {"arca-runtime", "arca-monitor", "arca-vsock", "arca-standin", "virtiofsd", "qemu-system-x86"}


def programs():
    """Pids of the programs that a sandbox consists of."""
    found = set()
    for entry in pathlib.Path("/proc").iterdir():
        with contextlib.suppress(OSError):
            if entry.name.isdigit() and (entry / "comm").read_text(encoding="utf-8").strip() in PARTS:
                found.add(int(entry.name))
    return found


def first_output(bundle, root):
    """Seconds from the start of the command to the first byte that the container's program prints: of the clock, and of
    the CPU time of all the programs that took part."""
    others = programs()
    runtime = machine.BIN / "arca-runtime"
    begin = time.monotonic()
    with subprocess.Popen([str(runtime), "--root", str(root), "--sandbox", "vm", "run", "--bundle", str(bundle), "m"],
                          stdin=subprocess.DEVNULL, stdout=subprocess.PIPE) as process:
        process.stdout.read(1)
        took = time.monotonic() - begin
        used = sum(cpu_seconds(pid) for pid in programs() - others)
        process.stdout.read()
    if process.returncode != 0:
        raise AssertionError(f"run: exit code {process.returncode}")
    return took, used


def cli_run(kernel, folder, ram, runs):
    bundle = folder / "bundle"
    (bundle / "rootfs/bin").mkdir(parents=True)
    for name in ("proc", "dev", "sys"):
        (bundle / "rootfs" / name).mkdir()
    shutil.copy(machine.BUSYBOX, bundle / "rootfs/bin/busybox")
    subprocess.run([str(machine.BIN / "arca-runtime"), "spec", "--bundle", str(bundle)], check=True)
    config = json.loads((bundle / "config.json").read_text(encoding="ascii"))
    config["process"].update(terminal=False, args=["/bin/busybox", "echo", "up"])
    (bundle / "config.json").write_text(json.dumps(config), encoding="ascii")
    measured(kernel, folder, ram, runs, "run to the first output", lambda: first_output(bundle, folder / "root"),
             ("s by the clock", "s of CPU time"))


def agent_memory(guest, name):
    """VmRSS and the like of the agent in KiB, read by a container that sees its pid."""
    text = guest.run(name, ["cat", "/proc/1/status"], namespaces=("mount",)).out.decode()
    return {key: int(value) for key, value in re.findall(r"(VmRSS|Rss\w+|VmHWM|Threads):\s+(\d+)", text)}


def memory(guest):
    print(f"{'agent, after its first container':36}", agent_memory(guest, "m1"))
    processes = []
    for number in range(64):
        process = guest.create(f"p{number}", ["cat"], stdin=True)
        process.start()
        processes.append(process)
    for process in processes:
        process.stdin.sendall(b"x" * 100_000)
    print(f"{'64 processes with stdio':36}", agent_memory(guest, "m2"))
    for process in processes:
        process.stdin.shutdown(machine.socket.SHUT_WR)
    for process in processes:
        process.finish()
    print(f"{'after them':36}", agent_memory(guest, "m3"))


def receive(stream, size):
    buffer = bytearray(MIB)
    got = 0
    while count := stream.recv_into(buffer):
        got += count
    if got != size:
        raise AssertionError(f"{got} bytes instead of {size}")


def timed_stream(guest, name, config, size, port=None):
    """Seconds from the start of a process to the end of `size` bytes on its stdout (of which it may keep all to itself:
    0), or on a port that it dials."""
    listener = guest.vm.listen(port) if port else None
    process = guest.create(name, [], config=config, stdout=port is None, stderr=False)
    begin = time.monotonic()
    process.start()
    if listener:
        with listener:
            connection, _ = listener.accept()
        with connection:
            receive(connection, size)
    else:
        receive(process.stdout, size)
    took = time.monotonic() - begin
    process.finish()
    return took


def streams(guest, size=512 * MIB, rounds=5):
    """The same program: writing to its stdout; to vsock itself; to a pipe that a second one reads, which copies to vsock
    and does nothing else; to a pipe whose pages a second one drops without a look at them. All by turns. What QEMU's
    CPU time says is steadier than the clock, and tells what one CPU can give at most: whatever takes a stream from a
    pipe to vsock, the pipe and the vsock stream have to be paid for."""
    names = ("through the agent", "raw vsock", "plain pipe and copy", "drained pipe")
    spent = {name: [] for name in names}
    for number in range(rounds):
        for name in names:
            port = None if name in ("through the agent", "drained pipe") else guest.vm.new_port()
            config = configuration(["/bin/raw", str(port or 0), str(size)])
            if name == "plain pipe and copy":
                config = guest.configuration(["sh", "-c", f"raw 0 {size} | raw {port} -1"])
            if name == "drained pipe":
                config = guest.configuration(["sh", "-c", f"raw 0 {size} | raw 0 -2"])
            before = cpu_seconds(guest.vm.qemu.pid)
            took = timed_stream(guest, f"{name.split()[0]}{number}", config, 0 if name == "drained pipe" else size, port)
            spent[name].append((took, cpu_seconds(guest.vm.qemu.pid) - before))
    clock = {name: statistics.median(pair[0] for pair in pairs) for name, pairs in spent.items()}
    cpu = {name: statistics.median(pair[1] for pair in pairs) for name, pairs in spent.items()}
    mebibytes = size / MIB
    for name in names:
        print(f"{name:28} {mebibytes / clock[name]:8.1f} MiB/s, {1000 * cpu[name] / mebibytes:6.2f} ms of QEMU's CPU a MiB")
    for name in ("raw vsock", "plain pipe and copy"):
        print(f"{'agent / ' + name:28} {clock[name] / clock['through the agent']:8.3f} by the clock, "
              f"{cpu[name] / cpu['through the agent']:.3f} by CPU time")
    most = cpu["raw vsock"] / (cpu["raw vsock"] + cpu["drained pipe"])
    print(f"{'at most with one CPU':28} {most:8.3f} (raw vsock / (raw vsock + drained pipe), CPU time)")


RAW = """
#define _GNU_SOURCE
#include <fcntl.h>
#include <sys/socket.h>
#include <linux/vm_sockets.h>
#include <stdlib.h>
#include <unistd.h>
static char block[65536];
int main(int argc, char** argv) {
    int fd = 1;
    struct sockaddr_vm to = {.svm_family = AF_VSOCK, .svm_cid = 2};
    long left;
    if (argc != 3) return 2;
    to.svm_port = (unsigned)strtoul(argv[1], 0, 10);
    left = strtol(argv[2], 0, 10);
    /* -2: what stdin has, to nowhere, uncopied. */
    if (left == -2) {
        fd = open("/dev/null", O_WRONLY);
        while (splice(0, 0, fd, 0, sizeof block, SPLICE_F_MOVE) > 0) {
        }
        return 0;
    }
    /* -1: what stdin has, to its end. */
    if (left < 0) {
        ssize_t n;
        fd = socket(AF_VSOCK, SOCK_STREAM, 0);
        if (connect(fd, (struct sockaddr*)&to, sizeof to) != 0) return 1;
        while ((n = read(0, block, sizeof block)) > 0) {
            if (write(fd, block, (size_t)n) != n) return 1;
        }
        return 0;
    }
    if (to.svm_port != 0) {
        fd = socket(AF_VSOCK, SOCK_STREAM, 0);
        if (connect(fd, (struct sockaddr*)&to, sizeof to) != 0) return 1;
    }
    while (left > 0) {
        ssize_t n = write(fd, block, left < (long)sizeof block ? (size_t)left : sizeof block);
        if (n <= 0) return 1;
        left -= n;
    }
    return 0;
}
"""


def raw_program(folder):
    return static_program(folder, "raw", RAW)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", nargs="*", choices=["boot", "run", "memory", "streams", []])
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--cpus", type=int, default=1, help="of the VM for memory and streams")
    options = parser.parse_args()
    what = options.what or ["boot", "run", "memory", "streams"]
    kernel = guest_kernel.prepare(guest_kernel.CONTAINER)
    with tempfile.TemporaryDirectory() as name, huge_pages(pathlib.Path(name)) as ram:
        folder = pathlib.Path(name)
        if "boot" in what:
            boot(kernel, guest_image(kernel, folder), folder, ram, options.runs)
        if "run" in what:
            cli_run(kernel, folder, ram, options.runs)
        if {"memory", "streams"} & set(what):
            image = guest_image(kernel, folder, *image_arguments(), "--add",
                                f"{raw_program(folder)}=/images/busybox/bin/raw", name="busybox.img")
            with Machine(kernel, image, ram=ram, cpus=options.cpus) as vm:
                vm.wait_agent()
                with Agent(vm) as agent:
                    guest = Guest(vm, agent)
                    if "memory" in what:
                        memory(guest)
                    if "streams" in what:
                        streams(guest, rounds=options.runs)


if __name__ == "__main__":
    main()
