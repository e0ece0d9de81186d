"""The calls that a host library makes of a guest agent, in its order and its spelling, over an independent gRPC client.

    host = Host(machine)                   # anything with dial(port), listen(port) and new_port()
    host.prepare_vm()
    box = host.container("c1", ["/bin/sh", "-c", "cat"], rootfs=host.overlay_rootfs)
    box.create(); box.start()
    box.stdin.sendall(b"hello"); box.half_close_stdin()
    box.wait()                             # exit code
    box.stop()

Sequences: "create", "start", "exec", "stop" of a host library as the guest protocol's description has them: a connection
for each process, ports that count up, listeners before CreateProcess, Umount of the root before DeleteProcess.
"""

import contextlib
import copy
import json
import pathlib
import socket
import sys
import threading

import grpc

HERE = pathlib.Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent / "vm"))

from agent import Agent, pb  # noqa: E402  (found through the line above)
from machine import SECONDS  # noqa: E402

PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
CALL = "/com.apple.containerization.sandbox.v3.SandboxContext/"
CAPABILITIES = ["CAP_" + name for name in (
    "CHOWN DAC_OVERRIDE FSETID FOWNER MKNOD NET_RAW SETGID SETUID SETFCAP SETPCAP NET_BIND_SERVICE SYS_CHROOT KILL "
    "AUDIT_WRITE").split()]
MOUNTS = [
    {"type": "proc", "source": "proc", "destination": "/proc", "options": []},
    {"type": "sysfs", "source": "sysfs", "destination": "/sys", "options": ["nosuid", "noexec", "nodev"]},
    {"type": "devtmpfs", "source": "none", "destination": "/dev", "options": ["nosuid", "mode=755"]},
    {"type": "mqueue", "source": "mqueue", "destination": "/dev/mqueue", "options": ["nosuid", "noexec", "nodev"]},
    {"type": "tmpfs", "source": "tmpfs", "destination": "/dev/shm",
     "options": ["nosuid", "noexec", "nodev", "mode=1777", "size=65536k"]},
    {"type": "cgroup2", "source": "none", "destination": "/sys/fs/cgroup", "options": ["nosuid", "noexec", "nodev"]},
    {"type": "devpts", "source": "devpts", "destination": "/dev/pts",
     "options": ["nosuid", "noexec", "newinstance", "gid=5", "mode=0620", "ptmxmode=0666"]},
]
MASKED = ["/proc/asound", "/proc/acpi", "/proc/kcore", "/proc/keys", "/proc/latency_stats", "/proc/timer_list",
          "/proc/timer_stats", "/proc/sched_debug", "/proc/scsi", "/sys/firmware", "/sys/devices/virtual/powercap"]
READONLY = ["/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"]


def process_spec(args, terminal=False, env=(), cwd="/", user=(0, 0), **members):
    return {"args": list(args), "cwd": cwd, "env": ["PATH=" + PATH, *env], "terminal": terminal,
            "user": {"uid": user[0], "gid": user[1], "umask": None, "additionalGids": [], "username": ""},
            "capabilities": {kind: CAPABILITIES for kind in ("bounding", "effective", "permitted")},
            "noNewPrivileges": False, "rlimits": [], "apparmorProfile": "", "selinuxLabel": "", "commandLine": "",
            **members}


def container_spec(identity, process, root, **changes):
    """What the Swift host sends for a container: empty strings, a path for every namespace, all of its defaults."""
    spec = {
        "ociVersion": "", "hostname": identity, "domainname": "", "process": process,
        "root": {"path": root, "readonly": False},
        "mounts": MOUNTS,
        "linux": {
            "cgroupsPath": f"/container/{identity}",
            "namespaces": [{"type": kind, "path": ""} for kind in ("cgroup", "ipc", "mount", "pid", "uts")],
            "resources": {"devices": [], "hugepageLimits": [], "memory": {"limit": 256 << 20},
                          "cpu": {"quota": 400000, "period": 100000, "cpus": "", "mems": ""}},
            "sysctl": {}, "maskedPaths": MASKED, "readonlyPaths": READONLY, "rootfsPropagation": "", "mountLabel": "",
            "uidMappings": [], "gidMappings": [], "devices": [],
        },
    }
    return changed(spec, **changes)


def changed(spec, **changes):
    """The specification with linux__resources={...} in place of ["linux"]["resources"], without what is None."""
    spec = copy.deepcopy(spec)
    for path, value in changes.items():
        *parents, last = path.split("__")
        where = spec
        for parent in parents:
            where = where[parent]
        if value is None:
            del where[last]
        else:
            where[last] = value
    return spec


def encode(spec):
    """JSON as the Swift encoder writes it: no nulls, slashes escaped."""
    def present(value):
        if isinstance(value, dict):
            return {key: present(item) for key, item in value.items() if item is not None}
        return value
    return json.dumps(present(spec)).replace("/", "\\/").encode()


def field(number, data):
    """One length-delimited protobuf field, by hand."""
    length, size = len(data), b""
    while length >= 0x80:
        size += bytes([length & 0x7f | 0x80])
        length >>= 7
    return bytes([number << 3 | 2]) + size + bytes([length]) + data


