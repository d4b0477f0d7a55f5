"""Huawei's own tests of its NPUs: the three scenes of ``ascend-dmi --dg``. They take long and take the cards from
whoever uses them, and so are run only when asked for by name (``--disruptive ascend.diag.stress``)."""

from __future__ import annotations

from functools import partial

from cwai_bench.checks import (
    Command,
    FactView,
    LongRun,
    NotKnown,
    Outcome,
    failed,
    node_check,
    parsed,
    passed,
    warned,
)
from cwai_bench.checks.ascend import NPUS, npus, of_all_cards
from cwai_bench.model import Action, Severity
from cwai_bench.readers import ascend_tests as reader
from cwai_bench.text import Text, joined, plain

SCOPE = "ascend_test"
SHOWN = 6
"""Results told of in words."""

# How long each takes: "One-Click Diagnosis", user guide of MindCluster ToolBox 7.3.0, for other than inference cards:
# two minutes at most, 14 minutes to 3 hours, 1.5 to 3.5 hours (5 in that of 7.0.RC1). For inference cards it says 7.5
# to 9.5 hours of stress, which the limit still allows. The last: tests without whose result a scene did not take place.
_SCENES: tuple[tuple[str, str, Text, float, float, frozenset[str]], ...] = (
    (
        "health",
        "healthCheck",
        Text("Ascend DMI diagnostics: health", "Ascend DMI 诊断：健康检查"),
        120.0,
        900.0,
        frozenset({"driver", "device"}),
    ),
    (
        "performance",
        "performanceCheck",
        Text("Ascend DMI diagnostics: bandwidth and computing power", "Ascend DMI 诊断：带宽与算力"),
        10800.0,
        21600.0,
        frozenset({"bandwidth", "aiflops"}),
    ),
    (
        "stress",
        "stressTest",
        Text("Ascend DMI stress test", "Ascend DMI 压力测试"),
        12600.0,
        43200.0,
        frozenset({"aicore"}),
    ),
)
_HARD = Text(
    "read the tool's own words; FAIL can also mean that a test does not run on this product or with these packages; "
    "drain the node and run it again alone; on EMERGENCY_WARN, or if it fails again, have the card replaced",
    "阅读工具给出的说明；FAIL 也可能表示该产品或已装软件包不支持该测试；排空节点后单独重测，"
    "若为 EMERGENCY_WARN 或再次失败则申请更换",
)
# "AICORE Stress Test" and "Restoring the NPU Environment", user guide of MindCluster ToolBox 6.0.0.
_VOLTAGE = Text(
    "; a stress test that was ended early can leave the chips' voltage changed: restore it with ascend-dmi -r -d N",
    "；压力测试若被中途结束，芯片电压可能未恢复：用 ascend-dmi -r -d N 恢复",
)


def _diag(command: Command, wanted: frozenset[str], facts: FactView) -> Outcome:
    npus(facts)
    reading = facts.command(*command.argv)
    tests = parsed(reader.diagnosis, reading.text, command.key.removeprefix("$ "))
    by_status: dict[str, list[reader.DmiTest]] = {}
    for test in tests:
        by_status.setdefault(test.status, []).append(test)
    if "fail" in by_status:
        return failed(_named(by_status["fail"]), _told(by_status["fail"]))
    if "error" in by_status:
        broken = by_status["error"]
        raise NotKnown(
            "error",
            Text("could not be run: {t}", "未能执行：{t}").fill(
                t=f"{_named(broken)} {'; '.join(t.said for t in broken if t.said)[:200]}".strip()
            ),
        )
    missing = wanted - {test.name for test in tests}
    if missing:
        raise NotKnown(
            "missing_source",
            Text("it did not tell of {t}", "输出中没有 {t} 的结果").fill(t=", ".join(sorted(missing))),
        )
    done = by_status.get("pass", []) + by_status.get("warn", [])
    if not done:
        raise NotKnown("unsupported", Text("it ran none of its tests here", "各测试项在此均未运行"))
    if reading.exit_code:
        raise NotKnown(
            "error", Text("ascend-dmi ended with exit code {c}", "ascend-dmi 退出码为 {c}").fill(c=reading.exit_code)
        )
    if "warn" in by_status:
        return warned(_named(by_status["warn"]), _told(by_status["warn"]))
    skipped = ", ".join(test.name for test in by_status.get("skip", []))[:300]
    left_out = Text("not run: {t}", "未运行：{t}").fill(t=skipped) if skipped else None
    details = [text for text in (left_out, _told(done)) if text is not None]
    detail = joined(details) if details else None
    return passed(", ".join(test.name for test in done)[:300], detail)


def _named(tests: list[reader.DmiTest]) -> str:
    return "; ".join([*(f"{t.name} {t.word}" for t in tests[:SHOWN]), *["…"] * (len(tests) > SHOWN)])


def _told(tests: list[reader.DmiTest]) -> Text | None:
    said = "; ".join(f"{t.name}: {t.said}" for t in tests if t.said)[:600]
    return plain(said) if said else None


def _register(
    name: str, scene: str, title: Text, expected: float, limit: float, wanted: frozenset[str], suggestion: Text
) -> None:
    command = Command("ascend-dmi", "--dg", "--se", scene, "-q", timeout=limit)
    node_check(
        f"ascend.diag.{name}",
        title=title,
        method=plain(command.key.removeprefix("$ ")),
        criterion=Text(
            "every test that runs here says PASS or HEALTH; GENERAL_WARN, WARN and INFO are warnings, "
            "IMPORTANT_WARN, EMERGENCY_WARN and FAIL are failures (FAIL of signalQuality: it could not run, unknown)",
            "此处可运行的各项均为 PASS 或 HEALTH；GENERAL_WARN、WARN、INFO 为告警，"
            "IMPORTANT_WARN、EMERGENCY_WARN、FAIL 为失败（signalQuality 的 FAIL 表示未能执行，记为未知）",
        ),
        suggestion=suggestion,
        reads=NPUS,
        severity=Severity.CRITICAL,
        action=Action.ISOLATE,
        needs=("ascend-dmi", f"--disruptive ascend.diag.{name}"),
        seen="container",
        scope=SCOPE,
        runs=LongRun(command, expected),
    )(of_all_cards(partial(_diag, command, wanted)))


for _scene in _SCENES:
    _register(*_scene, _HARD if _scene[0] != "stress" else Text(_HARD.en + _VOLTAGE.en, _HARD.zh + _VOLTAGE.zh))
