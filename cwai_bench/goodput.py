"""What two ports should reach between them: the payload that is left of the line rate, and what PCIe lets through.

A message of M bytes goes in ceil(M / MTU) packets, each with its headers, and once with what its verb adds::

    goodput = rate · M / (M + ceil(M / MTU) · headers + verb)

Sizes in bytes: IEEE 802.3 (preamble and start 8, header 14, checksum 4, gap of 96 bit times); RFC 791, 768, 8200 (IPv4
20, UDP 8, IPv6 40); IBTA vol. 1, release 1.4, chapters 7 to 9 (LRH 8, GRH 40, BTH 12, RETH 16, AETH 4, invariant CRC 4,
variant CRC 2) and its annexes A16, A17 (RoCE v1, v2); RFC 9293 and RFC 7323 (TCP 20, its time stamps 12).

A term that is not known is taken as that which demands least (IPv6; the smallest PCIe payload), so that nobody is
accused by it. A line rate that is not known is never guessed: then nothing is expected.
"""

from __future__ import annotations

import ipaddress
import math
import re
from collections.abc import Mapping
from functools import lru_cache
from typing import Literal, NamedTuple

from cwai_bench.model import Scalar
from cwai_bench.text import Text, joined

FAIL_BELOW, WARN_BELOW = 0.90, 0.95
"""Shares of what is expected. Public limits for healthy pairs lie at 0.95 to 0.975 of the line rate, the laxer ones at
0.90 (azurehpc-health-checks conf/: 380 and 390 of 400 Gb/s, 180 of 200; ngc_multinode_perf: 0.9)."""
RDMA = ("verbs", "npu")
"""Transports that the ports limit, not a CPU."""
SMALLEST_JUDGED = 64 << 10
"""Bytes: below it, messages a second are the limit, not bytes. The size of Azure's and perftest's own figures."""

FULL_MTU = 4096
"""The largest that InfiniBand and RoCE know (IBTA vol. 1, 14.2.5.6)."""
JUMBO = 9000
"""What Ethernet is usually set to where TCP is to be fast."""

ETHERNET = 8 + 14 + 4 + 12
IPV4, IPV6, UDP = 20, 40, 8
LRH, GRH, BTH, RETH, AETH, ICRC, VCRC = 8, 40, 12, 16, 4, 4, 2
TCP = 20 + 12

TLP = 24
"""Around the payload of a PCIe packet: header with a 64-bit address 16, sequence number and framing 4, checksum 4 (PCIe
Base Specification 6.0, 2.2.1, 4.2.2)."""
SMALLEST_PAYLOAD = 128
"""Bytes: the maximum payload size that every device must take, and starts with (PCIe Base Specification, 7.5.3.4)."""
PCIE_OVERHEAD = 1e9 / 8
"""Bytes per second for acknowledgements and credits: NVIDIA's rule, "Understanding PCIe Configuration for Maximum
Performance"."""

# What a driver says that does not know: the kernel's ib_get_eth_speed() makes 1X SDR of an unknown speed, and
# hns_roce_query_port() of older kernels said 4X SDR of every port.
UNKNOWN_SPEED, HNS_SPEED = 2.5e9 / 8, 10e9 / 8
SOFT = re.compile(r"rxe|siw")
"""RDMA done in software, by the names that its own documentation uses: what it reaches is up to the CPU."""


class Expected(NamedTuple):
    """``value`` and ``at_full_mtu`` (were the MTU the largest there is) in bytes per second of payload, each way."""

    value: float
    limit: Literal["wire", "pcie"]
    terms: Text
    at_full_mtu: float
    mtu: int


class Thresholds(NamedTuple):
    """Shares of what is expected."""

    fail_below: float = FAIL_BELOW
    warn_below: float = WARN_BELOW


DEFAULTS = Thresholds()


class Wire(NamedTuple):
    """What a message costs beside its bytes: each packet, and the message as a whole (``reply``: with what goes the
    other way for it while both ends send)."""

    packet: int
    message: int


