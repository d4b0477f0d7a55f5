"""The vendor's own programs (hccl_test of the CANN toolkit) as a second way to a figure of HCCL.

One program for each operation. It is started as its manual has it (hicann/oam-tools, docs/zh/hccl_test): by ``mpirun``,
a process for each NPU of this node, under a guard that ends all of it at the time limit. What it prints is read for
figures and for wrong data, since it exits with 0 either way. It times what it queued back to back on the root's stream,
which is what *pipelined* is here, and prints the root's time alone; so there is one figure for each size, no rank that
is late, and no bus bandwidth but ours.

Over several nodes its programs have to be started by an mpirun of the person's own: hosts and the MPI that they were
built with are theirs to know.
"""

from __future__ import annotations

import os
import shutil
import time
from functools import partial
from pathlib import Path

from cwai_bench.collective_library import folded
from cwai_bench.discover.script import run_command
from cwai_bench.errors import UsageError
from cwai_bench.model import (
    Action,
    CheckInfo,
    ItemKind,
    LeftOut,
    Measurement,
    ProbeSpec,
    Reading,
    ReasonCode,
    Scalar,
    Severity,
    Subject,
    stats_of,
)
from cwai_bench.probes import Context, Options, World, probe
from cwai_bench.probes.collective import OPERATIONS, Operation, sizes_of
from cwai_bench.readers import Unreadable
from cwai_bench.readers.hccl_test import Report, Row, hccl_test
from cwai_bench.sources import Command
from cwai_bench.text import Text, plain

LIBRARY = "hccl-test"
PROGRAMS = {
    name: f"{name}_test"
    for name in (
        *("all_reduce", "all_gather", "reduce_scatter", "broadcast"),
        *("alltoall", "alltoallv", "reduce", "scatter"),
    )
}
DTYPES = {
    **{name: name for name in ("int8", "uint8", "int16", "uint16", "int32", "uint32", "int64", "uint64")},
    **{"float32": "fp32", "float64": "fp64", "float16": "fp16", "bfloat16": "bfp16"},
    **{"float8_e4m3": "fp8e4m3", "float8_e5m2": "fp8e5m2"},
}
REDUCTIONS = ("sum", "prod", "max", "min")
REDUCING = ("all_reduce", "reduce_scatter", "reduce")
ROOTED = ("broadcast", "reduce", "scatter")
LARGEST = 64 << 20
ITERATIONS, WARMUP = 20, 10
"""Its own."""
DEVICES = Path("/dev")
START_SECONDS = 20.0
"""What a communicator of eight cards and the program's end may take."""
MARGIN = 5.0
"""Seconds before the deadline at which the program is ended."""


def _info(operation: Operation) -> CheckInfo:
    return CheckInfo(
        id=f"{LIBRARY}.{operation.name}",
        kind=ItemKind.PROBE,
        scope="hccl",
        title=Text("hccl_test {o}", "hccl_test {o}").fill(o=operation.title),
        method=Text(
            "the vendor's {p} on all NPUs of the node; its time is the root's, all in one go",
            "在本节点全部 NPU 上运行厂商的 {p}；时间为 root 连续执行的平均",
        ).fill(p=PROGRAMS[operation.name]),
        criterion=Text(
            "it measured every size, and complained of no data and nothing else",
            "每个数据量均已测得，且未报告数据错误或其他失败",
        ),
        suggestion=Text(
            "wrong data: --library hccl names rank and place; a failure: see the logs of CANN (~/ascend/log)",
            "数据错误：使用 --library hccl 定位进程与位置；失败：查看 CANN 日志（~/ascend/log）",
        ),
        severity=Severity.CRITICAL,
        action=Action.ISOLATE,
        needs=["hccl_test", "two Ascend NPUs", "mpirun"],
        required=True,
    )


def _folder(options: Options) -> Path | None:
    """Where the programs are, or would be."""
    if options.hccl_test:
        return Path(options.hccl_test).absolute()
    home = os.environ.get("ASCEND_HOME_PATH")
    return Path(home) / "tools" / "hccl_test" / "bin" if home else None


