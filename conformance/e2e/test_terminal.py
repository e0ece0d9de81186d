"""Terminals: `run` and `exec -t` on the caller's own, and those handed over through a console socket."""

import os
import signal
import sys
import termios

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "lib"))
from arca_test import Case, environment, main, ours_only, read_text, unlike, until, wait_process  # noqa: E402

WITH_TERMINAL = {"terminal": True}
WAIT = "while :; do sleep 0.05; done"
ON_INTERRUPT = f'trap "echo interrupted; exit 6" INT; echo ready; {WAIT}'


def on_resize(size):
    """A script that ends when its terminal gets this size; other resizes are let pass."""
    return f"""trap 'test "$(stty size 2>&1)" = "{size}" && echo resized && exit 5' WINCH; echo ready; {WAIT}"""


class Foreground(Case):
    def run_on(self, terminal, *args, **process):
        bundle = self.bundle(*args, process={"terminal": True, **process})
        child = terminal.spawn(self.command("run", "--bundle", bundle.path, self.new_id()), env=environment())
        self.processes.append(child)
        return child

    def exec_on(self, terminal, *words):
        child = terminal.spawn(self.command("exec", *words), env=environment())
        self.processes.append(child)
        return child

    def test_the_program_is_on_a_terminal_of_the_containers_own(self):
        terminal = self.terminal()
        child = self.run_on(terminal, "sh", "-c", "tty; test -t 1 && test -t 2 && echo all; exit 4")
        terminal.read_until(b"all")
        self.assertRegex(terminal.seen, rb"\A/dev/(console|pts/0)\r\n")
        self.assertEqual(wait_process(child), 4)

    def test_it_is_the_controlling_terminal(self):
        terminal = self.terminal()
        child = self.run_on(terminal, "sh", "-c", "echo through the tty >/dev/tty; cut -d' ' -f7 /proc/self/stat")
        terminal.read_until(b"through the tty\r\n")
        self.assertNotEqual(terminal.read_until(b"\r\n").strip(), b"0", "tty_nr of the program")
        self.assertEqual(wait_process(child), 0)

    @unlike("crun", "applies the size after the program has started")
    @unlike("runc", "applies the size after the program has started, which a busy machine shows")
    def test_it_starts_with_the_callers_window_size(self):
        terminal = self.terminal(rows=33, columns=99)
        child = self.run_on(terminal, "stty", "size")
        terminal.read_until(b"33 99")
        self.assertEqual(wait_process(child), 0)

    @unlike("crun", "misses a resize right after the start")
    def test_a_resize_reaches_the_program(self):
        terminal = self.terminal()
        child = self.run_on(terminal, "sh", "-c", on_resize("50 132"))
        terminal.read_until(b"ready")
        terminal.resize(50, 132)
        terminal.read_until(b"resized")
        self.assertEqual(wait_process(child), 5)

    def test_control_c_interrupts_the_program_and_not_the_caller(self):
        terminal = self.terminal()
        child = self.run_on(terminal, "sh", "-c", ON_INTERRUPT)
        terminal.read_until(b"ready")
        terminal.send(b"\x03")
        terminal.read_until(b"interrupted")
        self.assertEqual(wait_process(child), 6)

    def test_what_is_typed_is_echoed_once_and_read_once(self):
        terminal = self.terminal()
        child = self.run_on(terminal, "sh", "-c", 'echo ready; read line; echo "got [$line]"')
        terminal.read_until(b"ready\r\n")
        terminal.send(b"typed\r")
        terminal.read_until(b"got [typed]\r\n")
        self.assertEqual(terminal.seen, b"ready\r\ntyped\r\ngot [typed]\r\n")
        self.assertEqual(wait_process(child), 0)

    def test_end_of_file_is_typed_with_control_d(self):
        terminal = self.terminal()
        child = self.run_on(terminal, "sh", "-c", "echo ready; cat; echo end of cat")
        terminal.read_until(b"ready")
        terminal.send(b"\x04")
        terminal.read_until(b"end of cat")
        self.assertEqual(wait_process(child), 0)

    def test_the_callers_terminal_is_as_before(self):
        terminal = self.terminal()
        before = terminal.attributes()
        child = self.run_on(terminal, "sh", "-c", "echo ready; read line")
        terminal.read_until(b"ready")
        until(lambda: not terminal.attributes()[3] & termios.ICANON, "the caller's terminal becomes raw")
        terminal.send(b"\r")
        self.assertEqual(wait_process(child), 0)
        self.assertEqual(terminal.attributes(), before)

    def test_the_last_output_comes_before_the_end(self):
        terminal = self.terminal()
        child = self.run_on(terminal, "seq", "1", "20000")
        terminal.read_until(b"\n20000\r\n")
        self.assertEqual(wait_process(child), 0)

    @unlike("crun", "misses a resize right after the start")
    def test_exec_on_a_terminal(self):
        c = self.start()
        for flag in ("--tty", "-t"):
            with self.subTest(flag=flag):
                terminal = self.terminal(rows=31, columns=97)
                child = self.exec_on(terminal, flag, c, "sh", "-c", "tty; " + on_resize("51 133"))
                terminal.read_until(b"ready")
                self.assertRegex(terminal.seen, rb"\A/dev/pts/[0-9]+\r\n")
                terminal.resize(51, 133)
                terminal.read_until(b"resized")
                self.assertEqual(wait_process(child), 5)

    def test_control_c_in_an_exec(self):
        c, terminal = self.start(), self.terminal()
        child = self.exec_on(terminal, "-t", c, "sh", "-c", ON_INTERRUPT)
        terminal.read_until(b"ready")
        terminal.send(b"\x03")
        terminal.read_until(b"interrupted")
        self.assertEqual(wait_process(child), 6)
        self.assertEqual(self.state(c)["status"], "running")

    def test_exec_with_a_process_file_and_tty(self):
        c, terminal = self.start(), self.terminal()
        path = self.process_file("sh", "-c", "tty; exit 8", terminal=True)
        child = self.exec_on(terminal, "--process", path, "--tty", c)
        terminal.read_until(b"/dev/pts/")
        self.assertEqual(wait_process(child), 8)


