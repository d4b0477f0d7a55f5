"""Sweep of the collectives of an MPI library: one probe for each operation, every size, every rank.

Size and bandwidth are those of nccl-tests (doc/PERFORMANCE.md): algorithm bandwidth = bytes / time, bus bandwidth =
algorithm bandwidth x factor, which makes operations and numbers of ranks comparable with the speed of the links.

Each iteration is timed alone, from leaving a barrier to the completion of this rank's part (nccl-tests: ``-z 3``;
its default is the pipelined mean, which is smaller for small sizes). The answer is verified on every rank in a call
of its own, with exact data and a cleared receive buffer, before anything is timed.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

from cwai_bench.errors import UsageError
from cwai_bench.model import (
    Action,
    CheckInfo,
    ItemKind,
    LeftOut,
    Measurement,
    ProbeSpec,
    Severity,
    Subject,
    stats_of,
)
from cwai_bench.probes import Context, Options, World, probe
from cwai_bench.text import Text

SMALL = 64 << 10
"""Up to this many bytes a call is so short that ten warm-ups cost nothing; above, two."""
POINT_SECONDS = 0.04
"""What the iterations of one size may take unless a number is given: 5 to 2000 of them fit."""
LEAST, MOST = 5, 2000
AGREE_MARGIN = 2.0
"""Seconds before the deadline at which no further size is begun."""


@dataclass(frozen=True)
class Operation:
    """``factor(n)``: bus bandwidth over algorithm bandwidth for n ranks."""

    name: str
    title: Text
    factor: Callable[[int], float]


OPERATIONS = {
    o.name: o
    for o in (
        Operation("all_reduce", Text("all-reduce", "全归约 all_reduce"), lambda n: 2 * (n - 1) / n),
        Operation("all_gather", Text("all-gather", "全收集 all_gather"), lambda n: (n - 1) / n),
        Operation("reduce_scatter", Text("reduce-scatter", "归约散播 reduce_scatter"), lambda n: (n - 1) / n),
        Operation("broadcast", Text("broadcast", "广播 broadcast"), lambda _: 1.0),
        Operation("alltoall", Text("all-to-all", "全交换 alltoall"), lambda n: (n - 1) / n),
        Operation("reduce", Text("reduce", "归约 reduce"), lambda _: 1.0),
        Operation("sendrecv", Text("send and receive in a ring", "环形收发 sendrecv"), lambda _: 1.0),
    )
}


def info_of(operation: Operation) -> CheckInfo:
    return CheckInfo(
        id=f"mpi.{operation.name}",
        kind=ItemKind.PROBE,
        scope="mpi",
        title=Text("MPI {o}", "MPI {o}").fill(o=operation.title),
        method=Text(
            "MPI calls from a C++ loop: barrier, clock, operation, clock; the result verified on every rank beforehand",
            "C++ 循环调用 MPI：屏障、计时、操作、计时；每个进程事先校验结果",
        ),
        criterion=Text(
            "every rank finished every size, and every element that arrived was right",
            "每个进程完成所有数据量，且收到的每个元素均正确",
        ),
        suggestion=Text(
            "wrong data: check memory and NIC of the node named; no result: see the other probes for its network",
            "数据错误：检查所列节点的内存与网卡；没有结果：参考其他探测项检查其网络",
        ),
        severity=Severity.CRITICAL,
        action=Action.ISOLATE,
        needs=["mpi", "two ranks"],
        required=True,
    )


def sizes_of(options: Options) -> list[int]:
    """From the smallest to the largest size by the factor, both included."""
    if options.min_bytes > options.max_bytes:
        raise UsageError(
            Text("-b {b} is larger than -e {e}", "-b {b} 大于 -e {e}").fill(b=options.min_bytes, e=options.max_bytes),
            Text("swap them", "请交换二者"),
        )
    if options.step_factor < 2:
        raise UsageError(
            Text("-f {f}: the factor must be at least 2", "-f {f}：倍数至少为 2").fill(f=options.step_factor),
            Text("leave it out for 2", "省略则为 2"),
        )
    sizes = [options.min_bytes]
    while sizes[-1] * options.step_factor <= options.max_bytes:
        sizes.append(sizes[-1] * options.step_factor)
    return sizes


def expected_seconds(sizes: list[int], world: World, options: Options) -> float:
    """Data is written and compared at about 1 GB/s, and moved at about as much, a few times at least."""
    per_byte = 1e-9 * (2 + LEAST + 2)
    moved = sum(max(POINT_SECONDS, size * per_byte) for size in sizes)
    if options.iterations:
        moved = sum(options.iterations * (2e-5 + size * 1e-9) for size in sizes)
    return 0.1 + moved * (1 + 0.05 * max(0, world.size - 2))


def _plan(operation: Operation) -> Callable[[World, Options], list[ProbeSpec | LeftOut]]:
    info = info_of(operation)

    def plan(world: World, options: Options) -> list[ProbeSpec | LeftOut]:
        unknown = set(options.operations or ()) - set(OPERATIONS)
        if unknown:
            raise UsageError(
                Text("--operations: {u} is not one", "--operations：{u} 不是有效的操作").fill(
                    u=", ".join(sorted(unknown))
                ),
                Text("operations: {o}", "可用操作：{o}").fill(o=", ".join(OPERATIONS)),
            )
        if options.operations is not None and operation.name not in options.operations:
            return []
        if world.size < 2:
            return [
                LeftOut(info.id, "one_rank", Text("a collective needs two ranks or more", "集合通信至少需要两个进程"))
            ]
        sizes = sizes_of(options)
        expected = expected_seconds(sizes, world, options)
        return [
            ProbeSpec(
                id=f"{info.id}#0",
                probe=info.id,
                info=info,
                parameters={
                    "operation": operation.name,
                    "min_bytes": sizes[0],
                    "max_bytes": sizes[-1],
                    "factor": options.step_factor,
                    "iterations": options.iterations or 0,
                    "warmup": options.warmup or 0,
                    "verify": options.verify,
                },
                expected=expected,
                deadline=options.item_timeout or max(30.0, 10 * expected),
            )
        ]

    return plan


def measure(ctx: Context) -> None:
    """Every size of one operation. Ranks agree before each size whether there is time for it."""
    from mpi4py import MPI

    from cwai_bench import native

    operation = OPERATIONS[str(ctx.spec.parameters["operation"])]
    given = ctx.spec.parameters
    sizes = sizes_of(
        Options(min_bytes=int(given["min_bytes"]), max_bytes=int(given["max_bytes"]), step_factor=int(given["factor"]))
    )
    library = MPI.Get_library_version().split("\n")[0].split(",")[0].strip("\0 ")
    sweep = native.MpiSweep(ctx.group.comm, largest=sizes[-1])
    last = 0
    for size in sizes:
        left = ctx.deadline - time.monotonic()
        if min(ctx.group.allgather(left)) < AGREE_MARGIN:
            ctx.emit(_unfinished(ctx, operation, size, library))
            return
        started = time.time()
        point = sweep.measure(
            operation=operation.name,
            bytes=size,
            iterations=int(given["iterations"]),
            least=LEAST,
            most=MOST,
            limit=POINT_SECONDS,
            warmup=int(given["warmup"]) or (10 if size <= SMALL else 2),
            verify=bool(given["verify"]),
            seed=size,
            timeout=max(left, AGREE_MARGIN),
        )
        if point.bytes == last:  # fewer bytes than ranks: the same point again
            continue
        last = point.bytes
        samples = [float(s) for s in point.samples]
        parameters = {
            **_common(ctx, operation, library),
            "bytes": point.bytes,
            "count": point.count,
            "iterations": len(samples),
            "bad_count": point.wrong,
        }
        if point.wrong:
            parameters["first_bad_index"] = point.first_bad
        ctx.emit(
            Measurement(
                metric=f"mpi.{operation.name}.time",
                unit="s",
                subject=Subject("rank", f"{ctx.node}/rank{ctx.group.rank}"),
                samples=samples,
                parameters=parameters,
                started=started,
                duration=time.time() - started,
                node=ctx.node,
                rank=ctx.group.rank,
                spec=ctx.spec.id,
                warmup=point.warmup,
                correct=point.wrong == 0 if given["verify"] else None,
                stats=stats_of(samples),
            )
        )


def _common(ctx: Context, operation: Operation, library: str) -> dict[str, bool | int | float | str]:
    ranks = ctx.group.size
    return {
        "library": library,
        "operation": operation.name,
        "dtype": "float32",
        "ranks": ranks,
        "bus_factor": operation.factor(ranks),
    }


def _unfinished(ctx: Context, operation: Operation, size: int, library: str) -> Measurement:
    return Measurement(
        metric=f"mpi.{operation.name}.time",
        unit="s",
        subject=Subject("rank", f"{ctx.node}/rank{ctx.group.rank}"),
        samples=[],
        parameters={**_common(ctx, operation, library), "bytes": size},
        started=time.time(),
        duration=0.0,
        node=ctx.node,
        rank=ctx.group.rank,
        spec=ctx.spec.id,
        status="timeout",
        reason_code="timeout",
        reason=Text("time ran out before this size", "尚未测到该数据量即超时"),
    )


for _operation in OPERATIONS.values():
    probe(info_of(_operation), commands=("run", "collective"), plan=_plan(_operation))(measure)
