"""The RoCE ports of Ascend NPUs: addresses, links, optics and counters, as hccn_tool tells them.

A port belongs to a chip; hccn_tool numbers them as /dev/davinci* are numbered. Where no port has an address or a link,
RoCE is not in use on the node: ``ascend.roce.ip`` says so, and the others do not apply.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from ipaddress import IPv4Interface, IPv6Interface, ip_address
from typing import TypeVar

from cwai_bench.checks import (
    DoesNotApply,
    FactView,
    NotKnown,
    Outcome,
    configurable_check,
    consistency_check,
    node_check,
    warned,
)
from cwai_bench.checks.ascend import (
    DEVICES,
    NPUS,
    answers,
    by_card,
    chips,
    judged,
    known,
    of_all_cards,
    training,
    worst_first,
)
from cwai_bench.model import Action, Reading, Severity, Status
from cwai_bench.readers import Unreadable, ascend
from cwai_bench.sources import Each
from cwai_bench.text import Text, plain

T = TypeVar("T")


def _hccn(*words: str) -> Each:
    return Each("hccn_tool", "-i", "{}", *words, over=DEVICES)


LINK = _hccn("-link", "-g")
NET_HEALTH = _hccn("-net_health", "-g")
IP = _hccn("-ip", "-g")
GATEWAY = _hccn("-gateway", "-g")
NET_DETECT = _hccn("-netdetect", "-g")
TLS = _hccn("-tls", "-g")
FEC = _hccn("-fec", "-g")
SPEED = _hccn("-speed", "-g")
DUPLEX = _hccn("-duplex", "-g")
MTU = _hccn("-mtu", "-g")
MAC = _hccn("-mac", "-g")
LLDP = _hccn("-lldp", "-g")
LINK_STAT = _hccn("-link_stat", "-g")
STATISTICS = _hccn("-stat", "-g")
OPTICAL = _hccn("-optical", "-g")
TRANSMITTER = _hccn("-optical", "-g", "dfx_cfg")
# Mode 5 of -scdr reads the SNR; the other modes are never asked.
CDR_SNR = _hccn("-scdr", "-t", "5")

COMMON = (*NPUS, LINK, IP)
"""What tells whether RoCE is in use, and which links are up."""
NOT_IN_USE = Text(
    "no port of an NPU has an address or a link: RoCE is not in use here",
    "所有 NPU 网口均未配置地址且无链路：本机未使用 RoCE",
)
SEE_LINK = Text("the link of {n} is down: see ascend.roce.link", "{n} 链路断开：见 ascend.roce.link")


def method(each: Each) -> Text:
    words = each.key.removeprefix("$ ").replace("{}", "N")
    return plain(words)


def devices(facts: FactView) -> dict[str, int]:
    """The ports, by the name that verdicts use, with their numbers in /dev."""
    return {f"port {n}": n for n in sorted(c.device for c in chips(facts))}


def ask(
    facts: FactView, each: Each, reader: Callable[[str], T], only: set[str] | None = None, *, unset: bool = False
) -> dict[str, T]:
    """The answer of each port (of ``only`` these), by its name; of all ports that the driver knows.

    ``unset``: a refusal may say that nothing was set, and the reader knows how that is put.
    """
    readings = by_card(facts, each)
    found: dict[str, Reading] = {}
    for name, device in devices(facts).items():
        if only is not None and name not in only:
            continue
        if str(device) not in readings:
            raise NotKnown("missing_source", Text("{n} was not asked", "未查询 {n}").fill(n=name))
        found[name] = readings[str(device)]
    nothing = dict(_unset(found, reader)) if unset else {}
    rest = {name: reading for name, reading in found.items() if name not in nothing}
    told = answers(rest, reader, method(each).en) | nothing
    return {name: told[name] for name in found}


def _unset(found: Mapping[str, Reading], reader: Callable[[str], T]) -> Iterator[tuple[str, T]]:
    for name, reading in found.items():
        if reading.exit_code not in (0, None):
            with suppress(Unreadable):
                yield name, reader(f"{reading.text}\n{reading.detail}\n")


def ports(facts: FactView) -> dict[str, bool]:
    """Whether the link of each port is up. Raises DoesNotApply where RoCE is not in use."""
    training(facts)
    links = ask(facts, LINK, ascend.link)
    addresses = ask(facts, IP, ascend.network, unset=True)
    if not any(links.values()) and not any(addresses.values()):
        raise DoesNotApply(NOT_IN_USE)
    return links


def with_a_link(facts: FactView) -> set[str]:
    """The ports whose link is up."""
    up = {name for name, state in ports(facts).items() if state}
    if not up:
        raise NotKnown("cause", SEE_LINK.fill(n=Text("every port", "所有网口")))
    return up


def of_live_ports(
    facts: FactView,
    each: Each,
    reader: Callable[[str], T | None],
    what: Text,
    bad: Callable[[T], str],
    mild: Callable[[T], str] = lambda _: "",
) -> Outcome:
    """Judge the ports that have a link. A port without one is the business of ascend.roce.link, and no PASS."""
    up = with_a_link(facts)
    outcome = judged(known(ask(facts, each, reader, up), what), bad, mild)
    return unless_down(facts, outcome)


def unless_down(facts: FactView, outcome: Outcome) -> Outcome:
    """``outcome``; a PASS only when no link is down. Raises NotKnown(cause) otherwise."""
    down = [name for name, state in ports(facts).items() if not state]
    if down and outcome.status is Status.PASS:
        raise NotKnown("cause", SEE_LINK.fill(n=", ".join(down[:8])))
    return outcome


def alike(found: Mapping[str, object], unit: str = "") -> Outcome:
    """FAIL naming the ports that are not as most are."""
    counts = Counter(found.values())
    usual, _ = counts.most_common(1)[0]
    outcome = judged(found, lambda v: "" if v == usual else f"{v}{unit}", good=f"{usual}{unit} × {len(found)}")
    if outcome.status is Status.PASS:
        return outcome
    return Outcome(outcome.status, outcome.observed, expected=plain(f"{usual}{unit}"))


# ----------------------------------------------------------------------------------------------------------- addresses


@node_check(
    "ascend.roce.ip",
    title=Text("NPU ports have addresses of their own", "NPU 网口地址已配置且唯一"),
    method=method(IP),
    criterion=Text(
        "set on every port and no two alike; on none: a warning (RoCE is not in use)",
        "每个网口均已配置且互不相同；全部未配置则告警（未使用 RoCE）",
    ),
    suggestion=Text(
        "hccn_tool -i N -ip -s address A netmask M; keep it in /etc/hccn.conf",
        "hccn_tool -i N -ip -s address A netmask M，并写入 /etc/hccn.conf",
    ),
    reads=(*NPUS, IP),
    severity=Severity.CRITICAL,
    scope="ascend",
)
@of_all_cards
def address(facts: FactView) -> Outcome:
    training(facts)
    found = ask(facts, IP, ascend.network, unset=True)
    if not any(found.values()):
        return warned("-", NOT_IN_USE)
    twice = {ip for ip, n in Counter(i.ip for i in found.values() if i is not None).items() if n > 1}
    return judged(found, lambda i: "no address" if i is None else f"{i.ip} not unique" if i.ip in twice else "")


@node_check(
    "ascend.roce.mac",
    title=Text("NPU ports have MAC addresses of their own", "NPU 网口 MAC 地址唯一"),
    method=method(MAC),
    criterion=Text("no two alike, none zero", "互不相同，且非全零"),
    suggestion=Text(
        "a MAC set by hand was copied: remove mac_addr_N from /etc/hccn.conf, reboot",
        "手工设置的 MAC 重复：从 /etc/hccn.conf 删除 mac_addr_N 并重启",
    ),
    reads=(*COMMON, MAC),
    severity=Severity.MAJOR,
    scope="ascend",
)
@of_all_cards
def mac(facts: FactView) -> Outcome:
    ports(facts)
    found = ask(facts, MAC, ascend.mac)
    twice = {m for m, n in Counter(found.values()).items() if n > 1}
    return judged(found, lambda m: m if m in twice or not m.strip("0:") else "")


@node_check(
    "ascend.roce.gateway",
    title=Text("NPU ports have a gateway within reach", "NPU 网口网关已配置且可达"),
    method=method(GATEWAY),
    criterion=Text(
        "set, within the port's own net, and not the port itself; none: a warning",
        "已配置，位于本网口网段内，且不是网口自身地址；未配置则告警",
    ),
    suggestion=Text(
        "hccn_tool -i N -gateway -s gateway G; without one, ports of other nets are not reached",
        "hccn_tool -i N -gateway -s gateway G；未配置网关则无法到达其他网段的网口",
    ),
    reads=(*COMMON, GATEWAY),
    severity=Severity.MAJOR,
    scope="ascend",
)
@of_all_cards
def gateway(facts: FactView) -> Outcome:
    ports(facts)
    own = ask(facts, IP, ascend.network, unset=True)
    found = ask(facts, GATEWAY, ascend.gateway, unset=True)
    pairs = {name: (own[name], gate) for name, gate in found.items() if own[name] is not None}

    def astray(pair: tuple[object, str | None]) -> str:
        port, gate = pair
        if gate is None or not isinstance(port, IPv4Interface | IPv6Interface):
            return ""
        at = ip_address(gate)
        return f"{gate} not in {port.network}" if at not in port.network or at == port.ip else ""

    outcome = judged(pairs, astray, lambda pair: "no gateway" if pair[1] is None else "")
    if outcome.status is Status.PASS and len(pairs) < len(found):
        raise NotKnown("cause", Text("ports lack an address: see ascend.roce.ip", "网口缺少地址：见 ascend.roce.ip"))
    return outcome


@node_check(
    "ascend.roce.detect",
    title=Text("NPU ports watch their gateway", "NPU 网口已配置侦测地址"),
    method=method(NET_DETECT),
    criterion=Text("set on every port; else a warning", "每个网口均已配置；否则告警"),
    suggestion=Text(
        "hccn_tool -i N -netdetect -s address G (the gateway): without it the net's health is never measured",
        "hccn_tool -i N -netdetect -s address G（网关地址）；未配置则无法侦测网络健康状态",
    ),
    reads=(*COMMON, NET_DETECT),
    severity=Severity.MINOR,
    scope="ascend",
)
@of_all_cards
def detect(facts: FactView) -> Outcome:
    ports(facts)
    found = ask(facts, NET_DETECT, ascend.net_detect)
    return judged(found, lambda _: "", lambda a: "not set" if a is None else "")


@node_check(
    "ascend.roce.health",
    title=Text("RoCE net health of the NPUs", "NPU RoCE 网络健康状态"),
    method=method(NET_HEALTH),
    criterion=Text("Success on every port; Init is a warning", "每个网口均为 Success；Init 则告警"),
    suggestion=Text(
        "the address to detect does not answer: check address, gateway and VLAN, then the switch port",
        "侦测地址无响应：检查地址、网关与 VLAN，再检查交换机端口",
    ),
    reads=(*COMMON, NET_DETECT, NET_HEALTH),
    severity=Severity.CRITICAL,
    scope="ascend",
)
@of_all_cards
def health(facts: FactView) -> Outcome:
    up = with_a_link(facts)
    watched = {name for name, a in ask(facts, NET_DETECT, ascend.net_detect, up).items() if a is not None}
    if not watched:
        raise NotKnown(
            "cause", Text("nothing is detected: see ascend.roce.detect", "未配置侦测地址：见 ascend.roce.detect")
        )
    waiting = ("init", "detect ip set")
    outcome = judged(
        ask(facts, NET_HEALTH, ascend.net_health, watched),
        lambda s: "" if s.lower() == "success" or s.lower() in waiting else s,
        lambda s: s if s.lower() in waiting else "",
    )
    if outcome.status is Status.PASS and len(watched) < len(up):
        raise NotKnown(
            "cause",
            Text("ports detect nothing: see ascend.roce.detect", "部分网口未配置侦测地址：见 ascend.roce.detect"),
        )
    return unless_down(facts, outcome)


# --------------------------------------------------------------------------------------------------------------- links


@node_check(
    "ascend.roce.link",
    title=Text("RoCE links of the NPUs are up", "NPU RoCE 链路均已连接"),
    method=method(LINK),
    criterion=Text("UP on every port", "每个网口均为 UP"),
    suggestion=Text(
        "see ascend.optical.* of that port; re-seat the module and fibre, then look at the switch port's log",
        "查看该网口的 ascend.optical.* 各项；重新插拔光模块与光纤，再查看交换机端口日志",
    ),
    reads=COMMON,
    severity=Severity.CRITICAL,
    action=Action.ISOLATE,
    scope="ascend",
)
@of_all_cards
def link(facts: FactView) -> Outcome:
    return judged(ports(facts), lambda up: "" if up else "DOWN")


# MindCluster's diagnosis calls a loss of the link long from 28 s on, when HCCL's retries run out; a count of our own.
FLAP_WINDOW, FLAPS_WARN, LONG_DOWN = 24 * 3600.0, 3, 28.0


def _downs(stat: ascend.LinkStat) -> list[tuple[float, float]]:
    """Losses of the link within the window: how long ago, and for how long."""
    found: list[tuple[float, float]] = []
    until = 0.0
    for record in stat.records:
        if record.up:
            until = record.since
        elif record.since <= FLAP_WINDOW:
            found.append((record.since, record.since - until))
    return found


@node_check(
    "ascend.roce.flaps",
    title=Text("RoCE links of the NPUs do not flap", "NPU RoCE 链路无闪断"),
    method=method(LINK_STAT),
    criterion=Text(
        "in the last {h:g} h fewer than {n} losses of the link, and none of {s:g} s or more; else a warning",
        "最近 {h:g} 小时断链少于 {n} 次，且单次不足 {s:g} 秒；否则告警",
    ).fill(h=FLAP_WINDOW / 3600, n=FLAPS_WARN, s=LONG_DOWN),
    suggestion=Text(
        "clean or replace module and fibre; collect the switch port's log of that time",
        "清洁或更换光模块与光纤；收集对应时段的交换机端口日志",
    ),
    reads=(*COMMON, LINK_STAT),
    severity=Severity.MAJOR,
    action=Action.MONITOR,
    scope="ascend",
)
@of_all_cards
def flaps(facts: FactView) -> Outcome:
    def often(stat: ascend.LinkStat) -> str:
        downs = _downs(stat)
        longest = max((length for _, length in downs), default=0.0)
        if len(downs) < FLAPS_WARN and longest < LONG_DOWN:
            return ""
        return f"{len(downs)} down, longest {longest:g} s"

    return of_live_ports(facts, LINK_STAT, ascend.link_stat, Text("its history", "链路历史"), lambda _: "", often)


@node_check(
    "ascend.roce.speed",
    title=Text("RoCE ports of the NPUs run at one speed", "NPU RoCE 网口速率一致"),
    method=method(SPEED),
    criterion=Text("told, and the same on all ports of the node", "速率已知且节点内各网口一致"),
    suggestion=Text("compare with the switch port's setting; replace the module", "核对交换机端口配置；更换光模块"),
    reads=(*COMMON, SPEED),
    severity=Severity.MAJOR,
    scope="ascend",
)
@of_all_cards
def speed(facts: FactView) -> Outcome:
    told = known(ask(facts, SPEED, ascend.speed, with_a_link(facts)), Text("the speed", "速率"))
    return unless_down(facts, alike({name: f"{s / 1e9:g}" for name, s in told.items()}, " Gb/s"))


@node_check(
    "ascend.roce.duplex",
    title=Text("RoCE ports of the NPUs are full duplex", "NPU RoCE 网口为全双工"),
    method=method(DUPLEX),
    criterion=Text("full on every port", "每个网口均为 full"),
    suggestion=Text(
        "set the switch port to full duplex, or both ends to negotiate", "将交换机端口设为全双工，或两端自协商"
    ),
    reads=(*COMMON, DUPLEX),
    severity=Severity.MAJOR,
    scope="ascend",
)
@of_all_cards
def duplex(facts: FactView) -> Outcome:
    what = Text("the duplex mode", "双工模式")
    return of_live_ports(facts, DUPLEX, ascend.duplex, what, lambda d: "" if d == "full" else d)


@node_check(
    "ascend.roce.mtu",
    title=Text("RoCE ports of the NPUs have one MTU", "NPU RoCE 网口 MTU 一致"),
    method=method(MTU),
    criterion=Text("the same on all ports of the node", "节点内各网口一致"),
    suggestion=Text(
        "hccn_tool -i N -mtu -s size M, and the same on the switch", "hccn_tool -i N -mtu -s size M，并与交换机一致"
    ),
    reads=(*COMMON, MTU),
    severity=Severity.MAJOR,
    scope="ascend",
)
@of_all_cards
def mtu(facts: FactView) -> Outcome:
    ports(facts)
    return alike(ask(facts, MTU, ascend.mtu))


@node_check(
    "ascend.roce.tls",
    title=Text("TLS switch of the NPU ports", "NPU 网口 TLS 开关一致"),
    method=method(TLS),
    criterion=Text("the same on all ports of the node", "节点内各网口一致"),
    suggestion=Text(
        "HCCL connects only ports whose switches agree: hccn_tool -i N -tls -s enable 0 (or 1) on all",
        "TLS 开关不一致时 HCCL 无法建链：对所有网口执行 hccn_tool -i N -tls -s enable 0（或 1）",
    ),
    reads=(*COMMON, TLS),
    severity=Severity.CRITICAL,
    scope="ascend",
)
@of_all_cards
def tls(facts: FactView) -> Outcome:
    ports(facts)
    return alike({name: "on" if on else "off" for name, on in ask(facts, TLS, ascend.tls).items()})


@node_check(
    "ascend.roce.fec",
    title=Text("Error correction of the NPU ports (FEC)", "NPU 网口前向纠错（FEC）"),
    method=method(FEC),
    # Four lanes of 50 Gb/s PAM4 are not readable without it (IEEE 802.3, clause 91 and 119).
    criterion=Text("rs on every port; auto is a warning", "每个网口均为 rs；auto 则告警"),
    suggestion=Text(
        "hccn_tool -i N -fec -s encoding rs, and the same on the switch",
        "hccn_tool -i N -fec -s encoding rs，并与交换机一致",
    ),
    reads=(*COMMON, FEC),
    severity=Severity.MAJOR,
    scope="ascend",
)
@of_all_cards
def fec(facts: FactView) -> Outcome:
    ports(facts)
    found = ask(facts, FEC, ascend.fec)
    return judged(found, lambda f: "" if f in ("rs", "auto") else f, lambda f: f if f == "auto" else "")


@node_check(
    "ascend.roce.peer",
    title=Text("NPU ports hear their switch (LLDP)", "NPU 网口可识别对端交换机（LLDP）"),
    method=method(LLDP),
    criterion=Text(
        "every port names its peer's port, no two ports the same one; silence is a warning",
        "每个网口均可识别对端端口且互不相同；无信息则告警",
    ),
    suggestion=Text(
        "enable LLDP on the switch port; two ports with one peer: look for a loop or a wrong splitter",
        "在交换机端口启用 LLDP；两个网口对端相同则检查环路或分光接线",
    ),
    reads=(*COMMON, LLDP),
    severity=Severity.MINOR,
    scope="ascend",
)
@of_all_cards
def peer(facts: FactView) -> Outcome:
    found = ask(facts, LLDP, ascend.lldp, with_a_link(facts))
    # A system without a name cannot be told from another: then its ports' names say nothing.
    twice = {p for p, n in Counter(found.values()).items() if n > 1 and p is not None and p.system}
    outcome = judged(
        found,
        lambda p: f"{p.system} {p.port} not unique" if p is not None and p in twice else "",
        lambda p: "silent" if p is None else "",
    )
    return unless_down(facts, outcome)


# -------------------------------------------------------------------------------------------------------------- optics


def modules(facts: FactView) -> dict[str, ascend.Optical]:
    """The modules that are present. Raises NotKnown(cause) when none is."""
    ports(facts)
    found = {name: o for name, o in ask(facts, OPTICAL, ascend.optical).items() if o.present}
    if not found:
        raise NotKnown("cause", SEE_OPTICAL)
    return found


SEE_OPTICAL = Text("modules are missing: see ascend.optical.present", "光模块缺失：见 ascend.optical.present")


def of_modules(
    facts: FactView,
    what: Text,
    value: Callable[[ascend.Optical], T | None],
    bad: Callable[[T], str],
    mild: Callable[[T], str] = lambda _: "",
) -> Outcome:
    """Judge a value of each module. A port without a module is the business of ascend.optical.present, and no PASS."""
    found = modules(facts)
    outcome = judged(known({name: value(o) for name, o in found.items()}, what), bad, mild)
    if outcome.status is Status.PASS and len(found) < len(ports(facts)):
        raise NotKnown("cause", SEE_OPTICAL)
    return worst_first(facts, OPTICAL, outcome, devices(facts))


OPTICS = (*COMMON, OPTICAL)
RESEAT = Text(
    "clean the fibre's end and re-seat the module; swap it with a neighbour's to see which end follows; replace it",
    "清洁光纤端面并重新插拔光模块；与相邻网口对调以判断故障端；更换光模块",
)


@node_check(
    "ascend.optical.present",
    title=Text("NPU ports have their optical modules", "NPU 网口光模块在位"),
    method=method(OPTICAL),
    criterion=Text(
        "present in every port; not enabled for high power is a warning", "每个网口均在位；未使能高功率则告警"
    ),
    suggestion=Text(
        "plug the module in, re-seat it; see whether the cage takes another", "插入或重新插拔光模块；更换光模块验证端口"
    ),
    reads=OPTICS,
    severity=Severity.CRITICAL,
    action=Action.CONTACT_VENDOR,
    scope="ascend",
)
@of_all_cards
def present(facts: FactView) -> Outcome:
    ports(facts)
    return judged(
        ask(facts, OPTICAL, ascend.optical),
        lambda o: "" if o.present else "no module",
        lambda o: "low power" if o.high_power is False else "",
    )


def _outside(values: list[float], limits: tuple[float, float], unit: str) -> str:
    low, high = limits
    return " ".join(f"lane {i} {v:g} {unit}" for i, v in enumerate(values) if not low <= v <= high)[:80]


def _power(rows: tuple[list[float], tuple[float, float]]) -> str:
    said = _outside(*rows, "mW")
    return f"{said} ({rows[1][0]:g} to {rows[1][1]:g})" if said else ""


def _lanes(values: list[float], limits: tuple[float, float] | None) -> tuple[list[float], tuple[float, float]] | None:
    return None if limits is None or not values else (values, limits)


@node_check(
    "ascend.optical.tx_power",
    title=Text("Transmit power of the optical modules", "光模块发送光功率"),
    method=Text("Tx Power of hccn_tool -i N -optical -g", "hccn_tool -i N -optical -g 的 Tx Power"),
    criterion=Text("every lane within the module's own thresholds", "每个通道均在模块自身门限内"),
    suggestion=Text(
        "the laser ages or is off: re-seat, then replace the module", "激光器老化或关闭：重新插拔后更换光模块"
    ),
    reads=OPTICS,
    severity=Severity.MAJOR,
    action=Action.CONTACT_VENDOR,
    scope="ascend",
)
@of_all_cards
def tx_power(facts: FactView) -> Outcome:
    return of_modules(facts, Text("the transmit power", "发送光功率"), lambda o: _lanes(o.tx, o.tx_limits), _power)


@node_check(
    "ascend.optical.rx_power",
    title=Text("Receive power of the optical modules", "光模块接收光功率"),
    method=Text("Rx Power of hccn_tool -i N -optical -g", "hccn_tool -i N -optical -g 的 Rx Power"),
    criterion=Text("every lane within the module's own thresholds", "每个通道均在模块自身门限内"),
    suggestion=RESEAT,
    reads=OPTICS,
    severity=Severity.MAJOR,
    action=Action.CONTACT_VENDOR,
    scope="ascend",
)
@of_all_cards
def rx_power(facts: FactView) -> Outcome:
    return of_modules(facts, Text("the receive power", "接收光功率"), lambda o: _lanes(o.rx, o.rx_limits), _power)


# The tool prints no thresholds of the bias. A laser without current is off; lanes of one module are driven alike.
BIAS_SPREAD = 2.0


@node_check(
    "ascend.optical.bias",
    title=Text("Laser bias of the optical modules", "光模块偏置电流"),
    method=Text("Tx Bias of hccn_tool -i N -optical -g", "hccn_tool -i N -optical -g 的 Tx Bias"),
    criterion=Text(
        "above 0 on every lane; one lane {s:g} times another is a warning", "每个通道大于 0；通道间相差 {s:g} 倍则告警"
    ).fill(s=BIAS_SPREAD),
    suggestion=Text("the laser ages: plan to replace the module", "激光器老化：计划更换光模块"),
    reads=OPTICS,
    severity=Severity.MINOR,
    action=Action.MONITOR,
    scope="ascend",
)
@of_all_cards
def bias(facts: FactView) -> Outcome:
    return of_modules(
        facts,
        Text("the bias", "偏置电流"),
        lambda o: o.bias or None,
        lambda lanes: " ".join(f"lane {i} {v:g} mA" for i, v in enumerate(lanes) if v <= 0),
        lambda lanes: f"{min(lanes):g} to {max(lanes):g} mA" if max(lanes) >= min(lanes) * BIAS_SPREAD else "",
    )


@node_check(
    "ascend.optical.supply",
    title=Text("Temperature and voltage of the optical modules", "光模块温度与电压"),
    method=Text(
        "temperature and Vcc of hccn_tool -i N -optical -g", "hccn_tool -i N -optical -g 的 temperature 与 Vcc"
    ),
    criterion=Text("within the module's own thresholds", "均在模块自身门限内"),
    suggestion=Text(
        "check the airflow at the ports; re-seat, then replace the module", "检查网口处风道；重新插拔后更换光模块"
    ),
    reads=OPTICS,
    severity=Severity.MINOR,
    action=Action.MONITOR,
    scope="ascend",
)
@of_all_cards
def supply(facts: FactView) -> Outcome:
    def told(o: ascend.Optical) -> list[tuple[str, float, tuple[float, float]]] | None:
        pairs = (("°C", o.temperature, o.temperatures), ("mV", o.voltage, o.voltages))
        return [(unit, v, limits) for unit, v, limits in pairs if v is not None and limits is not None] or None

    return of_modules(
        facts,
        Text("temperature and voltage", "温度与电压"),
        told,
        lambda rows: " ".join(f"{v:g} {unit}" for unit, v, (low, high) in rows if not low <= v <= high),
    )


@node_check(
    "ascend.optical.signal",
    title=Text("The optical modules have signal and lock (LOS, LOL)", "光模块无信号丢失与失锁（LOS、LOL）"),
    method=Text("Los and LoL flags of hccn_tool -i N -optical -g", "hccn_tool -i N -optical -g 的 Los 与 LoL 标志"),
    criterion=Text("all flags 0", "所有标志均为 0"),
    suggestion=RESEAT,
    reads=OPTICS,
    severity=Severity.MAJOR,
    action=Action.CONTACT_VENDOR,
    scope="ascend",
)
@of_all_cards
def signal(facts: FactView) -> Outcome:
    return of_modules(
        facts,
        Text("the flags", "标志"),
        lambda o: o.flags or None,
        lambda flags: " ".join(f"{name} {bits:#x}" for name, bits in flags.items() if bits),
    )


# MindCluster's fault diagnosis: SNR below 8 dB is abnormal, and so are lanes of one side more than 3 dB apart.
SNR_LEAST, SNR_SPREAD = 8.0, 3.0
SNR_CRITERION = Text(
    "at least {l:g} dB on every lane; lanes of one side more than {s:g} dB apart are a warning",
    "每个通道不低于 {l:g} dB；同侧通道相差超过 {s:g} dB 则告警",
).fill(l=SNR_LEAST, s=SNR_SPREAD)


def _weak(sides: list[list[float]]) -> str:
    return " ".join(f"{v:g} dB" for side in sides for v in side if v < SNR_LEAST)[:60]


def _uneven(sides: list[list[float]]) -> str:
    return " ".join(f"{min(s):g} to {max(s):g} dB" for s in sides if s and max(s) - min(s) > SNR_SPREAD)


@node_check(
    "ascend.optical.snr",
    title=Text("Signal-to-noise ratio of the optical modules", "光模块信噪比"),
    method=Text(
        "Host SNR and Media SNR of hccn_tool -i N -optical -g", "hccn_tool -i N -optical -g 的 Host SNR 与 Media SNR"
    ),
    criterion=SNR_CRITERION,
    suggestion=RESEAT,
    reads=OPTICS,
    severity=Severity.MAJOR,
    action=Action.MONITOR,
    scope="ascend",
)
@of_all_cards
def snr(facts: FactView) -> Outcome:
    return of_modules(
        facts,
        Text("the SNR", "信噪比"),
        lambda o: [s for s in (o.host_snr, o.media_snr) if s] or None,
        _weak,
        _uneven,
    )


@node_check(
    "ascend.optical.cdr",
    title=Text("Signal-to-noise ratio of the clock recovery chips (CDR)", "CDR 信噪比"),
    method=method(CDR_SNR),
    criterion=SNR_CRITERION,
    suggestion=RESEAT,
    reads=(*COMMON, CDR_SNR),
    severity=Severity.MAJOR,
    action=Action.MONITOR,
    scope="ascend",
)
@of_all_cards
def cdr(facts: FactView) -> Outcome:
    def sides(text: str) -> list[list[float]] | None:
        lanes = ascend.cdr_snr(text)
        return [lanes[:4], lanes[4:]] if lanes else None

    return of_live_ports(facts, CDR_SNR, sides, Text("the SNR in dB", "以 dB 计的信噪比"), _weak, _uneven)


@node_check(
    "ascend.optical.transmitter",
    title=Text("The optical modules send, and loop nothing back", "光模块已开光且未环回"),
    method=method(TRANSMITTER),
    criterion=Text("tx disable status 0x0, no loopback mode", "tx disable status 为 0x0，且无环回"),
    suggestion=Text(
        "somebody's test was not undone: close the loopback (hccn_tool -i N -optical -t 0), re-seat the module",
        "测试后未恢复：关闭环回（hccn_tool -i N -optical -t 0）或重新插拔光模块",
    ),
    reads=(*COMMON, TRANSMITTER),
    severity=Severity.MAJOR,
    scope="ascend",
)
@of_all_cards
def transmitter(facts: FactView) -> Outcome:
    ports(facts)

    def wrong(t: ascend.Transmitter) -> str:
        parts = [f"tx disable {t.disabled:#x}"] if t.disabled else []
        if not t.loopback.lower().startswith("no "):
            parts.append(t.loopback[:40])
        return ", ".join(parts)

    return judged(ask(facts, TRANSMITTER, ascend.transmitter), wrong)


# ------------------------------------------------------------------------------------------------------------ counters

# What the HCCN Tool reference calls errors. unexpected_ack is harmless by it; CNP and PFC are congestion, not faults.
BAD = (
    "mac_tx_bad_pkt_num",
    "mac_rx_bad_pkt_num",
    "mac_rx_fcs_err_pkt_num",
    "roce_rx_err_pkt_num",
    "roce_tx_err_pkt_num",
    "roce_verification_err_num",
    "roce_qp_status_err_num",
)
AGAIN = ("roce_new_pkt_rty_num", "roce_out_of_order_num")
# Our own rule, as for interfaces of the host: shares of all packets since the counters were cleared.
BAD_FEW, BAD_WARN, BAD_FAIL = 100, 1e-7, 1e-4
AGAIN_FEW, AGAIN_WARN = 1000, 1e-5


def _packets(stat: Mapping[str, int], *names: str) -> int:
    return max(sum(stat.get(name, 0) for name in names), 1)


def _needed(stat: dict[str, int], names: tuple[str, ...]) -> dict[str, int] | None:
    """``stat`` if it holds what is counted on: some drivers leave one counter out, none leaves them all out."""
    return stat if sum(name in stat for name in names) * 2 > len(names) else None


@node_check(
    "ascend.roce.packets",
    title=Text("Bad packets at the NPU ports", "NPU 网口坏包"),
    method=Text(
        "hccn_tool -i N -stat -g: {n}, against all packets", "hccn_tool -i N -stat -g：{n}，与总报文数之比"
    ).fill(n=", ".join(BAD)),
    criterion=Text(
        "fewer than {f} or a share below {w:g}; {b:g} fails", "少于 {f} 个或占比低于 {w:g}；占比达到 {b:g} 则不通过"
    ).fill(f=BAD_FEW, w=BAD_WARN, b=BAD_FAIL),
    suggestion=Text(
        "frame errors (mac_*): clean or replace module and fibre; roce_*: see the peers of that time, and MTU",
        "mac_* 错误：清洁或更换光模块与光纤；roce_* 错误：检查对端与 MTU",
    ),
    reads=(*COMMON, STATISTICS),
    severity=Severity.MAJOR,
    action=Action.MONITOR,
    scope="ascend",
)
@of_all_cards
def packets(facts: FactView) -> Outcome:
    def share(stat: dict[str, int]) -> tuple[int, float]:
        wrong = sum(stat.get(name, 0) for name in BAD)
        return wrong, wrong / _packets(stat, "mac_tx_total_pkt_num", "mac_rx_total_pkt_num")

    def words(stat: dict[str, int]) -> str:
        worst = max(BAD, key=lambda name: stat.get(name, 0))
        return f"{share(stat)[0]} bad ({worst} {stat[worst]})"

    ports(facts)
    told = known(ask(facts, STATISTICS, lambda t: _needed(ascend.statistics(t), BAD)), Text("errors", "错误计数"))
    outcome = judged(
        told,
        lambda s: words(s) if share(s)[0] >= BAD_FEW and share(s)[1] >= BAD_FAIL else "",
        lambda s: words(s) if share(s)[0] >= BAD_FEW and share(s)[1] >= BAD_WARN else "",
    )
    return worst_first(facts, STATISTICS, outcome, devices(facts))


@node_check(
    "ascend.roce.retries",
    title=Text("Packets that the NPU ports had to send again", "NPU 网口重传与乱序"),
    method=Text(
        "hccn_tool -i N -stat -g: {n}, against all RoCE packets", "hccn_tool -i N -stat -g：{n}，与 RoCE 总报文数之比"
    ).fill(n=", ".join(AGAIN)),
    criterion=Text(
        "fewer than {f} or a share below {w:g}; else a warning", "少于 {f} 个或占比低于 {w:g}；否则告警"
    ).fill(f=AGAIN_FEW, w=AGAIN_WARN),
    suggestion=Text(
        "packets are lost on the way: check PFC and ECN of the switch for this traffic class, and bad packets",
        "途中丢包：检查交换机对该流量类别的 PFC 与 ECN 配置，以及坏包计数",
    ),
    reads=(*COMMON, STATISTICS),
    severity=Severity.MAJOR,
    action=Action.MONITOR,
    scope="ascend",
)
@of_all_cards
def retries(facts: FactView) -> Outcome:
    def many(stat: dict[str, int]) -> str:
        again = sum(stat.get(name, 0) for name in AGAIN)
        share = again / _packets(stat, "roce_tx_all_pkt_num", "roce_rx_all_pkt_num")
        return f"{again} ({share:.1e})" if again >= AGAIN_FEW and share >= AGAIN_WARN else ""

    ports(facts)
    told = known(ask(facts, STATISTICS, lambda t: _needed(ascend.statistics(t), AGAIN)), Text("retries", "重传计数"))
    return worst_first(facts, STATISTICS, judged(told, lambda _: "", many), devices(facts))


# --------------------------------------------------------------------------------------------------------- consistency


def _values(found: Mapping[str, object]) -> str:
    """``rs × 8``; when the ports of a node differ, all that there is."""
    return ", ".join(f"{value} × {n}" for value, n in sorted(Counter(map(str, found.values())).items()))


@consistency_check(
    "same.ascend.planes",
    title=Text("Nets of the NPU ports", "NPU 网口所在网段"),
    method=method(IP),
    suggestion=Text(
        "NPU N of every node belongs into one net (plane): correct address and netmask, or the fibre is in the wrong"
        " switch",
        "各节点编号相同的 NPU 应处于同一网段（平面）：更正地址与掩码，或检查光纤是否插错交换机",
    ),
    reads=(*COMMON, IP),
    severity=Severity.MAJOR,
    scope="ascend",
)
def same_planes(facts: FactView) -> str:
    ports(facts)
    found = ask(facts, IP, ascend.network, unset=True)
    return ", ".join(f"{name} {'-' if i is None else i.network}" for name, i in sorted(found.items()))


@consistency_check(
    "same.ascend.tls",
    title=Text("TLS switch of the NPU ports", "NPU 网口 TLS 开关"),
    method=method(TLS),
    suggestion=Text(
        "one setting on all nodes: HCCL fails between ports that differ", "所有节点统一设置：不一致时 HCCL 建链失败"
    ),
    reads=(*COMMON, TLS),
    severity=Severity.CRITICAL,
    scope="ascend",
)
def same_tls(facts: FactView) -> str:
    ports(facts)
    return _values({name: "on" if on else "off" for name, on in ask(facts, TLS, ascend.tls).items()})


@consistency_check(
    "same.ascend.fec",
    title=Text("FEC mode of the NPU ports", "NPU 网口 FEC 模式"),
    method=method(FEC),
    suggestion=Text(
        "hccn_tool -i N -fec -s encoding rs on all nodes", "所有节点执行 hccn_tool -i N -fec -s encoding rs"
    ),
    reads=(*COMMON, FEC),
    severity=Severity.MAJOR,
    scope="ascend",
)
def same_fec(facts: FactView) -> str:
    ports(facts)
    return _values(ask(facts, FEC, ascend.fec))


@consistency_check(
    "same.ascend.mtu",
    title=Text("MTU of the NPU ports", "NPU 网口 MTU"),
    method=method(MTU),
    suggestion=Text(
        "hccn_tool -i N -mtu -s size M, alike on all nodes", "所有节点统一执行 hccn_tool -i N -mtu -s size M"
    ),
    reads=(*COMMON, MTU),
    severity=Severity.MAJOR,
    scope="ascend",
)
def same_mtu(facts: FactView) -> str:
    ports(facts)
    return _values(ask(facts, MTU, ascend.mtu))


@consistency_check(
    "same.ascend.speed",
    title=Text("Speed of the NPU ports", "NPU 网口速率"),
    method=method(SPEED),
    suggestion=Text("compare the switch ports' settings and the modules", "核对交换机端口配置与光模块型号"),
    reads=(*COMMON, SPEED),
    severity=Severity.MAJOR,
    scope="ascend",
)
def same_speed(facts: FactView) -> str:
    found = ask(facts, SPEED, ascend.speed, with_a_link(facts))
    return _values({n: f"{s / 1e9:g} Gb/s" for n, s in known(found, Text("the speed", "速率")).items()})


# -------------------------------------------------------------------------------------------------------- configurable


def _least(facts: FactView, what: Text, value: Callable[[ascend.Optical], list[float]]) -> dict[str, float]:
    told = known({name: value(o) or None for name, o in modules(facts).items()}, what)
    return {name: min(lanes) for name, lanes in told.items()}


@configurable_check(
    "ascend.optical.rx_milliwatt",
    title=Text("Receive power of the weakest lane, mW", "最弱通道的接收光功率（mW）"),
    method=method(OPTICAL),
    suggestion=RESEAT,
    reads=OPTICS,
    unit="1",
    scope="ascend",
)
def rx_milliwatt(facts: FactView) -> dict[str, float]:
    return _least(facts, Text("the receive power", "接收光功率"), lambda o: o.rx)


@configurable_check(
    "ascend.optical.tx_milliwatt",
    title=Text("Transmit power of the weakest lane, mW", "最弱通道的发送光功率（mW）"),
    method=method(OPTICAL),
    suggestion=Text("replace the module", "更换光模块"),
    reads=OPTICS,
    unit="1",
    scope="ascend",
)
def tx_milliwatt(facts: FactView) -> dict[str, float]:
    return _least(facts, Text("the transmit power", "发送光功率"), lambda o: o.tx)


@configurable_check(
    "ascend.optical.snr_decibel",
    title=Text("Signal-to-noise ratio of the weakest lane, dB", "最弱通道的信噪比（dB）"),
    method=method(OPTICAL),
    suggestion=RESEAT,
    reads=OPTICS,
    unit="1",
    scope="ascend",
)
def snr_decibel(facts: FactView) -> dict[str, float]:
    return _least(facts, Text("the SNR", "信噪比"), lambda o: o.host_snr + o.media_snr)


@configurable_check(
    "ascend.roce.downs",
    title=Text("Losses of the link in the last 24 h", "最近 24 小时断链次数"),
    method=method(LINK_STAT),
    suggestion=Text("clean or replace module and fibre", "清洁或更换光模块与光纤"),
    reads=(*COMMON, LINK_STAT),
    unit="1",
    scope="ascend",
)
def downs(facts: FactView) -> dict[str, float]:
    ports(facts)
    return {name: float(len(_downs(stat))) for name, stat in ask(facts, LINK_STAT, ascend.link_stat).items()}
