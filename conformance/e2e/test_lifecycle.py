"""A container's life as its caller sees it: create, start, run, kill, delete, state, list, flags and stdio."""

import datetime
import hashlib
import json
import os
import re
import select
import signal
import sys
import time

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "lib"))
from arca_test import (SANDBOX, Case, environment, killed_by, local_only, main, ours_only,  # noqa: E402
                       process_state, read_text, unlike, until, wait_process)

TRAP_TERM = 'trap "echo bye; exit 0" TERM; echo ready; while :; do sleep 0.05; done'


def with_fds(path, *numbers):
    """A shell prefix that opens `path` as these descriptors and then becomes the command after it."""
    opened = " ".join(f'{number}<"$0"' for number in numbers)
    return ["/bin/sh", "-c", f'exec "$@" {opened}', path]


class CreateAndStart(Case):
    def test_nothing_runs_before_start(self):
        bundle = self.bundle("sh", "-c", "echo ran")
        path = os.path.join(self.dir, "out")
        with open(path, "wb") as out:
            c = self.create(bundle, stdout=out)
        self.assertEqual(self.state(c)["status"], "created")
        self.assertEqual(read_text(path), "")
        self.ok("start", c)
        self.wait_status(c, "stopped")
        self.assertEqual(read_text(path), "ran\n")

    def test_a_whole_life(self):
        path = os.path.join(self.dir, "out")
        with open(path, "wb") as out:
            c = self.create(self.bundle("sh", "-c", TRAP_TERM), stdout=out)
        self.assertEqual(self.state(c)["status"], "created")
        self.ok("start", c)
        self.wait_text(path, "ready")
        state = self.state(c)
        self.assertEqual(state["status"], "running")
        pids = json.loads(self.ok("ps", "--format", "json", c).out)
        self.assertTrue(state["pid"] in pids if SANDBOX == "local" else pids, "the guest has pids of its own")
        self.ok("kill", c, "TERM")
        self.wait_status(c, "stopped")
        self.assertEqual(read_text(path), "ready\nbye\n")
        self.assertEqual(self.ok("delete", c).out, "")
        self.assert_gone(c)

    @local_only("the pid is a stand-in's, which becomes nothing else")
    def test_pid_file_state_and_ps_name_the_init_that_exists(self):
        pid_file = os.path.join(self.dir, "pid")
        c = self.create(self.bundle("sleep", "600"), "--pid-file", pid_file)
        text = read_text(pid_file)
        self.assertRegex(text, r"\A[1-9][0-9]*\Z", "digits and nothing else, no newline")
        pid = int(text)
        self.assertEqual(self.state(c)["pid"], pid)
        self.assertEqual(json.loads(self.ok("ps", "--format", "json", c).out), [pid])
        self.ok("start", c)
        self.assertEqual(self.state(c)["pid"], pid)
        until(lambda: read_text(f"/proc/{pid}/cmdline") == "sleep\x00600\x00", "the init becomes the program")

    def test_a_stale_pid_file_is_replaced(self):
        pid_file = os.path.join(self.dir, "pid")
        with open(pid_file, "w", encoding="ascii") as file:
            file.write("12345678901234567890\n")
        c = self.create(self.bundle("sleep", "600"), "--pid-file", pid_file)
        self.assertEqual(read_text(pid_file), str(self.state(c)["pid"]))

    def test_the_init_is_a_child_of_the_caller_after_create(self):
        c = self.create(self.bundle("sleep", "600"))
        pid = self.state(c)["pid"]
        self.assertEqual(process_state(pid)[1], os.getpid())
        self.ok("start", c)
        self.assertEqual(process_state(pid)[1], os.getpid())

    def test_the_caller_reaps_the_exit_code(self):
        c = self.create(self.bundle("sh", "-c", "exit 7"))
        pid = self.state(c)["pid"]
        self.ok("start", c)
        self.assertEqual(os.waitstatus_to_exitcode(self.wait_reaped(pid)), 7)

    def test_the_caller_reaps_the_signal(self):
        c = self.start()
        pid = self.state(c)["pid"]
        self.ok("kill", c, "KILL")
        self.assertEqual(os.waitstatus_to_exitcode(self.wait_reaped(pid)), killed_by(signal.SIGKILL))

    @unlike("crun", "calls an ended init that nobody has reaped running")
    def test_an_ended_init_that_nobody_reaped_counts_as_stopped(self):
        c = self.create(self.bundle("true"))
        pid = self.state(c)["pid"]
        self.reaps_while_calling = False
        self.ok("start", c)
        until(lambda: process_state(pid)[0] == "Z", "the init ends")
        self.assertEqual((self.state(c)["status"], self.state(c)["pid"]), ("stopped", 0))
        self.assertEqual(process_state(pid)[0], "Z", "it was still there when state was asked")

    def test_kill_ends_a_created_container(self):
        for number in (signal.SIGKILL,):
            c = self.create(self.bundle("sleep", "600"))
            pid = self.state(c)["pid"]
            self.ok("kill", c, str(int(number)))
            self.assertEqual(os.waitstatus_to_exitcode(self.wait_reaped(pid)), killed_by(number))
            self.wait_status(c, "stopped")

    def test_the_containers_end_is_end_of_file_for_who_reads_its_output(self):
        bundle = self.bundle("sh", "-c", "echo out; echo err >&2")
        ours, theirs = os.pipe()
        lasting = environment(ARCA_AGENT_IDLE_SECONDS="60")  # an agent that stays must not hold it open either
        with os.fdopen(ours, "rb") as reading:
            c = self.create(bundle, stdout=theirs, stderr=theirs, env=lasting)
            os.close(theirs)
            self.ok("start", c, env=lasting)
            data = b""
            while True:
                self.assertTrue(select.select([reading], [], [], 10)[0], f"no end of file after {data!r}")
                block = os.read(reading.fileno(), 4096)
                if not block:
                    break
                data += block
        self.assertEqual(sorted(data.split()), [b"err", b"out"])
        self.kill_agents()

    def test_changes_of_config_json_after_create_have_no_effect(self):
        bundle = self.bundle("sh", "-c", "echo first")
        path = os.path.join(self.dir, "out")
        with open(path, "wb") as out:
            c = self.create(bundle, stdout=out)
        bundle.config["process"]["args"][-1] = "echo second"
        bundle.write()
        self.ok("start", c)
        self.wait_status(c, "stopped")
        self.assertEqual(read_text(path), "first\n")


