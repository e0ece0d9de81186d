"""Mounts of a container: kinds, options, order, propagation, and targets that cannot leave the root file system."""

import os
import subprocess
import sys

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "lib"))
from arca_test import Case, main, mounts_of, ours_only, read_text, unlike  # noqa: E402
from isolation import mount, umount  # noqa: E402

ADMIN = {"capabilities": {name: ["CAP_SYS_ADMIN"] for name in ("bounding", "effective", "permitted")}}


def tmpfs(destination, *options):
    return {"destination": destination, "type": "tmpfs", "source": "tmpfs", "options": list(options)}


def bind(source, destination, *options):
    return {"destination": destination, "type": "bind", "source": source, "options": ["bind", *options]}


class MountCase(Case):
    def table(self, mounts, **changes):
        """The container's mount table."""
        return mounts_of(self.inside("cat /proc/self/mountinfo", mounts=mounts, writable=True, **changes))

    def folder(self, name, **files):
        path = os.path.join(self.dir, name)
        os.makedirs(path)
        for key, text in files.items():
            with open(os.path.join(path, key), "w", encoding="ascii") as file:
                file.write(text)
        return path

    def mounted(self, path):
        """A tmpfs of the host for the time of the test."""
        os.makedirs(path, exist_ok=True)
        mount("tmpfs", path, "tmpfs")
        self.addCleanup(umount, path, 2)
        return path


class Options(MountCase):
    def test_the_templates_mounts(self):
        table = self.table([])
        for point, kind in (("/proc", "proc"), ("/dev", "tmpfs"), ("/dev/pts", "devpts"), ("/dev/shm", "tmpfs"),
                            ("/dev/mqueue", "mqueue"), ("/sys", "sysfs")):
            with self.subTest(point=point):
                self.assertEqual(table[point]["type"], kind)
        self.assertLessEqual({"ro", "nosuid", "nodev", "noexec"}, table["/sys"]["flags"])
        self.assertLessEqual({"nosuid", "noexec"}, table["/dev/pts"]["flags"])
        self.assertLessEqual({"gid=5", "mode=620", "ptmxmode=666"}, table["/dev/pts"]["options"])

    @unlike("crun", "1.8.1 only adds flags")
    def test_flags(self):
        for options, present, absent in ((["ro"], {"ro"}, {"rw"}), (["rw"], {"rw"}, {"ro"}),
                                         (["nosuid", "nodev", "noexec"], {"nosuid", "nodev", "noexec"}, set()),
                                         ([], set(), {"nosuid", "nodev", "noexec"}),
                                         (["nosuid", "suid"], set(), {"nosuid"}), (["ro", "rw"], {"rw"}, {"ro"}),
                                         (["noatime"], {"noatime"}, {"relatime"}),
                                         (["nodiratime"], {"nodiratime"}, set()),
                                         (["relatime"], {"relatime"}, set()),
                                         (["strictatime"], set(), {"relatime", "noatime"})):
            with self.subTest(options=options):
                flags = self.table([tmpfs("/mnt", *options)])["/mnt"]["flags"]
                self.assertLessEqual(present, flags)
                self.assertFalse(absent & flags, flags)

    @unlike("crun", "1.8.1 does not pass sync and dirsync on")
    def test_flags_of_the_file_system(self):
        options = self.table([tmpfs("/mnt", "sync", "dirsync")])["/mnt"]["options"]
        self.assertLessEqual({"sync", "dirsync"}, options)

    @ours_only("runc 1.1.5 and crun 1.8.1 do not know it")
    def test_nosymfollow(self):
        self.assertIn("nosymfollow", self.table([tmpfs("/mnt", "nosymfollow")])["/mnt"]["flags"])

    def test_data_of_the_file_system(self):
        entry = self.table([tmpfs("/mnt", "size=64k", "mode=700", "uid=5", "gid=6", "nr_inodes=20")])["/mnt"]
        self.assertLessEqual({"size=64k", "mode=700", "uid=5", "gid=6", "nr_inodes=20"}, entry["options"])

    @unlike("crun", "1.8.1 makes them with the sticky bit")
    def test_missing_mount_points_are_made(self):
        bundle = self.bundle("sh", "-c", "stat -c %a /new /new/deep; touch /new/deep/x", writable=True,
                             mounts=[tmpfs("/new/deep", "mode=0750")])
        self.assertEqual(self.run_bundle(bundle).out, "755\n750\n")
        self.assertEqual(os.listdir(bundle.file("new/deep")), [])

    def test_the_order_is_that_of_the_list(self):
        source = self.folder("source", inner="seen\n")
        out = self.inside("cat /mnt/below/inner; ls /mnt", writable=True,
                          mounts=[tmpfs("/mnt"), bind(source, "/mnt/below")])
        self.assertEqual(out, "seen\nbelow\n")
        self.assertEqual(self.inside("ls -A /mnt", writable=True, mounts=[bind(source, "/mnt/below"), tmpfs("/mnt")]),
                         "")

    def test_a_later_mount_covers_an_earlier_one(self):
        first, second = self.folder("first", given="first\n"), self.folder("second", given="second\n")
        self.assertEqual(self.inside("cat /mnt/given", writable=True,
                                     mounts=[bind(first, "/mnt"), bind(second, "/mnt")]), "second\n")


