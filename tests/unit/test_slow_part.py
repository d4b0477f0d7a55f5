"""The search for the part that makes a collective slow, over simulated fleets."""

from __future__ import annotations

import numpy as np
import pytest

from cwai_bench.probes.slow_part import Figures, Part, Round, Search, drive
from tests.unit.planted_fleets import USUAL, Fleet, Slow, simulate, size_of


def test_planted_parts_are_named_and_nobody_else() -> None:
    """200 seeds, 3 to 512 parts, 5 % noise: of what can be told at least 99 % is, and no healthy part is accused."""
    found = simulate(range(200))
    assert found.could >= 130
    assert found.right >= 0.99 * found.could, "\n".join(found.wrong)
    assert not found.blamed, "\n".join(found.wrong)
    assert found.rounds <= 5.0


def test_a_fleet_that_is_well_names_nobody() -> None:
    for seed in range(200):
        fleet = Fleet(seed, [f"node{i}" for i in range(size_of(seed, np.random.default_rng(seed)))])
        assert not fleet.found(), seed


def only(found: list[Part]) -> Part:
    (part,) = found
    return part


def planted(parts: list[str], *slow: Slow, noise: float = 0.01) -> Fleet:
    fleet = Fleet(5, parts, noise)
    fleet.slow += slow
    return fleet


def nodes(n: int) -> list[str]:
    return [f"node{i}" for i in range(n)]


def test_of_two_parts_neither_is_named() -> None:
    fleet = planted(nodes(2), Slow("node", (1,), 0.5))
    part = only(fleet.found())
    assert (part.kind, part.members, fleet.rounds) == ("ambiguous", (0, 1), 0)
    assert part.observed == pytest.approx(USUAL / 2, rel=0.1)


def test_a_slow_node_has_its_proof_and_was_tried_again() -> None:
    fleet = planted(nodes(16), Slow("node", (5,), 0.4))
    part = only(fleet.found())
    assert (part.kind, part.members, part.again) == ("node", (5,), True)
    assert part.observed == pytest.approx(0.6 * USUAL, rel=0.05)
    assert part.usual == pytest.approx(USUAL, rel=0.05)
    assert all(5 in group and figure is not None and figure < 0.7 * USUAL for group, figure in part.proof)
    assert len(part.proof) == 3  # both neighbours, one of them twice, and one more
    assert fleet.rounds <= 5


def test_a_node_with_which_nothing_comes_of_it_is_named() -> None:
    part = only(planted(nodes(9), Slow("node", (8,), 1.0)).found())
    assert (part.kind, part.members, part.observed) == ("node", (8,), None)


def test_cards_of_one_node_are_told_apart() -> None:
    part = only(planted([f"node1/{i}" for i in range(8)], Slow("card", (3,), 0.3)).found())
    assert (part.kind, part.members) == ("card", (3,))


@pytest.mark.parametrize("n", [7, 9, 16, 31, 100])
def test_a_link_between_any_two_is_told_by_halves(n: int) -> None:
    for ends in ((0, n - 1), (1, n // 2), (n // 3, n - 2)):
        fleet = planted(nodes(n), Slow("link", ends, 0.5))
        part = only(fleet.found())
        assert (part.kind, part.members) == ("link", tuple(sorted(ends)))


def test_a_part_that_is_slow_with_many_only_is_told_by_halves() -> None:
    fleet = planted(nodes(20), Slow("crowd", (13,), 0.4))
    part = only(fleet.found())
    assert (part.kind, part.members, part.again) == ("node", (13,), True)
    assert all(13 in group and len(group) == 10 for group, _ in part.proof)


def test_a_link_that_is_well_by_itself_is_not_named() -> None:
    """Slow in each group of more than two that has both: the pair is fine, and so nothing proves it."""

    class Odd(Fleet):
        def meets(self, slow: Slow, group: tuple[int, ...]) -> bool:
            return super().meets(slow, group) and len(group) > 2

    fleet = Odd(5, nodes(12), 0.01)
    fleet.slow.append(Slow("link", (2, 9), 0.5))
    assert not fleet.found()


def test_two_slow_nodes_are_both_named() -> None:
    found = planted(nodes(12), Slow("node", (2,), 0.5), Slow("node", (7,), 0.3)).found()
    assert sorted((part.kind, part.members) for part in found) == [("node", (2,)), ("node", (7,))]


def test_of_several_cards_a_node_the_rail_is_found_first() -> None:
    parts = [f"node{n}/{card}" for n in range(6) for card in range(4)]
    fleet = planted(parts, Slow("card", (parts.index("node2/1"),), 0.5))
    part = only(fleet.found())
    assert (part.kind, [parts[m] for m in part.members]) == ("card", ["node2/1"])
    whole = planted(parts, *(Slow("card", (parts.index(f"node4/{card}"),), 0.5) for card in range(4)))
    part = only(whole.found())
    assert (part.kind, [parts[m] for m in part.members]) == ("node", [f"node4/{card}" for card in range(4)])


def test_a_search_may_be_ended_after_any_round() -> None:
    """What was seen by then is told, as seen once; before anything was, nothing is."""
    for allowed in range(6):
        fleet = planted(nodes(16), Slow("node", (5,), 0.5))

        def measure(groups: Round, fleet: Fleet = fleet, allowed: int = allowed) -> Figures | None:
            return fleet.measure(groups) if fleet.rounds < allowed else None

        found = drive(Search(fleet.parts), measure)
        assert all(part.members == (5,) or part.kind == "ambiguous" for part in found)
        if allowed == 2:
            assert (only(found).kind, only(found).again) == ("node", False)
    assert not drive(Search([]), lambda groups: [])
    assert not drive(Search(["node1"]), lambda groups: [])


def test_all_ranks_come_to_the_same_rounds() -> None:
    fleet = planted(nodes(40), Slow("link", (3, 30), 0.5))
    asked: list[Round] = []
    answers: list[Figures] = []

    def measure(groups: Round) -> Figures:
        asked.append(groups)
        answers.append(fleet.measure(groups))
        return answers[-1]

    first = drive(Search(fleet.parts, USUAL / 2), measure)
    assert first
    asked_elsewhere: list[Round] = []

    def replayed(groups: Round) -> Figures:
        asked_elsewhere.append(groups)
        return answers[len(asked_elsewhere) - 1]

    assert drive(Search(fleet.parts, USUAL / 2), replayed) == first
    assert asked_elsewhere == asked
