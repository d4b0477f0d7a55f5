"""Verdicts on who came last, from the arrivals that ranks recorded."""

from __future__ import annotations

from collections.abc import Callable

import msgspec
import numpy as np

from cwai_bench.judge.arrivals import arrival_verdicts
from cwai_bench.model import Action, Measurement, NodeRecord, Run, Scalar, Status, Subject, Verdict
from cwai_bench.text import Text
from tests.unit.test_judge_run import SWEEP, run

US, MS = 1e-6, 1e-3
Late = Callable[[int, int], float]


def arrivals(
    late: Late,
    *,
    ranks: int = 4,
    each: int = 2,
    sizes: tuple[int, ...] = (8, 64, 512),
    iterations: int = 200,
    time: float = 30 * US,
    uncertainty: float = 0.0,
    busy: tuple[int, ...] = (),
    **more: Scalar,
) -> list[Measurement]:
    """Ranks, ``each`` to a node, that come ``late(rank, iteration)`` seconds after the first, and an operation that
    takes ``time`` on all of them; both give or take a microsecond."""
    rng = np.random.default_rng(1)
    found = []
    for size in sizes:
        for rank in range(ranks):
            node = f"node{rank // each + 1}"
            given: dict[str, Scalar] = {"operation": "all_reduce", "bytes": size, "ranks": ranks, **more}
            base = Measurement(
                metric="mpi.all_reduce.time",
                unit="s",
                subject=Subject("rank", f"{node}/rank{rank}"),
                samples=[time + US * float(rng.random()) for _ in range(iterations)],
                parameters={**given, "bad_count": 0, "pipelined": float(rng.random())},
                started=1.0,
                duration=1.0,
                node=node,
                rank=rank,
                spec=SWEEP.id,
                reason_code="busy" if rank in busy else "",
                reason=Text("waited for a CPU", "等待 CPU") if rank in busy else None,
            )
            came = [late(rank, i) + US * float(rng.random()) for i in range(iterations)]
            told = {**base.parameters, "clock_uncertainty": uncertainty}
            found.append(base)
            found.append(msgspec.structs.replace(base, metric="mpi.all_reduce.arrival", samples=came, parameters=told))
    return found


