"""PCI Express: how large its packets may be, and how the tree is built."""

from __future__ import annotations

from collections import Counter

from cwai_bench.checks import (
    DoesNotApply,
    FactView,
    NotKnown,
    Outcome,
    configurable_check,
    consistency_check,
    node_check,
    passed,
    warned,
)
from cwai_bench.checks.pci import NETWORK_CLASS, VM, endpoints
from cwai_bench.model import Severity
from cwai_bench.sources import Call, Container, Pci, PciDevice
from cwai_bench.text import Text

PCI, CONTAINER = Call("pci"), Call("container")
BRIDGE = 0x0604
DEEPEST = 24
"""Bridges below each other: what a recorded node says of its tree may go in circles."""
NO_CARD = Text("no PCIe accelerator, NIC or NVMe drive here", "没有 PCIe 加速卡、网卡或 NVMe")


def _packets(d: PciDevice) -> str:
    return f"payload {d.max_payload} B, read request {d.max_read_request} B"


def _told(facts: FactView) -> list[PciDevice]:
    """Endpoints whose settings could be read; they become the evidence."""
    if facts.call("container", Container).vm:
        raise DoesNotApply(VM)
    found = endpoints(facts.call("pci", Pci))
    if not found:
        raise DoesNotApply(NO_CARD)
    told = [d for d in found if d.max_payload is not None and d.max_read_request is not None]
    facts.cite(PCI, "\n".join(f"{d.address} {d.model} {_packets(d)}" for d in told) or "-")
    if not told:
        raise NotKnown(
            "permission", Text("the configuration space may be read by root only", "设备配置空间仅 root 可读")
        )
    return told


@node_check(
    "pci.packets",
    title=Text("Cards of one model use the same PCIe packet sizes", "同型号板卡的 PCIe 报文大小一致"),
    method=Text(
        "Device Control of accelerators, NICs and NVMe drives (lspci -vv: MaxPayload, MaxReadReq)",
        "加速卡、网卡、NVMe 的 Device Control 寄存器（lspci -vv：MaxPayload、MaxReadReq）",
    ),
    criterion=Text("equal on all cards of a model", "同型号的所有板卡取值相同"),
    suggestion=Text(
        "the BIOS, or pci=pcie_bus_perf at boot, sets the payload; mlxconfig or setpci the read request of a NIC",
        "负载大小由 BIOS 或启动参数 pci=pcie_bus_perf 设置；网卡读请求大小可用 mlxconfig 或 setpci 设置",
    ),
    reads=(PCI, CONTAINER),
    severity=Severity.MINOR,
    needs=("root",),
)
def packets(facts: FactView) -> Outcome:
    told = _told(facts)
    usual = {model: Counter(_packets(d) for d in told if d.model == model) for model in {d.model for d in told}}
    odd = [d for d in told if _packets(d) != usual[d.model].most_common(1)[0][0]]
    if odd:
        return warned(", ".join(f"{d.address} {_packets(d)}" for d in odd[:8]))
    return passed(f"{len(told)} / {len(told)}")


@consistency_check(
    "same.pci_packets",
    title=Text("PCIe packet sizes", "PCIe 报文大小"),
    method=Text(
        "MaxPayload and MaxReadReq of accelerators, NICs and NVMe drives, by model (root)",
        "加速卡、网卡、NVMe 的 MaxPayload 与 MaxReadReq，按型号（root）",
    ),
    suggestion=Text("compare the BIOS settings; see pci.packets", "核对 BIOS 设置，见 pci.packets"),
    reads=(PCI, CONTAINER),
    severity=Severity.MINOR,
    needs=("root",),
)
def same_packets(facts: FactView) -> str:
    found = Counter(f"{d.model} {_packets(d)}" for d in _told(facts))
    return "; ".join(f"{n} × {what}" for what, n in sorted(found.items()))


@configurable_check(
    "nic.read_request",
    title=Text("PCIe read request of NICs", "网卡的 PCIe 最大读请求"),
    method=Text(
        "Device Control of NICs (lspci -vv: MaxReadReq; root); where.name picks bus addresses",
        "网卡的 Device Control 寄存器（lspci -vv：MaxReadReq，需 root）；where.name 可限定总线地址",
    ),
    # linux-sysinfo-snapshot's tuning page wants 4096 B of adapters of 100 Gb/s and more.
    suggestion=Text(
        "setpci -s ADDRESS CAP_EXP+8.w sets it until the next boot", "setpci -s ADDRESS CAP_EXP+8.w 可设置（重启失效）"
    ),
    reads=(PCI, CONTAINER),
    unit="B",
    severity=Severity.MINOR,
    needs=("root",),
)
def read_request(facts: FactView) -> dict[str, float]:
    return {d.address: float(d.max_read_request or 0) for d in _told(facts) if d.class_code >> 8 == NETWORK_CLASS}


@consistency_check(
    "same.pci_tree",
    title=Text("PCIe tree of cards and switches", "PCIe 板卡与交换芯片拓扑"),
    method=Text(
        "/sys/bus/pci/devices: which models sit behind which bridges, without addresses",
        "/sys/bus/pci/devices：各型号所在的上级桥，去除总线地址",
    ),
    suggestion=Text(
        "a card sits in another slot, a switch is gone, or the BIOS splits lanes otherwise: compare lspci -t",
        "板卡插槽不同、交换芯片丢失，或 BIOS 通道拆分不同：比较 lspci -t",
    ),
    reads=(PCI, CONTAINER),
    severity=Severity.MINOR,
)
def tree(facts: FactView) -> str:
    if facts.call("container", Container).vm:
        raise DoesNotApply(VM)
    pci = facts.call("pci", Pci)
    ends = {d.address for d in endpoints(pci)}
    if not ends:
        raise DoesNotApply(NO_CARD)
    known = {d.address for d in pci.devices}
    below: dict[str, list[PciDevice]] = {}
    for d in pci.devices:
        below.setdefault(d.behind if d.behind in known else "", []).append(d)

    def grown(address: str, depth: int) -> str:
        """The branches below a bridge that bear a card; equal ones counted. Each bridge is followed once."""
        branches: Counter[str] = Counter()
        for d in below.pop(address, []) if depth < DEEPEST else []:
            if d.class_code != BRIDGE:
                branches[d.model] += d.address in ends
            elif inner := grown(d.address, depth + 1):
                branches[f"{d.model}[{inner}]"] += 1
        return ", ".join(f"{n} × {what}" for what, n in sorted(branches.items()) if n)

    return grown("", 0) or "-"
