"""Reports of runs that might have been: what the golden files in ``reports/samples`` are made of."""

from __future__ import annotations

from cwai_bench.model import (
    Action,
    CheckInfo,
    Evidence,
    Gate,
    ItemKind,
    LeftOut,
    NodeRecord,
    Plan,
    ReasonCode,
    Report,
    Severity,
    Status,
    Subject,
    ValueGroup,
    Verdict,
)
from cwai_bench.text import Text, plain

START = 1767225599.25  # 2025-12-31 23:59:59 UTC: the local date is another one
EAST = 8 * 3600


def check(
    id: str,
    kind: ItemKind,
    title: Text,
    method: Text,
    criterion: Text,
    suggestion: Text,
    severity: Severity,
    action: Action = Action.FIX_CONFIG,
    required: bool = True,
) -> CheckInfo:
    return CheckInfo(id, kind, "host", title, method, criterion, suggestion, severity, action, [], required)


GOVERNOR = check(
    "cpu.governor",
    ItemKind.NODE,
    Text("CPU frequency governor", "CPU 频率调节器"),
    Text(
        "reads sys/devices/system/cpu/cpu*/cpufreq/scaling_governor",
        "读取 sys/devices/system/cpu/cpu*/cpufreq/scaling_governor",
    ),
    Text("performance on every core", "所有核心均为 performance"),
    Text("cpupower frequency-set -g performance", "执行 cpupower frequency-set -g performance"),
    Severity.MAJOR,
)
OFFLINE = check(
    "cpu.offline",
    ItemKind.NODE,
    Text("Offline CPUs", "离线 CPU"),
    Text("compares the possible CPUs with those online", "比较 possible 与 online 的 CPU 集合"),
    Text("every CPU that is possible is online", "所有可用 CPU 均在线"),
    Text("bring them online; look for machine checks", "将其上线，并检查机器检查异常"),
    Severity.MAJOR,
)
MEMORY_ERRORS = check(
    "memory.edac",
    ItemKind.NODE,
    Text("Memory errors", "内存错误"),
    Text("reads the counters of sys/devices/system/edac/mc/mc*", "读取 sys/devices/system/edac/mc/mc* 计数"),
    Text("no uncorrectable error; corrected errors are a warning", "无不可纠正错误；有可纠正错误则警告"),
    Text("replace the module that the counter names", "更换计数所指的内存条"),
    Severity.CRITICAL,
    Action.CONTACT_VENDOR,
)
KERNEL_LOG = check(
    "kernel.log",
    ItemKind.NODE,
    Text("Faults in the kernel log", "内核日志中的故障"),
    Text("reads dmesg for OOM kills, hung tasks and lockups", "在 dmesg 中查找 OOM、hung task 与 lockup"),
    Text("none since the node started", "自开机以来没有"),
    Text("read the lines around it; reboot a node whose tasks hang", "查看上下文；任务挂起的节点应重启"),
    Severity.MAJOR,
    Action.REBOOT,
)
TIME_SYNC = check(
    "time.sync",
    ItemKind.NODE,
    Text("Time synchronisation", "时间同步"),
    Text("asks the kernel (adjtimex) whether the clock is synchronised", "通过 adjtimex 询问内核时钟是否已同步"),
    Text("synchronised, error below 50 ms", "已同步，误差小于 50 ms"),
    Text("start chronyd or another time service", "启动 chronyd 或其他时间服务"),
    Severity.MAJOR,
)
GPU_ECC = check(
    "nvidia.ecc",
    ItemKind.NODE,
    Text("GPU memory errors", "GPU 显存错误"),
    Text(
        "nvidia-smi --query-gpu=ecc.errors.uncorrected.volatile.total",
        "nvidia-smi --query-gpu=ecc.errors.uncorrected.volatile.total",
    ),
    Text("no uncorrected error", "无不可纠正错误"),
    Text("reset the card; return it when the errors come back", "复位该卡；若再次出现则返修"),
    Severity.CRITICAL,
    Action.RESET,
)
KERNEL = check(
    "kernel.version",
    ItemKind.CONSISTENCY,
    Text("Kernel version", "内核版本"),
    Text("reads proc/sys/kernel/osrelease", "读取 proc/sys/kernel/osrelease"),
    Text("the same on all nodes, or as on the baseline node", "所有节点一致，或与基线节点一致"),
    Text("bring the nodes to one image", "将节点统一为同一镜像"),
    Severity.MAJOR,
    required=False,
)
MTU = check(
    "network.mtu",
    ItemKind.CONSISTENCY,
    Text("MTU of the interfaces", "网卡 MTU"),
    Text("reads sys/class/net/*/mtu", "读取 sys/class/net/*/mtu"),
    Text("the same on all nodes, or as on the baseline node", "所有节点一致，或与基线节点一致"),
    Text("set one MTU on all nodes and switches", "在所有节点与交换机上统一 MTU"),
    Severity.MAJOR,
    required=False,
)
FREE_SPACE = check(
    "disk.free",
    ItemKind.CONFIGURABLE,
    Text("Free space of the file systems", "文件系统可用空间"),
    Text("statvfs of every mounted file system", "对每个挂载的文件系统执行 statvfs"),
    Text("at least 20 GiB", "不少于 20 GiB"),
    Text("find what fills it: du -xh --max-depth=2 PATH", "用 du -xh --max-depth=2 PATH 查找占用"),
    Severity.MAJOR,
    required=True,
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
) -> Verdict:
    if action is None:
        action = info.action if status is Status.FAIL else Action.NONE
    return Verdict(
        info.id,
        info.kind,
        subject or Subject("node", node),
        node,
        status,
        observed,
        expected,
        detail,
        reason_code,
        action,
        [Evidence(source, text) for source, text in evidence],
        groups or [],
        hint,
    )


