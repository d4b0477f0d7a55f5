"""Checks judge facts. A check opens no device and starts nothing: it is a pure function of :class:`FactView`.

One file, one family; one decorator, one check::

    @node_check(
        "memory.corrupted",
        title=Text("Memory taken out of use", "被停用的内存"),
        method=Text("…", "…"), criterion=Text("…", "…"), suggestion=Text("…", "…"),
        reads=(File("proc/meminfo"),),
        severity=Severity.CRITICAL, action=Action.CONTACT_VENDOR,
    )
    def corrupted(facts: FactView) -> Outcome:
        bad = facts.kilobytes("proc/meminfo", "HardwareCorrupted")
        return failed(f"{bad} B") if bad else passed("0 B")

``@node_check`` functions judge. ``@consistency_check`` functions return the value to be compared across nodes,
``@configurable_check`` functions the value to be held against the person's criterion. What cannot be read raises
:class:`NotKnown` (UNKNOWN); what does not apply here raises :class:`DoesNotApply` (SKIP). The accessors of FactView
raise the first by themselves, and keep what they handed out as the evidence of the verdict.

A threshold is a constant beside its check; the criterion that a person reads is made from the same constant.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable, Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any, Literal, NamedTuple, TypeVar, cast

import msgspec

from cwai_bench.model import (
    Action,
    CheckInfo,
    Evidence,
    Facts,
    ItemKind,
    Reading,
    ReasonCode,
    Severity,
    Status,
)
from cwai_bench.readers import Unreadable
from cwai_bench.registry import Registry
from cwai_bench.sources import Call, Command, Each, File, Source, device_in, matches
from cwai_bench.text import Text

EVIDENCE_LIMIT = 4096
EVIDENCE_BRIEF = 600
"""Characters kept of one piece of evidence: of a verdict that somebody has to act on, and of the many others."""
EVIDENCE_PIECES = 8
"""Pieces of evidence kept of one verdict."""

Value = str | float
Values = Value | Mapping[str, Value]
T = TypeVar("T")
U = TypeVar("U")
H = TypeVar("H", bound=Hashable)
_Value = TypeVar("_Value", bound=Callable[["FactView"], str | float])
_Values = TypeVar("_Values", bound=Callable[["FactView"], Value | Mapping[str, Value]])


class Presence:
    """In :data:`Asked`: whether the source is there."""


class Line(NamedTuple):
    """In :data:`Asked`: the first line of a text that begins with ``start``."""

    start: str


class Made(NamedTuple):
    """In :data:`Asked`: what ``make`` makes of an answer in ``shape``, or of the text itself where that is ``str``."""

    shape: type
    make: Callable[[Any], Hashable]


Asked = str | tuple[str, type | Line | Made]
"""What a check looked at: a source as a whole; only whether it is there; the answer of a call as far as it fits a
shape; one line of a text; or what is made of it. All else is left unseen, and may differ."""


class NotKnown(Exception):
    """It should have been known and is not: the verdict is UNKNOWN."""

    def __init__(self, reason_code: ReasonCode, reason: Text) -> None:
        super().__init__(reason.en)
        self.reason_code: ReasonCode = reason_code
        self.reason = reason


class DoesNotApply(Exception):
    """The item has no meaning here (no such hardware, no such feature): the verdict is SKIP."""

    def __init__(self, reason: Text, reason_code: ReasonCode = "absent") -> None:
        super().__init__(reason.en)
        self.reason_code: ReasonCode = reason_code
        self.reason = reason


@dataclass(frozen=True)
class Outcome:
    """What a node check found. ``observed`` reads the same in both languages; words go into ``detail``."""

    status: Status
    observed: str
    detail: Text | None = None
    expected: Text | None = None


def passed(observed: str, detail: Text | None = None) -> Outcome:
    return Outcome(Status.PASS, observed, detail)


def warned(observed: str, detail: Text | None = None, *, expected: Text | None = None) -> Outcome:
    return Outcome(Status.WARN, observed, detail, expected)


def failed(observed: str, detail: Text | None = None, *, expected: Text | None = None) -> Outcome:
    return Outcome(Status.FAIL, observed, detail, expected)


class FactView:
    """Typed access to the facts of one node. Every accessor raises NotKnown for what was not read as it should be."""

    def __init__(self, facts: Facts, stand_in: Callable[[Asked], Reading | None] = lambda _: None) -> None:
        """``stand_in``: a reading of another node of which one learns the same there, if one is known: what was made
        of it need not be made again."""
        self._facts = facts
        self._stand_in = stand_in
        self._shown: dict[str, object] = {}
        """What was handed out, by source: texts, what makes a text, and answers of calls."""
        self.asked: dict[Asked, None] = {}
        """What was looked at, in order."""
        self.asked_who = False
        """Whether something was asked that is not in the readings: the node's name, its privilege, the time."""

    @property
    def node(self) -> str:
        self.asked_who = True
        return self._facts.node

    @property
    def taken(self) -> float:
        """When the facts were read, in seconds since the epoch."""
        self.asked_who = True
        return self._facts.taken

    @property
    def privileged(self) -> bool:
        self.asked_who = True
        return self._facts.privileged

    def text(self, path: str) -> str:
        """The content of a file."""
        text = self._good(path).text
        self._shown[path] = text
        return text

    def maybe(self, path: str) -> str | None:
        """The content of a file, or None when there is no such file."""
        return None if self.absent(path) else self.text(path)

    def number(self, path: str) -> int:
        """The one whole number that a file holds."""
        return whole(self.text(path), path)

    def line(self, path: str, start: str) -> str:
        """What follows ``start`` in the first line that begins with it; only that line becomes evidence."""
        found = self.maybe_line(path, start)
        if found is None:
            raise NotKnown("parse", Text("{p} has no line {s!r}", "{p} 中没有 {s!r} 一行").fill(p=path, s=start))
        return found

    def maybe_line(self, path: str, start: str) -> str | None:
        """As ``line``; None when no line begins so."""
        line = _line(self._good(path, (path, Line(start))).text, start)
        if line is None:
            return None
        seen = self._shown.get(path)
        self._shown[path] = line if seen is None else f"{seen}\n{line}"
        return line[len(start) :].strip()

    def kilobytes(self, path: str, name: str) -> int:
        """A field like ``MemTotal:  16384 kB`` of /proc/meminfo, in bytes."""
        return whole(self.line(path, f"{name}:").removesuffix("kB"), path) * 1024

    def glob(self, pattern: str) -> dict[str, str]:
        """The files that match a pattern, path to content; empty when there is none.

        Raises NotKnown when any of them could not be read, and for a list of other files.
        """
        reading = self._reading(pattern)
        if reading.status == "missing":
            return {}
        found = {path: self._good(path).text for path in _paths(pattern, self._good(pattern).text)}
        self._shown[pattern] = lambda: "\n".join(f"{path}: {text.rstrip()}" for path, text in found.items())
        return found

    def command(self, *argv: str) -> Reading:
        """What a command said (``text`` is its standard output), whatever its exit code was."""
        key = Command(*argv).key
        reading = self._said(key)
        self._shown[key] = reading.text
        return reading

    def each(self, *argv: str) -> dict[str, Reading]:
        """What a command said of each device, by the device's name; empty when there is no such device.

        Raises NotKnown when the command is not installed or did not answer for one of them.
        """
        template = Command(*argv)
        family = self._reading(template.key)
        if family.status == "missing":
            return {}
        keys = self._good(template.key).text.splitlines()
        found = {_device(argv, tuple(key.removeprefix("$ ").split(" "))): self._said(key) for key in keys}
        self._shown[template.key] = lambda: "\n".join(f"[{name}] {r.text.rstrip()}" for name, r in found.items())
        return found

    def script(self, item: str) -> Reading:
        """What a person's own script said, and how it ended; its output may be cut, which ``truncated`` tells."""
        key = f"script:{item}"
        reading = self._reading(key)
        notes = ["[only the beginning was kept]"] * reading.truncated + [f"[{reading.detail}]"] * bool(reading.detail)
        self._shown[key] = "\n".join([reading.text.rstrip(), *notes]).strip()
        if reading.status == "missing":
            raise NotKnown(
                "missing_tool", Text("its interpreter is missing: {d}", "缺少其解释器：{d}").fill(d=reading.detail)
            )
        if reading.status in _NOT_RUN:
            code, reason = _NOT_RUN[reading.status]
            raise NotKnown(code, reason.fill(d=reading.detail or "?"))
        return reading

    def call(self, name: str, shape: type[T]) -> T:
        """The answer to a call, decoded as ``shape``; the same object for the same answer: do not change it."""
        key = f"call:{name}"
        try:
            answer: T = _decoded(self._part_of(key, shape), cast(Hashable, shape))
        except (msgspec.DecodeError, RecursionError) as e:
            raise NotKnown(
                "parse", Text("{k} gave an answer that cannot be read: {e}", "{k} 的结果无法解析：{e}").fill(k=key, e=e)
            ) from e
        self._shown.setdefault(key, answer)
        return answer

    def made(self, name: str, shape: type[T], make: Callable[[T], U]) -> U:
        """What ``make`` makes of the answer to a call, for what several checks need; the same object for the same
        answer: do not change it."""
        self.call(name, shape)
        value: U = _made(make, self._part_of(f"call:{name}", shape), cast(Hashable, shape))
        return value

    def only(self, name: str, shape: type[T], make: Callable[[T], H]) -> H:
        """As ``made``, and nothing else in the answer is looked at: nodes of which the same is made are alike.

        ``make`` is a function of a module, so that it is the same one for every node.
        """
        key = f"call:{name}"
        value: H = self._made(key, Made(shape, make))
        return value

    def only_said(self, reader: Callable[[str], H], *argv: str) -> H:
        """What ``reader`` makes of what a command said, whatever its exit code was; nothing else is looked at."""
        key = Command(*argv).key
        self._present(key)
        value: H = self._made(key, Made(str, reader))
        return value

    def _made(self, key: str, made: Made) -> Any:
        try:
            value = _made(made.make, self._part_of(key, made), made.shape)
        except (msgspec.DecodeError, RecursionError, Unreadable) as e:
            raise NotKnown(
                "parse",
                Text("{w} cannot be read: {e}", "{w} 的内容无法解析：{e}").fill(
                    w=key.removeprefix("$ "), e=str(e)[:200]
                ),
            ) from e
        self._shown.setdefault(key, value)
        return value

    def absent(self, key: str) -> bool:
        """True when a source was looked for and is not there; then the item may not apply here."""
        self.asked[key, Presence] = None
        reading = self._facts.readings.get(key)
        return reading is not None and reading.status == "missing"

    def cite(self, source: Source, text: str | Callable[[], str]) -> None:
        """Show ``text`` (or what it returns, if that takes time to make) as the evidence from ``source``, in place of
        all that was read there."""
        self._shown[source.key] = text

    def evidence(self, status: Status) -> list[Evidence]:
        """What was handed out, cut to the size that a verdict of ``status`` deserves."""
        limit = EVIDENCE_BRIEF if status in (Status.PASS, Status.SKIP, Status.NA) else EVIDENCE_LIMIT
        shown = {source: _as_text(what) for source, what in list(self._shown.items())[:EVIDENCE_PIECES]}
        return [Evidence(source, text[:limit], len(text) > limit) for source, text in shown.items()]

    def _part_of(self, key: str, part: type | Made) -> str:
        """A text of which ``part`` says the same as of that of this node."""
        asked = (key, part)
        own = self._good(key, asked)
        return (self._stand_in(asked) or own).text

    def _reading(self, key: str, asked: Asked | None = None) -> Reading:
        self.asked[asked or key] = None
        reading = self._facts.readings.get(key)
        if reading is None:
            raise NotKnown(
                "missing_source",
                Text("{k} was not read when these facts were taken", "采集这些数据时未读取 {k}").fill(k=key),
            )
        return reading

    def _said(self, key: str) -> Reading:
        """The reading of a command if it ran to its end."""
        self._present(key)
        return self._good(key)

    def _present(self, key: str) -> None:
        """Raises NotKnown for a command that is not installed."""
        if self.absent(key):
            name = key.removeprefix("$ ").split(" ")[0]
            raise NotKnown("missing_tool", Text("the command {c} is not installed", "未安装命令 {c}").fill(c=name))

    def _good(self, key: str, asked: Asked | None = None) -> Reading:
        """The reading of ``key`` if it went well; else says why not. ``asked``: what of it is looked at."""
        reading = self._reading(key, asked)
        if reading.status == "ok" and not reading.truncated:
            return reading
        if reading.status == "ok":
            raise NotKnown(
                "parse", Text("{k} is too large: only a part of it was read", "{k} 过大，只读取了一部分").fill(k=key)
            )
        if reading.detail:
            self._shown.setdefault(key, reading.detail)
        code, reason = _NOT_GOOD[reading.status]
        raise NotKnown(code, reason.fill(k=_named(key), d=reading.detail or "?"))


