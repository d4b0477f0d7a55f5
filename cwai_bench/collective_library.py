"""Which collective library it is: NCCL, or one that keeps its interface (CTCCL, VCCL, RCCL …), and of which version.

It is told in three ways: by the line that the library logs, by the number of ``ncclGetVersion``, and by that same line
among the strings of the file, which is there before anything runs. Forks edit the line as a literal (NVIDIA/nccl
src/init.cc, VERSION_STRING; sii-research/VCCL and ROCm/rccl, the same place)::

    NCCL version 2.21.5+cuda12.4
    CTCCL version 0.2.0(nccl 2.19.4)+cuda12.2
    RCCL version : 2.27.7-HEAD:29e1567         RCCL version 2.18.3+hip6.0 HEAD:abc1234
    NCCL version 2.27.5+cudaCUDA_MAJOR.CUDA_MINOR         (a build that left its own fields as they were)

HCCL has no such line; its version stands in a file of the CANN toolkit that it belongs to, ``Version=8.5.1`` in
``share/info/hccl/version.info`` (``hccl/version.info`` of older ones).

A communicator refuses to start where the numbers of its ranks differ ("Mismatched NCCL version", src/init.cc; EI0008 of
HCCL), and names two ranks of them. Here all are named, before anything starts.
"""

from __future__ import annotations

import io
import os
import re
import stat
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO, NamedTuple

from cwai_bench.text import Text

FIRST_OF_NEW_CODING = 10_000
"""``ncclGetVersion``: major·1000 + minor·100 + patch until 2.8, major·10000 + minor·100 + patch since (nccl.h.in)."""
FILE_LIMIT = 2 << 30
"""Bytes of a library that are looked at; that of NCCL 2.27 with the code of all its cards has 0.4 GB."""
RANKS_NAMED = 16

_PIECE = 4 << 20
_LONGEST = 160
"""Bytes of a line of a version."""
_NUMBER = r"[0-9][0-9A-Za-z._]{0,31}"
_LINE = re.compile(
    rf"\b([A-Za-z]{{0,12}}CCL) version *:? *({_NUMBER})"
    rf"(?:-[0-9A-Za-z._:+-]{{1,60}})?(?: ?\(nccl ({_NUMBER})\))?(?:\+(cuda|hip)([0-9A-Za-z._]{{1,40}}))?"
)
_BYTES = re.compile(_LINE.pattern.encode())
TOOLKIT_FILES = ("share/info/hccl/version.info", "hccl/version.info")
_TOOLKIT = re.compile(rf"^Version *= *({_NUMBER})\r?$".encode(), re.M)
_MARK, _BEFORE = b"CCL version ", 12


class Version(NamedTuple):
    """``name``: as it calls itself, empty where only the number of its interface is known. ``number``: its own.
    ``nccl``: that of the NCCL whose interface it keeps, where it says so beside its own. ``toolkit``: what it was built
    with, as in ``cuda12.4``. What is not told is empty."""

    name: str
    number: str
    nccl: str = ""
    toolkit: str = ""

    @property
    def interface(self) -> str:
        """The number that communicators compare, as far as it is told."""
        return self.nccl or self.number

    def __str__(self) -> str:
        """The line of the library as it would be without flaws: :func:`of_line` reads it again."""
        if not self.name:
            return f"NCCL interface {self.interface}"
        kept, built = f"(nccl {self.nccl})" if self.nccl else "", f"+{self.toolkit}" if self.toolkit else ""
        return f"{self.name} version {self.number}{kept}{built}"


class Mixture(NamedTuple):
    """``refused``: communicators of these ranks do not start. ``groups``: what is used, and by which ranks; None stands
    for what is not known."""

    refused: bool
    groups: dict[Version | None, list[int]]
    text: Text


def of_line(line: str) -> Version | None:
    """The version that a line of a log tells; None when it tells none."""
    found = _LINE.search(line[:4096])
    return None if found is None else _version(*found.groups())


def of_code(code: int) -> Version | None:
    """The version behind the number of ``ncclGetVersion``; None for a number that is none. Forks keep the number of the
    NCCL that they stand for, so that it tells no name."""
    scale = 1000 if code < FIRST_OF_NEW_CODING else 10_000
    major, rest = divmod(code, scale)
    if not 1 <= major <= 99:
        return None
    return Version("", "", nccl=f"{major}.{rest // 100}.{rest % 100}")


def of_file(path: Path) -> Version | None:
    """The version among the strings of a library, or of a library that NCCL is linked into; nothing in it is run.

    A fork may hold the line of the NCCL that it is made from as well: then its own counts. Of libhccl, that of its
    toolkit. None where nothing tells it, or the path is no plain file. Raises OSError.
    """
    if path.name.startswith("libhccl"):
        return _of_toolkit(path)
    with _opened(path) as file:
        return None if file is None else _told_in(file)


