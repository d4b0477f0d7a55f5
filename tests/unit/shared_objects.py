"""Shared objects made by the compiler of this machine, for what reads libraries or finds them."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from tests.conftest import tool


class SharedObjects:
    """Makes libraries below ``folder``; the test is skipped where there is no C compiler."""

    def __init__(self, folder: Path) -> None:
        found = tool("cc", "gcc", "clang")
        if found is None:
            pytest.skip("no C compiler on this machine")
        self._compiler, self.folder = found, folder

    def make(self, name: str, source: str, *options: str, soname: str = "") -> Path:
        """The library ``name``, of this C source."""
        path = self.folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        named = [f"-Wl,-soname,{soname}"] if soname else []
        command: list[str | Path] = [self._compiler, "-shared", "-fPIC", "-xc", "-", "-o", path]
        more = [*named, "-xnone", "-Wl,--no-as-needed", *options]
        subprocess.run([*command, *more], input=source, text=True, check=True, timeout=60)
        return path

    def library(self, name: str, line: str, *more: str, soname: str = "libnccl.so.2") -> Path:
        """A library with this version line that exports ncclGetVersion; ``more``: names that stand in it."""
        words = ", ".join(f'"{word}"' for word in (line, *more))
        return self.make(
            name, f"const char *words[] = {{{words}}}; int ncclGetVersion(int *v) {{ return !v; }}", soname=soname
        )

    def torch(self, packages: Path, version: str, *options: str) -> Path:
        """A package torch below a folder of packages, whose libtorch_cuda.so needs libnccl.so.2."""
        (packages / f"torch-{version}.dist-info").mkdir(parents=True)
        (packages / f"torch-{version}.dist-info/METADATA").write_text(f"Name: torch\nVersion: {version}\n")
        needed = self.library("stub/libnccl.so.2", "NCCL version 0")
        return self.make(
            str((packages / "torch/lib/libtorch_cuda.so").relative_to(self.folder)), "int t;", *options, str(needed)
        )
