"""Memory: is all of it there, is it sound, and is it set up so that training neither stalls nor swaps?"""

from __future__ import annotations

import re

from cwai_bench.checks import DoesNotApply, FactView, Outcome, failed, node_check, passed, warned, whole
from cwai_bench.model import Action, Severity
from cwai_bench.sources import Call, Container, Cpus, Dimms, File, MemoryBlocks, SteadyHost
from cwai_bench.text import Text

MEMINFO = File("proc/meminfo")
GIB = 1 << 30

# The kernel describes each page of 4096 B in 64 B (struct page): 1.6 % of memory that MemTotal leaves out. Firmware,
# crash kernel and integrated graphics take some more. A failed module takes more than half of a module.
KEPT_SHARE, KEPT = 0.02, 1 << 30


def gib(count: float) -> str:
    return f"{count / GIB:.1f} GiB"


def share(part: float, whole_: float) -> str:
    return f"{part / whole_ * 100:.1f} %"


@node_check(
    "memory.installed",
    title=Text("Installed memory is usable", "已安装内存是否全部可用"),
    method=Text(
        "sizes of the modules in EDAC (or SMBIOS type 17), against MemTotal of /proc/meminfo",
        "将 EDAC（或 SMBIOS type 17）中各内存条容量之和与 /proc/meminfo 的 MemTotal 比较",
    ),
    criterion=Text(
        "MemTotal lacks at most {p:g} % and {g} GiB of what is installed, or half of the smallest module",
        "MemTotal 比已安装容量少不超过 {p:g} % 加 {g} GiB，或不超过最小内存条的一半",
    ).fill(p=KEPT_SHARE * 100, g=KEPT >> 30),
    suggestion=Text(
        "look for mem= on the kernel command line, then for a module that firmware mapped out; re-seat or replace it",
        "检查内核命令行是否含 mem=，再检查是否有内存条被固件屏蔽，重新插拔或更换",
    ),
    reads=(MEMINFO, Call("dimms"), Call("container")),
    severity=Severity.MAJOR,
    action=Action.CONTACT_VENDOR,
    needs=("root where there is no EDAC",),
)
def installed(facts: FactView) -> Outcome:
    if facts.absent("call:dimms"):
        raise DoesNotApply(
            Text("neither EDAC nor SMBIOS tells of memory modules here", "EDAC 与 SMBIOS 均未提供内存条信息")
        )
    dimms = facts.call("dimms", Dimms)
    total = facts.kilobytes("proc/meminfo", "MemTotal")
    present = sum(dimms.sizes)
    if not present:
        raise DoesNotApply(Text("the table of memory modules is empty", "内存条信息表为空"))
    observed = f"{gib(total)} / {gib(present)} ({len(dimms.sizes)} DIMM)"
    if present - total <= max(present * KEPT_SHARE + KEPT, min(dimms.sizes) / 2):
        return passed(observed)
    if facts.call("container", Container).vm:
        return warned(observed, Text("a VM: its memory may be ballooned", "虚拟机：内存可能被气球驱动回收"))
    return failed(observed)


SWAP_USED = 64 << 20


@node_check(
    "memory.swap",
    title=Text("No swapping", "未使用交换空间"),
    method=Text("SwapTotal and SwapFree of /proc/meminfo", "/proc/meminfo 的 SwapTotal 与 SwapFree"),
    criterion=Text("swap is off, or less than {m} MiB of it is in use", "交换空间已关闭，或已用量低于 {m} MiB").fill(
        m=SWAP_USED >> 20
    ),
    suggestion=Text(
        "swapoff -a on nodes that train (and take swap out of /etc/fstab); a page swapped out stalls a rank",
        "训练节点建议 swapoff -a，并从 /etc/fstab 中移除；被换出的页会使进程停顿",
    ),
    reads=(MEMINFO,),
    severity=Severity.MINOR,
)
def swap(facts: FactView) -> Outcome:
    total = facts.kilobytes("proc/meminfo", "SwapTotal")
    used = total - facts.kilobytes("proc/meminfo", "SwapFree")
    if total == 0:
        return passed("0 B")
    observed = f"{gib(used)} / {gib(total)}"
    return warned(observed) if used >= SWAP_USED else passed(observed)


AVAILABLE_SHARE = 0.5


