#!/usr/bin/env python3
"""Throughput and latency of arca-vsock with one VM, and what they cost in CPU time. What it needs: vm_world.py."""

import os
import pathlib
import socket
import time

from vm_world import ECHO, MIB, SINK, SOURCE, World, check_programs, read_all, read_exactly


def measure():
    world = World()
    try:
        start = time.monotonic()
        world.boot()
        print(f"boot to first stream      {time.monotonic() - start:8.2f} s")
        backend = world.backend

        def cpu_seconds():
            status = pathlib.Path(f"/proc/{backend.process.pid}/stat").read_text(encoding="ascii")
            fields = status.rsplit(")", 1)[1].split()
            return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

        def report(name, size, action):
            best = None
            for _ in range(3):
                used, start = cpu_seconds(), time.monotonic()
                action()
                figures = (time.monotonic() - start, cpu_seconds() - used)
                best = min(best or figures, figures)
            print(f"{name:25} {size / MIB / best[0]:8.1f} MiB/s   "
                  f"arca-vsock {best[1] / size * (1 << 30):6.2f} s of CPU per GiB")

        size = 256 * MIB
        block = bytes(MIB)

        def to_guest():
            with backend.dial(SINK) as stream:
                for _ in range(size // MIB):
                    stream.sendall(block)
                stream.shutdown(socket.SHUT_WR)
                assert read_all(stream) == b"%d\n" % size

        def from_guest():
            buffer = bytearray(MIB)
            got = 0
            with backend.dial(SOURCE) as stream:
                stream.sendall(b"%d\n" % size)
                while count := stream.recv_into(buffer):
                    got += count
            assert got == size

        report("host to guest, 256 MiB", size, to_guest)
        report("guest to host, 256 MiB", size, from_guest)
        with backend.dial(ECHO) as stream:
            times = []
            for _ in range(3000):
                start = time.perf_counter()
                stream.sendall(b"p" * 64)
                read_exactly(stream, 64)
                times.append(time.perf_counter() - start)
        times.sort()
        print(f"64-byte round trip        {times[len(times) // 2] * 1e6:8.0f} us median, "
              f"{times[len(times) * 99 // 100] * 1e6:.0f} us 99th percentile")
        times = []
        for _ in range(300):
            start = time.perf_counter()
            backend.dial(ECHO).close()
            times.append(time.perf_counter() - start)
        times.sort()
        print(f"dial                      {times[len(times) // 2] * 1e6:8.0f} us median")
    finally:
        world.close()


if __name__ == "__main__":
    check_programs()
    measure()
