"""A container in a VM on the network: what an engine plugs into the stand-in's network namespace, the container has."""

import hashlib
import json
import os
import re
import signal
import socket
import sys
import threading

os.environ["ARCA_SANDBOX"] = "vm"
sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "lib"))
from arca_test import Case, main, read_text, until  # noqa: E402
from netns import Bridge, DnsServer, OwnNameServer, Server  # noqa: E402

MIB = 1 << 20
GUEST, PEER = "10.88.0.2", "10.88.0.3"
GUEST6, PEER6 = "fd00:88::2", "fd00:88::3"
# Capabilities for ping, and to look around.
NET_CAPS = ["CAP_NET_RAW", "CAP_NET_ADMIN", "CAP_NET_BIND_SERVICE", "CAP_KILL"]


def receive_all(connection):
    while chunk := connection.recv(MIB):
        yield chunk


def serve_http(connection):
    """Answers one request with what it asked for."""
    text = b""
    while b"\r\n\r\n" not in text:
        chunk = connection.recv(4096)
        if not chunk:
            return
        text += chunk
    body = b"you asked for " + text.split()[1] + b"\n"
    connection.sendall(b"HTTP/1.0 200 OK\r\nContent-Length: %d\r\n\r\n" % len(body) + body)


class Network(Case):
    mtu = 1500
    network = "auto"  # of the configuration

    def setUp(self):
        super().setUp()
        self.settings = os.path.join(self.dir, "settings.json")
        with open(self.settings, "w", encoding="ascii") as file:
            json.dump({"vm": {"network": self.network}}, file)
        self.bridge = Bridge(self.mtu)
        self.addCleanup(self.bridge.close)
        self.peer = self.bridge.namespace()
        self.bridge.plug(self.peer.path, 3)

    def rt(self, *words, **options):
        return super().rt("--configuration", self.settings, *words, **options)

    def network_bundle(self, *args, path=None, **changes):
        """A bundle whose container has the network namespace at `path`, or a new one."""
        bundle = self.bundle(*(args or ("sleep", "600")), writable=True, **changes)
        for one in bundle.config["linux"]["namespaces"]:
            if one["type"] == "network" and path:
                one["path"] = path
        sets = bundle.config["process"]["capabilities"]
        for name in sets:
            sets[name] = sorted(set(sets[name]) | set(NET_CAPS))
        bundle.write()
        return bundle

    def plugged(self, *args, number=2, **changes):
        """A running container whose namespace was made and plugged before it, as CNI does."""
        ns = self.bridge.namespace()
        self.bridge.plug(ns.path, number)
        identity = self.create(self.network_bundle(*args, path=ns.path, **changes))
        self.ok("start", identity)
        return identity, ns

    def sh(self, identity, script, code=0):
        result = self.exec(identity, "sh", "-c", script)
        self.assertEqual(result.code, code, result)
        return result.out

    def serve(self, *args, **options):
        server = Server(*args, **options)
        self.addCleanup(server.close)
        return server

    def fetch(self, address, port, request=b"/", family=socket.AF_INET):
        """What an HTTP server answers to the peer."""
        client = self.peer.socket(family, socket.SOCK_STREAM)
        with client:
            client.settimeout(30)
            client.connect((address, port))
            client.sendall(b"GET " + request + b" HTTP/1.0\r\n\r\n")
            return b"".join(receive_all(client))


