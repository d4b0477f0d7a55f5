"""RDMA against perftest: both inside the guest (tests/lab/guest.py), over soft-RoCE; and our own work alone.

The guest is emulated: its figures are compared with one another and with nothing else. perftest's bandwidth is from its
first post to its last completion, ours from our first completion on; both are of about one second.
"""

from __future__ import annotations

import json
import shutil
import sys
import tempfile
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

from cwai_bench.render.units import size as shown_size
from tests.bench.pairs import Spread
from tests.bench.program import measured
from tests.bench.table import Row, missing
from tests.bench.tcp import Progress
from tests.lab import guest, rails

PAIRS = 15
WHERE = "soft-RoCE of Linux 6.1 in an emulated guest"
COUNTED = ("write", "read", "send")
"""What is measured in a guest whose clock counts instructions: there both ends and the network share one CPU, and
nothing but what is executed tells in the figures. Two ends that answer one another in turn would only wait for it."""
DEADLINE = 7200.0
"""Seconds of a guest with all rows of one kind in it."""


def _rows(kind: str, progress: Progress) -> Iterator[dict[str, Any]]:
    progress(f"RDMA {kind} in the guest", 1)
    with tempfile.TemporaryDirectory(dir=guest.ROOT / "build") as folder:
        program = f"{sys.executable} -m tests.bench.rdma_job {kind} {PAIRS}"
        script = f"cd {guest.ROOT}\n{rails.paths(1)}{program}\n"
        done = guest.run(
            ["sh", "-c", script], Path(folder), modules=rails.MODULES, deadline=DEADLINE, counted=kind in COUNTED
        )
    if done.returncode != 0:
        raise RuntimeError(f"the guest ended with {done.returncode}: {done.stderr[-2000:]}")
    for line in done.stdout.splitlines():
        yield json.loads(line)


def _here() -> bool:
    return (guest.KERNEL / "vmlinuz").exists() and shutil.which("ib_write_bw") is not None


def _reaches(ratio: Spread, wanted: float) -> bool:
    """The paired median is reached, and 1.00 lies within what 90 % of the pairs say, or is passed."""
    return ratio.median >= wanted and round(ratio.p90, 2) >= 1.0


def bandwidth(verb: str, progress: Progress) -> Iterator[Row]:
    wanted = "≥ 0.95, interval reaching 1.00"
    if not _here():
        yield missing(f"RDMA {verb} bandwidth", "make lab-deps", wanted)
        return
    for found in _rows(verb, progress):
        _, size, count = found["what"].split()
        ratio = Spread.of(found["ratios"])
        yield Row(
            f"RDMA {verb} bandwidth, {shown_size(int(size))}, {count} queue pair{'s' * (count != '1')}",
            f"{found['ours'] / 1e6:.1f} MB/s",
            wanted,
            _reaches(ratio, 0.95),
            f"ib_{verb}_bw {found['peer'] / 1e6:.1f} MB/s",
            ratio,
            Spread.of(found["controls"]),
            note=f"{WHERE} whose clock counts instructions",
        )


def rate(progress: Progress) -> Iterator[Row]:
    if not _here():
        yield missing("RDMA message rate", "make lab-deps", "≥ 1.10")
        return
    for found in _rows("rate", progress):
        how = found["what"].split(" ", 2)[2]
        least = 1.10 if how == "as it comes" else 0.95
        ratio = Spread.of(found["ratios"])
        yield Row(
            f"RDMA message rate, write of 64 B, peer {how}",
            f"{found['ours'] / 64 / 1e3:.1f} thousand/s",
            f"≥ {least:.2f}",
            ratio.median >= least,
            f"ib_write_bw {found['peer'] / 64 / 1e3:.1f} thousand/s",
            ratio,
            Spread.of(found["controls"]),
            note=WHERE,
        )


def latency(progress: Progress) -> Iterator[Row]:
    wanted = "≤ 1.05, interval reaching 1.00"
    if not _here():
        yield missing("RDMA latency", "make lab-deps", wanted)
        return
    for found in _rows("latency", progress):
        verb, _ = found["what"].split()
        ratio = Spread.of(found["ratios"])
        yield Row(
            f"RDMA {verb} latency, 2 B, p50 of half a round trip",
            f"{found['ours'] * 1e6:.1f} us (p99 {found['p99'] * 1e6:.0f})",
            wanted,
            ratio.median <= 1.05 and ratio.p10 <= 1.0,
            f"ib_{verb}_lat {found['peer'] * 1e6:.1f} us (p99 {found['peer_p99'] * 1e6:.0f})",
            ratio,
            Spread.of(found["controls"]),
            note=WHERE,
        )


def work(progress: Progress) -> Iterator[Row]:
    """CPU time of our loop for a message, over a library that carries nothing, against a bare loop on the same."""
    what = "CPU time of a posted message, stand-in library"
    progress(what, 1)
    pairs = measured("cwai_post_bench")
    ratio = Spread.of([ours / bare for ours, bare in pairs])
    controls = Spread.of([b / a for (_, a), (_, b) in pairwise(pairs)])
    yield Row(
        what,
        f"{Spread.of([ours for ours, _ in pairs]).median * 1e9:.1f} ns",
        "≤ 1.2",
        ratio.median <= 1.2,
        f"a bare post and poll loop {Spread.of([bare for _, bare in pairs]).median * 1e9:.1f} ns",
        ratio,
        controls,
    )
