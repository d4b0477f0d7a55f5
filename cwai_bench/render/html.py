"""A report as one HTML file: opens offline, asks nothing of anybody, holds both languages, works without JavaScript.

The page forbids itself everything but its own style and script (a Content-Security-Policy that names them by their
hashes) and images within itself, so that nothing that a node smuggled into a report could run even if it got past the
escaping.
"""

from __future__ import annotations

import base64
import functools
import hashlib
from importlib.resources import files
from typing import TYPE_CHECKING

from cwai_bench.model import Report, Status
from cwai_bench.render import labels, renderer
from cwai_bench.render.view import view
from cwai_bench.text import Lang, Text

if TYPE_CHECKING:
    from markupsafe import Markup


@renderer(
    "html",
    suffix=".html",
    title=Text("one HTML file, offline, in both languages", "单个 HTML 文件，可离线打开，含中英文"),
)
def write(report: Report, lang: Lang) -> str:
    from jinja2 import Environment, StrictUndefined
    from markupsafe import Markup

    environment = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    environment.globals["t"] = both
    page = environment.from_string(_asset("report.html.j2"))
    style, script = _asset("report.css"), _asset("report.js")
    return page.render(
        view=view(report),
        lang=lang,
        labels=labels,
        mark=_MARK,
        style=Markup(style),
        script=Markup(script),
        policy=f"default-src 'none'; style-src '{_digest(style)}'; script-src '{_digest(script)}'; img-src data:; "
        "base-uri 'none'; form-action 'none'",
    )


_MARK = {
    Status.PASS: "✓",
    Status.WARN: "!",
    Status.FAIL: "✕",
    Status.UNKNOWN: "?",
    Status.SKIP: "–",
    Status.NA: "○",
}
"""Colour is never the only sign."""


def both(text: Text | str) -> Markup:
    """Both languages, of which the style sheet shows one; only one where they are the same."""
    from markupsafe import Markup

    if isinstance(text, str) or text.en == text.zh:
        return Markup("{}").format(text if isinstance(text, str) else text.en)
    return Markup('<span lang="en">{}</span><span lang="zh">{}</span>').format(text.en, text.zh)


@functools.cache
def _asset(name: str) -> str:
    return (files("cwai_bench.reports") / "templates" / name).read_text(encoding="utf-8")


def _digest(content: str) -> str:
    return "sha256-" + base64.b64encode(hashlib.sha256(content.encode()).digest()).decode()
