#!/usr/bin/python3
"""vminitd as the first process of a real VM: how it boots, what it gives to containers, how it ends."""

import pathlib
import re
import shutil
import signal
import tempfile
import unittest

import machine
from agent import Agent, ext, pb
from guest import Guest, apple_mounts, image_arguments, oci_mounts
from machine import BUSYBOX, SECONDS, Machine, guest_image, guest_kernel, until
from process_cases import FAILURE, ProcessCases

DIAL = """
#include <sys/socket.h>
#include <linux/vm_sockets.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>
int main(int argc, char** argv) {
    struct sockaddr_vm to = {.svm_family = AF_VSOCK};
    char byte;
    int fd = socket(AF_VSOCK, SOCK_STREAM, 0);
    if (argc != 3 || fd < 0) return 2;
    to.svm_cid = (unsigned)strtoul(argv[1], 0, 10);
    to.svm_port = (unsigned)strtoul(argv[2], 0, 10);
    if (connect(fd, (struct sockaddr*)&to, sizeof to) != 0) return puts("refused"), 0;
    return puts(read(fd, &byte, 1) == 1 ? "talks" : "hung up"), 0;
}
"""


class World:
    """What all VMs of these tests are made from."""

    @classmethod
    def prepare(cls):
        cls.folder = pathlib.Path(tempfile.mkdtemp(prefix="arca-boot-"))
        unittest.addModuleCleanup(shutil.rmtree, cls.folder)
        # With the loopback of vsock, which a guest need not have, containers could reach the agent.
        cls.kernel = guest_kernel.prepare(tuple(dict.fromkeys((*guest_kernel.CONTAINER, "vsock_loopback"))))
        dial = machine.static_program(cls.folder, "dial", DIAL)
        cls.arguments = [*image_arguments(), "--add", f"{dial}=/images/busybox/bin/dial"]
        cls.image = guest_image(cls.kernel, cls.folder, *cls.arguments)


def setUpModule():
    missing = machine.missing_programs() + [name for name in ("cc", "protoc") if shutil.which(name) is None]
    if missing:
        raise unittest.SkipTest("not found: " + ", ".join(missing))
    World.prepare()


