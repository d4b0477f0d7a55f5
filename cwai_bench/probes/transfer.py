"""One transfer over the paths of a lane: what both ends know of it beforehand, how each drives it, and what is kept."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from statistics import median
from typing import Any, Literal

from cwai_bench import native
from cwai_bench.errors import CwaiError, DeadlineError
from cwai_bench.model import PathChange, PlantedTrouble, Scalar, Transfer, TransferPath
from cwai_bench.path_bound import ALONE, OURS, Scenario
from cwai_bench.probes.lanes import Lane, RdmaPlace
from cwai_bench.probes.nic import Place
from cwai_bench.text import Text

PLANTED_AT = 0.25
"""Of the time that the transfer takes at best, after which a fault is planted."""
SLOWED = 8
"""A path that is degraded carries its rate divided by this."""
PERIOD, DOWN = 1.0, 0.5
"""Seconds of a path that comes and goes, and how long of these it is away."""
FOR_EVER = 1e6
STEPS = 240
"""Of a timeline, at most."""
CONNECTING, CONNECTING_RDMA = 2.0, 5.0
"""Seconds until a path that is not there is left out. Each queue pair opens its device anew."""


@dataclass(frozen=True)
class Step:
    """One transfer of each lane: over ``path`` alone, or over all by ``policy``."""

    repetition: int
    policy: str
    path: int = -1


@dataclass
class Rates:
    """What the paths of a lane carried alone, in bytes per second. First looks count until there is better."""

    seen: list[list[float]]
    looks: list[float] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.looks = [0.0] * len(self.seen)

    def take(self, step: Step, rate: float) -> None:
        if step.repetition > 0:
            self.seen[step.path].append(rate)
        else:
            self.looks[step.path] = rate

    def of(self, path: int) -> float:
        return median(self.seen[path]) if self.seen[path] else self.looks[path]

    @property
    def total(self) -> float:
        return sum(self.of(path) for path in range(len(self.seen)))

    def order(self) -> list[int]:
        """The fastest first."""
        return sorted(range(len(self.seen)), key=lambda path: (-self.of(path), path))


@dataclass(frozen=True)
class Connections:
    """What a path is made of, at both ends alike: how many, and as of :class:`native.RdmaPort` where they are queue
    pairs. ``stall``: as of :func:`native.multipath_send`."""

    count: int
    stall: float | None = None
    gid_index: int = -1
    timeout_exponent: int = 14
    retries: int = 7

    @classmethod
    def of(cls, given: Mapping[str, Scalar], count: int) -> Connections:
        stall = float(given["stall"]) if "stall" in given else None
        if given["transport"] != "verbs":
            return cls(count, stall)
        return cls(count, stall, int(given["gid_index"]), int(given["qp_timeout"]), int(given["retries"]))

    def nic(self, place: Place) -> native.RdmaPort | None:
        if not isinstance(place, RdmaPlace):
            return None
        return native.RdmaPort(place.device, place.port, self.gid_index, self.timeout_exponent, self.retries)


@dataclass(frozen=True)
class Job:
    """A transfer as both ends know it. ``paths``: numbers of the lane's, in the order of the engine, with a weight
    each."""

    lane: Lane
    step: Step
    paths: tuple[int, ...]
    connections: Connections
    size: int
    weights: tuple[float, ...]
    planted: tuple[PlantedTrouble, ...]
    timeout: float

    @property
    def routes(self) -> list[tuple[Place, Place]]:
        return [self.lane.paths[path] for path in self.paths]

    @property
    def connecting(self) -> float:
        return CONNECTING_RDMA if self.lane.rdma else CONNECTING

    @property
    def trouble(self) -> int:
        """The path of the lane that has a planted fault, -1 for none."""
        return self.paths[self.planted[0].path] if self.planted else -1


@dataclass
class Ended:
    """What an end tells of a transfer."""

    failure: tuple[Literal["error", "timeout", "aborted"], Text] | None = None
    sent: native.MultipathSent | None = None
    received: native.MultipathReceived | None = None
    started: float = field(default_factory=time.time)

    def to_json(self, job: Job) -> dict[str, Any]:
        raw: dict[str, Any] = {}
        if self.failure is not None:
            raw["failure"] = [self.failure[0], self.failure[1].en, self.failure[1].zh]
        if self.sent is not None:
            raw["seconds"] = float(self.sent.times[0]) if len(self.sent.times) else None
            raw["bad"] = sorted(job.paths[k] for k in _bad(self.sent))
        elif self.failure is not None and self.failure[0] != "aborted":
            raw["bad"] = list(job.paths)  # none of them could be connected
        if self.received is not None:
            raw["wrong"], raw["first_bad"] = self.received.wrong, self.received.first_bad
            raw["complete"] = self.received.complete
        return raw


def _bad(sent: native.MultipathSent) -> list[int]:
    """Engine's paths that failed, or were not well at the end."""
    failed = {event.path for event in sent.events if event.state == "failed"}
    well = ("healthy", "probation")
    return sorted(failed | {k for k, path in enumerate(sent.paths) if not path.connected or path.state not in well})