def _plan(operation: Operation, world: World, options: Options) -> list[ProbeSpec | LeftOut]:
    info = _info(operation)
    if options.library != LIBRARY:
        return []
    if options.operations is not None and operation.name not in options.operations:
        return []
    _refuse_impossible(world, options)
    folder = _folder(options)
    program = None if folder is None else folder / PROGRAMS[operation.name]
    if program is None or not os.access(program, os.X_OK):
        nowhere = Text(
            "no program {p}: it comes with CANN as source, to be built with `make MPI_HOME=…` in tools/hccl_test; "
            "--hccl-test DIR says where it is",
            "没有程序 {p}：CANN 只提供源码，需在 tools/hccl_test 用 `make MPI_HOME=…` 编译；--hccl-test DIR 指定其目录",
        )
        where = PROGRAMS[operation.name] if program is None else str(program)
        return [LeftOut(info.id, "missing_tool", nowhere.fill(p=where))]
    sizes = sizes_of(options, LARGEST)
    reductions = (options.reductions or REDUCTIONS[:1]) if operation.name in REDUCING else ("",)
    iterations = options.iterations or ITERATIONS
    expected = START_SECONDS + sum((iterations + WARMUP) * (2e-5 + size * 1e-10) + size * 1e-8 for size in sizes)
    given: dict[str, Scalar] = {
        "program": str(program),
        "operation": operation.name,
        "min_bytes": sizes[0],
        "max_bytes": sizes[-1],
        "iterations": iterations,
        "warmup": options.warmup or WARMUP,
        "verify": options.verify,
        "root": options.root_rank,
        "cards": options.cards,
    }
    if options.step_bytes:
        given["step_bytes"] = options.step_bytes
    else:
        given["factor"] = options.step_factor
    variants = [(d, r) for d in options.dtypes or ("float32",) for r in reductions]
    return [
        ProbeSpec(
            id=f"{info.id}#{number}",
            probe=info.id,
            info=info,
            parameters=given | {"dtype": dtype, "reduction": reduction},
            expected=expected,
            deadline=options.item_timeout or max(120.0, 10 * expected),
        )
        for number, (dtype, reduction) in enumerate(variants)
    ]


def _refuse_impossible(world: World, options: Options) -> None:
    if len(world.nodes) > 1:
        raise UsageError(
            Text(
                "--library hccl-test measures one node: over several, its programs need an mpirun of their own",
                "--library hccl-test 只测量单个节点：多节点需用其自身的 mpirun 启动",
            ),
            Text(
                "start it on one node, or take --library hccl for all of them",
                "请在单个节点上启动，或使用 --library hccl 测量全部节点",
            ),
        )
    if options.placement != "out" or options.graph or options.registered or options.rehearse or options.find_slow:
        raise UsageError(
            Text(
                "--library hccl-test has neither --placement, --graph, --registered, --rehearse nor --find-slow",
                "--library hccl-test 不支持 --placement、--graph、--registered、--rehearse 与 --find-slow",
            ),
            Text("leave it out, or take --library hccl", "请去掉该选项，或使用 --library hccl"),
        )
    for option, given, known in (
        ("--operations", options.operations, tuple(PROGRAMS)),
        ("--dtype", options.dtypes, tuple(DTYPES)),
        ("--reduction", options.reductions, REDUCTIONS),
    ):
        if unknown := sorted(set(given or ()) - set(known)):
            raise UsageError(
                Text("{o}: hccl_test does not have {u}", "{o}：hccl_test 不支持 {u}").fill(
                    o=option, u=", ".join(unknown)
                ),
                Text("it has: {k}", "可用：{k}").fill(k=", ".join(known)),
            )
    if options.hccl_test.split() not in ([], [options.hccl_test]):
        raise UsageError(
            Text("--hccl-test: a path with blanks cannot be used", "--hccl-test：路径不能含空白字符"),
            Text("take a link to it without", "请使用不含空白的链接"),
        )


# ------------------------------------------------------------------------------------------- measure


def words_of(given: dict[str, Scalar], npus: int, mpirun: str) -> list[str]:
    """The whole command. hccl_test is told by HCCL's variables; an MPI is not started by root unless it is told so."""
    told = {name: value for name, value in os.environ.items() if name.startswith("HCCL_") and not value.split()[1:]}
    if os.geteuid() == 0:
        told |= {"OMPI_ALLOW_RUN_AS_ROOT": "1", "OMPI_ALLOW_RUN_AS_ROOT_CONFIRM": "1"}
        told |= {"PRTE_ALLOW_RUN_AS_ROOT": "1", "PRTE_ALLOW_RUN_AS_ROOT_CONFIRM": "1"}
    words = ["env", *(f"{name}={value}" for name, value in told.items()), mpirun, "-n", str(npus)]
    words += [str(given["program"]), "-p", str(npus), "-b", str(given["min_bytes"]), "-e", str(given["max_bytes"])]
    words += ["-i", str(given["step_bytes"])] if "step_bytes" in given else ["-f", str(given["factor"])]
    words += ["-n", str(given["iterations"]), "-w", str(given["warmup"]), "-d", DTYPES[str(given["dtype"])]]
    words += ["-o", str(given["reduction"])] if given["reduction"] else []
    words += ["-r", str(given["root"])] if given["operation"] in ROOTED else []
    return [*words, "-c", str(int(bool(given["verify"])))]