_NOT_GOOD: dict[str, tuple[ReasonCode, Text]] = {
    "missing": ("missing_source", Text("{k} is not there", "{k} 不存在")),
    "denied": ("permission", Text("no permission to read {k}: {d}", "没有权限读取 {k}：{d}")),
    "timeout": ("timeout", Text("{k} did not answer in time: {d}", "{k} 未在限时内返回：{d}")),
    "error": ("error", Text("{k} could not be read: {d}", "{k} 读取失败：{d}")),
}


_NOT_RUN: dict[str, tuple[ReasonCode, Text]] = {
    "denied": ("permission", Text("it may not be run: {d}", "无权限运行：{d}")),
    "error": ("error", Text("it could not be run: {d}", "无法运行：{d}")),
}


def _as_text(shown: object) -> str:
    if callable(shown):
        shown = shown()
    return shown if isinstance(shown, str) else msgspec.json.encode(shown).decode()


def _named(key: str) -> str:
    """A source as a person would say it: ``kernel log`` for the call of that name, paths as they are."""
    return key.removeprefix("call:").replace("_", " ") if key.startswith("call:") else key


def _device(template: tuple[str, ...], words: tuple[str, ...]) -> str:
    """What stands in ``words`` where ``{}`` stands in ``template``; raises NotKnown for a list of other commands."""
    if name := device_in(template, words):
        return name
    raise NotKnown(
        "parse",
        Text("{c} is not one of the commands {t}", "{c} 不属于命令 {t}").fill(
            c=" ".join(words)[:80], t=" ".join(template)
        ),
    )


