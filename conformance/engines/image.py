"""A busybox container image written here, from the machine's own static busybox: no registry, no network.

`write_archive` makes one tar that docker load, podman load and ctr images import all accept: an OCI image layout
(index.json, blobs) that also carries docker's manifest.json. `write_rootfs_tar` makes only the file system, for
docker import and podman import.
"""

import hashlib
import io
import json
import shutil
import struct
import subprocess
import tarfile

NAME = "localhost/arca-busybox:1"
ARCHITECTURE = "amd64"
PATH = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"

PASSWD = "root:x:0:0:root:/root:/bin/sh\ntester:x:1234:567:a user:/home/tester:/bin/sh\n"
GROUP = "root:x:0:\ntester:x:567:\nextra:x:890:tester\n"


def busybox():
    """Path of a static busybox; RuntimeError that says which package has one."""
    path = shutil.which("busybox")
    if path is None:
        raise RuntimeError("busybox is not installed (Debian package busybox-static)")
    with open(path, "rb") as file:
        header = file.read(64)
        file.seek(struct.unpack_from("<Q", header, 32)[0])
        entry_size, count = struct.unpack_from("<HH", header, 54)
        for _ in range(count):
            if struct.unpack_from("<I", file.read(entry_size))[0] == 3:  # PT_INTERP
                raise RuntimeError(f"{path} is not static (Debian package busybox-static has one that is)")
    return path


def write_rootfs_tar(target):
    """Writes the root file system to a path or a binary file object; the same bytes for the same busybox."""
    program = busybox()
    applets = subprocess.run([program, "--list"], check=True, capture_output=True, text=True).stdout.split()
    owner = {"fileobj": target} if hasattr(target, "write") else {"name": target}
    with tarfile.open(mode="w", format=tarfile.PAX_FORMAT, **owner) as tar:
        def directory(name, mode=0o755, uid=0, gid=0):
            info = tarfile.TarInfo(name)
            info.type, info.mode, info.uid, info.gid = tarfile.DIRTYPE, mode, uid, gid
            tar.addfile(info)

        def file(name, content, mode=0o644):
            info = tarfile.TarInfo(name)
            info.mode, info.size = mode, len(content)
            tar.addfile(info, io.BytesIO(content))

        for name in ("bin", "dev", "etc", "home", "opt", "proc", "root", "run", "sbin", "sys", "usr", "usr/bin", "var"):
            directory(name)
        directory("tmp", 0o1777)
        directory("home/tester", uid=1234, gid=567)
        with open(program, "rb") as source:
            file("bin/busybox", source.read(), 0o755)
        for applet in applets:
            if applet != "busybox":
                info = tarfile.TarInfo(f"bin/{applet}")
                info.type, info.linkname, info.mode = tarfile.SYMTYPE, "busybox", 0o777
                tar.addfile(info)
        file("etc/passwd", PASSWD.encode())
        file("etc/group", GROUP.encode())
        file("opt/not-executable", b"#!/bin/sh\necho this must not run\n")
        file("opt/script", b"#!/bin/sh\necho script ran as $0 with $# arguments\nexit 9\n", 0o755)


def write_archive(path):
    """Writes the image NAME as an OCI layout with docker's manifest beside it."""
    layer = io.BytesIO()
    write_rootfs_tar(layer)
    layer = layer.getvalue()
    layer_digest = hashlib.sha256(layer).hexdigest()
    config = json.dumps({
        "architecture": ARCHITECTURE, "os": "linux", "created": "2024-01-01T00:00:00Z",
        "config": {"Env": [PATH], "Cmd": ["/bin/sh"], "WorkingDir": "/"},
        "rootfs": {"type": "layers", "diff_ids": [f"sha256:{layer_digest}"]},
        "history": [{"created": "2024-01-01T00:00:00Z", "created_by": "busybox of the machine under test"}],
    }).encode()

    def descriptor(media_type, content):
        return {"mediaType": f"application/vnd.oci.image.{media_type}", "size": len(content),
                "digest": "sha256:" + hashlib.sha256(content).hexdigest()}

    manifest = json.dumps({
        "schemaVersion": 2, "mediaType": "application/vnd.oci.image.manifest.v1+json",
        "config": descriptor("config.v1+json", config), "layers": [descriptor("layer.v1.tar", layer)],
    }).encode()
    index = json.dumps({
        "schemaVersion": 2,
        "manifests": [descriptor("manifest.v1+json", manifest) | {
            "platform": {"architecture": ARCHITECTURE, "os": "linux"},
            "annotations": {"io.containerd.image.name": NAME, "org.opencontainers.image.ref.name": NAME}}],
    }).encode()

    def blob(content):
        return "blobs/sha256/" + hashlib.sha256(content).hexdigest()

    docker = json.dumps([{"Config": blob(config), "RepoTags": [NAME], "Layers": [blob(layer)]}]).encode()
    with tarfile.open(path, "w", format=tarfile.PAX_FORMAT) as tar:
        for name, content in ((blob(layer), layer), (blob(config), config), (blob(manifest), manifest),
                              ("oci-layout", b'{"imageLayoutVersion":"1.0.0"}'), ("index.json", index),
                              ("manifest.json", docker)):
            info = tarfile.TarInfo(name)
            info.size, info.mode = len(content), 0o644
            tar.addfile(info, io.BytesIO(content))
