"""Sweep of the collectives of a library: one probe for each library and operation, every size, every rank.

Size and bandwidth are those of nccl-tests (doc/PERFORMANCE.md): algorithm bandwidth = bytes / time, bus bandwidth =
algorithm bandwidth x factor, which makes operations and numbers of ranks comparable with the speed of the links.

Every size is timed in two ways. *Isolated*: each iteration alone, from leaving a barrier to the completion of this
rank's part (nccl-tests: ``-z 3``), all samples kept (metric ``LIBRARY.OPERATION.time``; of cards besides what their
own clock says, ``.device``). *Pipelined*: all iterations posted one after another, their mean (nccl-tests' default,
smaller for small sizes; the parameter ``pipelined`` of the same measurement; bandwidth is made of it). By how much a
rank came later than the first to an isolated iteration is ``.arrival``: who comes late makes the others wait, and it is
their time that is long.

The answer is verified on every rank in a call of its own, with exact data and a cleared receive buffer, before anything
is timed.
"""

from __future__ import annotations

import os
import time
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cwai_bench.collective_bound import bus_factor
from cwai_bench.collective_library import Version, of_file
from cwai_bench.errors import CwaiError, DeadlineError, DeviceError, UsageError
from cwai_bench.model import (
    Action,
    CheckInfo,
    ItemKind,
    LeftOut,
    Measurement,
    MeasureStatus,
    ProbeSpec,
    Scalar,
    Severity,
    Subject,
    stats_of,
)
from cwai_bench.probes import Context, Options, World, cards, nccl, probe
from cwai_bench.text import Text

if TYPE_CHECKING:
    from cwai_bench.native import Collective, CollectivePoint
    from cwai_bench.native.door import Samples

SMALL = 64 << 10
"""Up to this many bytes a call is so short that ten warm-ups cost nothing; above, two."""
POINT_SECONDS = 0.03
"""What the iterations of one size may take, in each way of timing, unless a number is given: 5 to 2000 of them fit."""
LEAST, MOST = 5, 2000
ARRIVALS = 20
"""Iterations below which nobody's coming late says anything."""
LOOPBACK_MEMBERS = 4
SLOW_PART = ".slow_part"
SEARCHED = 64 << 20
"""Bytes that the search for a slow part measures with, at most."""
SEARCH_MARGIN = 5.0
"""Seconds before the deadline at which it begins no further round."""
AGREE_MARGIN = 2.0
"""Seconds before the deadline at which no further size is begun."""


@dataclass(frozen=True)
class Operation:
    name: str
    title: Text

    def factor(self, ranks: int) -> float:
        """Bus bandwidth over algorithm bandwidth."""
        return bus_factor(self.name, ranks)


OPERATIONS = {
    o.name: o
    for o in (
        Operation("all_reduce", Text("all-reduce", "全归约 all_reduce")),
        Operation("all_gather", Text("all-gather", "全收集 all_gather")),
        Operation("reduce_scatter", Text("reduce-scatter", "归约散播 reduce_scatter")),
        Operation("broadcast", Text("broadcast", "广播 broadcast")),
        Operation("alltoall", Text("all-to-all", "全交换 alltoall")),
        Operation("alltoallv", Text("all-to-all of uneven blocks", "不等量全交换 alltoallv")),
        Operation("reduce", Text("reduce", "归约 reduce")),
        Operation("gather", Text("gather", "收集 gather")),
        Operation("scatter", Text("scatter", "散播 scatter")),
        Operation("sendrecv", Text("send and receive in a ring", "环形收发 sendrecv")),
    )
}


@dataclass(frozen=True)
class Library:
    """A library that is measured. ``join`` makes this rank's part of the group over a communicator (every rank of that
    calls it); ``refusal`` says why it cannot be measured in a world, if it cannot."""

    name: str
    title: str
    needs: tuple[str, ...]
    method: Text
    largest: int
    join: Callable[[Context, Any, int], Collective]
    refusal: Callable[[World, Options], LeftOut | None]


