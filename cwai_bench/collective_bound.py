"""What a collective should reach on these cards, links and NICs: bus bandwidth, and the terms that it comes from.

Bandwidths are those of nccl-tests (doc/PERFORMANCE.md): algorithm bandwidth = bytes / time, bus bandwidth = algorithm
bandwidth × ``bus_factor``. With n ranks on k nodes of c cards, W what the links of a card carry each way, and B what
the NICs of a node carry each way, both in bytes per second::

    ring          bus = min(W, B)                                       every link and NIC carries the whole ring
    tree          bus = 0.92 · min((n−1)/n · W, t · (n−1)/n · B)        t = 2 for two nodes, else 1
    NVLS          bus = e · 2 · (c−1)/(c+1) · W                         of all_reduce, on one node
    NVLS tree     bus = 2(n−1)/n · min(e · c/(c+1) · W, 0.92 · t/2 · B)
    at most       bus = 2(n−1)/n · min(max(c/(c+1), c/2(c−1)) · (W + B/c), B)    of all_reduce, with all of each rate

NVLS, derived: a switch that adds fetches S/n from every card for each of n parts, so a card sends S, and S/n once more
for all: (n+1)/n · S (NVIDIA/nccl-tests, pull request 239, says the same). The tests hold all this against the
published figures below, REFERENCES: what is computed lies within some per cent of each.

What a library needs for a size beside its bytes is its latency: steps × that of a step, by the constants of NCCL's own
model (src/graph/tuning.cc, ncclTunerConstantsDefaults, 2.30), so that every size has its own bound.

A term that is not known is taken as that which demands least: the ring where the algorithm is not known, since the
library takes another one only where it is faster; the slowest protocol; the slowest link between sockets. Where links
or NICs are not known, nothing is expected, nor of operations or libraries of which nobody published what well ones
reach.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal, NamedTuple

from cwai_bench.model import Scalar
from cwai_bench.text import Text, joined, plain

FAIL_BELOW, WARN_BELOW = 0.75, 0.87
"""Shares of what is expected: just below the laxest public gates, as shares of what is computed for their systems. OCI
0.77 (8 A100) and 0.90 (8 H100), Azure 0.88 (8 H200), 0.94 (8 H100), 0.95 (8 A100): see REFERENCES."""
SMALLEST_JUDGED = 1 << 30
"""Bytes: from here on the published tables of all sizes (stas00: 8 A100, 8 H200, 8 B200, 4 × 8 B200) keep above the
warning. Below, the library goes from one algorithm to the next, and falls short of its own model by up to a third."""
ABOVE = 1.05
"""A figure so far above the ceiling was measured wrongly: ranks that ran alone, fewer bytes than were counted."""

NETWORK_SHARE = 0.96
"""Of the line rate. NCCL reckons with 12 of the 12.5 GB/s of 100 Gb/s (src/graph/topo.h, NET_BW)."""
PCIE3_X16 = 12e9
"""What NCCL reckons with for 16 lanes of 8 GT/s (topo.h, PCI_BW)."""
SMALL_PACKETS = 5 / 6
"""Intel CPUs cut what cards send each other into packets of 64 bytes (topo.h, INTEL_P2P_OVERHEAD)."""
BETWEEN_SOCKETS = 6e9
"""The slowest link between CPU sockets that NCCL knows (topo.h, BDW_QPI_BW, ARM_BW, ZPI_BW)."""
SWITCHED = 8
"""NVIDIA's boards of so many cards since A100 have NVSwitches; smaller boards connect card with card."""
TREE_SHARE, PAT_SHARE = 0.92, 0.75
"""Of the links' bandwidth (src/graph/tuning.cc, ncclTopoTuneModel)."""
LL_SHARE, LL_TREE_SHARE, LL128_SHARE, LL_MOST = 0.5, 1 / 3.8, 7 / 9, 19e9
"""What protocols leave of a ring and of a tree, the least that tuning.cc reckons with; LL carries ``LL_MOST`` on any
CPU."""

Library = Literal["nccl", "hccl", "mpi"]
PREDICTED: tuple[Library, ...] = ("nccl",)
"""Libraries whose figures follow from links and NICs: published tables say so. Of HCCL none is published, and MPI on
hosts is limited by CPUs and memory."""


