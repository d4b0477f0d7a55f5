"""What the counters of a port count while a probe runs: read before and after, and what moved in between.

Other jobs on the node move them too, also from within other containers: the counters are the port's, not ours.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from cwai_bench import port_counters
from cwai_bench.discover import rdma
from cwai_bench.discover.command import run
from cwai_bench.discover.memory import attribute
from cwai_bench.probes.nic import CLASS_NET
from cwai_bench.readers import Unreadable, nic
from cwai_bench.sources import DEVICE_NAME, Command

LIFESPAN, LONGEST_LIFESPAN = 0.010, 1.0
"""Seconds for which the kernel answers from its last look (``hw_counters/lifespan``), unless it says, and at most."""
ETHTOOL_TIMEOUT = 5.0
"""Seconds; a NIC with many queues has thousands of counters, asked of its firmware."""
NET_LIMIT = 64

Moves = dict[str, dict[str, int | None]]
"""By port, then by counter: by how much it grew; None where it moved or may have, and nobody knows by how much."""


@dataclass(frozen=True)
class Port:
    """A port of an RDMA device, and the network interface behind it (empty: none, as of InfiniBand)."""

    device: str
    port: int = 1
    netdev: str = ""


def snapshot(device: str, port: int, netdev: str) -> dict[str, int]:
    """The counters of a port by name: of RDMA as they are called, ``net/…`` and ``ethtool/…`` of its interface.

    One that cannot be read, or says ``N/A``, is absent, which is not zero. Waits until the kernel looks afresh.
    """
    here = rdma.DEVICES / device / "ports" / str(port)
    found: dict[str, int] = {}
    if device and here.is_dir():
        time.sleep(_lifespan(here))
        with contextlib.suppress(OSError):  # a device that went away, or is not for us to look at
            found |= rdma.counters(here)
    if netdev and DEVICE_NAME.fullmatch(netdev):
        with contextlib.suppress(OSError):
            found |= {f"net/{name}": value for name, value in _net(CLASS_NET / netdev).items()}
        found |= {f"ethtool/{name}": value for name, value in _ethtool(CLASS_NET / netdev).items()}
    return found


def moved(before: Mapping[str, int], after: Mapping[str, int]) -> dict[str, int | None]:
    """Those counters that tell of more than traffic, and moved: by how much; None where that cannot be known, as of one
    that stands at its maximum, was reset, or was there at one end of the look alone."""
    found: dict[str, int | None] = {}
    for name in sorted(filter(port_counters.is_telling, before.keys() | after.keys())):
        if name not in before or name not in after:
            found[name] = None
        elif (grew := port_counters.moved(name, before[name], after[name])) != 0:
            found[name] = grew
    return found


@contextlib.contextmanager
def watched(ports: Mapping[str, Port]) -> Iterator[Moves]:
    """Watch ``ports`` (by the names that the report gives them) while the body runs; then what is yielded holds what
    moved of each. Also when the body raises: what the counters say of a failure is what one wants to know."""
    moves: Moves = {}
    before = {name: snapshot(port.device, port.port, port.netdev) for name, port in ports.items()}
    try:
        yield moves
    finally:
        for name, port in ports.items():
            moves[name] = moved(before[name], snapshot(port.device, port.port, port.netdev))


def _lifespan(port: Path) -> float:
    try:
        told = attribute(port / "hw_counters" / "lifespan")
    except OSError:
        told = ""
    return min(int(told) / 1000, LONGEST_LIFESPAN) if told.isdecimal() and len(told) < 10 else LIFESPAN


def _net(folder: Path) -> dict[str, int]:
    statistics = folder / "statistics"
    files = sorted(statistics.iterdir())[:NET_LIMIT] if statistics.is_dir() else []
    told = {file.name: attribute(file) for file in [*files, folder / "carrier_down_count"]}
    return {name: int(value) for name, value in told.items() if value.isdecimal()}


def _ethtool(folder: Path) -> dict[str, int]:
    """Of hardware alone: what software counts is in ``statistics``."""
    if not (folder / "device").exists():
        return {}
    reading = run(Command("ethtool", "-S", folder.name), ETHTOOL_TIMEOUT)
    if reading.status != "ok" or reading.exit_code != 0 or reading.truncated:
        return {}
    try:
        return nic.statistics(reading.text)
    except Unreadable:
        return {}