def _needs_ranks(world: World, _options: Options) -> LeftOut | None:
    if world.size >= 2:
        return None
    return LeftOut("", "one_rank", Text("a collective needs two ranks or more", "集合通信至少需要两个进程"))


def _over_mpi(ctx: Context, comm: Any, largest: int) -> Collective:
    del ctx
    from cwai_bench import native

    return native.over_mpi(comm, largest=largest)


def _needs_alone(world: World, options: Options) -> LeftOut | None:
    if options.library == "loopback" and world.size > 1:
        raise UsageError(
            Text("--library loopback is a group within one process", "--library loopback 是单个进程内的一组成员"),
            Text("leave out -np and mpirun; --cards N for N members", "请勿使用 -np 或 mpirun；--cards N 指定成员数"),
        )
    return None


def _in_loopback(ctx: Context, comm: Any, largest: int) -> Collective:
    del comm
    from cwai_bench import native

    return native.over_loopback(int(ctx.spec.parameters["cards"]) or LOOPBACK_MEMBERS, largest=largest)


def _needs_cards(kind: cards.Kind, world: World, options: Options) -> LeftOut | None:
    """Every rank needs a card, and all of them more than one."""
    seen = _seen(kind, world)
    if not seen:  # nobody has looked
        return None
    without = [node for node, count in seen if count == 0]
    if without:
        return LeftOut("", "absent", kind.absent.fill(n=without[0]))
    members = sum(len(cards.of_rank(rank, seen, options.cards, kind=kind)) for rank in range(world.size))
    if members < 2:
        few = Text("a collective needs two {k}s or more", "集合通信至少需要两张 {k}")
        return LeftOut("", "one_rank", few.fill(k=kind.name))
    return None


def _seen(kind: cards.Kind, world: World) -> cards.Seen:
    return world.cards if kind is cards.GPU else world.npus


def _over_nccl(ctx: Context, comm: Any, largest: int) -> Collective:
    """Raises DeviceError where the ranks do not all have loaded the same."""
    from cwai_bench import native

    given = ctx.spec.parameters
    seen = tuple((node, count) for node, count in _all(comm, (ctx.node, cards.GPU.look())))
    mine = cards.of_rank(0 if comm is None else comm.rank, seen, int(given.get("cards", 0)))
    nccl.begin_log()
    group = native.over_nccl(
        comm,
        cards=mine,
        largest=largest,
        sharp={"on": True, "off": False}.get(str(given.get("sharp"))),
        registered=bool(given.get("registered")),
        timeout=max(ctx.deadline - time.monotonic(), AGREE_MARGIN),
    )
    group.cards = tuple(map(cards.GPU.place, mine))
    version = nccl.loaded()
    mixture = nccl.mixture(_all(comm, None if version is None else str(version)))
    if mixture is not None and mixture.refused:
        raise DeviceError(mixture.text, Text("load the same library on all nodes", "请在所有节点加载相同的库"))
    if version is not None:
        group.named = f"{version}{' (stand-in)' if group.library.endswith('(stand-in)') else ''}"
    return group


def _over_hccl(ctx: Context, comm: Any, largest: int) -> Collective:
    """Raises DeviceError where the ranks would not all load the same, before they do."""
    from cwai_bench import native

    seen = tuple((node, count) for node, count in _all(comm, (ctx.node, cards.NPU.look())))
    rank = 0 if comm is None else comm.rank
    mine = cards.of_rank(rank, seen, int(ctx.spec.parameters.get("cards", 0)), kind=cards.NPU)
    version: Version | None = None
    with suppress(CwaiError, OSError):  # what cannot be loaded is told by all together, below
        version = of_file(Path(native.hccl_path()))
    mixture = nccl.mixture(_all(comm, None if version is None else str(version)))
    if mixture is not None and mixture.refused:
        raise DeviceError(mixture.text, Text("load the same toolkit on all nodes", "请在所有节点加载相同的 CANN"))
    group = native.over_hccl(
        comm, cards=mine, largest=largest, timeout=max(ctx.deadline - time.monotonic(), AGREE_MARGIN)
    )
    group.cards = tuple(map(cards.NPU.place, mine))
    if version is not None:
        group.named = f"{version}{' (stand-in)' if group.library.endswith('(stand-in)') else ''}"
    return group


