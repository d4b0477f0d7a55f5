"""NVIDIA's own tests: their answers, each with faults planted in it; and that nobody runs them unasked."""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cwai_bench import config
from cwai_bench.checks import CHECKS, ConfigurableCheck, NodeCheck, criteria_items, long_items, long_run, sources_for
from cwai_bench.cli.main import entry
from cwai_bench.discover.script import run_command
from cwai_bench.errors import UsageError
from cwai_bench.judge import check_facts
from cwai_bench.model import Action, Status, Verdict
from cwai_bench.plan import Choice, make_plan
from cwai_bench.probes import World
from cwai_bench.readers import Unreadable, nvidia_tests
from cwai_bench.sources import Command
from tests.unit.test_check_node_items import Case, judged
from tests.unit.test_cli import cwai

if TYPE_CHECKING:
    from tests.unit.conftest import Planted

PASS, WARN, FAIL, UNKNOWN, SKIP = Status.PASS, Status.WARN, Status.FAIL, Status.UNKNOWN, Status.SKIP
ITEMS = long_items()
DIAGS = [i for i in ITEMS if i.startswith("nvidia.") and isinstance(CHECKS[i], NodeCheck)]
WORLD = World(1, ("node1",), mpi=False)


def command(item: str) -> Command:
    runs = long_run(item)
    assert runs is not None
    return runs.command


def answer(item: str, change: Callable[[Any], object], exit_code: int = 0) -> Callable[[Planted], object]:
    """The good answer of an item's test, changed."""

    def plant(n: Planted) -> Planted:
        from cwai_bench.discover.recorded import slug

        source = command(item)
        found = json.loads((n.root / f"commands/{slug(source)}/stdout").read_text())
        change(found)
        return n.command(source, json.dumps(found), exit_code)

    return plant


def results(test: str, **changes: Any) -> Callable[[Any], object]:
    """Change the result of card 3 in a test of DCGM's."""

    def change(found: Any) -> None:
        for category in found["DCGM Diagnostic"]["test_categories"]:
            for one in category["tests"]:
                if one["name"] == test:
                    one["results"][3].update(changes)

    return change


def all_cards(status: str, *, but: str = "Deployment") -> Callable[[Any], object]:
    def change(found: Any) -> None:
        for category in found["DCGM Diagnostic"]["test_categories"]:
            for one in category["tests"] if category["category"] != but else []:
                for result in one["results"]:
                    result["status"] = status

    return change


def without_card_3(found: Any) -> None:
    for category in found["DCGM Diagnostic"]["test_categories"]:
        for one in category["tests"]:
            del one["results"][3]


MEMORY = {"error_id": 6, "error_severity": 2, "error_category": 10, "warning": "Error using CUDA API on GPU 3"}
CASES = [
    Case("nvidia.diag.short", answer("nvidia.diag.short", results("software", status="Fail")), FAIL, "software GPU 3"),
    Case(
        "nvidia.diag.medium",
        answer("nvidia.diag.medium", results("memory", status="Fail", warnings=[MEMORY]), 226),
        FAIL,
        "memory GPU 3",
    ),
    Case(
        "nvidia.diag.medium",
        answer("nvidia.diag.medium", results("memory", status="Fail", warnings=[MEMORY]), 226),
        FAIL,
        "Error using CUDA API on GPU 3",
    ),
    Case("nvidia.diag.long", answer("nvidia.diag.long", results("pcie", status="Warn")), WARN, "pcie GPU 3"),
    Case("nvidia.diag.long", answer("nvidia.diag.long", results("targeted_power", status="Fail")), FAIL, "power GPU 3"),
    Case("nvidia.diag.xlong", answer("nvidia.diag.xlong", results("pulse", status="Fail")), FAIL, "pulse GPU 3"),
    Case(
        "nvidia.diag.memtest", answer("nvidia.diag.memtest", results("memtest", status="Fail")), FAIL, "memtest GPU 3"
    ),
    Case("nvidia.diag.long", answer("nvidia.diag.long", results("pulse", status="Skip")), PASS, ""),
    Case("nvidia.diag.long", answer("nvidia.diag.long", all_cards("Skip")), UNKNOWN, "none of its tests"),
    Case("nvidia.diag.long", answer("nvidia.diag.long", without_card_3), UNKNOWN, "7 of 8"),
    Case("nvidia.diag.long", answer("nvidia.diag.long", lambda found: None, 1), UNKNOWN, "exit code 1"),
    Case("nvidia.diag.long", answer("nvidia.diag.long", results("pcie", status="Odd")), UNKNOWN, "'Odd' is not known"),
    Case(
        "nvidia.diag.long",
        answer("nvidia.diag.long", lambda f: f["DCGM Diagnostic"].update(runtime_error="nvvs was killed")),
        UNKNOWN,
        "nvvs was killed",
    ),
    Case(
        "nvidia.diag.long",
        lambda n: n.command(command("nvidia.diag.long"), "Error: unable to connect to host engine", 1),
        UNKNOWN,
        "nvidia.dcgm_service",
    ),
    Case("nvidia.diag.long", lambda n: n.command(command("nvidia.diag.long"), "", 1), UNKNOWN, "expected JSON"),
    Case("nvidia.diag.long", lambda n: n.refuse(command("nvidia.diag.long"), "timeout", "ended"), UNKNOWN, "timeout"),
    Case("nvidia.diag.long", lambda n: n.refuse(command("nvidia.diag.long"), "missing", ""), UNKNOWN, "missing_tool"),
]