class Binds(MountCase):
    def test_a_folder(self):
        source = self.folder("source", given="text\n")
        self.assertEqual(self.inside("cat /data/given; echo back >/data/made", writable=True,
                                     mounts=[bind(source, "/data")]), "text\n")
        self.assertEqual(read_text(os.path.join(source, "made")), "back\n")

    def test_a_file_over_a_missing_target(self):
        source = os.path.join(self.folder("source", given="text\n"), "given")
        self.assertEqual(self.inside("cat /etc/new/name", writable=True, mounts=[bind(source, "/etc/new/name")]),
                         "text\n")

    def test_readonly(self):
        source = self.folder("source", given="text\n")
        out = self.inside("touch /data/x 2>&1; cat /data/given", writable=True, mounts=[bind(source, "/data", "ro")])
        self.assertEqual(out, "touch: /data/x: Read-only file system\ntext\n")
        self.assertEqual(os.listdir(source), ["given"])

    def test_flags_of_a_bind(self):
        source = self.folder("source")
        flags = self.table([bind(source, "/data", "ro", "nosuid", "nodev", "noexec", "noatime")])["/data"]["flags"]
        self.assertLessEqual({"ro", "nosuid", "nodev", "noexec", "noatime"}, flags)

    def test_rbind_takes_what_is_mounted_below_and_bind_does_not(self):
        source = self.folder("source")
        below = self.mounted(os.path.join(source, "below"))
        with open(os.path.join(below, "inner"), "w", encoding="ascii") as file:
            file.write("below\n")
        for option, wanted in (("rbind", "inner\n"), ("bind", "")):
            with self.subTest(option=option):
                entry = {**bind(source, "/data"), "options": [option]}
                self.assertEqual(self.inside("ls /data/below", writable=True, mounts=[entry]), wanted)

    def test_the_type_may_be_none_or_absent(self):
        source = self.folder("source", given="text\n")
        for kind in ("none", None):
            with self.subTest(type=kind):
                entry = bind(source, "/data")
                entry.pop("type")
                if kind:
                    entry["type"] = kind
                self.assertEqual(self.inside("cat /data/given", writable=True, mounts=[entry]), "text\n")

    def test_a_relative_source_is_the_bundles(self):
        bundle = self.bundle("cat", "/data/given", writable=True, mounts=[bind("here", "/data")])
        os.mkdir(os.path.join(bundle.path, "here"))
        with open(os.path.join(bundle.path, "here", "given"), "w", encoding="ascii") as file:
            file.write("relative\n")
        self.assertEqual(self.run_bundle(bundle).out, "relative\n")

    def test_a_source_that_is_a_link_is_followed(self):
        source = self.folder("source", given="text\n")
        os.symlink(source, os.path.join(self.dir, "link"))
        self.assertEqual(self.inside("cat /data/given", writable=True,
                                     mounts=[bind(os.path.join(self.dir, "link"), "/data")]), "text\n")

    def test_a_file_over_a_folder_and_the_reverse_fail(self):
        source = self.folder("source", given="text\n")
        for entry in (bind(os.path.join(source, "given"), "/srv"), bind(source, "/etc/passwd")):
            with self.subTest(entry=entry):
                bundle = self.bundle("true", writable=True, mounts=[entry])
                self.fails("create", "--bundle", bundle.path, self.new_id(), says="not a directory")


