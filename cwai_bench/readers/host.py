"""What the tools of any Linux host say: systemctl, dpkg-query, rpm, ps, last, chronyc, ipmitool."""

from __future__ import annotations

import re
from datetime import datetime

import msgspec

from cwai_bench.readers import Unreadable

UNIT_PROPERTIES = ("Id", "LoadState", "ActiveState", "UnitFileState", "ConditionResult")


def _whole_lines(text: str) -> list[str]:
    """The lines of ``text``; raises Unreadable when the last has no end, for then it was cut."""
    if text and not text.endswith("\n"):
        raise Unreadable("the last line is cut")
    return text.splitlines()


class Unit(msgspec.Struct, frozen=True):
    """A unit of systemd. ``load`` is ``not-found`` for one that is not installed; ``file``: ``enabled``, ``static``…

    ``condition``: whether its Condition… lines held when it was last to be started; one that is not meant for this
    machine stays inactive for that.
    """

    name: str
    load: str
    active: str
    file: str
    condition: bool


def units(text: str) -> list[Unit]:
    """systemctl(1), ``show --property=…`` of several units: one block of lines for each, in the order asked for."""
    found = []
    lines = "\n".join(_whole_lines(text))
    for block in re.split(r"\n\s*\n", lines.strip("\n")):
        told = dict(line.split("=", 1) for line in block.splitlines() if "=" in line)
        # An empty value is an answer, and the last line of a text that was cut has none either.
        if set(UNIT_PROPERTIES) - set(told) or not all(told[p] for p in UNIT_PROPERTIES if p != "UnitFileState"):
            raise Unreadable("expected blocks of " + ", ".join(UNIT_PROPERTIES))
        found.append(
            Unit(
                told["Id"],
                told["LoadState"],
                told["ActiveState"],
                told["UnitFileState"],
                told["ConditionResult"] == "yes",
            )
        )
    return found


PACKAGE_LINE = re.compile(r"(?:(?P<state>\S*) *\|)?(?P<name>[A-Za-z0-9][\w.+-]*)\|(?P<version>\S+)")


def packages(text: str) -> dict[str, str]:
    """dpkg-query(1) asked for ``${db:Status-Abbrev}|${Package}|${Version}``, or rpm(8) for ``%{NAME}|%{VERSION}…``.

    Only what is installed (``ii``, ``hi`` on hold) counts. Lines of another shape raise Unreadable.
    """
    found = {}
    for line in _whole_lines(text):
        if not line.strip():
            continue
        if re.match(r"(?:un|rc|pn|rn) *\|", line):
            continue
        told = PACKAGE_LINE.fullmatch(line.strip())
        if told is None or (told["state"] is not None and told["state"] not in ("ii", "hi")):
            raise Unreadable(f"no line about a package: {line[:80]!r}")
        found[told["name"]] = told["version"]
    return found


class Process(msgspec.Struct, frozen=True):
    """One line of ps. ``age`` in seconds, ``memory`` in bytes, ``cpu`` the share of one CPU since it started."""

    uid: int
    pid: int
    age: int
    memory: int
    cpu: float
    name: str


_PROCESS = re.compile(r"\s*(\d{1,10})\s+(\d{1,10})\s+(\d{1,12})\s+(\d{1,15})\s+(\d{1,7}(?:\.\d)?)\s+(\S.*)")


def processes(text: str) -> list[Process]:
    """ps(1) of procps, ``-e --no-headers -o uid,pid,etimes,rss,pcpu,comm``."""
    found = []
    for line in _whole_lines(text):
        told = _PROCESS.fullmatch(line.rstrip())
        if told is None:
            raise Unreadable(f"no line of ps: {line[:80]!r}")
        uid, pid, age, memory = (int(n) for n in told.groups()[:4])
        found.append(Process(uid, pid, age, memory << 10, float(told[5]) / 100, told[6]))
    if not found:
        raise Unreadable("ps listed no process")
    return found


_TIME = r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d[+-]\d\d:?\d\d"
_BOOT = re.compile(rf"reboot\s+system boot\s+\S*\s+({_TIME})\b.*")
_BEGINS = re.compile(rf"\S+ begins ({_TIME})\s*")


def _seconds(text: str) -> float:
    try:
        return datetime.strptime(text, "%Y-%m-%dT%H:%M:%S%z").timestamp()
    except (ValueError, OverflowError):
        raise Unreadable(f"no time: {text!r}") from None


def boots(text: str) -> tuple[list[float], float]:
    """last(1) of util-linux, ``-w --time-format iso reboot``: when the node booted, and since when that is known.

    Seconds since the epoch. The last line says where the record begins; without it the text was cut.
    """
    found = [_seconds(told[1]) for told in (_BOOT.fullmatch(line) for line in text.splitlines()) if told is not None]
    begins = [told for told in (_BEGINS.fullmatch(line) for line in text.splitlines()[-1:]) if told is not None]
    if not begins:
        raise Unreadable("expected the line that says when the record begins")
    return found, _seconds(begins[0][1])


