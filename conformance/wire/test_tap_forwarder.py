#!/usr/bin/python3
"""arca-tap-forwarder in a real VM, over real vsock: as the service of our guest, and by each way to start it that its manual
has for guests without our hooks.

The host's end is by hand too: it asks for the guest's MAC address and pings it, so that frames pass both ways through the
guest's kernel.
"""

import pathlib
import socket
import struct
import sys

HERE = pathlib.Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent / "lib"))

from host_library import CAPABILITIES, SECONDS, pb
from tap_client import Client, Frames
from wire_case import Sandbox, WireCase, main, vm

from agent import Relay  # machine's folder is reachable since host_library

PROGRAM = "/sbin/arca-tap-forwarder"
CARD = "02:61:72:63:61:01"
CONTROL, DATA = 5555, 6001
NET_ADMIN = {kind: [*CAPABILITIES, "CAP_NET_ADMIN"] for kind in ("bounding", "effective", "permitted")}
HOST_MAC = b"\x02\x00\x00\x00\x00\x01"
HOST_IP, GUEST_IP = "192.0.2.1", "192.0.2.2"


def checksum(data):
    total = sum(struct.unpack(f">{len(data) // 2}H", data))
    while total >> 16:
        total = (total & 0xffff) + (total >> 16)
    return ~total & 0xffff


def ethernet(target, kind, payload):
    return target + HOST_MAC + struct.pack(">H", kind) + payload


def arp_request():
    return ethernet(b"\xff" * 6, 0x0806, struct.pack(">HHBBH", 1, 0x0800, 6, 4, 1) + HOST_MAC + socket.inet_aton(HOST_IP)
                    + bytes(6) + socket.inet_aton(GUEST_IP))


def echo_request(target, payload):
    """An ICMP echo request, one packet."""
    icmp = struct.pack(">BBHHH", 8, 0, 0, 7, 1) + payload
    icmp = icmp[:2] + struct.pack(">H", checksum(icmp)) + icmp[4:]
    header = struct.pack(">BBHHHBBH4s4s", 0x45, 0, 20 + len(icmp), 1, 0, 64, 1, 0, socket.inet_aton(HOST_IP),
                         socket.inet_aton(GUEST_IP))
    header = header[:10] + struct.pack(">H", checksum(header)) + header[12:]
    return ethernet(target, 0x0800, header + icmp)


