"""What the nodes of one job should have in common."""

from __future__ import annotations

import re
from collections import Counter

from cwai_bench.checks import DoesNotApply, FactView, consistency_check
from cwai_bench.checks.cpu import topology
from cwai_bench.checks.kernel import CLOCKSOURCE
from cwai_bench.checks.kind import accelerators
from cwai_bench.checks.limits import worded
from cwai_bench.checks.memory import THP, chosen, gib
from cwai_bench.checks.network import in_use
from cwai_bench.checks.pci import endpoints
from cwai_bench.model import Severity
from cwai_bench.sources import Call, Cpus, File, Host, Limits, Modules, Pci, SteadyHost, SteadyNetwork
from cwai_bench.text import Text

REIMAGE = Text("install the same image on all nodes", "为所有节点安装相同的系统镜像")

# What is a node's own, wherever it stands: it is no difference.
_OWN = (
    (re.compile(r"[0-9a-fA-F]{8}-[0-9a-fA-F]{4}-[0-9a-fA-F]{4}-[0-9a-fA-F]{4}-[0-9a-fA-F]{12}"), "<uuid>"),
    (re.compile(r"\b(?:[0-9a-fA-F]{2}[:-]){5}[0-9a-fA-F]{2}\b"), "<mac>"),
    (re.compile(r"\b[0-9a-fA-F]{4}:[0-9a-fA-F]{2}:[0-9a-fA-F]{2}\.[0-7]\b"), "<pci>"),
    (re.compile(r"\b(?:wwn-|nvme-|ata-|scsi-)\S+"), "<disk>"),
    (re.compile(r"\b\d{1,3}(?:\.\d{1,3}){3}\b"), "<ip>"),
)


def without_own(text: str, hostname: str) -> str:
    """``text`` with UUIDs, MACs, bus addresses, disk serials, IPv4 addresses and the host's own name masked."""
    for pattern, mask in _OWN:
        text = pattern.sub(mask, text)
    if hostname:
        text = re.sub(rf"(?<![\w-]){re.escape(hostname)}(?![\w-])", "<host>", text)
    return text


@consistency_check(
    "same.kernel",
    title=Text("Kernel version", "内核版本"),
    method=Text("release of uname(2)", "uname(2) 的 release"),
    suggestion=REIMAGE,
    reads=(Call("host"),),
    severity=Severity.MAJOR,
)
def kernel(facts: FactView) -> str:
    return facts.call("host", SteadyHost).release


@consistency_check(
    "same.os",
    title=Text("Operating system", "操作系统"),
    method=Text("PRETTY_NAME of /etc/os-release", "/etc/os-release 的 PRETTY_NAME"),
    suggestion=REIMAGE,
    reads=(File("etc/os-release"),),
    severity=Severity.MINOR,
    seen="container",
)
def os_release(facts: FactView) -> str:
    return facts.line("etc/os-release", "PRETTY_NAME=").strip('"')


@consistency_check(
    "same.cpu.model",
    title=Text("CPU model", "CPU 型号"),
    method=Text("model name of /proc/cpuinfo", "/proc/cpuinfo 的 model name"),
    suggestion=Text("do not mix node types in one job", "同一作业不要混用不同机型"),
    reads=(Call("cpus"),),
    severity=Severity.MAJOR,
)
def cpu_model(facts: FactView) -> str:
    return facts.call("cpus", Cpus).model


@consistency_check(
    "same.cpu.topology",
    title=Text("Sockets, cores, threads, NUMA nodes", "插槽、核、线程与 NUMA 节点数"),
    method=Text(
        "/sys/devices/system/cpu, /sys/devices/system/node", "/sys/devices/system/cpu 与 /sys/devices/system/node"
    ),
    suggestion=Text(
        "compare the BIOS settings (SMT, NPS, SNC, cores disabled)", "核对 BIOS 设置（SMT、NPS、SNC、屏蔽的核）"
    ),
    reads=(Call("cpus"),),
    severity=Severity.MAJOR,
)
def cpu_topology(facts: FactView) -> str:
    found = facts.call("cpus", Cpus)
    return f"{topology(found)}, {found.numa_nodes} NUMA"


