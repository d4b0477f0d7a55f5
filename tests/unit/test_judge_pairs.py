"""Verdicts on the parts that a matrix of pairs names, in place of those on each of their pairs."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from itertools import permutations
from pathlib import Path
from typing import Any

import msgspec
import pytest

from cwai_bench import config, journal
from cwai_bench.judge import judge
from cwai_bench.model import (
    Measurement,
    NodeEnd,
    NodeRecord,
    PairResult,
    PairResults,
    Plan,
    Report,
    Scalar,
    Status,
    Subject,
    Verdict,
)
from cwai_bench.render import report_from_json, report_to_json
from cwai_bench.text import Text
from tests.unit.test_goodput import GBIT, roce
from tests.unit.test_journal import header, written
from tests.unit.test_judge_run import BANDWIDTH, FINISHED, LATENCY, event, run, spec

VERBS = spec("verbs.bandwidth")
Pair = tuple[int, int]
Rate = Callable[[int, int], float | None]


def tcp(pair: Pair, gbit: float | None, **more: Scalar) -> Measurement:
    """``gbit`` from one node to the other; None: it failed."""
    return Measurement(
        metric="tcp.bandwidth",
        unit="B/s",
        subject=Subject("link", f"node{pair[0] + 1}→node{pair[1] + 1}"),
        samples=[] if gbit is None else [gbit * GBIT] * 3,
        parameters={"transport": "tcp", "bytes": 1 << 20, "streams": 1, "direction": "one-way", **more},
        started=1.0,
        duration=1.0,
        node=f"node{pair[1] + 1}",
        rank=pair[1],
        spec=BANDWIDTH.id,
        status="ok" if gbit is not None else "timeout",
        reason_code="" if gbit is not None else "timeout",
    )


def all_pairs(nodes: int, rate: Rate, pairs: Iterable[Pair] | None = None, **more: Scalar) -> list[Measurement]:
    return [tcp(pair, rate(*pair), **more) for pair in pairs or permutations(range(nodes), 2)]


def judged(ms: list[Measurement], nodes: int = 6, **changes: Any) -> Report:
    records = [NodeRecord(f"node{i + 1}", [i], True, True) for i in range(nodes)]
    criteria = changes.pop("criteria", None)
    return judge(run(measurements=ms, nodes=records, **changes), criteria=criteria)


def bad(report: Report) -> list[Verdict]:
    return [v for v in report.verdicts if v.status not in (Status.PASS, Status.SKIP)]


def only(report: Report) -> Verdict:
    (verdict,) = bad(report)
    return verdict


def slow_with(node: int, other: float = 100.0, slow: float = 50.0) -> Rate:
    return lambda a, b: slow if node in (a, b) else other


SECOND = [(2, 0), (0, 2), (2, 4), (4, 2)]


def test_a_node_that_is_slow_twice_is_named_and_left_out() -> None:
    ms = all_pairs(6, slow_with(2)) + all_pairs(6, slow_with(2), SECOND, again=1)
    report = judged(ms)
    verdict = only(report)
    assert (verdict.subject, verdict.nodes, verdict.status) == (Subject("node", "node3"), ["node3"], Status.FAIL)
    assert (verdict.observed, verdict.expected and verdict.expected.en) == (
        "50.00 Gb/s (10/10)",
        "about 100.0 Gb/s, the median of the others",
    )
    assert verdict.detail is not None
    assert "bad in 10 of 10 pairs, with 5 partners; those are fine with others" in verdict.detail.en
    assert "the node and its NIC cannot be told apart" in verdict.detail.en
    assert "tried again: the same" in verdict.detail.en
    assert "5 个对端" in verdict.detail.zh
    (evidence,) = verdict.evidence
    assert "✕ node1 → node3: 50.00 Gb/s, 2: 50.00 Gb/s" in evidence.text
    assert "✓ " in evidence.text
    assert (report.gate.exit_code, report.gate.leave_out) == (1, ["node3"])
    assert [v.subject.id for v in report.verdicts if v.check == "tcp.bandwidth" and v.status is Status.PASS] == [
        f"node{a + 1}→node{b + 1}" for a, b in permutations((0, 1, 3, 4, 5), 2)
    ]


def test_slower_than_its_peers_but_seen_once_is_a_warning() -> None:
    report = judged(all_pairs(6, slow_with(2)))
    verdict = only(report)
    assert (verdict.subject.id, verdict.status) == ("node3", Status.WARN)
    assert verdict.detail is not None
    assert "seen once, not tried again" in verdict.detail.en
    assert (report.gate.exit_code, report.gate.leave_out) == (0, [])


def test_a_node_that_nobody_reaches_fails_at_once() -> None:
    verdict = only(judged(all_pairs(6, lambda a, b: None if 2 in (a, b) else 100.0)))
    assert (verdict.subject.id, verdict.status, verdict.observed) == ("node3", Status.FAIL, "– (10/10)")
    assert verdict.reason_code == "timeout"


def test_why_its_pairs_failed_is_told_of_a_part() -> None:
    down = Text("the RDMA device mlx5_0:1 cannot be used: Network is down", "RDMA 设备 mlx5_0:1 无法使用")
    ms = [
        msgspec.structs.replace(m, reason=down, counters={"node3/mlx5_0": {"link_downed": 1}}) if not m.samples else m
        for m in all_pairs(6, lambda a, b: None if 2 in (a, b) else 100.0)
    ]
    verdict = only(judged(ms))
    assert verdict.detail is not None
    assert "node1→node3: the RDMA device mlx5_0:1 cannot be used: Network is down" in verdict.detail.en
    assert "node1→node3：RDMA 设备 mlx5_0:1 无法使用" in verdict.detail.zh
    assert "node3/mlx5_0: its link went down (10×)" in verdict.detail.en


def test_what_was_bad_once_and_fine_again_is_a_warning_in_place_of_each_pair() -> None:
    ms = all_pairs(6, lambda a, b: None if 2 in (a, b) else 100.0) + all_pairs(6, lambda *_: 100.0, SECOND, again=1)
    verdict = only(judged(ms))
    assert (verdict.subject, verdict.status) == (Subject("node", "node3"), Status.WARN)
    assert verdict.observed == "–, 100.0 Gb/s"
    assert verdict.detail is not None
    assert "fine when tried again" in verdict.detail.en


def test_a_path_is_named_and_no_node_left_out() -> None:
    report = judged(all_pairs(6, lambda a, b: None if (a, b) == (1, 4) else 100.0))
    verdict = only(report)
    assert (verdict.subject, verdict.status) == (Subject("link", "node2→node5"), Status.FAIL)
    assert verdict.detail is not None
    assert "only between these two: both are fine with others; the way back is fine" in verdict.detail.en
    assert (report.gate.exit_code, report.gate.leave_out) == (1, [])


def test_of_two_nodes_a_pair_that_fails_keeps_its_own_verdict() -> None:
    verdict = only(judged([tcp((0, 1), None), tcp((1, 0), 100.0)], nodes=2))
    assert (verdict.subject.id, verdict.status) == ("node1→node2", Status.UNKNOWN)


def test_three_bad_pairs_in_a_row_accuse_nobody() -> None:
    ring = [(i, (i + 1) % 20) for i in range(20)]
    report = judged(all_pairs(20, lambda a, b: None if a in (0, 1, 2) else 100.0, ring), 20)
    verdict = only(report)
    assert (verdict.subject, verdict.nodes, verdict.status) == (Subject("link", "node1→node2"), [], Status.FAIL)
    assert verdict.detail is not None
    assert "do not decide which part is: node[2-3], or what lies between" in verdict.detail.en
    assert report.gate.leave_out == []
    (matrix,) = report.matrices
    assert (matrix.values, len(matrix.pairs), len(matrix.failed)) == ([], 17, 3)  # a ring is kept as a list


def test_data_that_was_wrong_is_told_besides() -> None:
    wrong = tcp((2, 0), 50.0)
    ms = [
        wrong if m.subject == wrong.subject else m
        for m in all_pairs(6, lambda a, b: None if 2 in (a, b) and (a, b) != (2, 0) else 100.0)
    ]
    ms = [msgspec.structs.replace(m, correct=False) if m is wrong else m for m in ms]
    assert {(v.subject.id, v.reason_code) for v in bad(judged(ms))} == {
        ("node3", "timeout"),
        ("node3→node1", "wrong_data"),
    }


def test_a_criterion_that_a_pair_fails_is_not_softened_by_a_warning_on_a_part() -> None:
    own = config.parse_criteria('[criteria]\ntcp.bandwidth.min = "80 Gb/s"\n', "my.toml")
    found = bad(judged(all_pairs(6, slow_with(2)), criteria=own))
    assert [v.status for v in found].count(Status.FAIL) == 10


def test_a_criterion_of_the_person_stands_in_place_of_ours() -> None:
    own = config.parse_criteria('[criteria]\ntcp.bandwidth.min = "40 Gb/s"\n', "my.toml")
    twice = all_pairs(6, slow_with(2)) + all_pairs(6, slow_with(2), SECOND, again=1)
    assert only(judged(twice, criteria=own)).status is Status.WARN


def test_latency_is_judged_by_its_peers_too() -> None:
    def trips(a: int, b: int) -> Measurement:
        took = 9e-6 if 1 in (a, b) else 4e-6
        return Measurement(
            "tcp.latency",
            "s",
            Subject("link", f"node{a + 1}→node{b + 1}"),
            [took] * 5,
            {"transport": "tcp", "bytes": 64},
            1.0,
            1.0,
            f"node{a + 1}",
            a,
            LATENCY.id,
        )

    ms = [trips(a, b) for a in range(6) for b in range(a + 1, 6)]
    verdict = only(judged(ms, plan=Plan([], [LATENCY], [], 1.0)))
    assert (verdict.subject.id, verdict.observed) == ("node2", "9.000 us (5/5)")


# -------------------------------------------------------------------------------------------------- RDMA


def verbs(a: str, b: str, gbit: float, given: dict[str, Scalar]) -> Measurement:
    return Measurement(
        metric="verbs.write.bandwidth",
        unit="B/s",
        subject=Subject("link", f"{a}→{b}"),
        samples=[gbit * GBIT] * 3,
        parameters={"duration": 1.0, **given},
        started=1.0,
        duration=1.0,
        node=b.partition("/")[0],
        rank=0,
        spec=VERBS.id,
        correct=True,
    )


def rails(rate: Callable[[str, str], float], given: Callable[[str, str], dict[str, Scalar]]) -> Report:
    pairs = [(f"node{a}/mlx5_{k}", f"node{b}/mlx5_{k}") for a, b in permutations((1, 2, 3, 4), 2) for k in range(2)]
    return judged([verbs(a, b, rate(a, b), given(a, b)) for a, b in pairs], 4, plan=Plan([], [VERBS], [], 1.0))


def test_a_nic_below_what_its_port_should_reach_fails_at_once() -> None:
    report = rails(lambda a, b: 340.0 if "node3/mlx5_1" in (a, b) else 390.0, lambda *_: roce())
    verdict = only(report)
    assert (verdict.subject, verdict.nodes, verdict.status) == (
        Subject("nic", "node3/mlx5_1"),
        ["node3"],
        Status.FAIL,
    )
    assert verdict.expected is not None
    assert "at least 95 % of 392.1 Gb/s" in verdict.expected.en
    assert verdict.detail is not None
    assert "is 86.7 % of 392.1 Gb/s" in verdict.detail.en
    assert "340.0 Gb/s / 392.1 Gb/s" in verdict.evidence[0].text
    assert report.gate.leave_out == ["node3"]
    (matrix,) = report.matrices
    assert matrix.ends[:2] == ["node1/mlx5_0", "node1/mlx5_1"]
    assert isinstance(matrix.expected, float)
    assert matrix.expected == pytest.approx(392.1 * GBIT, 1e-3)


def test_a_small_mtu_is_named_as_the_cause() -> None:
    """MTU 512 on one NIC: 350.6 Gb/s is all that it allows, and the NIC gets it."""

    def given(a: str, b: str) -> dict[str, Scalar]:
        return roce(mtu=512) if "node3/mlx5_1" in (a, b) else roce()

    verdict = only(rails(lambda a, b: 343.0 if "node3/mlx5_1" in (a, b) else 390.0, given))
    assert verdict.subject == Subject("nic", "node3/mlx5_1")
    assert verdict.detail is not None
    assert "the MTU of 512 is the cause" in verdict.detail.en


def test_one_stream_need_not_fill_what_four_do() -> None:
    pairs = [(f"node{a}/mlx5_0", f"node{b}/mlx5_0") for a, b in permutations((1, 2, 3, 4), 2)]
    ms = [verbs(a, b, gbit, roce(streams=n)) for a, b in pairs for n, gbit in ((1, 300.0), (4, 390.0))]
    report = judged(ms, 4, plan=Plan([], [VERBS], [], 1.0))
    assert bad(report) == []
    assert [(m.parameters["streams"], m.expected is not None) for m in report.matrices] == [(1, False), (4, True)]


def test_where_all_are_below_what_was_expected_one_verdict_says_so() -> None:
    verdict = only(rails(lambda *_: 300.0, lambda *_: roce()))
    assert (verdict.subject, verdict.nodes, verdict.status) == (Subject("group", "all"), [], Status.FAIL)
    assert verdict.detail is not None
    assert "24 of 24 pairs are below what was expected, and like the others" in verdict.detail.en


# ----------------------------------------------------------------------------------- pairs told in short


def short(nodes: int, rate: Rate, again: Iterable[Pair] = (), given: dict[str, Scalar] | None = None) -> Report:
    def told(pair: Pair) -> PairResult:
        gbit = rate(*pair)
        names = (f"node{pair[0] + 1}/mlx5_0", f"node{pair[1] + 1}/mlx5_0")
        if gbit is None:
            return PairResult(*names, None, "error", "timeout")
        return PairResult(*names, gbit * GBIT)

    shared: dict[str, Scalar] = {"bytes": 1 << 20, "streams": 1, "direction": "one-way", **(given or {})}
    first = [told(pair) for pair in permutations(range(nodes), 2)]
    records = [PairResults(VERBS.id, "verbs.write.bandwidth", "B/s", shared, first[k::3], round=k) for k in range(3)]
    if again:
        records.append(
            PairResults(VERBS.id, "verbs.write.bandwidth", "B/s", shared, [told(p) for p in again], 4, again=True)
        )
    return judged([], nodes, plan=Plan([], [VERBS], [], 1.0), pairs=records)


def test_pairs_told_in_short_are_one_verdict_and_one_matrix() -> None:
    report = short(12, lambda a, b: 380.0 + a - b / 100)
    (verdict,) = [v for v in report.verdicts if v.check == VERBS.info.id]
    assert (verdict.subject, verdict.status) == (Subject("group", VERBS.id), Status.PASS)
    assert verdict.observed == "132 × 385.4 Gb/s, 379.9 Gb/s (node1/mlx5_0→node12/mlx5_0)"
    (matrix,) = report.matrices
    assert matrix.ends == [f"node{i + 1}/mlx5_0" for i in range(12)]
    assert matrix.values[0][0] is None
    assert matrix.values[2][1] == pytest.approx(381.99 * GBIT, rel=1e-5)
    assert report_from_json(report_to_json(report)) == report


def test_a_part_of_pairs_told_in_short_is_named_with_the_group_beside_it() -> None:
    report = short(12, lambda a, b: None if 3 in (a, b) else 380.0, [(3, 4), (4, 3), (3, 5), (5, 3)])
    found = {v.subject.id: v.status for v in report.verdicts if v.check == VERBS.info.id}
    assert found == {"node4/mlx5_0": Status.FAIL, VERBS.id: Status.PASS}
    assert report.gate.leave_out == ["node4"]
    (matrix,) = report.matrices
    assert len(matrix.failed) == 22
    assert {gap.reason_code for gap in matrix.failed} == {"timeout"}


def test_pairs_told_in_short_are_held_against_what_their_ports_should_reach() -> None:
    report = short(8, lambda a, b: 360.0 if 3 in (a, b) else 385.0, given=roce())
    (verdict,) = [v for v in report.verdicts if v.check == VERBS.info.id]
    assert (verdict.status, verdict.subject.kind) == (Status.WARN, "group")
    assert verdict.detail is not None
    assert "14 pairs are below 95 % of what was expected" in verdict.detail.en


def test_no_figure_at_all_is_unknown() -> None:
    report = short(2, lambda *_: None)
    assert {v.status for v in report.verdicts if v.check == VERBS.info.id} == {Status.FAIL, Status.UNKNOWN}
    assert judged([], plan=Plan([], [VERBS], [], 1.0), pairs=[]).gate.exit_code == 3


def test_pairs_survive_the_journal(tmp_path: Path) -> None:
    record = PairResults("s#1", "m", "B/s", {"bytes": 8}, [PairResult("a", "b", 1.5), PairResult("b", "a", None)], 3)
    end = NodeEnd("n1", 110.0)
    merged = journal.merge([journal.parse(written(tmp_path / "a.jsonl", header(), record, end), "a")])
    assert merged.pairs == [record]


def test_a_run_that_ended_before_its_pairs_did_says_so() -> None:
    pairs = [PairResults(VERBS.id, "m", "B/s", {}, [PairResult("node1", "node2", 1e9)])]
    began = event(0, "item_begin", item=VERBS.id)
    report = judged([], 2, plan=Plan([], [VERBS], [], 1.0), pairs=pairs, events=[*FINISHED, began])
    assert any(v.status is Status.UNKNOWN and v.check == VERBS.info.id for v in report.verdicts)
