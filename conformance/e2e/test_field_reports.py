"""Twenty reports that users filed against runtimes of this kind; a class for each, named by what was reported.

More of the same kind: of 3 in ../vm/process_cases.py, of 5 and 17 in test_bad_input.py, of 7 in test_security.py, of 10
in test_hooks.py, of 13 in test_mounts.py.
"""

import json
import os
import subprocess
import sys
import time

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path.insert(0, os.path.join(HERE, "..", "lib"))
from arca_test import (SANDBOX, Case, busybox_rootfs, local_only, main, mounts_of, ours_only,  # noqa: E402
                       process_state, read_text, unlike, until, wait_process)
from isolation import mount, umount  # noqa: E402

APP = {"uid": 1000, "gid": 1000}


class KillAfterTheEnd(Case):
    """Report 1: an engine that kills a stopped container must be told in the words that it knows."""

    def stopped(self):
        c = self.start("true")
        self.wait_status(c, "stopped")
        return c

    def test_the_text_is_on_stderr_and_in_the_log(self):
        c, log = self.stopped(), os.path.join(self.dir, "log.json")
        self.fails("--log", log, "--log-format", "json", "kill", c, "KILL", says="container not running")
        self.assertEqual(json.loads(read_text(log).splitlines()[-1])["level"], "error")
        self.ok("delete", c)

    def test_an_unknown_id_is_another_error(self):
        result = self.fails("kill", self.new_id(), "KILL", says="does not exist")
        self.assertNotIn("not running", result.err)

    @unlike("crun", "calls it an error with --all too")
    def test_with_all_it_is_no_error(self):
        c = self.stopped()
        for words in (["kill", "--all", c, "KILL"], ["kill", "-a", c, "9"]):
            self.ok(*words)

    def test_a_program_that_ends_meanwhile(self):
        for _ in range(5):
            c = self.start("true")
            result = self.rt("kill", c, "0")
            self.assertIn(result.code, (0, 1), result)
            if result.code:
                self.assertRegex(result.err, "container not running|no such process|process already finished"
                                 "|is not running|No such process")
            self.wait_status(c, "stopped")
            self.ok("delete", c)


class ExecWithAConsoleSocketThatEndsAtOnce(Case):
    """Report 2: the output of a short program on a terminal was lost."""

    def test_all_output_can_be_read_later(self):
        c = self.start()
        listener = self.fd_socket()
        process = self.spawn(self.command("exec", "-d", "--tty", "--console-socket", listener.path, c, "echo", "hi"))
        listener.accept()
        before = time.monotonic()
        while time.monotonic() - before < 0.3:  # a caller that is slow to take the descriptor, not a wait for luck
            self.reap()
            time.sleep(0.05)
        terminal = listener.receive_terminal()
        self.addCleanup(terminal.close)
        self.assertEqual(wait_process(process, meanwhile=self.reap), 0)
        self.assertIn(b"hi", terminal.read_all())

    def test_without_a_socket_there_the_program_is_not_run(self):
        c = self.start(writable=True)
        nobody = os.path.join(self.dir, "nobody")
        result = self.rt("exec", "-d", "--tty", "--console-socket", nobody, c, "touch", "/ran")
        self.assertIn(result.code, (1, 255), result)
        self.assertEqual(self.exec(c, "ls", "/ran").out, "")


@ours_only("the agent's own interface")
@local_only("the agent is started here")
class ResizeBeforeTheStart(Case):
    """Report 3: a window size that came before the program was an error, and the program had a window of 0x0."""

    def setUp(self):
        super().setUp()
        sys.path.insert(0, os.path.join(HERE, "..", "vm"))
        from agent import Agent  # pylint: disable=import-outside-toplevel
        from guest import Guest, Process  # pylint: disable=import-outside-toplevel
        from host_agent import HostAgent  # pylint: disable=import-outside-toplevel
        from machine import read_all  # pylint: disable=import-outside-toplevel
        host = self.enterContext(HostAgent("/"))
        self.guest = Guest(host, self.enterContext(Agent(host)), busybox_rootfs())
        self.new_process = lambda name, stdout: Process(self.guest, self.c, name, False, stdout, False)
        self.read_all = read_all
        self.c = self.new_id()

    def size_seen(self, *resizes, console=None):
        holder_config = self.guest.configuration(["sleep", "600"])
        holder_config["linux"]["cgroupsPath"] = f"/{self.c}"
        holder = self.new_process(self.c, False).create(holder_config)
        holder.start()
        config = self.guest.configuration(["stty", "size"], terminal=True)
        if console:
            config["process"]["consoleSize"] = console
        process = self.new_process("e1", True).create(config)
        for rows, columns in resizes:
            process.call("ResizeProcess", rows=rows, columns=columns)
        process.start()
        out = self.read_all(process.stdout)
        process.wait()
        process.call("ResizeProcess", rows=1, columns=1)  # after the end: harmless
        process.delete()
        holder.kill(9)
        holder.finish()
        return out

    def test_the_latest_one_before_the_start_is_what_the_program_finds(self):
        self.assertEqual(self.size_seen((40, 120)), b"40 120\r\n")

    def test_it_wins_over_console_size(self):
        self.assertEqual(self.size_seen((30, 90), (41, 121), console={"height": 10, "width": 20}), b"41 121\r\n")

    def test_console_size_alone(self):
        self.assertEqual(self.size_seen(console={"height": 10, "width": 20}), b"10 20\r\n")


