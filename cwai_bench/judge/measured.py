"""Measurements against the data that should have arrived and the criterion that a person gave."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence

import msgspec

from cwai_bench.config import Criteria, Criterion
from cwai_bench.goodput import DEFAULTS, Thresholds
from cwai_bench.judge.arrivals import arrival_verdicts
from cwai_bench.judge.collectives import Found, of_spec
from cwai_bench.judge.found import ALL, OBSERVED_LIMIT, joined
from cwai_bench.judge.gpus import gpu_verdicts
from cwai_bench.judge.multipath import multipath_verdicts
from cwai_bench.judge.pairs import group_verdicts, part_verdicts, told_by
from cwai_bench.judge.paths import Standing, Standings, because, signs
from cwai_bench.judge.slow_part import SLOW_PART, slow_part_verdicts
from cwai_bench.model import (
    Action,
    Matrix,
    Measurement,
    ProbeSpec,
    ReasonCode,
    Run,
    Scalar,
    Stats,
    Status,
    Subject,
    Verdict,
    stats_of,
)
from cwai_bench.render.units import gigabits, gigabytes, microseconds, size
from cwai_bench.text import Text

_NO_PATHS: Standings = {}
COLLECTIVE = ("mpi", "nccl", "hccl", "loopback")
"""Scopes of probes that measure a collective library."""
_JUDGES: dict[str, Callable[[Run, ProbeSpec, Criterion | None], list[Verdict]]] = {
    "gpu": gpu_verdicts,
    "multipath": multipath_verdicts,
}
"""By scope, who judges figures that are of a kind of their own."""
_BESIDE = (".arrival", ".device")
"""Of a collective: what stands beside its time."""


def probe_verdicts(
    run: Run,
    spec: ProbeSpec,
    criteria: Criteria | None,
    paths: Standings = _NO_PATHS,
    matrices: Sequence[Matrix] = (),
) -> list[Verdict]:
    """One verdict for each subject that the probe measured; what all ranks did together is one subject.

    An UNKNOWN besides when it measured nothing, or did not come to its end. ``paths``: how those of the whole run do;
    only the best figure of each counts, for that shows what it can do. ``matrices``: what the pairs say together; those
    that prove a part to be bad are told by the verdict on that.
    """
    criterion = None if criteria is None else criteria.get(spec.info.id)
    if spec.info.id.endswith(SLOW_PART) or spec.info.scope in _JUDGES:
        judges = _JUDGES.get(spec.info.scope)
        told = slow_part_verdicts(run, spec) if judges is None else judges(run, spec, criterion)
        return told if told and not _unfinished(run, spec) else [*told, _unmeasured(run, spec)]
    by_subject: dict[Subject, list[Measurement]] = {}
    for m in run.measurements:
        if m.spec == spec.id and not m.metric.endswith(_BESIDE):
            by_subject.setdefault(ALL if m.subject.kind == "rank" else m.subject, []).append(m)
    kin = {s.id for s in run.plan.probes if s.info.id == spec.info.id}
    # What a criterion is not about is left alone by it, if there is something in the run that it is about.
    if criterion is not None and _meant(criterion, [m for m in run.measurements if m.spec in kin]):
        about = {subject: criterion if _meant(criterion, ms) else None for subject, ms in by_subject.items()}
    else:
        about = dict.fromkeys(by_subject, criterion)
    thresholds = DEFAULTS if criteria is None else criteria.paths
    own = {
        subject: found
        for (subject, _), found in sorted(paths.items(), key=lambda path: -path[1].share)
        if found.spec == spec.id
    }
    collective = of_spec(run, spec) if spec.info.scope in COLLECTIVE else None
    verdicts = [
        _measured(spec, subject, ms, about[subject], own.get(subject), thresholds, collective)
        for subject, ms in by_subject.items()
    ]
    parts = part_verdicts(run, spec, matrices, criterion, thresholds)
    verdicts = [v for v in verdicts if not told_by(parts, v)] + [v for _, v in parts]
    verdicts += group_verdicts(run, spec, matrices, criterion, thresholds)
    if collective is not None:
        verdicts += arrival_verdicts(run, spec)
    if verdicts and not _unfinished(run, spec):
        return verdicts
    end = _unmeasured(run, spec)
    if ALL not in by_subject:
        return [*verdicts, end]
    return [_cut_short(v, end) if v.subject == ALL and v.status is Status.PASS else v for v in verdicts]


def _unfinished(run: Run, spec: ProbeSpec) -> bool:
    """True when a rank began the probe and is not known to have ended it."""
    states = {state: {e.rank for e in run.events if e.item == spec.id and e.state == state} for state in _ITEM_STATES}
    return bool(states["item_begin"] - states["item_end"])


_ITEM_STATES = ("item_begin", "item_end")


def _cut_short(verdict: Verdict, end: Verdict) -> Verdict:
    """What was measured is kept and shown; why it is not all of it is the verdict."""
    return msgspec.structs.replace(
        verdict, status=end.status, detail=end.detail, reason_code=end.reason_code, action=Action.NONE
    )


def _unmeasured(run: Run, spec: ProbeSpec) -> Verdict:
    lost = [e for e in run.events if e.state in ("died", "stalled", "lost")]
    code: ReasonCode = "error"
    detail = Text("it was planned, and did not come to its end", "已列入计划，但未能完成")
    if lost:
        code = "rank_lost"
        detail = Text(
            "it did not come to its end: rank {r} on {n} was lost", "未能完成：{n} 上的 rank {r} 已丢失"
        ).fill(r=lost[0].rank, n=lost[0].node)
    elif run.settings.get("interrupted") or any(not n.present for n in run.nodes):
        code = "aborted"
        detail = Text("the run ended before it", "运行在此项之前已结束")
    return Verdict(
        spec.info.id,
        spec.info.kind,
        Subject("group", spec.id),
        [],
        Status.UNKNOWN,
        "",
        None,
        detail,
        code,
    )


def _measured(
    spec: ProbeSpec,
    subject: Subject,
    ms: list[Measurement],
    criterion: Criterion | None,
    path: Standing | None,
    thresholds: Thresholds,
    collective: Found | None,
) -> Verdict:
    info = spec.info
    nodes = [ms[0].node] if len({m.node for m in ms}) == 1 and subject.kind != "group" else []

    def verdict(
        status: Status,
        observed: str = "",
        detail: Text | None = None,
        code: ReasonCode = "",
        expected: Text | None = None,
        at: Sequence[str] = nodes,
    ) -> Verdict:
        action = info.action if status is Status.FAIL else Action.NONE
        return Verdict(info.id, info.kind, subject, list(at), status, observed, expected, detail, code, action)

    good = [m for m in ms if m.status == "ok" and m.samples]
    wrong = [m for m in ms if m.correct is False]
    if wrong:
        blamed = list(dict.fromkeys(m.node for m in wrong))
        receivers = list(dict.fromkeys(m.subject for m in wrong))
        judged = verdict(
            Status.FAIL,
            ", ".join(filter(None, map(_damage, wrong[:4]))) or _summary(good),
            joined([_wrong(m, {} if collective is None else collective.nics) for m in wrong[:8]]),
            "wrong_data",
            at=blamed if len(blamed) == 1 else [],
        )
        # Of a group, what one rank alone received is said of that rank.
        return judged if len(receivers) > 1 else msgspec.structs.replace(judged, subject=receivers[0])
    broken = [m for m in ms if m.status in ("error", "timeout", "aborted")]
    told = signs(ms)
    if broken:
        codes: dict[str, ReasonCode] = {"timeout": "timeout", "aborted": "aborted"}
        first = broken[0]
        reason = first.reason or Text("it ended with {s}", "测量状态为 {s}").fill(s=first.status)
        return verdict(
            Status.UNKNOWN,
            _summary(good),
            joined([reason, *(sign.text for sign in told)]),
            first.reason_code or codes.get(first.status, "error"),
        )
    skipped = [m for m in ms if m.status == "skip"]
    if not good:
        if skipped:
            return verdict(Status.SKIP, "", skipped[0].reason, skipped[0].reason_code or "unsupported")
        return verdict(Status.UNKNOWN, "", Text("it gave no samples", "没有采到样本"), "error")
    silent = _silent_ranks(good)
    if silent:
        reason = Text("no result of rank {r}", "缺少 rank {r} 的结果").fill(r=", ".join(map(str, silent[:20])))
        return verdict(Status.UNKNOWN, _summary(good), reason, "rank_lost")
    detail = skipped[0].reason if skipped else None
    found = path if criterion is None else None
    parts = [detail, because(found, told, thresholds)]
    detail = joined([part for part in parts if part is not None])
    if criterion is not None:
        judged = _held_against(criterion, good, verdict, detail)
    elif collective is not None:
        judged = _against_links(collective, good, verdict, detail)
    else:
        judged = verdict(
            Status.PASS if found is None else found.status,
            _summary(good),
            detail,
            expected=None if found is None else found.demand(thresholds),
        )
    if judged.status is Status.PASS and any(sign.fault for sign in told):
        return msgspec.structs.replace(judged, status=Status.WARN)
    return judged


def _against_links(
    found: Found, ms: list[Measurement], verdict: Callable[..., Verdict], detail: Text | None
) -> Verdict:
    """A collective against what its links should carry, and what its library says of how it went. What was asked for
    and not used is a fault whatever the figure is."""
    standing = found.standing
    status = Status.PASS if standing is None else standing.status
    parts = [detail]
    if standing is not None and status is not Status.PASS:
        parts.append(standing.words)
    faults = [sign.text for sign in found.signs if sign.fault]
    if faults:
        status = Status.FAIL
    if found.mixed is not None:
        parts.append(found.mixed)
        status = Status.WARN if status is Status.PASS else status
    if status is not Status.PASS:
        parts += [*faults, *(sign.text for sign in found.signs if not sign.fault), *found.published]
    told = [part for part in parts if part is not None]
    return verdict(
        status,
        _summary(ms),
        joined(told) if told else None,
        "not_comparable" if status is Status.UNKNOWN else "",
        None if standing is None else standing.demand(),
    )


def _silent_ranks(ms: list[Measurement]) -> list[int]:
    """Ranks that a collective counts on and that did not report every size that others did."""
    by_size: dict[Scalar | None, set[int]] = {}
    for m in ms:
        by_size.setdefault(m.parameters.get("bytes"), set()).add(m.rank)
    expected = ms[0].parameters.get("ranks") if "bus_factor" in ms[0].parameters else None
    if not isinstance(expected, int):
        return []
    return sorted(set().union(*(set(range(expected)) - ranks for ranks in by_size.values())))


def _meant(criterion: Criterion, ms: Iterable[Measurement]) -> list[tuple[Measurement, str, float]]:
    """The measurements that a criterion is about, each with a unit that it is written in and the median in that."""
    return [
        (m, unit, value)
        for m in ms
        if criterion.selects(m.parameters)
        for unit, value in _medians(m).items()
        if criterion.fits(unit)
    ]


def _held_against(
    criterion: Criterion, ms: list[Measurement], verdict: Callable[..., Verdict], detail: Text | None
) -> Verdict:
    """Each measurement that the criterion selects must hold by its median."""
    words = criterion.words()
    meant = _meant(criterion, ms)
    if not meant:
        reason = Text("no measurement is what the criterion is about", "没有与判据相符的测量")
        return verdict(Status.UNKNOWN, _summary(ms), reason, "not_comparable", words)
    bad = [(m, unit) for m, unit, value in meant if not criterion.holds(value)]
    if not bad:
        return verdict(Status.PASS, _summary(ms), detail, "", words)
    return verdict(Status.FAIL, ", ".join(_figure(m, unit) for m, unit in bad[:4]), detail, "", words)


def _medians(m: Measurement) -> dict[str, float]:
    """The median in the units of criteria. A collective is judged by its time, or by its bus bandwidth (pipelined, as
    nccl-tests has it, where it was measured so)."""
    median = _stats(m).p50
    if m.unit == "B/s":
        return {"bit/s": median * 8}
    count, factor = m.parameters.get("bytes"), m.parameters.get("bus_factor")
    if m.unit == "s" and median > 0 and isinstance(count, int) and isinstance(factor, int | float):
        pipelined = m.parameters.get("pipelined")
        each = pipelined if isinstance(pipelined, int | float) and pipelined > 0 else median
        return {"s": median, "bit/s": count * factor / each * 8}
    return {m.unit: median}


def _stats(m: Measurement) -> Stats:
    found = m.stats or stats_of(m.samples)
    assert found is not None  # only measurements with samples come here
    return found


def _figure(m: Measurement, unit: str) -> str:
    """The median of a measurement as a person reads it, and at which message size."""
    medians = _medians(m)
    if unit == "bit/s" and len(medians) > 1:
        return f"{gigabytes(medians[unit] / 8)} GB/s busbw{_where(m)}"
    if unit == "bit/s":
        return f"{gigabits(medians[unit] / 8)} Gb/s{_where(m)}"
    if unit == "s":
        # A tool that gives no samples may tell this of them.
        told = m.parameters.get("told_p99")
        p99 = told if isinstance(told, int | float) else _stats(m).p99
        return f"p50 {microseconds(medians[unit])} us, p99 {microseconds(p99)} us{_where(m)}"
    return f"{medians[unit]:g}{_where(m)}"


def _where(m: Measurement) -> str:
    """At which message size, over how many streams, and whether both ways at once."""
    count, streams = m.parameters.get("bytes"), m.parameters.get("streams")
    parts = [size(count)] if isinstance(count, int) and not isinstance(count, bool) else []
    parts += [f"×{streams}"] if isinstance(streams, int) and streams > 1 else []
    parts += ["⇄"] if m.parameters.get("direction") == "two-way" else []
    return f" ({', '.join(parts)})" if parts else ""


def _summary(ms: list[Measurement]) -> str:
    """The highest bandwidth and the time of the smallest message, of each metric; of ranks together, the slowest."""
    points: dict[tuple[str, Scalar | None], list[Measurement]] = {}
    for m in ms:
        points.setdefault((m.metric, m.parameters.get("bytes")), []).append(m)
    together = "bus_factor" in ms[0].parameters if ms else False
    best: dict[tuple[str, str], Measurement] = {}
    for m in ((min if together else max)(point, key=_speed) for point in points.values()):
        for unit, value in _medians(m).items():
            known = best.setdefault((m.metric, unit), m)
            if _bytes(m) < _bytes(known) if unit == "s" else value > _medians(known)[unit]:
                best[m.metric, unit] = m
    several = len({metric for metric, _ in best}) > 1
    shown = [(f"{metric} " if several else "") + _figure(m, unit) for (metric, unit), m in best.items()]
    return "; ".join(shown)[:OBSERVED_LIMIT]


def _bytes(m: Measurement) -> float:
    count = m.parameters.get("bytes")
    return count if isinstance(count, int | float) else 0.0


def _speed(m: Measurement) -> float:
    """Larger is better: bandwidth, or time the other way round."""
    return -_stats(m).p50 if m.unit == "s" else _stats(m).p50


def _damage(m: Measurement) -> str:
    """How much of it is wrong, where that was counted: ``3 wrong from 81920 on (16 MiB)``."""
    bad, first = m.parameters.get("bad_count"), m.parameters.get("first_bad_index")
    return f"{bad} wrong from {first} on{_where(m)}" if bad and first is not None else ""


def _wrong(m: Measurement, nics: Mapping[tuple[str, int], Text]) -> Text:
    """Who got wrong data, where in it, and over which NIC."""
    known = {
        k: v
        for k, v in m.parameters.items()
        if k in ("first_bad_index", "bad_count", "operation", "dtype", "reduction", "in_place", "bytes", "peer", "card")
    }
    at = ", ".join(f"{k} {v}" for k, v in known.items())
    arrived = Text("the data that arrived was wrong", "收到的数据有误")
    # That the machine was busy excuses a figure, and no wrong data.
    said = arrived if m.reason is None or m.reason_code == "busy" else m.reason
    told = Text("rank {r} on {n}: {s} ({a})", "{n} 上的 rank {r}：{s}（{a}）").fill(
        r=m.rank, n=m.node, s=said, a=at or m.metric
    )
    nic = nics.get((m.node, m.rank))
    return told if nic is None else Text("{t}, {n}", "{t}，{n}").fill(t=told, n=nic)
