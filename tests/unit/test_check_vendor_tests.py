"""Huawei's and AMD's own tests: their answers, each with faults planted in it."""

from __future__ import annotations

import contextlib
import os
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cwai_bench.checks import CHECKS, amd_tests, ascend, ascend_loopback, ascend_tests, long_items, long_run
from cwai_bench.checks.amd import PCI
from cwai_bench.discover.script import run_command
from cwai_bench.judge import check_facts
from cwai_bench.model import Action, Status
from cwai_bench.readers import Unreadable
from cwai_bench.readers import amd_tests as rvs_reader
from cwai_bench.readers import ascend_loopback as loopback_reader
from cwai_bench.readers import ascend_tests as dmi_reader
from cwai_bench.sources import Command
from tests.unit.conftest import HOMES, NODES
from tests.unit.test_check_node_items import Case, judged

if TYPE_CHECKING:
    from tests.unit.conftest import Planted

PASS, WARN, FAIL, UNKNOWN, SKIP = Status.PASS, Status.WARN, Status.FAIL, Status.UNKNOWN, Status.SKIP
SCOPES = (ascend_tests.SCOPE, amd_tests.SCOPE)
ITEMS = [i for i in long_items() if CHECKS[i].info.scope in SCOPES]


def command(item: str) -> Command:
    runs = long_run(item)
    assert runs is not None
    return runs.command


def answer(node: str, item: str) -> str:
    from cwai_bench.discover.recorded import slug

    return (NODES / node / f"commands/{slug(command(item))}/stdout").read_text()


def said(item: str, *changes: tuple[str, str], exit_code: int = 0) -> Callable[[Planted], object]:
    """The good answer of an item's test, with what is there replaced."""

    def plant(n: Planted) -> Planted:
        text = answer(HOMES[CHECKS[item].info.scope], item)
        for old, new in changes:
            assert old in text, old
            text = text.replace(old, new, 1)
        return n.command(command(item), text, exit_code)

    return plant


def instead(item: str, text: str, exit_code: int = 0) -> Callable[[Planted], object]:
    return lambda n: n.command(command(item), text, exit_code)


def word(test: str, old: str, new: str, *notes: str) -> tuple[str, str]:
    """Another result of a test of ascend-dmi, with the lines that the tool adds to it."""
    lines = "".join(f"\n        *** {note}" for note in notes)
    return f"    {test}:\n        {old}\n", f"    {test}:\n        {new}{lines}\n"


def row(action: str, module: str, result: str) -> str:
    colour = {"PASS": "\x1b[32m", "FAIL": "\x1b[31m"}[result]
    return f"| {action:<32} | {module:<14} | {colour}{result:<14}\x1b[0m  |"


