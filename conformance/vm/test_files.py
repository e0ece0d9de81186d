"""Files of containers in guests that share none of the host's: copies, and disks of the guest's own."""

import contextlib
import json
import os
import pathlib
import re
import signal
import stat
import subprocess
import sys
import types

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path[:0] = [os.path.join(HERE, "..", "lib"), os.path.join(HERE, "..", "wire"), HERE]
from arca_test import RUNTIME, SECONDS, Case, all_processes, environment, main, read_text, until, wait_process  # noqa: E402

import grpc  # noqa: E402
import hostile_guest  # noqa: E402
import machine  # noqa: E402
from agent import Agent, pb  # noqa: E402

BOOT = 120
LIMIT = 2  # seconds that a hostile guest has for a call
# cap_net_raw, as setcap(8) writes it.
CAPABILITY = bytes.fromhex("0100000200200000000000000000000000000000")
LOOK = r"""
cd /tree
stat -c '%n %a %u %g %h %Y %t:%T' su one fifo null .
[ one -ef two ] && echo same
readlink absolute; readlink outward
cat /ro/f /file
touch /ro/x 2>/dev/null || echo refused
echo guest > /rw/written && cat /rw/written
echo guest >> /rootfile && echo written
"""


def parts():
    """Names of the programs of sandboxes that run now, with their pids."""
    found = {}
    for pid in all_processes():
        name = os.path.basename(read_text(f"/proc/{pid}/cmdline").split("\0")[0])
        if name in ("arca-monitor", "arca-standin", "arca-vsock", "virtiofsd", "qemu-system-x86_64"):
            found.setdefault(name, pid)
    return found


class Files(Case):
    def setUp(self):
        super().setUp()
        self.configuration = os.path.join(self.dir, "configuration.json")
        self.old_parts = set(parts().values())

    def configure(self, **members):
        with open(self.configuration, "w", encoding="ascii") as file:
            json.dump(members, file)

    def parts(self):
        return {name: pid for name, pid in parts().items() if pid not in self.old_parts}

    def configured(self, *words, **options):
        options.setdefault("seconds", BOOT)
        return self.call(self.command("--sandbox", self.sandbox, "--configuration", self.configuration, *words), **options)

    def tree(self, bundle):
        """Fills /tree of the bundle's root file system with one of each kind of file."""
        tree = bundle.file("tree")
        os.mkdir(tree)
        for name, text in (("su", "program"), ("one", "linked")):
            pathlib.Path(tree, name).write_text(text, encoding="ascii")
        os.link(f"{tree}/one", f"{tree}/two")
        os.symlink("/bin/busybox", f"{tree}/absolute")
        os.symlink("../../../../etc", f"{tree}/outward")
        os.mkfifo(f"{tree}/fifo")
        os.chmod(f"{tree}/fifo", 0o620)
        os.mknod(f"{tree}/null", stat.S_IFCHR | 0o600, os.makedev(1, 3))
        os.chown(f"{tree}/su", 12, 34)
        os.chmod(f"{tree}/su", 0o6755)
        os.setxattr(f"{tree}/su", "security.capability", CAPABILITY)
        os.chmod(tree, 0o1777)
        for name in ("su", "one", "fifo", "null", "."):
            os.utime(f"{tree}/{name}", (1e9, 1e9))
        pathlib.Path(bundle.file("rootfile")).write_text("host\n", encoding="ascii")

    def binds(self):
        """A folder, read-only and not, and a file; with the options of the mounts."""
        shared = os.path.join(self.dir, "shared")
        os.mkdir(shared)
        pathlib.Path(shared, "f").write_text("shared\n", encoding="ascii")
        return shared, [{"destination": "/ro", "type": "bind", "source": shared, "options": ["rbind", "ro"]},
                        {"destination": "/rw", "type": "bind", "source": shared, "options": ["rbind"]},
                        {"destination": "/file", "type": "bind", "source": f"{shared}/f", "options": ["bind", "ro"]}]

    def check_tree(self, bundle, shared, out):
        self.assertEqual(out.splitlines(), [
            "su 6755 12 34 1 1000000000 0:0", "one 644 0 0 2 1000000000 0:0", "fifo 620 0 0 1 1000000000 0:0",
            "null 600 0 0 1 1000000000 1:3", ". 1777 0 0 2 1000000000 0:0", "same", "/bin/busybox", "../../../../etc",
            "shared", "shared", "refused", "guest", "written"])
        # Nothing comes back.
        self.assertEqual(os.listdir(shared), ["f"])
        self.assertEqual(read_text(bundle.file("rootfile")), "host\n")