class NoEndOfFile(Case):
    """Report 4: there was no way to end the program's input."""

    def test_run(self):
        printed = subprocess.run(["printf", "hi"], capture_output=True, check=True).stdout
        self.assertEqual(self.run_bundle(self.bundle("cat"), stdin=printed).out, "hi")

    def test_exec_output_goes_on_until_it_ends_itself(self):
        result = self.exec(self.start(), "sh", "-c", "cat; sleep 0.3; echo done", stdin=b"hi")
        self.assertEqual(result.out, "hidone\n")

    def test_a_detached_program_sees_the_end_when_the_last_writer_goes(self):
        ours, theirs = os.pipe()
        out = os.path.join(self.dir, "out")
        with open(out, "wb") as file:
            c = self.create(self.bundle("wc", "-c"), stdin=ours, stdout=file)
        os.close(ours)
        self.ok("start", c)
        os.write(theirs, b"x" * 1000)
        self.assertEqual(self.state(c)["status"], "running")
        os.close(theirs)
        self.wait_status(c, "stopped")
        self.assertEqual(read_text(out).strip(), "1000")


class RealTimeSignalNames(Case):
    """Report 5: the names of the real-time signals were refused as unknown."""

    def killed_by(self, *words):
        # Not the first process of a namespace: that one takes only signals that it has a handler for.
        c = self.start(linux={"namespaces": [{"type": "mount"}, {"type": "uts"}]})
        pid = self.state(c)["pid"]
        self.ok("kill", c, *words)
        status = self.wait_reaped(pid)
        return os.WTERMSIG(status) if os.WIFSIGNALED(status) else os.WEXITSTATUS(status) - 128

    @ours_only("runc knows no real-time signals by name, crun spells them differently")
    def test_names_in_any_case_count_from_34(self):
        for word, number in (("SIGRTMIN+3", 37), ("rtmin+3", 37), ("RTMAX-1", 63), ("37", 37)):
            with self.subTest(word=word):
                self.assertEqual(self.killed_by(word), number)

    @unlike("crun", "1.8.1 sends 0 for names that it does not know, lower-case ones among them")
    def test_plain_names_and_the_default(self):
        for words in (["term"], ["SigTerm"], []):
            with self.subTest(words=words):
                path = os.path.join(self.dir, "ready")
                with open(path, "wb") as out:
                    c = self.create(self.bundle("sh", "-c", "trap 'exit 7' TERM; echo ready; while :; do sleep 0.02; "
                                                "done"), stdout=out)
                pid = self.state(c)["pid"]
                self.ok("start", c)
                self.wait_text(path, "ready")
                self.ok("kill", c, *words)
                self.assertEqual(os.WEXITSTATUS(self.wait_reaped(pid)), 7)

    @ours_only("runc and crun pass some of them on")
    def test_all_else_is_refused_and_nothing_sent(self):
        c = self.start()
        for word in ("SIGFOO", "65", "-1", "RTMIN99", "", "TERM9"):
            with self.subTest(word=word):
                self.fails("kill", "--", c, word, says="unknown signal")
        self.assertEqual(self.state(c)["status"], "running")


class AdditionalGidsOfAnExec(Case):
    """Report 6: an exec got the groups of the container's process instead of its own."""

    def setUp(self):
        super().setUp()
        self.c = self.start(process={"user": {"uid": 0, "gid": 0, "additionalGids": [10]}})

    def groups(self, *words):
        result = self.ok("exec", *words)
        return result.out.split()

    def test_those_of_the_process_file(self):
        path = self.process_file("id", "-G", user={**APP, "additionalGids": [2000, 3000]})
        self.assertEqual(self.groups("--process", path, self.c), ["1000", "2000", "3000"])

    @unlike("crun", "1.8.1 takes no --additional-gids")
    @unlike("runc", "1.1.5 replaces the container's groups by those of the flag")
    def test_the_flag_adds_to_the_containers(self):
        self.assertEqual(self.groups("--additional-gids", "4000", self.c, "id", "-G"), ["0", "10", "4000"])
        self.assertEqual(self.groups("-g", "4000", "-g", "5000", self.c, "id", "-G"), ["0", "10", "4000", "5000"])

    def test_none_given_means_none(self):
        path = self.process_file("id", "-G", user=APP)
        result = self.call(["setpriv", "--groups", "77,88", "--"] + self.command("exec", "--process", path, self.c))
        self.assertEqual(result.out.split(), ["1000"], result)


