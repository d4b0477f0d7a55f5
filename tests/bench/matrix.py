"""All pairs of a large group judged and drawn, and how often a planted bad part is named by them."""

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
from tests.unit.planted_pairs import simulate

ROOT = Path(__file__).resolve().parents[2]
ENDS = 1024
RUNS = 5
SEEDS = 200


def drawn(progress: Progress) -> Iterator[Row]:
    what = f"matrix of {ENDS} x {ENDS} judged and drawn"
    tick = progress(what, RUNS)
    runs: list[dict[str, Any]] = []
    for _ in range(RUNS):
        command = [sys.executable, "-m", "tests.bench.matrix_job", str(ENDS)]
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True, timeout=600)
        runs.append(json.loads(done.stdout))
        if runs[-1]["named"] != runs[-1]["planted"]:
            raise RuntimeError(f"{runs[-1]['planted']} were planted, and {runs[-1]['named']} named")
        tick()
    took = Spread.of([run["judged"] + run["drawn"] for run in runs])
    page = max(run["html"] for run in runs)
    yield Row(
        what,
        f"{took} s, HTML {page / 1e6:.2f} MB, {took.count} runs",
        "< 10 s, < 5 MB",
        took.median < 10 and page < 5e6,
        note=f"JSON {runs[0]['json'] / 1e6:.0f} MB in {runs[0]['saved']:.1f} s more; "
        f"{max(run['memory'] for run in runs) / 1e6:.0f} MB of memory",
    )


def named(progress: Progress) -> Iterator[Row]:
    """Faults that can be told from noise: named as what they are; and cases in which a healthy part is accused."""
    for faults in (1, 2):
        what = f"bad part named from pairs, {SEEDS} seeds, 3 to 512 NICs, 5 % noise" + (
            ", two at once" if faults > 1 else ""
        )
        tick = progress(what, 1)
        found = simulate(range(SEEDS), faults)
        tick()
        yield Row(
            what,
            f"{found.right}/{found.could} ({100 * found.right / found.could:.1f} %), "
            f"{found.blamed} healthy accused; {SEEDS * faults - found.could} not identifiable",
            "99 % of the identifiable, 0 accused",
            found.right >= 0.99 * found.could and not found.blamed,
            note="; ".join(found.wrong[:2]),
        )
