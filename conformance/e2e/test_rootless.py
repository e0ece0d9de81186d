"""A user without privileges: with a user namespace of the bundle's own, and inside one as rootless engines make it.

The user has a range of subordinate ids. Nobody has delegated a cgroup to it.
"""

import json
import os
import shutil
import subprocess
import sys

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "lib"))
from arca_test import RUNTIME, Case, local_only, main, ours_only, read_text, until  # noqa: E402
from isolation import mount, umount  # noqa: E402

USER, FIRST, COUNT = 4711, 200000, 65536
OWN = [{"containerID": 0, "hostID": USER, "size": 1}]
RANGES = [*OWN, {"containerID": 1, "hostID": FIRST, "size": COUNT - 1}]
FILES = {"passwd": f"root:x:0:0:root:/root:/bin/sh\ntester:x:{USER}:{USER}::/tmp:/bin/sh\n",
         "subuid": f"tester:{FIRST}:{COUNT}\n", "subgid": f"tester:{FIRST}:{COUNT}\n"}
_mounted = []


def setUpModule():
    """The user and its ids, in the private mount namespace of this test program."""
    if not shutil.which("newuidmap"):
        raise RuntimeError("newuidmap is not installed (Debian package uidmap)")
    for name, text in FILES.items():
        path = f"/run/{name}"
        with open(path, "w", encoding="ascii") as file:
            file.write(text)
        mount(path, f"/etc/{name}", None, 0x1000)
        _mounted.append(name)


def tearDownModule():
    for name in _mounted:
        umount(f"/etc/{name}")
        os.unlink(f"/run/{name}")


class RootlessCase(Case):
    """The runtime is called as the user; state and bundles are that user's."""

    def setUp(self):
        super().setUp()
        self.root = os.path.join(self.dir, "root")
        Case.roots[-1] = self.root
        os.chown(self.dir, USER, USER)

    def user_command(self, *words):
        return ["setpriv", f"--reuid={USER}", f"--regid={USER}", "--clear-groups", "--inh-caps=-all", *map(str, words)]

    def command(self, *words, root=None):
        return self.user_command(*super().command(*words, root=root))

    def _check_leaks(self):
        self.kill_agents()  # its folder goes with this test's
        super()._check_leaks()

    def own(self, bundle):
        subprocess.run(["chown", "-Rh", f"{USER}:{USER}", bundle.path], check=True)
        return bundle

    def rootless_config(self):
        folder = os.path.join(self.dir, f"spec{len(os.listdir(self.dir))}")
        os.mkdir(folder)
        os.chown(folder, USER, USER)
        made = self.call(self.user_command(RUNTIME, "spec", "--rootless"), cwd=folder)
        self.assertEqual(made.code, 0, made)
        with open(os.path.join(folder, "config.json"), encoding="utf-8") as file:
            return json.load(file)

    def rootless(self, *args, maps=None, **changes):
        """A bundle of the user's with what `spec --rootless` wrote; `maps` in the place of its own id alone."""
        bundle = self.bundle(*(args or ("sleep", "600")), writable=True)
        config = self.rootless_config()
        config["process"].update(terminal=False, args=list(args or ("sleep", "600")))
        config["process"].update(changes.pop("process", {}))
        config["root"]["readonly"] = False
        if maps:
            config["linux"]["uidMappings"] = config["linux"]["gidMappings"] = maps
        config["linux"].update(changes.pop("linux", {}))
        config.update(changes)
        bundle.config = config
        bundle.write()
        return self.own(bundle)


