"""The kernel: what it was told at boot, what it says of its own health, and its clock."""

from __future__ import annotations

from cwai_bench.checks import DoesNotApply, FactView, NotKnown, Outcome, failed, node_check, passed, warned
from cwai_bench.checks.kind import accelerators
from cwai_bench.model import Action, Severity
from cwai_bench.sources import Call, Clock, Container, File, Pci, SteadyNetwork
from cwai_bench.text import Text

# Documentation/admin-guide/tainted-kernels.rst: bit, letter, and what it means.
TAINTS = "PFSRMBUDAWCIOELKXTNJ"
TAINTS_FATAL = {"M": "machine check", "B": "bad page", "D": "oops", "L": "soft lockup"}
TAINTS_WARNING = {"F": "module forced in", "S": "out of specification", "R": "module forced out", "W": "kernel warning"}


@node_check(
    "kernel.taint",
    title=Text("Taint flags of the kernel", "内核污染标志"),
    method=Text("/proc/sys/kernel/tainted", "/proc/sys/kernel/tainted"),
    criterion=Text(
        "none of M, B, D, L; F, S, R, W are warnings; other flags (such as P, O, E of out-of-tree drivers) are fine",
        "不含 M、B、D、L；含 F、S、R、W 则告警；其他标志（如外部驱动的 P、O、E）正常",
    ),
    suggestion=Text(
        "look in the kernel log for what set it; reboot the node when the trouble is understood",
        "在内核日志中查找成因；查明后重启节点",
    ),
    reads=(File("proc/sys/kernel/tainted"),),
    severity=Severity.MAJOR,
    action=Action.REBOOT,
)
def taint(facts: FactView) -> Outcome:
    value = facts.number("proc/sys/kernel/tainted")
    flags = [letter for bit, letter in enumerate(TAINTS) if value >> bit & 1]
    observed = f"{value} ({''.join(flags) or '-'})"
    meanings = ", ".join(
        f"{f}: {(TAINTS_FATAL | TAINTS_WARNING)[f]}" for f in flags if f in TAINTS_FATAL | TAINTS_WARNING
    )
    detail = Text(meanings, meanings) if meanings else None
    if set(flags) & set(TAINTS_FATAL):
        return failed(observed, detail)
    return warned(observed, detail) if set(flags) & set(TAINTS_WARNING) else passed(observed, detail)


# Documentation/admin-guide/kernel-parameters.txt
CMDLINE_BAD = {
    "mem": Text("part of the memory is hidden", "部分内存被屏蔽"),
    "maxcpus": Text("CPUs are left out", "部分 CPU 未启用"),
    "nr_cpus": Text("CPUs are left out", "部分 CPU 未启用"),
    "nosmp": Text("one CPU only", "仅启用一个 CPU"),
    "noapic": Text("interrupts are slow", "中断性能低"),
    "pci=nomsi": Text("interrupts of NICs and GPUs are shared and slow", "网卡与 GPU 的中断共享且缓慢"),
    "pci=noaer": Text("PCIe errors are not reported", "不上报 PCIe 错误"),
    "mce=off": Text("hardware errors are not reported", "不上报硬件错误"),
    "slub_debug": Text("memory debugging costs speed", "内存调试影响性能"),
    "kmemleak=on": Text("memory debugging costs speed", "内存调试影响性能"),
    "single": Text("single-user mode", "单用户模式"),
}


@node_check(
    "kernel.cmdline",
    title=Text("Kernel command line", "内核命令行"),
    method=Text("/proc/cmdline", "/proc/cmdline"),
    criterion=Text("none of: {l}", "不含：{l}").fill(l=", ".join(CMDLINE_BAD)),
    suggestion=Text("take it out of the boot loader's configuration and reboot", "从引导配置中移除该参数并重启"),
    reads=(File("proc/cmdline"),),
    severity=Severity.MINOR,
)
def cmdline(facts: FactView) -> Outcome:
    words = facts.text("proc/cmdline").split(" -- ")[0].split()
    bad = {}
    for word in words:
        name, _, value = word.partition("=")
        for key, meaning in CMDLINE_BAD.items():
            wanted_name, _, wanted_value = key.partition("=")
            if name == wanted_name and (not wanted_value or wanted_value in value.split(",")):
                bad[word] = meaning
    if not bad:
        return passed(f"{len(words)} words")
    return warned(
        " ".join(bad),
        Text("; ".join(f"{w}: {m.en}" for w, m in bad.items()), "；".join(f"{w}：{m.zh}" for w, m in bad.items())),
    )


