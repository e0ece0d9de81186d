#!/usr/bin/python3
"""The host library's sequences from create() to stop() against our guest in a VM, old and new wire layouts, statistics."""

import itertools
import json
import pathlib
import shutil
import signal
import tempfile

from host_library import SECONDS, pb
from wire_case import CODE, Sandbox, WireCase, main, vm


class Lifecycle(WireCase):
    def test_create_start_exec_kill_wait_stop(self):
        box = self.box("sh", "-c", "echo started; exec sleep 1000", streams=("stdin", "stdout", "stderr"))
        box.create()
        self.assertGreater(box.start(), 1)
        box.stdout.until("started\n")
        self.assertEqual(box.run_exec("x1", "sh", "-c", "echo in $(hostname); exit 7"), (7, f"in {box.id}\n".encode()))
        shell = box.exec("x2", ["sh"], streams=("stdin", "stdout", "stderr"))
        shell.create(shell.spec)
        pid = shell.start()
        self.assertNotEqual(pid, box.pid)
        shell.stdin.sendall(b"echo out; echo err >&2; exit 3\n")
        self.assertEqual(shell.wait(), 3)
        self.assertEqual((shell.stdout.all(), shell.stderr.all()), (b"out\n", b"err\n"))
        box.kill(signal.SIGTERM)  # the first process of a pid namespace has no handler for it: nothing happens
        box.kill(signal.SIGKILL)
        self.assertEqual(box.wait(), 128 + signal.SIGKILL)
        self.assertEqual(box.stop(), [])
        self.assert_no_file(f"/run/container/{box.id}")

    def test_a_program_that_ends_by_itself_is_stopped_all_the_same(self):
        box = self.running("sh", "-c", "echo text; exit 42", streams=("stdout", "stderr"))
        self.assertEqual(box.wait(), 42)
        self.assertEqual((box.stdout.all(), box.stderr.all()), (b"text\n", b""))
        self.assertGreater(box.exit.exited_at.seconds, 0)
        self.assertEqual(box.stop(), [])
        self.assert_no_file(f"/run/container/{box.id}")

    def test_an_id_can_be_used_again_after_stop(self):
        identity = self.new_id()
        for code in (1, 2):
            box = self.running("sh", "-c", f"exit {code}", identity=identity)
            self.assertEqual(box.wait(), code)
            self.assertEqual(box.stop(), [])

    def test_stop_before_start_and_delete_without_kill(self):
        box = self.box("sleep", "1000").create()
        self.assertEqual(box.stop(everything=False), [])
        running = self.running("sleep", "1000")
        running.context.Umount(pb.UmountRequest(path=running.root, flags=2), timeout=SECONDS)  # MNT_DETACH
        running.delete()  # what still runs is ended
        running.stopped = True
        running.close()
        self.assert_no_file(f"/run/container/{running.id}")

    def test_kill_of_everything_leaves_the_agent_and_is_seen_by_every_wait(self):
        boxes = [self.running("sleep", "1000") for _ in range(3)]
        extra = boxes[0].exec("x", ["sleep", "1000"])
        extra.create(extra.spec)
        extra.start()
        self.assertEqual(self.context.Kill(pb.KillRequest(pid=-1, signal=9), timeout=SECONDS).result, 0)
        for process in (*boxes, extra):
            self.assertEqual(process.wait(), 137)
        self.assertEqual(self.running("sh", "-c", "exit 5").wait(), 5)

    def test_a_disk_as_root_is_mounted_written_and_unmounted(self):
        def disk_rootfs(box):
            box.context.Mount(pb.MountRequest(type="ext4", source="/dev/vdb", destination=box.root, options=[]),
                              timeout=SECONDS)
        box = self.box("sh", "-c", "echo kept > /kept; cat /etc/hostname", rootfs=disk_rootfs, streams=("stdout",))
        box.create()
        box.start()
        self.assertEqual(box.wait(), 0)
        self.assertEqual(box.stdout.all().rstrip(b"\n"), box.id.encode())
        self.assertEqual(box.stop(), [])
        again = self.box("cat", "/kept", rootfs=disk_rootfs, streams=("stdout",)).create()
        again.start()
        self.assertEqual((again.wait(), again.stdout.all()), (0, b"kept\n"))
        self.assertEqual(again.stop(), [])

    def test_a_lower_and_an_upper_mount_are_unmounted_one_after_the_other(self):
        def layered(box):
            top = f"/run/container/{box.id}"
            for kind, source, name, options in (("none", self.host.base, "lower", ["bind", "ro"]),
                                                ("tmpfs", "tmpfs", "upper", [])):
                box.context.Mount(pb.MountRequest(type=kind, source=source, destination=f"{top}/{name}",
                                                  options=options), timeout=SECONDS)
            for name in ("diff", "work"):
                box.context.Mkdir(pb.MkdirRequest(path=f"{top}/upper/{name}", all=True), timeout=SECONDS)
            box.context.Mount(pb.MountRequest(type="overlay", source="overlay", destination=box.root, options=[
                f"lowerdir={top}/lower", f"upperdir={top}/upper/diff", f"workdir={top}/upper/work"]), timeout=SECONDS)
            box.to_unmount = [box.root, f"{top}/upper", f"{top}/lower"]
        box = self.box("sh", "-c", "echo x > /new && cat /new", rootfs=layered, streams=("stdout",)).create()
        box.start()
        self.assertEqual((box.wait(), box.stdout.all()), (0, b"x\n"))
        self.assertEqual(box.stop(), [])
        self.assert_no_file(f"/run/container/{box.id}")


