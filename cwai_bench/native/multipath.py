"""Transfers over several paths at once."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from cwai_bench.native.door import FAULTS, translated
from cwai_bench.text import Text

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from cwai_bench.native.door import Samples

POLICIES = ("single", "round_robin", "equal", "weighted", "pull")
"""How work is divided among paths: all over the first usable one; run after run in turn; equal shares of a transfer;
shares by weight; whoever has room, which is ours (cpp/multipath/scheduler.hpp)."""
BLOCK = 64 << 10


@dataclass(frozen=True)
class RdmaPort:
    """The NIC at one end of a path that is RDMA: ``device`` as in /sys/class/infiniband. ``gid_index`` below 0: of
    RoCE v2 with an IPv4 address, if there is one, looked up each time that the path is connected. A packet's answer is
    waited for 4.096 us · 2^``timeout_exponent``, ``retries`` times."""

    device: str
    port: int = 1
    gid_index: int = -1
    timeout_exponent: int = 14
    retries: int = 3


@dataclass(frozen=True)
class _Pace:
    """How a transport is driven where the caller does not say."""

    connections: int
    horizon: float
    stall: float
    duplicates: float


_TCP = _Pace(connections=1, horizon=0.02, stall=0.1, duplicates=0.02)
_RDMA = _Pace(connections=8, horizon=0.002, stall=0.005, duplicates=0.0)
"""RDMA answers in microseconds. What a queue pair was told to read or write cannot be turned aside, so a copy that
overtakes it costs that queue pair: none is sent of what only is slow."""


def _nics(nics: Sequence[RdmaPort | None]) -> list[tuple[str, int, int, int, int]]:
    return [
        (nic.device, nic.port, nic.gid_index, nic.timeout_exponent, nic.retries) if nic else ("", 1, -1, 14, 3)
        for nic in nics
    ]


def _pace(nics: Sequence[RdmaPort | None]) -> _Pace:
    return _RDMA if any(nics) else _TCP


@dataclass(frozen=True)
class PlantedFault:
    """A fault put on the sending end of a path for a rehearsal, from ``begin`` to ``end`` (seconds after the first
    byte): ``cut`` (nothing leaves, nobody is told), ``reset`` (the connection breaks), ``slow`` (to ``rate`` bytes per
    second), ``corrupt`` (one message, at ``begin``, has a bit flipped)."""

    path: int
    kind: Literal["cut", "reset", "slow", "corrupt"]
    begin: float
    end: float = 0.0
    rate: float = 0.0


@dataclass(frozen=True)
class PathEvent:
    """Something that happened to a path. ``at``: seconds after the first byte (of a receiver: after its start).

    ``state`` from then on: healthy, suspect, failed, probing, probation. ``cause``: connected, answered, delivered,
    stalled, silent, error, garbled, corrupt, refused; ``code`` is errno or 0. ``connection``: which one of the path's.
    """

    at: float
    path: int
    state: str
    cause: str
    code: int
    connection: int = 0


@dataclass(frozen=True)
class PathSent:
    """Of one path, in bytes: given to it (``sent``), of that what it ``delivered`` first, what another path had been
    given before (``again``), what was taken back from it (``lost``). ``timeline``: bytes that it delivered first, in
    each step. ``state``: at the end, of its connection that is best off; ``connected``: at the beginning, by one at
    least."""

    sent: int
    delivered: int
    again: int
    lost: int
    stalls: int
    failures: int
    state: str
    connected: bool
    timeline: NDArray[np.uint64]


@dataclass(frozen=True)
class MultipathSent:
    """What the sending end saw. ``times``: seconds of each complete transfer, from when the other end was ready for it
    until all of it was there.

    ``delivered``: bytes in all. ``start``: of the first byte, by ``time.monotonic()``. ``step``: seconds, of the
    timelines. ``recovered``: seconds from the start until all was delivered that a path had lost, 0 when none had.
    ``ended``: what ended it early; all figures are up to then.
    """

    times: Samples
    delivered: int
    start: float
    step: float
    recovered: float
    paths: tuple[PathSent, ...]
    events: tuple[PathEvent, ...]
    ended: Text | None


@dataclass(frozen=True)
class PathReceived:
    """Of one path: ``bytes`` that came, of these those that were there already (``twice``); messages whose checksum was
    wrong (``corrupt``), connections that ended in the middle of one (``broken``)."""

    bytes: int
    twice: int
    corrupt: int
    broken: int


@dataclass(frozen=True)
class MultipathReceived:
    """What the receiving end saw. ``wrong``: bytes that are not what was sent, in all ``complete`` transfers;
    ``first_bad``: index of the first of them, -1 for none."""

    complete: int
    wrong: int
    first_bad: int
    paths: tuple[PathReceived, ...]
    events: tuple[PathEvent, ...]
    ended: Text | None


class PathListeners:
    """A listening TCP port for each path, at numeric ``addresses``; ``ports`` are in their order.

    ``nics``: of each path the NIC at this end, by which it is RDMA, or None; the ends of such a path meet over TCP.
    """

    def __init__(self, addresses: Sequence[str], nics: Sequence[RdmaPort | None] = ()) -> None:
        self._connections = _pace(nics).connections
        with translated() as module:
            self._listeners = module.PathListeners(addresses=list(addresses), nics=_nics(nics))

    @property
    def ports(self) -> list[int]:
        return list(self._listeners.ports)

    def receive(
        self,
        *,
        token: bytes,
        bytes: int,
        transfers: int = 1,
        block: int = BLOCK,
        connections: int | None = None,
        seed: int = 0,
        timeout: float = 60.0,
    ) -> MultipathReceived:
        """Receive ``transfers`` of ``bytes`` from :func:`multipath_send`, told alike, over all paths that come, and
        compare each byte."""
        with translated():
            raw = self._listeners.receive(
                token=token,
                bytes=bytes,
                transfers=transfers,
                block=block,
                connections=self._connections if connections is None else connections,
                seed=seed,
                timeout=timeout,
            )
        return MultipathReceived(
            raw["complete"],
            raw["wrong"],
            raw["first_bad"],
            tuple(PathReceived(**path) for path in raw["paths"]),
            tuple(PathEvent(**event) for event in raw["events"]),
            _ended(raw),
        )


def multipath_send(
    *,
    routes: Sequence[tuple[str, str, int]],
    nics: Sequence[RdmaPort | None] = (),
    token: bytes,
    bytes: int,
    policy: str = "pull",
    weights: Sequence[float] = (),
    transfers: int = 1,
    block: int = BLOCK,
    connections: int | None = None,
    longest_run: int = 16,
    horizon: float | None = None,
    stall: float | None = None,
    duplicates: float | None = None,
    resend: bool = True,
    faults: Sequence[PlantedFault] = (),
    seed: int = 0,
    connect_timeout: float = 2.0,
    timeout: float = 60.0,
) -> MultipathSent:
    """Send ``transfers`` of ``bytes``, one after another, over ``routes``: (local address or "", remote address, port).

    ``nics``: of each path the NIC at this end, by which it is RDMA, or None. ``connections`` of each path (1 to 128),
    the same number at both ends; None: 1, or 8 where there is RDMA. ``horizon``: seconds of work that a connection
    holds (None: 0.02, RDMA 0.002); ``stall``: seconds of silence after which what it holds goes to others (None: 0.1,
    RDMA 0.005); ``duplicates``: share of bytes sent twice at the end of transfers, since another connection would be
    later with them (None: 0.02, RDMA none); without ``resend`` the first connection that breaks ends it all. A path
    that is not there within ``connect_timeout`` is left out, and tried again.
    """
    pace = _pace(nics)
    with translated() as module:
        raw = module.multipath_send(
            routes=list(routes),
            nics=_nics(nics),
            token=token,
            policy=policy,
            weights=list(weights),
            bytes=bytes,
            transfers=transfers,
            block=block,
            connections=pace.connections if connections is None else connections,
            longest_run=longest_run,
            horizon=pace.horizon if horizon is None else horizon,
            stall=pace.stall if stall is None else stall,
            duplicates=pace.duplicates if duplicates is None else duplicates,
            resend=resend,
            rehearsals=[(f.path, f.kind, f.begin, f.end, f.rate) for f in faults],
            seed=seed,
            connect_timeout=connect_timeout,
            timeout=timeout,
        )
    return MultipathSent(
        raw["times"],
        raw["delivered"],
        raw["start"],
        raw["step"],
        raw["recovered"],
        tuple(PathSent(**path) for path in raw["paths"]),
        tuple(PathEvent(**event) for event in raw["events"]),
        _ended(raw),
    )


def _ended(raw: Any) -> Text | None:
    fault, subject, code = raw["ended"]
    if not fault:
        return None
    _kind, message, _next = FAULTS[fault]
    return message.fill(subject=subject, why=os.strerror(code) if code else "")
