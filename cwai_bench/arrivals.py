"""Who makes the others wait: what the order of arrival at a collective says of ranks and nodes.

Pure: arrival times in, findings out. Import it where it is used: it needs numpy.

Where all wait for all (a barrier, an operation that synchronises) the rank with the longest time is the victim: it came
first and waited. The one to look at came last, and has the shortest time. So ranks are told by when they came, never by
their times. These say something else where an operation does not end on all ranks at once: a leaf of a broadcast is let
go later than the root, comes later to the next one, and that much is taken off.

A part (a rank, or all ranks of a node) stands out when both of these hold:

- it came after everybody else by more than the *floor* (20 us; 5 % of the operation's median time; what the caller
  says) in the median iteration of at least 18 of 20 stretches of the run. Of two ranks that are alike, one does so by
  chance in 4 runs of 10,000 (binomial), of more ranks hardly ever, however their noise is distributed; and stretches,
  not single iterations, are counted because a scheduler's order lasts for some iterations (then 200 are wanted);
- where there are six others or more, it is no end of a row: its median is farther from the median of theirs than
  ``z × 1.4826 × MAD`` (Rousseeuw and Croux 1993), z the normal quantile at which one group in a thousand has any such.

What is found is left out, and the rest looked at again, with a higher floor. Ranks of several nodes that are late alike
are ambiguous, and so is whatever is no later than its clock and the others' are uncertain by.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import comb
from statistics import NormalDist
from typing import TYPE_CHECKING, Literal

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Floats = NDArray[np.float64]
    Bools = NDArray[np.bool_]
    Ints = NDArray[np.int64]

LEAST = 20
"""Iterations below which nothing is said."""
STRETCHES, HELD = 20, 18
FLOOR = 20e-6
"""Seconds. Ranks leave a barrier on one machine within some microseconds of one another, over a network within its
latency."""
SHARE = 0.05
"""Of the operation's time: less than what repeated measurements of it differ by."""
PEERS = 6
"""Others from which on their scatter tells what is usual."""
ALARM = 1e-3
FINDINGS = 8
NEXT = 0.25
"""Of what the others wait for a part, what they must wait for the next one: who waits long is woken in an order of its
own, which is the first one's doing."""
HICCUP = 10.0
"""Times its usual lateness (and the floor, and what three quarters of all arrivals keep to) beyond which a rank's
iteration is a hiccup."""
REPEATED = 8
"""Hiccups of one rank, for each that is usual and one more, from which on they are its own: where they come to all
alike by chance (Poisson), one of two ranks has so many in two runs of 1,000 at most, of more ranks more seldom."""

Why = Literal["", "alike", "clocks"]


@dataclass(frozen=True)
class Late:
    """Ranks that come last: one, several of one node, or (``whole``) all of a node.

    ``why``: empty when they are named; else why the facts do not decide, and ``ranks`` are candidates: ``alike`` (ranks
    of several nodes are late alike), ``clocks`` (a clock's offset may be wrong by as much).

    Seconds, medians over iterations: ``late`` after the first rank, ``lost`` what the others wait for these alone,
    ``own`` in the operation, of these ranks, and ``longest`` of the rank ``victim``, of all others the one that is
    longest in it; None where times are not known. Of a second finding all is told as if those before it were not there.
    ``last``: the share of iterations in which they came last. ``confidence``: that it is no chance, 0 to 1.
    """

    ranks: tuple[int, ...]
    nodes: tuple[str, ...]
    whole: bool
    why: Why
    late: float
    last: float
    lost: float
    confidence: float
    own: float | None = None
    longest: float | None = None
    victim: int | None = None


@dataclass(frozen=True)
class Arrivals:
    """``findings``: none when nobody stands out. ``hiccups``: of each rank, how often it was far later than it usually
    is. ``iterations``: those that were looked at; fewer than ``LEAST`` say nothing."""

    findings: tuple[Late, ...]
    hiccups: tuple[int, ...]
    iterations: int