class Layouts(WireCase):
    def test_the_old_layout_makes_an_init_and_an_exec(self):
        box = self.box("sh", "-c", "echo old; exec sleep 1000", streams=("stdout",)).create(layout="old")
        box.start()
        box.stdout.until("old\n")
        extra = box.exec("x", ["sh", "-c", "exit 9"])
        extra.create(extra.spec, layout="old")
        extra.start()
        self.assertEqual(extra.wait(), 9)

    def test_the_new_layout_with_options_that_are_ignored_upstream_is_not_mistaken_for_the_old_one(self):
        box = self.box("sh", "-c", "exit 4")
        box.create()
        box.start()
        self.assertEqual(box.wait(), 4)

    def test_a_runtime_path_is_refused(self):
        box = self.box()
        box.mount_root()
        self.fails(CODE.UNIMPLEMENTED, lambda: box.create_process(box.spec, ociRuntimePath="/usr/bin/runc"))
        self.assert_no_file(f"/run/container/{box.id}/config.json")

    def test_a_configuration_as_a_bundle_has_it_works_too(self):
        """No paths in namespaces, partial resources, /dev as a tmpfs: what an OCI bundle holds."""
        box = self.box("sh", "-c", "echo $HOME $TERM; ls -d /dev/null /dev/ptmx; id", streams=("stdout",))
        box.mount_root()
        spec = {
            "ociVersion": "1.2.0", "root": {"path": box.root},
            "process": {"cwd": "/", "user": {"uid": 1000, "gid": 1000}, "args": box.process["args"],
                        "env": ["PATH=/bin"]},
            "mounts": [{"destination": "/proc", "type": "proc", "source": "proc"},
                       {"destination": "/dev", "type": "tmpfs", "source": "tmpfs", "options": ["nosuid", "mode=755"]},
                       {"destination": "/dev/pts", "type": "devpts", "source": "devpts",
                        "options": ["newinstance", "ptmxmode=0666", "mode=0620"]}],
            "linux": {"namespaces": [{"type": "pid"}, {"type": "mount"}], "resources": {"pids": {"limit": 50}}},
        }
        box.create(json.dumps(spec).encode())
        box.start()
        self.assertEqual(box.wait(), 0)
        self.assertEqual(box.stdout.all().decode().splitlines(),
                         ["/tmp", "/dev/null", "/dev/ptmx", "uid=1000(app) gid=1000(app)"])

    def test_the_hosts_environment_rules(self):
        script = 'echo "$PATH|$HOME|$TERM"; id -G'
        box = self.running("sh", "-c", script, streams=("stdin", "stdout"), terminal=True,
                           process={"env": []}, process__user={"uid": 0, "gid": 0, "username": "app"})
        box.wait()
        words = box.stdout.all().decode().replace("\r", "").splitlines()
        self.assertTrue(words[0].endswith("|/tmp|xterm"), words)
        self.assertEqual(set(words[1].split()), {"1000", "10"})