class _Generation(NamedTuple):
    """What one link carries each way: in effect, as NCCL reckons (topo.h, SMxx_NVLINK_BW), and by its data sheet; and
    the share of the former that a switch reaches that adds (tuning.cc, nvlsEfficiency), 0: it cannot."""

    cards: re.Pattern[str]
    link: float
    nominal: float
    nvls: float


_GENERATIONS = (
    _Generation(re.compile(r"\b(?:A100|A800|A30)\b"), 20.0e9, 25e9, 0.0),
    _Generation(re.compile(r"\b(?:H100|H200|H800|H20|GH200)\b"), 20.6e9, 25e9, 0.85),
    _Generation(re.compile(r"\bG?B[23]00\b"), 40.1e9, 50e9, 0.74),
)
_BRIDGED = re.compile(r"PCIe|NVL\b|\bA30\b")
"""Cards that a bridge connects in pairs or fours, if at all."""
_ACROSS = re.compile(r"\bG[BH][23]00\b")
"""Cards whose NVLinks may reach those of other nodes: then NICs set no ceiling."""
_HCCS = re.compile(r"910B")
HCCS_LINK = 28e9
"""Bytes per second each way between two 910B of a node, each connected with every other: half of the 56 GB/s that
meemx.com ("HCCL contest log", 2024) calls hearsay. Good for a ceiling, not for a demand."""


@dataclass(frozen=True)
class Topology:
    """What the nodes of a job have; where they differ, the least. What is not known is None, 0 or empty.

    ``cards``: ranks of a node, one each; ``installed``: all cards that it has. ``card``: name as its driver says it.
    ``links``: NVLinks of a card. ``pcie``: transfers per second × lanes of a card's slot. ``sockets``: NUMA nodes that
    the cards hang on. ``nics`` at ``nic_rate`` bytes per second each are the rails of a node.
    """

    nodes: int
    cards: int
    card: str = ""
    installed: int = 0
    links: int | None = None
    pcie: float = 0.0
    sockets: int = 0
    nics: int = 0
    nic_rate: float = 0.0

    @property
    def ranks(self) -> int:
        return self.nodes * self.cards


class Bound(NamedTuple):
    """Bus bandwidth in bytes per second. ``value``: what is due; None: nothing is expected. ``ceiling``: what nothing
    surpasses; None: not known. ``limit``: what decides ``value``, empty where there is none."""

    value: float | None
    ceiling: float | None
    limit: Literal["links", "network", "latency", ""]
    terms: tuple[Text, ...]

    @property
    def words(self) -> Text:
        return joined(self.terms)


class Thresholds(NamedTuple):
    """Shares of what is expected."""

    fail_below: float = FAIL_BELOW
    warn_below: float = WARN_BELOW


DEFAULTS = Thresholds()

OPERATIONS = (
    "all_reduce",
    "all_gather",
    "reduce_scatter",
    "broadcast",
    "reduce",
    "alltoall",
    "alltoallv",
    "gather",
    "scatter",
    "sendrecv",
)
_WHOLE = ("broadcast", "reduce", "sendrecv")


def bus_factor(operation: str, ranks: int) -> float:
    """Bus bandwidth over algorithm bandwidth (nccl-tests, doc/PERFORMANCE.md)."""
    if operation in _WHOLE:
        return 1.0
    return (2 if operation == "all_reduce" else 1) * (ranks - 1) / ranks


def due(metric: str, parameters: Mapping[str, Scalar], topology: Topology) -> Bound | None:
    """What a measurement (``nccl.all_reduce.time``) is held against; None where it is not of this topology.

    Reads ``operation``, ``bytes``, ``ranks``, and, where the library's log told them, ``algorithm`` and ``protocol``.
    """
    library, size = metric.partition(".")[0], parameters.get("bytes")
    operation = str(parameters.get("operation"))
    known = library in ("nccl", "hccl", "mpi") and operation in OPERATIONS
    if not known or not isinstance(size, int) or parameters.get("ranks") != topology.ranks:
        return None
    return expected_of(
        topology,
        operation,
        size,
        library=library,
        algorithm=str(parameters.get("algorithm", "")),
        protocol=str(parameters.get("protocol", "")),
    )


