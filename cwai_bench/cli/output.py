"""What becomes of a result that standard output does not take: it changes no verdict, and it is never silently lost."""

from __future__ import annotations

import os
import shutil
import sys
from typing import Any, TextIO

from cwai_bench.errors import CwaiError, NoVerdictError
from cwai_bench.text import Lang, Text


def silence(stream: TextIO) -> None:
    """Nobody reads ``stream`` any more, or it takes no more: what is left in its buffer must not raise at the end."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())


def unwritten(error: OSError) -> NoVerdictError:
    """The complaint about a standard output that cannot be written. A verdict that nobody was told is none."""
    return NoVerdictError(
        Text("cannot write to standard output: {e}", "无法写入标准输出：{e}").fill(e=error.strerror),
        Text("the run is kept: cwai-bench history show last", "运行记录已保存：cwai-bench history show last"),
    )


def write_json(value: Any) -> None:
    """``value`` on standard output, as a person can read it too."""
    import msgspec

    sys.stdout.write(msgspec.json.format(msgspec.json.encode(value), indent=1).decode() + "\n")


def put(stream: TextIO, text: str) -> NoVerdictError | None:
    """Write ``text`` and flush. A reader that has left is no trouble; anything else that goes wrong is returned."""
    try:
        stream.write(text)
        stream.flush()
    except BrokenPipeError:
        silence(stream)
    except OSError as e:
        silence(stream)
        return unwritten(e)
    return None


GAP = "  "


def columns(rows: list[list[str]], indent: int = 0) -> str:
    """``rows`` in columns. On a terminal, the last cell of a row goes on below itself where it does not fit; where that
    would leave it too little room, each row goes on below its first cell instead."""
    from rich.cells import cell_len

    width = _terminal_width()
    wide = [max(map(cell_len, column), default=0) for column in zip(*rows, strict=True)]
    before = indent + sum(wide[:-1]) + len(GAP) * (len(wide) - 1)
    narrow = width is not None and before + wide[-1] > width and width - before < LAST_LEAST
    lines: list[str] = []
    for row in rows:
        if narrow:
            assert width is not None
            below = indent + len(GAP)
            lines += _wrapped([cell for cell in row[:-1] if cell], width, indent, below, GAP)
            lines += _wrapped(row[-1].split(), width, below, below, " ")
            continue
        head = " " * indent + "".join(
            cell + " " * (w - cell_len(cell)) + GAP for cell, w in zip(row[:-1], wide, strict=False)
        )
        last = [row[-1]] if width is None else _wrapped(row[-1].split(), width - before, 0, 0, " ") or [""]
        lines += [(head if n == 0 else " " * before) + part for n, part in enumerate(last)]
    return "".join(line.rstrip() + "\n" for line in lines)


LAST_LEAST = 24
"""Columns of a terminal below which the last cell of a row is not broken into ever more lines."""


def _wrapped(words: list[str], width: int, first: int, then: int, gap: str) -> list[str]:
    """``words`` in lines of at most ``width``; a single one that is longer stands alone and is not cut."""
    from rich.cells import cell_len

    lines: list[str] = []
    line = " " * first
    empty = True
    for word in words:
        if not empty and cell_len(line) + len(gap) + cell_len(word) > width:
            lines.append(line)
            line, empty = " " * then, True
        line += word if empty else gap + word
        empty = False
    return lines if empty else [*lines, line]


def _terminal_width() -> int | None:
    """None where standard output is no terminal: who reads on gets a line for each row."""
    return shutil.get_terminal_size().columns if sys.stdout.isatty() else None


def complain(error: CwaiError, lang: Lang) -> None:
    """What is wrong, and the next step, on stderr."""
    sys.stderr.write(f"cwai-bench: {error.show(lang)}\n")
    sys.stderr.flush()
