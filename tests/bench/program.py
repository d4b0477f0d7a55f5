"""A program of tests/cpp that measures what only C++ can: built, run, its lines of JSON read."""

from __future__ import annotations

import json
import subprocess
from typing import Any

from tests.lab.guest import ROOT


def measured(target: str, *words: str) -> list[Any]:
    """What ``target``, as CMake calls it, has printed."""
    for command in (["cmake", "--preset", "default"], ["cmake", "--build", "--preset", "default", "--target", target]):
        subprocess.run(command, cwd=ROOT, check=True, capture_output=True, timeout=900)
    program = ROOT / "build" / "default" / "tests" / "cpp" / target
    done = subprocess.run([program, *words], capture_output=True, text=True, check=True, timeout=300)
    return [json.loads(line) for line in done.stdout.splitlines()]
