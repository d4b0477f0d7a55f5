"""NVIDIA's own tests of its cards: DCGM's diagnostics and nvbandwidth. They take long or take the cards from whoever
uses them, and so are run only when asked for by name (``--disruptive nvidia.diag.long``)."""

from __future__ import annotations

from functools import partial

from cwai_bench.checks import (
    Command,
    DoesNotApply,
    FactView,
    LongRun,
    NotKnown,
    Outcome,
    configurable_check,
    failed,
    node_check,
    parsed,
    passed,
    warned,
)
from cwai_bench.checks.nvidia import HERE, installed
from cwai_bench.model import Action, Severity
from cwai_bench.readers import nvidia_tests as reader
from cwai_bench.text import Text

SCOPE = "nvidia_test"
DEPLOYMENT = "deployment"
"""The category of DCGM's checks of software: what they say tells nothing of a card's health."""
SHOWN = 6
"""Results told of in words."""

# How long each level takes: "dcgmi diag", DCGM documentation (seconds, two minutes, 15 minutes); of level 4 the user
# guide of DCGM 3 says one to two hours. The limits leave room: older releases say 30 minutes of level 3.
_LEVELS: tuple[tuple[str, str, Text, float, float], ...] = (
    ("short", "1", Text("DCGM diagnostics, level 1 (deployment)", "DCGM 诊断 1 级（部署检查）"), 10.0, 300.0),
    ("medium", "2", Text("DCGM diagnostics, level 2", "DCGM 诊断 2 级"), 120.0, 1200.0),
    ("long", "3", Text("DCGM diagnostics, level 3 (stress)", "DCGM 诊断 3 级（压力测试）"), 900.0, 3600.0),
    (
        "xlong",
        "4",
        Text("DCGM diagnostics, level 4 (extended stress)", "DCGM 诊断 4 级（长时压力测试）"),
        7200.0,
        14400.0,
    ),
    # The parameter test_duration of the plugin is 600 s unless set ("Memtest", DCGM documentation).
    ("memtest", "memtest", Text("DCGM's test of the cards' memory", "DCGM 显存测试"), 600.0, 3600.0),
)


def _diag(command: Command, deployment_alone: bool, facts: FactView) -> Outcome:
    cards = installed(facts)
    reading = facts.command(*command.argv)
    if "nable to connect" in reading.text:
        raise NotKnown(
            "cause",
            Text(
                "its host engine does not answer: see nvidia.dcgm_service",
                "nv-hostengine 无响应，见 nvidia.dcgm_service",
            ),
        )
    results = parsed(reader.dcgm_diag, reading.text, command.key.removeprefix("$ "))
    by_status: dict[str, list[reader.DiagResult]] = {}
    for result in results:
        by_status.setdefault(result.status, []).append(result)
    if "fail" in by_status:
        return failed(_named(by_status["fail"]), _told(by_status["fail"]))
    done = [r for r in by_status.get("pass", []) + by_status.get("warn", []) if not _is_deployment(r)]
    if not deployment_alone and not done:
        raise NotKnown(
            "unsupported",
            Text("DCGM ran none of its tests of the cards", "DCGM 未运行任何针对 GPU 的测试"),
        )
    seen = {card for r in (results if deployment_alone else done) for card in r.cards}
    if seen and len(seen) < len(cards):
        raise NotKnown(
            "missing_source",
            Text("DCGM tested {n} of {m} cards", "DCGM 只测试了 {n}/{m} 张卡").fill(n=len(seen), m=len(cards)),
        )
    if reading.exit_code:
        raise NotKnown("error", Text("dcgmi ended with exit code {c}", "dcgmi 退出码为 {c}").fill(c=reading.exit_code))
    if "warn" in by_status:
        return warned(_named(by_status["warn"]), _told(by_status["warn"]))
    skipped = sorted({r.test for r in by_status.get("skip", [])})
    detail = Text("not run: {t}", "未运行：{t}").fill(t=", ".join(skipped)[:300]) if skipped else None
    return passed(", ".join(sorted({r.test for r in by_status["pass"]}))[:300], detail)


