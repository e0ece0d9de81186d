"""Containers that attack: one class for each kind of escape that was found in runtimes, named by its CVE.

A container may fail to start here; what counts is that nothing outside of it is read, written or mounted over.
"""

import hashlib
import os
import shutil
import sys

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "lib"))
from arca_test import (RUNTIME, TOP, Case, environment, local_only, main, mounts_of, ours_only, read_text, unlike,  # noqa: E402
                       until, wait_process)
from isolation import rename_exchange  # noqa: E402

LIB = os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "lib")
ADMIN = {"capabilities": {name: ["CAP_SYS_ADMIN", "CAP_DAC_OVERRIDE", "CAP_SYS_PTRACE", "CAP_KILL"]
                          for name in ("bounding", "effective", "permitted")}}


def without(mounts, *destinations):
    return [entry for entry in mounts if entry["destination"] not in destinations]


class Attack(Case):
    def setUp(self):
        super().setUp()
        self.victim = os.path.join(self.dir, "victim")
        with open(self.victim, "w", encoding="ascii") as file:
            file.write("the host's\n")

    def check_victim(self):
        self.assertEqual(read_text(self.victim), "the host's\n")


@local_only("the runtime's files are not in the guest")
class OverwritingTheRuntime(Attack):
    """CVE-2019-5736: a program in the container gets hold of the runtime's file through /proc/PID/exe."""

    # Catches every executable that is not busybox and tries to write to it, also when its process has ended.
    ATTACKER = """
        echo ready
        n=0
        while :; do
            for p in /proc/[0-9]*; do
                link=$(readlink $p/exe 2>/dev/null) || continue
                case $link in */busybox) continue ;; esac
                if exec 3<$p/exe; then
                    echo "caught $link"
                    for i in 1 2 3 4 5 6 7 8 9 10; do
                        if (echo pwned >/proc/self/fd/3); then echo "WROTE $link"; fi
                        if (echo pwned >>/proc/self/fd/3); then echo "WROTE $link"; fi
                        usleep 1000
                    done
                    exec 3<&-
                fi
            done 2>/dev/null
        done
    """

    def setUp(self):
        super().setUp()
        # copies, so that a runtime that falls for it hurts nobody
        folder = os.path.join(self.dir, "bin")
        os.mkdir(folder)
        for name in (os.path.basename(RUNTIME), "vminitd", "vmexec"):
            path = os.path.join(os.path.dirname(os.path.realpath(RUNTIME)), name)
            if os.path.exists(path):
                shutil.copy(path, folder)
        self.programs = folder
        self.sums = self.checksums()

    def command(self, *words, root=None):
        return [os.path.join(self.programs, os.path.basename(RUNTIME)), *super().command(*words, root=root)[1:]]

    def checksums(self):
        found = {}
        for name in os.listdir(self.programs):
            with open(os.path.join(self.programs, name), "rb") as file:
                found[name] = hashlib.sha256(file.read()).hexdigest()
        return found

    def test_a_program_that_catches_every_exec(self):
        out = os.path.join(self.dir, "out")
        bundle = self.bundle("sh", "-c", self.ATTACKER, writable=True, process=ADMIN)
        for name, interpreter in (("again", "/proc/self/exe"), ("other", "/proc/1/exe")):
            with open(bundle.file(f"bin/{name}"), "w", encoding="ascii") as file:
                file.write(f"#!{interpreter}\n")
            os.chmod(bundle.file(f"bin/{name}"), 0o755)
        with open(out, "wb") as file:
            c = self.create(bundle, stdout=file)
        self.ok("start", c)
        self.wait_text(out, "ready")
        for _ in range(12):
            self.exec(c, "again")
            self.exec(c, "true")
            self.exec(c, "/proc/self/exe")
        self.assertNotIn("WROTE", read_text(out))
        self.assertEqual(self.checksums(), self.sums)

    def test_the_runtime_as_the_program(self):
        for words in (["/proc/self/exe"], ["/proc/self/exe", "init"], ["/proc/1/exe", "--help"]):
            with self.subTest(args=words):
                self.run_bundle(self.bundle(*words, writable=True, process=ADMIN))
                self.assertEqual(self.checksums(), self.sums)

    def test_a_created_container_shows_nothing_that_can_be_written(self):
        c = self.create(self.bundle("sleep", "600", writable=True, process=ADMIN))
        result = self.exec(c, "sh", "-c", "(echo pwned >/proc/1/exe) 2>/dev/null && echo WROTE; exec 3</proc/1/exe && "
                           "(echo pwned >/proc/self/fd/3) 2>/dev/null && echo WROTE; true")
        self.assertNotIn("WROTE", result.out)
        self.assertEqual(self.checksums(), self.sums)


