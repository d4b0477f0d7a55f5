"""A large matrix as a picture: one pixel or more for each pair, as an indexed PNG within the page (RFC 2083, RFC 2397).

What a picture of thousands of SVG cells would cost in bytes and in the reader's browser, an image does not.
"""

from __future__ import annotations

import base64
import struct
import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from cwai_bench.render import chart
from cwai_bench.render.chart import xy
from cwai_bench.text import Text

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Floats = NDArray[np.float64]
    Bools = NDArray[np.bool_]
    Indices = NDArray[np.uint8]

SIDE = 760
"""Width of the picture of the pairs in its own units, close to pixels in a page of the usual width."""
LABELS = 32
"""Ends that are named along an axis."""
MARKED = 24
"""Parts that are named beside the picture."""

# Pale to deep blue for figures, vermilion for pairs of a part that is bad, black where nothing came of it: told apart
# with any of the common kinds of colour blindness (the blue, vermilion and black of Okabe and Ito, "Color Universal
# Design"), and in grey by their lightness.
_BLANK, _DEAD, _FIRST = 0, 1, 2
_STEPS = 24
_PALE, _DEEP, _BAD = (222, 235, 247), (0, 60, 120), (213, 94, 0)
_NOTHING = (255, 255, 255)


@dataclass(frozen=True)
class Mark:
    """A part that is named: its rows and columns, or, of a path, its pairs (row, column)."""

    words: str
    rows: Sequence[int] = ()
    columns: Sequence[int] = ()
    pairs: Sequence[tuple[int, int]] = ()

    @property
    def first(self) -> int:
        """The row beside which it is named; of what only receives there is none, and its column says where."""
        return min([*self.rows, *(row for row, _ in self.pairs)] or self.columns)


def picture(
    ends: Sequence[str],
    values: Floats,
    dead: Bools,
    bad: Bools,
    marks: Sequence[Mark],
    show: Callable[[float], str],
    words: Sequence[Text],
) -> str:
    """All pairs of ``ends`` as an image with axes, the named parts at its edge and its scale below, as SVG.

    ``values``: nan where there is none. ``words``: of the scale: the figure, what is bad, what gave no result, what was
    not measured.
    """
    import numpy as np

    n = len(ends)
    known = values[np.isfinite(values) & ~bad]
    low, high = (float(known.min()), float(known.max())) if known.size else (0.0, 1.0)
    image = _png(_indices(values, dead, bad, low, high), _palette())
    left, top, right = 12 + 6.2 * min(24, max(map(len, ends))), 84, 290 if marks else 30
    cell = SIDE / n
    out = [
        f'<rect class="frame" x="{left - 1}" y="{top - 1}" width="{SIDE + 2}" height="{SIDE + 2}"/>',
        f'<image class="pixels" x="{left}" y="{top}" width="{SIDE}" height="{SIDE}" preserveAspectRatio="none" '
        f'href="data:image/png;base64,{base64.b64encode(image).decode()}"/>',
    ]
    for i in _ticks(ends):
        at = (i + 0.5) * cell
        out.append(chart.text(left - 6, top + at + 3.5, chart.cut(ends[i]), "end"))
        turn = f' transform="rotate(-40 {xy(left + at)} {top - 8})"'
        out.append(chart.text(left + at, top - 8, chart.cut(ends[i], 16), "start", turn))
    out += _marks(marks, left, top, cell)
    out += _scale(words, low, high, left, top + SIDE + 18, show)
    return chart.svg(left + SIDE + right, top + SIDE + 44, out)