@local_only("a guest's machine is made by a user with privileges over its devices")
class OwnNamespace(RootlessCase):
    """The bundle brings the user namespace."""

    def test_the_templates_container_runs(self):
        result = self.run_bundle(self.rootless("sh", "-c", "id -u; id -g; cat /proc/self/uid_map /proc/self/gid_map "
                                               "/proc/self/setgroups; echo x >/dev/null; ls /sys | head -1; hostname"))
        self.assertEqual(result.code, 0, result)
        words = result.out.split()
        self.assertEqual(words[:9], ["0", "0", "0", str(USER), "1", "0", str(USER), "1", "deny"], result)

    def test_all_commands(self):
        bundle = self.rootless("sh", "-c", "trap 'exit 7' TERM; while :; do sleep 0.05; done")
        c = self.create(bundle)
        self.assertEqual(self.state(c)["status"], "created")
        self.ok("start", c)
        self.assertEqual(self.state(c)["status"], "running")
        pid = self.state(c)["pid"]
        self.assertEqual(os.stat(f"/proc/{pid}").st_uid, USER)
        self.assertEqual(self.exec(c, "sh", "-c", "id -u; echo to stderr >&2; exit 3").code, 3)
        self.assertIn(pid, json.loads(self.ok("ps", "--format", "json", c).out))
        self.assertEqual([entry["id"] for entry in json.loads(self.ok("list", "--format", "json").out)], [c])
        self.ok("kill", c, "TERM")
        self.assertEqual(os.waitstatus_to_exitcode(self.wait_reaped(pid)), 7)
        self.assertEqual(self.state(c)["status"], "stopped")
        self.ok("delete", c)
        self.assert_gone(c)

    def test_run_passes_the_exit_code_and_force_deletes(self):
        self.assertEqual(self.run_bundle(self.rootless("sh", "-c", "exit 42")).code, 42)
        c = self.create(self.rootless())
        self.ok("start", c)
        self.ok("delete", "--force", c)
        self.assert_gone(c)

    def test_a_terminal(self):
        bundle = self.rootless("sh", "-c", "tty; stat -c %u /dev/console; test -t 0 && echo is one",
                               process={"terminal": True})
        listener = self.fd_socket()
        os.chmod(listener.path, 0o777)
        c = self.create(bundle, "--console-socket", listener.path)
        terminal = listener.receive_terminal()
        self.addCleanup(terminal.close)
        self.ok("start", c)
        terminal.read_until(b"is one")

    def test_ranges_of_subordinate_ids(self):
        bundle = self.rootless("sh", "-c", "cat /proc/self/uid_map /proc/self/setgroups; id -u; id -G; touch /tmp/f; "
                               "stat -c %u /tmp/f", maps=RANGES,
                               process={"user": {"uid": 1000, "gid": 1001, "additionalGids": [2000]}})
        os.chmod(bundle.file("tmp"), 0o1777)
        result = self.run_bundle(bundle)
        self.assertEqual(result.out.split(), ["0", str(USER), "1", "1", str(FIRST), str(COUNT - 1), "allow", "1000",
                                              "1001", "2000", "1000"], result)
        self.assertEqual(os.stat(bundle.file("tmp/f")).st_uid, FIRST + 999)

    def test_an_exec_as_another_mapped_user(self):
        c = self.create(self.rootless(maps=RANGES))
        self.ok("start", c)
        result = self.exec(c, ["--user", "1000:1001", "--additional-gids", "5"], "sh", "-c", "id -u; id -G")
        self.assertEqual(result.out.split(), ["1000", "1001", "5"], result)

    @ours_only("the texts are ours")
    def test_ids_of_others_are_refused_by_the_helper(self):
        bundle = self.rootless("true", maps=[*OWN, {"containerID": 1, "hostID": 1, "size": 10}])
        result = self.fails("create", "--bundle", bundle.path, self.new_id(), says="newgidmap")
        self.assertIn("not allowed", result.err)

    @ours_only("the texts are ours")
    def test_without_the_helpers_it_says_so(self):
        bundle = self.rootless("true", maps=RANGES)
        argv = self.command("create", "--bundle", bundle.path, self.new_id())
        argv[0] = "/usr/bin/setpriv"
        result = self.call(argv, env={"PATH": self.dir, "ARCA_AGENT_IDLE_SECONDS": "1"})
        self.assertEqual(result.code, 1, result)
        self.assertIn("newgidmap", result.err)
        self.assertIn("not found", result.err)

    @ours_only("runc and crun have other defaults")
    def test_state_is_kept_below_xdg_runtime_dir(self):
        runtime_dir = os.path.join(self.dir, "xdg")
        os.mkdir(runtime_dir, 0o700)
        os.chown(runtime_dir, USER, USER)
        bundle = self.rootless()
        c = self.new_id()
        env = {"PATH": "/usr/bin:/bin", "XDG_RUNTIME_DIR": runtime_dir, "ARCA_AGENT_IDLE_SECONDS": "1"}
        self.root = os.path.join(runtime_dir, "arca-runtime")
        Case.roots[-1] = self.root

        def call(*words):
            result = self.call(self.user_command(RUNTIME, *words), env=env)
            self.assertEqual(result.code, 0, result)
            return result
        call("create", "--bundle", bundle.path, c)
        folders = [self.root, os.path.join(self.root, c), os.path.join(self.root, "@local")]
        for folder in folders + [parent for parent, _, _ in os.walk(folders[2])]:
            found = os.stat(folder)
            self.assertEqual((found.st_uid, found.st_mode & 0o077), (USER, 0), folder)
        self.assertTrue(os.stat(self.root).st_mode & 0o1000, "the sticky bit keeps cleaners away")
        (agent,) = self.agents().values()
        self.assertEqual(os.stat(f"/proc/{agent}").st_uid, USER)
        call("delete", "--force", c)

    @ours_only("the agent is ours")
    def test_an_agent_serves_its_own_user_alone(self):
        self.create(self.rootless())
        (path,) = [os.path.join(parent, "rpc.sock") for parent, _, files in os.walk(self.root) if "rpc.sock" in files]
        other = self.call(["setpriv", "--reuid=4712", "--regid=4712", "--clear-groups", "busybox", "nc", "-w", "1",
                           f"local:{path}"])
        self.assertNotEqual(other.code, 0, other)

    def test_without_a_user_namespace_it_fails_and_leaves_nothing(self):
        bundle = self.rootless("true")
        bundle.config["linux"]["namespaces"] = [{"type": "mount"}]
        for member in ("uidMappings", "gidMappings"):
            bundle.config["linux"].pop(member)
        bundle.config.pop("hostname", None)
        bundle.write()
        c = self.new_id()
        result = self.rt("create", "--bundle", bundle.path, c)
        self.assertEqual(result.code, 1, result)
        self.assertIn("ermi", result.err)
        self.assert_gone(c)


