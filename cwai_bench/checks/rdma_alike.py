"""What RDMA ports of the nodes of one job should have in common, and what a person may demand of them."""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps

from cwai_bench.checks import DoesNotApply, FactView, NotKnown, configurable_check, consistency_check, parsed
from cwai_bench.checks.rdma import (
    DEVINFO,
    INFINIBAND,
    OFED,
    RDMA,
    READS,
    active_mtus,
    devices,
    in_use,
    named,
    ports,
    rails,
    without_link,
)
from cwai_bench.checks.rdma_counters import ERRORS, grown, watched
from cwai_bench.checks.roce import (
    CONF,
    ECN,
    LLDP,
    QOS,
    SYSCTLS,
    all_qos,
    ecn_priorities,
    lossless,
    mlx5_rails,
    neighbours,
    roce_rails,
    sysctl_values,
    traffic_classes,
    usable_gid,
    with_gids,
)
from cwai_bench.model import Severity
from cwai_bench.readers import nic
from cwai_bench.sources import File
from cwai_bench.text import Text


def folded(values: dict[str, str]) -> str:
    """``a b c: 1; d: 2``: names by value, so that a node of equal rails is one short line."""
    by_value: dict[str, list[str]] = {}
    for name, value in values.items():
        by_value.setdefault(value, []).append(name)
    return "; ".join(f"{' '.join(names)}: {value}" for value, names in by_value.items())


def of_lit_ports(value: Callable[[FactView], str]) -> Callable[[FactView], str]:
    """``value``, which tells of the ports that are up; where one lost its link that is why it differs, and is said."""

    @wraps(value)
    def asked(facts: FactView) -> str:
        told = value(facts)
        if lost := without_link(ports(facts)):
            raise NotKnown(
                "cause",
                Text("{p} has no link: see item rdma.link", "{p} 无链路，见 rdma.link").fill(
                    p=named(p.name for p in lost)
                ),
            )
        return told

    return asked


@consistency_check(
    "same.rdma.firmware",
    title=Text("Firmware of RDMA NICs", "RDMA 网卡固件"),
    method=Text(
        "/sys/class/infiniband/*/{hca_type,board_id,fw_ver}", "/sys/class/infiniband/*/{hca_type,board_id,fw_ver}"
    ),
    suggestion=Text("flash one version on all nodes: mlxfwmanager", "用 mlxfwmanager 在所有节点刷写相同版本"),
    reads=READS,
    severity=Severity.MAJOR,
    scope="rdma",
)
def firmware(facts: FactView) -> str:
    return folded({d.name: f"{d.hca_type} {d.board} {d.firmware}" for d in devices(facts)})


@consistency_check(
    "same.rdma.ports",
    title=Text("RDMA ports and their rates", "RDMA 端口与速率"),
    method=Text(
        "/sys/class/infiniband/*/ports/*/{link_layer,state,rate}",
        "/sys/class/infiniband/*/ports/*/{link_layer,state,rate}",
    ),
    suggestion=Text(
        "see rdma.link, rdma.state and rdma.rate of the odd node", "查看异常节点的 rdma.link、rdma.state、rdma.rate"
    ),
    reads=READS,
    severity=Severity.MAJOR,
    scope="rdma",
)
def rates(facts: FactView) -> str:
    return folded({p.name: f"{p.said.link_layer} {p.said.state} {p.said.rate}" for p in ports(facts)})


@consistency_check(
    "same.rdma.pkeys",
    title=Text("P_Keys of InfiniBand ports", "InfiniBand 端口的 P_Key"),
    method=Text("/sys/class/infiniband/*/ports/*/pkeys/*", "/sys/class/infiniband/*/ports/*/pkeys/*"),
    suggestion=Text(
        "put all nodes of the job into one partition of the subnet manager", "在子网管理器中将作业节点置于同一分区"
    ),
    reads=READS,
    severity=Severity.MAJOR,
    scope="rdma",
)
@of_lit_ports
def pkeys(facts: FactView) -> str:
    found = {p.name: p.said.pkeys for p in in_use(facts, INFINIBAND)}
    values = {name: " ".join(f"{i}:0x{key:04x}" for i, key in keys.items()) or "-" for name, keys in found.items()}
    facts.cite(RDMA, folded(values))
    return folded(values)


@consistency_check(
    "same.rdma.mtu",
    title=Text("Active MTU of RDMA ports", "RDMA 端口的有效 MTU"),
    method=Text("ibv_devinfo: active_mtu", "ibv_devinfo：active_mtu"),
    suggestion=Text("see rdma.mtu and roce.mtu of the odd node", "查看异常节点的 rdma.mtu 与 roce.mtu"),
    reads=(*READS, DEVINFO),
    severity=Severity.MINOR,
    needs=("ibv_devinfo",),
    scope="rdma",
)
@of_lit_ports
def mtu(facts: FactView) -> str:
    told = active_mtus(facts, [p for p in rails(facts) if p.up])
    return folded({name: str(value) for name, value in told.items()})


