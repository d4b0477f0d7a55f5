"""The judge of a whole run: probes, ranks, nodes, the gate and its exit code."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

import msgspec
import pytest

from cwai_bench import config
from cwai_bench.checks import CHECKS, DoesNotApply, FactView, NodeCheck, Outcome
from cwai_bench.errors import UsageError
from cwai_bench.judge import check_facts, judge
from cwai_bench.model import (
    Action,
    CheckInfo,
    Facts,
    ItemKind,
    Measurement,
    NodeRecord,
    Plan,
    ProbeSpec,
    RankEvent,
    RankState,
    Reading,
    Report,
    Run,
    Severity,
    Status,
    Subject,
    Verdict,
)
from cwai_bench.text import Text, plain
from tests.unit.conftest import home_of

if TYPE_CHECKING:
    from tests.unit.conftest import Planted

LINK = Subject("link", "node1→node2")


def info(id: str) -> CheckInfo:
    return CheckInfo(
        id,
        ItemKind.PROBE,
        "host",
        Text(id, f"{id} 探测"),
        plain("m"),
        plain("c"),
        plain("s"),
        Severity.MAJOR,
        Action.ISOLATE,
        [],
        required=True,
    )


def spec(probe: str, number: int = 1) -> ProbeSpec:
    return ProbeSpec(f"{probe}#{number}", probe, info(probe), {}, 1.0, 10.0)


BANDWIDTH, LATENCY, SWEEP = spec("tcp.bandwidth"), spec("tcp.latency"), spec("mpi.all_reduce")


def measurement(of: ProbeSpec, **changes: Any) -> Measurement:
    unit = "B/s" if of is BANDWIDTH else "s"
    samples = [1.2e9, 1.25e9, 1.3e9] if of is BANDWIDTH else [10e-6, 11e-6, 30e-6]
    base = Measurement(
        metric=of.probe,
        unit=unit,
        subject=LINK,
        samples=samples,
        parameters={"bytes": 1 << 20},
        started=1.0,
        duration=1.0,
        node="node1",
        rank=0,
        spec=of.id,
        correct=True,
    )
    return msgspec.structs.replace(base, **changes)


def event(rank: int, state: RankState, **changes: Any) -> RankEvent:
    return msgspec.structs.replace(RankEvent(rank, f"node{rank + 1}", 5.0, state), **changes)


FINISHED = [event(0, "finished"), event(1, "finished")]


def run(**changes: Any) -> Run:
    base = Run(
        run_id="20260101T000000Z-run-abcdef",
        run_type="run",
        command=["cwai-bench", "run"],
        version="0.1.0",
        started=0.0,
        finished=10.0,
        utc_offset=0,
        status="complete",
        world_size=2,
        plan=Plan([], [BANDWIDTH], [], 1.0),
        environment={"mpi": "Open MPI 5"},
        settings={},
        nodes=[NodeRecord("node1", [0], True, True), NodeRecord("node2", [1], True, True)],
        facts=[],
        measurements=[measurement(BANDWIDTH)],
        events=list(FINISHED),
    )
    return msgspec.structs.replace(base, **changes)


def verdict_of(report: Report, check: str) -> Verdict:
    (verdict,) = [v for v in report.verdicts if v.check == check]
    return verdict


def criteria(text: str) -> config.Criteria:
    return config.parse_criteria(f"[criteria]\n{text}\n", "my.toml")


# -------------------------------------------------------------------------------------------------------------- probes


def test_a_good_run_passes() -> None:
    report = judge(run())
    assert (report.gate.status, report.gate.exit_code, report.gate.leave_out) == (Status.PASS, 0, [])
    verdict = verdict_of(report, "tcp.bandwidth")
    assert verdict.status is Status.PASS
    assert verdict.observed == "10.00 Gb/s (1 MiB)"
    assert verdict.subject == LINK
    assert verdict_of(report, "run.ranks").observed == "2/2"
    assert verdict_of(report, "run.nodes").observed == "2/2"
    assert report.counts == {"PASS": 3, "WARN": 0, "FAIL": 0, "UNKNOWN": 0, "SKIP": 0, "NA": 0}
    assert {c.id for c in report.checks} == {v.check for v in report.verdicts}
    assert report.measurements[0].stats is not None
    assert report.measurements[0].stats.p50 == 1.25e9


def test_the_best_median_is_shown() -> None:
    ms = [
        measurement(BANDWIDTH, samples=[x], parameters={"bytes": b})
        for b, x in ((64, 1e6), (1 << 20, 5e9), (4096, 1e9))
    ]
    assert verdict_of(judge(run(measurements=ms)), "tcp.bandwidth").observed == "40.00 Gb/s (1 MiB)"
    ms = [measurement(LATENCY, samples=[x] * 3, parameters={"bytes": b}) for b, x in ((64, 8e-6), (1 << 20, 90e-6))]
    found = judge(run(plan=Plan([], [LATENCY], [], 1.0), measurements=ms))
    assert verdict_of(found, "tcp.latency").observed == "p50 8.000 us, p99 8.000 us (64 B)"


def test_how_it_was_measured_is_told() -> None:
    four = measurement(BANDWIDTH, parameters={"bytes": 1 << 20, "streams": 4, "direction": "two-way"})
    assert verdict_of(judge(run(measurements=[four])), "tcp.bandwidth").observed == "10.00 Gb/s (1 MiB, ×4, ⇄)"
    one = measurement(BANDWIDTH, parameters={"bytes": 1 << 20, "streams": 1, "direction": "one-way"})
    assert verdict_of(judge(run(measurements=[one])), "tcp.bandwidth").observed == "10.00 Gb/s (1 MiB)"


def test_wrong_data_fails_and_names_rank_node_and_place() -> None:
    wrong = measurement(SWEEP, subject=Subject("group", "world"), correct=False, rank=1, node="node2")
    wrong = msgspec.structs.replace(wrong, parameters={"bytes": 4096, "first_bad_index": 17})
    right = measurement(SWEEP, subject=Subject("group", "world"))
    report = judge(run(plan=Plan([], [SWEEP], [], 1.0), measurements=[right, wrong]))
    verdict = verdict_of(report, "mpi.all_reduce")
    assert (verdict.status, verdict.reason_code, verdict.action) == (Status.FAIL, "wrong_data", Action.ISOLATE)
    assert verdict.detail is not None
    for text in (verdict.detail.en, verdict.detail.zh):
        assert "rank 1" in text
        assert "node2" in text
        assert "first_bad_index 17" in text
    assert (report.gate.exit_code, report.gate.leave_out) == (1, ["node2"])


@pytest.mark.parametrize(("status", "code"), [("error", "error"), ("timeout", "timeout"), ("aborted", "aborted")])
def test_a_broken_measurement_is_unknown(status: str, code: str) -> None:
    broken = measurement(BANDWIDTH, status=status, samples=[], reason=Text("refused", "被拒绝"))
    report = judge(run(measurements=[measurement(BANDWIDTH), broken]))
    verdict = verdict_of(report, "tcp.bandwidth")
    assert (verdict.status, verdict.reason_code) == (Status.UNKNOWN, code)
    assert verdict.detail == Text("refused", "被拒绝")
    assert report.gate.exit_code == 3


def test_a_skip_is_a_skip_with_its_reason() -> None:
    skip = measurement(LATENCY, status="skip", samples=[], correct=None, reason_code="busy", reason=plain("taken"))
    both = Plan([], [BANDWIDTH, LATENCY], [], 1.0)
    report = judge(run(plan=both, measurements=[measurement(BANDWIDTH), skip]))
    verdict = verdict_of(report, "tcp.latency")
    assert (verdict.status, verdict.reason_code, verdict.detail) == (Status.SKIP, "busy", plain("taken"))
    assert report.gate.exit_code == 0


def test_no_samples_are_no_measurement() -> None:
    report = judge(run(measurements=[measurement(BANDWIDTH, samples=[])]))
    assert verdict_of(report, "tcp.bandwidth").status is Status.UNKNOWN
    assert report.gate.exit_code == 3


def test_planned_and_not_measured_is_unknown() -> None:
    report = judge(run(measurements=[]))
    verdict = verdict_of(report, "tcp.bandwidth")
    assert (verdict.status, verdict.reason_code) == (Status.UNKNOWN, "error")
    assert report.gate.exit_code == 3
    died = judge(run(measurements=[], events=[event(1, "died", signal=9)]))
    assert verdict_of(died, "tcp.bandwidth").reason_code == "rank_lost"
    stopped = judge(run(measurements=[], settings={"interrupted": 15}))
    assert verdict_of(stopped, "tcp.bandwidth").reason_code == "aborted"


def test_each_subject_has_its_verdict() -> None:
    other = Subject("link", "node2→node1")
    ms = [measurement(BANDWIDTH), measurement(BANDWIDTH, subject=other, correct=False, node="node2")]
    found = {v.subject: v.status for v in judge(run(measurements=ms)).verdicts if v.check == "tcp.bandwidth"}
    assert found == {LINK: Status.PASS, other: Status.FAIL}


# --------------------------------------------------------------------------------------------------------- collectives


def of_rank(rank: int, size: int, seconds: float, **changes: Any) -> Measurement:
    """As the sweep emits it: every rank tells of itself, at every size."""
    parameters = {"operation": "all_reduce", "bytes": size, "ranks": 2, "bus_factor": 1.0}
    base = measurement(
        SWEEP,
        subject=Subject("rank", f"node{rank + 1}/rank{rank}"),
        node=f"node{rank + 1}",
        rank=rank,
        samples=[seconds] * 3,
        parameters=parameters,
    )
    return msgspec.structs.replace(base, **changes)


def sweep_run(*ms: Measurement, **changes: Any) -> Run:
    return run(plan=Plan([], [SWEEP], [], 1.0), measurements=list(ms), **changes)


SWEPT = [of_rank(0, 8, 1e-6), of_rank(1, 8, 2e-6), of_rank(0, 1 << 20, 1e-4), of_rank(1, 1 << 20, 2e-4)]


def test_a_collective_is_one_item_and_the_slowest_rank_counts() -> None:
    verdict = verdict_of(judge(sweep_run(*SWEPT)), "mpi.all_reduce")
    assert (verdict.status, verdict.subject) == (Status.PASS, Subject("group", "all"))
    assert verdict.observed == "p50 2.000 us, p99 2.000 us (8 B); 5.243 GB/s busbw (1 MiB)"


def test_a_rank_that_reports_less_than_the_others_is_missed() -> None:
    verdict = verdict_of(judge(sweep_run(*SWEPT[:3])), "mpi.all_reduce")
    assert (verdict.status, verdict.reason_code) == (Status.UNKNOWN, "rank_lost")
    assert verdict.detail == Text("no result of rank 1", "缺少 rank 1 的结果")


def test_one_wrong_rank_fails_the_collective_and_is_named() -> None:
    place = {"operation": "all_reduce", "bytes": 8, "ranks": 2, "bus_factor": 1.0}
    wrong = of_rank(1, 8, 2e-6, correct=False, parameters=place | {"bad_count": 3, "first_bad_index": 17})
    report = judge(sweep_run(SWEPT[0], wrong))
    verdict = verdict_of(report, "mpi.all_reduce")
    assert (verdict.status, verdict.nodes) == (Status.FAIL, ["node2"])
    assert verdict.detail is not None
    assert "rank 1 on node2" in verdict.detail.en
    assert "first_bad_index 17" in verdict.detail.en
    assert report.gate.leave_out == ["node2"]


def test_a_busy_machine_is_no_excuse_for_wrong_data() -> None:
    noise = Text("noisy: waited for a CPU 97 % of the time", "有干扰")
    wrong = of_rank(1, 8, 2e-6, correct=False, reason_code="busy", reason=noise)
    verdict = verdict_of(judge(sweep_run(SWEPT[0], wrong)), "mpi.all_reduce")
    assert verdict.detail is not None
    assert "rank 1 on node2: the data that arrived was wrong" in verdict.detail.en


@pytest.mark.parametrize(
    ("demand", "status"),
    [
        ("max = '3 us', where.bytes = 8", Status.PASS),
        ("max = '1.5 us', where.bytes = 8", Status.FAIL),
        ("min = '5 GB/s', where.bytes = '1 MiB'", Status.PASS),
        ("min = '6 GB/s', where.bytes = '1 MiB'", Status.FAIL),
        ("min = '1 GiB'", Status.UNKNOWN),
    ],
)
def test_a_collective_is_judged_by_time_or_bus_bandwidth(demand: str, status: Status) -> None:
    report = judge(sweep_run(*SWEPT), criteria=criteria(f"mpi.all_reduce = {{ {demand} }}"))
    assert verdict_of(report, "mpi.all_reduce").status is status


def test_a_criterion_leaves_alone_what_it_is_not_about() -> None:
    large = msgspec.structs.replace(SWEEP, id="mpi.all_reduce#9")
    elsewhere = [msgspec.structs.replace(m, spec=large.id) for m in SWEPT[2:]]
    both = run(plan=Plan([], [SWEEP, large], [], 1.0), measurements=[*SWEPT[:2], *elsewhere])
    found = judge(both, criteria=criteria("mpi.all_reduce = { min = '6 GB/s', where.bytes = '1 MiB' }"))
    assert [v.status for v in found.verdicts if v.check == "mpi.all_reduce"] == [Status.PASS, Status.FAIL]
    nobody = judge(both, criteria=criteria("mpi.all_reduce = { min = '6 GB/s', where.bytes = '2 MiB' }"))
    assert [v.status for v in nobody.verdicts if v.check == "mpi.all_reduce"] == [Status.UNKNOWN] * 2


def begun(rank: int, of: ProbeSpec) -> RankEvent:
    return event(rank, "item_begin", item=of.id)


def test_a_sweep_that_was_cut_short_is_unknown_and_keeps_its_figures() -> None:
    events = [begun(0, SWEEP), begun(1, SWEEP), event(1, "died", signal=9, item=SWEEP.id), event(0, "signalled")]
    report = judge(sweep_run(*SWEPT, events=events, status="partial"))
    verdict = verdict_of(report, "mpi.all_reduce")
    assert (verdict.status, verdict.reason_code) == (Status.UNKNOWN, "rank_lost")
    assert "5.243 GB/s" in verdict.observed
    assert verdict.detail is not None
    assert "rank 1 on node2" in verdict.detail.en
    assert report.gate.exit_code == 1
    ended = [*events[:2], event(0, "item_end", item=SWEEP.id), event(1, "item_end", item=SWEEP.id), *FINISHED]
    assert verdict_of(judge(sweep_run(*SWEPT, events=ended)), "mpi.all_reduce").status is Status.PASS


def test_links_measured_before_the_end_stay_as_they_were() -> None:
    events = [begun(0, BANDWIDTH), begun(1, BANDWIDTH), event(1, "died", signal=9, item=BANDWIDTH.id)]
    found = [v for v in judge(run(events=events)).verdicts if v.check == "tcp.bandwidth"]
    assert [(v.subject.id, v.status, v.reason_code) for v in found] == [
        (LINK.id, Status.PASS, ""),
        (BANDWIDTH.id, Status.UNKNOWN, "rank_lost"),
    ]


# ----------------------------------------------------------------------------------------------------- probe criteria


@pytest.mark.parametrize(
    ("demand", "status"),
    [
        ("min = '9 Gb/s'", Status.PASS),
        ("min = '1.2 GB/s'", Status.PASS),
        ("min = '11 Gb/s'", Status.FAIL),
        ("min = '11 Gb/s', where.bytes = '64 KiB'", Status.UNKNOWN),
        ("min = '11 Gb/s', where.bytes = '1 MiB'", Status.FAIL),
        ("min = '9 Gb/s', where.bytes = 1048576", Status.PASS),
        ("max = '2 us'", Status.UNKNOWN),
    ],
)
def test_a_criterion_judges_the_median(demand: str, status: Status) -> None:
    report = judge(run(), criteria=criteria(f"tcp.bandwidth = {{ {demand} }}"))
    verdict = verdict_of(report, "tcp.bandwidth")
    assert verdict.status is status, verdict
    assert verdict.expected is not None
    assert report.gate.exit_code == {Status.PASS: 0, Status.FAIL: 1, Status.UNKNOWN: 3}[status]


def test_a_slow_link_names_no_node_to_leave_out() -> None:
    """Which of its two ends is to blame is not known from one link."""
    report = judge(run(), criteria=criteria("tcp.bandwidth.min = '11 Gb/s'"))
    assert report.gate.leave_out == []
    assert "node1→node2" in report.gate.because[0].en or "node1" in report.gate.because[0].en


def test_criteria_that_nothing_was_held_against_are_noted() -> None:
    report = judge(run(), criteria=criteria("verbs.write.min = '300 Gb/s'\ntcp.bandwidth.min = '1 Gb/s'"))
    assert any("verbs.write" in n.en and "tcp.bandwidth" not in n.en for n in report.notes)


def test_an_item_with_a_rule_of_its_own_takes_no_criterion() -> None:
    with pytest.raises(UsageError, match=r"memory\.swap has a rule of its own"):
        judge(run(), criteria=criteria("memory.swap.max = '1 GiB'"))


# ------------------------------------------------------------------------------------------------------ ranks and nodes


@pytest.mark.parametrize("state", ["died", "stalled", "lost"])
def test_a_lost_rank_fails_by_name_and_place(state: RankState) -> None:
    bad = event(1, state, signal=9, item="mpi.all_reduce#1", progress={"bytes": 1 << 20, "iteration": 12})
    report = judge(run(events=[*FINISHED[:1], bad]))
    verdict = verdict_of(report, "run.ranks")
    assert (verdict.status, verdict.reason_code, verdict.nodes) == (Status.FAIL, "rank_lost", ["node2"])
    assert verdict.subject == Subject("rank", "node2/rank1")
    assert verdict.observed == f"{state} SIGKILL mpi.all_reduce#1 bytes=1048576 iteration=12"
    assert (report.gate.exit_code, report.gate.leave_out) == (1, ["node2"])
    assert "node2" in report.gate.because[0].en


def test_victims_of_a_dead_rank_are_not_accused() -> None:
    events = [event(1, "died", signal=9), event(0, "signalled", signal=15), event(0, "failed"), event(0, "overdue")]
    found = [v for v in judge(run(events=events)).verdicts if v.check == "run.ranks"]
    assert [(v.nodes, v.status) for v in found] == [(["node2"], Status.FAIL)]


@pytest.mark.parametrize(("state", "code"), [("failed", "error"), ("overdue", "timeout")])
def test_our_own_failure_is_no_verdict_on_the_node(state: RankState, code: str) -> None:
    report = judge(run(events=[FINISHED[0], event(1, state, detail=Text("boom", "出错"))]))
    verdict = verdict_of(report, "run.ranks")
    assert (verdict.status, verdict.reason_code) == (Status.UNKNOWN, code)
    assert verdict.detail is not None
    assert "boom" in verdict.detail.en
    assert (report.gate.exit_code, report.gate.leave_out) == (3, [])


def test_a_rank_without_an_end_is_unknown() -> None:
    verdict = verdict_of(judge(run(events=FINISHED[:1])), "run.ranks")
    assert (verdict.status, verdict.observed) == (Status.UNKNOWN, "1/2")
    assert verdict.detail is not None
    assert "rank 1" in verdict.detail.en


def test_a_node_without_journal_is_unknown_and_named() -> None:
    nodes = [NodeRecord("node1", [0], True, True), NodeRecord("node2", [], False, False)]
    report = judge(run(nodes=nodes, status="partial"))
    verdict = verdict_of(report, "run.nodes")
    assert (verdict.status, verdict.reason_code, verdict.nodes) == (Status.UNKNOWN, "node_lost", ["node2"])
    assert report.gate.exit_code == 3
    assert any("node2" in b.en and "node2" in b.zh for b in report.gate.because)


def test_a_journal_cut_short_is_unknown() -> None:
    nodes = [NodeRecord("node1", [0], True, True), NodeRecord("node2", [1], True, False, Text("cut", "截断"))]
    verdict = verdict_of(judge(run(nodes=nodes)), "run.nodes")
    assert (verdict.status, verdict.reason_code, verdict.detail) == (Status.UNKNOWN, "aborted", Text("cut", "截断"))


# ------------------------------------------------------------------------------------------------------------ the gate


def check_run(facts: list[Facts], ids: list[str], **changes: Any) -> Run:
    names = changes.pop("names", [f.node for f in facts])
    return run(
        plan=Plan(ids, [], [], 1.0),
        measurements=[],
        events=[],
        world_size=1,
        facts=facts,
        nodes=[NodeRecord(n, [0], True, True) for n in names],
        **changes,
    )


def test_nothing_judged_is_never_a_pass(good_facts: Facts) -> None:
    for nothing in (
        run(plan=Plan([], [], [], 0.0), measurements=[], events=[]),
        check_run([good_facts], ["memory.total"]),  # configurable, without a criterion
        check_run([good_facts], ["same.kernel"]),  # consistency, without a baseline
    ):
        for allow in (False, True):
            gate = judge(nothing, allow_unknown=allow).gate
            assert (gate.status, gate.exit_code) == (Status.UNKNOWN, 3)
            assert gate.because[0].en == "nothing was measured or judged"


def test_the_good_node_passes_the_gate(good_facts: Facts) -> None:
    report = judge(check_run([good_facts], list(CHECKS)))
    assert (report.gate.status, report.gate.exit_code) == (Status.PASS, 0), report.gate
    at_home = [c for c in CHECKS.values() if isinstance(c, NodeCheck) and home_of(c.info.id) == "good"]
    assert report.gate.because[0].en == f"items passed: {len(at_home) + 1}"  # and that every node reported
    assert sum(report.counts.values()) == len(report.verdicts) == len(CHECKS) + 1
    assert report.environment["kernel"] == "5.15.0-130-generic"
    assert report.environment["memory"] == "1007.8 GiB"
    assert report.environment["mpi"] == "Open MPI 5"


def test_a_warning_does_not_fail(planted: Planted) -> None:
    facts = planted.write("proc/sys/vm/zone_reclaim_mode", "1\n").facts()
    gate = judge(check_run([facts], ["memory.zone_reclaim", "memory.swap"])).gate
    assert (gate.status, gate.exit_code, gate.leave_out) == (Status.WARN, 0, [])
    assert [b.en for b in gate.because] == ["items passed: 2", "Zone reclaim is off: warning on node1 (1)"]


def test_a_failure_fails_and_the_worst_comes_first(planted: Planted) -> None:
    facts = (
        planted.meminfo("HardwareCorrupted", 4)
        .rows("filesystems", "filesystems", {"mount": "/"}, free=0, available=0)
        .facts()
    )
    gate = judge(check_run([facts], ["storage.space", "memory.corrupted", "memory.swap"])).gate
    assert (gate.status, gate.exit_code, gate.leave_out) == (Status.FAIL, 1, ["node1"])
    assert [b.en.split(":")[0] for b in gate.because] == ["No memory was taken out of use", "Disk space"]
    assert all("node1" in b.zh for b in gate.because)


def test_unknown_is_exit_code_three_unless_allowed(planted: Planted) -> None:
    from cwai_bench.sources import Call

    facts = planted.refuse(Call("kernel_log")).facts()
    strict = judge(check_run([facts], ["kernel.oom", "memory.swap"]))
    assert (strict.gate.status, strict.gate.exit_code) == (Status.UNKNOWN, 3)
    assert any("kernel.oom" in n.en and "root" in n.en for n in strict.notes)
    lax = judge(check_run([facts], ["kernel.oom", "memory.swap"]), allow_unknown=True)
    assert (lax.gate.status, lax.gate.exit_code) == (Status.WARN, 0)


def test_a_failure_outweighs_an_unknown(planted: Planted) -> None:
    from cwai_bench.sources import Call

    facts = planted.refuse(Call("kernel_log")).meminfo("HardwareCorrupted", 4).facts()
    assert judge(check_run([facts], ["kernel.oom", "memory.corrupted"])).gate.exit_code == 1


@pytest.mark.parametrize(("number", "code"), [(2, 130), (15, 143)])
def test_a_signal_is_the_exit_code(number: int, code: int) -> None:
    gate = judge(run(settings={"interrupted": number}, status="terminated")).gate
    assert gate.exit_code == code
    assert gate.status is Status.UNKNOWN
    assert "SIG" in gate.because[0].en


def test_baseline_makes_consistency_count(planted: Planted, good_facts: Facts) -> None:
    other = planted.rename("node2").call("host", release="6.8.0").facts()
    two = check_run([good_facts, other], ["same.kernel", "memory.swap"])
    assert judge(two).gate.exit_code == 0
    report = judge(two, baseline="node1")
    assert (report.baseline, report.gate.exit_code, report.gate.leave_out) == ("node1", 1, ["node2"])


def test_a_criterion_makes_a_configurable_item_count(good_facts: Facts) -> None:
    report = judge(check_run([good_facts], ["memory.total"]), criteria=criteria("memory.total.min = '2 TiB'"))
    assert (report.gate.exit_code, report.gate.leave_out) == (1, ["node1"])


def test_a_lost_node_is_unknown_in_every_item(good_facts: Facts) -> None:
    report = judge(check_run([good_facts], ["memory.swap", "cpu.online"], names=["node1", "node9"]))
    lost = {(v.check, v.status, v.reason_code) for v in report.verdicts if "node9" in v.nodes}
    assert lost == {(c, Status.UNKNOWN, "node_lost") for c in ("memory.swap", "cpu.online")}
    assert report.gate.exit_code == 3


def test_an_item_of_another_version_is_unknown(good_facts: Facts) -> None:
    report = judge(check_run([good_facts], ["memory.swap", "nvidia.of_tomorrow"]))
    verdict = verdict_of(report, "nvidia.of_tomorrow")
    assert (verdict.status, verdict.reason_code) == (Status.UNKNOWN, "unsupported")
    assert "nvidia.of_tomorrow" in {c.id for c in report.checks}
    assert report.gate.exit_code == 3


def test_nodes_fold_in_the_reasons(planted: Planted) -> None:
    bad = planted.meminfo("HardwareCorrupted", 4).facts()
    many = [msgspec.structs.replace(bad, node=f"node{i:02}") for i in (3, 4, 5, 17)]
    gate = judge(check_run(many, ["memory.corrupted"])).gate
    assert gate.because[0].en == "No memory was taken out of use: failed on node[03-05,17]"
    assert gate.leave_out == ["node03", "node04", "node05", "node17"]


def test_what_differs_is_no_shared_environment(planted: Planted, good_facts: Facts) -> None:
    other = planted.rename("node2").call("host", release="6.8.0").facts()
    report = judge(check_run([good_facts, other], ["memory.swap"]))
    assert "kernel" not in report.environment
    assert report.environment["os"] == "Ubuntu 22.04.5 LTS"
    assert any("kernel" in n.en for n in report.notes)


def test_a_bug_in_a_check_is_unknown_and_ends_nothing(good_facts: Facts, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(facts: FactView) -> Outcome:
        raise ZeroDivisionError("oh no")

    check = CHECKS["memory.swap"]
    assert isinstance(check, NodeCheck)
    monkeypatch.setitem(CHECKS._entries, "memory.swap", NodeCheck(check.info, check.reads, broken))
    swap, _ = check_facts([good_facts], ["memory.swap", "memory.corrupted"])
    assert (swap.status, swap.reason_code) == (Status.UNKNOWN, "error")
    assert swap.detail is not None
    assert "ZeroDivisionError: oh no" in swap.detail.en


def test_absent_says_why(good_facts: Facts, monkeypatch: pytest.MonkeyPatch) -> None:
    def absent(facts: FactView) -> Outcome:
        raise DoesNotApply(Text("not here", "此处没有"))

    check = CHECKS["memory.swap"]
    assert isinstance(check, NodeCheck)
    monkeypatch.setitem(CHECKS._entries, "memory.swap", NodeCheck(check.info, check.reads, absent))
    (verdict,) = check_facts([good_facts], ["memory.swap"])
    assert (verdict.status, verdict.reason_code, verdict.detail) == (
        Status.SKIP,
        "absent",
        Text("not here", "此处没有"),
    )


def test_a_saved_run_is_judged_again_alike(good_facts: Facts) -> None:
    fresh = check_run([good_facts], list(CHECKS))
    saved = msgspec.json.decode(msgspec.json.encode(fresh), type=Run)
    assert judge(saved) == judge(fresh)


def test_a_report_survives_json(good_facts: Facts) -> None:
    report = judge(run(facts=[good_facts], plan=Plan(list(CHECKS), [BANDWIDTH], [], 1.0)))
    assert msgspec.json.decode(msgspec.json.encode(report), type=Report) == report


def test_when_a_node_is_lost_a_death_elsewhere_blames_nobody() -> None:
    """A launcher that loses a node kills the ranks of the others without a word."""
    nodes = [NodeRecord("node1", [0], True, True), NodeRecord("node2", [], False, False)]
    died = RankEvent(0, "node1", 5.0, "died", "mpi.all_reduce#0")
    report = judge(run(nodes=nodes, events=[died], measurements=[]))
    ranks = [v for v in report.verdicts if v.check == "run.ranks"]
    assert [(v.nodes, v.status) for v in ranks] == [(["node1"], Status.UNKNOWN)]
    assert report.gate.exit_code == 3
    assert report.gate.leave_out == ["node2"]


def test_a_missing_tool_that_fit_nodes_lack_spoils_no_verdict(good_facts: Facts) -> None:
    tool, needed = "rdma.bit_errors", "rdma.driver"
    assert not CHECKS[tool].info.required
    here = good_facts.readings
    gone = {
        key: Reading(key, "missing") for key in here if key.startswith(("$ mlxlink", "$ modinfo")) and "{}" not in key
    }
    facts = msgspec.structs.replace(good_facts, readings=here | gone)
    report = judge(check_run([facts], [tool, "memory.swap"]))
    assert verdict_of(report, tool).reason_code == "missing_tool"
    assert (report.gate.status, report.gate.exit_code) == (Status.PASS, 0)
    required = judge(check_run([facts], [needed, "memory.swap"]))
    assert (verdict_of(required, needed).reason_code, required.gate.exit_code) == ("missing_tool", 3)


def test_the_gate_names_a_cause_once_however_much_follows_from_it(planted: Planted) -> None:
    down = {"driver": "", "cuda": "", "cards": [], "error": "Driver Not Loaded", "code": 9}
    report = judge(check_run([planted.call("nvml", **down).facts()], list(CHECKS)))
    assert report.gate.exit_code == 1
    said = [b.en for b in report.gate.because]
    assert said[0] == "The NVIDIA driver answers: failed on node1 (Driver Not Loaded)"
    assert len(said) == 2, said
    assert re.fullmatch(r"\d\d items not known of node1: the driver does not answer: see item nvidia.driver", said[1])
