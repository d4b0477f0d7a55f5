"""Which address of a node a probe uses, and whether its NIC is busy with the traffic of others."""

from __future__ import annotations

import difflib
import ipaddress
import time
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from cwai_bench.errors import DeviceError, UsageError
from cwai_bench.text import Text

CLASS_NET = Path("/sys/class/net")
BUSY_SHARE = 0.05
"""A NIC that carries more than this share of its speed is somebody else's at the moment."""
BUSY_RATE = 10e6
"""Bytes per second above which a NIC of unknown speed is taken for busy."""
BUSY_WINDOW = 0.2
"""Seconds over which traffic is counted."""


@dataclass(frozen=True)
class Place:
    """Where a node can be reached: a NIC, its address and prefix, and its speed in bytes per second (0: unknown)."""

    nic: str
    address: str
    prefix: int
    speed: float

    def to_json(self) -> dict[str, Any]:
        return asdict(self)


def speed_of(nic: str, root: Path = CLASS_NET) -> float:
    """Bytes per second, or 0 when the driver does not tell (the file is missing, unreadable, or says -1)."""
    try:
        megabits = int((root / nic / "speed").read_text())
    except (OSError, ValueError):
        return 0.0
    return megabits * 1e6 / 8 if megabits > 0 else 0.0


def places(interface: str | None) -> list[Place]:
    """The places of this node, IPv4 first; only those of ``interface`` (a NIC's name or an address) when given.

    Raises DeviceError when ``interface`` is not here.
    """
    from cwai_bench import native

    every = native.interfaces()
    if interface is not None:
        chosen = [a for a in every if interface in (a.name, a.address)]
        if not chosen:
            raise DeviceError(
                Text("no network interface or address {i!r}", "没有网络接口或地址 {i!r}").fill(i=interface),
                Text("here are: {names}", "此处有：{names}").fill(
                    names=", ".join(dict.fromkeys(a.name for a in every))
                ),
            )
    else:
        chosen = [a for a in every if not a.loopback]
    usable = [a for a in chosen if a.up and not ipaddress.ip_address(a.address.partition("%")[0]).is_link_local]
    usable.sort(key=lambda a: a.v6)
    return [Place(a.name, a.address, a.prefix, 0.0 if a.loopback else speed_of(a.name)) for a in usable]


def refuse_unknown(interface: str) -> None:
    """Raise UsageError, with the nearest name, when this node has no such NIC or address."""
    from cwai_bench import native

    every = native.interfaces()
    names = list(dict.fromkeys(a.name for a in every))
    if interface in names or any(a.address == interface for a in every):
        return
    near = difflib.get_close_matches(interface, [*names, *(a.address for a in every)], 1, 0.6)
    here = Text("here are: {n}", "此处有：{n}").fill(n=", ".join(names))
    raise UsageError(
        Text("--interface {i!r}: there is no such NIC or address here", "--interface {i!r}：此处没有该网卡或地址").fill(
            i=interface
        ),
        Text("did you mean {m!r}? {h}", "是否想用 {m!r}？{h}").fill(m=near[0], h=here) if near else here,
    )


def without_shared(everywhere: Sequence[Sequence[Place]]) -> list[list[Place]]:
    """Drop addresses that several nodes have: a bridge of containers (172.17.0.1) tells none of them apart."""
    count = Counter(address for places in everywhere for address in {p.address for p in places})
    return [[p for p in places if count[p.address] == 1] for places in everywhere]


def _family(place: Place) -> int:
    return ipaddress.ip_address(place.address).version


def _network(place: Place) -> object:
    return ipaddress.ip_interface(f"{place.address}/{place.prefix}").network


def neighbours(client: Sequence[Place], server: Sequence[Place]) -> tuple[Place, Place] | None:
    """The place on each side in the fastest network that both are in; None when there is none."""
    near = [(c, s) for c in client for s in server if _family(c) == _family(s) and _network(c) == _network(s)]
    return max(near, key=lambda pair: min(p.speed for p in pair)) if near else None


def meeting(client: Sequence[Place], server: Sequence[Place]) -> tuple[Place, Place] | None:
    """The place on each side by which two nodes meet: one network that both are in, the fastest; else the first of
    each of one family, for a router to join. None when there is no such."""
    near = neighbours(client, server)
    return near or next(((c, s) for c in client for s in server if _family(c) == _family(s)), None)


@dataclass(frozen=True)
class Reading:
    """Counters of ``nic``: bytes received and sent so far, and its speed (B/s, 0: unknown)."""

    nic: str
    speed: float
    read: Callable[[], tuple[int, int]]

    @classmethod
    def of_interface(cls, nic: str, interface: str, root: Path) -> Reading:
        return cls(nic, speed_of(interface, root), lambda: _bytes(interface, root))


def _bytes(nic: str, root: Path) -> tuple[int, int]:
    statistics = root / nic / "statistics"
    try:
        return int((statistics / "rx_bytes").read_text()), int((statistics / "tx_bytes").read_text())
    except (OSError, ValueError):
        return 0, 0


def busy(nics: Iterable[str], *, window: float = BUSY_WINDOW, root: Path = CLASS_NET) -> dict[str, float]:
    """Those of ``nics`` that carry other traffic now, with its rate in bytes per second (the busier direction)."""
    return moving([Reading.of_interface(nic, nic, root) for nic in sorted(set(nics))], window=window)


def moving(readings: Sequence[Reading], *, window: float) -> dict[str, float]:
    """NICs that have a reading which grows by more than their share, with the rate at which it does."""
    if not readings:
        return {}
    before = [reading.read() for reading in readings]
    start = time.monotonic()
    time.sleep(window)
    elapsed = time.monotonic() - start
    found: dict[str, float] = {}
    for reading, then in zip(readings, before, strict=True):
        rate = max(b - a for a, b in zip(then, reading.read(), strict=True)) / elapsed
        if rate > (BUSY_SHARE * reading.speed if reading.speed else BUSY_RATE):
            found[reading.nic] = max(rate, found.get(reading.nic, 0.0))
    return found
