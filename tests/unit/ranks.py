"""Ranks that are threads of one process: what all of them measure, without an MPI."""

from __future__ import annotations

import threading
import time
from dataclasses import dataclass, field
from typing import Any

from cwai_bench.group import Group
from cwai_bench.model import Emitted, LeftOut, Measurement, ProbeSpec, Scalar
from cwai_bench.probes import PROBES, Context, Options, World

ALONE = World(1, ("a",), False)


def planned(probe: str, world: World = ALONE, **options: Any) -> tuple[list[ProbeSpec], list[LeftOut]]:
    found = PROBES[probe].plan(world, Options(**options))
    return [f for f in found if isinstance(f, ProbeSpec)], [f for f in found if isinstance(f, LeftOut)]


@dataclass
class Meeting:
    """Where ranks that are threads of one process meet."""

    nodes: tuple[str, ...]
    values: list[Any] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.values = [None] * len(self.nodes)
        self.gate = threading.Barrier(len(self.nodes))


class Rank:
    comm = None

    def __init__(self, meeting: Meeting, rank: int) -> None:
        self.meeting = meeting
        self.rank = rank
        self.size = len(meeting.nodes)
        self.nodes = meeting.nodes
        self.leaders = tuple(i for i, n in enumerate(self.nodes) if n not in self.nodes[:i])

    def barrier(self) -> None:
        self.meeting.gate.wait(30)

    def allgather(self, value: Any) -> list[Any]:
        self.meeting.values[self.rank] = value
        self.meeting.gate.wait(30)
        found = list(self.meeting.values)
        self.meeting.gate.wait(30)
        return found


def context(group: Group, spec: ProbeSpec, emitted: list[Any], patience: float = 30.0) -> Context:
    def beat(_progress: dict[str, Scalar]) -> None:
        return None

    return Context(group, spec, group.nodes[group.rank], emitted.append, beat, time.monotonic() + patience)


def measured(probe: str, nodes: tuple[str, ...], spec: ProbeSpec, patience: float = 30.0) -> list[Measurement]:
    """What all ranks measure, and nothing else that they may tell."""
    found = told(probe, nodes, spec, patience)
    measurements = [m for m in found if isinstance(m, Measurement)]
    assert len(measurements) == len(found)
    return sorted(measurements, key=lambda m: (m.subject.id, m.rank))


def told(probe: str, nodes: tuple[str, ...], spec: ProbeSpec, patience: float = 30.0) -> list[Emitted]:
    """What all ranks emit; an exception on any of them is the test's."""
    meeting = Meeting(nodes)
    emitted: list[Emitted] = []
    failed: list[BaseException] = []

    def run(rank: int) -> None:
        try:
            PROBES[probe].measure(context(Rank(meeting, rank), spec, emitted, patience))
        except BaseException as error:
            failed.append(error)
            meeting.gate.abort()

    threads = [threading.Thread(target=run, args=(rank,), name=node) for rank, node in enumerate(nodes)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if failed:
        raise failed[0]
    return emitted
