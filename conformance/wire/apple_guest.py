#!/usr/bin/python3
"""An agent that behaves as Apple's does where a host can tell the difference, without a VM: to test hosts with.

    apple_guest.py unix://DIR               # serves DIR/1024 until SIGTERM; dials DIR/<port>
    apple_guest.py hvsock://PATH

Like it: a strict decoder (a missing required key fails the whole configuration), nothing runs before StartProcess, no
extension service, the error texts, ids that are not checked, ociAlterations in so far as the environment goes. A process
is run with subprocess below root.path (chroot, which needs root), with the streams that the host listens for. Nothing is
isolated: run it in a scratch folder with configurations of your own. File systems are not mounted: a bind is remembered,
and serves as root.path; other mounts, Mkdir, Sysctl and the network calls are only noted (`calls`). What is copied to
/run/container is unpacked in a scratch folder, and found there.
"""

import argparse
import concurrent.futures
import contextlib
import fcntl
import json
import os
import pty
import shutil
import signal
import socket
import struct
import subprocess
import sys
import tarfile
import tempfile
import termios
import threading
import time

import grpc

from guest_side import GuestSide, relay
from host_library import PATH, pb

import sandbox_context_pb2_grpc as pb_grpc

CODE = grpc.StatusCode
# What the decoder demands. A list: every element is decoded like that.
ENTRY = object()
REQUIRED = {
    (): {"ociVersion"},
    ("process",): {"cwd", "user"}, ("process", "user"): {"uid", "gid"},
    ("process", "consoleSize"): {"height", "width"}, ("process", "rlimits", ENTRY): {"type", "hard", "soft"},
    ("root",): {"path"}, ("mounts", ENTRY): {"destination"},
    ("linux", "namespaces", ENTRY): {"type", "path"},
    ("linux", "resources"): {"devices", "hugepageLimits"},
    ("linux", "resources", "cpu"): {"cpus", "mems"}, ("linux", "resources", "pids"): {"limit"},
    ("linux", "resources", "blockIO"): {"weightDevice", "throttleReadBpsDevice", "throttleWriteBpsDevice",
                                        "throttleReadIOPSDevice", "throttleWriteIOPSDevice"},
    ("linux", "resources", "hugepageLimits", ENTRY): {"pagesize", "limit"},
    ("linux", "resources", "network"): {"priorities"},
    ("linux", "resources", "devices", ENTRY): {"allow", "type"},
    ("linux", "devices", ENTRY): {"path", "type", "major", "minor"},
    ("linux", "uidMappings", ENTRY): {"containerID", "hostID", "size"},
    ("linux", "gidMappings", ENTRY): {"containerID", "hostID", "size"},
    ("linux", "personality"): {"domain", "flags"},
    ("linux", "seccomp"): {"defaultAction", "architectures", "flags", "listenerPath", "listenerMetadata", "syscalls"},
    ("linux", "seccomp", "syscalls", ENTRY): {"names", "action", "args"},
    ("linux", "seccomp", "syscalls", ENTRY, "args", ENTRY): {"index", "value", "valueTwo", "op"},
    ("hooks",): {"prestart", "createRuntime", "createContainer", "startContainer", "poststart", "poststop"},
    **{("hooks", kind, ENTRY): {"path", "args", "env"} for kind in
       ("prestart", "createRuntime", "createContainer", "startContainer", "poststart", "poststop")},
}
NAMESPACES = {"pid", "network", "uts", "mount", "ipc", "user", "cgroup"}
SECCOMP_FLAGS = {"SECCOMP_FILTER_FLAG_LOG", "SECCOMP_FILTER_FLAG_SPEC_ALLOW",
                 "SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV"}


# Becomes the program. A program of its own and no preexec_fn: between fork and exec a process with threads, as one with
# grpc is, may only do what needs no lock, and Python needs some.
LAUNCHER = ["/usr/bin/python3", "-I", "-S", "-c", """
import fcntl, json, os, signal, sys, termios
said, task = int(sys.argv[1]), json.loads(sys.argv[2])
os.set_inheritable(said, False)
for number in (signal.SIGPIPE, signal.SIGXFSZ):  # which Python ignores
    signal.signal(number, signal.SIG_DFL)
signal.pthread_sigmask(signal.SIG_SETMASK, ())
try:
    if task["terminal"]:
        fcntl.ioctl(0, termios.TIOCSCTTY, 0)
    if task["root"] != "/":
        os.chroot(task["root"])
    os.chdir(task["cwd"])
    os.setgroups([])
    os.setgid(task["gid"])
    os.setuid(task["uid"])
    os.execve(task["file"], task["args"], task["env"])
except OSError as error:
    os.write(said, str(error).encode())
    os._exit(127)
"""]


