"""A recorded node, good as it is, into which a test plants a fault by editing its files."""

from __future__ import annotations

import functools
import re
import shutil
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest

from cwai_bench.checks import CHECKS, sources_for
from cwai_bench.discover import read_node
from cwai_bench.discover.recorded import slug
from cwai_bench.model import Facts, Reading
from cwai_bench.sources import Command, Source

NODES = Path(__file__).resolve().parent.parent / "fixtures" / "nodes"
GOOD = NODES / "good"
WHOLE = ("good", "l40s", "a10_vm", "plain")
"""Nodes that are recorded whole; any other holds what differs from ``good``."""
PARTS = ("efa",)
"""Nodes of which only that is recorded which one family judges: over the rest of ``good`` they are no whole node."""
EVERY = sorted(folder.name for folder in NODES.iterdir() if folder.is_dir() and folder.name not in PARTS)
"""Nodes that are well as a whole."""


class Planted:
    """A copy of a recorded node. Every method edits its files; ``facts`` reads them as the program does.

    ``node`` is a folder of tests/fixtures/nodes.
    """

    def __init__(self, root: Path, node: str = "good") -> None:
        if node not in WHOLE:
            shutil.copytree(GOOD, root)
        shutil.copytree(NODES / node, root, dirs_exist_ok=True)
        self.root = root

    def write(self, path: str, text: str) -> Planted:
        (self.root / path).parent.mkdir(parents=True, exist_ok=True)
        (self.root / path).write_text(text)
        return self

    def replace(self, path: str, old: str, new: str) -> Planted:
        """Replace text that must be there."""
        text = (self.root / path).read_text()
        assert old in text, f"{path} does not hold {old!r}"
        return self.write(path, text.replace(old, new))

    def meminfo(self, name: str, kilobytes: int) -> Planted:
        text = (self.root / "proc/meminfo").read_text()
        changed, count = re.subn(rf"^{name}:.*$", f"{name}: {kilobytes} kB", text, flags=re.M)
        assert count == 1
        return self.write("proc/meminfo", changed)

    def remove(self, path: str) -> Planted:
        found = self.root / path
        if found.is_dir():
            shutil.rmtree(found)
        else:
            found.unlink()
        return self

    def call(self, name: str, **changes: Any) -> Planted:
        """Change top-level fields of an answer."""
        path = f"calls/{name}.json"
        answer = msgspec.json.decode((self.root / path).read_bytes())
        assert set(changes) <= set(answer), f"{name} has no {set(changes) - set(answer)}"
        return self.write(path, msgspec.json.encode(answer | changes).decode())

    def rows(self, name: str, field: str, where: dict[str, Any], **changes: Any) -> Planted:
        """Change those rows of a list in an answer whose fields are as in ``where``."""
        path = f"calls/{name}.json"
        answer = msgspec.json.decode((self.root / path).read_bytes())
        hit = [row for row in answer[field] if all(row.get(k) == v for k, v in where.items())]
        assert hit, f"{name} has no such row"
        for row in hit:
            assert set(changes) <= set(row)
            row.update(changes)
        return self.write(path, msgspec.json.encode(answer).decode())

    def log(self, *lines: str, age: float = 3600.0, level: int = 3) -> Planted:
        """Add lines to the kernel log, ``age`` seconds before it was read."""
        path = "calls/kernel_log.json"
        answer = msgspec.json.decode((self.root / path).read_bytes())
        answer["lines"] += [[answer["taken"] - age, level, line] for line in lines]
        answer["lines"].sort()
        return self.write(path, msgspec.json.encode(answer).decode())

    def command(self, source: Command, stdout: str, exit_code: int = 0, stderr: str = "") -> Planted:
        folder = f"commands/{slug(source)}"
        assert (self.root / folder).is_dir()
        self.write(f"{folder}/argv", "\n".join(source.argv) + "\n")
        self.write(f"{folder}/stdout", stdout).write(f"{folder}/stderr", stderr)
        return self.write(f"{folder}/exit", f"{exit_code}\n")

    def refuse(self, source: Source, status: str = "denied", detail: str = "Permission denied") -> Planted:
        """Make a source read as ``status``."""
        head = msgspec.json.decode((self.root / "node.json").read_bytes())
        head["exceptions"][source.key] = {"source": source.key, "status": status, "detail": detail}
        self.write("node.json", msgspec.json.encode(head).decode())
        if source.key.startswith("call:"):
            return self.remove(f"calls/{source.key.removeprefix('call:')}.json")
        return self.remove(f"commands/{slug(source)}" if isinstance(source, Command) else source.key)

    def rename(self, name: str) -> Planted:
        head = msgspec.json.decode((self.root / "node.json").read_bytes())
        self.write("node.json", msgspec.json.encode(head | {"name": name}).decode())
        return self.call("host", hostname=name)

    def facts(self) -> Facts:
        return read_node("", self.root, sources_for(CHECKS, recorded=True), time.monotonic() + 30)

    def readings(self) -> dict[str, Reading]:
        return self.facts().readings


@pytest.fixture
def planted(tmp_path: Path) -> Planted:
    return Planted(tmp_path / "node")


@pytest.fixture(scope="session")
def good_facts() -> Facts:
    return read_node("", GOOD, sources_for(CHECKS, recorded=True), time.monotonic() + 30)


HOMES = {
    "ascend": "ascend_910b",
    "roce": "a800_roce",
    "ascend_test": "ascend_910b",
    "amd": "mi300x",
    "amd_test": "mi300x",
    "nvidia.nvlink_bit_errors": "b200",
    "nvidia.nvlink_ber": "b200",
    "rdma.efa": "efa",
    "rdma.ufm": "ufm",
}
"""The recorded node on which an item, or the items of a scope, pass; ``good`` (8 H100, InfiniBand) for all others."""


def home_of(check: str) -> str:
    return HOMES.get(check) or HOMES.get(CHECKS[check].info.scope, "good")


@pytest.fixture(scope="session")
def at_home(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Facts]:
    """Facts of the recorded node on which a check passes, by the check's id."""

    @functools.cache
    def read(node: str) -> Facts:
        return Planted(tmp_path_factory.mktemp(node) / "node", node).facts()

    return lambda check: read(home_of(check))
