"""What the kernel complained about lately: one item for each kind of trouble.

The wording is that of the kernel's own sources (named beside each pattern). A line matters for WINDOW; what is older
than the log reaches is not known, so the verdict says how far back the log goes.
"""

from __future__ import annotations

import re
import time

from cwai_bench.checks import DoesNotApply, FactView, Outcome, failed, node_check, passed, warned
from cwai_bench.model import Action, Severity
from cwai_bench.sources import Call, KernelLog, LogLine, Pstore
from cwai_bench.text import Text

LOG = Call("kernel_log")
WINDOW = 24 * 3600.0
"""Seconds: what a node complained of today may hurt the job of tonight."""
LINES_SHOWN = 12
LINE = 1000
"""Characters of a line that are looked at: a recorded log may hold anything."""

_METHOD = Text("kernel log (/dev/kmsg) of the last {h:g} h: {w}", "最近 {h:g} 小时的内核日志（/dev/kmsg）：{w}")
_NEEDS = ("permission to read the kernel log",)


def recent(facts: FactView, *patterns: re.Pattern[str], window: float = WINDOW) -> tuple[list[LogLine], float]:
    """Lines of the last ``window`` seconds that match any of ``patterns``, oldest first; and the hours of it that the
    log covers.

    The lines become the evidence.
    """
    log = facts.call("kernel_log", KernelLog)
    since = log.taken - window
    found = [line for line in log.lines if line.time >= since and any(p.search(line.text[:LINE]) for p in patterns)]
    oldest = log.lines[0].time if log.lines else log.taken
    covered = min(log.taken - oldest, window) / 3600
    head = f"{log.came_from}, {len(log.lines)} lines, last {covered:.1f} h"
    shown = [f"{time.strftime('%FT%TZ', time.gmtime(line.time))} {line.text}" for line in found[-LINES_SHOWN:]]
    facts.cite(LOG, "\n".join([head, *(shown or ["(no line matches)"])]))
    return found, covered


def _judged(
    facts: FactView, bad: re.Pattern[str] | None, mild: re.Pattern[str] | None, but_not: re.Pattern[str] | None = None
) -> Outcome:
    lines, covered = recent(facts, *[p for p in (bad, mild) if p is not None])
    if but_not is not None:
        lines = [line for line in lines if not but_not.search(line.text)]
    observed = f"{len(lines)} in {covered:.1f} h"
    if not lines:
        return passed(observed)
    worst = [line for line in lines if bad is not None and bad.search(line.text)]
    last = (worst or lines)[-1].text[:160]
    detail = Text("last: {l}", "最近一条：{l}").fill(l=last)
    return failed(observed, detail) if worst else warned(observed, detail)


def _method(words: str) -> Text:
    return _METHOD.fill(h=WINDOW / 3600, w=words)


NONE = Text("no such line", "无此类日志")
NONE_OR_WARNING = Text("no such line; one is a warning", "无此类日志；出现则告警")

# mm/oom_kill.c
_OOM = re.compile(r"Out of memory: Killed process|Out of memory and no killable|Memory cgroup out of memory: Killed")


@node_check(
    "kernel.oom",
    title=Text("No process was killed for lack of memory", "无 OOM 杀进程"),
    method=_method("“Out of memory: Killed process”"),
    criterion=NONE_OR_WARNING,
    suggestion=Text(
        "lower the job's memory use, or its number of data loaders; see that the killed process was not a daemon",
        "降低作业内存占用或数据加载进程数；确认被杀的不是系统服务",
    ),
    reads=(LOG,),
    severity=Severity.MAJOR,
    action=Action.MONITOR,
    needs=_NEEDS,
)
def oom(facts: FactView) -> Outcome:
    return _judged(facts, None, _OOM)


# kernel/hung_task.c
_HUNG = re.compile(r"INFO: task .* blocked (?:in I/O wait )?(?:on .*)?for more than \d+ seconds")


@node_check(
    "kernel.hung_task",
    title=Text("No task hung in the kernel", "无任务在内核中挂起"),
    method=_method("“task … blocked for more than … seconds”"),
    criterion=NONE,
    suggestion=Text(
        "the call trace in the log names the driver or file system that does not answer; reboot if it does not recover",
        "日志中的调用栈指明了未响应的驱动或文件系统；若不恢复则重启",
    ),
    reads=(LOG,),
    severity=Severity.CRITICAL,
    action=Action.REBOOT,
    needs=_NEEDS,
)
def hung_task(facts: FactView) -> Outcome:
    return _judged(facts, _HUNG, None)


# kernel/watchdog.c, kernel/watchdog_perf.c; kernel/rcu/tree_stall.h
_LOCKUP = re.compile(r"BUG: soft lockup|hard LOCKUP")
_STALL = re.compile(r"rcu.*(?:detected stall|self-detected stall)|rcu.*kthread starved")


