"""Bandwidth and latency over TCP, between nodes or within one.

With several nodes the first rank of each takes part, in rounds (:mod:`cwai_bench.probes.pairs`); within one node ranks
0 and 1, over the loopback interface; alone, two threads. The server of a pair listens and receives, the client
connects and sends. Whatever happens to a pair, every rank comes to every exchange: a pair that fails is a measurement
that says why, and the rest goes on.
"""

from __future__ import annotations

import secrets
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from cwai_bench import native
from cwai_bench.errors import CwaiError, DeadlineError, DeviceError
from cwai_bench.model import (
    LeftOut,
    Measurement,
    MeasureStatus,
    ProbeSpec,
    ReasonCode,
    Scalar,
    Subject,
    stats_of,
)
from cwai_bench.probes import Context, Options, World, probe
from cwai_bench.probes.nic import Place, busy, meeting, places, without_shared
from cwai_bench.probes.pairs import Round, all_pairs, ring
from cwai_bench.probes.transport import (
    Kind,
    bandwidth_arguments,
    bandwidth_choices,
    info_of,
    latency_arguments,
    latency_choices,
    patience,
    refuse_impossible,
    seconds_of,
    why_no_verbs,
)
from cwai_bench.text import Text

LOOPBACK = Place("lo", "127.0.0.1", 8, 0.0)

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


def _rounds(nodes: int, given: dict[str, Scalar], kind: Kind) -> list[Round]:
    if nodes < 2:
        return [[(0, 1)]]  # two ends within the node
    if given["pairs"] == "all":
        return all_pairs(nodes)
    return ring(nodes, directed=kind == "bandwidth" and given["direction"] == "one-way")


def _plan(kind: Kind) -> Callable[[World, Options], list[ProbeSpec | LeftOut]]:
    info = BANDWIDTH if kind == "bandwidth" else LATENCY
    choices = bandwidth_choices if kind == "bandwidth" else latency_choices

    def plan(world: World, options: Options) -> list[ProbeSpec | LeftOut]:
        refuse_impossible(options)
        if options.transport not in ("auto", "tcp") or options.kind not in (kind, "both"):
            return []
        found: list[ProbeSpec | LeftOut] = []
        for number, choice in enumerate(choices(options)):
            parameters = {
                "transport": "tcp",
                **choice,
                "port": options.port,
                "pairs": options.pairs,
                "interface": options.interface or "",
            }
            rounds = len(_rounds(len(world.nodes), parameters, kind))
            expected = 0.2 + rounds * seconds_of(parameters, kind)
            deadline = options.item_timeout or max(10.0, 5 + rounds * patience(parameters, kind))
            found.append(ProbeSpec(f"{info.id}#{number}", info.id, info, parameters, expected, deadline))
        # Once is enough: the plan of the latency probe says it only where there is none of the bandwidth.
        if options.transport == "auto" and (kind == "bandwidth" or options.kind == "latency"):
            found.append(why_no_verbs())
        return found

    return plan


# ------------------------------------------------------------------------------------------- measure


@dataclass(frozen=True)
class End:
    """One end of a pair: a rank, its node, and the place it uses."""

    rank: int
    node: str
    place: Place


@dataclass(frozen=True)
class Pair:
    client: End
    server: End

    @property
    def within_node(self) -> bool:
        return self.client.node == self.server.node


@dataclass(frozen=True)
class Failure:
    status: MeasureStatus
    code: ReasonCode
    reason: Text

    def to_json(self) -> dict[str, str]:
        return {"status": self.status, "code": self.code, "en": self.reason.en, "zh": self.reason.zh}

    @classmethod
    def from_json(cls, raw: dict[str, Any]) -> Failure:
        return cls(raw["status"], raw["code"], Text(raw["en"], raw["zh"]))


def _failure(error: CwaiError) -> Failure:
    if isinstance(error, native.Stopped):
        return Failure("aborted", "aborted", error.message)
    if isinstance(error, DeadlineError):
        return Failure("timeout", "timeout", error.message)
    return Failure("error", "error", error.message)


