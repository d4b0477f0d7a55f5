"""AMD's own tests of its accelerators: the levels of the ROCm Validation Suite. They take the cards from whoever uses
them, and so are run only when asked for by name (``--disruptive amd.rvs.extended``)."""

from __future__ import annotations

from functools import partial

from cwai_bench.checks import Command, FactView, LongRun, NotKnown, Outcome, failed, node_check, parsed, passed
from cwai_bench.checks.amd import PCI, installed
from cwai_bench.model import Action, Severity
from cwai_bench.readers import amd_tests as reader
from cwai_bench.text import Text, plain

SCOPE = "amd_test"
SHOWN = 6
"""Results told of in words."""

# How long each takes: "Test Levels", user guide of RVS 1.7: seconds, minutes, tens of minutes. Level 1 looks at
# packages and at no card. Level 5 takes hours and says more than is kept of a command: its summary would be lost.
_LEVELS: tuple[tuple[str, str, Text, float, float], ...] = (
    ("capability", "2", Text("RVS level 2 (memory and links can be used)", "RVS 2 级（显存与链路可用）"), 60.0, 900.0),
    ("performance", "3", Text("RVS level 3 (bandwidth and computing power)", "RVS 3 级（带宽与算力）"), 600.0, 3600.0),
    (
        "extended",
        "4",
        Text("RVS level 4 (memory, computing power, power)", "RVS 4 级（显存、算力、功耗）"),
        3600.0,
        10800.0,
    ),
)


def _rvs(command: Command, facts: FactView) -> Outcome:
    cards = installed(facts)
    reading = facts.command(*command.argv)
    run = parsed(reader.rvs, reading.text, command.key.removeprefix("$ "))
    bad = [_named(action) for action in run.actions if not action.passed or action.cards]
    bad += [f"{test}: {n}/{run.cards}" for test, n in run.memory if n < run.cards]
    if bad:
        return failed("; ".join([*bad[:SHOWN], *["…"] * (len(bad) > SHOWN)]), plain(run.said) if run.said else None)
    if run.cards < len(cards):
        raise NotKnown(
            "missing_source",
            Text("RVS tested {n} of {m} cards", "RVS 只测试了 {n}/{m} 张卡").fill(n=run.cards, m=len(cards)),
        )
    if not run.memory and any(action.module == "mem" for action in run.actions):
        raise NotKnown("missing_source", Text("it told of no test of the memory", "输出中没有任何显存测试的结果"))
    if reading.exit_code:
        raise NotKnown("error", Text("rvs ended with exit code {c}", "rvs 退出码为 {c}").fill(c=reading.exit_code))
    return passed(", ".join(action.name for action in run.actions)[:300])


def _named(action: reader.Action) -> str:
    return " ".join([action.name, *action.cards[:SHOWN], *["…"] * (len(action.cards) > SHOWN)])


def _register(name: str, level: str, title: Text, expected: float, limit: float) -> None:
    command = Command("rvs", "-r", level, timeout=limit)
    node_check(
        f"amd.rvs.{name}",
        title=title,
        method=plain(command.key.removeprefix("$ ")),
        criterion=Text(
            "every action passes on every card; RVS judges gst, iet and mem, and of babel, pebb, pbqt that they ran",
            "各测试在每张卡上均通过；RVS 对 gst、iet、mem 有判定，对 babel、pebb、pbqt 仅判断其是否完成",
        ),
        suggestion=Text(
            "read which action failed on which card; drain the node and run it again with nothing else on the cards; "
            "if it fails again, have the card replaced",
            "查看哪张卡的哪项测试失败；排空节点、确保无其他程序占用后重测，若再次失败则申请更换",
        ),
        reads=(PCI,),
        severity=Severity.CRITICAL,
        action=Action.ISOLATE,
        needs=("rvs", f"--disruptive amd.rvs.{name}"),
        seen="container",
        scope=SCOPE,
        runs=LongRun(command, expected),
    )(partial(_rvs, command))


for _level in _LEVELS:
    _register(*_level)
