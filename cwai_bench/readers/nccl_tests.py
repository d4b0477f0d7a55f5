"""The table that nccl-tests prints (``all_reduce_perf`` …), and rccl-tests with it: a run that was made elsewhere.

Format: NVIDIA/nccl-tests, src/util.cu (writeDeviceReport, writeResultHeader, writeBenchmarkLineBody,
writeResultFooter), src/common.cu; versions 2.0 to 2.19. ``#wrong`` counts the elements that were wrong on all ranks
together; older versions had ``error`` in its place, the largest deviation, which is no count.

A program that was built without MPI and started by mpirun runs once for each rank, alone: then there are several
tables in one text, and none of them says anything of a network.
"""

from __future__ import annotations

import re
from typing import NamedTuple

from cwai_bench.readers import Unreadable


class Device(NamedTuple):
    """A card that took part. ``address`` as it is printed, ``0000:18:00``."""

    rank: int
    host: str
    device: int
    address: str
    card: str


class Figure(NamedTuple):
    """Seconds, and bytes per second. ``wrong``: None where nothing was compared, or a deviation was told."""

    seconds: float
    algorithm: float
    bus: float
    wrong: int | None


class Row(NamedTuple):
    """One size in bytes. ``dtype``, ``reduction`` as printed (``float``, ``sum``, ``none``); a placement that was not
    measured is None."""

    size: int
    elements: int
    dtype: str
    reduction: str
    root: int | None
    out_of_place: Figure | None
    in_place: Figure | None


class Report(NamedTuple):
    """``operation`` as in ``all_reduce``, empty where it is not told. ``mean_bus``: of all rows and placements, bytes
    per second; ``wrong``: the sum of the footer. Both None where the footer is missing: the run did not end.
    ``unread``: rows that something else was printed into."""

    operation: str
    version: str
    devices: list[Device]
    rows: list[Row]
    wrong: int | None
    mean_bus: float | None
    unread: int


_LINES, _LENGTH = 200_000, 1000
_STARTING = re.compile(r"# Collective test starting: (?:\S{0,200}/)?(\w{1,40}?)(?:_perf)?")
_VERSION = re.compile(r"# nccl-tests version (\S{1,40}) .*")
_DEVICE = re.compile(
    r"# +Rank +(\d{1,7}) (?:Group +\d{1,7} )?Pid +\d{1,10} on +(\S{1,255}) device +(\d{1,4})"
    r" \[([0-9a-fA-Fx:.]{2,20})\] ?(.{0,100})",
    re.A,
)
_COLUMN = re.compile(
    r"size|count|type|redop|root|(?:cpu)?time|algbw|busbw|#wrong|error|i_min|i_max|i_p99|i_cv%|timestamp"
)
_OUT_OF_BOUNDS = re.compile(r"# Out of bounds values *: (\d{1,18}) (?:OK|FAILED)", re.A)
_MEAN = re.compile(r"# Avg bus bandwidth *: (\d{1,9}(?:\.\d{1,9})?(?:e[+-]\d{1,2})?)(?: .*)?", re.A)
_NUMBER = re.compile(r"\d{1,18}(?:\.\d{1,9})?(?:e[+-]?\d{1,2})?", re.A)
_WRONG = re.compile(r"\d{1,18}|\d(?:\.\d{1,9})?e\+?\d{1,2}", re.A)


