"""What test_collective.py runs on every rank: the native sweep, right and wrong. Prints one JSON line per rank."""

from __future__ import annotations

import json
import sys

import mpi4py

mpi4py.rc.initialize = False
from mpi4py import MPI  # noqa: E402

from cwai_bench import native  # noqa: E402
from cwai_bench.errors import CwaiError  # noqa: E402
from cwai_bench.probes.collective import OPERATIONS  # noqa: E402


def main() -> None:
    MPI.Init()
    comm = MPI.COMM_WORLD
    right = native.MpiSweep(comm, largest=1 << 20)
    points = {}
    for operation in OPERATIONS:
        for dtype in ("float32", "float64", "int32"):
            for size in (1, 8, 1000, 1 << 20):
                point = right.measure(operation=operation, dtype=dtype, bytes=size, most=20)
                points[f"{operation} {dtype} {size}"] = [
                    point.bytes,
                    point.count,
                    len(point.samples),
                    point.wrong,
                    point.first_bad,
                    float(min(point.samples)),
                ]
    wrong = native.MpiSweep(comm, largest=4096, sum=MPI.MAX)  # a library that adds wrongly
    bad = {}
    for operation in ("all_reduce", "reduce_scatter", "reduce"):
        point = wrong.measure(operation=operation, bytes=4096, iterations=3)
        bad[operation] = [point.wrong, point.first_bad, point.count]
    refused = {}
    for name, operation, dtype in (("operation", "all_reduced", "float32"), ("dtype", "all_reduce", "float8")):
        try:
            right.measure(operation=operation, dtype=dtype, bytes=8)
        except CwaiError as e:
            refused[name] = [type(e).__name__, e.message.en, e.message.zh]
    try:
        wrong.measure(operation="broadcast", bytes=8192)
    except CwaiError as e:
        refused["bytes"] = [type(e).__name__, e.message.en, e.message.zh]
    assert [len(b) for b in wrong.buffers] == [4096, 4096]
    given = right.measure(operation="broadcast", bytes=64, iterations=7, warmup=3)
    print(
        json.dumps(
            {
                "rank": comm.rank,
                "points": points,
                "bad": bad,
                "refused": refused,
                "given": [len(given.samples), given.warmup],
            }
        )
    )
    sys.stdout.flush()
    del right, wrong
    MPI.Finalize()


if __name__ == "__main__":
    main()
