"""RoCE: what the rails of an Ethernet fabric must have in common for RDMA to be lossless and to find its way.

All items look at the rails only (see ``checks/rdma.py``), and SKIP where the rails are InfiniBand.
"""

from __future__ import annotations

import ipaddress
from collections import Counter
from collections.abc import Callable
from typing import TypeVar

from cwai_bench.checks import (
    DoesNotApply,
    FactView,
    NotKnown,
    Outcome,
    failed,
    node_check,
    parsed,
    passed,
    warned,
    whole,
)
from cwai_bench.checks.rdma import ETHERNET, NETDEV_MTU_FULL, NONE_UP, RDMA, READS, Port, named, now, rails, uneven
from cwai_bench.model import Action, Reading, ReasonCode, Severity
from cwai_bench.readers import nic
from cwai_bench.sources import Call, Command, Each, File, Gid, Host, RdmaPort, SteadyNetwork
from cwai_bench.text import Text

T = TypeVar("T")
NICS = "sys/class/net/*/device"
QOS = Each("mlnx_qos", "-i", "{}", over=NICS, timeout=10.0)
STATISTICS = Each("ethtool", "-S", "{}", over=NICS, timeout=10.0)
PAUSE = Each("ethtool", "-a", "{}", over=NICS, timeout=10.0)
LLDP = Command("lldpcli", "-f", "json", "show", "neighbors", timeout=10.0)
ECN = {side: File(f"sys/class/net/*/ecn/roce_{side}/enable/*") for side in ("np", "rp")}
"""Of the point that tells of congestion (np: it sends CNPs) and the one that reacts to them (rp)."""


def roce_rails(facts: FactView) -> list[Port]:
    """The rails that are Ethernet and up. Raises DoesNotApply where they are InfiniBand, NotKnown where none is up."""
    found = [p for p in rails(facts) if p.said.link_layer == ETHERNET]
    if not found:
        raise DoesNotApply(Text("the rails here are no RoCE", "本机轨道不是 RoCE"))
    up = [p for p in found if p.up]
    if not up:
        raise NotKnown("cause", NONE_UP)
    return up


def mlx5_rails(facts: FactView) -> list[Port]:
    """The RoCE rails of ConnectX and BlueField NICs, to which Mellanox's tools speak."""
    found = [p for p in roce_rails(facts) if p.device.hca_type.startswith("MT")]
    if not found:
        raise DoesNotApply(Text("only of ConnectX and BlueField NICs", "仅适用于 ConnectX 与 BlueField 网卡"))
    return found


def interface(port: Port) -> str:
    """The network interface that is the port. Raises NotKnown for a device that names none."""
    names = port.device.netdevs
    if not names:
        raise NotKnown("parse", Text("{p} names no interface", "{p} 没有对应的网络接口").fill(p=port.name))
    return names[min(max(port.said.port, 1), len(names)) - 1]


def answers(
    facts: FactView, each: Each, found: list[Port], reader: Callable[[str], T], of: Callable[[Port], str] = interface
) -> dict[str, T]:
    """What a command said of each port, by the port's name; only that becomes evidence."""
    said = facts.each(*each.argv)
    result: dict[str, T] = {}
    shown: list[str] = []
    for p in found:
        name = of(p)
        command = each.command(name).key.removeprefix("$ ")
        if name not in said:
            raise NotKnown("missing_source", Text("{c} was not run", "未执行 {c}").fill(c=command))
        shown.append(name)
        facts.cite(each, lambda: "\n".join(f"[{n}] {said[n].text.rstrip()}" for n in shown))
        ran_well(said[name], command)
        result[p.name] = parsed(reader, said[name].text, command)
    return result


def ran_well(said: Reading, command: str) -> None:
    """Raises NotKnown for a command that says by its exit code that it did not."""
    if said.exit_code:
        code: ReasonCode = "permission" if "not permitted" in said.detail else "error"
        why = " ".join(said.detail.split())[:120] or "?"
        raise NotKnown(
            code,
            Text("{c} failed with exit code {x}: {w}", "{c} 执行失败，退出码 {x}：{w}").fill(
                c=command, x=said.exit_code, w=why
            ),
        )


