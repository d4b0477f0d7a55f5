"""RDMA devices: all there, all up, at full rate, alike, near the cards, and usable.

A *rail* is what training uses: an InfiniBand port; where there is none, a port of the boards that reach the node's
highest rate. Slower RDMA ports (a pair for storage and management) are looked at as well, where nothing else is said.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator
from typing import NamedTuple

from cwai_bench.checks import DoesNotApply, FactView, NotKnown, Outcome, failed, node_check, parsed, passed, warned
from cwai_bench.checks.kind import accelerators
from cwai_bench.model import Action, Severity
from cwai_bench.readers import nic
from cwai_bench.sources import (
    Call,
    Command,
    Container,
    Modules,
    Pci,
    PciDevice,
    Rdma,
    RdmaPort,
    SteadyNetwork,
    SteadyPort,
    SteadyRdma,
    SteadyRdmaDevice,
)
from cwai_bench.text import Text

RDMA = Call("rdma", timeout=10.0)
PCI = Call("pci")
CONTAINER = Call("container")
READS = (RDMA, PCI, CONTAINER)
"""What ``ports`` needs; every item of RDMA reads it."""

NAMED = 8
"""Devices named in one line."""
INFINIBAND_CONTROLLER, NETWORK = 0x0207, 0x02  # PCI Code and ID Assignment
MELLANOX = "15b3"
VIRTUAL_FUNCTIONS = ("1014", "1016", "1018", "101a", "101c", "101e")
"""Mellanox's device ids of virtual functions (pci.ids): they have an RDMA device only where somebody made one."""
INFINIBAND, ETHERNET = "InfiniBand", "Ethernet"
NONE_UP = Text("no rail is up: see items rdma.link and rdma.state", "轨道均不可用，见 rdma.link 与 rdma.state")


class Port(NamedTuple):
    """A port with its device. ``name`` is how people write it: ``mlx5_0``, or ``mlx5_0:2`` when there are several."""

    name: str
    device: SteadyRdmaDevice
    said: SteadyPort

    @property
    def up(self) -> bool:
        return self.said.state == "ACTIVE"

    @property
    def like(self) -> tuple[str, str, str]:
        """Ports that are to be alike."""
        return (self.device.hca_type, self.device.board, self.said.link_layer)

    @property
    def rate(self) -> nic.Rate:
        """Raises NotKnown."""
        return parsed(nic.rate, self.said.rate, f"{self.name} rate")


def capable(pci: Pci) -> list[PciDevice]:
    """The PCI NICs which are to have an RDMA device; those given to a virtual machine are not ours."""
    return [
        d
        for d in pci.devices
        if d.driver != "vfio-pci"
        and (
            d.class_code == INFINIBAND_CONTROLLER
            or (
                d.class_code >> 8 == NETWORK
                and d.model.startswith(f"{MELLANOX}:")
                and d.model.partition(":")[2] not in VIRTUAL_FUNCTIONS
            )
        )
    ]


def named(names: Iterable[str]) -> str:
    listed = list(names)
    return ", ".join(listed[:NAMED]) + (f" … ({len(listed)})" if len(listed) > NAMED else "")


def devices(facts: FactView) -> list[SteadyRdmaDevice]:
    """The RDMA devices of the node, its virtual functions only where there is nothing else (in a VM).

    Raises DoesNotApply where there is no RDMA, NotKnown where there should be.
    """
    own = facts.made("rdma", SteadyRdma, _own)
    facts.cite(RDMA, lambda: "\n".join(_line(p) for p in _ports(own)) or "(no RDMA device)")
    if own:
        return own
    # A container sees the host's PCI devices, but no RDMA device that it was not given.
    if capable(facts.call("pci", Pci)) and not facts.call("container", Container).kind:
        raise NotKnown("cause", Text("no RDMA device: see item rdma.devices", "没有 RDMA 设备，见 rdma.devices"))
    raise DoesNotApply(Text("no RDMA device here", "没有 RDMA 设备"))