def _all(comm: Any, mine: Any) -> list[Any]:
    return [mine] if comm is None else list(comm.allgather(mine))


def _keep_log(ctx: Context) -> None:
    log = nccl.read_log(ctx.spec.id, ctx.group.rank)
    if log is not None:
        ctx.keep(log)


LIBRARIES = {
    library.name: library
    for library in (
        Library(
            "mpi",
            "MPI",
            ("mpi", "two ranks"),
            Text("MPI calls from a C++ loop", "C++ 循环调用 MPI"),
            64 << 20,
            _over_mpi,
            _needs_ranks,
        ),
        Library(
            "nccl",
            "NCCL",
            ("nccl", "two NVIDIA GPUs"),
            Text("NCCL calls from a C++ loop, on the GPUs' streams", "C++ 循环在 GPU 流上调用 NCCL"),
            1 << 30,
            _over_nccl,
            partial(_needs_cards, cards.GPU),
        ),
        Library(
            "hccl",
            "HCCL",
            ("hccl", "two Ascend NPUs"),
            Text("HCCL calls from a C++ loop, on the NPUs' streams", "C++ 循环在 NPU 流上调用 HCCL"),
            1 << 30,
            _over_hccl,
            partial(_needs_cards, cards.NPU),
        ),
        Library(
            "loopback",
            "loopback",
            (),
            Text("the CPU does it, within one process", "由 CPU 在单个进程内完成"),
            16 << 20,
            _in_loopback,
            _needs_alone,
        ),
    )
}


def info_of(library: Library, operation: Operation) -> CheckInfo:
    return CheckInfo(
        id=f"{library.name}.{operation.name}",
        kind=ItemKind.PROBE,
        scope=library.name,
        title=Text("{l} {o}", "{l} {o}").fill(l=library.title, o=operation.title),
        method=Text(
            "{m}: barrier, clock, operation, clock; then all in one go; the result verified on every rank beforehand",
            "{m}：屏障、计时、操作、计时；再连续执行；每个进程事先校验结果",
        ).fill(m=library.method),
        criterion=Text(
            "every rank finished every size, and every element that arrived was right",
            "每个进程完成所有数据量，且收到的每个元素均正确",
        ),
        suggestion=Text(
            "wrong data: check memory, card and NIC of the node named; late: see what else runs on its CPUs, and their "
            "frequency; slow: see the probes of its network and cards; no result: see its log",
            "数据错误：检查所列节点的内存、加速卡与网卡；晚到：检查其 CPU 上的其他程序及 CPU 频率；"
            "过慢：参考其网络与加速卡的探测项；没有结果：查看其日志",
        ),
        severity=Severity.CRITICAL,
        action=Action.ISOLATE,
        needs=list(library.needs),
        required=True,
    )


def sizes_of(options: Options, largest: int = 0) -> list[int]:
    """From the smallest to the largest size by the factor, or by the step in bytes; both included. ``largest``: what
    stands for a largest size that was not given."""
    most = options.max_bytes or largest
    if options.min_bytes > most:
        raise UsageError(
            Text("-b {b} is larger than -e {e}", "-b {b} 大于 -e {e}").fill(b=options.min_bytes, e=most),
            Text("swap them", "请交换二者"),
        )
    if options.step_bytes:
        if (most - options.min_bytes) // options.step_bytes >= MOST:
            raise UsageError(
                Text("-i {i} gives more than {n} sizes", "-i {i} 得到的数据量超过 {n} 个").fill(
                    i=options.step_bytes, n=MOST
                ),
                Text("take a larger step", "请加大步长"),
            )
        return list(range(options.min_bytes, most + 1, options.step_bytes))
    if options.step_factor < 2:
        raise UsageError(
            Text("-f {f}: the factor must be at least 2", "-f {f}：倍数至少为 2").fill(f=options.step_factor),
            Text("leave it out for 2", "省略则为 2"),
        )
    sizes = [options.min_bytes]
    while sizes[-1] * options.step_factor <= most:
        sizes.append(sizes[-1] * options.step_factor)
    return sizes


