"""The host's ends of a sandbox's streams, as a test holds them: hybrid vsock and plain socket files."""

import contextlib
import os
import socket


def dial_hybrid(base, port, seconds):
    """A stream to a port of the guest, over the hybrid vsock socket `base`. ConnectionResetError when nobody listens."""
    stream = socket.socket(socket.AF_UNIX)
    stream.settimeout(seconds)
    try:
        stream.connect(base)
        stream.sendall(b"CONNECT %d\n" % port)
        line = b""
        while not line.endswith(b"\n"):
            byte = stream.recv(1)
            if not byte:
                raise ConnectionResetError(f"port {port}: closed after {line!r}")
            line += byte
        word, number = line.split()
        if word != b"OK" or int(number) < 0:
            raise AssertionError(f"handshake: {line!r}")
    except BaseException:
        stream.close()
        raise
    return stream


def listen_on(path, seconds, backlog):
    """Listens on a socket file, in place of what is there; accept() gives a stream and a name."""
    listener = socket.socket(socket.AF_UNIX)
    listener.settimeout(seconds)
    with contextlib.suppress(FileNotFoundError):
        os.unlink(path)
    listener.bind(path)
    listener.listen(backlog)
    return listener