@dataclass
class Outcome:
    """What one end of a pair found. ``samples`` are in the unit of the probe; empty where this end counts nothing."""

    samples: list[float] = field(default_factory=list)
    wrong: int = 0
    first_bad: int = -1
    strangers: int = 0
    failure: Failure | None = None

    def to_json(self) -> dict[str, Any]:
        return {
            "wrong": self.wrong,
            "first_bad": self.first_bad,
            "strangers": self.strangers,
            "failure": self.failure.to_json() if self.failure else None,
        }


def _measure(kind: Kind) -> Callable[[Context], None]:
    def measure(ctx: Context) -> None:
        given = ctx.spec.parameters
        token, pairs = _meet(ctx, kind)
        for number, together in enumerate(pairs):
            ctx.beat({"item": ctx.spec.id, "phase": "round", "round": number + 1, "rounds": len(pairs)})
            limit = min(patience(given, kind), max(0.1, ctx.deadline - time.monotonic()))
            _round(ctx, kind, together, token, limit)

    return measure


def _meet(ctx: Context, kind: Kind) -> tuple[bytes, list[list[Pair]]]:
    """Agree on a token, on who meets whom where, and leave out the pairs that cannot meet (each with a measurement)."""
    group, given = ctx.group, ctx.spec.parameters
    leads = group.rank in group.leaders
    mine: dict[str, Any] = {"token": secrets.token_hex(native.TOKEN_BYTES), "places": []}
    if leads and len(group.leaders) > 1:
        try:
            mine["places"] = [p.to_json() for p in places(str(given["interface"]) or None)]
        except DeviceError as error:
            mine["failure"] = Failure("error", "absent", error.message).to_json()
    told = group.allgather(mine)
    token = bytes.fromhex(told[0]["token"])
    rounds = _rounds(len(group.leaders), given, kind)

    if len(group.leaders) == 1:
        place = LOOPBACK
        if given["interface"]:
            place = (places(str(given["interface"])) or [LOOPBACK])[0]
        second = 1 if group.size > 1 else 0
        node = group.nodes[0]
        return token, [[Pair(End(0, node, place), End(second, node, place))]]

    everywhere = without_shared([[Place(**p) for p in told[leader]["places"]] for leader in group.leaders])
    met: list[list[Pair | tuple[End, End, Failure]]] = []
    for together in rounds:
        row: list[Pair | tuple[End, End, Failure]] = []
        for c, s in together:
            client, server = group.leaders[c], group.leaders[s]
            both = meeting(everywhere[c], everywhere[s])
            if both:
                row.append(Pair(End(client, group.nodes[client], both[0]), End(server, group.nodes[server], both[1])))
                continue
            refused = [(group.nodes[r], told[r]["failure"]) for r in (client, server) if "failure" in told[r]]
            failure = (
                _joined([(node, Failure.from_json(f)) for node, f in refused])
                if refused
                else Failure(
                    "error",
                    "error",
                    Text(
                        "no pair of addresses of the two nodes can meet; choose a NIC with --interface",
                        "两个节点没有可互通的地址；请用 --interface 指定网卡",
                    ),
                )
            )
            nowhere = Place("", "", 0, 0.0)
            row.append((End(client, group.nodes[client], nowhere), End(server, group.nodes[server], nowhere), failure))
        met.append(row)
    return token, _without_busy(ctx, kind, met)


def _without_busy(ctx: Context, kind: Kind, met: list[list[Pair | tuple[End, End, Failure]]]) -> list[list[Pair]]:
    """Every node counts the traffic on the NICs that it is going to use, while all are quiet."""
    group = ctx.group
    ends = [e for row in met for p in row if isinstance(p, Pair) for e in (p.client, p.server)]
    traffic = busy(e.place.nic for e in ends if e.rank == group.rank)
    loads: list[dict[str, float]] = group.allgather(traffic)
    kept: list[list[Pair]] = []
    for row in met:
        together = []
        for item in row:
            if isinstance(item, Pair):
                loaded = [
                    (e, loads[e.rank][e.place.nic]) for e in (item.client, item.server) if e.place.nic in loads[e.rank]
                ]
                if not loaded:
                    together.append(item)
                    continue
                end, rate = loaded[0]
                failure = Failure(
                    "skip",
                    "busy",
                    Text(
                        "{nic} of {node} carries other traffic ({rate:.1f} MB/s)",
                        "{node} 的 {nic} 正承载其他流量（{rate:.1f} MB/s）",
                    ).fill(nic=end.place.nic, node=end.node, rate=rate / 1e6),
                )
                client, server = item.client, item.server
            else:
                client, server, failure = item
            if server.rank == group.rank:
                _emit(ctx, kind, Pair(client, server), server, Outcome(failure=failure), time.time())
        kept.append(together)
    return kept