def _ticks(ends: Sequence[str]) -> list[int]:
    """Which ends are named: all, or the first of each node, or so many of these that they do not overlap."""
    if len(ends) <= LABELS:
        return list(range(len(ends)))
    nodes = [i for i, end in enumerate(ends) if i == 0 or end.partition("/")[0] != ends[i - 1].partition("/")[0]]
    return nodes[:: -(-len(nodes) // LABELS)]


def _marks(marks: Sequence[Mark], left: float, top: float, cell: float) -> list[str]:
    out = []
    edge, lowest = left + SIDE, top
    for mark in sorted(marks, key=lambda m: m.first)[:MARKED]:
        for row, column in mark.pairs:
            x, y = left + (column + 0.5) * cell, top + (row + 0.5) * cell
            out.append(f'<circle class="ring" cx="{xy(x)}" cy="{xy(y)}" r="{xy(max(7, cell))}"/>')
        out += [f'<path class="at" d="M{xy(left + (c + 0.5) * cell)} {top}l-4 -7h8z"/>' for c in mark.columns]
        out += [f'<path class="at" d="M{xy(edge + 2)} {xy(top + (r + 0.5) * cell)}l7 -4v8z"/>' for r in mark.rows]
        at = top + (mark.first + 0.5) * cell
        lowest = max(lowest + 14, at)
        out.append(f'<path class="lead" d="M{xy(edge + 10)} {xy(at)}L{xy(edge + 22)} {xy(lowest)}"/>')
        out.append(chart.text(edge + 26, lowest + 3.5, chart.cut(mark.words, 44), "start", ' class="named"'))
    return out


def _scale(
    words: Sequence[Text], low: float, high: float, x: float, y: float, show: Callable[[float], str]
) -> list[str]:
    figure, bad, dead, blank = words
    out = []
    for step in range(_STEPS):
        out.append(f'<rect x="{xy(x + 5 * step)}" y="{y}" width="5.2" height="12" fill="{_hex(_shade(step))}"/>')
    out.append(chart.text(x, y + 24, show(low), "start"))
    out.append(chart.text(x + 5 * _STEPS, y + 24, show(high), "end"))
    out.append(chart.text(x + 5 * _STEPS + 8, y + 10, figure, "start"))
    for number, (color, said) in enumerate(((_BAD, bad), ((0, 0, 0), dead), (_NOTHING, blank))):
        at = x + 230 + 180 * number
        out.append(f'<rect class="swatch" x="{xy(at)}" y="{y}" width="12" height="12" fill="{_hex(color)}"/>')
        out.append(chart.text(at + 18, y + 10, said, "start"))
    return out


def _indices(values: Floats, dead: Bools, bad: Bools, low: float, high: float) -> Indices:
    """The colour of each pair. Of a large matrix what is bad grows: one pair in a million is seen, and no row is lost
    when the page shows fewer pixels than there are ends."""
    import numpy as np

    span = (high - low) or 1.0
    known = np.isfinite(values)
    steps = np.clip(np.nan_to_num((values - low) / span) * _STEPS, 0, _STEPS - 1).astype(np.uint8)
    found = np.where(known, _FIRST + steps, _BLANK).astype(np.uint8)
    grow = len(values) // (SIDE // 2)
    found[_grown(bad & known, grow) & known] = _FIRST + _STEPS
    found[_grown(dead, grow)] = _DEAD
    return found


def _grown(cells: Bools, by: int) -> Bools:
    """``cells`` and those around them, up to ``by`` away."""
    grown: Bools = cells.copy()
    for axis in (0, 1):
        once = grown.copy()
        for step in range(1, by + 1):
            ahead, behind = [slice(None), slice(None)], [slice(None), slice(None)]
            ahead[axis], behind[axis] = slice(step, None), slice(None, -step)
            grown[tuple(ahead)] |= once[tuple(behind)]
            grown[tuple(behind)] |= once[tuple(ahead)]
    return grown


def _shade(step: int) -> tuple[int, int, int]:
    part = step / (_STEPS - 1)
    r, g, b = (round(a + (z - a) * part) for a, z in zip(_PALE, _DEEP, strict=True))
    return r, g, b


def _palette() -> list[tuple[int, int, int]]:
    return [_NOTHING, (0, 0, 0), *(_shade(step) for step in range(_STEPS)), _BAD]


def _hex(color: tuple[int, int, int]) -> str:
    return "#{:02x}{:02x}{:02x}".format(*color)


def _png(indices: Indices, palette: Sequence[tuple[int, int, int]]) -> bytes:
    """An indexed image of one byte a pixel, each line unfiltered."""
    import numpy as np

    height, width = indices.shape
    lines = np.zeros((height, width + 1), dtype=np.uint8)
    lines[:, 1:] = indices

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    return b"".join(
        (
            b"\x89PNG\r\n\x1a\n",
            chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 3, 0, 0, 0)),
            chunk(b"PLTE", bytes(part for color in palette for part in color)),
            chunk(b"IDAT", zlib.compress(lines.tobytes(), 9)),
            chunk(b"IEND", b""),
        )
    )
