"""The matrices of a report as a spreadsheet or a program reads them: one row for each pair, SI units."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator

from cwai_bench.model import Matrix, Report
from cwai_bench.render import renderer
from cwai_bench.render.csv import guarded
from cwai_bench.render.measured import parameters
from cwai_bench.render.untrusted import neutral
from cwai_bench.text import Lang, Text

HEADER = ("run_id", "metric", "unit", "parameters", "source", "target", "value", "expected", "status", "reason_code")


@renderer("pairs", suffix=".pairs.csv", title=Text("every pair as a spreadsheet", "每个配对一行的表格"))
def write(report: Report, lang: Lang) -> str:
    out = io.StringIO()
    rows = csv.writer(out, lineterminator="\r\n")
    rows.writerow(HEADER)
    for matrix in report.matrices:
        ends = [guarded(neutral(end)) for end in matrix.ends]
        head = [guarded(neutral(s)) for s in (report.run_id, matrix.metric, matrix.unit, parameters(matrix.parameters))]
        for i, j, value, expected in _figures(matrix):
            rows.writerow([*head, ends[i], ends[j], value, "" if expected is None else expected, "ok", ""])
        for gap in matrix.failed:
            rows.writerow([*head, ends[gap.row], ends[gap.column], "", "", "error", gap.reason_code])
    return "\ufeff" + out.getvalue()


def _figures(matrix: Matrix) -> Iterator[tuple[int, int, float, float | None]]:
    limit = matrix.expected
    one = limit if isinstance(limit, float) else None
    for i, row in enumerate(matrix.values):
        limits = limit[i] if isinstance(limit, list) else [one] * len(row)
        for j, (value, expected) in enumerate(zip(row, limits, strict=True)):
            if value is not None:
                yield i, j, value, expected
    for pair in matrix.pairs:
        yield pair.row, pair.column, pair.value, pair.expected if pair.expected is not None else one
