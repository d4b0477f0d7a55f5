"""Files that a person writes: options, and the criteria of configurable items and probes. TOML; no code in it.

::

    [options]
    lang = "zh"
    store = "/shared/cwai-bench"

    profile = "8xH100"       # what is known of that kind of node; before any table

    [criteria]               # in addition to the profile, or in its place
    memory.total.min = "1 TiB"
    kernel.version.pattern = '6\\.8\\..*'
    nic.speed = { min = "100 Gb/s", where.name = "ens*" }
    tcp.bandwidth = { min = "9 Gb/s", where.bytes = "1 MiB" }
    tcp.latency.max = "60 us"

    [paths]                  # of RDMA: shares of what rate, MTU and PCIe let through
    fail_below = 0.90
    warn_below = "95 %"

    [script]                 # your own scripts as items, see cwai_bench/scripts.py
    site_mount = { file = "check_mount.sh", limit = "60 s", nodes = "node[1-8]", exit = { warn = [1] } }

    [suppress]
    memory.swap = { nodes = "node[1-8]", owner = "ops", reason = "swap needed by the login shell", until = 2026-03-31 }

An item takes any of ``min``, ``max``, ``equals`` (with ``tolerance``, a share such as ``"5 %"``), ``one_of`` and
``pattern`` (a regular expression that must match the whole value); all given must hold. ``where`` narrows it: ``name``
is a pattern for the name of a file system or an interface, any other key a parameter of the measurement.
A suppression keeps what an item says of ``nodes`` (a node set; all when left out) out of the gate, up to and with the
day ``until``; several for one item stand in a list.
Every mistake is a UsageError that names the file, the line where it can, the key and the reason.
"""

from __future__ import annotations

import fnmatch
import importlib.resources
import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from datetime import date, datetime
from pathlib import Path
from typing import Any

from cwai_bench.document import Document, Quantity, nearest, node_set, quantity, read_file
from cwai_bench.errors import UsageError
from cwai_bench.goodput import DEFAULTS, Thresholds
from cwai_bench.model import Scalar, ScriptSpec
from cwai_bench.scripts import parse_scripts
from cwai_bench.text import Text, joined

VALUE_LIMIT = 4096
"""Characters of a value that a pattern is held against: a node may say anything."""

Operand = Quantity | str


