"""What a person may demand of a node: values that only they can know the right size of."""

from __future__ import annotations

import math

from cwai_bench.checks import FactView, NotKnown, configurable_check, whole
from cwai_bench.checks.kind import accelerators
from cwai_bench.checks.limits import UNLIMITED
from cwai_bench.checks.network import in_use
from cwai_bench.checks.storage import writable
from cwai_bench.model import Severity
from cwai_bench.sources import Call, Clock, Cpus, File, Filesystems, Limits, Pci, SteadyHost, SteadyNetwork
from cwai_bench.text import Text

MEMINFO = File("proc/meminfo")


@configurable_check(
    "memory.total",
    title=Text("Memory size", "内存容量"),
    method=Text("MemTotal of /proc/meminfo", "/proc/meminfo 的 MemTotal"),
    suggestion=Text("look for a failed module: see memory.installed", "检查是否有内存条失效，见 memory.installed"),
    reads=(MEMINFO,),
    unit="B",
)
def memory_total(facts: FactView) -> float:
    return facts.kilobytes("proc/meminfo", "MemTotal")


@configurable_check(
    "swap.total",
    title=Text("Swap size", "交换空间容量"),
    method=Text("SwapTotal of /proc/meminfo", "/proc/meminfo 的 SwapTotal"),
    suggestion=Text("swapoff -a, or mkswap and swapon", "执行 swapoff -a，或 mkswap 与 swapon"),
    reads=(MEMINFO,),
    unit="B",
    severity=Severity.MINOR,
)
def swap_total(facts: FactView) -> float:
    return facts.kilobytes("proc/meminfo", "SwapTotal")


@configurable_check(
    "huge_pages.total",
    title=Text("Huge pages", "大页数量"),
    method=Text("HugePages_Total of /proc/meminfo", "/proc/meminfo 的 HugePages_Total"),
    suggestion=Text("sysctl -w vm.nr_hugepages=N", "sysctl -w vm.nr_hugepages=N"),
    reads=(MEMINFO,),
    unit="1",
)
def huge_pages_total(facts: FactView) -> float:
    return whole(facts.line("proc/meminfo", "HugePages_Total:"), "HugePages_Total")


@configurable_check(
    "cpu.count",
    title=Text("CPUs online", "在线 CPU 数"),
    method=Text("/sys/devices/system/cpu/online", "/sys/devices/system/cpu/online"),
    suggestion=Text(
        "see cpu.online; compare the BIOS settings (SMT, cores disabled)",
        "见 cpu.online；核对 BIOS 设置（SMT、屏蔽的核）",
    ),
    reads=(Call("cpus"),),
    unit="1",
)
def cpu_count(facts: FactView) -> float:
    return len(facts.call("cpus", Cpus).online)


@configurable_check(
    "cpu.model",
    title=Text("CPU model", "CPU 型号"),
    method=Text("model name of /proc/cpuinfo", "/proc/cpuinfo 的 model name"),
    suggestion=Text("this is another node type than was asked for", "节点机型与要求不符"),
    reads=(Call("cpus"),),
    unit="text",
)
def cpu_model(facts: FactView) -> str:
    return facts.call("cpus", Cpus).model


@configurable_check(
    "accelerator.count",
    title=Text("Accelerators on PCI", "PCI 加速卡数量"),
    method=Text("/sys/bus/pci/devices: GPUs and NPUs", "/sys/bus/pci/devices：GPU 与 NPU"),
    suggestion=Text("a card is lost: re-seat it; look at the kernel log", "可能掉卡：重新插拔并查看内核日志"),
    reads=(Call("pci"),),
    unit="1",
    severity=Severity.CRITICAL,
)
def accelerator_count(facts: FactView) -> float:
    return len(accelerators(facts.call("pci", Pci)))


@configurable_check(
    "rdma.count",
    title=Text("RDMA devices", "RDMA 设备数量"),
    method=Text("/sys/class/infiniband", "/sys/class/infiniband"),
    suggestion=Text(
        "a NIC is lost, or its driver not loaded: lspci, modprobe", "网卡丢失或驱动未加载：lspci、modprobe"
    ),
    reads=(Call("network"),),
    unit="1",
    severity=Severity.CRITICAL,
)
def rdma_count(facts: FactView) -> float:
    return len(facts.call("network", SteadyNetwork).rdma)


@configurable_check(
    "disk.free",
    title=Text("Free disk space", "磁盘可用空间"),
    method=Text(
        "statvfs(2) of each file system (where.name picks mount points)",
        "各文件系统的 statvfs(2)（where.name 可限定挂载点）",
    ),
    suggestion=Text(
        "free some space: du -xh --max-depth=2 | sort -h | tail", "清理空间：du -xh --max-depth=2 | sort -h | tail"
    ),
    reads=(Call("filesystems"),),
    unit="B",
    seen="container",
)
def disk_free(facts: FactView) -> dict[str, float]:
    return {f.mount: float(f.available) for f in writable(facts.call("filesystems", Filesystems))}