def expected_of(parameters: Mapping[str, Scalar]) -> Expected | None:
    """What a measurement with these parameters should reach; None when the line rate or the headers are not known."""
    return _expected(*(parameters.get(key, "") for key in _TERMS))


_TERMS = (
    *("transport", "verb", "bytes", "direction", "mtu", "link_layer", "roce", "gid", "link_speed", "client_address"),
    *(f"{end}_{what}" for end in ("client", "server") for what in ("nic", "pcie_speed", "pcie_width", "mps")),
)


@lru_cache(maxsize=4096, typed=True)  # the pairs of a cluster have few sorts of ports among them
def _expected(*values: Scalar) -> Expected | None:
    parameters = dict(zip(_TERMS, values, strict=True))
    rate, mtu = _number(parameters, "link_speed"), int(_number(parameters, "mtu"))
    if parameters.get("transport") == "tcp":
        return _tcp(rate, mtu, parameters)
    size = int(_number(parameters, "bytes"))
    wire = _wire(parameters, size, mtu)
    if wire is None or mtu <= 0 or size <= 0 or not _is_line_rate(rate, parameters):
        return None
    on_wire, full = _left(rate, size, mtu, wire), _left(rate, size, max(mtu, FULL_MTU), wire)
    parts = [
        Text(
            "{r} × {m} / ({m} + {n} × {h} + {e}) B at MTU {u} = {v}",
            "{r} × {m} / ({m} + {n} × {h} + {e}) B（MTU {u}）= {v}",
        ).fill(
            r=_shown(rate),
            m=size,
            n=_packets(size, mtu),
            h=wire.packet,
            e=wire.message,
            u=mtu,
            v=_shown(on_wire),
        )
    ]
    slots = [found for end in ("client", "server") if (found := _pcie(parameters, end)) is not None]
    slot = min((value for value, _ in slots), default=math.inf)
    parts += [said for value, said in slots if value == slot][:1]
    terms = joined(parts)
    return Expected(min(on_wire, slot), "pcie" if slot < on_wire else "wire", terms, min(full, slot), mtu)


def due(parameters: Mapping[str, Scalar], unit: str) -> Expected | None:
    """What a figure with these parameters is held against; None where nothing is expected of it."""
    size = parameters.get("bytes")
    if parameters.get("transport") not in RDMA or unit != "B/s":
        return None
    return expected_of(parameters) if isinstance(size, int) and size >= SMALLEST_JUDGED else None


def cause_of(expected: Expected, measured: float, thresholds: Thresholds = DEFAULTS) -> Text | None:
    """Why ``measured`` (bytes per second) is below what the ports could do, where the MTU alone explains it.

    None when it is not below, or when it would be slow for that MTU, too.
    """
    share = thresholds.warn_below
    if measured >= share * expected.at_full_mtu or measured < share * expected.value:
        return None
    return Text(
        "the MTU of {u} is the cause: it allows {v}; {f} with {g}. Set the MTU of NICs and switches",
        "原因是 MTU 仅为 {u}：最高 {v}；设为 {g} 可达 {f}。请调整网卡与交换机的 MTU",
    ).fill(u=expected.mtu, v=_shown(expected.value), f=_shown(expected.at_full_mtu), g=FULL_MTU)


def _tcp(rate: float, mtu: int, parameters: Mapping[str, Scalar]) -> Expected | None:
    """A stream has no messages: full segments. What is said of it is not judged: a CPU limits it well below this."""
    address = _address(parameters.get("client_address"))
    if rate <= 0 or address is None:
        return None
    header = (IPV4 if address.version == 4 else IPV6) + TCP
    if mtu <= header:
        return None

    def left(mtu: int) -> float:
        return rate * (mtu - header) / (mtu + ETHERNET)

    terms = Text("{r} × {p} / ({p} + {h}) B at MTU {u}", "{r} × {p} / ({p} + {h}) B（MTU {u}）").fill(
        r=_shown(rate), p=mtu - header, h=header + ETHERNET, u=mtu
    )
    return Expected(left(mtu), "wire", terms, left(max(mtu, JUMBO)), mtu)