class Plugged(Network):
    """One container for many claims: booting takes longest."""

    def test_everything_that_the_namespace_had_the_container_has(self):
        c, ns = self.plugged()
        self._settings(c, ns)
        self._ping(c)
        self._http(c)
        self._dns(c)
        self._bulk(c)
        self._published_port(c)
        self._by_card(ns)
        self._gone(c, ns)

    def _settings(self, c, ns):
        """The same name, MAC address, MTU, addresses and routes."""
        def facts(ip):
            link = ip("link show dev eth0")
            addresses = set(re.findall(r"inet6? (\S+)", ip("addr show dev eth0"))) - {
                a for a in re.findall(r"inet6? (\S+)", ip("addr show dev eth0")) if a.startswith("fe80")}
            routes = {line.split(" dev")[0] for line in ip("route").splitlines() if "default" in line}
            routes6 = {line.split(" dev")[0] for line in ip("-6 route").splitlines() if "default" in line}
            return re.search(r"mtu (\d+)", link)[1], re.search(r"ether (\S+)", link)[1], addresses, routes, routes6
        host = facts(lambda words: ns.run("ip", *words.split()))
        guest = facts(lambda words: self.sh(c, "ip " + words))
        self.assertEqual(guest, host)
        self.assertEqual(host[2], {GUEST + "/24", GUEST6 + "/64"})

    def _ping(self, c):
        for address in ("10.88.0.1", PEER, "fd00:88::1", PEER6):
            self.sh(c, f"ping -c 2 -w 20 {address}")
        for address in (GUEST, GUEST6):
            self.peer.run("busybox", "ping", "-c", "2", "-w", "20", address)

    def _http(self, c):
        self.serve(self.peer, 8080, serve_http)
        self.serve(self.peer, 8081, serve_http, socket.AF_INET6)
        self.assertEqual(self.sh(c, f"wget -q -O - http://{PEER}:8080/four"), "you asked for /four\n")
        self.assertEqual(self.sh(c, f"wget -q -O - http://[{PEER6}]:8081/six"), "you asked for /six\n")
        self.sh(c, "mkdir -p /tmp/www && echo from the guest > /tmp/www/index.html && httpd -h /tmp/www -p 80")
        self.assertIn(b"from the guest\n", self.fetch(GUEST, 80))
        self.assertIn(b"from the guest\n", self.fetch(GUEST6, 80, family=socket.AF_INET6))

    def _dns(self, c):
        dns = DnsServer(self.bridge.ns, PEER)
        self.addCleanup(dns.close)
        out = self.sh(c, "echo nameserver 10.88.0.1 > /etc/resolv.conf; wget -q -O - http://peer.test:8080/named")
        self.assertEqual(out, "you asked for /named\n")
        self.assertIn("peer.test", dns.asked)

    def _bulk(self, c):
        """100 MiB each way, byte for byte."""
        data = os.urandom(MIB) * 100
        wanted = hashlib.sha256(data).hexdigest()
        self.serve(self.peer, 9000, lambda connection: connection.sendall(data))
        # nc's own copying goes 1 KiB at a time, which takes minutes under emulation: the program has the socket.
        out = self.sh(c, f"nc {PEER} 9000 -e sh -c 'sha256sum > /sum'; cat /sum")
        self.assertEqual(out.split()[0], wanted)
        got, done = hashlib.sha256(), threading.Event()

        def take(connection):
            for chunk in receive_all(connection):
                got.update(chunk)
            done.set()
        self.serve(self.peer, 9001, take)
        with open(os.path.join(self.state(c)["rootfs"], "data"), "wb") as file:
            file.write(data)
        self.sh(c, f"nc {PEER} 9001 -e cat /data")
        self.assertTrue(done.wait(30))
        self.assertEqual(got.hexdigest(), wanted)

    def _published_port(self, c):
        """As engines publish one: a rule of the host's that changes the destination."""
        rules = self.bridge.ns
        rules.run("sysctl", "-qw", "net.ipv4.ip_forward=1")
        outside = self.bridge.namespace()
        with open(outside.path, "rb") as target:
            rules.run("ip", "link", "add", "out0", "type", "veth", "peer", "name", "eth0", "netns",
                      f"/proc/self/fd/{target.fileno()}", pass_fds=[target.fileno()])
        rules.run("ip", "addr", "add", "192.0.2.1/24", "dev", "out0")
        rules.run("ip", "link", "set", "out0", "up")
        outside.run("ip", "addr", "add", "192.0.2.9/24", "dev", "eth0")
        outside.run("ip", "link", "set", "eth0", "up")
        rules.run("iptables", "-t", "nat", "-A", "PREROUTING", "-i", "out0", "-p", "tcp", "--dport", "8088", "-j", "DNAT",
                  "--to-destination", f"{GUEST}:80")
        with outside.socket(socket.AF_INET, socket.SOCK_STREAM) as client:
            client.settimeout(30)
            client.connect(("192.0.2.1", 8088))
            client.sendall(b"GET / HTTP/1.0\r\n\r\n")
            self.assertIn(b"from the guest\n", b"".join(receive_all(client)))

    def _by_card(self, ns):
        """The machine's own card does it, and this host's protocol stack has nothing to do with that."""
        self.assertNotIn("inet", ns.run("ip", "addr", "show", "dev", "arca-card"))
        self.assertIn("arca-guest", ns.run("tc", "filter", "show", "dev", "arca-card", "ingress"))

    def _gone(self, c, ns):
        """The engine's namespace is as it was: its own kernel answers again."""
        filters = ns.run("tc", "filter", "show", "dev", "eth0", "ingress")
        self.assertIn("arca-guest", filters)
        self.ok("delete", "--force", c)
        self.assertNotIn("arca-card", ns.run("ip", "link"))
        self.assertEqual(ns.run("tc", "filter", "show", "dev", "eth0", "ingress"), "")
        self.assertIn(GUEST, ns.run("ip", "addr", "show", "dev", "eth0"))
        self.peer.run("busybox", "ping", "-c", "1", "-w", "10", GUEST)


