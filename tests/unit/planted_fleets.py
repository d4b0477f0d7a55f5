"""Simulated fleets of which one part is slow, and whether anybody could tell it by the bus bandwidth of sub-groups."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from cwai_bench.probes.slow_part import FEW, Figures, Group, Part, Round, Search, drive

USUAL = 3.7e11
NOISE = 0.05


@dataclass(frozen=True)
class Slow:
    """``kind``: ``node`` or ``card``; ``crowd``: such a part in groups of more than two only; ``ring``: a link between
    neighbours, used where both are neighbours in the group; ``link``: one that each group with both ends uses.
    ``share``: what is missing, 1 when nothing comes of it."""

    kind: str
    members: Group
    share: float


class Fleet:
    def __init__(self, seed: int, parts: list[str], noise: float = NOISE) -> None:
        self.rng = np.random.default_rng([seed, len(parts)])
        self.parts, self.noise = parts, noise
        self.slow: list[Slow] = []
        self.rounds = 0

    def figure(self, group: Group) -> float | None:
        value = USUAL * (1 + self.noise * float(self.rng.standard_normal()))
        for slow in self.slow:
            if self.meets(slow, group):
                if slow.share == 1:
                    return None
                value *= 1 - slow.share
        return value

    def meets(self, slow: Slow, group: Group) -> bool:
        if not set(slow.members) <= set(group):
            return False
        if slow.kind == "ring":
            places = [group.index(member) for member in slow.members]
            return abs(places[0] - places[1]) in (1, len(group) - 1)
        return slow.kind != "crowd" or len(group) > 2

    def measure(self, groups: Round) -> Figures:
        self.rounds += 1
        members = [member for group in groups for member in group]
        assert len(members) == len(set(members)), "a part is in two groups at once"
        assert all(list(group) == sorted(group) and len(group) > 1 for group in groups)
        return [self.figure(group) for group in groups]

    def found(self) -> list[Part]:
        return drive(Search(self.parts, self.figure(tuple(range(len(self.parts))))), self.measure)

    def identifiable(self, slow: Slow) -> bool:
        """Whether anybody could tell it from noise, by a rule that knows nothing of how it is found: what is missing,
        in units of the error of ``k`` figures against ``m``, is what the luckiest of as many parts has by chance, and
        four more. k is 2 for a part, and 1 for a link, which only one pair has; of few parts all pairs are known."""
        n = len(self.parts)
        if n < 3:
            return False
        if slow.share == 1:
            return True
        pairs = n * (n - 1) // 2 if n <= FEW else n
        part = slow.kind in ("node", "card", "crowd")
        k = 1 if not part else n - 1 if n <= FEW else 2
        chances = n if part else pairs
        error = self.noise * math.sqrt(1 / k + 1 / max(1, pairs - k))
        return slow.share / error >= math.sqrt(2 * math.log(2 * chances)) + 4


@dataclass(frozen=True)
class Outcome:
    """``rounds``: the most that a fleet took, over the binary logarithm of its size."""

    could: int
    right: int
    blamed: int
    rounds: float
    wrong: list[str]


def size_of(seed: int, rng: np.random.Generator) -> int:
    if seed % 20 == 0:
        return 512
    return int(rng.integers(3, 9)) if seed % 2 else int(rng.integers(9, 129))


def simulate(seeds: range) -> Outcome:
    could = right = blamed = 0
    most = 0.0
    wrong: list[str] = []
    for seed in seeds:
        rng = np.random.default_rng(seed)
        n = size_of(seed, rng)
        kind = str(
            rng.choice(["node", "node", "card", "crowd", "ring", "link"] if n > FEW else ["node", "card", "link"])
        )
        parts = [f"node1/{i}" if kind == "card" else f"node{i}" for i in range(n)]
        fleet = Fleet(seed, parts)
        first = int(rng.integers(n))
        if kind in ("node", "card", "crowd"):
            members: Group = (first,)
        elif kind == "ring":
            members = tuple(sorted((first, (first + 1) % n)))
        else:
            members = tuple(sorted(int(i) for i in rng.choice(n, size=2, replace=False)))
        slow = Slow(kind, members, 1.0 if rng.random() < 0.15 else float(rng.uniform(0.2, 0.8)))
        fleet.slow.append(slow)
        found = fleet.found()
        said = [(part.kind, part.members) for part in found if part.kind != "ambiguous"]
        told = {"ring": "link", "crowd": "node"}.get(kind, kind)
        case = f"seed {seed}: {n} parts, {slow}: {[(p.kind, p.members) for p in found]} in {fleet.rounds} rounds"
        most = max(most, fleet.rounds / math.log2(n))
        if any(part != (told, members) for part in said):
            blamed += 1
            wrong.append(f"blamed {case}")
        if fleet.identifiable(slow):
            could += 1
            if said == [(told, members)]:
                right += 1
            else:
                wrong.append(f"missed {case}")
    return Outcome(could, right, blamed, most, wrong)