@local_only("cgroups of a guest are the guest's")
class Cgroups(RootlessCase):
    def test_limits_that_cannot_be_set_are_an_error(self):
        bundle = self.rootless("true", linux={"resources": {"memory": {"limit": 1 << 26}}})
        self.fails("create", "--bundle", bundle.path, self.new_id(), says="cannot set")

    def test_a_cgroup_that_is_asked_for_by_name_must_be_there(self):
        bundle = self.rootless("true", linux={"cgroupsPath": f"/{self.new_id()}"})
        self.fails("create", "--bundle", bundle.path, self.new_id(), says="permission denied")

    def test_device_rules_are_given_up(self):
        bundle = self.rootless("echo", "ran", linux={"resources": {"devices": [{"allow": False, "access": "rwm"}]}})
        self.assertEqual(self.run_bundle(bundle).out, "ran\n")

    def test_the_flag_decides(self):
        for flag, code in (("--rootless=true", 0), ("--rootless=auto", 0), ("--rootless=false", 1)):
            with self.subTest(flag=flag):
                result = self.rt(flag, "run", "--bundle", self.rootless("true").path, self.new_id())
                self.assertEqual(result.code, code, result)
                if code:
                    self.assertIn("permission denied", result.err.lower())

    @ours_only("runc and crun word it in another way")
    def test_what_needs_a_cgroup_says_so(self):
        c = self.create(self.rootless())
        self.ok("start", c)
        self.fails("pause", c, says="cgroup")
        self.fails("update", "--memory", "64m", c, says="cgroup")
        self.assertEqual(self.state(c)["status"], "running")


