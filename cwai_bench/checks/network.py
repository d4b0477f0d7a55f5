"""Network interfaces and names."""

from __future__ import annotations

import ipaddress
from collections import defaultdict

from cwai_bench.checks import DoesNotApply, FactView, NotKnown, Outcome, failed, node_check, passed, warned
from cwai_bench.model import Action, Severity
from cwai_bench.sources import Call, File, Host, Interface, Network, Resolved, SteadyInterface, SteadyNetwork
from cwai_bench.text import Text

NETWORK = Call("network")


def physical(facts: FactView) -> list[SteadyInterface]:
    """The interfaces with a device behind them; raises DoesNotApply when there is none (a container, most often)."""
    found = [i for i in facts.call("network", SteadyNetwork).interfaces if i.physical]
    facts.cite(NETWORK, lambda: "\n".join(_line(i) for i in found))
    if not found:
        raise DoesNotApply(Text("no physical interface is seen from here", "此处看不到物理网卡"))
    return found


def _line(i: SteadyInterface) -> str:
    speed = "-" if i.speed is None else f"{i.speed / 1e9:g}Gb/s"
    return (
        f"{i.name} {i.driver} {i.model} {i.operstate} {'up' if i.admin_up else 'down'} carrier={i.carrier} {speed} "
        f"{i.duplex or '-'} mtu={i.mtu} master={i.master or '-'}"
    )


def in_use(facts: FactView) -> list[SteadyInterface]:
    """Physical interfaces that carry traffic; raises DoesNotApply when none does."""
    found = [i for i in physical(facts) if i.admin_up and i.carrier]
    if not found:
        raise DoesNotApply(
            Text("no physical interface is up: see network.link", "没有已启用的物理网卡，见 network.link")
        )
    return found


def _counted(facts: FactView) -> list[Interface]:
    """Those in use, with their counters."""
    names = {i.name for i in in_use(facts)}
    found = [i for i in facts.call("network", Network).interfaces if i.name in names]
    facts.cite(NETWORK, lambda: "\n".join(_counters_line(i) for i in found))
    return found


def _counters_line(i: Interface) -> str:
    return f"{i.name} changes={i.carrier_changes} " + " ".join(f"{k}={v}" for k, v in i.counters.items())


@node_check(
    "network.link",
    title=Text("Interfaces in use have a link", "已启用的网卡链路正常"),
    method=Text("/sys/class/net/*/flags, carrier, master", "/sys/class/net/*/flags、carrier、master"),
    criterion=Text(
        "at least one physical interface has a link, and none that is a member of a bond lacks it; another that is up"
        " without a link is a warning",
        "至少一个物理网卡有链路，且 bond 成员均有链路；其他已启用但无链路的网卡则告警",
    ),
    suggestion=Text(
        "check cable, transceiver and switch port; an interface that nobody uses: ip link set DEV down",
        "检查线缆、光模块与交换机端口；不使用的网卡可执行 ip link set DEV down",
    ),
    reads=(NETWORK,),
    severity=Severity.MAJOR,
    action=Action.ISOLATE,
)
def link(facts: FactView) -> Outcome:
    found = physical(facts)
    up = [i for i in found if i.admin_up]
    dark = [i for i in up if not i.carrier]
    observed = f"{len(up) - len(dark)} / {len(found)}"
    members = [i for i in dark if i.master]
    names = ", ".join(i.name for i in (members or dark)[:8])
    if members or len(dark) == len(up):
        return failed(f"{observed}; {names or '-'}")
    return warned(f"{observed}; {names}") if dark else passed(observed)


SLOW = 1_000_000_000


def _alike(found: list[SteadyInterface]) -> list[list[SteadyInterface]]:
    """Interfaces of the same model, whether a part of it is virtual or not."""
    groups: dict[tuple[str, str, bool], list[SteadyInterface]] = defaultdict(list)
    for i in found:
        groups[i.driver, i.model, i.virtual_function].append(i)
    return list(groups.values())


@node_check(
    "network.speed",
    title=Text("Link speed of interfaces", "网卡链路速率"),
    method=Text("/sys/class/net/*/speed of interfaces of the same model", "同型号网卡的 /sys/class/net/*/speed"),
    criterion=Text(
        "interfaces of one model run at one speed, and none below {g:g} Gb/s", "同型号网卡速率一致，且不低于 {g:g} Gb/s"
    ).fill(g=SLOW / 1e9),
    suggestion=Text(
        "a port that negotiated less: check the cable and transceiver, then the switch port's setting",
        "速率协商偏低：检查线缆与光模块，再检查交换机端口配置",
    ),
    reads=(NETWORK,),
    severity=Severity.MAJOR,
)
def speed(facts: FactView) -> Outcome:
    known = [i for i in in_use(facts) if i.speed is not None]
    if not known:
        raise DoesNotApply(Text("the drivers here know no speed (a VM)", "驱动不提供速率（虚拟机）"))
    observed = ", ".join(f"{i.name} {(i.speed or 0) / 1e9:g} Gb/s" for i in known[:16])
    uneven = [i for group in _alike(known) for i in group if i.speed != max(g.speed or 0 for g in group)]
    slow = [i for i in known if (i.speed or 0) < SLOW]
    odd = ", ".join(i.name for i in uneven + [s for s in slow if s not in uneven])
    return warned(observed, Text("look at {n}", "请检查 {n}").fill(n=odd)) if odd else passed(observed)