@pytest.mark.parametrize("case", CASES, ids=lambda c: f"{c.check}-{c.status.value}-{c.says[:20]}")
def test_a_planted_fault_is_found(case: Case, planted: Planted) -> None:
    case.plant(planted)
    facts = planted.facts()
    verdict = judged(facts, case.check)
    assert verdict.status is case.status, verdict
    said = [verdict.observed, verdict.reason_code, verdict.detail.en if verdict.detail else ""]
    assert any(case.says in text for text in said), said
    if verdict.status in (FAIL, WARN):
        assert verdict.action is Action.ISOLATE
        found = {v.check for v in check_facts([facts], [i for i in DIAGS]) if v.status in (FAIL, WARN)}
        assert found == {case.check}


def test_every_test_has_a_planted_fault() -> None:
    assert {c.check for c in CASES if c.status is FAIL} == set(DIAGS)


DEMANDS: dict[str, tuple[str, str]] = {
    "nvidia.bandwidth.host_to_device": ("{ min = '48 GB/s' }", "{ min = '60 GB/s' }"),
    "nvidia.bandwidth.device_to_host": ("{ min = '48 GB/s' }", "{ min = '60 GB/s' }"),
    "nvidia.bandwidth.peer": ("{ min = '335 GB/s' }", "{ min = '400 GB/s' }"),
}


def test_every_bandwidth_has_a_demand() -> None:
    assert set(DEMANDS) == {i for i in ITEMS if isinstance(CHECKS[i], ConfigurableCheck)}


def demanded(item: str, demand: str, planted: Planted) -> Verdict:
    written = config.parse_criteria(f"[criteria]\n{item} = {demand}\n", "my.toml", criteria_items())
    (verdict,) = check_facts([planted.facts()], [item], criteria=written)
    return verdict


def test_one_slow_pair_is_named(planted: Planted) -> None:
    item = "nvidia.bandwidth.peer"

    def slow(found: Any) -> None:
        found["nvbandwidth"]["testcases"][0]["bandwidth_matrix"][2][5] = "21.5"

    answer(item, slow)(planted)
    verdict = demanded(item, DEMANDS[item][0], planted)
    assert (verdict.status, verdict.observed) == (FAIL, "GPU2-GPU5 172.0 Gb/s")


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda c: c.update(status="Waived"), "Waived"),
        (lambda c: c.update(status="Error", error="out of memory"), "out of memory"),
        (lambda c: c.update(bandwidth_description="memcpy latency (ns)"), "not in GB/s"),
        (lambda c: c["bandwidth_matrix"][0].pop(), "7 of 8"),
        (lambda c: c["bandwidth_matrix"][0].__setitem__(0, "nan"), "no bandwidth"),
        (lambda c: c.update(bandwidth_matrix="x"), "no matrix"),
    ],
)
def test_a_bandwidth_that_was_not_measured_is_unknown(
    change: Callable[[Any], object], says: str, planted: Planted
) -> None:
    item = "nvidia.bandwidth.host_to_device"
    answer(item, lambda found: change(found["nvbandwidth"]["testcases"][0]))(planted)
    verdict = demanded(item, DEMANDS[item][0], planted)
    assert verdict.status is UNKNOWN
    assert verdict.detail is not None
    assert says in verdict.detail.en


# --------------------------------------------------------------------------------------------- the readers

DCGM_3 = """WARNING: this line is no JSON
{ "DCGM GPU Diagnostic" : { "test_categories" : [
 { "category" : "Deployment", "tests" : [
   { "name" : "Denylist", "results" : [ { "gpu_ids" : "0,1", "status" : "PASS" } ] }, null ] },
 { "category" : "Hardware", "tests" : [
   { "name" : "GPU Memory", "results" : [
     { "gpu_ids" : "0", "status" : "PASS" },
     { "gpu_ids" : "1", "status" : "FAIL", "warnings" : [ "Bad page", "again" ], "info" : [ "GPU 1" ] } ] },
   { "name" : "Pulse Test", "results" : [ { "gpu_ids" : "0", "status" : "SKIPPED" } ] } ] } ],
 "version" : "3.1.7" } }
"""


def test_the_layout_of_dcgm_3() -> None:
    found = nvidia_tests.dcgm_diag(DCGM_3)
    assert [(r.test, r.cards, r.status) for r in found] == [
        ("Denylist", ("0", "1"), "pass"),
        ("GPU Memory", ("0",), "pass"),
        ("GPU Memory", ("1",), "fail"),
        ("Pulse Test", ("0",), "skip"),
    ]
    assert found[2].said == "Bad page; again; GPU 1"