class CopiesIntoVms(Files):
    sandbox = "vm"

    def test_a_root_file_system_and_binds_arrive_as_tar_keeps_them(self):
        self.configure(vm={"rootfs": "copy"})
        shared, mounts = self.binds()
        c = self.new_id()
        self.ids.append(c)
        bundle = self.bundle("sleep", "600", writable=True, mounts=mounts)
        self.tree(bundle)
        result = self.configured("create", "--bundle", bundle.path, c)
        self.assertEqual(result.code, 0, result)
        self.assertEqual(sorted(self.parts()), ["arca-monitor", "arca-standin", "arca-vsock", "qemu-system-x86_64"])
        self.ok("start", c)
        out = self.exec(c, "sh", "-c", LOOK, seconds=BOOT)
        self.assertEqual(out.code, 0, out)
        self.check_tree(bundle, shared, out.out)
        with open("/proc/self/mountinfo", encoding="ascii") as file:
            self.assertNotIn(self.dir + "/shared", file.read())

    def test_a_machine_has_the_memory_for_what_is_copied(self):
        self.configure(vm={"rootfs": "copy"})
        bundle = self.bundle("sh", "-c", "stat -c %s /big; grep MemTotal /proc/meminfo")
        with open(bundle.file("big"), "wb") as file:
            file.truncate(400 << 20)  # more than the /run of a machine of 512 MiB holds
        result = self.configured("run", "--bundle", bundle.path, self.new_id())
        self.assertEqual(result.code, 0, result)
        size, total = result.out.splitlines()
        self.assertEqual(int(size), 400 << 20)
        self.assertGreater(int(total.split()[1]), 1000 << 10)

    def test_what_does_not_fit_is_an_error_and_leaves_nothing(self):
        bundle = self.bundle("true")
        with open(bundle.file("big"), "wb") as file:
            file.truncate(300 << 20)
        for vm, says in (({"copy_mib": 100}, "more than 104857600 bytes"),
                         ({"memory_mib": 256}, "no space left on device")):
            with self.subTest(vm=vm):
                self.configure(vm={"rootfs": "copy", **vm})
                result = self.configured("run", "--bundle", bundle.path, self.new_id())
                self.assertEqual(result.code, 1, result)
                self.assertIn(f"copy {bundle.rootfs} into the guest: ", result.err)
                self.assertIn(says, result.err.lower())
                self.assertEqual(len(result.err.splitlines()), 1, result)
                until(lambda: not self.parts(), lambda: f"the end of {self.parts()}")

    def test_sockets_and_devices_of_the_host_are_refused_before_anything_runs(self):
        self.configure(vm={"rootfs": "copy"})
        mounts = [{"destination": "/dev/x", "type": "bind", "source": "/dev/null", "options": ["bind"]}]
        result = self.configured("run", "--bundle", self.bundle("true", mounts=mounts).path, self.new_id())
        self.assertEqual(result.code, 1, result)
        self.assertIn("/dev/null: neither a folder nor a file", result.err)
        until(lambda: not self.parts(), lambda: f"the end of {self.parts()}")

    def test_an_interrupt_while_it_copies_leaves_nothing(self):
        self.configure(vm={"rootfs": "copy", "memory_mib": 1024})
        bundle = self.bundle("true")
        with open(bundle.file("big"), "wb") as file:
            file.truncate(700 << 20)
        process = self.spawn(self.command("--sandbox", "vm", "--configuration", self.configuration, "run", "--bundle",
                                          bundle.path, self.new_id()), stderr=subprocess.PIPE)
        until(lambda: self.reads("/big"), "the copy is under way", BOOT)
        process.send_signal(signal.SIGTERM)
        self.assertNotEqual(wait_process(process, 5), 0)
        until(lambda: not self.parts(), lambda: f"the end of {self.parts()}", 15)

    def reads(self, name):
        """Whether the monitor has a file of this name open."""
        folder = f"/proc/{self.parts().get('arca-monitor', 0)}/fd"
        with contextlib.suppress(OSError):
            for fd in os.listdir(folder):
                with contextlib.suppress(OSError):
                    if os.readlink(f"{folder}/{fd}").endswith(name):
                        return True
        return False