@lru_cache(maxsize=256)  # nodes of one kind list the same files
def _paths(pattern: str, listing: str) -> tuple[str, ...]:
    """The paths of a list, one a line; raises NotKnown for one that does not match ``pattern``."""
    paths = tuple(listing.splitlines())
    for path in paths:
        if not matches(pattern, path):
            raise NotKnown(
                "parse", Text("{p} is not one of the files {g}", "{p} 不属于文件 {g}").fill(p=path[:80], g=pattern)
            )
    return paths


# Many checks look at the same few answers of a node, one check after the other.
@lru_cache(maxsize=32)
def _decoded(text: str, shape: Hashable) -> Any:
    return msgspec.json.decode(text, type=shape)


@lru_cache(maxsize=32)
def _made(make: Callable[[Any], Any], text: str, shape: Hashable) -> Any:
    return make(text if shape is str else _decoded(text, shape))


def _line(text: str, start: str) -> str | None:
    """The first line that begins with ``start``."""
    at = 0 if text.startswith(start) else text.find(f"\n{start}") + 1
    if at == 0 and not text.startswith(start):
        return None
    end = text.find("\n", at)
    return text[at : end if end >= 0 else None].rstrip("\r")


def told(reading: Reading, asked: Asked) -> object:
    """What a check that looks at ``asked`` learns from ``reading``: equal for readings of which it learns the same."""
    part = asked[1] if isinstance(asked, tuple) else None
    if part is Presence:
        return reading.status == "missing"
    if part is not None and reading.status == "ok" and not reading.truncated:
        try:
            return _part(reading.text, part)
        except Exception:
            pass  # it cannot be read: then all of it is what one learns
    return (reading.status, reading.text, reading.detail, reading.exit_code, reading.truncated)


