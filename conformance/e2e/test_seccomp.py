"""System call filters: actions, arguments, names, flags, errors, and an agent that answers calls (SCMP_ACT_NOTIFY)."""

import errno
import os
import socket
import sys

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "lib"))
from arca_test import Case, local_only, main, ours_only, until  # noqa: E402
from seccomp_agent import CONTINUE, Agent  # noqa: E402

# Numbers on x86_64, which is what busybox-static is here.
EXECVE, GETCWD, MKDIR, SENDMSG, RECVMSG, SETHOSTNAME = 59, 79, 83, 46, 47, 170
GETUID, GETEUID = 102, 107


def rule(names, action, **members):
    return {"names": names.split(), "action": f"SCMP_ACT_{action}", **members}


def filtering(*rules, default="ALLOW", **members):
    return {"seccomp": {"defaultAction": f"SCMP_ACT_{default}", "architectures": ["SCMP_ARCH_X86_64"],
                        "syscalls": list(rules), **members}}


class SeccompCase(Case):
    def run_filtered(self, script, *rules, process=None, **members):
        bundle = self.bundle("sh", "-c", script, linux=filtering(*rules, **members), process=process or {}, writable=True)
        return self.run_bundle(bundle)


class Actions(SeccompCase):
    def test_errno_is_eperm_unless_another_is_given(self):
        result = self.run_filtered("pwd; cd /; mkdir /x", rule("mkdir mkdirat", "ERRNO"))
        self.assertIn("Operation not permitted", result.err, result)
        for number, text in ((errno.ENOSPC, "No space left on device"), (errno.EROFS, "Read-only file system")):
            with self.subTest(errnoRet=number):
                result = self.run_filtered("mkdir /x", rule("mkdir mkdirat", "ERRNO", errnoRet=number))
                self.assertIn(text, result.err, result)

    def test_an_errno_of_zero_is_a_call_that_does_nothing(self):
        result = self.run_filtered("mkdir /x; echo $?; ls -d /x", rule("mkdir mkdirat", "ERRNO", errnoRet=0))
        self.assertEqual(result.out, "0\n", result)

    def test_kill_and_trap_end_the_process(self):
        for action in ("KILL", "KILL_THREAD", "KILL_PROCESS", "TRAP"):
            with self.subTest(action=action):
                result = self.run_filtered("mkdir /x; echo $?", rule("mkdir mkdirat", action))
                self.assertEqual(result.out, "159\n", result)  # SIGSYS is 31

    def test_trace_without_a_tracer_is_enosys(self):
        result = self.run_filtered("mkdir /x", rule("mkdir mkdirat", "TRACE", errnoRet=7))
        self.assertIn("Function not implemented", result.err, result)

    def test_log_and_allow_let_through(self):
        for action in ("LOG", "ALLOW"):
            with self.subTest(action=action):
                result = self.run_filtered("mkdir /x && grep Seccomp: /proc/self/status", rule("mkdir", action),
                                           rule("chroot", "ERRNO"))
                self.assertEqual(result.out, "Seccomp:\t2\n", result)

    def test_the_default_action_meets_what_no_rule_names(self):
        calls = """execve brk arch_prctl set_tid_address set_robust_list rseq prlimit64 mprotect readlink getrandom
            exit_group exit write read getuid getgid geteuid getegid newuname uname prctl rt_sigaction sysinfo open
            openat close fstat newfstatat readlinkat mmap munmap stat access dup2 dup fcntl ioctl wait4 clone vfork
            getppid getpid getcwd rt_sigprocmask rt_sigreturn poll clone3 lseek faccessat faccessat2"""
        allowed = rule(calls, "ALLOW")
        result = self.run_filtered("echo in; mkdir /x", allowed, default="ERRNO", defaultErrnoRet=errno.ENOSPC)
        self.assertEqual(result.out, "in\n", result)
        self.assertIn("No space left on device", result.err, result)

    def test_without_a_rule_and_a_default_action_there_is_no_filter(self):
        out = self.inside("grep Seccomp: /proc/self/status", linux={"seccomp": {}})
        self.assertEqual(out, "Seccomp:\t0\n")

    def test_an_exec_is_filtered_too(self):
        c = self.start(linux=filtering(rule("mkdir mkdirat", "ERRNO", errnoRet=errno.ENOSPC)), writable=True)
        result = self.exec(c, "mkdir", "/x")
        self.assertIn("No space left on device", result.err, result)

    def test_the_program_needs_no_privilege_for_it(self):
        for no_new_privileges in (True, False):
            with self.subTest(noNewPrivileges=no_new_privileges):
                empty = {name: [] for name in ("bounding", "effective", "permitted", "inheritable", "ambient")}
                result = self.run_filtered(
                    "mkdir /tmp/x; grep -E 'Seccomp:|NoNewPrivs|CapEff|CapPrm|CapBnd' /proc/self/status",
                    rule("mkdir mkdirat", "ERRNO", errnoRet=errno.ENOSPC),
                    process={"noNewPrivileges": no_new_privileges, "capabilities": empty,
                             "user": {"uid": 1000, "gid": 1000}})
                self.assertIn("No space left on device", result.err, result)
                zero = "0" * 16
                self.assertEqual(result.out, f"CapPrm:\t{zero}\nCapEff:\t{zero}\nCapBnd:\t{zero}\n"
                                             f"NoNewPrivs:\t{int(no_new_privileges)}\nSeccomp:\t2\n", result)

    def test_a_filter_that_refuses_all_but_execve_is_loaded_last(self):
        # exit_group and the rest are refused, so the program cannot even say that it ran: the kernel can.
        result = self.run_filtered("true", rule("execve", "ALLOW"), default="KILL_PROCESS", architectures=[])
        self.assertEqual(result.code, 128 + 31, result)


