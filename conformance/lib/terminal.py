"""A pseudo-terminal as its user holds it, and the socket on which a runtime hands one over."""

import array
import errno
import fcntl
import os
import pty
import select
import socket
import struct
import subprocess
import termios
import time

# With a guest the first output comes after a boot.
SECONDS = 10 if os.environ.get("ARCA_SANDBOX", "local") in ("", "local") else 60


class Terminal:
    """The master side of a pseudo-terminal. Everything ever read is kept in `seen`."""

    def __init__(self, master, slave=None):
        self.master = master
        self.slave = slave
        self.seen = b""
        self._position = 0
        self.ended = False

    @classmethod
    def open(cls, rows=24, columns=80):
        master, slave = pty.openpty()
        terminal = cls(master, slave)
        terminal.resize(rows, columns)
        return terminal

    def resize(self, rows, columns):
        fcntl.ioctl(self.master, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))

    def size(self):
        packed = fcntl.ioctl(self.master, termios.TIOCGWINSZ, bytes(8))
        return struct.unpack("HHHH", packed)[:2]

    def attributes(self):
        return termios.tcgetattr(self.slave if self.slave is not None else self.master)

    def spawn(self, argv, **options):
        """Starts a program in a session of its own whose controlling terminal this is."""
        def adopt():
            fcntl.ioctl(0, termios.TIOCSCTTY, 0)
        return subprocess.Popen(argv, stdin=self.slave, stdout=self.slave, stderr=self.slave,
                                start_new_session=True, preexec_fn=adopt, **options)

    def send(self, data):
        os.write(self.master, data)

    def _read_some(self, deadline):
        """Reads once; False when the time is over or the other side is closed."""
        left = deadline - time.monotonic()
        if left <= 0 or not select.select([self.master], [], [], left)[0]:
            return False
        try:
            data = os.read(self.master, 65536)
        except OSError as error:
            if error.errno != errno.EIO:
                raise
            data = b""
        if not data:
            self.ended = True
            return False
        self.seen += data
        return True

    def read_until(self, text, seconds=SECONDS):
        """Waits for `text` after what an earlier call matched; returns what came up to its end."""
        deadline = time.monotonic() + seconds
        while True:
            found = self.seen.find(text, self._position)
            if found >= 0:
                start, self._position = self._position, found + len(text)
                return self.seen[start:self._position]
            if not self._read_some(deadline):
                raise AssertionError(f"{text!r} did not come on the terminal within {seconds} s; "
                                     f"{'it was closed; ' if self.ended else ''}seen: {self.seen!r}")

    def read_all(self, seconds=SECONDS):
        """Reads until the other side is closed; returns all that was not matched before."""
        deadline = time.monotonic() + seconds
        while self._read_some(deadline):
            pass
        if not self.ended:
            raise AssertionError(f"the terminal stayed open for {seconds} s; seen: {self.seen!r}")
        return self.seen[self._position:]

    def close_slave(self):
        if self.slave is not None:
            os.close(self.slave)
            self.slave = None

    def close(self):
        self.close_slave()
        if self.master >= 0:
            os.close(self.master)
            self.master = -1


class FdSocket:
    """A listening socket on which a runtime sends one message with one descriptor (console, pidfd)."""

    def __init__(self, path):
        self.path = path
        self.listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC)
        self.listener.bind(path)
        self.listener.listen(1)
        self.connection = None

    def accept(self, seconds=SECONDS):
        self.listener.settimeout(seconds)
        self.connection, _ = self.listener.accept()
        self.connection.settimeout(seconds)

    def receive(self, seconds=SECONDS):
        """Returns (payload, descriptor); the message must carry exactly one descriptor."""
        if self.connection is None:
            self.accept(seconds)
        room = socket.CMSG_SPACE(16 * 4)
        payload, ancillary, flags, _ = self.connection.recvmsg(8192, room, socket.MSG_CMSG_CLOEXEC)
        fds = array.array("i")
        for level, kind, data in ancillary:
            if (level, kind) == (socket.SOL_SOCKET, socket.SCM_RIGHTS):
                fds.frombytes(data[:len(data) - len(data) % fds.itemsize])
        if flags & socket.MSG_CTRUNC or len(fds) != 1 or not 1 <= len(payload) < 4096:
            for fd in fds:
                os.close(fd)
            raise AssertionError(f"wanted one descriptor and a short payload, got {len(fds)} and {payload!r}")
        return payload, fds[0]

    def receive_terminal(self, seconds=SECONDS):
        payload, fd = self.receive(seconds)
        if not os.isatty(fd):
            os.close(fd)
            raise AssertionError(f"the descriptor that came with {payload!r} is not a terminal")
        return Terminal(fd)

    def close(self):
        for end in (self.connection, self.listener):
            if end is not None:
                end.close()
        if os.path.exists(self.path):
            os.unlink(self.path)
