"""What the bandwidth and latency probes of every transport have in common: their figures, defaults and choices.

Bandwidth is counted by the end that receives: bytes of whole messages over its own clock, a sample each 50 ms, after
a warm-up. Two-way: both ends send and receive at once, and each counts only while it was sending as well. Latency
is the full round trip, each one kept (perftest, sockperf and qperf print half of it). Data is verified in a pass of
its own, outside the timed part.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any, Literal

from cwai_bench.errors import UsageError
from cwai_bench.model import Action, CheckInfo, ItemKind, LeftOut, Scalar, Severity
from cwai_bench.probes import Options, Verb, World
from cwai_bench.text import Text

Kind = Literal["bandwidth", "latency"]

SIZES = (64 << 10, 1 << 20)
STREAMS = (1, 4)
DURATION = 0.8
"""Seconds of one bandwidth measurement unless the person gives another."""
WARMUP_SECONDS = 0.1
LATENCY_SIZE = 64
ITERATIONS = 2000
WARMUP_ITERATIONS = 100
LATENCY_SECONDS = 2.0
"""A latency measurement ends after this at the latest: on a slow link, with fewer samples."""
MOST_SAMPLES = 2000
LARGEST = 1 << 30
MOST_STREAMS = 64
MOST_QUEUE_PAIRS = 128
VERBS: tuple[Verb, ...] = ("write", "read", "send")
VERBS_LATENCY_SIZE = 2
ACK_UNIT = 4.096e-6
"""A packet's answer is waited for this many seconds times 2 to the power of the timeout (InfiniBand specification,
Local ACK Timeout)."""
LONGEST_RETRIES = 60.0
RANGES: dict[str, tuple[int, int]] = {
    "gid_index": (-1, 255),
    "service_level": (0, 15),
    "traffic_class": (0, 255),
    "qp_timeout": (0, 31),
    "retries": (0, 7),
    "depth": (1, 1 << 15),
    "post_list": (0, 1 << 15),
    "inline": (-1, 1 << 12),
}
"""What a queue pair may be told, as wide as its fields are (InfiniBand specification; of a GID table, what the kernel's
index holds), and for queues more than any device has."""
MTUS = (0, 256, 512, 1024, 2048, 4096)


def info_of(transport: str, kind: Kind, title: Text, method: Text, suggestion: Text, needs: list[str]) -> CheckInfo:
    return CheckInfo(
        id=f"{transport}.{kind}",
        kind=ItemKind.PROBE,
        scope=transport,
        title=title,
        method=method,
        criterion=Text(
            "the measurement ran to its end, and every byte of the verification pass was right",
            "测量正常完成，且校验数据的每个字节均正确",
        ),
        suggestion=suggestion,
        severity=Severity.MAJOR,
        action=Action.MONITOR,
        needs=needs,
        required=True,
    )


def refuse_impossible(options: Options, most_streams: int = MOST_STREAMS) -> None:
    """Raise UsageError for a choice that no transport, or none with so many streams, can serve."""
    for size in options.sizes or ():
        if not 1 <= size <= LARGEST:
            raise UsageError(
                Text("--sizes: {s} bytes is not between 1 B and 1 GiB", "--sizes：{s} 字节不在 1 B 到 1 GiB 之间").fill(
                    s=size
                )
            )
    if options.streams is not None:
        _refuse_outside("streams", options.streams, 1, most_streams)
    _refuse_outside("port", options.port, 1, 65535)
    if options.duration is not None and options.duration <= 0:
        raise UsageError(Text("--duration must be more than 0", "--duration 必须大于 0"))
    for name, (low, high) in RANGES.items():
        _refuse_outside(name, getattr(options, name), low, high)
    if options.memory == "gpu" and options.transport not in ("auto", "verbs"):
        raise UsageError(
            Text("--memory gpu: {t} has no such thing", "--memory gpu：{t} 不支持").fill(t=options.transport),
            Text("it belongs to RDMA: --transport verbs", "仅适用于 RDMA：--transport verbs"),
        )
    if options.mtu not in MTUS:
        raise UsageError(
            Text("--mtu: {m} is none of {all}", "--mtu：{m} 不在可选范围内：{all}").fill(
                m=options.mtu, all=", ".join(map(str, MTUS[1:]))
            ),
            Text("leave it out for the largest that both ends have", "不指定则使用两端都支持的最大值"),
        )
    if len(options.from_ends) != len(options.to_ends) and min(len(options.from_ends), len(options.to_ends)) > 1:
        raise UsageError(
            Text(
                "--from names {a} ends and --to {b}: the first is to meet the first, and so on",
                "--from 给出 {a} 个端点，--to 给出 {b} 个：两者须按顺序一一对应",
            ).fill(a=len(options.from_ends), b=len(options.to_ends)),
            Text("name as many, or one on one side", "请给出相同数量，或其中一侧只给一个"),
        )


def _refuse_outside(name: str, value: int, low: int, high: int) -> None:
    if not low <= value <= high:
        raise UsageError(
            Text("--{o}: {n} is not between {low} and {high}", "--{o}：{n} 不在 {low} 到 {high} 之间").fill(
                o=name.replace("_", "-"), n=value, low=low, high=high
            )
        )


def over_verbs(world: World, options: Options) -> bool:
    """Whether RDMA is what is measured between the nodes: asked for, or there on each of them.

    Raises UsageError when it is asked for and no node has it.
    """
    if options.transport == "verbs" or options.memory == "gpu":
        if world.rails and not any(rails.names for rails in world.rails):
            raise UsageError(
                Text("RDMA was asked for: {why}", "要求测试 RDMA：{why}").fill(why=_without_rails(world)),
                Text(
                    "`cwai-bench check --items 'rdma.*'` tells more; without RDMA: --transport tcp",
                    "`cwai-bench check --items 'rdma.*'` 可查看详情；无 RDMA 时请用 --transport tcp",
                ),
            )
        return True
    return options.transport == "auto" and bool(world.rails) and all(rails.names for rails in world.rails)


def undecided(world: World, options: Options) -> bool:
    """Whether it is still to be seen if RDMA is measured: then both are planned, to refuse what neither can do."""
    return options.transport == "auto" and not world.rails


def why_no_verbs(world: World) -> LeftOut:
    """Why a run that might use RDMA does not."""
    reason = _without_rails(world) if world.rails else Text("no node was looked at", "尚未查看任何节点")
    return LeftOut("verbs", "absent", Text("{why}; TCP is measured instead", "{why}；改测 TCP").fill(why=reason))


def _without_rails(world: World) -> Text:
    """The first of the nodes without an RDMA NIC, why, and how many more there are."""
    without = [(node, rails.why_none) for node, rails in zip(world.nodes, world.rails, strict=True) if not rails.names]
    node, why = without[0]
    said = Text("no RDMA on {n}: {w}", "{n} 无法使用 RDMA：{w}").fill(n=node, w=why or "?")
    if len(without) == 1:
        return said
    return Text("{s} (and {n} more)", "{s}（另有 {n} 个节点）").fill(s=said, n=len(without) - 1)


def bandwidth_choices(options: Options) -> Iterator[dict[str, Scalar]]:
    """Parameters of each bandwidth measurement.

    Unless sizes are given: 64 KiB and 1 MiB, 1 and 4 streams, one way; and both ways at once with 1 MiB on one stream.
    With sizes given, every combination.
    """
    sizes = options.sizes or SIZES
    streams = (options.streams,) if options.streams else STREAMS
    one_way = options.direction in ("one-way", "both")
    combinations = [(d, s, n) for d in ("one-way", "two-way") for s, n in itertools.product(sizes, streams)]
    if options.direction == "both" and options.sizes is None:
        combinations = [c for c in combinations if c[0] == "one-way"] + [("two-way", sizes[-1], streams[0])]
    for direction, size, count in combinations:
        if (direction == "one-way" and not one_way) or (direction == "two-way" and options.direction == "one-way"):
            continue
        yield {
            "direction": direction,
            "bytes": size,
            "streams": count,
            "duration": options.duration or DURATION,
            "warmup": options.warmup or 0,
            "spin": options.spin,
            "verify": options.verify,
        }


def latency_choices(options: Options) -> Iterator[dict[str, Scalar]]:
    """Parameters of each latency measurement: 64 B unless sizes are given."""
    for size in options.sizes or (LATENCY_SIZE,):
        yield {
            "direction": "round-trip",
            "bytes": size,
            "streams": 1,
            "duration": options.duration or LATENCY_SECONDS,
            "iterations": options.iterations or ITERATIONS,
            "warmup": WARMUP_ITERATIONS if options.warmup is None else options.warmup,
            "spin": options.spin,
            "verify": options.verify,
        }


def verbs_bandwidth_choices(options: Options) -> Iterator[dict[str, Scalar]]:
    """As of any transport, for each verb. Unless sizes or verbs are given, of read and send only the smallest size on
    one queue pair and the largest on most, one way."""
    for verb in options.verb or VERBS:
        choices = list(bandwidth_choices(options))
        if verb != "write" and options.verb is None and options.sizes is None:
            one_way = [c for c in choices if c["direction"] == "one-way"] or choices
            choices = one_way if len(one_way) < 2 else [one_way[0], one_way[-1]]
        for choice in choices:
            yield {"verb": verb, **choice, **_of_queue_pairs(options)}


def verbs_latency_choices(options: Options) -> Iterator[dict[str, Scalar]]:
    """Each verb with 2 B unless sizes or verbs are given."""
    for verb in options.verb or VERBS:
        for choice in latency_choices(replace(options, sizes=options.sizes or (VERBS_LATENCY_SIZE,))):
            yield {"verb": verb, **choice, **_of_queue_pairs(options)}


def _of_queue_pairs(options: Options) -> dict[str, Scalar]:
    """What queue pairs are made with. They are polled, never slept on."""
    return {
        "spin": True,
        "mtu": options.mtu,
        **{name: getattr(options, name) for name in RANGES},
        **{name: getattr(options, name) for name in ("relaxed_ordering", "huge_pages", "cold")},
        "memory": options.memory,
        "device": ",".join(options.device),
        "as_node": ",".join(options.as_node),
    }


def bandwidth_arguments(given: dict[str, Scalar], *, sends: bool, receives: bool, timeout: float) -> dict[str, Any]:
    """Arguments of :meth:`Connection.bandwidth` for one end. Of long runs the interval grows: at most 2000 samples."""
    return {
        "size": int(given["bytes"]),
        "sends": sends,
        "receives": receives,
        "duration": float(given["duration"]),
        "warmup": WARMUP_SECONDS,
        "warmup_messages": int(given["warmup"]),
        "interval": interval_of(given),
        "verify": bool(given["verify"]),
        "timeout": timeout,
    }


def interval_of(given: Mapping[str, Scalar]) -> float:
    """Seconds between two samples of bandwidth."""
    return max(0.05, float(given["duration"]) / MOST_SAMPLES)


def latency_arguments(given: dict[str, Scalar], *, initiates: bool, timeout: float) -> dict[str, Any]:
    """Arguments of :meth:`Connection.latency` for one end."""
    return {
        "size": int(given["bytes"]),
        "initiates": initiates,
        "iterations": int(given["iterations"]),
        "duration": float(given["duration"]),
        "warmup": int(given["warmup"]),
        "verify": bool(given["verify"]),
        "timeout": timeout,
    }


def seconds_of(given: dict[str, Scalar], kind: Kind) -> float:
    """How long one measurement is expected to take: connection, warm-up, the timed part, verification."""
    verification = int(given["bytes"]) * int(given["streams"]) * 4e-9
    timed = float(given["duration"]) + WARMUP_SECONDS if kind == "bandwidth" else min(0.2, float(given["duration"]))
    return 0.1 + timed + verification


def patience(given: dict[str, Scalar], kind: Kind) -> float:
    """Seconds after which one pair is given up: a multiple of what it should take, and time for a slow link."""
    longest = float(given["duration"]) if kind == "latency" else 0.0
    return 5 + 3 * (seconds_of(given, kind) + longest) + _retrying(given)


def _retrying(given: Mapping[str, Scalar]) -> float:
    """Seconds that a queue pair tries again before it gives its peer up: sooner, nobody would learn why it failed."""
    if "qp_timeout" not in given:
        return 0.0
    return min(LONGEST_RETRIES, ACK_UNIT * (1 << int(given["qp_timeout"])) * (int(given["retries"]) + 1))
