"""A node recorded into a folder, and read from there by the code that reads a live one.

::

    node.json                    name, time, privilege, version; and what could not be read, and why
    proc/… sys/… etc/…           files as they were
    commands/SLUG/argv           the words of the command, one a line
    commands/SLUG/{stdout,stderr,exit}
    calls/NAME.json              the answer

The files may be edited by hand; that is how faults are planted in tests. A folder without ``node.json`` that holds
``proc`` is read as well (a host's root mounted into a container): commands and calls are then missing.
"""

from __future__ import annotations

import hashlib
import re
from functools import cached_property
from pathlib import Path

import msgspec

from cwai_bench import __version__
from cwai_bench.discover import EACH_LIMIT, family
from cwai_bench.discover.tree import Tree, bounded
from cwai_bench.errors import UsageError
from cwai_bench.model import Facts, Reading
from cwai_bench.sources import GLOB, Call, Command, Each, File, Source
from cwai_bench.text import Text

FORMAT = 1


class NodeFile(msgspec.Struct, frozen=True):
    """``node.json``. ``exceptions``: readings that are no plain text, by source (their ``text`` stays empty)."""

    name: str
    taken: float
    privileged: bool
    version: str
    exceptions: dict[str, Reading]
    format: int = FORMAT


class RecordedNode:
    """A recorded node below ``root``. Raises UsageError when there is none."""

    def __init__(self, root: Path) -> None:
        self._tree = Tree(root)
        head = self._tree.read_path("node.json")
        if head.status == "missing" and (root / "proc").is_dir():
            name = self._tree.read_path("etc/hostname").text.strip() or root.name
            self._head = NodeFile(name, root.stat().st_mtime, False, "", {})
        elif head.status != "ok":
            raise UsageError(
                Text("{r} is no recorded node: node.json: {d}", "{r} 不是录制的节点：node.json：{d}").fill(
                    r=root, d=head.detail
                ),
                Text(
                    "give a folder that this tool recorded, or the root of a host (with proc/ and sys/)",
                    "请给出由本工具录制的目录，或主机的根目录（含 proc/ 与 sys/）",
                ),
            )
        else:
            self._head = _head(head.text, root)

    @property
    def name(self) -> str:
        return self._head.name

    @property
    def taken(self) -> float:
        return self._head.taken

    @property
    def privileged(self) -> bool:
        return self._head.privileged

    def read(self, source: Source) -> list[Reading]:
        if isinstance(source, File):
            return [self._as_recorded(r) for r in self._tree.read(source)]
        if isinstance(source, Each):
            names = sorted(self.names(source))
            commands = [source.command(name) for name in names[:EACH_LIMIT]]
            head = family(source, commands, cut=len(names) > EACH_LIMIT)
            return [head, *(r for command in commands for r in self.read(command))]
        found = self._command(source) if isinstance(source, Command) else self._call(source)
        return [self._head.exceptions.get(source.key, found) if found.status == "missing" else found]

    def names(self, each: Each) -> set[str]:
        """The devices of which ``each`` was asked."""
        return {name for words in self._words if (name := each.name_in_words(words))}

    @cached_property
    def _words(self) -> list[tuple[str, ...]]:
        """The words of every command that was recorded or is told of in node.json."""
        recorded = (self._tree.read_path(path).text.splitlines() for path in self._tree.paths("commands/*/argv"))
        told = (key.removeprefix("$ ").split(" ") for key in self._head.exceptions if key.startswith("$ "))
        return [tuple(words) for words in (*recorded, *told)]

    def _as_recorded(self, reading: Reading) -> Reading:
        """A file whose reading failed when it was recorded is kept as an empty file and an entry in node.json."""
        known = self._head.exceptions.get(reading.source)
        if known is None or (reading.status == "ok" and reading.text and known.status != "ok"):
            return reading
        if known.status != "ok":
            return known
        return msgspec.structs.replace(reading, truncated=known.truncated, detail=known.detail)

    def _command(self, source: Command) -> Reading:
        folder = f"commands/{slug(source)}"
        out = self._tree.read_path(f"{folder}/stdout")
        if out.status != "ok":
            return Reading(source.key, "missing", detail="not recorded")
        code = self._tree.read_path(f"{folder}/exit").text.strip()
        known = self._head.exceptions.get(source.key)
        return Reading(
            source.key,
            "ok",
            out.text,
            self._tree.read_path(f"{folder}/stderr").text,
            int(code) if re.fullmatch(r"-?\d{1,5}", code) else None,
            out.truncated or (known is not None and known.truncated),
        )

    def _call(self, source: Call) -> Reading:
        answer = self._tree.read_path(f"calls/{source.name}.json")
        if answer.status != "ok":
            return Reading(source.key, "missing", detail="not recorded")
        known = self._head.exceptions.get(source.key)
        return msgspec.structs.replace(
            bounded(source.key, answer.text.encode()), truncated=known is not None and known.truncated
        )


