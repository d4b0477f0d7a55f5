"""How a node was built and set up: modules, firmware, and the settings that an image brings with it."""

from __future__ import annotations

import re
from collections import Counter

from cwai_bench.checks import (
    DoesNotApply,
    FactView,
    Outcome,
    configurable_check,
    consistency_check,
    failed,
    node_check,
    passed,
)
from cwai_bench.checks.kind import accelerators
from cwai_bench.checks.memory import chosen, gib
from cwai_bench.model import Action, Severity
from cwai_bench.sources import Call, Container, Dimms, File, Host, Names, Pci, PythonPackages
from cwai_bench.text import Text

DIMMS = Call("dimms")
NO_DIMMS = Text("neither EDAC nor SMBIOS tells of memory modules here", "EDAC 与 SMBIOS 均未提供内存条信息")


def _modules(facts: FactView) -> list[int]:
    if facts.absent(DIMMS.key):
        raise DoesNotApply(NO_DIMMS)
    found = facts.call("dimms", Dimms).sizes
    if not found:
        raise DoesNotApply(NO_DIMMS)
    return found


@consistency_check(
    "same.dimms",
    title=Text("Memory modules", "内存条数量与容量"),
    method=Text("EDAC, or SMBIOS type 17 (root): number and size", "EDAC，或 SMBIOS 类型 17（root）：数量与容量"),
    suggestion=Text("re-seat or replace the module that is missing", "重新插拔或更换缺失的内存条"),
    reads=(DIMMS,),
    severity=Severity.MAJOR,
)
def dimms(facts: FactView) -> str:
    found = Counter(_modules(facts))
    return ", ".join(f"{n} × {gib(size)}" for size, n in sorted(found.items()))


@configurable_check(
    "memory.modules",
    title=Text("Number of memory modules", "内存条数量"),
    method=Text("EDAC, or SMBIOS type 17 (root)", "EDAC，或 SMBIOS 类型 17（root）"),
    suggestion=Text("re-seat or replace the module that is missing", "重新插拔或更换缺失的内存条"),
    reads=(DIMMS,),
    unit="1",
)
def module_count(facts: FactView) -> float:
    return len(_modules(facts))


# drivers/char/ipmi/ipmi_msghandler.c: what the BMC answered to Get Device ID; anyone may read it
BMC = tuple(File(f"sys/devices/platform/ipmi_bmc.*/{name}") for name in ("firmware_revision", "aux_firmware_revision"))


@consistency_check(
    "same.bmc",
    title=Text("BMC firmware", "BMC 固件"),
    method=Text(f"/{BMC[0].path}, aux_firmware_revision", f"/{BMC[0].path}、aux_firmware_revision"),
    suggestion=Text("flash the same BMC firmware on all nodes", "为所有节点刷写相同的 BMC 固件"),
    reads=BMC,
    severity=Severity.MINOR,
)
def bmc(facts: FactView) -> str:
    found = [" ".join(text.split()) for source in BMC for _, text in sorted(facts.glob(source.path).items())]
    if not found:
        raise DoesNotApply(Text("no BMC is seen here (ipmi_si is not loaded)", "未发现 BMC（未加载 ipmi_si）"))
    return " / ".join(found)


MICROCODE = File("sys/devices/system/cpu/cpu0/microcode/version")


@consistency_check(
    "same.microcode",
    title=Text("CPU microcode", "CPU 微码"),
    method=Text(f"/{MICROCODE.path}", f"/{MICROCODE.path}"),
    suggestion=Text("the same BIOS and microcode package on all nodes", "统一 BIOS 与微码软件包"),
    reads=(MICROCODE,),
    severity=Severity.MINOR,
)
def microcode(facts: FactView) -> str:
    found = facts.maybe(MICROCODE.path)
    if found is None:
        raise DoesNotApply(Text("these CPUs load no microcode", "该 CPU 不加载微码"))
    return found.strip()


TUNED = File("etc/tuned/active_profile")


@consistency_check(
    "same.tuned",
    title=Text("Profile of tuned", "tuned 配置"),
    method=Text(f"/{TUNED.path} (tuned-adm active)", f"/{TUNED.path}（tuned-adm active）"),
    suggestion=Text("tuned-adm profile NAME, alike on all nodes", "统一执行 tuned-adm profile NAME"),
    reads=(TUNED,),
    severity=Severity.MINOR,
    seen="container",
)
def tuned(facts: FactView) -> str:
    found = facts.maybe(TUNED.path)
    if found is None:
        raise DoesNotApply(Text("tuned is not installed", "未安装 tuned"))
    return " ".join(found.split()) or "-"


