#!/usr/bin/env python3
"""A kernel for test VMs: Debian's cloud kernel, and from its modules those that a guest needs, in load order.

    from guest_kernel import prepare
    kernel = prepare()                  # kernel.image, kernel.modules
    guest_kernel.py [--modules A,B] [--print-dir]

The package is downloaded with apt-get and unpacked without being installed. Both are cached in
${XDG_CACHE_HOME:-/var/cache}/arca-runtime/kernel; several programs may prepare at the same time. A prepared folder:

    vmlinuz             the kernel
    vmlinux             the same, unpacked: an emulated machine gets it in no time, while a kernel that unpacks itself
                        takes a fifth of an emulated boot. Missing where it cannot be had or could not be booted
    modules/NN-NAME.ko  the modules, uncompressed; loading them in the order of their names works
    modules/load-order  their names, one a line, in that order
    version             the kernel's release, as uname -r prints it
"""

import argparse
import contextlib
import dataclasses
import fcntl
import gzip
import hashlib
import lzma
import os
import pathlib
import re
import shutil
import struct
import subprocess
import sys
import tempfile
import zlib

META_PACKAGE = "linux-image-cloud-amd64"
# What the guests of this project use, what is waited for first. Dependencies come along by themselves; a name that is
# built into the kernel is left out. Each costs 3 to 25 ms of a start under emulation (measured): what no container
# of the vm driver needs is left out.
VSOCK = ("virtio_pci", "vmw_vsock_virtio_transport")
CONTAINER = VSOCK + (
    "virtiofs", "tun", "virtio_net", "overlay", "virtio_blk", "ext4", "virtio_console", "virtio_rng", "binfmt_misc",
    "veth", "vsock_diag",
)
# Of a prepared folder; another one makes those in the cache worthless.
LAYOUT = "4"


@dataclasses.dataclass(frozen=True)
class Kernel:
    folder: pathlib.Path
    image: pathlib.Path
    version: str
    modules: tuple  # paths of .ko files, in load order
    unpacked: pathlib.Path | None = None

    @property
    def emulated(self):
        """The file that an emulated machine boots soonest."""
        return self.unpacked or self.image


def cache_folder():
    base = os.environ.get("XDG_CACHE_HOME") or "/var/cache"
    return pathlib.Path(base) / "arca-runtime" / "kernel"


@contextlib.contextmanager
def locked(folder):
    """One program at a time works in the cache; the others wait and then find the work done."""
    folder.mkdir(parents=True, exist_ok=True)
    with open(folder / "lock", "w", encoding="ascii") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        for unfinished in folder.glob("new-*"):  # of a program that was killed
            shutil.rmtree(unfinished, ignore_errors=True)
        yield


