"""A grid of pairs: which of them are bad, what is to be tried again, and which part that names.

Pure, and the same on every rank: all compute one plan from the same figures. Import it where it is used: it needs
numpy.

A pair is bad, each of these by itself:

- it failed: it was tried, and no figure came of it;
- it is below ``fail_below`` (0.90) of what was expected of it, where that is known, and more than half of *low* (see
  below) under its peers: what is below its expected value as all others are accuses nobody, and is told of all;
- it is far from its peers: pairs of the same two rails (``mlx5_0`` to ``mlx5_0``; groups of fewer than ``PEERS`` count
  as one). Depth is the share of the centre that is missing (of latency: that is too much), the centre being the median
  of the pairs that no suspect end is in, the spread 1.4826 × MAD of their depths (the standard deviation of normal
  noise, Rousseeuw and Croux 1993), and never less than ``SPREAD`` (0.05). Bad is a depth beyond
  ``z × spread × sqrt(1/k + 1/m)``: k figures against m others, z the normal quantile at which one clean grid in a
  thousand (``ALARM``) has any such (Bonferroni), of bandwidth at most three quarters missing (``QUARTER``: more no
  scatter explains); and beyond the *floor*: 10 % less, of latency half as much again, for
  a switch more on the way is no fault. A pair is *low* beyond three quarters of the floor. So noise of 5 % accuses no
  part, however large the grid.

A part is suspect when three quarters (``SHARE``) of its pairs are low. It is named when they are bad together (the mean
of what no single one of them decides), at least two partners say so that are fine with somebody else, and no other
suspect is fine with it: two that are bad are not fine with one another, but two behind one bad switch are. A node is
named for all its NICs; else a NIC, or what it sends or receives alone; else a path, when both of its ends are fine with
others at least as often as not. What is left is ambiguous.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from statistics import NormalDist
from typing import TYPE_CHECKING, Literal

import numpy as np

from cwai_bench.goodput import DEFAULTS, Thresholds
from cwai_bench.model import Finding, FindingKind, PairFigure

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Floats = NDArray[np.float64]
    Bools = NDArray[np.bool_]
    Ints = NDArray[np.int64]

SHARE = 0.75
SPREAD = 0.05
ALARM = 1e-3
PEERS = 6
QUARTER = 0.75
FEW = 30
"""Calm pairs below which the scatter is taken of all pairs but those of the worst node."""
LATENCY_FLOOR = 0.5
PROOF, PROOF_FINE = 16, 6
"""Pairs kept as proof of a finding: bad ones, and fine ones of the same partners or ends."""
PATHS = 32
"""Paths named one by one; where more are bad, something larger is, and it is not told apart."""
PAIRS_AGAIN = 256
"""Single pairs tried again, the worst first."""

Cell = tuple[int, int]
Direction = Literal["", "out", "in"]


@dataclass(frozen=True)
class Grid:
    """One metric from end to end. ``value[i, j]``: from ``ends[i]`` to ``ends[j]``, nan where there is none.

    ``failed``: tried, and nothing came of it. ``expected``: nan where unknown. Ends are ``node/NIC`` or ``node``, in
    natural order; what an end measured with itself is not looked at.
    """

    ends: tuple[str, ...]
    metric: str
    unit: str
    value: Floats
    failed: Bools
    expected: Floats | None = None
    higher_is_better: bool = True

    @property
    def tried(self) -> Bools:
        """Pairs of two ends that have a figure, or have failed."""
        tried: Bools = self.failed | np.isfinite(self.value)
        return tried & ~np.eye(len(self.ends), dtype=bool)

    def below(self, share: float) -> Bools:
        """Pairs with a figure that does not reach ``share`` of the expected one."""
        if self.expected is None:
            return np.zeros_like(self.failed)
        with np.errstate(invalid="ignore"):
            ratio = self.value / self.expected if self.higher_is_better else self.expected / self.value
            return (ratio < share) & self.tried & ~self.failed


@dataclass(frozen=True)
class Suspects:
    """Ends that look bad with whomever they met or might, and single pairs (source, target)."""

    ends: list[int]
    pairs: list[Cell]


def node_of(end: str) -> str:
    return end.partition("/")[0]


# --------------------------------------------------------------------------------------------- looking


@dataclass
class _Seen:
    """A grid looked at. ``depth``: nan where nothing was tried, inf where that is bad by itself."""

    grid: Grid
    tried: Bools
    depth: Floats
    low: Bools
    centre: Floats
    """The usual figure for each pair, of its peers."""
    suspect: Bools
    spread: float
    calm: int
    """How many figures the centre rests on."""
    floor: float

    def limit(self, figures: int, chances: int) -> float:
        """Depth beyond which ``figures`` together are no noise, when there are ``chances`` for it."""
        z = NormalDist().inv_cdf(1 - ALARM / max(1, chances))
        noise = z * self.spread * math.sqrt(1 / figures + 1 / max(1, self.calm))
        return max(self.floor, min(noise, QUARTER) if self.grid.higher_is_better else noise)


def _look(grid: Grid, limits: Thresholds) -> _Seen:
    tried = grid.tried
    sign = 1.0 if grid.higher_is_better else -1.0
    with np.errstate(invalid="ignore"):
        value = np.where(tried & ~grid.failed & (grid.value > 0), grid.value, np.nan)
    measured = np.isfinite(value)
    dead = tried & ~measured
    floor = 1 - limits.fail_below if grid.higher_is_better else LATENCY_FLOOR
    # No pair is faster than its link, but many are nearer than others: the best latencies are not the usual ones.
    better = 0.75 if grid.higher_is_better else 0.6
    below = grid.below(limits.fail_below)
    groups = _groups(grid, measured)
    suspect = np.zeros(len(grid.ends), dtype=bool)
    calm = np.zeros_like(tried)
    for _ in range(3):  # the centre tells the suspects, and those that are none tell the centre
        centre = np.full(value.shape, np.nan)
        for cells in groups:
            centre.flat[cells] = sign * _centre(sign * value.flat[cells], calm.flat[cells], 0.75 * floor, better)
        bare = np.isnan(centre)
        depth = np.where(measured & bare, 0.0, sign * (1 - value / centre))  # without peers nothing is far from them
        hard = dead | (below & (bare | (depth > 0.375 * floor)))
        low = hard | (np.nan_to_num(depth, nan=-1.0) > 0.75 * floor)
        count = tried.sum(0) + tried.sum(1)
        bad = low.sum(0) + low.sum(1)
        suspect = (count > 0) & (bad >= count - _skipped(count))
        calm = ~(suspect[:, None] | suspect[None, :]) & measured
    noise = [depth[calm]]
    if noise[0].size < FEW:  # a few tell little of the spread, above all when those that scatter are the suspects
        noise = [_without_the_worst(grid, np.where(measured, depth, np.nan))]
    around = np.abs(np.concatenate(noise))
    spread = max(SPREAD, 1.4826 * float(np.median(around))) if around.size else SPREAD
    return _Seen(
        grid, tried, np.where(hard, np.inf, depth), low, centre, suspect, spread, int(np.count_nonzero(calm)), floor
    )


def _without_the_worst(grid: Grid, depth: Floats) -> Floats:
    """Depths of all pairs but those of the node whose end does worst, around their median: how much figures scatter
    that are no fault of one node. Where a second one is bad they scatter more, and less is named. ``depth`` is nan
    where nothing was measured."""
    both = [np.concatenate([depth[i], depth[:, i]]) for i in range(len(depth))]
    per_end = [float(np.nanmedian(own)) if np.isfinite(own).any() else -math.inf for own in both]
    worst = node_of(grid.ends[int(np.argmax(per_end))])
    others = [i for i, end in enumerate(grid.ends) if node_of(end) != worst]
    rest = depth[np.ix_(others, others)]
    rest = rest[np.isfinite(rest)]
    centred: Floats = rest - np.median(rest) if rest.size else rest
    return centred


def _skipped(count: Ints) -> Ints:
    """Of so many figures, how many may be better than the level."""
    skipped: Ints = np.floor((1 - SHARE) * count).astype(np.int64)
    return skipped


def _together(depths: Floats) -> float:
    """How deep they are together: their mean, none counted as more than 1.5 times what three quarters reach."""
    at = int((1 - SHARE) * depths.size)
    return float(np.minimum(depths, 1.5 * np.partition(depths, at)[at]).mean())


def _groups(grid: Grid, measured: Bools) -> list[Ints]:
    """Flat indices of the pairs of the same two rails, small groups thrown together; none of fewer than three."""
    rails = {name: i for i, name in enumerate(dict.fromkeys(end.partition("/")[2] for end in grid.ends))}
    rail = np.array([rails[end.partition("/")[2]] for end in grid.ends], dtype=np.int64)
    flat = np.flatnonzero(measured)
    group = (rail[:, None] * len(rails) + rail[None, :]).ravel()[flat]
    order = np.argsort(group, kind="stable")
    cuts = np.flatnonzero(np.diff(group[order])) + 1
    found = np.split(flat[order], cuts)
    small = [cells for cells in found if cells.size < PEERS]
    pooled = [np.concatenate(small)] if small else []
    return [cells for cells in [*(c for c in found if c.size >= PEERS), *pooled] if cells.size >= 3]


def _centre(values: Floats, calm: Bools, near: float, better: float) -> float:
    """The usual figure: the median of the calm; where there are none, of what is near to the quantile ``better``."""
    if calm.any():
        return float(np.median(values[calm]))
    good = float(np.quantile(values, better))
    return float(np.median(values[values >= good - near * abs(good)]))


# ---------------------------------------------------------------------------------------------- naming


@dataclass(frozen=True)
class _Part:
    """What a finding is made of: numbers of ends, bad pairs, and who vouches for it."""

    kind: FindingKind
    ends: tuple[int, ...]
    cells: list[Cell]
    tried: int
    partners: list[int] = field(default_factory=list)
    direction: Direction = ""


def _explain(seen: _Seen, limits: Thresholds) -> list[_Part]:
    """The parts that are bad, the largest first; what is explained by one is not looked at for the next."""
    grid, n = seen.grid, len(seen.grid.ends)
    good = seen.tried & ~seen.low
    fine = good | good.T
    friends = fine & (good | ~seen.tried) & (good | ~seen.tried).T
    known = fine.sum(1)
    left = seen.tried.copy()
    taken: set[int] = set()
    parts: list[_Part] = []

    def part(kind: FindingKind, ends: Sequence[int], direction: Direction = "") -> bool:
        """Name ``ends`` if enough partners vouch for it that they are bad."""
        own = np.array(ends)
        if (friends[own] & seen.suspect).any():
            return False
        vouches = ~seen.suspect & (known - fine[:, own].sum(1) > 0)
        vouches[own] = False
        who = np.flatnonzero(vouches)
        cells: list[Cell] = []
        if direction != "in":
            cells += [(int(i), int(who[j])) for i in own for j in np.flatnonzero(left[i, who])]
        if direction != "out":
            cells += [(int(who[j]), int(i)) for i in own for j in np.flatnonzero(left[who, i])]
        if not cells:
            return False
        rows, columns = np.array(cells).T
        low = seen.low[rows, columns]
        met = {j if i in ends else i for (i, j), is_low in zip(cells, low, strict=True) if is_low}
        if len(met) < 2 or not _together(seen.depth[rows, columns]) > seen.limit(len(cells), n):
            return False
        bad = [cell for cell, is_low in zip(cells, low, strict=True) if is_low]
        parts.append(_Part(kind, tuple(ends), bad, len(cells), sorted(met), direction))
        if direction != "in":
            left[own] = False
        if direction != "out":
            left[:, own] = False
        return True

    of_node: dict[str, list[int]] = defaultdict(list)
    for i in np.flatnonzero(seen.tried.any(0) | seen.tried.any(1)):
        of_node[node_of(grid.ends[i])].append(int(i))
    for ends in of_node.values():
        if len(ends) > 1 and seen.suspect[ends].all() and part("node", ends):
            taken.update(ends)
    for i in np.flatnonzero(seen.suspect):
        end = int(i)
        if end not in taken and part(_kind_of(grid.ends[end]), [end]):
            taken.add(end)
    sends: tuple[Direction, Direction] = ("out", "in")
    for axis, way in ((1, sends[0]), (0, sends[1])):
        count = left.sum(axis)
        bad = (seen.low & left).sum(axis)
        for i in np.flatnonzero((bad >= 2) & (bad >= count - _skipped(count))):
            part(_kind_of(grid.ends[int(i)]), [int(i)], way)
    return [*parts, *_paths(seen, left, fine), *_all_alike(seen, left, limits)]


def _kind_of(end: str) -> FindingKind:
    return "nic" if "/" in end else "node"


def _paths(seen: _Seen, left: Bools, fine: Bools) -> list[_Part]:
    """Single pairs: a path where both ends are fine with others, else what hangs together, undecided."""
    depth = np.where(left, seen.depth, np.nan)
    chances = int(np.count_nonzero(seen.tried))
    with np.errstate(invalid="ignore"):
        beyond = depth > seen.limit(1, chances)
        less = np.minimum(depth, depth.T)
        both = (
            seen.low
            & seen.low.T
            & ((less + np.minimum(np.maximum(depth, depth.T), 1.5 * less)) / 2 > seen.limit(2, chances))
        )
    bad = np.where(left, beyond | both, False)
    mutual = bad | bad.T
    often, seldom = mutual.sum(1), (fine & ~mutual).sum(1)
    well = seldom >= np.maximum(1, often)
    pairs: dict[Cell, list[Cell]] = defaultdict(list)
    for i, j in np.argwhere(bad):
        pairs[min(int(i), int(j)), max(int(i), int(j))].append((int(i), int(j)))
    single = [pair for pair in pairs if well[list(pair)].all()]
    tangled = [pair for pair in pairs if not well[list(pair)].all()]
    found: list[_Part] = []
    if len(single) > PATHS:
        ends = sorted({end for pair in single for end in pair})
        found.append(_Part("ambiguous", tuple(ends), [c for p in single for c in pairs[p]], _tries(seen, ends)))
        single = []
    for pair in single:
        cells = pairs[pair]
        tried = int(seen.tried[pair]) + int(seen.tried[pair[::-1]])
        ends_of = cells[0] if len(cells) == 1 else pair
        others = sorted(int(k) for k in np.flatnonzero(fine[list(pair)].any(0)) if k not in pair)
        found.append(_Part("path", ends_of, cells, tried, others, "out" if len(cells) < tried else ""))
    for together in _tangles(tangled):
        ends = sorted({end for pair in together for end in pair if not well[end]})
        found.append(_Part("ambiguous", tuple(ends), [c for p in together for c in pairs[p]], _tries(seen, ends)))
    return found


def _tries(seen: _Seen, ends: Sequence[int]) -> int:
    among = np.zeros(len(seen.grid.ends), dtype=bool)
    among[list(ends)] = True
    return int(np.count_nonzero(seen.tried & (among[:, None] | among[None, :])))


def _tangles(pairs: Sequence[Cell]) -> list[list[Cell]]:
    """Pairs that hang together by an end."""
    of: dict[int, int] = {}

    def root(end: int) -> int:
        while of.setdefault(end, end) != end:
            end = of[end]
        return end

    for a, b in pairs:
        of[max(root(a), root(b))] = min(root(a), root(b))
    together: dict[int, list[Cell]] = defaultdict(list)
    for pair in pairs:
        together[root(pair[0])].append(pair)
    return list(together.values())


def _all_alike(seen: _Seen, left: Bools, limits: Thresholds) -> list[_Part]:
    """What is below its expected value, and is so like its peers."""
    cells = np.argwhere(seen.grid.below(limits.fail_below) & left & ~np.isinf(seen.depth))
    if not len(cells):
        return []
    return [_Part("ambiguous", (), [(int(i), int(j)) for i, j in cells], int(np.count_nonzero(seen.tried)))]


# --------------------------------------------------------------------------------------------- again


def suspects(grid: Grid, limits: Thresholds = DEFAULTS) -> Suspects:
    """What is to be tried again before it is named."""
    seen = _look(grid, limits)
    parts = [part for part in _explain(seen, limits) if part.ends]
    ends = {end for part in parts if part.kind != "path" for end in part.ends}
    cells = [cell for part in parts if part.kind in ("path", "ambiguous") for cell in part.cells]
    cells.sort(key=lambda cell: (-seen.depth[cell], cell))
    return Suspects(sorted(ends), cells[:PAIRS_AGAIN])


def retests(grid: Grid, suspects: Suspects, partners: int = 2, limits: Thresholds = DEFAULTS) -> list[Cell]:
    """What is measured again, each pair once: the suspect pairs, and every suspect end, and the ends of those pairs,
    with ``partners`` ends of other nodes that are known to be good, both ways where the grid has both.

    Good: no suspect, and fine with somebody. Those of its rail come first, then of rails that it met, of these the
    nearest after it in the order of the ends, so that not all suspects meet the same. Where nobody is good there is
    nobody to tell by.
    """
    seen = _look(grid, limits)
    n = len(grid.ends)
    doubted = {*suspects.ends, *(end for pair in suspects.pairs for end in pair)}
    good = seen.tried & ~seen.low
    trusted = [int(p) for p in np.flatnonzero(good.any(0) | good.any(1)) if not seen.suspect[p] and p not in doubted]
    if not trusted:
        return []
    both_ways = bool((seen.tried & seen.tried.T).any())
    rails = [end.partition("/")[2] for end in grid.ends]
    cells = dict.fromkeys(suspects.pairs)
    for end in sorted(doubted):
        rail = rails[end]
        met = {rails[p] for p in np.flatnonzero(seen.tried[end] | seen.tried[:, end])}
        others = [p for p in trusted if node_of(grid.ends[p]) != node_of(grid.ends[end])]
        others.sort(key=lambda p: (rails[p] != rail, rails[p] not in met, (p - end) % n))
        for partner in others[:partners]:
            there, back = (min(end, partner), max(end, partner)), (max(end, partner), min(end, partner))
            ways = [there, back] if both_ways else [back if seen.tried[back] else there]
            cells.update(dict.fromkeys(ways))
    return list(cells)


def named(grid: Grid, again: Grid | None = None, limits: Thresholds = DEFAULTS) -> list[Finding]:
    """What the figures say of the parts. ``again``: the second look (the same ends), nan where there was none.

    A part that was bad at first and is not by both looks is a flake.
    """
    seen = _look(grid, limits)
    first = _explain(seen, limits)
    if again is None:
        return [_finding(part, seen, None) for part in first]
    merged = _merged(seen, again, first, limits)
    both = _look(merged, limits)
    second = _explain(both, limits)
    looked = again.tried
    held = {end for part in second for end in part.ends}
    once: list[_Part] = []
    for part in first:
        if not part.ends or held.intersection(part.ends):
            continue
        own = np.zeros(len(grid.ends), dtype=bool)
        own[list(part.ends)] = True
        was_looked_at = looked & (own[:, None] | own[None, :])
        once.append(replace(part, kind="flake") if was_looked_at.any() else part)
    said = {cell for part in (*second, *once) for cell in part.cells}
    for i, j in np.argwhere(again.failed & looked & seen.tried & ~seen.low):
        cell = (int(i), int(j))
        if cell not in said and not held.intersection(cell):
            once.append(_Part("flake", cell, [cell], 1, [], "out"))
    return [_finding(part, both, again, grid) for part in second] + [_finding(p, seen, again, grid) for p in once]


def _merged(seen: _Seen, again: Grid, first: Sequence[_Part], limits: Thresholds) -> Grid:
    """Both looks as one: the mean where both are low, else the better one; of an end that was suspect and is not by its
    second look, what was not looked at again is forgotten."""
    grid, looked = seen.grid, again.tried
    value, failed = grid.value.copy(), grid.failed.copy()
    sign = 1.0 if grid.higher_is_better else -1.0
    known = seen.centre[np.isfinite(seen.centre)]
    usual = np.median(known) if known.size else np.nan  # for pairs that had not met before
    with np.errstate(invalid="ignore"):
        depth = sign * (1 - again.value / np.where(np.isnan(seen.centre), usual, seen.centre))
        low = looked & (again.failed | (depth > 0.75 * seen.floor) | again.below(limits.fail_below))
        mean = (grid.value + again.value) / 2
    measured_twice = np.isfinite(grid.value) & np.isfinite(again.value) & ~failed & ~again.failed
    take = looked & (~seen.tried | (seen.low & ~low) | (seen.low & failed & ~again.failed))
    value[take], failed[take] = again.value[take], again.failed[take]
    average = looked & seen.low & low & measured_twice
    value[average] = mean[average]
    for part in first:
        if part.kind == "path":
            continue
        for end in part.ends:
            own = np.zeros_like(looked)
            own[end] |= part.direction != "in"
            own[:, end] |= part.direction != "out"
            if 0 < 2 * np.count_nonzero(own & low) < np.count_nonzero(own & looked) or not (own & low).any():
                stale = own & ~looked & (own & looked).any()
                value[stale], failed[stale] = np.nan, False
    expected = grid.expected
    if expected is not None and again.expected is not None:
        expected = np.where(np.isfinite(expected), expected, again.expected)
    return replace(grid, value=value, failed=failed, expected=expected)


# --------------------------------------------------------------------------------------------- telling


def _finding(part: _Part, seen: _Seen, again: Grid | None, grid: Grid | None = None) -> Finding:
    grid = grid or seen.grid
    ends = seen.grid.ends
    worst = sorted(part.cells, key=lambda cell: (-seen.depth[cell], cell))
    rows, columns = np.array(worst).T
    values = grid.value[rows, columns]
    if again is not None and part.kind != "flake":
        values = np.where(np.isfinite(values), values, again.value[rows, columns])
    centre = seen.centre[rows, columns]
    if not np.isfinite(centre).any():
        centre = seen.centre
    usual = _middle(centre)
    names = [ends[i] for i in part.ends]
    return Finding(
        kind=part.kind,
        ends=names,
        nodes=list(dict.fromkeys(map(node_of, names))),
        bad=len(part.cells),
        tried=part.tried,
        proof=[_figure(cell, grid, again) for cell in worst[:PROOF]],
        partners=len(part.partners),
        direction=part.direction,
        observed=_middle(values),
        expected=None if grid.expected is None else _middle(grid.expected[rows, columns]),
        usual=usual,
        fine=[_figure(cell, grid, again) for cell in _fine(part, seen)],
    )


def _fine(part: _Part, seen: _Seen) -> list[Cell]:
    """Fine pairs that say that it is not the others: of a path those of its ends, else those among the partners."""
    good = seen.tried & ~seen.low
    bad = set(part.ends)
    if part.kind == "path":
        found: list[Cell] = []
        for end in part.ends:
            own = [(end, int(k)) for k in np.flatnonzero(good[end])] + [
                (int(k), end) for k in np.flatnonzero(good[:, end])
            ]
            found += [cell for cell in own if not bad.issuperset(cell)][: PROOF_FINE // 2]
        return found
    found = []
    for partner in part.partners:
        own = [(partner, int(k)) for k in np.flatnonzero(good[partner]) if int(k) not in bad]
        own += [(int(k), partner) for k in np.flatnonzero(good[:, partner]) if int(k) not in bad]
        found += own[:1]
        if len(found) >= PROOF_FINE:
            break
    return list(dict.fromkeys(found))


def _figure(cell: Cell, grid: Grid, again: Grid | None) -> PairFigure:
    i, j = cell
    return PairFigure(
        grid.ends[i],
        grid.ends[j],
        _number(grid.value[i, j]),
        None if again is None else _number(again.value[i, j]),
        again is not None and bool(again.tried[i, j]),
        None if grid.expected is None else _number(grid.expected[i, j]),
    )


def _number(value: float) -> float | None:
    return float(value) if math.isfinite(value) else None


def _middle(values: Floats) -> float | None:
    known = values[np.isfinite(values)]
    return float(np.median(known)) if known.size else None