class ByForwarder(Plugged):
    network = "forwarder"

    def test_everything_that_the_namespace_had_the_container_has(self):
        c, ns = self.plugged()
        self._settings(c, ns)
        self._ping(c)
        self._http(c)
        self._bulk(c)
        self.assertNotIn("arca-card", ns.run("ip", "link"))
        self._gone(c, ns)


class Jumbo(Network):
    mtu = 9000

    def test_an_mtu_of_9000_holds_end_to_end(self):
        c, _ = self.plugged()
        self.assertEqual(self.sh(c, "cat /sys/class/net/eth0/mtu"), "9000\n")
        self.sh(c, f"ping -c 2 -w 20 -s 8900 {PEER}")
        self.peer.run("busybox", "ping", "-c", "2", "-w", "20", "-s", "8900", GUEST)
        out = self.peer.run("ip", "-s", "link", "show", "dev", "eth0")
        self.assertIn("mtu 9000", out)


class Timing(Network):
    def test_what_is_plugged_between_create_and_start_is_there_at_the_start(self):
        bundle = self.network_bundle("sh", "-c", f"ip addr show dev eth0 > /out; ping -c 1 -w 20 {PEER} && echo reached > /out2; "
                                     "sleep 600")
        c = self.create(bundle)
        self.bridge.plug(f"/proc/{self.state(c)['pid']}/ns/net", 2)
        self.ok("start", c)
        self.wait_text(bundle.file("out2"), "reached", 60)
        self.assertIn(GUEST, read_text(bundle.file("out")))

    def test_what_a_hook_plugs_is_there_with_run(self):
        plug = os.path.join(self.dir, "plug")
        peer = "hooked"
        with open(plug, "w", encoding="ascii") as file:
            file.write(f"""#!/bin/sh
pid=$(sed 's/.*"pid":\\([0-9]*\\).*/\\1/')
ns() {{ nsenter --net={self.bridge.ns.path} ip "$@"; }}
pod() {{ nsenter --net=/proc/$pid/ns/net ip "$@"; }}
ns link add {peer} type veth peer name eth0 netns "$pid" && ns link set {peer} master br0 up &&
    pod addr add {GUEST}/24 dev eth0 && pod link set eth0 up
""")
        os.chmod(plug, 0o755)
        bundle = self.network_bundle("sh", "-c", f"ping -c 1 -w 20 {PEER} >/dev/null && echo reached",
                                     hooks={"createRuntime": [{"path": plug}]})
        result = self.run_bundle(bundle)
        self.assertEqual((result.code, result.out), (0, "reached\n"), result)

    def test_interfaces_that_come_and_go_later_do_so_in_the_container(self):
        c, ns = self.plugged()
        self.assertEqual(self.sh(c, "ls /sys/class/net"), "eth0\nlo\n")
        self.bridge.plug(ns.path, 7, name="eth1", gateway=False)
        until(lambda: self.exec(c, "ip", "addr", "show", "dev", "eth1").out.count("10.88.0.7/24"), "eth1 in the container", 30)
        self.peer.run("busybox", "ping", "-c", "2", "-w", "20", "10.88.0.7")
        self.bridge.unplug(ns.path, "eth1")
        until(lambda: self.sh(c, "ls /sys/class/net") == "eth0\nlo\n", "eth1 gone", 30)
        self.sh(c, f"ping -c 1 -w 20 {PEER}")

    def test_the_card_of_an_interface_that_goes_is_the_next_ones(self):
        c, ns = self.plugged()
        first = self.sh(c, "cat /sys/class/net/eth0/address")
        self.bridge.unplug(ns.path, "eth0")
        until(lambda: self.sh(c, "ls /sys/class/net") == "lo\n", "eth0 gone", 30)
        self.assertNotIn("arca-card", ns.run("ip", "link"))
        self.bridge.plug(ns.path, 7, name="eth1")
        until(lambda: self.exec(c, "ip", "addr", "show", "dev", "eth1").out.count("10.88.0.7/24"), "eth1 in the container", 30)
        self.assertIn("arca-card", ns.run("ip", "link"))
        self.assertNotEqual(self.sh(c, "cat /sys/class/net/eth1/address"), first)
        self.sh(c, f"ping -c 2 -w 20 {PEER}")

    def test_without_an_interface_there_is_none_and_nothing_fails(self):
        ns = self.bridge.namespace()
        result = self.run_bundle(self.network_bundle("ls", "/sys/class/net", path=ns.path))
        self.assertEqual((result.code, result.out), (0, "lo\n"), result)


