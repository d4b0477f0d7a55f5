"""Parsing that speaks both languages and suggests the right word for a wrong one."""

from __future__ import annotations

import argparse
import difflib
import re
from collections.abc import Callable, Sequence
from typing import Any, NoReturn

from cwai_bench.errors import UsageError
from cwai_bench.text import Lang, Text

_HEADINGS = {
    "positional arguments": Text("arguments", "参数"),
    "options": Text("options", "选项"),
    "optional arguments": Text("options", "选项"),
    "usage: ": Text("usage: ", "用法："),
}
_MESSAGES = (
    (r"argument (?P<a>.+?): expected one argument", Text("{a} needs a value", "{a} 需要一个值")),
    (r"argument (?P<a>.+?): expected at least one argument", Text("{a} needs a value", "{a} 需要至少一个值")),
    (r"argument (?P<a>.+?): invalid .*? value: (?P<v>.+)", Text("{a}: {v} is not valid", "{a}：{v} 不是有效的值")),
    (
        r"argument (?P<a>.+?): invalid choice: (?P<v>.+?) \(choose from (?P<c>.+)\)",
        Text("{a}: {v} is not one of {c}", "{a}：{v} 不在可选范围内：{c}"),
    ),
    (r"argument (?P<a>.+?): not allowed with argument (?P<b>.+)", Text("{a} excludes {b}", "{a} 不能与 {b} 同时使用")),
    (r"the following arguments are required: (?P<a>.+)", Text("missing: {a}", "缺少参数：{a}")),
)
SIZE_UNITS = {"": 1, "K": 1 << 10, "M": 1 << 20, "G": 1 << 30}


class Parser(argparse.ArgumentParser):
    """An ArgumentParser in one language, whose errors are :class:`UsageError`."""

    def __init__(self, lang: Lang, **kwargs: Any) -> None:
        self.lang = lang
        super().__init__(allow_abbrev=False, add_help=False, formatter_class=_Formatter, **kwargs)
        self._optionals.title = _HEADINGS["options"].to(lang)
        self._positionals.title = _HEADINGS["positional arguments"].to(lang)
        self.add("-h", "--help", action="help", help=Text("show this help and exit", "显示帮助并退出"))

    def add(self, *names: str, help: Text, **kwargs: Any) -> None:
        """Like add_argument, with help in both languages."""
        self.add_argument(*names, help=help.to(self.lang).replace("%", "%%"), **kwargs)

    def group(self, title: Text) -> Group:
        return Group(self.add_argument_group(title.to(self.lang)), self.lang)

    def _get_formatter(self) -> argparse.HelpFormatter:
        formatter = super()._get_formatter()
        assert isinstance(formatter, _Formatter)
        formatter.lang = self.lang
        return formatter

    def error(self, message: str) -> NoReturn:
        for pattern, text in _MESSAGES:
            found = re.fullmatch(pattern, message)
            if found:
                raise UsageError(text.fill(**found.groupdict()), self._see_help())
        raise UsageError(Text(message, message), self._see_help())

    def parse(self, argv: Sequence[str]) -> argparse.Namespace:
        """Like parse_args. Raises UsageError; for an unknown option, with the nearest one that exists."""
        args, extras = self.parse_known_args(argv)
        if extras:
            wrong = extras[0]
            options = [o for a in self._actions for o in a.option_strings]
            near = difflib.get_close_matches(wrong.split("=")[0], options, 1, 0.5)
            raise UsageError(
                Text("unknown argument {w}", "未知参数 {w}").fill(w=wrong),
                Text("did you mean {n}?", "是否想用 {n}？").fill(n=near[0]) if near else self._see_help(),
            )
        return args

    def _see_help(self) -> Text:
        return Text("see {p} --help", "请查看 {p} --help").fill(p=self.prog)


class Group:
    """A titled group of options."""

    def __init__(self, group: argparse._ArgumentGroup, lang: Lang) -> None:
        self._group, self._lang = group, lang

    def add(self, *names: str, help: Text, **kwargs: Any) -> None:
        self._group.add_argument(*names, help=help.to(self._lang).replace("%", "%%"), **kwargs)


class _Formatter(argparse.RawDescriptionHelpFormatter):
    lang: Lang = "en"

    def __init__(self, prog: str) -> None:
        super().__init__(prog, max_help_position=30, width=100)

    def add_usage(self, usage: Any, actions: Any, groups: Any, prefix: str | None = None) -> None:
        super().add_usage(usage, actions, groups, _HEADINGS["usage: "].to(self.lang) if prefix is None else prefix)


