"""A sweep of a library of cards over two ranks, on stand-ins that misbehave on demand."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.mpi.conftest import AS_ROOT

TOOL = [sys.executable, "-m", "cwai_bench"]


@dataclass
class Lab:
    """Two ranks on a node of two cards. ``library`` as ``--library`` has it; ``machine``: variables that make such
    a node of this one. ``demanded`` goes to the stand-ins likewise."""

    library: str
    folder: Path
    machine: dict[str, str]

    @property
    def store(self) -> Path:
        return self.folder / "store"

    @property
    def words(self) -> list[str]:
        """The command of a sweep."""
        points = ("--operations", "all_reduce", "-b", "64", "-e", "4K", "-f", "8")
        return [*TOOL, "collective", "--library", self.library, *points]

    def run(self, *command: str, **demanded: str) -> subprocess.CompletedProcess[str]:
        own = {"CWAI_BENCH_SPOOL": str(self.folder / "spool"), "LANG": "C.UTF-8"}
        return subprocess.run(
            [*command, "--store", str(self.store)],
            env={**os.environ, **AS_ROOT, **self.machine, **own, **demanded},
            capture_output=True,
            text=True,
            timeout=180,
            check=False,
        )

    def sweep(self, *more: str, **demanded: str) -> tuple[int, dict[str, Any]]:
        done = self.run(*self.words, "-np", "2", *more, **demanded)
        assert self.store.exists(), done.stderr
        assert any(self.store.iterdir()), (done.returncode, done.stderr)
        return done.returncode, self.report()

    def report(self) -> dict[str, Any]:
        (folder,) = (p for p in self.store.iterdir() if not p.name.startswith("."))
        report: dict[str, Any] = json.loads((folder / "report.json").read_text())
        return report

    def verdict(self, report: dict[str, Any], status: str) -> dict[str, Any]:
        item = f"{self.library}.all_reduce"
        (found,) = (v for v in report["verdicts"] if v["check"] == item and v["status"] == status)
        return dict(found)

    def times(self, report: dict[str, Any]) -> list[dict[str, Any]]:
        return [m for m in report["measurements"] if m["metric"] == f"{self.library}.all_reduce.time"]
