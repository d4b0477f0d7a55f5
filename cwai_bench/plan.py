"""The plan: which checks and which probes, in which order, how long they should take, and what is left out and why.

A pure function of the person's choice and the world. It can be printed (``--dry-run``) and travels in the journal.
"""

from __future__ import annotations

import fnmatch
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Literal

from cwai_bench.checks import CHECKS, long_items, long_run
from cwai_bench.document import nearest, node_names
from cwai_bench.errors import UsageError
from cwai_bench.model import LeftOut, Plan, ProbeSpec, ScriptSpec
from cwai_bench.probes import PROBES, Options, World
from cwai_bench.scripts import with_limit
from cwai_bench.text import Text

RunType = Literal["run", "check", "rdma", "collective", "gpu", "multipath"]

CHECKS_EXPECTED = 1.5
"""Seconds that the server check of a node is expected to take; ``make bench`` measures it."""

STARTUP_EXPECTED = 1.0


@dataclass(frozen=True)
class Choice:
    """What the person asked for. ``items`` and ``skip`` are ids or patterns (``memory.*``); empty items: all.
    ``scripts`` are those of the criteria file, ``disruptive`` ids or patterns of items that are not run unasked."""

    run_type: RunType
    items: tuple[str, ...] = ()
    skip: tuple[str, ...] = ()
    budget: float | None = None
    options: Options = field(default_factory=Options)
    recorded: bool = False
    scripts: tuple[ScriptSpec, ...] = ()
    disruptive: tuple[str, ...] = ()

    @property
    def measures_network(self) -> bool:
        return self.run_type in ("run", "rdma", "multipath") and not self.recorded

    @property
    def measures_collectives(self) -> bool:
        wanted = self.options.library in ("auto", "nccl", "hccl")
        return self.run_type in ("run", "collective") and not self.recorded and wanted

    @property
    def measures_gpus(self) -> bool:
        return self.run_type in ("run", "gpu") and not self.recorded


def select(names: list[str], items: tuple[str, ...], skip: tuple[str, ...]) -> list[str]:
    """``names`` that match any of ``items`` (all when empty) and none of ``skip``, in their own order."""
    return [
        n
        for n in names
        if (not items or any(fnmatch.fnmatchcase(n, p) for p in items))
        and not any(fnmatch.fnmatchcase(n, p) for p in skip)
    ]


def known_items(run_type: RunType, scripts: Iterable[ScriptSpec] = ()) -> list[str]:
    """Ids of all checks, scripts and probes that belong to a command."""
    checks = [*CHECKS, *(s.info.id for s in scripts)] if run_type in ("run", "check") else []
    return checks + [p.info.id for p in PROBES.values() if run_type in p.commands]


def refuse_unknown(patterns: tuple[str, ...], run_type: RunType, scripts: Iterable[ScriptSpec] = ()) -> None:
    """Raise UsageError for a pattern that matches nothing, with the nearest name."""
    import difflib

    names = known_items(run_type, scripts)
    for pattern in patterns:
        if any(fnmatch.fnmatchcase(n, pattern) for n in names):
            continue
        near = difflib.get_close_matches(pattern, names, 1, 0.4)
        raise UsageError(
            Text("unknown item {p!r}", "未知的检测项 {p!r}").fill(p=pattern),
            Text(
                "did you mean {n!r}? All items: cwai-bench check --list",
                "是否想用 {n!r}？全部检测项：cwai-bench check --list",
            ).fill(n=near[0])
            if near
            else Text("all items: cwai-bench check --list", "全部检测项：cwai-bench check --list"),
        )


_UNASKED = Text("run only when asked for: --disruptive {i}", "仅在明确要求时运行：--disruptive {i}")


def refuse_not_disruptive(patterns: tuple[str, ...]) -> None:
    """Raise UsageError for a pattern of ``--disruptive`` that names no such item."""
    known = long_items()
    for pattern in patterns:
        if not any(fnmatch.fnmatchcase(id, pattern) for id in known):
            raise UsageError(
                Text("--disruptive: there is no such item {p!r}", "--disruptive：没有这样的检测项 {p!r}").fill(
                    p=pattern
                ),
                nearest(pattern, known),
            )