@node_check(
    "memory.available",
    title=Text("Memory is free for the job", "可用内存充足"),
    method=Text("MemAvailable and MemTotal of /proc/meminfo", "/proc/meminfo 的 MemAvailable 与 MemTotal"),
    criterion=Text(
        "at least {p:g} % of memory is available before a job starts", "作业开始前可用内存不低于 {p:g} %"
    ).fill(p=AVAILABLE_SHARE * 100),
    suggestion=Text(
        "look for what an earlier job left behind: ps aux --sort=-rss | head; files in /dev/shm",
        "检查上一个作业的残留：ps aux --sort=-rss | head，以及 /dev/shm 中的文件",
    ),
    reads=(MEMINFO,),
    severity=Severity.MINOR,
)
def available(facts: FactView) -> Outcome:
    total = facts.kilobytes("proc/meminfo", "MemTotal")
    free = facts.kilobytes("proc/meminfo", "MemAvailable")
    observed = f"{gib(free)} / {gib(total)} ({share(free, total)})"
    return passed(observed) if free >= total * AVAILABLE_SHARE else warned(observed)


HUGE_FREE_SHARE = 0.25


@node_check(
    "memory.huge_pages",
    title=Text("Huge pages are not hoarded", "大页预留合理"),
    method=Text("HugePages_Free and Hugepagesize of /proc/meminfo", "/proc/meminfo 的 HugePages_Free 与 Hugepagesize"),
    criterion=Text(
        "reserved huge pages that nobody uses hold at most {p:g} % of memory", "闲置的预留大页占用内存不超过 {p:g} %"
    ).fill(p=HUGE_FREE_SHARE * 100),
    suggestion=Text(
        "lower vm.nr_hugepages: what is reserved cannot be used for anything else",
        "降低 vm.nr_hugepages：预留的大页无法用于其他用途",
    ),
    reads=(MEMINFO,),
    severity=Severity.MINOR,
)
def huge_pages(facts: FactView) -> Outcome:
    if facts.maybe_line("proc/meminfo", "HugePages_Total:") is None:
        raise DoesNotApply(Text("this kernel has no huge pages", "内核不支持大页"))
    reserved = whole(facts.line("proc/meminfo", "HugePages_Total:"), "HugePages_Total")
    idle = whole(facts.line("proc/meminfo", "HugePages_Free:"), "HugePages_Free")
    each = facts.kilobytes("proc/meminfo", "Hugepagesize")
    total = facts.kilobytes("proc/meminfo", "MemTotal")
    observed = f"{reserved} × {each >> 20} MiB, {idle} free"
    return warned(observed) if idle * each > total * HUGE_FREE_SHARE else passed(observed)


THP = "sys/kernel/mm/transparent_hugepage"


def chosen(text: str) -> str | None:
    """``always [madvise] never``: the one in brackets."""
    found = re.search(r"\[([^\]]+)\]", text)
    return found[1] if found else None


@node_check(
    "memory.thp_defrag",
    title=Text("Transparent huge pages do not stall", "透明大页不引起停顿"),
    method=Text(f"/{THP}/enabled and defrag", f"/{THP}/enabled 与 defrag"),
    # Documentation/admin-guide/mm/transhuge.rst: with "always" an application "will stall on allocation failure
    # and directly reclaim pages and compact memory".
    criterion=Text(
        "defrag is not always, unless transparent huge pages are off", "defrag 不为 always（关闭透明大页时除外）"
    ),
    suggestion=Text(f"echo madvise > /{THP}/defrag", f"echo madvise > /{THP}/defrag"),
    reads=(File(f"{THP}/enabled"), File(f"{THP}/defrag")),
    severity=Severity.MINOR,
)
def thp_defrag(facts: FactView) -> Outcome:
    enabled = facts.maybe(f"{THP}/enabled")
    if enabled is None:
        raise DoesNotApply(Text("this kernel has no transparent huge pages", "内核不支持透明大页"))
    defrag = facts.text(f"{THP}/defrag")
    observed = f"enabled {chosen(enabled) or '?'}, defrag {chosen(defrag) or '?'}"
    stalls = chosen(defrag) == "always" and chosen(enabled) != "never"
    return warned(observed) if stalls else passed(observed)