def _own(answer: SteadyRdma) -> list[SteadyRdmaDevice]:
    return [d for d in answer.devices if not d.virtual_function] or list(answer.devices)


def _line(p: Port) -> str:
    s = p.said
    return (
        f"{p.name} {p.device.address or '-'} {p.device.hca_type} {p.device.board} fw {p.device.firmware} numa"
        f" {p.device.numa_node} {'/'.join(p.device.netdevs) or '-'} {s.link_layer} {s.state} {s.phys_state} {s.rate}"
        f" sm {s.sm_lid}"
    )


def _name(device: SteadyRdmaDevice, said: SteadyPort) -> str:
    return device.name if len(device.ports) == 1 else f"{device.name}:{said.port}"


def _ports(found: Iterable[SteadyRdmaDevice]) -> Iterator[Port]:
    for device in found:
        for said in device.ports:
            yield Port(_name(device, said), device, said)


def now(facts: FactView) -> dict[str, RdmaPort]:
    """The ports with their addresses and counters, by name."""
    return facts.made("rdma", Rdma, by_name)


def _lids(answer: Rdma) -> tuple[tuple[str, int], ...]:
    return tuple((name, said.lid) for name, said in by_name(answer).items())


def by_name(answer: Rdma) -> dict[str, RdmaPort]:
    return {_name(d, said): said for d in answer.devices for said in d.ports}


def ports(facts: FactView) -> list[Port]:
    """The ports of the node. Raises as ``devices``, and NotKnown for a device that shows none."""
    found = devices(facts)
    if lost := [d.name for d in found if not d.ports]:
        raise NotKnown("parse", Text("{d} shows no port", "{d} 没有端口信息").fill(d=named(lost)))
    return facts.made("rdma", SteadyRdma, _own_ports)


def _own_ports(answer: SteadyRdma) -> list[Port]:
    return list(_ports(_own(answer)))


def alike(found: Iterable[Port]) -> list[list[Port]]:
    groups: dict[tuple[str, str, str], list[Port]] = defaultdict(list)
    for p in found:
        groups[p.like].append(p)
    return list(groups.values())


def in_use(facts: FactView, link_layer: str = "") -> list[Port]:
    """The ports that are up, of one link layer if it is given. Raises NotKnown when they should be and none is."""
    found = [p for p in ports(facts) if not link_layer or p.said.link_layer == link_layer]
    if not found:
        raise DoesNotApply(Text("no {l} port here", "没有 {l} 端口").fill(l=link_layer))
    up = [p for p in found if p.up]
    if not up:
        raise NotKnown("cause", NONE_UP)
    return up


def hardware(found: list[Port]) -> list[Port]:
    """Those of NICs: not soft-RoCE, nor soft-iWARP. Raises DoesNotApply when there is none."""
    real = [p for p in found if p.device.address]
    if not real:
        raise DoesNotApply(Text("all RDMA here is made by software", "仅有软件 RDMA 设备"))
    return real


def rails(facts: FactView) -> list[Port]:
    """The InfiniBand ports where there are any; else those of the boards that reach the highest rate, up or not.

    Raises DoesNotApply where all RDMA is made by software, NotKnown when the ports that are up are too few to be the
    rails.
    """
    found = hardware(ports(facts))
    if infiniband := [p for p in found if p.said.link_layer == INFINIBAND]:
        return infiniband
    dark: list[list[Port]] = []
    best: dict[float, list[Port]] = defaultdict(list)
    for group in alike(found):
        up = [p.rate.bits for p in group if p.up]
        if up:
            best[max(up)] += group
        else:
            dark.append(group)
    top = best[max(best)] if best else []
    if any(len(group) > len(top) for group in dark):
        raise NotKnown("cause", NONE_UP)
    return top


