"""What the bandwidth and latency probes of every transport have in common: their figures, defaults and choices.

Bandwidth is counted by the end that receives: bytes of whole messages over its own clock, a sample each 50 ms, after
a warm-up. Two-way: both ends send and receive at once, and each counts only while it was sending as well. Latency
is the full round trip, each one kept (perftest, sockperf and qperf print half of it). Data is verified in a pass of
its own, outside the timed part.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal

from cwai_bench.errors import UsageError
from cwai_bench.model import Action, CheckInfo, ItemKind, LeftOut, Scalar, Severity
from cwai_bench.probes import Options
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


def refuse_impossible(options: Options) -> None:
    """Raise UsageError for a choice that no transport of this version can serve."""
    if options.transport == "verbs":
        raise UsageError(
            Text("--transport verbs: {why}", "--transport verbs：{why}").fill(why=why_no_verbs().reason),
            Text("use --transport tcp, or auto", "请使用 --transport tcp 或 auto"),
        )
    for size in options.sizes or ():
        if not 1 <= size <= LARGEST:
            raise UsageError(
                Text("--sizes: {s} bytes is not between 1 B and 1 GiB", "--sizes：{s} 字节不在 1 B 到 1 GiB 之间").fill(
                    s=size
                )
            )
    if options.streams is not None and not 1 <= options.streams <= MOST_STREAMS:
        raise UsageError(
            Text("--streams: {n} is not between 1 and {m}", "--streams：{n} 不在 1 到 {m} 之间").fill(
                n=options.streams, m=MOST_STREAMS
            )
        )
    if not 1 <= options.port <= 65535:
        raise UsageError(
            Text("--port: {p} is not between 1 and 65535", "--port：{p} 不在 1 到 65535 之间").fill(p=options.port)
        )
    if options.duration is not None and options.duration <= 0:
        raise UsageError(Text("--duration must be more than 0", "--duration 必须大于 0"))


def why_no_verbs(devices: Path = Path("/sys/class/infiniband")) -> LeftOut:
    """Why a run that might use RDMA does not."""
    try:
        names = sorted(path.name for path in devices.iterdir())
    except OSError:
        names = []
    if names:
        return LeftOut(
            "verbs",
            "unsupported",
            Text(
                "there are RDMA devices ({names}), but verbs is not built into this version; TCP is measured instead",
                "本版本未内置 verbs，尽管存在 RDMA 设备（{names}）；改测 TCP",
            ).fill(names=", ".join(names)),
        )
    return LeftOut(
        "verbs",
        "absent",
        Text(
            "no RDMA device on this node, and verbs is not built into this version; TCP is measured instead",
            "本节点没有 RDMA 设备，且本版本未内置 verbs；改测 TCP",
        ),
    )


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


def bandwidth_arguments(given: dict[str, Scalar], *, sends: bool, receives: bool, timeout: float) -> dict[str, Any]:
    """Arguments of :meth:`Connection.bandwidth` for one end. Of long runs the interval grows: at most 2000 samples."""
    duration = float(given["duration"])
    return {
        "size": int(given["bytes"]),
        "sends": sends,
        "receives": receives,
        "duration": duration,
        "warmup": WARMUP_SECONDS,
        "warmup_messages": int(given["warmup"]),
        "interval": max(0.05, duration / MOST_SAMPLES),
        "verify": bool(given["verify"]),
        "timeout": timeout,
    }


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
    return 5 + 3 * (seconds_of(given, kind) + longest)