def _wire(parameters: Mapping[str, Scalar], size: int, mtu: int) -> Wire | None:
    """None when the link layer or the version of RoCE is not known."""
    layer, roce = parameters.get("link_layer"), parameters.get("roce")
    if layer == "InfiniBand":
        packet = LRH + BTH + ICRC + VCRC
    elif layer == "Ethernet" and roce == "v1":
        packet = ETHERNET + GRH + BTH + ICRC
    elif layer == "Ethernet" and roce == "v2":
        gid = _address(parameters.get("gid"))
        v4 = isinstance(gid, ipaddress.IPv6Address) and gid.ipv4_mapped is not None
        packet = ETHERNET + (IPV4 if v4 else IPV6) + UDP + BTH + ICRC
    else:
        return None
    verb = parameters.get("verb")
    # RETH in the first packet of a write; AETH in the first and the last of what a read brings (IBTA vol. 1, 9.4).
    message = {"write": RETH, "send": 0, "read": AETH if size <= mtu else 2 * AETH}.get(str(verb))
    if message is None:
        return None
    if parameters.get("direction") == "two-way":
        # The other direction's acknowledgement, or its request to read, comes along: one for each message.
        message += packet + (RETH if verb == "read" else AETH)
    return Wire(packet, message)


def _is_line_rate(rate: float, parameters: Mapping[str, Scalar]) -> bool:
    """False for a rate that is not known, or is what a driver says that does not know it."""
    if rate <= 0:
        return False
    if parameters.get("link_layer") == "InfiniBand":
        # From EDR on the rate that is named is that of the data; SDR to FDR name that of the line code.
        return round(rate * 8 / 1e6) % 25_000 == 0
    nics = [str(parameters.get(f"{end}_nic", "")) for end in ("client", "server")]
    if rate == UNKNOWN_SPEED or any(SOFT.match(nic) for nic in nics):
        return False
    return not (rate == HNS_SPEED and any(nic.startswith("hns") for nic in nics))


def _packets(size: int, mtu: int) -> int:
    return -(-size // mtu)


def _left(rate: float, size: int, mtu: int, wire: Wire) -> float:
    return rate * size / (size + _packets(size, mtu) * wire.packet + wire.message)


def _pcie(parameters: Mapping[str, Scalar], end: str) -> tuple[float, Text] | None:
    """What the slot of one end lets through in each direction; None when it is not known."""
    found = re.match(r"(\d{1,3}(?:\.\d)?) GT/s", str(parameters.get(f"{end}_pcie_speed", "")))
    lanes = int(_number(parameters, f"{end}_pcie_width"))
    if found is None or lanes <= 0:
        return None
    transfers = float(found[1])
    payload = int(_number(parameters, f"{end}_mps")) or SMALLEST_PAYLOAD
    # 8b/10b up to 5 GT/s, 128b/130b up to 32, then flits of 256 bytes that carry 236 of packets (PCIe 6.0, 4.2).
    coded, code = (236 / 256, "236/256")
    if transfers <= 32:
        coded, code = (0.8, "8/10") if transfers <= 5 else (128 / 130, "128/130")
    value = max(0.0, (transfers * 1e9 / 8 * lanes * coded - PCIE_OVERHEAD) * payload / (payload + TLP))
    said = f"PCIe ({transfers:g} GT/s × {lanes} × {code} − 1 Gb/s) × {payload} / {payload + TLP} B = {_shown(value)}"
    return value, Text(said, said)


def _number(parameters: Mapping[str, Scalar], key: str) -> float:
    """0 when it is not known."""
    value = parameters.get(key, 0)
    return float(value) if isinstance(value, int | float) and not isinstance(value, bool) and value > 0 else 0.0


def _address(value: Scalar | None) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    try:
        return ipaddress.ip_address(value) if isinstance(value, str) else None
    except ValueError:
        return None


def _shown(bytes_per_second: float) -> str:
    return f"{bytes_per_second * 8 / 1e9:.4g} Gb/s"
