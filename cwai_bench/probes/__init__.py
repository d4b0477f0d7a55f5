"""Probes measure and have no opinion.

One file, one probe: a function ``measure(ctx)`` under ``@probe(...)`` and a ``plan`` function that says what it would
do in a given world. Every rank calls ``measure``; each emits the measurements that it owns.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Literal

import msgspec

from cwai_bench.group import Group
from cwai_bench.model import CheckInfo, Emitted, LeftOut, ProbeSpec, Reading, Scalar
from cwai_bench.registry import Registry
from cwai_bench.text import Text

Transport = Literal["auto", "verbs", "tcp", "loopback", "npu"]
Verb = Literal["write", "read", "send"]
CollectiveLibrary = Literal["auto", "mpi", "nccl", "hccl", "hccl-test", "loopback"]


class Rails(msgspec.Struct, frozen=True):
    """The RDMA NICs that a node can use, by name in natural order; when there is none, why."""

    names: tuple[str, ...] = ()
    why_none: Text | None = None


@dataclass(frozen=True)
class World:
    """What the plan knows of the launch: how many ranks, on which nodes, and whether an MPI runs them.

    ``rails`` are those of each of ``nodes``, ``gpus`` how many NVIDIA GPUs each has, ``cards`` and ``npus`` of each
    rank its node and how many GPUs, or Ascend NPUs, it sees; empty as long as nobody has looked.
    """

    size: int
    nodes: tuple[str, ...]
    mpi: bool
    rails: tuple[Rails, ...] = ()
    gpus: tuple[int, ...] = ()
    cards: tuple[tuple[str, int], ...] = ()
    npus: tuple[tuple[str, int], ...] = ()


@dataclass(frozen=True)
class Options:
    """What the person chose; None means the probe's own default. Sizes in bytes, durations in seconds.

    ``streams`` are queue pairs where RDMA is measured. ``pairs``: ``ring``, ``all``, ``sample:K`` or ``full``;
    ``from_ends`` and ``to_ends`` are ``node/nic`` each (:mod:`cwai_bench.probes.pairs`). From ``library`` to
    ``hccl_test`` all is of collectives (:mod:`cwai_bench.probes.collective`): ``max_bytes`` 0 is the library's own;
    ``rehearse`` is a rank and by how many seconds it comes late; ``cards`` are those of a node, 0 for all;
    ``hccl_test`` is the folder of the vendor's programs (:mod:`cwai_bench.probes.hccl_test`). From ``device`` on all is
    of RDMA; what the numbers mean is told by :func:`cwai_bench.native.queue_pairs`. From ``interfaces`` on all is of
    transfers over several paths (:mod:`cwai_bench.probes.multipath`): ``connections`` of each path, ``size`` of a
    transfer, 0 for the probe's own; ``stall``: as :func:`cwai_bench.native.multipath_send` has it.
    """

    transport: Transport = "auto"
    kind: Literal["bandwidth", "latency", "both"] = "both"
    direction: Literal["one-way", "two-way", "both"] = "both"
    sizes: tuple[int, ...] | None = None
    streams: int | None = None
    duration: float | None = None
    iterations: int | None = None
    warmup: int | None = None
    port: int = 18515
    pairs: str = "ring"
    from_ends: tuple[str, ...] = ()
    to_ends: tuple[str, ...] = ()
    spin: bool = False
    library: CollectiveLibrary = "auto"
    operations: tuple[str, ...] | None = None
    dtypes: tuple[str, ...] | None = None
    reductions: tuple[str, ...] | None = None
    placement: Literal["out", "in", "both"] = "out"
    root_rank: int = 0
    min_bytes: int = 8
    max_bytes: int = 0
    step_factor: int = 2
    step_bytes: int = 0
    rehearse: tuple[int, float] | None = None
    cards: int = 0
    graph: bool = False
    registered: bool = False
    sharp: Literal["auto", "on", "off", "both"] = "auto"
    find_slow: bool = False
    hccl_test: str = ""
    verify: bool = True
    item_timeout: float | None = None
    interface: str | None = None
    verb: tuple[Verb, ...] | None = None
    device: tuple[str, ...] = ()
    as_node: tuple[str, ...] = ()
    gid_index: int = -1
    mtu: int = 0
    service_level: int = 0
    traffic_class: int = 0
    qp_timeout: int = 14
    retries: int = 7
    depth: int = 128
    post_list: int = 0
    inline: int = -1
    relaxed_ordering: bool = False
    huge_pages: bool = False
    cold: bool = False
    memory: Literal["host", "gpu"] = "host"
    like_nccl: bool = False
    precisions: tuple[str, ...] | None = None
    interfaces: tuple[str, ...] = ()
    connections: int = 0
    stall: float | None = None
    size: int = 0
    repeat: int = 3
    policies: tuple[str, ...] | None = None
    scenarios: tuple[str, ...] | None = None
    seed: int = 0


@dataclass
class Context:
    """What a running probe has: its group, its spec, where measurements go, and how to say how far it got."""

    group: Group
    spec: ProbeSpec
    node: str
    emit: Callable[[Emitted], None]
    beat: Callable[[dict[str, Scalar]], None]
    deadline: float
    """Monotonic time (``time.monotonic()``) at which the probe gives up."""
    say: Callable[[str], None] = field(default=lambda _line: None)
    keep: Callable[[Reading], None] = field(default=lambda _reading: None)
    """Keeps what a library or tool said beside what was measured, among the facts of the node."""


@dataclass(frozen=True)
class Probe:
    info: CheckInfo
    commands: tuple[str, ...]
    """The commands whose plan it belongs to: ``run``, ``rdma``, ``collective``, ``gpu``, ``multipath``."""
    plan: Callable[[World, Options], list[ProbeSpec | LeftOut]]
    measure: Callable[[Context], None]


PROBES: Registry[Probe] = Registry("cwai_bench.probes")


def probe(
    info: CheckInfo, *, commands: tuple[str, ...], plan: Callable[[World, Options], list[ProbeSpec | LeftOut]]
) -> Callable[[Callable[[Context], None]], Callable[[Context], None]]:
    """Register ``measure`` as the probe ``info.id``."""

    def register(measure: Callable[[Context], None]) -> Callable[[Context], None]:
        PROBES.add(info.id, Probe(info, commands, plan, measure))
        return measure

    return register