def alike(values: dict[str, str]) -> str:
    """One value, or how often each is there."""
    counts = Counter(values.values())
    return next(iter(counts)) if len(counts) == 1 else ", ".join(f"{v} × {n}" for v, n in counts.items())


# ---------------------------------------------------------------------------------------------------- addresses, MTU


def _address(gid: Gid) -> str:
    """The IP address that a GID of RoCE holds; empty for one that was only made of a MAC address."""
    try:
        found = ipaddress.IPv6Address(gid.gid)
    except ValueError:
        raise NotKnown("parse", Text("{g!r} is no GID", "{g!r} 不是 GID").fill(g=gid.gid[:60])) from None
    if found.ipv4_mapped is not None:
        return str(found.ipv4_mapped)
    return "" if found.is_link_local else str(found)


V2 = "RoCE v2"


def usable_gid(port: RdmaPort) -> Gid | None:
    """The first GID of RoCE v2 with an address that can be routed, IPv4 first, as NCCL and UCX choose."""
    good = [g for g in port.gids if g.type == V2 and _address(g)]
    return min(good, key=lambda g: (":" in _address(g), g.index)) if good else None


def with_gids(facts: FactView) -> dict[str, RdmaPort]:
    """The rails with their GIDs, by name. Raises as ``roce_rails``."""
    rails, said = roce_rails(facts), now(facts)
    found = {p.name: said[p.name] for p in rails}
    lines = (
        f"{name} " + "; ".join(f"{g.index} {g.gid} {g.type} {g.netdev}" for g in p.gids) for name, p in found.items()
    )
    facts.cite(RDMA, "\n".join(lines))
    return found


@node_check(
    "roce.address",
    title=Text("RoCE rails have an IP address", "RoCE 轨道已配置 IP 地址"),
    method=Text(
        "GIDs in /sys/class/infiniband/*/ports/*/gids that were made of an IP address",
        "/sys/class/infiniband/*/ports/*/gids 中由 IP 地址生成的 GID",
    ),
    criterion=Text("each active rail has one", "每条 ACTIVE 轨道均有"),
    suggestion=Text(
        "ip address add …, and make it last (netplan, NetworkManager)", "配置 IP 并持久化（netplan、NetworkManager）"
    ),
    reads=READS,
    severity=Severity.CRITICAL,
    scope="roce",
)
def address(facts: FactView) -> Outcome:
    found = with_gids(facts)
    without = [name for name, p in found.items() if not any(_address(g) for g in p.gids)]
    observed = f"{len(found) - len(without)} / {len(found)}"
    return failed(f"{observed}; {named(without)}") if without else passed(observed)


@node_check(
    "roce.gid",
    title=Text("RoCE v2 GIDs are usable, at one index", "RoCE v2 GID 可用且索引一致"),
    method=Text(
        "/sys/class/infiniband/*/ports/*/gids/N and gid_attrs/types/N (show_gids)",
        "/sys/class/infiniband/*/ports/*/gids/N 与 gid_attrs/types/N（show_gids）",
    ),
    criterion=Text(
        "each active rail with an address has a GID of RoCE v2; another index on some rails is a warning",
        "有地址的每条轨道均有 RoCE v2 的 GID；各轨道索引不同则告警",
    ),
    suggestion=Text(
        "cma_roce_mode -d DEV -m 2; one index: the same number and order of addresses and VLANs on all rails, or leave"
        " NCCL_IB_GID_INDEX unset",
        "cma_roce_mode -d DEV -m 2；统一索引：各轨道地址与 VLAN 的数量及顺序一致，或不设置 NCCL_IB_GID_INDEX",
    ),
    reads=READS,
    severity=Severity.MAJOR,
    scope="roce",
)
def gid(facts: FactView) -> Outcome:
    found = {name: p for name, p in with_gids(facts).items() if any(_address(g) for g in p.gids)}
    if not found:
        raise NotKnown("cause", Text("no rail has an address: see roce.address", "轨道均无 IP，见 roce.address"))
    indices = {name: str(g.index) if (g := usable_gid(p)) else "-" for name, p in found.items()}
    observed = alike({name: f"GID {index}" for name, index in indices.items()})
    if lost := [name for name, index in indices.items() if index == "-"]:
        return failed(f"{observed}; {named(lost)}")
    odd = uneven(indices)
    return warned(f"{observed}; {named(odd)}") if odd else passed(observed)