@node_check(
    "network.duplex",
    title=Text("Duplex of interfaces", "网卡双工模式"),
    method=Text("/sys/class/net/*/duplex", "/sys/class/net/*/duplex"),
    criterion=Text("full wherever the driver says", "驱动给出的均为 full"),
    suggestion=Text(
        "half duplex is a failed negotiation: let both ends negotiate, or set both alike",
        "半双工说明协商失败：两端均启用自协商，或设置为一致",
    ),
    reads=(NETWORK,),
    severity=Severity.MAJOR,
)
def duplex(facts: FactView) -> Outcome:
    known = [i for i in in_use(facts) if i.duplex in ("full", "half")]
    if not known:
        raise DoesNotApply(Text("the drivers here do not say", "驱动不提供双工信息"))
    half = [i.name for i in known if i.duplex == "half"]
    return failed(", ".join(half)) if half else passed(f"full × {len(known)}")


@node_check(
    "network.mtu",
    title=Text("MTU of interfaces", "网卡 MTU"),
    method=Text("/sys/class/net/*/mtu of interfaces of the same model", "同型号网卡的 /sys/class/net/*/mtu"),
    criterion=Text("interfaces of one model and speed have one MTU", "同型号同速率的网卡 MTU 一致"),
    suggestion=Text("ip link set DEV mtu N, and the same on the switch", "ip link set DEV mtu N，并与交换机保持一致"),
    reads=(NETWORK,),
    severity=Severity.MINOR,
)
def mtu(facts: FactView) -> Outcome:
    found = in_use(facts)
    observed = ", ".join(f"{i.name} {i.mtu}" for i in found[:16])
    for group in _alike(found):
        for speed_ in {i.speed for i in group}:
            values = {i.mtu for i in group if i.speed == speed_}
            if len(values) > 1:
                return warned(observed)
    return passed(observed)


ERRORS_WARN, ERRORS_FAIL, ERRORS_FEW = 1e-6, 1e-3, 10
DROPS_WARN, DROPS_FEW = 0.01, 1000


@node_check(
    "network.errors",
    title=Text("Errors of interfaces", "网卡错误计数"),
    method=Text(
        "/sys/class/net/*/statistics: errors and drops as a share of packets since boot",
        "/sys/class/net/*/statistics：启动以来错误与丢弃占报文的比例",
    ),
    criterion=Text(
        "errors below {w:g} of the packets (from {f:g} on it fails; fewer than {n} do not count), drops below {d:g}",
        "错误占比低于 {w:g}（达到 {f:g} 则不通过；少于 {n} 个不计），丢弃占比低于 {d:g}",
    ).fill(w=ERRORS_WARN, f=ERRORS_FAIL, n=ERRORS_FEW, d=DROPS_WARN),
    suggestion=Text(
        "CRC errors: cable or transceiver; missed: ring size (ethtool -g) and interrupts; see ethtool -S DEV",
        "CRC 错误：线缆或光模块；missed：环形队列（ethtool -g）与中断；详见 ethtool -S DEV",
    ),
    reads=(NETWORK,),
    severity=Severity.MAJOR,
)
def errors(facts: FactView) -> Outcome:
    found = _counted(facts)
    bad, mild, worst = [], [], (0.0, "")
    for i in found:
        c = i.counters
        packets = max(c.get("rx_packets", 0) + c.get("tx_packets", 0), 1)
        wrong = c.get("rx_errors", 0) + c.get("tx_errors", 0)
        dropped = c.get("rx_dropped", 0) + c.get("tx_dropped", 0)
        share = wrong / packets
        worst = max(worst, (share, i.name))
        text = f"{i.name}: {wrong} errors, {dropped} drops / {packets} packets"
        if wrong >= ERRORS_FEW and share >= ERRORS_FAIL:
            bad.append(text)
        elif (wrong >= ERRORS_FEW and share >= ERRORS_WARN) or (
            dropped >= DROPS_FEW and dropped / packets >= DROPS_WARN
        ):
            mild.append(text)
    if bad:
        return failed("; ".join(bad[:4]))
    return warned("; ".join(mild[:4])) if mild else passed(f"{len(found)} NIC, worst share {worst[0]:.1e}")


# azurehpc-health-checks fails above 5 in 24 h; the changes of the boot itself are forgiven.
FLAPS_PER_DAY, FLAPS_AT_BOOT = 5.0, 4


