"""A seccomp agent: takes the listeners that a runtime hands over and answers the system calls of the programs.

One thread serves all; `answers` maps the number of a call to what it gives: a negative errno, a value >= 0, or
CONTINUE. Source: seccomp_unotify(2), runtime-spec config-linux.md "The Container Process State".
"""

import fcntl
import json
import os
import select
import socket
import struct
import threading

CONTINUE = "continue"
_RECV, _SEND = 0xC0502100, 0xC0182101
_NOTIFICATION = struct.Struct("=QIIiIQ6Q")
_ANSWER = struct.Struct("=QqiI")
_FLAG_CONTINUE = 1
_MOST = 1 << 20


class Agent:
    """Listens on `path`; `handed` gets (containerProcessState, number of descriptors) for each connection."""

    def __init__(self, path, answers, accepting=True):
        self.path, self.answers = path, answers
        self.handed, self.calls, self.failure = [], [], None
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self._socket.bind(path)
        self._socket.listen()
        self._stop, self._stopping = os.pipe()
        self._listeners = []
        self._thread = threading.Thread(target=self._serve, daemon=True)
        if accepting:
            self._thread.start()

    def close(self):
        os.close(self._stopping)
        if self._thread.is_alive():
            self._thread.join()
        for fd in [self._stop, *self._listeners]:
            os.close(fd)
        self._socket.close()
        os.unlink(self.path)

    def _serve(self):
        try:
            while True:
                poll = select.poll()
                for fd in (self._stop, self._socket.fileno(), *self._listeners):
                    poll.register(fd, select.POLLIN)
                for fd, event in poll.poll():
                    if fd == self._stop:
                        return
                    if fd == self._socket.fileno():
                        self._take()
                    elif event & select.POLLIN:
                        self._answer(fd)
                    else:  # nobody has the filter any more
                        self._listeners.remove(fd)
                        os.close(fd)
        except Exception as error:  # pylint: disable=broad-except  # seen by the test, which asks for `failure`
            self.failure = error

    def _take(self):
        """The descriptors come with the first bytes; the whole stream is one JSON text."""
        connection, _ = self._socket.accept()
        with connection:
            data, fds, _, _ = socket.recv_fds(connection, _MOST, 8)
            self._listeners += fds
            while more := connection.recv(_MOST):
                data += more
        self.handed.append((json.loads(data), len(fds)))

    def _answer(self, fd):
        buffer = bytearray(_NOTIFICATION.size)
        try:
            fcntl.ioctl(fd, _RECV, buffer)
        except FileNotFoundError:
            return  # ended meanwhile
        identity, pid, _, number, *_ = _NOTIFICATION.unpack(buffer)
        answer = self.answers.get(number, CONTINUE)
        self.calls.append((number, pid))
        if answer == CONTINUE:
            packed = _ANSWER.pack(identity, 0, 0, _FLAG_CONTINUE)
        elif answer < 0:
            packed = _ANSWER.pack(identity, 0, answer, 0)
        else:
            packed = _ANSWER.pack(identity, answer, 0, 0)
        try:
            fcntl.ioctl(fd, _SEND, bytearray(packed))
        except FileNotFoundError:
            pass
