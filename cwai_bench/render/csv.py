"""The verdicts of a report as a spreadsheet reads them: one row for each verdict on each subject,
UTF-8 with the mark Excel needs.

A cell that a spreadsheet would take for a formula begins with an apostrophe (OWASP, "CSV Injection").
"""

from __future__ import annotations

import csv
import io

from cwai_bench.model import Report
from cwai_bench.render import renderer
from cwai_bench.render.untrusted import neutral_struct
from cwai_bench.render.view import expected_of
from cwai_bench.text import Lang, Text

HEADER = (
    "run_id", "check", "title", "kind", "subject_kind", "subject", "node", "status", "required", "severity",
    "observed", "expected", "detail", "reason_code", "action", "suggestion",
    "suppressed_until", "suppressed_by", "suppressed_why",
)  # fmt: skip


@renderer("csv", suffix=".csv", title=Text("the verdicts as a spreadsheet", "结论表格"))
def write(report: Report, lang: Lang) -> str:
    report = neutral_struct(report)
    known = {info.id: info for info in report.checks}
    out = io.StringIO()
    rows = csv.writer(out, lineterminator="\r\n")
    rows.writerow(HEADER)
    for v in report.verdicts:
        info = known.get(v.check)
        expected = expected_of(info, v)
        common = [
            v.status.value,
            str(info.required).lower() if info else "",
            info.severity.value if info else "",
            v.observed,
            expected.to(lang) if expected else "",
            v.detail.to(lang) if v.detail else "",
            v.reason_code,
            v.action.value,
            info.suggestion.to(lang) if info else "",
            *((v.suppressed.until, v.suppressed.owner, v.suppressed.reason) if v.suppressed else ("", "", "")),
        ]
        head = [report.run_id, v.check, info.title.to(lang) if info else v.check, v.kind.value]
        for subject in v.subjects:
            node = subject.id if subject.kind == "node" else " ".join(v.nodes)
            rows.writerow([guarded(cell) for cell in [*head, subject.kind, subject.id, node, *common]])
    return "\ufeff" + out.getvalue()


def guarded(cell: str) -> str:
    """``cell``, harmless in a spreadsheet. Full-width signs count: Excel takes them for the narrow ones."""
    return "'" + cell if cell.lstrip()[:1] in tuple("=+-@＝＋－＠") else cell