HEALTH, PERFORMANCE, STRESS = (f"ascend.diag.{x}" for x in ("health", "performance", "stress"))
SEIZED = "Some processes are seizing the NPU. Test results may be affected."
ASCEND_CASES = [
    Case(HEALTH, said(HEALTH), PASS, "cann, driver, device"),
    Case(HEALTH, said(HEALTH, word("hbm", "PASS", "EMERGENCY_WARN", "Device 3: replace it")), FAIL, "hbm EMERGENCY"),
    Case(HEALTH, said(HEALTH, word("hbm", "PASS", "EMERGENCY_WARN", "Device 3: replace it")), FAIL, "hbm: Device 3"),
    Case(HEALTH, said(HEALTH, word("hbm", "PASS", "GENERAL_WARN")), WARN, "hbm GENERAL_WARN"),
    Case(HEALTH, said(HEALTH, word("device", "HEALTH", "IMPORTANT_WARN")), FAIL, "device IMPORTANT_WARN"),
    Case(HEALTH, said(HEALTH, word("network", "PASS", "INFO")), WARN, "network INFO"),
    Case(HEALTH, said(HEALTH, word("network", "PASS", "WARN")), WARN, "network WARN"),
    Case(
        HEALTH, said(HEALTH, word("signalQuality", "PASS", "FAIL", "no answer")), UNKNOWN, "could not be run: signalQ"
    ),
    Case(HEALTH, said(HEALTH, word("driver", "HEALTH", "FAIL"), word("hbm", "PASS", "WARN")), FAIL, "driver FAIL"),
    Case(HEALTH, said(HEALTH, word("signalQuality", "PASS", "SKIP")), PASS, "not run: signalQuality"),
    Case(HEALTH, said(HEALTH, word("hbm", "PASS", "FINE")), UNKNOWN, "'FINE' is not known"),
    Case(HEALTH, said(HEALTH, word("hbm", "PASS", "pass")), UNKNOWN, "'pass' is not known"),
    Case(HEALTH, said(HEALTH, ("    device:\n        HEALTH\n", "")), UNKNOWN, "did not tell of device"),
    Case(HEALTH, said(HEALTH, ("        PASS\n    hbm:", "    hbm:")), UNKNOWN, "signalQuality has no result"),
    Case(HEALTH, said(HEALTH, exit_code=3), UNKNOWN, "exit code 3"),
    Case(HEALTH, instead(HEALTH, "Summary:\n    Arch: aarch64\n"), UNKNOWN, "it holds no result"),
    Case(HEALTH, instead(HEALTH, "no permission\n", 1), UNKNOWN, "it says: no permission"),
    Case(HEALTH, instead(HEALTH, "", 1), UNKNOWN, "it says: nothing"),
    Case(HEALTH, lambda n: n.refuse(command(HEALTH), "missing", ""), UNKNOWN, "missing_tool"),
    Case(HEALTH, lambda n: n.refuse(command(HEALTH), "timeout", "ended"), UNKNOWN, "timeout"),
    Case(HEALTH, lambda n: n.refuse(ascend.MAP), UNKNOWN, "permission"),
    Case(PERFORMANCE, said(PERFORMANCE), PASS, "not run: nic"),
    Case(PERFORMANCE, said(PERFORMANCE, word("bandwidth", "PASS", "FAIL", "p2p 26 / 50")), FAIL, "p2p 26 / 50"),
    Case(PERFORMANCE, said(PERFORMANCE, word("aiflops", "PASS", "WARN", "too hot")), WARN, "aiflops: too hot"),
    Case(
        PERFORMANCE,
        said(PERFORMANCE, word("aiflops", "PASS", "SKIP"), word("bandwidth", "PASS", "SKIP")),
        UNKNOWN,
        "none of its tests",
    ),
    Case(STRESS, said(STRESS), PASS, "aicore"),
    Case(STRESS, said(STRESS, word("aicore", "PASS", "FAIL", SEIZED, "Device 4: a timeout error")), FAIL, "Device 4"),
    Case(STRESS, said(STRESS, word("aicore", "PASS", "PASS", SEIZED)), PASS, "seizing the NPU"),
    Case(STRESS, said(STRESS, ("    aicore:\n        PASS\n", "")), UNKNOWN, "did not tell of aicore"),
]

LOOPBACK = ascend_loopback.ITEM
ALIKE = (
    "$ hccn_tool -i 3 -optical -t {mode}\nCmd executed successfully!\n= 0\n"
    "$ hccn_tool -i 3 -link -g\nlink status: {state}\n"
)


def down(*modes: int) -> list[tuple[str, str]]:
    """The port of NPU 3 is down in these loopbacks."""
    return [(ALIKE.format(mode=m, state="UP"), ALIKE.format(mode=m, state="DOWN")) for m in modes]


def refuses(mode: int, words: str) -> tuple[str, str]:
    """NPU 3 does not set a loopback, and so its link is not asked."""
    call = f"$ hccn_tool -i 3 -optical -t {mode}\n"
    return f"{ALIKE.format(mode=mode, state='UP')}= 0\n", f"{call}{words}\n= 1\n"