@node_check(
    "memory.numa_balancing",
    title=Text("Automatic NUMA balancing is off", "自动 NUMA 均衡已关闭"),
    method=Text("/proc/sys/kernel/numa_balancing", "/proc/sys/kernel/numa_balancing"),
    # Documentation/admin-guide/sysctl/kernel.rst: "If the target workload is already bound to NUMA nodes then this
    # feature should be disabled."
    criterion=Text("0 on a node of several NUMA nodes", "多 NUMA 节点的机器上为 0"),
    suggestion=Text(
        "sysctl -w kernel.numa_balancing=0: ranks are bound already, and its page faults are noise",
        "sysctl -w kernel.numa_balancing=0：训练进程已绑核，其缺页扫描只会带来抖动",
    ),
    reads=(File("proc/sys/kernel/numa_balancing"), Call("cpus")),
    severity=Severity.MINOR,
)
def numa_balancing(facts: FactView) -> Outcome:
    if facts.call("cpus", Cpus).numa_nodes < 2:
        raise DoesNotApply(Text("one NUMA node: there is nothing to balance", "仅有一个 NUMA 节点"))
    if facts.maybe("proc/sys/kernel/numa_balancing") is None:
        raise DoesNotApply(Text("this kernel has no automatic NUMA balancing", "内核不支持自动 NUMA 均衡"))
    mode = facts.number("proc/sys/kernel/numa_balancing")
    return passed("0") if mode == 0 else warned(str(mode))


@node_check(
    "memory.zone_reclaim",
    title=Text("Zone reclaim is off", "内存区回收已关闭"),
    method=Text("/proc/sys/vm/zone_reclaim_mode", "/proc/sys/vm/zone_reclaim_mode"),
    # Documentation/admin-guide/sysctl/vm.rst: off by default; on, "page allocation may become slower".
    criterion=Text("0", "0"),
    suggestion=Text(
        "sysctl -w vm.zone_reclaim_mode=0: reclaiming near memory costs more than using the far one",
        "sysctl -w vm.zone_reclaim_mode=0：回收本地内存的代价高于使用远端内存",
    ),
    reads=(File("proc/sys/vm/zone_reclaim_mode"),),
    severity=Severity.MINOR,
)
def zone_reclaim(facts: FactView) -> Outcome:
    if facts.maybe("proc/sys/vm/zone_reclaim_mode") is None:
        raise DoesNotApply(Text("this kernel was built without NUMA", "内核未启用 NUMA"))
    mode = facts.number("proc/sys/vm/zone_reclaim_mode")
    return passed("0") if mode == 0 else warned(str(mode))


STRICT_OVERCOMMIT = 2


@node_check(
    "memory.overcommit",
    title=Text("Memory may be overcommitted", "允许内存超额分配"),
    method=Text("/proc/sys/vm/overcommit_memory", "/proc/sys/vm/overcommit_memory"),
    criterion=Text("0 or 1, not {n} (strict accounting)", "为 0 或 1，不为 {n}（严格记账）").fill(n=STRICT_OVERCOMMIT),
    suggestion=Text(
        "sysctl -w vm.overcommit_memory=0: GPU drivers reserve far more addresses than memory, and strict accounting"
        " refuses them",
        "sysctl -w vm.overcommit_memory=0：GPU 驱动会预留远大于物理内存的地址空间，严格记账会使其失败",
    ),
    reads=(File("proc/sys/vm/overcommit_memory"),),
    severity=Severity.MINOR,
)
def overcommit(facts: FactView) -> Outcome:
    mode = facts.number("proc/sys/vm/overcommit_memory")
    return warned(str(mode)) if mode == STRICT_OVERCOMMIT else passed(str(mode))


@node_check(
    "memory.corrupted",
    title=Text("No memory was taken out of use", "没有因硬件错误停用的内存"),
    method=Text("HardwareCorrupted of /proc/meminfo", "/proc/meminfo 的 HardwareCorrupted"),
    criterion=Text("0", "0"),
    suggestion=Text(
        "the kernel poisoned pages after uncorrectable errors: find the module (edac-util, BMC log) and replace it",
        "内核因不可纠正错误停用了内存页：通过 EDAC 或 BMC 日志定位内存条并更换",
    ),
    reads=(MEMINFO,),
    severity=Severity.CRITICAL,
    action=Action.CONTACT_VENDOR,
)
def corrupted(facts: FactView) -> Outcome:
    if facts.maybe_line("proc/meminfo", "HardwareCorrupted:") is None:
        raise DoesNotApply(Text("this kernel does not handle memory failures", "内核未启用内存故障处理"))
    bad = facts.kilobytes("proc/meminfo", "HardwareCorrupted")
    return failed(f"{bad >> 10} KiB") if bad else passed("0 KiB")