@local_only("looks at the mount table of the init")
class RacingTheMountTarget(Attack):
    """CVE-2021-30465 and CVE-2024-45310: the target's folder is exchanged with a link while the runtime mounts."""

    RACER = """
import sys
sys.path.insert(0, sys.argv[1])
from isolation import rename_exchange
print("racing", flush=True)
while True:
    rename_exchange(sys.argv[2], sys.argv[3])
"""

    def race(self, make_mounts, rounds):
        """Creates containers while `swap` and `link` of a shared volume change places; returns how many worked."""
        volume, outside = os.path.join(self.dir, "volume"), os.path.join(self.dir, "outside")
        os.mkdir(outside)
        os.makedirs(os.path.join(volume, "swap"))
        os.symlink(outside, os.path.join(volume, "link"))
        racer = self.spawn([sys.executable, "-B", "-c", self.RACER, LIB, os.path.join(volume, "swap"),
                            os.path.join(volume, "link")], stdout=-1)
        self.assertEqual(racer.stdout.readline(), b"racing\n")
        bundle, worked = self.bundle("sleep", "600", mounts=make_mounts(volume), writable=True), 0
        for _ in range(rounds):
            c = self.new_id()
            self.ids.append(c)
            result = self.rt("create", "--bundle", bundle.path, c)
            if result.code == 0:
                worked += 1
                inside = mounts_of(read_text(f"/proc/{self.state(c)['pid']}/mountinfo"))
                self.assertTrue([point for point, entry in inside.items() if "size=404k" in entry["options"]],
                                f"the mount went elsewhere than into the container: {inside}")
                self.ok("delete", "--force", c)
            self.assertEqual(os.listdir(outside), [], "made outside of the root file system")
        racer.kill()
        racer.wait()
        racer.stdout.close()
        return worked

    @staticmethod
    def volume_and(target):
        def mounts(volume):
            return [{"destination": "/volume", "type": "bind", "source": volume, "options": ["rbind"]},
                    {"destination": target, "type": "tmpfs", "source": "tmpfs", "options": ["size=404k"]}]
        return mounts

    def test_the_target_itself(self):
        self.race(self.volume_and("/volume/swap"), 25)

    @unlike("runc", "1.1.5 is from before the second fix")
    def test_a_folder_below_it(self):
        self.race(self.volume_and("/volume/swap/new/deep"), 25)

    def test_the_racer_does_exchange(self):
        one, other = os.path.join(self.dir, "one"), os.path.join(self.dir, "other")
        os.mkdir(one)
        os.symlink("/", other)
        self.assertTrue(rename_exchange(one, other))
        self.assertTrue(os.path.islink(one) and not os.path.islink(other))