def uneven(values: dict[str, str]) -> list[str]:
    """The names whose value is not that of most; all when there is no such value."""
    counts = Counter(values.values()).most_common(2)
    if len(counts) < 2:
        return []
    clear = counts[0][1] > counts[1][1]
    return [name for name, value in values.items() if not clear or value != counts[0][0]]


# --------------------------------------------------------------------------------------------------- devices and ports


@node_check(
    "rdma.devices",
    title=Text("Every RDMA NIC has its RDMA device", "每块 RDMA 网卡均有对应的 RDMA 设备"),
    method=Text(
        "/sys/class/infiniband against the InfiniBand controllers and Mellanox NICs in /sys/bus/pci/devices",
        "对比 /sys/class/infiniband 与 /sys/bus/pci/devices 中的 InfiniBand 控制器、Mellanox 网卡",
    ),
    criterion=Text("each has one", "一一对应"),
    suggestion=Text(
        "dmesg | grep mlx5; modprobe mlx5_ib (or reinstall the driver); a NIC whose firmware does not start: power"
        " cycle, then replace it",
        "执行 dmesg | grep mlx5；modprobe mlx5_ib（或重装驱动）；若固件无法启动，先断电重启，仍异常则更换网卡",
    ),
    reads=READS,
    severity=Severity.CRITICAL,
    action=Action.ISOLATE,
    scope="rdma",
)
def every_nic(facts: FactView) -> Outcome:
    found = facts.call("rdma", SteadyRdma).devices
    facts.cite(RDMA, "\n".join(f"{d.name} {d.address}" for d in found) or "(no RDMA device)")
    wanted = capable(facts.call("pci", Pci))
    facts.cite(PCI, "\n".join(f"{d.address} {d.model} {d.driver or '-'}" for d in wanted) or "(no RDMA NIC)")
    if not wanted and not found:
        raise DoesNotApply(Text("no RDMA NIC here", "没有 RDMA 网卡"))
    have = {d.address for d in found}
    lost = [f"{d.address} ({d.driver or 'no driver'})" for d in wanted if d.address not in have]
    # The second function of a bonded NIC shares the RDMA device of the first (mlx5 LAG: mlx5_bond_0).
    bonded = {d.address.rpartition(".")[0] for d in found if "bond" in d.name}
    lost = [name for name in lost if name.partition(" ")[0].rpartition(".")[0] not in bonded]
    observed = f"{len(wanted) - len(lost)} / {len(wanted)}, {len(found)} RDMA"
    if not lost:
        return passed(observed)
    if not found and facts.call("container", Container).kind:
        raise DoesNotApply(Text("no RDMA device was given to this container", "该容器未分配 RDMA 设备"))
    return failed(f"{observed}; {named(lost)}")


def _place(p: Port) -> tuple[object, ...]:
    """Ports in one place on boards of one kind: of cards with two ports the second is often left without a cable."""
    return (*p.like, p.device.address.rpartition(".")[2], p.said.port)


def without_link(found: list[Port]) -> list[Port]:
    """The ports that should have a link and have none: nobody switched them off, and a port like them has one."""
    dark = [p for p in found if p.said.phys_state != "LinkUp"]
    lit = {_place(p) for p in found if p.said.phys_state == "LinkUp"}
    return [p for p in dark if p.said.phys_state != "Disabled" and (_place(p) in lit or len(dark) == len(found))]


