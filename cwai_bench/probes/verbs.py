"""Bandwidth and latency over RDMA verbs, from NIC to NIC: which NICs, and which end owns the figure.

All rails of a node work at the same time, each against one NIC of another node. The client of a pair initiates, and
counts what was acknowledged; of RDMA read the bytes come from the server. The ends meet over TCP first
(:mod:`cwai_bench.probes.pairwise`), where they agree on queue pairs.
"""

from __future__ import annotations

import fnmatch
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

from cwai_bench import native
from cwai_bench.document import nearest
from cwai_bench.errors import DeviceError, UsageError
from cwai_bench.model import LeftOut, ProbeSpec, Scalar
from cwai_bench.probes import Options, World, counters, hca, probe
from cwai_bench.probes.nic import Place, meeting, neighbours, places
from cwai_bench.probes.pairwise import LOOPBACK, End, Figure, Nic, Outcome, Role, measure, specs
from cwai_bench.probes.transport import (
    MOST_QUEUE_PAIRS,
    WARMUP_SECONDS,
    Kind,
    info_of,
    interval_of,
    over_verbs,
    refuse_impossible,
    undecided,
    verbs_bandwidth_choices,
    verbs_latency_choices,
)
from cwai_bench.render.nodeset import natural
from cwai_bench.text import Text

BANDWIDTH = info_of(
    "verbs",
    "bandwidth",
    Text("RDMA bandwidth", "RDMA 带宽"),
    Text(
        "messages of one size by RDMA write, read or send over one or more queue pairs; the end that initiates counts"
        " what was acknowledged",
        "以固定大小的消息通过一个或多个队列对执行 RDMA write、read 或 send；由发起端统计已确认的数据",
    ),
    Text(
        "look at the MTU in use, the port's speed, the PCIe link of both NICs, PFC and ECN on the way, error counters",
        "检查实际使用的 MTU、端口速率、两端网卡的 PCIe 链路、途经网络的 PFC 与 ECN 以及错误计数",
    ),
    ["rdma"],
)
LATENCY = info_of(
    "verbs",
    "latency",
    Text("RDMA round trip", "RDMA 往返时延"),
    Text(
        "small messages there and back by RDMA write or send, or one RDMA read, one at a time; each full round trip is"
        " kept",
        "小消息以 RDMA write 或 send 逐个往返，或执行一次 RDMA read；保留每次完整往返的时间",
    ),
    Text(
        "look at CPU governor and C-states, the PCIe link, the NUMA node of the NIC, and switches on the way",
        "检查 CPU 调频策略与 C-state、PCIe 链路、网卡所在 NUMA 节点以及途经的交换机",
    ),
    ["rdma"],
)


# --------------------------------------------------------------------------------------- which NICs


def selected(names: Iterable[str], patterns: str) -> list[str]:
    """Those of ``names`` that ``--device`` means: ``mlx5_0,mlx5_*``, of one port ``mlx5_0:1``; after ``^`` all others.
    Empty: all."""
    words = patterns.removeprefix("^").split(",")

    def meant(name: str) -> bool:
        both = (name, f"{name}:1" if ":" not in name else name.partition(":")[0])
        return any(fnmatch.fnmatchcase(form, word) for form in both for word in words)

    return [name for name in names if not patterns or meant(name) != patterns.startswith("^")]


def passing_for(names: Sequence[str], node: str, as_node: str) -> dict[str, list[str]]:
    """NICs by the node that they are said to be of: ``node``, unless ``as_node`` (``rxe0=a,rxe1=b``) says otherwise;
    then those that it does not name are left out."""
    if not as_node:
        return {node: list(names)}
    found: dict[str, list[str]] = {}
    for device, _, pretended in (word.partition("=") for word in as_node.split(",")):
        if device in names:
            found.setdefault(pretended, []).append(device)
    return found


def nodes_of(world: World, options: Options) -> tuple[tuple[str, ...], tuple[tuple[str, ...], ...]]:
    """The nodes and their NICs as they are going to meet. Before anybody has looked, one nameless NIC on each.

    Raises UsageError for NICs and nodes that are named and not there.
    """
    if not world.rails:
        pretended = dict.fromkeys(word.partition("=")[2] for word in options.as_node)
        nodes = tuple(pretended) or world.nodes
        return nodes, (("",),) * len(nodes)
    every = list(dict.fromkeys(name for rails in world.rails for name in rails.names))
    _refuse_unknown("--device", (word.removeprefix("^") for word in options.device), every)
    _refuse_unknown("--as-node", (word.partition("=")[0] for word in options.as_node), every)
    if options.as_node and len(world.nodes) > 1:
        raise UsageError(
            Text("--as-node is for trying out on one machine", "--as-node 仅用于在单台机器上试用"),
            Text("leave it out: these are several nodes", "请去掉该选项：当前已有多个节点"),
        )
    device, as_node = ",".join(options.device), ",".join(options.as_node)
    found: dict[str, list[str]] = {}
    for node, rails in zip(world.nodes, world.rails, strict=True):
        found |= passing_for(selected(rails.names, device), node, as_node)
    return tuple(found), tuple(tuple(sorted(names, key=natural)) or ("",) for names in found.values())


