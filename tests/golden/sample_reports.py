"""Reports of runs that might have been. ``reports/samples`` holds them as JSON and in every other format.

The figures follow simple laws (a start-up time and a rate) with a fixed jitter, so that tables and pictures look as
they do in life and are the same in every run of the tests.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable

import msgspec

from cwai_bench.judge import judge
from cwai_bench.model import (
    Action,
    CheckInfo,
    Evidence,
    Facts,
    Gate,
    ItemKind,
    LeftOut,
    Measurement,
    NodeRecord,
    PairResult,
    PairResults,
    PathChange,
    PathFault,
    PathProbe,
    Plan,
    PlantedTrouble,
    ProbeSpec,
    RankEvent,
    Reading,
    ReasonCode,
    Report,
    Run,
    Scalar,
    Severity,
    Status,
    Subject,
    Suppression,
    Transfer,
    TransferPath,
    ValueGroup,
    Verdict,
    stats_of,
)
from cwai_bench.path_bound import PATH, TRANSFER, Scenario
from cwai_bench.path_fault import localise
from cwai_bench.probes.collective import LIBRARIES, info_of
from cwai_bench.probes.collective import OPERATIONS as NCCL_OPERATIONS
from cwai_bench.probes.multipath import INFOS
from cwai_bench.text import Text, plain

START = 1767225599.25  # 2025-12-31 23:59:59 UTC: the local date is another one
EAST = 8 * 3600
EVERYBODY = Subject("group", "all")

# ------------------------------------------------------------------------------------------------ items


def item(
    id: str,
    kind: ItemKind,
    title: Text,
    method: Text,
    criterion: Text,
    suggestion: Text,
    severity: Severity = Severity.MAJOR,
    action: Action = Action.FIX_CONFIG,
) -> CheckInfo:
    required = kind in (ItemKind.NODE, ItemKind.PROBE)
    return CheckInfo(id, kind, "host", title, method, criterion, suggestion, severity, action, [], required)


SAME = Text("the same on all nodes, or as on the baseline node", "所有节点一致，或与基线节点一致")

GOVERNOR = item(
    "cpu.governor",
    ItemKind.NODE,
    Text("CPU frequency governor", "CPU 频率调节器"),
    Text(
        "read /sys/devices/system/cpu/cpu*/cpufreq/scaling_governor",
        "读取 /sys/devices/system/cpu/cpu*/cpufreq/scaling_governor",
    ),
    Text("performance on every core", "所有核心均为 performance"),
    Text("cpupower frequency-set -g performance", "执行 cpupower frequency-set -g performance"),
)
OFFLINE = item(
    "cpu.offline",
    ItemKind.NODE,
    Text("Offline CPUs", "离线 CPU"),
    Text("compare the possible CPUs with those online", "比较 possible 与 online 的 CPU 集合"),
    Text("every CPU that is possible is online", "所有可用 CPU 均在线"),
    Text("bring them online; look for machine checks", "将其上线，并检查机器检查异常"),
)
MEMORY_ERRORS = item(
    "memory.edac",
    ItemKind.NODE,
    Text("Memory errors", "内存错误"),
    Text("read the counters of /sys/devices/system/edac/mc/mc*", "读取 /sys/devices/system/edac/mc/mc* 计数"),
    Text("no uncorrectable error; corrected errors are a warning", "无不可纠正错误；有可纠正错误则警告"),
    Text("replace the module that the counter names", "更换计数所指的内存条"),
    Severity.CRITICAL,
    Action.CONTACT_VENDOR,
)
KERNEL_LOG = item(
    "kernel.log",
    ItemKind.NODE,
    Text("Faults in the kernel log", "内核日志中的故障"),
    Text("look in dmesg for OOM kills, hung tasks and lockups", "在 dmesg 中查找 OOM、任务挂起与死锁"),
    Text("none since the node started", "自开机以来没有"),
    Text("read the lines around it; reboot a node whose tasks hang", "查看上下文；任务挂起的节点应重启"),
    Severity.MAJOR,
    Action.REBOOT,
)
TIME_SYNC = item(
    "time.sync",
    ItemKind.NODE,
    Text("Time synchronisation", "时间同步"),
    Text("ask the kernel (adjtimex) whether the clock is synchronised", "通过 adjtimex 询问内核时钟是否已同步"),
    Text("synchronised, error below 50 ms", "已同步，误差小于 50 ms"),
    Text("start chronyd or another time service", "启动 chronyd 或其他时间服务"),
)
GPU_ECC = item(
    "nvidia.ecc",
    ItemKind.NODE,
    Text("GPU memory errors", "GPU 显存错误"),
    plain("nvidia-smi --query-gpu=ecc.errors.uncorrected.volatile.total"),
    Text("no uncorrected error", "无不可纠正错误"),
    Text("reset the card; return it when the errors come back", "复位该卡；若再次出现则返修"),
    Severity.CRITICAL,
    Action.RESET,
)
KERNEL = item(
    "same.kernel",
    ItemKind.CONSISTENCY,
    Text("Kernel version", "内核版本"),
    Text("read /proc/sys/kernel/osrelease", "读取 /proc/sys/kernel/osrelease"),
    SAME,
    Text("bring the nodes to one image", "将节点统一为同一镜像"),
)
MTU = item(
    "same.mtu",
    ItemKind.CONSISTENCY,
    Text("MTU of the interfaces", "网卡 MTU"),
    Text("read /sys/class/net/*/mtu", "读取 /sys/class/net/*/mtu"),
    SAME,
    Text("set one MTU on all nodes and switches", "在所有节点与交换机上统一 MTU"),
)
FREE_SPACE = item(
    "disk.free",
    ItemKind.CONFIGURABLE,
    Text("Free space of the file systems", "文件系统可用空间"),
    Text("statvfs of every mounted file system", "对每个挂载的文件系统执行 statvfs"),
    Text("what the criteria file says (in bytes)", "由判据文件给定（单位：字节）"),
    Text("find what fills it: du -xh --max-depth=2 PATH", "用 du -xh --max-depth=2 PATH 查找占用"),
)
TCP_BANDWIDTH = item(
    "tcp.bandwidth",
    ItemKind.PROBE,
    Text("TCP bandwidth", "TCP 带宽"),
    Text("stream between two ranks; count what arrives", "在两个进程之间发送数据流，按接收量计算"),
    Text("the data arrives right; your figure when a criterion is given", "数据正确；如给出判据则不低于判据"),
    Text("look at MTU, NIC speed and errors of both ends", "检查两端的 MTU、网卡速率与错误计数"),
)
TCP_LATENCY = item(
    "tcp.latency",
    ItemKind.PROBE,
    Text("TCP round trip", "TCP 往返时延"),
    Text("send a message forth and back, one at a time", "逐个发送消息并等待返回"),
    Text("the data arrives right; your figure when a criterion is given", "数据正确；如给出判据则不高于判据"),
    Text("look at interrupt affinity and power saving", "检查中断亲和性与节能设置"),
)
OPERATIONS: dict[str, Callable[[int], float]] = {
    "all_reduce": lambda n: 2 * (n - 1) / n,
    "all_gather": lambda n: (n - 1) / n,
    "broadcast": lambda n: 1.0,
}
"""Bus bandwidth over algorithm bandwidth, for n ranks."""
COLLECTIVES = {
    operation: item(
        f"mpi.{operation}",
        ItemKind.PROBE,
        plain(f"MPI {operation}"),
        Text("time the operation at each size; verify it on every rank", "逐个大小测量耗时，并在每个进程校验结果"),
        Text("every rank has the right result", "所有进程结果正确"),
        Text("look at the node named, its NIC and its memory", "检查所指节点的网卡与内存"),
        Severity.CRITICAL,
        Action.ISOLATE,
    )
    for operation in OPERATIONS
}
RANKS = item(
    "run.ranks",
    ItemKind.PROBE,
    Text("Every rank came to its end", "所有进程均正常结束"),
    Text("heartbeats and /proc state of each rank, watched from outside", "从外部观察各进程的心跳与 /proc 状态"),
    Text("no rank died, was stopped, or was lost with its node", "没有进程异常退出、被暂停或随节点丢失"),
    Text("look at the kernel log of that node at that time", "检查该节点同一时刻的内核日志"),
    Severity.CRITICAL,
    Action.ISOLATE,
)


def verdict(
    info: CheckInfo,
    node: str,
    status: Status = Status.PASS,
    observed: str = "",
    *,
    subject: Subject | None = None,
    expected: Text | None = None,
    detail: Text | None = None,
    reason_code: ReasonCode = "",
    action: Action | None = None,
    evidence: tuple[tuple[str, str], ...] = (),
    groups: list[ValueGroup] | None = None,
    hint: Text | None = None,
    suppressed: Suppression | None = None,
) -> Verdict:
    if action is None:
        action = info.action if status in (Status.FAIL, Status.WARN) else Action.NONE
    return Verdict(
        check=info.id,
        kind=info.kind,
        subject=subject or Subject("node", node),
        nodes=[node] if node else [],
        status=status,
        observed=observed,
        expected=expected,
        detail=detail,
        reason_code=reason_code,
        action=action,
        evidence=[Evidence(source, text) for source, text in evidence],
        groups=groups or [],
        hint=hint,
        suppressed=suppressed,
    )


# ----------------------------------------------------------------------------------------- measurements

WAVE = (0.0, 0.021, -0.013, 0.034, -0.027, 0.008, 0.055, -0.019, 0.012, -0.004, 0.09, -0.031)
KIB, MIB = 1 << 10, 1 << 20


def jitter(middle: float, count: int, turn: int) -> list[float]:
    """``count`` samples around ``middle``, the same in every run; ``turn`` tells one measurement from another."""
    return [middle * (1 + WAVE[(i * 5 + turn * 7) % len(WAVE)]) for i in range(count)]


def measured(
    spec: ProbeSpec,
    metric: str,
    unit: str,
    subject: Subject,
    samples: list[float],
    parameters: dict[str, Scalar],
    node: str,
    rank: int,
    warmup: int = 0,
    correct: bool | None = True,
) -> Measurement:
    return Measurement(
        metric=metric,
        unit=unit,
        subject=subject,
        samples=samples,
        parameters=parameters,
        started=START + 2,
        duration=1.0,
        node=node,
        rank=rank,
        spec=spec.id,
        warmup=warmup,
        correct=correct,
        stats=stats_of(samples),
    )


def spec_of(info: CheckInfo, number: int, expected: float, **parameters: Scalar) -> ProbeSpec:
    return ProbeSpec(f"{info.id}#{number}", info.id, info, parameters, expected, expected * 3 + 10)


def bandwidths(
    spec: ProbeSpec, pairs: Iterable[tuple[str, str]], sizes: tuple[int, ...], rate: Callable[[str, str], float]
) -> list[Measurement]:
    """``rate`` in bytes per second for large messages; small ones are held back by 8 us each."""
    return [
        measured(
            spec,
            "tcp.bandwidth",
            "B/s",
            Subject("link", f"{client}→{server}"),
            jitter(size / (8e-6 + size / rate(client, server)), 20, turn),
            {
                "transport": "tcp",
                "direction": "one-way",
                "bytes": size,
                "streams": 4,
                "client_nic": "eth0",
                "server_nic": "eth0",
                "port": 18515,
                "link_speed": 3.125e9,
            },
            server,
            turn,
        )
        for turn, (client, server) in enumerate(pairs)
        for size in sizes
    ]


def latencies(spec: ProbeSpec, pairs: Iterable[tuple[str, str]], time: float) -> list[Measurement]:
    return [
        measured(
            spec,
            "tcp.latency",
            "s",
            Subject("link", f"{client}→{server}"),
            jitter(time, 2000, turn),
            {
                "transport": "tcp",
                "direction": "one-way",
                "bytes": 64,
                "streams": 1,
                "client_nic": "eth0",
                "server_nic": "eth0",
                "port": 18515,
            },
            client,
            turn,
            warmup=100,
        )
        for turn, (client, server) in enumerate(pairs)
    ]


def sweeps(smallest: int, largest: int) -> dict[str, ProbeSpec]:
    return {
        operation: spec_of(info, 0, 4.0, operation=operation, min_bytes=smallest, max_bytes=largest, factor=4)
        for operation, info in COLLECTIVES.items()
    }


def sweep(operation: str, spec: ProbeSpec, nodes: list[str], per_node: int, count: int) -> list[Measurement]:
    """``count`` sizes from 8 B by a factor of 4, on every rank: 9 us to start, then 6.2 GB/s."""
    ranks = list(enumerate(n for n in nodes for _ in range(per_node)))
    found = []
    for size in (8 * 4**k for k in range(count)):
        time = 9e-6 * math.log2(len(ranks)) + size / 6.2e9
        iterations = 200 if size <= 64 * KIB else 20
        for rank, node in ranks:
            parameters: dict[str, Scalar] = {
                "library": "Open MPI v5.0.11",
                "operation": operation,
                "dtype": "float32",
                "ranks": len(ranks),
                "bus_factor": OPERATIONS[operation](len(ranks)),
                "bytes": size,
                "iterations": iterations,
                "bad_count": 0,
            }
            samples = jitter(time * (1 + 0.01 * rank), iterations, rank)
            subject = Subject("rank", f"{node}/rank{rank}")
            found.append(
                measured(spec, f"mpi.{operation}.time", "s", subject, samples, parameters, node, rank, warmup=10)
            )
    return found


def ring(nodes: list[str]) -> list[tuple[str, str]]:
    return list(zip(nodes, nodes[1:] + nodes[:1], strict=True))


# ------------------------------------------------------------------------------------------------- runs


def report(
    run_id: str,
    nodes: list[NodeRecord],
    plan: Plan,
    verdicts: list[Verdict],
    gate: Gate,
    *,
    command: list[str],
    seconds: float,
    baseline: str | None = None,
    measurements: list[Measurement] | None = None,
    events: list[RankEvent] | None = None,
    partial: bool = False,
    notes: list[Text] | None = None,
) -> Report:
    known = (
        GOVERNOR, OFFLINE, MEMORY_ERRORS, KERNEL_LOG, TIME_SYNC, GPU_ECC, KERNEL, MTU, FREE_SPACE,
        TCP_BANDWIDTH, TCP_LATENCY, *COLLECTIVES.values(), RANKS,
    )  # fmt: skip
    seen = {v.check for v in verdicts}
    return Report(
        run_id=run_id,
        run_type="run",
        status="partial" if partial else "complete",
        command=command,
        version="0.1.0",
        started=START,
        finished=START + seconds,
        utc_offset=EAST,
        world_size=sum(len(n.ranks) for n in nodes),
        nodes=nodes,
        baseline=baseline,
        environment={
            "kernel": "6.1.0-28-amd64",
            "cpu": "2 × Intel(R) Xeon(R) Platinum 8468V",
            "memory": "1.97 TiB",
            "mpi": "Open MPI 5.0.11",
            "python": "3.11.2",
        },
        settings={"transport": "auto", "pairs": "ring", "verify": True},
        plan=plan,
        checks=[info for info in known if info.id in seen],
        verdicts=verdicts,
        measurements=measurements or [],
        events=events or [],
        counts={s.value: sum(v.status is s for v in verdicts) for s in Status},
        gate=gate,
        notes=notes or [],
    )


def healthy() -> Report:
    """Two nodes, one the baseline of the other: all is well; no RDMA and no GPU."""
    nodes = ["node01", "node02"]
    collectives = sweeps(8, 32 * MIB)
    probes = [
        spec_of(TCP_BANDWIDTH, 0, 10.0, streams=4, direction="one-way"),
        spec_of(TCP_LATENCY, 0, 3.0, bytes=64),
        *collectives.values(),
    ]
    measurements = bandwidths(probes[0], [*ring(nodes)], (4 * KIB, 64 * KIB, 512 * KIB, 4 * MIB), lambda c, s: 2.7e9)
    measurements += latencies(probes[1], [("node01", "node02")], 23.4e-6)
    for operation, spec in collectives.items():
        measurements += sweep(operation, spec, nodes, 2, 12)
    verdicts = []
    for node in nodes:
        verdicts += [
            verdict(
                GOVERNOR,
                node,
                observed="performance: 96 of 96",
                evidence=(("sys/devices/system/cpu/cpu*/cpufreq/scaling_governor", "cpu0: performance\n…\n"),),
            ),
            verdict(OFFLINE, node, observed="0-95"),
            verdict(MEMORY_ERRORS, node, observed="0 corrected, 0 uncorrected"),
            verdict(KERNEL_LOG, node, observed="none"),
            verdict(TIME_SYNC, node, observed="synchronised, error 0.4 ms"),
            verdict(
                GPU_ECC, node, Status.SKIP, reason_code="absent", detail=Text("no NVIDIA GPU here", "没有 NVIDIA GPU")
            ),
        ]
    for info, value in ((KERNEL, "6.1.0-28-amd64"), (MTU, "eth0 9000, eth1 9000")):
        verdicts += [
            verdict(
                info,
                node,
                observed=value,
                expected=plain(value),
                detail=Text("baseline", "基线") if node == "node01" else None,
                groups=[ValueGroup(value, nodes, is_baseline=True)] if node == "node01" else None,
            )
            for node in nodes
        ]
    nothing = Text("no criterion was given for it", "未设定判据")
    verdicts += [
        verdict(FREE_SPACE, "", Status.SKIP, subject=EVERYBODY, reason_code="no_criterion", detail=nothing),
        *(
            verdict(TCP_BANDWIDTH, server, observed="21.72 Gb/s (4 MiB)", subject=Subject("link", f"{client}→{server}"))
            for client, server in ring(nodes)
        ),
        verdict(TCP_LATENCY, "node01", observed="p50 23.68 us, p99 25.51 us", subject=Subject("link", "node01→node02")),
        *(
            verdict(info, node, observed=f"p50 {18.2 + rank / 5:.1f} us", subject=Subject("rank", f"{node}/rank{rank}"))
            for info in COLLECTIVES.values()
            for rank, node in enumerate(n for n in nodes for _ in range(2))
        ),
        verdict(RANKS, "", observed="4/4", subject=EVERYBODY),
    ]
    return report(
        "20251231T235959Z-run-5ca1ab",
        [NodeRecord(n, [2 * i, 2 * i + 1], True, True) for i, n in enumerate(nodes)],
        Plan(
            checks=["cpu.governor", "cpu.offline", "memory.edac", "kernel.log", "time.sync", "nvidia.ecc"],
            probes=probes,
            left_out=[
                LeftOut(
                    "verbs.bandwidth",
                    "absent",
                    Text("no RDMA device here: TCP is measured", "没有 RDMA 设备，改测 TCP"),
                )
            ],
            expected=27.5,
        ),
        verdicts,
        Gate(Status.PASS, 0, [Text("items passed: 13", "13 项通过")], []),
        command=["cwai-bench", "run", "-np", "4", "--hosts", "node[01-02]", "--baseline", "node01"],
        seconds=31.8,
        baseline="node01",
        measurements=measurements,
    )


HOSTILE = 'node08"><script>alert(1)</script>\x1b[2J\x1b]0;owned\x07\u202egnp.exe'
CLUSTER = [f"node{i:02d}" for i in range(1, 8)] + [HOSTILE]


def failing() -> Report:
    """Eight nodes, one with a host name that is an attack: failures, values that differ, no baseline, a slow node."""
    verdicts: list[Verdict] = []
    for node in CLUSTER:
        bad = node in ("node03", "node07")
        verdicts += [
            verdict(
                GOVERNOR,
                node,
                Status.FAIL if bad else Status.PASS,
                "powersave: 96 of 96" if bad else "performance: 96 of 96",
                evidence=(
                    (
                        "sys/devices/system/cpu/cpu*/cpufreq/scaling_governor",
                        f"cpu0: {'powersave' if bad else 'performance'}\n…\n",
                    ),
                ),
            ),
            verdict(OFFLINE, node, observed="0-95"),
            verdict(
                MEMORY_ERRORS,
                node,
                Status.WARN if node == "node05" else Status.PASS,
                "17 corrected, 0 uncorrected" if node == "node05" else "0 corrected, 0 uncorrected",
                detail=Text("corrected errors on mc0: watch them", "mc0 有可纠正错误，请关注")
                if node == "node05"
                else None,
                action=Action.MONITOR if node == "node05" else None,
                evidence=(("sys/devices/system/edac/mc/mc*/ce_count", "mc0/ce_count: 17\n"),)
                if node == "node05"
                else (),
            ),
            _kernel_log(node),
            verdict(
                TIME_SYNC,
                node,
                Status.UNKNOWN if node == "node06" else Status.PASS,
                "" if node == "node06" else "synchronised, error 0.4 ms",
                suppressed=Suppression("ops <ops@example.org>", "time server moves | week 3", "2026-01-31")
                if node == "node06"
                else None,
                reason_code="timeout" if node == "node06" else "",
                detail=Text("call:clock did not answer in time: 5 s", "call:clock 未在限时内返回：5 s")
                if node == "node06"
                else None,
            ),
            verdict(
                GPU_ECC, node, Status.SKIP, reason_code="absent", detail=Text("no NVIDIA GPU here", "没有 NVIDIA GPU")
            ),
            verdict(
                FREE_SPACE,
                node,
                Status.FAIL if node == "node03" else Status.PASS,
                "/ 3.2 GiB" if node == "node03" else "/ 412 GiB, /data 6.8 TiB",
                expected=plain("≥ 20 GiB"),
            ),
        ]
    kernels = [ValueGroup("6.1.0-28-amd64", CLUSTER[:6] + CLUSTER[7:]), ValueGroup("6.1.0-25-amd64", ["node07"])]
    verdicts += [
        verdict(
            KERNEL,
            "",
            Status.NA,
            "2: 6.1.0-28-amd64 | 6.1.0-25-amd64",
            subject=EVERYBODY,
            reason_code="no_baseline",
            groups=kernels,
            hint=Text("most have 6.1.0-28-amd64; node07 differ", "多数为 6.1.0-28-amd64；node07 与之不同"),
        ),
        verdict(
            MTU,
            "",
            Status.NA,
            "eth0 9000",
            subject=EVERYBODY,
            reason_code="no_baseline",
            groups=[ValueGroup("eth0 9000", CLUSTER)],
        ),
    ]
    probes = [
        spec_of(TCP_BANDWIDTH, 0, 30.0, streams=4, direction="one-way"),
        spec_of(TCP_LATENCY, 0, 10.0, bytes=64),
    ]
    pairs = [(a, b) for a in CLUSTER for b in CLUSTER if a != b]
    measurements = bandwidths(
        probes[0], pairs, (1 * MIB,), lambda c, s: 0.9e9 if "node05" in (c, s) else 2.7e9 - 1e7 * CLUSTER.index(c)
    )
    measurements += latencies(probes[1], ring(CLUSTER), 23.4e-6)
    verdicts += [
        verdict(
            TCP_BANDWIDTH,
            "" if "node05" in pair else pair[1],
            Status.FAIL if "node05" in pair else Status.PASS,
            "7.165 Gb/s (1 MiB)" if "node05" in pair else "21.3 Gb/s (1 MiB)",
            expected=plain("≥ 20 Gb/s"),
            subject=Subject("link", "→".join(pair)),
        )
        for pair in ring(CLUSTER)
    ]
    verdicts.append(verdict(TCP_LATENCY, "", observed="p50 23.68 us", subject=EVERYBODY))
    verdicts.append(verdict(RANKS, "", observed="16/16", subject=EVERYBODY))
    failed = Text("{t}: failed on {n}", "{t}：{n} 不通过")
    unknown = Text("{t}: not known of {n}", "{t}：{n} 未知")
    return report(
        "20251231T235959Z-run-0ddba1",
        [NodeRecord(n, [2 * i, 2 * i + 1], True, True) for i, n in enumerate(CLUSTER)],
        Plan(
            checks=["cpu.governor", "cpu.offline", "memory.edac", "kernel.log", "time.sync", "nvidia.ecc", "disk.free"],
            probes=probes,
            left_out=[
                LeftOut("verbs.bandwidth", "absent", Text("no RDMA device on any node", "所有节点均无 RDMA 设备")),
                LeftOut(
                    "mpi.all_reduce#0",
                    "not_selected",
                    Text("does not fit in the time budget of 60 s", "超出时间预算 60 秒"),
                ),
            ],
            expected=42.5,
            budget=60.0,
        ),
        verdicts,
        Gate(
            Status.FAIL,
            1,
            [
                failed.fill(t=GOVERNOR.title, n="node[03,07]"),
                failed.fill(t=KERNEL_LOG.title, n=HOSTILE),
                failed.fill(t=FREE_SPACE.title, n="node03"),
                failed.fill(t=TCP_BANDWIDTH.title, n="node04→node05,node05→node06"),
                unknown.fill(t=KERNEL_LOG.title, n="node[01-07]"),
                Text(
                    "not counted: {t} on node06 (UNKNOWN), suppressed until 2026-01-31 by {o}: {r}",
                    "不计入：node06 的“{t}”（UNKNOWN），由 {o} 豁免至 2026-01-31：{r}",
                ).fill(t=TIME_SYNC.title, o="ops <ops@example.org>", r="time server moves | week 3"),
            ],
            ["node03", "node07", HOSTILE],
        ),
        command=["cwai-bench", "run", "--hosts", "node[01-08]", "--criteria", "our limits.toml", "--budget", "60"],
        seconds=201.5,
        measurements=measurements,
        notes=[
            Text(
                "1 items need more privilege; run as root to judge them: kernel.log",
                "1 项因权限不足未判定，可用 root 运行：kernel.log",
            )
        ],
    )


def _kernel_log(node: str) -> Verdict:
    if node == HOSTILE:
        lines = (
            "[ 8123.4] INFO: task python:4242 blocked for more than 120 seconds.\n"
            "[ 8123.5] <img src=x onerror=alert(2)> \x1b[31mnot red\x1b[0m\x00 ``` | =1+1\n"
        )
        return verdict(KERNEL_LOG, node, Status.FAIL, "1 hung task", evidence=(("$ dmesg", lines),))
    return verdict(
        KERNEL_LOG,
        node,
        Status.UNKNOWN,
        reason_code="permission",
        detail=Text("no permission to read $ dmesg", "没有权限读取 $ dmesg"),
        evidence=(("$ dmesg", "dmesg: read kernel buffer failed: Operation not permitted\n"),),
    )


def killed() -> Report:
    """Two nodes; rank 1 was killed in the middle of the sweep: what came before is kept, and the dead one named."""
    nodes = ["node01", "node02"]
    collectives = sweeps(8, 32 * MIB)
    probes = [spec_of(TCP_BANDWIDTH, 0, 10.0, streams=4, direction="one-way"), *collectives.values()]
    measurements = bandwidths(probes[0], [("node01", "node02")], (64 * KIB, 1 * MIB), lambda c, s: 2.7e9)
    measurements += sweep("all_reduce", collectives["all_reduce"], nodes, 1, 12)
    # Rank 0 told of one size more than the dead one did.
    measurements += sweep("all_gather", collectives["all_gather"], nodes, 1, 10)[:-1]
    progress: dict[str, Scalar] = {"what": "all_gather", "bytes": 2 * MIB, "iteration": 11}
    told = Text("told to stop while another rank was gone", "因其他进程丢失而被要求停止")
    events = [
        RankEvent(0, "node01", START + 0.4, "started", pid=4101),
        RankEvent(1, "node02", START + 0.4, "started", pid=2202),
        RankEvent(1, "node02", START + 14.62, "died", "mpi.all_gather#0", signal=9, pid=2202, progress=progress),
        RankEvent(
            0, "node01", START + 14.9, "signalled", "mpi.all_gather#0", told, signal=15, pid=4101, progress=progress
        ),
    ]
    lost = Text("rank 1 on node02 was lost", "node02 上的 rank 1 已丢失")
    verdicts = [
        *(verdict(GOVERNOR, node, observed="performance: 96 of 96") for node in nodes),
        *(verdict(OFFLINE, node, observed="0-95") for node in nodes),
        verdict(TCP_BANDWIDTH, "node02", observed="21.3 Gb/s (1 MiB)", subject=Subject("link", "node01→node02")),
        *(
            verdict(
                COLLECTIVES["all_reduce"], node, observed="p50 9.2 us", subject=Subject("rank", f"{node}/rank{rank}")
            )
            for rank, node in enumerate(nodes)
        ),
        *(
            verdict(
                COLLECTIVES[operation],
                "",
                Status.UNKNOWN,
                subject=Subject("group", f"mpi.{operation}#0"),
                reason_code="rank_lost",
                detail=lost,
            )
            for operation in ("all_gather", "broadcast")
        ),
        verdict(
            RANKS,
            "node02",
            Status.FAIL,
            "died SIGKILL mpi.all_gather#0 what=all_gather bytes=2097152 iteration=11",
            subject=Subject("rank", "node02/rank1"),
            detail=Text("it ended without a word", "异常退出，未留下任何信息"),
            reason_code="rank_lost",
        ),
    ]
    return report(
        "20251231T235959Z-run-dead01",
        [NodeRecord("node01", [0], True, True), NodeRecord("node02", [1], True, True)],
        Plan(checks=["cpu.governor", "cpu.offline"], probes=probes, left_out=[], expected=23.5),
        verdicts,
        Gate(
            Status.FAIL,
            1,
            [
                Text("{t}: failed on node02", "{t}：node02 不通过").fill(t=RANKS.title),
                *(
                    Text("{t}: not known of {o}#0", "{t}：{o}#0 未知").fill(t=COLLECTIVES[o].title, o=f"mpi.{o}")
                    for o in ("all_gather", "broadcast")
                ),
            ],
            ["node02"],
        ),
        command=["cwai-bench", "run", "--hosts", "node[01-02]"],
        seconds=16.2,
        measurements=measurements,
        events=events,
        partial=True,
    )


RDMA_WRITE = item(
    "verbs.bandwidth",
    ItemKind.PROBE,
    Text("RDMA bandwidth", "RDMA 带宽"),
    Text("write from NIC to NIC, all pairs of a rail", "在同一轨道的所有网卡配对间执行 RDMA 写"),
    Text("90 % of what rate, MTU and PCIe let through", "不低于速率、MTU 与 PCIe 所允许带宽的 90 %"),
    Text("look at cable, port and PCIe link of the part that is named", "检查所定位部件的线缆、端口与 PCIe 链路"),
    Severity.MAJOR,
    Action.ISOLATE,
)


def paths() -> Report:
    """Six nodes of two NICs, judged by their pairs: one NIC is slow with all it meets, one way between two is dead, and
    a third was dead once."""
    nodes = [f"node{i:02d}" for i in range(1, 7)]
    spec = spec_of(RDMA_WRITE, 0, 12.0, direction="one-way")
    given: dict[str, Scalar] = {
        "transport": "verbs",
        "verb": "write",
        "direction": "one-way",
        "bytes": 1 * MIB,
        "streams": 4,
        "mtu": 4096,
        "link_layer": "Ethernet",
        "roce": "v2",
        "gid": "::ffff:192.0.2.1",
        "link_speed": 400e9 / 8,
    }

    def figure(a: str, b: str, again: bool) -> PairResult:
        if (a, b) == ("node02/mlx5_0", "node05/mlx5_0") or ((a, b) == ("node01/mlx5_1", "node06/mlx5_1") and not again):
            return PairResult(a, b, None, "timeout", "timeout")
        slow = 0.62 if "node04/mlx5_1" in (a, b) else 1.0
        (value,) = jitter(slow * 386e9 / 8, 1, sum(f"{a} {b}".encode()) * len(a) + int(again))
        return PairResult(a, b, value)

    rails = [[f"{node}/mlx5_{k}" for node in nodes] for k in range(2)]
    first = [figure(a, b, False) for rail in rails for a in rail for b in rail if a != b]
    second = [
        figure(*pair, True)
        for pair in (
            ("node02/mlx5_0", "node05/mlx5_0"),
            ("node01/mlx5_1", "node06/mlx5_1"),
            ("node04/mlx5_1", "node05/mlx5_1"),
            ("node05/mlx5_1", "node04/mlx5_1"),
            ("node04/mlx5_1", "node02/mlx5_1"),
            ("node02/mlx5_1", "node04/mlx5_1"),
        )
    ]
    run = Run(
        run_id="20251231T235959Z-rdma-0f1e2d",
        run_type="rdma",
        command=["cwai-bench", "rdma", "--pairs", "all"],
        version="0.1.0",
        started=START,
        finished=START + 14.5,
        utc_offset=EAST,
        status="complete",
        world_size=len(nodes),
        plan=Plan([], [spec], [], 12.0),
        environment={},
        settings={},
        nodes=[NodeRecord(node, [rank], True, True) for rank, node in enumerate(nodes)],
        facts=[],
        measurements=[],
        events=[RankEvent(rank, node, START + 14, "finished") for rank, node in enumerate(nodes)],
        pairs=[
            PairResults(spec.id, "verbs.write.bandwidth", "B/s", given, first),
            PairResults(spec.id, "verbs.write.bandwidth", "B/s", given, second, 5, again=True),
        ],
    )
    return judge(run)


def collectives() -> Report:
    """NCCL on two nodes of four cards: one operation is well, in one a rank keeps coming late, in one a rank receives
    wrong data, and one never came to its end at a size."""
    nodes = [f"node{i:02d}" for i in (1, 1, 1, 1, 2, 2, 2, 2)]
    specs = {
        operation: spec_of(
            info_of(LIBRARIES["nccl"], NCCL_OPERATIONS[operation]), 0, 3.0, operation=operation, sharp="auto"
        )
        for operation in ("broadcast", "all_reduce", "reduce_scatter", "all_gather")
    }
    measurements = []
    for operation, spec in specs.items():
        factor = NCCL_OPERATIONS[operation].factor(len(nodes))
        for size in (64 * KIB, 16 * MIB, 1024 * MIB):
            whole = 22e-6 + size * factor / 180e9
            for rank, node in enumerate(nodes):
                late = 1.4e-3 if (operation, rank) == ("all_reduce", 5) else 0.0
                wrong = 3 if (operation, rank, size) == ("reduce_scatter", 2, 16 * MIB) else 0
                given: dict[str, Scalar] = {
                    "library": "NCCL 2.27.3+cuda12.9",
                    "operation": operation,
                    "dtype": "float32",
                    "ranks": len(nodes),
                    "bus_factor": factor,
                    "bytes": size,
                    "iterations": 40,
                    "bad_count": wrong,
                    "pipelined": 0.94 * whole,
                    "pipelined_iterations": 40,
                }
                if wrong:
                    given |= {"first_bad_index": 81920, "card": "0000:5d:00.0"}

                def told(what: str, middle: float, **more: Scalar) -> Measurement:
                    return measured(
                        spec,  # noqa: B023
                        f"nccl.{operation}.{what}",  # noqa: B023
                        "s",
                        Subject("rank", f"{node}/rank{rank}"),  # noqa: B023
                        jitter(middle, 40, rank),  # noqa: B023
                        {**given, **more},  # noqa: B023
                        node,  # noqa: B023
                        rank,  # noqa: B023
                        warmup=5,
                        correct=None if what != "time" else wrong == 0,  # noqa: B023
                    )

                if (operation, size) == ("all_gather", 1024 * MIB):
                    reason = Text("time ran out before the run was over", "测试未能在时限内完成")
                    lost = told("time", 1.0)
                    measurements.append(
                        msgspec.structs.replace(
                            lost,
                            samples=[],
                            stats=None,
                            parameters={k: v for k, v in given.items() if not k.startswith("pipelined")},
                            status="timeout",
                            reason_code="timeout",
                            reason=reason,
                        )
                    )
                    continue
                measurements += [told("time", whole), told("arrival", 2e-6 + late, clock_uncertainty=4e-7)]
    run = Run(
        run_id="20251231T235959Z-collective-5a11e4",
        run_type="collective",
        command=["cwai-bench", "collective", "--library", "nccl", "--hosts", "node[01-02]", "--per-node", "4"],
        version="0.1.0",
        started=START,
        finished=START + 63.0,
        utc_offset=EAST,
        status="complete",
        world_size=len(nodes),
        plan=Plan([], list(specs.values()), [], 13.0),
        environment={},
        settings={},
        nodes=[NodeRecord("node01", [0, 1, 2, 3], True, True), NodeRecord("node02", [4, 5, 6, 7], True, True)],
        facts=[Facts("node01", START, False, False, {r.source: r for r in map(nic_log, range(4))})],
        measurements=measurements,
        events=[RankEvent(rank, node, START + 62, "finished") for rank, node in enumerate(nodes)],
    )
    return judge(run)


def nic_log(rank: int) -> Reading:
    """What NCCL logs in a process whose ring leaves the node through the NIC beside its card."""
    nics = " ".join(f"[{i}]mlx5_{i}:1/IB" for i in range(4))
    said = (
        f"NET/IB : Using {nics} [RO]; OOB eth0:192.0.2.11<0>",
        "Using network IB",
        f"Channel 00/0 : {rank + 4}[{rank}] -> {rank}[{rank}] [receive] via NET/IB/{rank}/GDRDMA",
        f"Channel 00/0 : {rank}[{rank}] -> {rank + 4}[{rank}] [send] via NET/IB/{rank}/GDRDMA",
    )
    text = "".join(f"node01:410{rank}:418{rank} [{rank}] NCCL INFO {line}\n" for line in said)
    return Reading(f"log:nccl:nccl.reduce_scatter#0:{rank}", "ok", text)


RUN: tuple[Scenario, ...] = ("as_is", "cut")


def multipath() -> Report:
    """Two nodes joined by four rails, a third beside them: a NIC failed while all were well used, and a rehearsal in
    which the fastest path was cut."""
    nodes = ["node01", "node02", "node03"]
    rates = {f"node01/eth{k}→node02/eth{k}": rate for k, rate in enumerate((3.1e9, 3.0e9, 3.05e9, 2.95e9))}
    names, lane = list(rates), "node01→node02"
    specs = [ProbeSpec(f"multipath.{s}#0", f"multipath.{s}", INFOS[s], {"scenario": s}, 60.0, 300.0) for s in RUN]
    measurements, transfers = [], []
    for spec in specs:
        scenario = str(spec.parameters["scenario"])
        cut = scenario == "cut"
        shared: dict[str, Scalar] = {"scenario": scenario, "lane": lane, "within_node": False, "connections": 1}
        for name, rate in rates.items():
            for repetition, value in enumerate(jitter(rate, 3, len(name)), 1):
                given = {**shared, "policy": "alone", "repetition": repetition, "paths": 1, "bytes": 1 << 29}
                subject = Subject("link", name)
                measurements.append(measured(spec, PATH, "B/s", subject, [value], given, "node01", 0, correct=True))
        reached = {"single": 3.0e9, "round_robin": 10.9e9, "equal": 11.1e9, "weighted": 11.6e9, "pull": 12.2e9}
        if cut:
            reached = {"single": 2.6e9, "round_robin": 4.6e9, "equal": 3.9e9, "weighted": 6.1e9, "pull": 9.85e9}
        for policy, rate in reached.items():
            for repetition, value in enumerate(jitter(rate, 3, len(policy)), 1):
                given = {**shared, "policy": policy, "repetition": repetition, "paths": 4, "bytes": 1 << 30}
                if cut:
                    given |= {"planted": names[0], "planted_at": 0.025}
                subject = Subject("link", lane)
                measurements.append(measured(spec, TRANSFER, "B/s", subject, [value], given, "node01", 0, correct=True))
        gone, at = (0, 0.025) if cut else (1, 0.06)
        steps = 27 if cut else 21
        full = [int(rate * 0.005) for rate in rates.values()]
        timelines = [[n if k != gone or i * 0.005 < at else 0 for i in range(steps)] for k, n in enumerate(full)]
        transfers.append(
            Transfer(
                spec.id,
                "node01",
                "node02",
                scenario,
                "pull",
                1,
                1 << 30,
                START + 3,
                steps * 0.005,
                1 << 30,
                0.005,
                [
                    TransferPath(
                        source=f"node01/eth{k}",
                        target=f"node02/eth{k}",
                        connections=1,
                        delivered=sum(line),
                        again=4 * MIB,
                        lost=8 * MIB,
                        failures=int(k == gone),
                        state="failed" if k == gone else "healthy",
                        connected=True,
                        timeline=line,
                    )
                    for k, line in enumerate(timelines)
                ],
                [
                    PathChange(at + 0.012, gone, "suspect", "stalled"),
                    PathChange(at + 0.03, gone, "failed", "error", 110),
                ],
                [PlantedTrouble(0, "cut", 0.025, 1e6)] if cut else [],
                at + 0.02,
            )
        )
    ends = [f"{node}/eth{k}" for node in nodes for k in range(4)]
    dead = "node02/eth1"
    probes = [
        PathProbe(a, b, entropy, "failed" if dead in (a, b) else "ok", None if dead in (a, b) else 2.1e8)
        for a in ends
        for b in ends
        if a < b and a[:6] != b[:6] and a[-1] == b[-1]
        for entropy in range(8)
    ]
    bad = ("node01/eth0", "node02/eth0")
    drill = [
        PathProbe(x, y, entropy, "failed" if (x, y) == bad else "ok", None if (x, y) == bad else 2.1e8)
        for x in ends
        for y in ends
        if x < y and x[:6] != y[:6] and "eth1" not in x + y
        for entropy in range(24)
    ]
    faults = [
        PathFault(spec.id, START + 4, str(spec.parameters["scenario"]), [name], finding, len(seen), rehearsed)
        for spec, name, seen, rehearsed in ((specs[0], names[1], probes, False), (specs[1], names[0], drill, True))
        for finding in localise(seen)
    ]
    run = Run(
        run_id="20251231T235959Z-multipath-77aa01",
        run_type="multipath",
        command=["cwai-bench", "multipath", "--hosts", "node[01-03]", "--scenario", "as_is,cut"],
        version="0.1.0",
        started=START,
        finished=START + 71.0,
        utc_offset=EAST,
        status="complete",
        world_size=len(nodes),
        plan=Plan([], specs, [], 120.0),
        environment={},
        settings={},
        nodes=[NodeRecord(node, [rank], True, True) for rank, node in enumerate(nodes)],
        facts=[],
        measurements=measurements,
        events=[RankEvent(rank, node, START + 70, "finished") for rank, node in enumerate(nodes)],
        transfers=transfers,
        path_faults=faults,
    )
    return judge(run)


SAMPLES: dict[str, Callable[[], Report]] = {
    "healthy": healthy,
    "failing": failing,
    "killed": killed,
    "paths": paths,
    "collectives": collectives,
    "multipath": multipath,
}