class Rules(SeccompCase):
    def test_names_that_nobody_knows_are_skipped(self):
        result = self.run_filtered("mkdir /x", rule("no_such_call mkdir another_one", "ERRNO"))
        self.assertIn("Operation not permitted", result.err, result)

    def test_each_operator_compares_the_argument(self):
        """The third argument of mknodat(2) is the mode."""
        for op, value, two, refused, passed in (
                ("EQ", 0o700, 0, "700", "750"), ("NE", 0o700, 0, "750", "700"), ("LT", 0o701, 0, "700", "750"),
                ("LE", 0o700, 0, "700", "750"), ("GT", 0o700, 0, "750", "700"), ("GE", 0o750, 0, "750", "700"),
                ("MASKED_EQ", 0o070, 0o050, "750", "700")):
            with self.subTest(op=op):
                if op != "MASKED_EQ":
                    value |= 0o10000  # S_IFIFO
                args = [{"index": 2, "value": value, "valueTwo": two, "op": f"SCMP_CMP_{op}"}]
                result = self.run_filtered(f"umask 0; mkfifo -m {refused} /tmp/r; mkfifo -m {passed} /tmp/p; ls /tmp",
                                           rule("mknodat", "ERRNO", args=args))
                self.assertEqual(result.out, "p\n", result)

    def test_several_arguments_must_all_match(self):
        args = [{"index": 1, "value": 0, "op": "SCMP_CMP_NE"}, {"index": 2, "value": 0o10700, "op": "SCMP_CMP_EQ"},
                {"index": 3, "value": 1, "op": "SCMP_CMP_EQ"}]
        for wanted, given in (("a\n", args), ("", args[:2])):
            with self.subTest(args=given):
                result = self.run_filtered("umask 0; mkfifo -m 700 /tmp/a; ls /tmp",
                                           rule("mknodat", "ERRNO", args=given))
                self.assertEqual(result.out, wanted, result)

    def test_several_conditions_on_one_argument_are_alternatives(self):
        args = [{"index": 2, "value": value, "op": "SCMP_CMP_EQ"} for value in (0o10700, 0o10750)]
        result = self.run_filtered("umask 0; for m in 700 750 777; do mkfifo -m $m /tmp/$m; done; ls /tmp",
                                   rule("mknodat", "ERRNO", args=args))
        self.assertEqual(result.out, "777\n", result)

    def test_calls_newer_than_the_profile_do_not_exist(self):
        """A C library tries a new call first and takes an older one at ENOSYS; EPERM it would pass on."""
        calls = "execve brk arch_prctl set_tid_address mprotect readlink prctl getuid exit_group write umask"
        for more, text in (("", "Function not implemented"), (" statx", "Operation not permitted")):
            with self.subTest(more=more):
                bundle = self.bundle("mkfifo", "/tmp/x", linux=filtering(rule(calls + more, "ALLOW"), default="ERRNO"),
                                     writable=True)
                self.assertIn(text, self.run_bundle(bundle).err)

    def test_architectures_beside_the_native_one(self):
        result = self.run_filtered("mkdir /x", rule("mkdir", "ERRNO"),
                                   architectures=["SCMP_ARCH_X86_64", "SCMP_ARCH_X86", "SCMP_ARCH_X32",
                                                  "SCMP_ARCH_AARCH64", "SCMP_ARCH_S390X", "SCMP_ARCH_RISCV64"])
        self.assertIn("Operation not permitted", result.err, result)

    def test_flags(self):
        known = [f"SECCOMP_FILTER_FLAG_{name}" for name in ("TSYNC", "LOG", "SPEC_ALLOW", "WAIT_KILLABLE_RECV")]
        for flags in ([], known[:1], known[1:2], known[2:3], known):
            with self.subTest(flags=flags):
                result = self.run_filtered("mkdir /x", rule("mkdir", "ERRNO"), flags=flags)
                self.assertIn("Operation not permitted", result.err, result)

    @ours_only("runc and crun check less")
    def test_what_the_schema_does_not_know_is_refused_before_anything_is_made(self):
        good = rule("mkdir", "ERRNO")
        for says, profile in (
                ("NOPE", filtering(rule("mkdir", "NOPE"))), ("NOPE", filtering(good, default="NOPE")),
                ("names", filtering({"names": [], "action": "SCMP_ACT_ERRNO"})),
                ("SCMP_ARCH_NOPE", filtering(good, architectures=["SCMP_ARCH_NOPE"])),
                ("FLAG_NOPE", filtering(good, flags=["SECCOMP_FILTER_FLAG_NOPE"])),
                ("index", filtering(rule("mkdir", "ERRNO", args=[{"index": 6, "value": 0, "op": "SCMP_CMP_EQ"}]))),
                ("SCMP_CMP_NOPE", filtering(rule("mkdir", "ERRNO", args=[{"index": 0, "value": 0,
                                                                         "op": "SCMP_CMP_NOPE"}]))),
                ("errnoRet", filtering(rule("mkdir", "ALLOW", errnoRet=1))),
                ("defaultErrnoRet", filtering(good, defaultErrnoRet=1)),
                ("errnoRet", filtering(rule("mkdir", "ERRNO", errnoRet=4096))),
                ("listenerPath", filtering(rule("mkdir", "NOTIFY"))),
                ("listenerPath", filtering(good, listenerMetadata="m")),
                ("listenerPath", filtering(rule("mkdir", "NOTIFY"), listenerPath="relative")),
                ("write", filtering(rule("mkdir write", "NOTIFY"), listenerPath="/x")),
                ("defaultAction", filtering(good, default="NOTIFY", listenerPath="/x"))):
            with self.subTest(profile=profile):
                bundle = self.bundle("true", linux=profile)
                self.fails("create", "--bundle", bundle.path, self.new_id(), says=says)


