"""What a terminal shows at the end of a run: failures first, then figures, the verdict last, where the eye rests."""

from __future__ import annotations

import io
from typing import TYPE_CHECKING, Literal

from cwai_bench.model import Report, Status
from cwai_bench.render import labels, renderer
from cwai_bench.render.table import Cell
from cwai_bench.render.view import Item, View, view
from cwai_bench.text import Lang, Text

if TYPE_CHECKING:
    from rich.console import Console, RenderableType

_STYLE = {
    Status.PASS: "green",
    Status.WARN: "yellow",
    Status.FAIL: "bold red",
    Status.UNKNOWN: "magenta",
    Status.SKIP: "dim",
    Status.NA: "cyan",
}

RESULTS_SHOWN = 6
"""Results of one item, likewise."""
ITEMS_SHOWN = 30
"""Items that need attention are shown up to this many; the rest are counted."""


@renderer("text", suffix=".txt", title=Text("a summary for a terminal", "终端摘要"))
def write(report: Report, lang: Lang) -> str:
    return terminal_summary(report, lang, width=100, color=False, where="")


def terminal_summary(report: Report, lang: Lang, *, width: int, color: bool, where: str, verbose: bool = False) -> str:
    """Plain text of at most ``width`` columns; with ``color``, with the escapes of a terminal that has colours.

    ``verbose``: every item that was judged, and every figure.
    """
    from rich.console import Console

    out = io.StringIO()
    console = Console(
        file=out,
        width=max(40, width),
        force_terminal=color,
        color_system="standard" if color else None,
        markup=False,
        highlight=False,
        emoji=False,
        legacy_windows=False,
        _environ={},
    )
    seen = view(report)
    _head(console, seen, lang)
    _attention(console, seen, lang)
    if verbose:
        _others(console, seen, lang)
        _tables(console, seen, lang)
    _headlines(console, seen, lang)
    _verdict(console, seen, lang, where)
    # Rich pads cells to the column: nobody wants to paste trailing blanks.
    return "\n".join(line.rstrip() for line in out.getvalue().splitlines()) + "\n"


def _head(console: Console, seen: View, lang: Lang) -> None:
    from rich.text import Text as Line

    facts = {fact.label: fact.line(lang) for fact in seen.facts}
    console.print(Line(f"cwai-bench · {seen.title.to(lang)} · {seen.subtitle.to(lang)}", style="bold"))
    for label in (labels.REPORT_ID, labels.START, labels.DURATION, labels.RUN_STATUS_LABEL, labels.BASELINE):
        _fact(console, label.to(lang), facts[label])
    console.print()
    for notice in seen.notices:
        _block(console, [("! ", "yellow", notice.to(lang))])
    if seen.notices:
        console.print()


def _attention(console: Console, seen: View, lang: Lang) -> None:
    items = [item for item in seen.items if item.attention and item.cause is None]
    for item in items[:ITEMS_SHOWN]:
        _item(console, item, lang)
    if len(items) > ITEMS_SHOWN:
        console.print(labels.AND_MORE.fill(n=len(items) - ITEMS_SHOWN).to(lang))
    followed = _consequences(console, seen, lang)
    if items or followed:
        console.print()


def _consequences(console: Console, seen: View, lang: Lang) -> bool:
    """What is not known since something else failed: each cause once, with the items that follow from it."""
    from rich.text import Text as Line

    by_cause: dict[tuple[Text, Text], list[str]] = {}
    for item in seen.items:
        if item.attention and item.cause is not None:
            by_cause.setdefault((item.cause, item.where), []).append(item.id)
    for (cause, where), ids in by_cause.items():
        head = labels.FOLLOW.fill(n=len(ids), where=where, cause=cause)
        style = _STYLE[Status.UNKNOWN]
        _labelled(console, Line(f"{Status.UNKNOWN.value:<8}", style=style), Line(head.to(lang), style="bold"))
        _block(console, [(" " * 8, "", ", ".join(ids))])
    return bool(by_cause)


def _item(console: Console, item: Item, lang: Lang) -> None:
    from rich.text import Text as Line

    head = Line(item.title.to(lang), style="bold")
    head.append(f"  {item.id}", style="dim")
    if not item.required:
        head.append(f"  ({labels.OPTIONAL.to(lang)})", style="dim")
    if item.suppressed:
        head.append(f"  ({labels.SUPPRESSED.to(lang)})", style="dim")
    _labelled(console, Line(f"{item.status.value:<8}", style=_STYLE[item.status]), head)
    bad = [result for result in item.results if result.status in (Status.FAIL, Status.UNKNOWN, Status.WARN)]
    for result in bad[:RESULTS_SHOWN]:
        mark = "" if result.status is item.status else result.status.value
        found = labels.AT.fill(where=result.where, what=result.brief) if result.where.en else result.brief
        _block(console, [(f"{mark:<8}", _STYLE[result.status], found.to(lang))])
        if result.suppressed is not None:
            why = f"{labels.SUPPRESSED.to(lang)} {result.suppressed.to(lang)}"
            _block(console, [(" " * 8, "", why)])
    if len(bad) > RESULTS_SHOWN:
        _block(console, [(" " * 8, "", labels.AND_MORE.fill(n=len(bad) - RESULTS_SHOWN).to(lang))])
    if item.status in (Status.FAIL, Status.WARN):
        _block(console, [(" " * 8 + "→ ", "dim", item.suggestion.to(lang))])