def _part(text: str, part: type | Line | Made) -> object:
    if isinstance(part, Line):
        return (Line, _line(text, part.start))
    if isinstance(part, Made):
        return (Made, _made(part.make, text, part.shape))
    if not part.__subclasses__():  # no shape is wider: it leaves nothing out
        return text
    return msgspec.json.encode(_decoded(text, part))  # not msgpack: numbers may be of any size


@lru_cache(maxsize=256)
def _read(reader: Callable[[str], Any], text: str) -> Any:
    return reader(text)


def parsed(reader: Callable[[str], T], text: str, where: str) -> T:
    """What ``reader`` makes of ``text``, the same object for the same text: do not change it.

    Raises NotKnown naming ``where`` when it cannot be read.
    """
    try:
        value: T = _read(reader, text)
    except Unreadable as e:
        raise NotKnown(
            "parse", Text("{w} cannot be read: {e}", "{w} 的内容无法解析：{e}").fill(w=where, e=str(e)[:200])
        ) from e
    return value


def whole(text: str, where: str) -> int:
    """``text`` as a whole number; raises NotKnown naming ``where`` when it is none."""
    try:
        return int(text.strip())
    except ValueError:
        raise NotKnown(
            "parse",
            Text("{w}: expected a whole number, found {t!r}", "{w}：应为整数，实际为 {t!r}").fill(
                w=where, t=text.strip()[:80]
            ),
        ) from None


