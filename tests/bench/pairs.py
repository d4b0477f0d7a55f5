"""Two programs measured in turn, many times within one run, and compared neighbour by neighbour.

Two runs of the very same program differ, on a shared machine by tens of per cent, and drift. So: peer, ours, peer,
ours, … peer. Each figure of ours is held against a neighbour that ran just before or just after it, by turns, so that
neither order nor drift favours anyone; and each peer against the peer two steps before it, as a control of how much
the same thing differs from itself. On a noisy machine more pairs are taken, until the median is known well enough:
what decides is how much the ratios scatter, never what they say.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Spread:
    """Median, and the 10th and 90th percentile (nearest rank)."""

    median: float
    p10: float
    p90: float
    count: int

    @classmethod
    def of(cls, values: Sequence[float]) -> Spread:
        """Raises ValueError when there are none."""
        if not values:
            raise ValueError("a spread of nothing")
        ordered = sorted(values)

        def at(p: float) -> float:
            return ordered[max(0, math.ceil(p * len(ordered)) - 1)]

        return cls(statistics.median(ordered), at(0.1), at(0.9), len(ordered))

    @property
    def error(self) -> float:
        """Standard error of the median: that of a normal sample whose p10 and p90 these are."""
        sigma = (self.p90 - self.p10) / (2 * 1.2816)
        return 1.2533 * sigma / math.sqrt(self.count)

    def __str__(self) -> str:
        return f"{self.median:.3f} [{self.p10:.3f}–{self.p90:.3f}]"


@dataclass(frozen=True)
class Chain:
    """``peer`` has one figure more than ``ours``: it stands on both sides of each."""

    ours: list[float]
    peer: list[float]

    def ratios(self) -> list[float]:
        """Ours against a neighbour: the one before it, then the one after it, by turns."""
        return [mine / self.peer[i + i % 2] for i, mine in enumerate(self.ours)]

    def differences(self) -> list[float]:
        """As :meth:`ratios`, ours minus the neighbour."""
        return [mine - self.peer[i + i % 2] for i, mine in enumerate(self.ours)]

    def controls(self) -> list[float]:
        """A/A: each peer against the one before it, by turns upside down, as it is with ours."""
        pairs = zip(self.peer, self.peer[1:], strict=False)
        return [b / a if i % 2 == 0 else a / b for i, (a, b) in enumerate(pairs)]


def alternate(
    ours: Callable[[], float],
    peer: Callable[[], float],
    pairs: int,
    tick: Callable[[], None],
    *,
    most: int = 0,
    error: float = 0.0,
) -> Chain:
    """Measure both in turn; ``tick`` is called after each figure.

    After ``pairs`` of them it goes on, up to ``most``, while the median ratio has a standard error above ``error``.
    """

    def take(measure: Callable[[], float]) -> float:
        value = measure()
        if not (math.isfinite(value) and value > 0):
            raise ValueError(f"{measure} gave {value}, which is no measurement")
        tick()
        return value

    chain = Chain([], [take(peer)])
    while len(chain.ours) < pairs or (len(chain.ours) < most and Spread.of(chain.ratios()).error > error):
        chain.ours.append(take(ours))
        chain.peer.append(take(peer))
    return chain