def _others(console: Console, seen: View, lang: Lang) -> None:
    """The items that need no attention, a line each; what was skipped did not apply here and is only counted."""
    from rich.text import Text as Line

    items = [item for item in seen.items if not item.attention and item.status is not Status.SKIP]
    for item in items:
        head = Line(item.title.to(lang))
        head.append(f"  {item.id}", style="dim")
        head.append(f"  {item.brief.to(lang)}")
        _labelled(console, Line(f"{item.status.value:<8}", style=_STYLE[item.status]), head)
    if items:
        console.print()


def _words(cell: Cell, lang: Lang) -> str:
    return cell.value if isinstance(cell.value, str) else cell.value.to(lang)


def _tables(console: Console, seen: View, lang: Lang) -> None:
    from rich.cells import cell_len
    from rich.table import Table

    for section in seen.sections:
        for table in section.tables:
            title = (table.title or section.title).to(lang)
            grid = Table(title=title, title_justify="left", title_style="bold", box=None, padding=(0, 2, 0, 0))
            least = 0
            for n, column in enumerate(table.columns):
                label = column.label.to(lang)
                # Figures stay whole, and so do the words of their heading.
                whole = label.split() + [_words(r.cells[n], lang) for r in table.rows if not column.words]
                wide = max(map(cell_len, whole), default=0)
                least += wide + 2
                side: Literal["left", "right"] = "right" if column.numeric else "left"
                grid.add_column(_plain(label), justify=side, min_width=wide)
            for row in table.rows:
                grid.add_row(*(_plain(_words(c, lang)) for c in row.cells), style="red" if row.bad else "")
            # A figure that is cut off is worse than a line that the terminal breaks.
            console.print(grid, width=max(console.width, least), crop=False)
            console.print()


def _headlines(console: Console, seen: View, lang: Lang) -> None:
    from rich.table import Table

    grid = Table.grid(padding=(0, 2))
    grid.add_column(no_wrap=False)
    grid.add_column(no_wrap=False)
    lines = [line for section in seen.sections for line in section.headlines]
    if not lines:
        return
    for what, much in lines:
        grid.add_row(_plain(what.to(lang)), _plain(much.to(lang)))
    console.print(grid)
    console.print()


def _verdict(console: Console, seen: View, lang: Lang, where: str) -> None:
    from rich.text import Text as Line

    _fact(console, labels.ITEMS_PASSED.to(lang), seen.passed_note.to(lang))
    _fact(console, labels.NODES_DONE.to(lang), seen.nodes_done.to(lang))
    if seen.leave_out:
        _fact(console, labels.LEAVE_OUT.to(lang), seen.leave_out)
    if where:
        _fact(console, labels.REPORT.to(lang), where)
    console.print()
    reasons = list(seen.because)
    line = Line(seen.verdict.to(lang), style=_STYLE[seen.status] + " bold")
    line.append(" — " + seen.code_means.to(lang), style="not bold")
    console.print(line)
    # What warns or is not known stands above with all that is to be said of it; here only that it was.
    above = [item for item in seen.items if item.attention and item.cause is None][:ITEMS_SHOWN]
    for status, label in ((Status.UNKNOWN, labels.NOT_KNOWN_ABOVE), (Status.WARN, labels.WARNINGS_ABOVE)):
        names = [item.id for item in above if item.status is status and not item.suppressed]
        said = [item.title.en for item in above if item.status is status]
        reasons = [r for r in reasons if not any(r.en.startswith(f"{title}: ") for title in said)]
        if names:
            reasons.append(label.fill(n=", ".join(names)))
    for reason in reasons:
        _block(console, [("  · ", "", reason.to(lang))])


def _fact(console: Console, label: str, value: str) -> None:
    from rich.cells import cell_len

    _block(console, [(label + " " * max(1, 22 - cell_len(label)), "dim", value)])


def _block(console: Console, lines: list[tuple[str, str, str]]) -> None:
    """Lines of which the continuation stands under the text, not under its mark."""
    from rich.text import Text as Line

    for mark, style, words in lines:
        _labelled(console, Line(mark, style=style), Line(words))


def _labelled(console: Console, mark: RenderableType, words: RenderableType) -> None:
    from rich.table import Table

    grid = Table.grid()
    grid.add_column(no_wrap=True)
    grid.add_column(overflow="fold")
    grid.add_row(mark, words)
    console.print(grid)


def _plain(words: str) -> RenderableType:
    from rich.text import Text as Line

    return Line(words, overflow="fold")
