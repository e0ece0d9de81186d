"""Network namespaces for tests, wired together the way engines do: a bridge, and veth pairs into it.

A namespace is held by a process that sleeps in it; its path is /proc/PID/ns/net. Everything goes with that process.
"""

import contextlib
import ctypes
import os
import socket
import subprocess
import threading

CLONE_NEWNET = 0x40000000
_libc = ctypes.CDLL(None, use_errno=True)


def _check(result, what):
    if result != 0:
        code = ctypes.get_errno()
        raise OSError(code, f"{what}: {os.strerror(code)}")


@contextlib.contextmanager
def inside(path):
    """The calling thread is in the namespace `path`; sockets that it makes stay there."""
    with open("/proc/thread-self/ns/net", "rb") as own, open(path, "rb") as other:
        _check(_libc.setns(other.fileno(), CLONE_NEWNET), "setns")
        try:
            yield
        finally:
            _check(_libc.setns(own.fileno(), CLONE_NEWNET), "setns back")


def in_namespace(path, work):
    """What `work()` gives, called in the namespace `path`."""
    with inside(path):
        return work()


class Namespace:
    def __init__(self):
        # The shell says when it is there, and then only waits for the end of its standard input.
        self.holder = subprocess.Popen(["unshare", "--net", "sh", "-c", "echo; exec cat"], stdin=subprocess.PIPE,
                                       stdout=subprocess.PIPE)
        self.holder.stdout.readline()
        self.path = f"/proc/{self.holder.pid}/ns/net"
        self.run("ip", "link", "set", "lo", "up")

    def close(self):
        self.holder.stdin.close()
        self.holder.wait(10)
        self.holder.stdout.close()

    def argv(self, *words):
        return ["nsenter", f"--net={self.path}", *words]

    def run(self, *words, check=True, **options):
        """Runs a command there; gives its output."""
        done = subprocess.run(self.argv(*words), stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False,
                              timeout=60, **options)
        if check and done.returncode != 0:
            raise AssertionError(f"{' '.join(words)}: {done.returncode}\n{done.stdout}{done.stderr}")
        return done.stdout if check else done

    def socket(self, *args):
        with inside(self.path):
            return socket.socket(*args)


class Bridge:
    """A namespace with the bridge br0, 10.88.0.1/24 and fd00:88::1/64, and what is plugged into it."""

    def __init__(self, mtu=1500):
        self.mtu, self.namespaces, self.plugged = mtu, [], 0
        self.ns = self.namespace()
        self.ns.run("ip", "link", "add", "br0", "mtu", str(mtu), "type", "bridge", "forward_delay", "0")
        self.ns.run("ip", "link", "set", "br0", "up")
        self.ns.run("ip", "addr", "add", "10.88.0.1/24", "dev", "br0")
        self.ns.run("ip", "-6", "addr", "add", "fd00:88::1/64", "dev", "br0", "nodad")

    def namespace(self):
        self.namespaces.append(Namespace())
        return self.namespaces[-1]

    def close(self):
        for ns in reversed(self.namespaces):
            ns.close()

    def plug(self, path, number, name="eth0", gateway=True):
        """What a CNI plug-in does: `name` in the namespace at `path` gets 10.88.0.NUMBER, fd00:88::NUMBER and, with `gateway`, default routes.

        Gives its MAC address.
        """
        self.plugged += 1
        peer = f"v{self.plugged}"
        mac = f"02:42:0a:58:00:{number:02x}"
        with open(path, "rb") as target:
            self.ns.run("ip", "link", "add", peer, "mtu", str(self.mtu), "type", "veth", "peer", "name", name, "address", mac,
                        "mtu", str(self.mtu), "netns", f"/proc/self/fd/{target.fileno()}", pass_fds=[target.fileno()])
        self.ns.run("ip", "link", "set", peer, "master", "br0", "up")

        def there(*words):
            subprocess.run(["nsenter", f"--net={path}", "ip", *words], check=True, stdin=subprocess.DEVNULL, timeout=60)
        there("addr", "add", f"10.88.0.{number}/24", "dev", name)
        there("-6", "addr", "add", f"fd00:88::{number:x}/64", "dev", name, "nodad")
        there("link", "set", name, "up")
        if gateway:
            there("route", "add", "default", "via", "10.88.0.1", "dev", name)
            there("-6", "route", "add", "default", "via", "fd00:88::1", "dev", name)
        return mac

    def unplug(self, path, name="eth0"):
        subprocess.run(["nsenter", f"--net={path}", "ip", "link", "del", name], check=True, stdin=subprocess.DEVNULL,
                       timeout=60)


