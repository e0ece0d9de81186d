#!/usr/bin/python3
"""Pods: several containers in one VM around a pause container, in the host library's way."""

import signal

from host_library import SECONDS, Container, container_spec, pb, process_spec
from wire_case import CODE, WireCase, main


class Pod:
    """A pod with a pid namespace that its containers share, held by `pause-<id>`."""

    def __init__(self, case, identity):
        self.case, self.id = case, identity
        self.pause = PauseContainer(case.host, f"pause-{identity}", identity)
        case.containers.append(self.pause)
        self.pause.create()
        self.pause.start()

    def container(self, *args, **options):
        identity = self.case.new_id(f"{self.id}-c")
        namespaces = [{"type": kind, "path": ""} for kind in ("cgroup", "ipc", "mount", "uts")]
        namespaces.append({"type": "pid", "path": f"/proc/{self.pause.pid}/ns/pid"})
        return self.case.running(*args, identity=identity, linux__namespaces=namespaces,
                                 linux__cgroupsPath=f"/container/pod/{self.id}/{identity}", **options)


class PauseContainer(Container):
    """Runs the VM's own /sbin/vminitd from a bind of its folder, without streams."""

    def __init__(self, host, identity, pod):
        super().__init__(host, identity, ["/sbin/vminitd", "pause"], self.bind_sbin)
        self.spec = container_spec(identity, process_spec(["/sbin/vminitd", "pause"]), self.root,
                                   linux__cgroupsPath=f"/container/pod/{pod}/{identity}")
        self.to_unmount = [f"{self.root}/sbin"]

    def bind_sbin(self, _):
        self.context.Mkdir(pb.MkdirRequest(path=f"{self.root}/sbin", all=True, perms=0o755), timeout=SECONDS)
        self.context.Mount(pb.MountRequest(type="none", source="/sbin", destination=f"{self.root}/sbin",
                                           options=["bind"]), timeout=SECONDS)
        for name in ("proc", "sys", "dev"):
            self.context.Mkdir(pb.MkdirRequest(path=f"{self.root}/{name}", all=True, perms=0o755), timeout=SECONDS)