class FilesInGuestsOfOthers(Files):
    """A VM that runs already, with a disk; it shares nothing with this host."""

    @classmethod
    def setUpClass(cls):
        cls.scratch = machine.tempfile.mkdtemp(prefix="arca-files-")
        cls.addClassCleanup(machine.shutil.rmtree, cls.scratch, ignore_errors=True)
        tree = machine.busybox_rootfs(os.path.join(cls.scratch, "tree"))
        (tree / "on-disk").write_text("disk\n", encoding="ascii")
        disk = machine.ext4_image(tree, os.path.join(cls.scratch, "disk.img"))
        guest = pathlib.Path(RUNTIME).resolve().parent.parent / "guest"
        kernel = types.SimpleNamespace(emulated=guest / "vmlinuz", modules=[])
        cls.vm = machine.Machine(kernel, guest / "initramfs.cpio", append="cryptomgr.notests rdinit=/sbin/vminitd",
                                 disks=[disk])
        cls.addClassCleanup(cls.vm.stop)
        cls.vm.start()
        cls.vm.wait_agent()
        cls.agent = Agent(cls.vm)
        cls.addClassCleanup(cls.agent.close)
        cls.sandbox = f"connect=hvsock://{cls.vm.base}"

    def gone_in_guest(self, container):
        try:
            self.agent.context.Stat(pb.StatRequest(path=f"/run/container/{container}"), timeout=SECONDS)
        except grpc.RpcError as error:
            return error.code() == grpc.StatusCode.NOT_FOUND
        return False

    def test_copies_arrive_and_go_with_their_container(self):
        self.configure(connect={"rootfs": "copy"})
        shared, mounts = self.binds()
        bundle = self.bundle("sh", "-c", LOOK, writable=True, mounts=mounts)
        self.tree(bundle)
        # More than the agent itself may use: it would be slowed down for minutes if that counted.
        with open(bundle.file("big"), "wb") as file:
            file.truncate(120 << 20)
        c = self.new_id()
        result = self.configured("run", "--bundle", bundle.path, c)
        self.assertEqual(result.code, 0, result)
        self.check_tree(bundle, shared, result.out)
        self.assertTrue(self.gone_in_guest(c))

    def test_what_fails_after_the_copy_leaves_nothing_in_the_guest(self):
        self.configure(connect={"rootfs": "copy", "copy_mib": 50})
        c = self.new_id()
        result = self.configured("run", "--bundle", self.bundle("/no/such").path, c)
        self.assertEqual(result.code, 1, result)
        self.assertIn("/no/such", result.err)
        until(lambda: self.gone_in_guest(c), "the container's folder is gone")
        bundle = self.bundle("true")
        with open(bundle.file("big"), "wb") as file:
            file.truncate(51 << 20)
        c = self.new_id()
        result = self.configured("run", "--bundle", bundle.path, c)
        self.assertEqual(result.code, 1, result)
        self.assertIn("more than 52428800 bytes", result.err)
        until(lambda: self.gone_in_guest(c), "the container's folder is gone")

    def test_a_disk_of_the_guest_is_the_root_and_binds_are_copied(self):
        self.configure(connect={"rootfs": {"device": "/dev/vda", "type": "ext4", "options": ["noatime"]}, "binds": "copy"})
        shared, mounts = self.binds()
        bundle = self.bundle("sh", "-c", "cat /on-disk /ro/f /file; grep ' / ' /proc/mounts; echo kept > /kept",
                             writable=True, mounts=mounts)
        c = self.new_id()
        result = self.configured("run", "--bundle", bundle.path, c)
        self.assertEqual(result.code, 0, result)
        self.assertTrue(result.out.startswith("disk\nshared\nshared\n/dev/vda / ext4 rw,"), result)
        self.assertIn("noatime", result.out)
        self.assertTrue(self.gone_in_guest(c))
        # What was written is on the disk, for the next one.
        result = self.configured("run", "--bundle", self.bundle("cat", "/kept").path, self.new_id())
        self.assertEqual((result.code, result.out), (0, "kept\n"), result)

    def test_a_disk_by_annotation_needs_the_hosts_permission(self):
        names = ["io.arca.connect.rootfs_device", "io.arca.connect.rootfs_type", "io.arca.connect.rootfs_options"]
        bundle = self.bundle("cat", "/on-disk", annotations=dict(zip(names, ("/dev/vda", "ext4", "nosuid,nodev"))))
        self.configure(connect={"paths": {"/": "/nowhere"}})
        result = self.configured("run", "--bundle", bundle.path, self.new_id())
        self.assertEqual(result.code, 1, result)
        self.assertIn("io.arca.connect.rootfs_", result.err)
        self.assertIn("allowed_annotations", result.err)
        self.configure(connect={"paths": {"/": "/nowhere"}}, allowed_annotations=names)
        result = self.configured("run", "--bundle", bundle.path, self.new_id())
        self.assertEqual((result.code, result.out), (0, "disk\n"), result)

    def test_a_disk_that_is_not_there_is_an_error(self):
        self.configure(connect={"rootfs": {"device": "/dev/vdz"}})
        c = self.new_id()
        result = self.configured("run", "--bundle", self.bundle("true").path, c)
        self.assertEqual(result.code, 1, result)
        self.assertIn("/dev/vdz", result.err)
        until(lambda: self.gone_in_guest(c), "the container's folder is gone")


