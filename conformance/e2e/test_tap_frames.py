"""arca-tap-forwarder on this host: frames, and the traffic of two kernels over them.

The host's end shares no code with the program.
"""

import contextlib
import fcntl
import os
import signal
import socket
import struct
import sys
import termios
import threading
import time

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "lib"))
import tap_client  # noqa: E402
from arca_test import main, until, wait_process  # noqa: E402
from leaks import all_processes, read_text  # noqa: E402
from tap_case import SECONDS, VNET_HEADER, Flood, TapCase, ethernet, is_ours  # noqa: E402
from netns import in_namespace  # noqa: E402
from tap_client import LONGEST, Bridge, framed  # noqa: E402


class DataPlane(TapCase):
    def setUp(self):
        super().setUp()
        self.fw = self.forwarder()

    def network(self, number=0, **fields):
        """Attaches ethN, port 6000 + N, without an address; gives the host's frames and the guest's packets."""
        self.attached(self.fw, device=f"eth{number}", vsock_port=6000 + number, configured=1, **fields)
        return self.fw.connect(6000 + number), self.packets(f"eth{number}")

    def stats(self, number=0):
        return self.fw.client.networks()[f"eth{number}"]["stats"]

    def alive(self, number=0):
        """Frames pass both ways over a new connection."""
        frames, packets = self.fw.connect(6000 + number), self.packets(f"eth{number}")
        frames.send(ethernet(b"ping"))
        self.assertEqual(packets.recv(100), ethernet(b"ping"))
        packets.send(ethernet(b"pong"))
        self.assertEqual(frames.receive(is_ours), ethernet(b"pong"))
        return frames, packets

    def test_frames_pass_both_ways_unchanged_and_in_order(self):
        frames, packets = self.network()
        sent = [ethernet(os.urandom(length)) for length in (0, 1, 46, 100, 1000, 1500)]
        for frame in sent:
            packets.send(frame)
        self.assertEqual([frames.receive(is_ours) for _ in sent], sent)
        frames.send(*sent)
        self.assertEqual([packets.recv(2000) for _ in sent], sent)

    def test_a_stream_cut_anywhere_gives_the_same_frames(self):
        frames, packets = self.network()
        sent = [ethernet(b"x"), ethernet(b"second one"), ethernet(b"")]
        stream = b"".join(map(framed, sent))

        def send(part):
            """Sends it and waits until it has been read, so that what comes after is read by itself."""
            frames.stream.sendall(part)
            until(lambda: fcntl.ioctl(frames.stream, termios.TIOCOUTQ, bytes(4)) == bytes(4), "it has been read", SECONDS)
        for cut in range(len(stream) + 1):
            send(stream[:cut])
            send(stream[cut:])
            self.assertEqual([packets.recv(100) for _ in sent], sent, f"cut at {cut}")
        for byte in stream:
            send(bytes([byte]))
        self.assertEqual([packets.recv(100) for _ in sent], sent)

    def test_counters_count_frames_and_their_bytes(self):
        frames, packets = self.network()
        before = self.stats()
        for length in (100, 200, 300):
            packets.send(ethernet(bytes(length)))
            frames.receive(is_ours)
        frames.send(*[ethernet(bytes(50))] * 5)
        for _ in range(5):
            packets.recv(100)
        until(lambda: self.stats()["packets_received"] == 5, "five were received", SECONDS)
        after = self.stats()
        self.assertEqual(after["bytes_received"], 5 * 64)
        # Its own kernel may have sent something besides.
        self.assertGreaterEqual(after["packets_sent"] - before["packets_sent"], 3)
        self.assertGreaterEqual(after["bytes_sent"] - before["bytes_sent"], 600 + 3 * 14)
        self.assertEqual((after["send_errors"], after["receive_errors"]), (0, 0))
        total = self.fw.client.status()["total_stats"]
        self.assertEqual(total["packets_received"], 5)
        self.network(1)
        self.assertEqual(self.fw.client.detach("eth0")["success"], 1)
        self.assertEqual(self.fw.client.status()["total_stats"]["packets_received"], 5)

    def test_a_frame_that_the_kernel_refuses_is_counted_and_no_more(self):
        frames, packets = self.network()
        frames.send(b"short", ethernet(b"fine"), bytes(13))
        self.assertEqual(packets.recv(100), ethernet(b"fine"))
        until(lambda: self.stats()["receive_errors"] == 2, "two were refused", SECONDS)
        frames.send(ethernet(b"and on"))
        self.assertEqual(packets.recv(100), ethernet(b"and on"))
        self.run_in(self.guest, "ip", "link", "set", "eth0", "down")
        frames.send(ethernet(b"to nobody"))
        until(lambda: self.stats()["receive_errors"] == 3, "one more was refused", SECONDS)
        self.run_in(self.guest, "ip", "link", "set", "eth0", "up")
        self.alive()

    def test_a_bad_length_ends_the_connection_with_a_reason_and_not_the_network(self):
        self.network()
        other, other_packets = self.network(1)
        for length in (0, LONGEST + 1, 0x7fffffff, 0xffffffff):
            frames, packets = self.fw.connect(6000), self.packets("eth0")
            frames.stream.sendall(framed(ethernet(b"before")) + struct.pack(">I", length) + b"rest" * 100)
            self.assertEqual(packets.recv(100), ethernet(b"before"))
            self.assertTrue(frames.ended(), length)
            self.fw.logs(f"connection ended: frame of {length} bytes: not 1 to {LONGEST}")
            self.alive()
        self.assertEqual(self.stats()["receive_errors"], 4)
        other.send(ethernet(b"not me"))  # on the connection that it had all the time
        self.assertEqual(other_packets.recv(100), ethernet(b"not me"))

    def test_the_host_may_go_at_any_byte_and_come_again(self):
        frames, _ = self.network()
        stream = framed(ethernet(b"whole")) + framed(ethernet(b"part"))
        frames.close()
        for cut in range(len(stream)):
            frames = self.fw.connect(6000)
            frames.stream.sendall(stream[:cut])
            frames.close()
        self.alive()
        self.assertEqual(self.stats()["receive_errors"], 0)

    def test_a_second_connection_takes_over(self):
        first, packets = self.network()
        first.send(ethernet(b"one"))
        self.assertEqual(packets.recv(100), ethernet(b"one"))
        first.stream.sendall(framed(ethernet(b"never whole"))[:-1])
        self.alive()
        self.assertTrue(first.ended())
        self.fw.logs("a new connection takes over")

    def test_a_host_that_stops_reading_holds_up_nobody_else(self):
        frames, packets = self.network()
        other, other_packets = self.network(1)
        packets.setblocking(False)
        sent = 0
        # Much more than the stream and the device's queue can hold: the kernel drops the rest, or says so.
        for _ in range(8000):
            with contextlib.suppress(OSError):
                sent += packets.send(ethernet(struct.pack(">I", sent) + bytes(1400))) > 0
        packets.settimeout(SECONDS)
        self.assertLess(self.stats()["packets_sent"], 8000)
        other_packets.send(ethernet(b"the other"))
        self.assertEqual(other.receive(is_ours), ethernet(b"the other"))
        frames.send(ethernet(b"its own other way"))
        self.assertEqual(packets.recv(100), ethernet(b"its own other way"))
        self.assertEqual(self.fw.client.status()["active_networks"], 2)
        # It reads again: frames are whole, in order, and new ones come.
        packets.send(ethernet(b"last"))
        number = -1
        while (frame := frames.receive(is_ours)) != ethernet(b"last"):
            self.assertEqual(len(frame), 1418)
            self.assertGreater(struct.unpack(">I", frame[14:18])[0], number)
            number = struct.unpack(">I", frame[14:18])[0]
            with contextlib.suppress(BlockingIOError, OSError):
                packets.send(ethernet(b"last"))
        self.assertGreater(number, 10)

    def test_a_detach_under_load_is_done_at_once_and_harms_nobody(self):
        for number in range(2):
            self.attached(self.fw, device=f"eth{number}", vsock_port=6000 + number, configured=1)
        floods = [Flood(self, self.fw, number) for number in range(2)]
        begin = time.monotonic()
        self.assertEqual(self.fw.client.detach("eth0")["success"], 1)
        self.assertLess(time.monotonic() - begin, 5)
        self.assertEqual(self.devices(), {"eth1"})
        floods[0].stop()
        received = floods[1].received
        until(lambda: floods[1].received > received + 100, "the other one goes on", SECONDS)
        floods[1].stop()
        self.attached(self.fw, device="eth0", vsock_port=6000, configured=1)
        self.alive()

    def test_a_detach_ends_a_stream_that_nobody_reads(self):
        frames, packets = self.network()
        packets.setblocking(False)
        for _ in range(4000):
            with contextlib.suppress(OSError):
                packets.send(ethernet(bytes(1400)))
        self.assertEqual(self.fw.client.detach("eth0")["success"], 1)
        self.assertEqual(self.devices(), set())
        self.assertTrue(frames.ended())

    def test_an_interface_that_the_guest_deletes_is_reported_and_can_be_detached(self):
        frames, _ = self.network()
        other, other_packets = self.network(1)
        self.run_in(self.guest, "ip", "link", "delete", "eth0")
        self.assertTrue(frames.ended())
        self.fw.logs("eth0: read from the device")
        other.send(ethernet(b"me not"))
        self.assertEqual(other_packets.recv(100), ethernet(b"me not"))
        self.assertEqual(self.fw.client.detach("eth0")["success"], 1)
        self.attached(self.fw, device="eth0", vsock_port=6000, configured=1)
        self.alive()

    def test_large_frames_pass_as_far_as_the_wire_allows(self):
        frames, packets = self.network(mtu=65521)
        packets.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1 << 20)
        largest = ethernet(os.urandom(65521))
        self.assertEqual(len(largest), LONGEST - 1)
        packets.send(largest)
        self.assertEqual(frames.receive(is_ours), largest)
        frames.send(largest)
        self.assertEqual(packets.recv(70000), largest)

    def test_offload_headers_stand_before_the_frames_when_asked_for(self):
        answer = self.fw.client.attach(device="eth0", vsock_port=6000, configured=1, vnet_header=1)
        self.assertEqual((answer["success"], answer["vnet_header"]), (1, 1))
        frames, packets = self.fw.connect(6000), self.packets("eth0")
        packets.send(ethernet(b"out"))
        got = frames.receive(lambda frame: is_ours(frame[10:]))
        self.assertEqual(got, VNET_HEADER + ethernet(b"out"))
        # gso_type 0x55: no kernel knows it. Then one that ends within its header.
        frames.send(b"\x00\x55" + bytes(8) + ethernet(b"bad"), b"abc", VNET_HEADER + ethernet(b"in"))
        self.assertEqual(packets.recv(100), ethernet(b"in"))
        until(lambda: self.stats()["receive_errors"] == 2, "two were refused", SECONDS)
        frames.stream.sendall(struct.pack(">I", LONGEST + 65))
        self.assertTrue(frames.ended())


