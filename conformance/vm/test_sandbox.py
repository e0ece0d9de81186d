"""Containers in virtual machines of their own, by the CLI: what differs from a process of this host.

The e2e tests run here too, with ARCA_SANDBOX=vm (see CMakeLists.txt); these are about the sandbox itself.
"""

import json
import os
import re
import select
import signal
import subprocess
import sys
import threading
import time

os.environ["ARCA_SANDBOX"] = "vm"
sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "lib"))
from leaks import cgroup_roots  # noqa: E402
from arca_test import (SECONDS, Case, all_processes, main, mounts_of, process_state, read_text, until,  # noqa: E402
                       wait_process)
from isolation import MNT_DETACH, MS_NODEV, MS_NOEXEC, MS_NOSUID, mount, umount  # noqa: E402

LOST = 255
# For a mount namespace: a machine that has /dev/kvm and where nobody has found out yet whether it works. Runs the
# command twice. /run, where the verdict is kept, and /dev are mounts of their own; a plain file can be opened like the device.
SURROUNDINGS = """
dev=$1
shift
mount() { busybox mount "$@"; }  # which keeps no notes in /run
mount -t tmpfs -o mode=755 run /run
mkdir "$dev"
mount --rbind /dev "$dev"
mount -t tmpfs -o mode=755 dev /dev
for old in "$dev"/*; do
    new=/dev/${old##*/}
    if [ -L "$old" ]; then cp -P "$old" "$new"
    elif [ -d "$old" ]; then mkdir "$new"; mount --rbind "$old" "$new"
    else touch "$new"; mount --bind "$old" "$new"
    fi
done
[ -e /dev/kvm ] || touch /dev/kvm
"$@" first
"$@" second
cat /run/arca-runtime/@kvm
"""


def parts_of(sandbox_pids):
    """Pids of what a sandbox consists of, by name; of virtiofsd the first, which is the monitor's child."""
    found = {}
    for pid in sorted(sandbox_pids):
        name = os.path.basename(read_text(f"/proc/{pid}/cmdline").split("\0")[0])
        for part in ("arca-monitor", "arca-standin", "arca-vsock", "virtiofsd", "qemu-system-x86_64"):
            if name == part:
                found.setdefault(part, pid)
    return found


def cgroup_folders(path):
    """Where a cgroup of this path is in each hierarchy of this host."""
    return [root + path for root in cgroup_roots()]


def remove_cgroups(path):
    for folder in cgroup_folders(path):
        if os.path.isdir(folder):
            os.rmdir(folder)


class Sandbox(Case):
    def parts(self):
        return parts_of(all_processes() - self.before.processes)

    def configured(self, **members):
        """Flags that give a command this configuration of the host."""
        path = os.path.join(self.dir, "configuration.json")
        with open(path, "w", encoding="ascii") as file:
            json.dump(members, file)
        return ["--configuration", path]

    def qemu(self, script):
        """Path of a program of the shell in the place of QEMU."""
        path = os.path.join(self.dir, "qemu")
        with open(path, "w", encoding="ascii") as file:
            file.write("#!/bin/sh\n" + script)
        os.chmod(path, 0o755)
        return path


