"""Probes counted: how likely is what each pair shows, when no part meets it, one, or two."""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

from cwai_bench.errors import UsageError
from cwai_bench.matrix import node_of
from cwai_bench.model import PathPart, PathProbe, PathStatus, PathTally
from cwai_bench.text import Text

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Floats = NDArray[np.float64]
    Bools = NDArray[np.bool_]
    Ints = NDArray[np.int64]

NOISE = 0.01
PRIOR: dict[PathPart, float] = {"nic": -4.0, "node": -4.5, "fabric": -5.5, "path": -6.5}
"""Natural logarithms: one NIC in 55 is bad in a group of which something is; one path in 665. Two at once are as rare
as their product says, and that is meant to be often: a third explanation costs a second look, a wrong one a node."""
SLOW = 0.85
"""Below this share of what it usually reaches a probe is slow: three standard deviations of 5 % noise."""
CONFIGURATION = frozenset((4, 9, 10))
FLUSHED = 5
NO_ENDS = Text(
    "a probe from {source!r} to {target!r} is none between two ends",
    "从 {source!r} 到 {target!r} 的探测不是两端之间的探测",
)
NAME_ENDS = Text(
    "name two different ends, each node/NIC (node1/mlx5_0)", "请给出两个不同的端，各写作 节点/网卡（node1/mlx5_0）"
)
_ALL = (0.999, 0.95, 0.75, 0.5, 0.3, 0.15, 0.06)
"""Shares of probes that a part may make bad which meets all flows; those that are seen come on top."""
_SOME = tuple((rho, s) for rho in (0.75, 0.45, 0.25, 0.12, 0.06) for s in (0.999, 0.4))
_FITTED = 4
"""Ends, and half as many nodes, whose own share of bad probes is tried as well: of a thousand probes 0.22 and 0.25 are
not the same."""
FIRM = 3.0
"""A logarithm of odds beyond which a pair counts as bad, or as fine."""

Pair = tuple[int, int]


def status_of(figure: float | None, usual: float) -> PathStatus:
    """A probe's outcome by its figure, held against what the same pair usually reaches, in the same unit."""
    if figure is None:
        return "failed"
    return "slow" if figure < SLOW * usual else "ok"