class Server:
    """A TCP server in a namespace: each connection is given to `serve(connection)` on a thread of its own."""

    def __init__(self, ns, port, serve, family=socket.AF_INET):
        self.listener = ns.socket(family, socket.SOCK_STREAM)
        self.listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        self.listener.bind(("", port))
        self.listener.listen(16)
        self.serve = serve
        self.thread = threading.Thread(target=self._accept, daemon=True)
        self.thread.start()

    def _accept(self):
        while True:
            try:
                connection, _ = self.listener.accept()
            except OSError:
                return
            threading.Thread(target=self._one, args=(connection,), daemon=True).start()

    def _one(self, connection):
        with connection:
            self.serve(connection)

    def close(self):
        self.listener.shutdown(socket.SHUT_RDWR)
        self.listener.close()
        self.thread.join(10)


class OwnNameServer:
    """A name server on 127.0.0.11 of a namespace, as Docker has one: it asks another server, over the namespace's own network.

    Questions that come by TCP it answers itself, with 2000 bytes.
    """

    def __init__(self, ns, server):
        self.ns, self.server = ns, server
        self.datagrams, self.listener = ns.socket(socket.AF_INET, socket.SOCK_DGRAM), ns.socket(socket.AF_INET, socket.SOCK_STREAM)
        for one in (self.datagrams, self.listener):
            one.bind(("127.0.0.11", 53))
        self.listener.listen()
        self.threads = [threading.Thread(target=target, daemon=True) for target in (self._pass_on, self._answer)]
        for thread in self.threads:
            thread.start()

    def _pass_on(self):
        with contextlib.suppress(OSError):
            while True:
                question, asker = self.datagrams.recvfrom(2048)
                if not question:
                    return
                if len(question) <= 12:  # a header without a question
                    continue
                with self.ns.socket(socket.AF_INET, socket.SOCK_DGRAM) as upstream, contextlib.suppress(TimeoutError):
                    upstream.settimeout(10)
                    upstream.sendto(question, (self.server, 53))
                    self.datagrams.sendto(upstream.recv(2048), asker)

    def _answer(self):
        with contextlib.suppress(OSError):
            while True:
                connection, _ = self.listener.accept()
                with connection:
                    head = connection.recv(4)
                    connection.sendall((2000).to_bytes(2, "big") + head[2:4] + b"\x81\x80" + bytes(1996))
                    while connection.recv(2048):
                        pass

    def close(self):
        for one in (self.datagrams, self.listener):
            with contextlib.suppress(OSError):
                one.shutdown(socket.SHUT_RDWR)
        for thread in self.threads:
            thread.join(10)
        for one in (self.datagrams, self.listener):
            one.close()


class DnsServer:
    """Answers each A question on UDP port 53 of a namespace with one address."""

    def __init__(self, ns, address):
        self.socket = ns.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self.socket.bind(("", 53))
        self.address, self.asked = address, []
        self.thread = threading.Thread(target=self._serve, daemon=True)
        self.thread.start()

    def _serve(self):
        while True:
            try:
                question, asker = self.socket.recvfrom(2048)
            except OSError:
                return
            if not question:
                return
            at, labels = 12, []
            while question[at]:
                labels.append(question[at + 1:at + 1 + question[at]].decode())
                at += 1 + question[at]
            at += 1
            kind = question[at:at + 2]
            self.asked.append(".".join(labels))
            answers = b""
            if kind == b"\0\1":
                answers = b"\xc0\x0c\0\1\0\1\0\0\0\x3c\0\4" + socket.inet_aton(self.address)
            head = question[:2] + b"\x81\x80\0\1" + (b"\0\1" if answers else b"\0\0") + b"\0\0\0\0"
            self.socket.sendto(head + question[12:at + 4] + answers, asker)

    def close(self):
        with contextlib.suppress(OSError):
            self.socket.shutdown(socket.SHUT_RDWR)
        self.thread.join(10)
        self.socket.close()