@local_only("a guest's machine is made by a user with privileges over its devices")
class EngineNamespace(RootlessCase):
    """All calls come from inside a user namespace that somebody mapped, as podman does it."""

    def setUp(self):
        super().setUp()
        holder = self.spawn(["setpriv", f"--reuid={USER}", f"--regid={USER}", "--clear-groups", "unshare", "--user",
                             "--map-auto", "--map-root-user", "--mount", "--", "sleep", "600"])
        until(lambda: read_text(f"/proc/{holder.pid}/comm") == "sleep\n", "the namespace is there")
        self.holder = holder.pid
        self.assertEqual(read_text(f"/proc/{self.holder}/uid_map").split()[:3], ["0", str(USER), "1"])

    def command(self, *words, root=None):
        inside = ["nsenter", "--target", str(self.holder), "--user", "--mount", "--"]
        return inside + Case.command(self, *words, root=root)

    def plain(self, *args, **changes):
        return self.own(self.bundle(*(args or ("sleep", "600")), writable=True, **changes))

    def test_a_bundle_without_a_user_namespace_runs(self):
        result = self.run_bundle(self.plain(
            "sh", "-c", "id -u; head -1 /proc/self/uid_map; echo x >/dev/null; head -c 2 /dev/zero | wc -c; mount -t "
            "tmpfs t /tmp 2>&1 | grep -c denied; ls -ln /bin/busybox | awk '{print $3}'"))
        self.assertEqual(result.code, 0, result)
        words = result.out.split()
        self.assertEqual(words[:4] + words[4:5], ["0", "0", str(USER), "1", "2"], result)

    def test_all_commands(self):
        for flags in ([], ["--rootless=true"], ["--rootless", "auto"]):
            with self.subTest(flags=flags):
                c = self.new_id()
                self.ids.append(c)
                bundle = self.plain("sh", "-c", "trap 'exit 7' TERM; while :; do sleep 0.05; done")
                pid_file = os.path.join(self.dir, "pid")
                self.ok(*flags, "create", "--bundle", bundle.path, "--pid-file", pid_file, c)
                pid = int(read_text(pid_file))
                self.assertEqual(self.state(c)["pid"], pid)
                self.ok(*flags, "start", c)
                self.assertEqual(self.exec(c, "sh", "-c", "exit 3").code, 3)
                path = self.process_file("id", "-u", user={"uid": 1000, "gid": 1000})
                self.assertEqual(self.rt(*flags, "exec", "--process", path, c).out, "1000\n")
                self.assertIn(pid, json.loads(self.ok("ps", "--format", "json", c).out))
                self.ok(*flags, "kill", "--all", c, "TERM")
                self.assertEqual(os.waitstatus_to_exitcode(self.wait_reaped(pid)), 7)
                self.ok(*flags, "delete", c)
                self.assert_gone(c)

    def test_users_groups_and_terminals(self):
        result = self.run_bundle(self.plain("sh", "-c", "id -u; id -G; touch /tmp/f && stat -c %u /tmp/f", process={
            "user": {"uid": 1000, "gid": 1000, "additionalGids": [5, 6]}}, mounts=[
                {"destination": "/tmp", "type": "tmpfs", "source": "tmpfs", "options": ["mode=1777"]}]))
        self.assertEqual(result.out.split(), ["1000", "1000", "5", "6", "1000"], result)

    def test_the_hosts_network_and_its_sysfs(self):
        """--network=host: sysfs cannot be mounted there, the engine gives a bind."""
        bundle = self.plain("sh", "-c", "ls /sys/class/net; touch /sys/x 2>&1 | grep -o Read-only")
        bundle.config["linux"]["namespaces"] = [entry for entry in bundle.config["linux"]["namespaces"]
                                                if entry["type"] != "network"]
        for entry in bundle.config["mounts"]:
            if entry["destination"] == "/sys":
                entry.update(type="bind", source="/sys", options=["rbind", "nosuid", "noexec", "nodev", "ro"])
        bundle.write()
        result = self.run_bundle(bundle)
        self.assertIn("lo\n", result.out, result)
        self.assertIn("Read-only", result.out, result)

    def test_a_user_namespace_of_the_bundle_in_it(self):
        bundle = self.plain("cat", "/proc/self/uid_map")
        bundle.config["linux"]["namespaces"].append({"type": "user"})
        bundle.config["linux"]["uidMappings"] = bundle.config["linux"]["gidMappings"] = [
            {"containerID": 0, "hostID": 0, "size": 1}, {"containerID": 1, "hostID": 1, "size": 999}]
        bundle.write()
        result = self.run_bundle(bundle)
        self.assertEqual(result.out.split(), ["0", "0", "1", "1", "1", "999"], result)

    def test_read_only_binds_of_what_the_host_mounted_locked(self):
        """Flags that the host set cannot be taken off in a user namespace, so a remount must keep them."""
        source = os.path.join(self.dir, "source")
        os.mkdir(source)
        mount("tmpfs", source, "tmpfs", 2 | 4 | 8 | 1024)  # nosuid, nodev, noexec, noatime
        self.addCleanup(umount, source, 2)
        os.chown(source, USER, USER)
        holder = self.spawn(["setpriv", f"--reuid={USER}", f"--regid={USER}", "--clear-groups", "unshare", "--user",
                             "--map-auto", "--map-root-user", "--mount", "--", "sleep", "600"])
        until(lambda: read_text(f"/proc/{holder.pid}/comm") == "sleep\n", "the namespace is there")
        self.holder = holder.pid
        result = self.run_bundle(self.plain("sh", "-c", "touch /data/x; grep ' /data ' /proc/self/mountinfo", mounts=[
            {"destination": "/data", "type": "bind", "source": source, "options": ["rbind", "ro"]}]))
        self.assertIn("Read-only", result.err, result)
        flags = result.out.split()[5].split(",")
        self.assertLessEqual({"ro", "nosuid", "nodev", "noexec", "noatime"}, set(flags))


if __name__ == "__main__":
    main()