@node_check(
    "roce.mtu",
    title=Text("MTU of RoCE interfaces", "RoCE 网卡 MTU"),
    method=Text("/sys/class/net/*/mtu of the rails", "各轨道的 /sys/class/net/*/mtu"),
    criterion=Text(
        "at least {m}, so that RDMA may send 4096 bytes at once, and the same on all rails",
        "不低于 {m}（RDMA 可用 4096 字节 MTU），且各轨道一致",
    ).fill(m=NETDEV_MTU_FULL),
    suggestion=Text(
        "ip link set DEV mtu 9000, and the same on the switch", "ip link set DEV mtu 9000，并与交换机保持一致"
    ),
    reads=(*READS, Call("network")),
    severity=Severity.MINOR,
    scope="roce",
)
def mtu(facts: FactView) -> Outcome:
    found = roce_rails(facts)
    known = {i.name: i.mtu for i in facts.call("network", SteadyNetwork).interfaces}
    if lost := [p.name for p in found if interface(p) not in known]:
        raise NotKnown("parse", Text("the interface of {p} is not seen", "看不到 {p} 的网络接口").fill(p=named(lost)))
    values = {p.name: known[interface(p)] for p in found}
    facts.cite(Call("network"), "\n".join(f"{interface(p)} mtu {known[interface(p)]}" for p in found))
    observed = alike({name: str(value) for name, value in values.items()})
    low = [name for name, value in values.items() if value < NETDEV_MTU_FULL]
    odd = low or uneven({name: str(value) for name, value in values.items()})
    return warned(f"{observed}; {named(odd)}") if odd else passed(observed)


# -------------------------------------------------------------------------------------- sysctl for several rails

CONF = "proc/sys/net/ipv4/conf"


def sysctl_values(facts: FactView, name: str, found: list[Port]) -> dict[str, int]:
    """What is in force: the greater of ``all`` and the interface's own (Documentation/networking/ip-sysctl.rst)."""
    source = File(f"{CONF}/*/{name}")
    files = facts.glob(source.path)
    wanted = {p.name: f"{CONF}/{interface(p)}/{name}" for p in found}
    everywhere = f"{CONF}/all/{name}"
    if lost := [path for path in (everywhere, *wanted.values()) if path not in files]:
        raise NotKnown("missing_source", Text("/{p} is not there", "/{p} 不存在").fill(p=lost[0]))
    facts.cite(source, "\n".join(f"/{p} {files[p].strip()}" for p in (everywhere, *wanted.values())))
    base = whole(files[everywhere], everywhere)
    return {port: max(base, whole(files[path], path)) for port, path in wanted.items()}


def _sysctl(
    name: str, title: Text, good: Callable[[int], bool], criterion: Text, suggestion: Text, severity: Severity
) -> None:
    @node_check(
        f"roce.{name}",
        title=title,
        method=Text(
            "/{c}/*/{n}: the greater of all and of the rail's interface", "/{c}/*/{n}：取 all 与轨道网卡中的较大值"
        ).fill(c=CONF, n=name),
        criterion=criterion,
        suggestion=suggestion,
        reads=(*READS, File(f"{CONF}/*/{name}")),
        severity=severity,
        scope="roce",
    )
    def judge(facts: FactView) -> Outcome:
        found = roce_rails(facts)
        if len(found) < 2:
            raise DoesNotApply(Text("one rail only", "仅有一条轨道"))
        values = sysctl_values(facts, name, found)
        bad = [port for port, value in values.items() if not good(value)]
        observed = alike({port: str(value) for port, value in values.items()})
        return warned(f"{observed}; {named(bad)}") if bad else passed(observed)