class HomeOfANumericUser(Case):
    """Report 7: HOME was looked up only for a user given by name."""

    def home(self, user, passwd=True, env=("PATH=/bin",)):
        bundle = self.bundle("sh", "-c", "echo [$HOME]", process={"user": user, "env": list(env)})
        if not passwd:
            os.unlink(bundle.file("etc/passwd"))
        return self.run_bundle(bundle).out.strip()

    def test_the_entry_counts(self):
        self.assertEqual(self.home(APP), "[/srv/app]")
        self.assertEqual(self.home({"uid": 0, "gid": 0}), "[/root]")

    @unlike("crun", "leaves it out without an entry")
    def test_the_root_folder_without_one(self):
        self.assertEqual(self.home({"uid": 4242, "gid": 4242}), "[/]")
        self.assertEqual(self.home(APP, passwd=False), "[/]")

    def test_one_in_the_environment_wins(self):
        self.assertEqual(self.home(APP, env=("PATH=/bin", "HOME=/x")), "[/x]")

    @unlike("crun", "takes an empty one for set")
    @unlike("runc", "1.1.5 takes an empty one for set")
    def test_an_empty_one_counts_as_unset(self):
        self.assertEqual(self.home(APP, env=("PATH=/bin", "HOME=")), "[/srv/app]")

    def test_exec_too(self):
        c = self.start(process={"env": ["PATH=/bin"]})
        path = self.process_file("sh", "-c", "echo [$HOME]", user=APP)
        self.assertEqual(self.ok("exec", "--process", path, c).out, "[/srv/app]\n")

    @unlike("crun", "leaves it out without an entry")
    def test_a_passwd_of_odd_lines(self):
        bundle = self.bundle("sh", "-c", "echo [$HOME]", process={"user": APP, "env": ["PATH=/bin"]})
        with open(bundle.file("etc/passwd"), "wb") as file:
            file.write(b"#note\n\n:::\nshort:x\nbad:x:one:1::/bad:/bin/sh\n" + b"\xff\xfe" * 50 +
                       b"\nbig:x:99999999999999999999:1::/big:/bin/sh\napp:x:1000:1000::/found:/bin/sh")
        self.assertEqual(self.run_bundle(bundle).out, "[/found]\n")


class UserWithoutAPasswdEntry(Case):
    """Report 8: a plain numeric user needed an entry in a file that the image did not have."""

    def setUp(self):
        super().setUp()
        self.plain = self.bundle("sleep", "600", process={"user": APP})
        for name in ("passwd", "group"):
            os.unlink(self.plain.file(f"etc/{name}"))

    @unlike("crun", "starts from user 0 instead of the container's")
    def test_run_and_exec(self):
        c = self.create(self.plain)
        self.ok("start", c)
        for flags, wanted in (([], ["1000", "1000"]), (["--user", "1000:1000"], ["1000", "1000"]),
                              (["--user", "502:20"], ["502", "20"])):
            with self.subTest(flags=flags):
                self.assertEqual(self.exec(c, flags, "sh", "-c", "id -u; id -g").out.split(), wanted)

    @unlike("crun", "starts from group 0")
    def test_a_uid_alone_keeps_the_group(self):
        c = self.create(self.plain)
        self.assertEqual(self.exec(c, ["--user", "5"], "sh", "-c", "id -u; id -g").out.split(), ["5", "1000"])

    @unlike("crun", "1.8.1 reads what digits there are")
    @unlike("runc", "1.1.5 cuts numbers to 32 bits")
    def test_wrong_forms_are_refused(self):
        c = self.create(self.plain)
        for form in ("1000:", ":5", "-1", "4294967296", "1000:-1", "1000:4294967296", "1:2:3", "1.5", " 1"):
            with self.subTest(user=form):
                self.assertIn(self.exec(c, [f"--user={form}"], "true").code, (1, 255))

    @ours_only("runc and crun word it in their own ways")
    def test_a_name_is_refused_and_named(self):
        """--user takes numbers; names are resolved by the agent, for callers of its own protocol."""
        c = self.start()
        for user in ("ghost", "1000:staff"):
            self.fails("exec", "--user", user, c, "true", code=255, says=user.split(":")[-1])