@local_only("the descriptor of the listener belongs to the guest's kernel")
class Notify(SeccompCase):
    def agent(self, answers, **options):
        agent = Agent(os.path.join(self.dir, f"agent{len(os.listdir(self.dir))}.sock"), answers, **options)
        self.addCleanup(lambda: self.assertIsNone(agent.failure))
        self.addCleanup(agent.close)
        return agent

    def run_notified(self, agent, script, names, **changes):
        bundle = self.bundle("sh", "-c", script, writable=True, linux=filtering(
            rule(names, "NOTIFY"), listenerPath=agent.path), **changes)
        return self.run_bundle(bundle)

    def test_the_agent_decides_errno_value_and_continue(self):
        agent = self.agent({GETUID: 4711, GETEUID: 4712, MKDIR: -errno.ENOSPC, SETHOSTNAME: CONTINUE})
        result = self.run_notified(agent, "id -ru; id -u; mkdir /x; hostname new && hostname",
                                   "getuid geteuid mkdir sethostname",
                                   process={"capabilities": {name: ["CAP_SYS_ADMIN"] for name in (
                                       "bounding", "effective", "permitted")}})
        self.assertEqual(result.out, "4711\n4712\nnew\n", result)
        self.assertIn("No space left on device", result.err, result)

    def test_the_agent_is_told_of_the_process(self):
        agent = self.agent({})
        bundle = self.bundle("sleep", "600", annotations={"one": "1", "two": "2"}, linux=filtering(
            rule("mkdir", "NOTIFY"), listenerPath=agent.path, listenerMetadata="some = {opaque} \"text\" \u00e9"))
        c = self.create(bundle)
        self.ok("start", c)
        state, fds = until(lambda: agent.handed, "the agent is told")[0]
        pid = self.state(c)["pid"]
        self.assertEqual(fds, 1)
        self.assertEqual(state, {
            "ociVersion": bundle.config["ociVersion"], "fds": ["seccompFd"], "pid": pid,
            "metadata": "some = {opaque} \"text\" \u00e9",
            "state": {"ociVersion": bundle.config["ociVersion"], "id": c, "status": "creating", "pid": pid,
                      "bundle": bundle.path, "annotations": {"one": "1", "two": "2"}}})

    def test_each_exec_has_a_connection_of_its_own(self):
        agent = self.agent({MKDIR: -errno.ENOSPC})
        c = self.start(linux=filtering(rule("mkdir", "NOTIFY"), listenerPath=agent.path), writable=True)
        for _ in range(2):
            result = self.exec(c, "sh", "-c", "mkdir /x; grep NSpid /proc/self/status")
            self.assertIn("No space left on device", result.err, result)
        self.assertEqual(len(agent.handed), 3)
        (first, _), *others = agent.handed
        self.assertNotIn("metadata", first)
        init = self.state(c)["pid"]
        for state, fds in others:
            self.assertEqual((fds, state["state"]["status"], state["state"]["pid"]), (1, "running", init))
            self.assertNotEqual(state["pid"], init)
        self.assertNotEqual(others[0][0]["pid"], others[1][0]["pid"])

    @ours_only("runc 1.1.5 and crun 1.8.1 need some of these calls themselves")
    def test_calls_of_the_hand_over_and_execve_can_be_notified_too(self):
        agent = self.agent({})
        result = self.run_notified(agent, "echo ran", "sendmsg recvmsg read close execve futex exit openat")
        self.assertEqual(result.out, "ran\n", result)
        self.assertIn(EXECVE, [number for number, _ in agent.calls])

    def test_execve_refused_by_the_agent_is_an_error_of_start(self):
        agent = self.agent({EXECVE: -errno.EACCES})
        bundle = self.bundle("true", linux=filtering(rule("execve", "NOTIFY"), listenerPath=agent.path))
        c = self.create(bundle)
        self.fails("start", c, says="permission denied")

    @ours_only("runc 1.1.5 and crun 1.8.1 need some of these calls themselves")
    def test_a_profile_without_the_calls_of_the_hand_over(self):
        agent = self.agent({GETUID: 4711})
        calls = "execve brk arch_prctl set_tid_address set_robust_list rseq prlimit64 mprotect readlink getrandom " \
                "exit_group write geteuid getgid getegid prctl rt_sigaction uname mmap munmap fstat stat newfstatat"
        bundle = self.bundle("id", "-ru", linux=filtering(
            rule(calls, "ALLOW"), rule("getuid", "NOTIFY"), default="ERRNO", listenerPath=agent.path))
        result = self.run_bundle(bundle)
        self.assertEqual(result.out, "4711\n", result)

    def test_as_a_user_without_privileges_and_with_the_killable_flag(self):
        agent = self.agent({MKDIR: -errno.ENOSPC})
        for no_new_privileges in (True, False):
            bundle = self.bundle("mkdir", "/tmp/x", linux=filtering(
                rule("mkdir", "NOTIFY"), listenerPath=agent.path,
                flags=["SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV", "SECCOMP_FILTER_FLAG_TSYNC"]),
                process={"user": {"uid": 1000, "gid": 1000}, "noNewPrivileges": no_new_privileges})
            result = self.run_bundle(bundle)
            self.assertIn("No space left on device", result.err, result)

    def test_a_path_without_notify_means_nothing(self):
        result = self.run_filtered("echo ran", rule("mkdir", "ERRNO"), listenerPath="/nowhere/at/all")
        self.assertEqual((result.code, result.out), (0, "ran\n"), result)

    def test_an_agent_that_is_not_there_is_an_error_and_nothing_runs(self):
        dead = os.path.join(self.dir, "dead.sock")
        with socket.socket(socket.AF_UNIX) as listener:
            listener.bind(dead)
        self.addCleanup(os.unlink, dead)
        plain = os.path.join(self.dir, "plain")
        with open(plain, "w", encoding="ascii"):
            pass
        for path in (os.path.join(self.dir, "absent.sock"), dead, plain):
            with self.subTest(path=os.path.basename(path)):
                bundle = self.bundle("touch", "/ran", writable=True, linux=filtering(
                    rule("mkdir", "NOTIFY"), listenerPath=path))
                result = self.run_bundle(bundle)
                self.assertEqual(result.code, 1, result)
                self.assertIn("listenerPath", result.err, result)
                self.assertFalse(os.path.exists(bundle.file("ran")))

    def test_an_agent_that_does_not_accept_holds_nothing_up(self):
        agent = self.agent({}, accepting=False)
        result = self.run_notified(agent, "echo ran", "mkdir")
        self.assertEqual(result.out, "ran\n", result)

    def test_long_metadata_arrives_in_one_piece(self):
        agent = self.agent({})
        bundle = self.bundle("true", linux=filtering(rule("mkdir", "NOTIFY"), listenerPath=agent.path,
                                                     listenerMetadata="m" * 60000))
        self.assertEqual(self.run_bundle(bundle).code, 0)
        state, fds = until(lambda: agent.handed, "the agent is told")[0]
        self.assertEqual((len(state["metadata"]), fds), (60000, 1))


if __name__ == "__main__":
    main()
