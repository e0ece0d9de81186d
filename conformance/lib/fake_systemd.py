"""A systemd that does what a test tells it: the few calls of its manager that are about scopes, on a socket of its own.

    with FakeSystemd(folder, result="failed") as systemd:
        env = environment(DBUS_SYSTEM_BUS_ADDRESS=systemd.address)
        ...
        systemd.calls   # [("StartTransientUnit", "x.scope"), ...]

It speaks D-Bus itself and is bus and systemd in one, so that no bus has to run. Source: the D-Bus specification,
"Authentication protocol" and "Message protocol"; org.freedesktop.systemd1(5).
"""

import contextlib
import os
import signal
import socket
import struct
import threading
import time

CALL, RETURN, ERROR, SIGNAL = 1, 2, 3, 4
MANAGER = "org.freedesktop.systemd1.Manager"
MANAGER_PATH = "/org/freedesktop/systemd1"
HIERARCHIES = ("/sys/fs/cgroup/systemd", "/sys/fs/cgroup/unified", "/sys/fs/cgroup")
NUMBERS = {"b": "I", "n": "h", "q": "H", "i": "i", "u": "I", "x": "q", "t": "Q", "d": "d"}
ALIGNMENTS = {"y": 1, "g": 1, "v": 1, "n": 2, "q": 2, "x": 8, "t": 8, "d": 8, "(": 8, "{": 8}


class Reader:
    """Values of a little-endian message."""

    def __init__(self, data):
        self.data, self.at = data, 0

    def align(self, size):
        self.at += -self.at % size

    def take(self, size):
        self.at += size
        return self.data[self.at - size:self.at]

    def number(self, code):
        size = struct.calcsize(code)
        self.align(size)
        return struct.unpack("<" + code, self.take(size))[0]

    def value(self, signature):
        """The first complete type of a signature; gives its value and the rest of the signature."""
        code, rest = signature[0], signature[1:]
        if code == "y":
            return self.take(1)[0], rest
        if code in NUMBERS:
            return self.number(NUMBERS[code]), rest
        if code in "so":
            text = self.take(self.number("I")).decode()
            self.take(1)
            return text, rest
        if code == "g":
            text = self.take(self.take(1)[0]).decode()
            self.take(1)
            return text, rest
        if code == "v":
            return self.value(self.value("g")[0])[0], rest
        if code == "a":
            size = self.number("I")
            self.align(ALIGNMENTS.get(rest[0], 4))
            end, items, after = self.at + size, [], skip(rest)
            while self.at < end:
                items.append(self.value(rest)[0])
            return items, after
        if code == "(":
            self.align(8)
            fields = []
            while rest[0] != ")":
                field, rest = self.value(rest)
                fields.append(field)
            return tuple(fields), rest[1:]
        raise ValueError(f"D-Bus type {code}")

    def values(self, signature):
        out = []
        while signature:
            item, signature = self.value(signature)
            out.append(item)
        return out


def skip(signature):
    """A signature without its first complete type."""
    if signature[0] == "a":
        return skip(signature[1:])
    if signature[0] != "(":
        return signature[1:]
    depth = 0
    for index, code in enumerate(signature):
        depth += (code == "(") - (code == ")")
        if depth == 0:
            return signature[index + 1:]
    raise ValueError("an open bracket in a signature")


def text(value):
    data = value.encode()
    return struct.pack("<I", len(data)) + data + b"\0"


def marshal(signature, values):
    """Texts, numbers and a variant of a text are all that is answered."""
    out = b""
    for code, value in zip(signature, values):
        out += bytes(-len(out) % 4) if code != "v" else b""
        if code in "so":
            out += text(value)
        elif code == "u":
            out += struct.pack("<I", value)
        else:
            out += b"\1s\0"
            out += bytes(-len(out) % 4) + text(value)
    return out


def message(kind, serial, fields, signature="", values=()):
    body = marshal(signature, values)
    if signature:
        fields = [*fields, (8, "g", signature)]
    array = b""
    for code, form, value in fields:
        array += bytes(-len(array) % 8) + bytes([code, 1]) + form.encode() + b"\0"
        if form == "g":
            array += bytes([len(value)]) + value.encode() + b"\0"
        else:
            array += bytes(-len(array) % 4) + (struct.pack("<I", value) if form == "u" else text(value))
    head = struct.pack("<cBBBII", b"l", kind, 0, 1, len(body), serial) + struct.pack("<I", len(array)) + array
    return head + bytes(-len(head) % 8) + body