class Statistics(WireCase):
    def ask(self, *ids, categories=()):
        answer = self.context.ContainerStatistics(
            pb.ContainerStatisticsRequest(container_ids=ids, categories=categories), timeout=SECONDS)
        return {one.container_id: one for one in answer.containers}

    def test_all_groups_of_a_container(self):
        box = self.running("sh", "-c", "i=0; while [ $i -lt 20000 ]; do i=$((i+1)); done; echo busy; exec sleep 1000",
                           streams=("stdout",), linux__resources={
                               "devices": [], "hugepageLimits": [], "memory": {"limit": 64 << 20},
                               "pids": {"limit": 77}, "cpu": {"quota": 200000, "period": 100000, "cpus": "", "mems": ""}})
        box.stdout.until("busy")
        stats = self.ask(box.id)[box.id]
        self.assertEqual((stats.process.current, stats.process.limit), (1, 77))
        self.assertEqual(stats.memory.limit_bytes, 64 << 20)
        self.assertGreater(stats.memory.usage_bytes, 0)
        self.assertGreater(stats.memory.page_faults, 0)
        self.assertGreater(stats.cpu.usage_usec, 0)
        self.assertGreaterEqual(stats.cpu.usage_usec, stats.cpu.user_usec)
        self.assertTrue(stats.HasField("memory_events") and stats.HasField("block_io"))
        self.assertEqual(stats.memory_events.oom_kill, 0)

    def test_only_what_was_asked_for(self):
        box = self.running()
        stats = self.ask(box.id, categories=[pb.STAT_CATEGORY_PROCESS])[box.id]
        self.assertTrue(stats.HasField("process"))
        for group in ("memory", "cpu", "block_io", "memory_events"):
            self.assertFalse(stats.HasField(group), group)
        self.assertEqual(len(stats.networks), 0)

    def test_no_ids_are_all_and_an_unlimited_container_says_so(self):
        first = self.running(linux__resources={"devices": [], "hugepageLimits": []})
        second = self.running()
        stats = self.ask()
        self.assertLessEqual({first.id, second.id}, set(stats))
        self.assertEqual(stats[first.id].memory.limit_bytes, 2**64 - 1)

    def test_an_unknown_id_does_not_hide_the_others(self):
        box = self.running()
        self.assertEqual(set(self.ask(box.id, "nobody")), {box.id})
        self.assert_code(CODE.INTERNAL, self.context.ContainerStatistics,
                         pb.ContainerStatisticsRequest(container_ids=["nobody"]))

    def test_an_oom_kill_is_counted_and_ends_the_process(self):
        box = self.running("sh", "-c", "sleep 1000 & tail /dev/zero; echo code $?; wait", streams=("stdout",),
                           linux__resources={"devices": [], "hugepageLimits": [], "memory": {"limit": 16 << 20}})
        box.stdout.until("code 137")
        events = self.ask(box.id)[box.id].memory_events
        self.assertEqual(events.oom_kill, 1)
        self.assertGreaterEqual(events.max, 1)


class ContainerInit(WireCase):
    """The agent's own program as a container's init: bound to /.cz-init."""

    def shim(self, *args, **options):
        bind = {"type": "none", "source": "/sbin/vminitd", "destination": "/.cz-init", "options": ["bind", "ro"]}
        return self.running("/.cz-init", "--", *args, more_mounts=[bind], **options)

    def test_it_gives_the_programs_code(self):
        self.assertEqual(self.shim("sh", "-c", "exit 33").wait(), 33)
        self.assertEqual(self.shim("sh", "-c", "kill -9 $$").wait(), 137)

    def test_it_forwards_signals_and_reaps_orphans(self):
        script = "trap 'echo got; exit 6' TERM; (sleep 0.01 &) ; (true &); echo ready; while :; do sleep 0.1; done"
        box = self.shim("sh", "-c", script, streams=("stdout",))
        box.stdout.until("ready")
        looks = itertools.count()

        def no_zombie():
            code, states = box.run_exec(f"ps{next(looks)}", "ps", "-o", "stat")
            return code == 0 and b"Z" not in states
        vm.until(no_zombie, "the orphans are reaped", 10)
        box.kill(signal.SIGTERM)
        self.assertEqual(box.wait(), 6)
        self.assertIn(b"got", box.stdout.all())

    def test_a_missing_program_is_an_error(self):
        box = self.shim("/no/such/program", streams=("stderr",))
        self.assertNotEqual(box.wait(), 0)
        self.assertIn(b"/no/such/program", box.stderr.all())


def boot():
    folder = tempfile.mkdtemp(prefix="arca-wire-disk-")
    try:
        root = vm.busybox_rootfs(pathlib.Path(folder) / "rootfs")
        Sandbox.boot(disks=[vm.ext4_image(root, pathlib.Path(folder) / "root.img")])
    except BaseException:
        shutil.rmtree(folder, ignore_errors=True)
        raise
    Sandbox.on_shut_down(shutil.rmtree, folder, True)


if __name__ == "__main__":
    main(boot)
