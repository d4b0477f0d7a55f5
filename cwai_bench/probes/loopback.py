"""Bandwidth and latency of memory, between two threads of one process on each node.

The sender copies straight into the receiver's buffer: what one core can copy, and how fast one thread learns what
another has written. No network is in it: it tells a slow node from a slow network.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import replace

from cwai_bench import native
from cwai_bench.model import LeftOut, Measurement, ProbeSpec, Scalar, Subject, stats_of
from cwai_bench.probes import Context, Options, World, probe
from cwai_bench.probes.transport import (
    MOST_STREAMS,
    Kind,
    bandwidth_arguments,
    bandwidth_choices,
    info_of,
    latency_arguments,
    latency_choices,
    patience,
    refuse_impossible,
    seconds_of,
)
from cwai_bench.text import Text

_SUGGESTION = Text(
    "compare with nodes of the same kind; check the CPU governor, memory channels, and what else runs",
    "与同型号节点比较；检查 CPU 调频策略、内存通道以及其他正在运行的程序",
)
BANDWIDTH = info_of(
    "loopback",
    "bandwidth",
    Text("memory bandwidth between two threads", "两线程间内存带宽"),
    Text(
        "one thread copies messages into the buffers of another; the receiver counts",
        "一个线程将消息复制到另一线程的缓冲区；由接收端计数",
    ),
    _SUGGESTION,
    [],
)
LATENCY = info_of(
    "loopback",
    "latency",
    Text("round trip between two threads", "两线程间往返时延"),
    Text(
        "small messages there and back between two threads, one at a time; each full round trip is kept",
        "小消息在两个线程间逐个往返；保留每次完整往返的时间",
    ),
    _SUGGESTION,
    [],
)


def _plan(kind: Kind) -> Callable[[World, Options], list[ProbeSpec | LeftOut]]:
    """With ``--transport loopback`` as for any transport; with ``auto`` one measurement beside the network's."""
    info = BANDWIDTH if kind == "bandwidth" else LATENCY
    choices = bandwidth_choices if kind == "bandwidth" else latency_choices

    def plan(_world: World, options: Options) -> list[ProbeSpec | LeftOut]:
        if options.transport == "auto" and options.streams is not None:  # so many streams are for the network
            options = replace(options, streams=min(options.streams, MOST_STREAMS))
        refuse_impossible(options)
        if options.transport not in ("auto", "loopback") or options.kind not in (kind, "both"):
            return []
        wanted = list(choices(options))
        if options.transport == "auto":
            wanted = [w for w in wanted if w["direction"] != "two-way" and w["streams"] == wanted[0]["streams"]][-1:]
        found: list[ProbeSpec | LeftOut] = []
        for number, choice in enumerate(wanted):
            parameters: dict[str, Scalar] = {"transport": "loopback", **choice}
            found.append(
                ProbeSpec(
                    f"{info.id}#{number}",
                    info.id,
                    info,
                    parameters,
                    seconds_of(parameters, kind),
                    options.item_timeout or max(10.0, 5 + patience(parameters, kind)),
                )
            )
        return found

    return plan


def _measure(kind: Kind) -> Callable[[Context], None]:
    def measure(ctx: Context) -> None:
        if ctx.group.rank not in ctx.group.leaders:
            return
        given = ctx.spec.parameters
        timeout = min(patience(given, kind), max(0.1, ctx.deadline - time.monotonic()))
        two_way = given["direction"] == "two-way"
        started = time.time()
        first, second = native.memory_pair(lanes=int(given["streams"]), spin=bool(given["spin"]))
        wrong, first_bad = 0, -1
        with first, second:
            if kind == "bandwidth":
                there = bandwidth_arguments(given, sends=True, receives=two_way, timeout=timeout)
                back = bandwidth_arguments(given, sends=two_way, receives=True, timeout=timeout)
                moved = native.both(lambda: first.bandwidth(**there), lambda: second.bandwidth(**back))
                results = [(m.samples.tolist(), m.wrong, m.first_bad) for m in moved if m.messages]
            else:
                asks = latency_arguments(given, initiates=True, timeout=timeout)
                answers = latency_arguments(given, initiates=False, timeout=timeout)
                trips = native.both(lambda: first.latency(**asks), lambda: second.latency(**answers))
                bad = next((t for t in trips if t.wrong), trips[0])
                results = [(trips[0].samples.tolist(), sum(t.wrong for t in trips), bad.first_bad)]
        for number, (samples, wrong, first_bad) in enumerate(results):
            parameters = {
                **given,
                **({"end": number} if len(results) > 1 else {}),
                **({"bad_count": wrong, "first_bad_index": first_bad} if wrong else {}),
            }
            ctx.emit(
                Measurement(
                    metric=f"loopback.{kind}",
                    unit="B/s" if kind == "bandwidth" else "s",
                    subject=Subject("node", ctx.node),
                    samples=samples,
                    parameters=parameters,
                    started=started,
                    duration=time.time() - started,
                    node=ctx.node,
                    rank=ctx.group.rank,
                    spec=ctx.spec.id,
                    warmup=int(given["warmup"]) if kind == "latency" else 0,
                    correct=wrong == 0 if given["verify"] else None,
                    reason_code="wrong_data" if wrong else "",
                    stats=stats_of(samples),
                )
            )

    return measure


for _kind, _info in (("bandwidth", BANDWIDTH), ("latency", LATENCY)):
    probe(_info, commands=("run", "rdma"), plan=_plan(_kind))(_measure(_kind))  # type: ignore[arg-type]