def expected_of(
    topology: Topology, operation: str, size: int, *, library: str = "nccl", algorithm: str = "", protocol: str = ""
) -> Bound | None:
    """What ``operation`` on ``size`` bytes should reach; None when nothing can be said, not even a ceiling.

    ``algorithm`` and ``protocol`` as NCCL's log names them (``RING``, ``NVLS_TREE``; ``LL128``); empty: not known.
    """
    if topology.ranks < 2 or topology.cards < 1 or size <= 0:
        return None
    # Ranks of an MPI meet in the memory of the host, whatever cards there are.
    links, network = None if library == "mpi" else _links(topology), _network(topology)
    bus = bus_factor(operation, topology.ranks)
    terms = [term for path in (links, network) if path is not None for term in path.terms]
    ceiling = _ceiling(topology, operation, links, network)
    value: float | None = None
    limit: Literal["links", "network", "latency", ""] = ""
    if library in PREDICTED:
        found = _large(topology, operation, algorithm, links, network)
        if found is not None:
            large, limit, said = found
            terms.append(said)
            large, slowed = _by_protocol(large, algorithm, protocol)
            terms += slowed
            latency, counted = _latency(topology, operation, algorithm, protocol)
            terms.append(counted)
            moving = size * bus / large
            value = size * bus / (moving + latency)
            if latency > moving:
                limit = "latency"
            terms.append(
                Text("{s} B: {b} us + {l} us, {v}", "{s} B：{b} us + {l} us，{v}").fill(
                    s=size, b=_micros(moving), l=_micros(latency), v=_shown(value)
                )
            )
    if ceiling is not None:
        ceiling *= bus
        terms.append(Text("at most {c}, whatever the algorithm", "任何算法均不超过 {c}").fill(c=_shown(ceiling)))
    return None if value is None and ceiling is None else Bound(value, ceiling, limit, tuple(terms))


# ------------------------------------------------------------------------------------------- what the paths carry


class _Path(NamedTuple):
    """Bytes per second each way: ``least`` that it carries, if it is sound (0: not known), and ``most``."""

    least: float
    most: float
    terms: tuple[Text, ...]


def _links(t: Topology) -> _Path | None:
    """Between the cards of a node; None where that is not known, or there is but one."""
    if not 2 <= t.cards <= t.installed:  # several ranks on one card go over no link
        return None
    if _HCCS.search(t.card):
        most = HCCS_LINK * (t.cards - 1)
        said = f"HCCS {t.cards - 1} × {_shown(HCCS_LINK)} = {_shown(most)}"
        return _Path(0.0, most, (plain(said),))
    generation = next((g for g in _GENERATIONS if g.cards.search(t.card)), None)
    if t.links and generation is not None:
        # Of a board whose links go from card to card, those between the cards that take part.
        own = 1.0 if t.installed >= SWITCHED else (t.cards - 1) / (t.installed - 1)
        least, most = t.links * generation.link * own, t.links * generation.nominal
        if not _BRIDGED.search(t.card):
            said = f"NVLink {t.links} × {_shown(generation.link)}" + (f" × {own:.3g}" if own < 1 else "")
            return _Path(least, most, (plain(f"{said} = {_shown(least)}"),))
        # Which cards a bridge connects is not known, and all others meet over PCIe.
        slot = _pcie(t)
        return _Path(0.0 if slot is None else slot.least, most, () if slot is None else slot.terms)
    # Zero links are links that are known not to be there.
    return _pcie(t) if t.links == 0 else None


def _pcie(t: Topology) -> _Path | None:
    if t.pcie <= 0:
        return None
    most = t.pcie / 8
    least = _slot(t) * SMALL_PACKETS
    terms = [plain(f"PCIe {_shown(_slot(t))} × 5/6 = {_shown(least)}")]
    if t.sockets != 1 and least > BETWEEN_SOCKETS:
        least = BETWEEN_SOCKETS
        terms.append(Text("between CPU sockets at least {v}", "CPU 插槽之间不低于 {v}").fill(v=_shown(BETWEEN_SOCKETS)))
    return _Path(least, most, tuple(terms))


