"""Both ends of an RDMA connection in one process, over a path of the guest. Prints one JSON line of what came of it."""

from __future__ import annotations

import json
import statistics
import sys
import threading
import time
from collections.abc import Callable

from cwai_bench import native
from cwai_bench.errors import CwaiError

TOKEN = bytes(range(32))
PATIENCE = 18
"""Exponent of the time that a packet's answer is waited for: an emulated machine stands still at times."""


def pair(path: int, *, lanes: int = 1, spin: bool = False) -> tuple[native.Connection, ...]:
    listener = native.listen(address="127.0.0.1", port=0)

    def over(control: native.Connection, device: str) -> native.Connection:
        return native.verbs_over(control, device=device, lanes=lanes, spin=spin, timeout_exponent=PATIENCE, timeout=20)

    return native.both(
        lambda: over(native.connect(address="127.0.0.1", port=listener.port, token=TOKEN, timeout=20), f"rxea{path}"),
        lambda: over(listener.accept(token=TOKEN, timeout=20), f"rxeb{path}"),
    )


def measure(path: int, lanes: int, *, spin: bool) -> dict[str, object]:
    client, server = pair(path, lanes=lanes, spin=spin)
    _, one_way = native.both(
        lambda: client.bandwidth(size=65536, sends=True, duration=1.0, timeout=60),
        lambda: server.bandwidth(size=65536, receives=True, duration=1.0, timeout=60),
    )
    there, back = native.both(
        lambda: client.bandwidth(size=4096, sends=True, receives=True, duration=0.5, timeout=60),
        lambda: server.bandwidth(size=4096, sends=True, receives=True, duration=0.5, timeout=60),
    )
    trips, _ = native.both(
        lambda: client.latency(size=8, initiates=True, iterations=200, timeout=60),
        lambda: server.latency(size=8, initiates=False, iterations=200, timeout=60),
    )
    return {
        "ends": [client.local, server.local, client.transport],
        "lanes": client.lanes,
        "bandwidth": one_way.bytes / one_way.elapsed,
        "samples": len(one_way.samples),
        "two_way": [r.bytes / r.elapsed for r in (there, back)],
        "wrong": one_way.wrong + there.wrong + back.wrong + trips.wrong,
        "half_trip": statistics.median(trips.samples) / 2,
        "trips": len(trips.samples),
    }


def said(call: Callable[[], object]) -> str:
    """The first line of the error that ``call`` ends with."""
    try:
        call()
    except CwaiError as error:
        return error.show("en").splitlines()[0]
    return "nothing"


def troubles() -> dict[str, object]:
    """What each of several troubles is called, and how long it took to be told."""
    found: dict[str, object] = {}
    listener = native.listen(address="127.0.0.1", port=0)

    def without(device: str, port: int = 1, gid_index: int = -1) -> str:
        def end(control: native.Connection) -> None:
            native.verbs_over(control, device=device, port=port, gid_index=gid_index, timeout=5)

        first, _ = native.both(
            lambda: said(lambda: end(native.connect(address="127.0.0.1", port=listener.port, token=TOKEN))),
            lambda: said(lambda: end(listener.accept(token=TOKEN))),
        )
        return first

    found["no device"] = without("mlx5_0")
    found["no port"] = without("rxea0", port=7)
    found["no gid"] = without("rxea0", gid_index=200)

    client, server = pair(0)
    started = time.monotonic()
    leaver = threading.Timer(1.0, client.close)
    leaver.start()
    found["peer left"] = said(lambda: server.bandwidth(size=4096, receives=True, duration=30, timeout=60))
    leaver.join()
    found["peer left after"] = time.monotonic() - started

    return found


def main() -> None:
    if sys.argv[1] == "troubles":
        print(json.dumps(troubles()))
    else:
        print(json.dumps(measure(int(sys.argv[1]), int(sys.argv[2]), spin=sys.argv[3] == "spin")))


if __name__ == "__main__":
    main()