@dataclass(frozen=True)
class Criterion:
    """What a person demands of one item; None where nothing was said."""

    item: str
    min: Quantity | None = None
    max: Quantity | None = None
    equals: Operand | None = None
    one_of: tuple[Operand, ...] | None = None
    pattern: str | None = None
    tolerance: float = 0.0
    where: tuple[tuple[str, Scalar], ...] = ()

    def units(self) -> set[str]:
        """What the quantities in it measure; ``text`` for words. ``unlimited`` fits all."""
        operands: list[Operand | None] = [self.min, self.max, self.equals, *(self.one_of or ())]
        found = {o.unit if isinstance(o, Quantity) else "text" for o in operands if o is not None}
        if self.pattern is not None:
            found.add("text")
        return found - {""}

    def fits(self, unit: str) -> bool:
        """True when it can be held against a value of ``unit``."""
        return self.units() <= ({"text", "1"} if unit == "text" else {unit})

    def holds(self, value: str | float) -> bool:
        """True when ``value`` (in bytes, bits per second, seconds, a number, or text) is as demanded."""
        if self.pattern is not None and not re.fullmatch(self.pattern, str(value)[:VALUE_LIMIT]):
            return False
        if self.min is not None and not (isinstance(value, int | float) and value >= self.min.value):
            return False
        if self.max is not None and not (isinstance(value, int | float) and value <= self.max.value):
            return False
        if self.equals is not None and not self._equal(value, self.equals):
            return False
        return self.one_of is None or any(self._equal(value, one) for one in self.one_of)

    def _equal(self, value: str | float, wanted: Operand) -> bool:
        if isinstance(value, str):
            return value == (wanted.text if isinstance(wanted, Quantity) else wanted)
        if not isinstance(wanted, Quantity):
            return False
        return value == wanted.value or abs(value - wanted.value) <= self.tolerance * abs(wanted.value)

    def applies_to(self, name: str) -> bool:
        """True when a value called ``name`` is meant (``where.name``)."""
        pattern = dict(self.where).get("name")
        return pattern is None or fnmatch.fnmatchcase(name, str(pattern))

    def selects(self, parameters: Mapping[str, Scalar]) -> bool:
        """True when a measurement with these parameters is meant."""
        for key, wanted in self.where:
            value = parameters.get(key)
            known = quantity(wanted)
            same = value == wanted or (
                known is not None
                and isinstance(value, int | float)
                and not isinstance(value, bool)
                and value == known.value
            )
            if not same:
                return False
        return True

    def words(self) -> Text:
        """The demand, readable in both languages."""

        def shown(o: Operand) -> str:
            return o.text if isinstance(o, Quantity) else repr(o)

        parts: list[Text] = []
        if self.min is not None:
            parts.append(Text(f"at least {self.min.text}", f"不低于 {self.min.text}"))
        if self.max is not None:
            parts.append(Text(f"at most {self.max.text}", f"不高于 {self.max.text}"))
        if self.equals is not None:
            about = f" ± {self.tolerance * 100:g} %" if self.tolerance else ""
            parts.append(Text(f"equal to {shown(self.equals)}{about}", f"等于 {shown(self.equals)}{about}"))
        if self.one_of is not None:
            every = ", ".join(shown(o) for o in self.one_of)
            parts.append(Text(f"one of {every}", f"取值为其中之一：{every}"))
        if self.pattern is not None:
            parts.append(Text(f"matching {self.pattern}", f"匹配 {self.pattern}"))
        if self.where:
            where = ", ".join(f"{k} = {v}" for k, v in self.where)
            parts.append(Text(f"where {where}", f"限定 {where}"))
        return joined(parts)


@dataclass(frozen=True)
class Suppress:
    """That one item's trouble on some nodes is known. ``nodes`` None: on all. ``until`` is the last day."""

    item: str
    nodes: frozenset[str] | None
    owner: str
    reason: str
    until: date

    def covers(self, item: str, node: str) -> bool:
        return item == self.item and (self.nodes is None or node in self.nodes)


@dataclass(frozen=True)
class Criteria:
    """The demands of one file, by item, what of the verdicts is not to count, the person's own scripts by item, and
    which share of what is expected a path of RDMA must reach."""

    name: str
    items: Mapping[str, Criterion]
    suppressions: tuple[Suppress, ...] = ()
    scripts: Mapping[str, ScriptSpec] = field(default_factory=dict)
    paths: Thresholds = DEFAULTS

    def get(self, item: str) -> Criterion | None:
        return self.items.get(item)


_TABLES = ("options", "criteria", "paths", "suppress", "profile", "script")
_FOR_THE_JUDGE = {"criteria", "paths", "suppress", "profile", "script"}
_KEYS = ("min", "max", "equals", "one_of", "pattern", "tolerance", "where")


def parse_criteria(
    text: str, name: str, known: Mapping[str, str] | None = None, every: Collection[str] | None = None
) -> Criteria:
    """The criteria and suppressions in the text of a file. ``name`` is what complaints call it.

    ``known``: the items that may be held against a criterion, each with its unit (``""``: any); ``every``: the items
    that may be suppressed. None takes every item as it comes. Raises UsageError.
    """
    document = Document(text, name, _TABLES)
    if not _FOR_THE_JUDGE & set(document.tables):
        raise UsageError(
            Text("{n} has no [criteria] and no [script] table", "{n} 中没有 [criteria] 或 [script] 表").fill(n=name),
            Text(
                'write [criteria], and below it such as memory.total.min = "1 TiB"',
                '请写 [criteria]，其下如 memory.total.min = "1 TiB"',
            ),
        )
    items: dict[str, Criterion] = {}
    if "profile" in document.tables:
        items.update(_profile(document, document.tables["profile"], known))
    if "criteria" in document.tables:
        own: dict[str, Criterion] = {}
        _gather(document, document.tables["criteria"], [], known, own)
        items.update(own)
    scripts = parse_scripts(document, document.tables.get("script", {}))
    suppressions: list[Suppress] = []
    may = None if every is None else {*every, *scripts}
    _gather_suppressions(document, document.tables.get("suppress", {}), [], may, suppressions)
    paths = _paths(document, document.tables.get("paths", {}))
    return Criteria(name, items, tuple(suppressions), scripts, paths)


