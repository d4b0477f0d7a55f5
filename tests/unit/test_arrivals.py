"""Who made the others wait: late ranks planted among noise of several sorts, and where the facts do not decide."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from cwai_bench.arrivals import LEAST, Late, judged, repeated

Floats = NDArray[np.float64]
QUIET, CROWDED = 3e-6, 1.5e-3
SEEDS = range(200)
US, MS = 1e-6, 1e-3


def noise(rng: np.random.Generator, kind: str, ranks: int, iterations: int) -> Floats:
    """Seconds by which each rank comes late by chance: on a machine of its own, or where it has to share CPUs."""
    if kind == "quiet":
        skew = rng.uniform(0, 5e-6, (ranks, 1))  # ranks leave a barrier one after another
        return np.asarray(np.abs(skew + QUIET * rng.standard_normal((ranks, iterations))))
    if kind == "exponential":
        return np.asarray(CROWDED * rng.exponential(size=(ranks, iterations)))
    if kind == "pareto":
        return np.asarray(CROWDED / 2 * rng.pareto(1.5, size=(ranks, iterations)))
    # A scheduler whose order lasts for some iterations: each rank is late for a while, and then another.
    runs = rng.exponential(size=(ranks, -(-iterations // 8)))
    return np.asarray(CROWDED * np.repeat(runs, 8, axis=1)[:, :iterations])


def nodes_of(ranks: int, each: int) -> list[str]:
    return [f"node{r // each + 1}" for r in range(ranks)]


def identifiable(kind: str, ranks: int, delay: float) -> bool:
    """Whether a rank that is late by ``delay`` is the last one at least twice as often as not, by other draws."""
    others = noise(np.random.default_rng(7), kind, ranks, 20_000)
    return bool(np.mean(others[0] + delay > others[1:].max(0) + 20 * US) > 2 / 3)


@pytest.mark.parametrize(
    ("kind", "iterations"),
    [
        (k, n)
        for k in ("quiet", "exponential", "pareto", "scheduler")
        for n in (20, 200, 1000)
        if (k, n) != ("scheduler", 20)
    ],
)
def test_noise_accuses_nobody(kind: str, iterations: int) -> None:
    blamed = []
    for seed in SEEDS:
        rng = np.random.default_rng([seed, iterations])
        ranks = int(rng.choice([2, 2, 3, 4, 8, 16, 64 if iterations < 1000 else 16]))
        nodes = nodes_of(ranks, int(rng.choice([1, 2, 8])))
        found = judged(noise(rng, kind, ranks, iterations), nodes)
        if found.findings or repeated(found.hiccups):
            blamed.append((seed, ranks, found))
    assert not blamed, blamed[:3]


@pytest.mark.parametrize(
    ("kind", "delay"),
    [("quiet", 1 * MS), ("exponential", 10 * MS), ("pareto", 10 * MS), ("scheduler", 10 * MS)],
)
def test_a_late_rank_is_named_and_nobody_else(kind: str, delay: float) -> None:
    could = right = 0
    wrong = []
    for seed in SEEDS:
        rng = np.random.default_rng([seed, 1])
        ranks = int(rng.integers(2, 9)) if kind != "quiet" else int(rng.choice([2, 3, 8, 64, 256]))
        nodes = nodes_of(ranks, int(rng.choice([1, 2, 4])))
        late = int(rng.integers(ranks))
        arrivals = noise(rng, kind, ranks, 200)
        arrivals[late] += delay
        found = judged(arrivals, nodes)
        named = [f for f in found.findings if not f.why]
        if any(f.ranks != (late,) for f in named):
            wrong.append((seed, ranks, late, found))
        if identifiable(kind, ranks, delay):
            could += 1
            right += [f.ranks for f in named] == [(late,)]
    assert could >= 100
    assert right >= 0.99 * could, f"{right} of {could}"
    assert not wrong, wrong[:3]


# ---------------------------------------------------------------------------------------- by the rules


def steady(*late: float, iterations: int = 200) -> Floats:
    """Ranks late by so many seconds each time, give or take a microsecond."""
    rng = np.random.default_rng(3)
    return np.asarray(np.array(late)[:, None] + US * rng.random((len(late), iterations)))


def only(findings: tuple[Late, ...]) -> Late:
    (found,) = findings
    return found


def test_what_is_told_of_a_late_rank() -> None:
    """The figures of the field: rank 1 comes 1 ms late, and rank 0 has the time of 1026 us. It is the victim."""
    times = steady(1026 * US, 25 * US)
    found = only(judged(steady(0, MS), ["node1", "node2"], times=times).findings)
    assert (found.ranks, found.nodes, found.why) == ((1,), ("node2",), "")
    assert found.late == pytest.approx(MS, rel=0.01)
    assert found.lost == pytest.approx(MS, rel=0.01)
    assert found.last == 1.0
    assert found.confidence > 0.9999
    assert found.victim == 0
    assert found.longest == pytest.approx(1026 * US, rel=0.01)
    assert found.own == pytest.approx(25 * US, rel=0.05)


def test_a_clock_that_may_be_off_by_as_much_decides_nothing() -> None:
    found = only(judged(steady(0, MS), ["node1", "node2"], uncertainty=MS).findings)
    assert (found.why, found.ranks) == ("clocks", (0, 1))
    found = only(judged(steady(0, MS), ["node1", "node2"], uncertainty=np.array([0, 0.9 * MS])).findings)
    assert (found.why, found.ranks) == ("", (1,))
    found = only(judged(steady(0, 0, 0, MS), nodes_of(4, 2), uncertainty=0.6 * MS).findings)
    assert (found.why, found.ranks) == ("clocks", (3,))
    found = only(judged(steady(0, 0, 0, MS), nodes_of(4, 2), uncertainty=np.array([0, 0, MS, 0.6 * MS])).findings)
    assert (found.why, found.ranks) == ("", (3,))  # what one of the others is unsure of does not matter


def test_two_nodes_that_are_late_alike_are_candidates() -> None:
    found = only(judged(steady(0, 0, MS, 0, MS), nodes_of(5, 1)).findings)
    assert (found.why, found.ranks) == ("alike", (2, 4))
    assert only(judged(steady(0, MS, MS), nodes_of(3, 1)).findings).why == "alike"


def test_all_ranks_of_a_node_are_the_node_and_some_of_them_are_themselves() -> None:
    late = only(judged(steady(0, 0, 0, MS, 1.2 * MS, 1.1 * MS), nodes_of(6, 3)).findings)
    assert (late.ranks, late.nodes, late.whole) == ((3, 4, 5), ("node2",), True)
    some = only(judged(steady(0, 0, 0, 0, MS, MS), nodes_of(6, 3)).findings)
    assert (some.ranks, some.nodes, some.whole) == ((4, 5), ("node2",), False)


def test_one_that_is_later_than_another_comes_first_and_both_are_told() -> None:
    found = judged(steady(0, 0, 3 * MS, 0, 10 * MS, 0), nodes_of(6, 1)).findings
    assert [f.ranks for f in found] == [(4,), (2,)]
    assert [f.lost for f in found] == [pytest.approx(7 * MS, rel=0.01), pytest.approx(3 * MS, rel=0.01)]
    # What those who wait do meanwhile is no fault of theirs.
    assert [f.ranks for f in judged(steady(0, 0, MS, 0, 10 * MS, 0), nodes_of(6, 1)).findings] == [(4,)]


def test_little_is_no_matter() -> None:
    assert not judged(steady(0, 0, 15 * US), nodes_of(3, 1)).findings
    times = steady(MS, MS, MS)
    assert not judged(steady(0, 0, 45 * US), nodes_of(3, 1), times=times).findings  # below 5 % of the operation
    assert judged(steady(0, 0, 60 * US), nodes_of(3, 1), times=times).findings
    assert not judged(steady(0, 0, MS), nodes_of(3, 1), floor=2 * MS).findings


def test_a_row_of_ranks_has_an_end_that_is_no_fault() -> None:
    """Of 32 ranks each comes 30 us after the one before it: so the last one always is the last."""
    assert not judged(steady(*(30 * US * r for r in range(32))), nodes_of(32, 1)).findings


def test_what_the_operation_itself_lets_go_late_is_not_late() -> None:
    """A leaf of a broadcast has its data 2 ms after the root is done, and is as much later at the next barrier."""
    times = steady(MS, 3 * MS, 3 * MS, 6 * MS)
    arrivals = steady(0, 2 * MS, 2 * MS, 5 * MS)
    assert judged(arrivals, nodes_of(4, 1)).findings
    assert judged(arrivals, nodes_of(4, 1), times=times).findings
    assert not judged(arrivals, nodes_of(4, 1), times=times, ends_together=False).findings
    arrivals[1] += 3 * MS
    assert only(judged(arrivals, nodes_of(4, 1), times=times, ends_together=False).findings).ranks == (1,)


def test_few_iterations_say_nothing() -> None:
    found = judged(steady(0, 0, MS, iterations=LEAST - 1), nodes_of(3, 1))
    assert (found.findings, found.iterations) == ((), LEAST - 1)
    assert judged(steady(0, 0, MS, iterations=LEAST), nodes_of(3, 1)).findings
    assert not judged(steady(MS), ["node1"]).findings


def test_who_is_late_for_half_of_the_run_is_not_so_all_along() -> None:
    arrivals = steady(0, 0, 0)
    arrivals[2, 100:] += MS
    assert not judged(arrivals, nodes_of(3, 1)).findings


def test_iterations_that_a_rank_does_not_have_are_left_out() -> None:
    arrivals = steady(0, 0, MS)
    arrivals[0, 5] = arrivals[1, 7] = np.nan
    found = judged(arrivals, nodes_of(3, 1))
    assert found.iterations == 198
    assert only(found.findings).ranks == (2,)
    with_times = judged(arrivals, nodes_of(3, 1), times=steady(MS, MS, MS))
    assert with_times.iterations == 198
    times = steady(MS, MS, MS)
    times[1, 20] = np.nan  # and so it is not known when they were let go into the next one
    assert judged(arrivals, nodes_of(3, 1), times=times, ends_together=False).iterations == 197


def test_shapes_that_do_not_fit_are_refused() -> None:
    with pytest.raises(ValueError, match="2 nodes"):
        judged(steady(0, 0, MS), nodes_of(2, 1))
    with pytest.raises(ValueError, match="times"):
        judged(steady(0, MS), nodes_of(2, 1), times=steady(0, MS, iterations=100))


def test_hiccups_are_counted_and_told_where_they_come_again() -> None:
    arrivals = steady(0, 0, 0, 0)
    arrivals[1, 50:53] += 5 * MS  # one event
    found = judged(arrivals, nodes_of(4, 1))
    assert not found.findings
    assert found.hiccups == (0, 1, 0, 0)
    assert repeated(found.hiccups) == []
    arrivals[1, 60::10] += 5 * MS
    found = judged(arrivals, nodes_of(4, 1))
    assert not found.findings
    assert found.hiccups == (0, 15, 0, 0)
    assert repeated(found.hiccups) == [1]
    assert repeated([15, 14, 16, 15]) == []
    assert repeated([9]) == []