@node_check(
    "rdma.link",
    title=Text("RDMA ports have a physical link", "RDMA 端口物理链路正常"),
    method=Text("/sys/class/infiniband/*/ports/*/phys_state", "/sys/class/infiniband/*/ports/*/phys_state"),
    criterion=Text(
        "LinkUp; a warning for a port that was switched off, or that has no link on any board of its kind (a second"
        " port without a cable)",
        "LinkUp；端口被人为关闭，或同型号网卡的该端口均无链路（第二端口未接线）则告警",
    ),
    suggestion=Text(
        "check cable and transceiver at both ends, then the switch port; Polling: nothing answers at the other end",
        "检查两端线缆与光模块，再检查交换机端口；Polling 表示对端无响应",
    ),
    reads=READS,
    severity=Severity.CRITICAL,
    action=Action.ISOLATE,
    scope="rdma",
)
def link(facts: FactView) -> Outcome:
    found = ports(facts)
    dark = [p for p in found if p.said.phys_state != "LinkUp"]
    observed = f"{len(found) - len(dark)} / {len(found)}"
    if not dark:
        return passed(observed)
    unsaid = [p.name for p in dark if not p.said.phys_state]
    if unsaid:
        raise NotKnown("parse", Text("{p} does not say its state", "{p} 未给出状态").fill(p=named(unsaid)))
    lost = without_link(found)
    text = f"{observed}; {named(f'{p.name} {p.said.phys_state}' for p in lost or dark)}"
    return failed(text) if lost else warned(text)


@node_check(
    "rdma.state",
    title=Text("RDMA ports with a link are active", "有链路的 RDMA 端口处于 ACTIVE"),
    method=Text("/sys/class/infiniband/*/ports/*/state", "/sys/class/infiniband/*/ports/*/state"),
    criterion=Text("ACTIVE", "ACTIVE"),
    suggestion=Text(
        "INIT on InfiniBand: no subnet manager reaches the port (sminfo, opensm); Ethernet: ip link set DEV up",
        "InfiniBand 处于 INIT：无子网管理器（sminfo、opensm）；以太网：ip link set DEV up",
    ),
    reads=READS,
    severity=Severity.CRITICAL,
    action=Action.ISOLATE,
    scope="rdma",
)
def state(facts: FactView) -> Outcome:
    found = [p for p in ports(facts) if p.said.phys_state == "LinkUp"]
    if not found:
        raise NotKnown("cause", Text("no port has a link: see item rdma.link", "端口均无链路，见 rdma.link"))
    idle = [f"{p.name} {p.said.state or '?'}" for p in found if not p.up]
    observed = f"{len(found) - len(idle)} / {len(found)}"
    return failed(f"{observed}; {named(idle)}") if idle else passed(observed)


@node_check(
    "rdma.rate",
    title=Text("RDMA ports run at full rate and width", "RDMA 端口速率与宽度正常"),
    method=Text(
        "/sys/class/infiniband/*/ports/*/rate of the ports that are active",
        "处于 ACTIVE 的端口的 /sys/class/infiniband/*/ports/*/rate",
    ),
    # IBTA vol. 1: 1X is what a 4X (or 2X, a split HDR or NDR) InfiniBand link falls back to when lanes are lost.
    criterion=Text(
        "ports of one board run at one rate with one number of lanes, and no InfiniBand port on one lane",
        "同型号端口速率与通道数一致，且 InfiniBand 端口不降为 1X",
    ),
    suggestion=Text(
        "a port that trained lower: re-seat, clean or replace the cable or transceiver; then the switch port",
        "速率协商偏低：重新插拔、清洁或更换线缆与光模块，再检查交换机端口",
    ),
    reads=READS,
    severity=Severity.MAJOR,
    action=Action.ISOLATE,
    scope="rdma",
)
def full_rate(facts: FactView) -> Outcome:
    slow: list[str] = []
    seen: dict[str, int] = defaultdict(int)
    for group in alike(in_use(facts)):
        best = max(p.rate.bits for p in group), max(p.rate.lanes for p in group)
        for p in group:
            seen[p.said.rate] += 1
            alone = p.said.link_layer == INFINIBAND and p.rate.lanes == 1
            if p.rate.bits < best[0] or p.rate.lanes < best[1] or alone:
                slow.append(f"{p.name} {p.said.rate}")
    if slow:
        return failed(named(slow))
    return passed(", ".join(f"{rate} × {count}" for rate, count in seen.items()))