class LeakedDescriptors(Attack):
    """CVE-2024-21626: a descriptor of the host, the runtime's or the caller's, as working folder or program."""

    def setUp(self):
        super().setUp()
        self.host_program = os.path.join(self.dir, "host-program")
        shutil.copy("/bin/busybox", self.host_program)
        self.look = f"test -e ../../../../../../../..{self.victim} && echo ESCAPED; true"

    def call_leaking(self, *words):
        return self.call(["/bin/bash", "-c", 'exec "$@" 7</ 9</ 20</', "bash"] + self.command(*words))

    @unlike("crun", "1.8.1 is from before the fix")
    def test_as_the_working_folder_of_a_container(self):
        for number in (*range(3, 13), 20):
            with self.subTest(fd=number):
                bundle = self.bundle("sh", "-c", self.look, process={"cwd": f"/proc/self/fd/{number}"})
                result = self.call_leaking("run", "--bundle", bundle.path, self.new_id())
                self.assertNotIn("ESCAPED", result.out)

    @unlike("crun", "1.8.1 is from before the fix")
    def test_as_the_working_folder_through_a_link(self):
        bundle = self.bundle("sh", "-c", self.look, process={"cwd": "/link"})
        for number in (3, 5, 7, 8, 9, 20):
            with self.subTest(fd=number):
                if os.path.islink(bundle.file("link")):
                    os.unlink(bundle.file("link"))
                os.symlink(f"/proc/self/fd/{number}", bundle.file("link"))
                result = self.call_leaking("run", "--bundle", bundle.path, self.new_id())
                self.assertNotIn("ESCAPED", result.out)

    @unlike("crun", "1.8.1 is from before the fix")
    def test_as_the_working_folder_of_an_exec(self):
        c = self.start()
        for number in (*range(3, 13), 20):
            with self.subTest(fd=number):
                result = self.call_leaking("exec", "--cwd", f"/proc/self/fd/{number}", c, "sh", "-c", self.look)
                self.assertNotIn("ESCAPED", result.out)

    def test_as_the_way_to_the_program(self):
        c = self.start()
        for number in (*range(3, 13), 20):
            with self.subTest(fd=number):
                path = f"/proc/self/fd/{number}{self.host_program}"
                bundle = self.bundle(path, "echo", "ESCAPED")
                self.assertNotIn("ESCAPED", self.call_leaking("run", "--bundle", bundle.path, self.new_id()).out)
                self.assertNotIn("ESCAPED", self.call_leaking("exec", c, path, "echo", "ESCAPED").out)

    def test_a_working_folder_that_was_removed(self):
        script = "mkdir /srv/gone && cd /srv/gone && rmdir /srv/gone && echo ready && sleep 600"
        bundle = self.bundle("sh", "-c", script, writable=True)
        out = os.path.join(self.dir, "out")
        with open(out, "wb") as file:
            c = self.create(bundle, stdout=file)
        self.ok("start", c)
        self.wait_text(out, "ready")
        self.assertNotIn("ESCAPED", self.exec(c, ["--cwd", "/proc/1/cwd"], "sh", "-c", self.look).out)


class MaskingWithALink(Attack):
    """CVE-2025-31133: /dev/null of the image, used to cover masked paths, is a link to something else."""

    def attempt(self, target):
        bundle = self.bundle("sh", "-c", "cat /secret; echo pwned >/secret; cat /other; true", writable=True,
                             linux={"maskedPaths": ["/secret"]})
        bundle.config["mounts"] = without(bundle.config["mounts"], "/dev", "/dev/pts", "/dev/shm", "/dev/mqueue")
        bundle.write()
        for name in ("secret", "other"):
            with open(bundle.file(name), "w", encoding="ascii") as file:
                file.write(f"{name} of the image\n")
        os.symlink(target, bundle.file("dev/null"))
        result = self.run_bundle(bundle)
        self.check_victim()
        return result

    @unlike("runc", "1.1.5 is from before the fix")
    @unlike("crun", "1.8.1 is from before the fix")
    def test_the_link_does_not_choose_what_is_seen_there(self):
        for target in ("/other", "/proc/self/environ"):
            with self.subTest(target=target):
                result = self.attempt(target)
                if result.code == 0:
                    self.assertEqual(result.out, "other of the image\n", result)

    def test_nothing_of_the_host_is_seen_or_written(self):
        for target in (self.victim, "../" * 40 + self.victim.lstrip("/")):
            with self.subTest(target=target):
                self.assertNotIn("the host's", self.attempt(target).out)


