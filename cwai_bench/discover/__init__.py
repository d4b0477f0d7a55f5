"""Discover reads what is there, as text, and how the reading went. It never judges and it changes nothing.

::

    tree.py      files below a root: this node's, or a recorded one's
    command.py   commands that only read, each in its own process group, with a time limit
    reader.py    reading in a process of its own, so that a driver that hangs takes one source and not the run
    script.py    a person's own script, under a guard (guard.py) that leaves nothing of it behind
    recorded.py  a node written into a folder, and read from there
    system.py, memory.py, storage.py, network.py, pci.py    the questions put to the system: one decorator, one call

A call is a function without arguments that returns a value of ``cwai_bench/sources.py``; it is saved as JSON::

    @call("limits")
    def limits() -> Limits: ...
"""

from __future__ import annotations

import os
import platform
import threading
import time
from collections import Counter, deque
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import TypeVar

import msgspec

from cwai_bench.model import Facts, Reading
from cwai_bench.registry import Registry
from cwai_bench.sources import Call, Command, Each, File, Source

CALLS: Registry[Callable[[], msgspec.Struct]] = Registry("cwai_bench.discover")
LANES = 2
"""Sources read at the same time, beside the commands."""
COMMANDS_AT_ONCE = 4
GIVE_UP_AFTER = 4
"""Commands of one program that did not answer in time, one after another, before the others of it are not run: a driver
that hangs must not use up the time of all that comes after it."""
EACH_LIMIT = 64
"""Devices for which one command is run."""

_Ask = TypeVar("_Ask", bound=Callable[[], msgspec.Struct])


def call(name: str) -> Callable[[_Ask], _Ask]:
    """Register the decorated function as the answer to ``Call(name)``."""

    def register(ask: _Ask) -> _Ask:
        CALLS.add(name, ask)
        return ask

    return register


def read_node(node: str, root: Path | None, sources: Iterable[Source], deadline: float) -> Facts:
    """Read ``sources`` on this node, or in the folder ``root`` of a recorded one.

    ``node`` is what the facts are filed under; empty: the recorded name, or this host's. ``deadline`` is a time of
    ``time.monotonic()``: what was not reached by then reads as ``timeout``. Raises UsageError for a root that is none.
    """
    wanted = _once(sources)
    if root is not None:
        from cwai_bench.discover.recorded import RecordedNode

        recorded = RecordedNode(root)
        readings = [r for source in wanted for r in recorded.read(source)]
        return Facts(node or recorded.name, recorded.taken, recorded.privileged, True, {r.source: r for r in readings})
    readings = _read_live(wanted, deadline)
    return Facts(node or platform.node(), time.time(), os.geteuid() == 0, False, {r.source: r for r in readings})


def record_node(directory: Path, sources: Iterable[Source], *, node: str = "", deadline: float | None = None) -> Facts:
    """Read ``sources`` on this node and write them into ``directory`` (new or empty), ready for ``--root``.

    Raises UsageError when the folder cannot be written or is not empty.
    """
    from cwai_bench.discover.recorded import write

    limit = time.monotonic() + 30.0 if deadline is None else deadline
    facts = read_node(node, None, sources, limit)
    write(directory, facts)
    return facts


def _once(sources: Iterable[Source]) -> list[Source]:
    """Each source once, with the longest of the time limits asked for; calls first, because they take longest."""
    found: dict[str, Source] = {}
    for source in sources:
        known = found.get(source.key)
        if known is None or known.timeout < source.timeout:
            found[source.key] = source
    return sorted(found.values(), key=lambda s: (isinstance(s, File), s.key))


def _read_live(sources: list[Source], deadline: float) -> list[Reading]:
    from cwai_bench.discover import command
    from cwai_bench.discover.reader import Reader
    from cwai_bench.discover.tree import Tree

    found: list[Reading] = []
    to_run = deque(s for s in sources if isinstance(s, Command))
    to_read: deque[File | Call] = deque(s for s in sources if not isinstance(s, Command | Each))
    here = Tree(Path("/"))
    for each in (s for s in sources if isinstance(s, Each)):
        names = sorted({name for path in here.paths(each.over) if (name := each.name_in_path(path))})
        commands = [each.command(name) for name in names[:EACH_LIMIT]]
        to_run.extend(commands)
        found.append(family(each, commands, cut=len(names) > EACH_LIMIT))

    def left_for(source: Source) -> float:
        return min(source.timeout, deadline - time.monotonic())

    silent: Counter[str] = Counter()

    def run_commands() -> None:
        while True:
            try:
                source = to_run.popleft()
            except IndexError:
                return
            program = source.argv[0]
            if silent[program] >= GIVE_UP_AFTER:
                detail = f"not asked: {program} had not answered {silent[program]} times running"
                found.append(Reading(source.key, "timeout", detail=detail))
                continue
            left = left_for(source)
            reading = command.run(source, left) if left > 0 else _no_time(source)
            silent[program] = silent[program] + 1 if reading.status == "timeout" else 0
            found.append(reading)

    def read_others() -> None:
        with Reader() as reader:
            while True:
                try:
                    source = to_read.popleft()
                except IndexError:
                    return
                left = left_for(source)
                found.extend(reader.read(source, left) if left > 0 else [_no_time(source)])

    lanes = [threading.Thread(target=run_commands, daemon=True) for _ in range(min(COMMANDS_AT_ONCE, len(to_run)))]
    lanes += [threading.Thread(target=read_others, daemon=True) for _ in range(min(LANES, len(to_read)))]
    for lane in lanes:
        lane.start()
    for lane in lanes:
        lane.join()
    have = {r.source for r in found}
    missed = [
        Reading(s.key, "error", detail="it was not read: a bug of cwai-bench") for s in sources if s.key not in have
    ]
    return sorted(found + missed, key=lambda r: r.source)


def family(each: Each, commands: list[Command], *, cut: bool = False) -> Reading:
    """The reading of ``each`` itself: the keys of its commands; ``missing`` when there is no device."""
    if not commands:
        return Reading(each.key, "missing", detail=f"no device matches {each.over}")
    return Reading(each.key, "ok", "\n".join(c.key for c in commands), truncated=cut)


def _no_time(source: Source) -> Reading:
    return Reading(source.key, "timeout", detail="no time was left to read it")