def of(ms: list[Measurement]) -> list[Verdict]:
    ranks = len({m.rank for m in ms})
    records = [NodeRecord(f"node{n + 1}", [2 * n, 2 * n + 1], True, True) for n in range(ranks // 2)]
    judged: Run = run(measurements=ms, nodes=records, world_size=ranks)
    return arrival_verdicts(judged, SWEEP)


def only(verdicts: list[Verdict]) -> Verdict:
    (verdict,) = verdicts
    return verdict


def rank_2(_rank: int, _iteration: int) -> float:
    return MS if _rank == 2 else 0.0


def test_a_late_rank_fails_with_its_node_and_what_it_costs() -> None:
    verdict = only(of(arrivals(rank_2)))
    assert (verdict.check, verdict.status) == (SWEEP.info.id, Status.FAIL)
    assert (verdict.subject, verdict.nodes) == (Subject("rank", "node2/rank2"), ["node2"])
    assert verdict.action is Action.ISOLATE
    assert verdict.observed.startswith("+1000 us (all_reduce, ") or verdict.observed.startswith("+999")
    assert verdict.detail is not None
    for text in (verdict.detail.en, verdict.detail.zh):
        assert "rank 2" in text
        assert "node2" in text
        assert "200" in text
    assert "so in 3 of 3 measurements" in verdict.detail.en
    assert "victim" not in verdict.detail.en  # they wait before the operation, and no time shows it


def test_the_longest_times_are_told_as_those_of_victims() -> None:
    ms = [
        msgspec.structs.replace(m, samples=[s + (0 if m.rank == 2 else MS) for s in m.samples])
        if m.metric.endswith(".time")
        else m
        for m in arrivals(rank_2)
    ]
    verdict = only(of(ms))
    assert verdict.nodes == ["node2"]
    assert verdict.detail is not None
    assert "its victims: rank" in verdict.detail.en
    assert " 1030 us, itself 30." in verdict.detail.en


def test_leaves_that_a_broadcast_lets_go_late_are_not_late() -> None:
    """Rank 2 has its data 1 ms after the root is done; and so it comes to the next one."""
    ms = [
        msgspec.structs.replace(m, samples=[s + MS * (m.rank == 2) for s in m.samples])
        if m.metric.endswith(".time")
        else m
        for m in arrivals(rank_2)
    ]
    assert only(of(ms)).nodes == ["node2"]
    assert not of([msgspec.structs.replace(m, parameters={**m.parameters, "operation": "broadcast"}) for m in ms])


def test_what_costs_little_is_a_warning() -> None:
    verdict = only(of(arrivals(rank_2, time=10 * MS)))  # a tenth of the operation
    assert (verdict.status, verdict.action, verdict.nodes) == (Status.WARN, Action.NONE, ["node2"])
    small = only(of(arrivals(lambda rank, _: 50 * US if rank == 2 else 0.0)))  # more than all of it, but 50 us
    assert small.status is Status.WARN


def test_a_whole_node_is_the_subject_when_all_its_ranks_are_late() -> None:
    verdict = only(of(arrivals(lambda rank, _: MS if rank > 1 else 0.0)))
    assert (verdict.subject, verdict.nodes) == (Subject("node", "node2"), ["node2"])
    assert verdict.detail is not None
    assert "all ranks of node2 (2, 3)" in verdict.detail.en


def test_what_only_one_of_several_sizes_says_is_not_told() -> None:
    ms = arrivals(rank_2, sizes=(8,)) + arrivals(lambda *_: 0.0, sizes=(64, 512))
    assert not of(ms)
    assert of(arrivals(rank_2, sizes=(8,)))
    assert of(arrivals(rank_2, sizes=(8, 64)) + arrivals(lambda *_: 0.0, sizes=(512,)))


def test_nobody_is_accused_where_it_is_not_decided() -> None:
    verdict = only(of(arrivals(lambda rank, _: MS if rank in (1, 3) else 0.0)))
    assert (verdict.status, verdict.nodes, verdict.subject.kind) == (Status.WARN, [], "group")
    assert verdict.detail is not None
    assert "not decided" in verdict.detail.en
    verdict = only(of(arrivals(lambda rank, _: MS if rank > 1 else 0.0, uncertainty=2 * MS)))
    assert (verdict.status, verdict.nodes) == (Status.WARN, [])
    assert verdict.detail is not None
    assert "clock" in verdict.detail.en
    assert not of(arrivals(lambda rank, _: MS if rank in (1, 3) else 0.0, busy=(0, 1)))
    # A clock is read for the way to the barrier, and for that after it.
    assert only(of(arrivals(lambda rank, _: MS if rank > 1 else 0.0, uncertainty=0.2 * MS))).nodes == ["node2"]
    assert only(of(arrivals(lambda rank, _: MS if rank > 1 else 0.0, uncertainty=0.3 * MS))).nodes == []
    # So little is lost by it that it is not worth a word.
    assert not of(arrivals(lambda rank, _: 50 * US if rank > 1 else 0.0, uncertainty=2 * MS))


def test_a_quiet_run_has_none() -> None:
    assert not of(arrivals(lambda *_: 0.0))
    assert not of([])
    assert not of([m for m in arrivals(rank_2) if m.metric.endswith(".time")])


def test_arrivals_that_a_rank_lacks_or_that_are_few_say_nothing() -> None:
    assert not of([m for m in arrivals(rank_2) if m.rank != 3 or m.metric.endswith(".time")])
    assert not of(arrivals(rank_2, iterations=15))


def test_without_times_it_is_named_and_warned_of() -> None:
    verdict = only(of([m for m in arrivals(rank_2) if m.metric.endswith(".arrival")]))
    assert (verdict.status, verdict.nodes) == (Status.WARN, ["node2"])


def test_where_ranks_share_cpus_a_scheduler_is_not_taken_for_a_fault() -> None:
    assert not of(arrivals(lambda rank, _: 3 * MS if rank == 2 else 0.0, oversubscribed=True))
    verdict = only(of(arrivals(lambda rank, _: 10 * MS if rank == 2 else 0.0, oversubscribed=True)))
    assert (verdict.status, verdict.nodes) == (Status.FAIL, ["node2"])


def test_a_rank_that_alone_waited_for_a_cpu_is_warned_of() -> None:
    verdict = only(of(arrivals(rank_2, busy=(2,))))
    assert (verdict.status, verdict.nodes) == (Status.WARN, ["node2"])
    assert verdict.detail is not None
    assert verdict.detail.en.endswith("waited for a CPU")
    assert verdict.detail.zh.endswith("等待 CPU")


def test_hiccups_that_come_again_are_a_warning_on_that_rank() -> None:
    verdict = only(of(arrivals(lambda rank, i: 5 * MS if rank == 1 and i % 20 == 10 else 0.0)))
    assert (verdict.status, verdict.subject, verdict.nodes) == (
        Status.WARN,
        Subject("rank", "node1/rank1"),
        ["node1"],
    )
    assert verdict.observed == "30/600"
    assert not of(arrivals(lambda rank, i: 5 * MS if rank == 1 and i == 10 else 0.0))
    busy = only(of(arrivals(lambda rank, i: 5 * MS if rank == 1 and i % 20 == 10 else 0.0, busy=(1,))))
    assert busy.detail is not None
    assert busy.detail.en.endswith("0.0 times on average; waited for a CPU")
    assert not of(arrivals(lambda rank, i: 5 * MS if rank == 1 and i % 20 == 10 else 0.0, busy=(0, 1)))
    whole = only(of(arrivals(lambda rank, i: 5 * MS if rank < 2 and i % 20 == 10 else 0.0)))
    assert whole.subject == Subject("node", "node1")
