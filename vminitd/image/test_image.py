#!/usr/bin/env python3
"""The guest's image: what is in it, and that the same inputs give the same bytes. Needs e2fsprogs, no VM."""

import gzip
import lzma
import os
import pathlib
import shutil
import stat
import struct
import subprocess
import tempfile
import time
import unittest

import guest_kernel

HERE = pathlib.Path(__file__).resolve().parent
BUILD_IMAGE = HERE / "build-image"
MAKE_GUEST = HERE / "make-guest"
SECONDS = 60
# Content that starts no program: all that matters here is that it arrives.
PROGRAMS = {"vminitd": b"\x7fELF agent" * 1000, "vmexec": b"\x7fELF body" * 3000}
MODULES = {"00-first.ko": b"first module" * 77, "01-a-second.ko": b"second" * 5001}
HOOK = b'{"version": "1.0.0"}\n'
FORWARDER_HOOK = HERE.parents[1] / "hooks" / "tap_forwarder" / "50-arca-tap-forwarder.json"


def read_cpio(data):
    """{name: (inode, mode, uid, gid, mtime, rdev, content)} of a newc archive, in its order."""
    entries, at = {}, 0

    def aligned(offset):
        return (offset + 3) & ~3
    while True:
        if data[at:at + 6] != b"070701":
            raise AssertionError(f"no header at {at}")
        fields = [int(data[at + 6 + 8 * i:at + 14 + 8 * i], 16) for i in range(13)]
        inode, mode, uid, gid, _, mtime, size, _, _, major, minor, name_size, _ = fields
        name = data[at + 110:at + 110 + name_size - 1].decode()
        content_at = aligned(at + 110 + name_size)
        if name == "TRAILER!!!":
            return entries
        entries[name] = (inode, mode, uid, gid, mtime, (major, minor), data[content_at:content_at + size])
        at = aligned(content_at + size)