@consistency_check(
    "same.memory",
    title=Text("Memory size", "内存容量"),
    method=Text("MemTotal of /proc/meminfo", "/proc/meminfo 的 MemTotal"),
    suggestion=Text(
        "a node with less has lost a module: see memory.installed", "偏少的节点可能有内存条失效，见 memory.installed"
    ),
    reads=(File("proc/meminfo"),),
    severity=Severity.MAJOR,
    tolerance=0.02,
    show=gib,
)
def memory(facts: FactView) -> float:
    return facts.kilobytes("proc/meminfo", "MemTotal")


@consistency_check(
    "same.swap",
    title=Text("Swap", "交换空间"),
    method=Text("SwapTotal of /proc/meminfo", "/proc/meminfo 的 SwapTotal"),
    suggestion=Text("swapoff -a on all, or none", "统一关闭（swapoff -a）或统一保留"),
    reads=(File("proc/meminfo"),),
    severity=Severity.MINOR,
    tolerance=0.01,
    show=gib,
)
def swap(facts: FactView) -> float:
    return facts.kilobytes("proc/meminfo", "SwapTotal")


# Where a node boots from and how it is addressed is its own.
_BOOT_WORDS = (
    "BOOT_IMAGE",
    "BOOTIF",
    "root",
    "resume",
    "rd.lvm.lv",
    "rd.md.uuid",
    "ip",
    "nfsroot",
    "hostname",
    "initrd",
)


@consistency_check(
    "same.cmdline",
    title=Text("Kernel command line", "内核命令行"),
    method=Text(
        "/proc/cmdline, without what names a disk, a host or an address, in order of the alphabet",
        "/proc/cmdline，去除磁盘、主机与地址相关的参数后按字母排序",
    ),
    suggestion=Text("bring the boot loader's configuration in line", "统一引导配置"),
    reads=(File("proc/cmdline"), Call("host")),
    severity=Severity.MINOR,
)
def cmdline(facts: FactView) -> str:
    own = facts.call("host", Host).hostname
    words = facts.text("proc/cmdline").split(" -- ")[0].split()
    return " ".join(sorted(without_own(w, own) for w in words if w.partition("=")[0] not in _BOOT_WORDS))


@consistency_check(
    "same.thp",
    title=Text("Transparent huge pages", "透明大页"),
    method=Text(f"/{THP}/enabled and defrag", f"/{THP}/enabled 与 defrag"),
    suggestion=Text(
        "set it alike on all nodes: transparent_hugepage=… at boot", "统一设置，例如启动参数 transparent_hugepage=…"
    ),
    reads=(File(f"{THP}/enabled"), File(f"{THP}/defrag")),
    severity=Severity.MINOR,
)
def thp(facts: FactView) -> str:
    enabled = facts.maybe(f"{THP}/enabled")
    if enabled is None:
        raise DoesNotApply(Text("this kernel has no transparent huge pages", "内核不支持透明大页"))
    return f"{chosen(enabled)}, defrag {chosen(facts.text(f'{THP}/defrag'))}"


@consistency_check(
    "same.governor",
    title=Text("CPU frequency governor", "CPU 频率调节策略"),
    method=Text(
        "/sys/devices/system/cpu/cpu*/cpufreq: scaling_governor, scaling_driver",
        "/sys/devices/system/cpu/cpu*/cpufreq 的 scaling_governor 与 scaling_driver",
    ),
    suggestion=Text(
        "cpupower frequency-set -g performance on all nodes", "所有节点执行 cpupower frequency-set -g performance"
    ),
    reads=(Call("cpus"),),
    severity=Severity.MINOR,
)
def governor(facts: FactView) -> str:
    found = facts.call("cpus", Cpus)
    if not found.governors:
        raise DoesNotApply(Text("the kernel does not set the frequency here", "频率不由内核控制"))
    return f"{'/'.join(found.governors)} ({'/'.join(d for d in found.drivers if d)})"