@node_check(
    "rdma.firmware",
    title=Text("NICs of one board run one firmware", "同型号网卡固件版本一致"),
    method=Text(
        "/sys/class/infiniband/*/{fw_ver,board_id,hca_type}", "/sys/class/infiniband/*/{fw_ver,board_id,hca_type}"
    ),
    criterion=Text("one version for each hca_type and board_id", "hca_type 与 board_id 相同的网卡固件版本一致"),
    suggestion=Text(
        "flash the odd ones to the version of the others: mlxfwmanager, flint; then power cycle",
        "用 mlxfwmanager 或 flint 将异常网卡刷到相同版本，然后断电重启",
    ),
    reads=READS,
    severity=Severity.MAJOR,
    scope="rdma",
)
def firmware(facts: FactView) -> Outcome:
    found = devices(facts)
    silent = [d.name for d in found if not d.firmware]
    if len(silent) == len(found):
        raise DoesNotApply(Text("these devices have no firmware to tell", "设备不提供固件版本"), "unsupported")
    if silent:
        raise NotKnown("unsupported", Text("{d} tells no version", "{d} 未给出版本").fill(d=named(silent)))
    odd: list[str] = []
    for model in {(d.hca_type, d.board) for d in found}:
        odd += uneven({d.name: d.firmware for d in found if (d.hca_type, d.board) == model})
    counts = Counter(f"{d.hca_type} {d.firmware}" for d in found)
    observed = ", ".join(f"{version} × {count}" for version, count in counts.items())
    return warned(f"{observed}; {named(odd)}") if odd else passed(observed)


@node_check(
    "rdma.userspace",
    title=Text("RDMA devices can be opened", "RDMA 设备可被用户程序打开"),
    method=Text("/dev/infiniband/uverbs* and rdma_cm, read and write", "/dev/infiniband/uverbs* 与 rdma_cm 的读写权限"),
    criterion=Text("each device has its file, and this user may open it", "每个设备均有文件，且当前用户可读写"),
    suggestion=Text(
        "modprobe ib_uverbs rdma_ucm; permissions: the udev rules of rdma-core (0666); a container: --device"
        " /dev/infiniband, or the RDMA device plugin",
        "modprobe ib_uverbs rdma_ucm；权限见 rdma-core 的 udev 规则（0666）；容器需 --device /dev/infiniband 或 RDMA"
        " 设备插件",
    ),
    reads=READS,
    severity=Severity.CRITICAL,
    seen="container",
    scope="rdma",
)
def userspace(facts: FactView) -> Outcome:
    found = devices(facts)
    bad = [f"{d.name} {d.verbs}" for d in found if d.verbs != "ok"]
    manager = facts.call("rdma", SteadyRdma).connection_manager
    observed = f"{len(found) - len(bad)} / {len(found)}, rdma_cm {manager}"
    facts.cite(RDMA, "\n".join([*(f"{d.name} uverbs {d.verbs}" for d in found), f"rdma_cm {manager}"]))
    if bad:
        return failed(f"{observed}; {named(bad)}")
    return passed(observed) if manager == "ok" else warned(observed)


# ------------------------------------------------------------------------------------------------------- InfiniBand

FULL_MEMBER = 0x8000  # IBTA vol. 1, 10.9: the top bit of a P_Key


