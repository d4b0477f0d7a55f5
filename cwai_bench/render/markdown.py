"""A report as Markdown, to be pasted into a ticket: the verdict, what needs attention and its evidence, the figures."""

from __future__ import annotations

import re

from cwai_bench.model import Report, Status
from cwai_bench.render import labels, renderer
from cwai_bench.render.table import Table
from cwai_bench.render.view import Item, Result, View, view
from cwai_bench.text import Lang, Text

LINES_OF_EVIDENCE = 20
"""Lines of one piece of evidence that a ticket gets."""


@renderer("markdown", suffix=".md", title=Text("Markdown for a ticket", "用于工单的 Markdown"))
def write(report: Report, lang: Lang) -> str:
    seen = view(report)
    out = [*_head(seen, lang)]
    attention = [item for item in seen.items if item.attention]
    if attention:
        out += [f"## {labels.ATTENTION.to(lang)}", ""]
        for item in attention:
            out += _item(item, lang)
    out += _all_items(seen, lang)
    for section in seen.sections:
        if not section.tables:
            continue
        out += [f"## {escaped(section.title.to(lang))}", ""]
        if section.note is not None:
            out += [escaped(section.note.to(lang)), ""]
        for table in section.tables:
            out += _table(table, lang)
    return "\n".join(out).rstrip() + "\n"


def _head(seen: View, lang: Lang) -> list[str]:
    out = [f"# cwai-bench: {escaped(seen.title.to(lang))}: {seen.status.value}", ""]
    out += [f"**{seen.verdict.to(lang)}** — {seen.code_means.to(lang)}", ""]
    out += [f"- {escaped(reason.to(lang))}" for reason in seen.because]
    out += [""] if seen.because else []
    if seen.leave_out:
        out += [f"{labels.LEAVE_OUT.to(lang)}: {code(seen.leave_out)}", ""]
    out += [f"> {escaped(notice.to(lang))}" for notice in seen.notices]
    out += [""] if seen.notices else []
    out += [f"- {fact.label.to(lang)}: {code(fact.line(lang))}" for fact in seen.facts]
    out += [f"- {labels.ITEMS_PASSED.to(lang)}: {seen.passed_note.to(lang)}", ""]
    return out


def _item(item: Item, lang: Lang) -> list[str]:
    out = [f"### {item.status.value}: {escaped(item.title.to(lang))} ({code(item.id)})", ""]
    for label, text in (
        (labels.METHOD, item.method),
        (labels.CRITERION, item.criterion),
        (labels.SUGGESTION, item.suggestion),
        (labels.ACTION_LABEL, item.action),
    ):
        out.append(f"- {label.to(lang)}: {escaped(text.to(lang))}")
    out.append("")
    for result in item.results:
        if result.status in (Status.FAIL, Status.UNKNOWN, Status.WARN):
            out += _result(result, lang)
    return out


def _result(result: Result, lang: Lang) -> list[str]:
    out = [f"**{result.status.value}** {code(result.where.to(lang))}: {code(result.brief.to(lang))}", ""]
    if result.suppressed is not None:
        out += [f"**{labels.SUPPRESSED.to(lang)}** {escaped(result.suppressed.to(lang))}", ""]
    for proof in result.proofs:
        lines = proof.text.rstrip("\n").split("\n")
        kept = lines[:LINES_OF_EVIDENCE] + (["…"] if len(lines) > LINES_OF_EVIDENCE else [])
        body = "\n".join(kept)
        fence = "`" * max(3, _longest_run(body) + 1)
        out += [f"{code(proof.subjects)} {code(proof.source)}", fence, body, fence, ""]
    return out


def _all_items(seen: View, lang: Lang) -> list[str]:
    head = (labels.VERDICT, labels.ITEM, labels.KIND_LABEL, labels.BASELINE_SET, labels.WHERE)
    out = [
        f"## {labels.RESULTS.to(lang)}",
        "",
        "| " + " | ".join(h.to(lang) for h in head) + " |",
        "|---|---|---|---|---|",
    ]
    for item in seen.items:
        cells = (
            item.status.value + (f" ({labels.SUPPRESSED.to(lang)})" if item.suppressed else ""),
            f"{escaped(item.title.to(lang))} ({code(item.id)})",
            labels.KIND[item.kind].to(lang),
            escaped(item.baseline.to(lang)),
            code(item.where.to(lang)),
        )
        out.append("| " + " | ".join(cells) + " |")
    return [*out, ""]


def _table(table: Table, lang: Lang) -> list[str]:
    out = [f"**{escaped(table.title.to(lang))}**", ""] if table.title is not None else []
    out.append("| " + " | ".join(escaped(column.label.to(lang)) for column in table.columns) + " |")
    out.append("|" + "|".join("---:" if column.numeric else "---" for column in table.columns) + "|")
    for row in table.rows:
        cells = [c.value if isinstance(c.value, str) else c.value.to(lang) for c in row.cells]
        out.append("| " + " | ".join(escaped(cell) for cell in cells) + " |")
    return [*out, ""]


_MARKUP = re.compile(r"([\\`*_\[\]<>|~#&@])")


def escaped(words: str) -> str:
    """``words`` as Markdown that reads as they do, in one line, also within a table."""
    return _MARKUP.sub(lambda m: "&#64;" if m[0] == "@" else "\\" + m[0], " ".join(words.split()))


def code(words: str) -> str:
    """``words`` as a code span, in which nothing is markup and nobody is mentioned."""
    line = " ".join(words.split())
    if not line:
        return ""
    fence = "`" * (_longest_run(line) + 1)
    pad = " " if line[0] == "`" or line[-1] == "`" else ""
    return f"{fence}{pad}{line}{pad}{fence}".replace("|", "\\|")


def _longest_run(words: str) -> int:
    return max((len(run) for run in re.findall("`+", words)), default=0)