class WorkingFolder(Case):
    """Report 9: a folder that only one of the two users may enter."""

    def pwd(self, cwd, prepare, user=APP, mapped=False):
        bundle = self.bundle("pwd", process={"cwd": cwd, "user": user}, writable=True)
        if mapped:
            subprocess.run(["chown", "-Rh", "100000:100000", bundle.rootfs], check=True)
            bundle.config["linux"]["namespaces"].append({"type": "user"})
            bundle.config["linux"]["uidMappings"] = bundle.config["linux"]["gidMappings"] = [
                {"containerID": 0, "hostID": 100000, "size": 65536}]
            bundle.write()
        prepare(bundle)
        return bundle, self.run_bundle(bundle)

    @staticmethod
    def folder(name, mode, owner):
        def make(bundle):
            os.makedirs(bundle.file(name))
            os.chmod(bundle.file(name), mode)
            os.chown(bundle.file(name), owner, owner)
        return make

    def test_open_to_the_containers_user_only(self):
        _, result = self.pwd("/home/app", self.folder("home/app", 0o700, 101000), mapped=True)
        self.assertEqual((result.code, result.out), (0, "/home/app\n"), result)

    def test_open_to_the_starting_user_only(self):
        _, result = self.pwd("/priv", self.folder("priv", 0o700, 0))
        self.assertEqual((result.code, result.out), (0, "/priv\n"), result)

    def test_a_missing_one_is_made(self):
        bundle, result = self.pwd("/new/dir", lambda bundle: None)
        self.assertEqual((result.code, result.out), (0, "/new/dir\n"), result)
        self.assertEqual(os.stat(bundle.file("new/dir")).st_mode & 0o7777, 0o755)

    @unlike("crun", "takes it as relative to the root")
    def test_a_relative_one_is_an_error(self):
        self.fails("create", "--bundle", self.bundle("pwd", process={"cwd": "rel"}).path, self.new_id(), says="cwd")

    def test_one_that_is_a_file_is_an_error(self):
        bundle = self.bundle("pwd", process={"cwd": "/etc/passwd"})
        self.assertNotEqual(self.run_bundle(bundle).code, 0)

    def test_one_closed_to_both_is_an_error(self):
        bundle = self.bundle("pwd", process={"cwd": "/closed", "user": APP, "capabilities": {
            name: [] for name in ("bounding", "effective", "permitted", "inheritable", "ambient")}}, writable=True)
        os.mkdir(bundle.file("closed"))
        os.chown(bundle.file("closed"), 4242, 4242)
        os.chmod(bundle.file("closed"), 0)
        result = self.run_bundle(bundle)
        self.assertIn(result.code, (0, 1), result)  # the starting user may be allowed everything
        if result.code == 0:
            self.assertEqual(result.out, "/closed\n")

    def test_a_descriptor_is_refused(self):
        for cwd in ("/proc/self/fd/7", "/proc/self/fd"):
            with self.subTest(cwd=cwd):
                result = self.run_bundle(self.bundle("sh", "-c", "pwd; ls ..", process={"cwd": cwd}))
                self.assertNotIn("work", result.out.split())


class PoststopAfterAFailingPoststart(Case):
    """Report 10: a poststart hook failed, and the poststop hooks that would have cleaned up were not run."""

    def setUp(self):
        super().setUp()
        self.marks = os.path.join(self.dir, "marks")
        os.mkdir(self.marks)

    def touch(self, name):
        return {"path": "/usr/bin/touch", "args": ["touch", os.path.join(self.marks, name)]}

    def hooks(self, **failing):
        fails = {"path": "/bin/false"}
        return {**{kind: [fails] for kind in failing}, "poststop": [self.touch("a"), fails, self.touch("b")]}

    def failing_call(self, *words):
        """The last line on stderr of a call that fails: those before it warn of the poststop hook."""
        result = self.rt(*words)
        self.assertEqual(result.code, 1, result)
        return result.err.splitlines()[-1]

    @unlike("runc", "1.1.5 leaves the container")
    @unlike("crun", "1.8.1 has the older rule")
    def test_start_fails_and_both_of_the_others_run(self):
        bundle = self.bundle("sleep", "60", hooks=self.hooks(poststart=True))
        c = self.create(bundle)
        pid = self.state(c)["pid"]
        self.assertRegex(self.failing_call("start", c), "poststart hook #0")
        self.assertEqual(sorted(os.listdir(self.marks)), ["a", "b"])
        self.assert_gone(c)
        self.processes_gone([pid])

    @unlike("runc", "1.1.5 runs none of them")
    @unlike("crun", "1.8.1 exits with another code")
    def test_the_same_where_create_fails(self):
        c = self.new_id()
        bundle = self.bundle("sleep", "60", hooks=self.hooks(createContainer=True))
        self.assertRegex(self.failing_call("create", "--bundle", bundle.path, c), "createContainer hook #0")
        self.assertEqual(sorted(os.listdir(self.marks)), ["a", "b"])
        self.assert_gone(c)

    @unlike("runc", "1.1.5 lets delete fail")
    def test_a_failing_poststop_alone_does_not_fail_delete(self):
        c = self.start("true", hooks=self.hooks())
        self.wait_status(c, "stopped")
        self.ok("delete", c)
        self.assertEqual(sorted(os.listdir(self.marks)), ["a", "b"])


