"""What a program finds in its container: identity, limits, files, devices, cgroup and descriptors."""

import os
import sys

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "lib"))
from arca_test import (KIND, TAG, Case, default_config, environment, local_only, main, mounts_of, ours_only,  # noqa: E402
                       read_text, unlike, until)
from leaks import cgroup_roots  # noqa: E402

CAPS = {"CAP_CHOWN": 0, "CAP_KILL": 5, "CAP_NET_BIND_SERVICE": 10, "CAP_NET_ADMIN": 12, "CAP_SYS_ADMIN": 21}


def mask(*names):
    return sum(1 << CAPS[name] for name in names)


def status_of(text):
    return dict(line.split(":\t", 1) for line in text.splitlines() if ":\t" in line)


class Identity(Case):
    def test_user_group_and_additional_groups(self):
        for user, wanted in (({"uid": 0, "gid": 0}, "0 0 0"), ({"uid": 1000, "gid": 1001}, "1000 1001 1001"),
                             ({"uid": 7, "gid": 8, "additionalGids": [2000, 3000]}, "7 8 8 2000 3000"),
                             ({"uid": 4242, "gid": 4243}, "4242 4243 4243")):
            with self.subTest(user=user):
                self.assertEqual(self.inside("echo $(id -u) $(id -g) $(id -G)", process={"user": user}),
                                 wanted + "\n")

    def test_umask(self):
        for user, wanted in (({"uid": 0, "gid": 0}, "0022"), ({"uid": 0, "gid": 0, "umask": 0o77}, "0077"),
                             ({"uid": 0, "gid": 0, "umask": 0}, "0000")):
            with self.subTest(user=user):
                self.assertEqual(self.inside("umask", process={"user": user}), wanted + "\n")

    def capabilities(self, user, **sets):
        bundle = self.bundle("cat", "/proc/self/status",
                             process={"user": {"uid": user, "gid": user}, "capabilities": None})
        bundle.config["process"]["capabilities"] = {name: list(value) for name, value in sets.items()}
        bundle.write()
        result = self.run_bundle(bundle)
        self.assertEqual(result.code, 0, result)
        fields = status_of(result.out)
        return {name: int(fields["Cap" + name], 16) for name in ("Bnd", "Eff", "Prm", "Inh", "Amb")}

    def test_the_five_capability_sets_of_a_user(self):
        both, one = ("CAP_KILL", "CAP_NET_ADMIN"), ("CAP_NET_ADMIN",)
        got = self.capabilities(1000, bounding=both, effective=both, permitted=both, inheritable=one, ambient=one)
        # execve leaves a user only the ambient ones in effect
        self.assertEqual(got, {"Bnd": mask(*both), "Eff": mask(*one), "Prm": mask(*one), "Inh": mask(*one),
                               "Amb": mask(*one)})

    def test_the_capability_sets_of_root(self):
        both = ("CAP_CHOWN", "CAP_KILL")
        got = self.capabilities(0, bounding=both, effective=both, permitted=both, inheritable=(), ambient=())
        self.assertEqual(got, {"Bnd": mask(*both), "Eff": mask(*both), "Prm": mask(*both), "Inh": 0, "Amb": 0})

    def test_a_user_without_ambient_capabilities_has_none_in_effect(self):
        both = ("CAP_CHOWN", "CAP_KILL")
        got = self.capabilities(1000, bounding=both, effective=both, permitted=both)
        self.assertEqual((got["Eff"], got["Prm"], got["Bnd"]), (0, 0, mask(*both)))

    def test_empty_sets_mean_no_capability(self):
        got = self.capabilities(0, bounding=(), effective=(), permitted=(), inheritable=(), ambient=())
        self.assertEqual(set(got.values()), {0})

    def test_no_new_privileges(self):
        for value in (True, False):
            result = self.run_bundle(self.bundle("cat", "/proc/self/status", process={"noNewPrivileges": value}))
            self.assertEqual(status_of(result.out)["NoNewPrivs"], str(int(value)))

    def test_rlimits(self):
        limits = {"RLIMIT_NOFILE": ("Max open files", 100, 200), "RLIMIT_CORE": ("Max core file size", 0, 0),
                  "RLIMIT_NPROC": ("Max processes", 500, 600), "RLIMIT_STACK": ("Max stack size", 4 << 20, 8 << 20),
                  "RLIMIT_FSIZE": ("Max file size", 1 << 30, 1 << 31), "RLIMIT_CPU": ("Max cpu time", 1000, 2000),
                  "RLIMIT_DATA": ("Max data size", 1 << 30, 1 << 31),
                  "RLIMIT_AS": ("Max address space", 1 << 31, 1 << 32),
                  "RLIMIT_RSS": ("Max resident set", 1 << 30, 1 << 31), "RLIMIT_LOCKS": ("Max file locks", 10, 20),
                  "RLIMIT_MEMLOCK": ("Max locked memory", 4096, 8192), "RLIMIT_NICE": ("Max nice priority", 0, 0),
                  "RLIMIT_SIGPENDING": ("Max pending signals", 50, 60),
                  "RLIMIT_MSGQUEUE": ("Max msgqueue size", 4096, 8192),
                  "RLIMIT_RTPRIO": ("Max realtime priority", 0, 0),
                  "RLIMIT_RTTIME": ("Max realtime timeout", 5000, 6000)}
        asked = [{"type": name, "soft": soft, "hard": hard} for name, (_, soft, hard) in limits.items()]
        out = self.run_bundle(self.bundle("cat", "/proc/self/limits", process={"rlimits": asked})).out
        for name, (title, soft, hard) in limits.items():
            with self.subTest(limit=name):
                line = next(line for line in out.splitlines() if line.startswith(title + " "))
                self.assertEqual(line[len(title):].split()[:2], [str(soft), str(hard)])

    def test_oom_score_adj(self):
        self.assertEqual(self.inside("cat /proc/self/oom_score_adj", process={"oomScoreAdj": 500}), "500\n")

    def test_signals_are_neither_blocked_nor_ignored(self):
        c = self.start()
        for fields in (status_of(self.run_bundle(self.bundle("cat", "/proc/self/status")).out),
                       status_of(self.exec(c, "cat", "/proc/self/status").out)):
            self.assertEqual((int(fields["SigBlk"], 16), int(fields["SigIgn"], 16)), (0, 0))

    def test_nothing_of_the_callers_environment_reaches_the_program(self):
        bundle = self.bundle("env", process={"env": ["PATH=/bin", "GIVEN=1"]})
        result = self.run_bundle(bundle, env=environment(SECRET="hunter2", HOME="/callers/home"))
        names = {line.split("=")[0] for line in result.out.splitlines()}
        self.assertLessEqual({"PATH", "GIVEN"}, names)
        self.assertLessEqual(names, {"PATH", "GIVEN", "HOME"}, result)
        self.assertNotIn("callers", result.out)

    def test_hostname(self):
        self.assertEqual(self.inside("hostname", hostname="some-host"), "some-host\n")

    @unlike("runc", "1.1.5 knows no domainname")
    def test_domainname(self):
        self.assertEqual(self.inside("cat /proc/sys/kernel/domainname", domainname="example.org"), "example.org\n")

    def test_sysctl(self):
        out = self.inside("cat /proc/sys/net/ipv4/ip_forward /proc/sys/kernel/shmmni",
                          linux={"sysctl": {"net.ipv4.ip_forward": "1", "kernel.shmmni": "77"}})
        self.assertEqual(out, "1\n77\n")
        self.assertNotEqual(read_text("/proc/sys/kernel/shmmni"), "77\n", "set in the container only")

    def test_the_program_is_process_1_and_leads_a_session(self):
        out = self.inside("echo $$; cut -d' ' -f6 /proc/1/stat")
        self.assertEqual(out, "1\n1\n")


