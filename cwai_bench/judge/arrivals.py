"""Who made the others wait in the collectives of a probe: a verdict on each rank or node that keeps coming last.

A point (one operation, size, type and placement) says so by the rules of :mod:`cwai_bench.arrivals`. What only one of
several points says is not told: who is late is so whatever the size.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from cwai_bench.judge.found import ALL, OBSERVED_LIMIT, joined
from cwai_bench.model import Action, Measurement, ProbeSpec, Run, Status, Subject, Verdict
from cwai_bench.render.nodeset import fold
from cwai_bench.render.units import microseconds, size
from cwai_bench.text import Text

if TYPE_CHECKING:
    from cwai_bench.arrivals import Arrivals, Late

ARRIVAL, TIME = ".arrival", ".time"
"""What metrics end with: when a rank came, and how long it was in the operation."""
POINT = ("operation", "bytes", "dtype", "reduction", "in_place")
"""Parameters that tell one point from another."""
ROOTED = ("broadcast", "reduce", "gather", "scatter")
"""Operations in which not all ranks wait for all."""
CLOCK = "clock_uncertainty"
CLOCKS_READ = 2
"""A rank's lateness is the sum of two, to the barrier and after it: each has what its clock may be off by."""
CROWDED = "oversubscribed"
"""Parameter that is true where the ranks of a node outnumber its CPUs."""
CROWDED_FLOOR = 5e-3
"""Seconds, there: a rank that waits for a CPU comes later by a slice of the scheduler or two, which are some
milliseconds (Linux, kernel/sched/fair.c: 0.75 ms, times one more than the binary logarithm of the CPUs, of 8 at
most), and where that order is always the same it is no chance."""
BUSY_SHARE = 0.5
"""Of the ranks, that waited for a CPU while they measured: from there on who stumbles has no trouble of its own."""
FAIL_SHARE, FAIL_SECONDS = 0.20, 100e-6
"""What the others lost, of the operation's own time and in seconds, from which on (both) it is a failure."""
NAMED = 8
"""Ranks that a sentence names."""


@dataclass(frozen=True)
class _Point:
    """What one operation of one size says. ``arrivals`` by rank."""

    name: str
    arrivals: list[Measurement]
    found: Arrivals
    calm: bool
    """Not many of its ranks had to wait for a CPU."""


def arrival_verdicts(run: Run, spec: ProbeSpec) -> list[Verdict]:
    """Verdicts on ranks and nodes that came last in what ``spec`` measured, and on those that were far later than they
    usually are, again and again. None when nobody stands out, or too little is known to say so."""
    points = list(_points(run, spec))
    by_part: dict[tuple[tuple[int, ...], bool], list[tuple[_Point, Late]]] = {}
    for point in points:
        for late in point.found.findings:
            by_part.setdefault((late.ranks, not late.why), []).append((point, late))
    told = {part: said for part, said in by_part.items() if len(said) >= min(2, len(points))}
    named = {rank for (ranks, certain) in told if certain for rank in ranks}
    verdicts = []
    for (ranks, certain), said in told.items():
        point, late = max(said, key=lambda one: _weight(one[1]))
        # What is not decided is worth a word where much is lost by it.
        if certain or (point.calm and _grave(late) and not named.issuperset(ranks)):
            verdicts.append(_on_late(spec, point, late, len(said), len(points)))
    return verdicts + _on_hiccups(spec, [point for point in points if point.calm])