def judged(
    lateness: Floats,
    nodes: Sequence[str],
    *,
    times: Floats | None = None,
    uncertainty: Floats | float = 0.0,
    floor: float = FLOOR,
    ends_together: bool = True,
) -> Arrivals:
    """``lateness[r, i]``: seconds at which rank r, on ``nodes[r]``, came to iteration i, from any origin that all ranks
    share. ``times[r, i]``: seconds that it spent there after that. ``uncertainty``: seconds by which the lateness that
    each rank tells may be off. ``floor``: seconds below which nobody is called late. ``ends_together``: no rank is let
    go before all have come; without times that is taken for granted.

    Iterations that some rank does not have (nan) are left out. Raises ValueError when shapes do not fit.
    """
    ranks, iterations = lateness.shape
    if len(nodes) != ranks or (times is not None and times.shape != lateness.shape):
        raise ValueError(f"arrivals of {ranks} x {iterations}, {len(nodes)} nodes, times of other shapes")
    lateness = lateness - lateness.min(0)
    usual = None
    if times is not None:
        if not ends_together:
            let_go = np.zeros_like(lateness)
            let_go[:, 1:] = (times - times.min(0))[:, :-1]
            lateness = np.maximum(lateness - let_go, 0.0)
        usual = np.nanmedian(times, axis=1)
        floor = max(floor, SHARE * float(np.median(usual)))
    lateness = lateness[:, np.isfinite(lateness).all(axis=0)]
    count = lateness.shape[1]
    if ranks < 2 or count < LEAST:
        return Arrivals((), (0,) * ranks, count)
    of_node = np.unique(np.array(nodes), return_inverse=True)[1]
    unsure = np.broadcast_to(np.asarray(uncertainty, dtype=np.float64), (ranks,))
    hiccups = tuple(_hiccups(lateness, floor).tolist())
    active = np.ones(ranks, dtype=bool)
    findings: list[Late] = []
    while len(findings) < FINDINGS and active.sum() >= min(ranks, max(3, (ranks + 1) // 2)):
        found = _Look(lateness, active, of_node, unsure, usual, floor).latest(nodes)
        if found is None:
            break
        findings.append(found)
        floor = max(floor, NEXT * found.lost)
        active[list(found.ranks)] = False
        if found.why:
            break
    return Arrivals(tuple(findings), hiccups, count)


def repeated(hiccups: Sequence[int]) -> list[int]:
    """Ranks whose hiccups are their own: those of noise come to all alike."""
    if len(hiccups) < 2:
        return []
    usual = sorted(hiccups)[(len(hiccups) - 1) // 2]
    return [r for r, count in enumerate(hiccups) if count >= REPEATED * (usual + 1)]


def _hiccups(lateness: Floats, floor: float) -> Ints:
    """By rank: how often it became far later than it usually is. Iterations in a row are one event."""
    after = lateness - _ordered(lateness, 4)
    usual = np.maximum(np.median(after, axis=1), max(floor, float(np.quantile(after, 0.75))))
    far = after >= HICCUP * usual[:, None]
    counts: Ints = far[:, 0].astype(np.int64) + np.count_nonzero(far[:, 1:] & ~far[:, :-1], axis=1)
    return counts


def _ordered(lateness: Floats, part: int) -> Floats:
    """By iteration: the lateness that the first half (2) or quarter (4) of the ranks do not pass. None in between: the
    mean of two would more often be late than either."""
    at = (len(lateness) - 1) // part
    found: Floats = np.partition(lateness, at, axis=0)[at]
    return found


class _Look:
    """The ranks that are ``active``, each by its number among them."""

    def __init__(
        self, lateness: Floats, active: Bools, of_node: Ints, unsure: Floats, times: Floats | None, floor: float
    ) -> None:
        self.ranks = np.flatnonzero(active)
        self.lateness = lateness[self.ranks]
        self.of_node = of_node[self.ranks]
        self.unsure = unsure[self.ranks]
        self.times = None if times is None else times[self.ranks]
        self.floor = floor
        # After the first quarter, so that up to three quarters may be late.
        self.median = np.median(self.lateness - _ordered(self.lateness, 4), axis=1)

    def latest(self, nodes: Sequence[str]) -> Late | None:
        """What stands out most: all ranks of a node before one of them, what is late alike after it."""
        top = int(np.argmax(self.median))
        if self.median[top] <= self.floor:
            return None
        alone = np.arange(len(self.ranks)) == top
        alike = self.median >= self.median[top] / 2
        mates = self.of_node == self.of_node[top]
        for part in [mates] * bool(alike[mates].all()) + [alone, alike]:
            found = None if part.all() else self._found(part, nodes)
            if found is not None:
                return found
        return None

    def _found(self, part: Bools, nodes: Sequence[str]) -> Late | None:
        rest = ~part
        others = self.lateness[rest].max(0)
        lost = self.lateness[part].max(0) - others
        # Of many the last one is late by chance alone; as a part they are late when the usual one of them is.
        lead = _ordered(self.lateness[part], 2) - others
        held = sum(float(np.median(some)) > self.floor for some in np.array_split(lead, STRETCHES))
        if held < HELD or not self._far(part):
            return None
        own, longest, victim = None, None, None
        if self.times is not None:
            at = int(np.argmax(np.where(rest, self.times, -np.inf)))
            own, longest, victim = float(np.median(self.times[part])), float(self.times[at]), int(self.ranks[at])
        concerned = np.unique(self.of_node[part])
        whole = bool(part[np.isin(self.of_node, concerned)].all())
        why: Why = ""
        if len(concerned) > 1:
            why = "alike"
        elif np.median(lead) <= self.unsure[part].max() + np.median(self.unsure[rest]):
            why = "clocks"
        named = self.ranks if why == "clocks" and len(self.ranks) == 2 else self.ranks[part]
        return Late(
            ranks=tuple(named.tolist()),
            nodes=tuple(dict.fromkeys(nodes[r] for r in named)),
            whole=whole and not why,
            why=why,
            late=float(np.median(np.median(self.lateness[part], axis=1))),
            last=float(np.mean(lost > 0)),
            lost=float(np.median(lost)),
            confidence=_confidence(held),
            own=own,
            longest=longest,
            victim=victim,
        )

    def _far(self, part: Bools) -> bool:
        """Whether it is farther from the others than these scatter, where they are enough to tell."""
        others = self.median[~part]
        if others.size < PEERS:
            return True
        middle = np.median(others)
        z = NormalDist().inv_cdf(1 - ALARM / len(self.ranks))
        scatter = 1.4826 * np.median(np.abs(others - middle))
        return bool(np.median(self.median[part]) - middle > z * scatter)


def _confidence(held: int) -> float:
    """One of two that are alike is last in so many stretches, or more, by chance with the rest of this."""
    return 1 - 2 * sum(comb(STRETCHES, k) for k in range(held, STRETCHES + 1)) / float(2**STRETCHES)
