"""What the counters of both ends say of a path while it was measured."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import NamedTuple

from cwai_bench import port_counters as names
from cwai_bench.model import Measurement
from cwai_bench.text import Text

GIB = 1 << 30
NAMED = 4
"""Counters that one sentence names at most."""

Moved = Mapping[str, int | None]
_CNP = (*names.CNP, *names.NPU_CNP)


class Sign(NamedTuple):
    """``fault``: something is wrong though the figure may be fine. What is none of these may still explain a slow
    path: congestion, reordering, a receiver that came late."""

    text: Text
    fault: bool


class _Sort(NamedTuple):
    """Counters that mean one thing."""

    counters: tuple[str, ...]
    fault: bool
    meaning: Text


_SORTS = (
    _Sort(
        (*names.CORRUPT, *names.NPU_CORRUPT),
        True,
        Text(
            "packets arrived changed (ICRC) though each link's checksum held: a switch or NIC on the way alters them",
            "链路校验正确而 ICRC 错误：途中的交换机或网卡改写了报文",
        ),
    ),
    _Sort(
        (*names.RETRIES, *names.NPU_RETRIES),
        True,
        Text("sent again, or given up: packets or answers are lost on the way", "发生重传或放弃：报文或应答在途中丢失"),
    ),
    _Sort(
        (*names.LINK_ERRORS, *names.ETHERNET_ERRORS, *names.NPU_ETHERNET),
        True,
        Text("errors on the wire: cable, transceiver or connector", "链路误码：检查线缆、光模块与接口"),
    ),
    _Sort(
        (*names.BROKEN, *names.NPU_BROKEN), True, Text("packets that the NIC could not handle", "网卡无法处理的报文")
    ),
    _Sort(names.DROPS, True, Text("packets dropped at the port", "端口丢包")),
    _Sort(
        names.NO_BUFFER,
        True,
        Text(
            "packets dropped for want of a buffer: no PFC for this traffic, or the host takes them too slowly",
            "缓冲不足而丢包：该流量未启用 PFC，或主机接收过慢",
        ),
    ),
    _Sort(
        names.PCIE_FAULTS,
        True,
        Text(
            "errors or overflow between NIC and host: re-seat it, look at its PCIe link",
            "网卡与主机间出错或溢出：重新插拔并检查 PCIe 链路",
        ),
    ),
    _Sort(
        names.STORMS,
        True,
        Text(
            "a pause storm that the NIC had to end: this host stopped taking packets",
            "网卡强制终止了暂停风暴：本机停止接收",
        ),
    ),
    _Sort(
        names.PCIE_STALLS,
        False,
        Text("PCIe held the NIC up: this host is slow", "PCIe 阻塞网卡：本机较慢"),
    ),
    _Sort(
        (*names.ORDER, *names.NPU_ORDER),
        False,
        Text(
            "out of order: as it should be with adaptive routing or spraying, else packets are lost",
            "乱序：启用自适应路由或逐包喷洒时属正常，否则说明有丢包",
        ),
    ),
    _Sort(names.RECEIVER, False, Text("the receiving program came late", "接收程序未及时就绪")),
)


def added(counters: Iterable[Mapping[str, Moved]]) -> dict[str, dict[str, int | None]]:
    """What moved in several measurements together, by port; what is not known once is not known in all."""
    found: dict[str, dict[str, int | None]] = {}
    for ports in counters:
        for port, moves in ports.items():
            sums = found.setdefault(port, {})
            for name, more in moves.items():
                known = sums.get(name, 0)
                sums[name] = None if more is None or known is None else known + more
    return found


def bytes_of(measurements: Iterable[Measurement]) -> float:
    """About how many bytes were measured: rate times the time that was counted."""
    total = 0.0
    for m in measurements:
        if m.unit == "B/s" and m.samples:
            timed = m.parameters.get("duration")
            total += sum(m.samples) / len(m.samples) * (timed if isinstance(timed, int | float) else m.duration)
    return total


def explained(counters: Mapping[str, Moved], moved_bytes: float) -> list[Sign]:
    """What the counters of both ends say, faults first. ``counters``: by port (``node1/mlx5_0``), what moved while
    ``moved_bytes`` went over the path."""
    signs = [sign for port, moves in counters.items() for sign in _of_port(port, moves, moved_bytes)]
    return sorted(signs, key=lambda sign: not sign.fault)


def _of_port(port: str, moves: Moved, moved_bytes: float) -> list[Sign]:
    def said(meaning: Text, *told: str) -> Text:
        return Text("{p}: {m} ({c})", "{p}：{m}（{c}）").fill(p=port, m=meaning, c=", ".join(told))

    grew = {name: more for name, more in moves.items() if more}
    found = []
    flaps = max((grew[name] for name in names.FLAPS if name in grew), default=0)
    if flaps:
        found.append(
            Sign(said(Text("its link went down", "链路断开"), f"{flaps}×"), True),
        )
    for sort in _SORTS:
        told = [f"{name.rpartition('/')[2]} {grew[name]}" for name in sort.counters if name in grew]
        if told:
            found.append(Sign(said(sort.meaning, *told[:NAMED]), sort.fault))
    found += _paused(grew, said)
    if notified := max((grew[name] for name in _CNP if name in grew), default=0):
        found.append(_congested(grew, notified, moved_bytes, said))
    if grew.get(names.WAIT, 0) > grew.get(names.SENT, 0):
        found.append(
            Sign(
                said(
                    Text("it waited more than it sent: the fabric takes less", "等待多于发送：网络接收较慢"),
                    f"{names.WAIT} {grew[names.WAIT]}",
                ),
                False,
            )
        )
    if unknown := [name.rpartition("/")[2] for name, more in moves.items() if more is None]:
        found.append(
            Sign(
                said(
                    Text(
                        "nothing can be told of counters at their maximum or reset meanwhile (perfquery -R)",
                        "计数器已达上限或期间被清零，无法判断（perfquery -R）",
                    ),
                    *unknown[:NAMED],
                ),
                False,
            )
        )
    return found


def _paused(grew: Mapping[str, int], said: Callable[..., Text]) -> list[Sign]:
    """Which way pause frames went tells who was slow; their priority, whether the traffic is where it belongs."""
    frames: dict[tuple[str, str], int] = {}
    for name, more in grew.items():
        if which := names.PAUSE.fullmatch(name):
            frames[which[1], which[2]] = more
    found = []
    if wrong := [f"{way} pause {more}" for (way, priority), more in sorted(frames.items()) if priority == "0"]:
        found.append(
            Sign(
                said(
                    Text(
                        "paused on priority 0, that of unmarked traffic: DSCP or PCP is not set, or not trusted",
                        "在优先级 0（未标记流量）上收发暂停帧：DSCP 或 PCP 未设置或未被信任",
                    ),
                    *wrong,
                ),
                True,
            )
        )
    for way, meaning in (
        ("tx", Text("it paused the fabric: this host takes packets too slowly", "向网络发送暂停帧：本机接收过慢")),
        ("rx", Text("the fabric paused it: a switch or the other end is slow", "收到网络的暂停帧：交换机或对端较慢")),
    ):
        told = [f"priority {p}: {more}" for (w, p), more in sorted(frames.items()) if w == way and p != "0"]
        if told:
            found.append(Sign(said(meaning, *told), False))
    return found


def _congested(grew: Mapping[str, int], notified: int, moved_bytes: float, said: Callable[..., Text]) -> Sign:
    told = [f"{name} {grew[name]}" for name in _CNP if name in grew]
    if moved_bytes > 0:
        told.insert(0, f"{notified / (moved_bytes / GIB):.3g} CNP/GiB")
    return Sign(said(Text("congestion in the fabric", "网络拥塞"), *told), False)