class Delete(Case):
    def test_of_a_created_container_works(self):
        c = self.create(self.bundle("sleep", "600"))
        self.ok("delete", c)
        self.assert_gone(c)

    def test_of_a_running_container_is_refused_and_changes_nothing(self):
        c = self.start()
        self.fails("delete", c, says="not stopped")
        self.assertEqual(self.state(c)["status"], "running")

    def test_force_ends_a_running_container(self):
        c = self.start()
        pid = self.state(c)["pid"]
        self.ok("delete", "--force", c)
        self.assert_gone(c)
        self.assertEqual(os.waitstatus_to_exitcode(self.wait_reaped(pid)), killed_by(signal.SIGKILL))

    def test_short_flag_and_flag_after_the_id(self):
        self.ok("delete", "-f", self.start())

    def test_of_an_unknown_id_says_so(self):
        self.fails("delete", self.new_id(), says="does not exist")

    def test_force_of_an_unknown_id_is_silent_success(self):
        result = self.ok("delete", "--force", self.new_id())
        self.assertEqual((result.out, result.err), ("", ""))

    def test_twice_is_an_error_the_second_time(self):
        c = self.start("true")
        self.wait_status(c, "stopped")
        self.ok("delete", c)
        self.fails("delete", c, says="does not exist")

    def test_leaves_no_process_of_a_container_without_a_pid_namespace(self):
        bundle = self.bundle("sh", "-c", "sleep 601 & sleep 602 & wait")
        bundle.config["linux"]["namespaces"] = [n for n in bundle.config["linux"]["namespaces"]
                                                if n["type"] != "pid"]
        bundle.write()
        c = self.create(bundle)
        self.ok("start", c)
        until(lambda: len(json.loads(self.ok("ps", "--format", "json", c).out)) == 3, "three processes")
        pids = json.loads(self.ok("ps", "--format", "json", c).out)
        self.ok("delete", "--force", c)
        self.processes_gone(pids)


