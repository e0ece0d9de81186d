"""Wrong input: each is an error of one line that names the cause, with the right exit code, and leaves nothing."""

import json
import os
import signal
import sys

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "lib"))
from arca_test import KIND, Case, main, ours_only, read_text, unlike, until  # noqa: E402

BOTH = ("create", "run")


class Bundles(Case):
    def refused(self, bundle, says=(), commands=BOTH, **options):
        """`create` and `run` of the bundle fail in the same way and leave no container."""
        for command in commands:
            with self.subTest(command=command):
                c = self.new_id()
                self.fails(command, "--bundle", getattr(bundle, "path", bundle), c, says=says, **options)
                self.assertFalse(os.path.exists(os.path.join(self.root, c)))

    def test_no_such_bundle(self):
        self.refused(os.path.join(self.dir, "absent"), says="no such file or directory")

    def test_a_bundle_that_is_a_file(self):
        path = os.path.join(self.dir, "file")
        with open(path, "w", encoding="ascii"):
            pass
        self.refused(path, says="not a directory")

    def test_no_config_json(self):
        bundle = self.bundle("true")
        os.unlink(os.path.join(bundle.path, "config.json"))
        self.refused(bundle, says="config.json")

    def write_raw(self, bundle, data):
        with open(os.path.join(bundle.path, "config.json"), "wb") as file:
            file.write(data)

    def test_broken_json(self):
        bundle = self.bundle("true")
        whole = json.dumps(bundle.config).encode()
        for name, data in (("empty", b""), ("half", whole[:len(whole) // 2]), ("not an object", b"[]"),
                           ("text", b"hello"), ("nul bytes", b"\0" * 100),
                           ("bad escape", whole.replace(b'"hostname"', b'"host\\qname"')),
                           ("nested without end", b"[" * 200_000)):
            with self.subTest(case=name):
                self.write_raw(bundle, data)
                self.refused(bundle, commands=("create",))

    @ours_only("runc and crun name neither the file nor what is wrong with all of these")
    def test_broken_json_names_the_file(self):
        bundle = self.bundle("true")
        for data in (b"", b"{", b"[]", b"\xff\xfe{}", b'{"ociVersion": "1.0.0"} x'):
            with self.subTest(data=data):
                self.write_raw(bundle, data)
                self.refused(bundle, says="config.json")

    @ours_only("runc and crun read a file of any size")
    def test_20_mib_of_json(self):
        bundle = self.bundle("true", annotations={"padding": "x" * (20 << 20)})
        self.refused(bundle, says="config.json")

    @unlike("crun", "takes a relative cwd and args that are no list")
    def test_missing_and_wrong_members(self):
        for changes, says in (({"root": None}, "root"),
                              ({"process": {"args": []}}, "args"), ({"process": {"cwd": ""}}, "cwd"),
                              ({"process": {"cwd": "rel"}}, "cwd"), ({"process": {"args": "true"}}, "args"),
                              ({"process": {"user": {"uid": -1}}}, "uid"), ({"root": {"path": 7}}, "path"),
                              ({"linux": {"namespaces": [{"type": "warp"}]}}, "")):
            with self.subTest(changes=changes):
                # runc calls a missing root only "an empty path" and takes an unknown namespace for a Go error
                self.refused(self.bundle("true", **changes), commands=("create",),
                             says=says if KIND == "arca" else ())

    @ours_only("runc and crun do not check these")
    def test_more_wrong_members(self):
        both = [{"type": "pid"}, {"type": "mount"}, {"type": "pid"}]
        for changes, says in (({"process": {"cwd": None}}, "/process/cwd"),
                              ({"process": {"args": None}}, "/process/args"),
                              ({"root": {"path": None}}, "/root/path"),
                              ({"process": {"user": {"uid": 4294967296}}}, "/process/user/uid"),
                              ({"process": {"user": {"gid": 1.5}}}, "/process/user/gid"),
                              ({"process": {"terminal": "no"}}, "/process/terminal"),
                              ({"linux": {"namespaces": both}}, "/linux/namespaces"),
                              ({"mounts": [{"destination": 1}]}, "/destination: must be a string"),
                              ({"hostname": ["a"]}, "/hostname"), ({"ociVersion": "2.0.0"}, "/ociVersion"),
                              ({"ociVersion": None}, "/ociVersion")):
            with self.subTest(changes=changes):
                self.refused(self.bundle("true", **changes), says=says, commands=("create",))

    def test_unknown_members_are_ignored(self):
        bundle = self.bundle("echo", "hi", org_example_new={"a": [1]}, process={"newer": 1}, linux={"newer": {}})
        self.assertEqual(self.run_bundle(bundle).out, "hi\n")

    def test_a_missing_rootfs(self):
        self.refused(self.bundle("true", rootfs=False), says="no such file or directory")

    @unlike("runc", "says only what the container could not find then")
    def test_a_rootfs_that_is_a_file(self):
        bundle = self.bundle("true", rootfs=False)
        with open(bundle.rootfs, "w", encoding="ascii"):
            pass
        self.refused(bundle, says="not a directory")

    def test_a_missing_mount_source(self):
        mount = {"destination": "/data", "type": "bind", "source": "/no/such/source", "options": ["bind"]}
        self.refused(self.bundle("true", mounts=[mount], writable=True), says="no such file or directory")

    @unlike("crun", "passes them on as data, and tmpfs takes anything")
    def test_an_option_that_the_file_system_refuses(self):
        mount = {"destination": "/tmp", "type": "tmpfs", "source": "tmpfs", "options": ["nosuchoption=1"]}
        self.refused(self.bundle("true", mounts=[mount]), says="/tmp")


class Programs(Case):
    def refused(self, says, *args, **changes):
        bundle = self.bundle(*args, **changes)
        with open(bundle.file("data"), "w", encoding="ascii") as file:
            file.write("not a program\n")
        for command in BOTH:
            self.fails(command, "--bundle", bundle.path, self.new_id(), says=says)

    def test_not_found_in_path(self):
        self.refused("executable file not found", "nosuchprogram")

    def test_not_found_at_its_path(self):
        self.refused("no such file or directory", "/bin/nosuchprogram")

    def test_not_executable(self):
        self.refused("permission denied", "/data")

    @unlike("crun", "1.8.1 notices only in start")
    def test_a_directory(self):
        self.refused("is a directory" if KIND == "arca" else (), "/bin")

    def test_found_only_outside_of_the_rootfs(self):
        self.refused("not found", "python3", process={"env": ["PATH=/usr/bin:/bin"]})

    def test_a_name_in_path_that_is_not_executable(self):
        bundle = self.bundle("data", process={"env": ["PATH=/srv"]})
        with open(bundle.file("srv/data"), "w", encoding="ascii"):
            pass
        self.fails("create", "--bundle", bundle.path, self.new_id(), says="executable file not found")

    def test_a_file_of_no_known_format_fails_the_start(self):
        bundle = self.bundle("/broken")
        with open(bundle.file("broken"), "wb") as file:
            file.write(b"\x7fELFnot really")
        os.chmod(bundle.file("broken"), 0o755)
        c = self.new_id()
        self.ids.append(c)
        self.assertNotEqual(self.rt("run", "--bundle", bundle.path, c).code, 0)


class Ids(Case):
    WRONG = ("", ".", "..", "../x", "a/b", "a b", "a\nb", "\u00e9", "/", "a/", "./a")

    def root_listing(self):
        return sorted((parent, sorted(folders), sorted(files)) for parent, folders, files in os.walk(self.root))

    @unlike("crun", "1.8.1 takes .. and its delete removes the folder above the state root")
    def test_wrong_ids_are_refused_and_touch_nothing(self):
        beside = self.start()
        bundle = self.bundle("true")
        marker = os.path.join(self.dir, "marker")
        os.mkdir(marker)
        before = self.root_listing()
        for wrong in self.WRONG:
            for words, code in ((["create", "--bundle", bundle.path, wrong], {1}), (["state", wrong], {1}),
                                (["start", wrong], {1}), (["kill", wrong], {1}), (["delete", wrong], {1}),
                                (["exec", wrong, "true"], {1, 255}), (["ps", wrong], {1})):
                with self.subTest(id=wrong, command=words[0]):
                    result = self.rt(*words)
                    self.assertIn(result.code, code, result)
                    self.assertTrue(result.err, "no text")
        self.assertEqual([entry for entry in self.root_listing() if "@local" not in entry[0]],
                         [entry for entry in before if "@local" not in entry[0]])
        self.assertTrue(os.path.isdir(marker))
        self.assertEqual(self.state(beside)["status"], "running")

    @ours_only("runc does not say so for an empty id and gives 1 for exec")
    def test_each_command_names_the_rule(self):
        bundle = self.bundle("true")
        for wrong in self.WRONG:
            says = "invalid container ID format" if wrong else "container id cannot be empty"
            for words, code in ((["create", "--bundle", bundle.path, wrong], 1), (["state", wrong], 1),
                                (["start", wrong], 1), (["kill", wrong], 1), (["delete", wrong], 1),
                                (["delete", "--force", wrong], 1), (["exec", wrong, "true"], 255),
                                (["ps", wrong], 1)):
                with self.subTest(id=wrong, command=words[0]):
                    self.fails(*words, code=code, says=says)

    @unlike("crun", "cannot name a keyring so")
    def test_right_ids(self):
        for right in ("..0", "ok_1.2+3-", "-x", "a" * 64, "..."):
            with self.subTest(id=right):
                self.ids.append(right)
                self.ok("create", "--bundle", self.bundle("sleep", "600").path, "--", right)
                self.assertEqual(json.loads(self.ok("state", "--", right).out)["status"], "created")
                self.ok("delete", "--force", "--", right)

    def test_a_too_long_id_fails_cleanly(self):
        bundle = self.bundle("true")
        self.fails("create", "--bundle", bundle.path, "a" * 300)

    def test_an_id_in_use(self):
        c = self.start()
        pid = self.state(c)["pid"]
        for command in BOTH:
            self.fails(command, "--bundle", self.bundle("true").path, c, says="container with given ID already exists")
        self.assertEqual((self.state(c)["status"], self.state(c)["pid"]), ("running", pid))

    @unlike("crun", "gives 253 for ps")
    def test_an_unknown_id(self):
        for words, code in ((["state"], 1), (["start"], 1), (["kill"], 1), (["delete"], 1), (["ps"], 1)):
            with self.subTest(command=words[0]):
                self.fails(*words, self.new_id(), code=code, says="does not exist")


class States(Case):
    def test_start_twice(self):
        c = self.start()
        self.fails("start", c, says="cannot start an already running container")
        self.assertEqual(self.state(c)["status"], "running")

    def test_start_after_stop(self):
        c = self.start("true")
        self.wait_status(c, "stopped")
        self.fails("start", c, says="cannot start a container that has stopped")

    def test_kill_after_stop(self):
        c = self.start("true")
        self.wait_status(c, "stopped")
        self.fails("kill", c, "KILL", says="container not running")
        self.assertEqual(self.state(c)["status"], "stopped")


class Signals(Case):
    # In the container each signal that arrives is written down by its number.
    NUMBERS = tuple(range(1, 65))

    def listener(self):
        caught = " ".join(f"trap 'echo {n}' {n};" for n in self.NUMBERS
                          if n not in (signal.SIGKILL, signal.SIGSTOP, signal.SIGCHLD, 32, 33))
        path = os.path.join(self.dir, "signals")
        with open(path, "wb") as out:
            c = self.create(self.bundle("sh", "-c", f"{caught} echo ready; while :; do sleep 0.02; done"),
                            stdout=out)
        self.ok("start", c)
        self.wait_text(path, "ready\n")
        return c, path

    def arrives(self, c, path, words, number):
        before = len(read_text(path).splitlines())
        self.ok("kill", c, *words)
        until(lambda: len(read_text(path).splitlines()) > before, f"signal of {words} arrives")
        self.assertEqual(read_text(path).splitlines()[before:], [str(number)], words)

    @unlike("crun", "1.8.1 sends 0 for names that it does not know, lower-case ones among them")
    def test_names_and_numbers(self):
        c, path = self.listener()
        for words, number in (([], 15), (["TERM"], 15), (["term"], 15), (["SIGTERM"], 15), (["SigTerm"], 15),
                              (["15"], 15), (["HUP"], 1), (["sigusr1"], 10), (["USR2"], 12), (["37"], 37),
                              (["64"], 64), (["WINCH"], 28)):
            with self.subTest(signal=words):
                self.arrives(c, path, words, number)

    @ours_only("runc knows no real-time signals by name, crun spells them differently")
    def test_real_time_names(self):
        c, path = self.listener()
        for name, number in (("SIGRTMIN+3", 37), ("rtmin+3", 37), ("RTMIN", 34), ("RTMAX-1", 63), ("SIGRTMAX", 64),
                             ("RTMIN+30", 64), ("RTMAX-30", 34)):
            with self.subTest(signal=name):
                self.arrives(c, path, [name], number)

    def test_zero_is_a_probe(self):
        c, path = self.listener()
        self.ok("kill", c, "0")
        self.assertEqual(read_text(path), "ready\n")

    @unlike("crun", "1.8.1 sends 0 for names that it does not know")
    def test_wrong_ones_are_refused_and_nothing_is_sent(self):
        c, path = self.listener()
        for wrong in ("SIGFOO", "TERM9", "65", "-1", "1.5", "RTMIN99", "SIG", "SIGSIGTERM", "0x0f", " TERM"):
            if KIND != "arca" and wrong in ("65", "-1", "0x0f", "RTMIN99"):
                continue  # passed on to the kernel, or read in another base
            with self.subTest(signal=wrong):
                self.fails("kill", "--", c, wrong, says="unknown signal" if KIND == "arca" else ())
        self.assertEqual(read_text(path), "ready\n")

    @ours_only("runc takes an empty word for the default")
    def test_an_empty_signal_is_refused(self):
        c, path = self.listener()
        self.fails("kill", c, "", says="unknown signal")
        self.assertEqual(read_text(path), "ready\n")


class Usage(Case):
    def test_wrong_usage_is_an_error_with_help(self):
        for words in (["nosuchcommand"], ["create"], ["state"], ["state", "a", "b"], ["--nosuchflag", "list"],
                      ["create", "--nosuchflag", "x"], ["kill"], ["delete"], ["exec"], ["start", "a", "b"],
                      ["create", "--bundle"]):
            with self.subTest(words=words):
                result = self.rt(*words)
                if KIND == "runc" and words == ["nosuchcommand"]:
                    self.assertEqual(result.code, 3)  # its command-line library says so
                    continue
                self.assertIn(result.code, {1, 255} if words == ["exec"] else {1, 64} if KIND == "crun" else {1})
                self.assertTrue(result.err, result)

    @ours_only("runc prints the help on stdout")
    def test_help_of_a_wrong_call_goes_to_stderr(self):
        for words in (["nosuchcommand"], ["create"], ["create", "--nosuchflag", "x"]):
            with self.subTest(words=words):
                result = self.rt(*words)
                self.assertEqual(result.out, "", result)
                self.assertGreater(len(result.err.splitlines()), 1, result)


class LogFile(Case):
    def lines_of(self, path):
        return [json.loads(line) for line in read_text(path).splitlines()]

    def test_an_error_is_the_last_line_of_the_json_log(self):
        log = os.path.join(self.dir, "log.json")
        bundle = self.bundle("nosuchprogram")
        self.fails("--log", log, "--log-format", "json", "create", "--bundle", bundle.path, self.new_id())
        last = self.lines_of(log)[-1]
        self.assertEqual(last["level"], "error")
        self.assertIn("executable file", last["msg"])
        self.assertRegex(last["time"], r"^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?(Z|[+-]\d\d:\d\d)$")

    def test_the_log_is_appended_to(self):
        log = os.path.join(self.dir, "log.json")
        for _ in range(2):
            self.fails("--log", log, "--log-format=json", "state", self.new_id())
        self.assertEqual([line["level"] for line in self.lines_of(log)], ["error", "error"])

    @ours_only("the older runc and crun here also log other things or nothing")
    def test_a_failing_call_adds_one_line_and_a_working_call_none(self):
        log = os.path.join(self.dir, "log.json")
        c = self.start()
        self.ok("--log", log, "--log-format", "json", "state", c)
        self.ok("--log", log, "--log-format", "json", "exec", c, "true")
        self.assertEqual(read_text(log), "")
        self.rt("--log", log, "--log-format", "json", "exec", c, "no\u00e9\x01such\"program")
        self.assertEqual([line["level"] for line in self.lines_of(log)], ["error"])

    @unlike("crun", "has another text form")
    def test_the_text_log(self):
        log = os.path.join(self.dir, "log")
        self.fails("--log", log, "state", self.new_id(), says="does not exist")
        self.assertRegex(read_text(log), r'\Atime="[^"]+" level=error msg="[^\n]*does not exist[^\n]*"\n\Z')

    @unlike("crun", "has another text form")
    def test_stderr_has_the_bare_text_when_there_is_a_log(self):
        log = os.path.join(self.dir, "log")
        bare = self.fails("--log", log, "state", self.new_id(), says="does not exist")
        self.assertNotIn("level=", bare.err)
        self.assertIn("level=error msg=", self.fails("state", self.new_id()).err)

    def test_a_wrong_format_or_an_unwritable_log_is_an_error(self):
        self.assertEqual(self.rt("--log-format", "yaml", "list").code, 1)
        self.assertEqual(self.rt("--log", os.path.join(self.dir, "no/such/folder"), "list").code, 1)


if __name__ == "__main__":
    main()