class Guest(Sandbox):
    def test_the_kernel_is_the_guests_and_everything_else_the_bundles(self):
        script = "uname -r; hostname; id -u; cat /etc/passwd | wc -l; pwd; echo $GREETING; ls /proc/1/root >/dev/null && echo seen"
        bundle = self.bundle("sh", "-c", script, hostname="inside")
        bundle.config["process"]["env"].append("GREETING=hello")
        bundle.config["process"]["cwd"] = "/srv/app"
        bundle.write()
        result = self.run_bundle(bundle)
        self.assertEqual(result.code, 0, result)
        release, *rest = result.out.splitlines()
        self.assertNotEqual(release, os.uname().release)
        self.assertEqual(rest, ["inside", "0", "2", "/srv/app", "hello", "seen"], result)

    def test_bind_mounts_reach_the_guest_and_read_only_ones_stay_so(self):
        shared = os.path.join(self.dir, "shared")
        os.mkdir(shared)
        with open(os.path.join(shared, "from-host"), "w", encoding="ascii") as file:
            file.write("host\n")
        mounts = [{"destination": "/rw", "type": "bind", "source": shared, "options": ["rbind", "rw"]},
                  {"destination": "/ro", "type": "bind", "source": shared, "options": ["rbind", "ro"]},
                  {"destination": "/file", "type": "bind", "source": os.path.join(shared, "from-host"),
                   "options": ["bind", "ro"]}]
        out = self.inside("cat /rw/from-host /file; echo guest > /rw/from-guest; touch /ro/x 2>/dev/null || echo refused; "
                          "mount -o remount,rw,bind /ro 2>/dev/null; touch /ro/y 2>/dev/null || echo refused",
                          mounts=mounts, process={"capabilities": None})
        self.assertEqual(out, "host\nhost\nrefused\nrefused\n")
        self.assertEqual(read_text(os.path.join(shared, "from-guest")), "guest\n")
        self.assertEqual(sorted(os.listdir(shared)), ["from-guest", "from-host"])

    def test_what_the_hosts_mount_forbids_is_forbidden_in_the_guest(self):
        source = os.path.join(self.dir, "restricted")
        os.mkdir(source)
        mount("t", source, "tmpfs", MS_NOSUID | MS_NODEV | MS_NOEXEC)
        self.addCleanup(umount, source, MNT_DETACH)
        program = os.path.join(source, "program")
        with open(program, "w", encoding="ascii") as file:
            file.write("#!/bin/sh\necho runs\n")
        os.chmod(program, 0o755)
        mounts = [{"destination": "/data", "type": "bind", "source": source, "options": ["bind"]},
                  {"destination": "/undone", "type": "bind", "source": source, "options": ["bind", "exec"]}]
        out = self.inside("/data/program 2>/dev/null || echo refused; /undone/program; cat /proc/self/mountinfo", mounts=mounts)
        self.assertEqual(out.splitlines()[:2], ["refused", "runs"])
        table = mounts_of(out)
        self.assertLessEqual({"nosuid", "nodev", "noexec"}, table["/data"]["flags"])
        self.assertLessEqual({"nosuid", "nodev"}, table["/undone"]["flags"])

    def test_what_the_guest_cannot_grant_is_a_warning_here(self):
        bundle = self.bundle("true", process={"capabilities": {"bounding": ["CAP_KILL", "CAP_N\u00d6T_REAL"]}})
        result = self.run_bundle(bundle)
        self.assertEqual(result.code, 0, result)
        (warning,) = result.err.splitlines()
        self.assertIn("level=warning", warning)
        self.assertIn("CAP_N??T_REAL is not known", warning)

    def test_nothing_of_the_host_but_what_the_bundle_names_is_in_the_machine(self):
        c = self.start()
        monitor = self.parts()["arca-monitor"]
        share = [line.split()[4] for line in read_text(f"/proc/{monitor}/mountinfo").splitlines()
                 if "/share/" in line.split()[4]]
        self.assertEqual([path.split("/share/")[1] for path in share], [f"{c}/rootfs"])

    def test_the_stand_in_is_in_the_containers_cgroup_of_the_host(self):
        path = f"/arca-vm-test-{os.getpid()}/inner"
        self.addCleanup(remove_cgroups, os.path.dirname(path))
        c = self.start(linux={"cgroupsPath": path})
        paths = {line.split(":", 2)[2] for line in read_text(f"/proc/{self.state(c)['pid']}/cgroup").splitlines()}
        self.assertEqual(paths, {path})
        self.ok("delete", "--force", c)
        self.assertEqual([folder for folder in cgroup_folders(path) if os.path.exists(folder)], [])
        c = self.start()
        self.assertIn(f":/{c}\n", read_text(f"/proc/{self.state(c)['pid']}/cgroup"))

    def test_memory_and_cpus_follow_the_limits(self):
        out = self.inside("grep -c ^processor /proc/cpuinfo; grep MemTotal /proc/meminfo",
                          linux={"resources": {"memory": {"limit": 64 << 20}, "cpu": {"quota": 150000, "period": 100000}}})
        cpus, memory = out.splitlines()
        self.assertEqual(int(cpus), min(2, os.cpu_count()))
        self.assertLess(int(memory.split()[1]), 256 << 10)
        self.assertGreater(int(memory.split()[1]), 128 << 10)

    def test_the_machines_memory_is_in_huge_pages_of_the_host(self):
        if not os.path.exists("/sys/kernel/mm/transparent_hugepage"):
            self.skipTest("this kernel lacks CONFIG_TRANSPARENT_HUGEPAGE")
        self.start()
        maps = read_text(f"/proc/{self.parts()['qemu-system-x86_64']}/smaps")
        sizes = [int(size) for size in re.findall(r"^ShmemPmdMapped: +(\d+) kB", maps, re.MULTILINE)]
        self.assertGreater(max(sizes), 16 << 10, "kB")

    def test_the_configuration_sizes_the_machine_and_names_its_kernel(self):
        flags = self.configured(sandbox="vm", vm={"memory_mib": 300, "append": "arca.test=seen"})
        result = self.call([*self.command(*flags), "run", "--bundle",
                            self.bundle("sh", "-c", "cat /proc/cmdline; grep MemTotal /proc/meminfo").path, self.new_id()])
        self.assertEqual(result.code, 0, result)
        self.assertIn("arca.test=seen", result.out)
        self.assertLess(int(result.out.split("MemTotal:")[1].split()[0]), 300 << 10)
        self.fails(*self.configured(vm={"kernel": "/nonexistent"}), "run", "--bundle", self.bundle("true").path,
                   self.new_id(), says="/nonexistent: no such file")

    def test_annotations_change_nothing_that_the_host_does_not_allow(self):
        self.fails("run", "--bundle", self.bundle("true", annotations={"io.arca.vm.kernel": "/x"}).path, self.new_id(),
                   says="io.arca.vm.kernel: not in allowed_annotations")

    def test_a_command_in_a_chroot_finds_its_folders(self):
        root, mounted = os.path.join(self.dir, "chroot"), 'mount -n --rbind / "$0" && exec chroot "$0" "$@"'
        os.mkdir(root)
        result = self.call(["unshare", "--mount", "sh", "-c", mounted, root,
                            *self.command("run", "--bundle", self.bundle("echo", "inside").path, self.new_id())])
        self.assertEqual((result.code, result.out), (0, "inside\n"), result)

    def test_a_disk_image_can_be_the_root_file_system(self):
        bundle = self.bundle("sh", "-c", "cat /proc/mounts | head -1; echo kept > /written; cat /etc/group | wc -l",
                             writable=True, annotations={"io.arca.vm.rootfs_image": os.path.join(self.dir, "root.img")})
        image = os.path.join(self.dir, "root.img")
        subprocess.run(["/sbin/mke2fs", "-q", "-t", "ext4", "-d", bundle.rootfs, image, "32M"], check=True)
        flags = self.configured(allowed_annotations=["io.arca.vm.rootfs_image"])
        result = self.call([*self.command(*flags), "run", "--bundle", bundle.path, self.new_id()])
        self.assertEqual(result.code, 0, result)
        self.assertIn("/dev/vda / ext4", result.out)
        self.assertTrue(result.out.endswith("3\n"), result)
        self.assertFalse(os.path.exists(bundle.file("written")), "the bundle's own folder is not used")
        kept = subprocess.run(["/sbin/debugfs", "-R", "cat /written", image], check=True, capture_output=True).stdout
        self.assertEqual(kept, b"kept\n", "what was written is on the disk")

    def test_a_program_that_is_not_there_fails_create_with_its_name(self):
        self.fails("create", "--bundle", self.bundle("/no/such").path, self.new_id(), says="/no/such")
        until(lambda: not self.parts(), lambda: f"the end of {self.parts()}")

    def test_labels_of_this_hosts_security_modules_are_left_out_with_a_warning(self):
        """As Docker sets them on a host with AppArmor."""
        bundle = self.bundle("true", process={"apparmorProfile": "docker-default", "selinuxLabel": "a:b:c:d"},
                             linux={"mountLabel": "e:f:g:h"})
        log = os.path.join(self.dir, "log")
        c = self.new_id()
        self.ids.append(c)
        self.ok("--log", log, "create", "--bundle", bundle.path, c)
        for name in ("apparmorProfile", "selinuxLabel", "mountLabel"):
            self.assertIn(f"{name} is ignored: it is of this host", read_text(log))
        self.ok("start", c)
        self.wait_status(c, "stopped")
        c = self.start()
        given = self.rt("--log", log, "exec", "--apparmor", "of-an-exec", c, "echo", "fine")
        self.assertEqual((given.code, given.out), (0, "fine\n"), given)
        settings = os.path.join(self.dir, "settings.json")
        with open(settings, "w", encoding="ascii") as file:
            json.dump({"vm": {"labels": "apply"}}, file)
        # The guest's kernel has AppArmor, and no profiles.
        self.fails("--configuration", settings, "create", "--bundle",
                   self.bundle("true", process={"apparmorProfile": "docker-default"}).path, self.new_id(), says="docker-default")

    def test_ps_is_a_table_of_the_guests_processes_and_an_array_of_this_hosts(self):
        c = self.create(self.bundle("sh", "-c", "sleep 601 & exec sleep 600", process={"user": {"uid": 7, "gid": 7}}))
        self.ok("start", c)
        self.ok("exec", "-d", "--user", "0", c, "sleep", "602")
        until(lambda: len(self.ok("ps", c).out.splitlines()) == 4, "three processes")
        header, *rows = (line.split(None, 7) for line in self.ok("ps", c, "-ef").out.splitlines())
        self.assertEqual(header, ["UID", "PID", "PPID", "C", "STIME", "TTY", "TIME", "CMD"])
        self.assertEqual(sorted((row[0], row[7]) for row in rows),
                         [("7", "sleep 600"), ("7", "sleep 601"), ("root", "sleep 602")])
        parents = {row[7]: (row[1], row[2]) for row in rows}
        self.assertEqual(parents["sleep 601"][1], parents["sleep 600"][0])
        today = {time.strftime("%H:%M", time.localtime(time.time() - back)) for back in range(0, 300, 30)}
        self.assertLessEqual({row[4] for row in rows}, today)
        self.assertEqual(json.loads(self.ok("ps", "--format", "json", c).out), [self.state(c)["pid"]])
        self.ok("kill", c, "KILL")
        self.wait_status(c, "stopped")
        self.assertEqual(len(self.ok("ps", c).out.splitlines()), 1)
        self.assertEqual(self.ok("ps", "--format", "json", c).out, "null\n")

    def test_what_a_guest_cannot_do_is_an_error(self):
        self.fails("run", "--bundle", self.bundle("true", linux={"intelRdt": {"closID": "x"}}).path, self.new_id(),
                   says="linux.intelRdt: not supported")
        c = self.start()
        mapped = {"destination": "/data", "type": "bind", "source": self.dir, "options": ["rbind", "idmap"],
                  "uidMappings": [{"containerID": 0, "hostID": 1, "size": 1}], "gidMappings": [{"containerID": 0, "hostID": 1, "size": 1}]}
        self.fails("run", "--bundle", self.bundle("true", writable=True, mounts=[mapped]).path, self.new_id(),
                   says="id mappings of the mount at /data: not supported in a sandbox with a guest")
        self.fails("ps", c, "-o", "pid", says="only -ef is supported")
        given = self.call(["/bin/sh", "-c", 'exec "$@" 3</dev/null', "sh", *self.command("exec", "--preserve-fds", "1", c, "true")])
        self.assertEqual((given.code, given.out), (255, ""), given)
        self.assertIn("descriptors (--preserve-fds, LISTEN_FDS) cannot be passed into a guest", given.err)