def _head(text: str, root: Path) -> NodeFile:
    try:
        head = msgspec.json.decode(text, type=NodeFile)
    except (msgspec.DecodeError, RecursionError) as e:
        raise UsageError(
            Text("{r}/node.json cannot be read: {e}", "{r}/node.json 无法解析：{e}").fill(r=root, e=e),
            Text("record the node again", "请重新录制该节点"),
        ) from e
    if head.format != FORMAT:
        raise UsageError(
            Text(
                "{r}: recording format {f} is not supported (this is {o})", "{r}：不支持录制格式 {f}（当前为 {o}）"
            ).fill(r=root, f=head.format, o=FORMAT),
            Text("use the cwai-bench that recorded it: {v}", "请使用录制时的 cwai-bench 版本：{v}").fill(
                v=head.version
            ),
        )
    return head


def slug(source: Command) -> str:
    """A folder name for a command: readable, and unique by a hash of its words."""
    line = " ".join(source.argv)
    readable = re.sub(r"[^A-Za-z0-9._-]+", "_", line)[:40]
    return f"{readable}-{hashlib.sha256(line.encode()).hexdigest()[:8]}"


def write(directory: Path, facts: Facts) -> None:
    """Write ``facts`` as a recorded node. Raises UsageError when the folder is not empty or cannot be written."""
    try:
        directory.mkdir(parents=True, exist_ok=True)
        if any(directory.iterdir()):
            raise UsageError(
                Text("{d} is not empty", "{d} 不是空目录").fill(d=directory),
                Text("give a new folder to record into", "请指定一个新目录用于录制"),
            )
        listed = {path for r in facts.readings.values() if _is_listing(r) for path in r.text.splitlines()}
        exceptions: dict[str, Reading] = {}
        for key, reading in facts.readings.items():
            if (reading.status == "missing" and not key.startswith(("$ ", "call:"))) or _is_family(key):
                continue
            if reading.status != "ok" or reading.truncated:
                exceptions[key] = msgspec.structs.replace(reading, text="", duration=0.0)
            # A file that could not be read is written, empty, only where a glob has to find it again.
            if not _is_listing(reading) and (reading.status == "ok" or key in listed):
                _write_reading(directory, reading)
        head = NodeFile(facts.node, facts.taken, facts.privileged, __version__, exceptions)
        (directory / "node.json").write_bytes(msgspec.json.format(msgspec.json.encode(head), indent=1) + b"\n")
    except OSError as e:
        raise UsageError(
            Text("cannot write into {d}: {e}", "无法写入 {d}：{e}").fill(d=directory, e=e.strerror),
            Text("choose a folder that you can write", "请选择可写的目录"),
        ) from e


def _is_family(key: str) -> bool:
    """True of the reading of an Each: what it lists is found again by the words of its commands."""
    return key.startswith("$ ") and "{}" in key


def _is_listing(reading: Reading) -> bool:
    return not reading.source.startswith(("$ ", "call:")) and GLOB.search(reading.source) is not None


def _write_reading(directory: Path, reading: Reading) -> None:
    key = reading.source
    if key.startswith("$ "):
        command = Command(*key.removeprefix("$ ").split(" "))
        code = "" if reading.exit_code is None else f"{reading.exit_code}\n"
        files = {"argv": "\n".join(command.argv) + "\n", "stdout": reading.text, "stderr": reading.detail, "exit": code}
        for name, text in files.items():
            _write_text(directory / "commands" / slug(command) / name, text)
    elif key.startswith("call:"):
        _write_text(directory / "calls" / f"{File(key.removeprefix('call:')).path}.json", reading.text)
    else:
        _write_text(directory / File(key).path, reading.text)


def _write_text(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(text.encode())