def _measure(ctx: Context) -> None:
    """The leader of the node runs it; the other ranks wait."""
    if ctx.group.rank == ctx.group.leaders[0]:
        _Run(ctx).run()
    ctx.group.allgather(None)


class _Run:
    """One program, and what it said as measurements of this rank."""

    def __init__(self, ctx: Context) -> None:
        self.ctx = ctx
        self.given = ctx.spec.parameters
        self.npus = int(self.given["cards"]) or len(list(DEVICES.glob("davinci[0-9]*")))
        self.started = time.time()

    def run(self) -> None:
        home = os.environ.get("MPI_HOME")
        mpirun = shutil.which("mpirun", path=f"{home}/bin" if home else None)
        if self.npus < 2:
            few = Text("{n} NPUs on this node: a collective needs two", "本节点有 {n} 个 NPU：集合通信至少需要两个")
            self._refused("absent", few.fill(n=self.npus))
        elif mpirun is None:
            none = Text("no mpirun, in MPI_HOME or on the PATH", "MPI_HOME 与 PATH 中均没有 mpirun")
            self._refused("missing_tool", none)
        else:
            limit = max(1.0, self.ctx.deadline - time.monotonic() - MARGIN)
            self._tell(run_command(Command(*words_of(self.given, self.npus, mpirun), timeout=limit)), limit)

    def _tell(self, reading: Reading, limit: float) -> None:
        report: Report | None = None
        trouble: Text | None = None
        try:
            report = hccl_test(reading.text)
            trouble = self._complaint(report, reading.exit_code)
        except Unreadable as e:
            trouble = plain((str(e) if reading.status == "ok" else reading.detail or reading.status)[:400])
        for row in [] if report is None else report.rows:
            self._emit(row)
        if reading.status == "timeout":
            late = Text("it was ended after {s:g} s", "{s:g} 秒后被终止").fill(s=limit)
            self._say(self._common(), [], status="timeout", reason_code="timeout", reason=late)
        elif trouble is not None:
            self._refused("error", trouble)

    def _complaint(self, report: Report, code: int | None) -> Text | None:
        """What it says besides wrong data, which its rows tell."""
        if report.failures and not report.wrong:
            return plain("; ".join(report.failures[:4]))
        if code:
            return Text("it ended with exit code {c}", "退出码为 {c}").fill(c=code)
        largest = max(row.size for row in report.rows)
        # It rounds sizes to what fits the ranks.
        if 2 * largest < int(self.given["max_bytes"]):
            short = Text("its table ends at {s} bytes", "其结果表止于 {s} 字节")
            return short.fill(s=largest)
        return None

    def _common(self) -> dict[str, Scalar]:
        operation = OPERATIONS[str(self.given["operation"])]
        common: dict[str, Scalar] = {
            "library": "hccl_test",
            "operation": operation.name,
            "dtype": self.given["dtype"],
            "npus": self.npus,
            "bus_factor": operation.factor(max(self.npus, 1)),
        }
        if self.given["reduction"] not in ("", "sum"):
            common["reduction"] = self.given["reduction"]
        return common

    def _emit(self, row: Row) -> None:
        """The figure of one size; all ranks whose data was wrong are told in the reason."""
        iterations = int(self.given["iterations"])
        parameters = self._common() | {
            "bytes": row.size,
            "pipelined": row.seconds,
            "pipelined_iterations": iterations,
            "told_bandwidth": row.bandwidth,
        }
        wrong: Text | None = None
        if row.wrong_ranks:
            wrong = Text("it says that the data of ranks {r} was wrong", "其报告 rank {r} 的数据有误")
            wrong = wrong.fill(r=folded(list(row.wrong_ranks)))
        self._say(parameters, [row.seconds], correct=row.correct, reason=wrong)

    def _refused(self, code: ReasonCode, reason: Text) -> None:
        self._say(self._common(), [], status="error", reason_code=code, reason=reason)

    def _say(self, parameters: dict[str, Scalar], samples: list[float], **more: object) -> None:
        self.ctx.emit(
            Measurement(
                metric=f"hccl.{self.given['operation']}.time",
                unit="s",
                subject=Subject("rank", f"{self.ctx.node}/rank{self.given['root']}"),
                samples=samples,
                parameters=parameters,
                started=self.started,
                duration=time.time() - self.started,
                node=self.ctx.node,
                rank=int(self.given["root"]),
                spec=self.ctx.spec.id,
                warmup=int(self.given["warmup"]),
                stats=stats_of(samples),
                **more,  # type: ignore[arg-type]
            )
        )


for _name in PROGRAMS:
    probe(_info(OPERATIONS[_name]), commands=("collective",), plan=partial(_plan, OPERATIONS[_name]))(_measure)