class Seen:
    """Probes counted, of which those are bad that are ``worse``. ``pairs[p]``: two ends, the lower number first.

    ``null``, ``one``: log-likelihood of a pair's probes when no part meets it, and when one of each effect does;
    ``alone``: when a path of its own does. ``base``, ``gain``, ``deep``: the same with a path beside as rare as one is.
    """

    def __init__(self, probes: Sequence[PathProbe], worse: PathStatus) -> None:
        self.refused: dict[tuple[str, str], list[PathProbe]] = defaultdict(list)
        cells: dict[tuple[str, str, int], list[int]] = {}
        figures: dict[tuple[str, str], list[float]] = defaultdict(list)
        codes: dict[tuple[str, str], set[int]] = defaultdict(set)
        statuses: dict[tuple[str, str], Counter[str]] = defaultdict(Counter)
        for probe in probes:
            if "/" not in probe.source or "/" not in probe.target or probe.source == probe.target:
                raise UsageError(NO_ENDS.fill(source=probe.source, target=probe.target), NAME_ENDS)
            key = (min(probe.source, probe.target), max(probe.source, probe.target))
            if probe.code in CONFIGURATION:
                self.refused[key].append(probe)
                continue
            if probe.code == FLUSHED or (worse == "slow" and probe.status == "failed"):
                continue
            cell = cells.setdefault((probe.source, probe.target, probe.entropy), [0, 0])
            cell[0] += 1
            cell[1] += probe.status == worse
            statuses[key][probe.status] += 1
            if probe.figure is not None:
                figures[key].append(probe.figure)
            if probe.code:
                codes[key].add(probe.code)
        keys = sorted(statuses)
        self.ends = sorted({end for key in keys for end in key})
        self.nodes = [node_of(end) for end in self.ends]
        number = {end: i for i, end in enumerate(self.ends)}
        self.pairs: list[Pair] = [(number[a], number[b]) for a, b in keys]
        place = {key: p for p, key in enumerate(keys)}
        self.cells: list[list[tuple[int, int, int]]] = [[] for _ in keys]
        for (source, target, entropy), (n, b) in cells.items():
            self.cells[place[min(source, target), max(source, target)]].append((entropy, n, b))
        self.tried = np.array([statuses[key].total() for key in keys], dtype=np.int64)
        self.bad = np.array([statuses[key][worse] for key in keys], dtype=np.int64)
        self.tallies = [
            PathTally(
                *key,
                tried=statuses[key].total(),
                failed=statuses[key]["failed"],
                slow=statuses[key]["slow"],
                entropies=len({e for e, _, _ in self.cells[p]}),
                bad_entropies=len({e for e, _, b in self.cells[p] if b}),
                figure=float(np.median(figures[key])) if figures[key] else None,
                codes=sorted(codes[key]),
            )
            for p, key in enumerate(keys)
        ]
        self.of_end: dict[int, list[int]] = defaultdict(list)
        for p, pair in enumerate(self.pairs):
            for end in pair:
                self.of_end[end].append(p)
        shares = sorted({*_ALL, *self._shares()})
        self.rho, self.s = np.array([*((1.0, s) for s in shares), *_SOME]).T
        self.some: Bools = self.rho < 1
        # What is tried on top stands for the same stretch as the share that is nearest, and has its part of that one's
        # probability: else whatever has a share of its own would be all the likelier for that.
        stretch = [min(_ALL, key=lambda share: abs(share - s)) for s in shares]
        apart = [stretch.count(nearest) for nearest in stretch] + [1] * len(_SOME)
        self.prior: Floats = -np.log(apart) - math.log(len(_ALL) + len(_SOME))
        self._weigh()

    def _shares(self) -> list[float]:
        """Shares of bad probes of the ends that have most pairs with several of them, without those that are dead; and
        of the nodes of which several ends are like that, for one share explains less than one of each end."""
        share = self.bad / np.maximum(self.tried, 1)
        told = (self.bad > 2) & (share > 3 * NOISE) & (share < 0.9)
        own = {end: {p for p in pairs if told[p]} for end, pairs in self.of_end.items()}
        of_node: dict[str, list[int]] = defaultdict(list)
        for end, pairs in own.items():
            if len(pairs) > 1:
                of_node[self.nodes[end]].append(end)
        groups = [[end] for ends in of_node.values() for end in ends]
        whole = [ends for ends in of_node.values() if len(ends) > 1]
        return [*self._most(own, groups, _FITTED), *self._most(own, whole, _FITTED // 2)]

    def _most(self, own: Mapping[int, set[int]], groups: Sequence[Sequence[int]], count: int) -> list[float]:
        """The shares of the ``count`` groups of ends that have most bad probes."""
        pairs = [sorted(set().union(*(own[end] for end in ends))) for ends in groups]
        most = sorted((int(self.bad[these].sum()), i) for i, these in enumerate(pairs))[-count:]
        return [float(self.bad[pairs[i]].sum() / self.tried[pairs[i]].sum()) for _, i in most]

    def _weigh(self) -> None:
        rho, s, size = self.rho, self.s, len(self.rho)
        kinds = sorted({(n, b) for cells in self.cells for _, n, b in cells})
        column = {kind: k for k, kind in enumerate(kinds)}
        counts = np.zeros((len(self.cells), len(kinds)))
        for p, cells in enumerate(self.cells):
            for _, n, b in cells:
                counts[p, column[n, b]] += 1
        self._counts = counts
        n, b = (np.array(kinds, dtype=float).reshape(-1, 2).T)[:, :, None]

        def likelihood(bad: Floats) -> Floats:
            out: Floats = np.exp(b * np.log(bad) + (n - b) * np.log1p(-bad))
            return out

        def either(*shares: Floats) -> Floats:
            fine = np.prod(np.broadcast_arrays(*(1 - each for each in shares)), axis=0)
            out: Floats = (1 - (1 - NOISE) * fine)[None]
            return out

        none = likelihood(np.full((1, 1), NOISE))
        first = likelihood(either(s))
        self.null: Floats = counts @ np.log(none[:, 0])
        self.one: Floats = counts @ np.log((1 - rho) * none + rho * first)
        both = likelihood(either(np.repeat(s, size), np.tile(s, size))).reshape(len(kinds), size, size)
        mixed = (
            np.multiply.outer(1 - rho, 1 - rho) * none[:, :, None]
            + np.multiply.outer(rho, 1 - rho) * first[:, :, None]
            + np.multiply.outer(1 - rho, rho) * first[:, None, :]
            + np.multiply.outer(rho, rho) * both
        )
        self._log_two: Floats = np.log(mixed).reshape(len(kinds), size * size)
        self.alone = self.averaged(self.one)
        self.base = self._or_path(self.null, 0)
        self.gain: Floats = self._or_path(self.one, 1) - self.base[:, None]

    def _or_path(self, log: Floats, axes: int) -> Floats:
        rare = PRIOR["path"]
        alone = self.alone.reshape(len(self.alone), *[1] * axes)
        out: Floats = np.logaddexp(math.log1p(-math.exp(rare)) + log, rare + alone)
        return out

    def deep(self, pairs: Ints) -> Floats:
        """What two parts together gain on each of ``pairs`` beyond what each gains alone: pair × effect × effect."""
        alone, base = self.alone[pairs, None, None], self.base[pairs, None, None]
        size = len(self.rho)
        log = (self._counts[pairs] @ self._log_two).reshape(len(pairs), size, size)
        rare = PRIOR["path"]
        both = np.logaddexp(math.log1p(-math.exp(rare)) + log, rare + alone) - base
        gain = self.gain[pairs]
        out: Floats = both - gain[:, :, None] - gain[:, None, :]
        return out

    def averaged(self, log: Floats) -> Floats:
        """Over all effects, which are the last axis."""
        return log_sum(log + self.prior, -1)

    def effects(self, log: Floats) -> Floats:
        """How probable each effect is."""
        log = log + self.prior
        out: Floats = np.exp(log - log.max(axis=-1, keepdims=True))
        out /= out.sum(axis=-1, keepdims=True)
        return out

    def firm(self) -> Floats:
        """How surely each pair is bad rather than fine, by its best effect: a logarithm of odds."""
        out: Floats = self.alone - self.null
        return out


def log_sum(log: Floats, axis: int | tuple[int, ...]) -> Floats:
    """Logarithm of the sum of exponentials."""
    top = log.max(axis=axis, keepdims=True)
    out: Floats = np.log(np.exp(log - top).sum(axis=axis)) + np.squeeze(top, axis)
    return out