SELINUX, APPARMOR = File("sys/fs/selinux/enforce"), File("sys/module/apparmor/parameters/enabled")
LOCKDOWN = File("sys/kernel/security/lockdown")


@consistency_check(
    "same.security",
    title=Text("SELinux, AppArmor, kernel lockdown", "SELinux、AppArmor 与内核锁定"),
    method=Text(
        f"/{SELINUX.path}, /{APPARMOR.path}, /{LOCKDOWN.path}", f"/{SELINUX.path}、/{APPARMOR.path}、/{LOCKDOWN.path}"
    ),
    suggestion=Text(
        "one policy on all nodes: setenforce and /etc/selinux/config, the kernel command line",
        "统一安全策略：setenforce 与 /etc/selinux/config、内核命令行",
    ),
    reads=(SELINUX, APPARMOR, LOCKDOWN),
    severity=Severity.MINOR,
)
def security(facts: FactView) -> str:
    selinux, apparmor, lockdown = (facts.maybe(f.path) for f in (SELINUX, APPARMOR, LOCKDOWN))
    enforcing = {None: "off", "0": "permissive", "1": "enforcing"}.get(selinux and selinux.strip(), "?")
    return (
        f"SELinux {enforcing}, AppArmor {'on' if (apparmor or '').strip() == 'Y' else 'off'}, "
        f"lockdown {chosen(lockdown) if lockdown is not None else '-'}"
    )


KDUMP = tuple(File(f"sys/kernel/{name}") for name in ("kexec_crash_loaded", "kexec_crash_size"))


@consistency_check(
    "same.kdump",
    title=Text("Crash kernel", "崩溃转储内核（kdump）"),
    method=Text(" and ".join(f"/{f.path}" for f in KDUMP), " 与 ".join(f"/{f.path}" for f in KDUMP)),
    suggestion=Text(
        "crashkernel=… at boot and the kdump service, on all nodes or on none",
        "统一配置启动参数 crashkernel=… 与 kdump 服务",
    ),
    reads=KDUMP,
    severity=Severity.MINOR,
)
def kdump(facts: FactView) -> str:
    loaded, size = (facts.maybe(f.path) for f in KDUMP)
    if loaded is None:
        raise DoesNotApply(Text("this kernel cannot start another", "内核不支持 kexec"))
    return f"{'loaded' if loaded.strip() == '1' else 'not loaded'}, {(size or '?').strip()} B"


CGROUP = File("sys/fs/cgroup/cgroup.controllers")


@consistency_check(
    "same.cgroup",
    title=Text("Control groups", "控制组（cgroup）版本"),
    method=Text(
        f"/{CGROUP.path} (only version 2 has it), /proc/cgroups", f"/{CGROUP.path}（仅 v2 存在）与 /proc/cgroups"
    ),
    suggestion=Text(
        "systemd.unified_cgroup_hierarchy=1 at boot: limits of jobs work differently otherwise",
        "启动参数 systemd.unified_cgroup_hierarchy=1：否则作业资源限制的行为不一致",
    ),
    reads=(CGROUP, File("proc/cgroups")),
    severity=Severity.MINOR,
    seen="container",
)
def cgroup(facts: FactView) -> str:
    controllers = facts.maybe(CGROUP.path)
    if controllers is not None:
        return f"v2: {' '.join(sorted(controllers.split()))}"
    enabled = [line.split() for line in facts.text("proc/cgroups").splitlines() if not line.startswith("#")]
    return f"v1: {' '.join(sorted(f[0] for f in enabled if len(f) == 4 and f[3] == '1'))}"


HOSTS = File("etc/hosts")
LOOPBACK = re.compile(r"127\.|::1$|fe00::|ff0\d::")


@consistency_check(
    "same.hosts",
    title=Text("Names of the cluster's nodes", "集群节点名解析"),
    method=Text(
        "/etc/hosts without loopback addresses; a node that lists of its like only itself lists nothing",
        "/etc/hosts（不含回环地址）；若同类主机名中仅列出自身，则忽略该行",
    ),
    suggestion=Text(
        "distribute one /etc/hosts: a name that means another address on one node breaks some pairs only",
        "统一分发 /etc/hosts：个别节点解析不一致会导致部分节点对不通",
    ),
    reads=(HOSTS, Call("host"), Call("container")),
    severity=Severity.MAJOR,
    seen="container",
)
def hosts(facts: FactView) -> str:
    if facts.call("container", Container).kind:
        raise DoesNotApply(Text("in a container the launcher writes /etc/hosts", "容器内的 /etc/hosts 由容器引擎生成"))
    own = facts.call("host", Host).hostname
    entries = []
    for line in (facts.maybe(HOSTS.path) or "").splitlines():
        words = line.split("#")[0].split()
        if len(words) > 1 and not LOOPBACK.match(words[0]):
            entries.append((words[0].lower(), sorted({w.lower() for w in words[1:]})))

    def like_own(names: list[str]) -> bool:
        return any(
            re.sub(r"\d+", "#", n.split(".")[0]) == re.sub(r"\d+", "#", own.lower().split(".")[0]) for n in names
        )

    alike = [e for e in entries if like_own(e[1])]
    kept = entries if len(alike) > 1 else [e for e in entries if e not in alike]
    return "; ".join(f"{address} {' '.join(names)}" for address, names in sorted(kept)) or "-"


