"""Who measures with whom, and when: rounds in which no node is in two pairs, so that no pair disturbs another."""

from __future__ import annotations

Round = list[tuple[int, int]]
"""Pairs (client, server) of node numbers that run at the same time."""


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