def _points(run: Run, spec: ProbeSpec) -> Iterator[_Point]:
    """What is said by each point at which the arrivals of all ranks are known, often enough."""
    points: dict[tuple[object, ...], list[Measurement]] = {}
    times: dict[tuple[object, ...], list[float]] = {}
    for m in run.measurements:
        if m.spec != spec.id or m.status != "ok":
            continue
        point = tuple(m.parameters.get(name) for name in POINT)
        if m.metric.endswith(TIME):
            times[m.metric.removesuffix(TIME), m.rank, *point] = m.samples
        elif m.metric.endswith(ARRIVAL):
            points.setdefault((m.metric.removesuffix(ARRIVAL), *point), []).append(m)
    for (metric, *same), ms in points.items():
        ms.sort(key=lambda m: m.rank)
        ranks = ms[0].parameters.get("ranks", len(ms))
        if [m.rank for m in ms] == list(range(int(ranks))):
            said = _judged(ms, [times.get((metric, m.rank, *same), []) for m in ms])
            if said is not None:
                yield said


def _judged(ms: list[Measurement], times: list[list[float]]) -> _Point | None:
    import numpy as np

    from cwai_bench import arrivals

    operation, bytes = ms[0].parameters.get("operation"), ms[0].parameters.get("bytes")
    count = min(len(m.samples) for m in ms)
    busy = sum(m.reason_code == "busy" for m in ms)
    crowded = any(m.parameters.get(CROWDED) for m in ms)
    found = arrivals.judged(
        np.array([m.samples[:count] for m in ms]),
        [m.node for m in ms],
        times=np.array([some[:count] for some in times]) if all(len(some) >= count for some in times) else None,
        uncertainty=np.array([CLOCKS_READ * float(m.parameters.get(CLOCK, 0.0)) for m in ms]),
        floor=CROWDED_FLOOR if crowded else arrivals.FLOOR,
        ends_together=operation not in ROOTED,
    )
    if found.iterations < arrivals.LEAST:
        return None
    name = str(operation or ms[0].metric.removesuffix(ARRIVAL))
    name = f"{name}, {size(bytes)}" if isinstance(bytes, int) else name
    return _Point(name, ms, found, calm=busy < BUSY_SHARE * len(ms) and not crowded)


# ---------------------------------------------------------------------------------------------- telling


def _share(late: Late) -> float:
    """What the others lost, of the time that the operation itself takes; nothing where that is not known."""
    return late.lost / late.own if late.own else 0.0


def _grave(late: Late) -> bool:
    return late.lost >= FAIL_SECONDS and _share(late) >= FAIL_SHARE


def _weight(late: Late) -> tuple[bool, float, float]:
    return _grave(late), _share(late), late.lost


def _on_late(spec: ProbeSpec, point: _Point, late: Late, said: int, points: int) -> Verdict:
    """On what is late, told by the ``point`` at which that weighs most: one of ``said`` of ``points``."""
    busy = _busy(late.ranks, point)
    # A rank that had to wait for a CPU is late by that: true, and no fault of the part.
    status = Status.FAIL if _grave(late) and not late.why and busy is None else Status.WARN
    detail = [_who(point, late), _victims(late, point), _often(said, points), busy]
    subject, nodes = (ALL, []) if late.why else (_subject(late.ranks, late.nodes[0], point), list(late.nodes))
    return Verdict(
        spec.info.id,
        spec.info.kind,
        subject,
        nodes,
        status,
        f"+{microseconds(late.lost)} us ({point.name})"[:OBSERVED_LIMIT],
        Text("no later than the others", "不晚于其他进程"),
        joined([part for part in detail if part is not None]),
        action=spec.info.action if status is Status.FAIL else Action.NONE,
    )


def _busy(ranks: Sequence[int], point: _Point) -> Text | None:
    """What one of them waited for meanwhile."""
    arrivals = [point.arrivals[r] for r in ranks]
    return next((m.reason for m in arrivals if m.reason_code == "busy"), None)


def _subject(ranks: Sequence[int], node: str, point: _Point) -> Subject:
    return point.arrivals[ranks[0]].subject if len(ranks) == 1 else Subject("node", node)


def _named(ranks: Sequence[int]) -> str:
    return ", ".join(map(str, ranks[:NAMED])) + (" …" if len(ranks) > NAMED else "")


