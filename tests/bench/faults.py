"""How many of the planted faults are found, over all recorded nodes, and how often a node that is well is blamed."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path

from tests.bench.table import Row
from tests.bench.tcp import Progress
from tests.unit.conftest import EVERY
from tests.unit.fault_matrix import Matrix, differences, faults

AT_LEAST = 60


def found(progress: Progress) -> Iterator[Row]:
    what = "planted faults found, each by exactly the items that should"
    every, differ = list(faults()), differences()
    tick = progress(what, len(every) + len(differ))
    with tempfile.TemporaryDirectory() as folder:
        matrix = Matrix(Path(folder))
        alarms = [alarm for node in EVERY for alarm in matrix.false_alarms(node)]
        missed: list[str] = []
        for fault in every:
            missed += [f"{fault}: {wrong[0]}"] if (wrong := matrix.missed(fault)) else []
            tick()
        for check, plant in differ.items():
            missed += [f"{check}: {wrong[0]}"] if (wrong := matrix.differing(check, plant)) else []
            tick()
    planted = len(every) + len(differ)
    yield Row(
        what,
        f"{planted - len(missed)}/{planted}, false alarms {len(alarms)}, {len(EVERY)} nodes",
        f"all of {AT_LEAST} or more, 0",
        not missed and not alarms and planted >= AT_LEAST,
        note="; ".join([*missed, *alarms][:3]) or f"{len(differ)} of them differences from a baseline",
    )
