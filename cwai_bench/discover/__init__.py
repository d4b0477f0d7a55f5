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
from cwai_bench.sources import Call, Command, Each, File, Source, answered

CALLS: Registry[Callable[[], msgspec.Struct]] = Registry("cwai_bench.discover")
LANES = 2
"""Sources read at the same time, beside the commands."""
COMMANDS_AT_ONCE = min(max(4, os.cpu_count() or 1), 16)
"""They mostly wait: a node of eight NPUs is asked some 190 questions, and its tools take their time for each."""
GIVE_UP_AFTER = 4
"""Commands of one program that did not answer in time, one after another, before the others of it are not run: a driver
that hangs must not use up the time of all that comes after it."""
EACH_LIMIT = 64
"""Devices for which one command is run."""

Runner = Callable[[Command, float], Reading]
"""Runs a command that only reads, for so many seconds at most: ``command.run`` on a live node."""

_Ask = TypeVar("_Ask", bound=Callable[[], msgspec.Struct])


def call(name: str) -> Callable[[_Ask], _Ask]:
    """Register the decorated function as the answer to ``Call(name)``."""

    def register(ask: _Ask) -> _Ask:
        CALLS.add(name, ask)
        return ask

    return register


def read_node(
    node: str, root: Path | None, sources: Iterable[Source], deadline: float, run: Runner | None = None
) -> Facts:
    """Read ``sources`` on this node, or in the folder ``root`` of a recorded one.

    ``node`` is what the facts are filed under; empty: the recorded name, or this host's. ``deadline`` is a time of
    ``time.monotonic()``: what was not reached by then reads as ``timeout``. ``run``: runs the commands of a recorded
    node in place of what was recorded of them. Raises UsageError for a root that is none.
    """
    wanted = _once(sources)
    if root is not None:
        from cwai_bench.discover.recorded import RecordedNode

        recorded = RecordedNode(root)
        if run is None:
            readings = [r for source in wanted for r in recorded.read(source)]
        else:
            readings = _read_all(wanted, recorded.names, deadline, run, _reading_with(recorded.read))
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

    here = Tree(Path("/"))

    def names(each: Each) -> set[str]:
        return {name for path in here.paths(each.over) if (name := each.name_in_path(path))}

    def read_others(to_read: deque[File | Call], found: list[Reading]) -> None:
        with Reader() as reader:
            while True:
                try:
                    source = to_read.popleft()
                except IndexError:
                    return
                left = _left_for(source, deadline)
                found.extend(reader.read(source, left) if left > 0 else [_no_time(source)])

    return _read_all(sources, names, deadline, command.run, read_others)


_Others = Callable[["deque[File | Call]", list[Reading]], None]
"""Takes sources that are no commands from a queue until it is empty, and adds their readings to a list."""


def _reading_with(read: Callable[[Source], list[Reading]]) -> _Others:
    def read_others(to_read: deque[File | Call], found: list[Reading]) -> None:
        while True:
            try:
                source = to_read.popleft()
            except IndexError:
                return
            found.extend(read(source))

    return read_others


def _read_all(
    sources: list[Source], names: Callable[[Each], set[str]], deadline: float, run: Runner, read_others: _Others
) -> list[Reading]:
    """The readings of all ``sources``, several at a time. ``names``: the devices of an Each."""
    found: list[Reading] = []
    to_run = deque(s for s in sources if isinstance(s, Command) and not s.unless)
    instead = deque(s for s in sources if isinstance(s, Command) and s.unless)
    to_read: deque[File | Call] = deque(s for s in sources if not isinstance(s, Command | Each))
    for each in (s for s in sources if isinstance(s, Each)):
        devices = sorted(names(each))
        commands = [each.command(name) for name in devices[:EACH_LIMIT]]
        to_run.extend(commands)
        found.append(family(each, commands, cut=len(devices) > EACH_LIMIT))
    silent: Counter[str] = Counter()

    def run_commands(commands: deque[Command]) -> None:
        while True:
            try:
                source = commands.popleft()
            except IndexError:
                return
            program = source.argv[0]
            if silent[program] >= GIVE_UP_AFTER:
                detail = f"not asked: {program} had not answered {silent[program]} times running"
                found.append(Reading(source.key, "timeout", detail=detail))
                continue
            left = _left_for(source, deadline)
            reading = run(source, left) if left > 0 else _no_time(source)
            silent[program] = silent[program] + 1 if reading.status == "timeout" else 0
            found.append(reading)

    lanes = [(run_commands, (to_run,))] * min(COMMANDS_AT_ONCE, len(to_run))
    _in_threads([*lanes, *[(read_others, (to_read, found))] * min(LANES, len(to_read))])
    told = {r.source: r for r in found}
    needed: deque[Command] = deque()
    for source in instead:
        if source.unless in told and answered(told[source.unless]):
            found.append(Reading(source.key, "missing", detail=f"not asked: {source.unless} has answered"))
        else:
            needed.append(source)
    _in_threads([(run_commands, (needed,))] * min(COMMANDS_AT_ONCE, len(needed)))
    have = {r.source for r in found}
    missed = [
        Reading(s.key, "error", detail="it was not read: a bug of cwai-bench") for s in sources if s.key not in have
    ]
    return sorted(found + missed, key=lambda r: r.source)


def _left_for(source: Source, deadline: float) -> float:
    return min(source.timeout, deadline - time.monotonic())


def _in_threads(work: list[tuple[Callable[..., None], tuple[object, ...]]]) -> None:
    """Do all of ``work`` at the same time."""
    threads = [threading.Thread(target=do, args=arguments, daemon=True) for do, arguments in work]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


def family(each: Each, commands: list[Command], *, cut: bool = False) -> Reading:
    """The reading of ``each`` itself: the keys of its commands; ``missing`` when there is no device."""
    if not commands:
        return Reading(each.key, "missing", detail=f"no device matches {each.over}")
    return Reading(each.key, "ok", "\n".join(c.key for c in commands), truncated=cut)


def _no_time(source: Source) -> Reading:
    return Reading(source.key, "timeout", detail="no time was left to read it")