SYSCTLS = ("rp_filter", "arp_ignore", "arp_announce")
# Oracle's playbook for RoCE sets rp_filter 2, arp_ignore 2, arp_announce 1 on its RDMA interfaces.
_sysctl(
    "rp_filter",
    Text("Reverse path filter lets several rails live", "反向路径过滤允许多轨"),
    lambda value: value != 1,
    Text("not 1 (strict): 0 or 2", "不为 1（严格模式），应为 0 或 2"),
    Text(
        "sysctl -w net.ipv4.conf.DEV.rp_filter=2: strict, the kernel drops what comes in on another rail than it would"
        " answer on",
        "sysctl -w net.ipv4.conf.DEV.rp_filter=2：严格模式会丢弃从非应答轨道进入的报文",
    ),
    Severity.MAJOR,
)
_sysctl(
    "arp_ignore",
    Text("A rail answers ARP for its own address only", "轨道仅应答自身地址的 ARP"),
    lambda value: value >= 1,
    Text("1 or more", "不小于 1"),
    Text(
        "sysctl -w net.ipv4.conf.DEV.arp_ignore=1: otherwise any rail answers for the address of any other",
        "sysctl -w net.ipv4.conf.DEV.arp_ignore=1：否则任一轨道都会应答其他轨道的地址",
    ),
    Severity.MINOR,
)
_sysctl(
    "arp_announce",
    Text("A rail asks by its own address", "轨道以自身地址发起 ARP"),
    lambda value: value >= 1,
    Text("1 or more", "不小于 1"),
    Text(
        "sysctl -w net.ipv4.conf.DEV.arp_announce=2: otherwise neighbours learn another rail's address for this one",
        "sysctl -w net.ipv4.conf.DEV.arp_announce=2：否则邻居会学到错误的轨道地址",
    ),
    Severity.MINOR,
)


# ----------------------------------------------------------------------------------------------------- QoS of the NIC


def _priorities(found: tuple[int, ...]) -> str:
    return ",".join(str(p) for p in found) or "-"


def all_qos(facts: FactView) -> dict[str, nic.Qos]:
    return answers(facts, QOS, mlx5_rails(facts), nic.qos)


def lossless(facts: FactView) -> dict[str, str]:
    return {name: _priorities(q.lossless) for name, q in all_qos(facts).items()}


@node_check(
    "roce.pfc",
    title=Text("Priority flow control is on, alike on all rails", "各轨道 PFC 已启用且一致"),
    method=Text("mlnx_qos -i DEV: PFC configuration", "mlnx_qos -i DEV：PFC configuration"),
    criterion=Text(
        "the same priorities on all rails; none, or all eight, is a warning",
        "各轨道优先级一致；全部关闭或全部启用则告警",
    ),
    suggestion=Text(
        "mlnx_qos -i DEV --pfc 0,0,0,1,0,0,0,0 with the priority that the fabric treats as lossless, and make it last",
        "mlnx_qos -i DEV --pfc 0,0,0,1,0,0,0,0（按网络的无损优先级设置）并持久化",
    ),
    reads=(*READS, QOS),
    severity=Severity.MAJOR,
    needs=("mlnx_qos",),
    scope="roce",
    tool_optional=True,
)
def pfc(facts: FactView) -> Outcome:
    values = lossless(facts)
    observed = alike({name: f"PFC {value}" for name, value in values.items()})
    if odd := uneven(values):
        return failed(f"{observed}; {named(odd)}")
    return warned(observed) if set(values.values()) & {"-", _priorities(tuple(range(8)))} else passed(observed)


@node_check(
    "roce.trust",
    title=Text("Rails sort packets by DSCP", "轨道按 DSCP 分类"),
    method=Text("mlnx_qos -i DEV: Priority trust state", "mlnx_qos -i DEV：Priority trust state"),
    criterion=Text(
        "the same on all rails; other than dscp is a warning: a routed packet carries no PCP",
        "各轨道一致；不是 dscp 则告警（三层转发的报文不带 PCP）",
    ),
    suggestion=Text("mlnx_qos -i DEV --trust dscp", "mlnx_qos -i DEV --trust dscp"),
    reads=(*READS, QOS),
    severity=Severity.MAJOR,
    needs=("mlnx_qos",),
    scope="roce",
    tool_optional=True,
)
def trust(facts: FactView) -> Outcome:
    values = {name: q.trust for name, q in all_qos(facts).items()}
    observed = alike(values)
    if odd := uneven(values):
        return failed(f"{observed}; {named(odd)}")
    return passed(observed) if set(values.values()) == {"dscp"} else warned(observed)