class ReadonlyBindsWithWritableSubmounts(Case):
    """Report 11: a read-only recursive bind was read-only at its top only."""

    def writes(self, *options):
        source = os.path.join(self.dir, "source" + "-".join(options))
        os.makedirs(os.path.join(source, "sub"))
        mount("t", os.path.join(source, "sub"), "tmpfs")
        self.addCleanup(umount, os.path.join(source, "sub"), 2)
        entry = {"destination": "/data", "type": "bind", "source": source, "options": list(options)}
        script = "touch /data/x && echo top; touch /data/sub/x && echo sub; true"
        return self.run_bundle(self.bundle("sh", "-c", script, mounts=[entry], writable=True)).out.split()

    @local_only("what the host has mounted below is part of one share, and ro is for all of that")
    def test_ro_is_for_the_top(self):
        self.assertEqual(self.writes("rbind", "ro"), ["sub"])

    @unlike("runc", "1.1.5 does not know rro")
    def test_rro_is_for_the_tree(self):
        self.assertEqual(self.writes("rbind", "rro"), [])

    @local_only("what the host has mounted below is no mount in a guest")
    @ours_only("runc 1.1.5 does not know them, crun 1.8.1 only some")
    def test_other_recursive_options(self):
        source = os.path.join(self.dir, "source")
        os.makedirs(os.path.join(source, "sub"))
        mount("t", os.path.join(source, "sub"), "tmpfs")
        self.addCleanup(umount, os.path.join(source, "sub"), 2)
        entry = {"destination": "/data", "type": "bind", "source": source,
                 "options": ["rbind", "ro", "rnoexec", "rnosuid"]}
        table = mounts_of(self.inside("cat /proc/self/mountinfo", mounts=[entry], writable=True))
        self.assertLessEqual({"ro", "noexec", "nosuid"}, table["/data"]["flags"])
        self.assertLessEqual({"rw", "noexec", "nosuid"}, table["/data/sub"]["flags"])


class ReadonlyRootOnARestrictedMount(Case):
    """Report 12: making the root read-only dropped flags that may not be dropped."""

    def bundle_on(self, flags, mapped, **changes):
        place = os.path.join(self.dir, "place")
        os.mkdir(place)
        mount("t", place, "tmpfs", flags)
        self.addCleanup(umount, place, 2)
        bundle = self.bundle("sh", "-c", "touch /x; touch /run/new/x && echo second works; grep ' / / ' "
                             "/proc/self/mountinfo || cat /proc/self/mountinfo", mounts=[
                                 {"destination": "/run/new", "type": "tmpfs", "source": "tmpfs",
                                  "options": ["mode=0755"]}], **changes)
        subprocess.run(["cp", "-a", bundle.rootfs, place], check=True)
        bundle.config["root"] = {"path": os.path.join(place, "rootfs"), "readonly": True}
        if mapped:
            subprocess.run(["chown", "-Rh", "100000:100000", os.path.join(place, "rootfs")], check=True)
            bundle.config["linux"]["namespaces"].append({"type": "user"})
            bundle.config["linux"]["uidMappings"] = bundle.config["linux"]["gidMappings"] = [
                {"containerID": 0, "hostID": 100000, "size": 65536}]
        bundle.write()
        return bundle

    def check(self, mapped):
        nosuid, nodev, noatime = 2, 4, 1024
        result = self.run_bundle(self.bundle_on(nosuid | nodev | noatime, mapped))
        self.assertEqual(result.code, 0, result)
        self.assertIn("touch: /x: Read-only file system", result.err)
        self.assertIn("second works", result.out)
        self.assertLessEqual({"ro", "nosuid", "nodev", "noatime"}, mounts_of(result.out)["/"]["flags"])

    @ours_only("runc and crun keep nodev and nosuid only where they must")
    def test_the_flags_are_kept(self):
        self.check(mapped=False)

    @unlike("crun", "mounts from outside of the user namespace and drops them")
    def test_the_flags_are_kept_in_a_user_namespace(self):
        self.check(mapped=True)

    @ours_only("runc 1.1.5 fails on it, crun drops the flags")
    def test_a_readonly_bind_keeps_them_too(self):
        source = os.path.join(self.dir, "source")
        os.mkdir(source)
        mount("t", source, "tmpfs", 2 | 4 | 8)
        self.addCleanup(umount, source, 2)
        bundle = self.bundle("cat", "/proc/self/mountinfo", writable=True, mounts=[
            {"destination": "/data", "type": "bind", "source": source, "options": ["bind", "ro"]}])
        subprocess.run(["chown", "-Rh", "100000:100000", bundle.rootfs], check=True)
        bundle.config["linux"]["namespaces"].append({"type": "user"})
        bundle.config["linux"]["uidMappings"] = bundle.config["linux"]["gidMappings"] = [
            {"containerID": 0, "hostID": 100000, "size": 65536}]
        bundle.write()
        flags = mounts_of(self.run_bundle(bundle).out)["/data"]["flags"]
        self.assertLessEqual({"ro", "nosuid", "nodev", "noexec"}, flags)