def nccl_tests(text: str) -> Report:
    """The table of one run. Raises Unreadable, also where there are several."""
    operation = version = ""
    devices: list[Device] = []
    columns: list[str] = []
    rows: list[Row] = []
    wrong: int | None = None
    mean: float | None = None
    in_place_first = False
    unread = 0
    for whole in text.replace("\r\n", "\n").split("\n", _LINES)[:_LINES]:
        line = whole[:_LENGTH].strip()
        if (told := _STARTING.fullmatch(line)) is not None:
            operation = told[1]
        elif (told := _VERSION.fullmatch(line)) is not None:
            version = told[1]
        elif (told := _DEVICE.fullmatch(line)) is not None:
            devices.append(Device(int(told[1]), told[2], int(told[3]), told[4], told[5].strip()))
        elif "out-of-place" in line and "in-place" in line:
            in_place_first = line.find("in-place") < line.find("out-of-place")
        elif line.startswith("#") and "busbw" in line:
            if columns:
                raise Unreadable("several tables: did every process run alone, since nccl-tests was built without MPI?")
            columns = _columns(line)
        elif (told := _OUT_OF_BOUNDS.fullmatch(line)) is not None:
            wrong = int(told[1])
        elif (told := _MEAN.fullmatch(line)) is not None:
            mean = float(told[1]) * 1e9
        elif columns and line[:1].isdecimal():
            row = _row(line.split(), columns, in_place_first)
            if row is None:
                unread += 1
            else:
                rows.append(row)
    if not columns:
        raise Unreadable("expected a table with the columns size, count, type, time, algbw, busbw")
    if len({d.rank for d in devices}) != len(devices):
        raise Unreadable("a rank is listed twice: did every process run alone, since nccl-tests was built without MPI?")
    if not rows:
        raise Unreadable("its table is empty")
    return Report(operation, version, devices, rows, wrong, mean, unread)


def _columns(heading: str) -> list[str]:
    """The names of the columns, each placement with the same ones."""
    words = heading.lstrip("#").split()
    if not all(_COLUMN.fullmatch(word) for word in words) or words[:3] != ["size", "count", "type"]:
        raise Unreadable(f"it has other columns: {heading[:150]!r}")
    words = ["time" if word == "cputime" else word for word in words]
    if words.count("time") != 2 or _placements(words)[0] != _placements(words)[1]:
        raise Unreadable(f"it has not the same columns in place and out of place: {heading[:150]!r}")
    if not {"time", "algbw", "busbw"} <= set(_placements(words)[0]):
        raise Unreadable(f"it tells no bandwidth: {heading[:150]!r}")
    return words


def _placements(columns: list[str]) -> tuple[list[str], list[str]]:
    """The columns of the first placement and of the second."""
    first = columns.index("time")
    second = columns.index("time", first + 1)
    return columns[first:second], [c for c in columns[second:] if c != "timestamp"]


def _row(words: list[str], columns: list[str], in_place_first: bool) -> Row | None:
    """None where it is not a row as the heading promises: something was printed into it."""
    names = columns[: columns.index("time")]
    placement = _placements(columns)[0]
    # A time stamp is printed as two words.
    end = len(words) - (2 if columns[-1] == "timestamp" else 0)
    figures = words[len(names) : end]
    if len(figures) not in (len(placement), 2 * len(placement)):
        return None
    head = dict(zip(names, words, strict=False))
    if not (head["size"].isdecimal() and head["count"].isdecimal() and len(head["size"]) <= 18 >= len(head["count"])):
        return None
    told = [
        _figure(dict(zip(placement, figures[at : at + len(placement)], strict=True)))
        for at in range(0, len(figures), len(placement))
    ]
    if any(figure is None for figure in told):
        return None
    # Where only one was measured it is in place.
    first, second = told if len(told) == 2 else (None, told[0])
    root = head.get("root", "")
    return Row(
        int(head["size"]),
        int(head["count"]),
        head["type"][:40],
        head.get("redop", "")[:40],
        int(root) if re.fullmatch(r"-?\d{1,7}", root, re.A) else None,
        *((second, first) if in_place_first and len(told) == 2 else (first, second)),
    )


def _figure(cells: dict[str, str]) -> Figure | None:
    numbers = [cells[name] for name in ("time", "algbw", "busbw")]
    if not all(_NUMBER.fullmatch(number) for number in numbers):
        return None
    count = cells.get("#wrong", "N/A")
    if count != "N/A" and not _WRONG.fullmatch(count):
        return None
    time, algorithm, bus = map(float, numbers)
    wrong = None if count == "N/A" else int(float(count))
    return Figure(time / 1e6, algorithm * 1e9, bus * 1e9, wrong)