class Output:
    """What arrives on a stream, gathered by a thread."""

    def __init__(self, stream):
        self.stream, self.data, self.ended, self.error = stream, bytearray(), False, None
        self.changed = threading.Condition()
        stream.settimeout(None)
        self.thread = threading.Thread(target=self._read, daemon=True)
        self.thread.start()

    def _read(self):
        try:
            while part := self.stream.recv(1 << 18):
                with self.changed:
                    self.data += part
                    self.changed.notify_all()
        except OSError as error:
            self.error = error
        with self.changed:
            self.ended = True
            self.changed.notify_all()

    def _wait(self, condition, what, seconds):
        with self.changed:
            if not self.changed.wait_for(condition, seconds):
                raise AssertionError(f"no {what} within {seconds} s; there is {bytes(self.data[-2000:])!r}")
            return bytes(self.data)

    def until(self, text, seconds=SECONDS):
        """Waits for the text; returns all that has come."""
        text = text.encode() if isinstance(text, str) else text
        data = self._wait(lambda: text in self.data or self.ended, repr(text), seconds)
        if text not in data:
            raise AssertionError(f"the stream ended without {text!r}: {data!r}")
        return data

    def all(self, seconds=SECONDS):
        """Everything up to the end of the stream."""
        data = self._wait(lambda: self.ended, "end of the stream", seconds)
        if self.error:
            raise self.error
        return data


class Process:
    """The init or an exec of a container, its streams and the connection that it has for itself."""

    STREAMS = ("stdin", "stdout", "stderr")

    def __init__(self, host, container_id, identity, streams, terminal):
        self.host, self.container_id, self.id, self.terminal = host, container_id, identity, terminal
        self.streams, self.listeners, self.sockets, self.outputs = tuple(streams), {}, {}, {}
        self.agent, self.exit, self.deleted = None, None, False

    @property
    def context(self):
        """The stub on this process's own connection."""
        if self.agent is None:
            self.agent = self.host.connect()
        return self.agent.context

    def key(self):
        return {"id": self.id, "containerID": self.container_id}

    # ---- its life ----

    def listen(self):
        """Listens for the streams; gives the ports as fields of CreateProcessRequest."""
        ports = {}
        for name in self.streams:
            ports[name] = self.host.machine.new_port()
            self.listeners[name] = self.host.machine.listen(ports[name])
        return ports

    def accept(self, names=None):
        """Takes the connections that CreateProcess made; nothing else may connect afterwards."""
        for name in names if names is not None else self.streams:
            stream, _ = self.listeners[name].accept()
            stream.settimeout(SECONDS)
            self.sockets[name] = stream
        for listener in self.listeners.values():
            listener.close()
        self.listeners = {}

    def create_process(self, spec, layout="now", ports=None, **fields):
        """CreateProcess and nothing else. `layout`: "now", or "old", where 6 was the configuration."""
        configuration = spec if isinstance(spec, bytes) else encode(spec)
        ports = self.listen() if ports is None else ports
        if layout == "now":
            request = pb.CreateProcessRequest(**self.key(), configuration=configuration, **ports, **fields)
            return self.context.CreateProcess(request, timeout=SECONDS)
        plain = pb.CreateProcessRequest(**self.key(), **ports).SerializeToString()
        call = self.agent_channel().unary_unary(CALL + "CreateProcess",
                                                response_deserializer=pb.CreateProcessResponse.FromString)
        return call(plain + field(6, configuration), timeout=SECONDS)

    def agent_channel(self):
        _ = self.context
        return self.agent.channel

    def create(self, spec, unread=False, **options):
        """CreateProcess with its streams; their output is gathered, or with `unread` left in .sockets."""
        self.create_process(spec, **options)
        self.accept([name for name in self.streams if not (self.terminal and name == "stderr")])
        for name in ("stdout", "stderr"):
            if name in self.sockets and not unread:
                self.outputs[name] = Output(self.sockets[name])
        return self

    def start(self):
        self.pid = self.context.StartProcess(pb.StartProcessRequest(**self.key()), timeout=SECONDS).pid
        return self.pid

    def wait(self, seconds=SECONDS):
        """Exit code; the whole answer is in .exit."""
        self.exit = self.context.WaitProcess(pb.WaitProcessRequest(**self.key()), timeout=seconds)
        return self.exit.exitCode

    def kill(self, number=9):
        return self.context.KillProcess(pb.KillProcessRequest(**self.key(), signal=number), timeout=SECONDS)

    def resize(self, rows, columns):
        self.context.ResizeProcess(pb.ResizeProcessRequest(**self.key(), rows=rows, columns=columns), timeout=SECONDS)

    def close_stdin(self):
        self.context.CloseProcessStdin(pb.CloseProcessStdinRequest(**self.key()), timeout=SECONDS)

    def delete(self):
        self.context.DeleteProcess(pb.DeleteProcessRequest(**self.key()), timeout=SECONDS)
        self.deleted = True

    # ---- its streams ----

    @property
    def stdin(self):
        return self.sockets["stdin"]

    @property
    def stdout(self):
        return self.outputs["stdout"]

    @property
    def stderr(self):
        return self.outputs["stderr"]

    def half_close_stdin(self):
        self.stdin.shutdown(socket.SHUT_WR)

    def close(self):
        """Closes the streams and the connection."""
        for stream in (*self.listeners.values(), *self.sockets.values()):
            with contextlib.suppress(OSError):
                stream.shutdown(socket.SHUT_RDWR)
            stream.close()
        for output in self.outputs.values():
            output.thread.join(SECONDS)
        self.listeners, self.sockets = {}, {}
        if self.agent:
            self.agent.close()
            self.agent = None