class Run(Case):
    def test_exit_codes(self):
        for script, code in (("exit 0", 0), ("exit 7", 7), ("exit 255", 255), ("exit 300", 44),
                             ("sh -c 'kill -KILL $$'; exit $?", 137)):
            with self.subTest(script=script):
                self.assertEqual(self.run_bundle(self.bundle("sh", "-c", script)).code, code)

    def test_a_killed_program_gives_128_plus_the_signal(self):
        c = self.new_id()
        process = self.spawn(self.command("run", "--bundle", self.bundle("sleep", "600").path, c))
        until(lambda: '"running"' in self.rt("state", c).out, "it runs")
        self.ok("kill", c, "KILL")
        self.assertEqual(wait_process(process), 137)

    def test_removes_the_container(self):
        c = self.new_id()
        self.assertEqual(self.run_bundle(self.bundle("true"), identity=c).code, 0)
        self.assert_gone(c)

    @unlike("runc", "1.1.5 has no --keep")
    @unlike("crun", "1.8.1 keeps nothing for state to find")
    def test_keep_keeps_it(self):
        c = self.new_id()
        self.ids.append(c)
        self.assertEqual(self.run_bundle(self.bundle("sh", "-c", "exit 3"), "--keep", identity=c).code, 3)
        self.assertEqual(self.state(c)["status"], "stopped")
        self.ok("delete", c)
        self.assert_gone(c)

    def test_detached_leaves_a_running_child_of_the_caller(self):
        for flag in ("-d", "--detach"):
            with self.subTest(flag=flag):
                c, pid_file = self.new_id(), os.path.join(self.dir, "pid" + flag)
                self.ids.append(c)
                bundle = self.bundle("sleep", "600")
                self.ok("run", flag, "--bundle", bundle.path, "--pid-file", pid_file, c)
                state = self.state(c)
                self.assertEqual((state["status"], str(state["pid"])), ("running", read_text(pid_file)))
                self.assertEqual(process_state(state["pid"])[1], os.getpid())

    def test_stdout_and_stderr_stay_apart(self):
        result = self.run_bundle(self.bundle("sh", "-c", "echo out; echo err >&2"))
        self.assertEqual((result.out, result.err), ("out\n", "err\n"))

    def test_cat_ends_with_its_input(self):
        result = self.run_bundle(self.bundle("cat"), stdin=b"hi\n")
        self.assertEqual((result.code, result.out, result.err), (0, "hi\n", ""))

    def test_cat_ends_when_the_last_writer_of_a_pipe_goes(self):
        process = self.spawn(self.command("run", "--bundle", self.bundle("cat").path, self.new_id()),
                             stdin=-1, stdout=-1)
        process.stdin.write(b"one\n")
        process.stdin.flush()
        self.assertTrue(select.select([process.stdout], [], [], 10)[0], "what was written is not held back")
        self.assertEqual(os.read(process.stdout.fileno(), 100), b"one\n")
        process.stdin.close()
        self.assertEqual(process.stdout.read(), b"")
        self.assertEqual(wait_process(process), 0)
        process.stdout.close()

    def test_100_mib_through_cat_are_identical(self):
        path, size = os.path.join(self.dir, "data"), 100 << 20
        digest = hashlib.sha256()
        with open(path, "wb") as file:
            for _ in range(size >> 20):
                block = os.urandom(1 << 20)
                digest.update(block)
                file.write(block)
        feeder = self.spawn(["cat", path], stdout=-1)
        process = self.spawn(self.command("run", "--bundle", self.bundle("cat").path, self.new_id()),
                             stdin=feeder.stdout, stdout=-1)
        feeder.stdout.close()
        result, got, deadline = hashlib.sha256(), 0, time.monotonic() + 60
        while True:
            self.assertTrue(select.select([process.stdout], [], [], deadline - time.monotonic())[0],
                            f"stuck after {got} bytes")
            block = os.read(process.stdout.fileno(), 1 << 20)
            if not block:
                break
            got += len(block)
            result.update(block)
        process.stdout.close()
        self.assertEqual((wait_process(process), got, result.digest()), (0, size, digest.digest()))

    def test_signals_are_forwarded(self):
        for name in ("TERM", "INT", "HUP", "USR1", "USR2", "QUIT"):
            with self.subTest(signal=name):
                script = f'trap "exit 33" {name}; echo ready; while :; do sleep 0.05; done'
                bundle = self.bundle("sh", "-c", script)
                process = self.spawn(self.command("run", "--bundle", bundle.path, self.new_id()), stdout=-1)
                self.assertEqual(process.stdout.readline(), b"ready\n")
                process.send_signal(getattr(signal, "SIG" + name))
                self.assertEqual(wait_process(process), 33)
                process.stdout.close()


