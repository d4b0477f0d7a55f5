"""File systems and how full they are."""

from __future__ import annotations

import errno
import os
import re
import selectors
import signal
import time
from pathlib import Path

import msgspec

from cwai_bench.discover import call
from cwai_bench.sources import Filesystem, Filesystems

LOCAL = frozenset(
    ("ext2", "ext3", "ext4", "xfs", "btrfs", "f2fs", "zfs", "vfat", "overlay", "bcachefs", "jfs", "ntfs3")
)
SHARED = frozenset(
    ("nfs", "nfs4", "cifs", "smb3", "lustre", "ceph", "gpfs", "beegfs", "glusterfs", "9p", "virtiofs", "afs")
)
"""File systems whose far end may be gone: asking one of these can take for ever. fuse.* counts as well."""
MOUNTS_LIMIT = 256
SHARED_LIMIT = 1.5
"""Seconds for all shared file systems together."""


def _is_shared(kind: str) -> bool:
    return kind in SHARED or kind.startswith("fuse.")


def _unescape(text: str) -> str:
    """Mount points are written with blanks as ``\\040`` (proc(5))."""
    return re.sub(r"\\([0-7]{3})", lambda m: chr(int(m[1], 8)), text)


def mounts(text: str) -> list[Filesystem]:
    """The mounts of real file systems in the text of mountinfo, each file system once for each way it is mounted."""
    found: dict[tuple[str, bool], Filesystem] = {}
    for line in text.splitlines():
        before, _, after = line.partition(" - ")
        fields, (kind, device, options) = before.split(), after.split(maxsplit=2)
        mount_point = _unescape(fields[4])
        # A container's overlay is its root; those that a host sees are other people's containers.
        if (kind not in LOCAL and not _is_shared(kind)) or (kind == "overlay" and mount_point != "/"):
            continue
        read_only = "ro" in fields[5].split(",")
        mount = Filesystem(
            mount_point,
            _unescape(device),
            kind,
            read_only,
            bool({"ro", "emergency_ro"} & set(options.split(","))),
            _is_shared(kind),
        )
        known = found.get((fields[2], read_only))
        if known is None or len(mount.mount) < len(known.mount):
            found[fields[2], read_only] = mount
    return list(found.values())[:MOUNTS_LIMIT]


def _measured(mount: Filesystem) -> Filesystem:
    try:
        told = os.statvfs(mount.mount)
    except OSError as e:
        # The fuse mounts of a user's desktop refuse even root.
        status = "denied" if e.errno in (errno.EACCES, errno.EPERM) else "error"
        return msgspec.structs.replace(mount, status=status, detail=e.strerror or str(e))
    return msgspec.structs.replace(
        mount,
        size=told.f_blocks * told.f_frsize,
        free=told.f_bfree * told.f_frsize,
        available=told.f_bavail * told.f_frsize,
        inodes=told.f_files,
        inodes_free=told.f_ffree,
    )


def _measured_by_children(shared: list[Filesystem]) -> list[Filesystem]:
    """One child for each: the dead file system takes only its own child with it. For a process of one thread."""
    deadline = time.monotonic() + SHARED_LIMIT
    waiting: dict[int, tuple[int, Filesystem]] = {}
    found: list[Filesystem] = []
    with selectors.DefaultSelector() as selector:
        for mount in shared:
            reading, writing = os.pipe()
            pid = os.fork()
            if pid == 0:
                try:
                    os.write(writing, msgspec.json.encode(_measured(mount)))
                finally:
                    os._exit(0)
            os.close(writing)
            waiting[reading] = (pid, mount)
            selector.register(reading, selectors.EVENT_READ)
        while waiting:
            ready = selector.select(max(0.0, deadline - time.monotonic()))
            if not ready:
                break
            for key, _ in ready:
                selector.unregister(key.fd)
                pid, mount = waiting.pop(key.fd)
                # An answer is far shorter than a pipe holds, so one read has it whole.
                answer = os.read(key.fd, 1 << 16)
                os.close(key.fd)
                os.waitpid(pid, 0)
                found.append(
                    msgspec.json.decode(answer, type=Filesystem)
                    if answer
                    else msgspec.structs.replace(mount, status="error", detail="the asking process died")
                )
    for fd, (pid, mount) in waiting.items():
        os.close(fd)
        os.kill(pid, signal.SIGKILL)
        found.append(msgspec.structs.replace(mount, status="timeout", detail=f"no answer in {SHARED_LIMIT:g} s"))
    for pid, _ in waiting.values():
        os.waitpid(pid, os.WNOHANG)
    return sorted(found, key=lambda f: f.mount)


@call("filesystems")
def filesystems() -> Filesystems:
    every = mounts(Path("/proc/self/mountinfo").read_bytes().decode("utf-8", "backslashreplace"))
    local = [_measured(m) for m in every if not m.shared]
    shm = Path("/dev/shm")
    return Filesystems(
        local + _measured_by_children([m for m in every if m.shared]),
        _measured(Filesystem(str(shm), "tmpfs", "tmpfs", False, False)) if shm.is_dir() else None,
    )