class InOneVm(machine.ConsoleOnFailure, ProcessCases, unittest.TestCase):
    """Tests that share a VM; those of process_cases.py among them."""

    @classmethod
    def setUpClass(cls):
        cls.vm = cls.enterClassContext(Machine(World.kernel, World.image, append="-- --log-level debug"))
        cls.vm.wait_agent()
        cls.agent = cls.enterClassContext(Agent(cls.vm))
        cls.guest = Guest(cls.vm, cls.agent)

    def root_text(self, command):
        """Output of a shell command in the VM's own namespaces but that of mounts; process 1 is the agent."""
        done = self.guest.run(self.name, ["sh", "-c", command], namespaces=("mount",), mounts=apple_mounts())
        self.assertEqual((done.code, done.err), (0, b""))
        return done.out.decode()

    def test_mounts_are_there(self):
        mounts = {}
        table, filesystems = self.root_text("cat /proc/1/mountinfo; echo; cat /proc/filesystems").split("\n\n")
        for line in table.splitlines():
            left, right = line.split(" - ")
            mounts[left.split()[4]] = right.split()[0]
        wanted = {"/proc": "proc", "/dev": "devtmpfs", "/sys": "sysfs", "/run": "tmpfs", "/sys/fs/cgroup": "cgroup2"}
        if "binfmt_misc" in filesystems:
            wanted["/proc/sys/fs/binfmt_misc"] = "binfmt_misc"
        for point, kind in wanted.items():
            self.assertEqual(mounts.get(point), kind, point)
        for point in ("/tmp", "/dev/pts"):  # left to the host
            self.assertNotIn(point, mounts)

    def test_limits_and_protection(self):
        text = self.root_text("grep 'open files' /proc/1/limits; cat /proc/sys/fs/nr_open; cat /proc/1/oom_score_adj; "
                              "cat /proc/self/oom_score_adj")
        files, most, agent_score, own_score = text.splitlines()
        self.assertEqual(files.split()[3:5], [most, most])
        self.assertEqual((agent_score, own_score), ("-999", "0"))

    def test_agent_has_a_cgroup_of_its_own_and_containers_have_theirs(self):
        text = self.root_text("cat /proc/1/cgroup /proc/self/cgroup; cd /sys/fs/cgroup; "
                              "cat vminitd/memory.high vminitd/memory.low; cat cgroup.subtree_control")
        lines = text.splitlines()
        self.assertEqual(lines[:4], ["0::/vminitd", f"0::/container/{self.name}", "83886080", "52428800"])
        self.assertLessEqual({"cpu", "memory", "pids", "io", "cpuset"}, set(lines[4].split()))

    def test_every_module_is_loaded_by_the_time_a_container_runs(self):
        loaded = self.root_text("cut -d' ' -f1 /proc/modules").split()
        wanted = [re.sub(r"^\d+-|\.ko$", "", module.name) for module in World.kernel.modules]
        self.assertEqual(set(wanted) - set(loaded), set())
        self.assertNotIn("load module", self.vm.console_text())

    def test_log_lines_have_the_form_that_hosts_know(self):
        lines = [line for line in self.vm.console_text().splitlines() if " vminitd: " in line]
        self.assertGreater(len(lines), 1)
        stamp = r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z (info|debug|warning) vminitd: \S"
        for line in lines:
            self.assertRegex(line, stamp)

    def test_agent_is_small(self):
        resident = int(re.search(r"VmRSS:\s+(\d+)", self.root_text("cat /proc/1/status")).group(1))
        self.assertLess(resident, 12 << 10)

    def test_hooks_have_a_cgroup_of_their_own_and_no_protection(self):
        note = "/tmp/where"
        hooks = self.no_hooks()
        hooks["createRuntime"] = [self.hook(f"cd {self.guest.rootfs}/bin; ./busybox cat /proc/self/cgroup "
                                            f"/proc/self/oom_score_adj > {note}")]
        self.guest.run(self.name, ["true"], hooks=hooks)
        mounts = [*oci_mounts(), {"type": "none", "source": "/tmp", "destination": "/notes", "options": ["rbind"]}]
        done = self.guest.run(self.name, ["cat", "/notes/where"], mounts=mounts)
        self.assertEqual(done.out.split(), [b"0::/hooks", b"0"])

    def test_either_kind_of_dev_works(self):
        for kind, mounts in (("devtmpfs", apple_mounts()), ("tmpfs", oci_mounts())):
            for terminal in (False, True):
                with self.subTest(kind=kind, terminal=terminal):
                    done = self.guest.run(f"{self.name}-{kind}-{terminal}",
                                          ["sh", "-c", "stat -f -c %T /dev; echo x > /dev/null; cat /dev/zero | head -c 2 | wc -c"],
                                          mounts=mounts, terminal=terminal)
                    self.assertEqual((done.out.split(), done.code), ([b"tmpfs", b"2"], 0))

    def test_containers_share_the_vms_network_unless_they_ask(self):
        own = self.guest.run(self.name + "-own", ["readlink", "/proc/self/ns/net"],
                             namespaces=("pid", "mount", "network")).out
        shared = self.guest.run(self.name, ["readlink", "/proc/self/ns/net"]).out
        self.assertEqual(shared.decode(), self.root_text("readlink /proc/1/ns/net"))
        self.assertNotEqual(own, shared)

    def test_container_cannot_reach_the_agent_over_vsock(self):
        def dial(cid, port):
            config = self.guest.configuration([], mounts=apple_mounts())
            config["process"]["args"] = ["/bin/dial", str(cid), str(port)]
            return self.guest.run(f"{self.name}-{cid}", [], config=config).out
        self.assertEqual(dial(1, machine.AGENT_PORT), b"hung up\n")  # the loopback of vsock
        self.assertIn("connection of CID 1 refused", self.vm.console_text())
        self.assertIn(dial(3, machine.AGENT_PORT), (b"hung up\n", b"refused\n"))

    def test_agent_survives_what_a_container_sends_it(self):
        self.root_text("for s in KILL STOP HUP USR1 USR2 PIPE CHLD ALRM CONT QUIT; do kill -$s 1; done")
        self.assertEqual(self.guest.run(self.name + "-after", ["echo", "alive"]).out, b"alive\n")


