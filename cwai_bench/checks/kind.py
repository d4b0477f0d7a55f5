"""Which nodes are alike: only nodes of one kind are compared with each other."""

from __future__ import annotations

from cwai_bench.checks import FactView, NotKnown, consistency_check
from cwai_bench.model import Severity
from cwai_bench.sources import Call, Pci, PciDevice, SteadyHost
from cwai_bench.text import Text

ACCELERATOR, DISPLAY_3D, DISPLAY = 0x12, 0x0302, 0x03
GPU_VENDORS = ("10de", "1002")
"""NVIDIA and AMD, whose cards also come as VGA controllers; other VGA controllers are those of a BMC or a desktop."""


def accelerators(pci: Pci) -> list[PciDevice]:
    """GPUs and NPUs."""
    return [
        d
        for d in pci.devices
        if d.class_code >> 8 == ACCELERATOR
        or d.class_code == DISPLAY_3D
        or (d.class_code >> 8 == DISPLAY and d.model.split(":")[0] in GPU_VENDORS)
    ]


@consistency_check(
    "same.kind",
    title=Text("Kind of node", "节点类型"),
    method=Text(
        "machine of uname(2), models of accelerators in /sys/bus/pci/devices",
        "uname(2) 的架构与 /sys/bus/pci/devices 中的加速卡型号",
    ),
    suggestion=Text(
        "compare only nodes of one kind; a node that lost all its cards shows here first",
        "只应比较同类节点；若某节点的加速卡全部掉卡，会首先体现在此项",
    ),
    reads=(Call("host"), Call("pci")),
    severity=Severity.CRITICAL,
)
def kind(facts: FactView) -> str:
    models = sorted({d.model for d in accelerators(facts.call("pci", Pci))})
    return " ".join([facts.call("host", SteadyHost).machine, *models])


def node_kind(facts: FactView) -> str:
    """The kind of a node; empty when it is not known, and then it is compared with all."""
    try:
        return kind(facts)
    except NotKnown:
        return ""
