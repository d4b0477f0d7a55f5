"""CPUs and memory as the kernel shows them."""

from __future__ import annotations

import errno
import os
import re
import struct
from pathlib import Path

from cwai_bench.discover import call
from cwai_bench.sources import Cpu, Cpus, Dimms, MemoryBlocks

CPUINFO = Path("/proc/cpuinfo")
CPUS = Path("/sys/devices/system/cpu")
NODES = Path("/sys/devices/system/node")
MEMORY = Path("/sys/devices/system/memory")
EDAC = Path("/sys/devices/system/edac/mc")
SMBIOS = Path("/sys/firmware/dmi/entries")


def attribute(path: Path) -> str:
    """The content of an attribute; empty when the kernel has none, or its driver no answer. Refusals are raised."""
    try:
        return path.read_text(errors="backslashreplace").strip()
    except OSError as e:
        if e.errno in _NO_ANSWER:
            return ""
        raise


_NO_ANSWER = (errno.ENOENT, errno.ENOTDIR, errno.ENODEV, errno.EINVAL, errno.EBUSY, errno.EIO, errno.EOPNOTSUPP)
"""An offline CPU, an interface without a link, an attribute of another kernel."""


def cpu_list(text: str) -> list[int]:
    """``0-3,8`` as numbers."""
    found: list[int] = []
    for part in text.split(","):
        first, _, last = part.strip().partition("-")
        if first:
            found.extend(range(int(first), int(last or first) + 1))
    return found


def _count(names: list[str]) -> dict[str, int]:
    return {name: names.count(name) for name in sorted(set(names))}


def _number(text: str) -> int:
    return int(text) if re.fullmatch(r"-?\d+", text) else -1


@call("cpus")
def cpus() -> Cpus:
    present = cpu_list(attribute(CPUS / "present"))
    online = cpu_list(attribute(CPUS / "online"))
    topology: list[Cpu] = []
    governors: list[str] = []
    drivers: list[str] = []
    throttled: dict[str, int] = {}
    for cpu in online:
        here = CPUS / f"cpu{cpu}"
        package = _number(attribute(here / "topology/physical_package_id"))
        die, core = _number(attribute(here / "topology/die_id")), _number(attribute(here / "topology/core_id"))
        topology.append(Cpu(cpu, package, die, core))
        governor = attribute(here / "cpufreq/scaling_governor")
        if governor:
            governors.append(governor)
            drivers.append(attribute(here / "cpufreq/scaling_driver"))
        time_throttled = attribute(here / "thermal_throttle/package_throttle_total_time_ms")
        if time_throttled:
            throttled[str(package)] = int(time_throttled)
    return Cpus(
        possible=len(cpu_list(attribute(CPUS / "possible"))),
        present=len(present),
        online=topology,
        offline=sorted(set(present) - set(online)),
        smt=attribute(CPUS / "smt/control"),
        hybrid=Path("/sys/devices/cpu_atom").exists(),
        governors=_count(governors),
        drivers=_count(drivers),
        throttled=throttled,
        model=_model(),
        numa_nodes=sum(1 for name in os.listdir(NODES) if re.fullmatch(r"node\d+", name)) if NODES.is_dir() else 1,  # noqa: PTH208
    )


def _model() -> str:
    """``model name`` on x86; on arm the implementer and part, which name the design."""
    with CPUINFO.open(encoding="utf-8", errors="backslashreplace") as lines:
        fields: dict[str, str] = {}
        for line in lines:
            name, _, value = line.partition(":")
            fields.setdefault(name.strip(), value.strip())
            if not line.strip() and fields:
                break
    if "model name" in fields:
        return " ".join(fields["model name"].split())
    if "CPU part" in fields:
        return f"implementer {fields.get('CPU implementer', '?')} part {fields['CPU part']}"
    return ""


@call("memory_blocks")
def memory_blocks() -> MemoryBlocks:
    size = int((MEMORY / "block_size_bytes").read_text(), 16)
    online, offline = 0, []
    for name in sorted(os.listdir(MEMORY)):  # noqa: PTH208
        if re.fullmatch(r"memory\d+", name):
            if attribute(MEMORY / name / "state") == "online":
                online += 1
            else:
                offline.append(name)
    return MemoryBlocks(size, online, offline[:256])


@call("dimms")
def dimms() -> Dimms:
    """From EDAC, which anyone may read; else from SMBIOS, for root. Raises OSError when neither is there."""
    sizes = [int(path.read_text()) << 20 for path in sorted(EDAC.glob("mc*/dimm*/size"))]
    if sizes:
        return Dimms("edac", sizes)
    tables = sorted(SMBIOS.glob("17-*/raw"))
    if not tables:
        raise FileNotFoundError(errno.ENOENT, "neither EDAC nor SMBIOS tells of memory modules")
    found = [_module_size(path.read_bytes()) for path in tables]
    return Dimms("smbios", [size for size in found if size])


def _module_size(table: bytes) -> int:
    """Bytes of a memory device (SMBIOS 3.7, type 17): a word at 0Ch, the extended size at 1Ch. 0: an empty slot."""
    if len(table) < 0x0E:
        return 0
    (size,) = struct.unpack_from("<H", table, 0x0C)
    if size in (0, 0xFFFF):
        return 0
    if size == 0x7FFF and len(table) >= 0x20:
        (extended,) = struct.unpack_from("<I", table, 0x1C)
        return int(extended & 0x7FFFFFFF) << 20
    return int(size & 0x7FFF) << (10 if size & 0x8000 else 20)
