"""Limits: of a process, of its container, and of the whole system."""

from __future__ import annotations

from cwai_bench.checks import DoesNotApply, FactView, NotKnown, Outcome, failed, node_check, passed, warned, whole
from cwai_bench.model import Action, Severity
from cwai_bench.sources import Call, Container, Cpus, File, Limits, SteadyNetwork
from cwai_bench.text import Text

LIMITS = Call("limits")
UNLIMITED = -1
NOFILE = 65536
MEMLOCK = 16 << 30
NPROC = 4096


def limit(facts: FactView, name: str) -> tuple[int, int]:
    """Soft and hard; -1 is unlimited. The one limit becomes the evidence."""
    found = facts.call("limits", Limits).limits
    if name not in found:
        raise NotKnown("parse", Text("there is no limit called {n}", "没有名为 {n} 的限制").fill(n=name))
    soft, hard = found[name]
    facts.cite(LIMITS, f"{name}: soft {worded(soft)}, hard {worded(hard)}")
    return soft, hard


def worded(value: int) -> str:
    return "unlimited" if value == UNLIMITED else str(value)


def at_least(value: int, wanted: int) -> bool:
    return value == UNLIMITED or value >= wanted


@node_check(
    "limits.open_files",
    title=Text("Limit of open files", "打开文件数限制"),
    method=Text("getrlimit(2) RLIMIT_NOFILE (ulimit -n)", "getrlimit(2) RLIMIT_NOFILE（ulimit -n）"),
    criterion=Text("soft limit at least {n}", "软限制不低于 {n}").fill(n=NOFILE),
    suggestion=Text(
        f"ulimit -n {NOFILE} in the job, or LimitNOFILE / limits.conf: data loaders and connections need them",
        f"在作业中执行 ulimit -n {NOFILE}，或设置 LimitNOFILE / limits.conf：数据加载与大规模作业的连接都需要",
    ),
    reads=(LIMITS,),
    severity=Severity.MINOR,
    seen="container",
)
def open_files(facts: FactView) -> Outcome:
    soft, hard = limit(facts, "nofile")
    observed = f"{worded(soft)} (hard {worded(hard)})"
    return passed(observed) if at_least(soft, NOFILE) else warned(observed)


@node_check(
    "limits.locked_memory",
    title=Text("Limit of locked memory", "锁定内存限制"),
    method=Text(
        "getrlimit(2) RLIMIT_MEMLOCK (ulimit -l), CAP_IPC_LOCK",
        "getrlimit(2) RLIMIT_MEMLOCK（ulimit -l）与 CAP_IPC_LOCK",
    ),
    # awsome-distributed-training warns below the same figure.
    criterion=Text(
        "on a node with RDMA NICs: unlimited, or at least {g} GiB", "有 RDMA 网卡的节点：不限，或不低于 {g} GiB"
    ).fill(g=MEMLOCK >> 30),
    suggestion=Text(
        "limits.conf: * - memlock unlimited; docker: --ulimit memlock=-1; Slurm: PropagateResourceLimitsExcept=MEMLOCK",
        "limits.conf：* - memlock unlimited；容器：--ulimit memlock=-1；Slurm：PropagateResourceLimitsExcept=MEMLOCK",
    ),
    reads=(LIMITS, Call("network")),
    severity=Severity.MAJOR,
    seen="container",
)
def locked_memory(facts: FactView) -> Outcome:
    rdma = facts.call("network", SteadyNetwork).rdma
    facts.cite(Call("network"), f"rdma devices: {', '.join(rdma) or '-'}")
    if not rdma:
        raise DoesNotApply(Text("no RDMA NIC here: nothing has to be locked", "没有 RDMA 网卡，无需锁定内存"))
    soft, hard = limit(facts, "memlock")
    observed = f"{worded(soft)} (hard {worded(hard)})"
    if at_least(soft, MEMLOCK):
        return passed(observed)
    if facts.call("limits", Limits).ipc_lock:
        return passed(
            observed, Text("CAP_IPC_LOCK is in force: the limit does not bind", "具有 CAP_IPC_LOCK，不受此限制")
        )
    return warned(observed)


