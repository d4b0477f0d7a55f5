"""Suppressions: what is known and answered for does not count for the gate, and is shown in every format."""

from __future__ import annotations

from datetime import date
from typing import TYPE_CHECKING

import msgspec
import pytest

from cwai_bench import config, render
from cwai_bench.checks import CHECKS
from cwai_bench.errors import UsageError
from cwai_bench.judge import judge
from cwai_bench.model import Facts, NodeRecord, Plan, Report, Run, Status
from cwai_bench.text import LANGS, Lang

if TYPE_CHECKING:
    from tests.unit.conftest import Planted

STARTED = 1767225600.0  # 2026-01-01
ITEM = "memory.zone_reclaim"
ENTRY = 'owner = "ops", reason = "ticket 17", until = 2026-01-31'


def criteria(text: str) -> config.Criteria:
    return config.parse_criteria(f"[suppress]\n{text}\n", "my.toml", {}, [*CHECKS, "tcp.bandwidth"])


def run(*facts: Facts, items: list[str] | None = None, **changes: object) -> Run:
    base = Run(
        run_id="20260101T000000Z-run-abcdef",
        run_type="check",
        command=["cwai-bench", "check"],
        version="0.1.0",
        started=STARTED,
        finished=STARTED + 10,
        utc_offset=0,
        status="complete",
        world_size=len(facts),
        plan=Plan(items or [ITEM, "memory.swap"], [], [], 1.0),
        environment={},
        settings={},
        nodes=[NodeRecord(f.node, [n], True, True) for n, f in enumerate(facts)],
        facts=list(facts),
        measurements=[],
        events=[],
    )
    return msgspec.structs.replace(base, **changes)


@pytest.fixture
def faulty(planted: Planted, good_facts: Facts) -> Run:
    """node1 and node2, with a warning on node2."""
    bad = planted.rename("node2").write("proc/sys/vm/zone_reclaim_mode", "1\n").facts()
    return run(good_facts, bad)


def marked(report: Report) -> list[tuple[str, str, Status]]:
    return [(v.check, n, v.status) for v in report.verdicts if v.suppressed is not None for n in v.nodes]


def test_a_warning_keeps_its_verdict_and_does_not_count(faulty: Run) -> None:
    before = judge(faulty)
    report = judge(faulty, criteria=criteria(f"{ITEM} = {{ {ENTRY} }}"))
    assert (before.gate.status, report.gate.status) == (Status.WARN, Status.PASS)
    assert marked(report) == [(ITEM, "node2", Status.WARN)]
    assert report.counts == before.counts
    said = [reason.en for reason in report.gate.because if "suppressed" in reason.en]
    assert said == [
        f"not counted: {CHECKS[ITEM].info.title.en} on node2 (WARN), suppressed until 2026-01-31 by ops: ticket 17"
    ]
    assert any("豁免至 2026-01-31" in reason.zh for reason in report.gate.because)


def test_a_failure_and_what_is_not_known(planted: Planted, good_facts: Facts) -> None:
    items = ["memory.corrupted", "kernel.taint", "memory.swap"]
    bad = planted.rename("node2").meminfo("HardwareCorrupted", 12).write("proc/sys/kernel/tainted", "?\n").facts()
    both = run(good_facts, bad, items=items)
    assert judge(both).gate.exit_code == 1
    corrupted, tainted = f"memory.corrupted = {{ {ENTRY} }}", f"kernel.taint = {{ {ENTRY} }}"
    assert judge(both, criteria=criteria(corrupted)).gate.exit_code == 3
    assert judge(both, criteria=criteria(tainted)).gate.exit_code == 1
    report = judge(both, criteria=criteria(f"{corrupted}\n{tainted}"))
    assert (report.gate.exit_code, report.gate.leave_out) == (0, [])
    assert {status for _, _, status in marked(report)} == {Status.FAIL, Status.UNKNOWN}


def test_where_all_is_suppressed_nothing_was_judged(planted: Planted) -> None:
    only = run(planted.meminfo("HardwareCorrupted", 12).facts(), items=["memory.corrupted"])
    assert judge(only, criteria=criteria(f"memory.corrupted = {{ {ENTRY} }}")).gate.exit_code == 3


@pytest.mark.parametrize(
    ("nodes", "counts"), [("node2", False), ("node[2-9]", False), ("node[1,3]", True), ("node22", True)]
)
def test_only_the_nodes_that_are_named(nodes: str, counts: bool, faulty: Run) -> None:
    report = judge(faulty, criteria=criteria(f'{ITEM} = {{ {ENTRY}, nodes = "{nodes}" }}'))
    assert report.gate.status is (Status.WARN if counts else Status.PASS)


