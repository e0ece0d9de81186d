"""A host of arca-tap-forwarder that shares no code with it: the calls, their messages and the frames, by hand.

    client = Client("/run/x/5555")
    client.attach(device="eth0", vsock_port=6001, ip_address="192.0.2.2")   # a dict of the answer's fields
    frames = Frames(stream); frames.send(b"..."); frames.receive()

Messages are dicts; MESSAGES has their fields by number. `layout` chooses which of the numbers there are: that of the host's
version of the interface, of the guest's, or with this project's own fields.
"""

import contextlib
import fcntl
import os
import select
import socket
import struct
import threading

import grpc

SERVICE = "/arca.tapforwarder.v1.TAPForwarder/"
STATS = {1: ("packets_sent", int), 2: ("packets_received", int), 3: ("bytes_sent", int), 4: ("bytes_received", int),
         5: ("send_errors", int), 6: ("receive_errors", int)}
ROUTE = {1: ("destination", str), 2: ("gateway", str), 3: ("source", str), 4: ("scope", int), 5: ("metric", int),
         6: ("protocol", int), 7: ("onlink", int)}
NEIGHBOUR = {1: ("address", str), 2: ("mac_address", str)}
PEER = {1: ("name", str), 2: ("id", str), 3: ("ip_address", str), 4: ("aliases", [str])}
MESSAGES = {
    "AttachNetworkRequest": {
        1: ("device", str), 2: ("vsock_port", int), 3: ("ip_address", str), 4: ("gateway", str), 5: ("netmask", int),
        6: ("mac_address", str), 101: ("configured", int), 102: ("mtu", int), 103: ("addresses", [str]),
        104: ("routes", [ROUTE]), 105: ("neighbours", [NEIGHBOUR]), 106: ("vnet_header", int), 107: ("card", str)},
    "AttachNetworkResponse": {1: ("success", int), 2: ("error", str), 3: ("mac_address", str), 101: ("configured", int),
                              102: ("vnet_header", int), 103: ("card", int)},
    "DetachNetworkRequest": {1: ("device", str)},
    "DetachNetworkResponse": {1: ("success", int), 2: ("error", str)},
    "ListNetworksRequest": {},
    "ListNetworksResponse": {1: ("networks", [{
        1: ("device", str), 2: ("ip_address", str), 3: ("gateway", str), 4: ("vsock_port", int), 5: ("mac_address", str),
        6: ("stats", STATS)}])},
    "GetStatusRequest": {},
    "GetStatusResponse": {1: ("version", str), 2: ("active_networks", int), 3: ("uptime_seconds", int),
                          4: ("total_stats", STATS)},
    # A map is a list of entries with key and value.
    "UpdateDNSMappingsRequest": {1: ("networks", [{1: ("key", str), 2: ("value", {1: ("containers", [PEER])})}])},
    "ServeNamesRequest": {1: ("address", str), 2: ("vsock_port", int)},
    "ServeNamesResponse": {1: ("success", int), 2: ("error", str)},
    "UpdateDNSMappingsResponse": {1: ("success", int), 2: ("error", str), 3: ("records_updated", int)},
}
HOST_LAYOUT = {"AttachNetworkRequest": range(1, 6), "AttachNetworkResponse": range(1, 4)}
GUEST_LAYOUT = {"AttachNetworkRequest": range(1, 7), "AttachNetworkResponse": range(1, 4)}

LONGEST = 65536
SECONDS = 30


# ---- protocol buffers ----

def varint(value):
    out = b""
    while value >= 0x80:
        out += bytes([value & 0x7f | 0x80])
        value >>= 7
    return out + bytes([value])


def encode(fields, message):
    """The bytes of a message; what has its default is left out, as everywhere in proto3."""
    names = {name: (number, kind) for number, (name, kind) in fields.items()}
    out = b""
    for name, value in message.items():
        number, kind = names[name]
        for one in value if isinstance(kind, list) else [value]:
            item = kind[0] if isinstance(kind, list) else kind
            if item is int:
                out += varint(number << 3) + varint(one) if one else b""
                continue
            data = one.encode() if item is str else encode(item, one)
            if data or isinstance(kind, list) or item is not str:
                out += varint(number << 3 | 2) + varint(len(data)) + data
    return out


def read_varint(data, at):
    value = shift = 0
    while True:
        byte = data[at]
        at += 1
        value |= (byte & 0x7f) << shift
        shift += 7
        if byte < 0x80:
            return value, at


def decode(fields, data):
    """A message as a dict with every known field; an unknown one is an error."""
    out = {name: [] if isinstance(kind, list) else {} if isinstance(kind, dict) else kind() for name, kind in fields.values()}
    at = 0
    while at < len(data):
        tag, at = read_varint(data, at)
        name, kind = fields[tag >> 3]
        item = kind[0] if isinstance(kind, list) else kind
        value, at = read_varint(data, at)
        if item is int:
            assert tag & 7 == 0, f"{name}: wire type {tag & 7}"
        else:
            assert tag & 7 == 2, f"{name}: wire type {tag & 7}"
            piece, at = data[at:at + value], at + value
            value = piece.decode() if item is str else decode(item, piece)
        if isinstance(kind, list):
            out[name].append(value)
        else:
            out[name] = value
    return out


