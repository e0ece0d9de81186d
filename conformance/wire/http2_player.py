"""Just enough HTTP/2 to be rude in it: frames, a few header blocks, the peer's windows.

A Connection speaks the server's side correctly until a request is complete, and then calls `answer(connection, stream)`
in a thread of its own. What that sends is up to it. Source: RFC 9113, RFC 7541, the gRPC-over-HTTP/2 description.
"""

import socket
import struct
import threading

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
DATA, HEADERS, PRIORITY, RST_STREAM, SETTINGS, PUSH_PROMISE, PING, GOAWAY, WINDOW_UPDATE, CONTINUATION = range(10)
END_STREAM, ACK, END_HEADERS = 1, 1, 4
INITIAL_WINDOW, LARGEST_FRAME = 65535, 16384
INITIAL_WINDOW_SIZE = 4  # a setting's number
SECONDS = 60


def frame(kind, flags, stream, payload=b""):
    return struct.pack(">I", len(payload))[1:] + bytes([kind, flags]) + struct.pack(">I", stream) + payload


def number(value, prefix_bits, first=0):
    """An HPACK integer."""
    limit = (1 << prefix_bits) - 1
    if value < limit:
        return bytes([first | value])
    out = [first | limit]
    value -= limit
    while value >= 128:
        out.append(value % 128 + 128)
        value //= 128
    return bytes([*out, value])


def header(name, value):
    """A literal field, without indexing and without Huffman coding."""
    name, value = (text.encode() if isinstance(text, str) else text for text in (name, value))
    return b"\0" + number(len(name), 7) + name + number(len(value), 7) + value


STATUS_200 = b"\x88"
RESPONSE = STATUS_200 + header("content-type", "application/grpc")


def message(data, compressed=0, length=None):
    """One gRPC message with its prefix, which may lie."""
    return struct.pack(">BI", compressed, len(data) if length is None else length) + data


def trailers(status="0", text=""):
    return header("grpc-status", str(status)) + (header("grpc-message", text) if text else b"")


class Connection:
    """The server's side of one connection, over a connected socket."""

    def __init__(self, stream, answer, settings=b"", acknowledge=True):
        self.stream, self.answer, self.acknowledge = stream, answer, acknowledge
        self.windows, self.initial = {0: INITIAL_WINDOW}, INITIAL_WINDOW
        self.changed, self.sending, self.over = threading.Condition(), threading.Lock(), False
        self.settings = settings

    def serve(self):
        """Until the peer goes."""
        try:
            if self._read(len(PREFACE)) != PREFACE:
                return
            self.send(frame(SETTINGS, 0, 0, self.settings))
            while True:
                self._one_frame()
        except (EOFError, OSError):
            pass
        finally:
            with self.changed:
                self.over = True
                self.changed.notify_all()

    def _read(self, size):
        data = b""
        while len(data) < size:
            part = self.stream.recv(size - len(data))
            if not part:
                raise EOFError
            data += part
        return data

    def _one_frame(self):
        head = self._read(9)
        length, kind, flags = int.from_bytes(head[:3], "big"), head[3], head[4]
        identity = int.from_bytes(head[5:], "big") & 0x7fffffff
        payload = self._read(length)
        if kind == SETTINGS and not flags & ACK:
            self._settings(payload)
        elif kind == PING and not flags & ACK and self.acknowledge:
            self.send(frame(PING, ACK, 0, payload))
        elif kind == WINDOW_UPDATE:
            with self.changed:
                self.windows[identity] = self.windows.get(identity, self.initial) + int.from_bytes(payload, "big")
                self.changed.notify_all()
        elif kind in (DATA, HEADERS):
            if kind == DATA and length:
                increment = struct.pack(">I", length)
                self.send(frame(WINDOW_UPDATE, 0, 0, increment))
            if flags & END_STREAM:
                threading.Thread(target=self._answer, args=(identity,), daemon=True).start()

    def _settings(self, payload):
        for at in range(0, len(payload) - 5, 6):
            setting, value = struct.unpack_from(">HI", payload, at)
            if setting == INITIAL_WINDOW_SIZE:
                with self.changed:
                    for identity in self.windows:
                        if identity:
                            self.windows[identity] += value - self.initial
                    self.initial = value
                    self.changed.notify_all()
        if self.acknowledge:
            self.send(frame(SETTINGS, ACK, 0))

    def _answer(self, identity):
        try:
            self.answer(self, identity)
        except (EOFError, OSError):
            pass

    # ---- what an answer is made of ----

    def send(self, data):
        with self.sending:
            self.stream.sendall(data)

    def headers(self, identity, block=RESPONSE, end=False):
        self.send(frame(HEADERS, END_HEADERS | (END_STREAM if end else 0), identity, block))

    def long_headers(self, identity, block, end=False):
        """A block that needs CONTINUATION frames; nothing may come between them."""
        parts = [block[at:at + LARGEST_FRAME] for at in range(0, len(block), LARGEST_FRAME)]
        out = frame(HEADERS, END_STREAM if end else 0, identity, parts[0])
        for part in parts[1:-1]:
            out += frame(CONTINUATION, 0, identity, part)
        self.send(out + frame(CONTINUATION, END_HEADERS, identity, parts[-1] if len(parts) > 1 else b""))

    def data(self, identity, data, end=False):
        """As much as the peer's windows allow, as they allow it."""
        while True:
            with self.changed:
                self.windows.setdefault(identity, self.initial)
                self.changed.wait_for(lambda: self.over or min(self.windows[0], self.windows[identity]) > 0, SECONDS)
                room = min(self.windows[0], self.windows[identity], LARGEST_FRAME, len(data))
                if self.over or (data and room <= 0):
                    raise EOFError
                self.windows[0] -= room
                self.windows[identity] -= room
            part, data = data[:room], data[room:]
            self.send(frame(DATA, END_STREAM if end and not data else 0, identity, part))
            if not data:
                return

    def ok(self, identity, data=b""):
        """An honest answer."""
        self.headers(identity)
        self.data(identity, message(data))
        self.headers(identity, trailers(), end=True)

    def fails(self, identity, status, text=""):
        self.long_headers(identity, RESPONSE + trailers(status, text), end=True)

    def hang_up(self):
        self.stream.shutdown(socket.SHUT_RDWR)
