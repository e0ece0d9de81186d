#!/usr/bin/python3
"""Programs that play a hostile guest, to test a host with: `arca-runtime --sandbox connect=unix://DIR` and its like.

    hostile_guest.py --list                         # the players, and what a host has to do with each
    hostile_guest.py unix://DIR PLAYER[:ARGUMENT]   # plays until SIGTERM; hvsock://PATH works as well

    with play("noise", "unix://" + folder) as guest:   # from a test
        ...

Whatever it is, a host has to end its command with an exit code that is not 0 and one line on stderr (printable, of a
sensible length), within its deadlines, with bounded memory, and leave no process, mount or folder behind; PLAYERS says
where a player demands something else.
"""

import argparse
import contextlib
import os
import random
import shutil
import signal
import socket
import struct
import sys
import threading
import time

import grpc

import http2_player as h2
from apple_guest import AppleAgent, AppleGuest, pb
from guest_side import GuestSide, Last

import agent as agent_stubs  # apple_guest has made it reachable

MIB = 1 << 20
ENDS = "fails soon: the connection has ended"
WAITS = "fails when its deadline passes"
FAILS = "fails with what is wrong with the answer"

# Name: (what it does, what the host must do, maker). A maker gives something with start() and close().
PLAYERS = {}


def player(name, does, must):
    def register(maker):
        PLAYERS[name] = (does, must, maker)
        return maker
    return register


# ---- below HTTP/2 ----

def raw(name, does, must, **side_options):
    """A player that is a function of a connection."""
    def register(function):
        PLAYERS[name] = (does, must, lambda address, _: GuestSide(address, function, **side_options))
        return function
    return register


def read_to_the_end(stream):
    while stream.recv(1 << 16):
        pass


@raw("deaf", "accepts, reads nothing, answers nothing", WAITS)
def deaf(stream):
    stream.settimeout(None)
    gone = threading.Event()
    while not gone.wait(0.1) and stream.fileno() >= 0:  # until close() of the side shuts it down
        with contextlib.suppress(OSError):
            if stream.recv(1, 0x42) == b"":  # MSG_PEEK | MSG_DONTWAIT
                return


@raw("mute", "reads everything, answers nothing", WAITS)
def mute(stream):
    read_to_the_end(stream)


@raw("closes", "closes each connection at once", ENDS)
def closes(stream):
    stream.close()


@raw("noise", "sends random bytes for ever", FAILS)
def noise(stream):
    source = random.Random(1)
    while True:
        stream.sendall(source.randbytes(4096))


@raw("zeros", "sends zero bytes for ever", FAILS)
def zeros(stream):
    while True:
        stream.sendall(bytes(4096))


@raw("http1", "answers as a web server of old would", FAILS)
def http1(stream):
    stream.recv(1)
    stream.sendall(b"HTTP/1.1 400 Bad Request\r\nConnection: close\r\nContent-Length: 3\r\n\r\nno\n")
    read_to_the_end(stream)


@raw("echo", "sends back what it gets", FAILS)
def echo(stream):
    while data := stream.recv(1 << 16):
        stream.sendall(data)


@player("absent", "leaves a socket file on which nobody listens", "fails soon: connection refused")
def absent(address, _):
    side = GuestSide(address, mute)
    side.listener.close()
    side.start = lambda: side
    return side


@player("full", "listens and never accepts", WAITS)
def full(address, _):
    side = GuestSide(address, mute, backlog=0)
    side.start = lambda: side
    return side


# The handshake of hybrid vsock; with unix:// these are honest connections that stay silent.
for _name, _answer, _does in (("no-ok", None, "never answers the CONNECT line"),
                              ("bad-ok", b"NO\n", "answers the CONNECT line with another word"),
                              ("long-ok", b"OK " + b"1" * 100000 + b"\n", "answers it with an endless number"),
                              ("late-ok", b"OK", "answers half of the line and no more")):
    raw(_name, "hvsock: " + _does, "fails: handshake, or its deadline", answer=_answer)(mute)


# ---- HTTP/2 ----

def http2(name, does, must, **options):
    """A player that is a function of a connection and the stream that is to be answered."""
    def register(function):
        def handle(stream):
            h2.Connection(stream, function, **options).serve()
        PLAYERS[name] = (does, must, lambda address, _: GuestSide(address, handle))
        return function
    return register