class Container(Process):
    """A container, which is its init."""

    def __init__(self, host, identity, args, rootfs, streams=(), terminal=False, process=None, more_mounts=(), **changes):
        super().__init__(host, identity, identity, streams, terminal)
        self.root = f"/run/container/{identity}/rootfs"
        self.rootfs, self.mounted = rootfs, False
        self.process = process_spec(args, terminal, **(process or {}))
        self.spec = container_spec(identity, self.process, self.root, **changes)
        self.spec["mounts"] += more_mounts
        self.execs, self.stopped = [], False

    def mount_root(self):
        if not self.mounted:
            self.rootfs(self)
            self.mounted = True

    def create(self, spec=None, **options):
        self.mount_root()
        return super().create(self.spec if spec is None else spec, **options)

    def exec(self, identity, args, streams=(), terminal=False, **process):
        """An exec that is not created yet; its specification is .spec."""
        made = Process(self.host, self.id, identity, streams, terminal)
        made.spec = {**self.spec, "process": process_spec(args, terminal, **process)}
        self.execs.append(made)
        return made

    def run_exec(self, identity, *args, **options):
        """Runs an exec to its end: (exit code, stdout)."""
        made = self.exec(identity, args, streams=("stdout",), **options)
        try:
            made.create(made.spec)
            made.start()
            code = made.wait()
            output = made.stdout.all()
            made.delete()
            self.execs.remove(made)
            return code, output
        finally:
            made.close()

    def stop(self, everything=True):
        """The host library's stop(). Every step is tried; gives the errors. `everything`: Kill(-1) as it does it."""
        errors = []

        def step(name, request, seconds=SECONDS):
            try:
                getattr(self.context, name)(request, timeout=seconds)
            except grpc.RpcError as error:
                errors.append((name, error.code(), error.details()))
        if everything:
            step("Kill", pb.KillRequest(pid=-1, signal=9))
        else:
            step("KillProcess", pb.KillProcessRequest(**self.key(), signal=9))
        step("WaitProcess", pb.WaitProcessRequest(**self.key()), 5)
        for path in self.mounted_paths():
            step("Umount", pb.UmountRequest(path=path, flags=0))
        step("Sync", pb.SyncRequest())
        for process in self.execs:
            if not process.deleted:
                step("DeleteProcess", pb.DeleteProcessRequest(**process.key()))
            process.close()
        step("DeleteProcess", pb.DeleteProcessRequest(**self.key()))
        self.close()
        self.stopped = True
        return errors

    def mounted_paths(self):
        return getattr(self, "to_unmount", [self.root])


class Host:
    """One VM as its host library sees it."""

    def __init__(self, machine, base="/run/base"):
        self.machine, self.base = machine, base
        self.agents = []

    def connect(self):
        """A connection of its own to the agent."""
        agent = Agent(self.machine)
        self.agents.append(agent)
        return agent

    def close(self):
        for agent in self.agents:
            agent.close()

    def prepare_vm(self, disk="/dev/vda"):
        """Once a VM: what the host library sets up, and the image that the tests' containers share."""
        with self.connect() as agent:
            context = agent.context
            context.IpLinkSet(pb.IpLinkSetRequest(interface="lo", up=True), timeout=SECONDS)
            context.Setenv(pb.SetenvRequest(key="PATH", value=PATH), timeout=SECONDS)
            context.Mount(pb.MountRequest(type="tmpfs", source="tmpfs", destination="/tmp"), timeout=SECONDS)
            context.Mount(pb.MountRequest(type="devpts", source="devpts", destination="/dev/pts",
                                          options=["gid=5", "mode=620", "ptmxmode=666"]), timeout=SECONDS)
            context.Mount(pb.MountRequest(type="ext4", source=disk, destination=self.base, options=["ro"]),
                          timeout=SECONDS)

    def overlay_rootfs(self, container):
        """A root with a writable layer over the shared image, in the host library's way and places."""
        top = f"/run/container/{container.id}"
        context = container.context
        for name in ("diff", "work"):
            context.Mkdir(pb.MkdirRequest(path=f"{top}/upper/{name}", all=True, perms=0o755), timeout=SECONDS)
        context.Mount(pb.MountRequest(type="overlay", source="overlay", destination=container.root, options=[
            f"lowerdir={self.base}", f"upperdir={top}/upper/diff", f"workdir={top}/upper/work"]), timeout=SECONDS)

    def container(self, identity, args, rootfs=None, **options):
        return Container(self, identity, args, rootfs or self.overlay_rootfs, **options)
