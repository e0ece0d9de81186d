"""The guest's end of a transport for programs that play a guest: unix://DIR or hvsock://PATH, see base/transport.h.

    side = GuestSide("unix:///run/x", handle)   # handle(stream) is called in a thread for each connection to port 1024
    side.dial(0x10000000)                       # a stream to a port of the host
    side.close()
"""

import contextlib
import os
import socket
import threading

AGENT_PORT = 1024
MAX_LINE = 64  # of the hybrid handshake
SECONDS = 30


class GuestSide:
    def __init__(self, address, handle, backlog=128, answer=b"OK 1073741824\n"):
        """`answer`: what hybrid vsock says to a CONNECT of the agent's port; None: nothing. A hostile VMM's choice."""
        self.kind, _, self.path = address.partition("://")
        if self.kind not in ("unix", "hvsock") or not self.path.startswith("/"):
            raise ValueError(f"{address}: neither unix://DIR nor hvsock://PATH")
        self.handle, self.answer = handle, answer
        self.streams, self.lock, self.closed = set(), threading.Lock(), False
        self.socket_path = self.path if self.kind == "hvsock" else os.path.join(self.path, str(AGENT_PORT))
        with contextlib.suppress(FileNotFoundError):
            os.unlink(self.socket_path)
        self.listener = socket.socket(socket.AF_UNIX)
        self.listener.bind(self.socket_path)
        self.listener.listen(backlog)

    def start(self):
        """Accepts from now on. Without it connections only queue up."""
        threading.Thread(target=self._accept, daemon=True).start()
        return self

    def _accept(self):
        while True:
            try:
                stream, _ = self.listener.accept()
            except OSError:
                return
            with self.lock:
                self.streams.add(stream)
            threading.Thread(target=self._serve, args=(stream,), daemon=True).start()

    def _serve(self, stream):
        try:
            if self.kind == "unix" or self._handshake(stream):
                self.handle(stream)
        except (OSError, EOFError):
            pass  # the host has gone
        finally:
            with self.lock:
                self.streams.discard(stream)
            stream.close()

    def _handshake(self, stream):
        line = b""
        while not line.endswith(b"\n"):
            byte = stream.recv(1)
            if not byte or len(line) > MAX_LINE:
                return False
            line += byte
        if line != b"CONNECT %d\n" % AGENT_PORT:
            return False
        if self.answer is not None:
            stream.sendall(self.answer)
        return True

    def dial(self, port):
        """A stream to the host's `port`."""
        stream = socket.socket(socket.AF_UNIX)
        stream.settimeout(SECONDS)
        try:
            stream.connect(f"{self.path}_{port}" if self.kind == "hvsock" else os.path.join(self.path, str(port)))
        except BaseException:
            stream.close()
            raise
        stream.settimeout(None)
        return stream

    def hang_up(self):
        """Ends every connection of now."""
        with self.lock:
            streams = list(self.streams)
        for stream in streams:
            with contextlib.suppress(OSError):
                stream.shutdown(socket.SHUT_RDWR)

    def close(self):
        with contextlib.suppress(OSError):
            self.listener.shutdown(socket.SHUT_RDWR)  # wakes accept()
        self.listener.close()
        self.hang_up()
        with contextlib.suppress(FileNotFoundError):
            os.unlink(self.socket_path)


class Last(bytes):
    """What a filter passes on before it ends the connection."""


def copy(source, target, seen=lambda data: data):
    """Copies to the end of `source`, then half-closes `target`. `seen(data)` gives what to pass on; Last ends both."""
    with contextlib.suppress(OSError):
        while data := source.recv(1 << 16):
            data = seen(data)
            target.sendall(data)
            if isinstance(data, Last):
                for stream in (source, target):
                    with contextlib.suppress(OSError):
                        stream.shutdown(socket.SHUT_RDWR)
                return
    with contextlib.suppress(OSError):
        target.shutdown(socket.SHUT_WR)


def relay(near, far, seen=lambda data: data):
    """Joins two streams until both directions have ended; `seen` filters what goes from `far` to `near`."""
    other = threading.Thread(target=copy, args=(near, far), daemon=True)
    other.start()
    copy(far, near, seen)
    other.join()
