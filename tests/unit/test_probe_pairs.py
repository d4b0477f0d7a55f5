"""Who meets whom: every pair that should, no node twice in a round."""

from __future__ import annotations

import time
from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cwai_bench.probes.pairs import Round, all_pairs, packed, ring, same_rail, sample, schedule

nodes = st.integers(min_value=2, max_value=40)


def free_of_contention(rounds: list[Round]) -> bool:
    return all(len({n for pair in r for n in pair}) == 2 * len(r) for r in rounds)


@given(nodes, st.booleans())
def test_ring_joins_each_node_with_the_next(n: int, directed: bool) -> None:
    rounds = ring(n, directed=directed)
    pairs = sorted(p for r in rounds for p in r)
    expected = sorted((i, (i + 1) % n) for i in range(n)) if n > 2 or directed else [(0, 1)]
    assert pairs == expected
    assert free_of_contention(rounds)
    assert len(rounds) <= (3 if n % 2 else 2)


@given(nodes)
def test_all_pairs_meet_once(n: int) -> None:
    rounds = all_pairs(n)
    pairs = [p for r in rounds for p in r]
    assert sorted(tuple(sorted(p)) for p in pairs) == [(a, b) for a in range(n) for b in range(a + 1, n)]
    assert free_of_contention(rounds)
    assert len(rounds) == (n if n % 2 else n - 1)


@given(nodes)
def test_all_pairs_share_the_roles(n: int) -> None:
    clients = Counter(c for r in all_pairs(n) for c, _ in r)
    assert all(abs(clients[i] - (n - 1) / 2) <= 1 for i in range(n))


def test_one_node_has_nobody_to_meet() -> None:
    assert ring(1, directed=True) == []
    assert all_pairs(1) == []


# ------------------------------------------------------------------------------------- rails and names


def named(counts: list[int]) -> tuple[tuple[str, ...], tuple[tuple[str, ...], ...]]:
    """Nodes with so many NICs each."""
    nics = tuple(tuple(f"mlx5_{i}" for i in range(count)) for count in counts)
    return tuple(f"n{i}" for i in range(len(counts))), nics


def in_words(rounds: list[Round], nodes: tuple[str, ...], nics: tuple[tuple[str, ...], ...]) -> list[list[str]]:
    ends = [f"{node}/{name}" for node, names in zip(nodes, nics, strict=True) for name in names]
    return [[f"{ends[a]} {ends[b]}" for a, b in together] for together in rounds]


@given(st.lists(st.integers(1, 5), min_size=2, max_size=14), st.sampled_from(["ring", "all", "sample:3", "full"]))
def test_no_nic_is_twice_in_a_round_and_none_meets_its_own_node(counts: list[int], pairs: str) -> None:
    nodes, nics = named(counts)
    rounds = schedule(nodes, nics, pairs=pairs, directed=True)
    owner = [node for node, count in enumerate(counts) for _ in range(count)]
    assert free_of_contention(rounds)
    assert all(owner[a] != owner[b] for r in rounds for a, b in r)
    assert all(rounds), "a round in which nothing happens"


@given(st.lists(st.integers(1, 5), min_size=2, max_size=10))
def test_full_is_every_nic_with_every_nic_of_other_nodes(counts: list[int]) -> None:
    nodes, nics = named(counts)
    met = [tuple(sorted(p)) for r in schedule(nodes, nics, pairs="full", directed=False) for p in r]
    owner = [node for node, count in enumerate(counts) for _ in range(count)]
    ends = range(len(owner))
    assert sorted(met) == [(a, b) for a in ends for b in ends if a < b and owner[a] != owner[b]]


@given(nodes, st.integers(min_value=1, max_value=8))
def test_a_sample_gives_each_its_partners_and_keeps_the_group_together(n: int, partners: int) -> None:
    rounds = sample(n, partners)
    assert free_of_contention(rounds)
    met = [p for r in rounds for p in r]
    assert len({frozenset(p) for p in met}) == len(met)
    degree = Counter(end for p in met for end in p)
    wanted = min(partners, n - 1)
    assert all(wanted <= degree[i] <= wanted + n % 2 for i in range(n))
    if partners > 1:
        joined = {0}
        while more := {end for p in met if joined & {*p} for end in p} - joined:
            joined |= more
        assert joined == set(range(n))