@node_check(
    "kernel.iommu",
    title=Text("IOMMU does not translate for devices", "IOMMU 处于直通模式"),
    method=Text("/sys/kernel/iommu_groups/*/type", "/sys/kernel/iommu_groups/*/type"),
    # Documentation/admin-guide/kernel-parameters.txt, iommu.passthrough: "Bypass the IOMMU for DMA".
    criterion=Text(
        "on a host with accelerators or RDMA NICs: off, or every group is identity (iommu=pt)",
        "有加速卡或 RDMA 网卡的物理机：IOMMU 关闭，或所有组均为 identity（iommu=pt）",
    ),
    suggestion=Text(
        "add iommu=pt to the kernel command line: translated DMA slows GPUDirect and large registrations",
        "在内核命令行加入 iommu=pt：地址转换会拖慢 GPUDirect 与大块内存注册",
    ),
    reads=(Call("pci"), Call("network"), Call("container")),
    severity=Severity.MINOR,
)
def iommu(facts: FactView) -> Outcome:
    pci = facts.call("pci", Pci)
    facts.cite(Call("pci"), f"iommu groups by type: {pci.iommu_groups or '-'}")
    if facts.call("container", Container).vm:
        raise DoesNotApply(Text("a VM: the host's IOMMU is not seen from here", "虚拟机中无法看到宿主机的 IOMMU"))
    if not accelerators(pci) and not facts.call("network", SteadyNetwork).rdma:
        raise DoesNotApply(Text("no accelerator and no RDMA NIC here", "没有加速卡或 RDMA 网卡"))
    translated = {k: n for k, n in pci.iommu_groups.items() if k != "identity"}
    observed = ", ".join(f"{k} × {n}" for k, n in sorted(pci.iommu_groups.items())) or "off"
    return warned(observed) if translated else passed(observed)


SLOW_CLOCKS = ("hpet", "acpi_pm", "pit", "jiffies", "refined-jiffies")
CLOCKSOURCE = "sys/devices/system/clocksource/clocksource0"


@node_check(
    "clock.source",
    title=Text("Clock source", "时钟源"),
    method=Text(f"/{CLOCKSOURCE}/current_clocksource", f"/{CLOCKSOURCE}/current_clocksource"),
    criterion=Text("none of the slow ones: {l}", "不是慢速时钟源：{l}").fill(l=", ".join(SLOW_CLOCKS)),
    suggestion=Text(
        "look in the kernel log why the TSC was given up (“clocksource: Marking … unstable”); try tsc=reliable",
        "在内核日志中查找 TSC 被弃用的原因（“clocksource: Marking … unstable”）；可尝试 tsc=reliable",
    ),
    reads=(File(f"{CLOCKSOURCE}/current_clocksource"),),
    severity=Severity.MAJOR,
)
def clock_source(facts: FactView) -> Outcome:
    source = facts.text(f"{CLOCKSOURCE}/current_clocksource").strip()
    if not source:
        raise NotKnown("parse", Text("the kernel names no clock source", "内核未给出时钟源"))
    return warned(source) if source in SLOW_CLOCKS else passed(source)


STA_UNSYNC = 0x40  # linux/timex.h
OFFSET_LIMIT = 0.05


@node_check(
    "clock.sync",
    title=Text("The clock is synchronised", "时钟已同步"),
    method=Text("adjtimex(2): STA_UNSYNC and the offset", "adjtimex(2)：STA_UNSYNC 标志与偏差"),
    criterion=Text(
        "a time service keeps it, and it is at most {o:g} ms off", "由时间服务维持同步，偏差不超过 {o:g} ms"
    ).fill(o=OFFSET_LIMIT * 1000),
    suggestion=Text(
        "start chrony (or systemd-timesyncd, ptp4l): logs of different nodes cannot be put in order otherwise",
        "启动 chrony（或 systemd-timesyncd、ptp4l）：否则无法对齐各节点日志的先后",
    ),
    reads=(Call("clock"),),
    severity=Severity.MINOR,
)
def clock_sync(facts: FactView) -> Outcome:
    clock = facts.call("clock", Clock)
    if clock.status & STA_UNSYNC:
        return warned("unsynchronised", Text("no time service disciplines this clock", "没有时间服务在校准本机时钟"))
    observed = f"{clock.offset * 1000:.3f} ms"
    return passed(observed) if abs(clock.offset) <= OFFSET_LIMIT else failed(observed)


UPTIME_SHORT = 600.0


@node_check(
    "host.uptime",
    title=Text("The node has not just booted", "节点并非刚刚启动"),
    method=Text("/proc/uptime", "/proc/uptime"),
    # Facebook's gcm (check_sensors, uptime) warns at the same figure: services and links are still settling.
    criterion=Text("up for at least {s:g} s", "已运行不少于 {s:g} 秒").fill(s=UPTIME_SHORT),
    suggestion=Text(
        "wait; if it reboots again and again, look at the BMC's event log",
        "稍候再测；若反复重启，请查看 BMC 事件日志",
    ),
    reads=(File("proc/uptime"),),
    severity=Severity.MINOR,
    action=Action.MONITOR,
)
def uptime(facts: FactView) -> Outcome:
    try:
        seconds = float(facts.text("proc/uptime").split()[0])
    except (IndexError, ValueError):
        raise NotKnown("parse", Text("/proc/uptime is not as expected", "/proc/uptime 的格式不符")) from None
    observed = f"{seconds / 3600:.2f} h"
    return passed(observed) if seconds >= UPTIME_SHORT else warned(observed)