GOOD = json.loads(DCGM_3[DCGM_3.index("{") :])
values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.sampled_from(["category", "tests", "results", "name", "status", "gpu_ids"]), inner)
    ),
    max_leaves=12,
)


@given(st.text() | st.builds(lambda cut: DCGM_3[:cut], st.integers(0, len(DCGM_3))))
def test_any_text_is_read_or_unreadable(text: str) -> None:
    for reader in (nvidia_tests.dcgm_diag, lambda t: nvidia_tests.nvbandwidth(t, "host_to_device_memcpy_ce")):
        try:
            found = reader(text)
        except Unreadable:
            continue
        assert found
        assert text == DCGM_3 or text.startswith(DCGM_3.rstrip())


@given(values)
def test_any_json_is_read_or_unreadable(value: object) -> None:
    for text in (
        json.dumps({"DCGM Diagnostic": value}),
        json.dumps({"DCGM Diagnostic": {"test_categories": value}}),
        json.dumps({"nvbandwidth": {"testcases": [{"name": "x", "status": "Passed", "bandwidth_matrix": value}]}}),
    ):
        for read in (lambda t: nvidia_tests.dcgm_diag(t), lambda t: nvidia_tests.nvbandwidth(t, "x")):
            try:
                read(text)
            except Unreadable:
                pass


def test_brackets_without_end_are_unreadable() -> None:
    with pytest.raises(Unreadable):
        nvidia_tests.dcgm_diag('{"DCGM Diagnostic":' + "[" * 200_000)


# --------------------------------------------------------------------------------------------- only when asked for


def test_nobody_runs_them_unasked() -> None:
    plan = make_plan(Choice("check"), WORLD)
    assert not set(ITEMS) & set(plan.checks)
    assert {x.what: x.reason_code for x in plan.left_out} == dict.fromkeys(ITEMS, "not_selected")
    assert "--disruptive nvidia.diag.long" in next(x.reason.en for x in plan.left_out if x.what == "nvidia.diag.long")
    by_pattern = make_plan(Choice("check", items=("nvidia.*",)), WORLD)
    assert not set(ITEMS) & set(by_pattern.checks)
    assert not {command(i) for i in ITEMS} & set(sources_for(CHECKS))


def test_those_asked_for_are_run_beside_what_else_was_chosen() -> None:
    plan = make_plan(Choice("check", items=("memory.swap",), disruptive=("nvidia.diag.long",)), WORLD)
    assert set(plan.checks) == {"memory.swap", "nvidia.diag.long"}
    assert plan.expected > 900
    assert make_plan(Choice("check", skip=("nvidia.*",), disruptive=("nvidia.diag.*",)), WORLD).checks != []
    short = make_plan(Choice("check", disruptive=("nvidia.diag.long",), budget=60.0), WORLD)
    assert "nvidia.diag.long" not in short.checks
    with pytest.raises(UsageError) as e:
        make_plan(Choice("check", disruptive=("nvidia.diag.lng",)), WORLD)
    assert "did you mean nvidia.diag.long?" in e.value.show("en")


def test_the_plan_names_them_with_their_time(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        entry(["check", "--dry-run", "--disruptive", "nvidia.diag.long", "--lang", "en"])
    assert ended.value.code == 0
    line = next(line for line in capsys.readouterr().out.splitlines() if "nvidia.diag.long" in line)
    assert "900.0 s" in line
    assert "at most 3600 s" in line


def test_a_recorded_answer_is_judged_and_nothing_is_run(planted: Planted, tmp_path: Path) -> None:
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin/dcgmi").write_text(f"#!/bin/sh\ntouch {tmp_path}/ran\n")
    (tmp_path / "bin/dcgmi").chmod(0o755)
    answer("nvidia.diag.long", results("pcie", status="Fail"))(planted)
    chosen = ["--items", "memory.swap", "--disruptive", "nvidia.diag.long", "--store", str(tmp_path / "store")]
    env = {"PATH": f"{tmp_path}/bin:{os.environ['PATH']}"}
    done = cwai("check", "--root", str(planted.root), *chosen, spool=tmp_path / "spool", env=env)
    assert done.returncode == 1, done.stderr
    assert "pcie GPU 3" in done.stdout
    assert not (tmp_path / "ran").exists()


def test_a_test_is_run_by_its_own_limit_and_ended_with_all_that_it_started() -> None:
    found = run_command(Command(sys.executable, "-c", "print('x'*100000)", timeout=20.0))
    assert (found.status, found.exit_code, len(found.text)) == ("ok", 0, 100_001)
    assert found.source == f"$ {sys.executable} -c print('x'*100000)"
    started = time.monotonic()
    assert run_command(Command("sleep", "600", timeout=0.5)).status == "timeout"
    assert time.monotonic() - started < 15
    assert run_command(Command("no-such-tool", timeout=5.0)).status == "missing"