def _refuse_unknown(option: str, words: Iterable[str], names: Sequence[str]) -> None:
    for word in words:
        if not selected(names, word):
            raise UsageError(
                Text("{o}: no node has an RDMA NIC {w!r}", "{o}：没有节点具有 RDMA 网卡 {w!r}").fill(o=option, w=word),
                nearest(word, names),
            )


def chosen_ports(node: str, given: Mapping[str, Scalar]) -> dict[str, list[hca.Port]]:
    """The active ports here that ``device`` means, by the node that they pass for (``as_node``). Raises DeviceError
    when there is none."""
    ports = {port.name: port for port in hca.ports()}
    if not ports:
        raise DeviceError(hca.NO_PORT)
    names = selected(sorted(ports, key=natural), str(given["device"]))
    nodes = passing_for(names, node, str(given["as_node"])) if names else {}
    if not nodes:
        raise DeviceError(
            Text("none of the RDMA NICs here is chosen: {n}", "此处的 RDMA 网卡均未被选中：{n}").fill(
                n=", ".join(ports)
            )
        )
    return {said: [ports[name] for name in here] for said, here in nodes.items()}


# ---------------------------------------------------------------------------------------------- plan


_NO_GPU_LATENCY = Text(
    "whoever waits for a message watches its memory, and a GPU's no CPU can watch",
    "等待消息的一端需监视内存，而 CPU 无法监视 GPU 显存",
)


def _plan(kind: Kind) -> Callable[[World, Options], list[ProbeSpec | LeftOut]]:
    info = BANDWIDTH if kind == "bandwidth" else LATENCY
    choices = verbs_bandwidth_choices if kind == "bandwidth" else verbs_latency_choices

    def plan(world: World, options: Options) -> list[ProbeSpec | LeftOut]:
        refuse_impossible(options, MOST_QUEUE_PAIRS)
        if options.kind not in (kind, "both") or not (over_verbs(world, options) or undecided(world, options)):
            return []
        if kind == "latency" and options.memory == "gpu":
            return [LeftOut(info.id, "unsupported", _NO_GPU_LATENCY)]
        nodes, nics = nodes_of(world, options)
        given = ({"transport": "verbs", **choice} for choice in choices(options))
        return [*specs(info, kind, given, nodes, nics, options, met=bool(world.rails))]

    return plan


# ------------------------------------------------------------------------------------------- measure

_QUEUE_PAIRS = ("gid_index", "service_level", "traffic_class", "retries", "depth", "post_list", "inline")
_QUEUE_PAIR_FLAGS = ("relaxed_ordering", "huge_pages", "cold")


