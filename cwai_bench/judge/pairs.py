"""What the pairs of a probe say together: a matrix, the parts that are bad by it, and a verdict on each of them.

A part is named once, with the pairs that prove it, instead of each of its pairs. Where nothing is found the pairs keep
their own verdicts. A probe that told its pairs in short (``PairResults``) has one verdict for all that are well.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from cwai_bench.config import Criteria, Criterion
from cwai_bench.goodput import DEFAULTS, Thresholds, cause_of, due
from cwai_bench.judge.found import ALL, OBSERVED_LIMIT, joined
from cwai_bench.judge.paths import because, signs, standings
from cwai_bench.model import (
    Action,
    Evidence,
    Finding,
    Matrix,
    MatrixGap,
    MatrixPair,
    Measurement,
    PairFigure,
    PairResult,
    ProbeSpec,
    ReasonCode,
    Run,
    Scalar,
    Status,
    Subject,
    Verdict,
    stats_of,
)
from cwai_bench.path_bound import PATH, TRANSFER
from cwai_bench.render.matrices import fold_ends
from cwai_bench.render.nodeset import natural
from cwai_bench.render.units import gigabits, microseconds
from cwai_bench.text import Text

if TYPE_CHECKING:
    from cwai_bench.matrix import Bools, Floats, Grid, Ints

SHARED = ("transport", "verb", "operation", "direction", "bytes", "streams")
"""Parameters that tell one matrix of a probe from another."""
SPARSE = 16
"""A matrix of which less than one in so many pairs was tried is kept as a list of them."""
SAID = 8
"""Pairs that a verdict on all of them names."""


@dataclass
class _Look:
    """What came of pairs, one after another: numbers of their ends, and their value, nan when there is none."""

    rows: list[int] = field(default_factory=list)
    columns: list[int] = field(default_factory=list)
    values: list[float] = field(default_factory=list)
    reasons: dict[tuple[int, int], ReasonCode] = field(default_factory=dict)
    """Why those that failed did."""

    def take(self, row: int, column: int, value: float | None, reason: ReasonCode) -> None:
        if value is None:
            self.reasons[row, column] = reason or "error"
        self.rows.append(row)
        self.columns.append(column)
        self.values.append(math.nan if value is None else value)


@dataclass
class _Gathered:
    """The pairs of one matrix, first and second look apart. Their ends are numbered as they come."""

    spec: str
    metric: str
    unit: str
    parameters: dict[str, Scalar]
    ends: dict[str, int] = field(default_factory=dict)
    first: _Look = field(default_factory=_Look)
    again: _Look = field(default_factory=_Look)
    expected: dict[tuple[int, int], float] = field(default_factory=dict)
    common: float | None = None
    """What all of them should reach."""
    short: bool = False
    """Told as PairResults."""

    def end(self, name: str) -> int:
        return self.ends.setdefault(name, len(self.ends))


def matrices_of(run: Run, criteria: Criteria | None) -> list[Matrix]:
    """A matrix for each metric that was measured between three ends or more, or of which something was expected."""
    thresholds = DEFAULTS if criteria is None else criteria.paths
    found = [g for g in _gather(run) if g.first.rows]
    own = set() if criteria is None else {s.id for s in run.plan.probes if criteria.get(s.info.id) is not None}
    _expect_of_the_best(found, own)
    return [_matrix(g, thresholds) for g in found if g.short or g.expected or len(g.ends) > 2]


def _expect_of_the_best(found: Iterable[_Gathered], own: Collection[str]) -> None:
    """Of each metric only the measurement in which its pairs do best is held against what they should reach: one queue
    pair, or small messages, need not fill them. Specs in ``own`` are held against what the person demands instead."""
    best: dict[tuple[str, Scalar], tuple[float, _Gathered]] = {}
    for g in found:
        known = sorted(value for value in g.first.values if value == value)  # noqa: PLR0124 - not nan
        if not known or not (g.expected or g.common is not None):
            continue
        key, middle = (g.metric, g.parameters.get("verb", "")), known[len(known) // 2]
        if key not in best or middle > best[key][0]:
            best[key] = (middle, g)
    telling = {id(g) for _, g in best.values()}
    for g in found:
        if id(g) not in telling or g.spec in own:
            g.expected, g.common = {}, None


def _gather(run: Run) -> Iterable[_Gathered]:
    gathered: dict[tuple[Scalar, ...], _Gathered] = {}

    def of(spec: str, metric: str, unit: str, given: dict[str, Scalar]) -> _Gathered:
        shared = {name: given[name] for name in SHARED if name in given}
        return gathered.setdefault((spec, metric, *shared.values()), _Gathered(spec, metric, unit, shared))

    for m in run.measurements:
        source, arrow, target = m.subject.id.partition("→")
        if m.subject.kind != "link" or not arrow or m.status in ("skip", "aborted") or m.metric in (PATH, TRANSFER):
            continue
        g = of(m.spec, m.metric, m.unit, m.parameters)
        stats = m.stats or stats_of(m.samples)
        value = stats.p50 if stats is not None and m.status == "ok" else None
        row, column = g.end(source), g.end(target)
        (g.again if m.parameters.get("again") else g.first).take(row, column, value, m.reason_code)
        expected, rate = due(m.parameters, m.unit), m.parameters.get("link_speed")
        # A rate that was surpassed is not the rate.
        if expected is not None and not (isinstance(rate, int | float) and value is not None and value > rate):
            g.expected[row, column] = expected.at_full_mtu
    for record in run.pairs:
        g = of(record.spec, record.metric, record.unit, record.parameters)
        g.short = True
        common = due(record.parameters, record.unit)
        g.common = g.common if common is None else common.at_full_mtu
        _take(g, record.pairs, g.again if record.again else g.first)
    return gathered.values()


def _take(g: _Gathered, pairs: Sequence[PairResult], look: _Look) -> None:
    known = g.ends
    for pair in pairs:  # a million of them: what is well takes the short way
        row, column = known.get(pair.source), known.get(pair.target)
        if row is None or column is None:
            row, column = g.end(pair.source), g.end(pair.target)
        if pair.status != "ok" or pair.value is None:
            if pair.status not in ("skip", "aborted"):
                look.take(row, column, None, pair.reason_code)
            continue
        look.rows.append(row)
        look.columns.append(column)
        look.values.append(pair.value)
        if pair.expected is not None:
            g.expected[row, column] = pair.expected


def _matrix(g: _Gathered, thresholds: Thresholds) -> Matrix:
    import numpy as np

    from cwai_bench import matrix

    ends = sorted(g.ends, key=natural)
    place = np.empty(len(ends), dtype=np.int64)
    place[[g.ends[end] for end in ends]] = np.arange(len(ends))
    first = _grid(g, g.first, ends, place)
    again = _grid(g, g.again, ends, place) if g.again.rows else None
    findings = matrix.named(first, again, thresholds)
    dense = len(g.first.rows) * SPARSE >= len(ends) * (len(ends) - 1)
    gaps = [MatrixGap(int(place[i]), int(place[j]), g.first.reasons[i, j]) for i, j in g.first.reasons]
    values = _digits(first.value)
    limits = None if first.expected is None else _digits(first.expected)
    pairs: list[MatrixPair] = []
    if not dense:
        for i, j in np.argwhere(np.isfinite(values)):
            pairs.append(
                MatrixPair(int(i), int(j), float(values[i, j]), None if limits is None else _known(limits[i, j]))
            )
    limit: float | list[list[float | None]] | None = None
    if limits is not None:
        known = np.unique(limits[first.tried & np.isfinite(limits)])
        if known.size == 1:
            limit = float(known[0])
        elif known.size and dense:
            limit = _rows(limits)
    return Matrix(
        g.spec,
        g.metric,
        g.unit,
        g.parameters,
        ends,
        _rows(values) if dense else [],
        pairs,
        sorted(gaps, key=lambda gap: (gap.row, gap.column)),
        findings,
        limit,
    )


def _grid(g: _Gathered, look: _Look, ends: Sequence[str], place: Ints) -> Grid:
    import numpy as np

    from cwai_bench.matrix import Grid

    n = len(ends)
    value, failed = np.full((n, n), np.nan), np.zeros((n, n), dtype=bool)
    rows, columns = place[look.rows], place[look.columns]
    value[rows, columns] = look.values
    failed[rows, columns] = ~np.isfinite(value[rows, columns])
    expected = None
    if g.expected or g.common is not None:
        expected = np.full((n, n), np.nan if g.common is None else g.common)
        for (row, column), should in g.expected.items():
            expected[place[row], place[column]] = should
    return Grid(tuple(ends), g.metric, g.unit, value, failed, expected, higher_is_better=g.unit != "s")


def _digits(values: Floats) -> Floats:
    """Six significant digits: more is not known, and would make the file twice as long."""
    import numpy as np

    with np.errstate(divide="ignore", invalid="ignore"):
        power = np.floor(np.log10(np.abs(values))) - 5
        more, less = 10.0 ** np.maximum(power, 0), 10.0 ** np.maximum(-power, 0)  # both exact up to 10^22
        return np.where(values == 0, 0.0, np.round(values / more * less) / less * more)


def _rows(values: Floats) -> list[list[float | None]]:
    return [[v if v == v else None for v in row] for row in values.tolist()]  # noqa: PLR0124 - nan


def _known(value: float) -> float | None:
    return float(value) if value == value else None  # noqa: PLR0124 - nan


# ------------------------------------------------------------------------------------------- verdicts


def part_verdicts(
    run: Run, spec: ProbeSpec, matrices: Sequence[Matrix], criterion: Criterion | None, thresholds: Thresholds
) -> list[tuple[Finding, Verdict]]:
    """Verdicts on the parts that the matrices of ``spec`` name. Where the person set a criterion, being slower than
    others is a warning."""
    ms = [m for m in run.measurements if m.spec == spec.id]
    return [
        (finding, _on_part(spec, matrix, finding, ms, criterion, thresholds))
        for matrix in matrices
        if matrix.spec == spec.id
        for finding in matrix.findings
    ]


def told_by(parts: Sequence[tuple[Finding, Verdict]], verdict: Verdict) -> bool:
    """Whether the verdict on one pair says less than one on a part, of which this pair is a proof."""
    if verdict.subject.kind != "link" or verdict.reason_code == "wrong_data":
        return False
    source, _, target = verdict.subject.id.partition("→")
    return any(
        (on_part.status is Status.FAIL or verdict.status is not Status.FAIL) and _speaks_of(f, source, target, verdict)
        for f, on_part in parts
    )


def _speaks_of(finding: Finding, source: str, target: str, verdict: Verdict) -> bool:
    sends, receives = source in finding.ends, target in finding.ends
    if finding.kind in ("node", "nic"):
        return (sends and finding.direction != "in") or (receives and finding.direction != "out")
    if any((p.source, p.target) == (source, target) for p in finding.proof):
        return True
    if verdict.status is Status.PASS:
        return False
    return not finding.ends or (sends and receives if finding.kind == "path" else sends or receives)


def group_verdicts(
    run: Run, spec: ProbeSpec, matrices: Sequence[Matrix], criterion: Criterion | None, thresholds: Thresholds
) -> list[Verdict]:
    """A verdict on all pairs together, of a probe that told them in short."""
    if not any(record.spec == spec.id for record in run.pairs):
        return []
    mine = [_on_all(spec, matrix, criterion, thresholds) for matrix in matrices if matrix.spec == spec.id]
    return [verdict for verdict in mine if verdict is not None]


def _on_part(
    spec: ProbeSpec,
    matrix: Matrix,
    finding: Finding,
    ms: Sequence[Measurement],
    criterion: Criterion | None,
    thresholds: Thresholds,
) -> Verdict:
    dead = any(p.value is None for p in finding.proof)
    below = _short_of(finding, matrix.unit, thresholds.fail_below)
    again = any(p.looked_again for p in finding.proof)
    # That it is slower than its peers, seen once and held against nothing else, is no proof yet.
    certain = finding.kind != "flake" and (dead or below or (again and criterion is None))
    status = Status.FAIL if certain else Status.WARN
    pairs = {(p.source, p.target) for p in finding.proof}
    own = [m for m in ms if m.metric == matrix.metric and tuple(m.subject.id.split("→")) in pairs]
    standing = standings(own, thresholds) if finding.expected is not None else {}
    stand = min(standing.values(), key=lambda one: one.share, default=None)
    parts = [_why(finding, matrix, again), _first_reason(own), because(stand, signs(own), thresholds)]
    if not any(m.samples for m in own) and finding.observed is not None:
        expected = due(matrix.parameters, matrix.unit)
        parts.append(None if expected is None else cause_of(expected, finding.observed, thresholds))
    return Verdict(
        spec.info.id,
        spec.info.kind,
        _subject(finding),
        finding.nodes if finding.kind != "ambiguous" else [],
        status,
        _observed(finding, matrix.unit),
        stand.demand(thresholds) if stand is not None else _demand(finding, matrix.unit, thresholds),
        joined([part for part in parts if part is not None]),
        _code(finding, matrix),
        spec.info.action if status is Status.FAIL else Action.NONE,
        [Evidence("pairs", _evidence(finding, matrix.unit))],
    )


def _first_reason(ms: Sequence[Measurement]) -> Text | None:
    """Why the first of those that failed did, in its own words."""
    for m in ms:
        if m.status != "ok" and m.reason is not None:
            return Text("{p}: {r}", "{p}：{r}").fill(p=m.subject.id, r=m.reason)
    return None


def _observed(finding: Finding, unit: str) -> str:
    """The median of its bad pairs and how many they are; of a flake, what came of the worst of them, and then."""

    def shown(value: float | None) -> str:
        return "–" if value is None else _figure(value, unit)

    if finding.kind != "flake":
        return f"{shown(finding.observed)} ({finding.bad}/{finding.tried})"
    first = next((p for p in finding.proof if p.looked_again), finding.proof[0])
    return f"{shown(first.value)}, {shown(first.again)}"


def _short_of(finding: Finding, unit: str, share: float) -> bool:
    if finding.observed is None or finding.expected is None:
        return False
    ratio = finding.observed / finding.expected if unit != "s" else finding.expected / finding.observed
    return ratio < share


def _code(finding: Finding, matrix: Matrix) -> ReasonCode:
    """Why most of its pairs have no figure; none when they have one."""
    if 2 * sum(p.value is None for p in finding.proof) <= len(finding.proof):
        return ""
    why = {(matrix.ends[gap.row], matrix.ends[gap.column]): gap.reason_code for gap in matrix.failed}
    codes: list[ReasonCode] = [why.get((p.source, p.target), "error") for p in finding.proof]
    return max(codes, key=codes.count)


def _subject(finding: Finding) -> Subject:
    """What is accused; where nothing is, the worst pair, or all of them."""
    if not finding.ends:
        return ALL
    if finding.kind == "node" or (finding.kind == "flake" and len(finding.nodes) == 1):
        whole = finding.kind == "node" or len(finding.ends) > 1
        return Subject("node", finding.nodes[0]) if whole or "/" not in finding.ends[0] else _nic(finding.ends[0])
    if finding.kind == "nic":
        return _nic(finding.ends[0])
    if finding.kind == "path":
        return Subject("link", "→".join(finding.ends))
    return Subject("link", f"{finding.proof[0].source}→{finding.proof[0].target}")


def _nic(end: str) -> Subject:
    return Subject("nic", end)


def _why(finding: Finding, matrix: Matrix, again: bool) -> Text:
    """Why this part, and no other."""
    parts = [_reason(finding, matrix, again)]
    of_node = {end for end in matrix.ends if end.partition("/")[0] in finding.nodes}
    if finding.kind in ("node", "nic") and len(of_node) == 1:
        parts.append(
            Text(
                "it has one NIC here, so that the node and its NIC cannot be told apart",
                "该节点仅有一个网卡参与测试，无法区分节点与网卡",
            )
        )
    if finding.kind in ("node", "nic", "path") and again:
        parts.append(Text("tried again: the same", "复测结果相同"))
    if not again and finding.kind != "ambiguous":
        parts.append(Text("seen once, not tried again", "仅测得一次，未复测"))
    found = joined(parts)
    assert found is not None
    return found


def _reason(finding: Finding, matrix: Matrix, again: bool) -> Text:
    counts = {"b": finding.bad, "t": finding.tried, "p": finding.partners}
    if finding.kind in ("node", "nic"):
        only = {
            "": Text("", ""),
            "out": Text(" (only what it sends)", "（仅发送方向）"),
            "in": Text(" (only what it receives)", "（仅接收方向）"),
        }[finding.direction]
        nics = len(finding.ends)
        whole = Text(" of all its {n} NICs", "（全部 {n} 个网卡）").fill(n=nics) if nics > 1 else Text("", "")
        return Text(
            "bad in {b} of {t} pairs{w}{o}, with {p} partners; those are fine with others",
            "{t} 个配对{w}{o}中有 {b} 个异常，涉及 {p} 个对端；这些对端与其他端之间正常",
        ).fill(**counts, w=whole, o=only)
    if finding.kind == "path":
        way = Text("; the way back is fine", "；反方向正常") if finding.direction else Text("", "")
        return Text(
            "only between these two: both are fine with others{w}", "仅此二者之间异常：两端与其他端均正常{w}"
        ).fill(w=way)
    if finding.kind == "flake":
        return Text("bad in {b} pair(s) once, and fine when tried again", "曾有 {b} 个配对异常，复测正常").fill(
            **counts
        )
    if not finding.ends:
        return Text(
            "{b} of {t} pairs are below what was expected, and like the others: no part of its own",
            "{t} 个配对中有 {b} 个低于预期，但彼此相近：没有单独的故障部件",
        ).fill(**counts)
    return Text(
        "{b} of {t} pairs are bad, and the facts do not decide which part is: {e}, or what lies between. "
        "Try each with others that are fine",
        "{t} 个配对中有 {b} 个异常，但无法判定故障部件：{e}，或其间的链路。请让它们分别与正常的端再测",
    ).fill(**counts, e=fold_ends(finding.ends))


def _demand(finding: Finding, unit: str, thresholds: Thresholds) -> Text | None:
    if finding.expected is not None:
        return Text("at least {s:g} % of {e}", "不低于 {e} 的 {s:g} %").fill(
            s=thresholds.fail_below * 100, e=_figure(finding.expected, unit)
        )
    if finding.usual is not None:
        return Text("about {u}, the median of the others", "约 {u}（其他配对的中位数）").fill(
            u=_figure(finding.usual, unit)
        )
    return None


def _figure(value: float, unit: str) -> str:
    if unit == "B/s":
        return f"{gigabits(value)} Gb/s"
    return f"{microseconds(value)} us" if unit == "s" else f"{value:g}"


def _evidence(finding: Finding, unit: str) -> str:
    """A line for each pair that proves it, then those that say that it is not the others."""

    def line(mark: str, p: PairFigure) -> str:
        value = "–" if p.value is None else _figure(p.value, unit)
        more = f", 2: {'–' if p.again is None else _figure(p.again, unit)}" if p.looked_again else ""
        of = f" / {_figure(p.expected, unit)}" if p.expected is not None else ""
        return f"{mark} {p.source} → {p.target}: {value}{more}{of}"

    return "\n".join([line("✕", p) for p in finding.proof] + [line("✓", p) for p in finding.fine])


def _on_all(spec: ProbeSpec, matrix: Matrix, criterion: Criterion | None, thresholds: Thresholds) -> Verdict | None:
    """One verdict on all pairs that no finding speaks of: their median and worst, held against what was expected; or on
    all there are, held against the criterion. None where the findings speak of all."""
    import numpy as np

    values, limits = _arrays(matrix)
    known = np.isfinite(values)
    if criterion is None and known.any():
        known &= ~_accused(matrix)
        if not known.any():
            return None
        values = np.where(known, values, np.nan)
    count = int(np.count_nonzero(known))
    worse = values if matrix.unit != "s" else -values
    observed, status, demand = "", Status.UNKNOWN, None
    detail: Text | None = Text("no pair gave a figure", "没有任何配对测得结果")
    code: ReasonCode = "error"
    if count:
        last = np.unravel_index(np.nanargmin(worse), values.shape)
        middle = _figure(float(np.median(values[known])), matrix.unit)
        observed = f"{count} × {middle}, {_listed(matrix, values, [last])}"
        status, detail, code = Status.PASS, None, ""
        if criterion is not None:
            demand = criterion.words()
            status, detail, code = _held(criterion, matrix, values, worse)
        else:
            with np.errstate(invalid="ignore"):
                share = values / limits if matrix.unit != "s" else limits / values
                slack = known & (share < thresholds.warn_below)
            if slack.any():
                status = Status.WARN
                form = Text(
                    "{n} pairs are below {s:g} % of what was expected: {w}", "{n} 个配对低于预期的 {s:g} %：{w}"
                )
                detail = form.fill(
                    n=np.count_nonzero(slack),
                    s=thresholds.warn_below * 100,
                    w=_listed(matrix, values, _worst(slack, worse)),
                )
    subject = Subject("group", spec.id)
    action = spec.info.action if status is Status.FAIL else Action.NONE
    return Verdict(
        spec.info.id, spec.info.kind, subject, [], status, observed[:OBSERVED_LIMIT], demand, detail, code, action
    )


def _arrays(matrix: Matrix) -> tuple[Floats, Floats]:
    """Its values and what they should be, nan where there is none."""
    import numpy as np

    n = len(matrix.ends)
    values, limits = np.full((n, n), np.nan), np.full((n, n), np.nan)
    if matrix.values:
        values = np.array(matrix.values, dtype=np.float64)
    for pair in matrix.pairs:
        values[pair.row, pair.column] = pair.value
        limits[pair.row, pair.column] = np.nan if pair.expected is None else pair.expected
    if matrix.expected is not None and matrix.values:
        limits[:] = np.array(matrix.expected, dtype=np.float64)
    return values, limits


def _accused(matrix: Matrix) -> Bools:
    """Pairs that a finding speaks of."""
    import numpy as np

    own = np.isin(matrix.ends, [end for f in matrix.findings for end in f.ends])
    if any(not f.ends for f in matrix.findings):
        own[:] = True
    accused: Bools = own[:, None] | own[None, :]
    return accused


def _held(
    criterion: Criterion, matrix: Matrix, values: Floats, worse: Floats
) -> tuple[Status, Text | None, ReasonCode]:
    import numpy as np

    unit, scale = ("bit/s", 8) if matrix.unit == "B/s" else (matrix.unit, 1)
    if not criterion.selects(matrix.parameters) or not criterion.fits(unit):
        reason = Text("no measurement is what the criterion is about", "没有与判据相符的测量")
        return Status.UNKNOWN, reason, "not_comparable"
    bad = np.zeros(values.shape, dtype=bool)
    known = np.isfinite(values)
    bad[known] = [not criterion.holds(value) for value in (values[known] * scale).tolist()]
    if not bad.any():
        return Status.PASS, None, ""
    form = Text("{n} pairs do not meet it: {w}", "{n} 个配对不满足：{w}")
    words = _listed(matrix, values, _worst(bad, worse))
    return Status.FAIL, form.fill(n=np.count_nonzero(bad), w=words), ""


def _worst(cells: Bools, worse: Floats) -> list[tuple[int, int]]:
    """The worst of ``cells``, at most one more than are named."""
    import numpy as np

    found = np.argwhere(cells)
    order = np.argsort(worse[cells], kind="stable")[: SAID + 1]
    return [(int(i), int(j)) for i, j in found[order]]


def _listed(matrix: Matrix, values: Floats, cells: Sequence[tuple[Any, ...]]) -> str:
    shown = [
        f"{_figure(float(values[i, j]), matrix.unit)} ({matrix.ends[i]}→{matrix.ends[j]})" for i, j in cells[:SAID]
    ]
    return ", ".join(shown) + (" …" if len(cells) > SAID else "")
