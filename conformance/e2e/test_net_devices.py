"""linux.netDevices: interfaces of the runtime's network namespace that become the container's."""

import os
import subprocess
import sys

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "lib"))
from arca_test import Case, local_only, main, ours_only  # noqa: E402
from netns import Namespace  # noqa: E402


@ours_only("runc 1.1.5 and crun 1.8.1 do not know it")
@local_only("a guest has no interface of the host's, and says so")
class NetDevices(Case):
    """Each test has a network namespace of its own as the runtime's, with one end of a veth pair in it."""

    def setUp(self):
        super().setUp()
        # Entered by each command of the test, so that nothing of the host's network is touched.
        self.path = self.namespace()
        self.enter = ["nsenter", f"--net={self.path}", "--"]
        self.net("ip", "link", "add", "veth-a", "type", "veth", "peer", "name", "veth-b")

    def namespace(self):
        """Path of a network namespace, whose loopback is up, that goes with the test."""
        made = Namespace()
        self.addCleanup(made.close)
        return made.path

    def net(self, *words):
        """Runs a command in the runtime's network namespace."""
        result = self.call([*self.enter, *words])
        self.assertEqual(result.code, 0, result)
        return result.out

    def has(self, name):
        return self.call([*self.enter, "ip", "link", "show", name]).code == 0

    def bundle_with(self, devices, *args, **changes):
        return self.bundle(*(args or ("sleep", "600")), linux={"netDevices": devices, **changes})

    def create_with(self, devices, **changes):
        c = self.new_id()
        self.ids.append(c)
        result = self.call([*self.enter, *self.command("create", "--bundle", self.bundle_with(devices, **changes).path,
                                                      c)])
        self.assertEqual(result.code, 0, result)
        return c

    def refused(self, devices, says, **changes):
        c = self.new_id()
        result = self.call([*self.enter, *self.command("create", "--bundle", self.bundle_with(devices, **changes).path,
                                                      c)])
        self.assertEqual(result.code, 1, result)
        self.assertIn(says, result.err)
        self.assert_gone(c)

    def inside(self, c, *words):
        """What iproute2 sees in the container's network namespace."""
        result = self.call(["nsenter", f"--net=/proc/{self.state(c)['pid']}/ns/net", "--", "ip", *words])
        self.assertEqual(result.code, 0, result)
        return result.out

    def test_it_is_moved_with_its_name_address_mac_and_mtu_and_set_up(self):
        self.net("ip", "link", "set", "veth-a", "address", "02:00:00:00:12:34", "mtu", "1400")
        for address in ("192.0.2.7/24", "198.51.100.1/32", "2001:db8::7/64"):
            self.net("ip", "addr", "add", address, "dev", "veth-a")
        c = self.create_with({"veth-a": {}})
        self.assertFalse(self.has("veth-a"))
        self.assertTrue(self.has("veth-b"))
        link = self.inside(c, "-o", "link", "show", "veth-a")
        self.assertIn("mtu 1400", link)
        self.assertIn("02:00:00:00:12:34", link)
        self.assertIn("UP", link[link.index("<"):link.index(">")].split(","))
        addresses = self.inside(c, "-o", "addr", "show", "veth-a")
        for address in ("192.0.2.7/24", "198.51.100.1/32", "2001:db8::7/64"):
            self.assertIn(f" {address} ", addresses)

    def test_the_program_can_use_it_at_once(self):
        self.net("ip", "addr", "add", "192.0.2.1/24", "dev", "veth-b")
        self.net("ip", "link", "set", "veth-b", "up")
        self.net("ip", "addr", "add", "192.0.2.2/24", "dev", "veth-a")
        bundle = self.bundle_with({"veth-a": {"name": "eth0"}}, "ifconfig", "eth0")
        result = self.call([*self.enter, *self.command("run", "--bundle", bundle.path, self.new_id())])
        self.assertEqual(result.code, 0, result)
        self.assertIn("inet addr:192.0.2.2", result.out)
        self.assertIn("UP", result.out)

    def test_a_new_name_is_taken(self):
        c = self.create_with({"veth-a": {"name": "eth0"}})
        self.assertIn("eth0", self.inside(c, "-o", "link", "show", "eth0"))
        self.assertEqual(len(self.inside(c, "-o", "link").splitlines()), 2)

    def test_several_at_once(self):
        self.net("ip", "link", "add", "veth-c", "type", "veth", "peer", "name", "veth-d")
        c = self.create_with({"veth-a": {"name": "eth0"}, "veth-c": {"name": "eth1"}, "veth-d": {}})
        for name in ("eth0", "eth1", "veth-d"):
            self.assertIn("UP", self.inside(c, "-o", "link", "show", name))

    def test_a_template_gets_the_next_free_number(self):
        self.net("ip", "link", "add", "veth-c", "type", "veth", "peer", "name", "veth-d")
        self.net("ip", "addr", "add", "192.0.2.7/24", "dev", "veth-a")
        c = self.create_with({"veth-a": {"name": "net%d"}, "veth-c": {"name": "net%d"}})
        self.assertIn("192.0.2.7/24", self.inside(c, "-o", "addr", "show", "net0"))
        self.assertIn("UP", self.inside(c, "-o", "link", "show", "net1"))

    def test_addresses_of_the_link_alone_are_not_carried_over(self):
        self.net("ip", "link", "set", "veth-a", "up")
        self.net("ip", "addr", "add", "169.254.1.1/16", "scope", "link", "dev", "veth-a")
        c = self.create_with({"veth-a": {}})
        self.assertNotIn("169.254.1.1", self.inside(c, "addr"))

    def test_into_a_namespace_given_by_path(self):
        path = self.namespace()
        namespaces = [{"type": "mount"}, {"type": "pid"}, {"type": "uts"}, {"type": "ipc"},
                      {"type": "network", "path": path}]
        c = self.create_with({"veth-a": {"name": "eth0"}}, namespaces=namespaces)
        self.ok("delete", "--force", c)
        # It is not taken back.
        self.assertEqual(self.call(["nsenter", f"--net={path}", "--", "ip", "link", "show", "eth0"]).code, 0)
        # A name that is taken there is an error, and the interface stays where it is.
        self.net("ip", "link", "add", "veth-c", "type", "veth", "peer", "name", "veth-d")
        self.refused({"veth-c": {"name": "eth0"}}, "has an interface eth0 already", namespaces=namespaces)
        self.assertTrue(self.has("veth-c"))

    def test_in_a_user_namespace(self):
        mapping = [{"containerID": 0, "hostID": 100000, "size": 65536}]
        self.net("ip", "addr", "add", "192.0.2.7/24", "dev", "veth-a")
        kinds = ("mount", "pid", "uts", "ipc", "network", "user")
        bundle = self.bundle_with({"veth-a": {"name": "eth0"}}, namespaces=[{"type": kind} for kind in kinds],
                                  uidMappings=mapping, gidMappings=mapping)
        subprocess.run(["chown", "-Rh", "100000:100000", bundle.rootfs], check=True)
        c = self.new_id()
        self.ids.append(c)
        result = self.call([*self.enter, *self.command("create", "--bundle", bundle.path, c)])
        self.assertEqual(result.code, 0, result)
        self.assertIn("192.0.2.7/24", self.inside(c, "-o", "addr", "show", "eth0"))

    def test_hooks_of_create_see_it(self):
        seen = os.path.join(self.dir, "seen")
        script = ("p=$(sed 's/.*\"pid\":\\([0-9]*\\).*/\\1/'); "
                  f"nsenter --net=/proc/$p/ns/net ip -o link show eth0 > {seen}")
        bundle = self.bundle_with({"veth-a": {"name": "eth0"}})
        bundle.config["hooks"] = {"createRuntime": [{"path": "/bin/sh", "args": ["sh", "-c", script]}]}
        bundle.write()
        c = self.new_id()
        self.ids.append(c)
        result = self.call([*self.enter, *self.command("create", "--bundle", bundle.path, c)])
        self.assertEqual(result.code, 0, result)
        with open(seen, encoding="ascii") as file:
            self.assertIn("eth0", file.read())

    def test_wrong_ones_are_refused_and_nothing_moves(self):
        for devices, says in (({"no-such": {}}, "network device no-such"), ({"a/b": {}}, "interface name"),
                              ({"veth-a": {"name": "a b"}}, "interface name"),
                              ({"veth-a": {"name": "sixteen-letters-"}}, "interface name"),
                              ({"veth-a": {"name": "lo"}}, "has an interface lo already")):
            with self.subTest(devices=devices):
                self.refused(devices, says)
                self.assertTrue(self.has("veth-a"))

    def test_one_that_may_not_move_is_an_error(self):
        self.refused({"lo": {"name": "other"}}, "move network device lo")

    def test_without_a_network_namespace_it_is_refused(self):
        namespaces = [{"type": kind} for kind in ("mount", "pid", "uts", "ipc")]
        self.refused({"veth-a": {}}, "network namespace", namespaces=namespaces)
        own = [*namespaces, {"type": "network", "path": self.path}]
        self.refused({"veth-a": {}}, "the runtime's own", namespaces=own)
        self.assertTrue(self.has("veth-a"))


if __name__ == "__main__":
    main()