@local_only("descriptors of this host are of no use to another kernel, which is an error")
class Descriptors(Case):
    SHOW = "cat <&3; ls /proc/self/fd | tr '\\n' ' '"

    def setUp(self):
        super().setUp()
        self.text = os.path.join(self.dir, "text")
        with open(self.text, "w", encoding="ascii") as file:
            file.write("preserved\n")

    def call_with_fds(self, numbers, *words):
        return self.call(with_fds(self.text, *numbers) + self.command(*words))

    def test_preserve_fds_reaches_the_program(self):
        bundle = self.bundle("sh", "-c", "cat <&3; cat <&4")
        result = self.call_with_fds((3, 4), "run", "--preserve-fds", "2", "--bundle", bundle.path, self.new_id())
        self.assertEqual((result.code, result.out), (0, "preserved\npreserved\n"), result)

    def test_preserve_fds_reaches_an_exec(self):
        c = self.start()
        result = self.call_with_fds((3,), "exec", "--preserve-fds", "1", c, "sh", "-c", "cat <&3")
        self.assertEqual((result.code, result.out), (0, "preserved\n"), result)

    def test_preserve_fds_survives_create(self):
        out = os.path.join(self.dir, "out")
        c = self.new_id()
        self.ids.append(c)
        with open(out, "wb") as file:
            result = self.call(with_fds(self.text, 3) + self.command(
                "create", "--preserve-fds=1", "--bundle", self.bundle("sh", "-c", "cat <&3").path, c), stdout=file)
        self.assertEqual(result.code, 0, result)
        self.ok("start", c)
        self.wait_text(out, "preserved\n")

    @ours_only("crun passes on what is there; runc, a Go program, finds descriptors of its own at these numbers")
    def test_a_missing_preserved_fd_is_an_error(self):
        bundle = self.bundle("true")
        self.fails("run", "--preserve-fds", "3", "--bundle", bundle.path, self.new_id(), says="preserved-fd")

    @unlike("crun", "sets no LISTEN_PID")
    def test_listen_fds_reach_the_program_with_pid_1(self):
        bundle = self.bundle("sh", "-c", "cat <&3; echo $LISTEN_FDS $LISTEN_PID")
        result = self.call(["/bin/sh", "-c", 'export LISTEN_FDS=1 LISTEN_PID=$$; exec "$@" 3<"$0"', self.text]
                           + self.command("run", "--bundle", bundle.path, self.new_id()))
        self.assertEqual((result.code, result.out), (0, "preserved\n1 1\n"), result)

    @unlike("runc", "1.1.5 passes them on whatever LISTEN_PID says")
    @unlike("crun", "passes them on whatever LISTEN_PID says")
    def test_listen_fds_meant_for_another_process_are_not_passed(self):
        bundle = self.bundle("sh", "-c", "echo [$LISTEN_FDS]; ls /proc/self/fd | tr '\\n' ' '")
        result = self.call(["/bin/sh", "-c", 'export LISTEN_FDS=1 LISTEN_PID=1; exec "$@" 3<"$0"', self.text]
                           + self.command("run", "--bundle", bundle.path, self.new_id()))
        self.assertEqual((result.code, result.out), (0, "[]\n0 1 2 3 "), result)  # 3 is ls reading the folder


class Flags(Case):
    @unlike("crun", "knows no single-dash long flags")
    def test_every_spelling_of_a_flag_with_a_value(self):
        bundle = self.bundle("sleep", "600")
        for spelled in (["--bundle", bundle.path], [f"--bundle={bundle.path}"], ["-bundle", bundle.path],
                        [f"-bundle={bundle.path}"], ["-b", bundle.path], [f"-b={bundle.path}"]):
            with self.subTest(flags=spelled):
                c = self.new_id()
                self.ids.append(c)
                self.ok("create", *spelled, c)
                self.ok("delete", c)

    @unlike("crun", "knows no single-dash long flags")
    def test_every_spelling_of_a_global_flag(self):
        c = self.start()
        for spelled in (["--root", self.root], [f"--root={self.root}"], ["-root", self.root],
                        [f"-root={self.root}"]):
            with self.subTest(flags=spelled):
                self.assertEqual(self.call([self.command()[0], *spelled, "state", c]).code, 0)

    @ours_only("runc and crun take global flags only before the command")
    def test_global_flags_are_taken_after_the_command_too(self):
        c = self.start()
        self.assertEqual(self.call([self.command()[0], "state", "--root", self.root, c]).code, 0)

    def test_the_bundle_is_the_working_folder_unless_given(self):
        c = self.new_id()
        self.ids.append(c)
        self.ok("create", c, cwd=self.bundle("true").path)

    @unlike("crun", "takes the pid-file as relative to the bundle")
    def test_relative_paths_are_those_of_the_caller(self):
        bundle, c = self.bundle("true"), self.new_id()
        self.ids.append(c)
        self.ok("create", "--bundle", os.path.basename(bundle.path), "--pid-file", "here.pid", c, cwd=self.dir)
        self.assertEqual(read_text(os.path.join(self.dir, "here.pid")), str(self.state(c)["pid"]))
        self.assertEqual(self.state(c)["bundle"], bundle.path)

    @unlike("crun", "its boolean flags take no value")
    def test_a_boolean_flag_takes_a_value_after_an_equals_sign(self):
        c = self.start()
        self.fails("delete", "--force=false", c, says="not stopped")
        self.ok("delete", "--force=true", c)

    def test_no_pivot_and_no_new_keyring_are_taken(self):
        result = self.run_bundle(self.bundle("echo", "hi"), "--no-pivot", "--no-new-keyring")
        self.assertEqual((result.code, result.out), (0, "hi\n"), result)

    def test_version_and_help_go_to_stdout(self):
        for words, pattern in ((["--version"], r"\A\S+ version \S+\n(.*\n)*spec: 1\.\d+"), (["--help"], "create")):
            with self.subTest(words=words):
                result = self.call([self.command()[0], *words])
                self.assertEqual((result.code, result.err), (0, ""), result)
                self.assertRegex(result.out, pattern)

    def test_features_is_json_and_nothing_else(self):
        if self.call([self.command()[0], "features"]).code != 0:
            self.assertIn(os.path.basename(self.command()[0]), ("crun",), "only old crun has no features command")
            return
        features = json.loads(self.call([self.command()[0], "features"]).out)
        self.assertIn("user", features["linux"]["namespaces"])
        self.assertIn("rbind", features["mountOptions"])