class Refused(Exception):
    """A status with its text."""

    def __init__(self, code, text, name):
        super().__init__(text)
        self.code, self.text, self.name = code, text, name


def invalid_argument(text):
    return Refused(CODE.INVALID_ARGUMENT, text, "invalidArgument")


def not_found(text):
    return Refused(CODE.NOT_FOUND, text, "notFound")


def invalid_state(text):
    return Refused(CODE.FAILED_PRECONDITION, text, "invalidState")


def internal(text):
    return Refused(CODE.INTERNAL, text, "internalError")


class DecodingError(ValueError):
    pass


def decode(data):
    """The configuration, decoded as strictly as upstream does it."""
    try:
        value = json.loads(data)
    except ValueError as error:
        raise DecodingError(f"dataCorrupted: {error}") from None

    def check(item, path):
        if isinstance(item, dict):
            for key in REQUIRED.get(path, ()):
                if item.get(key) is None:
                    raise DecodingError(f"keyNotFound: {key} in {'.'.join('[]' if p is ENTRY else p for p in path)}")
            for key, inner in item.items():
                check(inner, (*path, key))
        elif isinstance(item, list):
            for inner in item:
                check(inner, (*path, ENTRY))
    if not isinstance(value, dict):
        raise DecodingError("typeMismatch: a dictionary is wanted")
    check(value, ())
    linux = value.get("linux") or {}
    for namespace in linux.get("namespaces") or ():
        if namespace["type"] not in NAMESPACES:
            raise DecodingError(f"dataCorrupted: namespace {namespace['type']}")
    if not set((linux.get("seccomp") or {}).get("flags") or ()) <= SECCOMP_FLAGS:
        raise DecodingError("dataCorrupted: seccomp flag")
    return value


def altered(spec):
    """ociAlterations, the part of them that a program sees."""
    process, root = spec.get("process"), spec.get("root")
    if process is None or root is None:
        raise invalid_argument("process and root are required")
    process["cwd"] = process["cwd"] or "/"
    env = process.setdefault("env", [])
    for name, value in (("PATH", PATH), ("HOME", "/"), *((("TERM", "xterm"),) if process.get("terminal") else ())):
        if not any(entry.startswith(name + "=") for entry in env):
            env.append(f"{name}={value}")
    return spec