def _joined(failures: list[tuple[str, Failure]]) -> Failure:
    """One failure of the failures of both ends; each with the name of its node when there are two."""
    (node, first), *others = failures
    if not others:
        return Failure(first.status, first.code, Text(f"{node}: {first.reason.en}", f"{node}：{first.reason.zh}"))
    second_node, second = others[0]
    return Failure(
        first.status,
        first.code,
        Text(
            f"{node}: {first.reason.en}; {second_node}: {second.reason.en}",
            f"{node}：{first.reason.zh}；{second_node}：{second.reason.zh}",
        ),
    )


def _round(ctx: Context, kind: Kind, together: list[Pair], token: bytes, limit: float) -> None:
    """One round of pairs. Two exchanges, which every rank comes to: the ports, and how it went."""
    group = ctx.group
    pair = next((p for p in together if group.rank in (p.client.rank, p.server.rank)), None)
    listener: native.Listener | None = None
    offer: dict[str, Any] = {}
    if pair and pair.server.rank == group.rank:
        try:
            listener = native.listen(address=pair.server.place.address, port=int(ctx.spec.parameters["port"]))
            offer = {"port": listener.port}
        except CwaiError as error:
            offer = {"failure": _failure(error).to_json()}
    offers = group.allgather(offer)

    started = time.time()
    outcomes: dict[str, Outcome] = {}
    port = 0
    if pair:
        offered = offers[pair.server.rank]
        port = offered.get("port", 0)
        if "failure" in offered:
            if pair.server.rank == group.rank:
                outcomes["server"] = Outcome(failure=Failure.from_json(offered["failure"]))
        else:
            outcomes = _run(ctx, kind, pair, listener, port, token, limit)
    told = group.allgather({role: outcome.to_json() for role, outcome in outcomes.items()})
    if pair:
        _report(ctx, kind, pair, outcomes, told, port, started)


def _run(
    ctx: Context, kind: Kind, pair: Pair, listener: native.Listener | None, port: int, token: bytes, limit: float
) -> dict[str, Outcome]:
    """This rank's end of the pair, or both ends when it is alone."""
    given = ctx.spec.parameters
    end_time = time.monotonic() + limit
    two_way = given["direction"] == "two-way"

    def left() -> float:
        return max(0.05, end_time - time.monotonic())

    def drive(connection: native.Connection, *, server: bool) -> Outcome:
        with connection:
            if kind == "bandwidth":
                arguments = bandwidth_arguments(
                    given, sends=not server or two_way, receives=server or two_way, timeout=left()
                )
                moved = connection.bandwidth(**arguments)
                return Outcome(moved.samples.tolist(), moved.wrong, moved.first_bad)
            trips = connection.latency(**latency_arguments(given, initiates=not server, timeout=left()))
            return Outcome(trips.samples.tolist(), trips.wrong, trips.first_bad)

    lanes, spin = int(given["streams"]), bool(given["spin"])

    def serve() -> Outcome:
        assert listener is not None
        outcome = _guarded(
            lambda: drive(listener.accept(token=token, lanes=lanes, spin=spin, timeout=left()), server=True)
        )
        outcome.strangers = len(listener.strangers)
        return outcome

    def call() -> Outcome:
        place, source = pair.server.place, "" if pair.within_node else pair.client.place.address
        return _guarded(
            lambda: drive(
                native.connect(
                    address=place.address, port=port, token=token, lanes=lanes, spin=spin, source=source, timeout=left()
                ),
                server=False,
            )
        )

    if pair.client.rank == pair.server.rank:
        client, server = native.both(call, serve)
        return {"client": client, "server": server}
    return {"server": serve()} if listener is not None else {"client": call()}


