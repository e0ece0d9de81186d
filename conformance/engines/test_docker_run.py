"""`docker run`: what a user sees of one container from its start to its end."""

import hashlib
import os
import re
import stat

import docker_engine
import harness
import image
import world


class DockerRun(harness.EngineCase):
    @classmethod
    def setUpClass(cls):
        cls.start(docker_engine.Docker)

    # -- output, input, exit codes ---------------------------------------------------------------------------------

    def test_stdout_and_stderr_arrive_apart(self):
        def scenario(runtime):
            done = self.engine.run(runtime, "--rm", "--", "sh", "-c", "echo to stdout; echo to stderr >&2")
            self.check(done, out="to stdout\n")
            self.assertEqual(done.err, b"to stderr\n")
            return done.out, done.err
        self.compare(scenario)

    def test_image_made_by_docker_import_runs(self):
        imported = self.engine("import", "-c", "CMD [\"/bin/echo\",\"imported\"]", harness.rootfs_tar(), "imported:1")
        self.check(imported)

        def scenario(runtime):
            argv = [self.engine.client, "run", "--rm", "--runtime", runtime.name, "imported:1"]
            return self.check(harness.processes.call(argv, env=self.engine.env), out="imported\n").out
        self.compare(scenario)

    def test_exit_codes_of_programs(self):
        for code in (0, 1, 7, 126, 127, 255):
            def scenario(runtime, code=code):
                return self.check(self.engine.run(runtime, "--rm", "--", "sh", "-c", f"exit {code}"), code, "").code
            self.compare(scenario)

    def test_program_that_kills_itself_gives_128_plus_signal(self):
        # The shell is the init: only a signal from outside its pid namespace, or a child's status, can show this.
        def scenario(runtime):
            done = self.engine.run(runtime, "--rm", "--init", "--", "sh", "-c", "kill -9 $$")
            return self.check(done, 137, "").code
        self.compare(scenario)

    def test_missing_program_is_127(self):
        def scenario(runtime):
            done = self.engine.run(runtime, "--rm", "--", "/no/such/program")
            self.assertIn(b"no such file or directory", done.err)
            return self.check(done, 127, "").code
        self.compare(scenario)

    def test_program_not_in_path_is_127(self):
        def scenario(runtime):
            done = self.engine.run(runtime, "--rm", "--", "no-such-program")
            self.assertIn(b"executable file not found in $PATH", done.err)
            return self.check(done, 127, "").code
        self.compare(scenario)

    def test_file_that_is_not_executable_is_126(self):
        def scenario(runtime):
            done = self.engine.run(runtime, "--rm", "--", "/opt/not-executable")
            self.assertIn(b"permission denied", done.err)
            return self.check(done, 126, "").code
        self.compare(scenario)

    def test_directory_as_program_is_126(self):
        def scenario(runtime):
            return self.check(self.engine.run(runtime, "--rm", "--", "/opt"), 126, "").code
        self.compare(scenario)

    def test_script_gets_its_arguments(self):
        def scenario(runtime):
            done = self.engine.run(runtime, "--rm", "--", "/opt/script", "a", "b c", "")
            return self.check(done, 9, "script ran as /opt/script with 3 arguments\n").out
        self.compare(scenario)

    def test_missing_working_directory_is_made(self):
        def scenario(runtime):
            return self.check(self.engine.run(runtime, "--rm", "-w", "/made/by/run", "--", "pwd"), 0, "/made/by/run\n").out
        self.compare(scenario)

    def test_one_mebibyte_through_stdin_is_unchanged(self):
        data = os.urandom(1 << 20)

        def scenario(runtime):
            done = self.check(self.engine.run(runtime, "--rm", "-i", "--", "cat", stdin=data))
            self.assertEqual(hashlib.sha256(done.out).hexdigest(), hashlib.sha256(data).hexdigest())
            return done.code, len(done.out)
        self.compare(scenario)

    def test_end_of_stdin_reaches_the_program(self):
        def scenario(runtime):
            return self.check(self.engine.run(runtime, "--rm", "-i", "--", "wc", "-l", stdin=b"a\nb\nc\n"), 0, "3\n").out
        self.compare(scenario)

    def test_without_interactive_stdin_is_empty(self):
        def scenario(runtime):
            return self.check(self.engine.run(runtime, "--rm", "--", "wc", "-c", stdin=b"ignored"), 0, "0\n").out
        self.compare(scenario)

    # -- terminal --------------------------------------------------------------------------------------------------

    def test_terminal_has_a_name_and_the_callers_size(self):
        script = ("tty; " + harness.WAIT_FOR_SIZE +
                  "stty size; test -t 0 && test -t 1 && test -t 2 && echo three terminals; exit 5")

        def scenario(runtime):
            done = self.terminal(self.engine.argv(runtime, "--rm", "-t", "--", "sh", "-c", script)).finish()
            self.check(done, 5)
            # Without -i the client leaves its own terminal as it is, which adds a carriage return of its own.
            self.assertEqual(done.out, b"/dev/pts/0\r\r\n37 111\r\r\nthree terminals\r\r\n")
            return done.out, done.code
        self.compare(scenario)

    def test_resize_reaches_the_program(self):
        script = (harness.WAIT_FOR_SIZE +
                  "trap 'stty size | grep -v \"^37 111\" && exit 6' WINCH; echo ready; while :; do usleep 50000; done")

        def scenario(runtime):
            terminal = self.terminal(self.engine.argv(runtime, "--rm", "-it", "--", "sh", "-c", script))
            terminal.expect(b"ready")
            terminal.resize(20, 60)
            done = self.check(terminal.finish(), 6)
            self.assertEqual(done.out, b"ready\r\n20 60\r\n")
            return done.out
        self.compare(scenario)

    def test_interrupt_key_is_a_signal(self):
        script = "trap 'echo interrupted; exit 3' INT; echo ready; while :; do usleep 50000; done"

        def scenario(runtime):
            terminal = self.terminal(self.engine.argv(runtime, "--rm", "-it", "--", "sh", "-c", script))
            terminal.expect(b"ready")
            terminal.send(b"\x03")
            done = self.check(terminal.finish(), 3)
            self.assertEqual(done.out, b"ready\r\n^Cinterrupted\r\n")
            return done.out
        self.compare(scenario)

    def test_typed_lines_are_echoed_and_read(self):
        def scenario(runtime):
            terminal = self.terminal(self.engine.argv(runtime, "--rm", "-it", "--", "sh", "-c",
                                                      "echo ready; read line; echo got $line"))
            terminal.expect(b"ready")
            terminal.send(b"a typed line\n")
            done = self.check(terminal.finish())
            self.assertEqual(done.out, b"ready\r\na typed line\r\ngot a typed line\r\n")
            return done.out
        self.compare(scenario)

    # -- file systems ----------------------------------------------------------------------------------------------

    def test_bind_mounts_read_write_and_read_only(self):
        directory = self.engine.home / "shared"
        directory.mkdir(exist_ok=True)
        (directory / "from-host").write_text("written on the host\n")
        script = ("cat /rw/from-host; echo written inside > /rw/from-inside; cat /ro/from-inside; "
                  "echo no > /ro/refused || echo read-only")

        def scenario(runtime):
            (directory / "from-inside").unlink(missing_ok=True)
            done = self.engine.run(runtime, "--rm", "-v", f"{directory}:/rw", "-v", f"{directory}:/ro:ro", "--",
                                   "sh", "-c", script)
            self.check(done, out="written on the host\nwritten inside\nread-only\n")
            self.assertEqual((directory / "from-inside").read_text(), "written inside\n")
            self.assertFalse((directory / "refused").exists())
            return done.out, done.err
        self.compare(scenario)

    def test_one_file_can_be_mounted(self):
        source = self.engine.home / "one-file"
        source.write_text("the file\n")

        def scenario(runtime):
            return self.check(self.engine.run(runtime, "--rm", "-v", f"{source}:/etc/passwd:ro", "--", "cat", "/etc/passwd"),
                              out="the file\n").out
        self.compare(scenario)

    def test_read_only_root_refuses_writes_but_tmpfs_takes_them(self):
        script = "echo x > /file || echo root refused; echo y > /scratch/file && cat /scratch/file; mount | grep /scratch"

        def scenario(runtime):
            done = self.engine.run(runtime, "--rm", "--read-only", "--tmpfs", "/scratch:size=1m,mode=1700", "--",
                                   "sh", "-c", script)
            self.check(done)
            self.assertTrue(done.text.startswith("root refused\ny\ntmpfs on /scratch type tmpfs "), str(done))
            self.assertIn("size=1024k,mode=1700", done.text)
            return done.out
        self.compare(scenario)

    def test_shm_size_is_applied(self):
        def scenario(runtime):
            done = self.engine.run(runtime, "--rm", "--shm-size", "3m", "--", "sh", "-c", "df -k /dev/shm | tail -n1")
            self.check(done)
            self.assertEqual(done.text.split()[:2], ["shm", "3072"])
            return done.out
        self.compare(scenario)

    # -- who and with which rights ---------------------------------------------------------------------------------

    def test_user_by_number_and_by_name(self):
        for user, expected in (("1234:567", "uid=1234(tester) gid=567(tester) groups=567(tester)\n"),
                               ("tester", "uid=1234(tester) gid=567(tester) groups=567(tester),890(extra)\n"),
                               ("4321", "uid=4321 gid=0(root) groups=0(root)\n")):
            def scenario(runtime, user=user, expected=expected):
                return self.check(self.engine.run(runtime, "--rm", "--user", user, "--", "id"), out=expected).out
            self.compare(scenario)

    def test_added_groups(self):
        def scenario(runtime):
            return self.check(self.engine.run(runtime, "--rm", "--user", "tester", "--group-add", "77", "--", "id", "-G"),
                              out="567 77 890\n").out
        self.compare(scenario)

    def test_capabilities_added_and_dropped(self):
        everything = set()
        for flags in ((), ("--cap-drop", "ALL"), ("--cap-drop", "NET_RAW"), ("--cap-add", "NET_ADMIN"),
                      ("--cap-drop", "ALL", "--cap-add", "CHOWN"), ("--cap-add", "SYS_ADMIN", "--user", "tester")):
            def scenario(runtime, flags=flags):
                done = self.check(self.engine.run(runtime, "--rm", *flags, "--", "grep", "^Cap", "/proc/self/status"))
                everything.add(done.out)
                return done.out
            self.compare(scenario)
        self.assertEqual(len(everything), 6, "six ways to give capabilities must look different inside")

    def test_chown_works_only_with_the_capability(self):
        script = "touch /tmp/f && chown tester /tmp/f && stat -c %U /tmp/f"

        def scenario(runtime):
            allowed = self.check(self.engine.run(runtime, "--rm", "--", "sh", "-c", script), out="tester\n")
            refused = self.check(self.engine.run(runtime, "--rm", "--cap-drop", "CHOWN", "--", "sh", "-c", script), 1, "")
            return allowed.out, refused.err
        self.compare(scenario)

    def test_default_seccomp_profile_is_in_force(self):
        # unshare(CLONE_NEWUSER) needs no capability: it is the default profile that refuses it.
        script = "grep ^Seccomp: /proc/self/status; unshare -U true && echo user namespace allowed; echo done"

        def scenario(runtime):
            strict = self.check(self.engine.run(runtime, "--rm", "--", "sh", "-c", script),
                                out="Seccomp:\t2\ndone\n")
            loose = self.check(self.engine.run(runtime, "--rm", "--security-opt", "seccomp=unconfined", "--", "sh", "-c",
                                               script),
                               out="Seccomp:\t0\nuser namespace allowed\ndone\n")
            return strict.out, strict.err, loose.out
        self.compare(scenario)

    def test_no_new_privileges(self):
        def scenario(runtime):
            done = self.engine.run(runtime, "--rm", "--security-opt", "no-new-privileges", "--", "grep", "NoNewPrivs",
                                   "/proc/self/status")
            return self.check(done, out="NoNewPrivs:\t1\n").out
        self.compare(scenario)

    def test_masked_and_read_only_paths(self):
        script = "cat /proc/kcore | wc -c; ls /proc/scsi /sys/firmware 2>&1; echo 1 > /proc/sys/kernel/domainname || echo refused"

        def scenario(runtime):
            done = self.check(self.engine.run(runtime, "--rm", "--", "sh", "-c", script))
            self.assertTrue(done.text.startswith("0\n") and done.text.endswith("refused\n"), str(done))
            return done.out, done.err
        self.compare(scenario)

    def test_limits_sysctls_hostname_and_environment(self):
        script = "ulimit -n; ulimit -Hn; cat /proc/sys/net/ipv4/ip_unprivileged_port_start; hostname; echo $A-$B; umask"

        def scenario(runtime):
            done = self.engine.run(runtime, "--rm", "--ulimit", "nofile=123:456",
                                   "--sysctl", "net.ipv4.ip_unprivileged_port_start=77", "--hostname", "box",
                                   "-e", "A=one", "-e", "B=two words", "--", "sh", "-c", script)
            return self.check(done, out="123\n456\n77\nbox\none-two words\n0022\n").out
        self.compare(scenario)

    def test_added_device_is_allowed_only_what_was_asked(self):
        # No driver has this number: past the device cgroup's check, opening it is "No such device or address".
        device = self.engine.home / "device"
        os.mknod(device, 0o666 | stat.S_IFCHR, os.makedev(240, 7))
        script = "stat -c '%F %t %T' /dev/added; (: < /dev/added) 2>&1 | sed 's/.*: //'; (: > /dev/added) 2>&1 | sed 's/.*: //'"

        def scenario(runtime):
            done = self.engine.run(runtime, "--rm", "--device", f"{device}:/dev/added:r", "--", "sh", "-c", script)
            return self.check(done, out="character special file f0 7\nNo such device or address\n"
                                        "Operation not permitted\n").out
        self.compare(scenario)

    def test_devices_not_listed_are_refused(self):
        def scenario(runtime):
            done = self.engine.run(runtime, "--rm", "--", "sh", "-c",
                                   "mknod /tmp/kmsg c 1 11 && cat /tmp/kmsg >/dev/null || echo refused")
            return self.check(done, out="refused\n").out
        self.compare(scenario)

    def test_everything_a_program_sees_is_equal(self):
        # One long dump: environment, identity, limits, capabilities, mounts, devices, masked paths, descriptors.
        script = r"""
            env | sort; id; pwd; umask; hostname | tr '[0-9a-f]' x
            grep -E '^(Cap|NoNewPrivs|Seccomp|Groups|Uid|Gid|SigBlk|SigIgn|SigCgt|Umask)' /proc/self/status
            cat /proc/self/limits /proc/self/oom_score_adj /proc/self/setgroups /proc/self/uid_map
            sed 's/^[0-9]* [0-9]* [0-9:]* //' /proc/self/mountinfo | sort
            cat /proc/self/cgroup
            ls -l /dev | tail -n +2 | awk '{print $1,$3,$4,$5,$6,$NF}' | sed 's/ [A-Z][a-z][a-z] / /'
            ls -ld /dev /dev/pts /dev/shm /proc /sys / | awk '{print $1,$3,$4,$NF}'
            ls /proc/self/fd; cat /proc/sys/kernel/hostname | wc -c; cat /proc/1/cmdline | tr '\0' ' '
            cat /etc/hostname | wc -c; readlink /proc/1/exe; cat /proc/1/comm
            ps -o pid,ppid,pgid,sid,comm | awk 'NR <= 2'
        """

        def scenario(runtime):
            done = self.check(self.engine.run(runtime, "--rm", "--network", "none", "--", "sh", "-c", script))
            text = harness.plain(done.out)
            # An overlay's directories are named anew for each container.
            text = harness.comparable_mounts(re.sub(r"overlay2/[^\s,]*", "<layer>", text))
            self.assertGreater(len(text.splitlines()), 100)
            return text
        self.compare(scenario)

    # -- network and shared namespaces ------------------------------------------------------------------------------

    def test_network_none_has_only_loopback(self):
        def scenario(runtime):
            done = self.engine.run(runtime, "--rm", "--network", "none", "--", "sh", "-c",
                                   "ls /sys/class/net; ping -c1 -W5 127.0.0.1 | grep -c 'bytes from'")
            return self.check(done, out="lo\n1\n").out
        self.compare(scenario)

    def test_default_bridge_reaches_its_gateway(self):
        script = ("ls /sys/class/net; ip -4 -o addr show eth0 | grep -c 'inet 172'; "
                  "ping -c1 -W5 $(ip route | awk '/default/ {print $3}') | grep -c 'bytes from'")

        def scenario(runtime):
            return self.check(self.engine.run(runtime, "--rm", "--", "sh", "-c", script), out="eth0\nlo\n1\n1\n").out
        self.compare(scenario)

    @staticmethod
    def _answer(port):
        answer = harness.processes.call([image.busybox(), "nc", "127.0.0.1", port])
        return answer if answer.out else None

    def test_published_port_answers(self):
        def scenario(runtime):
            container = self.engine.begin(runtime, "-p", "127.0.0.1::80", "--", "sh", "-c",
                                          "echo ready; echo served | nc -l -p 80")
            self.engine.wait_for_log(container, b"ready")
            port = self.engine("port", container, "80/tcp").text.strip().rpartition(":")[2]
            # Docker's proxy takes connections before anybody listens in the container, and then just closes them.
            answer = world.wait_until(lambda: self._answer(port), 30, "the published port answers")
            self.check(answer, out="served\n")
            return answer.out, self.engine("wait", container).out
        self.compare(scenario)

    def test_host_network_is_the_engines_own(self):
        own = os.readlink("/proc/self/ns/net")

        def scenario(runtime):
            done = self.engine.run(runtime, "--rm", "--network", "host", "--", "readlink", "/proc/self/ns/net")
            return self.check(done, out=own + "\n").out
        self.compare(scenario)

    def test_namespaces_of_another_container_are_joined(self):
        def scenario(runtime):
            first = self.engine.begin(runtime, "--ipc", "shareable", "--", "sleep", "1000")
            links = ("sh", "-c", "for n in net ipc pid; do readlink /proc/self/ns/$n; done")
            mine = self.check(self.engine("exec", first, *links))
            joined = self.engine.run(runtime, "--rm", "--network", f"container:{first}", "--ipc", f"container:{first}",
                                     "--pid", f"container:{first}", "--", *links)
            self.check(joined, out=mine.text)
            alone = self.check(self.engine.run(runtime, "--rm", "--", *links))
            self.assertEqual(len(set(alone.text.split())), 3)
            self.assertFalse(set(alone.text.split()) & set(mine.text.split()))
            return joined.code
        self.compare(scenario)

    def test_host_pid_namespace_is_cleaned_up(self):
        def scenario(runtime):
            container = self.engine.begin(runtime, "--pid", "host", "--", "sh", "-c",
                                          "sleep 1000 & sleep 1001 & echo ready; wait")
            self.engine.wait_for_log(container, b"ready")
            self.check(self.engine("kill", container))
            return self.engine("wait", container).text
        self.compare(scenario)

    def test_private_cgroup_namespace_hides_the_path(self):
        def scenario(runtime):
            done = self.engine.run(runtime, "--rm", "--cgroupns", "private", "--", "sh", "-c",
                                   "cut -d: -f3 /proc/self/cgroup | sort -u")
            return self.check(done, out="/\n").out
        self.compare(scenario)