@node_check(
    "rdma.subnet_manager",
    title=Text("InfiniBand ports know their subnet manager", "InfiniBand 端口已由子网管理器配置"),
    method=Text("/sys/class/infiniband/*/ports/*/{lid,sm_lid}", "/sys/class/infiniband/*/ports/*/{lid,sm_lid}"),
    criterion=Text("each active port has a LID and the LID of a subnet manager", "每个 ACTIVE 端口均有 LID 与 SM LID"),
    suggestion=Text("sminfo -C DEV; is opensm or UFM running?", "执行 sminfo -C DEV；检查 opensm 或 UFM 是否运行"),
    reads=READS,
    severity=Severity.CRITICAL,
    scope="rdma",
)
def subnet_manager(facts: FactView) -> Outcome:
    found = in_use(facts, INFINIBAND)
    lids = dict(facts.only("rdma", Rdma, _lids))
    facts.cite(RDMA, lambda: "\n".join(f"{p.name} lid {lids[p.name]} sm_lid {p.said.sm_lid}" for p in found))
    lost = [
        f"{p.name} lid {lids[p.name]} sm_lid {p.said.sm_lid}" for p in found if not (lids[p.name] and p.said.sm_lid)
    ]
    observed = f"{len(found) - len(lost)} / {len(found)}, SM {named(dict.fromkeys(str(p.said.sm_lid) for p in found))}"
    return failed(f"{observed}; {named(lost)}") if lost else passed(observed)


@node_check(
    "rdma.pkey",
    title=Text("InfiniBand ports are full members of a partition", "InfiniBand 端口为分区完全成员"),
    method=Text("/sys/class/infiniband/*/ports/*/pkeys/*", "/sys/class/infiniband/*/ports/*/pkeys/*"),
    criterion=Text(
        "each active port has a P_Key with full membership at index 0, which libraries use unless told otherwise;"
        " elsewhere only, or another on other ports of the node, is a warning",
        "每个 ACTIVE 端口索引 0 的 P_Key 为完全成员（通信库默认使用）；仅其他索引有，或各端口不同则告警",
    ),
    suggestion=Text(
        "let the subnet manager's partitions.conf make the node a full member (0x8000 set), or set NCCL_IB_PKEY",
        "在子网管理器 partitions.conf 中将节点设为 full 成员（最高位 0x8000），或设置 NCCL_IB_PKEY",
    ),
    reads=READS,
    severity=Severity.MAJOR,
    scope="rdma",
)
def pkey(facts: FactView) -> Outcome:
    found = in_use(facts, INFINIBAND)
    first = {p.name: f"0x{p.said.pkeys.get(0, 0):04x}" for p in found}
    facts.cite(
        RDMA, "\n".join(f"{p.name} " + " ".join(f"{i}:0x{k:04x}" for i, k in p.said.pkeys.items()) for p in found)
    )
    counts = Counter(first.values())
    observed = ", ".join(f"{key} × {count}" for key, count in counts.items())
    none = [p.name for p in found if not any(key & FULL_MEMBER for key in p.said.pkeys.values())]
    if none:
        return failed(f"{observed}; {named(none)}")
    late = [p.name for p in found if not p.said.pkeys.get(0, 0) & FULL_MEMBER]
    odd = late or uneven(first)
    return warned(f"{observed}; {named(odd)}") if odd else passed(observed)


# ------------------------------------------------------------------------------------------------------------- MTU

MTU_FULL = 4096  # IBTA vol. 1: the largest path MTU
# 4096 bytes of payload, and at most 40 IPv6, 8 UDP, 12 BTH, 28 further headers, 4 ICRC; NVIDIA recommends 4200.
NETDEV_MTU_FULL = 4200
DEVINFO = Command("ibv_devinfo", timeout=10.0)


