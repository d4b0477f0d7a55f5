"""Gather and judge the arrivals of many ranks, in a process of its own so that its memory can be told: one JSON line.

Gathered means: read from journals as keepers deliver them, one to a node of eight ranks, with the times beside. One
rank comes 1 ms late.
"""

from __future__ import annotations

import json
import resource
import sys
import time

import msgspec
import numpy as np

from cwai_bench import journal
from cwai_bench.judge.arrivals import arrival_verdicts
from cwai_bench.model import Measurement, NodeEnd, Plan, ProbeSpec, Record, RunHeader, Scalar, Subject
from tests.golden.sample_reports import RDMA_WRITE

EACH = 8
LATE, BY = 19, 1e-3
SPEC = ProbeSpec("mpi.all_reduce#0", "mpi.all_reduce", RDMA_WRITE, {"operation": "all_reduce"}, 1.0, 10.0)


def records(rank: int, iterations: int) -> list[Measurement]:
    rng = np.random.default_rng(rank)
    node = f"node{rank // EACH}"
    given: dict[str, Scalar] = {"operation": "all_reduce", "bytes": 8, "ranks": int(sys.argv[1])}

    def told(what: str, samples: list[float], more: dict[str, Scalar]) -> Measurement:
        return Measurement(
            f"mpi.all_reduce.{what}",
            "s",
            Subject("rank", f"{node}/rank{rank}"),
            samples,
            given | more,
            1.0,
            1.0,
            node,
            rank,
            SPEC.id,
        )

    late = 5e-6 * rng.exponential(size=iterations) + (BY if rank == LATE else 0.0)
    spent = 3e-5 + 1e-6 * rng.exponential(size=iterations)
    return [told("time", spent.tolist(), {}), told("arrival", late.tolist(), {"clock_uncertainty": 1e-6})]


def files(ranks: int, iterations: int) -> dict[str, bytes]:
    made = {}
    for first in range(0, ranks, EACH):
        node = f"node{first // EACH}"
        header = RunHeader(
            run_id="20260101T000000Z-collective-abcdef",
            run_type="collective",
            node=node,
            writer=node,
            command=["cwai-bench", "collective"],
            version="0",
            started=0.0,
            world_size=ranks,
            utc_offset=0,
            plan=Plan([], [SPEC], [], 1.0),
            environment={},
        )
        own = [m for rank in range(first, min(ranks, first + EACH)) for m in records(rank, iterations)]
        lines: list[Record] = [header, *own, NodeEnd(node, 9.0)]
        made[journal.file_name(node, node)] = b"".join(msgspec.json.encode(line) + b"\n" for line in lines)
    return made


def main() -> None:
    ranks, iterations = int(sys.argv[1]), int(sys.argv[2])
    given = files(ranks, iterations)
    started = time.perf_counter()
    run = journal.merge([journal.parse(data, name) for name, data in given.items()])
    gathered = time.perf_counter()
    verdicts = arrival_verdicts(run, SPEC)
    print(
        json.dumps(
            {
                "gathered": gathered - started,
                "judged": time.perf_counter() - gathered,
                "json": sum(map(len, given.values())),
                "memory": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024,
                "named": [v.subject.id for v in verdicts],
                "planted": [f"node{LATE // EACH}/rank{LATE}"],
            }
        )
    )


if __name__ == "__main__":
    main()