class Files(Case):
    def test_a_readonly_rootfs_refuses_writes(self):
        out = self.inside("touch /x 2>&1; touch /dev/shm/x && echo elsewhere fine")
        self.assertEqual(out, "touch: /x: Read-only file system\nelsewhere fine\n")

    def test_a_writable_rootfs_is_the_bundles_folder(self):
        bundle = self.bundle("sh", "-c", "echo data >/written", writable=True)
        self.assertEqual(self.run_bundle(bundle).code, 0)
        self.assertEqual(read_text(bundle.file("written")), "data\n")

    def test_nothing_of_the_host_is_seen(self):
        marker = os.path.join(self.dir, "marker")
        os.mkdir(marker)
        for flags in ([], ["--no-pivot"]):
            with self.subTest(flags=flags):
                bundle = self.bundle("sh", "-c", f"ls /; ls /..; test -e {marker} && echo host; true")
                listing = sorted(os.listdir(bundle.rootfs))
                self.assertEqual(self.run_bundle(bundle, *flags).out.split(), listing + listing)

    def test_no_mount_of_the_host_is_left_inside(self):
        points = set(mounts_of(self.inside("cat /proc/self/mountinfo")))
        strange = {point for point in points if not point.startswith(("/proc", "/dev", "/sys"))} - {"/"}
        self.assertEqual(strange, set())

    def test_masked_files_are_empty_and_masked_folders_too(self):
        bundle = self.bundle("sh", "-c", "cat /secret; ls -A /folder; touch /folder/x 2>/dev/null || echo no; echo end",
                             writable=True, linux={"maskedPaths": ["/secret", "/folder", "/absent/path"]})
        with open(bundle.file("secret"), "w", encoding="ascii") as file:
            file.write("secret\n")
        os.mkdir(bundle.file("folder"))
        with open(bundle.file("folder/inner"), "w", encoding="ascii") as file:
            file.write("secret\n")
        self.assertEqual(self.run_bundle(bundle).out, "no\nend\n")

    def test_readonly_paths_refuse_writes(self):
        bundle = self.bundle("sh", "-c", "touch /folder/x; echo a >/file; touch /other && cat /file", writable=True,
                             linux={"readonlyPaths": ["/folder", "/file", "/absent/path"]})
        os.mkdir(bundle.file("folder"))
        with open(bundle.file("file"), "w", encoding="ascii") as file:
            file.write("kept\n")
        result = self.run_bundle(bundle)
        self.assertEqual(result.out, "kept\n", result)
        self.assertEqual(result.err.count("Read-only file system"), 2, result)

    def test_the_templates_masked_and_readonly_paths_hold(self):
        linux = default_config()["linux"]
        masked = [path for path in linux["maskedPaths"] if os.path.exists(path)]
        readonly = [path for path in linux["readonlyPaths"] if os.path.exists(path)]
        self.assertTrue(masked and readonly)
        out = self.inside(f"cat /proc/self/mountinfo; echo ==; for p in {' '.join(masked)}; do "
                          "if test -d $p; then ls -A $p; else cat $p; fi; done")
        mounts, seen = out.split("==\n")
        self.assertEqual(seen, "")
        for path in masked + readonly:
            self.assertIn(path, mounts_of(mounts))
        for path in readonly:
            self.assertIn("ro", mounts_of(mounts)[path]["flags"], path)

    def test_default_devices(self):
        out = self.inside("cd /dev; for d in null zero full random urandom tty; do "
                          "stat -c '%n %F %t:%T %a %u:%g' $d; done")
        wanted = [f"{name} character special file {major}:{minor} 666 0:0" for name, major, minor in
                  (("null", 1, 3), ("zero", 1, 5), ("full", 1, 7), ("random", 1, 8), ("urandom", 1, 9), ("tty", 5, 0))]
        self.assertEqual(out.splitlines(), wanted)

    def test_default_devices_work(self):
        out = self.inside("echo gone >/dev/null; head -c 5 /dev/zero | wc -c; head -c 5 /dev/urandom | wc -c; "
                          "echo x 2>/dev/null >/dev/full || echo full")
        self.assertEqual(out.split(), ["5", "5", "full"])

    def test_asked_devices_are_made(self):
        devices = [{"path": "/dev/first", "type": "c", "major": 1, "minor": 3, "fileMode": 0o640, "uid": 5, "gid": 6},
                   {"path": "/dev/deep/er/block", "type": "b", "major": 7, "minor": 200, "fileMode": 0o600},
                   {"path": "/dev/pipe", "type": "p", "fileMode": 0o622}]
        out = self.inside("cd /dev; for d in first deep/er/block pipe; do stat -c '%n %F %t:%T %a %u:%g' $d; done",
                          linux={"devices": devices})
        self.assertEqual(out.splitlines(), ["first character special file 1:3 640 5:6",
                                            "deep/er/block block special file 7:c8 600 0:0", "pipe fifo 0:0 622 0:0"])

    def test_dev_links(self):
        out = self.inside("cd /dev; for l in fd stdin stdout stderr ptmx; do readlink $l; done; "
                          "echo hi | cat /dev/stdin")
        self.assertEqual(out.split()[:4], ["/proc/self/fd", "/proc/self/fd/0", "/proc/self/fd/1", "/proc/self/fd/2"])
        self.assertEqual(out.split()[4:], ["pts/ptmx", "hi"])

    def test_a_terminal_can_be_opened_inside(self):
        self.assertEqual(self.inside("exec 7<>/dev/ptmx && ls /dev/pts | tr '\\n' ' '"), "0 ptmx ")

    def test_dev_console_is_there_with_a_terminal(self):
        terminal = self.terminal()
        bundle = self.bundle("sh", "-c", "stat -c '%F' /dev/console; echo through >/dev/console; exit 0",
                             process={"terminal": True})
        child = terminal.spawn(self.command("run", "--bundle", bundle.path, self.new_id()), env=environment())
        self.processes.append(child)
        terminal.read_until(b"character special file")
        terminal.read_until(b"through")
        self.assertEqual(child.wait(15), 0)

    @unlike("crun", "does not change their owner")
    def test_a_user_can_open_its_stdio_again(self):
        ours, theirs = os.pipe()
        with os.fdopen(ours, "rb") as reading:
            bundle = self.bundle("sh", "-c", "echo again >/dev/stdout", process={"user": {"uid": 1000, "gid": 1000}})
            result = self.run_bundle(bundle)
            c = self.create(bundle, stdout=theirs)
            os.close(theirs)
            self.ok("start", c)
            self.assertEqual(reading.read(), b"again\n")
        self.assertEqual(result.out, "again\n", result)