def size(text: str) -> int:
    """``8``, ``64K``, ``1M``, ``2G`` (powers of two) in bytes. Raises ValueError."""
    found = re.fullmatch(r"(\d+)\s*([KMG]?)(i?B)?", text.strip(), re.IGNORECASE)
    if not found or int(found[1]) == 0:
        raise ValueError(text)
    return int(found[1]) * SIZE_UNITS[found[2].upper()]


def sizes(text: str) -> tuple[int, ...]:
    """``64K,1M`` as bytes; ``2..8M``: from the first on, each twice the one before. Raises ValueError."""
    found: list[int] = []
    for part in text.split(","):
        low, dots, high = part.partition("..")
        one, last = size(low), size(high) if dots else size(low)
        if one > last:
            raise ValueError(text)
        while one <= last:
            found.append(one)
            one *= 2
    return tuple(dict.fromkeys(found))


def verbs(text: str) -> tuple[str, ...]:
    """``write,read,send`` or ``all``. Raises UsageError."""
    every = ("write", "read", "send")
    found = every if text == "all" else names(text)
    if not set(found) <= set(every):
        raise _wrong("--verb", text, Text("write them as write,read,send, or all", "写法：write,read,send 或 all"))
    return tuple(dict.fromkeys(found))


def pairs(text: str) -> str:
    """``ring``, ``all``, ``full`` or ``sample:K``. Raises UsageError."""
    if text not in ("ring", "all", "full") and not re.fullmatch(r"sample:[1-9]\d{0,6}", text):
        raise _wrong("--pairs", text, Text("it is ring, all, full or sample:4", "可为 ring、all、full 或 sample:4"))
    return text


def ends(option: str) -> Callable[[str], tuple[str, ...]]:
    """Of ``--from`` and ``--to``: ``node/nic,node`` as a tuple. Raises UsageError."""

    def read(text: str) -> tuple[str, ...]:
        found = tuple(text.split(","))
        if not all(re.fullmatch(r"[^/,\s]+(/[^/,\s]+)?", word) for word in found):
            raise _wrong(
                option, text, Text("write node1/mlx5_0, node1, or */mlx5_0", "写法：node1/mlx5_0、node1 或 */mlx5_0")
            )
        return found

    return read


def devices_as_nodes(text: str) -> tuple[str, ...]:
    """``rxe0=a,rxe1=b`` as a tuple. Raises UsageError; also when a device is to be of two nodes."""
    found = tuple(text.split(","))
    devices = {word.partition("=")[0] for word in found}
    if not all(re.fullmatch(r"[^=/\s]+=[^=/*→\s]+", word) for word in found) or len(devices) < len(found):
        raise _wrong(
            "--as-node", text, Text("write rxe0=a,rxe1=b, each device once", "写法：rxe0=a,rxe1=b，每个设备只出现一次")
        )
    return found


def _wrong(option: str, text: str, form: Text) -> UsageError:
    return UsageError(
        Text("{o}: {t!r} is not valid", "{o}：{t!r} 不是有效的值").fill(o=option, t=text),
        form,
    )


def number(text: str) -> int:
    """A whole number, of 0 or more. Raises ValueError."""
    value = int(text)
    if value < 0:
        raise ValueError(text)
    return value


def names(text: str) -> tuple[str, ...]:
    """``a,b`` as a tuple without empty parts. Raises ValueError when nothing is left."""
    found = tuple(part.strip() for part in text.split(",") if part.strip())
    if not found:
        raise ValueError(text)
    return found


def seconds(text: str) -> float:
    """``50``, ``50s``, ``2m``, ``1h`` in seconds. Raises ValueError."""
    found = re.fullmatch(r"(\d+(?:\.\d+)?)\s*(s|m|h|)", text.strip())
    if not found or float(found[1]) <= 0:
        raise ValueError(text)
    return float(found[1]) * {"": 1, "s": 1, "m": 60, "h": 3600}[found[2]]


def rehearsal(text: str) -> tuple[int, float]:
    """``late:3:1ms`` as the rank and by how many seconds it comes late. Raises ValueError."""
    found = re.fullmatch(r"late:(\d+):(\d+(?:\.\d+)?)(us|ms|s)", text.strip())
    if not found or float(found[2]) <= 0:
        raise ValueError(text)
    return int(found[1]), float(found[2]) * {"us": 1e-6, "ms": 1e-3, "s": 1.0}[found[3]]


def positive(text: str) -> int:
    """A whole number of at least 1. Raises ValueError."""
    value = int(text)
    if value < 1:
        raise ValueError(text)
    return value