@consistency_check(
    "same.nics",
    title=Text("Network interfaces: models, speed, MTU", "网卡：型号、速率、MTU"),
    method=Text(
        "/sys/class/net: physical interfaces with a link, counted by driver, speed and MTU",
        "/sys/class/net：有链路的物理网卡，按驱动、速率与 MTU 计数",
    ),
    suggestion=Text(
        "a node with fewer has lost a link or a card; set MTU and speed alike",
        "偏少的节点可能断链或掉卡；统一 MTU 与速率",
    ),
    reads=(Call("network"),),
    severity=Severity.MAJOR,
)
def nics(facts: FactView) -> str:
    kinds = Counter(
        f"{i.driver or '?'} {'?' if i.speed is None else f'{i.speed / 1e9:g}'} Gb/s mtu {i.mtu}"
        for i in in_use(facts)
        if not i.virtual_function
    )
    return ", ".join(f"{n} × {kind}" for kind, n in sorted(kinds.items()))


@consistency_check(
    "same.rdma",
    title=Text("RDMA devices", "RDMA 设备"),
    method=Text("names in /sys/class/infiniband", "/sys/class/infiniband 下的设备名"),
    suggestion=Text(
        "the same names on all nodes let one NCCL_IB_HCA fit all: udev rules, rdma-core",
        "统一设备名（udev 规则、rdma-core），使同一 NCCL_IB_HCA 适用于所有节点",
    ),
    reads=(Call("network"),),
    severity=Severity.MAJOR,
)
def rdma(facts: FactView) -> str:
    found = facts.call("network", SteadyNetwork).rdma
    facts.cite(Call("network"), ", ".join(found))
    if not found:
        raise DoesNotApply(Text("no RDMA device here", "没有 RDMA 设备"))
    return ", ".join(found)


@consistency_check(
    "same.devices",
    title=Text("PCI devices", "PCI 设备"),
    method=Text(
        "/sys/bus/pci/devices: accelerators, NICs and NVMe drives, counted by vendor:device",
        "/sys/bus/pci/devices：加速卡、网卡、NVMe，按 vendor:device 计数",
    ),
    suggestion=Text(
        "a node with fewer has lost a card: re-seat it, look at the kernel log",
        "偏少的节点可能掉卡：重新插拔并查看内核日志",
    ),
    reads=(Call("pci"),),
    severity=Severity.CRITICAL,
)
def devices(facts: FactView) -> str:
    found = Counter(d.model for d in endpoints(facts.call("pci", Pci)))
    if not found:
        raise DoesNotApply(Text("no accelerator, NIC or NVMe drive on PCI here", "没有 PCI 加速卡、网卡或 NVMe"))
    return ", ".join(f"{n} × {model}" for model, n in sorted(found.items()))


@consistency_check(
    "same.affinity",
    title=Text("NUMA nodes of accelerators and NICs", "加速卡与网卡的 NUMA 归属"),
    method=Text("numa_node of accelerators and NICs, in bus order", "加速卡与网卡的 numa_node，按总线顺序"),
    suggestion=Text(
        "cards sit in other slots, or the BIOS splits NUMA otherwise", "插槽位置不同，或 BIOS 的 NUMA 划分不同"
    ),
    reads=(Call("pci"), Call("cpus")),
    severity=Severity.MINOR,
)
def affinity(facts: FactView) -> str:
    if facts.call("cpus", Cpus).numa_nodes < 2:
        raise DoesNotApply(Text("one NUMA node", "仅有一个 NUMA 节点"))
    pci = facts.call("pci", Pci)
    cards = {d.address for d in accelerators(pci)}
    found = sorted(
        (d for d in endpoints(pci) if d.address in cards or d.class_code >> 8 == 0x02), key=lambda d: d.address
    )
    if not found:
        raise DoesNotApply(Text("no accelerator or NIC on PCI here", "没有 PCI 加速卡或网卡"))
    return " ".join(str(d.numa_node) for d in found)