@pytest.mark.parametrize(
    ("until", "started", "offset", "counts"),
    [
        ("2026-01-01", STARTED, 0, False),  # the day itself is included
        ("2025-12-31", STARTED, 0, True),
        ("2025-12-31", STARTED, -3600, False),  # where it ran, it was still yesterday
        ("2026-01-31", STARTED + 31 * 86400, 0, True),
        ("9999-12-30", 1e300, 0, True),  # a run of no day
    ],
)
def test_an_expired_one_has_no_effect_and_is_noted(
    until: str, started: float, offset: int, counts: bool, faulty: Run
) -> None:
    late = msgspec.structs.replace(faulty, started=started, utc_offset=offset)
    report = judge(late, criteria=criteria(f'{ITEM} = {{ owner = "ops", reason = "r", until = {until} }}'))
    assert report.gate.status is (Status.WARN if counts else Status.PASS)
    ended = [n for n in report.notes if f"the suppression of {ITEM} by ops ended on {until}" in n.en]
    assert bool(ended) is counts
    assert all("到期" in n.zh for n in ended)


def test_a_list_for_one_item(faulty: Run) -> None:
    other = 'owner = "hpc", reason = "later", until = "2026-02-01", nodes = "node2"'
    found = criteria(f'{ITEM} = [ {{ {ENTRY}, nodes = "node1" }}, {{ {other} }} ]').suppressions
    assert [(s.owner, s.nodes, s.until) for s in found] == [
        ("ops", frozenset({"node1"}), date(2026, 1, 31)),
        ("hpc", frozenset({"node2"}), date(2026, 2, 1)),
    ]
    report = judge(faulty, criteria=config.Criteria("my.toml", {}, found))
    assert [v.suppressed.owner for v in report.verdicts if v.suppressed is not None] == ["hpc"]


def test_a_lost_node_is_never_passed_over(good_facts: Facts) -> None:
    lost = run(good_facts, nodes=[NodeRecord("node1", [0], True, True), NodeRecord("node2", [1], False, False)])
    everything = config.Criteria(
        "x", {}, tuple(config.Suppress(i, None, "o", "r", date.max) for i in ("run.nodes", ITEM, "memory.swap"))
    )
    report = judge(lost, criteria=everything)
    assert report.gate.exit_code == 3
    assert "run.nodes" not in {check for check, _, _ in marked(report)}


@pytest.mark.parametrize(
    ("text", "line", "says"),
    [
        (f"memory.zone = {{ {ENTRY} }}", 2, "no such item"),
        (f"run.nodes = {{ {ENTRY} }}", 2, "no such item"),
        ("memory.swap = {}", 2, "lacks owner"),
        ("memory.swap = 3", 2, "expected a table"),
        ("memory.swap = []", 2, "expected a table"),
        ("memory.swap = [ 3 ]", 2, "expected a table"),
        ("memory = {}", 2, "no such item"),
        ('memory.swap = { reason = "r", until = 2026-01-31 }', 2, "lacks owner"),
        ('memory.swap = { owner = "o", until = 2026-01-31 }', 2, "lacks reason"),
        ('memory.swap = { owner = "o", reason = "r" }', 2, "lacks until"),
        ('\nmemory.swap = { owner = " ", reason = "r", until = 2026-01-31 }', 3, "expected some words"),
        ('memory.swap = { owner = "o", reason = 3, until = 2026-01-31 }', 2, "expected some words"),
        ('memory.swap = { owner = "o", reason = "r", until = "soon" }', 2, "expected a day"),
        ('memory.swap = { owner = "o", reason = "r", until = 2026 }', 2, "expected a day"),
        ('memory.swap = { owner = "o", reason = "r", until = 2026-01-31T10:00:00 }', 2, "expected a day"),
        (f"memory.swap = {{ {ENTRY}, because = 3 }}", 2, "no such field"),
        (f'memory.swap = {{ {ENTRY}, nodes = "node[1-" }}', 2, "no node set"),
        (f'memory.swap = {{ {ENTRY}, nodes = "" }}', 2, "expected a node set"),
        (f"memory.swap = {{ {ENTRY}, nodes = 3 }}", 2, "expected a node set"),
    ],
)
def test_what_is_wrong_is_named_with_its_line(text: str, line: int, says: str) -> None:
    with pytest.raises(UsageError) as refused:
        criteria(text)
    message = refused.value.message
    assert message.en.startswith(f"my.toml:{line}: suppress.")
    assert says in message.en
    assert message.zh


def test_a_file_may_hold_suppressions_alone() -> None:
    text = f"[suppress]\nmemory.swap = {{ {ENTRY} }}\n"
    assert config.has_criteria(text, "c.toml")
    assert config.parse_criteria(text, "c.toml").items == {}
    assert not config.has_criteria("[options]\n", "c.toml")


@pytest.mark.parametrize("lang", LANGS)
@pytest.mark.parametrize("format", [name for name in render.FORMATS if name != "pairs"])  # that holds figures alone
def test_every_format_shows_who_why_and_until_when(format: str, lang: Lang, faulty: Run) -> None:
    report = judge(faulty, criteria=criteria(f"{ITEM} = {{ {ENTRY} }}"))
    made = render.render(report, format, lang)
    for words in ("ops", "ticket 17", "2026-01-31", "WARN"):
        assert words in made, words
