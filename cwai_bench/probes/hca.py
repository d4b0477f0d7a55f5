"""Which RDMA ports a node can use: their names, speeds, CPUs, and whether others use them now."""

from __future__ import annotations

import contextlib
import os
import re
import threading
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

from cwai_bench import native
from cwai_bench.probes import Rails
from cwai_bench.probes.nic import BUSY_WINDOW, Reading, moving, speed_of
from cwai_bench.render.nodeset import natural
from cwai_bench.text import Text

SYS = Path("/sys/class")
DEV = Path("/dev/infiniband")
PCI = Path("/sys/bus/pci/devices")
GIDS = 16
"""First entries of a port's GID table that are asked for its interfaces: it may have a thousand, mostly empty."""
WORD = 4
"""Bytes that ``port_xmit_data`` and ``port_rcv_data`` count by (InfiniBand specification, PortCounters)."""


NO_PORT = Text("it has no active RDMA port", "没有处于活动状态的 RDMA 端口")


@dataclass(frozen=True)
class Port:
    """An active port. ``name`` is the device's, with the number of the port where it has several (``mlx5_0:2``).

    ``speed`` is in bytes per second, 0 when unknown; ``netdevs`` are the interfaces on it; ``cpus`` are those of its
    NUMA node, empty when unknown; ``pcie_speed`` (``32.0 GT/s PCIe``) and ``pcie_width`` are of its link to the CPU,
    empty and 0 when it has none. ``gpu`` is the PCI address of the nearest NVIDIA GPU, empty when there is none.
    ``trouble``: why this process cannot use it.
    """

    name: str
    device: str
    port: int
    speed: float = 0.0
    netdevs: tuple[str, ...] = ()
    cpus: tuple[int, ...] = ()
    pcie_speed: str = ""
    pcie_width: int = 0
    gpu: str = ""
    trouble: Text | None = field(default=None, compare=False)


def _text(path: Path) -> str:
    """What a file says, empty when it is missing or gives an error."""
    try:
        return path.read_text().strip()
    except (OSError, UnicodeDecodeError):
        return ""


def _names(path: Path) -> list[str]:
    try:
        return sorted(entry.name for entry in path.iterdir())
    except OSError:
        return []


def cpus_of(text: str) -> tuple[int, ...]:
    """``0-3,8`` as numbers; empty when it is no list of CPUs (Documentation/admin-guide/cputopology.rst)."""
    found: list[int] = []
    for part in filter(None, text.split(",")):
        low, _, high = part.partition("-")
        if not low.isdigit() or not (high or low).isdigit():
            return ()
        found += range(int(low), int(high or low) + 1)
    return tuple(found)


def _speed(here: Path, netdevs: Iterable[str], root: Path) -> float:
    """The larger of what the RDMA driver and the network driver say: older hns kernels tell every port as 10 Gb/s
    (hns_roce_query_port), and a bond's interface may not know its speed."""
    rate = re.match(r"(\d+(?:\.\d+)?) Gb/sec", _text(here / "rate"))
    return max(float(rate[1]) * 1e9 / 8 if rate else 0.0, *(speed_of(n, root / "net") for n in netdevs), 0.0)


def _trouble(device: str, root: Path, dev: Path) -> Text | None:
    verbs = root / "infiniband_verbs"
    files = [name for name in _names(verbs) if _text(verbs / name / "ibdev") == device]
    if not files or not (dev / files[0]).exists():
        return Text("{d} has no file in /dev/infiniband", "{d} 在 /dev/infiniband 中没有设备文件").fill(d=device)
    if not os.access(dev / files[0], os.R_OK | os.W_OK):
        return Text("this user may not open {f} of {d}", "当前用户无权打开 {d} 的 {f}").fill(f=dev / files[0], d=device)
    return None


def nvidia_gpus(pci: Path = PCI) -> list[Path]:
    """Where NVIDIA's GPUs hang on PCI, in the order of their addresses: by vendor and class of display controllers
    (PCI Code and ID Assignment Specification, base class 03h)."""
    return [
        (pci / name).resolve()
        for name in _names(pci)
        if _text(pci / name / "vendor") == "0x10de" and _text(pci / name / "class").startswith("0x03")
    ]


