"""Who meets whom: every pair that should, no node twice in a round."""

from __future__ import annotations

from collections import Counter

from hypothesis import given
from hypothesis import strategies as st

from cwai_bench.probes.pairs import Round, all_pairs, ring

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