class GuestProcess:
    """An init or an exec."""

    def __init__(self, identity, spec, streams):
        self.id, self.spec, self.streams = identity, spec, streams
        self.child, self.master, self.status, self.exited_at, self.relays = None, None, None, 0.0, []
        self.ended, self.stdin_closed = threading.Event(), threading.Event()

    @property
    def terminal(self):
        return bool(self.spec["process"].get("terminal"))

    def start(self):
        if self.child is not None:
            raise internal("process is already running")
        process, root = self.spec["process"], self.spec["root"]["path"]
        if not process.get("args"):
            raise internal("no arguments")
        env = dict(entry.split("=", 1) for entry in process["env"] if "=" in entry)
        task = {"terminal": self.terminal, "root": root, "cwd": process["cwd"], "uid": process["user"]["uid"],
                "gid": process["user"]["gid"], "file": find(process["args"][0], root, env["PATH"]),
                "args": process["args"], "env": env}
        ends = self._child_ends()
        reader, writer = os.pipe()
        with open(reader, encoding="utf-8") as said:
            try:
                self.child = subprocess.Popen([*LAUNCHER, str(writer), json.dumps(task)], stdin=ends[0], stdout=ends[1],
                                              stderr=ends[2], start_new_session=True, pass_fds=(writer,))
            except OSError as error:
                raise internal(f"vmexec error: internalError: \"{error}\"") from None
            finally:
                for end in {end for end in (*ends, writer) if end >= 0}:
                    os.close(end)
            threading.Thread(target=self._reap, daemon=True).start()
            if text := said.read():
                raise internal(f"vmexec error: internalError: \"{text}\"")
        return self.child.pid

    def _child_ends(self):
        """Descriptors for the program, with relays to the host's streams behind them."""
        if self.terminal:
            self.master, slave = pty.openpty()
            if "stdin" in self.streams:
                self._relay(self._copy_in, self.streams["stdin"], self.master, False)
            if "stdout" in self.streams:
                self._relay(self._copy_out, self.master, self.streams["stdout"])
            return [slave, slave, slave]
        ends = []
        for name in ("stdin", "stdout", "stderr"):
            if name not in self.streams:
                ends.append(os.open("/dev/null", os.O_RDONLY if name == "stdin" else os.O_WRONLY))
                continue
            reader, writer = os.pipe()
            if name == "stdin":
                self._relay(self._copy_in, self.streams[name], writer, True)
                ends.append(reader)
            else:
                self._relay(self._copy_out, reader, self.streams[name])
                ends.append(writer)
        return ends

    def _relay(self, function, *arguments):
        thread = threading.Thread(target=function, args=arguments, daemon=True)
        thread.start()
        if function == self._copy_out:
            self.relays.append(thread)

    @staticmethod
    def _copy_in(stream, fd, close):
        with contextlib.suppress(OSError):
            while data := stream.recv(1 << 16):
                while data:
                    data = data[os.write(fd, data):]
        if close:
            os.close(fd)

    @staticmethod
    def _copy_out(fd, stream):
        with contextlib.suppress(OSError):  # EIO: the terminal's last user has gone
            while data := os.read(fd, 1 << 16):
                stream.sendall(data)
        with contextlib.suppress(OSError):
            stream.shutdown(socket.SHUT_WR)
        stream.close()

    def _reap(self):
        code = self.child.wait()
        self.exited_at = time.time()
        for thread in self.relays:
            thread.join(1)
        self.close_streams()
        if self.master is not None:
            os.close(self.master)
            self.master = None
        self.status = 128 - code if code < 0 else code
        self.ended.set()

    def close_stdin(self):
        if stream := self.streams.get("stdin"):
            with contextlib.suppress(OSError):
                stream.shutdown(socket.SHUT_RD)

    def close_streams(self):
        for stream in self.streams.values():
            with contextlib.suppress(OSError):
                stream.shutdown(socket.SHUT_RDWR)
            stream.close()


def find(name, root, path):
    """Where the program is on this side of the chroot; as upstream words it when it is nowhere."""
    folders = [""] if "/" in name else path.split(":")
    for folder in folders:
        full = os.path.join(folder, name)
        inside = os.path.join(root, full.lstrip("/"))
        if os.path.lexists(inside):
            return full
    raise internal(f"vmexec error: internalError: \"failed to find target executable {name}\"")


def reports(call, verb):
    """Wraps a call of the service: what it raises becomes the status with the text that upstream has."""
    def wrap(function):
        def wrapper(self, request, context):
            self.calls.append((call, request))
            try:
                return function(self, request, context)
            except Refused as error:
                context.abort(error.code, f'{call}: failed to {verb}: {error.name}: "{error.text}"')
            except DecodingError as error:
                context.abort(CODE.INTERNAL, f"{call}: {error}")
        return wrapper
    return wrap