@dataclass(frozen=True)
class Verbs:
    """All rails of each node."""

    kind: Kind
    repeats = (
        "transport",
        "verb",
        "direction",
        "bytes",
        "streams",
        "spin",
        "duration",
        "warmup",
        "service_level",
        "traffic_class",
    )

    def places(self, given: Mapping[str, Scalar], *, alone: bool) -> list[Place]:
        return [] if alone else places(str(given["interface"]) or None)

    def nics(self, node: str, given: Mapping[str, Scalar]) -> dict[str, list[Nic]]:
        nodes = chosen_ports(node, given)
        every = [port for here in nodes.values() for port in here]
        seats = hca.seats([port.cpus for port in every], hca.allowed_cpus())
        cpus = {port.name: cpu for port, cpu in zip(every, seats, strict=True)}
        return {said: [_nic(port, cpus[port.name]) for port in here] for said, here in nodes.items()}

    def meet(
        self, client: tuple[Nic, list[Place]], server: tuple[Nic, list[Place]], *, near: bool
    ) -> tuple[Place, Place] | None:
        """By the NICs' own addresses where these are in one network: a rail that is cut then costs its own pairs only.
        Else as the nodes meet."""
        if near:
            return LOOPBACK, LOOPBACK
        both = [nic.own(places) if nic.netdevs else [] for nic, places in (client, server)]
        return neighbours(*both) or meeting(client[1], server[1])

    def busy(self, ends: Iterable[End]) -> dict[str, float]:
        nics = {end.nic.name: end.nic for end in ends}.values()
        return hca.busy(
            hca.Port(nic.name, str(nic.about["device"]), int(nic.about["port"]), nic.speed, nic.netdevs) for nic in nics
        )

    def metric(self, given: Mapping[str, Scalar]) -> str:
        return f"verbs.{given['verb']}.{self.kind}"

    def joining(self, _given: Mapping[str, Scalar]) -> dict[str, Any]:
        return {}

    def drive(
        self, connection: native.Connection, end: End, role: Role, given: dict[str, Scalar], left: Callable[[], float]
    ) -> Outcome:
        about = end.nic.about
        on_gpu = given["memory"] == "gpu"
        if on_gpu and not about["gpu"]:
            raise DeviceError(
                Text("there is no NVIDIA GPU here, whose memory was asked for", "此处没有 NVIDIA GPU，无法使用其显存")
            )
        chosen: dict[str, Any] = {name: int(given[name]) for name in _QUEUE_PAIRS}
        chosen |= {name: bool(given[name]) for name in _QUEUE_PAIR_FLAGS}
        with native.queue_pairs(
            connection,
            device=str(about["device"]),
            port=int(about["port"]),
            count=int(given["streams"]),
            mtu=int(given["mtu"]),
            timeout_exponent=int(given["qp_timeout"]),
            **chosen,
            gpu=str(about["gpu"]) if on_gpu else "",
            timeout=left(),
        ) as pairs:
            facts: dict[str, Scalar] = {
                "gid_index": pairs.gid_index,
                "gid": pairs.gid,
                "mtu": pairs.mtu,
                "link_layer": pairs.link_layer,
                "roce": pairs.roce,
            }
            common: dict[str, Any] = {
                "verb": str(given["verb"]),
                "size": int(given["bytes"]),
                "verify": bool(given["verify"]),
                "cpu": end.nic.cpu,
            }
            if self.kind == "bandwidth":
                two_way = given["direction"] == "two-way"
                moved = pairs.bandwidth(
                    **common,
                    initiates=role == "client" or two_way,
                    two_way=two_way,
                    duration=float(given["duration"]),
                    warmup=WARMUP_SECONDS,
                    warmup_messages=int(given["warmup"]),
                    interval=interval_of(given),
                    timeout=left(),
                )
                facts["memory"] = f"GPU {about['gpu']} {moved.memory}" if on_gpu else moved.memory
                facts["posting"] = moved.posting
                return Outcome(moved.samples.tolist(), moved.wrong, moved.first_bad, facts=facts)
            trips = pairs.latency(
                **common,
                initiates=role == "client",
                iterations=int(given["iterations"]),
                duration=float(given["duration"]),
                warmup=int(given["warmup"]),
                timeout=left(),
            )
            return Outcome(trips.samples.tolist(), trips.wrong, trips.first_bad, facts=facts)

    def figures(self, given: Mapping[str, Scalar]) -> list[Figure]:
        """The end that initiates owns the figure, and knows what either end found wrong."""
        reads = given["verb"] == "read"
        there = Figure("client", "server" if reads else "client", ("client",))
        back = Figure("server", "client" if reads else "server", ("server",))
        return [there, back] if given["direction"] == "two-way" else [there]

    def counters_of(self, end: End) -> counters.Port | None:
        netdev = end.nic.netdevs[0] if end.nic.netdevs else ""
        return counters.Port(str(end.nic.about["device"]), int(end.nic.about["port"]), netdev)

    def tell(self, source: End, target: End) -> dict[str, Scalar]:
        return {
            f"{role}_{name}": end.nic.about[name]
            for role, end in (("client", source), ("server", target))
            for name in ("pcie_speed", "pcie_width")
            if end.nic.about.get(name)
        }


def _nic(port: hca.Port, cpu: int) -> Nic:
    about: dict[str, Scalar] = {
        "device": port.device,
        "port": port.port,
        "pcie_speed": port.pcie_speed,
        "pcie_width": port.pcie_width,
        "gpu": port.gpu,
    }
    return Nic(port.name, port.netdevs, port.speed, cpu, about)


for _kind, _info in (("bandwidth", BANDWIDTH), ("latency", LATENCY)):
    probe(_info, commands=("run", "rdma"), plan=_plan(_kind))(partial(measure, carrier=Verbs(_kind)))  # type: ignore[arg-type]
