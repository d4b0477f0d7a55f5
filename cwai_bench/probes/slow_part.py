"""Which part makes a collective slow: sub-groups that are measured next, until a node, a card or a link is named.

Pure, and the same on every rank: all compute one plan from the same figures. Import it where it is used: it needs
numpy. Whoever drives it makes the communicators of a round, measures all its groups at once (they share no member), and
may stop after any round: what is decided by then is what is told.

1. *Rails*, where several nodes have several cards each: the n-th cards of all nodes together. If one rail is far below
   the others, the search goes on within it.
2. *Pairs* of neighbours in the ring (of few, all pairs), held against one another by the rules of
   :mod:`cwai_bench.matrix`; what these make suspect meets partners that are known to be good.
3. *Halves*, where all pairs are well: what is slow needs more than two. Parts are numbered in binary, and for each
   digit those with a 0 are measured beside those with a 1. The half in which the bad part is, is slow; a bad link is
   in neither when its ends differ in that digit, and then the exclusive or of two such digits puts both into one half.
   So log2(n) rounds tell a part, and as many again at most a link, which then is measured as a pair.

Nobody is named by halves alone unless they are right when asked again; of two parts neither is.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from cwai_bench.matrix import Grid, named, node_of, retests, suspects
from cwai_bench.model import Finding
from cwai_bench.probes.pairs import all_pairs, packed, ring

FEW = 6
"""Parts of which all pairs are measured: five rounds, hardly more than a ring needs."""
CLEAR, ALIKE, BETWEEN = 0.75, 0.92, 0.84
"""The lower of two figures over the higher. With noise of 5 % two that are alike come below the first once in 3,000
times, above the second three times in four; what lies between is measured again and held against the third."""
LOOKS = 3
"""How often two halves are measured at most."""
CHECKS = 3
"""Other halves, in which a part that halves have told must be on the slow side as well."""

Group = tuple[int, ...]
Round = list[Group]
Figures = Sequence[float | None]
"""Bus bandwidth of each group of a round, in B/s; None where it failed."""
Kind = Literal["node", "card", "link", "ambiguous"]
Rounds = Generator[Round, Figures, None]


@dataclass(frozen=True)
class Part:
    """What is slow: ``members`` are numbers of parts, of a link both ends, of ``ambiguous`` the candidates.

    ``observed``: the median figure with it, ``usual``: of the others, in B/s; None where nothing came of it, or nothing
    is known. ``proof``: groups that were slow. ``again``: it was measured again, and was the same.
    """

    kind: Kind
    members: Group
    observed: float | None
    usual: float | None
    proof: list[tuple[Group, float | None]]
    again: bool


class Search:
    """``parts``: ``node`` or ``node/card``, by number. ``whole``: the figure of all of them together."""

    def __init__(self, parts: Sequence[str], whole: float | None = None) -> None:
        self.parts = tuple(parts)
        self.whole = whole
        self._nodes: dict[str, list[int]] = {}
        for number, part in enumerate(parts):
            self._nodes.setdefault(node_of(part), []).append(number)
        self._among: _Among | None = None

    def rounds(self) -> Rounds:
        """What to measure next, one round after another; each is answered with the figures of its groups."""
        several = 1 < len(self._nodes) < len(self.parts)
        if not several:
            kind: Kind = "card" if len(self._nodes) == 1 else "node"
            self._among = _Among([(i,) for i in range(len(self.parts))], kind, self.whole)
        else:
            yield from self._rails()
        if self._among is None:
            self._among = _Among([tuple(own) for own in self._nodes.values()], "node", self.whole)
        yield from self._among.rounds()

    def _rails(self) -> Rounds:
        rails: dict[str, list[int]] = {}
        for number, part in enumerate(self.parts):
            rails.setdefault(part.partition("/")[2], []).append(number)
        groups = [tuple(rail) for rail in rails.values() if len(rail) > 2]
        if len(groups) < 2:
            return
        figures = yield groups
        values = [figure or 0.0 for figure in figures]
        worst = int(np.argmin(values))
        others = np.delete(values, worst)
        if values[worst] < CLEAR * others.min():
            self._among = _Among([(i,) for i in groups[worst]], "card", figures[worst])

    def found(self) -> list[Part]:
        """What is named by all that has been measured so far; of what is not decided, the candidates."""
        return [] if self._among is None else self._among.found()


def drive(search: Search, measure: Callable[[Round], Figures | None]) -> list[Part]:
    """``measure`` gives the figures of a round, the same on every rank, or None when there is no time for it."""
    rounds = search.rounds()
    try:
        figures = measure(next(rounds))
        while figures is not None:
            figures = measure(rounds.send(figures))
    except StopIteration:
        pass
    return search.found()


class _Among:
    """The search among ``units``, each of one part or, of a node, of all its cards."""

    def __init__(self, units: Sequence[Group], kind: Kind, whole: float | None) -> None:
        self.units, self.kind, self.whole = units, kind, whole
        n = len(units)
        self.first, self.second = _Figures(n), _Figures(n)
        self.by_halves: list[Part] = []

    def rounds(self) -> Rounds:
        n = len(self.units)
        if n < 3:
            return
        yield from self._measured(all_pairs(n) if n <= FEW else ring(n, directed=False), self.first)
        yield from self._again()
        if n <= FEW or self._findings() or self._is_well():
            return
        told = yield from self._halves()
        if len(told) == 2:
            yield from self._measured([[(told[0], told[1])]], self.first)
            yield from self._again()
        elif told:
            yield from self._checked(told[0])

    def found(self) -> list[Part]:
        if len(self.units) < 2:
            return []
        if len(self.units) == 2:
            return [Part("ambiguous", self._members((0, 1)), self.whole, None, [], again=False)]
        return [self._part(finding) for finding in self._findings()] + self.by_halves

    def _is_well(self) -> bool:
        """All of them together do as well as pairs do."""
        usual = self.first.value[np.isfinite(self.first.value)]
        return self.whole is not None and usual.size > 0 and self.whole > ALIKE * float(np.median(usual))

    # ---- pairs

    def _measured(self, rounds: Sequence[list[tuple[int, int]]], into: _Figures) -> Rounds:
        for pairs in rounds:
            figures = yield [self._members(pair) for pair in pairs]
            for pair, figure in zip(pairs, figures, strict=True):
                into.take(pair, figure)

    def _again(self) -> Rounds:
        """What pairs make suspect, with two partners that are good; where that does not decide, with four."""
        for partners in (2, 4):
            grid = self.first.grid()
            plan = [pair for pair in retests(grid, suspects(grid), partners) if not self.second.tried[pair]]
            yield from self._measured(packed(plan, range(len(self.units))), self.second)
            if not any(finding.kind == "ambiguous" for finding in self._findings()):
                return

    def _findings(self) -> list[Finding]:
        again = self.second.grid() if self.second.tried.any() else None
        return [finding for finding in named(self.first.grid(), again) if finding.kind != "flake"]

    def _part(self, finding: Finding) -> Part:
        ends = finding.ends
        kinds: dict[str, Kind] = {"node": self.kind, "path": "link"}
        kind = kinds.get(finding.kind, "ambiguous")
        if finding.direction:  # these pairs have none: it is bad with some of its partners, and who knows why
            kind, ends = "ambiguous", [end for p in finding.proof for end in (p.source, p.target)]
        proof = [
            (self._members((int(p.source), int(p.target))), p.again if p.value is None else p.value)
            for p in finding.proof
        ]
        again = any(p.looked_again for p in finding.proof)
        members = self._members(sorted({int(end) for end in ends}))
        return Part(kind, members, finding.observed, finding.usual, proof, again)

    def _members(self, numbers: Sequence[int]) -> Group:
        return tuple(sorted(part for number in numbers for part in self.units[number]))

    # ---- halves

    def _halves(self) -> Generator[Round, Figures, Group]:
        """The unit, or the two ends of a link, that all halves speak of; nothing when they do not agree."""
        n = len(self.units)
        digits = (n - 1).bit_length()
        codes = [(i << digits) // n for i in range(n)]  # spread over all numbers, so that halves are of one size
        mine, differ = 0, []
        for digit in range(digits):
            slow = yield from self._slow_half([code >> digit & 1 for code in codes])
            if slow is None:
                differ.append(digit)
            else:
                mine |= slow << digit
        theirs = mine
        for digit in differ[:1]:
            theirs |= 1 << digit
        for digit in differ[1:]:
            slow = yield from self._slow_half([code >> differ[0] & 1 ^ code >> digit & 1 for code in codes])
            if slow is None:
                return ()
            mine |= slow << digit
            theirs |= (1 - slow) << digit
        if mine not in codes or theirs not in codes:
            return ()
        return (codes.index(mine),) if not differ else (codes.index(mine), codes.index(theirs))

    def _slow_half(self, side: Sequence[int]) -> Generator[Round, Figures, int | None]:
        """Which of the two halves is slow, or None where they are alike."""
        halves = [[i for i, at in enumerate(side) if at == one] for one in (0, 1)]
        if min(map(len, halves)) < 2:  # two ends cannot both be where one part is
            return int(len(halves[1]) > len(halves[0]))
        sums = np.zeros(2)
        for _ in range(LOOKS):
            figures = yield [self._members(half) for half in halves]
            sums += [figure or 0.0 for figure in figures]
            ratio = sums.min() / sums.max() if sums.max() > 0 else 1.0
            if ratio < CLEAR or ratio > ALIKE:
                break
        return int(np.argmin(sums)) if ratio < BETWEEN else None

    def _checked(self, unit: int) -> Rounds:
        """Name ``unit`` if it is on the slow side of halves that it was not told by."""
        proof: list[tuple[Group, float | None]] = []
        usual: list[float] = []
        n = len(self.units)
        for check in range(CHECKS):
            # Multiples of 2^32 over the golden ratio are well spread (Knuth, TAOCP 3, 6.4); so are 3 and 5 of each.
            order = sorted(range(n), key=lambda i: i * (2 * check + 1) * 2654435769 % 2**32)
            sides = set(order[: n // 2]), set(order[n // 2 :])
            side = 0 if unit in sides[0] else 1
            halves = [self._members(sorted(half)) for half in sides]
            figures = yield list(halves)
            mine, other = figures[side], figures[1 - side]
            if other is None or (mine or 0.0) >= BETWEEN * other:
                return
            proof.append((halves[side], mine))
            usual.append(other)
        observed = [figure for _, figure in proof if figure is not None]
        self.by_halves = [
            Part(
                self.kind,
                self.units[unit],
                float(np.median(observed)) if observed else None,
                float(np.median(usual)),
                proof,
                again=True,
            )
        ]


class _Figures:
    """Figures of pairs of ``n`` units, each pair under the order in which it was asked for."""

    def __init__(self, n: int) -> None:
        self.value = np.full((n, n), np.nan)
        self.failed = np.zeros((n, n), dtype=bool)
        self.tried = np.zeros((n, n), dtype=bool)

    def take(self, pair: tuple[int, int], figure: float | None) -> None:
        self.tried[pair] = True
        self.failed[pair] = figure is None
        self.value[pair] = np.nan if figure is None else figure

    def grid(self) -> Grid:
        names = tuple(str(i) for i in range(len(self.value)))
        return Grid(names, "busbw", "B/s", self.value.copy(), self.failed.copy())