class Accelerator(Sandbox):
    """`auto` believes in KVM when it has booted a guest. Stand-ins for QEMU play a KVM that does not."""

    def run_with(self, kvm_does):
        qemu = self.qemu("case \" $* \" in *' -accel kvm '*)\n"
                         f"    echo \"$*\" | grep -o 'guest/vmlinu[xz]' >> {self.dir}/tried; {kvm_does};;\nesac\n"
                         f"echo \"$*\" | grep -o 'guest/vmlinu[xz]' >> {self.dir}/emulated\n"
                         "exec qemu-system-x86_64 \"$@\"\n")
        words = [*self.command(*self.configured(vm={"qemu": qemu, "accel": "auto"})), "run", "--bundle", self.bundle("echo", "up").path]
        return self.call(["unshare", "--mount", "sh", "-ec", SURROUNDINGS, "sh", os.path.join(self.dir, "dev"), *words],
                         seconds=4 * SECONDS)

    def check(self, kvm_does):
        result = self.run_with(kvm_does)
        self.assertEqual(result.code, 0, result)
        self.assertIn("up\nup\nfails ", result.out)
        self.assertEqual(read_text(os.path.join(self.dir, "tried")), "guest/vmlinuz\n", "found out once")
        self.assertEqual(read_text(os.path.join(self.dir, "emulated")), "guest/vmlinux\n" * 2, "unpacked")

    def test_a_kvm_that_ends_qemu_is_found_out_once(self):
        self.check("echo 'no such luck' >&2; exit 1")

    def test_a_kvm_that_stands_still_is_found_out_once(self):
        self.check("exec sleep 1000")