BEFORE = "$ hccn_tool -i 3 -link -g\nlink status: UP\n= 0\n$ hccn_tool -i 3 -optical -t 1"
WAS_DOWN = (BEFORE, BEFORE.replace("UP", "DOWN"))
LOOPBACK_CASES = [
    Case(LOOPBACK, said(LOOPBACK), PASS, "8/8"),
    Case(LOOPBACK, said(LOOPBACK, *down(1, 2)), FAIL, "NPU 3: down though looped on this side"),
    Case(LOOPBACK, said(LOOPBACK, *down(1)), FAIL, "NPU 3: down though looped on this side"),
    Case(LOOPBACK, said(LOOPBACK, *down(2)), FAIL, "NPU 3: down only when looped on the optical side"),
    Case(LOOPBACK, said(LOOPBACK, WAS_DOWN, *down(2, 0)), FAIL, "only when looped on the optical side"),
    Case(LOOPBACK, said(LOOPBACK, WAS_DOWN, *down(0)), PASS, "NPU 3: no link without a loopback"),
    Case(LOOPBACK, said(LOOPBACK, *down(0)), FAIL, "NPU 3: no link after the test"),
    Case(LOOPBACK, said(LOOPBACK, refuses(0, "busy")), FAIL, "NPU 3: the loopback could not be undone: busy"),
    Case(LOOPBACK, said(LOOPBACK, refuses(1, "not support"), *down(2)), FAIL, "only when looped on the optical"),
    Case(
        LOOPBACK,
        said(LOOPBACK, refuses(1, "not support")),
        UNKNOWN,
        "1 of 8 modules cannot be looped: NPU 3, -t 1: not",
    ),
    Case(
        LOOPBACK,
        said(LOOPBACK, refuses(1, "not support"), refuses(2, "not support"), refuses(0, "not support")),
        UNKNOWN,
        "cannot be looped",
    ),
    Case(LOOPBACK, said(LOOPBACK, exit_code=1), UNKNOWN, "exit code 1"),
    Case(LOOPBACK, instead(LOOPBACK, "", 127), UNKNOWN, "missing_tool"),
    Case(LOOPBACK, instead(LOOPBACK, "", 0), UNKNOWN, "it ends in the middle"),
    Case(
        LOOPBACK,
        instead(LOOPBACK, answer("ascend_910b", LOOPBACK).partition("$ hccn_tool -i 7")[0]),
        UNKNOWN,
        "not tested: NPU 7",
    ),
    Case(
        LOOPBACK,
        instead(LOOPBACK, answer("ascend_910b", LOOPBACK).rpartition("$ hccn_tool -i 7 -link")[0]),
        UNKNOWN,
        "NPU 7 was not tested to the end",
    ),
    Case(LOOPBACK, said(LOOPBACK, ("link status: UP", "link status: ?")), UNKNOWN, "the link's status"),
    Case(LOOPBACK, lambda n: n.refuse(command(LOOPBACK), "timeout", "ended"), UNKNOWN, "timeout"),
]

