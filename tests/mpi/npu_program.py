"""What test_npu.py runs on every rank, each a node of its own: the probe of NPU ports, over a stand-in for hccn_tool.

Arguments: the folder that the test has laid out. Prints a JSON list of the rank's measurements.
"""

from __future__ import annotations

import json
import os
import sys
import time
from pathlib import Path

import mpi4py
import msgspec

mpi4py.rc.initialize = False
from mpi4py import MPI  # noqa: E402

from cwai_bench.launch.world import MpiGroup  # noqa: E402
from cwai_bench.model import Emitted, Measurement, ProbeSpec, Scalar  # noqa: E402
from cwai_bench.probes import Context, Options, World, npu  # noqa: E402
from cwai_bench.probes.transport import Kind  # noqa: E402

SPECS = ("npu.bandwidth#0", "npu.bandwidth#2", "npu.latency#0", "npu.latency#1")


def main(folder: Path) -> None:
    MPI.Init()
    comm = MPI.COMM_WORLD
    nodes = tuple(f"node{rank + 1}" for rank in range(comm.size))
    node = nodes[comm.rank]
    os.environ["PATH"] = f"{folder / node}:{os.environ['PATH']}"
    npu.DEVICES = folder / node / "dev"
    npu.START_SECONDS, npu.FINISH_SECONDS, npu.LIMIT, npu.TRIES = 0.5, 1.0, 4.0, 3
    emitted: list[Measurement] = []

    def beat(_progress: dict[str, Scalar]) -> None:
        return None

    def told(found: Emitted) -> None:
        assert isinstance(found, Measurement)
        emitted.append(found)

    options = Options(transport="npu")
    world = World(comm.size, nodes, True)
    kinds: tuple[Kind, ...] = ("bandwidth", "latency")
    for kind in kinds:
        for spec in npu._plan(kind)(world, options):
            if isinstance(spec, ProbeSpec) and spec.id in SPECS:
                group = MpiGroup(comm, nodes)
                npu._measure(kind)(Context(group, spec, node, told, beat, time.monotonic() + 120))
                npu.DEVICES = folder / node / "first"  # the rest is quicker shown with one
    print(json.dumps(msgspec.to_builtins(emitted)))
    MPI.Finalize()


if __name__ == "__main__":
    main(Path(sys.argv[1]))