class ConsoleWithALink(Attack):
    """CVE-2025-52565: /dev/console of the image is a link, and the terminal is mounted where it leads."""

    def attempt(self, target):
        bundle = self.bundle("sh", "-c", "cat /proc/self/mountinfo; echo end", writable=True,
                             process={"terminal": True})
        bundle.config["mounts"] = without(bundle.config["mounts"], "/dev")
        bundle.write()
        os.mkdir(bundle.file("dev/pts"))
        os.symlink(target, bundle.file("dev/console"))
        terminal = self.terminal()
        child = terminal.spawn(self.command("run", "--bundle", bundle.path, self.new_id()), env=environment())
        self.processes.append(child)
        code = wait_process(child)
        terminal.close_slave()
        seen = terminal.read_all().decode(errors="replace").replace("\r\n", "\n")
        self.check_victim()
        return code, seen

    @unlike("runc", "1.1.5 is from before the fix")
    @unlike("crun", "1.8.1 is from before the fix")
    def test_the_terminal_is_mounted_nowhere_else(self):
        for target in ("/proc/sys/kernel/core_pattern", "/proc/self/environ", "/etc/passwd", self.victim):
            with self.subTest(target=target):
                code, seen = self.attempt(target)
                if code == 0:
                    points = {point for point, entry in mounts_of(seen).items()
                              if entry["type"] == "devpts" and point not in ("/dev/pts", "/dev/console")}
                    self.assertEqual(points, set())

    def test_the_host_is_not_mounted_over(self):
        self.attempt(self.victim)  # the frame compares the host's mount table too


class FakeProc(Attack):
    """CVE-2025-52881: what the runtime writes to /proc goes to files that the configuration or image put there."""

    NAMES = ("sys/net/ipv4/ip_forward", "sys/kernel/shmmni", "self/attr/exec", "self/attr/current",
             "self/attr/apparmor/exec", "self/oom_score_adj", "thread-self/attr/exec", "1/attr/exec", "self/setgroups",
             "self/uid_map", "self/loginuid", "self/timens_offsets")

    def fake(self, folder):
        for name in self.NAMES:
            path = os.path.join(folder, name)
            os.makedirs(os.path.dirname(path), exist_ok=True)
            with open(path, "w", encoding="ascii") as file:
                file.write("fake\n")
        os.makedirs(os.path.join(folder, "self/fd"), exist_ok=True)

    def check_fake(self, folder):
        for name in self.NAMES:
            self.assertEqual(read_text(os.path.join(folder, name)), "fake\n", name)

    CHANGES = {"linux": {"sysctl": {"net.ipv4.ip_forward": "1", "kernel.shmmni": "78"}},
               "process": {"oomScoreAdj": 300}}

    def test_a_folder_bound_over_proc(self):
        folder = os.path.join(self.dir, "fake")
        self.fake(folder)
        bundle = self.bundle("true", **self.CHANGES)
        for entry in bundle.config["mounts"]:
            if entry["destination"] == "/proc":
                entry.update(type="bind", source=folder, options=["rbind"])
        bundle.write()
        self.run_bundle(bundle)
        self.check_fake(folder)

    def test_folders_bound_into_proc(self):
        folder = os.path.join(self.dir, "fake")
        self.fake(folder)
        for target, source in (("/proc/sys", "sys"), ("/proc/self/attr", "self/attr"),
                               ("/proc/sys/kernel", "sys/kernel")):
            with self.subTest(target=target):
                mount = {"destination": target, "type": "bind", "source": f"{folder}/{source}", "options": ["bind"]}
                self.run_bundle(self.bundle("true", mounts=[mount], **self.CHANGES))
                self.check_fake(folder)

    @unlike("runc", "1.1.5 is from before the fix")
    def test_no_proc_at_all_but_the_images(self):
        bundle = self.bundle("true", writable=True, **self.CHANGES)
        bundle.config["mounts"] = without(bundle.config["mounts"], "/proc")
        bundle.write()
        self.fake(bundle.file("proc"))
        self.run_bundle(bundle)
        self.check_fake(bundle.file("proc"))

    def test_a_sysctl_that_is_a_path_is_refused(self):
        for name in ("net/../../self/oom_score_adj", "net.ipv4.../../../self/comm", "net./etc/passwd", "../../etc/x"):
            with self.subTest(name=name):
                bundle = self.bundle("true", linux={"sysctl": {name: "9"}})
                self.assertNotEqual(self.rt("create", "--bundle", bundle.path, self.new_id()).code, 0)

    @local_only("looks at the program from here")
    def test_an_exec_into_a_container_that_replaced_proc(self):
        script = ("mount -t tmpfs t /proc && mkdir -p /proc/self/fd /proc/self/attr /proc/thread-self/attr && "
                  "for f in self/attr/exec self/oom_score_adj thread-self/attr/exec self/comm; do "
                  "echo fake >/proc/$f; done; echo ready; while :; do sleep 0.05; done")
        out = os.path.join(self.dir, "out")
        with open(out, "wb") as file:
            c = self.create(self.bundle("sh", "-c", script, process={**ADMIN, "oomScoreAdj": 200}), stdout=file)
        self.ok("start", c)
        self.wait_text(out, "ready")
        pid_file = os.path.join(self.dir, "pid")
        result = self.call(["/bin/bash", "-c", 'exec "$@" 7</ 20</', "bash"] + self.command(
            "exec", "-d", "--pid-file", pid_file, c, "sleep", "601"))
        if result.code == 0:
            pid = int(read_text(pid_file))
            until(lambda: read_text(f"/proc/{pid}/comm") == "sleep\n", "the program runs")
            self.assertEqual(sorted(os.listdir(f"/proc/{pid}/fd")), ["0", "1", "2"], "closed without that /proc")
        init = self.state(c)["pid"]
        for name in ("self/attr/exec", "self/oom_score_adj", "thread-self/attr/exec", "self/comm"):
            self.assertEqual(read_text(f"/proc/{init}/root/proc/{name}"), "fake\n", name)


