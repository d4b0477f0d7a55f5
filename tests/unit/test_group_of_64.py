"""A group of 64 like nodes with five faults planted in it: the report names all five, and nobody else."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import msgspec
import pytest

from cwai_bench import render
from cwai_bench.baseline import from_facts
from cwai_bench.checks import CHECKS
from cwai_bench.judge import judge
from cwai_bench.model import Facts, NodeRecord, Plan, Report, Run, Status
from tests.unit.conftest import Planted

if TYPE_CHECKING:
    from cwai_bench.text import Lang

NODES = [f"node{i:02}" for i in range(1, 65)]
ECC, NO_LINK, LESS_MEMORY, OTHER_KERNEL, LOST_CARD = "node07", "node23", "node41", "node55", "node60"


def changed(planted: Planted, call: str, change: Callable[[Any], object]) -> None:
    """Change a saved answer in place."""
    path = planted.root / f"calls/{call}.json"
    answer = json.loads(path.read_text())
    change(answer)
    path.write_text(json.dumps(answer))


def ecc(planted: Planted) -> None:
    changed(planted, "nvml", lambda a: a["cards"][2]["ecc_volatile"].update(dram_uncorrected=3))


def no_link(planted: Planted) -> None:
    changed(planted, "rdma", lambda a: a["devices"][4]["ports"][0].update(state="DOWN", phys_state="Polling"))


def lost_card(planted: Planted) -> None:
    planted.log("NVRM: Xid (PCI:0000:c9:00): 79, pid=4242, GPU has fallen off the bus.")


FAULTS: dict[str, Callable[[Planted], object]] = {
    ECC: ecc,
    NO_LINK: no_link,
    LESS_MEMORY: lambda n: n.meminfo("MemTotal", 989_659_136),
    OTHER_KERNEL: lambda n: n.call("host", release="5.15.0-91-generic"),
    LOST_CARD: lost_card,
}
FOUND = {
    ECC: {"nvidia.ecc_uncorrected"},
    NO_LINK: {"rdma.link"},
    LESS_MEMORY: {"memory.installed", "same.memory"},
    OTHER_KERNEL: {"same.kernel"},
    LOST_CARD: {"nvidia.lost"},
}


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> Report:
    good = Planted(tmp_path_factory.mktemp("good") / "node").facts()
    facts: list[Facts] = []
    for name in NODES:
        own = good
        if name in FAULTS:
            planted = Planted(tmp_path_factory.mktemp(name) / "node")
            FAULTS[name](planted)
            own = planted.facts()
        facts.append(msgspec.structs.replace(own, node=name))
    run = Run(
        run_id="20260101T000000Z-check-64aaaa",
        run_type="check",
        command=["cwai-bench", "check", "--baseline", "good.json"],
        version="0",
        started=1767225600.0,
        finished=1767225605.0,
        utc_offset=0,
        status="complete",
        world_size=64,
        plan=Plan(list(CHECKS), [], [], 5.0),
        environment={},
        settings={},
        nodes=[NodeRecord(name, [i], True, True) for i, name in enumerate(NODES)],
        facts=facts,
        measurements=[],
        events=[],
    )
    return judge(run, baseline=from_facts(msgspec.structs.replace(good, node="good")))


def test_each_fault_is_found_where_it_is_and_nowhere_else(report: Report) -> None:
    failed: dict[str, set[str]] = {}
    for verdict in report.verdicts:
        if verdict.status is Status.FAIL:
            for node in verdict.nodes:
                failed.setdefault(node, set()).add(verdict.check)
    assert set(failed) == set(FAULTS)
    for node, checks in FOUND.items():
        assert checks <= failed[node], f"{node}: {failed[node]}"


def test_the_gate_names_the_nodes_to_leave_out(report: Report) -> None:
    assert report.gate.exit_code == 1
    assert report.gate.leave_out == sorted(FAULTS)


@pytest.mark.parametrize("lang", ["en", "zh"])
def test_every_format_that_people_read_names_all_five(report: Report, lang: Lang) -> None:
    for form in ("text", "html", "markdown"):
        text = render.render(report, form, lang)
        assert "node[07,23,41,55,60]" in text, form
