"""`exec` and `ps`: a second process in a container, its options, its stdio and how it ends."""

import json
import os
import select
import signal
import sys

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "lib"))
from arca_test import (SANDBOX, Case, environment, local_only, main, ours_only, process_state, read_text,  # noqa: E402
                       unlike, until, wait_process)

STATUS = "grep -E '^(Cap|NoNewPrivs)' /proc/self/status"
CAP_KILL, CAP_NET_BIND_SERVICE, CAP_NET_ADMIN, CAP_AUDIT_WRITE = (1 << number for number in (5, 10, 12, 29))
TEMPLATE_CAPS = CAP_KILL | CAP_NET_BIND_SERVICE | CAP_AUDIT_WRITE


def status_fields(text):
    return {key: int(value, 16) for key, value in (line.split(":\t") for line in text.splitlines())}


class Basics(Case):
    def test_output_and_exit_code_are_those_of_the_program(self):
        c = self.start()
        for script, code, out, err in (("echo out; echo err >&2", 0, "out\n", "err\n"), ("exit 7", 7, "", ""),
                                       ("exit 255", 255, "", "")):
            with self.subTest(script=script):
                result = self.exec(c, "sh", "-c", script)
                self.assertEqual((result.code, result.out, result.err), (code, out, err))

    def test_words_after_the_id_belong_to_the_program(self):
        c = self.start()
        self.assertEqual(self.exec(c, "echo", "--user", "-e", "--", "--cwd=/x").out, "--user -e -- --cwd=/x\n")

    def test_works_in_a_created_container(self):
        c = self.create(self.bundle("sleep", "600"))
        self.assertEqual(self.exec(c, "echo", "early").out, "early\n")
        self.assertEqual(self.state(c)["status"], "created")

    @unlike("crun", "1.8.1 gives 1")
    def test_is_refused_in_a_stopped_container(self):
        c = self.start("true")
        self.wait_status(c, "stopped")
        self.fails("exec", c, "true", code=255, says="cannot exec in a stopped container")

    @local_only("the namespaces are of another kernel")
    def test_joins_every_namespace_and_the_cgroup_of_the_init(self):
        c = self.start()
        names = sorted(set(os.listdir("/proc/self/ns")) - {"pid_for_children", "time_for_children"})
        script = f"for n in {' '.join(names)}; do readlink /proc/%s/ns/$n; done; cat /proc/%s/cgroup"
        result = self.exec(c, "sh", "-c", script % (1, 1) + "; echo; " + script % ("self", "self"))
        first, second = result.out.split("\n\n")
        self.assertEqual(first.splitlines(), second.splitlines(), result)
        pid = self.state(c)["pid"]
        self.assertIn(os.readlink(f"/proc/{pid}/ns/mnt"), first)

    def test_holds_only_its_stdio(self):
        c = self.start()
        result = self.call(["/bin/sh", "-c", 'exec "$@" 5</etc/passwd 9</', "sh"]
                           + self.command("exec", c, "ls", "/proc/self/fd"))
        self.assertEqual(result.out.split(), ["0", "1", "2", "3"], result)  # 3 is ls reading the folder

    def test_many_at_once(self):
        c = self.start()
        running = [self.spawn(self.command("exec", c, "sh", "-c", f"cat; exit {code}"), stdin=-1)
                   for code in range(20, 28)]
        for process in running:
            process.stdin.close()
        self.assertEqual([wait_process(process) for process in running], list(range(20, 28)))

    def test_no_program_is_an_error(self):
        c = self.start()
        self.assertNotEqual(self.rt("exec", c).code, 0)

    def test_failures_of_exec_itself_give_255(self):
        c = self.start()
        for words, says in ((["nosuchprogram"], "executable file not found"), (["/etc"], ""),
                            (["/etc/passwd"], "permission denied")):
            with self.subTest(program=words):
                self.fails("exec", c, *words, code=255, says=says)

    @unlike("crun", "1.8.1 gives 1")
    def test_an_unknown_container_gives_255(self):
        self.fails("exec", self.new_id(), "true", code=255, says="does not exist")

    def test_dies_with_the_container(self):
        c = self.start()
        process = self.spawn(self.command("exec", c, "sh", "-c", "echo in; sleep 600"), stdout=-1)
        self.assertEqual(process.stdout.readline(), b"in\n")
        self.ok("kill", c, "KILL")
        self.assertEqual(wait_process(process), 137)
        process.stdout.close()

    def test_a_signal_to_the_caller_reaches_the_program(self):
        c = self.start()
        script = 'trap "exit 33" TERM; echo ready; while :; do sleep 0.05; done'
        process = self.spawn(self.command("exec", c, "sh", "-c", script), stdout=-1)
        self.assertEqual(process.stdout.readline(), b"ready\n")
        process.send_signal(signal.SIGTERM)
        self.assertEqual(wait_process(process), 33)
        process.stdout.close()


