"""What a library of NCCL's family logs (``NCCL_DEBUG=INFO``, subsystems INIT, NET, GRAPH, TUNING, ENV, NVLS): which one
it is, which network and NICs it took, and how it really moved the data.

Format: NVIDIA/nccl, tags 2.4 to 2.30: src/debug.cc (how a line begins), src/init.cc (version, network, channels),
src/transport/net_ib/init.cc, net_socket.cc (devices), net.cc, p2p.cc, shm.cc, coll_net.cc (connections), nvls.cc,
src/transport.cc and src/graph/tuning.cc (CollNet that was given up), src/enqueue.cc (algorithm by size),
src/misc/param.cc (variables). ROCm/rccl and sii-research/VCCL log the same way.

A line that another one was printed into matches nothing, and says nothing. How many "collnet channels" there are is no
sign of CollNet: init.cc prints the number of all channels there.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Mapping
from typing import Literal, NamedTuple, TypeVar

from cwai_bench import collective_library
from cwai_bench.collective_library import Version
from cwai_bench.readers import Unreadable

T = TypeVar("T")


class Way(NamedTuple):
    """How one rank reaches another. ``by``: of NET and COLLNET which network (``IB``, ``Socket``, ``SHARP``), else by
    what means (``CUMEM/read``, ``direct``). Of networks, ``device``: its number; ``gpudirect``: past the host's
    memory."""

    kind: Literal["P2P", "SHM", "NET", "COLLNET"]
    by: str
    device: int | None = None
    gpudirect: bool | None = None


class Choice(NamedTuple):
    """``bytes``: as the library counts them (see :meth:`CollectiveLog.choice`). ``operation``: empty until 2.22, which
    told none. ``algorithm`` and ``protocol`` as in ``NVLS_TREE``, ``SIMPLE``, whether told by name or by number."""

    operation: str
    bytes: int
    algorithm: str
    protocol: str


class Feature(NamedTuple):
    """``ready``: it was set up; False: the library said that it is not there, or gave it up; None: it said nothing.
    ``said``: the line that tells."""

    ready: bool | None = None
    said: str = ""


class CollectiveLog(NamedTuple):
    """What one process logged, or, merged, several. Only rank 0 of a communicator logs ``choices``.

    ``networks``: as in ``Using network IB``. ``nics``: by number, as in ``mlx5_0:1/IB``; ``no_ib``: none was found.
    ``interfaces``: of sockets. ``ways``: connections, with how many of each. ``sharp`` stands for CollNet, whose plugin
    is SHARP. ``environment``: variables that the library says it took. ``warnings``: each text once.
    """

    versions: tuple[Version, ...] = ()
    networks: tuple[str, ...] = ()
    nics: Mapping[int, str] = {}
    no_ib: bool = False
    interfaces: tuple[str, ...] = ()
    ways: Mapping[Way, int] = {}
    sharp: Feature = Feature()
    nvls: Feature = Feature()
    choices: tuple[Choice, ...] = ()
    environment: Mapping[str, str] = {}
    warnings: tuple[str, ...] = ()

    @property
    def between_nodes(self) -> dict[Way, int]:
        """The connections that go over a network."""
        return {way: count for way, count in self.ways.items() if way.kind in ("NET", "COLLNET")}

    @property
    def gpudirect(self) -> bool | None:
        """Whether every connection over an RDMA network goes past the host's memory; None when there is none."""
        told = [way.gpudirect for way in self.between_nodes if way.by != SOCKET]
        return all(told) if told else None

    @property
    def used_nics(self) -> list[str]:
        """The NICs behind the connections over InfiniBand or RoCE, as they are listed, or by number (``NET/IB/3``)
        where the list does not hold it (a device that stands for several)."""
        numbers = {(way.by, way.device) for way in self.ways if way.kind == "NET" and way.by.startswith(IB)}
        return sorted({self.nics.get(d if d is not None else -1, f"NET/{by}/{d}") for by, d in numbers})

    def choice(self, operation: str, size: int, ranks: int) -> Choice | None:
        """What was chosen for ``size`` bytes as nccl-tests counts them; None where nothing was told, or several things.

        Of all_gather and reduce_scatter newer versions count one rank's part (src/enqueue.cc), older ones all.
        """
        sizes = {size, size // ranks} if operation in PER_RANK and ranks > 0 else {size}
        fitting = {
            choice._replace(operation=operation, bytes=size)
            for choice in self.choices
            if choice.operation in ("", operation) and choice.bytes in sizes
        }
        return fitting.pop() if len(fitting) == 1 else None


IB, SOCKET = "IB", "Socket"
"""Names of the library's own networks; plugins have others, such as ``IBext_v8``, ``AWS Libfabric``."""
PER_RANK = ("all_gather", "reduce_scatter")
ALGORITHMS = ("TREE", "RING", "COLLNET_DIRECT", "COLLNET_CHAIN", "NVLS", "NVLS_TREE", "PAT")
PROTOCOLS = ("LL", "LL128", "SIMPLE")
"""In the order of their numbers (src/include/plugin/nccl_tuner.h)."""
OPERATIONS = {
    "AllReduce": "all_reduce",
    "AllGather": "all_gather",
    "ReduceScatter": "reduce_scatter",
    "Broadcast": "broadcast",
    "Reduce": "reduce",
}

_LINES, _LENGTH = 1_000_000, 4096
_KEPT = 4096
"""Of each sort of thing at most: a hostile text makes no more of it."""
_SAID, _VALUE = 300, 200
_WARNINGS = 64

_MESSAGE = re.compile(r"\b[A-Z]{0,8}CCL (INFO|WARN) (.*)")
_BARE_VERSION = re.compile(r"(?:\[[\w,]{1,20}\](?:<std(?:out|err)>:)? ?)?[A-Z]{0,8}CCL version .*")
"""Printed for itself, without what a line begins with; mpirun may tag it."""
_NETWORK = re.compile(r"Using network (\S.{0,60})")
_NICS = re.compile(r"NET/IB\w{0,16} ?: Using((?: \[\d{1,3}\]\S{1,80}){1,256})(?: |;|$)")
_NIC = re.compile(r"\[(\d{1,3})\](\S{1,80})")
_NO_IB = re.compile(r"NET/IB\w{0,16} ?: No device found\.?")
_SOCKETS = re.compile(r"NET/Socket ?: Using((?: \[\d{1,3}\][^\s:]{1,40}:\S{1,100}){1,64})")
_INTERFACE = re.compile(r"\[\d{1,3}\]([^\s:]{1,40}):")
_CHANNEL = re.compile(
    r"(?:Channel|Ring) \d{2,4}(?:/\d{1,3})? : \d{1,7}(?:\[[0-9a-f]{1,12}\])? -> \d{1,7}(?:\[[0-9a-f]{1,12}\])?"
    r"(?: \[(?:send|receive)\])? via (.{1,200}?)(?: comm 0x[0-9a-f]{1,16} nRanks \d{1,7})?"
)
_COLLNET = re.compile(
    r"Coll(?:Net)? \d{2,4}(?:/\d{1,3})? : \d{1,7} \[(?:send|receive)\] via (COLLNET/.{1,200}?)(?: comm 0x.{1,40})?"
)
_OVER_NET = re.compile(r"(NET|COLLNET)/([^/]{1,60})/(\d{1,4})(?:\(\d{1,7}\))?(/GDRDMA)?(?:\(PCI\))?(?:/Shared)?")
_LOCAL = re.compile(r"(P2P|SHM)/(\S.{0,40})")
_OLD_SHM = "direct shared memory"
_CHOICE = re.compile(r"(?:(\w{1,32}): )?(\d{1,18}) Bytes -> Algo (\w{1,32}) proto (\w{1,16})(?: .{0,80})?")
_SET = re.compile(r"([A-Z]{1,6}CCL_[A-Z0-9_]{1,60}) set (?:by environment )?to (.*)")
_NVLS_CHANNELS = re.compile(r".{0,80}\b(\d{1,4}) nvls channels\b.*")
_FEATURES: tuple[tuple[str, re.Pattern[str], bool], ...] = (
    ("sharp", re.compile(r"rank \d{1,7} Connected CollNet|Connected CollNet"), True),
    ("sharp", re.compile(r"(?:CollNet is not supported or fails to initialize|Cannot initialize CollNet).*"), False),
    ("sharp", re.compile(r".{0,200}, disabling CollNet\b.*"), False),
    ("nvls", re.compile(r"Connected NVLS tree"), True),
    ("nvls", re.compile(r"NVLS multicast support is not available .*"), False),
)


def collective_log(text: str) -> CollectiveLog:
    """The log of one process. Raises Unreadable when no line of it is such a library's."""
    versions: dict[Version, None] = {}
    networks: dict[str, None] = {}
    nics: dict[int, str] = {}
    interfaces: dict[str, None] = {}
    ways: Counter[Way] = Counter()
    features = {"sharp": Feature(), "nvls": Feature()}
    choices: dict[Choice, None] = {}
    environment: dict[str, str] = {}
    warnings: dict[str, None] = {}
    no_ib = known = False
    for whole in text.split("\n", _LINES)[:_LINES]:
        line = whole[:_LENGTH].rstrip()
        message = _MESSAGE.search(line)
        if message is None:
            if _BARE_VERSION.fullmatch(line) and (version := collective_library.of_line(line)) is not None:
                known = True
                versions[version] = None
            continue
        known = True
        said = message[2]
        if message[1] == "WARN":
            warnings[said[:_SAID]] = None
        if (told := _SET.fullmatch(said)) is not None:
            # A number ends with a full stop that is none of its own.
            value = re.sub(r"(?<=\d)\.$", "", told[2]) if re.fullmatch(r"-?\d+\.", told[2]) else told[2]
            environment[told[1]] = value[:_VALUE]
        elif (told := _NETWORK.fullmatch(said)) is not None:
            networks[told[1]] = None
        elif (told := _NICS.match(said)) is not None:
            nics.update({int(number): name for number, name in _NIC.findall(told[1])})
        elif _NO_IB.fullmatch(said):
            no_ib = True
        elif (told := _SOCKETS.match(said)) is not None:
            interfaces.update(dict.fromkeys(_INTERFACE.findall(told[1])))
        elif (told := _CHANNEL.fullmatch(said) or _COLLNET.fullmatch(said)) is not None:
            way = _way(told[1])
            if way is not None and (way in ways or len(ways) < _KEPT):
                ways[way] += 1
        elif (told := _CHOICE.fullmatch(said)) is not None:
            choice = _choice(told)
            if choice is not None and len(choices) < _KEPT:
                choices[choice] = None
        elif (told := _NVLS_CHANNELS.fullmatch(said)) is not None:
            features["nvls"] = _first(features["nvls"], Feature(int(told[1]) > 0, said[:_SAID]))
        elif (version := collective_library.of_line(said)) is not None:
            versions[version] = None
        for name, pattern, ready in _FEATURES:
            if pattern.fullmatch(said):
                features[name] = _first(features[name], Feature(ready, said[:_SAID]))
    if not known:
        raise Unreadable("expected lines such as “host:1:1 [0] NCCL INFO …”: is NCCL_DEBUG=INFO set?")
    if any(way.kind == "COLLNET" for way in ways) and features["sharp"].ready is None:
        features["sharp"] = Feature(True, "COLLNET")
    return CollectiveLog(
        tuple(versions)[:_KEPT],
        tuple(networks)[:_KEPT],
        nics,
        no_ib,
        tuple(interfaces)[:_KEPT],
        dict(ways),
        features["sharp"],
        features["nvls"],
        tuple(choices),
        dict(list(environment.items())[:_KEPT]),
        tuple(warnings)[:_WARNINGS],
    )


def merge(logs: Iterable[CollectiveLog]) -> CollectiveLog:
    """What all these processes logged, as one: a feature is ready when it is for any of them; NICs of the same number
    that differ between nodes are told with both names."""
    merged = CollectiveLog()
    for log in logs:
        ways = Counter(merged.ways)
        ways.update(log.ways)
        merged = CollectiveLog(
            _union(merged.versions, log.versions),
            _union(merged.networks, log.networks),
            {
                number: "|".join(_union(_names(merged.nics, number), _names(log.nics, number)))
                for number in sorted({*merged.nics, *log.nics})
            },
            merged.no_ib or log.no_ib,
            _union(merged.interfaces, log.interfaces),
            dict(ways),
            _first(merged.sharp, log.sharp),
            _first(merged.nvls, log.nvls),
            _union(merged.choices, log.choices),
            {**log.environment, **merged.environment},
            _union(merged.warnings, log.warnings)[:_WARNINGS],
        )
    return merged


def _names(nics: Mapping[int, str], number: int) -> tuple[str, ...]:
    return tuple(nics[number].split("|")) if number in nics else ()


def _union(one: tuple[T, ...], other: tuple[T, ...]) -> tuple[T, ...]:
    return tuple(dict.fromkeys((*one, *other)))


def _first(known: Feature, other: Feature) -> Feature:
    """What is ready outdoes what is not, and that what nobody spoke of: a process makes communicators of many sorts."""
    order = {True: 2, False: 1, None: 0}
    return other if order[other.ready] > order[known.ready] else known


def _way(via: str) -> Way | None:
    if via == _OLD_SHM:
        return Way("SHM", "direct")
    if (told := _OVER_NET.fullmatch(via)) is not None:
        return Way("NET" if told[1] == "NET" else "COLLNET", told[2], int(told[3]), told[4] is not None)
    if (told := _LOCAL.fullmatch(via)) is not None:
        return Way("P2P" if told[1] == "P2P" else "SHM", told[2])
    return None


def _choice(told: re.Match[str]) -> Choice | None:
    """None for a number that nobody knows."""
    algorithm, protocol = _named(told[3], ALGORITHMS), _named(told[4], PROTOCOLS)
    if not algorithm or not protocol:
        return None
    return Choice(OPERATIONS.get(told[1] or "", told[1] or ""), int(told[2]), algorithm, protocol)


def _named(word: str, names: tuple[str, ...]) -> str:
    if word.isdecimal():
        return names[int(word)] if len(word) <= 2 and int(word) < len(names) else ""
    return word.upper()
