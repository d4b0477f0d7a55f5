"""Judge a large group of nodes, in a process of its own so that others can tell its memory. Prints one JSON line.

The nodes are made from a recorded one, and each differs in what differs between like nodes: load, uptime, free memory,
serial numbers and GUIDs of its GPUs, NICs and modules, temperatures, counters. One in a hundred has something wrong.
"""

from __future__ import annotations

import json
import re
import sys
import time
from pathlib import Path

import msgspec

from cwai_bench.baseline import from_facts
from cwai_bench.checks import CHECKS, ConsistencyCheck, sources_for
from cwai_bench.discover import read_node
from cwai_bench.judge import check_facts
from cwai_bench.model import Facts, Status

GOOD = Path(__file__).resolve().parents[1] / "fixtures" / "nodes" / "good"

# Of a source, what stands in the recording and what stands there on node n.
VARIED: dict[str, tuple[tuple[str, str], ...]] = {
    "proc/uptime": ((r"^\d+", "{million}"),),
    "proc/meminfo": ((r"MemAvailable: +\d+", "MemAvailable: {billion}"),),
    "proc/loadavg": ((r"^\S+ \S+ \S+", "{load} {load} {load}"),),
    "call:nvml": (
        (r"GPU-........", "GPU-{n:08x}"),
        (r'"serial":"\d{4}', '"serial":"{n:06d}'),
        (r'"temperature":\d+', '"temperature":{warm}'),
        (r'"power":\d+', '"power":{warm}'),
    ),
    "call:rdma": ((r"c203:00d1", "{high:04x}:{low:04x}"), (r"\b(8|9)12345", "\\g<1>{n:05d}")),
    "call:network": ((r'"rx_packets":\d{3}', '"rx_packets":1{n}'),),
    "$ ibv_devinfo": ((r"c203:00d1", "{high:04x}:{low:04x}"),),
    "$ ethtool -m": ((r"MT2345FT", "MT{n:06d}"), (r": \d\d\.00 degrees", ": {warm}.00 degrees")),
    "$ mlxlink": ((r"MT2345FT", "MT{n:06d}"),),
}


def group(good: Facts, nodes: int) -> list[Facts]:
    rules = {
        source: [(re.compile(was, re.M), becomes) for was, becomes in changes]
        for source in good.readings
        for start, changes in VARIED.items()
        if source.startswith(start)
    }
    made = []
    for n in range(nodes):
        told = {
            "n": n,
            "high": n >> 16,
            "low": n & 0xFFFF,
            "warm": 30 + n % 17,
            "million": 10**6 + n,
            "billion": f"{2 * 10**9 - n} kB",
            "load": f"{n % 97 / 100:.2f}" if n % 100 else "999.0",
        }
        readings = dict(good.readings)
        for source, changes in rules.items():
            text = readings[source].text
            for was, becomes in changes:
                text = was.sub(becomes.format(**told), text)
            readings[source] = msgspec.structs.replace(readings[source], text=text)
        made.append(msgspec.structs.replace(good, node=f"node{n:05d}", readings=readings))
    return made


def main() -> None:
    nodes = int(sys.argv[1])
    good = read_node("", GOOD, sources_for(CHECKS), time.monotonic() + 60)
    facts = group(good, nodes)
    compared = [check.info.id for check in CHECKS.values() if isinstance(check, ConsistencyCheck)]
    started = time.perf_counter()
    listed = check_facts(facts, CHECKS)
    size = len(msgspec.json.encode(listed))
    held = check_facts(facts, compared, baseline=from_facts(good))
    size += len(msgspec.json.encode(held))
    took = time.perf_counter() - started
    print(
        json.dumps(
            {
                "items": len(CHECKS),
                "seconds": took,
                "json": size,
                "wrong": sum(len(v.nodes) for v in listed if v.check == "cpu.load" and v.status is Status.WARN),
                "ill": sorted({v.check for v in [*listed, *held] if v.status in (Status.FAIL, Status.WARN)}),
            }
        )
    )


if __name__ == "__main__":
    main()