def _network(t: Topology) -> _Path | None:
    """Of all NICs of a node; None where that is not known, or there is but one node."""
    if t.nodes < 2 or t.nics < 1 or t.nic_rate <= 0:
        return None
    # A card uses a NIC near it: more NICs than cards need not help.
    used = min(t.nics, t.cards)
    least, most = used * t.nic_rate * NETWORK_SHARE, t.nics * t.nic_rate
    said = f"{used} × {_shown(t.nic_rate)} × {NETWORK_SHARE} = {_shown(least)}"
    terms = [Text(f"NICs {said}", f"网卡 {said}")]
    if t.pcie > 0 and least > t.cards * _slot(t):
        least = t.cards * _slot(t)
        terms.append(plain(f"PCIe {t.cards} × {_shown(_slot(t))} = {_shown(least)}"))
    return _Path(least, math.inf if _ACROSS.search(t.card) else most, tuple(terms))


def _slot(t: Topology) -> float:
    """What NCCL reckons with for the slot of a card."""
    return t.pcie / (8e9 * 16) * PCIE3_X16


# ---------------------------------------------------------------------------------------------- bounds of large sizes


def _large(
    t: Topology, operation: str, algorithm: str, links: _Path | None, network: _Path | None
) -> tuple[float, Literal["links", "network"], Text] | None:
    """The bus bandwidth that is due of sizes so large that latency does not count, what limits it, and how it is made;
    None where nothing is expected."""
    if operation in ("alltoall", "alltoallv", "gather", "scatter", "sendrecv"):
        return None
    if (t.cards > 1 and (links is None or not links.least)) or (t.nodes > 1 and network is None):
        return None
    n, k, c = t.ranks, t.nodes, t.cards
    inside = math.inf if links is None else links.least
    outside = math.inf if network is None else network.least
    part = (n - 1) / n
    up_and_down = 2 if k == 2 else 1
    share = next((g.nvls for g in _GENERATIONS if g.cards.search(t.card)), 0.0)
    name = "ring" if algorithm in ("", "RING") else f"{algorithm}, no less than a ring"
    if algorithm == "TREE" and operation == "all_reduce":
        name = f"tree {TREE_SHARE} × {n - 1}/{n}"
        inside, outside = TREE_SHARE * part * inside, TREE_SHARE * up_and_down * part * outside
    elif algorithm in ("NVLS", "NVLS_TREE") and share and c > 1 and operation == "all_reduce":
        name = f"NVLS {share} × 2 × {n - 1}/{n} × {c}/{c + 1}"
        inside = 2 * part * share * c / (c + 1) * inside
        # NVLS between nodes is CollNet: each byte once up and once down.
        # That of a tree between nodes is as of any other: 310 GB/s on 4 × 8 H200, see REFERENCES.
        outside = 2 * part * (1.0 if algorithm == "NVLS" else TREE_SHARE * up_and_down / 2) * outside
    elif algorithm == "NVLS" and share and operation in ("all_gather", "reduce_scatter"):
        name = f"NVLS {share} × {n - 1}/{n}"
        inside = share * part * inside
    elif algorithm == "PAT":
        name = f"PAT {PAT_SHARE}"
        inside, outside = PAT_SHARE * inside, PAT_SHARE * outside
    value = min(inside, outside)
    limit: Literal["links", "network"] = "links" if inside <= outside else "network"
    said = Text("{a} over {k} nodes: {v}", "{a}，{k} 节点：{v}") if k > 1 else Text("{a}: {v}", "{a}：{v}")
    return value, limit, said.fill(a=name, k=k, v=_shown(value))


