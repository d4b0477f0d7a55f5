"""Whether the packets that the rails are set up for get through: one ping, of the full MTU, on each RoCE rail.

It sends a handful of packets to a neighbour and changes nothing. What ping (iputils) is here decides what can be asked.
"""

from __future__ import annotations

import os
import re
import socket
import subprocess
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from cwai_bench.discover import call
from cwai_bench.discover.memory import attribute
from cwai_bench.sources import RailPath, RailPaths

DEVICES = Path("/sys/class/infiniband")
INTERFACES = Path("/sys/class/net")
NEIGHBOURS, ROUTES = Path("/proc/net/arp"), Path("/proc/net/route")
RAILS_LIMIT = 32
TARGETS_LIMIT = 3
SMALL = 56
"""Bytes of payload, as ping sends unless told otherwise."""
HEADERS = 28
"""Bytes of an IPv4 header without options and of an ICMP header."""
PING_LIMIT = 4.0
COMPLETE, UP, GATEWAY = 0x2, 0x1, 0x2  # ATF_COM of linux/if_arp.h; RTF_UP, RTF_GATEWAY of linux/route.h


def _rails() -> Iterator[str]:
    """Interfaces of the RDMA devices whose ports are Ethernet and up."""
    for device in sorted(os.listdir(DEVICES)) if DEVICES.is_dir() else []:  # noqa: PTH208
        here = DEVICES / device
        port = here / "ports" / "1"
        if attribute(port / "link_layer") != "Ethernet" or "ACTIVE" not in attribute(port / "state"):
            continue
        folder = here / "device" / "net"
        yield from sorted(os.listdir(folder)) if folder.is_dir() else []  # noqa: PTH208


def _neighbours(interface: str) -> list[str]:
    """Those that have answered for their address, by /proc/net/arp: address, type, flags, MAC, mask, device."""
    rows = [line.split() for line in NEIGHBOURS.read_text().splitlines()[1:]]
    known = [r for r in rows if len(r) == 6 and r[5] == interface and re.fullmatch(r"0x[0-9a-f]{1,8}", r[2])]
    return sorted((r[0] for r in known if int(r[2], 16) & COMPLETE), key=socket.inet_aton)


def _gateway(interface: str) -> str:
    """Of the first route through one, by /proc/net/route: device, destination, gateway (host order), flags."""
    for line in ROUTES.read_text().splitlines()[1:]:
        fields = line.split()
        if len(fields) > 3 and fields[0] == interface and int(fields[3], 16) & GATEWAY and int(fields[3], 16) & UP:
            return socket.inet_ntoa(int(fields[2], 16).to_bytes(4, "little"))
    return ""


def _answers(interface: str, target: str, payload: int) -> tuple[bool, str]:
    """Whether ``target`` answers a packet that may not be split; why ping could not ask, or nothing."""
    words = ["ping", "-n", "-q", "-c", "2", "-i", "0.3", "-W", "1", "-M", "do", "-I", interface, "-s", str(payload)]
    try:
        done = subprocess.run(
            [*words, target],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            errors="backslashreplace",
            timeout=PING_LIMIT,
            check=False,
            env={"PATH": f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin:/usr/bin:/bin", "LC_ALL": "C"},
        )
    except subprocess.TimeoutExpired:
        return False, ""
    except OSError as e:
        return False, f"ping: {e.strerror}"
    # ping(8): 0 at least one answer, 1 none, 2 another error. A packet too long for the interface ends with 1.
    if done.returncode in (0, 1):
        return done.returncode == 0, ""
    return False, (done.stderr.strip().splitlines() or [f"ping ended with {done.returncode}"])[-1][:200]


def _path(interface: str) -> RailPath:
    mtu = int(attribute(INTERFACES / interface / "mtu") or 0)
    gateway = _gateway(interface)
    # A switch answers large pings slowly, or not at all, and what it says of its own MTU is not that of the path.
    targets = [t for t in _neighbours(interface) if t != gateway][: TARGETS_LIMIT - 1] + ([gateway] if gateway else [])
    for target in targets:
        small, error = _answers(interface, target, SMALL)
        if error:
            return RailPath(interface, mtu, target, target == gateway, error=error)
        if small:
            full, error = _answers(interface, target, mtu - HEADERS)
            return RailPath(interface, mtu, target, target == gateway, True, full, error)
    return RailPath(interface, mtu, targets[0] if targets else "", bool(targets) and targets[0] == gateway)


@call("rail_paths")
def rail_paths() -> RailPaths:
    interfaces = list(dict.fromkeys(_rails()))[:RAILS_LIMIT]
    if not interfaces:
        return RailPaths([])
    with ThreadPoolExecutor(len(interfaces)) as pool:
        return RailPaths(list(pool.map(_path, interfaces)))