NAMES = Call("names", timeout=15.0)


@consistency_check(
    "same.names",
    title=Text("What the names of the group resolve to", "组内各节点名的解析结果"),
    method=Text(
        "getaddrinfo(3), on every node, of the names given with --hosts (else those of SLURM_JOB_NODELIST)",
        "在每个节点上对 --hosts 给出的（否则取 SLURM_JOB_NODELIST 中的）名称执行 getaddrinfo(3)",
    ),
    suggestion=Text(
        "one DNS, or one /etc/hosts, for all; take out lines such as “127.0.1.1 NAME”: on each node they mean another"
        " machine",
        "统一 DNS 或 /etc/hosts；删除“127.0.1.1 主机名”这类行：它们在不同节点上含义不同",
    ),
    reads=(NAMES,),
    severity=Severity.MAJOR,
    seen="container",
)
def names(facts: FactView) -> str:
    found = facts.call(NAMES.name, Names)
    if not found.answers:
        raise DoesNotApply(
            Text(
                "the names of the group are not known here: start with --hosts, or from a Slurm job",
                "不知道组内节点名：请用 --hosts 启动，或在 Slurm 作业中运行",
            )
        )
    shown = [f"{name} {' '.join(sorted(addresses)) or '-'}" for name, addresses in sorted(found.answers.items())]
    return "; ".join(shown) + ("; …" if found.cut else "")


PACKAGES = Call("python_packages", timeout=10.0)


@consistency_check(
    "same.python_packages",
    title=Text("Python packages of training", "训练相关 Python 软件包"),
    method=Text(
        "metadata of torch, torch-npu, mindspore, te and hccl of CANN, NCCL and others in VIRTUAL_ENV, CONDA_PREFIX,"
        " the environment of python3, /usr, /usr/local and conda below /opt",
        "VIRTUAL_ENV、CONDA_PREFIX、python3 所在环境、/usr、/usr/local 与 /opt 下 conda 中 torch、torch-npu、"
        "mindspore、CANN 的 te 与 hccl、NCCL 等的元数据",
    ),
    suggestion=Text("use one container image, or one environment", "使用同一容器镜像或同一环境"),
    reads=(PACKAGES,),
    severity=Severity.MAJOR,
    seen="container",
)
def python_packages(facts: FactView) -> str:
    found = facts.call(PACKAGES.name, PythonPackages)
    if not found.packages:
        raise DoesNotApply(Text("none of these packages is installed", "未安装这些软件包"))
    return ", ".join(sorted(f"{p.name} {p.version} ({p.prefix})" for p in found.packages))


NOUVEAU = File("sys/module/nouveau/initstate")


@node_check(
    "kernel.nouveau",
    title=Text("nouveau does not hold the GPUs", "nouveau 未占用 GPU"),
    method=Text(f"/{NOUVEAU.path}", f"/{NOUVEAU.path}"),
    criterion=Text("not loaded on a node with NVIDIA GPUs", "有 NVIDIA GPU 的节点上未加载"),
    suggestion=Text(
        "echo 'blacklist nouveau' > /etc/modprobe.d/nouveau.conf, rebuild the initramfs, reboot",
        "echo 'blacklist nouveau' > /etc/modprobe.d/nouveau.conf，重建 initramfs 后重启",
    ),
    reads=(Call("pci"), NOUVEAU),
    severity=Severity.CRITICAL,
    action=Action.REBOOT,
)
def nouveau(facts: FactView) -> Outcome:
    cards = [d for d in accelerators(facts.call("pci", Pci)) if d.model.split(":")[0] == "10de"]
    held = [d.address for d in cards if d.driver == "nouveau"]
    facts.cite(Call("pci"), "\n".join(f"{d.address} {d.model} {d.driver or '-'}" for d in cards))
    if not cards:
        raise DoesNotApply(Text("no NVIDIA GPU here", "没有 NVIDIA GPU"))
    loaded = facts.maybe(NOUVEAU.path)
    if loaded is None and not held:
        return passed("-")
    return failed(f"nouveau {(loaded or '?').strip()}: {', '.join(held[:8]) or '-'}")