class Client:
    """A connection of its own to a forwarder's control port, by the path of a Unix socket."""

    def __init__(self, path, layout=None):
        self.layout = layout or {}
        self.channel = grpc.insecure_channel(f"unix:{path}", options=[("grpc.use_local_subchannel_pool", 1),
                                                                      ("grpc.enable_retries", 0)])

    def _fields(self, message):
        numbers = self.layout.get(message)
        return {number: field for number, field in MESSAGES[message].items() if numbers is None or number in numbers}

    def call(self, name, message=None, seconds=SECONDS):
        """The answer's fields; grpc.RpcError when there is none."""
        call = self.channel.unary_unary(SERVICE + name,
                                        request_serializer=lambda value: encode(self._fields(name + "Request"), value),
                                        response_deserializer=lambda data: decode(self._fields(name + "Response"), data))
        return call(message or {}, timeout=seconds, wait_for_ready=True)

    def attach(self, **fields):
        return self.call("AttachNetwork", fields)

    def detach(self, device):
        return self.call("DetachNetwork", {"device": device})

    def networks(self):
        """The attached ones by device."""
        return {one["device"]: one for one in self.call("ListNetworks")["networks"]}

    def status(self):
        return self.call("GetStatus")

    def close(self):
        self.channel.close()


# ---- frames ----

def framed(frame):
    return struct.pack(">I", len(frame)) + frame


class Frames:
    """The host's end of a data plane."""

    def __init__(self, stream):
        self.stream, self.buffer = stream, b""
        stream.settimeout(SECONDS)

    def send(self, *frames):
        self.stream.sendall(b"".join(map(framed, frames)))

    def next(self):
        """The next frame of whatever kind; None at the end of the stream."""
        while True:
            if len(self.buffer) >= 4:
                length = struct.unpack(">I", self.buffer[:4])[0]
                assert 0 < length <= LONGEST + 64, f"a frame of {length} bytes"
                if len(self.buffer) >= 4 + length:
                    frame, self.buffer = self.buffer[4:4 + length], self.buffer[4 + length:]
                    return frame
            piece = self.stream.recv(1 << 18)
            if not piece:
                assert not self.buffer, f"the stream ends within a frame: {self.buffer[:40]!r}"
                return None
            self.buffer += piece

    def receive(self, wanted):
        """The next frame for which `wanted` is true: a kernel sends some of its own accord."""
        while (frame := self.next()) is not None:
            if wanted(frame):
                return frame
        raise AssertionError("the stream ended")

    def ended(self):
        """Reads up to the end of the stream; False when that does not come."""
        try:
            while self.stream.recv(1 << 18):
                pass
        except ConnectionResetError:
            pass
        except TimeoutError:
            return False
        return True

    def close(self):
        with contextlib.suppress(OSError):
            self.stream.shutdown(socket.SHUT_RDWR)
        self.stream.close()


# ---- TAP devices ----

TUNSETIFF, TUNSETOFFLOAD = 0x400454CA, 0x400454D0
IFF_TAP, IFF_NO_PI, IFF_VNET_HDR = 0x0002, 0x1000, 0x4000
TUN_F_CSUM, TUN_F_TSO4, TUN_F_TSO6 = 1, 2, 4


def open_tap(name, vnet_header=False):
    """A TAP device in the calling thread's network namespace; its descriptor."""
    fd = os.open("/dev/net/tun", os.O_RDWR | os.O_CLOEXEC)
    flags = IFF_TAP | IFF_NO_PI | (IFF_VNET_HDR if vnet_header else 0)
    fcntl.ioctl(fd, TUNSETIFF, struct.pack("16sH22x", name.encode(), flags))
    if vnet_header:
        fcntl.ioctl(fd, TUNSETOFFLOAD, TUN_F_CSUM | TUN_F_TSO4 | TUN_F_TSO6)
    return fd


class Bridge:
    """Passes frames between a data plane and a TAP device, until close(); notes the longest of each direction."""

    def __init__(self, frames, tap):
        self.frames, self.tap = frames, tap
        self.longest_out = self.longest_in = 0
        self.stop, self.stopper = os.pipe()
        self.threads = [threading.Thread(target=target, daemon=True) for target in (self._to_tap, self._from_tap)]
        for thread in self.threads:
            thread.start()

    def _to_tap(self):
        with contextlib.suppress(OSError):
            self.frames.stream.settimeout(None)
            while (frame := self.frames.next()) is not None:
                self.longest_out = max(self.longest_out, len(frame))
                with contextlib.suppress(OSError):
                    os.write(self.tap, frame)

    def _from_tap(self):
        with contextlib.suppress(OSError):
            while self.stop not in select.select([self.tap, self.stop], [], [])[0]:
                frame = os.read(self.tap, LONGEST + 64)
                self.longest_in = max(self.longest_in, len(frame))
                self.frames.send(frame)

    def close(self):
        """May be called again."""
        if self.stopper is None:
            return
        os.close(self.stopper)
        self.stopper = None
        self.frames.close()
        for thread in self.threads:
            thread.join(SECONDS)
        os.close(self.stop)
        os.close(self.tap)
