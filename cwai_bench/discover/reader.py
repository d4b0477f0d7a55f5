"""Reading in a process of its own.

``open("/sys/…/speed")`` may never return when a driver hangs, and nothing in one's own process can end it. So files
and calls are read by a child, one source at a time; a child that does not answer in time is killed, or left behind
when even that does not work, and the next source gets a new one.
"""

from __future__ import annotations

import os
import selectors
import subprocess
import sys
import time
from pathlib import Path
from types import TracebackType
from typing import IO

import msgspec

from cwai_bench.discover import CALLS
from cwai_bench.discover.command import end
from cwai_bench.discover.tree import Tree, bounded, refused
from cwai_bench.model import Reading
from cwai_bench.sources import Call, File

START_LIMIT = 10.0
"""Seconds that a child may take to start: a loaded node, a slow file system. Not counted against the source."""
COMPLAINT_LIMIT = 1 << 16
READY = b"ready\n"


class Reader:
    """A child that reads; started when first needed, and again after it was killed."""

    def __init__(self) -> None:
        self._process: subprocess.Popen[bytes] | None = None
        self._held = bytearray()

    def __enter__(self) -> Reader:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        if self._process is not None:
            assert self._process.stdin is not None
            self._process.stdin.close()
            try:
                self._process.wait(1.0)
            except subprocess.TimeoutExpired:
                end(self._process)
            self._drop()

    def read(self, source: File | Call, timeout: float) -> list[Reading]:
        """The readings of ``source``; one of status ``timeout`` or ``error`` when the child did not answer."""
        if self._process is None:
            trouble = self._start()
            if trouble:
                return [Reading(source.key, "error", detail=trouble)]
        assert self._process is not None
        assert self._process.stdin is not None
        try:
            self._process.stdin.write(f"{source.key}\n".encode())
            self._process.stdin.flush()
            line = self._line(time.monotonic() + timeout)
        except OSError as e:
            self._end()
            return [refused(source.key, e)]
        if line is None:
            pid = self._process.pid
            gone = self._end()
            return [
                Reading(
                    source.key,
                    "timeout",
                    detail=f"no answer in {timeout:g} s"
                    + ("" if gone else f"; the reading process {pid} cannot be killed and was left behind"),
                )
            ]
        if not line:
            self._end()
            return [Reading(source.key, "error", detail="the reading process died")]
        return msgspec.json.decode(line, type=list[Reading])

    def _start(self) -> str:
        """Start the child; what went wrong, or nothing."""
        with os.fdopen(os.memfd_create("cwai-bench-reader"), "w+b") as complaints:
            try:
                self._process = start_child("cwai_bench.discover.worker", complaints)
            except OSError as e:
                return f"the reading process could not be started: {e}"
            assert self._process.stdout is not None
            os.set_blocking(self._process.stdout.fileno(), False)
            if self._line(time.monotonic() + START_LIMIT) == READY:
                return ""
            self._end()
            complaints.seek(0)
            said = complaints.read(COMPLAINT_LIMIT).decode("utf-8", "backslashreplace").strip()
        return f"the reading process could not be started: {said[-200:] or 'it gave no answer'}"

    def _line(self, deadline: float) -> bytes | None:
        """The next line; None when it did not come in time, empty when the child closed its end."""
        assert self._process is not None
        assert self._process.stdout is not None
        fd = self._process.stdout.fileno()
        with selectors.DefaultSelector() as selector:
            selector.register(fd, selectors.EVENT_READ)
            while True:
                at = self._held.find(b"\n")
                if at >= 0:
                    line = bytes(self._held[: at + 1])
                    del self._held[: at + 1]
                    return line
                left = deadline - time.monotonic()
                if left <= 0 or not selector.select(left):
                    return None
                part = os.read(fd, 1 << 18)
                if not part:
                    return b""
                self._held += part

    def _end(self) -> bool:
        assert self._process is not None
        gone = end(self._process)
        self._drop()
        return gone

    def _drop(self) -> None:
        assert self._process is not None
        for stream in (self._process.stdin, self._process.stdout):
            if stream is not None:
                try:
                    stream.close()
                except BrokenPipeError:
                    pass
        self._process = None
        self._held.clear()


def start_child(module: str, complaints: IO[bytes]) -> subprocess.Popen[bytes]:
    """A process of ours in a session of its own that runs ``module``: spoken to by pipes, what it dies of goes to
    ``complaints``. Raises OSError."""
    # It finds modules where this process finds them, however that came about; never in the folder it stands in.
    places = os.pathsep.join(str(Path(place).absolute()) for place in sys.path if place)
    return subprocess.Popen(
        [sys.executable, "-m", module],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=complaints,
        env=os.environ | {"PYTHONPATH": places, "PYTHONSAFEPATH": "1", "LC_ALL": "C.UTF-8"},
        cwd="/",
        start_new_session=True,
    )


def read_here(source: File | Call, tree: Tree) -> list[Reading]:
    """Read ``source`` in this process."""
    started = time.monotonic()
    found = tree.read(source) if isinstance(source, File) else [_ask(source)]
    took = round(time.monotonic() - started, 4)
    return [msgspec.structs.replace(found[0], duration=took), *found[1:]]


def _ask(source: Call) -> Reading:
    if source.name not in CALLS:
        return Reading(source.key, "error", detail="this version has no such call")
    try:
        answer = CALLS[source.name]()
    except OSError as e:
        return refused(source.key, e)
    except (ValueError, LookupError, ArithmeticError) as e:
        return Reading(source.key, "error", detail=f"{type(e).__name__}: {e}")
    return bounded(source.key, msgspec.json.encode(answer))