class Streams(Sandbox):
    def test_64_processes_with_stdio_at_once(self):
        c = self.start()
        script = "read x; echo out $x; echo err $x >&2; exit $x"
        running = []
        for number in range(64):
            process = self.spawn(self.command("exec", c, "sh", "-c", script), stdin=subprocess.PIPE,
                                 stdout=subprocess.PIPE, stderr=subprocess.PIPE)
            running.append((number, process))
        # All are there before the first is let go.
        until(lambda: len(self.ok("ps", c).out.splitlines()) >= 66, "64 processes", 4 * SECONDS)
        results = {}

        def finish(number, process):
            results[number] = (*process.communicate(f"{number}\n".encode()), process.returncode)
        threads = [threading.Thread(target=finish, args=pair) for pair in running]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(4 * SECONDS)
        self.assertEqual(results, {n: (b"out %d\n" % n, b"err %d\n" % n, n) for n in range(64)})

    def test_a_reader_that_stops_stalls_only_its_own_stream(self):
        c = self.start()
        stalled = self.spawn(self.command("exec", c, "yes", "stalled"), stdout=subprocess.PIPE)
        self.assertEqual(os.read(stalled.stdout.fileno(), 8), b"stalled\n")  # and no more
        for number in range(3):
            result = self.exec(c, "sh", "-c", f"head -c 1000000 /dev/zero; exit {number}")
            self.assertEqual((len(result.raw), result.code), (1000000, number))
        stalled.stdout.close()
        self.assertNotEqual(wait_process(stalled), 0)

    def test_input_and_output_of_a_process_are_exact(self):
        data = os.urandom(3 << 20)
        result = self.run_bundle(self.bundle("cat"), stdin=data, seconds=2 * SECONDS)
        self.assertEqual(result.code, 0, result.err)
        self.assertTrue(result.raw == data, f"{len(result.raw)} bytes came back of {len(data)}")


