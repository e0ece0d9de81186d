"""Runs client commands of the engines, with a deadline, through pipes or under a pseudo-terminal."""

import errno
import fcntl
import os
import pty
import re
import select
import signal
import struct
import subprocess
import termios
import time
from dataclasses import dataclass


@dataclass(frozen=True)
class Outcome:
    """What a command did: exit code (128+n for a signal), stdout and stderr, and how long it took."""

    argv: tuple
    code: int
    out: bytes
    err: bytes
    seconds: float

    @property
    def text(self):
        return self.out.decode(errors="replace")

    def __str__(self):
        return (f"{' '.join(self.argv)}\n  exit code {self.code} after {self.seconds:.2f} s\n"
                f"  stdout {self.out[-4000:]!r}\n  stderr {self.err[-4000:]!r}")


def call(argv, stdin=b"", seconds=180, env=None):
    """Runs `argv` to its end with `stdin` as its input; subprocess.TimeoutExpired (it is killed then) after `seconds`."""
    argv = tuple(str(a) for a in argv)
    begin = time.monotonic()
    done = subprocess.run(argv, input=stdin, capture_output=True, timeout=seconds, env=env)
    code = done.returncode if done.returncode >= 0 else 128 - done.returncode
    return Outcome(argv, code, done.stdout, done.stderr, time.monotonic() - begin)


class Terminal:
    """A command that runs with a pseudo-terminal of its own as its stdin, stdout, stderr and controlling terminal."""

    def __init__(self, argv, rows=37, columns=111, env=None, noise=()):
        # `noise`: patterns of lines of the client itself, which it may or may not print; `finish` takes them out.
        self.noise = noise
        self.argv = tuple(str(a) for a in argv)
        self.begin = time.monotonic()
        self.output = b""
        self.closed = False
        self.master, slave = pty.openpty()
        self.resize(rows, columns)

        def own_terminal():
            fcntl.ioctl(0, termios.TIOCSCTTY, 0)

        self.process = subprocess.Popen(self.argv, stdin=slave, stdout=slave, stderr=slave, env=env,
                                        start_new_session=True, preexec_fn=own_terminal)
        os.close(slave)

    def resize(self, rows, columns):
        """Changes the window size as a terminal emulator does; the foreground process gets SIGWINCH."""
        fcntl.ioctl(self.master, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))

    def send(self, data):
        os.write(self.master, data)

    def _read(self, deadline):
        """Adds what comes next to `output`; False at the end of the terminal."""
        ready, _, _ = select.select([self.master], [], [], max(0, deadline - time.monotonic()))
        if not ready:
            raise TimeoutError(f"{' '.join(self.argv)}: no more output by the deadline, so far {self.output!r}")
        try:
            data = os.read(self.master, 65536)
        except OSError as error:
            if error.errno != errno.EIO:  # EIO: the last slave was closed
                raise
            data = b""
        self.output += data
        return bool(data)

    def expect(self, text, seconds=120):
        """Reads until `text` has come; AssertionError if the terminal ends before, TimeoutError if nothing comes."""
        deadline = time.monotonic() + seconds
        while text not in self.output:
            if not self._read(deadline):
                raise AssertionError(f"{' '.join(self.argv)}: ended without {text!r}: {self.output!r}")

    def finish(self, seconds=180):
        """Reads to the end and gives the Outcome (stderr is part of stdout)."""
        deadline = time.monotonic() + seconds
        try:
            while self._read(deadline):
                pass
            code = self.process.wait(max(0.1, deadline - time.monotonic()))
        finally:
            self.close()
        code = code if code >= 0 else 128 - code
        for line in self.noise:
            self.output = re.sub(line, b"", self.output)
        return Outcome(self.argv, code, self.output, b"", time.monotonic() - self.begin)

    def close(self):
        """Kills the command if it still runs and gives the terminal back; may be called twice."""
        if self.closed:
            return
        self.closed = True
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait()
        os.close(self.master)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()


class Daemon:
    """A daemon of an engine, with its output in a file that is shown if a test fails."""

    def __init__(self, argv, log, env=None):
        self.argv = tuple(str(a) for a in argv)
        self.log = log
        with open(log, "ab") as output:
            self.process = subprocess.Popen(self.argv, stdin=subprocess.DEVNULL, stdout=output, stderr=output,
                                            env=env, start_new_session=True)

    def alive(self):
        """True; RuntimeError with the end of its log if it has ended."""
        if self.process.poll() is not None:
            raise RuntimeError(f"{self.argv[0]} ended with {self.process.returncode}:\n{self.tail()}")
        return True

    def tail(self, lines=40):
        with open(self.log, errors="replace") as file:
            return "".join(file.readlines()[-lines:])

    def stop(self, seconds=30):
        """SIGTERM, and waits; the exit code. SIGKILL and TimeoutError if it does not leave."""
        self.process.send_signal(signal.SIGTERM)
        try:
            return self.process.wait(seconds)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
            raise TimeoutError(f"{self.argv[0]} did not end within {seconds} s of SIGTERM:\n{self.tail()}") from None


def read_until(stream, text, seconds):
    """Reads a pipe until `text` (bytes) has come and gives all of it; AssertionError at its end, TimeoutError."""
    deadline = time.monotonic() + seconds
    output = b""
    while text not in output:
        ready, _, _ = select.select([stream], [], [], max(0, deadline - time.monotonic()))
        if not ready:
            raise TimeoutError(f"no {text!r} within {seconds} s, so far {output!r}")
        data = os.read(stream.fileno(), 65536)
        if not data:
            raise AssertionError(f"ended without {text!r}: {output!r}")
        output += data
    return output