@node_check(
    "kernel.lockup",
    title=Text("No CPU locked up", "无 CPU 死锁"),
    method=_method("“soft lockup”, “hard LOCKUP”, “rcu … stall”"),
    criterion=Text("no lockup; an RCU stall is a warning", "无死锁；RCU stall 则告警"),
    suggestion=Text(
        "look at the call trace; reboot, then update firmware and the driver that it names",
        "查看调用栈；重启节点，并更新相关固件与驱动",
    ),
    reads=(LOG,),
    severity=Severity.CRITICAL,
    action=Action.REBOOT,
    needs=_NEEDS,
)
def lockup(facts: FactView) -> Outcome:
    return _judged(facts, _LOCKUP, _STALL)


# arch/x86/mm/fault.c, arch/x86/kernel/{dumpstack,traps}.c, arch/arm64/kernel/traps.c, lib/bug.c
_OOPS = re.compile(
    r"BUG: unable to handle|BUG: kernel NULL pointer|kernel BUG at |Oops: |general protection fault, |"
    r"Unable to handle kernel |Internal error: Oops"
)


@node_check(
    "kernel.oops",
    title=Text("The kernel did not crash", "内核无 Oops"),
    method=_method("“BUG: …”, “Oops:”, “Unable to handle kernel …”"),
    criterion=NONE,
    suggestion=Text(
        "reboot the node: after an oops the kernel is not to be trusted; report the trace to whoever made the module",
        "重启节点：发生 Oops 后内核不再可信；将调用栈反馈给模块提供方",
    ),
    reads=(LOG,),
    severity=Severity.CRITICAL,
    action=Action.REBOOT,
    needs=_NEEDS,
)
def oops(facts: FactView) -> Outcome:
    return _judged(facts, _OOPS, None)


# arch/x86/kernel/cpu/mce/core.c; drivers/firmware/efi/cper.c, drivers/acpi/apei/ghes.c (arm64 too). "Corrected" lines
# come with the same prefix and only warn.
_MACHINE_CHECK_BAD = re.compile(
    r"mce: \[Hardware Error\]: (?:CPU \d+: Machine Check(?: Exception)?: [4-7f]|.*(?:PROCESSOR CONTEXT CORRUPT|Fatal))|"
    r"\[Hardware Error\]:.*(?:event severity: (?:fatal|recoverable)|Uncorrected|Deferred error)|"
    r"Kernel panic - not syncing: .*[Mm]achine check"
)
_MACHINE_CHECK = re.compile(r"\[Hardware Error\]|Machine check events logged|mce: .*Machine Check")


@node_check(
    "cpu.machine_check",
    title=Text("No machine check", "无机器检查异常（MCE）"),
    method=_method("“[Hardware Error]”, “Machine check events logged”"),
    criterion=Text(
        "no uncorrected hardware error; a corrected one is a warning", "无不可纠正硬件错误；可纠正错误则告警"
    ),
    suggestion=Text(
        "decode it with rasdaemon or mcelog; replace the CPU, module or board that it names",
        "用 rasdaemon 或 mcelog 解码，并更换其指明的 CPU、内存条或主板",
    ),
    reads=(LOG,),
    severity=Severity.CRITICAL,
    action=Action.CONTACT_VENDOR,
    needs=_NEEDS,
)
def machine_check(facts: FactView) -> Outcome:
    return _judged(facts, _MACHINE_CHECK_BAD, _MACHINE_CHECK)


# drivers/edac/edac_mc.c, mm/memory-failure.c
_MEMORY_BAD = re.compile(r"EDAC .*\b\d+ UE |Memory failure: 0x")
_MEMORY_MILD = re.compile(r"EDAC .*\b\d+ CE |soft offlin")


@node_check(
    "memory.errors",
    title=Text("Memory errors in the kernel log", "内核日志中的内存错误"),
    method=_method("“EDAC MC… UE/CE”, “Memory failure:”"),
    criterion=Text("no uncorrectable error; a correctable one is a warning", "无不可纠正错误；可纠正错误则告警"),
    suggestion=Text(
        "the line names controller, channel and slot: replace that module; correctable: watch it",
        "日志指明了控制器、通道与插槽：更换该内存条；可纠正错误则持续观察",
    ),
    reads=(LOG,),
    severity=Severity.CRITICAL,
    action=Action.CONTACT_VENDOR,
    needs=_NEEDS,
)
def memory_errors(facts: FactView) -> Outcome:
    return _judged(facts, _MEMORY_BAD, _MEMORY_MILD)


