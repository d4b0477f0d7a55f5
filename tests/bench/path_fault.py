"""How often what made a path fail is named from probes, on simulated fabrics."""

from __future__ import annotations

from collections.abc import Iterator

from tests.bench.table import Row
from tests.bench.tcp import Progress
from tests.unit.planted_paths import simulate

SEEDS = 200
ORDER = ("blamed", "missed", "silent")
"""What went wrong, the worst first."""


def named(progress: Progress) -> Iterator[Row]:
    """Dead, slow by 30 % or lossy: a NIC, a node, a path, a switch or a link between two; one fault and two at once."""
    for faults in (1, 2):
        what = f"what made a path fail, named from probes, {SEEDS} seeds, 3 to 64 nodes" + (
            ", two at once" if faults > 1 else ""
        )
        tick = progress(what, 1)
        found = simulate(range(SEEDS), faults)
        tick()
        yield Row(
            what,
            f"{found.right}/{found.could} ({100 * found.right / found.could:.1f} %), {found.blamed} accused wrongly; "
            f"of {found.planted - found.right} others {found.ambiguous} ambiguous, {found.unsaid} behind what is named",
            "95 % of the identifiable, 0 accused wrongly",
            found.right >= 0.95 * found.could and not found.blamed,
            note="; ".join(
                [
                    f"{found.rounds:.1f} rounds, {found.probes:.0f} probes",
                    *sorted(found.wrong, key=lambda case: ORDER.index(case.partition(" ")[0]))[:2],
                ]
            ),
        )
