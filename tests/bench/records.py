"""What the records of single operations cost: one process, an operation that does next to nothing."""

from __future__ import annotations

import time
from collections.abc import Iterator
from itertools import pairwise

from cwai_bench import native
from tests.bench.pairs import Spread
from tests.bench.table import Row
from tests.bench.tcp import Progress

FEW, MANY = 20_000, 220_000
RUNS = 15


def cost(progress: Progress) -> Iterator[Row]:
    """The time of an isolated iteration, with its barrier, four looks at the clock, its records and the comparison of
    arrivals, less that of a pipelined one; each as the slope between few and many, which leaves out what is done once.
    """
    what = "per-iteration records, 1 rank, 8 B within the process"
    tick = progress(what, RUNS)
    group = native.over_loopback(1, largest=64)

    def seconds(iterations: int, isolated: bool) -> float:
        start = time.perf_counter()
        group.measure(
            "broadcast",
            bytes=8,
            iterations=iterations,
            warmup=1,
            verify=False,
            isolated=isolated,
            pipelined=not isolated,
        )
        return time.perf_counter() - start

    def slope(isolated: bool) -> float:
        return (seconds(MANY, isolated) - seconds(FEW, isolated)) / (MANY - FEW)

    on, off = [], []
    for _ in range(RUNS):
        on.append(slope(True))
        off.append(slope(False))
        tick()
    costs = Spread.of([a - b for a, b in zip(on, off, strict=True)])
    yield Row(
        what,
        f"{costs.median * 1e9:.0f} ns [{costs.p10 * 1e9:.0f}–{costs.p90 * 1e9:.0f}]",
        "< 200 ns",
        costs.median < 200e-9,
        f"without {Spread.of(off).median * 1e9:.1f} ns",
        control=Spread.of([b / a for a, b in pairwise(on)]),
        note=f"{RUNS} turns",
    )