LEVEL2, LEVEL3, LEVEL4 = (f"amd.rvs.{name}" for name in ("capability", "performance", "extended"))
MET = "[compute-fp16-trig] [GPU:: 51113] GFLOPS 571003 Target GFLOPS: 523000 met: TRUE"
AMD_CASES = [
    Case(LEVEL2, said(LEVEL2), PASS, "pcie_capability, hbm_basic"),
    Case(
        LEVEL2, said(LEVEL2, (row("hbm_basic", "BABEL", "PASS"), row("hbm_basic", "BABEL", "FAIL"))), FAIL, "hbm_basic"
    ),
    Case(
        LEVEL2,
        said(
            LEVEL2,
            ("[RESULT]", "RVS-ERROR [BABEL] [hbm_basic] out of memory\n[RESULT]"),
            (row("hbm_basic", "BABEL", "PASS"), row("hbm_basic", "BABEL", "FAIL")),
        ),
        FAIL,
        "out of memory",
    ),
    Case(
        LEVEL2,
        said(LEVEL2, ("GPUs                             | 8", "GPUs                             | 7")),
        UNKNOWN,
        "7 of 8",
    ),
    Case(LEVEL2, said(LEVEL2, exit_code=1), UNKNOWN, "exit code 1"),
    Case(LEVEL2, said(LEVEL2, ("PASS          \x1b", "MAYBE         \x1b")), UNKNOWN, "no row of the summary"),
    Case(LEVEL2, said(LEVEL2, ("(RVS) Summary", "(RVS) Sum")), UNKNOWN, "there is no summary"),
    Case(LEVEL2, instead(LEVEL2, "RVS-ERROR [CLI] No test levels support\n", 255), UNKNOWN, "No test levels support"),
    Case(LEVEL2, lambda n: n.refuse(command(LEVEL2), "missing", ""), UNKNOWN, "missing_tool"),
    Case(LEVEL2, lambda n: n.refuse(command(LEVEL2), "timeout", "ended"), UNKNOWN, "timeout"),
    Case(LEVEL3, said(LEVEL3), PASS, "compute-fp8-trig"),
    Case(
        LEVEL3,
        said(
            LEVEL3,
            (MET, MET.replace("TRUE", "FALSE")),
            (row("compute-fp16-trig", "GST", "PASS"), row("compute-fp16-trig", "GST", "FAIL")),
        ),
        FAIL,
        "compute-fp16-trig 0000:49:00.0",
    ),
    Case(LEVEL3, said(LEVEL3, (MET, MET.replace("TRUE", "FALSE"))), FAIL, "compute-fp16-trig 0000:49:00.0"),
    Case(
        LEVEL3, said(LEVEL3, (MET, MET.replace("trig", "odd").replace("TRUE", "FALSE"))), UNKNOWN, "not in the summary"
    ),
    Case(LEVEL4, said(LEVEL4), PASS, "memtest"),
    Case(LEVEL4, said(LEVEL4, ("[memtest] mem Test 2 : PASS", "[memtest] mem")), FAIL, "memtest test 2: 7/8"),
    Case(
        LEVEL4,
        said(LEVEL4, ("[power-stress] [GPU:: 51117] pass: TRUE", "[power-stress] [GPU:: 51117] pass: FALSE")),
        FAIL,
        "power-stress 0000:c9:00.0",
    ),
    Case(
        LEVEL4,
        instead(LEVEL4, "\n".join(x for x in answer("mi300x", LEVEL4).split("\n") if "[memtest] mem" not in x)),
        UNKNOWN,
        "no test of the memory",
    ),
]
CASES = ASCEND_CASES + LOOPBACK_CASES + AMD_CASES


@pytest.fixture
def home(tmp_path: Path, planted: Planted) -> Callable[[str], Planted]:
    return lambda item: type(planted)(tmp_path / "home", HOMES[CHECKS[item].info.scope])


@pytest.mark.parametrize("case", CASES, ids=lambda c: f"{c.check}-{c.status.value}-{c.says[:20]}")
def test_a_planted_fault_is_found(case: Case, home: Callable[[str], Planted]) -> None:
    node = home(case.check)
    case.plant(node)
    facts = node.facts()
    verdict = judged(facts, case.check)
    assert verdict.status is case.status, verdict
    told = [verdict.observed, verdict.reason_code, verdict.detail.en if verdict.detail else ""]
    assert any(case.says in text for text in told), told
    if verdict.status in (FAIL, WARN):
        assert verdict.action is Action.ISOLATE
        assert verdict.evidence
        assert {v.check for v in check_facts([facts], ITEMS) if v.status in (FAIL, WARN)} == {case.check}


def test_every_test_has_a_planted_fault_and_passes_at_home() -> None:
    assert {c.check for c in CASES if c.status is FAIL} == set(ITEMS) == {c.check for c in CASES if c.status is PASS}


