"""The matrices of a report: the parts that they name as a table, and all pairs as a picture."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING

from cwai_bench.model import Finding, Matrix, Report
from cwai_bench.render import chart, labels, raster, units
from cwai_bench.render.nodeset import fold
from cwai_bench.render.table import Cell, Column, Figure, Row, Table
from cwai_bench.text import Text, plain

if TYPE_CHECKING:
    from cwai_bench.render.raster import Bools, Floats

CELLS_LIMIT = 32
"""Ends up to which each pair is a cell with its number in it; beyond, the picture is an image."""
PICTURES = 4
"""Pictures of all pairs: one for each metric, those with a part that is named first."""
BAD_SHARE, LONG_SHARE = 0.925, 1.375
"""Of a part that is named, pairs that are so much slower than usual are shown as bad (as ``cwai_bench/matrix.py``)."""


def drawn(matrices: Sequence[Matrix]) -> list[Figure]:
    """A picture for each metric of which all pairs were measured: that with most findings, of these the largest size.
    Of a ring there is none: its pairs are better told by rows."""
    chosen: dict[str, Matrix] = {}
    for matrix in sorted(matrices, key=lambda m: (-len(m.findings), -_size(m))):
        if len(matrix.ends) > 2 and _count(matrix) > len(matrix.ends):
            chosen.setdefault(matrix.metric, matrix)
    return [_picture(matrix) for matrix in list(chosen.values())[:PICTURES]]


def _size(matrix: Matrix) -> int:
    size = matrix.parameters.get("bytes")
    return size if isinstance(size, int) else 0


def _count(matrix: Matrix) -> int:
    """How many pairs it shows; none of those that are kept as a list."""
    if not matrix.values:
        return 0
    return sum(len(row) - row.count(None) for row in matrix.values) + len(matrix.failed)


def _show(matrix: Matrix) -> tuple[Callable[[float], str], Text]:
    if matrix.unit == "B/s":
        return units.gigabits, labels.GBPS
    return (units.microseconds, labels.US) if matrix.unit == "s" else (units.number, plain(matrix.unit))


def _test(matrix: Matrix) -> Text:
    """The metric, and what tells this measurement of it from others."""
    streams, direction = matrix.parameters.get("streams"), matrix.parameters.get("direction")
    more = [f"×{streams}"] if isinstance(streams, int) and streams > 1 else []
    more += ["⇄"] if direction == "two-way" else []
    return plain(" ".join([matrix.metric, *more]))


def _picture(matrix: Matrix) -> Figure:
    import numpy as np

    show, unit = _show(matrix)
    n = len(matrix.ends)
    values: Floats = np.array(matrix.values, dtype=np.float64)
    dead: Bools = np.zeros((n, n), dtype=bool)
    for gap in matrix.failed:
        dead[gap.row, gap.column] = True
    bad = _bad(matrix, values)
    caption = labels.ALL_PAIRS.fill(metric=_test(matrix), unit=unit, size=units.size(_size(matrix)))
    if n <= CELLS_LIMIT:
        cells = {(int(i), int(j)): float(values[i, j]) for i, j in np.argwhere(np.isfinite(values))}
        gaps = sorted((gap.row, gap.column) for gap in matrix.failed)
        framed = {(int(i), int(j)) for i, j in np.argwhere(bad)}
        return Figure(caption, chart.heatmap(matrix.ends, matrix.ends, cells, show, gaps, framed), wide=True)
    words = (unit, labels.SCALE_BAD, labels.SCALE_DEAD, labels.SCALE_BLANK)
    order = _by_rail(matrix, np.isfinite(values) | dead)
    ends, both = [matrix.ends[i] for i in order], np.ix_(order, order)
    marks = _marks(matrix, {end: i for i, end in enumerate(ends)})
    svg = raster.picture(ends, values[both], dead[both], bad[both], marks, show, words)
    counts = labels.PAIR_COUNTS.fill(caption=caption, n=n, m=_count(matrix), d=len(matrix.failed))
    return Figure(counts, svg, wide=True)


def _bad(matrix: Matrix, values: Floats) -> Bools:
    """Pairs of the parts that are named, where they are slow."""
    import numpy as np

    at = {end: i for i, end in enumerate(matrix.ends)}
    found: Bools = np.zeros(values.shape, dtype=bool)
    for finding in matrix.findings:
        usual = finding.usual or finding.expected
        if not finding.ends or finding.kind == "flake" or not usual:
            continue
        own = [at[end] for end in finding.ends]
        cells: Bools = np.zeros(values.shape, dtype=bool)
        if finding.kind == "path":
            cells[own[0], own[1]] = True
            cells[own[1], own[0]] = not finding.direction
        else:
            cells[own] = finding.direction != "in"
            cells[:, own] |= finding.direction != "out"
        with np.errstate(invalid="ignore"):
            found |= cells & (values > LONG_SHARE * usual if matrix.unit == "s" else values < BAD_SHARE * usual)
    return found


def _by_rail(matrix: Matrix, tried: Bools) -> list[int]:
    """The order in which ends are drawn: where only ends of one rail met, each rail is a block of its own."""
    import numpy as np

    rails = [end.partition("/")[2] for end in matrix.ends]
    names = list(dict.fromkeys(rails))
    rail = np.array([names.index(name) for name in rails])
    if (tried & (rail[:, None] != rail[None, :])).any():
        return list(range(len(rails)))
    return [int(i) for i in np.argsort(rail, kind="stable")]


def _marks(matrix: Matrix, at: Mapping[str, int]) -> list[raster.Mark]:
    show, unit = _show(matrix)
    marks = []
    for finding in matrix.findings:
        if not finding.ends or finding.kind == "flake":
            continue
        figure = "–" if finding.observed is None else f"{show(finding.observed)} {unit.en}"
        doubt = "? " if finding.kind == "ambiguous" else ""
        words, own = f"{doubt}{_part(finding)}: {figure}", [at[end] for end in finding.ends]
        if finding.kind == "path":
            there, back = (own[0], own[1]), (own[1], own[0])
            marks.append(raster.Mark(words, pairs=[there] if finding.direction else [there, back]))
        else:
            rows, columns = own if finding.direction != "in" else [], own if finding.direction != "out" else []
            marks.append(raster.Mark(words, rows, columns))
    return marks


def _part(finding: Finding) -> str:
    if finding.kind == "path":
        return (" → " if finding.direction else " ↔ ").join(finding.ends)
    if finding.kind == "node":
        return finding.nodes[0]
    return fold_ends(finding.ends)


def fold_ends(ends: Sequence[str]) -> str:
    """``node[1-2]/mlx5_0, node3/mlx5_1``."""
    of_nic: dict[str, list[str]] = {}
    for end in ends:
        node, slash, nic = end.partition("/")
        of_nic.setdefault(slash + nic, []).append(node)
    return ", ".join(fold(nodes) + nic for nic, nodes in of_nic.items())


def named(report: Report) -> list[Table]:
    """The parts that the matrices name, with what was found of them."""
    rows = []
    for matrix in report.matrices:
        show, unit = _show(matrix)
        for f in matrix.findings:
            kind = labels.ONLY_WAY["" if f.kind == "path" else f.direction].fill(kind=labels.FINDING_KIND[f.kind])
            should = f.expected if f.expected is not None else f.usual
            rows.append(
                Row(
                    [
                        Cell(_part(f) if f.ends else labels.ALL_ALIKE),
                        Cell(kind),
                        Cell(_test(matrix)),
                        Cell(units.size(_size(matrix))),
                        Cell(f"{f.bad}/{f.tried}"),
                        Cell("–" if f.observed is None else f"{show(f.observed)} {unit.en}"),
                        Cell("–" if should is None else f"{show(should)} {unit.en}"),
                    ],
                    bad=f.kind != "flake",
                )
            )
    columns = [
        Column(labels.PART, words=True),
        Column(labels.PART_KIND),
        Column(labels.TEST),
        Column(labels.SIZE, numeric=True),
        Column(labels.BAD_PAIRS, numeric=True),
        Column(labels.MEDIAN_OF_BAD, numeric=True),
        Column(labels.SHOULD_BE, numeric=True),
    ]
    return [Table(labels.NAMED, columns, rows)] if rows else []


def headlines(report: Report) -> list[tuple[Text, Text]]:
    """The best figure of each metric whose pairs were told in short: of the others the measurements tell it."""
    told = {m.spec for m in report.measurements}
    lines = []
    best: dict[str, tuple[float, Matrix, int, int]] = {}
    for matrix in report.matrices:
        if matrix.spec in told:
            continue
        pick = min if matrix.unit == "s" else max
        rows = [(pick(v for v in row if v is not None), i) for i, row in enumerate(matrix.values) if any(row)]
        found = [(value, i, matrix.values[i].index(value)) for value, i in [pick(rows)]] if rows else []
        found += [(pair.value, pair.row, pair.column) for pair in matrix.pairs]
        if not found:
            continue
        value, i, j = pick(found)
        known = best.get(matrix.metric)
        if known is None or (value < known[0] if matrix.unit == "s" else value > known[0]):
            best[matrix.metric] = (value, matrix, i, j)
    for metric, (value, matrix, i, j) in sorted(best.items()):
        show, unit = _show(matrix)
        what = labels.LOWEST_LATENCY if matrix.unit == "s" else labels.HIGHEST_BANDWIDTH
        where = f"{units.size(_size(matrix))}, {matrix.ends[i]} → {matrix.ends[j]}"
        lines.append((what.fill(metric=metric), plain(f"{show(value)} {unit.en} ({where})")))
    return lines