def nearest_gpu(device: Path, gpus: Sequence[Path]) -> str:
    """PCI address of the one with which a device shares most of its way to the CPU, the first of several; empty when
    there is none."""
    here = device.resolve().parts

    def shared(gpu: Path) -> int:
        return len(os.path.commonprefix([list(here), list(gpu.parts)]))

    return max(gpus, key=shared).name if gpus else ""


def ports(root: Path = SYS, dev: Path = DEV, pci: Path = PCI) -> list[Port]:
    """The active ports of this node. Virtual functions of a card that is here are left to whom they were given."""
    found = []
    gpus = nvidia_gpus(pci)
    for device in _names(root / "infiniband"):
        here = root / "infiniband" / device
        behind = here / "device"
        if (behind / "physfn").exists():
            continue
        numbers = [n for n in _names(here / "ports") if n.isdecimal()]
        for number in numbers:
            port = here / "ports" / number
            if "ACTIVE" not in _text(port / "state").split():
                continue
            ndevs = port / "gid_attrs" / "ndevs"
            netdevs = tuple(dict.fromkeys(filter(None, (_text(ndevs / str(n)) for n in range(GIDS)))))
            width = _text(behind / "current_link_width")
            found.append(
                Port(
                    name=device if len(numbers) == 1 else f"{device}:{number}",
                    device=device,
                    port=int(number),
                    speed=_speed(port, netdevs, root),
                    netdevs=netdevs or tuple(_names(behind / "net")),
                    cpus=cpus_of(_text(behind / "local_cpulist")),
                    pcie_speed=_text(behind / "current_link_speed"),
                    pcie_width=int(width) if width.isdecimal() else 0,
                    gpu=nearest_gpu(behind, gpus),
                    trouble=_trouble(device, root, dev),
                )
            )
    return found


def look() -> Rails:
    """The RDMA NICs that this node can use; when there is none, why."""
    found = ports()
    if not found:
        return Rails(why_none=NO_PORT)
    usable = [port for port in found if port.trouble is None]
    if not usable:
        return Rails(why_none=found[0].trouble)
    library = next(b for b in native.backends() if b.name == "verbs")
    if not library.loadable:
        return Rails(why_none=library.detail)
    return Rails(tuple(sorted((port.name for port in usable), key=natural)))


def seats(wanted: Iterable[tuple[int, ...]], allowed: Iterable[int]) -> list[int]:
    """A CPU for the thread of each NIC, of those near it (``wanted``), each its own; -1 where there is none left."""
    free = set(allowed)
    found = []
    for near in wanted:
        cpu = next((c for c in near if c in free), -1)
        free.discard(cpu)
        found.append(cpu)
    return found


def allowed_cpus() -> set[int]:
    """CPUs that a thread of this process may ask for. A launcher binds a rank to a few of them, and its threads may
    leave those; those that a container has they may not."""
    found: set[int] = set()

    def widen() -> None:  # on a thread of its own, which ends with what it was given
        with contextlib.suppress(OSError):
            os.sched_setaffinity(0, range(os.cpu_count() or 1))
        found.update(os.sched_getaffinity(0))

    asking = threading.Thread(target=widen)
    asking.start()
    asking.join()
    return found


def _traffic(device: str, port: str, root: Path) -> tuple[int, int]:
    """Bytes received and sent over RDMA; zeros where the driver does not count."""
    counters = root / "infiniband" / device / "ports" / port / "counters"
    received, sent = _text(counters / "port_rcv_data"), _text(counters / "port_xmit_data")
    return (int(received) * WORD if received.isdecimal() else 0, int(sent) * WORD if sent.isdecimal() else 0)


def busy(wanted: Iterable[Port], *, window: float = BUSY_WINDOW, root: Path = SYS) -> dict[str, float]:
    """Those of ``wanted`` that carry other traffic now, by name, with its rate in bytes per second: what goes over RDMA
    (which a network interface's own counters do not have) and over the interfaces on them."""
    readings: list[Reading] = []
    for port in wanted:
        readings.append(Reading(port.name, port.speed, partial(_traffic, port.device, str(port.port), root)))
        readings += [Reading.of_interface(port.name, netdev, root / "net") for netdev in port.netdevs]
    return moving(readings, window=window)
