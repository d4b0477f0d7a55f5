"""NCCL under a sweep: which build of it every rank has loaded, and what it says of itself in its log.

NCCL opens its log once in a process, so the log is begun before the library is loaded and read on from where it stood.
A log that the person has asked for (``NCCL_DEBUG_FILE``) is left to them. The subsystem TUNING is not asked for: it
writes a line for every operation, which a small one would notice.
"""

from __future__ import annotations

import atexit
import os
import re
import tempfile
from functools import cache
from pathlib import Path

from cwai_bench import collective_library
from cwai_bench.collective_library import Mixture, Version
from cwai_bench.model import Reading

SUBSYSTEMS = "INIT,NET,GRAPH,ENV,NVLS"
KEPT = 64 << 10
"""Characters of a rank's log that are kept: each thing that it says, once."""
READ = 8 << 20
"""Bytes of a log that are looked at."""
_MESSAGE = re.compile(r"NCCL (?:INFO|WARN|TRACE) (.*)")


@cache
def begin_log() -> Path | None:
    """Once in a process, before the library is loaded: have it write its log where :func:`read_log` finds it. None
    where the log is the person's own."""
    if "NCCL_DEBUG_FILE" in os.environ:
        return None
    descriptor, name = tempfile.mkstemp(prefix="cwai-bench-nccl-")
    os.close(descriptor)
    # The name goes with the process; the library has the file open by then.
    atexit.register(Path(name).unlink, missing_ok=True)
    os.environ["NCCL_DEBUG_FILE"] = name
    if os.environ.get("NCCL_DEBUG", "").upper() not in ("INFO", "TRACE"):
        os.environ["NCCL_DEBUG"] = "INFO"
        os.environ["NCCL_DEBUG_SUBSYS"] = SUBSYSTEMS
    return Path(name)


def read_log(spec: str, rank: int) -> Reading | None:
    """What this rank's library has said so far; None where the log is the person's own."""
    path = begin_log()
    if path is None:
        return None
    source = f"log:nccl:{spec}:{rank}"
    try:
        with path.open(errors="replace") as file:
            text = file.read(READ)
    except OSError as e:
        return Reading(source, "error", detail=str(e.strerror))
    return Reading(source, "ok", told_once(text))


def told_once(text: str) -> str:
    """Each message once, in the order of the log, whole lines of up to ``KEPT`` characters in all."""
    lines: dict[str, str] = {}
    for line in text.splitlines():
        found = _MESSAGE.search(line)
        lines.setdefault(found[1] if found else line, line)
    kept: list[str] = []
    left = KEPT
    for line in lines.values():
        left -= len(line) + 1
        if left < 0:
            break
        kept.append(line)
    return "\n".join(kept)


def loaded() -> Version | None:
    """The version of the library that this process has loaded, by what is written in it; None where that tells none."""
    try:
        maps = Path("/proc/self/maps").read_text()
    except OSError:
        return None
    found = re.search(r"(/\S*libnccl(?!-)[^/\s]*\.so[^/\s]*)$", maps, re.M)
    if found is None:
        return None
    try:
        return collective_library.of_file(Path(found[1]))
    except OSError:
        return None


def mixture(versions: list[str | None]) -> Mixture | None:
    """Of what all ranks have loaded, each as its line tells it; None where they all have the same, or none is known (a
    build without such a line, which NCCL itself compares when it starts)."""
    if all(version is None for version in versions):
        return None
    known = {rank: None if line is None else collective_library.of_line(line) for rank, line in enumerate(versions)}
    return collective_library.mixed(known)