@http2("settings-only", "speaks HTTP/2 and never answers a request", WAITS)
def settings_only(connection, stream):
    pass


@http2("no-acknowledgement", "acknowledges neither settings nor pings, answers nothing", WAITS, acknowledge=False)
def no_acknowledgement(connection, stream):
    pass


@http2("goaway", "says GOAWAY to each request", ENDS)
def goaway(connection, stream):
    connection.send(h2.frame(h2.GOAWAY, 0, 0, struct.pack(">II", 0, 11) + b"calm down"))
    connection.hang_up()


@http2("resets", "resets each request", FAILS)
def resets(connection, stream):
    connection.send(h2.frame(h2.RST_STREAM, 0, stream, struct.pack(">I", 2)))


@http2("hangs-up", "closes the connection at the first request", ENDS)
def hangs_up(connection, stream):
    connection.hang_up()


@http2("settings-flood", "sends SETTINGS for ever", WAITS + "; memory stays bounded")
def settings_flood(connection, stream):
    while True:
        connection.send(h2.frame(h2.SETTINGS, 0, 0, struct.pack(">HI", 3, 100)) * 100)


@http2("ping-flood", "sends PING for ever", WAITS + "; memory stays bounded")
def ping_flood(connection, stream):
    while True:
        connection.send(h2.frame(h2.PING, 0, 0, b"12345678") * 100)


@http2("empty-data-flood", "sends empty DATA frames for ever", WAITS)
def empty_data_flood(connection, stream):
    connection.headers(stream)
    while True:
        connection.send(h2.frame(h2.DATA, 0, stream) * 100)


@http2("headers-forever", "sends a header block that never ends", FAILS + " or at its deadline; memory stays bounded")
def headers_forever(connection, stream):
    connection.send(h2.frame(h2.HEADERS, 0, stream, h2.RESPONSE))
    block = h2.header("x-filler", "y" * 8000)
    while True:
        connection.send(h2.frame(h2.CONTINUATION, 0, stream, block))


@http2("headers-huge", "sends 8 MiB of headers, then an honest answer", FAILS + ", or takes it; memory stays bounded")
def headers_huge(connection, stream):
    connection.long_headers(stream, h2.RESPONSE + h2.header("x-filler", "y" * (8 * MIB)))
    connection.data(stream, h2.message(b""))
    connection.headers(stream, h2.trailers(), end=True)


@http2("informational-forever", "sends 100-continue answers for ever", WAITS)
def informational_forever(connection, stream):
    while True:
        connection.headers(stream, h2.header(":status", "100"))


@http2("bad-header-block", "sends headers that cannot be decoded", FAILS)
def bad_header_block(connection, stream):
    connection.headers(stream, b"\xff\xff\xff\xff\xff\xff\xff\xff")


@http2("data-first", "sends DATA before any header", FAILS)
def data_first(connection, stream):
    connection.data(stream, h2.message(b""), end=True)


@http2("wrong-stream", "answers on a stream that nobody opened", FAILS + " or at its deadline")
def wrong_stream(connection, stream):
    connection.headers(stream + 100)
    connection.data(stream + 100, h2.message(b""), end=True)


@http2("pushes", "pushes a stream of its own", FAILS + " or at its deadline")
def pushes(connection, stream):
    connection.send(h2.frame(h2.PUSH_PROMISE, h2.END_HEADERS, stream, struct.pack(">I", 2) + h2.RESPONSE))


@http2("window-overflow", "raises the peer's window beyond its limit", FAILS)
def window_overflow(connection, stream):
    connection.send(h2.frame(h2.WINDOW_UPDATE, 0, 0, struct.pack(">I", 0x7fffffff)) * 2)