class CopiesIntoAppleLikeGuests(Files):
    def setUp(self):
        super().setUp()
        self.address = os.path.join(self.dir, "g")
        os.mkdir(self.address, 0o700)
        self.sandbox = f"connect=unix://{self.address}"

    def plain(self, *args):
        linux = {"namespaces": [{"type": name} for name in ("pid", "ipc", "uts", "mount")], "resources": {}}
        return self.bundle(*args, linux=linux, writable=True)

    def run_with(self, player, bundle, *ignore, seconds=SECONDS):
        self.configure(connect={"rootfs": "copy", "ignore": list(ignore)})
        with hostile_guest.play(player, f"unix://{self.address}") as guest:
            result = self.configured("run", "--bundle", bundle.path, self.new_id(),
                                     env=environment(ARCA_GUEST_SECONDS=str(seconds)))
            calls = [name for name, _ in getattr(guest.agent, "calls", ())]
            folder = guest.agent.files.name + "/run/container"
            files = os.listdir(folder) if os.path.isdir(folder) else []
        return result, calls, files

    def test_a_bundle_runs_from_its_copy_that_goes_with_it(self):
        result, calls, files = self.run_with("honest", self.plain("sh", "-c", "echo from; pwd; readlink /bin/cat"))
        self.assertEqual((result.code, result.out), (0, "from\n/\nbusybox\n"), result)
        # Such an agent deletes what belongs to a container; so that has to be there first.
        self.assertLess(calls.index("createProcess"), calls.index("copy"))
        self.assertLess(calls.index("copy"), calls.index("startProcess"))
        self.assertEqual(files, [])

    def test_what_its_agent_would_lose_is_refused_by_name_or_allowed(self):
        bundle = self.plain("sh", "-c", "cat /bin/busybox > /dev/null; stat -c %a /bin/x; ls /fifo")
        pathlib.Path(bundle.file("bin/x")).touch()
        os.mkfifo(bundle.file("fifo"))
        os.chmod(bundle.file("bin/x"), 0o4711)
        result, _, files = self.run_with("honest", bundle)
        self.assertEqual(result.code, 1, result)
        self.assertRegex(result.err, r"(fifo: a FIFO|bin/x: set-user-id bit): this guest would silently leave it out")
        self.assertIn("file-attributes", result.err)
        self.assertEqual(files, [])
        result, _, _ = self.run_with("honest", bundle, "file-attributes")
        self.assertEqual(result.out, "711\n", result)

    def test_guests_that_do_not_do_their_part_fail_in_time(self):
        for player, says in (("holds:Copy", "the guest does not fetch"), ("dies-in:Copy", ""), ("fails-in:Copy", "ugly"),
                             ("early-copy", "the guest did not fetch it"), ("slow-copy", "nothing moved for")):
            with self.subTest(player=player):
                bundle = self.plain("true")
                with open(bundle.file("big"), "wb") as file:
                    file.write(os.urandom(4 << 20))  # more than sockets hold
                before = set(parts().values())
                result, _, _ = self.run_with(player, bundle, seconds=LIMIT)
                self.assertEqual(result.code, 1, result)
                self.assertEqual(len(result.err.splitlines()), 1, result)
                self.assertIn(says, result.err)
                self.assertIsNone(re.search(r"[\x00-\x09\x0b-\x1f\x7f]", result.err))
                until(lambda: not set(parts().values()) - before, "nothing of the sandbox is left", 20)


if __name__ == "__main__":
    main()