def _ceiling(t: Topology, operation: str, links: _Path | None, network: _Path | None) -> float | None:
    """The algorithm bandwidth that no algorithm surpasses, as far as links and NICs are known; None where neither is.

    What a card passes on goes over its links or its share of the node's NICs; what a node passes on, over its NICs.
    """
    n, k, c = t.ranks, t.nodes, t.cards
    outside = math.inf if network is None else network.most
    inside = math.inf if links is None or (k > 1 and network is None) else links.most
    inside += 0.0 if network is None else network.most / c
    if operation == "all_reduce":
        adding = any(g.nvls and g.cards.search(t.card) for g in _GENERATIONS)
        inside *= max(c / (c + 1) if adding else 0.0, c / (2 * (c - 1)) if c > 1 else 1.0)
        # Outside, switches that add (SHARP) have every byte go up and come down once.
    elif operation in ("all_gather", "reduce_scatter"):
        inside *= n / (n - 1)
        outside *= k / (k - 1) if k > 1 else 1.0
    elif operation in ("gather", "scatter", "alltoall"):
        inside *= n / (c - 1) if c > 1 else 1.0
        outside *= 1.0 if k == 1 else k / (k - 1) if operation != "alltoall" else n / (c * (n - c))
    elif operation == "alltoallv":
        return None  # how unevenly it is divided is not known
    value = min(inside, outside)
    return value if math.isfinite(value) else None


def _by_protocol(bus: float, algorithm: str, protocol: str) -> tuple[float, list[Text]]:
    """What of ``bus`` is left to a protocol. Simple, and one that is not known, leave all."""
    if protocol == "LL128":
        left = bus * LL128_SHARE
    elif protocol == "LL":
        left = min(LL_MOST, bus * (LL_SHARE if algorithm == "RING" else LL_TREE_SHARE))
    else:
        return bus, []
    return left, [plain(f"{protocol}: {_shown(left)}")]


# ------------------------------------------------------------------------------------------------------------ latency


class _Latency(NamedTuple):
    """Microseconds, by protocol: LL, LL128, Simple."""

    base: tuple[float, float, float]
    nvlink: tuple[float, float, float]
    pcie: tuple[float, float, float]
    network: tuple[float, float, float]


_RING = _Latency((6.6, 14.0, 8.4), (0.6, 1.9, 3.4), (1.0, 2.5, 5.7), (2.7, 4.0, 14.0))
_TREE = _Latency((6.8, 14.0, 8.4), (0.6, 1.25, 4.0), (1.0, 1.9, 4.0), (5.0, 8.5, 14.0))
NVLS_INSIDE, NVLS_OUTSIDE, NVLS_TREE_OUTSIDE = 25.0, 18.0, 20.9
PAT_BASE, PAT_STEP, PAT_RANK = 8.0, 4.0, 2.8
POST = 2.0
"""To hand a step of a ring to the network, three times that with Simple (tuning.cc, getNetOverhead: the larger)."""


def _latency(t: Topology, operation: str, algorithm: str, protocol: str) -> tuple[float, Text]:
    """Seconds that NCCL's model adds to the time of the bytes. A protocol that is not known is the slowest, Simple."""
    p = {"LL": 0, "LL128": 1}.get(protocol, 2)
    n, k, c = t.ranks, t.nodes, t.cards
    levels = math.floor(math.log2(k))

    def inside(of: _Latency) -> float:
        return (of.nvlink if t.links else of.pcie)[p]

    if algorithm == "TREE" and operation == "all_reduce":
        said = f"{_TREE.base[p]:g} + 2 × ({c - 1} × {inside(_TREE):g} + {levels} × {_TREE.network[p]:g})"
        micros = _TREE.base[p] + 2 * ((c - 1) * inside(_TREE) + levels * _TREE.network[p])
    elif algorithm in ("NVLS", "NVLS_TREE"):
        outside = 0.0 if k == 1 else NVLS_OUTSIDE if algorithm == "NVLS" else 2 * levels * NVLS_TREE_OUTSIDE
        said, micros = f"{NVLS_INSIDE:g} + {outside:g}", NVLS_INSIDE + outside
    elif algorithm == "PAT":
        micros = PAT_BASE + levels * PAT_STEP + n * PAT_RANK
        said = f"{PAT_BASE:g} + {levels} × {PAT_STEP:g} + {n} × {PAT_RANK:g}"
    elif operation in ("broadcast", "reduce"):
        step = inside(_TREE) if k == 1 else _TREE.network[p]
        said, micros = f"{_RING.base[p]:g} + {n} × {step:g}", _RING.base[p] + n * step
    else:
        rounds = 2 if operation == "all_reduce" else 1
        near, far = rounds * (n - k), rounds * (k - 1)
        # Alone on its node, nothing hides the network (tuning.cc takes the tree's latency).
        across = (_TREE if c == 1 else _RING).network[p]
        step = inside(_RING) if k == 1 else max(inside(_RING), POST * (3 if p == 2 else 1))
        said = f"{_RING.base[p]:g} + {near} × {step:g}" + (f" + {far} × {across:g}" if far else "")
        micros = _RING.base[p] + near * step + (far * across if far else 0.0)
    return micros * 1e-6, Text("latency {s} = {v} us", "时延 {s} = {v} us").fill(s=said, v=_micros(micros * 1e-6))