# block/blk-core.c, fs/ext4/super.c, fs/xfs, drivers/nvme/host/pci.c, drivers/scsi/scsi_logging.c
_DISK_BAD = re.compile(
    r"(?:blk_update_request: |^)(?:critical (?:medium|target|space allocation) error|I/O error), dev |"
    r"Buffer I/O error on dev|"
    r"EXT4-fs (?:error|\(.*\): Remounting filesystem read-only)|XFS .*(?:Corruption|I/O [Ee]rror|Shutting down)|"
    r"BTRFS (?:error|critical)|nvme\S* .*(?:I/O .*timeout|controller is down|Device not ready|Disabling device)|"
    r"Unrecovered read error|Medium Error"
)
# A floppy that is not there and a drive without a disc answer like this on many VMs.
_NOT_A_DISK = re.compile(r"dev (?:fd|sr)\d")


@node_check(
    "storage.io_errors",
    title=Text("No disk errors", "无磁盘 I/O 错误"),
    method=_method("“I/O error, dev …”, “EXT4-fs error”, “XFS … Corruption”, “nvme … timeout”"),
    criterion=NONE,
    suggestion=Text(
        "smartctl -a (nvme smart-log) of that device; replace it, check the file system",
        "对该设备执行 smartctl -a（或 nvme smart-log）；更换磁盘并检查文件系统",
    ),
    reads=(LOG,),
    severity=Severity.MAJOR,
    action=Action.ISOLATE,
    needs=_NEEDS,
)
def io_errors(facts: FactView) -> Outcome:
    return _judged(facts, _DISK_BAD, None, _NOT_A_DISK)


# fs/nfs, net/sunrpc/clnt.c; fs/lustre (LustreError); fs/ceph
_SHARED = re.compile(
    r"nfs: server \S+ not responding|LustreError: |ceph: .*(?:hung|reconnect denied)|libceph: .*socket closed"
)


@node_check(
    "storage.shared_errors",
    title=Text("Shared file systems answered", "共享文件系统响应正常"),
    method=_method("“nfs: server … not responding”, “LustreError”, “ceph: …”"),
    criterion=NONE_OR_WARNING,
    suggestion=Text(
        "ask the storage team what happened then; check the route and the NIC that leads there",
        "与存储团队核对该时段情况；检查通往存储的路由与网卡",
    ),
    reads=(LOG,),
    severity=Severity.MAJOR,
    action=Action.MONITOR,
    needs=_NEEDS,
)
def shared_errors(facts: FactView) -> Outcome:
    return _judged(facts, None, _SHARED)


# net/sched/sch_generic.c
_WATCHDOG = re.compile(r"NETDEV WATCHDOG: .*transmit queue \d+ timed out")


@node_check(
    "network.watchdog",
    title=Text("No NIC stopped sending", "无网卡发送超时"),
    method=_method("“NETDEV WATCHDOG: … transmit queue … timed out”"),
    criterion=NONE,
    suggestion=Text(
        "update the firmware and driver of that NIC; if it comes back, replace it",
        "更新该网卡的固件与驱动；若复现则更换",
    ),
    reads=(LOG,),
    severity=Severity.MAJOR,
    action=Action.ISOLATE,
    needs=_NEEDS,
)
def watchdog(facts: FactView) -> Outcome:
    return _judged(facts, _WATCHDOG, None)


CRASH_WINDOW = 7 * 86400.0


@node_check(
    "kernel.crashed",
    title=Text("No crash was left in persistent storage", "无遗留的内核崩溃记录"),
    method=Text("files in /sys/fs/pstore", "/sys/fs/pstore 下的文件"),
    criterion=Text(
        "none of the last {d:g} days; an older one is a warning", "最近 {d:g} 天内无记录；更早的记录则告警"
    ).fill(d=CRASH_WINDOW / 86400),
    suggestion=Text(
        "read the record (it is the end of the log of a kernel that panicked), report it, then delete it",
        "查看记录（内核崩溃前的最后日志），上报后删除",
    ),
    reads=(Call("pstore"),),
    severity=Severity.MAJOR,
    action=Action.MONITOR,
    needs=("root",),
)
def crashed(facts: FactView) -> Outcome:
    store = facts.call("pstore", Pstore)
    if not store.mounted and not store.records:
        raise DoesNotApply(Text("this machine keeps no crash records (no pstore)", "本机不保存崩溃记录（无 pstore）"))
    records = [r for r in store.records if r.name.startswith(("dmesg-", "console-"))]
    if not records:
        return passed("0")
    newest = max(r.modified for r in records)
    observed = f"{len(records)}, newest {time.strftime('%FT%TZ', time.gmtime(newest))}"
    return failed(observed) if newest > facts.taken - CRASH_WINDOW else warned(observed)