class Options(Case):
    def test_cwd(self):
        self.assertEqual(self.exec(self.start(), ["--cwd", "/tmp"], "pwd").out, "/tmp\n")

    def test_a_missing_cwd_is_an_error(self):
        c = self.start()
        self.assertNotEqual(self.exec(c, ["--cwd", "/nowhere"], "true").code, 0)

    @unlike("crun", "--env replaces the container's environment")
    def test_env_is_added_to_the_containers_and_commas_do_not_separate(self):
        c = self.start(process={"env": ["PATH=/bin", "BASE=base", "OVER=old"]})
        wanted = {"PATH=/bin", "BASE=base", "A=1,B=2", "C=", "OVER=new"}
        for flags in (["--env", "A=1,B=2", "--env", "OVER=new", "--env=C="],
                      ["-e", "A=1,B=2", "-e", "OVER=new", "-e", "C="]):
            with self.subTest(flags=flags):
                got = set(self.exec(c, flags, "env").out.splitlines())
                self.assertLessEqual(wanted, got)
                self.assertNotIn("OVER=old", got)

    def test_path_lookup_uses_the_containers_path(self):
        c = self.start(process={"env": ["PATH=/nowhere:/bin"]})
        self.assertEqual(self.exec(c, "echo", "found").out, "found\n")
        self.assertEqual(self.exec(c, ["--env", "PATH=/nowhere"], "echo", "found").code, 255)

    @unlike("crun", "starts from user 0 instead of the container's")
    def test_user_and_group(self):
        c = self.start(process={"user": {"uid": 5, "gid": 6}})
        for flags, wanted in (([], "5 6"), (["--user", "1000:1001"], "1000 1001"), (["-u", "1000"], "1000 6"),
                              (["--user=0:0"], "0 0")):
            with self.subTest(flags=flags):
                self.assertEqual(self.exec(c, flags, "sh", "-c", "echo $(id -u) $(id -g)").out, wanted + "\n")

    @unlike("crun", "gives these capabilities alone")
    def test_cap_is_added_to_bounding_effective_and_permitted(self):
        c = self.start()
        fields = status_fields(self.exec(c, ["--cap", "CAP_NET_ADMIN"], "sh", "-c", STATUS).out)
        for name in ("CapBnd", "CapEff", "CapPrm"):
            self.assertEqual(fields[name], TEMPLATE_CAPS | CAP_NET_ADMIN, name)

    def test_without_cap_the_sets_are_the_containers(self):
        fields = status_fields(self.exec(self.start(), "sh", "-c", STATUS).out)
        self.assertEqual({fields[name] for name in ("CapBnd", "CapEff", "CapPrm")}, {TEMPLATE_CAPS})

    def test_no_new_privs(self):
        c = self.start(process={"noNewPrivileges": False})
        for flags, wanted in (([], 0), (["--no-new-privs"], 1)):
            self.assertEqual(status_fields(self.exec(c, flags, "sh", "-c", STATUS).out)["NoNewPrivs"], wanted)

    def test_process_file_says_everything(self):
        c = self.start(process={"env": ["PATH=/bin", "BASE=base"]})
        path = self.process_file("sh", "-c", "pwd; id -u; env | sort", cwd="/tmp", env=["PATH=/bin", "X=1"],
                                 user={"uid": 1000, "gid": 1000})
        for flags in (["--process", path], [f"--process={path}"], ["-p", path]):
            with self.subTest(flags=flags):
                lines = self.ok("exec", *flags, c).out.splitlines()
                self.assertEqual(lines[:2], ["/tmp", "1000"])
                self.assertIn("X=1", lines)
                self.assertNotIn("BASE=base", lines)

    def test_a_process_file_is_checked(self):
        c = self.start()
        broken = os.path.join(self.dir, "broken.json")
        with open(broken, "w", encoding="ascii") as file:
            file.write('{"args": ["true"')
        for path in (broken, os.path.join(self.dir, "absent.json"), self.process_file(),
                     self.process_file("true", cwd="relative"), self.process_file("true", cwd="")):
            with self.subTest(path=path, text=read_text(path)):
                self.assertNotEqual(self.rt("exec", "--process", path, c).code, 0)

    @ours_only("runc says only `process args cannot be empty`, crun runs some of them; ours names the cause")
    def test_a_wrong_process_file_gives_255_and_names_the_member(self):
        c = self.start()
        for path, says in ((self.process_file(), "args"), (self.process_file("true", cwd="relative"), "cwd"),
                           (self.process_file("true", user={"uid": -1, "gid": 0}), "uid"),
                           (self.process_file("true", env="A=1"), "env")):
            with self.subTest(text=read_text(path)):
                self.fails("exec", "--process", path, c, code=255, says=says)