class TapForwarder(WireCase):
    card_renamed = False

    def setUp(self):
        super().setUp()
        if not TapForwarder.card_renamed:  # networks of this file are eth0 where they can be
            TapForwarder.card_renamed = True
            box = self.box("ip", "link", "set", "eth0", "name", "card0", process={"capabilities": NET_ADMIN})
            box.create()
            box.start()
            self.assertEqual(box.wait(), 0)
        self.relays = []
        self.addCleanup(lambda: [relay.close() for relay in self.relays])

    def program_into(self, box):
        """Copies the static program into the container's root file system, which is mounted and not yet run."""
        box.mount_root()
        port = Sandbox.machine.new_port()
        with Sandbox.machine.listen(port) as listener:
            answers = self.context.Copy(pb.CopyRequest(direction=pb.CopyRequest.COPY_IN, path=box.root + PROGRAM, mode=0o755,
                                                       create_parents=True, vsock_port=port), timeout=SECONDS)
            stream, _ = listener.accept()
            with stream:
                stream.sendall((vm.BIN / "arca-tap-forwarder").read_bytes())
            self.assertEqual([answer.status for answer in answers], [pb.CopyResponse.COMPLETE])

    def write_file(self, path, text, mode=0o755):
        self.context.WriteFile(pb.WriteFileRequest(path=path, data=text.encode(), mode=mode,
                                                   flags=pb.WriteFileRequest.WriteFileFlags(create_if_missing=True)),
                               timeout=SECONDS)

    def client(self):
        """A client of the control port, once that is listened on."""
        def listened():
            try:
                Sandbox.machine.dial(CONTROL, 5).close()
                return True
            except OSError:
                return False
        vm.until(listened, "port 5555 is listened on")
        relay = Relay(lambda: Sandbox.machine.dial(CONTROL))
        self.relays.append(relay)
        client = Client(relay.path)
        self.addCleanup(client.close)
        return client

    def carries_frames(self, client):
        """Attaches a network and has the guest's kernel answer over it; then detaches it."""
        answer = client.attach(device="eth0", vsock_port=DATA, configured=1, addresses=[GUEST_IP + "/24"])
        self.assertEqual((answer["success"], answer["error"]), (1, ""))
        mac = bytes.fromhex(answer["mac_address"].replace(":", ""))
        for _ in range(2):  # the second time over a new connection
            frames = Frames(Sandbox.machine.dial(DATA))
            frames.send(arp_request())
            reply = frames.receive(lambda frame: frame[12:14] == b"\x08\x06" and frame[20:22] == b"\0\x02")
            self.assertEqual((reply[:6], reply[6:12], reply[28:32]), (HOST_MAC, mac, socket.inet_aton(GUEST_IP)))
            payload = bytes(range(256)) * 5
            frames.send(*[echo_request(mac, payload)] * 3)
            for _ in range(3):
                pong = frames.receive(lambda frame: frame[12:14] == b"\x08\x00" and frame[34:35] == b"\0")
                self.assertEqual(pong[42:], payload)
            frames.close()
        stats = client.networks()["eth0"]["stats"]
        self.assertGreaterEqual(stats["packets_received"], 8)
        self.assertEqual(stats["receive_errors"], 0)
        self.assertEqual(client.detach("eth0")["success"], 1)
        self.assertEqual(client.status()["active_networks"], 0)

    def nobody_listens(self):
        def refused():
            try:
                Sandbox.machine.dial(CONTROL, 5).close()
                return False
            except OSError:
                return True
        vm.until(refused, "nobody listens on port 5555 any more")

    # ---- the ways of the manual ----

    def test_a_wrapper_in_the_image(self):
        box = self.box("/entry.sh", "sh", "-c", "echo started; read line; exit 4", streams=("stdin", "stdout"),
                       process={"capabilities": NET_ADMIN})
        self.program_into(box)
        self.write_file(f"{box.root}/entry.sh", f'#!/bin/sh\nexec {PROGRAM} -- "$@"\n')
        box.create()
        box.start()
        box.stdout.until("started\n")
        self.carries_frames(self.client())
        box.stdin.sendall(b"\n")
        self.assertEqual(box.wait(), 4)
        self.nobody_listens()

    def test_arguments_put_before_the_programs_at_creation(self):
        box = self.box(PROGRAM, "--", "sh", "-c", "echo process $$; read line; exit 5", streams=("stdin", "stdout"),
                       process={"capabilities": NET_ADMIN})
        self.program_into(box)
        box.create()
        box.start()
        box.stdout.until("process 1\n")  # the program is the container's first process, as if nothing were before it
        self.carries_frames(self.client())
        box.stdin.sendall(b"\n")
        self.assertEqual(box.wait(), 5)
        self.nobody_listens()

    def test_an_exec_after_the_start(self):
        box = self.box("sleep", "1000")
        self.program_into(box)
        box.create()
        box.start()
        extra = box.exec("forwarder", [PROGRAM], capabilities=NET_ADMIN)
        extra.create(extra.spec)
        extra.start()
        self.carries_frames(self.client())
        extra.kill(15)
        self.assertEqual(extra.wait(), 0)
        self.nobody_listens()

    def test_proxies_to_its_sockets_in_the_root_file_system(self):
        box = self.box(PROGRAM, "--listen", "unix:///run/tap", "--", "sleep", "1000", process={"capabilities": NET_ADMIN})
        self.program_into(box)
        for port in (CONTROL, DATA):
            self.context.ProxyVsock(pb.ProxyVsockRequest(
                id=f"{box.id}-{port}", vsock_port=port, guestPath=f"{box.root}/run/tap/{port}",
                action=pb.ProxyVsockRequest.OUT_OF), timeout=SECONDS)
        box.create()
        box.start()
        self.carries_frames(self.client())
        for port in (CONTROL, DATA):
            self.context.StopVsockProxy(pb.StopVsockProxyRequest(id=f"{box.id}-{port}"), timeout=SECONDS)
        self.nobody_listens()

    def test_a_helper_container_with_the_guests_own_program(self):
        """vminitd by its other name; the helper has nothing but the guest's /sbin."""
        def helper_root(box):
            context = box.context
            for folder in ("dev", "proc", "sbin", "sys"):
                context.Mkdir(pb.MkdirRequest(path=f"{box.root}/{folder}", all=True, perms=0o755), timeout=SECONDS)
            context.Mount(pb.MountRequest(type="none", source="/sbin", destination=f"{box.root}/sbin", options=["bind"]),
                          timeout=SECONDS)
        box = self.box(PROGRAM, rootfs=helper_root, process={"capabilities": NET_ADMIN})
        box.to_unmount = [f"{box.root}/sbin"]
        box.create()
        box.start()
        self.carries_frames(self.client())
        box.kill(15)
        self.assertEqual(box.wait(), 0)
        self.nobody_listens()

    # ---- in our guest ----

    def test_the_guest_starts_it_for_a_container_that_asks_for_its_network(self):
        namespaces = [{"type": kind, "path": ""} for kind in ("cgroup", "ipc", "mount", "network", "pid", "uts")]
        box = self.box("sh", "-c", "read line; ip -o addr show eth0; exec sleep 1000", streams=("stdin", "stdout"),
                       linux__namespaces=namespaces, annotations={"io.arca.network": "forwarded"})
        box.create()
        client = self.client()  # before the program runs
        answer = client.attach(device="eth0", vsock_port=DATA, ip_address=GUEST_IP, netmask=28)
        self.assertEqual((answer["success"], answer["error"]), (1, ""))
        box.start()
        box.stdin.sendall(b"\n")
        self.assertIn(f"{GUEST_IP}/28".encode(), box.stdout.until("/28"))
        self.assertEqual(client.detach("eth0")["success"], 1)
        self.carries_frames(client)
        other = self.running("sh", "-c", "exit 3", linux__namespaces=namespaces)  # which does not ask, and gets none
        self.assertEqual(other.wait(), 3)
        box.kill(9)
        self.assertEqual(box.wait(), 137)
        self.assertEqual(box.stop(everything=False), [])
        self.nobody_listens()

    def test_a_card_of_the_machine_becomes_a_device_and_comes_back(self):
        def cards():
            box = self.box("ip", "-o", "link", streams=("stdout",))
            box.create()
            box.start()
            self.assertEqual(box.wait(), 0)
            return [line for line in box.stdout.all().decode().splitlines() if CARD in line]
        namespaces = [{"type": kind, "path": ""} for kind in ("cgroup", "ipc", "mount", "network", "pid", "uts")]
        box = self.box("sh", "-c", "while read name; do ip -o addr show $name; ip link show $name; done", streams=("stdin", "stdout"),
                       linux__namespaces=namespaces, annotations={"io.arca.network": "forwarded"})
        box.create()
        box.start()
        client = self.client()
        for name in ("eth0", "other"):  # the second time as another one
            self.assertEqual(len(cards()), 1)
            answer = client.attach(device=name, vsock_port=DATA, configured=1, addresses=[GUEST_IP + "/28"], card=CARD,
                                   mac_address="02:00:00:00:00:42", mtu=1400, vnet_header=1)
            self.assertEqual({key: answer.get(key) for key in ("success", "error", "card", "vnet_header", "mac_address")},
                             {"success": 1, "error": "", "card": 1, "vnet_header": 0, "mac_address": "02:00:00:00:00:42"})
            self.assertEqual(cards(), [])
            box.stdin.sendall(name.encode() + b"\n")
            self.assertIn(f"{GUEST_IP}/28".encode(), box.stdout.until("/28"))
            self.assertIn(b"mtu 1400", box.stdout.until("mtu 1400"))
            box.stdout.until("02:00:00:00:00:42")
            self.assertEqual(client.networks()[name]["vsock_port"], 0)
            again = client.attach(device="third", vsock_port=DATA, configured=1, card=CARD)
            self.assertEqual((again["success"], again["error"]),
                             (0, f"interface with MAC address {CARD}: there is no such interface"))
            self.assertEqual(client.detach(name)["success"], 1)
        self.assertRegex(cards()[0], "card0.* mtu 1500 ")

    # ---- the guest's vsock ----

    def test_a_port_of_the_agent_is_taken_and_the_network_is_the_containers_own(self):
        namespaces = [{"type": kind, "path": ""} for kind in ("cgroup", "ipc", "mount", "network", "pid", "uts")]
        box = self.box(PROGRAM, "--", "sh", "-c", "while read word; do ip -o $word show eth0; done",
                       streams=("stdin", "stdout"), process={"capabilities": NET_ADMIN},
                       linux__namespaces=namespaces)
        self.program_into(box)
        box.create()
        box.start()
        client = self.client()
        answer = client.attach(device="eth0", vsock_port=1024, configured=1)
        self.assertEqual((answer["success"], answer["error"]), (0, "listen on vsock port 1024: address already in use"))
        self.assertEqual(client.attach(device="eth0", vsock_port=DATA, ip_address=GUEST_IP)["success"], 1)
        box.stdin.sendall(b"addr\n")
        self.assertIn(f"{GUEST_IP}/24".encode(), box.stdout.until("/24"))
        other = self.box("ip", "link", "show", "eth0")  # in the VM's own namespace there is none
        other.create()
        other.start()
        self.assertNotEqual(other.wait(), 0)

    def test_a_second_one_in_the_same_vm_says_that_the_port_is_taken(self):
        box = self.box(PROGRAM, "--", "sleep", "1000", process={"capabilities": NET_ADMIN})
        self.program_into(box)
        box.create()
        box.start()
        client = self.client()
        second = box.exec("second", [PROGRAM], streams=("stderr",), capabilities=NET_ADMIN)
        second.create(second.spec)
        second.start()
        self.assertEqual(second.wait(), 1)
        self.assertIn(b"vsock port 5555: address already in use", second.stderr.all())
        self.assertEqual(client.status()["active_networks"], 0)


def boot():
    Sandbox.boot(qemu_arguments=["-netdev", "user,id=card,restrict=on", "-device",
                                 f"virtio-net-pci,netdev=card,romfile=,mac={CARD}"])


if __name__ == "__main__":
    main(boot)