@consistency_check(
    "same.ofed",
    title=Text("OFED", "OFED 版本"),
    method=Text("ofed_info -s", "ofed_info -s"),
    suggestion=Text("install one OFED on all nodes", "为所有节点安装相同的 OFED"),
    reads=(*READS, OFED),
    severity=Severity.MAJOR,
    needs=("ofed_info",),
    scope="rdma",
)
def ofed(facts: FactView) -> str:
    devices(facts)
    return parsed(nic.ofed, facts.command(*OFED.argv).text, "ofed_info -s")


@consistency_check(
    "same.roce.gid_index",
    title=Text("Index of the RoCE v2 GID", "RoCE v2 GID 索引"),
    method=Text(
        "/sys/class/infiniband/*/ports/*/gids and gid_attrs/types: the first of RoCE v2 with an address",
        "/sys/class/infiniband/*/ports/*/gids 与 gid_attrs/types：首个带地址的 RoCE v2 GID",
    ),
    suggestion=Text(
        "one NCCL_IB_GID_INDEX serves all nodes only when it is the same everywhere: configure addresses alike",
        "索引一致时才能统一设置 NCCL_IB_GID_INDEX：各节点地址配置方式应相同",
    ),
    reads=READS,
    severity=Severity.MAJOR,
    scope="roce",
)
@of_lit_ports
def gid_index(facts: FactView) -> str:
    return folded({name: str(g.index) if (g := usable_gid(p)) else "-" for name, p in with_gids(facts).items()})


@consistency_check(
    "same.roce.pfc",
    title=Text("Priorities with PFC", "启用 PFC 的优先级"),
    method=Text("mlnx_qos -i DEV: PFC configuration", "mlnx_qos -i DEV：PFC configuration"),
    suggestion=Text("see roce.pfc", "见 roce.pfc"),
    reads=(*READS, QOS),
    severity=Severity.MAJOR,
    needs=("mlnx_qos",),
    scope="roce",
)
@of_lit_ports
def pfc(facts: FactView) -> str:
    return folded(lossless(facts))


@consistency_check(
    "same.roce.trust",
    title=Text("Trust state of rails", "轨道的 trust 模式"),
    method=Text("mlnx_qos -i DEV: Priority trust state", "mlnx_qos -i DEV：Priority trust state"),
    suggestion=Text("see roce.trust", "见 roce.trust"),
    reads=(*READS, QOS),
    severity=Severity.MAJOR,
    needs=("mlnx_qos",),
    scope="roce",
)
@of_lit_ports
def trust(facts: FactView) -> str:
    return folded({name: q.trust for name, q in all_qos(facts).items()})


@consistency_check(
    "same.roce.dscp",
    title=Text("Map from DSCP to priority", "DSCP 到优先级的映射"),
    method=Text("mlnx_qos -i DEV: dscp2prio mapping", "mlnx_qos -i DEV：dscp2prio mapping"),
    suggestion=Text(
        "mlnx_qos -i DEV --dscp2prio set,DSCP,PRIO alike on all nodes",
        "统一执行 mlnx_qos -i DEV --dscp2prio set,DSCP,PRIO",
    ),
    reads=(*READS, QOS),
    severity=Severity.MAJOR,
    needs=("mlnx_qos",),
    scope="roce",
)
@of_lit_ports
def dscp(facts: FactView) -> str:
    def in_ranges(priority_of: dict[int, int] | None) -> str:
        """``0-7→0 8-15→1 …``"""
        if priority_of is None:
            return "-"
        starts = [d for d in range(64) if d == 0 or priority_of[d] != priority_of[d - 1]]
        return " ".join(f"{a}-{b - 1}→{priority_of[a]}" for a, b in zip(starts, [*starts[1:], 64], strict=True))

    return folded({name: in_ranges(q.priority_of) for name, q in all_qos(facts).items()})


@consistency_check(
    "same.roce.ecn",
    title=Text("Congestion control (ECN)", "拥塞控制（ECN）"),
    method=Text("/sys/class/net/*/ecn/{roce_np,roce_rp}/enable/*", "/sys/class/net/*/ecn/{roce_np,roce_rp}/enable/*"),
    suggestion=Text("see roce.ecn", "见 roce.ecn"),
    reads=(*READS, *ECN.values()),
    severity=Severity.MAJOR,
    scope="roce",
)
@of_lit_ports
def ecn(facts: FactView) -> str:
    return folded(ecn_priorities(facts, mlx5_rails(facts)))


