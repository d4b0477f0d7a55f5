"""Judge and draw all pairs of a large group, in a process of its own so that its memory can be told: one JSON line.

Figures have noise of 1.5 %, which a picture of them keeps; a node, what one sends, and two paths are bad.
"""

from __future__ import annotations

import json
import resource
import sys
import time

import numpy as np

from cwai_bench import render
from cwai_bench.judge import judge
from cwai_bench.matrix import Grid, retests, suspects
from cwai_bench.model import NodeRecord, PairResult, PairResults, Plan, ProbeSpec, RankEvent, Run, Scalar
from tests.golden.sample_reports import RDMA_WRITE
from tests.unit.planted_pairs import Cluster

NOISE = 0.015


def told(grid: Grid, again: bool) -> PairResults:
    pairs = [
        PairResult(grid.ends[i], grid.ends[j], None, "timeout", "timeout")
        if grid.failed[i, j]
        else PairResult(grid.ends[i], grid.ends[j], float(grid.value[i, j]))
        for i, j in np.argwhere(grid.tried)
    ]
    shared: dict[str, Scalar] = {"bytes": 1 << 20, "streams": 4, "direction": "one-way"}
    return PairResults("verbs.bandwidth#0", "verbs.write.bandwidth", "B/s", shared, pairs, again=again)


def main() -> None:
    nodes = int(sys.argv[1])
    cluster = Cluster(1, nodes, 1, NOISE)
    planted = [
        cluster.plant(kind, slow, nodes * part // 8)
        for kind, slow, part in (("node", 0.3, 3), ("out", 0.5, 5), ("link", 1.0, 1), ("way", 0.6, 7))
    ]
    first = cluster.look()
    again = np.zeros_like(cluster.met)
    again[tuple(np.array(retests(first, suspects(first))).T)] = True
    names = [f"node{i}" for i in range(nodes)]
    run = Run(
        run_id="20260101T000000Z-rdma-abcdef",
        run_type="rdma",
        command=["cwai-bench", "rdma"],
        version="0",
        started=0.0,
        finished=10.0,
        utc_offset=0,
        status="complete",
        world_size=nodes,
        plan=Plan([], [ProbeSpec("verbs.bandwidth#0", "verbs.bandwidth", RDMA_WRITE, {}, 1.0, 10.0)], [], 1.0),
        environment={},
        settings={},
        nodes=[NodeRecord(name, [rank], True, True) for rank, name in enumerate(names)],
        facts=[],
        measurements=[],
        events=[RankEvent(rank, name, 9.0, "finished") for rank, name in enumerate(names)],
        pairs=[told(first, False), told(cluster.look(again), True)],
    )
    started = time.perf_counter()
    report = judge(run)
    judged = time.perf_counter()
    page = render.render(report, "html", "en")
    drawn = time.perf_counter()
    saved = len(render.report_to_json(report))
    print(
        json.dumps(
            {
                "judged": judged - started,
                "drawn": drawn - judged,
                "saved": time.perf_counter() - drawn,
                "html": len(page.encode()),
                "json": saved,
                "memory": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024,
                "named": sorted(sorted(f.ends) for m in report.matrices for f in m.findings),
                "planted": sorted(list(fault.named) for fault in planted),
            }
        )
    )


if __name__ == "__main__":
    main()
