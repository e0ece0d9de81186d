"""AF_VSOCK of a kernel on both sides: the loopback device, and the kernel's device for guests.

Run by in_host_root.py in a VM, whose kernel has the modules vsock_loopback and vhost_vsock. `Nested` boots a VM inside
that VM, both emulated: minutes.
"""

import json
import os
import subprocess
import sys

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "lib"))
from arca_test import Case, all_processes, environment, main, read_text, until  # noqa: E402

BIN = os.environ["ARCA_BIN"]
LOOPBACK = "vsock://1"
LONG = 900  # seconds: emulation within emulation


class Vsock(Case):
    def configured(self, **settings):
        path = os.path.join(self.dir, "configuration.json")
        with open(path, "w", encoding="ascii") as file:
            json.dump(settings, file)
        return self.command("--configuration", path)


class Loopback(Vsock):
    def setUp(self):
        super().setUp()
        self.log = os.path.join(self.dir, "agent.log")
        with open(self.log, "wb") as log:
            self.agent = subprocess.Popen(
                [f"{BIN}/vminitd", "agent", "--transport", LOOPBACK, "--state-root", os.path.join(self.dir, "agent"),
                 "--vmexec", f"{BIN}/vmexec"], stdin=subprocess.DEVNULL, stderr=log)
        self.addCleanup(self.end_agent)
        until(lambda: "serving" in read_text(self.log), lambda: f"the agent serves: {read_text(self.log)}")
        self.connected = [*self.configured(connect={"paths": {"/": "/"}}), "--sandbox", f"connect={LOOPBACK}"]

    def end_agent(self):
        self.agent.terminate()
        self.agent.wait()

    def test_streams_and_exit_code_of_a_container(self):
        data = os.urandom(1 << 20)
        result = self.call([*self.connected, "run", "--bundle", self.bundle("sh", "-c", "cat; echo err >&2; exit 7").path,
                            self.new_id()], stdin=data)
        self.assertEqual((result.code, result.err), (7, "err\n"), result.err)
        self.assertTrue(result.raw == data, f"{len(result.raw)} bytes came back of {len(data)}")

    def test_an_exec_and_a_kill(self):
        c = self.new_id()
        self.ids.append(c)
        self.assertEqual(self.call([*self.connected, "run", "--detach", "--bundle", self.bundle("sleep", "600").path, c]).code, 0)
        result = self.exec(c, "sh", "-c", "echo in; exit 3")
        self.assertEqual((result.code, result.out), (3, "in\n"))
        self.ok("kill", c, "KILL")
        until(lambda: self.state(c)["status"] == "stopped", "it is stopped")
        self.ok("delete", c)


class Nested(Vsock):
    def test_a_machine_with_the_kernels_vsock_device(self):
        words = self.configured(vm={"vsock": "kernel", "accel": "tcg", "boot_seconds": LONG})
        script = "echo out; echo err >&2; read x; echo got $x; exit 5"
        process = subprocess.Popen([*words, "--sandbox", "vm", "run", "--bundle", self.bundle("sh", "-c", script).path,
                                    self.new_id()], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                                   env=environment(ARCA_GUEST_SECONDS=str(LONG)))
        self.addCleanup(process.kill)

        def machine():
            return [text for text in (read_text(f"/proc/{pid}/cmdline") for pid in all_processes() - self.before.processes)
                    if text.startswith("qemu-system")]
        until(machine, "the machine")
        self.assertIn("vhost-vsock-pci", machine()[0])
        try:
            out, err = process.communicate(b"in\n", LONG)
        except subprocess.TimeoutExpired:
            for folder, _, names in os.walk(self.root):
                for name in names:
                    if name.endswith(".log"):
                        print(f"--- {name}\n{read_text(os.path.join(folder, name))}", file=sys.stderr)
            raise
        self.assertEqual((process.returncode, out, err), (5, b"out\ngot in\n", b"err\n"))


if __name__ == "__main__":
    main()