@node_check(
    "rdma.mtu",
    title=Text("RDMA ports use the largest MTU", "RDMA 端口使用最大 MTU"),
    method=Text("ibv_devinfo: active_mtu of the ports that are active", "ibv_devinfo：ACTIVE 端口的 active_mtu"),
    criterion=Text("{m} on every rail", "每条轨道均为 {m}").fill(m=MTU_FULL),
    suggestion=Text(
        "InfiniBand: mtu=5 of the subnet manager's partition, and the switch; RoCE: see roce.mtu",
        "InfiniBand：子网管理器分区的 mtu=5 与交换机设置；RoCE：见 roce.mtu",
    ),
    reads=(*READS, DEVINFO, Call("network")),
    severity=Severity.MINOR,
    needs=("ibv_devinfo",),
    scope="rdma",
    tool_optional=True,
)
def mtu(facts: FactView) -> Outcome:
    small = {i.name for i in facts.call("network", SteadyNetwork).interfaces if i.mtu < NETDEV_MTU_FULL}
    up = [p for p in rails(facts) if p.up]
    if not up:
        raise NotKnown("cause", NONE_UP)
    found = [p for p in up if p.said.link_layer != ETHERNET or not small & set(p.device.netdevs)]
    if not found:
        raise NotKnown("cause", Text("their interfaces' MTU is small: see roce.mtu", "接口 MTU 偏小，见 roce.mtu"))
    told = active_mtus(facts, found)
    low = [f"{name} {value}" for name, value in told.items() if value < MTU_FULL]
    counts = ", ".join(f"{value} × {count}" for value, count in Counter(told.values()).items())
    return warned(named(low)) if low else passed(counts)


def _active_mtus(text: str) -> tuple[tuple[tuple[str, int], int], ...]:
    return tuple(nic.active_mtus(text).items())


def active_mtus(facts: FactView, found: list[Port]) -> dict[str, int]:
    """By name of the port. Raises NotKnown for one of which ibv_devinfo says nothing."""
    told = dict(facts.only_said(_active_mtus, *DEVINFO.argv))
    facts.cite(DEVINFO, lambda: "\n".join(f"{device}:{port} active_mtu {told[device, port]}" for device, port in told))
    lost = [p.name for p in found if (p.device.name, p.said.port) not in told]
    if lost:
        raise NotKnown("parse", Text("ibv_devinfo does not tell of {p}", "ibv_devinfo 未给出 {p}").fill(p=named(lost)))
    return {p.name: told[p.device.name, p.said.port] for p in found}


# ---------------------------------------------------------------------------------------------------------- drivers

MLX5 = "mlx5_core"
INSTALLED = Command("modinfo", "-F", "version", MLX5)
OFED = Command("ofed_info", "-s", timeout=10.0)


def loaded_driver(facts: FactView) -> str:
    """The version of the mlx5_core that is loaded. Raises DoesNotApply when it states none: it is the kernel's own."""
    devices(facts)
    version = facts.call("modules", Modules).versions.get(MLX5)
    facts.cite(Call("modules"), f"{MLX5} {version or '(no version)'}")
    if version is None:
        raise DoesNotApply(Text("mlx5_core is the kernel's own or not loaded", "mlx5_core 为内核自带或未加载"))
    return version


@node_check(
    "rdma.driver",
    title=Text("The NIC driver that runs is the one installed", "运行中的网卡驱动与已安装版本一致"),
    method=Text(
        f"/sys/module/{MLX5}/version against {INSTALLED.key[2:]}", f"/sys/module/{MLX5}/version 与 {INSTALLED.key[2:]}"
    ),
    criterion=Text("the same version", "版本相同"),
    suggestion=Text(
        "the driver was changed and not restarted: /etc/init.d/openibd restart, or reboot",
        "驱动更新后未重新加载：/etc/init.d/openibd restart 或重启",
    ),
    reads=(*READS, Call("modules"), INSTALLED),
    severity=Severity.MINOR,
    action=Action.REBOOT,
    needs=("modinfo",),
    scope="rdma",
)
def driver(facts: FactView) -> Outcome:
    loaded = loaded_driver(facts)
    installed = parsed(nic.module_version, facts.command(*INSTALLED.argv).text, INSTALLED.key[2:])
    return passed(loaded) if loaded == installed else warned(f"{loaded} ≠ {installed}")