def expected_seconds(sizes: list[int], world: World, options: Options) -> float:
    """Data is written and compared at about 1 GB/s, and moved at about as much, a few times at least."""
    per_byte = 1e-9 * (2 + 2 * LEAST + 2)
    moved = sum(max(2 * POINT_SECONDS, size * per_byte) for size in sizes)
    if options.iterations:
        moved = sum(2 * options.iterations * (2e-5 + size * 1e-9) for size in sizes)
    return 0.1 + moved * (1 + 0.05 * max(0, world.size - 2))


def _named(what: str, given: tuple[str, ...] | None, known: tuple[str, ...]) -> tuple[str, ...]:
    """``given``, or the first known. Raises UsageError for a name that is none."""
    unknown = set(given or ()) - set(known)
    if unknown:
        raise UsageError(
            Text("{w}: {u} is not one", "{w}：{u} 无效").fill(w=what, u=", ".join(sorted(unknown))),
            Text("there are: {o}", "可用：{o}").fill(o=", ".join(known)),
        )
    return given or known[:1]


DTYPES = (
    *("float32", "float64", "float16", "bfloat16", "float8_e4m3", "float8_e5m2"),
    *("int8", "uint8", "int16", "uint16", "int32", "uint32", "int64", "uint64"),
)
REDUCTIONS = ("sum", "prod", "max", "min", "avg", "premulsum")


def _chosen(world: World, options: Options) -> tuple[str, ...]:
    """The libraries that are measured: the one that was named; else that of the cards where every rank has some, and
    MPI."""
    if options.library != "auto":
        return (options.library,)
    for library, seen in (("nccl", world.cards), ("hccl", world.npus)):
        if seen and all(count for _, count in seen):
            return (library, "mpi")
    return ("mpi",)


def _plan(library: Library, operation: Operation, world: World, options: Options) -> list[ProbeSpec | LeftOut]:
    info = info_of(library, operation)
    if library.name not in _chosen(world, options):
        return []
    wanted = _named("--operations", options.operations, tuple(OPERATIONS))
    dtypes = _named("--dtype", options.dtypes, DTYPES)
    reductions = _named("--reduction", options.reductions, REDUCTIONS)
    if options.operations is not None and operation.name not in wanted:
        return []
    refused = library.refusal(world, options)
    if refused is not None:
        return [LeftOut(info.id, refused.reason_code, refused.reason)]
    if options.rehearse is not None and options.rehearse[0] >= world.size:
        raise UsageError(
            Text("--rehearse: there is no rank {r}", "--rehearse：没有 rank {r}").fill(r=options.rehearse[0]),
            Text("ranks are 0 to {n}", "rank 为 0 至 {n}").fill(n=world.size - 1),
        )
    if options.root_rank >= world.size:
        raise UsageError(
            Text("--root-rank: there is no rank {r}", "--root-rank：没有 rank {r}").fill(r=options.root_rank),
            Text("ranks are 0 to {n}", "rank 为 0 至 {n}").fill(n=world.size - 1),
        )
    sizes = sizes_of(options, library.largest)
    reducing = operation.name in ("all_reduce", "reduce_scatter", "reduce")
    variants = len(dtypes) * (len(reductions) if reducing else 1) * (2 if options.placement == "both" else 1)
    expected = expected_seconds(sizes, world, options) * variants
    given: dict[str, Scalar] = {
        "operation": operation.name,
        "min_bytes": sizes[0],
        "max_bytes": sizes[-1],
        "factor": options.step_factor,
        "iterations": options.iterations or 0,
        "warmup": options.warmup or 0,
        "verify": options.verify,
        "dtypes": ",".join(dtypes),
        "reductions": ",".join(reductions) if reducing else "",
        "placement": options.placement,
        "root": options.root_rank,
        "cards": options.cards,
        "graph": options.graph,
        "registered": options.registered,
        "sharp": options.sharp,
    }
    if options.step_bytes:
        given["step_bytes"] = options.step_bytes
    if options.rehearse is not None:
        given |= {"late_rank": options.rehearse[0], "late": options.rehearse[1]}
    if library.name != "nccl":
        for name in ("graph", "registered", "sharp"):
            del given[name]
    # With and without SHARP in one run, each with a communicator of its own.
    ways = ("on", "off") if given.get("sharp") == "both" else (given.get("sharp"),)
    return [
        ProbeSpec(
            id=f"{info.id}#{number}",
            probe=info.id,
            info=info,
            parameters=given if way is None else given | {"sharp": way},
            expected=expected,
            deadline=options.item_timeout or max(30.0, 10 * expected),
        )
        for number, way in enumerate(ways)
    ]