def run(*command, cwd=None):
    done = subprocess.run(command, cwd=cwd, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise RuntimeError(f"{' '.join(command)}: exit code {done.returncode}\n{done.stdout}{done.stderr}")
    return done.stdout


def package_name():
    """The kernel package that the meta package stands for, such as linux-image-6.1.0-56-cloud-amd64."""
    for attempt in range(2):
        listing = run("apt-cache", "depends", META_PACKAGE) if attempt or has_package_lists() else ""
        found = re.search(r"Depends: (linux-image-[0-9]\S*-cloud-amd64)\b", listing)
        if found:
            return found.group(1)
        if attempt == 0:
            run("apt-get", "update")
    raise RuntimeError(f"apt-cache does not know {META_PACKAGE}")


def has_package_lists():
    return subprocess.run(["apt-cache", "show", META_PACKAGE], stdin=subprocess.DEVNULL, capture_output=True,
                          check=False).returncode == 0


def unpacked(cache):
    """The folder of the unpacked package; downloads it when it is not there. Needs the lock."""
    there = sorted(cache.glob("linux-image-*-cloud-amd64"))
    if there:
        return there[-1]
    package = package_name()
    with tempfile.TemporaryDirectory(dir=cache, prefix="new-") as scratch:
        # apt-get drops root's rights for a download and must be able to write here.
        os.chmod(scratch, 0o755)
        run("apt-get", "-o", "APT::Sandbox::User=root", "download", package, cwd=scratch)
        files = list(pathlib.Path(scratch).glob("*.deb"))
        if len(files) != 1:
            raise RuntimeError(f"apt-get download {package}: {len(files)} files")
        run("dpkg-deb", "-x", str(files[0]), os.path.join(scratch, "tree"))
        os.rename(os.path.join(scratch, "tree"), cache / package)
    return cache / package


def module_name(path):
    return path.name.split(".ko", 1)[0].replace("-", "_")


def read_module(path):
    data = path.read_bytes()
    if path.suffix == ".xz":
        return lzma.decompress(data)
    if path.suffix == ".gz":
        return gzip.decompress(data)
    return data


def dependencies(data):
    """Names in the `depends=` entry of a module's .modinfo section (and `softdep=pre:`), as depmod reads them."""
    names = []
    for entry in re.findall(rb"(?:^|\0)depends=([^\0]*)\0", data):
        names += [name for name in entry.decode().split(",") if name]
    for entry in re.findall(rb"\0softdep=pre: ([^\0]*)\0", data):
        names += entry.decode().split("post:")[0].split()
    return [name.replace("-", "_") for name in names]


def inflate(data):
    return zlib.decompressobj(zlib.MAX_WBITS | 16).decompress(data)


def by_program(*command):
    def unpack(data):
        return subprocess.run(command, input=data, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, check=True).stdout

    return unpack


# First bytes of a packed kernel, and what unpacks it.
PACKERS = (
    (b"\x1f\x8b", inflate),
    (b"\xfd7zXZ\0", lambda data: lzma.LZMADecompressor().decompress(data)),
    (b"\x02\x21\x4c\x18", by_program("lz4", "-dc")),
    (b"\x28\xb5\x2f\xfd", by_program("zstd", "-dc")),
)


def boots_as_it_is(kernel):
    """Whether an ELF file has Xen's note with the 32 bit entry (XEN_ELFNOTE_PHYS32_ENTRY), by which QEMU starts it."""
    if kernel[:6] != b"\x7fELF\x02\x01":
        return False
    (first,), (size, count) = struct.unpack_from("<Q", kernel, 32), struct.unpack_from("<HH", kernel, 54)
    for number in range(count):
        kind, _, offset, _, _, length = struct.unpack_from("<IIQQQQ", kernel, first + number * size)
        if kind != 4:  # PT_NOTE
            continue
        end = offset + length
        while offset + 12 <= end:
            name, content, note = struct.unpack_from("<III", kernel, offset)
            if (note, kernel[offset + 12:offset + 12 + name]) == (18, b"Xen\0"):
                return True
            offset += 12 + (name + 3) // 4 * 4 + (content + 3) // 4 * 4
    return False


def unpacked_kernel(image):
    """The kernel in a bzImage (boot protocol 2.08: payload_offset, payload_length), or None where it has none that
    QEMU starts as it is, or is packed in a way that this machine has no program for."""
    try:
        magic, version = struct.unpack_from("<IH", image, 0x202)
        if magic != 0x53726448 or version < 0x208:  # "HdrS"
            return None
        start = (image[0x1F1] + 1) * 512 + struct.unpack_from("<I", image, 0x248)[0]
        # The last four bytes are the size of the unpacked kernel; for most packers they are no part of the stream.
        end = start + struct.unpack_from("<I", image, 0x24C)[0] - 4
        (size,) = struct.unpack_from("<I", image, end)
        for first_bytes, unpack in PACKERS:
            if image[start:end].startswith(first_bytes):
                kernel = unpack(image[start:end])
                return kernel if len(kernel) == size and boots_as_it_is(kernel) else None
    except (IndexError, struct.error, zlib.error, lzma.LZMAError, OSError, subprocess.CalledProcessError) as error:
        print(f"guest_kernel: the kernel stays packed: {error}", file=sys.stderr)
    return None


def load_order(tree, version, wanted):
    """(name, content) of `wanted` and all that they need, each after what it needs."""
    root = tree / "lib" / "modules" / version
    files = {module_name(path): path for path in root.rglob("*.ko*")}
    builtin = {module_name(pathlib.Path(line)) for line in (root / "modules.builtin").read_text().split()}
    order = {}
    seen = set()

    def add(name, needed_by, hard=True):
        name = name.replace("-", "_")
        if name in seen or name in builtin:
            return
        seen.add(name)
        if name not in files:
            if hard:
                raise RuntimeError(f"module {name} (for {needed_by}) is not in {tree.name}")
            return
        data = read_module(files[name])
        for needed in dependencies(data):
            add(needed, name, hard=False)
        order[name] = data

    for name in wanted:
        add(name, "the guest")
    return list(order.items())


def read_prepared(folder):
    """The Kernel in a folder that is laid out as this file's first lines say; its modules may be missing."""
    folder = pathlib.Path(folder)
    version = (folder / "version").read_text(encoding="ascii").strip()
    order = folder / "modules" / "load-order"
    names = order.read_text(encoding="ascii").split() if order.exists() else []
    unpacked = folder / "vmlinux"
    return Kernel(folder, folder / "vmlinuz", version, tuple(folder / "modules" / name for name in names),
                  unpacked if unpacked.exists() else None)


def prepare(modules=VSOCK):
    """A Kernel with these modules, from the cache or made now."""
    cache = cache_folder()
    with locked(cache):
        tree = unpacked(cache)
        images = sorted((tree / "boot").glob("vmlinuz-*"))
        if len(images) != 1:
            raise RuntimeError(f"{tree}: {len(images)} kernels")
        version = images[0].name.removeprefix("vmlinuz-")
        key = hashlib.sha256(" ".join((LAYOUT, version, *modules)).encode()).hexdigest()[:12]
        folder = cache / f"prepared-{version}-{key}"
        if not folder.is_dir():
            new = pathlib.Path(tempfile.mkdtemp(dir=cache, prefix="new-"))
            try:
                shutil.copyfile(images[0], new / "vmlinuz")
                if kernel := unpacked_kernel(images[0].read_bytes()):
                    (new / "vmlinux").write_bytes(kernel)
                (new / "version").write_text(version + "\n", encoding="ascii")
                (new / "modules").mkdir()
                names = []
                for number, (name, data) in enumerate(load_order(tree, version, modules)):
                    names.append(f"{number:02}-{name}.ko")
                    (new / "modules" / names[-1]).write_bytes(data)
                (new / "modules" / "load-order").write_text("".join(name + "\n" for name in names), encoding="ascii")
                new.chmod(0o755)
                new.rename(folder)
            except BaseException:
                shutil.rmtree(new, ignore_errors=True)
                raise
    return read_prepared(folder)


def main():
    parser = argparse.ArgumentParser(description="Prepares a guest kernel and prints where it is.")
    parser.add_argument("--modules", default="container",
                        help="comma-separated names, or the sets `vsock` and `container` (default)")
    arguments = parser.parse_args()
    named = {"vsock": VSOCK, "container": CONTAINER}
    modules = named.get(arguments.modules) or tuple(arguments.modules.split(","))
    print(prepare(modules).folder)


if __name__ == "__main__":
    try:
        main()
    except RuntimeError as error:
        sys.exit(f"guest_kernel: {error}")
