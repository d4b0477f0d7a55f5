"""Who measures with whom, and when: rounds in which no NIC is in two pairs, so that no pair disturbs another."""

from __future__ import annotations

from functools import lru_cache

Round = list[tuple[int, int]]
"""Pairs (client, server) of numbers, of nodes or of ends, that run at the same time."""


@lru_cache(maxsize=4)  # a plan asks for the same schedule many times
def schedule(nodes: tuple[str, ...], nics: tuple[tuple[str, ...], ...], *, pairs: str, directed: bool) -> list[Round]:
    """Rounds of ends: the NICs (``nics[i]``, in natural order) of ``nodes[i]``, numbered one node after the other.

    Of one node each NIC meets itself.
    """
    if len(nodes) == 1:
        return [[(end, end) for end in range(len(nics[0]))]]
    rounds = all_pairs(len(nodes)) if pairs == "all" else ring(len(nodes), directed=directed)
    return over_rails(rounds, nics)


def over_rails(rounds: list[Round], nics: tuple[tuple[str, ...], ...]) -> list[Round]:
    """Rounds of ends of rounds of nodes: all rails of two nodes at once."""
    first, rails = [0], lru_cache(same_rail)
    for names in nics:
        first.append(first[-1] + len(names))
    return [
        [(first[a] + i, first[b] + j) for a, b in together for i, j in rails(nics[a], nics[b])] for together in rounds
    ]


def same_rail(mine: tuple[str, ...], theirs: tuple[str, ...]) -> Round:
    """Which NIC of one node is on the rail of which of the other, by number: one of the same name, where both have
    it; what is left over meets in its order."""
    if mine == theirs:
        return [(i, i) for i in range(len(mine))]
    by_name = [(i, theirs.index(name)) for i, name in enumerate(mine) if name in theirs]
    left = [i for i, name in enumerate(mine) if name not in theirs]
    right = [j for j, name in enumerate(theirs) if name not in mine]
    return by_name + list(zip(left, right, strict=False))


def ring(nodes: int, *, directed: bool) -> list[Round]:
    """Each node with the next: two rounds when ``nodes`` is even, three when it is odd.

    Every node sends once and receives once. Of two nodes the way back is a round of its own when ``directed``, and
    the same pair when not.
    """
    if nodes < 2:
        return []
    if nodes == 2:
        return [[(0, 1)], [(1, 0)]] if directed else [[(0, 1)]]
    paired = nodes - nodes % 2
    rounds: list[Round] = [
        [(i, i + 1) for i in range(0, paired, 2)],
        [(i, (i + 1) % nodes) for i in range(1, paired, 2)],
    ]
    if nodes % 2:
        rounds.append([(nodes - 1, 0)])
    return rounds


def all_pairs(nodes: int) -> list[Round]:
    """Each node with every other once, by the circle method: node 0 stays, the others move on by one each round.

    ``nodes - 1`` rounds when even; when odd ``nodes`` rounds, in each of which one node rests. The lower number
    is client when the sum is odd, so that each node is about as often client as server.
    """
    if nodes < 2:
        return []
    seats: list[int | None] = list(range(nodes))
    if nodes % 2:
        seats.append(None)
    half = len(seats) // 2
    rounds: list[Round] = []
    for _ in range(len(seats) - 1):
        pairs: Round = []
        for seat in range(half):
            a, b = seats[seat], seats[-1 - seat]
            if a is not None and b is not None:
                low, high = min(a, b), max(a, b)
                pairs.append((low, high) if (a + b) % 2 else (high, low))
        rounds.append(pairs)
        seats = [seats[0], seats[-1], *seats[1:-1]]
    return rounds
