"""Transfers over several paths: figures by path and policy, what each path delivered over time, what made one fail."""

from __future__ import annotations

import os
from collections.abc import Sequence

from cwai_bench.model import Measurement, PathFault, PathFinding, Report, Stats, Transfer, stats_of
from cwai_bench.path_bound import OURS, PATH, Figures, figures_of
from cwai_bench.render import chart, labels, units
from cwai_bench.render.nodeset import fold, natural
from cwai_bench.render.table import Cell, Column, Figure, Row, Section, Table
from cwai_bench.text import Text, plain

DRAWN = 12
"""Transfers that are drawn; those in which something happened first. report.json has them all."""
LANES_DRAWN = 32
"""Paths up to which a transfer is drawn."""
CHANGES_SHOWN = 200
_BAD = ("suspect", "failed")


def section(report: Report) -> Section | None:
    found = figures_of(report.measurements)
    if not found and not report.transfers:
        return None
    drawn = sorted(report.transfers, key=lambda t: not (t.changes or t.planted))[:DRAWN]
    tables = [
        *_faults(report.path_faults),
        *([_policies(found), _paths(found)] if found else []),
        *_changes(drawn),
    ]
    figures = [_timeline(t) for t in drawn if 0 < len(t.paths) <= LANES_DRAWN]
    headlines = [headline for one in found if OURS in one.goodput for headline in [_headline(one)]]
    return Section("multipath", labels.MULTIPATH, tables, figures, labels.MULTIPATH_NOTE, headlines)


def _headline(found: Figures) -> tuple[Text, Text]:
    what = labels.OURS_REACHES.fill(lane=_between(found), scenario=labels.SCENARIO[found.scenario])
    much, share = units.gigabits(found.goodput[OURS]), found.share()
    if share is None:
        return what, plain(f"{OURS} {much} Gb/s")
    return what, labels.OURS_SHARE.fill(
        much=much, share=f"{share:.1%}", bound=units.gigabits(found.bound), paths=len(found.alone)
    )


def _between(found: Figures) -> str:
    rdma = any(m.parameters.get("transport") == "verbs" for m in found.measurements)
    return f"{found.lane} (RDMA)" if rdma else found.lane


# --------------------------------------------------------------------------------------------- figures


def _policies(found: Sequence[Figures]) -> Table:
    columns = [
        Column(labels.BETWEEN, words=True),
        Column(labels.SCENARIO_LABEL),
        Column(labels.POLICY, words=True),
        Column(labels.PATHS_COUNT, numeric=True),
        Column(labels.MEDIAN_GBPS, numeric=True),
        Column(labels.LOW_GBPS, numeric=True),
        Column(labels.HIGH_GBPS, numeric=True),
        Column(labels.SUM_GBPS, numeric=True),
        Column(labels.OF_BOUND, numeric=True),
        Column(labels.REPETITIONS, numeric=True),
        Column(labels.DATA, words=True),
    ]
    rows = []
    for one in found:
        by_policy: dict[str, list[Measurement]] = {}
        for m in one.measurements:
            if m.metric != PATH:
                by_policy.setdefault(str(m.parameters.get("policy")), []).append(m)
        order = sorted(by_policy, key=lambda policy: (policy != OURS, -one.goodput.get(policy, 0.0)))
        for policy in order:
            share, outcome = one.share(policy), _outcome(by_policy[policy])
            cells = [
                Cell(_between(one)),
                Cell(labels.SCENARIO[one.scenario]),
                Cell(labels.POLICY_NAME.get(policy, plain(policy))),
                Cell(str(len(one.alone))),
                *_spread(by_policy[policy]),
                Cell("–" if share is None else units.gigabits(one.bound)),
                Cell("–" if share is None else f"{share:.1%}"),
                Cell(str(len(_values(by_policy[policy])))),
                outcome,
            ]
            rows.append(Row(cells, bad=outcome.bad))
    return Table(labels.POLICY_TITLE, columns, rows)