def _sizes(given: dict[str, Scalar]) -> list[int]:
    return sizes_of(
        Options(
            min_bytes=int(given["min_bytes"]),
            max_bytes=int(given["max_bytes"]),
            step_factor=int(given["factor"]),
            step_bytes=int(given.get("step_bytes", 0)),
        )
    )


def _measure(library: Library, ctx: Context) -> None:
    """Every size of one operation, of each type, reduction and placement. Ranks agree before each size whether there is
    time for it."""
    given = ctx.spec.parameters
    operation = OPERATIONS[str(given["operation"])]
    sizes = _sizes(given)
    try:
        group = library.join(ctx, ctx.group.comm, sizes[-1])
    finally:
        if library.name == "nccl":
            _keep_log(ctx)
    run = _Run(ctx, library, operation, group)
    reductions = str(given["reductions"]).split(",")
    placements = {"out": (False,), "in": (True,), "both": (False, True)}[str(given["placement"])]
    for dtype in str(given["dtypes"]).split(","):
        for reduction in reductions:
            for in_place in placements:
                if not run.sweep(sizes, dtype, reduction, in_place):
                    return


@dataclass
class _Run:
    """One operation being measured on this rank."""

    ctx: Context
    library: Library
    operation: Operation
    group: Collective
    steps: int = 0

    def sweep(self, sizes: list[int], dtype: str, reduction: str, in_place: bool) -> bool:
        """False when time has run out, or the library is of no more use."""
        given = self.ctx.spec.parameters
        common = self._common(dtype, reduction, in_place)
        if not self.group.can(self.operation.name, dtype=dtype, reduction=reduction or "sum", in_place=in_place):
            form = (
                Text("{l} cannot do {h} in place", "{l} 不支持原地 {h}")
                if in_place
                else Text("{l} cannot do {h}", "{l} 不支持 {h}")
            )
            how = " ".join(filter(None, [self.operation.name, dtype, reduction]))
            why = form.fill(l=self.group.library, h=how)
            self._emit(common, status="skip", reason_code="unsupported", reason=why)
            return True
        late = float(given["late"]) if given.get("late_rank") == self.ctx.group.rank else 0.0
        last = 0
        for size in sizes:
            left = self.ctx.deadline - time.monotonic()
            if min(self.ctx.group.allgather(left)) < AGREE_MARGIN:
                self._emit(
                    {**common, "bytes": size},
                    status="timeout",
                    reason_code="timeout",
                    reason=Text("time ran out before this size", "尚未测到该数据量即超时"),
                )
                return False
            started = time.time()
            self._step()
            try:
                point = self._point(size, dtype, reduction, in_place, late, max(left, AGREE_MARGIN))
            except DeadlineError as e:
                # What was measured stands; the library has let go of the operation that never ended.
                self._emit({**common, "bytes": size}, status="timeout", reason_code="timeout", reason=e.message)
                return False
            self._step()
            if point.bytes == last:  # fewer bytes than ranks: the same point again
                continue
            last = point.bytes
            self._record(point, common, started)
        return True

    def _point(
        self, size: int, dtype: str, reduction: str, in_place: bool, late: float, timeout: float
    ) -> CollectivePoint:
        given = self.ctx.spec.parameters
        return self.group.measure(
            self.operation.name,
            bytes=size,
            dtype=dtype,
            reduction=reduction or "sum",
            root=int(given["root"]),
            in_place=in_place,
            iterations=int(given["iterations"]),
            least=LEAST,
            most=MOST,
            limit=POINT_SECONDS,
            warmup=int(given["warmup"]) or (10 if size <= SMALL else 2),
            verify=bool(given["verify"]),
            seed=size,
            pipelined=True,
            graph=bool(given.get("graph")),
            late=late,
            timeout=timeout,
        )

    def _record(self, point: CollectivePoint, common: dict[str, Scalar], started: float) -> None:
        for index, member in enumerate(point.members):
            parameters: dict[str, Scalar] = {
                **common,
                "bytes": point.bytes,
                "count": point.count,
                "iterations": len(point.times),
                "bad_count": member.wrong or 0,
                "pipelined": point.pipelined,
                "pipelined_iterations": point.pipelined_iterations,
            }
            if member.wrong:
                parameters["first_bad_index"] = member.first_bad
                if self.group.cards:
                    parameters["card"] = self.group.cards[index]
            if point.graphed:
                parameters["graphed"] = point.graphed
            emit = partial(self._samples, parameters, member.rank, point, started)
            emit("time", point.times, correct=None if member.wrong is None else member.wrong == 0)
            if len(member.device):
                emit("device", member.device)
            if len(member.lateness) >= ARRIVALS:
                emit("arrival", member.lateness, clock_uncertainty=self.group.clock[1], oversubscribed=self._crowded())

    def _samples(
        self,
        parameters: dict[str, Scalar],
        rank: int,
        point: CollectivePoint,
        started: float,
        what: str,
        samples: Samples | list[float],
        *,
        correct: bool | None = None,
        **more: Scalar,
    ) -> None:
        values = [float(s) for s in samples]
        self.ctx.emit(
            Measurement(
                metric=f"{self.library.name}.{self.operation.name}.{what}",
                unit="s",
                subject=Subject("rank", f"{self.ctx.node}/rank{rank}"),
                samples=values,
                parameters={**parameters, **more},
                started=started,
                duration=time.time() - started,
                node=self.ctx.node,
                rank=rank,
                spec=self.ctx.spec.id,
                warmup=point.warmup,
                correct=correct,
                stats=stats_of(values),
            )
        )

    def _step(self) -> None:
        """Tells the keeper how many points were begun and ended, so that who is behind can be seen."""
        self.steps += 1
        self.ctx.beat({"step": self.steps})

    def _crowded(self) -> bool:
        """Whether this node has more ranks than CPUs: then who comes last is whom the scheduler let wait."""
        here = sum(node == self.ctx.node for node in self.ctx.group.nodes)
        return here > (os.cpu_count() or 1)

    def _emit(self, parameters: dict[str, Scalar], **status: object) -> None:
        """What was not measured, for each member of this process."""
        for rank in self.group.members:
            self.ctx.emit(
                Measurement(
                    metric=f"{self.library.name}.{self.operation.name}.time",
                    unit="s",
                    subject=Subject("rank", f"{self.ctx.node}/rank{rank}"),
                    samples=[],
                    parameters=parameters,
                    started=time.time(),
                    duration=0.0,
                    node=self.ctx.node,
                    rank=rank,
                    spec=self.ctx.spec.id,
                    **status,  # type: ignore[arg-type]
                )
            )

    def _common(self, dtype: str, reduction: str, in_place: bool) -> dict[str, Scalar]:
        given = self.ctx.spec.parameters
        common: dict[str, Scalar] = {
            "library": self.group.library,
            "operation": self.operation.name,
            "dtype": dtype,
            "ranks": self.group.size,
            "bus_factor": self.operation.factor(self.group.size),
        }
        if reduction and reduction != "sum":
            common["reduction"] = reduction
        if in_place:
            common["in_place"] = True
        if given.get("sharp") in ("on", "off"):
            common["sharp"] = given["sharp"]
        if "late_rank" in given:
            common["rehearsed"] = f"rank {given['late_rank']} late by {float(given['late']) * 1e6:g} us"
        return common