class ImageTest(unittest.TestCase):
    def setUp(self):
        self.folder = pathlib.Path(tempfile.mkdtemp(prefix="arca-image-"))
        self.addCleanup(shutil.rmtree, self.folder)

    def inputs(self, name, age=0):
        """A folder with the inputs; `age` makes their times differ from those of another such folder."""
        top = self.folder / name
        for path, content in [*PROGRAMS.items(), *((f"modules/{n}", c) for n, c in MODULES.items()),
                              ("modules/load-order", "".join(f"{n}\n" for n in MODULES).encode()),
                              ("hooks/10-tap.json", HOOK), ("hooks/ignored.txt", b""), ("tool", b"a tool")]:
            file = top / path
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_bytes(content)
            os.utime(file, (time.time() - age, time.time() - age))
        return top

    def build(self, top, form, umask=0o022, **environment):
        output = top / f"image.{form}"
        subprocess.run([BUILD_IMAGE, "--vminitd", "vminitd", "--vmexec", top / "vmexec", "--output", output,
                        "--format", form, "--modules", "modules", "--hooks", top / "hooks",
                        "--add", f"{top / 'tool'}=/opt/arca/bin/tool"],
                       cwd=top, umask=umask, env={**os.environ, **environment}, stdin=subprocess.DEVNULL, check=True,
                       timeout=SECONDS)
        return output.read_bytes()

    def test_same_inputs_give_the_same_bytes(self):
        forms = ("cpio", "cpio.gz", "ext4")
        first = {form: self.build(self.inputs("one"), form) for form in forms}
        began = int(time.time())
        while int(time.time()) == began:  # an image that holds the time would differ
            time.sleep(0.01)
        elsewhere = self.inputs("another/place", age=86400)
        for form in forms:
            with self.subTest(form=form):
                again = self.build(elsewhere, form, umask=0o077, TZ="Asia/Tokyo", LANG="C", HOME="/nowhere")
                self.assertTrue(first[form] == again, "the bytes differ")

    def test_another_input_gives_other_bytes(self):
        top = self.inputs("one")
        first = self.build(top, "cpio")
        (top / "modules" / "00-first.ko").write_bytes(b"changed")
        self.assertFalse(first == self.build(top, "cpio"))

    def test_the_initramfs_holds_what_a_guest_boots_from(self):
        entries = read_cpio(self.build(self.inputs("one"), "cpio"))
        files = {name: entry[6] for name, entry in entries.items() if stat.S_ISREG(entry[1])}
        wanted = {f"sbin/{name}": content for name, content in PROGRAMS.items()}
        wanted |= {f"lib/modules/arca/{name}": content for name, content in MODULES.items()}
        wanted |= {"lib/modules/arca/load-order": b"00-first.ko\n01-a-second.ko\n",
                   "etc/arca/hooks.d/10-tap.json": HOOK,
                   f"etc/arca/hooks.d/{FORWARDER_HOOK.name}": FORWARDER_HOOK.read_bytes(), "opt/arca/bin/tool": b"a tool"}
        self.assertEqual(files, wanted)
        for name in ("sbin/vminitd", "sbin/vmexec", "opt/arca/bin/tool"):
            self.assertEqual(stat.S_IMODE(entries[name][1]), 0o755, name)
        self.assertEqual((stat.S_ISLNK(entries["init"][1]), entries["init"][6]), (True, b"sbin/vminitd"))
        forwarder = entries["sbin/arca-tap-forwarder"]
        self.assertEqual((stat.S_ISLNK(forwarder[1]), forwarder[6]), (True, b"vminitd"))
        self.assertEqual((stat.S_ISCHR(entries["dev/console"][1]), entries["dev/console"][5]), (True, (5, 1)))
        for name in ("bin", "dev", "mnt", "proc", "run", "sbin", "sys", "tmp", "var"):
            self.assertTrue(stat.S_ISDIR(entries[name][1]), name)

    def test_entries_are_owned_by_root_have_no_time_and_follow_their_folders(self):
        entries = read_cpio(self.build(self.inputs("one"), "cpio"))
        self.assertEqual({entry[2:5] for entry in entries.values()}, {(0, 0, 0)})
        self.assertEqual(len({entry[0] for entry in entries.values()}), len(entries))
        seen = set()
        for name in entries:
            parent = os.path.dirname(name)
            self.assertTrue(not parent or parent in seen, f"{name} comes before its folder")
            seen.add(name)

    def test_the_disk_is_sound_and_holds_the_same(self):
        top = self.inputs("one")
        entries = read_cpio(self.build(top, "cpio"))
        self.build(top, "ext4")
        disk = top / "image.ext4"
        checked = subprocess.run(["e2fsck", "-f", "-n", disk], stdin=subprocess.DEVNULL, capture_output=True, text=True,
                                 check=False, timeout=SECONDS)
        self.assertEqual(checked.returncode, 0, checked.stdout)
        dump = self.folder / "dump"
        dump.mkdir()
        commands = self.folder / "commands"
        commands.write_text(f"rdump / {dump}\n" + "".join(f"stat /{name}\n" for name in entries), encoding="ascii")
        shown = subprocess.run(["debugfs", "-f", commands, disk], stdin=subprocess.DEVNULL, capture_output=True,
                               text=True, check=True, timeout=SECONDS).stdout.split("debugfs: stat /")
        inodes = {text.split("\n", 1)[0]: text for text in shown[1:]}
        for name, (_, mode, uid, gid, _, rdev, content) in entries.items():
            path, inode = dump / name, inodes[name]
            self.assertRegex(inode, rf"Mode: +0*{stat.S_IMODE(mode):o} ", name)
            self.assertRegex(inode, rf"User: +{uid} +Group: +{gid} ", name)
            if stat.S_ISCHR(mode):  # which rdump leaves out
                self.assertRegex(inode, rf"Device major/minor number: 0*{rdev[0]}:0*{rdev[1]} ", name)
            elif stat.S_ISLNK(mode):
                self.assertEqual(os.readlink(path).encode(), content, name)
            elif stat.S_ISREG(mode):
                self.assertTrue(path.read_bytes() == content, name)
            else:
                self.assertTrue(path.is_dir(), name)

    def test_a_load_order_with_a_path_is_refused(self):
        top = self.inputs("one")
        (top / "modules" / "load-order").write_text("../vminitd\n", encoding="ascii")
        done = subprocess.run([BUILD_IMAGE, "--vminitd", "vminitd", "--vmexec", "vmexec", "--output", "out", "--format",
                               "cpio", "--modules", "modules"], cwd=top, stdin=subprocess.DEVNULL, capture_output=True,
                              text=True, check=False, timeout=SECONDS)
        self.assertEqual(done.returncode, 1)
        self.assertIn("../vminitd", done.stderr)
        self.assertFalse((top / "out").exists())