EDAC_CE = File("sys/devices/system/edac/mc/mc[0-9]*/ce_count")
EDAC_UE = File("sys/devices/system/edac/mc/mc[0-9]*/ue_count")


@node_check(
    "memory.ecc",
    title=Text("Memory errors counted by EDAC", "EDAC 内存错误计数"),
    method=Text(f"/{EDAC_UE.path} and ce_count", f"/{EDAC_UE.path} 与 ce_count"),
    criterion=Text(
        "no uncorrectable error since boot; a correctable one is a warning",
        "启动以来无不可纠正错误；有可纠正错误则告警",
    ),
    suggestion=Text(
        "uncorrectable: take the node out and replace the module; correctable: watch whether the count grows",
        "不可纠正错误：下线节点并更换内存条；可纠正错误：观察计数是否增长",
    ),
    reads=(EDAC_CE, EDAC_UE),
    severity=Severity.CRITICAL,
    action=Action.CONTACT_VENDOR,
)
def ecc(facts: FactView) -> Outcome:
    fatal, mild = facts.glob(EDAC_UE.path), facts.glob(EDAC_CE.path)
    if not fatal and not mild:
        raise DoesNotApply(
            Text(
                "no memory controller reports to EDAC here (a VM, or no driver)",
                "没有内存控制器向 EDAC 上报（虚拟机或缺少驱动）",
            )
        )
    uncorrected = sum(whole(text, path) for path, text in fatal.items())
    corrected = sum(whole(text, path) for path, text in mild.items())
    observed = f"UE {uncorrected}, CE {corrected}"
    if uncorrected:
        return failed(observed)
    return warned(observed) if corrected else passed(observed)


@node_check(
    "memory.blocks",
    title=Text("All memory blocks are online", "内存块全部在线"),
    method=Text("/sys/devices/system/memory/memory*/state", "/sys/devices/system/memory/memory*/state"),
    criterion=Text("none is offline", "没有离线的内存块"),
    suggestion=Text(
        "find out who took them offline (kernel log); chmem -e brings them back",
        "查看内核日志确认离线原因，用 chmem -e 恢复",
    ),
    reads=(Call("memory_blocks"),),
    severity=Severity.MINOR,
)
def blocks(facts: FactView) -> Outcome:
    if facts.absent("call:memory_blocks"):
        raise DoesNotApply(Text("this kernel does not show memory blocks", "内核未提供内存块信息"))
    found = facts.call("memory_blocks", MemoryBlocks)
    if not found.offline:
        return passed(f"{found.online} online")
    names = ", ".join(found.offline[:8])
    return warned(f"{len(found.offline)} offline ({gib(len(found.offline) * found.block_size)}): {names}")


HUGE_ORDER_SHARE = 0.05
HUGE = 2 << 20
ORDERS = 32
"""Far more than a kernel has (MAX_ORDER is 10 or so)."""


@node_check(
    "memory.fragmentation",
    title=Text("Free memory comes in large pieces", "空闲内存碎片化程度"),
    method=Text("/proc/buddyinfo, free blocks by order", "/proc/buddyinfo 中各阶空闲块"),
    criterion=Text(
        "at least {p:g} % of free memory lies in blocks of {h} MiB or more",
        "空闲内存中不低于 {p:g} % 位于 {h} MiB 及以上的块",
    ).fill(p=HUGE_ORDER_SHARE * 100, h=HUGE >> 20),
    suggestion=Text(
        "echo 1 > /proc/sys/vm/compact_memory, or reboot between jobs; huge pages are refused otherwise",
        "echo 1 > /proc/sys/vm/compact_memory，或在作业间重启；否则大页分配会失败",
    ),
    reads=(File("proc/buddyinfo"), Call("host")),
    severity=Severity.MINOR,
)
def fragmentation(facts: FactView) -> Outcome:
    page = facts.call("host", SteadyHost).page_size
    free = large = 0
    for line in facts.text("proc/buddyinfo").splitlines():
        _, _, after = line.partition("zone")
        for order, count in enumerate(after.split()[1 : ORDERS + 1]):
            size = whole(count, "proc/buddyinfo") * (page << order)
            free += size
            large += size if page << order >= HUGE else 0
    if not free:
        raise DoesNotApply(Text("the kernel lists no free memory", "内核未列出空闲内存"))
    observed = f"{share(large, free)} of {gib(free)}"
    return passed(observed) if large >= free * HUGE_ORDER_SHARE else warned(observed)