@pytest.mark.parametrize(("count", "rails", "expected"), [(1024, 1, 1023), (128, 8, 127)])
def test_large_groups_are_planned_at_once(count: int, rails: int, expected: int) -> None:
    nodes, nics = named([rails] * count)
    schedule.cache_clear()
    start = time.process_time()
    rounds = schedule(nodes, nics, pairs="all", directed=False)
    assert time.process_time() - start < 5
    assert len(rounds) == expected
    assert all(len(r) == count * rails // 2 for r in rounds)
    assert free_of_contention(rounds)
    assert len({frozenset(p) for r in rounds for p in r}) == count * (count - 1) // 2 * rails


def test_full_of_128_nodes_takes_as_many_rounds_as_there_are_partners() -> None:
    assert len(schedule(*named([8] * 128), pairs="full", directed=False)) == 127 * 8


def test_a_rail_is_a_name_that_both_have_or_a_place_in_the_order() -> None:
    assert same_rail(("mlx5_0", "mlx5_1"), ("mlx5_0", "mlx5_1")) == [(0, 0), (1, 1)]
    assert same_rail(("mlx5_0", "mlx5_1"), ("mlx5_1", "mlx5_2")) == [(1, 0), (0, 1)]
    assert same_rail(("rxea0", "rxea1"), ("rxeb0", "rxeb1", "rxeb2")) == [(0, 0), (1, 1)]


def test_within_one_node_each_nic_meets_itself() -> None:
    assert schedule(("n0",), (("a", "b"),), pairs="ring", directed=True) == [[(0, 0), (1, 1)]]


@pytest.mark.parametrize(
    ("senders", "receivers", "expected"),
    [
        ("n0/mlx5_1", "n1/mlx5_0", [["n0/mlx5_1 n1/mlx5_0"]]),
        ("n0/mlx5_0,n1/mlx5_1", "n1/mlx5_0,n2/mlx5_1", [["n0/mlx5_0 n1/mlx5_0", "n1/mlx5_1 n2/mlx5_1"]]),
        ("n0", "n1", [["n0/mlx5_0 n1/mlx5_0", "n0/mlx5_1 n1/mlx5_1"]]),
        ("n0/mlx5_0", "*/mlx5_1", [["n0/mlx5_0 n1/mlx5_1"], ["n0/mlx5_0 n2/mlx5_1"]]),
        (
            "n2",
            "",
            [["n2/mlx5_0 n0/mlx5_0", "n2/mlx5_1 n0/mlx5_1"], ["n2/mlx5_0 n1/mlx5_0", "n2/mlx5_1 n1/mlx5_1"]],
        ),
        ("n0/mlx5_0", "n0/mlx5_1", [["n0/mlx5_0 n0/mlx5_1"]]),
        ("n0/mlx5_0", "n0/mlx5_0", []),
        ("n7", "n1", []),
    ],
)
def test_named_ends_meet(senders: str, receivers: str, expected: list[list[str]]) -> None:
    nodes, nics = named([2, 2, 2])
    rounds = schedule(nodes, nics, pairs="ring", directed=True, senders=senders, receivers=receivers)
    assert in_words(rounds, nodes, nics) == expected


def test_a_nameless_end_may_be_any_nic_of_its_node() -> None:
    nics = (("", "eth1"), ("", "eth1"), ("",))
    rounds = schedule(("a", "b", "c"), nics, pairs="ring", directed=True, senders="a/eth1,c", receivers="b/eth1,b")
    assert in_words(rounds, ("a", "b", "c"), nics) == [["a/eth1 b/eth1"], ["c/ b/"]]


@given(st.lists(st.tuples(st.integers(0, 12), st.integers(13, 25)), max_size=80, unique=True))
def test_packing_keeps_every_pair_and_leaves_no_gap(pairs: Round) -> None:
    rounds = packed(pairs, range(26))
    assert sorted(p for r in rounds for p in r) == sorted(pairs)
    assert free_of_contention(rounds)
    busiest = max(Counter(end for p in pairs for end in p).values(), default=0)
    assert busiest <= len(rounds) <= max(0, 2 * busiest - 1)
