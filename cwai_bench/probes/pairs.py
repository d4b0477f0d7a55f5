"""Who measures with whom, and when: rounds in which no NIC is in two pairs, so that no pair disturbs another."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from functools import lru_cache
from itertools import accumulate, product
from math import gcd

Round = list[tuple[int, int]]
"""Pairs (client, server) of numbers, of nodes or of ends, that run at the same time."""


ANY = "*"


@lru_cache(maxsize=4)  # a plan asks for the same schedule many times
def schedule(
    nodes: tuple[str, ...],
    nics: tuple[tuple[str, ...], ...],
    *,
    pairs: str,
    directed: bool,
    senders: str = "",
    receivers: str = "",
) -> list[Round]:
    """Rounds of ends: the NICs (``nics[i]``, in natural order) of ``nodes[i]``, numbered one node after the other.

    ``pairs``: ``ring``, ``all``, ``sample:K`` (rails in parallel), or ``full`` (every NIC with every NIC of the other
    nodes). ``senders`` and ``receivers`` (``node/nic`` with commas) take its place when one is given. Of one node, each
    NIC meets itself.
    """
    if senders or receivers:
        first = _first_ends(nics)
        # A nameless end may be any NIC of its node: there, ends keep out of each other's way.
        places = [first[n] if "" in names else first[n] + i for n, names in enumerate(nics) for i in range(len(names))]
        return packed(chosen(nodes, nics, senders or ANY, receivers or ANY), places)
    if len(nodes) == 1:
        return [[(end, end) for end in range(len(nics[0]))]]
    kind, _, count = pairs.partition(":")
    if kind == "full":
        return over_all_nics(all_pairs(len(nodes)), nics)
    if kind == "all":
        rounds = all_pairs(len(nodes))
    elif kind == "sample":
        rounds = sample(len(nodes), int(count))
    else:
        rounds = ring(len(nodes), directed=directed)
    return over_rails(rounds, nics)


def over_rails(rounds: list[Round], nics: tuple[tuple[str, ...], ...]) -> list[Round]:
    """Rounds of ends of rounds of nodes: all rails of two nodes at once."""
    if len(set(nics)) == 1:  # as a rule, and the quicker way
        count = len(nics[0])
        if count == 1:
            return rounds
        return [[(a * count + i, b * count + i) for a, b in together for i in range(count)] for together in rounds]
    first, rails = _first_ends(nics), lru_cache(same_rail)
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


def over_all_nics(rounds: list[Round], nics: tuple[tuple[str, ...], ...]) -> list[Round]:
    """Rounds of ends in which each NIC of a node meets each of the other's: a round of nodes becomes as many as the
    larger of two nodes has NICs; in each, those of one are moved on by one against those of the other."""
    first, found = _first_ends(nics), []
    for together in rounds:
        for shift in range(max(len(nics[n]) for pair in together for n in pair)):
            moved: Round = []
            for a, b in together:
                mine, theirs = len(nics[a]), len(nics[b])
                if shift >= max(mine, theirs):
                    continue
                for i in range(min(mine, theirs)):
                    j = (i + shift) % max(mine, theirs)
                    moved.append((first[a] + i, first[b] + j) if mine <= theirs else (first[a] + j, first[b] + i))
            found.append(moved)
    return found


def _first_ends(nics: tuple[tuple[str, ...], ...]) -> list[int]:
    """The number of each node's first end."""
    return list(accumulate((len(names) for names in nics), initial=0))


