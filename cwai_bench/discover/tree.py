"""Reading files below a root, and nowhere else.

On this node the root is ``/``. A recorded root is hostile: it came from somebody's ticket. Below one, every component
of a path is opened by hand, relative to the one before: a symbolic link is followed as if the root were ``/`` (an
absolute one too, and ``..`` stops at the root), and only plain files are read, so that neither a link to
``/etc/shadow`` nor a FIFO does any harm.
"""

from __future__ import annotations

import errno
import fnmatch
import os
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

from cwai_bench.model import Reading, ReadStatus
from cwai_bench.sources import GLOB, File

TEXT_LIMIT = 1 << 20
"""Bytes read of one source."""
GLOB_FILES = 4096
"""Files that one glob may yield."""
GLOB_BYTES = 4 << 20
"""Bytes that the files of one glob may yield together."""
GLOB_ENTRIES = 65536
"""Directory entries looked at for one glob."""
LINK_LIMIT = 40
"""Symbolic links followed for one path, as the kernel does."""


class Tree:
    """Files below ``root``; ``/`` is this node itself, anything else is a recorded root."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.live = str(root) == "/"

    def read(self, source: File) -> list[Reading]:
        """One reading, or, for a glob, one for the pattern (the paths found, one a line) and one for each path."""
        return self._glob(source.path) if source.is_glob else [self.read_path(source.path)]

    def read_path(self, path: str) -> Reading:
        try:
            fd = self._open(path)
        except OSError as e:
            return refused(path, e)
        try:
            if not stat.S_ISREG(os.fstat(fd).st_mode):
                return Reading(path, "error", detail="not a plain file")
            return bounded(path, _read(fd, TEXT_LIMIT + 1))
        except OSError as e:
            return refused(path, e)
        finally:
            os.close(fd)

    def open_plain(self, path: str) -> BinaryIO:
        """A plain file, open for reading, for what is no text. Raises OSError."""
        file = os.fdopen(self._open(path), "rb")
        if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
            file.close()
            raise OSError(errno.EINVAL, "not a plain file")
        return file

    def _open(self, path: str) -> int:
        flags = os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC
        if self.live:
            return os.open(f"/{path}", flags)
        return self._open_inside(path, flags)

    def _open_inside(self, path: str, flags: int) -> int:
        """Open ``path`` as if the root were ``/``. ``held`` is the chain of directories from the root down."""
        held = [os.open(self.root, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)]
        todo = _components(path)
        links = 0
        try:
            while todo:
                name = todo.pop(0)
                if name == "..":
                    if len(held) > 1:
                        os.close(held.pop())
                    continue
                fd = os.open(name, os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=held[-1])
                mode = os.fstat(fd).st_mode
                if stat.S_ISLNK(mode):
                    links += 1
                    target = _link_target(fd)
                    if links > LINK_LIMIT:
                        raise OSError(errno.ELOOP, os.strerror(errno.ELOOP))
                    if target.startswith("/"):
                        while len(held) > 1:
                            os.close(held.pop())
                    todo = _components(target) + todo
                elif stat.S_ISDIR(mode):
                    held.append(fd)
                elif todo:
                    os.close(fd)
                    raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR))
                elif not stat.S_ISREG(mode):
                    os.close(fd)
                    raise OSError(errno.EINVAL, "not a plain file")
                else:
                    os.close(fd)
                    return os.open(name, flags | os.O_NOFOLLOW, dir_fd=held[-1])
            return os.open(".", flags | os.O_DIRECTORY, dir_fd=held[-1])
        finally:
            for fd in held:
                os.close(fd)

    def paths(self, pattern: str) -> list[str]:
        """The paths that match a glob, unread, in order. What cannot be listed holds none."""
        return [step for step in self._walk("", pattern.split("/")) if isinstance(step, str)]

    def _glob(self, pattern: str) -> list[Reading]:
        """Names in order; what vanished between listing and reading is left out of the listing too."""
        seen = 0
        cut = False
        total = 0
        trouble: OSError | None = None
        found: list[Reading] = []
        walk = self._walk("", pattern.split("/"))
        while True:
            try:
                step = next(walk)
            except StopIteration:
                break
            if isinstance(step, OSError):
                trouble = trouble or step
                continue
            if isinstance(step, int):
                seen += step
                if seen > GLOB_ENTRIES:
                    cut = True
                    break
                continue
            if len(found) >= GLOB_FILES or total > GLOB_BYTES:
                cut = True
                break
            reading = self.read_path(step)
            if reading.status != "missing":
                found.append(reading)
                total += len(reading.text)
        if not found:
            if trouble is not None:
                return [refused(pattern, trouble)]
            return [Reading(pattern, "missing", detail="no file matches")]
        listing = "\n".join(r.source for r in found)
        detail = f"cut after {len(found)} files" if cut else ""
        return [Reading(pattern, "ok", listing, detail, truncated=cut), *found]

    def _walk(self, base: str, parts: list[str]) -> Iterator[str | int | OSError]:
        """Paths that match; between them the number of directory entries looked at, and directories that refused."""
        head, rest = parts[0], parts[1:]
        names = [head]
        if GLOB.search(head):
            try:
                entries = self.names(base)
            except OSError as e:
                if e.errno not in (errno.ENOENT, errno.ENOTDIR):
                    yield e
                return
            yield len(entries)
            names = [n for n in entries if fnmatch.fnmatchcase(n, head) and (head[0] == "." or n[0] != ".")]
        for name in names:
            path = f"{base}/{name}" if base else name
            if rest:
                yield from self._walk(path, rest)
            else:
                yield path

    def names(self, path: str) -> list[str]:
        """The names in a directory, in order. Raises OSError."""
        if self.live:
            return sorted(os.listdir(f"/{path}"))  # noqa: PTH208 - a name is wanted, not a Path
        fd = self._open_inside(path, os.O_RDONLY | os.O_CLOEXEC)
        try:
            return sorted(os.listdir(fd))  # noqa: PTH208
        finally:
            os.close(fd)


def _components(path: str) -> list[str]:
    return [part for part in path.split("/") if part not in ("", ".")]


def _link_target(fd: int) -> str:
    """The target of a link held by O_PATH; closes it."""
    try:
        return os.readlink("", dir_fd=fd)  # noqa: PTH115 - Path.readlink knows no dir_fd
    finally:
        os.close(fd)


def _read(fd: int, limit: int) -> bytes:
    """At most ``limit`` bytes: files of /proc tell no size, so read on until there is no more."""
    parts: list[bytes] = []
    left = limit
    while left > 0:
        part = os.read(fd, min(left, 1 << 16))
        if not part:
            break
        parts.append(part)
        left -= len(part)
    return b"".join(parts)


def decode(data: bytes) -> str:
    """Text of any bytes; what is no UTF-8 shows as ``\\xff``."""
    return data.decode("utf-8", "backslashreplace")


def bounded(
    source: str, data: bytes, exit_code: int | None = None, detail: str = "", limit: int = TEXT_LIMIT
) -> Reading:
    """A good reading of ``data``, cut so that its text is at most ``limit`` bytes of UTF-8."""
    text = decode(data[:limit])
    cut = len(data) > limit
    if not text.isascii() or len(text) > limit:
        encoded = text.encode()
        cut = cut or len(encoded) > limit
        text = encoded[:limit].decode("utf-8", "ignore")
    return Reading(source, "ok", text, detail, exit_code, cut)


def refused(source: str, e: OSError) -> Reading:
    """How a refusal reads: not there, not allowed, or an error of its own."""
    status: ReadStatus = "error"
    if e.errno in (errno.ENOENT, errno.ENOTDIR, errno.ENODEV, errno.ENXIO):
        status = "missing"
    elif e.errno in (errno.EACCES, errno.EPERM):
        status = "denied"
    return Reading(source, status, detail=os.strerror(e.errno) if e.errno else str(e))