def _guarded(run: Callable[[], Outcome]) -> Outcome:
    """What went wrong is an outcome too: this rank must come to the next exchange."""
    try:
        return run()
    except CwaiError as error:
        return Outcome(failure=_failure(error))


def _report(
    ctx: Context,
    kind: Kind,
    pair: Pair,
    outcomes: dict[str, Outcome],
    told: list[dict[str, Any]],
    port: int,
    started: float,
) -> None:
    """Each end reports what it counted: of bandwidth what it received, of latency the end that asked."""
    by_role = {role: raw for end in (pair.client, pair.server) for role, raw in told[end.rank].items()}
    ends = {"client": pair.client, "server": pair.server}
    failures = [
        (ends[role].node, Failure.from_json(by_role[role]["failure"]))
        for role in ("client", "server")
        if by_role.get(role, {}).get("failure")
    ]
    owners = ["client"] if kind == "latency" else ["server"]
    if ctx.spec.parameters["direction"] == "two-way":
        owners = ["client", "server"]
    if failures and "client" not in by_role:
        owners = ["server"]  # it could not listen; the client has nothing to tell
    for role in owners:
        if ends[role].rank != ctx.group.rank:
            continue
        outcome = outcomes.get(role, Outcome())
        if failures:
            outcome = Outcome(failure=_joined(failures))
        elif kind == "latency":  # both ends have verified what they got
            other = by_role["server"]
            outcome.first_bad = outcome.first_bad if outcome.wrong else other["first_bad"]
            outcome.wrong += other["wrong"]
        outcome.strangers = by_role.get("server", {}).get("strangers", 0)
        _emit(ctx, kind, pair, ends[role], outcome, started, port)


def _emit(ctx: Context, kind: Kind, pair: Pair, owner: End, outcome: Outcome, started: float, port: int = 0) -> None:
    given = ctx.spec.parameters
    # The subject reads in the direction of the bytes: of two-way runs each end tells of what came to it.
    source, target = (
        (pair.client, pair.server) if kind == "latency" or owner is pair.server else (pair.server, pair.client)
    )
    speeds = [end.place.speed for end in (source, target) if end.place.speed]
    parameters: dict[str, Scalar] = {
        **{key: given[key] for key in ("transport", "direction", "bytes", "streams", "spin", "duration", "warmup")},
        "from_rank": source.rank,
        "to_rank": target.rank,
        "client_nic": source.place.nic,
        "server_nic": target.place.nic,
        "client_address": source.place.address,
        "server_address": target.place.address,
        "port": port,
    }
    if speeds:
        parameters["link_speed"] = min(speeds)
    if outcome.strangers:
        parameters["strangers"] = outcome.strangers
    correct: bool | None = None
    if given["verify"] and outcome.failure is None:
        correct = outcome.wrong == 0
        if outcome.wrong:
            parameters["bad_count"] = outcome.wrong
            parameters["first_bad_index"] = outcome.first_bad
    failure = outcome.failure
    if failure is None and not outcome.samples:
        failure = Failure("error", "error", Text("no message arrived in the time measured", "测量时间内没有消息到达"))
    ctx.emit(
        Measurement(
            metric=f"tcp.{kind}",
            unit="B/s" if kind == "bandwidth" else "s",
            subject=Subject("node", source.node)
            if pair.within_node
            else Subject("link", f"{source.node}→{target.node}"),
            samples=outcome.samples,
            parameters=parameters,
            started=started,
            duration=time.time() - started,
            node=ctx.node,
            rank=ctx.group.rank,
            spec=ctx.spec.id,
            warmup=int(given["warmup"]) if kind == "latency" else 0,
            correct=correct,
            status=failure.status if failure else "ok",
            reason_code=failure.code if failure else "wrong_data" if correct is False else "",
            reason=failure.reason if failure else None,
            stats=stats_of(outcome.samples),
        )
    )


for _kind, _info in (("bandwidth", BANDWIDTH), ("latency", LATENCY)):
    probe(_info, commands=("run", "rdma"), plan=_plan(_kind))(_measure(_kind))  # type: ignore[arg-type]
