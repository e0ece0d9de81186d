"""`features` tells only the truth: each name that it lists is accepted in config.json and does something."""

import json
import os
import sys

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "lib"))
from arca_test import SANDBOX, Case, local_only, main, mounts_of, ours_only, read_text  # noqa: E402

# What a mount option makes of a tmpfs's line in mountinfo: (of the mount, of the file system).
SHOWN = {"ro": ("ro", None), "rro": ("ro", None), "nosuid": ("nosuid", None), "rnosuid": ("nosuid", None),
         "nodev": ("nodev", None), "rnodev": ("nodev", None), "noexec": ("noexec", None), "rnoexec": ("noexec", None),
         "noatime": ("noatime", None), "rnoatime": ("noatime", None), "nodiratime": ("nodiratime", None),
         "rnodiratime": ("nodiratime", None), "relatime": ("relatime", None), "rrelatime": ("relatime", None),
         "nosymfollow": ("nosymfollow", None), "rnosymfollow": ("nosymfollow", None), "sync": (None, "sync"),
         "dirsync": (None, "dirsync"), "lazytime": (None, "lazytime")}
# Those that undo one of the above: the option that comes before them.
UNDO = {"rw": "ro", "rrw": "rro", "suid": "nosuid", "rsuid": "rnosuid", "dev": "nodev", "rdev": "rnodev",
        "exec": "noexec", "rexec": "rnoexec", "atime": "noatime", "ratime": "rnoatime", "diratime": "nodiratime",
        "rdiratime": "rnodiratime", "symfollow": "nosymfollow", "rsymfollow": "rnosymfollow", "async": "sync",
        "nolazytime": "lazytime", "norelatime": "relatime", "rnorelatime": "rrelatime"}
# They show in another way or not at all: accepted is all that can be seen here; test_mounts.py has the rest.
ACCEPTED = {"defaults", "strictatime", "rstrictatime", "nostrictatime", "rnostrictatime", "iversion", "noiversion",
            "silent", "loud", "mand", "nomand", "tmpcopyup"}
PROPAGATION = {prefix + name for prefix in ("", "r") for name in ("private", "shared", "slave", "unbindable")}
BINDS = {"bind", "rbind", "idmap", "ridmap"}
ALONE = {"remount"}


