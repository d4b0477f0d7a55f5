"""Both ends of an RDMA connection in one process, over a path of the guest. Prints one JSON line of what came of it."""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from typing import Any

from cwai_bench import native
from cwai_bench.errors import CwaiError
from cwai_bench.judge.ports import explained
from cwai_bench.probes import counters

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


def over_queue_pairs(control: native.Connection, device: str, **options: Any) -> native.QueuePairs:
    return native.queue_pairs(control, device=device, timeout_exponent=PATIENCE, timeout=20, **options)


def queue_pairs(path: int, **options: Any) -> tuple[native.QueuePairs, ...]:
    listener = native.listen(address="127.0.0.1", port=0)

    return native.both(
        lambda: over_queue_pairs(
            native.connect(address="127.0.0.1", port=listener.port, token=TOKEN, timeout=20), f"rxea{path}", **options
        ),
        lambda: over_queue_pairs(listener.accept(token=TOKEN, timeout=20), f"rxeb{path}", **options),
    )


def rdma() -> dict[str, object]:
    """Write, read and send: sizes, one way and two, one queue pair and many, and round trips."""
    runs: list[dict[str, object]] = []

    def bandwidth(verb: str, size: int, count: int, *, two_way: bool = False, **options: Any) -> None:
        first, second = queue_pairs(0, count=count, **options)
        common: dict[str, Any] = {"verb": verb, "size": size, "two_way": two_way, "duration": 0.3, "timeout": 60}
        there, back = native.both(
            lambda: first.bandwidth(initiates=True, **common), lambda: second.bandwidth(initiates=two_way, **common)
        )
        runs.append(
            {
                "run": [verb, size, count, two_way],
                "moved": [there.bytes, back.bytes],
                "told": [back.peer_bytes, there.peer_bytes],
                "wrong": there.wrong + back.wrong,
                "samples": len(there.samples),
                "mtu": [first.mtu, second.mtu],
            }
        )

    for verb in ("write", "read", "send"):
        bandwidth(verb, 64, 1)
        bandwidth(verb, 65536, 4)
        bandwidth(verb, 4096, 1, two_way=True)
    bandwidth("write", 4096, 32)
    bandwidth("write", 65536, 1, mtu=1024, cold=True)
    bandwidth("send", 200, 2, inline=256, post_list=8)
    trips = {}
    for verb in ("write", "read", "send"):
        first, second = queue_pairs(0)
        asked, answered = native.both(
            lambda: first.latency(verb=verb, initiates=True, iterations=100, timeout=60),  # noqa: B023
            lambda: second.latency(verb=verb, initiates=False, iterations=100, timeout=60),  # noqa: B023
        )
        trips[verb] = [len(asked.samples), min(asked.samples), asked.wrong + answered.wrong]
    return {"end": [first.gid, first.gid_index, first.link_layer, first.roce], "runs": runs, "trips": trips}


def said(call: Callable[[], object]) -> str:
    """The first line of the error that ``call`` ends with."""
    try:
        call()
    except CwaiError as error:
        return error.show("en").splitlines()[0]
    return "nothing"


def receiving_end(port: int) -> None:
    """A process of its own that receives until it is killed."""
    control = native.connect(address="127.0.0.1", port=port, token=TOKEN, timeout=20)
    over_queue_pairs(control, "rxeb0").bandwidth(verb="send", size=4096, initiates=False, duration=60, timeout=90)


def killed() -> tuple[str, float]:
    """What a peer that is killed in the middle is called, and how long after that it was told."""
    listener = native.listen(address="127.0.0.1", port=0)
    peer = subprocess.Popen([sys.executable, "-m", "tests.lab.verbs_program", "receive", str(listener.port)])
    pairs = over_queue_pairs(listener.accept(token=TOKEN, timeout=60), "rxea0")
    killing = threading.Timer(2.0, peer.kill)
    killing.start()
    started = time.monotonic()
    told = said(lambda: pairs.bandwidth(verb="send", size=4096, initiates=True, duration=60, timeout=90))
    peer.wait()
    return told, time.monotonic() - started - 2.0