class Pods(Sandbox):
    def pod_container(self, owner, *args, **changes):
        annotations = {"io.kubernetes.cri.container-type": "container", "io.kubernetes.cri.sandbox-id": owner}
        return self.bundle(*args, annotations=annotations, **changes)

    def test_containers_of_a_pod_share_a_machine_and_the_last_one_takes_it_along(self):
        owner = self.start("sleep", "600", annotations={"io.kubernetes.cri.container-type": "sandbox"})
        second = self.create(self.pod_container(owner, "sleep", "600"))
        self.ok("start", second)
        machines = [pid for pid in all_processes() - self.before.processes
                    if read_text(f"/proc/{pid}/cmdline").startswith("qemu-system")]
        self.assertEqual(len(machines), 1)
        self.ok("delete", "--force", owner)
        self.assertEqual(self.exec(second, "echo", "alive").out, "alive\n")
        self.ok("delete", "--force", second)
        until(lambda: not self.parts(), lambda: f"the end of {self.parts()}")

    def test_a_namespace_of_another_containers_stand_in_is_that_containers(self):
        owner = self.start("sleep", "600")
        pid = self.state(owner)["pid"]
        namespaces = [{"type": "pid", "path": f"/proc/{pid}/ns/pid"}, {"type": "mount"}, {"type": "uts"},
                      {"type": "ipc", "path": f"/proc/{pid}/ns/ipc"}]
        result = self.run_bundle(self.pod_container(owner, "ps", "-o", "args", linux={"namespaces": namespaces}))
        self.assertEqual(result.code, 0, result)
        self.assertIn("sleep 600", result.out)
        namespaces[0]["path"] = "/proc/1/ns/pid"
        self.fails("run", "--bundle", self.pod_container(owner, "true", linux={"namespaces": namespaces}).path,
                   self.new_id(), says="/proc/1/ns/pid: of this host")

    def test_a_pod_whose_machine_is_gone_takes_no_container(self):
        self.fails("run", "--bundle", self.pod_container("nobody", "true").path, self.new_id(), says="sandbox is gone")