class FilesOfTheImage(Attack):
    """Files that the runtime reads in the image are no ordinary files."""

    @ours_only("runc and crun open it and wait for ever")
    def test_a_passwd_that_is_a_fifo_does_not_hold_the_call(self):
        bundle = self.bundle("sh", "-c", "echo $HOME", process={"user": {"uid": 1000, "gid": 1000}})
        for name in ("passwd", "group"):
            os.unlink(bundle.file(f"etc/{name}"))
            os.mkfifo(bundle.file(f"etc/{name}"))
        result = self.run_bundle(bundle)
        self.assertEqual((result.code, result.out), (0, "/\n"), result)

    def test_a_passwd_that_leads_to_the_host_is_not_read(self):
        with open(self.victim, "w", encoding="ascii") as file:
            file.write("mine:x:1000:1000::/home/of/the/host:/bin/sh\n")
        bundle = self.bundle("sh", "-c", "echo $HOME", process={"user": {"uid": 1000, "gid": 1000},
                                                                "env": ["PATH=/bin"]})
        os.unlink(bundle.file("etc/passwd"))
        os.symlink(self.victim, bundle.file("etc/passwd"))
        self.assertNotIn("host", self.run_bundle(bundle).out)

    def test_the_state_folder_is_closed_to_others(self):
        c = self.start()
        self.assertEqual(os.stat(self.root).st_mode & 0o022, 0)
        self.assertEqual(os.stat(os.path.join(self.root, c)).st_mode & 0o022, 0)
        if os.path.isdir(os.path.join(self.root, "@local")):
            for parent, _, files in os.walk(os.path.join(self.root, "@local")):
                self.assertEqual(os.stat(parent).st_mode & 0o077, 0, parent)
                for name in files:
                    self.assertEqual(os.lstat(os.path.join(parent, name)).st_mode & 0o022, 0, name)
        self.assertTrue(os.path.isdir(TOP))


if __name__ == "__main__":
    main()
