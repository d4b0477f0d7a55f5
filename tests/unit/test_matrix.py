"""Naming the bad part from a grid of pairs: by planted faults, and where the facts do not decide."""

from __future__ import annotations

from itertools import permutations

import numpy as np
import pytest

from cwai_bench.goodput import DEFAULTS
from cwai_bench.matrix import Grid, named, node_of, retests, suspects
from cwai_bench.model import Finding
from cwai_bench.probes.pairs import ring
from tests.unit.planted_pairs import Cluster, simulate, size_of


def grid_of(
    nodes: int,
    slow: dict[tuple[int, int], float] | None = None,
    *,
    pairs: list[tuple[int, int]] | None = None,
    dead: set[tuple[int, int]] | None = None,
    expected: float | None = None,
    higher: bool = True,
) -> Grid:
    """``nodes`` ends of which all ``pairs`` (unless said, all) have the same figure, less the share in ``slow``."""
    value = np.full((nodes, nodes), np.nan)
    failed = np.zeros((nodes, nodes), dtype=bool)
    for cell in pairs or permutations(range(nodes), 2):
        value[cell] = 1.0 - (slow or {}).get(cell, 0.0)
        if cell in (dead or set()):
            value[cell], failed[cell] = np.nan, True
    ends = tuple(f"node{i + 1}" for i in range(nodes))
    limit = None if expected is None else np.full((nodes, nodes), expected)
    return Grid(ends, "tcp.bandwidth", "B/s", value, failed, limit, higher)


def test_planted_faults_are_named_and_nobody_else() -> None:
    """200 seeds, 3 to 512 NICs, 5 % noise: of what can be told at least 99 % is, and no healthy part is accused."""
    found = simulate(range(200))
    assert found.could >= 150
    assert found.right >= 0.99 * found.could, "\n".join(found.wrong)
    assert not found.blamed, "\n".join(found.wrong)


def test_two_faults_at_once_are_told_apart() -> None:
    found = simulate(range(1, 100), faults=2)
    assert found.could >= 150
    assert found.right >= 0.99 * found.could, "\n".join(found.wrong)
    assert not found.blamed, "\n".join(found.wrong)


def test_clean_grids_name_nothing() -> None:
    for seed in range(200):
        cluster = Cluster(seed, *size_of(seed, np.random.default_rng(seed)))
        assert not [f for f in cluster.found() if f.kind != "flake"], seed


# ---------------------------------------------------------------------------------------- by the rules


def only(findings: list[Finding]) -> Finding:
    assert len(findings) == 1, findings
    return findings[0]


def test_a_node_of_a_ring_is_named_by_both_its_neighbours() -> None:
    pairs = [cell for together in ring(5, directed=True) for cell in together]
    found = only(named(grid_of(5, {(1, 2): 0.4, (2, 3): 0.4}, pairs=pairs)))
    assert (found.kind, found.ends, found.bad, found.tried, found.partners) == ("node", ["node3"], 2, 2, 2)
    assert found.observed == pytest.approx(0.6)
    assert found.usual == pytest.approx(1.0)
    assert {(p.source, p.target) for p in found.proof} == {("node2", "node3"), ("node3", "node4")}
    assert {(p.source, p.target) for p in found.fine} == {("node1", "node2"), ("node4", "node5")}


def test_three_nodes_in_a_ring_are_enough() -> None:
    pairs = [cell for together in ring(3, directed=True) for cell in together]
    found = only(named(grid_of(3, pairs=pairs, dead={(0, 1), (1, 2)})))
    assert (found.kind, found.ends, found.observed) == ("node", ["node2"], None)


def test_one_pair_of_a_ring_is_a_path() -> None:
    pairs = [cell for together in ring(6, directed=True) for cell in together]
    found = only(named(grid_of(6, {(1, 2): 0.5}, pairs=pairs)))
    assert (found.kind, found.ends) == ("path", ["node2", "node3"])


def test_two_neighbours_of_a_ring_that_are_both_bad_are_not_told_apart_until_tried_again() -> None:
    """Either of them with the path beyond, or both: three bad pairs in a row are no proof."""
    slow = {(0, 1): 0.5, (1, 2): 0.5, (2, 3): 0.5}
    first = grid_of(6, slow, pairs=[cell for together in ring(6, directed=True) for cell in together])
    found = only(named(first))
    assert (found.kind, found.ends) == ("ambiguous", ["node2", "node3"])
    plan = retests(first, suspects(first))
    bad = {(a, b): 0.5 for a, b in plan if a in (1, 2) or b in (1, 2)}
    again = named(first, grid_of(6, bad, pairs=plan))
    assert sorted((f.kind, *f.ends) for f in again) == [("node", "node2"), ("node", "node3")]


def test_of_two_nodes_neither_is_accused() -> None:
    found = only(named(grid_of(2, {(0, 1): 0.5}, expected=1.0)))
    assert (found.kind, found.ends) == ("ambiguous", ["node1", "node2"])
    assert only(named(grid_of(2, dead={(0, 1), (1, 0)}))).kind == "ambiguous"
    assert named(grid_of(2, {(0, 1): 0.5})) == []  # without peers and without an expected value nothing is slow


def test_all_nics_of_a_node_are_the_node_and_one_of_them_is_itself() -> None:
    cluster = Cluster(7, 4, 4)
    cluster.plant("node", 0.6, 2)
    found = only(cluster.found())
    assert (found.kind, found.nodes, len(found.ends)) == ("node", ["node2"], 4)
    cluster = Cluster(7, 4, 4)
    fault = cluster.plant("nic", 0.6, 2)
    found = only(cluster.found())
    assert (found.kind, tuple(found.ends)) == ("nic", fault.named)


