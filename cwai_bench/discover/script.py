"""Running what takes long, under a guard of its own: a person's own script, a vendor's test.

The guard (``guard.py``) is a process between us and the script. It outlives us: should this process be killed, it sees
its standard input end and ends the script, so that none is left behind. It adopts what the script leaves behind, so
that at the time limit, and when the script is done, all of that is ended: SIGTERM to the script's session, SIGKILL a
moment later, then whatever slipped out of that session.

A script gets: its arguments; an empty standard input; ``/`` to stand in; a session of its own; standard output and
error as one, of which 64 KiB are kept; PATH, HOME, USER, LD_LIBRARY_PATH, XDG_RUNTIME_DIR, LC_ALL=C, and

    CWAI_BENCH_NODE   the node, as the report calls it
    CWAI_BENCH_RUN    the id of the run
    CWAI_BENCH_ITEM   the item, such as script.site_mount

Its text comes from a sealed file in memory, which its interpreter opens as ``/proc/self/fd/N``: no disk need be
writable, and nothing is left there.
"""

from __future__ import annotations

import contextlib
import os
import selectors
import subprocess
import time

import msgspec

from cwai_bench.discover.command import end, environment
from cwai_bench.discover.reader import START_LIMIT, start_child
from cwai_bench.discover.tree import TEXT_LIMIT
from cwai_bench.model import Reading
from cwai_bench.scripts import Script
from cwai_bench.sources import Command

TERM_SECONDS = 1.0
"""Seconds between SIGTERM and SIGKILL at the time limit: enough to remove what the script itself has put somewhere."""
LINGER_SECONDS = 2.0
"""Seconds after SIGKILL in which the guard reaps all processes of a script, or says which cannot be ended."""
OVERHEAD_SECONDS = START_LIMIT + 2 * LINGER_SECONDS + 2 * TERM_SECONDS
"""Seconds that :func:`run` may take beyond the script's own limit, at worst."""
OUTPUT_LIMIT = 1 << 16
"""Bytes of a script's output that are kept."""
VENDOR_GRACE = 10.0
"""As TERM_SECONDS, of a vendor's test: dcgmi has to tell its host engine to stop, and cards to come to rest."""
_ANSWER_LIMIT = 16 << 20


class Job(msgspec.Struct, frozen=True):
    """What the guard is told, as one line of JSON."""

    source: str
    text: str
    """Of the script; empty: ``arguments`` are a whole command."""
    arguments: list[str]
    limit: float
    environ: dict[str, str]
    keep: int = OUTPUT_LIMIT
    grace: float = TERM_SECONDS


def source_of(item: str) -> str:
    """The source of a script's reading: ``script:script.site_mount``."""
    return f"script:{item}"


def run(script: Script, node: str, run_id: str) -> Reading:
    """Run ``script`` on this node; return what it said.

    ``ok`` when it came to an end (``exit_code`` -n: by signal n), ``timeout`` when it was ended at its limit,
    ``missing`` without its interpreter, ``denied`` when it asks for privilege that we lack, else ``error``.
    Whatever interrupts us ends the script as well.
    """
    spec = script.spec
    source = source_of(spec.info.id)
    if spec.root and os.geteuid() != 0:
        return Reading(source, "denied", detail="it asks to be run as root")
    told = {"CWAI_BENCH_NODE": node, "CWAI_BENCH_RUN": run_id, "CWAI_BENCH_ITEM": spec.info.id}
    return _guarded(Job(source, script.text, spec.arguments, spec.limit, environment() | told))


def run_command(command: Command, script: str = "") -> Reading:
    """The reading of a command that may take long, by its own time limit; standard output and error as one.

    With a ``script`` that is run, and the command is its name. Whatever interrupts us ends what runs as well.
    """
    words = [] if script else list(command.argv)
    # What set_env.sh of CANN says: without it ascend-dmi does not find the kernels that it starts.
    cann = {name: value for name, value in os.environ.items() if name.startswith("ASCEND_")}
    return _guarded(Job(command.key, script, words, command.timeout, environment() | cann, TEXT_LIMIT, VENDOR_GRACE))


def _guarded(job: Job) -> Reading:
    source = job.source
    with os.fdopen(os.memfd_create("cwai-bench-guard"), "w+b") as complaints:
        try:
            guard = start_child("cwai_bench.discover.guard", complaints)
        except OSError as e:
            return Reading(source, "error", detail=f"its guard could not be started: {e}")
        try:
            answer = _ask(guard, job, time.monotonic() + job.limit + job.grace + OVERHEAD_SECONDS)
        finally:
            _let_go(guard, job.grace)
        with contextlib.suppress(msgspec.DecodeError):
            return msgspec.json.decode(answer, type=Reading)
        complaints.seek(0)
        said = complaints.read(1 << 16).decode("utf-8", "backslashreplace").strip()
    return Reading(source, "error", detail=f"its guard gave no answer: {said[-200:] or 'in time'}")


def _ask(guard: subprocess.Popen[bytes], job: Job, deadline: float) -> bytes:
    """What the guard answers by ``deadline``; less than all of it when it does not."""
    assert guard.stdin is not None
    assert guard.stdout is not None
    answer = bytearray()
    with contextlib.suppress(BrokenPipeError):
        guard.stdin.write(msgspec.json.encode(job) + b"\n")
        guard.stdin.flush()
    with selectors.DefaultSelector() as selector:
        selector.register(guard.stdout, selectors.EVENT_READ)
        while len(answer) <= _ANSWER_LIMIT and selector.select(max(0.0, deadline - time.monotonic())):
            part = os.read(guard.stdout.fileno(), 1 << 16)
            if not part:
                break
            answer += part
    return bytes(answer)


def _let_go(guard: subprocess.Popen[bytes], grace: float) -> None:
    """Hang up, which tells the guard to end the script if it still runs, and wait until it is gone."""
    assert guard.stdin is not None
    assert guard.stdout is not None
    with contextlib.suppress(BrokenPipeError):
        guard.stdin.close()
    try:
        guard.wait(grace + LINGER_SECONDS)
    except subprocess.TimeoutExpired:
        end(guard)
    guard.stdout.close()
