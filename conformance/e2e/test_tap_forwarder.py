"""arca-tap-forwarder on this host: its calls, its command line, and everything that a host can do wrong with them.

The client shares no code with the program.
"""

import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "lib"))
import tap_client  # noqa: E402
from arca_test import environment, main, until, wait_process  # noqa: E402
from leaks import read_text  # noqa: E402
from tap_case import CONTROL, PROGRAM, SECONDS, Flood, Forwarder, TapCase, ethernet, is_ours  # noqa: E402
from netns import in_namespace  # noqa: E402
from tap_client import GUEST_LAYOUT, HOST_LAYOUT, Client  # noqa: E402


class Calls(TapCase):
    def test_a_host_of_the_first_version_attaches_lists_and_detaches(self):
        forwarder = self.forwarder()
        client = forwarder.new_client(HOST_LAYOUT)
        answer = client.attach(device="eth0", vsock_port=6001, ip_address="192.0.2.2", gateway="192.0.2.1")
        self.assertEqual((answer["success"], answer["error"]), (1, ""))
        mac = self.ip("link", "show", "dev", "eth0")[0]["address"]
        self.assertEqual(answer["mac_address"], mac)
        self.assertTrue(int(mac[:2], 16) & 2, "locally administered")
        self.assertEqual(self.addresses("eth0"), {"192.0.2.2/24"})
        listed = client.networks()["eth0"]
        self.assertEqual({key: listed[key] for key in ("ip_address", "gateway", "vsock_port", "mac_address")},
                         {"ip_address": "192.0.2.2", "gateway": "192.0.2.1", "vsock_port": 6001, "mac_address": mac})
        status = client.status()
        self.assertEqual((status["version"], status["active_networks"]), ("0.1.0", 1))
        self.assertEqual(client.detach("eth0")["success"], 1)
        self.assertEqual((client.networks(), self.devices()), ({}, set()))
        self.assertEqual(client.status()["active_networks"], 0)

    def test_a_host_of_the_second_version_chooses_the_mac_address(self):
        forwarder = self.forwarder()
        client = forwarder.new_client(GUEST_LAYOUT)
        answer = client.attach(device="eth1", vsock_port=6001, ip_address="192.0.2.2", netmask=28,
                               mac_address="02:00:5E:00:53:AF")
        self.assertEqual(answer, {"success": 1, "error": "", "mac_address": "02:00:5e:00:53:af"})
        self.assertEqual(self.ip("link", "show", "dev", "eth1")[0]["address"], "02:00:5e:00:53:af")
        self.assertEqual(self.addresses("eth1"), {"192.0.2.2/28"})

    def test_static_mode_makes_no_default_route_and_names_the_gateway_for_eth0_only(self):
        forwarder = self.forwarder()
        with open(forwarder.resolv_conf, "w", encoding="ascii") as file:
            file.write("nameserver 198.51.100.1\nsearch example.org\n")
        self.attached(forwarder, device="eth1", vsock_port=6001, ip_address="192.0.2.2", gateway="192.0.2.1")
        self.attached(forwarder, device="eth2", vsock_port=6002, ip_address="192.0.2.130")
        self.assertIn("198.51.100.1", read_text(forwarder.resolv_conf))
        self.attached(forwarder, device="eth0", vsock_port=6003, ip_address="203.0.113.2", gateway="203.0.113.1")
        self.assertEqual(read_text(forwarder.resolv_conf), "nameserver 203.0.113.1\n")
        self.assertEqual(self.ip("route", "show", "default"), [])
        self.assertTrue(all("UP" in self.ip("link", "show", "dev", f"eth{n}")[0]["flags"] for n in range(3)))

    def test_a_resolv_conf_that_cannot_be_written_is_a_warning(self):
        forwarder = self.forwarder("--resolv-conf", "/proc/nowhere/resolv.conf")
        self.attached(forwarder, device="eth0", vsock_port=6001, ip_address="192.0.2.2", gateway="192.0.2.1")
        forwarder.logs("write /proc/nowhere/resolv.conf")

    def test_everything_configured_is_set_at_once_and_resolv_conf_left_alone(self):
        forwarder = self.forwarder()
        answer = self.attached(
            forwarder, device="eth0", vsock_port=6001, configured=1, mtu=9000, mac_address="02:00:00:00:00:01",
            ip_address="203.0.113.99", gateway="203.0.113.1", netmask=8,
            addresses=["192.0.2.2/24", "198.51.100.2/32", "2001:db8::2/64"],
            routes=[{"destination": "192.0.2.200/32", "scope": 253}, {"destination": "0.0.0.0/0", "gateway": "192.0.2.1"},
                    {"destination": "::/0", "gateway": "2001:db8::1", "metric": 77},
                    {"destination": "203.0.113.0/24", "gateway": "198.51.100.1", "onlink": 1, "source": "198.51.100.2"}],
            neighbours=[{"address": "192.0.2.1", "mac_address": "02:00:00:00:00:ff"},
                        {"address": "2001:db8::1", "mac_address": "02:00:00:00:00:ff"}])
        self.assertEqual((answer["configured"], answer["vnet_header"], answer["mac_address"]), (1, 0, "02:00:00:00:00:01"))
        self.assertEqual(self.ip("link", "show", "dev", "eth0")[0]["mtu"], 9000)
        self.assertEqual(self.addresses("eth0"), {"192.0.2.2/24", "198.51.100.2/32", "2001:db8::2/64"})
        routes = {one["dst"]: one for one in self.ip("route", "show", "dev", "eth0")}
        self.assertEqual(routes["default"]["gateway"], "192.0.2.1")
        self.assertEqual(routes["192.0.2.200"].get("scope"), "link")
        self.assertEqual(routes["203.0.113.0/24"]["prefsrc"], "198.51.100.2")
        self.assertIn("onlink", routes["203.0.113.0/24"]["flags"])
        default6 = self.ip("-6", "route", "show", "default")[0]
        self.assertEqual((default6["gateway"], default6["metric"]), ("2001:db8::1", 77))
        known = {one["dst"]: one["lladdr"] for one in self.ip("neigh", "show", "dev", "eth0", "nud", "permanent")}
        self.assertEqual((known["192.0.2.1"], known["2001:db8::1"]), ("02:00:00:00:00:ff",) * 2)
        listed = forwarder.client.networks()["eth0"]
        self.assertEqual((listed["ip_address"], listed["gateway"]), ("192.0.2.2", "192.0.2.1"))
        self.assertFalse(os.path.exists(forwarder.resolv_conf))

    def test_an_attach_that_fails_says_why_and_leaves_nothing(self):
        forwarder = self.forwarder()
        fine = {"device": "eth0", "vsock_port": 6001, "ip_address": "192.0.2.2"}
        set_up = {"device": "eth0", "vsock_port": 6001, "configured": 1}
        for fields, says in (
                ({**fine, "device": ""}, "malformed interface name"),
                ({**fine, "device": "a/b"}, "malformed interface name"),
                ({**fine, "device": "0123456789abcdef"}, "malformed interface name"),
                ({**fine, "device": "eth%d"}, "malformed interface name"),
                ({**fine, "vsock_port": 0}, "port 0"), ({**fine, "vsock_port": 0xffffffff}, "port 4294967295"),
                ({**fine, "vsock_port": CONTROL}, "port 5555"),
                ({**fine, "ip_address": "192.0.2.256"}, "malformed IPv4 address \"192.0.2.256\""),
                ({**fine, "ip_address": "2001:db8::2"}, "malformed IPv4 address"),
                ({**fine, "ip_address": "192.0.2.2\nx"}, "malformed IPv4 address"),
                ({**fine, "netmask": 33}, "netmask 33"), ({**fine, "gateway": "nobody"}, "malformed IP address \"nobody\""),
                ({**fine, "mac_address": "02:00"}, "malformed MAC address"),
                ({**fine, "mac_address": "01:00:5e:00:00:01"}, "not that of an interface"),
                ({**set_up, "addresses": ["192.0.2.2/24", "192.0.2.3"]}, "192.0.2.3"),
                ({**set_up, "mtu": 10}, "mtu"), ({**set_up, "mtu": 1 << 31}, "mtu"),
                ({**set_up, "addresses": ["192.0.2.2/24"],
                  "routes": [{"destination": "0.0.0.0/0", "gateway": "198.51.100.1"}]}, "0.0.0.0/0"),
                ({**set_up, "routes": [{"destination": "everywhere"}]}, "everywhere"),
                ({**set_up, "neighbours": [{"address": "192.0.2.1", "mac_address": "02"}]}, "MAC")):
            with self.subTest(fields=fields):
                answer = forwarder.client.attach(**fields)
                self.refused(answer, says)
                self.assertEqual(answer["configured"], 0)
                self.assertEqual((self.devices(), os.listdir(forwarder.folder)), (set(), [str(CONTROL)]))
        self.assertEqual(forwarder.client.networks(), {})
        self.attached(forwarder, **fine)

    def test_a_device_that_exists_is_refused_and_left_as_it_is(self):
        forwarder = self.forwarder()
        self.attached(forwarder, device="eth0", vsock_port=6001, ip_address="192.0.2.2")
        self.run_in(self.guest, "ip", "link", "add", "other", "type", "veth", "peer", "name", "peer")
        in_namespace(self.guest, lambda: self.addCleanup(os.close, tap_client.open_tap("tap9")))
        for device in ("eth0", "other", "tap9", "lo"):
            self.refused(forwarder.client.attach(device=device, vsock_port=6002, ip_address="198.51.100.2"), device)
        self.assertEqual(self.addresses("eth0"), {"192.0.2.2/24"})
        self.assertEqual((self.addresses("other"), self.addresses("tap9")), (set(), set()))
        self.assertFalse(os.path.exists(os.path.join(forwarder.folder, "6002")))
        frames = forwarder.connect(6001)  # it still works
        packets = self.packets("eth0")
        packets.send(ethernet(b"still here"))
        self.assertEqual(frames.receive(is_ours), ethernet(b"still here"))

    def test_a_port_that_is_taken_is_refused_and_no_device_stays(self):
        forwarder = self.forwarder()
        self.attached(forwarder, device="eth0", vsock_port=6001, ip_address="192.0.2.2")
        frames = forwarder.connect(6001)
        forwarder.logs("eth0: the host is connected")
        with socket.socket(socket.AF_UNIX) as other:
            other.bind(os.path.join(forwarder.folder, "6007"))
            other.listen()
            for port in (6001, 6007):
                self.refused(forwarder.client.attach(device="eth1", vsock_port=port, ip_address="198.51.100.2"),
                             f"{port}: address already in use")
                self.assertEqual(self.devices(), {"eth0"})
        os.unlink(os.path.join(forwarder.folder, "6007"))
        frames = forwarder.connect(6001)  # the first one's connection may have been taken over; the network is there
        self.packets("eth0").send(ethernet(b"here"))
        self.assertEqual(frames.receive(is_ours), ethernet(b"here"))

    def test_a_network_card_that_cannot_be_had_is_refused(self):
        forwarder = self.forwarder()
        card = "02:00:00:00:00:99"
        for fields, says in ((dict(card=card, configured=1), f"interface with MAC address {card}: there is no such interface"),
                             (dict(card="02:00", configured=1), "malformed MAC address"),
                             (dict(card=card), "eth0: DHCP for a network card")):
            self.refused(forwarder.client.attach(device="eth0", vsock_port=6001, **fields), says)
        self.assertEqual(self.devices(), set())
        self.assertEqual(os.listdir(forwarder.folder), [str(CONTROL)])

    def test_detach_of_what_is_not_attached_is_refused(self):
        forwarder = self.forwarder()
        self.run_in(self.guest, "ip", "link", "add", "other", "type", "veth", "peer", "name", "peer")
        for device in ("eth0", "other", "lo", "", "a\nb"):
            self.refused(forwarder.client.detach(device), "is not attached")
        self.assertEqual(self.devices(), {"other", "peer"})

    def test_many_networks_come_and_go_and_nothing_is_left_of_them(self):
        forwarder = self.forwarder()
        opened = len(os.listdir(f"/proc/{forwarder.process.pid}/fd"))
        for _ in range(3):
            for number in range(8):
                self.attached(forwarder, device=f"eth{number}", vsock_port=6000 + number, configured=1)
                forwarder.connect(6000 + number)
            self.assertEqual(len(self.devices()), 8)
            self.assertEqual(forwarder.client.status()["active_networks"], 8)
            for number in range(8):
                self.assertEqual(forwarder.client.detach(f"eth{number}")["success"], 1)
        self.assertEqual((self.devices(), os.listdir(forwarder.folder)), (set(), [str(CONTROL)]))
        until(lambda: len(os.listdir(f"/proc/{forwarder.process.pid}/fd")) <= opened + 1, "the descriptors are closed")

    def test_calls_that_come_together_are_all_answered(self):
        forwarder = self.forwarder()
        answers = []

        def one(number):
            client = forwarder.new_client()
            answers.append(client.attach(device=f"eth{number % 4}", vsock_port=6000 + number, configured=1))
        threads = [threading.Thread(target=one, args=(number,)) for number in range(12)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(SECONDS)
        self.assertEqual(len(answers), 12)
        self.assertEqual(sum(answer["success"] for answer in answers), 4)
        self.assertEqual(self.devices(), {f"eth{n}" for n in range(4)})


class Program(TapCase):
    def answers(self, *words, code=0):
        result = self.call([PROGRAM, *words])
        self.assertEqual(result.code, code, result)
        return result

    def test_version_and_help_go_to_stdout(self):
        for word in ("--version", "-v"):
            self.assertEqual(self.answers(word).out, "0.1.0\n")
        for word in ("--help", "-h"):
            self.assertIn("--listen ADDRESS", self.answers(word).out)

    def test_vminitd_is_the_same_program_by_that_name(self):
        other = os.path.join(self.dir, "arca-tap-forwarder")
        os.symlink(os.path.join(os.path.dirname(PROGRAM), "vminitd"), other)
        for words in (["--version"], ["--help"], ["--nonsense"]):
            ours, theirs = self.call([PROGRAM, *words]), self.call([other, *words])
            self.assertEqual((ours.code, ours.raw, ours.raw_err), (theirs.code, theirs.raw, theirs.raw_err))
        # Of the DHCP client's script, which is found as /proc/PID/exe, the name is lost.
        lease = {"ip": "192.0.2.7", "subnet": "255.255.255.0", "router": "192.0.2.1"}
        for program in (PROGRAM, os.path.realpath(other)):
            result = self.call([program, "dhcp-script", "/proc/1/fd/7", "bound"], env=environment(**lease))
            self.assertEqual((result.code, result.out), (0, "arca-dhcp lease 192.0.2.7/24 192.0.2.1 -\n"))

    def test_what_is_not_understood_is_an_error(self):
        for words, says in ((["--nonsense"], "--nonsense: not known"), (["word"], "word: not known"),
                            (["--listen"], "needs a value"), (["--listen", "tcp://1"], "tcp://1"),
                            (["--listen", "hvsock:///x"], "hvsock:///x"), (["--ready-fd", "77"], "77"), (["--"], "no program"),
                            (["--resolv-conf", "relative"], "absolute path")):
            result = self.answers(*words, code=2)
            self.assertIn(says, result.err)
            self.assertEqual(result.out, "")

    def test_an_address_that_cannot_be_listened_on_is_an_error(self):
        result = self.answers("--listen", f"unix://{self.dir}/none/none", code=1)
        self.assertIn("no such file or directory", result.err)
        forwarder = self.forwarder()
        result = self.answers("--listen", f"unix://{forwarder.folder}", code=1)
        self.assertIn("address already in use", result.err)
        self.assertEqual(forwarder.client.status()["active_networks"], 0)

    def test_the_ready_descriptor_comes_from_the_environment_too(self):
        ready, inside = os.pipe()
        folder = self.new_folder()
        with open(ready, "rb") as file:
            process = self.spawn([*self.enter(self.guest), PROGRAM, "--listen", f"unix://{folder}"], pass_fds=[inside],
                                 env=environment(ARCA_READY_FD=str(inside)), stderr=subprocess.DEVNULL)
            os.close(inside)
            self.assertEqual(file.read(), b"\n")
        self.assertEqual(os.listdir(folder), [str(CONTROL)])
        process.send_signal(signal.SIGINT)
        self.assertEqual(wait_process(process), 0)
        self.assertEqual(os.listdir(folder), [])

    def test_the_folder_is_made_and_taken_away(self):
        forwarder = self.forwarder(folder=os.path.join(self.dir, "made"))
        self.assertEqual(os.stat(forwarder.folder).st_mode & 0o777, 0o700)
        forwarder.stop()
        self.assertFalse(os.path.exists(forwarder.folder))

    def test_a_signal_ends_all_networks_under_load(self):
        for number in (signal.SIGTERM, signal.SIGINT):
            forwarder = Forwarder(self, self.guest)
            for n in range(3):
                self.attached(forwarder, device=f"eth{n}", vsock_port=6000 + n, configured=1)
            floods = [Flood(self, forwarder, n) for n in range(3)]
            begin = time.monotonic()
            forwarder.process.send_signal(number)
            self.assertEqual(wait_process(forwarder.process, SECONDS), 0, forwarder.log())
            self.assertLess(time.monotonic() - begin, 5)
            for flood in floods:
                flood.stop()
            forwarder.close()
            self.assertEqual((self.devices(), os.listdir(forwarder.folder)), (set(), []))

    def test_a_killed_one_leaves_nothing_that_the_next_one_minds(self):
        forwarder = Forwarder(self, self.guest)
        self.attached(forwarder, device="eth0", vsock_port=6001, ip_address="192.0.2.2")
        forwarder.process.kill()
        wait_process(forwarder.process)
        forwarder.close()
        until(lambda: not self.devices(), "the device is gone")
        again = self.forwarder(folder=forwarder.folder)
        self.attached(again, device="eth0", vsock_port=6001, ip_address="192.0.2.2")

    def test_a_program_is_executed_beside_it_and_its_end_is_the_end(self):
        go, go_inside = os.pipe()
        output, output_inside = os.pipe()
        os.set_inheritable(go, True)
        folder = self.new_folder()
        process = self.spawn([*self.enter(self.guest), PROGRAM, "--listen", f"unix://{folder}", "--", "sh", "-c",
                              "ls -A $0; echo $$; read line; exit 7", folder], stdin=go, stdout=output_inside,
                             stderr=subprocess.DEVNULL)
        os.close(output_inside)
        os.close(go)
        with open(output, encoding="ascii") as lines:
            self.assertEqual(lines.readline(), f"{CONTROL}\n")        # it listened before the program was executed
            self.assertEqual(lines.readline(), f"{process.pid}\n")    # which is the process that was started
            client = Client(os.path.join(folder, str(CONTROL)))
            self.assertEqual(client.attach(device="eth0", vsock_port=6001, ip_address="192.0.2.2")["success"], 1)
            client.close()
            os.write(go_inside, b"\n")
            self.assertEqual(lines.read(), "")
        self.assertEqual(wait_process(process), 7)
        os.close(go_inside)
        until(lambda: not self.devices() and not os.listdir(folder), "the forwarder has ended")

    def test_a_program_that_cannot_be_executed_is_an_error_that_leaves_nothing(self):
        folder = self.new_folder()
        listen = ["--listen", f"unix://{folder}"]
        self.assertIn("exec nothing-there", self.answers(*listen, "--", "nothing-there", code=127).err)
        self.assertIn("permission denied", self.answers(*listen, "--", self.dir, code=126).err)
        self.assertEqual(os.listdir(folder), [])
        self.assertIn("not run", self.answers("--listen", "unix:///proc/none", "--", "true", code=1).err)


class NameServer(TapCase):
    """UpdateDNSMappings, with a name server of the test."""

    MAPPINGS = {"networks": [
        {"key": "front", "value": {"containers": [
            {"name": "web", "id": "c1", "ip_address": "192.0.2.5", "aliases": ["www", "w"]},
            {"name": "db", "id": "c2", "ip_address": "192.0.2.6", "aliases": []}]}},
        {"key": "back", "value": {"containers": []}}]}

    def setUp(self):
        super().setUp()
        self.path = os.path.join(self.dir, "dns.sock")
        self.fw = self.forwarder("--dns-socket", self.path)

    def serve(self, answer):
        """Answers one update; the thread's `request` is what came."""
        listener = socket.socket(socket.AF_UNIX)
        listener.bind(self.path)
        listener.listen()
        self.addCleanup(os.unlink, self.path)

        def run():
            with listener:
                peer, _ = listener.accept()
                with peer:
                    thread.request = json.loads(peer.makefile("rb").readline())
                    if answer is not None:
                        peer.sendall(answer)
                    else:
                        thread.go_on.wait(SECONDS)
        thread = threading.Thread(target=run, daemon=True)
        thread.go_on = threading.Event()
        thread.start()
        return thread

    def test_the_whole_of_the_mappings_is_sent_and_counted(self):
        thread = self.serve(b'{"success": true, "records": 2}\n')
        answer = self.fw.client.call("UpdateDNSMappings", self.MAPPINGS)
        self.assertEqual(answer, {"success": 1, "error": "", "records_updated": 2})
        thread.join(SECONDS)
        self.assertEqual(thread.request, {"networks": {
            "front": self.MAPPINGS["networks"][0]["value"], "back": {"containers": []}}})

    def test_a_refusal_is_passed_on(self):
        self.serve(b'{"success": false, "error": "no zone"}')
        self.refused(self.fw.client.call("UpdateDNSMappings", self.MAPPINGS), "no zone")

    def test_nobody_who_listens_is_an_error_and_so_is_no_object(self):
        self.refused(self.fw.client.call("UpdateDNSMappings", self.MAPPINGS), f"{self.path}: connect to {self.path}")
        self.serve(b"ok\n")
        self.refused(self.fw.client.call("UpdateDNSMappings", self.MAPPINGS), "no JSON object")

    def test_one_that_does_not_answer_holds_up_no_other_call(self):
        server = self.serve(None)
        answers = []
        client = self.fw.new_client()
        waiting = threading.Thread(target=lambda: answers.append(client.call("UpdateDNSMappings", self.MAPPINGS)))
        waiting.start()
        self.attached(self.fw, device="eth0", vsock_port=6001, ip_address="192.0.2.2")
        self.assertEqual(answers, [])
        waiting.join(SECONDS)
        self.refused(answers[0], "no answer in time")
        server.go_on.set()


if __name__ == "__main__":
    main()
