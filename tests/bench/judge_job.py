"""Judge a large group of nodes, in a process of its own so that its memory can be told. Prints one JSON line.

The nodes are copies of a recorded one: each differs in what differs between like nodes (load, uptime, free memory), and
one in a hundred has something wrong.
"""

from __future__ import annotations

import json
import resource
import sys
import time
from pathlib import Path

import msgspec

from cwai_bench.baseline import from_facts
from cwai_bench.checks import CHECKS, sources_for
from cwai_bench.discover import read_node
from cwai_bench.judge import check_facts
from cwai_bench.model import Facts, Status

GOOD = Path(__file__).resolve().parents[1] / "fixtures" / "nodes" / "good"


def group(good: Facts, nodes: int) -> list[Facts]:
    meminfo = good.readings["proc/meminfo"]
    available = next(line for line in meminfo.text.splitlines() if line.startswith("MemAvailable"))
    made = []
    for i in range(nodes):
        readings = dict(good.readings)
        load = f"{i % 97 / 100:.2f} 0.10 0.05 1/2000 {i}\n" if i % 100 else "999.0 999.0 999.0 9/2000 1\n"
        for source, text in (
            ("proc/loadavg", load),
            ("proc/uptime", f"{10**6 + i}.00 1.00\n"),
            ("proc/meminfo", meminfo.text.replace(available, f"MemAvailable: {2 * 10**9 - i} kB")),
        ):
            readings[source] = msgspec.structs.replace(readings[source], text=text)
        made.append(msgspec.structs.replace(good, node=f"node{i:05d}", readings=readings))
    return made


def main() -> None:
    nodes = int(sys.argv[1])
    good = read_node("", GOOD, sources_for(CHECKS), time.monotonic() + 60)
    facts = group(good, nodes)
    started = time.perf_counter()
    listed = check_facts(facts, CHECKS)
    size = len(msgspec.json.encode(listed))
    compared = check_facts(facts, CHECKS, baseline=from_facts(good))
    size += len(msgspec.json.encode(compared))
    took = time.perf_counter() - started
    print(
        json.dumps(
            {
                "items": len(CHECKS),
                "seconds": took,
                "memory": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024,
                "json": size,
                "wrong": sum(v.check == "cpu.load" and v.status is Status.WARN for v in compared),
            }
        )
    )


if __name__ == "__main__":
    main()
