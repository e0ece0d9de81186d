"""Docker's own network: containers that talk to each other and to the host, whichever runtime each of them has."""

import os
import socket
import sys

import docker_engine
import harness

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "lib"))
import netns  # noqa: E402

GATEWAY = "{{range .NetworkSettings.Networks}}{{.Gateway}}{{end}}"
ADDRESS = "{{range .NetworkSettings.Networks}}{{.IPAddress}}{{end}}"
SERVE = ("sh", "-c", "mkdir /www; echo served > /www/index.html; httpd -p 80 -h /www; echo ready; exec sleep 600")


# Without names: the C library of a static busybox looks for what the image has not when it is to resolve one.
FETCH = "printf 'GET / HTTP/1.0\\r\\n\\r\\n' | nc -w 30 {} 80 | tail -n 1"


class Here:
    """The namespace of the test itself, as far as netns wants one."""

    @staticmethod
    def socket(*arguments):
        return socket.socket(*arguments)


class DockerNetwork(harness.EngineCase):
    @classmethod
    def setUpClass(cls):
        cls.start(docker_engine.Docker)

    def server(self, runtime):
        container = self.engine.begin(runtime, "--", *SERVE)
        self.engine.wait_for_log(container, b"ready")
        return container

    def test_containers_of_two_runtimes_reach_each_other(self):
        def scenario(runtime):
            other = next(one for one in (self.engine.reference, self.engine.subject) if one is not runtime)
            address = self.engine.inspect(self.server(runtime), ADDRESS)
            script = f"ping -c 1 -w 20 {address} >/dev/null && {FETCH.format(address)}"
            return self.check(self.engine.run(other, "--rm", "--", "sh", "-c", script), out="served\n").out
        self.compare(scenario)

    def test_names_of_a_user_defined_network_are_those_of_its_containers(self):
        """By Docker's name server on 127.0.0.11, which it puts into each network namespace."""
        def scenario(runtime):
            network = f"net-{runtime.name}"
            self.check(self.engine("network", "create", network))
            self.addCleanup(self.engine, "network", "rm", network)
            server = self.engine.begin(self.engine.reference, "--network", network, "--name", f"web-{runtime.name}",
                                       "--network-alias", "shop", "--", *SERVE)
            self.addCleanup(self.engine, "rm", "--force", server)
            self.engine.wait_for_log(server, b"ready")
            script = ("grep nameserver /etc/resolv.conf; nslookup shop > /tmp/answer; "
                      f"nslookup web-{runtime.name} | grep -c 'Address.*172'; nslookup nobody.invalid >/dev/null || echo no such; "
                      "address=$(sed -n 's/^Address:* *1*:* *\\(172[0-9.]*\\)$/\\1/p' /tmp/answer | tail -n 1); " + FETCH.format("$address"))
            done = self.engine.run(runtime, "--rm", "--network", network, "--", "sh", "-c", script)
            return self.check(done, out="nameserver 127.0.0.11\n1\nno such\nserved\n").out
        self.compare(scenario)

    def test_dns_and_hosts_of_docker_are_the_containers(self):
        def scenario(runtime):
            server = self.server(self.engine.reference)
            dns = netns.DnsServer(Here, self.engine.inspect(server, ADDRESS))
            self.addCleanup(dns.close)
            # The answer is the other container's address, whatever it is.
            script = ("grep pinned /etc/hosts; nslookup some.name.test > /tmp/answer; "
                      "address=$(sed -n 's/^Address:* *1*:* *\\(172[0-9.]*\\)$/\\1/p' /tmp/answer | tail -n 1); " + FETCH.format("$address"))
            done = self.engine.run(runtime, "--rm", "--dns", self.engine.inspect(server, GATEWAY), "--add-host", "pinned:192.0.2.7",
                                   "--", "sh", "-c", script)
            dns.close()
            self.assertIn("some.name.test", dns.asked, done)
            return self.check(done, out="192.0.2.7\tpinned\nserved\n").out
        self.compare(scenario)