def disagreeing() -> tuple[str, list[int]]:
    """What ends are told that do not ask for the same; and the MTU that they agree on where one wants a small one."""
    listener = native.listen(address="127.0.0.1", port=0)
    first, second = native.both(
        lambda: over_queue_pairs(
            native.connect(address="127.0.0.1", port=listener.port, token=TOKEN, timeout=20), "rxea0", mtu=1024
        ),
        lambda: over_queue_pairs(listener.accept(token=TOKEN, timeout=20), "rxeb0"),
    )
    told, _ = native.both(
        lambda: said(lambda: first.bandwidth(verb="write", size=64, initiates=True, timeout=20)),
        lambda: said(lambda: second.bandwidth(verb="read", size=64, initiates=False, timeout=20)),
    )
    return told, [first.mtu, second.mtu]


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

    found["peer killed"], found["peer killed after"] = killed()
    found["disagree"], found["mtu"] = disagreeing()
    return found


def shell(command: str) -> None:
    subprocess.run(command.split(), check=True, timeout=20)


def round_trip(path: int) -> float:
    """The median, in seconds; and nothing arrived wrong."""
    first, second = queue_pairs(path)
    common: dict[str, Any] = {"iterations": 5, "warmup": 1, "timeout": 60}
    asked, _ = native.both(
        lambda: first.latency(initiates=True, **common), lambda: second.latency(initiates=False, **common)
    )
    assert asked.wrong == 0
    return float(statistics.median(asked.samples))


def lossy() -> tuple[int, int, list[str]]:
    """Path 0 loses packets: bytes that moved, those that were wrong, and what the counters say of it."""
    ports = {name: counters.Port(name) for name in ("rxea0", "rxeb0")}
    first, second = queue_pairs(0, depth=8)
    common: dict[str, Any] = {"size": 16384, "duration": 1.0, "timeout": 90}
    with counters.watched(ports) as moves:
        there, _ = native.both(
            lambda: first.bandwidth(initiates=True, **common), lambda: second.bandwidth(initiates=False, **common)
        )
    return there.bytes, there.wrong, [sign.text.en for sign in explained(moves, there.bytes) if sign.fault]


def cut() -> tuple[list[str], float]:
    """What both ends say when their path is cut while they measure, and how long after that."""
    first, second = queue_pairs(0, retries=2)
    cutting = threading.Timer(1.5, shell, ("ip link set b0 down",))
    cutting.start()
    started = time.monotonic()
    common: dict[str, Any] = {"size": 4096, "duration": 30.0, "timeout": 60}
    told = native.both(
        lambda: said(lambda: first.bandwidth(initiates=True, **common)),
        lambda: said(lambda: second.bandwidth(initiates=False, **common)),
    )
    cutting.join()
    return list(told), time.monotonic() - started - 1.5


def disturbed() -> dict[str, object]:
    found: dict[str, object] = {"undelayed": round_trip(1)}
    shell("tc qdisc add dev a1 root netem delay 200ms")
    found["delayed"] = round_trip(1)
    shell("ip link set b1 mtu 1500")
    found["mtu"] = [end.mtu for end in queue_pairs(1)]
    shell("tc qdisc add dev a0 root netem loss 2%")
    found["lossy"] = lossy()
    shell("tc qdisc del dev a0 root")
    found["cut"], found["cut after"] = cut()
    return found


def main() -> None:
    if sys.argv[1] == "receive":
        receiving_end(int(sys.argv[2]))
    elif sys.argv[1] == "disturbed":
        print(json.dumps(disturbed()))
    elif sys.argv[1] == "troubles":
        print(json.dumps(troubles()))
    elif sys.argv[1] == "rdma":
        print(json.dumps(rdma()))
    else:
        print(json.dumps(measure(int(sys.argv[1]), int(sys.argv[2]), spin=sys.argv[3] == "spin")))


if __name__ == "__main__":
    main()
