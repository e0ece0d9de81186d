"""Mounts of a container: kinds, options, order, propagation, and targets that cannot leave the root file system."""

import json
import os
import socket
import subprocess
import sys

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "lib"))
from arca_test import Case, local_only, main, mounts_of, ours_only, read_text, unlike  # noqa: E402
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
    @local_only("its mounts have no peers on this host")
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

    @local_only("it is seen when the guest's cache of names is over")
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

    @local_only("its mounts have no peers on this host")
    @unlike("crun", "1.8.1 ends up private")
    def test_of_the_root(self):
        for value, wanted in (("private", ""), ("slave", "master:"), ("rslave", "master:")):
            with self.subTest(rootfsPropagation=value):
                tags = self.table([], linux={"rootfsPropagation": value})["/"]["tags"]
                self.assertEqual("".join(tag.split(":")[0] + ":" for tag in tags if ":" in tag
                                         and not tag.startswith("propagate")), wanted)


# Each option that a bind's own mount can have: what the top shows then, what the mount below it shows, and with which
# flags the source is mounted first. "-x" must not be there.
PLAIN = {
    "ro": "ro", "nosuid": "nosuid", "nodev": "nodev", "noexec": "noexec", "noatime": "noatime -relatime",
    "nodiratime": "nodiratime", "nosymfollow": "nosymfollow", "strictatime": "-relatime -noatime"}
UNDOING = {
    "rw": "rw -ro", "suid": "-nosuid", "dev": "-nodev", "exec": "-noexec", "atime": "relatime -noatime",
    "relatime": "relatime -noatime", "norelatime": "-noatime", "nostrictatime": "-noatime", "diratime": "-nodiratime",
    "symfollow": "-nosymfollow"}
# What has no flag of its own that mountinfo shows, or is shown by a case of its own.
ELSEWHERE = {
    "async": "test_superblock", "dirsync": "test_superblock", "sync": "test_superblock", "lazytime": "test_superblock",
    "nolazytime": "test_superblock", "iversion": "test_superblock", "noiversion": "test_superblock",
    "mand": "test_superblock", "nomand": "test_superblock", "silent": "test_superblock", "loud": "test_superblock",
    "defaults": "test_superblock", "bind": "Binds", "rbind": "Binds", "remount": "test_remount",
    "tmpcopyup": "test_tmpcopyup", "idmap": "IdMapped", "ridmap": "IdMapped",
    **{prefix + kind: "test_propagation" for prefix in ("", "r") for kind in ("private", "slave", "shared", "unbindable")}}
MS_FLAGS = {"ro": 1, "nosuid": 2, "nodev": 4, "noexec": 8, "noatime": 1024, "nodiratime": 2048, "nosymfollow": 256}
MS_REMOUNT, MS_BIND = 0x20, 0x1000


