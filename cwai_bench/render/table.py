"""Tables, pictures and the sections that hold them: what all formats lay out, each in its own way."""

from __future__ import annotations

from dataclasses import dataclass, field

from cwai_bench.text import Text


@dataclass(frozen=True)
class Column:
    label: Text
    numeric: bool = False
    words: bool = False
    """Holds text that may run over several lines; other cells stay on one."""


@dataclass(frozen=True)
class Cell:
    """``value`` is a Text where its words differ between languages."""

    value: str | Text
    bad: bool = False


@dataclass(frozen=True)
class Row:
    cells: list[Cell]
    bad: bool = False


@dataclass(frozen=True)
class Table:
    title: Text | None
    columns: list[Column]
    rows: list[Row]
    folded: bool = False
    """Shown on demand, where a format can."""


@dataclass(frozen=True)
class Figure:
    """A picture drawn in Python: ``svg`` is markup of our own making, every label in it escaped."""

    caption: Text
    svg: str
    wide: bool = False


@dataclass(frozen=True)
class Section:
    id: str
    title: Text
    tables: list[Table]
    figures: list[Figure] = field(default_factory=list)
    note: Text | None = None
    headlines: list[tuple[Text, Text]] = field(default_factory=list)
    """The figures worth a line in a summary: what, and how much."""