def trouble(scenario: Scenario, seconds: float, rate: float, longest: float) -> tuple[PlantedTrouble, ...]:
    """What is planted on the first path of a transfer that takes so many ``seconds`` at best: ``rate`` (B/s) is the
    path's own. One that comes and goes does so for ``longest`` seconds."""
    begin = PLANTED_AT * seconds
    if scenario == "cut":
        return (PlantedTrouble(0, "cut", begin, FOR_EVER),)
    if scenario == "degraded":
        return (PlantedTrouble(0, "slow", begin, FOR_EVER, rate / SLOWED),)
    if scenario == "flapping":
        times = [begin + PERIOD * i for i in range(int(longest / PERIOD))]
        return tuple(PlantedTrouble(0, "cut", at, at + DOWN) for at in times)
    return ()


def salt(step: Step) -> bytes:
    """So that what is left of one transfer is no part of the next."""
    text = f"{step.policy} {step.repetition} {step.path}".encode()
    return text[: native.TOKEN_BYTES].ljust(native.TOKEN_BYTES, b"\0")


def listen(job: Job) -> native.PathListeners:
    nics = [job.connections.nic(there) for _, there in job.routes]
    return native.PathListeners([there.address for _, there in job.routes], nics)


def receive(job: Job, listeners: native.PathListeners, token: bytes) -> Ended:
    def body(ended: Ended) -> None:
        ended.received = listeners.receive(
            token=token,
            bytes=job.size,
            connections=job.connections.count,
            seed=job.step.repetition + 1,
            timeout=job.timeout + job.connecting,
        )

    return _attempted(body)


def send(job: Job, ports: Sequence[int], token: bytes) -> Ended:
    weighted = job.step.policy == "weighted"

    def body(ended: Ended) -> None:
        ended.sent = native.multipath_send(
            routes=[
                ("" if job.lane.within else here.address, there.address, port)
                for (here, there), port in zip(job.routes, ports, strict=True)
            ],
            nics=[job.connections.nic(here) for here, _ in job.routes],
            token=token,
            bytes=job.size,
            connections=job.connections.count,
            policy=OURS if job.step.policy == ALONE else job.step.policy,
            weights=[weight for weight in job.weights for _ in range(job.connections.count)] if weighted else (),
            stall=job.connections.stall,
            faults=[native.PlantedFault(f.path, f.kind, f.begin, f.end, f.rate) for f in job.planted],
            seed=job.step.repetition + 1,
            connect_timeout=job.connecting,
            timeout=job.timeout,
        )

    return _attempted(body)


def _attempted(body: Callable[[Ended], None]) -> Ended:
    """What went wrong is an outcome too: this rank must come to the next exchange."""
    ended = Ended()
    try:
        body(ended)
    except native.Stopped as error:
        ended.failure = "aborted", error.message
    except DeadlineError as error:
        ended.failure = "timeout", error.message
    except CwaiError as error:
        ended.failure = "error", error.message
    return ended


def traced(spec: str, scenario: str, job: Job, mine: Ended, sent: native.MultipathSent) -> Transfer:
    step, timelines = folded(sent.step, [path.timeline.tolist() for path in sent.paths])
    return Transfer(
        spec=spec,
        source=job.lane.source.node,
        target=job.lane.target.node,
        scenario=scenario,
        policy=job.step.policy,
        repetition=job.step.repetition,
        bytes=job.size,
        started=mine.started,
        seconds=float(sent.times[0]) if len(sent.times) else None,
        delivered=sent.delivered,
        step=step,
        paths=[
            TransferPath(
                *job.lane.ends(job.paths[k]),
                job.connections.count,
                path.delivered,
                path.again,
                path.lost,
                path.failures,
                path.state,  # type: ignore[arg-type]
                path.connected,
                timelines[k],
            )
            for k, path in enumerate(sent.paths)
        ],
        changes=[
            PathChange(e.at, e.path, e.state, e.cause, e.code, e.connection)  # type: ignore[arg-type]
            for e in sent.events
        ],
        planted=[f for f in job.planted if not len(sent.times) or f.begin < sent.times[0]],
        recovered=sent.recovered,
        ended=sent.ended,
    )


def folded(step: float, timelines: Sequence[Sequence[int]]) -> tuple[float, list[list[int]]]:
    """Timelines of at most ``STEPS`` steps each, all as long as the longest; steps are as much longer."""
    longest = max(map(len, timelines), default=0)
    by = max(1, -(-longest // STEPS))
    count = -(-longest // by)
    full = [[*line, *[0] * (count * by - len(line))] for line in timelines]
    return step * by, [[sum(line[i : i + by]) for i in range(0, count * by, by)] for line in full]