class AppleAgent(pb_grpc.SandboxContextServicer):
    """The service. `side` is set by AppleGuest."""

    def __init__(self):
        self.side, self.calls, self.containers, self.environment = None, [], {}, {}
        self.binds = {}  # destination: source
        self.files = tempfile.TemporaryDirectory(prefix="arca-apple-files-")  # what /run/container is
        self.lock = threading.Lock()

    # ---- processes ----

    def _find(self, request):
        if not request.HasField("containerID"):
            raise invalid_argument("processes in the root of the vm not implemented")
        with self.lock:
            container = self.containers.get(request.containerID)
            if container is None:
                raise not_found(f"container {request.containerID} not found")
            if request.id not in container:
                raise invalid_state(f"exec {request.id} does not exist in container {request.containerID}")
            return container[request.id]

    def dial_streams(self, request, terminal):
        """Connects the ports that are there, in order; never stderr's of a terminal."""
        streams = {}
        for name in ("stdin", "stdout", "stderr"):
            if not request.HasField(name) or (terminal and name == "stderr"):
                continue
            try:
                streams[name] = self.side.dial(getattr(request, name))
            except OSError as error:
                for stream in streams.values():
                    stream.close()
                raise internal(f"could not connect to socket {getattr(request, name)}: {error}") from None
        return streams

    @reports("createProcess", "create process")
    def CreateProcess(self, request, context):
        if not request.HasField("containerID"):
            raise invalid_argument("processes in the root of the vm not implemented")
        spec = altered(decode(request.configuration))
        spec["root"]["path"] = self.inside(self.binds.get(spec["root"]["path"], spec["root"]["path"]))
        with self.lock:
            container = self.containers.get(request.containerID)
        if container is None and request.id != request.containerID:
            raise invalid_argument("init process id must match container id")
        process = GuestProcess(request.id, spec, self.dial_streams(request, bool(spec["process"].get("terminal"))))
        with self.lock:
            self.containers.setdefault(request.containerID, {})[request.id] = process
        return pb.CreateProcessResponse()

    def inside(self, path):
        """Where a path of the guest is on this host."""
        return self.files.name + path if path.startswith("/run/container/") else path

    @reports("startProcess", "start process")
    def StartProcess(self, request, context):
        return pb.StartProcessResponse(pid=self._find(request).start())

    @reports("killProcess", "kill process")
    def KillProcess(self, request, context):
        process = self._find(request)
        if process.child is None:
            raise invalid_state("process PID is required")
        if process.status is None:
            try:
                os.kill(process.child.pid, request.signal)
            except OSError as error:
                raise internal(f"failed to send signal: {error.strerror}") from None
        return pb.KillProcessResponse()

    @reports("waitProcess", "wait on process")
    def WaitProcess(self, request, context):
        process = self._find(request)
        while not process.ended.wait(0.2):
            if not context.is_active():
                return pb.WaitProcessResponse()
        response = pb.WaitProcessResponse(exitCode=process.status)
        response.exited_at.FromNanoseconds(int(process.exited_at * 1e9))
        return response

    @reports("resizeProcess", "resize process")
    def ResizeProcess(self, request, context):
        process = self._find(request)
        if process.status is not None:
            return pb.ResizeProcessResponse()
        if not process.terminal:
            raise Refused(CODE.UNIMPLEMENTED, "resize not supported", "unsupported")
        if process.master is not None:
            fcntl.ioctl(process.master, termios.TIOCSWINSZ, struct.pack("HHHH", request.rows, request.columns, 0, 0))
        return pb.ResizeProcessResponse()

    @reports("closeProcessStdin", "close process stdin")
    def CloseProcessStdin(self, request, context):
        self._find(request).close_stdin()
        return pb.CloseProcessStdinResponse()

    @reports("deleteProcess", "delete process")
    def DeleteProcess(self, request, context):
        process = self._find(request)
        with self.lock:
            if request.id == request.containerID:
                members = self.containers.pop(request.containerID)
            else:
                members = {request.id: self.containers[request.containerID].pop(request.id)}
        for member in members.values():
            if request.id == request.containerID and member.child is not None and member.status is None:
                member.child.kill()  # its cgroup.kill
        _ = process
        if request.id == request.containerID:
            shutil.rmtree(self.inside(f"/run/container/{request.id}"), ignore_errors=True)
        return pb.DeleteProcessResponse()

    # ---- the sandbox ----

    def Mount(self, request, context):
        self.calls.append(("mount", request))
        if {"bind", "rbind"} & set(request.options):
            self.binds[request.destination] = request.source
        return pb.MountResponse()

    def Copy(self, request, context):
        """Archives into the guest only. As upstream's reader: no set-id and sticky bits, no hard links, no devices."""
        self.calls.append(("copy", request))
        if request.direction != pb.CopyRequest.COPY_IN or not request.is_archive:
            context.abort(CODE.UNIMPLEMENTED, "copy: only folders into the guest")
        target = self.inside(request.path)
        os.makedirs(target, exist_ok=True)
        try:
            with self.side.dial(request.vsock_port) as stream, stream.makefile("rb") as data, \
                    tarfile.open(fileobj=data, mode="r|gz") as archive:
                for member in archive:
                    if member.isreg() or member.isdir() or member.issym():
                        member.mode &= 0o777
                        archive.extract(member, target, numeric_owner=True)
        except (OSError, EOFError, tarfile.TarError) as error:
            context.abort(CODE.INTERNAL, f"copy: {error}")
        yield pb.CopyResponse(status=pb.CopyResponse.COMPLETE)

    def Umount(self, request, context):
        self.calls.append(("umount", request))
        self.binds.pop(request.path, None)
        return pb.UmountResponse()

    def Setenv(self, request, context):
        self.calls.append(("setenv", request))
        self.environment[request.key] = request.value
        return pb.SetenvResponse()

    def Getenv(self, request, context):
        self.calls.append(("getenv", request))
        return pb.GetenvResponse(value=self.environment.get(request.key))

    def Stat(self, request, context):
        self.calls.append(("stat", request))
        try:
            found = os.stat(request.path)
        except FileNotFoundError:
            context.abort(CODE.NOT_FOUND, f"stat: path not found '{request.path}'")
        except OSError as error:
            return pb.StatResponse(error=error.strerror)
        return pb.StatResponse(stat=pb.Stat(mode=found.st_mode, size=found.st_size, ino=found.st_ino))

    def Kill(self, request, context):
        self.calls.append(("kill", request))
        with self.lock:
            processes = [process for container in self.containers.values() for process in container.values()]
        for process in processes:
            if process.child is not None and process.status is None and request.pid in (-1, process.child.pid):
                with contextlib.suppress(ProcessLookupError):
                    os.kill(process.child.pid, request.signal)
        return pb.KillResponse()

    def ContainerStatistics(self, request, context):
        self.calls.append(("containerStatistics", request))
        with self.lock:
            known = list(self.containers)
        if any(identity not in known for identity in request.container_ids):
            context.abort(CODE.INTERNAL, "containerStatistics")
        ids = request.container_ids or known
        return pb.ContainerStatisticsResponse(containers=[pb.ContainerStats(container_id=one) for one in ids])

    def end(self):
        """Kills what runs."""
        with self.lock:
            processes = [process for container in self.containers.values() for process in container.values()]
        for process in processes:
            if process.child is not None and process.status is None:
                process.child.kill()
                process.ended.wait(10)
            process.close_streams()
        self.files.cleanup()