@node_check(
    "rdma.ofed",
    title=Text("The NIC driver belongs to the OFED installed", "网卡驱动与已安装的 OFED 匹配"),
    method=Text(f"ofed_info -s against /sys/module/{MLX5}/version", f"ofed_info -s 与 /sys/module/{MLX5}/version"),
    criterion=Text("OFED's version holds the driver's", "OFED 版本包含驱动版本"),
    suggestion=Text(
        "reinstall OFED for this kernel (mlnxofedinstall --add-kernel-support), then openibd restart",
        "为当前内核重装 OFED（mlnxofedinstall --add-kernel-support），再执行 openibd restart",
    ),
    reads=(*READS, Call("modules"), OFED),
    severity=Severity.MINOR,
    needs=("ofed_info",),
    scope="rdma",
    tool_optional=True,
)
def ofed(facts: FactView) -> Outcome:
    loaded = loaded_driver(facts)
    installed = parsed(nic.ofed, facts.command(*OFED.argv).text, "ofed_info -s")
    fits = loaded in installed
    return passed(f"{installed}, {MLX5} {loaded}") if fits else warned(f"{installed}, {MLX5} {loaded}")


# ---------------------------------------------------------------------------------------------------------- affinity


def above(device: PciDevice, by_address: dict[str, PciDevice]) -> list[str]:
    """The ports above a device, nearest first."""
    found: list[str] = []
    at = device.behind
    while at and at not in found and len(found) < 32:
        found.append(at)
        at = by_address[at].behind if at in by_address else ""
    return found


@node_check(
    "rdma.affinity",
    title=Text("Every card has an RDMA NIC near it", "每张加速卡附近均有 RDMA 网卡"),
    method=Text(
        "PCIe tree and numa_node of accelerators and RDMA NICs in /sys/bus/pci/devices",
        "/sys/bus/pci/devices 中加速卡与 RDMA 网卡的 PCIe 拓扑与 numa_node",
    ),
    criterion=Text(
        "each accelerator shares a PCIe root port with an RDMA NIC, or, where none does, a NUMA node",
        "每张加速卡与某块 RDMA 网卡同属一个 PCIe 根端口；若整机均非如此，则至少同一 NUMA 节点",
    ),
    suggestion=Text(
        "compare nvidia-smi topo -m with a good node: a NIC sits in another slot, or is lost (rdma.devices)",
        "与正常节点对比 nvidia-smi topo -m：网卡插错槽位或丢失（rdma.devices）",
    ),
    reads=READS,
    severity=Severity.MAJOR,
    action=Action.CONTACT_VENDOR,
    scope="rdma",
)
def affinity(facts: FactView) -> Outcome:
    found = rails(facts)
    if facts.call("container", Container).vm:
        raise DoesNotApply(Text("a VM: the tree it shows is made up", "虚拟机显示的拓扑并不真实"))
    pci = facts.call("pci", Pci)
    cards = accelerators(pci)
    by_address = {d.address: d for d in pci.devices}
    nics = [by_address[p.device.address] for p in found if p.device.address in by_address]
    facts.cite(
        PCI,
        "\n".join(
            f"{d.address} numa {d.numa_node} below {' '.join(above(d, by_address)) or '-'}" for d in cards + nics
        ),
    )
    if not cards:
        raise DoesNotApply(Text("no accelerator here", "没有加速卡"))
    if len(nics) < len({c.numa_node for c in cards}):
        raise DoesNotApply(Text("fewer RDMA NICs than NUMA nodes with cards", "RDMA 网卡少于加速卡所在 NUMA 节点数"))
    near = {c.address: set(above(c, by_address)) for c in cards}
    joined = [c for c in cards if any(near[c.address] & set(above(n, by_address)) for n in nics)]
    same_node = [c for c in cards if any(c.numa_node == n.numa_node >= 0 for n in nics)]
    good, how = (joined, "PCIe") if joined else (same_node, "NUMA")
    far = [c.address for c in cards if c not in good]
    observed = f"{len(good)} / {len(cards)} ({how})"
    return warned(f"{observed}; {named(far)}") if far else passed(observed)