class Detached(Case):
    def test_the_process_is_a_child_of_the_caller_with_its_pid_in_the_pid_file(self):
        c, pid_file = self.start(), os.path.join(self.dir, "pid")
        for flag in ("--detach", "-d"):
            with self.subTest(flag=flag):
                self.ok("exec", flag, "--pid-file", pid_file, c, "sh", "-c", "sleep 600; exit 1")
                text = read_text(pid_file)
                self.assertRegex(text, r"\A[1-9][0-9]*\Z")
                pid = int(text)
                self.assertEqual(process_state(pid)[1], os.getpid())
                self.assertGreaterEqual(len(self.ok("ps", c).out.splitlines()), 3)
                if SANDBOX == "local":  # with a guest it is the stand-in of the init alone
                    self.assertIn(pid, json.loads(self.ok("ps", "--format", "json", c).out))
                os.kill(pid, signal.SIGKILL)
                self.assertEqual(os.waitstatus_to_exitcode(self.wait_reaped(pid)), -signal.SIGKILL)
                self.assertEqual(self.state(c)["status"], "running")

    def test_the_caller_reaps_the_exit_code(self):
        c, pid_file = self.start(), os.path.join(self.dir, "pid")
        self.ok("exec", "-d", "--pid-file", pid_file, c, "sh", "-c", "exit 9")
        self.assertEqual(os.waitstatus_to_exitcode(self.wait_reaped(int(read_text(pid_file)))), 9)

    def test_the_output_goes_where_the_callers_went(self):
        c, path = self.start(), os.path.join(self.dir, "out")
        with open(path, "wb") as out:
            self.ok("exec", "-d", c, "sh", "-c", "echo out; echo err >&2", stdout=out, stderr=out)
        self.wait_text(path, "err\n")
        self.assertEqual(read_text(path), "out\nerr\n")

    def test_a_missing_program_is_reported_and_leaves_no_pid_file(self):
        c, pid_file = self.start(), os.path.join(self.dir, "pid")
        self.fails("exec", "-d", "--pid-file", pid_file, c, "nosuchprogram", code=255,
                   says="executable file not found")
        self.assertFalse(os.path.exists(pid_file))

    def test_its_end_is_end_of_file_for_who_reads_its_output(self):
        c = self.start(process={"args": ["sleep", "600"]})
        ours, theirs = os.pipe()
        with os.fdopen(ours, "rb") as reading:
            self.ok("exec", "-d", c, "echo", "hi", stdout=theirs, stderr=theirs,
                    env=environment(ARCA_AGENT_IDLE_SECONDS="60"))
            os.close(theirs)
            data = b""
            while select.select([reading], [], [], 10)[0]:
                block = os.read(reading.fileno(), 4096)
                if not block:
                    break
                data += block
            else:
                self.fail(f"no end of file after {data!r}")
        self.assertEqual(data, b"hi\n")
        self.kill_agents()


