"""PCI Express: links at full width and speed, no errors, no detours."""

from __future__ import annotations

import math
import re

from cwai_bench.checks import DoesNotApply, FactView, NotKnown, Outcome, failed, node_check, passed, warned
from cwai_bench.checks.kernel_log import LOG, recent
from cwai_bench.checks.kind import accelerators
from cwai_bench.model import Action, Severity
from cwai_bench.sources import Call, Container, Cpus, Pci, PciDevice
from cwai_bench.text import Text

PCI = Call("pci")
NETWORK_CLASS, NVME = 0x02, 0x0108
VM = Text("a VM: the links it shows are made up", "虚拟机显示的链路信息并不真实")


def endpoints(pci: Pci) -> list[PciDevice]:
    """The devices whose links training depends on: accelerators, NICs, NVMe drives."""
    return [d for d in pci.devices if d.class_code >> 8 == NETWORK_CLASS or d.class_code == NVME] + accelerators(pci)


def _cited(facts: FactView, devices: list[PciDevice]) -> None:
    facts.cite(
        PCI,
        "\n".join(
            f"{d.address} {d.model} {d.driver or '-'} numa {d.numa_node} link {d.speed / 1e9:g} GT/s x{d.width} of "
            f"{d.max_speed / 1e9:g} GT/s x{d.max_width} aer {d.aer_correctable}/{d.aer_nonfatal}/{d.aer_fatal}"
            + (f" acs {d.acs:#06x}" if d.acs is not None else "")
            for d in devices
        )
        or "(no such device)",
    )


@node_check(
    "pci.links",
    title=Text("PCIe links are as wide and fast as they can be", "PCIe 链路宽度与速率正常"),
    method=Text(
        "current_link_width and current_link_speed of accelerators, NICs and NVMe drives, against what they and their"
        " ports can do",
        "加速卡、网卡、NVMe 的 current_link_width 与 current_link_speed，与设备及上级端口的能力比较",
    ),
    criterion=Text(
        "full width; full speed of NICs and NVMe drives is a warning otherwise (accelerators slow down when idle)",
        "宽度为最大值；网卡与 NVMe 速率低于最大值则告警（加速卡空闲时会主动降速）",
    ),
    suggestion=Text(
        "re-seat the card or riser; check the slot's BIOS setting (bifurcation, link speed)",
        "重新插拔板卡或转接卡；检查该插槽的 BIOS 设置（拆分、链路速率）",
    ),
    reads=(PCI, Call("container")),
    severity=Severity.MAJOR,
    action=Action.CONTACT_VENDOR,
)
def links(facts: FactView) -> Outcome:
    if facts.call("container", Container).vm:
        raise DoesNotApply(VM)
    pci = facts.call("pci", Pci)
    found = [d for d in endpoints(pci) if d.width and d.max_width]
    _cited(facts, found)
    if not found:
        raise DoesNotApply(Text("no PCIe accelerator, NIC or NVMe drive here", "没有 PCIe 加速卡、网卡或 NVMe"))
    cards = {d.address for d in accelerators(pci)}
    narrow = [f"{d.address} x{d.width}/x{d.max_width}" for d in found if d.width < d.max_width]
    slow = [
        f"{d.address} {d.speed / 1e9:g}/{d.max_speed / 1e9:g} GT/s"
        for d in found
        if d.speed < d.max_speed and d.address not in cards
    ]
    if narrow:
        return failed(", ".join((narrow + slow)[:8]))
    return warned(", ".join(slow[:8])) if slow else passed(f"{len(found)} / {len(found)}")


AER_MANY = 1000


@node_check(
    "pci.errors",
    title=Text("PCIe errors", "PCIe 错误"),
    method=Text(
        "aer_dev_fatal, aer_dev_nonfatal, aer_dev_correctable of each device since boot",
        "各设备启动以来的 aer_dev_fatal、aer_dev_nonfatal、aer_dev_correctable",
    ),
    criterion=Text(
        "no uncorrectable error; fewer than {n} correctable ones on any device",
        "无不可纠正错误；任一设备可纠正错误少于 {n} 次",
    ).fill(n=AER_MANY),
    suggestion=Text(
        "re-seat the card, its riser or retimer; if the count grows, replace it",
        "重新插拔板卡、转接卡或 retimer；若计数持续增长则更换",
    ),
    reads=(PCI,),
    severity=Severity.MAJOR,
    action=Action.CONTACT_VENDOR,
)
def aer(facts: FactView) -> Outcome:
    pci = facts.call("pci", Pci)
    bad = [d for d in pci.devices if d.aer_fatal or d.aer_nonfatal]
    many = [d for d in pci.devices if d.aer_correctable >= AER_MANY]
    _cited(facts, bad + many)
    if not pci.devices:
        raise DoesNotApply(Text("no PCI device is seen from here", "此处看不到 PCI 设备"))
    if bad:
        return failed(", ".join(f"{d.address} {d.aer_nonfatal} non-fatal, {d.aer_fatal} fatal" for d in bad[:8]))
    if many:
        return warned(", ".join(f"{d.address} {d.aer_correctable} corrected" for d in many[:8]))
    return passed(f"0 / {len(pci.devices)}")


