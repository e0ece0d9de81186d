#!/usr/bin/python3
"""arca-tap-forwarder's name server: questions that programs of the guest ask on a loopback address reach the host, and its answers them."""

import contextlib
import os
import socket
import sys
import threading

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "lib"))
from arca_test import main  # noqa: E402
from netns import in_namespace  # noqa: E402
from tap_case import SECONDS, TapCase  # noqa: E402

ADDRESS, PORT = "127.0.0.11", 7001
QUESTION = b"\x12\x34\x01\x00\0\1\0\0\0\0\0\0\4name\0\0\1\0\1"


def read_exactly(stream, size):
    data = b""
    while len(data) < size:
        got = stream.recv(size - len(data))
        if not got:
            raise EOFError(data)
        data += got
    return data


def read_message(stream):
    return read_exactly(stream, int.from_bytes(read_exactly(stream, 2), "big"))


def framed(message):
    return len(message).to_bytes(2, "big") + message


class Host:
    """The host's end: each stream is given to `serve(how, stream)`, on a thread of its own."""

    def __init__(self, path, serve):
        self.serve, self.listener = serve, socket.socket(socket.AF_UNIX)
        self.listener.bind(path)
        self.listener.listen(256)
        self.thread = threading.Thread(target=self._accept, daemon=True)
        self.thread.start()

    def _accept(self):
        with contextlib.suppress(OSError):
            while True:
                threading.Thread(target=self._one, args=(self.listener.accept()[0],), daemon=True).start()

    def _one(self, stream):
        with stream, contextlib.suppress(OSError, EOFError):
            self.serve(read_exactly(stream, 1), stream)

    def close(self):
        self.listener.shutdown(socket.SHUT_RDWR)
        self.listener.close()


def echo(prefix=b"", repeat=1):
    """Answers with the question; `how` it came stands in the place of its first byte."""
    def serve(how, stream):
        while True:
            question = read_message(stream)
            stream.sendall(framed(prefix + how + question[1:] * repeat))
    return serve