class Stdin(Case):
    def test_end_of_input_ends_the_reader(self):
        c = self.start()
        self.assertEqual(self.exec(c, "cat", stdin=b"hi").out, "hi")

    def test_output_goes_on_after_the_end_of_input(self):
        result = self.exec(self.start(), "sh", "-c", "cat; sleep 0.2; echo done", stdin=b"hi ")
        self.assertEqual((result.code, result.out), (0, "hi done\n"))

    def test_65537_bytes_from_a_pipe(self):
        c = self.start()
        feeder = self.spawn(["head", "-c", "65537", "/dev/zero"], stdout=-1)
        result = self.exec(c, "wc", "-c", stdin=feeder.stdout)
        feeder.stdout.close()
        self.assertEqual(result.out.strip(), "65537", result)

    def test_a_program_that_does_not_read_ends_the_call(self):
        c = self.start()
        ours, theirs = os.pipe()
        try:
            self.assertEqual(self.exec(c, "true", stdin=ours).code, 0)
        finally:
            os.close(ours)
            os.close(theirs)

    def test_a_slow_reader_gets_every_byte(self):
        c, size = self.start(), 3_000_000
        process = self.spawn(self.command("exec", c, "head", "-c", str(size), "/dev/zero"), stdout=-1)
        other = self.exec(c, "echo", "not held up")  # while nobody reads the first one's output
        self.assertEqual(other.out, "not held up\n")
        self.assertIsNone(process.poll())
        self.assertEqual(len(process.stdout.read()), size)
        self.assertEqual(wait_process(process), 0)
        process.stdout.close()


class Ps(Case):
    def pids(self, c):
        return json.loads(self.ok("ps", "--format", "json", c).out)

    @local_only("json has the stand-in of the init alone")
    def test_lists_the_processes_of_this_container_and_no_other(self):
        c, other = self.start(), self.start()
        pid_file = os.path.join(self.dir, "pid")
        self.ok("exec", "-d", "--pid-file", pid_file, c, "sleep", "601")
        wanted = sorted([self.state(c)["pid"], int(read_text(pid_file))])
        self.assertEqual(sorted(self.pids(c)), wanted)
        self.assertEqual(self.pids(other), [self.state(other)["pid"]])

    @local_only("ps options, which are an error there")
    @unlike("crun", "takes no ps options")
    def test_the_table_has_a_header_and_takes_ps_options(self):
        c = self.start()
        pid = str(self.state(c)["pid"])
        header, row = self.ok("ps", c).out.splitlines()
        self.assertIn("PID", header.split())
        self.assertIn(pid, row.split())
        self.assertEqual(self.ok("ps", c, "-o", "pid,args").out.split(), ["PID", "COMMAND", pid, "sleep", "600"])

    def test_grandchildren_are_listed(self):
        c = self.start("sh", "-c", "sh -c 'sleep 601 & wait' & wait")
        until(lambda: len(self.ok("ps", c).out.splitlines()) == 4, "three processes")

    @local_only("ps options, which are an error there")
    @unlike("crun", "takes options without a PID column")
    def test_options_without_a_pid_column_are_an_error(self):
        self.fails("ps", self.start(), "-o", "args", says="PID field")


if __name__ == "__main__":
    main()