@http2("window-ignored", "sends 64 MiB without regard to windows", FAILS + "; memory stays bounded")
def window_ignored(connection, stream):
    connection.headers(stream)
    connection.send(h2.frame(h2.DATA, 0, stream, h2.message(b"", length=64 * MIB)))
    for _ in range(64 * MIB // h2.LARGEST_FRAME):
        connection.send(h2.frame(h2.DATA, 0, stream, bytes(h2.LARGEST_FRAME)))


@http2("frame-too-large", "announces a frame of 16 MiB", FAILS)
def frame_too_large(connection, stream):
    connection.send(b"\xff\xff\xff" + bytes([h2.DATA, 0]) + struct.pack(">I", stream) + bytes(1000))


@http2("unknown-frames", "sends frames of unknown kinds, then an honest empty answer", "takes it: they must be ignored")
def unknown_frames(connection, stream):
    for kind in (0x20, 0x7f, 0xff):
        connection.send(h2.frame(kind, 0xff, stream, b"?" * 100))
    connection.ok(stream)


# ---- gRPC ----

@http2("message-garbage", "answers every call with a message that is no protobuf", FAILS)
def message_garbage(connection, stream):
    connection.ok(stream, b"\xff" * 64)


@http2("message-empty", "answers every call with an empty message", "takes it where that is an answer; a pid of 0 is none")
def message_empty(connection, stream):
    connection.ok(stream)


@http2("message-huge", "answers with a valid message of 64 MiB", FAILS + "; memory stays bounded")
def message_huge(connection, stream):
    connection.headers(stream)
    size = 64 * MIB
    connection.data(stream, h2.message(b"\xfa\x7f" + varint(size) + bytes(size)))  # one field of an unknown number
    connection.headers(stream, h2.trailers(), end=True)


@http2("message-length-lies", "announces 4 GiB and sends for ever", FAILS + " or at its deadline; memory stays bounded")
def message_length_lies(connection, stream):
    connection.headers(stream)
    connection.data(stream, h2.message(b"", length=0xffffffff))
    while True:
        connection.data(stream, bytes(h2.LARGEST_FRAME))


@http2("message-cut", "ends in the middle of a message", FAILS)
def message_cut(connection, stream):
    connection.headers(stream)
    connection.data(stream, h2.message(b"abc", length=100))
    connection.headers(stream, h2.trailers(), end=True)


@http2("message-compressed", "marks its message as compressed", FAILS)
def message_compressed(connection, stream):
    connection.headers(stream)
    connection.data(stream, h2.message(b"\x1f\x8b" + bytes(20), compressed=1))
    connection.headers(stream, h2.trailers(), end=True)


@http2("messages-forever", "answers a call with messages without end", FAILS + " or at its deadline; memory stays bounded")
def messages_forever(connection, stream):
    connection.headers(stream)
    while True:
        connection.data(stream, h2.message(b"") * 1000)


@http2("trickle", "sends its answer a byte a second", WAITS)
def trickle(connection, stream):
    connection.headers(stream)
    for byte in h2.message(bytes(1000)):
        connection.data(stream, bytes([byte]))
        time.sleep(1)


@http2("no-status", "ends without a grpc-status", FAILS)
def no_status(connection, stream):
    connection.headers(stream)
    connection.data(stream, h2.message(b""), end=True)


@http2("odd-status", "ends with a grpc-status that is no number", FAILS)
def odd_status(connection, stream):
    connection.headers(stream)
    connection.data(stream, h2.message(b""))
    connection.headers(stream, h2.trailers("banana"), end=True)


@http2("large-status", "ends with a grpc-status of 4294967296", FAILS + ": it is not 0")
def large_status(connection, stream):
    connection.headers(stream)
    connection.data(stream, h2.message(b""))
    connection.headers(stream, h2.trailers("4294967296"), end=True)


@http2("http-404", "answers with an HTTP status of 404", FAILS)
def http_404(connection, stream):
    connection.headers(stream, h2.header(":status", "404") + h2.header("content-type", "text/html"), end=True)


@http2("terminal-text", "fails with a text of control characters, a forged second line and percent signs",
       "fails; what it prints has no control character and is one line")
def terminal_text(connection, stream):
    text = "%1B[2J%1B]0;owned%07 first line%0Atime=\"x\" level=info msg=\"forged\" %F0%9F%98%80 %zz %"
    connection.fails(stream, 13, text)


@http2("long-text", "fails with a text of 1 MiB", "fails; what it prints is of a sensible length")
def long_text(connection, stream):
    connection.fails(stream, 13, "long " * (MIB // 5))


def varint(value):
    out = b""
    while value >= 0x80:
        out += bytes([value & 0x7f | 0x80])
        value >>= 7
    return out + bytes([value])


# ---- an agent that answers, and lies ----

def agent(name, does, must):
    """A player that is a subclass of AppleAgent, made with the player's argument."""
    def register(kind):
        PLAYERS[name] = (does, must, lambda address, argument: AppleGuest(address, kind(argument)))
        return kind
    return register


class Liar(AppleAgent):
    def __init__(self, argument):
        super().__init__()
        self.argument = argument


@agent("honest", "is an Apple-like agent (apple_guest.py)", "works; what such an agent ignores is refused beforehand")
class Honest(Liar):
    pass


@agent("holds", "never answers the call that its argument names, such as StartProcess", WAITS)
class Holds(Liar):
    """See silence_one_call(): the named method is replaced."""


@agent("dies-in", "closes every connection when the call that its argument names comes", ENDS)
class DiesIn(Liar):
    pass


@agent("fails-in", "fails the call that its argument names with INTERNAL and an ugly text", FAILS)
class FailsIn(Liar):
    pass


def _wrapped(call):
    def method(self, request, context):
        if self.argument != call:
            return getattr(AppleAgent, call)(self, request, context)
        self.calls.append((call, request))
        if isinstance(self, DiesIn):
            self.side.hang_up()
        if isinstance(self, FailsIn):
            context.abort(grpc.StatusCode.INTERNAL, "ugly\n\x1b[31mtext" + "!" * 5000)
        while context.is_active():
            time.sleep(0.05)
        return getattr(pb, call + "Response")()
    return method


CALLS = [name for name in dir(AppleAgent) if name[0].isupper()]
for _call in CALLS:
    for _kind in (Holds, DiesIn, FailsIn):
        setattr(_kind, _call, _wrapped(_call))


@agent("odd-codes", "tells exit codes that are none: its argument, -1 by default", "does not tell 0 unless it is 0 mod 256")
class OddCodes(Liar):
    def WaitProcess(self, request, context):
        response = super().WaitProcess(request, context)
        response.exitCode = int(self.argument or -1)
        response.exited_at.seconds = -2**62
        response.exited_at.nanos = 2**31 - 1
        return response


@agent("odd-pids", "tells pids that are none: its argument, 0 by default", "signals nobody of its own; fails or goes on")
class OddPids(Liar):
    def StartProcess(self, request, context):
        response = super().StartProcess(request, context)
        response.pid = int(self.argument or 0)
        return response


@agent("ends-early", "tells the end of every process at once, while it runs", "takes the code; its streams end at last")
class EndsEarly(Liar):
    def WaitProcess(self, request, context):
        return pb.WaitProcessResponse(exitCode=3)


@agent("no-dial", "creates processes without connecting to their streams", WAITS + ": nobody connects")
class NoDial(Liar):
    def dial_streams(self, request, terminal):
        return {}


@agent("late-dial", "connects to a process's streams after CreateProcess", "takes them or " + WAITS)
class LateDial(Liar):
    def dial_streams(self, request, terminal):
        ports = {name: getattr(request, name) for name in ("stdin", "stdout", "stderr") if request.HasField(name)}
        threading.Timer(1, lambda: [self.side.dial(port) for port in ports.values()]).start()
        return {}


@agent("double-dial", "connects to every stream three times", "takes the first and nothing of the others")
class DoubleDial(Liar):
    def dial_streams(self, request, terminal):
        streams = super().dial_streams(request, terminal)
        self.extra = []
        for name in streams:
            for _ in range(2):
                with contextlib.suppress(OSError):
                    self.extra.append(self.side.dial(getattr(request, name)))
                    self.extra[-1].sendall(b"not of this process\n")
        return streams


@agent("floods", "writes to stdout without end and ignores every signal",
       "its reader sets the pace, memory stays bounded; delete --force works")
class Floods(Liar):
    def StartProcess(self, request, context):
        stream = self.containers[request.containerID][request.id].streams.get("stdout")
        if stream is not None:
            threading.Thread(target=self.flood, args=(stream,), daemon=True).start()
        return pb.StartProcessResponse(pid=4242)

    @staticmethod
    def flood(stream):
        with contextlib.suppress(OSError):
            while True:
                stream.sendall(b"flood " * 10000)

    def KillProcess(self, request, context):
        return pb.KillProcessResponse()

    def WaitProcess(self, request, context):
        while context.is_active():
            time.sleep(0.05)
        return pb.WaitProcessResponse()


@agent("early-copy", "says that it has a copy without fetching it", FAILS)
class EarlyCopy(Liar):
    def Copy(self, request, context):
        self.calls.append(("copy", request))
        yield pb.CopyResponse(status=pb.CopyResponse.COMPLETE)


@agent("slow-copy", "fetches the beginning of a copy and no more, and does not answer", WAITS)
class SlowCopy(Liar):
    def Copy(self, request, context):
        self.calls.append(("copy", request))
        with self.side.dial(request.vsock_port) as stream:
            stream.recv(100)
            while context.is_active():
                time.sleep(0.05)
        yield pb.CopyResponse(status=pb.CopyResponse.COMPLETE)


class Kept(socket.socket):
    """A second descriptor of a stream, which cannot end it."""

    def shutdown(self, how):
        pass


@agent("keeps-streams", "tells the end of a process and never closes its streams", "waits some seconds for them, no more")
class KeepsStreams(Liar):
    def dial_streams(self, request, terminal):
        self.kept = super().dial_streams(request, terminal)
        return {name: Kept(fileno=os.dup(stream.fileno())) for name, stream in self.kept.items()}

    def WaitProcess(self, request, context):
        super().WaitProcess(request, context)
        return pb.WaitProcessResponse(exitCode=5)


@player("cut", "is honest and ends each connection after as many bytes of answers as its argument says", ENDS)
def cut(address, argument):
    limit = int(argument or 0)

    def filter_answers():
        left = limit

        # At once and not when more comes: all that there will be may have come together.
        def seen(data):
            nonlocal left
            if len(data) >= left:
                return Last(data[:left])
            left -= len(data)
            return data
        return seen
    return AppleGuest(address, filter_answers=filter_answers)


# ---- playing ----

@contextlib.contextmanager
def play(name, address):
    """Plays until the block is left. `name` may have an argument: "cut:100"."""
    base, _, argument = name.partition(":")
    guest = PLAYERS[base][2](address, argument)
    try:
        guest.start()
        yield guest
    finally:
        guest.close()


def all_variants():
    """Every player with the arguments that are worth a try: what a host's test goes through.

    Not those that lie about Copy only: a host that copies nothing finds them honest (conformance/vm/test_files.py).
    """
    for name in PLAYERS:
        if name in ("early-copy", "slow-copy"):
            continue
        if name in ("holds", "dies-in", "fails-in"):
            for call in ("CreateProcess", "StartProcess", "WaitProcess", "KillProcess", "DeleteProcess"):
                yield f"{name}:{call}"
        elif name == "cut":
            yield from (f"cut:{size}" for size in (0, 9, 20, 40, 80, 120, 200, 300, 500))
        elif name == "odd-codes":
            yield from (f"odd-codes:{code}" for code in (-1, 256, 2**31 - 1, -2**31))
        elif name == "odd-pids":
            yield from (f"odd-pids:{pid}" for pid in (0, 1, -1, 2**31 - 1))
        else:
            yield name


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--list", action="store_true", help="print the players and end")
    parser.add_argument("--ready-fd", type=int, help="gets a newline once the port is open")
    parser.add_argument("address", nargs="?")
    parser.add_argument("player", nargs="?")
    options = parser.parse_args()
    if options.list:
        for name, (does, must, _) in PLAYERS.items():
            print(f"{name:24}{does}\n{'':24}host: {must}")
        return
    if not options.player or options.player.partition(":")[0] not in PLAYERS:
        parser.error("an address and a player are needed; --list names the players")
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM, signal.SIGINT})
    with play(options.player, options.address):
        if options.ready_fd is not None:
            os.write(options.ready_fd, b"\n")
            os.close(options.ready_fd)
        signal.sigwait({signal.SIGTERM, signal.SIGINT})
    sys.stdout.flush()
    shutil.rmtree(agent_stubs.STUBS, ignore_errors=True)
    os._exit(0)  # threads of grpc may hold a call that nobody ends


if __name__ == "__main__":
    main()