class StateAndList(Case):
    def test_state_has_the_documented_members(self):
        bundle = self.bundle("sleep", "600", annotations={"org.example.key": "value"})
        c = self.create(bundle)
        state = self.state(c)
        self.assertRegex(state["ociVersion"], r"^1\.\d+\.\d+")
        self.assertEqual((state["id"], state["bundle"]), (c, bundle.path))
        self.assertEqual(state["annotations"], {"org.example.key": "value"})
        self.assertIs(type(state["pid"]), int)
        created = re.sub(r"\.\d+", "", state["created"]).replace("Z", "+00:00")
        age = datetime.datetime.now(datetime.timezone.utc) - datetime.datetime.fromisoformat(created)
        self.assertLess(abs(age.total_seconds()), 60)

    @unlike("crun", "prints rootfs as it stands in the config")
    def test_state_names_the_rootfs_by_its_full_path(self):
        bundle = self.bundle("sleep", "600")
        self.assertEqual(self.state(self.create(bundle))["rootfs"], bundle.rootfs)

    def test_state_leaves_empty_annotations_out(self):
        self.assertNotIn("annotations", self.state(self.create(self.bundle("sleep", "600"))))

    def test_list_shows_each_container(self):
        stopped, created, running = self.start("true"), self.create(self.bundle("true")), self.start()
        self.wait_status(stopped, "stopped")
        self.assertEqual(sorted(self.ok("list", "-q").out.split()), sorted([stopped, created, running]))
        listed = {entry["id"]: entry for entry in json.loads(self.ok("list", "--format", "json").out)}
        wanted = {stopped: "stopped", created: "created", running: "running"}
        self.assertEqual({key: entry["status"] for key, entry in listed.items()}, wanted)
        self.assertEqual(listed[running]["pid"], self.state(running)["pid"])
        self.assertEqual((listed[stopped]["pid"], listed[running]["owner"]), (0, "root"))

    @unlike("crun", "other columns")
    def test_list_prints_a_table(self):
        created, running = self.create(self.bundle("true")), self.start()
        header, *rows = self.ok("list").out.splitlines()
        self.assertEqual(header.split(), ["ID", "PID", "STATUS", "BUNDLE", "CREATED", "OWNER"])
        self.assertEqual({row.split()[0]: row.split()[2] for row in rows},
                         {created: "created", running: "running"})

    def test_list_of_an_empty_root(self):
        os.mkdir(self.root)
        self.assertEqual(self.ok("list", "-q").out, "")
        self.assertFalse(json.loads(self.ok("list", "-f", "json").out))
        self.assertEqual(len(self.ok("list").out.splitlines()), 1)

    def test_roots_are_separate(self):
        c = self.start()
        other = os.path.join(self.dir, "other")
        os.mkdir(other)
        self.fails("state", c, root=other, says="does not exist")
        self.assertEqual(self.ok("list", "-q", root=other).out, "")

    def test_spec_writes_a_config_once(self):
        folder = os.path.join(self.dir, "spec")
        os.mkdir(folder)
        self.ok("spec", "--bundle", folder)
        with open(os.path.join(folder, "config.json"), encoding="utf-8") as file:
            config = json.load(file)
        self.assertEqual((config["process"]["args"], config["process"]["terminal"], config["process"]["cwd"]),
                         (["sh"], True, "/"))
        self.fails("spec", "--bundle", folder, says="config.json exists")


if __name__ == "__main__":
    main()