def _who(point: _Point, late: Late) -> Text:
    if late.why == "alike":
        form = Text(
            "ranks {r} on {n} come last, all about as late: which of them the others wait for is not decided",
            "{n} 上的 rank {r} 到达最晚且程度相近，无法判定其他进程在等待哪一个",
        )
    elif late.why == "clocks":
        form = Text(
            "rank {r} on {n} seems to come last, but no later than its clock may be off: not decided",
            "{n} 上的 rank {r} 看似最晚到达，但未超出时钟偏差的误差范围，无法判定",
        )
    elif late.whole and len(late.ranks) > 1:
        form = Text("all ranks of {n} ({r}) come last", "{n} 的全部进程（rank {r}）到达最晚")
    else:
        form = Text("rank {r} on {n} comes last", "{n} 上的 rank {r} 到达最晚")
    often = Text(
        "{w}; last in {p:.0f} % of {i} iterations, {l} us after the first (median); the others wait {o} us for it",
        "{w}；{i} 次迭代中有 {p:.0f} % 最后到达，比最先到达者晚 {l} us（中位数），其他进程因此等待 {o} us",
    )
    return often.fill(
        w=form.fill(r=_named(late.ranks), n=fold(late.nodes)),
        p=100 * late.last,
        i=point.found.iterations,
        l=microseconds(late.late),
        o=microseconds(late.lost),
    )


def _victims(late: Late, point: _Point) -> Text | None:
    """Who has the longest times, where these are of waiting."""
    if late.longest is None or late.own is None or late.victim is None or late.longest - late.own < late.lost / 2:
        return None
    return Text(
        "the longest times are those of its victims: rank {v} on {n} {t} us, itself {o} us",
        "耗时最长的是受其拖累者：{n} 上的 rank {v} 为 {t} us，而它自身为 {o} us",
    ).fill(v=late.victim, n=point.arrivals[late.victim].node, t=microseconds(late.longest), o=microseconds(late.own))


def _often(said: int, points: int) -> Text | None:
    if points < 2:
        return None
    return Text("so in {k} of {n} measurements", "{n} 次测量中有 {k} 次如此").fill(k=said, n=points)


def _on_hiccups(spec: ProbeSpec, points: Sequence[_Point]) -> list[Verdict]:
    """Ranks, or whole nodes, that stumble again and again while the others do not."""
    from cwai_bench.arrivals import HICCUP, repeated

    if not points or len({len(point.arrivals) for point in points}) > 1:
        return []
    counts = [sum(of_rank) for of_rank in zip(*(point.found.hiccups for point in points), strict=True)]
    iterations = sum(point.found.iterations for point in points)
    arrivals = points[0].arrivals
    left = set(repeated(counts))
    verdicts = []
    for first in sorted(left):
        if first not in left:
            continue
        node = arrivals[first].node
        mates = [m.rank for m in arrivals if m.node == node]
        ranks = mates if left.issuperset(mates) else [first]
        left.difference_update(ranks)
        often = sum(counts[r] for r in ranks)
        said = Text(
            "rank {r} on {n} was {x:g} times as late as it usually is, or more, {k} times in {i} iterations; "
            "other ranks {o:.1f} times on average",
            "{n} 上的 rank {r} 在 {i} 次迭代中有 {k} 次比平时晚 {x:g} 倍以上；其他进程平均 {o:.1f} 次",
        ).fill(
            r=_named(ranks),
            n=node,
            x=HICCUP,
            k=often,
            i=iterations,
            o=(sum(counts) - often) / max(1, len(counts) - len(ranks)),
        )
        subject = _subject(ranks, node, points[0])
        busy = [found for point in points if (found := _busy(ranks, point)) is not None]
        detail = joined([said, *busy[:1]])
        verdicts.append(
            Verdict(spec.info.id, spec.info.kind, subject, [node], Status.WARN, f"{often}/{iterations}", None, detail)
        )
    return verdicts
