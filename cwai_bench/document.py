"""A file that a person wrote, as TOML that knows how to complain about itself; and quantities as people write them.

Every mistake is a UsageError that names the file, the line where it can, the key and the reason.
"""

from __future__ import annotations

import difflib
import importlib
import math
import re
import sys
from collections.abc import Collection
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

from cwai_bench.errors import UsageError
from cwai_bench.text import Text

FILE_LIMIT = 1 << 20
"""Bytes: a configuration file that is larger is something else."""

_BYTES = {"B": 1.0, "kB": 1e3, "MB": 1e6, "GB": 1e9, "TB": 1e12, "PB": 1e15} | {
    "KiB": 2.0**10,
    "MiB": 2.0**20,
    "GiB": 2.0**30,
    "TiB": 2.0**40,
    "PiB": 2.0**50,
}
_BITS = {"bit": 1.0, "kb": 1e3, "kbit": 1e3, "Mb": 1e6, "Mbit": 1e6, "Gb": 1e9, "Gbit": 1e9, "Tb": 1e12, "Tbit": 1e12}
UNITS: dict[str, tuple[str, float]] = (
    {name: ("B", factor) for name, factor in _BYTES.items()}
    | {f"{name}/s": ("bit/s", factor * 8) for name, factor in _BYTES.items()}
    | {f"{name}/s": ("bit/s", factor) for name, factor in _BITS.items()}
    | {"ns": ("s", 1e-9), "us": ("s", 1e-6), "µs": ("s", 1e-6), "ms": ("s", 1e-3), "s": ("s", 1.0)}
    | {"min": ("s", 60.0), "h": ("s", 3600.0), "d": ("s", 86400.0)}
    | {"%": ("1", 0.01)}
    | {"GFLOP/s": ("FLOP/s", 1e9), "TFLOP/s": ("FLOP/s", 1e12), "PFLOP/s": ("FLOP/s", 1e15)}
)
"""Unit as written: what it measures, and how much of it (bytes, bits per second, seconds, operations per second)."""
_QUANTITY = re.compile(r"([-+]?\d+(?:\.\d+)?(?:[eE][-+]?\d+)?)\s*([A-Za-zµ%/]*)")


@dataclass(frozen=True)
class Quantity:
    """A number and what it measures: ``B``, ``bit/s``, ``s``, ``FLOP/s`` or ``1``. ``text`` is how it was written."""

    value: float
    unit: str
    text: str


def quantity(written: Any) -> Quantity | None:
    """``"9 Gb/s"``, ``"1 TiB"``, ``"unlimited"`` or a plain number; None when it is none of these."""
    if isinstance(written, bool):
        return None
    if isinstance(written, int | float):
        return Quantity(float(written), "1", str(written)) if math.isfinite(written) else None
    if not isinstance(written, str):
        return None
    if written.strip() == "unlimited":
        return Quantity(math.inf, "", written)
    found = _QUANTITY.fullmatch(written.strip())
    if found is None:
        return None
    if not found[2]:
        return Quantity(float(found[1]), "1", written)
    if found[2] not in UNITS:
        return None
    unit, factor = UNITS[found[2]]
    return Quantity(float(found[1]) * factor, unit, written)


class Document:
    """A parsed file that knows how to complain about itself."""

    def __init__(self, text: str, name: str, known: Collection[str]) -> None:
        """``known``: the tables, and keys outside of any, that such a file may have. Raises UsageError."""
        self.text = text
        self.name = name
        toml = importlib.import_module("tomllib" if sys.version_info >= (3, 11) else "tomli")
        try:
            self.tables: dict[str, Any] = toml.loads(text)
        except (ValueError, RecursionError) as e:
            raise UsageError(
                Text("{n} is not valid TOML: {e}", "{n} 不是合法的 TOML：{e}").fill(n=name, e=e),
                Text("mend the line that it names", "请修正其指出的那一行"),
            ) from e
        for table in self.tables:
            if table not in known:
                raise self.wrong([table], Text("there is no such table", "没有这样的表"), nearest(table, known))

    def wrong(self, path: list[str], reason: Text, next_step: Text | None = None) -> UsageError:
        """The complaint about the key at ``path``, with its line when the text shows it."""
        line = self._line(path)
        where = f"{self.name}:{line}" if line else self.name
        return UsageError(Text("{w}: {k}: {r}", "{w}：{k}：{r}").fill(w=where, k=".".join(path), r=reason), next_step)

    def _line(self, path: list[str]) -> int:
        """Where the last part of ``path`` is written, searched behind the parts before it; 0 when it is not seen."""
        lines = self.text.splitlines()
        at = 0
        for part in path:
            for number in range(at, len(lines)):
                code = lines[number].split("#")[0]
                if re.search(rf"(?<![\w-]){re.escape(part)}(?![\w-])", code):
                    at = number
                    break
            else:
                return 0
        return at + 1


def nearest(name: str, names: Any) -> Text:
    """A next step that suggests the nearest of ``names``, or lists them when none is near."""
    every = sorted(names)
    near = difflib.get_close_matches(name, every, 1, 0.5)
    if near:
        return Text("did you mean {n}?", "是否想用 {n}？").fill(n=near[0])
    return Text("known: {n}", "可用：{n}").fill(n=", ".join(every[:60]))


def read_file(path: Path) -> str:
    """The text of a file that a person wrote. Raises UsageError naming it."""
    try:
        with path.open("rb") as f:
            data = f.read(FILE_LIMIT + 1)
        if len(data) > FILE_LIMIT:
            raise UsageError(
                Text("{p} is larger than 1 MiB", "{p} 超过 1 MiB").fill(p=path),
                Text("give a file of this tool's own format", "请给出本工具格式的文件"),
            )
        return data.decode()
    except OSError as e:
        raise UsageError(
            Text("cannot read {p}: {e}", "无法读取 {p}：{e}").fill(p=path, e=e.strerror),
            Text("check the path and its permissions", "请检查路径与权限"),
        ) from e
    except UnicodeDecodeError as e:
        raise UsageError(
            Text("{p} is not UTF-8 text (byte {b})", "{p} 不是 UTF-8 文本（第 {b} 字节）").fill(p=path, b=e.start),
            Text("save it as UTF-8", "请以 UTF-8 保存"),
        ) from e


@lru_cache(maxsize=256)
def node_names(written: str) -> frozenset[str]:
    """The nodes of a node set such as ``node[1-8]``. Raises ClusterShell's NodeSetException when it is none."""
    from ClusterShell.NodeSet import RESOLVER_NOGROUP, NodeSet

    return frozenset(NodeSet(written, resolver=RESOLVER_NOGROUP))


def node_set(document: Document, written: Any, at: list[str]) -> frozenset[str]:
    """The nodes of the node set ``written`` at ``at``. Raises UsageError when it is none, or holds none."""
    from ClusterShell.NodeSet import NodeSetException

    try:
        found = node_names(written) if isinstance(written, str) else frozenset()
    except NodeSetException as e:
        raise document.wrong(at, Text("no node set: {e}", "不是合法的节点集：{e}").fill(e=e)) from e
    if not found:
        raise document.wrong(at, Text('expected a node set such as "node[1-8]"', '应为节点集，例如 "node[1-8]"'))
    return found