class Propagation(MountCase):
    @unlike("crun", "1.8.1 ignores it for binds of a list")
    def test_of_a_mount(self):
        source = self.mounted(self.folder("source"))
        for option, starts in (("private", []), ("slave", ["master:"]), ("shared", ["shared:"]),
                               ("rprivate", []), ("unbindable", ["unbindable"])):
            with self.subTest(option=option):
                tags = self.table([bind(source, "/data", option)])["/data"]["tags"]
                tags = [tag for tag in tags if tag not in ("-",) and not tag.startswith("propagate_from")]
                self.assertEqual(len([tag for tag in tags for start in starts if tag.startswith(start)]), len(starts),
                                 tags)
                if not starts:
                    self.assertEqual(tags, [])

    def test_a_mount_made_inside_stays_inside(self):
        # The leak check of the frame looks at the host's table.
        self.assertEqual(self.inside("mount -t tmpfs t /srv && grep -c ' /srv ' /proc/self/mountinfo", process=ADMIN),
                         "1\n")

    @unlike("crun", "1.8.1 makes everything private first")
    def test_a_mount_made_outside_under_a_slave_is_seen_inside(self):
        source = self.mounted(self.folder("source"))
        mount("none", source, None, 1 << 20)  # shared
        os.mkdir(os.path.join(source, "late"))
        c = self.start(mounts=[{**bind(source, "/data"), "options": ["rbind", "rslave"]}], writable=True)
        self.assertEqual(self.exec(c, "ls", "/data/late").out, "")
        late = self.mounted(os.path.join(source, "late"))
        with open(os.path.join(late, "seen"), "w", encoding="ascii"):
            pass
        self.assertEqual(self.exec(c, "ls", "/data/late").out, "seen\n")

    def test_a_mount_made_outside_under_a_private_one_is_not_seen(self):
        source = self.mounted(self.folder("source"))
        mount("none", source, None, 1 << 20)
        os.mkdir(os.path.join(source, "late"))
        c = self.start(mounts=[{**bind(source, "/data"), "options": ["rbind", "rprivate"]}], writable=True)
        late = self.mounted(os.path.join(source, "late"))
        with open(os.path.join(late, "seen"), "w", encoding="ascii"):
            pass
        self.assertEqual(self.exec(c, "ls", "/data/late").out, "")

    @unlike("crun", "1.8.1 ends up private")
    def test_of_the_root(self):
        for value, wanted in (("private", ""), ("slave", "master:"), ("rslave", "master:")):
            with self.subTest(rootfsPropagation=value):
                tags = self.table([], linux={"rootfsPropagation": value})["/"]["tags"]
                self.assertEqual("".join(tag.split(":")[0] + ":" for tag in tags if ":" in tag
                                         and not tag.startswith("propagate")), wanted)