@ours_only("runc 1.1.5 and crun 1.8.1 know only a part of them")
class OptionTable(MountCase):
    """The whole table of the specification, option by option."""

    def tree(self, flags=0):
        """A folder that is a mount with a mount below it, both with these flags."""
        top = self.mounted(self.folder(f"tree{len(os.listdir(self.dir))}"))
        below = self.mounted(os.path.join(top, "below"))
        for path in (below, top):
            if flags:
                mount(None, path, None, MS_REMOUNT | MS_BIND | flags)
        return top

    def check_flags(self, flags, wanted):
        for word in wanted.split():
            with self.subTest(flag=word):
                (self.assertNotIn if word.startswith("-") else self.assertIn)(word.lstrip("-"), flags)

    def check(self, source_flags, table):
        """All options of a table in one container: the plain one at /p/NAME, the recursive one at /r/NAME."""
        source = self.tree(source_flags)
        entries = [{"destination": f"/{kind or 'p'}/{name}", "type": "bind", "source": source,
                    "options": ["rbind", kind + name]} for name in table for kind in ("", "r")]
        found = self.table(entries)
        before = found[f"/p/{next(iter(table))}/below"]["flags"]
        for name, wanted in table.items():
            with self.subTest(option=name):
                self.check_flags(found[f"/p/{name}"]["flags"], wanted)
                self.assertEqual(found[f"/p/{name}/below"]["flags"], before, "the plain form is for the top")
            with self.subTest(option="r" + name):
                self.check_flags(found[f"/r/{name}"]["flags"], wanted)
                self.check_flags(found[f"/r/{name}/below"]["flags"], wanted)

    @local_only("what is mounted below a source is no mount of its own")
    def test_options_that_set(self):
        self.check(0, PLAIN)

    @local_only("what is mounted below a source is no mount of its own")
    def test_options_that_undo(self):
        self.check(sum(MS_FLAGS.values()), UNDOING)

    def test_every_option_that_features_lists_has_a_row(self):
        listed = set(json.loads(self.ok("features").out)["mountOptions"])
        rows = {prefix + name for name in {**PLAIN, **UNDOING} for prefix in ("", "r")} | set(ELSEWHERE)
        self.assertEqual(listed - rows, set())
        self.assertEqual(rows - listed, set())

    def test_superblock(self):
        table = self.table([tmpfs("/a", "sync", "dirsync", "lazytime", "silent", "mand"),
                            tmpfs("/b", "sync", "async", "lazytime", "nolazytime", "loud", "nomand", "noiversion",
                                  "defaults")])
        self.assertLessEqual({"sync", "dirsync", "lazytime"}, table["/a"]["options"])
        self.assertFalse({"sync", "dirsync", "lazytime"} & table["/b"]["options"])

    @local_only("what is mounted below a source is no mount of its own")
    def test_propagation(self):
        source = self.tree()
        for path in (source, os.path.join(source, "below")):
            mount("none", path, None, 1 << 20)  # shared
        starts = {"private": "", "slave": "master:", "shared": "shared:", "unbindable": "unbindable"}
        entries = [{"destination": f"/{prefix or 'p'}/{kind}", "type": "bind", "source": source,
                    "options": ["rbind", prefix + kind]} for kind in starts for prefix in ("", "r")]
        found = self.table(entries)
        for kind, start in starts.items():
            for prefix in ("", "r"):
                with self.subTest(option=prefix + kind):
                    points = [f"/{prefix or 'p'}/{kind}"] + ([f"/r/{kind}/below"] if prefix else [])
                    for point in points:
                        tags = " ".join(tag for tag in found[point]["tags"] if tag != "-")
                        self.assertTrue(tags.startswith(start) and (start or not tags), f"{point}: {tags}")

    def test_remount(self):
        table = self.table([tmpfs("/mnt"), {"destination": "/mnt", "type": "tmpfs", "source": "tmpfs",
                                            "options": ["remount", "nosuid", "size=64k"]}])
        self.assertIn("nosuid", table["/mnt"]["flags"])
        self.assertIn("size=64k", table["/mnt"]["options"])

    def test_tmpcopyup(self):
        bundle = self.bundle("sh", "-c", "cat /srv/app/name; stat -c '%a %u' /srv/app/name; readlink /srv/link; touch "
                             "/srv/new", mounts=[tmpfs("/srv", "tmpcopyup")])
        with open(bundle.file("srv/app/name"), "w", encoding="ascii") as file:
            file.write("from below\n")
        os.chmod(bundle.file("srv/app/name"), 0o604)
        os.chown(bundle.file("srv/app/name"), 5, 6)
        os.symlink("app/name", bundle.file("srv/link"))
        self.assertEqual(self.run_bundle(bundle).out, "from below\n604 5\napp/name\n")
        self.assertFalse(os.path.exists(bundle.file("srv/new")))

    def test_tmpcopyup_is_for_tmpfs(self):
        bundle = self.bundle("true", writable=True, mounts=[{"destination": "/x", "type": "mqueue", "source": "q",
                                                             "options": ["tmpcopyup"]}])
        self.fails("create", "--bundle", bundle.path, self.new_id(), says="tmpcopyup")


@ours_only("runc 1.1.5 and crun 1.8.1 know only a part of it")
@local_only("not supported, which is an error")
class IdMapped(MountCase):
    """idmap and ridmap: the mount's own mappings, the container's, or an error."""

    MAP = [{"containerID": 0, "hostID": 1000, "size": 10}]

    def source(self):
        top = self.mounted(self.folder("source"))
        below = self.mounted(os.path.join(top, "below"))
        for folder in (top, below):
            with open(os.path.join(folder, "file"), "w", encoding="ascii"):
                pass
            os.chown(os.path.join(folder, "file"), 3, 4)
        return top

    def owners(self, *options, **members):
        entry = {"destination": "/data", "type": "bind", "source": self.source(), "options": list(options), **members}
        return self.inside("stat -c '%u %g' /data/file /data/below/file", mounts=[entry], writable=True).splitlines()

    def test_idmap_is_for_the_top(self):
        self.assertEqual(self.owners("rbind", "idmap", uidMappings=self.MAP, gidMappings=self.MAP), ["1003 1004", "3 4"])

    def test_ridmap_is_for_the_tree(self):
        self.assertEqual(self.owners("rbind", "ridmap", uidMappings=self.MAP, gidMappings=self.MAP),
                         ["1003 1004", "1003 1004"])

    def test_mappings_without_the_option(self):
        self.assertEqual(self.owners("rbind", uidMappings=self.MAP, gidMappings=self.MAP), ["1003 1004", "3 4"])

    def test_without_mappings_those_of_the_container_count(self):
        bundle = self.bundle("stat", "-c", "%u %g", "/data/file", writable=True, mounts=[
            {"destination": "/data", "type": "bind", "source": self.source(), "options": ["rbind", "idmap"]}])
        subprocess.run(["chown", "-Rh", "100000:100000", bundle.rootfs], check=True)
        bundle.config["linux"]["namespaces"].append({"type": "user"})
        bundle.config["linux"]["uidMappings"] = bundle.config["linux"]["gidMappings"] = [
            {"containerID": 0, "hostID": 100000, "size": 65536}]
        bundle.write()
        self.assertEqual(self.run_bundle(bundle).out, "3 4\n")

    def test_errors(self):
        source = self.source()
        bind_it = {"destination": "/data", "type": "bind", "source": source, "options": ["rbind", "idmap"]}
        for says, entry in (("needs mappings", bind_it),
                            ("Mappings", {**bind_it, "uidMappings": self.MAP}),
                            ("bind", {"destination": "/data", "type": "tmpfs", "source": "t", "options": ["idmap"],
                                      "uidMappings": self.MAP, "gidMappings": self.MAP})):
            with self.subTest(entry=entry):
                bundle = self.bundle("true", writable=True, mounts=[entry])
                self.fails("create", "--bundle", bundle.path, self.new_id(), says=says)


