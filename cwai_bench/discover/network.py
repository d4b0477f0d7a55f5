"""Network interfaces, and whether the host knows its own name."""

from __future__ import annotations

import os
import re
import socket
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from cwai_bench.discover import call
from cwai_bench.discover.memory import attribute
from cwai_bench.sources import HOSTS_VARIABLE, Interface, Names, Network, Resolved

INTERFACES = Path("/sys/class/net")
RDMA = Path("/sys/class/infiniband")
KINDS = {"1": "ethernet", "32": "infiniband", "772": "loopback"}  # linux/if_arp.h
IFF_UP = 1
INTERFACES_LIMIT = 256
COUNTERS = (
    "rx_packets",
    "tx_packets",
    "rx_errors",
    "tx_errors",
    "rx_dropped",
    "tx_dropped",
    "rx_crc_errors",
    "rx_missed_errors",
    "rx_over_errors",
)


def _whole(text: str) -> int | None:
    return int(text) if re.fullmatch(r"-?\d+", text) else None


def _interface(name: str) -> Interface:
    here = INTERFACES / name
    device = here / "device"
    physical = device.exists()
    speed = _whole(attribute(here / "speed"))  # in Mb/s; -1 when there is no link
    changes = _whole(attribute(here / "carrier_changes"))
    carrier = attribute(here / "carrier")
    kind = attribute(here / "type")
    vendor, model = attribute(device / "vendor"), attribute(device / "device")
    driver, master = device / "driver", here / "master"
    return Interface(
        name=name,
        physical=physical,
        kind=KINDS.get(kind, kind),
        operstate=attribute(here / "operstate"),
        admin_up=bool(int(attribute(here / "flags") or "0", 16) & IFF_UP),
        carrier=None if not carrier else carrier == "1",
        mtu=_whole(attribute(here / "mtu")) or 0,
        driver=driver.resolve().name if driver.exists() else "",
        model=f"{vendor.removeprefix('0x')}:{model.removeprefix('0x')}" if vendor and model else "",
        virtual_function=(device / "physfn").exists(),
        speed=speed * 1_000_000 if speed is not None and 0 < speed < 0xFFFFFFFF else None,
        duplex=attribute(here / "duplex") or None,
        carrier_changes=changes,
        master=master.resolve().name if master.exists() else "",
        counters={c: n for c in COUNTERS if (n := _whole(attribute(here / "statistics" / c))) is not None},
    )


@call("network")
def network() -> Network:
    """Physical interfaces first: a node full of containers has hundreds of others."""
    # Where a network namespace was entered without a fresh /sys, that one shows the interfaces of another.
    own = {name for _, name in socket.if_nameindex()}
    names = sorted(n for n in os.listdir(INTERFACES) if n in own)  # noqa: PTH208
    names.sort(key=lambda n: not (INTERFACES / n / "device").exists())
    return Network(
        [_interface(n) for n in names[:INTERFACES_LIMIT]],
        sorted(os.listdir(RDMA)) if RDMA.is_dir() else [],  # noqa: PTH208
    )


def _is_local(address: str) -> bool:
    """True when a socket may be bound to it."""
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    with socket.socket(family, socket.SOCK_DGRAM) as probe:
        try:
            probe.bind((address, 0))
        except OSError:
            return False
    return True


@call("resolver")
def resolver() -> Resolved:
    name = socket.gethostname()
    try:
        answers = socket.getaddrinfo(name, None, proto=socket.IPPROTO_TCP)
    except socket.gaierror as e:
        return Resolved(name, [], e.strerror or str(e), [])
    addresses = sorted({str(address[0]) for *_, address in answers})
    return Resolved(name, addresses, "", [a for a in addresses if _is_local(a)])


NAMES_LIMIT = 1024
ASKING = 32
"""Names asked for at the same time: a server that does not answer takes seconds for each."""
HOST_NAME = re.compile(r"[A-Za-z0-9]([A-Za-z0-9._-]{0,251}[A-Za-z0-9])?")


def _group() -> list[str]:
    """The names of the nodes of this run: those that its front gave to its ranks, else those of the Slurm job."""
    told = os.environ.get(HOSTS_VARIABLE) or os.environ.get("SLURM_JOB_NODELIST")
    if not told:
        return []
    from ClusterShell.NodeSet import NodeSet, NodeSetException

    try:
        return list(NodeSet(told))
    except NodeSetException as e:
        raise ValueError(f"{told[:80]!r} is no node set: {e}") from None


def _addresses(name: str) -> list[str]:
    try:
        answers = socket.getaddrinfo(name, None, proto=socket.IPPROTO_TCP)
    except (socket.gaierror, UnicodeError):
        return []
    return sorted({str(address[0]) for *_, address in answers})


@call("names")
def names() -> Names:
    """What the resolver of this node answers for every name of the group."""
    group = sorted({name for name in _group() if HOST_NAME.fullmatch(name)})
    asked = group[:NAMES_LIMIT]
    with ThreadPoolExecutor(ASKING) as pool:
        return Names(dict(zip(asked, pool.map(_addresses, asked), strict=True)), len(group) > NAMES_LIMIT)