def test_two_nodes_of_many_rails_have_each_other_as_candidates() -> None:
    value = np.full((8, 8), np.nan)
    for rail in range(4):
        value[rail, 4 + rail] = value[4 + rail, rail] = 0.5 if rail == 2 else 1.0
    ends = tuple(f"node{i}/mlx5_{k}" for i in (1, 2) for k in range(4))
    found = only(named(Grid(ends, "verbs.write.bandwidth", "B/s", value, np.zeros((8, 8), dtype=bool))))
    assert (found.kind, found.ends) == ("ambiguous", ["node1/mlx5_2", "node2/mlx5_2"])


def test_what_does_not_come_again_is_a_flake() -> None:
    first = grid_of(6, {(2, k): 0.5 for k in range(6)} | {(k, 2): 0.5 for k in range(6)})
    plan = retests(first, suspects(first))
    assert plan
    assert all(2 in cell for cell in plan)
    found = only(named(first, grid_of(6, pairs=plan)))
    assert (found.kind, found.ends) == ("flake", ["node3"])
    assert any(p.looked_again and p.again == pytest.approx(1.0) and p.value == pytest.approx(0.5) for p in found.proof)
    confirmed = only(named(first, grid_of(6, dict.fromkeys(plan, 0.5), pairs=plan)))
    assert (confirmed.kind, confirmed.ends) == ("node", ["node3"])


def test_each_suspect_is_tried_with_two_good_partners_of_its_rail() -> None:
    cluster = Cluster(3, 6, 2)
    fault = cluster.plant("nic", 1.0, 4)
    other = cluster.plant("nic", 0.5, 1)
    first = cluster.look()
    wanted = suspects(first)
    assert {first.ends[i] for i in wanted.ends} == {*fault.named, *other.named}
    plan = retests(first, wanted)
    for end in wanted.ends:
        partners = {j if i == end else i for i, j in plan if end in (i, j)}
        assert len(partners) == 2
        assert not partners.intersection(wanted.ends)
        assert {first.ends[p].partition("/")[2] for p in partners} == {first.ends[end].partition("/")[2]}
        assert node_of(first.ends[end]) not in {node_of(first.ends[p]) for p in partners}
    assert len(plan) == len(set(plan))


def test_below_its_expected_value_a_part_is_named_however_near_its_peers() -> None:
    slow = {(i, j): (0.15 if 3 in (i, j) else 0.06) for i, j in permutations(range(5), 2)}
    assert named(grid_of(5, slow)) == []  # 9.6 % under the others: less than what peers accuse of
    found = only(named(grid_of(5, slow, expected=1.0)))
    assert (found.kind, found.ends, found.expected) == ("node", ["node4"], 1.0)
    lenient = DEFAULTS._replace(fail_below=0.80)
    assert named(grid_of(5, slow, expected=1.0), limits=lenient) == []


def test_where_all_are_below_their_expected_value_no_part_is_accused() -> None:
    found = only(named(grid_of(5, dict.fromkeys(permutations(range(5), 2), 0.2), expected=1.0)))
    assert (found.kind, found.ends, found.bad, found.tried) == ("ambiguous", [], 20, 20)


def test_latency_is_bad_when_it_is_long() -> None:
    long = {(i, j): -1.2 for i, j in permutations(range(6), 2) if 1 in (i, j)}
    found = only(named(grid_of(6, long, higher=False)))
    assert (found.kind, found.ends) == ("node", ["node2"])
    assert found.observed == pytest.approx(2.2)
    switch = {(i, j): -0.4 for i, j in permutations(range(6), 2) if (i < 3) != (j < 3)}
    assert named(grid_of(6, switch, higher=False)) == []
    fast = {(i, j): 0.6 for i, j in permutations(range(6), 2) if 1 in (i, j)}
    assert named(grid_of(6, fast, higher=False)) == []


def test_half_the_pairs_of_an_end_decide_nothing() -> None:
    slow = {(0, j): 0.5 for j in (1, 2, 3)} | {(j, 0): 0.5 for j in (1, 2, 3)}
    found = only(named(grid_of(6, slow)))
    assert (found.kind, found.ends) == ("ambiguous", ["node1"])


@pytest.mark.parametrize("behind", [2, 4, 6])
def test_nodes_behind_one_bad_switch_are_not_accused(behind: int) -> None:
    """They are bad with all the others and fine with one another, which two that are bad are not."""
    slow = {(i, j): 0.5 for i, j in permutations(range(20), 2) if (i < behind) != (j < behind)}
    found = only(named(grid_of(20, slow)))
    assert (found.kind, found.ends) == ("ambiguous", [f"node{i + 1}" for i in range(behind)])


def test_more_bad_paths_than_can_be_single_faults_are_one_finding() -> None:
    slow = {(i, (i + k) % 40): 0.5 for i in range(40) for k in (1, 3)}
    found = only(named(grid_of(40, slow)))
    assert (found.kind, len(found.ends), found.bad) == ("ambiguous", 40, 80)


def test_a_grid_with_nothing_in_it_names_nothing() -> None:
    assert named(grid_of(4, pairs=[])) == []
    assert suspects(grid_of(4, pairs=[])).ends == []
    assert retests(grid_of(3, pairs=[]), suspects(grid_of(3, pairs=[]))) == []