def _shown(bytes_per_second: float) -> str:
    return f"{bytes_per_second / 1e9:.4g} GB/s"


def _micros(seconds: float) -> str:
    return f"{seconds * 1e6:.4g}" if seconds < 1e-2 else f"{seconds * 1e6:.0f}"


# --------------------------------------------------------------------------------------------------- published figures


class Reference(NamedTuple):
    """A published figure of large sizes: bus bandwidth in bytes per second of ``operation`` on ``nodes`` of ``cards``.

    ``algorithm``: where it is told. ``nics`` at ``nic_rate`` bytes per second each are those of a node, 0: not told.
    ``gate``: not what was measured, but what a provider's acceptance test demands. A reference is shown beside a
    figure; it judges none.
    """

    card: re.Pattern[str]
    system: str
    cards: int
    bus: float
    source: str
    algorithm: str = ""
    nodes: int = 1
    nics: int = 0
    nic_rate: float = 0.0
    gate: bool = False
    operation: str = "all_reduce"


_A100, _A800 = re.compile(r"\bA100-SXM"), re.compile(r"\bA800-SXM|\bA800\b(?! PCIe)")
_H100, _H800 = re.compile(r"\bH100 80GB HBM3|\bH100-SXM"), re.compile(r"\bH800\b(?! PCIe)")
_H200, _B200 = re.compile(r"\bH200\b(?! NVL)"), re.compile(r"\bB200\b")
_A100_PCIE, _910B = re.compile(r"\bA100.PCIe|\bA100 80GB PCIe", re.I), re.compile(r"910B")
_STAS = "stas00/ml-engineering, network/README.md"
_AZURE = "Azure/azurehpc-health-checks, conf/"
_OCI = "oracle-quickstart/oci-hpc, playbooks/roles/healthchecks/files/active_healthcheck.py"
_LIMULIDAE = "gameofdimension/limulidae, README"