def has_criteria(text: str, name: str) -> bool:
    """Whether a configuration file says anything to the judge; it may hold options alone. Raises UsageError."""
    return bool(_FOR_THE_JUDGE & set(Document(text, name, _TABLES).tables))


def profiles() -> dict[str, str]:
    """The profiles that come with this program, by name: criteria for a kind of node, as the text of a file."""
    folder = importlib.resources.files("cwai_bench").joinpath("profiles")
    found = {f.name.removesuffix(".toml"): f for f in folder.iterdir() if f.name.endswith(".toml")}
    return {name: found[name].read_text(encoding="utf-8") for name in sorted(found)}


def _profile(document: Document, wanted: Any, known: Mapping[str, str] | None) -> Mapping[str, Criterion]:
    every = profiles()
    if not isinstance(wanted, str) or wanted not in every:
        raise document.wrong(
            ["profile"],
            Text("there is no profile {w!r}", "没有名为 {w!r} 的配置档").fill(w=wanted),
            nearest(str(wanted), every),
        )
    return parse_criteria(every[wanted], f"profile {wanted}", known).items


def load_criteria(path: Path, known: Mapping[str, str] | None = None) -> Criteria:
    """The criteria in a file; see :func:`parse_criteria`. Raises UsageError, also for a file that cannot be read."""
    return parse_criteria(read_file(path), str(path), known)


def parse_options(text: str, name: str, known: Mapping[str, type]) -> dict[str, Scalar]:
    """The ``[options]`` of a file: values for options of the command line, by name (``item-timeout``).

    ``known``: each option and the type of its value. Raises UsageError.
    """
    document = Document(text, name, _TABLES)
    options = document.tables.get("options", {})
    if not isinstance(options, dict):
        raise document.wrong(["options"], Text("must be a table", "必须是一个表"))
    found: dict[str, Scalar] = {}
    for key, value in options.items():
        if key not in known:
            raise document.wrong(["options", key], Text("there is no such option", "没有这个选项"), nearest(key, known))
        wanted = known[key]
        exact: Scalar = float(value) if wanted is float and type(value) is int else value
        if exact.__class__ is not wanted:
            raise document.wrong(
                ["options", key],
                Text("expected {w}, found {f!r}", "应为 {w}，实际为 {f!r}").fill(w=_TYPES[wanted], f=value),
            )
        found[key] = exact
    return found


_TYPES: dict[type, Text] = {
    str: Text("text", "文本"),
    int: Text("a whole number", "整数"),
    float: Text("a number", "数值"),
    bool: Text("true or false", "true 或 false"),
}


def _gather(
    document: Document, table: Any, path: list[str], known: Mapping[str, str] | None, items: dict[str, Criterion]
) -> None:
    """Collect items from nested tables: ``memory.total.min`` is the table memory, in it total, in it min."""
    at, item = ["criteria", *path], ".".join(path)
    is_known = known is not None and item in known
    is_item = bool(path) and (is_known or (isinstance(table, dict) and any(key in _KEYS for key in table)))
    is_table = isinstance(table, dict)
    if known is not None and not is_known and (is_item or not is_table):
        raise document.wrong(
            at, Text("there is no such configurable item", "没有这个可配置检测项"), nearest(item, known)
        )
    if not is_table:
        expected = Text("expected a table such as {t}, found {v!r}", "应为 {t} 形式的表，实际为 {v!r}")
        raise document.wrong(at, expected.fill(t="{ min = … }", v=table))
    if path and not table:
        raise document.wrong(at, Text("nothing is demanded", "没有给出任何要求"), nearest("", _KEYS))
    if is_item:
        items[item] = _criterion(document, item, table, at, known[item] if known is not None else "")
        return
    for key, inner in table.items():
        _gather(document, inner, [*path, key], known, items)