# ---------------------------------------------------------------------------------------------- the three kinds

Seen = Literal["host", "container"]
"""Whose answer it is when the tool runs inside a container: most of /proc and /sys is the host's; limits, mounts,
processes and services are the container's."""


@dataclass(frozen=True)
class LongRun:
    """A test of a vendor's that takes long or takes the cards from whoever uses them: run only when asked for by name.

    ``expected``: seconds, by the vendor's own word. The command's time limit is when it is given up.
    ``script``: where the test takes several calls of the vendor's tool, the shell script that makes them; the command
    then is its name only.
    """

    command: Command
    expected: float
    script: str = ""


@dataclass(frozen=True)
class NodeCheck:
    info: CheckInfo
    reads: tuple[Source, ...]
    judge: Callable[[FactView], Outcome]
    seen: Seen = "host"
    runs: LongRun | None = None


@dataclass(frozen=True)
class ConsistencyCheck:
    """``value`` must be the same on all nodes: text exactly, numbers within ``tolerance`` (a share of the baseline).

    ``show`` makes a number readable.
    """

    info: CheckInfo
    reads: tuple[Source, ...]
    value: Callable[[FactView], Value]
    tolerance: float = 0.0
    show: Callable[[float], str] = field(default=lambda x: f"{x:g}")
    seen: Seen = "host"


@dataclass(frozen=True)
class ConfigurableCheck:
    """``values``: one value, or several by name (a file system, an interface), all of which must hold.

    ``unit`` is what a criterion is written in: ``B``, ``bit/s``, ``s``, ``1`` for plain numbers, ``text``.
    """

    info: CheckInfo
    reads: tuple[Source, ...]
    values: Callable[[FactView], Values]
    unit: str
    seen: Seen = "host"
    runs: LongRun | None = None


Check = NodeCheck | ConsistencyCheck | ConfigurableCheck
CHECKS: Registry[Check] = Registry("cwai_bench.checks")

ALWAYS: tuple[Source, ...] = (Call("host"), Call("container"), Call("pci"))
"""Read whatever is checked: the report's environment, and which nodes are alike."""


def node_check(
    id: str,
    *,
    title: Text,
    method: Text,
    criterion: Text,
    suggestion: Text,
    reads: tuple[Source, ...],
    severity: Severity,
    action: Action = Action.FIX_CONFIG,
    needs: tuple[str, ...] = (),
    seen: Seen = "host",
    scope: str = "host",
    tool_optional: bool = False,
    runs: LongRun | None = None,
) -> Callable[[Callable[[FactView], Outcome]], Callable[[FactView], Outcome]]:
    """Register a function that judges one node by our own rule.

    ``tool_optional``: many fit nodes lack the tool that it needs. Without it the item is UNKNOWN all the same, but that
    does not spoil the verdict of the run; whatever else it says counts.
    """
    info = CheckInfo(
        id,
        ItemKind.NODE,
        scope,
        title,
        method,
        criterion,
        suggestion,
        severity,
        action,
        list(needs),
        required=not tool_optional,
    )

    def register(judge: Callable[[FactView], Outcome]) -> Callable[[FactView], Outcome]:
        CHECKS.add(id, NodeCheck(info, reads, judge, seen, runs))
        return judge

    return register