@consistency_check(
    "same.roce.traffic_class",
    title=Text("Traffic class of rails", "轨道的 traffic class"),
    method=Text("/sys/class/infiniband/*/tc/*/traffic_class", "/sys/class/infiniband/*/tc/*/traffic_class"),
    suggestion=Text("see roce.traffic_class", "见 roce.traffic_class"),
    reads=READS,
    severity=Severity.MAJOR,
    scope="roce",
)
@of_lit_ports
def traffic_class(facts: FactView) -> str:
    value = folded({name: str(value) for name, value in traffic_classes(mlx5_rails(facts)).items()})
    facts.cite(RDMA, value)
    return value


@consistency_check(
    "same.roce.sysctl",
    title=Text("rp_filter and ARP settings of rails", "轨道的 rp_filter 与 ARP 设置"),
    method=Text(f"/{CONF}/*/: {', '.join(SYSCTLS)}", f"/{CONF}/*/：{'、'.join(SYSCTLS)}"),
    suggestion=Text("distribute one file in /etc/sysctl.d", "统一分发 /etc/sysctl.d 下的文件"),
    reads=(*READS, *(File(f"{CONF}/*/{name}") for name in SYSCTLS)),
    severity=Severity.MINOR,
    scope="roce",
)
@of_lit_ports
def sysctl(facts: FactView) -> str:
    found = roce_rails(facts)
    values = {name: sysctl_values(facts, name, found) for name in SYSCTLS}
    return folded({p.name: " ".join(f"{name} {values[name][p.name]}" for name in SYSCTLS) for p in found})


@consistency_check(
    "same.roce.wiring",
    title=Text("Which leaf each rail is plugged into", "各轨道所连的叶交换机"),
    method=Text(
        "lldpcli -f json show neighbors: chassis of each rail", "lldpcli -f json show neighbors：各轨道的 chassis"
    ),
    suggestion=Text(
        "in one pod rail i of every node belongs on the same leaf: cables are swapped, or nodes of two pods compared",
        "同一 pod 内各节点的第 i 轨应接同一叶交换机：线缆接反，或比较了不同 pod 的节点",
    ),
    reads=(*READS, LLDP),
    severity=Severity.MAJOR,
    needs=("lldpcli",),
    scope="roce",
)
@of_lit_ports
def wiring(facts: FactView) -> str:
    found = neighbours(facts, roce_rails(facts))
    if not any(found.values()):
        raise DoesNotApply(
            Text("no rail hears a switch: see roce.neighbours", "轨道均未发现交换机，见 roce.neighbours")
        )
    return "; ".join(
        f"{name}: {' + '.join(sorted({n.chassis for n in there})) or '-'}" for name, there in found.items()
    )


@configurable_check(
    "rdma.port_rate",
    title=Text("Rate of RDMA ports", "RDMA 端口速率"),
    method=Text(
        "/sys/class/infiniband/*/ports/*/rate of active ports (where.name picks them)",
        "ACTIVE 端口的 /sys/class/infiniband/*/ports/*/rate（where.name 可限定）",
    ),
    suggestion=Text("check cable, transceiver and the switch port's setting", "检查线缆、光模块与交换机端口配置"),
    reads=READS,
    unit="bit/s",
    severity=Severity.CRITICAL,
    scope="rdma",
)
def port_rate(facts: FactView) -> dict[str, float]:
    return {p.name: p.rate.bits for p in in_use(facts)}


@configurable_check(
    "rdma.error_growth",
    title=Text("Growth of RDMA error counters", "RDMA 错误计数增长"),
    method=Text(
        "errors of each port within a second: {c} (where.name picks ports)",
        "各端口每秒新增错误：{c}（where.name 可限定）",
    ).fill(c=", ".join(ERRORS)),
    suggestion=Text("see rdma.errors, rdma.drops, rdma.retries", "见 rdma.errors、rdma.drops、rdma.retries"),
    reads=READS,
    unit="1",
    scope="rdma",
)
def error_growth(facts: FactView) -> dict[str, float]:
    found = in_use(facts)
    watch = watched(facts)
    seen = grown(watch, found, ERRORS)
    if not seen.told:
        raise NotKnown("unsupported", Text("the drivers here count none of these", "驱动不提供这些计数器"))
    return {p.name: sum(n for (port, _), n in seen.grew.items() if port == p.name) / watch.looked for p in found}


@configurable_check(
    "rdma.firmware_version",
    title=Text("Firmware of RDMA NICs", "RDMA 网卡固件版本"),
    method=Text(
        "/sys/class/infiniband/*/fw_ver (where.name picks devices)",
        "/sys/class/infiniband/*/fw_ver（where.name 可限定）",
    ),
    suggestion=Text("flash the version that was asked for: mlxfwmanager", "用 mlxfwmanager 刷写所要求的版本"),
    reads=READS,
    unit="text",
    scope="rdma",
)
def firmware_version(facts: FactView) -> dict[str, str]:
    return {d.name: d.firmware for d in devices(facts)}