class Pods(WireCase):
    def pod(self):
        pod = Pod(self, self.new_id("pod"))
        self.addCleanup(self.check_pod_gone, pod)
        return pod

    def check_pod_gone(self, pod):
        for box in reversed(self.containers):
            if not box.stopped:
                self.assertEqual(box.stop(everything=False), [])
        left = self.context.ContainerStatistics(pb.ContainerStatisticsRequest(), timeout=SECONDS).containers
        self.assertEqual(len(left), 0, f"{pod.id}: {left}")

    def test_containers_see_each_others_processes_and_the_pause(self):
        pod = self.pod()
        first = pod.container("sh", "-c", "exec sleep 4321")
        second = pod.container("sh", "-c", "exec sleep 1234")
        code, text = second.run_exec("ps", "ps", "-o", "args")
        self.assertEqual(code, 0)
        for words in (b"/sbin/vminitd pause", b"sleep 4321", b"sleep 1234"):
            self.assertIn(words, text)
        self.assertNotEqual(first.pid, second.pid)
        self.assertEqual(second.run_exec("init", "cat", "/proc/1/comm"), (0, b"vminitd\n"))

    def test_their_mounts_names_and_cgroups_are_apart(self):
        pod = self.pod()
        first, second = pod.container(), pod.container()
        for box in (first, second):
            self.assertEqual(box.run_exec("name", "hostname"), (0, box.id.encode() + b"\n"))
        first.run_exec("write", "sh", "-c", "echo mine > /tmp/file")
        self.assertNotEqual(second.run_exec("read", "cat", "/tmp/file")[0], 0)
        self.assertEqual(second.run_exec("cgroup", "cat", "/proc/self/cgroup"), (0, b"0::/\n"))
        self.assertTrue(self.context.Stat(pb.StatRequest(path=f"/sys/fs/cgroup/container/pod/{pod.id}/{first.id}"),
                                          timeout=SECONDS).stat.ino)

    def test_the_end_of_one_container_is_not_the_others(self):
        pod = self.pod()
        first, second = pod.container(), pod.container()
        self.assertEqual(first.run_exec("in", "true")[0], 0)
        first.kill(signal.SIGKILL)
        self.assertEqual(first.wait(3), 137)
        self.assertEqual(first.stop(everything=False), [])
        self.assertEqual(second.run_exec("alive", "sh", "-c", "exit 7")[0], 7)
        replacement = pod.container("sh", "-c", "exit 8")
        self.assertEqual(replacement.wait(), 8)

    def test_a_killed_container_leaves_no_process_in_the_shared_namespace(self):
        """Without a pid namespace of its own nothing but the agent ends what the init has started."""
        pod = self.pod()
        first = pod.container("sh", "-c", "sleep 5555 & sleep 6666 & echo on; wait", streams=("stdout",))
        second = pod.container()
        first.stdout.until("on")
        first.kill(signal.SIGKILL)
        self.assertEqual(first.wait(), 137)
        self.assertEqual(first.stop(everything=False), [])
        text = second.run_exec("ps", "ps", "-o", "args")[1]
        self.assertNotIn(b"5555", text)
        self.assertNotIn(b"6666", text)

    def test_the_pause_reaps_and_ends_on_a_signal(self):
        pod = self.pod()
        box = pod.container()
        box.run_exec("orphan", "sh", "-c", "(sleep 0.05 &)")
        self.assertEqual(box.run_exec("zombies", "sh", "-c", "sleep 0.3; ps -o stat | grep -c Z")[1].strip(), b"0")
        pod.pause.kill(signal.SIGTERM)
        self.assertEqual(pod.pause.wait(), 0)
        self.assertEqual(box.wait(), 137)  # the namespace's init has gone, and all in it with it

    def test_volumes_are_shared(self):
        self.context.Mount(pb.MountRequest(type="tmpfs", source="tmpfs", destination="/run/volumes/data"),
                           timeout=SECONDS)
        self.addCleanup(lambda: self.context.Umount(pb.UmountRequest(path="/run/volumes/data"), timeout=SECONDS))
        pod = self.pod()
        volume = {"type": "none", "source": "/run/volumes/data", "destination": "/data", "options": ["bind"]}
        readonly = {**volume, "options": ["bind", "ro"]}
        first = pod.container(more_mounts=[volume])
        second = pod.container(more_mounts=[readonly])
        self.assertEqual(first.run_exec("write", "sh", "-c", "echo shared > /data/file")[0], 0)
        self.assertEqual(second.run_exec("read", "cat", "/data/file"), (0, b"shared\n"))
        self.assertNotEqual(second.run_exec("touch", "touch", "/data/other")[0], 0)
        self.check_pod_gone(pod)  # before the volume goes

    def test_the_network_is_the_vms(self):
        pod = self.pod()
        first, second = pod.container(), pod.container()
        text = first.run_exec("net", "readlink", "/proc/self/ns/net")
        self.assertEqual(second.run_exec("net", "readlink", "/proc/self/ns/net"), text)

    def test_a_namespace_path_that_is_none_is_an_error(self):
        box = self.box(linux__namespaces=[{"type": "mount", "path": ""}, {"type": "pid", "path": "/proc/1/ns/net"}])
        box.mount_root()
        self.fails((CODE.INTERNAL, CODE.INVALID_ARGUMENT), lambda: (box.create_process(box.spec), box.start()))
        gone = self.box(linux__namespaces=[{"type": "mount", "path": ""}, {"type": "pid", "path": "/proc/99999/ns/pid"}])
        gone.mount_root()
        self.fails((CODE.INTERNAL, CODE.INVALID_ARGUMENT), lambda: (gone.create_process(gone.spec), gone.start()))

    def test_a_container_with_a_pid_namespace_of_its_own_beside_a_pod(self):
        pod = self.pod()
        pod.container("sleep", "7777")
        alone = self.running(linux__cgroupsPath=f"/container/pod/{pod.id}/alone")
        self.assertNotIn(b"7777", alone.run_exec("ps", "ps", "-o", "args")[1])
        self.assertEqual(alone.run_exec("init", "cat", "/proc/1/comm"), (0, b"sleep\n"))


if __name__ == "__main__":
    main()