class DevIsABindMount(Case):
    """Report 13: the standard links were left out when the configuration mounted /dev itself."""

    LINKS = "cd /dev; for l in fd stdin stdout stderr; do readlink $l; done"
    WANTED = ["/proc/self/fd", "/proc/self/fd/0", "/proc/self/fd/1", "/proc/self/fd/2"]

    def run_with_dev(self, source, *drop, options=("rbind",)):
        bundle = self.bundle("sh", "-c", self.LINKS, writable=True)
        bundle.config["mounts"] = [entry for entry in bundle.config["mounts"]
                                   if not entry["destination"].startswith("/dev") and entry["destination"] not in drop]
        bundle.config["mounts"].append({"destination": "/dev", "type": "bind", "source": source,
                                        "options": list(options)})
        bundle.write()
        return self.run_bundle(bundle)

    def source(self):
        path = os.path.join(self.dir, "dev")
        os.mkdir(path)
        return path

    def test_links_that_are_right_stay(self):
        before = os.lstat("/dev/fd")
        self.assertEqual(self.run_with_dev("/dev").out.split(), self.WANTED)
        after = os.lstat("/dev/fd")
        self.assertEqual((after.st_ino, after.st_mtime_ns), (before.st_ino, before.st_mtime_ns))

    @ours_only("runc 1.1.5 skips them, crun 1.8.1 fails on the missing devices")
    def test_missing_links_are_made(self):
        self.assertEqual(self.run_with_dev(self.source()).out.split(), self.WANTED)

    @ours_only("runc 1.1.5 skips them, crun 1.8.1 fails on it")
    def test_something_else_in_the_place_is_left(self):
        source = self.source()
        os.mkdir(os.path.join(source, "fd"))
        result = self.run_with_dev(source)
        self.assertEqual(result.code, 0, result)
        self.assertEqual(result.out.split(), self.WANTED[1:])
        self.assertTrue(os.path.isdir(os.path.join(source, "fd")))

    def test_a_readonly_dev_is_filled_first(self):
        bundle = self.bundle("sh", "-c", self.LINKS + "; touch /dev/x")
        for entry in bundle.config["mounts"]:
            if entry["destination"] == "/dev":
                entry["options"].append("ro")
        bundle.write()
        result = self.run_bundle(bundle)
        self.assertEqual(result.out.split(), self.WANTED, result)
        self.assertIn("Read-only file system", result.err)


@local_only("the limits are those of the host's cgroup")
class MemoryUpdateForgetsSwap(Case):
    """Report 14: an update of the memory limit alone set the one of swap to zero."""

    LIMIT, TOTAL = 33554432, 33558528
    UNLIMITED = ("max", 0x7ffffffffffff000)

    def limits(self, c):
        """(memory, memory and swap), in bytes or one of UNLIMITED."""
        for line in read_text(f"/proc/{self.state(c)['pid']}/cgroup").splitlines():
            _, controllers, path = line.split(":", 2)
            v1, v2 = f"/sys/fs/cgroup/memory{path}", f"/sys/fs/cgroup{path}"
            if "memory" in controllers.split(","):
                return tuple(int(read_text(f"{v1}/memory.{name}limit_in_bytes")) for name in ("", "memsw."))
            if not controllers and os.path.exists(f"{v2}/memory.max"):
                limit, swap = (read_text(f"{v2}/memory.{name}max").strip() for name in ("", "swap."))
                return (limit if limit == "max" else int(limit),
                        "max" if "max" in (limit, swap) else int(limit) + int(swap))
        self.fail("the container is in no cgroup of the memory controller")

    def with_limits(self):
        return self.start(linux={"resources": {"memory": {"limit": self.LIMIT, "swap": self.TOTAL}}})

    def test_both_are_set_and_an_update_of_one_leaves_the_other(self):
        c = self.with_limits()
        self.assertEqual(self.limits(c), (self.LIMIT, self.TOTAL))
        self.ok("update", "--memory", str(self.LIMIT), c)
        self.assertEqual(self.limits(c), (self.LIMIT, self.TOTAL))
        self.ok("update", "--memory", str(self.LIMIT - 4096), c)
        self.assertEqual(self.limits(c)[0], self.LIMIT - 4096)
        self.assertIn(self.limits(c)[1], (self.TOTAL, self.TOTAL - 4096))  # v2 counts swap alone

    @unlike("crun", "1.8.1 leaves the one of both together")
    def test_no_limit_of_memory_is_none_of_both(self):
        c = self.with_limits()
        self.ok("update", "--memory", "-1", c)
        for limit in self.limits(c):
            self.assertIn(limit, self.UNLIMITED)

    def test_a_total_below_the_limit_is_an_error_and_changes_nothing(self):
        c = self.with_limits()
        self.assertNotEqual(self.rt("update", "--memory-swap", "1048576", c).code, 0)
        self.assertEqual(self.limits(c), (self.LIMIT, self.TOTAL))

    @ours_only("runc 1.1.5 and crun 1.8.1 leave it to the kernel, which takes it on v1")
    def test_a_total_without_a_limit_is_an_error_and_changes_nothing(self):
        c = self.start()
        before = self.limits(c)
        result = self.rt("update", "-r", "-", c, stdin=b'{"memory": {"swap": 67108864}}')
        self.assertEqual(result.code, 1, result)
        self.assertEqual(self.limits(c), before)