@node_check(
    "pci.numa",
    title=Text("Cards know their NUMA node", "板卡的 NUMA 归属已知"),
    method=Text("numa_node of accelerators, NICs and NVMe drives", "加速卡、网卡、NVMe 的 numa_node"),
    criterion=Text("none is -1 on a node of several NUMA nodes", "多 NUMA 节点的机器上均不为 -1"),
    suggestion=Text(
        "update the BIOS (its ACPI tables lack _PXM); without it, ranks cannot be bound near their cards",
        "升级 BIOS（ACPI 表缺少 _PXM）；否则无法将进程绑定到离卡最近的 CPU",
    ),
    reads=(PCI, Call("cpus"), Call("container")),
    severity=Severity.MINOR,
)
def numa(facts: FactView) -> Outcome:
    nodes = facts.call("cpus", Cpus).numa_nodes
    facts.cite(Call("cpus"), f"NUMA nodes: {nodes}")
    if nodes < 2:
        raise DoesNotApply(Text("one NUMA node", "仅有一个 NUMA 节点"))
    found = endpoints(facts.call("pci", Pci))
    _cited(facts, found)
    if not found:
        raise DoesNotApply(Text("no PCIe accelerator, NIC or NVMe drive here", "没有 PCIe 加速卡、网卡或 NVMe"))
    lost = [d.address for d in found if d.numa_node < 0]
    return warned(", ".join(lost[:8])) if lost else passed(f"{len(found)} / {len(found)}")


# linux/pci_regs.h: P2P request redirect, P2P completion redirect
ACS_REDIRECT = 0x04 | 0x08


@node_check(
    "pci.acs",
    title=Text("Cards may talk to each other directly (ACS)", "板卡之间可直接通信（ACS）"),
    method=Text(
        "ACS control register of each PCIe port (setpci, lspci -vv: ACSCtl)",
        "各 PCIe 端口的 ACS 控制寄存器（lspci -vv 的 ACSCtl）",
    ),
    # NCCL User Guide, Troubleshooting, PCI Access Control Services: peer-to-peer traffic goes through the CPU root
    # complex, "causing a significant performance reduction, or even hangs".
    criterion=Text(
        "on a host with accelerators no port redirects peer-to-peer requests or completions (0x{m:x})",
        "有加速卡的物理机上，端口均不重定向点对点请求与完成报文（0x{m:x}）",
    ).fill(m=ACS_REDIRECT),
    suggestion=Text(
        "disable ACS in the BIOS, or pci=disable_acs_redir=… on the kernel command line",
        "在 BIOS 中关闭 ACS，或在内核命令行使用 pci=disable_acs_redir=…",
    ),
    reads=(PCI, Call("container")),
    severity=Severity.MAJOR,
    needs=("root",),
)
def acs(facts: FactView) -> Outcome:
    if facts.call("container", Container).vm:
        raise DoesNotApply(Text("a VM: the host's ports are not seen from here", "虚拟机中看不到宿主机的端口"))
    pci = facts.call("pci", Pci)
    if not accelerators(pci):
        _cited(facts, [])
        raise DoesNotApply(Text("no accelerator here", "没有加速卡"))
    if not pci.config_readable:
        raise NotKnown(
            "permission", Text("the configuration space of ports may be read by root only", "端口配置空间仅 root 可读")
        )
    ports = [d for d in pci.devices if d.acs is not None]
    redirecting = [d for d in ports if (d.acs or 0) & ACS_REDIRECT]
    _cited(facts, redirecting or ports)
    if redirecting:
        return warned(f"{len(redirecting)} / {len(ports)}: {', '.join(d.address for d in redirecting[:8])}")
    return passed(f"0 / {len(ports)}")


# drivers/pci/pci.c, __pcie_print_link_status
_LIMITED = re.compile(r"(\S+:\S+:\S+): .*available PCIe bandwidth, limited by (.*)")


@node_check(
    "pci.bandwidth",
    title=Text("No card is held back by a slower link above it", "无板卡受上级链路限速"),
    method=Text(
        "kernel log: “… available PCIe bandwidth, limited by …”", "内核日志：“… available PCIe bandwidth, limited by …”"
    ),
    criterion=Text("no such line; one is a warning", "无此类日志；出现则告警"),
    suggestion=Text(
        "move the card to a slot that is as wide and fast as it is; re-seat it; try a reboot",
        "将板卡换到匹配的插槽，重新插拔，或尝试重启",
    ),
    reads=(LOG, Call("container")),
    severity=Severity.MAJOR,
    needs=("permission to read the kernel log",),
)
def bandwidth(facts: FactView) -> Outcome:
    if facts.call("container", Container).vm:
        raise DoesNotApply(VM)
    # It is said once, when the driver is loaded.
    lines, _ = recent(facts, _LIMITED, window=math.inf)
    if not lines:
        return passed("0")
    named = [m[1] for m in (_LIMITED.search(line.text) for line in lines) if m is not None]
    return warned(", ".join(dict.fromkeys(named)))