def test_a_lost_card_is_not_passed_over(home: Callable[[str], Planted]) -> None:
    node = home(HEALTH)
    text = (node.root / "calls/pci.json").read_text()
    assert text.count('"19e5:d802"') == 8
    from cwai_bench.discover.recorded import slug

    path = f"commands/{slug(ascend.MAP)}/stdout"
    kept = [line for line in (node.root / path).read_text().splitlines() if line.split()[:1] != ["5"]]
    node.write(path, "\n".join(kept) + "\n")
    verdict = judged(node.facts(), HEALTH)
    assert (verdict.status, verdict.reason_code) == (UNKNOWN, "cause")


@pytest.mark.parametrize("item", ITEMS)
def test_without_such_cards_it_does_not_apply(item: str, planted: Planted) -> None:
    verdict = judged(planted.facts(), item)
    assert (verdict.status, verdict.reason_code) == (SKIP, "absent")


def test_what_each_reads_is_what_tells_whether_there_are_cards() -> None:
    assert {CHECKS[i].reads for i in ITEMS} == {ascend.NPUS, (PCI,)}


def test_a_vendors_test_is_given_what_set_env_of_cann_says(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ASCEND_OPP_PATH", "/usr/local/Ascend/latest/opp")
    monkeypatch.setenv("SECRET", "x")
    names = dict(line.split("=", 1) for line in run_command(Command("env", timeout=20.0)).text.splitlines())
    assert names["ASCEND_OPP_PATH"] == "/usr/local/Ascend/latest/opp"
    assert "SECRET" not in names
    assert names["PATH"].startswith(os.environ["PATH"])
    assert {"/opt/rocm/bin", "/usr/local/Ascend/toolbox/latest/Ascend-DMI/bin"} <= set(names["PATH"].split(":"))


HCCN_TOOL = """#!/bin/sh
# A stand-in: it remembers each loopback and how it was told to set it; NPU 1 has a module without any.
echo "$2 $*" >> $STATE/calls
case "$*" in
  "-i 1 -optical"*) echo "not support"; exit 1 ;;
  *-optical*) read -r word; [ "$word" = y ] || exit 2; echo "$5" > $STATE/mode$2; echo "Cmd executed successfully!" ;;
  *) case $2$(cat $STATE/mode$2 2> /dev/null) in 22) echo "link status: DOWN" ;; *) echo "link status: UP" ;; esac ;;
esac
"""


@pytest.fixture
def looped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], str]:
    """The script of the loopback test, for three NPUs under ``tmp_path``, whose tool is a stand-in."""
    for name in ("davinci0", "davinci1", "davinci2", "davinci_manager"):
        (tmp_path / name).touch()
    tool = tmp_path / "hccn_tool"
    tool.write_text(HCCN_TOOL.replace("$STATE", str(tmp_path)))
    tool.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    return lambda wait: ascend_loopback.SCRIPT.replace("/dev/", f"{tmp_path}/").replace("sleep 10", f"sleep {wait}")


def test_the_modules_are_looped_in_turn_and_left_as_they_were(looped: Callable[[str], str], tmp_path: Path) -> None:
    said = run_command(ascend_loopback.COMMAND, looped("0.01"))
    assert (said.status, said.exit_code, said.source) == ("ok", 0, ascend_loopback.COMMAND.key)
    none, host, media = loopback_reader.Mode
    assert loopback_reader.loopback(said.text) == {
        "0": (True, {host: True, media: True, none: True}, {}),
        "1": (True, {}, dict.fromkeys(loopback_reader.Mode, "not support")),
        "2": (True, {host: True, media: False, none: True}, {}),
    }
    assert [(tmp_path / f"mode{npu}").read_text() for npu in (0, 2)] == ["0\n", "0\n"]


def test_a_loopback_does_not_outlive_the_time_limit(looped: Callable[[str], str], tmp_path: Path) -> None:
    said = run_command(Command(*ascend_loopback.COMMAND.argv, timeout=2.0), looped("600"))
    assert said.status == "timeout"
    assert "-i 0 -optical -t 1" in said.text
    assert (tmp_path / "mode0").read_text() == "0\n"
    assert not (tmp_path / "mode2").exists()


