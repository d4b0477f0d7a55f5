"""What NVIDIA GPUs do alone: copies within a card's memory, to and from the host, from card to card, matrix products,
and whether a card computes and keeps what it should.

The first rank of a node drives all of its cards; what would be in each other's way goes one after the other (copies to
the host share its memory and PCIe switches), the rest at the same time, as in training: what power and cooling allow
then is what counts. Times are those of the GPU's own clock, data is random, and every copy is verified afterwards.
``gpu.copy`` counts bytes read and bytes written, as the memory does; torch's and CuPy's users often count one of them.
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import partial
from itertools import permutations
from pathlib import Path
from typing import NamedTuple

from cwai_bench import native
from cwai_bench.errors import DeadlineError, DeviceError, UsageError
from cwai_bench.model import (
    Action,
    CheckInfo,
    ItemKind,
    LeftOut,
    Measurement,
    MeasureStatus,
    ProbeSpec,
    ReasonCode,
    Scalar,
    Severity,
    Subject,
    stats_of,
)
from cwai_bench.probes import Context, Options, World, probe
from cwai_bench.probes.hca import PCI, cpus_of
from cwai_bench.text import Text

SCOPE = "gpu"
DEVICES = Path("/dev")
PRECISIONS = ("fp64", "fp32", "tf32", "bf16", "fp16", "fp8")
UNITS = ("bf16", "fp32", "fp64")
"""Whose products are computed by different parts of a card: tensor cores, the cores for fp32 and those for fp64. The
others are computed by the first of these as well."""
ROWS, ROWS_FP64 = 8192, 4096
"""Rows of a product: enough to fill a card."""
WHOLE_FP64 = ("6.0", "7.0", "8.0", "9.0", "10.0")
"""Compute capabilities that do half as much in fp64 as in fp32; others a 32nd or less ("Throughput of Native Arithmetic
Instructions", CUDA C++ Programming Guide): a product there is of half the rows, or it would take a second."""
DURATION = 0.1
"""Seconds of each figure unless the person gives another."""
COPY_SIZES = (64 << 20, 1 << 30)
HOST_BYTES = 256 << 20
PEER_BYTES = 128 << 20
MEMORY_SHARE = 0.9
MEMORY_PASSES = 4
CARDS_EXPECTED = 8
STEP_SECONDS = 0.25
"""Seconds beside what is timed: memory taken and filled, programs loaded."""
GIVE_UP = 60.0
"""Seconds after which one figure is given up."""
HOST_WAYS = {"there": "host-to-card", "back": "card-to-host", "both": "two-way"}
PEER_WAYS = {"there": "one-way", "both": "two-way"}

_WHY_SLOW = Text(
    "see the card's clocks, throttling and ECC (nvidia.*), its PCIe link (pci.links), and whether others use it",
    "查看该卡的时钟、降频与 ECC（nvidia.*）、PCIe 链路（pci.links），以及是否有其他程序占用",
)
_NO_CARD = Text("no node has an NVIDIA GPU (/dev/nvidia0)", "没有节点具有 NVIDIA GPU（/dev/nvidia0）")
_ABSENT = Text("there is no NVIDIA GPU here", "此处没有 NVIDIA GPU")
_HIDDEN = Text(
    "the driver shows this process no GPU: see CUDA_VISIBLE_DEVICES",
    "驱动未向本进程提供任何 GPU：请检查 CUDA_VISIBLE_DEVICES",
)


def _info(
    name: str, title: Text, method: Text, suggestion: Text = _WHY_SLOW, severity: Severity = Severity.MAJOR
) -> CheckInfo:
    faulty = severity is Severity.CRITICAL
    return CheckInfo(
        id=f"{SCOPE}.{name}",
        kind=ItemKind.PROBE,
        scope=SCOPE,
        title=title,
        method=method,
        criterion=Text("every product and every word of memory is what it was", "每次计算结果与显存内容均保持一致")
        if faulty
        else Text(
            "all that arrived was right; 5 % below the median of the other cards of the same model is a warning, 10 % "
            "a failure",
            "数据全部正确；比同型号其他卡的中位数低 5 % 告警，低 10 % 不通过",
        ),
        suggestion=suggestion,
        severity=severity,
        action=Action.ISOLATE,
        needs=["NVIDIA GPU"],
        required=True,
    )


COPY = _info(
    "copy",
    Text("memory bandwidth of the GPU", "GPU 显存带宽"),
    Text(
        "copies within the card's memory, in one and two parts at once; bytes read plus bytes written",
        "在显存内复制，一路与两路并行；读写字节均计入",
    ),
)
HOST_COPY = _info(
    "host_copy",
    Text("bandwidth between host and GPU", "主机与 GPU 间带宽"),
    Text(
        "copies between page-locked host memory and the card: there, back, and both at once; card after card",
        "锁页主机内存与 GPU 之间的复制：去、回、同时双向；逐卡进行",
    ),
)
PEER_COPY = _info(
    "peer_copy",
    Text("bandwidth from GPU to GPU", "GPU 间带宽"),
    Text(
        "copies from each card of the node to each other one, and both ways at once; pair after pair",
        "节点内每张卡到其他每张卡的复制及同时双向；逐对进行",
    ),
    Text(
        "see NVLinks and fabric manager (nvidia.nvlink*, nvidia.fabric*), and the PCIe tree (pci.links)",
        "查看 NVLink 与 fabric manager（nvidia.nvlink*、nvidia.fabric*）及 PCIe 拓扑（pci.links）",
    ),
)
GEMM = _info(
    "gemm",
    Text("matrix products on the GPU", "GPU 矩阵乘算力"),
    Text(
        "square products of random data by cuBLASLt, the fastest of its algorithms, on all cards of the node at once",
        "用 cuBLASLt 最快的算法计算随机方阵乘法，节点内所有卡同时进行",
    ),
)
COMPUTE = _info(
    "compute",
    Text("silent corruption on the GPU", "GPU 静默错误"),
    Text(
        "the same products again and again, each compared bit by bit with the first, and that with the CPU; most of "
        "the free memory written and read back",
        "反复计算同一矩阵乘法并逐位比对，首个结果与 CPU 比对；写满大部分空闲显存并读回",
    ),
    Text(
        "take the card out of use: it computes or keeps wrong data without an error. Reset it, run it again for longer "
        "(cwai-bench gpu --items gpu.compute --duration 60), and have it replaced",
        "停用该卡：其计算或存储出错而未报错。复位后以更长时间复测"
        "（cwai-bench gpu --items gpu.compute --duration 60），并申请更换",
    ),
    Severity.CRITICAL,
)


def look() -> int:
    """How many NVIDIA GPUs this node has, without waking their driver."""
    return sum(path.name.removeprefix("nvidia").isdecimal() for path in DEVICES.glob("nvidia[0-9]*"))


# ---------------------------------------------------------------------------------------------- plan


def _plan(
    info: CheckInfo, seconds: Callable[[int, float, Options], float]
) -> Callable[[World, Options], list[ProbeSpec | LeftOut]]:
    """``seconds(cards, duration, options)``: how long it takes on a node with so many cards."""

    def plan(world: World, options: Options) -> list[ProbeSpec | LeftOut]:
        _refuse_impossible(options)
        if world.gpus and not any(world.gpus):
            return [LeftOut(info.id, "absent", _NO_CARD)]
        duration = options.duration or DURATION
        parameters: dict[str, Scalar] = {"duration": duration}
        if info in (GEMM, COMPUTE):
            chosen = options.precisions or (PRECISIONS if info is GEMM else UNITS)
            parameters["precisions"] = ",".join(chosen)
        expected = seconds(max(world.gpus, default=CARDS_EXPECTED), duration, options)
        deadline = options.item_timeout or max(GIVE_UP, 10 * expected)
        return [ProbeSpec(f"{info.id}#0", info.id, info, parameters, expected, deadline)]

    return plan


def _refuse_impossible(options: Options) -> None:
    unknown = set(options.precisions or ()) - set(PRECISIONS)
    if unknown:
        raise UsageError(
            Text("--precisions: {u} is not one", "--precisions：{u} 不是有效的精度").fill(u=", ".join(sorted(unknown))),
            Text("precisions: {p}", "可用精度：{p}").fill(p=", ".join(PRECISIONS)),
        )


# ------------------------------------------------------------------------------------------- measure


def libraries() -> list[str]:
    """Where cuBLASLt may be, newest first: with this Python (as torch brings it), else where the loader looks."""
    names = [f"libcublasLt.so.{version}" for version in (13, 12, 11)]
    folders = [Path(path) / "nvidia" for path in sys.path if path.endswith("-packages")]
    found = [str(path) for name in names for folder in folders for path in sorted(folder.glob(f"*/lib/{name}"))]
    return [*found, *names, *(f"/usr/local/cuda/lib64/{name}" for name in names)]


@contextmanager
def near(gpu: native.Gpu) -> Iterator[None]:
    """This thread on CPUs of the card's NUMA node meanwhile, where the system says which: memory that it touches first
    is there as well."""
    try:
        told = (PCI / gpu.pci / "local_cpulist").read_text()
    except OSError:
        told = ""
    allowed = os.sched_getaffinity(0)
    wanted = allowed.intersection(cpus_of(told.strip()))
    if wanted:
        os.sched_setaffinity(0, wanted)
    try:
        yield
    finally:
        os.sched_setaffinity(0, allowed)


class Found(NamedTuple):
    """One figure. No samples: the card cannot do it. ``correct``: False when the data was wrong, None when nobody
    looked. ``reason``: what is to be said of it."""

    samples: list[float]
    parameters: dict[str, Scalar]
    correct: bool | None = None
    reason: Text | None = None


class _Node:
    """One node's cards in one probe."""

    def __init__(self, ctx: Context) -> None:
        self.ctx = ctx
        self.duration = float(ctx.spec.parameters["duration"])
        self.precisions = str(ctx.spec.parameters.get("precisions", "")).split(",")
        self.cards: list[native.Gpu] = []

    def left(self) -> float:
        """Seconds that one figure may take."""
        return min(GIVE_UP + 4 * self.duration, max(0.1, self.ctx.deadline - time.monotonic()))

    def card(self, gpu: native.Gpu) -> Subject:
        return Subject("card", f"{self.ctx.node}/gpu{gpu.ordinal}")

    def measure(
        self,
        subject: Subject,
        gpu: native.Gpu,
        figure: tuple[str, str],
        given: dict[str, Scalar],
        ask: Callable[[], Found],
    ) -> None:
        """Emit what ``ask`` finds, or why it found nothing: a figure (metric, unit) that fails ends no other."""
        started = time.time()
        status: MeasureStatus = "ok"
        code: ReasonCode = ""
        try:
            found = ask()
            if found.correct is False:
                code = "wrong_data"
            elif not found.samples:
                status, code = "skip", "unsupported"
        except DeadlineError as e:
            found, status, code = Found([], {}, None, e.message), "timeout", "timeout"
        except DeviceError as e:
            found, status, code = Found([], {}, None, e.message), "error", "error"
        known: dict[str, Scalar] = {"card": gpu.name, "pci": gpu.pci}
        self._emit(
            subject, figure, found._replace(parameters={**known, **given, **found.parameters}), started, status, code
        )

    def nothing(self, metric: str, status: MeasureStatus, code: ReasonCode, reason: Text) -> None:
        """Of the node as a whole, why there is nothing to measure."""
        self._emit(
            Subject("node", self.ctx.node), (metric, "1"), Found([], {}, None, reason), time.time(), status, code
        )

    def _emit(
        self,
        subject: Subject,
        figure: tuple[str, str],
        found: Found,
        started: float,
        status: MeasureStatus,
        code: ReasonCode,
    ) -> None:
        self.ctx.emit(
            Measurement(
                metric=figure[0],
                unit=figure[1],
                subject=subject,
                samples=found.samples,
                parameters=found.parameters,
                started=started,
                duration=time.time() - started,
                node=self.ctx.node,
                rank=self.ctx.group.rank,
                spec=self.ctx.spec.id,
                correct=found.correct,
                status=status,
                reason_code=code,
                reason=found.reason,
                stats=stats_of(found.samples),
            )
        )

    def at_once(self, work: Callable[[native.Gpu], None]) -> None:
        """On all cards at the same time, each by a thread of its own."""
        with ThreadPoolExecutor(len(self.cards), thread_name_prefix="cwai-gpu") as pool:
            for done in [pool.submit(work, gpu) for gpu in self.cards]:
                done.result()


def _measure(info: CheckInfo, body: Callable[[_Node], None]) -> Callable[[Context], None]:
    def measure(ctx: Context) -> None:
        if ctx.group.rank not in ctx.group.leaders:
            return
        node = _Node(ctx)
        if look() == 0:
            node.nothing(info.id, "skip", "absent", _ABSENT)
            return
        try:
            node.cards = native.gpus()
        except DeviceError as e:
            node.nothing(info.id, "error", "error", e.message)
            return
        if not node.cards:
            node.nothing(info.id, "error", "error", _HIDDEN)
            return
        body(node)

    return measure


def _copied(told: native.GpuCopy, scale: float = 1.0, more: dict[str, Scalar] | None = None) -> Found:
    samples, parameters = [float(s) * scale for s in told.samples], more or {}
    if told.wrong == 0:
        return Found(samples, parameters, True)
    bad: dict[str, Scalar] = {"bad_count": told.wrong, "first_bad_index": told.first_bad}
    reason = Text("{n} words of 8 bytes arrived wrong, the first at {i}", "{n} 个 8 字节字复制出错，首个位于 {i}")
    return Found(samples, {**parameters, **bad}, False, reason.fill(n=told.wrong, i=told.first_bad))


def _copy(node: _Node) -> None:
    node.at_once(partial(_copy_within, node))


def _copy_within(node: _Node, gpu: native.Gpu) -> None:
    for size in COPY_SIZES:
        for streams in (1, 2):

            def ask(size: int = size, streams: int = streams) -> Found:
                told = native.gpu_copy(
                    gpu=gpu.ordinal, bytes=size, streams=streams, duration=node.duration, timeout=node.left()
                )
                return _copied(told, scale=2.0)

            node.measure(node.card(gpu), gpu, (COPY.id, "B/s"), {"bytes": size, "streams": streams}, ask)


def _host_copy(node: _Node) -> None:
    for gpu in node.cards:
        for way, direction in HOST_WAYS.items():

            def ask(gpu: native.Gpu = gpu, way: str = way) -> Found:
                with near(gpu):
                    told = native.gpu_host_copy(
                        gpu=gpu.ordinal, direction=way, bytes=HOST_BYTES, duration=node.duration, timeout=node.left()
                    )
                return _copied(told)

            given: dict[str, Scalar] = {"direction": direction, "bytes": HOST_BYTES}
            node.measure(node.card(gpu), gpu, (HOST_COPY.id, "B/s"), given, ask)


def _peer_copy(node: _Node) -> None:
    if len(node.cards) < 2:
        node.nothing(PEER_COPY.id, "skip", "absent", Text("there is one card only", "只有一张卡"))
        return
    for source, target in permutations(node.cards, 2):
        subject = Subject("card", f"{node.ctx.node}/gpu{source.ordinal}→gpu{target.ordinal}")
        # Both ways at once is the same whichever of the two is named first.
        for way, direction in PEER_WAYS.items():
            if way == "both" and source.ordinal > target.ordinal:
                continue

            def ask(source: native.Gpu = source, target: native.Gpu = target, way: str = way) -> Found:
                told = native.gpu_peer_copy(
                    source=source.ordinal,
                    target=target.ordinal,
                    direction=way,
                    bytes=PEER_BYTES,
                    duration=node.duration / 2,
                    timeout=node.left(),
                )
                return _copied(told, more={"direct": told.direct})

            given: dict[str, Scalar] = {"direction": direction, "bytes": PEER_BYTES}
            node.measure(subject, source, (PEER_COPY.id, "B/s"), given, ask)


def rows(precision: str, capability: str) -> int:
    """How large a product is measured."""
    if precision != "fp64":
        return ROWS
    return ROWS_FP64 if capability in WHOLE_FP64 else ROWS_FP64 // 2


def _gemm(node: _Node) -> None:
    """Precision after precision, so that all cards do the same at the same time."""
    for precision in node.precisions:
        node.at_once(partial(_product, node, precision))


def _product(node: _Node, precision: str, gpu: native.Gpu) -> None:
    size = rows(precision, gpu.capability)

    def ask() -> Found:
        told = native.gpu_gemm(
            gpu=gpu.ordinal,
            libraries=libraries(),
            precision=precision,
            size=size,
            duration=node.duration,
            timeout=node.left(),
        )
        if not told.supported:
            return _unsupported(told.library, precision)
        more: dict[str, Scalar] = {
            "library": told.library,
            "algorithms": told.tried,
            "layout": "TN" if told.transposed else "NN",
        }
        return Found([float(s) for s in told.samples], more)

    given: dict[str, Scalar] = {"precision": precision, "rows": size, "together": len(node.cards)}
    node.measure(node.card(gpu), gpu, (GEMM.id, "FLOP/s"), given, ask)


def _unsupported(library: str, precision: str) -> Found:
    reason = Text("this card, or {l}, has no products of {p}", "该卡或 {l} 不支持 {p} 矩阵乘")
    return Found([], {"library": library}, None, reason.fill(l=library, p=precision))


def _compute(node: _Node) -> None:
    node.at_once(partial(_compute_on, node))


def _compute_on(node: _Node, gpu: native.Gpu) -> None:
    card = node.card(gpu)
    for precision in node.precisions:
        given: dict[str, Scalar] = {"precision": precision, "rows": rows(precision, gpu.capability)}
        node.measure(card, gpu, (f"{COMPUTE.id}.products", "1"), given, partial(_repeated, node, gpu, precision))
    node.measure(card, gpu, (f"{COMPUTE.id}.memory", "B/s"), {}, partial(_memory, node, gpu))


def _repeated(node: _Node, gpu: native.Gpu, precision: str) -> Found:
    told = native.gpu_compute(
        gpu=gpu.ordinal,
        libraries=libraries(),
        precision=precision,
        size=rows(precision, gpu.capability),
        duration=3 * node.duration,
        timeout=node.left(),
    )
    if not told.supported:
        return _unsupported(told.library, precision)
    samples = [float(told.products)]
    more: dict[str, Scalar] = {
        "library": told.library,
        "elements_by_cpu": told.sampled,
        "largest_error": told.worst,
    }
    if told.row < 0:
        return Found(samples, more, True)
    more |= {"row": told.row, "column": told.column, "bad_count": told.wrong or told.beyond}
    where = {"r": told.row, "c": told.column, "a": told.first, "b": told.later, "e": told.exact}
    if told.wrong:
        reason = Text(
            "product {n} differs from the first in {w} words; at row {r}, column {c}: {a:.9g}, then {b:.9g}, by the "
            "CPU {e:.9g}",
            "第 {n} 次结果与首次相差 {w} 个字；第 {r} 行第 {c} 列：首次 {a:.9g}，后为 {b:.9g}，CPU 结果 {e:.9g}",
        ).fill(n=told.products, w=told.wrong, **where)
    else:
        reason = Text(
            "{w} of {s} elements are wrong each time; at row {r}, column {c}: {a:.9g}, by the CPU {e:.9g}",
            "{s} 个元素中有 {w} 个每次均错误；第 {r} 行第 {c} 列：{a:.9g}，CPU 结果 {e:.9g}",
        ).fill(w=told.beyond, s=told.sampled, **where)
    return Found(samples, more, False, reason)


def _memory(node: _Node, gpu: native.Gpu) -> Found:
    told = native.gpu_memory(gpu=gpu.ordinal, share=MEMORY_SHARE, passes=MEMORY_PASSES, timeout=node.left())
    more: dict[str, Scalar] = {"tested_bytes": told.bytes, "passes": told.passes}
    if told.wrong == 0:
        return Found([told.slowest], more, True)
    more |= {"bad_count": told.wrong, "first_bad_index": told.first_bad}
    reason = Text(
        "{w} words of memory changed, the first at byte {i} of {m}: {f:016x} instead of {e:016x}",
        "显存中有 {w} 个字发生变化，首个位于 {m} 字节中的第 {i} 字节：应为 {e:016x}，实为 {f:016x}",
    ).fill(w=told.wrong, i=told.first_bad, m=told.bytes, f=told.found, e=told.expected)
    return Found([told.slowest], more, False, reason)


# --------------------------------------------------------------------------------------- registration


def _copies(steps: int) -> Callable[[int, float, Options], float]:
    return lambda _cards, duration, _options: steps * (duration + STEP_SECONDS)


def _seconds_host(cards: int, duration: float, _options: Options) -> float:
    return cards * len(HOST_WAYS) * (duration + STEP_SECONDS)


def _seconds_peers(cards: int, duration: float, _options: Options) -> float:
    return cards * (cards - 1) * 1.5 * (duration / 2 + STEP_SECONDS / 5)


def _seconds_gemm(_cards: int, duration: float, options: Options) -> float:
    return len(options.precisions or PRECISIONS) * (2 * duration + STEP_SECONDS)


def _seconds_compute(_cards: int, duration: float, options: Options) -> float:
    return len(options.precisions or UNITS) * (4 * duration + STEP_SECONDS) + MEMORY_PASSES * STEP_SECONDS


for _known, _seconds, _body in (
    (COPY, _copies(2 * len(COPY_SIZES)), _copy),
    (HOST_COPY, _seconds_host, _host_copy),
    (PEER_COPY, _seconds_peers, _peer_copy),
    (GEMM, _seconds_gemm, _gemm),
    (COMPUTE, _seconds_compute, _compute),
):
    probe(_known, commands=("run", "gpu"), plan=_plan(_known, _seconds))(_measure(_known, _body))
