"""One end of our TCP measurements as a process of its own, as the peers have it: one thread per end, lanes or not.

Reads one JSON line per measurement and answers with one; the listening end first answers with its port.
"""

from __future__ import annotations

import json
import sys
from typing import Any

from cwai_bench import native

TOKEN = bytes(native.TOKEN_BYTES)
ADDRESS = "127.0.0.1"


def main() -> None:
    for line in sys.stdin:
        print(json.dumps(measure(json.loads(line))), flush=True)


def measure(order: dict[str, Any]) -> dict[str, float]:
    """``order``: ``port`` (of the other end; absent: listen), ``lanes``, ``spin``, ``run`` and its ``parameters``."""
    listens = "port" not in order
    if listens:
        listener = native.listen(address=ADDRESS)
        print(json.dumps({"port": listener.port}), flush=True)
        end = listener.accept(token=TOKEN, lanes=order["lanes"], spin=order["spin"])
    else:
        end = native.connect(address=ADDRESS, port=order["port"], token=TOKEN, lanes=order["lanes"], spin=order["spin"])
    with end:
        if order["run"] == "bandwidth":
            got = end.bandwidth(sends=not listens, receives=listens, **order["parameters"])
            return {"bytes": got.bytes, "elapsed": got.elapsed, "wrong": got.wrong}
        trips = end.latency(initiates=not listens, **order["parameters"])
        return {"p50": float(sorted(trips.samples)[len(trips.samples) // 2]) if len(trips.samples) else 0.0}


if __name__ == "__main__":
    main()