DRIVERS = re.compile(
    r"nvidia|gdrdrv|mlx|ib_|rdma|bnxt|ice|i40e|irdma|efa|drv_|ascend|davinci|hns|amdgpu|nvme|lustre|knem|xpmem"
)


@consistency_check(
    "same.drivers",
    title=Text("Versions of drivers", "驱动版本"),
    method=Text(
        "/sys/module/*/version of GPU, NPU, NIC, RDMA and storage drivers",
        "/sys/module/*/version（GPU、NPU、网卡、RDMA、存储驱动）",
    ),
    suggestion=REIMAGE,
    reads=(Call("modules"),),
    severity=Severity.MAJOR,
)
def drivers(facts: FactView) -> str:
    versions = facts.call("modules", Modules).versions
    found = {name: version for name, version in sorted(versions.items()) if DRIVERS.match(name)}
    facts.cite(Call("modules"), "\n".join(f"{name} {version}" for name, version in found.items()) or "-")
    if not found:
        raise DoesNotApply(Text("no such driver states its version here", "没有给出版本的相关驱动"))
    return ", ".join(f"{name} {version}" for name, version in found.items())


@consistency_check(
    "same.limits",
    title=Text("Limits of a process", "进程资源限制"),
    method=Text("getrlimit(2): nofile, memlock, stack, core", "getrlimit(2)：nofile、memlock、stack、core"),
    suggestion=Text(
        "distribute one limits.conf, or one LimitXXX of the launcher", "统一分发 limits.conf，或统一启动器的 LimitXXX"
    ),
    reads=(Call("limits"),),
    severity=Severity.MINOR,
    seen="container",
)
def limits(facts: FactView) -> str:
    # not nproc: unless it is set it follows the memory size, and differs by a few
    found = facts.call("limits", Limits).limits
    return ", ".join(
        f"{name} {worded(found[name][0])}" for name in ("nofile", "memlock", "stack", "core") if name in found
    )


@consistency_check(
    "same.clock_source",
    title=Text("Clock source", "时钟源"),
    method=Text(f"/{CLOCKSOURCE}/current_clocksource", f"/{CLOCKSOURCE}/current_clocksource"),
    suggestion=Text("see clock.source", "见 clock.source"),
    reads=(File(f"{CLOCKSOURCE}/current_clocksource"),),
    severity=Severity.MINOR,
)
def clock_source(facts: FactView) -> str:
    return facts.text(f"{CLOCKSOURCE}/current_clocksource").strip()


@consistency_check(
    "same.timezone",
    title=Text("Time zone", "时区"),
    method=Text("tzname and offset of the C library", "C 库的时区名与偏移"),
    suggestion=Text("timedatectl set-timezone, alike on all nodes", "统一执行 timedatectl set-timezone"),
    reads=(Call("host"),),
    severity=Severity.MINOR,
    seen="container",
)
def timezone(facts: FactView) -> str:
    return facts.call("host", SteadyHost).timezone


@consistency_check(
    "same.libc",
    title=Text("C library", "C 库"),
    method=Text("version of the running libc", "当前 libc 版本"),
    suggestion=REIMAGE,
    reads=(Call("host"),),
    severity=Severity.MINOR,
    seen="container",
)
def libc(facts: FactView) -> str:
    return facts.call("host", SteadyHost).libc


@consistency_check(
    "same.python",
    title=Text("Python", "Python"),
    method=Text("version of the interpreter that runs cwai-bench", "运行 cwai-bench 的解释器版本"),
    suggestion=Text(
        "use one environment (a shared folder, or one container image)", "使用同一环境（共享目录或同一容器镜像）"
    ),
    reads=(Call("host"),),
    severity=Severity.MINOR,
    seen="container",
)
def python(facts: FactView) -> str:
    return facts.call("host", SteadyHost).python