# Left out: OCI demands 440 GB/s of 8 B200 as of its 8 H100; limulidae's figures of two cards, far below those of more.
REFERENCES: tuple[Reference, ...] = (
    Reference(_A100, "A100", 8, 234.9e9, _STAS, "RING"),
    Reference(_A100, "A100", 8, 228e9, f"{_AZURE}nd96amsr_a100_v4.conf", gate=True),
    Reference(_A100, "A100", 8, 185e9, _OCI, gate=True),
    Reference(_A100, "A100", 8, 91e9, "NVIDIA/nccl-tests issue 100", nodes=2, nics=4, nic_rate=25e9),
    Reference(_A100, "A100", 8, 96e9, "NVIDIA/nccl-tests issue 119", nodes=3, nics=4, nic_rate=25e9),
    Reference(_A100_PCIE, "A100 PCIe", 2, 193e9, f"{_AZURE}nc48ads_a100_v4.conf", gate=True),
    Reference(_A100_PCIE, "A100 PCIe", 4, 25e9, f"{_AZURE}nc96ads_a100_v4.conf", gate=True),
    Reference(_A800, "A800", 8, 156e9, f"{_LIMULIDAE} (torch; from algorithm bandwidth 89)"),
    Reference(_A800, "A800", 4, 156e9, f"{_LIMULIDAE} (torch; from algorithm bandwidth 104)"),
    Reference(_A800, "A800", 8, 151e9, f"{_LIMULIDAE} (torch; from 173)", operation="all_gather"),
    Reference(_H100, "H100", 8, 480e9, "NVIDIA/nccl-tests issue 212", "NVLS"),
    Reference(_H100, "H100", 8, 370e9, "NVIDIA/nccl-tests issue 212", "RING"),
    Reference(_H100, "H100", 8, 460e9, f"{_AZURE}nd96isr_h100_v5.conf", "NVLS", gate=True),
    Reference(_H100, "H100", 8, 440e9, _OCI, "NVLS", gate=True),
    Reference(_H100, "H100", 8, 470e9, "NVIDIA/nccl-tests issue 309", nodes=2),
    Reference(_H100, "H100", 8, 365.8e9, "NVIDIA/nccl-tests issue 309", nodes=4),
    Reference(_H200, "H200", 8, 482.3e9, _STAS, "NVLS"),
    Reference(_H200, "H200", 8, 367.6e9, _STAS, "RING"),
    Reference(_H200, "H200", 8, 361.4e9, _STAS, "RING", operation="all_gather"),
    Reference(_H200, "H200", 8, 362.9e9, _STAS, "RING", operation="reduce_scatter"),
    Reference(_H200, "H200", 4, 363.3e9, _STAS, "RING"),
    Reference(_H200, "H200", 5, 414.2e9, _STAS, "NVLS"),
    Reference(_H200, "H200", 6, 435.6e9, _STAS, "NVLS"),
    Reference(_H200, "H200", 7, 460.0e9, _STAS, "NVLS"),
    Reference(_H200, "H200", 8, 364.9e9, f"{_STAS} (EFA)", "RING", nodes=4, nics=8, nic_rate=50e9),
    Reference(_H200, "H200", 8, 310.1e9, f"{_STAS} (EFA, forced)", "NVLS_TREE", nodes=4, nics=8, nic_rate=50e9),
    Reference(_H200, "H200", 8, 431e9, f"{_AZURE}nd96isr_h200_v5.conf", "NVLS", gate=True),
    Reference(_H200, "H200", 8, 440e9, _OCI, "NVLS", gate=True),
    Reference(_H800, "H800", 8, 215e9, "NVIDIA/nccl issue 1374", "NVLS"),
    Reference(_H800, "H800", 8, 161e9, "NVIDIA/nccl-tests issue 153 (read as GB/s)", nodes=2, nics=8, nic_rate=12.5e9),
    Reference(_B200, "B200", 8, 845.7e9, _STAS, "NVLS"),
    Reference(_B200, "B200", 8, 682.2e9, _STAS, "RING"),
    Reference(_B200, "B200", 4, 673.2e9, _STAS, "RING"),
    Reference(_B200, "B200", 5, 677.8e9, _STAS, "RING"),
    Reference(_B200, "B200", 6, 778.2e9, _STAS, "NVLS"),
    Reference(_B200, "B200", 7, 811.2e9, _STAS, "NVLS"),
    Reference(_B200, "B200", 8, 381.8e9, f"{_STAS} (EFA)", nodes=4, nics=8, nic_rate=50e9),
    Reference(_910B, "910B", 8, 126e9, f"{_LIMULIDAE} (torch_npu; from algorithm bandwidth 72)"),
    Reference(_910B, "910B", 4, 45e9, f"{_LIMULIDAE} (torch_npu; from algorithm bandwidth 30)"),
    Reference(_910B, "910B", 8, 130e9, f"{_LIMULIDAE} (torch_npu; from 149)", operation="all_gather"),
    Reference(_910B, "910B", 4, 48e9, f"{_LIMULIDAE} (torch_npu; from 64)", operation="all_gather"),
)


def references(topology: Topology, operation: str) -> list[Reference]:
    """What is published of the same cards, as many of them, on as many nodes with as much network, as far as told."""
    return [
        r
        for r in REFERENCES
        if r.operation == operation
        and (r.cards, r.nodes) == (topology.cards, topology.nodes)
        and r.card.search(topology.card)
        and (not r.nics or math.isclose(r.nics * r.nic_rate, topology.nics * topology.nic_rate, rel_tol=0.05))
    ]