SAME = Text("the same on all nodes, or as on the baseline node", "所有节点一致，或与基线节点一致")
NEAR = Text("within {p:g} % of the baseline node", "与基线节点相差不超过 {p:g} %")


def consistency_check(
    id: str,
    *,
    title: Text,
    method: Text,
    suggestion: Text,
    reads: tuple[Source, ...],
    severity: Severity,
    tolerance: float = 0.0,
    show: Callable[[float], str] | None = None,
    needs: tuple[str, ...] = (),
    seen: Seen = "host",
    scope: str = "host",
) -> Callable[[_Value], _Value]:
    """Register a function whose value is compared across nodes. The criterion follows from ``tolerance``."""
    criterion = NEAR.fill(p=tolerance * 100) if tolerance else SAME
    info = CheckInfo(
        id,
        ItemKind.CONSISTENCY,
        scope,
        title,
        method,
        criterion,
        suggestion,
        severity,
        Action.FIX_CONFIG,
        list(needs),
        required=False,
    )

    def register(value: _Value) -> _Value:
        more = {} if show is None else {"show": show}
        CHECKS.add(id, ConsistencyCheck(info, reads, value, tolerance, seen=seen, **more))
        return value

    return register


YOURS = Text("what the criteria file says (unit: {u})", "由判据文件给定（单位：{u}）")
UNIT_NAMES: dict[str, Text] = {
    "B": Text("bytes", "字节"),
    "bit/s": Text("bits per second", "比特每秒"),
    "s": Text("seconds", "秒"),
    "1": Text("a plain number", "纯数值"),
    "text": Text("text", "文本"),
}


def configurable_check(
    id: str,
    *,
    title: Text,
    method: Text,
    suggestion: Text,
    reads: tuple[Source, ...],
    unit: str,
    severity: Severity = Severity.MAJOR,
    needs: tuple[str, ...] = (),
    seen: Seen = "host",
    scope: str = "host",
    runs: LongRun | None = None,
) -> Callable[[_Values], _Values]:
    """Register a function whose value is held against the person's criterion."""
    info = CheckInfo(
        id,
        ItemKind.CONFIGURABLE,
        scope,
        title,
        method,
        YOURS.fill(u=UNIT_NAMES[unit]),
        suggestion,
        severity,
        Action.FIX_CONFIG,
        list(needs),
        required=False,
    )

    def register(values: _Values) -> _Values:
        CHECKS.add(id, ConfigurableCheck(info, reads, values, unit, seen, runs))
        return values

    return register


def sources_for(ids: Iterable[str], *, recorded: bool = False) -> set[Source]:
    """All that must be read to judge the checks ``ids``; ids that are none of ours are left to the judge to name.

    ``recorded``: on a recorded node, where what has to be run has been run, if at all.
    """
    found: set[Source] = set(ALWAYS)
    for id in ids:
        if id in CHECKS:
            found.update(CHECKS[id].reads)
            if recorded and (runs := long_run(id)) is not None:
                found.add(runs.command)
    return found


def long_run(id: str) -> LongRun | None:
    """What has to be run for an item and is not run unasked."""
    if id not in CHECKS:
        return None
    check = CHECKS[id]
    return None if isinstance(check, ConsistencyCheck) else check.runs


def long_items() -> list[str]:
    """The items that are left out unless they are asked for by name (``--disruptive``)."""
    return [id for id in CHECKS if long_run(id) is not None]


def criteria_items() -> dict[str, str]:
    """The items that a criteria file may judge, with the unit of each (see :class:`ConfigurableCheck`)."""
    return {c.info.id: c.unit for c in CHECKS.values() if isinstance(c, ConfigurableCheck)}


__all__ = [
    "CHECKS",
    "Call",
    "Check",
    "Command",
    "ConfigurableCheck",
    "ConsistencyCheck",
    "DoesNotApply",
    "Each",
    "FactView",
    "File",
    "LongRun",
    "NodeCheck",
    "NotKnown",
    "Outcome",
    "Source",
    "Value",
    "Values",
    "configurable_check",
    "consistency_check",
    "criteria_items",
    "failed",
    "long_items",
    "long_run",
    "node_check",
    "parsed",
    "passed",
    "sources_for",
    "warned",
    "whole",
]