def chosen(nodes: tuple[str, ...], nics: tuple[tuple[str, ...], ...], senders: str, receivers: str) -> Round:
    """Pairs of ends that a person named: ``node/nic``, where ``*`` is any node, or any NIC, and ``node`` is ``node/*``.

    The first sender with the first receiver, and so on; a single one on one side is for all of the other. Any NIC
    with any NIC: the same rail; else each that the sender is with each that the receiver is. Ends of one node meet
    only where both sides name it. What matches nothing gives no pair.
    """
    first = _first_ends(nics)
    ours, theirs = senders.split(","), receivers.split(",")
    found: dict[tuple[int, int], None] = {}
    for sender, receiver in zip(
        ours * (len(theirs) if len(ours) == 1 else 1), theirs * (len(ours) if len(theirs) == 1 else 1), strict=True
    ):
        (a_node, a_nic), (b_node, b_nic) = end_of(sender), end_of(receiver)
        within = a_node == b_node != ANY
        for a, b in product(_matching(nodes, a_node), _matching(nodes, b_node)):
            if a == b and not within:
                continue
            if a_nic == b_nic == ANY and a != b:
                met = same_rail(nics[a], nics[b])
                met = [(i, j) for i, j in met if i in _wild(nics[a]) and j in _wild(nics[b])]
            else:
                met = list(product(_nics(nics[a], a_nic), _nics(nics[b], b_nic)))
            found |= dict.fromkeys((first[a] + i, first[b] + j) for i, j in met if (a, i) != (b, j))
    return list(found)


def chosen_ends(nodes: tuple[str, ...], nics: tuple[tuple[str, ...], ...], word: str) -> list[int]:
    """Numbers of the ends that ``node/nic`` means."""
    first, (node, nic) = _first_ends(nics), end_of(word)
    return [first[i] + n for i in _matching(nodes, node) for n in _nics(nics[i], nic)]


def end_of(word: str) -> tuple[str, str]:
    """``node/nic`` as both; of ``node`` alone any NIC."""
    node, _, nic = word.partition("/")
    return node, nic or ANY


def _matching(nodes: tuple[str, ...], wanted: str) -> list[int]:
    return [i for i, node in enumerate(nodes) if wanted in (ANY, node)]


def _nics(names: tuple[str, ...], wanted: str) -> list[int]:
    return _wild(names) if wanted == ANY else [i for i, name in enumerate(names) if name == wanted]


def _wild(names: tuple[str, ...]) -> list[int]:
    """What any NIC is: all of them, or the nameless one that stands for that."""
    return [names.index("")] if "" in names else list(range(len(names)))


def packed(pairs: Round, places: Sequence[int]) -> list[Round]:
    """Each pair in the first round in which both of its ends are free. ``places``: by end, what it takes up (itself, or
    an end that it shares a NIC with)."""
    taken: dict[int, int] = defaultdict(int)  # rounds as bits
    rounds: list[Round] = []
    for a, b in pairs:
        free = ~(taken[places[a]] | taken[places[b]])
        bit = free & -free
        taken[places[a]] |= bit
        taken[places[b]] |= bit
        number = bit.bit_length() - 1
        if number == len(rounds):
            rounds.append([])
        rounds[number].append((a, b))
    return rounds


def sample(nodes: int, partners: int) -> list[Round]:
    """Each node with at least ``partners`` others: so many rounds of :func:`all_pairs`, and one more where in each
    round one node rests.

    They are as far apart as can be, by a step that has no divisor in common with the number of rounds: then two that
    follow each other join all nodes in one chain, and with 2 partners or more no part of the group stays apart.
    """
    rounds = all_pairs(nodes)
    count = min(len(rounds), partners + nodes % 2)
    step = next(s for s in range(max(1, len(rounds) // (count + 1)), len(rounds) + 1) if gcd(s, len(rounds)) == 1)
    return [rounds[i * step % len(rounds)] for i in range(count)]


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
    seats = list(range(nodes + nodes % 2))  # of an odd group the last seat is nobody's
    half = len(seats) // 2
    rounds: list[Round] = []
    for _ in range(len(seats) - 1):
        facing = zip(seats[:half], seats[: half - 1 : -1], strict=True)
        if nodes % 2:
            facing = ((a, b) for a, b in facing if a < nodes and b < nodes)  # type: ignore[assignment]
        rounds.append([(a, b) if (a < b) == (a + b) % 2 else (b, a) for a, b in facing])
        seats = [seats[0], seats[-1], *seats[1:-1]]
    return rounds