def _criterion(document: Document, item: str, demands: dict[str, Any], at: list[str], unit: str) -> Criterion:
    for key in demands:
        if key not in _KEYS:
            raise document.wrong([*at, key], Text("there is no such comparison", "没有这种比较"), nearest(key, _KEYS))

    def bound(key: str) -> Quantity | None:
        if key not in demands:
            return None
        found = quantity(demands[key])
        if found is None:
            raise document.wrong(
                [*at, key],
                Text(
                    '{v!r} is no quantity such as "1 TiB", "9 Gb/s", "2 us" or 64',
                    '{v!r} 不是数量，例如 "1 TiB"、"9 Gb/s"、"2 us" 或 64',
                ).fill(v=demands[key]),
            )
        return found

    def operand(key: str, value: Any) -> Operand:
        # A text such as "6.8" stays text for an item whose value is text; elsewhere it is a number.
        found = None if unit == "text" else quantity(value)
        if found is not None:
            return found
        if isinstance(value, str):
            return value
        if unit == "text" and isinstance(value, int | float) and not isinstance(value, bool):
            return str(value)
        raise document.wrong([*at, key], Text("{v!r} can be compared with nothing", "{v!r} 无法用于比较").fill(v=value))

    one_of: tuple[Operand, ...] | None = None
    if "one_of" in demands:
        if not isinstance(demands["one_of"], list) or not demands["one_of"]:
            raise document.wrong([*at, "one_of"], Text("expected a list with something in it", "应为非空列表"))
        one_of = tuple(operand("one_of", value) for value in demands["one_of"])
    pattern = demands.get("pattern")
    if pattern is not None:
        try:
            re.compile(pattern)
        except (re.error, TypeError) as e:
            raise document.wrong(
                [*at, "pattern"],
                Text("{p!r} is no regular expression: {e}", "{p!r} 不是正则表达式：{e}").fill(p=pattern, e=e),
            ) from e
    tolerance = bound("tolerance")
    if tolerance is not None and ("equals" not in demands and "one_of" not in demands):
        raise document.wrong([*at, "tolerance"], Text("it needs equals or one_of", "须与 equals 或 one_of 一起使用"))
    if tolerance is not None and (tolerance.unit != "1" or not 0 <= tolerance.value < 1):
        raise document.wrong(
            [*at, "tolerance"], Text('it is a share such as "5 %" or 0.05', '应为比例，例如 "5 %" 或 0.05')
        )
    criterion = Criterion(
        item,
        bound("min"),
        bound("max"),
        operand("equals", demands["equals"]) if "equals" in demands else None,
        one_of,
        pattern,
        tolerance.value if tolerance is not None else 0.0,
        _where(document, demands.get("where", {}), [*at, "where"]),
    )
    if not (criterion.units() or {"min", "max", "equals", "one_of"} & set(demands)):
        raise document.wrong(at, Text("nothing is demanded", "没有给出任何要求"), nearest("", _KEYS))
    if criterion.min is not None and criterion.max is not None and criterion.min.value > criterion.max.value:
        raise document.wrong(at, Text("min is above max: nothing can hold", "min 大于 max，无法满足"))
    if unit and not criterion.fits(unit):
        raise document.wrong(
            at,
            Text("this item is in {u}; {f} cannot be compared with it", "该项的单位为 {u}，无法与 {f} 比较").fill(
                u=unit, f=", ".join(sorted(criterion.units()))
            ),
        )
    return criterion


def _where(document: Document, where: Any, at: list[str]) -> tuple[tuple[str, Scalar], ...]:
    if not isinstance(where, dict) or not all(isinstance(v, str | int | float | bool) for v in where.values()):
        raise document.wrong(at, Text("expected a table of plain values", "应为由简单值组成的表"))
    return tuple(sorted(where.items()))


