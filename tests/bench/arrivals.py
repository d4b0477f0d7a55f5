"""The arrivals of a large group gathered and judged, and how often a planted slow part is named by sub-groups."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from tests.bench.pairs import Spread
from tests.bench.table import Row
from tests.bench.tcp import Progress
from tests.unit.planted_fleets import simulate

ROOT = Path(__file__).resolve().parents[2]
RANKS, ITERATIONS = 64, 10_000
RUNS = 5
SEEDS = 200


def judged(progress: Progress) -> Iterator[Row]:
    what = f"arrivals of {RANKS} ranks x {ITERATIONS} iterations gathered and judged"
    tick = progress(what, RUNS)
    runs: list[dict[str, Any]] = []
    for _ in range(RUNS):
        command = [sys.executable, "-m", "tests.bench.arrivals_job", str(RANKS), str(ITERATIONS)]
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True, timeout=600)
        runs.append(json.loads(done.stdout))
        if runs[-1]["named"] != runs[-1]["planted"]:
            raise RuntimeError(f"{runs[-1]['planted']} was planted, and {runs[-1]['named']} named")
        tick()
    took = Spread.of([run["gathered"] + run["judged"] for run in runs])
    memory = max(run["memory"] for run in runs)
    yield Row(
        what,
        f"{took} s, {memory / 1e6:.0f} MB, {took.count} runs",
        "< 3 s, < 500 MB",
        took.median < 3 and memory < 500e6,
        note=f"{runs[0]['json'] / 1e6:.0f} MB of JSON, with the times; judged in {runs[0]['judged']:.2f} s of it",
    )


def named(progress: Progress) -> Iterator[Row]:
    what = f"slow part named from sub-groups, {SEEDS} seeds, 3 to 512 parts, 5 % noise"
    tick = progress(what, 1)
    found = simulate(range(SEEDS))
    tick()
    yield Row(
        what,
        f"{found.right}/{found.could} ({100 * found.right / found.could:.1f} %), {found.blamed} healthy accused; "
        f"{SEEDS - found.could} not identifiable",
        "99 % of the identifiable, 0 accused",
        found.right >= 0.99 * found.could and not found.blamed,
        note="; ".join([f"at most {found.rounds:.1f} rounds × log2(parts)", *found.wrong[:2]]),
    )
