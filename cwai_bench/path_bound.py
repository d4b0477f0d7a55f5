"""What a transfer over several paths can reach at best, from what each path carries alone.

While nothing happens that is the sum of the paths. Of a path that is lost or slowed down while the transfer runs, all
that is left from then on goes at the rate of what is left. A path that comes and goes counts for nothing once it began
to: what it carries in between is a gift.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from statistics import median
from typing import Literal, NamedTuple

from cwai_bench.model import Measurement, stats_of

Scenario = Literal["as_is", "cut", "degraded", "flapping"]
SCENARIOS: tuple[Scenario, ...] = ("as_is", "cut", "degraded", "flapping")
DUE: dict[Scenario, float] = {"as_is": 0.95, "cut": 0.95, "degraded": 0.95, "flapping": 0.90}
"""Shares of the bound below which our own policy is a warning: what it must reach on links of known rates in ``make
bench`` (docs/bench-multipath.md), there of nominal rates and 0.97 as it is; here of rates that were measured as well,
with the scatter of both."""


class Trouble(NamedTuple):
    """``path`` is lost at ``begin`` (seconds after the first byte), or carries ``rate`` bytes per second from then
    on."""

    path: str
    begin: float
    rate: float = 0.0


def bound(size: int, rates: Mapping[str, float], trouble: Trouble | None = None) -> float:
    """Bytes per second that ``size`` bytes can be moved at over paths with these ``rates`` (B/s); 0 without any."""
    total = sum(rates.values())
    if trouble is None or total <= 0 or total * trouble.begin >= size:
        return total
    left = total - rates.get(trouble.path, 0.0) + min(trouble.rate, rates.get(trouble.path, 0.0))
    if left <= 0:
        return 0.0
    return size / (trouble.begin + (size - total * trouble.begin) / left)


OURS, ALONE = "pull", "alone"
PATH, TRANSFER = "multipath.path", "multipath.transfer"
"""Metrics: what a path carried alone, and what all of them carried at once by a policy, in B/s."""


@dataclass(frozen=True)
class Figures:
    """What was measured in a scenario between two nodes, or within one. Medians over the repetitions, in B/s:
    ``alone`` by path, ``goodput`` by policy, those without one left out. ``size``: bytes of a transfer."""

    lane: str
    scenario: Scenario
    within_node: bool
    alone: dict[str, float]
    goodput: dict[str, float]
    size: int
    trouble: Trouble | None
    measurements: list[Measurement]

    @property
    def sum(self) -> float:
        return math.fsum(self.alone.values())

    @property
    def bound(self) -> float:
        return bound(self.size, self.alone, self.trouble)

    def share(self, policy: str = OURS) -> float | None:
        """Of the bound; None where either is not known, and within a node, whose paths share its processor."""
        if self.within_node or policy not in self.goodput or self.bound <= 0:
            return None
        return self.goodput[policy] / self.bound


def figures_of(ms: Iterable[Measurement]) -> list[Figures]:
    """Of all scenarios, in the order in which they were measured. A saved report, which has no samples, says the same.
    First looks at a path (repetition 0) count where there is nothing else."""
    by_lane: dict[tuple[str, str, str], list[Measurement]] = {}
    for m in ms:
        if m.metric in (PATH, TRANSFER):
            key = m.spec, str(m.parameters.get("scenario")), str(m.parameters.get("lane"))
            by_lane.setdefault(key, []).append(m)
    return [_figures(scenario, lane, found) for (_, scenario, lane), found in by_lane.items() if scenario in SCENARIOS]


def _figures(scenario: str, lane: str, ms: list[Measurement]) -> Figures:
    looks: dict[str, list[float]] = {}
    alone: dict[str, list[float]] = {}
    goodput: dict[str, list[float]] = {}
    sizes: list[int] = []
    trouble: list[Trouble] = []
    for m in ms:
        stats = m.stats or stats_of(m.samples)
        given = m.parameters
        if m.metric == PATH:
            seen = alone if given.get("repetition") else looks
            seen.setdefault(m.subject.id, []).extend([] if stats is None or m.status != "ok" else [stats.p50])
        elif stats is not None and m.status == "ok":
            goodput.setdefault(str(given.get("policy")), []).append(stats.p50)
            sizes.append(int(given.get("bytes", 0)))
            if "planted" in given:
                at, rate = given.get("planted_at", 0.0), given.get("planted_rate", 0.0)
                trouble.append(Trouble(str(given["planted"]), float(at), float(rate)))
    paths = {name: alone.get(name) or looks.get(name) or [0.0] for name in (*looks, *alone)}
    return Figures(
        lane,
        scenario,  # type: ignore[arg-type]
        any(m.parameters.get("within_node") is True for m in ms),
        {name: median(rates) for name, rates in paths.items()},
        {policy: median(rates) for policy, rates in goodput.items()},
        int(median(sizes)) if sizes else 0,
        trouble[len(trouble) // 2] if trouble else None,
        ms,
    )
