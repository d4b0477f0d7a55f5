"""``cwai-bench collective --sweep VARIABLE=VALUE,VALUE``: which value of an environment variable is best.

Libraries read most of their variables once in a process (NCCL's are cached, src/misc/param.cc), so every value is a run
of its own, in fresh processes. Values are taken in turn, round by round and each round in another order, so that a
machine that warms up favours none. A value is called best only if it beat every other in every round; else nothing is
recommended, whatever the medians say.
"""

from __future__ import annotations

import argparse
import itertools
import os
import re
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from cwai_bench.cli.output import columns, put, write_json
from cwai_bench.errors import NoVerdictError, UsageError
from cwai_bench.model import Measurement, Report
from cwai_bench.render.json import report_from_json
from cwai_bench.render.units import gigabytes, microseconds
from cwai_bench.text import Lang, Text

ROUNDS = 3
MOST_RUNS = 200
_ASSIGNMENT = re.compile(r"([A-Za-z_][A-Za-z0-9_]*)=(.+)", re.S)

Setting = tuple[tuple[str, str], ...]
"""Variables with their values, in the order in which they were given."""


@dataclass
class Tried:
    """What one setting reached, a figure for each round: the bus bandwidth of the largest size (bytes per second), and
    the time of the smallest (seconds), both the worst of all operations' ratio-wise; ``failed``: why a round gave
    nothing."""

    setting: Setting
    bandwidth: list[float] = field(default_factory=list)
    time: list[float] = field(default_factory=list)
    failed: list[Text] = field(default_factory=list)


@dataclass(frozen=True)
class Decision:
    """``best`` is None where nothing is decided. ``wins`` of ``rounds`` against the next best by median."""

    best: Tried | None
    next_best: Tried | None
    wins: int
    rounds: int


def settings_of(written: Sequence[str]) -> list[Setting]:
    """All combinations of ``VARIABLE=VALUE,VALUE``. Raises UsageError."""
    axes: list[list[tuple[str, str]]] = []
    for text in written:
        found = _ASSIGNMENT.fullmatch(text)
        values = list(dict.fromkeys(v for v in found[2].split(",") if v)) if found else []
        if found is None or not values:
            raise UsageError(
                Text("--sweep {t!r} is no variable with values", "--sweep {t!r} 无效").fill(t=text),
                Text("such as NCCL_IB_QPS_PER_CONNECTION=1,2,4,8", "例如 NCCL_IB_QPS_PER_CONNECTION=1,2,4,8"),
            )
        if found[1] in (axis[0][0] for axis in axes):
            raise UsageError(
                Text("--sweep: {n} is given twice", "--sweep：{n} 重复给出").fill(n=found[1]),
                Text("give all its values at once", "请一次给出全部取值"),
            )
        axes.append([(found[1], value) for value in values])
    settings: list[Setting] = list(itertools.product(*axes))
    if len(settings) < 2:
        raise UsageError(
            Text("--sweep has one value only", "--sweep 只有一个取值"),
            Text("give two or more, separated by commas", "请给出两个或更多取值，以逗号分隔"),
        )
    return settings


def order_of_round(settings: int, number: int) -> list[int]:
    """Every round begins with another setting, and every second one goes backwards."""
    turned = [(i + number) % settings for i in range(settings)]
    return turned[::-1] if number % 2 else turned


def decide(tried: Sequence[Tried]) -> Decision:
    """Of those that gave a figure in every round."""
    rounds = max((len(t.bandwidth) for t in tried), default=0)
    whole = sorted(
        (t for t in tried if rounds and len(t.bandwidth) == rounds and not t.failed),
        key=lambda t: -statistics.median(t.bandwidth),
    )
    if len(whole) < 2 or rounds < 2:
        return Decision(None, None, 0, rounds)
    best, after = whole[0], whole[1]
    wins = min(
        sum(ours > theirs for ours, theirs in zip(best.bandwidth, other.bandwidth, strict=True)) for other in whole[1:]
    )
    return Decision(best if wins == rounds else None, after, wins, rounds)


def figures(report: Report) -> tuple[float, float]:
    """Bus bandwidth of the largest size and time of the smallest, over all operations: the geometric means, so that no
    operation counts more than another. Raises NoVerdictError where there is none."""
    ops: dict[str, list[Measurement]] = {}
    for m in report.measurements:
        if m.metric.endswith(".time") and "bus_factor" in m.parameters and m.status == "ok" and m.correct is not False:
            ops.setdefault(m.metric, []).append(m)
    bandwidth, times = [], []
    for ms in ops.values():
        sizes = [int(m.parameters["bytes"]) for m in ms]
        large = [m for m in ms if m.parameters["bytes"] == max(sizes)]
        small = [m for m in ms if m.parameters["bytes"] == min(sizes)]
        seconds = statistics.mean(float(m.parameters["pipelined"]) for m in large)
        bandwidth.append(max(sizes) * float(large[0].parameters["bus_factor"]) / seconds)
        times.append(max(m.stats.p50 for m in small if m.stats is not None))
    if not bandwidth:
        raise NoVerdictError(Text("it measured nothing", "没有测得任何数据"))
    return statistics.geometric_mean(bandwidth), statistics.geometric_mean(times)


