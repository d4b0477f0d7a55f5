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

from cwai_bench.checks.rdma import OFED
from tests.bench.check_job import write_programs
from tests.bench.pairs import Spread
from tests.bench.table import Row
from tests.bench.tcp import Progress

ROOT = Path(__file__).resolve().parents[2]
TOOL = Path(sys.executable).parent / "cwai-bench"
HELP_RUNS = 20
CHECK_RUNS = 5
JUDGE_RUNS = 3
NODES = 10_000
GOOD = ROOT / "tests" / "fixtures" / "nodes" / "good"
COMMAND_SECONDS = 0.01


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


def recorded_check(progress: Progress) -> Iterator[Row]:
    """The 8 x H100 node, all items that apply, its commands real processes of 10 ms; then one of them hangs."""
    what = f"check of 8 x H100, each command {COMMAND_SECONDS * 1e3:.0f} ms"
    tick = progress(what, 2 * CHECK_RUNS + 1)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        commands = write_programs(folder / "bin", GOOD, COMMAND_SECONDS)
        write_programs(folder / "hung", GOOD, COMMAND_SECONDS, hanging=OFED.argv)
        seconds: dict[str, list[float]] = {"bin": [], "hung": []}
        said: dict[str, dict[str, tuple[str, str]]] = {}
        for _ in range(CHECK_RUNS):
            for programs, taken in seconds.items():
                started = time.perf_counter()
                _end(_recorded(folder, programs))
                taken.append(time.perf_counter() - started)
                said[programs] = _verdicts(folder / "out" / "report.json")
                tick()
        peak = 0.0
        process = _recorded(folder, "bin")
        while process.poll() is None:
            peak = max(peak, _memory_of_all(name))
            time.sleep(0.01)
        _end(process)
        tick()
    well, hung = said["bin"], said["hung"]
    applied = [v for v in well.values() if v[0] != "SKIP"]
    if {v[0] for v in applied} - {"PASS", "NA"}:
        raise RuntimeError(
            f"the node is not well: {[c for c, v in well.items() if v[0] in ('FAIL', 'WARN', 'UNKNOWN')]}"
        )
    changed = {check: hung[check] for check in well if hung[check] != well[check]}
    if not changed or set(changed.values()) - {("UNKNOWN", "timeout")}:
        raise RuntimeError(f"{OFED.key} hung, and this came of it: {changed}")
    spread, longer = Spread.of(seconds["bin"]), Spread.of(seconds["hung"])
    yield Row(
        what,
        f"{spread} s, {peak / 1e6:.0f} MB, {len(applied)} items, {commands} commands, {spread.count} runs",
        "< 5 s, < 200 MB",
        spread.median < 5 and 0 < peak < 200e6,
        note="memory: all its processes together (Pss)",
    )
    yield Row(
        f"the same, and a command hangs (limit {OFED.timeout:g} s)",
        f"{longer} s, {', '.join(changed)} UNKNOWN, {longer.count} runs",
        f"< {OFED.timeout + 5:g} s, < {OFED.timeout + 1:g} s more",
        longer.median < OFED.timeout + 5 and longer.median - spread.median < OFED.timeout + 1,
        note=f"{longer.median - spread.median:+.1f} s",
    )


def _recorded(folder: Path, programs: str) -> subprocess.Popen[bytes]:
    """``cwai-bench check --root`` of the 8 x H100 node; its report is ``out/report.json``."""
    places = ["--root", GOOD, "--store", folder / "store", "--out", folder / "out"]
    return subprocess.Popen(
        [
            sys.executable,
            "-m",
            "tests.bench.check_job",
            folder / programs,
            "check",
            "--profile",
            "8xH100",
            *map(str, places),
        ],
        cwd=ROOT,
        env={**os.environ, "CWAI_BENCH_SPOOL": f"{folder}/spool"},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )


def _verdicts(report: Path) -> dict[str, tuple[str, str]]:
    """Status and reason code of each item in a report of one node."""
    return {v["check"]: (v["status"], v.get("reason_code", "")) for v in json.loads(report.read_text())["verdicts"]}


def judge(progress: Progress) -> Iterator[Row]:
    """Judging many nodes without and with a baseline, and both results as JSON; and how the time grows."""
    what = f"judge {NODES} nodes, without and with a baseline, and JSON"
    tick = progress(what, 2 * JUDGE_RUNS)
    taken: dict[int, list[dict[str, Any]]] = {NODES // 10: [], NODES: []}
    for _ in range(JUDGE_RUNS):
        for nodes, runs in taken.items():
            runs.append(_judged(nodes))
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
        note=f"{growth:.1f} times the time of {NODES // 10} nodes; the JSON {taken[NODES][0]['json'] / 1e6:.0f} MB;"
        " memory: all its processes together (Pss)",
    )


def _judged(nodes: int) -> dict[str, Any]:
    """What judge_job says of itself, and its ``memory``."""
    peak = 0.0
    with tempfile.TemporaryDirectory() as mark:
        process = subprocess.Popen(
            [sys.executable, "-m", "tests.bench.judge_job", str(nodes)],
            cwd=ROOT,
            env={**os.environ, "CWAI_BENCH_SPOOL": mark},
            stdout=subprocess.PIPE,
            text=True,
        )
        while process.poll() is None:
            peak = max(peak, _memory_of_all(mark))
            time.sleep(0.5)
        said, _ = process.communicate(timeout=600)
    if process.returncode:
        raise RuntimeError(f"judging {nodes} nodes ended with {process.returncode}; see its message above")
    result: dict[str, Any] = json.loads(said)
    return {**result, "memory": peak}


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
