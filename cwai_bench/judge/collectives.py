"""A collective against what its links and NICs should reach, and what its library's log says of how it was done."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from typing import NamedTuple

import msgspec

from cwai_bench.checks.topology import topology_of
from cwai_bench.collective_bound import (
    ABOVE,
    DEFAULTS,
    PREDICTED,
    SMALLEST_JUDGED,
    Bound,
    Thresholds,
    Topology,
    due,
    references,
)
from cwai_bench.collective_library import folded
from cwai_bench.judge.ports import Sign
from cwai_bench.judge.route import logs_of, nics_of
from cwai_bench.model import Measurement, ProbeSpec, Run, Scalar, Status, stats_of
from cwai_bench.readers.collective_log import IB, SOCKET, CollectiveLog, merge
from cwai_bench.render.units import gigabytes, size
from cwai_bench.text import Text

WARNINGS = 3
"""Warnings of a library that are told."""


class Standing(NamedTuple):
    """``share`` of what is due of the size at which the highest bus bandwidth was measured; None where nothing is.
    ``bus``: that bandwidth, of the slowest rank, in bytes per second. ``status`` UNKNOWN: it is more than can be; PASS
    of a small size says no more than that."""

    status: Status
    bytes: int
    bus: float
    share: float | None
    bound: Bound

    @property
    def words(self) -> Text:
        measured = Text("{m} GB/s busbw at {s}", "{s} 总线带宽 {m} GB/s").fill(
            m=gigabytes(self.bus), s=size(self.bytes)
        )
        if self.status is Status.UNKNOWN and self.bound.ceiling is not None:
            return Text(
                "{m}, more than the {c} GB/s that can be: did ranks run alone, or fewer than were counted?",
                "{m}，超过上限 {c} GB/s：各进程是否单独运行，或实际进程数少于计数？",
            ).fill(m=measured, c=gigabytes(self.bound.ceiling))
        if self.share is None or self.bound.value is None:
            return measured
        return Text("{m} is {s:.1f} % of {v} GB/s", "{m}，为 {v} GB/s 的 {s:.1f} %").fill(
            m=measured, s=self.share * 100, v=gigabytes(self.bound.value)
        )

    def demand(self, thresholds: Thresholds = DEFAULTS) -> Text | None:
        """What it is held against, with the terms; None where nothing is due, or the size is too small."""
        if self.bound.value is None or self.bytes < SMALLEST_JUDGED:
            return None
        return Text(
            "at least {w:g} % of {v} GB/s, below {f:g} % it fails; {t}",
            "不低于 {v} GB/s 的 {w:g} %，低于 {f:g} % 判为失败；{t}",
        ).fill(
            w=thresholds.warn_below * 100,
            f=thresholds.fail_below * 100,
            v=gigabytes(self.bound.value),
            t=self.bound.words,
        )


def standing(
    ms: Iterable[Measurement], topology: Topology | None, thresholds: Thresholds = DEFAULTS
) -> Standing | None:
    """How one operation does, by the measurements of all its ranks and sizes; None where nothing is known of it.

    The size, type and placement that did best counts, as a group by its slowest rank, by the pipelined time where it
    was measured so, since published figures are. Small sizes prove nothing (SMALLEST_JUDGED), nor does a rehearsal,
    whose rank comes late on purpose.
    """
    slowest: dict[tuple[Scalar | None, ...], tuple[float, Measurement]] = {}
    for m in ms:
        if m.status != "ok" or not m.metric.endswith(".time") or "rehearsed" in m.parameters:
            continue
        bus = _bus(m)
        point = tuple(m.parameters.get(name) for name in _POINT)
        if bus is not None and (point not in slowest or bus < slowest[point][0]):
            slowest[point] = bus, m
    if topology is None or not slowest:
        return None
    large = [found for point, found in slowest.items() if isinstance(point[0], int) and point[0] >= SMALLEST_JUDGED]
    bus, best = max(large or slowest.values(), key=lambda found: found[0])
    bound = due(best.metric, best.parameters, topology)
    if bound is None:
        return None
    share = None if bound.value is None else bus / bound.value
    status = Status.PASS
    if bound.ceiling is not None and bus > ABOVE * bound.ceiling:
        status = Status.UNKNOWN
    elif share is not None and large and share < thresholds.warn_below:
        status = Status.FAIL if share < thresholds.fail_below else Status.WARN
    return Standing(status, int(best.parameters["bytes"]), bus, share, bound)


_POINT = ("bytes", "dtype", "reduction", "in_place")
"""What tells the points of one operation from each other."""


def _bus(m: Measurement) -> float | None:
    """Bytes per second of bus bandwidth; None where it has none."""
    told, count, factor = m.stats or stats_of(m.samples), m.parameters.get("bytes"), m.parameters.get("bus_factor")
    if told is None or not isinstance(count, int) or not isinstance(factor, int | float):
        return None
    pipelined = m.parameters.get("pipelined")
    each = pipelined if isinstance(pipelined, int | float) and pipelined > 0 else told.p50
    return count * factor / each if each > 0 else None


class Found(NamedTuple):
    """What is known of one operation of a run besides its figures."""

    standing: Standing | None
    signs: list[Sign]
    published: list[Text]
    mixed: Text | None = None
    """What the ranks have loaded, where they have not all loaded the same."""
    nics: Mapping[tuple[str, int], Text] = {}
    """By node and rank, of those that received wrong data."""


def _mixed(ms: Iterable[Measurement]) -> Text | None:
    builds: dict[str, set[int]] = {}
    for m in ms:
        builds.setdefault(str(m.parameters.get("library", "")), set()).add(m.rank)
    if len(builds) < 2:
        return None
    told = "; ".join(f"{build}: {folded(sorted(ranks))}" for build, ranks in sorted(builds.items()))
    return Text("the ranks have loaded different builds of the library: {t}", "各进程加载的通信库构建不一致：{t}").fill(
        t=told
    )


def of_spec(run: Run, spec: ProbeSpec) -> Found:
    """By the facts of the nodes that took part, and what the library logged on them."""
    ms = [m for m in run.measurements if m.spec == spec.id and "bus_factor" in m.parameters]
    members = {(m.node, m.rank) for m in ms}
    logs = logs_of(run, spec)
    nics = nics_of(run, ms, logs)
    topology = topology_of(run.facts, Counter(node for node, _ in members)) if members else None
    if topology is None:
        return Found(None, [], [], _mixed(ms), nics)
    log = merge(log for of_node in logs.values() for log in of_node.values()) if logs else None
    sharp = {"on": True, "off": False}.get(str(spec.parameters.get("sharp")))
    operation = str(spec.parameters.get("operation"))
    return Found(
        standing(ms if log is None else [_as_chosen(m, log) for m in ms], topology),
        [] if log is None else log_signs(log, topology, sharp=sharp),
        published(topology, operation) if spec.info.scope in PREDICTED else [],
        _mixed(ms),
        nics,
    )


def _as_chosen(m: Measurement, log: CollectiveLog) -> Measurement:
    """With the algorithm and the protocol that the log tells of its size, if it does."""
    count, ranks = m.parameters.get("bytes"), m.parameters.get("ranks")
    if not isinstance(count, int) or not isinstance(ranks, int):
        return m
    choice = log.choice(str(m.parameters.get("operation")), count, ranks)
    if choice is None:
        return m
    chosen: dict[str, Scalar] = {"algorithm": choice.algorithm, "protocol": choice.protocol}
    return msgspec.structs.replace(m, parameters=m.parameters | chosen)


def published(topology: Topology, operation: str) -> list[Text]:
    """What others measured on like systems, and what providers demand, each with its source."""
    told = []
    for r in references(topology, operation):
        words = _GATE if r.gate else _MEASURED
        by = f" {r.algorithm}" if r.algorithm else ""
        told.append(
            words.fill(
                n=f"{r.nodes} × " if r.nodes > 1 else "", c=r.cards, s=r.system, a=by, b=gigabytes(r.bus), f=r.source
            )
        )
    return told


_MEASURED = Text("{n}{c} {s}{a}: {b} GB/s ({f})", "{n}{c} {s}{a}：{b} GB/s（{f}）")
_GATE = Text("{n}{c} {s}{a}: at least {b} GB/s demanded ({f})", "{n}{c} {s}{a}：要求不低于 {b} GB/s（{f}）")


# -------------------------------------------------------------------------------------------- what the library said


def log_signs(log: CollectiveLog, topology: Topology, *, sharp: bool | None = None) -> list[Sign]:
    """What the logs of all processes say of how the data went. ``sharp``: whether a person asked for it; None: nobody
    said. A fault is named though the figure may be fine; the rest may explain a slow one."""
    told: list[Sign] = []
    if topology.nodes > 1:
        told += _network_signs(log, topology)
    if sharp and topology.nodes > 1 and not _reduced_in_network(log):
        told.append(Sign(_NO_SHARP.fill(s=log.sharp.said if log.sharp.ready is False else _SILENT), True))
    if sharp is False and _reduced_in_network(log):
        told.append(Sign(_SHARP_ALL_THE_SAME, True))
    if log.nvls.ready is False:
        told.append(Sign(_NO_NVLS.fill(s=log.nvls.said), False))
    told += [Sign(Text("it warns: {w}", "库告警：{w}").fill(w=warning), False) for warning in log.warnings[:WARNINGS]]
    return told


def _network_signs(log: CollectiveLog, topology: Topology) -> list[Sign]:
    told: list[Sign] = []
    if len(log.networks) > 1:
        told.append(Sign(_DISAGREE.fill(n=", ".join(log.networks)), True))
    by_sockets = SOCKET in log.networks or any(way.by == SOCKET for way in log.between_nodes)
    if by_sockets and topology.nics:
        told.append(Sign(_SOCKETS.fill(n=topology.nics, w=_why_sockets(log)), True))
    if log.gpudirect is False and any(way.by.startswith(IB) for way in log.between_nodes):
        told.append(Sign(_NO_GPUDIRECT, True))
    used = log.used_nics
    if used and len(used) < min(topology.nics, topology.cards):
        told.append(Sign(_FEW_NICS.fill(u=len(used), n=topology.nics, l=", ".join(used[:8])), False))
    return told


def _reduced_in_network(log: CollectiveLog) -> bool:
    """Whether SHARP was set up, and, where the log tells the algorithms, taken."""
    taken = [choice for choice in log.choices if choice.algorithm.startswith("COLLNET") or choice.algorithm == "NVLS"]
    return log.sharp.ready is True and (bool(taken) or not log.choices)


def _why_sockets(log: CollectiveLog) -> Text:
    setting = next((f"{n}={v}" for n, v in log.environment.items() if (n, v) in _SWITCHED_OFF), "")
    if setting:
        return Text("{s} is set", "设置了 {s}").fill(s=setting)
    return _NONE_FOUND if log.no_ib else _UNEXPLAINED


_SWITCHED_OFF: tuple[tuple[str, Scalar], ...] = (("NCCL_IB_DISABLE", "1"), ("NCCL_NET", "Socket"))
_NONE_FOUND = Text(
    "it found no device: are libibverbs and /dev/infiniband where it runs?",
    "未找到设备：运行环境中是否有 libibverbs 与 /dev/infiniband？",
)
_UNEXPLAINED = Text("the log does not say why", "日志未说明原因")
_SOCKETS = Text(
    "the library used sockets though there are {n} RDMA rails: {w}", "存在 {n} 条 RDMA 轨道，但通信库使用了 Socket：{w}"
)
_DISAGREE = Text("processes use different networks: {n}", "各进程使用的网络不一致：{n}")
_NO_GPUDIRECT = Text(
    "data between nodes goes through the host's memory (no GDRDMA): see item nvidia.gpudirect",
    "节点间数据经主机内存中转（无 GDRDMA）：见 nvidia.gpudirect",
)
_FEW_NICS = Text("only {u} of {n} NICs are used: {l}", "仅使用 {n} 块网卡中的 {u} 块：{l}")
_NO_SHARP = Text("SHARP was asked for and is not used: {s}", "已要求使用 SHARP，但未生效：{s}")
_SHARP_ALL_THE_SAME = Text("SHARP was switched off and is used all the same", "已关闭 SHARP，但仍在使用")
_SILENT = Text("the log does not speak of it, or another algorithm was taken", "日志未提及，或选择了其他算法")
_NO_NVLS = Text("no NVLS: {s}", "未启用 NVLS：{s}")