class Program(Case):
    def test_path_is_looked_up_in_the_container(self):
        bundle = self.bundle("prog", process={"env": ["PATH=/nowhere:/opt/tools"]})
        os.makedirs(bundle.file("opt/tools"))
        os.symlink("/opt/tools/prog", bundle.file("opt/tools/absolute"))
        with open(bundle.file("opt/tools/prog"), "w", encoding="ascii") as file:
            file.write("#!/bin/sh\necho found $0\n")
        os.chmod(bundle.file("opt/tools/prog"), 0o755)
        self.assertEqual(self.run_bundle(bundle).out, "found /opt/tools/prog\n")
        # the target of an absolute link is the container's too
        bundle.config["process"]["args"] = ["absolute"]
        bundle.write()
        self.assertEqual(self.run_bundle(bundle).out, "found /opt/tools/absolute\n")

    def test_a_path_with_a_slash_is_not_looked_up(self):
        bundle = self.bundle("./prog", process={"cwd": "/srv", "env": ["PATH=/bin"]})
        with open(bundle.file("srv/prog"), "w", encoding="ascii") as file:
            file.write("#!/bin/sh\npwd\n")
        os.chmod(bundle.file("srv/prog"), 0o755)
        self.assertEqual(self.run_bundle(bundle).out, "/srv\n")

    def test_arguments_arrive_as_given(self):
        words = ["printf", "[%s]", "", "a b", "$HOME", "*", "\u00e9", "new\nline", "--flag"]
        self.assertEqual(self.run_bundle(self.bundle(*words)).out, "[][a b][$HOME][*][\u00e9][new\nline][--flag]")

    def test_only_stdio_is_open(self):
        call = ["/bin/bash", "-c", 'exec "$@" 5</etc/passwd 9</ 200</', "sh"]
        result = self.call(call + self.command("run", "--bundle", self.bundle("ls", "/proc/self/fd").path,
                                               self.new_id()))
        self.assertEqual(result.out.split(), ["0", "1", "2", "3"], result)  # 3 is ls reading the folder

    @local_only("the pid is a stand-in's")
    def test_the_created_init_holds_nothing_of_the_callers(self):
        marker = os.path.join(self.dir, "marker")
        with open(marker, "w", encoding="ascii"):
            pass
        c = self.new_id()
        self.ids.append(c)
        self.call(["/bin/sh", "-c", f'exec "$@" 5<{marker}', "sh"] + self.command(
            "create", "--bundle", self.bundle("sleep", "600").path, c))
        self.ok("start", c)
        pid = self.state(c)["pid"]
        until(lambda: read_text(f"/proc/{pid}/comm") == "sleep\n", "the init becomes the program")
        self.assertEqual(sorted(os.listdir(f"/proc/{pid}/fd")), ["0", "1", "2"])
        for agent in self.agents().values():
            held = [os.readlink(f"/proc/{agent}/fd/{fd}") for fd in os.listdir(f"/proc/{agent}/fd")]
            self.assertNotIn(marker, held, "the agent")

    def test_session_keyring_is_new_unless_asked_otherwise(self):
        if not os.path.exists("/proc/keys"):
            self.skipTest("the kernel has no /proc/keys (CONFIG_KEYS)")
        for flags, wanted in (([], "1"), (["--no-new-keyring"], "0")):
            with self.subTest(flags=flags):
                c = self.new_id()
                bundle = self.bundle("sh", "-c", f"grep -c {c} /proc/keys; true", linux={"maskedPaths": []})
                self.assertEqual(self.run_bundle(bundle, *flags, identity=c).out.strip(), wanted)


