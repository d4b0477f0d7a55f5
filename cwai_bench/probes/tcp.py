"""Bandwidth and latency over TCP, between nodes or within one: by which NICs, and which end owns the figure.

The client sends, the server receives and counts; within one node the ends are ranks 0 and 1, over the loopback
interface; alone, two threads.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

from cwai_bench import native
from cwai_bench.model import LeftOut, ProbeSpec, Scalar
from cwai_bench.probes import Options, World, counters, probe
from cwai_bench.probes.nic import Place, busy, meeting, places
from cwai_bench.probes.pairs import ANY, end_of
from cwai_bench.probes.pairwise import LOOPBACK, End, Figure, Nic, Outcome, Role, measure, specs
from cwai_bench.probes.transport import (
    MOST_QUEUE_PAIRS,
    MOST_STREAMS,
    Kind,
    bandwidth_arguments,
    bandwidth_choices,
    info_of,
    latency_arguments,
    latency_choices,
    over_verbs,
    refuse_impossible,
    undecided,
    why_no_verbs,
)
from cwai_bench.render.nodeset import natural
from cwai_bench.text import Text

BANDWIDTH = info_of(
    "tcp",
    "bandwidth",
    Text("TCP bandwidth", "TCP 带宽"),
    Text(
        "messages of one size over one or more TCP streams, one thread at each end; the receiver counts",
        "以固定大小的消息通过一条或多条 TCP 流传输，两端各用一个线程；由接收端计数",
    ),
    Text(
        "compare with the speed of the NIC; check MTU, negotiated speed, errors, and what else uses the network",
        "与网卡速率比较；检查 MTU、链路协商速率、错误计数以及其他占用网络的程序",
    ),
    ["tcp"],
)
LATENCY = info_of(
    "tcp",
    "latency",
    Text("TCP round trip", "TCP 往返时延"),
    Text(
        "small messages there and back over one TCP stream, one at a time; each full round trip is kept",
        "小消息在一条 TCP 流上逐个往返；保留每次完整往返的时间",
    ),
    Text(
        "look at CPU governor and C-states, interrupt moderation of the NIC, and switches on the way",
        "检查 CPU 调频策略与 C-state、网卡中断聚合以及途经的交换机",
    ),
    ["tcp"],
)

# ---------------------------------------------------------------------------------------------- plan


_RDMA_INSTEAD = Text("RDMA is measured; --transport tcp measures TCP", "已测 RDMA；用 --transport tcp 可测 TCP")


def named(node: str, ends: Iterable[str]) -> tuple[str, ...]:
    """The NICs that a person named of ``node`` (``node/nic``); nothing named is the one by which the nodes meet."""
    words = [end_of(end) for end in ends]
    found = {nic for at, nic in words if at in (node, ANY) and nic != ANY}
    return ("", *sorted(found, key=natural))


def _plan(kind: Kind) -> Callable[[World, Options], list[ProbeSpec | LeftOut]]:
    info = BANDWIDTH if kind == "bandwidth" else LATENCY
    choices = bandwidth_choices if kind == "bandwidth" else latency_choices

    def plan(world: World, options: Options) -> list[ProbeSpec | LeftOut]:
        if options.transport not in ("auto", "tcp") or options.kind not in (kind, "both"):
            return []
        if options.transport == "auto" and over_verbs(world, options):
            return [LeftOut(info.id, "not_selected", _RDMA_INSTEAD)]
        refuse_impossible(options, MOST_QUEUE_PAIRS if undecided(world, options) else MOST_STREAMS)
        given = ({"transport": "tcp", **choice} for choice in choices(options))
        nics = tuple(named(node, options.from_ends + options.to_ends) for node in world.nodes)
        found: list[ProbeSpec | LeftOut] = [
            *specs(info, kind, given, world.nodes, nics, options, met=bool(world.rails))
        ]
        # Once is enough: the plan of the latency probe says it only where there is none of the bandwidth.
        if options.transport == "auto" and (kind == "bandwidth" or options.kind == "latency"):
            found.append(why_no_verbs(world))
        return found

    return plan


# ------------------------------------------------------------------------------------------- measure


@dataclass(frozen=True)
class Tcp:
    """One NIC of each node: the one by which two nodes meet, or that was named."""

    kind: Kind
    repeats = ("transport", "direction", "bytes", "streams", "spin", "duration", "warmup")

    def places(self, given: Mapping[str, Scalar], *, alone: bool) -> list[Place]:
        if alone and not given["interface"]:
            return [LOOPBACK]
        return places(str(given["interface"]) or None) or [LOOPBACK] * alone

    def nics(self, node: str, given: Mapping[str, Scalar]) -> dict[str, list[Nic]]:
        ends = [end for option in ("from", "to") for end in str(given[option]).split(",")]
        return {node: [Nic(name, (name,) if name else ()) for name in named(node, ends)]}

    def meet(
        self, client: tuple[Nic, list[Place]], server: tuple[Nic, list[Place]], *, near: bool
    ) -> tuple[Place, Place] | None:
        return meeting(client[0].own(client[1]), server[0].own(server[1]))

    def busy(self, ends: Iterable[End]) -> dict[str, float]:
        return busy({end.device for end in ends})

    def metric(self, _given: Mapping[str, Scalar]) -> str:
        return f"tcp.{self.kind}"

    def joining(self, given: Mapping[str, Scalar]) -> dict[str, Any]:
        return {"lanes": int(given["streams"]), "spin": bool(given["spin"])}

    def drive(
        self, connection: native.Connection, _end: End, role: Role, given: dict[str, Scalar], left: Callable[[], float]
    ) -> Outcome:
        if self.kind == "bandwidth":
            two_way = given["direction"] == "two-way"
            moved = connection.bandwidth(
                **bandwidth_arguments(
                    given, sends=role == "client" or two_way, receives=role == "server" or two_way, timeout=left()
                )
            )
            return Outcome(moved.samples.tolist(), moved.wrong, moved.first_bad)
        trips = connection.latency(**latency_arguments(given, initiates=role == "client", timeout=left()))
        return Outcome(trips.samples.tolist(), trips.wrong, trips.first_bad)

    def figures(self, given: Mapping[str, Scalar]) -> list[Figure]:
        """Of bandwidth what an end received, of latency what the end that asked saw; there both have verified."""
        if self.kind == "latency":
            return [Figure("client", "client", ("client", "server"))]
        there, back = Figure("server", "client", ("server",)), Figure("client", "server", ("client",))
        return [there, back] if given["direction"] == "two-way" else [there]

    def counters_of(self, end: End) -> counters.Port | None:
        return None if end.place.nic in ("", "lo") else counters.Port("", netdev=end.place.nic)

    def tell(self, _source: End, _target: End) -> dict[str, Scalar]:
        return {}


for _kind, _info in (("bandwidth", BANDWIDTH), ("latency", LATENCY)):
    probe(_info, commands=("run", "rdma"), plan=_plan(_kind))(partial(measure, carrier=Tcp(_kind)))  # type: ignore[arg-type]
