"""One end of our TCP and RDMA measurements as a process of its own, as the peers have it: one thread per end.

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
    """``order``: ``port`` (of the other end; absent: listen), ``lanes``, ``spin``, ``run`` and its ``parameters``.

    With ``devices`` (of the end that connects, of the one that listens) RDMA: ``lanes`` queue pairs, ``options`` of
    :func:`cwai_bench.native.queue_pairs`; the end that connects initiates.
    """
    listens = "port" not in order
    if listens:
        listener = native.listen(address=ADDRESS)
        print(json.dumps({"port": listener.port}), flush=True)
        end = listener.accept(token=TOKEN, lanes=order["lanes"], spin=order["spin"])
    else:
        end = native.connect(address=ADDRESS, port=order["port"], token=TOKEN, lanes=order["lanes"], spin=order["spin"])
    if "devices" in order:
        return rdma(end, order, initiates=not listens)
    with end:
        if order["run"] == "bandwidth":
            got = end.bandwidth(sends=not listens, receives=listens, **order["parameters"])
            return {"bytes": got.bytes, "elapsed": got.elapsed, "wrong": got.wrong}
        return percentiles(end.latency(initiates=not listens, **order["parameters"]))


def rdma(control: native.Connection, order: dict[str, Any], *, initiates: bool) -> dict[str, float]:
    device = order["devices"][0 if initiates else 1]
    with native.queue_pairs(control, device=device, count=order["lanes"], **order["options"]) as pairs:
        if order["run"] == "latency":
            return percentiles(pairs.latency(initiates=initiates, **order["parameters"]))
        got = pairs.bandwidth(initiates=initiates, **order["parameters"])
        return {"bytes": got.bytes, "elapsed": got.elapsed, "wrong": got.wrong}


def percentiles(trips: native.Latency) -> dict[str, float]:
    """Zeros on the end that answers, which has no samples."""
    ordered = sorted(trips.samples) or [0.0]
    return {"p50": float(ordered[len(ordered) // 2]), "p99": float(ordered[int(0.99 * (len(ordered) - 1))])}


if __name__ == "__main__":
    main()