def traffic_classes(found: list[Port]) -> dict[str, int]:
    """Raises DoesNotApply where none is set."""
    if not any(p.said.traffic_class.strip() for p in found):
        raise DoesNotApply(Text("none is set: programs say theirs (NCCL_IB_TC)", "未设置，由程序指定（NCCL_IB_TC）"))
    return {
        p.name: parsed(nic.traffic_class, p.said.traffic_class, f"{p.name} traffic_class")
        if p.said.traffic_class
        else 0
        for p in found
    }


def _cite_classes(facts: FactView, found: list[Port]) -> None:
    facts.cite(RDMA, "\n".join(f"{p.name} {p.said.traffic_class.strip() or '-'}" for p in found))


@node_check(
    "roce.traffic_class",
    title=Text("One traffic class on all rails", "各轨道 traffic class 一致"),
    method=Text("/sys/class/infiniband/*/tc/*/traffic_class", "/sys/class/infiniband/*/tc/*/traffic_class"),
    criterion=Text("the same on all rails", "各轨道一致"),
    suggestion=Text(
        "echo N > /sys/class/infiniband/DEV/tc/1/traffic_class on every rail, at boot",
        "开机时对每条轨道执行 echo N > /sys/class/infiniband/DEV/tc/1/traffic_class",
    ),
    reads=READS,
    severity=Severity.MAJOR,
    scope="roce",
)
def one_traffic_class(facts: FactView) -> Outcome:
    found = mlx5_rails(facts)
    _cite_classes(facts, found)
    values = {name: str(value) for name, value in traffic_classes(found).items()}
    observed = alike(values)
    odd = uneven(values)
    return failed(f"{observed}; {named(odd)}") if odd else passed(observed)


DSCP_SHIFT = 2
"""The upper 6 bits of the traffic class are the DSCP (RFC 2474)."""


@node_check(
    "roce.dscp",
    title=Text("RDMA traffic takes a lossless priority", "RDMA 流量进入无损优先级"),
    method=Text(
        "traffic_class of each rail, its DSCP through dscp2prio and PFC of mlnx_qos -i DEV",
        "各轨道 traffic_class 的 DSCP，经 mlnx_qos -i DEV 的 dscp2prio 映射后与 PFC 比对",
    ),
    criterion=Text("its priority is one for which PFC is on", "映射到的优先级已启用 PFC"),
    suggestion=Text(
        "let traffic class, dscp2prio and PFC meet: tclass 106 is DSCP 26, by default priority 3",
        "使 traffic class、dscp2prio 与 PFC 对应：tclass 106 即 DSCP 26，默认映射到优先级 3",
    ),
    reads=(*READS, QOS),
    severity=Severity.MAJOR,
    needs=("mlnx_qos",),
    scope="roce",
    tool_optional=True,
)
def dscp(facts: FactView) -> Outcome:
    found = mlx5_rails(facts)
    _cite_classes(facts, found)
    classes = traffic_classes(found)
    told = all_qos(facts)
    mapped: dict[str, str] = {}
    lossy: list[str] = []
    for name, value in classes.items():
        priority_of = told[name].priority_of
        if told[name].trust != "dscp" or priority_of is None:
            raise NotKnown(
                "cause",
                Text("{p} does not sort by DSCP: see roce.trust", "{p} 未按 DSCP 分类，见 roce.trust").fill(p=name),
            )
        if not told[name].lossless:
            raise NotKnown("cause", Text("PFC is off: see roce.pfc", "PFC 未启用，见 roce.pfc"))
        priority = priority_of[value >> DSCP_SHIFT]
        mapped[name] = f"DSCP {value >> DSCP_SHIFT} → {priority}"
        if priority not in told[name].lossless:
            lossy.append(name)
    observed = alike(mapped)
    return failed(f"{observed}; {named(lossy)}") if lossy else passed(observed)