class Traffic(TapCase):
    """The guest's kernel and another one's talk over the data plane: a TAP device in a namespace is the host."""

    def setUp(self):
        super().setUp()
        self.fw = self.forwarder()
        self.host = self.new_namespace()

    def bridge(self, port, vnet_header=False, mtu=1500):
        """The host's interface h0, with 192.0.2.1/24 and 2001:db8::1/64."""
        tap = in_namespace(self.host, lambda: tap_client.open_tap("h0", vnet_header))
        for words in (["link", "set", "h0", "mtu", str(mtu)], ["addr", "add", "192.0.2.1/24", "dev", "h0"],
                      ["addr", "add", "2001:db8::1/64", "dev", "h0", "nodad"], ["link", "set", "h0", "up"]):
            self.run_in(self.host, "ip", *words)
        bridge = Bridge(self.fw.connect(port), tap)
        self.addCleanup(bridge.close)
        return bridge

    def transfer(self, family, server, namespaces, size=3_000_000):
        """Sends bytes over TCP from one namespace to a server in the other; they must arrive as they were."""
        data = os.urandom(1000) * (size // 1000)
        listener = in_namespace(namespaces[1], lambda: socket.create_server((server, 0), family=family))
        sender = in_namespace(namespaces[0], lambda: socket.socket(family))
        got = bytearray()

        def receive():
            connection, _ = listener.accept()
            with connection:
                connection.settimeout(SECONDS)
                while piece := connection.recv(1 << 18):
                    got.extend(piece)
        with listener, sender:
            listener.settimeout(SECONDS)
            thread = threading.Thread(target=receive, daemon=True)
            thread.start()
            sender.settimeout(SECONDS)
            sender.connect((server, listener.getsockname()[1]))
            sender.sendall(data)
            sender.shutdown(socket.SHUT_WR)
            thread.join(SECONDS)
        self.assertEqual(len(got), len(data))
        self.assertTrue(got == data)

    def both_ways(self):
        for family, guest, host in ((socket.AF_INET, "192.0.2.2", "192.0.2.1"),
                                    (socket.AF_INET6, "2001:db8::2", "2001:db8::1")):
            self.transfer(family, host, (self.guest, self.host))
            self.transfer(family, guest, (self.host, self.guest))

    def attach(self, **fields):
        return self.attached(self.fw, device="eth0", vsock_port=6001, configured=1,
                             addresses=["192.0.2.2/24", "2001:db8::2/64"], **fields)

    def test_tcp_over_both_families(self):
        self.attach()
        bridge = self.bridge(6001)
        self.both_ways()
        self.assertLessEqual(bridge.longest_out, 1514)

    def test_tcp_with_offload_headers_goes_in_large_frames(self):
        self.attach(vnet_header=1)
        bridge = self.bridge(6001, vnet_header=True)
        self.both_ways()
        self.assertGreater(bridge.longest_out, 10_000)
        self.assertGreater(bridge.longest_in, 10_000)

    def test_a_larger_mtu_is_used(self):
        self.attach(mtu=9000)
        bridge = self.bridge(6001, mtu=9000)
        self.transfer(socket.AF_INET, "192.0.2.1", (self.guest, self.host))
        self.assertEqual(bridge.longest_out, 9014)

    def test_connections_live_on_when_the_host_reconnects(self):
        self.attach()
        first = self.bridge(6001)
        listener = in_namespace(self.host, lambda: socket.create_server(("192.0.2.1", 0)))
        sender = in_namespace(self.guest, lambda: socket.socket(socket.AF_INET))
        with listener, sender:
            listener.settimeout(SECONDS)
            sender.settimeout(SECONDS)
            sender.connect(listener.getsockname())
            peer, _ = listener.accept()
            with peer:
                peer.settimeout(SECONDS)
                sender.sendall(b"before")
                self.assertEqual(peer.recv(100), b"before")
                tap = os.dup(first.tap)
                first.close()
                self.fw.logs("connection ended")
                sender.sendall(b"meanwhile")
                second = Bridge(self.fw.connect(6001), tap)
                self.addCleanup(second.close)
                self.assertEqual(peer.recv(100), b"meanwhile")

    def dhcp_server(self, router="192.0.2.1"):
        configuration, leases = os.path.join(self.dir, "udhcpd.conf"), os.path.join(self.dir, "leases")
        open(leases, "wb").close()
        with open(configuration, "w", encoding="ascii") as file:
            file.write(f"start 192.0.2.50\nend 192.0.2.50\ninterface h0\nlease_file {leases}\npidfile {self.dir}/udhcpd.pid\n"
                       f"option subnet 255.255.255.128\noption router {router}\noption dns 192.0.2.53 192.0.2.54\n")
        log = open(os.path.join(self.dir, "udhcpd.log"), "wb")  # pylint: disable=consider-using-with
        self.addCleanup(log.close)
        return self.spawn([*self.enter(self.host), "busybox", "udhcpd", "-f", configuration], stdout=log, stderr=log)

    def test_dhcp_sets_address_route_and_nameservers_once_the_host_is_connected(self):
        self.attached(self.fw, device="eth0", vsock_port=6001)
        self.assertEqual(self.addresses("eth0"), set())
        self.bridge(6001)
        self.dhcp_server()
        until(lambda: self.fw.client.networks()["eth0"]["ip_address"] == "192.0.2.50",
              lambda: f"a lease:\n{self.fw.log()}", SECONDS)
        self.assertEqual(self.addresses("eth0"), {"192.0.2.50/25"})
        self.assertEqual([one["gateway"] for one in self.ip("route", "show", "default")], ["192.0.2.1"])
        self.assertEqual(self.fw.client.networks()["eth0"]["gateway"], "192.0.2.1")
        until(lambda: os.path.exists(self.fw.resolv_conf), "resolv.conf", SECONDS)
        until(lambda: read_text(self.fw.resolv_conf) == "nameserver 192.0.2.53\nnameserver 192.0.2.54\n", "nameservers")
        self.transfer(socket.AF_INET, "192.0.2.1", (self.guest, self.host), 100_000)
        self.assertEqual(self.fw.client.detach("eth0")["success"], 1)  # and the client is gone with it: see the leak check

    def test_a_lost_lease_takes_its_address_along_and_the_next_one_is_set(self):
        self.attached(self.fw, device="eth0", vsock_port=6001)
        self.bridge(6001)
        server = self.dhcp_server()
        until(lambda: self.addresses("eth0") == {"192.0.2.50/25"}, lambda: f"a lease:\n{self.fw.log()}", SECONDS)
        client = [pid for pid in all_processes() if "udhcpc" in read_text(f"/proc/{pid}/cmdline")]
        self.assertEqual(len(client), 1)
        os.kill(client[0], signal.SIGUSR2)  # give it back
        until(lambda: self.addresses("eth0") == set(), lambda: f"no address:\n{self.fw.log()}", SECONDS)
        self.assertEqual((self.ip("route", "show"), self.fw.client.networks()["eth0"]["ip_address"]), ([], ""))
        server.terminate()
        wait_process(server)
        self.dhcp_server(router="192.0.2.9")
        os.kill(client[0], signal.SIGUSR1)  # and get another
        until(lambda: [one["gateway"] for one in self.ip("route", "show", "default")] == ["192.0.2.9"],
              lambda: f"the new router:\n{self.fw.log()}", SECONDS)
        self.assertEqual(self.addresses("eth0"), {"192.0.2.50/25"})
        os.kill(client[0], signal.SIGKILL)
        self.fw.logs("the client has ended")

    def test_without_a_dhcp_client_the_link_stays_and_the_log_says_why(self):
        empty = self.new_folder()
        other = self.forwarder(env={"PATH": empty}.items(), folder=self.new_folder(), namespace=self.host)
        answer = self.attached(other, device="eth0", vsock_port=6001)
        frames = other.connect(6001)
        other.logs("there is no DHCP client (udhcpc, dhclient or busybox) in PATH; the link stays without an address")
        self.assertTrue(answer["mac_address"])
        packets = self.packets("eth0", self.host)
        packets.send(ethernet(b"works"))
        self.assertEqual(frames.receive(is_ours), ethernet(b"works"))


if __name__ == "__main__":
    main()
