"""How long the commands take, and how much memory: against the figures that we promise, without a peer."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from tests.bench.pairs import Spread
from tests.bench.table import Row
from tests.bench.tcp import Progress

ROOT = Path(__file__).resolve().parents[2]
TOOL = Path(sys.executable).parent / "cwai-bench"
HELP_RUNS = 20
CHECK_RUNS = 5
JUDGE_RUNS = 3
NODES = 10_000


def help_text(progress: Progress) -> Iterator[Row]:
    what = "cwai-bench --help, warm"
    tick = progress(what, HELP_RUNS)
    seconds = []
    for turn in range(HELP_RUNS + 1):  # the first one warms up
        started = time.perf_counter()
        subprocess.run([TOOL, "--help"], stdout=subprocess.DEVNULL, check=True, timeout=60)
        if turn:
            seconds.append(time.perf_counter() - started)
            tick()
    spread = Spread.of(seconds)
    yield Row(what, f"{spread} s, {spread.count} runs", "< 0.2 s", spread.median < 0.2)


def server_check(progress: Progress) -> Iterator[Row]:
    what = "server check of one node"
    tick = progress(what, CHECK_RUNS + 1)
    listing = subprocess.run([TOOL, "check", "--list", "--json"], capture_output=True, check=True, timeout=60)
    items = len([item for item in json.loads(listing.stdout) if item["kind"] != "probe"])
    seconds: list[float] = []
    with tempfile.TemporaryDirectory() as folder:
        for _ in range(CHECK_RUNS):
            started = time.perf_counter()
            _end(_check(folder))
            seconds.append(time.perf_counter() - started)
            tick()
        # Looking at memory all the time slows down what is looked at, so it has a run of its own.
        peak = 0.0
        process = _check(folder)
        while process.poll() is None:
            peak = max(peak, _memory_of_all(folder))
            time.sleep(0.01)
        _end(process)
        tick()
    spread = Spread.of(seconds)
    yield Row(
        what,
        f"{spread} s, {peak / 1e6:.0f} MB, {items} items, {spread.count} runs",
        "< 3 s, < 150 MB, 30 items",
        spread.median < 3 and 0 < peak < 150e6 and items >= 30,
        note="memory: all its processes together (Pss)",
    )


def judge(progress: Progress) -> Iterator[Row]:
    """Judging many nodes without and with a baseline, and both results as JSON; and how the time grows."""
    what = f"judge {NODES} nodes, without and with a baseline, and JSON"
    tick = progress(what, 2 * JUDGE_RUNS)
    taken: dict[int, list[dict[str, Any]]] = {NODES // 10: [], NODES: []}
    for _ in range(JUDGE_RUNS):
        for nodes, runs in taken.items():
            command = [sys.executable, "-m", "tests.bench.judge_job", str(nodes)]
            done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True, timeout=600)
            runs.append(json.loads(done.stdout))
            if runs[-1]["wrong"] != nodes // 100 or runs[-1]["ill"] != ["cpu.load"]:
                raise RuntimeError(
                    f"{runs[-1]['wrong']} of {nodes // 100} planted faults were found: {runs[-1]['ill']}"
                )
            tick()
    small, large = (Spread.of([run["seconds"] for run in runs]) for runs in taken.values())
    memory = max(run["memory"] for run in taken[NODES])
    items = int(taken[NODES][0]["items"])
    growth = large.median / small.median
    wanted = 20 * items / 150
    yield Row(
        what,
        f"{large} s, {memory / 1e6:.0f} MB, {items} items, {large.count} runs",
        f"< 20 s for 150 items, that is {wanted:.0f} s for {items}; < 2 GB; no faster than the nodes",
        large.median < wanted and memory < 2e9 and items >= 150 and growth <= 11,
        note=f"{growth:.1f} times the time of {NODES // 10} nodes; the JSON {taken[NODES][0]['json'] / 1e6:.0f} MB",
    )


def make_run(progress: Progress) -> Iterator[Row]:
    what = "make run on a fresh clone"
    tick = progress(what, 1)
    with tempfile.TemporaryDirectory() as folder:
        clone = Path(folder) / "clone"
        subprocess.run(["git", "clone", "--quiet", ROOT, clone], check=True, timeout=60)
        environment = {"PATH": "/usr/local/bin:/usr/bin:/bin", "HOME": folder, "LANG": "C.UTF-8"}
        started = time.perf_counter()
        done = subprocess.run(["make", "run"], cwd=clone, env=environment, capture_output=True, text=True, timeout=600)
        whole = time.perf_counter() - started
        if done.returncode != 0:
            raise RuntimeError(f"make run failed: {(done.stdout + done.stderr)[-2000:]}")
        (saved,) = clone.glob("cwai-out/[!.]*/report.json")
        report = json.loads(saved.read_text())
        took = report["finished"] - report["started"]
    tick()
    wanted = "< 300 s, the run itself < 60 s"
    note = "packages downloaded, or from this machine's caches"
    yield Row(what, f"{whole:.0f} s, the run itself {took:.0f} s", wanted, whole < 300 and took < 60, note=note)


def _check(folder: str) -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        [TOOL, "check", "--store", folder],
        env={**os.environ, "CWAI_BENCH_SPOOL": f"{folder}/spool"},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )


def _end(process: subprocess.Popen[bytes]) -> None:
    code = process.wait(timeout=60)
    if code not in (0, 1, 3):
        raise RuntimeError(f"cwai-bench check ended with {code}")


def _memory_of_all(mark: str) -> float:
    """Bytes of all processes that carry ``mark`` in their environment, pages that they share counted once."""
    total = 0
    for process in Path("/proc").glob("[0-9]*"):
        try:
            if mark.encode() in (process / "environ").read_bytes():
                found = re.search(r"^Pss: +(\d+) kB", (process / "smaps_rollup").read_text(), re.M)
                total += int(found[1]) * 1024 if found else 0
        except OSError:  # it ended meanwhile, or is not ours
            continue
    return float(total)