def _slow_part_info(library: Library) -> CheckInfo:
    return CheckInfo(
        id=f"{library.name}{SLOW_PART}",
        kind=ItemKind.PROBE,
        scope=library.name,
        title=Text("{l}: which part is slow", "{l}：定位慢的部分").fill(l=library.title),
        method=Text(
            "all-reduce in rails, pairs and halves of the group, several at once, until a part is named",
            "在轨道、成对与对半分组中（可并行）执行全归约，直至定位",
        ),
        criterion=Text("no node, card or link is slower than the others", "没有节点、加速卡或链路慢于其他"),
        suggestion=Text(
            "see the probes of its network and cards, then take it out and measure again",
            "参考其网络与加速卡的探测项，排除后重新测量",
        ),
        severity=Severity.CRITICAL,
        action=Action.ISOLATE,
        needs=[*library.needs, "three ranks"],
        required=True,
    )


def _plan_slow_part(library: Library, world: World, options: Options) -> list[ProbeSpec | LeftOut]:
    info = _slow_part_info(library)
    if not options.find_slow or library.name not in _chosen(world, options):
        return []
    refused = library.refusal(world, options)
    if refused is not None:
        return [LeftOut(info.id, refused.reason_code, refused.reason)]
    size = min(options.max_bytes or library.largest, SEARCHED)
    rounds = 6 + 4 * max(1, world.size - 1).bit_length()
    expected = rounds * (0.5 + 40 * size * 1e-9)
    given: dict[str, Scalar] = {"operation": "all_reduce", "bytes": size}
    deadline = options.item_timeout or max(60.0, 5 * expected)
    return [ProbeSpec(f"{info.id}#0", info.id, info, given, expected, deadline)]


