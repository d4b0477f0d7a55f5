"""What test_collective.py runs on every rank: the native sweep, right and wrong. Prints one JSON line per rank."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator

import mpi4py

mpi4py.rc.initialize = False
from mpi4py import MPI  # noqa: E402

from cwai_bench import native  # noqa: E402
from cwai_bench.errors import CwaiError  # noqa: E402
from cwai_bench.probes.collective import OPERATIONS  # noqa: E402


def cases() -> Iterator[tuple[str, str, str, bool, int]]:
    """Every operation with every type, every reduction with some; small, odd and large sizes."""
    for operation in OPERATIONS:
        for in_place in (False, True):
            for dtype in native.ELEMENTS:
                yield operation, dtype, "sum", in_place, 1000
            for size in (1, 1 << 20):
                yield operation, "float32", "sum", in_place, size
            if operation in ("all_reduce", "reduce_scatter", "reduce"):
                for reduction in native.REDUCTIONS:
                    for dtype in ("int8", "float64"):
                        yield operation, dtype, reduction, in_place, 1000


def main() -> None:
    MPI.Init()
    comm = MPI.COMM_WORLD
    right = native.over_mpi(comm, largest=1 << 20)
    points = {}
    for operation, dtype, reduction, in_place, size in cases():
        if not right.can(operation, dtype=dtype, reduction=reduction, in_place=in_place):
            continue
        point = right.measure(
            operation,
            dtype=dtype,
            reduction=reduction,
            in_place=in_place,
            root=comm.size - 1,
            bytes=size,
            warmup=1,
            least=3,
            most=5,
            pipelined=size == 1000,
        )
        (member,) = point.members
        points[f"{operation} {dtype} {reduction} {in_place} {size}"] = [
            point.bytes,
            point.count,
            len(point.times),
            member.wrong,
            member.first_bad,
            float(min(point.times)),
            point.pipelined,
            len(member.lateness),
            float(min(member.lateness)),
        ]
    wrong = native.over_mpi(comm, largest=4096, reductions={"sum": MPI.MAX})  # a library that adds wrongly
    bad = {}
    for operation in ("all_reduce", "reduce_scatter", "reduce"):
        point = wrong.measure(operation, bytes=4096, iterations=3)
        bad[operation] = [point.members[0].wrong, point.members[0].first_bad, point.count]
    refused = {}
    for name, operation, dtype, size in (
        ("operation", "all_reduced", "float32", 8),
        ("dtype", "all_reduce", "float8", 8),
        ("unsupported", "all_reduce", "bfloat16", 8),
        ("bytes", "broadcast", "float32", 8192),
    ):
        try:
            wrong.measure(operation, dtype=dtype, bytes=size)
        except CwaiError as e:
            refused[name] = [type(e).__name__, e.message.en, e.message.zh]
    given = right.measure("broadcast", bytes=64, iterations=7, warmup=3, verify=False)
    late = right.measure("all_reduce", bytes=64, iterations=30, late=0.02 if comm.rank == 1 else 0.0)
    print(
        json.dumps(
            {
                "rank": comm.rank,
                "size": right.size,
                "members": right.members,
                "library": right.library,
                "clock": right.clock,
                "points": points,
                "bad": bad,
                "refused": refused,
                "given": [len(given.times), given.warmup, given.members[0].wrong],
                "late": sorted(late.members[0].lateness)[15],
                "late_time": sorted(late.times)[15],
            }
        )
    )
    sys.stdout.flush()
    del right, wrong
    MPI.Finalize()


if __name__ == "__main__":
    main()