@node_check(
    "limits.processes",
    title=Text("Limit of processes", "进程数限制"),
    method=Text("getrlimit(2) RLIMIT_NPROC (ulimit -u)", "getrlimit(2) RLIMIT_NPROC（ulimit -u）"),
    criterion=Text("soft limit at least {n}", "软限制不低于 {n}").fill(n=NPROC),
    suggestion=Text(
        "raise it in limits.conf: threads of frameworks and data loaders count as well",
        "在 limits.conf 中调高：框架与数据加载的线程也计入其中",
    ),
    reads=(LIMITS,),
    severity=Severity.MINOR,
    seen="container",
)
def processes(facts: FactView) -> Outcome:
    soft, hard = limit(facts, "nproc")
    observed = f"{worded(soft)} (hard {worded(hard)})"
    return passed(observed) if at_least(soft, NPROC) else warned(observed)


FULL, NEARLY_FULL = 0.95, 0.8


def used_up(used: int, limit_: int) -> Outcome:
    """The verdict on a table of the kernel that must not run full."""
    observed = f"{used} / {limit_} ({used / limit_ * 100:.1f} %)"
    if used >= limit_ * FULL:
        return failed(observed)
    return warned(observed) if used >= limit_ * NEARLY_FULL else passed(observed)


TABLE = Text("below {w:g} %; from {f:g} % on it fails", "低于 {w:g} %；达到 {f:g} % 则不通过").fill(
    w=NEARLY_FULL * 100, f=FULL * 100
)


@node_check(
    "limits.file_handles",
    title=Text("File handles of the system", "系统文件句柄"),
    method=Text("/proc/sys/fs/file-nr: in use, and the maximum", "/proc/sys/fs/file-nr：已用与上限"),
    criterion=TABLE,
    suggestion=Text(
        "find who holds them (lsof | head), or raise fs.file-max", "用 lsof 查找占用者，或调高 fs.file-max"
    ),
    reads=(File("proc/sys/fs/file-nr"),),
    severity=Severity.MAJOR,
    action=Action.MONITOR,
)
def file_handles(facts: FactView) -> Outcome:
    fields = facts.text("proc/sys/fs/file-nr").split()
    if len(fields) != 3:
        raise NotKnown("parse", Text("/proc/sys/fs/file-nr is not as expected", "/proc/sys/fs/file-nr 的格式不符"))
    return used_up(whole(fields[0], "file-nr"), max(whole(fields[2], "file-nr"), 1))


@node_check(
    "limits.pids",
    title=Text("Process ids of the system", "系统进程号"),
    method=Text(
        "threads of /proc/loadavg, against the lesser of kernel.pid_max and kernel.threads-max",
        "/proc/loadavg 中的线程数，与 kernel.pid_max、kernel.threads-max 中较小者比较",
    ),
    criterion=TABLE,
    suggestion=Text(
        "find who starts so many threads, or raise kernel.pid_max", "查找线程过多的进程，或调高 kernel.pid_max"
    ),
    reads=(File("proc/loadavg"), File("proc/sys/kernel/pid_max"), File("proc/sys/kernel/threads-max")),
    severity=Severity.MAJOR,
    action=Action.MONITOR,
)
def pids(facts: FactView) -> Outcome:
    fields = facts.text("proc/loadavg").split()
    threads = fields[3].partition("/")[2] if len(fields) > 3 else ""
    most = min(facts.number("proc/sys/kernel/pid_max"), facts.number("proc/sys/kernel/threads-max"))
    return used_up(whole(threads, "proc/loadavg"), max(most, 1))


@node_check(
    "limits.container",
    title=Text("The container may use the whole node", "容器可使用整个节点"),
    method=Text("cpu.max and memory.max of the control group", "控制组的 cpu.max 与 memory.max"),
    criterion=Text("no limit below what the node has", "没有低于节点资源的限额"),
    suggestion=Text(
        "raise the limits of the pod or container, if the job is meant to have the node for itself",
        "若作业应独占节点，请调高 Pod 或容器的资源限额",
    ),
    reads=(Call("container"), Call("cpus"), File("proc/meminfo")),
    severity=Severity.MINOR,
    seen="container",
)
def container(facts: FactView) -> Outcome:
    found = facts.call("container", Container)
    cpus = len(facts.call("cpus", Cpus).online)
    facts.cite(Call("cpus"), f"online: {cpus}")
    total = facts.kilobytes("proc/meminfo", "MemTotal")
    tight = []
    if found.cpu_limit is not None and found.cpu_limit < cpus:
        tight.append(f"{found.cpu_limit:g} / {cpus} CPU")
    if found.memory_limit is not None and found.memory_limit < total:
        tight.append(f"{found.memory_limit / (1 << 30):.1f} / {total / (1 << 30):.1f} GiB")
    where = found.kind or "host"
    return (
        warned(f"{where}: {', '.join(tight)}") if tight else passed(f"{where}: {cpus} CPU, {total / (1 << 30):.1f} GiB")
    )