def _find_slow_part(library: Library, ctx: Context) -> None:
    """Sub-groups are measured, several at once, until a part is named or time is over."""
    from cwai_bench.probes.slow_part import Search, drive

    if any(count > 1 for count in Counter(ctx.group.nodes).values()):
        number: Counter[str] = Counter()
        parts = []
        for node in ctx.group.nodes:
            parts.append(f"{node}/{number[node]}")
            number[node] += 1
    else:
        parts = list(ctx.group.nodes)
    search = _Search(ctx, library, parts, int(ctx.spec.parameters["bytes"]))
    whole = search.measure([tuple(range(ctx.group.size))])
    found = drive(Search(parts, None if whole is None else whole[0]), search.measure)
    if ctx.group.rank != 0:
        return
    reason = None if not search.out_of_time else Text("time ran out before it was decided", "尚未判定即超时")
    if not found:
        usual = None if whole is None else whole[0]
        search.tell({}, [] if usual is None else [usual], "ok" if reason is None else "timeout", reason)
    for part in found:
        told: dict[str, Scalar] = {"kind": part.kind, "members": ",".join(parts[i] for i in part.members)}
        if part.usual is not None:
            told["usual"] = part.usual
        search.tell(told, [] if part.observed is None else [part.observed], "ok", reason)


def _split(comm: Any, colour: int | None) -> Any:
    """The communicator of those with the same colour, in order of rank; a null one for None."""
    from mpi4py import MPI

    return comm.Split(MPI.UNDEFINED if colour is None else colour, comm.rank)


