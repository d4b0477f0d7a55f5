"""What AMD's own tests of its accelerators print: ``rvs -r LEVEL`` of the ROCm Validation Suite.

Format: AMD, ROCm Validation Suite 1.3 to 1.7 (2025, 2026), docs/ug1main.md and the sources that print it:
rvs/src/rvsexec_do_yaml.cpp (the summary), gst.so/src/gst_worker.cpp, iet.so/src/iet_worker.cpp,
mem.so/src/rvs_memtest.cpp. The summary comes last, when all actions came to an end. It tells of an action that failed,
but ``mem`` never fails there: it says ``Test N : PASS`` once for each card, and nothing where it found an error.
"""

from __future__ import annotations

import re
from collections import Counter
from typing import NamedTuple

from cwai_bench.readers import Unreadable

SAID_LIMIT = 300
ROWS_LIMIT = 2000
_LINES, _LONGEST = 200_000, 500
_COLOUR = re.compile(r"\x1b\[[0-9;]{0,16}m")
_RESULTS = {"PASS": True, "FAIL": False}
_HEADER = ["Action Name", "Module", "Result"]
_CARD = re.compile(r"\S.* - (\d{1,9})")
_PLACE = re.compile(r"\d{1,4} - \d{1,4} - ([0-9a-fA-F]{4,8}:[0-9a-fA-F]{2}:[0-9a-fA-F]{2}\.[0-7])")
_OF_A_CARD = re.compile(r"\[([^\]]{1,80})\] \[GPU:: *(\d{1,9})\].* (?:met|pass): (TRUE|FALSE)\b")
_MEMORY = re.compile(r"\[([^\]]{1,80})\] mem +Test (\d{1,3})\b( : PASS)?")


class Action(NamedTuple):
    """``cards``: those of which a line of its own says that it failed, by PCI address or by RVS's number."""

    name: str
    module: str
    passed: bool
    cards: tuple[str, ...]


class RvsRun(NamedTuple):
    """``cards``: how many RVS saw. ``memory``: each test of the memory with how many cards passed it. ``said``: its
    complaints."""

    cards: int
    actions: tuple[Action, ...]
    memory: tuple[tuple[str, int], ...]
    said: str


def rvs(text: str) -> RvsRun:
    """One run. Raises Unreadable, also with what RVS said in place of its summary."""
    lines = [_COLOUR.sub("", line[:_LONGEST]).strip() for line in re.split(r"[\r\n]+", text)[:_LINES]]
    errors = [line for line in lines if line.startswith(("RVS-ERROR", "[ERROR "))]
    said = "; ".join(dict.fromkeys(errors))[:SAID_LIMIT]
    start = max((i for i, line in enumerate(lines) if "ROCm Validation Suite (RVS) Summary" in line), default=None)
    if start is None:
        first = said or next(filter(None, lines), "nothing")
        raise Unreadable(f"there is no summary, it says: {first[:150]}")
    places, cards, rows = _summary(lines[start + 1 :])
    failed: dict[str, dict[str, None]] = {}
    memory: Counter[tuple[str, int]] = Counter()
    for line in lines[:start]:
        if found := _OF_A_CARD.search(line):
            if found[3] == "FALSE":
                failed.setdefault(found[1].strip(), {})[places.get(found[2], f"GPU {found[2]}")] = None
        elif found := _MEMORY.search(line):
            memory[found[1].strip(), int(found[2])] += found[3] is not None
    actions = tuple(Action(*row, tuple(failed.pop(row[0], ()))) for row in rows)
    if failed:
        raise Unreadable(f"{next(iter(failed))[:80]} is not in the summary")
    tests = tuple((f"{name} test {number}", n) for (name, number), n in sorted(memory.items())[:ROWS_LIMIT])
    return RvsRun(cards, actions, tests, said)


def _summary(lines: list[str]) -> tuple[dict[str, str], int, list[tuple[str, str, bool]]]:
    """The cards' addresses by RVS's numbers, how many cards there are, and the rows of the actions."""
    places: dict[str, str] = {}
    numbers: list[str | None] = []
    cards: int | None = None
    rows: list[tuple[str, str, bool]] | None = None
    for line in lines:
        if not line.startswith("|"):
            if rows and line.startswith("+-"):  # the bottom
                if cards is None:
                    raise Unreadable("the summary does not say how many GPUs there are")
                return places, cards, rows
            continue
        cells = [cell.strip() for cell in line.strip("|").split("|")]
        if cells == _HEADER:
            rows = []
        elif rows is not None:
            if len(cells) != 3 or cells[2] not in _RESULTS or len(rows) >= ROWS_LIMIT:
                raise Unreadable(f"{line[:80]!r} is no row of the summary")
            rows.append((cells[0][:80], cells[1][:20].lower(), _RESULTS[cells[2]]))
        elif cells[0] == "GPUs" and len(cells) == 2 and re.fullmatch(r"\d{1,4}", cells[1]):
            cards = int(cells[1])
        else:
            for number, cell in zip(numbers, cells, strict=False):
                if number is not None and (place := _PLACE.fullmatch(cell)):
                    places[number] = place[1].lower()
            numbers = [card[1] if (card := _CARD.fullmatch(cell)) else None for cell in cells]
    raise Unreadable("the summary is not complete")
