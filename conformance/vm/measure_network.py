#!/usr/bin/python3
"""Figures of a guest's network: bytes over TCP through arca-tap-forwarder, against the same bytes over vsock itself.

    measure_network.py [--runs N] [--mib N] [--bin DIR]

One CPU of QEMU's emulation. For each: MiB a second by the clock, and seconds of QEMU's CPU time for a GiB, which other
work on the machine changes less. --bin: programs of another build, to compare two of them in one run.

The host's end is a TAP device in a network namespace of its own (needs root), with offload headers and without.
"""

import argparse
import contextlib
import pathlib
import socket
import statistics
import subprocess
import sys
import tempfile
import time

import machine
from agent import Agent, Relay
from guest import Guest, image_arguments
from load import load_program
from machine import Machine, guest_image, guest_kernel
from measure import MIB, cpu_seconds

sys.path.insert(0, str(machine.TOP / "conformance" / "lib"))
from netns import Namespace, in_namespace  # noqa: E402
from tap_client import Bridge, Client, Frames, open_tap  # noqa: E402

GUEST, HOST = "192.0.2.2", "192.0.2.1"
CONTROL, DATA = 5555, 6001
NET_ADMIN = {kind: ["CAP_NET_ADMIN", "CAP_NET_RAW"] for kind in ("bounding", "effective", "permitted")}


class World:
    """A VM with a forwarder in it, and a namespace of this host for the other end."""

    def __init__(self, vm, guest, namespace):
        self.vm, self.guest, self.namespace, self.count = vm, guest, namespace, 0
        self.forwarder = self._start_forwarder()
        self.relay = Relay(lambda: vm.dial(CONTROL))
        self.client = Client(self.relay.path)

    def _start_forwarder(self):
        config = self.guest.configuration([], namespaces=("pid", "mount"))
        config["process"].update(args=["/sbin/arca-tap-forwarder"], capabilities=NET_ADMIN)
        config["mounts"] += [{"type": "none", "source": "/dev", "destination": "/dev", "options": ["rbind"]}]
        process = self.guest.create("forwarder", [], config=config, stdout=False, stderr=False)
        process.start()
        return process

    def run(self, way, kind, listener, size):
        """Seconds by the clock and of QEMU's CPU for `size` bytes."""
        self.count += 1
        config = self.guest.configuration([], namespaces=("pid", "mount"))
        config["process"]["args"] = ["/bin/load", way, "vsock" if kind == "vsock" else HOST, str(port_of(listener)), str(size)]
        process = self.guest.create(f"s{self.count}", [], config=config, stdout=False, stderr=False)
        process.start()
        stream, _ = listener.accept()
        begin, used = time.monotonic(), cpu_seconds(self.vm.qemu.pid)
        with stream:
            if way == "out":
                receive(stream, size)
            else:
                block = bytes(MIB)
                for _ in range(size // MIB):
                    stream.sendall(block)
        process.finish()
        if process.code != 0:
            raise AssertionError(f"load: exit code {process.code}")
        return time.monotonic() - begin, cpu_seconds(self.vm.qemu.pid) - used

    @contextlib.contextmanager
    def network(self, vnet_header):
        answer = self.client.attach(device="eth0", vsock_port=DATA, configured=1, addresses=[GUEST + "/24"],
                                    vnet_header=vnet_header)
        if not answer["success"]:
            raise AssertionError(answer["error"])
        tap = in_namespace(self.namespace, lambda: open_tap("h0", bool(vnet_header)))
        for words in (["addr", "add", HOST + "/24", "dev", "h0"], ["link", "set", "h0", "up"]):
            subprocess.run(["nsenter", f"--net={self.namespace}", "ip", *words], check=True)
        bridge = Bridge(Frames(self.vm.dial(DATA)), tap)
        try:
            yield
        finally:
            bridge.close()
            self.client.detach("eth0")

    def close(self):
        self.client.close()
        self.relay.close()


def port_of(listener):
    name = listener.getsockname()
    return name[1] if isinstance(name, tuple) else int(name.rpartition("_")[2])


def receive(stream, size):
    stream.settimeout(None)
    buffer, got = bytearray(MIB), 0
    while count := stream.recv_into(buffer):
        got += count
    if got != size:
        raise AssertionError(f"{got} bytes instead of {size}")


def measure(world, size, runs):
    figures = {}

    def note(name, figure):
        figures.setdefault(name, []).append(figure)
    for _ in range(runs):
        for way in ("out", "in"):
            with world.vm.listen(world.vm.new_port()) as listener:
                note(f"vsock, {way}", world.run(way, "vsock", listener, size))
            for vnet_header in (1, 0):
                with world.network(vnet_header), in_namespace(
                        world.namespace, lambda: socket.create_server((HOST, 0))) as listener:
                    name = f"TCP, {'offload headers' if vnet_header else 'single segments'}, {way}"
                    part = size if vnet_header else size // 4
                    took = world.run(way, "tcp", listener, part)
                    note(name, tuple(value * size / part for value in took))
    for name, values in figures.items():
        fastest = min(values)[0]
        cpu = statistics.median(value[1] for value in values)
        print(f"{name:32} {size / MIB / fastest:8.1f} MiB/s   {cpu * 1024 * MIB / size:8.2f} s of CPU a GiB")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--mib", type=int, default=128)
    parser.add_argument("--bin", type=pathlib.Path, default=machine.BIN)
    options = parser.parse_args()
    kernel = guest_kernel.prepare(guest_kernel.CONTAINER)
    with tempfile.TemporaryDirectory() as name, contextlib.ExitStack() as stack:
        folder = pathlib.Path(name)
        image = guest_image(kernel, folder, *image_arguments(), "--add", f"{load_program(folder)}=/images/busybox/bin/load",
                            "--add", f"{options.bin / 'arca-tap-forwarder'}=/images/busybox/sbin/arca-tap-forwarder",
                            vminitd=options.bin / "vminitd", vmexec=options.bin / "vmexec")
        namespace = Namespace()
        stack.callback(namespace.close)
        vm = stack.enter_context(Machine(kernel, image))
        vm.wait_agent()
        agent = stack.enter_context(Agent(vm))
        world = World(vm, Guest(vm, agent), namespace.path)
        stack.callback(world.close)
        measure(world, options.mib * MIB, options.runs)


if __name__ == "__main__":
    main()