def make_plan(choice: Choice, world: World) -> Plan:
    """Raises UsageError for unknown items, and for a command that cannot do anything in this world."""
    refuse_unknown(choice.items + choice.skip, choice.run_type, choice.scripts)
    checks: list[str] = []
    left_out: list[LeftOut] = []
    unasked: list[LeftOut] = []
    scripts: list[ScriptSpec] = []
    if choice.run_type in ("run", "check"):
        refuse_not_disruptive(choice.disruptive)
        for id in CHECKS:
            if long_run(id) is not None and any(fnmatch.fnmatchcase(id, p) for p in choice.disruptive):
                checks += select([id], (), choice.skip)
            elif select([id], choice.items, choice.skip):
                if long_run(id) is None:
                    checks.append(id)
                else:
                    unasked.append(LeftOut(id, "not_selected", _UNASKED.fill(i=id)))
        for script in choice.scripts:
            if select([script.info.id], choice.items, choice.skip):
                planned = _planned(script, choice, world)
                (left_out if isinstance(planned, LeftOut) else scripts).append(planned)  # type: ignore[arg-type]
    probes: list[ProbeSpec] = []
    # Networks before the collectives that run over them: if one hangs, the cause has been measured.
    for probe in sorted(PROBES.values(), key=lambda p: "collective" in p.commands):
        if choice.run_type not in probe.commands or not select([probe.info.id], choice.items, choice.skip):
            continue
        if choice.recorded:
            left_out.append(
                LeftOut(probe.info.id, "absent", Text("a recorded node cannot be probed", "录制的节点无法执行探测"))
            )
            continue
        for found in probe.plan(world, choice.options):
            (left_out if isinstance(found, LeftOut) else probes).append(found)  # type: ignore[arg-type]
    expected = spent = STARTUP_EXPECTED + (CHECKS_EXPECTED if checks else 0.0)
    kept: list[ProbeSpec] = []
    run: list[ScriptSpec] = []
    no_time = Text("does not fit in the time budget of {b:g} s", "超出时间预算 {b:g} 秒")
    asked = [] if choice.recorded else [(id, runs) for id in checks if (runs := long_run(id)) is not None]
    for id, runs in asked:
        if choice.budget is not None and spent + runs.expected > choice.budget:
            left_out.append(LeftOut(id, "not_selected", no_time.fill(b=choice.budget)))
            checks.remove(id)
            continue
        spent += runs.expected
        expected += runs.expected
    for script in scripts:
        may_take = script.expected or script.limit
        if choice.budget is not None and spent + may_take > choice.budget:
            left_out.append(LeftOut(script.info.id, "not_selected", no_time.fill(b=choice.budget)))
            continue
        run.append(script)
        spent += may_take
        expected += script.expected
    for spec in probes:
        if choice.budget is not None and spent + spec.expected > choice.budget:
            left_out.append(LeftOut(spec.id, "not_selected", no_time.fill(b=choice.budget)))
            continue
        kept.append(spec)
        spent += spec.expected
        expected += spec.expected
    if choice.run_type in ("rdma", "collective", "gpu", "multipath") and not kept:
        why = left_out[0].reason if left_out else Text("nothing was chosen", "没有选择任何内容")
        raise UsageError(
            Text("there is nothing to measure: {w}", "没有可测量的内容：{w}").fill(w=why),
            Text(
                "start two ranks or more: -np 2, --hosts NODES, or mpirun",
                "请启动至少两个进程：-np 2、--hosts NODES 或 mpirun",
            )
            if any(item.reason_code == "one_rank" for item in left_out)
            else Text(
                "cwai-bench {t} --dry-run shows what is left out", "cwai-bench {t} --dry-run 可查看未执行的内容"
            ).fill(t=choice.run_type),
        )
    return Plan(checks, kept, left_out + unasked, expected, choice.budget, run)


def chosen_nodes(spec: ScriptSpec, nodes: Iterable[str]) -> list[str]:
    """Those of ``nodes`` on which a script is to run."""
    return [node for node in nodes if not spec.nodes or node in node_names(spec.nodes)]


def _planned(spec: ScriptSpec, choice: Choice, world: World) -> ScriptSpec | LeftOut:
    """A script as it is to run in this world, or why it is not."""
    if choice.recorded:
        return LeftOut(spec.info.id, "absent", Text("a recorded node runs no scripts", "录制的节点无法运行脚本"))
    if not chosen_nodes(spec, world.nodes):
        none = Text("none of its nodes takes part: {n}", "其指定的节点均未参与：{n}")
        return LeftOut(spec.info.id, "not_selected", none.fill(n=spec.nodes))
    limit = choice.options.item_timeout
    return with_limit(spec, limit) if limit is not None and limit < spec.limit else spec