class SeccompNamesThatTheLibraryDoesNotKnow(Case):
    """Report 15: a profile with names newer than the library was refused, or a rule of it got lost."""

    def profile(self, *rules, **members):
        return {"seccomp": {"defaultAction": "SCMP_ACT_ALLOW", "architectures": ["SCMP_ARCH_X86_64"],
                            "syscalls": list(rules), **members}}

    def deny(self, *names, **members):
        return {"names": list(names), "action": "SCMP_ACT_ERRNO", **members}

    def test_it_starts_and_the_other_names_of_the_rule_count(self):
        profile = self.profile(self.deny("no_such_call", "mkdir", "mkdirat", "futex_waitv", "no_such_call_either"))
        out = self.inside("mkdir /tmp/x 2>&1 || echo refused", linux=profile, writable=True)
        self.assertIn("refused", out)

    def test_a_default_that_refuses_stays_one(self):
        # With an unknown name alone to allow, nothing is allowed: the program does not even get executed.
        profile = self.profile({"names": ["no_such_call"], "action": "SCMP_ACT_ALLOW"}, defaultAction="SCMP_ACT_ERRNO")
        self.assertNotEqual(self.run_bundle(self.bundle("true", linux=profile)).code, 0)

    @local_only("debug lines of a guest's agent are in the guest's console")
    @ours_only("the debug line is our own")
    def test_a_debug_line_names_them(self):
        log = os.path.join(self.dir, "log")
        bundle = self.bundle("true", linux=self.profile(self.deny("no_such_call")))
        self.ok("--debug", "--log", log, "run", "--bundle", bundle.path, self.new_id())
        agent = "".join(read_text(os.path.join(folder, "agent.log"))
                        for folder, _, files in os.walk(self.root) if "agent.log" in files)
        self.assertIn("no_such_call", read_text(log) + agent)

    @ours_only("runc 1.1.5 and crun 1.8.1 take some of them")
    def test_wrong_profiles_are_refused(self):
        for wrong in (self.profile(self.deny()), self.profile({"names": ["mkdir"], "action": "SCMP_ACT_NOPE"}),
                      self.profile(architectures=["SCMP_ARCH_NOPE"]),
                      self.profile(defaultErrnoRet=38),
                      self.profile({"names": ["mkdir"], "action": "SCMP_ACT_ALLOW", "errnoRet": 1}),
                      self.profile(self.deny("mkdir", args=[{"index": 0, "value": 1, "op": "SCMP_CMP_NOPE"}]))):
            with self.subTest(profile=wrong):
                self.fails("create", "--bundle", self.bundle("true", linux=wrong).path, self.new_id(), says="seccomp")


class UnknownCapabilities(Case):
    """Report 16: a capability that the kernel or the runtime does not know stopped the start."""

    CAPS = {"bounding": ["CAP_KILL", "CAP_PERFMON", "CAP_NOT_REAL"], "effective": ["CAP_KILL", "CAP_SYS_TIME"],
            "permitted": ["CAP_KILL"], "inheritable": [], "ambient": ["CAP_KILL"]}

    @unlike("runc", "1.1.5 fails on what cannot be granted")
    @unlike("crun", "1.8.1 fails on what it does not know")
    def test_it_starts_with_what_is_left(self):
        bundle = self.bundle("sh", "-c", "grep Cap /proc/self/status")
        bundle.config["process"]["capabilities"] = self.CAPS
        bundle.write()
        log = os.path.join(self.dir, "log")
        result = self.rt("--log", log, "run", "--bundle", bundle.path, self.new_id())
        self.assertEqual(result.code, 0, result)
        sets = {line.split(":")[0]: int(line.split()[1], 16) for line in result.out.splitlines()}
        self.assertEqual(sets["CapBnd"] & ~(1 << 5 | 1 << 38), 0, "never more than what was asked for")
        self.assertTrue(sets["CapBnd"] & 1 << 5)
        self.assertEqual(sets["CapEff"] & 1 << 25, 0)
        self.assertIn("CAP_NOT_REAL", read_text(log))
        self.assertIn("level=warning", read_text(log))

    def test_twice_is_once(self):
        twice = {name: ["CAP_KILL", "CAP_KILL"] for name in ("bounding", "effective", "permitted")}
        out = self.inside("grep CapBnd /proc/self/status", process={"capabilities": twice})
        self.assertEqual(int(out.split()[1], 16), 1 << 5)

    @ours_only("runc and crun take any case or prefix, or ignore it silently")
    def test_other_spellings_are_named_in_a_warning(self):
        odd = {name: ["NOT_REAL_EITHER"] for name in ("bounding", "effective", "permitted")}
        bundle, log = self.bundle("true", process={"capabilities": odd}), os.path.join(self.dir, "log")
        self.ok("--log", log, "run", "--bundle", bundle.path, self.new_id())
        self.assertIn("NOT_REAL_EITHER", read_text(log))