class Targets(MountCase):
    """Links in the root file system, which whoever made the image chose, lead nowhere else."""

    def setUp(self):
        super().setUp()
        self.victim = self.folder("victim", untouched="as before\n")
        self.source = self.folder("source", given="text\n")

    def check_victim(self):
        self.assertEqual(sorted(os.listdir(self.victim)), ["untouched"])
        self.assertEqual(read_text(os.path.join(self.victim, "untouched")), "as before\n")

    def run_with_link(self, link, target, destination, script, *entries):
        bundle = self.bundle("sh", "-c", script, writable=True,
                             mounts=entries or [bind(self.source, destination)])
        place = bundle.file(link)
        os.makedirs(os.path.dirname(place), exist_ok=True)
        os.symlink(target, place)
        result = self.run_bundle(bundle)
        self.check_victim()
        return bundle, result

    @unlike("crun", "1.8.1 refuses links in targets")
    def test_an_absolute_link_is_resolved_in_the_rootfs(self):
        bundle, result = self.run_with_link("link", self.victim, "/link", f"cat {self.victim}/given")
        self.assertEqual(result.out, "text\n", result)
        self.assertTrue(os.path.isdir(bundle.rootfs + self.victim), "the target was made inside")

    @unlike("crun", "1.8.1 refuses links in targets")
    def test_a_link_in_the_middle(self):
        _, result = self.run_with_link("link", self.victim, "/link/deep/er", f"cat {self.victim}/deep/er/given")
        self.assertEqual(result.out, "text\n", result)

    @unlike("crun", "1.8.1 refuses links in targets")
    def test_a_relative_link_upwards(self):
        up = "../" * 40 + self.victim.lstrip("/")
        _, result = self.run_with_link("a/b/link", up, "/a/b/link", f"cat {self.victim}/given")
        self.assertEqual(result.out, "text\n", result)

    def test_dots_in_the_destination(self):
        destination = "/srv/" + "../" * 40 + "data"
        self.assertEqual(self.inside("cat /data/given", writable=True, mounts=[bind(self.source, destination)]),
                         "text\n")

    @unlike("crun", "1.8.1 refuses links in targets")
    def test_a_tmpfs_over_a_link(self):
        _, result = self.run_with_link("link", self.victim, "/link", f"touch {self.victim}/x && ls {self.victim}",
                                       tmpfs("/link"))
        self.assertEqual(result.out, "x\n", result)

    def test_a_file_over_a_dangling_link(self):
        _, result = self.run_with_link("etc/link", os.path.join(self.victim, "made"), "/etc/link",
                                       f"cat {self.victim}/made",
                                       bind(os.path.join(self.source, "given"), "/etc/link"))
        self.assertEqual(result.out, "text\n", result)

    def test_links_in_a_circle_fail(self):
        bundle = self.bundle("true", writable=True, mounts=[bind(self.source, "/one")])
        os.symlink("/two", bundle.file("one"))
        os.symlink("/one", bundle.file("two"))
        self.fails("create", "--bundle", bundle.path, self.new_id())

    @unlike("crun", "1.8.1 refuses links in targets")
    def test_a_link_made_by_an_earlier_mount(self):
        os.symlink(self.victim, os.path.join(self.source, "link"))
        bundle = self.bundle("sh", "-c", "cat /proc/self/mountinfo", writable=True,
                             mounts=[bind(self.source, "/data"), tmpfs("/data/link/below")])
        points = mounts_of(self.run_bundle(bundle).out)
        self.check_victim()
        self.assertIn(f"{self.victim}/below", points, "inside the rootfs")

    def test_proc_and_sys_cannot_be_mounted_through_a_link(self):
        for folder in ("proc", "sys"):
            with self.subTest(folder=folder):
                bundle = self.bundle("true", writable=True)
                os.rmdir(bundle.file(folder))
                os.symlink(self.victim, bundle.file(folder))
                result = self.run_bundle(bundle)
                self.check_victim()
                self.assertNotEqual(result.code, 0, result)

    def test_masked_and_readonly_paths_follow_links_only_inside(self):
        for member in ("maskedPaths", "readonlyPaths"):
            with self.subTest(member=member):
                bundle = self.bundle("true", writable=True, linux={member: ["/link", "/link/untouched"]})
                os.symlink(self.victim, bundle.file("link"))
                self.run_bundle(bundle)
                self.check_victim()
                subprocess.run(["touch", os.path.join(self.victim, "untouched")], check=True)

    def test_devices_are_made_inside(self):
        bundle = self.bundle("true", writable=True, linux={
            "devices": [{"path": "/link/dev", "type": "c", "major": 1, "minor": 3}]})
        os.symlink(self.victim, bundle.file("link"))
        self.run_bundle(bundle)
        self.check_victim()

    def test_the_working_folder_is_made_inside(self):
        bundle = self.bundle("pwd", writable=True, process={"cwd": "/link/new"})
        os.symlink(self.victim, bundle.file("link"))
        result = self.run_bundle(bundle)  # may fail too: the link dangles in there
        self.check_victim()
        self.assertEqual(result.out, f"{self.victim}/new\n" if result.code == 0 else "", result)

    def test_a_rootfs_below_a_link_is_used(self):
        bundle = self.bundle("echo", "hi")
        os.rename(bundle.rootfs, os.path.join(self.dir, "elsewhere"))
        bundle.config["root"]["path"] = os.path.join(self.dir, "elsewhere")
        bundle.write()
        self.assertEqual(self.run_bundle(bundle).out, "hi\n")


if __name__ == "__main__":
    main()
