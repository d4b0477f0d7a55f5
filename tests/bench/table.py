"""Rows of the bench, and how they are shown: as a table on a terminal, as a page of the documentation."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from tests.bench.pairs import Spread

HEAD = ("what", "ours", "peer", "ratio, median [p10–p90]", "A/A control", "pairs", "wanted", "")


@dataclass(frozen=True)
class Row:
    """One comparison. ``reached`` is None where nothing is promised or the peer is missing; ``note`` says more."""

    what: str
    ours: str
    wanted: str
    reached: bool | None
    peer: str = ""
    ratio: Spread | None = None
    control: Spread | None = None
    note: str = ""
    detail: bool = False
    """A part of the row above; shown on the page only."""

    def cells(self) -> tuple[str, ...]:
        verdict = {True: "reached", False: "MISSED", None: ""}[self.reached]
        return (
            self.what,
            self.ours,
            self.peer,
            str(self.ratio or ""),
            str(self.control or ""),
            str(self.ratio.count) if self.ratio else "",
            self.wanted,
            "; ".join(filter(None, (verdict, self.note))),
        )


def missing(what: str, package: str, wanted: str) -> Row:
    """The row of a comparison whose peer is not on this machine."""
    return Row(what, "", wanted, None, note=f"peer missing: {package}")


def as_text(rows: Sequence[Row]) -> str:
    lines = [HEAD, *(row.cells() for row in rows if not row.detail)]
    widths = [max(len(line[i]) for line in lines) for i in range(len(HEAD))]
    return "\n".join("  ".join(c.ljust(w) for c, w in zip(line, widths, strict=True)).rstrip() for line in lines)


def as_markdown(rows: Sequence[Row]) -> str:
    """The table, then one of the details."""
    details = [row for row in rows if row.detail]
    parts = [_markdown([row for row in rows if not row.detail])]
    if details:
        parts += ["## In detail", _markdown(details)]
    return "\n\n".join(parts)


def _markdown(rows: Sequence[Row]) -> str:
    lines = [HEAD, ("---",) * len(HEAD), *(row.cells() for row in rows)]
    return "\n".join("| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |" for line in lines)