class TheIdDotDot(Case):
    """Report 17: an id of two dots was accepted, and delete removed what was beside the state."""

    def contents(self):
        return sorted(os.path.join(folder, name) for folder, folders, files in os.walk(os.path.dirname(self.root))
                      for name in folders + files if "/@local" not in os.path.join(folder, name))

    @unlike("crun", "1.8.1 takes .. and its delete removes the folder above the state root")
    def test_no_command_takes_it_or_touches_anything(self):
        bundle = self.bundle("true")
        self.start()
        before = self.contents()
        for wrong in ("", ".", "..", "../x", "a/b", "a b", "a\n", "\u00e9"):
            for words in (["create", "--bundle", bundle.path], ["state"], ["kill"], ["delete", "--force"]):
                with self.subTest(id=wrong, command=words[0]):
                    self.assertEqual(self.rt(*words, "--", wrong).code, 1)
            self.assertIn(self.rt("exec", "--", wrong, "true").code, (1, 255))
        self.assertEqual(self.contents(), before)

    def test_a_too_long_one_fails_cleanly(self):
        self.fails("create", "--bundle", self.bundle("true").path, "x" * 300)

    @unlike("crun", "cannot name a keyring so")
    def test_odd_but_right_ones_work(self):
        for right in ("..0", "ok_1.2+3-"):
            self.ids.append(right)
            self.ok("create", "--bundle", self.bundle("true").path, right)
            self.ok("delete", right)

    def test_roots_are_apart(self):
        c = self.start()
        other = os.path.join(self.dir, "other-root")
        self.assertEqual(self.rt("state", c, root=other).code, 1)


class LongStdin(Case):
    """Report 18: one byte more than a pipe holds, and the run never ended."""

    def run_fed(self, feeder, *args):
        source = self.spawn(feeder, stdout=-1)
        try:
            return self.run_bundle(self.bundle(*args), stdin=source.stdout, seconds=60)
        finally:
            source.stdout.close()
            source.kill()

    def test_every_size_is_counted(self):
        for size in (1, 65535, 65536, 65537, 1_000_003):
            with self.subTest(size=size):
                result = self.run_fed(["head", "-c", str(size), "/dev/zero"], "wc", "-c")
                self.assertEqual(result.out.strip(), str(size), result)

    def test_a_slow_reader_loses_nothing(self):
        process = self.spawn(self.command("run", "--bundle",
                                          self.bundle("head", "-c", "20000000", "/dev/zero").path, self.new_id()),
                             stdout=-1)
        other = self.run_bundle(self.bundle("echo", "not held up"))  # while nobody reads
        self.assertEqual(other.out, "not held up\n")
        self.assertIsNone(process.poll(), "the writer waits for its reader")
        self.assertEqual(len(process.stdout.read()), 20_000_000)
        self.assertEqual(wait_process(process), 0)
        process.stdout.close()

    def test_a_program_that_does_not_read_ends_the_run(self):
        self.assertEqual(self.run_fed(["yes"], "true").code, 0)


class PsWithoutFormat(Case):
    """Report 19: `ps --format json ID` took the flag for the id."""

    def test_json_is_an_array_of_numbers_in_either_spelling(self):
        c = self.start()
        for _ in range(2):
            self.ok("exec", "-d", c, "sleep", "601")
        for words in (["--format", "json"], ["-f", "json"], ["--format=json"]):
            with self.subTest(words=words):
                pids = json.loads(self.ok("ps", *words, c).out)
                # With a guest it is the stand-in alone.
                self.assertEqual(len(pids), 3 if SANDBOX == "local" else 1)
                self.assertTrue(all(isinstance(pid, int) for pid in pids))
                self.assertTrue(all(process_state(pid)[0] for pid in pids))

    @local_only("the table has the guest's numbers, and json this host's")
    def test_the_table_has_the_same_numbers(self):
        c = self.start()
        header, *rows = self.ok("ps", c).out.splitlines()
        column = header.split().index("PID")
        self.assertEqual([int(row.split()[column]) for row in rows],
                         json.loads(self.ok("ps", "--format", "json", c).out))

    def test_a_created_container_has_its_init(self):
        c = self.create(self.bundle("true"))
        self.assertEqual(json.loads(self.ok("ps", "-f", "json", c).out), [self.state(c)["pid"]])

    @unlike("runc", "1.1.5 prints a table for any format")
    def test_an_unknown_format_is_an_error(self):
        c = self.start()
        result = self.rt("ps", "--format=yaml", c)
        self.assertEqual((result.code != 0, bool(result.err)), (True, True), result)

    def test_a_stopped_container_has_none(self):
        c = self.start("true")
        self.wait_status(c, "stopped")
        result = self.rt("ps", "--format", "json", c)
        self.assertIn(result.out.strip(), ("", "null", "[]"), result)


class SignalledExitCode(Case):
    """Report 20: a killed program was reported with the bare number of the signal."""

    def test_run(self):
        c = self.new_id()
        process = self.spawn(self.command("run", "--bundle", self.bundle("sleep", "60").path, c))
        until(lambda: '"running"' in self.rt("state", c).out, "it runs")
        self.ok("kill", c, "KILL")
        self.assertEqual(wait_process(process), 137)

    @unlike("crun", "1.8.1 gives 1 for an unknown container")
    def test_exec(self):
        c = self.start()
        for words, code in ((["sh", "-c", "kill -SEGV $$"], 139), (["sh", "-c", "kill -KILL $$"], 137),
                            (["sh", "-c", "kill -TERM $$"], 143), (["sh", "-c", "exit 300"], 44),
                            (["nosuchprogram"], 255), (["/etc"], 255)):
            with self.subTest(words=words):
                self.assertEqual(self.exec(c, *words).code, code)
        self.assertEqual(self.exec(self.new_id(), "true").code, 255)


if __name__ == "__main__":
    main()