class Names(Network):
    def test_the_engines_own_name_server_answers_in_the_guest(self):
        """One on 127.0.0.11 of the stand-in's namespace, which itself has questions to others."""
        ns = self.bridge.namespace()
        self.bridge.plug(ns.path, 2)
        upstream = DnsServer(self.peer, "10.88.0.77")
        self.addCleanup(upstream.close)
        server = OwnNameServer(ns, PEER)
        self.addCleanup(server.close)
        c = self.create(self.network_bundle("sleep", "600", path=ns.path))
        self.ok("start", c)
        self.assertIn("10.88.0.77", self.sh(c, "echo nameserver 127.0.0.11 > /etc/resolv.conf; nslookup peer.test"))
        self.assertIn("peer.test", upstream.asked)
        out = self.sh(c, r"printf '\0\021\0\7\1\0\0\1\0\0\0\0\0\0\0\0\1\0\1' | nc -w 20 127.0.0.11 53 | wc -c")
        self.assertEqual(out, "2002\n")
        self.sh(c, f"ping -c 1 -w 20 {PEER}")
        server.close()
        self.sh(c, "nslookup -timeout=1 peer.test", code=1)


class Neighbours(Network):
    def test_a_container_here_and_one_in_a_vm_talk_to_each_other(self):
        c, _ = self.plugged()
        ns = self.bridge.namespace()
        self.bridge.plug(ns.path, 4)
        here = self.network_bundle(path=ns.path)
        local = self.new_id()
        self.ids.append(local)
        self.ok("--sandbox", "local", "create", "--bundle", here.path, local)
        self.ok("start", local)
        self.sh(local, f"ping -c 2 -w 20 {GUEST}")
        self.sh(c, "ping -c 2 -w 20 10.88.0.4")
        self.sh(local, "mkdir -p /tmp/www && echo from here > /tmp/www/index.html && httpd -h /tmp/www -p 80")
        self.assertEqual(self.sh(c, "wget -q -O - http://10.88.0.4/"), "from here\n")

    def test_containers_of_a_pod_share_its_network(self):
        ns = self.bridge.namespace()
        self.bridge.plug(ns.path, 2)
        kind, owner = "io.kubernetes.cri.container-type", "io.kubernetes.cri.sandbox-id"
        pod = self.create(self.network_bundle(path=ns.path, annotations={kind: "sandbox"}))
        self.ok("start", pod)
        for path in (ns.path, f"/proc/{self.state(pod)['pid']}/ns/net"):
            member = self.create(self.network_bundle(path=path, annotations={kind: "container", owner: pod}))
            self.ok("start", member)
            self.assertIn(GUEST, self.sh(member, "ip addr show dev eth0"))
            self.sh(member, f"ping -c 1 -w 20 {PEER}")
            self.assertEqual(self.sh(member, "readlink /proc/self/ns/net"), self.sh(pod, "readlink /proc/self/ns/net"))
            self.ok("delete", "--force", member)
        self.sh(pod, f"ping -c 1 -w 20 {PEER}")