class Tracking(msgspec.Struct, frozen=True):
    """``updated``: seconds since the epoch of the last measurement used; ``offset`` in seconds; ``leap`` a word."""

    source: str
    stratum: int
    updated: float
    offset: float
    leap: str


LEAPS = ("Normal", "Insert second", "Delete second", "Not synchronised")


def tracking(text: str) -> Tracking:
    """chronyc(1), ``-n -c tracking``: one line of 14 fields with commas between."""
    fields = text.strip().split(",")
    if len(fields) != 14 or fields[13] not in LEAPS:
        raise Unreadable("expected the 14 fields of chronyc -c tracking")
    try:
        stratum, updated, offset = int(fields[2]), float(fields[3]), float(fields[4])
    except ValueError:
        raise Unreadable("expected numbers in the fields of chronyc -c tracking") from None
    if not abs(updated) < 1e12 or not abs(offset) < 1e12:  # neither nan nor infinite
        raise Unreadable("expected times in the fields of chronyc -c tracking")
    return Tracking(fields[1] or fields[0], stratum, updated, offset, fields[13])


class BmcEvent(msgspec.Struct, frozen=True):
    """An entry of a BMC's event log. ``when``: seconds since the epoch by the BMC's clock, None when it had none yet.

    ``what``: the sensor's words for it; ``code``: Huawei's number for it, empty elsewhere. ``asserted``: it began.
    """

    when: float | None
    sensor: str
    what: str
    asserted: bool
    code: str = ""


_SEL_DATES = ("%m/%d/%Y", "%m/%d/%y")


def _sel_time(date: str, clock: str) -> float | None:
    """``06/14/2023``, ``10:01:17``; newer: ``06/14/23``, ``10:01:17 UTC``. None before the clock was set."""
    told = re.match(r"\d\d:\d\d:\d\d", clock)
    if told is None:
        return None
    for shape in _SEL_DATES:
        try:
            return datetime.strptime(f"{date} {told[0]} +0000", f"{shape} %H:%M:%S %z").timestamp()
        except (ValueError, OverflowError):
            continue
    return None


def event_log(text: str) -> list[BmcEvent]:
    """ipmitool(1), ``sel elist``: number, date, time, sensor, event, ``Asserted`` or ``Deasserted``, with bars between.

    Entries of a maker's own kind (``OEM record``) have other fields and are left out. Raises Unreadable for a text of
    which no line is an entry.
    """
    lines = [line for line in _whole_lines(text) if line.strip()]
    found = []
    for line in lines:
        fields = [field.strip() for field in line.split("|")]
        if len(fields) < 4 or not re.fullmatch(r"[0-9a-fA-F]{1,8}", fields[0]):
            raise Unreadable(f"no entry of an event log: {line.strip()[:60]!r}")
        if fields[3].startswith("OEM record") or len(fields) < 5:
            continue
        ended = fields[-1] == "Deasserted"
        words = fields[4:-1] if ended or fields[-1] == "Asserted" else fields[4:]
        found.append(BmcEvent(_sel_time(fields[1], fields[2]), fields[3][:80], " | ".join(words)[:160], not ended))
    return found


_HUAWEI_ROW = re.compile(r"\s*\d{1,8}\s*\|")


def huawei_event_log(text: str) -> list[BmcEvent]:
    """``ipmcget -d sel -v list`` of Huawei's BMC: a table with time, code, status and description of each event."""
    lines = _whole_lines(text)
    head = next((line for line in lines if "Event Code" in line and "|" in line), None)
    if head is None:
        raise Unreadable("it has no column “Event Code”")
    names = [name.strip().lower() for name in head.split("|")]
    if not {"generation time", "event code", "status", "event description"} <= set(names):
        raise Unreadable("a column is missing")
    found = []
    for line in lines:
        if not _HUAWEI_ROW.match(line):
            continue
        cells = [cell.strip() for cell in line.split("|", len(names) - 1)]
        if len(cells) != len(names):
            raise Unreadable(f"a row of {len(cells)} columns: {line[:60]!r}")
        row = dict(zip(names, cells, strict=True))
        if not re.fullmatch(r"0x[0-9a-fA-F]{1,8}", row["event code"]):
            raise Unreadable(f"no event code: {row['event code'][:40]!r}")
        try:
            when: float | None = datetime.strptime(
                f"{row['generation time']} +0000", "%Y-%m-%d %H:%M:%S %z"
            ).timestamp()
        except (ValueError, OverflowError):
            when = None
        found.append(
            BmcEvent(
                when,
                "",
                row["event description"][:160],
                row["status"].lower() != "deasserted",
                f"0x{int(row['event code'], 16):08x}",
            )
        )
    return found