class FakeSystemd:
    """`result`: of each job that starts a unit; None: it never ends. `refuses`: {method: (D-Bus error, text)}, once for
    each, or every time with `keeps_refusing`. `silent`: methods that get no answer, and "AUTH". `leaves`: the method that
    ends its connection; `leaves_during`: the same once it was answered, while its job runs.
    """

    def __init__(self, folder, result="done", refuses=None, keeps_refusing=False, silent=(), leaves=None, leaves_during=None):
        self.result, self.refuses, self.keeps_refusing, self.silent = result, dict(refuses or {}), keeps_refusing, silent
        self.leaves, self.leaves_during = leaves, leaves_during
        self.calls, self.units = [], {}
        self.listener = socket.socket(socket.AF_UNIX)
        path = os.path.join(folder, "bus")
        self.listener.bind(path)
        self.listener.listen()
        self.address = f"unix:path={path}"
        self.connections, self.jobs = [], 0
        threading.Thread(target=self._accept, daemon=True).start()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        for each in (self.listener, *self.connections):
            with contextlib.suppress(OSError):
                each.shutdown(socket.SHUT_RDWR)  # wakes whoever waits in it
            each.close()
        os.unlink(self.address.partition("=")[2])
        for unit in list(self.units):
            self.remove(unit)

    def _accept(self):
        with contextlib.suppress(OSError):
            while True:
                connection = self.listener.accept()[0]
                self.connections.append(connection)
                threading.Thread(target=self._serve, args=(connection,), daemon=True).start()

    def _serve(self, connection):
        with contextlib.suppress(OSError, EOFError), connection, connection.makefile("rwb") as stream:
            self._authenticate(stream)
            while True:
                self._answer(stream, *self._read(stream))
                stream.flush()

    def _authenticate(self, stream):
        stream.read(1)
        if "AUTH" in self.silent:
            stream.read()
            raise EOFError
        while (line := stream.readline()) != b"BEGIN\r\n":
            if not line:
                raise EOFError
            stream.write({b"AUTH": b"OK 0123456789abcdef0123456789abcdef\r\n"}.get(line[:4], b"ERROR\r\n"))
            stream.flush()

    @staticmethod
    def _read(stream):
        """Serial, header fields and arguments of the next message."""
        head = stream.read(16)
        if len(head) < 16:
            raise EOFError
        body_size, serial, fields_size = struct.unpack("<III", head[4:16])
        data = head + stream.read(fields_size + -fields_size % 8)
        reader = Reader(data)
        reader.at = 12  # the size of the fields again, as that of an array
        fields = dict(reader.value("a(yv)")[0])
        return serial, fields, Reader(stream.read(body_size)).values(fields.get(8, ""))

    def _answer(self, stream, serial, fields, arguments):
        method = fields.get(3, "")
        replies = []

        def reply(signature="", *values):
            replies.append(message(RETURN, 1000 + serial, [(5, "u", serial), (7, "s", ":1.0")], signature, values))
        if method not in ("Hello", "AddMatch", "Subscribe"):
            self.calls.append((method, *arguments[:1]))
        if method == self.leaves:
            raise EOFError
        if method in self.silent:
            return
        if method in self.refuses:
            name, why = self.refuses[method] if self.keeps_refusing else self.refuses.pop(method)
            replies.append(message(ERROR, 1000 + serial, [(4, "s", name), (5, "u", serial)], "s", (why,)))
        elif method == "Hello":
            reply("s", ":1.1")
        elif method in ("StartTransientUnit", "StopUnit"):
            unit = arguments[0]
            self.jobs += 1
            job = f"{MANAGER_PATH}/job/{self.jobs}"
            if method == "StopUnit":
                self.remove(unit)
            elif self.result == "done":
                self.make(unit, dict(arguments[2]))
            reply("o", job)
            if method == self.leaves_during:
                stream.write(replies.pop())
                stream.flush()
                raise EOFError
            result = "done" if method == "StopUnit" else self.result
            if result is not None:
                replies.append(message(SIGNAL, 5000 + serial,
                                       [(1, "o", MANAGER_PATH), (2, "s", MANAGER), (3, "s", "JobRemoved")], "uoss",
                                       (self.jobs, job, unit, result)))
        elif method == "Get":
            unit = next(iter(self.units), "")
            reply("v", f"/{self.units[unit]['Slice']}/{unit}" if unit else "")
        else:
            reply()
        for each in replies:
            stream.write(each)

    @staticmethod
    def folders(unit, properties):
        return [f"{root}/{properties['Slice']}/{unit}" for root in HIERARCHIES
                if os.path.exists(f"{root}/cgroup.procs")]

    def make(self, unit, properties):
        """Moves the scope's processes to cgroups of its name, in the hierarchies that are systemd's own."""
        self.units[unit] = properties
        for folder in self.folders(unit, properties):
            os.makedirs(folder, exist_ok=True)
            for pid in properties["PIDs"]:
                with open(f"{folder}/cgroup.procs", "w", encoding="ascii") as file:
                    file.write(str(pid))

    def remove(self, unit):
        """Ends what is in a unit, and removes its cgroups."""
        properties = self.units.pop(unit, None)
        for folder in self.folders(unit, properties) if properties else ():
            deadline = time.monotonic() + 5
            while os.path.exists(folder) and time.monotonic() < deadline:
                self.kill(folder)
                with contextlib.suppress(OSError):
                    os.rmdir(folder)
                time.sleep(0.01)
            with contextlib.suppress(OSError):  # another unit may be in it
                os.rmdir(os.path.dirname(folder))

    @staticmethod
    def kill(folder):
        with open(f"{folder}/cgroup.procs", encoding="ascii") as file:
            for line in file:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(int(line), signal.SIGKILL)