class ConsoleSocket(Case):
    def create_with_terminal(self, *args, **process):
        listener = self.fd_socket()
        c = self.create(self.bundle(*args, process={"terminal": True, **process}),
                        "--console-socket", listener.path)
        terminal = listener.receive_terminal()
        self.addCleanup(terminal.close)
        listener.close()
        return c, terminal

    def test_create_hands_over_the_terminal_of_the_program(self):
        c, terminal = self.create_with_terminal("sh", "-c", 'tty; read line; echo "got $line"; exit 3')
        pid = self.state(c)["pid"]
        self.ok("start", c)
        terminal.read_until(b"\n")
        self.assertRegex(terminal.seen, rb"\A/dev/(console|pts/0)\r?\n")
        terminal.send(b"typed\r")
        terminal.read_until(b"got typed")
        self.assertEqual(os.waitstatus_to_exitcode(self.wait_reaped(pid)), 3)

    def test_the_end_of_the_program_closes_the_terminal(self):
        c, terminal = self.create_with_terminal("echo", "bye")
        self.ok("start", c, env=environment(ARCA_AGENT_IDLE_SECONDS="60"))
        self.assertIn(b"bye", terminal.read_all())
        self.kill_agents()

    def test_a_resize_of_the_master_reaches_the_program(self):
        c, terminal = self.create_with_terminal("sh", "-c", on_resize("44 111"))
        self.ok("start", c)
        terminal.read_until(b"ready")
        terminal.resize(44, 111)
        terminal.read_until(b"resized")
        self.wait_status(c, "stopped")

    def test_console_size_is_applied(self):
        c, terminal = self.create_with_terminal("stty", "size", consoleSize={"height": 40, "width": 120})
        self.assertEqual(terminal.size(), (40, 120))
        self.ok("start", c)
        terminal.read_until(b"40 120")

    def test_create_lets_go_of_the_callers_stdio(self):
        listener, c = self.fd_socket(), self.new_id()
        self.ids.append(c)
        process = self.spawn(self.command("create", "--bundle",
                                          self.bundle("sleep", "600", process=WITH_TERMINAL).path,
                                          "--console-socket", listener.path, c), stdout=-1, stderr=-1,
                             env=environment(ARCA_AGENT_IDLE_SECONDS="60"))
        out, err = process.communicate(timeout=15)  # waits for the end of both, as engines do
        self.assertEqual((process.returncode, out, err), (0, b"", b""))
        os.close(listener.receive()[1])
        self.kill_agents()

    def test_an_ended_reader_does_not_end_the_container(self):
        c, terminal = self.create_with_terminal("sh", "-c", f'trap "" HUP; echo ignored; {WAIT}')
        self.ok("start", c)
        terminal.read_until(b"ignored")
        terminal.close()
        self.assertEqual(self.state(c)["status"], "running")

    def test_create_without_a_needed_socket_is_an_error(self):
        self.fails("create", "--bundle", self.bundle("true", process=WITH_TERMINAL).path, self.new_id(),
                   says="cannot allocate tty if runc will detach without setting console socket")

    @unlike("crun", "ignores it")
    def test_a_socket_without_a_terminal_is_an_error(self):
        listener = self.fd_socket()
        self.fails("create", "--bundle", self.bundle("true").path, "--console-socket", listener.path,
                   self.new_id(), says="cannot use console socket if runc will not detach or allocate tty")

    def test_a_socket_that_cannot_be_reached_is_an_error(self):
        self.fails("create", "--bundle", self.bundle("true", process=WITH_TERMINAL).path,
                   "--console-socket", os.path.join(self.dir, "nobody"), self.new_id())

    def test_exec_hands_over_a_terminal(self):
        c, listener, pid_file = self.start(), self.fd_socket(), os.path.join(self.dir, "pid")
        self.ok("exec", "--detach", "--tty", "--console-socket", listener.path, "--pid-file", pid_file, c,
                "sh", "-c", "tty; " + ON_INTERRUPT)
        terminal = listener.receive_terminal()
        self.addCleanup(terminal.close)
        terminal.read_until(b"ready")
        self.assertRegex(terminal.seen, rb"\A/dev/pts/[0-9]+\r?\n")
        terminal.send(b"\x03")
        terminal.read_until(b"interrupted")
        status = self.wait_reaped(int(read_text(pid_file)))
        self.assertEqual(os.waitstatus_to_exitcode(status), 6)

    def test_run_detached_hands_over_the_terminal(self):
        c, listener = self.new_id(), self.fd_socket()
        self.ids.append(c)
        bundle = self.bundle("sh", "-c", on_resize("45 112"), process=WITH_TERMINAL)
        self.ok("run", "--detach", "--bundle", bundle.path, "--console-socket", listener.path, c)
        terminal = listener.receive_terminal()
        self.addCleanup(terminal.close)
        terminal.read_until(b"ready")
        terminal.resize(45, 112)
        terminal.read_until(b"resized")

    @ours_only("runc and crun cannot connect to a path longer than a socket address")
    def test_a_socket_at_a_long_path_is_reached(self):
        folder = os.path.join(self.dir, "x" * 100)
        os.mkdir(folder)
        listener = self.fd_socket("long.sock")
        moved = os.path.join(folder, "long.sock")
        os.rename(listener.path, moved)
        listener.path = moved
        self.create(self.bundle("true", process=WITH_TERMINAL), "--console-socket", moved)
        os.close(listener.receive()[1])


class WithoutTerminal(Case):
    def test_console_size_is_ignored(self):
        self.assertEqual(self.inside("test -t 0 || echo none", process={"consoleSize": {"height": 9, "width": 9}}),
                         "none\n")

    def test_an_interrupt_of_the_foreground_is_forwarded(self):
        bundle = self.bundle("sh", "-c", ON_INTERRUPT)
        process = self.spawn(self.command("run", "--bundle", bundle.path, self.new_id()), stdout=-1)
        self.assertEqual(process.stdout.readline(), b"ready\n")
        process.send_signal(signal.SIGINT)
        self.assertEqual(wait_process(process), 6)
        process.stdout.close()


if __name__ == "__main__":
    main()