class WithVmsOfTheirOwn(unittest.TestCase):
    def boot(self, image=None, **more):
        vm = self.enterContext(Machine(World.kernel, image or World.image, **more))
        vm.wait_agent()
        agent = self.enterContext(Agent(vm))
        return vm, Guest(vm, agent)

    def ends_in_order(self, vm, words="shutting down"):
        self.assertEqual(vm.wait_off(), 0)
        self.assertIn(words, vm.console_text())
        self.assertNotIn("Kernel panic", vm.console_text())

    def test_power_off_kills_answers_and_powers_off(self):
        vm, guest = self.boot()
        self.assertIn("vm", guest.agent.extension.Version(ext.VersionRequest(), timeout=SECONDS).features)
        process = guest.create("c", ["sh", "-c", "echo started; trap '' TERM; while true; do sleep 1; done"])
        process.start()
        self.assertEqual(machine.read_exactly(process.stdout, 8), b"started\n")
        waiting = guest.agent.context.WaitProcess.future(pb.WaitProcessRequest(**process.key), timeout=SECONDS)
        guest.agent.extension.PowerOff(ext.PowerOffRequest(), timeout=SECONDS)
        self.ends_in_order(vm)
        self.assertEqual(waiting.result().exitCode, 137)

    def test_signals_to_the_agent_power_off(self):
        for number in (signal.SIGTERM, signal.SIGINT):
            with self.subTest(signal=number):
                vm, guest = self.boot()
                process = guest.create("c", ["kill", f"-{int(number)}", "1"], namespaces=("mount",))
                process.start()
                self.ends_in_order(vm)

    def test_crash_of_the_agent_powers_off(self):
        vm, guest = self.boot(append="panic=0")  # as hosts have it: after a panic the VM would hang
        process = guest.create("c", ["kill", "-SEGV", "1"], namespaces=("mount",))
        process.start()
        self.ends_in_order(vm, "crashed")

    def test_words_that_nobody_knows_are_passed_over(self):
        vm, guest = self.boot(append="nonsense a=b -- agent --what --log-level debug --log-level")
        self.assertEqual(guest.run("c", ["echo", "fine"]).out, b"fine\n")
        self.assertIn(" debug vminitd: ", vm.console_text())

    def test_read_only_disk_as_root(self):
        disk = guest_image(World.kernel, World.folder, *World.arguments, form="ext4", name="root.ext4")
        # This kernel has its disk driver as a module, so something small has to load it before the root is there.
        init = World.folder / "init"
        init.write_text("\n".join([
            "#!/bin/busybox sh", "/bin/busybox mount -t devtmpfs dev /dev",
            "for m in /lib/modules/arca/*.ko; do /bin/busybox insmod $m; done",
            "/bin/busybox mount -t ext4 -o ro /dev/vda /mnt", "/bin/busybox umount /dev",
            "exec /bin/busybox switch_root /mnt /sbin/vminitd --log-level debug", ""]), encoding="ascii")
        small = guest_image(World.kernel, World.folder, "--add", f"{BUSYBOX}=/bin/busybox", name="small.img",
                            vminitd=init, vmexec=init)
        vm, guest = self.boot(small, disks=[(disk, "ro")])
        done = guest.run("c", ["sh", "-c", "echo works; cat /proc/1/mounts"], namespaces=("mount",))
        self.assertTrue(done.out.startswith(b"works\n"), done.out)
        self.assertRegex(done.out, rb"(?m)^/dev/vda / ext4 ro")
        guest.agent.extension.PowerOff(ext.PowerOffRequest(), timeout=SECONDS)
        self.ends_in_order(vm)

    def test_a_console_whose_driver_is_a_module_gets_the_log_once_it_is_there(self):
        """hvc0 alone, as hosts with a virtio console have it."""
        class WithVirtioConsole(Machine):
            def _qemu_command(self):
                return [word.replace("console=ttyS0 ", "console=hvc0 ") for word in super()._qemu_command()]
        hvc = World.folder / "hvc0"
        vm = self.enterContext(WithVirtioConsole(World.kernel, World.image, qemu_arguments=[
            "-device", "virtio-serial-pci", "-chardev", f"file,id=hvc,path={hvc}", "-device", "virtconsole,chardev=hvc"]))
        vm.wait_agent()
        agent = self.enterContext(Agent(vm))
        guest = Guest(vm, agent)
        # A process of all capabilities waits for every driver.
        done = guest.run("logs", ["sh", "-c", "dmesg | grep -c 'vminitd: serving'"], namespaces=("mount",))
        self.assertEqual((done.code, done.out), (0, b"1\n"), done)
        agent.extension.PowerOff(ext.PowerOffRequest(), timeout=SECONDS)
        self.assertEqual(vm.wait_off(), 0)
        self.assertRegex(hvc.read_text(encoding="utf-8", errors="replace"), "info vminitd: .*shutting down")
        self.assertNotIn("vminitd: ", vm.console_text())


if __name__ == "__main__":
    unittest.main(verbosity=2)