class Special(MountCase):
    """Sources that are no folders, and what other members of `linux` do to mounts."""

    def test_sockets_fifos_and_devices_are_bound_as_files(self):
        folder = self.folder("source")
        with socket.socket(socket.AF_UNIX) as listener:
            listener.bind(os.path.join(folder, "socket"))
        self.addCleanup(os.unlink, os.path.join(folder, "socket"))
        os.mkfifo(os.path.join(folder, "fifo"))
        out = self.inside("for f in socket fifo null; do stat -c %F /run/new/$f; done; echo x >/run/new/null && echo ok",
                          writable=True, mounts=[
                              bind(os.path.join(folder, "socket"), "/run/new/socket"),
                              bind(os.path.join(folder, "fifo"), "/run/new/fifo"), bind("/dev/null", "/run/new/null")])
        self.assertEqual(out, "socket\nfifo\ncharacter special file\nok\n")

    def test_each_cgroup_hierarchy_is_at_its_place(self):
        entry = {"destination": "/sys/fs/cgroup", "type": "cgroup", "source": "cgroup",
                 "options": ["nosuid", "noexec", "nodev", "relatime", "ro"]}
        for own in (False, True):
            with self.subTest(cgroup_namespace=own):
                bundle = self.bundle("cat", "/proc/self/mountinfo", "/proc/self/cgroup", writable=True)
                bundle.config["mounts"] = [one for one in bundle.config["mounts"]
                                           if one["destination"] != "/sys/fs/cgroup"] + [entry]
                kinds = [one for one in bundle.config["linux"]["namespaces"] if one["type"] != "cgroup"]
                bundle.config["linux"]["namespaces"] = kinds + ([{"type": "cgroup"}] if own else [])
                bundle.write()
                table = mounts_of(self.run_bundle(bundle).out)
                self.assertIn("ro", table["/sys/fs/cgroup"]["flags"])
                below = {point: one for point, one in table.items() if point.startswith("/sys/fs/cgroup/")}
                if table["/sys/fs/cgroup"]["type"] == "tmpfs":  # v1
                    self.assertIn("/sys/fs/cgroup/memory", below)
                    for point, one in below.items():
                        self.assertLessEqual({"ro", "nosuid", "nodev", "noexec"}, one["flags"], point)
                else:
                    self.assertEqual((table["/sys/fs/cgroup"]["type"], below), ("cgroup2", {}))

    @local_only("its mounts have no peers on this host")
    @unlike("crun", "1.8.1 ends up private")
    def test_rootfs_propagation(self):
        for value, wanted in (("shared", "shared:"), ("rshared", "shared:"), ("unbindable", "unbindable"),
                              ("runbindable", "unbindable"), ("private", ""), ("rprivate", ""), ("rslave", "master:")):
            with self.subTest(rootfsPropagation=value):
                tags = [tag for tag in self.table([], linux={"rootfsPropagation": value})["/"]["tags"]
                        if tag != "-" and not tag.startswith("propagate_from")]
                self.assertTrue("".join(tags).startswith(wanted) and (wanted or not tags), tags)

    @local_only("test_sandbox.py has it")
    @ours_only("runc 1.1.5 and crun 1.8.1 leave the question to the kernel")
    def test_a_mount_label_without_selinux_is_a_warning(self):
        if os.path.exists("/sys/fs/selinux/enforce"):
            self.skipTest("this kernel has SELinux enabled")
        bundle = self.bundle("echo", "ran", linux={"mountLabel": "system_u:object_r:container_file_t:s0"})
        result = self.run_bundle(bundle)
        self.assertEqual(result.out, "ran\n", result)
        self.assertIn("mountLabel", result.err)


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