class Failures(Network):
    def test_this_hosts_own_network_is_never_given_away(self):
        for path in ("/proc/self/ns/net", None):
            bundle = self.network_bundle("ls", "/sys/class/net")
            spaces = bundle.config["linux"]["namespaces"]
            if path:
                next(one for one in spaces if one["type"] == "network")["path"] = f"/proc/{os.getpid()}/ns/net"
            else:
                spaces[:] = [one for one in spaces if one["type"] != "network"]
            bundle.write()
            result = self.run_bundle(bundle)
            self.assertEqual((result.code, result.out), (0, "lo\n"), result)
            self.assertIn("no network", result.err)

    def test_something_else_than_a_network_namespace_is_refused(self):
        bundle = self.network_bundle("true", path="/proc/self/ns/uts")
        self.fails("run", "--bundle", bundle.path, self.new_id(), says="not a network namespace")

    def test_a_namespace_that_another_guest_has_is_not_taken_from_it(self):
        """As docker run --network container:NAME asks for."""
        c, ns = self.plugged()
        other = self.create(self.network_bundle(path=ns.path))
        self.fails("start", other, says="attach the network: its interfaces are those of a container in another guest")
        self.sh(c, f"ping -c 1 -w 20 {PEER}")
        self.ok("delete", "--force", other)
        self.sh(c, f"ping -c 1 -w 20 {PEER}")

    def test_killing_the_monitor_leaves_the_namespace_usable(self):
        c, ns = self.plugged()
        monitor = next(pid for pid in os.listdir("/proc") if pid.isdigit() and
                       read_text(f"/proc/{pid}/cmdline").startswith("arca-monitor") and c in read_text(f"/proc/{pid}/cmdline"))
        os.kill(int(monitor), signal.SIGKILL)
        self.wait_status(c, "stopped", 10)
        self.ok("delete", "--force", c)
        # What it left is replaced, and taken away, by the next one.
        again = self.create(self.network_bundle(path=ns.path))
        self.ok("start", again)
        self.sh(again, f"ping -c 1 -w 20 {PEER}")
        self.ok("delete", "--force", again)
        self.peer.run("busybox", "ping", "-c", "1", "-w", "10", GUEST)

    def test_the_configuration_can_switch_it_off(self):
        with open(self.settings, "w", encoding="ascii") as file:
            json.dump({"vm": {"network": "none"}}, file)
        ns = self.bridge.namespace()
        self.bridge.plug(ns.path, 2)
        bundle = self.network_bundle("ls", "/sys/class/net", path=ns.path)
        result = self.run_bundle(bundle)
        self.assertEqual((result.code, result.out), (0, "lo\n"), result)


if __name__ == "__main__":
    main()