def main(args: argparse.Namespace, argv: Sequence[str], lang: Lang) -> int:
    """Runs everything, prints the table and the lines for a job script. 0: one setting is best; 3: not decided."""
    settings = settings_of(args.sweep)
    rounds = args.rounds or ROUNDS
    if len(settings) * rounds > MOST_RUNS:
        raise UsageError(
            Text("--sweep: {n} runs are too many", "--sweep：共 {n} 次运行，数量过多").fill(n=len(settings) * rounds),
            Text("at most {m}: fewer values, or --rounds", "最多 {m} 次：请减少取值或 --rounds").fill(m=MOST_RUNS),
        )
    tried = [Tried(setting) for setting in settings]
    words = _without_sweep(argv)
    for number in range(rounds):
        for i in order_of_round(len(settings), number):
            head = Text("round {r} of {n}: {s}", "第 {r}/{n} 轮：{s}").fill(
                r=number + 1, n=rounds, s=_told(settings[i])
            )
            sys.stderr.write(head.to(lang) + "\n")
            sys.stderr.flush()
            try:
                bandwidth, seconds = figures(_run(settings[i], words, lang))
                tried[i].bandwidth.append(bandwidth)
                tried[i].time.append(seconds)
            except NoVerdictError as e:
                tried[i].failed.append(e.message)
    decision = decide(tried)
    if args.json:
        write_json(_as_json(tried, decision))
    else:
        trouble = put(sys.stdout, _as_text(tried, decision, lang) + "\n")
        if trouble is not None:
            raise trouble
    return 0 if decision.best is not None else NoVerdictError.exit_code


def _without_sweep(argv: Sequence[str]) -> list[str]:
    """The command line of one run: what was given, without what makes it a sweep and without where results go."""
    words: list[str] = []
    skip = False
    for word in argv:
        if skip:
            skip = False
        elif word in ("--sweep", "--rounds", "--out", "--format"):
            skip = True
        elif not word.startswith(("--sweep=", "--rounds=", "--out=", "--format=")) and word != "--json":
            words.append(word)
    return words


def _run(setting: Setting, words: Sequence[str], lang: Lang) -> Report:
    """One run in fresh processes; what it says goes to stderr. Raises NoVerdictError."""
    passed = [part for name, _ in setting for part in ("--mpirun-option=-x", f"--mpirun-option={name}")]
    several = any(word in ("-np", "--hosts") or word.startswith(("-np=", "--hosts=")) for word in words)
    with tempfile.TemporaryDirectory(prefix="cwai-bench-") as folder:
        command = [sys.executable, "-m", "cwai_bench", "collective", *words, *(passed if several else [])]
        done = subprocess.run(
            [*command, "--format", "json", "--out", folder, "--lang", lang],
            env={**os.environ, **dict(setting)},
            stdout=sys.stderr,
            check=False,
        )
        found = sorted(Path(folder).rglob("*.json"))
        if done.returncode not in (0, 1) or not found:
            raise NoVerdictError(
                Text("the run ended with exit code {c}", "运行以退出码 {c} 结束").fill(c=done.returncode)
            )
        return report_from_json(found[0].read_bytes(), found[0].name)


def _told(setting: Setting) -> str:
    return " ".join(f"{name}={value}" for name, value in setting)


def _spread(values: Sequence[float], show: object) -> str:
    assert callable(show)
    if not values:
        return "–"
    return f"{show(statistics.median(values))} [{show(min(values))}–{show(max(values))}]"


def _as_text(tried: Sequence[Tried], decision: Decision, lang: Lang) -> str:
    head = [
        Text("setting", "取值").to(lang),
        Text("bus bandwidth, largest size (GB/s)", "总线带宽，最大数据量（GB/s）").to(lang),
        Text("time, smallest size (us)", "耗时，最小数据量（us）").to(lang),
        "",
    ]
    ranked = sorted(tried, key=lambda t: -statistics.median(t.bandwidth or [0.0]))
    rows = [
        [
            _told(t.setting),
            _spread(t.bandwidth, gigabytes),
            _spread(t.time, microseconds),
            t.failed[0].to(lang) if t.failed else "",
        ]
        for t in ranked
    ]
    return "\n".join([columns([head, *rows]), "", *(line.to(lang) for line in _advice(decision))])


def _advice(decision: Decision) -> list[Text]:
    best, after = decision.best, decision.next_best
    if best is None or after is None:
        return [
            Text(
                "Not decided: no setting was ahead of all others in every round. Leave it as it is.",
                "未能判定：没有任何取值在每一轮都领先，建议保持现状。",
            )
        ]
    gain = statistics.median(best.bandwidth) / statistics.median(after.bandwidth) - 1
    return [
        Text(
            "Best in {w} of {r} rounds, by {g} over the next ({n}).", "{r} 轮中 {w} 轮最佳，领先次优（{n}）{g}。"
        ).fill(w=decision.wins, r=decision.rounds, g=f"{gain:.1%}", n=_told(after.setting)),
        Text("For a job script:", "用于作业脚本："),
        *(Text("  export {n}={v}", "  export {n}={v}").fill(n=name, v=value) for name, value in best.setting),
        Text("For /etc/nccl.conf:", "用于 /etc/nccl.conf："),
        *(Text("  {n}={v}", "  {n}={v}").fill(n=name, v=value) for name, value in best.setting),
    ]


def _as_json(tried: Sequence[Tried], decision: Decision) -> Mapping[str, object]:
    def told(t: Tried | None) -> object:
        return None if t is None else dict(t.setting)

    return {
        "schema": 1,
        "tried": [
            {
                "setting": dict(t.setting),
                "bus_bandwidth": t.bandwidth,
                "time": t.time,
                "failed": [f.en for f in t.failed],
            }
            for t in tried
        ],
        "best": told(decision.best),
        "next_best": told(decision.next_best),
        "wins": decision.wins,
        "rounds": decision.rounds,
    }