class Names(TapCase):
    def setUp(self):
        super().setUp()
        self.fw = self.forwarder()

    def host(self, serve):
        path = os.path.join(self.fw.folder, str(PORT))
        host = Host(path, serve)
        self.addCleanup(os.unlink, path)
        self.addCleanup(host.close)

    def names(self, address=ADDRESS, port=PORT):
        return self.fw.client.call("ServeNames", {"address": address, "vsock_port": port})

    def served(self, serve):
        self.host(serve)
        self.assertEqual(self.names(), {"success": 1, "error": ""})

    def asker(self, kind=socket.SOCK_DGRAM):
        made = in_namespace(self.guest, lambda: socket.socket(socket.AF_INET, kind))
        self.addCleanup(made.close)
        made.settimeout(SECONDS)
        made.connect((ADDRESS, 53))
        return made

    def test_a_datagram_reaches_the_host_and_its_answer_who_asked(self):
        self.served(echo())
        asker = self.asker()
        for question in (QUESTION, QUESTION + bytes(400)):
            asker.send(question)
            self.assertEqual(asker.recv(70000), b"U" + question[1:])

    def test_a_connection_carries_any_number_of_questions(self):
        self.served(echo())
        asker = self.asker(socket.SOCK_STREAM)
        for size in (0, 1, 5000, 60000):
            question = QUESTION + bytes(size)
            asker.sendall(framed(question))
            self.assertEqual(read_message(asker), b"T" + question[1:])

    def test_an_answer_too_long_for_a_datagram_comes_by_tcp(self):
        self.served(echo(repeat=40))
        asker = self.asker()
        asker.send(QUESTION)
        short = asker.recv(70000)
        self.assertEqual((len(short), short[1], short[2] & 0x82), (12, QUESTION[1], 0x82))
        extended = QUESTION[:11] + b"\1" + QUESTION[12:]  # one additional record: 1232 bytes are welcome
        asker.send(extended)
        self.assertEqual(asker.recv(70000), b"U" + extended[1:] * 40)
        stream = self.asker(socket.SOCK_STREAM)
        stream.sendall(framed(QUESTION))
        self.assertEqual(read_message(stream), b"T" + QUESTION[1:] * 40)

    def test_a_question_without_an_answer_holds_up_no_other(self):
        silent = threading.Event()
        self.addCleanup(silent.set)

        def serve(how, stream):
            question = read_message(stream)
            if b"silent" in question:
                silent.wait(SECONDS)
            else:
                stream.sendall(framed(how + question[1:]))
        self.served(serve)
        self.asker().send(QUESTION.replace(b"\4name", b"\6silent"))
        self.asker(socket.SOCK_STREAM).sendall(framed(QUESTION.replace(b"\4name", b"\6silent")))
        asker = self.asker()
        asker.send(QUESTION)
        self.assertEqual(asker.recv(70000), b"U" + QUESTION[1:])

    def test_more_questions_than_it_takes_are_dropped_and_it_goes_on(self):
        go_on = threading.Event()
        self.addCleanup(go_on.set)

        def serve(how, stream):
            question = read_message(stream)
            go_on.wait(SECONDS)
            stream.sendall(framed(how + question[1:]))
        self.served(serve)
        askers = [self.asker() for _ in range(200)]
        for asker in askers:
            asker.send(QUESTION)
        threads = len(os.listdir(f"/proc/{self.fw.process.pid}/task"))
        self.assertLess(threads, 64 + 40)
        go_on.set()
        last = self.asker()
        last.settimeout(0.2)
        for _ in range(100):  # as resolvers do, until there is room again
            last.send(QUESTION)
            with contextlib.suppress(TimeoutError):
                self.assertEqual(last.recv(70000), b"U" + QUESTION[1:])
                return
        self.fail("no answer after the rush")

    def test_what_is_no_question_or_no_answer_ends_its_stream_only(self):
        def serve(how, stream):
            if read_message(stream)[:2] == b"\0\0":
                stream.sendall(b"\0\3abc")
            else:
                stream.sendall(framed(b"\x12\x34" + how * 20))
        self.served(serve)
        asker = self.asker()
        asker.send(b"short")
        asker.send(b"\0\0" + QUESTION[2:])
        stream = self.asker(socket.SOCK_STREAM)
        stream.sendall(b"\0\5short")
        with contextlib.suppress(ConnectionResetError):  # there are bytes that it has not read
            self.assertEqual(stream.recv(1), b"")
        asker.send(QUESTION)
        self.assertEqual(asker.recv(70000), b"\x12\x34" + b"U" * 20)

    def test_without_a_host_nothing_is_answered_and_nothing_breaks(self):
        self.assertEqual(self.names()["success"], 1)
        asker = self.asker(socket.SOCK_STREAM)
        asker.sendall(framed(QUESTION))
        self.assertEqual(asker.recv(1), b"")
        self.host(echo())
        asker = self.asker()
        asker.send(QUESTION)
        self.assertEqual(asker.recv(70000), b"U" + QUESTION[1:])

    def test_only_loopback_addresses_are_served(self):
        for address in ("", "nobody", "192.0.2.1", "::1", "0.0.0.0", "127.0.0.11\n"):
            self.refused(self.names(address), "not a loopback address of IPv4")
        taken = in_namespace(self.guest, lambda: socket.create_server((ADDRESS, 53)))
        with taken:
            self.refused(self.names(), f"listen on {ADDRESS}, port 53: address already in use")
        self.assertEqual(self.names()["success"], 1)
        self.assertEqual(self.names()["success"], 1)  # again: in the place of the first

    def test_it_ends_at_once_with_questions_under_way(self):
        go_on = threading.Event()
        self.addCleanup(go_on.set)
        came = threading.Semaphore(0)

        def serve(_, stream):
            read_message(stream)
            came.release()
            go_on.wait(SECONDS)
        self.served(serve)
        askers = [self.asker() for _ in range(8)]
        for asker in askers:
            asker.send(QUESTION)
        for _ in askers:
            self.assertTrue(came.acquire(timeout=SECONDS))
        os.unlink(os.path.join(self.fw.folder, str(PORT)))
        self.addCleanup(lambda: open(os.path.join(self.fw.folder, str(PORT)), "wb").close())
        self.fw.stop()


if __name__ == "__main__":
    main()
