"""What ``hccn_tool -i N -roce_test TYPE …`` reports of the RoCE port of an NPU: bandwidth or latency of one run.

The tool starts Huawei's build of perftest on the NPU and prints its report. Format: that of perftest 4 to 6
(perftest_parameters.h: RESULT_FMT, RESULT_FMT_LAT, and without a peak as after ``-D``), which public recordings of the
tool on 910B and 910C have too; what it prints itself is in its published source (driver, network/hccn, cmd.c, 2026).
``MB/sec`` is MiB per second, as the message rate beside it proves; perftest says so in its help.
"""

from __future__ import annotations

import re
from typing import Literal, NamedTuple

from cwai_bench.readers import Unreadable

Verb = Literal["write", "read", "send"]


class Bandwidth(NamedTuple):
    """Bytes per second of messages of ``size`` bytes; ``peak`` None where it is not told (the receiver prints 0)."""

    size: int
    iterations: int
    mean: float
    peak: float | None


class Latency(NamedTuple):
    """Seconds, as told: of write and send half of a round trip, of read a whole one. None where it is not told."""

    size: int
    iterations: int
    median: float
    least: float | None
    most: float | None
    mean: float | None
    stdev: float | None
    p99: float | None
    p999: float | None


class Report(NamedTuple):
    """``gid``: of the port that reports, as in ``::ffff:192.0.2.1``; ``mtu`` in bytes. None where it is not told."""

    verb: Verb
    two_way: bool
    mtu: int | None
    gid: str | None
    bandwidth: list[Bandwidth]
    latency: list[Latency]


_LINES = 20_000
_TITLE = re.compile(r"(Send|RDMA_Write|RDMA_Read) (Bidirectional )?(BW|Latency) Test")
_VERBS: dict[str, Verb] = {"Send": "send", "RDMA_Write": "write", "RDMA_Read": "read"}
_RULE = re.compile(r"-{20,}")
_HEADING = re.compile(
    r"(#bytes|#iterations|BW (?:peak|average)\[(?:MB|MiB|Gb)/sec\]|MsgRate\[Mpps\]"
    r"|t_(?:min|max|typical|avg|stdev)\[usec\]|99(?:\.9)?% percentile\[usec\])"
)
_NUMBER = re.compile(r"\d{1,15}(?:\.\d{1,9})?")
_UNITS = {"MB": (2.0**20, 1e6), "MiB": (2.0**20,), "Gb": (1e9 / 8,)}
"""Bytes per second that a unit may stand for, the likelier first."""
_SAID_LIMIT = 150


def report(text: str) -> Report:
    """The report of one end. Raises Unreadable, also with what the tool said in its place."""
    lines = [line.strip() for line in text.replace("\r\n", "\n").split("\n")[:_LINES]]
    title = next((found for line in lines if (found := _TITLE.fullmatch(line))), None)
    start = next((i for i, line in enumerate(lines) if line.startswith("#bytes")), None)
    if title is None or start is None:
        raise Unreadable(f"expected the report of a test, it says: {_said(lines)}")
    columns = _columns(lines[start])
    rows = []
    for line in lines[start + 1 :]:
        if _RULE.fullmatch(line):
            break
        if line and line[0].isdecimal():  # others are warnings
            rows.append(_row(line, columns))
    else:
        raise Unreadable("its table has no end")
    if not rows:
        raise Unreadable("its table is empty")
    told = dict(re.findall(r"^(Mtu|GID) *: *(\S+)$", "\n".join(lines[:start]), re.M)[::-1])
    mtu = re.fullmatch(r"(\d{3,5})\[B\]", told.get("Mtu", ""))
    timed = title[3] == "Latency"
    return Report(
        _VERBS[title[1]],
        title[2] is not None,
        int(mtu[1]) if mtu else None,
        _gid(told.get("GID", "")),
        [] if timed else [_bandwidth(row) for row in rows],
        [_latency(row) for row in rows] if timed else [],
    )


def _said(lines: list[str]) -> str:
    """The last thing that is not said in every case."""
    told = [line for line in lines if line and not re.match(r"[-*]{3}|Dsmi |roce_report", line)]
    return told[-1][:_SAID_LIMIT] if told else "nothing"


def _columns(heading: str) -> list[str]:
    found = _HEADING.findall(heading)
    if _HEADING.sub("", heading).strip() or len(set(found)) != len(found) or found[:2] != ["#bytes", "#iterations"]:
        raise Unreadable(f"it has other columns: {heading[:_SAID_LIMIT]!r}")
    return found


def _row(line: str, columns: list[str]) -> dict[str, float]:
    values = line.split()
    if len(values) != len(columns) or not all(_NUMBER.fullmatch(value) for value in values):
        raise Unreadable(f"no row of its table: {line[:60]!r}")
    return dict(zip(columns, map(float, values), strict=True))


def _bandwidth(row: dict[str, float]) -> Bandwidth:
    size, iterations = int(row["#bytes"]), int(row["#iterations"])
    average = next((name for name in row if name.startswith("BW average")), None)
    if average is None or size < 1:
        raise Unreadable("it tells no average of bandwidth")
    rate = row.get("MsgRate[Mpps]")
    for unit in _UNITS[average[len("BW average[") : -len("/sec]")]]:
        mean = row[average] * unit
        # Six digits behind the point are told of the rate.
        if rate is None or abs(mean / size - rate * 1e6) <= 0.5 + 0.01 * mean / size:
            peak = row.get(average.replace("average", "peak"), 0.0) * unit
            return Bandwidth(size, iterations, mean, peak or None)
    raise Unreadable("its bandwidth and its message rate contradict each other")


def _latency(row: dict[str, float]) -> Latency:
    if "t_typical[usec]" not in row:
        raise Unreadable("it tells no typical time")

    def seconds(name: str) -> float | None:
        return row[name] / 1e6 if name in row else None

    return Latency(
        int(row["#bytes"]),
        int(row["#iterations"]),
        row["t_typical[usec]"] / 1e6,
        seconds("t_min[usec]"),
        seconds("t_max[usec]"),
        seconds("t_avg[usec]"),
        seconds("t_stdev[usec]"),
        seconds("99% percentile[usec]"),
        seconds("99.9% percentile[usec]"),
    )


def _gid(told: str) -> str | None:
    """perftest prints all 16 bytes in decimal. Only one that stands for an IPv4 address tells what it is."""
    parts = told.split(":")
    if len(parts) != 16 or not all(re.fullmatch(r"\d{1,3}", part) and int(part) < 256 for part in parts):
        return None
    octets = [int(part) for part in parts]
    if any(octets[:10]) or octets[10:12] != [255, 255]:
        return None
    return "::ffff:" + ".".join(map(str, octets[12:]))