@ours_only("runc 1.1.5 and crun 1.8.1 tell less or have no such command")
class Features(Case):
    def setUp(self):
        super().setUp()
        self.features = json.loads(self.ok("features").out)
        self.linux = self.features["linux"]

    def accepted(self, **changes):
        """A container with these changes runs to its end."""
        result = self.run_bundle(self.bundle("true", **changes))
        self.assertEqual(result.code, 0, result)
        return result

    def refused(self, **changes):
        result = self.rt("create", "--bundle", self.bundle("true", **changes).path, self.new_id())
        self.assertEqual(result.code, 1, result)
        return result

    def test_versions_are_accepted_and_the_template_has_one_of_them(self):
        low, high = self.features["ociVersionMin"], self.features["ociVersionMax"]
        for version in (low, high):
            self.accepted(ociVersion=version)
        template = self.bundle("true").config["ociVersion"]
        self.assertLessEqual([int(part) for part in low.split(".")], [int(part) for part in template.split(".")])
        self.assertLessEqual([int(part) for part in template.split(".")], [int(part) for part in high.split(".")])
        self.refused(ociVersion="2.0.0")
        self.refused(ociVersion="none")

    def test_every_mount_option_is_accepted_and_does_what_it_says(self):
        listed = set(self.features["mountOptions"])
        known = set(SHOWN) | set(UNDO) | ACCEPTED | PROPAGATION | BINDS | ALONE
        self.assertEqual(listed, known, "each listed option is looked at below")
        source = os.path.join(self.dir, "source")
        os.mkdir(source)
        mapping = [{"containerID": 0, "hostID": 1000, "size": 10}]
        if SANDBOX != "local":
            for name in ("idmap", "ridmap"):
                result = self.refused(mounts=[{"destination": "/m", "type": "bind", "source": source, "options": [name],
                                               "uidMappings": mapping, "gidMappings": mapping}])
                self.assertIn("not supported in a sandbox with a guest", result.err)
            listed = listed - {"idmap", "ridmap"}
        mounts = []
        for name in sorted(listed - ALONE):
            entry = {"destination": f"/m/{name}", "type": "tmpfs", "source": "tmpfs", "options": [name]}
            if name in UNDO:
                entry["options"] = [UNDO[name], name]
            if name in BINDS:
                entry.update(type="bind", source=source, options=[*({"bind"} - {name}), name])
            if name in ("idmap", "ridmap"):
                entry.update(uidMappings=mapping, gidMappings=mapping)
            mounts.append(entry)
        mounts.append({"destination": "/m/defaults", "type": "tmpfs", "source": "tmpfs",
                       "options": ["remount", "noexec"]})
        table = mounts_of(self.inside("cat /proc/self/mountinfo", mounts=mounts, writable=True))
        for name in sorted(listed - ALONE):
            self.assertIn(f"/m/{name}", table)
        self.assertIn("noexec", table["/m/defaults"]["flags"], "remounted")
        for name, (of_mount, of_fs) in SHOWN.items():
            with self.subTest(option=name):
                if of_mount:
                    self.assertIn(of_mount, table[f"/m/{name}"]["flags"])
                if of_fs:
                    self.assertIn(of_fs, table[f"/m/{name}"]["options"])
        for name, undone in UNDO.items():
            with self.subTest(option=name):
                of_mount, of_fs = SHOWN[undone]
                self.assertNotIn(of_mount if name not in ("norelatime", "rnorelatime") else "noatime",
                                 table[f"/m/{name}"]["flags"])
                self.assertNotIn(of_fs, table[f"/m/{name}"]["options"])
        for name in PROPAGATION:
            with self.subTest(option=name):
                tags = [tag.split(":")[0] for tag in table[f"/m/{name}"]["tags"]]
                kind = name[1:] if name[0] == "r" else name
                self.assertEqual("shared" in tags, kind == "shared")
                self.assertEqual("unbindable" in tags, kind == "unbindable")

    def test_an_option_that_is_not_listed_is_data_of_the_file_system(self):
        entry = {"destination": "/m", "type": "tmpfs", "source": "tmpfs", "options": ["no-such-option"]}
        result = self.refused(mounts=[entry])
        self.assertIn("/m", result.err)

    def test_every_hook_kind_is_run(self):
        notes = os.path.join(self.dir, "notes")
        os.mkdir(notes)
        hooks = {}
        # Where there is a guest, createContainer's are its programs, and its image has no shell; test_hooks.py of vm/ has them.
        kinds = [kind for kind in self.features["hooks"] if SANDBOX == "local" or kind != "createContainer"]
        for kind in kinds:
            place = "/notes" if kind == "startContainer" else notes
            hooks[kind] = [{"path": "/bin/sh", "args": ["sh", "-c", f"echo > {place}/{kind}"]}]
        self.accepted(hooks=hooks, mounts=[{"destination": "/notes", "type": "bind", "source": notes,
                                            "options": ["bind"]}], writable=True)
        self.assertEqual(sorted(os.listdir(notes)), sorted(kinds))

    def test_every_namespace_is_made_and_no_other_type_known(self):
        mapping = [{"containerID": 0, "hostID": 0, "size": 65536}]
        kinds = self.linux["namespaces"]
        result = self.run_bundle(self.bundle("sh", "-c", "cd /proc/self/ns; for n in *; do readlink $n; done", linux={
            "namespaces": [{"type": kind} for kind in kinds], "uidMappings": mapping, "gidMappings": mapping}))
        self.assertEqual(result.code, 0, result)
        if SANDBOX == "local":
            own = {os.readlink(f"/proc/self/ns/{name}") for name in os.listdir("/proc/self/ns")}
            self.assertFalse(own & set(result.out.split()))
        self.refused(linux={"namespaces": [{"type": "mount"}, {"type": "device"}]})

    def test_every_capability_is_known(self):
        names = self.linux["capabilities"]
        log = os.path.join(self.dir, "log")
        bundle = self.bundle("true")
        bundle.config["process"]["capabilities"] = {"bounding": [*names, "CAP_UNKNOWN"], "permitted": names}
        bundle.write()
        identity = self.new_id()
        self.ok("--log", log, "create", "--bundle", bundle.path, identity)
        unknown = [line for line in read_text(log).splitlines() if "is not known" in line]
        self.assertEqual(len(unknown), 1, read_text(log))
        self.assertIn("CAP_UNKNOWN", unknown[0])
        self.ok("delete", "--force", identity)

    def seccomp(self, **members):
        return {"seccomp": {"defaultAction": "SCMP_ACT_ALLOW", **members}}

    def test_every_seccomp_name_is_accepted_and_no_other(self):
        listed = self.linux["seccomp"]
        self.assertTrue(listed["enabled"])
        # A call that `true` does not make, on every architecture; notify needs a listener, see test_notify.
        for action in listed["actions"]:
            if action == "SCMP_ACT_NOTIFY":
                continue
            with self.subTest(action=action):
                self.accepted(linux=self.seccomp(syscalls=[{"names": ["acct"], "action": action}]))
        args = [{"index": 0, "value": 4, "valueTwo": 4, "op": operator} for operator in listed["operators"]]
        self.accepted(linux=self.seccomp(syscalls=[{"names": ["acct"], "action": "SCMP_ACT_ERRNO", "args": [one]}
                                                   for one in args]))
        self.accepted(linux=self.seccomp(architectures=listed["archs"],
                                         syscalls=[{"names": ["acct"], "action": "SCMP_ACT_ERRNO"}]))
        for flag in listed["supportedFlags"]:
            if flag == "SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV":
                continue  # the kernel takes it with a listener only
            with self.subTest(flag=flag):
                self.accepted(linux=self.seccomp(flags=[flag],
                                                 syscalls=[{"names": ["acct"], "action": "SCMP_ACT_ERRNO"}]))
        self.refused(linux=self.seccomp(flags=["SECCOMP_FILTER_FLAG_NOPE"]))
        self.refused(linux=self.seccomp(architectures=["SCMP_ARCH_NOPE"]))
        self.refused(linux=self.seccomp(syscalls=[{"names": ["acct"], "action": "SCMP_ACT_NOPE"}]))
        self.assertLessEqual(set(listed["supportedFlags"]), set(listed["knownFlags"]))

    def test_every_memory_policy_is_accepted(self):
        kernel = [int(number) for number in self.inside("uname -r").split(".")[:2]]
        for mode in self.linux["memoryPolicy"]["modes"]:
            if mode == "MPOL_WEIGHTED_INTERLEAVE" and kernel < [6, 9]:
                continue  # not in that kernel
            with self.subTest(mode=mode):
                nodes = {} if mode in ("MPOL_DEFAULT", "MPOL_LOCAL") else {"nodes": "0"}
                self.accepted(linux={"memoryPolicy": {"mode": mode, **nodes}})
        for flag in self.linux["memoryPolicy"]["flags"]:
            with self.subTest(flag=flag):
                self.accepted(linux={"memoryPolicy": {"mode": "MPOL_BIND", "nodes": "0", "flags": [flag]}})

    @local_only("there is no device of the host's in a guest")
    def test_what_is_said_to_be_off_is_refused_and_what_is_on_is_not(self):
        # Neither is there, and both say so in their own words.
        for name, changes, says in (("intelRdt", {"intelRdt": {"closID": "x"}}, "resctrl"),
                                    ("netDevices", {"netDevices": {"no-such-device": {}}}, "no-such-device")):
            with self.subTest(feature=name):
                result = self.refused(linux=changes)
                self.assertEqual("not supported" in result.err, not self.linux[name]["enabled"], result)
                self.assertEqual(says in result.err, self.linux[name]["enabled"], result)
        self.assertEqual(self.linux["intelRdt"], {"enabled": True, "schemata": True, "monitoring": True})
        self.assertTrue(self.linux["mountExtensions"]["idmap"]["enabled"])  # used above

    @local_only("the cgroups are the host's")
    def test_the_systemd_driver_is_there_or_refused_as_not_supported(self):
        c = self.new_id()
        bundle = self.bundle("true", linux={"cgroupsPath": f"system.slice:arca:{c}"})
        result = self.rt("--systemd-cgroup", "create", "--bundle", bundle.path, c)
        if result.code == 0:
            self.ids.append(c)
        unsupported = result.code == 1 and "not supported" in result.err
        self.assertEqual(unsupported, not self.linux["cgroup"]["systemd"], result)

    def test_the_annotations_name_the_runtime_and_its_seccomp_library(self):
        annotations = self.features["annotations"]
        self.assertRegex(annotations["dev.arca.runtime.version"], r"^\d+\.\d+\.\d+")
        self.assertRegex(annotations["io.github.seccomp.libseccomp.version"], r"^\d+\.\d+\.\d+")


if __name__ == "__main__":
    main()