def of_bytes(data: bytes) -> Version | None:
    """As :func:`of_file`, of a part of it that was read already."""
    return _told_in(io.BytesIO(data))


def _told_in(file: BinaryIO) -> Version | None:
    found: dict[Version, None] = {}
    kept, seen, piece = b"", 0, b"-"
    while piece:
        piece = file.read(_PIECE) if seen < FILE_LIMIT else b""
        seen += len(piece)
        held = kept + piece
        # What the end of a piece may have cut is looked at together with the next.
        end = len(held) - _LONGEST if piece else len(held)
        at = held.find(_MARK)
        while 0 <= at < end:
            around = held[max(0, at - _BEFORE) : at + _LONGEST].split(b"\0")
            told = next((_BYTES.search(part) for part in around if _MARK in part), None)
            if told is not None:
                found[_version(*(None if g is None else g.decode("ascii") for g in told.groups()))] = None
            at = held.find(_MARK, at + 1)
        kept = held[max(0, end - _BEFORE) :]
    return next((version for version in found if version.name != "NCCL"), next(iter(found), None))


@contextmanager
def _opened(path: Path) -> Iterator[BinaryIO | None]:
    """None for what is no plain file: a pipe of that name would wait for ever. Raises OSError."""
    with os.fdopen(os.open(path, os.O_RDONLY | os.O_NONBLOCK), "rb") as file:
        yield file if stat.S_ISREG(os.fstat(file.fileno()).st_mode) else None


def _of_toolkit(library: Path) -> Version | None:
    """The version of HCCL beside a libhccl in ``lib64`` or ``ARCHITECTURE/lib64`` of a toolkit. Raises OSError where
    the library is not there."""
    with _opened(library) as file:
        if file is None:
            return None
    places = [place for start in (library.absolute(), library.resolve()) for place in list(start.parents)[1:4]]
    for path in (place / name for place in places for name in TOOLKIT_FILES):
        with suppress(OSError), _opened(path) as file:
            told = None if file is None else _TOOLKIT.search(file.read(_PIECE))
            if told is not None:
                return Version("HCCL", told[1].decode("ascii"))
    return None


def _version(name: str | None, number: str | None, nccl: str | None, kit: str | None, built: str | None) -> Version:
    assert name is not None  # both are in every match
    assert number is not None
    # What a build left unfilled begins with a letter.
    toolkit = f"{kit}{built.rstrip('.')}" if kit and built and built[0].isdecimal() else ""
    return Version(name, number.rstrip("."), (nccl or "").rstrip("."), toolkit)


def mixed(versions: Mapping[int, Version | None]) -> Mixture | None:
    """What the ranks use where they do not all use the same, by rank; None where they do.

    A rank whose version is not known (None) is said to be so: it is not taken to be like the others.
    """
    groups: dict[Version | None, list[int]] = {}
    for rank, version in sorted(versions.items()):
        groups.setdefault(version, []).append(rank)
    if len(groups) <= 1 and None not in groups:
        return None
    known = [version for version in groups if version is not None]
    refused = len({version.interface for version in known}) > 1
    listed = sorted(groups.items(), key=lambda group: -len(group[1]))
    lines = [
        Text("{v}: ranks {r}", "{v}：rank {r}").fill(v=_UNKNOWN if version is None else str(version), r=folded(ranks))
        for version, ranks in listed
    ]
    if refused:
        head = _REFUSED
    elif len(known) > 1:
        head = _DIFFERENT
    else:
        head = _NOT_ALL
    text = Text(
        f"{head.en}: {'; '.join(line.en for line in lines)}", f"{head.zh}：{'；'.join(line.zh for line in lines)}"
    )
    return Mixture(refused, groups, text)


_UNKNOWN = Text("not known", "未知")
_REFUSED = Text(
    "the ranks load different collective libraries, whose communicators refuse to start",
    "各进程加载的集合通信库版本不一致，通信域将无法建立",
)
_DIFFERENT = Text("the ranks load different builds of the collective library", "各进程加载的集合通信库构建不一致")
_NOT_ALL = Text("which collective library is loaded is not known of every rank", "部分进程加载的集合通信库版本未知")


def folded(ranks: list[int]) -> str:
    """``0-7, 9``: at most ``RANKS_NAMED`` runs of them. ``ranks`` are sorted."""
    runs: list[list[int]] = []
    for rank in ranks:
        if runs and rank == runs[-1][1] + 1:
            runs[-1][1] = rank
        else:
            runs.append([rank, rank])
    shown = [str(first) if first == last else f"{first}-{last}" for first, last in runs[:RANKS_NAMED]]
    return ", ".join(shown) + (f" … ({len(ranks)})" if len(runs) > RANKS_NAMED else "")