class GuestFolderTest(unittest.TestCase):
    """make-guest with a kernel of its own, so that nothing is downloaded."""

    def setUp(self):
        self.folder = pathlib.Path(tempfile.mkdtemp(prefix="arca-guest-"))
        self.addCleanup(shutil.rmtree, self.folder)
        self.programs, self.kernel, self.output = (self.folder / name for name in ("bin", "kernel", "guest"))
        self.programs.mkdir()
        for name, content in PROGRAMS.items():
            (self.programs / name).write_bytes(content)
        (self.kernel / "modules").mkdir(parents=True)
        for name, content in MODULES.items():
            (self.kernel / "modules" / name).write_bytes(content)
        (self.kernel / "modules" / "load-order").write_text("".join(f"{n}\n" for n in MODULES), encoding="ascii")
        (self.kernel / "vmlinuz").write_bytes(b"kernel")
        (self.kernel / "version").write_text("6.1.0-test\n", encoding="ascii")

    def make(self, code=0):
        done = subprocess.run([MAKE_GUEST, "--bin", self.programs, "--output", self.output, "--kernel", self.kernel],
                              stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False, timeout=SECONDS)
        self.assertEqual(done.returncode, code, done.stderr)
        return done.stderr

    def products(self):
        return {path.name: path.read_bytes() for path in self.output.iterdir()}

    def test_it_is_made_once(self):
        self.assertIn("made", self.make())
        first, times = self.products(), {path: path.stat().st_mtime_ns for path in self.output.iterdir()}
        self.assertEqual(set(first), {"vmlinuz", "initramfs.cpio", "version", "inputs"})
        self.assertEqual((first["vmlinuz"], first["version"]), (b"kernel", b"6.1.0-test\n"))
        self.assertEqual(read_cpio(first["initramfs.cpio"])["sbin/vmexec"][6], PROGRAMS["vmexec"])
        self.assertIn("up to date", self.make())
        self.assertEqual(times, {path: path.stat().st_mtime_ns for path in self.output.iterdir()})

    def test_a_changed_input_or_a_missing_product_makes_it_again(self):
        self.make()
        for change in (lambda: (self.programs / "vminitd").write_bytes(b"another agent"),
                       lambda: (self.kernel / "modules" / "00-first.ko").write_bytes(b"another module"),
                       lambda: (self.kernel / "vmlinuz").write_bytes(b"another kernel"),
                       (self.output / "initramfs.cpio").unlink, (self.output / "inputs").unlink):
            change()
            self.assertIn("made", self.make())
            self.assertIn("up to date", self.make())
        entries = read_cpio((self.output / "initramfs.cpio").read_bytes())
        self.assertEqual(entries["sbin/vminitd"][6], b"another agent")

    def test_an_unpacked_kernel_goes_along(self):
        (self.kernel / "vmlinux").write_bytes(b"unpacked")
        self.make()
        self.assertEqual(self.products()["vmlinux"], b"unpacked")
        (self.output / "vmlinux").unlink()
        self.assertIn("made", self.make())
        (self.kernel / "vmlinux").unlink()
        self.make()
        self.assertNotIn("vmlinux", self.products())

    def test_a_kernel_without_modules_is_fine(self):
        shutil.rmtree(self.kernel / "modules")
        self.make()
        self.assertNotIn("lib/modules/arca/load-order", read_cpio((self.output / "initramfs.cpio").read_bytes()))

    def test_what_fails_says_so_and_is_not_taken_for_done(self):
        self.make()
        (self.programs / "vminitd").unlink()
        self.assertIn("vminitd", self.make(code=1))
        (self.programs / "vminitd").write_bytes(b"another agent")
        (self.kernel / "modules" / "load-order").write_text("gone.ko\n", encoding="ascii")
        self.assertIn("gone.ko", self.make(code=1))

    def test_a_prepared_kernel_is_read_as_it_was_written(self):
        kernel = guest_kernel.read_prepared(self.kernel)
        self.assertEqual(kernel.version, "6.1.0-test")
        self.assertEqual([path.name for path in kernel.modules], list(MODULES))


def elf(note):
    """An ELF file with one segment, which is a note of this number of Xen's."""
    header = b"\x7fELF\x02\x01".ljust(32, b"\0") + struct.pack("<Q14xHH", 64, 56, 1)
    segment = struct.pack("<IIQQQQ16x", 4, 0, 120, 0, 0, 36)
    # A shorter one before it, so that the way from one to the next is walked.
    return header.ljust(64, b"\0") + segment + struct.pack("<III4s", 4, 0, 1, b"GNU\0") + struct.pack(
        "<III4s4x", 4, 4, note, b"Xen\0")


def bz_image(payload, size, version=0x20F):
    """The setup sector of a kernel for boot protocol `version`, and what it unpacks to `size` bytes."""
    image = bytearray(1024)
    image[0x1F1] = 1
    struct.pack_into("<IH", image, 0x202, 0x53726448, version)
    struct.pack_into("<II", image, 0x248, 16, len(payload) + 4)
    return bytes(image) + bytes(16) + payload + struct.pack("<I", size) + b"what follows"


class UnpackedKernel(unittest.TestCase):
    PACKERS = {
        "gzip": gzip.compress,
        "xz": lzma.compress,
        "lz4": lambda data: subprocess.run(["lz4", "-lc"], input=data, capture_output=True, check=True).stdout,
    }

    def test_it_is_what_was_packed(self):
        kernel = elf(18)
        for name, pack in self.PACKERS.items():
            with self.subTest(name):
                self.assertEqual(guest_kernel.unpacked_kernel(bz_image(pack(kernel), len(kernel))), kernel)

    def test_there_is_none_without_the_entry_that_qemu_needs(self):
        for kernel in (elf(17), b"", elf(18)[:5], b"no ELF file, but longer than its header is" * 4):
            self.assertIsNone(guest_kernel.unpacked_kernel(bz_image(gzip.compress(kernel), len(kernel))))

    def test_there_is_none_of_what_is_no_kernel(self):
        size, packed = len(elf(18)), gzip.compress(elf(18))
        for image in (b"", b"kernel", bytes(4096), bz_image(packed, size, version=0x207), bz_image(packed, size)[:1050],
                      bz_image(packed[:40], size), bz_image(packed, size + 1), bz_image(packed[:20] + bytes(30), size),
                      bz_image(b"packed in another way", size)):
            self.assertIsNone(guest_kernel.unpacked_kernel(image))


if __name__ == "__main__":
    unittest.main(verbosity=2)