HOSTILE = 'node08"><script>alert(1)</script>\x1b[2J\x1b]0;owned\x07\u202egnp.exe'
CLUSTER = [f"node{i:02d}" for i in range(1, 8)] + [HOSTILE]


def failing() -> Report:
    """Eight nodes, one with a host name that is an attack: failures, values that differ, no baseline."""
    verdicts: list[Verdict] = []
    for node in CLUSTER:
        bad = node in ("node03", "node07")
        verdicts.append(
            verdict(
                GOVERNOR,
                node,
                Status.FAIL if bad else Status.PASS,
                "powersave: 96 of 96" if bad else "performance: 96 of 96",
                expected=plain("performance") if bad else None,
                evidence=(
                    (
                        "sys/devices/system/cpu/cpu*/cpufreq/scaling_governor",
                        ("powersave" if bad else "performance") + "\n",
                    ),
                ),
            )
        )
        verdicts.append(verdict(OFFLINE, node, observed="0-95"))
    verdicts += [
        verdict(
            MEMORY_ERRORS,
            node,
            Status.WARN if node == "node05" else Status.PASS,
            "17 corrected, 0 uncorrected" if node == "node05" else "0 corrected, 0 uncorrected",
            detail=Text("corrected errors on mc0: watch them", "mc0 有可纠正错误，请关注")
            if node == "node05"
            else None,
            action=Action.MONITOR if node == "node05" else None,
            evidence=(("sys/devices/system/edac/mc/mc*/ce_count", "mc0/ce_count: 17\n"),) if node == "node05" else (),
        )
        for node in CLUSTER
    ]
    verdicts += [
        verdict(
            KERNEL_LOG,
            node,
            Status.UNKNOWN,
            reason_code="permission",
            detail=Text("$ dmesg: Operation not permitted", "$ dmesg：不允许的操作"),
            evidence=(("$ dmesg", "dmesg: read kernel buffer failed: Operation not permitted\n"),),
        )
        if node != HOSTILE
        else verdict(
            KERNEL_LOG,
            node,
            Status.FAIL,
            "1 hung task",
            expected=Text("none", "无"),
            evidence=(
                (
                    "$ dmesg",
                    "[ 8123.4] INFO: task python:4242 blocked for more than 120 seconds.\n"
                    "[ 8123.5] <img src=x onerror=alert(2)> \x1b[31mnot red\x1b[0m\x00\n",
                ),
            ),
        )
        for node in CLUSTER
    ]
    verdicts += [verdict(TIME_SYNC, node, observed="synchronised, error 0.4 ms") for node in CLUSTER]
    verdicts += [
        verdict(GPU_ECC, node, Status.SKIP, reason_code="absent", detail=Text("no NVIDIA GPU here", "没有 NVIDIA GPU"))
        for node in CLUSTER
    ]
    kernels = [
        ValueGroup("6.1.0-28-amd64", CLUSTER[:6] + CLUSTER[7:]),
        ValueGroup("6.1.0-25-amd64", ["node07"]),
    ]
    odd = Text("node07 differs from most nodes", "node07 与多数节点不同")
    verdicts += [
        verdict(
            KERNEL,
            node,
            Status.NA,
            "6.1.0-25-amd64" if node == "node07" else "6.1.0-28-amd64",
            reason_code="no_baseline",
            groups=kernels,
            hint=odd,
        )
        for node in CLUSTER
    ]
    verdicts += [
        verdict(MTU, node, Status.NA, "eth0 9000", reason_code="no_baseline", groups=[ValueGroup("eth0 9000", CLUSTER)])
        for node in CLUSTER
    ]
    verdicts += [
        verdict(
            FREE_SPACE,
            node,
            Status.FAIL if node == "node03" else Status.PASS,
            "/: 3.2 GiB" if node == "node03" else "/: 412 GiB",
            expected=plain("≥ 20 GiB") if node == "node03" else None,
        )
        for node in CLUSTER
    ]
    return Report(
        run_id="20251231T235959Z-run-5ca1ab",
        run_type="run",
        status="complete",
        command=["cwai-bench", "run", "--hosts", "node[01-08]", "--out", "/tmp/a b"],
        version="0.1.0",
        started=START,
        finished=START + 201.5,
        utc_offset=EAST,
        world_size=16,
        nodes=[NodeRecord(n, [2 * i, 2 * i + 1], True, True) for i, n in enumerate(CLUSTER)],
        baseline=None,
        environment={"kernel": "Linux 6.1.0 x86_64", "mpi": "Open MPI 5.0.11", "python": "3.11.2"},
        settings={"budget": 600.0, "lang": "en"},
        plan=Plan(
            checks=["cpu.governor"],
            probes=[],
            left_out=[
                LeftOut("verbs.bandwidth", "absent", Text("no RDMA device on any node", "所有节点均无 RDMA 设备"))
            ],
            expected=60.0,
            budget=600.0,
        ),
        checks=[OFFLINE, GOVERNOR, MEMORY_ERRORS, KERNEL_LOG, TIME_SYNC, GPU_ECC, KERNEL, MTU, FREE_SPACE],
        verdicts=verdicts,
        measurements=[],
        events=[],
        counts={},
        gate=Gate(
            Status.FAIL,
            1,
            [
                Text("cpu.governor failed on node03, node07", "node03、node07 的 cpu.governor 不通过"),
                Text("disk.free failed on node03", "node03 的 disk.free 不通过"),
                Text("kernel.log failed on {n}", "{n} 的 kernel.log 不通过").fill(n=HOSTILE),
            ],
            ["node03", "node07", HOSTILE],
        ),
        notes=[],
    )


SAMPLES = {"failing": failing}