@dataclass
class _Search:
    """Measures the groups of a round, all at once, and keeps every figure."""

    ctx: Context
    library: Library
    parts: list[str]
    size: int
    number: int = 0
    out_of_time: bool = False

    def measure(self, groups: list[tuple[int, ...]]) -> list[float | None] | None:
        """The bus bandwidth of each group, on every rank; None where there is no time for it."""
        comm, ctx = self.ctx.group.comm, self.ctx
        left = ctx.deadline - time.monotonic()
        if min(ctx.group.allgather(left)) < SEARCH_MARGIN:
            self.out_of_time = True
            return None
        mine = next((g for g, members in enumerate(groups) if ctx.group.rank in members), None)
        own = _split(comm, mine)
        figure: float | None = None
        if mine is not None:
            started = time.time()
            figure = self._busbw(own, left)
            own.Free()
            if ctx.group.rank == groups[mine][0]:
                self._keep(groups[mine], figure, started)
        self.number += 1
        told = ctx.group.allgather([mine, figure])
        # A group is as fast as the slowest of its ranks says.
        figures: list[float | None] = []
        for g in range(len(groups)):
            of_group = [f for at, f in told if at == g]
            figures.append(None if None in of_group or not of_group else min(of_group))
        return figures

    def _busbw(self, comm: Any, timeout: float) -> float | None:
        try:
            group = self.library.join(self.ctx, comm, self.size)
            point = group.measure(
                "all_reduce",
                bytes=self.size,
                least=LEAST,
                most=MOST,
                limit=POINT_SECONDS,
                warmup=2,
                isolated=False,
                pipelined=True,
                timeout=timeout,
            )
        except (DeviceError, DeadlineError):
            return None
        if any(member.wrong for member in point.members):
            return None
        return point.bytes * OPERATIONS["all_reduce"].factor(group.size) / point.pipelined

    def _keep(self, members: tuple[int, ...], figure: float | None, started: float) -> None:
        ok = figure is not None
        self._emit(
            f"{self.library.name}.part.bandwidth",
            {"round": self.number, "members": ",".join(self.parts[i] for i in members), "group_bytes": self.size},
            [] if figure is None else [figure],
            "ok" if ok else "error",
            None if ok else Text("this group could not be measured, or its data was wrong", "该分组无法测量或数据有误"),
            started,
        )

    def tell(self, told: dict[str, Scalar], samples: list[float], status: MeasureStatus, reason: Text | None) -> None:
        self._emit(f"{self.library.name}{SLOW_PART}", told, samples, status, reason, time.time())

    def _emit(
        self,
        metric: str,
        parameters: dict[str, Scalar],
        samples: list[float],
        status: MeasureStatus,
        reason: Text | None,
        started: float,
    ) -> None:
        self.ctx.emit(
            Measurement(
                metric=metric,
                unit="B/s",
                subject=Subject("group", "all"),
                samples=samples,
                parameters=parameters,
                started=started,
                duration=time.time() - started,
                node=self.ctx.node,
                rank=self.ctx.group.rank,
                spec=self.ctx.spec.id,
                status=status,
                reason_code="" if status == "ok" else "timeout" if status == "timeout" else "error",
                reason=reason,
                stats=stats_of(samples),
            )
        )


for _library in LIBRARIES.values():
    if _library.name != "loopback":
        probe(_slow_part_info(_library), commands=("collective",), plan=partial(_plan_slow_part, _library))(
            partial(_find_slow_part, _library)
        )

_RARE = ("alltoallv", "gather", "scatter")
"""Measured by a sweep, not by a run of everything."""

for _library in LIBRARIES.values():
    for _operation in OPERATIONS.values():
        probe(
            info_of(_library, _operation),
            commands=("collective",) if _operation.name in _RARE else ("run", "collective"),
            plan=partial(_plan, _library, _operation),
        )(partial(_measure, _library))