def _is_deployment(result: reader.DiagResult) -> bool:
    return result.category.lower() == DEPLOYMENT


def _named(results: list[reader.DiagResult]) -> str:
    shown = [f"{r.test} GPU {','.join(r.cards)}" if r.cards else r.test for r in results[:SHOWN]]
    return "; ".join(shown + ["…"] * (len(results) > SHOWN))


def _told(results: list[reader.DiagResult]) -> Text | None:
    said = "; ".join(dict.fromkeys(r.said for r in results if r.said))[:600]
    return Text(said, said) if said else None


def _register(name: str, run: str, title: Text, expected: float, limit: float) -> None:
    command = Command("dcgmi", "diag", "-r", run, "-j", timeout=limit)
    words = command.key.removeprefix("$ ")
    node_check(
        f"nvidia.diag.{name}",
        title=title,
        method=Text(words, words),
        criterion=Text(
            "no test fails on any card, and every card was tested; Warn is a warning",
            "所有卡的各项测试均未失败，且每张卡都被测试；Warn 则告警",
        ),
        suggestion=Text(
            "DCGM names card, test and next step; drain the node, reset the card and run it again; if it fails again, "
            "have the card replaced",
            "DCGM 会给出卡号、测试项与下一步；排空节点、复位该卡后重测，若再次失败则申请更换",
        ),
        reads=HERE,
        severity=Severity.CRITICAL,
        action=Action.ISOLATE,
        needs=("dcgmi", f"--disruptive nvidia.diag.{name}"),
        seen="container",
        scope=SCOPE,
        runs=LongRun(command, expected),
    )(partial(_diag, command, run == "1"))


for _level in _LEVELS:
    _register(*_level)


_TESTCASES: tuple[tuple[str, str, Text], ...] = (
    ("host_to_device", "host_to_device_memcpy_ce", Text("Bandwidth from host to card", "主机到 GPU 带宽")),
    ("device_to_host", "device_to_host_memcpy_ce", Text("Bandwidth from card to host", "GPU 到主机带宽")),
    ("peer", "device_to_device_memcpy_read_ce", Text("Bandwidth from card to card", "GPU 之间带宽")),
)
BANDWIDTH_LIMIT = 900.0
"""Seconds; NVIDIA does not say how long a testcase takes."""


def _bandwidth(command: Command, testcase: str, facts: FactView) -> dict[str, float]:
    cards = installed(facts)
    peer = testcase.startswith("device_to_device")
    if peer and len(cards) < 2:
        raise DoesNotApply(Text("there is one card only", "只有一张卡"))
    reading = facts.command(*command.argv)
    found = parsed(partial(reader.nvbandwidth, test=testcase), reading.text, command.key.removeprefix("$ "))
    wanted = len(cards) * (len(cards) - 1) if peer else len(cards)
    if len(found) < wanted:
        raise NotKnown(
            "missing_source",
            Text("nvbandwidth measured {n} of {m}", "nvbandwidth 只测得 {n}/{m} 项").fill(n=len(found), m=wanted),
        )
    return {(f"GPU{i}-GPU{j}" if peer else f"GPU{j}"): value * 8 for (i, j), value in found.items()}


def _register_bandwidth(name: str, testcase: str, title: Text) -> None:
    command = Command("nvbandwidth", "-t", testcase, "-j", timeout=BANDWIDTH_LIMIT)
    words = command.key.removeprefix("$ ")
    configurable_check(
        f"nvidia.bandwidth.{name}",
        title=title,
        method=Text(words, words),
        suggestion=Text(
            "look at the card's PCIe link (pci.links), its NVLinks and NUMA node, and whether something else uses it",
            "检查该卡的 PCIe 链路（pci.links）、NVLink、NUMA 节点，以及是否有其他程序占用",
        ),
        reads=HERE,
        unit="bit/s",
        needs=("nvbandwidth", f"--disruptive nvidia.bandwidth.{name}"),
        seen="container",
        scope=SCOPE,
        runs=LongRun(command, 0.0),
    )(partial(_bandwidth, command, testcase))


for _testcase in _TESTCASES:
    _register_bandwidth(*_testcase)