@configurable_check(
    "nic.speed",
    title=Text("NIC speed", "网卡速率"),
    method=Text(
        "/sys/class/net/*/speed of physical interfaces with a link (where.name picks them)",
        "有链路的物理网卡的 /sys/class/net/*/speed（where.name 可限定）",
    ),
    suggestion=Text("check cable, transceiver and the switch port's setting", "检查线缆、光模块与交换机端口配置"),
    reads=(Call("network"),),
    unit="bit/s",
)
def nic_speed(facts: FactView) -> dict[str, float]:
    found = {i.name: float(i.speed) for i in in_use(facts) if i.speed is not None}
    if not found:
        raise NotKnown("unsupported", Text("the drivers here know no speed", "驱动不提供速率"))
    return found


@configurable_check(
    "nic.mtu",
    title=Text("NIC MTU", "网卡 MTU"),
    method=Text(
        "/sys/class/net/*/mtu of physical interfaces with a link (where.name picks them)",
        "有链路的物理网卡的 /sys/class/net/*/mtu（where.name 可限定）",
    ),
    suggestion=Text("ip link set DEV mtu N, and the same on the switch", "ip link set DEV mtu N，并与交换机保持一致"),
    reads=(Call("network"),),
    unit="1",
)
def nic_mtu(facts: FactView) -> dict[str, float]:
    return {i.name: float(i.mtu) for i in in_use(facts)}


def _limit(facts: FactView, name: str) -> float:
    found = facts.call("limits", Limits).limits
    if name not in found:
        raise NotKnown("parse", Text("there is no limit called {n}", "没有名为 {n} 的限制").fill(n=name))
    soft = found[name][0]
    return math.inf if soft == UNLIMITED else float(soft)


@configurable_check(
    "limits.nofile",
    title=Text("Soft limit of open files", "打开文件数软限制"),
    method=Text("getrlimit(2) RLIMIT_NOFILE (ulimit -n)", "getrlimit(2) RLIMIT_NOFILE（ulimit -n）"),
    suggestion=Text(
        "limits.conf, LimitNOFILE, docker --ulimit nofile", "limits.conf、LimitNOFILE、docker --ulimit nofile"
    ),
    reads=(Call("limits"),),
    unit="1",
    seen="container",
)
def nofile(facts: FactView) -> float:
    return _limit(facts, "nofile")


@configurable_check(
    "limits.memlock",
    title=Text("Soft limit of locked memory", "锁定内存软限制"),
    method=Text("getrlimit(2) RLIMIT_MEMLOCK (ulimit -l)", "getrlimit(2) RLIMIT_MEMLOCK（ulimit -l）"),
    suggestion=Text(
        "limits.conf, LimitMEMLOCK, docker --ulimit memlock=-1", "limits.conf、LimitMEMLOCK、docker --ulimit memlock=-1"
    ),
    reads=(Call("limits"),),
    unit="B",
    seen="container",
)
def memlock(facts: FactView) -> float:
    return _limit(facts, "memlock")


@configurable_check(
    "kernel.version",
    title=Text("Kernel version", "内核版本"),
    method=Text("release of uname(2)", "uname(2) 的 release"),
    suggestion=Text("boot the kernel that was asked for", "启动所要求的内核版本"),
    reads=(Call("host"),),
    unit="text",
)
def kernel_version(facts: FactView) -> str:
    return facts.call("host", SteadyHost).release


@configurable_check(
    "os.name",
    title=Text("Operating system", "操作系统"),
    method=Text("PRETTY_NAME of /etc/os-release", "/etc/os-release 的 PRETTY_NAME"),
    suggestion=Text("install the image that was asked for", "安装所要求的系统镜像"),
    reads=(File("etc/os-release"),),
    unit="text",
    seen="container",
)
def os_name(facts: FactView) -> str:
    return facts.line("etc/os-release", "PRETTY_NAME=").strip('"')


@configurable_check(
    "clock.offset",
    title=Text("Offset of the clock", "时钟偏差"),
    method=Text("adjtimex(2): the offset's size", "adjtimex(2)：偏差的绝对值"),
    suggestion=Text(
        "chronyc tracking; start a time service: see clock.sync", "执行 chronyc tracking；启动时间服务，见 clock.sync"
    ),
    reads=(Call("clock"),),
    unit="s",
)
def clock_offset(facts: FactView) -> float:
    clock = facts.call("clock", Clock)
    if clock.status & 0x40:
        raise NotKnown("unsupported", Text("no time service disciplines this clock", "没有时间服务在校准本机时钟"))
    return abs(clock.offset)