SYSCTLS = (
    "vm/overcommit_memory",
    "vm/zone_reclaim_mode",
    "vm/swappiness",
    "vm/max_map_count",
    "vm/nr_hugepages",
    "kernel/numa_balancing",
    "kernel/core_pattern",
    "kernel/pid_max",
    "kernel/randomize_va_space",
    "net/core/rmem_max",
    "net/core/wmem_max",
    "net/core/somaxconn",
    "net/ipv4/tcp_rmem",
    "net/ipv4/tcp_wmem",
    "net/ipv4/tcp_congestion_control",
    "net/ipv4/conf/all/rp_filter",
    "net/ipv4/conf/all/arp_ignore",
    "net/ipv4/conf/all/arp_announce",
)


@consistency_check(
    "same.sysctl",
    title=Text("Kernel settings (sysctl)", "内核参数（sysctl）"),
    method=Text("/proc/sys: " + ", ".join(SYSCTLS), "/proc/sys：" + ", ".join(SYSCTLS)),
    suggestion=Text("distribute one file in /etc/sysctl.d", "统一分发 /etc/sysctl.d 下的文件"),
    reads=tuple(File(f"proc/sys/{name}") for name in SYSCTLS),
    severity=Severity.MINOR,
)
def sysctl(facts: FactView) -> str:
    values = {name: facts.maybe(f"proc/sys/{name}") for name in SYSCTLS}
    return ", ".join(f"{n.replace('/', '.')} {' '.join(v.split())}" for n, v in values.items() if v is not None)


VULNERABILITIES = "sys/devices/system/cpu/vulnerabilities/*"


@consistency_check(
    "same.mitigations",
    title=Text("Mitigations of CPU vulnerabilities", "CPU 漏洞缓解措施"),
    method=Text(f"/{VULNERABILITIES}", f"/{VULNERABILITIES}"),
    suggestion=Text(
        "bring kernel, microcode and mitigations= in line: they cost some nodes speed and not others",
        "统一内核、微码与 mitigations= 设置：它们会使部分节点变慢",
    ),
    reads=(File(VULNERABILITIES),),
    severity=Severity.MINOR,
)
def mitigations(facts: FactView) -> str:
    found = facts.glob(VULNERABILITIES)
    if not found:
        raise DoesNotApply(Text("this kernel does not list them", "内核未列出"))
    named = {path.rsplit("/", 1)[1]: " ".join(text.split()) for path, text in sorted(found.items())}
    return "; ".join(f"{name}: {text}" for name, text in named.items() if text != "Not affected") or "Not affected"


@consistency_check(
    "same.bios",
    title=Text("Machine and BIOS", "机型与 BIOS"),
    method=Text(
        "/sys/class/dmi/id: sys_vendor, product_name, bios_version",
        "/sys/class/dmi/id：sys_vendor、product_name、bios_version",
    ),
    suggestion=Text("flash the same BIOS on all nodes", "为所有节点刷写相同的 BIOS"),
    reads=tuple(File(f"sys/class/dmi/id/{name}") for name in ("sys_vendor", "product_name", "bios_version")),
    severity=Severity.MINOR,
)
def bios(facts: FactView) -> str:
    found = [facts.maybe(f"sys/class/dmi/id/{name}") for name in ("sys_vendor", "product_name", "bios_version")]
    known = [" ".join(text.split()) for text in found if text is not None]
    if not known:
        raise DoesNotApply(Text("this machine has no DMI table", "本机没有 DMI 表"))
    return " / ".join(known)


@consistency_check(
    "same.nameservers",
    title=Text("Name servers and search list", "域名服务器与搜索域"),
    method=Text(
        "nameserver, search and options of /etc/resolv.conf", "/etc/resolv.conf 的 nameserver、search 与 options"
    ),
    suggestion=Text("the same name must mean the same node everywhere", "同一主机名在各节点应解析到同一节点"),
    reads=(File("etc/resolv.conf"),),
    severity=Severity.MINOR,
    seen="container",
)
def nameservers(facts: FactView) -> str:
    text = facts.maybe("etc/resolv.conf")
    if text is None:
        raise DoesNotApply(Text("there is no /etc/resolv.conf", "没有 /etc/resolv.conf"))
    words = ("nameserver", "search", "domain", "options")
    return "; ".join(
        " ".join(line.split()) for line in text.splitlines() if line.split()[:1] and line.split()[0] in words
    )