@node_check(
    "network.flaps",
    title=Text("Links do not flap", "链路无抖动"),
    method=Text("/sys/class/net/*/carrier_changes, against the uptime", "/sys/class/net/*/carrier_changes 与运行时间"),
    criterion=Text(
        "at most {f:g} losses of the link a day, {b} changes at boot forgiven",
        "每天断链不超过 {f:g} 次（启动时的 {b} 次变化不计）",
    ).fill(f=FLAPS_PER_DAY, b=FLAPS_AT_BOOT),
    suggestion=Text(
        "clean or replace cable and transceiver; look at the switch port's log",
        "清洁或更换线缆与光模块；查看交换机端口日志",
    ),
    reads=(NETWORK, Call("host")),
    severity=Severity.MAJOR,
    action=Action.MONITOR,
)
def flaps(facts: FactView) -> Outcome:
    known = [i for i in _counted(facts) if i.carrier_changes is not None]
    if not known:
        raise DoesNotApply(Text("this kernel does not count it", "内核不提供此计数"))
    host = facts.call("host", Host)
    days = max((host.taken - host.boot) / 86400, 1.0)
    # A loss and its recovery are two changes.
    rates = {i.name: max((i.carrier_changes or 0) - FLAPS_AT_BOOT, 0) / 2 / days for i in known}
    bad = {name: rate for name, rate in rates.items() if rate > FLAPS_PER_DAY}
    if bad:
        return warned(", ".join(f"{name} {rate:.1f}/d" for name, rate in sorted(bad.items())[:8]))
    return passed(f"{max(rates.values()):.1f}/d")


@node_check(
    "network.own_name",
    title=Text("The node knows its own name", "节点可解析自身主机名"),
    method=Text("getaddrinfo(3) of gethostname(2)", "对 gethostname(2) 的结果执行 getaddrinfo(3)"),
    criterion=Text(
        "it resolves to an address of this host that others can reach (only loopback, or a foreign one as well:"
        " a warning)",
        "可解析为本机地址且可被其他节点访问（仅回环地址，或同时解析到非本机地址则告警）",
    ),
    suggestion=Text(
        "add the address to DNS or /etc/hosts; MPI, torchrun and NCCL hand this name to other nodes",
        "在 DNS 或 /etc/hosts 中加入该地址；MPI、torchrun、NCCL 会把主机名告知其他节点",
    ),
    reads=(Call("resolver"),),
    severity=Severity.MAJOR,
    seen="container",
)
def own_name(facts: FactView) -> Outcome:
    found = facts.call("resolver", Resolved)
    if not found.addresses:
        return failed(f"{found.name}: {found.error or '-'}")
    odd = [a for a in found.addresses if not _is_address(a)]
    if odd:
        raise NotKnown("parse", Text("{a!r} is no address", "{a!r} 不是地址").fill(a=odd[0][:80]))
    observed = f"{found.name} → {', '.join(found.addresses[:4])}"
    far = [a for a in found.addresses if not ipaddress.ip_address(a.partition("%")[0]).is_loopback]
    if not far:
        return warned(observed, Text("only loopback: other nodes cannot use it", "仅回环地址，其他节点无法使用"))
    foreign = [a for a in far if a not in found.local]
    if not foreign:
        return passed(observed)
    detail = Text("not an address of this host: {a}", "并非本机地址：{a}").fill(a=", ".join(foreign[:4]))
    return failed(observed, detail) if foreign == far else warned(observed, detail)


# resolv.conf(5), MAXNS
NAMESERVERS_USED = 3


@node_check(
    "network.nameservers",
    title=Text("Name servers are configured", "已配置域名服务器"),
    method=Text("/etc/resolv.conf", "/etc/resolv.conf"),
    criterion=Text(
        "at least one that is an address, and no more than the {n} that are used",
        "至少一个有效地址，且不超过会被使用的 {n} 个",
    ).fill(n=NAMESERVERS_USED),
    suggestion=Text(
        "see resolvectl status, or write /etc/resolv.conf", "执行 resolvectl status，或修正 /etc/resolv.conf"
    ),
    reads=(File("etc/resolv.conf"),),
    severity=Severity.MINOR,
    seen="container",
)
def nameservers(facts: FactView) -> Outcome:
    text = facts.maybe("etc/resolv.conf")
    if text is None:
        raise DoesNotApply(
            Text(
                "there is no /etc/resolv.conf: names come from /etc/hosts only",
                "没有 /etc/resolv.conf，仅使用 /etc/hosts",
            )
        )
    named = [line.split()[1] for line in text.splitlines() if line.startswith("nameserver") and len(line.split()) > 1]
    bad = [name for name in named if not _is_address(name)]
    observed = ", ".join(named[:8]) or "-"
    if not named or bad or len(named) > NAMESERVERS_USED:
        return warned(observed)
    return passed(observed)


def _is_address(text: str) -> bool:
    try:
        ipaddress.ip_address(text.partition("%")[0])
    except ValueError:
        return False
    return True