def _paths(document: Document, table: Any) -> Thresholds:
    if not isinstance(table, dict):
        raise document.wrong(["paths"], Text("must be a table", "必须是一个表"))
    found = DEFAULTS
    for key, written in table.items():
        if key not in Thresholds._fields:
            raise document.wrong(
                ["paths", key], Text("there is no such threshold", "没有这个阈值"), nearest(key, Thresholds._fields)
            )
        share = quantity(written)
        if share is None or share.unit != "1" or not 0 <= share.value <= 1:
            raise document.wrong(
                ["paths", key], Text('it is a share such as "95 %" or 0.95', '应为比例，例如 "95 %" 或 0.95')
            )
        found = found._replace(**{key: share.value})
    if found.fail_below > found.warn_below:
        raise document.wrong(
            ["paths"], Text("fail_below is above warn_below", "fail_below 大于 warn_below"), Text("swap them", "请对调")
        )
    return found


_SUPPRESS_KEYS = ("owner", "reason", "until", "nodes")


def _gather_suppressions(
    document: Document, table: Any, path: list[str], every: Collection[str] | None, found: list[Suppress]
) -> None:
    """Collect suppressions from nested tables: ``memory.swap`` is the table memory, in it swap, in it owner."""
    at, item = ["suppress", *path], ".".join(path)
    is_known = every is not None and item in every
    is_item = bool(path) and (
        is_known or isinstance(table, list) or (isinstance(table, dict) and any(key in _SUPPRESS_KEYS for key in table))
    )
    if not is_item and isinstance(table, dict) and (table or not path):
        for key, inner in table.items():
            _gather_suppressions(document, inner, [*path, key], every, found)
        return
    if every is not None and not is_known:
        raise document.wrong(at, Text("there is no such item", "没有这个检测项"), nearest(item, every))
    entries = table if isinstance(table, list) else [table]
    if not entries or not all(isinstance(entry, dict) for entry in entries):
        expected = Text("expected a table such as {t}, found {v!r}", "应为 {t} 形式的表，实际为 {v!r}")
        raise document.wrong(at, expected.fill(t="{ owner = …, reason = …, until = … }", v=table))
    found.extend(_suppression(document, item, entry, at) for entry in entries)


def _suppression(document: Document, item: str, entry: dict[str, Any], at: list[str]) -> Suppress:
    for key in entry:
        if key not in _SUPPRESS_KEYS:
            raise document.wrong(
                [*at, key], Text("there is no such field", "没有这个字段"), nearest(key, _SUPPRESS_KEYS)
            )
    for key in ("owner", "reason", "until"):
        if key not in entry:
            raise document.wrong(
                at,
                Text("it lacks {k}", "缺少 {k}").fill(k=key),
                Text(
                    'say who answers for it, why, and until when: owner = "…", reason = "…", until = 2026-03-31',
                    '请说明负责人、原因与截止日期：owner = "…"，reason = "…"，until = 2026-03-31',
                ),
            )
    for key in ("owner", "reason"):
        if not isinstance(entry[key], str) or not entry[key].strip():
            raise document.wrong([*at, key], Text("expected some words", "应为非空文本"))
    return Suppress(
        item,
        node_set(document, entry["nodes"], [*at, "nodes"]) if "nodes" in entry else None,
        entry["owner"].strip(),
        entry["reason"].strip(),
        _day(document, entry["until"], [*at, "until"]),
    )


def _day(document: Document, written: Any, at: list[str]) -> date:
    if isinstance(written, date) and not isinstance(written, datetime):
        return written
    try:
        return date.fromisoformat(written)
    except (TypeError, ValueError):
        raise document.wrong(
            at,
            Text("expected a day such as 2026-03-31, found {v!r}", "应为日期，例如 2026-03-31，实际为 {v!r}").fill(
                v=str(written)
            ),
        ) from None


__all__ = [
    "Criteria",
    "Criterion",
    "Quantity",
    "Suppress",
    "has_criteria",
    "load_criteria",
    "nearest",
    "parse_criteria",
    "parse_options",
    "profiles",
    "quantity",
    "read_file",
]