def _paths(found: Sequence[Figures]) -> Table:
    columns = [
        Column(labels.PATH, words=True),
        Column(labels.SCENARIO_LABEL),
        Column(labels.MEDIAN_GBPS, numeric=True),
        Column(labels.LOW_GBPS, numeric=True),
        Column(labels.HIGH_GBPS, numeric=True),
        Column(labels.REPETITIONS, numeric=True),
        Column(labels.DATA, words=True),
    ]
    rows = []
    for one in found:
        for name in sorted(one.alone, key=natural):
            ms = [m for m in one.measurements if m.metric == PATH and m.subject.id == name]
            ms = [m for m in ms if m.parameters.get("repetition")] or ms
            outcome = _outcome(ms)
            cells = [
                Cell(name),
                Cell(labels.SCENARIO[one.scenario]),
                *_spread(ms),
                Cell(str(len(_values(ms)))),
                outcome,
            ]
            rows.append(Row(cells, bad=outcome.bad))
    return Table(labels.PATH_ALONE, columns, rows, folded=len(rows) > 12)


def _values(ms: Sequence[Measurement]) -> list[float]:
    stats: list[Stats | None] = [m.stats or stats_of(m.samples) for m in ms if m.status == "ok"]
    return [s.p50 for s in stats if s is not None]


def _spread(ms: Sequence[Measurement]) -> list[Cell]:
    """Median, lowest and highest of the repetitions."""
    stats = stats_of(_values(ms))
    if stats is None:
        return [Cell("–")] * 3
    return [Cell(units.gigabits(value)) for value in (stats.p50, stats.min, stats.max)]


def _outcome(ms: Sequence[Measurement]) -> Cell:
    if any(m.correct is False for m in ms):
        return Cell(labels.DATA_WRONG, bad=True)
    broken = [m for m in ms if m.status != "ok"]
    if broken:
        first = broken[0]
        return Cell(first.reason or labels.MEASURE_STATUS[first.status], bad=first.status != "skip")
    return Cell(labels.DATA_RIGHT if all(m.correct for m in ms) else labels.DATA_NOT_CHECKED)


# ------------------------------------------------------------------------------------------- over time


def _name(transfer: Transfer, path: int) -> str:
    one = transfer.paths[path]
    return one.source if one.source == one.target else f"{one.source}→{one.target}"


def _lane(transfer: Transfer) -> str:
    return transfer.source if transfer.source == transfer.target else f"{transfer.source}→{transfer.target}"


def _end(transfer: Transfer) -> float:
    return transfer.step * max((len(path.timeline) for path in transfer.paths), default=0)


def _moments(transfer: Transfer) -> list[tuple[float, int, Text, bool]]:
    """What happened while it ran, in its order: when, to which path, in words, and whether it is bad."""
    end = _end(transfer)
    found = []
    for one in transfer.planted:
        kind = labels.SCENARIO["cut" if one.kind == "cut" else "degraded"]
        found.append((one.begin, one.path, labels.PLANTED.fill(what=kind), True))
        if one.end <= end:
            found.append((one.end, one.path, labels.PLANTED_OVER.fill(what=kind), False))
    for change in transfer.changes:
        why = labels.PATH_CAUSE.get(change.cause, plain(change.cause))
        if change.code:
            why = Text(f"{why.en}: {os.strerror(change.code)}", f"{why.zh}：{os.strerror(change.code)}")
        state = labels.PATH_STATE[change.state]
        if transfer.paths[change.path].connections > 1:
            state = labels.OF_CONNECTION.fill(n=change.connection + 1, what=state)
        words = Text("{s} ({w})", "{s}（{w}）").fill(s=state, w=why)
        found.append((change.at, change.path, words, change.state in _BAD))
    return sorted((one for one in found if one[0] <= end), key=lambda one: one[:2])


def _timeline(transfer: Transfer) -> Figure:
    moments = _moments(transfer)
    end = _end(transfer)
    lanes = [
        chart.Flow(
            _name(transfer, k),
            [count / transfer.step for count in path.timeline],
            [(at, number + 1, bad) for number, (at, of, _, bad) in enumerate(moments) if of == k],
            [(one.begin, min(one.end, end)) for one in transfer.planted if one.path == k],
        )
        for k, path in enumerate(transfer.paths)
    ]
    svg = chart.flows(
        lanes, transfer.step, labels.AFTER_FIRST_BYTE, units.short, lambda v: f"{units.short(v * 8e-9)} Gb/s"
    )
    given = {
        "lane": _lane(transfer),
        "scenario": labels.SCENARIO.get(transfer.scenario, plain(transfer.scenario)),
        "policy": transfer.policy,
        "size": units.size(transfer.bytes),
    }
    if transfer.seconds is None:
        return Figure(labels.PATH_TIMELINE_ENDED.fill(**given, why=transfer.ended or labels.DASH), svg, wide=True)
    return Figure(labels.PATH_TIMELINE.fill(**given, seconds=units.short(transfer.seconds)), svg, wide=True)