def ecn_priorities(facts: FactView, found: list[Port]) -> dict[str, str]:
    """By port, the priorities for which ECN is on at either point: ``np 0,3 rp 0,3``."""
    result: dict[str, list[str]] = {p.name: [] for p in found}
    for side, source in ECN.items():
        files = facts.glob(source.path)
        shown: list[str] = []
        for p in found:
            start = f"sys/class/net/{interface(p)}/ecn/roce_{side}/enable/"
            said = {path.removeprefix(start): text.strip() for path, text in files.items() if path.startswith(start)}
            shown.append(f"[{interface(p)}] " + " ".join(f"{priority}:{on}" for priority, on in sorted(said.items())))
            facts.cite(source, "\n".join(shown))
            if not files:
                raise DoesNotApply(Text("this driver has no switch for it", "该驱动不提供此开关"), "unsupported")
            if sorted(said) != [str(i) for i in range(8)] or not set(said.values()) <= {"0", "1"}:
                raise NotKnown(
                    "parse", Text("{p} does not tell of 8 priorities", "{p} 未给出 8 个优先级").fill(p=p.name)
                )
            result[p.name].append(f"{side} {_priorities(tuple(i for i in range(8) if said[str(i)] == '1'))}")
    return {name: " ".join(sides) for name, sides in result.items()}


@node_check(
    "roce.ecn",
    title=Text("Congestion control (ECN) is on, alike on all rails", "各轨道拥塞控制（ECN）已启用且一致"),
    method=Text("/sys/class/net/*/ecn/{roce_np,roce_rp}/enable/*", "/sys/class/net/*/ecn/{roce_np,roce_rp}/enable/*"),
    criterion=Text(
        "the same priorities on all rails; on for none, or at one of both points only, is a warning",
        "各轨道优先级一致；全部关闭，或 np 与 rp 不一致则告警",
    ),
    suggestion=Text(
        "echo 1 > /sys/class/net/DEV/ecn/roce_np/enable/PRIO, and roce_rp",
        "echo 1 > /sys/class/net/DEV/ecn/roce_np/enable/PRIO，roce_rp 同样设置",
    ),
    reads=(*READS, *ECN.values()),
    severity=Severity.MAJOR,
    scope="roce",
)
def ecn(facts: FactView) -> Outcome:
    values = ecn_priorities(facts, mlx5_rails(facts))
    observed = alike(values)
    if odd := uneven(values):
        return failed(f"{observed}; {named(odd)}")
    np, _, rp = next(iter(values.values())).removeprefix("np ").partition(" rp ")
    return passed(observed) if np == rp != "-" else warned(observed)


@node_check(
    "roce.global_pause",
    title=Text("Global pause is off where PFC is on", "启用 PFC 时全局流控已关闭"),
    method=Text("ethtool -a DEV, mlnx_qos -i DEV", "ethtool -a DEV、mlnx_qos -i DEV"),
    # IEEE 802.1Q: a port runs PFC or PAUSE, not both
    criterion=Text("RX and TX off on each rail with PFC", "启用 PFC 的轨道 RX 与 TX 均为 off"),
    suggestion=Text("ethtool -A DEV rx off tx off", "ethtool -A DEV rx off tx off"),
    reads=(*READS, QOS, PAUSE),
    severity=Severity.MINOR,
    needs=("ethtool", "mlnx_qos"),
    scope="roce",
)
def global_pause(facts: FactView) -> Outcome:
    found = mlx5_rails(facts)
    told = answers(facts, PAUSE, found, nic.pause)
    by_priority = all_qos(facts)
    both = [name for name, on in told.items() if (on.receive or on.send) and by_priority[name].lossless]
    observed = f"{len(both)} / {len(found)}"
    return warned(f"{observed}; {named(both)}") if both else passed(observed)


# -------------------------------------------------------------------------------------- what the NICs have counted


