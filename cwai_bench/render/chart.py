"""Pictures as SVG, drawn here so that the page needs no library and no script to show them.

Colours come from the classes of ``report.css`` (so they follow the reader's light or dark mode); every label is
escaped; every mark carries its value as a tooltip. What a picture shows stands in a table beside it as well.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from html import escape

from cwai_bench.text import LANGS, Text

WIDTH = 380
"""Width of a picture in its own units, close to pixels in a column of three."""

Show = Callable[[float], str]


@dataclass(frozen=True)
class Line:
    """One line of a chart. ``low`` and ``high``, where given, are drawn as a band around ``points``."""

    name: str
    points: Sequence[tuple[float, float]]
    low: Sequence[float] = ()
    high: Sequence[float] = ()


@dataclass(frozen=True)
class Range:
    """One row of :func:`ranges`: smallest, typical and largest value."""

    label: str
    low: float
    mid: float
    high: float


@dataclass(frozen=True)
class Event:
    """A mark on a lane of :func:`timeline`, ``at`` seconds from the start."""

    at: float
    label: Text
    bad: bool


def log_log(lines: Sequence[Line], x: Text, y: Text, show_x: Show, show_y: Show) -> str:
    """Lines over positive x and y, both logarithmic; points that are not positive cannot be drawn and are not."""
    lines = [_positive(line) for line in lines]
    xs = [px for line in lines for px, _ in line.points]
    ys = [py for line in lines for _, py in line.points] + [v for line in lines for v in (*line.low, *line.high)]
    if not xs:
        return ""
    left, right, top, bottom, height = 60, 24, 26, 40, 240
    across = _scale(min(xs), max(xs), left, WIDTH - right)
    down = _scale(10 ** math.floor(math.log10(min(ys))), 10 ** math.ceil(math.log10(max(ys))), height - bottom, top)
    out = []
    for value in _decades(min(ys), max(ys)):
        at = down(value)
        out.append(f'<line class="grid" x1="{left}" x2="{WIDTH - right}" y1="{xy(at)}" y2="{xy(at)}"/>')
        out.append(text(left - 6, at + 3.5, show_y(value), "end"))
    for value in _few(sorted(set(xs)), 6):
        out.append(text(across(value), height - bottom + 16, show_x(value), "middle"))
    out.append(text((left + WIDTH - right) / 2, height - 6, x, "middle"))
    out.append(text(left - 6, 11, y, "end"))
    for i, line in enumerate(lines):
        path = [(across(px), down(py)) for px, py in line.points]
        if line.low:
            upper = [(across(px), down(v)) for (px, _), v in zip(line.points, line.high, strict=True)]
            lower = [(across(px), down(v)) for (px, _), v in zip(line.points, line.low, strict=True)]
            out.append(f'<polygon class="band c{i % 4}" points="{_points(upper + lower[::-1])}"/>')
        out.append(f'<polyline class="line c{i % 4}" points="{_points(path)}"/>')
        for (px, py), (cx, cy) in zip(line.points, path, strict=True):
            name = f"{line.name}, " if len(lines) > 1 else ""
            out.append(_mark(i, cx, cy, f"{name}{show_x(px)}: {show_y(py)}"))
    return svg(WIDTH, height, out)


def legend(names: Sequence[str]) -> str:
    """The marks and names of the lines of a chart, when there are several."""
    out = []
    for i, name in enumerate(names):
        out.append(_mark(i, 8, 9 + 18 * i, name))
        out.append(text(20, 13 + 18 * i, name, "start"))
    return svg(WIDTH, 18 * len(names) + 4, out)


def heatmap(
    rows: Sequence[str],
    columns: Sequence[str],
    values: Mapping[tuple[int, int], float],
    show: Show,
    dead: Collection[tuple[int, int]] = (),
    bad: Collection[tuple[int, int]] = (),
) -> str:
    """A cell for each (row, column) that has a value: the darker the larger, with the number in it; a cross where
    nothing came of it, and a frame around what is ``bad``."""
    cell_w, cell_h, label = 54, 26, 8 + 7 * min(24, max(map(len, rows), default=0))
    top = 26 if max(map(len, columns), default=0) <= 8 else 76
    largest = max(values.values(), default=0.0) or 1.0
    smallest = min(values.values(), default=0.0)
    out = []
    for j, name in enumerate(columns):
        at = label + cell_w * j + cell_w / 2
        if top == 26:
            out.append(text(at, top - 8, cut(name), "middle"))
        else:
            turn = f' transform="rotate(-40 {xy(at)} {top - 8})"'
            out.append(text(at, top - 8, cut(name, 14), "start", turn))
    for i, name in enumerate(rows):
        out.append(text(label - 8, top + cell_h * i + 17, cut(name), "end"))
    for (i, j), value in values.items():
        x, y = label + cell_w * j, top + cell_h * i
        # From 0.12 to 0.85, so that the smallest still shows and the number stays readable.
        depth = 0.12 + 0.73 * ((value - smallest) / (largest - smallest) if largest > smallest else 1.0)
        deep = " deep" if depth > 0.5 else ""
        framed = " bad" if (i, j) in bad else ""
        out.append(
            f"<g><title>{escape(f'{rows[i]} → {columns[j]}: {show(value)}')}</title>"
            f'<rect class="heat{framed}" x="{x + 1}" y="{y + 1}" width="{cell_w - 2}" height="{cell_h - 2}" rx="2" '
            f'fill-opacity="{depth:.2f}"/>'
            f'<text class="cell{deep}" x="{xy(x + cell_w / 2)}" y="{y + 17}" text-anchor="middle">'
            f"{escape(show(value))}</text></g>"
        )
    for i, j in dead:
        x, y = label + cell_w * j, top + cell_h * i
        out.append(
            f"<g><title>{escape(f'{rows[i]} → {columns[j]}: –')}</title>"
            f'<rect class="dead" x="{x + 1}" y="{y + 1}" width="{cell_w - 2}" height="{cell_h - 2}" rx="2"/>'
            f'<path class="cross" d="M{x + cell_w // 2 - 5} {y + cell_h // 2 - 5}l10 10m0 -10l-10 10"/></g>'
        )
    return svg(label + cell_w * len(columns) + (2 if top == 26 else 60), top + cell_h * len(rows) + 2, out)


def ranges(rows: Sequence[Range], x: Text, show: Show) -> str:
    """A row for each subject: a bar from its smallest to its largest value and a dot at the typical one, from zero."""
    if not rows:
        return ""
    label, right, step, top = 8 + 6.4 * min(30, max(len(row.label) for row in rows)), 44, 20, 10
    width = max(WIDTH, label + 260)
    largest = max(row.high for row in rows) or 1.0
    bottom = top + step * len(rows)

    def across(value: float) -> float:
        return label + (width - right - label) * value / largest

    out = []
    for tick in (0.0, 0.5, 1.0):
        at = across(tick * largest)
        out.append(f'<line class="grid" x1="{xy(at)}" x2="{xy(at)}" y1="{top - 4}" y2="{bottom}"/>')
        out.append(text(at, bottom + 14, show(tick * largest), "middle"))
    out.append(text((label + width - right) / 2, bottom + 30, x, "middle"))
    for i, row in enumerate(rows):
        y = top + step * i + step / 2
        words = f"{row.label}: {show(row.low)} / {show(row.mid)} / {show(row.high)}"
        out.append(
            f"<g><title>{escape(words)}</title>"
            f'<line class="spread" x1="{xy(across(row.low))}" x2="{xy(across(row.high))}" y1="{xy(y)}" y2="{xy(y)}"/>'
            f'<circle class="mark c0" cx="{xy(across(row.mid))}" cy="{xy(y)}" r="3.5"/></g>'
        )
        out.append(text(label - 8, y + 3.5, cut(row.label, 30), "end"))
        out.append(text(min(across(row.high) + 6, width - right + 6), y + 3.5, show(row.mid), "start"))
    return svg(width, bottom + 36, out)


def timeline(lanes: Sequence[tuple[str, Sequence[Event]]], end: float, x: Text, show: Show) -> str:
    """A lane for each rank, with what happened to it between 0 and ``end`` seconds."""
    label, right, step, top = 8 + 6.4 * min(30, max((len(name) for name, _ in lanes), default=0)), 16, 26, 8
    width, bottom = 760, top + step * len(lanes)
    last = max([end, *(event.at for _, events in lanes for event in events)]) or 1.0

    def across(at: float) -> float:
        return label + (width - right - label) * max(0.0, at) / last

    out = []
    for tick in (0.0, 0.25, 0.5, 0.75, 1.0):
        at = across(tick * last)
        out.append(f'<line class="grid" x1="{xy(at)}" x2="{xy(at)}" y1="{top}" y2="{bottom}"/>')
        out.append(text(at, bottom + 14, show(tick * last), "middle"))
    out.append(text((label + width - right) / 2, bottom + 30, x, "middle"))
    for i, (name, events) in enumerate(lanes):
        y = top + step * i + step / 2
        stop = max((event.at for event in events if event.bad), default=end)
        out.append(f'<line class="spread" x1="{xy(across(0))}" x2="{xy(across(stop))}" y1="{xy(y)}" y2="{xy(y)}"/>')
        out.append(text(label - 8, y + 3.5, cut(name, 30), "end"))
        for event in events:
            at = across(event.at)
            mark = (
                f'<path class="cross" d="M{xy(at - 5)} {xy(y - 5)}l10 10m0 -10l-10 10"/>'
                if event.bad
                else f'<circle class="mark c0" cx="{xy(at)}" cy="{xy(y)}" r="4"/>'
            )
            out.append(f"<g><title>{escape(show(event.at))}</title>{mark}</g>")
            before = at > width * 0.7
            out.append(text(at - 9 if before else at + 9, y - 5, event.label, "end" if before else "start"))
    return svg(width, bottom + 36, out)


@dataclass(frozen=True)
class Flow:
    """A lane of :func:`flows`: what a path delivered in each step, marks (seconds, number, whether it is bad), and the
    spans of time in which a fault was planted on it."""

    name: str
    rates: Sequence[float]
    marks: Sequence[tuple[float, int, bool]] = ()
    planted: Sequence[tuple[float, float]] = ()


def flows(lanes: Sequence[Flow], step: float, x: Text, show: Show, show_rate: Show) -> str:
    """A lane for each path with its rate over time, all to one scale; the largest of each is written beside it. Marks
    have numbers, which a table beside it explains."""
    steps = max((len(lane.rates) for lane in lanes), default=0)
    if steps == 0:
        return ""
    label, right, pitch, top = 8 + 7.2 * min(40, max(len(lane.name) for lane in lanes)), 84, 46, 14
    width, bottom, end = 760, top + pitch * len(lanes), steps * step
    largest = max((rate for lane in lanes for rate in lane.rates), default=0.0) or 1.0

    def across(at: float) -> float:
        return label + (width - right - label) * min(max(0.0, at) / end, 1.0)

    out = []
    for tick in (0.0, 0.25, 0.5, 0.75, 1.0):
        at = across(tick * end)
        out.append(f'<line class="grid" x1="{xy(at)}" x2="{xy(at)}" y1="{top}" y2="{bottom}"/>')
        out.append(text(at, bottom + 14, show(tick * end), "middle"))
    out.append(text((label + width - right) / 2, bottom + 30, x, "middle"))
    for i, lane in enumerate(lanes):
        base, high = top + pitch * (i + 1) - 2, pitch - 14
        for begin, until in lane.planted:
            left, wide = across(begin), across(until) - across(begin)
            out.append(f'<rect class="planted" x="{xy(left)}" y="{base - high}" width="{xy(wide)}" height="{high}"/>')
        edge = [(label, float(base))]
        for k, rate in enumerate(lane.rates):
            y = base - high * rate / largest
            edge += [(across(k * step), y), (across((k + 1) * step), y)]
        edge.append((across(len(lane.rates) * step), float(base)))
        words = escape(f"{lane.name}: {show_rate(max(lane.rates, default=0.0))}")
        out.append(f'<g><title>{words}</title><polygon class="band c0" points="{_points(edge)}"/>')
        out.append(f'<polyline class="line c0" points="{_points(edge)}"/></g>')
        out.append(f'<line class="grid" x1="{xy(label)}" x2="{width - right}" y1="{base}" y2="{base}"/>')
        out.append(text(label - 8, base - 8, cut(lane.name, 40), "end"))
        out.append(text(width - right + 6, base - 8, show_rate(max(lane.rates, default=0.0)), "start"))
        for seconds, number, bad in lane.marks:
            at = across(seconds)
            shape = (
                f'<path class="cross" d="M{xy(at - 4)} {base - 4}l8 8m0 -8l-8 8"/>'
                if bad
                else f'<circle class="mark c0" cx="{xy(at)}" cy="{base}" r="3.5"/>'
            )
            out.append(f"<g><title>{number}: {escape(show(seconds))}</title>{shape}</g>")
            out.append(text(at, base - high - 1, str(number), "middle"))
    return svg(width, bottom + 36, out)


# -------------------------------------------------------------------------------------------- drawing


def svg(width: float, height: float, parts: Sequence[str]) -> str:
    w, h = xy(width), xy(height)
    return f'<svg viewBox="0 0 {w} {h}" width="{w}" height="{h}" aria-hidden="true">{"".join(parts)}</svg>'


def text(x: float, y: float, words: str | Text, anchor: str, more: str = "") -> str:
    place = f'x="{xy(x)}" y="{xy(y)}" text-anchor="{anchor}"{more}'
    if isinstance(words, str) or words.en == words.zh:
        return f"<text {place}>{escape(words if isinstance(words, str) else words.en)}</text>"
    return "".join(f'<text {place} lang="{lang}">{escape(words.to(lang))}</text>' for lang in LANGS)


def _mark(i: int, x: float, y: float, words: str) -> str:
    """Lines differ by the shape of their marks, not by colour alone."""
    shape = (
        f'<circle class="mark c0" cx="{xy(x)}" cy="{xy(y)}" r="3"/>',
        f'<rect class="mark c1" x="{xy(x - 3)}" y="{xy(y - 3)}" width="6" height="6"/>',
        f'<path class="mark c2" d="M{xy(x)} {xy(y - 4)}l4 7h-8z"/>',
        f'<path class="mark c3" d="M{xy(x)} {xy(y - 4)}l4 4l-4 4l-4 -4z"/>',
    )[i % 4]
    return f"<g><title>{escape(words)}</title>{shape}</g>"


def _positive(line: Line) -> Line:
    keep = [i for i, (x, y) in enumerate(line.points) if x > 0 and y > 0 and (not line.low or line.low[i] > 0)]
    return Line(
        line.name,
        [line.points[i] for i in keep],
        [line.low[i] for i in keep] if line.low else (),
        [line.high[i] for i in keep] if line.high else (),
    )


def _scale(low: float, high: float, start: float, stop: float) -> Callable[[float], float]:
    a, b = math.log(low), math.log(high)
    return lambda value: start + (stop - start) * ((math.log(value) - a) / (b - a) if b > a else 0.5)


def _decades(low: float, high: float) -> list[float]:
    first, last = math.floor(math.log10(low)), math.ceil(math.log10(high))
    return [10.0**k for k in range(first, last + 1, max(1, (last - first) // 5))]


def _few(values: Sequence[float], count: int) -> Sequence[float]:
    """At most ``count`` of ``values``, evenly spread."""
    step = max(1, math.ceil(len(values) / count))
    return values[::step]


def _points(path: Sequence[tuple[float, float]]) -> str:
    return " ".join(f"{xy(x)},{xy(y)}" for x, y in path)


def cut(name: str, limit: int = 24) -> str:
    return name if len(name) <= limit else name[: limit - 1] + "…"


def xy(value: float) -> str:
    return f"{value:.1f}".removesuffix(".0")
