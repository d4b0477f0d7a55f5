"""Counters of RDMA ports: what grows while one looks, not what has gathered since boot (a reboot of a switch stays in
them for ever). One item for each sort of counter, all of one shape; flaps and waiting have their own.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import NamedTuple

from cwai_bench.checks import DoesNotApply, FactView, NotKnown, Outcome, failed, node_check, passed, warned
from cwai_bench.checks.rdma import NAMED, RDMA, READS, Port, by_name, in_use, named
from cwai_bench.model import Action, Severity
from cwai_bench.port_counters import (
    CONGESTION,
    CORRUPT,
    DOWNED,
    DROPS,
    LINK_ERRORS,
    MAXIMA,
    ORDER,
    RECEIVER,
    RETRIES,
    SENT,
    WAIT,
    growth,
)
from cwai_bench.sources import Call, Host, Rdma
from cwai_bench.text import Text

# --------------------------------------------------------------------------------------------- how a counter grows


class Grown(NamedTuple):
    """``grew``: port and counter to its growth, where it is not 0. ``stuck``: port and counter that can tell no more.

    ``told``: how many ports have any of the counters.
    """

    grew: dict[tuple[str, str], int]
    stuck: list[tuple[str, str]]
    told: int


class Moved(NamedTuple):
    """The watched counters of one port: those told at both ends of the look and at one ``end`` only, and by how much
    those grew (see :func:`growth`) that moved or stick."""

    both: frozenset[str]
    end: frozenset[str]
    grew: tuple[tuple[str, int | None], ...]


class Watch(NamedTuple):
    """``looked``: seconds between both readings, to a tenth: a watch of nodes is alike that long. ``ports`` by name."""

    looked: float
    ports: tuple[tuple[str, Moved], ...]


def _watch(answer: Rdma, names: frozenset[str]) -> Watch:
    found = []
    for name, port in by_name(answer).items():
        before, after = port.before, port.after
        first, last = names.intersection(before), names.intersection(after)
        both = first & last
        grew = [(n, growth(n, before[n], after[n])) for n in both if before[n] != after[n] or after[n] == MAXIMA.get(n)]
        found.append((name, Moved(both, first ^ last, tuple(sorted(grew)))))
    looked = max(round(answer.looked, 1), 0.1) if answer.looked > 0 else 0.0
    return Watch(looked, tuple(found))


ERRORS = (*LINK_ERRORS, *CORRUPT, *DROPS, *RETRIES, *RECEIVER)
"""All that are errors, whatever the load: not those of order, which adaptive routing makes, nor of congestion."""
_TROUBLE = frozenset((*ERRORS, *ORDER, *CONGESTION, DOWNED))
_LOAD = frozenset((WAIT, SENT))


def _trouble(answer: Rdma) -> Watch:
    return _watch(answer, _TROUBLE)


def _load(answer: Rdma) -> Watch:
    return _watch(answer, _LOAD)


def watched(facts: FactView, make: Callable[[Rdma], Watch] = _trouble) -> Watch:
    """How the counters grew while they were watched, all of one sort at once: most nodes are alike in that, whatever
    has gathered in the counters. Raises NotKnown when they were not read twice."""
    watch = facts.only("rdma", Rdma, make)
    if watch.looked <= 0:
        raise NotKnown("parse", Text("the counters were not read twice", "计数器未读取两次"))
    return watch


def grown(watch: Watch, found: Iterable[Port], names: Iterable[str]) -> Grown:
    """Raises NotKnown when a port lacks what its like have, at either end of the look."""
    grew: dict[tuple[str, str], int] = {}
    stuck: list[tuple[str, str]] = []
    told: set[str] = set()
    moved = dict(watch.ports)
    counted = [(p.name, p.like, moved[p.name], dict(moved[p.name].grew)) for p in found]
    for name in names:
        have = {like for _, like, m, _ in counted if name in m.both or name in m.end}
        for port, like, m, growths in counted:
            if like not in have:
                continue
            if name not in m.both:
                raise NotKnown("parse", Text("{p} does not tell its {c}", "{p} 未给出 {c}").fill(p=port, c=name))
            told.add(port)
            more = growths.get(name, 0)
            if more is None:
                stuck.append((port, name))
            elif more:
                grew[port, name] = more
    return Grown(grew, stuck, len(told))


# ----------------------------------------------------------------------------------------------- one item, one sort


class Sort(NamedTuple):
    """Counters that mean one thing. ``limit``: growth of one counter in a second from which on it is said."""

    id: str
    title: Text
    counters: tuple[str, ...]
    limit: float
    verdict: Callable[..., Outcome]
    severity: Severity
    action: Action
    suggestion: Text


SORTS = (
    Sort(
        "rdma.errors",
        Text("No errors on the RDMA link", "RDMA 链路无误码"),
        LINK_ERRORS,
        0.0,
        failed,
        Severity.MAJOR,
        Action.ISOLATE,
        Text(
            "clean or replace the cable or transceiver, then try another switch port; mlxlink -d DEV -m -c -e tells the"
            " bit error rate",
            "清洁或更换线缆与光模块，再换交换机端口；用 mlxlink -d DEV -m -c -e 查看误码率",
        ),
    ),
    Sort(
        "rdma.corruption",
        Text("No corrupted RoCE packets", "无损坏的 RoCE 报文"),
        CORRUPT,
        0.0,
        failed,
        Severity.CRITICAL,
        Action.ISOLATE,
        Text(
            "packets were changed on their way in spite of a right Ethernet checksum: find the switch or NIC that does",
            "以太网校验正确但 ICRC 错误，说明报文在途中被改写：定位有问题的交换机或网卡",
        ),
    ),
    Sort(
        "rdma.drops",
        Text("RDMA ports drop no packets", "RDMA 端口无丢包"),
        DROPS,
        0.0,
        warned,
        Severity.MAJOR,
        Action.MONITOR,
        Text(
            "the other end takes no packets for too long: look for a congested or failed switch port",
            "对端长时间不接收：查找拥塞或故障的交换机端口",
        ),
    ),
    Sort(
        "rdma.retries",
        Text("RDMA does not have to send again", "RDMA 无超时重传"),
        RETRIES,
        0.0,
        warned,
        Severity.MAJOR,
        Action.MONITOR,
        Text(
            "packets or answers are lost on the way: check link errors and drops of switches, PFC and ECN (roce.*); a"
            " peer that has just ended looks the same",
            "报文或应答在途中丢失：检查链路误码、交换机丢包、PFC 与 ECN（roce.*）；对端刚退出也会如此",
        ),
    ),
    Sort(
        "rdma.order",
        Text("RDMA packets arrive in order", "RDMA 报文按序到达"),
        ORDER,
        1000.0,
        warned,
        Severity.MINOR,
        Action.MONITOR,
        Text(
            "with adaptive routing or packet spraying this is as it should be; without, packets are lost",
            "启用自适应路由或逐包喷洒时属正常；否则说明有丢包",
        ),
    ),
    Sort(
        "rdma.receiver",
        Text("Receivers are ready", "接收端就绪"),
        RECEIVER,
        100.0,
        warned,
        Severity.MINOR,
        Action.MONITOR,
        Text(
            "a program posts its receives too late, or too few of them: a slow process, a full CPU",
            "程序投递接收请求过晚或过少：进程过慢或 CPU 繁忙",
        ),
    ),
    Sort(
        "rdma.congestion",
        Text("Little congestion", "拥塞较少"),
        CONGESTION,
        # AMD's Cluster Validation Suite warns from 1000 CNPs or ECN marks over a test.
        1000.0,
        warned,
        Severity.MINOR,
        Action.MONITOR,
        Text(
            "expected while jobs run; on an idle node another one floods it: compare nodes and switch ports",
            "运行作业时属正常；空闲节点出现则说明有其他节点在大量发送：对比各节点与交换机端口",
        ),
    ),
)


def _cite(facts: FactView, found: list[Port], names: Iterable[str], watch: Watch, since: str = "") -> None:
    """Show by how much the counters ``names`` of the ports grew; ``since``: and what they have counted since boot."""
    moved, listed = dict(watch.ports), list(names)

    def line(port: str) -> str:
        growths = dict(moved[port].grew)
        said = {n: growths.get(n, 0) for n in listed if n in moved[port].both}
        return f"{port} " + " ".join(
            f"{n} {'at its maximum' if more is None else f'+{more}'}" for n, more in said.items()
        )

    facts.cite(RDMA, lambda: "\n".join([f"within {watch.looked:.1f} s", *(line(p.name) for p in found)]) + since)


def _register(sort: Sort) -> None:
    names = ", ".join(sort.counters)
    warns = sort.verdict is warned
    criterion = Text(
        "no counter grows{m}{w}; one that sticks at its maximum is a warning", "计数器{m}{w}；计数达上限则告警"
    ).fill(
        m=Text(" by more than {n:g} a second", "每秒增长不超过 {n:g}").fill(n=sort.limit)
        if sort.limit
        else Text("", "无增长"),
        w=Text(", else a warning", "，否则告警") if warns else Text("", ""),
    )

    @node_check(
        sort.id,
        title=sort.title,
        method=Text(
            "growth within a second of {c} in /sys/class/infiniband/*/ports/*/{{counters,hw_counters}}",
            "/sys/class/infiniband/*/ports/*/{{counters,hw_counters}} 中 {c} 在一秒内的增长",
        ).fill(c=names),
        criterion=criterion,
        suggestion=sort.suggestion,
        reads=READS,
        severity=sort.severity,
        action=sort.action,
        scope="rdma",
    )
    def judge(facts: FactView) -> Outcome:
        found = in_use(facts)
        watch = watched(facts)
        looked = watch.looked
        _cite(facts, found, sort.counters, watch)
        seen = grown(watch, found, sort.counters)
        if not seen.told:
            raise DoesNotApply(Text("the drivers here count none of these", "驱动不提供这些计数器"), "unsupported")
        many = {key: more for key, more in seen.grew.items() if more / looked > sort.limit}
        if many:
            worst = sorted(many.items(), key=lambda item: -item[1])
            return sort.verdict(named(f"{port} {name} +{more}" for (port, name), more in worst[:NAMED]))
        if seen.stuck:
            return warned(
                named(f"{port} {name}" for port, name in seen.stuck),
                Text(
                    "at their maximum, they can tell no more: perfquery -R sets them to zero",
                    "计数已达上限，无法反映增长：可用 perfquery -R 清零",
                ),
            )
        most = max(seen.grew.values(), default=0)
        return passed(f"{seen.told} ports, +{most} in {looked:.1f} s")


for _sort in SORTS:
    _register(_sort)


# -------------------------------------------------------------------------------------------------- flaps, waiting

# As network.flaps: azurehpc-health-checks fails above 5 in 24 h; what the boot itself makes is forgiven.
FLAPS_PER_DAY, FLAPS_AT_BOOT = 5.0, 3


def _downs(answer: Rdma) -> tuple[tuple[str, int], ...]:
    """How often each port lost its link since boot, by name."""
    return tuple((name, port.after.get(DOWNED, 0)) for name, port in by_name(answer).items())


@node_check(
    "rdma.flaps",
    title=Text("RDMA links do not flap", "RDMA 链路无抖动"),
    method=Text(
        "/sys/class/infiniband/*/ports/*/counters/link_downed: its growth within a second, and since boot",
        "/sys/class/infiniband/*/ports/*/counters/link_downed 在一秒内及启动以来的增长",
    ),
    criterion=Text(
        "it does not grow; since boot at most {f:g} a day, {b} forgiven, else a warning",
        "当前无增长；启动以来每天不超过 {f:g} 次（{b} 次不计），否则告警",
    ).fill(f=FLAPS_PER_DAY, b=FLAPS_AT_BOOT),
    suggestion=Text(
        "clean or replace cable and transceiver; look at the switch port's log",
        "清洁或更换线缆与光模块；查看交换机端口日志",
    ),
    reads=(*READS, Call("host")),
    severity=Severity.MAJOR,
    action=Action.ISOLATE,
    scope="rdma",
)
def flaps(facts: FactView) -> Outcome:
    found = in_use(facts)
    watch, downs = watched(facts), dict(facts.only("rdma", Rdma, _downs))
    since = "".join(f"\n{p.name} {DOWNED} {downs[p.name]} since boot" for p in found)
    _cite(facts, found, (DOWNED,), watch, since)
    seen = grown(watch, found, (DOWNED,))
    if not seen.told:
        raise DoesNotApply(Text("the drivers here do not count it", "驱动不提供此计数"), "unsupported")
    if seen.grew:
        return failed(named(f"{port} +{more}" for (port, _), more in seen.grew.items()))
    host = facts.call("host", Host)
    days = max((host.taken - host.boot) / 86400, 1.0)
    facts.cite(Call("host"), f"up {days:.1f} d")
    rates = {p.name: max(downs[p.name] - FLAPS_AT_BOOT, 0) / days for p in found}
    bad = {name: rate for name, rate in rates.items() if rate > FLAPS_PER_DAY}
    stuck = [port for port, _ in seen.stuck]
    if bad or stuck:
        return warned(named([f"{name} {rate:.1f}/d" for name, rate in bad.items()] or stuck))
    return passed(f"{max(rates.values()):.1f}/d")


# port_xmit_wait counts ticks in which a port had something to send and could not (IBTA vol. 1, 16.1.3.5), and
# port_xmit_data words of 4 bytes: a port that waits more than it sends is held up. A few ticks mean nothing.
WAIT_TICKS = 1_000_000


@node_check(
    "rdma.wait",
    title=Text("RDMA ports wait less than they send", "RDMA 端口等待少于发送"),
    method=Text(
        "/sys/class/infiniband/*/ports/*/counters: growth of port_xmit_wait against port_xmit_data",
        "/sys/class/infiniband/*/ports/*/counters：port_xmit_wait 与 port_xmit_data 的增长之比",
    ),
    criterion=Text(
        "fewer ticks waited than words of 4 bytes sent ({n} ticks a second do not count)",
        "等待周期少于发送的 4 字节字数（每秒少于 {n} 个周期不计）",
    ).fill(n=WAIT_TICKS),
    suggestion=Text(
        "the fabric takes less than the node sends: compare the rails; look for a slow receiver or a slow switch link",
        "网络接收慢于本机发送：对比各轨道，查找慢接收端或降速的交换机链路",
    ),
    reads=READS,
    severity=Severity.MINOR,
    action=Action.MONITOR,
    scope="rdma",
)
def wait(facts: FactView) -> Outcome:
    found = in_use(facts)
    watch = watched(facts, _load)
    looked, moved = watch.looked, dict(watch.ports)
    _cite(facts, found, (WAIT, SENT), watch)
    seen = grown(watch, found, (WAIT, SENT))
    if not any(WAIT in moved[p.name].both for p in found):
        raise DoesNotApply(Text("the drivers here do not count it", "驱动不提供此计数"), "unsupported")
    worst = [
        f"{p.name} {ticks}/{sent}"
        for p in found
        if (ticks := seen.grew.get((p.name, WAIT), 0)) / looked > WAIT_TICKS
        and ticks > (sent := seen.grew.get((p.name, SENT), 0))
    ]
    if worst or seen.stuck:
        return warned(named(worst or [f"{port} {name}" for port, name in seen.stuck]))
    return passed(f"{seen.told} ports, +{max(seen.grew.values(), default=0)} in {looked:.1f} s")