def statistics(facts: FactView, needed: tuple[str, ...]) -> dict[str, dict[str, int]]:
    """ethtool -S of the rails. Raises NotKnown when one of them lacks what its like have, or what is needed."""
    found = mlx5_rails(facts)
    told = answers(facts, STATISTICS, found, nic.statistics)
    for p in found:
        like = {name for q in found if q.like == p.like for name in told[q.name]} | set(needed)
        if lost := sorted(name for name in like - set(told[p.name]) if not name.startswith(("rx_prio", "tx_prio"))):
            raise NotKnown(
                "parse",
                Text("ethtool -S of {p} does not tell {c}", "{p} 的 ethtool -S 未给出 {c}").fill(
                    p=p.name, c=lost[0][:60]
                ),
            )
    facts.cite(
        STATISTICS,
        "\n".join(
            f"{name} " + " ".join(f"{c} {n}" for c, n in counters.items() if c in needed or (n and "pause" in c))
            for name, counters in told.items()
        ),
    )
    return told


STORM_ERROR, STORM_WARNING = "tx_pause_storm_error_events", "tx_pause_storm_warning_events"
PAUSED_SHARE = 0.01
"""Of the time since boot. No vendor names a figure; a healthy rail stands still for far less than a hundredth."""


@node_check(
    "roce.pause_frames",
    title=Text("Rails are seldom paused", "轨道很少被暂停"),
    method=Text(
        "ethtool -S DEV: {e}, {w}, (rx|tx)_prioN_pause_duration against the uptime",
        "ethtool -S DEV：{e}、{w}，以及 (rx|tx)_prioN_pause_duration 与运行时间之比",
    ).fill(e=STORM_ERROR, w=STORM_WARNING),
    criterion=Text(
        "no pause storm that the NIC had to end; a storm it warned of, or {s:g} % of the time paused, is a warning",
        "无被网卡强制终止的暂停风暴；出现风暴预警，或暂停时间达 {s:g} % 则告警",
    ).fill(s=PAUSED_SHARE * 100),
    suggestion=Text(
        "tx: this host takes packets too slowly (PCIe link, IOMMU, a hung program); rx: the fabric or a peer does",
        "tx：本机接收过慢（PCIe 链路、IOMMU、程序卡死）；rx：网络或对端过慢",
    ),
    reads=(*READS, STATISTICS, Call("host")),
    severity=Severity.MAJOR,
    action=Action.MONITOR,
    needs=("ethtool",),
    scope="roce",
)
def pause_frames(facts: FactView) -> Outcome:
    told = statistics(facts, (STORM_ERROR, STORM_WARNING))
    host = facts.call("host", Host)
    up = max(host.taken - host.boot, 1.0)
    facts.cite(Call("host"), f"up {up:.0f} s")
    storms = [f"{name} {c[STORM_ERROR]}" for name, c in told.items() if c[STORM_ERROR]]
    if storms:
        return failed(named(storms))
    mild = [f"{name} {STORM_WARNING} {c[STORM_WARNING]}" for name, c in told.items() if c[STORM_WARNING]]
    shares = {
        f"{name} {counter.removesuffix('_duration')}": micros / 1e6 / up
        for name, counters in told.items()
        for counter, micros in counters.items()
        if counter.endswith("_pause_duration")
    }
    mild += [f"{key} {share * 100:.1f} %" for key, share in shares.items() if share >= PAUSED_SHARE]
    return warned(named(mild)) if mild else passed(f"{max(shares.values(), default=0.0) * 100:.3f} %")


DISCARDS, PACKETS = "rx_discards_phy", "rx_packets_phy"
DISCARD_SHARE, DISCARDS_FEW = 1e-6, 1000


@node_check(
    "roce.discards",
    title=Text("Rails discard few packets", "轨道丢弃报文很少"),
    method=Text(
        f"ethtool -S DEV: {DISCARDS} as a share of {PACKETS}", f"ethtool -S DEV：{DISCARDS} 占 {PACKETS} 的比例"
    ),
    criterion=Text("below {s:g}; fewer than {n} do not count", "低于 {s:g}；少于 {n} 个不计").fill(
        s=DISCARD_SHARE, n=DISCARDS_FEW
    ),
    suggestion=Text(
        "the NIC had no buffer left: is PFC on for this traffic (roce.dscp), does PCIe keep up (roce.pcie_stalls)?",
        "网卡缓冲不足：检查该流量是否启用 PFC（roce.dscp）、PCIe 是否跟得上（roce.pcie_stalls）",
    ),
    reads=(*READS, STATISTICS),
    severity=Severity.MINOR,
    action=Action.MONITOR,
    needs=("ethtool",),
    scope="roce",
)
def discards(facts: FactView) -> Outcome:
    told = statistics(facts, (DISCARDS, PACKETS))
    shares = {name: c[DISCARDS] / max(c[PACKETS], 1) for name, c in told.items()}
    bad = [
        f"{name} {told[name][DISCARDS]} ({share:.1e})"
        for name, share in shares.items()
        if told[name][DISCARDS] >= DISCARDS_FEW and share >= DISCARD_SHARE
    ]
    return warned(named(bad)) if bad else passed(f"{max(shares.values()):.1e}")