class Deaths(Sandbox):
    """Whatever dies: the container ends within 5 s, never with success, with a clear error, and nothing stays."""

    def lose(self, part, number=signal.SIGKILL, flags=()):
        process = self.spawn(self.command(*flags, "run", "--bundle", self.bundle("sleep", "600").path, self.new_id()),
                             stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        until(lambda: any(read_text(path).find('"running"') >= 0 for path in self.records()), "running")
        parts = self.parts()
        os.kill(parts[part], number)
        code = wait_process(process, 5)
        self.assertEqual(code, LOST if part != "arca-standin" else 128 + number)
        until(lambda: not self.parts(), lambda: f"the end of {self.parts()}", 5)
        return process.stderr.read().decode()

    def records(self):
        if not os.path.isdir(self.root):
            return []
        return [os.path.join(self.root, name, "state.json") for name in os.listdir(self.root) if name[0] != "@"]

    def test_of_qemu(self):
        self.assertIn("qemu ended by SIGKILL", self.lose("qemu-system-x86_64"))

    def test_of_qemu_though_those_who_serve_it_are_seen_to_end_first(self):
        qemu = self.qemu('qemu-system-x86_64 "$@" &\nexec 3>&- 4>&- 5>&-\nwait $!\ncode=$?\nsleep 0.3\nexit $code\n')
        flags = self.configured(vm={"qemu": qemu})
        self.assertIn("qemu ended by SIGKILL", self.lose("qemu-system-x86_64", flags=flags))

    def test_of_the_file_server(self):
        self.assertIn("virtiofsd ended by SIGKILL", self.lose("virtiofsd"))

    def test_of_the_vsock_device(self):
        self.assertIn("arca-vsock ended by SIGKILL", self.lose("arca-vsock"))

    def test_of_the_monitor(self):
        self.assertIn("monitor is gone", self.lose("arca-monitor"))

    def test_of_the_stand_in(self):
        self.lose("arca-standin")

    def test_of_everything_while_a_created_container_waits(self):
        for part in ("qemu-system-x86_64", "arca-monitor"):
            with self.subTest(part=part):
                c = self.create(self.bundle("true"))
                pid = self.state(c)["pid"]
                os.kill(self.parts()[part], signal.SIGKILL)
                self.assertEqual(os.waitstatus_to_exitcode(self.wait_reaped(pid, 5)), LOST)
                self.assertEqual(self.state(c)["status"], "stopped")
                self.fails("start", c)
                self.ok("delete", c)
                until(lambda: not self.parts(), lambda: f"the end of {self.parts()}", 5)

    def test_of_the_caller_while_it_creates(self):
        for _ in range(3):
            c = self.new_id()
            self.ids.append(c)
            process = self.spawn(self.command("create", "--bundle", self.bundle("true").path, c))
            until(lambda: "qemu-system-x86_64" in self.parts(), "the machine")
            select.select([], [], [], 0.3 * len(self.ids))  # somewhere in the boot
            process.kill()
            process.wait()
            self.ok("delete", "--force", c)
            until(lambda: not self.parts(), lambda: f"the end of {self.parts()}", 20)

    def test_an_interrupt_during_the_boot_leaves_nothing(self):
        process = self.spawn(self.command("run", "--bundle", self.bundle("true").path, self.new_id()),
                             stderr=subprocess.PIPE)
        until(lambda: "qemu-system-x86_64" in self.parts(), "the machine")
        process.send_signal(signal.SIGTERM)
        self.assertNotEqual(wait_process(process), 0)
        until(lambda: not self.parts(), lambda: f"the end of {self.parts()}", 5)

    def test_a_guest_that_stands_still_is_ended_by_force(self):
        c = self.start()
        pid = self.state(c)["pid"]
        os.kill(self.parts()["qemu-system-x86_64"], signal.SIGSTOP)
        os.kill(pid, signal.SIGKILL)  # as who has no patience does with a pid from a pid-file
        until(lambda: not self.parts(), lambda: f"the end of {self.parts()}", 15)
        self.assertEqual(process_state(pid)[0] in ("", "Z"), True)
        self.ok("delete", "--force", c)


if __name__ == "__main__":
    main()
