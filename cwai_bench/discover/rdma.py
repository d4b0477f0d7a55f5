"""RDMA devices as the kernel shows them, and how their counters move while one looks."""

from __future__ import annotations

import os
import re
import time
from pathlib import Path

import msgspec

from cwai_bench.discover import call
from cwai_bench.discover.memory import attribute
from cwai_bench.sources import Gid, Rdma, RdmaDevice, RdmaPort

DEVICES = Path("/sys/class/infiniband")
VERBS = Path("/sys/class/infiniband_verbs")
USER = Path("/dev/infiniband")
LOOK = 1.0
"""Seconds between both readings of the counters; the kernel keeps them for 10 ms (``hw_counters/lifespan``)."""
DEVICES_LIMIT, PORTS_LIMIT, COUNTERS_LIMIT = 64, 4, 128
GIDS_LIMIT, PKEYS_LIMIT = 256, 128
COUNTERS = ("counters", "hw_counters")
NO_COUNTERS = ("lifespan",)
EMPTY_GID = re.compile(r"(fe80:)?[0:]*")
"""InfiniBand fills its table with the prefix of the subnet alone."""


def _names(path: Path) -> list[str]:
    """What a directory holds, numbers in their order; empty when it is not there."""
    names = os.listdir(path) if path.is_dir() else []  # noqa: PTH208
    return sorted(names, key=lambda n: (int(n), n) if n.isdecimal() else (-1, n))


def _number(text: str) -> int | None:
    return int(text, 0) if re.fullmatch(r"-?\d+|0[xX][0-9a-fA-F]+", text) and not re.fullmatch(r"0\d+", text) else None


def counters(port: Path) -> dict[str, int]:
    """Those of a port's folder, by name. One that says ``N/A`` or gives an error is absent, which is not zero."""
    found: dict[str, int] = {}
    for folder in COUNTERS:
        for name in [n for n in _names(port / folder) if n not in NO_COUNTERS][:COUNTERS_LIMIT]:
            value = _number(attribute(port / folder / name))
            if value is not None:
                found[name] = value
    return found


def _gids(port: Path) -> list[Gid]:
    found = []
    for name in [n for n in _names(port / "gids") if n.isdecimal()][:GIDS_LIMIT]:
        gid = attribute(port / "gids" / name)
        if not EMPTY_GID.fullmatch(gid):
            more = port / "gid_attrs"
            found.append(Gid(int(name), gid, attribute(more / "types" / name), attribute(more / "ndevs" / name)))
    return found


def _pkeys(port: Path) -> dict[int, int]:
    names = [n for n in _names(port / "pkeys") if n.isdecimal()][:PKEYS_LIMIT]
    found = {int(n): _number(attribute(port / "pkeys" / n)) for n in names}
    return {index: key for index, key in found.items() if key}


def _port(device: Path, name: str) -> RdmaPort:
    here = device / "ports" / name
    return RdmaPort(
        port=int(name),
        link_layer=attribute(here / "link_layer"),
        state=attribute(here / "state").partition(":")[2].strip(),
        phys_state=attribute(here / "phys_state").partition(":")[2].strip(),
        rate=attribute(here / "rate"),
        lid=_number(attribute(here / "lid")) or 0,
        sm_lid=_number(attribute(here / "sm_lid")) or 0,
        pkeys=_pkeys(here),
        gids=_gids(here),
        traffic_class=attribute(device / "tc" / name / "traffic_class"),
        before=counters(here),
    )


def _may_open(path: Path) -> str:
    if not path.exists():
        return "missing"
    return "ok" if os.access(path, os.R_OK | os.W_OK) else "denied"


def _device(name: str, verbs: dict[str, str]) -> RdmaDevice:
    here = DEVICES / name
    behind = here / "device"
    address = behind.resolve().name if behind.exists() else ""
    return RdmaDevice(
        name=name,
        ports=[_port(here, n) for n in [n for n in _names(here / "ports") if n.isdecimal()][:PORTS_LIMIT]],
        firmware=attribute(here / "fw_ver"),
        board=attribute(here / "board_id"),
        hca_type=attribute(here / "hca_type"),
        address=address if re.fullmatch(r"[0-9a-f]{4,8}:[0-9a-f]{2}:[0-9a-f]{2}\.[0-7]", address) else "",
        numa_node=-1 if (numa := _number(attribute(behind / "numa_node"))) is None else numa,
        netdevs=_names(behind / "net"),
        virtual_function=(behind / "physfn").exists(),
        verbs=_may_open(USER / verbs[name]) if name in verbs else "missing",
    )


@call("rdma")
def rdma() -> Rdma:
    """Physical functions first: a host may have hundreds of virtual ones."""
    names = _names(DEVICES)
    names.sort(key=lambda n: (DEVICES / n / "device" / "physfn").exists())
    verbs = {attribute(VERBS / n / "ibdev"): n for n in _names(VERBS) if n.startswith("uverbs")}
    devices = [_device(name, verbs) for name in names[:DEVICES_LIMIT]]
    started = time.monotonic()
    if devices:
        time.sleep(LOOK)
    later = [
        msgspec.structs.replace(
            device,
            ports=[
                msgspec.structs.replace(p, after=counters(DEVICES / device.name / "ports" / str(p.port)))
                for p in device.ports
            ],
        )
        for device in devices
    ]
    return Rdma(devices=later, looked=time.monotonic() - started, connection_manager=_may_open(USER / "rdma_cm"))