def _only_noted(name):
    response = getattr(pb, name + "Response")

    def call(self, request, context):
        self.calls.append((name[0].lower() + name[1:], request))
        return response()
    return call


for _name in ("Mkdir", "Sysctl", "SetTime", "Sync", "IpLinkSet", "IpAddrAdd", "IpRouteAddLink",
              "IpRouteAddDefault", "ConfigureDns", "ConfigureHosts", "ProxyVsock", "StopVsockProxy"):
    setattr(AppleAgent, _name, _only_noted(_name))


class AppleGuest:
    """The agent behind a guest's side of a transport. `filter_answers(data)`: see guest_side.relay."""

    def __init__(self, address, agent=None, filter_answers=None, side_options=None):
        self.agent = agent or AppleAgent()
        self.filter_answers = filter_answers or (lambda: lambda data: data)
        self.folder = tempfile.TemporaryDirectory(prefix="arca-apple-")
        self.inner = os.path.join(self.folder.name, "grpc")
        self.server = grpc.server(concurrent.futures.ThreadPoolExecutor(64), options=[
            ("grpc.max_receive_message_length", 16 << 20), ("grpc.max_send_message_length", -1),
            ("grpc.max_metadata_size", 64 << 20)])
        pb_grpc.add_SandboxContextServicer_to_server(self.agent, self.server)
        self.server.add_insecure_port(f"unix:{self.inner}")
        self.side = GuestSide(address, self._connection, **(side_options or {}))
        self.agent.side = self.side

    def _connection(self, stream):
        with socket.socket(socket.AF_UNIX) as inner:
            inner.connect(self.inner)
            relay(stream, inner, self.filter_answers())

    def start(self):
        self.server.start()
        self.side.start()
        return self

    def close(self):
        self.side.close()
        self.server.stop(0)
        self.agent.end()
        self.folder.cleanup()


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("address")
    parser.add_argument("--ready-fd", type=int, help="gets a newline once the port is open")
    options = parser.parse_args()
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM, signal.SIGINT})
    guest = AppleGuest(options.address).start()
    if options.ready_fd is not None:
        os.write(options.ready_fd, b"\n")
        os.close(options.ready_fd)
    signal.sigwait({signal.SIGTERM, signal.SIGINT})
    guest.close()
    sys.exit(0)


if __name__ == "__main__":
    main()