class Cgroup(Case):
    def folders(self, end):
        return {root: os.path.join(root, end.lstrip("/")) for root in cgroup_roots()}

    def check(self, bundle, matches):
        """The program's first look at its cgroup is the container's in every hierarchy that the runtime uses."""
        out = os.path.join(self.dir, "out")
        with open(out, "wb") as file:
            c = self.create(bundle, stdout=file)
        pid = self.state(c)["pid"]
        before = read_text(f"/proc/{pid}/cgroup").splitlines()
        # crun leaves the second version's hierarchy alone on such a host
        checked = [line for line in before if KIND != "crun" or not line.startswith("0:")]
        self.assertEqual([line for line in checked if not matches(line.split(":", 2)[2])], [])
        self.ok("start", c)
        self.wait_status(c, "stopped")
        self.assertEqual(read_text(out).splitlines(), before)
        self.ok("delete", c)

    @local_only("the program's cgroup is the guest's")
    def test_cgroups_path_is_joined_before_the_program_runs(self):
        path = f"/{TAG}-parent/inner"

        def remove_parents():
            for root in cgroup_roots():
                if os.path.isdir(f"{root}/{TAG}-parent"):
                    os.rmdir(f"{root}/{TAG}-parent")  # fails while there is anything in it
        self.addCleanup(remove_parents)
        bundle = self.bundle("cat", "/proc/self/cgroup", linux={"cgroupsPath": path})
        self.check(bundle, lambda joined: joined == path)
        for folder in self.folders(path).values():
            self.assertFalse(os.path.exists(folder), folder)

    @local_only("the program's cgroup is the guest's")
    def test_without_a_cgroups_path_the_id_names_it(self):
        bundle = self.bundle("cat", "/proc/self/cgroup", linux={"cgroupsPath": None})
        self.check(bundle, lambda joined: TAG in joined)

    def test_two_containers_are_apart(self):
        one, two = self.start(), self.start()
        first, second = (read_text(f"/proc/{self.state(c)['pid']}/cgroup") for c in (one, two))
        self.assertNotEqual(first, second)

    def test_an_exec_is_in_the_containers_cgroup(self):
        c = self.start()
        self.assertEqual(self.exec(c, "cat", "/proc/self/cgroup").out, self.exec(c, "cat", "/proc/1/cgroup").out)

    @ours_only("runc and crun run what they can of it")
    def test_a_cgroups_path_cannot_leave_the_hierarchy(self):
        bundle = self.bundle("true", linux={"cgroupsPath": f"/../../../../{TAG}-escape"})
        result = self.rt("run", "--bundle", bundle.path, self.new_id())
        self.assertFalse(os.path.exists(f"/{TAG}-escape"), result)


if __name__ == "__main__":
    main()
