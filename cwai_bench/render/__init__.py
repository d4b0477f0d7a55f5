"""Render shows a Report: as text, JSON, HTML, Markdown, JUnit or CSV. It judges nothing and opens nothing.

One file, one format; one decorator, one registration::

    @renderer("markdown", suffix=".md", title=Text("Markdown for a ticket", "用于工单的 Markdown"))
    def markdown(report: Report, lang: Lang) -> str: ...

``view`` turns the report into words once; formats only lay them out. All that came from a node is hostile text
and is made harmless there (``untrusted``), before any format sees it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar

from cwai_bench.model import Report
from cwai_bench.registry import Registry
from cwai_bench.text import Lang, Text


@dataclass(frozen=True)
class Renderer:
    """A format: its name, what a file of it ends in, what it is for, and the function that writes it."""

    name: str
    suffix: str
    title: Text
    write: Callable[[Report, Lang], str]


RENDERERS: Registry[Renderer] = Registry("cwai_bench.render")
FORMATS = RENDERERS
"""Iterates over the names of all formats; ``name in FORMATS`` tells whether there is such a one."""

_Write = TypeVar("_Write", bound=Callable[[Report, Lang], str])


def renderer(name: str, *, suffix: str, title: Text) -> Callable[[_Write], _Write]:
    """Register the decorated function as the format ``name``."""

    def register(write: _Write) -> _Write:
        RENDERERS.add(name, Renderer(name, suffix, title, write))
        return write

    return register


def render(report: Report, format: str, lang: Lang) -> str:
    """``report`` in ``format`` (one of FORMATS), for a reader of ``lang``. Write it as UTF-8, newlines untranslated.

    Raises KeyError when there is no such format. What a format shows does not depend on whether the report was
    saved and read in between: none looks at raw samples, which a saved report leaves to the journal.
    """
    return RENDERERS[format].write(report, lang)


def summary(
    report: Report, lang: Lang, *, width: int = 100, color: bool = False, where: str = "", verbose: bool = False
) -> str:
    """What a terminal shows at the end of a run, in ``width`` columns. ``where`` is the path of the full report;
    ``verbose``: with every item that was judged, and every figure."""
    from cwai_bench.render.text import terminal_summary

    return terminal_summary(report, lang, width=width, color=color, where=where, verbose=verbose)


def report_to_json(report: Report) -> bytes:
    """The report as it is saved: UTF-8 JSON by ``reports/report.schema.json``, without raw samples."""
    from cwai_bench.render import json

    return json.report_to_json(report)


def report_from_json(data: bytes, name: str = "report.json") -> Report:
    """A saved report. Raises UsageError, naming the file as ``name``, when it is none, is cut short or of another
    version."""
    from cwai_bench.render import json

    return json.report_from_json(data, name)