STALLS = ("outbound_pci_stalled_rd", "outbound_pci_stalled_wr")
# Linux Documentation/networking/device_drivers/ethernet/mellanox/mlx5/counters.rst: per cent of the last second; the
# driver itself counts an event from 30 on.
STALLED = 30


@node_check(
    "roce.pcie_stalls",
    title=Text("PCIe takes what the rails receive", "PCIe 不阻塞网卡"),
    method=Text(f"ethtool -S DEV: {', '.join(STALLS)}", f"ethtool -S DEV：{'、'.join(STALLS)}"),
    criterion=Text("below {s} % of the last second", "最近一秒内低于 {s} %").fill(s=STALLED),
    suggestion=Text(
        "see pci.links and pci.errors; check MaxReadReq, relaxed ordering and the IOMMU (iommu=pt)",
        "见 pci.links 与 pci.errors；检查 MaxReadReq、Relaxed Ordering 与 IOMMU（iommu=pt）",
    ),
    reads=(*READS, STATISTICS),
    severity=Severity.MINOR,
    action=Action.MONITOR,
    needs=("ethtool",),
    scope="roce",
)
def pcie_stalls(facts: FactView) -> Outcome:
    told = statistics(facts, STALLS)
    bad = [f"{name} {s} {c[s]} %" for name, c in told.items() for s in STALLS if c[s] >= STALLED]
    return warned(named(bad)) if bad else passed(f"{max(c[s] for c in told.values() for s in STALLS)} %")


# ------------------------------------------------------------------------------------------------------------ wiring


def neighbours(facts: FactView, found: list[Port]) -> dict[str, list[nic.Neighbour]]:
    """The switches' ports that the rails are plugged into, as LLDP tells."""
    said = facts.command(*LLDP.argv)
    ran_well(said, LLDP.key.removeprefix("$ "))
    told = parsed(nic.neighbours, said.text, "lldpcli")
    result = {p.name: told.get(interface(p), []) for p in found}
    facts.cite(
        LLDP,
        "\n".join(
            f"{name} {', '.join(f'{n.chassis} {n.port}' for n in there) or '-'}" for name, there in result.items()
        ),
    )
    return result


@node_check(
    "roce.neighbours",
    title=Text("Every rail hears its switch", "每条轨道均可发现所连交换机"),
    method=Text("lldpcli -f json show neighbors", "lldpcli -f json show neighbors"),
    criterion=Text(
        "each rail has a neighbour, and no two rails the same port of one", "每条轨道均有邻居，且不共用同一交换机端口"
    ),
    suggestion=Text(
        "LLDP is off at the switch port, or the NIC's firmware keeps it (mlxconfig LLDP_NB_RX_MODE); or a bad cable",
        "交换机端口未开启 LLDP，或被网卡固件截获（mlxconfig LLDP_NB_RX_MODE）；再检查线缆",
    ),
    reads=(*READS, LLDP),
    severity=Severity.MINOR,
    needs=("lldpcli",),
    scope="roce",
    tool_optional=True,
)
def heard(facts: FactView) -> Outcome:
    found = neighbours(facts, roce_rails(facts))
    deaf = [name for name, there in found.items() if not there]
    ends = Counter(end for there in found.values() for end in set(there))
    shared = [name for name, there in found.items() if any(ends[end] > 1 for end in there)]
    observed = f"{len(found) - len(deaf)} / {len(found)}"
    return warned(f"{observed}; {named(deaf + shared)}") if deaf or shared else passed(observed)
