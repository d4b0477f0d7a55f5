"""Cards, links and NICs of a job, from the facts of its nodes: what ``collective_bound`` reckons with.

No item: nothing is judged here, and what is not known stays unknown. A card or a NIC that is worse than its like on the
node lowers nothing: a collective is held against what the node should have.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import TypeVar

from cwai_bench.checks import DoesNotApply, FactView, NotKnown, ascend, ascend_roce, nvidia, rdma
from cwai_bench.collective_bound import Topology
from cwai_bench.model import Facts
from cwai_bench.readers import ascend as ascend_reader
from cwai_bench.sources import Container, Pci, PciDevice, Source
from cwai_bench.text import Text

T = TypeVar("T")

NPU = "NPU "
"""What the name of an NPU begins with; its number in /dev follows."""

READS: tuple[Source, ...] = tuple(
    dict.fromkeys(
        (*nvidia.CARDS, nvidia.NVLINK_STATUS, nvidia.NVLINK_ERRORS, *rdma.READS, *ascend_roce.COMMON, ascend_roce.SPEED)
    )
)
"""What ``topology_of`` and ``nearest_nics`` look at."""


def topology_of(facts: Iterable[Facts], cards: Mapping[str, int]) -> Topology | None:
    """Of the nodes in ``cards``, which has for each how many of its cards take part; None where there is none, or
    their numbers differ: what is known of even jobs does not hold for uneven ones.

    A node whose facts are missing makes unknown what it would have told.
    """
    by_node = {f.node: f for f in facts}
    counts = set(cards.values())
    if len(counts) != 1:
        return None
    taken = counts.pop()
    nodes = [_of_node(by_node[node], taken) if node in by_node else Topology(1, taken) for node in cards]
    names = {node.card for node in nodes}
    links = [node.links for node in nodes]
    return Topology(
        nodes=len(nodes),
        cards=taken,
        card=names.pop() if len(names) == 1 else "",
        installed=min(node.installed for node in nodes),
        links=None if None in links else min(count for count in links if count is not None),
        pcie=min(node.pcie for node in nodes),
        sockets=0 if any(node.sockets == 0 for node in nodes) else max(node.sockets for node in nodes),
        nics=min(node.nics for node in nodes),
        nic_rate=min(node.nic_rate for node in nodes),
    )


def _of_node(facts: Facts, cards: int) -> Topology:
    view = FactView(facts)
    devices = _told(lambda: nvidia.installed(view))
    if devices is None and (npus := _told(lambda: ascend.npus(view))) is not None:
        # The NICs of the host are not those of the NPUs.
        devices, rates = npus, _told(lambda: _npu_ports(view)) or []
        name, links = _told(lambda: _ascend(view)) or "", None
    else:
        rates = _told(lambda: _rails(view)) or []
        name, links = _told(lambda: _nvidia(view)) or ("", None)
    devices = devices or []
    numa = {device.numa_node for device in devices}
    return Topology(
        nodes=1,
        cards=cards,
        card=name,
        installed=len(devices),
        links=links,
        pcie=min((_slot(device) for device in devices), default=0.0),
        sockets=0 if -1 in numa else len(numa),
        nics=len(rates),
        nic_rate=min(rates, default=0.0) / 8,
    )


def nearest_nics(facts: Facts, card: str) -> list[str]:
    """The rails that are up and nearest to a card on the PCIe tree, else on its NUMA node; of an NPU its own port.

    ``card``: a PCI address as in sysfs (``0000:1b:00.0``), or the number of an NPU in /dev (``NPU 3``). Raises
    DoesNotApply and NotKnown.
    """
    view = FactView(facts)
    if card.startswith(NPU):
        if view.call("container", Container).kind:
            raise NotKnown("cause", Text("a container numbers its NPUs anew", "容器内的 NPU 编号可能不同"))
        numbers = ascend_roce.devices(view)
        own = [port for port in ascend_roce.ports(view) if f"{NPU}{numbers[port]}" == card]
        if not own:
            raise NotKnown("cause", Text("npu-smi does not list {c}", "npu-smi 未列出 {c}").fill(c=card))
        return own
    if view.call("container", Container).vm:
        raise NotKnown("cause", Text("a VM: the tree it shows is made up", "虚拟机显示的拓扑并不真实"))
    by_address = {device.address: device for device in view.call("pci", Pci).devices}
    if card not in by_address:
        raise NotKnown("cause", Text("{c} is not among the PCI devices read", "读取的 PCI 设备中没有 {c}").fill(c=card))
    path = rdma.above(by_address[card], by_address)
    steps: dict[str, int] = {}
    for port in rdma.rails(view):
        device = by_address.get(port.device.address)
        if not port.up or device is None:
            continue
        above = set(rdma.above(device, by_address))
        joined = next((step for step, bridge in enumerate(path) if bridge in above), None)
        if joined is not None:
            steps[port.name] = joined
        elif device.numa_node == by_address[card].numa_node >= 0:
            steps[port.name] = len(path)
    if not steps:
        raise NotKnown("cause", Text("no rail is near {c}", "{c} 附近没有轨道").fill(c=card))
    return [name for name, count in steps.items() if count == min(steps.values())]


def _told(ask: Callable[[], T]) -> T | None:
    try:
        return ask()
    except (NotKnown, DoesNotApply):
        return None


def _nvidia(view: FactView) -> tuple[str, int | None]:
    """The name of the cards, empty when they differ, and how many NVLinks are up on the card that has most."""
    found = nvidia.linked(view)
    names = {card.name for card in found}
    counts = [sum(link.up for link in card.links) for card in found if card.links is not None]
    return names.pop() if len(names) == 1 else "", max(counts, default=None)


def _ascend(view: FactView) -> str:
    names = {chip.name for chip in ascend.chips(view)}
    return names.pop() if len(names) == 1 else ""


def _rails(view: FactView) -> list[float]:
    """Bits per second of each rail: of those that are up the fastest, and as many more as should have a link. Other
    networks than InfiniBand and RoCE (EFA) are another matter."""
    found = [port for port in rdma.rails(view) if port.said.link_layer in (rdma.INFINIBAND, rdma.ETHERNET)]
    up = [port.rate.bits for port in found if port.up]
    dark = [port for port in rdma.without_link(found) if not port.up]
    return [max(up)] * (up.count(max(up)) + len(dark)) if up else []


def _npu_ports(view: FactView) -> list[float]:
    """Bits per second of each RoCE port of the NPUs that has a link; raises NotKnown where one does not tell it."""
    told = ascend_roce.ask(view, ascend_roce.SPEED, ascend_reader.speed, ascend_roce.with_a_link(view))
    return list(ascend.known(told, Text("the speed", "速率")).values())


def _slot(device: PciDevice) -> float:
    """Transfers per second × lanes that the slot is made for: idle cards lower the speed of their link."""
    return device.max_speed * device.max_width