def _changes(transfers: Sequence[Transfer]) -> list[Table]:
    """What the marks of the pictures mean."""
    tables = []
    columns = [
        Column(plain("#"), numeric=True),
        Column(labels.AFTER_FIRST_BYTE, numeric=True),
        Column(labels.PATH, words=True),
        Column(labels.WHAT, words=True),
    ]
    for transfer in transfers:
        moments = _moments(transfer)[:CHANGES_SHOWN]
        if not moments:
            continue
        rows = [
            Row([Cell(str(i + 1)), Cell(units.number(at, 3)), Cell(_name(transfer, path)), Cell(words)], bad=bad)
            for i, (at, path, words, bad) in enumerate(moments)
        ]
        scenario = labels.SCENARIO.get(transfer.scenario, plain(transfer.scenario))
        title = Text("{w}: {l}, {s}, {p}", "{w}：{l}，{s}，{p}").fill(
            w=labels.PATH_CHANGES, l=_lane(transfer), s=scenario, p=transfer.policy
        )
        tables.append(Table(title, columns, rows, folded=len(rows) > 12))
    return tables


# ------------------------------------------------------------------------------------------ what it was


def _faults(faults: Sequence[PathFault]) -> list[Table]:
    if not faults:
        return []
    columns = [
        Column(labels.TIME_UTC),
        Column(labels.PATH_FAILED, words=True),
        Column(labels.FINDING, words=True),
        Column(labels.CONFIDENCE, numeric=True),
        Column(labels.EVIDENCE, words=True),
        Column(labels.DRAIN, words=True),
    ]
    rows = []
    for fault in faults:
        finding = fault.finding
        what = labels.ALL_FINE if finding is None else part_of(finding)
        if fault.rehearsed:
            what = labels.REHEARSED.fill(what=what)
        cells = [
            Cell(units.clock(fault.time)),
            Cell(", ".join(fault.paths)),
            Cell(what),
            Cell("–" if finding is None else f"{finding.confidence:.0%}"),
            Cell(_evidence(fault, finding)),
            Cell(labels.DASH if finding is None else _drain(finding)),
        ]
        rows.append(Row(cells, bad=finding is not None and not fault.rehearsed))
    return [Table(labels.PATH_FAULTS, columns, rows)]


def part_of(finding: PathFinding) -> Text:
    """The part that a finding names, or those of which it may be one."""
    if finding.kind == "ambiguous":
        parts = [
            Text("{k} {e}", "{k} {e}").fill(
                k=labels.PATH_PART[c.kind], e=" ".join([*[" ↔ ".join(c.ends)] * bool(c.ends), f"({c.probability:.0%})"])
            )
            for c in finding.candidates
        ]
        either = Text(" or ".join(p.en for p in parts), " 或 ".join(p.zh for p in parts))
        return Text("{k}: {e}", "{k}：{e}").fill(k=labels.PATH_PART["ambiguous"], e=either)
    ends = " ↔ ".join(finding.ends) if finding.kind == "path" else ", ".join(finding.ends)
    return Text("{k} {e}", "{k} {e}").fill(k=labels.PATH_PART[finding.kind], e=ends)


def _evidence(fault: PathFault, finding: PathFinding | None) -> Text:
    made = Text("{n} TCP probes", "{n} 次 TCP 探测").fill(n=fault.probes)
    if finding is None:
        return made
    bad = ", ".join(f"{p.source} ↔ {p.target} {p.failed + p.slow}/{p.tried}" for p in finding.proof[:4])
    fine = ", ".join(f"{p.source} ↔ {p.target} {p.tried - p.failed - p.slow}/{p.tried}" for p in finding.fine[:4])
    said = Text("{m}; bad: {b}", "{m}；异常：{b}").fill(m=made, b=bad or "–")
    return Text("{s}; fine: {f}", "{s}；正常：{f}").fill(s=said, f=fine) if fine else said


def _drain(finding: PathFinding) -> Text:
    what = [*finding.drain.nics] if not finding.drain.nodes else [fold(finding.drain.nodes)]
    return plain(", ".join(what)) if what else labels.ACTION[finding.drain.action]