def test_without_the_tool_the_script_says_so(looped: Callable[[str], str], tmp_path: Path) -> None:
    (tmp_path / "hccn_tool").unlink()
    assert subprocess.run(["sh", "-c", looped("0")], env={"PATH": "/usr/bin:/bin"}, check=False).returncode == 127


# --------------------------------------------------------------------------------------------- the readers

DMI = answer("ascend_910b", HEALTH)
RVS = answer("mi300x", LEVEL4)
LOOPED = answer("ascend_910b", LOOPBACK)
READERS: list[tuple[Callable[[str], object], str]] = [
    (dmi_reader.diagnosis, DMI),
    (rvs_reader.rvs, RVS),
    (loopback_reader.loopback, LOOPED),
]


def test_the_lines_of_the_tool_stay_with_their_test() -> None:
    text = (
        "Stress test is being performed, please wait.\r\nSummary:\r\n    Mode: x:\r\nHardware:\r\n    aicore:\r\n"
        "        FAIL\r\n        *** Some.\r\n        *** Device 4: a timeout.\r\n          it went on\r\n"
        "    edp:\r\n        PASS\r\n"
    )
    assert dmi_reader.diagnosis(text) == [
        ("aicore", "FAIL", "fail", "Some. Device 4: a timeout. it went on"),
        ("edp", "PASS", "pass", ""),
    ]


def test_an_odd_number_of_cards_and_one_card_alone() -> None:
    text = (
        "[RESULT] [1.0] [a] [GPU::   77] GFLOPS 1 Target GFLOPS: 2 met: FALSE\n"
        "| ROCm Validation Suite (RVS) Summary |\n| GPUs | 1 |\n+---+\n| AMD Instinct MI210 - 77 |  |\n"
        "| 0 - 1 - 0000:C1:00.0 |  |\n+===+\n| Action Name | Module | Result |\n+===+\n| a | GST | FAIL |\n+---+\n"
    )
    found = rvs_reader.rvs(text)
    assert found.actions == (("a", "gst", False, ("0000:c1:00.0",)),)
    assert found.cards == 1
    nowhere = rvs_reader.rvs(text.replace("0000:C1:00.0", "?"))
    assert nowhere.actions[0].cards == ("GPU 77",)


@pytest.mark.parametrize("reader", [r for r, _ in READERS])
@given(st.text())
def test_any_text_is_read_or_unreadable(reader: Callable[[str], object], text: str) -> None:
    with pytest.raises(Unreadable):
        reader(text)


@pytest.mark.parametrize(("reader", "good"), READERS)
@given(st.data())
def test_any_text_that_was_cut_or_changed_is_read_or_unreadable(
    reader: Callable[[str], object], good: str, data: st.DataObject
) -> None:
    start = data.draw(st.integers(0, len(good)))
    changed = good[:start] + data.draw(st.text(max_size=8)) + good[data.draw(st.integers(start, len(good))) :]
    with contextlib.suppress(Unreadable):
        reader(changed)


@given(st.integers(0, len(RVS) - 1))
def test_a_summary_that_was_cut_is_unreadable(cut: int) -> None:
    if "|" in RVS[cut:]:
        with pytest.raises(Unreadable):
            rvs_reader.rvs(RVS[:cut])


@given(st.integers(0, len(DMI) - 1))
def test_results_that_were_cut_never_pass_for_more(cut: int) -> None:
    try:
        found = dmi_reader.diagnosis(DMI[:cut])
    except Unreadable:
        return
    assert found == dmi_reader.diagnosis(DMI)[: len(found)]


def test_long_lines_take_no_long_time() -> None:
    started = time.monotonic()
    for text in ("[a] [GPU:: 1] " * 80_000, "[a] mem Test 1 " * 80_000, "\x1b[" + "0;" * 500_000, "| - 1" * 200_000):
        for reader, good in READERS:
            with pytest.raises(Unreadable):
                reader(text)
            with contextlib.suppress(Unreadable):
                reader(f"{text}\n{good}")
    assert time.monotonic() - started < 20
