"""podman of a user without privileges: its own user namespace, mapped by newuidmap, and no cgroup of its own."""

import os
import re

import harness
import podman_engine

USER, FIRST, COUNT = 4711, 200000, 65536
OPTIONS = ("setpriv", f"--reuid={USER}", f"--regid={USER}", "--clear-groups", "--inh-caps=-all")


class RootlessPodman(podman_engine.Podman):
    """The same as the superuser's, called as a user with subordinate ids. /etc is this world's own."""

    def __init__(self, reference, subject):
        super().__init__(reference, subject)
        harness.program("newuidmap", "uidmap")
        # A user that the world's /etc knows. Where the tests run there is neither a session nor systemd.
        for name, line in (("passwd", f"tester:x:{USER}:{USER}::{self.home}:/bin/sh"),
                           ("subuid", f"tester:{FIRST}:{COUNT}"), ("subgid", f"tester:{FIRST}:{COUNT}")):
            with open(f"/etc/{name}", "a", encoding="ascii") as file:
                file.write(line + "\n")
        (self.home / "run").mkdir(mode=0o700)
        self.driver = "vfs"
        (self.home / "storage.conf").write_text(podman_engine.STORAGE_CONF.format(driver="vfs", home=self.home))
        self.env |= {"HOME": str(self.home), "XDG_RUNTIME_DIR": str(self.home / "run"), "USER": "tester", "TMPDIR": str(self.home / "run")}
        for path in (self.home, *self.home.rglob("*")):
            os.lchown(path, USER, USER)
        harness.work().chmod(0o755)

    def roots(self, runtime):
        return (str(self.home / "run" / os.path.basename(runtime.path)),)

    def argv(self, runtime):
        return [*OPTIONS, *super().argv(runtime)]

    def stop(self):
        super().stop()
        # Ends the process that keeps the user namespace.
        ended = self(self.subject, "system", "migrate")
        if ended.code:
            raise AssertionError(f"podman system migrate failed: {ended}")


class RootlessPodmanRun(harness.EngineCase):
    @classmethod
    def setUpClass(cls):
        cls.start(RootlessPodman)

    def test_output_exit_codes_and_ids(self):
        def scenario(runtime):
            done = self.engine.run(runtime, "--rm", "-i", "--", "sh", "-c", "id -u; cat /proc/self/uid_map; cat; echo err "
                                   ">&2; exit 7", stdin=b"from stdin\n")
            self.check(done, 7)
            self.assertEqual(done.text.split(), ["0", "0", str(USER), "1", "1", str(FIRST), str(COUNT), "from", "stdin"])
            return done.out, done.err
        self.compare(scenario)

    def test_everything_a_program_sees_is_equal(self):
        script = r"""
            grep -E '^(Cap|NoNewPrivs|Seccomp|Groups|Uid|Gid|SigBlk|SigIgn|SigCgt|Umask)' /proc/self/status
            cat /proc/self/limits /proc/self/oom_score_adj /proc/self/setgroups /proc/self/cgroup
            sed 's/^[0-9]* [0-9]* [0-9:]* //' /proc/self/mountinfo | sort | sed 's/[^ ]*vfs[^ ]*/<layer>/g'
            ls -l /dev | tail -n +2 | awk '{print $1,$3,$4,$5,$6,$NF}'
        """

        def scenario(runtime):
            done = self.check(self.engine.run(runtime, "--rm", "--user", "1000:1000", "--", "sh", "-c", script))
            text = harness.comparable_mounts(harness.plain(done.out))
            # The option `ro` is in the bundle; runc leaves the folder of the hierarchies writable for the user.
            text = re.sub(r"(?m)^(/ /sys/fs/cgroup) r[ow],", r"\1 <ro>,", text)
            # runc leaves a hybrid host's cgroup2 out.
            text = re.sub(r"(?m)^/ /sys/fs/cgroup/unified .*\n", "", text)
            self.assertGreater(len(text.splitlines()), 60)
            return text
        self.compare(scenario)

    def test_a_detached_container_is_entered_stopped_and_removed(self):
        def scenario(runtime):
            container = self.engine.begin(runtime, "--", "sh", "-c", "trap 'exit 9' TERM; echo ready; while :; do sleep "
                                                                    "0.1; done")
            entered = self.check(self.engine(runtime, "exec", "--user", "1000", container, "sh", "-c", "id -u; exit 3"), 3)
            self.check(self.engine(runtime, "stop", "-t", "20", container))
            waited = self.check(self.engine(runtime, "wait", container), out="9\n")
            self.check(self.engine(runtime, "rm", container))
            return entered.out, waited.out
        self.compare(scenario)

    def test_the_hosts_network_and_a_volume(self):
        folder = self.engine.home / "shared"
        folder.mkdir(exist_ok=True)
        os.chown(folder, USER, USER)

        def scenario(runtime):
            done = self.check(self.engine.run(runtime, "--rm", "--network", "host", "-v", f"{folder}:/data", "--", "sh",
                                              "-c", "ls /sys/class/net | grep -c lo; echo made >/data/file; cat /data/file"))
            self.assertEqual(os.stat(folder / "file").st_uid, USER)
            return done.out, done.err
        self.compare(scenario)
